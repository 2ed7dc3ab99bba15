//! What a client asks of the file system and what it is told: one kernel request is one [`FsOp`].
//!
//! Names are bytes. Every reply carries the attributes that a kernel wants next, so no request needs a second one.

mod encoding;
mod error;
mod export;
mod watched;

pub(crate) use encoding::encode_data;
pub use encoding::{decode_request, decode_result, decode_shared, encode_request, encode_result};
pub use error::FsError;
pub use export::*;
pub use watched::*;

use alloc::boxed::Box;
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};

/// An inode number. Never used twice, so a handle to what is gone is stale for ever.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Inode(pub u64);

/// The root directory, as FUSE and the kernel number it.
pub const ROOT: Inode = Inode(1);

/// On whose behalf an operation runs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, at most [`MAX_GROUPS`].
    pub groups: Vec<u32>,
}

/// A point in time of a file. Units: seconds since 1970 (negative before it) and nanoseconds below 1,000,000,000.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize,
)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The time `nanoseconds` after 1970 began.
    pub fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self {
            seconds: (nanoseconds / NANOSECONDS) as i64,
            nanoseconds: (nanoseconds % NANOSECONDS) as u32,
        }
    }

    /// Whether the nanoseconds are less than a second.
    pub fn is_valid(self) -> bool {
        u64::from(self.nanoseconds) < NANOSECONDS
    }
}

/// Nanoseconds in a second.
const NANOSECONDS: u64 = 1_000_000_000;

/// How a time is set. [utimensat(2)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SetTime {
    /// UTIME_NOW: agreed time.
    Now,
    At(Timestamp),
}

/// What kind of thing an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// The attributes of an inode. [stat(2)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Attributes {
    pub inode: Inode,
    /// Distinguishes this inode from any other that a handle may mean.
    pub generation: u64,
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits: 12 bits.
    pub mode: u16,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    /// Device number of a device, else 0.
    pub device: u32,
    /// Units: bytes.
    pub size: u64,
    /// Units: 512 bytes, as st_blocks.
    pub blocks: u64,
    pub accessed: Timestamp,
    pub modified: Timestamp,
    pub changed: Timestamp,
    /// Whether there are extended attributes: most files have none, and whoever knows that need not ask.
    pub has_xattrs: bool,
}

/// How a file is created. [open(2), RFC 1813 §3.3.8]
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum CreateMode {
    /// An existing file is opened as it is.
    Unchecked,
    /// O_EXCL: an existing name is EEXIST.
    Guarded,
    /// O_EXCL that survives a repeat: the file remembers the verifier, and the same verifier succeeds again.
    Exclusive(u64),
}

/// Which attributes to change; nothing means "leave it". [chmod(2), chown(2), truncate(2), utimensat(2)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SetAttributes {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub accessed: Option<SetTime>,
    pub modified: Option<SetTime>,
}

