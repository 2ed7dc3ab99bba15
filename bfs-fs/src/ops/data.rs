//! The contents of files.

use crate::cost;
use crate::object::{Body, CHUNK, Chunk, InodeRecord, Object, data_id, split};
use crate::op::{FsError, FsReply, FsResult, Inode, MAX_IO};
use crate::permission::{READ, WRITE};
use crate::state::{Reader, Writer};
use alloc::vec;
use alloc::vec::Vec;

/// The largest size of a file: 8 PiB. Holes take no memory, so a size costs nothing. Units: bytes.
pub const MAX_FILE_SIZE: u64 = 1 << 53;

/// Errors: `IsDirectory`, `Invalid` for what has no data here.
pub(super) fn expect_file(record: &InodeRecord) -> Result<(), FsError> {
    match record.body {
        Body::File { .. } => Ok(()),
        Body::Directory { .. } => Err(FsError::IsDirectory),
        _ => Err(FsError::Invalid),
    }
}

impl Reader<'_> {
    /// At most `count` bytes (and [`MAX_IO`]) from `offset` on; fewer at the end of the file. Holes are zeros. [pread(2)]
    ///
    /// Errors: `Stale`, `IsDirectory`, `Invalid`, `AccessDenied`.
    pub fn read(self, number: Inode, offset: u64, count: u32) -> FsResult {
        let record = self.inode(number)?;
        expect_file(record)?;
        self.caller.allow_data(record, READ)?;
        let end = offset.saturating_add(u64::from(count.min(MAX_IO))).min(record.size);
        let mut data = vec![0; end.saturating_sub(offset) as usize];
        let mut out = data.as_mut_slice();
        for (index, within) in split(offset, end, CHUNK) {
            let (piece, rest) = out.split_at_mut(within.len());
            if let Some(Object::Data(chunk)) = self.state.get(data_id(number, index)) {
                chunk.read(within.start, piece);
            }
            out = rest;
        }
        Ok(FsReply::Data {
            data: data.into(),
            eof: end >= record.size,
            attributes: record.attributes(number),
        })
    }

    /// How many chunks and pages are missing that a write of `offset .. end` needs.
    fn growth(self, file: Inode, offset: u64, end: u64) -> (u64, u64) {
        let empty = Chunk::default();
        let (mut chunks, mut pages) = (0, 0);
        for (index, within) in split(offset, end, CHUNK) {
            let chunk = match self.state.get(data_id(file, index)) {
                Some(Object::Data(chunk)) => chunk,
                _ => {
                    chunks += 1;
                    &empty
                }
            };
            pages += chunk.missing(&within) as u64;
        }
        (chunks, pages)
    }
}

impl Writer<'_> {
    /// Puts all of `data` at `offset`, or nothing. [pwrite(2)]
    ///
    /// Effects: as on Linux the set-id bits go unless root writes; an empty write changes nothing.
    ///
    /// Errors: `Stale`, `IsDirectory`, `Invalid` (also above [`MAX_IO`]), `AccessDenied`, `FileTooLarge`, `NoSpace`.
    pub fn write(&mut self, number: Inode, offset: u64, data: &[u8]) -> FsResult {
        let record = self.reader().inode(number)?;
        expect_file(record)?;
        self.caller.allow_data(record, WRITE)?;
        if data.len() > MAX_IO as usize {
            return Err(FsError::Invalid);
        }
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= MAX_FILE_SIZE);
        let end = end.ok_or(FsError::FileTooLarge)?;
        if !data.is_empty() {
            let mode = match self.caller.is_root() {
                true => record.mode,
                false => self.caller.without_set_id(record),
            };
            let (chunks, pages) = self.reader().growth(number, offset, end);
            self.expect_room(cost::data(chunks, pages))?;
            self.store(number, offset, data);
            self.charge(cost::data(chunks, pages));
            let now = self.now;
            self.change(number, |record| {
                record.size = record.size.max(end);
                record.pages += pages;
                record.mode = mode;
                record.modified = now;
                record.changed = now;
            });
        }
        let attributes = self.reader().inode(number)?.attributes(number);
        Ok(FsReply::Written { count: data.len() as u32, attributes })
    }

    fn store(&mut self, file: Inode, offset: u64, mut data: &[u8]) {
        let end = offset + data.len() as u64;
        for (index, within) in split(offset, end, CHUNK) {
            let (piece, rest) = data.split_at(within.len());
            let id = data_id(file, index);
            if let Some(Object::Data(chunk)) = self.state.get_mut(id) {
                chunk.write(within.start, piece);
            } else {
                let mut chunk = Chunk::default();
                chunk.write(within.start, piece);
                self.state.insert(id, Object::Data(chunk));
            }
            data = rest;
        }
    }

    /// Sets the size of a file. What is cut off is gone; what is added is a hole. [truncate(2)]
    ///
    /// Cost: O(stored chunks removed).
    ///
    /// Requires: `number` is a file, `size <= MAX_FILE_SIZE`. The times are the caller's.
    pub(super) fn resize(&mut self, number: Inode, size: u64) {
        let first = size.div_ceil(CHUNK);
        let mut removed = self.remove_data(number, first);
        // A tail that was cut must read as zeros when the file grows over it again.
        let tail = data_id(number, size / CHUNK);
        if !size.is_multiple_of(CHUNK)
            && let Some(Object::Data(chunk)) = self.state.get_mut(tail)
        {
            let before = chunk.pages();
            chunk.truncate((size % CHUNK) as usize);
            let left = chunk.pages();
            let pages = (before - left) as u64;
            if left == 0 {
                self.state.remove(tail);
            }
            self.refund(cost::data(u64::from(left == 0), pages));
            removed += pages;
        }
        self.change(number, |record| {
            record.size = size;
            record.pages -= removed;
        });
    }

    /// Removes the chunks of `file` from the `first` on and frees their memory; says how many pages they held.
    ///
    /// Cost: O(stored chunks removed).
    pub fn remove_data(&mut self, file: Inode, first: u64) -> u64 {
        let stored = self.state.range(data_id(file, first), data_id(file, u64::MAX));
        let mut pages = 0;
        let ids: Vec<_> = stored
            .map(|(id, object)| {
                pages += if let Object::Data(chunk) = object { chunk.pages() as u64 } else { 0 };
                id
            })
            .collect();
        for id in &ids {
            self.state.remove(*id);
        }
        self.refund(cost::data(ids.len() as u64, pages));
        pages
    }
}
