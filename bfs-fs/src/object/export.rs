//! The objects of exports and accounts.

use super::{ACCOUNT, EXPORT};
use crate::op::{Inode, Subject};
use bft_core::tree::ObjectId;

/// The id of what `client` may do.
pub(crate) fn export_id(client: u32) -> ObjectId {
    ObjectId::new(EXPORT, u64::from(client), 0)
}

/// The id of the account of `subject`.
pub(crate) fn account_id(subject: Subject) -> ObjectId {
    match subject {
        Subject::User(uid) => ObjectId::new(ACCOUNT, 0, u64::from(uid)),
        Subject::Subtree(Inode(number)) => ObjectId::new(ACCOUNT, 1, number),
    }
}

/// Whose account the object called `id` is. Requires: it is one of [`account_id`]'s.
pub(crate) fn account_subject(id: ObjectId) -> Option<Subject> {
    match id.major() {
        0 => u32::try_from(id.minor()).ok().map(Subject::User),
        1 => Some(Subject::Subtree(Inode(id.minor()))),
        _ => None,
    }
}
