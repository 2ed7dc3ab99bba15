//! write(2), and the two calls that tell what became of it: fsync(2) and close(2).

use super::Front;
use super::answer::{attributes, written};
use super::convert::errno;
use super::kernel::Kernel;
use super::write_buffer::WriteBuffer;
use crate::backend::Backend;
use bfs_fs::MAX_FILE_SIZE;
use bfs_fs::op::{Caller, FsOp, FsRequest, Inode};
use bytes::Bytes;
use fuser::{
    Errno, FileHandle, INodeNo, LockOwner, OpenFlags, ReplyEmpty, ReplyWrite, Request, WriteFlags,
};
use std::sync::Arc;

/// How the bytes of a write are to be treated.
pub(super) struct Manner {
    pub flags: WriteFlags,
    pub open_flags: OpenFlags,
}

impl Manner {
    /// Whether the writer waits for the group: it has asked for that, or it is the kernel, which writes what was mapped.
    fn is_through(&self) -> bool {
        let through = libc::O_SYNC | libc::O_DSYNC | libc::O_DIRECT;
        self.flags.contains(WriteFlags::FUSE_WRITE_CACHE) || self.open_flags.0 & through != 0
    }
}

/// Where a write goes, and in whose name.
struct Place {
    /// Where it is gathered, if it is.
    writes: Option<Arc<WriteBuffer>>,
    backend: Arc<dyn Backend>,
    caller: Caller,
    inode: Inode,
    handle: FileHandle,
}

impl Place {
    fn write(self, offset: u64, data: &[u8], reply: ReplyWrite) {
        let Self { writes, backend, caller, inode, handle } = self;
        // What cannot be is told at once.
        let is_possible = offset.checked_add(data.len() as u64).is_some_and(|e| e <= MAX_FILE_SIZE);
        match writes {
            Some(writes) if is_possible => {
                let count = data.len() as u32;
                writes.write(inode, handle.0, caller, (offset, data), move |taken| match taken {
                    Ok(()) => reply.written(count),
                    Err(e) => reply.error(errno(e)),
                });
            }
            _ => {
                let op = FsOp::Write { inode, offset, data: Bytes::copy_from_slice(data) };
                let done = move |result| written(result, reply);
                backend.call(FsRequest { caller, op }, Box::new(done));
            }
        }
    }

    /// Writes `data` where the file ends, wherever the kernel thinks that is. Its offset is from before this process had the lock
    /// under which others have appended.
    fn append(self, kernel: Kernel, offset: u64, data: Vec<u8>, reply: ReplyWrite) {
        let (backend, inode) = (self.backend.clone(), self.inode);
        let request = FsRequest { caller: self.caller.clone(), op: FsOp::GetAttributes { inode } };
        let found = move |result| match attributes(result) {
            Ok(a) => {
                if a.size == offset {
                    kernel.knows_the_end(inode);
                }
                self.write(a.size, &data, reply);
            }
            Err(e) => reply.error(e),
        };
        backend.call(request, Box::new(found));
    }
}

impl Front {
    pub(super) fn write_data(
        &self,
        request: &Request,
        (inode, handle): (INodeNo, FileHandle),
        (offset, data): (u64, &[u8]),
        manner: &Manner,
        reply: ReplyWrite,
    ) {
        let inode = Inode(inode.0);
        let place = Place {
            writes: self.writes.clone().filter(|_| !manner.is_through()),
            backend: self.backend.clone(),
            caller: self.opener(request, handle),
            inode,
            handle,
        };
        let is_mapped = manner.flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let appends = manner.open_flags.0 & libc::O_APPEND != 0 && !is_mapped;
        match appends && (self.strict || self.kernel.may_miss_the_end(inode)) {
            true => place.append(self.kernel.clone(), offset, data.to_vec(), reply),
            false => place.write(offset, data, reply),
        }
    }

    /// Whoever closes a file waits for what was written, and gives up the locks of the process. Where there is nothing to wait
    /// for, ENOSYS means success and tells the kernel not to ask again.
    pub(super) fn close(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        if self.writes.is_none() && !self.locks_are_shared {
            return reply.error(Errno::ENOSYS);
        }
        let inode = Inode(inode.0);
        let (locks, backend) = (self.locks.clone(), self.backend.clone());
        let caller = self.callers.of(request);
        self.settled(inode, move |writes| {
            let failure = writes.and_then(|writes| writes.failure_at_close(inode, handle.0));
            locks.close(backend, caller, inode, owner, move |unlocked| {
                match failure.map_or(unlocked, Err) {
                    Ok(()) => reply.ok(),
                    Err(e) => reply.error(errno(e)),
                }
            });
        });
    }

    /// Whoever syncs a file waits for what was written. The group has answered everything else before: it is in memory at 2f+1
    /// replicas, and nothing would be added by asking again. Where nothing is kept here, ENOSYS means success and tells the
    /// kernel not to ask again.
    pub(super) fn sync(&self, inode: INodeNo, handle: FileHandle, reply: ReplyEmpty) {
        if self.writes.is_none() {
            return reply.error(Errno::ENOSYS);
        }
        let inode = Inode(inode.0);
        self.settled(inode, move |writes| {
            match writes.and_then(|writes| writes.failure(inode, handle.0)) {
                None => reply.ok(),
                Some(e) => reply.error(errno(e)),
            }
        });
    }

    /// Runs `then` once the group has what was written to `inode`.
    fn settled(&self, inode: Inode, then: impl FnOnce(Option<&WriteBuffer>) + Send + 'static) {
        match &self.writes {
            None => then(None),
            Some(writes) => {
                let kept = writes.clone();
                writes.settle(inode, move || then(Some(&kept)));
            }
        }
    }

    /// An open file is gone.
    pub(super) fn end_open(&self, request: &Request, inode: INodeNo, handle: FileHandle) {
        let inode = Inode(inode.0);
        let is_last = self.files.release(handle);
        if let (true, Some(writes)) = (is_last, &self.writes) {
            writes.closed(inode);
        }
        if is_last {
            self.kernel.knows_the_end(inode);
        }
        self.unlock_on_release(request, inode, handle, is_last);
    }
}
