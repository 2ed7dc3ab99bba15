//! What correct replicas have said and written, so that whatever is claimed of them can be held against it: I-2, I-12, I-13.

use crate::adversary::digest_of;
use crate::node::Disk;
use bft_core::auth::view_change_digest;
use bft_core::io::Record;
use bft_core::messages::{Checkpoint, Committed, Message, NewView, PrePrepare};
use bft_core::types::{ClusterSize, Digest, GroupId, ReplicaId, SequenceNumber, View};
use std::collections::{BTreeMap, BTreeSet};

/// The words of every correct replica, and what has committed.
pub struct Evidence {
    group: GroupId,
    size: ClusterSize,
    /// Not the core's own arithmetic: that is under test too.
    quorum: usize,
    faulty: BTreeSet<ReplicaId>,
    /// Who has been faulty at any time, and may have signed anything then.
    ever_faulty: BTreeSet<ReplicaId>,
    /// Who prepared what, and in which view last.
    prepared: BTreeMap<(SequenceNumber, Digest), BTreeMap<ReplicaId, View>>,
    /// Who took which checkpoint.
    checkpoints: BTreeMap<(SequenceNumber, Digest), BTreeSet<ReplicaId>>,
    /// Who sent which VIEW-CHANGE.
    view_changes: BTreeSet<(ReplicaId, Digest)>,
    /// What has committed at a correct replica, and in which view.
    committed: BTreeMap<SequenceNumber, (Digest, View)>,
    /// The highest view that each replica promised.
    promised: BTreeMap<ReplicaId, View>,
}

impl Evidence {
    /// Of a new group in which the replicas `faulty` may say anything.
    pub fn new(group: GroupId, size: ClusterSize, faulty: BTreeSet<ReplicaId>) -> Self {
        Self {
            group,
            size,
            quorum: (size.n() + size.f() + 1).div_ceil(2),
            ever_faulty: faulty.clone(),
            faulty,
            prepared: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            view_changes: BTreeSet::new(),
            committed: BTreeMap::new(),
            promised: BTreeMap::new(),
        }
    }

    /// From now on `id` may say anything, and what it promised binds it no more.
    pub fn convict(&mut self, id: ReplicaId) {
        self.faulty.insert(id);
        self.ever_faulty.insert(id);
        self.promised.remove(&id);
    }

    /// From now on `id` is correct.
    pub fn acquit(&mut self, id: ReplicaId) {
        self.faulty.remove(&id);
    }

    /// The highest view for which this replica has let a VIEW-CHANGE go.
    pub fn promised(&self, id: ReplicaId) -> View {
        self.promised.get(&id).copied().unwrap_or_default()
    }

    /// The correct replica `id` has executed `digest` at `n`.
    ///
    /// Errors: I-12, where no quorum can have prepared it.
    pub fn on_executed(
        &mut self,
        id: ReplicaId,
        n: SequenceNumber,
        digest: Digest,
    ) -> Result<(), String> {
        if self.committed.contains_key(&n) {
            return Ok(());
        }
        // Whoever executes first has prepared it itself, in the view in which it commits.
        let prepared = self.prepared.get(&(n, digest));
        let view = prepared.and_then(|by| by.get(&id)).copied();
        let correct =
            prepared.map_or(0, |by| by.keys().filter(|i| !self.faulty.contains(i)).count());
        self.committed.insert(n, (digest, view.unwrap_or(View(u64::MAX))));
        if n.0.is_multiple_of(1_000) {
            let old = SequenceNumber(n.0.saturating_sub(2_000));
            self.prepared = self.prepared.split_off(&(old, Digest::default()));
        }
        if view.is_none() || correct + self.faulty.len() < self.quorum {
            return Err(format!(
                "I-12: {id:?} executed {n:?}, but {correct} correct replicas prepared {digest:?}"
            ));
        }
        Ok(())
    }

    /// A replica has taken a checkpoint.
    pub fn on_checkpoint(&mut self, id: ReplicaId, n: SequenceNumber, digest: Digest) {
        self.checkpoints.entry((n, digest)).or_default().insert(id);
    }

    /// A correct replica writes `record`.
    ///
    /// Errors: I-12, where it rests on a certificate that no quorum made.
    pub fn on_record(&mut self, id: ReplicaId, record: &Record) -> Result<(), String> {
        match record {
            Record::P { n, digest, view } => {
                self.prepared.entry((*n, *digest)).or_default().insert(id, *view);
                Ok(())
            }
            Record::Decided { n, digest, .. } => match self.committed.get(n) {
                Some((committed, _)) if committed == digest => Ok(()),
                _ => Err(format!("I-12: {n:?} was decided as {digest:?}, which never committed")),
            },
            Record::Stable { certificate } => self.check_certificate(id, certificate),
            _ => Ok(()),
        }
    }

