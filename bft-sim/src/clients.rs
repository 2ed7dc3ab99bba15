//! Clients that work on the file system at random, a few operations at a time, on the same few files.

use bfs_fs::op::{
    Caller, CreateMode, FsOp, FsReply, FsRequest, Inode, Keep, OnceKey, Plain, ROOT, RenameMode,
    SetAttributes, Watched, decode_result, encode_request,
};
use bytes::Bytes;
use fastrand::Rng;
use std::collections::{BTreeMap, VecDeque};

/// An operation that a client has asked for and not been answered.
pub struct Invocation {
    /// The encoded request. Every one is different: the caller's groups hold its token.
    pub op: Bytes,
    /// Whether it may be answered without an order.
    pub read_only: bool,
    /// When it was asked, in events since the world began.
    pub asked: u64,
}

/// What one client has under way and what it has learnt.
pub struct Workload {
    /// How many operations it keeps under way.
    pub width: usize,
    /// How many it has yet to ask for.
    pub remaining: u64,
    /// Whether all its operations are alike and small, so that throughput can be compared.
    pub steady: bool,
    /// Whether it asks as a proxy of NFS does, and for some things again.
    pub proxy: bool,
    /// What a proxy asked for last and may ask for again.
    sent: VecDeque<FsOp>,
    pending: BTreeMap<u64, Invocation>,
    known: Vec<Inode>,
    next_token: u64,
}

/// Some of them are forgotten by the time that they are asked for again.
const MOST_SENT: usize = 24;
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

impl Workload {
    /// A client that will ask for `operations`, at most `width` at a time.
    pub fn new(width: usize, operations: u64) -> Self {
        let known = vec![ROOT];
        let pending = BTreeMap::new();
        Self {
            width,
            remaining: operations,
            steady: false,
            proxy: false,
            sent: VecDeque::new(),
            pending,
            known,
            next_token: 1,
        }
    }

    /// The group is healed: `more` operations, or no more where there was no end of them.
    pub fn go_on(&mut self, more: u64) {
        if self.width == 0 {
            return;
        }
        self.remaining = if self.steady { more } else { self.remaining + more };
    }

    /// It is no client any more: nothing is asked for, and no answer waited for.
    pub fn give_up(&mut self) {
        (self.width, self.remaining) = (0, 0);
        self.pending.clear();
    }

    /// Whether `op` is under way as a read.
    pub fn is_read(&self, op: &Bytes) -> bool {
        self.pending.values().any(|invocation| invocation.read_only && invocation.op == *op)
    }

    /// Whether everything has been asked for and answered.
    pub fn is_done(&self) -> bool {
        self.remaining == 0 && self.pending.is_empty()
    }

    /// What is under way.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The next operation to ask for, if there is room for one.
    pub fn next(&mut self, rng: &mut Rng, asked: u64) -> Option<(u64, Bytes, bool)> {
        if self.remaining == 0 || self.pending.len() >= self.width {
            return None;
        }
        self.remaining -= 1;
        let token = self.next_token;
        self.next_token += 1;
        let request = FsRequest {
            caller: Caller { uid: 0, gid: 0, groups: vec![token as u32] },
            op: match (self.steady, self.proxy) {
                (true, _) => steady_op(rng),
                (false, true) => self.proxy_op(rng),
                (false, false) => self.random_op(rng),
            },
        };
        let read_only = request.op.is_read_only();
        let op = encode_request(&request);
        self.pending.insert(token, Invocation { op: op.clone(), read_only, asked });
        Some((token, op, read_only))
    }

    /// The answer to `token` has come.
    pub fn answered(&mut self, token: u64, result: &[u8]) -> Option<Invocation> {
        let result = decode_result(result).and_then(Result::ok);
        let result = match result {
            Some(FsReply::Watched(report)) => report.result.ok().map(Plain::into_inner),
            other => other,
        };
        if let Some(FsReply::Attributes(attributes)) = result
            && !self.known.contains(&attributes.inode)
            && self.known.len() < 12
        {
            self.known.push(attributes.inode);
        }
        self.pending.remove(&token)
    }

    /// An operation with the attributes around it, which is done once; or one of the last that were asked for, with whatever
    /// others have done since.
    fn proxy_op(&mut self, rng: &mut Rng) -> FsOp {
        if !self.sent.is_empty() && rng.u32(..4) == 0 {
            return self.sent[rng.usize(..self.sent.len())].clone();
        }
        let mut watched = Watched::new(self.random_op(rng));
        watched.watch.push(self.known[rng.usize(..self.known.len())]);
        if watched.op.changes_files() {
            // So few first bytes that some answers are pushed out by others.
            let mut key = rng.u128(..).to_le_bytes();
            key[0] %= 2;
            watched.once = Some(OnceKey(key));
        }
        let op = FsOp::Watched(Box::new(watched));
        if self.sent.len() == MOST_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back(op.clone());
        op
    }

    fn random_op(&self, rng: &mut Rng) -> FsOp {
        let inode = self.known[rng.usize(..self.known.len())];
        let other = self.known[rng.usize(..self.known.len())];
        let mut name = || NAMES[rng.usize(..NAMES.len())].as_bytes().to_vec();
        let (first, second) = (name(), name());
        let mode = 0o755;
        match rng.u32(..20) {
            0 | 1 => FsOp::Create { parent: inode, name: first, mode, how: CreateMode::Unchecked },
            2 => FsOp::MakeDirectory { parent: inode, name: first, mode },
            3 => FsOp::Symlink { parent: inode, name: first, target: second },
            4 => FsOp::Link { inode, parent: other, name: first },
            5 => FsOp::Unlink { parent: inode, name: first, keep: Keep::Whatever },
            6 => FsOp::RemoveDirectory { parent: inode, name: first, keep: Keep::Whatever },
            7 | 8 => FsOp::Rename {
                from: inode,
                name: first,
                to: other,
                new_name: second,
                how: RenameMode::Replace,
                keep: Keep::Whatever,
            },
            9 => FsOp::SetAttributes {
                inode,
                set: SetAttributes { size: Some(rng.u64(..100_000)), ..Default::default() },
            },
            10..=13 => {
                let length =
                    if rng.u32(..10) == 0 { rng.usize(..40_000) } else { rng.usize(..200) };
                let data = vec![rng.u8(..); length];
                FsOp::Write { inode, offset: rng.u64(..100_000), data: data.into() }
            }
            14..=16 => FsOp::Lookup { parent: inode, name: first },
            17 => FsOp::GetAttributes { inode },
            18 => FsOp::Read { inode, offset: rng.u64(..100_000), count: 4096 },
            _ => FsOp::ReadDirectory { inode, cookie: 0, budget: 4096 },
        }
    }
}

/// A small change of the root's mode: every operation is ordered and costs the same.
fn steady_op(rng: &mut Rng) -> FsOp {
    let mode = Some(0o700 | rng.u16(..8));
    FsOp::SetAttributes { inode: ROOT, set: SetAttributes { mode, ..Default::default() } }
}
