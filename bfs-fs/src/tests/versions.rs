//! What a read's version promises: wherever it is the same, so is the answer. (decision 2)

use super::fixture::*;
use super::model::{Model, Moment};
use super::random::Maker;
use crate::State;
use crate::op::*;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use bft_core::service::{Context, Service};
use bft_core::types::{ClientId, SequenceNumber, Time};
use bytes::Bytes;

/// How far a replica may be behind another.
const BEHIND: usize = 24;

/// Answers of replicas that have come to different places agree wherever they have the same version.
#[track_caller]
fn compare(b: &Bench, states: &VecDeque<(u64, State)>, request: &FsRequest) {
    let op = encode_request(request);
    let mut answers: Vec<(SequenceNumber, u64, Bytes)> = Vec::new();
    for (n, state) in states {
        let executed = SequenceNumber(*n);
        let ctx = Context { client: ClientId(b.client), time: Time(0), n: executed };
        let query = |state: &State| b.fs.query(&ctx, state, &op).unwrap();
        let (answer, version) = state.versioned(executed, query);
        assert!(version <= executed);
        match answers.iter().find(|(known, ..)| *known == version) {
            Some((_, before, known)) => assert_eq!(
                decode_result(known),
                decode_result(&answer),
                "{request:?} of client {} after {before} and after {n}, both of version {}",
                b.client,
                version.0
            ),
            None => answers.push((version, *n, answer)),
        }
    }
}

/// What the administrator says of clients and users, and what they ask about it.
fn of_rights(maker: &mut Maker, model: &Model) -> FsOp {
    let (client, inode) = (1 + maker.rng.next(3) as u32, maker.inode(model));
    let (subtree, subject) = match maker.rng.next(3) {
        0 => (inode, Subject::Subtree(inode)),
        _ => (ROOT, Subject::User(maker.rng.next(4) as u32)),
    };
    let uids = vec![(1, 2), (900, 999)];
    let export = Export { subtree, read_only: false, root_squash: true, uids, gids: Vec::new() };
    match maker.rng.next(9) {
        0 => FsOp::SetExport { client, export: Some(export) },
        1 => FsOp::SetExport { client, export: None },
        2 => FsOp::SetLimits { subject, limits: Limits { inodes: Some(1), bytes: None } },
        3 => FsOp::SetLimits { subject, limits: Limits::default() },
        4 => FsOp::GetExport { client },
        5 => FsOp::GetAccount { subject },
        6 | 7 => FsOp::MakeSubtree { inode },
        _ => FsOp::StatFs,
    }
}

/// A lock that is taken, given up or asked about. Who waits in vain may ask what has become of it.
fn of_locks(maker: &mut Maker, model: &Model) -> FsOp {
    let (inode, start) = (maker.inode(model), maker.rng.next(4));
    let class = *maker.rng.pick(&[LockClass::Record, LockClass::Flock]);
    let kind = *maker.rng.pick(&[LockKind::Exclusive, LockKind::Shared]);
    let (owner, end) = (maker.rng.next(3), start + maker.rng.next(3));
    let request = LockRequest { owner, pid: 1, class, kind, start, end };
    match maker.rng.next(6) {
        0 | 1 => FsOp::Lock { inode, request, wait: start % 2 == 0 },
        2 => FsOp::Unlock { inode, request },
        3 => FsOp::CancelLock { inode, request },
        4 => FsOp::TestLock { inode, request },
        _ => FsOp::LockStatus { inode, request },
    }
}

#[test]
fn answers_of_the_same_version_are_the_same() {
    let mut b = Bench::new();
    b.check = false;
    let mut model = Model::new(0o777);
    let mut maker = Maker { rng: Lcg(6), crowd: 12 };
    let mut states = VecDeque::from([(0, b.state.clone())]);
    let mut compared = 0;
    for _ in 0..200_000 {
        b.client = maker.rng.next(4) as u32;
        let (caller, op) = match maker.rng.next(8) {
            0 | 1 => (root(), of_rights(&mut maker, &model)),
            2 => (root(), of_locks(&mut maker, &model)),
            _ => maker.request(&model),
        };
        let request = FsRequest { caller, op };
        if request.op.is_read_only() {
            compare(&b, &states, &request);
            let watch = vec![maker.inode(&model), maker.inode(&model)];
            let watched = Watched { watch, ..Watched::new(request.op) };
            let op = FsOp::Watched(Box::new(watched));
            compare(&b, &states, &FsRequest { caller: request.caller, op });
            compared += 1;
            continue;
        }
        if matches!(
            request.op,
            FsOp::SetExport { .. } | FsOp::SetLimits { .. } | FsOp::MakeSubtree { .. }
        ) {
            b.client = ADMINISTRATOR;
        }
        if b.run(&request.caller, request.op.clone()).is_ok() {
            let moment = Moment { who: &request.caller, now: b.now(), n: b.n };
            // It knows nothing of exports: enough for the maker to go on naming what exists.
            let _ = model.run(&moment, &request.op);
        }
        states.push_back((b.n, b.state.clone()));
        if states.len() > BEHIND {
            states.pop_front();
        }
    }
    assert!(compared > 20_000, "only {compared} requests were reads");
}

#[test]
fn so_they_are_where_the_root_of_an_export_has_gone() {
    let mut b = Bench::new();
    let top = b.directory(&root(), ROOT, "top", 0o755);
    b.get(&root(), FsOp::MakeSubtree { inode: top });
    let export = Export {
        subtree: top,
        read_only: false,
        root_squash: true,
        uids: vec![],
        gids: Vec::new(),
    };
    b.done(&root(), FsOp::SetExport { client: 1, export: Some(export) });
    let mut states = VecDeque::from([(b.n, b.state.clone())]);
    b.done(&root(), rmdir(ROOT, "top"));
    states.push_back((b.n, b.state.clone()));
    b.client = 1;
    for inode in [ROOT, top] {
        let op = FsOp::GetAttributes { inode };
        compare(&b, &states, &FsRequest { caller: root(), op });
    }
}
