//! The client's side by itself.

mod common;

use bft_core::auth::{Credential, KeyId};
use bft_core::client::{Client, ClientConfig, ClientInput, ClientOutput};
use bft_core::messages::{Message, NewKey, Outcome, Reply};
use bft_core::types::*;
use bytes::Bytes;
use common::{Named, SESSION};

/// Decision 6: a request without a tag for everyone is one that backups complain of, so nothing is sent without a signature
/// while keys are on their way. A replica that is down is not waited for.
#[test]
fn a_client_signs_until_the_replicas_keys_have_come() {
    let retry = std::time::Duration::from_millis(100);
    let config = ClientConfig {
        group: common::GROUP,
        size: ClusterSize::new(4, 1).unwrap(),
        me: ClientId(0),
        inline_bytes: 4096,
        retry,
        retry_max: retry,
        crypto: std::sync::Arc::new(Named(100)),
    };
    let key = |i: u8| {
        let key = NewKey { client: ClientId(0), id: KeyId(1), secret: [i; 32] };
        ClientInput::Message(ReplicaId(i.into()), Message::NewKey(key))
    };
    let mut client = Client::new(config);
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
    for i in 0..3 {
        client.handle(Tick(0), key(i), &mut out);
        let reply = Message::Reply(reply.clone());
        client.handle(Tick(0), ClientInput::Message(ReplicaId(i.into()), reply), &mut out);
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
    assert_eq!(signs(&mut client.clone(), Tick(0).after(retry)), Some(false));
    client.handle(Tick(0), key(3), &mut out);
    assert_eq!(signs(&mut client.clone(), Tick(0)), Some(false));
    // Later f+1 must demand it, until the primary does not any more.
    for (i, sign, expected) in
        [(0, true, false), (2, true, true), (2, false, true), (0, false, false), (0, true, false)]
    {
        let demand = Message::Reply(Reply { seq: 99, sign, ..reply.clone() });
        client.handle(Tick(0), ClientInput::Message(ReplicaId(i), demand), &mut out);
        assert_eq!(signs(&mut client.clone(), Tick(0)), Some(expected));
    }
}
