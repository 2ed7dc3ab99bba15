//! The P/Q rules: which batches a new view begins with, as a pure function of the VIEW-CHANGEs that it names. [CL02 §4.5]
//!
//! A PREPARE proves nothing to a third party, so P is a claim. A batch is chosen only where a quorum reports nothing that
//! could have committed instead (A1), and a weak quorum reports having pre-prepared it (A2), so that one correct replica
//! vouches for it. "The highest view wins" alone would let one liar overwrite a committed batch.

use crate::messages::{Checkpoint, Claim, ViewChange, null_request};
use crate::planted::{Planted, planted};
use crate::types::{ClusterSize, Digest, SequenceNumber};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// What a new view begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The newest stable checkpoint that any of the VIEW-CHANGEs proves.
    pub stable: SequenceNumber,
    /// Its proof.
    pub certificate: &'a [Checkpoint],
    /// The batches above it, without gaps, up to the last that may have committed; the digest of a null request where
    /// nothing could have.
    pub batches: Vec<Digest>,
}

/// Applies the rules to `view_changes`.
///
/// Requires: they are verified, for one view, and of distinct replicas.
/// Returns: nothing where they do not decide yet: more are needed, and those of all correct replicas always suffice.
/// Cost: O(window * |view_changes|^2 * log window).
pub fn choose<'a>(
    size: ClusterSize,
    window: u64,
    view_changes: &[&'a ViewChange],
) -> Option<Choice<'a>> {
    if view_changes.len() < size.quorum() {
        return None;
    }
    let newest = view_changes.iter().max_by_key(|m| m.stable)?;
    let (stable, certificate) = (newest.stable, newest.certificate.as_slice());
    let high = stable.plus(window);
    let prepared = view_changes.iter().flat_map(|m| &m.prepared).map(|claim| claim.n);
    let last = prepared.filter(|n| *n <= high).max().unwrap_or(stable);
    let (mut batches, mut settled) = (Vec::new(), 0);
    let mut n = stable.next();
    while n <= last {
        let chosen = choose_at(size, view_changes, n)?;
        batches.push(chosen.unwrap_or_else(null_request));
        if chosen.is_some() {
            settled = batches.len();
        }
        n = n.next();
    }
    // Beyond the last batch that may have committed the new primary is free. A null request may have, like any other.
    batches.truncate(settled);
    Some(Choice { stable, certificate, batches })
}

/// The batch for `n`, or none where nothing could have committed: condition A before condition B, the highest view first,
/// ties by the smallest digest. Nothing at all where neither holds yet.
fn choose_at(
    size: ClusterSize,
    view_changes: &[&ViewChange],
    n: SequenceNumber,
) -> Option<Option<Digest>> {
    let prepared: Vec<Option<&Claim>> = view_changes.iter().map(|m| prepared_at(m, n)).collect();
    let mut candidates: BTreeSet<_> =
        prepared.iter().flatten().map(|claim| (Reverse(claim.view), claim.digest)).collect();
    if planted(Planted::LowerViewWins) {
        candidates = candidates.pop_last().into_iter().collect();
    }
    for (Reverse(view), digest) in candidates {
        // A1: a quorum prepared nothing later, and nothing else in the same view.
        let no_rival = |claim: &&Option<&Claim>| {
            let lower = planted(Planted::LowerViewWins);
            claim.is_none_or(|c| lower || c.view < view || c.view == view && c.digest == digest)
        };
        // A2: a correct replica pre-prepared it, in that view or later.
        let believed = planted(Planted::HighestViewWins);
        let vouches = |m: &&&ViewChange| believed || pre_prepared_in(m, n, digest) >= Some(view);
        if prepared.iter().filter(no_rival).count() >= size.quorum()
            && view_changes.iter().filter(vouches).count() >= size.weak()
        {
            return Some(Some(digest));
        }
        if planted(Planted::InvalidClaimMasks) {
            return Some(None);
        }
    }
    // B: a quorum prepared nothing at all.
    let nothing = prepared.iter().filter(|claim| claim.is_none()).count();
    (nothing >= size.quorum()).then_some(None)
}

fn prepared_at(m: &ViewChange, n: SequenceNumber) -> Option<&Claim> {
    let place = m.prepared.binary_search_by_key(&n, |claim| claim.n).ok()?;
    m.prepared.get(place)
}

