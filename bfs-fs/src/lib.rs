//! The deterministic file-system state machine.
//!
//! Every replica runs the same operations in the same order on the same objects and comes to the same bytes. So nothing
//! here reads a clock, a random number or the order of a hash table: time and sequence numbers come with the operation.
//!
//! One [`op::FsOp`] is one kernel request; [`object`] says what is stored, [`fsck`] what must hold of it at all times.

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod admission;
pub mod cost;
pub mod fsck;
pub mod locks;
mod name;
pub mod object;
pub mod op;
mod ops;
mod permission;
mod state;
#[cfg(test)]
mod tests;

pub use ops::{LEASE_TERM, MAX_CHUNKS, MAX_DEPTH, MAX_FILE_SIZE, MAX_LEASE_STEP, MAX_STAKES};
pub use state::State;

use admission::{Admitted, export_of};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bft_core::service::{Context, NotReadOnly, Service};
use bft_core::types::ClientId;
use bytes::Bytes;
use object::{Body, InodeRecord, Object, SUPER_ID, Super, account_id, inode_id};
use op::{
    Account, Export, FsError, FsOp, FsRequest, FsResult, MAX_GROUPS, ROOT, Subject, Timestamp,
};
use ops::ALLOWANCE;
use permission::MODE_BITS;
use state::{Reader, Writer};

/// What all replicas of a group must have in common besides their state: with another configuration a replica would
/// answer otherwise, and count as faulty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystemConfig {
    /// What the file system may take of memory, by the estimates of [`cost`]. Units: bytes.
    pub memory_budget: u64,
    /// The root directory as genesis makes it. 12 bits.
    pub root_mode: u16,
    pub root_uid: u32,
    pub root_gid: u32,
    /// Whether the root of a client counts as nobody, unless its export says otherwise; the administrator's never does.
    pub root_squash: bool,
}

impl Default for FileSystemConfig {
    /// 1 GiB, a root directory of root's that all may read, and root squashed.
    fn default() -> Self {
        Self {
            memory_budget: 1 << 30,
            root_mode: 0o755,
            root_uid: 0,
            root_gid: 0,
            root_squash: true,
        }
    }
}

/// The file system as a replicated service.
#[derive(Clone, Debug)]
pub struct FileSystem {
    config: FileSystemConfig,
}

impl FileSystem {
    /// A file system with this configuration.
    pub fn new(config: FileSystemConfig) -> Self {
        Self { config }
    }

    /// The configuration.
    pub fn config(&self) -> &FileSystemConfig {
        &self.config
    }

    /// Executes `request`. An error leaves the state as it was, to the last version number, but for what earlier operations
    /// had left to clear away.
    pub fn apply(&self, ctx: &Context, state: &mut State, request: &FsRequest) -> FsResult {
        if let Some(result) = self.answer(ctx.client.0, state, request) {
            return result;
        }
        let export = export_of(state, ctx.client.0, self.config.root_squash);
        let Admitted { request, top } = export.admit(state, request)?;
        let mut writer = Writer {
            state,
            caller: &request.caller,
            top,
            now: Timestamp::from_nanoseconds(ctx.time.0),
            time: ctx.time.0,
            client: ctx.client.0,
            generation: ctx.n.0,
            root_squash: self.config.root_squash,
            allowance: ALLOWANCE,
            memory_budget: self.config.memory_budget,
        };
        writer.pay_dues();
        writer.run(&request.op)
    }

    /// Answers `request` if it changes nothing, also when that is because it cannot be right.
    fn answer(&self, client: u32, state: &State, request: &FsRequest) -> Option<FsResult> {
        let done = self.look_into(client, state, request, |reader, export, op| match op {
            FsOp::Watched(watched) => {
                reader.report(watched, self.look(reader, export, &watched.op))
            }
            op => self.look(reader, export, op),
        });
        done.map(|result| result.and_then(|result| result))
    }

