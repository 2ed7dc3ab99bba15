//! The three phases of the normal case: pre-prepared, prepared, committed-local. [CL99 §4.2]

use super::Replica;
use crate::auth::Proof;
use crate::io::{Alarm, Destination, Output, Record, Rejection, Timer};
use crate::log::{Entry, NamedBatch, NamedRequest, PrePrepared};
use crate::messages::{BatchEntry, Commit, Message, PrePrepare, Prepare, Request, batch_digest};
use crate::planted::{Planted, planted};
use crate::service::Service;
use crate::sessions::Standing;
use crate::types::{Digest, ReplicaId, SequenceNumber};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// What a PRE-PREPARE carries inline, so that it always fits a frame. Units: bytes.
const MAX_INLINE: usize = 512 * 1024;

/// What is not worth another batch: with fewer requests, its votes cost more than they do.
const LEAST_SHARE: usize = 32;

impl<S: Service> Replica<S> {
    /// The primary's part: orders whatever waits, as long as the window and the pipeline allow. [CL02 §5.1.4]
    ///
    /// Effects: an idle group orders a request at once; a busy one collects what comes while W batches are under way.
    pub(super) fn propose(&mut self, out: &mut Vec<Output>) {
        while !self.alarmed && self.is_leading() {
            let n = self.proposed.next();
            if n > self.executed.plus(self.config.pipeline) || !self.log.in_window(n) {
                return;
            }
            let batch = self.next_batch(n);
            // An idle group goes on for the sake of those who are mute until it has come further. [CL02 §6.2]
            let moves_on = self.recovery_is_open() && self.proposed == self.executed;
            if batch.is_empty() && !moves_on {
                return;
            }
            self.propose_batch(n, batch, out);
        }
    }

    fn propose_batch(
        &mut self,
        n: SequenceNumber,
        requests: Vec<NamedRequest>,
        out: &mut Vec<Output>,
    ) {
        self.proposed = n;
        self.accept(n, NamedBatch::new(self.now.wall, requests), true, false);
        self.vote(n, out);
        self.advance(n, out);
    }

    /// Nothing has been ordered for a while.
    pub(super) fn on_heartbeat(&mut self, out: &mut Vec<Output>) {
        self.heartbeat_armed = false;
        let idle = self.now.tick.since(self.last_ordered);
        if self.is_leading() && idle >= self.config.heartbeat && self.proposed == self.executed {
            let n = self.proposed.next();
            if self.log.in_window(n) {
                self.propose_batch(n, Vec::new(), out);
            }
        } else if self.is_active() && !self.is_primary() && idle >= self.heartbeat_patience() {
            self.suspect(out);
        }
    }

    /// How long a backup waits for a heartbeat.
    fn heartbeat_patience(&self) -> Duration {
        self.config.heartbeat * 2 + self.suspicion.timeout()
    }

    pub(super) fn arm_heartbeat(&mut self, out: &mut Vec<Output>) {
        if !self.heartbeat_armed && self.config.size.n() > 1 {
            self.heartbeat_armed = true;
            let at = self.now.tick.max(self.last_ordered).after(self.config.heartbeat);
            out.push(Output::SetTimer { timer: Timer::Heartbeat, at });
        }
    }

    /// Whether this replica is the primary of a view that has begun.
    pub(super) fn is_leading(&self) -> bool {
        self.is_primary() && self.is_active()
    }

    /// How many requests a batch should hold: what waits, shared out over the places that the pipeline has left. So one batch
    /// is voted on while the one before it executes, instead of everyone waiting for everyone else's turn.
    fn batch_share(&self, n: SequenceNumber) -> usize {
        let last = self.executed.plus(self.config.pipeline);
        let places = last.0.saturating_sub(n.0) + 1;
        let share = self.requests.queued().div_ceil(places as usize);
        share.max(LEAST_SHARE).min(self.config.limits.batch_requests)
    }

