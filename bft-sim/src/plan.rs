//! What a world is made of: everything that follows from a seed before anything happens.

use crate::adversary::catalogue::{self, Make};
use crate::adversary::{Actor, Adversary, Attack, Both, Intermittent};
use crate::cost::Costs;
use crate::faults::{self, Fault, Kinds};
use crate::lean::Lean;
use crate::network::Network;
use bft_core::replica::Config;
use bft_core::types::{ClusterSize, ReplicaId};
use fastrand::Rng;
use std::time::Duration;

/// Which world to make.
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
    /// How many operations each client runs; where a scenario has a set length, as many as it can.
    pub operations: u64,
    /// Print every event.
    pub trace: bool,
    /// What goes wrong.
    pub scenario: Scenario,
}

/// What goes wrong in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Anything, drawn from the seed; at most f replicas are faulty at once.
    Swarm,
    /// One attack by name, or none, on a good network, for a set time and with the cost of work.
    Attack(Option<&'static str>),
    /// f+1 replicas are faulty: something must be noticed.
    OverF,
    /// A swarm in which one kind of trouble is likelier.
    Leaning(Lean),
    /// A swarm whose clients ask as proxies of NFS do, and for some things again.
    Nfs,
    /// One replica after the other loses its state, or lies and is set up anew, and must be well again soon.
    Rolling,
}

/// How long a scripted attack lasts. Units: microseconds of virtual time.
pub const ATTACK_TIME: u64 = 2_000_000;
/// From here on throughput counts as sustained: by then a faulty primary has been found out. Units: microseconds of virtual time.
pub const SUSTAINED_FROM: u64 = 1_000_000;
/// The view timeout of scripted attacks. Units: milliseconds.
pub const ATTACK_TIMEOUT: u64 = 100;

/// What a replica of this world is.
pub enum Role {
    /// It follows the protocol.
    Correct,
    /// It lies.
    Byzantine(Box<dyn Adversary>),
    /// It runs twice. Each copy follows the protocol.
    Twins,
    /// It loses its disk at some time, and counts as faulty from the start.
    Amnesiac,
}

/// A world before anything has happened.
pub struct Setup {
    /// n and f.
    pub size: ClusterSize,
    /// The configuration of every replica, but for its id.
    pub config: Config,
    /// The network.
    pub network: Network,
    /// One a replica.
    pub roles: Vec<Role>,
    /// What faulty clients do; nothing for the correct ones.
    pub clients: Vec<Option<Box<dyn Adversary>>>,
    /// When what goes wrong.
    pub faults: Vec<(u64, Fault)>,
    /// When a quorum is healed at the latest. Units: microseconds.
    pub heal_at: u64,
    /// How long a write to disk may take. Units: microseconds.
    pub disk_delay: u64,
    /// What work costs, where it costs anything.
    pub costs: Option<Costs>,
    /// How often an adversary's `on_tick` is due. Units: microseconds.
    pub tick: u64,
    /// The attacks in it, for the histogram.
    pub attacks: Vec<&'static str>,
}

impl Setup {
    /// What `plan` comes to.
    ///
    /// Panics: where the plan's n and f do not make a group, or its attack is not in the catalogue.
    pub fn draw(plan: &Plan, rng: &mut Rng) -> Self {
        let size = ClusterSize::new(plan.n, plan.f).expect("n must be at least 3f + 1");
        match plan.scenario {
            Scenario::Swarm | Scenario::Nfs => Self::swarm(plan, size, rng, size.f()),
            Scenario::OverF => Self::over_f(plan, size, rng),
            Scenario::Rolling => Self::rolling(plan, size, rng),
            Scenario::Leaning(lean) => {
                let mut setup = Self::swarm(plan, size, rng, size.f());
                lean.apply(&mut setup, rng);
                setup
            }
            Scenario::Attack(name) => {
                let attack = name.map(|name| catalogue::by_name(name).expect("a named attack"));
                Self::scripted(plan, size, attack)
            }
        }
    }

    fn plain(plan: &Plan, size: ClusterSize, config: Config) -> Self {
        Self {
            size,
            config,
            network: Network::quiet(),
            roles: size.replicas().map(|_| Role::Correct).collect(),
            clients: (0..plan.clients).map(|_| None).collect(),
            faults: Vec::new(),
            heal_at: 0,
            disk_delay: 50,
            costs: None,
            tick: 50_000,
            attacks: Vec::new(),
        }
    }

