//! One large file, in sequence and at random.

use crate::stop::Stop;
use crate::timing::{Stopwatch, Timing, drop_caches};
use anyhow::{Result, ensure};
use clap::Args;
use fastrand::Rng;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;

#[derive(Args, Clone, Copy)]
pub struct Options {
    /// How large the file is. Units: MiB
    #[arg(long, default_value_t = 256)]
    pub mib: usize,
    /// How many blocks of 4 KiB are written, and read, at random
    #[arg(long, default_value_t = 2000)]
    pub blocks: usize,
    /// Before anything is read, drop what the kernel has cached (root)
    #[arg(long)]
    pub drop_caches: bool,
}

/// Works in `dir`, which exists, and removes what it has made. What is written is safe (fsync) before its time ends.
///
/// Errors: the first operation that fails; contents that are not what was written.
pub fn run(dir: &Path, options: Options, stop: &Stop) -> Result<Timing> {
    ensure!(options.mib > 0, "at least one MiB");
    let path = dir.join("large");
    let mut watch = Stopwatch::new(stop);
    let forget = || if options.drop_caches { drop_caches() } else { Ok(()) };
    watch.time("write in sequence", || write_all(&path, options.mib, stop))?;
    forget()?;
    watch.time("read in sequence", || read_all(&path, options.mib, stop))?;
    let blocks = options.mib * MIB / BLOCK;
    let mut rng = Rng::with_seed(42);
    let places: Vec<_> =
        (0..options.blocks).map(|_| (rng.usize(..blocks) * BLOCK) as u64).collect();
    watch.time("write at random", || {
        let file = File::options().write(true).open(&path)?;
        places.iter().try_for_each(|place| file.write_all_at(&[0xA5; BLOCK], *place))?;
        Ok(file.sync_all()?)
    })?;
    forget()?;
    watch.time("read at random", || {
        let file = File::open(&path)?;
        let mut block = [0; BLOCK];
        places.iter().try_for_each(|place| {
            file.read_exact_at(&mut block, *place)?;
            ensure!(block == [0xA5; BLOCK], "the block at {place} is not what was written");
            Ok(())
        })
    })?;
    fs::remove_file(&path)?;
    Ok(watch.timing())
}

fn write_all(path: &Path, mib: usize, stop: &Stop) -> Result<()> {
    let mut file = File::create_new(path)?;
    let mut piece = vec![0; MIB];
    for i in 0..mib {
        ensure!(!stop.requested(), "stopped");
        piece.fill(i as u8);
        file.write_all(&piece)?;
    }
    Ok(file.sync_all()?)
}

fn read_all(path: &Path, mib: usize, stop: &Stop) -> Result<()> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; MIB];
    for i in 0..mib {
        ensure!(!stop.requested(), "stopped");
        file.read_exact(&mut piece)?;
        ensure!(piece.iter().all(|byte| *byte == i as u8), "MiB {i} is not what was written");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn it_leaves_nothing_behind() {
        let scratch = Scratch::new();
        let options = Options { mib: 2, blocks: 10, drop_caches: false };
        let timing = run(scratch.path(), options, &Stop::default()).unwrap();
        assert_eq!(timing.phases.len(), 4);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_not_written_is_noticed() {
        let scratch = Scratch::new();
        let path = scratch.path().join("large");
        write_all(&path, 2, &Stop::default()).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[9], 5).unwrap();
        assert!(read_all(&path, 2, &Stop::default()).is_err());
    }
}
