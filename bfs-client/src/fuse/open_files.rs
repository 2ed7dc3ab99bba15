//! The files that are open here, on whose behalf, and which of them the group holds for this mount.
//!
//! A file that loses its last name must live on for whoever has it open. Opening and closing stay free of operations:
//! who removes a name says in that operation what is open here, and what is open for longer than [`SETTLED`] is held in
//! advance, many files in one operation, in case that another client removes it. So a file that another client removes
//! within a second of its being opened here is stale, as on NFS; under `strict` it is held before open(2) returns.

use bfs_fs::op::{Caller, Inode, Keep, MAX_HOLDS};
use fuser::FileHandle;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a file is open before the group is told.
pub const SETTLED: Duration = Duration::from_secs(1);

/// Who opened each open file: reads, writes and truncations through it are theirs, whoever performs them, as
/// POSIX checks permission at open(2) and at no later time.
///
/// The kernel's own limit on open files bounds it.
#[derive(Default)]
pub struct OpenFiles {
    state: Mutex<State>,
    /// There is something to let go, or nothing more to come.
    news: Condvar,
}

#[derive(Default)]
struct State {
    last: u64,
    handles: HashMap<u64, Handle>,
    inodes: HashMap<Inode, OpenInode>,
    /// What the group holds and nobody here has open any more.
    let_go: Vec<Inode>,
    ended: bool,
}

struct Handle {
    caller: Caller,
    inode: Inode,
}

struct OpenInode {
    count: usize,
    since: Instant,
    /// The group holds it for this mount, or is being asked to.
    held: bool,
}

/// What is to be told to the group.
#[derive(Debug, PartialEq, Eq)]
pub enum Chore {
    /// These are open, and have been for a while.
    Hold(Vec<Inode>),
    LetGo(Vec<Inode>),
    /// The mount ends.
    End,
}

impl OpenFiles {
    /// A new handle for `inode`, which `caller` opens; `held`: the group holds it already.
    pub fn open(&self, caller: Caller, inode: Inode, held: bool) -> FileHandle {
        let mut state = self.lock();
        state.last += 1;
        let handle = state.last;
        state.handles.insert(handle, Handle { caller, inode });
        let since = Instant::now();
        let open = state.inodes.entry(inode).or_insert(OpenInode { count: 0, since, held: false });
        open.count += 1;
        open.held |= held;
        FileHandle(handle)
    }

    /// Who opened `handle`.
    pub fn opener(&self, handle: FileHandle) -> Option<Caller> {
        self.lock().handles.get(&handle.0).map(|handle| handle.caller.clone())
    }

    /// Forgets `handle`; says whether it was the last one of its inode.
    pub fn release(&self, handle: FileHandle) -> bool {
        let mut state = self.lock();
        let Some(Handle { inode, .. }) = state.handles.remove(&handle.0) else { return false };
        let Some(open) = state.inodes.get_mut(&inode) else { return false };
        open.count -= 1;
        if open.count > 0 {
            return false;
        }
        let held = open.held;
        state.inodes.remove(&inode);
        if held {
            state.let_go.push(inode);
            self.news.notify_all();
        }
        true
    }

    /// Whether the group holds `inode` for this mount already.
    pub fn is_held(&self, inode: Inode) -> bool {
        self.lock().inodes.get(&inode).is_some_and(|open| open.held)
    }

    /// What an operation that takes a name away has to keep.
    pub fn keep(&self) -> Keep {
        let state = self.lock();
        match state.inodes.len() {
            0..=MAX_HOLDS => Keep::These(state.inodes.keys().copied().collect()),
            _ => Keep::Whatever,
        }
    }

    /// The group keeps `inode`, which has lost its last name, for this mount.
    pub fn kept(&self, inode: Inode) {
        let mut state = self.lock();
        match state.inodes.get_mut(&inode) {
            Some(open) => open.held = true,
            // It was closed meanwhile, or never open here.
            None => {
                state.let_go.push(inode);
                self.news.notify_all();
            }
        }
    }

    /// The group holds nothing any more for this mount.
    pub fn lost(&self) {
        let mut state = self.lock();
        state.let_go.clear();
        state.inodes.values_mut().for_each(|open| open.held = false);
    }

