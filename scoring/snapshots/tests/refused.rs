//! What is no snapshot, and what is not put back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{fs, time::Duration};

use domain::{Epoch, HostPort, SlotMap};
use feature_snapshots::{Content, Manifest, ReplaceOptions, SnapshotError, Source, TakeOptions, restore, take};
use jiff::Timestamp;
use redis_testbed::{Line, Server};
use support::*;

/// A snapshot of some events.
async fn taken() -> (Shards, Kept, Manifest) {
    let (shards, kept) = (Shards::start().await, Kept::new());
    store(3, &shards.primaries).await.fold(&some(&events(200), 0, 200), &nobody(), NOW, WITHIN).await.unwrap();
    let full = async || entities(&shards.copies).len() == entities(&shards.primaries).len();
    until("everything in the copies", full).await;
    let manifest = kept.take(&shards).await;
    (shards, kept, manifest)
}

async fn put_back(kept: &Kept, manifest: &Manifest, targets: &[Server], epoch: u64) -> Result<(), SnapshotError> {
    let slots = SlotMap::even(u16::try_from(targets.len()).unwrap()).unwrap();
    let options = ReplaceOptions { within: Duration::from_secs(20), ..ReplaceOptions::in_epoch(Epoch(epoch)) };
    let outcomes = restore(&kept.catalog, &client(), manifest, (&slots, &addresses(targets)), &options).await?;
    outcomes.into_iter().try_for_each(|outcome| outcome.result)
}

fn untouched(servers: &[Server]) {
    for server in servers {
        let info: String = server.ask("INFO replication").unwrap();
        assert!(info.contains("master_host:127.0.0.1\r\nmaster_port:1\r\n") && server.ask::<u64>("DBSIZE").unwrap() == 0, "{info}");
    }
}

