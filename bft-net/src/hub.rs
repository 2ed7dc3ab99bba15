//! The event loop that replicas and clients share: tasks around one [`Endpoint`] behind one lock.
//!
//! ```text
//! reader, one a link      waits, decrypts, takes the lock, hands every whole frame to the endpoint
//! flusher                 runs after the readers of the same turn, so a peer gets one write however many frames
//! unblocker, one a link   goes on writing when a socket that was full takes more
//! timer                   wakes the endpoint at its deadline
//! dialer, acceptor        make links; the newest link of a peer replaces the older one
//! ```
//!
//! [`Hub::with`] may be called from any thread: it runs on the endpoint and writes to the sockets itself, so a message
//! hops over no thread and no queue. No lock is held across an await.

use crate::group::Group;
use crate::keys::Identity;
use crate::link::{Flushed, Reader, Writer};
use crate::noise::{self, LinkError};
use bft_core::types::{Peer, ReplicaId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{sleep, sleep_until, timeout};

/// How long a handshake may take.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How many handshakes may be under way. The oldest gives way to the next caller: who says nothing shuts nobody out.
pub const MAX_HALF_OPEN: usize = 64;
const FIRST_BACK_OFF: Duration = Duration::from_millis(20);
const LAST_BACK_OFF: Duration = Duration::from_secs(1);
/// What may wait for a peer that does not read. Units: bytes.
const REPLICA_LIMIT: usize = 32 << 20;
const CLIENT_LIMIT: usize = 16 << 20;
/// How long a frame in no hurry may wait. The timers' resolution.
const NO_HURRY: Duration = Duration::from_millis(1);
/// How long a shutdown waits for what is still to be written.
const LAST_FLUSH: Duration = Duration::from_millis(200);

/// What the loop runs: a replica's driver or a client's session.
pub trait Endpoint: Send + 'static {
    /// A whole frame that `from` sent, valid during the call.
    fn on_frame(&mut self, from: Peer, frame: &[u8], links: &mut Links);
    /// The link to `peer` came up, or went down.
    fn on_link(&mut self, peer: Peer, up: bool, links: &mut Links);
    /// The deadline has passed.
    fn on_deadline(&mut self, links: &mut Links);
    /// When `on_deadline` is wanted.
    fn deadline(&self) -> Option<Instant>;
    /// Whether more may be read from `peer`; asked again after the endpoint has run.
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

/// The links as an endpoint uses them.
#[derive(Default)]
pub struct Links {
    peers: BTreeMap<Peer, Outbound>,
    dirty: BTreeSet<Peer>,
    /// Peers for whom something in no hurry waits, and until when.
    unhurried: BTreeSet<Peer>,
    unhurried_until: Option<Instant>,
    dropped: u64,
    deferred: Vec<Deferred>,
}

/// What runs once the lock is free.
type Deferred = Box<dyn FnOnce() + Send>;

/// The links that a flush found broken, by peer and generation.
type Failed = Vec<(Peer, u64)>;

struct Outbound {
    generation: u64,
    writer: Writer,
    blocked: bool,
    unblocker: Arc<Notify>,
    /// Dropped with the link, which ends its tasks.
    _tasks: oneshot::Sender<()>,
}

impl Links {
    /// Sends `frame` to `to`, if there is a link and it is not too far behind. What is lost the protocol repairs.
    pub fn send(&mut self, to: Peer, frame: &[u8]) {
        self.send_with(to, |out| out.extend_from_slice(frame));
    }

    /// Sends the frame that `encode` appends to the buffer.
    pub fn send_with(&mut self, to: Peer, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(outbound) = self.peers.get_mut(&to) else { return };
        if outbound.writer.queue(encode) {
            self.dirty.insert(to);
        } else {
            self.dropped += 1;
        }
    }

    /// Sends a frame that may wait a millisecond for the next one to the same peer: it costs no write of its own.
    pub fn send_unhurried(&mut self, to: Peer, frame: &[u8]) {
        let Some(outbound) = self.peers.get_mut(&to) else { return };
        if outbound.writer.queue(|out| out.extend_from_slice(frame)) {
            self.unhurried.insert(to);
            self.unhurried_until.get_or_insert_with(|| Instant::now() + NO_HURRY);
        } else {
            self.dropped += 1;
        }
    }

    /// What is in no hurry leaves with this turn.
    pub fn hurry(&mut self) {
        self.dirty.append(&mut self.unhurried);
        self.unhurried_until = None;
    }

    /// Whether there is a link to `peer`.
    pub fn connected(&self, peer: Peer) -> bool {
        self.peers.contains_key(&peer)
    }

    /// How many frames were dropped because their receiver did not read.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Runs `act` after this turn, when the lock is free: what wakes another thread must not make it wait for this one.
    pub fn defer(&mut self, act: impl FnOnce() + Send + 'static) {
        self.deferred.push(Box::new(act));
    }

    /// Writes what was queued.
    fn flush(&mut self) -> Failed {
        let mut failed = Failed::new();
        for peer in std::mem::take(&mut self.dirty) {
            self.unhurried.remove(&peer);
            let Some(outbound) = self.peers.get_mut(&peer) else { continue };
            if outbound.blocked {
                continue;
            }
            match outbound.writer.flush() {
                Ok(Flushed::All) => {}
                Ok(Flushed::Blocked) => {
                    outbound.blocked = true;
                    outbound.unblocker.notify_one();
                }
                Err(_) => failed.push((peer, outbound.generation)),
            }
        }
        failed
    }
}

struct Inner<E> {
    endpoint: E,
    links: Links,
    generations: u64,
    /// When the timer task will look at the deadline again.
    armed: Option<Instant>,
}

impl<E: Endpoint> Inner<E> {
    /// When the timer has something to do.
    fn deadline(&self) -> Option<Instant> {
        self.endpoint.deadline().into_iter().chain(self.links.unhurried_until).min()
    }
}

struct Shared<E> {
    inner: Mutex<Inner<E>>,
    flush: Notify,
    timer: Notify,
    /// Readers without credit wait here, and are counted.
    credit: Notify,
    paused: AtomicUsize,
    runtime: Handle,
    tasks: Mutex<Vec<AbortHandle>>,
    config: Fixed,
}

/// What does not change while the hub runs.
struct Fixed {
    identity: Identity,
    group: Arc<Group>,
    me: Peer,
}

/// Counts one reader that waits for credit, until it goes on or its link ends.
struct Paused<'a>(&'a AtomicUsize);

