//! What speaks against a replica, as another one reports it: counts of what no correct replica sends, and signed messages
//! that prove a lie to anyone.
//!
//! A report proves nothing by itself, for its author may lie too. A [`Proof`] does, and so do f+1 reports, of which one is
//! a correct replica's.

use crate::auth::{Signature, checkpoint_signing_digest};
use crate::io::Rejection;
use crate::messages::Checkpoint;
use crate::types::{ClusterSize, Digest, GroupId, ReplicaId, Tick};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use core::fmt;

/// What no correct replica does, whatever the network does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Misdeed {
    /// Sends bytes that are no message, or one that is larger than its limit or breaks its form.
    Malformed,
    /// Passes on what nobody has signed, or a checkpoint that nothing proves.
    Forged,
    /// Sends what only the primary may send, or, as the primary, what it must not.
    OutOfTurn,
    /// Says two different things where there is only one to say.
    Contradiction,
    /// Signs, or hands out, another state than a quorum signed.
    WrongState,
    /// Begins a view with batches that do not follow from what the others said.
    WrongNewView,
}

impl Misdeed {
    /// What a rejected message of a replica says about its sender, if it says anything: most are merely late, or relayed.
    pub fn of(why: Rejection) -> Option<Self> {
        match why {
            Rejection::Malformed | Rejection::TooLarge | Rejection::DuplicateInBatch => {
                Some(Misdeed::Malformed)
            }
            Rejection::BadSignature | Rejection::UnprovedCheckpoint => Some(Misdeed::Forged),
            Rejection::NotPrimary | Rejection::SenderIsPrimary => Some(Misdeed::OutOfTurn),
            Rejection::ConflictingPrePrepare | Rejection::ConflictingVote => {
                Some(Misdeed::Contradiction)
            }
            Rejection::WrongPart => Some(Misdeed::WrongState),
            Rejection::WrongNewView => Some(Misdeed::WrongNewView),
            _ => None,
        }
    }
}

impl fmt::Display for Misdeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Misdeed::Malformed => "sends malformed messages",
            Misdeed::Forged => "passes on what nobody has signed",
            Misdeed::OutOfTurn => "speaks out of turn",
            Misdeed::Contradiction => "contradicts itself",
            Misdeed::WrongState => "vouches for a wrong state",
            Misdeed::WrongNewView => "begins a view with the wrong batches",
        })
    }
}

/// Signed CHECKPOINTs that no correct replica leaves behind: one of the accused, and for the same n either another one of
/// its own, or f+1 of others, all for one other state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proof {
    /// What the accused signed.
    pub wrong: Checkpoint,
    /// What contradicts it: ascending by replica, at most f+1.
    pub right: Vec<Checkpoint>,
}

impl Proof {
    /// Whether this proves to anyone that `wrong.replica` is faulty, if at most f replicas are. `verify` says whether a
    /// replica has signed a digest.
    pub fn holds(
        &self,
        group: GroupId,
        size: ClusterSize,
        verify: impl Fn(ReplicaId, &Digest, &Signature) -> bool,
    ) -> bool {
        let Self { wrong, right } = self;
        let Some(first) = right.first() else { return false };
        let own = right.len() == 1 && first.replica == wrong.replica;
        let others = right.len() == size.weak()
            && right.is_sorted_by(|a, b| a.replica < b.replica)
            && right.iter().all(|m| m.replica != wrong.replica);
        let one_state = right.iter().all(|m| (m.n, m.digest) == (wrong.n, first.digest));
        let genuine = |m: &Checkpoint| {
            let signed = checkpoint_signing_digest(group, m.n, &m.digest, m.replica);
            size.contains(m.replica) && verify(m.replica, &signed, &m.signature)
        };
        (own || others)
            && one_state
            && first.digest != wrong.digest
            && genuine(wrong)
            && right.iter().all(genuine)
    }
}

/// What one replica holds against another.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Accusation {
    /// Who is accused.
    pub replica: ReplicaId,
    /// How often it did what no correct replica does, and what it did last.
    pub misdeeds: Option<(u64, Misdeed)>,
    /// How often its accuser lost patience with it as the primary, and how long ago it last did. Units: milliseconds.
    pub given_up: Option<(u64, u64)>,
    /// Whether it has lost its memory since, and hence was set up anew: all of this is the past then.
    pub recovered: bool,
    /// What proves it.
    pub proof: Option<Proof>,
}

/// What this replica holds against every other one, since its own start.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// At most one for every replica of the group.
    against: BTreeMap<ReplicaId, Record>,
}

#[derive(Clone, Debug, Default)]
struct Record {
    /// What the accused called itself then.
    incarnation: u64,
    misdeeds: Option<(u64, Misdeed)>,
    given_up: Option<(u64, Tick)>,
    proof: Option<Proof>,
}

impl Evidence {
    /// How many accusations one HEALTH may carry.
    pub const MAX_ACCUSATIONS: usize = 16;

    /// The record of `replica` as `incarnation`; nothing where a later one has a record.
    fn against(&mut self, replica: ReplicaId, incarnation: u64) -> Option<&mut Record> {
        let record = self.against.entry(replica).or_default();
        if record.incarnation < incarnation {
            *record = Record { incarnation, ..Record::default() };
        }
        (record.incarnation == incarnation).then_some(record)
    }

    /// `replica`, a member of the group that now calls itself `incarnation`, did what no correct one does.
    pub fn note(&mut self, replica: ReplicaId, incarnation: u64, misdeed: Misdeed) {
        let Some(record) = self.against(replica, incarnation) else { return };
        let before = record.misdeeds.map_or(0, |(count, _)| count);
        record.misdeeds = Some((before.saturating_add(1), misdeed));
    }

