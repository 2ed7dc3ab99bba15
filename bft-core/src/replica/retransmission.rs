//! STATUS: what was lost is sent again by whoever holds it. [CL02 §5.2]
//!
//! A replica that is further behind than its peers' logs and tails reach fetches the state itself: state_transfer.rs.

use super::Replica;
use crate::auth::Proof;
use crate::io::{Destination, Output, Record, Rejection, Timer};
use crate::log::{Decision, NamedBatch};
use crate::messages::{
    BatchBody, BatchEntry, Commit, Committed, FetchBatch, Held, Message, Prepare, Status,
};
use crate::planted::{Planted, planted};
use crate::service::Service;
use crate::types::{Digest, Peer, ReplicaId, SequenceNumber, Tick, View};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

/// How many sequence numbers one answer to a STATUS covers: the next STATUS asks for the rest.
const MAX_REPAIRED: usize = 32;
/// About how many bytes of requests one answer holds.
pub(super) const MAX_REPAIRED_BYTES: usize = 4 << 20;
/// While nothing is missing, STATUS goes out this many times less often.
const IDLE_FACTOR: u32 = 10;

/// What one replica has asked to be sent again.
#[derive(Clone, Debug)]
pub(super) struct Repairs {
    /// When its STATUS was last answered.
    answered: Option<Tick>,
    /// How far it had executed then.
    executed: Option<SequenceNumber>,
    /// The latest batch it has fetched: each one after that may be fetched once, as they come.
    fetched: SequenceNumber,
    /// How many others it may fetch until its next STATUS.
    batches: u64,
    /// The view that had begun there when it last said so, and the NEW-VIEW by which.
    pub begun: Option<(View, Digest)>,
}

impl Repairs {
    pub fn new(window: u64) -> Self {
        Self {
            answered: None,
            executed: None,
            fetched: SequenceNumber(0),
            batches: window,
            begun: None,
        }
    }
}

impl<S: Service> Replica<S> {
    /// Tells everyone what is held here, and comes back sooner while something is under way.
    pub(super) fn on_status_timeout(&mut self, out: &mut Vec<Output>) {
        if self.config.size.n() > 1 {
            self.send(Destination::Replicas, Message::Status(self.status()), None, out);
        }
        self.checkpoints.expire(self.now.tick);
        self.pursue_transfer(out);
        self.ask_to_recover(out);
        if !self.is_active() {
            self.repeat_view_change(out);
        }
        let under_way = self.awaits_batch() || self.is_transferring() || !self.is_active();
        let factor = if under_way { 1 } else { IDLE_FACTOR };
        self.set_status_timer(self.config.status_interval * factor, out);
    }

    /// Whether something is logged that has not executed here.
    fn awaits_batch(&self) -> bool {
        self.log.numbers().next_back().is_some_and(|n| n > self.executed)
    }

    /// STATUS is due after `wait`, and not before.
    pub(super) fn set_status_timer(&mut self, wait: Duration, out: &mut Vec<Output>) {
        self.status_due = self.now.tick.after(wait);
        out.push(Output::SetTimer { timer: Timer::Status, at: self.status_due });
    }

    /// A body that only the primary got holds up the group until a STATUS asks for it: while one is missing, none is as far off
    /// as when all was idle.
    pub(super) fn ask_for_bodies_soon(&mut self, out: &mut Vec<Output>) {
        let soon = self.config.status_interval;
        let waits = self.requests.lacks_bodies() && self.awaits_batch();
        if waits && self.status_due > self.now.tick.after(soon) {
            self.set_status_timer(soon, out);
        }
    }

    /// A link between replicas is new: whatever it lost shows in the STATUS.
    pub(super) fn on_link_restored(&mut self, peer: Peer, out: &mut Vec<Output>) {
        self.send(peer.into(), Message::Status(self.status()), None, out);
        self.ask_to_recover(out);
        self.set_status_timer(self.config.status_interval, out);
    }

    pub(super) fn status(&self) -> Status {
        let held = self.log.numbers().filter(|n| *n > self.executed).map(|n| self.held(n));
        Status {
            view: self.view,
            begun: self.is_active().then(|| self.begun_by()),
            view_changes: self.view_changes.newest.keys().copied().collect(),
            missing_view_changes: self.view_changes.missing(),
            missing_batches: self.awaited_batches().collect(),
            stable: self.log.low(),
            executed: self.executed,
            held: held.collect(),
            missing: self.missing_requests(),
        }
    }

