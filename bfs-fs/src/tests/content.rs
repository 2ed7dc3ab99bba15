//! What is in files.

use super::fixture::*;
use crate::MAX_FILE_SIZE;
use crate::cost;
use crate::op::FsError::*;
use crate::op::*;
use alloc::vec;

fn fresh() -> (Bench, Inode) {
    let mut b = Bench::new();
    let file = b.file(&root(), ROOT, "f", 0o644);
    (b, file)
}

#[test]
fn holes_read_as_zeros_and_take_no_memory() {
    let (mut b, file) = fresh();
    let before = b.used();
    let far = 1 << 52;
    let got = b.get(&root(), write(file, far, b"end"));
    assert_eq!((got.size, got.blocks), (far + 3, 8));
    assert_eq!(b.used() - before, cost::data(1, 1));
    assert_eq!(b.contents(file, far - 3, 100), b"\0\0\0end");
    assert_eq!(b.contents(file, 12_345, 4), [0; 4]);
    assert_eq!(b.get(&root(), truncate(file, MAX_FILE_SIZE)).size, MAX_FILE_SIZE);
    b.get(&root(), truncate(file, 0));
    assert_eq!(b.used(), before);
}

#[test]
fn what_was_cut_off_never_comes_back() {
    let (mut b, file) = fresh();
    b.get(&root(), write(file, 0, &[7; 100_000]));
    for size in [99_999, 65_536, 40_000, 32_769, 32_768, 32_767, 8192, 5000, 4096, 1] {
        let cut = b.get(&root(), truncate(file, size));
        assert_eq!((cut.size, cut.blocks), (size, size.div_ceil(4096) * 8));
        b.get(&root(), truncate(file, 100_000));
        let all = b.contents(file, 0, 200_000);
        assert_eq!(all.len(), 100_000);
        let sevens = all.iter().take_while(|byte| **byte == 7).count();
        assert_eq!(sevens as u64, size);
        assert!(all[sevens..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn reads_end_with_the_file() {
    let (mut b, file) = fresh();
    b.get(&root(), write(file, 0, b"0123456789"));
    for (offset, count, data, end) in [
        (0, 10, "0123456789", true),
        (0, 9, "012345678", false),
        (8, 100, "89", true),
        (10, 1, "", true),
        (u64::MAX, u32::MAX, "", true),
        (3, 0, "", false),
    ] {
        match b.run(&root(), FsOp::Read { inode: file, offset, count }) {
            Ok(FsReply::Data { data: found, eof, attributes }) => {
                assert_eq!((&*found, eof, attributes.size), (data.as_bytes(), end, 10));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_read_or_write_moves_at_most_max_io() {
    let (mut b, file) = fresh();
    let most = vec![5; MAX_IO as usize];
    match b.run(&root(), write(file, 100, &most)) {
        Ok(FsReply::Written { count, .. }) => assert_eq!(count, MAX_IO),
        other => panic!("{other:?}"),
    }
    assert_eq!(b.contents(file, 0, u32::MAX).len(), MAX_IO as usize);
    b.fails(&root(), write(file, 0, &vec![5; MAX_IO as usize + 1]), Invalid);
}

#[test]
fn a_file_has_a_largest_size() {
    let (mut b, file) = fresh();
    b.get(&root(), write(file, MAX_FILE_SIZE - 1, b"x"));
    b.fails(&root(), write(file, MAX_FILE_SIZE, b"x"), FileTooLarge);
    b.fails(&root(), write(file, u64::MAX, b"xy"), FileTooLarge);
    b.fails(&root(), truncate(file, MAX_FILE_SIZE + 1), FileTooLarge);
    assert_eq!(b.contents(file, MAX_FILE_SIZE - 2, 9), b"\0x");
}

#[test]
fn only_files_have_data() {
    let (mut b, _) = fresh();
    let dir = b.directory(&root(), ROOT, "d", 0o755);
    let link = b.get(&root(), symlink(ROOT, "l", "f")).inode;
    for (inode, error) in [(dir, IsDirectory), (link, Invalid)] {
        b.fails(&root(), write(inode, 0, b"x"), error);
        b.fails(&root(), FsOp::Read { inode, offset: 0, count: 1 }, error);
        b.fails(&root(), truncate(inode, 0), error);
    }
}

#[test]
fn times_move_with_data_and_stay_without() {
    let (mut b, file) = fresh();
    let made = b.attributes(file);
    assert_eq!(b.get(&root(), write(file, 0, b"")), made);
    b.contents(file, 0, 10);
    assert_eq!(b.attributes(file), made);
    let written = b.get(&root(), write(file, 0, b"x"));
    assert_eq!((written.modified, written.changed), (b.now(), b.now()));
    assert_eq!(written.accessed, made.accessed);
    let resized = b.get(&root(), truncate(file, 1));
    assert_eq!(resized.modified, b.now());
}

#[test]
fn scattered_writes_agree_with_a_plain_array() {
    let (mut b, file) = fresh();
    let mut plain = vec![];
    let mut rng = Lcg(3);
    for round in 0..400u64 {
        let (offset, len) = (rng.next(120_000) as usize, rng.next(9000) as usize + 1);
        if round % 7 == 6 {
            plain.resize(offset, 0);
            b.get(&root(), truncate(file, offset as u64));
        } else {
            let data = vec![(round % 255) as u8 + 1; len];
            plain.resize(plain.len().max(offset + len), 0);
            plain[offset..offset + len].copy_from_slice(&data);
            b.get(&root(), write(file, offset as u64, &data));
        }
        assert_eq!(b.contents(file, 0, MAX_IO), plain);
    }
}
