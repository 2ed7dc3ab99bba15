//! One world: replicas, clients, links and disks, and a queue of events in order of virtual time.
//!
//! Everything that happens follows from the seed. Each step pops the earliest event, hands it to its node, does what the
//! outputs say, and asks the oracle.

use crate::clients::Workload;
use crate::crypto::Symbolic;
use crate::network::{Address, Network};
use crate::oracle::Oracle;
use bfs_fs::object::Object;
use bfs_fs::{FileSystem, FileSystemConfig};
use bft_core::auth::Authority;
use bft_core::client::{Client, ClientConfig, ClientInput, ClientOutput};
use bft_core::codec;
use bft_core::io::{Batch, Destination, Input, Job, JobResult, Output, Record, Timer};
use bft_core::messages::{Message, Phase, SessionId};
use bft_core::replica::{Config, Replica, Snapshot};
use bft_core::types::{
    ClientId, ClusterSize, Digest, Domain, GroupId, Hasher, Now, Peer, PersistId, ReplicaId,
    SequenceNumber, Tick, Time,
};
use bytes::Bytes;
use fastrand::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything random follows from this.
    pub seed: u64,
    /// The number of replicas.
    pub n: u32,
    /// How many of them may be faulty.
    pub f: u32,
    /// How many clients work at once.
    pub clients: u32,
    /// How many operations each client runs.
    pub operations: u64,
    /// Print every event.
    pub trace: bool,
}

/// What came of a world.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Events handled.
    pub events: u64,
    /// The last sequence number executed.
    pub commits: u64,
    /// Replicas that crashed and came back.
    pub restarts: u64,
    /// States that a replica fetched because it had been left behind.
    pub transfers: u64,
    /// Inputs that replicas refused.
    pub rejected: u64,
    /// The digest of everything that happened.
    pub trace_hash: String,
    /// What must never happen and did.
    pub violations: Vec<String>,
}

enum Event {
    Frame { from: Address, to: Address, bytes: Arc<Vec<u8>> },
    ReplicaTimer { replica: usize, timer: Timer, at: Tick },
    ClientTimer { client: usize, at: Tick },
    Persisted { replica: usize, life: u64, id: PersistId },
    JobDone { replica: usize, life: u64, result: JobResult },
    Connect { replica: usize, peer: Peer },
    Crash { replica: usize },
    Restart { replica: usize },
}

struct Node {
    replica: Option<Replica<FileSystem>>,
    crypto: Arc<Symbolic>,
    /// Counts restarts: what an earlier life had under way does not reach a later one.
    life: u64,
    timers: BTreeMap<Timer, Tick>,
    disk: Disk,
    /// Sends that wait for a record.
    held: Vec<(PersistId, Destination, Message)>,
    /// Every batch that was written to its disk.
    batches: BTreeMap<(SequenceNumber, Digest), Arc<Batch>>,
    executed: SequenceNumber,
    /// How far this node's clock is off. Units: nanoseconds.
    skew: u64,
}

/// A replica's disk: what is written and not yet durable is lost in a crash.
struct Disk {
    snapshot: Snapshot<Object>,
    records: Vec<Record>,
    pending: VecDeque<(PersistId, Record, Option<Snapshot<Object>>)>,
    durable: PersistId,
}

impl Disk {
    fn new(snapshot: Snapshot<Object>) -> Self {
        Self { snapshot, records: Vec::new(), pending: VecDeque::new(), durable: PersistId(0) }
    }

    /// Everything up to `id` is durable from now on. Once a Stable record is, what it covers may go.
    fn sync(&mut self, id: PersistId) {
        while self.pending.front().is_some_and(|(written, ..)| *written <= id) {
            let Some((_, record, snapshot)) = self.pending.pop_front() else { break };
            if let Some(snapshot) = snapshot {
                let n = snapshot.n;
                self.snapshot = snapshot;
                self.records.retain(|record| match record {
                    Record::Q { n: of, .. }
                    | Record::P { n: of, .. }
                    | Record::Decided { n: of, .. } => *of > n,
                    Record::Stable { .. } => false,
                    Record::View(_)
                    | Record::NewView { .. }
                    | Record::Amnesia { .. }
                    | Record::Ceiling(_) => true,
                });
            }
            self.records.push(record);
        }
        self.durable = self.durable.max(id);
    }

