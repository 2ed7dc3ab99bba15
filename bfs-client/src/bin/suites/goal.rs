//! A ratio that was measured round by round, and what it should be.

use crate::middle::Middle;
use serde::Serialize;
use std::fmt::{self, Display};

/// What a ratio should be.
#[derive(Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One ratio and its bound. The field names are a stable interface.
#[derive(Debug, Serialize)]
pub struct Goal {
    name: String,
    /// In the middle of the rounds; nothing if something that it compares was not run.
    pub value: Option<f64>,
    least: Option<f64>,
    most: Option<f64>,
    target: f64,
    /// The ratio may be the target at most; otherwise it must be at least that.
    at_most: bool,
    pub met: Option<bool>,
}

impl Goal {
    /// The ratios of all rounds, or none, beside what they should be.
    pub fn new(name: String, ratios: impl IntoIterator<Item = f64>, bound: Bound) -> Self {
        let ratio = Middle::of(ratios);
        let (target, at_most) = match bound {
            Bound::AtMost(target) => (target, true),
            Bound::AtLeast(target) => (target, false),
        };
        Self {
            name,
            value: ratio.map(|ratio| ratio.median),
            least: ratio.map(|ratio| ratio.least),
            most: ratio.map(|ratio| ratio.most),
            target,
            at_most,
            met: ratio.map(|ratio| match at_most {
                true => ratio.median <= target,
                false => ratio.median >= target,
            }),
        }
    }
}

impl Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, least, most, target, at_most, met } = self;
        let bound = if *at_most { "at most" } else { "at least" };
        match (value, least, most, met) {
            (Some(value), Some(least), Some(most), Some(met)) => {
                let verdict = if *met { "met" } else { "MISSED" };
                write!(
                    f,
                    "{name}: {value:.3} ({least:.2} to {most:.2}), {bound} {target}: {verdict}"
                )
            }
            _ => write!(f, "{name}: not measured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_held_against_the_round_in_the_middle() {
        let goal = |bound| Goal::new("x".into(), [3.0, 1.0, 2.0], bound);
        let most = goal(Bound::AtMost(2.0));
        assert_eq!((most.met, goal(Bound::AtMost(1.9)).met), (Some(true), Some(false)));
        let least = goal(Bound::AtLeast(2.1));
        assert_eq!((least.met, goal(Bound::AtLeast(2.0)).met), (Some(false), Some(true)));
        assert_eq!(most.to_string(), "x: 2.000 (1.00 to 3.00), at most 2: met");
        assert_eq!(least.to_string(), "x: 2.000 (1.00 to 3.00), at least 2.1: MISSED");
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let goal = Goal::new("x".into(), [], Bound::AtMost(1.0));
        assert_eq!((goal.value, goal.met), (None, None));
        assert_eq!(goal.to_string(), "x: not measured");
    }
}
