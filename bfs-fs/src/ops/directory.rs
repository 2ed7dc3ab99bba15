//! Listing directories.

use crate::name::{PARENT_COOKIE, SELF_COOKIE};
use crate::object::{Object, entry_id};
use crate::op::{ENTRY_COST, Entry, FsError, FsReply, FsResult, Inode, MAX_IO};
use crate::permission::READ;
use crate::state::Reader;
use alloc::vec::Vec;

impl<'a> Reader<'a> {
    /// The entries after `cookie`, whole ones while they fit `budget` (and [`MAX_IO`]), but at least one if any is left.
    ///
    /// An entry that is there throughout a listing appears in it exactly once, whatever else comes and goes.
    ///
    /// Errors: `Stale`, `NotDirectory`, `AccessDenied`. [readdir(3)]
    pub fn read_directory(self, number: Inode, cookie: u64, budget: u32) -> FsResult {
        let directory = self.directory(number)?;
        self.caller.allow(directory, READ)?;
        if directory.links == 0 {
            // It was removed, with "." and "..".
            return Ok(FsReply::Entries { entries: Vec::new(), eof: true });
        }
        let mut left = budget.min(MAX_IO);
        let mut entries = Vec::new();
        for (name, cookie, inode) in self.names(number, cookie)? {
            let cost = ENTRY_COST + name.len() as u32;
            if cost > left && !entries.is_empty() {
                return Ok(FsReply::Entries { entries, eof: false });
            }
            left = left.saturating_sub(cost);
            let attributes = self.inode(inode)?.attributes(inode);
            entries.push(Entry { name: name.to_vec(), cookie, attributes });
        }
        Ok(FsReply::Entries { entries, eof: true })
    }

    /// Name, cookie and inode of every entry after `cookie`, ascending by cookie. Lazy.
    fn names(
        self,
        number: Inode,
        cookie: u64,
    ) -> Result<impl Iterator<Item = (&'a [u8], u64, Inode)>, FsError> {
        let dots: [(&[u8], u64, Inode); 2] =
            [(b".", SELF_COOKIE, number), (b"..", PARENT_COOKIE, self.above(number)?)];
        let first = entry_id(number, cookie.saturating_add(1));
        let entries = self.state.range(first, entry_id(number, u64::MAX));
        let named = entries.filter_map(|(id, object)| match object {
            Object::Entry(entry) => Some((&*entry.name, id.minor(), entry.inode)),
            _ => None,
        });
        Ok(dots.into_iter().filter(move |(_, at, _)| *at > cookie).chain(named))
    }
}
