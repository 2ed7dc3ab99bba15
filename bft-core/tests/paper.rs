//! Tests named after the papers' sentences. [CL99] is OSDI'99, [CL00] OSDI'00, [CL02] TOCS'02.

mod common;

use bft_core::auth::{Credential, Crypto, KeyId, MacKey, Tag};
use bft_core::codec;
use bft_core::io::{Destination, Input, Output, Record, Rejection, Timer};
use bft_core::messages::{
    BatchEntry, Commit, Fetch, FetchBatch, Message, Operation, PrePrepare, Prepare, Read,
    ReadReply, Request, ResultBody, SessionId, Unauthenticated, batch_digest,
};
use bft_core::replica::{Config, Replica, Snapshot};
use bft_core::tree::parts::Address;
use bft_core::types::*;
use bytes::Bytes;
use common::{Cluster, Counter, Named, SESSION};
use std::collections::BTreeSet;

/// A PRE-PREPARE of the primary of view 0 for one request, and its digest.
fn pre_prepare(n: u64, time: u64, seq: u64, op: &'static [u8]) -> (Message, Digest) {
    let request = Cluster::request(seq, op);
    let digest = batch_digest(Time(time), [request.request.digest()].into_iter());
    let batch = vec![BatchEntry::Inline(request)];
    let m = PrePrepare { view: View(0), n: SequenceNumber(n), time: Time(time), batch };
    (Message::PrePrepare(m), digest)
}

fn prepare(n: u64, digest: Digest) -> Message {
    Message::Prepare(Prepare { view: View(0), n: SequenceNumber(n), digest })
}

fn commit(n: u64, digest: Digest) -> Message {
    Message::Commit(Commit { view: View(0), n: SequenceNumber(n), digest })
}

fn replica(i: u32) -> Peer {
    Peer::Replica(ReplicaId(i))
}

const CLIENT: Peer = Peer::Client(ClientId(0));

/// A group whose client has opened its session in batch 1.
fn group() -> Cluster {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    group.rejections.clear();
    group
}

/// [CL99 §4.2] "The replica executes the operation requested by m after ... all requests with lower sequence numbers."
#[test]
fn every_replica_executes_and_replies_with_the_same_result() {
    let mut group = group();
    group.ask(0, Cluster::request(1, b"\x05"));
    group.deliver_all();
    let expected: Vec<_> = (0..4).map(|i| (ReplicaId(i), SequenceNumber(2), 5)).collect();
    let mut answers = group.answers(1);
    answers.sort();
    assert_eq!(answers, expected);
    let digests = group.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
}

/// [CL99 §4.2] "A backup accepts a pre-prepare message provided ... it is in view v".
#[test]
fn a_pre_prepare_of_another_view_is_refused() {
    let mut group = group();
    let (Message::PrePrepare(mut m), _) = pre_prepare(2, group.now.wall.0, 1, b"\x01") else {
        unreachable!()
    };
    m.view = View(1);
    group.give(replica(1), 2, Message::PrePrepare(m));
    assert_eq!(group.rejections, [(ReplicaId(2), Rejection::WrongView)]);
}

#[test]
fn a_pre_prepare_from_a_backup_is_refused() {
    let mut group = group();
    let (m, _) = pre_prepare(2, group.now.wall.0, 1, b"\x01");
    group.give(replica(1), 2, m);
    assert_eq!(group.rejections, [(ReplicaId(2), Rejection::NotPrimary)]);
}

/// [CL99 §4.2] "it has not accepted a pre-prepare message for view v and sequence number n containing a different digest".
#[test]
fn a_second_pre_prepare_with_another_digest_is_refused_and_the_first_stands() {
    let mut group = group();
    let (first, digest) = pre_prepare(2, group.now.wall.0, 1, b"\x01");
    let (second, _) = pre_prepare(2, group.now.wall.0, 1, b"\x02");
    group.give(replica(0), 2, first.clone());
    group.give(replica(0), 2, second);
    group.give(replica(0), 2, first);
    let why: Vec<_> = group.rejections.iter().map(|(_, why)| *why).collect();
    assert_eq!(why, [Rejection::ConflictingPrePrepare, Rejection::Duplicate]);
    let votes = group.wire.iter().filter(|(_, _, m)| *m == prepare(2, digest)).count();
    assert_eq!(votes, 1, "one PREPARE, for the first");
}

/// [CL99 §4.2] "the sequence number in the pre-prepare message is between a low water mark, h, and a high water mark, H".
#[test]
fn a_pre_prepare_outside_the_water_marks_is_refused() {
    let mut group = group();
    for n in [0, 9, u64::MAX] {
        let (m, _) = pre_prepare(n, group.now.wall.0, 1, b"\x01");
        group.give(replica(0), 1, m);
    }
    assert_eq!(group.rejections, [(ReplicaId(1), Rejection::OutsideWaterMarks); 3]);
}

/// [CL99 §4.2] "prepared(m, v, n, i) is true iff replica i has inserted in its log ... 2f prepares from different backups".
#[test]
fn a_backup_commits_only_after_2f_matching_prepares_of_distinct_backups() {
    let mut group = group();
    let (m, digest) = pre_prepare(2, group.now.wall.0, 1, b"\x01");
    group.give(replica(0), 1, m);
    let committed = |group: &Cluster| group.wire.iter().any(|(_, _, m)| *m == commit(2, digest));
    group.give(replica(0), 1, prepare(2, digest));
    assert!(!committed(&group), "the primary's PREPARE does not count");
    assert_eq!(group.rejections, [(ReplicaId(1), Rejection::SenderIsPrimary)]);
    group.give(replica(2), 1, prepare(2, Digest([1; 32])));
    assert!(!committed(&group), "a PREPARE for another digest does not count");
    group.give(replica(2), 1, prepare(2, digest));
    assert!(!committed(&group), "a second vote of one replica does not count");
    group.give(replica(3), 1, prepare(2, digest));
    assert!(committed(&group), "its own and r3's are 2f");
}

