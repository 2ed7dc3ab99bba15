//! View changes: how a replica leaves a view, and how the next one is agreed on. [CL99 §4.4, CL02 §4.5]
//!
//! VIEW-CHANGEs are signed, so anyone may pass them on and nobody has to acknowledge them; PREPAREs are not, so P is a
//! claim and the P/Q rules decide: `choice.rs`. A replica that has left a view votes in it no more, but goes on executing
//! what others prove decided. (decisions 1 and 4)

use super::Replica;
use crate::auth::{Signature, view_change_digest};
use crate::io::{Destination, Output, Record, Rejection};
use crate::messages::{Message, NewView, Status, ViewChange};
use crate::planted::{Planted, planted};
use crate::service::Service;
use crate::types::{ClientId, Digest, ReplicaId, View};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A VIEW-CHANGE and the digest that names it.
pub(super) type Named = (Digest, Arc<ViewChange>);

/// What is known of the view that is to begin, or has begun.
#[derive(Clone, Debug)]
pub(super) struct ViewChanges {
    /// Whether the current view has begun here.
    pub active: bool,
    /// The VIEW-CHANGE for the highest view that each replica has sent: the first, where it sent several.
    pub newest: BTreeMap<ReplicaId, Named>,
    /// Others, that the announced NEW-VIEW names.
    pub named: BTreeMap<Digest, Arc<ViewChange>>,
    /// The NEW-VIEW for the current view, while VIEW-CHANGEs that it names are missing.
    pub announced: Option<Arc<NewView>>,
    /// The NEW-VIEW by which the current view began; none for view 0.
    pub begun: Option<Arc<NewView>>,
    /// The VIEW-CHANGEs that it names, for those who lag.
    pub grounds: Vec<Named>,
}

impl ViewChanges {
    pub fn new(active: bool) -> Self {
        Self {
            active,
            newest: BTreeMap::new(),
            named: BTreeMap::new(),
            announced: None,
            begun: None,
            grounds: Vec::new(),
        }
    }

    /// A view ends: what belongs to it goes.
    fn end_view(&mut self, next: View) {
        self.active = false;
        self.newest.retain(|_, (_, m)| m.view >= next);
        self.named.clear();
        self.announced = None;
        self.begun = None;
        self.grounds.clear();
    }

    /// The VIEW-CHANGE of `replica` with this digest.
    pub fn find(&self, replica: ReplicaId, digest: Digest) -> Option<Named> {
        let newest = self.newest.get(&replica).filter(|(known, _)| *known == digest).cloned();
        newest.or_else(|| self.named.get(&digest).map(|m| (digest, m.clone())))
    }

    /// The VIEW-CHANGEs that the announced NEW-VIEW names and that are not here.
    pub fn missing(&self) -> Vec<Digest> {
        let named = self.announced.iter().flat_map(|m| &m.view_changes);
        named.filter(|(i, digest)| self.find(*i, *digest).is_none()).map(|(_, d)| *d).collect()
    }
}

impl<S: Service> Replica<S> {
    /// Whether the current view has begun here: only then does this replica vote.
    pub(super) fn is_active(&self) -> bool {
        self.view_changes.active
    }

    /// Leaves the current view for `view`, for good.
    ///
    /// Requires: `view` is later.
    /// Effects: undoes the tentative batch, keeps P and Q, and sends VIEW-CHANGE once the promise is durable. Requests that
    /// were under way wait again.
    pub(super) fn start_view_change(&mut self, view: View, out: &mut Vec<Output>) {
        assert!(view > self.view, "views only ascend");
        let unauthenticated = self.unauthenticated_clients();
        let under_way = self.log.numbers().filter(|n| *n > self.executed);
        let accepted = under_way.filter_map(|n| self.log.get(n)?.pre_prepare.as_ref());
        let dropped: Vec<_> = accepted.map(|accepted| accepted.batch.clone()).collect();
        self.log.end_view();
        self.view = view;
        self.view_changes.end_view(view);
        self.suspicion.end_view(self.config.view_timeout, self.config.view_timeout_max);
        self.requests.end_view(self.log.wanted(self.config.size.weak()));
        if self.tentative.is_some() {
            self.read_gate = self.read_gate.max(self.executed.next());
        }
        let undone = self.roll_back();
        for batch in undone.into_iter().chain(dropped) {
            self.wait_again(batch, out);
        }
        let after = self.persist(Record::View(view), out);
        let own = self.own_view_change(unauthenticated);
        let message = Message::ViewChange((*own.1).clone());
        self.view_changes.newest.insert(self.config.me, own);
        self.send(Destination::Replicas, message, Some(after), out);
        self.set_status_timer(self.config.status_interval, out);
        self.seek_new_view(out);
    }