    /// Power is lost. Ids start over with the next life.
    fn crash(&mut self) {
        self.pending.clear();
        self.durable = PersistId(0);
    }
}

struct ClientNode {
    client: Client,
    workload: Workload,
    timer: Option<Tick>,
}

/// A world, running.
pub struct World {
    plan: Plan,
    size: ClusterSize,
    config: Config,
    network: Network,
    rng: Rng,
    now: u64,
    order: u64,
    events: BTreeMap<(u64, u64), Event>,
    nodes: Vec<Node>,
    clients: Vec<ClientNode>,
    oracle: Oracle,
    trace: Hasher,
    report: Report,
    disk_delay: u64,
}

const GROUP: GroupId = GroupId(Digest([7; 32]));
const START: u64 = 1_700_000_000_000_000_000;
/// The longest a world may take. Units: microseconds of virtual time.
const PATIENCE: u64 = 600_000_000;
/// How long a world goes on after the last answer. Units: microseconds of virtual time.
const REST: u64 = 5_000_000;

impl World {
    /// A world made from `plan`.
    ///
    /// Panics: where the plan's n and f do not make a group.
    pub fn new(plan: Plan) -> Self {
        let mut rng = Rng::with_seed(plan.seed);
        let size = ClusterSize::new(plan.n, plan.f).expect("n must be at least 3f + 1");
        let interval = [2, 4, 16, 128][rng.usize(..4)];
        let mut config =
            Config::new(size, ReplicaId(0)).with_window(interval, interval * rng.u64(2..4));
        config.slots = rng.u16(1..8);
        config.pipeline = rng.u64(1..6);
        config.inline_bytes = [16, 256, 8192][rng.usize(..3)];
        config.limits.batch_requests = rng.usize(1..64);
        let network = Network::random(&mut rng);
        let service =
            FileSystem::new(FileSystemConfig { memory_budget: 64 << 20, ..Default::default() });
        let mut world = Self {
            oracle: Oracle::new(service),
            trace: Hasher::new(Domain::State),
            nodes: Vec::new(),
            clients: Vec::new(),
            events: BTreeMap::new(),
            report: Report::default(),
            disk_delay: rng.u64(1..2_000),
            now: 1,
            order: 0,
            plan,
            size,
            config,
            network,
            rng,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        for i in 0..self.size.n() {
            let crypto = Arc::new(Symbolic::new(i as u64));
            let config = Config { me: ReplicaId(i as u32), ..self.config };
            let replica = Replica::new(config, self.authority(i, &crypto), file_system());
            let disk = Disk::new(replica.stable_snapshot());
            let skew = self.rng.u64(..2_000_000_000);
            self.nodes.push(Node {
                replica: Some(replica),
                crypto,
                life: 0,
                timers: BTreeMap::new(),
                disk,
                held: Vec::new(),
                batches: BTreeMap::new(),
                executed: SequenceNumber(0),
                skew,
            });
        }
        for c in 0..self.plan.clients {
            let config = ClientConfig {
                group: GROUP,
                size: self.size,
                me: ClientId(c),
                inline_bytes: self.config.inline_bytes,
                retry: Duration::from_millis(self.rng.u64(20..300)),
                retry_max: Duration::from_secs(2),
                crypto: Arc::new(Symbolic::new(1_000 + u64::from(c))),
            };
            let workload = Workload::new(self.rng.usize(1..6), self.plan.operations);
            self.clients.push(ClientNode { client: Client::new(config), workload, timer: None });
        }
        for replica in 0..self.size.n() {
            for peer in self.size.replicas().filter(|peer| peer.index() != replica) {
                self.schedule(0, Event::Connect { replica, peer: Peer::Replica(peer) });
            }
            for c in 0..self.plan.clients {
                let delay = self.rng.u64(..1_000);
                let peer = Peer::Client(ClientId(c));
                self.schedule(delay, Event::Connect { replica, peer });
            }
        }
        self.plan_crashes();
        for c in 0..self.clients.len() {
            let session = SessionId { epoch: 1, nonce: self.rng.u64(..) };
            self.client_input(c, ClientInput::Open(session));
        }
    }

    /// Backups crash and come back with what their disks hold, at most f at a time.
    fn plan_crashes(&mut self) {
        let mut at = 0;
        for _ in 0..self.rng.u32(..4) {
            let replica = self.rng.usize(..self.size.n());
            if replica >= self.size.n() || self.size.f() == 0 {
                return;
            }
            at += self.rng.u64(1_000..400_000);
            self.schedule(at, Event::Crash { replica });
            at += self.rng.u64(1_000..400_000);
            self.schedule(at, Event::Restart { replica });
        }
    }

    fn authority(&self, i: usize, crypto: &Arc<Symbolic>) -> Authority {
        let replicas = (0..self.size.n() as u64).map(Symbolic::public).collect();
        let clients = (0..u64::from(self.plan.clients)).map(|c| Symbolic::public(1_000 + c));
        Authority::new(
            GROUP,
            self.size,
            ReplicaId(i as u32),
            self.config.limits,
            replicas,
            clients.collect(),
            crypto.clone(),
        )
    }

    /// Runs until every client is done, a promise is broken, or patience ends.
    pub fn run(mut self) -> Report {
        let mut rest_at = None;
        while self.report.violations.is_empty() {
            if self.clients.iter().all(|c| c.workload.is_done()) {
                // What was answered tentatively commits, and whoever lags catches up.
                self.network.heal();
                let end = *rest_at.get_or_insert(self.now + REST);
                if self.now >= end {
                    break;
                }
            }
            if self.now > PATIENCE / 4 {
                self.network.heal();
            }
            let Some(((at, _), event)) = self.events.pop_first() else {
                if rest_at.is_some() {
                    break;
                }
                self.violation("I-7: nothing more happens, and clients wait".into());
                break;
            };
            self.now = at;
            if self.now > PATIENCE {
                let waiting: usize = self.clients.iter().map(|c| c.workload.pending()).sum();
                self.violation(format!("I-7: {waiting} operations wait for ever"));
                break;
            }
            self.step(event);
        }
        self.rest();
        self.report.commits = self.oracle.executed().0;
        self.report.trace_hash = self.trace.finish().short(8);
        self.report
    }

    /// At rest every correct replica's state must be the reference executor's.
    fn rest(&mut self) {
        let mut faults = Vec::new();
        for node in &self.nodes {
            if let Some(replica) = &node.replica {
                let n = replica.tentative().unwrap_or(replica.executed());
                // Where null requests go on to the end, the last batch may be under way.
                if replica.tentative().is_none() || n <= self.oracle.executed() {
                    faults.extend(self.oracle.compare(n, replica.objects()).err());
                }
            }
        }
        faults.extend(self.oracle.check_tree().err());
        faults.extend(self.oracle.check_answers().err());
        self.report.violations.extend(faults);
    }

    fn violation(&mut self, what: String) {
        self.report.violations.push(what);
    }

    fn check(&mut self, found: Result<(), String>) {
        if let Err(what) = found {
            self.violation(what);
        }
    }

    fn schedule(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.events.insert((self.now + delay, self.order), event);
    }

    fn now_at(&self, replica: usize) -> Now {
        let wall = START + self.now * 1_000 + self.nodes[replica].skew;
        Now { tick: Tick(self.now), wall: Time(wall) }
    }

    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        let text = line.to_string();
        self.trace.bytes(text.as_bytes());
        if self.plan.trace {
            println!("{:>10} {text}", self.now);
        }
    }

