//! Who may do what.

use super::fixture::*;
use crate::op::FsError::*;
use crate::op::*;
use alloc::vec;

#[test]
fn a_parent_must_be_searched_and_to_change_it_also_written() {
    let mut b = Bench::new();
    let alice = user(100);
    let dir = b.directory(&root(), ROOT, "d", 0o744);
    let file = b.file(&root(), dir, "f", 0o666);
    b.fails(&alice, lookup(dir, "f"), AccessDenied);
    b.fails(&alice, lookup(dir, ".."), AccessDenied);
    b.get(&root(), chmod(dir, 0o751));
    assert_eq!(b.get(&alice, lookup(dir, "f")).inode, file);
    for op in [
        create(dir, "new", 0o644),
        mkdir(dir, "new", 0o755),
        symlink(dir, "new", "t"),
        link(file, dir, "new"),
        unlink(dir, "f"),
        rename(dir, "f", ROOT, "f", RenameMode::Replace),
        rename(dir, "f", dir, "g", RenameMode::Replace),
        FsOp::ReadDirectory { inode: dir, cookie: 0, budget: 4096 },
    ] {
        b.fails(&alice, op, AccessDenied);
    }
    b.fails(&alice, create(dir, "f", 0o644), Exists);
    b.fails(&alice, unlink(dir, "none"), NotFound);
}

#[test]
fn the_first_class_that_fits_decides() {
    let mut b = Bench::new();
    let (owner, member, other) = (user(100), caller(200, 9, &[1, 2, 100]), user(300));
    let file = b.file(&owner, ROOT, "f", 0o046);
    let access = |mask| FsOp::Access { inode: file, mask };
    b.fails(&owner, access(4), AccessDenied);
    b.done(&member, access(4));
    b.fails(&member, access(2), AccessDenied);
    b.done(&other, access(6));
    b.done(&root(), access(6));
    b.fails(&root(), access(1), AccessDenied);
    b.get(&owner, chmod(file, 0o001));
    b.done(&root(), access(7));
    b.fails(&root(), access(8), Invalid);
}

#[test]
fn an_owner_may_always_use_the_data_and_an_executor_may_read_it() {
    let mut b = Bench::new();
    let (owner, other) = (user(100), user(200));
    let file = b.file(&owner, ROOT, "f", 0o444);
    b.get(&owner, write(file, 0, b"filled after the mode was set"));
    b.fails(&other, write(file, 0, b"x"), AccessDenied);
    b.get(&owner, chmod(file, 0o001));
    let read = FsOp::Read { inode: file, offset: 0, count: 9 };
    assert!(b.run(&other, read.clone()).is_ok());
    b.get(&owner, chmod(file, 0o000));
    b.fails(&other, read.clone(), AccessDenied);
    assert!(b.run(&owner, read).is_ok());
    b.fails(&other, truncate(file, 0), AccessDenied);
    assert_eq!(b.get(&owner, truncate(file, 0)).size, 0);
}

#[test]
fn a_sticky_directory_guards_what_is_in_it() {
    let mut b = Bench::new();
    let (alice, bob) = (user(100), user(200));
    let dir = b.directory(&root(), ROOT, "tmp", 0o1777);
    b.file(&alice, dir, "hers", 0o666);
    b.file(&bob, dir, "his", 0o666);
    b.directory(&alice, dir, "dir", 0o777);
    b.fails(&bob, unlink(dir, "hers"), NotPermitted);
    b.fails(&bob, rmdir(dir, "dir"), NotPermitted);
    b.fails(&bob, rename(dir, "hers", ROOT, "x", RenameMode::Replace), NotPermitted);
    b.fails(&bob, rename(dir, "his", dir, "hers", RenameMode::Replace), NotPermitted);
    b.fails(&bob, rename(dir, "his", dir, "hers", RenameMode::Exchange), NotPermitted);
    b.done(&alice, unlink(dir, "hers"));
    b.done(&root(), unlink(dir, "his"));
}

#[test]
fn a_directory_is_moved_only_by_who_may_write_to_it() {
    let mut b = Bench::new();
    let alice = user(100);
    b.directory(&root(), ROOT, "d", 0o755);
    let to = b.directory(&alice, ROOT, "to", 0o755);
    b.fails(&alice, rename(ROOT, "d", to, "d", RenameMode::Replace), AccessDenied);
    b.file(&alice, to, "f", 0o644);
    b.fails(&alice, rename(to, "f", ROOT, "d", RenameMode::Exchange), AccessDenied);
    b.done(&alice, rename(ROOT, "d", ROOT, "e", RenameMode::Replace));
}

#[test]
fn only_root_gives_away_and_only_members_regroup() {
    let mut b = Bench::new();
    let alice = caller(100, 100, &[7]);
    let file = b.file(&alice, ROOT, "f", 0o755);
    b.fails(&alice, chown(file, Some(200), None), NotPermitted);
    b.fails(&alice, chown(file, None, Some(8)), NotPermitted);
    b.fails(&user(200), chown(file, Some(100), None), NotPermitted);
    b.fails(&user(200), chown(file, None, Some(200)), NotPermitted);
    assert_eq!(b.get(&alice, chown(file, Some(100), Some(7))).gid, 7);
    assert_eq!(b.get(&root(), chown(file, Some(200), Some(200))).uid, 200);
    b.fails(&alice, chmod(file, 0o777), NotPermitted);
}

