//! Changing attributes. [chmod(2), chown(2), truncate(2), utimensat(2)]

use super::data::{MAX_FILE_SIZE, expect_file};
use crate::object::{Body, InodeRecord};
use crate::op::{Caller, FsError, FsResult, Inode, SetAttributes, SetTime, Subject, Timestamp};
use crate::permission::{MODE_BITS, SET_GID, SET_UID, WRITE};
use crate::state::Writer;

impl Writer<'_> {
    /// Changes what `set` names, all of it or nothing.
    ///
    /// Effects: a new owner, group or size takes the set-id bits and the capabilities of what is no directory. A size that cuts
    /// off more than [`MAX_CHUNKS`](super::extent::MAX_CHUNKS) chunks is reached in steps: until the answer shows it, nothing else of what `set`
    /// names has changed and the same is to be asked for again.
    ///
    /// Errors: `Stale`, `NotPermitted`, `AccessDenied`, `Invalid` (a time beyond its nanoseconds, the size of what has none),
    /// `IsDirectory` (the size of a directory), `FileTooLarge`, `NotSupported` (the mode of a symbolic link), `NoSpace` (the new owner had nothing).
    pub fn set_attributes(&mut self, number: Inode, set: &SetAttributes) -> FsResult {
        let record = self.reader().inode(number)?;
        expect_valid(record, set)?;
        expect_allowed(self.caller, record, set)?;
        if *set == SetAttributes::default() {
            return self.reader().attributes(number);
        }
        if let Some(uid) = set.uid {
            self.expect_room(self.reader().new_account(Subject::User(uid)))?;
        }
        let mode = new_mode(self.caller, record, set);
        let is_directory = record.is_directory();
        if set.size.is_some_and(|size| !self.resize(number, size)) {
            self.touch_data(number);
            return self.reader().attributes(number);
        }
        if !is_directory && (set.size.is_some() || set.uid.is_some() || set.gid.is_some()) {
            self.drop_capability(number);
        }
        let now = self.now;
        if let Some(uid) = set.uid {
            self.transfer(number, uid);
        }
        self.change(number, |record| {
            record.mode = mode;
            record.uid = set.uid.unwrap_or(record.uid);
            record.gid = set.gid.unwrap_or(record.gid);
            if set.size.is_some() {
                record.modified = now;
            }
            record.accessed = at(set.accessed, now).unwrap_or(record.accessed);
            record.modified = at(set.modified, now).unwrap_or(record.modified);
            record.changed = now;
            if let Body::File { verifier } = &mut record.body {
                // Its maker has heard of it. A verifier may come again, from a client that has started anew: no repeat then.
                *verifier = None;
            }
        });
        self.reader().attributes(number)
    }
}

fn at(time: Option<SetTime>, now: Timestamp) -> Option<Timestamp> {
    time.map(|time| match time {
        SetTime::Now => now,
        SetTime::At(time) => time,
    })
}

/// Whether `set` makes sense for such an inode.
fn expect_valid(record: &InodeRecord, set: &SetAttributes) -> Result<(), FsError> {
    let beyond = |time| matches!(time, Some(SetTime::At(time)) if !time.is_valid());
    if beyond(set.accessed) || beyond(set.modified) {
        return Err(FsError::Invalid);
    }
    if let Some(size) = set.size {
        expect_file(record)?;
        if size > MAX_FILE_SIZE {
            return Err(FsError::FileTooLarge);
        }
    }
    if set.mode.is_some() && matches!(record.body, Body::Symlink { .. }) {
        return Err(FsError::NotSupported);
    }
    Ok(())
}

/// Whether the caller may make the change.
fn expect_allowed(
    caller: &Caller,
    record: &InodeRecord,
    set: &SetAttributes,
) -> Result<(), FsError> {
    if set.size.is_some() {
        caller.allow_data(record, WRITE)?;
    }
    let owner = caller.uid == record.uid;
    let gives_away = set.uid.is_some_and(|uid| !owner || uid != record.uid);
    let regroups = set.gid.is_some_and(|gid| !owner || (gid != record.gid && !caller.is_in(gid)));
    if (gives_away || regroups) && !caller.is_root() {
        return Err(FsError::NotPermitted);
    }
    if set.mode.is_some() && !caller.owns(record) {
        return Err(FsError::NotPermitted);
    }
    expect_times_allowed(caller, record, set)
}

/// Whoever may write may set both times to now; anything else is the owner's. [utimensat(2)]
fn expect_times_allowed(
    caller: &Caller,
    record: &InodeRecord,
    set: &SetAttributes,
) -> Result<(), FsError> {
    use SetTime::Now;
    if caller.owns(record) {
        return Ok(());
    }
    match (set.accessed, set.modified) {
        (None, None) => Ok(()),
        // A new size sets the time of modification anyway.
        (None, Some(Now)) if set.size.is_some() => Ok(()),
        (Some(Now), Some(Now)) => caller.allow(record, WRITE),
        _ => Err(FsError::NotPermitted),
    }
}

fn new_mode(caller: &Caller, record: &InodeRecord, set: &SetAttributes) -> u16 {
    let changes_hands = !record.is_directory() && (set.uid.is_some() || set.gid.is_some());
    let Some(mode) = set.mode else {
        let resized = set.size.is_some() && !caller.is_root();
        return if changes_hands || resized { caller.without_set_id(record) } else { record.mode };
    };
    let mut mode = mode & MODE_BITS;
    if !caller.is_root() && !caller.is_in(set.gid.unwrap_or(record.gid)) {
        mode &= !SET_GID;
    }
    // The caller vouches for the mode, but not for what the new owner would run as.
    if changes_hands {
        mode &= !SET_UID;
        if mode & 0o010 != 0 {
            mode &= !SET_GID;
        }
    }
    mode
}
