//! Ranges of files: reserved, punched out, searched for and copied. [fallocate(2), lseek(2), copy_file_range(2)]

use super::data::{MAX_FILE_SIZE, expect_file};
use crate::cost;
use crate::object::{CHUNK, Chunk, Object, PAGE, PAGES, Page, data_id, split};
use crate::op::{AllocateMode, FsError, FsReply, FsResult, Inode, MAX_IO, SeekTarget};
use crate::permission::{READ, WRITE};
use crate::state::{Reader, Writer};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// The most chunks that one operation takes away, makes or walks over. What is longer is done in steps.
pub const MAX_CHUNKS: usize = 4096;
/// The most bytes that one `Allocate` puts pages under. Units: bytes.
const MAX_RESERVE: u64 = 64 << 20;

impl Reader<'_> {
    /// Where data, or a hole, is found at or after `offset`. It ends after [`MAX_CHUNKS`] chunks, found or not.
    ///
    /// Errors: `Stale`, `IsDirectory`, `Invalid`, `AccessDenied`, `NoSuchAddress` (from the end on; no data any more).
    pub fn seek(self, number: Inode, offset: u64, target: SeekTarget) -> FsResult {
        let record = self.inode(number)?;
        expect_file(record)?;
        self.caller.allow_data(record, READ)?;
        if offset >= record.size {
            return Err(FsError::NoSuchAddress);
        }
        let (offset, found) = match target {
            SeekTarget::Data => {
                let at = self.next_data(number, offset).filter(|at| *at < record.size);
                (at.ok_or(FsError::NoSuchAddress)?, true)
            }
            SeekTarget::Hole => {
                let (at, found) = self.next_hole(number, offset);
                // Behind the end there is nothing but a hole, even where memory is reserved.
                (at.min(record.size), found || at >= record.size)
            }
        };
        Ok(FsReply::Position { offset, found })
    }

    /// Every chunk holds a page, so the second one at the latest answers.
    fn next_data(self, file: Inode, offset: u64) -> Option<u64> {
        let first = data_id(file, offset / CHUNK);
        self.state.range(first, data_id(file, u64::MAX)).take(2).find_map(|(id, object)| {
            let Object::Data(chunk) = object else { return None };
            let start = id.minor() * CHUNK;
            let from = (offset.saturating_sub(start) / PAGE as u64) as usize;
            let page = (from..PAGES).find(|page| chunk.page(*page).is_some())?;
            Some(offset.max(start + (page * PAGE) as u64))
        })
    }

    /// Walks over chunks that follow each other without a gap.
    fn next_hole(self, file: Inode, offset: u64) -> (u64, bool) {
        let first = data_id(file, offset / CHUNK);
        let mut at = offset;
        for (id, object) in self.state.range(first, data_id(file, u64::MAX)).take(MAX_CHUNKS) {
            let Object::Data(chunk) = object else { break };
            if id.minor() != at / CHUNK {
                return (at, true);
            }
            let start = id.minor() * CHUNK;
            let from = ((at - start) / PAGE as u64) as usize;
            if let Some(hole) = (from..PAGES).find(|page| chunk.page(*page).is_none()) {
                return (at.max(start + (hole * PAGE) as u64), true);
            }
            at = start + CHUNK;
        }
        (at, self.state.get(data_id(file, at / CHUNK)).is_none())
    }
}

