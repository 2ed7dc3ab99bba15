//! Leases, and what clients hold on them: files that stay while they are open somewhere, and locks.
//!
//! A client has one lease, which it renews. Its time is agreed time, but advances by at most [`MAX_LEASE_STEP`] per
//! operation that looks at it, so that an outage expires nobody. When a lease ends, because nobody renewed it for
//! [`LEASE_TERM`] or because the client has started again, all that was held on it goes, a bounded part with
//! each ordered operation that follows.

use crate::cost;
use crate::object::{
    Due, Lease, Object, Stake, client_id, data_id, due_id, inode_id, lease_id, stake_id,
    stake_of_id,
};
use crate::op::{FsError, FsReply, FsResult, Inode, Keep, MAX_HOLDS};
use crate::state::{Reader, Writer, totals};
use alloc::vec::Vec;

/// How long a lease lasts that is not renewed. Longer than the renewal period, a client's retries and several doubling view
/// timeouts together. Units: nanoseconds of lease time.
pub const LEASE_TERM: u64 = 90_000_000_000;
/// By how much lease time advances at most from one operation that looks at it to the next. Units: nanoseconds.
pub const MAX_LEASE_STEP: u64 = 20_000_000_000;
/// The life of a lease that no renewal has named one for.
const NO_LIFE: u64 = 0;
/// The most inodes that a client may have a stake in.
pub const MAX_STAKES: u64 = 65_536;
/// How many other leases one renewal looks at.
const LEASES_LOOKED_AT: usize = 16;
/// How many chunks, extended attributes or stakes one operation clears away besides its own work.
pub(crate) const ALLOWANCE: usize = 512;

impl Keep {
    /// Whether what the sender has open is said in bounds.
    pub(crate) fn is_valid(&self) -> bool {
        !matches!(self, Keep::These(inodes) if inodes.len() > MAX_HOLDS)
    }

    fn covers(&self, number: Inode) -> bool {
        match self {
            Keep::These(inodes) => inodes.contains(&number),
            Keep::Whatever => true,
        }
    }
}

impl<'a> Reader<'a> {
    /// The lease called `number`.
    pub fn lease(self, number: u64) -> Option<&'a Lease> {
        match self.state.get(lease_id(number))? {
            Object::Lease(lease) => Some(lease),
            _ => None,
        }
    }

    /// The lease of `client`. The locks of one that has ended go later.
    pub fn lease_of(self, client: u32) -> Option<u64> {
        match self.state.get_or_miss(client_id(client))? {
            Object::ClientLease(number) => Some(*number),
            _ => None,
        }
    }

    /// What the lease called `lease` has in `number`.
    pub fn stake(self, number: Inode, lease: u64) -> Option<Stake> {
        // An id drops the bits that no inode has, so another number would be taken for one that exists.
        inode_id(number)?;
        match self.state.get(stake_id(number, lease))? {
            Object::Stake(stake) => Some(*stake),
            _ => None,
        }
    }

    /// The leases with a stake in `number`, ascending. Lazy.
    fn stakes(self, number: Inode) -> impl Iterator<Item = (u64, Stake)> {
        let all = self.state.range(stake_id(number, 0), stake_id(number, u64::MAX));
        all.filter_map(|(id, object)| match object {
            Object::Stake(stake) => Some((id.minor(), *stake)),
            _ => None,
        })
    }

    /// Whether anybody holds `number` open.
    fn is_held(self, number: Inode) -> bool {
        self.stakes(number).any(|(_, stake)| stake.open)
    }
}

