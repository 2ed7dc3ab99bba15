//! Operations with the attributes around them, done once.

use super::data::MAX_FILE_SIZE;
use crate::object::{
    Answer, Answers, MAX_ANSWERS, MAX_OUTCOMES, Object, Outcome, Outcomes, SECRET_ID, answers_id,
    outcomes_id,
};
use crate::op::{
    Attributes, Caller, Change, CreateMode, FsError, FsOp, FsReply, FsResult, Inode, OnceKey,
    Plain, Refusal, Report, SetAttributes, SetTime, Subject, Watched, decode_result, encode_result,
};
use crate::permission::{EXECUTE, READ, WRITE};
use crate::state::{Reader, State, Writer, totals};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What becomes of an operation within another.
type Inner = Result<FsReply, Refusal>;

impl Reader<'_> {
    /// The bits of read, write and execute that are granted; writing never is where the export is `read_only`.
    ///
    /// Errors: `Stale`.
    pub fn permissions(self, number: Inode, read_only: bool) -> FsResult {
        let record = self.inode(number)?;
        let granted = [READ, WRITE, EXECUTE]
            .into_iter()
            .filter(|bit| self.caller.may(record, *bit) && !(read_only && *bit == WRITE))
            .fold(0, |granted, bit| granted | bit);
        Ok(FsReply::Granted(granted))
    }

    fn attributes_of(self, watch: &[Inode]) -> Vec<Option<Attributes>> {
        let attributes = |number: &Inode| Some(self.inode(*number).ok()?.attributes(*number));
        watch.iter().map(attributes).collect()
    }

    /// The answer to `watched`, which changes nothing and of whose operation this is the result.
    ///
    /// Errors: `Invalid` if it contradicts itself.
    pub fn report(self, watched: &Watched, result: FsResult) -> FsResult {
        if !watched.is_valid() {
            return Err(FsError::Invalid);
        }
        Ok(self.report_now(watched, result))
    }

    fn report_now(self, watched: &Watched, result: FsResult) -> FsReply {
        let after = self.attributes_of(&watched.watch);
        let changes = after.into_iter().map(|after| Change { before: None, after });
        report(changes.collect(), result.map_err(Refusal::Failed))
    }

    /// What `watched` is answered if it was done before.
    fn answer_again(self, watched: &Watched) -> Option<FsReply> {
        let key = watched.once?;
        match &*watched.op {
            FsOp::Write { .. } => {
                let result = self.outcome_of(key)?;
                let result = result.map(|count| FsReply::WrittenBefore { count });
                Some(self.report_now(watched, result))
            }
            _ => self.answer_to(key),
        }
    }

    /// What became of the write called `key`.
    fn outcome_of(self, key: OnceKey) -> Option<Result<u32, FsError>> {
        let Some(Object::Outcomes(outcomes)) = self.state.get(outcomes_id(self.client, key)) else {
            return None;
        };
        Some(outcomes.0.iter().find(|outcome| outcome.key == key)?.result)
    }

    /// What a call called `key` was answered.
    fn answer_to(self, key: OnceKey) -> Option<FsReply> {
        let Some(Object::Answers(answers)) = self.state.get(answers_id(self.client, key)) else {
            return None;
        };
        let answer = answers.0.iter().find(|answer| answer.key == key)?;
        decode_result(&answer.result)?.ok()
    }
}

fn report(watched: Vec<Change>, result: Inner) -> FsReply {
    FsReply::Watched(Box::new(Report { watched, result: result.map(Plain::new) }))
}

