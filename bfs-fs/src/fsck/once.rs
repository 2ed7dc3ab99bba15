//! What must hold of the answers that are kept, and of the group's secret.

use crate::object::{Answers, MAX_ANSWERS, ONCE, Object, SECRET_ID};
use crate::op::{FsReply, decode_result};
use alloc::collections::BTreeSet;
use bft_core::tree::ObjectId;

/// Whether an object belongs where it is, and is what it should be there.
pub(super) fn take(id: ObjectId, object: &Object) -> bool {
    match object {
        Object::Answers(answers) => id.kind() == ONCE && are_sound(id.minor(), answers),
        Object::Secret(_) => id == SECRET_ID,
        _ => false,
    }
}

fn are_sound(first: u64, answers: &Answers) -> bool {
    let keys: BTreeSet<_> = answers.0.iter().map(|answer| answer.key).collect();
    (1..=MAX_ANSWERS).contains(&answers.0.len())
        && keys.len() == answers.0.len()
        && keys.iter().all(|key| key.0.first().is_some_and(|byte| u64::from(*byte) == first))
        && answers
            .0
            .iter()
            .all(|answer| matches!(decode_result(&answer.result), Some(Ok(FsReply::Watched(_)))))
}