impl Writer<'_> {
    /// Holds `inodes` open for the caller's client: what loses its last name stays until it is released.
    ///
    /// Effects: renews the lease. What is held already stays held.
    ///
    /// Errors: `Invalid` (more than [`MAX_HOLDS`]), `NoSpace`, `TooManyOpen`.
    pub fn hold(&mut self, inodes: &[Inode]) -> FsResult {
        if inodes.len() > MAX_HOLDS {
            return Err(FsError::Invalid);
        }
        self.expect_room(inodes.len() as u64 * cost::STAKE_COST)?;
        let held = self.reader().lease_of(self.client);
        let stakes = held.and_then(|number| self.reader().lease(number)).map_or(0, |l| l.stakes);
        if stakes + inodes.len() as u64 > MAX_STAKES {
            return Err(FsError::TooManyOpen);
        }
        let lease = self.renewed_lease();
        let mut missing = Vec::new();
        for number in inodes {
            if self.reader().inode(*number).is_err() {
                missing.push(*number);
            } else {
                self.change_stake(*number, lease, |stake| stake.open = true);
            }
        }
        Ok(FsReply::Held { missing })
    }

    /// Lets go of `inodes`: what has no name and is held by nobody any more goes.
    ///
    /// Effects: renews the lease.
    ///
    /// Errors: `Invalid` (more than [`MAX_HOLDS`]).
    pub fn let_go(&mut self, inodes: &[Inode]) -> FsResult {
        if inodes.len() > MAX_HOLDS {
            return Err(FsError::Invalid);
        }
        let lease = self.renewed_lease();
        for number in inodes {
            if self.reader().stake(*number, lease).is_some() {
                self.change_stake(*number, lease, |stake| stake.open = false);
                self.discard_if_orphaned(*number);
            }
        }
        Ok(FsReply::Done)
    }

    /// Renews the caller's lease, or begins another one if this is another life; ends others whose term is over.
    ///
    /// Effects: a lease that began with what the client did, after its last one had ended, is of this life, and told as new.
    pub fn renew(&mut self, life: u64) -> FsResult {
        let reader = self.reader();
        let before = reader.lease_of(self.client);
        let of_life = before.and_then(|number| reader.lease(number)).map(|lease| lease.life);
        if let (Some(number), Some(other)) = (before, of_life)
            && other != life
            && other != NO_LIFE
        {
            self.end_lease(number);
        }
        let number = self.renewed_lease();
        self.change_lease(number, |lease| lease.life = life);
        let now = totals(self.state).lease_time;
        let after = self.state.range(lease_id(number.saturating_add(1)), lease_id(u64::MAX >> 8));
        let around = self.state.range(lease_id(0), lease_id(number));
        let looked_at = after.chain(around).take(LEASES_LOOKED_AT);
        let over = looked_at.filter_map(|(id, object)| match object {
            Object::Lease(lease) if !lease.ended && lease.renewed + LEASE_TERM < now => {
                Some(id.major())
            }
            _ => None,
        });
        let over: Vec<u64> = over.collect();
        for number in over {
            self.end_lease(number);
        }
        Ok(FsReply::Lease { number, is_new: of_life != Some(life) })
    }

    /// Ends the caller's lease, as a clean unmount does.
    pub fn end_own_lease(&mut self) -> FsResult {
        if let Some(number) = self.reader().lease_of(self.client) {
            self.end_lease(number);
        }
        Ok(FsReply::Done)
    }

    /// The caller's lease, as of now; a new one if it has none.
    pub fn renewed_lease(&mut self) -> u64 {
        let now = self.advance_lease_time();
        if let Some(number) = self.reader().lease_of(self.client) {
            self.change_lease(number, |lease| lease.renewed = now);
            return number;
        }
        let totals = self.totals_mut();
        let number = totals.next_lease;
        totals.next_lease += 1;
        let client = self.client;
        let lease = Lease { client, life: NO_LIFE, renewed: now, stakes: 0, ended: false };
        self.state.insert(lease_id(number), Object::Lease(lease));
        self.state.insert(client_id(client), Object::ClientLease(number));
        number
    }

    fn advance_lease_time(&mut self) -> u64 {
        let time = self.time;
        let totals = self.totals_mut();
        let passed = time.saturating_sub(totals.lease_time_at).min(MAX_LEASE_STEP);
        totals.lease_time += passed;
        totals.lease_time_at = time;
        totals.lease_time
    }

    /// Requires: the lease exists and has not ended.
    fn end_lease(&mut self, number: u64) {
        let Some(lease) = self.reader().lease(number) else { return };
        let (client, stakes) = (lease.client, lease.stakes);
        if matches!(self.state.get(client_id(client)), Some(Object::ClientLease(n)) if *n == number)
        {
            self.state.remove(client_id(client));
        }
        if stakes == 0 {
            self.state.remove(lease_id(number));
        } else {
            self.change_lease(number, |lease| lease.ended = true);
            self.owe(Due::Lease(number));
        }
    }

    fn change_lease(&mut self, number: u64, how: impl FnOnce(&mut Lease)) {
        if let Some(Object::Lease(lease)) = self.state.get_mut(lease_id(number)) {
            how(lease);
        }
    }

    /// Changes what `lease` has in `number`; a stake that says nothing any more goes, and is paid back.
    pub fn change_stake(&mut self, number: Inode, lease: u64, how: impl FnOnce(&mut Stake)) {
        let old = self.reader().stake(number, lease);
        let mut new = old.unwrap_or_default();
        how(&mut new);
        let (id, of) = (stake_id(number, lease), stake_of_id(lease, number));
        match (old.is_some(), new != Stake::default()) {
            (_, true) if old == Some(new) => {}
            (true, true) => self.state.insert(id, Object::Stake(new)),
            (false, true) => {
                self.state.insert(id, Object::Stake(new));
                self.state.insert(of, Object::StakeOf);
                self.charge(cost::STAKE_COST);
                self.change_lease(lease, |lease| lease.stakes += 1);
            }
            (true, false) => {
                self.state.remove(id);
                self.state.remove(of);
                self.refund(cost::STAKE_COST);
                self.change_lease(lease, |lease| lease.stakes -= 1);
            }
            (false, false) => {}
        }
    }

    /// Takes one name from inode `number`; with the last one goes the inode, unless somebody holds it open, or `keep` says
    /// that the caller's client does. A directory has one name. Says whether the inode stays for the caller.
    ///
    /// Requires: the inode exists; a directory is empty. The entry itself is the caller's, and has been paid back.
    pub fn release(&mut self, number: Inode, keep: &Keep) -> Result<bool, FsError> {
        let record = self.reader().inode(number)?;
        let now = self.now;
        if !record.is_directory() && record.links > 1 {
            self.change(number, |record| {
                record.links -= 1;
                record.changed = now;
            });
            return Ok(false);
        }
        let kept = keep.covers(number) && self.keep(number);
        self.change(number, |record| {
            record.links = 0;
            record.changed = now;
        });
        self.discard_if_orphaned(number);
        Ok(kept)
    }

    /// Holds `number`, unless the caller's client holds too much. What the entry took pays for it.
    fn keep(&mut self, number: Inode) -> bool {
        let lease = self.renewed_lease();
        let stakes = self.reader().lease(lease).map_or(MAX_STAKES, |lease| lease.stakes);
        let kept = stakes < MAX_STAKES || self.reader().stake(number, lease).is_some();
        if kept {
            self.change_stake(number, lease, |stake| stake.open = true);
        }
        kept
    }

    /// Takes away `number` if it has neither a name nor a holder.
    ///
    /// Cost: the locks of one inode, and at most the allowance in chunks and extended attributes; the rest is owed.
    fn discard_if_orphaned(&mut self, number: Inode) {
        let Ok(record) = self.reader().inode(number) else { return };
        if record.links > 0 || self.reader().is_held(number) {
            return;
        }
        let bytes = cost::inode(&record.body);
        self.drop_locks(number);
        self.close_account(number);
        if let Some(id) = inode_id(number) {
            self.state.remove(id);
        }
        self.totals_mut().inodes -= 1;
        self.refund(bytes);
        if !self.remove_contents(number) {
            self.owe(Due::Contents(number));
        }
    }

    /// Removes what an inode that is gone has left, as far as the allowance goes; says whether all is gone.
    fn remove_contents(&mut self, number: Inode) -> bool {
        self.remove_xattrs(number) && self.remove_data(number)
    }

    /// Removes chunks of a file that is gone, as far as the allowance goes; says whether all are.
    fn remove_data(&mut self, file: Inode) -> bool {
        let stored = self.state.range(data_id(file, 0), data_id(file, u64::MAX));
        let mut pages = 0;
        let ids: Vec<_> = stored
            .take(self.allowance)
            .map(|(id, object)| {
                pages += if let Object::Data(chunk) = object { chunk.pages() as u64 } else { 0 };
                id
            })
            .collect();
        for id in &ids {
            self.state.remove(*id);
        }
        self.refund(cost::data(ids.len() as u64, pages));
        self.spend(ids.len());
        self.allowance > 0
            || self.state.range(data_id(file, 0), data_id(file, u64::MAX)).next().is_none()
    }

    /// Takes what was done off the allowance. More than that is done only where it cannot be done in parts.
    pub fn spend(&mut self, steps: usize) {
        self.allowance = self.allowance.saturating_sub(steps);
    }

    fn owe(&mut self, due: Due) {
        self.state.insert(due_id(due), Object::Due);
        self.totals_mut().dues += 1;
    }

    /// Clears away what earlier operations have left, as far as the allowance goes.
    pub fn pay_dues(&mut self) {
        while self.allowance > 0 && totals(self.state).dues > 0 {
            let first = self.state.range(due_id(Due::FIRST), due_id(Due::LAST)).next();
            let Some(due) = first.and_then(|(id, _)| Due::of(id)) else { return };
            let paid = match due {
                Due::Lease(number) => self.clear_lease(number),
                Due::Contents(number) => self.remove_contents(number),
            };
            if paid {
                self.state.remove(due_id(due));
                self.totals_mut().dues -= 1;
            }
        }
        self.allowance = ALLOWANCE;
    }

    /// Takes stakes from a lease that has ended; says whether the lease itself is gone.
    fn clear_lease(&mut self, number: u64) -> bool {
        let last = stake_of_id(number, Inode(u64::MAX));
        let of = self.state.range(stake_of_id(number, Inode(0)), last).next();
        let Some(inode) = of.map(|(id, _)| Inode(id.minor())) else {
            self.state.remove(lease_id(number));
            return true;
        };
        self.spend(1);
        self.drop_locks_of(inode, number);
        self.change_stake(inode, number, |stake| stake.open = false);
        self.discard_if_orphaned(inode);
        false
    }
}
