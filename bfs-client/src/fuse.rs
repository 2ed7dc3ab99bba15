//! The FUSE front: one kernel request is one `FsOp`, and the answer goes back from whichever thread brings it.
//!
//! It translates and never decides. Nothing is queued here: the mount library's thread hands the request to the
//! [`Backend`] and takes the next one. What is not implemented below (poll, ioctl) answers ENOSYS by the
//! library's default, after which the kernel stops asking and emulates or refuses it.

mod bare;
mod callers;
mod convert;
mod extent;
mod lease;
mod lock;
mod open_files;
mod page;
mod xattr;

use crate::backend::Backend;
use crate::options::{Consistency, MountOptions};
use bare::Bare;
use bfs_fs::op::{
    Attributes, CreateMode, Entry, FsOp, FsReply, FsRequest, FsResult, Inode, Kind, MAX_IO,
    MAX_NAME, SetAttributes, StatFs,
};
use bytes::Bytes;
use callers::Callers;
use convert::{errno, file_attr, file_type, node_kind, permissions, rename_mode, set_time};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use lease::Keeper;
use lock::{Locks, Wanted};
use open_files::OpenFiles;
use page::PageBudget;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
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

fn empty(result: FsResult, reply: ReplyEmpty) {
    match result {
        Ok(_) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

fn attributes(result: FsResult) -> Result<Attributes, Errno> {
    match result.map_err(errno)? {
        FsReply::Attributes(attributes) => Ok(attributes),
        other => Err(misfit(&other)),
    }
}

fn entries(result: FsResult) -> Result<(Vec<Entry>, bool), Errno> {
    match result.map_err(errno)? {
        FsReply::Entries { entries, eof } => Ok((entries, eof)),
        other => Err(misfit(&other)),
    }
}

fn stat_fs(result: FsResult) -> Result<StatFs, Errno> {
    match result.map_err(errno)? {
        FsReply::StatFs(stat_fs) => Ok(stat_fs),
        other => Err(misfit(&other)),
    }
}

/// An answer to another question: no correct group gives it.
fn misfit(reply: &FsReply) -> Errno {
    let kind = match reply {
        FsReply::Done => "done",
        FsReply::Padding(_) => "padding",
        FsReply::Attributes(_) => "attributes",
        FsReply::Target(_) => "a link target",
        FsReply::Data { .. } => "data",
        FsReply::Written { .. } => "a count",
        FsReply::Entries { .. } => "entries",
        FsReply::Position { .. } => "a position",
        FsReply::Allocated { .. } => "an allocation",
        FsReply::Kept(_) | FsReply::Held { .. } => "what is held open",
        FsReply::Lease { .. } => "a lease",
        FsReply::Waiting | FsReply::Refused | FsReply::Conflict(_) => "what became of a lock",
        FsReply::Export(_) | FsReply::Account(_) => "what clients may do",
        FsReply::Value(_) => "an extended attribute",
        FsReply::Names(_) => "names of extended attributes",
        FsReply::StatFs(_) => "file system statistics",
    };
    tracing::error!(
        "input/output error: the group answered with {kind}, which does not fit the request"
    );
    Errno::EIO
}

fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

impl Filesystem for Front {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Writes are never gathered in the kernel: their errors must reach whoever wrote.
        let wanted = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_ASYNC_DIO,
            // The state machine takes set-id bits and capabilities away itself; the kernel would ask in the name of a writer
            // who may not, and the first form alone would have it look for capabilities before every write.
            InitFlags::FUSE_HANDLE_KILLPRIV,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            // An inode number is never used twice and a target never changes.
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ];
        for capability in wanted {
            // What an older kernel lacks only makes it slower.
            let _ = config.add_capabilities(capability);
        }
        if self.locks_are_shared {
            let locks = InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS;
            self.locks_are_shared = config.add_capabilities(locks).is_ok();
            if !self.locks_are_shared {
                tracing::warn!("this kernel keeps locks to itself: they hold on this machine only");
            }
        }
        // The kernel drops a file's pages when it learns of another size or modification time.
        let revalidates = config.add_capabilities(InitFlags::FUSE_AUTO_INVAL_DATA).is_ok();
        self.open_flags = match (self.strict, revalidates) {
            (true, _) => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
            (false, true) => FopenFlags::FOPEN_KEEP_CACHE,
            (false, false) => FopenFlags::empty(),
        };
        let nearest = |result: Result<u32, u32>| result.err();
        if let Some(most) = nearest(config.set_max_readahead(MAX_IO)) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_write(MAX_IO);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn destroy(&mut self) {
        self.keeper.take();
        if let Some(ended) = self.ended.take() {
            // Nobody listens any more when the process is about to end.
            let _ = ended.send(());
        }
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let op = FsOp::Lookup { parent: Inode(parent.0), name: bytes(name) };
        self.answer_entry(request, op, reply);
    }

    /// Nothing is kept per inode.
    fn forget(&self, _: &Request, _: INodeNo, _: u64) {}

    fn getattr(&self, request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let (ttl, bare) = (self.ttl, self.bare.clone());
        self.call(request, FsOp::GetAttributes { inode: Inode(inode.0) }, move |result| {
            match attributes(result) {
                Ok(a) => {
                    bare.learn(&a);
                    reply.attr(&ttl, &file_attr(&a));
                }
                Err(e) => reply.error(e),
            }
        });
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttributes {
            mode: mode.map(|mode| permissions(mode, 0)),
            uid,
            gid,
            size,
            accessed: accessed.map(set_time),
            modified: modified.map(set_time),
        };
        let caller = match handle {
            // ftruncate(2): allowed by how the file was opened.
            Some(handle) if size.is_some() => self.opener(request, handle),
            _ => self.callers.of(request),
        };
        let ttl = self.ttl;
        let done = move |result| match result {
            Ok(a) => reply.attr(&ttl, &file_attr(&a)),
            Err(e) => reply.error(e),
        };
        extent::set_attributes(self.backend.clone(), caller, Inode(inode.0), set, done);
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        self.call(request, FsOp::ReadLink { inode: Inode(inode.0) }, move |result| match result {
            Ok(FsReply::Target(target)) => reply.data(&target),
            Ok(other) => reply.error(misfit(&other)),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let (parent, name) = (Inode(parent.0), bytes(name));
        let permissions = permissions(mode, umask);
        let op = match node_kind(mode) {
            None => return reply.error(Errno::EINVAL),
            Some(Kind::File) => {
                FsOp::Create { parent, name, mode: permissions, how: CreateMode::Guarded }
            }
            Some(kind) => FsOp::MakeNode { parent, name, kind, mode: permissions, device },
        };
        self.answer_entry(request, op, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let mode = permissions(mode, umask);
        let op = FsOp::MakeDirectory { parent: Inode(parent.0), name: bytes(name), mode };
        self.answer_entry(request, op, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let keep = self.files.keep();
        let op = FsOp::Unlink { parent: Inode(parent.0), name: bytes(name), keep };
        self.answer_removal(request, op, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let keep = self.files.keep();
        let op = FsOp::RemoveDirectory { parent: Inode(parent.0), name: bytes(name), keep };
        self.answer_removal(request, op, reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = bytes(target.as_os_str());
        let op = FsOp::Symlink { parent: Inode(parent.0), name: bytes(name), target };
        self.answer_entry(request, op, reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(how) = rename_mode(flags) else { return reply.error(Errno::EINVAL) };
        let op = FsOp::Rename {
            from: Inode(parent.0),
            name: bytes(name),
            to: Inode(new_parent.0),
            new_name: bytes(new_name),
            how,
            keep: self.files.keep(),
        };
        self.answer_removal(request, op, reply);
    }

    fn link(
        &self,
        request: &Request,
        inode: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let op = FsOp::Link { inode: Inode(inode.0), parent: Inode(parent.0), name: bytes(name) };
        self.answer_entry(request, op, reply);
    }

    fn open(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer_open(request, inode, self.open_flags, reply);
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let op = FsOp::Read { inode: Inode(inode.0), offset, count: size.min(MAX_IO) };
        self.call_opened(request, handle, op, move |result| match result {
            Ok(FsReply::Data { data, .. }) => reply.data(&data),
            Ok(other) => reply.error(misfit(&other)),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn write(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let op = FsOp::Write { inode: Inode(inode.0), offset, data: Bytes::copy_from_slice(data) };
        self.call_opened(request, handle, op, move |result| extent::written(result, reply));
    }

    /// Nothing is buffered, so close(2) has nothing to wait for but locks; without them ENOSYS means success and tells the
    /// kernel not to ask again.
    fn flush(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        match self.locks_are_shared {
            true => self.unlock_on_close(request, inode, owner, reply),
            false => reply.error(Errno::ENOSYS),
        }
    }

    fn release(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        owner: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let is_last = self.files.release(handle);
        self.unlock_on_release(request, Inode(inode.0), owner, is_last);
        reply.ok();
    }

    fn getlk(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        self.get_lock(request, inode, &Wanted { owner, start, end, kind, pid }, reply);
    }

    fn setlk(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        self.set_lock(request, inode, &Wanted { owner, start, end, kind, pid }, wait, reply);
    }

    fn fsync(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let op = FsOp::Sync { inode: Inode(inode.0) };
        self.call_opened(request, handle, op, move |result| empty(result, reply));
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.files.open(self.callers.of(request), Inode(inode.0), false);
        reply.opened(handle, FopenFlags::empty());
    }

    fn readdir(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let page = self.plain_page.clone();
        let op = FsOp::ReadDirectory { inode: Inode(inode.0), cookie: offset, budget: page.get() };
        self.call_opened(request, handle, op, move |result| {
            let (entries, eof) = match entries(result) {
                Ok(entries) => entries,
                Err(e) => return reply.error(e),
            };
            let fits = |e: &&Entry| {
                let a = &e.attributes;
                !reply.add(
                    INodeNo(a.inode.0),
                    e.cookie,
                    file_type(a.kind),
                    OsStr::from_bytes(&e.name),
                )
            };
            let taken = entries.iter().take_while(fits).count();
            page.learn(&entries, taken, eof);
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (page, ttl, bare) = (self.plus_page.clone(), self.ttl, self.bare.clone());
        let op = FsOp::ReadDirectory { inode: Inode(inode.0), cookie: offset, budget: page.get() };
        self.call_opened(request, handle, op, move |result| {
            let (entries, eof) = match entries(result) {
                Ok(entries) => entries,
                Err(e) => return reply.error(e),
            };
            let fits = |e: &&Entry| {
                let a = &e.attributes;
                bare.learn(a);
                let (name, attr) = (OsStr::from_bytes(&e.name), file_attr(a));
                !reply.add(attr.ino, e.cookie, name, &ttl, &attr, Generation(a.generation))
            };
            let taken = entries.iter().take_while(fits).count();
            page.learn(&entries, taken, eof);
            reply.ok();
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.files.release(handle);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.fsync(request, inode, handle, datasync, reply);
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.call(request, FsOp::StatFs, move |result| match stat_fs(result) {
            Ok(s) => reply.statfs(
                s.blocks,
                s.free_blocks,
                s.free_blocks,
                s.inodes,
                s.free_inodes,
                s.block_size,
                MAX_NAME as u32,
                s.block_size,
            ),
            Err(e) => reply.error(e),
        });
    }

    fn access(&self, request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let op = FsOp::Access { inode: Inode(inode.0), mask: (mask.bits() & 7) as u8 };
        self.answer_empty(request, op, reply);
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.set_xattr(request, inode, name, value, flags, reply);
    }

    fn getxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        self.get_xattr(request, inode, name, size, reply);
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        self.list_xattrs(request, inode, size, reply);
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove_xattr(request, inode, name, reply);
    }

    fn fallocate(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.allocate(request, inode, handle, (offset, length), mode, reply);
    }

    fn lseek(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.seek(request, inode, handle, offset, whence, reply);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        source: FileHandle,
        from_offset: u64,
        to: INodeNo,
        target: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((from, source, from_offset), (to, target, to_offset));
        self.copy_range(request, from, to, length, reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let how = match flags & libc::O_EXCL != 0 {
            true => CreateMode::Guarded,
            false => CreateMode::Unchecked,
        };
        let op = FsOp::Create {
            parent: Inode(parent.0),
            name: bytes(name),
            mode: permissions(mode, umask),
            how,
        };
        let caller = self.callers.of(request);
        let created = Created {
            reply,
            files: self.files.clone(),
            bare: self.bare.clone(),
            caller: caller.clone(),
            ttl: self.ttl,
            open_flags: self.open_flags,
        };
        let truncate = flags & libc::O_TRUNC != 0;
        let backend = self.backend.clone();
        self.backend.call(
            FsRequest { caller, op },
            Box::new(move |result| match attributes(result) {
                Ok(a) if truncate && a.size > 0 => created.truncate(backend, a.inode),
                result => created.answer(result),
            }),
        );
    }
}

/// What it takes to answer a create.
struct Created {
    reply: ReplyCreate,
    files: Arc<OpenFiles>,
    bare: Arc<Bare>,
    caller: bfs_fs::op::Caller,
    ttl: Duration,
    open_flags: FopenFlags,
}

impl Created {
    fn answer(self, result: Result<Attributes, Errno>) {
        match result {
            Ok(a) => {
                self.bare.learn(&a);
                let handle = self.files.open(self.caller, a.inode, false);
                let generation = Generation(a.generation);
                self.reply.created(&self.ttl, &file_attr(&a), generation, handle, self.open_flags);
            }
            Err(e) => self.reply.error(e),
        }
    }

    /// The kernel took the name for free and another client has used it meanwhile: after a create it truncates nothing
    /// itself, and O_TRUNC would leave the tail of what the other wrote.
    fn truncate(self, backend: Arc<dyn Backend>, inode: Inode) {
        let set = SetAttributes { size: Some(0), ..SetAttributes::default() };
        let caller = self.caller.clone();
        extent::set_attributes(backend, caller, inode, set, |result| self.answer(result));
    }
}
