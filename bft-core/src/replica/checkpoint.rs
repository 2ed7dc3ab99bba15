//! Checkpoints: the state every K batches, stable certificates, and the truncation of the log. [CL99 §4.3]

use super::{Replica, Snapshot};
use crate::auth::{Signature, checkpoint_signing_digest};
use crate::evidence::{Misdeed, Proof};
use crate::io::{Alarm, Destination, Job, Output, Record, Rejection};
use crate::messages::{Checkpoint, Message};
use crate::objects::Objects;
use crate::planted::{Planted, planted};
use crate::service::Service;
use crate::tree::Object;
use crate::types::{Digest, Peer, PersistId, ReplicaId, SequenceNumber, Tick};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// This replica's own checkpoints and everyone's signed words about them.
#[derive(Clone)]
pub(super) struct Checkpoints<O> {
    /// The state at h and at later checkpoints taken here: at most L / K + 1.
    own: BTreeMap<SequenceNumber, (Digest, Objects<O>)>,
    /// CHECKPOINTs above h, one a replica and sequence number. Bounded by the window.
    votes: BTreeMap<SequenceNumber, BTreeMap<ReplicaId, Checkpoint>>,
    /// Certificates for checkpoints above h that others had whole: inside the window, and the newest beyond it.
    proved: BTreeMap<SequenceNumber, Arc<[Checkpoint]>>,
    /// 2f+1 CHECKPOINTs for h; empty at the genesis, which needs no proof.
    stable: Arc<[Checkpoint]>,
    stable_n: SequenceNumber,
    /// The record that proves it after a restart.
    stable_record: PersistId,
    /// The newest CHECKPOINTs of each replica that are beyond the high water mark: this replica has been left behind. As
    /// many as a replica may have above its stable one, and that too: the newest of each alone need not agree.
    ahead: BTreeMap<ReplicaId, BTreeMap<SequenceNumber, Checkpoint>>,
    /// Under which incarnation each replica signed what is held of it, where not the first.
    incarnations: BTreeMap<ReplicaId, u64>,
    /// When each replica last sent one of those.
    heard_ahead: BTreeMap<ReplicaId, Tick>,
    /// The checkpoint that a peer is fetching, and when it last did: it stays readable although it is not the newest.
    serving: Option<(SequenceNumber, Tick)>,
}

/// How long a replica's CHECKPOINTs beyond the high water mark are at least apart; what is missed comes as a certificate.
const AHEAD_PAUSE: Duration = Duration::from_millis(2);

/// How long a checkpoint stays readable for a peer that has stopped asking for it.
const SERVED_FOR: Duration = Duration::from_secs(5);

impl<O: Object> Checkpoints<O> {
    pub fn new(n: SequenceNumber, digest: Digest, objects: Objects<O>) -> Self {
        let own = BTreeMap::from([(n, (digest, objects))]);
        Self {
            own,
            votes: BTreeMap::new(),
            proved: BTreeMap::new(),
            stable: Arc::new([]),
            stable_n: n,
            stable_record: PersistId(0),
            ahead: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            heard_ahead: BTreeMap::new(),
            serving: None,
        }
    }

    pub fn stable_digest(&self) -> Digest {
        self.own.get(&self.stable_n).map_or_else(Digest::default, |(digest, _)| *digest)
    }

    pub fn stable_snapshot(&self) -> Snapshot<O> {
        let objects = self.own.get(&self.stable_n).map(|(_, objects)| objects.clone());
        Snapshot { n: self.stable_n, objects: objects.unwrap_or_default() }
    }

    /// What must be durable before anything up to the stable checkpoint is shown.
    pub fn stable_record(&self) -> PersistId {
        self.stable_record
    }

    pub fn stable_certificate(&self) -> Arc<[Checkpoint]> {
        self.stable.clone()
    }

    pub fn restore_certificate(&mut self, certificate: Arc<[Checkpoint]>) {
        self.stable = certificate;
    }

    /// Whether the state at checkpoint `n` is still here.
    pub fn holds(&self, n: SequenceNumber) -> bool {
        self.own.contains_key(&n)
    }

    /// The state at checkpoint `n`, for a peer that fetches it.
    pub fn serve(&mut self, now: Tick, n: SequenceNumber) -> Option<&Objects<O>> {
        if !self.own.contains_key(&n) {
            return None;
        }
        self.serving = Some((n, now));
        self.own.get(&n).map(|(_, objects)| objects)
    }

