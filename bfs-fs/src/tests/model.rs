//! What the file system should do, written down a second time and as plainly as possible: a map of nodes, each with its
//! children and all its bytes. Links and parents are counted and searched for, never stored. It knows no budget.

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

fn xattr_rules(at: &Moment<'_>, node: &Node, name: &[u8], change: bool) -> Answer<()> {
    if name.is_empty() || name.len() > 255 {
        return Err(OutOfRange);
    }
    let dot = name.iter().position(|byte| *byte == b'.').map_or(0, |dot| dot + 1);
    let (space, rest) = name.split_at(dot);
    if ![&b"user."[..], b"trusted.", b"security."].contains(&space) {
        return Err(NotSupported);
    }
    if rest.is_empty() || rest.contains(&0) {
        return Err(Invalid);
    }
    let plain = matches!(node.kind, Kind::File | Kind::Directory);
    let sticky = node.kind == Kind::Directory && node.mode & 0o1000 > 0 && !at.owner(node);
    match (space, change) {
        (b"user.", true) if !plain || sticky => Err(NotPermitted),
        (b"user.", true) => at.need(node, "w"),
        (b"user.", false) if !plain => Err(NoData),
        (b"user.", false) => at.need(node, "r"),
        (_, true) if !at.root() => Err(NotPermitted),
        (b"trusted.", false) if !at.root() => Err(NoData),
        _ => Ok(()),
    }
}

