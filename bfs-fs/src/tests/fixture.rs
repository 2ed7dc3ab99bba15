//! A file system under test, and short ways to ask for things.

use crate::op::*;
use crate::{FileSystem, FileSystemConfig, State, cost, fsck};
use alloc::borrow::ToOwned;
use alloc::vec::Vec;
use bft_core::objects::at_batch;
use bft_core::service::{Context, NotReadOnly, Service};
use bft_core::types::{ClientId, Digest, SequenceNumber, Time};

/// A small generator: the tests need variety, not chance.
pub struct Lcg(pub u64);

impl Lcg {
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.next(from.len() as u64) as usize]
    }
}

pub fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
    Caller { uid, gid, groups: groups.to_owned() }
}

pub fn root() -> Caller {
    caller(0, 0, &[])
}

/// Alone in the group of the same number.
pub fn user(uid: u32) -> Caller {
    caller(uid, uid, &[])
}

/// What the root directory takes, and the accounts of its owner and of what is in no subtree. Units: bytes.
pub const EMPTY: u64 = cost::INODE_COST + 2 * cost::ACCOUNT_COST;

/// A file system whose every step is checked.
pub struct Bench {
    pub fs: FileSystem,
    pub state: State,
    pub n: u64,
    /// Whether fsck runs after every operation, and digests show whether it has changed anything.
    pub check: bool,
    /// Who asks.
    pub client: u32,
    /// How far agreed time is ahead of what the number of batches says. Units: nanoseconds.
    pub ahead: u64,
    digest: Digest,
}

impl Bench {
    /// Anybody may write to the root directory, and root is root at every client.
    pub fn new() -> Self {
        let config = FileSystemConfig::default();
        Self::with(FileSystemConfig { root_mode: 0o777, root_squash: false, ..config })
    }

    pub fn with(config: FileSystemConfig) -> Self {
        let fs = FileSystem::new(config);
        let mut state = State::default();
        fs.genesis(&mut state);
        let digest = state.digest();
        Self { fs, state, n: 0, check: true, client: 0, ahead: 0, digest }
    }

    pub fn context(&self) -> Context {
        Context {
            client: ClientId(self.client),
            time: Time(self.now_ns()),
            n: SequenceNumber(self.n),
        }
    }

    fn now_ns(&self) -> u64 {
        self.n * 1_500_000_000 + self.ahead
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanoseconds(self.now_ns())
    }

    /// Runs `op` in a batch of its own and checks what must hold of any operation.
    pub fn run(&mut self, caller: &Caller, op: FsOp) -> FsResult {
        self.n += 1;
        at_batch(&mut self.state, SequenceNumber(self.n));
        let read_only = op.is_read_only();
        let once = matches!(&op, FsOp::Watched(watched) if watched.once.is_some());
        let bytes = encode_request(&FsRequest { caller: caller.clone(), op });
        let ctx = self.context();
        if !self.check {
            let answer = self.fs.execute(&ctx, &mut self.state, &bytes);
            return decode_result(&answer).expect("a result is canonical");
        }
        // A test may have changed the state by hand.
        self.digest = self.state.digest();
        let owed = crate::state::totals(&self.state).dues > 0;
        let asked = self.fs.query(&ctx, &self.state, &bytes);
        let answer = self.fs.execute(&ctx, &mut self.state, &bytes);
        let result = decode_result(&answer).expect("a result is canonical");
        let digest = self.state.digest();
        if read_only {
            assert_eq!(asked, Ok(answer), "a query answers as execution does");
        } else if caller.groups.len() <= MAX_GROUPS {
            assert_eq!(asked, Err(NotReadOnly));
        }
        if read_only || (failed(&result) && !owed && !once) {
            assert_eq!(digest, self.digest, "changed the state: {result:?}");
        }
        self.digest = digest;
        if let Err(faults) = fsck::check(&self.state) {
            panic!("after operation {}: {faults:#?}", self.n);
        }
        result
    }

