//! Every kind of damage is found.

use super::fixture::*;
use crate::fsck::check;
use crate::object::*;
use crate::op::*;
use bft_core::tree::ObjectId;

/// A file system with one of everything, and the numbers of a directory, a subdirectory and a file in it.
fn sample() -> (Bench, Inode, Inode, Inode) {
    let mut b = Bench::new();
    let d = b.directory(&root(), ROOT, "d", 0o755);
    let e = b.directory(&root(), d, "e", 0o755);
    let f = b.file(&root(), d, "f", 0o644);
    b.get(&root(), write(f, 0, &[1; 5000]));
    b.get(&root(), symlink(e, "l", "t"));
    (b, d, e, f)
}

fn record(b: &mut Bench, number: Inode) -> &mut InodeRecord {
    match b.state.get_mut(inode_id(number).unwrap()) {
        Some(Object::Inode(record)) => record,
        _ => panic!("no inode"),
    }
}

fn totals(b: &mut Bench) -> &mut Super {
    match b.state.get_mut(SUPER_ID) {
        Some(Object::Super(totals)) => totals,
        _ => panic!("no totals"),
    }
}

fn entry_of(b: &Bench, directory: Inode, name: &str) -> ObjectId {
    let reader = crate::state::Reader { state: &b.state, caller: &root(), client: 0, top: ROOT };
    reader.entry(directory, name.as_bytes()).unwrap().unwrap().id
}

fn damaged(fault: &str, damage: impl FnOnce(&mut Bench, Inode, Inode, Inode)) {
    let (mut b, d, e, f) = sample();
    damage(&mut b, d, e, f);
    let faults = check(&b.state).expect_err(fault);
    assert!(faults.iter().any(|found| found.contains(fault)), "{fault}: {faults:#?}");
}

#[test]
fn a_sound_file_system_passes() {
    assert_eq!(check(&sample().0.state), Ok(()));
}

#[test]
fn damage_to_links_and_directories_is_found() {
    damaged("2 links and 1 names", |b, _, _, f| record(b, f).links = 2);
    damaged("wrong links", |b, d, _, _| record(b, d).links = 2);
    damaged("wrong parent", |b, _, e, _| {
        record(b, e).body = Body::Directory { parent: ROOT, entries: 1 };
    });
    damaged("wrong entries", |b, d, _, _| {
        record(b, d).body = Body::Directory { parent: ROOT, entries: 3 };
    });
    damaged("not reached", |b, d, _, _| {
        let id = entry_of(b, d, "f");
        b.state.remove(id);
    });
    // d and e hold each other, and nobody holds them.
    damaged("not reached", |b, d, e, _| {
        let id = entry_of(b, ROOT, "d");
        b.state.remove(id);
        let first = crate::name::cookies(b"d").0;
        let entry = EntryRecord { inode: d, name: (*b"d").into() };
        b.state.insert(entry_id(e, first), Object::Entry(entry));
        record(b, d).body = Body::Directory { parent: e, entries: 2 };
    });
    damaged("no root", |b, _, _, _| {
        b.state.remove(inode_id(ROOT).unwrap());
    });
}

#[test]
fn damage_to_entries_is_found() {
    let put = |b: &mut Bench, directory, cookie, name: &[u8], inode| {
        let entry = EntryRecord { inode, name: name.into() };
        b.state.insert(entry_id(directory, cookie), Object::Entry(entry));
    };
    let first = |name: &[u8]| crate::name::cookies(name).0;
    damaged("names no inode", |b, d, _, _| put(b, d, first(b"x"), b"x", Inode(99)));
    damaged("is in no directory", |b, _, _, f| put(b, f, first(b"x"), b"x", f));
    damaged("repeats a name", |b, d, _, f| put(b, d, first(b"f") + 1, b"f", f));
    damaged("not where its name", |b, d, _, f| put(b, d, first(b"x") + 8, b"x", f));
    damaged("impossible name", |b, d, _, f| put(b, d, first(b"a/b"), b"a/b", f));
    damaged("impossible name", |b, d, _, f| put(b, d, first(b".."), b"..", f));
}

#[test]
fn damage_to_data_is_found() {
    fn chunk(data: &[u8]) -> Object {
        let mut chunk = Chunk::default();
        chunk.write(0, data);
        Object::Data(chunk)
    }
    damaged("belongs to no file", |b, d, _, _| b.state.insert(data_id(d, 0), chunk(b"x")));
    damaged("belongs to no file", |b, _, _, _| b.state.insert(data_id(Inode(99), 0), chunk(b"x")));
    damaged("beyond the end", |b, _, _, f| b.state.insert(data_id(f, 1), chunk(b"x")));
    damaged("beyond the end", |b, _, _, f| record(b, f).size = 4999);
    damaged("beyond the end", |b, _, _, f| record(b, f).size = 4096);
    damaged("beyond the end", |b, _, _, f| record(b, f).size = 0);
    damaged("is empty", |b, _, _, f| b.state.insert(data_id(f, 0), Object::Data(Chunk::default())));
    damaged("wrong pages", |b, _, _, f| record(b, f).pages = 1);
}

