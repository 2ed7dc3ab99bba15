//! The message log: one entry per sequence number between the water marks. [CL99 §4.2-4.3]

use crate::auth::Proof;
use crate::certificate::Certificate;
use crate::codec::MAX_MESSAGE;
use crate::io::{Batch, Rejection};
use crate::messages::{BatchEntry, Claim, SignedRequest, batch_digest};
use crate::planted::{Planted, planted};
use crate::types::{
    ClientId, Digest, PersistId, ReplicaId, SequenceNumber, Slot, Tick, Time, View,
};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What a message carries whole of a batch: all but what names the rest, and the message's own fields. Units: bytes.
const MAX_WHOLE: usize = MAX_MESSAGE - (64 << 10);

/// A request as an accepted PRE-PREPARE names it.
#[derive(Clone, Debug)]
pub struct NamedRequest {
    /// Its digest.
    pub digest: Digest,
    /// Its client; until the request is here, by the word of whoever named it.
    pub client: ClientId,
    /// Its slot; likewise.
    pub slot: Slot,
    /// How this replica authenticated it, at best.
    pub proof: Proof,
    /// The request itself, once it is here.
    pub body: Option<Arc<SignedRequest>>,
}

impl NamedRequest {
    /// The request is here. It says itself whose it is; the batch's digest binds no other claim of the message that named it.
    pub fn take_in(&mut self, body: Arc<SignedRequest>) {
        if !planted(Planted::ReferenceNamesTheClient) {
            (self.client, self.slot) = (body.request.client, body.request.slot);
        }
        self.body = Some(body);
    }
}

/// A batch as a message named it, and what has come of it.
#[derive(Clone, Debug)]
pub struct NamedBatch {
    /// d: its digest.
    pub digest: Digest,
    /// The agreed time that its primary proposed.
    pub time: Time,
    /// Its requests in order.
    pub requests: Vec<NamedRequest>,
}

impl NamedBatch {
    /// A batch with this time and these requests.
    pub fn new(time: Time, requests: Vec<NamedRequest>) -> Self {
        let digest = batch_digest(time, requests.iter().map(|request| request.digest));
        Self { digest, time, requests }
    }

    /// The batch as messages carry it: requests up to `inline_bytes` whole, larger ones by digest, and so what has no room.
    ///
    /// Whoever named the batch here may have named many small requests by digest, and a message has one size at most.
    pub fn entries(&self, inline_bytes: usize) -> Vec<BatchEntry> {
        let mut room = MAX_WHOLE;
        let mut fits = |body: &SignedRequest| {
            let is_small = body.request.size() <= inline_bytes && body.weight() <= room;
            room -= if is_small { body.weight() } else { 0 };
            is_small
        };
        let entry = |named: &NamedRequest| match &named.body {
            Some(body) if fits(body) => BatchEntry::Inline((**body).clone()),
            _ => BatchEntry::Reference {
                digest: named.digest,
                client: named.client,
                slot: named.slot,
            },
        };
        self.requests.iter().map(entry).collect()
    }

    /// The bytes of all its operations that are here.
    pub fn size(&self) -> usize {
        let bodies = self.requests.iter().filter_map(|named| named.body.as_ref());
        bodies.map(|body| body.request.size()).sum()
    }

    /// Whether every request is here.
    pub fn is_complete(&self) -> bool {
        self.requests.iter().all(|request| request.body.is_some())
    }

    /// Whether this replica itself can vouch for every request.
    pub fn is_authentic(&self) -> bool {
        self.requests.iter().all(|request| request.proof != Proof::Unchecked)
    }

    /// The clients whose requests this replica cannot vouch for.
    pub fn unauthenticated(&self) -> impl Iterator<Item = ClientId> {
        // A body that the primary withholds is not its client's doing.
        let unchecked = self.requests.iter().filter(|named| named.body.is_some());
        unchecked.filter(|named| named.proof == Proof::Unchecked).map(|named| named.client)
    }

    /// Takes in `body` where the batch lacks it. The digest names it, so nobody's word is needed.
    pub fn supply(&mut self, digest: Digest, body: &Arc<SignedRequest>, proof: Proof) {
        for named in self.requests.iter_mut().filter(|named| named.digest == digest) {
            if named.body.is_none() {
                named.take_in(body.clone());
            }
            named.proof = named.proof.max(proof);
        }
    }

    /// The whole batch, once it is complete.
    pub fn batch(&self) -> Option<Batch> {
        let requests = self.requests.iter();
        let bodies = requests.map(|request| Some((request.digest, request.body.clone()?)));
        Some(Batch { time: self.time, requests: bodies.collect::<Option<_>>()? })
    }
}

