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
    Listing {
        dir: PathBuf,
        /// How many names stay
        #[arg(long)]
        names: usize,
    },
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
    let done = work(&arguments.work, &mut tally);
    tally.failures.iter().for_each(|failure| println!("FAILED: {failure}"));
    done?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

fn work(work: &Work, tally: &mut Tally) -> Result<()> {
    match work {
        Work::UnlinkOpen { dir } => unlink_open::run(dir, tally),
        Work::Listing { dir, names } => large_directory::list(dir, *names, tally),
        Work::Pair { dir, side: side @ 0..2 } => pair::run(dir, *side, tally),
        Work::Pair { side, .. } => bail!("there is no side {side}"),
        Work::Steady { dir, verify: true, .. } => steady::verify(dir, tally),
        Work::Steady { dir, seconds, .. } => steady::run(dir, *seconds, tally),
    }
}

/// How many claims hold.
#[derive(Default)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    /// The first that do not.
    pub failures: Vec<String>,
}

impl Tally {
    /// How many failures are noted.
    const NOTED: u64 = 20;

    /// Counts a claim; notes it if it does not hold.
    pub fn claim(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if holds {
            self.passed += 1;
            return;
        }
        self.failed += 1;
        if self.failed <= Self::NOTED {
            self.failures.push(what());
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
