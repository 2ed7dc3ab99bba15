//! Ranges of files: what one kernel request asks for may take several operations, each of them bounded.

use super::Front;
use super::answer::{attributes, unfit, written};
use crate::backend::Backend;
use bfs_fs::op::{
    AllocateMode, Attributes, Caller, FsOp, FsReply, FsRequest, Inode, MAX_IO, SeekTarget,
    SetAttributes,
};
use fuser::{Errno, FileHandle, INodeNo, ReplyEmpty, ReplyLseek, ReplyWrite, Request};
use std::sync::Arc;

/// Sets attributes; a size that takes several steps is asked for until it is reached.
pub(super) fn set_attributes(
    backend: Arc<dyn Backend>,
    caller: Caller,
    inode: Inode,
    set: SetAttributes,
    done: impl FnOnce(Result<Attributes, Errno>) + Send + 'static,
) {
    let request = FsRequest { caller: caller.clone(), op: FsOp::SetAttributes { inode, set } };
    let again = backend.clone();
    backend.call(
        request,
        Box::new(move |result| match (attributes(result), set.size) {
            (Ok(a), Some(size)) if a.size != size => {
                set_attributes(again, caller, inode, set, done);
            }
            (result, _) => done(result),
        }),
    );
}

/// What fallocate(2) asks for; nothing for what is not offered.
fn allocate_mode(mode: i32) -> Option<AllocateMode> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Some(AllocateMode::Reserve { keep_size }),
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => Some(AllocateMode::Punch),
        libc::FALLOC_FL_ZERO_RANGE => Some(AllocateMode::Zero { keep_size }),
        _ => None,
    }
}

/// A range that is being worked on.
struct Allocation {
    backend: Arc<dyn Backend>,
    caller: Caller,
    inode: Inode,
    offset: u64,
    length: u64,
    how: AllocateMode,
    reply: ReplyEmpty,
}

impl Allocation {
    fn step(mut self) {
        let Self { inode, offset, length, how, .. } = self;
        let op = FsOp::Allocate { inode, offset, length, how };
        let request = FsRequest { caller: self.caller.clone(), op };
        let backend = self.backend.clone();
        backend.call(
            request,
            Box::new(move |result| match result {
                Ok(FsReply::Allocated { length: done, .. }) if done >= length => self.reply.ok(),
                // Each step comes further, so this ends.
                Ok(FsReply::Allocated { length: done @ 1.., .. }) => {
                    self.offset += done;
                    self.length -= done;
                    self.step();
                }
                other => self.reply.error(unfit(other)),
            }),
        );
    }
}

/// A search that goes on until it is found or fails.
fn search(
    backend: Arc<dyn Backend>,
    caller: Caller,
    inode: Inode,
    offset: u64,
    target: SeekTarget,
    reply: ReplyLseek,
) {
    let op = FsOp::Seek { inode, offset, target };
    let request = FsRequest { caller: caller.clone(), op };
    let again = backend.clone();
    backend.call(
        request,
        Box::new(move |result| match result {
            Ok(FsReply::Position { offset: at, found: true }) => match i64::try_from(at) {
                Ok(at) => reply.offset(at),
                Err(_) => reply.error(Errno::EOVERFLOW),
            },
            Ok(FsReply::Position { offset: at, found: false }) if at > offset => {
                search(again, caller, inode, at, target, reply);
            }
            other => reply.error(unfit(other)),
        }),
    );
}

impl Front {
    pub(super) fn opener(&self, request: &Request, handle: FileHandle) -> Caller {
        self.files.opener(handle).unwrap_or_else(|| self.callers.of(request))
    }

    pub(super) fn allocate(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        (offset, length): (u64, u64),
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(how) = allocate_mode(mode) else { return reply.error(Errno::EOPNOTSUPP) };
        let (backend, caller) = (self.backend.clone(), self.opener(request, handle));
        Allocation { backend, caller, inode: Inode(inode.0), offset, length, how, reply }.step();
    }

    /// lseek(2) in the name of `caller`, as far as the kernel does not answer it.
    pub(super) fn seek(
        &self,
        caller: Caller,
        inode: Inode,
        (offset, whence): (i64, i32),
        reply: ReplyLseek,
    ) {
        let target = match whence {
            libc::SEEK_DATA => SeekTarget::Data,
            libc::SEEK_HOLE => SeekTarget::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        search(self.backend.clone(), caller, inode, offset, target, reply);
    }

    /// A copy is one operation, unless the two files were opened by different users: the right to read is the one's and
    /// the right to write the other's, so the data then comes here and goes back.
    pub(super) fn copy_range(
        &self,
        request: &Request,
        (from, source, from_offset): (INodeNo, FileHandle, u64),
        (to, target, to_offset): (INodeNo, FileHandle, u64),
        length: u64,
        reply: ReplyWrite,
    ) {
        let (reader, writer) = (self.opener(request, source), self.opener(request, target));
        let (from, to) = (Inode(from.0), Inode(to.0));
        if reader == writer {
            let op = FsOp::CopyRange { from, from_offset, to, to_offset, length };
            let request = FsRequest { caller: writer, op };
            return self.backend.call(request, Box::new(|result| written(result, reply)));
        }
        let count = length.min(u64::from(MAX_IO)) as u32;
        let op = FsOp::Read { inode: from, offset: from_offset, count };
        let backend = self.backend.clone();
        self.backend.call(
            FsRequest { caller: reader, op },
            Box::new(move |result| match result {
                Ok(FsReply::Data { data, .. }) => {
                    let op = FsOp::Write { inode: to, offset: to_offset, data };
                    let request = FsRequest { caller: writer, op };
                    backend.call(request, Box::new(|result| written(result, reply)));
                }
                other => reply.error(unfit(other)),
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_that_mean_something_else_are_refused() {
        use libc::{FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_PUNCH_HOLE};
        assert_eq!(allocate_mode(0), Some(AllocateMode::Reserve { keep_size: false }));
        assert_eq!(allocate_mode(1), Some(AllocateMode::Reserve { keep_size: true }));
        assert_eq!(allocate_mode(FALLOC_FL_PUNCH_HOLE | 1), Some(AllocateMode::Punch));
        assert_eq!(allocate_mode(0x10), Some(AllocateMode::Zero { keep_size: false }));
        assert_eq!(allocate_mode(0x11), Some(AllocateMode::Zero { keep_size: true }));
        for other in [FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, 0x40]
        {
            assert_eq!(allocate_mode(other), None, "{other}");
        }
    }
}