#[test]
fn damage_to_extended_attributes_is_found() {
    fn put(b: &mut Bench, owner: Inode, name: &[u8], place: u64, value: usize) {
        let record = XattrRecord { name: name.into(), value: alloc::vec![1; value].into() };
        b.state.insert(xattr_id(owner, place), Object::Xattr(record));
    }
    let place = |name: &[u8]| crate::name::xattr_places(name).0;
    let a = b"user.a";
    damaged("belongs to no inode", |b, _, _, _| put(b, Inode(99), a, place(a), 1));
    damaged("wrong extended attributes", |b, _, _, f| put(b, f, a, place(a), 1));
    damaged("wrong extended attributes", |b, _, _, f| record(b, f).xattrs = 7);
    damaged("not where its name", |b, _, _, f| put(b, f, a, place(a) + 16, 1));
    damaged("repeats a name", |b, _, _, f| {
        put(b, f, a, place(a), 1);
        put(b, f, a, place(a) + 2, 1);
    });
    damaged("impossible value", |b, _, _, f| put(b, f, a, place(a), XATTR_PART + 1));
    let rest =
        |b: &mut Bench, f, at| b.state.insert(xattr_id(f, at), Object::XattrRest([1].into()));
    damaged("impossible value", |b, _, _, f| {
        put(b, f, a, place(a), 1);
        rest(b, f, place(a) + 1);
    });
    damaged("has no value", |b, _, _, f| rest(b, f, place(a) + 1));
    damaged("does not belong", |b, _, _, f| rest(b, f, place(a)));
    damaged("the totals are", |b, _, _, f| put(b, f, a, place(a), 1));
}

/// The sample, in which a client holds the file, and another one has held it.
fn held() -> (Bench, Inode, u64) {
    let (mut b, _, _, f) = sample();
    b.run(&root(), FsOp::Hold { inodes: alloc::vec![f] }).unwrap();
    b.client = 1;
    b.run(&root(), FsOp::Hold { inodes: alloc::vec![f] }).unwrap();
    b.done(&root(), FsOp::EndLease);
    assert_eq!(check(&b.state), Ok(()));
    (b, f, 1)
}

#[test]
fn damage_to_what_is_held_is_found() {
    fn change(b: &mut Bench, lease: u64, how: impl FnOnce(&mut Lease)) {
        match b.state.get_mut(lease_id(lease)) {
            Some(Object::Lease(lease)) => how(lease),
            _ => panic!("no lease"),
        }
    }
    let damaged = |fault: &str, damage: &dyn Fn(&mut Bench, Inode, u64)| {
        let (mut b, f, lease) = held();
        damage(&mut b, f, lease);
        let faults = check(&b.state).expect_err(fault);
        assert!(faults.iter().any(|found| found.contains(fault)), "{fault}: {faults:#?}");
    };
    damaged("which is not its", &|b, _, _| b.state.insert(client_id(5), Object::ClientLease(1)));
    damaged("wrong stakes", &|b, _, lease| change(b, lease, |lease| lease.stakes = 2));
    damaged("is nobody's", &|b, _, _| {
        b.state.remove(client_id(0));
    });
    damaged("never given out", &|b, _, lease| change(b, lease, |lease| lease.renewed = u64::MAX));
    damaged("not cleared away", &|b, _, _| {
        b.state.remove(due_id(Due::Lease(2)));
    });
    damaged("and not counted", &|b, _, _| totals(b).dues = 0);
    damaged("still in use", &|b, f, _| b.state.insert(due_id(Due::Contents(f)), Object::Due));
    damaged("still in use", &|b, _, lease| b.state.insert(due_id(Due::Lease(lease)), Object::Due));
    damaged("not found by its lease", &|b, f, lease| {
        b.state.remove(stake_of_id(lease, f));
    });
    damaged("has no stake", &|b, f, lease| {
        b.state.remove(stake_id(f, lease));
    });
    damaged("has no lease", &|b, _, lease| {
        b.state.remove(lease_id(lease));
    });
    damaged("says nothing", &|b, f, lease| {
        b.state.insert(stake_id(f, lease), Object::Stake(Stake::default()));
    });
    damaged("is in nothing", &|b, _, lease| {
        b.state.insert(stake_id(Inode(99), lease), Object::Stake(Stake { open: true, locks: 0 }));
    });
    // A file without a name that somebody holds is sound; without a holder it is not.
    let (mut b, f, _) = held();
    let d = b.get(&root(), lookup(ROOT, "d")).inode;
    b.done(&root(), unlink(d, "f"));
    assert_eq!(check(&b.state), Ok(()));
    b.state.insert(stake_id(f, 1), Object::Stake(Stake { open: false, locks: 1 }));
    let faults = check(&b.state).expect_err("nobody holds it");
    assert!(faults.iter().any(|fault| fault.contains("0 links, 0 names")), "{faults:#?}");
}

#[test]
fn damage_to_values_and_totals_is_found() {
    damaged("impossible size", |b, _, _, f| record(b, f).size = crate::MAX_FILE_SIZE + 1);
    damaged("impossible size", |b, _, e, _| record(b, e).size = 1);
    damaged("impossible attributes", |b, _, _, f| record(b, f).mode = 0o10000);
    damaged("impossible attributes", |b, _, _, f| record(b, f).changed.nanoseconds = 1_000_000_000);
    damaged("never given out", |b, _, _, f| totals(b).next_inode = f.0);
    damaged("the totals are", |b, _, _, _| totals(b).bytes += 1);
    damaged("the totals are", |b, _, _, _| totals(b).inodes -= 1);
    damaged("does not belong", |b, _, _, _| {
        let object = Object::Super(*totals(b));
        b.state.insert(ObjectId::new(SUPER, 1, 0), object);
    });
}
