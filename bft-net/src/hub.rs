//! The event loop that replicas and clients share: one [`Endpoint`] and its links behind one lock.
//!
//! ```text
//! link task, one a link   waits, takes the lock, decrypts, hands every whole frame to the endpoint
//! flusher                 runs after the link tasks of the same turn, so a peer gets one write however many frames
//! timer                   wakes the endpoint at its deadline
//! dialer, acceptor        make links; the newest link of a peer replaces the older one
//! ```
//!
//! [`Hub::with`] may be called from any thread: it runs on the endpoint and writes to the sockets itself, so a message
//! hops over no thread and no queue. No lock is held across an await.

use crate::error::LinkError;
use crate::group::Group;
use crate::keys::Identity;
use crate::link::{Drained, Reader, Scratch};
use crate::noise::Local;
use bft_core::types::Peer;
use std::collections::BTreeMap;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub use crate::links::{Limits, Links, PeerCounters};

/// How long a shutdown waits for what is still to be written.
const LAST_FLUSH: Duration = Duration::from_millis(200);

/// What the loop runs: a replica's driver or a client's session.
///
/// Its methods run under the hub's lock, so they must not call [`Hub::with`]. A panic in one of them ends the process:
/// what a half-done endpoint would say next could be wrong.
pub trait Endpoint: Send + 'static {
    /// A whole frame that `from` sent, valid during the call.
    fn on_frame(&mut self, from: Peer, frame: &[u8], links: &mut Links);
    /// The link to `peer` came up, or went down.
    fn on_link(&mut self, peer: Peer, up: bool, links: &mut Links);
    /// The deadline has passed.
    fn on_deadline(&mut self, links: &mut Links);
    /// When `on_deadline` is wanted.
    fn deadline(&self) -> Option<Instant>;
    /// Whether something waits for `before_write`.
    fn is_holding(&self) -> bool {
        false
    }
    /// What has been sent is about to be written. Every link that was ready in the same turn has been read by now, so what
    /// should be said once about all that has arrived is said here.
    fn before_write(&mut self, links: &mut Links) {
        let _ = links;
    }
    /// Whether more may be read from `peer`: asked after each of its frames, and while it may not, after every call.
    fn may_read(&self, peer: Peer) -> bool {
        let _ = peer;
        true
    }
}

/// Who runs the loop, and where.
pub struct HubConfig {
    /// This principal's keys.
    pub identity: Identity,
    /// The group.
    pub group: Arc<Group>,
    /// This principal's place in the group.
    pub me: Peer,
    /// Where others call; clients have none.
    pub listen: Option<StdListener>,
}

/// What the lock protects.
struct Inner<E> {
    endpoint: E,
    links: Links,
    scratch: Scratch,
    /// When the timer task will look at the deadline again.
    armed: Option<Instant>,
    /// How many threads run what was deferred. What is sent meanwhile leaves with the flusher's turn: an answer that brings
    /// ten others with it makes one write, whatever is asked in return.
    deferring: usize,
}

impl<E: Endpoint> Inner<E> {
    /// Writes what was queued, and takes leave of links that fail; ends, for every round has fewer links.
    fn settle(&mut self) {
        self.endpoint.before_write(&mut self.links);
        loop {
            let failed = self.links.flush();
            if failed.is_empty() {
                return;
            }
            for (peer, error) in failed {
                self.end(peer, &error);
            }
        }
    }

    fn end(&mut self, peer: Peer, error: &LinkError) {
        tracing::debug!("link to {peer} ended: {error}");
        self.links.count_of(peer, error);
        if self.links.remove(peer) {
            self.endpoint.on_link(peer, false, &mut self.links);
        }
    }
}

/// How long one link's frames are handled before others have their turn. A few bytes can ask for much work: a read of a
/// megabyte, for one.
const TURN: Duration = Duration::from_millis(1);
/// The clock is looked at once in so many frames.
const FRAMES_PER_LOOK: u32 = 4;

/// What a link's task waits for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For its socket or a wake-up.
    For {
        /// Bytes to read.
        read: bool,
        /// Room to write.
        write: bool,
    },
    /// For the turns of the others.
    Turn,
}

