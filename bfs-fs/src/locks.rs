//! The locks on one inode, and the waits for them: a value, without a file system around it. [fcntl(2), flock(2)]
//!
//! The two classes of locks do not see each other. Within one class two locks conflict if they overlap, have different
//! owners, and one of them is exclusive. Setting a lock replaces what its owner had in the range.

use crate::op::{LockClass, LockKind, LockRequest};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};

/// The most locks on one inode, a wait counting for two: granting it may cut another lock of its owner in two. With so few,
/// whatever they are, every step is short and they fit one object.
pub const MAX_LOCKS: usize = 512;
/// How many locks are taken away, or looked at for one that waits, in the time that one other object is removed in.
pub(crate) const LOCKS_A_STEP: usize = 8;

/// Who has a lock: a process (or an open file, for flock(2)) of the client that has this lease.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct LockOwner {
    pub lease: u64,
    /// As the client numbers them.
    pub owner: u64,
}

/// A lock, or the wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Lock {
    pub class: LockClass,
    pub start: u64,
    /// The last byte.
    pub end: u64,
    pub owner: LockOwner,
    pub kind: LockKind,
    /// The process, for people.
    pub pid: u32,
}

impl Lock {
    pub(crate) fn new(lease: u64, request: &LockRequest) -> Self {
        let LockRequest { owner, pid, class, kind, start, end } = *request;
        Self { class, start, end, owner: LockOwner { lease, owner }, kind, pid }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.class == other.class && self.start <= other.end && other.start <= self.end
    }

    fn conflicts(&self, other: &Self) -> bool {
        let exclusive = LockKind::Exclusive;
        self.overlaps(other)
            && self.owner != other.owner
            && (self.kind == exclusive || other.kind == exclusive)
    }

    /// Whether the two are one lock cut in half.
    fn continues(&self, other: &Self) -> bool {
        let same = (self.class, self.owner, self.kind) == (other.class, other.owner, other.kind);
        let adjacent = other.end.checked_add(1) == Some(self.start);
        same && (adjacent || self.overlaps(other))
    }
}

/// All locks on one inode.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LockTable {
    /// Ascending. Those of one owner and class neither overlap nor touch with the same kind.
    pub held: Vec<Lock>,
    /// In the order in which they came.
    pub waiting: Vec<Lock>,
}

