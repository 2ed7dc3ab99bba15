//! What one faulty replica or client may cost the others.

mod common;

use bft_core::auth::{
    Authority, Crypto, MacKey, PublicKey, Signature, Tag, new_view_digest, view_change_digest,
};
use bft_core::io::{Input, Rejection, Timer};
use bft_core::messages::*;
use bft_core::replica::{Config, Replica};
use bft_core::types::*;
use bytes::Bytes;
use common::{CLIENT, CLIENTS, Cluster, Counter, GROUP, Named, SESSION};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the signatures that are checked.
struct Counting(Named, Arc<AtomicUsize>);

impl Crypto for Counting {
    fn mac(&self, key: &MacKey, digest: &Digest) -> Tag {
        self.0.mac(key, digest)
    }

    fn sign(&self, digest: &Digest) -> Signature {
        self.0.sign(digest)
    }

    fn verify(&self, public: &PublicKey, digest: &Digest, signature: &Signature) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.verify(public, digest, signature)
    }
}

/// A group of four with a session of client 0, and how many signatures r1 has checked.
fn counted() -> (Cluster, Arc<AtomicUsize>) {
    let mut group = Cluster::new(4, 1);
    let checked = Arc::new(AtomicUsize::new(0));
    let config = Config { me: ReplicaId(1), ..group.config };
    let authority = Authority::new(
        GROUP,
        config.size,
        ReplicaId(1),
        config.limits,
        (0..4).map(Named::public).collect(),
        (CLIENT..CLIENT + CLIENTS).map(Named::identity),
        Arc::new(Counting(Named(1), checked.clone())),
    );
    group.replicas[1] = Replica::new(config, authority, Counter);
    group.open_session();
    (group, checked)
}

fn replica(i: u32) -> Peer {
    Peer::Replica(ReplicaId(i))
}

/// A signed request of client 0.
fn request(slot: u16) -> SignedRequest {
    let operation = Operation::Service(Bytes::from_static(b"\x01"));
    let (client, slot) = (ClientId(0), Slot(slot));
    Cluster::signed(Request { client, session: SESSION, slot, seq: 1, operation })
}

/// Requests of client 0, each on its own slot.
fn batch(requests: u16) -> Vec<BatchEntry> {
    (0..requests).map(|slot| BatchEntry::Inline(request(slot))).collect()
}

fn pre_prepare(view: u64, n: u64, batch: Vec<BatchEntry>) -> Message {
    let time = Time(1_000_000_000_000);
    Message::PrePrepare(PrePrepare { view: View(view), n: SequenceNumber(n), time, batch })
}

fn committed(n: u64) -> Message {
    let (n, time) = (SequenceNumber(n), Time(1_000_000_000_000));
    Message::Committed(Committed { n, time, batch: batch(8) })
}

fn view_change(i: u32, view: u64) -> ViewChange {
    let mut m = ViewChange {
        view: View(view),
        stable: SequenceNumber(0),
        certificate: Vec::new(),
        prepared: Vec::new(),
        pre_prepared: Vec::new(),
        unauthenticated: Vec::new(),
        incarnation: 0,
        replica: ReplicaId(i),
        signature: Signature([0; 64]),
    };
    m.signature = Named(i as u8).sign(&view_change_digest(GROUP, &m));
    m
}

fn new_view(view: u64, grounds: &[ViewChange]) -> Message {
    let named = grounds.iter().map(|m| (m.replica, view_change_digest(GROUP, m)));
    let mut m = NewView {
        view: View(view),
        view_changes: named.collect(),
        stable: SequenceNumber(0),
        batches: Vec::new(),
        signature: Signature([0; 64]),
    };
    m.signature = Named((view % 4) as u8).sign(&new_view_digest(GROUP, &m));
    Message::NewView(m)
}

/// What is refused whoever signed it is refused before a signature is checked: hundreds of them fit a frame.
#[test]
fn no_signature_is_checked_of_what_is_refused_anyway() {
    use Rejection::*;
    let (mut group, checked) = counted();
    let mut twice = batch(8);
    twice.extend(batch(1));
    let body = BatchBody { time: Time(1_000_000_000_000), batch: batch(8) };
    let forged = |n| Checkpoint {
        n: SequenceNumber(n),
        digest: Digest([7; 32]),
        replica: ReplicaId(2),
        signature: Signature([0; 64]),
    };
    let cases = [
        (2, pre_prepare(0, 2, batch(8)), NotPrimary),
        (0, pre_prepare(7, 2, batch(8)), WrongView),
        (0, pre_prepare(0, 9, batch(8)), OutsideWaterMarks),
        (0, pre_prepare(0, 1, batch(8)), ConflictingPrePrepare),
        (0, pre_prepare(0, 2, twice), DuplicateInBatch),
        (0, pre_prepare(0, 2, batch(513)), TooLarge),
        (2, committed(9), OutsideWaterMarks),
        (2, committed(1), Duplicate),
        (2, Message::Batch(body), Duplicate),
        (2, Message::StableCertificate(vec![forged(3); 3]), OutsideWaterMarks),
        (2, Message::ViewChange(view_change(2, 0)), WrongView),
        (2, new_view(5, &[0, 2, 3].map(|i| view_change(i, 5))), WrongView),
    ];
    checked.store(0, Ordering::Relaxed);
    for (from, message, why) in cases {
        group.rejections.clear();
        let name = message.name();
        group.give(replica(from), 1, message);
        assert_eq!(group.rejections, [(ReplicaId(1), why)], "{name}");
        assert_eq!(checked.load(Ordering::Relaxed), 0, "{name}: {why}");
    }
}

