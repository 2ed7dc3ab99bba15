//! Operations with the attributes around them, done once: in the model, in long random runs, and case by case.

use super::fixture::*;
use super::model::{Model, Moment};
use super::random::Maker;
use crate::object::{MAX_ANSWERS, MAX_OUTCOMES};
use crate::op::*;
use crate::{FileSystem, FileSystemConfig, cost, fsck};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use bft_core::service::Service;
use bft_core::tree::ObjectId;
use bft_core::types::ClientId;

/// What calls were answered, the oldest first.
#[derive(Default)]
pub struct Answered {
    calls: Vec<(OnceKey, FsResult)>,
    writes: Vec<(OnceKey, Result<u32, FsError>)>,
}

/// Keeps `last`, and of all whose keys begin like `key` at most `most`.
fn keep<T>(latest: &mut Vec<(OnceKey, T)>, key: OnceKey, last: T, most: usize) {
    let alike = |(other, _): &(OnceKey, T)| other.0[0] == key.0[0];
    if latest.iter().filter(|one| alike(one)).count() == most {
        let oldest = latest.iter().position(alike).unwrap();
        let _ = latest.remove(oldest);
    }
    latest.push((key, last));
}

fn known<T: Clone>(latest: &[(OnceKey, T)], key: Option<OnceKey>) -> Option<T> {
    latest.iter().find(|(other, _)| Some(*other) == key).map(|(_, one)| one.clone())
}

impl Model {
    fn answered_before(&self, watched: &Watched) -> Option<FsResult> {
        if !matches!(*watched.op, FsOp::Write { .. }) {
            return known(&self.answered.calls, watched.once);
        }
        let result = known(&self.answered.writes, watched.once)?;
        let now = |inode: &Inode| Change { before: None, after: self.attributes(inode.0).ok() };
        let result = result.map(|count| Plain::new(FsReply::WrittenBefore { count }));
        let result = result.map_err(Refusal::Failed);
        let report = Report { watched: watched.watch.iter().map(now).collect(), result };
        Some(Ok(FsReply::Watched(Box::new(report))))
    }

    /// What `watched` answers.
    pub fn watched(&mut self, at: &Moment<'_>, watched: &Watched) -> FsResult {
        if let Some(answer) = self.answered_before(watched) {
            return answer;
        }
        let changes = !watched.op.is_read_only();
        let look = |model: &Self| -> Vec<_> {
            watched.watch.iter().map(|inode| model.attributes(inode.0).ok()).collect()
        };
        let before = look(self);
        let result = self.inner(at, watched);
        let around = before.into_iter().zip(look(self));
        let around =
            around.map(|(before, after)| Change { before: before.filter(|_| changes), after });
        let written = match (&*watched.op, &result) {
            (FsOp::Write { .. }, Ok(FsReply::Written { count, .. })) => Some(Ok(*count)),
            (FsOp::Write { .. }, Err(Refusal::Failed(error))) => Some(Err(*error)),
            _ => None,
        };
        let report = Report { watched: around.collect(), result: result.map(Plain::new) };
        let answer = Ok(FsReply::Watched(Box::new(report)));
        match (watched.once, written) {
            (Some(key), Some(outcome)) => {
                keep(&mut self.answered.writes, key, outcome, MAX_OUTCOMES)
            }
            (Some(key), None) => keep(&mut self.answered.calls, key, answer.clone(), MAX_ANSWERS),
            (None, _) => {}
        }
        answer
    }

    fn inner(&mut self, at: &Moment<'_>, watched: &Watched) -> Result<FsReply, Refusal> {
        if let (Some(guard), FsOp::SetAttributes { inode, .. }) = (watched.guard, &*watched.op) {
            let now = self.attributes(inode.0).map_err(Refusal::Failed)?;
            if now.changed != guard {
                return Err(Refusal::OutOfSync);
            }
        }
        let made = match watched.then {
            None => self.run(at, &watched.op),
            Some(then) => self.make_with(at, &watched.op, then),
        };
        made.map_err(Refusal::Failed)
    }

