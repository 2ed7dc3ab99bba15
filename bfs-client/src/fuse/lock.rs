//! Locks that hold for the whole group. The kernel keeps none of them: it asks for each, and says when a file is closed.
//!
//! Who waits for a lock has a ticket in the group's state and is asked for here, again and again, for nothing here can
//! be told by the group; within one mount an unlock is noticed at once. The mount library knows no interrupts, so
//! this also looks whether a signal has come for the process that waits.

use super::Front;
use super::answer::{empty, unfit};
use super::convert::errno;
use super::kernel::Kernel;
use super::system_call::{SystemCall, is_running};
use crate::backend::Backend;
use bfs_fs::op::{
    Caller, FsError, FsOp, FsReply, FsRequest, FsResult, Inode, LockClass, LockKind, LockRequest,
};
use fuser::{Errno, FileHandle, INodeNo, LockOwner, ReplyEmpty, ReplyLock, Request};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long a ticket is left alone at first; twice as long after every look at it, up to the most.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// A thread whose request has arrived here may take a moment to fall asleep, and only then /proc says where it is.
const ASLEEP: Duration = Duration::from_millis(5);
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
    /// Who may have locks on what, and through which open file. What is not in here need not be unlocked.
    asked_for: HashMap<Inode, BTreeMap<Owner, FileHandle>>,
    /// What is to be unlocked, and the group has not answered: its owner is gone.
    owed: Vec<Owed>,
    waiting: Vec<Waiting>,
    /// Whether a thread looks after those who wait.
    attended: bool,
}

/// Whom the kernel names as the owner of a lock: another for every process, or, of flock(2) and of open file description locks,
/// for every open file.
type Owner = (u64, LockClass);

#[derive(Clone)]
struct Owed {
    caller: Caller,
    inode: Inode,
    request: LockRequest,
}

/// A process that waits.
struct Waiting {
    caller: Caller,
    inode: Inode,
    handle: FileHandle,
    request: LockRequest,
    /// The thread that waits, as /proc names it.
    task: u32,
    /// Signals that were pending for its whole process when this last looked.
    shared: u64,
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
    let begun = Instant::now();
    loop {
        match SystemCall::of(task) {
            Some(call) if call.is_flock() => return LockClass::Flock,
            None if begun.elapsed() < ASLEEP && is_running(task) => thread::yield_now(),
            _ => return LockClass::Record,
        }
    }
}

/// Whether the thread `task` is gone, or has a signal that it neither blocks nor ignores nor is stopped by. `shared` is kept from
/// one look to the next. Of a thread in a namespace of pids that this process does not see, which is called 0, nobody knows.
fn is_interrupted(task: u32, shared: &mut u64) -> bool {
    if task == 0 {
        return false;
    }
    match std::fs::read_to_string(format!("/proc/{task}/status")) {
        Ok(status) => has_signal(&status, shared),
        Err(_) => true,
    }
}

