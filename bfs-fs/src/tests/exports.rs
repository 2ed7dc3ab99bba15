//! Who may use what, and how much of it.

use super::fixture::*;
use crate::fsck;
use crate::object::{Object, account_id, inode_id};
use crate::op::FsError::*;
use crate::op::*;
use crate::{FileSystemConfig, cost};
use alloc::vec;
use alloc::vec::Vec;

fn squashing() -> Bench {
    Bench::with(FileSystemConfig { root_mode: 0o777, ..FileSystemConfig::default() })
}

fn everything() -> Export {
    Export {
        subtree: ROOT,
        read_only: false,
        root_squash: true,
        uids: Vec::new(),
        gids: Vec::new(),
    }
}

/// At `client`, whoever asks.
fn at(b: &mut Bench, client: u32, caller: &Caller, op: FsOp) -> FsResult {
    b.client = client;
    let result = b.run(caller, op);
    b.client = 0;
    result
}

fn grant(b: &mut Bench, client: u32, export: Export) {
    b.done(&root(), FsOp::SetExport { client, export: Some(export) });
}

fn limit(b: &mut Bench, subject: Subject, bytes: u64, inodes: u64) {
    let limits = Limits { bytes: Some(bytes), inodes: Some(inodes) };
    assert!(b.run(&root(), FsOp::SetLimits { subject, limits }).is_ok());
}

#[track_caller]
fn used(b: &mut Bench, subject: Subject) -> (u64, u64) {
    match b.run(&root(), FsOp::GetAccount { subject }) {
        Ok(FsReply::Account(account)) => (account.bytes, account.inodes),
        other => panic!("{other:?}"),
    }
}

