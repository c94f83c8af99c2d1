//! Users of a running process are changed without a restart.
#![allow(clippy::unwrap_used)]

mod common;

use common::{USERS, change, operator, start, until};
use feature_shards::{Change, RedisUsers, ShardClient};
use redis_testbed::Server;

fn log_in(server: &Server, password: &str) -> redis::RedisResult<redis::Connection> {
    redis::Client::open(format!("redis://writer:{password}@127.0.0.1:{}", server.address().port))?.get_connection()
}

#[tokio::test]
async fn passwords_are_rotated_in_a_running_process_and_whoever_is_logged_in_stays() {
    let redis = start();
    until(&redis, "up", |_| true).await;
    change(&redis, Change::Primary, 1).await;
    let mut open = log_in(&redis, "writer-password").unwrap();
    let next = USERS.replace(">writer-password", ">next-password (~fp:hot +del)");
    let users = RedisUsers::parse(&next, "masteruser replication\nmasterauth next-password\n").unwrap();
    operator().visit(&redis.address()).await.unwrap().give_users(&users).await.unwrap();
    redis::cmd("SET").arg("e:{x}").arg("x").exec(&mut open).unwrap();
    redis::cmd("DEL").arg("fp:hot").exec(&mut open).unwrap();
    assert!(redis::cmd("DEL").arg("e:{x}").exec(&mut open).is_err(), "a right to one key is not one to others");
    assert!(log_in(&redis, "writer-password").is_err(), "the old password is not valid any more");
    assert!(log_in(&redis, "next-password").is_ok());
    let set: Vec<String> = redis.ask("CONFIG GET masterauth").unwrap();
    assert_eq!(set, ["masterauth", "next-password"]);

    let writer = ShardClient::with_user("writer".into(), "next-password".into());
    assert!(writer.visit(&redis.address()).await.unwrap().give_users(&users).await.is_err(), "only the operator may");
}
