//! What an error of lapin means for the caller. Never guesses that something unanswered was done.

use std::future::Future;
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};
use ports::{Fault, Outcome};

/// How long the server may take to answer. Far above a quorum's fsync; below it a stall (a resource
/// alarm, broker-contract R30) would be waited for without end.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long a channel may take to open: nothing is synced for it. A call on a connection that dies at that
/// moment may never end in lapin 4.12, and messages shall flow again within 10 s.
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// How long it may take to hand an ack to the socket: nobody answers it. lapin 4.12 can leave it
/// unresolved for good where the connection dies at that moment.
pub(crate) const ACK_LIMIT: Duration = Duration::from_secs(5);

/// Where a call was when the error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The first login, which says whether the address is right.
    Login,
    /// Connecting and logging in later.
    Connect,
    /// A request that changes nothing for others: a channel, a consumer, a count.
    Ask,
    /// A request that changes something, whose own answer an error on the channel is.
    Change,
    /// Something that was sent and whose answer is awaited among others.
    Sent,
}

/// The one place where errors of lapin become faults.
pub(crate) fn classify(stage: Stage, error: &Error) -> Fault {
    // lapin's texts hold addresses and the server's words, no credentials.
    let text = error.to_string();
    let meaning = match error.kind() {
        ErrorKind::ProtocolError(protocol) => match protocol.kind() {
            AMQPErrorKind::Soft(soft) => match soft {
                AMQPSoftError::RESOURCELOCKED | AMQPSoftError::NOCONSUMERS => Meaning::NotNow,
                AMQPSoftError::ACCESSREFUSED
                | AMQPSoftError::NOTFOUND
                | AMQPSoftError::PRECONDITIONFAILED
                | AMQPSoftError::CONTENTTOOLARGE
                | AMQPSoftError::NOROUTE => Meaning::Never,
            },
            AMQPErrorKind::Hard(hard) => match hard {
                AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH
                    if matches!(stage, Stage::Login | Stage::Connect) =>
                {
                    Meaning::Never
                }
                // It ends the whole connection, perhaps for what another channel did.
                _ => Meaning::Lost,
            },
        },
        // lapin looked at its own state first and sent nothing.
        ErrorKind::ChannelsLimitReached
        | ErrorKind::InvalidChannel(_)
        | ErrorKind::InvalidChannelState(..)
        | ErrorKind::InvalidConnectionState(_) => Meaning::NotNow,
        ErrorKind::IOError(error) if stage == Stage::Login && tls::refused(&**error) => {
            Meaning::Never
        }
        ErrorKind::SerialisationError(_)
        | ErrorKind::InvalidProtocolVersion(_)
        | ErrorKind::AuthProviderError(_)
        | ErrorKind::NoDefaultRuntime => Meaning::Never,
        _ => Meaning::Lost,
    };
    match (stage, meaning) {
        (Stage::Sent, _) | (Stage::Change, Meaning::Lost) => Fault::unknown(text),
        (_, Meaning::Never) => Fault::refused(text),
        (_, Meaning::NotNow) | (Stage::Login | Stage::Connect | Stage::Ask, Meaning::Lost) => {
            Fault::retry(text)
        }
    }
}

enum Meaning {
    Never,
    NotNow,
    Lost,
}

/// Awaits the server's answer, with a limit.
pub(crate) async fn limited<T>(
    stage: Stage,
    what: &'static str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Outcome<T> {
    limited_to(ANSWER_LIMIT, stage, what, call).await
}

/// As [`limited`], with another limit.
pub(crate) async fn limited_to<T>(
    limit: Duration,
    stage: Stage,
    what: &'static str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Outcome<T> {
    let answer = in_time(limit, stage, what, call).await?;
    answer.map_err(|error| classify(stage, &error))
}