    /// The same, with what proves it. The first proof stands.
    pub fn prove(&mut self, incarnation: u64, misdeed: Misdeed, proof: Proof) {
        let replica = proof.wrong.replica;
        self.note(replica, incarnation, misdeed);
        if let Some(record) = self.against(replica, incarnation) {
            record.proof.get_or_insert(proof);
        }
    }

    /// Whether something proves that `replica`, which now calls itself `incarnation`, is faulty.
    pub fn is_proved(&self, replica: ReplicaId, incarnation: u64) -> bool {
        let record = self.against.get(&replica);
        record.is_some_and(|r| r.incarnation >= incarnation && r.proof.is_some())
    }

    /// This replica has lost patience with `replica`, the primary, at `now`.
    pub fn give_up(&mut self, replica: ReplicaId, incarnation: u64, now: Tick) {
        let Some(record) = self.against(replica, incarnation) else { return };
        let before = record.given_up.map_or(0, |(count, _)| count);
        record.given_up = Some((before.saturating_add(1), now));
    }

    /// All of it as of `now`, ascending by replica; `incarnation` says what each one calls itself now.
    pub fn report(&self, now: Tick, incarnation: impl Fn(ReplicaId) -> u64) -> Vec<Accusation> {
        let ago = |(count, at): (u64, Tick)| {
            (count, u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX))
        };
        let report = self.against.iter().map(|(replica, record)| Accusation {
            replica: *replica,
            misdeeds: record.misdeeds,
            given_up: record.given_up.map(ago),
            recovered: record.incarnation < incarnation(*replica),
            proof: record.proof.clone(),
        });
        report.take(Self::MAX_ACCUSATIONS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SequenceNumber;

    fn checkpoint(replica: u32, n: u64, digest: u8) -> Checkpoint {
        // The signature names its maker, which is all that these tests verify.
        let signature = Signature([replica as u8; 64]);
        let (n, digest) = (SequenceNumber(n), Digest([digest; 32]));
        Checkpoint { n, digest, replica: ReplicaId(replica), signature }
    }

    fn holds(wrong: Checkpoint, right: &[Checkpoint]) -> bool {
        let verify =
            |i: ReplicaId, _: &Digest, signature: &Signature| signature.0 == [i.0 as u8; 64];
        Proof { wrong, right: right.to_vec() }.holds(
            GroupId(Digest([7; 32])),
            ClusterSize::new(4, 1).unwrap(),
            verify,
        )
    }

    #[test]
    fn two_states_signed_by_one_replica_prove_it_faulty() {
        let wrong = checkpoint(2, 128, 9);
        assert!(holds(wrong, &[checkpoint(2, 128, 1)]));
        assert!(!holds(wrong, &[checkpoint(2, 256, 1)]), "of another n");
        assert!(!holds(wrong, &[wrong]), "the same state");
        assert!(!holds(wrong, &[]));
        let forged = Checkpoint { replica: ReplicaId(2), ..checkpoint(3, 128, 1) };
        assert!(!holds(wrong, &[forged]), "signed by another one");
    }

    #[test]
    fn another_state_than_f_plus_one_signed_proves_a_replica_faulty() {
        let (wrong, right) = (checkpoint(2, 128, 9), |i| checkpoint(i, 128, 1));
        assert!(holds(wrong, &[right(0), right(3)]));
        assert!(!holds(wrong, &[right(0)]), "f may lie");
        assert!(!holds(wrong, &[right(0), right(0)]), "one replica counts once");
        assert!(!holds(wrong, &[right(0), checkpoint(3, 128, 2)]), "two states");
        assert!(!holds(wrong, &[right(0), right(2)]), "not by the accused itself");
        assert!(!holds(checkpoint(2, 128, 1), &[right(0), right(3)]), "it agrees");
        assert!(!holds(wrong, &[right(0), right(4)]), "not a member");
    }

    #[test]
    fn what_a_replica_did_before_it_was_set_up_anew_is_the_past() {
        let (r2, mut evidence) = (ReplicaId(2), Evidence::default());
        evidence.note(r2, 0, Misdeed::OutOfTurn);
        evidence.note(r2, 0, Misdeed::WrongState);
        evidence.give_up(r2, 0, Tick(1_000_000));
        let report = evidence.report(Tick(3_000_000), |_| 0);
        assert_eq!(report.len(), 1);
        assert_eq!(report[0].misdeeds, Some((2, Misdeed::WrongState)));
        assert_eq!((report[0].given_up, report[0].recovered), (Some((1, 2000)), false));
        assert!(evidence.report(Tick(3_000_000), |_| 5)[0].recovered);
        evidence.note(r2, 5, Misdeed::Forged);
        let report = evidence.report(Tick(3_000_000), |_| 5);
        assert_eq!((report[0].misdeeds, report[0].given_up), (Some((1, Misdeed::Forged)), None));
        assert!(!report[0].recovered);
        evidence.note(r2, 4, Misdeed::WrongState);
        let late = evidence.report(Tick(3_000_000), |_| 5);
        assert_eq!(late, report, "its former self is forgotten");
    }

    #[test]
    fn a_report_has_an_end() {
        let mut evidence = Evidence::default();
        (0..100).for_each(|i| evidence.note(ReplicaId(i), 0, Misdeed::Malformed));
        assert_eq!(evidence.report(Tick(0), |_| 0).len(), Evidence::MAX_ACCUSATIONS);
    }
}
