//! Writes that are answered before the group has them: gathered file by file, sent in large runs, waited for wherever
//! somebody could tell the difference.
//!
//! ```text
//! write(2) ──> runs       a few stretches of one file, at most 1 MiB (runs.rs)
//!                │        full, too old, too many, or somebody settles the file
//!                v
//!              sent       on their way, in any order: never two of them on the same bytes
//!                │
//!                v
//!              settled    the group has answered; what failed is told by the next write, fsync or close of every handle
//! ```
//!
//! Writes that find no room wait for it, and so do those that ask for a file to be settled, each file's in turn.
//!
//! Of a file that was created here a moment ago all is known without the group: it was empty, and what is in it since is
//! here. Linkers, archivers and assemblers read what they have just written, piece by piece.

mod runs;

use self::runs::{GATHERED_MAX, Runs, Stretch};
use super::kernel::Kernel;
use crate::backend::Backend;
use bfs_fs::op::{Attributes, Caller, FsError, FsOp, FsReply, FsRequest, FsResult, Inode};
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// While so many runs of one file are on their way, what is gathered waits.
const SENT_MAX: usize = 4;
/// What is gathered and on its way, of all files. Units: bytes.
const BUDGET: usize = 32 << 20;
/// How long bytes are kept here at most while nobody asks for them.
const AGE: Duration = Duration::from_millis(500);
/// How long the end of a mount waits for writes.
const END_LIMIT: Duration = Duration::from_secs(5);

/// What happens once a file is settled.
type Then = Box<dyn FnOnce() + Send>;
/// What ends a write.
type Done = Box<dyn FnOnce(Result<(), FsError>) + Send>;

/// The writes of one mount that the group does not have yet.
pub struct WriteBuffer {
    backend: Arc<dyn Backend>,
    kernel: Kernel,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: HashMap<Inode, File>,
    /// Gathered and on their way.
    bytes: usize,
    /// Files whose next write waits for room in the budget.
    starved: HashSet<Inode>,
    /// Whether a thread sends what becomes too old.
    attended: bool,
}

/// What is under way for one file.
#[derive(Default)]
struct File {
    runs: Runs,
    sent: Vec<Sent>,
    queue: VecDeque<Queued>,
    failure: Option<Failure>,
    /// Who has written since the file was last settled without a failure.
    writers: HashSet<u64>,
    /// Nobody has it open any more who could be told of a failure.
    closed: bool,
    new: Option<New>,
}

/// A run on its way.
struct Sent {
    offset: u64,
    data: Bytes,
}

/// A file that was empty when it was created here, and is since what was written here.
struct New {
    created: Attributes,
    /// For how long others' changes need not be seen.
    until: Instant,
}

enum Queued {
    Write { handle: u64, caller: Caller, offset: u64, data: Vec<u8>, done: Done },
    Then(Then),
}

/// As errseq_t of Linux: every handle that was open is told once.
struct Failure {
    error: FsError,
    told: HashSet<u64>,
}

/// What is done once the lock is free.
enum Effect {
    Send {
        inode: Inode,
        range: Range<u64>,
        request: FsRequest,
    },
    Answer(Done, Result<(), FsError>),
    Run(Then),
    /// The kernel has pages of what was not written.
    ForgetPages(Inode),
}

impl Sent {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.data.len() as u64
    }
}

impl File {
    fn is_settled(&self) -> bool {
        self.runs.is_empty() && self.sent.is_empty() && self.queue.is_empty()
    }

    /// Sends what is gathered, as far as it may go; says whether nothing stays behind.
    fn send(&mut self, inode: Inode, effects: &mut Vec<Effect>) -> bool {
        let Self { runs, sent, .. } = self;
        for run in runs.take(|run| may_send(sent, &run.range())) {
            let (range, data) = (run.range(), Bytes::from(run.data));
            sent.push(Sent { offset: run.offset, data: data.clone() });
            let op = FsOp::Write { inode, offset: run.offset, data };
            let request = FsRequest { caller: run.caller, op };
            effects.push(Effect::Send { inode, range, request });
        }
        self.runs.is_empty()
    }

    /// Takes a write if there is room for it in this file.
    fn take(&mut self, inode: Inode, stretch: Stretch<'_>, effects: &mut Vec<Effect>) -> bool {
        let gathered =
            self.runs.gather(stretch) || (self.send(inode, effects) && self.runs.gather(stretch));
        if !gathered {
            return false;
        }
        if self.is_full() {
            // If it has to wait, whatever completes sends it on.
            self.send(inode, effects);
        }
        true
    }

    fn is_full(&self) -> bool {
        self.runs.len() >= GATHERED_MAX
    }

