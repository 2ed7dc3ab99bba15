//! The files that are open here, on whose behalf, and which of them the group holds for this mount.
//!
//! A file that loses its last name must live on for whoever has it open. Opening and closing stay free of operations:
//! who removes a name says in that operation what is open here, and what is open for longer than [`SETTLED`] is held in
//! advance, many files in one operation, in case that another client removes it. So a file that another client removes
//! within a second of its being opened here is stale, as on NFS; under `strict` it is held before open(2) returns.
//!
//! What is on its way to the group and may take a file away was sent without knowing of an open that comes now: the open
//! counts from the start, so that what is sent later knows of it, and waits for what was sent before.

use bfs_fs::op::{Caller, Inode, Keep, MAX_HOLDS};
use fuser::FileHandle;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a file is open before the group is told.
pub const SETTLED: Duration = Duration::from_secs(1);
/// For how long a file that nobody has open is still held, for those who have found it by its name and come to open it.
pub const LINGER: Duration = Duration::from_millis(100);

/// Who opened each open file: reads, writes and truncations through it are theirs, whoever performs them. The group still
/// checks the permission at each.
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
    /// The last handle, or operation under way.
    last: u64,
    handles: HashMap<u64, Handle>,
    inodes: HashMap<Inode, OpenInode>,
    /// What the group may hold and nobody here has open any more.
    let_go: Vec<LetGo>,
    /// Operations on their way that may take files from this mount.
    under_way: HashMap<u64, UnderWay>,
    opening: Vec<Opening>,
    /// When the last operation was over that takes names away.
    removed: Option<Instant>,
    ended: bool,
}

struct Handle {
    caller: Caller,
    inode: Inode,
}

struct OpenInode {
    count: usize,
    since: Instant,
    held: Held,
}

/// Whether the group holds a file for this mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    No,
    /// It was asked to, and has not said so.
    Unsure,
    /// It is being asked to.
    Asked,
    Yes,
}

/// A file that is to be let go.
#[derive(Clone, Copy)]
struct LetGo {
    inode: Inode,
    from: Instant,
    held: Held,
}

/// An operation on its way that takes files away.
enum UnderWay {
    /// Whichever has one of the names that it takes, but for those it keeps. `let_go` are under way at the same time: which comes
    /// first is not known.
    Removal {
        keep: Keep,
        let_go: Vec<Inode>,
    },
    LetGo(Vec<Inode>),
}

impl UnderWay {
    fn takes(&self, inode: Inode) -> bool {
        match self {
            Self::Removal { keep: Keep::Whatever, .. } => false,
            Self::Removal { keep: Keep::These(kept), .. } => !kept.contains(&inode),
            Self::LetGo(gone) => gone.contains(&inode),
        }
    }
}

/// An open that waits.
struct Opening {
    /// For the operations up to this one.
    last: u64,
    inode: Inode,
    then: Box<dyn FnOnce() + Send>,
}

/// A removal on its way. Dropping it says that the group has answered.
pub struct Removal {
    files: Arc<OpenFiles>,
    number: u64,
}

impl Removal {
    /// The group keeps `inode`, which has lost its last name, for this mount.
    pub fn keeps(&self, inode: Inode) {
        self.files.kept(self.number, inode);
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.files.ended(self.number);
    }
}

/// What is to be told to the group. [`OpenFiles::told`] follows.
#[derive(Debug, PartialEq, Eq)]
pub enum Chore {
    /// These are open, and have been for a while.
    Hold(Vec<Inode>),
    /// Nobody here has these open; under this number no open of theirs is let through.
    LetGo(u64, Vec<Inode>),
    /// The mount ends.
    End,
}

impl OpenFiles {
    /// A new handle for `inode`, which `caller` opens: from here on nothing that this mount sends takes the file away.
    pub fn open(&self, caller: Caller, inode: Inode) -> FileHandle {
        let mut state = self.lock();
        state.last += 1;
        let handle = state.last;
        state.handles.insert(handle, Handle { caller, inode });
        // What was to be let go stays held.
        let gone = state.let_go.iter().position(|gone| gone.inode == inode);
        let held = gone.map_or(Held::No, |at| state.let_go.swap_remove(at).held);
        let since = Instant::now();
        let open = state.inodes.entry(inode).or_insert(OpenInode { count: 0, since, held });
        open.count += 1;
        FileHandle(handle)
    }

