//! View changes, sentence by sentence and trap by trap. [CL99 §4.4], [CL02 §4.5], `docs/decisions/0006`.

mod common;

use bft_core::auth::{Crypto, Signature, new_view_digest, view_change_digest};
use bft_core::io::{Input, Record, Rejection, Timer};
use bft_core::messages::{Claim, Message, NewView, Read, Suspect, ViewChange};
use bft_core::replica::Replica;
use bft_core::types::*;
use bytes::Bytes;
use common::{Cluster, Counter, GROUP, Named, SESSION};
use std::time::Duration;

fn replica(i: u32) -> Peer {
    Peer::Replica(ReplicaId(i))
}

/// A group whose client has opened its session in batch 1, and has just sent r1 to r3 a request that r0 does not answer.
fn silent_primary() -> Cluster {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    group.rejections.clear();
    for i in 1..4 {
        group.ask(i, Cluster::request(1, b"\x05"));
    }
    group.wire.clear();
    group
}

/// A VIEW-CHANGE of `i`, genuinely signed.
fn view_change(i: u32, view: u64, prepared: Vec<Claim>, pre_prepared: Vec<Claim>) -> ViewChange {
    let mut m = ViewChange {
        view: View(view),
        stable: SequenceNumber(0),
        certificate: Vec::new(),
        prepared,
        pre_prepared,
        unauthenticated: Vec::new(),
        incarnation: 0,
        replica: ReplicaId(i),
        signature: Signature([0; 64]),
    };
    m.signature = Named(i as u8).sign(&view_change_digest(GROUP, &m));
    m
}

fn new_view(view: u64, grounds: &[ViewChange], batches: Vec<Digest>) -> NewView {
    let named = grounds.iter().map(|m| (m.replica, view_change_digest(GROUP, m)));
    let mut m = NewView {
        view: View(view),
        view_changes: named.collect(),
        stable: SequenceNumber(0),
        batches,
        signature: Signature([0; 64]),
    };
    m.signature = Named((view % 4) as u8).sign(&new_view_digest(GROUP, &m));
    m
}

/// [CL99 §4.4] "If the timer of backup i expires in view v, the backup starts a view change to move the system to view v+1."
#[test]
fn a_silent_primary_is_replaced_and_the_request_executes() {
    let mut group = silent_primary();
    for i in 1..4 {
        let waited = group.view_timeout(i);
        assert!(waited <= Duration::from_secs(1));
    }
    assert_eq!(group.views(), [(0, true); 4], "each has only said that it suspects");
    // r0 is cut off altogether.
    group.deliver(|from, to, _| from.0 != 0 && to.0 != 0);
    assert_eq!(group.views()[1..], [(1, true); 3]);
    let answered: Vec<_> = group.answers(1).iter().map(|(i, _, count)| (i.0, *count)).collect();
    assert_eq!(answered.len(), 3);
    assert!(answered.iter().all(|(i, count)| *i != 0 && *count == 5));
    group.repair();
    assert_eq!(group.views(), [(1, true); 4], "r0 follows when it can");
    assert_eq!(group.executed(), [2; 4]);
}

/// Whoever holds a request against the primary has told it of that, even if a replica brought it, which may be faulty and bring
/// it to f+1 backups alone.
#[test]
fn the_primary_hears_of_what_a_faulty_backup_brings_the_others() {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    for i in [1, 2] {
        group.give(replica(3), i, Message::Request(Cluster::request(1, b"\x05")));
        assert!(group.view_timers[i as usize].is_some(), "r{i} times it");
    }
    group.deliver_all();
    assert_eq!(group.executed(), [2; 4]);
}

/// The primary of the next view need not know what the last one was deposed for.
#[test]
fn a_new_primary_is_told_of_what_it_will_be_held_to() {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    for i in [2, 3] {
        group.ask(i, Cluster::request(1, b"\x05"));
    }
    group.wire.clear();
    for i in [2, 3] {
        group.view_timeout(i);
    }
    group.deliver(|from, to, _| from.0 != 0 && to.0 != 0);
    assert_eq!(group.views()[1..], [(1, true); 3]);
    assert_eq!(group.executed()[1..], [2; 3]);
}