/// An operation on the file system.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum FsOp {
    /// Does nothing and answers `Done`: the measure of the protocol's own cost, padded by `argument` and answered with `result` bytes.
    Null {
        argument: Vec<u8>,
        result: u32,
    },
    Lookup {
        parent: Inode,
        name: Vec<u8>,
    },
    GetAttributes {
        inode: Inode,
    },
    SetAttributes {
        inode: Inode,
        set: SetAttributes,
    },
    /// Creates a regular file. `mode`: 12 bits, the umask already applied.
    Create {
        parent: Inode,
        name: Vec<u8>,
        mode: u16,
        how: CreateMode,
    },
    MakeDirectory {
        parent: Inode,
        name: Vec<u8>,
        mode: u16,
    },
    /// Creates a fifo, a socket or a device.
    MakeNode {
        parent: Inode,
        name: Vec<u8>,
        kind: Kind,
        mode: u16,
        device: u32,
    },
    Symlink {
        parent: Inode,
        name: Vec<u8>,
        target: Vec<u8>,
    },
    ReadLink {
        inode: Inode,
    },
    /// Gives `inode` the further name `name`.
    Link {
        inode: Inode,
        parent: Inode,
        name: Vec<u8>,
    },
    /// `keep`: what the sender has open stays for it when this was its last name.
    Unlink {
        parent: Inode,
        name: Vec<u8>,
        keep: Keep,
    },
    RemoveDirectory {
        parent: Inode,
        name: Vec<u8>,
        keep: Keep,
    },
    Rename {
        from: Inode,
        name: Vec<u8>,
        to: Inode,
        new_name: Vec<u8>,
        how: RenameMode,
        keep: Keep,
    },
    /// At most [`MAX_IO`] bytes.
    Read {
        inode: Inode,
        offset: u64,
        count: u32,
    },
    /// At most [`MAX_IO`] bytes.
    Write {
        inode: Inode,
        offset: u64,
        #[borsh(deserialize_with = "bft_core::codec::payload")]
        data: bytes::Bytes,
    },
    /// Entries after `cookie` (0: from the start), as many as fit `budget`: an entry costs its name plus [`ENTRY_COST`] bytes.
    ReadDirectory {
        inode: Inode,
        cookie: u64,
        budget: u32,
    },
    /// SEEK_DATA and SEEK_HOLE from `offset` on. [lseek(2)]
    Seek {
        inode: Inode,
        offset: u64,
        target: SeekTarget,
    },
    /// fallocate(2) on `length` bytes from `offset` on. A long range is handled in steps: the answer says how far this one came.
    Allocate {
        inode: Inode,
        offset: u64,
        length: u64,
        how: AllocateMode,
    },
    /// copy_file_range(2): at most [`MAX_IO`] bytes, answered as a write.
    CopyRange {
        from: Inode,
        from_offset: u64,
        to: Inode,
        to_offset: u64,
        length: u64,
    },
    GetXattr {
        inode: Inode,
        name: Vec<u8>,
    },
    ListXattrs {
        inode: Inode,
    },
    /// At most [`MAX_XATTR`] bytes. [setxattr(2)]
    SetXattr {
        inode: Inode,
        name: Vec<u8>,
        value: bytes::Bytes,
        how: XattrMode,
    },
    RemoveXattr {
        inode: Inode,
        name: Vec<u8>,
    },
    /// Holds inodes open for the sender's client, at most [`MAX_HOLDS`] at a time: without a name they stay as long as its
    /// lease, or until they are let go.
    Hold {
        inodes: Vec<Inode>,
    },
    /// Ends a [`FsOp::Hold`], and what `keep` has kept.
    LetGo {
        inodes: Vec<Inode>,
    },
    /// Renews the lease of the sender's client, which every other operation on leases and locks does too. Another `life` than
    /// that of the lease says that the client has started again and knows nothing of what it held. A lease that began without a
    /// renewal is of the life that the next one names; 0 names none.
    Renew {
        life: u64,
    },
    /// Ends the lease of the sender's client, with all that is held on it.
    EndLease,
    /// Sets a lock, for the whole group: answers `Done`, `Waiting` if `wait` and another lock is in the way, or `Refused`.
    Lock {
        inode: Inode,
        request: LockRequest,
        wait: bool,
    },
    /// Gives up what the owner has in the range; the kind says nothing.
    Unlock {
        inode: Inode,
        request: LockRequest,
    },
    /// Does not wait any more for exactly this lock: NotFound if it has been granted.
    CancelLock {
        inode: Inode,
        request: LockRequest,
    },
    /// Which lock is in the way. [fcntl(2): F_GETLK]
    TestLock {
        inode: Inode,
        request: LockRequest,
    },
    /// Whether exactly this lock is still waited for.
    LockStatus {
        inode: Inode,
        request: LockRequest,
    },
    StatFs,
    /// Says what a client may do, or with nothing that it may what everybody may. For the administrator.
    SetExport {
        client: u32,
        export: Option<Export>,
    },
    GetExport {
        client: u32,
    },
    /// Makes an empty directory the top of a subtree. For the administrator.
    MakeSubtree {
        inode: Inode,
    },
    /// For the administrator.
    SetLimits {
        subject: Subject,
        limits: Limits,
    },
    GetAccount {
        subject: Subject,
    },
    /// Answers once every operation ordered before it is executed. The state is in memory at 2f+1 replicas.
    Sync {
        inode: Inode,
    },
    /// access(2): are all of the `mask` bits (read 4, write 2, execute 1) granted?
    Access {
        inode: Inode,
        mask: u8,
    },
    /// Which of the bits of `Access` are granted. [RFC 1813 §3.3.4]
    Permissions {
        inode: Inode,
    },
    /// The group's own secret; the first one who asks says what it is: `offer`.
    AgreeOnKey {
        offer: [u8; 32],
    },
    /// Another operation with the attributes around it. Answers `Watched`, also where the other operation fails.
    Watched(Box<Watched>),
}