    fn step(&mut self, event: Event) {
        self.report.events += 1;
        match event {
            Event::Frame { from, to, bytes } => self.deliver(from, to, &bytes),
            Event::ReplicaTimer { replica, timer, at } => {
                if self.nodes[replica].timers.get(&timer) == Some(&at) {
                    self.nodes[replica].timers.remove(&timer);
                    self.replica_input(replica, Input::Timeout(timer));
                }
            }
            Event::ClientTimer { client, at } => {
                if self.clients[client].timer == Some(at) {
                    self.clients[client].timer = None;
                    self.client_input(client, ClientInput::Timeout);
                }
            }
            Event::Persisted { replica, life, id } if self.nodes[replica].life == life => {
                self.persisted(replica, id);
            }
            Event::JobDone { replica, life, result } if self.nodes[replica].life == life => {
                self.replica_input(replica, Input::JobDone(result));
            }
            Event::Connect { replica, peer } => self.connect(replica, peer),
            Event::Crash { .. } if self.is_degraded() => {}
            Event::Crash { replica } => {
                self.note(format_args!("r{replica} crashes"));
                let node = &mut self.nodes[replica];
                node.replica = None;
                node.life += 1;
                node.timers.clear();
                node.held.clear();
                node.disk.crash();
            }
            Event::Restart { replica } => self.restart(replica),
            Event::Persisted { .. } | Event::JobDone { .. } => {}
        }
    }

