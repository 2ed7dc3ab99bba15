//! What was measured, and what it should be.

use super::calls;
use super::place::{NotRun, Places, TARGETS, Timing};
use super::works::{ANDREW, ANDREW_LARGE, ANDREW_WHOLE, LARGE_FILE};
use crate::goal::{Bound, Goal};
use crate::middle::Middle;
use serde::Serialize;
use workloads::stamp::Stamp;

/// One piece of work on one target, once.
pub struct Measured {
    pub work: &'static str,
    pub target: &'static str,
    pub round: u32,
    pub timing: Timing,
}

/// One part of some work on one target, in all rounds. Units: seconds.
#[derive(Serialize)]
struct Row {
    work: &'static str,
    /// `total` is the sum of the others.
    phase: String,
    target: &'static str,
    seconds: Middle,
}

/// A row of the project's table: work, its parts (all, if none is named), the two targets, and the ratio of their times.
struct Wanted {
    name: &'static str,
    work: &'static str,
    phases: &'static [&'static str],
    of: &'static str,
    to: &'static str,
    target: f64,
    /// Whether speeds are compared instead of times.
    rate: bool,
}

const BUT_COMPILE: &[&str] = &["make directories", "copy", "stat", "read"];

const fn wanted(
    name: &'static str,
    work: &'static str,
    phases: &'static [&'static str],
    (of, to): (&'static str, &'static str),
    target: f64,
) -> Wanted {
    Wanted { name, work, phases, of, to, target, rate: false }
}

const WANTED: [Wanted; 10] = [
    wanted("FUSE, many copies, total", ANDREW_LARGE, &[], ("bfs", "bfs-unreplicated"), 1.15),
    wanted("FUSE, 1 copy, total", ANDREW, &[], ("bfs", "bfs-unreplicated"), 1.15),
    wanted("NFS, 1 copy, phases 1 to 4", ANDREW, BUT_COMPILE, ("bfs-nfs", "ganesha-ext4"), 0.5),
    wanted(
        "NFS, many copies, phases 1 to 4",
        ANDREW_LARGE,
        BUT_COMPILE,
        ("bfs-nfs", "ganesha-ext4"),
        0.5,
    ),
    wanted("NFS, 1 copy, phases 1 to 4", ANDREW, BUT_COMPILE, ("bfs-nfs", "ganesha-tmpfs"), 1.8),
    wanted(
        "NFS, many copies, phases 1 to 4",
        ANDREW_LARGE,
        BUT_COMPILE,
        ("bfs-nfs", "ganesha-tmpfs"),
        1.8,
    ),
    wanted("NFS, 1 copy, total", ANDREW_WHOLE, &[], ("bfs-nfs", "ganesha-tmpfs"), 1.10),
    wanted("NFS, 1 copy, total", ANDREW_WHOLE, &[], ("bfs-nfs", "bfs-nfs-unreplicated"), 1.15),
    Wanted {
        rate: true,
        ..wanted(
            "FUSE, rate of writing",
            LARGE_FILE,
            &["write in sequence"],
            ("bfs", "bfs-unreplicated"),
            0.3,
        )
    },
    Wanted {
        rate: true,
        ..wanted(
            "FUSE, rate of reading",
            LARGE_FILE,
            &["read in sequence"],
            ("bfs", "bfs-unreplicated"),
            0.7,
        )
    },
];

#[derive(Serialize)]
pub struct Figures {
    suite: &'static str,
    stamp: Stamp,
    rounds: u32,
    large_rounds: u32,
    rows: Vec<Row>,
    calls: Vec<calls::Row>,
    targets: Vec<Goal>,
    not_run: Vec<NotRun>,
}

impl Figures {
    /// Of so many rounds of what takes less, and of what takes minutes.
    pub fn new(
        stamp: Stamp,
        (rounds, large_rounds): (u32, u32),
        measured: &[Measured],
        places: &Places,
    ) -> Self {
        Self {
            suite: "compare",
            stamp,
            rounds,
            large_rounds,
            rows: rows(measured),
            calls: calls::rows(measured),
            targets: WANTED.iter().map(|wanted| wanted.held_against(measured)).collect(),
            not_run: places.not_run().to_vec(),
        }
    }

    /// Whether something was measured, and nothing failed that had begun.
    pub fn is_whole(&self) -> bool {
        !self.rows.is_empty() && self.not_run.iter().all(|not_run| not_run.expected)
    }

