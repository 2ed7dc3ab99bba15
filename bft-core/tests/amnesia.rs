//! A replica that has forgotten what it said. [CL02 §6; decision 13]

mod common;
#[path = "common/forgery.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod forgery;

use bft_core::auth::{Crypto, Signature, view_change_digest};
use bft_core::io::{Input, Record, Rejection, Timer};
use bft_core::messages::{Message, Outcome, Phase, Reply, ViewChange};
use bft_core::replica::{Config, Replica};
use bft_core::types::*;
use common::{Cluster, Counter, GROUP, Named};

/// A group of four with three batches executed, whose r3 has lost its memory.
fn wiped() -> Cluster {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    for seq in 1..3 {
        group.ask(0, Cluster::request(seq, b"\x01"));
        group.deliver_all();
    }
    let config = Config { me: ReplicaId(3), ..group.config };
    group.replicas[3] = Replica::rejoin(config, group.authority(3), Counter, 7);
    group.records[3].clear();
    group
}

fn connect(group: &mut Cluster) {
    for i in 0..3 {
        let peer = Peer::Replica(ReplicaId(i));
        group.input(3, Input::Connected { peer, entropy: [3; 32] });
    }
}

fn phase(group: &Cluster) -> Phase {
    group.replicas[3].health(0).phase
}

/// "It is mute until a stable checkpoint has reached H_R": whatever it hears before, it votes for nothing.
#[test]
fn a_replica_that_has_forgotten_its_votes_is_mute_until_they_cannot_matter() {
    let mut group = wiped();
    connect(&mut group);
    let mut said = Vec::new();
    let mut steps = 0;
    while phase(&group) == Phase::Recovering {
        steps += 1;
        assert!(steps < 20, "it never recovers");
        group.deliver(|from, _, m| {
            if from.0 == 3 {
                said.push(m.clone());
            }
            true
        });
        if phase(&group) == Phase::Recovering {
            let votes = |m: &&Message| {
                matches!(m, Message::Prepare(_) | Message::Commit(_) | Message::Checkpoint(_))
            };
            assert!(said.iter().find(votes).is_none(), "it votes while it is mute");
        }
        group.repair();
    }
    // RECOVER came after three batches; K = 4 and L = 8.
    assert!(group.replicas[3].health(0).stable >= SequenceNumber(4 + 8));
    assert!(group.digests().windows(2).all(|pair| pair[0] == pair[1]));
    // And now its vote counts: without r2 a quorum needs it.
    let before = group.executed()[0];
    group.ask(0, Cluster::request(3, b"\x05"));
    group.deliver(|from, to, _| from.0 != 2 && to.0 != 2);
    assert_eq!(group.executed()[0], before + 1);
    assert_eq!(group.executed()[3], before + 1);
}

/// "whoever executed RECOVER refuses any V that holds an older one": a promise that its sender has forgotten is void.
#[test]
fn a_view_change_of_an_older_incarnation_is_refused() {
    let mut group = wiped();
    connect(&mut group);
    group.deliver_all();
    let mut forgotten = ViewChange {
        view: View(1),
        stable: SequenceNumber(0),
        certificate: Vec::new(),
        prepared: Vec::new(),
        pre_prepared: Vec::new(),
        unauthenticated: Vec::new(),
        incarnation: 0,
        replica: ReplicaId(3),
        signature: Signature([0; 64]),
    };
    forgotten.signature = Named(3).sign(&view_change_digest(GROUP, &forgotten));
    group.rejections.clear();
    group.give(Peer::Replica(ReplicaId(3)), 1, Message::ViewChange(forgotten));
    assert_eq!(group.rejections, [(ReplicaId(1), Rejection::OldIncarnation)]);
}

/// A second crash before it has recovered does not make it speak.
#[test]
fn it_stays_mute_across_another_restart() {
    let mut group = wiped();
    connect(&mut group);
    let genesis = Cluster::new(4, 1).replicas[3].stable_snapshot();
    let config = Config { me: ReplicaId(3), ..group.config };
    let records: Vec<Record> = group.records[3].clone();
    assert_eq!(records, [Record::Amnesia { incarnation: 7, over: false }]);
    let again = Replica::recover(config, group.authority(3), Counter, genesis, &records);
    group.replicas[3] = again.expect("the records are whole");
    assert_eq!(phase(&group), Phase::Recovering);
}