/// An accepted PRE-PREPARE.
#[derive(Clone, Debug)]
pub struct PrePrepared {
    /// v: the view in which it was accepted.
    pub view: View,
    /// Its batch.
    pub batch: NamedBatch,
    /// When it was. Units: those of the driver's clock.
    pub at: Tick,
    /// Whether its time was within what this replica's clock allows. (decision 7)
    pub timely: bool,
    /// Whether a correct replica has vouched for it: the P/Q rules chose it, or f+1 have sent COMMIT.
    pub vouched: bool,
}

/// A batch decided on the word of others. (decision 4)
#[derive(Clone, Debug)]
pub struct Decision {
    /// The batch.
    pub batch: NamedBatch,
    /// The replicas that claim it is committed-local at theirs.
    pub claims: Vec<ReplicaId>,
}

/// What this replica has to say of one sequence number in a VIEW-CHANGE. Only a stable checkpoint clears it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// P: the batch that prepared here in the latest view.
    prepared: Option<(Digest, View)>,
    /// Q: the batches pre-prepared here, each with the latest view in which it was; the newest last.
    pre_prepared: Vec<(Digest, View)>,
    /// Those batches.
    batches: Vec<NamedBatch>,
}

impl History {
    /// Adds to Q. Keeps the `most` newest, which suffices. [CL02 §4.5.2]
    pub fn pre_prepare(&mut self, batch: &NamedBatch, view: View, most: usize) {
        self.pre_prepared.retain(|(digest, _)| *digest != batch.digest);
        self.pre_prepared.push((batch.digest, view));
        if self.pre_prepared.len() > most {
            self.pre_prepared.remove(0);
        }
        if self.batch(batch.digest).is_none() {
            self.batches.push(batch.clone());
        }
        let named = |digest: &Digest| {
            self.prepared.is_some_and(|(prepared, _)| prepared == *digest)
                || self.pre_prepared.iter().any(|(pre_prepared, _)| pre_prepared == digest)
        };
        self.batches.retain(|batch| named(&batch.digest));
    }

    /// Keeps a batch that is about to be pre-prepared here.
    pub fn keep(&mut self, batch: NamedBatch) {
        if self.batch(batch.digest).is_none() {
            self.batches.push(batch);
        }
    }

    /// Replaces P.
    pub fn prepare(&mut self, digest: Digest, view: View) {
        self.prepared = Some((digest, view));
    }

    /// The batch with this digest, if P or Q names it.
    pub fn batch(&self, digest: Digest) -> Option<&NamedBatch> {
        self.batches.iter().find(|batch| batch.digest == digest)
    }

    /// The batches that P and Q name, and those about to be.
    pub fn batches(&self) -> &[NamedBatch] {
        &self.batches
    }

    /// The entry of P for `n`, which this is of.
    pub fn prepared_claim(&self, n: SequenceNumber) -> Option<Claim> {
        self.prepared.map(|(digest, view)| Claim { n, digest, view })
    }

    /// The entries of Q for `n`, which this is of, by digest.
    pub fn pre_prepared_claims(&self, n: SequenceNumber) -> Vec<Claim> {
        let claims = self.pre_prepared.iter().map(|(digest, view)| Claim {
            n,
            digest: *digest,
            view: *view,
        });
        let mut claims: Vec<_> = claims.collect();
        claims.sort_unstable();
        claims
    }
}

/// What is known of one sequence number.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// pre-prepared: the PRE-PREPARE accepted in the current view.
    pub pre_prepare: Option<PrePrepared>,
    /// What the NEW-VIEW of the current view chose for this place, or f+1 sent COMMIT for, while the batch is not here.
    pub awaited: Option<Digest>,
    /// Who wants to know once this is committed-local. At most n.
    pub told_on_commit: Vec<ReplicaId>,
    /// PREPAREs of the current view, this replica's own included.
    pub prepares: Certificate,
    /// COMMITs of the current view, this replica's own included.
    pub commits: Certificate,
    /// The Q record, once this replica has voted (as the primary: proposed).
    pub voted: Option<PersistId>,
    /// prepared: the P record, once 2f PREPAREs match.
    pub prepared: Option<PersistId>,
    /// COMMITTED claims: at most one batch a claimant.
    pub decisions: Vec<Decision>,
    /// P and Q.
    pub history: History,
    /// What may execute, and the record that must be durable before a reply: committed-local, or decided on f+1 claims.
    pub committed: Option<(NamedBatch, PersistId)>,
    /// Whether that is by this replica's own certificates, so that every later view must keep it. A claim may be of a
    /// later view than this replica's.
    pub certified: bool,
}