/// Which inodes the sender has open.
///
/// A client tells in the very operation that takes a last name, so that opening and closing files needs no operation.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Keep {
    /// These, at most [`MAX_HOLDS`].
    These(Vec<Inode>),
    /// More than that: it sorts out itself what it did not need.
    Whatever,
}

/// Locks of the two classes do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum LockClass {
    /// Of a process, on a range of bytes. [fcntl(2)]
    Record,
    /// Of an open file, on all of it. [flock(2)]
    Flock,
}

/// Who else may lock the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum LockKind {
    Shared,
    Exclusive,
}

/// A lock that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LockRequest {
    /// Whose lock it is, as the client numbers processes and open files.
    pub owner: u64,
    /// The process, for whoever asks which lock is in the way.
    pub pid: u32,
    pub class: LockClass,
    pub kind: LockKind,
    pub start: u64,
    /// The last byte: i64::MAX means the end of the file, however far it moves. Not below `start`.
    pub end: u64,
}

/// A lock that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LockInfo {
    pub kind: LockKind,
    pub start: u64,
    pub end: u64,
    /// The process if it is one of the same client, else 0.
    pub pid: u32,
}

/// What happens to an existing target. [renameat2(2)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum RenameMode {
    Replace,
    /// RENAME_NOREPLACE: EEXIST.
    NoReplace,
    /// RENAME_EXCHANGE: the two change places.
    Exchange,
}

/// What lseek(2) looks for. Pages that were never written, or were punched out, are holes; so is what follows the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SeekTarget {
    Data,
    Hole,
}

/// What fallocate(2) does to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AllocateMode {
    /// Takes the memory that writing the range will need; with `keep_size` also behind the end without moving it.
    Reserve { keep_size: bool },
    /// FALLOC_FL_PUNCH_HOLE: the range reads as zeros and takes no memory; the size stays.
    Punch,
    /// FALLOC_FL_ZERO_RANGE: the range reads as zeros, and its memory is taken.
    Zero { keep_size: bool },
}

/// What setxattr(2) does about an attribute of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum XattrMode {
    Set,
    /// XATTR_CREATE: EEXIST.
    Create,
    /// XATTR_REPLACE: ENODATA unless there is one.
    Replace,
}

