//! What an empty file takes of a replica's memory. Alone in its process, so that nobody else's memory is counted.

use bfs_fs::op::{Caller, CreateMode, FsOp, FsReply, FsRequest, ROOT};
use bfs_fs::{FileSystem, FileSystemConfig, State};
use bft_core::objects::at_batch;
use bft_core::service::{Context, Service};
use bft_core::types::{ClientId, SequenceNumber, Time};

/// Enough that what the process has besides does not count.
const FILES: u64 = 400_000;
/// Units: bytes.
const LIMIT: u64 = 1024;

/// What this process has resident. Units: bytes. [proc_pid_statm(5)]
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[test]
fn an_empty_file_takes_at_most_a_kib() {
    let Some(before) = resident() else { return println!("skipped: no /proc here") };
    let fs = FileSystem::new(FileSystemConfig::default());
    let mut state = State::default();
    fs.genesis(&mut state);
    let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
    for i in 0..FILES {
        // As many a batch as a busy group orders at once.
        let n = SequenceNumber(1 + i / 16);
        at_batch(&mut state, n);
        let ctx = Context { client: ClientId(0), time: Time(i), n };
        let name = format!("an ordinary na {i:06}").into_bytes();
        let op = FsOp::Create { parent: ROOT, name, mode: 0o644, how: CreateMode::Guarded };
        let result = fs.apply(&ctx, &mut state, &FsRequest { caller: caller.clone(), op });
        assert!(matches!(result, Ok(FsReply::Attributes(_))), "{result:?}");
    }
    // With its place in the tree of digests.
    state.digest();
    let each = (resident().unwrap_or_default() - before) / FILES;
    println!("{each} bytes for each of {FILES} empty files");
    assert!((200..=LIMIT).contains(&each), "{each} bytes");
}