    /// The newest state beyond `executed` that 2f+1 replicas signed and that is not here, with their signatures.
    pub fn certified_beyond(
        &self,
        executed: SequenceNumber,
        quorum: usize,
    ) -> Option<Arc<[Checkpoint]>> {
        let proved = self.proved.range(executed.next()..).next_back();
        let collected = self.collected_beyond(executed, quorum);
        let newest = match (proved.map(|(_, certificate)| certificate.clone()), collected) {
            (Some(a), Some(b)) if a.first().map(|m| m.n) >= b.first().map(|m| m.n) => Some(a),
            (a, b) => b.or(a),
        };
        newest.filter(|certificate| certificate.iter().all(|m| !self.own.contains_key(&m.n)))
    }

    /// The same, of CHECKPOINTs that came one by one.
    fn collected_beyond(
        &self,
        executed: SequenceNumber,
        quorum: usize,
    ) -> Option<Arc<[Checkpoint]>> {
        let voted = self.votes.values().flat_map(BTreeMap::values);
        let all: Vec<&Checkpoint> = voted
            .chain(self.ahead.values().flat_map(BTreeMap::values))
            .filter(|m| m.n > executed)
            .collect();
        let newest_first = {
            let mut states: Vec<_> = all.iter().map(|m| (m.n, m.digest)).collect();
            states.sort_unstable();
            states.dedup();
            states.into_iter().rev()
        };
        newest_first.filter(|(n, _)| !self.own.contains_key(n)).find_map(|(n, digest)| {
            let matching = all.iter().filter(|m| (m.n, m.digest) == (n, digest));
            if planted(Planted::SignerCountsTwice) && matching.clone().count() >= quorum {
                return Some(matching.take(quorum).map(|m| **m).collect());
            }
            // One that was beyond the window first and is inside it now may be held twice.
            let signers: BTreeMap<ReplicaId, Checkpoint> =
                matching.map(|m| (m.replica, **m)).collect();
            let enough = signers.len() >= quorum;
            enough.then(|| signers.into_values().take(quorum).collect())
        })
    }

    /// Forgets everything but the state at `n`, which has been fetched and is stable.
    pub fn install(
        &mut self,
        record: PersistId,
        certificate: Arc<[Checkpoint]>,
        n: SequenceNumber,
        digest: Digest,
        objects: Objects<O>,
    ) {
        self.own = BTreeMap::from([(n, (digest, objects))]);
        self.settle(record, certificate, n);
    }

    /// `n` is the stable checkpoint from now on: what is older goes, but for what a peer is just fetching.
    fn settle(&mut self, record: PersistId, certificate: Arc<[Checkpoint]>, n: SequenceNumber) {
        self.stable_record = record;
        self.stable = certificate;
        self.stable_n = n;
        self.votes = self.votes.split_off(&n.next());
        self.proved = self.proved.split_off(&n.next());
        self.ahead.values_mut().for_each(|of_one| *of_one = of_one.split_off(&n.next()));
        let served = self.serving.map(|(served, _)| served);
        // The one before stays readable too: a peer may have heard of it just now.
        let before = self.own.range(..n).next_back().map(|(before, _)| *before);
        let kept = |held: &SequenceNumber| *held >= n || Some(*held) == served.or(before);
        self.own.retain(|held, _| kept(held));
    }

    /// Stops serving a checkpoint that nobody has asked for in a while.
    pub fn expire(&mut self, now: Tick) {
        if self.serving.is_some_and(|(_, last)| now.since(last) > SERVED_FOR) {
            self.serving = None;
        }
    }

    /// What proves the state at `n`, if it came whole or 2f+1 CHECKPOINTs have.
    fn certificate(&self, n: SequenceNumber, quorum: usize) -> Option<Arc<[Checkpoint]>> {
        if let Some(certificate) = self.proved.get(&n) {
            return Some(certificate.clone());
        }
        let votes = self.votes.get(&n)?;
        let matching = |digest: &Digest| votes.values().filter(|m| m.digest == *digest).count();
        let digest = votes.values().map(|m| m.digest).find(|digest| matching(digest) >= quorum)?;
        Some(votes.values().filter(|m| m.digest == digest).take(quorum).copied().collect())
    }

    /// `replica` now calls itself `incarnation`, and signs nothing up to `silent`. What its former self signed for later places
    /// must not stand in the way of what it signs itself.
    fn forget_former(&mut self, replica: ReplicaId, incarnation: u64, silent: SequenceNumber) {
        if self.incarnations.insert(replica, incarnation).unwrap_or(0) == incarnation {
            return;
        }
        for votes in self.votes.range_mut(silent.next()..).map(|(_, votes)| votes) {
            votes.remove(&replica);
        }
        if let Some(ahead) = self.ahead.get_mut(&replica) {
            ahead.retain(|n, _| *n <= silent);
        }
    }

