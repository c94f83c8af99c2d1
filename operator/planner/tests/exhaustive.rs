//! Every observation of one shard in three regions, in either role, through the real planner: what must never be
//! allowed is never allowed, and what can settle settles.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use domain::{Epoch, Known, RegionName};
use operator_planner::{Action, Link, Observation, Reason, ShardFacts, ShardRole, actions, lint, view_of};
use world::{address, plan, region};

/// Every shard process that can be seen, in small: role, epoch below, at or above ours, with data or without.
fn processes(follow: &[usize]) -> Vec<ShardFacts> {
    let mut roles = vec![ShardRole::Nowhere, ShardRole::Primary, ShardRole::Held];
    for upstream in follow {
        for link in [Link::Up, Link::Syncing, Link::Down] {
            roles.push(ShardRole::Following { upstream: address(*upstream, 0), link });
        }
    }
    let mut all = Vec::new();
    for role in roles {
        for epoch in [None, Some(Epoch(1)), Some(Epoch(2)), Some(Epoch(3))] {
            for holds_data in [false, true] {
                let offset = u64::from(holds_data) * 10;
                all.push(ShardFacts { role: role.clone(), epoch, holds_data, offset, replicas_required: 0, unlinked_s: 0 });
            }
        }
    }
    all
}

fn facts(process: Option<&ShardFacts>) -> Known<ShardFacts> {
    process.map_or_else(|| Known::unknown("no answer"), |facts| Known::Fresh { value: facts.clone(), seen_at_ms: 0 })
}

/// Calls `check` with every combination of what is seen of the own shard and of the other two regions' copies.
fn for_all(own_region: usize, mut check: impl FnMut(&Observation, Option<&ShardFacts>, [Option<&ShardFacts>; 2])) -> u64 {
    let others: Vec<usize> = (0..3).filter(|index| *index != own_region).collect();
    let own_processes = processes(&others);
    let copies = processes(&[0]);
    let with_unknown =
        |all: &[ShardFacts]| -> Vec<Option<ShardFacts>> { std::iter::once(None).chain(all.iter().cloned().map(Some)).collect() };
    let (own_all, copies) = (with_unknown(&own_processes), with_unknown(&copies));
    let mut cases = 0;
    for own in &own_all {
        for one in &copies {
            for two in &copies {
                let mut seen = world::settled(own_region);
                seen.shards = vec![vec![facts(own.as_ref())]];
                seen.copies = [(region(others[0]), vec![facts(one.as_ref())]), (region(others[1]), vec![facts(two.as_ref())])].into();
                check(&seen, own.as_ref(), [one.as_ref(), two.as_ref()]);
                cases += 1;
            }
        }
    }
    cases
}

fn shard_actions(seen: &Observation, own: usize, seeded: bool) -> (Vec<Action>, Vec<Reason>) {
    let allowed = actions(&plan(2, seeded), &region(own), seen);
    (allowed.actions, allowed.blocked)
}

