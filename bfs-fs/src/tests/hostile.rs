//! Whatever bytes arrive: an answer, the same from every replica, and a sound file system.

use super::fixture::*;
use super::model::{Model, Moment};
use super::random::Maker;
use crate::fsck;
use crate::op::*;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bft_core::objects::at_batch;
use bft_core::service::Service;
use bft_core::types::SequenceNumber;
use bytes::Bytes;
use proptest::prelude::*;

impl Bench {
    /// Executes bytes as they are.
    fn raw(&mut self, op: &[u8]) -> FsResult {
        self.n += 1;
        at_batch(&mut self.state, SequenceNumber(self.n));
        let ctx = self.context();
        let asked = self.fs.query(&ctx, &self.state, op);
        let answer = self.fs.execute(&ctx, &mut self.state, &Bytes::copy_from_slice(op));
        if let Ok(asked) = asked {
            assert_eq!(asked, answer);
        }
        decode_result(&answer).expect("a result is canonical")
    }
}

#[test]
fn bytes_that_are_no_request_are_invalid() {
    let mut b = Bench::new();
    let good = encode_request(&FsRequest { caller: root(), op: mkdir(ROOT, "d", 0o755) });
    let before = b.state.digest();
    assert_eq!(b.raw(b""), Err(FsError::Invalid));
    assert_eq!(b.raw(&[0xff; 64]), Err(FsError::Invalid));
    let mut longer = good.to_vec();
    longer.push(0);
    assert_eq!(b.raw(&longer), Err(FsError::Invalid));
    for end in 0..good.len() {
        assert_eq!(b.raw(&good[..end]), Err(FsError::Invalid));
    }
    // A length that the bytes do not hold must not be believed.
    let mut groups = good.to_vec();
    groups[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(b.raw(&groups), Err(FsError::Invalid));
    assert_eq!(b.state.digest(), before);
    assert!(b.raw(&good).is_ok());
}

#[test]
fn mutated_requests_leave_a_sound_file_system() {
    let mut b = Bench::new();
    let mut model = Model::new(0o777);
    let mut maker = Maker { rng: Lcg(11), crowd: 40 };
    let mut decoded = 0;
    for round in 0..60_000u64 {
        let (caller, op) = maker.request(&model);
        let mut bytes =
            encode_request(&FsRequest { caller: caller.clone(), op: op.clone() }).to_vec();
        let mutations = maker.rng.next(4);
        for _ in 0..mutations {
            let at = maker.rng.next(bytes.len() as u64) as usize;
            match maker.rng.next(4) {
                0 => bytes[at] = 0xff,
                1 => bytes[at] ^= 1 << maker.rng.next(8),
                2 => bytes[at] = bytes[at].wrapping_add(1),
                _ => bytes.truncate(at.max(1)),
            }
        }
        decoded += u64::from(decode_request(&bytes).is_some());
        // The model only sees what was sent whole: enough for the maker to go on naming what exists.
        if b.raw(&bytes).is_ok() && mutations == 0 {
            let _ = model.run(&Moment { who: &caller, now: b.now(), n: b.n }, &op);
        }
        if round % 16 == 0 {
            assert_eq!(fsck::check(&b.state), Ok(()));
        }
    }
    assert!(decoded > 20_000, "only {decoded} mutants were requests");
}

/// Numbers at which things overflow.
fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..4u64,
        Just(u64::MAX),
        Just(i64::MAX as u64),
        Just(1 << 56),
        Just((1 << 56) + 1),
        Just(crate::MAX_FILE_SIZE),
        Just(u64::from(u32::MAX)),
        any::<u64>(),
    ]
}

fn edge_lock(start: u64, end: u64, bits: u16) -> LockRequest {
    let class = if bits & 1 == 0 { LockClass::Record } else { LockClass::Flock };
    let kind = if bits & 2 == 0 { LockKind::Exclusive } else { LockKind::Shared };
    LockRequest { owner: u64::from(bits >> 14), pid: 1, class, kind, start, end }
}

