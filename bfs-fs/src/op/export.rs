//! Who may use what, and how much of it.

use super::{FsOp, Inode};
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};

/// The client that may say what the others may do: the first one in the group file. It has no limits itself.
pub const ADMINISTRATOR: u32 = 0;
/// Whom a user counts as whom the export does not let in. [exports(5): anonuid, anongid]
pub const NOBODY: u32 = 65_534;
/// The most ranges of uids in one export, and of gids.
pub const MAX_ID_RANGES: usize = 64;
/// Users or groups from one number to another, both included; no range at all means all of them.
pub type IdRanges = Vec<(u32, u32)>;

/// What one client of the group may do, whoever its users say they are. (decision 10)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Export {
    /// The directory that the client finds as its root: the group's, or the top of a subtree. It sees nothing else.
    pub subtree: Inode,
    /// Every change is EROFS.
    pub read_only: bool,
    /// The client's root counts as nobody.
    pub root_squash: bool,
    /// As whom the client's users may act. Whoever else asks counts as nobody.
    pub uids: IdRanges,
    /// In which groups they may be. In any other they are not.
    pub gids: IdRanges,
}

impl Export {
    /// Whether nothing in it contradicts itself.
    pub fn is_valid(&self) -> bool {
        [&self.uids, &self.gids].iter().all(|ranges| {
            ranges.len() <= MAX_ID_RANGES && ranges.iter().all(|(first, last)| first <= last)
        })
    }
}

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Subject {
    /// Of all that belongs to this uid.
    User(u32),
    /// Of all that is in the subtree with this top; that of the root directory is what is in no other one.
    Subtree(Inode),
}

/// How much may be taken; nothing said means as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Limits {
    /// Of file data, as `st_blocks` counts it. Units: bytes.
    pub bytes: Option<u64>,
    pub inodes: Option<u64>,
}

/// What a [`Subject`] has taken, and what it may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Account {
    /// Of file data, as `st_blocks` counts it. Units: bytes.
    pub bytes: u64,
    pub inodes: u64,
    pub limits: Limits,
}

impl Account {
    /// Whether as much more would be within the limits.
    pub fn allows(&self, bytes: u64, inodes: u64) -> bool {
        let within = |used: u64, more: u64, limit: Option<u64>| {
            more == 0 || limit.is_none_or(|limit| used.saturating_add(more) <= limit)
        };
        within(self.bytes, bytes, self.limits.bytes)
            && within(self.inodes, inodes, self.limits.inodes)
    }
}

impl FsOp {
    /// Whether the operation changes files or names, which a read-only export refuses. What is open and locked is no file.
    pub fn changes_files(&self) -> bool {
        use FsOp::*;
        match self {
            SetAttributes { .. }
            | Create { .. }
            | MakeDirectory { .. }
            | MakeNode { .. }
            | Symlink { .. }
            | Link { .. }
            | Unlink { .. }
            | RemoveDirectory { .. }
            | Rename { .. }
            | Write { .. }
            | Allocate { .. }
            | CopyRange { .. }
            | SetXattr { .. }
            | RemoveXattr { .. } => true,
            Hold { .. }
            | LetGo { .. }
            | Renew { .. }
            | EndLease
            | Lock { .. }
            | Unlock { .. }
            | CancelLock { .. }
            | Sync { .. }
            | AgreeOnKey { .. }
            | SetExport { .. }
            | MakeSubtree { .. }
            | SetLimits { .. } => false,
            Watched(watched) => watched.op.changes_files(),
            other => !other.is_read_only(),
        }
    }

    /// Whether the operation only keeps or gives back what the sender has on its lease.
    pub(crate) fn is_about_lease(&self) -> bool {
        use FsOp::*;
        match self {
            LetGo { .. } | Unlock { .. } | CancelLock { .. } | Renew { .. } | EndLease => true,
            Watched(watched) => watched.op.is_about_lease(),
            _ => false,
        }
    }

    /// Shows `look` every inode that the operation names as one where the sender has something to give back, to be replaced.
    pub(crate) fn for_given_back(&mut self, look: &mut impl FnMut(&mut Inode)) {
        match self {
            FsOp::Unlock { inode, .. } | FsOp::CancelLock { inode, .. } => look(inode),
            FsOp::LetGo { inodes } => inodes.iter_mut().for_each(look),
            FsOp::Watched(watched) => watched.op.get_mut().for_given_back(look),
            _ => {}
        }
    }

    /// Shows `look` every other inode that the operation names as an argument, to be replaced.
    pub(crate) fn for_inodes(&mut self, look: &mut impl FnMut(&mut Inode)) {
        use FsOp::*;
        match self {
            Lookup { parent: inode, .. }
            | GetAttributes { inode }
            | SetAttributes { inode, .. }
            | Create { parent: inode, .. }
            | MakeDirectory { parent: inode, .. }
            | MakeNode { parent: inode, .. }
            | Symlink { parent: inode, .. }
            | ReadLink { inode }
            | Unlink { parent: inode, .. }
            | RemoveDirectory { parent: inode, .. }
            | Read { inode, .. }
            | Write { inode, .. }
            | ReadDirectory { inode, .. }
            | Seek { inode, .. }
            | Allocate { inode, .. }
            | GetXattr { inode, .. }
            | ListXattrs { inode }
            | SetXattr { inode, .. }
            | RemoveXattr { inode, .. }
            | Lock { inode, .. }
            | TestLock { inode, .. }
            | LockStatus { inode, .. }
            | Sync { inode }
            | Access { inode, .. }
            | Permissions { inode }
            | MakeSubtree { inode } => look(inode),
            Link { inode: one, parent: other, .. }
            | Rename { from: one, to: other, .. }
            | CopyRange { from: one, to: other, .. } => {
                look(one);
                look(other);
            }
            Hold { inodes } => inodes.iter_mut().for_each(look),
            Watched(watched) => {
                watched.watch.iter_mut().for_each(&mut *look);
                watched.op.get_mut().for_inodes(look);
            }
            Null { .. }
            | LetGo { .. }
            | Unlock { .. }
            | CancelLock { .. }
            | Renew { .. }
            | EndLease
            | StatFs
            | AgreeOnKey { .. }
            | SetExport { .. }
            | GetExport { .. }
            | SetLimits { .. }
            | GetAccount { .. } => {}
        }
    }
}
