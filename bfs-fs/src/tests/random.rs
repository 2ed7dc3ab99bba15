//! Long random runs against the model, between two replicas, and with undo.

use super::fixture::*;
use super::model::{Model, Moment};
use crate::FileSystemConfig;
use crate::op::*;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bft_core::objects::at_batch;
use bft_core::service::Service;
use bft_core::types::SequenceNumber;
use proptest::prelude::*;

/// Few names, so that operations meet; the last ones are seldom used and wrong.
const NAMES: [&[u8]; 11] =
    [b"a", b"b", b"c", b"dd", b"ee", b"a longer name", b".", b"..", b"", b"x/y", b"nul\0"];

pub fn callers() -> Vec<Caller> {
    vec![root(), user(100), caller(200, 200, &[100, 7]), user(300)]
}

/// Makes operations that fit what the model holds.
pub struct Maker {
    pub rng: Lcg,
    /// Above so many inodes, more is removed than made.
    pub crowd: usize,
}

impl Maker {
    pub fn inode(&mut self, model: &Model) -> Inode {
        // Mostly what exists; sometimes what is gone or never was.
        match self.rng.next(10) {
            0 => ROOT,
            1 => Inode(self.rng.next(model.next() + 2)),
            _ => Inode(*self.rng.pick(&model.numbers())),
        }
    }

    fn directory(&mut self, model: &Model) -> Inode {
        let tries: Vec<_> = (0..8).map(|_| self.inode(model)).collect();
        let found = tries.iter().find(|inode| model.is_directory(inode.0));
        if self.rng.next(20) == 0 { tries[0] } else { found.copied().unwrap_or(ROOT) }
    }

    fn name(&mut self) -> Vec<u8> {
        let all = self.rng.next(25) == 0;
        let below = if all { NAMES.len() } else { 6 };
        NAMES[self.rng.next(below as u64) as usize].to_vec()
    }

    fn existing(&mut self, model: &Model, directory: Inode) -> Vec<u8> {
        let names = model.names(directory.0);
        if names.is_empty() || self.rng.next(8) == 0 {
            self.name()
        } else {
            self.rng.pick(&names).clone()
        }
    }

    fn mode(&mut self) -> u16 {
        *self
            .rng
            .pick(&[0o777, 0o755, 0o700, 0o644, 0o2775, 0o1777, 0o6755, 0o444, 0o2664, 0, 0o111])
    }

    fn offset(&mut self) -> u64 {
        let near = *self.rng.pick(&[0, 1, 4096, 8192, 32_768, 65_536]);
        near + self.rng.next(3) * self.rng.next(2000)
    }

    fn time(&mut self) -> Option<SetTime> {
        let nanoseconds = if self.rng.next(10) == 0 { 1_000_000_000 } else { 999_999_999 };
        let seconds = self.rng.next(100) as i64 - 50;
        match self.rng.next(4) {
            0 => Some(SetTime::At(Timestamp { seconds, nanoseconds })),
            1 | 2 => Some(SetTime::Now),
            _ => None,
        }
    }

    pub fn changes(&mut self) -> SetAttributes {
        let mut set = SetAttributes::default();
        let which = self.rng.next(64);
        let ids = [0, 7, 100, 200, 300];
        set.mode = (which & 3 == 0).then(|| self.mode());
        set.uid = (which & 12 == 0).then(|| *self.rng.pick(&ids));
        set.gid = (which & 24 == 0).then(|| *self.rng.pick(&ids));
        set.size = (which & 5 == 5).then(|| self.offset());
        if which & 34 == 34 {
            (set.accessed, set.modified) = (self.time(), self.time());
        }
        set
    }

    /// Who asks for what.
    pub fn request(&mut self, model: &Model) -> (Caller, FsOp) {
        if model.len() > self.crowd && self.rng.next(3) > 0 {
            return (root(), self.removal(model));
        }
        // Root half of the time, so that the others find something to do.
        let callers = callers();
        let who = if self.rng.next(2) == 0 { &callers[0] } else { self.rng.pick(&callers) };
        (who.clone(), self.op(model))
    }

