//! Why a process was not looked at, or not changed.

use std::time::Duration;

use domain::{Epoch, HostPort};
use redis::{ErrorKind, RedisError, ServerErrorKind};

#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    #[error("{address}: {source}")]
    Redis { address: HostPort, source: RedisError },
    #[error(
        "{address} refuses user {user}: wrong password, or no such user there. Check the password file against the process's ACL file ({source})"
    )]
    Login { address: HostPort, user: String, source: RedisError },
    #[error("{address}: the user's rights do not suffice: grant what `kubectl fraud init` writes for the role operator ({source})")]
    Rights { address: HostPort, source: RedisError },
    #[error("{address} holds epoch {seen}, which is newer than epoch {ours}: nothing was changed")]
    NewerEpoch { address: HostPort, seen: Epoch, ours: Epoch },
    #[error("{address}: somebody else wrote its epoch in this moment: nothing was changed")]
    Raced { address: HostPort },
    #[error("{address}: {what} cannot be understood: nothing was changed")]
    Unreadable { address: HostPort, what: String },
    #[error("{address}: {step} took longer than {} ms", within.as_millis())]
    Late { address: HostPort, step: &'static str, within: Duration },
    #[error(
        "{address} holds data and {upstream} holds none: following would erase the data. Make a copy that holds data the primary, or force it"
    )]
    EmptyUpstream { address: HostPort, upstream: HostPort },
    #[error(
        "{address} holds data, and it is not known whether {upstream} does: {why}. Following could erase the data; make that process answer, or force it"
    )]
    UnknownUpstream { address: HostPort, upstream: HostPort, why: String },
    #[error("{address} cannot be promoted: {why}")]
    NotPromotable { address: HostPort, why: String },
}

impl ShardError {
    /// What Redis or the way to it had against a command.
    pub(crate) fn of(address: &HostPort, user: &str, source: RedisError) -> Self {
        let address = address.clone();
        match source.kind() {
            ErrorKind::AuthenticationFailed => Self::Login { address, user: user.to_owned(), source },
            ErrorKind::Server(ServerErrorKind::NoPerm) => Self::Rights { address, source },
            _ if is_login(&source) => Self::Login { address, user: user.to_owned(), source },
            _ => Self::Redis { address, source },
        }
    }

    pub(crate) fn not_promotable(address: &HostPort, why: impl Into<String>) -> Self {
        Self::NotPromotable { address: address.clone(), why: why.into() }
    }

    /// Whether a rule forbade it, as opposed to something that did not work.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::NewerEpoch { .. }
                | Self::Raced { .. }
                | Self::EmptyUpstream { .. }
                | Self::UnknownUpstream { .. }
                | Self::NotPromotable { .. }
        )
    }
}

/// Redis without a password says NOAUTH only when the first command comes.
fn is_login(source: &RedisError) -> bool {
    matches!(source.code(), Some("NOAUTH" | "WRONGPASS"))
}
