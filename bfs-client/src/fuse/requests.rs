//! The kernel's requests, one by one: what each asks for as one operation.

use super::answer::{entries, stat_fs, unfit};
use super::convert::{file_attr, file_type, node_kind, permissions, rename_mode, set_time};
use super::create::Created;
use super::lock::Wanted;
use super::writing::Manner;
use super::{Front, MAX_BACKGROUND, attributes, bytes, extent, xattr};
use bfs_fs::op::{
    CreateMode, Entry, FsOp, FsReply, FsRequest, Inode, Keep, Kind, MAX_IO, MAX_NAME, SetAttributes,
};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

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
        if let Some(writes) = &self.writes {
            writes.end();
        }
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

    fn getattr(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        if let (Some(_), Some(writes)) = (handle, &self.writes)
            && let Some(a) = writes.attributes(Inode(inode.0))
        {
            // Only with a handle: then the kernel itself asks, how far read(2) or lseek(2) may go. [fuse_update_attributes]
            return reply.attr(&Duration::ZERO, &file_attr(&a));
        }
        let (ttl, seen) = (self.ttl, self.seen.clone());
        self.call(request, FsOp::GetAttributes { inode: Inode(inode.0) }, move |result| {
            match attributes(result) {
                Ok(a) => {
                    seen.learn(&a);
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
        let (ttl, seen) = (self.ttl, self.seen.clone());
        let done = move |result| match result {
            Ok(a) => {
                seen.learn(&a);
                reply.attr(&ttl, &file_attr(&a));
            }
            Err(e) => reply.error(e),
        };
        extent::set_attributes(self.backend.clone(), caller, Inode(inode.0), set, done);
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        self.call(request, FsOp::ReadLink { inode: Inode(inode.0) }, move |result| match result {
            Ok(FsReply::Target(target)) => reply.data(&target),
            other => reply.error(unfit(other)),
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
        let (keep, removal) = self.files.remove();
        let op = FsOp::Unlink { parent: Inode(parent.0), name: bytes(name), keep };
        self.answer_removal(request, op, removal, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (keep, removal) = self.files.remove();
        let op = FsOp::RemoveDirectory { parent: Inode(parent.0), name: bytes(name), keep };
        self.answer_removal(request, op, removal, reply);
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
            // Whoever has found the old file by its name meanwhile opens it, as on any local file system.
            keep: Keep::Whatever,
        };
        self.answer_removal(request, op, self.files.replace(), reply);
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
        self.answer_open(request, inode, reply);
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
        let (inode, count) = (Inode(inode.0), size.min(MAX_IO));
        if let Some(data) = self.writes.as_ref().and_then(|w| w.read(inode, offset, count)) {
            return reply.data(&data);
        }
        let op = FsOp::Read { inode, offset, count };
        self.call_opened(request, handle, op, move |result| match result {
            Ok(FsReply::Data { data, .. }) => reply.data(&data),
            other => reply.error(unfit(other)),
        });
    }

    fn write(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        open_flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let manner = Manner { flags, open_flags };
        self.write_data(request, (inode, handle), (offset, data), &manner, reply);
    }

    fn flush(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.close(request, inode, handle, owner, reply);
    }

    fn release(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.end_open(request, inode, handle);
        reply.ok();
    }

    fn getlk(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        self.get_lock(request, inode, handle, &Wanted { owner, start, end, kind, pid }, reply);
    }

    fn setlk(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        let wanted = Wanted { owner, start, end, kind, pid };
        self.set_lock(request, inode, handle, &wanted, wait, reply);
    }

    fn fsync(&self, _: &Request, inode: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(inode, handle, reply);
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer_open_directory(request, inode, reply);
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
        let (page, ttl, seen) = (self.plus_page.clone(), self.ttl, self.seen.clone());
        let op = FsOp::ReadDirectory { inode: Inode(inode.0), cookie: offset, budget: page.get() };
        self.call_opened(request, handle, op, move |result| {
            let (entries, eof) = match entries(result) {
                Ok(entries) => entries,
                Err(e) => return reply.error(e),
            };
            let fits = |e: &&Entry| {
                let a = &e.attributes;
                let (name, attr) = (OsStr::from_bytes(&e.name), file_attr(a));
                !reply.add(attr.ino, e.cookie, name, &ttl, &attr, Generation(a.generation))
            };
            // The kernel never hears of one that does not fit.
            let told = |e: &&Entry| seen.learn(&e.attributes);
            let taken = entries.iter().take_while(fits).inspect(told).count();
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

    /// Names are never kept here: ENOSYS means success and tells the kernel not to ask again.
    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
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
        match xattr::set(inode, name, value, flags) {
            Ok(op) => {
                self.seen.bare.forget(inode.0);
                self.answer_change(request, op, reply);
            }
            Err(e) => reply.error(e),
        }
    }

    fn getxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        self.get_xattr(request, (inode, name), size, reply);
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        self.list_xattrs(request, inode, size, reply);
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match xattr::remove(inode, name) {
            Ok(op) => self.answer_change(request, op, reply),
            Err(e) => reply.error(e),
        }
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
        let caller = self.opener(request, handle);
        self.seek(caller, Inode(inode.0), (offset, whence), reply);
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
            holding: self.holding(request.pid()),
            writes: self.writes.clone(),
            caller: caller.clone(),
            ttl: self.ttl,
            open_flags: self.open_flags,
        };
        let truncate = flags & libc::O_TRUNC != 0;
        self.backend.call(
            FsRequest { caller, op },
            Box::new(move |result| match attributes(result) {
                Ok(a) if truncate && a.size > 0 => created.truncate(a.inode),
                result => created.answer(result),
            }),
        );
    }
}
