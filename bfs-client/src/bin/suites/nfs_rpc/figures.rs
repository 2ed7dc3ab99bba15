//! What was measured, and what it should be.

use super::measure::{DEPTHS, OPERATIONS, Round};
use crate::goal::{Bound, Goal};
use crate::middle::Middle;
use crate::nfs::target::TARGETS;
use serde::Serialize;

/// One kind of call on one target.
#[derive(Serialize)]
pub struct Row {
    operation: &'static str,
    in_flight: usize,
    target: &'static str,
    p50_us: Middle,
    p99_us: Middle,
    calls_s: Middle,
}

impl Row {
    /// Of every operation, number in flight and target.
    pub fn all(rounds: &[Round]) -> Vec<Self> {
        let mut rows = Vec::new();
        for (operation, depth) in kinds() {
            for target in TARGETS {
                let of = |value: fn(&Round) -> f64| {
                    Middle::of(of(rounds, operation, depth, target.name).map(value))
                };
                if let (Some(p50_us), Some(p99_us), Some(calls_s)) =
                    (of(|round| round.p50_us), of(|round| round.p99_us), of(|round| round.calls_s))
                {
                    let (target, in_flight) = (target.name, depth);
                    rows.push(Self { operation, in_flight, target, p50_us, p99_us, calls_s });
                }
            }
        }
        rows
    }
}

fn kinds() -> impl Iterator<Item = (&'static str, usize)> {
    OPERATIONS.into_iter().flat_map(|operation| DEPTHS.map(|depth| (operation.name, depth)))
}

fn of<'a>(
    rounds: &'a [Round],
    operation: &'a str,
    depth: usize,
    target: &'a str,
) -> impl Iterator<Item = &'a Round> {
    rounds.iter().filter(move |round| {
        round.operation == operation && round.depth == depth && round.target == target
    })
}

/// Calls of four replicas beside those of the plain server that keeps files in memory, and how many times as long they may take.
const GOALS: [(&str, f64); 2] = [("GETATTR", 6.0), ("WRITE 4K FILE_SYNC", 12.0)];
const REPLICATED: &str = "bfs n=4";
const PLAIN: &str = "ganesha-mem";

/// What is held against its target.
pub fn goals(rounds: &[Round]) -> Vec<Goal> {
    GOALS.map(|(operation, target)| goal(rounds, operation, target)).into()
}

fn goal(rounds: &[Round], operation: &str, target: f64) -> Goal {
    let [ours, plain] = [REPLICATED, PLAIN].map(|name| of(rounds, operation, 1, name));
    // Round by round: what slows the machine down slows both.
    let ratios = ours.zip(plain).map(|(ours, plain)| ours.p50_us / plain.p50_us);
    let name = format!("{operation} p50, {REPLICATED} / {PLAIN}");
    Goal::new(name, ratios, Bound::AtMost(target))
}

/// What a target's answer to a FILE_SYNC write promises.
#[derive(Serialize)]
pub struct Stable {
    pub target: &'static str,
    pub means: &'static str,
}

#[derive(Serialize)]
struct NotRun {
    target: &'static str,
    why: String,
}

#[derive(Serialize)]
pub struct Figures {
    suite: &'static str,
    rounds: u32,
    rows: Vec<Row>,
    targets: Vec<Goal>,
    stable: Vec<Stable>,
    not_run: Vec<NotRun>,
}

impl Figures {
    pub fn new(
        rounds: u32,
        rows: Vec<Row>,
        targets: Vec<Goal>,
        stable: Vec<Stable>,
        not_run: Vec<(&'static str, String)>,
    ) -> Self {
        let not_run = not_run.into_iter().map(|(target, why)| NotRun { target, why }).collect();
        Self { suite: "nfs-rpc", rounds, rows, targets, stable, not_run }
    }

    /// Whether a goal was looked at, and each that was is met.
    pub fn met(&self) -> bool {
        self.targets.iter().any(|goal| goal.met.is_some())
            && self.targets.iter().all(|goal| goal.met != Some(false))
    }

    pub fn print(&self) {
        println!(
            "{:<19} {:>9} {:<14} {:>9} {:>17} {:>9} {:>9}",
            "", "in flight", "", "p50 µs", "least..most", "p99 µs", "calls/s"
        );
        for Row { operation, in_flight, target, p50_us, p99_us, calls_s } in &self.rows {
            let spread = format!("{:.1}..{:.1}", p50_us.least, p50_us.most);
            println!(
                "{operation:<19} {in_flight:>9} {target:<14} {:>9.1} {spread:>17} {:>9.1} {:>9.0}",
                p50_us.median, p99_us.median, calls_s.median
            );
        }
        for goal in &self.targets {
            println!("{goal}");
        }
        println!("what FILE_SYNC promises once it is answered:");
        for Stable { target, means } in &self.stable {
            println!("    {target:<14} {means}");
        }
        for NotRun { target, why } in &self.not_run {
            println!("not run: {target}: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(target: &'static str, operation: &'static str, p50_us: f64) -> Round {
        Round { target, operation, depth: 1, p50_us, p99_us: 1.0, calls_s: 1.0 }
    }

    #[test]
    fn a_goal_compares_round_by_round() {
        let rounds = [
            round(REPLICATED, "GETATTR", 60.0),
            round(PLAIN, "GETATTR", 10.0),
            round(REPLICATED, "GETATTR", 140.0),
            round(PLAIN, "GETATTR", 20.0),
        ];
        let goal = |target| super::goal(&rounds, "GETATTR", target);
        assert_eq!((goal(6.0).value, goal(6.0).met), (Some(6.5), Some(false)));
        assert_eq!(goal(6.5).met, Some(true));
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let goals = goals(&[round(REPLICATED, "GETATTR", 60.0)]);
        assert!(goals.iter().all(|goal| goal.met.is_none()));
        assert!(!Figures::new(1, Vec::new(), goals, Vec::new(), Vec::new()).met());
    }
}
