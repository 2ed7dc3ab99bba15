//! What tests of the front have in common.

use bfs_fs::op::{Attributes, Inode, Kind, Timestamp};

/// Those of an empty file without permissions, made in 1970.
pub fn attributes(inode: u64) -> Attributes {
    Attributes {
        inode: Inode(inode),
        generation: 0,
        kind: Kind::File,
        mode: 0,
        links: 1,
        uid: 0,
        gid: 0,
        device: 0,
        size: 0,
        blocks: 0,
        accessed: Timestamp::default(),
        modified: Timestamp::default(),
        changed: Timestamp::default(),
        has_xattrs: false,
    }
}