fn stripped(at: &Moment<'_>, node: &Node) -> u16 {
    let mut mode = node.mode & 0o3777;
    let keeps = node.mode & 0o010 == 0 && (at.root() || at.member(node.gid));
    if !keeps {
        mode &= 0o1777;
    }
    mode
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

    fn walk(&self, at: &Moment<'_>, parent: u64, name: &[u8]) -> Answer<Option<u64>> {
        let dir = self.dir(parent)?;
        at.need(dir, "x")?;
        if name.is_empty() {
            return Err(NotFound);
        }
        if name.len() > 255 {
            return Err(NameTooLong);
        }
        if name.contains(&b'/') || name.contains(&0) {
            return Err(Invalid);
        }
        Ok(match name {
            b"." => Some(parent),
            b".." => Some(self.parent(parent)),
            _ => dir.children.get(name).copied(),
        })
    }

    fn touch(&mut self, at: &Moment<'_>, number: u64, modified: bool) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.times[2] = at.now;
            if modified {
                node.times[1] = at.now;
            }
        }
    }

    fn make(
        &mut self,
        at: &Moment<'_>,
        parent: u64,
        name: &[u8],
        kind: Kind,
        mode: u16,
    ) -> Answer<u64> {
        self.expect_new(at, parent, name)?;
        let dir = self.dir(parent)?;
        let mut mode = mode & 0o7777;
        let mut gid = at.who.gid;
        if dir.mode & 0o2000 > 0 {
            gid = dir.gid;
            if kind == Kind::Directory {
                mode |= 0o2000;
            } else if mode & 0o2010 == 0o2010 && !at.root() && !at.member(gid) {
                mode &= !0o2000;
            }
        }
        let number = self.next;
        self.next += 1;
        self.nodes.insert(
            number,
            Node {
                kind,
                mode,
                uid: at.who.uid,
                gid,
                device: 0,
                generation: at.n,
                times: [at.now; 3],
                verifier: None,
                children: BTreeMap::new(),
                bytes: Vec::new(),
                written: BTreeSet::new(),
                xattrs: BTreeMap::new(),
                was_in: parent,
            },
        );
        self.put(at, parent, name, Some(number));
        Ok(number)
    }

    fn expect_new(&self, at: &Moment<'_>, parent: u64, name: &[u8]) -> Answer<()> {
        at.need(self.dir(parent)?, "x")?;
        if self.is_dead(parent) {
            return Err(NotFound);
        }
        if self.walk(at, parent, name)?.is_some() {
            return Err(Exists);
        }
        at.need(self.dir(parent)?, "wx")
    }

    /// Sets what `name` stands for, and sweeps away what then has no name.
    fn put(&mut self, at: &Moment<'_>, parent: u64, name: &[u8], number: Option<u64>) {
        if let Some(dir) = self.nodes.get_mut(&parent) {
            match number {
                Some(number) => dir.children.insert(name.to_vec(), number),
                None => dir.children.remove(name),
            };
        }
        self.touch(at, parent, true);
    }

    /// After `number` lost a name that was in `parent`.
    fn sweep(&mut self, at: &Moment<'_>, number: u64, parent: u64, keep: &Keep) -> FsReply {
        self.touch(at, number, false);
        if let Some(node) = self.nodes.get_mut(&number) {
            node.was_in = parent;
        }
        let covered = match keep {
            Keep::These(inodes) => inodes.contains(&Inode(number)),
            Keep::Whatever => true,
        };
        if self.has_name(number) || !covered {
            self.drop_unheld();
            return FsReply::Done;
        }
        self.leased();
        self.held.insert(number);
        FsReply::Kept(Inode(number))
    }

    fn may_take(&self, at: &Moment<'_>, dir: u64, victim: u64) -> Answer<()> {
        let (dir, victim) = (self.node(dir)?, self.node(victim)?);
        at.need(dir, "wx")?;
        if dir.mode & 0o1000 > 0 && !at.owner(dir) && !at.owner(victim) {
            return Err(NotPermitted);
        }
        Ok(())
    }

    fn below(&self, ancestor: u64, mut number: u64) -> bool {
        loop {
            if number == ancestor {
                return true;
            }
            if number == 1 {
                return false;
            }
            number = self.parent(number);
        }
    }

    fn file(&self, number: u64) -> Answer<&Node> {
        let node = self.node(number)?;
        match node.kind {
            Kind::File => Ok(node),
            Kind::Directory => Err(IsDirectory),
            _ => Err(Invalid),
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
                if self.lease.is_some_and(|(_, before)| before != *life) {
                    self.lease = None;
                    self.ending = true;
                }
                let is_new = self.lease.is_none();
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

    fn create(
        &mut self,
        at: &Moment<'_>,
        parent: u64,
        name: &[u8],
        mode: u16,
        how: CreateMode,
    ) -> FsResult {
        let dots = name == b"." || name == b"..";
        if let (false, Some(found)) = (dots, self.walk(at, parent, name)?) {
            let node = self.node(found)?;
            return match how {
                CreateMode::Unchecked if node.kind == Kind::Directory => Err(IsDirectory),
                CreateMode::Unchecked if node.kind == Kind::File => self.shown(found),
                CreateMode::Exclusive(v) if node.verifier == Some(v) => self.shown(found),
                _ => Err(Exists),
            };
        }
        let made = self.make(at, parent, name, Kind::File, mode)?;
        if let (CreateMode::Exclusive(v), Some(node)) = (how, self.nodes.get_mut(&made)) {
            node.verifier = Some(v);
        }
        self.shown(made)
    }

    fn remove(
        &mut self,
        at: &Moment<'_>,
        parent: u64,
        name: &[u8],
        rmdir: bool,
        keep: &Keep,
    ) -> FsResult {
        match (name, rmdir) {
            (b"." | b"..", false) => return self.dir(parent).and(Err(IsDirectory)),
            (b".", true) => return self.dir(parent).and(Err(Invalid)),
            (b"..", true) => return self.dir(parent).and(Err(NotEmpty)),
            _ => {}
        }
        let victim = self.walk(at, parent, name)?.ok_or(NotFound)?;
        self.may_take(at, parent, victim)?;
        let node = self.node(victim)?;
        match (node.kind == Kind::Directory, rmdir) {
            (true, false) => return Err(IsDirectory),
            (false, true) => return Err(NotDirectory),
            _ if !node.children.is_empty() => return Err(NotEmpty),
            _ => {}
        }
        self.put(at, parent, name, None);
        Ok(self.sweep(at, victim, parent, keep))
    }

    fn rename(
        &mut self,
        at: &Moment<'_>,
        (from, name): (u64, &[u8]),
        (to, new_name): (u64, &[u8]),
        how: RenameMode,
        keep: &Keep,
    ) -> FsResult {
        let mut found = [None, None];
        for (slot, (dir, name)) in found.iter_mut().zip([(from, name), (to, new_name)]) {
            at.need(self.dir(dir)?, "x")?;
            if name == b"." || name == b".." {
                return Err(Invalid);
            }
            *slot = self.walk(at, dir, name)?;
        }
        let source = found[0].ok_or(NotFound)?;
        if self.is_dead(to) {
            return Err(NotFound);
        }
        let target = found[1];
        let exchange = how == RenameMode::Exchange;
        if how == RenameMode::NoReplace && target.is_some() {
            return Err(Exists);
        }
        if exchange && target.is_none() {
            return Err(NotFound);
        }
        if self.is_directory(source) && self.below(source, to) {
            return Err(Invalid);
        }
        if exchange && target.is_some_and(|target| self.below(target, from)) {
            return Err(Invalid);
        }
        if target == Some(source) {
            return Ok(FsReply::Done);
        }
        self.may_take(at, from, source)?;
        match target {
            None => at.need(self.dir(to)?, "wx")?,
            Some(target) => {
                self.may_take(at, to, target)?;
                match (self.is_directory(source), self.is_directory(target)) {
                    (true, false) if !exchange => return Err(NotDirectory),
                    (false, true) if !exchange => return Err(IsDirectory),
                    _ => {}
                }
                if exchange && from != to && self.is_directory(target) {
                    at.need(self.node(target)?, "w")?;
                }
                if !exchange && !self.node(target)?.children.is_empty() {
                    return Err(NotEmpty);
                }
            }
        }
        if from != to && self.is_directory(source) {
            at.need(self.node(source)?, "w")?;
        }
        self.put(at, from, name, target.filter(|_| exchange));
        self.put(at, to, new_name, Some(source));
        self.touch(at, source, false);
        match target {
            Some(target) if exchange => self.touch(at, target, false),
            Some(target) => return Ok(self.sweep(at, target, to, keep)),
            None => {}
        }
        Ok(FsReply::Done)
    }

    fn read(&self, at: &Moment<'_>, number: u64, offset: u64, count: u32) -> FsResult {
        let node = self.file(number)?;
        if !(at.owner(node) || at.can(node, "r") || at.can(node, "x")) {
            return Err(AccessDenied);
        }
        let rest = node.bytes.iter().skip(offset as usize);
        let data: Vec<u8> = rest.take(count as usize).copied().collect();
        let eof = offset + u64::from(count) >= node.bytes.len() as u64;
        Ok(FsReply::Data { data: data.into(), eof, attributes: self.attributes(number)? })
    }

    fn seek(&self, at: &Moment<'_>, number: u64, offset: u64, target: SeekTarget) -> FsResult {
        let node = self.file(number)?;
        if !(at.owner(node) || at.can(node, "r") || at.can(node, "x")) {
            return Err(AccessDenied);
        }
        let size = node.bytes.len() as u64;
        let wanted = |byte: &u64| match target {
            SeekTarget::Data => node.written.contains(&(byte / PAGE)),
            SeekTarget::Hole => !node.written.contains(&(byte / PAGE)),
        };
        match (offset..size).find(wanted) {
            Some(offset) => Ok(FsReply::Position { offset, found: true }),
            None if target == SeekTarget::Hole && offset < size => {
                Ok(FsReply::Position { offset: size, found: true })
            }
            None => Err(NoSuchAddress),
        }
    }

    fn allocate(
        &mut self,
        at: &Moment<'_>,
        number: u64,
        (offset, length): (u64, u64),
        how: AllocateMode,
    ) -> FsResult {
        let node = self.file(number)?;
        if !(at.owner(node) || at.can(node, "w")) {
            return Err(AccessDenied);
        }
        if length == 0 {
            return Err(Invalid);
        }
        let (mode, end) = (if at.root() { node.mode } else { stripped(at, node) }, offset + length);
        if let Some(node) = self.nodes.get_mut(&number) {
            node.mode = mode;
            node.xattrs.remove(&b"security.capability"[..]);
            let (zero, grow) = match how {
                AllocateMode::Punch => (true, false),
                AllocateMode::Reserve { keep_size } => (false, !keep_size),
                AllocateMode::Zero { keep_size } => (true, !keep_size),
            };
            for byte in (offset..end).filter(|_| zero) {
                if let Some(byte) = node.bytes.get_mut(byte as usize) {
                    *byte = 0;
                }
            }
            for page in offset / PAGE..end.div_ceil(PAGE) {
                let whole = page * PAGE >= offset && (page + 1) * PAGE <= end;
                match how {
                    AllocateMode::Punch if whole => drop(node.written.remove(&page)),
                    AllocateMode::Punch => {}
                    _ => drop(node.written.insert(page)),
                }
            }
            if grow && node.bytes.len() < end as usize {
                node.bytes.resize(end as usize, 0);
            }
        }
        self.touch(at, number, true);
        Ok(FsReply::Allocated { length, attributes: self.attributes(number)? })
    }

    fn write(&mut self, at: &Moment<'_>, number: u64, offset: u64, data: &[u8]) -> FsResult {
        let node = self.file(number)?;
        if !(at.owner(node) || at.can(node, "w")) {
            return Err(AccessDenied);
        }
        let mode = if at.root() { node.mode } else { stripped(at, node) };
        if let (false, Some(node)) = (data.is_empty(), self.nodes.get_mut(&number)) {
            let end = offset as usize + data.len();
            let size = node.bytes.len().max(end);
            node.bytes.resize(size, 0);
            node.bytes[offset as usize..end].copy_from_slice(data);
            node.xattrs.remove(&b"security.capability"[..]);
            node.written.extend((offset..end as u64).map(|byte| byte / PAGE));
            node.mode = mode;
            self.touch(at, number, true);
        }
        Ok(FsReply::Written { count: data.len() as u32, attributes: self.attributes(number)? })
    }

    fn set(&mut self, at: &Moment<'_>, number: u64, set: &SetAttributes) -> FsResult {
        let node = self.node(number)?;
        for time in [set.accessed, set.modified] {
            if let Some(SetTime::At(time)) = time
                && time.nanoseconds > 999_999_999
            {
                return Err(Invalid);
            }
        }
        if set.size.is_some() {
            self.file(number)?;
        }
        if set.mode.is_some() && node.kind == Kind::Symlink {
            return Err(NotSupported);
        }
        if set.size.is_some() && !at.owner(node) {
            at.need(node, "w")?;
        }
        if !at.root() {
            let mine = node.uid == at.who.uid;
            if set.uid.is_some_and(|uid| !(mine && uid == node.uid)) {
                return Err(NotPermitted);
            }
            if set.gid.is_some_and(|gid| !(mine && (gid == node.gid || at.member(gid)))) {
                return Err(NotPermitted);
            }
            if set.mode.is_some() && !mine {
                return Err(NotPermitted);
            }
            if !mine {
                match (set.accessed, set.modified) {
                    (None, None) => {}
                    (None, Some(SetTime::Now)) if set.size.is_some() => {}
                    (Some(SetTime::Now), Some(SetTime::Now)) => at.need(node, "w")?,
                    _ => return Err(NotPermitted),
                }
            }
        }
        if *set == SetAttributes::default() {
            return self.shown(number);
        }
        let dir = node.kind == Kind::Directory;
        let chown = (set.uid.is_some() || set.gid.is_some()) && !dir;
        let mut mode = node.mode;
        if chown || (set.size.is_some() && !at.root()) {
            mode = stripped(at, node);
        }
        if let Some(wanted) = set.mode {
            mode = wanted & 0o7777;
            let gid = set.gid.unwrap_or(node.gid);
            if !at.root() && !at.member(gid) {
                mode &= !0o2000;
            }
            if chown {
                mode &= !0o4000;
                if mode & 0o010 > 0 {
                    mode &= !0o2000;
                }
            }
        }
        if let Some(node) = self.nodes.get_mut(&number) {
            if chown || set.size.is_some() {
                node.xattrs.remove(&b"security.capability"[..]);
            }
            node.mode = mode;
            node.uid = set.uid.unwrap_or(node.uid);
            node.gid = set.gid.unwrap_or(node.gid);
            if let Some(size) = set.size {
                node.bytes.resize(size as usize, 0);
                node.written.retain(|page| page * PAGE < size);
                node.times[1] = at.now;
            }
            for (slot, time) in [set.accessed, set.modified].into_iter().enumerate() {
                match time {
                    Some(SetTime::Now) => node.times[slot] = at.now,
                    Some(SetTime::At(time)) => node.times[slot] = time,
                    None => {}
                }
            }
            node.times[2] = at.now;
        }
        self.shown(number)
    }
}
