//! What an error of PostgreSQL means for the caller, by its SQLSTATE. Never looks at a message's
//! text.

use ports::Fault;
use tokio_postgres::Error;

/// When an error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum During {
    /// The first login of a store, which says whether the address is right.
    Login,
    /// A statement, with no COMMIT sent behind it.
    Statement,
    /// A statement with a COMMIT behind it in the same pipeline.
    StatementBeforeCommit,
    /// The COMMIT itself.
    Commit,
}

/// SQLSTATE of the division by zero that [`crate::statement`] uses to fail a put at once.
const OTHER_VERSION: &str = "22012";

/// The one place where errors of the server and of the driver become faults.
pub(crate) fn classify(error: &Error, during: During) -> Fault {
    let text = match error.as_db_error() {
        // Not the detail: it can hold a row.
        Some(error) => format!("{}: {}", error.code().code(), error.message()),
        // The driver's own text leaves its cause out.
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    };
    let wordless = || std::error::Error::source(error).filter(|_| error.as_db_error().is_none());
    if during == During::Login && wordless().is_some_and(never) {
        return Fault::refused(text);
    }
    by_state(error.code().map(|state| state.code()), during, text)
}

/// Whether a login that failed without a word of the server will always fail: this side has not what the server
/// asks for, such as a password. A connection that is refused or breaks is an error of I/O or of TLS, which may pass.
fn never(cause: &(dyn std::error::Error + 'static)) -> bool {
    tls::refused(cause) || (!cause.is::<std::io::Error>() && !tls::is_own(cause))
}

/// The fault where no answer came in time.
pub(crate) fn silent(during: During) -> Fault {
    by_state(None, during, "the server does not answer".to_owned())
}

/// `None`: no answer of the server, the connection is gone or closed itself.
fn by_state(state: Option<&str>, during: During, text: String) -> Fault {
    if state == Some(OTHER_VERSION) {
        return Fault::retry("a row has another version");
    }
    match (state.and_then(|state| state.get(..2)), during) {
        (Some("22" | "23" | "54"), _) | (Some("28"), During::Login) => Fault::refused(text),
        // Even a session that was told to end may have committed before it ended: the wait for a
        // synchronous standby comes after the local commit.
        (None | Some("08" | "57" | "58" | "XX"), During::Commit) => Fault::unknown(text),
        (None, During::StatementBeforeCommit) => Fault::unknown(text),
        // Also what an operator can mend (a missing right, table or disk space): inputs must not
        // become dead letters by it.
        _ => Fault::retry(text),
    }
}

/// Whether the session is in order after this error: it only has to be rolled back.
pub(crate) fn keeps_session(error: &Error) -> bool {
    let class = error.code().and_then(|state| state.code().get(..2));
    matches!(class, Some("22" | "23" | "40" | "55"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(state: Option<&str>, during: During) -> &'static str {
        match by_state(state, during, String::new()) {
            Fault::Retry(_) => "retry",
            Fault::Refused(_) => "refused",
            Fault::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn what_this_side_has_not_is_refused_and_what_may_pass_is_not() {
        let missing: Box<dyn std::error::Error + Send + Sync> = "password missing".into();
        let missing: Box<dyn std::error::Error> = missing;
        assert!(never(&*missing));
        assert!(!never(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
        assert!(!never(&std::io::Error::other("a stream that broke")));
    }

    #[test]
    fn errors_are_classified_by_what_the_caller_may_do() {
        let table = [
            // connection gone, connection exceptions
            (None, "retry", "unknown", "unknown"),
            (Some("08006"), "retry", "retry", "unknown"),
            (Some("08P01"), "retry", "retry", "unknown"),
            // data and integrity
            (Some("22001"), "refused", "refused", "refused"),
            (Some("22021"), "refused", "refused", "refused"),
            (Some("23502"), "refused", "refused", "refused"),
            (Some("23505"), "refused", "refused", "refused"),
            // limits of the server that only less gets through
            (Some("54000"), "refused", "refused", "refused"),
            // the version check of a put
            (Some("22012"), "retry", "retry", "retry"),
            // serialization failure, deadlock
            (Some("40001"), "retry", "retry", "retry"),
            (Some("40P01"), "retry", "retry", "retry"),
            // resources, lock timeout
            (Some("53100"), "retry", "retry", "retry"),
            (Some("53300"), "retry", "retry", "retry"),
            (Some("55P03"), "retry", "retry", "retry"),
            // operator, statement timeout, start-up, system, internal
            (Some("57P01"), "retry", "retry", "unknown"),
            (Some("57P03"), "retry", "retry", "unknown"),
            (Some("57014"), "retry", "retry", "unknown"),
            (Some("58030"), "retry", "retry", "unknown"),
            (Some("XX000"), "retry", "retry", "unknown"),
            // idle-in-transaction timeout, aborted transaction
            (Some("25P03"), "retry", "retry", "retry"),
            (Some("25P02"), "retry", "retry", "retry"),
            // rights and tables can be mended
            (Some("42501"), "retry", "retry", "retry"),
            (Some("42P01"), "retry", "retry", "retry"),
        ];
        // who we say we are, at the first login and later
        assert_eq!(name(Some("28P01"), During::Login), "refused");
        assert_eq!(name(Some("28P01"), During::Statement), "retry");
        assert_eq!(name(None, During::Login), "retry");
        for (state, statement, before_commit, commit) in table {
            assert_eq!(name(state, During::Statement), statement, "{state:?}");
            assert_eq!(name(state, During::StatementBeforeCommit), before_commit, "{state:?}");
            assert_eq!(name(state, During::Commit), commit, "{state:?}");
        }
    }
}
