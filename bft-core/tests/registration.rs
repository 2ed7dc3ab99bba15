//! Clients that come and go: "client registration and revocation are ordered operations". (decision 6)

mod common;

use bft_core::clients::{ClientIdentity, ClientsOp, ClientsReply, Refusal};
use bft_core::io::{Input, Rejection, Timer};
use bft_core::messages::{
    BatchEntry, Message, Operation, Outcome, PrePrepare, Request, ResultBody, SessionId,
    SignedRequest,
};
use bft_core::types::{ClientId, Digest, Peer, ReplicaId, SequenceNumber, Slot, View};
use common::{CLIENT, CLIENTS, Cluster, Named, SESSION};

const NEWCOMER: u32 = CLIENTS as u32;

fn newcomer() -> ClientIdentity {
    Named::identity(CLIENT + CLIENTS)
}

fn about_clients(by: u32, seq: u64, op: ClientsOp) -> SignedRequest {
    let operation = Operation::Clients(op);
    let client = ClientId(by);
    Cluster::signed_by(by, Request { client, session: SESSION, slot: Slot(0), seq, operation })
}

/// The group does what client `by` asks, and everyone answers alike.
#[track_caller]
fn order(group: &mut Cluster, by: u32, seq: u64, op: ClientsOp) -> ClientsReply {
    group.replies.clear();
    group.ask_as(by, 0, about_clients(by, seq, op));
    group.deliver_all();
    let answers = group.replies.iter().filter_map(|(_, message)| match message {
        Message::Reply(reply) if reply.seq == seq => match &reply.outcome {
            Outcome::Result(ResultBody::Whole(result)) => Some(result.clone()),
            _ => None,
        },
        _ => None,
    });
    let answers: Vec<_> = answers.collect();
    assert_eq!(answers.len(), 4, "every replica answers");
    assert!(answers.windows(2).all(|two| two[0] == two[1]));
    ClientsReply::from_bytes(&answers[0]).expect("an answer about clients")
}

fn with_newcomer() -> Cluster {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    let reply = order(&mut group, 0, 1, ClientsOp::Register(newcomer()));
    assert_eq!(reply, ClientsReply::Registered(ClientId(NEWCOMER)));
    group
}

fn open(group: &mut Cluster, c: u32) {
    group.ask_as(c, 0, Cluster::open_session_of(c));
    group.deliver_all();
}

fn told_ended(group: &Cluster, session: SessionId) -> usize {
    let ended =
        |(_, m): &&(ReplicaId, Message)| matches!(m, Message::SessionEnded(s) if *s == session);
    group.replies.iter().filter(ended).count()
}

#[test]
fn nobody_hears_a_client_before_it_is_registered() {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    open(&mut group, NEWCOMER);
    let refused = |(_, why): &&(ReplicaId, Rejection)| *why == Rejection::UnknownClient;
    assert!(group.rejections.iter().any(|r| refused(&r)), "{:?}", group.rejections);
    assert_eq!(group.executed(), [1; 4], "only the administrator's session");
}

#[test]
fn a_registered_client_is_taken_in_by_every_replica_and_served() {
    let mut group = with_newcomer();
    let taken_in: Vec<_> = group.table.drain(..).collect();
    let expected = |i| (ReplicaId(i), ClientId(NEWCOMER), Some(newcomer().link));
    assert_eq!(taken_in.len(), 4);
    assert!((0..4).all(|i| taken_in.contains(&expected(i))), "{taken_in:?}");
    for i in 0..4 {
        let peer = Peer::Client(ClientId(NEWCOMER));
        group.input(i, Input::Connected { peer, entropy: [i as u8; 32] });
    }
    let keys = group.replies.iter().filter_map(|(_, message)| match message {
        Message::NewKey(key) => Some(key.client),
        _ => None,
    });
    let keys: Vec<_> = keys.collect();
    assert_eq!(keys, [ClientId(NEWCOMER); 4], "each replica says which number it has");
    open(&mut group, NEWCOMER);
    group.replies.clear();
    group.ask_as(NEWCOMER, 0, Cluster::request_of(NEWCOMER, 1, &[5]));
    group.deliver_all();
    assert_eq!(group.answers(1).iter().filter(|(.., count)| *count == 5).count(), 4);
}

