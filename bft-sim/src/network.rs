//! What happens to a message on its way. Units: microseconds of virtual time.

use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// A process, as the network numbers them: replicas first, then twins, then clients.
pub type Address = usize;

/// How bad the network is.
#[derive(Clone, Debug)]
pub struct Network {
    /// The shortest time on the way.
    pub least_delay: u64,
    /// The longest time on the way; messages overtake each other within it.
    pub most_delay: u64,
    /// How many of a thousand messages are lost.
    pub loss_permille: u32,
    /// How many of a thousand messages arrive twice.
    pub duplication_permille: u32,
    /// Directed links on which everything is lost.
    pub cut: BTreeSet<(Address, Address)>,
    /// Directed links that let nothing out before a time, and then everything.
    pub clogged: BTreeMap<(Address, Address), u64>,
}

impl Network {
    /// A good local network.
    pub fn quiet() -> Self {
        Self {
            least_delay: 50,
            most_delay: 100,
            loss_permille: 0,
            duplication_permille: 0,
            cut: BTreeSet::new(),
            clogged: BTreeMap::new(),
        }
    }

    /// A network drawn at random: from perfect to bad.
    pub fn random(rng: &mut Rng) -> Self {
        let least_delay = rng.u64(10..200);
        Self {
            least_delay,
            most_delay: least_delay + rng.u64(1..5_000),
            loss_permille: if rng.bool() { 0 } else { rng.u32(0..150) },
            duplication_permille: if rng.bool() { 0 } else { rng.u32(0..100) },
            ..Self::quiet()
        }
    }

    /// When copies of a message sent at `now` from `from` to `to` arrive: none, one or two delays.
    pub fn deliveries(&self, rng: &mut Rng, now: u64, from: Address, to: Address) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || rng.u32(0..1000) < self.loss_permille {
            return Vec::new();
        }
        let copies = 1 + usize::from(rng.u32(0..1000) < self.duplication_permille);
        let held = self.clogged.get(&(from, to)).map_or(0, |until| until.saturating_sub(now));
        (0..copies).map(|_| held + rng.u64(self.least_delay..=self.most_delay)).collect()
    }

    /// From now on nothing is lost or duplicated, and every link works.
    pub fn heal(&mut self) {
        self.loss_permille = 0;
        self.duplication_permille = 0;
        self.cut.clear();
        self.clogged.clear();
    }
}
