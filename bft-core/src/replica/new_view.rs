//! NEW-VIEW: the primary of the next view proves which batches it begins with, and every backup computes them again.
//! [CL02 §4.5]

use super::Replica;
use super::retransmission::MAX_REPAIRED_BYTES;
use super::view_change::Named;
use crate::auth::{Proof, Signature};
use crate::choice::choose;
use crate::io::{Alarm, Destination, Output, Record, Rejection};
use crate::log::NamedBatch;
use crate::messages::{
    BatchBody, Message, NewView, Status, ViewChange, batch_digest, named_digest, null_request,
};
use crate::planted::{Planted, planted};
use crate::service::Service;
use crate::types::{Digest, Peer, ReplicaId, SequenceNumber, Time};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl NewView {
    /// The last sequence number for which it chose a batch.
    pub fn last(&self) -> SequenceNumber {
        self.stable.plus(self.batches.len() as u64)
    }

    /// What it chose for `n`.
    pub fn chosen(&self, n: SequenceNumber) -> Option<Digest> {
        let place = n.0.checked_sub(self.stable.0)?.checked_sub(1)?;
        self.batches.get(usize::try_from(place).ok()?).copied()
    }
}

impl<S: Service> Replica<S> {
    /// Takes the view that is to begin as far as what is held allows. Safe to call at any time.
    pub(super) fn seek_new_view(&mut self, out: &mut Vec<Output>) {
        if self.is_active() || self.alarmed {
            return;
        }
        if self.is_primary() {
            self.announce_new_view(out);
        } else {
            self.check_new_view(out);
        }
    }

    /// The new primary's part: runs the decision again whenever another VIEW-CHANGE or body has come.
    fn announce_new_view(&mut self, out: &mut Vec<Output>) {
        let held = self.view_changes.newest.values();
        let fits = |m: &ViewChange| m.view == self.view && self.is_current(m);
        let grounds: Vec<Named> = held.filter(|(_, m)| fits(m)).cloned().collect();
        let view_changes: Vec<&ViewChange> = grounds.iter().map(|(_, m)| &**m).collect();
        let Some(choice) = choose(self.config.size, self.config.window, &view_changes) else {
            return;
        };
        let mut m = NewView {
            view: self.view,
            view_changes: grounds.iter().map(|(digest, m)| (m.replica, *digest)).collect(),
            stable: choice.stable,
            batches: choice.batches,
            signature: Signature([0; 64]),
        };
        // A3, and the checkpoint itself: what is not here is asked for by STATUS. [CL02 §4.5]
        if m.stable > self.log.low() || !self.holds_chosen(&m) {
            if planted(Planted::SecondNewView) {
                self.authority.sign_new_view(&mut m);
                let new_view = Arc::new(m.clone());
                let after = Some(self.persist(Record::NewView { new_view, grounds }, out));
                self.send(Destination::Replicas, Message::NewView(m), after, out);
            }
            return;
        }
        self.authority.sign_new_view(&mut m);
        let m = Arc::new(m);
        self.begin_view(m.clone(), grounds, out);
        self.send(
            Destination::Replicas,
            Message::NewView((*m).clone()),
            Some(self.last_persist),
            out,
        );
    }

    /// Whether every batch that `m` chose is here; what is not is awaited.
    fn holds_chosen(&mut self, m: &NewView) -> bool {
        let mut holds_all = true;
        let first = self.log.low().max(m.stable).next();
        for n in (first.0..=m.last().0).map(SequenceNumber) {
            let Some(digest) = m.chosen(n).filter(|digest| *digest != null_request()) else {
                continue;
            };
            let Ok(entry) = self.log.entry(n) else { continue };
            let held = entry.batch(digest).cloned();
            entry.awaited = if held.is_some() { None } else { Some(digest) };
            if let Some(batch) = &held {
                // What the last view still lacked of it is wanted no more since that ended.
                self.want_bodies(n, batch);
            }
            let held = self.log.get(n).and_then(|entry| entry.batch(digest));
            holds_all &= held.is_some_and(NamedBatch::is_complete);
        }
        holds_all
    }

    /// A NEW-VIEW.
    ///
    /// Errors: `WrongView`; `Duplicate`; `SignedTwice`, kept as evidence.
    pub(super) fn on_new_view(
        &mut self,
        m: NewView,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        self.could_begin_view(&m)?;
        if self.known_new_view().is_some() {
            self.note_contradiction(self.primary());
            return Err(Rejection::SignedTwice);
        }
        self.view_changes.announced = Some(Arc::new(m));
        self.seek_new_view(out);
        if !self.is_active() && !self.view_changes.missing().is_empty() {
            self.send(Destination::Replicas, Message::Status(self.status()), None, out);
        }
        Ok(())
    }

