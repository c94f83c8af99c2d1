//! The cases: how many customers, how much history, who competes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench::report::{self, Case, CaseContract, Contract, Figures};
use bench::table;

use crate::burst;
use crate::encoding::{Raw, SortedSet, StringOfSlots};
use crate::feast;
use crate::flushed::FlushedCounters;
use crate::lua_counters::LuaCounters;
use crate::measure::{Pace, bytes_per_key_at_one, measure, measure_held};
use crate::ours::{Ours, now_ms};
use crate::ours_with_builder::OursWithBuilder;
use crate::targets::TARGETS;
use crate::workload::Workload;

const FEATURE_KEYS: &[&str] = &["p50_ms", "p99_ms", "ping_p99_ms", "redis_cpu_us_per_entity", "bytes_per_event", "bytes_per_key_at_one"];
const ENCODING_KEYS: &[&str] =
    &["p50_ms", "p99_ms", "ping_p99_ms", "redis_cpu_us_per_entity", "bytes_per_event", "bytes_per_event_after_load"];
const BURST_KEYS: &[&str] = &["bursts", "bursts_missed", "payments_per_burst", "last_count_min"];
const BUILDER_KEYS: &[&str] = &["events_per_cpu_s", "catch_up_ratio", "events_lost", "events_double"];

/// `features.json`. The case `builder` is measured by another program and written into the same file.
pub const FEATURES: Contract = Contract {
    name: "features",
    peers: &["feast", "flushed_counters", "lua_counters"],
    cases: &[
        CaseContract { case: "keys20", keys: FEATURE_KEYS },
        CaseContract { case: "keys500", keys: FEATURE_KEYS },
        CaseContract { case: "panes500", keys: FEATURE_KEYS },
        CaseContract { case: "burst", keys: BURST_KEYS },
        CaseContract { case: "builder", keys: BUILDER_KEYS },
    ],
};

/// `features-encoding.json`: ours is the string of slots.
pub const ENCODING: Contract = Contract {
    name: "features-encoding",
    peers: &["sorted_set"],
    cases: &[
        CaseContract { case: "events1", keys: ENCODING_KEYS },
        CaseContract { case: "events20", keys: ENCODING_KEYS },
        CaseContract { case: "events127", keys: ENCODING_KEYS },
        CaseContract { case: "events500", keys: ENCODING_KEYS },
    ],
};

/// What the command line may name.
pub const NAMES: &[&str] = &["keys20", "keys500", "panes500", "burst", "encoding"];

/// Customers with a history, and how many events a key holds in the middle of the run.
#[derive(Debug, Clone, Copy)]
struct Size {
    case: &'static str,
    customers: u64,
    events: u64,
    span: Duration,
}

const DAY: Duration = Duration::from_secs(23 * 3_600);
/// Within the exact horizon, so that all of them are raw events.
const HOUR: Duration = Duration::from_secs(50 * 60);

const KEYS20: Size = Size { case: "keys20", customers: 16_384, events: 20, span: DAY };
const KEYS500: Size = Size { case: "keys500", customers: 4_096, events: 500, span: HOUR };
/// Over a day, so that all but the newest of them are in panes.
const PANES500: Size = Size { case: "panes500", customers: 4_096, events: 500, span: DAY };
/// 122 in the middle, so that few keys pass 128 events, where a sorted set changes its form.
const ENCODING_SIZES: &[Size] = &[
    Size { case: "events1", customers: 65_536, events: 1, span: HOUR },
    Size { case: "events20", customers: 16_384, events: 20, span: DAY },
    Size { case: "events127", customers: 8_192, events: 122, span: HOUR },
    Size { case: "events500", customers: 4_096, events: 500, span: HOUR },
];
/// Quick runs store fewer events, and still have 4,100 different keys.
const QUICK_CUSTOMERS_MIN: u64 = 820;
const QUICK_EVENTS: u64 = 80_000;
const AT_ONE_CUSTOMERS: u64 = 20_000;
const BURSTS: u64 = 50;
const QUICK_BURSTS: u64 = 5;

