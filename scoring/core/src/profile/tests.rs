use proptest::prelude::*;

use super::*;
use crate::{
    event::EventKind,
    slot::SLOT_BYTES,
    testing::{any_record, few_records, record},
};

const USER: (EntityKind, EntityId) = (EntityKind::User, EntityId([1; 16]));

fn country(code: &str) -> Country {
    Country::from_letters(code).unwrap()
}

fn profile(records: &[Record], known_max: usize) -> Profile {
    let mut profile = Profile::default();
    records.iter().for_each(|record| profile.add(record, known_max));
    profile
}

fn bytes(profile: &Profile) -> Vec<u8> {
    let mut value = Vec::new();
    profile.encode(&mut value);
    value
}

fn read(value: &[u8]) -> Profile {
    let mut profile = Profile::default();
    let (slots, rest) = value.as_chunks::<SLOT_BYTES>();
    assert!(rest.is_empty() && slots.iter().all(|slot| profile.read_slot(slot)));
    profile
}

#[test]
fn a_customer_is_known_by_devices_countries_and_the_last_place() {
    let at = |id, time_ms, code| Record { country: Some(country(code)), device: Some(u32::from(id)), ..record(id, time_ms) };
    let profile = profile(&[at(2, 900, "BR"), at(1, 100, "US"), at(3, 500, "US")], 16);
    assert_eq!(profile.first_seen_ms(), Some(100));
    assert_eq!(profile.countries().get(country("US")), Some(Seen { first_ms: 100, last_ms: 500 }));
    assert_eq!(profile.last_place().map(|place| (place.country, place.time_ms)), Some((country("BR"), 900)));
    assert_eq!(profile.devices().iter().map(|(device, _)| device).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_refund_says_that_the_customer_exists_and_not_where() {
    let refund = Record { kind: EventKind::Refund, country: Some(country("BR")), ..record(1, 100) };
    let profile = profile(&[refund], 16);
    assert_eq!((profile.first_seen_ms(), profile.last_place(), profile.devices().is_empty()), (Some(100), None, true));
}

#[test]
fn the_seventeenth_device_pushes_out_the_one_not_seen_for_longest() {
    let mut records: Vec<Record> = (1..=16).map(|n| Record { device: Some(u32::from(n)), ..record(n, 1_000 + i64::from(n)) }).collect();
    records.push(Record { device: Some(1), ..record(100, 2_000) });
    records.push(Record { device: Some(99), ..record(101, 2_001) });
    let profile = profile(&records, 16);
    let devices: Vec<u32> = profile.devices().iter().map(|(device, _)| device).collect();
    assert_eq!(devices, (1..=16).filter(|device| *device != 2).chain([99]).collect::<Vec<_>>());
}

#[test]
fn the_newest_upload_wins_in_any_order() {
    let upload = |value, as_of_ms, id| ProfileRecord::new(USER, "mean_amount", value, as_of_ms, RecordId([id; 10])).unwrap().stored();
    let uploads = [upload(1.0, 100, 1), upload(2.0, 200, 1), upload(3.0, 200, 2), upload(4.0, 150, 9)];
    for rotation in 0..uploads.len() {
        let mut profile = Profile::default();
        let mut uploads = uploads;
        uploads.rotate_left(rotation);
        uploads.iter().chain(&uploads).for_each(|upload| profile.load(*upload));
        assert_eq!(profile.batch_value("mean_amount"), Some((3.0, 200)));
        assert_eq!(read(&bytes(&profile)), profile);
    }
}

#[test]
fn a_batch_job_can_say_where_home_is() {
    let mut profile = Profile::default();
    assert_eq!(profile.loaded_home_country(), None);
    profile.load(ProfileRecord::home_country(USER, country("DE"), 100, RecordId([1; 10])).unwrap().stored());
    assert_eq!(read(&bytes(&profile)).loaded_home_country(), Some(country("DE")));
}

#[test]
fn an_upload_that_cannot_be_right_is_refused_and_named() {
    let error =
        |entity, name: &str, value, as_of_ms| ProfileRecord::new(entity, name, value, as_of_ms, RecordId([1; 10])).unwrap_err().to_string();
    assert!(error((EntityKind::Ip, EntityId([1; 16])), "mean", 1.0, 1).contains("a ip has no profile"));
    assert!(error(USER, "Mean", 1.0, 1).contains("field name"));
    assert!(error(USER, "mean", f64::NAN, 1).contains("field value"));
    assert!(error(USER, "home_country", 0.5, 1).contains("field value"));
    assert!(error(USER, "mean", 1.0, 0).contains("as_of_ms"));
}

proptest! {
    #[test]
    fn a_profile_reads_back(records in prop::collection::vec(any_record(), 0..30)) {
        // A slot has no way to write the time 0: no event has it.
        let records: Vec<Record> = records.iter().map(|r| Record { time_ms: r.time_ms.max(1), ..*r }).collect();
        let profile = profile(&records, 16);
        prop_assert_eq!(read(&bytes(&profile)), profile);
    }

    #[test]
    fn merging_is_idempotent_commutative_and_associative(a in few_records(), b in few_records(), c in few_records()) {
        let merged = |x: &Profile, y: &Profile| { let mut x = x.clone(); x.merge(y, 16); x };
        let (a, b, c) = (profile(&a, 16), profile(&b, 16), profile(&c, 16));
        prop_assert_eq!(merged(&a, &a), a.clone());
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
    }

    #[test]
    fn which_devices_are_known_does_not_depend_on_order_even_beyond_the_bound(records in few_records(), at: prop::sample::Index) {
        let known = |records: &[Record]| profile(records, 2).devices().iter().map(|(d, seen)| (d, seen.last_ms)).collect::<Vec<_>>();
        let mut rotated = records.clone();
        rotated.rotate_left(at.index(records.len()));
        prop_assert_eq!(known(&rotated), known(&records));
    }

    #[test]
    fn damaged_slots_never_panic_and_never_make_a_profile_that_cannot_be_written(slots in prop::collection::vec(any::<[u8; 32]>(), 0..20)) {
        let mut profile = Profile::default();
        for (mut slot, tag) in slots.into_iter().zip((0x21..=0x24).cycle()) {
            slot[0] = tag;
            profile.read_slot(&slot);
        }
        prop_assert_eq!(read(&bytes(&profile)), profile);
    }
}