/// [CL99 §4.2] "committed-local(m, v, n, i) is true iff prepared(m, v, n, i) is true and i has accepted 2f+1 commits".
#[test]
fn a_replica_executes_only_when_committed_local() {
    let mut group = group();
    let (m, digest) = pre_prepare(2, group.now.wall.0, 1, b"\x01");
    group.give(replica(2), 1, commit(2, digest));
    group.give(replica(3), 1, commit(2, digest));
    group.give(replica(0), 1, commit(2, digest));
    assert_eq!(group.executed()[1], 1, "COMMITs before the PRE-PREPARE decide nothing");
    group.give(replica(0), 1, m);
    assert_eq!(group.executed()[1], 1, "nor before it is prepared");
    group.give(replica(2), 1, prepare(2, digest));
    assert_eq!(group.executed()[1], 2);
}

/// [CL99 §4.2] Requests execute in the order of their sequence numbers, whatever order they commit in.
#[test]
fn a_later_batch_waits_for_the_earlier() {
    let mut group = group();
    let wall = group.now.wall.0;
    let batches = [pre_prepare(2, wall, 1, b"\x01"), pre_prepare(3, wall, 2, b"\x02")];
    for (n, (m, digest)) in [(3, &batches[1]), (2, &batches[0])] {
        group.give(replica(0), 1, m.clone());
        group.give(replica(2), 1, prepare(n, *digest));
        group.give(replica(2), 1, commit(n, *digest));
        group.give(replica(3), 1, commit(n, *digest));
        assert_eq!(group.executed()[1], if n == 3 { 1 } else { 3 });
    }
    assert_eq!(group.answers(1), [(ReplicaId(1), SequenceNumber(2), 1)]);
    assert_eq!(group.answers(2), [(ReplicaId(1), SequenceNumber(3), 3)]);
}

/// [CL99 §4.1] "If the request has already been processed, the replicas simply re-send the reply".
#[test]
fn a_duplicate_request_is_answered_from_the_table_and_not_executed_again() {
    let mut group = group();
    group.ask(0, Cluster::request(1, b"\x05"));
    group.deliver_all();
    group.replies.clear();
    for i in 0..4 {
        group.ask(i, Cluster::request(1, b"\x05"));
    }
    group.deliver_all();
    let answers = group.answers(1);
    assert_eq!(answers.len(), 4);
    assert!(answers.iter().all(|(_, n, count)| (*n, *count) == (SequenceNumber(2), 5)));
    assert_eq!(group.executed(), [2; 4]);
}

/// Decision 5: seq must be last + 1; the same seq with another digest is refused, and an old one too.
#[test]
fn a_slot_runs_each_seq_once() {
    let mut group = group();
    group.ask(0, Cluster::request(1, b"\x05"));
    group.ask(0, Cluster::request(1, b"\x06"));
    group.deliver_all();
    group.ask(0, Cluster::request(1, b"\x06"));
    group.ask(0, Cluster::request(0, b"\x05"));
    let why: Vec<_> = group.rejections.iter().map(|(_, why)| *why).collect();
    assert_eq!(why, [Rejection::SlotConflict, Rejection::SlotConflict, Rejection::OldRequest]);
    group.ask(0, Cluster::request(3, b"\x07"));
    group.deliver_all();
    assert_eq!(group.executed(), [2; 4], "seq 3 waits for seq 2");
    group.ask(0, Cluster::request(2, b"\x07"));
    group.deliver_all();
    assert_eq!(group.answers(2).len(), 4);
}

/// [CL02 §5.1.4] What arrives together is ordered together, and not the first alone before the others; what is much is shared
/// out over the places in the pipeline.
#[test]
fn what_arrives_together_is_ordered_together() {
    for (requests, batches) in [(10, vec![10]), (50, vec![32, 18]), (64, vec![32, 32])] {
        let mut group = group();
        let mut outputs = Vec::new();
        for slot in 0..requests {
            let mut request = Cluster::request(1, b"\x05");
            request.request.slot = Slot(slot);
            let request = Message::Request(Cluster::signed(request.request));
            let verified = group.replicas[0].verify(CLIENT, request).unwrap();
            group.replicas[0].take(group.now, Input::Message(verified), &mut outputs);
        }
        assert!(!outputs.iter().any(|output| matches!(output, Output::Send { .. })));
        group.replicas[0].conclude(group.now, &mut outputs);
        let sizes = outputs.iter().filter_map(|output| match output {
            Output::Send { message: Message::PrePrepare(m), .. } => Some(m.batch.len()),
            _ => None,
        });
        assert_eq!(sizes.collect::<Vec<_>>(), batches, "{requests} requests");
    }
}

/// [decision 7] Agreed time ascends from request to request: what two writers of one batch leave does not bear one time, or each
/// would take it for its own doing.
#[test]
fn every_request_of_a_batch_has_a_time_of_its_own() {
    let mut group = group();
    let requests = [0, 1, 2].map(|slot| {
        let request = Cluster::request(1, b"time").request;
        Cluster::signed(Request { slot: Slot(slot), ..request })
    });
    let digests = requests.iter().map(|signed| signed.request.digest());
    let time = Time(group.now.wall.0 + 1_000);
    let digest = batch_digest(time, digests);
    let batch = requests.into_iter().map(BatchEntry::Inline).collect();
    let m = PrePrepare { view: View(0), n: SequenceNumber(2), time, batch };
    group.give(replica(0), 1, Message::PrePrepare(m));
    for i in [2, 3] {
        group.give(replica(i), 1, prepare(2, digest));
        group.give(replica(i), 1, commit(2, digest));
    }
    let times: Vec<_> = group.answers(1).iter().map(|(.., told)| *told).collect();
    assert_eq!(times, [time.0, time.0 + 1, time.0 + 2]);
    assert!(group.replicas[1].objects().clock().0 > time.0 + 2, "nor with what comes after");
}

/// B-11: a primary that orders a request twice makes it execute once.
#[test]
fn a_request_ordered_twice_executes_once() {
    let mut group = group();
    let wall = group.now.wall.0;
    for n in [2, 3] {
        let (m, digest) = pre_prepare(n, wall + n, 1, b"\x05");
        group.give(replica(0), 1, m);
        for i in [2, 3] {
            group.give(replica(i), 1, prepare(n, digest));
            group.give(replica(i), 1, commit(n, digest));
        }
    }
    assert_eq!(group.executed()[1], 3);
    let answers = group.answers(1);
    assert_eq!(answers, [(ReplicaId(1), SequenceNumber(2), 5); 2], "answered twice, alike");
}