    /// The attributes that `op` answers.
    #[track_caller]
    pub fn get(&mut self, caller: &Caller, op: FsOp) -> Attributes {
        match self.run(caller, op) {
            Ok(FsReply::Attributes(attributes) | FsReply::Written { attributes, .. }) => attributes,
            other => panic!("{other:?}"),
        }
    }

    /// Asserts that `op` answers `Done`.
    #[track_caller]
    pub fn done(&mut self, caller: &Caller, op: FsOp) {
        assert_eq!(self.run(caller, op), Ok(FsReply::Done));
    }

    /// Asserts that `op` answers `error`.
    #[track_caller]
    pub fn fails(&mut self, caller: &Caller, op: FsOp, error: FsError) {
        assert_eq!(self.run(caller, op), Err(error));
    }

    #[track_caller]
    pub fn file(&mut self, caller: &Caller, parent: Inode, name: &str, mode: u16) -> Inode {
        self.get(caller, create(parent, name, mode)).inode
    }

    #[track_caller]
    pub fn directory(&mut self, caller: &Caller, parent: Inode, name: &str, mode: u16) -> Inode {
        self.get(caller, mkdir(parent, name, mode)).inode
    }

    #[track_caller]
    pub fn attributes(&mut self, inode: Inode) -> Attributes {
        self.get(&root(), FsOp::GetAttributes { inode })
    }

    #[track_caller]
    pub fn contents(&mut self, inode: Inode, offset: u64, count: u32) -> Vec<u8> {
        match self.run(&root(), FsOp::Read { inode, offset, count }) {
            Ok(FsReply::Data { data, .. }) => data.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    pub fn used(&self) -> u64 {
        crate::state::totals(&self.state).bytes
    }
}

/// Whether nothing was done, because it could not be.
fn failed(result: &FsResult) -> bool {
    match result {
        Ok(FsReply::Watched(report)) => report.result.is_err(),
        result => result.is_err(),
    }
}

pub fn lookup(parent: Inode, name: &str) -> FsOp {
    FsOp::Lookup { parent, name: name.into() }
}

pub fn create(parent: Inode, name: &str, mode: u16) -> FsOp {
    FsOp::Create { parent, name: name.into(), mode, how: CreateMode::Guarded }
}

pub fn mkdir(parent: Inode, name: &str, mode: u16) -> FsOp {
    FsOp::MakeDirectory { parent, name: name.into(), mode }
}

pub fn symlink(parent: Inode, name: &str, target: &str) -> FsOp {
    FsOp::Symlink { parent, name: name.into(), target: target.into() }
}

pub fn link(inode: Inode, parent: Inode, name: &str) -> FsOp {
    FsOp::Link { inode, parent, name: name.into() }
}

pub fn unlink(parent: Inode, name: &str) -> FsOp {
    FsOp::Unlink { parent, name: name.into(), keep: nothing() }
}

/// The sender has nothing open.
pub fn nothing() -> Keep {
    Keep::These(Vec::new())
}

pub fn rmdir(parent: Inode, name: &str) -> FsOp {
    FsOp::RemoveDirectory { parent, name: name.into(), keep: nothing() }
}

pub fn rename(from: Inode, name: &str, to: Inode, new_name: &str, how: RenameMode) -> FsOp {
    FsOp::Rename { from, name: name.into(), to, new_name: new_name.into(), how, keep: nothing() }
}

pub fn write(inode: Inode, offset: u64, data: &[u8]) -> FsOp {
    FsOp::Write { inode, offset, data: bytes::Bytes::copy_from_slice(data) }
}

pub fn set(inode: Inode, set: SetAttributes) -> FsOp {
    FsOp::SetAttributes { inode, set }
}

pub fn chmod(inode: Inode, mode: u16) -> FsOp {
    set(inode, SetAttributes { mode: Some(mode), ..Default::default() })
}

pub fn chown(inode: Inode, uid: Option<u32>, gid: Option<u32>) -> FsOp {
    set(inode, SetAttributes { uid, gid, ..Default::default() })
}

pub fn truncate(inode: Inode, size: u64) -> FsOp {
    set(inode, SetAttributes { size: Some(size), ..Default::default() })
}
