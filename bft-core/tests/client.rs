//! The client's side by itself.

mod common;

use bft_core::auth::{Credential, KeyId};
use bft_core::client::{Client, ClientConfig, ClientError, ClientInput, ClientOutput};
use bft_core::messages::{Message, NewKey, Outcome, Reply, ResultBody, SessionId};
use bft_core::types::*;
use bytes::Bytes;
use common::{Named, SESSION};
use std::sync::Arc;
use std::time::Duration;

const RETRY: Duration = Duration::from_millis(100);

/// A client that asks for a session, and the replies that it is given, whichever replica sends them.
fn opening() -> (Client, Reply) {
    let mut client = Client::new(ClientConfig {
        group: common::GROUP,
        size: ClusterSize::new(4, 1).unwrap(),
        me: ClientId(0),
        inline_bytes: 4096,
        retry: RETRY,
        retry_max: RETRY,
        crypto: Arc::new(Named(100)),
    });
    let mut out = Vec::new();
    client.handle(Tick(0), ClientInput::Open(SESSION), &mut out);
    let asked = out.iter().find_map(|output| match output {
        ClientOutput::Broadcast(Message::Request(m)) => Some(m.request.digest()),
        _ => None,
    });
    let reply = Reply {
        view: View(0),
        session: SESSION,
        slot: Slot(0),
        seq: 0,
        request: asked.expect("it asks for a session"),
        n: SequenceNumber(1),
        tentative: false,
        sign: false,
        outcome: Outcome::SessionCreated { slots: 8 },
    };
    (client, reply)
}

fn from(i: u32, message: Message) -> ClientInput {
    ClientInput::Message(ReplicaId(i), message)
}

fn key_of(i: u32) -> ClientInput {
    let key = NewKey { client: ClientId(0), id: KeyId(1), secret: [i as u8; 32] };
    from(i, Message::NewKey(key))
}

/// Decision 6: a request without a tag for everyone is one that backups complain of, so nothing is sent without a signature
/// while keys are on their way. A replica that is down is not waited for.
#[test]
fn a_client_signs_until_the_replicas_keys_have_come() {
    let (mut client, reply) = opening();
    let mut out = Vec::new();
    for i in 0..3 {
        client.handle(Tick(0), key_of(i), &mut out);
        client.handle(Tick(0), from(i, Message::Reply(reply.clone())), &mut out);
    }
    assert!(client.is_open());
    let signs = |client: &mut Client, now: Tick| {
        let (mut out, op) = (Vec::new(), Bytes::from_static(b"\x01"));
        client.handle(now, ClientInput::Submit { token: 1, op, read_only: false }, &mut out);
        out.iter().find_map(|output| match output {
            ClientOutput::Send { message: Message::Request(m), .. } => {
                Some(matches!(m.credential, Credential::Signature(_)))
            }
            _ => None,
        })
    };
    assert_eq!(signs(&mut client.clone(), Tick(0)), Some(true));
    assert_eq!(signs(&mut client.clone(), Tick(0).after(RETRY)), Some(false));
    client.handle(Tick(0), key_of(3), &mut out);
    assert_eq!(signs(&mut client.clone(), Tick(0)), Some(false));
    // Later f+1 must demand it, until the primary does not any more.
    for (i, sign, expected) in
        [(0, true, false), (2, true, true), (2, false, true), (0, false, false), (0, true, false)]
    {
        let demand = Message::Reply(Reply { seq: 99, sign, ..reply.clone() });
        client.handle(Tick(0), from(i, demand), &mut out);
        assert_eq!(signs(&mut client.clone(), Tick(0)), Some(expected));
    }
}

/// Whoever begins another session in the middle of an operation hears of that, and does not wait for ever.
#[test]
fn an_operation_of_a_session_left_behind_has_an_unknown_outcome() {
    let (mut client, reply) = opening();
    let mut out = Vec::new();
    (0..3).for_each(|i| client.handle(Tick(0), from(i, Message::Reply(reply.clone())), &mut out));
    let op = Bytes::from_static(b"\x01");
    client.handle(Tick(0), ClientInput::Submit { token: 7, op, read_only: false }, &mut out);
    assert_eq!(client.pending(), 1);
    out.clear();
    let next = SessionId { epoch: SESSION.epoch + 1, ..SESSION };
    client.handle(Tick(0), ClientInput::Open(next), &mut out);
    let ended = |output: &ClientOutput| {
        matches!(output, ClientOutput::Done { token: 7, result: Err(ClientError::OutcomeUnknown) })
    };
    assert!(out.iter().any(ended));
    assert_eq!(client.pending(), 0);
}

/// A digest stands for a result, never for another outcome: whoever answers with that of what the others say keeps nobody out.
#[test]
fn a_session_opens_whatever_one_replica_calls_its_result() {
    let (mut client, reply) = opening();
    let digest = Digest::of(Domain::Result, &reply.outcome);
    let lie = Reply { outcome: Outcome::Result(ResultBody::Digest(digest)), ..reply.clone() };
    let mut out = Vec::new();
    client.handle(Tick(0), from(0, Message::Reply(lie)), &mut out);
    (1..4).for_each(|i| client.handle(Tick(0), from(i, Message::Reply(reply.clone())), &mut out));
    assert!(client.is_open());
    assert_eq!(client.outvoted(), [1, 0, 0, 0]);
}

/// A replica that is set up anew between its reply and the quorum's: `bfs status` called it proved faulty from then on.
#[test]
fn a_replica_that_connects_anew_does_not_answer_for_what_was_said_before() {
    let (mut client, reply) = opening();
    let lie = Reply { outcome: Outcome::SessionCreated { slots: 7 }, ..reply.clone() };
    let mut out = Vec::new();
    client.handle(Tick(0), from(0, Message::Reply(lie)), &mut out);
    client.handle(Tick(0), ClientInput::Connected(ReplicaId(0)), &mut out);
    (1..4).for_each(|i| client.handle(Tick(0), from(i, Message::Reply(reply.clone())), &mut out));
    assert!(client.is_open());
    assert_eq!(client.outvoted(), [0; 4]);
}
