//! Replies that a quorum has outvoted: this client has seen their senders lie, and needs nobody's word for it.
//!
//! Counted is only what no correct replica says, given what the quorum said: another result of the same request for good, or
//! in the same view; or another result of a read at the same version. What is merely older, or newer, is not.

use super::{ReadVote, Vote};
use crate::messages::{ReadReply, Reply};
use crate::types::{Digest, ReplicaId, Slot};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// How many decided reads are remembered for replies that come late.
const READS_KEPT: usize = 64;

/// How often each replica was outvoted, and what was decided last, for replies that come late.
#[derive(Clone)]
pub(super) struct Outvoted {
    counts: Vec<u64>,
    /// The last decision on each lane: request and vote.
    calls: BTreeMap<Slot, (Digest, Vote)>,
    /// The last decided reads, by attempt. At most [`READS_KEPT`].
    reads: BTreeMap<u64, ReadVote>,
}

impl Outvoted {
    pub fn new(n: usize) -> Self {
        Self { counts: alloc::vec![0; n], calls: BTreeMap::new(), reads: BTreeMap::new() }
    }

    /// How often each replica was outvoted, by replica.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    fn count(&mut self, liar: usize) {
        if let Some(count) = self.counts.get_mut(liar) {
            *count = count.saturating_add(1);
        }
    }

    /// A quorum says `decided` of `request`; `votes` is what each replica has said until now.
    pub fn settle(&mut self, slot: Slot, request: Digest, decided: &Vote, votes: &[Option<Vote>]) {
        for (i, vote) in votes.iter().enumerate() {
            if vote.as_ref().is_some_and(|vote| decided.refutes(vote)) {
                self.count(i);
            }
        }
        self.calls.insert(slot, (request, Vote { whole: None, ..decided.clone() }));
    }

    /// A reply to a call that is no longer under way.
    pub fn on_late_reply(&mut self, from: ReplicaId, m: Reply) {
        let Some((request, decided)) = self.calls.get(&m.slot) else { return };
        if *request == m.request && decided.refutes(&Vote::of(m)) {
            self.count(from.index());
        }
    }

    /// A quorum says `decided` in answer to the read `attempt`; `votes` is what each replica has said until now.
    pub fn settle_read(&mut self, attempt: u64, decided: &ReadVote, votes: &[Option<ReadVote>]) {
        for (i, vote) in votes.iter().enumerate() {
            if vote.as_ref().is_some_and(|vote| decided.refutes(vote)) {
                self.count(i);
            }
        }
        let decided = ReadVote { whole: None, ..decided.clone() };
        self.reads.insert(attempt, decided);
        if self.reads.len() > READS_KEPT {
            self.reads.pop_first();
        }
    }

    /// An answer to a read that is no longer under way.
    pub fn on_late_read_reply(&mut self, from: ReplicaId, m: ReadReply) {
        let Some(decided) = self.reads.get(&m.attempt) else { return };
        if decided.refutes(&ReadVote::new(m.version, m.result)) {
            self.count(from.index());
        }
    }
}

impl Vote {
    /// Whether no correct replica says `other` where a quorum says this. What was tentative in another view may have been
    /// undone since.
    fn refutes(&self, other: &Vote) -> bool {
        let comparable = other.tentative.is_none() || other.tentative == self.tentative;
        comparable && !self.says_the_same(other)
    }
}

impl ReadVote {
    /// Whether no correct replica says `other` where a quorum says this: it speaks of the same version, and differs.
    fn refutes(&self, other: &ReadVote) -> bool {
        let differs = self.digest.is_some() && self.digest != other.digest;
        self.version == other.version && other.digest.is_some() && differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Outcome, ResultBody};
    use crate::types::{SequenceNumber, View};

    fn vote(n: u64, result: u8, tentative: Option<u64>) -> Vote {
        let outcome = Outcome::Result(ResultBody::Digest(Digest([result; 32])));
        Vote { n: SequenceNumber(n), outcome, tentative: tentative.map(View), whole: None }
    }

    #[test]
    fn another_result_for_good_or_in_the_same_view_is_a_lie() {
        let decided = vote(5, 1, Some(2));
        let others =
            [None, Some(vote(5, 9, Some(2))), Some(vote(5, 9, None)), Some(vote(5, 1, None))];
        let mut outvoted = Outvoted::new(4);
        outvoted.settle(Slot(0), Digest([0; 32]), &decided, &others);
        assert_eq!(outvoted.counts(), [0, 1, 1, 0]);
    }

    #[test]
    fn what_was_tentative_in_another_view_may_have_been_undone() {
        let others = [Some(vote(4, 9, Some(1))), Some(vote(4, 9, Some(2))), None, None];
        let mut outvoted = Outvoted::new(4);
        outvoted.settle(Slot(0), Digest([0; 32]), &vote(5, 1, Some(2)), &others);
        outvoted.settle(Slot(0), Digest([0; 32]), &vote(5, 1, None), &others);
        assert_eq!(outvoted.counts(), [0, 1, 0, 0]);
    }

    fn read(version: u64, result: Option<u8>) -> ReadVote {
        let digest = result.map(|byte| Digest([byte; 32]));
        ReadVote { version: SequenceNumber(version), digest, whole: None }
    }

    #[test]
    fn a_read_at_another_version_is_old_or_new_and_no_lie() {
        let votes = [Some(read(7, Some(9))), Some(read(6, Some(9))), Some(read(7, None)), None];
        let mut outvoted = Outvoted::new(4);
        outvoted.settle_read(1, &read(7, Some(1)), &votes);
        assert_eq!(outvoted.counts(), [1, 0, 0, 0]);
    }

    #[test]
    fn a_reply_that_comes_late_counts_as_long_as_its_read_is_remembered() {
        let mut outvoted = Outvoted::new(4);
        let late = |attempt| ReadReply {
            view: View(0),
            session: Default::default(),
            attempt,
            version: SequenceNumber(7),
            result: Some(ResultBody::Digest(Digest([9; 32]))),
        };
        for attempt in 0..=READS_KEPT as u64 {
            outvoted.settle_read(attempt, &read(7, Some(1)), &[]);
        }
        outvoted.on_late_read_reply(ReplicaId(3), late(0));
        assert_eq!(outvoted.counts(), [0; 4], "forgotten");
        outvoted.on_late_read_reply(ReplicaId(3), late(1));
        assert_eq!(outvoted.counts(), [0, 0, 0, 1]);
    }
}
