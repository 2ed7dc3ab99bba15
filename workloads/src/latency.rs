//! How long single operations take.

use crate::stop::Stop;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longer than the time for which the kernel trusts attributes unless a mount says otherwise.
const CACHE_EXPIRY: Duration = Duration::from_millis(1500);
const BLOCK: [u8; 4096] = [0xA5; 4096];

/// The latency of one kind of operation. Units: microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50_us: f64,
    pub p99_us: f64,
}

/// The latencies of single operations, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// How often each was done.
    pub rounds: usize,
    /// Asking for the attributes of a file whose attributes nobody has cached.
    pub stat: Percentiles,
    /// Creating a file and closing it.
    pub create: Percentiles,
    /// Writing 4 KiB to an open file, and fsync.
    pub write_4k_fsync: Percentiles,
    /// Opening a file, reading its 4 KiB, and closing it.
    pub read_4k: Percentiles,
}

/// Does each operation `rounds` times in a new folder in `dir`, which is removed at the end.
///
/// Errors: the first operation that fails; `Interrupted` once `stop` is requested; `InvalidInput` for no rounds.
pub fn measure(dir: &Path, rounds: usize, stop: &Stop) -> io::Result<Latency> {
    let folder = dir.join(format!("latency-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let result = measure_in(&folder, rounds, stop);
    let removed = fs::remove_dir_all(&folder);
    let latency = result?;
    removed?;
    Ok(latency)
}

fn measure_in(folder: &Path, rounds: usize, stop: &Stop) -> io::Result<Latency> {
    let paths: Vec<PathBuf> =
        (0..rounds).map(|round| folder.join(format!("file-{round}"))).collect();
    let create = each(&paths, stop, |path| File::create_new(path).map(drop))?;
    let mut block_file = File::create_new(folder.join("block"))?;
    let write_4k_fsync = each(&paths, stop, |_| {
        block_file.write_all(&BLOCK)?;
        block_file.sync_all()
    })?;
    for path in &paths {
        fs::write(path, BLOCK)?;
    }
    if !stop.sleep(CACHE_EXPIRY) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let stat = each(&paths, stop, |path| fs::symlink_metadata(path).map(drop))?;
    let read_4k = each(&paths, stop, |path| File::open(path)?.read_exact(&mut [0; BLOCK.len()]))?;
    Ok(Latency { rounds, stat, create, write_4k_fsync, read_4k })
}

/// The latency of `operation`, done once to each of `paths`.
fn each(
    paths: &[PathBuf],
    stop: &Stop,
    mut operation: impl FnMut(&Path) -> io::Result<()>,
) -> io::Result<Percentiles> {
    let mut times = Vec::with_capacity(paths.len());
    for path in paths {
        if stop.requested() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let begun = Instant::now();
        operation(path)?;
        times.push(begun.elapsed());
    }
    Percentiles::of(times).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl Percentiles {
    /// The percentiles of these times by nearest rank; nothing of no times.
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        let rank =
            |percent: usize| (times.len() * percent).div_ceil(100).saturating_sub(1).min(last);
        let at = |percent| times[rank(percent)].as_secs_f64() * 1e6;
        Some(Self { p50_us: at(50), p99_us: at(99) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(Percentiles::of(times), Some(Percentiles { p50_us: 100.0, p99_us: 198.0 }));
        let one = Percentiles::of(vec![Duration::from_micros(7)]).unwrap();
        assert_eq!((one.p50_us, one.p99_us), (7.0, 7.0));
        assert_eq!(Percentiles::of(Vec::new()), None);
    }

    #[test]
    fn every_operation_is_measured_and_nothing_stays() {
        let scratch = Scratch::new();
        let latency = measure(scratch.path(), 20, &Stop::default()).unwrap();
        for operation in [latency.stat, latency.create, latency.write_4k_fsync, latency.read_4k] {
            assert!(operation.p50_us > 0.0 && operation.p99_us >= operation.p50_us);
        }
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_stop_ends_it_and_nothing_stays() {
        let scratch = Scratch::new();
        let stop = Stop::default();
        stop.request();
        let error = measure(scratch.path(), 20, &stop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