/// COMMITTED is believed for the sake of f+1 replicas, and no client's signature would add to that.
#[test]
fn no_signature_is_checked_of_a_claim() {
    let (mut group, checked) = counted();
    checked.store(0, Ordering::Relaxed);
    group.give(replica(2), 1, committed(2));
    assert_eq!((checked.load(Ordering::Relaxed), group.executed()[1]), (0, 1));
    group.give(replica(3), 1, committed(2));
    assert_eq!((checked.load(Ordering::Relaxed), group.executed()[1]), (0, 2));
}

/// A second VIEW-CHANGE of one replica for one view is of use to nobody.
#[test]
fn a_second_view_change_is_refused_unread() {
    let (mut group, checked) = counted();
    let first = view_change(2, 1);
    let mut second = ViewChange { unauthenticated: vec![ClientId(0)], ..first.clone() };
    second.signature = Named(2).sign(&view_change_digest(GROUP, &second));
    group.give(replica(2), 1, Message::ViewChange(first.clone()));
    checked.store(0, Ordering::Relaxed);
    group.rejections.clear();
    for m in [first, second] {
        group.give(replica(2), 1, Message::ViewChange(m));
    }
    let why: Vec<_> = group.rejections.iter().map(|(_, why)| *why).collect();
    assert_eq!(why, [Rejection::Duplicate, Rejection::SignedTwice]);
    assert_eq!(checked.load(Ordering::Relaxed), 0);
}

/// Its link proves what a client asks for; its signature is what a backup holds the primary to, and one of them is enough.
#[test]
fn of_all_that_a_client_signs_one_signature_is_checked_at_a_time() {
    let (mut group, checked) = counted();
    checked.store(0, Ordering::Relaxed);
    (0..4).for_each(|slot| group.ask(1, request(slot)));
    assert_eq!(checked.load(Ordering::Relaxed), 1);
    group.give(replica(0), 1, pre_prepare(0, 2, batch(4)));
    let voted =
        |(_, _, m): &(ReplicaId, _, Message)| matches!(m, Message::Prepare(m) if m.n.0 == 2);
    assert!(group.wire.iter().any(voted), "they are authentic");
    assert_eq!(checked.load(Ordering::Relaxed), 1);
    (0..4).for_each(|slot| group.ask(1, request(slot)));
    assert_eq!(checked.load(Ordering::Relaxed), 1, "sent again while the first waits");
}

/// A body that only the primary got is asked for as soon as in a group at work, not when the next STATUS of an idle one is due.
/// A primary may name requests that nobody has, more of them than one STATUS asks for. They keep whoever believed it from nothing
/// that the others have decided, neither in their place nor after it.
#[test]
fn requests_that_a_primary_made_up_are_asked_for_last() {
    let mut group = Cluster::with(4, 1, |config| Config { inline_bytes: 0, ..config });
    group.open_session();
    let made_up = |k| {
        let mut digest = Digest::default();
        digest.0[31] = k;
        BatchEntry::Reference { digest, client: ClientId(0), slot: Slot(k.into()) }
    };
    let lie: Vec<_> = (0..=Status::MAX_MISSING as u8).map(made_up).collect();
    group.give(Peer::Replica(ReplicaId(0)), 3, pre_prepare(0, 2, lie));
    assert_eq!(group.rejections, []);
    for n in [2, 3] {
        (0..3).for_each(|i| group.ask(i, Cluster::request(n - 1, b"\x05")));
        group.deliver(|_, to, _| to.0 != 3);
        assert_eq!(group.executed(), [n, n, n, n - 1]);
        group.repair();
        assert_eq!(group.executed(), [n; 4]);
    }
}

#[test]
fn a_body_that_only_the_primary_got_is_asked_for_soon() {
    let mut group = Cluster::with(4, 1, |config| Config { inline_bytes: 0, ..config });
    group.open_session();
    (0..4).for_each(|i| group.input(i, Input::Timeout(Timer::Status)));
    group.deliver_all();
    group.wait_until(Tick(group.now.tick.0 + 300_000));
    group.ask(0, Cluster::request(1, b"\x05"));
    group.deliver_all();
    assert_eq!(group.executed(), [1; 4], "nobody else has the request");
    group.wait_until(Tick(group.now.tick.0 + 110_000));
    group.deliver_all();
    assert_eq!(group.executed(), [2; 4]);
}
