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
use fuser::Errno;
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
    looked_up: HashMap<u32, LookedUp>,
    /// Threads that were refused an open, and have not come back.
    refused: HashSet<u32>,
}

/// What a thread is about to open.
struct LookedUp {
    inode: Inode,
    asked: Instant,
    told: Instant,
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

    /// The kernel is told `attributes` because `thread` has looked a name up; in a call that opens the file, `opens` is when the
    /// group was asked.
    ///
    /// What was looked up in another call may have been changed and closed elsewhere before the file is opened, however soon.
    pub fn look_up(&self, thread: u32, opens: Option<Instant>, attributes: &Attributes) {
        self.learn(attributes);
        let mut state = self.lock();
        let Some(asked) = opens else {
            state.looked_up.remove(&thread);
            return;
        };
        if state.looked_up.len() >= THREADS_MAX {
            state.looked_up.clear();
        }
        let looked_up = LookedUp { inode: attributes.inode, asked, told: Instant::now() };
        state.looked_up.insert(thread, looked_up);
    }

    /// `thread` has got what it wanted, or has looked the name up in vain: for what it was refused it does not come back.
    pub fn ended(&self, thread: u32) {
        self.lock().refused.remove(&thread);
    }

    /// When the group was asked for the name by which `thread` opens `inode`, if that was in the same call. It is told so once.
    pub fn looked_up(&self, thread: u32, inode: Inode) -> Option<Instant> {
        let found = self.lock().looked_up.remove(&thread)?;
        let is_fresh = found.inode == inode && found.told.elapsed() < THIS_MOMENT;
        is_fresh.then_some(found.asked)
    }

    /// `thread` opens a file that is gone: as if the name had led to another one meanwhile, and once more, as if it led nowhere. No
    /// other answer would be true to a program that knows of no other machines.
    pub fn gone(&self, thread: u32) -> Errno {
        let mut state = self.lock();
        if state.refused.remove(&thread) {
            return Errno::ENOENT;
        }
        state.refuse(thread);
        Errno::ESTALE
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
            state.refuse(thread);
            Verdict::Newer
        }
    }

    /// The maps stay consistent at every point where a panic is possible, so poison says nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn refuse(&mut self, thread: u32) {
        if self.refused.len() >= THREADS_MAX {
            self.refused.clear();
        }
        self.refused.insert(thread);
    }

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
        seen.look_up(7, Some(Instant::now()), &attributes(5, 1));
        assert_eq!(seen.judge(7, &attributes(5, 1)), Verdict::Same);
        assert_eq!(seen.judge(7, &attributes(5, 2)), Verdict::Newer);
        seen.look_up(7, Some(Instant::now()), &attributes(5, 2));
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
        seen.look_up(7, Some(Instant::now()), &attributes(5, 4));
        assert_eq!(seen.judge(7, &attributes(5, 5)), Verdict::NewerAgain);
        // Another thread has had no chance yet, nor has one that came back in vain.
        assert_eq!(seen.judge(7, &attributes(5, 6)), Verdict::Newer);
        assert_eq!(seen.judge(8, &attributes(5, 6)), Verdict::Newer);
        seen.ended(7);
        assert_eq!(seen.judge(7, &attributes(5, 6)), Verdict::Newer);
    }

    #[test]
    fn a_lookup_counts_for_the_next_open_of_its_thread() {
        let seen = Seen::new(Duration::from_secs(1));
        seen.look_up(7, Some(Instant::now()), &attributes(5, 1));
        assert!(seen.looked_up(8, Inode(5)).is_none());
        assert!(seen.looked_up(7, Inode(5)).is_some());
        assert!(seen.looked_up(7, Inode(5)).is_none(), "it counts once");
        seen.look_up(7, Some(Instant::now()), &attributes(6, 1));
        assert!(seen.looked_up(7, Inode(5)).is_none());
        seen.look_up(7, Some(Instant::now()), &attributes(5, 1));
        std::thread::sleep(2 * THIS_MOMENT);
        assert!(seen.looked_up(7, Inode(5)).is_none());
        seen.look_up(7, Some(Instant::now()), &attributes(5, 1));
        seen.look_up(7, None, &attributes(5, 1));
        assert!(seen.looked_up(7, Inode(5)).is_none(), "another call's");
    }

    #[test]
    fn the_memory_is_bounded() {
        let seen = Seen::new(Duration::ZERO);
        for i in 0..3 * FILES_MAX as u64 {
            seen.look_up(i as u32, Some(Instant::now()), &attributes(i, 1));
            seen.judge(i as u32, &attributes(i, 2));
        }
        let state = seen.lock();
        assert!(state.files.len() <= FILES_MAX && state.looked_up.len() <= THREADS_MAX);
        assert!(state.refused.len() <= THREADS_MAX);
    }
}