impl Writer<'_> {
    /// Does `how` to `length` bytes from `offset` on, or to the first part of them.
    ///
    /// Effects: as a write, also for the times and the set-id bits.
    ///
    /// Errors: `Stale`, `IsDirectory`, `Invalid` (also for no length), `AccessDenied`, `FileTooLarge`, `NoSpace` and
    /// `QuotaExceeded` (at the first step if the whole range cannot fit).
    pub fn allocate(
        &mut self,
        number: Inode,
        offset: u64,
        length: u64,
        how: AllocateMode,
    ) -> FsResult {
        let record = self.reader().inode(number)?;
        expect_file(record)?;
        self.caller.allow_data(record, WRITE)?;
        if length == 0 {
            return Err(FsError::Invalid);
        }
        let end = offset.checked_add(length).filter(|end| *end <= MAX_FILE_SIZE);
        let end = end.ok_or(FsError::FileTooLarge)?;
        let (stop, keep_size) = match how {
            AllocateMode::Punch => (self.punch(number, offset, end), true),
            AllocateMode::Reserve { keep_size } => {
                (self.reserve(number, offset, end, false)?, keep_size)
            }
            AllocateMode::Zero { keep_size } => {
                (self.reserve(number, offset, end, true)?, keep_size)
            }
        };
        self.touch_data(number);
        if !keep_size {
            self.change(number, |record| record.size = record.size.max(stop));
        }
        let attributes = self.reader().inode(number)?.attributes(number);
        Ok(FsReply::Allocated { length: stop - offset, attributes })
    }

    /// Puts pages under `offset .. end`, as far as one step goes; with `zero` the bytes become zeros. Says how far it came.
    ///
    /// Errors: `NoSpace`, `QuotaExceeded`.
    fn reserve(&mut self, file: Inode, offset: u64, end: u64, zero: bool) -> Result<u64, FsError> {
        // What is stored anywhere in the file could be all in the range; what is beyond that cannot.
        let wanted = (end - offset) / PAGE as u64;
        let record = self.reader().inode(file)?;
        let owners = (record.uid, record.subtree);
        let least = wanted.saturating_sub(record.pages);
        self.reader().expect_quota(owners, least, 0)?;
        self.expect_room(least.saturating_mul(cost::PAGE_COST))?;
        let stop = end.min(offset.saturating_add(MAX_RESERVE));
        let (chunks, pages) = self.reader().growth(file, offset, stop);
        self.reader().expect_quota(owners, pages, 0)?;
        self.expect_room(cost::data(chunks, pages))?;
        let zeros: Page = Arc::new(Box::new([0; PAGE]));
        for (index, within) in split(offset, stop, CHUNK) {
            self.with_chunk(file, index, |chunk| {
                if zero {
                    chunk.punch(within.clone());
                }
                chunk.reserve(within, &zeros);
            });
        }
        self.charge(cost::data(chunks, pages));
        self.change_pages(file, pages as i64);
        Ok(stop)
    }

    /// Does `how` to chunk `index` of `file`, which is made if there is none. Requires: it then holds a page.
    pub(super) fn with_chunk(&mut self, file: Inode, index: u64, how: impl FnOnce(&mut Chunk)) {
        let id = data_id(file, index);
        if let Some(Object::Data(chunk)) = self.state.get_mut(id) {
            how(chunk);
        } else {
            let mut chunk = Chunk::default();
            how(&mut chunk);
            self.state.insert(id, Object::Data(chunk));
        }
    }

    /// Forgets the bytes `offset .. end`, as far as one step goes, and frees their memory. Says how far it came.
    ///
    /// Cost: O(stored chunks in the range), at most [`MAX_CHUNKS`].
    pub(super) fn punch(&mut self, file: Inode, offset: u64, end: u64) -> u64 {
        let last = data_id(file, end.saturating_sub(1) / CHUNK);
        let stored = self.state.range(data_id(file, offset / CHUNK), last);
        let indices: Vec<u64> = stored.map(|(id, _)| id.minor()).take(MAX_CHUNKS + 1).collect();
        let stop = indices.get(MAX_CHUNKS).map_or(end, |next| next * CHUNK);
        let (mut chunks, mut pages) = (0, 0);
        for index in indices.into_iter().take(MAX_CHUNKS) {
            let within = part_of_chunk(index, offset, end);
            let (gone, freed) = self.punch_chunk(file, index, within);
            chunks += u64::from(gone);
            pages += freed;
        }
        self.refund(cost::data(chunks, pages));
        self.change_pages(file, -(pages as i64));
        stop
    }

    /// Whether the chunk went altogether, and how many pages went.
    fn punch_chunk(&mut self, file: Inode, index: u64, within: Range<usize>) -> (bool, u64) {
        let id = data_id(file, index);
        let Some(Object::Data(chunk)) = self.state.get_mut(id) else { return (false, 0) };
        let before = chunk.pages();
        chunk.punch(within);
        let left = chunk.pages();
        if left == 0 {
            self.state.remove(id);
        }
        (left == 0, (before - left) as u64)
    }

    /// Copies at most `length` bytes (and [`MAX_IO`]) from one place to another, and answers as a write.
    ///
    /// Errors: those of a read of the one and a write of the other; `Invalid` where they overlap in one file.
    pub fn copy_range(
        &mut self,
        (from, from_offset): (Inode, u64),
        (to, to_offset): (Inode, u64),
        length: u64,
    ) -> FsResult {
        let count = length.min(u64::from(MAX_IO)) as u32;
        let overlaps = from == to && from_offset.abs_diff(to_offset) < length;
        expect_file(self.reader().inode(to)?)?;
        let data = match self.reader().read(from, from_offset, count)? {
            _ if overlaps => return Err(FsError::Invalid),
            FsReply::Data { data, .. } => data,
            _ => return Err(FsError::Invalid),
        };
        self.write(to, to_offset, &data)
    }
}

/// The part of `offset .. end` that lies in chunk `index`, as places within it.
fn part_of_chunk(index: u64, offset: u64, end: u64) -> Range<usize> {
    let start = index * CHUNK;
    let within = |at: u64| at.saturating_sub(start).min(CHUNK) as usize;
    within(offset)..within(end)
}
