//! create(2): the name and the open file in one request.

use super::convert::file_attr;
use super::extent;
use super::opening::Holding;
use super::write_buffer::WriteBuffer;
use bfs_fs::op::{Attributes, Caller, Inode, SetAttributes};
use fuser::{Errno, FileHandle, FopenFlags, Generation, ReplyCreate};
use std::sync::Arc;
use std::time::Duration;

/// What it takes to answer a create.
pub(super) struct Created {
    pub reply: ReplyCreate,
    pub holding: Holding,
    pub writes: Option<Arc<WriteBuffer>>,
    pub caller: Caller,
    pub ttl: Duration,
    pub open_flags: FopenFlags,
}

impl Created {
    pub fn answer(self, result: Result<Attributes, Errno>) {
        let a = match result {
            Ok(a) => a,
            Err(e) => return self.reply.error(e),
        };
        self.holding.seen.learn(&a);
        if let Some(writes) = &self.writes {
            // No removal on its way means this file: the kernel has locked the directory.
            let handle = self.holding.files.open(self.caller.clone(), a.inode);
            writes.opened(a.inode, handle.0);
            writes.created(a, self.ttl);
            return self.opened(&a, Ok(handle));
        }
        let (holding, caller) = (self.holding.clone(), self.caller.clone());
        holding.open(caller, a.inode, move |handle| self.opened(&a, handle));
    }

    fn opened(self, a: &Attributes, handle: Result<FileHandle, Errno>) {
        let generation = Generation(a.generation);
        match handle {
            Ok(handle) => {
                self.reply.created(&self.ttl, &file_attr(a), generation, handle, self.open_flags);
            }
            Err(e) => self.reply.error(e),
        }
    }

    /// The kernel took the name for free and another client has used it meanwhile: after a create it truncates nothing
    /// itself, and O_TRUNC would leave the tail of what the other wrote.
    pub fn truncate(self, inode: Inode) {
        let set = SetAttributes { size: Some(0), ..SetAttributes::default() };
        let (backend, caller) = (self.holding.backend.clone(), self.caller.clone());
        extent::set_attributes(backend, caller, inode, set, |result| self.answer(result));
    }
}
