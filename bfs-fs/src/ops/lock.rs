//! Locks that hold for every client of the group. [fcntl(2): F_SETLK, flock(2)]
//!
//! Nothing here waits: who cannot have a lock and wants to wait leaves a ticket, which turns into the lock when it can,
//! and asks from time to time what has become of it.

use crate::cost;
use crate::locks::{LOCKS_A_STEP, Lock, LockTable, MAX_LOCKS};
use crate::object::{InodeRecord, Object, Stake, locks_id};
use crate::op::{FsError, FsReply, FsResult, Inode, LockClass, LockInfo, LockRequest};
use crate::ops::MAX_STAKES;
use crate::permission::{READ, WRITE};
use crate::state::{Reader, Writer};
use alloc::collections::BTreeSet;

impl LockRequest {
    /// Errors: `Invalid` for a range that ends before it begins, or beyond every offset.
    fn check(&self) -> Result<(), FsError> {
        let whole = self.class == LockClass::Record || (self.start == 0 && self.end >= MAX_END);
        let right = self.start <= self.end && self.end <= MAX_END && whole;
        if right { Ok(()) } else { Err(FsError::Invalid) }
    }
}

/// The last offset that a lock can cover: "to the end of the file", however far that moves.
const MAX_END: u64 = i64::MAX as u64;

impl<'a> Reader<'a> {
    /// The locks on `number`.
    fn locks(self, number: Inode) -> Option<&'a LockTable> {
        match self.state.get_or_miss(locks_id(number))? {
            Object::Locks(table) => Some(table),
            _ => None,
        }
    }

    /// An inode that the caller may lock: it may do something with it.
    ///
    /// Errors: `Stale`, `AccessDenied`, and those of the request.
    fn lockable(self, number: Inode, request: &LockRequest) -> Result<&'a InodeRecord, FsError> {
        let record = self.inode(number)?;
        request.check()?;
        let allowed = |mask| self.caller.allow_data(record, mask);
        allowed(READ).or_else(|_| allowed(WRITE))?;
        Ok(record)
    }

    /// `request` as a lock of the caller's client; without a lease it is nobody's.
    fn as_lock(self, request: &LockRequest) -> Lock {
        Lock::new(self.lease_of(self.client).unwrap_or(0), request)
    }

    /// A lock that keeps `request` from being granted. [fcntl(2): F_GETLK]
    ///
    /// Errors: `Stale`, `AccessDenied`, `Invalid`.
    pub fn test_lock(self, number: Inode, request: &LockRequest) -> FsResult {
        self.lockable(number, request)?;
        let wanted = self.as_lock(request);
        let conflict = self.locks(number).and_then(|table| table.conflict(&wanted));
        Ok(FsReply::Conflict(conflict.map(|lock| LockInfo {
            kind: lock.kind,
            start: lock.start,
            end: lock.end,
            // The processes of other clients are no processes here.
            pid: if lock.owner.lease == wanted.owner.lease { lock.pid } else { 0 },
        })))
    }

    /// Whether the ticket for `request` still waits: `Waiting`, or `Done`.
    ///
    /// Errors: `Stale`.
    pub fn lock_status(self, number: Inode, request: &LockRequest) -> FsResult {
        self.inode(number)?;
        let wanted = self.as_lock(request);
        let waits = self.locks(number).is_some_and(|table| table.waiting.contains(&wanted));
        Ok(if waits { FsReply::Waiting } else { FsReply::Done })
    }
}