    /// What `look` makes of `request` as it is let in, if it changes nothing.
    ///
    /// Errors: what it cannot be.
    fn look_into<R>(
        &self,
        client: u32,
        state: &State,
        request: &FsRequest,
        look: impl FnOnce(Reader<'_>, &Export, &FsOp) -> R,
    ) -> Option<Result<R, FsError>> {
        if request.caller.groups.len() > MAX_GROUPS {
            return Some(Err(FsError::Invalid));
        }
        if !request.op.is_read_only() {
            return None;
        }
        let export = export_of(state, client, self.config.root_squash);
        Some(export.admit(state, request).map(|Admitted { request, top }| {
            let reader = Reader { state, caller: &request.caller, client, top };
            look(reader, &export, &request.op)
        }))
    }

    /// The bytes of what is read, copied from the pages that hold it to where they are sent from, and nowhere else.
    fn read_encoded(&self, client: u32, state: &State, request: &FsRequest) -> Option<Bytes> {
        let read = self.look_into(client, state, request, |reader, _, op| match op {
            FsOp::Read { inode, offset, count } => reader.read_encoded(*inode, *offset, *count),
            _ => unreachable!("only reads are encoded as they are made"),
        })?;
        Some(read.and_then(|read| read).unwrap_or_else(|error| op::encode_result(&Err(error))))
    }

    /// The result of `op`. Requires: it changes nothing, and watches nothing.
    fn look(&self, reader: Reader<'_>, export: &Export, op: &FsOp) -> FsResult {
        match op {
            FsOp::Null { result, .. } => reader.null(*result),
            FsOp::Lookup { parent, name } => reader.lookup(*parent, name),
            FsOp::GetAttributes { inode } => reader.attributes(*inode),
            FsOp::ReadLink { inode } => reader.read_link(*inode),
            FsOp::Read { inode, offset, count } => reader.read(*inode, *offset, *count),
            FsOp::ReadDirectory { inode, cookie, budget } => {
                reader.read_directory(*inode, *cookie, *budget)
            }
            FsOp::Seek { inode, offset, target } => reader.seek(*inode, *offset, *target),
            FsOp::GetXattr { inode, name } => reader.get_xattr(*inode, name),
            FsOp::ListXattrs { inode } => reader.list_xattrs(*inode),
            FsOp::TestLock { inode, request } => reader.test_lock(*inode, request),
            FsOp::LockStatus { inode, request } => reader.lock_status(*inode, request),
            FsOp::GetExport { client } => reader.get_export(*client, self.config.root_squash),
            FsOp::GetAccount { subject } => reader.get_account(*subject),
            FsOp::StatFs => reader.stat_fs(self.config.memory_budget),
            FsOp::Access { inode, mask } => reader.access(*inode, *mask),
            FsOp::Permissions { inode } => reader.permissions(*inode, export.read_only),
            _ => unreachable!("what changes something is not looked at here"),
        }
    }
}

impl Writer<'_> {
    pub(crate) fn run(&mut self, op: &FsOp) -> FsResult {
        match op {
            FsOp::SetAttributes { inode, set } => self.set_attributes(*inode, set),
            FsOp::Create { parent, name, mode, how } => self.create(*parent, name, *mode, *how),
            FsOp::MakeDirectory { parent, name, mode } => self.make_directory(*parent, name, *mode),
            FsOp::MakeNode { parent, name, kind, mode, device } => {
                self.make_node(*parent, name, *kind, *mode, *device)
            }
            FsOp::Symlink { parent, name, target } => self.symlink(*parent, name, target),
            FsOp::Link { inode, parent, name } => self.link(*inode, *parent, name),
            FsOp::Unlink { parent, name, keep } => self.unlink(*parent, name, keep),
            FsOp::RemoveDirectory { parent, name, keep } => {
                self.remove_directory(*parent, name, keep)
            }
            FsOp::Rename { from, name, to, new_name, how, keep } => {
                self.rename((*from, name), (*to, new_name), *how, keep)
            }
            FsOp::Write { inode, offset, data } => self.write(*inode, *offset, data),
            FsOp::Allocate { inode, offset, length, how } => {
                self.allocate(*inode, *offset, *length, *how)
            }
            FsOp::CopyRange { from, from_offset, to, to_offset, length } => {
                self.copy_range((*from, *from_offset), (*to, *to_offset), *length)
            }
            FsOp::SetXattr { inode, name, value, how } => self.set_xattr(*inode, name, value, *how),
            FsOp::RemoveXattr { inode, name } => self.remove_xattr(*inode, name),
            FsOp::Hold { inodes } => self.hold(inodes),
            FsOp::LetGo { inodes } => self.let_go(inodes),
            FsOp::Renew { life } => self.renew(*life),
            FsOp::EndLease => self.end_own_lease(),
            FsOp::Lock { inode, request, wait } => self.lock(*inode, request, *wait),
            FsOp::Unlock { inode, request } => self.unlock(*inode, request),
            FsOp::CancelLock { inode, request } => self.cancel_lock(*inode, request),
            FsOp::SetExport { client, export } => self.set_export(*client, export.as_ref()),
            FsOp::MakeSubtree { inode } => self.make_subtree(*inode),
            FsOp::SetLimits { subject, limits } => self.set_limits(*subject, *limits),
            // Being executed in order is all that a sync asks for.
            FsOp::Sync { inode } => self.reader().attributes(*inode),
            FsOp::AgreeOnKey { offer } => self.agree_on_key(*offer),
            FsOp::Watched(watched) => self.watched(watched),
            FsOp::Null { .. }
            | FsOp::Lookup { .. }
            | FsOp::GetAttributes { .. }
            | FsOp::ReadLink { .. }
            | FsOp::Read { .. }
            | FsOp::ReadDirectory { .. }
            | FsOp::Seek { .. }
            | FsOp::GetXattr { .. }
            | FsOp::ListXattrs { .. }
            | FsOp::TestLock { .. }
            | FsOp::LockStatus { .. }
            | FsOp::StatFs
            | FsOp::GetExport { .. }
            | FsOp::GetAccount { .. }
            | FsOp::Access { .. }
            | FsOp::Permissions { .. } => unreachable!("what changes nothing was answered before"),
        }
    }
}