/// Decision 5: a replayed CREATE-SESSION returns the stored answer, an older epoch is refused, a newer one ends the session.
#[test]
fn a_session_lives_until_a_newer_epoch() {
    let mut group = group();
    let create = |epoch| {
        Cluster::signed(Request {
            client: ClientId(0),
            session: SessionId { epoch, nonce: 42 },
            slot: Slot(0),
            seq: 0,
            operation: Operation::CreateSession,
        })
    };
    group.ask(0, create(1));
    group.deliver_all();
    assert_eq!(group.executed(), [1; 4], "an exact repeat is not ordered again");
    group.ask(0, create(7));
    group.deliver_all();
    group.replies.clear();
    group.ask(0, Cluster::request(1, b"\x05"));
    assert_eq!(group.replies, [(ReplicaId(0), Message::SessionEnded(SESSION))]);
    group.ask(0, create(1));
    group.deliver_all();
    assert_eq!(group.answers(1), []);
}

/// Decision 6: a MAC that is good for the primary only stalls nothing once f backups vouch; and nobody votes before that.
#[test]
fn a_request_that_a_backup_cannot_check_is_held_until_f_backups_vouch() {
    let mut group = group();
    let mut request = Cluster::request(1, b"\x05");
    request.credential = Credential::Authenticator(vec![(KeyId(0), Tag::new([0; 16])); 4]);
    let digest = batch_digest(group.now.wall, [request.request.digest()].into_iter());
    let batch = vec![BatchEntry::Inline(request)];
    let m = PrePrepare { view: View(0), n: SequenceNumber(2), time: group.now.wall, batch };
    group.give(replica(0), 1, Message::PrePrepare(m));
    let voted =
        |group: &Cluster| group.wire.iter().any(|(_, _, m)| matches!(m, Message::Prepare(_)));
    assert!(!voted(&group), "no vote for what nobody vouches for");
    let named =
        |m: &Message| matches!(m, Message::Unauthenticated(m) if m.clients == [ClientId(0)]);
    assert!(group.wire.iter().any(|(_, _, m)| named(m)), "the primary hears of it");
    group.give(replica(0), 1, prepare(2, digest));
    assert!(!voted(&group), "the primary's word is not enough");
    group.give(replica(2), 1, prepare(2, digest));
    assert!(group.wire.iter().any(|(_, _, m)| *m == prepare(2, digest)));
}

/// Decision 6: the same request over the client's own link is proof enough.
#[test]
fn a_held_batch_goes_on_when_the_client_brings_the_request_itself() {
    let mut group = group();
    let mut request = Cluster::request(1, b"\x05");
    let signed = request.credential.clone();
    request.credential = Credential::Authenticator(vec![(KeyId(0), Tag::new([0; 16])); 4]);
    let digest = batch_digest(group.now.wall, [request.request.digest()].into_iter());
    let batch = vec![BatchEntry::Inline(request.clone())];
    let m = PrePrepare { view: View(0), n: SequenceNumber(2), time: group.now.wall, batch };
    group.give(replica(0), 1, Message::PrePrepare(m));
    request.credential = signed;
    group.give(CLIENT, 1, Message::Request(request));
    assert!(group.wire.iter().any(|(_, _, m)| *m == prepare(2, digest)));
}

/// Decision 6: that it must sign a client believes of f+1 replicas. If the primary alone said so, it would drop all that the client
/// sends until it comes signed, a retransmission later.
#[test]
fn a_client_that_two_backups_cannot_check_hears_from_f_plus_1_that_it_must_sign() {
    let mut group = group();
    let mut request = Cluster::request(1, b"\x05");
    request.credential = Credential::Authenticator(vec![(KeyId(0), Tag::new([0; 16])); 4]);
    let batch = vec![BatchEntry::Inline(request)];
    let m = PrePrepare { view: View(0), n: SequenceNumber(3), time: group.now.wall, batch };
    for backup in [1, 2] {
        group.give(replica(0), backup, Message::PrePrepare(m.clone()));
    }
    group.deliver_all();
    group.ask(0, Cluster::request(1, b"\x01"));
    group.deliver_all();
    let sign = |(from, m): &(ReplicaId, Message)| {
        matches!(m, Message::Reply(m) if m.sign).then_some(*from)
    };
    let told: BTreeSet<_> = group.replies.iter().filter_map(sign).collect();
    assert_eq!(told, BTreeSet::from([0, 1, 2].map(ReplicaId)), "the primary, and who complained");
}

/// Two backups tell the primary that they cannot check the client.
fn complain_of_the_client(group: &mut Cluster) {
    for backup in [1, 2] {
        let clients = vec![ClientId(0)];
        group.give(replica(backup), 0, Message::Unauthenticated(Unauthenticated { clients }));
    }
}

/// Decision 6: two backups cannot check a client. For how many batches must it sign then?
fn batches_to_sign(group: &mut Cluster, seq: &mut u64) -> u64 {
    complain_of_the_client(group);
    (0..).take_while(|_| next_must_be_signed(group, seq)).count() as u64
}

/// Decision 6: every VIEW-CHANGE names whom a faulty primary spoilt, and the next faulty primary spoils what they sign.
#[test]
fn who_must_sign_already_signs_no_longer_for_being_named_again() {
    let spans = [1, 4].map(|times| {
        let mut group = group();
        (1..times).for_each(|_| complain_of_the_client(&mut group));
        batches_to_sign(&mut group, &mut 0)
    });
    assert_eq!(spans[0], spans[1]);
}

/// Lets the client ask for one thing, signed, and learn whether it has to sign.
fn next_must_be_signed(group: &mut Cluster, seq: &mut u64) -> bool {
    *seq += 1;
    group.replies.clear();
    group.ask(0, Cluster::request(*seq, b"\x01"));
    group.deliver_all();
    let mut told = group.replies.iter().filter_map(|(from, m)| match m {
        Message::Reply(reply) if *from == ReplicaId(0) => Some(reply.sign),
        _ => None,
    });
    told.next().expect("it is served")
}

