//! What has which name.

use super::{Answer, Model, Moment, Node};
use crate::op::FsError::*;
use crate::op::*;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

impl Model {
    pub(super) fn walk(&self, at: &Moment<'_>, parent: u64, name: &[u8]) -> Answer<Option<u64>> {
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

    pub(super) fn make(
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

    pub(super) fn expect_new(&self, at: &Moment<'_>, parent: u64, name: &[u8]) -> Answer<()> {
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
    pub(super) fn put(&mut self, at: &Moment<'_>, parent: u64, name: &[u8], number: Option<u64>) {
        if let Some(dir) = self.nodes.get_mut(&parent) {
            match number {
                Some(number) => dir.children.insert(name.to_vec(), number),
                None => dir.children.remove(name),
            };
        }
        self.touch(at, parent, true);
    }

    /// After `number` lost a name that was in `parent`.
    pub(super) fn sweep(
        &mut self,
        at: &Moment<'_>,
        number: u64,
        parent: u64,
        keep: &Keep,
    ) -> FsReply {
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

    pub(super) fn may_take(&self, at: &Moment<'_>, dir: u64, victim: u64) -> Answer<()> {
        let (dir, victim) = (self.node(dir)?, self.node(victim)?);
        at.need(dir, "wx")?;
        if dir.mode & 0o1000 > 0 && !at.owner(dir) && !at.owner(victim) {
            return Err(NotPermitted);
        }
        Ok(())
    }

    pub(super) fn below(&self, ancestor: u64, mut number: u64) -> bool {
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

    pub(super) fn create(
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

    pub(super) fn remove(
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

    pub(super) fn rename(
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
}