impl LockTable {
    /// How many locks and waits there are.
    pub fn len(&self) -> usize {
        self.held.len() + self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What counts against [`MAX_LOCKS`]. Granting what waits never adds to it.
    pub(crate) fn weight(&self) -> usize {
        self.held.len() + 2 * self.waiting.len()
    }

    /// What it costs to take locks away and to grant what has waited for them: every wait may be held against every lock.
    /// Units: the removal of one object.
    pub(crate) fn effort(&self) -> usize {
        (1 + self.waiting.len()) * self.len() / LOCKS_A_STEP
    }

    /// What keeps `wanted` from being set.
    pub(crate) fn conflict(&self, wanted: &Lock) -> Option<&Lock> {
        self.held.iter().find(|held| held.conflicts(wanted))
    }

    /// Sets `lock`. Requires: nothing conflicts with it.
    pub(crate) fn set(&mut self, lock: Lock) {
        self.waiting.retain(|waiting| *waiting != lock);
        self.clear(lock.owner, lock.class, lock.start, lock.end);
        let mut merged = lock;
        self.held.retain(|held| {
            let joins = held.continues(&merged) || merged.continues(held);
            if joins {
                merged.start = merged.start.min(held.start);
                merged.end = merged.end.max(held.end);
            }
            !joins
        });
        self.held.push(merged);
        self.held.sort_unstable();
    }

    /// Takes from `owner` what it has in `start ..= end`.
    pub(crate) fn clear(&mut self, owner: LockOwner, class: LockClass, start: u64, end: u64) {
        let mut rest = Vec::new();
        self.held.retain(|held| {
            let affected = held.owner == owner
                && held.class == class
                && held.start <= end
                && start <= held.end;
            if affected && held.start < start {
                rest.push(Lock { end: start - 1, ..*held });
            }
            if affected && held.end > end {
                rest.push(Lock { start: end + 1, ..*held });
            }
            !affected
        });
        self.held.append(&mut rest);
        self.held.sort_unstable();
    }

    /// Takes away all that a lease has.
    pub(crate) fn clear_lease(&mut self, lease: u64) {
        self.held.retain(|lock| lock.owner.lease != lease);
        self.waiting.retain(|lock| lock.owner.lease != lease);
    }

    /// Sets what has waited and need not wait any more, in the order in which it came.
    pub(crate) fn grant(&mut self) {
        while let Some(ready) = self.waiting.iter().find(|w| self.conflict(w).is_none()).copied() {
            self.set(ready);
        }
    }

    /// Whether waiting for `wanted` would be for ever: somebody whom it waits for waits, in turn, for its owner.
    ///
    /// Looks at this inode only. A process may wait for one lock at a time.
    pub(crate) fn deadlocks(&self, wanted: &Lock) -> bool {
        let mut seen = BTreeSet::new();
        let mut frontier = Vec::from([*wanted]);
        while let Some(blocked) = frontier.pop() {
            for held in self.held.iter().filter(|held| held.conflicts(&blocked)) {
                if held.owner == wanted.owner {
                    return true;
                }
                if seen.insert(held.owner) {
                    frontier.extend(self.waiting.iter().filter(|w| w.owner == held.owner));
                }
            }
        }
        false
    }

    /// How many locks and waits each lease has.
    pub(crate) fn counts(&self) -> BTreeMap<u64, u32> {
        let mut counts = BTreeMap::new();
        for lock in self.held.iter().chain(&self.waiting) {
            *counts.entry(lock.owner.lease).or_default() += 1;
        }
        counts
    }

    /// What is wrong with the table; nothing of a sound one. (I-10)
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let pairs = || {
            let later = |i: usize| self.held.iter().skip(i + 1);
            self.held.iter().enumerate().flat_map(move |(i, a)| later(i).map(move |b| (a, b)))
        };
        if self.is_empty() || self.weight() > MAX_LOCKS {
            Some("an impossible number of locks")
        } else if !self.held.is_sorted() || self.held.iter().any(|lock| lock.start > lock.end) {
            Some("locks out of order")
        } else if pairs().any(|(a, b)| a.conflicts(b)) {
            Some("locks that conflict")
        } else if pairs().any(|(a, b)| (a.owner == b.owner && a.overlaps(b)) || b.continues(a)) {
            Some("one lock in two pieces")
        } else if self.waiting.iter().any(|waiting| self.conflict(waiting).is_none()) {
            Some("a wait for nothing")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Lcg;
    use LockClass::{Flock, Record};
    use LockKind::{Exclusive, Shared};
    use alloc::vec;

    fn lock(owner: u64, kind: LockKind, start: u64, end: u64) -> Lock {
        let owner = LockOwner { lease: owner / 10, owner };
        Lock { class: Record, start, end, owner, kind, pid: 1 }
    }

    fn ranges(table: &LockTable) -> Vec<(u64, u64, u64, LockKind)> {
        table.held.iter().map(|l| (l.owner.owner, l.start, l.end, l.kind)).collect()
    }

    #[test]
    fn a_lock_is_split_merged_and_converted() {
        let mut table = LockTable::default();
        table.set(lock(1, Exclusive, 10, 19));
        table.set(lock(1, Exclusive, 20, 29));
        assert_eq!(ranges(&table), [(1, 10, 29, Exclusive)]);
        table.set(lock(1, Shared, 15, 16));
        let split = [(1, 10, 14, Exclusive), (1, 15, 16, Shared), (1, 17, 29, Exclusive)];
        assert_eq!(ranges(&table), split);
        table.clear(lock(1, Shared, 0, 0).owner, Record, 12, 17);
        assert_eq!(ranges(&table), [(1, 10, 11, Exclusive), (1, 18, 29, Exclusive)]);
        table.set(lock(1, Exclusive, 0, u64::MAX));
        assert_eq!(ranges(&table), [(1, 0, u64::MAX, Exclusive)]);
        table.clear(lock(1, Shared, 0, 0).owner, Record, 0, u64::MAX);
        assert!(table.is_empty());
    }

    #[test]
    fn only_overlap_between_owners_conflicts_and_only_in_one_class() {
        let mut table = LockTable::default();
        table.set(lock(1, Shared, 10, 19));
        assert!(table.conflict(&lock(2, Shared, 0, 99)).is_none());
        assert!(table.conflict(&lock(2, Exclusive, 19, 99)).is_some());
        assert!(table.conflict(&lock(2, Exclusive, 20, 99)).is_none());
        assert!(table.conflict(&lock(1, Exclusive, 0, 99)).is_none());
        let flock = Lock { class: Flock, ..lock(2, Exclusive, 0, u64::MAX) };
        assert!(table.conflict(&flock).is_none());
    }

    #[test]
    fn waits_are_granted_in_their_order() {
        let mut table = LockTable::default();
        table.set(lock(1, Exclusive, 0, 9));
        let waits = [lock(2, Shared, 0, 4), lock(3, Exclusive, 0, 9), lock(4, Shared, 5, 9)];
        table.waiting = waits.to_vec();
        table.grant();
        assert_eq!(table.held.len(), 1);
        table.clear(lock(1, Shared, 0, 0).owner, Record, 0, 9);
        table.grant();
        assert_eq!(ranges(&table), [(2, 0, 4, Shared), (4, 5, 9, Shared)]);
        assert_eq!(table.waiting, [waits[1]]);
    }

    #[test]
    fn a_circle_of_waits_is_seen() {
        let mut table = LockTable::default();
        for owner in 1..=3 {
            table.set(lock(owner, Exclusive, owner, owner));
        }
        table.waiting = vec![lock(1, Exclusive, 2, 2), lock(2, Exclusive, 3, 3)];
        assert!(table.deadlocks(&lock(3, Exclusive, 1, 1)));
        assert!(!table.deadlocks(&lock(4, Exclusive, 1, 1)));
        table.waiting.remove(0);
        assert!(!table.deadlocks(&lock(3, Exclusive, 1, 1)));
    }

    /// Byte by byte and owner by owner, the plainest way to say what a lock is.
    #[test]
    fn agrees_with_a_map_of_bytes() {
        let mut rng = Lcg(17);
        let mut table = LockTable::default();
        let mut bytes: Vec<BTreeMap<u64, LockKind>> = vec![BTreeMap::new(); 24];
        for _ in 0..20_000 {
            let (start, owner) = (rng.next(24), rng.next(4));
            let end = (start + rng.next(8)).min(23);
            let kind = if rng.next(2) == 0 { Shared } else { Exclusive };
            let wanted = lock(owner, kind, start, end);
            let range = &mut bytes[start as usize..=end as usize];
            if rng.next(3) == 0 {
                table.clear(wanted.owner, Record, start, end);
                range.iter_mut().for_each(|byte| byte.retain(|other, _| *other != owner));
            } else {
                let free = range.iter().all(|byte| {
                    let others = || byte.iter().filter(|(other, _)| **other != owner);
                    others().count() == 0 || (kind == Shared && others().all(|(_, k)| *k == Shared))
                });
                assert_eq!(table.conflict(&wanted).is_none(), free);
                if free {
                    table.set(wanted);
                    range.iter_mut().for_each(|byte| byte.extend([(owner, kind)]));
                }
            }
            for (at, byte) in bytes.iter().enumerate() {
                let at = at as u64;
                let held = table.held.iter().filter(|l| l.start <= at && at <= l.end);
                let held: BTreeMap<_, _> = held.map(|l| (l.owner.owner, l.kind)).collect();
                assert_eq!(held, *byte);
            }
            assert!(table.is_empty() || table.fault().is_none(), "{:?}", table.fault());
        }
    }
}