/// A batch that came by the names of its requests stays incomplete when the view ends: its next primary asks for them again.
#[test]
fn a_new_primary_asks_for_what_it_knows_by_name_alone() {
    static LARGE: [u8; 20_000] = [1; 20_000];
    let mut group = Cluster::new(4, 1);
    group.open_session();
    for i in [0, 1, 3] {
        group.ask(i, Cluster::request(1, &LARGE));
    }
    // It prepares everywhere but at r2, which hears of it in view 1, and is never given what it says.
    group.deliver(|_, to, m| to.0 != 2 && !matches!(m, Message::Commit(_)));
    let whole = |m: &Message| matches!(m, Message::Request(_));
    for view in [1, 2] {
        (0..4).for_each(|i| group.leave_view(i));
        let commits = |m: &Message| matches!(m, Message::Commit(_));
        group.deliver(|_, to, m| view == 2 || (to.0 != 2 || !whole(m)) && !commits(m));
        group.now.tick = group.now.tick.after(Duration::from_secs(1));
        if view == 1 {
            group.input(2, Input::Timeout(Timer::Status));
            group.deliver(|_, to, m| (to.0 != 2 || !whole(m)) && !commits(m));
            assert_eq!(group.executed(), [1; 4], "it has not committed");
        }
    }
    group.repair();
    assert_eq!(group.views(), [(2, true); 4]);
    assert!(group.executed().iter().all(|n| *n >= 2), "{:?}", group.executed());
}

/// [CL99 §4.5.2] "if a replica receives a set of f+1 valid view-change messages ... for views greater than its current view".
#[test]
fn f_replicas_move_nobody_and_f_plus_one_do() {
    let mut group = silent_primary();
    group.give(replica(3), 1, Message::ViewChange(view_change(3, 1_000_000_000, vec![], vec![])));
    assert_eq!(group.views(), [(0, true); 4]);
    group.give(replica(2), 1, Message::ViewChange(view_change(2, 5, vec![], vec![])));
    assert_eq!(group.views()[1], (5, false), "to the smallest of the views, not to the liar's");
}

/// [CL02 §4.5] The primary that gives up itself is followed at once.
#[test]
fn a_primary_that_abdicates_is_followed() {
    let mut group = silent_primary();
    group.give(replica(0), 1, Message::ViewChange(view_change(0, 1, vec![], vec![])));
    assert_eq!(group.views()[1], (1, false));
}

/// [CL99 §4.5.2] "it waits for 2f+1 view-change messages ... before starting the timer": one alone waits for ever.
#[test]
fn the_timer_of_a_view_runs_only_once_a_quorum_wants_it_and_doubles() {
    let mut group = silent_primary();
    group.leave_view(1);
    // What was set before fires, and finds nothing to wait for.
    group.view_timeout(1);
    assert_eq!(group.views()[1], (1, false));
    assert_eq!(group.view_timers[1], None, "alone it waits");
    group.wire.clear();
    group.give(replica(2), 1, Message::ViewChange(view_change(2, 1, vec![], vec![])));
    assert_eq!(group.view_timers[1], None);
    // r1 is itself the primary of view 1, so let the others want view 2, whose primary is silent.
    for i in [2, 3] {
        group.give(replica(i), 1, Message::ViewChange(view_change(i, 2, vec![], vec![])));
    }
    assert_eq!(group.views()[1], (2, false));
    let first = group.view_timeout(1);
    assert_eq!(
        group.views()[1],
        (2, false),
        "it says SUSPECT, for the view may have begun elsewhere"
    );
    group.give(replica(3), 1, Message::Suspect(Suspect { view: View(2) }));
    assert_eq!(group.views()[1], (3, false));
    for i in [2, 3] {
        group.give(replica(i), 1, Message::ViewChange(view_change(i, 3, vec![], vec![])));
    }
    assert_eq!(group.view_timeout(1), first * 2);
}

/// Decision 0007: one replica that was paused does not leave the view that the others go on with.
#[test]
fn who_suspects_alone_goes_on_voting_and_f_plus_one_leave() {
    let mut group = silent_primary();
    group.view_timeout(1);
    assert_eq!(group.views()[1], (0, true));
    group.ask(0, Cluster::request(1, b"\x05"));
    group.deliver(|_, to, _| to.0 != 3);
    assert_eq!(group.executed(), [2, 2, 2, 1], "its vote was needed");
    let suspect = Message::Suspect(Suspect { view: View(0) });
    group.now.tick = Tick(group.now.tick.0 + 2_000_000);
    group.give(replica(2), 1, suspect.clone());
    assert_eq!(group.views()[1], (0, true), "its own suspicion is long past");
    group.give(replica(3), 1, suspect);
    assert_eq!(group.views()[1], (1, false));
}

/// [CL99 §4.4] "it stops accepting messages (other than checkpoint, view-change, and new-view messages)".
#[test]
fn a_replica_that_has_left_a_view_votes_in_it_no_more() {
    let mut group = silent_primary();
    group.leave_view(1);
    group.wire.clear();
    group.ask(0, Cluster::request(1, b"\x05"));
    group.deliver(|_, to, _| to.0 == 1);
    assert!(group.wire.is_empty(), "no PREPARE from r1");
    assert!(group.rejections.contains(&(ReplicaId(1), Rejection::WrongView)));
}

