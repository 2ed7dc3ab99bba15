//! open(2). The kernel has looked the name up and checked permission, and truncates by a setattr of its own.

use super::Front;
use super::answer::{attributes, unfit};
use super::open_files::OpenFiles;
use super::seen::Verdict;
use super::write_buffer::WriteBuffer;
use crate::backend::Backend;
use bfs_fs::op::{Caller, FsOp, FsReply, FsRequest, Inode};
use fuser::{Errno, FileHandle, FopenFlags, INodeNo, ReplyOpen, Request};
use std::sync::Arc;

impl Front {
    pub(super) fn answer_open(&self, request: &Request, inode: INodeNo, reply: ReplyOpen) {
        let (caller, inode) = (self.callers.of(request), Inode(inode.0));
        match &self.writes {
            Some(writes) => self.open_close_to_open(request, caller, inode, writes, reply),
            None => self.open_strict(caller, inode, reply),
        }
    }

    fn open_strict(&self, caller: Caller, inode: Inode, reply: ReplyOpen) {
        let flags = self.open_flags;
        open_held(&*self.backend, self.files.clone(), caller, inode, move |handle| match handle {
            Ok(handle) => reply.opened(handle, flags),
            Err(e) => reply.error(e),
        });
    }

    /// What another client has closed is seen by who opens the file here.
    fn open_close_to_open(
        &self,
        request: &Request,
        caller: Caller,
        inode: Inode,
        writes: &Arc<WriteBuffer>,
        reply: ReplyOpen,
    ) {
        let (files, writes) = (self.files.clone(), writes.clone());
        let open = move |caller| -> FileHandle {
            let handle = files.open(caller, inode, false);
            writes.opened(inode, handle.0);
            handle
        };
        let flags = self.open_flags;
        if !self.revalidates || self.seen.is_fresh(request.pid(), inode) {
            return reply.opened(open(caller), flags);
        }
        let (seen, kernel, thread) = (self.seen.clone(), self.kernel.clone(), request.pid());
        let op = FsOp::GetAttributes { inode };
        let request = FsRequest { caller: caller.clone(), op };
        let asked = move |result| match attributes(result).map(|a| seen.judge(thread, &a)) {
            Ok(Verdict::Same) => reply.opened(open(caller), flags),
            // The kernel walks the path once more and asks for every name on it. [path_openat in Linux's fs/namei.c]
            Ok(Verdict::Newer) => reply.error(Errno::ESTALE),
            Ok(Verdict::NewerAgain) => {
                kernel.forget_attributes(inode);
                reply.opened(open(caller), flags & !FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(e) => reply.error(e),
        };
        self.backend.call(request, Box::new(asked));
    }
}

/// Opens `inode` once the group holds it, and tells `done`.
///
/// Errors: `ESTALE` for a file that is gone, and those of the group.
pub(super) fn open_held(
    backend: &dyn Backend,
    files: Arc<OpenFiles>,
    caller: Caller,
    inode: Inode,
    done: impl FnOnce(Result<FileHandle, Errno>) + Send + 'static,
) {
    if files.is_held(inode) {
        return done(Ok(files.open(caller, inode, false)));
    }
    let request = FsRequest { caller: caller.clone(), op: FsOp::Hold { inodes: vec![inode] } };
    let held = move |result| match result {
        Ok(FsReply::Held { missing }) if missing.is_empty() => {
            done(Ok(files.open(caller, inode, true)));
        }
        Ok(FsReply::Held { .. }) => done(Err(Errno::ESTALE)),
        other => done(Err(unfit(other))),
    };
    backend.call(request, Box::new(held));
}