/// Decision 6: a client that must sign, and brings the primary one request unsigned and the backups another one signed, deposes
/// nobody: what everyone can check is what the primary orders.
#[test]
fn what_is_signed_takes_the_place_of_what_must_be() {
    let mut group = group();
    complain_of_the_client(&mut group);
    let mut unsigned = Cluster::request(1, b"\x05");
    unsigned.credential = Credential::Authenticator(vec![(KeyId(0), Tag::new([0; 16])); 4]);
    group.ask(0, unsigned);
    group.deliver_all();
    assert_eq!(group.executed(), [1; 4], "it waits for its signature");
    for backup in [1, 2] {
        group.ask(backup, Cluster::request(1, b"\x06"));
    }
    group.deliver_all();
    assert_eq!(group.answers(1).iter().map(|(.., count)| *count).collect::<Vec<_>>(), [6; 4]);
}

/// Decision 6: whoever waits until it may authenticate again, and behaves for a while less than it had to sign, starts where it
/// left off. Else a batch could be held up every few hundred, for ever.
#[test]
fn a_client_that_relapses_signs_for_twice_as_long() {
    let mut group = group();
    let (mut seq, mut spans) = (0, Vec::new());
    for _ in 0..7 {
        let span = batches_to_sign(&mut group, &mut seq);
        spans.push(span);
        // Not for as long as it had to sign, of which the last answer was the first batch.
        (3..span).for_each(|_| assert!(!next_must_be_signed(&mut group, &mut seq)));
    }
    let doubled = |two: &[u64]| two[1] >= 2 * two[0] - 1;
    assert!(spans[0] > 10 && spans.windows(2).all(doubled), "{spans:?}");
    let span = batches_to_sign(&mut group, &mut seq);
    // For longer than that.
    (0..=span + 1).for_each(|_| assert!(!next_must_be_signed(&mut group, &mut seq)));
    assert_eq!(batches_to_sign(&mut group, &mut seq), spans[0], "it starts over");
}

/// Decision 7: a proposed time too far ahead of, or behind, a backup's clock gets no vote of its own.
#[test]
fn a_false_time_gets_no_vote() {
    let mut group = group();
    let hour = 3_600_000_000_000;
    let times = [group.now.wall.0 + hour, group.now.wall.0 - hour.min(group.now.wall.0)];
    for (i, time) in times.into_iter().enumerate() {
        let (m, _) = pre_prepare(2 + i as u64, time, 1, b"\x05");
        group.give(replica(0), 1, m);
    }
    assert!(group.wire.is_empty());
}

/// [CL99 §4.3] "A checkpoint with a proof is a stable checkpoint": 2f+1, and then the log is truncated.
#[test]
fn the_log_is_truncated_when_2f_plus_1_replicas_signed_the_state() {
    let mut group = group();
    for seq in 1..=3 {
        group.ask(0, Cluster::request(seq, b"\x01"));
        group.deliver(|from, _, m| !matches!(m, Message::Checkpoint(_)) || from.0 < 2);
    }
    assert_eq!(group.executed(), [4; 4]);
    let stable = |group: &Cluster| -> Vec<u64> {
        group.replicas.iter().map(|replica| replica.health(0).stable.0).collect()
    };
    assert_eq!(
        stable(&group),
        [0, 0, 4, 4],
        "r0 and r1 have heard of two only, their own included"
    );
    group.repair();
    assert_eq!(stable(&group), [4; 4]);
}

/// [CL99 §4.3] The high water mark stops the primary until a checkpoint is stable.
#[test]
fn the_primary_does_not_propose_beyond_the_high_water_mark() {
    let mut group = group();
    for seq in 1..=8 {
        group.ask(0, Cluster::request(seq, b"\x01"));
        group.deliver(|_, _, m| !matches!(m, Message::Checkpoint(_)));
    }
    assert_eq!(group.executed(), [8; 4], "seq 8 would be batch 9");
    group.repair();
    assert_eq!(group.executed(), [9; 4]);
}

/// [CL02 §5.2] What the network lost is sent again.
#[test]
fn a_replica_that_missed_everything_catches_up_by_status() {
    let mut group = group();
    for seq in 1..=10 {
        group.ask(0, Cluster::request(seq, b"\x01"));
        group.deliver(|_, to, _| to != ReplicaId(3));
    }
    assert_eq!(group.executed()[3], 1);
    assert!(group.executed()[0] >= 11, "three of four go on");
    group.repair();
    assert_eq!(group.executed(), [11; 4]);
    let digests = group.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
}

/// A faulty primary may name by digest what others would send whole: more of it than a message holds. (decision 8)
#[test]
fn a_batch_of_many_small_requests_named_by_digest_is_sent_on_in_pieces() {
    let mut group = Cluster::new(4, 1);
    let mut batch = Vec::new();
    for c in 0..3 {
        for i in 0..4 {
            group.input(i, Input::Connected { peer: Peer::Client(ClientId(c)), entropy: [7; 32] });
        }
        group.ask_as(c, 0, Cluster::open_session_of(c));
        group.deliver_all();
    }
    let n = group.executed()[0] + 1;
    for (c, slot) in (0..3).flat_map(|c| (0..64).map(move |slot| (c, slot))) {
        let (client, slot) = (ClientId(c), Slot(slot));
        let operation = Operation::Service(Bytes::from(vec![1; 8 << 10]));
        let request = Request { client, session: SESSION, slot, seq: 1, operation };
        batch.push(BatchEntry::Reference { digest: request.digest(), client, slot });
        let request = Cluster::signed_by(c, request);
        // What the primary is told goes nowhere.
        (1..4).for_each(|i| group.ask_as(c, i, request.clone()));
    }
    group.wire.clear();
    let m = PrePrepare { view: View(0), n: SequenceNumber(n), time: group.now.wall, batch };
    (1..4).for_each(|i| group.give(replica(0), i, Message::PrePrepare(m.clone())));
    group.deliver(|from, to, _| from.0 != 0 && to.0 != 0);
    assert_eq!(group.executed()[1..], [n; 3]);
    (0..3).for_each(|_| group.repair());
    let executed = group.executed();
    assert!(executed[0] >= n && executed == [executed[0]; 4], "{executed:?}: all have all");
}

