//! One directed link between two sites: what happens to a packet that enters it. Pure: time and random numbers are arguments.
//!
//! A packet is lost by a cut, by chance, or because the queue before the bottleneck is full; otherwise it leaves the link after
//! serialisation at the link's bandwidth, the delay and a random part of the jitter. Packets of a link never overtake each other,
//! as on one path of a real wide-area network: jitter that reorders would measure TCP's reaction to reordering instead.

use serde::{Deserialize, Serialize};

/// How long a packet may wait for the bottleneck before the queue counts as full.
const QUEUE_US_MAX: u64 = 100_000;
/// Packets that are on their way in one link. Bounds the router's memory when the delay is large.
const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Conditions {
    pub delay_ms: f64,
    pub jitter_ms: f64,
    /// Part of the packets that is lost, 0 to 1.
    pub loss: f64,
    /// Megabits per second; nothing means as fast as the machine forwards.
    pub bandwidth_mbit: Option<f64>,
    pub cut: bool,
}

impl Conditions {
    /// The sentence that says what is wrong, if anything is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let bounded = |name: &str, value: f64, max: f64| {
            if value.is_finite() && (0.0..=max).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} is {value}; give a number from 0 to {max}"))
            }
        };
        bounded("delay_ms", self.delay_ms, 10_000.0)?;
        bounded("jitter_ms", self.jitter_ms, 10_000.0)?;
        bounded("loss", self.loss, 1.0)?;
        match self.bandwidth_mbit {
            Some(mbit) if !(mbit.is_finite() && (0.001..=100_000.0).contains(&mbit)) => {
                Err(format!("bandwidth_mbit is {mbit}; give a number from 0.001 to 100000, or cut the link"))
            }
            _ => Ok(()),
        }
    }
}

/// Conditions that replace the set ones until they end by themselves or are taken back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    pub conditions: Conditions,
    /// On the router's clock; nothing means until taken back.
    pub until_us: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    pub forwarded_packets: u64,
    pub forwarded_bytes: u64,
    pub lost_packets: u64,
    pub cut_packets: u64,
    pub overflow_packets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    LeaveAt(u64),
    Dropped,
}

/// Two uniform numbers of [0, 1).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Draws {
    pub loss: f64,
    pub jitter: f64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub set: Conditions,
    pub fault: Option<Fault>,
    pub counters: Counters,
    bottleneck_free_us: u64,
    last_leave_us: u64,
    in_flight_bytes: u64,
}

impl Link {
    pub(crate) fn new(set: Conditions) -> Self {
        Self { set, ..Self::default() }
    }

    pub(crate) fn conditions(&self, now_us: u64) -> Conditions {
        match self.fault {
            Some(fault) if fault.until_us.is_none_or(|until| now_us < until) => fault.conditions,
            _ => self.set,
        }
    }

    /// What happens to a packet of `bytes` that enters now. A packet that leaves later must be reported to [`Link::left`].
    pub(crate) fn enter(&mut self, now_us: u64, bytes: usize, draws: Draws) -> Verdict {
        let bytes = bytes as u64;
        let conditions = self.conditions(now_us);
        if conditions.cut {
            self.counters.cut_packets += 1;
            return Verdict::Dropped;
        }
        if draws.loss < conditions.loss {
            self.counters.lost_packets += 1;
            return Verdict::Dropped;
        }
        let start_us = self.bottleneck_free_us.max(now_us);
        if start_us - now_us > QUEUE_US_MAX || self.in_flight_bytes + bytes > IN_FLIGHT_BYTES_MAX {
            self.counters.overflow_packets += 1;
            return Verdict::Dropped;
        }
        let sent_us = match conditions.bandwidth_mbit {
            Some(mbit) => {
                self.bottleneck_free_us = start_us + micros(bytes as f64 * 8.0 / mbit);
                self.bottleneck_free_us
            }
            None => now_us,
        };
        let leave_us = sent_us + micros(1000.0 * (conditions.delay_ms + draws.jitter * conditions.jitter_ms));
        self.last_leave_us = leave_us.max(self.last_leave_us);
        self.in_flight_bytes += bytes;
        Verdict::LeaveAt(self.last_leave_us)
    }

    pub(crate) fn left(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        self.counters.forwarded_packets += 1;
        self.counters.forwarded_bytes += bytes;
    }

    /// A packet that could not be handed to the other side although it was due.
    pub(crate) fn refused(&mut self, bytes: usize) {
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes as u64);
        self.counters.overflow_packets += 1;
    }

    /// A change of conditions also forgets the order of packets that entered under the old ones: after a slow link is mended,
    /// new packets need not wait behind the last slow one.
    pub(crate) fn change(&mut self, set: Conditions, fault: Option<Fault>) {
        self.set = set;
        self.fault = fault;
        self.bottleneck_free_us = 0;
        self.last_leave_us = 0;
    }
}