    /// The NEW-VIEW for the current view, if it is here.
    fn known_new_view(&self) -> Option<&NewView> {
        self.view_changes.begun.as_ref().or(self.view_changes.announced.as_ref()).map(|m| &**m)
    }

    /// Errors: why `m` would change nothing. Another one than is known is worth a look: signed, it proves its maker faulty.
    pub(super) fn could_begin_view(&self, m: &NewView) -> Result<(), Rejection> {
        if m.view != self.view || self.is_primary() {
            return Err(Rejection::WrongView);
        }
        if self.known_new_view() == Some(m) { Err(Rejection::Duplicate) } else { Ok(()) }
    }

    /// Enters the view if the announced NEW-VIEW follows from the VIEW-CHANGEs that it names, and gives it up if it does not.
    fn check_new_view(&mut self, out: &mut Vec<Output>) {
        let Some(m) = self.view_changes.announced.clone() else { return };
        let named = m.view_changes.iter();
        let found = named.map(|(i, digest)| self.view_changes.find(*i, *digest));
        let Some(grounds) = found.collect::<Option<Vec<Named>>>() else { return };
        let view_changes: Vec<&ViewChange> = grounds.iter().map(|(_, m)| &**m).collect();
        let current = |found: &&ViewChange| self.is_current(found);
        if !view_changes.iter().all(current) && !self.is_announced_begun() {
            // Its primary need not have known that one of them has lost its memory: no lie, and it may have begun elsewhere.
            return;
        }
        let fit = |((i, _), found): (&(ReplicaId, Digest), &&ViewChange)| {
            (found.replica, found.view) == (*i, m.view)
        };
        let genuine = m.view_changes.iter().zip(&view_changes).all(fit);
        let choice = choose(self.config.size, self.config.window, &view_changes);
        let follows =
            choice.is_some_and(|choice| (choice.stable, &choice.batches) == (m.stable, &m.batches));
        if genuine && follows {
            self.begin_view(m, grounds, out);
        } else {
            self.view_changes.announced = None;
            self.reject(Peer::Replica(self.primary()), Rejection::WrongNewView, out);
            self.start_view_change(self.view.next(), out);
        }
    }

    /// Whether the sender of `m` has not lost its memory since. (decision 13)
    pub(super) fn is_current(&self, m: &ViewChange) -> bool {
        m.incarnation >= self.agreed_incarnation(m.replica)
    }

    /// The view begins, with the batches that `m` chose.
    fn begin_view(&mut self, m: Arc<NewView>, grounds: Vec<Named>, out: &mut Vec<Output>) {
        if let Some(alarm) = self.lost_commit(&m) {
            return self.raise(alarm, out);
        }
        self.persist(Record::NewView { new_view: m.clone(), grounds: grounds.clone() }, out);
        for (_, view_change) in &grounds {
            self.demote(&view_change.unauthenticated);
        }
        let view = self.view;
        self.view_changes.newest.retain(|_, (_, m)| m.view > view);
        self.view_changes.named.clear();
        self.view_changes.announced = None;
        self.view_changes.active = true;
        self.view_changes.grounds = grounds;
        self.proposed = m.last().max(self.executed);
        self.view_changes.begun = Some(m);
        self.suspicion.begin_view(self.now.tick);
        self.last_ordered = self.now.tick;
        self.place_chosen(out);
        self.requeue_pending();
        if !self.is_primary() {
            self.hand_over_timed(out);
        }
    }

    /// A batch that is committed-local here and that `m` leaves out.
    fn lost_commit(&self, m: &Arc<NewView>) -> Option<Alarm> {
        let first = self.log.low().max(m.stable).next();
        let certified = |n: &SequenceNumber| self.log.get(*n).is_some_and(|entry| entry.certified);
        let committed = self.log.numbers().filter(|n| *n >= first).filter(certified);
        let mut committed = committed.filter_map(|n| Some((n, self.log.committed(n)?.digest)));
        committed.find(|(n, digest)| m.chosen(*n) != Some(*digest)).map(|(n, committed)| {
            let chosen = m.chosen(n);
            Alarm::CommittedLost { view: m.view, n, committed, chosen, new_view: m.clone() }
        })
    }

