//! The arguments of a procedure, as one operation on the file system. [RFC 1813 §3.3]

use super::handle::{Keys, MAX_HANDLE, Named};
use super::reply::{ATTRIBUTES_SIZE, Page};
use super::status::{Procedure, Status};
use super::xdr::{Malformed, Reader};
use bfs_fs::op::{
    Caller, CreateMode, FsOp, FsRequest, Inode, Keep, Kind, MAX_IO, MAX_TARGET, OnceKey,
    RenameMode, SetAttributes, SetTime, Timestamp, Watched,
};

/// The longest string that is read as a name or a target; the file system refuses far shorter ones, with a reason.
const MAX_STRING: usize = 1 << 16;
/// What a reply takes besides data and entries, generously. Units: bytes.
const REPLY_SIZE: usize = 1024;
/// The mode of what is made without one: its maker's alone. An exclusive create is followed by a SETATTR.
const PRIVATE: u16 = 0o600;

/// A call that becomes one operation.
#[derive(Debug)]
pub struct Asked {
    pub procedure: Procedure,
    pub request: FsRequest,
    /// For listings: what fits the reply.
    pub page: Option<Page>,
    /// The size that is to be reached: a long way there takes several operations.
    pub size: Option<u64>,
    /// How much memory the reply can take. Units: bytes.
    pub reply_size: usize,
}

/// Why a call becomes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The arguments are not what they should be: GARBAGE_ARGS.
    Garbage,
    Status(Status),
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        Refused::Garbage
    }
}

type Read<T> = Result<T, Refused>;

/// Reads arguments to their end.
///
/// What a handle or a name is worth is said only once all of them are read: garbage comes first.
struct Arguments<'a> {
    reader: Reader,
    keys: &'a Keys,
    refused: Option<Status>,
}

impl Arguments<'_> {
    fn refuse(&mut self, status: Status) {
        self.refused.get_or_insert(status);
    }

    fn named(&mut self) -> Read<Named> {
        let handle = self.reader.opaque(MAX_HANDLE)?;
        Ok(self.keys.named(&handle).unwrap_or_else(|| {
            self.refuse(Status::BadHandle);
            Named { inode: Inode(0), generation: 0 }
        }))
    }

    fn inode(&mut self) -> Read<Inode> {
        Ok(self.named()?.inode)
    }

    fn string(&mut self) -> Read<Vec<u8>> {
        Ok(self.reader.opaque(MAX_STRING)?.to_vec())
    }

    /// A directory and a name in it.
    fn place(&mut self) -> Read<(Inode, Vec<u8>)> {
        Ok((self.inode()?, self.string()?))
    }

    /// The same for something new, which must have a name.
    fn new_place(&mut self) -> Read<(Inode, Vec<u8>)> {
        let (parent, name) = self.place()?;
        if name.is_empty() {
            self.refuse(Status::Access);
        }
        Ok((parent, name))
    }

    fn time(&mut self) -> Read<Timestamp> {
        let (seconds, nanoseconds) = (self.reader.u32()?, self.reader.u32()?);
        Ok(Timestamp { seconds: seconds.into(), nanoseconds })
    }

    fn set_time(&mut self) -> Read<Option<SetTime>> {
        match self.reader.u32()? {
            0 => Ok(None),
            1 => Ok(Some(SetTime::Now)),
            2 => Ok(Some(SetTime::At(self.time()?))),
            _ => Err(Refused::Garbage),
        }
    }

    /// [RFC 1813 §2.6: sattr3]
    fn changes(&mut self) -> Read<SetAttributes> {
        let mode = self.reader.optional(Reader::u32)?;
        Ok(SetAttributes {
            // The bits above are none of the mode. [RFC 1813 §2.6: mode3]
            mode: mode.map(|mode| (mode & 0o7777) as u16),
            uid: self.reader.optional(Reader::u32)?,
            gid: self.reader.optional(Reader::u32)?,
            size: self.reader.optional(Reader::u64)?,
            accessed: self.set_time()?,
            modified: self.set_time()?,
        })
    }

    fn guard(&mut self) -> Read<Option<Timestamp>> {
        if self.reader.bool()? { self.time().map(Some) } else { Ok(None) }
    }

    fn end(self) -> Read<()> {
        self.reader.end()?;
        self.refused.map_or(Ok(()), |status| Err(Refused::Status(status)))
    }
}

/// What a call asks for.
struct Wish {
    op: FsOp,
    watch: Vec<Inode>,
    guard: Option<Timestamp>,
    then: Option<SetAttributes>,
    page: Option<Page>,
    reply_size: usize,
}