/// Checked conditions keep the value far below 2^53; the cast saturates in any case.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn micros(us: f64) -> u64 {
    us.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: usize = 1500;

    fn link(conditions: Conditions) -> Link {
        Link::new(conditions)
    }

    #[test]
    fn a_packet_leaves_after_the_delay() {
        let mut link = link(Conditions { delay_ms: 40.0, ..Conditions::default() });
        assert_eq!(link.enter(1_000, PACKET, Draws { loss: 0.5, jitter: 0.9 }), Verdict::LeaveAt(41_000));
    }

    #[test]
    fn jitter_adds_its_drawn_part_and_never_lets_packets_overtake() {
        let mut link = link(Conditions { delay_ms: 40.0, jitter_ms: 10.0, ..Conditions::default() });
        assert_eq!(link.enter(0, PACKET, Draws { loss: 0.5, jitter: 0.9 }), Verdict::LeaveAt(49_000));
        assert_eq!(link.enter(1_000, PACKET, Draws { loss: 0.5, jitter: 0.0 }), Verdict::LeaveAt(49_000));
        assert_eq!(link.enter(20_000, PACKET, Draws { loss: 0.5, jitter: 0.0 }), Verdict::LeaveAt(60_000));
    }

    #[test]
    fn loss_is_decided_by_the_draw_alone() {
        let mut link = link(Conditions { loss: 0.25, ..Conditions::default() });
        assert_eq!(link.enter(0, PACKET, Draws { loss: 0.249, jitter: 0.0 }), Verdict::Dropped);
        assert_eq!(link.enter(0, PACKET, Draws { loss: 0.25, jitter: 0.0 }), Verdict::LeaveAt(0));
        assert_eq!(link.counters.lost_packets, 1);
    }

    #[test]
    fn a_cut_loses_every_packet_and_healing_loses_none() {
        let mut link = link(Conditions { cut: true, ..Conditions::default() });
        for _ in 0..100 {
            assert_eq!(link.enter(0, PACKET, Draws { loss: 0.999, jitter: 0.0 }), Verdict::Dropped);
        }
        link.change(Conditions::default(), None);
        assert_eq!(link.enter(7, PACKET, Draws::default()), Verdict::LeaveAt(7));
        assert_eq!(link.counters.cut_packets, 100);
    }

    #[test]
    fn bandwidth_spaces_packets_and_the_queue_is_bounded() {
        // 12 Mbit/s carries one packet of 1500 bytes each millisecond.
        let mut link = link(Conditions { bandwidth_mbit: Some(12.0), delay_ms: 5.0, ..Conditions::default() });
        let verdicts: Vec<Verdict> = (0..200).map(|_| link.enter(0, PACKET, Draws { loss: 0.5, jitter: 0.0 })).collect();
        assert_eq!(verdicts[0], Verdict::LeaveAt(6_000));
        assert_eq!(verdicts[1], Verdict::LeaveAt(7_000));
        let kept = verdicts.iter().filter(|verdict| **verdict != Verdict::Dropped).count();
        assert_eq!(kept, 101, "a queue of 100 ms holds a hundred packets and the one being sent");
        assert_eq!(link.counters.overflow_packets, 99);
    }

    #[test]
    fn a_link_at_its_bandwidth_carries_that_much_and_no_more() {
        let mut link = link(Conditions { bandwidth_mbit: Some(10.0), ..Conditions::default() });
        let mut carried_bytes = 0;
        for now_us in (0..1_000_000).step_by(100) {
            if let Verdict::LeaveAt(leave_us) = link.enter(now_us, PACKET, Draws { loss: 0.5, jitter: 0.0 }) {
                link.left(PACKET);
                carried_bytes += if leave_us <= 1_000_000 { PACKET } else { 0 };
            }
        }
        let mbit = carried_bytes as f64 * 8.0 / 1e6;
        assert!((9.9..=10.01).contains(&mbit), "{mbit} Mbit in a second");
    }

    #[test]
    fn a_fault_ends_at_its_time_and_the_set_conditions_return() {
        let mut link = link(Conditions { delay_ms: 1.0, ..Conditions::default() });
        link.fault = Some(Fault { conditions: Conditions { cut: true, ..Conditions::default() }, until_us: Some(500) });
        assert_eq!(link.enter(499, PACKET, Draws::default()), Verdict::Dropped);
        assert_eq!(link.enter(500, PACKET, Draws { loss: 0.5, jitter: 0.0 }), Verdict::LeaveAt(1_500));
    }

    #[test]
    fn packets_in_flight_are_bounded_in_bytes() {
        let mut link = link(Conditions { delay_ms: 10_000.0, ..Conditions::default() });
        let size = 1 << 20;
        let kept = (0..100).filter(|_| link.enter(0, size, Draws { loss: 0.5, jitter: 0.0 }) != Verdict::Dropped).count();
        assert_eq!(kept, 64);
        link.left(size);
        assert_ne!(link.enter(1, size, Draws { loss: 0.5, jitter: 0.0 }), Verdict::Dropped);
    }

    #[test]
    fn senseless_conditions_are_refused_by_name() {
        let negative = Conditions { delay_ms: -1.0, ..Conditions::default() };
        assert_eq!(negative.check(), Err("delay_ms is -1; give a number from 0 to 10000".to_owned()));
        let more_than_all = Conditions { loss: 1.5, ..Conditions::default() };
        assert!(more_than_all.check().is_err_and(|sentence| sentence.starts_with("loss is 1.5")));
        let none = Conditions { bandwidth_mbit: Some(0.0), ..Conditions::default() };
        assert!(none.check().is_err_and(|sentence| sentence.contains("cut the link")));
        assert!(Conditions { delay_ms: f64::NAN, ..Conditions::default() }.check().is_err());
    }
}