/// Everything that the tasks and the handles share.
pub(crate) struct Shared<E> {
    inner: Mutex<Inner<E>>,
    tasks: Mutex<Tasks>,
    runtime: Handle,
    pub(crate) flush: Notify,
    pub(crate) timer: Notify,
    pub(crate) local: Local,
    pub(crate) group: Arc<Group>,
    pub(crate) me: Peer,
    pub(crate) limits: Limits,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    stopped: bool,
    running: BTreeMap<u64, JoinHandle<()>>,
}

/// Ends the process when it is dropped, which it is only where a panic skips the line that forgets it.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        tracing::error!("the event loop panicked; stopping this process");
        std::process::abort()
    }
}

impl<E: Endpoint> Shared<E> {
    /// Runs `act` under the lock; afterwards what it deferred, and whichever task has become due by it.
    fn enter<R>(&self, act: impl FnOnce(&mut Inner<E>) -> R) -> R {
        let bomb = AbortOnPanic;
        let mut inner = self.lock();
        let result = act(&mut inner);
        let Inner { endpoint, links, .. } = &mut *inner;
        links.resume(|peer| endpoint.may_read(peer));
        let deferred = links.take_deferred();
        let nearer = match (inner.endpoint.deadline(), inner.armed) {
            (Some(deadline), Some(armed)) => deadline < armed,
            (deadline, _) => deadline.is_some(),
        };
        inner.deferring += usize::from(!deferred.is_empty());
        drop(inner);
        if nearer {
            self.timer.notify_one();
        }
        if !deferred.is_empty() {
            deferred.into_iter().for_each(|act| act());
            self.lock().deferring -= 1;
        }
        std::mem::forget(bomb);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Inner<E>> {
        // A panic under this lock ends the process, so nobody ever sees it poisoned.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` on the endpoint and writes what it sends.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut E, &mut Links) -> R) -> R {
        self.enter(|inner| {
            let result = act(&mut inner.endpoint, &mut inner.links);
            match inner.deferring > 0 && inner.links.is_dirty() {
                true => self.flush.notify_one(),
                false => inner.settle(),
            }
            result
        })
    }

    /// Writes what was sent since the last turn.
    pub(crate) fn flush(&self) {
        self.enter(Inner::settle);
    }

    /// When the timer has something to do; it will not be woken for anything later.
    pub(crate) fn arm(&self) -> Option<Instant> {
        let mut inner = self.lock();
        inner.armed = inner.endpoint.deadline();
        inner.armed
    }

    /// Does what has become due.
    pub(crate) fn expire(&self) {
        self.with(|endpoint, links| {
            if endpoint.deadline().is_some_and(|at| at <= Instant::now()) {
                endpoint.on_deadline(links);
            }
        });
    }

    /// Makes the link to `peer`, in place of any older one, and returns its number; nothing where `peer` was dismissed during
    /// the handshake.
    pub(crate) fn link(
        &self,
        peer: Peer,
        writer: crate::link::Writer,
        wake: Arc<Notify>,
    ) -> Option<u64> {
        self.enter(|inner| {
            if !self.local.roster.lists(peer) {
                return None;
            }
            let inserted = inner.links.insert(peer, writer, wake);
            if inserted.replaced {
                inner.endpoint.on_link(peer, false, &mut inner.links);
            }
            inner.endpoint.on_link(peer, true, &mut inner.links);
            inner.settle();
            Some(inserted.generation)
        })
    }

    /// One turn of a link: goes on writing if the socket was full, then hands what has arrived to the endpoint.
    ///
    /// Returns what to wait for; nothing where the link has ended or was replaced.
    pub(crate) fn turn(&self, peer: Peer, generation: u64, reader: &mut Reader) -> Option<Wait> {
        self.enter(|inner| {
            if !inner.links.is_current(peer, generation) {
                return None;
            }
            match take_turn(inner, peer, reader) {
                Ok(wait) => {
                    if inner.links.is_dirty() || inner.endpoint.is_holding() {
                        // The flusher's turn comes after every link that is ready now.
                        self.flush.notify_one();
                    }
                    Some(wait)
                }
                Err(error) => {
                    inner.end(peer, &error);
                    inner.settle();
                    None
                }
            }
        })
    }

    /// Counts a handshake that failed; returns how many of its kind there were.
    pub(crate) fn count(&self, error: &LinkError) -> u64 {
        self.lock().links.count(error)
    }

    /// Starts a task that ends with the hub.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        if tasks.stopped {
            return;
        }
        let id = tasks.next;
        tasks.next += 1;
        let shared = self.clone();
        let handle = self.runtime.spawn(async move {
            task.await;
            shared.tasks().running.remove(&id);
        });
        tasks.running.insert(id, handle);
    }

    /// Ends the tasks and closes the links.
    fn stop(&self) -> Vec<JoinHandle<()>> {
        let running = {
            let mut tasks = self.tasks();
            tasks.stopped = true;
            std::mem::take(&mut tasks.running)
        };
        running.values().for_each(JoinHandle::abort);
        self.lock().links.remove_all();
        running.into_values().collect()
    }
}