    /// This replica's VIEW-CHANGE for the current view.
    pub(super) fn own_view_change(&self, unauthenticated: Vec<ClientId>) -> Named {
        let entries = || self.log.numbers().filter_map(|n| Some((n, self.log.get(n)?)));
        let prepared = entries().filter_map(|(n, entry)| entry.history.prepared_claim(n));
        let prepared = prepared.filter(|_| !planted(Planted::PreparedDropped));
        let pre_prepared = entries().flat_map(|(n, entry)| entry.history.pre_prepared_claims(n));
        let mut m = ViewChange {
            view: self.view,
            stable: self.log.low(),
            certificate: self.checkpoints.stable_certificate().to_vec(),
            prepared: prepared.collect(),
            pre_prepared: pre_prepared.collect(),
            unauthenticated,
            incarnation: self.incarnation,
            replica: self.config.me,
            signature: Signature([0; 64]),
        };
        let digest = self.authority.sign_view_change(&mut m);
        (digest, Arc::new(m))
    }

    /// The clients whose requests kept this replica from voting, at most [`ViewChange::MAX_NAMED`]. (decision 6)
    fn unauthenticated_clients(&self) -> Vec<ClientId> {
        let entries = self.log.numbers().filter_map(|n| self.log.get(n));
        let held = entries.filter(|entry| entry.voted.is_none());
        let named = held.filter_map(|entry| entry.pre_prepare.as_ref());
        let named = named.flat_map(|accepted| accepted.batch.unauthenticated());
        let clients: BTreeSet<_> = named.collect();
        clients.into_iter().take(ViewChange::MAX_NAMED).collect()
    }

    /// A VIEW-CHANGE, from its sender or from whoever holds it. `digest` names it.
    ///
    /// Errors: `WrongView`, for one that has been overtaken; `OldIncarnation`; `Duplicate`; `SignedTwice`.
    pub(super) fn on_view_change(
        &mut self,
        digest: Digest,
        m: ViewChange,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        self.could_change_view(&m)?;
        let (replica, m) = (m.replica, Arc::new(m));
        let awaited = self.view_changes.missing().contains(&digest);
        if !self.is_current(&m) {
            if !awaited || !self.is_announced_begun() {
                return Err(Rejection::OldIncarnation);
            }
            self.view_changes.named.insert(digest, m);
            self.seek_new_view(out);
            return Ok(());
        }
        self.forget_former_view_changes();
        let is_first = !self.view_changes.newest.contains_key(&replica);
        if is_first || !awaited && !planted(Planted::ViewChangesUnbounded) {
            self.view_changes.newest.insert(replica, (digest, m.clone()));
        } else {
            self.view_changes.named.insert(digest, m.clone());
        }
        if !m.certificate.is_empty() {
            // Proved already, and mostly known.
            let _ = self.on_stable_certificate(None, m.certificate.as_slice().into(), out);
        }
        self.join(out);
        self.seek_new_view(out);
        Ok(())
    }

    /// Errors: why `m` would change nothing, whoever signed it.
    pub(super) fn could_change_view(&self, m: &ViewChange) -> Result<(), Rejection> {
        if m.view < self.view || m.view == self.view && self.is_active() {
            return Err(Rejection::WrongView);
        }
        if self.view_changes.announced.is_some() {
            let digest = view_change_digest(self.authority.group(), m);
            if self.view_changes.missing().contains(&digest) {
                return Ok(());
            }
        }
        if !self.is_current(m) {
            return Err(Rejection::OldIncarnation);
        }
        let known = self.view_changes.newest.get(&m.replica).map(|(_, known)| known);
        match known.filter(|known| self.is_current(known)) {
            Some(known) if **known == *m => Err(Rejection::Duplicate),
            _ if planted(Planted::ViewChangesUnbounded) => Ok(()),
            Some(known) if known.view > m.view => Err(Rejection::WrongView),
            // No misdeed: one that restarts says again what its records say by then.
            Some(known) if known.view == m.view => Err(Rejection::SignedTwice),
            _ => Ok(()),
        }
    }