    /// Whether some replica is down, or mute because it has lost its memory.
    fn is_degraded(&self) -> bool {
        let recovers = |replica: &Replica<FileSystem>| replica.health(0).phase == Phase::Recovering;
        self.nodes.iter().any(|node| node.replica.as_ref().is_none_or(recovers))
    }

    fn restart(&mut self, replica: usize) {
        if self.nodes[replica].replica.is_some() {
            return;
        }
        let wiped = self.rng.u32(..4) == 0;
        let node = &mut self.nodes[replica];
        let config = Config { me: ReplicaId(replica as u32), ..self.config };
        let crypto = node.crypto.clone();
        if wiped {
            node.disk = Disk::new(Snapshot { n: SequenceNumber(0), objects: genesis() });
        }
        let authority = self.authority(replica, &crypto);
        let node = &self.nodes[replica];
        let (snapshot, records) = (node.disk.snapshot.clone(), &node.disk.records);
        let recovered = if wiped {
            Ok(Replica::rejoin(config, authority, file_system(), node.life))
        } else {
            Replica::recover(config, authority, file_system(), snapshot, records)
        };
        self.note(format_args!("r{replica} restarts"));
        match recovered {
            Ok(recovered) => {
                self.report.restarts += 1;
                let node = &mut self.nodes[replica];
                node.executed = recovered.executed();
                node.replica = Some(recovered);
                for peer in self.size.replicas().filter(|peer| peer.index() != replica) {
                    self.schedule(0, Event::Connect { replica, peer: Peer::Replica(peer) });
                }
                for c in 0..self.plan.clients {
                    self.schedule(0, Event::Connect { replica, peer: Peer::Client(ClientId(c)) });
                }
            }
            Err(why) => self.violation(format!("I-13: r{replica} cannot restart: {why}")),
        }
    }

    fn connect(&mut self, replica: usize, peer: Peer) {
        if self.nodes[replica].replica.is_none() {
            return;
        }
        let mut entropy = [0; 32];
        entropy.fill_with(|| self.rng.u8(..));
        self.replica_input(replica, Input::Connected { peer, entropy });
        if let Peer::Client(c) = peer {
            let input = ClientInput::Connected(ReplicaId(replica as u32));
            self.client_input(c.0 as usize, input);
        }
    }

    fn deliver(&mut self, from: Address, to: Address, bytes: &[u8]) {
        let Ok(message) = codec::decode(bytes) else {
            self.violation("I-14: a replica or client sent what does not decode".into());
            return;
        };
        if to >= self.size.n() {
            let from = ReplicaId(from as u32);
            self.client_input(to - self.size.n(), ClientInput::Message(from, message));
            return;
        }
        let peer = self.peer(from);
        let Some(replica) = &self.nodes[to].replica else { return };
        match replica.verify(peer, message) {
            Ok(verified) => self.replica_input(to, Input::Message(verified)),
            Err(why) => {
                let mut outputs = Vec::new();
                if let Some(replica) = &mut self.nodes[to].replica {
                    replica.reject(peer, why, &mut outputs);
                }
                self.perform(to, outputs);
            }
        }
    }

