//! From what the group answers to what the kernel expects.

use super::convert::errno;
use bfs_fs::op::{Attributes, Entry, FsReply, FsResult, StatFs};
use fuser::{Errno, ReplyEmpty, ReplyWrite};

pub(super) fn empty(result: FsResult, reply: ReplyEmpty) {
    match result {
        Ok(_) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

pub(super) fn attributes(result: FsResult) -> Result<Attributes, Errno> {
    match result.map_err(errno)? {
        FsReply::Attributes(attributes) => Ok(attributes),
        other => Err(misfit(&other)),
    }
}

pub(super) fn entries(result: FsResult) -> Result<(Vec<Entry>, bool), Errno> {
    match result.map_err(errno)? {
        FsReply::Entries { entries, eof } => Ok((entries, eof)),
        other => Err(misfit(&other)),
    }
}

pub(super) fn stat_fs(result: FsResult) -> Result<StatFs, Errno> {
    match result.map_err(errno)? {
        FsReply::StatFs(stat_fs) => Ok(stat_fs),
        other => Err(misfit(&other)),
    }
}

/// An answer to another question: no correct group gives it.
pub(super) fn misfit(reply: &FsReply) -> Errno {
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
        FsReply::Granted(_)
        | FsReply::Key(_)
        | FsReply::Watched(_)
        | FsReply::WrittenBefore { .. } => "what only NFS asks for",
    };
    tracing::error!(
        "input/output error: the group answered with {kind}, which does not fit the request"
    );
    Errno::EIO
}

/// Why `result`, which is not what was asked for, is an error.
pub(super) fn unfit(result: FsResult) -> Errno {
    match result {
        Ok(other) => misfit(&other),
        Err(error) => errno(error),
    }
}

pub(super) fn written(result: FsResult, reply: ReplyWrite) {
    match result {
        Ok(FsReply::Written { count, .. }) => reply.written(count),
        other => reply.error(unfit(other)),
    }
}
