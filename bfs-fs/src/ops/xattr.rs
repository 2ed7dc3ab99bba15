//! Extended attributes. [xattr(7)]
//!
//! Access control lists (`system.posix_acl_*`) are refused with EOPNOTSUPP: the permission bits are all there is.

use crate::cost;
use crate::name::xattr_places;
use crate::object::{Body, InodeRecord, Object, XATTR_PART, XattrRecord, xattr_id};
use crate::op::{
    Caller, FsError, FsReply, FsResult, Inode, MAX_XATTR, MAX_XATTR_LIST, MAX_XATTR_NAME,
    MAX_XATTRS_COST, XattrMode,
};
use crate::permission::{READ, STICKY, WRITE};
use crate::state::{Reader, Writer};
use alloc::vec::Vec;

/// What a program may run as besides its owner: gone with the next change of what it is. [capabilities(7)]
const CAPABILITY: &[u8] = b"security.capability";

/// Who an attribute is for, by the beginning of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    User,
    Trusted,
    Security,
}

/// Errors: `OutOfRange` for a name too short or too long, `Invalid` for nothing behind the namespace and for a NUL,
/// `NotSupported` for any other namespace.
fn namespace(name: &[u8]) -> Result<Namespace, FsError> {
    if name.is_empty() || name.len() > MAX_XATTR_NAME {
        return Err(FsError::OutOfRange);
    }
    let spaces: [(&[u8], Namespace); 3] = [
        (b"user.", Namespace::User),
        (b"trusted.", Namespace::Trusted),
        (b"security.", Namespace::Security),
    ];
    let found = spaces.into_iter().find(|(prefix, _)| name.starts_with(prefix));
    match found {
        None => Err(FsError::NotSupported),
        Some((prefix, _)) if name == prefix || name.contains(&0) => Err(FsError::Invalid),
        Some((_, namespace)) => Ok(namespace),
    }
}

/// Whether the caller may read such an attribute.
///
/// Errors: `NoData` where it must look as if there were none, `AccessDenied`.
fn allow_reading(caller: &Caller, record: &InodeRecord, space: Namespace) -> Result<(), FsError> {
    match space {
        Namespace::Security => Ok(()),
        Namespace::Trusted if caller.is_root() => Ok(()),
        Namespace::Trusted => Err(FsError::NoData),
        Namespace::User if !holds_user_attributes(record) => Err(FsError::NoData),
        Namespace::User => caller.allow(record, READ),
    }
}

/// Whether the caller may change such an attribute.
///
/// Errors: `NotPermitted`, `AccessDenied`.
fn allow_changing(caller: &Caller, record: &InodeRecord, space: Namespace) -> Result<(), FsError> {
    let guarded = record.is_directory() && record.mode & STICKY != 0 && !caller.owns(record);
    match space {
        Namespace::Security | Namespace::Trusted if caller.is_root() => Ok(()),
        Namespace::Security | Namespace::Trusted => Err(FsError::NotPermitted),
        Namespace::User if !holds_user_attributes(record) || guarded => Err(FsError::NotPermitted),
        Namespace::User => caller.allow(record, WRITE),
    }
}

/// The permission bits of anything else speak of other things than its contents.
fn holds_user_attributes(record: &InodeRecord) -> bool {
    matches!(record.body, Body::File { .. } | Body::Directory { .. })
}

/// What an attribute takes of the list of names.
fn listed(name: &[u8]) -> u32 {
    name.len() as u32 + 1
}

impl<'a> Reader<'a> {
    /// Errors: `Stale`, `NoData`, `AccessDenied`, and those of a name.
    pub fn get_xattr(self, number: Inode, name: &[u8]) -> FsResult {
        let record = self.inode(number)?;
        allow_reading(self.caller, record, namespace(name)?)?;
        let place = self.xattr_place(number, record, name).ok_or(FsError::NoData)?;
        Ok(FsReply::Value(self.xattr_value(number, place).into()))
    }

    /// Every name that the caller may know of.
    ///
    /// Errors: `Stale`.
    pub fn list_xattrs(self, number: Inode) -> FsResult {
        self.inode(number)?;
        let visible = |name: &[u8]| {
            self.caller.is_root() || !matches!(namespace(name), Ok(Namespace::Trusted))
        };
        let names = self.xattrs(number).map(|(_, xattr)| xattr.name.to_vec());
        Ok(FsReply::Names(names.filter(|name| visible(name)).collect()))
    }

    /// Every extended attribute of an inode with its place, ascending. Lazy.
    pub fn xattrs(self, number: Inode) -> impl Iterator<Item = (u64, &'a XattrRecord)> {
        let all = self.state.range(xattr_id(number, 0), xattr_id(number, u64::MAX));
        all.filter_map(|(id, object)| match object {
            Object::Xattr(xattr) => Some((id.minor(), xattr)),
            _ => None,
        })
    }

    /// What each extended attribute of an inode takes of the memory budget, with its place, ascending. Lazy.
    fn xattr_costs(self, number: Inode) -> impl Iterator<Item = (u64, u64)> {
        let all = self.xattrs(number);
        all.map(move |(place, xattr)| (place, self.xattr_cost(number, place, xattr)))
    }

    fn xattr_cost(self, number: Inode, place: u64, xattr: &XattrRecord) -> u64 {
        let rest = self.xattr_rest(number, place).map_or(0, |rest| rest.len());
        cost::xattr(&xattr.name, xattr.value.len() + rest)
    }

