//! Locks between the clients of a group.

use super::fixture::*;
use crate::locks::MAX_LOCKS;
use crate::object::{Object, Stake, locks_id, stake_id};
use crate::op::FsError::*;
use crate::op::*;
use crate::{FileSystemConfig, cost, fsck};
use LockClass::{Flock, Record};
use LockKind::{Exclusive, Shared};

const END: u64 = i64::MAX as u64;

fn request(owner: u64, class: LockClass, kind: LockKind, start: u64, end: u64) -> LockRequest {
    LockRequest { owner, pid: 7, class, kind, start, end }
}

fn record(owner: u64, kind: LockKind, start: u64, end: u64) -> LockRequest {
    request(owner, Record, kind, start, end)
}

fn flock(owner: u64, kind: LockKind) -> LockRequest {
    request(owner, Flock, kind, 0, END)
}

/// An unlock that cuts a lock in two takes memory too.
#[test]
fn an_unlock_takes_no_more_room_than_there_is() {
    let mut lockers = Lockers::new();
    assert_eq!(lockers.try_lock(1, record(1, Exclusive, 0, END)), Ok(FsReply::Done));
    lockers.b.fs = crate::FileSystem::new(FileSystemConfig {
        memory_budget: lockers.b.used() + cost::LOCK_COST,
        ..FileSystemConfig::default()
    });
    assert_eq!(lockers.unlock(1, record(1, Exclusive, 1, 1)), Ok(FsReply::Done));
    assert_eq!(lockers.unlock(1, record(1, Exclusive, 3, 3)), Err(NoLocks));
    assert_eq!(lockers.unlock(1, record(1, Exclusive, 0, 0)), Ok(FsReply::Done), "makes it less");
    assert_eq!(lockers.unlock(1, record(1, Exclusive, 3, 3)), Ok(FsReply::Done));
}

/// Locks a file as different clients.
struct Lockers {
    b: Bench,
    file: Inode,
}

impl Lockers {
    fn new() -> Self {
        let mut b = Bench::new();
        let file = b.file(&root(), ROOT, "f", 0o644);
        Self { b, file }
    }

    fn run(&mut self, client: u32, op: FsOp) -> FsResult {
        self.b.client = client;
        self.b.run(&root(), op)
    }

    fn try_lock(&mut self, client: u32, request: LockRequest) -> FsResult {
        let op = FsOp::Lock { inode: self.file, request, wait: false };
        self.run(client, op)
    }

    fn wait(&mut self, client: u32, request: LockRequest) -> FsResult {
        let op = FsOp::Lock { inode: self.file, request, wait: true };
        self.run(client, op)
    }

    fn unlock(&mut self, client: u32, request: LockRequest) -> FsResult {
        let op = FsOp::Unlock { inode: self.file, request };
        self.run(client, op)
    }

    fn status(&mut self, client: u32, request: LockRequest) -> FsResult {
        let op = FsOp::LockStatus { inode: self.file, request };
        self.run(client, op)
    }

    fn conflict(&mut self, client: u32, request: LockRequest) -> Option<LockInfo> {
        match self.run(client, FsOp::TestLock { inode: self.file, request }) {
            Ok(FsReply::Conflict(conflict)) => conflict,
            other => panic!("{other:?}"),
        }
    }
}

const DONE: FsResult = Ok(FsReply::Done);
const WAITING: FsResult = Ok(FsReply::Waiting);

#[test]
fn a_lock_holds_for_every_client_of_the_group() {
    let mut l = Lockers::new();
    assert_eq!(l.try_lock(1, record(5, Exclusive, 10, 19)), DONE);
    // The same number at another client is another process.
    assert_eq!(l.try_lock(2, record(5, Exclusive, 19, 30)), Err(WouldBlock));
    assert_eq!(l.try_lock(1, record(6, Shared, 0, 10)), Err(WouldBlock));
    assert_eq!(l.try_lock(2, record(5, Exclusive, 20, 30)), DONE);
    assert_eq!(l.try_lock(1, record(5, Shared, 0, 15)), DONE);
    let found = LockInfo { kind: Exclusive, start: 16, end: 19, pid: 0 };
    assert_eq!(l.conflict(2, record(5, Shared, 0, 99)), Some(found));
    assert_eq!(l.conflict(1, record(6, Shared, 0, 99)), Some(LockInfo { pid: 7, ..found }));
    assert_eq!(l.conflict(1, record(5, Shared, 0, 19)), None);
    assert_eq!(l.conflict(3, record(1, Shared, 0, 15)), None);
    assert_eq!(l.unlock(1, record(5, Shared, 0, END)), DONE);
    assert_eq!(l.try_lock(2, record(5, Exclusive, 0, 30)), DONE);
    // flock(2) is another matter.
    assert_eq!(l.try_lock(1, flock(1, Exclusive)), DONE);
    assert_eq!(l.try_lock(2, flock(1, Shared)), Err(WouldBlock));
}

