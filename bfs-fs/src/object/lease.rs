//! The objects of leases, and of what is held on them.

use super::{CLIENT, DUE, LEASE, LOCKS, STAKE, STAKE_OF};
use crate::op::Inode;
use bft_core::tree::ObjectId;
use borsh::{BorshDeserialize, BorshSerialize};

/// A client's right to hold files open and to lock them, for as long as it renews it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Lease {
    pub client: u32,
    /// Which life of the client: a client that starts again picks another one.
    pub life: u64,
    /// When it was renewed last. Units: nanoseconds of lease time.
    pub renewed: u64,
    /// In how many inodes it has a stake.
    pub stakes: u64,
    /// Nothing more is held on it, and what is will be cleared away.
    pub ended: bool,
}

/// What one lease has in one inode. Never all nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Stake {
    /// The client holds it open.
    pub open: bool,
    /// How many locks, and waits for one.
    pub locks: u32,
}

/// What is still to be cleared away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// The stakes of a lease that has ended.
    Lease(u64),
    /// The data and the extended attributes of what is gone.
    Contents(Inode),
}

impl Due {
    pub(crate) const FIRST: Self = Due::Lease(0);
    pub(crate) const LAST: Self = Due::Contents(Inode(u64::MAX));

    /// What the object called `id` stands for. Requires: it is one of [`due_id`]'s.
    pub(crate) fn of(id: ObjectId) -> Option<Self> {
        match id.major() {
            0 => Some(Due::Lease(id.minor())),
            1 => Some(Due::Contents(Inode(id.minor()))),
            _ => None,
        }
    }
}

pub(crate) fn due_id(due: Due) -> ObjectId {
    match due {
        Due::Lease(number) => ObjectId::new(DUE, 0, number),
        Due::Contents(number) => ObjectId::new(DUE, 1, number.0),
    }
}

/// The id of lease `number`. Leases are counted, so 56 bits are enough.
pub(crate) fn lease_id(number: u64) -> ObjectId {
    ObjectId::new(LEASE, number, 0)
}

/// Where the number of a client's lease is.
pub(crate) fn client_id(client: u32) -> ObjectId {
    ObjectId::new(CLIENT, u64::from(client), 0)
}

/// The id of what `lease` has in `inode`.
pub(crate) fn stake_id(inode: Inode, lease: u64) -> ObjectId {
    ObjectId::new(STAKE, inode.0, lease)
}

/// The same from the other side: which inodes a lease has a stake in.
pub(crate) fn stake_of_id(lease: u64, inode: Inode) -> ObjectId {
    ObjectId::new(STAKE_OF, lease, inode.0)
}

/// The id of the locks on `inode`.
pub(crate) fn locks_id(inode: Inode) -> ObjectId {
    ObjectId::new(LOCKS, inode.0, 0)
}