    /// Removes something in the way that suits it.
    fn removal(&mut self, model: &Model) -> FsOp {
        let parent = self.directory(model);
        let name = self.existing(model, parent);
        match model.named(parent.0, &name).is_ok_and(|found| model.is_directory(found)) {
            true => FsOp::RemoveDirectory { parent, name, keep: nothing() },
            false => FsOp::Unlink { parent, name, keep: nothing() },
        }
    }

    /// What the client says that it has open.
    fn keep(&mut self, model: &Model) -> Keep {
        match self.rng.next(8) {
            0 => Keep::Whatever,
            1 | 2 => Keep::These(vec![self.inode(model), self.inode(model), self.inode(model)]),
            _ => nothing(),
        }
    }

    fn lease(&mut self, model: &Model) -> FsOp {
        let inodes = vec![self.inode(model), self.inode(model)];
        match self.rng.next(12) {
            0..4 => FsOp::Hold { inodes },
            4..7 => FsOp::LetGo { inodes },
            7..10 => FsOp::LetGo { inodes: model.held() },
            10 => FsOp::Renew { life: self.rng.next(2) },
            _ => FsOp::EndLease,
        }
    }

    fn xattr(&mut self, inode: Inode) -> FsOp {
        let names: [&[u8]; 7] = [
            b"user.a",
            b"user.b",
            b"security.capability",
            b"trusted.t",
            b"system.posix_acl_access",
            b"user.",
            b"",
        ];
        let below = if self.rng.next(9) == 0 { 7 } else { 4 };
        let name = names[self.rng.next(below) as usize].to_vec();
        let value = vec![7; (self.rng.next(3) * self.rng.next(20_000)) as usize].into();
        let hows = [XattrMode::Set, XattrMode::Create, XattrMode::Replace];
        match self.rng.next(6) {
            0 | 1 => FsOp::SetXattr { inode, name, value, how: *self.rng.pick(&hows) },
            2 | 3 => FsOp::GetXattr { inode, name },
            4 => FsOp::ListXattrs { inode },
            _ => FsOp::RemoveXattr { inode, name },
        }
    }

    fn op(&mut self, model: &Model) -> FsOp {
        let parent = self.directory(model);
        let inode = self.inode(model);
        match self.rng.next(28) {
            20 => {
                let targets = [SeekTarget::Data, SeekTarget::Hole];
                FsOp::Seek { inode, offset: self.offset(), target: *self.rng.pick(&targets) }
            }
            21 | 22 => {
                let keep_size = self.rng.next(2) == 0;
                let hows = [
                    AllocateMode::Punch,
                    AllocateMode::Reserve { keep_size },
                    AllocateMode::Zero { keep_size },
                ];
                let length = self.rng.next(3) * self.rng.next(20_000);
                FsOp::Allocate { inode, offset: self.offset(), length, how: *self.rng.pick(&hows) }
            }
            23 => {
                let to = if self.rng.next(3) == 0 { inode } else { self.inode(model) };
                let (from_offset, to_offset) = (self.offset(), self.offset());
                let length = self.rng.next(9000);
                FsOp::CopyRange { from: inode, from_offset, to, to_offset, length }
            }
            24 | 25 => self.xattr(inode),
            26 | 27 => self.lease(model),
            0 | 1 => {
                let verifier = self.rng.next(2);
                let how =
                    [CreateMode::Unchecked, CreateMode::Guarded, CreateMode::Exclusive(verifier)];
                FsOp::Create {
                    parent,
                    name: self.name(),
                    mode: self.mode(),
                    how: *self.rng.pick(&how),
                }
            }
            2 | 3 => FsOp::MakeDirectory { parent, name: self.name(), mode: self.mode() | 0o700 },
            4 => {
                use Kind::*;
                let kinds = [Fifo, Socket, CharDevice, BlockDevice, File, Directory, Symlink];
                let (kind, device) = (*self.rng.pick(&kinds), self.rng.next(9) as u32);
                FsOp::MakeNode { parent, name: self.name(), kind, mode: self.mode(), device }
            }
            5 => FsOp::Symlink { parent, name: self.name(), target: b"to/where".to_vec() },
            6 => FsOp::Link { inode, parent, name: self.name() },
            7 => FsOp::Lookup { parent, name: self.existing(model, parent) },
            8 => self
                .rng
                .pick(&[
                    FsOp::GetAttributes { inode },
                    FsOp::ReadLink { inode },
                    FsOp::Sync { inode },
                ])
                .clone(),
            9 => match self.rng.next(9) {
                8 => FsOp::Permissions { inode },
                mask => FsOp::Access { inode, mask: mask as u8 },
            },
            10 | 11 => FsOp::SetAttributes { inode, set: self.changes() },
            12 | 13 => {
                let (len, byte) =
                    (self.rng.next(3) * self.rng.next(6000), self.rng.next(255) as u8 + 1);
                FsOp::Write { inode, offset: self.offset(), data: vec![byte; len as usize].into() }
            }
            14 => FsOp::Read { inode, offset: self.offset(), count: self.rng.next(40_000) as u32 },
            15 => FsOp::ReadDirectory { inode: parent, cookie: 0, budget: 0 },
            16 | 17 => {
                let to = if self.rng.next(3) == 0 { parent } else { self.directory(model) };
                let hows = [
                    RenameMode::Replace,
                    RenameMode::Replace,
                    RenameMode::NoReplace,
                    RenameMode::Exchange,
                ];
                let how = *self.rng.pick(&hows);
                let new_name = if how == RenameMode::Exchange {
                    self.existing(model, to)
                } else {
                    self.name()
                };
                FsOp::Rename {
                    from: parent,
                    name: self.existing(model, parent),
                    to,
                    new_name,
                    how,
                    keep: self.keep(model),
                }
            }
            18 => {
                FsOp::Unlink { parent, name: self.existing(model, parent), keep: self.keep(model) }
            }
            _ => FsOp::RemoveDirectory {
                parent,
                name: self.existing(model, parent),
                keep: self.keep(model),
            },
        }
    }
}