fn new_servers(count: usize) -> Vec<Server> {
    (0..count).map(|_| Server::start("").unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_copies_and_manifests_that_do_not_fit_change_nothing() {
    let (_shards, kept, manifest) = taken().await;
    let targets = new_servers(2);
    let refused = |outcome: Result<(), SnapshotError>, why: &str| {
        let error = outcome.unwrap_err();
        assert!(error.is_refusal() && error.to_string().contains(why), "{error}");
    };
    refused(put_back(&kept, &manifest, &targets, 2).await, "holds epoch 3, which is newer than epoch 2");
    refused(put_back(&kept, &manifest, &targets[..1], 3).await, "it has 2 shards, and there are 1 to restore");

    let path = kept.path(&manifest, 1);
    let whole = fs::read(&path).unwrap();
    let mut bent = whole.clone();
    let middle = bent.len() / 2;
    bent[middle] ^= 1;
    fs::write(&path, &bent).unwrap();
    refused(put_back(&kept, &manifest, &targets, 3).await, "its SHA-256 is");
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    refused(put_back(&kept, &manifest, &targets, 3).await, "and the manifest says");
    fs::remove_file(&path).unwrap();
    assert!(put_back(&kept, &manifest, &targets, 3).await.unwrap_err().to_string().contains("cannot be read"));
    untouched(&targets);
    fs::write(&path, &whole).unwrap();
    put_back(&kept, &manifest, &targets, 3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_newer_format_is_told_apart_from_a_torn_one() {
    let (_shards, kept, manifest) = taken().await;
    let folder = kept.folder.path().join("payments/us-east");
    let add = |id: &str, text: &str| {
        fs::create_dir_all(folder.join(id)).unwrap();
        fs::write(folder.join(id).join("manifest.json"), text).unwrap();
    };
    add("20301120T080000.000Z", r#"{"format": 2, "whatever": []}"#);
    add("20301121T080000.000Z", "{");
    fs::create_dir_all(folder.join("20301122T080000.000Z")).unwrap();
    fs::write(folder.join("20301122T080000.000Z/shard-0000.rdb"), "REDIS0010").unwrap();
    fs::create_dir_all(folder.join("somebody-elses")).unwrap();

    let listed = kept.catalog.list(None).await.unwrap();
    let kinds: Vec<_> = listed
        .iter()
        .map(|listed| match &listed.content {
            Content::Complete(_) => "complete".to_owned(),
            Content::Torn => "torn".to_owned(),
            Content::Unusable(error) => error.to_string().split(':').nth(1).unwrap_or_default().to_owned(),
        })
        .collect();
    assert_eq!(kinds, ["complete", " use a newer fraud-features", " its manifest cannot be used", "torn"]);
    assert_eq!(kept.catalog.find(Some(&region()), None).await.unwrap(), manifest, "the newest that is complete");
    for (id, why) in
        [("20301120T080000.000Z", "use a newer"), ("20301122T080000.000Z", "there is no complete snapshot 20301122T080000.000Z")]
    {
        let error = kept.catalog.find(None, feature_snapshots::SnapshotId::parse(id).as_ref()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_breaks_off_leaves_no_snapshot() {
    let (shards, kept) = (Shards::start().await, Kept::new());
    // Enough to be on its way for a while.
    let mut connection = shards.primaries[1].connection().unwrap();
    for n in 0..64 {
        let value: Vec<u8> = (0..1 << 20).map(|place: u32| (place.wrapping_mul(2_654_435_761) >> (n % 24)).to_le_bytes()[0]).collect();
        redis::cmd("SET").arg(format!("big:{n}")).arg(value).exec(&mut connection).unwrap();
    }
    let size = |server: &Server| server.ask::<u64>("DBSIZE").ok();
    let full = async || size(&shards.copies[1]).is_some_and(|keys| size(&shards.primaries[1]) == Some(keys));
    until("everything in the copy", full).await;
    let line = Line::start(shards.copies[1].address(), Duration::from_millis(5)).await.unwrap();
    let source = Source { processes: vec![vec![shards.copies[0].address()], vec![line.address()]], ..shards.source() };
    let catalog = kept.catalog.clone();
    let taking = tokio::spawn(async move { take(&catalog, &client(), &source, &TakeOptions::default(), Timestamp::now()).await });
    tokio::time::sleep(Duration::from_millis(250)).await;
    let mut shards = shards;
    drop(shards.copies.remove(1));
    let error = taking.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("gives no copy"), "{error}");
    assert!(kept.catalog.list(None).await.unwrap().iter().all(|listed| matches!(listed.content, Content::Torn)));
    assert!(kept.catalog.find(None, None).await.unwrap_err().to_string().contains("Complete snapshots: none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_come_from_replicas_that_have_their_primary() {
    let (shards, kept) = (Shards::start().await, Kept::new());
    let attempt = async |processes: Vec<Vec<HostPort>>| {
        let source = Source { processes, ..shards.source() };
        take(&kept.catalog, &client(), &source, &TakeOptions::default(), Timestamp::now()).await.unwrap_err()
    };
    let primary = |shard: usize| vec![shards.primaries[shard].address()];
    let copy = |shard: usize| vec![shards.copies[shard].address()];
    let all = attempt(vec![primary(0), primary(1)]).await;
    assert!(matches!(all, SnapshotError::AllPrimaries) && all.is_refusal(), "{all}");
    let one = attempt(vec![copy(0), primary(1)]).await;
    assert!(one.to_string().contains("shard 1 has no process") && one.to_string().contains("is a primary"), "{one}");
    let (nowhere, gone) = (Server::start("").unwrap(), HostPort { host: "127.0.0.1".into(), port: 1 });
    let alone = attempt(vec![copy(0), vec![gone, nowhere.address()]]).await;
    assert!(alone.to_string().contains("follows nobody") && alone.to_string().contains("127.0.0.1:1"), "{alone}");
    shards.copies[1].ask::<()>("REPLICAOF 127.0.0.1 2").unwrap();
    let cut_off = attempt(vec![copy(0), copy(1)]).await;
    assert!(cut_off.to_string().contains("has no link to 127.0.0.1:2"), "{cut_off}");
    assert!(kept.catalog.list(None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_reach_us_is_left_where_it_takes_no_writes() {
    let (_shards, kept, manifest) = taken().await;
    let targets = new_servers(2);
    let slots = SlotMap::even(2).unwrap();
    let options = ReplaceOptions {
        within: Duration::from_secs(2),
        // Nobody listens there: it stands for an address that leads elsewhere.
        advertise: Some("::1".into()),
        ..ReplaceOptions::in_epoch(Epoch(3))
    };
    let outcomes = restore(&kept.catalog, &client(), &manifest, (&slots, &addresses(&targets)), &options).await.unwrap();
    for outcome in outcomes {
        let error = outcome.result.unwrap_err().to_string();
        assert!(error.contains("took longer than 2 s") && error.contains("follows nobody now"), "{error}");
    }
    untouched(&targets);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_snapshots_leave_and_the_newest_complete_one_stays() {
    let (shards, kept, first) = taken().await;
    let week = Duration::from_secs(7 * 86_400);
    let at = |hours: u64| Timestamp::now() + Duration::from_secs(hours * 3_600);
    assert!(kept.catalog.prune(&region(), week, at(200)).await.unwrap().is_empty(), "it is the only one");
    let second = kept.take(&shards).await;
    fs::remove_file(kept.path(&second, 0).with_file_name("manifest.json")).unwrap();
    assert_eq!(kept.catalog.prune(&region(), week, at(20)).await.unwrap(), []);
    assert_eq!(kept.catalog.prune(&region(), week, at(200)).await.unwrap(), [second.id]);
    let third = kept.take(&shards).await;
    assert_eq!(kept.catalog.prune(&region(), week, at(200)).await.unwrap(), [first.id.clone()]);
    assert!(!kept.path(&first, 0).exists() && kept.path(&third, 0).exists());
    kept.catalog.check(&third).await.unwrap();
}
