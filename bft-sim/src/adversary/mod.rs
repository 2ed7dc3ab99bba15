//! What a faulty replica or client does, by name: every B-nn of the catalogue that is made of messages.
//!
//! An adversary stands between an honest core and the wire and holds the keys of its one principal. It sees messages,
//! time, entropy and what a member of the group knows, and nothing of a simulator: the same object runs inside a real
//! process.
//!
//! ```text
//! catalogue.rs    the table: name, who is faulty, what correct nodes must do, and how to make it
//! primary.rs      a faulty primary
//! voter.rs        a faulty backup
//! view_change.rs  lies in VIEW-CHANGE and NEW-VIEW
//! state.rs        checkpoints, state transfer, replies
//! forgery.rs      answers about files that are well formed and false
//! collusion.rs    what several faulty replicas do together
//! client.rs       faulty clients
//! impostor.rs     clients that are not who they say, or whom only one replica believes
//! stale.rs        answers that were true before
//! general.rs      silence, replay, floods, small-scope mutation; compositions
//! ```

pub mod catalogue;
mod client;
mod collusion;
mod forgery;
mod general;
pub(crate) mod impostor;
pub(crate) mod primary;
pub(crate) mod stale;
mod state;
mod view_change;
mod voter;

use bft_core::auth::Crypto;
use bft_core::messages::Message;
use bft_core::types::{ClusterSize, GroupId, Peer, ReplicaId, Tick, Time};
pub use catalogue::{ATTACKS, Actor, Attack, UnknownAttack, by_name};
use fastrand::Rng;
pub use general::{Both, Intermittent, Replay};
pub use primary::digest_of;
use std::time::Duration;

/// A message that an adversary puts on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// How long it is held back.
    pub delay: Duration,
    /// To whom.
    pub to: Peer,
    /// What.
    pub message: Message,
}

/// What every member of a group knows of it.
#[derive(Clone, Debug)]
pub struct Knowledge {
    /// Which group.
    pub group: GroupId,
    /// n and f.
    pub size: ClusterSize,
    /// How many clients are registered.
    pub clients: u32,
    /// K.
    pub checkpoint_interval: u64,
    /// L.
    pub window: u64,
    /// How long a request may wait before the primary is suspected.
    pub view_timeout: Duration,
    /// The replicas that are faulty too, this one included: at most f.
    pub accomplices: Vec<ReplicaId>,
}

impl Knowledge {
    /// Every replica.
    pub fn replicas(&self) -> impl Iterator<Item = Peer> + use<> {
        self.size.replicas().map(Peer::Replica)
    }

    /// f correct replicas to be wronged: the last ones.
    pub fn victims(&self) -> Vec<Peer> {
        let mut correct: Vec<_> =
            self.size.replicas().filter(|i| !self.accomplices.contains(i)).collect();
        let kept = correct.len().saturating_sub(self.size.f());
        correct.drain(..kept);
        correct.into_iter().map(Peer::Replica).collect()
    }

    /// Whether `to` belongs to the half of the group that is told one thing; the other half is told another.
    pub fn in_second_half(&self, to: Peer) -> bool {
        matches!(to, Peer::Replica(i) if i.index() * 2 >= self.size.n())
    }
}

/// What an adversary has at hand when something happens.
pub struct Context<'a> {
    /// Now, by the monotonic clock.
    pub now: Tick,
    /// Now, by the wall clock.
    pub wall: Time,
    /// Whose keys it holds.
    pub me: Peer,
    /// The group.
    pub group: &'a Knowledge,
    /// Signs as `me` and computes MACs.
    pub crypto: &'a dyn Crypto,
    /// Entropy.
    pub rng: &'a mut Rng,
    /// What goes out.
    pub wire: &'a mut Vec<Envelope>,
}

impl Context<'_> {
    /// Sends at once.
    pub fn send(&mut self, to: Peer, message: Message) {
        self.send_after(Duration::ZERO, to, message);
    }

    /// Sends later.
    pub fn send_after(&mut self, delay: Duration, to: Peer, message: Message) {
        self.wire.push(Envelope { delay, to, message });
    }

    /// Sends to every other replica.
    pub fn broadcast(&mut self, message: &Message) {
        let me = self.me;
        for to in self.group.replicas().filter(|to| *to != me) {
            self.send(to, message.clone());
        }
    }

    /// One replica at random, never itself.
    pub fn any_other(&mut self) -> Peer {
        let others: Vec<_> = self.group.replicas().filter(|to| *to != self.me).collect();
        others.get(self.rng.usize(..others.len().max(1))).copied().unwrap_or(self.me)
    }
}

/// A faulty principal. Whatever it does not override, it does as its honest core would.
pub trait Adversary: Send {
    /// The honest core wants to send `message` to `to`.
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        ctx.send(to, message);
    }

    /// `from` has sent `message`. Says whether the honest core is to see it.
    fn on_receive(&mut self, ctx: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        let _ = (ctx, from, message);
        true
    }

    /// A little time has passed: about every ten milliseconds.
    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        let _ = ctx;
    }
}

/// How often [`Adversary::on_tick`] is due.
pub const TICK: Duration = Duration::from_millis(10);