/// As [`is_interrupted`], from a /proc/PID/status. [proc_pid_status(5)]
///
/// A signal for the whole process is taken by one of its threads, by the first if that does not block it, and by another at
/// once: for a thread that waits here it is if it is still there at the next look. A thread that was told of one that is not
/// its own would see the kernel's ERESTARTSYS. [complete_signal in Linux's kernel/signal.c]
fn has_signal(status: &str, shared: &mut u64) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mask = |name| field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    let stops = stops.iter().fold(0, |mask, signal| mask | 1u64 << (signal - 1));
    let counts = !mask("SigBlk:") & !mask("SigIgn:") & !stops;
    let of_process = mask("ShdPnd:") & counts;
    let before = std::mem::replace(shared, of_process);
    let is_first = field("Pid:") == field("Tgid:");
    let of_thread = if is_first { of_process } else { of_process & before };
    mask("SigPnd:") & counts | of_thread != 0
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
    /// Whoever asks through `handle` may have a lock from here on; also when it is granted, since a close that came meanwhile
    /// has forgotten who waited.
    fn note(&self, inode: Inode, handle: FileHandle, request: &LockRequest) {
        let owner = (request.owner, request.class);
        let mut state = self.lock();
        // The kernel names another one alike: what the last one left behind is granted to this one.
        state.owed.retain(|owed| {
            (owed.inode, owed.request.owner, owed.request.class) != (inode, owner.0, owner.1)
        });
        state.asked_for.entry(inode).or_default().insert(owner, handle);
    }

    /// Of which class are the locks that `owner` may have on `inode`.
    fn classes(&self, inode: Inode, owner: u64) -> Vec<LockClass> {
        let state = self.lock();
        let owners = state.asked_for.get(&inode).into_iter().flat_map(|owners| owners.keys());
        owners.filter(|(o, _)| *o == owner).map(|(_, class)| *class).collect()
    }

    /// Forgets those owners of `inode` that are `gone`, and names them.
    fn forget(&self, inode: Inode, gone: impl Fn(&Owner, FileHandle) -> bool) -> Vec<LockRequest> {
        let mut state = self.lock();
        let Some(owners) = state.asked_for.get_mut(&inode) else { return Vec::new() };
        let mut leave = Vec::new();
        owners.retain(|owner, handle| {
            let leaves = gone(owner, *handle);
            if leaves {
                leave.push(whole(owner.0, owner.1));
            }
            !leaves
        });
        if owners.is_empty() {
            state.asked_for.remove(&inode);
        }
        leave
    }

    /// Unlocks for an owner that is gone. What the group does not answer is tried again until it does.
    fn unlock_for(
        self: &Arc<Self>,
        backend: &dyn Backend,
        gone: Owed,
        done: impl FnOnce(Result<(), FsError>) + Send + 'static,
    ) {
        let locks = self.clone();
        let op = FsOp::Unlock { inode: gone.inode, request: gone.request };
        let request = FsRequest { caller: gone.caller.clone(), op };
        let unlocked = move |result| {
            locks.kick();
            match result {
                // With the file its locks are gone.
                Ok(_) | Err(FsError::Stale) => done(Ok(())),
                Err(e) => {
                    locks.lock().owed.push(gone);
                    done(Err(e));
                }
            }
        };
        backend.call(request, Box::new(unlocked));
    }

    /// Tries once more to unlock what is owed, one after the other until one fails.
    pub(super) fn unlock_owed(&self, backend: &dyn Backend) {
        loop {
            let Some(owed) = self.lock().owed.pop() else { return };
            let op = FsOp::Unlock { inode: owed.inode, request: owed.request };
            match ask(backend, &owed.caller, op) {
                Ok(_) | Err(FsError::Stale) => self.kick(),
                Err(_) => return self.lock().owed.push(owed),
            }
        }
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
        let gone = |o: &Owner, _| *o == (owner.0, LockClass::Record);
        let Some(request) = self.forget(inode, gone).pop() else { return done(Ok(())) };
        self.unlock_for(&*backend, Owed { caller, inode, request }, done);
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
                match look_at(backend, &mut waiting) {
                    Outcome::Ends(result) => {
                        // Where it failed, the group may have granted it all the same.
                        self.note(waiting.inode, waiting.handle, &waiting.request);
                        match result {
                            Ok(()) => {
                                waiting.kernel.forget_attributes(waiting.inode);
                                waiting.reply.ok();
                            }
                            Err(error) => waiting.reply.error(error),
                        }
                    }
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

fn look_at(backend: &dyn Backend, waiting: &mut Waiting) -> Outcome {
    let Waiting { caller, inode, request, task, shared, .. } = waiting;
    let (inode, request) = (*inode, *request);
    if is_interrupted(*task, shared) {
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
        if wanted.kind == libc::F_UNLCK {
            return self.unlock(request, inode, wanted, reply);
        }
        let lock = wanted.request(class_of(task));
        self.locks.note(inode, handle, &lock);
        let caller = self.opener(request, handle);
        let (locks, backend) = (self.locks.clone(), self.backend.clone());
        let kernel = self.kernel.clone();
        let op = FsOp::Lock { inode, request: lock, wait };
        self.call_opened(request, handle, op, move |result| match result {
            Ok(FsReply::Done) => {
                locks.note(inode, handle, &lock);
                kernel.forget_attributes(inode);
                reply.ok();
            }
            Ok(FsReply::Refused) => {
                locks.kick();
                reply.error(Errno::EAGAIN);
            }
            Ok(FsReply::Waiting) => {
                let (pause, next) = (FIRST_PAUSE, Instant::now() + FIRST_PAUSE);
                locks.attend(
                    &backend,
                    Waiting {
                        caller,
                        inode,
                        handle,
                        request: lock,
                        task,
                        shared: 0,
                        next,
                        pause,
                        kernel,
                        reply,
                    },
                );
            }
            other => reply.error(unfit(other)),
        });
    }

    fn unlock(&self, request: &Request, inode: Inode, wanted: &Wanted, reply: ReplyEmpty) {
        // An owner has locks of one class, known since the lock was asked for.
        let Some(class) = self.locks.classes(inode, wanted.owner.0).pop() else {
            return reply.ok();
        };
        let locks = self.locks.clone();
        let op = FsOp::Unlock { inode, request: wanted.request(class) };
        self.call(request, op, move |result| {
            locks.kick();
            empty(result, reply);
        });
    }

    /// An open file is gone: with it go the locks that are its own, and with the last one of the inode all that are left. The
    /// kernel says so of no open file description lock. [F_OFD_SETLK in fcntl(2)]
    pub(super) fn unlock_on_release(
        &self,
        request: &Request,
        inode: Inode,
        handle: FileHandle,
        is_last: bool,
    ) {
        for lock in self.locks.forget(inode, |_, through| is_last || through == handle) {
            let caller = self.callers.of(request);
            self.locks.unlock_for(&*self.backend, Owed { caller, inode, request: lock }, |_| {});
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
                "Name:\tx\nTgid:\t7\nPid:\t7\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
            )
        };
        let has_signal = |status: String| has_signal(&status, &mut 0);
        let bit = |signal: i32| 1u64 << (signal - 1);
        let (kill, int, tstp) = (bit(libc::SIGKILL), bit(libc::SIGINT), bit(libc::SIGTSTP));
        assert!(has_signal(status(kill, 0, 0, 0)));
        assert!(has_signal(status(0, int, 0, 0)));
        assert!(!has_signal(status(0, int, int, 0)));
        assert!(!has_signal(status(int, 0, 0, int)));
        assert!(!has_signal(status(0, tstp, 0, 0)));
        assert!(!has_signal(status(0, 0, 0, 0)));
        assert!(is_interrupted(i32::MAX as u32, &mut 0), "there is no such process");
        assert!(!is_interrupted(0, &mut 0), "of another namespace");
        assert!(!is_interrupted(std::process::id(), &mut 0));
    }

    #[test]
    fn a_signal_for_the_process_is_for_a_later_thread_only_if_nobody_takes_it() {
        let status = |shared: u64| {
            format!("Tgid:\t7\nPid:\t8\nSigPnd:\t0\nShdPnd:\t{shared:x}\nSigBlk:\t0\nSigIgn:\t0\n")
        };
        let mut shared = 0;
        assert!(!has_signal(&status(0x2000), &mut shared));
        assert!(!has_signal(&status(0), &mut shared), "the first thread has taken it");
        assert!(!has_signal(&status(0x2000), &mut shared));
        assert!(has_signal(&status(0x2000), &mut shared), "nobody takes it");
    }

    /// A group that does not answer the first time.
    #[derive(Default)]
    struct Forgetful(Mutex<Vec<FsOp>>);

    impl Backend for Forgetful {
        fn call(&self, request: FsRequest, done: Box<dyn FnOnce(FsResult) + Send>) {
            let mut asked = self.0.lock().unwrap();
            asked.push(request.op);
            let result = if asked.len() == 1 { Err(FsError::Io) } else { Ok(FsReply::Done) };
            drop(asked);
            done(result);
        }

        fn fail_all(&self) {}
    }

    #[test]
    fn what_the_group_did_not_unlock_is_unlocked_later() {
        let (locks, group) = (Arc::new(Locks::default()), Arc::new(Forgetful::default()));
        let (inode, lock) = (Inode(5), whole(1, LockClass::Record));
        let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
        locks.note(inode, FileHandle(3), &lock);
        let (sender, told) = mpsc::channel();
        let done = move |result| sender.send(result).unwrap();
        locks.clone().close(group.clone(), caller, inode, LockOwner(1), done);
        assert_eq!(told.recv().unwrap(), Err(FsError::Io));
        locks.unlock_owed(&*group);
        locks.unlock_owed(&*group);
        let unlock = FsOp::Unlock { inode, request: lock };
        assert_eq!(*group.0.lock().unwrap(), [unlock.clone(), unlock]);
    }

    #[test]
    fn only_what_was_asked_for_is_unlocked() {
        let locks = Locks::default();
        let (a, b) = (whole(1, LockClass::Record), whole(2, LockClass::Flock));
        locks.note(Inode(5), FileHandle(3), &a);
        locks.note(Inode(5), FileHandle(4), &b);
        assert_eq!(locks.classes(Inode(5), 1), [LockClass::Record]);
        assert_eq!(locks.classes(Inode(6), 1), []);
        assert_eq!(locks.forget(Inode(6), |_, _| true), []);
        assert_eq!(locks.forget(Inode(5), |_, through| through == FileHandle(3)), [a]);
        assert_eq!(locks.classes(Inode(5), 1), []);
        assert_eq!(locks.forget(Inode(5), |_, _| true), [b]);
        assert!(locks.lock().asked_for.is_empty());
    }
}
