//! What went wrong, counted; work goes on after an error, as a user's would.

use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One operation that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkError {
    /// What was being done.
    pub during: String,
    pub path: PathBuf,
    /// The system's error number, where the system gave one.
    pub errno: Option<i32>,
    pub message: String,
}

/// How many errors there were, and the first of them. Safe to share between threads.
#[derive(Debug, Default)]
pub struct ErrorLog(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    count: u64,
    first: Vec<WorkError>,
}

impl ErrorLog {
    /// How many errors are kept whole; the rest is only counted.
    pub const KEPT_MAX: usize = 20;

    /// Notes that the system refused an operation on `path`.
    pub fn io(&self, during: &str, path: &Path, error: &io::Error) {
        self.note(during, path, error.raw_os_error(), error.to_string());
    }

    /// Notes something else that is wrong with `path`.
    pub fn wrong(&self, during: &str, path: &Path, message: impl Into<String>) {
        self.note(during, path, None, message.into());
    }

    fn note(&self, during: &str, path: &Path, errno: Option<i32>, message: String) {
        let mut entries = self.entries();
        entries.count += 1;
        if entries.first.len() < Self::KEPT_MAX {
            entries.first.push(WorkError {
                during: during.into(),
                path: path.into(),
                errno,
                message,
            });
        }
    }

    /// How many errors there were.
    pub fn count(&self) -> u64 {
        self.entries().count
    }

    /// The first errors, at most [`Self::KEPT_MAX`], in the order in which they came.
    pub fn first(&self) -> Vec<WorkError> {
        self.entries().first.clone()
    }

    /// A thread that panicked while it noted an error leaves a list that is still good.
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for WorkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.during, self.path.display(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_are_kept_with_their_number() {
        let log = ErrorLog::default();
        for _ in 0..ErrorLog::KEPT_MAX + 5 {
            log.io("read", Path::new("/f"), &io::Error::from_raw_os_error(5));
        }
        assert_eq!(log.count(), 25);
        let first = log.first();
        assert_eq!(first.len(), ErrorLog::KEPT_MAX);
        assert_eq!((first[0].errno, first[0].path.as_path()), (Some(5), Path::new("/f")));
    }
}
