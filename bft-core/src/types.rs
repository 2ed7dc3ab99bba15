//! The nouns of the protocol, each its own type so that two cannot be swapped.

use crate::planted::{Planted, planted};
use alloc::string::String;
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use core::fmt;
use core::time::Duration;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number! {
    /// v: a configuration of the group in which one replica is the primary. [CL99 §4]
    View(u64), "v"
}
number! {
    /// n: the place of a batch in the total order. The first batch has n = 1; 0 is the initial state.
    SequenceNumber(u64), "n"
}
number! {
    /// i: a replica, `0 .. n-1`.
    ReplicaId(u32), "r"
}
number! {
    /// c: a client, by its place in the group's client table.
    ClientId(u32), "c"
}
number! {
    /// One of the lanes of a session, each with its own sequence (as in NFSv4.1, RFC 8881 §2.10.6).
    Slot(u16), "s"
}
number! {
    /// Identifies an `Output::Persist` until the driver reports it durable. Ascending.
    PersistId(u64), "p"
}

impl SequenceNumber {
    /// The sequence number after this one. Saturates, so that no input can overflow it.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The sequence number before this one; 0 stays 0.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// This sequence number moved up by `count`. Saturates.
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl View {
    /// The view after this one. Saturates.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl ClientId {
    /// Who registers and revokes clients: the first of the group file.
    pub const ADMINISTRATOR: Self = Self(0);

    /// The principal that replica `i` is when it asks the group for something itself: RECOVER.
    pub fn of_replica(i: ReplicaId) -> Self {
        Self(u32::MAX - i.0)
    }

    /// The replica whose principal this is, if it is one's.
    pub fn replica(self) -> Option<ReplicaId> {
        let i = ReplicaId(u32::MAX - self.0);
        (i.0 < ClusterSize::MAX).then_some(i)
    }
}

impl ReplicaId {
    /// This replica's place in an array of n.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A monotonic instant. Units: microseconds since the driver started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The instant `d` later. Saturates.
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A point of agreed time. Units: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    BorshSerialize,
    BorshDeserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// The later of `proposed` and one nanosecond past `self`: agreed time never stands still, from request to request.
    /// (decision 7)
    pub fn advanced_to(self, proposed: Time) -> Time {
        Time(self.0.saturating_add(1).max(proposed.0))
    }
}

/// What the driver's clocks say when an input arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Drives timers.
    pub tick: Tick,
    /// Only proposes and checks agreed time.
    pub wall: Time,
}

/// A BLAKE3 digest, 32 bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize,
)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of the canonical bytes of `value` under `domain`, which separates uses that must never collide.
    pub fn of(domain: Domain, value: &impl BorshSerialize) -> Self {
        let mut hasher = Hasher::new(domain);
        hasher.value(value);
        hasher.finish()
    }

    /// The digest under `domain` of what `encode` writes: the one that a [`Hasher`] finds piece by piece.
    ///
    /// In one piece it is cheaper: of the pages of a file one after the other, BLAKE3 can only hash one kibibyte at a time, and
    /// else sixteen side by side. `scratch` is room for the bytes.
    pub fn of_encoded(
        domain: Domain,
        scratch: &mut Vec<u8>,
        encode: impl FnOnce(&mut Vec<u8>) -> borsh::io::Result<()>,
    ) -> Self {
        scratch.clear();
        scratch.push(domain as u8);
        // A vector takes everything.
        let _ = encode(scratch);
        Self(*blake3::hash(scratch).as_bytes())
    }

    /// The first `2 * bytes` hexadecimal digits.
    pub fn short(&self, bytes: usize) -> String {
        let mut text = String::new();
        for byte in self.0.iter().take(bytes) {
            let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        }
        text
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", self.short(4))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short(32))
    }
}

/// What a digest is of. Two uses never share a tag, so a leaf cannot be passed off as a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Domain {
    /// A client's request.
    Request = 1,
    /// A batch: its requests and its agreed time.
    Batch = 2,
    /// The result of an operation.
    Result = 3,
    /// A leaf of the state tree.
    Leaf = 4,
    /// An interior node of the state tree.
    Node = 5,
    /// The whole state at a checkpoint.
    State = 6,
    /// The public description of a group.
    Group = 7,
    /// What a signature covers.
    Signed = 8,
    /// A client's MAC key, made of fresh entropy.
    Key = 9,
}

/// An incremental digest.
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Starts a digest in `domain`.
    pub fn new(domain: Domain) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[domain as u8]);
        Self(hasher)
    }

    /// Adds raw bytes. The caller makes lengths unambiguous.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// Adds the canonical bytes of `value`.
    pub fn value(&mut self, value: &impl BorshSerialize) -> &mut Self {
        // Hashing writes nowhere and so cannot fail.
        let _ = value.serialize(self);
        self
    }

    /// The digest of all that was added.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl borsh::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> borsh::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> borsh::io::Result<()> {
        Ok(())
    }
}

/// The size of a group and the quorums that follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterSize {
    n: u32,
    f: u32,
}

impl ClusterSize {
    /// A group of `n` replicas of which `f` may be faulty, or nothing where `n < 3f + 1` or n is 0.
    pub fn new(n: u32, f: u32) -> Option<Self> {
        let least = f.checked_mul(3)?.checked_add(1)?;
        (n >= least && n <= Self::MAX).then_some(Self { n, f })
    }

    /// The largest group: beyond it, one VIEW-CHANGE set would no longer fit a frame.
    pub const MAX: u32 = 64;

    /// The number of replicas.
    pub fn n(self) -> usize {
        self.n as usize
    }

    /// The number of replicas that may be faulty.
    pub fn f(self) -> usize {
        self.f as usize
    }

    /// A strong quorum: any two share a correct replica. `ceil((n + f + 1) / 2)`, which is 2f+1 at n = 3f+1.
    pub fn quorum(self) -> usize {
        if planted(Planted::QuorumOfTwoF) {
            return 2 * self.f as usize;
        }
        (self.n + self.f + 1).div_ceil(2) as usize
    }

    /// A weak quorum: at least one member is correct. f + 1.
    pub fn weak(self) -> usize {
        self.f as usize + 1
    }

    /// The primary of `view`: `view mod n`.
    pub fn primary(self, view: View) -> ReplicaId {
        ReplicaId((view.0 % u64::from(self.n)) as u32)
    }

    /// Every replica, ascending.
    pub fn replicas(self) -> impl Iterator<Item = ReplicaId> {
        (0..self.n).map(ReplicaId)
    }

    /// Whether `i` is a replica of this group.
    pub fn contains(self, i: ReplicaId) -> bool {
        i.0 < self.n
    }
}

/// Who is at the other end of a link, as its handshake proved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum Peer {
    /// A replica of the group.
    Replica(ReplicaId),
    /// A registered client.
    Client(ClientId),
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Replica(i) => i.fmt(f),
            Peer::Client(c) => c.fmt(f),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Names one group: the digest of its public description. Every signature and MAC binds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct GroupId(pub Digest);

impl fmt::Display for GroupId {
    /// Eight digits for people: `9f3c-77a1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.short(4);
        let (left, right) = text.split_at(4);
        write!(f, "{left}-{right}")
    }
}