    /// The CHECKPOINTs of `replica` above h.
    pub fn votes_of(&self, replica: ReplicaId) -> impl Iterator<Item = &Checkpoint> {
        self.votes.values().filter_map(move |votes| votes.get(&replica))
    }

    /// How many states, CHECKPOINTs, whole certificates and CHECKPOINTs beyond the window are held.
    pub fn held(&self) -> (usize, usize, usize, usize) {
        let votes = self.votes.values().map(BTreeMap::len).sum();
        let ahead = self.ahead.values().map(BTreeMap::len).sum();
        (self.own.len(), votes, self.proved.len(), ahead)
    }

    pub fn check_invariants(&self, low: SequenceNumber, executed: SequenceNumber) {
        assert_eq!(self.stable_n, low, "the stable checkpoint is the low water mark");
        assert!(self.own.range(..low).count() <= 1, "one older checkpoint stays readable");
        assert!(self.own.keys().all(|n| *n <= executed));
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
        let after = Some(self.shown_after);
        self.send(Destination::Replicas, Message::Checkpoint(m), after, out);
        if n > self.log.low() {
            self.checkpoints.votes.entry(n).or_default().insert(m.replica, m);
            self.stabilize(n, out);
        }
    }

    /// Forgets what replicas signed before they lost their memory.
    pub(super) fn forget_former_checkpoints(&mut self) {
        for i in self.config.size.replicas() {
            let silent = self.silent_until(i);
            self.checkpoints.forget_former(i, self.agreed_incarnation(i), silent);
        }
    }

    /// Errors: why `m`, sent by `from`, would change nothing, whoever signed it.
    pub(super) fn could_count(&self, from: Peer, m: &Checkpoint) -> Result<(), Rejection> {
        // Only certificates are handed on. Otherwise whoever kept what a former self of its maker signed could bring it back.
        if from != Peer::Replica(m.replica) && !planted(Planted::SignatureUnchecked) {
            return Err(Rejection::WrongSender);
        }
        let due = m.n.0.is_multiple_of(self.config.checkpoint_interval);
        if !due || m.n <= self.log.low() {
            return Err(Rejection::OutsideWaterMarks);
        }
        let (votes, ahead) = (&self.checkpoints.votes, &self.checkpoints.ahead);
        if m.n <= self.log.high() {
            let known = votes.get(&m.n).and_then(|votes| votes.get(&m.replica));
            return match known {
                Some(first) if first.digest == m.digest => Err(Rejection::Duplicate),
                // Worth a look once: genuine, it proves its maker faulty to anyone.
                Some(_) if !self.is_proved_faulty(m.replica) => Ok(()),
                Some(_) => Err(Rejection::SignedTwice),
                None => Ok(()),
            };
        }
        let Some(of_one) = ahead.get(&m.replica) else { return Ok(()) };
        // A correct replica takes no checkpoint as often as that.
        let often = self.checkpoints.heard_ahead.get(&m.replica);
        let often = often.is_some_and(|at| self.now.tick.since(*at) < AHEAD_PAUSE);
        match of_one.contains_key(&m.n) {
            true => Err(Rejection::Duplicate),
            false if often => Err(Rejection::TooOften),
            false => Ok(()),
        }
    }

    /// A CHECKPOINT, from its maker: its signature has been checked.
    ///
    /// Errors: `OutsideWaterMarks`; `Duplicate`; `SignedTwice`, kept as evidence.
    pub(super) fn on_checkpoint(
        &mut self,
        m: Checkpoint,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let due = m.n.0.is_multiple_of(self.config.checkpoint_interval);
        if !due || m.n <= self.log.low() {
            return Err(Rejection::OutsideWaterMarks);
        }
        if m.n > self.log.high() {
            return self.on_checkpoint_ahead(m, out);
        }
        let votes = self.checkpoints.votes.entry(m.n).or_default();
        match votes.get(&m.replica) {
            Some(first) if first.digest == m.digest => return Err(Rejection::Duplicate),
            Some(first) => {
                let proof = Proof { wrong: m, right: alloc::vec![*first] };
                self.prove_faulty(Misdeed::Contradiction, proof);
                return Err(Rejection::SignedTwice);
            }
            None => votes.insert(m.replica, m),
        };
        self.stabilize(m.n, out);
        Ok(())
    }

