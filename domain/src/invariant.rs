//! What must always hold, with one id each, used by simulation, drills and production counters alike.

use std::fmt;

macro_rules! invariants {
    ($($id:ident: $sentence:literal,)*) => {
        /// An invariant of the whole system.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum InvariantId { $(#[doc = $sentence] $id,)* }

        impl InvariantId {
            pub const ALL: &'static [Self] = &[$(Self::$id,)*];

            pub fn sentence(self) -> &'static str {
                match self { $(Self::$id => $sentence,)* }
            }
        }
    };
}

invariants! {
    I1: "At most one region is told to be active per epoch; committed epochs never go back.",
    I2: "No receiver acts on an epoch below the highest that it has seen.",
    I3: "A committed plan is only ever replaced by a descendant.",
    I4: "No acceptor grants overlapping leases of one kind to two holders; restarts, pauses and twin pods included.",
    I5: "A shard is promoted only in a committed epoch, after the old writer is known paused or ended, or its region's lease has run out, or a recovery generation says so.",
    I6: "Acknowledged records lost for good stay within the reported interval; a switchover loses none.",
    I7: "A name server gives the DNS answer of the highest committed plan that it knows; without one, SERVFAIL.",
    I8: "At most one stable and one candidate model; roll-back is always possible.",
    I9: "After a drill no fault is left, even if the operator died in the middle.",
    I10: "No Redis copy that holds data is ever overwritten by an empty one.",
}

impl fmt::Display for InvariantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}: {}", self.sentence())
    }
}
