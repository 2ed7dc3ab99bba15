//! The contents of files.

use super::extent::MAX_CHUNKS;
use crate::cost;
use crate::object::{Body, CHUNK, Chunk, InodeRecord, Object, data_id, split};
use crate::op::{FsError, FsReply, FsResult, Inode, MAX_IO, encode_data};
use crate::permission::{READ, WRITE};
use crate::state::{Reader, Writer};
use alloc::vec::Vec;
use bytes::Bytes;

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
        let (record, end) = self.readable(number, offset, count)?;
        let mut data = Vec::with_capacity(end.saturating_sub(offset) as usize);
        self.gather(number, offset, end, &mut data);
        Ok(FsReply::Data {
            data: data.into(),
            eof: end >= record.size,
            attributes: record.attributes(number),
        })
    }

    /// The canonical bytes of what [`Reader::read`] answers.
    ///
    /// Errors: as there.
    pub fn read_encoded(self, number: Inode, offset: u64, count: u32) -> Result<Bytes, FsError> {
        let (record, end) = self.readable(number, offset, count)?;
        let length = end.saturating_sub(offset) as usize;
        let attributes = record.attributes(number);
        Ok(encode_data(length, end >= record.size, attributes, |out| {
            self.gather(number, offset, end, out);
        }))
    }

    /// The file that is to be read, and where reading ends.
    fn readable(
        &self,
        number: Inode,
        offset: u64,
        count: u32,
    ) -> Result<(&InodeRecord, u64), FsError> {
        let record = self.inode(number)?;
        expect_file(record)?;
        self.caller.allow_data(record, READ)?;
        Ok((record, offset.saturating_add(u64::from(count.min(MAX_IO))).min(record.size)))
    }

    /// Appends the bytes `offset .. end` of a file to `out`.
    fn gather(self, number: Inode, offset: u64, end: u64, out: &mut Vec<u8>) {
        for (index, within) in split(offset, end, CHUNK) {
            match self.state.get(data_id(number, index)) {
                Some(Object::Data(chunk)) => chunk.append(within, out),
                _ => out.resize(out.len() + within.len(), 0),
            }
        }
    }

    /// How many chunks and pages are missing that a write of `offset .. end` needs.
    pub(super) fn growth(self, file: Inode, offset: u64, end: u64) -> (u64, u64) {
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
    /// Errors: `Stale`, `IsDirectory`, `Invalid` (also above [`MAX_IO`]), `AccessDenied`, `FileTooLarge`, `NoSpace`,
    /// `QuotaExceeded`.
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
            let owners = (record.uid, record.subtree);
            let (chunks, pages) = self.reader().growth(number, offset, end);
            self.reader().expect_quota(owners, pages, 0)?;
            self.expect_room(cost::data(chunks, pages))?;
            self.store(number, offset, data);
            self.charge(cost::data(chunks, pages));
            self.touch_data(number);
            self.change(number, |record| record.size = record.size.max(end));
            self.change_pages(number, pages as i64);
        }
        let attributes = self.reader().inode(number)?.attributes(number);
        Ok(FsReply::Written { count: data.len() as u32, attributes })
    }

    fn store(&mut self, file: Inode, offset: u64, mut data: &[u8]) {
        let end = offset + data.len() as u64;
        for (index, within) in split(offset, end, CHUNK) {
            let (piece, rest) = data.split_at(within.len());
            self.with_chunk(file, index, |chunk| chunk.write(within.start, piece));
            data = rest;
        }
    }

    /// Notes that the data of `number` has changed: the times move, and what the file may run as is no longer vouched for,
    /// unless root wrote it. Capabilities go in any case. [write(2), capabilities(7)]
    ///
    /// Requires: it is a file.
    pub(super) fn touch_data(&mut self, number: Inode) {
        let (now, caller) = (self.now, self.caller);
        self.drop_capability(number);
        self.change(number, |record| {
            if !caller.is_root() {
                record.mode = caller.without_set_id(record);
            }
            record.modified = now;
            record.changed = now;
        });
    }

    /// Sets the size of a file. What is cut off is gone; what is added is a hole. [truncate(2)]
    ///
    /// Effects: of more than [`MAX_CHUNKS`] chunks only the last go, and the file ends where they began: a step, after which it
    /// still is a beginning of what it was. Says whether the size is set.
    ///
    /// Requires: `number` is a file, `size <= MAX_FILE_SIZE`. The times are the caller's.
    pub(super) fn resize(&mut self, number: Inode, size: u64) -> bool {
        let end = self.reader().inode(number).map_or(size, |record| record.size);
        let (first, last) = (data_id(number, size / CHUNK), data_id(number, u64::MAX));
        let stored = self.state.range_down(first, last).take(MAX_CHUNKS + 1);
        let indices: Vec<u64> = stored.map(|(id, _)| id.minor()).collect();
        let from = match indices.get(MAX_CHUNKS) {
            None => size,
            Some(next) => (next + 1) * CHUNK,
        };
        self.punch(number, from, u64::MAX);
        // What is reserved behind an end that stays may go later.
        let reached = if from == size { size } else { end.min(from) };
        self.change(number, |record| record.size = reached);
        reached == size
    }
}
