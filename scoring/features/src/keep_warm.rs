//! The hot-key list: who is asked for most, kept in each shard, so that a process that starts knows them at once.

use std::time::{Duration, Instant as Clock};

use futures::future::join_all;
use redis::Value;
use scoring_core::{
    event::{EntityId, EntityKind},
    state::EntityState,
};
use tokio::time::{Instant, sleep};

use crate::{
    RedisStore,
    commands::{self, Asked, HOT_KEY},
    functions::bytes_of,
    hot::USERS_MAX,
    request::Request,
    shards::{Shard, Shards},
};

/// How often the list is written; each process waits for something between half of it and all.
const EVERY: Duration = Duration::from_secs(60);
/// A list that nobody renews is old.
const LIST_KEPT_SECONDS: &str = "86400";
const WITHIN: Duration = Duration::from_secs(1);
/// Values read at once: a process that starts must not be noticed by the others.
const USERS_PER_READ: usize = 50;
const ID_BYTES: usize = 16;

impl RedisStore {
    /// Reads the list of each shard and the profiles of the users in it. Takes what comes within `within`.
    pub async fn read_hot_list(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let shards = self.shards();
        join_all(shards.all().map(|shard| self.read_list_of(shard, deadline))).await;
        let known = self.hot().len();
        self.metrics.cached_profiles(known);
        tracing::info!(users = known, "read the profiles of the users who are asked for most");
    }

    /// Writes the list once in a while; never returns. Shards that this region may not write keep the list that they have.
    pub async fn write_hot_list(&self) {
        loop {
            sleep(EVERY.mul_f64(rand::random_range(0.5..1.0))).await;
            self.write_hot_list_once().await;
        }
    }

    /// Writes the list of each shard.
    pub async fn write_hot_list_once(&self) {
        let shards = self.shards();
        if !shards.writable {
            return;
        }
        let hottest = self.hot().hottest();
        let lists = lists_of(&hottest, &shards);
        join_all(shards.all().zip(lists).filter(|(_, list)| !list.is_empty()).map(|(shard, list)| write_list(shard, list))).await;
    }

    async fn read_list_of(&self, shard: &Shard, deadline: Instant) {
        let mut request = Request::with_room_for(1);
        request.command(&[b"GET", HOT_KEY.as_bytes()]);
        let Ok(answers) = shard.read.send(&request, deadline).await else { return };
        let list = answers.first().and_then(bytes_of).unwrap_or_default();
        let users: Vec<EntityId> = list.as_chunks::<ID_BYTES>().0.iter().take(USERS_MAX).map(|id| EntityId(*id)).collect();
        self.hot().expect(&users);
        for some in users.chunks(USERS_PER_READ) {
            let asked: Vec<Asked> = some.iter().map(|user| Asked::new((EntityKind::User, *user), false)).collect();
            let Ok(answers) = shard.read.send(&commands::read(&asked), deadline).await else { return };
            // Behind the epoch, which need not be looked at: whoever has a list holds data.
            self.learn(some, answers.get(1..).unwrap_or_default());
        }
    }

    fn learn(&self, users: &[EntityId], values: &[Value]) {
        for (user, value) in users.iter().zip(values) {
            let Some(value) = bytes_of(value) else { continue };
            let state = EntityState::parse(value, self.state.events_max());
            self.hot().learn(*user, state.lasting(&self.state), Clock::now());
        }
    }
}

/// The list of each shard.
fn lists_of(users: &[EntityId], shards: &Shards) -> Vec<Vec<u8>> {
    let mut lists: Vec<Vec<u8>> = shards.all().map(|_| Vec::new()).collect();
    for user in users {
        if let Some(list) = lists.get_mut(shards.place_of_entity(EntityKind::User, *user)) {
            list.extend_from_slice(&user.0);
        }
    }
    lists
}

/// That a list could not be written is no harm: there is another one in a minute.
async fn write_list(shard: &Shard, list: Vec<u8>) {
    let mut request = Request::with_room_for(1);
    request.command(&[b"SET", HOT_KEY.as_bytes(), &list, b"EX", LIST_KEPT_SECONDS.as_bytes()]);
    if let Err(error) = shard.write.send(&request, Instant::now() + WITHIN).await {
        tracing::debug!(shard = shard.index, %error, "list of the users who are asked for most was not written");
    }
}
