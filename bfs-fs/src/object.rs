//! The objects that hold the file system: how each is named, and its canonical bytes.
//!
//! | object | kind | major | minor |
//! |---|---|---|---|
//! | [`Super`] | 0x80 | 0 | 0 |
//! | [`InodeRecord`] | 0x81 | inode | 0 |
//! | [`EntryRecord`] | 0x82 | inode of the directory | cookie |
//! | [`Chunk`] | 0x83 | inode of the file | offset / 32 KiB |
//! | [`XattrRecord`] | 0x84 | inode | its name's place, even |
//! | the rest of a long value | 0x84 | inode | the same, odd |
//! | [`Lease`] | 0x85 | number | 0 |
//! | the number of a client's lease | 0x86 | client | 0 |
//! | [`Stake`] | 0x87 | inode | lease |
//! | that there is such a stake | 0x88 | lease | inode |
//! | [`LockTable`] | 0x89 | inode | 0 |
//! | [`Due`] | 0x8a | 0 or 1 | lease or inode |
//! | [`Export`] | 0x8b | client | 0 |
//! | [`Account`] | 0x8c | 0 or 1 | uid or inode |
//! | [`Answers`] | 0x8d | client | the first byte of their keys |
//! | the group's own secret | 0x8e | 0 | 0 |
//! | [`Outcomes`] | 0x8f | client | the first byte of their keys |
//!
//! A directory is a range of entries and a file a range of chunks, so no object grows with what it stands for.

mod export;
mod lease;
mod once;

pub(crate) use export::{account_id, account_subject, export_id};
pub use lease::{Due, Lease, Stake};
pub(crate) use lease::{client_id, due_id, lease_id, locks_id, stake_id, stake_of_id};
pub use once::{Answer, Answers, Outcome, Outcomes};
pub(crate) use once::{MAX_ANSWERS, MAX_OUTCOMES, SECRET_ID, answers_id, outcomes_id};

use crate::locks::LockTable;
use crate::op::{Account, Attributes, Export, Inode, Kind, Timestamp};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bft_core::tree::ObjectId;
use borsh::io::{Error, ErrorKind, Read, Result, Write};
use borsh::{BorshDeserialize, BorshSerialize};
use core::ops::Range;

/// What an [`ObjectId`] of the file system begins with.
pub(crate) const SUPER: u8 = 0x80;
pub(crate) const INODE: u8 = 0x81;
pub(crate) const ENTRY: u8 = 0x82;
pub(crate) const DATA: u8 = 0x83;
pub(crate) const XATTR: u8 = 0x84;
pub(crate) const LEASE: u8 = 0x85;
pub(crate) const CLIENT: u8 = 0x86;
pub(crate) const STAKE: u8 = 0x87;
pub(crate) const STAKE_OF: u8 = 0x88;
pub(crate) const LOCKS: u8 = 0x89;
pub(crate) const DUE: u8 = 0x8a;
pub(crate) const EXPORT: u8 = 0x8b;
pub(crate) const ACCOUNT: u8 = 0x8c;
pub(crate) const ONCE: u8 = 0x8d;
pub(crate) const SECRET: u8 = 0x8e;
pub(crate) const WRITTEN: u8 = 0x8f;

/// Where the [`Super`] object is.
pub(crate) const SUPER_ID: ObjectId = ObjectId::new(SUPER, 0, 0);

/// The unit in which file data takes memory. Units: bytes.
pub const PAGE: usize = 4096;
/// How many pages one [`Chunk`] covers.
pub const PAGES: usize = 8;
/// How much of a file one [`Chunk`] covers. Units: bytes.
pub const CHUNK: u64 = (PAGE * PAGES) as u64;

