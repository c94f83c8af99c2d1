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
    match error.rdkafka_error_code().or_else(|| transaction_code(&error)) {
        Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch) => {
            Trouble::Fenced { why }
        }
        Some(RDKafkaErrorCode::MessageTimedOut) => Trouble::Unreachable { side, why },
        _ => of_admin(side, AdminError::from(error)),
    }
}

fn transaction_code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(inner) => Some(inner.code()),
        _ => None,
    }
}