    /// Takes requests from the queue until a batch has its share.
    fn next_batch(&mut self, n: SequenceNumber) -> Vec<NamedRequest> {
        let (mut batch, mut lanes, mut later) = (Vec::new(), BTreeSet::new(), Vec::new());
        let (mut bytes, mut inline) = (0usize, 0usize);
        let share = self.batch_share(n);
        while batch.len() < share {
            let Some(digest) = self.requests.dequeue() else { break };
            let Some((proof, request)) = self.proved(digest) else { continue };
            match self.objects.standing(&request.request, digest, self.config.slots) {
                // A demoted client's request waits for its signature. (decision 6)
                Standing::Next if self.is_demoted(request.request.client, proof) => continue,
                Standing::Next => {}
                // Its turn comes when its predecessor executes: see `execution.rs`.
                Standing::Later => continue,
                _ => {
                    self.requests.remove(digest);
                    continue;
                }
            }
            let Request { client, slot, .. } = request.request;
            if !lanes.insert((client, slot)) && !planted(Planted::LaneTwice) {
                // A client may ask for two things on one lane, two sessions say; no batch may name a lane twice.
                later.push(digest);
                continue;
            }
            let size = request.request.size();
            bytes += size;
            inline += if size <= self.config.inline_bytes { request.weight() } else { 0 };
            if bytes > self.config.limits.batch_bytes || inline > MAX_INLINE {
                self.requests.requeue(digest);
                break;
            }
            batch.push(NamedRequest { digest, client, slot, proof, body: Some(request) });
            if let Some(pending) = self.requests.get_mut(digest) {
                pending.proposed = Some(n);
            }
        }
        later.into_iter().rev().for_each(|digest| self.requests.requeue(digest));
        batch
    }

    /// A PRE-PREPARE from `from`.
    ///
    /// Effects: logs it if conditions 1-4 of [CL99 §4.2] hold, and votes as soon as every request is here and authentic.
    /// Errors: `WrongView`, `NotPrimary`, `OutsideWaterMarks`, `ConflictingPrePrepare`, `Duplicate`.
    pub(super) fn on_pre_prepare(
        &mut self,
        from: ReplicaId,
        m: PrePrepare,
        proofs: Vec<(Digest, Proof)>,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        self.could_pre_prepare(from, &m)?;
        let n = m.n;
        let digests = proofs.iter().map(|(digest, _)| *digest);
        self.could_be_first(n, || batch_digest(m.time, digests))?;
        let batch = NamedBatch::new(m.time, self.named_requests(&m.batch, &proofs));
        let timely = self.is_timely(m.time);
        self.accept(n, batch.clone(), timely, false);
        self.want_bodies(n, &batch);
        self.requests.note_references(&batch);
        self.complain(&batch, out);
        self.advance(n, out);
        Ok(())
    }

    /// Errors: why `m`, sent by `from`, is refused whatever batch it holds.
    pub(super) fn could_pre_prepare(
        &self,
        from: ReplicaId,
        m: &PrePrepare,
    ) -> Result<(), Rejection> {
        if m.view != self.view || !self.is_active() {
            return Err(Rejection::WrongView);
        }
        if from != self.primary() || self.is_primary() {
            return Err(Rejection::NotPrimary);
        }
        if self.view_changes.begun.as_ref().is_some_and(|new_view| m.n <= new_view.last()) {
            // NEW-VIEW is the PRE-PREPARE of what it chose.
            return Err(Rejection::Duplicate);
        }
        if self.log.in_window(m.n) { Ok(()) } else { Err(Rejection::OutsideWaterMarks) }
    }

    /// Errors: why no batch, or not the one with this digest, can be pre-prepared at `n` any more. It is computed only where
    /// one is.
    pub(super) fn could_be_first(
        &self,
        n: SequenceNumber,
        digest: impl FnOnce() -> Digest,
    ) -> Result<(), Rejection> {
        match self.log.get(n).and_then(Entry::digest) {
            None => Ok(()),
            Some(first) if first == digest() => Err(Rejection::Duplicate),
            Some(_) => Err(Rejection::ConflictingPrePrepare),
        }
    }

    /// The requests of a received batch, with whatever this replica knows of them already.
    pub(super) fn named_requests(
        &self,
        batch: &[BatchEntry],
        proofs: &[(Digest, Proof)],
    ) -> Vec<NamedRequest> {
        let mut requests = Vec::with_capacity(batch.len());
        for (entry, (digest, proof)) in batch.iter().zip(proofs) {
            let (client, slot) = entry.lane();
            let known = self.requests.get(*digest);
            let proof = known.map_or(*proof, |known| known.proof.max(*proof));
            let body = match entry {
                BatchEntry::Inline(request) => Some(Arc::new(request.clone())),
                BatchEntry::Reference { .. } => known.map(|known| known.request.clone()),
            };
            let mut named = NamedRequest { digest: *digest, client, slot, proof, body: None };
            if let Some(body) = body {
                named.take_in(body);
            }
            requests.push(named);
        }
        requests
    }

