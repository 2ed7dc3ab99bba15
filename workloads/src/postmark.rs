//! Many small files that come, change and go, as a mail server's do.
//!
//! Source: Katcher, "PostMark: A New File System Benchmark", Network Appliance TR-3022, 1997: a pool of files of 500 to 9,770
//! bytes; each transaction creates or deletes one, and reads another or appends to it.

use crate::stop::Stop;
use crate::timing::{Stopwatch, Timing};
use anyhow::{Result, ensure};
use clap::Args;
use fastrand::Rng;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Units: bytes.
const SIZES: std::ops::RangeInclusive<usize> = 500..=9770;
const DIRECTORIES: usize = 10;

#[derive(Args, Clone, Copy)]
pub struct Options {
    /// How many files there are at the start
    #[arg(long, default_value_t = 500)]
    pub files: usize,
    #[arg(long, default_value_t = 2000)]
    pub transactions: usize,
    /// What chance depends on
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

struct Pool<'a> {
    dir: &'a Path,
    rng: Rng,
    /// The files there are, and how long each is.
    files: Vec<(PathBuf, usize)>,
    made: usize,
}

/// Works in `dir`, which exists, and removes what it has made.
///
/// Errors: the first operation that fails; a file that is not as long as what was written to it.
pub fn run(dir: &Path, options: Options, stop: &Stop) -> Result<Timing> {
    ensure!(options.files > 0, "at least one file");
    let mut watch = Stopwatch::new(stop);
    let rng = Rng::with_seed(options.seed);
    let mut pool = Pool { dir, rng, files: Vec::new(), made: 0 };
    watch.time("create", || {
        (0..DIRECTORIES).try_for_each(|i| fs::create_dir(dir.join(format!("d{i}"))))?;
        (0..options.files).try_for_each(|_| pool.create())
    })?;
    watch.time("transactions", || {
        (0..options.transactions).try_for_each(|_| {
            ensure!(!stop.requested(), "stopped");
            pool.transaction()
        })
    })?;
    watch.time("delete", || {
        while !pool.files.is_empty() {
            pool.delete()?;
        }
        Ok((0..DIRECTORIES).try_for_each(|i| fs::remove_dir(dir.join(format!("d{i}"))))?)
    })?;
    Ok(watch.timing())
}

impl Pool<'_> {
    fn create(&mut self) -> Result<()> {
        let path = self.dir.join(format!("d{}/f{}", self.made % DIRECTORIES, self.made));
        self.made += 1;
        let size = self.rng.usize(SIZES);
        fs::write(&path, vec![b'x'; size])?;
        self.files.push((path, size));
        Ok(())
    }

    fn delete(&mut self) -> Result<()> {
        let (path, _) = self.files.swap_remove(self.rng.usize(..self.files.len()));
        Ok(fs::remove_file(path)?)
    }

    fn transaction(&mut self) -> Result<()> {
        // The last one stays: there is always something to read.
        match self.rng.bool() && self.files.len() > 1 {
            true => self.delete()?,
            false => self.create()?,
        }
        let chosen = self.rng.usize(..self.files.len());
        let (path, size) = &mut self.files[chosen];
        if self.rng.bool() {
            let found = fs::read(&*path)?.len();
            ensure!(found == *size, "{}: {found} bytes instead of {size}", path.display());
        } else {
            let more = self.rng.usize(SIZES);
            File::options().append(true).open(&*path)?.write_all(&vec![b'y'; more])?;
            *size += more;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn it_leaves_nothing_behind_and_is_timed_in_three_parts() {
        let scratch = Scratch::new();
        let options = Options { files: 20, transactions: 100, seed: 1 };
        let timing = run(scratch.path(), options, &Stop::default()).unwrap();
        assert_eq!(timing.phases.len(), 3);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_lost_its_end_is_noticed() {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path().join("d0")).unwrap();
        let mut pool =
            Pool { dir: scratch.path(), rng: Rng::with_seed(3), files: Vec::new(), made: 0 };
        pool.create().unwrap();
        pool.files[0].1 += 1;
        (1..DIRECTORIES)
            .for_each(|i| fs::create_dir(scratch.path().join(format!("d{i}"))).unwrap());
        assert!((0..200).any(|_| pool.transaction().is_err()));
    }
}
