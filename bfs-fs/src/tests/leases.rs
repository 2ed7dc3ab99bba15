//! Files that live while they are open, and what ends with a lease.

use super::fixture::*;
use crate::object::{Object, inode_id, lease_id, stake_id};
use crate::op::FsError::*;
use crate::op::*;
use crate::{LEASE_TERM, MAX_STAKES, cost, state::totals};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use bft_core::service::Service;
use bft_core::types::ClientId;

const SECOND: u64 = 1_000_000_000;

fn hold(inodes: &[Inode]) -> FsOp {
    FsOp::Hold { inodes: inodes.to_vec() }
}

fn let_go(inodes: &[Inode]) -> FsOp {
    FsOp::LetGo { inodes: inodes.to_vec() }
}

fn unlink_kept(parent: Inode, name: &str, open: &[Inode]) -> FsOp {
    FsOp::Unlink { parent, name: name.into(), keep: Keep::These(open.to_vec()) }
}

fn get(inode: Inode) -> FsOp {
    FsOp::GetAttributes { inode }
}

/// Renews the lease of client `client`; says its number, and whether it is new.
#[track_caller]
fn renew(b: &mut Bench, client: u32) -> (u64, bool) {
    let before = core::mem::replace(&mut b.client, client);
    let result = b.run(&root(), FsOp::Renew { life: 0 });
    b.client = before;
    match result {
        Ok(FsReply::Lease { number, is_new }) => (number, is_new),
        other => panic!("{other:?}"),
    }
}

fn dues(b: &Bench) -> u64 {
    totals(&b.state).dues
}

#[test]
fn what_its_remover_has_open_lives_until_it_is_let_go() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o600);
    b.get(&root(), write(f, 0, b"still here"));
    let others = [Inode(77), Inode(78)];
    assert_eq!(b.run(&root(), unlink_kept(ROOT, "f", &[others[0], f])), Ok(FsReply::Kept(f)));
    b.fails(&root(), lookup(ROOT, "f"), NotFound);
    assert_eq!(b.attributes(f).links, 0);
    assert_eq!(b.contents(f, 0, 99), b"still here");
    b.get(&root(), write(f, 5, b" and there"));
    b.get(&root(), chmod(f, 0o644));
    b.fails(&root(), link(f, ROOT, "g"), NotFound);
    b.done(&root(), let_go(&others));
    assert_eq!(b.contents(f, 5, 99), b" and there");
    b.done(&root(), let_go(&[f]));
    b.fails(&root(), get(f), Stale);
    assert_eq!(b.used(), EMPTY);
}

#[test]
fn what_nobody_has_open_goes_with_its_last_name() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o600);
    b.get(&root(), link(f, ROOT, "g"));
    b.done(&root(), unlink_kept(ROOT, "f", &[f]));
    assert_eq!(b.attributes(f).links, 1);
    b.done(&root(), unlink_kept(ROOT, "g", &[Inode(99)]));
    b.fails(&root(), get(f), Stale);
}

#[test]
fn another_client_keeps_alive_what_it_holds() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o600);
    b.client = 2;
    let held = FsReply::Held { missing: vec![Inode(99)] };
    assert_eq!(b.run(&root(), hold(&[f, Inode(99), f])), Ok(held));
    b.client = 1;
    assert_eq!(b.run(&root(), unlink_kept(ROOT, "f", &[f])), Ok(FsReply::Kept(f)));
    b.done(&root(), let_go(&[f, f]));
    assert_eq!(b.attributes(f).links, 0);
    b.client = 2;
    b.done(&root(), let_go(&[f]));
    b.fails(&root(), get(f), Stale);
}

#[test]
fn what_a_rename_replaces_is_kept_too_and_so_is_a_removed_directory() {
    let mut b = Bench::new();
    let old = b.file(&root(), ROOT, "f", 0o600);
    b.file(&root(), ROOT, "new", 0o600);
    let over = FsOp::Rename {
        from: ROOT,
        name: b"new".to_vec(),
        to: ROOT,
        new_name: b"f".to_vec(),
        how: RenameMode::Replace,
        keep: Keep::Whatever,
    };
    assert_eq!(b.run(&root(), over), Ok(FsReply::Kept(old)));
    let d = b.directory(&root(), ROOT, "d", 0o755);
    let rmdir =
        FsOp::RemoveDirectory { parent: ROOT, name: b"d".to_vec(), keep: Keep::These(vec![d]) };
    assert_eq!(b.run(&root(), rmdir), Ok(FsReply::Kept(d)));
    // It is still a directory, but nothing can be in it any more.
    let listed = b.run(&root(), FsOp::ReadDirectory { inode: d, cookie: 0, budget: 4096 });
    assert_eq!(listed, Ok(FsReply::Entries { entries: vec![], eof: true }));
    for op in [
        create(d, "x", 0o644),
        mkdir(d, "x", 0o755),
        symlink(d, "x", "t"),
        link(old, d, "x"),
        lookup(d, "x"),
        rename(ROOT, "f", d, "x", RenameMode::Replace),
    ] {
        b.fails(&root(), op, NotFound);
    }
    b.done(&root(), let_go(&[d, old]));
    b.fails(&root(), get(d), Stale);
    b.fails(&root(), get(old), Stale);
}