    pub fn print(&self) {
        let mut last = "";
        for Row { work, phase, target, seconds } in &self.rows {
            if *work != last {
                println!("\n{work}: seconds in the middle of the rounds, least and most");
                last = work;
            }
            let Middle { median, least, most } = seconds;
            println!("  {phase:<20} {target:<22} {median:>10.3}   {least:.3} to {most:.3}");
        }
        println!();
        for goal in &self.targets {
            println!("{goal}");
        }
        for NotRun { target, work, why, .. } in &self.not_run {
            println!(
                "not run: {target}: {}{why}",
                work.map_or(String::new(), |work| work.to_owned() + ": ")
            );
        }
    }
}

/// Of every part of every work on every target, in the order in which they were done.
fn rows(measured: &[Measured]) -> Vec<Row> {
    let mut kinds: Vec<(&'static str, String)> = Vec::new();
    for Measured { work, timing, .. } in measured {
        let phases = timing.phases.iter().map(|phase| phase.name.clone());
        for kind in phases.chain(["total".into()]).map(|phase| (*work, phase)) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    // A total comes last, also where some targets leave parts out.
    kinds.sort_by_key(|(work, phase)| {
        (measured.iter().position(|m| m.work == *work), phase == "total")
    });
    let mut rows = Vec::new();
    for (work, phase) in kinds {
        for (target, _) in TARGETS {
            let phases: &[&str] = if phase == "total" { &[] } else { &[phase.as_str()] };
            let seconds = of(measured, work, target).filter_map(|m| m.timing.sum(phases));
            if let Some(seconds) = Middle::of(seconds) {
                rows.push(Row { work, phase: phase.clone(), target, seconds });
            }
        }
    }
    rows
}

fn of<'a>(
    measured: &'a [Measured],
    work: &'a str,
    target: &'a str,
) -> impl Iterator<Item = &'a Measured> {
    measured.iter().filter(move |m| m.work == work && m.target == target)
}

impl Timing {
    /// The seconds of these parts, or of all; nothing if one of them was not done.
    fn sum(&self, phases: &[&str]) -> Option<f64> {
        if phases.is_empty() {
            return Some(self.total_seconds);
        }
        let one = |name: &&str| self.phases.iter().find(|phase| phase.name == **name);
        phases.iter().map(|name| one(name).map(|phase| phase.seconds)).sum()
    }
}

impl Wanted {
    fn held_against(&self, measured: &[Measured]) -> Goal {
        let &Self { name, work, phases, of: ours, to, target, rate } = self;
        // Round by round: what slows the machine down slows both.
        let ratio = |m: &Measured| {
            let other = of(measured, work, to).find(|other| other.round == m.round)?;
            let (ours, theirs) = (m.timing.sum(phases)?, other.timing.sum(phases)?);
            Some(if rate { theirs / ours } else { ours / theirs })
        };
        let ratios = of(measured, work, ours).filter_map(ratio);
        let bound = if rate { Bound::AtLeast(target) } else { Bound::AtMost(target) };
        Goal::new(format!("{name}, {ours} / {to}"), ratios, bound)
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::Phase;
    use super::*;

    fn measured(target: &'static str, round: u32, seconds: [f64; 2]) -> Measured {
        let phases = ["write in sequence", "read in sequence"].into_iter().zip(seconds);
        let phases = phases.map(|(name, seconds)| Phase { name: name.into(), seconds }).collect();
        let timing = Timing { phases, total_seconds: seconds.iter().sum(), calls: [].into() };
        Measured { work: LARGE_FILE, target, round, timing }
    }

    #[test]
    fn rates_and_times_are_compared_round_by_round() {
        let all = [
            measured("bfs", 0, [2.0, 1.0]),
            measured("bfs-unreplicated", 0, [1.0, 1.0]),
            measured("bfs", 1, [8.0, 1.0]),
            measured("bfs-unreplicated", 1, [2.0, 1.0]),
        ];
        let goal = |rate| {
            let name = &["write in sequence"];
            let wanted = wanted("", LARGE_FILE, name, ("bfs", "bfs-unreplicated"), 2.9);
            Wanted { rate, ..wanted }.held_against(&all)
        };
        assert_eq!((goal(false).value, goal(false).met), (Some(3.0), Some(false)));
        assert_eq!((goal(true).value, goal(true).met), (Some(0.375), Some(false)));
        let rows = rows(&all);
        assert_eq!(rows.len(), 6);
        assert!(rows[4].phase == "total" && rows[4].seconds.most == 9.0);
    }

    #[test]
    fn who_was_not_run_is_neither_met_nor_missed() {
        let one = [measured("bfs", 0, [1.0, 1.0])];
        assert!(WANTED.iter().all(|wanted| wanted.held_against(&one).met.is_none()));
    }
}