impl Entry {
    /// The digest of the batch that is pre-prepared here.
    pub fn digest(&self) -> Option<Digest> {
        self.pre_prepare.as_ref().map(|accepted| accepted.batch.digest)
    }

    /// The record that must be durable before a client is told what the batch did.
    pub fn executable_after(&self) -> Option<PersistId> {
        self.committed.as_ref().map(|(_, after)| *after).or(self.prepared)
    }

    /// Forgets what belongs to the view that ends. P, Q and what is decided stay.
    pub fn end_view(&mut self) {
        self.pre_prepare = None;
        self.awaited = None;
        self.told_on_commit.clear();
        self.prepares = Certificate::default();
        self.commits = Certificate::default();
        self.voted = None;
        self.prepared = None;
    }

    /// The batch with this digest, from wherever this entry has it, whole if it is whole anywhere.
    pub fn batch(&self, digest: Digest) -> Option<&NamedBatch> {
        let accepted = self.pre_prepare.iter().map(|accepted| &accepted.batch);
        let decided = self.decisions.iter().map(|decision| &decision.batch);
        let committed = self.committed.iter().map(|(batch, _)| batch);
        let all = accepted.chain(decided).chain(committed).chain(&self.history.batches);
        let same = all.filter(|batch| batch.digest == digest);
        same.max_by_key(|batch| batch.is_complete())
    }

    /// What has committed or is accepted, and what P and Q name.
    fn standing(&self) -> impl Iterator<Item = &NamedBatch> {
        let standing = match &self.committed {
            Some((batch, _)) => Some(batch),
            None => self.pre_prepare.as_ref().map(|accepted| &accepted.batch),
        };
        standing.into_iter().chain(&self.history.batches)
    }

    /// Every batch that this entry holds, whatever its standing.
    pub fn batches_mut(&mut self) -> impl Iterator<Item = &mut NamedBatch> {
        let accepted = self.pre_prepare.iter_mut().map(|accepted| &mut accepted.batch);
        let decided = self.decisions.iter_mut().map(|decision| &mut decision.batch);
        accepted.chain(decided).chain(&mut self.history.batches)
    }
}

/// The entries for h+1 .. h+L.
#[derive(Clone, Debug)]
pub struct Log {
    /// h: the low water mark, which is the last stable checkpoint.
    low: SequenceNumber,
    /// L.
    window: u64,
    /// `entries[k]` is for h + 1 + k; at most L, grown on demand.
    entries: VecDeque<Entry>,
    /// The last batches below h, for replicas that lag a little: `tail[k]` is for h - tail.len() + 1 + k.
    tail: VecDeque<NamedBatch>,
    tail_bytes: usize,
}

impl Log {
    /// What the tail may hold. Units: bytes of operations.
    pub const MAX_TAIL_BYTES: usize = 32 << 20;

    /// An empty log above `low`.
    pub fn new(low: SequenceNumber, window: u64) -> Self {
        Self { low, window, entries: VecDeque::new(), tail: VecDeque::new(), tail_bytes: 0 }
    }

    /// h: the low water mark.
    pub fn low(&self) -> SequenceNumber {
        self.low
    }

    /// H = h + L: the high water mark.
    pub fn high(&self) -> SequenceNumber {
        self.low.plus(self.window)
    }

    /// in-w: whether h < n <= h + L. [CL99 §4.2]
    pub fn in_window(&self, n: SequenceNumber) -> bool {
        self.low < n && n <= self.high()
    }

    fn place(&self, n: SequenceNumber) -> Option<usize> {
        self.in_window(n).then(|| (n.0 - self.low.0 - 1) as usize)
    }

    /// What is known of `n`.
    pub fn get(&self, n: SequenceNumber) -> Option<&Entry> {
        self.entries.get(self.place(n)?)
    }

    /// What is known of `n`, to be changed, if anything is.
    pub fn get_mut(&mut self, n: SequenceNumber) -> Option<&mut Entry> {
        let place = self.place(n)?;
        self.entries.get_mut(place)
    }

    /// The entry for `n`, made if need be.
    ///
    /// Errors: `OutsideWaterMarks`.
    pub fn entry(&mut self, n: SequenceNumber) -> Result<&mut Entry, Rejection> {
        let place = self.place(n).ok_or(Rejection::OutsideWaterMarks)?;
        if place >= self.entries.len() {
            self.entries.resize_with(place + 1, Entry::default);
        }
        self.entries.get_mut(place).ok_or(Rejection::OutsideWaterMarks)
    }

    /// The sequence numbers of which something may be known, ascending.
    pub fn numbers(&self) -> impl DoubleEndedIterator<Item = SequenceNumber> + use<> {
        let (low, len) = (self.low, self.entries.len() as u64);
        (1..=len).map(move |k| low.plus(k))
    }

