//! One world: replicas, clients, links and disks, and a queue of events in order of virtual time.
//!
//! Everything that happens follows from the seed. Each step takes the earliest event, hands it to its node, does what the
//! outputs say, and asks the oracles. First everything may go wrong; then a quorum is healed for good while the others stay
//! as broken as they are, and every operation of a correct client must finish.

mod clients;
mod replicas;
mod rolling;
mod trouble;
mod turnover;
mod watch;
mod wire;

use crate::adversary::{Adversary, Knowledge};
use crate::certificates::Certificates;
use crate::clients::Workload;
use crate::cost::Costs;
use crate::crypto::Symbolic;
use crate::evidence::Evidence;
use crate::faults::Fault;
use crate::marks::{Mark, Marks};
use crate::network::{Address, Network};
use crate::node::{Clock, Evil, Node};
use crate::oracle::Oracle;
pub use crate::plan::{Plan, Scenario};
use crate::plan::{Role, Setup};
pub use crate::report::Report;
use crate::words::Words;
use bfs_fs::{FileSystem, FileSystemConfig};
use bft_core::auth::Authority;
use bft_core::client::{Client, ClientConfig, ClientInput};
use bft_core::io::{JobResult, Timer};
use bft_core::messages::SessionId;
use bft_core::replica::{Config, Replica};
use bft_core::types::{
    ClientId, ClusterSize, Digest, Domain, GroupId, Hasher, Now, Peer, PersistId, ReplicaId,
    SequenceNumber, Tick, Time,
};
use fastrand::Rng;
use rolling::Rolling;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;
use turnover::Turnover;

enum Event {
    Frame { from: Address, to: Address, bytes: Arc<Vec<u8>> },
    ReplicaTimer { replica: usize, timer: Timer, at: Tick },
    ClientTimer { client: usize, at: Tick },
    Persisted { replica: usize, life: u64, id: PersistId },
    JobDone { replica: usize, life: u64, result: JobResult },
    Connect { replica: usize, peer: Peer },
    Ready { replica: usize },
    Tick { address: Address },
    Fault(Fault),
    Revoke,
    Roll,
}

