//! What is measured, and what is said of it.

use serde::Serialize;
use std::time::Duration;

/// Units: microseconds.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub longest: f64,
}

/// Requires: at least one sample.
pub fn latency(mut samples: Vec<Duration>) -> Latency {
    samples.sort_unstable();
    let at = |place: usize| samples[place.min(samples.len() - 1)].as_secs_f64() * 1e6;
    let part = |percent: usize| at(samples.len() * percent / 100);
    Latency { p50: part(50), p99: part(99), longest: at(usize::MAX) }
}

/// A figure of several rounds in turn with others.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    /// Requires: at least one round.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = rounds.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let (least, most) = (all[0], all[all.len() - 1]);
        Self { least, median: all[all.len() / 2], most }
    }
}

/// A figure that has a target.
#[derive(Serialize, Clone, Debug)]
pub struct Target {
    pub name: &'static str,
    pub value: f64,
    pub target: f64,
    pub met: bool,
}

impl Target {
    /// A figure that should be at most `target`.
    pub fn at_most(name: &'static str, value: f64, target: f64) -> Self {
        Self { name, value, target, met: value <= target }
    }

    /// A figure that should be at least `target`.
    pub fn at_least(name: &'static str, value: f64, target: f64) -> Self {
        Self { name, value, target, met: value >= target }
    }
}