    fn swarm(plan: &Plan, size: ClusterSize, rng: &mut Rng, most_faulty: usize) -> Self {
        let mut setup = Self::plain(plan, size, random_config(rng, size));
        setup.network = Network::random(rng);
        setup.disk_delay = rng.u64(1..2_000);
        setup.heal_at = rng.u64(50_000..2_500_000);
        let kinds = Kinds::random(rng);
        if rng.u32(..20) < 11 {
            setup.draw_faulty(rng, most_faulty);
        }
        if rng.u32(..5) == 0 && plan.clients > 1 {
            setup.draw_faulty_client(rng);
        }
        let hosts = size.n() + setup.twins();
        let addresses = hosts + plan.clients as usize;
        setup.faults.extend(faults::schedule(rng, &kinds, size.n(), addresses, setup.heal_at));
        if setup.twins() > 0 {
            setup.faults.extend(faults::twin_sides(rng, addresses, 20_000_000));
        }
        setup
    }

    /// All are correct and the network is good; what is to come is drawn as it comes. Recovery waits for a window to pass, so
    /// that is small.
    fn rolling(plan: &Plan, size: ClusterSize, rng: &mut Rng) -> Self {
        let mut config = random_config(rng, size);
        if config.checkpoint_interval > 16 {
            config = config.with_window(8, 16);
        }
        let mut setup = Self::plain(plan, size, config);
        setup.network = Network::random(rng);
        setup.network.heal();
        setup.disk_delay = rng.u64(1..2_000);
        setup.heal_at = u64::MAX;
        if rng.u32(..5) == 0 && plan.clients > 1 {
            setup.draw_faulty_client(rng);
        }
        setup
    }

    fn draw_faulty_client(&mut self, rng: &mut Rng) {
        let (name, make) = pick(rng, catalogue::of_clients().collect());
        self.attacks.push(name.name);
        self.clients[0] = Some(make());
    }

    /// How many processes there are beyond one a replica.
    pub fn twins(&self) -> usize {
        self.roles.iter().filter(|role| matches!(role, Role::Twins)).count()
    }

    /// How many replicas are faulty.
    pub fn faulty(&self) -> usize {
        self.roles.iter().filter(|role| !matches!(role, Role::Correct)).count()
    }

    /// Makes `count` replicas faulty, the primary of view 0 more often than another.
    fn draw_faulty(&mut self, rng: &mut Rng, count: usize) {
        let n = self.size.n();
        for k in 0..count {
            let i = if k == 0 && rng.u32(..3) == 0 { 0 } else { rng.usize(..n) };
            if !matches!(self.roles[i], Role::Correct) {
                continue;
            }
            self.roles[i] = match rng.u32(..10) {
                0 => {
                    self.attacks.push("twins");
                    Role::Twins
                }
                1 => {
                    self.attacks.push("B-23");
                    let at = rng.u64(1_000..self.heal_at);
                    self.faults.push((at, Fault::Crash { host: i }));
                    let back = at + rng.u64(1_000..300_000);
                    self.faults.push((back, Fault::RestartWiped { host: i }));
                    Role::Amnesiac
                }
                _ => Role::Byzantine(draw_adversary(rng, &mut self.attacks)),
            };
        }
    }

    /// One attack, by the book: a quiet network, the default sizes, and a short view timeout, so that a deposed primary does
    /// not cost most of the run.
    fn scripted(plan: &Plan, size: ClusterSize, attack: Option<&'static Attack>) -> Self {
        let mut config = Config::new(size, ReplicaId(0)).with_window(32, 64);
        config.view_timeout = Duration::from_millis(ATTACK_TIMEOUT);
        config.status_interval = Duration::from_millis(20);
        let mut setup = Self::plain(plan, size, config);
        setup.heal_at = ATTACK_TIME;
        setup.costs = Some(Costs::STANDARD);
        setup.tick = crate::adversary::TICK.as_micros() as u64;
        if let Some(attack) = attack {
            setup.attacks.push(attack.name);
            setup.cast(attack);
        }
        setup
    }

