//! The users of the feature store: one for each role, with just the commands and keys that the role needs.
//!
//! The default user is off. Passwords are stored as SHA-256 in the ACL file, and in clear only in the file that the role's
//! own pods mount. Valid are the current one, the next, and after a rotation the former one: so there is no moment at which all
//! regions and all pods have to change together.

use std::collections::BTreeMap;

use anyhow::Context;
use sha2::{Digest, Sha256};

/// A role and its rules in the syntax of Redis ACLs. Keys: `{…` entities, `fp:` bookkeeping.
///
/// What a function does is checked against the rules of whoever calls it, so the builder has the commands of the function
/// that it writes with.
const ROLES: &[(&str, &str)] = &[
    (
        "operator",
        "~fp:* +@transaction +ping +info +get +hgetall +set +dbsize +eval +time +replicaof +config|get +config|set +acl|setuser +client|pause \
         +client|unpause",
    ),
    // The list of hot users is all that a decision service may set.
    ("decision", "~{* %R~fp:* +ping +append +getex +get (~fp:hot +set)"),
    ("builder", "~{* ~fp:* +ping +get +mget +getrange +set +hget +hmget +hgetall +hset +fcall +fcall_ro +function|load"),
    ("replication", "+ping +psync +replconf"),
    ("snapshot", "%R~fp:* +ping +info +get +hgetall +dbsize +sync +psync +replconf"),
    ("monitor", "+ping +info"),
    ("probe", "+ping"),
];

pub(super) struct RedisUser {
    name: &'static str,
    former: Option<String>,
    password: String,
    next: String,
    rules: &'static str,
}

impl RedisUser {
    fn acl_line(&self) -> String {
        let digest = |password: &str| hex::encode(Sha256::digest(password.as_bytes()));
        let valid = self.former.iter().chain([&self.password, &self.next]);
        let valid: Vec<String> = valid.map(|password| format!("#{}", digest(password))).collect();
        format!("user {} on {} resetchannels {}", self.name, valid.join(" "), self.rules)
    }
}

pub(super) fn generate(mut password: impl FnMut() -> String) -> Vec<RedisUser> {
    ROLES.iter().map(|&(name, rules)| RedisUser { name, former: None, password: password(), next: password(), rules }).collect()
}

/// The users after a rotation: the next passwords become the current ones, and these the former ones.
pub(super) fn rotate(data: &BTreeMap<String, String>, mut password: impl FnMut() -> String) -> anyhow::Result<Vec<RedisUser>> {
    let rotated = ROLES.iter().map(|&(name, rules)| {
        let missing = |key: &str| format!("there is no {key}: these credentials were made before passwords were rotated");
        let value = |key: String| data.get(&key).cloned().with_context(|| missing(&key));
        let (former, current) = (value(format!("{name}.password"))?, value(format!("{name}.next"))?);
        Ok(RedisUser { name, former: Some(former), password: current, next: password(), rules })
    });
    rotated.collect()
}

/// The Secret's keys: what clients log in with, what the next rotation makes of it, and what shards read.
pub(super) fn data(users: &[RedisUser]) -> BTreeMap<String, String> {
    let current = users.iter().map(|user| (format!("{}.password", user.name), user.password.clone()));
    let next = users.iter().map(|user| (format!("{}.next", user.name), user.next.clone()));
    let files = [("users.acl".to_owned(), acl_file(users)), ("replication.conf".to_owned(), replication_include(users))];
    current.chain(next).chain(files).collect()
}

/// The whole ACL file.
fn acl_file(users: &[RedisUser]) -> String {
    let mut lines = vec!["user default off".to_owned()];
    lines.extend(users.iter().map(RedisUser::acl_line));
    lines.join("\n") + "\n"
}

/// What a shard's configuration includes, to authenticate at the shard that it follows.
fn replication_include(users: &[RedisUser]) -> String {
    let password = users.iter().find(|user| user.name == "replication").map_or("", |user| &user.password);
    format!("masteruser replication\nmasterauth {password}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(start: &'static str) -> impl FnMut() -> String {
        let mut count = 0;
        move || {
            count += 1;
            format!("{start}-{count}")
        }
    }

    #[test]
    fn no_password_stands_in_the_acl_file_and_the_default_user_is_off() {
        let users = generate(counted("secret"));
        let acl = acl_file(&users);
        assert!(acl.starts_with("user default off\n"));
        assert!(!acl.contains("secret-"));
        assert_eq!(acl.lines().count(), ROLES.len() + 1);
        assert!(replication_include(&users).contains("masterauth secret-7"));
    }

    #[test]
    fn a_rotated_password_was_valid_before_and_the_former_one_is_valid_until_the_next_rotation() {
        let first = data(&generate(counted("first")));
        let second = data(&rotate(&first, counted("second")).unwrap());
        let third = data(&rotate(&second, counted("third")).unwrap());
        let digest = |password: &str| hex::encode(Sha256::digest(password.as_bytes()));
        for (role, _) in ROLES {
            let password = |data: &BTreeMap<String, String>| digest(&data[&format!("{role}.password")]);
            assert!(first["users.acl"].contains(&password(&second)), "{role}: the new one was valid before");
            assert!(second["users.acl"].contains(&password(&first)), "{role}: the former one is still valid");
            assert!(!third["users.acl"].contains(&password(&first)), "{role}: and after another rotation it is not");
        }
        assert!(rotate(&BTreeMap::new(), counted("x")).is_err());
    }
}