    /// Runs `then` once nothing is on its way that was sent before `handle` was there and may take `inode`; it learns whether
    /// there was, so that the group has to be asked whether the file is.
    pub fn once_certain(
        &self,
        inode: Inode,
        handle: FileHandle,
        then: impl FnOnce(bool) + Send + 'static,
    ) {
        let mut state = self.lock();
        if state.is_taken(inode, handle.0) {
            let then = Box::new(move || then(true));
            return state.opening.push(Opening { last: handle.0, inode, then });
        }
        let unsure = state.inodes.get(&inode).is_some_and(|open| open.held == Held::Unsure);
        drop(state);
        then(unsure);
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
        if held > Held::No {
            let held = if held == Held::Yes { Held::Yes } else { Held::Unsure };
            state.let_go.push(LetGo { inode, from: Instant::now() + LINGER, held });
            self.news.notify_all();
        }
        true
    }

    /// Whether the group holds `inode` for this mount.
    pub fn is_held(&self, inode: Inode) -> bool {
        self.lock().inodes.get(&inode).is_some_and(|open| open.held == Held::Yes)
    }

    /// The group is asked to hold `inode`, which is open; [`OpenFiles::asked`] follows.
    pub fn ask(&self, inode: Inode) {
        self.lock().hold(inode, Held::Asked);
    }

    /// The group holds `inode`, or it is not known whether it does.
    pub fn asked(&self, inode: Inode, done: bool) {
        self.lock().asked(inode, done);
    }

    /// An operation that takes a name away for good, and what it has to keep.
    pub fn remove(self: &Arc<Self>) -> (Keep, Removal) {
        let state = self.lock();
        let keep = match state.inodes.len() {
            0..=MAX_HOLDS => Keep::These(state.inodes.keys().copied().collect()),
            _ => Keep::Whatever,
        };
        (keep.clone(), self.begin_removal(state, keep))
    }

    /// Whether a name has been taken away here since `then`.
    pub fn has_removed_since(&self, then: Instant) -> bool {
        self.lock().removed.is_some_and(|removed| removed >= then)
    }

    /// An operation that gives a name to another file and keeps whatever had it.
    pub fn replace(self: &Arc<Self>) -> Removal {
        self.begin_removal(self.lock(), Keep::Whatever)
    }

    fn begin_removal(self: &Arc<Self>, mut state: MutexGuard<'_, State>, keep: Keep) -> Removal {
        let let_go = state.under_way.values().flat_map(|operation| match operation {
            UnderWay::LetGo(inodes) => inodes.as_slice(),
            UnderWay::Removal { .. } => &[],
        });
        let let_go = let_go.copied().collect();
        let number = state.begin(UnderWay::Removal { keep, let_go });
        Removal { files: self.clone(), number }
    }

    fn kept(&self, number: u64, inode: Inode) {
        let mut state = self.lock();
        if state.inodes.contains_key(&inode) {
            return state.hold(inode, Held::Yes);
        }
        // It was closed meanwhile, or is about to be opened by who has found it already.
        let raced = match state.under_way.get(&number) {
            Some(UnderWay::Removal { let_go, .. }) => let_go.contains(&inode),
            _ => false,
        };
        let held = if raced { Held::Unsure } else { Held::Yes };
        state.let_go.push(LetGo { inode, from: Instant::now() + LINGER, held });
        self.news.notify_all();
    }

    /// The group may hold nothing any more of what it held for this mount. What it holds since is let go as ever.
    pub fn lost(&self) {
        let mut state = self.lock();
        state.let_go.iter_mut().for_each(|gone| gone.held = Held::Unsure);
        state.inodes.values_mut().for_each(|open| open.held = Held::No);
    }

    /// Waits for something to tell the group, at most until `limit`.
    pub fn next_chore(&self, limit: Duration) -> Option<Chore> {
        let mut state = self.lock();
        if let Some(chore) = state.next_chore(Instant::now()) {
            return Some(chore);
        }
        let limit = state.quiet().map_or(limit, |left| left.min(limit));
        let waited = self.news.wait_timeout(state, limit);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.next_chore(Instant::now())
    }