    /// Pre-prepares the chosen batches that are inside the window and here, and awaits the others. Safe to call at any time.
    pub(super) fn place_chosen(&mut self, out: &mut Vec<Output>) {
        let Some(m) = self.view_changes.begun.clone() else { return };
        let first = self.log.low().max(m.stable).next();
        let last = self.log.high().min(m.last());
        for n in (first.0..=last.0).map(SequenceNumber) {
            let Some(digest) = m.chosen(n) else { continue };
            let Ok(entry) = self.log.entry(n) else { continue };
            if entry.pre_prepare.is_some() {
                continue;
            }
            let batch = match entry.batch(digest) {
                Some(batch) => batch.clone(),
                None if digest == null_request() => NamedBatch::null(),
                None => {
                    entry.awaited = Some(digest);
                    continue;
                }
            };
            entry.awaited = None;
            self.requests.mark_proposed(&batch, n);
            self.accept(n, batch.clone(), true, true);
            self.want_bodies(n, &batch);
            self.advance(n, out);
        }
    }

    /// Awaits every chosen batch that is not pre-prepared.
    pub(super) fn await_chosen(&mut self) {
        let Some(m) = self.view_changes.begun.clone() else { return };
        let first = self.log.low().max(m.stable).next();
        for n in (first.0..=self.log.high().min(m.last()).0).map(SequenceNumber) {
            let Ok(entry) = self.log.entry(n) else { continue };
            if entry.pre_prepare.is_none() {
                entry.awaited = m.chosen(n);
            }
        }
    }

    /// The batches that the new view begins with and that are not here.
    pub(super) fn awaited_batches(&self) -> impl Iterator<Item = Digest> + '_ {
        self.log.numbers().filter_map(|n| self.log.get(n)?.awaited).take(Status::MAX_MISSING)
    }

    /// The place for which this replica awaits the batch with this digest.
    fn awaited_at(&self, digest: Digest) -> Option<SequenceNumber> {
        let awaits = |n: &SequenceNumber| {
            self.log.get(*n).is_some_and(|entry| entry.awaited == Some(digest))
        };
        self.log.numbers().find(awaits)
    }

    /// Errors: `Duplicate`, where this replica awaits no such batch.
    pub(super) fn could_be_awaited(&self, m: &BatchBody) -> Result<(), Rejection> {
        let any = self.awaited_batches().next().is_some();
        let awaited = any && self.awaited_at(named_digest(m.time, &m.batch)).is_some();
        if awaited { Ok(()) } else { Err(Rejection::Duplicate) }
    }

    /// A batch that this replica had asked for by digest.
    ///
    /// Errors: `Duplicate`, where it had not.
    pub(super) fn on_batch(
        &mut self,
        m: BatchBody,
        proofs: &[(Digest, Proof)],
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let digest = batch_digest(m.time, proofs.iter().map(|(digest, _)| *digest));
        let n = self.awaited_at(digest).ok_or(Rejection::Duplicate)?;
        let batch = NamedBatch::new(m.time, self.named_requests(&m.batch, proofs));
        if let Some(entry) = self.log.get_mut(n) {
            entry.awaited = None;
            entry.history.keep(batch.clone());
        }
        if self.is_active() {
            self.accept(n, batch.clone(), true, true);
        }
        self.want_bodies(n, &batch);
        self.advance(n, out);
        self.seek_new_view(out);
        Ok(())
    }

    /// Sends the batches that `from` awaits and this replica holds, as many as one answer should hold.
    pub(super) fn repair_batches(
        &self,
        from: ReplicaId,
        awaited: &[Digest],
        out: &mut Vec<Output>,
    ) {
        let (awaited, mut bytes): (BTreeSet<&Digest>, _) = (awaited.iter().collect(), 0);
        for digest in awaited {
            if bytes > MAX_REPAIRED_BYTES {
                return;
            }
            let held = self.log.batches().find(|batch| batch.digest == *digest);
            if let Some(batch) = held {
                bytes += batch.size();
                let batch =
                    BatchBody { time: batch.time, batch: batch.entries(self.config.inline_bytes) };
                self.send(Destination::Replica(from), Message::Batch(batch), None, out);
            }
        }
    }
}

impl NamedBatch {
    /// A null request. [CL99 §4.4]
    pub fn null() -> Self {
        Self::new(Time(0), Vec::new())
    }
}