    fn make_with(&mut self, at: &Moment<'_>, op: &FsOp, then: SetAttributes) -> FsResult {
        let wrong = |time| matches!(time, Some(SetTime::At(t)) if t.nanoseconds > 999_999_999);
        let sized =
            matches!(op, FsOp::Create { how: CreateMode::Unchecked | CreateMode::Guarded, .. });
        if wrong(then.accessed) || wrong(then.modified) || then.size.is_some() && !sized {
            return Err(FsError::Invalid);
        }
        if then.mode.is_some() && matches!(op, FsOp::Symlink { .. }) {
            return Err(FsError::NotSupported);
        }
        let (who, mut then) = (at.who, then);
        if who.uid != 0 || then.uid == Some(0) {
            then.uid = None;
        }
        let member = |gid: &u32| who.uid == 0 || *gid == who.gid || who.groups.contains(gid);
        then.gid = then.gid.filter(member);
        let next = self.next();
        let FsReply::Attributes(made) = self.run(at, op)? else { return Err(FsError::Io) };
        let set = match self.next() > next {
            true => then,
            false => SetAttributes { size: then.size, ..Default::default() },
        };
        self.run(at, &FsOp::SetAttributes { inode: made.inode, set })
    }
}

impl Maker {
    /// `op` with the attributes around it, and whatever else may go with it.
    pub fn watched(&mut self, model: &Model, op: FsOp) -> FsOp {
        use FsOp::{Create, MakeDirectory, MakeNode, Symlink};
        let mut watched = Watched::new(op);
        watched.watch = (0..self.rng.next(3)).map(|_| self.inode(model)).collect();
        if let (FsOp::SetAttributes { inode, .. }, 0 | 1) = (&*watched.op, self.rng.next(3)) {
            let late = self.rng.next(3) == 0;
            let now = model.attributes(inode.0).map_or(Timestamp::default(), |a| a.changed);
            watched.guard = Some(if late { Timestamp::default() } else { now });
        }
        let makes = matches!(
            *watched.op,
            Create { .. } | MakeDirectory { .. } | MakeNode { .. } | Symlink { .. }
        );
        if makes && self.rng.next(2) == 0 {
            watched.then = Some(self.changes());
        }
        if watched.op.changes_files() && self.rng.next(2) == 0 {
            // So few that answers are repeated, and lost to others.
            let few = if matches!(*watched.op, FsOp::Write { .. }) { 150 } else { 30 };
            let mut key = [0; 16];
            key[0] = self.rng.next(2) as u8;
            key[1] = self.rng.next(few) as u8;
            watched.once = Some(OnceKey(key));
        }
        FsOp::Watched(Box::new(watched))
    }
}

fn watch(op: FsOp, watch: &[Inode]) -> Watched {
    Watched { watch: watch.to_vec(), ..Watched::new(op) }
}