    fn peer(&self, address: Address) -> Peer {
        if address < self.size.n() {
            Peer::Replica(ReplicaId(address as u32))
        } else {
            Peer::Client(ClientId((address - self.size.n()) as u32))
        }
    }

    fn replica_input(&mut self, i: usize, input: Input) {
        let now = self.now_at(i);
        let mut outputs = Vec::new();
        let Some(replica) = &mut self.nodes[i].replica else { return };
        replica.handle(now, input, &mut outputs);
        replica.check_invariants();
        let executed = replica.executed();
        self.perform(i, outputs);
        self.observe(i, executed);
    }

    /// Tells the oracle what this replica has executed.
    fn observe(&mut self, i: usize, executed: SequenceNumber) {
        while self.nodes[i].executed < executed {
            let n = self.nodes[i].executed.next();
            let Some(replica) = &self.nodes[i].replica else { return };
            let (digest, health) = (replica.executed_at(n), replica.health(0));
            if digest.is_none() && health.stable >= n {
                // It fetched the state instead: that must be the one everybody else had there.
                self.report.transfers += 1;
                self.nodes[i].executed = health.stable;
                let found = self.oracle.on_checkpoint(health.stable, health.digest);
                self.check(found);
                continue;
            }
            self.nodes[i].executed = n;
            let written = |digest| self.nodes[i].batches.get(&(n, digest)).cloned();
            let Some((digest, batch)) = digest.and_then(|digest| Some((digest, written(digest)?)))
            else {
                self.violation(format!("I-13: r{i} executed {n:?} without a durable batch"));
                return;
            };
            let found = self.oracle.on_executed(n, digest, &batch);
            self.check(found);
        }
    }

    fn perform(&mut self, i: usize, outputs: Vec<Output>) {
        for output in outputs {
            self.note(format_args!("r{i} {output}"));
            match output {
                Output::Persist { id, record } => self.write(i, id, record),
                Output::Send { to, message, after } => match after {
                    Some(id) if id > self.nodes[i].disk.durable => {
                        self.nodes[i].held.push((id, to, message));
                    }
                    _ => self.transmit(i, to, &message),
                },
                Output::SetTimer { timer, at } => {
                    self.nodes[i].timers.insert(timer, at);
                    let delay = at.0.saturating_sub(self.now);
                    self.schedule(delay, Event::ReplicaTimer { replica: i, timer, at });
                }
                Output::CancelTimer(timer) => {
                    self.nodes[i].timers.remove(&timer);
                }
                Output::Job(Job::SignCheckpoint { n, digest, signed }) => {
                    let found = self.oracle.on_checkpoint(n, digest);
                    self.check(found);
                    let signature = bft_core::auth::Crypto::sign(&*self.nodes[i].crypto, &signed);
                    let result = JobResult::CheckpointSigned { n, digest, signature };
                    let (delay, life) = (self.rng.u64(1..500), self.nodes[i].life);
                    self.schedule(delay, Event::JobDone { replica: i, life, result });
                }
                Output::Rejected { .. } => self.report.rejected += 1,
                Output::Alarm(alarm) => self.violation(format!("P12: r{i} raised: {alarm}")),
            }
        }
    }

    fn write(&mut self, i: usize, id: PersistId, record: Record) {
        let delay = 1 + self.rng.u64(..self.disk_delay);
        let node = &mut self.nodes[i];
        if let Record::Q { n, digest, batch, .. } | Record::Decided { n, digest, batch } = &record {
            node.batches.insert((*n, *digest), batch.clone());
        }
        let stable = matches!(record, Record::Stable { .. });
        let snapshot = node.replica.as_ref().filter(|_| stable).map(Replica::stable_snapshot);
        node.disk.pending.push_back((id, record, snapshot));
        let life = node.life;
        self.schedule(delay, Event::Persisted { replica: i, life, id });
    }

