//! What things take of the memory budget: estimates of what they really take in a replica's memory.
//!
//! An empty file with a name of 18 bytes was measured at 680 bytes, a full page at 4,160 and a lone page at 4,360.
//!
//! They stand for one copy of the state. Kept versions (a checkpoint, a tentative batch) take more, but share with the
//! newest all that did not change.

use crate::object::{Body, PAGE};
use crate::op::Export;

/// An inode: its record, its leaf in the tree and its part of the nodes above. Units: bytes.
pub const INODE_COST: u64 = 384;
/// A directory entry besides its name. Units: bytes.
pub const NAME_COST: u64 = 320;
/// A chunk of file data besides its pages. Units: bytes.
pub const CHUNK_COST: u64 = 256;
/// A page of file data. Units: bytes.
pub const PAGE_COST: u64 = PAGE as u64 + 32;

/// An extended attribute besides its name and its value. Units: bytes.
pub const XATTR_COST: u64 = 320;

/// What a client has in an inode: at most what an entry takes, which pays for it when the last name goes. Units: bytes.
pub const STAKE_COST: u64 = 300;

/// A lock, or the wait for one. Units: bytes.
pub const LOCK_COST: u64 = 64;

/// What a user or a subtree has taken, and may take. Units: bytes.
pub const ACCOUNT_COST: u64 = 320;
/// What a client may do, besides the ranges of uids and gids. Units: bytes.
pub const EXPORT_COST: u64 = 384;

/// What `export` costs.
pub fn export(export: &Export) -> u64 {
    let ranges = size_of_val(export.uids.as_slice()) + size_of_val(export.gids.as_slice());
    EXPORT_COST + ranges as u64
}

/// What an extended attribute costs.
pub fn xattr(name: &[u8], value: usize) -> u64 {
    XATTR_COST + name.len() as u64 + value as u64
}

/// What an inode with this body costs, its data apart.
pub fn inode(body: &Body) -> u64 {
    match body {
        Body::Symlink { target } => INODE_COST + target.len() as u64,
        _ => INODE_COST,
    }
}

/// What an entry called `name` costs.
pub fn entry(name: &[u8]) -> u64 {
    NAME_COST + name.len() as u64
}

/// What file data costs.
pub fn data(chunks: u64, pages: u64) -> u64 {
    chunks * CHUNK_COST + pages * PAGE_COST
}
