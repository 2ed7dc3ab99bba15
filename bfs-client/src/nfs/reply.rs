//! What a procedure answers. [RFC 1813 §3.3]

use super::handle::{HANDLE, Keys, Named};
use super::status::{Procedure, Status};
use super::xdr::{Writer, opaque_size};
use bfs_fs::MAX_FILE_SIZE;
use bfs_fs::op::{
    Attributes, Change, ENTRY_COST, Entry, FsReply, FsResult, Kind, MAX_IO, MAX_LINKS, MAX_NAME,
    Refusal, StatFs, Timestamp,
};

/// What attributes take: one that says that they are there, and the attributes. Units: bytes.
pub const ATTRIBUTES_SIZE: usize = 4 + 84;
/// What a listing takes besides its entries: attributes, verifier, "no more", "the end". Units: bytes.
const LISTING_SIZE: usize = ATTRIBUTES_SIZE + 8 + 4 + 4;
/// What is best asked of a directory at once. Units: bytes.
const PREFERRED_LISTING: u32 = 1 << 16;
/// The unit in which data is best moved. Units: bytes.
const PREFERRED_MULTIPLE: u32 = 4096;
/// How data comes to be stored: all of it, and what is needed to find it again. [RFC 1813 §3.3.7: stable_how]
const FILE_SYNC: u32 = 2;
/// The cookie that no entry of ours has, up to where the entries begin: those of "." and ".." are 1 and 2.
const NO_COOKIES: std::ops::Range<u64> = 3..8;

/// What of the call the reply depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The rights that were asked for.
    Access { mask: u32 },
    /// A listing of a directory of this generation, in at most `most` bytes; with attributes if there is a limit for the
    /// rest of the entries. [RFC 1813 §3.3.16, §3.3.17]
    List { generation: u64, directory_count: Option<u32>, most: u32 },
}

impl Page {
    /// A listing.
    pub fn list(generation: u64, directory_count: Option<u32>, most: u32) -> Self {
        Self::List { generation, directory_count, most }
    }

    fn verifier(generation: u64) -> [u8; 8] {
        // Never zero, which is what a listing from the start has.
        (generation | 1 << 63).to_be_bytes()
    }

    /// Whether a listing can go on from `cookie`. The start has no verifier.
    ///
    /// Cookies come from the names, so one whose entry is gone is as good as ever.
    pub fn knows(&self, cookie: u64, verifier: [u8; 8]) -> bool {
        let Self::List { generation, .. } = *self else { return false };
        let possible = !NO_COOKIES.contains(&cookie) && i64::try_from(cookie).is_ok();
        cookie == 0 || possible && verifier == Self::verifier(generation)
    }

    /// What to ask the file system for, which counts an entry for its name and [`ENTRY_COST`].
    pub fn budget(&self) -> u32 {
        match *self {
            Self::Access { .. } => 0,
            // Never less than an entry takes with its attributes and handle.
            Self::List { most, directory_count: Some(_), .. } => most,
            // Without them an entry takes at least 28 bytes, of which its name takes 4 or less.
            Self::List { most, .. } => most.saturating_mul((ENTRY_COST + 4) / 28).min(MAX_IO),
        }
    }
}

/// Writes what `procedure` answers to a call that became an operation with this result.
pub fn write(
    reply: &mut Writer,
    procedure: Procedure,
    page: Option<Page>,
    result: FsResult,
    keys: &Keys,
) {
    let (watched, result) = match result {
        Ok(FsReply::Watched(report)) => (report.watched, report.result.map(|r| r.into_inner())),
        Ok(other) => (Vec::new(), Ok(other)),
        Err(error) => (Vec::new(), Err(Refusal::Failed(error))),
    };
    let mut answer = Answer { reply, keys, watched };
    match result {
        Ok(done) => answer.success(procedure, page, done),
        Err(refusal) => answer.failure(procedure, procedure.status(refusal)),
    }
}

/// Writes that `procedure` was refused before it became an operation.
pub fn write_refusal(reply: &mut Writer, procedure: Procedure, status: Status, keys: &Keys) {
    Answer { reply, keys, watched: Vec::new() }.failure(procedure, status);
}

struct Answer<'a> {
    reply: &'a mut Writer,
    keys: &'a Keys,
    watched: Vec<Change>,
}