#[test]
fn who_waits_has_a_ticket_and_gets_the_lock_without_asking() {
    let mut l = Lockers::new();
    let (held, wanted) = (record(1, Exclusive, 0, 9), record(1, Exclusive, 5, END));
    assert_eq!(l.try_lock(1, held), DONE);
    assert_eq!(l.wait(2, wanted), WAITING);
    assert_eq!(l.wait(2, wanted), WAITING);
    assert_eq!(l.status(2, wanted), WAITING);
    assert_eq!(l.status(1, wanted), DONE);
    assert_eq!(l.unlock(1, record(1, Shared, 0, 4)), DONE);
    assert_eq!(l.status(2, wanted), WAITING);
    assert_eq!(l.unlock(1, held), DONE);
    assert_eq!(l.status(2, wanted), DONE);
    assert_eq!(l.try_lock(1, held), Err(WouldBlock));
    assert_eq!(l.wait(2, wanted), DONE);
    // A ticket that is taken back is worth nothing; one that was granted cannot be taken back.
    assert_eq!(l.wait(1, held), WAITING);
    let cancel = |inode, request| FsOp::CancelLock { inode, request };
    assert_eq!(l.run(2, cancel(l.file, wanted)), Err(NotFound));
    assert_eq!(l.run(1, cancel(l.file, held)), DONE);
    assert_eq!(l.unlock(2, wanted), DONE);
    assert_eq!(l.conflict(3, record(1, Exclusive, 0, END)), None);
}

#[test]
fn readers_share_and_a_writer_waits_for_the_last() {
    let mut l = Lockers::new();
    for client in 1..=3 {
        assert_eq!(l.try_lock(client, flock(1, Shared)), DONE);
    }
    assert_eq!(l.wait(4, flock(1, Exclusive)), WAITING);
    for client in 1..=3 {
        assert_eq!(l.status(4, flock(1, Exclusive)), WAITING);
        assert_eq!(l.unlock(client, flock(1, Shared)), DONE);
    }
    assert_eq!(l.status(4, flock(1, Exclusive)), DONE);
    assert_eq!(l.try_lock(1, flock(1, Shared)), Err(WouldBlock));
}

#[test]
fn converting_a_flock_gives_up_the_old_one_first() {
    let mut l = Lockers::new();
    assert_eq!(l.try_lock(1, flock(1, Shared)), DONE);
    assert_eq!(l.try_lock(2, flock(1, Shared)), DONE);
    assert_eq!(l.try_lock(1, flock(1, Exclusive)), Ok(FsReply::Refused));
    assert_eq!(l.try_lock(2, flock(1, Exclusive)), DONE);
    // Two that convert at once both get there, one after the other.
    assert_eq!(l.try_lock(2, flock(1, Shared)), DONE);
    assert_eq!(l.try_lock(1, flock(1, Shared)), DONE);
    assert_eq!(l.wait(1, flock(1, Exclusive)), WAITING);
    assert_eq!(l.wait(2, flock(1, Exclusive)), DONE);
    assert_eq!(l.unlock(2, flock(1, Shared)), DONE);
    assert_eq!(l.status(1, flock(1, Exclusive)), DONE);
}

#[test]
fn a_circle_of_waits_is_refused() {
    let mut l = Lockers::new();
    assert_eq!(l.try_lock(1, record(1, Exclusive, 1, 1)), DONE);
    assert_eq!(l.try_lock(2, record(1, Exclusive, 2, 2)), DONE);
    assert_eq!(l.wait(1, record(1, Exclusive, 2, 2)), WAITING);
    assert_eq!(l.wait(2, record(1, Exclusive, 1, 1)), Err(Deadlock));
    assert_eq!(l.try_lock(2, record(1, Exclusive, 1, 1)), Err(WouldBlock));
}

#[test]
fn locks_go_with_the_lease_and_with_the_file() {
    let mut l = Lockers::new();
    let all = record(1, Exclusive, 0, END);
    assert_eq!(l.try_lock(1, all), DONE);
    assert_eq!(l.wait(2, all), WAITING);
    assert_eq!(l.run(1, FsOp::EndLease), DONE);
    // The next ordered operation clears away.
    assert!(l.run(3, FsOp::Renew { life: 0 }).is_ok());
    assert_eq!(l.status(2, all), DONE);
    assert_eq!(l.try_lock(1, all), Err(WouldBlock));
    assert_eq!(l.wait(1, all), WAITING);
    let unlink = unlink(ROOT, "f");
    assert_eq!(l.run(3, unlink), DONE);
    assert_eq!(l.status(1, all), Err(Stale));
    assert_eq!(l.b.used(), EMPTY);
    // What is open somewhere keeps its locks without a name.
    let mut l = Lockers::new();
    assert_eq!(l.try_lock(1, all), DONE);
    assert!(l.run(1, FsOp::Hold { inodes: alloc::vec![l.file] }).is_ok());
    let unlink = unlink_f();
    assert_eq!(l.run(2, unlink), DONE);
    assert_eq!(l.try_lock(2, all), Err(WouldBlock));
}

