//! Quorums by distinct sender: the only way to count votes.

use crate::io::Rejection;
use crate::planted::{Planted, planted};
use crate::types::{Digest, ReplicaId};
use alloc::vec::Vec;

/// The votes of one phase at one (v, n): at most one a replica, the first stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Certificate {
    votes: Vec<(ReplicaId, Digest)>,
    /// Second votes with another digest: evidence, one a replica.
    conflicts: Vec<(ReplicaId, Digest)>,
}

impl Certificate {
    /// Counts the vote of `from` for `digest`.
    ///
    /// Requires: `from` is a replica of the group, so at most n votes are ever kept.
    /// Errors: `Duplicate`; `ConflictingVote`, kept as evidence.
    pub fn add(&mut self, from: ReplicaId, digest: Digest) -> Result<(), Rejection> {
        match self.votes.iter().find(|(voter, _)| *voter == from) {
            None => {
                self.votes.push((from, digest));
                Ok(())
            }
            Some((_, first)) if *first == digest => Err(Rejection::Duplicate),
            Some(_) => {
                if self.conflicts.iter().all(|(voter, _)| *voter != from) {
                    self.conflicts.push((from, digest));
                }
                Err(Rejection::ConflictingVote)
            }
        }
    }

    /// How many replicas voted for `digest`.
    pub fn count(&self, digest: Digest) -> usize {
        let any = planted(Planted::DigestUnchecked);
        self.votes.iter().filter(|(_, voted)| any || *voted == digest).count()
    }

    /// How many replicas other than `except` voted for `digest`.
    pub fn count_without(&self, digest: Digest, except: &[ReplicaId]) -> usize {
        let others = |voter: &ReplicaId| !except.contains(voter);
        self.votes.iter().filter(|(voter, voted)| *voted == digest && others(voter)).count()
    }

    /// A digest that at least `quorum` replicas voted for.
    pub fn support(&self, quorum: usize) -> Option<Digest> {
        let voted = self.votes.iter().map(|(_, digest)| *digest);
        voted.into_iter().find(|digest| self.count(*digest) >= quorum)
    }

    /// How many votes are kept, second ones included: at most two a replica.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.votes.len() + self.conflicts.len()
    }

    /// What `of` voted for.
    pub fn vote(&self, of: ReplicaId) -> Option<Digest> {
        self.votes.iter().find(|(voter, _)| *voter == of).map(|(_, digest)| *digest)
    }

    /// The replicas that voted twice, and their second vote.
    pub fn conflicts(&self) -> &[(ReplicaId, Digest)] {
        &self.conflicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    #[test]
    fn a_replica_counts_once_whatever_it_sends() {
        let mut votes = Certificate::default();
        assert_eq!(votes.add(ReplicaId(1), digest(1)), Ok(()));
        assert_eq!(votes.add(ReplicaId(1), digest(1)), Err(Rejection::Duplicate));
        assert_eq!(votes.add(ReplicaId(1), digest(2)), Err(Rejection::ConflictingVote));
        assert_eq!(votes.count(digest(1)), 1);
        assert_eq!(votes.count(digest(2)), 0);
        assert_eq!(votes.conflicts(), [(ReplicaId(1), digest(2))]);
    }

    #[test]
    fn support_needs_a_quorum_for_one_digest() {
        let mut votes = Certificate::default();
        votes.add(ReplicaId(0), digest(1)).unwrap();
        votes.add(ReplicaId(1), digest(2)).unwrap();
        votes.add(ReplicaId(2), digest(2)).unwrap();
        assert_eq!(votes.support(3), None);
        votes.add(ReplicaId(3), digest(2)).unwrap();
        assert_eq!(votes.support(3), Some(digest(2)));
        assert_eq!(votes.count_without(digest(2), &[ReplicaId(3)]), 2);
    }
}