impl Answer<'_> {
    fn change(&self, index: usize) -> Change {
        self.watched.get(index).copied().unwrap_or(Change { before: None, after: None })
    }

    /// The attributes of the first that was watched. [post_op_attr]
    fn after(&mut self, index: usize) {
        let after = self.change(index).after;
        self.attributes(after.as_ref());
    }

    fn attributes(&mut self, attributes: Option<&Attributes>) {
        let fsid = self.keys.fsid;
        self.reply.optional(attributes, |reply, a| write_attributes(reply, a, fsid));
    }

    /// [wcc_data]
    fn around(&mut self, index: usize) {
        let Change { before, after } = self.change(index);
        self.reply.optional(before, |reply, a| {
            reply.u64(a.size);
            write_time(reply, a.modified);
            write_time(reply, a.changed);
        });
        self.attributes(after.as_ref());
    }

    fn ok(&mut self) -> &mut Self {
        self.reply.u32(Status::Ok as u32);
        self
    }

    /// What follows any status but success.
    fn failure(&mut self, procedure: Procedure, status: Status) {
        self.reply.u32(status as u32);
        match procedure {
            Procedure::Null | Procedure::GetAttr => {}
            Procedure::Lookup
            | Procedure::Access
            | Procedure::ReadLink
            | Procedure::Read
            | Procedure::ReadDir
            | Procedure::ReadDirPlus
            | Procedure::FsStat
            | Procedure::FsInfo
            | Procedure::PathConf => self.after(0),
            Procedure::SetAttr
            | Procedure::Write
            | Procedure::Create
            | Procedure::MkDir
            | Procedure::Symlink
            | Procedure::MkNod
            | Procedure::Remove
            | Procedure::RmDir
            | Procedure::Commit => self.around(0),
            Procedure::Rename => {
                self.around(0);
                self.around(1);
            }
            Procedure::Link => {
                self.after(0);
                self.around(1);
            }
        }
    }

    fn success(&mut self, procedure: Procedure, page: Option<Page>, done: FsReply) {
        use Procedure::*;
        match (procedure, done) {
            (GetAttr, FsReply::Attributes(a)) => {
                let fsid = self.keys.fsid;
                write_attributes(self.ok().reply, &a, fsid);
            }
            (Lookup, FsReply::Attributes(a)) => {
                self.ok();
                self.keys.write_handle(self.reply, Named::from(&a));
                self.attributes(Some(&a));
                self.after(0);
            }
            (Access, FsReply::Granted(granted)) => {
                let kind = self.change(0).after.map(|a| a.kind);
                self.ok().after(0);
                self.reply.u32(rights(granted, kind == Some(Kind::Directory), page));
            }
            (ReadLink, FsReply::Target(target)) => {
                self.ok().after(0);
                self.reply.opaque(&target);
            }
            (Read, FsReply::Data { data, eof, attributes }) => {
                self.ok().attributes(Some(&attributes));
                self.reply.0.reserve(data.len() + 16);
                self.reply.u32(data.len() as u32).bool(eof).opaque(&data);
            }
            (Write, FsReply::Written { count, .. } | FsReply::WrittenBefore { count }) => {
                self.ok().around(0);
                let verifier = self.keys.write_verifier;
                self.reply.u32(count).u32(FILE_SYNC).fixed(&verifier);
            }
            (Create | MkDir | Symlink | MkNod, FsReply::Attributes(a)) => {
                self.ok().reply.bool(true);
                self.keys.write_handle(self.reply, Named::from(&a));
                self.attributes(Some(&a));
                self.around(0);
            }
            (SetAttr, FsReply::Attributes(_)) | (Remove | RmDir, _) => self.ok().around(0),
            (Rename, _) => {
                self.ok().around(0);
                self.around(1);
            }
            (Link, FsReply::Attributes(a)) => {
                self.ok().attributes(Some(&a));
                self.around(1);
            }
            (ReadDir | ReadDirPlus, FsReply::Entries { entries, eof }) => {
                self.listing(procedure, page, &entries, eof);
            }
            // Whatever handle is named: the numbers are those of the file system, but only of one that is there.
            (FsStat, FsReply::StatFs(_)) if self.change(0).after.is_none() => {
                self.failure(procedure, Status::Stale);
            }
            (FsStat, FsReply::StatFs(s)) => {
                self.ok().after(0);
                self.fs_stat(&s);
            }
            (FsInfo, FsReply::Attributes(a)) => {
                self.ok().attributes(Some(&a));
                self.fs_info();
            }
            (PathConf, FsReply::Attributes(a)) => {
                self.ok().attributes(Some(&a));
                // No name is cut off, only root gives files away, and case is all that tells some names apart.
                let longest = MAX_NAME as u32;
                self.reply.u32(MAX_LINKS).u32(longest).bool(true).bool(true).bool(false).bool(true);
            }
            (Commit, FsReply::Attributes(_)) => {
                self.ok().around(0);
                let verifier = self.keys.write_verifier;
                self.reply.fixed(&verifier);
            }
            (_, other) => {
                // No correct group answers another question.
                tracing::error!("{procedure:?} was answered with {other:?}");
                self.failure(procedure, Status::ServerFault);
            }
        }
    }

    fn fs_stat(&mut self, s: &StatFs) {
        let unit = u64::from(s.block_size);
        let free = s.free_blocks.saturating_mul(unit);
        self.reply.u64(s.blocks.saturating_mul(unit)).u64(free).u64(free);
        self.reply.u64(s.inodes).u64(s.free_inodes).u64(s.free_inodes);
        // It may be another the next moment. [invarsec]
        self.reply.u32(0);
    }

    fn fs_info(&mut self) {
        for _read_and_write in 0..2 {
            self.reply.u32(MAX_IO).u32(MAX_IO).u32(PREFERRED_MULTIPLE);
        }
        self.reply.u32(PREFERRED_LISTING).u64(MAX_FILE_SIZE);
        // Times are kept to the nanosecond.
        self.reply.u32(0).u32(1);
        // Links, symbolic links, PATHCONF the same everywhere, SETATTR of times.
        self.reply.u32(0x1 | 0x2 | 0x8 | 0x10);
    }

    /// As many entries as fit; `TooSmall` if there is one and it does not.
    fn listing(&mut self, procedure: Procedure, page: Option<Page>, entries: &[Entry], eof: bool) {
        let Some(Page::List { generation, directory_count, most }) = page else {
            return self.failure(procedure, Status::ServerFault);
        };
        let plus = directory_count.is_some();
        let fitting = fitting(entries, most, directory_count);
        let fits = entries.get(..fitting).unwrap_or_default();
        let too_small = most < LISTING_SIZE as u32 || fits.is_empty() && !entries.is_empty();
        if too_small {
            return self.failure(procedure, Status::TooSmall);
        }
        self.ok().after(0);
        self.reply.0.reserve(most as usize);
        self.reply.fixed(&Page::verifier(generation));
        for entry in fits {
            self.reply.bool(true).u64(entry.attributes.inode.0);
            self.reply.opaque(&entry.name).u64(entry.cookie);
            if plus {
                self.attributes(Some(&entry.attributes));
                self.reply.bool(true);
                self.keys.write_handle(self.reply, Named::from(&entry.attributes));
            }
        }
        self.reply.bool(false).bool(eof && fitting == entries.len());
    }
}