/// One object of the replicated state.
///
/// Small, because every object of a kind pays for the largest: what is large is behind a pointer.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Object {
    Super(Super),
    Inode(Box<InodeRecord>),
    Entry(EntryRecord),
    Data(Chunk),
    Xattr(XattrRecord),
    /// What of a value did not fit its [`XattrRecord`]. Never empty.
    XattrRest(Box<[u8]>),
    Lease(Lease),
    ClientLease(u64),
    Stake(Stake),
    StakeOf,
    Locks(Box<LockTable>),
    Due,
    Export(Box<Export>),
    Account(Account),
    Answers(Answers),
    /// From which the keys of NFS handles are derived.
    Secret(Box<[u8; 32]>),
    Outcomes(Outcomes),
}

/// The totals of the file system. There is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Super {
    /// The number that the next inode takes. Ascends; a number is never used twice.
    pub next_inode: u64,
    /// How many inodes there are.
    pub inodes: u64,
    /// What everything takes of the memory budget, by the constants of [`crate::cost`]. Units: bytes.
    pub bytes: u64,
    /// The number that the next lease takes.
    pub next_lease: u64,
    /// The time that leases go by: ascends, but by bounded steps. Units: nanoseconds.
    pub lease_time: u64,
    /// The agreed time at which it was looked at last. Units: nanoseconds since 1970.
    pub lease_time_at: u64,
    /// How many [`Due`]s there are.
    pub dues: u64,
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct InodeRecord {
    /// The sequence number of the batch that created it.
    pub generation: u64,
    /// Of a file its length, of a symbolic link its target's, else 0. Units: bytes.
    pub size: u64,
    /// How many pages of data are stored. Holes are not.
    pub pages: u64,
    pub accessed: Timestamp,
    pub modified: Timestamp,
    pub changed: Timestamp,
    /// Of a directory 2 and its subdirectories, else the number of its names; 0 of what is only held open any more.
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    /// 12 bits.
    pub mode: u16,
    /// What the names of the extended attributes take, each with a NUL. Units: bytes.
    pub xattrs: u32,
    /// The top of the subtree that it belongs to.
    pub subtree: Inode,
    pub body: Body,
}

/// What depends on the kind of an inode.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Body {
    /// `verifier` is that of the exclusive create that made the file.
    File {
        verifier: Option<u64>,
    },
    /// `parent` of the root is the root. `entries` does not count "." and "..".
    Directory {
        parent: Inode,
        entries: u64,
    },
    Symlink {
        target: Box<[u8]>,
    },
    Fifo,
    Socket,
    CharDevice {
        device: u32,
    },
    BlockDevice {
        device: u32,
    },
}

impl Body {
    /// The kind that has this body.
    pub fn kind(&self) -> Kind {
        match self {
            Body::File { .. } => Kind::File,
            Body::Directory { .. } => Kind::Directory,
            Body::Symlink { .. } => Kind::Symlink,
            Body::Fifo => Kind::Fifo,
            Body::Socket => Kind::Socket,
            Body::CharDevice { .. } => Kind::CharDevice,
            Body::BlockDevice { .. } => Kind::BlockDevice,
        }
    }
}