impl Writer<'_> {
    /// Does what `watched` says, or answers as the first time if it was done before.
    ///
    /// Effects: an answer is kept until [`MAX_ANSWERS`] others of the same client have taken its place; of a write only the
    /// outcome, until those of [`MAX_OUTCOMES`] other writes have. The answer of a step towards
    /// a size that takes several is not kept: it must be possible to ask for the next.
    ///
    /// Errors: `Invalid` if it contradicts itself. What the operation fails with is within the answer.
    pub fn watched(&mut self, watched: &Watched) -> FsResult {
        if !watched.is_valid() {
            return Err(FsError::Invalid);
        }
        if let Some(answer) = self.reader().answer_again(watched) {
            return Ok(answer);
        }
        let before = self.reader().attributes_of(&watched.watch);
        let result = self.inner(watched);
        let after = self.reader().attributes_of(&watched.watch);
        let changes = before.into_iter().zip(after);
        let changes = changes.map(|(before, after)| Change { before, after }).collect();
        let finished = is_finished(watched, &result);
        let written = matches!(*watched.op, FsOp::Write { .. }).then(|| outcome(&result));
        let answer = Ok(report(changes, result));
        match (watched.once, written) {
            (Some(key), Some(outcome)) => self.keep_outcome(key, outcome),
            (Some(key), None) if finished => self.keep_answer(key, &answer),
            _ => {}
        }
        answer
    }

    fn inner(&mut self, watched: &Watched) -> Inner {
        if let (Some(guard), FsOp::SetAttributes { inode, .. }) = (watched.guard, &*watched.op) {
            let record = self.reader().inode(*inode).map_err(Refusal::Failed)?;
            if record.changed != guard {
                return Err(Refusal::OutOfSync);
            }
        }
        let result = match &watched.then {
            Some(set) => self.make_with(&watched.op, set),
            None => self.run(&watched.op),
        };
        result.map_err(Refusal::Failed)
    }

    /// Makes something with these attributes. Of a file that was there only the size is set. [RFC 1813 §3.3.8]
    ///
    /// An owner and a group that the caller may not give are not set: clients name those that they expect, and know
    /// neither how the export counts their users nor who is in which group.
    ///
    /// Errors: those of the operation; `Invalid`, `FileTooLarge`, `NotSupported` for attributes that what is new cannot be given.
    fn make_with(&mut self, op: &FsOp, set: &SetAttributes) -> FsResult {
        expect_settable(op, set)?;
        let set = givable(self.caller, set);
        let next = totals(self.state).next_inode;
        // What is made must leave room for the account of whom it is given to.
        let account = set.uid.map_or(0, |uid| self.reader().new_account(Subject::User(uid)));
        let budget = self.memory_budget;
        self.memory_budget = budget.saturating_sub(account);
        let made = self.run(op);
        self.memory_budget = budget;
        let made = match made? {
            FsReply::Attributes(made) => made,
            other => return Ok(other),
        };
        let set = match totals(self.state).next_inode == next {
            true => SetAttributes { size: set.size, ..SetAttributes::default() },
            false => set,
        };
        match set == SetAttributes::default() {
            true => Ok(FsReply::Attributes(made)),
            false => self.set_attributes(made.inode, &set),
        }
    }

    fn keep_answer(&mut self, key: OnceKey, answer: &FsResult) {
        let id = answers_id(self.client, key);
        let answer = Answer { key, result: encode_result(answer) };
        match self.state.get_mut(id) {
            Some(Object::Answers(answers)) => push_latest(&mut answers.0, answer, MAX_ANSWERS),
            _ => self.state.insert(id, Object::Answers(Answers(Vec::from([answer])))),
        }
    }

    fn keep_outcome(&mut self, key: OnceKey, result: Result<u32, FsError>) {
        let id = outcomes_id(self.client, key);
        let outcome = Outcome { key, result };
        match self.state.get_mut(id) {
            Some(Object::Outcomes(outcomes)) => {
                push_latest(&mut outcomes.0, outcome, MAX_OUTCOMES);
            }
            _ => self.state.insert(id, Object::Outcomes(Outcomes(Vec::from([outcome])))),
        }
    }

    /// The group's secret: what it is already, else `offer`.
    pub fn agree_on_key(&mut self, offer: [u8; 32]) -> FsResult {
        if let Some(Object::Secret(secret)) = self.state.get(SECRET_ID) {
            return Ok(FsReply::Key(**secret));
        }
        self.state.insert(SECRET_ID, Object::Secret(Box::new(offer)));
        Ok(FsReply::Key(offer))
    }
}

/// Forgets what `client` was answered.
pub(crate) fn forget_answers(state: &mut State, client: u32) {
    for first in 0..=u8::MAX {
        let mut key = [0; 16];
        key[0] = first;
        state.remove(answers_id(client, OnceKey(key)));
        state.remove(outcomes_id(client, OnceKey(key)));
    }
}

/// Puts `last` behind the others, of which the first goes if there are `most` already.
fn push_latest<T>(latest: &mut Vec<T>, last: T, most: usize) {
    if latest.len() >= most {
        latest.remove(0);
    }
    latest.push(last);
}

/// What became of a write that ended with `result`.
fn outcome(result: &Inner) -> Result<u32, FsError> {
    match result {
        Ok(FsReply::Written { count, .. }) => Ok(*count),
        Err(Refusal::Failed(error)) => Err(*error),
        other => unreachable!("a write has no guard, and answers a count: {other:?}"),
    }
}

/// Whether nothing is left to be asked for again.
fn is_finished(watched: &Watched, result: &Inner) -> bool {
    let wanted = match (&*watched.op, &watched.then) {
        (FsOp::SetAttributes { set, .. }, _) | (_, Some(set)) => set.size,
        _ => None,
    };
    match (wanted, result) {
        (Some(size), Ok(FsReply::Attributes(reached))) => reached.size == size,
        _ => true,
    }
}

/// Whether what `op` makes can be given the attributes `set`: once it is made, it is too late to refuse.
fn expect_settable(op: &FsOp, set: &SetAttributes) -> Result<(), FsError> {
    let beyond = |time| matches!(time, Some(SetTime::At(time)) if !time.is_valid());
    if beyond(set.accessed) || beyond(set.modified) {
        return Err(FsError::Invalid);
    }
    if let Some(size) = set.size {
        match op {
            FsOp::Create { how: CreateMode::Unchecked | CreateMode::Guarded, .. } => {}
            _ => return Err(FsError::Invalid),
        }
        if size > MAX_FILE_SIZE {
            return Err(FsError::FileTooLarge);
        }
    }
    if set.mode.is_some() && matches!(op, FsOp::Symlink { .. }) {
        return Err(FsError::NotSupported);
    }
    Ok(())
}

/// What of `set` the caller may give to what it makes, which is its own already.
fn givable(caller: &Caller, set: &SetAttributes) -> SetAttributes {
    SetAttributes {
        uid: set.uid.filter(|uid| caller.is_root() && *uid != caller.uid),
        gid: set.gid.filter(|gid| caller.is_root() || caller.is_in(*gid)),
        ..*set
    }
}