fn made(result: FsResult) -> Attributes {
    match result {
        Ok(FsReply::Attributes(attributes)) => attributes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_root_of_another_client_is_nobody_until_its_export_says_otherwise() {
    let mut b = squashing();
    let private = b.file(&root(), ROOT, "private", 0o600);
    assert_eq!(at(&mut b, 1, &root(), write(private, 0, b"x")), Err(AccessDenied));
    let theirs = made(at(&mut b, 1, &root(), create(ROOT, "theirs", 0o644)));
    assert_eq!((theirs.uid, theirs.gid), (NOBODY, NOBODY));
    // Neither is its group root's.
    let grouped = made(at(&mut b, 1, &caller(5, 0, &[0, 7]), create(ROOT, "grouped", 0o644)));
    assert_eq!((grouped.uid, grouped.gid), (5, NOBODY));
    let shared = b.file(&root(), ROOT, "shared", 0o620);
    assert_eq!(at(&mut b, 1, &caller(5, 5, &[0]), write(shared, 0, b"x")), Err(AccessDenied));
    grant(&mut b, 1, Export { root_squash: false, ..everything() });
    assert!(at(&mut b, 1, &root(), write(private, 0, b"x")).is_ok());
    b.done(&root(), FsOp::SetExport { client: 1, export: None });
    assert_eq!(at(&mut b, 1, &root(), write(private, 0, b"x")), Err(AccessDenied));
}

#[test]
fn only_the_administrator_says_who_may_what() {
    let mut b = squashing();
    grant(&mut b, 1, Export { root_squash: false, ..everything() });
    let export = Some(everything());
    for op in [
        FsOp::SetExport { client: 1, export: export.clone() },
        FsOp::SetLimits { subject: Subject::User(7), limits: Limits::default() },
        FsOp::MakeSubtree { inode: ROOT },
    ] {
        assert_eq!(at(&mut b, 1, &root(), op.clone()), Err(NotPermitted));
        assert_eq!(at(&mut b, 0, &user(7), op), Err(NotPermitted));
    }
    let get = FsOp::GetExport { client: 1 };
    assert!(matches!(at(&mut b, 1, &user(7), get.clone()), Ok(FsReply::Export(_))));
    assert_eq!(at(&mut b, 2, &root(), get), Err(NotPermitted));
    // Nobody locks the administrator out, and nonsense is refused.
    b.fails(&root(), FsOp::SetExport { client: 0, export: export.clone() }, Invalid);
    let file = b.file(&root(), ROOT, "f", 0o644);
    for (export, error) in [
        (Export { uids: vec![(2, 1)], ..everything() }, Invalid),
        (Export { uids: vec![(1, 2); MAX_ID_RANGES + 1], ..everything() }, Invalid),
        (Export { gids: vec![(2, 1)], ..everything() }, Invalid),
        (Export { gids: vec![(1, 2); MAX_ID_RANGES + 1], ..everything() }, Invalid),
        (Export { subtree: file, ..everything() }, NotFound),
        (Export { subtree: Inode(99), ..everything() }, NotFound),
    ] {
        b.fails(&root(), FsOp::SetExport { client: 1, export: Some(export) }, error);
    }
}

#[test]
fn users_whom_the_export_does_not_name_are_nobody() {
    let mut b = squashing();
    grant(&mut b, 1, Export { uids: vec![(100, 199), (300, 300)], ..everything() });
    let file = b.file(&user(200), ROOT, "f", 0o600);
    assert_eq!(at(&mut b, 1, &user(200), write(file, 0, b"x")), Err(AccessDenied));
    assert_eq!(at(&mut b, 1, &caller(200, 200, &[200]), lookup(ROOT, "f")).map(|_| ()), Ok(()));
    for (uid, owner) in [(100, 100), (199, 199), (300, 300), (200, NOBODY), (0, NOBODY)] {
        let name = alloc::format!("of {uid}");
        assert_eq!(made(at(&mut b, 1, &user(uid), create(ROOT, &name, 0o644))).uid, owner);
    }
}

#[test]
fn nobody_is_in_a_group_that_the_export_does_not_name() {
    let mut b = squashing();
    grant(&mut b, 1, Export { gids: vec![(100, 199), (300, 300)], ..everything() });
    let file = b.file(&root(), ROOT, "f", 0o660);
    let belongs_to = |b: &mut Bench, gid| b.get(&root(), chown(file, None, Some(gid)));
    let write_as = |b: &mut Bench, who| at(b, 1, &who, write(file, 0, b"x")).map(drop);
    for (group, expected) in [(150, Ok(())), (300, Ok(())), (42, Err(AccessDenied))] {
        belongs_to(&mut b, group);
        assert_eq!(write_as(&mut b, caller(5, group, &[])), expected);
        assert_eq!(write_as(&mut b, caller(5, 100, &[group])), expected);
    }
    let made = made(at(&mut b, 1, &caller(5, 42, &[]), create(ROOT, "g", 0o600)));
    assert_eq!((made.uid, made.gid), (5, NOBODY));
}

#[test]
fn a_read_only_export_changes_nothing_but_may_lock() {
    let mut b = squashing();
    let file = b.file(&root(), ROOT, "f", 0o666);
    grant(&mut b, 1, Export { read_only: true, ..everything() });
    let who = user(100);
    for op in [
        create(ROOT, "g", 0o644),
        mkdir(ROOT, "d", 0o755),
        write(file, 0, b"x"),
        unlink(ROOT, "f"),
        chmod(file, 0o600),
        truncate(file, 0),
        rename(ROOT, "f", ROOT, "g", RenameMode::Replace),
        link(file, ROOT, "g"),
    ] {
        assert_eq!(at(&mut b, 1, &who, op), Err(ReadOnly));
    }
    assert!(at(&mut b, 1, &who, FsOp::Read { inode: file, offset: 0, count: 9 }).is_ok());
    assert!(at(&mut b, 1, &who, FsOp::Hold { inodes: vec![file] }).is_ok());
    assert!(at(&mut b, 1, &who, FsOp::Sync { inode: file }).is_ok());
}

/// A subtree "s" with a file "inside", and a file "outside" beside it; client 1 sees the subtree.
fn divided() -> (Bench, Inode, Inode, Inode) {
    let mut b = squashing();
    let top = b.directory(&root(), ROOT, "s", 0o777);
    b.get(&root(), FsOp::MakeSubtree { inode: top });
    let inside = b.file(&root(), top, "inside", 0o666);
    let outside = b.file(&root(), ROOT, "outside", 0o666);
    grant(&mut b, 1, Export { subtree: top, ..everything() });
    (b, top, inside, outside)
}

#[test]
fn a_client_of_a_subtree_finds_its_top_as_root_and_nothing_else() {
    let (mut b, top, inside, outside) = divided();
    let who = user(100);
    assert_eq!(made(at(&mut b, 1, &who, lookup(ROOT, "inside"))).inode, inside);
    assert_eq!(at(&mut b, 1, &who, lookup(ROOT, "outside")), Err(NotFound));
    assert_eq!(made(at(&mut b, 1, &who, lookup(ROOT, ".."))).inode, top);
    assert_eq!(made(at(&mut b, 1, &who, FsOp::GetAttributes { inode: ROOT })).inode, top);
    // A number that was guessed leads nowhere.
    for op in [
        FsOp::GetAttributes { inode: outside },
        FsOp::Read { inode: outside, offset: 0, count: 1 },
        write(outside, 0, b"x"),
        link(outside, ROOT, "stolen"),
        FsOp::CopyRange { from: outside, from_offset: 0, to: inside, to_offset: 0, length: 1 },
        FsOp::Hold { inodes: vec![inside, outside] },
        FsOp::GetXattr { inode: outside, name: b"user.x".to_vec() },
    ] {
        assert_eq!(at(&mut b, 1, &who, op), Err(Stale));
    }
    let list = FsOp::ReadDirectory { inode: ROOT, cookie: 0, budget: 9999 };
    let Ok(FsReply::Entries { entries, .. }) = at(&mut b, 1, &who, list) else { panic!() };
    let listed: Vec<_> = entries.iter().map(|e| (&*e.name, e.attributes.inode)).collect();
    assert_eq!(listed, [(&b"."[..], top), (b"..", top), (b"inside", inside)]);
    // With the top goes all that the client sees.
    b.done(&root(), unlink(top, "inside"));
    b.done(&root(), rmdir(ROOT, "s"));
    assert_eq!(at(&mut b, 1, &who, FsOp::GetAttributes { inode: ROOT }), Err(Stale));
    assert_eq!(at(&mut b, 1, &who, create(ROOT, "f", 0o644)), Err(Stale));
}

fn lock(owner: u64) -> LockRequest {
    let (class, kind) = (LockClass::Record, LockKind::Exclusive);
    LockRequest { owner, pid: 1, class, kind, start: 0, end: 9 }
}

#[test]
fn what_a_client_has_outside_of_its_new_subtree_it_gives_back() {
    let (mut b, top, inside, outside) = divided();
    let who = user(100);
    let waits = |inode, owner| FsOp::Lock { inode, request: lock(owner), wait: true };
    let hold = |inode| FsOp::Hold { inodes: vec![inode] };
    assert_eq!(at(&mut b, 2, &who, waits(outside, 1)), Ok(FsReply::Done));
    assert_eq!(at(&mut b, 2, &who, waits(outside, 2)), Ok(FsReply::Waiting));
    assert!(at(&mut b, 2, &who, hold(outside)).is_ok());
    grant(&mut b, 2, Export { subtree: top, ..everything() });
    // It gets nothing more.
    assert_eq!(at(&mut b, 2, &who, waits(outside, 3)), Err(Stale));
    assert_eq!(at(&mut b, 2, &who, hold(outside)), Err(Stale));
    let cancel = FsOp::CancelLock { inode: outside, request: lock(2) };
    assert_eq!(at(&mut b, 2, &who, cancel), Ok(FsReply::Done));
    let unlock = |inode| FsOp::Unlock { inode, request: lock(1) };
    let around = Watched { watch: vec![outside], ..Watched::new(unlock(outside)) };
    assert_eq!(at(&mut b, 2, &who, FsOp::Watched(around.into())), Err(Stale), "shows attributes");
    assert_eq!(at(&mut b, 2, &who, unlock(outside)), Ok(FsReply::Done));
    assert_eq!(at(&mut b, 0, &who, waits(outside, 1)), Ok(FsReply::Done));
    b.done(&root(), unlink(ROOT, "outside"));
    let let_go = |inode| FsOp::LetGo { inodes: vec![inode] };
    assert_eq!(at(&mut b, 2, &who, let_go(outside)), Ok(FsReply::Done));
    b.fails(&root(), FsOp::GetAttributes { inode: outside }, Stale);
    // What it calls the root is its own.
    assert_eq!(at(&mut b, 2, &who, waits(ROOT, 1)), Ok(FsReply::Done));
    assert!(at(&mut b, 2, &who, hold(ROOT)).is_ok());
    assert_eq!(at(&mut b, 2, &who, unlock(ROOT)), Ok(FsReply::Done));
    b.done(&root(), unlink(top, "inside"));
    b.fails(&root(), FsOp::GetAttributes { inode: inside }, Stale);
    b.done(&root(), rmdir(ROOT, "s"));
    assert_eq!(b.attributes(top).links, 0);
    assert_eq!(at(&mut b, 2, &who, let_go(ROOT)), Ok(FsReply::Done));
    b.fails(&root(), FsOp::GetAttributes { inode: top }, Stale);
}

#[test]
fn a_client_whose_subtree_has_gone_keeps_and_ends_its_lease() {
    let (mut b, top, _, outside) = divided();
    let who = user(100);
    let file = FsOp::Lock { inode: outside, request: lock(1), wait: false };
    assert_eq!(at(&mut b, 2, &who, file), Ok(FsReply::Done));
    assert!(at(&mut b, 2, &who, FsOp::Hold { inodes: vec![outside] }).is_ok());
    grant(&mut b, 2, Export { subtree: top, ..everything() });
    b.done(&root(), unlink(ROOT, "outside"));
    b.done(&root(), unlink(top, "inside"));
    b.done(&root(), rmdir(ROOT, "s"));
    let renewed = Ok(FsReply::Lease { number: 1, is_new: false });
    assert_eq!(at(&mut b, 2, &who, FsOp::Renew { life: 0 }), renewed);
    let unlock = FsOp::Unlock { inode: outside, request: lock(1) };
    assert_eq!(at(&mut b, 2, &who, unlock), Ok(FsReply::Done));
    assert_eq!(at(&mut b, 2, &who, FsOp::EndLease), Ok(FsReply::Done));
    b.file(&who, ROOT, "next", 0o600);
    b.fails(&root(), FsOp::GetAttributes { inode: outside }, Stale);
}

#[test]
fn names_do_not_cross_the_border_of_a_subtree() {
    let (mut b, top, inside, outside) = divided();
    let r = root();
    b.fails(&r, link(outside, top, "x"), CrossDevice);
    b.fails(&r, link(inside, ROOT, "x"), CrossDevice);
    b.fails(&r, rename(ROOT, "outside", top, "x", RenameMode::Replace), CrossDevice);
    b.fails(&r, rename(top, "inside", ROOT, "x", RenameMode::NoReplace), CrossDevice);
    b.fails(&r, rename(ROOT, "outside", top, "inside", RenameMode::Exchange), CrossDevice);
    let directory = b.directory(&r, ROOT, "d", 0o755);
    b.fails(&r, rename(ROOT, "d", top, "d", RenameMode::Replace), CrossDevice);
    // The top itself goes where it likes, but into no other subtree.
    b.done(&r, rename(ROOT, "s", directory, "moved", RenameMode::Replace));
    let second = b.directory(&r, ROOT, "second", 0o755);
    b.get(&r, FsOp::MakeSubtree { inode: second });
    b.fails(&r, rename(directory, "moved", second, "s", RenameMode::Replace), CrossDevice);
    b.done(&r, rename(directory, "moved", ROOT, "second", RenameMode::Exchange));
    // Subtrees begin empty, and are not nested.
    b.get(&r, FsOp::MakeSubtree { inode: second });
    b.fails(&r, FsOp::MakeSubtree { inode: directory }, NotEmpty);
    b.get(&r, FsOp::MakeSubtree { inode: ROOT });
    let nested = b.directory(&r, second, "nested", 0o755);
    b.fails(&r, FsOp::MakeSubtree { inode: nested }, Invalid);
    b.fails(&r, FsOp::MakeSubtree { inode: outside }, NotDirectory);
}

#[test]
fn a_user_takes_no_more_than_the_limits() {
    let mut b = squashing();
    let me = user(100);
    limit(&mut b, Subject::User(100), 3 * 4096, 3);
    let f = b.file(&me, ROOT, "f", 0o666);
    b.get(&me, write(f, 0, &[1; 8192]));
    b.fails(&me, write(f, 8192, &[1; 4097]), QuotaExceeded);
    b.get(&me, write(f, 4096, &[2; 8192]));
    b.fails(&me, write(f, 1 << 30, b"x"), QuotaExceeded);
    let how = AllocateMode::Reserve { keep_size: true };
    b.fails(&me, FsOp::Allocate { inode: f, offset: 0, length: 1 << 20, how }, QuotaExceeded);
    // Whoever writes, it is the owner's; only root is not bound.
    b.fails(&user(200), write(f, 1 << 30, b"x"), QuotaExceeded);
    b.get(&root(), write(f, 1 << 30, b"x"));
    assert_eq!(used(&mut b, Subject::User(100)), (4 * 4096, 1));
    b.get(&me, truncate(f, 4096));
    assert_eq!(used(&mut b, Subject::User(100)), (4096, 1));
    b.directory(&me, ROOT, "d", 0o755);
    b.get(&me, symlink(ROOT, "l", "f"));
    b.fails(&me, create(ROOT, "g", 0o644), QuotaExceeded);
    b.get(&me, link(f, ROOT, "a name more"));
    b.done(&me, unlink(ROOT, "l"));
    b.file(&me, ROOT, "g", 0o644);
    // What changes hands is the other one's.
    b.get(&root(), chown(f, Some(300), None));
    assert_eq!(used(&mut b, Subject::User(100)), (0, 2));
    assert_eq!(used(&mut b, Subject::User(300)), (4096, 1));
    let ask = |subject| FsOp::GetAccount { subject };
    assert!(b.run(&me, ask(Subject::User(100))).is_ok());
    b.fails(&me, ask(Subject::User(300)), NotPermitted);
}

#[test]
fn a_subtree_takes_no_more_than_its_limits_and_df_says_so() {
    let (mut b, top, inside, _) = divided();
    limit(&mut b, Subject::Subtree(top), 2 * 4096, 3);
    // Root too.
    b.fails(&root(), write(inside, 0, &[1; 8193]), QuotaExceeded);
    b.get(&root(), write(inside, 0, &[1; 4096]));
    b.file(&user(100), top, "second", 0o644);
    b.fails(&user(100), mkdir(top, "third", 0o755), QuotaExceeded);
    let Ok(FsReply::StatFs(s)) = at(&mut b, 1, &user(100), FsOp::StatFs) else { panic!() };
    assert_eq!((s.blocks, s.free_blocks, s.inodes, s.free_inodes), (2, 1, 3, 0));
    let Ok(FsReply::StatFs(s)) = b.run(&root(), FsOp::StatFs) else { panic!() };
    assert!(s.blocks > 2 && s.free_inodes > 1000);
    // Limits below what is taken forbid only more.
    limit(&mut b, Subject::Subtree(top), 0, 0);
    b.get(&root(), write(inside, 0, &[2; 4096]));
    b.fails(
        &root(),
        FsOp::SetLimits { subject: Subject::Subtree(inside), limits: Limits::default() },
        NotFound,
    );
    // With the subtree goes its account.
    for name in ["inside", "second"] {
        b.done(&root(), unlink(top, name));
    }
    b.done(&root(), rmdir(ROOT, "s"));
    assert_eq!(used(&mut b, Subject::Subtree(top)), (0, 0));
    let export = cost::export(&everything());
    assert_eq!(b.used(), EMPTY + cost::INODE_COST + cost::entry(b"outside") + export);
}

#[test]
fn what_is_only_held_open_still_counts() {
    let mut b = squashing();
    let me = user(100);
    let f = b.file(&me, ROOT, "f", 0o666);
    b.get(&me, write(f, 0, &[1; 5000]));
    let keep = Keep::These(vec![f]);
    assert!(b.run(&me, FsOp::Unlink { parent: ROOT, name: b"f".to_vec(), keep }).is_ok());
    assert_eq!(used(&mut b, Subject::User(100)), (8192, 1));
    b.done(&root(), FsOp::EndLease);
    assert!(b.run(&root(), FsOp::Renew { life: 0 }).is_ok());
    assert_eq!(used(&mut b, Subject::User(100)), (0, 0));
}

#[test]
fn damage_to_the_books_is_found() {
    let damaged = |fault: &str, damage: &dyn Fn(&mut Bench, Inode, Inode)| {
        let (mut b, _, inside, outside) = divided();
        b.get(&root(), write(inside, 0, b"x"));
        damage(&mut b, inside, outside);
        let faults = fsck::check(&b.state).expect_err(fault);
        assert!(faults.iter().any(|found| found.contains(fault)), "{fault}: {faults:#?}");
    };
    let stray =
        |b: &mut Bench, number: Inode, subtree| match b.state.get_mut(inode_id(number).unwrap()) {
            Some(Object::Inode(record)) => record.subtree = subtree,
            _ => panic!("no inode"),
        };
    damaged("another subtree than its directory", &|b, inside, _| stray(b, inside, ROOT));
    damaged("and no directory", &|b, _, outside| stray(b, outside, outside));
    damaged("and the sums are", &|b, _, _| {
        let account = Account { bytes: 1, ..Account::default() };
        b.state.insert(account_id(Subject::User(0)), Object::Account(account));
    });
    damaged("has no account", &|b, _, _| {
        b.state.remove(account_id(Subject::User(0)));
    });
    damaged("has nothing", &|b, _, _| {
        b.state.insert(account_id(Subject::User(9)), Object::Account(Account::default()));
    });
    damaged("there is no subtree", &|b, _, outside| {
        let limits = Limits { bytes: Some(1), inodes: None };
        let account = Account { limits, ..Account::default() };
        b.state.insert(account_id(Subject::Subtree(outside)), Object::Account(account));
    });
}
