//! The links as an endpoint sees them: sending, limits, counters.

use crate::error::LinkError;
use crate::link::{Flushed, Writer, WriterLimits};
use crate::roster::Roster;
use bft_core::types::{ClientId, Peer};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// From this length on all receivers of a frame share one copy. Units: bytes.
const SHARED_FROM: usize = 64 << 10;

/// What other machines may cost this one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How many handshakes may be under way; the oldest gives way to the next.
    pub half_open: usize,
    /// What may wait for one replica. Units: bytes.
    pub replica: WriterLimits,
    /// What may wait for one client. Units: bytes.
    pub client: WriterLimits,
    /// What may wait for all clients together; beyond it only a client for which nothing waits is sent anything.
    /// Units: bytes.
    pub clients: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            half_open: 64,
            replica: WriterLimits { waiting: 32 << 20, kept: 256 << 10 },
            client: WriterLimits { waiting: 16 << 20, kept: 16 << 10 },
            clients: 256 << 20,
        }
    }
}

impl Limits {
    pub(crate) fn writer(&self, peer: Peer) -> WriterLimits {
        match peer {
            Peer::Replica(_) => self.replica,
            Peer::Client(_) => self.client,
        }
    }
}

/// What has passed between this principal and one peer, over all links there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Links that came up.
    pub links: u64,
    /// Frames that came.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that were queued.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames dropped because the peer did not read.
    pub dropped: u64,
    /// Links that ended by an error other than closing.
    pub faults: u64,
}

/// The links of one principal.
#[derive(Default)]
pub struct Links {
    /// Bounded by the group: only its members are ever peers, and who is none any more is forgotten.
    peers: BTreeMap<Peer, Slot>,
    dirty: Vec<Peer>,
    paused: BTreeSet<Peer>,
    deferred: Vec<Deferred>,
    /// For what goes to several peers.
    buffer: Vec<u8>,
    generations: u64,
    clients_waiting: usize,
    faults: BTreeMap<&'static str, u64>,
    limits: Limits,
    roster: Roster,
}

/// What runs once the lock is free.
pub(crate) type Deferred = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Slot {
    counters: PeerCounters,
    link: Option<Outbound>,
}

struct Outbound {
    generation: u64,
    writer: Writer,
    dirty: bool,
    blocked: bool,
    /// Tells the link's task that something other than the socket changed.
    wake: Arc<Notify>,
}

impl Links {
    pub(crate) fn new(limits: Limits, roster: Roster) -> Self {
        Self { limits, roster, ..Self::default() }
    }

    /// Lets in whoever proves the key `link`, as `client`. A key that is somebody else's already stays that one's.
    pub fn admit(&mut self, client: ClientId, link: [u8; 32]) {
        self.roster.admit(client, link);
    }

    /// Writes what waits for `client`, ends its link, and lets it in no more.
    pub fn dismiss(&mut self, client: ClientId) {
        let peer = Peer::Client(client);
        // It is gone either way.
        let _ = self.flush_one(peer);
        self.remove(peer);
        self.peers.remove(&peer);
        self.roster.dismiss(client);
    }

    /// Sends `frame` to `to`, if there is a link and it is not too far behind. What is lost the protocol repairs.
    pub fn send(&mut self, to: Peer, frame: &[u8]) {
        self.send_with(to, |out| out.extend_from_slice(frame));
    }

    /// Sends the frame that `encode` appends to an empty buffer to each of `all`. Otherwise like [`Links::send_with`].
    pub fn broadcast(
        &mut self,
        all: impl Iterator<Item = Peer>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut frame = std::mem::take(&mut self.buffer);
        frame.clear();
        encode(&mut frame);
        let shared = (frame.len() >= SHARED_FROM).then(|| Bytes::copy_from_slice(&frame));
        for to in all {
            let queued = self.queue(to, |writer| match &shared {
                Some(frame) => writer.queue_shared(frame),
                None => writer.queue(|out| out.extend_from_slice(&frame)),
            });
            if queued {
                self.mark(to);
            }
        }
        self.buffer = frame;
    }

