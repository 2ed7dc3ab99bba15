//! The door to the objects: what operations read, and what they change.

use crate::name;
use crate::object::{Body, InodeRecord, Object, SUPER_ID, Super, entry_id, inode_id};
use crate::op::{Caller, FsError, FsReply, FsResult, Inode, Timestamp};
use crate::permission::EXECUTE;
use bft_core::objects::Objects;
use bft_core::tree::ObjectId;

/// The replicated state of the file system.
pub type State = Objects<Object>;

/// What an operation that changes nothing works with.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub state: &'a State,
    pub caller: &'a Caller,
    /// Which client asks.
    pub client: u32,
    /// The directory that is the client's root.
    pub top: Inode,
}

/// What an operation that changes something works with.
///
/// Every operation checks all that can fail before its first change: an error leaves the state as it was.
pub(crate) struct Writer<'a> {
    pub state: &'a mut State,
    pub caller: &'a Caller,
    /// Agreed time.
    pub now: Timestamp,
    /// The same. Units: nanoseconds since 1970.
    pub time: u64,
    /// Which client asked.
    pub client: u32,
    /// The directory that is the client's root.
    pub top: Inode,
    /// The sequence number of the batch.
    pub generation: u64,
    /// Whether root counts as nobody at clients of which nothing was said.
    pub root_squash: bool,
    /// How much may still be cleared away. Units: the removal of one object.
    pub allowance: usize,
    /// Units: bytes.
    pub memory_budget: u64,
}

/// An entry that was found.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub id: ObjectId,
    pub inode: Inode,
}

/// Where an entry called `name` can be, ascending.
fn places(directory: Inode, name: &[u8]) -> impl Iterator<Item = ObjectId> {
    let (first, last) = name::cookies(name);
    (first..=last).map(move |cookie| entry_id(directory, cookie))
}

/// The totals.
pub(crate) fn totals(state: &State) -> Super {
    match state.get(SUPER_ID) {
        Some(Object::Super(totals)) => *totals,
        _ => unreachable!("genesis puts the super object in place and nothing removes it"),
    }
}

/// The totals, to be changed.
pub(crate) fn totals_mut(state: &mut State) -> &mut Super {
    match state.get_mut(SUPER_ID) {
        Some(Object::Super(totals)) => totals,
        _ => unreachable!("genesis puts the super object in place and nothing removes it"),
    }
}

impl<'a> Reader<'a> {
    /// Errors: `Stale` if there is no such inode (any more).
    pub fn inode(self, number: Inode) -> Result<&'a InodeRecord, FsError> {
        match inode_id(number).and_then(|id| self.state.get_or_miss(id)) {
            Some(Object::Inode(record)) => Ok(record),
            _ => Err(FsError::Stale),
        }
    }

    /// Errors: `Stale`, `NotDirectory`.
    pub fn directory(self, number: Inode) -> Result<&'a InodeRecord, FsError> {
        let record = self.inode(number)?;
        if record.is_directory() { Ok(record) } else { Err(FsError::NotDirectory) }
    }

    /// The directory above `directory`; the root's is the root.
    ///
    /// Errors: `Stale`, `NotDirectory`.
    pub fn parent(self, directory: Inode) -> Result<Inode, FsError> {
        match self.inode(directory)?.body {
            Body::Directory { parent, .. } => Ok(parent),
            _ => Err(FsError::NotDirectory),
        }
    }

    /// What ".." in `directory` means to the client: above its root there is nothing.
    ///
    /// Errors: `Stale`, `NotDirectory`.
    pub fn above(self, directory: Inode) -> Result<Inode, FsError> {
        if directory == self.top { Ok(directory) } else { self.parent(directory) }
    }

    /// The attributes of an inode as a reply.
    pub fn attributes(self, number: Inode) -> FsResult {
        Ok(FsReply::Attributes(self.inode(number)?.attributes(number)))
    }

    /// The entry called `name` in `directory`, which the caller must be allowed to search.
    ///
    /// Reads the directory's inode, which changes with every entry in it: so "there is none" has a version too.
    ///
    /// Errors: `Stale`, `NotDirectory`, `AccessDenied`, and those of the name.
    pub fn entry(self, directory: Inode, name: &[u8]) -> Result<Option<Found>, FsError> {
        self.caller.allow(self.directory(directory)?, EXECUTE)?;
        name::check(name)?;
        // Eight look-ups share one path through the tree and cost less than a range, which also visits what is beside it.
        Ok(places(directory, name).find_map(|id| match self.state.get(id) {
            Some(Object::Entry(entry)) if *entry.name == *name => {
                Some(Found { id, inode: entry.inode })
            }
            _ => None,
        }))
    }

    /// The id that a new entry called `name` takes: the lowest that is free.
    ///
    /// Errors: `NoSpace` if names with the same hash have taken all.
    pub fn vacancy(self, directory: Inode, name: &[u8]) -> Result<ObjectId, FsError> {
        places(directory, name).find(|id| self.state.get(*id).is_none()).ok_or(FsError::NoSpace)
    }

    /// Errors: `NotEmpty` if `directory` has entries besides "." and "..".
    pub fn expect_empty(self, directory: &InodeRecord) -> Result<(), FsError> {
        match directory.body {
            Body::Directory { entries: 1.., .. } => Err(FsError::NotEmpty),
            _ => Ok(()),
        }
    }
}

impl Writer<'_> {
    /// The state as it is now.
    pub fn reader(&self) -> Reader<'_> {
        Reader { state: self.state, caller: self.caller, client: self.client, top: self.top }
    }

    /// Errors: `NoSpace` if `bytes` more would exceed the memory budget. Nothing more always fits.
    pub fn expect_room(&self, bytes: u64) -> Result<(), FsError> {
        if bytes == 0 {
            return Ok(());
        }
        match totals(self.state).bytes.checked_add(bytes) {
            Some(sum) if sum <= self.memory_budget => Ok(()),
            _ => Err(FsError::NoSpace),
        }
    }

    /// Changes inode `number`. Requires: it exists.
    pub fn change(&mut self, number: Inode, how: impl FnOnce(&mut InodeRecord)) {
        match inode_id(number).and_then(|id| self.state.get_mut(id)) {
            Some(Object::Inode(record)) => how(record),
            _ => unreachable!("inode {} was read before it is changed", number.0),
        }
    }

    /// The totals, to be changed.
    pub fn totals_mut(&mut self) -> &mut Super {
        totals_mut(self.state)
    }

    /// Takes `bytes` of the memory budget. Requires: there is room.
    pub fn charge(&mut self, bytes: u64) {
        if bytes > 0 {
            self.totals_mut().bytes += bytes;
        }
    }

    /// Gives back `bytes` of the memory budget. Requires: they were charged.
    pub fn refund(&mut self, bytes: u64) {
        if bytes > 0 {
            self.totals_mut().bytes -= bytes;
        }
    }

    /// Notes that `entries` and `subdirectories` of them came to (or, negative, left) `directory`.
    pub fn change_directory(&mut self, directory: Inode, entries: i64, subdirectories: i32) {
        let now = self.now;
        self.change(directory, |record| {
            record.modified = now;
            record.changed = now;
            record.links = record.links.saturating_add_signed(subdirectories);
            if let Body::Directory { entries: count, .. } = &mut record.body {
                *count = count.saturating_add_signed(entries);
            }
        });
    }
}