fn unlink_f() -> FsOp {
    unlink(ROOT, "f")
}

#[test]
fn requests_that_mean_nothing_are_refused() {
    let mut l = Lockers::new();
    for request in [
        record(1, Exclusive, 5, 4),
        record(1, Exclusive, 0, END + 1),
        request(1, Flock, Shared, 1, END),
        request(1, Flock, Shared, 0, 9),
    ] {
        assert_eq!(l.try_lock(1, request), Err(Invalid));
        assert_eq!(l.unlock(1, request), Err(Invalid));
    }
    let file = l.b.file(&user(100), ROOT, "private", 0o600);
    let lock = FsOp::Lock { inode: file, request: record(1, Shared, 0, 9), wait: true };
    l.b.fails(&user(200), lock.clone(), AccessDenied);
    l.b.done(&user(100), lock.clone());
    l.b.get(&root(), chmod(file, 0o602));
    l.b.done(&user(200), lock);
    let directory = FsOp::Lock { inode: ROOT, request: flock(1, Exclusive), wait: false };
    l.b.done(&root(), directory);
}

#[test]
fn locks_run_out() {
    let mut l = Lockers::new();
    l.b.check = false;
    for i in 0..MAX_LOCKS as u64 - 2 {
        assert_eq!(l.try_lock(1, record(1, Exclusive, 2 * i, 2 * i)), DONE);
    }
    l.b.check = true;
    assert_eq!(l.try_lock(1, record(1, Exclusive, 5000, 5009)), DONE);
    assert_eq!(l.try_lock(2, record(1, Exclusive, 6000, 6000)), Err(NoLocks));
    assert_eq!(l.unlock(1, record(1, Exclusive, 5004, 5005)), DONE);
    assert_eq!(l.unlock(1, record(1, Exclusive, 5001, 5001)), Err(NoLocks));
    assert_eq!(l.unlock(1, record(1, Exclusive, 0, END)), DONE);
    let memory_budget = EMPTY + cost::INODE_COST + cost::entry(b"f") + cost::STAKE_COST;
    let b = Bench::with(FileSystemConfig { memory_budget, root_mode: 0o777, ..Default::default() });
    let mut l = Lockers { b, file: ROOT };
    l.file = l.b.file(&root(), ROOT, "f", 0o644);
    assert_eq!(l.try_lock(1, record(1, Exclusive, 0, 9)), Err(NoLocks));
}

/// The longest chain of grants, each of which allows one that came before it, is short enough.
#[test]
fn a_chain_of_grants_ends() {
    let mut l = Lockers::new();
    l.b.check = false;
    let owners = MAX_LOCKS as u64 / 3 - 2;
    for i in 0..owners {
        assert_eq!(l.try_lock(1, record(i, Exclusive, i, i)), DONE);
    }
    assert_eq!(l.try_lock(2, record(99, Exclusive, owners, owners)), DONE);
    for i in 0..owners {
        assert_eq!(l.wait(1, record(i, Shared, i, i + 1)), WAITING);
    }
    l.b.check = true;
    assert_eq!(l.unlock(2, record(99, Exclusive, 0, END)), DONE);
    assert_eq!(l.status(1, record(0, Shared, 0, 1)), DONE);
}

#[test]
fn damage_to_locks_is_found() {
    let damaged = |fault: &str, damage: &dyn Fn(&mut Bench, Inode)| {
        let mut l = Lockers::new();
        assert_eq!(l.try_lock(1, record(1, Exclusive, 0, 9)), DONE);
        assert_eq!(l.try_lock(2, record(1, Exclusive, 20, 29)), DONE);
        assert_eq!(l.wait(2, record(1, Exclusive, 0, 9)), WAITING);
        damage(&mut l.b, l.file);
        let faults = fsck::check(&l.b.state).expect_err(fault);
        assert!(faults.iter().any(|found| found.contains(fault)), "{fault}: {faults:#?}");
    };
    fn table(b: &mut Bench, file: Inode) -> &mut crate::locks::LockTable {
        match b.state.get_mut(locks_id(file)) {
            Some(Object::Locks(table)) => table,
            _ => panic!("no locks"),
        }
    }
    damaged("out of order", &|b, f| table(b, f).held.reverse());
    damaged("conflict", &|b, f| table(b, f).held[0].end = 20);
    damaged("in two pieces", &|b, f| {
        let first = table(b, f).held[0];
        table(b, f).held[1] = crate::locks::Lock { start: 10, end: 12, ..first };
    });
    damaged("a wait for nothing", &|b, f| table(b, f).waiting[0].start = 10);
    damaged("the stakes", &|b, f| table(b, f).held.truncate(1));
    damaged("the stakes", &|b, f| {
        b.state.insert(stake_id(f, 1), Object::Stake(Stake { open: false, locks: 2 }));
    });
    damaged("impossible number", &|b, f| *table(b, f) = Default::default());
    damaged("the totals are", &|b, f| table(b, f).waiting.clear());
}