impl Wish {
    fn new(op: FsOp, watch: &[Inode]) -> Self {
        let watch = watch.to_vec();
        Self { op, watch, guard: None, then: None, page: None, reply_size: REPLY_SIZE }
    }

    /// Something to make, and what to set on it besides the mode that it is made with.
    fn to_make(op: FsOp, parent: Inode, set: SetAttributes) -> Self {
        let then = SetAttributes { mode: None, ..set };
        Self {
            then: (then != SetAttributes::default()).then_some(then),
            ..Self::new(op, &[parent])
        }
    }
}

/// Reads what `caller` asks `procedure` for. `once` names the call, should it be one that must not be done twice.
///
/// Requires: not the procedure that does nothing.
pub fn read(
    procedure: Procedure,
    reader: Reader,
    caller: Caller,
    keys: &Keys,
    once: impl FnOnce(&Caller) -> OnceKey,
) -> Read<Asked> {
    let mut arguments = Arguments { reader, keys, refused: None };
    let wish = wish(procedure, &mut arguments)?;
    arguments.end()?;
    let Wish { op, watch, guard, then, page, reply_size } = wish;
    let size = match (&op, &then) {
        (FsOp::SetAttributes { set, .. }, _) | (_, Some(set)) => set.size,
        _ => None,
    };
    let once = op.changes_files().then(|| once(&caller));
    let op = match watch.is_empty() {
        true => op,
        false => FsOp::Watched(Box::new(Watched { watch, guard, then, once, ..Watched::new(op) })),
    };
    Ok(Asked { procedure, request: FsRequest { caller, op }, page, size, reply_size })
}

fn wish(procedure: Procedure, arguments: &mut Arguments<'_>) -> Read<Wish> {
    let a = arguments;
    Ok(match procedure {
        Procedure::Null => return Err(Refused::Garbage),
        Procedure::GetAttr => Wish::new(FsOp::GetAttributes { inode: a.inode()? }, &[]),
        Procedure::SetAttr => {
            let (inode, set, guard) = (a.inode()?, a.changes()?, a.guard()?);
            Wish { guard, ..Wish::new(FsOp::SetAttributes { inode, set }, &[inode]) }
        }
        Procedure::Lookup => {
            let (parent, name) = a.place()?;
            Wish::new(FsOp::Lookup { parent, name }, &[parent])
        }
        Procedure::Access => {
            let (inode, mask) = (a.inode()?, a.reader.u32()?);
            let page = Some(Page::Access { mask });
            Wish { page, ..Wish::new(FsOp::Permissions { inode }, &[inode]) }
        }
        Procedure::ReadLink => {
            let inode = a.inode()?;
            let reply_size = REPLY_SIZE + MAX_TARGET;
            Wish { reply_size, ..Wish::new(FsOp::ReadLink { inode }, &[inode]) }
        }
        Procedure::Read => {
            let (inode, offset, count) = (a.inode()?, a.reader.u64()?, a.reader.u32()?);
            let count = count.min(MAX_IO);
            let reply_size = REPLY_SIZE + count as usize;
            // Data comes with the file's attributes, and replicas send what is read as it lies there; only where a read
            // fails the reply lacks them.
            Wish { reply_size, ..Wish::new(FsOp::Read { inode, offset, count }, &[]) }
        }
        Procedure::Write => write(a)?,
        Procedure::Create => create(a)?,
        Procedure::MkDir => {
            let (parent, name) = a.new_place()?;
            let set = a.changes()?;
            let mode = set.mode.unwrap_or(PRIVATE | 0o100);
            Wish::to_make(FsOp::MakeDirectory { parent, name, mode }, parent, set)
        }
        Procedure::Symlink => {
            let (parent, name) = a.new_place()?;
            let (set, target) = (a.changes()?, a.string()?);
            if target.is_empty() {
                a.refuse(Status::Access);
            }
            // A link's target never changes, so it can have no other size.
            let set = SetAttributes { size: None, ..set };
            Wish::to_make(FsOp::Symlink { parent, name, target }, parent, set)
        }
        Procedure::MkNod => make_node(a)?,
        Procedure::Remove => {
            let (parent, name) = a.place()?;
            let keep = Keep::These(Vec::new());
            Wish::new(FsOp::Unlink { parent, name, keep }, &[parent])
        }
        Procedure::RmDir => {
            let (parent, name) = a.place()?;
            let keep = Keep::These(Vec::new());
            Wish::new(FsOp::RemoveDirectory { parent, name, keep }, &[parent])
        }
        Procedure::Rename => {
            let ((from, name), (to, new_name)) = (a.place()?, a.new_place()?);
            let (how, keep) = (RenameMode::Replace, Keep::These(Vec::new()));
            Wish::new(FsOp::Rename { from, name, to, new_name, how, keep }, &[from, to])
        }
        Procedure::Link => {
            let inode = a.inode()?;
            let (parent, name) = a.new_place()?;
            Wish::new(FsOp::Link { inode, parent, name }, &[inode, parent])
        }
        Procedure::ReadDir | Procedure::ReadDirPlus => list(procedure, a)?,
        Procedure::FsStat => Wish::new(FsOp::StatFs, &[a.inode()?]),
        Procedure::FsInfo | Procedure::PathConf => {
            let inode = a.inode()?;
            Wish::new(FsOp::GetAttributes { inode }, &[inode])
        }
        Procedure::Commit => {
            let (inode, _offset, _count) = (a.inode()?, a.reader.u64()?, a.reader.u32()?);
            Wish::new(FsOp::Sync { inode }, &[inode])
        }
    })
}

