//! What runs out.

use super::fixture::*;
use crate::object::{Object, SUPER_ID, inode_id};
use crate::op::FsError::*;
use crate::op::*;
use crate::{FileSystemConfig, MAX_DEPTH, cost};
use alloc::format;
use bft_core::objects::at_batch;
use bft_core::service::Service;
use bft_core::tree::ObjectId;
use bft_core::types::{ClientId, SequenceNumber};

fn with_room(bytes: u64) -> Bench {
    let memory_budget = EMPTY + bytes;
    Bench::with(FileSystemConfig { memory_budget, ..Default::default() })
}

#[test]
fn a_full_file_system_takes_nothing_more_and_gives_back_what_is_removed() {
    let mut b = with_room(2 * (cost::INODE_COST + cost::NAME_COST + 1));
    let f = b.file(&root(), ROOT, "f", 0o644);
    b.fails(&root(), write(f, 0, b"x"), NoSpace);
    b.directory(&root(), ROOT, "d", 0o755);
    for op in [
        create(ROOT, "g", 0o644),
        mkdir(ROOT, "g", 0o755),
        symlink(ROOT, "g", "t"),
        link(f, ROOT, "g"),
        rename(ROOT, "f", ROOT, "longer", RenameMode::Replace),
    ] {
        b.fails(&root(), op, NoSpace);
    }
    b.done(&root(), rename(ROOT, "f", ROOT, "g", RenameMode::Replace));
    b.get(&root(), truncate(f, 1 << 40));
    b.done(&root(), unlink(ROOT, "g"));
    b.done(&root(), rmdir(ROOT, "d"));
    assert_eq!(b.used(), EMPTY);
    b.get(&root(), symlink(ROOT, "g", &"t".repeat(500)));
}

