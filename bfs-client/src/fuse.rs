//! The FUSE front: one kernel request is one `FsOp`, and the answer goes back from whichever thread brings it.
//!
//! It translates and never decides. Nothing is queued here: the mount library's thread hands the request to the
//! [`Backend`] and takes the next one. What is not implemented below (poll, ioctl) answers ENOSYS by the
//! library's default, after which the kernel stops asking and emulates or refuses it.

mod answer;
mod bare;
mod callers;
mod convert;
mod create;
mod extent;
mod lease;
mod lock;
mod open_files;
mod page;
mod requests;
mod xattr;

use crate::backend::Backend;
use crate::options::{Consistency, MountOptions};
use answer::{attributes, empty, misfit};
use bare::Bare;
use bfs_fs::op::{FsOp, FsReply, FsRequest, FsResult, Inode};
use callers::Callers;
use convert::{errno, file_attr};
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, ReplyEmpty, ReplyEntry, ReplyOpen, Request,
};
use lease::Keeper;
use lock::Locks;
use open_files::OpenFiles;
use page::PageBudget;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The most requests that the kernel sends ahead of answers (readahead, direct I/O).
const MAX_BACKGROUND: u16 = 128;

/// Serves one mount.
pub struct Front {
    backend: Arc<dyn Backend>,
    callers: Callers,
    files: Arc<OpenFiles>,
    bare: Arc<Bare>,
    locks: Arc<Locks>,
    /// Whether locks are the group's, or stay in this kernel.
    locks_are_shared: bool,
    /// How long the kernel may trust names and attributes.
    ttl: Duration,
    strict: bool,
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
        let files = Arc::default();
        Self {
            keeper: Some(Keeper::start(&backend, &files)),
            backend,
            callers: Callers::default(),
            files,
            bare: Arc::new(Bare::new(options.ttl())),
            locks: Arc::default(),
            locks_are_shared: options.locks,
            ttl: options.ttl(),
            strict: options.consistency == Consistency::Strict,
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
        let (ttl, bare) = (self.ttl, self.bare.clone());
        self.call(request, op, move |result| match attributes(result) {
            Ok(a) => {
                bare.learn(&a);
                reply.entry(&ttl, &file_attr(&a), Generation(a.generation));
            }
            Err(e) => reply.error(e),
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
    fn answer_removal(&self, request: &Request, op: FsOp, reply: ReplyEmpty) {
        let files = self.files.clone();
        self.call(request, op, move |result| {
            if let Ok(FsReply::Kept(inode)) = result {
                files.kept(inode);
            }
            empty(result, reply);
        });
    }

    /// Answers open(2): the kernel has looked the name up and checked permission, and truncates by a setattr of its own. Under
    /// `strict` the group holds the file first.
    fn answer_open(&self, request: &Request, inode: INodeNo, flags: FopenFlags, reply: ReplyOpen) {
        let (caller, inode) = (self.callers.of(request), Inode(inode.0));
        if !self.strict || self.files.is_held(inode) {
            return reply.opened(self.files.open(caller, inode, false), flags);
        }
        let files = self.files.clone();
        self.call(request, FsOp::Hold { inodes: vec![inode] }, move |result| match result {
            Ok(FsReply::Held { missing }) if missing.is_empty() => {
                reply.opened(files.open(caller, inode, true), flags);
            }
            Ok(FsReply::Held { .. }) => reply.error(Errno::ESTALE),
            Ok(other) => reply.error(misfit(&other)),
            Err(e) => reply.error(errno(e)),
        });
    }
}

fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}
