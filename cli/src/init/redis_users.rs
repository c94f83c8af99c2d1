//! The users of the feature store: one for each role, with just the commands and keys that the role needs.
//!
//! The default user is off. Passwords are stored as SHA-256 in the ACL file, and in clear only in the file that the role's
//! own pods mount.

use sha2::{Digest, Sha256};

/// A role and its rules in the syntax of Redis ACLs. Keys: `{…` entities, `fp:` bookkeeping. What a function does is checked against the
/// rules of whoever calls it, so the builder has the commands of the function that it writes with.
const ROLES: &[(&str, &str)] = &[
    (
        "operator",
        "~fp:* +@connection +@transaction +get +set +hgetall +hget +role +info +replicaof +eval +config|get +config|set +dbsize +time +wait +client|pause +client|unpause +memory|usage",
    ),
    // The list of hot users is all that a decision service may set.
    ("decision", "~{* %R~fp:* +@connection +append +getex +get (~fp:hot +set)"),
    ("builder", "~{* ~fp:* +@connection +get +mget +getrange +set +hget +hmget +hgetall +hset +fcall +fcall_ro +function|load"),
    ("replication", "+psync +replconf +ping"),
    ("probe", "+ping +info +role"),
];

pub(super) struct RedisUser {
    pub(super) name: &'static str,
    pub(super) password: String,
    rules: &'static str,
}

impl RedisUser {
    fn acl_line(&self) -> String {
        let digest = hex::encode(Sha256::digest(self.password.as_bytes()));
        format!("user {} on #{digest} resetchannels {}", self.name, self.rules)
    }
}

pub(super) fn generate(mut password: impl FnMut() -> String) -> Vec<RedisUser> {
    ROLES.iter().map(|&(name, rules)| RedisUser { name, password: password(), rules }).collect()
}

/// The whole ACL file.
pub(super) fn acl_file(users: &[RedisUser]) -> String {
    let mut lines = vec!["user default off".to_owned()];
    lines.extend(users.iter().map(RedisUser::acl_line));
    lines.join("\n") + "\n"
}

/// What a shard's configuration includes, to authenticate at the shard that it follows.
pub(super) fn replication_include(users: &[RedisUser]) -> String {
    let password = users.iter().find(|user| user.name == "replication").map_or("", |user| &user.password);
    format!("masteruser replication\nmasterauth {password}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_stands_in_the_acl_file_and_the_default_user_is_off() {
        let mut count = 0;
        let users = generate(|| {
            count += 1;
            format!("secret-{count}")
        });
        let acl = acl_file(&users);
        assert!(acl.starts_with("user default off\n"));
        assert!(!acl.contains("secret-"));
        assert_eq!(acl.lines().count(), ROLES.len() + 1);
        assert!(replication_include(&users).contains("masterauth secret-4"));
    }
}
