//! Who tests the tests: each bug of `bft_core::planted`, and the oracle that catches it.
//!
//! A bug counts as caught in a world where an oracle fires with it and in which none fires without it.

use crate::lean::Lean;
use crate::report::Report;
use crate::swarm;
use crate::world::{Plan, Scenario};
use bft_core::planted::{Planted, plant};
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bug that escapes so many worlds has escaped.
pub const MOST_SEEDS: u64 = 20_000;

/// What came of the hunt for one bug.
#[derive(Clone, Debug, Serialize)]
pub struct Hunt {
    /// Its name.
    pub bug: &'static str,
    /// What is wrong.
    pub title: &'static str,
    /// Worlds run, the last included.
    pub seeds: u64,
    /// The oracle that caught it, by its name in the promise table; nothing where it escaped.
    pub oracle: Option<String>,
    /// What that said.
    pub violation: Option<String>,
    /// The world in which it was caught.
    pub repro: Option<String>,
    /// Worlds that broke a promise without the bug too, or another promise, which proves nothing.
    pub inconclusive: u64,
}

/// Where `bug` shows soonest.
fn lean(bug: Planted) -> Lean {
    match bug {
        Planted::QuorumOfTwoF | Planted::DigestUnchecked => Lean::Attacks(&["B-01"]),
        Planted::HighestViewWins | Planted::InvalidClaimMasks => Lean::Attacks(&["B-26"]),
        Planted::LowerViewWins => Lean::Crashes,
        Planted::PreparedDropped | Planted::SecondNewView => Lean::Crashes,
        Planted::ClaimClearsHistory => Lean::Attacks(&["B-09"]),
        Planted::ViewChangesUnbounded => Lean::Attacks(&["B-26"]),
        Planted::TimerNeverDoubles => Lean::SlowNetwork,
        Planted::TimerNeverResets => Lean::Crashes,
        Planted::LeaversNotCounted | Planted::ProofForgotten => Lean::Crashes,
        Planted::LaneTwice => Lean::Attacks(&["B-51"]),
        Planted::ClockWithoutSlack => Lean::LateClocks,
        Planted::TimerStopsTentatively => Lean::LeaveTentative,
        Planted::NamingManyDemotesNobody => Lean::Poisoners(17),
        Planted::AheadUnbounded => Lean::Attacks(&["B-35"]),
        Planted::SignatureUnchecked => Lean::Attacks(&["B-16"]),
        Planted::SignerCountsTwice
        | Planted::TailMisaligned
        | Planted::TableLostInTransfer
        | Planted::DeadDonor => Lean::LeftBehind,
        Planted::CertificateOutsideWindow => Lean::LeftUntilHealed,
        Planted::PartUnverified => Lean::Attacks(&["B-37"]),
        Planted::UnmutedAtOnce | Planted::UnmutedIntoOldView => Lean::Amnesia,
        Planted::TimeUnchecked => Lean::Attacks(&["B-12"]),
        Planted::SenderUnchecked => Lean::Impostor,
        Planted::ReferenceNamesTheClient => Lean::Attacks(&["misattribute"]),
        Planted::SessionReplayed => Lean::SecondSessions,
        Planted::ReadsOnWeak | Planted::ReadsWithoutVersion => Lean::StaleReads,
        Planted::TentativeViewsMixed => Lean::Attacks(&["B-49"]),
        Planted::CommitsAreClaims
        | Planted::CheckpointOnWeak
        | Planted::TableLostAtRestart
        | Planted::VoteBeforeDurable
        | Planted::TentativeReplyBeforeDurable
        | Planted::TailUnbounded
        | Planted::AttemptReused
        | Planted::RevokedStillServed => Lean::Nowhere,
    }
}

