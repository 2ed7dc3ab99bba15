//! What goes wrong, and when: E-01 to E-12. Drawn before the world begins, so that it follows from the seed alone.

use crate::network::Address;
use fastrand::Rng;

/// One thing that goes wrong, or is put right.
#[derive(Clone, Debug)]
pub enum Fault {
    /// These directed links lose everything.
    Cut(Vec<(Address, Address)>),
    /// Every link works again.
    Mend,
    /// A link holds everything back until then.
    Clog {
        /// From whom.
        from: Address,
        /// To whom.
        to: Address,
        /// Units: microseconds of virtual time.
        until: u64,
    },
    /// A replica handles nothing until then, and everything at once after.
    Pause {
        /// Which process.
        host: usize,
        /// Units: microseconds of virtual time.
        until: u64,
    },
    /// A clock is set wrong or runs too fast, while ticks go on as ever.
    Clock {
        /// Which process.
        host: usize,
        /// Units: nanoseconds.
        offset: i64,
        /// Units: thousandths.
        drift_permille: i64,
    },
    /// A process dies.
    Crash {
        /// Which process.
        host: usize,
    },
    /// It comes back with what its disk holds.
    Restart {
        /// Which process.
        host: usize,
    },
    /// It comes back with an empty disk. (B-23)
    RestartWiped {
        /// Which process.
        host: usize,
    },
    /// All lose power at once.
    AllCut,
    /// Which twin each address is connected to.
    Sides(Vec<bool>),
}

/// Which kinds of faults a world has: every world draws its own, so that no kind hides another.
pub struct Kinds {
    partitions: bool,
    clogs: bool,
    pauses: bool,
    clocks: bool,
    crashes: bool,
    all_cut: bool,
}

impl Kinds {
    /// Any combination.
    pub fn random(rng: &mut Rng) -> Self {
        Self {
            partitions: rng.u32(..3) == 0,
            clogs: rng.u32(..3) == 0,
            pauses: rng.u32(..3) == 0,
            clocks: rng.u32(..4) == 0,
            crashes: rng.bool(),
            all_cut: rng.u32(..8) == 0,
        }
    }
}

/// A schedule up to `horizon` for `hosts` replicas and all `addresses`.
///
/// Any number of replicas may be down at once, for a restart with an honest disk is no fault. Units: microseconds.
pub fn schedule(
    rng: &mut Rng,
    kinds: &Kinds,
    hosts: usize,
    addresses: usize,
    horizon: u64,
) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    let times = |rng: &mut Rng, wanted: bool, most: u32| -> Vec<u64> {
        let count = if wanted { 1 + rng.u32(..most) } else { 0 };
        (0..count).map(|_| rng.u64(1_000..horizon.max(2_000))).collect()
    };
    for at in times(rng, kinds.partitions, 3) {
        faults.push((at, Fault::Cut(cut(rng, hosts, addresses))));
        faults.push((at + rng.u64(1_000..horizon), Fault::Mend));
    }
    for at in times(rng, kinds.clogs, 6) {
        let (from, to) = (rng.usize(..addresses), rng.usize(..addresses));
        faults.push((at, Fault::Clog { from, to, until: at + rng.u64(..horizon) }));
    }
    for at in times(rng, kinds.pauses, 4) {
        let (host, until) = (rng.usize(..hosts), at + rng.u64(1_000..500_000));
        faults.push((at, Fault::Pause { host, until }));
    }
    for at in times(rng, kinds.clocks, 2) {
        faults.push((at, wrong_clock(rng, hosts)));
    }
    // What one replica alone has executed and lost before it was durable has happened nowhere.
    let outlived = hosts > 1;
    for at in times(rng, kinds.crashes && outlived, 5) {
        let host = rng.usize(..hosts);
        faults.push((at, Fault::Crash { host }));
        faults.push((at + rng.u64(1_000..400_000), Fault::Restart { host }));
    }
    for at in times(rng, kinds.all_cut && outlived, 1) {
        faults.push((at, Fault::AllCut));
        let back = at + rng.u64(1_000..200_000);
        let restarts = (0..hosts).map(|host| (back + rng.u64(..100_000), Fault::Restart { host }));
        faults.extend(restarts);
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// Some directed links: one replica cut off, two halves, or any.
pub(crate) fn cut(rng: &mut Rng, hosts: usize, addresses: usize) -> Vec<(Address, Address)> {
    let pairs = (0..addresses).flat_map(|a| (0..addresses).map(move |b| (a, b)));
    let pairs = pairs.filter(|(a, b)| a != b);
    match rng.u32(..3) {
        0 => {
            let (alone, out_only) = (rng.usize(..hosts), rng.bool());
            pairs.filter(|(a, b)| *a == alone || *b == alone && !out_only).collect()
        }
        1 => {
            let side: Vec<bool> = (0..addresses).map(|_| rng.bool()).collect();
            pairs.filter(|(a, b)| side[*a] != side[*b]).collect()
        }
        _ => pairs.filter(|_| rng.u32(..4) == 0).collect(),
    }
}

fn wrong_clock(rng: &mut Rng, hosts: usize) -> Fault {
    const YEAR: i64 = 365 * 24 * 3_600 * 1_000_000_000;
    let host = rng.usize(..hosts);
    match rng.u32(..3) {
        0 => Fault::Clock { host, offset: YEAR, drift_permille: 0 },
        1 => Fault::Clock { host, offset: -YEAR, drift_permille: 0 },
        _ => Fault::Clock { host, offset: 0, drift_permille: rng.i64(-100..=100) },
    }
}

/// Who is connected to which twin, again and again until `horizon`.
pub fn twin_sides(rng: &mut Rng, addresses: usize, horizon: u64) -> Vec<(u64, Fault)> {
    let mut at = 0;
    let mut sides = Vec::new();
    while at < horizon {
        sides.push((at, Fault::Sides((0..addresses).map(|_| rng.bool()).collect())));
        at += rng.u64(10_000..300_000);
    }
    sides
}
