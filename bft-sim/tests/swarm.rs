//! Worlds by the thousand, other ones for every commit, beside those that once broke a promise. A failure prints the line that
//! reproduces it.

use bfs_fs::{FileSystem, FileSystemConfig};
use bft_core::io::Batch;
use bft_core::types::{Digest, Domain, SequenceNumber, Time};
use bft_sim::oracle::Oracle;
use bft_sim::swarm;
use bft_sim::world::{Plan, Report, Scenario};
use std::process::Command;
use std::sync::{Arc, Mutex};

fn plan(seed: u64, n: u32) -> Plan {
    let f = n.saturating_sub(1) / 3;
    Plan { seed, n, f, clients: 3, operations: 60, trace: false, scenario: Scenario::Swarm }
}

/// Runs the worlds of `seeds` and fails with every one that breaks a promise.
fn swarm(seeds: std::ops::Range<u64>, n: u32) -> Report {
    swarm_of(Scenario::Swarm, seeds, n)
}

fn swarm_of(scenario: Scenario, seeds: std::ops::Range<u64>, n: u32) -> Report {
    let mut failures = Vec::new();
    let total = swarm::run_all(
        seeds,
        |seed| Plan { scenario, ..plan(seed, n) },
        |plan, violations| {
            failures.push(format!("{}\n  repro: {}", violations.join("\n"), swarm::repro(plan)));
        },
    );
    assert!(failures.is_empty(), "{} worlds failed:\n{}", failures.len(), failures.join("\n"));
    println!(
        "n={n}: {} worlds, {} with f Byzantine, {} events, {} commits, {} view changes, {} transfers, {} restarts",
        total.worlds,
        total.byzantine_worlds,
        total.events,
        total.commits,
        total.view_changes,
        total.transfers,
        total.restarts
    );
    total
}

/// Fresh worlds for every commit, and the same for the same commit; outside a repository, for every state of the sources.
fn fresh_seed() -> u64 {
    let head = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let commit = head.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let sources = concat!(
        include_str!("../../bft-core/src/replica.rs"),
        include_str!("../../bft-core/src/replica/ordering.rs"),
        include_str!("../src/world.rs")
    );
    let name = commit.unwrap_or_else(|| sources.as_bytes().to_vec());
    let digest = Digest::of(Domain::State, &name);
    // Small enough to be typed.
    let seed = u64::from_le_bytes(digest.0[..8].try_into().expect("eight bytes")) >> 24;
    println!("fresh seeds from {seed}");
    seed
}

const PARTS: u64 = 10;

/// Ten swarms, run side by side: 5,000 worlds of four replicas, 600 of seven, 60 of ten.
fn part(k: u64) {
    let first = fresh_seed();
    let mut total = swarm(first + k * 500..first + (k + 1) * 500, 4);
    total.add(swarm(first + k * 60..first + (k + 1) * 60, 7));
    total.add(swarm(first + k * 6..first + (k + 1) * 6, 10));
    assert!(total.byzantine_worlds * 5 >= total.worlds * 2, "too few worlds with f Byzantine");
    whole(&total);
}

/// Whichever part ends last looks at what all of them have reached.
fn whole(part: &Report) {
    static ALL: Mutex<(u64, Option<Report>)> = Mutex::new((0, None));
    let mut all = ALL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    all.0 += 1;
    match &mut all.1 {
        Some(all) => all.add(part.clone()),
        none => *none = Some(part.clone()),
    }
    if let (PARTS, Some(all)) = (all.0, &all.1) {
        let missed: Vec<_> = all.marks.missed().iter().map(|mark| mark.as_str()).collect();
        assert!(missed.is_empty(), "{} worlds never reached: {}", all.worlds, missed.join("; "));
    }
}

macro_rules! parts {
    ($($name:ident $k:literal,)*) => {$(
        #[test]
        fn $name() {
            part($k);
        }
    )*};
}

parts! {
    fresh_worlds_keep_their_promises_0 0,
    fresh_worlds_keep_their_promises_1 1,
    fresh_worlds_keep_their_promises_2 2,
    fresh_worlds_keep_their_promises_3 3,
    fresh_worlds_keep_their_promises_4 4,
    fresh_worlds_keep_their_promises_5 5,
    fresh_worlds_keep_their_promises_6 6,
    fresh_worlds_keep_their_promises_7 7,
    fresh_worlds_keep_their_promises_8 8,
    fresh_worlds_keep_their_promises_9 9,
}

