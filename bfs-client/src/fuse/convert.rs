//! From the kernel's values to ours and back. Every mapping is total.

use bfs_fs::op::{Attributes, FsError, Kind, RenameMode, SetTime, Timestamp};
use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags, TimeOrNow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The unit in which programs are advised to read and write: large, because every call is a round of the group.
const PREFERRED_IO: u32 = 128 * 1024;

/// The errno that means `error`.
pub fn errno(error: FsError) -> Errno {
    match error {
        FsError::NotPermitted => Errno::EPERM,
        FsError::NotFound => Errno::ENOENT,
        FsError::Io => Errno::EIO,
        FsError::AccessDenied => Errno::EACCES,
        FsError::Exists => Errno::EEXIST,
        FsError::CrossDevice => Errno::EXDEV,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::Invalid => Errno::EINVAL,
        FsError::FileTooLarge => Errno::EFBIG,
        FsError::NoSpace => Errno::ENOSPC,
        FsError::ReadOnly => Errno::EROFS,
        FsError::TooManyLinks => Errno::EMLINK,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::Stale => Errno::ESTALE,
        FsError::NotSupported => Errno::EOPNOTSUPP,
        FsError::NoData => Errno::ENODATA,
        FsError::NoSuchAddress => Errno::ENXIO,
        FsError::OutOfRange => Errno::ERANGE,
        FsError::TooManyOpen => Errno::EMFILE,
        FsError::WouldBlock => Errno::EAGAIN,
        FsError::Deadlock => Errno::EDEADLK,
        FsError::NoLocks => Errno::ENOLCK,
        FsError::TooBig => Errno::E2BIG,
        FsError::QuotaExceeded => Errno::EDQUOT,
    }
}

/// The attributes as the kernel takes them.
pub fn file_attr(a: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(a.inode.0),
        size: a.size,
        blocks: a.blocks,
        atime: system_time(a.accessed),
        mtime: system_time(a.modified),
        ctime: system_time(a.changed),
        crtime: UNIX_EPOCH,
        kind: file_type(a.kind),
        perm: a.mode,
        nlink: a.links,
        uid: a.uid,
        gid: a.gid,
        rdev: a.device,
        blksize: PREFERRED_IO,
        flags: 0,
    }
}

/// The kind of an inode as the kernel names it.
pub fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// What mknod(2) is asked to make, from the type bits of `mode`; nothing for what it cannot make.
pub fn node_kind(mode: u32) -> Option<Kind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(Kind::File),
        libc::S_IFIFO => Some(Kind::Fifo),
        libc::S_IFSOCK => Some(Kind::Socket),
        libc::S_IFCHR => Some(Kind::CharDevice),
        libc::S_IFBLK => Some(Kind::BlockDevice),
        _ => None,
    }
}

/// The 12 permission bits of `mode` less those of `umask`.
///
/// The kernel has already applied the umask, since we do not ask it for FUSE_DONT_MASK; doing it again changes nothing.
pub fn permissions(mode: u32, umask: u32) -> u16 {
    (mode & !umask & 0o7777) as u16
}

/// What renameat2(2) is asked to do; nothing for flags that we do not know.
pub fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    match flags {
        _ if flags.is_empty() => Some(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        _ => None,
    }
}

/// How setattr sets a time.
pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => SetTime::At(timestamp(at)),
    }
}

/// A time that the kernel sent, as the mount library hands it over.
///
/// Before 1970 the library takes (seconds, nanoseconds) for `-(|seconds| + nanoseconds)` where the kernel means
/// `seconds + nanoseconds`; taking it apart in the same way gives back what the kernel sent.
fn timestamp(at: SystemTime) -> Timestamp {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: after.subsec_nanos(),
        },
        Err(before) => Timestamp {
            seconds: 0i64.saturating_sub_unsigned(before.duration().as_secs()),
            nanoseconds: before.duration().subsec_nanos(),
        },
    }
}