/// As [`limited`], for who reads the server's refusal.
pub(crate) async fn limited_raw<T>(
    stage: Stage,
    what: &'static str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Outcome<lapin::Result<T>> {
    in_time(ANSWER_LIMIT, stage, what, call).await
}

#[allow(clippy::disallowed_methods)] // An adapter: real time.
async fn in_time<T>(
    limit: Duration,
    stage: Stage,
    what: &'static str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Outcome<lapin::Result<T>> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer),
        Err(_) => {
            let text = format!("no answer to {what} within {} s", limit.as_secs());
            Err(match stage {
                Stage::Login | Stage::Connect | Stage::Ask => Fault::retry(text),
                Stage::Change | Stage::Sent => Fault::unknown(text),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use lapin::protocol::AMQPError;
    use lapin::{ChannelState, ConnectionState};

    use super::*;

    fn letter(fault: Fault) -> char {
        match fault {
            Fault::Retry(_) => 'T',
            Fault::Refused(_) => 'R',
            Fault::Unknown(_) => 'U',
        }
    }

    #[test]
    fn silence_by_stage() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let stages = [Stage::Login, Stage::Connect, Stage::Ask, Stage::Change, Stage::Sent];
        let found: String = stages
            .into_iter()
            .map(|stage| {
                let silence = std::future::pending::<lapin::Result<()>>();
                let call = limited_to(Duration::from_millis(1), stage, "a call", silence);
                letter(runtime.block_on(call).unwrap_err())
            })
            .collect();
        assert_eq!(found, "TTTUU");
    }

    #[test]
    fn every_error_by_stage() {
        let soft = |kind: AMQPSoftError| {
            ErrorKind::ProtocolError(AMQPError::new(kind.into(), "text".into()))
        };
        let hard = |kind: AMQPHardError| {
            ErrorKind::ProtocolError(AMQPError::new(kind.into(), "text".into()))
        };
        let reset = Arc::new(io::Error::from(io::ErrorKind::ConnectionReset));
        // Connect, Ask, Change, Sent: reTry, Refused, Unknown.
        let table = [
            (soft(AMQPSoftError::ACCESSREFUSED), "RRRU"),
            (soft(AMQPSoftError::NOTFOUND), "RRRU"),
            (soft(AMQPSoftError::PRECONDITIONFAILED), "RRRU"),
            (soft(AMQPSoftError::CONTENTTOOLARGE), "RRRU"),
            (soft(AMQPSoftError::RESOURCELOCKED), "TTTU"),
            (soft(AMQPSoftError::NOCONSUMERS), "TTTU"),
            (hard(AMQPHardError::NOTALLOWED), "RTUU"),
            (hard(AMQPHardError::INVALIDPATH), "RTUU"),
            (hard(AMQPHardError::CONNECTIONFORCED), "TTUU"),
            (hard(AMQPHardError::INTERNALERROR), "TTUU"),
            (ErrorKind::ChannelsLimitReached, "TTTU"),
            (ErrorKind::InvalidChannel(3), "TTTU"),
            (ErrorKind::InvalidChannelState(ChannelState::Closed, "x"), "TTTU"),
            (ErrorKind::InvalidConnectionState(ConnectionState::Closed), "TTTU"),
            (ErrorKind::IOError(reset.clone()), "TTUU"),
            (ErrorKind::RuntimeShutdownError(reset), "TTUU"),
            (ErrorKind::MissingHeartbeatError, "TTUU"),
            (ErrorKind::FutureCompleted, "TTUU"),
            (ErrorKind::AuthProviderError("x".to_owned()), "RRRU"),
            (ErrorKind::NoDefaultRuntime, "RRRU"),
        ];
        let stages = [Stage::Connect, Stage::Ask, Stage::Change, Stage::Sent];
        for (kind, expected) in table {
            let error = Error::from(kind);
            let found: String =
                stages.iter().map(|stage| letter(classify(*stage, &error))).collect();
            assert_eq!(found, expected, "{error:?}");
        }
    }
}