    /// Waits for something to tell the group, at most until `limit`.
    pub fn next_chore(&self, limit: Duration) -> Option<Chore> {
        let state = self.lock();
        let limit = state.unsettled().map_or(limit, |left| left.min(limit));
        let idle = |state: &mut State| !state.ended && state.let_go.is_empty();
        let waited = self.news.wait_timeout_while(state, limit, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.next_chore(Instant::now())
    }

    /// Ends the mount.
    pub fn end(&self) {
        self.lock().ended = true;
        self.news.notify_all();
    }

    /// The maps stay consistent at every point where a panic is possible, so poison says nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How long until the next file has settled.
    fn unsettled(&self) -> Option<Duration> {
        let first = self.inodes.values().filter(|open| !open.held).map(|open| open.since).min();
        first.map(|since| SETTLED.saturating_sub(since.elapsed()))
    }

    fn next_chore(&mut self, now: Instant) -> Option<Chore> {
        if self.ended {
            return Some(Chore::End);
        }
        let settled = |open: &OpenInode| !open.held && now.duration_since(open.since) >= SETTLED;
        let mut settled: Vec<_> = self.inodes.iter_mut().filter(|(_, o)| settled(o)).collect();
        settled.truncate(MAX_HOLDS);
        if !settled.is_empty() {
            settled.iter_mut().for_each(|(_, open)| open.held = true);
            return Some(Chore::Hold(settled.into_iter().map(|(inode, _)| *inode).collect()));
        }
        let some = self.let_go.len().min(MAX_HOLDS);
        let mut let_go: Vec<Inode> = self.let_go.drain(..some).collect();
        // Opened again meanwhile: then it stays held.
        let_go.retain(|inode| match self.inodes.get_mut(inode) {
            Some(open) => {
                open.held = true;
                false
            }
            None => true,
        });
        (!let_go.is_empty()).then_some(Chore::LetGo(let_go))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn caller(uid: u32) -> Caller {
        Caller { uid, gid: 1, groups: vec![] }
    }

    fn settle(files: &OpenFiles) {
        let long_ago = Instant::now() - SETTLED;
        files.lock().inodes.values_mut().for_each(|open| open.since = long_ago);
    }

    #[test]
    fn an_open_file_belongs_to_who_opened_it_until_it_is_released() {
        let files = OpenFiles::default();
        let (a, b) =
            (files.open(caller(1), Inode(5), false), files.open(caller(2), Inode(5), false));
        assert_ne!(a, b);
        assert_eq!(files.opener(a).unwrap().uid, 1);
        files.release(a);
        assert_eq!(files.opener(a), None);
        assert_eq!(files.opener(b).unwrap().uid, 2);
    }

    #[test]
    fn what_is_open_for_a_moment_costs_nothing() {
        let files = OpenFiles::default();
        let a = files.open(caller(1), Inode(5), false);
        assert_eq!(files.keep(), Keep::These(vec![Inode(5)]));
        assert_eq!(files.next_chore(NOW), None);
        files.release(a);
        assert_eq!((files.keep(), files.next_chore(NOW)), (Keep::These(vec![]), None));
    }

    #[test]
    fn what_stays_open_is_held_once_and_let_go_at_the_last_close() {
        let files = OpenFiles::default();
        let (a, b) =
            (files.open(caller(1), Inode(5), false), files.open(caller(2), Inode(5), false));
        settle(&files);
        assert_eq!(files.next_chore(NOW), Some(Chore::Hold(vec![Inode(5)])));
        assert_eq!(files.next_chore(NOW), None);
        files.release(a);
        assert_eq!(files.next_chore(NOW), None);
        files.release(b);
        assert_eq!(files.next_chore(NOW), Some(Chore::LetGo(vec![Inode(5)])));
        assert_eq!(files.next_chore(NOW), None);
    }

    #[test]
    fn what_is_opened_again_in_time_stays_held() {
        let files = OpenFiles::default();
        files.release(files.open(caller(1), Inode(5), true));
        let again = files.open(caller(1), Inode(5), false);
        assert_eq!(files.next_chore(NOW), None);
        assert!(files.is_held(Inode(5)));
        files.release(again);
        assert_eq!(files.next_chore(NOW), Some(Chore::LetGo(vec![Inode(5)])));
    }

    #[test]
    fn what_was_kept_for_nobody_is_let_go() {
        let files = OpenFiles::default();
        files.kept(Inode(7));
        assert_eq!(files.next_chore(NOW), Some(Chore::LetGo(vec![Inode(7)])));
        let a = files.open(caller(1), Inode(8), false);
        files.kept(Inode(8));
        files.release(a);
        assert_eq!(files.next_chore(NOW), Some(Chore::LetGo(vec![Inode(8)])));
    }

    #[test]
    fn with_very_much_open_everything_is_kept_and_sorted_out_later() {
        let files = OpenFiles::default();
        for inode in 0..=MAX_HOLDS as u64 {
            files.open(caller(1), Inode(inode), false);
        }
        assert_eq!(files.keep(), Keep::Whatever);
        settle(&files);
        let count = |chore| match chore {
            Some(Chore::Hold(inodes)) => inodes.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(count(files.next_chore(NOW)), MAX_HOLDS);
        assert_eq!(count(files.next_chore(NOW)), 1);
    }

    #[test]
    fn a_lost_lease_is_made_up_for() {
        let files = OpenFiles::default();
        files.open(caller(1), Inode(5), true);
        settle(&files);
        assert_eq!(files.next_chore(NOW), None);
        files.lost();
        assert_eq!(files.next_chore(NOW), Some(Chore::Hold(vec![Inode(5)])));
        files.end();
        assert_eq!(files.next_chore(Duration::from_secs(60)), Some(Chore::End));
    }
}