    /// The group has done `chore`, or has not: then it is for later.
    pub fn told(&self, chore: Chore, done: bool) {
        match chore {
            Chore::End => {}
            Chore::Hold(inodes) => {
                let mut state = self.lock();
                inodes.into_iter().for_each(|inode| state.asked(inode, done));
            }
            Chore::LetGo(number, inodes) => {
                if !done {
                    self.lock().let_go_again(inodes);
                }
                self.ended(number);
            }
        }
    }

    /// The operation called `number` is over.
    fn ended(&self, number: u64) {
        let mut state = self.lock();
        if let Some(UnderWay::Removal { .. }) = state.under_way.remove(&number) {
            state.removed = Some(Instant::now());
        }
        let waiting = std::mem::take(&mut state.opening);
        let (stay, ready): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|open| state.is_taken(open.inode, open.last));
        state.opening = stay;
        drop(state);
        ready.into_iter().for_each(|open| (open.then)());
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
    fn begin(&mut self, operation: UnderWay) -> u64 {
        self.last += 1;
        self.under_way.insert(self.last, operation);
        self.last
    }

    /// Whether an operation up to the one called `last` may take `inode`.
    fn is_taken(&self, inode: Inode, last: u64) -> bool {
        self.under_way.iter().any(|(number, operation)| *number <= last && operation.takes(inode))
    }

    fn hold(&mut self, inode: Inode, held: Held) {
        if let Some(open) = self.inodes.get_mut(&inode) {
            open.held = open.held.max(held);
        }
    }

    fn asked(&mut self, inode: Inode, done: bool) {
        let Some(open) = self.inodes.get_mut(&inode) else { return };
        if done {
            open.held = Held::Yes;
        } else if open.held == Held::Asked {
            (open.held, open.since) = (Held::Unsure, Instant::now());
        }
    }

    /// The group has not answered: whether these are held is not known.
    fn let_go_again(&mut self, inodes: Vec<Inode>) {
        let (held, from) = (Held::Unsure, Instant::now() + SETTLED);
        for inode in inodes {
            match self.inodes.get_mut(&inode) {
                Some(open) => open.held = open.held.max(held),
                None => self.let_go.push(LetGo { inode, from, held }),
            }
        }
    }

