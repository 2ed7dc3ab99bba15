//! What must hold of the file system after every operation. (I-10)

mod accounts;
mod leases;
mod once;

use crate::cost;
use crate::name;
use crate::object::{
    Body, CHUNK, Chunk, DATA, Due, ENTRY, EntryRecord, INODE, InodeRecord, Object, PAGE, PAGES,
    SUPER, SUPER_ID, Super, XATTR, XATTR_PART, XattrRecord,
};
use crate::op::{Inode, MAX_LINKS, MAX_TARGET, MAX_XATTR, MAX_XATTR_LIST, ROOT};
use crate::ops::MAX_FILE_SIZE;
use crate::permission::MODE_BITS;
use crate::state::State;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bft_core::tree::ObjectId;

/// Everything in the state, by what it is.
#[derive(Default)]
struct Survey<'a> {
    totals: Option<Super>,
    inodes: BTreeMap<Inode, &'a InodeRecord>,
    /// By directory and cookie.
    entries: BTreeMap<(Inode, u64), &'a EntryRecord>,
    /// By file and index.
    chunks: BTreeMap<(Inode, u64), &'a Chunk>,
    /// By inode and place.
    xattrs: BTreeMap<(Inode, u64), &'a XattrRecord>,
    xattr_rests: BTreeMap<(Inode, u64), &'a [u8]>,
    holdings: leases::Holdings,
    books: accounts::Books,
    faults: Vec<String>,
}

/// Checks the whole file system.
///
/// Link counts are right; every inode has a name, or somebody who holds it open, and every name an inode; directories form one tree whose parent pointers
/// agree with it; names are valid, unique and where their hash says; data belongs to a file and is zero behind its end;
/// extended attributes belong to an inode and are where their hash says; what is held is held on a lease, and what no lease
/// holds any more will be cleared away; names do not leave their subtree; answers that are kept can be given again; the accounts and the totals are the sums.
///
/// Cost: O(state).
///
/// Errors: a sentence for each thing that is wrong.
pub fn check(state: &State) -> Result<(), Vec<String>> {
    let mut survey = Survey::take(state);
    survey.check_entries();
    survey.check_links();
    survey.check_tree();
    survey.check_data();
    survey.check_xattrs();
    survey.check_leases();
    survey.check_stakes();
    survey.check_locks();
    survey.check_dues();
    survey.check_exports();
    survey.check_subtrees();
    survey.check_accounts();
    survey.check_values();
    survey.check_totals();
    if survey.faults.is_empty() { Ok(()) } else { Err(survey.faults) }
}

impl<'a> Survey<'a> {
    fn take(state: &'a State) -> Self {
        let mut survey = Self::default();
        let first = ObjectId::new(SUPER, 0, 0);
        let last = ObjectId::new(u8::MAX, ObjectId::MAX_MAJOR, u64::MAX);
        for (id, object) in state.range(first, last) {
            let (owner, part) = (Inode(id.major()), id.minor());
            match (id.kind(), object) {
                (SUPER, Object::Super(totals)) if id == SUPER_ID => survey.totals = Some(*totals),
                (INODE, Object::Inode(record)) if part == 0 => {
                    survey.inodes.insert(owner, record);
                }
                (ENTRY, Object::Entry(entry)) => {
                    survey.entries.insert((owner, part), entry);
                }
                (DATA, Object::Data(chunk)) => {
                    survey.chunks.insert((owner, part), chunk);
                }
                (XATTR, Object::Xattr(xattr)) if part % 2 == 0 => {
                    survey.xattrs.insert((owner, part), xattr);
                }
                (XATTR, Object::XattrRest(rest)) if part % 2 == 1 => {
                    survey.xattr_rests.insert((owner, part), rest);
                }
                _ if survey.holdings.take(id, object) || survey.books.take(id, object) => {}
                _ if once::take(id, object) => {}
                _ => survey.faults.push(format!("{id:?} holds what does not belong there")),
            }
        }
        survey
    }