/// How many of `entries` fit `most` bytes of a listing, and, of those that say more, `directory_count` bytes of the rest.
fn fitting(entries: &[Entry], most: u32, directory_count: Option<u32>) -> usize {
    let mut left = (most as usize).saturating_sub(LISTING_SIZE);
    let mut directory_left = directory_count.map_or(usize::MAX, |count| count as usize);
    let more = directory_count.map_or(0, |_| ATTRIBUTES_SIZE + 4 + opaque_size(HANDLE));
    let fits = |entry: &&Entry| {
        let own = 8 + opaque_size(entry.name.len()) + 8;
        let all = 4 + own + more;
        let fits = all <= left && own <= directory_left;
        left = left.saturating_sub(all);
        directory_left = directory_left.saturating_sub(own);
        fits
    };
    entries.iter().take_while(fits).count()
}

/// What `granted` means of what was asked for. [RFC 1813 §3.3.4]
fn rights(granted: u8, is_directory: bool, page: Option<Page>) -> u32 {
    const READ: u32 = 0x1;
    const LOOKUP: u32 = 0x2;
    const MODIFY: u32 = 0x4;
    const EXTEND: u32 = 0x8;
    const DELETE: u32 = 0x10;
    const EXECUTE: u32 = 0x20;
    let (read, write, execute) = (granted & 4 != 0, granted & 2 != 0, granted & 1 != 0);
    let bit = |holds: bool, bit: u32| if holds { bit } else { 0 };
    let all = match is_directory {
        true => bit(read, READ) | bit(execute, LOOKUP) | bit(write, MODIFY | EXTEND | DELETE),
        false => bit(read, READ) | bit(write, MODIFY | EXTEND) | bit(execute, EXECUTE),
    };
    match page {
        Some(Page::Access { mask }) => all & mask,
        _ => 0,
    }
}

/// [RFC 1813 §2.6: fattr3]
fn write_attributes(reply: &mut Writer, a: &Attributes, fsid: u64) {
    reply.u32(kind(a.kind)).u32(a.mode.into()).u32(a.links).u32(a.uid).u32(a.gid);
    reply.u64(a.size).u64(a.blocks.saturating_mul(512));
    let device = u64::from(a.device);
    reply.u32(libc::major(device)).u32(libc::minor(device));
    reply.u64(fsid).u64(a.inode.0);
    for time in [a.accessed, a.modified, a.changed] {
        write_time(reply, time);
    }
}

fn kind(kind: Kind) -> u32 {
    match kind {
        Kind::File => 1,
        Kind::Directory => 2,
        Kind::BlockDevice => 3,
        Kind::CharDevice => 4,
        Kind::Symlink => 5,
        Kind::Socket => 6,
        Kind::Fifo => 7,
    }
}

/// NFSv3 knows the years 1970 to 2106; another time, which only FUSE can set, is the nearest of them.
fn write_time(reply: &mut Writer, time: Timestamp) {
    let seconds = time.seconds.clamp(0, u32::MAX.into()) as u32;
    reply.u32(seconds).u32(time.nanoseconds);
}
