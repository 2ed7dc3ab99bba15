//! What files and accounts take of a replica's memory. Alone in its process, so that nobody else's memory is counted.

use bfs_fs::op::{
    Caller, CreateMode, FsOp, FsReply, FsRequest, FsResult, Limits, ROOT, StatFs, Subject,
};
use bfs_fs::{FileSystem, FileSystemConfig, State, cost};
use bft_core::objects::at_batch;
use bft_core::service::{Context, Service};
use bft_core::types::{ClientId, SequenceNumber, Time};

/// Enough that what the process has besides does not count.
const COUNT: u64 = 400_000;
/// The most that an empty file may take. Units: bytes.
const FILE_LIMIT: u64 = 1024;

/// What this process has resident. Units: bytes. [proc_pid_statm(5)]
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

fn apply(fs: &FileSystem, state: &mut State, i: u64, op: FsOp) -> FsResult {
    // As many a batch as a busy group orders at once.
    let n = SequenceNumber(1 + i / 16);
    at_batch(state, n);
    let ctx = Context { client: ClientId(0), time: Time(i), n };
    let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
    fs.apply(&ctx, state, &FsRequest { caller, op })
}

/// What each of [`COUNT`] operations leaves in memory, units: bytes; what `df` says; and the state, which is still there.
fn each_takes(op: impl Fn(u64) -> FsOp) -> Option<(u64, StatFs, State)> {
    let before = resident()?;
    let fs = FileSystem::new(FileSystemConfig::default());
    let mut state = State::default();
    fs.genesis(&mut state);
    for i in 0..COUNT {
        let result = apply(&fs, &mut state, i, op(i));
        assert!(result.is_ok(), "{result:?}");
    }
    // With its place in the tree of digests.
    state.digest();
    let after = resident()?;
    match apply(&fs, &mut state, COUNT, FsOp::StatFs) {
        Ok(FsReply::StatFs(said)) => Some(((after - before) / COUNT, said, state)),
        other => panic!("{other:?}"),
    }
}

fn create(i: u64) -> FsOp {
    let name = format!("an ordinary na {i:06}").into_bytes();
    FsOp::Create { parent: ROOT, name, mode: 0o644, how: CreateMode::Guarded }
}

fn limit(i: u64) -> FsOp {
    let limits = Limits { bytes: Some(i), inodes: None };
    FsOp::SetLimits { subject: Subject::User(1 + i as u32), limits }
}

/// What one of each is charged. Units: bytes.
fn charged(said: StatFs) -> u64 {
    let taken = said.blocks.saturating_sub(said.free_blocks) * u64::from(said.block_size);
    taken / COUNT
}

// One test, because what others do at the same time would be counted.
#[test]
fn files_and_accounts_take_no_more_than_they_are_charged() {
    // Memory that is given back stays with the process, and would not be seen when it is taken again.
    let mut states = Vec::new();
    for (what, limit, op) in [
        ("accounts", cost::ACCOUNT_COST, limit as fn(u64) -> FsOp),
        ("empty files", FILE_LIMIT, create),
    ] {
        let Some((each, said, state)) = each_takes(op) else {
            return println!("skipped: no /proc here");
        };
        states.push(state);
        println!("{each} bytes for each of {COUNT} {what}, charged {}", charged(said));
        assert!((100..=limit).contains(&each), "{each} bytes for each of {COUNT} {what}");
        assert!((each..=limit).contains(&charged(said)), "{} for {each}", charged(said));
    }
}