    fn expect(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(fault());
        }
    }

    fn check_entries(&mut self) {
        let mut names = BTreeSet::new();
        for ((directory, cookie), entry) in self.entries.clone() {
            let at = || format!("entry {cookie:x} of directory {}", directory.0);
            let in_directory = self.inodes.get(&directory).is_some_and(|d| d.is_directory());
            self.expect(in_directory, || format!("{} is in no directory", at()));
            let named = self.inodes.contains_key(&entry.inode);
            self.expect(named, || format!("{} names no inode", at()));
            let valid = name::check(&entry.name).is_ok() && !name::is_dots(&entry.name);
            self.expect(valid, || format!("{} has an impossible name", at()));
            let (first, last) = name::cookies(&entry.name);
            let placed = (first..=last).contains(&cookie);
            self.expect(placed, || format!("{} is not where its name belongs", at()));
            let unique = names.insert((directory, &entry.name));
            self.expect(unique, || format!("{} repeats a name", at()));
        }
    }

    fn check_links(&mut self) {
        let mut names: BTreeMap<Inode, u32> = BTreeMap::new();
        let mut entries: BTreeMap<Inode, u64> = BTreeMap::new();
        let mut subdirectories: BTreeMap<Inode, u32> = BTreeMap::new();
        for ((directory, _), entry) in &self.entries {
            *names.entry(entry.inode).or_default() += 1;
            *entries.entry(*directory).or_default() += 1;
            if self.inodes.get(&entry.inode).is_some_and(|record| record.is_directory()) {
                *subdirectories.entry(*directory).or_default() += 1;
            }
        }
        let count = |map: &BTreeMap<Inode, u32>, number| map.get(&number).copied().unwrap_or(0);
        for (number, record) in self.inodes.clone() {
            let named = count(&names, number);
            if record.links == 0 {
                let held = named == 0 && self.holdings.is_held(number);
                self.expect(held, || format!("inode {} has 0 links, {named} names", number.0));
                let entries = entries.get(&number).copied().unwrap_or(0);
                self.expect(entries == 0, || format!("inode {} was not empty", number.0));
                continue;
            }
            let Body::Directory { entries: counted, .. } = record.body else {
                let right = named == record.links && (1..=MAX_LINKS).contains(&named);
                let links = record.links;
                self.expect(right, || {
                    format!("inode {} has {links} links and {named} names", number.0)
                });
                continue;
            };
            let once = named == u32::from(number != ROOT);
            self.expect(once, || format!("directory {} has {named} names", number.0));
            let right = record.links == 2 + count(&subdirectories, number);
            self.expect(right, || format!("directory {} has wrong links", number.0));
            let right = counted == entries.get(&number).copied().unwrap_or(0);
            self.expect(right, || format!("directory {} has wrong entries", number.0));
        }
    }

    /// Every directory is reached from the root, and thinks so itself. What is not is an orphan or part of a cycle.
    fn check_tree(&mut self) {
        let mut children: BTreeMap<Inode, Vec<Inode>> = BTreeMap::new();
        for ((directory, _), entry) in &self.entries {
            children.entry(*directory).or_default().push(entry.inode);
        }
        let mut reached = BTreeSet::from([ROOT]);
        let mut frontier = Vec::from([(ROOT, ROOT)]);
        while let Some((number, above)) = frontier.pop() {
            let body = self.inodes.get(&number).map(|record| &record.body);
            let Some(Body::Directory { parent, .. }) = body else { continue };
            let right = *parent == above;
            self.expect(right, || format!("directory {} has a wrong parent", number.0));
            for child in children.get(&number).into_iter().flatten() {
                if reached.insert(*child) {
                    frontier.push((*child, number));
                }
            }
        }
        let root = self.inodes.get(&ROOT).is_some_and(|root| root.is_directory());
        self.expect(root, || "there is no root directory".into());
        for number in self.inodes.clone().into_keys() {
            let held = self.inodes.get(&number).is_some_and(|record| record.links == 0);
            let found = reached.contains(&number) || held;
            self.expect(found, || format!("inode {} is not reached from the root", number.0));
        }
    }

    fn check_data(&mut self) {
        let mut stored: BTreeMap<Inode, u64> = BTreeMap::new();
        for ((file, index), chunk) in self.chunks.clone() {
            let at = || format!("chunk {index} of inode {}", file.0);
            *stored.entry(file).or_default() += chunk.pages() as u64;
            self.expect(chunk.pages() > 0, || format!("{} is empty", at()));
            let size = match self.inodes.get(&file).map(|record| (&record.body, record.size)) {
                Some((Body::File { .. }, size)) => size,
                None if self.holdings.dues.contains(&Due::Contents(file)) => continue,
                _ => {
                    self.faults.push(format!("{} belongs to no file", at()));
                    continue;
                }
            };
            let kept = size.saturating_sub(index.saturating_mul(CHUNK)).min(CHUNK) as usize;
            self.expect(nothing_beyond(chunk, kept), || {
                format!("{} has data beyond the end", at())
            });
        }
        for (number, record) in self.inodes.clone() {
            let right = record.pages == stored.get(&number).copied().unwrap_or(0);
            self.expect(right, || format!("inode {} has wrong pages", number.0));
        }
    }

    fn check_xattrs(&mut self) {
        let mut listed: BTreeMap<Inode, usize> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for ((owner, place), xattr) in self.xattrs.clone() {
            let at = || format!("extended attribute {place:x} of inode {}", owner.0);
            *listed.entry(owner).or_default() += xattr.name.len() + 1;
            let owned = self.inodes.contains_key(&owner)
                || self.holdings.dues.contains(&Due::Contents(owner));
            self.expect(owned, || format!("{} belongs to no inode", at()));
            let (first, last) = name::xattr_places(&xattr.name);
            let placed = (first..=last).contains(&place);
            self.expect(placed, || format!("{} is not where its name belongs", at()));
            let unique = names.insert((owner, &xattr.name));
            self.expect(unique, || format!("{} repeats a name", at()));
            let rest = self.xattr_rests.get(&(owner, place + 1)).map_or(0, |rest| rest.len());
            let full = xattr.value.len() == XATTR_PART || rest == 0;
            let right = full && xattr.value.len() <= XATTR_PART && rest <= MAX_XATTR - XATTR_PART;
            self.expect(right, || format!("{} has an impossible value", at()));
        }
        for ((owner, place), rest) in self.xattr_rests.clone() {
            let right = !rest.is_empty() && self.xattrs.contains_key(&(owner, place - 1));
            self.expect(right, || format!("the rest {place:x} of inode {} has no value", owner.0));
        }
        for (number, record) in self.inodes.clone() {
            let right = record.xattrs as usize == listed.get(&number).copied().unwrap_or(0)
                && record.xattrs as usize <= MAX_XATTR_LIST;
            self.expect(right, || format!("inode {} has wrong extended attributes", number.0));
        }
    }

    /// What the extended attributes cost.
    fn xattr_bytes(&self) -> u64 {
        let rest =
            |at: &(Inode, u64)| self.xattr_rests.get(&(at.0, at.1 + 1)).map_or(0, |r| r.len());
        let cost = |(at, xattr): (&(Inode, u64), &&XattrRecord)| {
            cost::xattr(&xattr.name, xattr.value.len() + rest(at))
        };
        self.xattrs.iter().map(cost).sum()
    }

    fn check_values(&mut self) {
        for (number, record) in self.inodes.clone() {
            let next = self.totals.map_or(0, |totals| totals.next_inode);
            let right = (ROOT.0..next).contains(&number.0);
            self.expect(right, || format!("inode {} was never given out", number.0));
            let right = match &record.body {
                Body::File { .. } => record.size <= MAX_FILE_SIZE,
                Body::Symlink { target } => {
                    (1..=MAX_TARGET).contains(&target.len()) && record.size == target.len() as u64
                }
                _ => record.size == 0,
            };
            self.expect(right, || format!("inode {} has an impossible size", number.0));
            let times = [record.accessed, record.modified, record.changed];
            let right = record.mode <= MODE_BITS && times.iter().all(|time| time.is_valid());
            self.expect(right, || format!("inode {} has impossible attributes", number.0));
        }
    }

    fn check_totals(&mut self) {
        let pages = self.chunks.values().map(|chunk| chunk.pages() as u64).sum();
        let bytes = self.inodes.values().map(|record| cost::inode(&record.body)).sum::<u64>()
            + self.entries.values().map(|entry| cost::entry(&entry.name)).sum::<u64>()
            + cost::data(self.chunks.len() as u64, pages)
            + self.xattr_bytes()
            + self.held_bytes()
            + self.booked_bytes();
        let inodes = self.inodes.len() as u64;
        let right = self.totals.is_some_and(|t| t.inodes == inodes && t.bytes == bytes);
        let totals = self.totals;
        self.expect(right, || {
            format!("the totals are {totals:?} and the sums {inodes} inodes and {bytes} bytes")
        });
    }
}

/// Whether every byte from `kept` on is zero: memory may be reserved there, but nothing is in it.
fn nothing_beyond(chunk: &Chunk, kept: usize) -> bool {
    (kept / PAGE..PAGES).all(|index| {
        let from = kept.saturating_sub(index * PAGE);
        let tail = chunk.page(index).and_then(|page| page.get(from..));
        tail.is_none_or(|tail| tail.iter().all(|byte| *byte == 0))
    })
}