/// What one asks for without end takes nothing from another that has been left behind.
#[test]
fn a_flood_of_fetches_keeps_nobody_from_fetching() {
    let mut group = group();
    let (n, addresses) = (SequenceNumber(0), vec![Address::ROOT; Fetch::MAX_ADDRESSES]);
    let fetch = Message::Fetch(Fetch { n, addresses });
    let refused = (ReplicaId(0), Rejection::TooOften);
    for asked in 0.. {
        group.give(replica(3), 0, fetch.clone());
        if group.rejections.contains(&refused) {
            break;
        }
        assert!(asked < 10_000, "there is a limit");
    }
    group.wire.clear();
    group.give(replica(2), 0, fetch);
    assert!(group.wire.iter().any(|(.., m)| matches!(m, Message::Parts(_))));
}

/// A group that has executed 8 MiB in large batches, all without r3.
fn group_with_large_batches() -> Cluster {
    let mut group = Cluster::with(4, 1, |config| config.with_window(64, 128));
    group.open_session();
    for seq in 1..=16 {
        for slot in 0..60 {
            let operation = Operation::Service(Bytes::from(vec![1; 8 << 10]));
            let (client, slot) = (ClientId(0), Slot(slot));
            let request = Request { client, session: SESSION, slot, seq, operation };
            let mut outputs = Vec::new();
            let request = Message::Request(Cluster::signed(request));
            let request = group.replicas[0].verify(Peer::Client(client), request);
            let input = Input::Message(request.expect("it is genuine"));
            group.replicas[0].take(group.now, input, &mut outputs);
        }
        group.input(0, Input::Timeout(Timer::Transfer));
        group.deliver(|_, to, _| to.0 != 3);
    }
    group.wire.clear();
    group
}

/// r3 fetches every batch from r0.
fn fetch_batches(group: &mut Cluster) {
    for n in (2..=group.executed()[0]).map(SequenceNumber) {
        let digest = group.replicas[0].executed_at(n).expect("it is in the log");
        let m = FetchBatch { n, digest, claim: false };
        group.give(replica(3), 0, Message::FetchBatch(m));
    }
}

fn bytes_sent_to(group: &Cluster, to: u32) -> usize {
    let sent = group.wire.iter().filter(|(_, i, _)| *i == Destination::Replica(ReplicaId(to)));
    let length = |m: &Message| {
        let mut bytes = Vec::new();
        codec::encode(m, &mut bytes);
        bytes.len()
    };
    sent.map(|(.., m)| length(m)).sum()
}

/// "so that asking costs the asker more than the answerer": what one STATUS has sent again has a limit in bytes.
#[test]
fn an_answer_to_a_status_has_a_limit() {
    let mut group = group_with_large_batches();
    group.input(3, Input::Timeout(Timer::Status));
    let status = group.wire.iter().find_map(|(.., m)| match m {
        Message::Status(m) => Some(m.clone()),
        _ => None,
    });
    let status = status.expect("r3 tells what it holds: nothing");
    group.wire.clear();
    group.give(replica(3), 0, Message::Status(status));
    let sent = bytes_sent_to(&group, 3);
    assert!(sent > 1 << 20, "{sent} bytes help nobody");
    assert!(sent < 5 << 20, "{sent} bytes for one STATUS");
}

/// Every batch may be fetched once, as they come; again, only as fast as the state may be.
#[test]
fn a_flood_of_fetched_batches_has_a_limit() {
    let mut group = group_with_large_batches();
    fetch_batches(&mut group);
    let once = bytes_sent_to(&group, 3);
    assert!(once > 7 << 20, "{once} bytes: as they come, every batch may be fetched");
    fetch_batches(&mut group);
    let again = bytes_sent_to(&group, 3) - once;
    assert!(again < 2 << 20, "{again} bytes more");
    assert!(group.rejections.contains(&(ReplicaId(0), Rejection::TooOften)));
}

/// Decision 4: f claims of commitment decide nothing, f+1 do.
#[test]
fn a_decided_batch_needs_f_plus_1_claims() {
    let mut group = group();
    let request = Cluster::request(1, b"\x05");
    let claim = |request: &bft_core::messages::SignedRequest| {
        Message::Committed(bft_core::messages::Committed {
            n: SequenceNumber(2),
            time: Time(1_000_000_000_001),
            batch: vec![BatchEntry::Inline(request.clone())],
        })
    };
    group.give(replica(2), 1, claim(&request));
    group.give(replica(2), 1, claim(&request));
    assert_eq!(group.executed()[1], 1);
    group.give(replica(3), 1, claim(&Cluster::request(1, b"\x06")));
    assert_eq!(group.executed()[1], 1, "claims for different batches are not counted together");
    group.give(replica(0), 1, claim(&request));
    assert_eq!(group.executed()[1], 2);
    assert!(group.wire.is_empty(), "a claim makes nobody vote");
}

/// Decision 2: a read matches on the result and on the version of what it saw.
#[test]
fn a_read_answers_at_once_with_the_version_of_what_it_saw() {
    let mut group = group();
    group.ask(0, Cluster::request(1, b"\x05"));
    group.deliver_all();
    group.replies.clear();
    let op = Bytes::from_static(b"get");
    let read = Read { session: SESSION, attempt: 1, replier: ReplicaId(0), op };
    group.give(CLIENT, 3, Message::Read(read.clone()));
    let expected = ReadReply {
        view: View(0),
        session: SESSION,
        attempt: 1,
        version: SequenceNumber(2),
        result: Some(ResultBody::Whole(Bytes::copy_from_slice(&5u64.to_le_bytes()))),
    };
    assert_eq!(group.replies, [(ReplicaId(3), Message::ReadReply(expected))]);
    group.replies.clear();
    let op = Bytes::from_static(b"\x05");
    group.give(CLIENT, 3, Message::Read(Read { op, ..read }));
    let [(_, Message::ReadReply(refused))] = &group.replies[..] else { panic!("one answer") };
    assert_eq!(refused.result, None, "a write is not read-only, whatever the client claims");
}