impl<'a> Paused<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A handle on the running loop.
pub struct Hub<E>(Arc<Shared<E>>);

impl<E> Clone for Hub<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: Endpoint> Hub<E> {
    /// Starts the tasks.
    ///
    /// Requires: called on a tokio runtime with its drivers on; current-thread, for coalesced writes.
    pub fn start(config: HubConfig, endpoint: E) -> Self {
        let HubConfig { identity, group, me, listen } = config;
        let inner = Inner { endpoint, links: Links::default(), generations: 0, armed: None };
        let hub = Self(Arc::new(Shared {
            inner: Mutex::new(inner),
            flush: Notify::new(),
            timer: Notify::new(),
            credit: Notify::new(),
            paused: AtomicUsize::new(0),
            runtime: Handle::current(),
            tasks: Mutex::default(),
            config: Fixed { identity, group, me },
        }));
        hub.spawn(hub.clone().run_flusher());
        hub.spawn(hub.clone().run_timer());
        if let Some(listener) = listen {
            hub.spawn(hub.clone().run_acceptor(listener));
        }
        for replica in hub.0.config.group.size().replicas() {
            let dials = match me {
                Peer::Replica(me) => replica < me,
                Peer::Client(_) => true,
            };
            if dials {
                hub.spawn(hub.clone().run_dialer(replica));
            }
        }
        hub
    }

    /// Runs `act` on the endpoint and writes what it sends, on the calling thread.
    pub fn with<R>(&self, act: impl FnOnce(&mut E, &mut Links) -> R) -> R {
        let mut inner = self.lock();
        let Inner { endpoint, links, .. } = &mut *inner;
        let result = act(endpoint, links);
        let failed = links.flush();
        self.after(inner, failed);
        result
    }