fn write(a: &mut Arguments<'_>) -> Read<Wish> {
    let (inode, offset, count) = (a.inode()?, a.reader.u64()?, a.reader.u32()?);
    let _how_stable @ 0..=2 = a.reader.u32()? else { return Err(Refused::Garbage) };
    let data = a.reader.opaque(usize::MAX)?;
    if data.len() != count as usize {
        return Err(Refused::Garbage);
    }
    // As much as one operation moves; the answer says so.
    let data = data.slice(..data.len().min(MAX_IO as usize));
    Ok(Wish::new(FsOp::Write { inode, offset, data }, &[inode]))
}

fn create(a: &mut Arguments<'_>) -> Read<Wish> {
    let (parent, name) = a.new_place()?;
    let (how, set) = match a.reader.u32()? {
        0 => (CreateMode::Unchecked, a.changes()?),
        1 => (CreateMode::Guarded, a.changes()?),
        2 => (CreateMode::Exclusive(a.reader.u64()?), SetAttributes::default()),
        _ => return Err(Refused::Garbage),
    };
    let mode = set.mode.unwrap_or(PRIVATE);
    Ok(Wish::to_make(FsOp::Create { parent, name, mode, how }, parent, set))
}

fn make_node(a: &mut Arguments<'_>) -> Read<Wish> {
    let (parent, name) = a.new_place()?;
    let kind = match a.reader.u32()? {
        3 => Kind::BlockDevice,
        4 => Kind::CharDevice,
        6 => Kind::Socket,
        7 => Kind::Fifo,
        // Files, directories and links have procedures of their own.
        1 | 2 | 5 => {
            a.refuse(Status::BadType);
            return Ok(Wish::new(FsOp::StatFs, &[]));
        }
        _ => return Err(Refused::Garbage),
    };
    let set = a.changes()?;
    let device = match kind {
        Kind::BlockDevice | Kind::CharDevice => join_device(a.reader.u32()?, a.reader.u32()?),
        _ => 0,
    };
    let (mode, set) = (set.mode.unwrap_or(PRIVATE), SetAttributes { size: None, ..set });
    Ok(Wish::to_make(FsOp::MakeNode { parent, name, kind, mode, device }, parent, set))
}

/// The number of a device as Linux encodes it: 12 bits of major and 20 of minor number.
fn join_device(major: u32, minor: u32) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xfff00) << 12
}

fn list(procedure: Procedure, a: &mut Arguments<'_>) -> Read<Wish> {
    let (directory, cookie) = (a.named()?, a.reader.u64()?);
    let verifier = a.reader.fixed::<8>()?;
    let directory_count = match procedure {
        Procedure::ReadDirPlus => Some(a.reader.u32()?),
        _ => None,
    };
    let most = a.reader.u32()?.min(MAX_IO);
    let page = Page::list(directory.generation, directory_count, most);
    if !page.knows(cookie, verifier) {
        a.refuse(Status::BadCookie);
    }
    let inode = directory.inode;
    let op = FsOp::ReadDirectory { inode, cookie, budget: page.budget() };
    let reply_size = ATTRIBUTES_SIZE + REPLY_SIZE + most as usize;
    Ok(Wish { page: Some(page), reply_size, ..Wish::new(op, &[inode]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_joined_as_linux_does() {
        for (major, minor) in [(0, 0), (1, 3), (8, 17), (259, 70_000), (4095, 0xf_ffff)] {
            let joined = u64::from(join_device(major, minor));
            assert_eq!(u64::from(libc::major(joined)), u64::from(major));
            assert_eq!(u64::from(libc::minor(joined)), u64::from(minor));
        }
    }
}