/// [CL02 §5.1.2] A prepared batch executes tentatively, its replies say so, and it can be undone. (decision 3)
#[test]
fn a_tentative_execution_is_undone_when_another_batch_is_decided() {
    let mut group = group();
    let (m, digest) = pre_prepare(2, group.now.wall.0, 1, b"\x05");
    group.give(replica(0), 1, m);
    group.give(replica(2), 1, prepare(2, digest));
    let [(_, Message::Reply(reply))] = &group.replies[..] else { panic!("one tentative reply") };
    assert!(reply.tentative && reply.n == SequenceNumber(2));
    assert_eq!((group.executed()[1], group.replicas[1].tentative()), (1, Some(SequenceNumber(2))));
    let undecided = group.replicas[3].objects().clone().digest();
    assert_ne!(group.digests()[1], undecided);
    group.replies.clear();
    let claim = Message::Committed(bft_core::messages::Committed {
        n: SequenceNumber(2),
        time: group.now.wall,
        batch: Vec::new(),
    });
    group.give(replica(2), 1, claim.clone());
    group.give(replica(3), 1, claim);
    assert_eq!((group.executed()[1], group.replicas[1].tentative()), (2, None));
    let counter = group.replicas[1].objects().get(bft_core::tree::ObjectId::new(0x80, 0, 0));
    assert_eq!(counter, Some(&0), "nothing of the undone batch remains");
}

/// The request of a batch that is undone waits again, and may be what a later batch lacked a proof of: that batch executes after
/// the one that was decided, and can be undone like any other.
#[test]
fn what_an_undone_batch_proves_executes_after_what_was_decided() {
    let mut group = group();
    let (m, digest) = pre_prepare(2, group.now.wall.0, 1, b"\x05");
    group.give(replica(0), 1, m);
    group.give(replica(2), 1, prepare(2, digest));
    assert_eq!(group.replicas[1].tentative(), Some(SequenceNumber(2)));
    let mut again = Cluster::request(1, b"\x05");
    again.credential = Credential::Authenticator(vec![(KeyId(0), Tag::new([0; 16])); 4]);
    let time = Time(group.now.wall.0 + 1);
    let digest = batch_digest(time, [again.request.digest()].into_iter());
    let (view, n, batch) = (View(0), SequenceNumber(3), vec![BatchEntry::Inline(again)]);
    group.give(replica(0), 1, Message::PrePrepare(PrePrepare { view, n, time, batch }));
    group.give(replica(2), 1, prepare(3, digest));
    for n in [2, 3] {
        let (n, time) = (SequenceNumber(n), group.now.wall);
        let claim =
            Message::Committed(bft_core::messages::Committed { n, time, batch: Vec::new() });
        for (from, to) in [(2, 1), (3, 1), (1, 3), (2, 3)] {
            group.give(replica(from), to, claim.clone());
        }
        assert_eq!((group.executed()[1], group.executed()[3]), (n.0, n.0));
        if n.0 == 2 {
            assert_eq!(group.replicas[1].tentative(), Some(SequenceNumber(3)));
        }
    }
    assert_eq!(group.digests()[1], group.digests()[3]);
}

/// No primary is suspected of a request whose turn came with a batch that was undone: nobody can order it. The client that
/// brought its predecessor unsigned, to one replica, would else have one after the other deposed.
#[test]
fn no_primary_is_held_to_what_came_after_an_undone_batch() {
    let mut group = group();
    let mut first = Cluster::request(1, b"\x05");
    first.credential = Credential::Authenticator(vec![(KeyId(0), Tag::new([0; 16])); 4]);
    group.ask(1, first);
    let (m, digest) = pre_prepare(2, group.now.wall.0, 1, b"\x05");
    group.give(replica(0), 1, m);
    group.give(replica(2), 1, prepare(2, digest));
    assert_eq!(group.replicas[1].tentative(), Some(SequenceNumber(2)));
    group.ask(1, Cluster::request(2, b"\x01"));
    let (n, time) = (SequenceNumber(2), group.now.wall);
    let claim = Message::Committed(bft_core::messages::Committed { n, time, batch: Vec::new() });
    group.give(replica(2), 1, claim.clone());
    group.give(replica(3), 1, claim);
    assert_eq!((group.executed()[1], group.replicas[1].tentative()), (2, None));
    let suspects = |group: &mut Cluster| {
        group.wire.clear();
        while group.view_timers[1].is_some() && group.wire.is_empty() {
            group.view_timeout(1);
        }
        group.wire.iter().any(|(_, _, m)| matches!(m, Message::Suspect(_)))
    };
    assert!(!suspects(&mut group));
    // What comes first is signed now, and with it the other one's turn comes.
    group.ask(1, Cluster::request(1, b"\x05"));
    assert!(suspects(&mut group));
}

/// Decision 3: a read that saw the tentative batch is answered when that commits; so is one that found something missing, which
/// the tentative batch may have removed.
#[test]
fn a_read_of_what_is_tentative_waits_for_the_commit() {
    for op in [&b"get"[..], b"find"] {
        let mut group = group();
        let (m, digest) = pre_prepare(2, group.now.wall.0, 1, b"\x05");
        group.give(replica(0), 1, m);
        group.give(replica(2), 1, prepare(2, digest));
        group.replies.clear();
        let op = Bytes::from_static(op);
        let read = Read { session: SESSION, attempt: 1, replier: ReplicaId(0), op };
        group.give(CLIENT, 1, Message::Read(read));
        assert_eq!(group.replies, []);
        group.give(replica(2), 1, commit(2, digest));
        group.give(replica(3), 1, commit(2, digest));
        let [(_, Message::ReadReply(reply))] = &group.replies[..] else { panic!("one answer") };
        assert_eq!(reply.version, SequenceNumber(2));
    }
}

