//! Moving names. [rename(2), renameat2(2)]

use crate::cost;
use crate::name;
use crate::object::{Body, InodeRecord};
use crate::op::{FsError, FsReply, FsResult, Inode, Keep, ROOT, RenameMode};
use crate::permission::{EXECUTE, WRITE};
use crate::state::{Found, Reader, Writer};

/// How deep a directory may be nested for a directory to be moved into it: the walk to the root must have an end that no
/// client chooses. Twice what any path of PATH_MAX bytes can name.
pub const MAX_DEPTH: usize = 4096;

/// One side of a rename: a name in a directory, and what it names now.
#[derive(Clone, Copy)]
struct Side<'a> {
    directory: Inode,
    name: &'a [u8],
    found: Option<Found>,
}

/// A rename that may happen.
struct Plan<'a> {
    from: Side<'a>,
    to: Side<'a>,
    source: Found,
    /// Whether the source is a directory.
    source_directory: bool,
    /// Whether there is a target and it is a directory.
    target_directory: bool,
    how: RenameMode,
}

impl Reader<'_> {
    fn side<'a>(self, directory: Inode, name: &'a [u8]) -> Result<Side<'a>, FsError> {
        self.caller.allow(self.directory(directory)?, EXECUTE)?;
        if name::is_dots(name) {
            return Err(FsError::Invalid);
        }
        Ok(Side { directory, name, found: self.entry(directory, name)? })
    }

    /// Errors: `Invalid` if `directory` is `ancestor` or below it, `NameTooLong` if that is too deep to say.
    fn expect_outside(self, ancestor: Inode, directory: Inode) -> Result<(), FsError> {
        let mut at = directory;
        for _ in 0..MAX_DEPTH {
            if at == ancestor {
                return Err(FsError::Invalid);
            }
            if at == ROOT {
                return Ok(());
            }
            at = self.parent(at)?;
        }
        Err(FsError::NameTooLong)
    }

    /// Errors: `CrossDevice` if `number` belongs to another subtree than `directory`, as whose top it may be anywhere outside.
    fn expect_within(self, number: Inode, directory: &InodeRecord) -> Result<(), FsError> {
        let subtree = self.inode(number)?.subtree;
        let top = subtree == number && directory.subtree == ROOT;
        if subtree == directory.subtree || top { Ok(()) } else { Err(FsError::CrossDevice) }
    }

    /// Whether `plan` may happen, in the order in which Linux checks.
    fn expect_allowed(self, plan: &Plan<'_>) -> Result<(), FsError> {
        let Plan { from, to, source, .. } = plan;
        let exchange = plan.how == RenameMode::Exchange;
        let moves_up = from.directory != to.directory;
        let (old, new) = (self.directory(from.directory)?, self.directory(to.directory)?);
        let record = self.inode(source.inode)?;
        self.caller.allow_removal(old, record)?;
        self.expect_within(source.inode, new)?;
        match to.found {
            None => self.caller.allow(new, WRITE | EXECUTE)?,
            Some(target) => {
                let number = target.inode;
                let target = self.inode(number)?;
                self.caller.allow_removal(new, target)?;
                if exchange {
                    self.expect_within(number, old)?;
                }
                match (plan.source_directory, plan.target_directory) {
                    (true, false) if !exchange => return Err(FsError::NotDirectory),
                    (false, true) if !exchange => return Err(FsError::IsDirectory),
                    _ => {}
                }
                // A directory's ".." is in it: to move the directory is to write to it.
                if moves_up && exchange && plan.target_directory {
                    self.caller.allow(target, WRITE)?;
                }
                if !exchange {
                    self.expect_empty(target)?;
                }
            }
        }
        if moves_up && plan.source_directory {
            self.caller.allow(record, WRITE)?;
        }
        let full = |directory: &InodeRecord| moves_up && directory.links == u32::MAX;
        let arrives = plan.source_directory && !plan.target_directory;
        let returns = exchange && plan.target_directory && !plan.source_directory;
        if arrives && full(new) || returns && full(old) {
            return Err(FsError::TooManyLinks);
        }
        Ok(())
    }
}

