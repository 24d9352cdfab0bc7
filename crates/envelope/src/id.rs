//! Identifiers: strings of at most 64 visible ASCII characters, made by one parser. Never mints one.

/// Why a text is no identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// No character at all.
    #[error("an id must not be empty")]
    Empty,
    /// More than 64 characters.
    #[error("an id has at most 64 characters")]
    TooLong,
    /// A space, a control character or a character outside ASCII.
    #[error("an id has visible ASCII characters only")]
    NotVisible,
}

/// Longest identifier, in characters.
pub const ID_CHARS_MAX: usize = 64;

/// The check behind every identifier type.
pub trait Id {
    /// Whether the text is an identifier.
    fn check(text: &str) -> Result<(), IdError> {
        match text {
            "" => Err(IdError::Empty),
            _ if !text.bytes().all(|b| b.is_ascii_graphic()) => Err(IdError::NotVisible),
            _ if text.len() > ID_CHARS_MAX => Err(IdError::TooLong),
            _ => Ok(()),
        }
    }
}

/// Declares identifier types: newtypes over shared text, serialised as strings and checked on read.
#[macro_export]
macro_rules! id_types {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(std::sync::Arc<str>);

        impl $crate::Id for $name {}

        impl $name {
            /// The one way to make it: at most 64 visible ASCII characters.
            pub fn parse(text: impl AsRef<str>) -> Result<Self, $crate::IdError> {
                <Self as $crate::Id>::check(text.as_ref())?;
                Ok(Self(text.as_ref().into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text as a row's or record's key.
            pub fn key(&self) -> std::sync::Arc<str> {
                self.0.clone()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $crate::serde::Serialize for $name {
            fn serialize<S: $crate::serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> $crate::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::parsed(from, |text| Self::parse(text))
            }
        }
    )+};
}

id_types! {
    /// Unique for each event.
    EventId,
    /// What belongs together.
    CorrelationId,
}