    /// 2f+1 CHECKPOINTs for one state, which have been checked. One liar's CHECKPOINTs for other states, or for far-away
    /// sequence numbers, cannot crowd them out.
    ///
    /// Errors: `OutsideWaterMarks`; `Duplicate`.
    pub(super) fn on_stable_certificate(
        &mut self,
        from: Option<ReplicaId>,
        certificate: Arc<[Checkpoint]>,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        if let Some(donor) = from {
            self.heed_donor(donor, &certificate, out);
        }
        let n = certificate.first().map_or(SequenceNumber(0), |m| m.n);
        self.is_worth_proving(n)?;
        let (proved, high) = (&mut self.checkpoints.proved, self.log.high());
        if n > high {
            proved.retain(|held, _| *held <= high);
        }
        proved.insert(n, certificate);
        if n > high {
            self.consider_transfer(out);
        } else {
            self.stabilize(n, out);
        }
        Ok(())
    }

    /// Errors: why `certificate`, sent by `from`, would change nothing, whoever signed it.
    pub(super) fn could_prove(
        &self,
        from: ReplicaId,
        certificate: &[Checkpoint],
    ) -> Result<(), Rejection> {
        match certificate.first() {
            Some(first) if !self.awaits_answer_of(from, first.n) => self.is_worth_proving(first.n),
            _ => Ok(()),
        }
    }

    /// Errors: why a proof of the state at `n` would change nothing.
    fn is_worth_proving(&self, n: SequenceNumber) -> Result<(), Rejection> {
        let beyond = n > self.log.high();
        if !n.0.is_multiple_of(self.config.checkpoint_interval)
            || n <= self.log.low()
            || beyond && planted(Planted::CertificateOutsideWindow)
        {
            return Err(Rejection::OutsideWaterMarks);
        }
        let proved = &self.checkpoints.proved;
        // Only the newest of those beyond the window is of use.
        let overtaken = beyond && proved.keys().next_back().is_some_and(|newest| *newest > n);
        let known = overtaken || proved.contains_key(&n);
        if known { Err(Rejection::Duplicate) } else { Ok(()) }
    }

    /// A CHECKPOINT beyond the high water mark: where a quorum is there, this replica has been left behind for good.
    fn on_checkpoint_ahead(
        &mut self,
        m: Checkpoint,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let most = self.config.window / self.config.checkpoint_interval + 2;
        self.checkpoints.heard_ahead.insert(m.replica, self.now.tick);
        let of_one = self.checkpoints.ahead.entry(m.replica).or_default();
        if of_one.insert(m.n, m).is_some() {
            return Err(Rejection::Duplicate);
        }
        if of_one.len() as u64 > most && !planted(Planted::AheadUnbounded) {
            of_one.pop_first();
        }
        self.consider_transfer(out);
        Ok(())
    }

    /// Makes the checkpoint at `n` stable if 2f+1 replicas signed the state that is also here.
    fn stabilize(&mut self, n: SequenceNumber, out: &mut Vec<Output>) {
        let size = self.config.size;
        let enough = if planted(Planted::CheckpointOnWeak) { size.weak() } else { size.quorum() };
        let certificate = self.checkpoints.certificate(n, enough);
        let (Some(certificate), Some((own, _))) = (certificate, self.checkpoints.own.get(&n))
        else {
            return;
        };
        let Some(digest) = certificate.first().map(|m| m.digest) else { return };
        if *own != digest {
            let own = *own;
            self.raise(Alarm::StateDiverged { n, own, certificate }, out);
            return;
        }
        self.look_for_liars(&certificate);
        let record = self.persist(Record::Stable { certificate: certificate.clone() }, out);
        self.checkpoints.settle(record, certificate, n);
        self.log.truncate(n);
        self.requests.forget_wanted(n);
        self.authority.forget_dismissed(n);
        // What a new view chose beyond the old high water mark has its place now.
        self.place_chosen(out);
        self.seek_new_view(out);
    }

    /// Whoever signed another state for the same sequence number is proved faulty by the certificate.
    fn look_for_liars(&mut self, certificate: &[Checkpoint]) {
        let Some(first) = certificate.first() else { return };
        let votes = self.checkpoints.votes.get(&first.n).map(BTreeMap::values);
        let liars = votes.into_iter().flatten().filter(|m| m.digest != first.digest);
        for wrong in liars.copied().collect::<Vec<_>>() {
            let others = certificate.iter().filter(|m| m.replica != wrong.replica);
            let right = others.take(self.config.size.weak()).copied().collect();
            self.prove_faulty(Misdeed::WrongState, Proof { wrong, right });
        }
    }

    fn prove_faulty(&mut self, misdeed: Misdeed, proof: Proof) {
        // What its former self has signed may be looked at long after it was set up anew.
        let incarnation = self.incarnation_at(proof.wrong.replica, proof.wrong.n);
        self.evidence.prove(incarnation, misdeed, proof);
    }

    fn is_proved_faulty(&self, replica: ReplicaId) -> bool {
        self.evidence.is_proved(replica, self.agreed_incarnation(replica))
    }
}