impl Writer<'_> {
    /// Gives what is called `name` in `from` the name `new_name` in `to`, atomically.
    ///
    /// Errors: `NotFound`, `Exists`, `Invalid` (into itself; "." and ".."), `NotDirectory`, `IsDirectory`, `NotEmpty`,
    /// `AccessDenied`, `NotPermitted` (sticky directory), `CrossDevice` (into or out of a subtree), `NoSpace` (a longer name), `TooManyLinks`, `NameTooLong` (also
    /// where `to` is nested more than [`MAX_DEPTH`] deep), `Stale`.
    pub fn rename(
        &mut self,
        (from, name): (Inode, &[u8]),
        (to, new_name): (Inode, &[u8]),
        how: RenameMode,
        keep: &Keep,
    ) -> FsResult {
        let reader = self.reader();
        let (from, to) = (reader.side(from, name)?, reader.side(to, new_name)?);
        let source = from.found.ok_or(FsError::NotFound)?;
        if reader.directory(to.directory)?.links == 0 {
            return Err(FsError::NotFound);
        }
        if !keep.is_valid() {
            return Err(FsError::Invalid);
        }
        match (how, to.found) {
            (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
            (RenameMode::Exchange, None) => return Err(FsError::NotFound),
            _ => {}
        }
        let source_directory = reader.inode(source.inode)?.is_directory();
        let mut target_directory = false;
        if let Some(target) = to.found {
            target_directory = reader.inode(target.inode)?.is_directory();
        }
        if from.directory != to.directory {
            if source_directory {
                reader.expect_outside(source.inode, to.directory)?;
            }
            if let (RenameMode::Exchange, true, Some(target)) = (how, target_directory, to.found) {
                reader.expect_outside(target.inode, from.directory)?;
            }
        }
        // Two names of one file: both stay. [rename(2)]
        if to.found.is_some_and(|target| target.inode == source.inode) {
            return Ok(FsReply::Done);
        }
        let plan = Plan { from, to, source, source_directory, target_directory, how };
        reader.expect_allowed(&plan)?;
        match (how, to.found) {
            (RenameMode::Exchange, Some(target)) => {
                self.exchange(&plan, target);
                Ok(FsReply::Done)
            }
            _ => self.replace(&plan, keep),
        }
    }

    /// Answers `Kept` if what was replaced stays for the caller's client.
    fn replace(&mut self, plan: &Plan<'_>, keep: &Keep) -> FsResult {
        let Plan { from, to, source, .. } = plan;
        let (old, new) = (cost::entry(from.name), cost::entry(to.name));
        match to.found {
            None => {
                let id = self.reader().vacancy(to.directory, to.name)?;
                self.expect_room(new.saturating_sub(old))?;
                self.enter(id, to.name, source.inode);
                self.charge(new);
            }
            Some(target) => self.enter(target.id, to.name, source.inode),
        }
        self.state.remove(source.id);
        self.refund(old);
        let moved = i32::from(plan.source_directory);
        self.change_directory(from.directory, -1, -moved);
        let arrived = i64::from(to.found.is_none());
        self.change_directory(to.directory, arrived, moved - i32::from(plan.target_directory));
        self.moved(source.inode, to.directory);
        match to.found {
            Some(target) if self.release(target.inode, keep)? => Ok(FsReply::Kept(target.inode)),
            _ => Ok(FsReply::Done),
        }
    }

    fn exchange(&mut self, plan: &Plan<'_>, target: Found) {
        let Plan { from, to, source, .. } = plan;
        self.enter(source.id, from.name, target.inode);
        self.enter(target.id, to.name, source.inode);
        let balance = i32::from(plan.source_directory) - i32::from(plan.target_directory);
        self.change_directory(from.directory, 0, -balance);
        self.change_directory(to.directory, 0, balance);
        self.moved(source.inode, to.directory);
        self.moved(target.inode, from.directory);
    }

    /// Notes that `number` is now in `directory`.
    fn moved(&mut self, number: Inode, directory: Inode) {
        let now = self.now;
        self.change(number, |record| {
            record.changed = now;
            if let Body::Directory { parent, .. } = &mut record.body {
                *parent = directory;
            }
        });
    }
}