/// What proxies of NFS were answered is part of the state: every replica gives the same answers again, also one that got the
/// state by transfer.
#[test]
fn proxies_of_nfs_are_answered_again_alike() {
    let first = fresh_seed();
    let mut total = swarm_of(Scenario::Nfs, first..first + 200, 4);
    total.add(swarm_of(Scenario::Nfs, first..first + 25, 7));
    assert!(total.transfers > 50, "{} transfers", total.transfers);
}

/// Whoever lost its state, or lied and was set up anew, is well again soon, and the group can do without the next one then.
#[test]
fn replicas_that_are_hurt_one_after_the_other_are_well_again() {
    let first = fresh_seed();
    let mut total = swarm_of(Scenario::Rolling, first..first + 300, 4);
    total.add(swarm_of(Scenario::Rolling, first..first + 60, 7));
    assert!(total.returns > 1_000, "{} came back", total.returns);
}

/// One that was behind had read an inode that was gone elsewhere, at the same version, and was counted as a liar.
#[test]
fn a_replica_that_misses_a_removal_is_no_liar() {
    swarm_of(Scenario::Nfs, 464_066_622_832..464_066_622_833, 4);
}

/// One that had executed a removal tentatively said at the version before it that the inode was gone.
#[test]
fn a_replica_that_misses_what_is_tentatively_removed_is_no_liar() {
    swarm(187_547_095_014..187_547_095_015, 4);
}

#[test]
fn a_group_of_one_keeps_its_promises() {
    swarm(1..100, 1);
}

/// Worlds that once broke a promise: `n seed why`, one a line; `rolling n seed why` where replicas are hurt one after the other.
#[test]
fn regressions() {
    let lines = include_str!("../regressions.txt").lines();
    let worlds = lines.filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    for line in worlds {
        let (scenario, world) = match line.strip_prefix("rolling ") {
            Some(world) => (Scenario::Rolling, world),
            None => (Scenario::Swarm, line),
        };
        let mut words = world.split_whitespace();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (Some(n), Some(seed)) = (number(), number()) else {
            panic!("not a regression: {line}")
        };
        let n = u32::try_from(n).expect("a small group");
        swarm_of(scenario, seed..seed + 1, n);
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..25 {
        for n in [4, 7] {
            let (first, second) = (swarm::run(plan(seed, n)), swarm::run(plan(seed, n)));
            assert_eq!(first, second);
        }
        let rolling = || swarm::run(Plan { scenario: Scenario::Rolling, ..plan(seed, 4) });
        assert_eq!(rolling(), rolling());
    }
    let (a, b) = (swarm::run(plan(1, 4)), swarm::run(plan(2, 4)));
    assert_ne!(a.trace_hash, b.trace_hash);
}

/// P12: with more than f faulty, something is noticed.
#[test]
fn too_many_faults_are_noticed() {
    for n in [4, 7] {
        for seed in 1..=20 {
            let report = swarm::run(Plan { scenario: Scenario::OverF, ..plan(seed, n) });
            let noticed = !report.violations.is_empty() || !report.alarms.is_empty();
            assert!(noticed, "n={n} seed={seed}: nobody noticed");
        }
    }
}

/// The oracle is no ornament: it says no where a promise is broken.
#[test]
fn the_oracle_objects() {
    let service = FileSystem::new(FileSystemConfig::default());
    let mut oracle = Oracle::new(service, 4, vec![true], Vec::new());
    let batch = |time| Arc::new(Batch { time: Time(time), requests: Vec::new() });
    let (one, two) = (Digest([1; 32]), Digest([2; 32]));
    oracle.on_executed(SequenceNumber(1), one, &batch(1)).expect("the first defines the order");
    let again = oracle.on_executed(SequenceNumber(1), two, &batch(2));
    assert!(again.expect_err("another batch at the same place").starts_with("I-1"));
    assert!(oracle.on_executed(SequenceNumber(3), one, &batch(3)).is_err(), "a gap");
    oracle.on_checkpoint(SequenceNumber(4), one).expect("the first defines the state");
    let other = oracle.on_checkpoint(SequenceNumber(4), two);
    assert!(other.expect_err("another state at the same place").starts_with("I-3"));
}