#[test]
fn a_client_that_is_silent_for_a_term_loses_what_it_holds() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o600);
    b.client = 2;
    assert!(b.run(&root(), hold(&[f])).is_ok());
    b.client = 1;
    b.done(&root(), unlink(ROOT, "f"));
    let first = renew(&mut b, 1);
    // Nobody was there for a day: that is one step.
    b.ahead += 86_400 * SECOND;
    assert_eq!(renew(&mut b, 1), (first.0, false));
    assert_eq!(b.attributes(f).links, 0);
    for _ in 0..6 {
        b.ahead += 15 * SECOND;
        renew(&mut b, 1);
    }
    // The next operation clears away what the lease held.
    b.file(&root(), ROOT, "other", 0o600);
    b.fails(&root(), get(f), Stale);
    assert_eq!(dues(&b), 0);
    assert!(renew(&mut b, 2).1, "it holds nothing any more");
    assert!(!renew(&mut b, 1).1, "it was renewed");
}

#[test]
fn a_client_that_starts_again_has_lost_what_it_held() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o600);
    let lives = |life, number| (FsOp::Renew { life }, Ok(FsReply::Lease { number, is_new: true }));
    let (first, second) = (lives(7, 1), lives(8, 2));
    assert_eq!(b.run(&root(), first.0), first.1);
    assert_eq!(b.run(&root(), unlink_kept(ROOT, "f", &[f])), Ok(FsReply::Kept(f)));
    assert_eq!(b.run(&root(), second.0.clone()), second.1);
    assert_eq!(b.run(&root(), second.0), Ok(FsReply::Lease { number: 2, is_new: false }));
    b.fails(&root(), get(f), Stale);
}

#[test]
fn what_a_client_holds_since_it_came_back_stays_when_it_renews() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o600);
    let (first, second) = (
        Ok(FsReply::Lease { number: 1, is_new: true }),
        Ok(FsReply::Lease { number: 3, is_new: true }),
    );
    assert_eq!(b.run(&root(), FsOp::Renew { life: 7 }), first);
    for _ in 0..8 {
        b.ahead += 15 * SECOND;
        renew(&mut b, 1);
    }
    assert_eq!(b.run(&root(), unlink_kept(ROOT, "f", &[f])), Ok(FsReply::Kept(f)));
    assert_eq!(b.run(&root(), FsOp::Renew { life: 7 }), second);
    assert_eq!(b.attributes(f).links, 0);
    assert_eq!(
        b.run(&root(), FsOp::Renew { life: 8 }),
        Ok(FsReply::Lease { number: 4, is_new: true })
    );
    b.file(&root(), ROOT, "other", 0o600);
    b.fails(&root(), get(f), Stale);
}

#[test]
fn a_client_that_renews_keeps_what_it_holds() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o600);
    assert_eq!(b.run(&root(), unlink_kept(ROOT, "f", &[f])), Ok(FsReply::Kept(f)));
    for _ in 0..30 {
        b.ahead += 19 * SECOND;
        renew(&mut b, 7);
        assert!(!renew(&mut b, 0).1);
    }
    assert_eq!(b.attributes(f).links, 0);
}

#[test]
fn an_ended_lease_is_cleared_away_in_steps() {
    let mut b = Bench::new();
    b.check = false;
    b.client = 2;
    let files: Vec<Inode> =
        (0..1500).map(|i| b.file(&root(), ROOT, &format!("f{i}"), 0o600)).collect();
    for some in files.chunks(MAX_HOLDS) {
        assert!(b.run(&root(), hold(some)).is_ok());
    }
    b.client = 1;
    (0..1500).for_each(|i| b.done(&root(), unlink(ROOT, &format!("f{i}"))));
    b.check = true;
    b.client = 2;
    b.done(&root(), FsOp::EndLease);
    b.client = 1;
    let mut left = Vec::new();
    while dues(&b) > 0 {
        b.fails(&root(), rmdir(ROOT, "none"), NotFound);
        left.push(files.iter().filter(|f| b.state.get(inode_id(**f).unwrap()).is_some()).count());
    }
    assert_eq!(left, [988, 476, 0]);
    assert_eq!(b.used(), EMPTY);
    b.client = 2;
    b.done(&root(), FsOp::EndLease);
}