    fn xattr(self, number: Inode, place: u64) -> Option<&'a XattrRecord> {
        match self.state.get(xattr_id(number, place))? {
            Object::Xattr(xattr) => Some(xattr),
            _ => None,
        }
    }

    fn xattr_place(self, number: Inode, record: &InodeRecord, name: &[u8]) -> Option<u64> {
        if record.xattrs == 0 {
            return None;
        }
        places(name).find(|place| self.xattr(number, *place).is_some_and(|x| *x.name == *name))
    }

    /// The whole value at `place`. Requires: there is one.
    fn xattr_value(self, number: Inode, place: u64) -> Vec<u8> {
        let mut value = self.xattr(number, place).map_or(Vec::new(), |x| x.value.to_vec());
        value.extend_from_slice(self.xattr_rest(number, place).unwrap_or_default());
        value
    }

    /// What of the value at `place` does not fit into one object.
    fn xattr_rest(self, number: Inode, place: u64) -> Option<&'a [u8]> {
        match self.state.get(xattr_id(number, place + 1))? {
            Object::XattrRest(rest) => Some(rest),
            _ => None,
        }
    }
}

fn places(name: &[u8]) -> impl Iterator<Item = u64> {
    let (first, last) = xattr_places(name);
    (first..=last).step_by(2)
}

impl Writer<'_> {
    /// Gives an inode an extended attribute, or another value to the one that it has.
    ///
    /// Errors: `Stale`, `NotPermitted`, `AccessDenied`, `Exists` and `NoData` (as `how` says), `TooBig`, `NoSpace` (also above
    /// [`MAX_XATTRS_COST`]), and those of a name.
    pub fn set_xattr(
        &mut self,
        number: Inode,
        name: &[u8],
        value: &[u8],
        how: XattrMode,
    ) -> FsResult {
        let reader = self.reader();
        let record = reader.inode(number)?;
        allow_changing(self.caller, record, namespace(name)?)?;
        if value.len() > MAX_XATTR {
            return Err(FsError::TooBig);
        }
        let found = reader.xattr_place(number, record, name);
        match (how, found) {
            (XattrMode::Create, Some(_)) => return Err(FsError::Exists),
            (XattrMode::Replace, None) => return Err(FsError::NoData),
            _ => {}
        }
        let longer = record.xattrs as usize + listed(name) as usize > MAX_XATTR_LIST;
        if found.is_none() && longer {
            return Err(FsError::NoSpace);
        }
        let vacant = || places(name).find(|place| reader.xattr(number, *place).is_none());
        let place = found.or_else(vacant).ok_or(FsError::NoSpace)?;
        let old =
            found.and_then(|at| Some(reader.xattr_cost(number, at, reader.xattr(number, at)?)));
        let old = old.unwrap_or(0);
        let new = cost::xattr(name, value.len());
        let others = match record.xattrs {
            0 => 0,
            _ => reader.xattr_costs(number).map(|(_, bytes)| bytes).sum::<u64>() - old,
        };
        if new > old && others + new > MAX_XATTRS_COST {
            return Err(FsError::NoSpace);
        }
        self.expect_room(new.saturating_sub(old))?;
        self.refund(old);
        self.charge(new);
        self.put_xattr(number, place, name, value);
        let now = self.now;
        self.change(number, |record| {
            record.xattrs += if found.is_none() { listed(name) } else { 0 };
            record.changed = now;
        });
        self.reader().attributes(number)
    }

    fn put_xattr(&mut self, number: Inode, place: u64, name: &[u8], value: &[u8]) {
        let (value, rest) = value.split_at(value.len().min(XATTR_PART));
        let record = XattrRecord { name: name.into(), value: value.into() };
        self.state.insert(xattr_id(number, place), Object::Xattr(record));
        let id = xattr_id(number, place + 1);
        match rest {
            [] => drop(self.state.remove(id)),
            rest => self.state.insert(id, Object::XattrRest(rest.into())),
        }
    }

    /// Errors: `Stale`, `NotPermitted`, `AccessDenied`, `NoData`, and those of a name. [removexattr(2)]
    pub fn remove_xattr(&mut self, number: Inode, name: &[u8]) -> FsResult {
        let record = self.reader().inode(number)?;
        allow_changing(self.caller, record, namespace(name)?)?;
        if !self.forget_xattr(number, name) {
            return Err(FsError::NoData);
        }
        let now = self.now;
        self.change(number, |record| record.changed = now);
        self.reader().attributes(number)
    }

    /// Takes the capabilities of a program away that changes or changes hands. Most programs have none.
    pub fn drop_capability(&mut self, number: Inode) {
        self.forget_xattr(number, CAPABILITY);
    }

    /// Removes the attribute called `name`, if there is one; says whether there was.
    fn forget_xattr(&mut self, number: Inode, name: &[u8]) -> bool {
        let reader = self.reader();
        let Ok(record) = reader.inode(number) else { return false };
        let Some(place) = reader.xattr_place(number, record, name) else { return false };
        let Some(xattr) = reader.xattr(number, place) else { return false };
        let bytes = reader.xattr_cost(number, place, xattr);
        self.state.remove(xattr_id(number, place));
        self.state.remove(xattr_id(number, place + 1));
        self.refund(bytes);
        self.change(number, |record| record.xattrs -= listed(name));
        true
    }

    /// Removes extended attributes of an inode that is gone, as far as the allowance goes; says whether all are.
    pub fn remove_xattrs(&mut self, number: Inode) -> bool {
        let some: Vec<_> = self.reader().xattr_costs(number).take(self.allowance).collect();
        for (place, bytes) in &some {
            self.state.remove(xattr_id(number, *place));
            self.state.remove(xattr_id(number, *place + 1));
            self.refund(*bytes);
        }
        self.spend(some.len());
        self.allowance > 0 || self.reader().xattrs(number).next().is_none()
    }
}
