//! What the kernel has been told of each file, so that open(2) finds out whether another client has changed it since.
//!
//! ```text
//! open(2)  it has looked the name up itself this moment     as fresh as can be
//!          otherwise the group is asked, and if the file is
//!            as the kernel knows it                           open
//!            another than the kernel knows                    ESTALE: the kernel looks the whole path up again, as it
//!                                                             does for NFS, learns what is new, and comes back
//!            another once more, or no name leads to it        open, and the kernel forgets what it knows: it comes back but once
//! ```

use super::bare::Bare;
use crate::backend::Backend;
use bfs_fs::op::{Attributes, FsReply, FsRequest, FsResult, Inode, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the kernel takes from the answer of a lookup to the open of what was looked up, both within one call. After an
/// open(2) that looked up and failed, the next one of the thread may be as old as this.
const THIS_MOMENT: Duration = Duration::from_millis(1);
/// The most files that are remembered; what is forgotten is looked up once more.
const FILES_MAX: usize = 65_536;
/// The most threads of which something is remembered.
const THREADS_MAX: usize = 1024;

/// What the kernel has been told.
pub struct Seen {
    /// Which files have no extended attributes.
    pub bare: Bare,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: HashMap<Inode, Version>,
    /// Threads that have looked a file up within the call that opens it.
    looked_up: HashMap<u32, (Inode, Instant)>,
    /// Threads that were refused an open, and have not come back.
    refused: HashSet<u32>,
}

/// What no two states of a file have in common.
type Version = (Timestamp, Timestamp, u64);

/// What the group's attributes say about the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are the same.
    Same,
    /// They are newer: the open is to be refused.
    Newer,
    /// They are newer, and the thread was refused already.
    NewerAgain,
}

fn version(a: &Attributes) -> Version {
    (a.modified, a.changed, a.size)
}

impl Seen {
    /// Believes for `ttl` that files have no extended attributes.
    pub fn new(ttl: Duration) -> Self {
        Self { bare: Bare::new(ttl), state: Mutex::default() }
    }

    /// The kernel is told `attributes`.
    pub fn learn(&self, attributes: &Attributes) {
        self.bare.learn(attributes);
        self.lock().learn(attributes);
    }

    /// The kernel is told `attributes` because `thread` has looked a name up, in a call that `opens` the file.
    ///
    /// What was looked up in another call may have been changed and closed elsewhere before the file is opened, however soon.
    pub fn look_up(&self, thread: u32, opens: bool, attributes: &Attributes) {
        self.learn(attributes);
        let mut state = self.lock();
        if !opens {
            state.looked_up.remove(&thread);
            return;
        }
        if state.looked_up.len() >= THREADS_MAX {
            state.looked_up.clear();
        }
        state.looked_up.insert(thread, (attributes.inode, Instant::now()));
    }

    /// `thread` has looked a name up in vain: what it was refused it does not come back for.
    pub fn miss(&self, thread: u32) {
        self.lock().refused.remove(&thread);
    }

    /// Whether `thread`, which opens `inode`, has looked it up in the same call. It is told so once.
    pub fn is_fresh(&self, thread: u32, inode: Inode) -> bool {
        let mut state = self.lock();
        let found = state.looked_up.remove(&thread);
        let fresh = found.is_some_and(|(found, at)| found == inode && at.elapsed() < THIS_MOMENT);
        if fresh {
            state.refused.remove(&thread);
        }
        fresh
    }

    /// Holds what the group says of a file that `thread` opens against what the kernel knows.
    pub fn judge(&self, thread: u32, attributes: &Attributes) -> Verdict {
        let mut state = self.lock();
        let was_refused = state.refused.remove(&thread);
        if state.files.get(&attributes.inode) == Some(&version(attributes)) {
            Verdict::Same
        } else if was_refused {
            state.learn(attributes);
            Verdict::NewerAgain
        } else {
            if state.refused.len() >= THREADS_MAX {
                state.refused.clear();
            }
            state.refused.insert(thread);
            Verdict::Newer
        }
    }

    /// The maps stay consistent at every point where a panic is possible, so poison says nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn learn(&mut self, attributes: &Attributes) {
        if self.files.len() >= FILES_MAX && !self.files.contains_key(&attributes.inode) {
            self.files.clear();
        }
        self.files.insert(attributes.inode, version(attributes));
    }
}

