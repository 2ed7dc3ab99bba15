//! What leaves a process, and what an adversary makes of it on the way.

use super::{Event, World};
use crate::adversary::{Context, Envelope};
use crate::network::Address;
use crate::node::{Evil, START};
use bft_core::codec;
use bft_core::io::{Destination, Input};
use bft_core::messages::Message;
use bft_core::types::{Peer, Tick, Time};
use std::sync::Arc;

impl World {
    /// `message` leaves the replica at `from`; whoever lies there sees it first, once for each receiver.
    pub(super) fn transmit(&mut self, from: usize, to: Destination, message: &Message) {
        let me = self.nodes[from].id;
        let targets: Vec<Peer> = match to {
            Destination::Replicas => {
                self.size.replicas().filter(|i| *i != me).map(Peer::Replica).collect()
            }
            Destination::Replica(i) => vec![Peer::Replica(i)],
            Destination::Client(c) => vec![Peer::Client(c)],
        };
        if self.nodes[from].evil.is_some() {
            for to in targets {
                self.with_evil(from, |evil, ctx| evil.adversary.on_send(ctx, to, message.clone()));
            }
            return;
        }
        self.remember(message);
        let bytes = encoded(message);
        assert!(bytes.len() <= codec::MAX_MESSAGE, "a {} that no link carries", message.name());
        for to in targets {
            self.carry(from, to, &bytes, 0);
        }
    }

    /// Lets the adversary at `address` act, and sends what it wants sent.
    pub(super) fn with_evil<R>(
        &mut self,
        address: Address,
        act: impl FnOnce(&mut Evil, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let me = self.peer(address);
        let hosts = self.nodes.len();
        let (mut evil, crypto) = match self.nodes.get_mut(address) {
            Some(node) => (node.evil.take()?, node.crypto.clone()),
            None => {
                let client = &mut self.clients[address - hosts];
                (client.evil.take()?, client.crypto.clone())
            }
        };
        let mut wire = Vec::new();
        let mut rng = evil.rng.clone();
        let mut ctx = Context {
            now: Tick(self.now),
            wall: Time(START + self.now * 1_000),
            me,
            group: &self.knowledge,
            crypto: &*crypto,
            rng: &mut rng,
            wire: &mut wire,
        };
        let done = act(&mut evil, &mut ctx);
        evil.rng = rng;
        match self.nodes.get_mut(address) {
            Some(node) => node.evil = Some(evil),
            None => self.clients[address - hosts].evil = Some(evil),
        }
        for Envelope { delay, to, message } in wire {
            self.remember(&message);
            self.note(format_args!("{me}! -> {to} {message}"));
            self.carry(address, to, &encoded(&message), delay.as_micros() as u64);
        }
        Some(done)
    }

    /// Puts encoded bytes on the link.
    pub(super) fn carry(&mut self, from: Address, to: Peer, bytes: &Arc<Vec<u8>>, delay: u64) {
        for target in self.addresses(to) {
            if !self.connected(from, target) {
                continue;
            }
            for on_the_way in self.network.deliveries(&mut self.rng, self.now, from, target) {
                let event = Event::Frame { from, to: target, bytes: bytes.clone() };
                self.schedule(self.lag + delay + on_the_way, event);
            }
        }
    }

    /// Of twins, each address is connected to one at a time.
    fn connected(&self, a: Address, b: Address) -> bool {
        let (n, hosts) = (self.size.n(), self.nodes.len());
        if hosts == n {
            return true;
        }
        let copy_of = |address: Address| {
            let node = self.nodes.get(address)?;
            let doubled = (n..hosts).any(|twin| self.nodes[twin].id == node.id);
            doubled.then_some(address >= n)
        };
        // Two copies hear each other where they are on the same side.
        let side_of = |address: Address| copy_of(address).unwrap_or(self.sides[address]);
        match (copy_of(a), copy_of(b)) {
            (None, None) => true,
            _ => side_of(a) == side_of(b),
        }
    }

    pub(super) fn tick(&mut self, address: Address) {
        let node = self.nodes.get(address);
        if node.is_some_and(|node| node.evil.is_none()) {
            return;
        }
        if node.is_none_or(|node| node.replica.is_some()) {
            self.with_evil(address, |evil, ctx| evil.adversary.on_tick(ctx));
        }
        self.schedule(self.tick, Event::Tick { address });
    }

    /// A frame has arrived. Where work costs time it waits for its turn.
    pub(super) fn arrive(&mut self, from: Address, to: Address, bytes: Arc<Vec<u8>>) {
        if to >= self.nodes.len() {
            return self.deliver_to_client(from, to - self.nodes.len(), &bytes);
        }
        if self.costs.is_none() {
            return self.deliver(from, to, &bytes);
        }
        self.nodes[to].processor.push(from, bytes);
        self.wake(to);
    }

    fn wake(&mut self, to: usize) {
        let processor = &mut self.nodes[to].processor;
        if processor.has_work() && !processor.scheduled {
            processor.scheduled = true;
            let at = processor.busy_until.div_ceil(1_000);
            self.schedule(at.saturating_sub(self.now), Event::Ready { replica: to });
        }
    }

    pub(super) fn ready(&mut self, replica: usize) {
        self.nodes[replica].processor.scheduled = false;
        if self.nodes[replica].paused_until <= self.now
            && let Some((from, bytes)) = self.nodes[replica].processor.pop()
        {
            self.deliver(from, replica, &bytes);
        }
        self.wake(replica);
    }

    fn deliver(&mut self, from: Address, to: usize, bytes: &[u8]) {
        let honest = self.is_honest(from);
        let Ok(message) = codec::decode(bytes) else {
            if honest {
                self.violation("I-14: a replica or client sent what does not decode".into());
            }
            return;
        };
        let peer = self.peer(from);
        if self.nodes[to].evil.is_some() {
            let seen =
                self.with_evil(to, |evil, ctx| evil.adversary.on_receive(ctx, peer, &message));
            if seen == Some(false) {
                return;
            }
        }
        let Some(replica) = &self.nodes[to].replica else { return };
        match replica.verify(peer, message) {
            Ok(verified) => self.replica_input(to, Input::Message(verified), bytes.len()),
            Err(why) => self.refuse(to, peer, why, bytes.len()),
        }
    }

    /// Whether what is at `address` follows the protocol.
    pub(super) fn is_honest(&self, address: Address) -> bool {
        match self.nodes.get(address) {
            Some(node) => node.evil.is_none(),
            None => self.clients[address - self.nodes.len()].evil.is_none(),
        }
    }
}

/// The canonical bytes of `message`, shared by all its receivers.
pub(super) fn encoded(message: &Message) -> Arc<Vec<u8>> {
    let mut bytes = Vec::new();
    codec::encode(message, &mut bytes);
    Arc::new(bytes)
}