/// Contract 5: Q before PREPARE, P before COMMIT and before the reply.
#[test]
fn what_must_be_durable_is_named_before_what_it_allows() {
    let mut group = group();
    let (m, digest) = pre_prepare(2, group.now.wall.0, 1, b"\x05");
    let verified = group.replicas[1].verify(replica(0), m).unwrap();
    let mut outputs = Vec::new();
    group.replicas[1].handle(group.now, Input::Message(verified), &mut outputs);
    for from in [2, 3] {
        for m in [prepare(2, digest), commit(2, digest)] {
            let verified = group.replicas[1].verify(replica(from), m).unwrap();
            group.replicas[1].handle(group.now, Input::Message(verified), &mut outputs);
        }
    }
    // Whatever shows what has executed waits for P too: this replica counted its own vote, and must not lose it.
    let read = Read {
        session: SESSION,
        attempt: 1,
        replier: ReplicaId(0),
        op: Bytes::from_static(b"get"),
    };
    let verified = group.replicas[1].verify(CLIENT, Message::Read(read)).unwrap();
    group.replicas[1].handle(group.now, Input::Message(verified), &mut outputs);
    let fetch = FetchBatch { n: SequenceNumber(2), digest, claim: true };
    let verified = group.replicas[1].verify(replica(3), Message::FetchBatch(fetch)).unwrap();
    group.replicas[1].handle(group.now, Input::Message(verified), &mut outputs);
    for output in &outputs {
        if let Output::Send {
            message: Message::ReadReply(_) | Message::Committed(_), after, ..
        } = output
        {
            assert_eq!(after.map(|id| id.0), Some(4), "{output}");
        }
    }
    let lines: Vec<_> = outputs.iter().map(ToString::to_string).collect();
    let d = digest.short(2);
    let at = |wanted: &str| {
        lines
            .iter()
            .position(|line| line.starts_with(wanted))
            .unwrap_or_else(|| panic!("{wanted}: {lines:#?}"))
    };
    let (q, p) =
        (at(&format!("persist p3 Q v=0 n=2 d={d}")), at(&format!("persist p4 P v=0 n=2 d={d}")));
    assert!(q < at(&format!("-> all PREPARE v=0 n=2 d={d} after p3")));
    assert!(p < at(&format!("-> all COMMIT v=0 n=2 d={d} after p4")));
    assert!(p < at("-> c0 REPLY v=0 slot=0 seq=1 n=2 after p4"));
    assert!(p < at("-> c0 READ-REPLY") && p < at("-> r3 COMMITTED"));
}

/// Contract 5: `recover` is the inverse of what was persisted; a recovered replica votes as it voted and goes on.
#[test]
fn a_replica_recovers_from_its_records_and_goes_on() {
    let mut group = group();
    for seq in 1..=5 {
        group.ask(0, Cluster::request(seq, b"\x01"));
        group.deliver_all();
    }
    let snapshot = group.replicas[2].stable_snapshot();
    let stable = |record: &Record| matches!(record, Record::Stable { .. });
    let first = group.records[2].iter().rposition(stable).expect("n=4 is stable");
    let config = Config { me: ReplicaId(2), ..group.config };
    let records = &group.records[2][first..];
    let recovered = Replica::recover(config, group.authority(2), Counter, snapshot, records);
    group.replicas[2] = recovered.expect("the records are whole");
    assert_eq!(group.executed(), [6, 6, 4, 6]);
    group.replies.clear();
    let op = Bytes::from_static(b"get");
    let read = Read { session: SESSION, attempt: 1, replier: ReplicaId(0), op };
    group.give(CLIENT, 2, Message::Read(read));
    let reads = group.replies.iter().filter(|(_, m)| matches!(m, Message::ReadReply(_)));
    assert_eq!(reads.count(), 0, "no read before it has executed what it may have executed before");
    group.repair();
    assert_eq!(group.executed(), [6; 4]);
    group.ask(0, Cluster::request(6, b"\x01"));
    group.deliver_all();
    assert_eq!(group.answers(6).len(), 4);
}

#[test]
fn a_replica_does_not_recover_from_another_checkpoint() {
    let mut group = group();
    for seq in 1..=5 {
        group.ask(0, Cluster::request(seq, b"\x01"));
        group.deliver_all();
    }
    let config = Config { me: ReplicaId(2), ..group.config };
    let genesis = Replica::new(config, group.authority(2), Counter).stable_snapshot();
    let wrong = Snapshot { n: SequenceNumber(4), objects: genesis.objects };
    let result = Replica::recover(config, group.authority(2), Counter, wrong, &group.records[2]);
    assert!(result.is_err());
}

/// A group of one: the same code, nobody to wait for.
#[test]
fn an_unreplicated_service_is_a_group_of_one() {
    let mut group = Cluster::new(1, 0);
    group.open_session();
    for seq in 1..=20 {
        group.ask(0, Cluster::request(seq, b"\x01"));
        group.deliver_all();
    }
    assert_eq!(group.answers(20), [(ReplicaId(0), SequenceNumber(21), 20)]);
    assert_eq!(group.replicas[0].health(0).stable, SequenceNumber(20));
}

/// With n = 7 and f = 2 a quorum is 5: two may be away, three may not.
#[test]
fn seven_replicas_survive_two_and_stall_without_three() {
    let mut group = Cluster::new(7, 2);
    group.open_session();
    group.ask(0, Cluster::request(1, b"\x01"));
    group.deliver(|from, to, _| from.0 < 5 && to.0 < 5);
    assert_eq!(group.answers(1).len(), 5);
    group.ask(0, Cluster::request(2, b"\x01"));
    group.deliver(|from, to, _| from.0 < 4 && to.0 < 4);
    assert_eq!(group.answers(2), []);
}

/// B-16: who votes is who the link says; a client votes for nobody.
#[test]
fn a_client_cannot_vote() {
    let mut group = group();
    group.give(CLIENT, 1, prepare(2, Digest([1; 32])));
    group.give(CLIENT, 1, commit(2, Digest([1; 32])));
    assert_eq!(group.rejections, [(ReplicaId(1), Rejection::WrongSender); 2]);
}

/// A client may not speak for another.
#[test]
fn a_request_over_another_clients_link_is_refused() {
    let mut group = group();
    let other = Peer::Client(ClientId(1));
    group.give(other, 0, Message::Request(Cluster::request(1, b"\x05")));
    assert_eq!(group.rejections, [(ReplicaId(0), Rejection::WrongSender)]);
}

