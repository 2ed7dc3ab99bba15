//! Worlds by the hundred. A failure prints the line that reproduces it.

use bfs_fs::{FileSystem, FileSystemConfig};
use bft_core::io::Batch;
use bft_core::types::{Digest, SequenceNumber, Time};
use bft_sim::oracle::Oracle;
use bft_sim::world::{Plan, Report, World};
use std::sync::Arc;

fn plan(seed: u64, n: u32, f: u32) -> Plan {
    Plan { seed, n, f, clients: 3, operations: 60, trace: false }
}

fn swarm(seeds: std::ops::Range<u64>, n: u32, f: u32) -> Report {
    let mut total = Report::default();
    for seed in seeds {
        let report = World::new(plan(seed, n, f)).run();
        let repro = format!("./x sim --seed {seed} --n {n} --trace");
        assert!(report.violations.is_empty(), "{}\nrepro: {repro}", report.violations.join("\n"));
        total.commits += report.commits;
        total.restarts += report.restarts;
        total.transfers += report.transfers;
        total.events += report.events;
    }
    println!("{total:?}");
    total
}

/// A fresh range of seeds for every release of the sources, and the same one for the same sources.
fn fresh_seed() -> u64 {
    let sources =
        concat!(include_str!("../../bft-core/src/replica.rs"), include_str!("../src/world.rs"));
    let digest = Digest::of(bft_core::types::Domain::State, &sources.to_owned());
    u64::from_le_bytes(digest.0[..8].try_into().expect("eight bytes")) >> 16
}

#[test]
fn four_replicas_keep_their_promises() {
    let first = fresh_seed();
    println!("seeds from {first}");
    let total = swarm(first..first + 1_000, 4, 1);
    assert!(total.restarts > 500 && total.transfers > 200, "the swarm is blind: {total:?}");
}

#[test]
fn seven_replicas_keep_their_promises() {
    let first = fresh_seed();
    let total = swarm(first..first + 150, 7, 2);
    assert!(total.restarts > 50 && total.transfers > 30, "the swarm is blind: {total:?}");
}

#[test]
fn a_group_of_one_keeps_its_promises() {
    swarm(1..100, 1, 0);
}

/// Worlds that once broke a promise.
#[test]
fn regressions() {
    // The primary lost COMMITs that the others had truncated; a restarted peer had no tail; a transferred primary forgot
    // what had come too early.
    for seed in [2, 83, 760] {
        swarm(seed..seed + 1, 4, 1);
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..20 {
        let (first, second) =
            (World::new(plan(seed, 4, 1)).run(), World::new(plan(seed, 4, 1)).run());
        assert_eq!(first, second);
    }
    let (a, b) = (World::new(plan(1, 4, 1)).run(), World::new(plan(2, 4, 1)).run());
    assert_ne!(a.trace_hash, b.trace_hash);
}

/// The oracle is no ornament: it says no where a promise is broken.
#[test]
fn the_oracle_objects() {
    let service = FileSystem::new(FileSystemConfig::default());
    let mut oracle = Oracle::new(service);
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