impl Bench {
    /// The report about `watched`.
    #[track_caller]
    fn report(&mut self, who: &Caller, watched: Watched) -> Report {
        match self.run(who, FsOp::Watched(Box::new(watched))) {
            Ok(FsReply::Watched(report)) => *report,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_attributes_around_an_operation_are_told_also_where_it_fails() {
    let mut b = Bench::new();
    let before = b.attributes(ROOT);
    let made = b.report(&root(), watch(mkdir(ROOT, "d", 0o700), &[ROOT]));
    let after = b.attributes(ROOT);
    assert_eq!(made.watched, [Change { before: Some(before), after: Some(after) }]);
    assert_eq!((before.links, after.links), (2, 3));
    let again = b.report(&root(), watch(mkdir(ROOT, "d", 0o700), &[ROOT, Inode(99)]));
    assert_eq!(again.result, Err(Refusal::Failed(FsError::Exists)));
    let nowhere = Change { before: None, after: None };
    assert_eq!(again.watched, [Change { before: Some(after), after: Some(after) }, nowhere]);
}

#[test]
fn a_query_watches_too_and_changes_nothing() {
    let mut b = Bench::new();
    let root_now = b.attributes(ROOT);
    let found = b.report(&root(), watch(lookup(ROOT, "none"), &[ROOT]));
    assert_eq!(found.result, Err(Refusal::Failed(FsError::NotFound)));
    assert_eq!(found.watched, [Change { before: None, after: Some(root_now) }]);
}

#[test]
fn a_guard_that_is_late_stops_the_change() {
    let mut b = Bench::new();
    let file = b.file(&root(), ROOT, "f", 0o644);
    let seen = b.attributes(file).changed;
    let guarded = |mode| Watched { guard: Some(seen), ..watch(chmod(file, mode), &[file]) };
    assert!(b.report(&root(), guarded(0o600)).result.is_ok());
    assert_eq!(b.report(&root(), guarded(0o666)).result, Err(Refusal::OutOfSync));
    assert_eq!(b.attributes(file).mode, 0o600);
}

#[test]
fn what_is_made_has_its_attributes_from_the_start_or_is_not_made() {
    let mut b = Bench::new();
    let time = Timestamp { seconds: 77, nanoseconds: 5 };
    let set = SetAttributes {
        gid: Some(7),
        size: Some(9),
        modified: Some(SetTime::At(time)),
        ..Default::default()
    };
    let with =
        |name, then| Watched { then: Some(then), ..watch(create(ROOT, name, 0o640), &[ROOT]) };
    let who = caller(5, 5, &[7]);
    let Ok(made) = b.report(&who, with("f", set)).result else { panic!() };
    let FsReply::Attributes(made) = made.into_inner() else { panic!() };
    assert_eq!((made.uid, made.gid, made.mode, made.size), (5, 7, 0o640, 9));
    assert_eq!(made.modified, time);
    let nanoseconds = 1_000_000_000;
    let impossible = Some(SetTime::At(Timestamp { nanoseconds, ..time }));
    let refused = b.report(&who, with("g", SetAttributes { modified: impossible, ..set })).result;
    assert_eq!(refused, Err(Refusal::Failed(FsError::Invalid)));
    b.fails(&who, lookup(ROOT, "g"), FsError::NotFound);
}

#[test]
fn an_owner_and_a_group_that_the_caller_may_not_give_are_not_set() {
    let mut b = Bench::new();
    let owners = |b: &mut Bench, who: &Caller, parent, name: &str, (uid, gid)| {
        let then = Some(SetAttributes { uid: Some(uid), gid: Some(gid), ..Default::default() });
        let how = CreateMode::Unchecked;
        let op = FsOp::Create { parent, name: name.into(), mode: 0o644, how };
        let made = b.report(who, Watched { then, ..Watched::new(op) }).result;
        let Ok(FsReply::Attributes(made)) = made.map(Plain::into_inner) else { panic!() };
        (made.uid, made.gid)
    };
    let grouped = b.directory(&root(), ROOT, "grouped", 0o777);
    b.get(&root(), chown(grouped, None, Some(50)));
    b.get(&root(), chmod(grouped, 0o2777));
    let who = caller(5, 5, &[7]);
    // The group of the directory, in which the caller is not.
    assert_eq!(owners(&mut b, &who, grouped, "f", (5, 50)), (5, 50));
    assert_eq!(owners(&mut b, &who, ROOT, "f", (6, 7)), (5, 7));
    // It is there, and stays as it is.
    assert_eq!(owners(&mut b, &who, ROOT, "f", (5, 50)), (5, 7));
    assert_eq!(owners(&mut b, &root(), ROOT, "of root", (6, 50)), (6, 50));
    let gids = vec![(100, 199)];
    let export = Export { subtree: ROOT, read_only: false, root_squash: true, uids: vec![], gids };
    b.done(&root(), FsOp::SetExport { client: 4, export: Some(export) });
    b.client = 4;
    assert_eq!(owners(&mut b, &root(), ROOT, "squashed", (0, 0)), (NOBODY, NOBODY));
    assert_eq!(owners(&mut b, &who, ROOT, "elsewhere", (5, 5)), (5, NOBODY));
}

#[test]
fn what_is_made_for_another_user_is_not_made_where_there_is_no_room_for_the_account() {
    let mut b = Bench::new();
    let file = cost::INODE_COST + cost::entry(b"f");
    let no_space = Err(Refusal::Failed(FsError::NoSpace));
    // Its maker has an account.
    for (uid, room, made) in [
        (777, file + cost::ACCOUNT_COST - 1, no_space),
        (777, file + cost::ACCOUNT_COST, Ok(())),
        (0, file, Ok(())),
    ] {
        let memory_budget = EMPTY + room;
        b.fs = FileSystem::new(FileSystemConfig { memory_budget, ..b.fs.config().clone() });
        let then = Some(SetAttributes { uid: Some(uid), ..Default::default() });
        let watched = Watched { then, ..Watched::new(create(ROOT, "f", 0o644)) };
        assert_eq!(b.report(&root(), watched).result.map(|_| ()), made);
        if made.is_ok() {
            b.done(&root(), unlink(ROOT, "f"));
        }
    }
    assert_eq!(b.used(), EMPTY);
}

#[test]
fn what_was_done_is_not_done_again_but_answered_again() {
    let mut b = Bench::new();
    b.file(&root(), ROOT, "f", 0o644);
    let once =
        |key| Watched { once: Some(OnceKey([key; 16])), ..watch(unlink(ROOT, "f"), &[ROOT]) };
    let first = b.report(&root(), once(1));
    assert!(first.result.is_ok());
    b.file(&root(), ROOT, "f", 0o644);
    assert_eq!(b.report(&root(), once(1)), first, "the new file stays");
    assert!(b.run(&root(), lookup(ROOT, "f")).is_ok());
    // The same call of another client is another call.
    b.client = 3;
    assert!(b.report(&root(), once(1)).result.is_ok());
    let refused = b.report(&root(), once(2));
    assert_eq!(refused.result, Err(Refusal::Failed(FsError::NotFound)));
    b.file(&root(), ROOT, "f", 0o644);
    assert_eq!(b.report(&root(), once(2)), refused, "a failure is answered again too");
}

fn write_once(file: Inode, key: [u8; 2], data: &[u8]) -> Watched {
    let mut once = [7; 16];
    once[..2].copy_from_slice(&key);
    Watched { once: Some(OnceKey(once)), ..watch(write(file, 0, data), &[file]) }
}

#[test]
fn a_write_that_is_asked_for_again_does_not_undo_a_later_one() {
    let mut b = Bench::new();
    let file = b.file(&root(), ROOT, "f", 0o644);
    let first = write_once(file, [1, 1], b"one");
    b.report(&root(), first.clone());
    b.report(&root(), write_once(file, [1, 2], b"TWO!"));
    let now = b.attributes(file);
    let again = b.report(&root(), first.clone());
    assert_eq!(again.result.map(Plain::into_inner), Ok(FsReply::WrittenBefore { count: 3 }));
    assert_eq!(again.watched, [Change { before: None, after: Some(now) }]);
    assert_eq!(b.contents(file, 0, 9), b"TWO!");
    assert_eq!(b.attributes(file), now, "nor are its times moved");
    // Nor is it done to what is gone.
    b.done(&root(), unlink(ROOT, "f"));
    let gone = b.report(&root(), first);
    assert_eq!(gone.result.map(Plain::into_inner), Ok(FsReply::WrittenBefore { count: 3 }));
    assert_eq!(gone.watched, [Change { before: None, after: None }]);
}

#[test]
fn a_write_that_failed_fails_again() {
    let mut b = Bench::new();
    let file = b.file(&root(), ROOT, "f", 0o600);
    let refused = b.report(&user(5), write_once(file, [1, 1], b"no"));
    assert_eq!(refused.result, Err(Refusal::Failed(FsError::AccessDenied)));
    b.run(&root(), chmod(file, 0o666)).unwrap();
    let again = b.report(&user(5), write_once(file, [1, 1], b"no"));
    assert_eq!(again.result, refused.result);
    assert_eq!(b.attributes(file).size, 0);
}

#[test]
fn a_flood_of_writes_pushes_out_the_oldest_of_them_and_nothing_rarer() {
    let mut b = Bench::new();
    let file = b.file(&root(), ROOT, "f", 0o644);
    b.file(&root(), ROOT, "gone", 0o644);
    let mut remove = watch(unlink(ROOT, "gone"), &[ROOT]);
    remove.once = write_once(file, [1, 0], b"").once;
    let removed = b.report(&root(), remove.clone());
    let objects = b.state.len();
    for n in 0..=MAX_OUTCOMES as u8 {
        b.report(&root(), write_once(file, [1, n], &[n]));
    }
    assert_eq!(b.state.len(), objects + 2, "the data, and one object for all outcomes");
    assert_eq!(b.report(&root(), remove), removed);
    b.report(&root(), write_once(file, [1, 1], &[1]));
    assert_eq!(b.contents(file, 0, 9), [MAX_OUTCOMES as u8], "still known");
    b.report(&root(), write_once(file, [1, 0], &[0]));
    assert_eq!(b.contents(file, 0, 9), [0], "forgotten, and done again");
}

#[test]
fn who_gets_the_state_by_transfer_answers_again_too() {
    let mut b = Bench::new();
    let file = b.file(&root(), ROOT, "f", 0o644);
    let made = Watched { once: Some(OnceKey([3; 16])), ..watch(create(ROOT, "g", 0o600), &[ROOT]) };
    b.report(&root(), made.clone());
    b.report(&root(), write_once(file, [1, 1], b"one"));
    b.report(&root(), write_once(file, [1, 2], b"two"));
    // Objects travel as their bytes.
    let first = ObjectId::new(0, 0, 0);
    let last = ObjectId::new(u8::MAX, ObjectId::MAX_MAJOR, u64::MAX);
    let mut other = Bench::new();
    other.n = b.n;
    for (id, object) in b.state.range(first, last) {
        let bytes = borsh::to_vec(object).unwrap();
        other.state.insert(id, borsh::from_slice(&bytes).unwrap());
    }
    for again in [made, write_once(file, [1, 1], b"one")] {
        assert_eq!(other.report(&root(), again.clone()), b.report(&root(), again));
        assert_eq!(other.contents(file, 0, 9), b"two");
    }
}

#[test]
fn answers_are_kept_in_bounded_memory_and_the_oldest_goes_first() {
    let mut b = Bench::new();
    let nth = |n: u8| {
        let key = OnceKey([9, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        Watched { once: Some(key), ..watch(unlink(ROOT, "f"), &[]) }
    };
    for n in 0..=MAX_ANSWERS as u8 {
        b.report(&root(), nth(n));
    }
    let objects = b.state.len();
    b.file(&root(), ROOT, "f", 0o644);
    assert!(b.report(&root(), nth(1)).result.is_err(), "still known");
    assert!(b.report(&root(), nth(0)).result.is_ok(), "forgotten, and done again");
    assert_eq!(b.state.len(), objects);
}

#[test]
fn a_client_that_is_dismissed_leaves_no_answers() {
    let mut b = Bench::new();
    let empty = b.state.len();
    b.client = 3;
    for key in 0..20 {
        let once = Some(OnceKey([key; 16]));
        b.report(&root(), Watched { once, ..watch(unlink(ROOT, "f"), &[]) });
    }
    b.report(&root(), write_once(ROOT, [1, 1], b"not to a directory"));
    assert_eq!(b.state.len(), empty + 21);
    b.fs.dismiss(&b.context(), &mut b.state, ClientId(3));
    assert_eq!(b.state.len(), empty);
}

#[test]
fn a_step_towards_a_size_is_not_the_answer() {
    let mut b = Bench::new();
    let file = b.file(&root(), ROOT, "f", 0o644);
    let chunk = crate::object::CHUNK;
    for index in 0..=crate::MAX_CHUNKS as u64 {
        b.check = index == 0;
        b.run(&root(), write(file, index * chunk, b"x")).unwrap();
    }
    b.check = true;
    let cut = Watched { once: Some(OnceKey([1; 16])), ..watch(truncate(file, 0), &[file]) };
    let steps: Vec<_> = (0..3).map(|_| b.report(&root(), cut.clone())).collect();
    let reached = |report: &Report| report.watched[0].after.unwrap().size;
    assert!(reached(&steps[0]) > 0);
    assert_eq!((reached(&steps[1]), &steps[1]), (0, &steps[2]));
}

#[test]
fn what_contradicts_itself_is_invalid() {
    let mut b = Bench::new();
    let stat = || watch(FsOp::GetAttributes { inode: ROOT }, &[]);
    let key = Some(OnceKey([0; 16]));
    let wrong = [
        Watched { watch: vec![ROOT; MAX_WATCHED + 1], ..stat() },
        Watched { guard: Some(Timestamp::default()), ..stat() },
        Watched { then: Some(SetAttributes::default()), ..stat() },
        Watched { once: key, ..stat() },
        Watched { once: key, ..watch(FsOp::Sync { inode: ROOT }, &[]) },
    ];
    for watched in wrong {
        b.fails(&root(), FsOp::Watched(Box::new(watched)), FsError::Invalid);
    }
}

#[test]
fn permissions_are_what_access_grants_bit_by_bit() {
    let mut b = Bench::new();
    let file = b.file(&user(5), ROOT, "f", 0o640);
    for who in [root(), user(5), caller(6, 5, &[]), user(7)] {
        let granted = [4, 2, 1]
            .into_iter()
            .filter(|mask| b.run(&who, FsOp::Access { inode: file, mask: *mask }).is_ok());
        let granted = granted.fold(0, |all, bit| all | bit);
        assert_eq!(b.run(&who, FsOp::Permissions { inode: file }), Ok(FsReply::Granted(granted)));
    }
}

#[test]
fn the_first_offer_is_the_secret_of_the_group() {
    let mut b = Bench::new();
    let offer = |byte| FsOp::AgreeOnKey { offer: [byte; 32] };
    assert_eq!(b.run(&user(5), offer(1)), Ok(FsReply::Key([1; 32])));
    b.client = 2;
    assert_eq!(b.run(&user(6), offer(2)), Ok(FsReply::Key([1; 32])));
}

#[test]
fn an_export_binds_what_is_watched() {
    let mut b = Bench::new();
    let top = b.directory(&root(), ROOT, "top", 0o777);
    let outside = b.file(&root(), ROOT, "secret", 0o600);
    b.run(&root(), FsOp::MakeSubtree { inode: top }).unwrap();
    let export =
        Export { subtree: top, read_only: true, root_squash: true, uids: vec![], gids: Vec::new() };
    b.done(&root(), FsOp::SetExport { client: 4, export: Some(export) });
    b.client = 4;
    let around = watch(FsOp::GetAttributes { inode: ROOT }, &[outside]);
    b.fails(&user(5), FsOp::Watched(Box::new(around)), FsError::Stale);
    let within = b.report(&user(5), watch(FsOp::Permissions { inode: ROOT }, &[ROOT]));
    assert_eq!(within.watched[0].after.unwrap().inode, top);
    assert_eq!(within.result.map(Plain::into_inner), Ok(FsReply::Granted(5)), "read-only");
    let change = watch(mkdir(ROOT, "d", 0o700), &[ROOT]);
    b.fails(&user(5), FsOp::Watched(Box::new(change)), FsError::ReadOnly);
}

#[test]
fn fsck_finds_answers_that_cannot_be_given() {
    use crate::object::{Answer, Answers, Object, Outcome, Outcomes, answers_id, outcomes_id};
    let answer = |key| Answer { key: OnceKey([key; 16]), result: bytes::Bytes::from_static(b"no") };
    let mut b = Bench::new();
    b.state.insert(answers_id(0, OnceKey([1; 16])), Object::Answers(Answers(vec![answer(1)])));
    assert!(fsck::check(&b.state).is_err());
    let outcome = |key| Outcome { key: OnceKey([key; 16]), result: Ok(1) };
    for wrong in [vec![], vec![outcome(2)], vec![outcome(1); 2]] {
        let mut b = Bench::new();
        b.state.insert(outcomes_id(0, OnceKey([1; 16])), Object::Outcomes(Outcomes(wrong)));
        assert!(fsck::check(&b.state).is_err());
    }
}
