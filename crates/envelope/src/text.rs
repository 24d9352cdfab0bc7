//! Reading values out of JSON strings, without a copy of the string on the way. Never keeps the text.

use std::fmt::{self, Display};

use serde::de::{Deserializer, Error, Visitor};

/// Reads a string, and by `parse` what it says.
pub fn parsed<'de, T, C: Display, D: Deserializer<'de>>(
    from: D,
    parse: impl FnOnce(&str) -> Result<T, C>,
) -> Result<T, D::Error> {
    from.deserialize_str(Text(parse))
}

struct Text<F>(F);

impl<T, C: Display, F: FnOnce(&str) -> Result<T, C>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}