impl InodeRecord {
    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory { .. })
    }

    /// The attributes that clients see. A directory shows the size of one page, as on most file systems.
    pub fn attributes(&self, inode: Inode) -> Attributes {
        let (size, pages) =
            if self.is_directory() { (PAGE as u64, 1) } else { (self.size, self.pages) };
        let device = match self.body {
            Body::CharDevice { device } | Body::BlockDevice { device } => device,
            _ => 0,
        };
        Attributes {
            inode,
            generation: self.generation,
            kind: self.body.kind(),
            mode: self.mode,
            links: self.links,
            uid: self.uid,
            gid: self.gid,
            device,
            size,
            blocks: pages * (PAGE as u64 / 512),
            accessed: self.accessed,
            modified: self.modified,
            changed: self.changed,
            has_xattrs: self.xattrs > 0,
        }
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EntryRecord {
    pub inode: Inode,
    pub name: Box<[u8]>,
}

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct XattrRecord {
    pub name: Box<[u8]>,
    /// At most [`XATTR_PART`] bytes; the rest is an object of its own, and there is one only if this part is full.
    pub value: Box<[u8]>,
}

/// How much of a value one object holds. Units: bytes.
pub const XATTR_PART: usize = 32 * 1024;

/// A page of file data, shared by every copy of the state that holds it unchanged.
///
/// In a box of its own: with an `Arc`'s counts beside it a page is 4,112 bytes, which allocators round up to 5,120.
pub(crate) type Page = Arc<Box<[u8; PAGE]>>;

/// 32 KiB of a file, of which at least one page is stored. An absent page reads as zeros.
///
/// Copying a chunk copies no page; only the pages that are then written part from the copy.
///
/// Canonical bytes: one byte whose bit i says that page i is stored, never 0, and then the stored pages, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk([Option<Page>; PAGES]);

impl Chunk {
    /// How many pages are stored.
    pub fn pages(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Page `index`, if it is stored.
    pub fn page(&self, index: usize) -> Option<&[u8; PAGE]> {
        self.0.get(index)?.as_deref().map(|page| &**page)
    }

    /// How many of the pages that the bytes `range` touch are not stored.
    pub(crate) fn missing(&self, range: &Range<usize>) -> usize {
        split(range.start as u64, range.end as u64, PAGE as u64)
            .filter(|(index, _)| self.page(*index as usize).is_none())
            .count()
    }

    /// Appends the bytes `range` to `out`. Requires: they end within the chunk.
    pub(crate) fn append(&self, range: Range<usize>, out: &mut Vec<u8>) {
        for (index, within) in split(range.start as u64, range.end as u64, PAGE as u64) {
            let length = within.len();
            match self.page(index as usize).and_then(|page| page.get(within)) {
                Some(bytes) => out.extend_from_slice(bytes),
                None => out.resize(out.len() + length, 0),
            }
        }
    }

    /// Puts `data` at `offset`. Requires: it ends within the chunk.
    pub(crate) fn write(&mut self, offset: usize, mut data: &[u8]) {
        let end = offset + data.len();
        for (index, within) in split(offset as u64, end as u64, PAGE as u64) {
            let (piece, rest) = data.split_at(within.len());
            let Some(page) = self.0.get_mut(index as usize) else { return };
            match <&[u8; PAGE]>::try_from(piece) {
                // A whole page replaces the old one without copying it first.
                Ok(whole) => *page = Some(Arc::new(Box::new(*whole))),
                Err(_) => {
                    let page =
                        Arc::make_mut(page.get_or_insert_with(|| Arc::new(Box::new([0; PAGE]))));
                    if let Some(bytes) = page.get_mut(within) {
                        bytes.copy_from_slice(piece);
                    }
                }
            }
            data = rest;
        }
    }

    /// Forgets the bytes `range`: whole pages go, the part of a page becomes zeros.
    pub(crate) fn punch(&mut self, range: Range<usize>) {
        for (index, within) in split(range.start as u64, range.end as u64, PAGE as u64) {
            let Some(slot) = self.0.get_mut(index as usize) else { return };
            if within.len() == PAGE {
                *slot = None;
            } else if let Some(page) = slot
                && page.get(within.clone()).is_some_and(|old| old.iter().any(|byte| *byte != 0))
                && let Some(bytes) = Arc::make_mut(page).get_mut(within)
            {
                bytes.fill(0);
            }
        }
    }

    /// Puts a page of zeros wherever `range` touches a page that is not stored. Until it is written, `zeros` is shared.
    pub(crate) fn reserve(&mut self, range: Range<usize>, zeros: &Page) {
        for (index, _) in split(range.start as u64, range.end as u64, PAGE as u64) {
            if let Some(slot) = self.0.get_mut(index as usize) {
                slot.get_or_insert_with(|| zeros.clone());
            }
        }
    }
}

impl BorshSerialize for Chunk {
    fn serialize<W: Write>(&self, writer: &mut W) -> Result<()> {
        let stored = self.0.iter().rev().fold(0u8, |bits, page| bits << 1 | page.is_some() as u8);
        stored.serialize(writer)?;
        self.0.iter().flatten().try_for_each(|page| writer.write_all(page.as_slice()))
    }
}

impl BorshDeserialize for Chunk {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Self> {
        let stored = u8::deserialize_reader(reader)?;
        if stored == 0 {
            return Err(Error::new(ErrorKind::InvalidData, "a chunk without pages"));
        }
        let mut chunk = Chunk::default();
        for (index, slot) in chunk.0.iter_mut().enumerate() {
            if stored >> index & 1 == 1 {
                let mut page = Box::new([0; PAGE]);
                reader.read_exact(page.as_mut_slice())?;
                *slot = Some(Arc::new(page));
            }
        }
        Ok(chunk)
    }
}

/// Cuts the bytes `start .. end` at the multiples of `unit`: which unit each piece lies in, and where within it.
pub(crate) fn split(start: u64, end: u64, unit: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = start;
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (index, from) = (at / unit, at % unit);
        let len = (unit - from).min(end - at);
        at += len;
        Some((index, from as usize..(from + len) as usize))
    })
}

