//! What a replica has said binds it, whatever it forgets: restarts, an empty disk, another view. (decisions 4 and 13)

use crate::adversary::digest_of;
use bft_core::messages::{Message, NewView, ViewChange};
use bft_core::types::{ClusterSize, Digest, ReplicaId, SequenceNumber, View};
use std::collections::BTreeMap;

/// The words of every replica that does not lie on purpose, one that lost its disk included.
pub struct Words {
    size: ClusterSize,
    said: BTreeMap<ReplicaId, Said>,
}

/// One replica's.
#[derive(Default)]
struct Said {
    /// Its votes, by kind.
    votes: BTreeMap<(&'static str, View, SequenceNumber), Digest>,
    /// The last COMMIT for each place.
    committed: BTreeMap<SequenceNumber, (View, Digest)>,
    /// The last PREPARE or PRE-PREPARE for each batch.
    prepared: BTreeMap<(SequenceNumber, Digest), View>,
    /// Its checkpoints.
    checkpoints: BTreeMap<SequenceNumber, Digest>,
    /// The NEW-VIEWs that it made.
    new_views: BTreeMap<View, NewView>,
    /// The latest view in which it voted.
    voted_in: View,
    /// The view that it promised to go to, and how often it had lost its memory then.
    promised: (u64, View),
}

impl Words {
    /// Of a new group.
    pub fn new(size: ClusterSize) -> Self {
        Self { size, said: BTreeMap::new() }
    }

    /// `id`, which has lost its memory `losses` times, lets `message` go.
    ///
    /// Errors: I-13, where it denies what it said before.
    pub fn on_send(&mut self, id: ReplicaId, losses: u64, message: &Message) -> Result<(), String> {
        let said = self.said.entry(id).or_default();
        let found = match message {
            Message::PrePrepare(m) => said.vote("PRE-PREPARE", losses, m.view, m.n, digest_of(m)),
            Message::Prepare(m) => said.vote("PREPARE", losses, m.view, m.n, m.digest),
            Message::Commit(m) => said.vote("COMMIT", losses, m.view, m.n, m.digest),
            Message::ViewChange(m) if m.replica == id => {
                said.promise(losses, m.view);
                said.holds_to(m, self.size.f() + 2)
            }
            Message::NewView(m) if self.size.primary(m.view) == id => said.begin(m),
            Message::Checkpoint(m) if m.replica == id => {
                let first = *said.checkpoints.entry(m.n).or_insert(m.digest);
                let what = || format!("two states at {:?}", m.n);
                if first == m.digest { Ok(()) } else { Err(what()) }
            }
            _ => Ok(()),
        };
        found.map_err(|what| format!("I-13: {id:?} contradicts itself: {what}"))
    }
}

impl Said {
    fn vote(
        &mut self,
        kind: &'static str,
        losses: u64,
        view: View,
        n: SequenceNumber,
        digest: Digest,
    ) -> Result<(), String> {
        let first = *self.votes.entry((kind, view, n)).or_insert(digest);
        if first != digest {
            return Err(format!("{kind} for {first:?} and {digest:?} at {n:?} in {view:?}"));
        }
        if view < self.voted_in {
            return Err(format!("{kind} in {view:?} after a vote in {:?}", self.voted_in));
        }
        // Who lost its memory may be let in again where it had promised to leave: its old promise counts no more.
        if self.promised.0 == losses && view < self.promised.1 {
            return Err(format!("{kind} in {view:?} after VIEW-CHANGE for {:?}", self.promised.1));
        }
        self.voted_in = view;
        if kind == "COMMIT" {
            self.committed.insert(n, (view, digest));
        } else {
            self.prepared.insert((n, digest), view);
        }
        Ok(())
    }

    fn promise(&mut self, losses: u64, view: View) {
        let before = if self.promised.0 == losses { self.promised.1 } else { View(0) };
        self.promised = (losses, before.max(view));
    }

    /// P and Q of `m` hold whatever it voted for above its stable checkpoint; of the batches at one place, the `most` newest.
    fn holds_to(&self, m: &ViewChange, most: usize) -> Result<(), String> {
        // It may be sent again after votes in its own view.
        let committed = self.committed.range(m.stable.next()..);
        for (n, (view, digest)) in committed.filter(|(_, (view, _))| *view < m.view) {
            let claim = m.prepared.iter().find(|claim| claim.n == *n);
            let kept = claim.is_some_and(|claim| {
                claim.view > *view || claim.view == *view && claim.digest == *digest
            });
            if !kept {
                return Err(format!("COMMIT for {n:?} in {view:?}, and P has {claim:?}"));
            }
        }
        let from = (m.stable.next(), Digest::default());
        let prepared = self.prepared.range(from..).filter(|(_, view)| **view < m.view);
        for ((n, digest), view) in prepared {
            let of_n: Vec<_> = m.pre_prepared.iter().filter(|claim| claim.n == *n).collect();
            let kept = of_n.iter().any(|claim| claim.digest == *digest && claim.view >= *view);
            if !kept && of_n.len() < most {
                return Err(format!("a vote for {digest:?} at {n:?} in {view:?} is not in Q"));
            }
        }
        Ok(())
    }

    fn begin(&mut self, m: &NewView) -> Result<(), String> {
        let first = self.new_views.entry(m.view).or_insert_with(|| m.clone());
        if first == m { Ok(()) } else { Err(format!("two NEW-VIEWs for {:?}", m.view)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bft_core::messages::{Commit, Prepare};

    #[test]
    fn a_word_is_kept_across_views_and_lost_memories() {
        let size = ClusterSize::new(4, 1).expect("a group");
        let (id, n) = (ReplicaId(1), SequenceNumber(1));
        let prepare = |view, byte| {
            Message::Prepare(Prepare { view: View(view), n, digest: Digest([byte; 32]) })
        };
        let mut words = Words::new(size);
        assert_eq!(words.on_send(id, 0, &prepare(1, 1)), Ok(()));
        assert_eq!(words.on_send(id, 0, &prepare(1, 1)), Ok(()), "said again");
        assert!(words.on_send(id, 1, &prepare(1, 2)).is_err(), "another batch, from an empty disk");
        assert!(words.on_send(id, 0, &prepare(0, 1)).is_err(), "an older view");
        assert_eq!(words.on_send(id, 0, &prepare(2, 2)), Ok(()), "a later view is another matter");
        assert_eq!(words.on_send(ReplicaId(2), 0, &prepare(0, 9)), Ok(()), "nobody else's word");
        let commit = Commit { view: View(2), n, digest: Digest([2; 32]) };
        assert_eq!(words.on_send(id, 0, &Message::Commit(commit)), Ok(()));
    }
}
