//! The key `fp:fresh`: how far the builder has folded, as it says itself. Only bytes here: what they mean is in
//! `scoring_core::published`.

use std::time::Duration;

use futures::future::join_all;
use redis::Value;
use tokio::time::Instant;

use crate::{RedisStore, link::Link, request::Request};

const FRESH_KEY: &[u8] = b"fp:fresh";
/// A longer value is not read: no builder writes it.
const BYTES_MAX: usize = 64 * 1024;

impl RedisStore {
    /// Puts `value` into every shard for `lifetime`; gives the shards that did not take it. A replica takes nothing, so only
    /// the region that may write its shards publishes.
    pub async fn publish_freshness(&self, value: &[u8], lifetime: Duration, deadline: Instant) -> Vec<u16> {
        let milliseconds = lifetime.as_millis().to_string();
        let shards = self.shards();
        let put = shards.all().map(|shard| {
            let mut request = Request::with_room_for(1);
            request.command(&[b"SET", FRESH_KEY, value, b"PX", milliseconds.as_bytes()]);
            async move {
                let answer = shard.write.send(&request, deadline).await.ok().and_then(|answers| answers.into_iter().next());
                (!matches!(answer, Some(Value::Okay))).then_some(shard.index)
            }
        });
        join_all(put).await.into_iter().flatten().collect()
    }

    /// What each shard says, by its number; `None` for one that says nothing or does not answer by `deadline`.
    pub async fn published_freshness(&self, deadline: Instant) -> Vec<(u16, Option<Vec<u8>>)> {
        let shards = self.shards();
        join_all(shards.all().map(|shard| async move { (shard.index, read(&shard.read, deadline).await.flatten()) })).await
    }

    /// What shards have of a builder before this one; `None` when one of them does not answer by `deadline`.
    pub async fn freshness_left(&self, deadline: Instant) -> Option<Vec<Vec<u8>>> {
        let shards = self.shards();
        let answers: Option<Vec<_>> = join_all(shards.all().map(|shard| read(&shard.read, deadline))).await.into_iter().collect();
        Some(answers?.into_iter().flatten().collect())
    }
}

/// `None` without an answer, `Some(None)` when the key is not there.
async fn read(link: &Link, deadline: Instant) -> Option<Option<Vec<u8>>> {
    let mut request = Request::with_room_for(1);
    request.command(&[b"GET", FRESH_KEY]);
    match link.send(&request, deadline).await.ok()?.into_iter().next()? {
        Value::BulkString(bytes) if bytes.len() <= BYTES_MAX => Some(Some(bytes)),
        Value::BulkString(_) | Value::Nil => Some(None),
        _ => None,
    }
}
