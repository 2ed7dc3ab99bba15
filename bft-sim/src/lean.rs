//! What makes one kind of trouble likelier: a rare schedule is found by a swarm that leans towards it.

use crate::adversary::catalogue;
use crate::adversary::impostor::{Impostor, Poisoner};
use crate::adversary::primary::LeaveTentative;
use crate::adversary::stale::StaleReads;
use crate::adversary::{Actor, Adversary, Both};
use crate::faults::Fault;
use crate::network::Network;
use crate::plan::{Role, Setup};
use fastrand::Rng;
use std::time::Duration;

/// Towards what a world leans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lean {
    /// Nothing: a swarm as any other.
    Nowhere,
    /// f replicas show these attacks, all of them together.
    Attacks(&'static [&'static str]),
    /// A client makes requests in others' names.
    Impostor,
    /// So many clients give each replica requests that no other can check.
    Poisoners(usize),
    /// f replicas answer reads with what was true before, and links are clogged.
    StaleReads,
    /// f primaries leave half of the group with a tentative batch, and there is nothing else to do and no heartbeat.
    LeaveTentative,
    /// The network is slower than the view timeout.
    SlowNetwork,
    /// Every message takes longer than the clocks' tolerance.
    LateClocks,
    /// A replica loses its memory while others' crashes change the view.
    Amnesia,
    /// Clients begin a second session, and an old message comes again.
    SecondSessions,
    /// Replicas are cut off for long, and fall behind the others' windows.
    LeftBehind,
    /// One replica is cut off until the healing, in the smallest window and under load.
    LeftUntilHealed,
    /// Primaries crash one after the other while work goes on.
    Crashes,
}

impl Lean {
    /// Bends a swarm's world.
    pub(crate) fn apply(self, setup: &mut Setup, rng: &mut Rng) {
        match self {
            Lean::Nowhere => {}
            Lean::Attacks(names) => setup.attack_with(rng, names),
            Lean::Impostor => setup.clients[0] = Some(Box::<Impostor>::default()),
            Lean::Poisoners(count) => setup.poison(count),
            Lean::StaleReads => {
                setup.lie(rng, || Box::<StaleReads>::default());
                setup.fall_behind(rng);
            }
            Lean::LeaveTentative => {
                setup.lie(rng, || Box::new(LeaveTentative));
                setup.config.slots = 1;
                setup.config.heartbeat = Duration::from_secs(3_600);
            }
            Lean::SlowNetwork => {
                setup.network.least_delay = rng.u64(15_000..30_000);
                setup.network.most_delay = setup.network.least_delay + rng.u64(1_000..20_000);
                setup.config.view_timeout = Duration::from_millis(30);
            }
            Lean::LateClocks => {
                setup.make_all_correct();
                setup.faults.clear();
                setup.network =
                    Network { least_delay: 150_000, most_delay: 250_000, ..Network::quiet() };
                setup.config.clock_tolerance = Duration::from_millis(100);
                setup.config.view_timeout = Duration::from_secs(1);
            }
            Lean::Amnesia => {
                setup.forget(rng);
                setup.crash_primaries(rng);
            }
            Lean::SecondSessions => setup.attack_with(rng, &["B-30"]),
            Lean::LeftBehind => setup.fall_behind(rng),
            Lean::LeftUntilHealed => setup.leave_one(rng),
            Lean::Crashes => setup.crash_primaries(rng),
        }
    }
}

impl Setup {
    /// Whoever was drawn to be faulty is correct again.
    fn make_all_correct(&mut self) {
        self.attacks.clear();
        self.faults
            .retain(|(_, fault)| !matches!(fault, Fault::RestartWiped { .. } | Fault::Sides(_)));
        self.roles.iter_mut().for_each(|role| *role = Role::Correct);
    }

    /// f replicas lie as `make` says, the first primaries more often than others.
    fn lie(&mut self, rng: &mut Rng, make: impl Fn() -> Box<dyn Adversary>) {
        self.make_all_correct();
        let (n, f) = (self.size.n(), self.size.f());
        let first = if rng.bool() { 0 } else { rng.usize(..n) };
        for k in 0..f {
            self.roles[(first + k) % n] = Role::Byzantine(make());
        }
    }

    fn attack_with(&mut self, rng: &mut Rng, names: &'static [&'static str]) {
        let attacks = names.iter().map(|name| catalogue::by_name(name).expect("a named attack"));
        let attacks: Vec<_> = attacks.collect();
        if attacks.iter().all(|attack| attack.actor == Actor::Client) {
            self.clients[0] = attacks.first().and_then(|attack| attack.client).map(|make| make());
            return;
        }
        self.lie(rng, || {
            let made = attacks.iter().filter_map(|attack| attack.replica).map(|make| make());
            let all = made.reduce(|a, b| Box::new(Both(a, b)));
            all.expect("an attack of replicas")
        });
        self.attacks.extend(names);
    }

    fn poison(&mut self, count: usize) {
        self.make_all_correct();
        self.network = Network::quiet();
        self.faults.clear();
        self.config = self.config.with_window(16, 32);
        self.config.limits.batch_requests = 64;
        for client in self.clients.iter_mut().take(count) {
            *client = Some(Box::<Poisoner>::default());
        }
    }

    fn leave_one(&mut self, rng: &mut Rng) {
        self.make_all_correct();
        self.network = Network::quiet();
        self.config = self.config.with_window(1, 2);
        self.heal_at = rng.u64(60_000..200_000);
        let links = self.links_of(rng.usize(..self.size.n()));
        self.faults = vec![(rng.u64(10_000..30_000), Fault::Cut(links))];
    }

    fn links_of(&self, alone: usize) -> Vec<(usize, usize)> {
        let addresses = self.size.n() + self.twins() + self.clients.len();
        let others = (0..addresses).filter(|other| *other != alone);
        others.flat_map(|other| [(alone, other), (other, alone)]).collect()
    }

    /// One replica at a time is cut off for long, in small windows.
    fn fall_behind(&mut self, rng: &mut Rng) {
        let interval = [1, 2, 4][rng.usize(..3)];
        self.config = self.config.with_window(interval, interval * 2);
        self.heal_at = self.heal_at.max(800_000);
        let mut at = rng.u64(10_000..100_000);
        while at < self.heal_at {
            let links = self.links_of(rng.usize(..self.size.n()));
            self.faults.push((at, Fault::Cut(links)));
            at += rng.u64(20_000..250_000);
            self.faults.push((at, Fault::Mend));
            at += rng.u64(5_000..80_000);
        }
    }

    /// One replica loses its disk while work goes on.
    fn forget(&mut self, rng: &mut Rng) {
        self.make_all_correct();
        self.config = self.config.with_window(2, 4);
        self.heal_at = self.heal_at.max(1_000_000);
        let host = rng.usize(..self.size.n());
        self.roles[host] = Role::Amnesiac;
        let at = rng.u64(50_000..self.heal_at / 2);
        self.faults.push((at, Fault::Crash { host }));
        let back = at + rng.u64(1_000..100_000);
        self.faults.push((back, Fault::RestartWiped { host }));
    }

    fn crash_primaries(&mut self, rng: &mut Rng) {
        self.config.view_timeout = Duration::from_millis(30);
        self.heal_at = self.heal_at.max(1_000_000);
        let n = self.size.n();
        let mut at = rng.u64(20_000..100_000);
        for k in 0..6 {
            let host = k % n;
            self.faults.push((at, Fault::Crash { host }));
            at += rng.u64(60_000..200_000);
            self.faults.push((at, Fault::Restart { host }));
            at += rng.u64(1_000..60_000);
        }
    }
}