fn take_turn<E: Endpoint>(
    inner: &mut Inner<E>,
    peer: Peer,
    reader: &mut Reader,
) -> Result<Wait, LinkError> {
    let Inner { endpoint, links, scratch, .. } = inner;
    if links.is_blocked(peer) {
        links.flush_one(peer)?;
    }
    let mut drained = Drained::Paused;
    let (began, mut frames, mut is_over) = (Instant::now(), 0u32, false);
    if endpoint.may_read(peer) {
        drained = reader.drain(scratch, |frame| {
            links.count_frame(peer, frame.len());
            endpoint.on_frame(peer, frame, links);
            frames = frames.wrapping_add(1);
            is_over = frames.is_multiple_of(FRAMES_PER_LOOK) && began.elapsed() >= TURN;
            endpoint.may_read(peer) && !is_over
        })?;
    }
    let may_read = drained != Drained::Paused || is_over && endpoint.may_read(peer);
    if !may_read {
        links.pause(peer);
    }
    Ok(match drained {
        Drained::Paused if may_read => Wait::Turn,
        Drained::Budget => Wait::Turn,
        Drained::All | Drained::Paused => {
            Wait::For { read: may_read, write: links.is_blocked(peer) }
        }
    })
}

/// A handle on the running loop. Dropping the last one ends the tasks and closes the links.
pub struct Hub<E: Endpoint>(Arc<Owner<E>>);

impl<E: Endpoint> Clone for Hub<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Held by handles and not by tasks, so that the tasks end with the last handle.
struct Owner<E: Endpoint>(Arc<Shared<E>>);

impl<E: Endpoint> Drop for Owner<E> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl<E: Endpoint> Hub<E> {
    /// Starts the tasks.
    ///
    /// Requires: called on a tokio runtime with its drivers on; current-thread, for coalesced writes. `config.identity`
    /// holds the keys of `config.me`; a client need not be in the group file.
    pub fn start(config: HubConfig, endpoint: E) -> Self {
        Self::start_with(config, Limits::default(), endpoint)
    }

    /// Like [`Hub::start`], with other limits.
    pub fn start_with(config: HubConfig, limits: Limits, endpoint: E) -> Self {
        let HubConfig { identity, group, me, listen } = config;
        let local = Local::new(identity, &group);
        if let Peer::Client(me) = me {
            // One that was registered later is not in the file.
            local.roster.admit(me, local.link_key());
        }
        assert_eq!(local.me(), Some(me), "these are not the keys of {me}");
        let (links, scratch) = (Links::new(limits, local.roster.clone()), Scratch::default());
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner { endpoint, links, scratch, armed: None, deferring: 0 }),
            tasks: Mutex::default(),
            runtime: Handle::current(),
            flush: Notify::new(),
            timer: Notify::new(),
            local,
            group,
            me,
            limits,
        });
        crate::tasks::start(&shared, listen);
        Self(Arc::new(Owner(shared)))
    }

    /// Runs `act` on the endpoint and writes what it sends, on the calling thread.
    pub fn with<R>(&self, act: impl FnOnce(&mut E, &mut Links) -> R) -> R {
        self.0.0.with(act)
    }

    /// Writes what can be written within 200 ms, ends the tasks, and closes the links and the listener.
    pub async fn shutdown(&self) {
        let end = Instant::now() + LAST_FLUSH;
        while Instant::now() < end && !self.with(|_, links| links.is_idle()) {
            sleep(Duration::from_millis(5)).await;
        }
        for task in self.0.0.stop() {
            // It ends by being told to, which is no error.
            let _ = task.await;
        }
    }
}
