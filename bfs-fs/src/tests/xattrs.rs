//! Extended attributes. [xattr(7)]

use super::fixture::*;
use crate::op::FsError::*;
use crate::op::*;
use crate::{FileSystemConfig, cost};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

fn set_to(inode: Inode, name: &str, value: &[u8], how: XattrMode) -> FsOp {
    FsOp::SetXattr { inode, name: name.into(), value: value.to_vec().into(), how }
}

fn put(inode: Inode, name: &str, value: &[u8]) -> FsOp {
    set_to(inode, name, value, XattrMode::Set)
}

fn get(inode: Inode, name: &str) -> FsOp {
    FsOp::GetXattr { inode, name: name.into() }
}

fn remove(inode: Inode, name: &str) -> FsOp {
    FsOp::RemoveXattr { inode, name: name.into() }
}

#[track_caller]
fn value(b: &mut Bench, who: &Caller, inode: Inode, name: &str) -> Vec<u8> {
    match b.run(who, get(inode, name)) {
        Ok(FsReply::Value(value)) => value.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn names(b: &mut Bench, who: &Caller, inode: Inode) -> Vec<Vec<u8>> {
    match b.run(who, FsOp::ListXattrs { inode }) {
        Ok(FsReply::Names(mut names)) => {
            names.sort();
            names
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_of_every_size_come_back_and_are_paid_for() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o644);
    let empty = b.used();
    assert!(!b.attributes(f).has_xattrs);
    for len in [0, 1, 32_767, 32_768, 32_769, 65_536, 5] {
        let got = b.get(&root(), put(f, "user.a", &vec![len as u8; len]));
        assert_eq!((got.has_xattrs, got.changed), (true, b.now()));
        assert_eq!(value(&mut b, &root(), f, "user.a"), vec![len as u8; len]);
        assert_eq!(b.used() - empty, cost::xattr(b"user.a", len));
    }
    b.fails(&root(), put(f, "user.a", &[0; 65_537]), TooBig);
    let got = b.get(&root(), remove(f, "user.a"));
    assert!(!got.has_xattrs);
    assert_eq!(b.used(), empty);
    b.fails(&root(), get(f, "user.a"), NoData);
    b.fails(&root(), remove(f, "user.a"), NoData);
}

/// No limit on users or subtrees counts attributes, but one on inodes bounds them.
#[test]
fn all_values_of_a_file_together_have_a_limit() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o644);
    for name in ["user.a", "user.b", "user.c"] {
        b.get(&root(), put(f, name, &[1; 65_536]));
    }
    b.fails(&root(), put(f, "user.d", &[1; 65_536]), NoSpace);
    let left = MAX_XATTRS_COST - 3 * cost::xattr(b"user.a", 65_536) - cost::xattr(b"user.d", 0);
    b.get(&root(), put(f, "user.d", &vec![1; left as usize]));
    b.fails(&root(), put(f, "user.e", b""), NoSpace);
    b.fails(&root(), put(f, "user.d", &vec![1; left as usize + 1]), NoSpace);
    b.get(&root(), put(f, "user.c", &[2; 65_536]));
    b.get(&root(), put(f, "user.d", b""));
    b.get(&root(), put(f, "user.e", b""));
}

#[test]
fn create_and_replace_say_what_must_be_there() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o644);
    b.fails(&root(), set_to(f, "user.a", b"1", XattrMode::Replace), NoData);
    b.get(&root(), set_to(f, "user.a", b"1", XattrMode::Create));
    b.fails(&root(), set_to(f, "user.a", b"2", XattrMode::Create), Exists);
    b.get(&root(), set_to(f, "user.a", b"3", XattrMode::Replace));
    assert_eq!(value(&mut b, &root(), f, "user.a"), b"3");
}

