//! Who may do what. [path_resolution(7), inode(7), credentials(7)]

use crate::object::{Body, InodeRecord};
use crate::op::{Caller, FsError};

pub(crate) const READ: u8 = 4;
pub(crate) const WRITE: u8 = 2;
pub(crate) const EXECUTE: u8 = 1;

/// The bits that a mode has.
pub(crate) const MODE_BITS: u16 = 0o7777;
pub(crate) const SET_UID: u16 = 0o4000;
pub(crate) const SET_GID: u16 = 0o2000;
pub(crate) const STICKY: u16 = 0o1000;
const GROUP_EXECUTE: u16 = 0o010;
const ANY_EXECUTE: u16 = 0o111;

impl Caller {
    /// Whether the caller has every right. [capabilities(7)]
    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether the caller is in the group `gid`.
    pub(crate) fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Whether the caller owns the inode or may act as if.
    pub(crate) fn owns(&self, inode: &InodeRecord) -> bool {
        self.is_root() || self.uid == inode.uid
    }

    /// Whether all of the `mask` bits are granted.
    pub(crate) fn may(&self, inode: &InodeRecord, mask: u8) -> bool {
        if self.is_root() {
            // Root executes only what somebody may execute.
            return mask & EXECUTE == 0 || inode.is_directory() || inode.mode & ANY_EXECUTE != 0;
        }
        let class = if self.uid == inode.uid {
            inode.mode >> 6
        } else if self.is_in(inode.gid) {
            inode.mode >> 3
        } else {
            inode.mode
        };
        u16::from(mask) & !class == 0
    }

    /// Errors: `AccessDenied` unless all of the `mask` bits are granted.
    pub(crate) fn allow(&self, inode: &InodeRecord, mask: u8) -> Result<(), FsError> {
        if self.may(inode, mask) { Ok(()) } else { Err(FsError::AccessDenied) }
    }

    /// Errors: `AccessDenied` unless the caller may read or write the data of `file`, whichever `mask` says.
    ///
    /// The kernel checked when the file was opened and the mode may have changed since, so the owner always may, and
    /// whoever may execute a file may read it. [RFC 1813 §4.4]
    pub(crate) fn allow_data(&self, file: &InodeRecord, mask: u8) -> Result<(), FsError> {
        let executes = mask == READ && self.may(file, EXECUTE);
        if self.owns(file) || executes { Ok(()) } else { self.allow(file, mask) }
    }

    /// Whether the caller may take `victim` out of `directory` or put something else in its place. [inode(7): sticky bit]
    ///
    /// Errors: `AccessDenied`, `NotPermitted`.
    pub(crate) fn allow_removal(
        &self,
        directory: &InodeRecord,
        victim: &InodeRecord,
    ) -> Result<(), FsError> {
        self.allow(directory, WRITE | EXECUTE)?;
        let guarded = directory.mode & STICKY != 0;
        if guarded && !self.owns(directory) && !self.owns(victim) {
            return Err(FsError::NotPermitted);
        }
        Ok(())
    }

    /// The mode of `inode` once what it may run as is no longer vouched for. [chown(2), write(2)]
    ///
    /// A set-group-id bit without group execution means no program, and stays with members of the group.
    pub(crate) fn without_set_id(&self, inode: &InodeRecord) -> u16 {
        let member = self.is_root() || self.is_in(inode.gid);
        if inode.mode & GROUP_EXECUTE != 0 || !member {
            inode.mode & !(SET_UID | SET_GID)
        } else {
            inode.mode & !SET_UID
        }
    }

    /// The group and the mode of what the caller makes in `directory`. [inode(7): set-group-ID bit]
    pub(crate) fn inherited(&self, directory: &InodeRecord, body: &Body, mode: u16) -> (u32, u16) {
        let is_directory = matches!(body, Body::Directory { .. });
        if directory.mode & SET_GID == 0 {
            return (self.gid, mode);
        }
        let member = self.is_root() || self.is_in(directory.gid);
        let mode = match is_directory {
            true => mode | SET_GID,
            false if mode & GROUP_EXECUTE != 0 && !member => mode & !SET_GID,
            false => mode,
        };
        (directory.gid, mode)
    }
}