    /// Gives every part of `attack` to someone.
    fn cast(&mut self, attack: &'static Attack) {
        let (n, f) = (self.size.n(), self.size.f());
        let members: Vec<usize> = match attack.actor {
            Actor::Primary | Actor::ClientAndPrimary => (0..f).collect(),
            Actor::NextPrimary => (1..=f).collect(),
            Actor::Backup | Actor::Twins | Actor::Amnesiac => (n - f..n).collect(),
            Actor::Client | Actor::Elsewhere(_) => Vec::new(),
        };
        for i in members {
            self.roles[i] = match (attack.actor, attack.replica) {
                (Actor::Twins, _) => Role::Twins,
                (Actor::Amnesiac, _) => {
                    self.faults.push((300_000, Fault::Crash { host: i }));
                    self.faults.push((400_000, Fault::RestartWiped { host: i }));
                    Role::Amnesiac
                }
                (_, Some(make)) => Role::Byzantine(make()),
                (_, None) => Role::Correct,
            };
        }
        if attack.actor == Actor::NextPrimary {
            // The first primary stands still for a while, so that the next one has its turn.
            self.faults.push((200_000, Fault::Pause { host: 0, until: 500_000 }));
        }
        if attack.name == "B-37" || attack.name == "B-38" {
            self.faults.push((300_000, Fault::Crash { host: 0 }));
            self.faults.push((800_000, Fault::Restart { host: 0 }));
        }
        if self.twins() > 0 {
            let addresses = n + self.twins() + self.clients.len();
            let mut rng = Rng::with_seed(1);
            self.faults.extend(faults::twin_sides(&mut rng, addresses, ATTACK_TIME));
        }
        if let (Some(make), Some(last)) = (attack.client, self.clients.last_mut()) {
            *last = Some(make());
        }
    }

    /// f+1 replicas speak with two tongues, and what they say to each half of the others is a quorum's word. Until the healing
    /// the halves do not hear each other.
    fn over_f(plan: &Plan, size: ClusterSize, rng: &mut Rng) -> Self {
        let mut setup = Self::plain(plan, size, random_config(rng, size));
        setup.network = Network::random(rng);
        setup.network.loss_permille = 0;
        setup.heal_at = 1_000_000;
        setup.attacks.push("over-f");
        let (n, f) = (size.n(), size.f());
        setup.roles.iter_mut().take(f + 1).for_each(|role| *role = Role::Twins);
        let (hosts, clients) = (n + f + 1, plan.clients as usize);
        let sides: Vec<bool> = (0..hosts + clients)
            .map(|address| match address {
                correct if correct < n => correct > 2 * f,
                twin if twin < hosts => true,
                client => (client - hosts) % 2 == 1,
            })
            .collect();
        let speaks_once = |address: usize| (f + 1..n).contains(&address) || address >= hosts;
        let pairs = (0..sides.len()).flat_map(|a| (0..sides.len()).map(move |b| (a, b)));
        let apart = pairs
            .filter(|(a, b)| speaks_once(*a) && speaks_once(*b) && sides[*a] != sides[*b])
            .collect();
        setup.faults.push((0, Fault::Cut(apart)));
        setup.faults.push((0, Fault::Sides(sides)));
        setup
    }
}

/// One behaviour, or two together, all the time or now and then. Their names are added to `attacks`.
pub(crate) fn draw_adversary(rng: &mut Rng, attacks: &mut Vec<&'static str>) -> Box<dyn Adversary> {
    let (first, make) = pick(rng, catalogue::of_replicas().collect());
    attacks.push(first.name);
    let mut adversary = make();
    if rng.u32(..3) == 0 {
        let (second, make) = pick(rng, catalogue::of_replicas().collect());
        attacks.push(second.name);
        adversary = Box::new(Both(adversary, make()));
    }
    if rng.u32(..3) == 0 {
        adversary = Box::new(Intermittent::new(adversary, rng.u64(20_000..500_000)));
    }
    adversary
}

fn pick(rng: &mut Rng, all: Vec<(&'static Attack, Make)>) -> (&'static Attack, Make) {
    all[rng.usize(..all.len())]
}

/// Small windows, short timeouts, tiny batches: extremes meet more often than the defaults.
fn random_config(rng: &mut Rng, size: ClusterSize) -> Config {
    let interval = [1, 2, 4, 16, 128][rng.usize(..5)];
    let window = interval * rng.u64(2..4);
    let mut config = Config::new(size, ReplicaId(0)).with_window(interval, window);
    config.slots = rng.u16(1..8);
    config.pipeline = rng.u64(1..6);
    config.inline_bytes = [16, 256, 8192][rng.usize(..3)];
    config.limits.batch_requests = rng.usize(1..64);
    config.view_timeout = Duration::from_millis([30, 100, 300, 1_000][rng.usize(..4)]);
    config.status_interval = Duration::from_millis([20, 100][rng.usize(..2)]);
    config
}