/// Lists `directory` in pieces of a random size.
fn listed(
    bench: &mut Bench,
    who: &Caller,
    inode: Inode,
    rng: &mut Lcg,
) -> Result<Vec<Entry>, FsError> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let cookie = all.last().map_or(0, |entry| entry.cookie);
        let budget = rng.next(700) as u32;
        match bench.run(who, FsOp::ReadDirectory { inode, cookie, budget })? {
            FsReply::Entries { entries, eof } => {
                assert!(!entries.is_empty() || eof);
                all.extend(entries);
                if eof {
                    return Ok(all);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn compare_listing(bench: &mut Bench, model: &Model, who: &Caller, inode: Inode, rng: &mut Lcg) {
    let can = bench.run(who, FsOp::Access { inode, mask: 4 });
    let found = listed(bench, who, inode, rng);
    let Ok(attributes) = model.attributes(inode.0) else {
        return assert_eq!(found, Err(FsError::Stale));
    };
    if attributes.kind != Kind::Directory {
        return assert_eq!(found, Err(FsError::NotDirectory));
    }
    if can.is_err() {
        return assert_eq!(found, Err(FsError::AccessDenied));
    }
    let found = found.unwrap();
    assert!(found.windows(2).all(|pair| pair[0].cookie < pair[1].cookie));
    let found: BTreeMap<_, _> = found.into_iter().map(|e| (e.name, e.attributes)).collect();
    if attributes.links == 0 {
        return assert_eq!(found.len(), 0);
    }
    let mut names = model.names(inode.0);
    names.extend([b".".to_vec(), b"..".to_vec()]);
    assert_eq!(found.len(), names.len());
    for name in names {
        let expected = model.named(inode.0, &name).and_then(|n| model.attributes(n));
        assert_eq!(found.get(&name).copied().ok_or(FsError::Io), expected);
    }
}

/// What a run came across: how often each kind of operation ended how, as "Rename Ok" or "Rename NotEmpty".
type Outcomes = BTreeMap<String, u64>;

fn outcome(op: &FsOp, result: &FsResult) -> String {
    let op = format!("{op:?}");
    let op = op.split([' ', '(']).next().unwrap_or_default();
    match result {
        Ok(FsReply::Watched(report)) => match &report.result {
            Ok(_) => format!("{op} Ok"),
            Err(refusal) => format!("{op} {refusal:?}"),
        },
        Ok(FsReply::Kept(_)) => format!("{op} Kept"),
        Ok(_) => format!("{op} Ok"),
        Err(error) => format!("{op} {error:?}"),
    }
}

/// Names of extended attributes come in the order of their hashes, and from the model by the alphabet.
fn sorted(result: FsResult) -> FsResult {
    match result {
        Ok(FsReply::Watched(mut report)) => {
            report.result = report.result.map(|reply| match sorted(Ok(reply.into_inner())) {
                Ok(reply) => Plain::new(reply),
                Err(_) => Plain::new(FsReply::Done),
            });
            Ok(FsReply::Watched(report))
        }
        Ok(FsReply::Names(mut names)) => {
            names.sort();
            Ok(FsReply::Names(names))
        }
        other => other,
    }
}

/// Runs `steps` operations on the file system and on the model, and checks the whole state after every `interval`.
fn against_model(
    seed: u64,
    steps: u64,
    crowd: usize,
    memory_budget: u64,
    interval: u64,
) -> Outcomes {
    let mut bench =
        Bench::with(FileSystemConfig { memory_budget, root_mode: 0o777, ..Default::default() });
    let mut model = Model::new(0o777);
    let mut maker = Maker { rng: Lcg(seed), crowd };
    let mut outcomes = Outcomes::new();
    for step in 0..steps {
        bench.check = step % interval == 0;
        let (who, op) = maker.request(&model);
        if let FsOp::ReadDirectory { inode, .. } = op {
            compare_listing(&mut bench, &model, &who, inode, &mut maker.rng);
            continue;
        }
        // The model knows no budget, and so not what is answered again where space was short.
        let watches = memory_budget == 1 << 30 && maker.rng.next(3) == 0;
        let op = if watches { maker.watched(&model, op) } else { op };
        let result = bench.run(&who, op.clone());
        assert!(bench.used() <= memory_budget);
        *outcomes.entry(outcome(&op, &result)).or_default() += 1;
        // The model knows no budget. That nothing changed, the bench has seen.
        if result != Err(FsError::NoSpace) {
            let at = Moment { who: &who, now: bench.now(), n: bench.n };
            let expected = model.run(&at, &op);
            let result = sorted(result);
            assert_eq!(result, expected, "seed {seed}, step {step}: {who:?} {op:?}");
        }
    }
    match bench.run(&root(), FsOp::StatFs) {
        Ok(FsReply::StatFs(s)) => assert_eq!(s.inodes - s.free_inodes, model.len() as u64),
        other => panic!("{other:?}"),
    }
    outcomes
}

fn expect_outcomes(found: &Outcomes, expected: &str) {
    for outcome in expected.split(", ") {
        assert!(found.contains_key(outcome), "{outcome} never happened: {found:#?}");
    }
}

#[test]
fn agrees_with_the_model() {
    let mut outcomes = Outcomes::new();
    for seed in 0..8 {
        outcomes.extend(against_model(seed, 10_000, 24, 1 << 30, 1));
    }
    expect_outcomes(
        &outcomes,
        "Lookup Ok, Lookup NotFound, Lookup AccessDenied, Lookup NotDirectory, Lookup Stale, GetAttributes Ok, \
         SetAttributes Ok, SetAttributes NotPermitted, SetAttributes AccessDenied, SetAttributes Invalid, \
         SetAttributes IsDirectory, SetAttributes NotSupported, Create Ok, Create Exists, Create IsDirectory, \
         Create AccessDenied, MakeDirectory Ok, MakeDirectory Invalid, MakeNode Ok, MakeNode NotPermitted, \
         Symlink Ok, ReadLink Ok, ReadLink Invalid, Link Ok, Link NotPermitted, Unlink Ok, Unlink IsDirectory, \
         Unlink NotPermitted, Unlink AccessDenied, RemoveDirectory Ok, RemoveDirectory NotEmpty, \
         RemoveDirectory NotDirectory, Rename Ok, Rename Exists, Rename NotEmpty, Rename Invalid, Rename NotDirectory, \
         Rename IsDirectory, Rename NotPermitted, Rename AccessDenied, Rename NotFound, Read Ok, Read IsDirectory, \
         Read AccessDenied, Write Ok, Write AccessDenied, Write Invalid, Sync Ok, Hold Ok, LetGo Ok, Unlink Kept, Rename Kept, RemoveDirectory Kept, Create NotFound, Link NotFound, Renew Ok, EndLease Ok, \
         Seek Ok, Seek NoSuchAddress, Seek IsDirectory, Seek AccessDenied, Allocate Ok, Allocate Invalid, \
         Allocate AccessDenied, Allocate IsDirectory, CopyRange Ok, CopyRange Invalid, CopyRange AccessDenied, \
         GetXattr Ok, GetXattr NoData, GetXattr NotSupported, GetXattr AccessDenied, ListXattrs Ok, SetXattr Ok, \
         SetXattr Exists, SetXattr NoData, SetXattr NotPermitted, SetXattr OutOfRange, SetXattr Invalid, \
         SetXattr AccessDenied, RemoveXattr Ok, RemoveXattr NoData, RemoveXattr NotPermitted, Access Ok, Access AccessDenied, \
         Permissions Ok, Watched Ok, Watched OutOfSync, Watched Failed(Exists), Watched Failed(NotPermitted)",
    );
    assert!(!outcomes.keys().any(|outcome| outcome.ends_with("NoSpace")));
}

#[test]
fn a_million_operations_agree_with_the_model() {
    let run = |seeds: core::ops::Range<u64>| {
        for seed in seeds {
            against_model(seed, 125_000, 16 + 16 * (seed as usize % 4), 1 << 30, 100);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(100..104));
        scope.spawn(|| run(104..108));
    });
}

#[test]
fn agrees_with_the_model_when_space_is_short() {
    let outcomes = against_model(99, 20_000, 1000, 60_000, 1);
    expect_outcomes(
        &outcomes,
        "Create NoSpace, MakeDirectory NoSpace, Symlink NoSpace, Link NoSpace, Write NoSpace, Create Ok, Write Ok, \
         Rename Ok",
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_with_the_model_from_any_seed(seed: u64, crowd in 4usize..60) {
        against_model(seed, 300, crowd, 1 << 30, 1);
    }
}

/// Some requests, as bytes.
fn requests(seed: u64, count: usize) -> Vec<bytes::Bytes> {
    let mut model = Model::new(0o777);
    let mut maker = Maker { rng: Lcg(seed), crowd: 60 };
    let mut made = Vec::new();
    for n in 1..=count as u64 {
        let (who, op) = maker.request(&model);
        if !matches!(op, FsOp::ReadDirectory { .. }) {
            let _ = model.run(&Moment { who: &who, now: Timestamp::from_nanoseconds(n), n }, &op);
        }
        made.push(encode_request(&FsRequest { caller: who, op }));
    }
    made
}

#[test]
fn two_replicas_come_to_the_same_digest_whatever_they_answered_besides() {
    let requests = requests(5, 4000);
    let (mut one, mut other) = (Bench::new(), Bench::new());
    for (i, op) in requests.iter().enumerate() {
        for bench in [&mut one, &mut other] {
            bench.n = i as u64 / 3 + 1;
            at_batch(&mut bench.state, SequenceNumber(bench.n));
        }
        let ctx = one.context();
        // Queries, copies and digests at other times must leave no trace.
        if i % 5 == 0 {
            let _ = other.fs.query(&ctx, &other.state, op);
            let _kept = other.state.clone();
            other.state.digest();
        }
        let answer = one.fs.execute(&ctx, &mut one.state, op);
        assert_eq!(answer, other.fs.execute(&ctx, &mut other.state, op));
    }
    assert_eq!(one.state.digest(), other.state.digest());
    assert!(one.state.len() > 20);
}

#[test]
fn a_kept_copy_of_the_state_undoes_anything() {
    let requests = requests(6, 3000);
    let mut bench = Bench::new();
    for chunk in requests.chunks(10) {
        let before = bench.state.digest();
        let kept = bench.state.clone();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for answers in [&mut first, &mut second] {
            bench.state = kept.clone();
            bench.n += 1;
            at_batch(&mut bench.state, SequenceNumber(bench.n));
            bench.n -= 1;
            let ctx = bench.context();
            for op in chunk {
                answers.push(bench.fs.execute(&ctx, &mut bench.state, op));
            }
        }
        assert_eq!(first, second);
        assert_eq!(kept.clone().digest(), before);
        bench.n += 1;
    }
}