impl Writer<'_> {
    /// Sets a lock, replacing what its owner had in the range.
    ///
    /// Effects: renews the lease. Where another lock is in the way and `wait` is set, it leaves a ticket and answers
    /// `Waiting`; flock(2) gives up the lock that it had in either case, as on Linux.
    ///
    /// Errors: `Stale`, `AccessDenied`, `Invalid`, `WouldBlock`, `Deadlock` (with the waits on the same inode), `NoLocks` (too
    /// many on this inode or of this client, or no memory).
    pub fn lock(&mut self, number: Inode, request: &LockRequest, wait: bool) -> FsResult {
        let reader = self.reader();
        reader.lockable(number, request)?;
        let mut wanted = reader.as_lock(request);
        let table = reader.locks(number).cloned().unwrap_or_default();
        let conflicts = table.conflict(&wanted).is_some();
        let gives_up = request.class == LockClass::Flock
            && table
                .held
                .iter()
                .any(|held| held.owner == wanted.owner && held.class == wanted.class);
        if conflicts && !wait && !gives_up {
            return Err(FsError::WouldBlock);
        }
        if conflicts && wait && request.class == LockClass::Record && table.deadlocks(&wanted) {
            return Err(FsError::Deadlock);
        }
        self.expect_lockable(number, &table, wanted.owner.lease)?;
        wanted.owner.lease = self.renewed_lease();
        let mut changed = table;
        if !conflicts {
            changed.set(wanted);
        } else {
            if gives_up {
                changed.clear(wanted.owner, wanted.class, 0, MAX_END);
            }
            if wait && !changed.waiting.contains(&wanted) {
                changed.waiting.push(wanted);
            }
        }
        changed.grant();
        self.put_locks(number, changed);
        Ok(match (conflicts, wait) {
            (false, _) => FsReply::Done,
            (true, true) => FsReply::Waiting,
            // What it had is gone, so this is no error, which would have changed nothing.
            (true, false) => FsReply::Refused,
        })
    }

    /// Errors: `NoLocks` if one more could be too much.
    fn expect_lockable(&self, number: Inode, table: &LockTable, lease: u64) -> Result<(), FsError> {
        let reader = self.reader();
        // A lock in the middle of another one makes three of it.
        let crowded = table.weight() + 2 > MAX_LOCKS;
        let stakes = reader.lease(lease).map_or(0, |lease| lease.stakes);
        let full = stakes >= MAX_STAKES && reader.stake(number, lease).is_none();
        let room = self.expect_room(2 * cost::LOCK_COST + cost::STAKE_COST);
        if crowded || full || room.is_err() { Err(FsError::NoLocks) } else { Ok(()) }
    }

    /// Takes from an owner what it has in a range; what waited for that gets it.
    ///
    /// Effects: renews the lease.
    ///
    /// Errors: `Stale`, `Invalid`, `NoLocks` if a lock would have to be cut in two and there are too many, or no memory.
    pub fn unlock(&mut self, number: Inode, request: &LockRequest) -> FsResult {
        let reader = self.reader();
        reader.inode(number)?;
        request.check()?;
        let gone = reader.as_lock(request);
        let Some(mut table) = reader.locks(number).cloned() else { return Ok(FsReply::Done) };
        let before = table.len();
        table.clear(gone.owner, gone.class, gone.start, gone.end);
        table.grant();
        let more = table.len().saturating_sub(before) as u64;
        if table.weight() > MAX_LOCKS || self.expect_room(more * cost::LOCK_COST).is_err() {
            return Err(FsError::NoLocks);
        }
        self.renewed_lease();
        self.put_locks(number, table);
        Ok(FsReply::Done)
    }

    /// Takes back a ticket.
    ///
    /// Errors: `Stale`, `NotFound` if it does not wait: it has turned into the lock.
    pub fn cancel_lock(&mut self, number: Inode, request: &LockRequest) -> FsResult {
        let reader = self.reader();
        reader.inode(number)?;
        let gone = reader.as_lock(request);
        let mut table = reader.locks(number).cloned().unwrap_or_default();
        let before = table.waiting.len();
        table.waiting.retain(|waiting| *waiting != gone);
        if table.waiting.len() == before {
            return Err(FsError::NotFound);
        }
        self.put_locks(number, table);
        Ok(FsReply::Done)
    }

    /// Takes away what a lease that has ended holds and waits for on `number`.
    pub fn drop_locks_of(&mut self, number: Inode, lease: u64) {
        let Some(mut table) = self.reader().locks(number).cloned() else { return };
        self.spend(table.effort());
        table.clear_lease(lease);
        table.grant();
        self.put_locks(number, table);
    }

    /// Takes away all locks on an inode that goes.
    pub fn drop_locks(&mut self, number: Inode) {
        self.spend(self.reader().locks(number).map_or(0, |table| table.len() / LOCKS_A_STEP));
        self.put_locks(number, LockTable::default());
    }

    /// Replaces the locks on `number`, and keeps the accounts of everyone who has some.
    fn put_locks(&mut self, number: Inode, table: LockTable) {
        let (old_len, old) =
            self.reader().locks(number).map_or((0, Default::default()), |t| (t.len(), t.counts()));
        let (new_len, new) = (table.len(), table.counts());
        let leases: BTreeSet<u64> = old.keys().chain(new.keys()).copied().collect();
        for lease in leases {
            let locks = new.get(&lease).copied().unwrap_or(0);
            self.change_stake(number, lease, |stake: &mut Stake| stake.locks = locks);
        }
        self.refund(old_len as u64 * cost::LOCK_COST);
        self.charge(new_len as u64 * cost::LOCK_COST);
        match table.is_empty() {
            true => drop(self.state.remove(locks_id(number))),
            false => self.state.insert(locks_id(number), Object::Locks(table.into())),
        }
    }
}
