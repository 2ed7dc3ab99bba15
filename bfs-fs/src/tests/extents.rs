//! Ranges of files, and what each of them may cost.

use super::fixture::*;
use crate::op::FsError::*;
use crate::op::*;
use crate::{FileSystemConfig, MAX_CHUNKS, MAX_FILE_SIZE, cost};
use AllocateMode::{Punch, Reserve, Zero};
use alloc::vec;

const MIB: u64 = 1 << 20;

fn allocate(inode: Inode, offset: u64, length: u64, how: AllocateMode) -> FsOp {
    FsOp::Allocate { inode, offset, length, how }
}

fn fresh(memory_budget: u64) -> (Bench, Inode) {
    let mut b = Bench::with(FileSystemConfig { memory_budget, ..Default::default() });
    let file = b.file(&root(), ROOT, "f", 0o644);
    (b, file)
}

#[track_caller]
fn allocated(b: &mut Bench, op: FsOp) -> (u64, Attributes) {
    match b.run(&root(), op) {
        Ok(FsReply::Allocated { length, attributes }) => (length, attributes),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn position(b: &mut Bench, inode: Inode, offset: u64, target: SeekTarget) -> (u64, bool) {
    match b.run(&root(), FsOp::Seek { inode, offset, target }) {
        Ok(FsReply::Position { offset, found }) => (offset, found),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_reserved_can_be_written_when_nothing_else_can() {
    let (mut b, file) = fresh(4 * MIB);
    let (length, got) = allocated(&mut b, allocate(file, 100, MIB, Reserve { keep_size: false }));
    assert_eq!((length, got.size, got.blocks), (MIB, MIB + 100, (MIB / 4096 + 1) * 8));
    let g = b.file(&root(), ROOT, "g", 0o644);
    let fill = allocate(g, 0, 8 * MIB, Reserve { keep_size: true });
    b.fails(&root(), fill, NoSpace);
    let mut size = 0;
    while b.run(&root(), write(g, size, &[1; 4096])) != Err(NoSpace) {
        size += 4096;
    }
    b.get(&root(), write(file, 100, &vec![7; MIB as usize]));
    assert_eq!(b.contents(file, 99, 2), [0, 7]);
}

#[test]
fn memory_is_reserved_behind_the_end_without_moving_it() {
    let (mut b, file) = fresh(1 << 30);
    b.get(&root(), write(file, 0, b"abc"));
    let (_, got) = allocated(&mut b, allocate(file, 0, 100_000, Reserve { keep_size: true }));
    assert_eq!((got.size, got.blocks), (3, 25 * 8));
    assert_eq!(b.contents(file, 0, 100), b"abc");
    // What is not in the file is no data, and the reservation ends with a truncation.
    assert_eq!(position(&mut b, file, 0, SeekTarget::Hole), (3, true));
    assert_eq!(b.get(&root(), truncate(file, 3)).blocks, 8);
    allocated(&mut b, allocate(file, 5000, 5000, Reserve { keep_size: true }));
    assert_eq!(b.get(&root(), write(file, 6000, b"x")).size, 6001);
    assert_eq!(b.contents(file, 3, 5), [0; 5]);
}

#[test]
fn a_hole_is_punched_into_pages_and_parts_of_them() {
    let (mut b, file) = fresh(1 << 30);
    b.get(&root(), write(file, 0, &[9; 100_000]));
    let before = b.used();
    let (length, got) = allocated(&mut b, allocate(file, 4000, 65_632, Punch));
    assert_eq!((length, got.size, got.blocks), (65_632, 100_000, 9 * 8));
    assert_eq!(before - b.used(), 16 * cost::PAGE_COST + cost::CHUNK_COST);
    let all = b.contents(file, 0, MAX_IO);
    assert!(
        all.iter()
            .enumerate()
            .all(|(i, byte)| { *byte == if (4000..69_632).contains(&i) { 0 } else { 9 } })
    );
    // Behind the end there is nothing to punch, and nothing moves.
    assert_eq!(allocated(&mut b, allocate(file, 1 << 40, 1 << 40, Punch)).1.size, 100_000);
    assert_eq!(position(&mut b, file, 0, SeekTarget::Hole), (4096, true));
    assert_eq!(position(&mut b, file, 5000, SeekTarget::Data), (69_632, true));
    assert_eq!(position(&mut b, file, 70_000, SeekTarget::Data), (70_000, true));
}

#[test]
fn a_zeroed_range_reads_as_zeros_and_keeps_its_memory() {
    let (mut b, file) = fresh(1 << 30);
    b.get(&root(), write(file, 0, &[9; 10_000]));
    let (_, got) = allocated(&mut b, allocate(file, 5000, 20_000, Zero { keep_size: true }));
    assert_eq!((got.size, got.blocks), (10_000, 7 * 8));
    assert_eq!(b.contents(file, 4999, 3), [9, 0, 0]);
    assert_eq!(position(&mut b, file, 9000, SeekTarget::Data), (9000, true));
    let (_, got) = allocated(&mut b, allocate(file, 5000, 20_000, Zero { keep_size: false }));
    assert_eq!(got.size, 25_000);
}

#[test]
fn ranges_are_checked_as_fallocate_does() {
    let (mut b, file) = fresh(1 << 30);
    let dir = b.directory(&root(), ROOT, "d", 0o755);
    for how in [Punch, Reserve { keep_size: true }, Zero { keep_size: false }] {
        b.fails(&root(), allocate(file, 0, 0, how), Invalid);
        b.fails(&root(), allocate(file, u64::MAX, 2, how), FileTooLarge);
        b.fails(&root(), allocate(file, MAX_FILE_SIZE, 1, how), FileTooLarge);
        b.fails(&root(), allocate(dir, 0, 1, how), IsDirectory);
        b.fails(&user(7), allocate(file, 0, 1, how), AccessDenied);
    }
    for target in [SeekTarget::Data, SeekTarget::Hole] {
        b.fails(&root(), FsOp::Seek { inode: file, offset: 0, target }, NoSuchAddress);
        b.fails(&root(), FsOp::Seek { inode: dir, offset: 0, target }, IsDirectory);
    }
    b.get(&root(), truncate(file, 1 << 45));
    let data = FsOp::Seek { inode: file, offset: 3, target: SeekTarget::Data };
    b.fails(&root(), data, NoSuchAddress);
    assert_eq!(position(&mut b, file, 3, SeekTarget::Hole), (3, true));
}

#[test]
fn copies_hold_what_was_there_and_end_with_the_source() {
    let (mut b, file) = fresh(1 << 30);
    let other = b.file(&root(), ROOT, "g", 0o644);
    b.get(&root(), write(file, 0, b"0123456789"));
    let copy = |from, from_offset, to, to_offset, length| FsOp::CopyRange {
        from,
        from_offset,
        to,
        to_offset,
        length,
    };
    assert_eq!(b.get(&root(), copy(file, 2, other, 5000, u64::MAX)).size, 5008);
    assert_eq!(b.contents(other, 4999, 100), b"\x0023456789");
    assert_eq!(b.get(&root(), copy(file, 0, file, 10, 10)).size, 20);
    b.fails(&root(), copy(file, 0, file, 9, 10), Invalid);
    b.fails(&root(), copy(file, 0, ROOT, 0, 10), IsDirectory);
    let before = b.attributes(other);
    assert_eq!(b.get(&root(), copy(file, 20, other, 0, 10)), before);
}

/// A file of `chunks` pages, each in a chunk of its own.
fn scattered(chunks: u64) -> (Bench, Inode) {
    let (mut b, file) = fresh(1 << 30);
    b.check = false;
    for i in 0..chunks {
        b.get(&root(), write(file, i * 32_768, b"x"));
    }
    b.check = true;
    (b, file)
}

#[test]
fn a_large_cut_or_hole_is_made_in_steps() {
    let chunks = MAX_CHUNKS as u64 + 100;
    let (mut b, file) = scattered(chunks);
    let size = (chunks - 1) * 32_768 + 1;
    let cut = b.get(&root(), truncate(file, 10));
    // What is left is a beginning of the file, and everyone can see that it has changed.
    assert_eq!((cut.size, cut.blocks), (100 * 32_768, 100 * 8));
    assert_eq!((cut.modified, cut.changed), (b.now(), b.now()));
    let first = b.run(&root(), FsOp::Read { inode: file, offset: 0, count: 1 });
    assert!(matches!(first, Ok(FsReply::Data { data, .. }) if data == b"x"[..]));
    let cut = b.get(&root(), truncate(file, 10));
    assert_eq!((cut.size, cut.blocks), (10, 8));
    let (mut b, file) = scattered(chunks);
    let (length, got) = allocated(&mut b, allocate(file, 0, size, Punch));
    assert_eq!((length, got.blocks), (MAX_CHUNKS as u64 * 32_768, 100 * 8));
    let (rest, got) = allocated(&mut b, allocate(file, length, size - length, Punch));
    // A part of a page is zeroed and stays.
    assert_eq!((length + rest, got.blocks), (size, 8));
}

#[test]
fn a_large_reservation_is_made_in_steps_and_refused_at_the_first() {
    let (mut b, file) = fresh(100 * MIB);
    b.fails(&root(), allocate(file, 0, 1 << 40, Reserve { keep_size: false }), NoSpace);
    let how = Reserve { keep_size: false };
    let (length, got) = allocated(&mut b, allocate(file, 0, 90 * MIB, how));
    assert_eq!((length, got.size), (64 * MIB, 64 * MIB));
    let (length, got) = allocated(&mut b, allocate(file, length, 26 * MIB, how));
    assert_eq!((length, got.size), (26 * MIB, 90 * MIB));
    assert_eq!(position(&mut b, file, 0, SeekTarget::Hole), (90 * MIB, true));
}

#[test]
fn a_search_for_a_hole_has_an_end() {
    let (mut b, file) = fresh(1 << 30);
    b.check = false;
    for i in 0..3 {
        let how = Reserve { keep_size: false };
        allocated(&mut b, allocate(file, i * 64 * MIB, 64 * MIB, how));
    }
    assert_eq!(position(&mut b, file, 5, SeekTarget::Hole), (128 * MIB, false));
    assert_eq!(position(&mut b, file, 128 * MIB, SeekTarget::Hole), (192 * MIB, true));
}