#[test]
fn in_the_active_region_no_data_are_lost_and_nobody_is_overtaken() {
    for seeded in [false, true] {
        let cases = for_all(0, |seen, own, others| {
            let (actions, blocked) = shard_actions(seen, 0, seeded);
            assert!(actions.len() + blocked.len() <= 1, "one answer a shard: {actions:?} {blocked:?}");
            let newer = own.into_iter().chain(others.into_iter().flatten()).any(|facts| facts.epoch > Some(Epoch(2)));
            match actions.first() {
                Some(Action::MakePrimary { epoch, .. }) => {
                    let own = own.expect("nothing is done to a process that was not seen");
                    assert_eq!(*epoch, Epoch(2));
                    assert!(!newer, "I2: somebody has acted in a newer epoch");
                    if !own.holds_data {
                        assert!(!others.iter().flatten().any(|copy| copy.holds_data), "I10: a copy has data and an empty primary is made");
                        let decided = |copy: &Option<&ShardFacts>| copy.is_some_and(|copy| copy.role != ShardRole::Nowhere);
                        assert!(!seeded || others.iter().all(decided), "I10: an empty primary is made and a copy is not known");
                    }
                    if let ShardRole::Following { upstream, link } = &own.role {
                        let from = (1..3).find(|index| address(*index, 0) == *upstream).unwrap();
                        let upstream = others[from - 1];
                        assert!(
                            !own.holds_data || upstream.is_some_and(|facts| facts.role == ShardRole::Held),
                            "I5: promoted while its upstream may write"
                        );
                        assert!(!own.holds_data || *link == Link::Up, "a copy is promoted before it is complete");
                    }
                }
                Some(Action::FollowRemote { upstream, .. }) => {
                    let from = (1..3).find(|index| address(*index, 0) == *upstream).unwrap();
                    let source = others[from - 1].expect("it follows a copy that was seen");
                    assert!(source.holds_data && source.role == ShardRole::Held && !newer, "it fetches only from a held copy with data");
                }
                Some(other) => panic!("{other:?} is not for the active region"),
                None if blocked.is_empty() => {
                    let own = own.unwrap();
                    assert!(own.role == ShardRole::Primary && own.epoch == Some(Epoch(2)), "settled as {own:?}");
                }
                None => {}
            }
        });
        assert_eq!(cases, 73 * 49 * 49);
    }
}

#[test]
fn in_another_region_data_are_only_replaced_by_those_of_a_primary_that_has_some() {
    let cases = for_all(1, |seen, own, others| {
        let (actions, blocked) = shard_actions(seen, 1, true);
        assert!(actions.len() + blocked.len() <= 1, "one answer a shard: {actions:?} {blocked:?}");
        let active = others[0];
        match actions.first() {
            Some(Action::FollowRemote { upstream, .. }) => {
                let own = own.expect("nothing is done to a process that was not seen");
                assert_eq!(*upstream, address(0, 0), "only the active region's shard is followed");
                let safe =
                    active.is_some_and(|facts| facts.role == ShardRole::Primary && facts.epoch == Some(Epoch(2)) && facts.holds_data);
                assert!(!own.holds_data || safe, "I10: data are given up for {active:?}");
            }
            Some(Action::HoldCopy { .. }) => {
                assert!(own.is_some_and(|facts| facts.holds_data), "an empty copy is not worth holding");
                assert!(active.is_some_and(|facts| !facts.holds_data), "held although the active region has not lost its data");
            }
            Some(other) => panic!("{other:?} is not for a standby"),
            None if blocked.is_empty() => {
                let settled = matches!(&own.unwrap().role, ShardRole::Following { upstream, link: Link::Up } if *upstream == address(0, 0));
                assert!(settled, "settled as {own:?}");
            }
            None => {}
        }
        if let Some(own) = own.filter(|own| own.epoch > Some(Epoch(2))) {
            assert!(actions.is_empty(), "I2: acted below the epoch of {own:?}");
        }
    });
    assert_eq!(cases, 73 * 49 * 49);
}

#[test]
fn the_view_of_a_plan_is_the_same_wherever_it_is_made_and_clean() {
    let plan = plan(1, false);
    assert!(lint(&plan, None).is_empty(), "{:?}", lint(&plan, None));
    for index in 0..3 {
        let view = view_of(&plan, &region(index), &Observation::nothing("test")).unwrap();
        assert_eq!(view.writes_features(), index == 0);
        assert_eq!(view.shards[0].primary.to_string(), "payments-fs-g1-s0-primary.fraud.svc:6379");
    }
    assert_eq!(view_of(&plan, &RegionName::new("mars").unwrap(), &Observation::nothing("test")), None);
}