#[test]
fn a_write_is_all_or_nothing_and_overwriting_needs_no_room() {
    let mut b =
        with_room(cost::inode(&crate::object::Body::Fifo) + cost::entry(b"f") + cost::data(1, 3));
    let f = b.file(&root(), ROOT, "f", 0o644);
    b.get(&root(), write(f, 0, &[1; 8192]));
    b.fails(&root(), write(f, 8000, &[2; 8192]), NoSpace);
    b.fails(&root(), write(f, 32_767, &[2; 2]), NoSpace);
    b.get(&root(), write(f, 8000, &[3; 4000]));
    b.fails(&root(), write(f, 40_000, b"x"), NoSpace);
    assert_eq!(b.used(), b.fs.config().memory_budget);
    b.get(&root(), write(f, 1, &[4; 12_000]));
    match b.run(&root(), FsOp::StatFs) {
        Ok(FsReply::StatFs(s)) => assert_eq!((s.free_blocks, s.free_inodes, s.inodes), (0, 0, 2)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_has_at_most_max_links_names() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o644);
    let state = at_batch(&mut b.state, SequenceNumber(1));
    match state.get_mut(inode_id(f).unwrap()) {
        Some(Object::Inode(record)) => record.links = MAX_LINKS,
        _ => panic!("no inode"),
    }
    b.check = false;
    b.fails(&root(), link(f, ROOT, "g"), TooManyLinks);
    match b.state.get_mut(inode_id(ROOT).unwrap()) {
        Some(Object::Inode(record)) => record.links = u32::MAX,
        _ => panic!("no root"),
    }
    b.fails(&root(), mkdir(ROOT, "d", 0o755), TooManyLinks);
}

#[test]
fn inode_numbers_end_after_2_to_the_56() {
    let mut b = Bench::new();
    match b.state.get_mut(SUPER_ID) {
        Some(Object::Super(totals)) => totals.next_inode = ObjectId::MAX_MAJOR,
        _ => panic!("no totals"),
    }
    let last = b.file(&root(), ROOT, "last", 0o644);
    assert_eq!(last, Inode(ObjectId::MAX_MAJOR));
    b.fails(&root(), create(ROOT, "none", 0o644), NoSpace);
}

#[test]
fn a_directory_is_not_moved_below_what_is_too_deep_to_walk() {
    let mut b = Bench::new();
    b.check = false;
    let mut deepest = ROOT;
    for _ in 0..MAX_DEPTH {
        deepest = b.directory(&root(), deepest, "d", 0o755);
    }
    b.directory(&root(), ROOT, "x", 0o755);
    b.file(&root(), ROOT, "f", 0o644);
    b.fails(&root(), rename(ROOT, "x", deepest, "x", RenameMode::Replace), NameTooLong);
    b.done(&root(), rename(ROOT, "f", deepest, "f", RenameMode::Replace));
    let above = b.get(&root(), lookup(deepest, "..")).inode;
    b.done(&root(), rename(ROOT, "x", above, "x", RenameMode::Replace));
    b.check = true;
    b.fails(&root(), rename(ROOT, "d", deepest, "y", RenameMode::Replace), Invalid);
}

fn limits_of(uid: u32, inodes: Option<u64>) -> FsOp {
    FsOp::SetLimits { subject: Subject::User(uid), limits: Limits { bytes: None, inodes } }
}

#[test]
fn accounts_take_room_as_long_as_they_say_something() {
    let mut b = with_room(3 * cost::ACCOUNT_COST);
    for uid in 1..=3 {
        assert!(b.run(&root(), limits_of(uid, Some(5))).is_ok());
        assert_eq!(b.used(), EMPTY + u64::from(uid) * cost::ACCOUNT_COST);
    }
    b.fails(&root(), limits_of(4, Some(5)), NoSpace);
    // What is said already may be said otherwise, and what says nothing takes nothing.
    assert!(b.run(&root(), limits_of(3, Some(6))).is_ok());
    assert!(b.run(&root(), limits_of(4, None)).is_ok());
    assert!(b.run(&root(), limits_of(3, None)).is_ok());
    assert_eq!(b.used(), EMPTY + 2 * cost::ACCOUNT_COST);
    assert!(b.run(&root(), limits_of(4, Some(5))).is_ok());
}

#[test]
fn who_has_nothing_yet_needs_room_for_an_account_too() {
    let file = cost::INODE_COST + cost::entry(b"f");
    let mut b = with_room(2 * file + cost::ACCOUNT_COST - 1);
    b.get(&root(), chmod(ROOT, 0o777));
    let f = b.file(&root(), ROOT, "f", 0o644);
    b.fails(&user(7), create(ROOT, "g", 0o644), NoSpace);
    b.get(&root(), chown(f, Some(7), None));
    assert_eq!(b.used(), EMPTY + file + cost::ACCOUNT_COST);
    // Its owner's account goes with the last that it had.
    b.get(&root(), chown(f, Some(0), None));
    assert_eq!(b.used(), EMPTY + file);
    b.file(&root(), ROOT, "g", 0o644);
    for op in [chown(f, Some(7), None), chown(f, Some(7), Some(7))] {
        b.fails(&root(), op, NoSpace);
    }
    b.get(&root(), chown(f, Some(0), Some(7)));
    let d = b.get(&root(), lookup(ROOT, "g")).inode;
    b.done(&root(), unlink(ROOT, "g"));
    b.fails(&root(), FsOp::MakeSubtree { inode: d }, Stale);
    let d = b.directory(&root(), ROOT, "d", 0o755);
    b.fails(&root(), FsOp::MakeSubtree { inode: d }, NoSpace);
    b.done(&root(), unlink(ROOT, "f"));
    b.get(&root(), FsOp::MakeSubtree { inode: d });
    assert_eq!(b.used(), EMPTY + file + cost::ACCOUNT_COST);
    b.done(&root(), rmdir(ROOT, "d"));
    assert_eq!(b.used(), EMPTY);
}

#[test]
fn exports_take_room_until_the_client_is_dismissed() {
    let uids = |ranges| Export {
        subtree: ROOT,
        read_only: false,
        root_squash: true,
        uids: alloc::vec![(1, 2); ranges],
        gids: alloc::vec![],
    };
    let (narrow, wide) = (cost::export(&uids(1)), cost::export(&uids(MAX_ID_RANGES)));
    let mut b = with_room(narrow + wide);
    let grant = |client, ranges| FsOp::SetExport { client, export: Some(uids(ranges)) };
    b.done(&root(), grant(1, MAX_ID_RANGES));
    b.done(&root(), grant(2, 1));
    b.fails(&root(), grant(3, 1), NoSpace);
    b.fails(&root(), grant(2, 2), NoSpace);
    b.done(&root(), grant(1, 1));
    assert_eq!(b.used(), EMPTY + 2 * narrow);
    // What everybody may is remembered too, for good, but only where something else was said before.
    let everybodys = cost::export(&uids(0));
    for client in [2, 2, 3] {
        b.done(&root(), FsOp::SetExport { client, export: None });
    }
    assert_eq!(b.used(), EMPTY + narrow + everybodys);
    let context = b.context();
    for client in [1, 1, 2] {
        b.fs.dismiss(&context, &mut b.state, ClientId(client));
    }
    assert_eq!(b.used(), EMPTY);
    crate::fsck::check(&b.state).unwrap();
}

#[test]
fn padding_has_a_limit() {
    let mut b = Bench::new();
    let null = |result| FsOp::Null { argument: alloc::vec![1; 100], result };
    b.done(&root(), null(0));
    match b.run(&root(), null(MAX_IO)) {
        Ok(FsReply::Padding(bytes)) => assert_eq!(bytes.len(), MAX_IO as usize),
        other => panic!("{other:?}"),
    }
    b.fails(&root(), null(MAX_IO + 1), Invalid);
}

#[test]
fn removing_everything_frees_everything() {
    let mut b = Bench::new();
    let empty = b.used();
    let d = b.directory(&root(), ROOT, "d", 0o755);
    for i in 0..100 {
        let f = b.file(&root(), d, &format!("f{i}"), 0o644);
        b.get(&root(), write(f, i * 5000, &[1; 20_000]));
        b.get(&root(), truncate(f, i * 5000 + 3000));
    }
    for i in 0..100 {
        b.done(&root(), unlink(d, &format!("f{i}")));
    }
    b.done(&root(), rmdir(ROOT, "d"));
    assert_eq!((b.used(), b.state.len()), (empty, 4));
}