    /// Sends the frame that `encode` appends to the buffer. Otherwise like [`Links::send`].
    ///
    /// Panics: where the frame is longer than [`crate::frame::MAX_FRAME`].
    pub fn send_with(&mut self, to: Peer, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.queue(to, |writer| writer.queue(encode)) {
            self.mark(to);
        }
    }

    /// Runs `act` after this turn, when the lock is free: what wakes another thread must not make it wait for this one.
    pub fn defer(&mut self, act: impl FnOnce() + Send + 'static) {
        self.deferred.push(Box::new(act));
    }

    /// Has `add` add a frame for `to` and say how long it is; says whether there is a link that takes it.
    fn queue(&mut self, to: Peer, add: impl FnOnce(&mut Writer) -> Option<usize>) -> bool {
        let Some(Slot { counters, link: Some(link) }) = self.peers.get_mut(&to) else {
            return false;
        };
        let before = link.writer.waiting();
        let is_client = matches!(to, Peer::Client(_));
        let crowded = is_client && before > 0 && self.clients_waiting > self.limits.clients;
        let queued = if crowded { None } else { add(&mut link.writer) };
        let Some(length) = queued else {
            counters.dropped += 1;
            return false;
        };
        counters.frames_out += 1;
        counters.bytes_out += length as u64;
        if is_client {
            self.clients_waiting += link.writer.waiting() - before;
        }
        true
    }

    /// Has the next flush write to `peer`.
    fn mark(&mut self, peer: Peer) {
        let link = self.peers.get_mut(&peer).and_then(|slot| slot.link.as_mut());
        if link.is_some_and(|link| !std::mem::replace(&mut link.dirty, true)) {
            self.dirty.push(peer);
        }
    }

    pub(crate) fn take_deferred(&mut self) -> Vec<Deferred> {
        std::mem::take(&mut self.deferred)
    }

    /// Whether there is a link to `peer`.
    pub fn connected(&self, peer: Peer) -> bool {
        self.link(peer).is_some()
    }

    /// How many bytes wait for `peer`.
    pub fn waiting(&self, peer: Peer) -> usize {
        self.link(peer).map_or(0, |link| link.writer.waiting())
    }

    /// How many bytes are held for `peer`, empty room included.
    pub fn capacity(&self, peer: Peer) -> usize {
        self.link(peer).map_or(0, |link| link.writer.capacity())
    }

    /// What has passed between this principal and `peer`.
    pub fn counters(&self, peer: Peer) -> PeerCounters {
        self.peers.get(&peer).map(|slot| slot.counters).unwrap_or_default()
    }

    /// How many frames were dropped because their receiver did not read.
    pub fn dropped(&self) -> u64 {
        self.peers.values().map(|slot| slot.counters.dropped).sum()
    }