/// An event and when it is due; of two at once, the one scheduled first.
struct Due {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct ClientNode {
    client: Client,
    workload: Workload,
    timer: Option<Tick>,
    crypto: Arc<Symbolic>,
    evil: Option<Evil>,
    certificates: Certificates,
    /// How many sessions it has opened.
    sessions: u64,
}

/// A world, running.
pub struct World {
    plan: Plan,
    size: ClusterSize,
    config: Config,
    knowledge: Knowledge,
    network: Network,
    rng: Rng,
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<Due>>,
    nodes: Vec<Node>,
    clients: Vec<ClientNode>,
    /// Which twin each address is connected to.
    sides: Vec<bool>,
    oracle: Oracle,
    evidence: Evidence,
    words: Words,
    watch: watch::Watch,
    trace: Hasher,
    report: Report,
    disk_delay: u64,
    costs: Option<Costs>,
    tick: u64,
    /// While outputs are performed: how much later they leave, for the work that they took. Units: microseconds.
    lag: u64,
    heal_at: u64,
    /// When the quorum was healed, and who it is.
    healed: Option<u64>,
    core: Vec<usize>,
    /// When the last client was done, and how far the group was then.
    done_at: Option<u64>,
    executed_when_done: SequenceNumber,
    /// A clock has jumped: agreed time proves nothing any more.
    clocks_lie: bool,
    turnover: Turnover,
    rolling: Option<Rolling>,
}

const GROUP: GroupId = GroupId(Digest([7; 32]));
/// B: by then every operation must have been answered, counted from the healing. It leaves room for timeouts that had doubled
/// to their cap before. Units: microseconds of virtual time.
pub const BOUND: u64 = 90_000_000;
/// How long a world goes on after the last answer. Units: microseconds of virtual time.
const REST: u64 = 5_000_000;
/// A world that ends has far fewer events: most have ten thousand.
const STORM: u64 = 2_000_000;
/// Of its operations, each client keeps so many for after the healing.
const KEPT_FOR_LATER: u64 = 8;

impl World {
    /// A world made from `plan`.
    ///
    /// Panics: where the plan's n and f do not make a group.
    pub fn new(plan: Plan) -> Self {
        let mut rng = Rng::with_seed(plan.seed);
        let setup = Setup::draw(&plan, &mut rng);
        let accomplices = setup.roles.iter().zip(setup.size.replicas());
        let accomplices = accomplices.filter(|(role, _)| !matches!(role, Role::Correct));
        let accomplices: Vec<ReplicaId> = accomplices.map(|(_, i)| i).collect();
        let knowledge = Knowledge {
            group: GROUP,
            size: setup.size,
            clients: plan.clients,
            checkpoint_interval: setup.config.checkpoint_interval,
            window: setup.config.window,
            view_timeout: setup.config.view_timeout,
            accomplices: accomplices.clone(),
        };
        let addresses = setup.size.n() + setup.twins() + plan.clients as usize;
        let honest: Vec<bool> = setup.clients.iter().map(Option::is_none).collect();
        let turnover = Turnover::draw(plan.seed, plan.scenario, &honest, setup.heal_at);
        let rolling = Rolling::draw(&plan, setup.size);
        let founders: Vec<_> = turnover.founders(plan.clients).collect();
        let mut world = Self {
            oracle: Oracle::new(file_system(), setup.config.slots, honest, founders),
            words: Words::new(setup.size),
            evidence: Evidence::new(GROUP, setup.size, accomplices.iter().copied().collect()),
            watch: watch::Watch::default(),
            trace: Hasher::new(Domain::State),
            nodes: Vec::new(),
            clients: Vec::new(),
            events: BinaryHeap::new(),
            report: Report { worlds: 1, ..Report::default() },
            disk_delay: setup.disk_delay,
            now: 1,
            order: 0,
            size: setup.size,
            config: setup.config,
            network: setup.network.clone(),
            sides: vec![false; addresses],
            costs: setup.costs,
            tick: setup.tick,
            lag: 0,
            heal_at: setup.heal_at,
            healed: None,
            core: Vec::new(),
            done_at: None,
            executed_when_done: SequenceNumber(0),
            clocks_lie: false,
            turnover,
            rolling,
            knowledge,
            plan,
            rng,
        };
        world.populate(setup);
        world
    }

    fn populate(&mut self, setup: Setup) {
        let faulty = setup.faulty();
        self.report.byzantine_worlds = u64::from(faulty > 0 && faulty == self.size.f());
        for name in &setup.attacks {
            *self.report.attacks.entry(name).or_default() += 1;
        }
        let primary_lies = matches!(setup.roles.first(), Some(Role::Byzantine(_)));
        self.report.marks.hit_if(primary_lies, Mark::ByzantinePrimary);
        self.report.marks.hit_if(faulty > 1, Mark::TwoByzantine);
        self.report.marks.hit_if(setup.twins() > 0, Mark::TwinsActive);
        let mut twins = Vec::new();
        for (i, role) in setup.roles.into_iter().enumerate() {
            let mut node = self.node(i);
            node.faulty = !matches!(role, Role::Correct);
            match role {
                Role::Byzantine(adversary) => {
                    node.lied = true;
                    node.evil = Some(self.evil(adversary));
                }
                Role::Twins => twins.push(i),
                Role::Correct | Role::Amnesiac => {}
            }
            self.nodes.push(node);
        }
        for i in twins {
            let mut twin = self.node(i);
            twin.faulty = true;
            self.nodes.push(twin);
        }
        for (c, role) in setup.clients.into_iter().enumerate() {
            let client = self.client(c as u32, role);
            self.report.marks.hit_if(client.evil.is_some(), Mark::ByzantineClient);
            self.clients.push(client);
        }
        for replica in 0..self.nodes.len() {
            self.connect_all(replica);
        }
        for (at, fault) in setup.faults {
            self.schedule(at, Event::Fault(fault));
        }
        let evil = (0..self.nodes.len()).filter(|i| self.nodes[*i].evil.is_some());
        let clients = (0..self.clients.len()).filter(|c| self.clients[*c].evil.is_some());
        let hosts = self.nodes.len();
        for address in evil.chain(clients.map(|c| hosts + c)).collect::<Vec<_>>() {
            self.schedule(self.tick, Event::Tick { address });
        }
        if self.rolling.is_some() {
            self.schedule(rolling::PERIOD, Event::Roll);
        }
        for c in 0..self.clients.len() {
            let session = SessionId { epoch: 1, nonce: self.rng.u64(..) };
            if self.turnover.newcomer == Some(ClientId(c as u32)) {
                continue;
            }
            self.client_input(c, ClientInput::Open(session));
        }
    }

