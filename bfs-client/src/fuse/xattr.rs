//! Extended attributes. Lists of access rights (`system.posix_acl_*`) are refused here, without asking the group.

use super::answer::unfit;
use super::{Front, bytes};
use bfs_fs::op::{FsOp, FsReply, Inode, MAX_XATTR_LIST, XattrMode};
use bytes::Bytes;
use fuser::{Errno, INodeNo, ReplyXattr, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Whether the file system keeps such an attribute for nobody.
fn is_refused(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"system.")
}

/// Answers with `value`, or its size if that is what was asked for. [getxattr(2)]
fn answer(value: &[u8], size: u32, reply: ReplyXattr) {
    match size {
        0 => reply.size(value.len() as u32),
        _ if value.len() > size as usize => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// What setxattr(2) asks for.
///
/// Errors: flags that mean something else; names that are kept for nobody.
pub(super) fn set(inode: INodeNo, name: &OsStr, value: &[u8], flags: i32) -> Result<FsOp, Errno> {
    let how = match flags {
        0 => XattrMode::Set,
        libc::XATTR_CREATE => XattrMode::Create,
        libc::XATTR_REPLACE => XattrMode::Replace,
        _ => return Err(Errno::EINVAL),
    };
    if is_refused(name) {
        return Err(Errno::EOPNOTSUPP);
    }
    let value = Bytes::copy_from_slice(value);
    Ok(FsOp::SetXattr { inode: Inode(inode.0), name: bytes(name), value, how })
}

/// What removexattr(2) asks for.
///
/// Errors: names that are kept for nobody.
pub(super) fn remove(inode: INodeNo, name: &OsStr) -> Result<FsOp, Errno> {
    match is_refused(name) {
        true => Err(Errno::EOPNOTSUPP),
        false => Ok(FsOp::RemoveXattr { inode: Inode(inode.0), name: bytes(name) }),
    }
}

impl Front {
    pub(super) fn get_xattr(
        &self,
        request: &Request,
        (inode, name): (INodeNo, &OsStr),
        size: u32,
        reply: ReplyXattr,
    ) {
        if is_refused(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        if self.seen.bare.is_bare(inode.0) {
            return reply.error(Errno::ENODATA);
        }
        let op = FsOp::GetXattr { inode: Inode(inode.0), name: bytes(name) };
        self.call(request, op, move |result| match result {
            Ok(FsReply::Value(value)) => answer(&value, size, reply),
            other => reply.error(unfit(other)),
        });
    }

    pub(super) fn list_xattrs(
        &self,
        request: &Request,
        inode: INodeNo,
        size: u32,
        reply: ReplyXattr,
    ) {
        if self.seen.bare.is_bare(inode.0) {
            return answer(&[], size, reply);
        }
        self.call(
            request,
            FsOp::ListXattrs { inode: Inode(inode.0) },
            move |result| match result {
                Ok(FsReply::Names(names)) => {
                    let mut list = Vec::with_capacity(MAX_XATTR_LIST.min(64 * names.len()));
                    for name in names {
                        list.extend_from_slice(&name);
                        list.push(0);
                    }
                    answer(&list, size, reply);
                }
                other => reply.error(unfit(other)),
            },
        );
    }
}
