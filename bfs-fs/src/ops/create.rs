//! Making things, and giving them further names.

use crate::cost;
use crate::name;
use crate::object::{Body, EntryRecord, InodeRecord, Object, inode_id};
use crate::op::{
    CreateMode, FsError, FsReply, FsResult, Inode, Kind, MAX_LINKS, MAX_TARGET, Subject,
};
use crate::permission::{EXECUTE, MODE_BITS, STICKY, WRITE};
use crate::state::{Found, Reader, Writer, totals};
use alloc::boxed::Box;
use bft_core::tree::ObjectId;

impl Reader<'_> {
    /// Whether the caller may put a new `name` into `parent`.
    ///
    /// Errors: `Exists`, `AccessDenied`, `NotFound` if `parent` was removed, and those of [`Reader::entry`].
    fn expect_new(self, parent: Inode, name: &[u8]) -> Result<(), FsError> {
        let directory = self.directory(parent)?;
        self.caller.allow(directory, EXECUTE)?;
        if directory.links == 0 {
            return Err(FsError::NotFound);
        }
        if name::is_dots(name) || self.entry(parent, name)?.is_some() {
            return Err(FsError::Exists);
        }
        self.caller.allow(directory, WRITE)
    }

    /// Opens what a create found under its name.
    ///
    /// Errors: `Exists`, `IsDirectory`. [open(2), RFC 1813 §3.3.8]
    fn open_existing(self, found: Found, how: CreateMode) -> FsResult {
        let record = self.inode(found.inode)?;
        let same = match (how, &record.body) {
            (CreateMode::Unchecked, Body::Directory { .. }) => return Err(FsError::IsDirectory),
            (CreateMode::Unchecked, Body::File { .. }) => true,
            (CreateMode::Exclusive(repeated), Body::File { verifier }) => {
                *verifier == Some(repeated)
            }
            _ => false,
        };
        if same { self.attributes(found.inode) } else { Err(FsError::Exists) }
    }
}