#[test]
fn a_large_file_that_goes_is_freed_in_steps() {
    let mut b = Bench::new();
    b.check = false;
    let f = b.file(&root(), ROOT, "f", 0o600);
    for i in 0..1300 {
        b.get(&root(), write(f, i * 32_768, b"x"));
    }
    b.check = true;
    b.done(&root(), unlink(ROOT, "f"));
    b.fails(&root(), get(f), Stale);
    let mut left = vec![b.used()];
    while dues(&b) > 0 {
        b.fails(&root(), rmdir(ROOT, "none"), NotFound);
        left.push(b.used());
    }
    let with = |chunks| EMPTY + cost::data(chunks, chunks);
    assert_eq!(left, [with(788), with(276), with(0)]);
}

/// Files with 700 extended attributes each, held by client 2 and without a name.
fn attributed(b: &mut Bench, files: usize) -> Vec<Inode> {
    b.client = 2;
    b.check = false;
    let inodes: Vec<Inode> =
        (0..files).map(|i| b.file(&root(), ROOT, &format!("f{i}"), 0o600)).collect();
    for inode in &inodes {
        for i in 0..700 {
            let (name, value) = (format!("user.{i}").into_bytes(), Default::default());
            b.get(&root(), FsOp::SetXattr { inode: *inode, name, value, how: XattrMode::Set });
        }
        b.get(&root(), write(*inode, 0, b"x"));
    }
    assert!(b.run(&root(), hold(&inodes)).is_ok());
    (0..files).for_each(|i| b.done(&root(), unlink(ROOT, &format!("f{i}"))));
    b.check = true;
    inodes
}

/// How many objects `op` removes.
#[track_caller]
fn removed_by(b: &mut Bench, op: FsOp) -> usize {
    let before = b.state.len();
    assert!(matches!(b.run(&root(), op), Ok(_) | Err(NotFound)));
    before - b.state.len()
}

#[test]
fn extended_attributes_of_what_an_ended_lease_held_go_in_steps() {
    let mut b = Bench::new();
    attributed(&mut b, 5);
    b.done(&root(), FsOp::EndLease);
    b.client = 1;
    while dues(&b) > 0 {
        let removed = removed_by(&mut b, rmdir(ROOT, "none"));
        assert!(removed < 520, "{removed}");
    }
    assert_eq!(b.used(), EMPTY);
}

#[test]
fn extended_attributes_of_what_is_let_go_go_in_steps() {
    let mut b = Bench::new();
    let files = attributed(&mut b, 5);
    let removed = removed_by(&mut b, let_go(&files));
    assert!(removed < 540, "{removed}");
    b.fails(&root(), get(files[4]), Stale);
    while dues(&b) > 0 {
        let removed = removed_by(&mut b, rmdir(ROOT, "none"));
        assert!(removed <= 520, "{removed}");
    }
    b.done(&root(), FsOp::EndLease);
    assert_eq!(b.used(), EMPTY);
}

#[test]
fn waits_for_what_an_ended_lease_had_locked_are_granted_file_by_file() {
    let mut b = Bench::new();
    b.check = false;
    let lock = |b: &mut Bench, client, inode, owner| {
        b.client = client;
        let (class, kind) = (LockClass::Record, LockKind::Exclusive);
        let request = LockRequest { owner, pid: 1, class, kind, start: owner, end: 99 };
        b.run(&root(), FsOp::Lock { inode, request, wait: true }).expect("a lock or a ticket")
    };
    let files: Vec<Inode> =
        (0..3).map(|i| b.file(&root(), ROOT, &format!("f{i}"), 0o600)).collect();
    for f in &files {
        assert_eq!(lock(&mut b, 2, *f, 0), FsReply::Done);
        (1..80).for_each(|owner| assert_eq!(lock(&mut b, 1, *f, owner), FsReply::Waiting));
    }
    b.check = true;
    b.client = 2;
    b.done(&root(), FsOp::EndLease);
    b.client = 1;
    let mut left = Vec::new();
    while dues(&b) > 0 {
        b.fails(&root(), rmdir(ROOT, "none"), NotFound);
        left.push(files.iter().filter(|f| b.state.get(stake_id(**f, 1)).is_some()).count());
    }
    // Then the lease itself.
    assert_eq!(left, [2, 1, 0, 0]);
}

