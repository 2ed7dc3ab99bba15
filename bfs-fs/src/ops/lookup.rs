//! Finding things and asking about them.

use crate::admission::account;
use crate::cost;
use crate::name;
use crate::object::{Body, PAGE};
use crate::op::{Account, FsError, FsReply, FsResult, Inode, MAX_IO, StatFs, Subject};
use crate::permission::EXECUTE;
use crate::state::{Reader, totals};
use alloc::vec;

/// What is left to a subtree, of which no more is left than of all.
fn within_limits(all: StatFs, account: &Account) -> StatFs {
    let page = PAGE as u64;
    let (mut blocks, mut free_blocks) = (all.blocks, all.free_blocks);
    if let Some(limit) = account.limits.bytes {
        blocks = blocks.min(limit / page);
        free_blocks = free_blocks.min(limit.saturating_sub(account.bytes) / page);
    }
    let (mut inodes, mut free_inodes) = (all.inodes, all.free_inodes);
    if let Some(limit) = account.limits.inodes {
        inodes = inodes.min(limit);
        free_inodes = free_inodes.min(limit.saturating_sub(account.inodes));
    }
    StatFs { blocks, free_blocks, inodes, free_inodes, ..all }
}

impl Reader<'_> {
    /// Padding: `result` bytes, or `Done` for none.
    ///
    /// Errors: `Invalid` above [`MAX_IO`].
    pub fn null(self, result: u32) -> FsResult {
        match result {
            0 => Ok(FsReply::Done),
            1..=MAX_IO => Ok(FsReply::Padding(vec![0; result as usize])),
            _ => Err(FsError::Invalid),
        }
    }

    /// The inode called `name` in `parent`, "." and ".." included.
    ///
    /// Errors: `NotFound`, and those of [`Reader::entry`].
    pub fn lookup(self, parent: Inode, name: &[u8]) -> FsResult {
        if name::is_dots(name) {
            let directory = self.directory(parent)?;
            self.caller.allow(directory, EXECUTE)?;
            let up = name == b"..";
            return self.attributes(if up { self.above(parent)? } else { parent });
        }
        let found = self.entry(parent, name)?.ok_or(FsError::NotFound)?;
        self.attributes(found.inode)
    }

    /// Where a symbolic link leads.
    ///
    /// Errors: `Stale`, `Invalid` for anything else. [readlink(2)]
    pub fn read_link(self, number: Inode) -> FsResult {
        match &self.inode(number)?.body {
            Body::Symlink { target } => Ok(FsReply::Target(target.to_vec())),
            _ => Err(FsError::Invalid),
        }
    }

    /// Errors: `Stale`, `AccessDenied`, `Invalid` if `mask` has other bits. [access(2)]
    pub fn access(self, number: Inode, mask: u8) -> FsResult {
        let record = self.inode(number)?;
        if mask > 7 {
            return Err(FsError::Invalid);
        }
        self.caller.allow(record, mask)?;
        Ok(FsReply::Done)
    }

    /// The totals against `memory_budget`, or the account of the client's subtree against its limits: free inodes are as many
    /// empty files as the free memory would hold.
    pub fn stat_fs(self, memory_budget: u64) -> FsResult {
        let totals = totals(self.state);
        let free = memory_budget.saturating_sub(totals.bytes);
        let free_inodes = free / (cost::INODE_COST + cost::NAME_COST);
        let all = StatFs {
            block_size: PAGE as u32,
            blocks: memory_budget / PAGE as u64,
            free_blocks: free / PAGE as u64,
            inodes: totals.inodes.saturating_add(free_inodes),
            free_inodes,
        };
        Ok(FsReply::StatFs(within_limits(all, &account(self.state, Subject::Subtree(self.top)))))
    }
}
