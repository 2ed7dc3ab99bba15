//! What the file system should do, written down a second time and as plainly as possible: a map of nodes, each with its
//! children and all its bytes. Links and parents are counted and searched for, never stored. It knows no budget.

mod attributes;
mod data;
mod names;

use self::attributes::xattr_rules;
use crate::op::*;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

const PAGE: u64 = 4096;

#[derive(Clone)]
struct Node {
    kind: Kind,
    mode: u16,
    uid: u32,
    gid: u32,
    device: u32,
    generation: u64,
    times: [Timestamp; 3],
    verifier: Option<u64>,
    children: BTreeMap<Vec<u8>, u64>,
    /// Of a file its bytes, of a symbolic link its target.
    bytes: Vec<u8>,
    written: BTreeSet<u64>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where it was before it lost its last name.
    was_in: u64,
}

pub struct Model {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    held: BTreeSet<u64>,
    /// Its number and life.
    lease: Option<(u64, u64)>,
    next_lease: u64,
    /// The lease has ended, and the next operation will find out.
    ending: bool,
    /// Of calls that are not done twice.
    pub answered: super::watched::Answered,
}

/// What a run of one operation knows.
pub struct Moment<'a> {
    pub who: &'a Caller,
    pub now: Timestamp,
    pub n: u64,
}

type Answer<T> = Result<T, FsError>;
use FsError::*;

impl Moment<'_> {
    fn root(&self) -> bool {
        self.who.uid == 0
    }

    fn member(&self, gid: u32) -> bool {
        self.who.gid == gid || self.who.groups.contains(&gid)
    }

    /// Each bit on its own, by the first class that fits.
    fn can(&self, node: &Node, what: &str) -> bool {
        what.chars().all(|c| {
            let bit = match c {
                'r' => 4,
                'w' => 2,
                _ => 1,
            };
            if self.root() {
                c != 'x' || node.kind == Kind::Directory || node.mode & 0o111 > 0
            } else if self.who.uid == node.uid {
                node.mode & (bit << 6) > 0
            } else if self.member(node.gid) {
                node.mode & (bit << 3) > 0
            } else {
                node.mode & bit > 0
            }
        })
    }

    fn need(&self, node: &Node, what: &str) -> Answer<()> {
        if self.can(node, what) { Ok(()) } else { Err(AccessDenied) }
    }

    fn owner(&self, node: &Node) -> bool {
        self.root() || self.who.uid == node.uid
    }
}

impl Model {
    pub fn new(mode: u16) -> Self {
        let root = Node {
            kind: Kind::Directory,
            mode,
            uid: 0,
            gid: 0,
            device: 0,
            generation: 0,
            times: [Timestamp::default(); 3],
            verifier: None,
            children: BTreeMap::new(),
            bytes: Vec::new(),
            written: BTreeSet::new(),
            xattrs: BTreeMap::new(),
            was_in: 1,
        };
        Self {
            nodes: BTreeMap::from([(1, root)]),
            next: 2,
            held: BTreeSet::new(),
            lease: None,
            next_lease: 1,
            ending: false,
            answered: Default::default(),
        }
    }

    pub fn held(&self) -> Vec<Inode> {
        self.held.iter().copied().map(Inode).take(MAX_HOLDS).collect()
    }

    fn is_dead(&self, number: u64) -> bool {
        self.attributes(number).is_ok_and(|attributes| attributes.links == 0)
    }

    fn has_name(&self, number: u64) -> bool {
        number == 1 || self.nodes.values().any(|n| n.children.values().any(|c| *c == number))
    }

    fn leased(&mut self) -> u64 {
        let made = self.lease.get_or_insert_with(|| {
            self.next_lease += 1;
            (self.next_lease - 1, 0)
        });
        made.0
    }