/// A backend that takes note of what this mount itself changes: after a write the kernel knows that its attributes are old.
pub struct Noting {
    backend: Arc<dyn Backend>,
    seen: Arc<Seen>,
}

impl Noting {
    /// Operations for `backend`, noted in `seen`.
    pub fn new(backend: Arc<dyn Backend>, seen: Arc<Seen>) -> Self {
        Self { backend, seen }
    }
}

impl Backend for Noting {
    fn call(&self, request: FsRequest, done: Box<dyn FnOnce(FsResult) + Send>) {
        let seen = self.seen.clone();
        let noted = move |result: FsResult| {
            if let Ok(FsReply::Written { attributes, .. } | FsReply::Allocated { attributes, .. }) =
                &result
            {
                seen.learn(attributes);
            }
            done(result);
        };
        self.backend.call(request, Box::new(noted));
    }

    fn fail_all(&self) {
        self.backend.fail_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::fixture;

    fn attributes(inode: u64, seconds: i64) -> Attributes {
        let time = Timestamp { seconds, ..Timestamp::default() };
        Attributes { modified: time, changed: time, ..fixture::attributes(inode) }
    }

    #[test]
    fn a_file_that_another_changed_is_looked_up_again_and_then_opened() {
        let seen = Seen::new(Duration::from_secs(1));
        assert_eq!(seen.judge(7, &attributes(5, 1)), Verdict::Newer, "nothing is known yet");
        seen.look_up(7, true, &attributes(5, 1));
        assert_eq!(seen.judge(7, &attributes(5, 1)), Verdict::Same);
        assert_eq!(seen.judge(7, &attributes(5, 2)), Verdict::Newer);
        seen.look_up(7, true, &attributes(5, 2));
        assert_eq!(seen.judge(7, &attributes(5, 2)), Verdict::Same);
    }

    #[test]
    fn nobody_is_refused_twice_in_a_row() {
        let seen = Seen::new(Duration::from_secs(1));
        // No name leads to it, so the kernel comes straight back.
        seen.learn(&attributes(5, 1));
        assert_eq!(seen.judge(7, &attributes(5, 2)), Verdict::Newer);
        assert_eq!(seen.judge(7, &attributes(5, 2)), Verdict::NewerAgain);
        assert_eq!(seen.judge(7, &attributes(5, 2)), Verdict::Same);
        // It changes all the time.
        assert_eq!(seen.judge(7, &attributes(5, 3)), Verdict::Newer);
        seen.look_up(7, true, &attributes(5, 4));
        assert_eq!(seen.judge(7, &attributes(5, 5)), Verdict::NewerAgain);
        // Another thread has had no chance yet, nor has one that came back in vain.
        assert_eq!(seen.judge(7, &attributes(5, 6)), Verdict::Newer);
        assert_eq!(seen.judge(8, &attributes(5, 6)), Verdict::Newer);
        seen.miss(7);
        assert_eq!(seen.judge(7, &attributes(5, 6)), Verdict::Newer);
    }

    #[test]
    fn a_lookup_counts_for_the_next_open_of_its_thread() {
        let seen = Seen::new(Duration::from_secs(1));
        seen.look_up(7, true, &attributes(5, 1));
        assert!(!seen.is_fresh(8, Inode(5)));
        assert!(seen.is_fresh(7, Inode(5)));
        assert!(!seen.is_fresh(7, Inode(5)), "it counts once");
        seen.look_up(7, true, &attributes(6, 1));
        assert!(!seen.is_fresh(7, Inode(5)));
        seen.look_up(7, true, &attributes(5, 1));
        std::thread::sleep(2 * THIS_MOMENT);
        assert!(!seen.is_fresh(7, Inode(5)));
        seen.look_up(7, true, &attributes(5, 1));
        seen.look_up(7, false, &attributes(5, 1));
        assert!(!seen.is_fresh(7, Inode(5)), "another call's");
    }

    #[test]
    fn the_memory_is_bounded() {
        let seen = Seen::new(Duration::ZERO);
        for i in 0..3 * FILES_MAX as u64 {
            seen.look_up(i as u32, true, &attributes(i, 1));
            seen.judge(i as u32, &attributes(i, 2));
        }
        let state = seen.lock();
        assert!(state.files.len() <= FILES_MAX && state.looked_up.len() <= THREADS_MAX);
        assert!(state.refused.len() <= THREADS_MAX);
    }
}
