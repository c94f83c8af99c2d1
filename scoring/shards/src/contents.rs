//! What a process holds: how many entities, and up to where the logs have been folded into them.

use std::{collections::BTreeMap, fmt};

use domain::{Epoch, HostPort};
use operator_planner::ShardRole;
use redis::Value;

use crate::{EPOCH_KEY, HEARTBEAT_KEY, READ_FROM_KEY, ShardClient, ShardError, VECTOR_KEY, info::Info, seen::read_epoch};

/// Keys that are no entity, beside the vector.
const BOOKKEEPING: [&str; 6] = [EPOCH_KEY, HEARTBEAT_KEY, READ_FROM_KEY, "fp:folds", "fp:fresh", "fp:hot"];

/// One look at a process; what it asks for, the role `snapshot` may ask too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// A held process shows as a primary.
    pub role: ShardRole,
    pub version: String,
    pub epoch: Option<Epoch>,
    pub entities: u64,
    /// The vector: CLUSTER/TOPIC/PARTITION -> next source offset.
    pub positions: BTreeMap<String, i64>,
}

/// What a process logs in with at the process that it follows. Debug output has no password.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamLogin {
    /// `None`: the default user.
    pub user: Option<String>,
    pub password: String,
}

impl fmt::Debug for UpstreamLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamLogin({:?})", self.user)
    }
}

type Answers = (String, String, u64, BTreeMap<String, String>, Vec<Value>);

impl ShardClient {
    /// What the process holds. Its answers are not of one moment.
    ///
    /// # Errors
    /// When it does not answer in time or not as Redis does.
    pub async fn contents(&self, address: &HostPort) -> Result<Contents, ShardError> {
        let mut connection = self.connect(address).await?;
        let mut pipe = redis::pipe();
        pipe.cmd("INFO").arg("replication").cmd("INFO").arg("server").cmd("DBSIZE").cmd("HGETALL").arg(VECTOR_KEY);
        let mut values = redis::pipe();
        for key in BOOKKEEPING {
            values.cmd("GET").arg(key);
        }
        let (replication, server, keys, vector): (String, String, u64, BTreeMap<String, String>) =
            self.ask(&mut connection, address, &pipe).await?;
        let values: Vec<Value> = self.ask(&mut connection, address, &values).await?;
        Contents::of((replication, server, keys, vector, values))
            .map_err(|what| ShardError::Unreadable { address: address.clone(), what: what.to_owned() })
    }

    /// What the process will log in with at whatever it is told to follow; `None` when it would not.
    ///
    /// # Errors
    /// When it does not answer in time or not as Redis does.
    pub async fn upstream_login(&self, address: &HostPort) -> Result<Option<UpstreamLogin>, ShardError> {
        let mut connection = self.connect(address).await?;
        let mut pipe = redis::pipe();
        pipe.cmd("CONFIG").arg("GET").arg("masteruser").cmd("CONFIG").arg("GET").arg("masterauth");
        let (user, password): (Vec<String>, Vec<String>) = self.ask(&mut connection, address, &pipe).await?;
        let value = |answer: Vec<String>| answer.into_iter().nth(1).filter(|value| !value.is_empty());
        Ok(value(password).map(|password| UpstreamLogin { user: value(user), password }))
    }
}

impl Contents {
    fn of((replication, server, keys, vector, values): Answers) -> Result<Self, &'static str> {
        let present = values.iter().filter(|value| **value != Value::Nil).count() + usize::from(!vector.is_empty());
        let epoch = match values.first() {
            Some(Value::BulkString(bytes)) => Some(std::str::from_utf8(bytes).ok().and_then(read_epoch).ok_or("its epoch")?),
            _ => None,
        };
        let position = |(partition, next): (String, String)| Some((partition, next.parse().ok().filter(|next: &i64| *next >= 0)?));
        Ok(Self {
            role: Info(&replication).role(false).ok_or("INFO replication")?,
            version: Info(&server).get("redis_version").ok_or("its version")?.to_owned(),
            epoch,
            entities: keys.saturating_sub(u64::try_from(present).unwrap_or(u64::MAX)),
            positions: vector.into_iter().map(position).collect::<Option<_>>().ok_or("its positions (fp:vector)")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(keys: u64, vector: &[(&str, &str)], epoch: &str) -> Answers {
        let vector = vector.iter().map(|(partition, next)| ((*partition).to_owned(), (*next).to_owned())).collect();
        let values = vec![Value::BulkString(epoch.into()), Value::Nil, Value::Nil, Value::BulkString(vec![1]), Value::Nil, Value::Nil];
        ("role:master\r\n".into(), "redis_version:7.0.15\r\n".into(), keys, vector, values)
    }

    #[test]
    fn bookkeeping_is_no_entity() {
        let contents = Contents::of(answers(13, &[("c/t/0", "5")], "3")).unwrap();
        assert_eq!((contents.entities, contents.epoch), (10, Some(Epoch(3))));
        assert_eq!(contents.positions, BTreeMap::from([("c/t/0".to_owned(), 5)]));
        assert_eq!(Contents::of(answers(2, &[], "3")).unwrap().entities, 0);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        assert_eq!(Contents::of(answers(13, &[("c/t/0", "-5")], "3")), Err("its positions (fp:vector)"));
        assert_eq!(Contents::of(answers(13, &[], "x")), Err("its epoch"));
        let login = UpstreamLogin { user: None, password: "secret".into() };
        assert!(!format!("{login:?}").contains("secret"));
    }
}
