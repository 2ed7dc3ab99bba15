//! The group as it will be once what was written here has arrived: what could tell the difference waits for it.

use super::write_buffer::WriteBuffer;
use crate::backend::Backend;
use bfs_fs::op::{Attributes, Caller, Entry, FsOp, FsReply, FsRequest, FsResult, Inode};
use std::sync::Arc;

/// A backend behind a write buffer.
pub struct Buffered {
    backend: Arc<dyn Backend>,
    writes: Arc<WriteBuffer>,
}

type Done = Box<dyn FnOnce(FsResult) + Send>;

/// Which unfinished writes an operation would notice.
enum Notices {
    None,
    Of(Inode),
    OfBoth(Inode, Inode),
    All,
    /// Those of the files that the answer will be about.
    OfWhatIsFound,
}

/// A new name must not be seen before the data under it, and who unlocks a file has written it.
fn notices(op: &FsOp) -> Notices {
    match op {
        FsOp::GetAttributes { inode }
        | FsOp::SetAttributes { inode, .. }
        | FsOp::Read { inode, .. }
        | FsOp::Write { inode, .. }
        | FsOp::Sync { inode }
        | FsOp::Allocate { inode, .. }
        | FsOp::Seek { inode, .. }
        | FsOp::Link { inode, .. }
        // A write takes a file's capabilities away.
        | FsOp::GetXattr { inode, .. }
        | FsOp::ListXattrs { inode, .. }
        | FsOp::SetXattr { inode, .. }
        | FsOp::RemoveXattr { inode, .. }
        | FsOp::Lock { inode, .. }
        | FsOp::Unlock { inode, .. } => Notices::Of(*inode),
        FsOp::CopyRange { from, to, .. } => Notices::OfBoth(*from, *to),
        FsOp::Rename { .. } | FsOp::StatFs => Notices::All,
        FsOp::Lookup { .. } | FsOp::Create { .. } | FsOp::ReadDirectory { .. } => {
            Notices::OfWhatIsFound
        }
        _ => Notices::None,
    }
}

impl Buffered {
    /// Operations for `backend`, seen together with `writes`.
    pub fn new(backend: Arc<dyn Backend>, writes: Arc<WriteBuffer>) -> Self {
        Self { backend, writes }
    }

    /// Asks, and then once more about what was not settled when this was asked. What is written later the kernel knows to
    /// be newer than the answer.
    fn find(&self, request: FsRequest, done: Done) {
        let writes = self.writes.clone();
        let done: Done = Box::new(move |result| {
            match &result {
                Ok(FsReply::Attributes(a)) => writes.found(a),
                Ok(FsReply::Entries { entries, .. }) => {
                    entries.iter().for_each(|entry| writes.found(&entry.attributes));
                }
                _ => {}
            }
            done(result);
        });
        let unsettled = self.writes.unsettled();
        if unsettled.is_empty() {
            return self.backend.call(request, done);
        }
        let again = Again {
            backend: self.backend.clone(),
            writes: self.writes.clone(),
            caller: request.caller.clone(),
        };
        let done = move |result| match result {
            Ok(FsReply::Attributes(a)) if unsettled.contains(&a.inode) => {
                again.attributes(a, |a| done(Ok(FsReply::Attributes(a))));
            }
            Ok(FsReply::Entries { entries, eof }) => {
                let stale = |(_, e): &(usize, &Entry)| unsettled.contains(&e.attributes.inode);
                let stale = entries.iter().enumerate().filter(stale).map(|(at, _)| at).collect();
                again.entries(entries, stale, move |entries| {
                    done(Ok(FsReply::Entries { entries, eof }));
                });
            }
            result => done(result),
        };
        self.backend.call(request, Box::new(done));
    }
}

/// What it takes to ask again.
struct Again {
    backend: Arc<dyn Backend>,
    writes: Arc<WriteBuffer>,
    caller: Caller,
}

impl Again {
    /// The attributes of a file once it is settled, or as they were if it is gone by then.
    fn attributes(self, old: Attributes, done: impl FnOnce(Attributes) + Send + 'static) {
        let Self { backend, writes, caller } = self;
        let request = FsRequest { caller, op: FsOp::GetAttributes { inode: old.inode } };
        let done = move |result| match result {
            Ok(FsReply::Attributes(new)) => done(new),
            _ => done(old),
        };
        writes.settle(old.inode, move || backend.call(request, Box::new(done)));
    }

    /// As [`Again::attributes`], for the entries at `stale`, one after the other.
    fn entries(
        self,
        mut entries: Vec<Entry>,
        mut stale: Vec<usize>,
        done: impl FnOnce(Vec<Entry>) + Send + 'static,
    ) {
        let next = stale.pop().and_then(|at| Some((at, entries.get(at)?.attributes)));
        let Some((at, old)) = next else { return done(entries) };
        let again = Self {
            backend: self.backend.clone(),
            writes: self.writes.clone(),
            caller: self.caller.clone(),
        };
        let done: Box<dyn FnOnce(Vec<Entry>) + Send> = Box::new(done);
        again.attributes(old, move |new| {
            if let Some(entry) = entries.get_mut(at) {
                entry.attributes = new;
            }
            self.entries(entries, stale, done);
        });
    }
}

impl Backend for Buffered {
    fn call(&self, request: FsRequest, done: Done) {
        let backend = self.backend.clone();
        match notices(&request.op) {
            Notices::None => backend.call(request, done),
            Notices::Of(inode) => self.writes.settle(inode, move || backend.call(request, done)),
            Notices::OfBoth(a, b) => {
                let writes = self.writes.clone();
                self.writes.settle(a, move || {
                    writes.settle(b, move || backend.call(request, done));
                });
            }
            Notices::All => self.writes.settle_all(move || backend.call(request, done)),
            Notices::OfWhatIsFound => self.find(request, done),
        }
    }

    fn fail_all(&self) {
        self.backend.fail_all();
    }
}
