//! The objects of what NFS must not do twice, and of the group's own secret.

use super::{ONCE, SECRET, WRITTEN};
use crate::op::{FsError, OnceKey};
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

/// How many outcomes one [`Outcomes`] keeps; a client has at most 256 times as many.
///
/// Writes come in floods, so they have places of their own: they push each other out, and nothing that is rarer. And there are
/// more of them, for a copy of a write may come late: a connection has at most 128 calls under way, so 16,384 are the latest of 128 of them.
pub(crate) const MAX_OUTCOMES: usize = 64;

/// What became of the latest writes of one client whose keys begin with the same byte, the oldest first. Never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Outcomes(pub Vec<Outcome>);

/// What became of a write. Its answer is not kept: it is mostly attributes, and the client of a write that was repeated
/// is served better by those of now.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Outcome {
    pub key: OnceKey,
    /// How many bytes were written.
    pub result: Result<u32, FsError>,
}

/// The id of the outcomes of the writes of `client` that have keys like `key`.
pub(crate) fn outcomes_id(client: u32, key: OnceKey) -> ObjectId {
    let [first, ..] = key.0;
    ObjectId::new(WRITTEN, u64::from(client), u64::from(first))
}

/// The id of the answers to the calls of `client` that have keys like `key`.
pub(crate) fn answers_id(client: u32, key: OnceKey) -> ObjectId {
    let [first, ..] = key.0;
    ObjectId::new(ONCE, u64::from(client), u64::from(first))
}

/// Where the group's secret is.
pub(crate) const SECRET_ID: ObjectId = ObjectId::new(SECRET, 0, 0);