/// What a region's processes would be after an action, as Redis does it.
fn apply(processes: &mut [ShardFacts; 3], own: usize, action: &Action) {
    match action {
        Action::MakePrimary { epoch, .. } => {
            processes[own].role = ShardRole::Primary;
            processes[own].epoch = Some(*epoch);
        }
        Action::HoldCopy { .. } => processes[own].role = ShardRole::Held,
        Action::FollowRemote { upstream, .. } => {
            processes[own].role = ShardRole::Following { upstream: upstream.clone(), link: Link::Down };
        }
        Action::EnsurePlanView(_) | Action::EnsureTopics | Action::RequireReplicas { .. } => {}
        Action::FollowLocal { .. } => panic!("there is one process in each region"),
    }
}

/// Replication as Redis does it: a replica gets what a primary or held copy has; others give no copies.
fn replicate(processes: &mut [ShardFacts; 3]) {
    for index in 0..3 {
        let ShardRole::Following { upstream, .. } = processes[index].role.clone() else { continue };
        let from = (0..3).find(|other| address(*other, 0) == upstream).unwrap();
        let gives = matches!(processes[from].role, ShardRole::Primary | ShardRole::Held);
        let link = if gives { Link::Up } else { Link::Down };
        if gives {
            let source = processes[from].clone();
            processes[index] = ShardFacts { role: processes[index].role.clone(), ..source };
        }
        processes[index].role = ShardRole::Following { upstream, link };
    }
}

fn observe(processes: &[ShardFacts; 3], own: usize) -> Observation {
    let mut seen = world::settled(own);
    seen.shards = vec![vec![facts(Some(&processes[own]))]];
    seen.copies = (0..3).filter(|index| *index != own).map(|index| (region(index), vec![facts(Some(&processes[index]))])).collect();
    seen
}

#[test]
fn an_active_region_whose_redis_restarted_empty_fetches_its_data_back_and_the_others_follow_again() {
    let empty = |role| ShardFacts { role, epoch: None, holds_data: false, offset: 0, replicas_required: 0, unlinked_s: 0 };
    let copy = |offset| ShardFacts {
        role: ShardRole::Following { upstream: address(0, 0), link: Link::Down },
        epoch: Some(Epoch(2)),
        holds_data: true,
        offset,
        replicas_required: 0,
        unlinked_s: 0,
    };
    // All orders in which three operators may act, each six passes.
    for order in 0..3usize.pow(6) {
        let mut processes = [empty(ShardRole::Nowhere), copy(70), copy(90)];
        let mut passes: Vec<usize> = (0..6).map(|digit| order / 3usize.pow(digit) % 3).collect();
        passes.extend([0, 1, 2].repeat(4));
        for own in passes {
            let (actions, _) = shard_actions(&observe(&processes, own), own, true);
            for action in &actions {
                apply(&mut processes, own, action);
            }
            replicate(&mut processes);
            assert!(processes.iter().any(|process| process.holds_data), "I10: the data are gone");
        }
        assert!(processes[0].role == ShardRole::Primary && processes[0].holds_data, "order {order}: {processes:?}");
        for process in &processes[1..] {
            assert!(
                matches!(process.role, ShardRole::Following { link: Link::Up, .. }) && process.holds_data,
                "order {order}: {processes:?}"
            );
        }
        for own in 0..3 {
            assert_eq!(shard_actions(&observe(&processes, own), own, true), (vec![], vec![]), "nothing is left to do");
        }
    }
}

#[test]
fn three_empty_regions_come_up_by_themselves() {
    let mut processes = std::array::from_fn(|_| ShardFacts {
        role: ShardRole::Nowhere,
        epoch: None,
        holds_data: false,
        offset: 0,
        replicas_required: 0,
        unlinked_s: 0,
    });
    for own in [2, 1, 0].repeat(3) {
        for action in shard_actions(&observe(&processes, own), own, false).0 {
            apply(&mut processes, own, &action);
        }
        replicate(&mut processes);
    }
    assert_eq!(processes[0].role, ShardRole::Primary);
    for own in 0..3 {
        assert_eq!(shard_actions(&observe(&processes, own), own, true), (vec![], vec![]));
    }
}
