//! Why operations fail.

use borsh::{BorshDeserialize, BorshSerialize};
use core::fmt;

/// Why an operation failed. One value an errno; see errno(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum FsError {
    /// EPERM
    NotPermitted,
    /// ENOENT
    NotFound,
    /// EIO: only the client's side answers this; the state machine never does.
    Io,
    /// EACCES
    AccessDenied,
    /// EEXIST
    Exists,
    /// EXDEV
    CrossDevice,
    /// ENOTDIR
    NotDirectory,
    /// EISDIR
    IsDirectory,
    /// EINVAL
    Invalid,
    /// EFBIG
    FileTooLarge,
    /// ENOSPC
    NoSpace,
    /// EROFS
    ReadOnly,
    /// EMLINK
    TooManyLinks,
    /// ENAMETOOLONG
    NameTooLong,
    /// ENOTEMPTY
    NotEmpty,
    /// ESTALE
    Stale,
    /// EOPNOTSUPP
    NotSupported,
    /// ENODATA: no such extended attribute.
    NoData,
    /// ENXIO: a search from the end of the file on.
    NoSuchAddress,
    /// ERANGE: the name of an extended attribute that no attribute can have.
    OutOfRange,
    /// EMFILE: a client holds more files open than the group keeps for it.
    TooManyOpen,
    /// EAGAIN: another lock is in the way.
    WouldBlock,
    /// EDEADLK
    Deadlock,
    /// ENOLCK
    NoLocks,
    /// E2BIG: the value of an extended attribute.
    TooBig,
    /// EDQUOT
    QuotaExceeded,
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FsError::NotPermitted => "operation not permitted",
            FsError::NotFound => "no such file or directory",
            FsError::Io => "input/output error",
            FsError::AccessDenied => "permission denied",
            FsError::Exists => "file exists",
            FsError::CrossDevice => "invalid cross-device link",
            FsError::NotDirectory => "not a directory",
            FsError::IsDirectory => "is a directory",
            FsError::Invalid => "invalid argument",
            FsError::FileTooLarge => "file too large",
            FsError::NoSpace => "no space left on device",
            FsError::ReadOnly => "read-only file system",
            FsError::TooManyLinks => "too many links",
            FsError::NameTooLong => "file name too long",
            FsError::NotEmpty => "directory not empty",
            FsError::Stale => "stale file handle",
            FsError::NotSupported => "operation not supported",
            FsError::NoData => "no data available",
            FsError::NoSuchAddress => "no such device or address",
            FsError::OutOfRange => "numerical result out of range",
            FsError::TooManyOpen => "too many open files",
            FsError::WouldBlock => "resource temporarily unavailable",
            FsError::Deadlock => "resource deadlock avoided",
            FsError::NoLocks => "no locks available",
            FsError::TooBig => "argument list too long",
            FsError::QuotaExceeded => "disk quota exceeded",
        })
    }
}

impl core::error::Error for FsError {}