/// A large request is ordered by digest; a replica without it does not vote until it has come. (decision 8)
#[test]
fn a_large_request_is_ordered_by_digest_and_fetched_where_it_is_missing() {
    static LARGE: [u8; 20_000] = [1; 20_000];
    let mut group = group();
    let request = Cluster::request(1, &LARGE);
    for i in 0..3 {
        group.ask(i, request.clone());
    }
    group.deliver(|_, to, m| to != ReplicaId(3) || !matches!(m, Message::Request(_)));
    assert_eq!(group.executed(), [2, 2, 2, 1]);
    group.repair();
    assert_eq!(group.executed(), [2; 4]);
}

/// B-09: a primary that passes one backup over. f+1 COMMITs bind the batch to n; the backup asks for it and votes.
#[test]
fn a_backup_that_is_passed_over_fetches_the_batch_and_takes_part() {
    let mut group = group();
    group.ask(0, Cluster::request(1, b"\x05"));
    // All that the primary does is to tell r1 and r2 of the batch: without r3's vote nothing commits.
    let mut commits = 0;
    group.deliver(|from, to, m| {
        commits += usize::from(from.0 == 3 && matches!(m, Message::Commit(_)));
        from.0 != 0 || to.0 != 3 && matches!(m, Message::PrePrepare(_))
    });
    assert_eq!(group.executed(), [2; 4]);
    assert!(commits > 0, "it prepares like the others");
    assert_eq!(group.answers(1).len(), 4);
}

/// B-02: the primary tells one backup of another batch. It cannot vote for both, and executes what the others say committed.
#[test]
fn a_backup_that_was_told_of_another_batch_executes_what_commits() {
    let mut group = group();
    let (lie, _) = pre_prepare(2, group.now.wall.0, 1, b"\x09");
    group.ask(0, Cluster::request(1, b"\x05"));
    group.give(replica(0), 3, lie);
    group.deliver(|from, to, m| !(from.0 == 0 && to.0 == 3 && matches!(m, Message::PrePrepare(_))));
    assert_eq!(group.executed(), [2; 4]);
    assert!(group.answers(1).iter().all(|(_, _, count)| *count == 5));
}

/// One client that asks for two sessions at once, on the same lane, does not make every primary's batches unacceptable.
#[test]
fn a_client_that_opens_two_sessions_at_once_stops_nobody() {
    let mut group = group();
    let mut open = Cluster::open_session_of(1);
    group.replicas[0].handle(group.now, Input::Timeout(Timer::Status), &mut vec![]);
    let first = open.request.clone();
    open.request.session.nonce += 1;
    group.ask_as(1, 0, Cluster::signed_by(1, first));
    group.ask_as(1, 0, Cluster::signed_by(1, open.request));
    group.ask(0, Cluster::request(1, b"\x05"));
    group.deliver_all();
    assert_eq!(group.answers(1).len(), 4);
    assert!(group.rejections.iter().all(|(_, why)| *why != Rejection::DuplicateInBatch));
}

/// [decision 7] Heartbeats carry time: an idle group's clock goes on.
#[test]
fn an_idle_primary_orders_a_heartbeat_and_time_goes_on() {
    let mut group = group();
    let before = group.replicas[1].objects().clock();
    group.now.tick = group.now.tick.after(group.config.heartbeat);
    group.now.wall.0 += 5_000_000_000;
    group.input(0, Input::Timeout(Timer::Heartbeat));
    group.deliver_all();
    assert_eq!(group.executed(), [2; 4]);
    assert_eq!(group.replicas[1].objects().clock(), group.now.wall);
    assert!(before < group.now.wall);
    group.input(1, Input::Timeout(Timer::Heartbeat));
    assert!(group.wire.is_empty(), "a backup orders nothing, and has nothing to complain of");
}

/// [protocol C.6] "a primary that omits them: arm the timer for it".
#[test]
fn a_primary_whose_heart_has_stopped_is_replaced_although_nobody_asks_for_anything() {
    let mut group = group();
    group.now.tick = Tick(group.now.tick.0 + 11_000_001);
    for i in 1..4 {
        group.input(i, Input::Timeout(Timer::Heartbeat));
    }
    group.deliver(|from, to, _| from.0 != 0 && to.0 != 0);
    assert_eq!(group.views()[1..], [(1, true); 3]);
}

/// [CL02 §4.3.1], decision 12: keys are refreshed, what is under way is not lost, and an old key is not bad but unknown.
#[test]
fn a_refreshed_key_leaves_the_one_before_it_good_for_one_period() {
    let mut group = group();
    let refresh = |group: &mut Cluster, period: u8| -> Vec<(KeyId, MacKey)> {
        group.replies.clear();
        for i in 0..4 {
            group.input(i, Input::RefreshKeys { entropy: [period; 32] });
        }
        let keys = group.replies.iter().filter_map(|(_, m)| match m {
            Message::NewKey(m) => Some((m.id, MacKey::for_requests(m.secret, common::GROUP))),
            _ => None,
        });
        // The first key of each replica is client 0's.
        keys.step_by(common::CLIENTS.into()).collect()
    };
    let ask = |group: &mut Cluster, seq: u64, keys: &[(KeyId, MacKey)]| {
        let mut request = Cluster::request(seq, b"\x01");
        let digest = request.request.digest();
        let tags = keys.iter().map(|(id, key)| (*id, Named(0).mac(key, &digest)));
        request.credential = Credential::Authenticator(tags.collect());
        group.ask(0, request);
        group.deliver_all();
        group.executed()
    };
    let first = refresh(&mut group, 1);
    assert_eq!(ask(&mut group, 1, &first), [2; 4]);
    let second = refresh(&mut group, 2);
    assert_eq!(ask(&mut group, 2, &first), [3; 4], "the key before is still good");
    assert_eq!(ask(&mut group, 3, &second), [4; 4]);
    refresh(&mut group, 3);
    assert_eq!(ask(&mut group, 4, &first), [4; 4], "the one before that is not");
    assert_eq!(group.views(), [(0, true); 4]);
}
