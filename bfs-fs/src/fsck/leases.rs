//! What must hold of leases, of what is held on them, and of what is still to be cleared away.

use super::Survey;
use crate::cost;
use crate::locks::LockTable;
use crate::object::{Due, Lease, Object, Stake};
use crate::op::Inode;
use crate::ops::MAX_STAKES;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use bft_core::tree::ObjectId;

/// Everything that is held, by what it is.
#[derive(Default)]
pub(super) struct Holdings {
    leases: BTreeMap<u64, Lease>,
    /// The lease of each client.
    clients: BTreeMap<u64, u64>,
    /// By inode and lease.
    pub stakes: BTreeMap<(Inode, u64), Stake>,
    /// By lease and inode.
    stakes_of: BTreeSet<(u64, Inode)>,
    pub dues: BTreeSet<Due>,
    locks: BTreeMap<Inode, LockTable>,
}

impl Holdings {
    /// Takes note of an object that is none of the files; says whether it belongs where it is.
    pub fn take(&mut self, id: ObjectId, object: &Object) -> bool {
        use crate::object::{CLIENT, DUE, LEASE, LOCKS, STAKE, STAKE_OF};
        let (major, minor) = (id.major(), id.minor());
        match (id.kind(), object) {
            (LEASE, Object::Lease(lease)) if minor == 0 => {
                self.leases.insert(major, *lease).is_none()
            }
            (CLIENT, Object::ClientLease(number)) if minor == 0 => {
                self.clients.insert(major, *number).is_none()
            }
            (STAKE, Object::Stake(stake)) => {
                self.stakes.insert((Inode(major), minor), *stake).is_none()
            }
            (STAKE_OF, Object::StakeOf) => self.stakes_of.insert((major, Inode(minor))),
            (LOCKS, Object::Locks(table)) if minor == 0 => {
                self.locks.insert(Inode(major), (**table).clone()).is_none()
            }
            (DUE, Object::Due) => Due::of(id).is_some_and(|due| self.dues.insert(due)),
            _ => false,
        }
    }

    /// Whether somebody holds `number` open.
    pub fn is_held(&self, number: Inode) -> bool {
        self.stakes.range((number, 0)..=(number, u64::MAX)).any(|(_, stake)| stake.open)
    }
}

impl Survey<'_> {
    pub(super) fn check_leases(&mut self) {
        for (client, number) in self.holdings.clients.clone() {
            let lease = self.holdings.leases.get(&number);
            let right = lease.is_some_and(|l| u64::from(l.client) == client && !l.ended);
            self.expect(right, || format!("client {client} has lease {number}, which is not its"));
        }
        for (number, lease) in self.holdings.leases.clone() {
            let range = (number, Inode(0))..=(number, Inode(u64::MAX));
            let stakes = self.holdings.stakes_of.range(range).count() as u64;
            let right = lease.stakes == stakes && stakes <= MAX_STAKES;
            self.expect(right, || format!("lease {number} has wrong stakes"));
            let current = self.holdings.clients.get(&u64::from(lease.client)) == Some(&number);
            self.expect(current != lease.ended, || format!("lease {number} is nobody's"));
            let owed = self.holdings.dues.contains(&Due::Lease(number));
            self.expect(owed == lease.ended, || format!("lease {number} is not cleared away"));
            let totals = self.totals;
            let right =
                totals.is_some_and(|t| number < t.next_lease && lease.renewed <= t.lease_time);
            self.expect(right, || format!("lease {number} was never given out"));
        }
    }

    pub(super) fn check_stakes(&mut self) {
        for ((inode, lease), stake) in self.holdings.stakes.clone() {
            let at = || format!("the stake of lease {lease} in inode {}", inode.0);
            let right = self.holdings.stakes_of.contains(&(lease, inode));
            self.expect(right, || format!("{} is not found by its lease", at()));
            let right = self.holdings.leases.contains_key(&lease);
            self.expect(right, || format!("{} has no lease", at()));
            let right = self.inodes.contains_key(&inode);
            self.expect(right, || format!("{} is in nothing", at()));
            self.expect(stake != Stake::default(), || format!("{} says nothing", at()));
        }
        for (lease, inode) in self.holdings.stakes_of.clone() {
            let right = self.holdings.stakes.contains_key(&(inode, lease));
            self.expect(right, || format!("lease {lease} has no stake in inode {}", inode.0));
        }
    }

    /// Every lock is counted in the stake of its lease. A stake without locks that says so has none.
    pub(super) fn check_locks(&mut self) {
        let mut counted: BTreeMap<(Inode, u64), u32> = BTreeMap::new();
        for (inode, table) in self.holdings.locks.clone() {
            let fault = table.fault();
            self.expect(fault.is_none(), || {
                format!("inode {} has {}", inode.0, fault.unwrap_or_default())
            });
            let counts = table.counts().into_iter();
            counted.extend(counts.map(|(lease, count)| ((inode, lease), count)));
        }
        let stakes = self.holdings.stakes.clone();
        let stated = stakes.iter().map(|(at, stake)| (*at, stake.locks)).filter(|(_, n)| *n > 0);
        let right = stated.collect::<BTreeMap<_, _>>() == counted;
        self.expect(right, || format!("the locks are {counted:?}, the stakes {stakes:?}"));
    }

    /// What everything that is held costs.
    pub(super) fn held_bytes(&self) -> u64 {
        let locks: usize = self.holdings.locks.values().map(LockTable::len).sum();
        self.holdings.stakes.len() as u64 * cost::STAKE_COST + locks as u64 * cost::LOCK_COST
    }

    pub(super) fn check_dues(&mut self) {
        let count = self.holdings.dues.len() as u64;
        let right = self.totals.is_some_and(|totals| totals.dues == count);
        self.expect(right, || format!("{count} things are to be cleared away, and not counted"));
        for due in self.holdings.dues.clone() {
            let right = match due {
                Due::Lease(number) => self.holdings.leases.get(&number).is_some_and(|l| l.ended),
                Due::Contents(number) => !self.inodes.contains_key(&number),
            };
            self.expect(right, || format!("{due:?} is still in use"));
        }
    }
}
