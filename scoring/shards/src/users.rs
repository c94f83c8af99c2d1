//! Users and passwords of running shards: what the Secret says now, without a restart.
//!
//! A process reads its ACL file when it starts. When the Secret changes, the operator tells each process the same by command:
//! connections that are open stay, and the next ones log in with what is valid now.

use redis::Pipeline;

/// The users of a shard's processes, and the one with which they log in at what they follow. Debug output has no password.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RedisUsers {
    /// Name and rules; passwords are in them as SHA-256.
    users: Vec<(String, Vec<String>)>,
    /// Settings of replication: `masteruser` and `masterauth`.
    replication: Vec<(String, String)>,
}

impl std::fmt::Debug for RedisUsers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.users.iter().map(|(name, _)| name)).finish()
    }
}

impl RedisUsers {
    /// From an ACL file and a file of settings, as the Secret has them.
    ///
    /// # Errors
    /// With the line that cannot be understood, by its number: what stands in it is secret.
    pub fn parse(acl_file: &str, settings: &str) -> Result<Self, String> {
        let lines = |text: &str| -> Vec<(usize, String)> {
            (1..)
                .zip(text.lines().map(|line| line.trim().to_owned()))
                .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
                .collect()
        };
        let user = |(number, line): (usize, String)| {
            let mut words = line.split_whitespace().map(str::to_owned);
            match (words.next().as_deref(), words.next()) {
                (Some("user"), Some(name)) => Ok((name, words.collect())),
                _ => Err(format!("users.acl, line {number}: write `user NAME RULES`")),
            }
        };
        let setting = |(number, line): (usize, String)| match line.split_once(' ') {
            Some((name @ ("masteruser" | "masterauth"), value)) => Ok((name.to_owned(), value.trim().to_owned())),
            _ => Err(format!("replication.conf, line {number}: write `masteruser NAME` or `masterauth PASSWORD`")),
        };
        Ok(Self {
            users: lines(acl_file).into_iter().map(user).collect::<Result<_, _>>()?,
            replication: lines(settings).into_iter().map(setting).collect::<Result<_, _>>()?,
        })
    }

    /// Replaces each user in one step; none that is logged in is sent away.
    pub(crate) fn commands(&self) -> Pipeline {
        let mut pipe = redis::pipe();
        for (name, rules) in &self.users {
            pipe.cmd("ACL").arg("SETUSER").arg(name).arg("reset").arg(rules).ignore();
        }
        for (name, value) in &self.replication {
            pipe.cmd("CONFIG").arg("SET").arg(name).arg(value).ignore();
        }
        pipe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_secret_are_understood_and_what_is_wrong_is_named_without_its_contents() {
        let users =
            RedisUsers::parse("user default off\n\nuser probe on #ab #cd +ping\n", "masteruser replication\nmasterauth s3cret\n").unwrap();
        assert_eq!(users.users[1], ("probe".into(), ["on", "#ab", "#cd", "+ping"].map(str::to_owned).to_vec()));
        assert_eq!(users.replication[1], ("masterauth".into(), "s3cret".into()));
        assert!(!format!("{users:?}").contains("s3cret"));
        for (acl, settings) in [("usr probe s3cret", ""), ("user", ""), ("", "requirepass s3cret"), ("", "masterauth")] {
            let why = RedisUsers::parse(acl, settings).unwrap_err();
            assert!(why.contains("line 1") && !why.contains("s3cret"), "{why}");
        }
    }
}