/// What the file system answers when an operation succeeds.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum FsReply {
    Done,
    Padding(Vec<u8>),
    /// The inode that was looked up, created, linked, changed or synced.
    Attributes(Attributes),
    Target(Vec<u8>),
    /// `attributes` are those after the read; `eof` says that no byte follows `data`.
    Data {
        #[borsh(deserialize_with = "bft_core::codec::payload")]
        data: bytes::Bytes,
        eof: bool,
        attributes: Attributes,
    },
    Written {
        count: u32,
        attributes: Attributes,
    },
    /// Whole entries, ascending by cookie; `eof` says that none follows.
    Entries {
        entries: Vec<Entry>,
        eof: bool,
    },
    /// Where the search came to: at its target, or, unless `found`, where to go on with it.
    Position {
        offset: u64,
        found: bool,
    },
    /// `length` bytes of the range were handled; the rest is to be asked for again.
    Allocated {
        length: u64,
        attributes: Attributes,
    },
    /// The last name is gone, and the inode is held open for the sender's client.
    Kept(Inode),
    /// Held, but for those that do not exist any more.
    Held {
        missing: Vec<Inode>,
    },
    /// The lease of the sender's client. One that is new holds nothing yet: what an earlier one held is lost.
    Lease {
        number: u64,
        is_new: bool,
    },
    /// The lock is not set yet: there is a ticket for it.
    Waiting,
    /// The lock is not set, and the owner has lost the one that it had. [flock(2): converting a lock]
    Refused,
    /// The lock that is in the way of another, if there is one.
    Conflict(Option<LockInfo>),
    /// The value of an extended attribute.
    Value(bytes::Bytes),
    /// The names of the extended attributes that the caller may know of, ascending by their hash.
    Names(Vec<Vec<u8>>),
    Export(Export),
    Account(Account),
    StatFs(StatFs),
    /// Read 4, write 2, execute 1.
    Granted(u8),
    Key([u8; 32]),
    Watched(Box<Report>),
    /// To a `Write` that is asked for again, within the answer to a `Watched`: what it was answered. How the file was before is
    /// not told, and after it means now.
    WrittenBefore {
        count: u32,
    },
}

/// One name in a directory. "." and ".." are among them.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Entry {
    pub name: Vec<u8>,
    /// Where to go on after this entry. Stays valid while other entries come and go. Positive as an i64.
    pub cookie: u64,
    pub attributes: Attributes,
}

/// The file system as a whole. [statfs(2)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StatFs {
    /// Units of `blocks` and `free_blocks`: bytes.
    pub block_size: u32,
    pub blocks: u64,
    pub free_blocks: u64,
    pub inodes: u64,
    pub free_inodes: u64,
}

/// The most bytes one read or write moves.
pub const MAX_IO: u32 = 1 << 20;
/// The longest name of an entry.
pub const MAX_NAME: usize = 255;
/// The longest target of a symbolic link, as PATH_MAX less its NUL.
pub const MAX_TARGET: usize = 4095;
/// The most links to one file, as ext4.
pub const MAX_LINKS: u32 = 65_000;
/// The most inodes that one operation names as open.
pub const MAX_HOLDS: usize = 256;
/// The longest name of an extended attribute. [xattr(7): XATTR_NAME_MAX]
pub const MAX_XATTR_NAME: usize = 255;
/// The largest value of an extended attribute. [xattr(7): XATTR_SIZE_MAX] Units: bytes.
pub const MAX_XATTR: usize = 65_536;
/// The most that the names of one inode's extended attributes take, each with a NUL. [xattr(7): XATTR_LIST_MAX] Units: bytes.
pub const MAX_XATTR_LIST: usize = 65_536;
/// The most that all extended attributes of one inode take of the memory budget, so that a quota of inodes bounds them.
/// Units: bytes.
pub const MAX_XATTRS_COST: u64 = 256 << 10;
/// The most supplementary groups of a caller that are looked at. [NGROUPS_MAX is 65,536; nobody has them.]
pub const MAX_GROUPS: usize = 1024;
/// What an entry costs of a `ReadDirectory` budget besides its name: at least what FUSE's readdirplus entry takes.
pub const ENTRY_COST: u32 = 160;

/// An operation as it travels: who asks and what.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FsRequest {
    pub caller: Caller,
    pub op: FsOp,
}

/// A result as it travels.
pub type FsResult = Result<FsReply, FsError>;

impl FsOp {
    /// Whether the operation changes nothing and may be answered without being ordered.
    pub fn is_read_only(&self) -> bool {
        use FsOp::*;
        if let Watched(watched) = self {
            return watched.op.is_read_only();
        }
        matches!(
            self,
            Null { .. }
                | Lookup { .. }
                | GetAttributes { .. }
                | ReadLink { .. }
                | Read { .. }
                | ReadDirectory { .. }
                | Seek { .. }
                | GetXattr { .. }
                | ListXattrs { .. }
                | TestLock { .. }
                | LockStatus { .. }
                | StatFs
                | GetExport { .. }
                | GetAccount { .. }
                | Access { .. }
                | Permissions { .. }
        )
    }
}
