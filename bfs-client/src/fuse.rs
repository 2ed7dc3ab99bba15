//! The FUSE front: one kernel request is one `FsOp`, and the answer goes back from whichever thread brings it.
//!
//! It translates and never decides. The mount library's thread hands the request to the [`Backend`] and takes the next
//! one; under close-to-open, writes and what would notice them go through a write buffer. What is not implemented below
//! (poll, ioctl) answers ENOSYS by the library's default, after which the kernel stops asking and emulates or refuses it.

mod answer;
mod bare;
mod buffered;
mod callers;
mod convert;
mod create;
mod extent;
#[cfg(test)]
mod fixture;
pub mod kernel;
mod lease;
mod lock;
mod open_files;
mod opening;
mod page;
mod requests;
mod seen;
mod system_call;
pub mod write_buffer;
mod writing;
mod xattr;

use crate::backend::Backend;
use crate::options::{Consistency, MountOptions};
use answer::{attributes, empty};
use bfs_fs::op::{FsOp, FsReply, FsRequest, FsResult};
use buffered::Buffered;
use callers::Callers;
use convert::file_attr;
use fuser::{FileHandle, FopenFlags, Generation, ReplyEmpty, ReplyEntry, Request};
use kernel::Kernel;
use lease::Keeper;
use lock::Locks;
use open_files::{OpenFiles, Removal};
use page::PageBudget;
use seen::{Noting, Seen};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use system_call::SystemCall;
use tokio::sync::oneshot;
use write_buffer::WriteBuffer;

/// The most requests that the kernel sends ahead of answers (readahead, direct I/O).
const MAX_BACKGROUND: u16 = 128;

/// Serves one mount.
pub struct Front {
    backend: Arc<dyn Backend>,
    /// Where writes are gathered; not under `strict`.
    writes: Option<Arc<WriteBuffer>>,
    callers: Callers,
    files: Arc<OpenFiles>,
    seen: Arc<Seen>,
    kernel: Kernel,
    locks: Arc<Locks>,
    /// Whether locks are the group's, or stay in this kernel.
    locks_are_shared: bool,
    /// How long the kernel may trust names and attributes.
    ttl: Duration,
    strict: bool,
    /// Whether open(2) asks the group if the file is as the kernel knows it.
    revalidates: bool,
    /// What open(2) tells the kernel about its page cache.
    open_flags: FopenFlags,
    plain_page: Arc<PageBudget>,
    plus_page: Arc<PageBudget>,
    keeper: Option<Keeper>,
    /// Told when the kernel has ended the mount.
    ended: Option<oneshot::Sender<()>>,
}

impl Front {
    /// A front that sends its operations to `backend` under the consistency of `options`, and reports the end of the mount to `ended`.
    pub fn new(
        backend: Arc<dyn Backend>,
        options: &MountOptions,
        ended: oneshot::Sender<()>,
    ) -> Self {
        let (files, locks) = (Arc::default(), Arc::default());
        let keeper = Some(Keeper::start(&backend, &files, &locks));
        let strict = options.consistency == Consistency::Strict;
        let seen = Arc::new(Seen::new(options.ttl()));
        let backend = Arc::new(Noting::new(backend, seen.clone())) as Arc<dyn Backend>;
        let kernel = Kernel::default();
        let writes = (!strict).then(|| WriteBuffer::new(backend.clone(), kernel.clone()));
        let backend = match &writes {
            Some(writes) => Arc::new(Buffered::new(backend, writes.clone())) as Arc<dyn Backend>,
            None => backend,
        };
        Self {
            keeper,
            backend,
            writes,
            callers: Callers::default(),
            files,
            seen,
            kernel,
            revalidates: options.revalidates(),
            locks,
            locks_are_shared: options.locks,
            ttl: options.ttl(),
            strict,
            open_flags: FopenFlags::empty(),
            plain_page: Arc::default(),
            plus_page: Arc::default(),
            ended: Some(ended),
        }
    }

    /// Sends `op` on behalf of who sent `request`.
    fn call(&self, request: &Request, op: FsOp, done: impl FnOnce(FsResult) + Send + 'static) {
        let caller = self.callers.of(request);
        self.backend.call(FsRequest { caller, op }, Box::new(done));
    }

    /// Sends `op` on behalf of who opened `handle`.
    fn call_opened(
        &self,
        request: &Request,
        handle: FileHandle,
        op: FsOp,
        done: impl FnOnce(FsResult) + Send + 'static,
    ) {
        let caller = self.opener(request, handle);
        self.backend.call(FsRequest { caller, op }, Box::new(done));
    }

    fn answer_entry(&self, request: &Request, op: FsOp, reply: ReplyEntry) {
        let (ttl, seen, thread) = (self.ttl, self.seen.clone(), request.pid());
        let looks_up = self.revalidates && matches!(op, FsOp::Lookup { .. });
        let opens = looks_up && SystemCall::of(thread).is_some_and(|call| call.opens());
        let opens = opens.then(Instant::now);
        self.call(request, op, move |result| match attributes(result) {
            Ok(a) => {
                seen.look_up(thread, opens, &a);
                reply.entry(&ttl, &file_attr(&a), Generation(a.generation));
            }
            Err(e) => {
                seen.ended(thread);
                reply.error(e);
            }
        });
    }

    fn answer_empty(&self, request: &Request, op: FsOp, reply: ReplyEmpty) {
        self.call(request, op, move |result| empty(result, reply));
    }

    /// Sends an operation that answers the attributes it left, of which nobody is told.
    fn answer_change(&self, request: &Request, op: FsOp, reply: ReplyEmpty) {
        self.call(request, op, move |result| match attributes(result) {
            Ok(_) => reply.ok(),
            Err(e) => reply.error(e),
        });
    }

    /// Sends an operation that may take the last name of what is open here.
    fn answer_removal(&self, request: &Request, op: FsOp, removal: Removal, reply: ReplyEmpty) {
        let writes = self.writes.clone();
        self.call(request, op, move |result| {
            if let Ok(FsReply::Kept(inode)) = result {
                removal.keeps(inode);
                if let Some(writes) = writes {
                    writes.changed(inode);
                }
            }
            drop(removal);
            empty(result, reply);
        });
    }

    /// Where writes are gathered that the group does not have yet; nothing under `strict`.
    pub fn writes(&self) -> Option<Arc<WriteBuffer>> {
        self.writes.clone()
    }

    /// The way to the kernel, to be connected once the mount is made.
    pub fn kernel(&self) -> Kernel {
        self.kernel.clone()
    }
}

fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}