#[test]
fn set_id_bits_go_when_nobody_vouches_for_them() {
    let mut b = Bench::new();
    let (alice, bob) = (user(100), user(200));
    let file = b.file(&alice, ROOT, "f", 0o6777);
    let again = |b: &mut Bench| assert_eq!(b.get(&alice, chmod(file, 0o6777)).mode, 0o6777);
    assert_eq!(b.get(&alice, chown(file, None, Some(100))).mode, 0o777);
    again(&mut b);
    assert_eq!(b.get(&root(), chown(file, Some(100), None)).mode, 0o777);
    again(&mut b);
    assert_eq!(b.get(&bob, write(file, 0, b"x")).mode, 0o777);
    again(&mut b);
    assert_eq!(b.get(&root(), write(file, 0, b"x")).mode, 0o6777);
    assert_eq!(b.get(&bob, truncate(file, 0)).mode, 0o777);
    // Without group execution the bit stays with members, and goes with others.
    b.get(&alice, chmod(file, 0o6767));
    assert_eq!(b.get(&alice, write(file, 0, b"x")).mode, 0o2767);
    assert_eq!(b.get(&bob, write(file, 0, b"x")).mode, 0o767);
    // A directory's bits mean something else.
    let dir = b.directory(&root(), ROOT, "d", 0o755);
    b.get(&root(), chmod(dir, 0o2755));
    assert_eq!(b.get(&root(), chown(dir, Some(100), Some(100))).mode, 0o2755);
    // Whoever is not in the group cannot have the bit at all.
    b.get(&root(), chown(file, Some(100), Some(9)));
    assert_eq!(b.get(&alice, chmod(file, 0o2755)).mode, 0o755);
    // A mode that comes with a new owner carries none either.
    let set_both = SetAttributes { uid: Some(200), mode: Some(0o6755), ..Default::default() };
    assert_eq!(b.get(&root(), set(file, set_both)).mode, 0o755);
}

#[test]
fn a_set_gid_directory_passes_on_its_group() {
    let mut b = Bench::new();
    let (member, other) = (caller(100, 100, &[7]), user(200));
    let dir = b.directory(&root(), ROOT, "d", 0o777);
    b.get(&root(), chown(dir, None, Some(7)));
    b.get(&root(), chmod(dir, 0o2777));
    let sub = b.get(&other, mkdir(dir, "sub", 0o755));
    assert_eq!((sub.gid, sub.mode), (7, 0o2755));
    let file = b.get(&other, create(dir, "theirs", 0o2775));
    assert_eq!((file.gid, file.mode), (7, 0o775));
    let file = b.get(&member, create(dir, "ours", 0o2775));
    assert_eq!((file.gid, file.mode), (7, 0o2775));
}

#[test]
fn times_are_set_as_utimensat_says() {
    let mut b = Bench::new();
    let (alice, bob) = (user(100), user(200));
    let file = b.file(&alice, ROOT, "f", 0o646);
    let times =
        |accessed, modified| set(file, SetAttributes { accessed, modified, ..Default::default() });
    let at = |seconds, nanoseconds| Some(SetTime::At(Timestamp { seconds, nanoseconds }));
    let now = Some(SetTime::Now);
    b.fails(&bob, times(at(1, 0), at(2, 0)), NotPermitted);
    b.fails(&bob, times(now, None), NotPermitted);
    b.fails(&bob, times(None, at(2, 0)), NotPermitted);
    b.fails(&alice, times(at(0, 1_000_000_000), None), Invalid);
    let got = b.get(&bob, times(now, now));
    assert_eq!((got.accessed, got.modified), (b.now(), b.now()));
    // What a truncation does to the times anyway, it may also be asked for.
    let cut = SetAttributes { size: Some(9), modified: now, ..Default::default() };
    assert_eq!(b.get(&bob, set(file, cut)).modified, b.now());
    b.fails(&bob, set(file, SetAttributes { accessed: now, modified: None, ..cut }), NotPermitted);
    b.get(&alice, chmod(file, 0o644));
    b.fails(&bob, times(now, now), AccessDenied);
    let got = b.get(&alice, times(at(-5, 999_999_999), at(7, 0)));
    assert_eq!(got.accessed, Timestamp { seconds: -5, nanoseconds: 999_999_999 });
    assert_eq!((got.modified.seconds, got.changed), (7, b.now()));
    let before = b.attributes(file);
    assert_eq!(b.get(&bob, set(file, SetAttributes::default())), before);
}

#[test]
fn devices_are_roots() {
    let mut b = Bench::new();
    let node =
        |kind| FsOp::MakeNode { parent: ROOT, name: b"n".to_vec(), kind, mode: 0o644, device: 5 };
    b.fails(&user(100), node(Kind::CharDevice), NotPermitted);
    b.fails(&user(100), node(Kind::BlockDevice), NotPermitted);
    b.fails(&root(), node(Kind::Directory), NotPermitted);
    b.fails(&root(), node(Kind::Symlink), Invalid);
    assert_eq!(b.get(&user(100), node(Kind::Fifo)).device, 0);
    b.done(&root(), unlink(ROOT, "n"));
    assert_eq!(b.get(&root(), node(Kind::BlockDevice)).device, 5);
}

#[test]
fn too_many_groups_are_refused_in_every_operation() {
    let mut b = Bench::new();
    let most = caller(100, 100, &vec![7; MAX_GROUPS]);
    let more = caller(100, 100, &vec![7; MAX_GROUPS + 1]);
    b.file(&most, ROOT, "f", 0o644);
    b.fails(&more, FsOp::StatFs, Invalid);
    b.fails(&more, create(ROOT, "g", 0o644), Invalid);
}