    /// The pieces of a new file, the newest last.
    fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let sent = self.sent.iter().map(|sent| (sent.offset, &sent.data[..]));
        sent.chain(self.runs.iter().map(|run| (run.offset, &run.data[..])))
    }

    /// As it was created, and how long it is by now; nothing if the group has to be asked.
    fn as_known(&self) -> Option<(Attributes, u64)> {
        let new = self.new.as_ref().filter(|new| Instant::now() < new.until)?;
        let is_known = self.queue.is_empty() && self.failure.is_none();
        let end = self.pieces().map(|(offset, data)| offset + data.len() as u64).max();
        is_known.then_some((new.created, end.unwrap_or(0)))
    }

    /// What `handle` has not been told.
    fn untold(&mut self, handle: u64) -> Option<FsError> {
        let failure = self.failure.as_mut()?;
        failure.told.insert(handle).then_some(failure.error)
    }
}

/// Whether `range` may go while those are on their way.
fn may_send(sent: &[Sent], range: &Range<u64>) -> bool {
    let overlaps = |sent: &Sent| sent.offset < range.end && range.start < sent.range().end;
    sent.len() < SENT_MAX && !sent.iter().any(overlaps)
}

impl State {
    /// Takes a write if there is room for it.
    fn take(&mut self, inode: Inode, stretch: Stretch<'_>, effects: &mut Vec<Effect>) -> bool {
        if self.bytes > 0 && self.bytes + stretch.data.len() > BUDGET {
            // What others have gathered makes room for it.
            for (inode, file) in &mut self.files {
                file.send(*inode, effects);
            }
            self.starved.insert(inode);
            return false;
        }
        let file = self.files.entry(inode).or_default();
        let before = file.runs.len() + on_its_way(effects);
        let taken = file.take(inode, stretch, effects);
        self.bytes += file.runs.len() + on_its_way(effects) - before;
        taken
    }

    /// Goes on with what waits for `inode`, as far as it can.
    fn pump(&mut self, inode: Inode, effects: &mut Vec<Effect>) {
        while let Some(file) = self.files.get_mut(&inode) {
            match file.queue.pop_front() {
                None => {
                    if file.is_full() {
                        file.send(inode, effects);
                    }
                    return;
                }
                Some(Queued::Then(then)) => {
                    if !file.send(inode, effects) || !file.sent.is_empty() {
                        file.queue.push_front(Queued::Then(then));
                        return;
                    }
                    effects.push(Effect::Run(then));
                }
                Some(Queued::Write { handle, caller, offset, data, done }) => {
                    let stretch = Stretch { caller: &caller, offset, data: &data };
                    if let Some(error) = file.untold(handle) {
                        effects.push(Effect::Answer(done, Err(error)));
                    } else if self.take(inode, stretch, effects) {
                        effects.push(Effect::Answer(done, Ok(())));
                    } else if let Some(file) = self.files.get_mut(&inode) {
                        let again = Queued::Write { handle, caller, offset, data, done };
                        file.queue.push_front(again);
                        return;
                    }
                }
            }
        }
    }

    /// The group has answered for `range`.
    fn completed(
        &mut self,
        inode: Inode,
        range: &Range<u64>,
        result: Result<(), FsError>,
        effects: &mut Vec<Effect>,
    ) {
        self.bytes -= (range.end - range.start) as usize;
        let Some(file) = self.files.get_mut(&inode) else { return };
        if let Some(at) = file.sent.iter().position(|sent| sent.range() == *range) {
            file.sent.swap_remove(at);
        }
        // The group has a part of it now.
        file.new = None;
        if let Err(error) = result {
            tracing::warn!(
                "inode {}: {} bytes from {} on are not written: {error}",
                inode.0,
                range.end - range.start,
                range.start
            );
            file.failure = Some(Failure { error, told: HashSet::new() });
            effects.push(Effect::ForgetPages(inode));
        }
        self.pump(inode, effects);
        for starved in std::mem::take(&mut self.starved) {
            self.pump(starved, effects);
        }
        self.forget_idle(inode);
    }

    fn is_gathering(&self) -> bool {
        self.files.values().any(|file| !file.runs.is_empty())
    }

    fn forget_idle(&mut self, inode: Inode) {
        let idle = |file: &File| file.is_settled() && (file.closed || file.failure.is_none());
        if self.files.get(&inode).is_some_and(idle) {
            self.files.remove(&inode);
        }
    }
}

/// How many bytes `effects` send.
fn on_its_way(effects: &[Effect]) -> usize {
    let length = |effect: &Effect| match effect {
        Effect::Send { range, .. } => (range.end - range.start) as usize,
        _ => 0,
    };
    effects.iter().map(length).sum()
}