    /// The requests to ask for, as many as one STATUS may: the next batches' first, and of those what others have decided.
    ///
    /// A faulty primary may have named any, and nobody has them.
    fn missing_requests(&self) -> Vec<Digest> {
        let decided = self.log.wanted(self.config.size.weak());
        let wanted = self.requests.all_wanted().filter(|(_, n)| *n > self.executed);
        let ranked = wanted.map(|(digest, n)| (n, !decided.contains(&(digest, n)), digest));
        let ranked: BTreeSet<_> = ranked.collect();
        ranked.into_iter().take(Status::MAX_MISSING).map(|(_, _, digest)| digest).collect()
    }

    fn held(&self, n: SequenceNumber) -> Held {
        match self.log.get(n) {
            Some(entry) if entry.committed.is_some() => Held::Committed,
            Some(entry) if entry.prepared.is_some() => Held::Prepared,
            Some(entry) if entry.pre_prepare.is_some() => Held::PrePrepared,
            _ => Held::Nothing,
        }
    }

    /// A STATUS from `from`.
    ///
    /// Effects: sends what `from` lacks and this replica holds, at most [`MAX_REPAIRED`] sequence numbers and not more
    /// often than every half status interval, so that asking costs the asker more than the answerer.
    /// Errors: `TooOften`.
    pub(super) fn on_status(
        &mut self,
        from: ReplicaId,
        m: Status,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let pause = self.config.status_interval / 2;
        let repairs = self.repairs.get_mut(from.index()).ok_or(Rejection::WrongSender)?;
        if repairs.answered.is_some_and(|last| self.now.tick.since(last) < pause) {
            return Err(Rejection::TooOften);
        }
        let stuck = repairs.executed == Some(m.executed);
        *repairs = Repairs {
            answered: Some(self.now.tick),
            executed: Some(m.executed),
            fetched: repairs.fetched,
            batches: self.config.window,
            begun: m.begun.map(|new_view| (m.view, new_view)),
        };
        self.repair_view(from, &m, out);
        let outside = m.view == self.view && m.begun.is_none() && self.is_active();
        if m.view > self.view || outside {
            // Whoever is ahead sends what leads there once it sees that this replica is not; whoever is outside may have to
            // hear from 2f+1 that the view has begun.
            self.send(Destination::Replica(from), Message::Status(self.status()), None, out);
        }
        self.repair_checkpoints(from, &m, out);
        self.repair_batches(from, &m.missing_batches, out);
        self.repair_bodies(from, &m, out);
        self.repair_decided(from, &m, stuck, out);
        if m.view == self.view && self.is_active() {
            let behind = self.log.numbers().filter(|n| *n > m.executed).take(MAX_REPAIRED);
            let mut bytes = 0;
            for n in behind {
                if bytes > MAX_REPAIRED_BYTES {
                    break;
                }
                let ahead = n.0.saturating_sub(m.executed.0).saturating_sub(1);
                let held = usize::try_from(ahead).ok().and_then(|k| m.held.get(k));
                bytes += self.repair(from, n, held.copied().unwrap_or(Held::Nothing), out);
            }
        }
        Ok(())
    }

    fn repair_checkpoints(&self, from: ReplicaId, m: &Status, out: &mut Vec<Output>) {
        let to = Destination::Replica(from);
        if m.stable < self.log.low() {
            let certificate = self.checkpoints.stable_certificate().to_vec();
            self.send(to, Message::StableCertificate(certificate), None, out);
        }
        for checkpoint in self.checkpoints.votes_of(self.config.me) {
            self.send(to, Message::Checkpoint(*checkpoint), Some(self.shown_after), out);
        }
    }

    /// Sends requests that `from` lacks, by digest, as many as one answer should hold.
    ///
    /// Cost: it lacks those of batches that it has not executed. Digests that nobody knows are looked for in the next few.
    fn repair_bodies(&self, from: ReplicaId, m: &Status, out: &mut Vec<Output>) {
        let mut missing: BTreeSet<&Digest> = m.missing.iter().collect();
        let mut bytes = 0;
        let next = (1..=MAX_REPAIRED as u64).map(|k| m.executed.plus(k));
        let batches = next.flat_map(|n| self.log.batches_at(n));
        for named in batches.flat_map(|batch| &batch.requests) {
            if missing.is_empty() || bytes > MAX_REPAIRED_BYTES {
                return;
            }
            if let Some(body) = named.body.as_ref().filter(|_| missing.remove(&named.digest)) {
                bytes += body.request.size();
                let message = Message::Request((**body).clone());
                self.send(Destination::Replica(from), message, None, out);
            }
        }
    }

