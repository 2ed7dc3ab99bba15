//! create(2): the name and the open file in one request.

use super::convert::file_attr;
use super::extent;
use super::open_files::OpenFiles;
use super::seen::Seen;
use super::write_buffer::WriteBuffer;
use crate::backend::Backend;
use bfs_fs::op::{Attributes, Caller, Inode, SetAttributes};
use fuser::{Errno, FopenFlags, Generation, ReplyCreate};
use std::sync::Arc;
use std::time::Duration;

/// What it takes to answer a create.
pub(super) struct Created {
    pub reply: ReplyCreate,
    pub files: Arc<OpenFiles>,
    pub writes: Option<Arc<WriteBuffer>>,
    pub seen: Arc<Seen>,
    pub caller: Caller,
    pub ttl: Duration,
    pub open_flags: FopenFlags,
}

impl Created {
    pub fn answer(self, result: Result<Attributes, Errno>) {
        match result {
            Ok(a) => {
                self.seen.learn(&a);
                let handle = self.files.open(self.caller, a.inode, false);
                if let Some(writes) = &self.writes {
                    writes.opened(a.inode, handle.0);
                    writes.created(a, self.ttl);
                }
                let generation = Generation(a.generation);
                self.reply.created(&self.ttl, &file_attr(&a), generation, handle, self.open_flags);
            }
            Err(e) => self.reply.error(e),
        }
    }

    /// The kernel took the name for free and another client has used it meanwhile: after a create it truncates nothing
    /// itself, and O_TRUNC would leave the tail of what the other wrote.
    pub fn truncate(self, backend: Arc<dyn Backend>, inode: Inode) {
        let set = SetAttributes { size: Some(0), ..SetAttributes::default() };
        let caller = self.caller.clone();
        extent::set_attributes(backend, caller, inode, set, |result| self.answer(result));
    }
}
