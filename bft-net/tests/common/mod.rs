//! A group on loopback, and an endpoint that writes down what happens to it.

#![allow(dead_code)]

use bft_core::types::{ClientId, Peer, ReplicaId};
use bft_net::group::{ClientEntry, Group, Member, Parameters};
use bft_net::hub::{Endpoint, Hub, HubConfig, Limits, Links};
use bft_net::keys::Identity;
use bft_net::noise::Local;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything that should happen does so long before; this only ends a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn replica(i: u32) -> Peer {
    Peer::Replica(ReplicaId(i))
}

pub fn client(c: u32) -> Peer {
    Peer::Client(ClientId(c))
}

/// A group, all its keys, and its replicas' listeners until they are started.
pub struct World {
    pub group: Arc<Group>,
    pub replicas: Vec<Identity>,
    pub clients: Vec<Identity>,
    listeners: Vec<Option<TcpListener>>,
}

impl World {
    pub fn new(replicas: usize, clients: usize) -> Self {
        let listener = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<_> = (0..replicas).map(listener).collect();
        let replicas: Vec<_> = (0..replicas).map(|_| Identity::generate()).collect();
        let clients: Vec<_> = (0..clients).map(|_| Identity::generate()).collect();
        let member = |(listener, identity): (&TcpListener, &Identity)| Member {
            address: listener.local_addr().unwrap().to_string(),
            identity: identity.public(),
        };
        let entry =
            |identity: &Identity| ClientEntry { name: "c".into(), identity: identity.public() };
        let group = Group {
            name: "test".into(),
            f: 0,
            memory: 64 << 20,
            parameters: Parameters::default(),
            replicas: listeners.iter().zip(&replicas).map(member).collect(),
            clients: clients.iter().map(entry).collect(),
        };
        group.check().unwrap();
        let listeners = listeners.into_iter().map(Some).collect();
        Self { group: Arc::new(group), replicas, clients, listeners }
    }

    pub fn identity(&self, peer: Peer) -> Identity {
        match peer {
            Peer::Replica(i) => self.replicas[i.index()].clone(),
            Peer::Client(c) => self.clients[c.0 as usize].clone(),
        }
    }

    pub fn local(&self, peer: Peer) -> Local {
        Local::new(self.identity(peer), &self.group)
    }

    pub fn address(&self, i: u32) -> String {
        self.group.replicas[i as usize].address.clone()
    }

    /// The listener of replica `i`, bound again if it was taken before.
    pub fn listener(&mut self, i: u32) -> TcpListener {
        let taken = self.listeners[i as usize].take();
        taken.unwrap_or_else(|| TcpListener::bind(self.address(i)).unwrap())
    }

    pub fn start(&mut self, me: Peer) -> Hub<Recorder> {
        self.start_with(me, Limits::default(), Recorder::default())
    }

    pub fn start_with<E: Endpoint>(&mut self, me: Peer, limits: Limits, endpoint: E) -> Hub<E> {
        let listen = match me {
            Peer::Replica(i) => Some(self.listener(i.0)),
            Peer::Client(_) => None,
        };
        let config =
            HubConfig { identity: self.identity(me), group: self.group.clone(), me, listen };
        Hub::start_with(config, limits, endpoint)
    }
}

/// Writes down what happens.
#[derive(Default)]
pub struct Recorder {
    pub frames: Vec<(Peer, Vec<u8>)>,
    pub events: Vec<(Peer, bool)>,
    /// Sends every frame back.
    pub echo: bool,
    /// How many more frames it takes from a peer; without an entry, any number.
    pub credits: BTreeMap<Peer, usize>,
    /// How long each frame of a peer takes; without an entry, no time.
    pub work: BTreeMap<Peer, Duration>,
    pub deadline: Option<Instant>,
    pub deadlines_passed: usize,
    /// Leaves the deadline in the past.
    pub forgetful: bool,
}

impl Endpoint for Recorder {
    fn on_frame(&mut self, from: Peer, frame: &[u8], links: &mut Links) {
        if self.echo {
            links.send(from, frame);
        } else {
            self.frames.push((from, frame.to_vec()));
        }
        if let Some(work) = self.work.get(&from) {
            std::thread::sleep(*work);
        }
        if let Some(credits) = self.credits.get_mut(&from) {
            *credits = credits.checked_sub(1).expect("no frame without a credit");
        }
    }

    fn on_link(&mut self, peer: Peer, up: bool, _: &mut Links) {
        self.events.push((peer, up));
    }

    fn on_deadline(&mut self, _: &mut Links) {
        self.deadlines_passed += 1;
        if !self.forgetful {
            self.deadline = None;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn may_read(&self, peer: Peer) -> bool {
        self.credits.get(&peer) != Some(&0)
    }
}

/// Waits until `done` says so of the endpoint and its links.
pub async fn until<E: Endpoint>(
    what: &str,
    hub: &Hub<E>,
    mut done: impl FnMut(&mut E, &mut Links) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    while !hub.with(|endpoint, links| done(endpoint, links)) {
        assert!(Instant::now() < end, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until there is a link to `peer`.
pub async fn connected<E: Endpoint>(hub: &Hub<E>, peer: Peer) {
    until(&format!("a link to {peer}"), hub, |_, links| links.connected(peer)).await;
}

/// How often `kind` was counted.
pub fn faults(links: &Links, kind: &str) -> u64 {
    links.faults().find(|(name, _)| *name == kind).map_or(0, |(_, count)| count)
}