#[derive(Debug, Clone)]
pub struct Settings {
    pub quick: bool,
    /// The Python in which Feast is installed; without it that peer is left out.
    pub feast_python: Option<PathBuf>,
}

impl Settings {
    fn pace(&self, measured_s: u64) -> Pace {
        let (warm_up, measured) = if self.quick { (1, 3) } else { (5, measured_s) };
        Pace { decisions_per_s: 5_000, warm_up: Duration::from_secs(warm_up), measured: Duration::from_secs(measured) }
    }

    fn workload(&self, size: Size, pace: Pace) -> Result<Workload> {
        let customers = if self.quick { quick_customers(size) } else { size.customers };
        Workload::new(customers, history_events(size.events, pace.decisions(), customers), size.span, now_ms())
    }
}

fn quick_customers(size: Size) -> u64 {
    (QUICK_EVENTS / size.events).clamp(QUICK_CUSTOMERS_MIN, size.customers)
}

/// Half of what the load adds is left out of the history.
fn history_events(events: u64, decisions: u64, customers: u64) -> u64 {
    events.saturating_sub(decisions / customers / 2).max(1)
}

/// # Errors
/// When a contender cannot be measured, or the name is not one of [`NAMES`].
pub async fn run(name: &str, settings: &Settings) -> Result<(Contract, Vec<Case>)> {
    match name {
        "keys20" => Ok((FEATURES, vec![features(KEYS20, settings).await?])),
        "keys500" => Ok((FEATURES, vec![features(KEYS500, settings).await?])),
        "panes500" => Ok((FEATURES, vec![panes(settings).await?])),
        "burst" => Ok((FEATURES, vec![bursts(settings).await?])),
        "encoding" => Ok((ENCODING, encodings(settings).await?)),
        unknown => bail!("no case is called {unknown}: choose one of {}", NAMES.join(", ")),
    }
}

/// Prints the file of results as a table, and writes that beside it.
///
/// # Errors
/// When the file cannot be read, or the table not be written.
pub fn show(path: &Path, contract: &Contract) -> Result<()> {
    let report = report::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = table::render(&report, contract, TARGETS);
    let beside = path.with_extension("txt");
    std::fs::write(&beside, &text).with_context(|| format!("cannot write {}", beside.display()))?;
    println!("{text}\n{}\n{}", path.display(), beside.display());
    Ok(())
}

async fn features(size: Size, settings: &Settings) -> Result<Case> {
    let pace = settings.pace(30);
    let workload = settings.workload(size, pace)?;
    note(size.case, "ours");
    let mut ours = measure(&Ours::connect, &workload, pace).await?;
    ours.insert("bytes_per_key_at_one".to_string(), bytes_per_key_at_one(Ours::connect, at_one(settings)).await?);
    note(size.case, "ours, while the builder folds the same events");
    add_with_builder(&mut ours, &measure(&OursWithBuilder::connect, &workload, pace).await?);
    note(size.case, "peer lua_counters");
    let mut lua_counters = measure_held(LuaCounters::connect, &workload, pace).await?;
    lua_counters.insert("bytes_per_key_at_one".to_string(), bytes_per_key_at_one(LuaCounters::connect, at_one(settings)).await?);
    let mut peers = BTreeMap::from([("lua_counters".to_string(), lua_counters)]);
    match &settings.feast_python {
        Some(python) => {
            note(size.case, "peer feast, at the rate that it can hold");
            peers.insert("feast".to_string(), feast::measure(python, &workload, pace.measured)?);
        }
        None => note(size.case, "peer feast left out: no --feast-python was given"),
    }
    FEATURES.case(size.case, ours, peers)
}

