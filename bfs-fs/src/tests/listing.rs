//! Directories, read in pieces while they change.

use super::fixture::*;
use crate::name::{SAME_HASH, cookies};
use crate::object::{EntryRecord, Object, entry_id};
use crate::op::FsError::*;
use crate::op::*;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use bft_core::objects::at_batch;
use bft_core::types::SequenceNumber;

fn piece(b: &mut Bench, inode: Inode, cookie: u64, budget: u32) -> (Vec<Entry>, bool) {
    match b.run(&root(), FsOp::ReadDirectory { inode, cookie, budget }) {
        Ok(FsReply::Entries { entries, eof }) => (entries, eof),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pieces_keep_the_budget_but_always_move_on() {
    let mut b = Bench::new();
    for i in 0..50 {
        b.file(&root(), ROOT, &format!("{i:05}"), 0o644);
    }
    // "." and "..", and exactly three names of five bytes.
    let budget = 5 * ENTRY_COST + 3 + 15;
    assert_eq!(piece(&mut b, ROOT, 0, budget).0.len(), 5);
    assert_eq!(piece(&mut b, ROOT, 0, budget - 1).0.len(), 4);
    assert_eq!(piece(&mut b, ROOT, 0, 0).0.len(), 1);
    let (all, eof) = piece(&mut b, ROOT, 0, u32::MAX);
    assert_eq!((all.len(), eof), (52, true));
    assert_eq!((&*all[0].name, &*all[1].name, all[1].cookie), (&b"."[..], &b".."[..], 2));
    let last = all[51].cookie;
    assert_eq!(piece(&mut b, ROOT, last, 0), (Vec::new(), true));
    assert_eq!(piece(&mut b, ROOT, u64::MAX, 0), (Vec::new(), true));
    let exact = all.iter().map(|e| ENTRY_COST + e.name.len() as u32).sum();
    assert!(piece(&mut b, ROOT, 0, exact).1);
    assert!(!piece(&mut b, ROOT, 0, exact - 1).1);
    let file = all[9].attributes.inode;
    b.fails(&root(), FsOp::ReadDirectory { inode: file, cookie: 0, budget: 0 }, NotDirectory);
}

#[test]
fn what_stays_is_listed_once_whatever_comes_and_goes() {
    let mut b = Bench::new();
    for i in 0..200 {
        b.file(&root(), ROOT, &format!("stays{i}"), 0o644);
    }
    let (mut seen, mut cookie, mut round) = (Vec::new(), 0, 0);
    loop {
        let (entries, eof) = piece(&mut b, ROOT, cookie, 900);
        seen.extend(entries.iter().map(|e| e.name.clone()).filter(|n| n.starts_with(b"stays")));
        cookie = entries.last().map_or(cookie, |e| e.cookie);
        b.file(&root(), ROOT, &format!("comes{round}"), 0o644);
        if round > 0 && round % 2 == 0 {
            b.done(&root(), unlink(ROOT, &format!("comes{}", round - 1)));
        }
        round += 1;
        if eof {
            break;
        }
    }
    assert_eq!(seen.len(), 200);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 200);
}

#[test]
fn a_directory_holds_a_million_entries() {
    let mut b = Bench::new();
    b.check = false;
    // Names of a few files: what is tried is the directory.
    let files: Vec<_> = (0..20).map(|i| b.file(&root(), ROOT, &format!("f{i}"), 0o644)).collect();
    let d = b.directory(&root(), ROOT, "d", 0o755);
    let name = |i: usize| format!("name {i}");
    for i in 0..1_000_000 {
        b.get(&root(), link(files[i % 20], d, &name(i)));
    }
    let (mut cookie, mut listed, mut pieces) = (0, 0, 0);
    loop {
        let op = FsOp::ReadDirectory { inode: d, cookie, budget: MAX_IO };
        let Ok(FsReply::Entries { entries, eof }) = b.run(&root(), op) else { panic!() };
        // Others come and go behind and ahead of where the listing is.
        b.done(&root(), unlink(d, &name(pieces)));
        b.get(&root(), link(files[0], d, &format!("new {pieces}")));
        let stays = |e: &&Entry| e.name.starts_with(b"name ") && e.name.len() > 8;
        listed += entries.iter().filter(stays).count();
        cookie = entries.last().unwrap().cookie;
        pieces += 1;
        if eof {
            break;
        }
    }
    // Of names longer than three digits none was touched.
    assert!(pieces < 1000, "{pieces}");
    assert_eq!(listed, 1_000_000 - 1000);
    assert_eq!(b.get(&root(), lookup(d, &name(999_999))).inode, files[19]);
    assert_eq!(b.run(&root(), lookup(d, &name(1_000_000))), Err(FsError::NotFound));
    b.fails(&root(), rmdir(ROOT, "d"), FsError::NotEmpty);
}

#[test]
fn names_with_one_hash_share_eight_places() {
    let mut b = Bench::new();
    let victim = b"victim";
    let (first, last) = cookies(victim);
    // No eight names with one hash can be found, so others are put where such names would be.
    let state = at_batch(&mut b.state, SequenceNumber(1));
    for cookie in first..=last {
        let name = format!("other{cookie}").into_bytes().into();
        state.insert(entry_id(ROOT, cookie), Object::Entry(EntryRecord { inode: ROOT, name }));
    }
    let reader = crate::state::Reader { state: &b.state, caller: &root(), client: 0, top: ROOT };
    assert_eq!(reader.vacancy(ROOT, victim), Err(NoSpace));
    assert!(reader.entry(ROOT, victim).unwrap().is_none());
    b.state.remove(entry_id(ROOT, first + 3));
    b.state.remove(entry_id(ROOT, first + 5));
    let reader = crate::state::Reader { state: &b.state, caller: &root(), client: 0, top: ROOT };
    assert_eq!(reader.vacancy(ROOT, victim), Ok(entry_id(ROOT, first + 3)));
    let entry = EntryRecord { inode: Inode(9), name: (*victim).into() };
    b.state.insert(entry_id(ROOT, first + SAME_HASH - 1), Object::Entry(entry));
    let reader = crate::state::Reader { state: &b.state, caller: &root(), client: 0, top: ROOT };
    assert_eq!(reader.entry(ROOT, victim).unwrap().map(|found| found.inode), Some(Inode(9)));
}
