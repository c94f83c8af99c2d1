//! Why a process was not looked at, or not changed.

use std::time::Duration;

use domain::{Epoch, HostPort};
use redis::{ErrorKind, RedisError};

#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    #[error("{address}: nobody listens there")]
    Nobody { address: HostPort },
    #[error("{address}: {said}")]
    Redis { address: HostPort, said: String },
    #[error(
        "{address} refuses user {user}: wrong password, or no such user there. Check the password file against the process's ACL file ({said})"
    )]
    Login { address: HostPort, user: String, said: String },
    #[error("{address}: the user's rights do not suffice: grant what `kubectl fraud init` writes for the role operator ({said})")]
    Rights { address: HostPort, said: String },
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
        let (address, kind) = (address.clone(), source.kind());
        if source.is_connection_refusal() {
            return Self::Nobody { address };
        }
        let (code, said) = first_error(source);
        match code.as_deref() {
            // Without a password Redis says so only when the first command comes.
            Some("NOAUTH" | "WRONGPASS") => Self::Login { address, user: user.to_owned(), said },
            _ if kind == ErrorKind::AuthenticationFailed => Self::Login { address, user: user.to_owned(), said },
            Some("NOPERM") => Self::Rights { address, said },
            _ => Self::Redis { address, said },
        }
    }

    pub(crate) fn not_promotable(address: &HostPort, why: impl Into<String>) -> Self {
        Self::NotPromotable { address: address.clone(), why: why.into() }
    }

    /// Whether no process listens at that address.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody { .. })
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

/// A pipeline repeats the reason for each of its commands: the first one tells it.
fn first_error(source: RedisError) -> (Option<String>, String) {
    let whole = source.to_string();
    let first = source.into_server_errors().and_then(|errors| errors.first().map(|(_, error)| error.clone()));
    match first {
        Some(error) => {
            (Some(error.code().to_owned()), format!("{} {}", error.code(), error.details().unwrap_or_default()).trim_end().to_owned())
        }
        None => (None, whole),
    }
}
