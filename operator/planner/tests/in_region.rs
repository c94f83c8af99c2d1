//! A shard with several processes in one region: every observation of two of them, and every short story of two and of
//! three in which they end, fall silent and come back, through the real planner.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use domain::{Epoch, Known, Plan, PlanView};
use operator_planner::{Action, Allowed, Link, Observation, ShardFacts, ShardRole, actions, process_address, view_of};
use world::{address, plan, region};

const FENCED_AFTER_S: u64 = 6;

fn known(facts: Option<&ShardFacts>) -> Known<ShardFacts> {
    facts.map_or_else(|| Known::unknown("no answer"), |facts| Known::Fresh { value: facts.clone(), seen_at_ms: 0 })
}

fn facts(role: ShardRole, epoch: Option<u64>, data: u64) -> ShardFacts {
    ShardFacts { role, epoch: epoch.map(Epoch), holds_data: data > 0, offset: data, replicas_required: 0, unlinked_s: 0 }
}

/// One of the processes, in every state that matters to the other.
fn processes(sibling: u16) -> Vec<Option<ShardFacts>> {
    let mut all = vec![None, Some(ShardFacts::gone())];
    let follows = |upstream, link| ShardRole::Following { upstream, link };
    let local = process_address(&plan(2, true), 0, sibling);
    let mut roles = vec![ShardRole::Nowhere, ShardRole::Primary, ShardRole::Held];
    for link in [Link::Up, Link::Syncing, Link::Down] {
        roles.push(follows(local.clone(), link));
        roles.push(follows(address(1, 0), link));
    }
    for role in roles {
        for epoch in [None, Some(1), Some(2)] {
            for data in [0, 10, 20].into_iter().take(if epoch == Some(2) { 3 } else { 2 }) {
                let one = facts(role.clone(), epoch, data);
                match role {
                    ShardRole::Primary => all.push(Some(ShardFacts { replicas_required: 1, ..one.clone() })),
                    ShardRole::Following { link: Link::Down, .. } => {
                        all.push(Some(ShardFacts { unlinked_s: FENCED_AFTER_S, ..one.clone() }))
                    }
                    _ => {}
                }
                all.push(Some(one));
            }
        }
    }
    all
}

/// Another region's copy, seen from the active one.
fn copies() -> Vec<Option<ShardFacts>> {
    let follows = |link| ShardRole::Following { upstream: address(0, 0), link };
    let long_alone = ShardFacts { unlinked_s: FENCED_AFTER_S, ..facts(follows(Link::Down), Some(2), 10) };
    let empty = ShardFacts { unlinked_s: FENCED_AFTER_S, ..facts(follows(Link::Down), None, 0) };
    let held = facts(ShardRole::Held, Some(2), 10);
    vec![
        None,
        Some(empty),
        Some(long_alone),
        Some(held),
        Some(facts(follows(Link::Up), Some(2), 10)),
        Some(facts(ShardRole::Nowhere, None, 0)),
    ]
}

/// What pods may have been told: nothing, not known, or a primary with or without a replica.
fn views(own: usize) -> Vec<Known<Option<PlanView>>> {
    let fresh = |view| Known::Fresh { value: view, seen_at_ms: 0 };
    let mut all = vec![fresh(None), Known::unknown("not seen")];
    for process in [0, 1] {
        for replicas in [vec![], vec![process_address(&plan(2, true), 0, 1 - process)]] {
            let mut view = view_of(&plan(2, true), &region(own), &Observation::nothing("test")).unwrap();
            (view.shards[0].process, view.shards[0].replicas, view.shards[0].term) = (process, replicas, 3);
            all.push(fresh(Some(view)));
        }
    }
    all
}