fn pre_prepared_in(
    m: &ViewChange,
    n: SequenceNumber,
    digest: Digest,
) -> Option<crate::types::View> {
    let key = |claim: &Claim| (claim.n, claim.digest);
    let place = m.pre_prepared.binary_search_by_key(&(n, digest), key).ok()?;
    m.pre_prepared.get(place).map(|claim| claim.view)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Signature;
    use crate::types::{ReplicaId, View};

    const SIZE: fn() -> ClusterSize = || ClusterSize::new(4, 1).expect("a group");

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn claim(n: u64, view: u64, byte: u8) -> Claim {
        Claim { n: SequenceNumber(n), view: View(view), digest: digest(byte) }
    }

    fn view_change(replica: u32, prepared: &[Claim], pre_prepared: &[Claim]) -> ViewChange {
        let mut pre_prepared = pre_prepared.to_vec();
        pre_prepared.sort();
        ViewChange {
            view: View(9),
            stable: SequenceNumber(0),
            certificate: Vec::new(),
            prepared: prepared.to_vec(),
            pre_prepared,
            unauthenticated: Vec::new(),
            incarnation: 0,
            replica: ReplicaId(replica),
            signature: Signature([0; 64]),
        }
    }

    fn batches(view_changes: &[ViewChange]) -> Option<Vec<Digest>> {
        let all: Vec<_> = view_changes.iter().collect();
        choose(SIZE(), 8, &all).map(|choice| choice.batches)
    }

    /// The prepared certificate of a committed batch is at f+1 correct replicas, so one is in every quorum.
    #[test]
    fn a_batch_that_may_have_committed_is_chosen() {
        let own = [claim(1, 0, 1)];
        let quorum =
            [view_change(1, &own, &own), view_change(2, &own, &own), view_change(3, &[], &[])];
        assert_eq!(batches(&quorum), Some(Vec::from([digest(1)])));
    }

    /// [protocol trap 11] A liar's P entry at a high view has no f+1 that pre-prepared it.
    #[test]
    fn a_forged_claim_at_a_higher_view_does_not_displace_a_committed_batch() {
        let (own, forged) = ([claim(1, 0, 1)], [claim(1, 7, 2)]);
        let mut all = Vec::from([
            view_change(0, &forged, &forged),
            view_change(1, &own, &own),
            view_change(2, &own, &own),
        ]);
        assert_eq!(batches(&all), None, "the forged claim is a rival until a quorum is without it");
        all.push(view_change(3, &[], &own));
        assert_eq!(batches(&all), Some(Vec::from([digest(1)])));
    }

    /// Scenario 16: prepared in v0 at one replica, another batch committed in v1: the later wins.
    #[test]
    fn the_batch_of_the_highest_view_is_chosen() {
        let (old, new) = ([claim(1, 0, 1)], [claim(1, 1, 2)]);
        let quorum = [
            view_change(1, &old, &old),
            view_change(2, &new, &[claim(1, 0, 1), claim(1, 1, 2)]),
            view_change(3, &new, &new),
        ];
        assert_eq!(batches(&quorum), Some(Vec::from([digest(2)])));
    }

    /// Scenario 17: n+1 prepared and n not: a null request fills the gap.
    #[test]
    fn a_gap_becomes_a_null_request_and_nothing_follows_the_last_batch() {
        let own = [claim(2, 0, 2)];
        let quorum =
            [view_change(1, &own, &own), view_change(2, &[], &own), view_change(3, &[], &[])];
        assert_eq!(batches(&quorum), Some(Vec::from([null_request(), digest(2)])));
        let nothing: Vec<_> = (1..4).map(|i| view_change(i, &[], &[])).collect();
        assert_eq!(batches(&nothing), Some(Vec::new()));
        assert_eq!(batches(&nothing[..2]), None, "two are no quorum");
    }

    /// A null request of an earlier view may itself have committed: it is no free place at the end.
    #[test]
    fn a_prepared_null_request_is_kept_like_any_batch() {
        let null = [Claim { digest: null_request(), ..claim(1, 1, 0) }];
        let quorum =
            [view_change(1, &null, &null), view_change(2, &null, &null), view_change(3, &[], &[])];
        assert_eq!(batches(&quorum), Some(Vec::from([null_request()])));
    }

    /// A claim that one replica alone makes, and that nobody pre-prepared, blocks until the others are heard.
    #[test]
    fn a_lone_claim_without_vouchers_is_nulled_by_a_quorum_without_it() {
        let forged = [claim(1, 3, 9)];
        let mut all = Vec::from([
            view_change(0, &forged, &forged),
            view_change(1, &[], &[]),
            view_change(2, &[], &[]),
        ]);
        assert_eq!(batches(&all), None);
        all.push(view_change(3, &[], &[]));
        assert_eq!(batches(&all), Some(Vec::new()));
    }
}