    /// Tells one that lags what was decided, where this replica has discarded its votes or the primary passed it over.
    /// A replica that is `stuck` although it holds a batch may hold another than was decided.
    fn repair_decided(&self, from: ReplicaId, m: &Status, stuck: bool, out: &mut Vec<Output>) {
        let mut bytes = 0;
        let votes_help = m.view == self.view && m.begun.is_some() && self.is_active();
        for k in 0..MAX_REPAIRED {
            let n = m.executed.next().plus(k as u64);
            let passed_over = !matches!(m.held.get(k), Some(held) if *held > Held::Nothing);
            let Some(batch) = self.log.committed(n).filter(|_| n <= self.executed) else { return };
            if bytes > MAX_REPAIRED_BYTES {
                return;
            }
            // What this replica executed on claims it has no COMMIT for, and may be the one that is missing.
            let has_committed = self.log.get(n).is_some_and(|entry| entry.prepared.is_some());
            let helps =
                votes_help && has_committed && !stuck && (!passed_over || self.is_primary());
            if n <= self.log.low() || !helps {
                bytes += self.claim(from, n, batch, out);
            }
        }
    }

    /// Effects: sends COMMITTED, and says how many bytes it takes.
    fn claim(
        &self,
        to: ReplicaId,
        n: SequenceNumber,
        batch: &NamedBatch,
        out: &mut Vec<Output>,
    ) -> usize {
        let entries = batch.entries(self.config.inline_bytes);
        let bytes = weight(&entries);
        let claim = Committed { n, time: batch.time, batch: entries };
        let after = Some(self.shown_after);
        self.send(Destination::Replica(to), Message::Committed(claim), after, out);
        bytes
    }

    /// f+1 have sent COMMIT for a batch that the primary has not sent here, so it is bound to n: asks them for it, and goes
    /// on with it as if the primary had. Where the primary sent another, only COMMITTED helps. (B-02, B-09)
    pub(super) fn catch_up_with_commits(&mut self, n: SequenceNumber, out: &mut Vec<Output>) {
        let weak = self.config.size.weak();
        let Some(entry) = self.log.get_mut(n).filter(|_| self.view_changes.active) else { return };
        let Some(digest) = entry.commits.support(weak) else { return };
        let other = match entry.digest() {
            Some(own) if own == digest => return,
            other => other.is_some(),
        };
        // Once: what is lost then is repaired by STATUS.
        if entry.commits.count(digest) != weak || entry.committed.is_some() {
            return;
        }
        if !other {
            entry.awaited = Some(digest);
        }
        let committers =
            self.config.size.replicas().filter(|i| entry.commits.vote(*i) == Some(digest));
        for i in committers.collect::<Vec<_>>() {
            let message = Message::FetchBatch(FetchBatch { n, digest, claim: other });
            self.send(Destination::Replica(i), message, None, out);
        }
    }

    /// FETCH-BATCH from `from`.
    ///
    /// Errors: `TooOften`, beyond a window of batches asked for again between two STATUS, or beyond what this replica serves a
    /// second; `Duplicate`, where the batch is not here.
    pub(super) fn on_fetch_batch(
        &mut self,
        from: ReplicaId,
        m: FetchBatch,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let may_serve = self.may_serve(from);
        let repairs = self.repairs.get_mut(from.index()).ok_or(Rejection::WrongSender)?;
        // As they come, batches are as many as the group orders; again, they are as many as anyone likes.
        let is_again = m.n <= repairs.fetched;
        if is_again {
            may_serve?;
            repairs.batches = repairs.batches.checked_sub(1).ok_or(Rejection::TooOften)?;
        }
        repairs.fetched = repairs.fetched.max(m.n.min(self.log.high()));
        let bytes = self.serve_batch(from, m, out)?;
        if is_again {
            self.spend_serving(from, bytes);
        }
        Ok(())
    }

    /// Effects: sends the batch, or COMMITTED once there is any, and says how many bytes that takes.
    fn serve_batch(
        &mut self,
        from: ReplicaId,
        m: FetchBatch,
        out: &mut Vec<Output>,
    ) -> Result<usize, Rejection> {
        if let Some(batch) = self.log.committed(m.n).filter(|_| m.n <= self.executed) {
            return Ok(self.claim(from, m.n, batch, out));
        }
        // Its own quorum may need a replica that was passed over too, and has decided by then without voting.
        let entry = self.log.entry(m.n)?;
        if !entry.told_on_commit.contains(&from) {
            entry.told_on_commit.push(from);
        }
        if m.claim {
            return Ok(0);
        }
        let batch = entry.batch(m.digest).ok_or(Rejection::Duplicate)?;
        let body = BatchBody { time: batch.time, batch: batch.entries(self.config.inline_bytes) };
        let bytes = weight(&body.batch);
        self.send(Destination::Replica(from), Message::Batch(body), None, out);
        Ok(bytes)
    }

