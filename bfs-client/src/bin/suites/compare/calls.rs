//! What a guest's kernel asks of a server, procedure by procedure, as it counts for each mount in /proc/self/mountstats.

use super::figures::Measured;
use super::place::TARGETS;
use crate::middle::Middle;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Where guests mount what is measured.
const MOUNTED: &str = " mounted on /mnt/nfs ";

/// Calls of one procedure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calls {
    count: u64,
    /// From the call on the wire to its reply, of all of them. Units: milliseconds.
    waited: u64,
}

/// What was called between two readings, by the procedure's name.
///
/// Errors: these are no readings of a guest's mount.
pub fn between(before: &str, after: &str) -> Result<BTreeMap<String, Calls>> {
    let (before, mut after) = (read(before)?, read(after)?);
    for (name, calls) in &mut after {
        let before = before.get(name).copied().unwrap_or_default();
        calls.count = calls.count.saturating_sub(before.count);
        calls.waited = calls.waited.saturating_sub(before.waited);
    }
    after.retain(|_, calls| calls.count > 0);
    Ok(after)
}

/// [linux/Documentation/filesystems/nfs, `rpc_clnt_show_stats`] After "per-op statistics": a name, operations, transmissions,
/// timeouts, bytes out, bytes in, and milliseconds in the queue, until the reply, and in all.
fn read(mountstats: &str) -> Result<BTreeMap<String, Calls>> {
    let mounts = mountstats.split("device ");
    let mount = mounts.into_iter().find(|mount| mount.contains(MOUNTED));
    let (_, counts) = mount
        .and_then(|mount| mount.split_once("per-op statistics"))
        .context("the guest's kernel does not count the calls of its mount")?;
    let one = |line: &str| {
        let (name, numbers) = line.trim().split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|n| n.parse().ok()).collect();
        Some((name.to_owned(), Calls { count: *numbers.first()?, waited: *numbers.get(6)? }))
    };
    Ok(counts.lines().filter_map(one).collect())
}

/// The calls of one procedure, in all rounds of some work on one target.
#[derive(Serialize)]
pub struct Row {
    work: &'static str,
    target: &'static str,
    procedure: String,
    calls: Middle,
    /// The mean of each round. Units: milliseconds.
    wait: Middle,
}

/// Of every procedure of every work in every guest.
pub fn rows(measured: &[Measured]) -> Vec<Row> {
    let mut rows = Vec::new();
    let works: BTreeSet<&str> = measured.iter().map(|m| m.work).collect();
    for (work, (target, _)) in works.iter().flat_map(|work| TARGETS.map(|target| (*work, target))) {
        let rounds = || measured.iter().filter(|m| (m.work, m.target) == (work, target));
        let procedures: BTreeSet<&String> = rounds().flat_map(|m| m.timing.calls.keys()).collect();
        for procedure in procedures {
            let of = || rounds().filter_map(|m| m.timing.calls.get(procedure));
            let calls = Middle::of(of().map(|calls| calls.count as f64));
            let wait = Middle::of(of().map(|calls| calls.waited as f64 / calls.count as f64));
            if let (Some(calls), Some(wait)) = (calls, wait) {
                rows.push(Row { work, target, procedure: procedure.clone(), calls, wait });
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(lookups: &str) -> String {
        format!(
            "device proc mounted on /proc with fstype proc\n\
             device 10.0.0.1:/ mounted on /mnt/nfs with fstype nfs statvers=1.1\n\
             \tper-op statistics\n\
             \t        NULL: 1 1 0 44 24 0 3 3 0\n\
             \t      LOOKUP: {lookups}\n"
        )
    }

    #[test]
    fn what_was_called_is_what_was_counted_since() {
        let calls = between(&reading("5 5 0 600 700 0 10 11 0"), &reading("9 9 0 1 2 0 40 41 3"));
        let lookups = Calls { count: 4, waited: 30 };
        assert_eq!(calls.unwrap(), [("LOOKUP".to_owned(), lookups)].into());
        assert!(between("", &reading("1 1 0 1 1 0 1 1 0")).is_err());
    }
}
