//! Checkpoints: the state every K batches, stable certificates, and the truncation of the log. [CL99 §4.3]

use super::{Replica, Snapshot};
use crate::auth::{Signature, checkpoint_signing_digest};
use crate::io::{Alarm, Destination, Job, Output, Record, Rejection};
use crate::messages::{Checkpoint, Message};
use crate::objects::Objects;
use crate::service::Service;
use crate::tree::Object;
use crate::types::{Digest, ReplicaId, SequenceNumber};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// This replica's own checkpoints and everyone's signed words about them.
#[derive(Clone)]
pub(super) struct Checkpoints<O> {
    /// The state at h and at later checkpoints taken here: at most L / K + 1.
    own: BTreeMap<SequenceNumber, (Digest, Objects<O>)>,
    /// CHECKPOINTs above h, one a replica and sequence number. Bounded by the window.
    votes: BTreeMap<SequenceNumber, BTreeMap<ReplicaId, Checkpoint>>,
    /// 2f+1 CHECKPOINTs for h; empty at the genesis, which needs no proof.
    stable: Arc<[Checkpoint]>,
    stable_n: SequenceNumber,
}

impl<O: Object> Checkpoints<O> {
    pub fn new(n: SequenceNumber, digest: Digest, objects: Objects<O>) -> Self {
        let own = BTreeMap::from([(n, (digest, objects))]);
        Self { own, votes: BTreeMap::new(), stable: Arc::new([]), stable_n: n }
    }

    pub fn stable_digest(&self) -> Digest {
        self.own.get(&self.stable_n).map_or_else(Digest::default, |(digest, _)| *digest)
    }

    pub fn stable_snapshot(&self) -> Snapshot<O> {
        let objects = self.own.get(&self.stable_n).map(|(_, objects)| objects.clone());
        Snapshot { n: self.stable_n, objects: objects.unwrap_or_default() }
    }

    pub fn stable_certificate(&self) -> Arc<[Checkpoint]> {
        self.stable.clone()
    }

    pub fn restore_certificate(&mut self, certificate: Arc<[Checkpoint]>) {
        self.stable = certificate;
    }

    /// The CHECKPOINTs of `replica` above h.
    pub fn votes_of(&self, replica: ReplicaId) -> impl Iterator<Item = &Checkpoint> {
        self.votes.values().filter_map(move |votes| votes.get(&replica))
    }

    pub fn check_invariants(&self, low: SequenceNumber, executed: SequenceNumber) {
        assert_eq!(self.stable_n, low, "the stable checkpoint is the low water mark");
        assert!(self.own.keys().all(|n| low <= *n && *n <= executed));
        assert!(self.own.contains_key(&low), "the stable checkpoint stays readable");
        assert!(self.votes.keys().all(|n| *n > low));
    }
}

impl<S: Service> Replica<S> {
    /// Takes the checkpoint at `n`, which has just executed, and has it signed.
    ///
    /// Cost: O(objects changed since the last one); the copy is O(1).
    pub(super) fn take_checkpoint(&mut self, n: SequenceNumber, out: &mut Vec<Output>) {
        let digest = self.objects.digest();
        self.checkpoints.own.insert(n, (digest, self.objects.clone()));
        let signed = checkpoint_signing_digest(self.authority.group(), n, &digest, self.config.me);
        out.push(Output::Job(Job::SignCheckpoint { n, digest, signed }));
        self.stabilize(n, out);
    }

    /// The signature is there: tell everyone.
    pub(super) fn on_checkpoint_signed(
        &mut self,
        n: SequenceNumber,
        digest: Digest,
        signature: Signature,
        out: &mut Vec<Output>,
    ) {
        let m = Checkpoint { n, digest, replica: self.config.me, signature };
        self.send(Destination::Replicas, Message::Checkpoint(m), None, out);
        if n > self.log.low() {
            self.checkpoints.votes.entry(n).or_default().insert(m.replica, m);
            self.stabilize(n, out);
        }
    }

    /// A CHECKPOINT, from its maker or from whoever holds it: its signature has been checked.
    ///
    /// Errors: `OutsideWaterMarks`; `Duplicate`; `ConflictingVote`, where one replica signed two states.
    pub(super) fn on_checkpoint(
        &mut self,
        m: Checkpoint,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let due = m.n.0.is_multiple_of(self.config.checkpoint_interval);
        if !due || !self.log.in_window(m.n) {
            return Err(Rejection::OutsideWaterMarks);
        }
        let votes = self.checkpoints.votes.entry(m.n).or_default();
        match votes.get(&m.replica) {
            Some(first) if first.digest == m.digest => return Err(Rejection::Duplicate),
            Some(_) => return Err(Rejection::ConflictingVote),
            None => votes.insert(m.replica, m),
        };
        self.stabilize(m.n, out);
        Ok(())
    }

    /// Makes the checkpoint at `n` stable if 2f+1 replicas signed the state that is also here.
    fn stabilize(&mut self, n: SequenceNumber, out: &mut Vec<Output>) {
        let quorum = self.config.size.quorum();
        let Some(votes) = self.checkpoints.votes.get(&n) else { return };
        let matching = |digest: &Digest| votes.values().filter(|m| m.digest == *digest).count();
        let supported = votes.values().map(|m| m.digest).find(|digest| matching(digest) >= quorum);
        let (Some(digest), Some((own, _))) = (supported, self.checkpoints.own.get(&n)) else {
            return;
        };
        let certificate: Arc<[Checkpoint]> =
            votes.values().filter(|m| m.digest == digest).take(quorum).copied().collect();
        if *own != digest {
            let own = *own;
            self.raise(Alarm::StateDiverged { n, own, certificate }, out);
            return;
        }
        self.persist(Record::Stable { certificate: certificate.clone() }, out);
        self.checkpoints.stable = certificate;
        self.checkpoints.stable_n = n;
        self.checkpoints.own = self.checkpoints.own.split_off(&n);
        self.checkpoints.votes = self.checkpoints.votes.split_off(&n.next());
        self.log.truncate(n);
        self.requests.forget_wanted(n);
    }
}
