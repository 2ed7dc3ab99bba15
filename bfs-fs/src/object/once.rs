//! The objects of what NFS must not do twice, and of the group's own secret.

use super::{ONCE, SECRET};
use crate::op::OnceKey;
use alloc::vec::Vec;
use bft_core::tree::ObjectId;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

/// How many answers one [`Answers`] keeps. There is one for each value of a key's first byte, so a client has at most
/// 256 times as many, and about so many calls of others come between a call and the loss of its answer.
pub(crate) const MAX_ANSWERS: usize = 8;

/// The answers to the latest calls of one client whose keys begin with the same byte, the oldest first. Never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Answers(pub Vec<Answer>);

/// What a call was answered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Answer {
    pub key: OnceKey,
    /// A canonical [`crate::op::FsResult`].
    pub result: Bytes,
}

/// The id of the answers to the calls of `client` that have keys like `key`.
pub(crate) fn answers_id(client: u32, key: OnceKey) -> ObjectId {
    let [first, ..] = key.0;
    ObjectId::new(ONCE, u64::from(client), u64::from(first))
}

/// Where the group's secret is.
pub(crate) const SECRET_ID: ObjectId = ObjectId::new(SECRET, 0, 0);
