//! Making, finding, moving and removing names.

use super::fixture::*;
use crate::op::FsError::*;
use crate::op::RenameMode::*;
use crate::op::*;
use alloc::string::String;

#[test]
fn dots_lead_to_the_directory_and_its_parent() {
    let mut b = Bench::new();
    let d = b.directory(&root(), ROOT, "d", 0o755);
    let e = b.directory(&root(), d, "e", 0o755);
    assert_eq!(b.get(&root(), lookup(e, ".")).inode, e);
    assert_eq!(b.get(&root(), lookup(e, "..")).inode, d);
    assert_eq!(b.get(&root(), lookup(ROOT, "..")).inode, ROOT);
    for name in [".", ".."] {
        b.fails(&root(), mkdir(d, name, 0o755), Exists);
        b.fails(&root(), create(d, name, 0o644), Exists);
        b.fails(&root(), symlink(d, name, "t"), Exists);
        b.fails(&root(), unlink(d, name), IsDirectory);
        b.fails(&root(), rename(d, name, ROOT, "x", Replace), Invalid);
        b.fails(&root(), rename(ROOT, "d", d, name, Replace), Invalid);
    }
    b.fails(&root(), rmdir(d, "."), Invalid);
    b.fails(&root(), rmdir(d, ".."), NotEmpty);
}

#[test]
fn names_are_bytes_with_limits() {
    let mut b = Bench::new();
    let longest = "x".repeat(255);
    b.file(&root(), ROOT, &longest, 0o644);
    b.fails(&root(), create(ROOT, &(longest.clone() + "x"), 0o644), NameTooLong);
    b.fails(&root(), create(ROOT, "", 0o644), NotFound);
    b.fails(&root(), create(ROOT, "a/b", 0o644), Invalid);
    b.fails(&root(), lookup(ROOT, "a\0"), Invalid);
    let name = alloc::vec![0xff, 0xfe];
    b.get(&root(), FsOp::MakeDirectory { parent: ROOT, name: name.clone(), mode: 0o755 });
    assert!(b.run(&root(), FsOp::Lookup { parent: ROOT, name }).is_ok());
}

#[test]
fn the_ways_to_create() {
    let mut b = Bench::new();
    let create =
        |name: &str, how| FsOp::Create { parent: ROOT, name: name.into(), mode: 0o17644, how };
    let made = b.get(&root(), create("f", CreateMode::Exclusive(5)));
    assert_eq!((made.mode, made.links, made.generation), (0o7644, 1, b.n));
    assert_eq!(b.get(&root(), create("f", CreateMode::Exclusive(5))), made);
    b.fails(&root(), create("f", CreateMode::Exclusive(6)), Exists);
    b.fails(&root(), create("f", CreateMode::Guarded), Exists);
    assert_eq!(b.get(&root(), create("f", CreateMode::Unchecked)), made);
    b.directory(&root(), ROOT, "d", 0o755);
    b.fails(&root(), create("d", CreateMode::Unchecked), IsDirectory);
    b.get(&root(), symlink(ROOT, "l", "f"));
    b.fails(&root(), create("l", CreateMode::Unchecked), Exists);
    b.get(&root(), create("g", CreateMode::Guarded));
    b.fails(&root(), create("g", CreateMode::Exclusive(0)), Exists);
}

/// Systems that number their exclusive creates begin anew when they start: what they made before must not look like a repeat.
#[test]
fn a_verifier_says_nothing_any_more_once_its_file_has_been_given_attributes() {
    let mut b = Bench::new();
    let lock = || FsOp::Create {
        parent: ROOT,
        name: "lock".into(),
        mode: 0,
        how: CreateMode::Exclusive(1),
    };
    let made = b.get(&root(), lock());
    b.get(&root(), chmod(made.inode, 0o600));
    b.fails(&root(), lock(), Exists);
}

#[test]
fn an_inode_number_is_never_used_twice() {
    let mut b = Bench::new();
    let old = b.file(&root(), ROOT, "f", 0o644);
    b.done(&root(), unlink(ROOT, "f"));
    let new = b.file(&root(), ROOT, "f", 0o644);
    assert!(new > old);
    b.fails(&root(), FsOp::GetAttributes { inode: old }, Stale);
    b.fails(&root(), FsOp::GetAttributes { inode: Inode(0) }, Stale);
    // An id has 56 bits for an inode: the bits above must not be dropped.
    b.fails(&root(), FsOp::GetAttributes { inode: Inode(1 << 56 | 1) }, Stale);
    b.fails(&root(), create(Inode(1 << 60 | 1), "x", 0o644), Stale);
}

#[test]
fn links_count_names() {
    let mut b = Bench::new();
    let file = b.file(&root(), ROOT, "f", 0o644);
    b.get(&root(), write(file, 0, b"kept"));
    let d = b.directory(&root(), ROOT, "d", 0o755);
    assert_eq!(b.get(&root(), link(file, d, "g")).links, 2);
    b.fails(&root(), link(file, d, "g"), Exists);
    b.fails(&root(), link(d, ROOT, "e"), NotPermitted);
    b.done(&root(), unlink(ROOT, "f"));
    let left = b.attributes(file);
    assert_eq!(
        (left.links, left.changed),
        (1, Timestamp::from_nanoseconds((b.n - 1) * 1_500_000_000))
    );
    assert_eq!(b.contents(file, 0, 9), b"kept");
    b.done(&root(), unlink(d, "g"));
    b.fails(&root(), FsOp::Sync { inode: file }, Stale);
}

