//! Locks that hold for the whole group. The kernel keeps none of them: it asks for each, and says when a file is closed.
//!
//! Who waits for a lock has a ticket in the group's state and is asked for here, again and again, for nothing here can
//! be told by the group; within one mount an unlock is noticed at once. The mount library knows no interrupts, so
//! this also looks whether a signal has come for the process that waits.

use super::Front;
use super::answer::{empty, unfit};
use super::convert::errno;
use super::kernel::Kernel;
use super::system_call::SystemCall;
use crate::backend::Backend;
use bfs_fs::op::{
    Caller, FsError, FsOp, FsReply, FsRequest, FsResult, Inode, LockClass, LockKind, LockRequest,
};
use fuser::{Errno, FileHandle, INodeNo, LockOwner, ReplyEmpty, ReplyLock, Request};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long a ticket is left alone at first; twice as long after every look at it, up to the most.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// The last offset, and the end of every file.
const END: u64 = i64::MAX as u64;

/// The locks that were asked for here.
#[derive(Default)]
pub struct Locks {
    state: Mutex<State>,
    /// Somebody may have got what he waits for.
    news: Condvar,
}

#[derive(Default)]
struct State {
    /// Who may have locks on what. What is not in here need not be unlocked.
    asked_for: HashMap<Inode, BTreeSet<(u64, LockClass)>>,
    waiting: Vec<Waiting>,
    /// Whether a thread looks after those who wait.
    attended: bool,
}

/// A process that waits.
struct Waiting {
    caller: Caller,
    inode: Inode,
    request: LockRequest,
    /// The thread that waits, as /proc names it.
    task: u32,
    next: Instant,
    pause: Duration,
    /// What others have written is to be seen by who gets the lock.
    kernel: Kernel,
    reply: ReplyEmpty,
}

/// What became of a ticket.
enum Outcome {
    Waits,
    Ends(Result<(), Errno>),
}

/// Which of the two calls the thread `task` is in.
///
/// Where it cannot be told, flock(2) locks are taken for record locks on the whole file, and the two see each other, as on
/// NFS. [flock(2)]
fn class_of(task: u32) -> LockClass {
    match SystemCall::of(task) {
        Some(call) if call.is_flock() => LockClass::Flock,
        _ => LockClass::Record,
    }
}

/// Whether the thread `task` is gone, or has a signal that it neither blocks nor ignores nor is stopped by.
fn is_interrupted(task: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{task}/status")) {
        Ok(status) => has_signal(&status),
        Err(_) => true,
    }
}

/// As [`is_interrupted`], from a /proc/PID/status. [proc_pid_status(5)]
fn has_signal(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    let stops = stops.iter().fold(0, |mask, signal| mask | 1u64 << (signal - 1));
    let pending = mask("SigPnd:") | mask("ShdPnd:");
    pending & !mask("SigBlk:") & !mask("SigIgn:") & !stops != 0
}

fn ask(backend: &dyn Backend, caller: &Caller, op: FsOp) -> FsResult {
    let (sender, receiver) = mpsc::channel();
    let request = FsRequest { caller: caller.clone(), op };
    backend.call(request, Box::new(move |result| drop(sender.send(result))));
    receiver.recv().unwrap_or(Err(FsError::Io))
}

fn whole(owner: u64, class: LockClass) -> LockRequest {
    LockRequest { owner, pid: 0, class, kind: LockKind::Shared, start: 0, end: END }
}

impl Locks {
    fn note(&self, inode: Inode, request: &LockRequest) {
        let owner = (request.owner, request.class);
        self.lock().asked_for.entry(inode).or_default().insert(owner);
    }

    fn may_have(&self, inode: Inode, request: &LockRequest) -> bool {
        let state = self.lock();
        let owners = state.asked_for.get(&inode);
        owners.is_some_and(|owners| owners.contains(&(request.owner, request.class)))
    }

    /// Forgets those owners of `inode` that are `gone`, and names them.
    fn forget(&self, inode: Inode, gone: impl Fn(u64, LockClass) -> bool) -> Vec<LockRequest> {
        let mut state = self.lock();
        let Some(owners) = state.asked_for.get_mut(&inode) else { return Vec::new() };
        let (leave, stay) = owners.iter().partition(|(owner, class)| gone(*owner, *class));
        *owners = stay;
        if owners.is_empty() {
            state.asked_for.remove(&inode);
        }
        let leave: BTreeSet<(u64, LockClass)> = leave;
        leave.into_iter().map(|(owner, class)| whole(owner, class)).collect()
    }

