//! What must hold of the answers that are kept, and of the group's secret.

use crate::object::{
    Answers, MAX_ANSWERS, MAX_OUTCOMES, ONCE, Object, Outcomes, SECRET_ID, WRITTEN,
};
use crate::op::{FsReply, OnceKey, decode_result};
use alloc::collections::BTreeSet;
use bft_core::tree::ObjectId;

/// Whether an object belongs where it is, and is what it should be there.
pub(super) fn take(id: ObjectId, object: &Object) -> bool {
    match object {
        Object::Answers(answers) => id.kind() == ONCE && are_sound(id.minor(), answers),
        Object::Outcomes(outcomes) => id.kind() == WRITTEN && are_outcomes(id.minor(), outcomes),
        Object::Secret(_) => id == SECRET_ID,
        _ => false,
    }
}

fn are_sound(first: u64, answers: &Answers) -> bool {
    belong(first, MAX_ANSWERS, answers.0.iter().map(|answer| answer.key))
        && answers
            .0
            .iter()
            .all(|answer| matches!(decode_result(&answer.result), Some(Ok(FsReply::Watched(_)))))
}

fn are_outcomes(first: u64, outcomes: &Outcomes) -> bool {
    belong(first, MAX_OUTCOMES, outcomes.0.iter().map(|outcome| outcome.key))
}

/// Whether there are some, not too many, no two the same, and all where their first byte says.
fn belong(first: u64, most: usize, keys: impl ExactSizeIterator<Item = OnceKey>) -> bool {
    let count = keys.len();
    let keys: BTreeSet<_> = keys.collect();
    (1..=most).contains(&count)
        && keys.len() == count
        && keys.iter().all(|key| key.0.first().is_some_and(|byte| u64::from(*byte) == first))
}