impl Service for FileSystem {
    type Object = Object;

    /// Makes the root directory. Times are 1970: there is no agreed time yet.
    fn genesis(&self, objects: &mut State) {
        let root = InodeRecord {
            generation: 0,
            size: 0,
            pages: 0,
            accessed: Timestamp::default(),
            modified: Timestamp::default(),
            changed: Timestamp::default(),
            links: 2,
            uid: self.config.root_uid,
            gid: self.config.root_gid,
            mode: self.config.root_mode & MODE_BITS,
            xattrs: 0,
            subtree: ROOT,
            body: Body::Directory { parent: ROOT, entries: 0 },
        };
        let totals = Super {
            next_inode: ROOT.0 + 1,
            inodes: 1,
            bytes: cost::inode(&root.body) + 2 * cost::ACCOUNT_COST,
            next_lease: 1,
            lease_time: 0,
            lease_time_at: 0,
            dues: 0,
        };
        objects.insert(SUPER_ID, Object::Super(totals));
        for subject in [Subject::User(root.uid), Subject::Subtree(ROOT)] {
            let account = Account { inodes: 1, ..Account::default() };
            objects.insert(account_id(subject), Object::Account(account));
        }
        if let Some(id) = inode_id(ROOT) {
            objects.insert(id, Object::Inode(Box::new(root)));
        }
    }

    /// The result of the canonical [`FsRequest`] `op`; `Invalid` for any other bytes.
    fn execute(&self, ctx: &Context, objects: &mut State, op: &Bytes) -> Bytes {
        let result = match op::decode_shared(op) {
            Some(request) => self.apply(ctx, objects, &request),
            None => Err(FsError::Invalid),
        };
        op::encode_result(&result)
    }

    /// Whatever the client held open or had locked goes, and what was said about it is forgotten.
    fn dismiss(&self, ctx: &Context, objects: &mut State, client: ClientId) {
        let own = Context { client, ..*ctx };
        let caller = op::Caller { uid: 0, gid: 0, groups: Vec::new() };
        // Nothing binds it any more, as its subtree would, which may be gone: so ending the lease cannot fail.
        ops::put_export(objects, client.0, None);
        let _ = self.apply(&own, objects, &FsRequest { caller, op: FsOp::EndLease });
        ops::forget_answers(objects, client.0);
    }

    /// What [`Service::execute`] would answer. Bytes that are no request change nothing, so they are answered too.
    fn query(&self, ctx: &Context, objects: &State, op: &[u8]) -> Result<Bytes, NotReadOnly> {
        let result = match op::decode_request(op) {
            Some(request) if matches!(request.op, FsOp::Read { .. }) => {
                return self.read_encoded(ctx.client.0, objects, &request).ok_or(NotReadOnly);
            }
            Some(request) => self.answer(ctx.client.0, objects, &request).ok_or(NotReadOnly)?,
            None => Err(FsError::Invalid),
        };
        Ok(op::encode_result(&result))
    }
}