struct Seen<'a> {
    own: [Option<&'a ShardFacts>; 2],
    copies: [Option<&'a ShardFacts>; 2],
    view: &'a Known<Option<PlanView>>,
}

/// Calls `check` with what the planner says to every combination.
fn for_all(own: usize, seeded: bool, mut check: impl FnMut(&Seen<'_>, &Allowed)) {
    let (first, second, copies, views, plan) = (processes(1), processes(0), copies(), views(own), plan(2, seeded));
    let others: Vec<usize> = (0..3).filter(|index| *index != own).collect();
    let settled = world::settled(own);
    for one in &first {
        for two in &second {
            for near in &copies {
                for far in [&copies[0], &copies[1], &copies[2]] {
                    for view in &views {
                        let mut seen = settled.clone();
                        seen.view = view.clone();
                        seen.shards = vec![vec![known(one.as_ref()), known(two.as_ref())]];
                        seen.copies =
                            [(region(others[0]), vec![known(near.as_ref())]), (region(others[1]), vec![known(far.as_ref())])].into();
                        let allowed = actions(&plan, &region(own), &seen);
                        check(&Seen { own: [one.as_ref(), two.as_ref()], copies: [near.as_ref(), far.as_ref()], view }, &allowed);
                    }
                }
            }
        }
    }
}

fn holds_data(process: Option<&ShardFacts>) -> bool {
    process.is_some_and(|facts| facts.holds_data)
}

/// Whether pods write to this process, as far as its region's operator knows.
fn is_told_to_write(view: &Known<Option<PlanView>>, process: u16) -> bool {
    match view {
        Known::Fresh { value: Some(view), .. } => view.writes_features() && view.shards[0].process == process,
        Known::Fresh { value: None, .. } => false,
        _ => true,
    }
}

#[test]
fn an_empty_process_is_never_promoted_while_a_copy_holds_data_and_two_primaries_never_write() {
    for seeded in [false, true] {
        for_all(0, seeded, |seen, allowed| {
            for action in &allowed.actions {
                match action {
                    Action::MakePrimary { process, .. } => check_promotion(seen, *process, seeded),
                    Action::FollowLocal { process, leader, .. } => {
                        let (own, leader) = (seen.own[usize::from(*process)].unwrap(), seen.own[usize::from(*leader)].unwrap());
                        assert!(!own.holds_data || leader.holds_data, "I10: data are given up for an empty process");
                        assert!(own.role != ShardRole::Gone && leader.role != ShardRole::Gone);
                    }
                    Action::FollowRemote { process, upstream, .. } => {
                        let own = seen.own[usize::from(*process)].unwrap();
                        let source = seen.copies[usize::from(*upstream == address(2, 0))].unwrap();
                        assert!(source.holds_data && source.role == ShardRole::Held, "it fetches only from a held copy with data");
                        assert!(own.role != ShardRole::Primary || !own.holds_data, "a primary with data is kept");
                    }
                    Action::RequireReplicas { process, replicas, .. } => {
                        let own = seen.own[usize::from(*process)].unwrap();
                        assert!(own.role == ShardRole::Primary && own.replicas_required != *replicas);
                        let alone = matches!(seen.view, Known::Fresh { value: Some(view), .. } if view.shards[0].replicas.is_empty() && view.shards[0].process == *process);
                        assert!(*replicas == 1 || alone, "it may write alone although another process is listed");
                    }
                    Action::EnsurePlanView(_) => {}
                    Action::EnsureTopics | Action::HoldCopy { .. } => panic!("{action:?} is not for the active region's shards"),
                }
            }
            check_promotions_together(seen, allowed);
        });
    }
}

fn check_promotions_together(seen: &Seen<'_>, allowed: &Allowed) {
    let promoted: Vec<_> = allowed.actions.iter().filter(|action| matches!(action, Action::MakePrimary { .. })).collect();
    assert!(promoted.len() <= 1, "{promoted:?}");
    let settled =
        seen.own.iter().flatten().any(|facts| facts.role == ShardRole::Primary && facts.epoch == Some(Epoch(2)) && facts.holds_data);
    assert!(!settled || promoted.is_empty(), "there is a primary with data already");
}

fn check_promotion(seen: &Seen<'_>, process: u16, seeded: bool) {
    let index = usize::from(process);
    let own = seen.own[index].expect("nothing is done to a process that was not seen");
    let sibling = seen.own[1 - index];
    if !own.holds_data {
        assert!(!holds_data(sibling) && !seen.copies.iter().any(|copy| holds_data(*copy)), "I10: a copy has data");
        let decided = |copy: &Option<&ShardFacts>| copy.is_some_and(|copy| copy.role != ShardRole::Nowhere);
        assert!(!seeded || (sibling.is_some() && seen.copies.iter().all(decided)), "I10: a copy is not known");
    }
    match sibling {
        Some(sibling) => assert!(sibling.role != ShardRole::Primary, "a second primary beside {sibling:?}"),
        None if is_told_to_write(seen.view, 1 - process) => check_fence(seen, process, own),
        None => {}
    }
}

/// The old primary is silent: nothing may be connected to it, and the new one has all of its writes.
fn check_fence(seen: &Seen<'_>, process: u16, own: &ShardFacts) {
    let Known::Fresh { value: Some(view), .. } = seen.view else { panic!("promoted without knowing what pods were told") };
    assert!(view.shards[0].replicas.contains(&process_address(&plan(2, true), 0, process)), "it may lack the last writes");
    let is_alone = |facts: &ShardFacts| match &facts.role {
        ShardRole::Following { link, .. } => *link == Link::Down && facts.unlinked_s >= FENCED_AFTER_S,
        _ => true,
    };
    assert!(
        is_alone(own)
            || !matches!(&own.role, ShardRole::Following { upstream, .. } if *upstream == process_address(&plan(2, true), 0, 1 - process))
    );
    assert!(seen.copies.iter().all(|copy| copy.is_some_and(is_alone)), "another region's copy may let it write");
}

#[test]
fn a_primary_that_is_known_to_be_lost_is_replaced_at_once_whatever_else_is_not_known() {
    for gone in [ShardFacts::gone(), facts(ShardRole::Nowhere, None, 0)] {
        let upstream = process_address(&plan(2, true), 0, 0);
        let replica = facts(ShardRole::Following { upstream, link: Link::Down }, Some(2), 10);
        for view in views(0) {
            let mut seen = world::settled(0);
            (seen.view, seen.shards) = (view, vec![vec![known(Some(&gone)), known(Some(&replica))]]);
            let allowed = actions(&plan(2, true), &region(0), &seen);
            assert!(allowed.actions.contains(&Action::MakePrimary { shard: 0, process: 1, epoch: Epoch(2) }), "{allowed:?}");
        }
    }
}

#[test]
fn in_another_region_data_are_replaced_only_by_data_and_one_process_leads() {
    for_all(1, true, |seen, allowed| {
        let leading = allowed.actions.iter().filter(|action| matches!(action, Action::FollowRemote { .. } | Action::HoldCopy { .. }));
        assert!(leading.count() <= 1, "{allowed:?}");
        for action in &allowed.actions {
            match action {
                Action::FollowRemote { process, upstream, .. } => {
                    let own = seen.own[usize::from(*process)].unwrap();
                    assert_eq!(*upstream, address(0, 0), "only the active region's shard is followed");
                    let safe = seen.copies[0].is_some_and(|copy| copy.role == ShardRole::Primary && copy.holds_data);
                    assert!(!own.holds_data || safe, "I10: data are given up");
                    assert!(!seen.own.iter().any(|own| holds_data(*own)) || own.holds_data, "a process that holds data leads");
                }
                Action::FollowLocal { process, leader, .. } => {
                    let (own, leader) = (seen.own[usize::from(*process)].unwrap(), seen.own[usize::from(*leader)].unwrap());
                    assert!(!own.holds_data || leader.holds_data, "I10: data are given up for an empty process");
                }
                Action::HoldCopy { process, .. } => assert!(holds_data(seen.own[usize::from(*process)])),
                Action::EnsurePlanView(_) => {}
                other => panic!("{other:?} is not for a standby"),
            }
        }
    });
}

/// The processes of one region, as Redis, pods and the operator see them.
#[derive(Clone)]
struct Region {
    processes: Vec<Process>,
    view: Option<PlanView>,
    /// Writes so far.
    written: u64,
    plans: [Plan; 2],
    settled: Observation,
}

#[derive(Clone)]
struct Process {
    facts: ShardFacts,
    /// Runs, and cannot be reached but by pods beside it.
    silent: bool,
    /// Pods were told at some time that it is the primary.
    told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    /// The process is ended; it starts again, empty.
    Restart(usize),
    /// The process is ended, and stays so until it is healed.
    End(usize),
    Cut(usize),
    Heal(usize),
    Pass,
}

impl Region {
    fn of(processes: usize) -> Self {
        let one = Process { facts: facts(ShardRole::Nowhere, None, 0), silent: false, told: false };
        let plans = [plan(2, false), plan(2, true)];
        let mut region = Self { processes: vec![one; processes], view: None, written: 0, plans, settled: world::settled(0) };
        for _ in 0..8 {
            region.pass();
        }
        region
    }

    fn observe(&self) -> Observation {
        let mut seen = self.settled.clone();
        seen.view = Known::Fresh { value: self.view.clone(), seen_at_ms: 0 };
        let look = |process: &Process| known(Some(&process.facts).filter(|_| !process.silent));
        seen.shards = vec![self.processes.iter().map(look).collect()];
        // The other regions have no data and follow this one, as known.
        let copy = &copies()[1];
        seen.copies = [1, 2].map(|index| (region(index), vec![known(copy.as_ref())])).into();
        seen
    }

    /// Two seconds: the operator looks and acts, then Redis and pods go on.
    fn pass(&mut self) {
        let allowed = actions(&self.plans[usize::from(self.written > 0)], &region(0), &self.observe());
        for action in &allowed.actions {
            self.apply(action);
        }
        self.replicate();
        self.write();
        self.replicate();
    }

    fn apply(&mut self, action: &Action) {
        let plan = &self.plans[1];
        let follow = |process: &mut Process, leader: u16| {
            let upstream = process_address(plan, 0, leader);
            process.facts.role = ShardRole::Following { upstream, link: Link::Down };
            process.facts.unlinked_s = 0;
        };
        match action {
            Action::EnsurePlanView(view) => {
                self.processes[usize::from(view.shards[0].process)].told = true;
                let before = self.view.replace((**view).clone());
                assert!(before.is_none_or(|before| view.shard_going_back(&before).is_none()), "a term goes back");
            }
            Action::MakePrimary { process, epoch, .. } => {
                let facts = &mut self.processes[usize::from(*process)].facts;
                *facts = ShardFacts { role: ShardRole::Primary, epoch: Some(*epoch), replicas_required: 0, ..facts.clone() };
            }
            Action::FollowLocal { process, leader, .. } => follow(&mut self.processes[usize::from(*process)], *leader),
            Action::RequireReplicas { process, replicas, .. } => {
                self.processes[usize::from(*process)].facts.replicas_required = *replicas;
            }
            other => panic!("{other:?} is not for this story"),
        }
    }

    fn replicate(&mut self) {
        for index in 0..self.processes.len() {
            let ShardRole::Following { upstream, .. } = self.processes[index].facts.role.clone() else { continue };
            let from = (0..self.processes.len()).find(|from| process_address(&self.plans[1], 0, u16::try_from(*from).unwrap()) == upstream);
            let source = &self.processes[from.unwrap()];
            let reached = source.facts.role == ShardRole::Primary && source.silent == self.processes[index].silent;
            let (epoch, holds_data, offset) = (source.facts.epoch, source.facts.holds_data, source.facts.offset);
            let own = &mut self.processes[index].facts;
            own.role = ShardRole::Following { upstream, link: if reached { Link::Up } else { Link::Down } };
            own.unlinked_s = if reached { 0 } else { own.unlinked_s + 1 };
            if reached {
                (own.epoch, own.holds_data, own.offset) = (epoch, holds_data, offset);
            }
        }
    }

    /// Whether a process would take a write now: it is a primary, and has the replicas that it wants.
    fn takes_writes(&self, index: usize) -> bool {
        let process = &self.processes[index];
        let address = process_address(&self.plans[1], 0, u16::try_from(index).unwrap());
        let follows = |other: &&Process| {
            matches!(&other.facts.role, ShardRole::Following { upstream, link } if *upstream == address
                && (*link == Link::Up || other.facts.unlinked_s < FENCED_AFTER_S - 1))
        };
        let replicas = self.processes.iter().filter(follows).count();
        process.facts.role == ShardRole::Primary && u64::try_from(replicas).unwrap() >= process.facts.replicas_required
    }

    /// Pods write where they were told, also those that nobody else reaches.
    fn write(&mut self) {
        let Some(view) = &self.view else { return };
        let told = usize::from(view.shards[0].process);
        if self.takes_writes(told) {
            self.written += 1;
            let facts = &mut self.processes[told].facts;
            (facts.holds_data, facts.offset) = (true, facts.offset + 1);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Restart(index) => {
                self.processes[index] = Process { facts: facts(ShardRole::Nowhere, None, 0), silent: false, told: false }
            }
            Event::End(index) => self.processes[index] = Process { facts: ShardFacts::gone(), silent: false, told: false },
            Event::Cut(index) => self.processes[index].silent = true,
            Event::Heal(index) => {
                self.processes[index].silent = false;
                if self.processes[index].facts.role == ShardRole::Gone {
                    self.happen(Event::Restart(index));
                }
            }
            Event::Pass => self.pass(),
        }
    }

    fn has_data(&self) -> bool {
        self.processes.iter().any(|process| process.facts.holds_data)
    }

    /// There are never two processes that pods may write to.
    fn check(&self, story: &[Event]) {
        let writing = (0..self.processes.len()).filter(|index| self.processes[*index].told && self.takes_writes(*index)).count();
        assert!(writing <= 1, "{writing} processes take writes after {story:?}");
    }

    fn is_settled(&self) -> bool {
        let primaries = self.processes.iter().filter(|process| process.facts.role == ShardRole::Primary).count();
        let linked =
            self.processes.iter().filter(|process| matches!(process.facts.role, ShardRole::Following { link: Link::Up, .. })).count();
        primaries == 1 && linked + 1 == self.processes.len()
    }
}

/// Plays every story of `length` events, each followed by a pass, and then heals everything.
fn play_all(processes: usize, length: u32) {
    let mut events = vec![Event::Pass];
    for index in 0..processes {
        events.extend([Event::Restart(index), Event::End(index), Event::Cut(index), Event::Heal(index)]);
    }
    let start = Region::of(processes);
    assert!(start.is_settled() && start.has_data());
    for number in 0..events.len().pow(length) {
        let story: Vec<Event> = (0..length).map(|digit| events[number / events.len().pow(digit) % events.len()]).collect();
        let mut region = start.clone();
        let mut lost = false;
        for event in &story {
            region.happen(*event);
            lost |= !region.has_data();
            region.pass();
            region.check(&story);
            assert!(lost || region.has_data(), "I10: the data are gone after {story:?}");
        }
        (0..processes).for_each(|index| region.happen(Event::Heal(index)));
        for _ in 0..8 {
            region.pass();
            region.check(&story);
        }
        assert!(region.is_settled(), "not settled after {story:?}");
        assert!(lost || region.has_data(), "I10: the data are gone after {story:?}");
        let (written, allowed) = (region.written, actions(&region.plans[1], &world::region(0), &region.observe()));
        assert_eq!((allowed.actions, allowed.blocked), (vec![], vec![]), "nothing is left to do after {story:?}");
        region.pass();
        assert!(region.written > written, "writes go on after {story:?}");
    }
}

#[test]
fn two_processes_settle_after_every_story_and_lose_data_only_when_both_are_lost() {
    play_all(2, 5);
}

#[test]
fn three_processes_settle_after_every_story_and_lose_data_only_when_all_are_lost() {
    play_all(3, 4);
}

#[test]
fn a_killed_primary_is_replaced_in_one_pass_and_pods_are_told_in_the_next() {
    for kill in [Event::End(0), Event::Restart(0)] {
        let mut region = Region::of(2);
        assert_eq!(region.processes[0].facts.replicas_required, 1);
        region.happen(kill);
        region.pass();
        assert_eq!(region.processes[1].facts.role, ShardRole::Primary);
        region.pass();
        let told = &region.view.as_ref().unwrap().shards[0];
        assert_eq!((told.process, told.term, told.replicas.len()), (1, 1, 0));
        assert!(region.takes_writes(1), "it writes alone until the other one is attached");
        region.happen(Event::Heal(0));
        for _ in 0..4 {
            region.pass();
        }
        let told = &region.view.as_ref().unwrap().shards[0];
        assert_eq!((told.process, told.term, told.replicas.len()), (1, 1, 1), "the returned one follows, and nothing moves back");
        assert_eq!(region.processes[1].facts.replicas_required, 1);
    }
}

#[test]
fn a_silent_primary_is_replaced_only_once_it_takes_no_writes() {
    let mut region = Region::of(2);
    region.happen(Event::Cut(0));
    let mut passes = 0;
    while region.processes[1].facts.role != ShardRole::Primary {
        region.pass();
        passes += 1;
        assert!(passes < 10, "never replaced");
    }
    assert!(!region.takes_writes(0) && passes > 2);
    let alone = region.written;
    region.pass();
    region.happen(Event::Heal(0));
    for _ in 0..6 {
        region.pass();
    }
    assert!(region.is_settled() && region.processes[1].facts.role == ShardRole::Primary && region.written > alone);
}