/// A time of ours. What the system cannot represent shows as 1970.
fn system_time(t: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(t.seconds.unsigned_abs());
    let base = match t.seconds < 0 {
        true => UNIX_EPOCH.checked_sub(whole),
        false => UNIX_EPOCH.checked_add(whole),
    };
    let nanoseconds = Duration::from_nanos(t.nanoseconds.into());
    base.and_then(|base| base.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bfs_fs::op::Inode;

    #[test]
    fn every_error_has_the_errno_of_its_name() {
        let expected = [
            (FsError::NotPermitted, libc::EPERM),
            (FsError::NotFound, libc::ENOENT),
            (FsError::Io, libc::EIO),
            (FsError::AccessDenied, libc::EACCES),
            (FsError::Exists, libc::EEXIST),
            (FsError::CrossDevice, libc::EXDEV),
            (FsError::NotDirectory, libc::ENOTDIR),
            (FsError::IsDirectory, libc::EISDIR),
            (FsError::Invalid, libc::EINVAL),
            (FsError::FileTooLarge, libc::EFBIG),
            (FsError::NoSpace, libc::ENOSPC),
            (FsError::ReadOnly, libc::EROFS),
            (FsError::TooManyLinks, libc::EMLINK),
            (FsError::NameTooLong, libc::ENAMETOOLONG),
            (FsError::NotEmpty, libc::ENOTEMPTY),
            (FsError::Stale, libc::ESTALE),
            (FsError::NotSupported, libc::EOPNOTSUPP),
            (FsError::NoData, libc::ENODATA),
            (FsError::NoSuchAddress, libc::ENXIO),
            (FsError::OutOfRange, libc::ERANGE),
            (FsError::TooManyOpen, libc::EMFILE),
            (FsError::WouldBlock, libc::EAGAIN),
            (FsError::Deadlock, libc::EDEADLK),
            (FsError::NoLocks, libc::ENOLCK),
            (FsError::TooBig, libc::E2BIG),
            (FsError::QuotaExceeded, libc::EDQUOT),
        ];
        for (error, number) in expected {
            assert_eq!(errno(error).code(), number, "{error}");
            // The two texts that a person may see agree.
            let system = std::io::Error::from_raw_os_error(number).to_string().to_lowercase();
            assert!(system.starts_with(&error.to_string()), "{system} / {error}");
        }
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let t = Timestamp { seconds: -2, nanoseconds: 500_000_000 };
        assert_eq!(system_time(t), UNIX_EPOCH - Duration::from_millis(1500));
        // The library's reading of the kernel's (-2 s, 0.5e9 ns).
        let from_kernel = UNIX_EPOCH - Duration::new(2, 500_000_000);
        assert_eq!(timestamp(from_kernel), t);
    }

    #[test]
    fn times_after_1970_go_there_and_back() {
        for seconds in [0, 1, 1_700_000_000, i64::from(u32::MAX) + 5] {
            let t = Timestamp { seconds, nanoseconds: 123_456_789 };
            assert_eq!(timestamp(system_time(t)), t);
        }
    }

    #[test]
    fn extreme_times_do_not_panic() {
        for seconds in [i64::MIN, i64::MIN + 1, i64::MAX] {
            system_time(Timestamp { seconds, nanoseconds: 999_999_999 });
        }
    }

    #[test]
    fn node_kinds_follow_the_type_bits() {
        assert_eq!(node_kind(libc::S_IFIFO | 0o644), Some(Kind::Fifo));
        assert_eq!(node_kind(libc::S_IFREG), Some(Kind::File));
        assert_eq!(node_kind(0o600), Some(Kind::File));
        assert_eq!(node_kind(libc::S_IFDIR), None);
        assert_eq!(node_kind(libc::S_IFLNK), None);
    }

    #[test]
    fn rename_flags_that_mean_something_else_are_refused() {
        assert_eq!(rename_mode(RenameFlags::empty()), Some(RenameMode::Replace));
        assert_eq!(rename_mode(RenameFlags::RENAME_NOREPLACE), Some(RenameMode::NoReplace));
        assert_eq!(rename_mode(RenameFlags::RENAME_EXCHANGE), Some(RenameMode::Exchange));
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
        let both = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE;
        assert_eq!(rename_mode(both), None);
    }

    #[test]
    fn attributes_keep_their_inode_and_set_id_bits() {
        let attributes = Attributes {
            inode: Inode(7),
            generation: 3,
            kind: Kind::File,
            mode: 0o6755,
            links: 2,
            uid: 10,
            gid: 20,
            device: 0,
            size: 5,
            blocks: 8,
            accessed: Timestamp::default(),
            modified: Timestamp::default(),
            changed: Timestamp::default(),
            has_xattrs: false,
        };
        let attr = file_attr(&attributes);
        assert_eq!((attr.ino.0, attr.perm, attr.nlink), (7, 0o6755, 2));
        assert_eq!(permissions(0o106_777, 0o022), 0o6755);
    }
}
