//! What the windows of an entity hold, and how a payment compares with what its entity did before. Pure.
//!
//! The window of length w at event time t is (t - w, t + skew]: events stamped by a pod whose clock is ahead count. The
//! current event always counts, whether or not it has been recorded. Only payment attempts count; outcomes, refunds and
//! the like are kept and are no payments.
//!
//! Windows are exact at every phase offset as far as the records reach. Beyond them a pane counts as a whole if its latest
//! attempt is inside the window: never too few, and too many only by attempts of less than one pane before the window. Where
//! a pane takes part, different values are estimated from sketches, and never fewer than the records show.

mod history;
#[cfg(test)]
mod tests;

use history::Past;

pub use history::History;

use crate::{
    panes::Pane,
    record::Record,
    sketch::{Distinct, Sketch, values_of},
    state::EntityState,
    windows::Windows,
};

/// What one window holds. Amounts are minor units of the base currency, over the attempts whose rate was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowValues {
    pub count: u32,
    /// How many of `count` have a known amount. With none, sum, mean and maximum are not known.
    pub amounts: u32,
    pub sum_minor: u64,
    pub max_minor: i64,
    pub distinct_merchants: u32,
    pub distinct_countries: u32,
    pub distinct_devices: u32,
    pub distinct_cards: u32,
    /// Whether a pane takes part: then the window may look back too far, by at most the width of a pane.
    pub approximate: bool,
}

impl WindowValues {
    /// `None` when no amount is known.
    pub fn sum(&self) -> Option<f64> {
        (self.amounts > 0).then_some(self.sum_minor as f64)
    }

    /// `None` when no amount is known.
    pub fn mean(&self) -> Option<f64> {
        self.sum().map(|sum| sum / f64::from(self.amounts))
    }

    /// `None` when no amount is known.
    pub fn max(&self) -> Option<f64> {
        (self.amounts > 0).then_some(self.max_minor as f64)
    }

    fn add(&mut self, record: &Record) {
        self.count = self.count.saturating_add(1);
        if let Some(amount) = record.amount_base_minor {
            self.amounts = self.amounts.saturating_add(1);
            self.sum_minor = self.sum_minor.saturating_add(amount.unsigned_abs());
            self.max_minor = self.max_minor.max(amount);
        }
    }

    fn add_pane(&mut self, pane: &Pane) {
        self.count = self.count.saturating_add(pane.attempts());
        self.amounts = self.amounts.saturating_add(pane.amounts());
        self.sum_minor = self.sum_minor.saturating_add(pane.sum_minor());
        self.max_minor = self.max_minor.max(pane.max_minor());
        self.approximate = true;
    }

    fn set_distinct(&mut self, [merchants, countries, devices, cards]: [u32; 4]) {
        self.distinct_merchants = merchants;
        self.distinct_countries = countries;
        self.distinct_devices = devices;
        self.distinct_cards = cards;
    }
}

/// An entity at the time of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    windows: Vec<WindowValues>,
    pub history: History,
}

impl Evaluation {
    /// In the order of [`Windows::lengths`]; none when they are not known.
    pub fn windows(&self) -> &[WindowValues] {
        &self.windows
    }
}

/// Evaluates all windows and the history, in one pass over the records from the newest to the oldest: windows end at the same
/// time, so each holds what the one before it holds, and what is older.
pub fn evaluate(state: &EntityState, current: &Record, windows: &Windows) -> Evaluation {
    let through_ms = current.time_ms.saturating_add(windows.skew_ms());
    let events = state.events_through(through_ms);
    let mut inside = Inside::new(windows, current, events.len(), !state.panes().as_slice().is_empty());
    let mut past = Past::new(current);
    if current.is_attempt() {
        inside.add(current);
    }
    // The current event is taken from the caller even if it was recorded: a differing retry must not move it elsewhere.
    for slot in events.iter().rev().filter(|slot| slot.id() != current.id) {
        let record = slot.record();
        inside.reach(record.time_ms);
        past.note(&record, inside.any_left());
        if record.is_attempt() {
            inside.add(&record);
        }
    }
    inside.reach(i64::MIN);
    let longest_after_ms = current.time_ms.saturating_sub(windows.longest().length_ms());
    let panes = state.panes().as_slice().iter().filter(|pane| pane.start_ms() <= through_ms && pane.last_ms() > longest_after_ms);
    panes.clone().for_each(|pane| past.note_pane(pane));
    past.note_profile(state.profile());
    let windows = if state.is_lasting_only() { Vec::new() } else { inside.with_panes(panes) };
    Evaluation { windows, history: past.history() }
}

/// The windows, filled one after the other.
struct Inside<'a> {
    windows: &'a Windows,
    time_ms: i64,
    /// Those that are complete, with what their sketch needs of panes.
    done: Vec<(WindowValues, Sketch)>,
    values: WindowValues,
    distinct: Distinct,
    sketch: Sketch,
    has_panes: bool,
}

impl<'a> Inside<'a> {
    fn new(windows: &'a Windows, current: &Record, records: usize, has_panes: bool) -> Self {
        Self {
            windows,
            time_ms: current.time_ms,
            done: Vec::with_capacity(windows.lengths().len()),
            values: WindowValues::default(),
            distinct: Distinct::with_room_for(records.saturating_add(1)),
            sketch: Sketch::default(),
            has_panes,
        }
    }

    /// The beginning of the window that is being filled: the first time that is not in it, going back.
    fn after_ms(&self) -> Option<i64> {
        self.windows.lengths().get(self.done.len()).map(|window| self.time_ms.saturating_sub(window.length_ms()))
    }

    fn any_left(&self) -> bool {
        self.done.len() < self.windows.lengths().len()
    }

    /// Completes the windows that do not hold this time.
    fn reach(&mut self, time_ms: i64) {
        while self.after_ms().is_some_and(|after_ms| time_ms <= after_ms) {
            let mut values = self.values;
            values.set_distinct(self.distinct.counts());
            self.done.push((values, self.sketch));
        }
    }

    fn add(&mut self, record: &Record) {
        if !self.any_left() {
            return;
        }
        self.values.add(record);
        let new = self.distinct.note(values_of(record));
        if self.has_panes {
            self.sketch.note(new);
        }
    }

    fn with_panes<'p>(mut self, panes: impl Iterator<Item = &'p Pane>) -> Vec<WindowValues> {
        for pane in panes {
            for ((values, sketch), window) in self.done.iter_mut().zip(self.windows.lengths()) {
                if pane.last_ms() > self.time_ms.saturating_sub(window.length_ms()) {
                    values.add_pane(pane);
                    sketch.unite(&pane.sketch);
                }
            }
        }
        self.done.into_iter().map(|(values, sketch)| if values.approximate { estimated(values, &sketch) } else { values }).collect()
    }
}

/// With different values as the sketch has them, and never fewer than were counted.
fn estimated(mut values: WindowValues, sketch: &Sketch) -> WindowValues {
    let counted = [values.distinct_merchants, values.distinct_countries, values.distinct_devices, values.distinct_cards];
    let estimates = sketch.estimates();
    values.set_distinct(std::array::from_fn(|kind| counted[kind].max(estimates[kind])));
    values
}