    fn check_certificate(&self, id: ReplicaId, certificate: &[Checkpoint]) -> Result<(), String> {
        let signers: BTreeSet<ReplicaId> = certificate.iter().map(|m| m.replica).collect();
        let genuine = certificate.iter().all(|m| {
            let signed = self.checkpoints.get(&(m.n, m.digest));
            self.ever_faulty.contains(&m.replica)
                || signed.is_some_and(|by| by.contains(&m.replica))
        });
        if genuine && signers.len() >= self.quorum {
            return Ok(());
        }
        let n = certificate.first().map_or(0, |m| m.n.0);
        Err(format!(
            "I-12: {id:?}'s certificate for the checkpoint at n{n}, signed by {signers:?}, is not a quorum's"
        ))
    }

    /// A correct replica lets `message` go; `disk` is what it would find after a crash.
    ///
    /// Errors: I-13, where a restart would deny it; I-2, where it gives up what had committed.
    pub fn on_send(&mut self, id: ReplicaId, message: &Message, disk: &Disk) -> Result<(), String> {
        match message {
            Message::Prepare(m) => {
                self.check_survives(id, m.n, m.digest, m.view)?;
                let voted = |record: &Record| matches!(record, Record::Q { n, view, digest, .. } if (*n, *view, *digest) == (m.n, m.view, m.digest));
                Self::check_durable(id, "PREPARE", m.n, disk, voted)
            }
            Message::Commit(m) => {
                self.check_survives(id, m.n, m.digest, m.view)?;
                let prepared = |record: &Record| matches!(record, Record::P { n, view, digest } if (*n, *view, *digest) == (m.n, m.view, m.digest));
                Self::check_durable(id, "COMMIT", m.n, disk, prepared)
            }
            Message::PrePrepare(m) => {
                let voted = |record: &Record| matches!(record, Record::Q { n, view, .. } if (*n, *view) == (m.n, m.view));
                Self::check_durable(id, "PRE-PREPARE", m.n, disk, voted)
            }
            Message::Reply(m) => {
                let prepared = |record: &Record| matches!(record, Record::P { n, .. } | Record::Decided { n, .. } if *n == m.n);
                Self::check_durable(id, "REPLY", m.n, disk, prepared)
            }
            Message::Committed(m) => {
                let Committed { n, time, batch } = m.clone();
                let claimed = digest_of(&PrePrepare { view: View(0), n, time, batch });
                match self.committed.get(&n) {
                    Some((committed, _)) if *committed != claimed => Err(format!(
                        "I-12: {id:?} claims that {claimed:?} committed at {n:?}, where {committed:?} did"
                    )),
                    _ => Ok(()),
                }
            }
            Message::ViewChange(m) if m.replica == id => {
                self.view_changes.insert((id, view_change_digest(self.group, m)));
                let promised = self.promised.entry(id).or_default();
                *promised = (*promised).max(m.view);
                let durable = |record: &Record| matches!(record, Record::View(v) if *v >= m.view);
                match disk.records.iter().any(durable) {
                    true => Ok(()),
                    false => {
                        Err(format!("I-13: {id:?} sent VIEW-CHANGE before its view was durable"))
                    }
                }
            }
            Message::NewView(m) if self.size.primary(m.view) == id => {
                self.check_new_view(id, m, disk)
            }
            _ => Ok(()),
        }
    }

    /// I-2: a vote in a later view than that in which `n` committed is for what committed.
    fn check_survives(
        &self,
        id: ReplicaId,
        n: SequenceNumber,
        digest: Digest,
        view: View,
    ) -> Result<(), String> {
        match self.committed.get(&n) {
            Some((committed, by)) if *by < view && *committed != digest => Err(format!(
                "I-2: {id:?} votes for {digest:?} at {n:?} in {view:?}, but {committed:?} committed by {by:?}"
            )),
            _ => Ok(()),
        }
    }

    fn check_durable(
        id: ReplicaId,
        what: &str,
        n: SequenceNumber,
        disk: &Disk,
        proves: impl Fn(&Record) -> bool,
    ) -> Result<(), String> {
        if n <= disk.snapshot.n || disk.records.iter().rev().any(proves) {
            return Ok(());
        }
        Err(format!("I-13: {id:?} let {what} for {n:?} go before its record was durable"))
    }

    fn check_new_view(&self, id: ReplicaId, m: &NewView, disk: &Disk) -> Result<(), String> {
        for (i, digest) in &m.view_changes {
            let known = *i == id
                || self.ever_faulty.contains(i)
                || self.view_changes.contains(&(*i, *digest));
            if !known {
                return Err(format!(
                    "I-12: {id:?}'s NEW-VIEW names a VIEW-CHANGE that {i:?} never sent"
                ));
            }
        }
        for (n, (committed, by)) in self.committed.range(m.stable.next()..) {
            let place = (n.0 - m.stable.0 - 1) as usize;
            let chosen = m.batches.get(place);
            if *by < m.view && chosen != Some(committed) {
                return Err(format!(
                    "I-2: {id:?}'s NEW-VIEW for {:?} has {chosen:?} at {n:?}, but {committed:?} committed by {by:?}",
                    m.view
                ));
            }
        }
        let durable = |record: &Record| matches!(record, Record::NewView { new_view, .. } if new_view.view >= m.view);
        match disk.records.iter().any(durable) {
            true => Ok(()),
            false => Err(format!("I-13: {id:?} sent NEW-VIEW before it was durable")),
        }
    }
}
