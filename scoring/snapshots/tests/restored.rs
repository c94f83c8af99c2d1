//! What is put back, with the rest of the log, is what the log says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use domain::{Epoch, SlotMap};
use feature_snapshots::{ReplaceOptions, rebuild, restore};
use redis_testbed::Server;
use support::*;

fn whole(outcomes: &[feature_snapshots::Outcome]) {
    assert!(outcomes.len() == 2 && outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
}

fn new_servers() -> Vec<Server> {
    (0..2).map(|_| Server::start("").unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_taken_under_writes_and_the_rest_of_the_log_equal_the_oracle() {
    let (shards, kept) = (Shards::start().await, Kept::new());
    let events = Arc::new(events(3_000));
    let (builder, decisions) = (store(3, &shards.primaries).await, store(3, &shards.primaries).await);
    let taken = Arc::new(AtomicBool::new(false));
    // A builder folds, and decision services record what they decide, before, while and after the snapshot is taken.
    let writing = tokio::spawn({
        let (events, taken) = (events.clone(), taken.clone());
        async move {
            let (mut from, mut after) = (0, 0);
            while after < 5 {
                for event in &events[from..from + 20] {
                    decisions.record_and_read(&events[(from + 25).min(events.len() - 1)], in_time()).await;
                    decisions.record_and_read(event, in_time()).await;
                }
                builder.fold(&some(&events, from, from + 20), &nobody(), NOW, WITHIN).await.unwrap();
                from += 20;
                after += usize::from(taken.load(Ordering::SeqCst));
                assert!(from + 25 < events.len(), "the snapshot took too long for this log");
            }
            from
        }
    });
    for copy in &shards.copies {
        let begun = async || client().contents(&copy.address()).await.is_ok_and(|seen| !seen.positions.is_empty());
        until("some folded, and carried to the copy", begun).await;
    }
    let manifest = kept.take(&shards).await;
    taken.store(true, Ordering::SeqCst);
    let written = writing.await.unwrap();
    drop(shards);

    let servers = new_servers();
    let found = kept.catalog.find(None, None).await.unwrap();
    assert_eq!(found, manifest);
    let slots = SlotMap::even(2).unwrap();
    let options = ReplaceOptions::in_epoch(Epoch(4));
    whole(&restore(&kept.catalog, &client(), &found, (&slots, &addresses(&servers)), &options).await.unwrap());
    let builder = store(4, &servers).await;
    for (server, shard) in servers.iter().zip(&manifest.shards) {
        assert_eq!(server.ask::<u64>("GET fp:epoch").unwrap(), 4);
        let stands = client().contents(&server.address()).await.unwrap().positions;
        assert!(shard.positions.iter().all(|(partition, next)| stands[partition] >= *next), "{stands:?} {shard:?}");
    }
    let begun = fold_the_rest(&builder, &events, 50).await;
    assert!(begun > 0 && begun < written, "{begun} of {written}: the snapshot was taken while somebody wrote");
    assert_same(&entities(&servers), &oracle(&events));
    println!("taken at offset {begun} or later of {written} written, {} bytes; {} entities", manifest.bytes(), oracle(&events).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilt_from_the_log_alone_is_what_the_log_says() {
    let shards = Shards::start().await;
    let events = events(600);
    // What the shards hold is wrong, and they believe that it is everything.
    let builder = store(3, &shards.primaries).await;
    builder.fold(&some(&events, 0, 400), &nobody(), NOW, WITHIN).await.unwrap();
    for server in &shards.primaries {
        server.ask::<()>("HSET fp:vector c/fraud.events.raw/0 600").unwrap();
    }
    let mut options = ReplaceOptions::in_epoch(Epoch(3));
    let refused = rebuild(&client(), &addresses(&shards.primaries), None, &options).await.unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("is not empty"), "{refused}");
    options.overwrite = true;
    let from = "2026-11-01T00:00:00Z".parse().unwrap();
    whole(&rebuild(&client(), &addresses(&shards.primaries), Some(from), &options).await.unwrap());

    connected(&builder).await;
    assert!(entities(&shards.primaries).is_empty());
    assert_eq!(builder.read_from(WITHIN).await.unwrap(), Some(from.as_millisecond()));
    assert!((1..=7 * 86_400_000).contains(&shards.primaries[0].ask::<i64>("PTTL fp:read_from").unwrap()));
    assert_eq!(fold_the_rest(&builder, &events, 37).await, 0);
    let expected = oracle(&events);
    assert_same(&entities(&shards.primaries), &expected);
    // Its copies follow it through all of that.
    let same = async || {
        let (primary, copy) = (&shards.primaries[0], &shards.copies[0]);
        let size = |server: &Server| server.ask::<u64>("DBSIZE").ok();
        size(copy).is_some_and(|keys| size(primary) == Some(keys))
    };
    until("copies of the new data", same).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_every_window_still_makes_a_customer_known() {
    let servers = new_servers();
    whole(&rebuild(&client(), &addresses(&servers), None, &ReplaceOptions::in_epoch(Epoch(1))).await.unwrap());
    let builder = store(1, &servers).await;
    let old = payment("t-old", 1, NOW - 3 * DAY);
    let folded = builder.fold(&part(0, 0, std::slice::from_ref(&old)), &nobody(), NOW, WITHIN).await.unwrap();
    assert_eq!(folded.counts.expired, 5);
    let read = builder.record_and_read(&payment("t-new", 1, NOW), in_time()).await;
    let user = read.states.get(scoring_core::event::EntityKind::User).unwrap();
    assert_eq!((user.records().count(), user.profile().first_seen_ms()), (1, Some(NOW - 3 * DAY)));
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_hold_something_else_are_replaced_when_that_is_said() {
    let (shards, kept) = (Shards::start().await, Kept::new());
    let events = events(200);
    let builder = store(3, &shards.primaries).await;
    builder.fold(&some(&events, 0, 200), &nobody(), NOW, WITHIN).await.unwrap();
    let expected = entities(&shards.primaries);
    let in_copy = async || entities(&shards.copies).len() == expected.len();
    until("everything in the copies", in_copy).await;
    let manifest = kept.take(&shards).await;
    builder.fold(&part(0, 200, &[payment("t-more", 9, NOW)]), &nobody(), NOW, WITHIN).await.unwrap();

    let mut options = ReplaceOptions::in_epoch(Epoch(3));
    let (slots, targets) = (SlotMap::even(2).unwrap(), addresses(&shards.primaries));
    let refused = restore(&kept.catalog, &client(), &manifest, (&slots, &targets), &options).await.unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("replace what it holds with --overwrite"), "{refused}");
    assert_ne!(entities(&shards.primaries), expected);
    options.overwrite = true;
    whole(&restore(&kept.catalog, &client(), &manifest, (&slots, &targets), &options).await.unwrap());
    assert_eq!(entities(&shards.primaries), expected);
    // The builder that has gone on meanwhile is told, and finds its place.
    let late = builder.fold(&part(0, 201, &[]), &nobody(), NOW, WITHIN).await;
    assert!(late.is_err(), "{late:?}");
    assert_eq!(builder.positions(WITHIN).await.unwrap()[&log(0)], 200);
}