impl WriteBuffer {
    /// Nothing is gathered yet.
    pub fn new(backend: Arc<dyn Backend>, kernel: Kernel) -> Arc<Self> {
        Arc::new(Self { backend, kernel, state: Mutex::default() })
    }

    /// Writes `data`, at most [`GATHERED_MAX`] bytes, through `handle`, which `caller` opened. `done` runs once there is room for it
    /// here.
    ///
    /// Errors: that of an earlier write of the file, of which `handle` was not told yet; `data` then goes nowhere.
    pub fn write(
        self: &Arc<Self>,
        inode: Inode,
        handle: u64,
        caller: Caller,
        (offset, data): (u64, &[u8]),
        done: impl FnOnce(Result<(), FsError>) + Send + 'static,
    ) {
        self.with(|state, effects| {
            let file = state.files.entry(inode).or_default();
            if let Some(error) = file.untold(handle) {
                return effects.push(Effect::Answer(Box::new(done), Err(error)));
            }
            file.writers.insert(handle);
            let stretch = Stretch { caller: &caller, offset, data };
            if file.queue.is_empty() && state.take(inode, stretch, effects) {
                return effects.push(Effect::Answer(Box::new(done), Ok(())));
            }
            let (data, done) = (data.to_vec(), Box::new(done));
            if let Some(file) = state.files.get_mut(&inode) {
                file.queue.push_back(Queued::Write { handle, caller, offset, data, done });
            }
        });
        self.attend();
    }

    /// Runs `then` once the group has answered for all that was written to `inode` before.
    pub fn settle(self: &Arc<Self>, inode: Inode, then: impl FnOnce() + Send + 'static) {
        self.with(|state, effects| {
            if let Some(file) = state.files.get_mut(&inode) {
                // What comes then may change it.
                file.new = None;
                file.queue.push_back(Queued::Then(Box::new(then)));
                state.pump(inode, effects);
                state.forget_idle(inode);
            } else {
                effects.push(Effect::Run(Box::new(then)));
            }
        });
    }

    /// An empty file has been created here, with these attributes. For `ttl` it need not be seen what other clients do to it.
    pub fn created(&self, created: Attributes, ttl: Duration) {
        if created.size > 0 {
            return;
        }
        let mut state = self.lock();
        let file = state.files.entry(created.inode).or_default();
        if file.is_settled() {
            file.new = Some(New { created, until: Instant::now() + ttl });
        }
    }

    /// The kernel is about to be told these attributes of the group. From then on it expects what another client has written.
    pub fn found(&self, attributes: &Attributes) {
        let mut state = self.lock();
        let Some(file) = state.files.get_mut(&attributes.inode) else { return };
        let same = |new: &New| attributes.size == 0 && attributes.modified == new.created.modified;
        if !file.new.as_ref().is_some_and(same) {
            file.new = None;
        }
    }

    /// Something else than a write happens to `inode`: the group is asked again.
    pub fn changed(&self, inode: Inode) {
        if let Some(file) = self.lock().files.get_mut(&inode) {
            file.new = None;
        }
    }

    /// What is at `offset` of a file that was created here a moment ago; nothing if the group has to be asked.
    pub fn read(&self, inode: Inode, offset: u64, count: u32) -> Option<Vec<u8>> {
        let state = self.lock();
        let file = state.files.get(&inode)?;
        let (_, size) = file.as_known()?;
        let end = size.min(offset.saturating_add(count.into()));
        let mut found = vec![0; end.saturating_sub(offset) as usize];
        for (at, data) in file.pieces() {
            let (from, to) = (at.max(offset), (at + data.len() as u64).min(end));
            if from < to {
                let wanted = &data[(from - at) as usize..(to - at) as usize];
                found[(from - offset) as usize..(to - offset) as usize].copy_from_slice(wanted);
            }
        }
        Some(found)
    }

    /// The attributes with which a file was created here a moment ago, with the size it has by now; nothing if the group has to
    /// be asked. Its times and its blocks only the group knows.
    pub fn attributes(&self, inode: Inode) -> Option<Attributes> {
        let (created, size) = self.lock().files.get(&inode)?.as_known()?;
        Some(Attributes { size, ..created })
    }

    /// Runs `then` once the group has answered for all that was written before.
    pub fn settle_all(self: &Arc<Self>, then: impl FnOnce() + Send + 'static) {
        let last = Arc::new(AtEnd(Mutex::new(Some(Box::new(then)))));
        for inode in self.unsettled() {
            let last = last.clone();
            self.settle(inode, move || drop(last));
        }
    }

    /// The mount ends: waits for what is not with the group, but not for ever.
    pub fn end(self: &Arc<Self>) {
        let (sender, settled) = mpsc::channel::<()>();
        self.settle_all(move || drop(sender));
        // Nothing is ever sent: the end of the sender ends the wait.
        if settled.recv_timeout(END_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("the mount ends with writes that the group has not answered for");
        }
    }

