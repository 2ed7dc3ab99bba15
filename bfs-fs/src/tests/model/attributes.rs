//! What is said about files, and who may say it.

use super::{Answer, Model, Moment, Node, PAGE};
use crate::op::FsError::*;
use crate::op::*;

pub(super) fn xattr_rules(at: &Moment<'_>, node: &Node, name: &[u8], change: bool) -> Answer<()> {
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

pub(super) fn stripped(at: &Moment<'_>, node: &Node) -> u16 {
    let mut mode = node.mode & 0o3777;
    let keeps = node.mode & 0o010 == 0 && (at.root() || at.member(node.gid));
    if !keeps {
        mode &= 0o1777;
    }
    mode
}

impl Model {
    pub(super) fn set(&mut self, at: &Moment<'_>, number: u64, set: &SetAttributes) -> FsResult {
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
            node.verifier = None;
        }
        self.shown(number)
    }
}
