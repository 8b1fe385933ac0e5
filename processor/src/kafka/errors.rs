//! Which error means what: librdkafka's codes and flags to the engine's [`Failure`].
//!
//! Guards engine rule 6: the order is fenced → not allowed → producer id lost → fatal → stale membership →
//! abortable → *everything else is a rebuild*. Nothing here talks to a broker.

use processor_engine::Failure;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// An error of librdkafka with its transactional flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeError {
    /// Error code.
    pub code: RDKafkaErrorCode,
    /// Text of the library.
    pub text: String,
    /// The producer is unusable.
    pub fatal: bool,
    /// The transaction must be aborted.
    pub abortable: bool,
    /// The same call may be made again.
    pub retriable: bool,
}

impl NativeError {
    /// An error without flags.
    pub(super) fn local(code: RDKafkaErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), fatal: false, abortable: false, retriable: false }
    }

    /// Takes over what the crate reports.
    pub(super) fn of(error: &KafkaError) -> Self {
        match error {
            KafkaError::Transaction(error) => Self {
                code: error.code(),
                text: error.string(),
                fatal: error.is_fatal(),
                abortable: error.txn_requires_abort(),
                retriable: error.is_retriable(),
            },
            other => Self::local(other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), other.to_string()),
        }
    }

    /// Whether the same call may simply be made again: retriable, and not a timeout. A request that timed out
    /// may still reach the broker (under transaction protocol V1 even in a later transaction), so after one the
    /// producer is retired instead (librdkafka#5423).
    pub(super) fn may_be_repeated(&self) -> bool {
        self.retriable && !self.fatal && !self.abortable && !is_timeout(self.code)
    }
}

/// Whether a request may have been sent and its answer was not seen in time.
pub(super) fn is_timeout(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::TimedOutQueue
    )
}

/// Whether asking again later may help, for requests that change nothing (offset fetch, list offsets, …).
pub(super) fn is_transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    is_timeout(code)
        || matches!(
            code,
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::WaitingForCoordinator
                | Code::WaitCache
                | Code::Retry
                | Code::InProgress
                | Code::Outdated
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::BrokerNotAvailable
                | Code::ReplicaNotAvailable
                | Code::NetworkException
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::NotController
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                | Code::OffsetNotAvailable
                | Code::UnstableOffsetCommit
                | Code::ThrottlingQuotaExceeded
                | Code::RebalanceInProgress
                | Code::StaleMemberEpoch
                | Code::UnknownBroker
                | Code::DestroyBroker
        )
}

/// Whether the topic or partition is not there (which right after its creation may only mean: not yet).
pub(super) fn is_unknown_topic(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId)
}

/// A refusal for missing rights or a wrong login, if the code is one.
pub(super) fn refusal(code: RDKafkaErrorCode, doing: &str, text: &str) -> Option<Failure> {
    service_kafka::refusal(code, doing, text).map(super::stop)
}

/// What a failed transactional call means.
pub(super) fn transactional(error: &NativeError, doing: &str) -> Failure {
    use RDKafkaErrorCode as Code;
    let what = format!("{doing}: {} ({})", error.text, error.code);
    match error.code {
        Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced => return Failure::Fenced(what),
        Code::InvalidTransactionTimeout => {
            return Failure::stop(
                "TRANSACTION_TIMEOUT_REFUSED",
                what,
                "lower the transaction timeout below the brokers' transaction.max.timeout.ms",
            );
        }
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => {
            return Failure::stop(
                "RECORD_TOO_LARGE",
                what,
                "raise max.message.bytes of the topic (and message.max.bytes of the brokers), then start again",
            );
        }
        // Going on with such a producer can duplicate records (KAFKA-18019).
        Code::InvalidProducerIdMapping | Code::UnknownProducerId => return Failure::Rebuild(what),
        _ => {}
    }
    if let Some(stop) = refusal(error.code, doing, &error.text) {
        return stop;
    }
    if error.fatal || is_timeout(error.code) && !error.abortable {
        return Failure::Rebuild(what);
    }
    match error.code {
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::StaleMemberEpoch
        | Code::FencedMemberEpoch
        | Code::FencedInstanceId
        | Code::RebalanceInProgress => Failure::Membership(what),
        _ if error.abortable => Failure::Abort(what),
        _ => Failure::Rebuild(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RDKafkaErrorCode as Code;

    fn error(code: Code, fatal: bool, abortable: bool, retriable: bool) -> NativeError {
        NativeError { code, text: "text".into(), fatal, abortable, retriable }
    }

    #[test]
    fn fencing_is_recognised_whatever_the_flags() {
        for code in [Code::Fenced, Code::InvalidProducerEpoch, Code::ProducerFenced] {
            for (fatal, abortable) in [(true, false), (false, true), (false, false)] {
                let failure = transactional(&error(code, fatal, abortable, false), "committing");
                assert!(matches!(failure, Failure::Fenced(_)), "{code:?}: {failure}");
            }
        }
    }

    #[test]
    fn a_lost_producer_id_is_rebuilt_although_librdkafka_calls_it_abortable() {
        for code in [Code::InvalidProducerIdMapping, Code::UnknownProducerId] {
            assert!(matches!(transactional(&error(code, false, true, false), "committing"), Failure::Rebuild(_)));
        }
    }

    #[test]
    fn stale_membership_is_told_from_other_abortable_errors() {
        for code in [Code::IllegalGeneration, Code::UnknownMemberId, Code::StaleMemberEpoch, Code::FencedInstanceId] {
            assert!(matches!(transactional(&error(code, false, true, false), "offsets"), Failure::Membership(_)));
        }
        let failure = transactional(&error(Code::InvalidTransactionalState, false, true, false), "flushing");
        assert!(matches!(failure, Failure::Abort(_)));
    }

    #[test]
    fn fatal_timed_out_and_unclassified_errors_are_rebuilds() {
        for error in [
            error(Code::OutOfOrderSequenceNumber, true, false, false),
            error(Code::OperationTimedOut, false, false, true),
            error(Code::Conflict, false, false, false),
            error(Code::IllegalGeneration, true, false, false),
        ] {
            assert!(matches!(transactional(&error, "committing"), Failure::Rebuild(_)), "{error:?}");
        }
    }

    #[test]
    fn a_timed_out_request_is_never_repeated() {
        assert!(!error(Code::OperationTimedOut, false, false, true).may_be_repeated());
        assert!(error(Code::CoordinatorLoadInProgress, false, false, true).may_be_repeated());
        assert!(!error(Code::CoordinatorLoadInProgress, true, false, true).may_be_repeated());
    }

    #[test]
    fn missing_rights_stop_with_a_code() {
        let Failure::Stop(stop) = transactional(&error(Code::TopicAuthorizationFailed, false, true, false), "x") else {
            panic!("not a stop");
        };
        assert_eq!(stop.code, "KAFKA_NOT_AUTHORIZED");
    }
}