/// The id of inode `number`, where such a number can be.
pub(crate) fn inode_id(number: Inode) -> Option<ObjectId> {
    // An id drops the bits above 56, so a larger number would be taken for another inode.
    (number.0 <= ObjectId::MAX_MAJOR).then(|| ObjectId::new(INODE, number.0, 0))
}

/// The id of the entry with `cookie` in `directory`. Requires: `directory` exists.
pub(crate) fn entry_id(directory: Inode, cookie: u64) -> ObjectId {
    ObjectId::new(ENTRY, directory.0, cookie)
}

/// The id of the extended attribute at `place` of `owner`. Requires: `owner` exists.
pub(crate) fn xattr_id(owner: Inode, place: u64) -> ObjectId {
    ObjectId::new(XATTR, owner.0, place)
}

/// The id of the chunk `index` of `file`. Requires: `file` exists.
pub(crate) fn data_id(file: Inode, index: u64) -> ObjectId {
    ObjectId::new(DATA, file.0, index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locks::Lock;
    use crate::op::{FsError, LockClass, LockKind, LockRequest, OnceKey};

    fn samples() -> Vec<Object> {
        let record = |body| {
            Object::Inode(Box::new(InodeRecord {
                generation: 7,
                size: 3,
                pages: 1,
                accessed: Timestamp { seconds: -1, nanoseconds: 999_999_999 },
                modified: Timestamp::default(),
                changed: Timestamp { seconds: i64::MAX, nanoseconds: 1 },
                links: 2,
                uid: u32::MAX,
                gid: 5,
                mode: 0o7777,
                xattrs: 9,
                subtree: Inode(1),
                body,
            }))
        };
        let request = LockRequest {
            owner: u64::MAX,
            pid: 3,
            class: LockClass::Flock,
            kind: LockKind::Exclusive,
            start: 0,
            end: u64::MAX,
        };
        let lock = Lock::new(2, &request);
        let locks = LockTable { held: Vec::from([lock]), waiting: Vec::from([lock, lock]) };
        let mut chunk = Chunk::default();
        chunk.write(4090, &[1; 20]);
        chunk.write(7 * PAGE, &[2; PAGE]);
        Vec::from([
            Object::Super(Super {
                next_inode: 2,
                inodes: 1,
                bytes: u64::MAX,
                next_lease: 3,
                lease_time: 4,
                lease_time_at: 5,
                dues: 6,
            }),
            record(Body::File { verifier: None }),
            record(Body::File { verifier: Some(u64::MAX) }),
            record(Body::Directory { parent: Inode(1), entries: 3 }),
            record(Body::Symlink { target: Box::from(*b"a/b") }),
            record(Body::Fifo),
            record(Body::Socket),
            record(Body::CharDevice { device: 9 }),
            record(Body::BlockDevice { device: 8 }),
            Object::Entry(EntryRecord { inode: Inode(3), name: Box::from(*b"\xff name") }),
            Object::Data(chunk),
            Object::Xattr(XattrRecord { name: Box::from(*b"user.a"), value: Box::from([0, 1]) }),
            Object::XattrRest(Box::from([7; 3])),
            Object::Lease(Lease { client: 1, life: 2, renewed: 3, stakes: 4, ended: true }),
            Object::ClientLease(9),
            Object::Stake(Stake { open: true, locks: 1 }),
            Object::StakeOf,
            Object::Locks(Box::new(locks)),
            Object::Due,
            Object::Answers(Answers(Vec::from([Answer {
                key: OnceKey([7; 16]),
                result: bytes::Bytes::from_static(b"answer"),
            }]))),
            Object::Secret(Box::new([9; 32])),
            Object::Outcomes(Outcomes(Vec::from([
                Outcome { key: OnceKey([7; 16]), result: Ok(4096) },
                Outcome { key: OnceKey([8; 16]), result: Err(FsError::NoSpace) },
            ]))),
        ])
    }

    #[test]
    fn every_object_has_exactly_one_encoding() {
        for object in samples() {
            let bytes = borsh::to_vec(&object).unwrap();
            assert_eq!(borsh::from_slice::<Object>(&bytes).unwrap(), object);
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(borsh::from_slice::<Object>(&longer).is_err(), "trailing byte: {object:?}");
            assert!(borsh::from_slice::<Object>(&bytes[..bytes.len() - 1]).is_err());
            // Whatever else decodes is its own encoding: no two byte strings mean one object.
            for at in 0..bytes.len().min(200) {
                for flip in [1u8, 2, 0x80, 0xff] {
                    let mut other = bytes.clone();
                    other[at] ^= flip;
                    if let Ok(decoded) = borsh::from_slice::<Object>(&other) {
                        assert_eq!(borsh::to_vec(&decoded).unwrap(), other);
                    }
                }
            }
        }
    }

    #[test]
    fn a_chunk_without_pages_is_refused_and_a_full_one_fits_an_object() {
        let empty = borsh::to_vec(&Object::Data(Chunk::default())).unwrap();
        assert!(borsh::from_slice::<Object>(&empty).is_err());
        let mut full = Chunk::default();
        full.write(0, &[1; CHUNK as usize]);
        assert_eq!(full.pages(), PAGES);
        let bytes = borsh::to_vec(&Object::Data(full)).unwrap();
        assert!(bytes.len() < bft_core::tree::MAX_OBJECT - 16, "{}", bytes.len());
    }

    #[test]
    fn objects_are_small_in_memory() {
        assert!(size_of::<Object>() <= 72, "{}", size_of::<Object>());
        assert!(size_of::<InodeRecord>() <= 136, "{}", size_of::<InodeRecord>());
    }

    #[test]
    fn a_copied_chunk_shares_the_pages_that_are_not_written() {
        let mut chunk = Chunk::default();
        chunk.write(0, &[1; CHUNK as usize]);
        let kept = chunk.clone();
        chunk.write(PAGE, &[2]);
        let shared = chunk.0.iter().zip(&kept.0).filter(|(a, b)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        });
        assert_eq!(shared.count(), PAGES - 1);
        assert_eq!(kept.page(1), Some(&[1; PAGE]));
    }

    #[test]
    fn a_chunk_reads_what_was_written_and_forgets_what_was_cut() {
        let mut chunk = Chunk::default();
        chunk.write(PAGE - 2, b"abcd");
        assert_eq!((chunk.pages(), chunk.missing(&(0..3 * PAGE))), (2, 1));
        chunk.punch(PAGE + 1..CHUNK as usize);
        let mut out = Vec::new();
        chunk.append(PAGE - 3..PAGE + 3, &mut out);
        assert_eq!(out, b"\0abc\0\0");
        chunk.punch(PAGE..CHUNK as usize);
        assert_eq!(chunk.pages(), 1);
        chunk.punch(0..CHUNK as usize);
        assert_eq!(chunk.pages(), 0);
    }

    #[test]
    fn an_inode_number_above_56_bits_names_nothing() {
        assert!(inode_id(Inode(ObjectId::MAX_MAJOR)).is_some());
        assert!(inode_id(Inode(ObjectId::MAX_MAJOR + 2)).is_none());
        assert!(inode_id(Inode(u64::MAX)).is_none());
    }
}
