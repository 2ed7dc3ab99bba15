//! What works while the group is attacked, and how it keeps count.

use super::place::Place;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use workloads::errors::{ErrorLog, WorkError};
use workloads::progress::Progress;
use workloads::stop::Stop;
use workloads::timing::PhaseTime;
use workloads::verify::Verification;

/// Something that works in a [`Place`] until the attacks are over.
pub trait Load: Send + Sync {
    /// One line about it.
    fn about(&self) -> String;
    /// Runs everything until [`Self::finish`].
    fn run(&self, place: &Place) -> Worked;
    /// The attacks are over: every worker ends with what it does.
    fn finish(&self);
    /// What has been counted until now.
    fn tally(&self) -> &Tally<'_>;
    /// Whether all that was acknowledged is there.
    fn check(&self, place: &Place, worked: &Worked, progress: &dyn Progress) -> Checked;
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Worked {
    /// Copies of the source tree that were made and read, and the sum of what they were.
    pub runs: u64,
    pub files: u64,
    pub bytes: u64,
    pub compiled: u64,
    /// The phases of the last one that was not cut short, whose files are still there.
    pub phases: Vec<PhaseTime>,
    pub last: PathBuf,
    /// Commits that git has acknowledged.
    pub commits: u64,
    /// Rows that the database has acknowledged.
    pub rows: u64,
}

/// What was found at the end.
pub struct Checked {
    pub verified: Verification,
    /// "ok", or what is wrong, or why nothing is said.
    pub git_fsck: String,
    pub sqlite: String,
}

/// Files read and compared, and what failed; shared by all threads of a load and by who attacks meanwhile.
pub struct Tally<'a> {
    stop: &'a Stop,
    over: AtomicBool,
    pub errors: ErrorLog,
    reads: AtomicU64,
    wrong_reads: AtomicU64,
}

impl<'a> Tally<'a> {
    /// Nothing yet. Once somebody asks to stop, what fails is no error.
    pub fn new(stop: &'a Stop) -> Self {
        Self {
            stop,
            over: AtomicBool::new(false),
            errors: ErrorLog::default(),
            reads: AtomicU64::new(0),
            wrong_reads: AtomicU64::new(0),
        }
    }

    /// The attacks are over.
    pub fn finish(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether there is more to do.
    pub fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst) && !self.stop.requested()
    }

    /// Who asks to stop.
    pub fn stop(&self) -> &'a Stop {
        self.stop
    }

    /// Notes what reading `path` gave, where `expected` had been written; says whether it is that.
    pub fn compare(&self, path: &Path, found: io::Result<Vec<u8>>, expected: &[u8]) -> bool {
        match found {
            Ok(contents) => {
                self.reads.fetch_add(1, Ordering::Relaxed);
                let same = contents == expected;
                if !same {
                    self.wrong_reads.fetch_add(1, Ordering::Relaxed);
                    self.errors.wrong("read", path, "it is not what was written");
                }
                same
            }
            Err(error) => {
                self.failed("read", path, &error);
                false
            }
        }
    }

    /// Notes that something about `path` failed, unless somebody asked to stop.
    pub fn failed(&self, during: &str, path: &Path, error: &io::Error) {
        if !self.stop.requested() {
            self.errors.io(during, path, error);
        }
    }

    /// Operations that failed.
    pub fn failures(&self) -> u64 {
        self.errors.count()
    }

    /// The first of them.
    pub fn first_errors(&self) -> Vec<WorkError> {
        self.errors.first()
    }

    /// Files that were read and compared, and those of them that were not what was written.
    pub fn reads(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.wrong_reads.load(Ordering::Relaxed))
    }
}