    fn persisted(&mut self, i: usize, id: PersistId) {
        let node = &mut self.nodes[i];
        // A log is durable in order: what was written before is there too.
        node.disk.sync(id);
        let (ready, held) = node.held.drain(..).partition(|(after, ..)| *after <= id);
        node.held = held;
        let ready: Vec<_> = ready;
        for (_, to, message) in ready {
            self.transmit(i, to, &message);
        }
        self.replica_input(i, Input::Persisted(id));
    }

    fn transmit(&mut self, from: usize, to: Destination, message: &Message) {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes);
        let bytes = Arc::new(bytes);
        let targets: Vec<Address> = match to {
            Destination::Replicas => (0..self.size.n()).filter(|i| *i != from).collect(),
            Destination::Replica(i) => vec![i.index()],
            Destination::Client(c) => vec![self.size.n() + c.0 as usize],
        };
        for target in targets {
            self.carry(from, target, &bytes);
        }
    }

    fn carry(&mut self, from: Address, to: Address, bytes: &Arc<Vec<u8>>) {
        for delay in self.network.deliveries(&mut self.rng, from, to) {
            self.schedule(delay, Event::Frame { from, to, bytes: bytes.clone() });
        }
    }

    fn client_input(&mut self, c: usize, input: ClientInput) {
        let mut outputs = Vec::new();
        self.clients[c].client.handle(Tick(self.now), input, &mut outputs);
        let address = self.size.n() + c;
        for output in outputs {
            match output {
                ClientOutput::Send { to, message } => {
                    self.send_from_client(address, &[to.index()], &message);
                }
                ClientOutput::Broadcast(message) => {
                    let all: Vec<_> = (0..self.size.n()).collect();
                    self.send_from_client(address, &all, &message);
                }
                ClientOutput::SetTimer(at) => {
                    self.clients[c].timer = Some(at);
                    let delay = at.0.saturating_sub(self.now);
                    self.schedule(delay, Event::ClientTimer { client: c, at });
                }
                ClientOutput::Opened => {}
                ClientOutput::Refused { epoch } => {
                    self.violation(format!("c{c}: a fresh session was refused, epoch {epoch}"));
                }
                ClientOutput::Done { token, result } => self.answered(c, token, result),
            }
        }
        self.ask(c);
    }

    fn send_from_client(&mut self, from: Address, to: &[usize], message: &Message) {
        self.note(format_args!("c{} -> {to:?} {message}", from - self.size.n()));
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes);
        let bytes = Arc::new(bytes);
        for target in to {
            self.carry(from, *target, &bytes);
        }
    }

    fn answered(
        &mut self,
        c: usize,
        token: u64,
        result: Result<Bytes, bft_core::client::ClientError>,
    ) {
        let Ok(result) = result else {
            self.violation(format!("c{c}: its only session was ended"));
            return;
        };
        self.note(format_args!("c{c} done {token}"));
        let Some(invocation) = self.clients[c].workload.answered(token, &result) else {
            self.violation(format!("I-4x: c{c} was answered twice for {token}"));
            return;
        };
        self.oracle.on_answer(ClientId(c as u32), invocation, result, self.report.events);
    }

    fn ask(&mut self, c: usize) {
        let asked = self.report.events;
        let node = &mut self.clients[c];
        if !node.client.is_open() {
            return;
        }
        if let Some((token, op, read_only)) = node.workload.next(&mut self.rng, asked) {
            self.client_input(c, ClientInput::Submit { token, op, read_only });
        }
    }
}

fn genesis() -> bfs_fs::State {
    let mut objects = bfs_fs::State::default();
    bft_core::service::Service::genesis(&file_system(), &mut objects);
    objects
}

fn file_system() -> FileSystem {
    FileSystem::new(FileSystemConfig { memory_budget: 64 << 20, ..Default::default() })
}
