//! Procedures, and what each may answer.

use bfs_fs::op::{FsError, Refusal};

/// The procedures of NFSv3, by their numbers. [RFC 1813 §3.3]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Procedure {
    Null,
    GetAttr,
    SetAttr,
    Lookup,
    Access,
    ReadLink,
    Read,
    Write,
    Create,
    MkDir,
    Symlink,
    MkNod,
    Remove,
    RmDir,
    Rename,
    Link,
    ReadDir,
    ReadDirPlus,
    FsStat,
    FsInfo,
    PathConf,
    Commit,
}

impl Procedure {
    /// All of them, ascending.
    pub const ALL: [Self; 22] = [
        Self::Null,
        Self::GetAttr,
        Self::SetAttr,
        Self::Lookup,
        Self::Access,
        Self::ReadLink,
        Self::Read,
        Self::Write,
        Self::Create,
        Self::MkDir,
        Self::Symlink,
        Self::MkNod,
        Self::Remove,
        Self::RmDir,
        Self::Rename,
        Self::Link,
        Self::ReadDir,
        Self::ReadDirPlus,
        Self::FsStat,
        Self::FsInfo,
        Self::PathConf,
        Self::Commit,
    ];

    /// The procedure called `number`.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    /// What the procedure may answer besides success, as RFC 1813 lists it.
    pub fn errors(self) -> &'static [Status] {
        use Status::*;
        match self {
            Self::Null => &[],
            Self::GetAttr | Self::Access | Self::FsStat | Self::Commit => {
                &[Io, Stale, BadHandle, ServerFault]
            }
            Self::SetAttr => &[
                Perm,
                Io,
                Access,
                Inval,
                NoSpc,
                RoFs,
                DQuot,
                NotSync,
                Stale,
                BadHandle,
                NotSupp,
                ServerFault,
            ],
            Self::Lookup => {
                &[Io, NoEnt, Access, NotDir, NameTooLong, Stale, BadHandle, ServerFault]
            }
            Self::ReadLink => &[Io, Inval, Access, Stale, BadHandle, NotSupp, ServerFault],
            Self::Read => &[Io, NxIo, Access, Inval, Stale, BadHandle, ServerFault],
            Self::Write => {
                &[Io, Access, FBig, DQuot, NoSpc, RoFs, Inval, Stale, BadHandle, ServerFault]
            }
            Self::Create | Self::MkDir | Self::Symlink => {
                MAKING.split_last().map_or(&[], |list| list.1)
            }
            Self::MkNod => &MAKING,
            Self::Remove => {
                &[NoEnt, Io, Access, NotDir, NameTooLong, RoFs, Stale, BadHandle, ServerFault]
            }
            Self::RmDir => &[
                NoEnt,
                Io,
                Access,
                Inval,
                Exist,
                NotDir,
                NameTooLong,
                RoFs,
                NotEmpty,
                Stale,
                BadHandle,
                NotSupp,
                ServerFault,
            ],
            Self::Rename => &[
                NoEnt,
                Io,
                Access,
                Exist,
                XDev,
                NotDir,
                IsDir,
                Inval,
                NoSpc,
                RoFs,
                MLink,
                NameTooLong,
                NotEmpty,
                DQuot,
                Stale,
                BadHandle,
                NotSupp,
                ServerFault,
            ],
            Self::Link => &[
                Io,
                Access,
                Exist,
                XDev,
                NotDir,
                Inval,
                NoSpc,
                RoFs,
                MLink,
                NameTooLong,
                DQuot,
                Stale,
                BadHandle,
                NotSupp,
                ServerFault,
            ],
            Self::ReadDir => {
                &[Io, Access, NotDir, BadCookie, TooSmall, Stale, BadHandle, ServerFault]
            }
            Self::ReadDirPlus => {
                &[Io, Access, NotDir, BadCookie, TooSmall, Stale, BadHandle, NotSupp, ServerFault]
            }
            Self::FsInfo | Self::PathConf => &[Stale, BadHandle, ServerFault],
        }
    }

    /// How the procedure answers that an operation was not done: by what comes nearest of what it may answer.
    pub fn status(self, refusal: Refusal) -> Status {
        let nearest: &[Status] = match refusal {
            Refusal::Failed(error) => candidates(error),
            Refusal::OutOfSync => &[Status::NotSync],
        };
        let fits = |status: &&Status| self.errors().contains(status);
        nearest.iter().find(fits).copied().unwrap_or(Status::ServerFault)
    }
}

/// What MKNOD may answer. Whatever else makes something may answer the same but for the last: there the type is not asked for.
const MAKING: [Status; 13] = [
    Status::Io,
    Status::Access,
    Status::Exist,
    Status::NotDir,
    Status::NoSpc,
    Status::RoFs,
    Status::NameTooLong,
    Status::DQuot,
    Status::Stale,
    Status::BadHandle,
    Status::NotSupp,
    Status::ServerFault,
    Status::BadType,
];