    fn drop_unheld(&mut self) {
        let all = self.numbers();
        for number in all {
            if !self.has_name(number) && !self.held.contains(&number) {
                self.nodes.remove(&number);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn names(&self, directory: u64) -> Vec<Vec<u8>> {
        self.nodes.get(&directory).map_or(Vec::new(), |d| d.children.keys().cloned().collect())
    }

    /// What `name` stands for in `directory`, "." and ".." included.
    pub fn named(&self, directory: u64, name: &[u8]) -> Answer<u64> {
        match name {
            b"." => Ok(directory),
            b".." => Ok(self.parent(directory)),
            _ => self.dir(directory)?.children.get(name).copied().ok_or(NotFound),
        }
    }

    fn node(&self, number: u64) -> Answer<&Node> {
        self.nodes.get(&number).ok_or(Stale)
    }

    fn dir(&self, number: u64) -> Answer<&Node> {
        let node = self.node(number)?;
        if node.kind == Kind::Directory { Ok(node) } else { Err(NotDirectory) }
    }

    fn parent(&self, number: u64) -> u64 {
        let holds = |node: &Node| {
            node.kind == Kind::Directory && node.children.values().any(|child| *child == number)
        };
        let lost = self.nodes.get(&number).map_or(1, |node| node.was_in);
        self.nodes.iter().find(|(_, node)| holds(node)).map_or(lost, |(parent, _)| *parent)
    }

    pub fn is_directory(&self, number: u64) -> bool {
        self.nodes.get(&number).is_some_and(|node| node.kind == Kind::Directory)
    }

    pub fn attributes(&self, number: u64) -> Answer<Attributes> {
        let node = self.node(number)?;
        let dir = node.kind == Kind::Directory;
        let links = if dir && !self.has_name(number) {
            0
        } else if dir {
            2 + node.children.values().filter(|child| self.is_directory(**child)).count()
        } else {
            let names = self.nodes.values().flat_map(|other| other.children.values());
            names.filter(|child| **child == number).count()
        };
        Ok(Attributes {
            inode: Inode(number),
            generation: node.generation,
            kind: node.kind,
            mode: node.mode,
            links: links as u32,
            uid: node.uid,
            gid: node.gid,
            device: node.device,
            size: if dir { 4096 } else { node.bytes.len() as u64 },
            blocks: if dir { 8 } else { node.written.len() as u64 * 8 },
            accessed: node.times[0],
            modified: node.times[1],
            changed: node.times[2],
            has_xattrs: !node.xattrs.is_empty(),
        })
    }

    fn shown(&self, number: u64) -> FsResult {
        self.attributes(number).map(FsReply::Attributes)
    }

    fn touch(&mut self, at: &Moment<'_>, number: u64, modified: bool) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.times[2] = at.now;
            if modified {
                node.times[1] = at.now;
            }
        }
    }

    /// What `op` answers; not asked for `ReadDirectory`, `StatFs`, locks and exports.
    pub fn run(&mut self, at: &Moment<'_>, op: &FsOp) -> FsResult {
        if !op.is_read_only() && core::mem::take(&mut self.ending) {
            self.held.clear();
            self.drop_unheld();
        }
        match op {
            FsOp::Lookup { parent, name } => {
                let found = self.walk(at, parent.0, name)?.ok_or(NotFound)?;
                self.shown(found)
            }
            FsOp::GetAttributes { inode } | FsOp::Sync { inode } => self.shown(inode.0),
            FsOp::SetAttributes { inode, set } => self.set(at, inode.0, set),
            FsOp::Create { parent, name, mode, how } => {
                self.create(at, parent.0, name, *mode, *how)
            }
            FsOp::MakeDirectory { parent, name, mode } => {
                let made = self.make(at, parent.0, name, Kind::Directory, mode & 0o1777)?;
                self.shown(made)
            }
            FsOp::MakeNode { parent, name, kind, mode, device } => {
                match kind {
                    Kind::Directory => return Err(NotPermitted),
                    Kind::Symlink => return Err(Invalid),
                    _ => {}
                }
                let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
                if is_device && !at.root() {
                    self.expect_new(at, parent.0, name)?;
                    return Err(NotPermitted);
                }
                let made = self.make(at, parent.0, name, *kind, *mode)?;
                if let (true, Some(node)) = (is_device, self.nodes.get_mut(&made)) {
                    node.device = *device;
                }
                self.shown(made)
            }
            FsOp::Symlink { parent, name, target } => {
                let made = self.make(at, parent.0, name, Kind::Symlink, 0o777)?;
                if let Some(node) = self.nodes.get_mut(&made) {
                    node.bytes = target.clone();
                }
                self.shown(made)
            }
            FsOp::ReadLink { inode } => {
                let node = self.node(inode.0)?;
                let link = node.kind == Kind::Symlink;
                if link { Ok(FsReply::Target(node.bytes.clone())) } else { Err(Invalid) }
            }
            FsOp::Link { inode, parent, name } => {
                let dir = self.node(inode.0)?.kind == Kind::Directory;
                self.expect_new(at, parent.0, name)?;
                if dir {
                    return Err(NotPermitted);
                }
                if self.is_dead(inode.0) {
                    return Err(NotFound);
                }
                self.put(at, parent.0, name, Some(inode.0));
                self.touch(at, inode.0, false);
                self.shown(inode.0)
            }
            FsOp::Unlink { parent, name, keep } => self.remove(at, parent.0, name, false, keep),
            FsOp::RemoveDirectory { parent, name, keep } => {
                self.remove(at, parent.0, name, true, keep)
            }
            FsOp::Rename { from, name, to, new_name, how, keep } => {
                self.rename(at, (from.0, name), (to.0, new_name), *how, keep)
            }
            FsOp::Hold { inodes } => {
                self.leased();
                let (there, missing): (Vec<Inode>, Vec<Inode>) =
                    inodes.iter().partition(|inode| self.nodes.contains_key(&inode.0));
                self.held.extend(there.iter().map(|inode| inode.0));
                Ok(FsReply::Held { missing })
            }
            FsOp::LetGo { inodes } => {
                self.leased();
                self.held.retain(|number| !inodes.contains(&Inode(*number)));
                self.drop_unheld();
                Ok(FsReply::Done)
            }
            FsOp::Renew { life } => {
                let before = self.lease.map(|(_, life)| life);
                if before.is_some_and(|before| before != *life && before != 0) {
                    self.lease = None;
                    self.ending = true;
                }
                let is_new = before != Some(*life);
                let number = self.leased();
                self.lease = Some((number, *life));
                Ok(FsReply::Lease { number, is_new })
            }
            FsOp::EndLease => {
                self.ending = self.lease.take().is_some();
                Ok(FsReply::Done)
            }
            FsOp::Read { inode, offset, count } => self.read(at, inode.0, *offset, *count),
            FsOp::Write { inode, offset, data } => self.write(at, inode.0, *offset, data),
            FsOp::Seek { inode, offset, target } => self.seek(at, inode.0, *offset, *target),
            FsOp::Allocate { inode, offset, length, how } => {
                self.allocate(at, inode.0, (*offset, *length), *how)
            }
            FsOp::CopyRange { from, from_offset, to, to_offset, length } => {
                self.file(to.0)?;
                let overlap = from == to
                    && (0..*length)
                        .any(|i| (*to_offset..to_offset + length).contains(&(from_offset + i)));
                match self.read(at, from.0, *from_offset, *length as u32)? {
                    _ if overlap => Err(Invalid),
                    FsReply::Data { data, .. } => self.write(at, to.0, *to_offset, &data),
                    _ => Err(Io),
                }
            }
            FsOp::GetXattr { inode, name } => {
                let node = self.node(inode.0)?;
                xattr_rules(at, node, name, false)?;
                let value = node.xattrs.get(name).ok_or(NoData)?;
                Ok(FsReply::Value(value.clone().into()))
            }
            FsOp::ListXattrs { inode } => {
                let names = self.node(inode.0)?.xattrs.keys();
                let seen = names.filter(|name| at.root() || !name.starts_with(b"trusted."));
                Ok(FsReply::Names(seen.cloned().collect()))
            }
            FsOp::SetXattr { inode, name, value, how } => {
                let node = self.node(inode.0)?;
                xattr_rules(at, node, name, true)?;
                match (how, node.xattrs.contains_key(name)) {
                    (XattrMode::Create, true) => return Err(Exists),
                    (XattrMode::Replace, false) => return Err(NoData),
                    _ => {}
                }
                let cost = |(name, value): (&Vec<u8>, &Vec<u8>)| 320 + name.len() + value.len();
                let others = node.xattrs.iter().filter(|(other, _)| *other != name).map(cost);
                let old = node.xattrs.get_key_value(name).map_or(0, cost);
                let new = 320 + name.len() + value.len();
                if new > old && others.sum::<usize>() + new > 262_144 {
                    return Err(NoSpace);
                }
                if let Some(node) = self.nodes.get_mut(&inode.0) {
                    node.xattrs.insert(name.clone(), value.to_vec());
                }
                self.touch(at, inode.0, false);
                self.shown(inode.0)
            }
            FsOp::RemoveXattr { inode, name } => {
                let node = self.node(inode.0)?;
                xattr_rules(at, node, name, true)?;
                if !node.xattrs.contains_key(name) {
                    return Err(NoData);
                }
                if let Some(node) = self.nodes.get_mut(&inode.0) {
                    node.xattrs.remove(name);
                }
                self.touch(at, inode.0, false);
                self.shown(inode.0)
            }
            FsOp::Access { inode, mask } => {
                let node = self.node(inode.0)?;
                let what = [(4, "r"), (2, "w"), (1, "x")];
                let wanted = what.iter().filter(|(bit, _)| mask & bit > 0);
                let granted = wanted.into_iter().all(|(_, what)| at.can(node, what));
                if granted { Ok(FsReply::Done) } else { Err(AccessDenied) }
            }
            FsOp::Permissions { inode } => {
                let node = self.node(inode.0)?;
                let bit = |(bit, what)| if at.can(node, what) { bit } else { 0 };
                Ok(FsReply::Granted([(4, "r"), (2, "w"), (1, "x")].map(bit).iter().sum()))
            }
            FsOp::Watched(watched) => self.watched(at, watched),
            FsOp::Null { .. } | FsOp::ReadDirectory { .. } | FsOp::StatFs => Err(Io),
            // The table of locks has a model of its own.
            FsOp::Lock { .. }
            | FsOp::Unlock { .. }
            | FsOp::CancelLock { .. }
            | FsOp::AgreeOnKey { .. }
            | FsOp::SetExport { .. }
            | FsOp::GetExport { .. }
            | FsOp::MakeSubtree { .. }
            | FsOp::SetLimits { .. }
            | FsOp::GetAccount { .. }
            | FsOp::TestLock { .. }
            | FsOp::LockStatus { .. } => Err(Io),
        }
    }
}