    /// The NEW-VIEW by which the current view has begun here, by digest; zeros for view 0, which has none.
    pub(super) fn begun_by(&self) -> Digest {
        let begun = self.view_changes.begun.as_ref();
        begun.map_or(Digest([0; 32]), |m| self.authority.new_view_digest(m))
    }

    /// Whether 2f+1 replicas say that the current view has begun at theirs, and by the NEW-VIEW that is announced here.
    ///
    /// Then that NEW-VIEW may hold a VIEW-CHANGE that its sender has forgotten since. f+1 correct replicas entered the view by
    /// it before they executed RECOVER, so nothing that needs the new incarnation's vote has committed in a lower one: that
    /// would take f+1 other correct replicas, and there are only 2f+1. Which NEW-VIEW matters: a faulty primary may sign
    /// another, founded on the forgotten VIEW-CHANGE, for whoever is late.
    pub(super) fn is_announced_begun(&self) -> bool {
        let Some(m) = &self.view_changes.announced else { return false };
        let announced = (self.view, self.authority.new_view_digest(m));
        let begun = self.repairs.iter().filter(|r| r.begun == Some(announced));
        begun.count() >= self.config.size.quorum()
    }

    /// What a replica promised before it lost its memory binds it no more, and must not stand in the way of what it says now.
    pub(super) fn forget_former_view_changes(&mut self) {
        let mut newest = core::mem::take(&mut self.view_changes.newest);
        newest.retain(|_, (_, m)| self.is_current(m));
        self.view_changes.newest = newest;
    }

    /// Follows f+1 others, of whom one is correct, to the view that at least one correct replica wants; and follows the
    /// primary itself where it gives up. [CL99 §4.5.2]
    fn join(&mut self, out: &mut Vec<Output>) {
        let newest = &self.view_changes.newest;
        let wanted = newest.iter().filter(|(i, _)| **i != self.config.me);
        let mut wanted: Vec<_> = wanted.map(|(_, (_, m))| m.view).collect();
        wanted.retain(|view| *view > self.view);
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        let abdicates = newest.get(&self.primary()).is_some_and(|(_, m)| m.view > self.view);
        match wanted.get(self.config.size.f()) {
            Some(view) => self.start_view_change(*view, out),
            None if abdicates => self.start_view_change(self.view.next(), out),
            None => self.count_suspects(out),
        }
    }

    /// Whether a quorum, this replica included, wants the current view or a later one: only then does its time run.
    pub(super) fn is_wanted(&self) -> bool {
        self.view_changes.newest.len() >= self.config.size.quorum()
    }

    /// Sends to `from` what it needs to come to this replica's view.
    pub(super) fn repair_view(&self, from: ReplicaId, m: &Status, out: &mut Vec<Output>) {
        let to = Destination::Replica(from);
        let same = m.view == self.view;
        if m.view > self.view || same && m.begun.is_some() {
            return;
        }
        // The promise may still be on its way to the disk.
        let after = Some(self.last_persist);
        let held = &self.view_changes;
        let all = held.grounds.iter().chain(held.newest.values());
        for (digest, view_change) in all {
            let lacks = !same || !m.view_changes.contains(&view_change.replica);
            let own = view_change.replica == self.config.me;
            let relayed = same || self.is_active() || own;
            if lacks && relayed || m.missing_view_changes.contains(digest) {
                self.send(to, Message::ViewChange((**view_change).clone()), after, out);
            }
        }
        if let Some(new_view) = &held.begun {
            self.send(to, Message::NewView((**new_view).clone()), after, out);
        }
    }

    /// While the view has not begun: tells those who may not know that this replica wants it.
    pub(super) fn repeat_view_change(&self, out: &mut Vec<Output>) {
        let Some((_, own)) = self.view_changes.newest.get(&self.config.me) else { return };
        for i in self.others().filter(|i| !self.view_changes.newest.contains_key(i)) {
            let message = Message::ViewChange((**own).clone());
            self.send(Destination::Replica(i), message, Some(self.last_persist), out);
        }
    }
}
