//! Taking names away, and what had only that name.

use crate::cost;
use crate::name;
use crate::op::{FsError, FsReply, FsResult, Inode, Keep};
use crate::state::{Found, Writer};

impl Writer<'_> {
    /// Removes a name of what is no directory. [unlink(2)]
    ///
    /// Errors: `NotFound`, `IsDirectory` (also for "." and ".."), `AccessDenied`, `NotPermitted` (sticky directory), and
    /// those of a name.
    pub fn unlink(&mut self, parent: Inode, name: &[u8], keep: &Keep) -> FsResult {
        if name::is_dots(name) {
            self.reader().directory(parent)?;
            return Err(FsError::IsDirectory);
        }
        if !keep.is_valid() {
            return Err(FsError::Invalid);
        }
        let found = self.removable(parent, name)?;
        if self.reader().inode(found.inode)?.is_directory() {
            return Err(FsError::IsDirectory);
        }
        self.remove(parent, name, found, keep)
    }

    /// Removes an empty directory. [rmdir(2)]
    ///
    /// Errors: `NotFound`, `NotDirectory`, `NotEmpty` (also for ".."), `Invalid` for ".", `AccessDenied`, `NotPermitted`
    /// (sticky directory), and those of a name.
    pub fn remove_directory(&mut self, parent: Inode, name: &[u8], keep: &Keep) -> FsResult {
        if name::is_dots(name) {
            self.reader().directory(parent)?;
            return Err(if name == b"." { FsError::Invalid } else { FsError::NotEmpty });
        }
        if !keep.is_valid() {
            return Err(FsError::Invalid);
        }
        let found = self.removable(parent, name)?;
        let reader = self.reader();
        reader.expect_empty(reader.directory(found.inode)?)?;
        self.remove(parent, name, found, keep)
    }

    /// The entry called `name`, if the caller may remove it.
    fn removable(&self, parent: Inode, name: &[u8]) -> Result<Found, FsError> {
        let reader = self.reader();
        let found = reader.entry(parent, name)?.ok_or(FsError::NotFound)?;
        self.caller.allow_removal(reader.directory(parent)?, reader.inode(found.inode)?)?;
        Ok(found)
    }

    /// Answers `Kept` if the inode stays for the caller's client.
    fn remove(&mut self, parent: Inode, name: &[u8], found: Found, keep: &Keep) -> FsResult {
        let is_directory = self.reader().inode(found.inode)?.is_directory();
        self.state.remove(found.id);
        self.refund(cost::entry(name));
        self.change_directory(parent, -1, -i32::from(is_directory));
        match self.release(found.inode, keep)? {
            true => Ok(FsReply::Kept(found.inode)),
            false => Ok(FsReply::Done),
        }
    }
}