    /// A process closes a file: with it go the locks that it has on the file. [fcntl(2)]
    pub(super) fn close(
        self: Arc<Self>,
        backend: Arc<dyn Backend>,
        caller: Caller,
        inode: Inode,
        owner: LockOwner,
        done: impl FnOnce(Result<(), FsError>) + Send + 'static,
    ) {
        let gone = |o: u64, class| o == owner.0 && class == LockClass::Record;
        let Some(request) = self.forget(inode, gone).pop() else { return done(Ok(())) };
        let op = FsOp::Unlock { inode, request };
        let unlocked = move |result| {
            self.kick();
            match result {
                // With the file its locks are gone.
                Ok(_) | Err(FsError::Stale) => done(Ok(())),
                Err(e) => done(Err(e)),
            }
        };
        backend.call(FsRequest { caller, op }, Box::new(unlocked));
    }

    /// Something was unlocked here: whoever waits looks again.
    fn kick(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        if !state.waiting.is_empty() {
            state.waiting.iter_mut().for_each(|waiting| waiting.next = now);
            self.news.notify_all();
        }
    }

    /// Lets `waiting` wait, on a thread that lives as long as anybody does.
    fn attend(self: &Arc<Self>, backend: &Arc<dyn Backend>, waiting: Waiting) {
        let mut state = self.lock();
        state.waiting.push(waiting);
        self.news.notify_all();
        if state.attended {
            return;
        }
        let (locks, backend) = (self.clone(), backend.clone());
        let started = thread::Builder::new()
            .name("bfs-locks".into())
            .spawn(move || locks.look_after_all(backend.as_ref()));
        match started {
            Ok(_) => state.attended = true,
            Err(error) => {
                tracing::error!("nobody can wait for a lock: {error}");
                state.waiting.drain(..).for_each(|waiting| waiting.reply.error(Errno::ENOLCK));
            }
        }
    }

    fn look_after_all(&self, backend: &dyn Backend) {
        while let Some(due) = self.next_due() {
            for mut waiting in due {
                match look_at(backend, &waiting) {
                    Outcome::Ends(Ok(())) => {
                        waiting.kernel.forget_attributes(waiting.inode);
                        waiting.reply.ok();
                    }
                    Outcome::Ends(Err(error)) => waiting.reply.error(error),
                    Outcome::Waits => {
                        waiting.pause = (waiting.pause * 2).min(LONGEST_PAUSE);
                        waiting.next = Instant::now() + waiting.pause;
                        self.lock().waiting.push(waiting);
                    }
                }
            }
        }
    }

