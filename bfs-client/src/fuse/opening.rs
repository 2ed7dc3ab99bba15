//! open(2). The kernel has looked the name up and checked permission, and truncates by a setattr of its own.

use super::Front;
use super::answer::{attributes, unfit};
use super::open_files::{LINGER, OpenFiles};
use super::seen::{Seen, Verdict};
use super::write_buffer::WriteBuffer;
use crate::backend::Backend;
use bfs_fs::op::{Caller, FsError, FsOp, FsReply, FsRequest, Inode};
use fuser::{Errno, FileHandle, FopenFlags, INodeNo, ReplyOpen, Request};
use std::sync::Arc;
use std::time::Instant;

impl Front {
    pub(super) fn answer_open(&self, request: &Request, inode: INodeNo, reply: ReplyOpen) {
        let (caller, inode) = (self.callers.of(request), Inode(inode.0));
        match &self.writes {
            Some(writes) => self.open_close_to_open(request, caller, inode, writes, reply),
            None => {
                let flags = self.open_flags;
                let opened = move |handle| match handle {
                    Ok(handle) => reply.opened(handle, flags),
                    Err(e) => reply.error(e),
                };
                self.holding(request.pid()).open(caller, inode, opened);
            }
        }
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
        let (files, writes, backend) = (self.files.clone(), writes.clone(), self.backend.clone());
        let handle = files.open(caller.clone(), inode);
        let (flags, thread) = (self.open_flags, request.pid());
        // When the name led to it: what this mount has removed since may be this file.
        let named = match self.revalidates {
            true => self.seen.looked_up(thread, inode),
            false => Instant::now().checked_sub(LINGER),
        };
        let trusts = named.is_some_and(|named| !files.has_removed_since(named));
        let (seen, kernel) = (self.seen.clone(), self.kernel.clone());
        self.files.once_certain(inode, handle, move |unsure| {
            let opened = move |reply: ReplyOpen, flags| {
                writes.opened(inode, handle.0);
                reply.opened(handle, flags);
            };
            if trusts && !unsure {
                seen.ended(thread);
                return opened(reply, flags);
            }
            let asked = move |result| match attributes(result).map(|a| seen.judge(thread, &a)) {
                Ok(Verdict::Same) => opened(reply, flags),
                Ok(Verdict::NewerAgain) => {
                    kernel.forget_attributes(inode);
                    opened(reply, flags & !FopenFlags::FOPEN_KEEP_CACHE);
                }
                refused => {
                    files.release(handle);
                    reply.error(match refused {
                        // The kernel walks the path once more and asks for every name on it. [path_openat in Linux's fs/namei.c]
                        Ok(_) => Errno::ESTALE,
                        Err(e) if is_gone(e) => seen.gone(thread),
                        Err(e) => e,
                    });
                }
            };
            let request = FsRequest { caller, op: FsOp::GetAttributes { inode } };
            backend.call(request, Box::new(asked));
        });
    }

    /// For `thread`.
    pub(super) fn holding(&self, thread: u32) -> Holding {
        let (backend, files, seen) = (self.backend.clone(), self.files.clone(), self.seen.clone());
        Holding { backend, files, seen, thread }
    }

    /// Directories are cached by name and time alone, so that there is nothing to ask about one that is certainly there.
    pub(super) fn answer_open_directory(
        &self,
        request: &Request,
        inode: INodeNo,
        reply: ReplyOpen,
    ) {
        let (caller, inode) = (self.callers.of(request), Inode(inode.0));
        let (files, backend) = (self.files.clone(), self.backend.clone());
        let (seen, thread) = (self.seen.clone(), request.pid());
        let handle = files.open(caller.clone(), inode);
        self.files.once_certain(inode, handle, move |unsure| {
            if !unsure {
                return reply.opened(handle, FopenFlags::empty());
            }
            let asked = move |result| match attributes(result) {
                Ok(_) => reply.opened(handle, FopenFlags::empty()),
                Err(e) => {
                    files.release(handle);
                    reply.error(if is_gone(e) { seen.gone(thread) } else { e });
                }
            };
            let request = FsRequest { caller, op: FsOp::GetAttributes { inode } };
            backend.call(request, Box::new(asked));
        });
    }
}

fn is_gone(error: Errno) -> bool {
    error.code() == libc::ESTALE
}

/// What it takes to open a file that the group holds.
#[derive(Clone)]
pub(super) struct Holding {
    pub backend: Arc<dyn Backend>,
    pub files: Arc<OpenFiles>,
    pub seen: Arc<Seen>,
    /// Who opens it.
    pub thread: u32,
}

impl Holding {
    /// Opens `inode` once the group holds it, and tells `done`.
    ///
    /// Errors: those of [`Seen::gone`] for a file that is gone, and those of the group.
    pub fn open(
        &self,
        caller: Caller,
        inode: Inode,
        done: impl FnOnce(Result<FileHandle, Errno>) + Send + 'static,
    ) {
        let handle = self.files.open(caller.clone(), inode);
        let Self { backend, files, seen, thread } = self.clone();
        self.files.once_certain(inode, handle, move |unsure| {
            if !unsure && files.is_held(inode) {
                seen.ended(thread);
                return done(Ok(handle));
            }
            files.ask(inode);
            let request = FsRequest { caller, op: FsOp::Hold { inodes: vec![inode] } };
            let held = move |result| {
                let error = match result {
                    Ok(FsReply::Held { missing }) if missing.is_empty() => {
                        files.asked(inode, true);
                        seen.ended(thread);
                        return done(Ok(handle));
                    }
                    // In a full file system files can be read all the same, and emptied. It is asked again later.
                    Err(FsError::NoSpace) => {
                        files.asked(inode, false);
                        seen.ended(thread);
                        return done(Ok(handle));
                    }
                    Ok(FsReply::Held { .. }) => seen.gone(thread),
                    other => unfit(other),
                };
                files.asked(inode, false);
                files.release(handle);
                done(Err(error));
            };
            backend.call(request, Box::new(held));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bfs_fs::op::FsResult;
    use std::sync::Mutex;
    use std::time::Duration;

    /// Answers everything with this error.
    struct Fails(FsError);

    impl Backend for Fails {
        fn call(&self, _: FsRequest, done: Box<dyn FnOnce(FsResult) + Send>) {
            done(Err(self.0));
        }

        fn fail_all(&self) {}
    }

    fn opens(error: FsError) -> Result<FileHandle, Errno> {
        let holding = Holding {
            backend: Arc::new(Fails(error)),
            files: Arc::default(),
            seen: Arc::new(Seen::new(Duration::ZERO)),
            thread: 1,
        };
        let opened = Arc::new(Mutex::new(None));
        let told = opened.clone();
        let caller = Caller { uid: 1, gid: 1, groups: Vec::new() };
        holding.open(caller, Inode(5), move |result| *told.lock().unwrap() = Some(result));
        opened.lock().unwrap().take().unwrap()
    }

    #[test]
    fn a_full_file_system_refuses_no_open() {
        assert!(opens(FsError::NoSpace).is_ok());
        assert!(opens(FsError::Io).is_err());
    }
}
