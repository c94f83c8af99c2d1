//! Stories about plans, and properties of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use domain::{Epoch, Known, RegionRole, Revision};
use operator_planner::{
    Allowed, ConditionType, Observation, Phase, PlanInput, PlanReport, Reason, RegionKind, SettingFault, ShardFacts, ShardRole,
    StatusInput, Truth, actions, lint, plan, status,
};
use proptest::prelude::*;
use world::{current, region, spec};

fn nothing() -> Observation {
    Observation::nothing("test")
}

fn first() -> domain::Plan {
    world::plan(1, false)
}

#[test]
fn the_first_plan_makes_the_region_with_the_lowest_preference_active() {
    let plan = first();
    assert_eq!((plan.epoch, plan.revision, plan.active_region.as_str()), (Epoch::FIRST, Revision(1), "us-east"));
    assert_eq!(plan.role_of(&region(1)), Some(RegionRole::Standby));
    assert_eq!((plan.data_plane_version.as_str(), plan.dns_answer), ("0.1.0", vec!["203.0.113.0".to_string()]));
}

#[test]
fn regions_make_the_same_first_plan_without_talking_to_each_other() {
    let (spec, seen) = (spec(), nothing());
    let made: Vec<_> = (0..3)
        .map(|index| {
            let own = region(index);
            plan(&PlanInput { region: &own, spec: &spec, current: None, seen: &seen, newest_version: "0.1.0" })
                .plan
                .unwrap()
                .to_bytes()
                .unwrap()
        })
        .collect();
    assert!(made.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_better_preference_later_never_moves_the_active_region() {
    let before = current(first());
    let mut spec = spec();
    spec.regions[1].preference = Some(0);
    spec.effective = serde_json::json!({"changed": true});
    let own = region(0);
    let planned = plan(&PlanInput { region: &own, spec: &spec, current: Some(&before), seen: &nothing(), newest_version: "9.9.9" });
    let after = planned.plan.unwrap();
    assert_eq!((after.active_region.as_str(), after.epoch, after.revision), ("us-east", Epoch(1), Revision(2)));
    assert_eq!(after.data_plane_version, "0.1.0", "a newer operator alone changes no version");
    assert!(lint(&after, Some(&before.plan)).is_empty(), "{:?}", lint(&after, Some(&before.plan)));
}

#[test]
fn a_region_keeps_its_number_whoever_comes_before_it() {
    let before = current(first());
    let mut spec = spec();
    let mut added = spec.regions[2].clone();
    added.name = domain::RegionName::new("aa-new").unwrap();
    spec.regions.insert(0, added);
    spec.regions.remove(2);
    let own = region(0);
    let planned = plan(&PlanInput { region: &own, spec: &spec, current: Some(&before), seen: &nothing(), newest_version: "0.1.0" });
    let after = planned.plan.unwrap();
    let numbers: Vec<_> = after.roles.iter().map(|entry| (entry.name.as_str(), entry.ordinal)).collect();
    assert_eq!(numbers, [("aa-new", 3), ("us-east", 0), ("ap-south", 2)]);
    assert!(lint(&after, Some(&before.plan)).is_empty());
}

#[test]
fn removing_the_active_region_from_the_manifest_is_refused_and_nothing_else_of_it_is_taken_over() {
    let before = current(first());
    let mut spec = spec();
    spec.regions.remove(0);
    spec.model.sha256 = "cd".into();
    let own = region(1);
    let planned = plan(&PlanInput { region: &own, spec: &spec, current: Some(&before), seen: &nothing(), newest_version: "0.1.0" });
    assert_eq!(planned.plan.as_ref(), Some(&before.plan));
    assert_eq!(planned.report.reasons, [Reason::UnsafeToRemoveActiveRegion { region: region(0) }]);
}

#[test]
fn a_shard_that_became_a_primary_is_remembered_by_the_active_region_only() {
    let before = current(first());
    let mut seen = nothing();
    let primary =
        ShardFacts { role: ShardRole::Primary, epoch: Some(Epoch(1)), holds_data: false, offset: 0, replicas_required: 0, unlinked_s: 0 };
    seen.shards = vec![vec![Known::unknown("no answer"), Known::Fresh { value: primary, seen_at_ms: 0 }]];
    let spec = spec();
    for (index, expected) in [(0, vec![0]), (1, vec![])] {
        let own = region(index);
        let planned = plan(&PlanInput { region: &own, spec: &spec, current: Some(&before), seen: &seen, newest_version: "0.1.0" });
        let after = planned.plan.unwrap();
        assert_eq!(after.features.seeded_shards.iter().copied().collect::<Vec<u16>>(), expected);
        assert!(index == 1 || lint(&after, Some(&before.plan)).is_empty());
    }
}

#[test]
fn a_plan_that_forgets_or_jumps_is_found_by_lint() {
    let before = first();
    let mut next = before.clone();
    next.parent = Some(before.to_bytes().unwrap().sha256().to_owned());
    next.revision = Revision(2);
    assert!(lint(&next, Some(&before)).is_empty());
    for (what, spoil) in [
        ("active region changes", (|plan| plan.active_region = region(1)) as fn(&mut domain::Plan)),
        ("revision", |plan| plan.revision = Revision(4)),
        ("epoch", |plan| plan.epoch = Epoch(3)),
        ("parent", |plan| plan.parent = None),
        ("two regions are active", |plan| plan.roles[1].role = RegionRole::Active),
        ("shard addresses", |plan| plan.roles[2].role = RegionRole::Witness),
    ] {
        let mut bad = next.clone();
        spoil(&mut bad);
        assert!(!lint(&bad, Some(&before)).is_empty(), "{what} was not found");
    }
}

#[test]
fn what_was_not_seen_is_told_as_such_and_never_as_ready() {
    let (plan, own, report, seen) = (first(), region(0), PlanReport::default(), nothing());
    let allowed = actions(&plan, &own, &seen);
    assert!(allowed.actions.is_empty());
    let told = status(&StatusInput {
        region: &own,
        plan: Some(&plan),
        report: &report,
        allowed: &allowed,
        seen: &seen,
        refused: None,
        failures: &[],
        applied: false,
        deletion: None,
    });
    assert_eq!(told.phase, Phase::Active);
    assert_ne!(told.truth(ConditionType::Ready), Truth::True);
    assert_eq!(told.truth(ConditionType::Quorum), Truth::Unknown);
    assert_eq!(told.truth(ConditionType::FailoverReady), Truth::False);
    assert_eq!(told.truth(ConditionType::Replicating), Truth::Unknown);
    assert!(told.waiting_on.is_some() && told.model.is_none());
}

#[test]
fn a_wrong_setting_is_told_with_the_line_to_have_and_keeps_nothing_back() {
    let (plan, own, report) = (world::plan(2, false), region(0), PlanReport::default());
    let mut seen = world::settled(0);
    let before = actions(&plan, &own, &seen);
    seen.faults = vec![SettingFault {
        process: operator_planner::process_address(&plan, 0, 1),
        setting: "maxmemory-policy".into(),
        current: "allkeys-lru".into(),
        line: "maxmemory-policy noeviction".into(),
        why: "it drops events".into(),
    }];
    let allowed = actions(&plan, &own, &seen);
    assert_eq!(allowed.actions, before.actions);
    let told = status(&StatusInput {
        region: &own,
        plan: Some(&plan),
        report: &report,
        allowed: &allowed,
        seen: &seen,
        refused: None,
        failures: &[],
        applied: false,
        deletion: None,
    });
    let stalled = told.conditions.iter().find(|found| found.condition == ConditionType::Stalled).unwrap();
    assert_eq!((stalled.truth, stalled.reason), (Truth::True, "UnsafeToRunWithSetting"));
    assert!(
        stalled.message.contains("payments-fs-g1-s0-1") && stalled.message.contains("`maxmemory-policy noeviction`"),
        "{}",
        stalled.message
    );
}

#[test]
fn a_deletion_that_waits_says_what_to_do_in_status() {
    let (plan, own, report, allowed, seen) = (first(), region(0), PlanReport::default(), Allowed::default(), nothing());
    let why = "annotate".to_string();
    let told = status(&StatusInput {
        region: &own,
        plan: Some(&plan),
        report: &report,
        allowed: &allowed,
        seen: &seen,
        refused: None,
        failures: &[],
        applied: false,
        deletion: Some(Some(why.clone())),
    });
    assert_eq!((told.phase, told.truth(ConditionType::Stalled), told.waiting_on), (Phase::Deleting, Truth::True, Some(why)));
}

proptest! {
    /// Any manifest after any other: planning its own result changes nothing, every step is clean, and the epoch and the
    /// active region stay.
    #[test]
    fn plans_follow_manifests_and_settle(edits in prop::collection::vec((0..6u8, 0..3usize, 0..3u8), 1..12)) {
        let mut spec = spec();
        let mut committed = current(first());
        let own = region(0);
        for (what, which, value) in edits {
            let which = which.min(spec.regions.len() - 1);
            match what {
                0 => spec.model.sha256 = format!("{value}"),
                1 => spec.version = (value > 0).then(|| format!("0.{value}.0")),
                2 => spec.regions[which].preference = Some(u32::from(value) + 7),
                3 => spec.regions[which].ingress = vec![format!("198.51.100.{value}")],
                4 if spec.regions.len() > 1 => { spec.regions.remove(which); }
                _ => spec.regions[which].kind = if value == 0 { RegionKind::Witness } else { RegionKind::DataPlane },
            }
            spec.effective = serde_json::json!({"regions": spec.regions.len(), "model": spec.model.sha256});
            let planned = plan(&PlanInput { region: &own, spec: &spec, current: Some(&committed), seen: &nothing(), newest_version: "0.1.0" });
            let next = planned.plan.unwrap();
            prop_assert_eq!(next.epoch, Epoch::FIRST);
            prop_assert_eq!(next.active_region.as_str(), "us-east");
            prop_assert_eq!(planned.report.changes.is_empty(), next == committed.plan);
            if next != committed.plan {
                prop_assert!(lint(&next, Some(&committed.plan)).is_empty(), "{:?}", lint(&next, Some(&committed.plan)));
                committed = current(next);
            }
            let again = plan(&PlanInput { region: &own, spec: &spec, current: Some(&committed), seen: &nothing(), newest_version: "0.1.0" });
            prop_assert_eq!(again.plan.as_ref(), Some(&committed.plan), "planning its own result changes it");
        }
    }
}
