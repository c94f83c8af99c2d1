//! From the errors of Kafka clients to the trouble that a mirror shows. No IO.

use kafka::{
    AdminError, ConfigError,
    rdkafka::{error::KafkaError, types::RDKafkaErrorCode},
};
use replicator_core::{Side, Trouble};

pub(crate) fn of_admin(side: Side, error: AdminError) -> Trouble {
    let why = error.to_string();
    match error {
        AdminError::Unreachable(_) | AdminError::Interrupted => Trouble::Unreachable { side, why },
        AdminError::NotAuthorised(_) => Trouble::NotAuthorised { side, why },
        AdminError::Config(_) | AdminError::Refused(_) => Trouble::Refused { side, why },
    }
}

pub(crate) fn of_config(side: Side, error: &ConfigError) -> Trouble {
    Trouble::Refused { side, why: error.to_string() }
}

pub(crate) fn of_kafka(side: Side, error: KafkaError) -> Trouble {
    let why = match &error {
        // Their own text names the call only.
        KafkaError::Transaction(inner) => inner.string(),
        other => other.to_string(),
    };
    let code = error.rdkafka_error_code().or_else(|| transaction_code(&error));
    code.and_then(|code| of_code(side, code, why)).unwrap_or_else(|| of_admin(side, AdminError::from(error)))
}

/// For the codes that a mirror treats apart from other requests' errors.
pub(crate) fn of_code(side: Side, code: RDKafkaErrorCode, why: String) -> Option<Trouble> {
    match code {
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch => {
            Some(Trouble::Fenced { why })
        }
        RDKafkaErrorCode::MessageTimedOut => Some(Trouble::Unreachable { side, why }),
        _ => None,
    }
}

fn transaction_code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(inner) => Some(inner.code()),
        _ => None,
    }
}