    /// How long until something has settled, or is to be let go.
    fn quiet(&self) -> Option<Duration> {
        let settle =
            self.inodes.values().filter(|o| o.held < Held::Asked).map(|o| o.since + SETTLED);
        let next = settle.chain(self.let_go.iter().map(|gone| gone.from)).min();
        next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    fn next_chore(&mut self, now: Instant) -> Option<Chore> {
        if self.ended {
            return Some(Chore::End);
        }
        let settled =
            |open: &OpenInode| open.held < Held::Asked && now.duration_since(open.since) >= SETTLED;
        let mut settled: Vec<_> = self.inodes.iter_mut().filter(|(_, o)| settled(o)).collect();
        settled.truncate(MAX_HOLDS);
        if !settled.is_empty() {
            settled.iter_mut().for_each(|(_, open)| open.held = Held::Asked);
            return Some(Chore::Hold(settled.into_iter().map(|(inode, _)| *inode).collect()));
        }
        let mut due = Vec::new();
        self.let_go.retain(|gone| {
            let is_due = gone.from <= now && due.len() < MAX_HOLDS;
            if is_due {
                due.push(gone.inode);
            }
            !is_due
        });
        if due.is_empty() {
            return None;
        }
        for operation in self.under_way.values_mut() {
            if let UnderWay::Removal { let_go, .. } = operation {
                let_go.extend(&due);
            }
        }
        Some(Chore::LetGo(self.begin(UnderWay::LetGo(due.clone())), due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const NOW: Duration = Duration::ZERO;

    fn caller(uid: u32) -> Caller {
        Caller { uid, gid: 1, groups: vec![] }
    }

    fn keep(files: &Arc<OpenFiles>) -> Keep {
        files.remove().0
    }

    /// What the group is asked to hold, and does.
    fn held(files: &OpenFiles) -> Vec<Inode> {
        let Some(Chore::Hold(inodes)) = files.next_chore(NOW) else { return vec![] };
        files.told(Chore::Hold(inodes.clone()), true);
        inodes
    }

    /// What the group is told to let go, and does if `done`.
    fn let_go(files: &OpenFiles, done: bool) -> Vec<Inode> {
        let Some(Chore::LetGo(number, inodes)) = files.next_chore(NOW) else { return vec![] };
        files.told(Chore::LetGo(number, inodes.clone()), done);
        inodes
    }

    /// All that waits has waited for long enough.
    fn settle(files: &OpenFiles) {
        let long_ago = Instant::now() - SETTLED;
        let mut state = files.lock();
        state.inodes.values_mut().for_each(|open| open.since = long_ago);
        state.let_go.iter_mut().for_each(|gone| gone.from = long_ago);
    }

    #[test]
    fn an_open_file_belongs_to_who_opened_it_until_it_is_released() {
        let files = OpenFiles::default();
        let (a, b) = (files.open(caller(1), Inode(5)), files.open(caller(2), Inode(5)));
        assert_ne!(a, b);
        assert_eq!(files.opener(a).unwrap().uid, 1);
        files.release(a);
        assert_eq!(files.opener(a), None);
        assert_eq!(files.opener(b).unwrap().uid, 2);
    }

    #[test]
    fn what_is_open_for_a_moment_costs_nothing() {
        let files = Arc::<OpenFiles>::default();
        let a = files.open(caller(1), Inode(5));
        assert_eq!(keep(&files), Keep::These(vec![Inode(5)]));
        assert_eq!(files.next_chore(NOW), None);
        files.release(a);
        assert_eq!((keep(&files), files.next_chore(NOW)), (Keep::These(vec![]), None));
    }

    #[test]
    fn what_stays_open_is_held_once_and_let_go_at_the_last_close() {
        let files = OpenFiles::default();
        let (a, b) = (files.open(caller(1), Inode(5)), files.open(caller(2), Inode(5)));
        settle(&files);
        assert_eq!(held(&files), [Inode(5)]);
        assert_eq!(files.next_chore(NOW), None);
        files.release(a);
        assert_eq!(files.next_chore(NOW), None);
        files.release(b);
        settle(&files);
        assert_eq!(let_go(&files, true), [Inode(5)]);
        assert_eq!(files.next_chore(NOW), None);
    }

    #[test]
    fn what_is_opened_again_in_time_stays_held() {
        let files = OpenFiles::default();
        let first = files.open(caller(1), Inode(5));
        files.asked(Inode(5), true);
        files.release(first);
        let again = files.open(caller(1), Inode(5));
        assert_eq!(files.next_chore(NOW), None);
        assert!(files.is_held(Inode(5)));
        files.release(again);
        settle(&files);
        assert_eq!(let_go(&files, true), [Inode(5)]);
    }

    #[test]
    fn what_the_group_did_not_answer_is_asked_again_and_let_go_again() {
        let files = OpenFiles::default();
        let a = files.open(caller(1), Inode(5));
        settle(&files);
        let Some(hold) = files.next_chore(NOW) else { panic!("nothing is asked") };
        files.told(hold, false);
        assert!(files.next_chore(NOW).is_none() && !files.is_held(Inode(5)));
        settle(&files);
        assert_eq!(held(&files), [Inode(5)]);
        files.release(a);
        settle(&files);
        assert_eq!(let_go(&files, false), [Inode(5)]);
        assert_eq!(files.next_chore(NOW), None);
        settle(&files);
        assert_eq!(let_go(&files, false), [Inode(5)]);
        // Nobody knows whether it is held still.
        files.open(caller(1), Inode(5));
        assert!(files.next_chore(NOW).is_none() && !files.is_held(Inode(5)));
        settle(&files);
        assert_eq!(held(&files), [Inode(5)]);
    }

    #[test]
    fn what_was_kept_for_nobody_is_let_go_after_a_while() {
        let files = Arc::<OpenFiles>::default();
        files.replace().keeps(Inode(7));
        assert_eq!(files.next_chore(NOW), None);
        settle(&files);
        assert_eq!(let_go(&files, true), [Inode(7)]);
        let a = files.open(caller(1), Inode(8));
        files.replace().keeps(Inode(8));
        files.release(a);
        settle(&files);
        assert_eq!(let_go(&files, true), [Inode(8)]);
    }

    #[test]
    fn what_was_replaced_may_still_be_opened_by_who_has_found_it() {
        let files = Arc::<OpenFiles>::default();
        files.replace().keeps(Inode(7));
        files.open(caller(1), Inode(7));
        settle(&files);
        assert_eq!(files.next_chore(NOW), None);
        assert!(files.is_held(Inode(7)));
    }

    #[test]
    fn an_open_waits_for_what_may_take_the_file_and_was_sent_before() {
        let files = Arc::<OpenFiles>::default();
        let kept = files.open(caller(1), Inode(5));
        let (_, first) = files.remove();
        let late = files.open(caller(1), Inode(6));
        let (keep, second) = files.remove();
        assert!(matches!(keep, Keep::These(inodes) if inodes.contains(&Inode(6))));
        let (sender, told) = mpsc::channel();
        for (inode, handle) in [(Inode(5), kept), (Inode(6), late)] {
            let sender = sender.clone();
            files.once_certain(inode, handle, move |unsure| sender.send((inode, unsure)).unwrap());
        }
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [(Inode(5), false)]);
        drop(second);
        assert_eq!(told.try_iter().count(), 0);
        drop(first);
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [(Inode(6), true)]);
    }

    #[test]
    fn an_open_waits_until_the_file_has_been_let_go() {
        let files = Arc::<OpenFiles>::default();
        files.replace().keeps(Inode(5));
        settle(&files);
        let Some(chore) = files.next_chore(NOW) else { panic!("nothing is let go") };
        let handle = files.open(caller(1), Inode(5));
        let (sender, told) = mpsc::channel();
        files.once_certain(Inode(5), handle, move |unsure| sender.send(unsure).unwrap());
        assert_eq!(told.try_iter().count(), 0);
        files.told(chore, true);
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [true]);
    }

    #[test]
    fn what_was_replaced_while_it_was_let_go_may_be_gone() {
        let files = Arc::<OpenFiles>::default();
        files.replace().keeps(Inode(5));
        settle(&files);
        let replacing = files.replace();
        let Some(chore) = files.next_chore(NOW) else { panic!("nothing is let go") };
        files.told(chore, true);
        replacing.keeps(Inode(5));
        let handle = files.open(caller(1), Inode(5));
        let (sender, told) = mpsc::channel();
        files.once_certain(Inode(5), handle, move |unsure| sender.send(unsure).unwrap());
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [true]);
    }