    /// Drops everything up to `stable`, which becomes the low water mark. [CL99 §4.3]
    pub fn truncate(&mut self, stable: SequenceNumber) {
        if stable <= self.low {
            return;
        }
        let passed = stable.0 - self.low.0;
        let dropped = passed.min(self.entries.len() as u64) as usize;
        let gone = self.entries.drain(..dropped).map(|entry| entry.committed);
        let mut gone: Vec<_> = gone.collect();
        if (dropped as u64) < passed && !planted(Planted::TailMisaligned) {
            // The tail has no gaps, and ends at h: what was never heard of breaks it.
            gone.push(None);
        }
        for committed in gone {
            match committed {
                Some((batch, _)) => self.keep_tail(batch),
                None => self.forget_tail(),
            }
        }
        self.low = stable;
    }

    fn keep_tail(&mut self, batch: NamedBatch) {
        self.tail_bytes += batch.size();
        self.tail.push_back(batch);
        while self.tail.len() as u64 > self.window || self.tail_bytes > Self::MAX_TAIL_BYTES {
            if planted(Planted::TailUnbounded) {
                return;
            }
            let Some(oldest) = self.tail.pop_front() else { return };
            self.tail_bytes -= oldest.size();
        }
    }

    fn forget_tail(&mut self) {
        self.tail.clear();
        self.tail_bytes = 0;
    }

    /// How many batches the tail holds, and how many bytes of operations.
    pub fn tail(&self) -> (usize, usize) {
        (self.tail.len(), self.tail_bytes)
    }

    /// The batch that is committed-local at `n`, from the log or from the tail below it.
    pub fn committed(&self, n: SequenceNumber) -> Option<&NamedBatch> {
        if n > self.low {
            return self.get(n)?.committed.as_ref().map(|(batch, _)| batch);
        }
        let age = usize::try_from(self.low.0 - n.0).ok()?;
        self.tail.get(self.tail.len().checked_sub(age + 1)?)
    }

    /// The requests that batches lack which at least `weak` replicas claim to be decided, with the batch that needs them.
    pub fn wanted(&self, weak: usize) -> BTreeSet<(Digest, SequenceNumber)> {
        let decisions = self.numbers().filter_map(|n| Some((n, &self.get(n)?.decisions)));
        let missing = decisions.flat_map(|(n, decisions)| {
            let decided = decisions.iter().filter(|decision| decision.claims.len() >= weak);
            let requests = decided.flat_map(|decision| &decision.batch.requests);
            requests.filter(|named| named.body.is_none()).map(move |named| (named.digest, n))
        });
        missing.collect()
    }

    /// Every batch held, newest last.
    pub fn batches(&self) -> impl Iterator<Item = &NamedBatch> {
        self.tail.iter().chain(self.entries.iter().flat_map(Entry::standing))
    }

    /// The batches held for `n`.
    pub fn batches_at(&self, n: SequenceNumber) -> impl Iterator<Item = &NamedBatch> {
        let below = self.committed(n).filter(|_| n <= self.low);
        below.into_iter().chain(self.get(n).into_iter().flat_map(Entry::standing))
    }

    /// Forgets what belongs to the view that ends.
    pub fn end_view(&mut self) {
        self.entries.iter_mut().for_each(Entry::end_view);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_above_h_and_up_to_h_plus_l() {
        let mut log = Log::new(SequenceNumber(8), 4);
        for n in [0, 8, 13, u64::MAX] {
            assert!(log.entry(SequenceNumber(n)).is_err(), "{n}");
        }
        let batch = NamedBatch::new(Time(1), Vec::new());
        log.entry(SequenceNumber(12)).unwrap().committed = Some((batch, PersistId(1)));
        assert!(log.get(SequenceNumber(9)).is_some_and(|entry| entry.committed.is_none()));
        log.truncate(SequenceNumber(11));
        assert!(log.committed(SequenceNumber(12)).is_some());
        assert!(log.get(SequenceNumber(11)).is_none());
        assert!(log.in_window(SequenceNumber(15)) && !log.in_window(SequenceNumber(16)));
        log.truncate(SequenceNumber(12));
        assert!(log.committed(SequenceNumber(12)).is_some(), "the tail serves who lags a little");
        assert!(log.committed(SequenceNumber(11)).is_none());
        log.truncate(SequenceNumber(100));
        assert_eq!(log.numbers().count(), 0);
        for n in 12..=100 {
            assert!(log.committed(SequenceNumber(n)).is_none(), "{n}: passed without its batch");
        }
    }
}