/// One liar cannot have it take an incarnation that nobody will ever accept.
#[test]
fn no_liar_chooses_the_next_incarnation() {
    let mut group = wiped();
    connect(&mut group);
    let asked = group.wire.iter().find_map(|(_, _, m)| match m {
        Message::Request(m) => Some(m.request.clone()),
        _ => None,
    });
    let asked = asked.expect("it asks to recover");
    let refusal = |epoch| {
        Message::Reply(Reply {
            view: View(0),
            session: asked.session,
            slot: Slot(0),
            seq: 0,
            request: asked.digest(),
            n: SequenceNumber(1),
            tentative: false,
            sign: false,
            outcome: Outcome::SessionRefused { epoch },
        })
    };
    let known = asked.session.epoch + 10;
    for (from, epoch) in [(0, u64::MAX), (1, 0), (2, known), (1, known)] {
        group.give(Peer::Replica(ReplicaId(from)), 3, refusal(epoch));
    }
    group.wire.clear();
    group.input(3, Input::Timeout(Timer::Status));
    let epochs = group.wire.iter().filter_map(|(_, _, m)| match m {
        Message::Request(m) => Some(m.request.session.epoch),
        _ => None,
    });
    assert_eq!(epochs.max(), Some(known + 1));
}

/// An incarnation that the group has seen already is refused by f+1, and replaced by a higher one.
#[test]
fn a_clock_that_went_back_does_not_keep_it_mute() {
    let mut group = wiped();
    connect(&mut group);
    group.deliver_all();
    group.repair();
    let config = Config { me: ReplicaId(3), ..group.config };
    group.replicas[3] = Replica::rejoin(config, group.authority(3), Counter, 5);
    connect(&mut group);
    for _ in 0..8 {
        group.deliver_all();
        group.repair();
    }
    assert_eq!(phase(&group), Phase::Active);
}

/// What it promised while it lied binds nobody once it is set up anew: its next VIEW-CHANGE counts again.
#[test]
fn a_far_view_that_its_former_self_wanted_does_not_silence_it() {
    let mut group = wiped();
    let mut forgotten = ViewChange {
        view: View(1_000),
        stable: SequenceNumber(0),
        certificate: Vec::new(),
        prepared: Vec::new(),
        pre_prepared: Vec::new(),
        unauthenticated: Vec::new(),
        incarnation: 0,
        replica: ReplicaId(3),
        signature: Signature([0; 64]),
    };
    forgotten.signature = Named(3).sign(&view_change_digest(GROUP, &forgotten));
    for to in 0..3 {
        group.give(Peer::Replica(ReplicaId(3)), to, Message::ViewChange(forgotten.clone()));
    }
    connect(&mut group);
    for _ in 0..20 {
        group.deliver_all();
        group.repair();
    }
    assert_eq!(phase(&group), Phase::Active);
    // The primary is gone for good, so that the others, r3 among them, have to go on without it.
    for i in 1..4 {
        group.leave_view(i);
    }
    for _ in 0..8 {
        group.now.tick = Tick(group.now.tick.0 + 200_000);
        for i in 1..4 {
            group.input(i, Input::Timeout(Timer::Status));
        }
        group.deliver(|from, to, _| from.0 != 0 && to.0 != 0);
    }
    assert_eq!(group.views()[1..], [(1, true); 3]);
}

/// What it signed while it lied, for places that nobody had come to, does not silence it once it is set up anew; and nobody
/// brings it back.
#[test]
fn checkpoints_that_its_former_self_signed_far_ahead_do_not_silence_it() {
    let mut group = wiped();
    let interval = group.config.checkpoint_interval;
    let lies: Vec<_> = (1..12)
        .map(|k| Message::Checkpoint(forgery::checkpoint(3, k * interval, Digest([9; 32]))))
        .collect();
    for to in 0..3 {
        lies.iter().for_each(|lie| group.give(Peer::Replica(ReplicaId(3)), to, lie.clone()));
    }
    connect(&mut group);
    for _ in 0..20 {
        group.deliver_all();
        group.repair();
    }
    assert_eq!(phase(&group), Phase::Active);
    // Without r2 no checkpoint is stable but by its signature.
    let before = group.replicas[0].health(0).stable;
    for seq in 3..60 {
        group.ask(0, Cluster::request(seq, b"\x05"));
        group.deliver(|from, to, _| from.0 != 2 && to.0 != 2);
    }
    let after = group.replicas[0].health(0).stable;
    assert!(after >= before.plus(4 * interval), "{before:?}, and then {after:?}");
    group.rejections.clear();
    group.give(Peer::Replica(ReplicaId(2)), 1, lies[10].clone());
    assert_eq!(group.rejections, [(ReplicaId(1), Rejection::WrongSender)]);
}
