//! The message log: one entry per sequence number between the water marks. [CL99 §4.2-4.3]

use crate::auth::Proof;
use crate::certificate::Certificate;
use crate::io::{Batch, Rejection};
use crate::messages::{BatchEntry, SignedRequest, batch_digest};
use crate::types::{ClientId, Digest, PersistId, ReplicaId, SequenceNumber, Slot, Time, View};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A request as an accepted PRE-PREPARE names it.
#[derive(Clone, Debug)]
pub struct NamedRequest {
    /// Its digest.
    pub digest: Digest,
    /// Its client.
    pub client: ClientId,
    /// Its slot.
    pub slot: Slot,
    /// How this replica authenticated it, at best.
    pub proof: Proof,
    /// The request itself, once it is here.
    pub body: Option<Arc<SignedRequest>>,
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

    /// The batch as messages carry it: requests up to `inline_bytes` whole, larger ones by digest.
    pub fn entries(&self, inline_bytes: usize) -> Vec<BatchEntry> {
        let entry = |named: &NamedRequest| match &named.body {
            Some(body) if body.request.size() <= inline_bytes => {
                BatchEntry::Inline((**body).clone())
            }
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

    /// Takes in `body` where the batch lacks it. The digest names it, so nobody's word is needed.
    pub fn supply(&mut self, digest: Digest, body: &Arc<SignedRequest>, proof: Proof) {
        let key = (body.request.client, body.request.slot);
        for named in self.requests.iter_mut().filter(|named| named.digest == digest) {
            if (named.client, named.slot) == key && named.body.is_none() {
                named.body = Some(body.clone());
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
    /// Whether its time was within what this replica's clock allows. (decision 7)
    pub timely: bool,
}

/// A batch decided on the word of others. (decision 4)
#[derive(Clone, Debug)]
pub struct Decision {
    /// The batch.
    pub batch: NamedBatch,
    /// The replicas that claim it is committed-local at theirs.
    pub claims: Vec<ReplicaId>,
}

/// What is known of one sequence number.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// pre-prepared: the PRE-PREPARE accepted in the current view.
    pub pre_prepare: Option<PrePrepared>,
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
    /// What may execute, and the record that must be durable before a reply: committed-local, or decided on f+1 claims.
    pub committed: Option<(NamedBatch, PersistId)>,
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

    /// Every batch that this entry holds, whatever its standing.
    pub fn batches_mut(&mut self) -> impl Iterator<Item = &mut NamedBatch> {
        let accepted = self.pre_prepare.iter_mut().map(|accepted| &mut accepted.batch);
        accepted.chain(self.decisions.iter_mut().map(|decision| &mut decision.batch))
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

/// What the tail may hold. Units: bytes of operations.
const MAX_TAIL_BYTES: usize = 32 << 20;

impl Log {
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
        let dropped = (stable.0 - self.low.0).min(self.entries.len() as u64) as usize;
        let gone = self.entries.drain(..dropped).map(|entry| entry.committed);
        let gone: Vec<_> = gone.collect();
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
        while self.tail.len() as u64 > self.window || self.tail_bytes > MAX_TAIL_BYTES {
            let Some(oldest) = self.tail.pop_front() else { return };
            self.tail_bytes -= oldest.size();
        }
    }

    fn forget_tail(&mut self) {
        self.tail.clear();
        self.tail_bytes = 0;
    }

    /// The batch that is committed-local at `n`, from the log or from the tail below it.
    pub fn committed(&self, n: SequenceNumber) -> Option<&NamedBatch> {
        if n > self.low {
            return self.get(n)?.committed.as_ref().map(|(batch, _)| batch);
        }
        let age = usize::try_from(self.low.0 - n.0).ok()?;
        self.tail.get(self.tail.len().checked_sub(age + 1)?)
    }

    /// Every batch held, newest last.
    pub fn batches(&self) -> impl Iterator<Item = &NamedBatch> {
        let logged = self.entries.iter().filter_map(|entry| match &entry.committed {
            Some((batch, _)) => Some(batch),
            None => entry.pre_prepare.as_ref().map(|accepted| &accepted.batch),
        });
        self.tail.iter().chain(logged)
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
    }
}