    /// Writes what can be written, closes the links and ends the tasks.
    pub async fn shutdown(&self) {
        let end = Instant::now() + LAST_FLUSH;
        while Instant::now() < end {
            let waiting =
                |links: &mut Links| links.peers.values().any(|out| out.writer.waiting() > 0);
            if !self.with(|_, links| waiting(links)) {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        let tasks = std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(|e| e.into_inner()));
        tasks.iter().for_each(AbortHandle::abort);
        self.lock().links.peers.clear();
        // The sockets close with the tasks that hold them.
        let end = Instant::now() + LAST_FLUSH;
        while Instant::now() < end && !tasks.iter().all(AbortHandle::is_finished) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.0.runtime.spawn(task).abort_handle();
        let mut tasks = self.0.tasks.lock().unwrap_or_else(|e| e.into_inner());
        tasks.retain(|task| !task.is_finished());
        tasks.push(handle);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<E>> {
        self.0.inner.lock().unwrap_or_else(|_| {
            // The endpoint panicked half-way: whatever it would say from now on could be wrong.
            tracing::error!("the event loop panicked before; stopping this process");
            std::process::abort()
        })
    }

    /// Ends a turn: wakes the timer if the deadline has come nearer, and readers that wait for credit; takes away the
    /// links that are broken.
    fn after(&self, mut inner: MutexGuard<'_, Inner<E>>, failed: Failed) {
        let nearer = match (inner.deadline(), inner.armed) {
            (Some(deadline), Some(armed)) => deadline < armed,
            (deadline, _) => deadline.is_some(),
        };
        let deferred = std::mem::take(&mut inner.links.deferred);
        drop(inner);
        if nearer {
            self.0.timer.notify_one();
        }
        if self.0.paused.load(Ordering::Relaxed) > 0 {
            self.0.credit.notify_waiters();
        }
        deferred.into_iter().for_each(|act| act());
        for (peer, generation) in failed {
            self.unlink(peer, generation);
        }
    }

    async fn run_flusher(self) {
        loop {
            self.0.flush.notified().await;
            self.with(|_, _| ());
        }
    }

    async fn run_timer(self) {
        loop {
            let deadline = {
                let mut inner = self.lock();
                inner.armed = inner.deadline();
                inner.armed
            };
            match deadline {
                None => self.0.timer.notified().await,
                Some(at) if at <= Instant::now() => {
                    self.with(|endpoint, links| {
                        if links.unhurried_until.is_some_and(|at| at <= Instant::now()) {
                            links.hurry();
                        }
                        if endpoint.deadline().is_some_and(|at| at <= Instant::now()) {
                            endpoint.on_deadline(links);
                        }
                    });
                    // An endpoint that is always late still shares the thread with its sockets.
                    yield_now().await;
                }
                Some(at) => {
                    tokio::select! {
                        () = sleep_until(at.into()) => {}
                        () = self.0.timer.notified() => {}
                    }
                }
            }
        }
    }

    /// Goes on writing to a peer whose socket was full. Ends with its link, so that a peer that never reads keeps no
    /// socket of ours but its newest.
    async fn unblock_link(
        &self,
        peer: Peer,
        generation: u64,
        stream: &OwnedWriteHalf,
        blocked: &Notify,
    ) -> LinkError {
        loop {
            blocked.notified().await;
            loop {
                if let Err(error) = stream.writable().await {
                    return error.into();
                }
                let mut inner = self.lock();
                let Some(outbound) = inner.links.peers.get_mut(&peer) else {
                    return LinkError::Closed;
                };
                if outbound.generation != generation {
                    return LinkError::Closed;
                }
                match outbound.writer.flush() {
                    Ok(Flushed::Blocked) => {}
                    Ok(Flushed::All) => break outbound.blocked = false,
                    Err(error) => return error,
                }
            }
        }
    }

    async fn run_acceptor(self, listener: StdListener) {
        let listener =
            listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => return tracing::error!("cannot accept connections: {error}"),
        };
        let mut half_open = VecDeque::new();
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: let some go.
                    tracing::warn!("cannot accept a connection: {error}");
                    sleep(LAST_BACK_OFF).await;
                    continue;
                }
            };
            half_open.retain(|evict: &oneshot::Sender<()>| !evict.is_closed());
            if half_open.len() == MAX_HALF_OPEN {
                half_open.pop_front();
            }
            let (evict, evicted) = oneshot::channel();
            half_open.push_back(evict);
            self.spawn(self.clone().run_caller(stream, from, evicted));
            // Who has said who it is gets its turn now: many calls at once evict the silent only.
            yield_now().await;
        }
    }

    /// Finds out who called, unless that takes too long, and serves the link.
    async fn run_caller(
        self,
        mut stream: TcpStream,
        from: SocketAddr,
        evicted: oneshot::Receiver<()>,
    ) {
        let Fixed { identity, group, me } = &self.0.config;
        let respond = timeout(HANDSHAKE_LIMIT, noise::respond(&mut stream, identity, group));
        let answered = tokio::select! {
            answered = respond => answered.unwrap_or(Err(LinkError::TooSlow)),
            _ = evicted => Err(LinkError::TooSlow),
        };
        match answered {
            Ok((peer, _)) if peer == *me => {}
            Ok((peer, channel)) => self.run_link(peer, stream, Arc::new(channel)).await,
            Err(error) => tracing::info!("refused {from}: {error}"),
        }
    }

    async fn run_dialer(self, replica: ReplicaId) {
        let mut back_off = FIRST_BACK_OFF;
        let mut said = String::new();
        loop {
            match timeout(HANDSHAKE_LIMIT, self.dial(replica))
                .await
                .unwrap_or(Err(LinkError::TooSlow))
            {
                Ok((stream, channel)) => {
                    (back_off, said) = (FIRST_BACK_OFF, String::new());
                    self.clone().run_link(Peer::Replica(replica), stream, channel).await;
                }
                Err(error) => {
                    let now = error.to_string();
                    if now != said {
                        tracing::warn!("no link to replica {replica:?}: {now}");
                        said = now;
                    }
                }
            }
            // Peers that lost each other at the same moment do not come back at the same moment.
            let mut chance = [0; 1];
            let _ = getrandom::fill(&mut chance);
            sleep(back_off + back_off * u32::from(chance[0]) / 512).await;
            back_off = (back_off * 2).min(LAST_BACK_OFF);
        }
    }

    async fn dial(
        &self,
        replica: ReplicaId,
    ) -> Result<(TcpStream, Arc<snow::StatelessTransportState>), LinkError> {
        let Fixed { identity, group, .. } = &self.0.config;
        let member = group.replicas.get(replica.index()).ok_or(LinkError::UnknownPeer)?;
        let mut stream = TcpStream::connect(&member.address).await?;
        stream.set_nodelay(true)?;
        let channel = noise::initiate(&mut stream, identity, group, &member.identity.link).await?;
        Ok((stream, Arc::new(channel)))
    }

    /// Serves one link until it ends.
    async fn run_link(
        self,
        peer: Peer,
        stream: TcpStream,
        channel: Arc<snow::StatelessTransportState>,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::info!("lost {peer} at once: {error}");
        }
        let (read, write) = stream.into_split();
        let limit = if matches!(peer, Peer::Replica(_)) { REPLICA_LIMIT } else { CLIENT_LIMIT };
        let writer = Writer::new(Arc::new(write), channel.clone(), limit);
        let (stream, blocked) = (writer.stream(), Arc::new(Notify::new()));
        let (tasks, replaced) = oneshot::channel();
        let generation = self.link(peer, writer, blocked.clone(), tasks);
        let ended = tokio::select! {
            // In this order: nothing that the older link brings is heard after the newer one is up.
            biased;
            _ = replaced => return,
            error = self.unblock_link(peer, generation, &stream, &blocked) => error,
            error = self.read_link(peer, Reader::new(read, channel)) => error,
        };
        tracing::debug!("link to {peer} ended: {ended}");
        self.unlink(peer, generation);
    }

    fn link(
        &self,
        peer: Peer,
        writer: Writer,
        unblocker: Arc<Notify>,
        tasks: oneshot::Sender<()>,
    ) -> u64 {
        let mut inner = self.lock();
        inner.generations += 1;
        let generation = inner.generations;
        let Inner { endpoint, links, .. } = &mut *inner;
        let outbound = Outbound { generation, writer, blocked: false, unblocker, _tasks: tasks };
        if links.peers.insert(peer, outbound).is_some() {
            endpoint.on_link(peer, false, links);
        }
        endpoint.on_link(peer, true, links);
        let failed = links.flush();
        self.after(inner, failed);
        generation
    }

    fn unlink(&self, peer: Peer, generation: u64) {
        self.with(|endpoint, links| {
            if links.peers.get(&peer).is_some_and(|outbound| outbound.generation == generation) {
                links.peers.remove(&peer);
                endpoint.on_link(peer, false, links);
            }
        });
    }

    async fn read_link(&self, peer: Peer, mut reader: Reader) -> LinkError {
        loop {
            if let Err(error) = reader.fill().await {
                return error;
            }
            if let Err(error) = self.deliver(peer, &mut reader) {
                return error;
            }
            loop {
                let credit = self.0.credit.notified();
                if self.lock().endpoint.may_read(peer) {
                    break;
                }
                let _paused = Paused::new(&self.0.paused);
                // The endpoint may have run since it was asked: whoever is counted is told, whoever is not asks again.
                if !self.lock().endpoint.may_read(peer) {
                    credit.await;
                }
            }
        }
    }

    /// Hands every whole frame to the endpoint.
    fn deliver(&self, peer: Peer, reader: &mut Reader) -> Result<(), LinkError> {
        let mut inner = self.lock();
        let Inner { endpoint, links, .. } = &mut *inner;
        let result = loop {
            match reader.next_frame() {
                Ok(Some(frame)) => endpoint.on_frame(peer, frame, links),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if !links.dirty.is_empty() {
            // The flusher's turn comes after every reader that is ready now.
            self.0.flush.notify_one();
        }
        self.after(inner, Failed::new());
        result
    }
}