/// What must be said of `bug`. In a world that goes another way because of it, another oracle may fire for reasons of its own.
fn convicts(bug: Planted) -> &'static [&'static str] {
    const AGREEMENT: &[&str] = &["I-1:", "I-2:", "I-3:", "I-12:", "I-14: voted twice", "P12:"];
    const STATE: &[&str] = &["I-3:", "I-4x:", "I-6:", "I-14:", "P12:"];
    const LIVENESS: &[&str] = &["I-7:", "P9:"];
    match bug {
        Planted::QuorumOfTwoF | Planted::DigestUnchecked | Planted::CommitsAreClaims => AGREEMENT,
        Planted::HighestViewWins => &["I-1:", "I-2:", "I-7:", "P12:"],
        Planted::LowerViewWins | Planted::InvalidClaimMasks => AGREEMENT,
        Planted::PreparedDropped => &["I-1:", "I-2:", "I-13: r", "P12:"],
        Planted::ClaimClearsHistory => &["I-1:", "I-2:", "I-13:", "P12:"],
        Planted::SecondNewView => &["I-13:"],
        Planted::ViewChangesUnbounded => &["I-14: I-8:"],
        Planted::AheadUnbounded | Planted::TailUnbounded => &["I-8:"],
        Planted::TimerNeverResets => &["I-7: r"],
        Planted::TimerNeverDoubles
        | Planted::LeaversNotCounted
        | Planted::ProofForgotten
        | Planted::LaneTwice
        | Planted::ClockWithoutSlack
        | Planted::TimerStopsTentatively
        | Planted::NamingManyDemotesNobody
        | Planted::CertificateOutsideWindow
        | Planted::DeadDonor => LIVENESS,
        Planted::CheckpointOnWeak | Planted::SignerCountsTwice | Planted::SignatureUnchecked => {
            &["I-3:", "I-12:", "P12:"]
        }
        Planted::TailMisaligned => &["I-1:", "I-12:", "I-14:", "P12:"],
        Planted::TableLostInTransfer
        | Planted::TableLostAtRestart
        | Planted::PartUnverified
        | Planted::RevokedStillServed => STATE,
        Planted::UnmutedAtOnce
        | Planted::UnmutedIntoOldView
        | Planted::VoteBeforeDurable
        | Planted::TentativeReplyBeforeDurable => &["I-13:"],
        Planted::TimeUnchecked => &["I-11:"],
        Planted::SenderUnchecked => &["I-5:", "c"],
        Planted::ReferenceNamesTheClient => STATE,
        Planted::SessionReplayed => &["I-4x:", "I-6:", "I-7:", "c"],
        Planted::ReadsOnWeak
        | Planted::ReadsWithoutVersion
        | Planted::AttemptReused
        | Planted::TentativeViewsMixed => &["I-6:"],
    }
}

/// The world of `seed` in the hunt for `bug`: four replicas, seven in every third.
pub fn plan(bug: Planted, seed: u64) -> Plan {
    let n = if seed.is_multiple_of(3) { 7 } else { 4 };
    let scenario = Scenario::Leaning(lean(bug));
    let operations = if lean(bug) == Lean::LeftUntilHealed { 600 } else { 60 };
    let clients = match lean(bug) {
        Lean::Poisoners(count) => count as u32 + 3,
        Lean::LeaveTentative => 1,
        _ => 3,
    };
    Plan { seed, n, f: (n - 1) / 3, clients, operations, trace: false, scenario }
}

/// The bug called `name`.
pub fn by_name(name: &str) -> Option<Planted> {
    Planted::ALL.iter().copied().find(|bug| bug.name().eq_ignore_ascii_case(name))
}

/// Runs a world with `bug` planted in it.
pub fn run(bug: Option<Planted>, plan: Plan) -> Report {
    plant(bug);
    let report = swarm::run(plan);
    plant(None);
    report
}