#[test]
fn directories_are_removed_when_empty() {
    let mut b = Bench::new();
    let d = b.directory(&root(), ROOT, "d", 0o755);
    b.directory(&root(), d, "e", 0o755);
    assert_eq!(b.attributes(d).links, 3);
    b.fails(&root(), rmdir(ROOT, "d"), NotEmpty);
    b.fails(&root(), unlink(ROOT, "d"), IsDirectory);
    b.done(&root(), rmdir(d, "e"));
    assert_eq!(b.attributes(d).links, 2);
    b.file(&root(), ROOT, "f", 0o644);
    b.fails(&root(), rmdir(ROOT, "f"), NotDirectory);
    b.done(&root(), rmdir(ROOT, "d"));
    b.fails(&root(), create(d, "x", 0o644), Stale);
}

#[test]
fn rename_puts_one_thing_in_anothers_place() {
    let mut b = Bench::new();
    let f = b.file(&root(), ROOT, "f", 0o644);
    let g = b.file(&root(), ROOT, "g", 0o644);
    b.fails(&root(), rename(ROOT, "f", ROOT, "g", NoReplace), Exists);
    b.fails(&root(), rename(ROOT, "f", ROOT, "none", Exchange), NotFound);
    b.fails(&root(), rename(ROOT, "none", ROOT, "g", Replace), NotFound);
    b.done(&root(), rename(ROOT, "f", ROOT, "g", Replace));
    assert_eq!(b.get(&root(), lookup(ROOT, "g")).inode, f);
    b.fails(&root(), FsOp::GetAttributes { inode: g }, Stale);
    b.fails(&root(), lookup(ROOT, "f"), NotFound);
    // Two names of one file: both stay.
    b.get(&root(), link(f, ROOT, "h"));
    b.done(&root(), rename(ROOT, "g", ROOT, "h", Replace));
    assert_eq!(b.attributes(f).links, 2);
}

#[test]
fn rename_keeps_the_tree_a_tree() {
    let mut b = Bench::new();
    let d = b.directory(&root(), ROOT, "d", 0o755);
    let e = b.directory(&root(), d, "e", 0o755);
    let k = b.directory(&root(), e, "k", 0o755);
    b.fails(&root(), rename(ROOT, "d", d, "x", Replace), Invalid);
    b.fails(&root(), rename(ROOT, "d", k, "x", Replace), Invalid);
    b.fails(&root(), rename(ROOT, "d", e, "k", Exchange), Invalid);
    b.fails(&root(), rename(e, "k", ROOT, "d", Exchange), Invalid);
    b.fails(&root(), rename(e, "k", ROOT, "d", Replace), NotEmpty);
    b.done(&root(), rename(d, "e", ROOT, "e", Replace));
    assert_eq!(b.get(&root(), lookup(e, "..")).inode, ROOT);
    assert_eq!((b.attributes(d).links, b.attributes(ROOT).links), (2, 4));
    b.done(&root(), rename(ROOT, "d", k, "d", Replace));
    assert_eq!(b.get(&root(), lookup(d, "..")).inode, k);
}

#[test]
fn rename_respects_kinds() {
    let mut b = Bench::new();
    let d = b.directory(&root(), ROOT, "d", 0o755);
    let empty = b.directory(&root(), ROOT, "empty", 0o755);
    b.file(&root(), ROOT, "f", 0o644);
    b.file(&root(), d, "in", 0o644);
    b.fails(&root(), rename(ROOT, "f", ROOT, "empty", Replace), IsDirectory);
    b.fails(&root(), rename(ROOT, "empty", ROOT, "f", Replace), NotDirectory);
    b.fails(&root(), rename(ROOT, "empty", ROOT, "d", Replace), NotEmpty);
    b.done(&root(), rename(ROOT, "d", ROOT, "empty", Replace));
    b.fails(&root(), FsOp::GetAttributes { inode: empty }, Stale);
    assert_eq!(b.get(&root(), lookup(ROOT, "empty")).inode, d);
}

#[test]
fn an_exchange_swaps_parents_and_links() {
    let mut b = Bench::new();
    let (p, q) = (b.directory(&root(), ROOT, "p", 0o755), b.directory(&root(), ROOT, "q", 0o755));
    let d = b.directory(&root(), p, "x", 0o755);
    let f = b.file(&root(), q, "y", 0o644);
    b.done(&root(), rename(p, "x", q, "y", Exchange));
    assert_eq!(b.get(&root(), lookup(q, "y")).inode, d);
    assert_eq!(b.get(&root(), lookup(p, "x")).inode, f);
    assert_eq!((b.attributes(p).links, b.attributes(q).links), (2, 3));
    assert_eq!(b.get(&root(), lookup(d, "..")).inode, q);
    assert_eq!(
        (b.attributes(d).changed, b.attributes(f).changed),
        (b.attributes(p).changed, b.attributes(q).changed)
    );
}

#[test]
fn links_lead_where_they_were_told() {
    let mut b = Bench::new();
    let made = b.get(&root(), symlink(ROOT, "l", "../some where"));
    assert_eq!((made.kind, made.mode, made.size), (Kind::Symlink, 0o777, 13));
    assert_eq!(
        b.run(&root(), FsOp::ReadLink { inode: made.inode }),
        Ok(FsReply::Target(b"../some where".to_vec()))
    );
    b.fails(&root(), FsOp::ReadLink { inode: ROOT }, Invalid);
    b.fails(&root(), symlink(ROOT, "m", ""), NotFound);
    b.fails(&root(), symlink(ROOT, "m", "a\0b"), Invalid);
    b.fails(&root(), symlink(ROOT, "m", &"t".repeat(MAX_TARGET + 1)), NameTooLong);
    let longest: String = "t".repeat(MAX_TARGET);
    b.get(&root(), symlink(ROOT, "m", &longest));
    b.fails(&root(), chmod(made.inode, 0o600), NotSupported);
}