    /// Those whose tickets are to be looked at, once it is time; nothing when nobody waits any more.
    fn next_due(&self) -> Option<Vec<Waiting>> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let Some(first) = state.waiting.iter().map(|waiting| waiting.next).min() else {
                state.attended = false;
                return None;
            };
            if first <= now {
                let (due, later) = state.waiting.drain(..).partition(|w| w.next <= now);
                state.waiting = later;
                return Some(due);
            }
            let waited = self.news.wait_timeout(state, first - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The state stays consistent at every point where a panic is possible, so poison says nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look_at(backend: &dyn Backend, waiting: &Waiting) -> Outcome {
    let Waiting { caller, inode, request, task, .. } = waiting;
    let (inode, request) = (*inode, *request);
    if is_interrupted(*task) {
        return Outcome::Ends(match ask(backend, caller, FsOp::CancelLock { inode, request }) {
            // It came at the last moment, or was lost with the lease.
            Err(FsError::NotFound) => {
                match ask(backend, caller, FsOp::Lock { inode, request, wait: false }) {
                    Ok(FsReply::Done) => Ok(()),
                    _ => Err(Errno::EINTR),
                }
            }
            _ => Err(Errno::EINTR),
        });
    }
    match ask(backend, caller, FsOp::LockStatus { inode, request }) {
        Ok(FsReply::Waiting) => return Outcome::Waits,
        Ok(_) => {}
        Err(error) => return Outcome::Ends(Err(errno(error))),
    }
    // The ticket has turned into the lock, or was lost with the lease: asking again is right in either case.
    match ask(backend, caller, FsOp::Lock { inode, request, wait: true }) {
        Ok(FsReply::Done) => Outcome::Ends(Ok(())),
        Ok(FsReply::Waiting) => Outcome::Waits,
        other => Outcome::Ends(Err(unfit(other))),
    }
}

/// What fcntl(2) or flock(2) asks for.
pub(super) struct Wanted {
    pub owner: LockOwner,
    pub start: u64,
    pub end: u64,
    /// F_RDLCK, F_WRLCK or F_UNLCK.
    pub kind: i32,
    pub pid: u32,
}

impl Wanted {
    fn request(&self, class: LockClass) -> LockRequest {
        let kind = match self.kind {
            libc::F_WRLCK => LockKind::Exclusive,
            _ => LockKind::Shared,
        };
        let Self { owner, start, end, pid, .. } = *self;
        LockRequest { owner: owner.0, pid, class, kind, start, end: end.min(END) }
    }
}

impl Front {
    /// Who opened the file may lock it, whoever they are by now.
    pub(super) fn get_lock(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        wanted: &Wanted,
        reply: ReplyLock,
    ) {
        // Only fcntl(2) asks.
        let lock = wanted.request(LockClass::Record);
        let op = FsOp::TestLock { inode: Inode(inode.0), request: lock };
        self.call_opened(request, handle, op, move |result| match result {
            Ok(FsReply::Conflict(None)) => reply.locked(0, 0, libc::F_UNLCK, 0),
            Ok(FsReply::Conflict(Some(found))) => {
                let kind = match found.kind {
                    LockKind::Shared => libc::F_RDLCK,
                    LockKind::Exclusive => libc::F_WRLCK,
                };
                reply.locked(found.start, found.end, kind, found.pid);
            }
            other => reply.error(unfit(other)),
        });
    }

    /// As `get_lock`.
    pub(super) fn set_lock(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        wanted: &Wanted,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        let (inode, task) = (Inode(inode.0), request.pid());
        let lock = wanted.request(class_of(task));
        if wanted.kind == libc::F_UNLCK {
            return self.unlock(request, inode, lock, reply);
        }
        self.locks.note(inode, &lock);
        let caller = self.opener(request, handle);
        let (locks, backend) = (self.locks.clone(), self.backend.clone());
        let kernel = self.kernel.clone();
        let op = FsOp::Lock { inode, request: lock, wait };
        self.call_opened(request, handle, op, move |result| match result {
            Ok(FsReply::Done) => {
                kernel.forget_attributes(inode);
                reply.ok();
            }
            Ok(FsReply::Refused) => {
                locks.kick();
                reply.error(Errno::EAGAIN);
            }
            Ok(FsReply::Waiting) => {
                let (pause, next) = (FIRST_PAUSE, Instant::now() + FIRST_PAUSE);
                let waiting =
                    Waiting { caller, inode, request: lock, task, next, pause, kernel, reply };
                locks.attend(&backend, waiting);
            }
            other => reply.error(unfit(other)),
        });
    }

    fn unlock(&self, request: &Request, inode: Inode, lock: LockRequest, reply: ReplyEmpty) {
        if !self.locks.may_have(inode, &lock) {
            return reply.ok();
        }
        let locks = self.locks.clone();
        self.call(request, FsOp::Unlock { inode, request: lock }, move |result| {
            locks.kick();
            empty(result, reply);
        });
    }

    /// An open file is gone: with it goes its flock(2), and with the last one of the inode all that is left.
    pub(super) fn unlock_on_release(
        &self,
        request: &Request,
        inode: Inode,
        owner: Option<LockOwner>,
        is_last: bool,
    ) {
        let gone = |o: u64, _| is_last || owner.is_some_and(|owner| o == owner.0);
        for lock in self.locks.forget(inode, gone) {
            let locks = self.locks.clone();
            self.call(request, FsOp::Unlock { inode, request: lock }, move |_| locks.kick());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_counts_unless_it_is_blocked_ignored_or_a_stop() {
        let status = |pending: u64, shared: u64, blocked: u64, ignored: u64| {
            format!(
                "Name:\tx\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
            )
        };
        let bit = |signal: i32| 1u64 << (signal - 1);
        let (kill, int, tstp) = (bit(libc::SIGKILL), bit(libc::SIGINT), bit(libc::SIGTSTP));
        assert!(has_signal(&status(kill, 0, 0, 0)));
        assert!(has_signal(&status(0, int, 0, 0)));
        assert!(!has_signal(&status(0, int, int, 0)));
        assert!(!has_signal(&status(int, 0, 0, int)));
        assert!(!has_signal(&status(0, tstp, 0, 0)));
        assert!(!has_signal(&status(0, 0, 0, 0)));
        assert!(is_interrupted(0), "there is no such process");
        assert!(!is_interrupted(std::process::id()));
    }

    #[test]
    fn only_what_was_asked_for_is_unlocked() {
        let locks = Locks::default();
        let (a, b) = (whole(1, LockClass::Record), whole(1, LockClass::Flock));
        locks.note(Inode(5), &a);
        locks.note(Inode(5), &b);
        assert!(locks.may_have(Inode(5), &a) && !locks.may_have(Inode(6), &a));
        assert_eq!(locks.forget(Inode(6), |_, _| true), []);
        assert_eq!(locks.forget(Inode(5), |_, class| class == LockClass::Record), [a]);
        assert!(!locks.may_have(Inode(5), &a) && locks.may_have(Inode(5), &b));
        assert_eq!(locks.forget(Inode(5), |_, _| true), [b]);
        assert!(locks.lock().asked_for.is_empty());
    }
}
