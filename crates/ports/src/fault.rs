//! What a port call can end in. Never says how: the adapters classify their errors by hand.

use std::borrow::Cow;
use std::fmt;

/// The result of a port call that can fail.
pub type Outcome<T> = Result<T, Fault>;

/// Why a port call did not succeed, by what the caller may do next.
///
/// There is no blanket `From`: each adapter classifies its errors in one function with a table test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It had no effect; the same call may succeed later.
    #[error("no effect, try again: {0}")]
    Retry(Cause),
    /// It had no effect and never will as it stands (too large, fenced, unroutable, bad data).
    #[error("refused: {0}")]
    Refused(Cause),
    /// It may have happened, and may still happen. Repeat with the same ids, or read back.
    #[error("outcome unknown: {0}")]
    Unknown(Cause),
}

impl Fault {
    /// A [`Fault::Retry`] with this text.
    pub fn retry(cause: impl Into<Cow<'static, str>>) -> Self {
        Fault::Retry(Cause(cause.into()))
    }

    /// A [`Fault::Refused`] with this text.
    pub fn refused(cause: impl Into<Cow<'static, str>>) -> Self {
        Fault::Refused(Cause(cause.into()))
    }

    /// A [`Fault::Unknown`] with this text.
    pub fn unknown(cause: impl Into<Cow<'static, str>>) -> Self {
        Fault::Unknown(Cause(cause.into()))
    }
}

/// What went wrong, for people and logs. Never holds a secret or a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause(pub Cow<'static, str>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
