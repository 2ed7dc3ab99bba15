//! What a replicated service implements. [BASE's conformance wrapper, without the wrapper.]

use crate::objects::Objects;
use crate::tree::Object;
use crate::types::{ClientId, SequenceNumber, Time};
use bytes::Bytes;
use core::fmt;

/// A deterministic state machine over abstract objects.
///
/// All replicated state lives in the objects, behind one door, so that undo, checkpoints and state transfer can miss
/// nothing; `self` holds configuration only, and is the same on every replica.
pub trait Service {
    /// One object of the state, at most [`crate::tree::MAX_OBJECT`] bytes encoded.
    type Object: Object;

    /// Builds the initial state. Runs once, on an empty store, at sequence number 0.
    fn genesis(&self, objects: &mut Objects<Self::Object>);

    /// Executes an ordered operation and returns its result.
    ///
    /// Requires: nothing of `op`, which a Byzantine client may have written: whatever it holds, the answer is the same on every
    /// replica, without a panic and with bounded work.
    fn execute(&self, ctx: &Context, objects: &mut Objects<Self::Object>, op: &Bytes) -> Bytes;

    /// `client` is not a client any more: nothing that it had at its disposal is waited for. Otherwise like `execute`.
    fn dismiss(&self, ctx: &Context, objects: &mut Objects<Self::Object>, client: ClientId) {
        let _ = (ctx, objects, client);
    }

    /// Answers `op` from the state as it is, if it changes nothing.
    ///
    /// Errors: `NotReadOnly`, where the client claimed what is not so.
    fn query(
        &self,
        ctx: &Context,
        objects: &Objects<Self::Object>,
        op: &[u8],
    ) -> Result<Bytes, NotReadOnly>;
}

/// What an execution may know of its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Who asked.
    pub client: ClientId,
    /// Agreed time.
    pub time: Time,
    /// The sequence number of the batch.
    pub n: SequenceNumber,
}

/// The operation would change the state and must be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReadOnly;

impl fmt::Display for NotReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operation is not read-only")
    }
}