    fn evil(&mut self, adversary: Box<dyn Adversary>) -> Evil {
        Evil { adversary, rng: Rng::with_seed(self.rng.u64(..)) }
    }

    /// A process for replica `i` of a new group.
    fn node(&mut self, i: usize) -> Node {
        let crypto = Arc::new(Symbolic::new(i as u64));
        let id = ReplicaId(i as u32);
        let config = Config { me: id, ..self.config };
        let replica = Replica::new(config, self.authority(id, &crypto), file_system());
        let offset = self.rng.i64(-1_000_000_000..1_000_000_000);
        Node::new(id, replica, crypto, Clock { offset, drift_permille: 0 })
    }

    fn client(&mut self, c: u32, role: Option<Box<dyn Adversary>>) -> ClientNode {
        let crypto = Arc::new(Symbolic::new(1_000 + u64::from(c)));
        let quick = self.costs.is_some();
        let config = ClientConfig {
            group: GROUP,
            size: self.size,
            me: ClientId(c),
            inline_bytes: self.config.inline_bytes,
            retry: Duration::from_millis(if quick { 50 } else { self.rng.u64(20..300) }),
            retry_max: Duration::from_secs(2),
            crypto: crypto.clone(),
        };
        let endless = self.costs.is_some();
        let now =
            if endless { u64::MAX } else { self.plan.operations.saturating_sub(KEPT_FOR_LATER) };
        let now = self.rolling.as_ref().map_or(now, Rolling::share);
        let width = if endless { 4 } else { self.rng.usize(1..6) };
        let mut workload = Workload::new(width, now);
        workload.steady = endless;
        workload.proxy = self.plan.scenario == Scenario::Nfs;
        let evil = role.map(|adversary| self.evil(adversary));
        ClientNode {
            client: Client::new(config),
            workload,
            timer: None,
            crypto,
            evil,
            certificates: Certificates::new(self.size),
            sessions: 0,
        }
    }

    fn authority(&self, id: ReplicaId, crypto: &Arc<Symbolic>) -> Authority {
        let replicas = (0..self.size.n() as u64).map(Symbolic::public).collect();
        let clients = self.turnover.founders(self.plan.clients);
        Authority::new(GROUP, self.size, id, self.config.limits, replicas, clients, crypto.clone())
    }

    /// Runs until every client is done, a promise is broken, or patience ends.
    pub fn run(mut self) -> Report {
        while self.report.violations.is_empty() && !self.is_over() {
            let Some(Reverse(Due { at, event, .. })) = self.events.pop() else {
                if self.done_at.is_none() {
                    self.violation("I-7: nothing more happens, and clients wait".into());
                }
                break;
            };
            self.now = at;
            self.step(event);
            let timed = matches!(self.plan.scenario, Scenario::Attack(_));
            if self.report.events == STORM && !timed {
                self.violation(format!(
                    "I-7: no end after {STORM} events: answers chase each other"
                ));
            }
        }
        if self.plan.scenario != Scenario::OverF && self.report.violations.is_empty() {
            self.rest();
        }
        self.report.commits = self.oracle.executed().0;
        self.report.trace_hash = self.trace.finish().short(8);
        self.report
    }