/// [CL99 §4.4] What prepared in v is proposed again in v+1 and executes once.
#[test]
fn a_batch_that_prepared_survives_the_view_change() {
    let mut group = silent_primary();
    group.ask(0, Cluster::request(1, b"\x05"));
    // PREPAREs arrive, COMMITs do not.
    group.deliver(|_, _, m| !matches!(m, Message::Commit(_)));
    assert_eq!(group.executed(), [1; 4]);
    for i in 1..4 {
        group.view_timeout(i);
    }
    group.deliver(|from, to, _| from.0 != 0 && to.0 != 0);
    assert_eq!(group.executed()[1..], [2; 3]);
    assert!(group.answers(1).iter().all(|(_, n, count)| (n.0, *count) == (2, 5)));
    let ordered = group.records[1].iter().filter(|record| matches!(record, Record::Q { .. }));
    assert_eq!(ordered.count(), 4, "the session and the batch, each once in each view");
}

/// Traps 12 and 14: a NEW-VIEW that leaves out what may have committed is refused, and its primary with it.
#[test]
fn a_new_view_that_does_not_follow_from_its_view_changes_is_refused() {
    let mut group = Cluster::new(4, 1);
    let claim = |n| Claim { n: SequenceNumber(n), digest: Digest([7; 32]), view: View(0) };
    let grounds: Vec<_> =
        (0..3).map(|i| view_change(i, 1, vec![claim(1)], vec![claim(1)])).collect();
    for m in &grounds {
        group.give(replica(m.replica.0), 3, Message::ViewChange(m.clone()));
    }
    assert_eq!(group.views()[3], (1, false));
    group.give(replica(1), 3, Message::NewView(new_view(1, &grounds, vec![])));
    assert!(group.rejections.contains(&(ReplicaId(3), Rejection::WrongNewView)));
    assert_eq!(group.views()[3], (2, false), "on to the next primary");
}

/// B-29: a replica sends different VIEW-CHANGEs to different replicas; whichever NEW-VIEW names is fetched by its digest.
#[test]
fn a_view_change_that_new_view_names_is_fetched_from_anyone() {
    let mut group = Cluster::new(4, 1);
    let told_others = view_change(0, 1, vec![], vec![]);
    let claim = Claim { n: SequenceNumber(1), digest: Digest([7; 32]), view: View(0) };
    let told_r3 = view_change(0, 1, vec![], vec![claim]);
    let honest: Vec<_> = [1, 2].map(|i| view_change(i, 1, vec![], vec![])).into();
    group.give(replica(0), 3, Message::ViewChange(told_r3));
    for m in &honest {
        group.give(replica(m.replica.0), 3, Message::ViewChange(m.clone()));
    }
    let mut grounds = vec![told_others.clone()];
    grounds.extend(honest);
    group.wire.clear();
    group.give(replica(1), 3, Message::NewView(new_view(1, &grounds, vec![])));
    assert_eq!(group.views()[3], (1, false), "one that it names is missing");
    let asked = group.wire.iter().find_map(|(_, _, m)| match m {
        Message::Status(m) => Some(m.missing_view_changes.clone()),
        _ => None,
    });
    assert_eq!(asked, Some(vec![view_change_digest(GROUP, &told_others)]));
    group.give(replica(2), 3, Message::ViewChange(told_others));
    assert_eq!(group.views()[3], (1, true));
}

#[test]
fn what_nobody_can_have_signed_or_measured_is_refused() {
    let mut group = Cluster::new(4, 1);
    let mut forged = view_change(2, 1, vec![], vec![]);
    forged.replica = ReplicaId(1);
    group.give(replica(2), 3, Message::ViewChange(forged));
    let mut unproved = view_change(2, 1, vec![], vec![]);
    unproved.stable = SequenceNumber(4);
    unproved.signature = Named(2).sign(&view_change_digest(GROUP, &unproved));
    group.give(replica(2), 3, Message::ViewChange(unproved));
    let claim = |n, view| Claim { n: SequenceNumber(n), digest: Digest([7; 32]), view: View(view) };
    for bad in [vec![claim(9, 0)], vec![claim(1, 1)], vec![claim(2, 0), claim(1, 0)]] {
        group.give(replica(2), 3, Message::ViewChange(view_change(2, 1, bad, vec![])));
    }
    let crowd = (0..4).map(|d| Claim { digest: Digest([d; 32]), ..claim(1, 0) }).collect();
    group.give(replica(2), 3, Message::ViewChange(view_change(2, 1, vec![], crowd)));
    let why: Vec<_> = group.rejections.iter().map(|(_, why)| *why).collect();
    use Rejection::{BadSignature, Malformed, UnprovedCheckpoint};
    let malformed = [Malformed; 4];
    assert_eq!(why[..2], [BadSignature, UnprovedCheckpoint]);
    assert_eq!(why[2..], malformed);
}

