//! The longest time for which a directory, or whatever else is asked all the time, answers nobody.

use crate::errors::{ErrorLog, WorkError};
use crate::stop::Stop;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A thread that keeps asking for the same, and notes when each round is complete.
pub struct StallWatcher {
    shared: Arc<Shared>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// What a watcher saw in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The longest time between two completions, the begin and the end of the window counted as such; so one that is still
    /// going on counts too.
    pub longest: Duration,
    /// How many rounds were completed.
    pub completions: u64,
}

struct Shared {
    gaps: Mutex<Gaps>,
    /// Rounds of all windows.
    completed: AtomicU64,
    errors: ErrorLog,
}

struct Gaps {
    last: Instant,
    longest: Duration,
    completions: u64,
}

impl Gaps {
    fn new() -> Self {
        Self { last: Instant::now(), longest: Duration::ZERO, completions: 0 }
    }

    fn close(&mut self, now: Instant) {
        self.longest = self.longest.max(now.saturating_duration_since(self.last));
        self.last = now;
    }
}

impl StallWatcher {
    /// Watches `dir`, where each round creates, writes, syncs and removes a small file.
    ///
    /// Errors: as [`Self::of`].
    pub fn start(dir: &Path, pause: Duration) -> io::Result<Self> {
        let path = dir.join(format!("watch-{}", std::process::id()));
        let file = path.clone();
        let round = move || {
            // A round that failed half-way must not make all later ones fail.
            make_and_remove(&file).inspect_err(|_| drop(fs::remove_file(&file)))
        };
        Self::of(path, round, pause)
    }

    /// Repeats `round`, which is about `path`, with `pause` between one and the next. Its first window begins now.
    ///
    /// Errors: the system refuses a thread.
    pub fn of(
        path: PathBuf,
        round: impl FnMut() -> io::Result<()> + Send + 'static,
        pause: Duration,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            gaps: Mutex::new(Gaps::new()),
            completed: AtomicU64::new(0),
            errors: ErrorLog::default(),
        });
        let stop = Stop::default();
        let mut probe = Probe { path, round, shared: shared.clone() };
        let ending = stop.clone();
        let thread = thread::Builder::new()
            .name("watcher".into())
            .spawn(move || probe.run(pause, &ending))?;
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    /// Begins a new window, and returns what was seen in the one that ends.
    pub fn next_window(&self) -> Window {
        let mut gaps = self.shared.gaps();
        gaps.close(Instant::now());
        let ended = std::mem::replace(&mut *gaps, Gaps::new());
        Window { longest: ended.longest, completions: ended.completions }
    }

    /// How many rounds were completed since it was started.
    pub fn completed(&self) -> u64 {
        self.shared.completed.load(Ordering::Relaxed)
    }

    /// How many rounds failed.
    pub fn errors(&self) -> u64 {
        self.shared.errors.count()
    }

    /// The first of them.
    pub fn first_errors(&self) -> Vec<WorkError> {
        self.shared.errors.first()
    }

    /// Ends the thread after its round; waits for it, so the directory must answer, if only with errors.
    pub fn end(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there; what was seen until then is still good.
            let _ = thread.join();
        }
    }
}

impl Drop for StallWatcher {
    /// Asks the thread to end, and does not wait: the directory may not answer any more.
    fn drop(&mut self) {
        self.stop.request();
    }
}

impl Shared {
    fn gaps(&self) -> MutexGuard<'_, Gaps> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Probe<R> {
    path: PathBuf,
    round: R,
    shared: Arc<Shared>,
}

impl<R: FnMut() -> io::Result<()>> Probe<R> {
    fn run(&mut self, pause: Duration, stop: &Stop) {
        while !stop.requested() {
            match (self.round)() {
                Ok(()) => {
                    let mut gaps = self.shared.gaps();
                    gaps.close(Instant::now());
                    gaps.completions += 1;
                    self.shared.completed.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => self.shared.errors.io("watch", &self.path, &error),
            }
            thread::sleep(pause);
        }
    }
}

fn make_and_remove(path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(b"still here")?;
    file.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const PAUSE: Duration = Duration::from_millis(2);

    fn wait_until(mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline);
            thread::sleep(PAUSE);
        }
    }

    #[test]
    fn rounds_complete_and_leave_nothing() {
        let scratch = Scratch::new();
        let mut watcher = StallWatcher::start(scratch.path(), PAUSE).unwrap();
        let mut completions = 0;
        wait_until(|| {
            completions += watcher.next_window().completions;
            completions >= 5
        });
        watcher.end();
        assert_eq!(watcher.completed(), completions + watcher.next_window().completions);
        assert_eq!((watcher.errors(), fs::read_dir(scratch.path()).unwrap().count()), (0, 0));
    }

    #[test]
    fn a_gap_is_as_long_as_nothing_completes_and_belongs_to_its_window() {
        let scratch = Scratch::new();
        let below = scratch.path().join("below");
        fs::create_dir(&below).unwrap();
        let mut watcher = StallWatcher::start(&below, PAUSE).unwrap();
        wait_until(|| watcher.next_window().completions > 0);
        // Renamed in one step: a removal would race with the watcher's own files.
        fs::rename(&below, scratch.path().join("away")).unwrap();
        wait_until(|| watcher.errors() > 0);
        watcher.next_window();
        thread::sleep(Duration::from_millis(60));
        fs::create_dir(&below).unwrap();
        let stalled = watcher.next_window();
        assert!(stalled.longest >= Duration::from_millis(60), "{stalled:?}");
        assert_eq!(watcher.first_errors()[0].errno, Some(nix::errno::Errno::ENOENT as i32));
        wait_until(|| watcher.next_window().completions > 0);
        watcher.end();
    }
}