#[test]
fn a_name_has_a_namespace_and_a_length() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o644);
    let long = format!("user.{}", "x".repeat(251));
    for (name, error) in [
        ("", OutOfRange),
        (&*long, OutOfRange),
        ("user.", Invalid),
        ("user.\0", Invalid),
        ("user", NotSupported),
        ("other.a", NotSupported),
        ("system.posix_acl_access", NotSupported),
        ("system.posix_acl_default", NotSupported),
    ] {
        b.fails(&root(), put(f, name, b"v"), error);
        b.fails(&root(), get(f, name), error);
        b.fails(&root(), remove(f, name), error);
    }
    b.get(&root(), put(f, &long[..255], b"v"));
    b.fails(&root(), put(Inode(99), "user.a", b"v"), Stale);
}

#[test]
fn user_attributes_follow_the_mode_and_others_are_roots() {
    let mut b = Bench::new();
    let (alice, bob) = (user(100), user(200));
    let f = b.file(&alice, ROOT, "f", 0o640);
    b.get(&alice, put(f, "user.a", b"v"));
    b.fails(&bob, get(f, "user.a"), AccessDenied);
    b.fails(&bob, put(f, "user.a", b"w"), AccessDenied);
    b.fails(&bob, remove(f, "user.a"), AccessDenied);
    b.get(&alice, chmod(f, 0o444));
    assert_eq!(value(&mut b, &bob, f, "user.a"), b"v");
    b.fails(&alice, put(f, "user.a", b"w"), AccessDenied);
    for name in ["trusted.t", "security.s"] {
        b.fails(&alice, put(f, name, b"v"), NotPermitted);
        b.get(&root(), put(f, name, b"v"));
        b.fails(&alice, remove(f, name), NotPermitted);
    }
    assert_eq!(value(&mut b, &bob, f, "security.s"), b"v");
    b.fails(&alice, get(f, "trusted.t"), NoData);
    let seen = [b"security.s".to_vec(), b"user.a".to_vec()];
    assert_eq!(names(&mut b, &alice, f), seen);
    assert_eq!(names(&mut b, &root(), f).len(), 3);
    // A sticky directory's attributes are its owner's, and what is neither file nor directory has none of users.
    let dir = b.directory(&root(), ROOT, "tmp", 0o1777);
    b.fails(&alice, put(dir, "user.a", b"v"), NotPermitted);
    let link = b.get(&alice, symlink(ROOT, "l", "t")).inode;
    b.fails(&alice, put(link, "user.a", b"v"), NotPermitted);
    b.fails(&alice, get(link, "user.a"), NoData);
    b.get(&root(), put(link, "trusted.t", b"v"));
}

#[test]
fn capabilities_go_with_every_change_of_the_file() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o755);
    let punch = FsOp::Allocate { inode: f, offset: 0, length: 1, how: AllocateMode::Punch };
    for op in [write(f, 0, b"x"), truncate(f, 5), chown(f, Some(0), None), punch] {
        b.get(&root(), put(f, "security.capability", b"cap"));
        b.get(&root(), chmod(f, 0o755));
        assert!(b.attributes(f).has_xattrs);
        assert!(b.run(&root(), op).is_ok());
        assert!(!b.attributes(f).has_xattrs);
    }
}

#[test]
fn names_and_memory_run_out() {
    let mut b = Bench::new();
    b.check = false;
    let f = b.file(&root(), ROOT, "f", 0o644);
    let long = |i: u32| format!("user.{i:0250}");
    for i in 0..256 {
        b.get(&root(), put(f, &long(i), b""));
    }
    b.fails(&root(), put(f, "user.a", b""), NoSpace);
    b.get(&root(), put(f, &long(7), b"another value"));
    b.check = true;
    b.done(&root(), unlink(ROOT, "f"));
    assert_eq!(b.used(), EMPTY);
    let mut b = Bench::with(FileSystemConfig { memory_budget: 40_000, ..Default::default() });
    b.fails(&root(), put(ROOT, "user.a", &[1; 40_000]), NoSpace);
    b.get(&root(), put(ROOT, "user.a", &[1; 30_000]));
    b.get(&root(), put(ROOT, "user.a", &[1; 35_000]));
}