/// A status of NFSv3. [RFC 1813 §2.6: nfsstat3]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Status {
    Ok = 0,
    Perm = 1,
    NoEnt = 2,
    Io = 5,
    NxIo = 6,
    Access = 13,
    Exist = 17,
    XDev = 18,
    NotDir = 20,
    IsDir = 21,
    Inval = 22,
    FBig = 27,
    NoSpc = 28,
    RoFs = 30,
    MLink = 31,
    NameTooLong = 63,
    NotEmpty = 66,
    DQuot = 69,
    Stale = 70,
    BadHandle = 10_001,
    NotSync = 10_002,
    BadCookie = 10_003,
    NotSupp = 10_004,
    TooSmall = 10_005,
    ServerFault = 10_006,
    BadType = 10_007,
}

/// What says the same as `error`, the nearest first. The lists of RFC 1813 lack some of the obvious: there, to remove from
/// a sticky directory is not "not permitted" but "access denied", and a name with a slash in it is too.
fn candidates(error: FsError) -> &'static [Status] {
    use Status::*;
    match error {
        FsError::NotPermitted => &[Perm, Access, Inval],
        FsError::NotFound => &[NoEnt, Stale],
        FsError::Io => &[Io],
        FsError::AccessDenied => &[Access],
        FsError::Exists => &[Exist],
        FsError::CrossDevice => &[XDev],
        FsError::NotDirectory => &[NotDir, Inval],
        FsError::IsDirectory => &[IsDir, Inval, Exist, Access],
        FsError::Invalid => &[Inval, Access],
        FsError::FileTooLarge => &[FBig, Inval, NoSpc],
        FsError::NoSpace => &[NoSpc],
        FsError::ReadOnly => &[RoFs],
        FsError::TooManyLinks => &[MLink, NoSpc],
        FsError::NameTooLong => &[NameTooLong, Inval],
        FsError::NotEmpty => &[NotEmpty, Exist],
        FsError::Stale => &[Stale],
        FsError::NotSupported => &[NotSupp, Inval],
        FsError::QuotaExceeded => &[DQuot, NoSpc],
        FsError::NoSuchAddress => &[NxIo],
        // Of operations that NFS does not ask for.
        FsError::NoData
        | FsError::OutOfRange
        | FsError::TooManyOpen
        | FsError::WouldBlock
        | FsError::Deadlock
        | FsError::NoLocks
        | FsError::TooBig => &[ServerFault],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERRORS: [FsError; 26] = [
        FsError::NotPermitted,
        FsError::NotFound,
        FsError::Io,
        FsError::AccessDenied,
        FsError::Exists,
        FsError::CrossDevice,
        FsError::NotDirectory,
        FsError::IsDirectory,
        FsError::Invalid,
        FsError::FileTooLarge,
        FsError::NoSpace,
        FsError::ReadOnly,
        FsError::TooManyLinks,
        FsError::NameTooLong,
        FsError::NotEmpty,
        FsError::Stale,
        FsError::NotSupported,
        FsError::NoData,
        FsError::NoSuchAddress,
        FsError::OutOfRange,
        FsError::TooManyOpen,
        FsError::WouldBlock,
        FsError::Deadlock,
        FsError::NoLocks,
        FsError::TooBig,
        FsError::QuotaExceeded,
    ];

    #[test]
    fn every_procedure_answers_every_error_by_what_it_may_answer() {
        for procedure in Procedure::ALL.into_iter().skip(1) {
            for refusal in ERRORS.map(Refusal::Failed).into_iter().chain([Refusal::OutOfSync]) {
                let status = procedure.status(refusal);
                assert!(
                    procedure.errors().contains(&status),
                    "{procedure:?} {refusal:?} {status:?}"
                );
            }
        }
    }

    #[test]
    fn an_error_that_is_listed_is_answered_as_it_is() {
        let status = |procedure: Procedure, error| procedure.status(Refusal::Failed(error));
        assert_eq!(status(Procedure::SetAttr, FsError::NotPermitted), Status::Perm);
        assert_eq!(status(Procedure::Remove, FsError::NotPermitted), Status::Access);
        assert_eq!(status(Procedure::Rename, FsError::IsDirectory), Status::IsDir);
        assert_eq!(status(Procedure::Read, FsError::IsDirectory), Status::Inval);
        assert_eq!(status(Procedure::Lookup, FsError::Invalid), Status::Access);
        assert_eq!(status(Procedure::MkDir, FsError::NotFound), Status::Stale);
        assert_eq!(Procedure::SetAttr.status(Refusal::OutOfSync), Status::NotSync);
    }

    #[test]
    fn procedures_are_numbered_from_null_to_commit() {
        for (number, procedure) in Procedure::ALL.into_iter().enumerate() {
            assert_eq!(procedure as usize, number);
        }
        assert_eq!(Procedure::of(21), Some(Procedure::Commit));
        assert_eq!(Procedure::of(22), None);
    }
}