    /// From now on the requests that `batch`, logged at `n`, lacks are asked for.
    ///
    /// Effects: takes those that are here from where they wait, and asks for the others.
    pub(super) fn want_bodies(&mut self, n: SequenceNumber, batch: &NamedBatch) {
        for named in batch.requests.iter().filter(|named| named.body.is_none()) {
            let known = self.requests.get(named.digest).map(|p| (p.request.clone(), p.proof));
            match (known, self.log.get_mut(n)) {
                (Some((request, proof)), Some(entry)) => {
                    let all = entry.batches_mut();
                    all.for_each(|batch| batch.supply(named.digest, &request, proof));
                }
                _ => self.requests.want(named.digest, n),
            }
        }
    }

    /// Logs a PRE-PREPARE, or what a NEW-VIEW chose in its stead.
    ///
    /// Requires: the entry is inside the window and has none.
    pub(super) fn accept(
        &mut self,
        n: SequenceNumber,
        batch: NamedBatch,
        timely: bool,
        vouched: bool,
    ) {
        let (view, at) = (self.view, self.now.tick);
        self.last_ordered = at;
        if let Ok(entry) = self.log.entry(n) {
            entry.awaited = None;
            entry.pre_prepare = Some(PrePrepared { view, batch, at, timely, vouched });
        }
    }

    /// The PRE-PREPARE that this replica, as the primary, sends for `batch`.
    pub(super) fn pre_prepare(&self, n: SequenceNumber, batch: &NamedBatch) -> PrePrepare {
        let entries = batch.entries(self.config.inline_bytes);
        PrePrepare { view: self.view, n, time: batch.time, batch: entries }
    }

    /// A PREPARE from `from`.
    ///
    /// Errors: `WrongView`, `SenderIsPrimary`, `OutsideWaterMarks`, `ConflictingVote`, `Duplicate`.
    pub(super) fn on_prepare(
        &mut self,
        from: ReplicaId,
        m: Prepare,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        if m.view != self.view {
            return Err(Rejection::WrongView);
        }
        if from == self.primary() {
            return Err(Rejection::SenderIsPrimary);
        }
        self.log.entry(m.n)?.prepares.add(from, m.digest)?;
        self.advance(m.n, out);
        Ok(())
    }

    /// A COMMIT from `from`.
    ///
    /// Errors: `WrongView`, `OutsideWaterMarks`, `ConflictingVote`, `Duplicate`.
    pub(super) fn on_commit(
        &mut self,
        from: ReplicaId,
        m: Commit,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        if m.view != self.view {
            return Err(Rejection::WrongView);
        }
        self.log.entry(m.n)?.commits.add(from, m.digest)?;
        self.catch_up_with_commits(m.n, out);
        if let Some(alarm) = self.conflicting_commit(m.n) {
            self.raise(alarm, out);
            return Ok(());
        }
        self.advance(m.n, out);
        Ok(())
    }

    /// Moves `n` as far as what is held of it allows. Safe to call at any time.
    pub(super) fn advance(&mut self, n: SequenceNumber, out: &mut Vec<Output>) {
        if self.may_vote(n) {
            self.vote(n, out);
        }
        if self.prepared(n) {
            self.commit(n, out);
            self.execute_ready(out);
        }
        if self.committed_local(n) {
            let entry = self.log.get_mut(n);
            if let Some(entry) = entry.filter(|entry| entry.committed.is_none()) {
                let accepted = entry.pre_prepare.as_ref();
                entry.committed = accepted.map(|m| m.batch.clone()).zip(entry.prepared);
                entry.certified = true;
                if let Some(at) = accepted.map(|accepted| accepted.at) {
                    self.suspicion.measure(self.now.tick.since(at));
                }
            }
            self.execute_ready(out);
        }
    }

    /// Whether this replica may vote for the batch pre-prepared at `n`.
    ///
    /// It must hold every request, and either vouch for all of it or have f backups do so, who with the primary are f+1
    /// and hence include a correct one. (decisions 6 and 7)
    fn may_vote(&self, n: SequenceNumber) -> bool {
        let Some(entry) = self.log.get(n) else { return false };
        let Some(accepted) = &entry.pre_prepare else { return false };
        let others = [self.config.me, self.primary()];
        let batch = &accepted.batch;
        let vouchers = entry.prepares.count_without(batch.digest, &others);
        // With f = 0 there is nobody to vouch and nobody to doubt.
        let vouched_by_others = self.config.size.f() > 0 && vouchers >= self.config.size.f();
        entry.voted.is_none()
            && batch.is_complete()
            && batch.size() <= self.config.limits.batch_bytes
            && (accepted.vouched || accepted.timely && batch.is_authentic() || vouched_by_others)
    }