/// Runs worlds from `first` on until `bug` is caught, at most `most`.
pub fn hunt(bug: Planted, first: u64, most: u64) -> Hunt {
    let (name, title) = (bug.name(), bug.title());
    let mut hunt = Hunt {
        bug: name,
        title,
        seeds: 0,
        oracle: None,
        violation: None,
        repro: None,
        inconclusive: 0,
    };
    for seed in first..first + most {
        hunt.seeds += 1;
        let report = run(Some(bug), plan(bug, seed));
        let convicts = |said: &&String| convicts(bug).iter().any(|oracle| said.starts_with(oracle));
        let Some(violation) = report.violations.iter().find(convicts) else {
            hunt.inconclusive += u64::from(!report.violations.is_empty());
            continue;
        };
        if !run(None, plan(bug, seed)).violations.is_empty() {
            hunt.inconclusive += 1;
            continue;
        }
        hunt.oracle = Some(oracle_of(violation));
        hunt.violation = Some(violation.clone());
        hunt.repro = Some(format!("./x sim --planted {name} --seed {seed} --trace"));
        break;
    }
    hunt
}

/// The name of the promise; where the core's own invariants noticed, of the one that they name.
fn oracle_of(violation: &str) -> String {
    let own = violation.strip_prefix("I-14: ").filter(|said| said.starts_with("I-"));
    own.unwrap_or(violation).split(':').next().unwrap_or_default().to_owned()
}

/// Hunts all of `bugs` on as many threads as there are processors, and calls `done` with each hunt as it ends.
pub fn hunt_all(bugs: &[Planted], first: u64, most: u64, done: impl Fn(&Hunt) + Sync) -> Vec<Hunt> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hunt = hunt(*bug, first, most);
            done(&hunt);
            found.lock().expect("no hunter panics").push(hunt);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(bugs.len()) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().expect("no hunter panics");
    found.sort_by_key(|hunt| Planted::ALL.iter().position(|bug| bug.name() == hunt.bug));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use bft_core::types::{Digest, Domain};
    use std::process::Command;

    /// How many bugs a commit hunts.
    const ROTATED: usize = 4;

    /// A number that changes with every commit; outside a repository, with the core.
    fn of_this_commit() -> u64 {
        let head = Command::new("git").args(["rev-parse", "HEAD"]).output();
        let commit = head.ok().filter(|output| output.status.success()).map(|head| head.stdout);
        let source = include_str!("../../bft-core/src/replica/ordering.rs");
        let name = commit.unwrap_or_else(|| source.as_bytes().to_vec());
        let digest = Digest::of(Domain::State, &name);
        // Small enough to be typed.
        u64::from_le_bytes(digest.0[..8].try_into().expect("eight bytes")) >> 24
    }

    fn bugs_of(commit: u64) -> Vec<Planted> {
        let count = Planted::ALL.len();
        let first = usize::try_from(commit % count as u64).expect("a place in a short list");
        // Neighbours in the list are alike: take them from all over it.
        (0..ROTATED).map(|k| Planted::ALL[(first + k * count / ROTATED) % count]).collect()
    }

    #[test]
    fn the_bugs_of_this_commit_are_caught() {
        let commit = of_this_commit();
        let hunts = hunt_all(&bugs_of(commit), commit, MOST_SEEDS, |hunt| {
            println!("{}: {} worlds from {commit}: {:?}", hunt.bug, hunt.seeds, hunt.violation);
        });
        let escaped: Vec<_> = hunts.iter().filter(|hunt| hunt.oracle.is_none()).collect();
        assert!(escaped.is_empty(), "{escaped:#?}");
    }

    /// What convicts a bug is never said where there is none.
    #[test]
    fn a_sound_core_is_not_convicted() {
        let commit = of_this_commit();
        for bug in bugs_of(commit) {
            for seed in commit..commit + 10 {
                let report = run(None, plan(bug, seed));
                let said = report.violations;
                let repro =
                    format!("./x sim --planted {} --sound --seed {seed} --trace", bug.name());
                assert!(said.is_empty(), "{said:?}\n  repro: {repro}");
            }
        }
    }

    #[test]
    fn every_bug_is_hunted_within_so_many_commits() {
        let commits = 0..Planted::ALL.len() as u64;
        let mut hunted: Vec<_> = commits.flat_map(bugs_of).collect();
        hunted.sort_unstable();
        hunted.dedup();
        assert_eq!(hunted.len(), Planted::ALL.len());
        assert!(hunted.iter().all(|bug| by_name(bug.name()) == Some(*bug)));
    }
}