/// Decision 3: what was executed tentatively is undone, and reads wait until it is there again.
#[test]
fn a_tentative_batch_is_undone_by_a_view_change() {
    let mut group = silent_primary();
    group.ask(0, Cluster::request(1, b"\x05"));
    group.deliver(|_, _, m| !matches!(m, Message::Commit(_)));
    assert_eq!(group.replicas[1].tentative(), Some(SequenceNumber(2)));
    group.leave_view(1);
    assert_eq!(group.replicas[1].tentative(), None);
    let op = Bytes::from_static(b"get");
    let read = Read { session: SESSION, attempt: 1, replier: ReplicaId(1), op };
    group.give(Peer::Client(ClientId(0)), 1, Message::Read(read));
    assert!(group.rejections.contains(&(ReplicaId(1), Rejection::TooOften)));
}

/// Contract 5: the promise and the view are remembered across a restart.
#[test]
fn a_restart_forgets_neither_the_promise_nor_the_view() {
    let mut group = silent_primary();
    let genesis = Cluster::new(4, 1).replicas[1].stable_snapshot();
    group.leave_view(1);
    let restart = |group: &Cluster, i: u32| {
        let config = bft_core::replica::Config { me: ReplicaId(i), ..group.config };
        let records = &group.records[i as usize];
        Replica::recover(config, group.authority(i), Counter, genesis.clone(), records)
            .expect("the records are whole")
    };
    assert_eq!(restart(&group, 1).view(), (View(1), false), "it promised view 1");
    for i in 2..4 {
        group.view_timeout(i);
    }
    group.deliver(|from, to, _| from.0 != 0 && to.0 != 0);
    let restarted = restart(&group, 1);
    assert_eq!(restarted.view(), (View(1), true), "the view has begun");
    group.replicas[1] = restarted;
    for i in [0, 2, 3] {
        group.input(1, Input::Connected { peer: replica(i), entropy: [1; 32] });
    }
    group.repair();
    group.ask(1, Cluster::request(2, b"\x01"));
    group.deliver_all();
    assert_eq!(group.executed(), [3; 4]);
    assert!(group.digests().windows(2).all(|pair| pair[0] == pair[1]));
}

/// B-08: who serves everyone but one client is deposed. [decision 6: requests that everyone can check are timed by client]
#[test]
fn a_primary_that_starves_one_client_is_deposed_although_it_serves_another() {
    let mut group = silent_primary();
    group.ask_as(1, 0, Cluster::open_session_of(1));
    group.deliver_all();
    let mut seq = 1;
    while group.views()[1].0 == 0 {
        assert!(seq < 100, "r1 never loses patience");
        group.now.tick = Tick(group.now.tick.0 + 100_000);
        group.ask_as(1, 0, Cluster::request_of(1, seq, b"\x01"));
        group.deliver(|_, to, m| to.0 != 0 || !matches!(m, Message::Request(_)));
        seq += 1;
        if group.view_timers[1].is_some_and(|at| at <= group.now.tick) {
            group.view_timeout(1);
        }
    }
    assert!(group.now.tick.0 < 2_000_000, "within the timeout, whatever else executed");
}

/// P7: a primary that lets every request lie for nearly the timeout is deposed before long.
#[test]
fn a_primary_that_stays_just_under_the_timeout_is_replaced() {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    for seq in 1..20 {
        for i in 1..4 {
            group.ask(i, Cluster::request(seq, b"\x01"));
        }
        group.wire.clear();
        group.now.tick = Tick(group.now.tick.0 + 900_000);
        group.now.wall.0 += 900_000_000;
        group.ask(0, Cluster::request(seq, b"\x01"));
        group.deliver_all();
        if group.views()[1].0 > 0 {
            assert!(seq > 1, "once is no habit");
            return;
        }
    }
    panic!("nobody minds");
}

/// One that missed the NEW-VIEW says that it has lost patience and waits for another who has: alone in a later view it would
/// be out of the group until the others came there.
#[test]
fn a_replica_that_missed_a_new_view_leaves_no_view_alone() {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    (0..4).for_each(|i| group.leave_view(i));
    let to_all_but_one = |_, to: ReplicaId, m: &Message| {
        !(to == ReplicaId(3) && matches!(m, Message::NewView(_) | Message::Status(_)))
    };
    group.deliver(to_all_but_one);
    assert_eq!(group.views(), [(1, true), (1, true), (1, true), (1, false)]);
    for _ in 0..3 {
        group.view_timeout(3);
        group.deliver(to_all_but_one);
        assert_eq!(group.views()[3], (1, false));
    }
    group.repair();
    assert_eq!(group.views(), [(1, true); 4]);
}
