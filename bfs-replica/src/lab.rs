//! Lab builds: the simulator's adversaries between a real replica and its links.
//!
//! Which attack runs is said at the start by `--attack`, or at any time by the file `attack` in the replica's folder
//! (`bfs drill` writes it); what came of it is in `lab.json` beside it.
//!
//! ```text
//! client.rs    a client that attacks
//! control.rs   the two files
//! late.rs      messages that are held back
//! ```

pub mod client;
mod control;
mod late;

use crate::wire::{Scene, Wire};
use bft_core::auth::RealCrypto;
use bft_core::codec;
use bft_core::io::Destination;
use bft_core::messages::Message;
use bft_core::types::{ClusterSize, Peer, ReplicaId, Tick, Time};
use bft_net::hub::Links;
use bft_sim::adversary::{self, Adversary, Attack, Context, Envelope, Knowledge, TICK};
use control::{Control, Order, Tally};
use fastrand::Rng;
use late::Late;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The adversary between one replica and its links, or nothing while no attack is ordered.
pub struct Lab {
    me: ReplicaId,
    knowledge: Knowledge,
    crypto: RealCrypto,
    rng: Rng,
    started: Instant,
    adversary: Option<Box<dyn Adversary>>,
    next_tick: Instant,
    late: Late,
    tally: Tally,
    control: Control,
}

/// The attacks that one replica can make by what it sends and hears.
fn of_replicas() -> impl Iterator<Item = &'static Attack> {
    adversary::ATTACKS.iter().filter(|attack| attack.replica.is_some())
}

/// The attack called `name`, as one replica makes it.
///
/// Errors: for people; it lists the names that there are.
fn find(name: &str) -> Result<&'static Attack, String> {
    let found = of_replicas().find(|attack| attack.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let names: Vec<_> = of_replicas().map(|attack| attack.name).collect();
        format!("no attack of replicas is called {name}; there are: {}", names.join(", "))
    })
}

impl Wire for Lab {
    const PROGRAM: &'static str = "bfs-replica-lab";
    const VERSION: &'static str =
        concat!(env!("CARGO_PKG_VERSION"), " (LAB BUILD: it can attack its own group)");

    fn knows(name: &str) -> Result<(), String> {
        find(name).map(drop)
    }

    fn new(scene: &Scene<'_>) -> io::Result<Self> {
        let parameters = &scene.group.parameters;
        let knowledge = Knowledge {
            group: scene.group.id(),
            size: scene.group.size(),
            clients: u32::try_from(scene.group.clients.len()).unwrap_or(u32::MAX),
            checkpoint_interval: parameters.checkpoint_interval,
            window: parameters.window,
            view_timeout: Duration::from_millis(parameters.view_timeout_ms),
            accomplices: vec![scene.me],
        };
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let seed = u64::from_le_bytes(seed);
        tracing::warn!("LAB BUILD: this replica can be told to attack its own group");
        let control = Control::begin(scene)?;
        let mut lab = Self {
            me: scene.me,
            knowledge,
            crypto: RealCrypto::new(scene.signing_seed),
            rng: Rng::with_seed(seed),
            started: Instant::now(),
            adversary: None,
            next_tick: Instant::now(),
            late: Late::default(),
            tally: Tally::default(),
            control,
        };
        if let Some(name) = scene.attack {
            lab.obey(Order { attack: Some(name.to_owned()), accomplices: Vec::new() });
        }
        Ok(lab)
    }

    fn carries(&mut self, to: Destination, message: &Message, links: &mut Links) -> bool {
        if self.adversary.is_none() {
            return false;
        }
        let me = self.me;
        for to in receivers(self.knowledge.size, me, to) {
            let wire = self.act(|adversary, ctx| adversary.on_send(ctx, to, message.clone())).1;
            self.tally.note(to, message, &wire);
            self.send_all(wire, links);
        }
        true
    }

    fn lets_in(&mut self, from: Peer, message: &Message, links: &mut Links) -> bool {
        let (seen, wire) = self.act(|adversary, ctx| adversary.on_receive(ctx, from, message));
        self.tally.made_up(&wire);
        self.send_all(wire, links);
        self.tally.ignored += u64::from(seen == Some(false));
        seen.unwrap_or(true)
    }

    fn on_deadline(&mut self, links: &mut Links) {
        let now = Instant::now();
        self.late.due(now, |to, frame| links.send(to, frame));
        if self.adversary.is_some() && self.next_tick <= now {
            self.next_tick = now + TICK;
            let wire = self.act(|adversary, ctx| adversary.on_tick(ctx)).1;
            self.tally.made_up(&wire);
            self.send_all(wire, links);
        }
        if let Some(order) = self.control.look(now) {
            self.obey(order);
        }
        self.control.tell(now, &self.tally);
    }

    fn deadline(&self) -> Option<Instant> {
        let tick = self.adversary.is_some().then_some(self.next_tick);
        self.late.next().into_iter().chain(tick).chain([self.control.next()]).min()
    }
}

impl Lab {
    /// Begins or ends an attack. An unknown one ends what runs, and the file says why.
    fn obey(&mut self, order: Order) {
        self.adversary = None;
        self.late = Late::default();
        let attack = order.attack.as_deref().map(find).transpose();
        let named = attack.as_ref().ok().copied().flatten();
        self.control.set(named.map(|attack| attack.name), attack.err());
        let Some(attack) = named else { return tracing::warn!("honest again") };
        tracing::warn!("ATTACKING by {}: {}", attack.name, attack.title);
        self.knowledge.accomplices =
            order.accomplices.into_iter().map(ReplicaId).chain([self.me]).collect();
        self.tally = Tally::default();
        self.next_tick = Instant::now();
        self.adversary = attack.replica.map(|make| make());
    }

    /// Lets the adversary act; returns what it says and what it wants sent. Without one nothing happens.
    fn act<R>(
        &mut self,
        act: impl FnOnce(&mut dyn Adversary, &mut Context<'_>) -> R,
    ) -> (Option<R>, Vec<Envelope>) {
        let mut wire = Vec::new();
        let Some(adversary) = &mut self.adversary else { return (None, wire) };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut ctx = Context {
            now: Tick(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)),
            wall: Time(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)),
            me: Peer::Replica(self.me),
            group: &self.knowledge,
            crypto: &self.crypto,
            rng: &mut self.rng,
            wire: &mut wire,
        };
        (Some(act(&mut **adversary, &mut ctx)), wire)
    }

    fn send_all(&mut self, wire: Vec<Envelope>, links: &mut Links) {
        for Envelope { delay, to, message } in wire {
            if delay.is_zero() {
                links.send_with(to, |frame| codec::encode(&message, frame));
            } else {
                let mut frame = Vec::new();
                codec::encode(&message, &mut frame);
                self.late.hold(Instant::now() + delay, to, frame);
            }
        }
    }
}

fn receivers(size: ClusterSize, me: ReplicaId, to: Destination) -> Vec<Peer> {
    match to {
        Destination::Replicas => size.replicas().filter(|i| *i != me).map(Peer::Replica).collect(),
        Destination::Replica(i) => vec![Peer::Replica(i)],
        Destination::Client(c) => vec![Peer::Client(c)],
    }
}