    /// n has executed: tells those who were told of another batch.
    pub(super) fn tell_committed(&mut self, n: SequenceNumber, out: &mut Vec<Output>) {
        let Some(entry) = self.log.get_mut(n) else { return };
        let waiting = core::mem::take(&mut entry.told_on_commit);
        for i in waiting {
            if let Some(batch) = self.log.committed(n) {
                self.claim(i, n, batch, out);
            }
        }
    }

    /// A COMMITTED claim from `from`. (decision 4)
    ///
    /// Errors: `OutsideWaterMarks`; `Duplicate`, for a second claim of one replica.
    pub(super) fn on_committed(
        &mut self,
        from: ReplicaId,
        m: Committed,
        proofs: &[(Digest, Proof)],
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let n = m.n;
        self.could_claim(from, n)?;
        let batch = NamedBatch::new(m.time, self.named_requests(&m.batch, proofs));
        let entry = self.log.entry(n)?;
        let same = |decision: &&mut Decision| decision.batch.digest == batch.digest;
        match entry.decisions.iter_mut().find(same) {
            Some(decision) => decision.claims.push(from),
            None => entry.decisions.push(Decision { batch, claims: Vec::from([from]) }),
        }
        self.decide(n, out);
        Ok(())
    }

    /// Errors: why a COMMITTED claim of `from` for `n` would change nothing.
    pub(super) fn could_claim(&self, from: ReplicaId, n: SequenceNumber) -> Result<(), Rejection> {
        if !self.log.in_window(n) {
            return Err(Rejection::OutsideWaterMarks);
        }
        let Some(known) = self.log.get(n) else { return Ok(()) };
        let claimed = known.decisions.iter().any(|decision| decision.claims.contains(&from));
        let needless = claimed || known.committed.is_some();
        if needless { Err(Rejection::Duplicate) } else { Ok(()) }
    }

    /// Installs the batch that f+1 replicas, one of them correct, claim to be committed-local at `n`.
    ///
    /// The votes of this replica stay what they were: claims never alter P or Q.
    pub(super) fn decide(&mut self, n: SequenceNumber, out: &mut Vec<Output>) {
        let weak = self.config.size.weak();
        let Some(entry) = self.log.get(n) else { return };
        let decided = entry.decisions.iter().find(|decision| decision.claims.len() >= weak);
        let (Some(decision), true) = (decided, entry.committed.is_none()) else { return };
        let named = decision.batch.clone();
        if !named.is_complete() {
            // Only now is it certain that the requests exist: before, a liar could have this replica ask for any digest.
            self.want_bodies(n, &named);
        }
        let held = self.log.get(n).and_then(|entry| entry.batch(named.digest)).cloned();
        let Some((named, batch)) = held.and_then(|held| Some((held.clone(), held.batch()?))) else {
            return;
        };
        let record =
            Record::Decided { n, digest: named.digest, batch: alloc::sync::Arc::new(batch) };
        let after = self.persist(record, out);
        if let Some(entry) = self.log.get_mut(n) {
            entry.committed = Some((named, after));
            entry.decisions.clear();
            if planted(Planted::ClaimClearsHistory) {
                entry.history = Default::default();
            }
        }
        self.execute_ready(out);
    }

    /// Sends this replica's own part in `n` to one that has come no further than `held`, and says how many bytes of requests
    /// that takes.
    fn repair(
        &self,
        from: ReplicaId,
        n: SequenceNumber,
        held: Held,
        out: &mut Vec<Output>,
    ) -> usize {
        let Some(entry) = self.log.get(n) else { return 0 };
        let (Some(accepted), Some(_)) = (&entry.pre_prepare, entry.voted) else { return 0 };
        let mut bytes = 0;
        let (to, view, digest) = (Destination::Replica(from), self.view, accepted.batch.digest);
        if held < Held::PrePrepared && self.is_primary() && !accepted.vouched {
            let m = self.pre_prepare(n, &accepted.batch);
            bytes = weight(&m.batch);
            self.send(to, Message::PrePrepare(m), entry.voted, out);
        }
        if held < Held::Prepared && !self.is_primary() {
            let message = Message::Prepare(Prepare { view, n, digest });
            self.send(to, message, entry.voted, out);
        }
        if held < Held::Committed && entry.prepared.is_some() {
            let message = Message::Commit(Commit { view, n, digest });
            self.send(to, message, entry.prepared, out);
        }
        bytes
    }
}

/// At most how many bytes of a message those take.
fn weight(entries: &[BatchEntry]) -> usize {
    entries.iter().map(BatchEntry::weight).sum()
}
