//! Where the front ends send their operations.

use bfs_fs::object::Object;
use bfs_fs::op::{FsError, FsRequest, FsResult, decode_result, encode_request};
use bfs_fs::{FileSystem, FileSystemConfig};
use bft_core::objects::{Objects, at_batch};
use bft_core::service::{Context, Service};
use bft_core::types::{ClientId, SequenceNumber, Time};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the front ends send their operations: a session with a group, or a state machine in this process.
pub trait Backend: Send + Sync + 'static {
    /// Hands `request` over and returns at once; `done` runs exactly once, on any thread, possibly before this returns.
    fn call(&self, request: FsRequest, done: Box<dyn FnOnce(FsResult) + Send>);
    /// Answers everything that waits, and everything to come, with EIO (for `umount --force` and shutdown).
    fn fail_all(&self);
    /// How many replies of each replica a quorum has refuted, by replica.
    fn outvoted(&self) -> Vec<Outvoted> {
        Vec::new()
    }
}

/// How many replies of one replica a quorum has refuted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outvoted {
    /// Since the session began.
    pub total: u64,
    /// Those of them since the replica last connected: it may have been set up anew then.
    pub lately: u64,
}

/// The state machine in this process, without replicas: for development and for tests of the front ends. What it holds
/// is gone when the process ends.
///
/// Operations take the way that they take in a replica, encoded and decoded, through the same service.
pub struct Local {
    service: FileSystem,
    state: Mutex<State>,
}

struct State {
    objects: Objects<Object>,
    n: SequenceNumber,
    time: Time,
    failed: bool,
}

impl Default for Local {
    fn default() -> Self {
        Self::new(FileSystemConfig { root_mode: 0o1777, ..FileSystemConfig::default() })
    }
}

impl Local {
    /// An empty file system with this configuration.
    pub fn new(config: FileSystemConfig) -> Self {
        let service = FileSystem::new(config);
        let mut objects = Objects::default();
        service.genesis(&mut objects);
        let state = State { objects, n: SequenceNumber(0), time: Time(0), failed: false };
        Self { service, state: Mutex::new(state) }
    }

    fn perform(&self, request: &FsRequest) -> FsResult {
        // A panic inside an operation would have left the state half changed: the poison stays an error.
        let Ok(mut state) = self.state.lock() else { return Err(FsError::Io) };
        if state.failed {
            return Err(FsError::Io);
        }
        let op = encode_request(request);
        let result = match request.op.is_read_only() {
            true => {
                let ctx = context(state.n, state.time);
                self.service.query(&ctx, &state.objects, &op).map_err(|_| FsError::Invalid)?
            }
            false => {
                state.n = state.n.next();
                state.time = state.time.advanced_to(wall_clock());
                let ctx = context(state.n, state.time);
                let n = state.n;
                self.service.execute(&ctx, at_batch(&mut state.objects, n), &op)
            }
        };
        decode_result(&result).unwrap_or(Err(FsError::Io))
    }
}

fn context(n: SequenceNumber, time: Time) -> Context {
    Context { client: ClientId(0), time, n }
}

fn wall_clock() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

impl Backend for Local {
    fn call(&self, request: FsRequest, done: Box<dyn FnOnce(FsResult) + Send>) {
        done(self.perform(&request));
    }

    fn fail_all(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bfs_fs::op::{Caller, CreateMode, FsOp, FsReply, ROOT};
    use std::sync::mpsc;

    fn ask(backend: &dyn Backend, op: FsOp) -> FsResult {
        let (sender, receiver) = mpsc::channel();
        let caller = Caller { uid: 0, gid: 0, groups: vec![] };
        backend
            .call(FsRequest { caller, op }, Box::new(move |result| sender.send(result).unwrap()));
        receiver.recv().unwrap()
    }

    #[test]
    fn operations_change_what_later_ones_see() {
        let local = Local::default();
        let name = b"a".to_vec();
        let lookup = || FsOp::Lookup { parent: ROOT, name: b"a".to_vec() };
        assert_eq!(ask(&local, lookup()), Err(FsError::NotFound));
        let create = FsOp::Create { parent: ROOT, name, mode: 0o644, how: CreateMode::Guarded };
        let created = ask(&local, create).unwrap();
        assert!(
            matches!(created, FsReply::Attributes(a) if a.mode == 0o644 && a.modified.seconds > 0)
        );
        assert_eq!(ask(&local, lookup()), Ok(created));
    }

    #[test]
    fn after_fail_all_everything_is_an_io_error() {
        let local = Local::default();
        assert!(ask(&local, FsOp::StatFs).is_ok());
        local.fail_all();
        assert_eq!(ask(&local, FsOp::StatFs), Err(FsError::Io));
        assert_eq!(ask(&local, FsOp::Sync { inode: ROOT }), Err(FsError::Io));
    }
}