/// No peers: their counters do not depend on how long ago the events were, so they are those of `keys500`.
async fn panes(settings: &Settings) -> Result<Case> {
    let pace = settings.pace(30);
    let workload = settings.workload(PANES500, pace)?;
    note(PANES500.case, "ours");
    let mut ours = measure(&Ours::connect, &workload, pace).await?;
    ours.insert("bytes_per_key_at_one".to_string(), bytes_per_key_at_one(Ours::connect, at_one(settings)).await?);
    note(PANES500.case, "ours, while the builder folds the same events");
    add_with_builder(&mut ours, &measure(&OursWithBuilder::connect, &workload, pace).await?);
    FEATURES.case(PANES500.case, ours, BTreeMap::new())
}

async fn bursts(settings: &Settings) -> Result<Case> {
    let bursts = if settings.quick { QUICK_BURSTS } else { BURSTS };
    note("burst", "ours");
    let ours = burst::measure(Ours::connect, bursts).await?;
    note("burst", "peers flushed_counters and lua_counters");
    let flushed = burst::measure(FlushedCounters::connect, bursts).await?;
    let lua = burst::measure(LuaCounters::connect, bursts).await?;
    FEATURES.case("burst", ours, BTreeMap::from([("flushed_counters".to_string(), flushed), ("lua_counters".to_string(), lua)]))
}

/// What the builder's work on the same Redis and the same machine costs the decisions.
fn add_with_builder(ours: &mut Figures, with_builder: &Figures) {
    const KEYS: &[&str] = &[
        "p50_ms",
        "p99_ms",
        "ping_p99_ms",
        "redis_cpu_us_per_entity",
        "failed_decisions",
        "unanswered_decisions",
        "unfolded_events",
        "bytes_per_event_after_load",
    ];
    let chosen = KEYS.iter().filter_map(|key| with_builder.get(*key).map(|value| (format!("with_builder_{key}"), *value)));
    ours.extend(chosen);
}

async fn encodings(settings: &Settings) -> Result<Vec<Case>> {
    let pace = settings.pace(10);
    let mut cases = Vec::new();
    for &size in ENCODING_SIZES {
        let workload = settings.workload(size, pace)?;
        note(size.case, "string of slots");
        let ours = measure(&Raw::<StringOfSlots>::connect, &workload, pace).await?;
        note(size.case, "sorted set");
        let sorted_set = measure_held(Raw::<SortedSet>::connect, &workload, pace).await?;
        cases.push(ENCODING.case(size.case, ours, BTreeMap::from([("sorted_set".to_string(), sorted_set)]))?);
    }
    Ok(cases)
}

fn at_one(settings: &Settings) -> u64 {
    if settings.quick { QUICK_CUSTOMERS_MIN * 4 } else { AT_ONE_CUSTOMERS }
}

fn note(case: &str, what: &str) {
    eprintln!("   {case}: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::ENTITIES;

    #[test]
    fn the_history_leaves_room_for_what_the_load_adds() {
        assert_eq!(history_events(500, 175_000, 4_096), 479);
        assert_eq!(history_events(1, 75_000, 65_536), 1);
        assert_eq!(history_events(20, 175_000, 820), 1);
    }

    #[test]
    fn even_quick_runs_have_more_than_4096_keys() {
        let sizes = || ENCODING_SIZES.iter().chain([&KEYS20, &KEYS500]);
        assert!(sizes().all(|size| quick_customers(*size) * ENTITIES > 4_096 && quick_customers(*size) <= size.customers));
    }

    #[test]
    fn what_the_builder_adds_has_keys_of_its_own() {
        let mut ours = Figures::from([("p50_ms".to_string(), 1.0)]);
        add_with_builder(&mut ours, &Figures::from([("p50_ms".to_string(), 2.0), ("max_ms".to_string(), 3.0)]));
        assert_eq!(ours, Figures::from([("p50_ms".to_string(), 1.0), ("with_builder_p50_ms".to_string(), 2.0)]));
    }
}
