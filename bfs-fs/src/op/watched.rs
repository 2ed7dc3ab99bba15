//! An operation as NFS asks for it: with the attributes around it, once.
//!
//! NFS wants to know in every reply how an object was before and after, also where the operation failed, and a server must not
//! do again what it did when a call is sent twice. Both hold only if they are one step with the operation itself.

use super::{Attributes, FsError, FsOp, FsReply, Inode, SetAttributes, Timestamp};
use alloc::boxed::Box;
use alloc::vec::Vec;
use borsh::de::EnumExt;
use borsh::io::{Error, ErrorKind, Read, Result, Write};
use borsh::{BorshDeserialize, BorshSerialize};

/// The most inodes that one operation watches: RENAME has two directories.
pub const MAX_WATCHED: usize = 2;

/// An operation, and what is to be known and done in the same step.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Watched {
    pub op: Plain<FsOp>,
    /// Whose attributes the answer tells, before and after. At most [`MAX_WATCHED`].
    pub watch: Vec<Inode>,
    /// Of a `SetAttributes`: only if the attributes changed last at this time. [RFC 1813 §3.3.2: guard]
    pub guard: Option<Timestamp>,
    /// Of what makes something: set on what is new; of a file that was there, and is opened as it is, only the size is.
    pub then: Option<SetAttributes>,
    /// Of what changes files: done only once under this name.
    pub once: Option<OnceKey>,
}

impl Watched {
    /// `op`, and nothing else. What `op` watches itself is not asked for.
    pub fn new(op: FsOp) -> Self {
        Self { op: Plain::new(op), watch: Vec::new(), guard: None, then: None, once: None }
    }

    /// Whether nothing in it contradicts itself.
    pub fn is_valid(&self) -> bool {
        use FsOp::*;
        let makes = matches!(
            *self.op,
            Create { .. } | MakeDirectory { .. } | MakeNode { .. } | Symlink { .. }
        );
        self.watch.len() <= MAX_WATCHED
            && (self.guard.is_none() || matches!(*self.op, SetAttributes { .. }))
            && (self.then.is_none() || makes)
            && (self.once.is_none() || self.op.changes_files())
    }
}

/// Which call of which client of a proxy: whoever knows neither meets none of them by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct OnceKey(pub [u8; 16]);

/// What became of a [`Watched`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Report {
    /// One for each inode that was to be watched.
    pub watched: Vec<Change>,
    pub result: core::result::Result<Plain<FsReply>, Refusal>,
}

/// How an inode was around an operation; nothing where it does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Change {
    pub before: Option<Attributes>,
    pub after: Option<Attributes>,
}

/// Why a [`Watched`] was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Refusal {
    Failed(FsError),
    /// The guard says another time. [NFS3ERR_NOT_SYNC]
    OutOfSync,
}

/// What can hold another value of its own type, and the tag by which its encoding says so.
pub trait Nests: EnumExt + BorshSerialize {
    /// The first byte of an encoding that holds another one.
    const TAG: u8;
    /// What is in `self`, however deep, or `self`.
    fn innermost(self) -> Self;
}

impl Nests for FsOp {
    const TAG: u8 = 42;

    fn innermost(self) -> Self {
        let mut op = self;
        while let FsOp::Watched(watched) = op {
            op = watched.op.into_inner();
        }
        op
    }
}

impl Nests for FsReply {
    const TAG: u8 = 22;

    fn innermost(self) -> Self {
        let mut reply = self;
        while let FsReply::Watched(report) = reply {
            reply = match report.result {
                Ok(inner) => inner.into_inner(),
                Err(_) => FsReply::Done,
            };
        }
        reply
    }
}

/// A value that holds no other of its type, so that bytes cannot ask for recursion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain<T>(Box<T>);

impl<T: Nests> Plain<T> {
    /// What is in `value`, or `value`.
    pub fn new(value: T) -> Self {
        Self(Box::new(value.innermost()))
    }

    /// The value.
    pub fn into_inner(self) -> T {
        *self.0
    }

    /// The value, for a change that keeps it what it is.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> core::ops::Deref for Plain<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Nests> BorshSerialize for Plain<T> {
    fn serialize<W: Write>(&self, writer: &mut W) -> Result<()> {
        self.0.serialize(writer)
    }
}

impl<T: Nests> BorshDeserialize for Plain<T> {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Self> {
        let tag = u8::deserialize_reader(reader)?;
        if tag == T::TAG {
            return Err(Error::new(ErrorKind::InvalidData, "one within the other"));
        }
        Ok(Self(Box::new(T::deserialize_variant(reader, tag)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{FsReply, ROOT, decode_request, decode_result};
    use alloc::vec;

    #[test]
    fn the_tags_are_those_of_the_encoding() {
        let op = FsOp::Watched(Box::new(Watched::new(FsOp::StatFs)));
        assert_eq!(borsh::to_vec(&op).unwrap()[0], FsOp::TAG);
        let report = Report { watched: vec![], result: Ok(Plain::new(FsReply::Done)) };
        let reply = FsReply::Watched(Box::new(report));
        assert_eq!(borsh::to_vec(&reply).unwrap()[0], FsReply::TAG);
    }

    #[test]
    fn one_within_the_other_is_refused_before_it_is_followed() {
        // As deep as a request may be long: following it would exhaust the stack.
        let deep = vec![FsOp::TAG; 1 << 20];
        let mut request = vec![0; 12];
        request.extend(&deep);
        assert!(decode_request(&request).is_none());
        let mut result = vec![1];
        for _ in 0..100_000 {
            result.extend([FsReply::TAG, 0, 0, 0, 0, 1]);
        }
        assert!(decode_result(&result).is_none());
    }

    #[test]
    fn what_is_put_in_is_unwrapped_first() {
        let inner = FsOp::GetAttributes { inode: ROOT };
        let once = FsOp::Watched(Box::new(Watched::new(inner.clone())));
        assert_eq!(*Watched::new(once).op, inner);
    }
}