impl Writer<'_> {
    /// Creates or opens a regular file. [open(2): O_CREAT]
    ///
    /// Errors: `Exists`, `IsDirectory`, `AccessDenied`, `NoSpace`, and those of a name.
    pub fn create(&mut self, parent: Inode, name: &[u8], mode: u16, how: CreateMode) -> FsResult {
        let reader = self.reader();
        if !name::is_dots(name)
            && let Some(found) = reader.entry(parent, name)?
        {
            return reader.open_existing(found, how);
        }
        let verifier = match how {
            CreateMode::Exclusive(verifier) => Some(verifier),
            CreateMode::Unchecked | CreateMode::Guarded => None,
        };
        self.make(parent, name, mode, Body::File { verifier })
    }

    /// Creates an empty directory. Only the permission and sticky bits of `mode` count. [mkdir(2)]
    ///
    /// Errors: `Exists`, `AccessDenied`, `TooManyLinks`, `NoSpace`, and those of a name.
    pub fn make_directory(&mut self, parent: Inode, name: &[u8], mode: u16) -> FsResult {
        self.make(parent, name, mode & (0o777 | STICKY), Body::Directory { parent, entries: 0 })
    }

    /// Creates a fifo, a socket, a device (root only) or an empty file. [mknod(2)]
    ///
    /// Errors: `NotPermitted` for a device, and for a directory; `Invalid` for a symbolic link; and those of `create`.
    pub fn make_node(
        &mut self,
        parent: Inode,
        name: &[u8],
        kind: Kind,
        mode: u16,
        device: u32,
    ) -> FsResult {
        let body = match kind {
            Kind::File => Body::File { verifier: None },
            Kind::Fifo => Body::Fifo,
            Kind::Socket => Body::Socket,
            Kind::CharDevice => Body::CharDevice { device },
            Kind::BlockDevice => Body::BlockDevice { device },
            Kind::Directory => return Err(FsError::NotPermitted),
            Kind::Symlink => return Err(FsError::Invalid),
        };
        self.reader().expect_new(parent, name)?;
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) && !self.caller.is_root() {
            return Err(FsError::NotPermitted);
        }
        self.make(parent, name, mode, body)
    }

    /// Creates a symbolic link. [symlink(2)]
    ///
    /// Errors: of the target `NotFound` if it is empty, `NameTooLong`, `Invalid` if it holds a NUL; and those of `create`.
    pub fn symlink(&mut self, parent: Inode, name: &[u8], target: &[u8]) -> FsResult {
        match target {
            [] => return Err(FsError::NotFound),
            _ if target.len() > MAX_TARGET => return Err(FsError::NameTooLong),
            _ if target.contains(&0) => return Err(FsError::Invalid),
            _ => {}
        }
        self.make(parent, name, 0o777, Body::Symlink { target: target.into() })
    }

    /// Gives what is no directory a further name. [link(2)]
    ///
    /// Errors: `NotPermitted` for a directory, `CrossDevice` out of a subtree, `TooManyLinks`, `Stale`, `NotFound` for what has lost its last name, and those
    /// of `create`.
    pub fn link(&mut self, number: Inode, parent: Inode, name: &[u8]) -> FsResult {
        let reader = self.reader();
        let record = reader.inode(number)?;
        reader.expect_new(parent, name)?;
        if record.is_directory() {
            return Err(FsError::NotPermitted);
        }
        if record.links == 0 {
            return Err(FsError::NotFound);
        }
        if record.subtree != reader.directory(parent)?.subtree {
            return Err(FsError::CrossDevice);
        }
        if record.links >= MAX_LINKS {
            return Err(FsError::TooManyLinks);
        }
        let id = reader.vacancy(parent, name)?;
        let bytes = cost::entry(name);
        self.expect_room(bytes)?;
        self.enter(id, name, number);
        self.charge(bytes);
        self.change_directory(parent, 1, 0);
        let now = self.now;
        self.change(number, |record| {
            record.links += 1;
            record.changed = now;
        });
        self.reader().attributes(number)
    }

    /// Puts an entry in place. The accounts and the directory are the caller's.
    pub fn enter(&mut self, id: ObjectId, name: &[u8], inode: Inode) {
        self.state.insert(id, Object::Entry(EntryRecord { inode, name: name.into() }));
    }

    /// Makes an inode with this body, called `name` in `parent`.
    ///
    /// Errors: `Exists`, `AccessDenied`, `TooManyLinks`, `NoSpace`, `QuotaExceeded`, and those of a name.
    fn make(&mut self, parent: Inode, name: &[u8], mode: u16, body: Body) -> FsResult {
        let reader = self.reader();
        reader.expect_new(parent, name)?;
        let directory = reader.directory(parent)?;
        let is_directory = matches!(body, Body::Directory { .. });
        if is_directory && directory.links == u32::MAX {
            return Err(FsError::TooManyLinks);
        }
        let entry = reader.vacancy(parent, name)?;
        let owners = (self.caller.uid, directory.subtree);
        reader.expect_quota(owners, 0, 1)?;
        let bytes = cost::inode(&body) + cost::entry(name);
        self.expect_room(bytes + reader.new_account(Subject::User(owners.0)))?;
        let number = Inode(totals(self.state).next_inode);
        // Numbers are never used twice: once all 2^56 are spent, no inode can be made any more.
        let id = inode_id(number).ok_or(FsError::NoSpace)?;
        let (gid, mode) = self.caller.inherited(directory, &body, mode & MODE_BITS);
        let record = self.fresh(body, mode, gid, directory.subtree);
        let attributes = record.attributes(number);

        self.state.insert(id, Object::Inode(Box::new(record)));
        self.enter(entry, name, number);
        self.charge(bytes);
        self.book(owners, 0, 1);
        let totals = self.totals_mut();
        totals.next_inode += 1;
        totals.inodes += 1;
        self.change_directory(parent, 1, i32::from(is_directory));
        Ok(FsReply::Attributes(attributes))
    }

    fn fresh(&self, body: Body, mode: u16, gid: u32, subtree: Inode) -> InodeRecord {
        InodeRecord {
            generation: self.generation,
            size: match &body {
                Body::Symlink { target } => target.len() as u64,
                _ => 0,
            },
            pages: 0,
            accessed: self.now,
            modified: self.now,
            changed: self.now,
            links: if matches!(body, Body::Directory { .. }) { 2 } else { 1 },
            uid: self.caller.uid,
            gid,
            mode,
            xattrs: 0,
            subtree,
            body,
        }
    }
}
