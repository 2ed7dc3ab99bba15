//! The bodies of the fuzz targets on seeded inputs: every run of the tests tries the same ones.

#[path = "common/hostile.rs"]
mod hostile;
#[path = "../../bft-core/tests/common/seeded.rs"]
mod seeded;

use bfs_fs::op::{
    AllocateMode, Caller, CreateMode, Export, FsOp, FsRequest, Inode, Keep, Limits, LockClass,
    LockKind, LockRequest, OnceKey, ROOT, RenameMode, SeekTarget, Subject, XattrMode,
    decode_result, encode_request,
};
use bfs_fs::{FileSystem, FileSystemConfig, State};
use bft_core::service::{Context, Service};
use bft_core::types::{ClientId, SequenceNumber, Time};

/// One request of each kind, in an order in which all succeed but for the last.
fn requests() -> Vec<Vec<u8>> {
    use FsOp::*;
    let [dir, file, other, top] = [2, 3, 4, 6].map(Inode);
    let lock = LockRequest {
        owner: 5,
        pid: 1,
        class: LockClass::Record,
        kind: LockKind::Exclusive,
        start: 3,
        end: 90,
    };
    let export = Export {
        subtree: top,
        read_only: false,
        root_squash: true,
        uids: vec![(1, 5), (9, 9)],
        gids: vec![(7, 7)],
    };
    let name = |name: &str| name.as_bytes().to_vec();
    let set =
        bfs_fs::op::SetAttributes { size: Some(70_000), mode: Some(0o600), ..Default::default() };
    let rename = |new_name, how| Rename {
        from: dir,
        name: name("f"),
        to: ROOT,
        new_name,
        how,
        keep: Keep::Whatever,
    };
    let create = Create { parent: ROOT, name: name("w"), mode: 0o644, how: CreateMode::Unchecked };
    let watched = bfs_fs::op::Watched {
        watch: vec![ROOT, file],
        then: Some(bfs_fs::op::SetAttributes { size: Some(9), ..Default::default() }),
        once: Some(OnceKey([1; 16])),
        ..bfs_fs::op::Watched::new(create)
    };
    let all = [
        MakeDirectory { parent: ROOT, name: name("d"), mode: 0o755 },
        Create { parent: dir, name: name("f"), mode: 0o644, how: CreateMode::Guarded },
        Write { inode: file, offset: 4_090, data: vec![7; 300].into() },
        Create { parent: ROOT, name: name("g"), mode: 0o644, how: CreateMode::Exclusive(9) },
        Link { inode: file, parent: ROOT, name: name("h") },
        Symlink { parent: dir, name: name("s"), target: name("../g") },
        FsOp::SetAttributes { inode: file, set },
        Write { inode: other, offset: 1 << 20, data: vec![1; 40].into() },
        Read { inode: file, offset: 4_000, count: 9_000 },
        ReadDirectory { inode: ROOT, cookie: 0, budget: 4_096 },
        ReadDirectory { inode: dir, cookie: 2, budget: 300 },
        Lookup { parent: dir, name: name("f") },
        Access { inode: file, mask: 4 },
        Null { argument: vec![0; 10], result: 20 },
        rename(name("g"), RenameMode::Exchange),
        rename(name("new"), RenameMode::NoReplace),
        Rename {
            from: ROOT,
            name: name("d"),
            to: ROOT,
            new_name: name("e"),
            how: RenameMode::Replace,
            keep: Keep::These(vec![dir]),
        },
        Sync { inode: file },
        StatFs,
        Hold { inodes: vec![file, dir] },
        Lock { inode: file, request: lock, wait: true },
        TestLock { inode: file, request: lock },
        Unlock { inode: file, request: lock },
        Allocate { inode: file, offset: 4_000, length: 9_000, how: AllocateMode::Punch },
        Seek { inode: file, offset: 0, target: SeekTarget::Hole },
        CopyRange { from: file, from_offset: 0, to: other, to_offset: 7, length: 5_000 },
        SetXattr { inode: file, name: name("user.a"), value: b"v"[..].into(), how: XattrMode::Set },
        ListXattrs { inode: file },
        RemoveXattr { inode: file, name: name("user.a") },
        MakeDirectory { parent: ROOT, name: name("top"), mode: 0o777 },
        MakeSubtree { inode: top },
        SetExport { client: 1, export: Some(export) },
        SetLimits {
            subject: Subject::Subtree(top),
            limits: Limits { bytes: Some(9), inodes: None },
        },
        GetAccount { subject: Subject::User(0) },
        GetExport { client: 1 },
        LetGo { inodes: vec![dir] },
        Permissions { inode: file },
        AgreeOnKey { offer: [7; 32] },
        Watched(Box::new(watched)),
        Renew { life: 3 },
        EndLease,
        Unlink { parent: ROOT, name: name("h"), keep: Keep::Whatever },
        RemoveDirectory { parent: ROOT, name: name("e"), keep: Keep::Whatever },
    ];
    let caller = Caller { uid: 0, gid: 0, groups: vec![1, 2] };
    let all = all.into_iter().map(|op| FsRequest { caller: caller.clone(), op });
    all.map(|request| encode_request(&request).to_vec()).collect()
}

#[test]
fn whatever_decodes_is_canonical() {
    let requests = requests();
    let service = FileSystem::new(FileSystemConfig::default());
    let mut state = State::default();
    service.genesis(&mut state);
    let ctx = Context { client: ClientId(0), time: Time(1), n: SequenceNumber(2) };
    let execute = |op: &Vec<u8>| service.execute(&ctx, &mut state, &op.clone().into()).to_vec();
    let results: Vec<_> = requests.iter().map(execute).collect();
    let succeed = results.iter().map(|result| decode_result(result).is_some_and(|r| r.is_ok()));
    assert_eq!(succeed.filter(|succeeds| *succeeds).count(), requests.len() - 1);
    seeded::run(100_000, 512, &requests, hostile::request);
    seeded::run(100_000, 512, &results, hostile::result);
    seeded::run(100_000, 512, &[], hostile::object);
}

#[test]
fn hostile_operations_leave_the_tree_sound() {
    // All of them, then those from any one on again, so that changes meet a tree that is there.
    let framed = |op: &Vec<u8>| [&(op.len() as u16).to_le_bytes()[..], op].concat();
    let all: Vec<_> = requests().iter().map(framed).collect();
    let twice = (0..all.len()).map(|from| [all.concat(), all[from..].concat()].concat());
    seeded::run(30_000, 512, &twice.collect::<Vec<_>>(), hostile::operations);
}
