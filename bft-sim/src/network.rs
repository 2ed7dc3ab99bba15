//! What happens to a message on its way. Units: microseconds of virtual time.

use fastrand::Rng;
use std::collections::BTreeSet;

/// A replica or a client, as the network numbers them: replicas first.
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
}

impl Network {
    /// A network drawn at random: from perfect to bad.
    pub fn random(rng: &mut Rng) -> Self {
        let least_delay = rng.u64(10..200);
        Self {
            least_delay,
            most_delay: least_delay + rng.u64(1..5_000),
            loss_permille: if rng.bool() { 0 } else { rng.u32(0..150) },
            duplication_permille: if rng.bool() { 0 } else { rng.u32(0..100) },
            cut: BTreeSet::new(),
        }
    }

    /// When copies of a message sent now from `from` to `to` arrive: none, one or two delays.
    pub fn deliveries(&self, rng: &mut Rng, from: Address, to: Address) -> Vec<u64> {
        let lost = self.cut.contains(&(from, to)) || rng.u32(0..1000) < self.loss_permille;
        let twice = rng.u32(0..1000) < self.duplication_permille;
        let copies = usize::from(!lost) + usize::from(!lost && twice);
        (0..copies).map(|_| rng.u64(self.least_delay..=self.most_delay)).collect()
    }

    /// From now on nothing is lost or duplicated, and every link works.
    pub fn heal(&mut self) {
        self.loss_permille = 0;
        self.duplication_permille = 0;
        self.cut.clear();
    }
}
