//! Files of a group without a mount: each call here asks for what the kernel would ask for.

use crate::asking::{Asker, Whom};
use crate::backend::Outvoted;
use crate::failure::Outcome;
use crate::local_group::LocalGroup;
use bfs_fs::op::{
    Attributes, CreateMode, FsError, FsOp, FsReply, Inode, Keep, MAX_IO, ROOT, SetAttributes,
};
use bytes::Bytes;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The files, by their paths from the root of the group on. Every answer is the group's: nothing is cached.
pub struct Store(Asker);

/// An answer that no operation here asks for.
const MISFIT: FsError = FsError::Io;

impl Store {
    /// Opens a session by the keys that the group's mounts use. An operation may take `patience`.
    ///
    /// Errors: no quorum answers.
    pub fn open(group: &LocalGroup, patience: Duration) -> Outcome<Self> {
        let whom = Whom { group: group.group_file(), key: Some(group.key_dir()) };
        whom.connect_for(patience).map(Self)
    }

    /// Makes the directory `path`, whose parent is there.
    ///
    /// Errors: those of mkdir(2).
    pub fn make_directory(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        self.ask(FsOp::MakeDirectory { parent, name, mode: 0o755 }).map(drop)
    }

    /// Makes the file `path` hold `contents`.
    ///
    /// Errors: those of open(2) and write(2).
    pub fn write(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        let how = CreateMode::Unchecked;
        let made = self.attributes_of(FsOp::Create { parent, name, mode: 0o644, how })?;
        if made.size > 0 {
            let set = SetAttributes { size: Some(0), ..SetAttributes::default() };
            self.ask(FsOp::SetAttributes { inode: made.inode, set })?;
        }
        for (i, part) in contents.chunks(MAX_IO as usize).enumerate() {
            let offset = i as u64 * u64::from(MAX_IO);
            let data = Bytes::copy_from_slice(part);
            self.ask(FsOp::Write { inode: made.inode, offset, data })?;
        }
        Ok(())
    }

    /// All of the file `path`.
    ///
    /// Errors: those of open(2) and read(2).
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (inode, mut contents) = (self.find(path)?, Vec::new());
        loop {
            let offset = contents.len() as u64;
            match self.ask(FsOp::Read { inode, offset, count: MAX_IO })? {
                FsReply::Data { data, eof, .. } => {
                    contents.extend_from_slice(&data);
                    if eof || data.is_empty() {
                        return Ok(contents);
                    }
                }
                _ => return Err(io::Error::other(MISFIT)),
            }
        }
    }

    /// What stat(2) says of `path`.
    ///
    /// Errors: those of stat(2).
    pub fn attributes(&self, path: &Path) -> io::Result<Attributes> {
        let (parent, name) = self.place(path)?;
        self.attributes_of(FsOp::Lookup { parent, name })
    }

    /// Takes the name `path` of a file away.
    ///
    /// Errors: those of unlink(2).
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        self.ask(FsOp::Unlink { parent, name, keep: Keep::These(Vec::new()) }).map(drop)
    }

    /// Takes the empty directory `path` away.
    ///
    /// Errors: those of rmdir(2).
    pub fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        self.ask(FsOp::RemoveDirectory { parent, name, keep: Keep::These(Vec::new()) }).map(drop)
    }

    /// How many replies of each replica a quorum has refuted, by replica.
    pub fn outvoted(&self) -> Vec<Outvoted> {
        self.0.outvoted()
    }

    fn ask(&self, op: FsOp) -> io::Result<FsReply> {
        self.0.ask(op).map_err(io::Error::other)
    }

    fn attributes_of(&self, op: FsOp) -> io::Result<Attributes> {
        self.0.attributes(op).map_err(io::Error::other)
    }

    fn find(&self, path: &Path) -> io::Result<Inode> {
        path.iter().try_fold(ROOT, |parent, name| {
            let op = FsOp::Lookup { parent, name: name.as_bytes().to_vec() };
            self.attributes_of(op).map(|found| found.inode)
        })
    }

    /// The directory of `path`, and its name there.
    fn place(&self, path: &Path) -> io::Result<(Inode, Vec<u8>)> {
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        let parent = path.parent().unwrap_or(Path::new(""));
        self.find(parent).map(|parent| (parent, name))
    }
}
