//! Calls of one kind on one target for a while, timed.

use crate::nfs::rpc::{self, Call, Mounted};
use crate::nfs::target::{Service, Target};
use anyhow::{Context, Result, ensure};
use nfs3_types::nfs3::nfs_fh3;
use std::path::Path;
use std::time::{Duration, Instant};
use workloads::stop::Stop;

/// How many calls are on their way at once.
pub const DEPTHS: [usize; 2] = [1, 16];
/// The file that is read and written has as many blocks.
const BLOCKS: u64 = 256;
/// The most calls of one batch.
const CALLS_MAX: usize = 20_000;

/// A kind of call.
#[derive(Clone, Copy)]
pub struct Operation {
    pub name: &'static str,
    /// Call number `i`; no two make the same file.
    call: fn(&Places, u64) -> Call,
}

pub const OPERATIONS: [Operation; 6] = [
    Operation { name: "NULL", call: |_, _| rpc::null() },
    Operation { name: "GETATTR", call: |places, _| rpc::getattr(&places.file) },
    Operation { name: "LOOKUP", call: |places, _| rpc::lookup(&places.folder, FILE) },
    Operation { name: "READ 4K", call: |places, i| rpc::read(&places.file, scattered(i)) },
    Operation {
        name: "WRITE 4K FILE_SYNC",
        call: |places, i| rpc::write(&places.file, scattered(i), i as u8),
    },
    Operation { name: "CREATE", call: |places, i| rpc::create(&places.created, &i.to_string()) },
];

const FILE: &str = "file";

/// The blocks of the file in an order that is not theirs.
fn scattered(i: u64) -> u64 {
    i * 97 % BLOCKS
}

/// What the calls are about.
struct Places {
    folder: nfs_fh3,
    file: nfs_fh3,
    /// Where files are made; a fresh folder every round.
    created: nfs_fh3,
}

/// A started target.
pub struct Subject {
    pub target: Target,
    mounted: Mounted,
    places: Places,
    calls: u64,
    // Ended last.
    _service: Service,
}

/// One batch. Units: microseconds; calls a second.
#[derive(Clone, Debug)]
pub struct Round {
    pub target: &'static str,
    pub operation: &'static str,
    pub depth: usize,
    pub p50_us: f64,
    pub p99_us: f64,
    pub calls_s: f64,
}

impl Subject {
    /// Starts `target`, and makes what the calls are about.
    ///
    /// Errors: it does not start, or refuses a call.
    pub fn start(target: Target, scratch: &Path, stop: &Stop) -> Result<Self> {
        let service = target.start(scratch, stop)?;
        let mut mounted = Mounted::new(&service.endpoint)?;
        let root = mounted.root.clone();
        let folder = mounted.mkdir(&root, "measured")?;
        let file = mounted.create(&folder, FILE)?;
        mounted.run((0..BLOCKS).map(|block| rpc::write(&file, block, 1)), 1).context("WRITE")?;
        let places = Places { created: folder.clone(), folder, file };
        Ok(Self { target, mounted, places, calls: 0, _service: service })
    }

    /// Calls `operation`, `depth` calls at once, for as long as `batch`.
    ///
    /// Errors: a call did not go well.
    pub fn measure(
        &mut self,
        operation: Operation,
        depth: usize,
        round: u32,
        batch: Duration,
    ) -> Result<Round> {
        if operation.name == "CREATE" {
            let folder = self.places.folder.clone();
            let name = format!("created-{round}-{depth}");
            self.places.created = self.mounted.mkdir(&folder, &name)?;
        }
        // Warm, so that what was measured before does not count.
        self.calls_for(operation, depth, batch / 10)?;
        let start = Instant::now();
        let mut times = self.calls_for(operation, depth, batch)?;
        let elapsed = start.elapsed();
        ensure!(!times.is_empty(), "no call was made");
        times.sort_unstable();
        let percentile = |percent: usize| {
            let at = (times.len() * percent / 100).min(times.len() - 1);
            times[at].as_secs_f64() * 1e6
        };
        Ok(Round {
            target: self.target.name,
            operation: operation.name,
            depth,
            p50_us: percentile(50),
            p99_us: percentile(99),
            calls_s: times.len() as f64 / elapsed.as_secs_f64(),
        })
    }

    fn calls_for(
        &mut self,
        operation: Operation,
        depth: usize,
        time: Duration,
    ) -> Result<Vec<Duration>> {
        let (places, next) = (&self.places, &mut self.calls);
        let end = Instant::now() + time;
        let calls = std::iter::from_fn(|| {
            *next += 1;
            (Instant::now() < end).then(|| (operation.call)(places, *next))
        });
        self.mounted.run(calls.take(CALLS_MAX), depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn all_blocks_have_their_turn() {
        assert_eq!((0..BLOCKS).map(scattered).collect::<HashSet<_>>().len(), BLOCKS as usize);
    }
}