fn edge_op() -> impl Strategy<Value = FsOp> {
    let name = prop_oneof![
        Just(b"a".to_vec()),
        Just(b"..".to_vec()),
        prop::collection::vec(any::<u8>(), 0..300)
    ];
    let numbers = (edge(), edge(), edge(), any::<u16>(), name, 0..36u8);
    numbers.prop_map(|(a, offset, count, mode, name, which)| {
        let (inode, parent) = (Inode(a), Inode(a));
        let small = count as u32;
        let time = Some(SetTime::At(Timestamp { seconds: offset as i64, nanoseconds: small }));
        match which {
            0 => FsOp::Null { argument: name, result: small },
            1 => FsOp::Lookup { parent, name },
            2 => set(inode, SetAttributes { size: Some(offset), ..Default::default() }),
            3 => set(inode, SetAttributes { accessed: time, modified: time, ..Default::default() }),
            4 => FsOp::Create { parent, name, mode, how: CreateMode::Unchecked },
            5 => FsOp::MakeDirectory { parent, name, mode },
            6 => FsOp::MakeNode { parent, name, kind: Kind::CharDevice, mode, device: small },
            7 => FsOp::Symlink { parent, name: b"s".to_vec(), target: name },
            8 => FsOp::Read { inode, offset, count: small },
            9 => FsOp::Write { inode, offset, data: name.into() },
            10 => FsOp::ReadDirectory { inode, cookie: offset, budget: small },
            11 => FsOp::Access { inode, mask: mode as u8 },
            12 => FsOp::Rename {
                from: parent,
                name,
                to: Inode(offset),
                new_name: b"r".to_vec(),
                how: RenameMode::Replace,
                keep: Keep::These(alloc::vec![Inode(count)]),
            },
            13 => FsOp::Link { inode, parent: Inode(offset), name },
            14 => FsOp::Seek { inode, offset, target: SeekTarget::Hole },
            15 => FsOp::Seek { inode, offset, target: SeekTarget::Data },
            16 => FsOp::Allocate { inode, offset, length: count, how: AllocateMode::Punch },
            17 => {
                let how = AllocateMode::Zero { keep_size: mode & 1 == 0 };
                FsOp::Allocate { inode, offset, length: count, how }
            }
            18 => FsOp::SetXattr { inode, name, value: b"v".to_vec().into(), how: XattrMode::Set },
            19 => FsOp::Hold { inodes: alloc::vec![Inode(offset), inode, Inode(count)] },
            20 => FsOp::LetGo { inodes: alloc::vec![Inode(offset), inode, Inode(count)] },
            21 => FsOp::Unlink { parent, name, keep: Keep::Whatever },
            23 => {
                FsOp::Lock { inode, request: edge_lock(offset, count, mode), wait: mode & 4 == 0 }
            }
            24 => FsOp::Unlock { inode, request: edge_lock(offset, count, mode) },
            25 => FsOp::CancelLock { inode, request: edge_lock(offset, count, mode) },
            26 => FsOp::TestLock { inode, request: edge_lock(offset, count, mode) },
            27 => FsOp::SetExport {
                client: mode.into(),
                export: Some(Export {
                    subtree: inode,
                    read_only: mode & 1 == 0,
                    root_squash: mode & 2 == 0,
                    uids: alloc::vec![(small, mode.into())],
                    gids: alloc::vec![(mode.into(), small)],
                }),
            },
            28 => FsOp::MakeSubtree { inode },
            29 => {
                let limits = Limits { bytes: Some(offset), inodes: Some(count) };
                FsOp::SetLimits { subject: Subject::Subtree(inode), limits }
            }
            30 => FsOp::GetAccount { subject: Subject::Subtree(inode) },
            31 => FsOp::GetExport { client: small },
            33 => FsOp::Permissions { inode },
            34 | 35 => {
                let how = CreateMode::Unchecked;
                let op = FsOp::Create { parent: ROOT, name: b"w".to_vec(), mode, how };
                let set = SetAttributes { size: Some(count), accessed: time, ..Default::default() };
                let key = OnceKey([mode as u8; 16]);
                FsOp::Watched(Box::new(Watched {
                    watch: alloc::vec![inode, Inode(offset)],
                    then: Some(set),
                    once: (which == 34).then_some(key),
                    ..Watched::new(op)
                }))
            }
            22 => FsOp::Renew { life: offset },
            _ => FsOp::CopyRange {
                from: inode,
                from_offset: offset,
                to: Inode(u64::from(mode)),
                to_offset: count,
                length: offset,
            },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn garbage_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut b = Bench::new();
        let _ = b.raw(&bytes);
        prop_assert_eq!(fsck::check(&b.state), Ok(()));
    }

    #[test]
    fn numbers_at_the_edge_are_answered(ops in prop::collection::vec(edge_op(), 1..60), uid in 0..2u32) {
        let mut b = Bench::new();
        b.file(&root(), ROOT, "a", 0o666);
        b.directory(&root(), ROOT, "b", 0o777);
        let results: Vec<_> = ops.into_iter().map(|op| b.run(&user(uid), op)).collect();
        prop_assert!(!results.contains(&Err(FsError::Io)));
    }
}