    /// Votes for the batch at `n`: the primary by its PRE-PREPARE, a backup by a PREPARE, once Q is durable.
    fn vote(&mut self, n: SequenceNumber, out: &mut Vec<Output>) {
        let (view, me, is_primary) = (self.view, self.config.me, self.is_primary());
        let Some(entry) = self.log.get(n) else { return };
        let Some(accepted) = &entry.pre_prepare else { return };
        let Some(batch) = accepted.batch.batch() else { return };
        let (digest, most) = (accepted.batch.digest, self.config.size.f() + 2);
        let message = match (is_primary, accepted.vouched) {
            (true, false) => Some(Message::PrePrepare(self.pre_prepare(n, &accepted.batch))),
            // NEW-VIEW says it for all of them.
            (true, true) => None,
            (false, _) => Some(Message::Prepare(Prepare { view, n, digest })),
        };
        let named = accepted.batch.clone();
        let record = Record::Q { n, view, digest, batch: Arc::new(batch) };
        let after = Some(self.persist(record, out));
        if let Some(entry) = self.log.get_mut(n) {
            entry.voted = after;
            entry.history.pre_prepare(&named, view, most);
            if !is_primary {
                // A conflicting vote of its own would be this replica's bug.
                let counted = entry.prepares.add(me, digest);
                assert!(counted.is_ok(), "voted twice at {n:?}");
            }
        }
        if let Some(message) = message {
            let after = after.filter(|_| !planted(Planted::VoteBeforeDurable));
            self.send(Destination::Replicas, message, after, out);
        }
    }

    /// prepared(m, v, n, i): the PRE-PREPARE, this replica's vote, and 2f matching PREPAREs from backups. [CL99 §4.2]
    fn prepared(&self, n: SequenceNumber) -> bool {
        let Some(entry) = self.log.get(n) else { return false };
        let (Some(digest), Some(_)) = (entry.digest(), entry.voted) else { return false };
        entry.prepared.is_some() || entry.prepares.count(digest) + 1 >= self.config.size.quorum()
    }

    /// Sends COMMIT for a prepared batch, once P is durable. Only the first call has an effect.
    fn commit(&mut self, n: SequenceNumber, out: &mut Vec<Output>) {
        let Some(entry) = self.log.get(n) else { return };
        let (Some(digest), None) = (entry.digest(), entry.prepared) else { return };
        let (view, me) = (self.view, self.config.me);
        let after = Some(self.persist(Record::P { n, view, digest }, out));
        if let Some(entry) = self.log.get_mut(n) {
            entry.prepared = after;
            entry.history.prepare(digest, view);
            let counted = entry.commits.add(me, digest);
            assert!(counted.is_ok(), "committed twice at {n:?}");
        }
        let message = Message::Commit(Commit { view, n, digest });
        self.send(Destination::Replicas, message, after, out);
    }

    /// committed-local(m, v, n, i): prepared, and 2f+1 matching COMMITs. [CL99 §4.2]
    fn committed_local(&self, n: SequenceNumber) -> bool {
        let Some(entry) = self.log.get(n) else { return false };
        let (Some(own), Some(_), true) =
            (entry.digest(), entry.prepared, entry.committed.is_none())
        else {
            return false;
        };
        let size = self.config.size;
        let enough = if planted(Planted::CommitsAreClaims) { size.weak() } else { size.quorum() };
        entry.commits.count(own) >= enough
    }

    /// A quorum that committed another batch than the one *prepared* here: two quorums share a correct replica, so more
    /// than f are faulty. (Merely pre-prepared here would mean no more than that the primary lied to this replica.)
    fn conflicting_commit(&self, n: SequenceNumber) -> Option<Alarm> {
        let entry = self.log.get(n)?;
        let (own, _) = (entry.digest()?, entry.prepared?);
        let committed = entry.commits.support(self.config.size.quorum())?;
        (committed != own).then_some(Alarm::ConflictingCommit {
            view: self.view,
            n,
            own,
            committed,
        })
    }
}
