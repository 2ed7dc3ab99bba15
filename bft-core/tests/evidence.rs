//! What a replica holds against another one, and that correct ones never give cause.

mod common;
#[path = "common/forgery.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod forgery;

use bft_core::auth::Crypto;
use bft_core::evidence::{Accusation, Misdeed};
use bft_core::messages::{Message, Prepare};
use bft_core::types::*;
use common::{Cluster, GROUP, Named};

fn replica(i: u32) -> Peer {
    Peer::Replica(ReplicaId(i))
}

fn accusations(group: &Cluster, by: usize) -> Vec<Accusation> {
    group.replicas[by].health(0).accusations
}

/// A group of four whose next batch is a checkpoint.
fn group_at_checkpoint() -> Cluster {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    for seq in 1..=2 {
        group.ask(0, Cluster::request(seq, b"\x01"));
        group.deliver_all();
    }
    group
}

fn one_more_batch(group: &mut Cluster, seq: u64) {
    group.ask(0, Cluster::request(seq, b"\x01"));
    group.deliver(|from, _, m| !matches!(m, Message::Checkpoint(_)) || from.0 != 3);
}

fn proves(group: &Cluster, accusation: &Accusation) -> bool {
    let proof = accusation.proof.as_ref().unwrap();
    proof.wrong.replica == accusation.replica
        && proof.holds(GROUP, group.config.size, |i, digest, signature| {
            Named(0).verify(&Named::public(i.0 as u8), digest, signature)
        })
}

#[test]
fn a_checkpoint_that_a_quorum_contradicts_proves_its_maker_faulty_to_anyone() {
    let mut group = group_at_checkpoint();
    let lie = forgery::checkpoint(3, 4, Digest([9; 32]));
    group.give(replica(3), 0, Message::Checkpoint(lie));
    assert_eq!(accusations(&group, 0), [], "nobody has contradicted it yet");
    one_more_batch(&mut group, 3);
    let held = accusations(&group, 0);
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].misdeeds, Some((1, Misdeed::WrongState)));
    assert_eq!((held[0].replica, held[0].recovered), (ReplicaId(3), false));
    assert!(proves(&group, &held[0]));
    assert_eq!(accusations(&group, 1), [], "r1 has not seen it");
}

#[test]
fn two_states_signed_for_one_sequence_number_prove_it_too_and_are_looked_at_once() {
    let mut group = group_at_checkpoint();
    for byte in [8, 9, 10] {
        let lie = forgery::checkpoint(3, 4, Digest([byte; 32]));
        group.give(replica(3), 1, Message::Checkpoint(lie));
    }
    let held = accusations(&group, 1);
    assert_eq!(held[0].misdeeds, Some((1, Misdeed::Contradiction)));
    assert!(proves(&group, &held[0]));
}

#[test]
fn what_its_former_self_signed_is_not_held_against_a_replica_that_was_set_up_anew() {
    let mut group = group_at_checkpoint();
    let lie = forgery::checkpoint(3, 4, Digest([9; 32]));
    group.give(replica(3), 0, Message::Checkpoint(lie));
    group.forget(3, 77);
    group.deliver_all();
    group.repair();
    let stable = group.replicas[0].health(0).stable;
    assert!(stable >= SequenceNumber(4), "RECOVER is the batch of the checkpoint: {stable:?}");
    let held = accusations(&group, 0);
    assert_eq!((held[0].replica, held[0].recovered), (ReplicaId(3), true));
    assert!(proves(&group, &held[0]), "it is still told");
}

#[test]
fn whoever_passes_on_a_forged_checkpoint_of_another_accuses_only_itself() {
    let mut group = group_at_checkpoint();
    let genuine = forgery::checkpoint(3, 4, Digest([8; 32]));
    group.give(replica(3), 1, Message::Checkpoint(genuine));
    let mut forged = forgery::checkpoint(2, 4, Digest([9; 32]));
    forged.replica = ReplicaId(3);
    group.give(replica(2), 1, Message::Checkpoint(forged));
    assert!(accusations(&group, 1).iter().all(|a| a.replica != ReplicaId(3)));
}

#[test]
fn votes_that_contradict_each_other_and_votes_out_of_turn_are_counted() {
    let mut group = group_at_checkpoint();
    let prepare = |byte| {
        let (view, n) = (View(0), SequenceNumber(5));
        Message::Prepare(Prepare { view, n, digest: Digest([byte; 32]) })
    };
    group.give(replica(2), 1, prepare(1));
    group.give(replica(2), 1, prepare(1));
    assert_eq!(accusations(&group, 1), [], "what comes twice is no misdeed");
    group.give(replica(2), 1, prepare(2));
    group.give(replica(0), 1, prepare(1));
    let held = accusations(&group, 1);
    let misdeeds: Vec<_> = held.iter().map(|a| (a.replica.0, a.misdeeds)).collect();
    let expected = [(0, Some((1, Misdeed::OutOfTurn))), (2, Some((1, Misdeed::Contradiction)))];
    assert_eq!(misdeeds, expected);
}

#[test]
fn a_primary_that_lets_requests_lie_is_given_up_and_accused_of_nothing_else() {
    let mut group = group_at_checkpoint();
    for to in 1..4 {
        group.ask(to, Cluster::request(3, b"\x01"));
    }
    group.wire.clear();
    for to in 1..4 {
        let at = group.view_timers[to].unwrap();
        group.now.tick = group.now.tick.max(at);
        group.view_timeout(to as u32);
    }
    group.deliver(|from, _, _| from.0 != 0);
    for by in 1..4 {
        let held = accusations(&group, by);
        assert_eq!((held.len(), held[0].replica), (1, ReplicaId(0)), "r{by}");
        assert_eq!((held[0].misdeeds, &held[0].proof), (None, &None));
        assert!(held[0].given_up.is_some());
    }
}