#[test]
fn only_the_administrator_says_who_is_a_client() {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    open(&mut group, 1);
    let refused = ClientsReply::Refused(Refusal::NotAdministrator);
    assert_eq!(order(&mut group, 1, 1, ClientsOp::Register(newcomer())), refused);
    assert_eq!(order(&mut group, 1, 2, ClientsOp::Revoke(ClientId(2))), refused);
    assert!(group.table.is_empty());
    // Who is one, anybody may know.
    let ClientsReply::Clients(all) = order(&mut group, 1, 3, ClientsOp::List(ClientId(0))) else {
        panic!("a list");
    };
    let names: Vec<_> = all.iter().map(|(id, identity)| (id.0, identity.name.as_str())).collect();
    assert_eq!(names, [(0, "client 100"), (1, "client 101"), (2, "client 102")]);
}

/// The digest of a batch binds its requests, not whom the primary says a reference belongs to.
#[test]
fn who_asks_is_whom_the_request_names_not_whom_the_primary_does() {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    open(&mut group, 1);
    group.replies.clear();
    let request = about_clients(1, 1, ClientsOp::Register(newcomer()));
    let (digest, administrator) = (request.request.digest(), ClientId(0));
    let batch = vec![BatchEntry::Reference { digest, client: administrator, slot: Slot(0) }];
    let m = PrePrepare { view: View(0), n: SequenceNumber(3), time: group.now.wall, batch };
    for backup in 1..4 {
        group.give(Peer::Client(ClientId(1)), backup, Message::Request(request.clone()));
        group.give(Peer::Replica(ReplicaId(0)), backup, Message::PrePrepare(m.clone()));
    }
    group.deliver_all();
    let results = group.replies.iter().filter_map(|(_, m)| match m {
        Message::Reply(reply) => match &reply.outcome {
            Outcome::Result(ResultBody::Whole(result)) => ClientsReply::from_bytes(result).ok(),
            _ => None,
        },
        _ => None,
    });
    let results: Vec<_> = results.collect();
    assert!(results.len() >= 3, "{results:?}");
    let refused = ClientsReply::Refused(Refusal::NotAdministrator);
    assert!(results.iter().all(|result| *result == refused), "{results:?}");
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let mut group = with_newcomer();
    group.table.clear();
    let refused = |refusal| ClientsReply::Refused(refusal);
    let mut seq = 1;
    let mut ask = |op| {
        seq += 1;
        order(&mut group, 0, seq, op)
    };
    let other = |name: &str, key: u8| ClientIdentity { name: name.into(), ..Named::identity(key) };
    assert_eq!(ask(ClientsOp::Revoke(ClientId(0))), refused(Refusal::IsAdministrator));
    assert_eq!(ask(ClientsOp::Revoke(ClientId(77))), refused(Refusal::NoSuchClient));
    assert_eq!(ask(ClientsOp::Register(newcomer())), refused(Refusal::KeyTaken));
    assert_eq!(ask(ClientsOp::Register(other("client 100", 120))), refused(Refusal::NameTaken));
    assert_eq!(ask(ClientsOp::Register(other("", 120))), refused(Refusal::BadName));
    assert_eq!(ask(ClientsOp::Register(other("a\nb", 120))), refused(Refusal::BadName));
    assert_eq!(ask(ClientsOp::Register(other(&"x".repeat(256), 120))), refused(Refusal::BadName));
    assert!(group.table.is_empty());
}

#[test]
fn a_revoked_client_is_told_and_never_served_again() {
    let mut group = with_newcomer();
    open(&mut group, NEWCOMER);
    group.table.clear();
    let reply = order(&mut group, 0, 2, ClientsOp::Revoke(ClientId(NEWCOMER)));
    assert_eq!(reply, ClientsReply::Revoked);
    assert_eq!(group.table.len(), 4);
    assert!(group.table.iter().all(|(_, c, link)| (*c, *link) == (ClientId(NEWCOMER), None)));
    assert_eq!(told_ended(&group, SessionId::REVOKED), 4);
    let before = group.executed();
    group.replies.clear();
    group.ask_as(NEWCOMER, 0, Cluster::request_of(NEWCOMER, 1, &[5]));
    group.ask_as(NEWCOMER, 0, Cluster::open_session_of(NEWCOMER));
    group.deliver_all();
    assert_eq!(group.executed(), before);
    assert_eq!(told_ended(&group, SESSION), 1, "by the one that was asked");
    // Its number is nobody else's.
    let other = Named::identity(CLIENT + CLIENTS + 1);
    let reply = order(&mut group, 0, 3, ClientsOp::Register(other));
    assert_eq!(reply, ClientsReply::Registered(ClientId(NEWCOMER + 1)));
}

