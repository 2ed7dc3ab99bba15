//! What a guest does itself: work that needs single system calls, and what holds for their results.

pub mod large_directory;
mod pair;
mod steady;
mod unlink_open;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// A file that is open is removed
    UnlinkOpen { dir: PathBuf },
    /// A large directory is listed while names come and go
    Listing { dir: PathBuf },
    /// One of two guests that do the same things at once
    Pair {
        dir: PathBuf,
        #[arg(long)]
        side: usize,
    },
    /// Files are made, changed, moved and removed, and nothing may fail; then what should be there is
    Steady {
        dir: PathBuf,
        #[arg(long, default_value_t = 0)]
        seconds: u64,
        #[arg(long)]
        verify: bool,
    },
}

/// Does it; prints what failed, and at last how much passed and failed.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let mut tally = Tally::default();
    match &arguments.work {
        Work::UnlinkOpen { dir } => unlink_open::run(dir, &mut tally)?,
        Work::Listing { dir } => large_directory::list(dir, &mut tally)?,
        Work::Pair { dir, side: side @ 0..2 } => pair::run(dir, *side, &mut tally)?,
        Work::Pair { side, .. } => bail!("there is no side {side}"),
        Work::Steady { dir, verify: true, .. } => steady::verify(dir, &mut tally)?,
        Work::Steady { dir, seconds, .. } => steady::run(dir, *seconds, &mut tally)?,
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// How many claims hold.
#[derive(Default)]
pub struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// How many failures are printed.
    const PRINTED: u64 = 20;

    /// Counts a claim; prints it if it does not hold.
    pub fn claim(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if holds {
            self.passed += 1;
            return;
        }
        self.failed += 1;
        if self.failed <= Self::PRINTED {
            println!("FAILED: {}", what());
        }
    }

    /// Counts a call that must succeed; what it returned.
    pub fn must<T, E: std::fmt::Display>(
        &mut self,
        what: impl FnOnce() -> String,
        result: Result<T, E>,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                self.passed += 1;
                Some(value)
            }
            Err(error) => {
                self.claim(false, || format!("{}: {error}", what()));
                None
            }
        }
    }
}
