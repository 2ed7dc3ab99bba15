//! What is in files.

use super::attributes::stripped;
use super::{Answer, Model, Moment, Node, PAGE};
use crate::op::FsError::*;
use crate::op::*;
use alloc::vec::Vec;

impl Model {
    pub(super) fn file(&self, number: u64) -> Answer<&Node> {
        let node = self.node(number)?;
        match node.kind {
            Kind::File => Ok(node),
            Kind::Directory => Err(IsDirectory),
            _ => Err(Invalid),
        }
    }

    pub(super) fn read(&self, at: &Moment<'_>, number: u64, offset: u64, count: u32) -> FsResult {
        let node = self.file(number)?;
        if !(at.owner(node) || at.can(node, "r") || at.can(node, "x")) {
            return Err(AccessDenied);
        }
        let rest = node.bytes.iter().skip(offset as usize);
        let data: Vec<u8> = rest.take(count as usize).copied().collect();
        let eof = offset + u64::from(count) >= node.bytes.len() as u64;
        Ok(FsReply::Data { data: data.into(), eof, attributes: self.attributes(number)? })
    }

    pub(super) fn seek(
        &self,
        at: &Moment<'_>,
        number: u64,
        offset: u64,
        target: SeekTarget,
    ) -> FsResult {
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

    pub(super) fn allocate(
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

    pub(super) fn write(
        &mut self,
        at: &Moment<'_>,
        number: u64,
        offset: u64,
        data: &[u8],
    ) -> FsResult {
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
}