    /// How often a handshake or a link failed, by [`LinkError::kind`], ascending by name.
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.faults.iter().map(|(kind, count)| (*kind, *count))
    }

    fn link(&self, peer: Peer) -> Option<&Outbound> {
        self.peers.get(&peer)?.link.as_ref()
    }

    /// Makes `writer` the link to `peer`; says whether it replaced another.
    pub(crate) fn insert(&mut self, peer: Peer, writer: Writer, wake: Arc<Notify>) -> Inserted {
        let replaced = self.remove(peer);
        self.generations += 1;
        let generation = self.generations;
        let slot = self.peers.entry(peer).or_default();
        slot.counters.links += 1;
        slot.link = Some(Outbound { generation, writer, dirty: false, blocked: false, wake });
        Inserted { generation, replaced }
    }

    /// Ends the link to `peer`; says whether there was one.
    pub(crate) fn remove(&mut self, peer: Peer) -> bool {
        let Some(link) = self.peers.get_mut(&peer).and_then(|slot| slot.link.take()) else {
            return false;
        };
        if matches!(peer, Peer::Client(_)) {
            self.clients_waiting -= link.writer.waiting();
        }
        self.paused.remove(&peer);
        link.wake.notify_one();
        true
    }

    pub(crate) fn remove_all(&mut self) {
        let peers: Vec<Peer> = self.peers.keys().copied().collect();
        for peer in peers {
            self.remove(peer);
        }
    }

    /// Whether the link to `peer` is still the one with this number.
    pub(crate) fn is_current(&self, peer: Peer, generation: u64) -> bool {
        self.link(peer).is_some_and(|link| link.generation == generation)
    }

    pub(crate) fn is_blocked(&self, peer: Peer) -> bool {
        self.link(peer).is_some_and(|link| link.blocked)
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether everything that was sent has been written.
    pub fn is_idle(&self) -> bool {
        self.peers.values().flat_map(|slot| &slot.link).all(|link| link.writer.waiting() == 0)
    }

    /// Counts a handshake that failed; returns how many of this kind there were.
    pub(crate) fn count(&mut self, error: &LinkError) -> u64 {
        let count = self.faults.entry(error.kind()).or_default();
        *count += 1;
        *count
    }

    /// Counts what ended the link to `peer`.
    pub(crate) fn count_of(&mut self, peer: Peer, error: &LinkError) {
        self.count(error);
        if !matches!(error, LinkError::Closed)
            && let Some(slot) = self.peers.get_mut(&peer)
        {
            slot.counters.faults += 1;
        }
    }

    pub(crate) fn count_frame(&mut self, from: Peer, length: usize) {
        if let Some(slot) = self.peers.get_mut(&from) {
            slot.counters.frames_in += 1;
            slot.counters.bytes_in += length as u64;
        }
    }

    pub(crate) fn pause(&mut self, peer: Peer) {
        self.paused.insert(peer);
    }

    /// Wakes the paused links that `may_read` again.
    pub(crate) fn resume(&mut self, may_read: impl Fn(Peer) -> bool) {
        let Self { peers, paused, .. } = self;
        paused.retain(|peer| {
            let ready = may_read(*peer);
            let link = peers.get(peer).and_then(|slot| slot.link.as_ref());
            if let (true, Some(link)) = (ready, link) {
                link.wake.notify_one();
            }
            !ready
        });
    }

    /// Writes what was queued since the last flush; returns the links that failed.
    pub(crate) fn flush(&mut self) -> Vec<(Peer, LinkError)> {
        let mut failed = Vec::new();
        let mut dirty = std::mem::take(&mut self.dirty);
        for peer in dirty.drain(..) {
            let Some(link) = self.peers.get_mut(&peer).and_then(|slot| slot.link.as_mut()) else {
                continue;
            };
            link.dirty = false;
            // One that is blocked is written to when its socket has room.
            if !link.blocked
                && let Err(error) = self.flush_one(peer)
            {
                failed.push((peer, error));
            }
        }
        self.dirty = dirty;
        failed
    }

    /// Writes what waits for `peer`. Where its socket is full, its task goes on when there is room.
    pub(crate) fn flush_one(&mut self, peer: Peer) -> Result<(), LinkError> {
        let Some(link) = self.peers.get_mut(&peer).and_then(|slot| slot.link.as_mut()) else {
            return Ok(());
        };
        let before = link.writer.waiting();
        let flushed = link.writer.flush();
        if matches!(peer, Peer::Client(_)) {
            // A record is a little longer than what it holds.
            self.clients_waiting = self.clients_waiting + link.writer.waiting() - before;
        }
        let blocked = flushed? == Flushed::Blocked;
        if blocked && !link.blocked {
            link.wake.notify_one();
        }
        link.blocked = blocked;
        Ok(())
    }
}

/// A link that has just been made.
pub(crate) struct Inserted {
    pub generation: u64,
    pub replaced: bool,
}