/// The session that stands for revocation is nobody's, so none that a client made up outlives it.
#[test]
fn nobody_opens_the_session_of_the_revoked() {
    let mut group = with_newcomer();
    let before = group.executed();
    for nonce in [0, 1] {
        let mut request = Cluster::open_session_of(NEWCOMER).request;
        request.session = SessionId { nonce, ..SessionId::REVOKED };
        group.ask_as(NEWCOMER, 0, Cluster::signed_by(NEWCOMER, request));
    }
    group.deliver_all();
    assert_eq!(group.executed(), before);
    let refused = |(_, why): &&(ReplicaId, Rejection)| *why == Rejection::UnknownSession;
    assert_eq!(group.rejections.iter().filter(refused).count(), 2, "{:?}", group.rejections);
}

#[test]
fn what_a_revoked_client_had_waiting_deposes_no_primary() {
    let mut group = with_newcomer();
    open(&mut group, NEWCOMER);
    // It reaches a backup alone, which times it because it is signed, and the primary never hears of it.
    group.ask_as(NEWCOMER, 1, Cluster::request_of(NEWCOMER, 1, &[5]));
    group.wire.clear();
    assert!(group.view_timers[1].is_some());
    order(&mut group, 0, 2, ClientsOp::Revoke(ClientId(NEWCOMER)));
    group.wire.clear();
    group.now.tick = group.now.tick.after(group.config.view_timeout * 3);
    group.input(1, Input::Timeout(Timer::ViewChange));
    assert!(group.wire.iter().all(|(.., m)| !matches!(m, Message::Suspect(_))), "{:?}", group.wire);
}

#[test]
fn a_batch_from_before_the_revocation_is_voted_on_and_its_request_is_not_executed() {
    let mut group = with_newcomer();
    open(&mut group, NEWCOMER);
    let before = group.executed()[0];
    group.replies.clear();
    // The primary proposes both before it has executed the first.
    group.ask_as(0, 0, about_clients(0, 2, ClientsOp::Revoke(ClientId(NEWCOMER))));
    group.ask_as(NEWCOMER, 0, Cluster::request_of(NEWCOMER, 1, &[5]));
    let is_proposal = |(.., m): &(_, _, Message)| matches!(m, Message::PrePrepare(_));
    assert_eq!(group.wire.iter().filter(|m| is_proposal(m)).count(), 2);
    let late = group.wire.iter().rposition(is_proposal).and_then(|last| group.wire.remove(last));
    let late = late.expect("two proposals");
    group.deliver_all();
    assert_eq!(group.executed(), [before + 1; 4], "the revocation alone");
    group.wire.push_back(late);
    group.deliver_all();
    assert_eq!(group.executed(), [before + 2; 4], "and then the batch that no one needs");
    assert!(group.answers(1).is_empty(), "{:?}", group.answers(1));
}

#[test]
fn a_registration_that_is_undone_has_not_happened() {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    let op = ClientsOp::Register(newcomer());
    group.ask_as(0, 0, about_clients(0, 1, op));
    // It prepares everywhere and commits nowhere.
    group.deliver(|_, _, message| !matches!(message, Message::Commit(_)));
    assert!(group.replicas.iter().all(|r| r.tentative() == Some(SequenceNumber(2))));
    assert!(group.table.is_empty(), "nobody acts on what may be undone");
}

#[test]
fn a_replica_that_was_away_learns_who_came_and_who_went() {
    let mut group = with_newcomer();
    open(&mut group, NEWCOMER);
    group.table.clear();
    group.forget(3, 9);
    order_without(&mut group, 2, ClientsOp::Revoke(ClientId(1)));
    for seq in 3..40 {
        group.ask(0, Cluster::request(seq, &[1]));
        group.deliver_all();
        group.input(3, Input::Timeout(Timer::Status));
        group.deliver_all();
    }
    let of_3: Vec<_> = group.table.iter().filter(|(i, ..)| *i == ReplicaId(3)).collect();
    assert!(of_3.iter().any(|(_, c, link)| *c == ClientId(NEWCOMER) && link.is_some()), "{of_3:?}");
    assert!(of_3.iter().any(|(_, c, link)| *c == ClientId(1) && link.is_none()), "{of_3:?}");
    let digests: Vec<Digest> = group.digests();
    assert_eq!(digests[3], digests[0]);
}

fn order_without(group: &mut Cluster, seq: u64, op: ClientsOp) {
    group.ask_as(0, 0, about_clients(0, seq, op));
    group.deliver_all();
}