    /// Moves from one phase to the next, and says whether the last has ended.
    fn is_over(&mut self) -> bool {
        let correct = self.clients.iter().filter(|c| c.evil.is_none());
        let all_done = correct.clone().all(|c| c.workload.is_done()) && self.turnover.is_done();
        let Some(healed) = self.healed else {
            let rolled = self.rolling.as_ref().is_none_or(Rolling::is_done);
            if rolled && (all_done || self.now >= self.heal_at) {
                self.heal();
            }
            return false;
        };
        if !all_done {
            if self.now > healed + BOUND {
                let waiting: usize = correct.map(|c| c.workload.pending()).sum();
                let core = &self.core;
                let what =
                    format!("I-7: {waiting} operations wait for ever; the quorum is {core:?}");
                // With more than f faulty nothing was promised.
                if self.plan.scenario == Scenario::OverF {
                    self.report.alarms.push(what);
                } else {
                    self.violation(what);
                }
                return true;
            }
            return false;
        }
        if self.done_at.is_none() {
            self.executed_when_done = self.oracle.executed();
        }
        let done = *self.done_at.get_or_insert(self.now);
        self.report.slowest_recovery = done - healed;
        self.now >= done + REST
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
        self.events.push(Reverse(Due { at: self.now + delay, order: self.order, event }));
    }

    fn now_at(&self, replica: usize) -> Now {
        Now { tick: Tick(self.now), wall: Time(self.nodes[replica].clock.at(self.now)) }
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
        if let Some(until) = self.pause_of(&event) {
            // Whatever happens to a replica that stands still happens to it all at once, later.
            return self.schedule(until - self.now, event);
        }
        match event {
            Event::Frame { from, to, bytes } => self.arrive(from, to, bytes),
            Event::ReplicaTimer { replica, timer, at } => self.replica_timer(replica, timer, at),
            Event::ClientTimer { client, at } => {
                if self.clients[client].timer == Some(at) {
                    self.clients[client].timer = None;
                    self.client_input(client, ClientInput::Timeout);
                }
            }
            Event::Persisted { replica, life, id } => self.persisted(replica, life, id),
            Event::JobDone { replica, life, result } => self.job_done(replica, life, result),
            Event::Connect { replica, peer } => self.connect(replica, peer),
            Event::Ready { replica } => self.ready(replica),
            Event::Tick { address } => self.tick(address),
            Event::Fault(fault) => self.suffer(fault),
            Event::Revoke => self.revoke(),
            Event::Roll => self.roll(),
        }
    }

    fn pause_of(&self, event: &Event) -> Option<u64> {
        let replica = match event {
            Event::Frame { to, .. } if *to < self.nodes.len() => *to,
            Event::ReplicaTimer { replica, .. }
            | Event::Persisted { replica, .. }
            | Event::Ready { replica }
            | Event::JobDone { replica, .. } => *replica,
            _ => return None,
        };
        let until = self.nodes[replica].paused_until;
        (until > self.now).then_some(until)
    }

    /// Who speaks at `address`.
    fn peer(&self, address: Address) -> Peer {
        match self.nodes.get(address) {
            Some(node) => Peer::Replica(node.id),
            None => Peer::Client(ClientId((address - self.nodes.len()) as u32)),
        }
    }

    /// Where `peer` can be reached: both twins, if it has two.
    fn addresses(&self, peer: Peer) -> impl Iterator<Item = Address> + use<> {
        let (n, hosts) = (self.size.n(), self.nodes.len());
        let (first, twin) = match peer {
            Peer::Replica(i) => {
                let twin = (n..hosts).find(|twin| self.nodes[*twin].id == i);
                ((i.index() < n).then_some(i.index()), twin)
            }
            Peer::Client(c) => {
                let known = (c.0 as usize) < self.clients.len();
                (known.then_some(hosts + c.0 as usize), None)
            }
        };
        first.into_iter().chain(twin)
    }

    /// What has been reached.
    pub fn marks(&self) -> &Marks {
        &self.report.marks
    }
}

fn file_system() -> FileSystem {
    FileSystem::new(FileSystemConfig {
        memory_budget: 64 << 20,
        root_squash: false,
        ..Default::default()
    })
}