    /// Which files the group does not have as they are.
    pub fn unsettled(&self) -> Vec<Inode> {
        let state = self.lock();
        let unsettled = state.files.iter().filter(|(_, file)| !file.is_settled());
        unsettled.map(|(inode, _)| *inode).collect()
    }

    /// What became of the writes to `inode`, if it is an error of which `handle` was not told yet.
    pub fn failure(&self, inode: Inode, handle: u64) -> Option<FsError> {
        self.lock().files.get_mut(&inode)?.untold(handle)
    }

    /// As [`WriteBuffer::failure`], for one of the descriptors of `handle` that is closed: if `handle` has written nothing
    /// lately, it is told nothing.
    ///
    /// `handle` does not count as told: a child of the writer's closes its copy of the descriptor, by close-on-exec too, where
    /// nobody looks.
    pub fn failure_at_close(&self, inode: Inode, handle: u64) -> Option<FsError> {
        let state = self.lock();
        let file = state.files.get(&inode).filter(|file| file.writers.contains(&handle))?;
        let failure = file.failure.as_ref().filter(|failure| !failure.told.contains(&handle))?;
        Some(failure.error)
    }

    /// A new `handle`: it is told of no failure that others know.
    pub fn opened(&self, inode: Inode, handle: u64) {
        if let Some(file) = self.lock().files.get_mut(&inode) {
            file.closed = false;
            file.new = None;
            if let Some(failure) = file.failure.as_mut().filter(|f| !f.told.is_empty()) {
                failure.told.insert(handle);
            }
        }
    }

    /// The last handle of `inode` is gone.
    pub fn closed(&self, inode: Inode) {
        let mut state = self.lock();
        if let Some(file) = state.files.get_mut(&inode) {
            file.closed = true;
        }
        state.forget_idle(inode);
    }

    /// Changes the state, and then does what follows from it.
    fn with(self: &Arc<Self>, act: impl FnOnce(&mut State, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        act(&mut self.lock(), &mut effects);
        self.perform(effects);
    }

    fn perform(self: &Arc<Self>, mut effects: Vec<Effect>) {
        // Programs go on while this thread sends.
        effects.sort_by_key(|effect| !matches!(effect, Effect::Answer(..)));
        for effect in effects {
            match effect {
                Effect::Answer(done, result) => done(result),
                Effect::Run(then) => then(),
                Effect::ForgetPages(inode) => self.kernel.forget_pages(inode),
                Effect::Send { inode, range, request } => {
                    let buffer = self.clone();
                    let done = move |result| buffer.complete(inode, &range, result);
                    self.backend.call(request, Box::new(done));
                }
            }
        }
    }

    fn complete(self: &Arc<Self>, inode: Inode, range: &Range<u64>, result: FsResult) {
        let result = written(result, range.end - range.start);
        let mut effects = Vec::new();
        self.lock().completed(inode, range, result, &mut effects);
        self.perform(effects);
        // What has waited for room may be gathered now.
        self.attend();
    }

    /// Has a thread look for what becomes too old, as long as anything is gathered.
    fn attend(self: &Arc<Self>) {
        {
            let mut state = self.lock();
            if state.attended || !state.is_gathering() {
                return;
            }
            state.attended = true;
        }
        let buffer = self.clone();
        let started = thread::Builder::new().name("bfs-writes".into()).spawn(move || {
            while buffer.is_gathering() {
                thread::sleep(AGE / 2);
                buffer.send_old(AGE / 2);
            }
        });
        if let Err(error) = started {
            tracing::warn!("writes are kept here until their files are closed: {error}");
            self.lock().attended = false;
        }
    }

    fn is_gathering(&self) -> bool {
        let mut state = self.lock();
        state.attended = state.is_gathering();
        state.attended
    }

    fn send_old(self: &Arc<Self>, age: Duration) {
        self.with(|state, effects| {
            for (inode, file) in &mut state.files {
                if file.runs.iter().any(|run| run.since.elapsed() >= age) {
                    file.send(*inode, effects);
                }
            }
        });
    }

    /// The state stays consistent at every point where a panic is possible, so poison says nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the group has written `length` bytes.
fn written(result: FsResult, length: u64) -> Result<(), FsError> {
    match result? {
        FsReply::Written { count, .. } if u64::from(count) == length => Ok(()),
        other => {
            super::answer::misfit(&other);
            Err(FsError::Io)
        }
    }
}

/// Runs what it holds when the last who shares it lets go.
struct AtEnd(Mutex<Option<Then>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(then) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            then();
        }
    }
}

#[cfg(test)]
mod tests;
