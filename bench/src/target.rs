//! What a figure is to reach. A benchmark shows it beside the figure; it decides nothing. Pure.

use std::fmt;

use crate::report::Figures;

#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub case: &'static str,
    pub key: &'static str,
    pub bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// At most `then` where another figure of the same run is below a limit, and else at most `otherwise`.
    AtMostWhere {
        key: &'static str,
        below: f64,
        then: f64,
        otherwise: f64,
    },
}

impl Bound {
    /// The plain bound that holds beside these figures. Where the other figure is missing, the looser one.
    pub fn beside(self, figures: &Figures) -> Self {
        match self {
            Self::AtMostWhere { key, below, then, otherwise } => {
                Self::AtMost(if figures.get(key).is_some_and(|value| *value < below) { then } else { otherwise })
            }
            plain => plain,
        }
    }

    pub fn is_met(self, value: f64, figures: &Figures) -> bool {
        match self.beside(figures) {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) | Self::AtMostWhere { otherwise: most, .. } => value <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMostWhere { key, below, then, otherwise } => write!(f, "<= {then} where {key} < {below}, else {otherwise}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_depends_on_the_machine_is_chosen_by_that_runs_own_figure() {
        let bound = Bound::AtMostWhere { key: "ping_p99_ms", below: 0.2, then: 2.0, otherwise: 5.0 };
        let beside = |ping: f64| Figures::from([("ping_p99_ms".to_string(), ping)]);
        assert_eq!((bound.is_met(3.0, &beside(0.1)), bound.is_met(3.0, &beside(0.2))), (false, true));
        assert_eq!(bound.beside(&Figures::new()).to_string(), "<= 5");
    }

    #[test]
    fn bounds_include_their_value() {
        let none = Figures::new();
        assert!(Bound::AtMost(2.0).is_met(2.0, &none) && !Bound::AtMost(2.0).is_met(2.1, &none));
        assert!(Bound::AtLeast(2.0).is_met(2.0, &none) && !Bound::AtLeast(2.0).is_met(1.9, &none));
    }
}