    #[test]
    fn with_very_much_open_everything_is_kept_and_sorted_out_later() {
        let files = Arc::<OpenFiles>::default();
        for inode in 0..=MAX_HOLDS as u64 {
            files.open(caller(1), Inode(inode));
        }
        assert_eq!(keep(&files), Keep::Whatever);
        settle(&files);
        assert_eq!(held(&files).len(), MAX_HOLDS);
        assert_eq!(held(&files).len(), 1);
    }

    #[test]
    fn what_a_lost_lease_may_have_held_is_let_go_and_not_relied_on() {
        let files = Arc::<OpenFiles>::default();
        files.replace().keeps(Inode(7));
        files.replace().keeps(Inode(8));
        files.lost();
        let handle = files.open(caller(1), Inode(8));
        let told = Arc::new(Mutex::new(None));
        let asks = told.clone();
        files.once_certain(Inode(8), handle, move |unsure| *asks.lock().unwrap() = Some(unsure));
        assert_eq!(*told.lock().unwrap(), Some(true), "the group is asked whether it is there");
        settle(&files);
        assert_eq!(held(&files), [Inode(8)]);
        assert_eq!(let_go(&files, true), [Inode(7)]);
    }

    #[test]
    fn a_lost_lease_is_made_up_for() {
        let files = OpenFiles::default();
        files.open(caller(1), Inode(5));
        files.asked(Inode(5), true);
        settle(&files);
        assert_eq!(files.next_chore(NOW), None);
        files.lost();
        assert_eq!(held(&files), [Inode(5)]);
        files.end();
        assert_eq!(files.next_chore(Duration::from_secs(60)), Some(Chore::End));
    }
}
