//! What the client library's error codes mean to a caller. One function, no state; never guesses
//! in favour of "no effect".

use ports::Fault;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// What was asked for when the error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Handing a record to the producer's queue: an error means that it never left.
    Enqueue,
    /// Delivering a record that was queued.
    Deliver,
    /// Committing offsets.
    Commit,
    /// Creating a topic.
    Create,
    /// Reading records, metadata, watermarks or offsets: it changes nothing.
    Read,
}

/// The fault for an error code, by what was asked for.
pub fn classify(call: Call, code: Code) -> Fault {
    let cause = format!("{call:?}: {code:?}");
    if refused(call, code) {
        return Fault::refused(cause);
    }
    match call {
        Call::Enqueue | Call::Read => Fault::retry(cause),
        // Even what timed out in the queue may be a resend of what was in flight before (K11).
        Call::Deliver => Fault::unknown(cause),
        // A coordinator that has written a commit and then waits in vain for its replicas, or is no longer the
        // coordinator, says CoordinatorNotAvailable or NotCoordinator.
        Call::Commit => match code {
            Code::RebalanceInProgress | Code::CoordinatorLoadInProgress => Fault::retry(cause),
            _ => Fault::unknown(cause),
        },
        // A controller that has written a topic and then loses its office says NotController.
        Call::Create => match code {
            Code::ThrottlingQuotaExceeded => Fault::retry(cause),
            _ => Fault::unknown(cause),
        },
    }
}

/// Whether it had no effect and never will as it stands.
fn refused(call: Call, code: Code) -> bool {
    match code {
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::InvalidTopic
        | Code::InvalidGroupId
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature => true,
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidMessageSize => matches!(call, Call::Enqueue | Call::Deliver),
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition => {
            call != Call::Create
        }
        // Fenced: the partitions are someone else's (K19, K21, K26).
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::StaleMemberEpoch
        | Code::GroupIdNotFound
        | Code::UnknownGroup
        | Code::AssignmentLost
        | Code::Fenced
        | Code::OffsetMetadataTooLarge
        | Code::InvalidCommitOffsetSize => call == Call::Commit,
        Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::InvalidRequest
        | Code::PolicyViolation => call == Call::Create,
        _ => false,
    }
}

/// The fault for an error of the client library.
pub(crate) fn fault(call: Call, error: &KafkaError) -> Fault {
    match error.rdkafka_error_code() {
        Some(code) => classify(call, code),
        None => match call {
            Call::Enqueue | Call::Read => Fault::retry(error.to_string()),
            Call::Deliver | Call::Commit | Call::Create => Fault::unknown(error.to_string()),
        },
    }
}

/// The fault where a client cannot be made. The library's text may hold the value, which may be a
/// password.
pub(crate) fn not_created(error: KafkaError) -> Fault {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => {
            Fault::refused(format!("{name}: the client library does not take this value"))
        }
        _ => Fault::refused(error.to_string()),
    }
}

/// Whether the client is beyond repair and a new one is needed (K8).
pub(crate) fn is_fatal(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || error.rdkafka_error_code() == Some(Code::Fatal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_caller_may_do_next() {
        let table: [(Call, Code, &str); 28] = [
            (Call::Enqueue, Code::QueueFull, "retry"),
            (Call::Enqueue, Code::Fatal, "retry"),
            (Call::Enqueue, Code::MessageSizeTooLarge, "refused"),
            (Call::Enqueue, Code::UnknownTopic, "refused"),
            (Call::Enqueue, Code::UnknownPartition, "refused"),
            (Call::Deliver, Code::MessageSizeTooLarge, "refused"),
            (Call::Deliver, Code::TopicAuthorizationFailed, "refused"),
            (Call::Deliver, Code::UnknownTopicOrPartition, "refused"),
            (Call::Deliver, Code::MessageTimedOut, "unknown"),
            (Call::Deliver, Code::RequestTimedOut, "unknown"),
            (Call::Deliver, Code::NotEnoughReplicasAfterAppend, "unknown"),
            (Call::Deliver, Code::PurgeInflight, "unknown"),
            (Call::Deliver, Code::Fatal, "unknown"),
            (Call::Commit, Code::IllegalGeneration, "refused"),
            (Call::Commit, Code::UnknownMemberId, "refused"),
            (Call::Commit, Code::FencedInstanceId, "refused"),
            (Call::Commit, Code::RebalanceInProgress, "retry"),
            (Call::Commit, Code::CoordinatorLoadInProgress, "retry"),
            (Call::Commit, Code::CoordinatorNotAvailable, "unknown"),
            (Call::Commit, Code::NotCoordinator, "unknown"),
            (Call::Commit, Code::WaitingForCoordinator, "unknown"),
            (Call::Commit, Code::OperationTimedOut, "unknown"),
            (Call::Commit, Code::BrokerTransportFailure, "unknown"),
            (Call::Create, Code::PolicyViolation, "refused"),
            (Call::Create, Code::ThrottlingQuotaExceeded, "retry"),
            (Call::Create, Code::OperationTimedOut, "unknown"),
            (Call::Create, Code::NotController, "unknown"),
            (Call::Read, Code::BrokerTransportFailure, "retry"),
        ];
        for (call, code, expected) in table {
            assert_eq!(name(classify(call, code)), expected, "{call:?} {code:?}");
        }
    }

    fn name(fault: Fault) -> &'static str {
        match fault {
            Fault::Retry(_) => "retry",
            Fault::Refused(_) => "refused",
            Fault::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn an_error_without_a_code_says_no_more_than_what_was_asked_for() {
        for (call, expected) in [
            (Call::Enqueue, "retry"),
            (Call::Read, "retry"),
            (Call::Deliver, "unknown"),
            (Call::Commit, "unknown"),
            (Call::Create, "unknown"),
        ] {
            assert_eq!(name(fault(call, &KafkaError::Canceled)), expected, "{call:?}");
        }
    }
}