#[test]
fn a_client_may_hold_only_so_much() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o600);
    let many = vec![f; MAX_HOLDS + 1];
    b.fails(&root(), hold(&many), Invalid);
    b.fails(&root(), let_go(&many), Invalid);
    b.fails(&root(), unlink_kept(ROOT, "f", &many), Invalid);
    let (number, _) = renew(&mut b, 0);
    b.check = false;
    match b.state.get_mut(lease_id(number)) {
        Some(Object::Lease(lease)) => lease.stakes = MAX_STAKES,
        _ => panic!("no lease"),
    }
    b.fails(&root(), hold(&[f]), TooManyOpen);
    // Removing things works without, but keeps nothing.
    b.done(&root(), unlink_kept(ROOT, "f", &[f]));
    b.fails(&root(), get(f), Stale);
}

#[test]
fn a_full_file_system_can_still_remove_and_keep() {
    let memory_budget = EMPTY + cost::INODE_COST + cost::entry(b"f");
    let config = crate::FileSystemConfig { memory_budget, ..Default::default() };
    let mut b = Bench::with(config);
    let f = b.file(&root(), ROOT, "f", 0o600);
    b.fails(&root(), hold(&[f]), NoSpace);
    assert_eq!(b.run(&root(), unlink_kept(ROOT, "f", &[f])), Ok(FsReply::Kept(f)));
    assert!(b.used() <= memory_budget);
}

#[test]
fn lease_time_never_runs_faster_than_agreed_time() {
    let mut b = Bench::new();
    renew(&mut b, 0);
    let (time, at) = (totals(&b.state).lease_time, totals(&b.state).lease_time_at);
    for step in [1, 5 * SECOND, 19 * SECOND, 50 * SECOND, 3] {
        b.ahead += step;
        renew(&mut b, 0);
        let totals = totals(&b.state);
        assert!(totals.lease_time - time <= totals.lease_time_at - at);
    }
    assert!(totals(&b.state).lease_time > time + 40 * SECOND);
    const { assert!(LEASE_TERM > 4 * crate::MAX_LEASE_STEP) };
}

#[test]
fn a_dismissed_client_holds_nothing_and_has_no_export() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o666);
    let export = Export {
        subtree: ROOT,
        read_only: true,
        root_squash: true,
        uids: Vec::new(),
        gids: Vec::new(),
    };
    b.done(&root(), FsOp::SetExport { client: 7, export: None });
    b.client = 7;
    b.run(&root(), hold(&[f])).expect("held");
    b.client = 0;
    b.done(&root(), FsOp::SetExport { client: 7, export: Some(export) });
    b.run(&root(), unlink_kept(ROOT, "f", &[])).expect("unlinked");
    assert!(b.run(&root(), get(f)).is_ok(), "client 7 holds it open");
    b.n += 1;
    let ctx = b.context();
    b.fs.dismiss(&ctx, &mut b.state, ClientId(7));
    // Clearing away goes on with whatever is ordered next.
    b.file(&root(), ROOT, "g", 0o600);
    b.fails(&root(), get(f), Stale);
    let everybody = b.run(&root(), FsOp::GetExport { client: 8 });
    assert_eq!(b.run(&root(), FsOp::GetExport { client: 7 }), everybody);
}

#[test]
fn a_dismissed_client_holds_nothing_although_its_subtree_has_gone() {
    let mut b = Bench::new();
    let top = b.directory(&root(), ROOT, "top", 0o777);
    b.run(&root(), FsOp::MakeSubtree { inode: top }).expect("a subtree");
    let export = Export {
        subtree: top,
        read_only: false,
        root_squash: true,
        uids: Vec::new(),
        gids: Vec::new(),
    };
    b.done(&root(), FsOp::SetExport { client: 7, export: Some(export) });
    b.client = 7;
    let f = b.file(&user(5), ROOT, "f", 0o666);
    b.run(&user(5), hold(&[f])).expect("held");
    b.client = 0;
    b.run(&root(), unlink_kept(top, "f", &[])).expect("unlinked");
    b.done(&root(), rmdir(ROOT, "top"));
    b.n += 1;
    let ctx = b.context();
    b.fs.dismiss(&ctx, &mut b.state, ClientId(7));
    b.file(&root(), ROOT, "g", 0o600);
    b.fails(&root(), get(f), Stale);
}
