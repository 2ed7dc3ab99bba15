//! create(2): the name and the open file in one request.

use super::convert::file_attr;
use super::extent;
use super::open_files::OpenFiles;
use super::opening::open_held;
use super::seen::Seen;
use super::write_buffer::WriteBuffer;
use crate::backend::Backend;
use bfs_fs::op::{Attributes, Caller, Inode, SetAttributes};
use fuser::{Errno, FileHandle, FopenFlags, Generation, ReplyCreate};
use std::sync::Arc;
use std::time::Duration;

/// What it takes to answer a create.
pub(super) struct Created {
    pub reply: ReplyCreate,
    pub backend: Arc<dyn Backend>,
    pub files: Arc<OpenFiles>,
    pub writes: Option<Arc<WriteBuffer>>,
    pub seen: Arc<Seen>,
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
        self.seen.learn(&a);
        if let Some(writes) = &self.writes {
            let handle = self.files.open(self.caller.clone(), a.inode, false);
            writes.opened(a.inode, handle.0);
            writes.created(a, self.ttl);
            return self.opened(&a, Ok(handle));
        }
        let (backend, files, caller) =
            (self.backend.clone(), self.files.clone(), self.caller.clone());
        open_held(&*backend, files, caller, a.inode, move |handle| self.opened(&a, handle));
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
        let (backend, caller) = (self.backend.clone(), self.caller.clone());
        extent::set_attributes(backend, caller, inode, set, |result| self.answer(result));
    }
}
