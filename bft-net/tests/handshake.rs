//! Who is let in, and what the others are told.

mod common;

use bft_core::types::{Peer, ReplicaId};
use bft_net::error::LinkError;
use bft_net::group::Group;
use bft_net::keys::Identity;
use bft_net::noise::{self, Channel, Local, PROTOCOL_VERSION};
use common::{World, client, replica};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PREAMBLE: usize = 38;
const MESSAGE_1: usize = 96;
const MESSAGE_2: usize = 48;
const CONFIRMATION: usize = 16;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(address), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

/// What each end makes of a handshake between `caller`, who calls replica 0, and `answerer`. Each closes when it is done.
async fn handshake(
    caller: &Local,
    answerer: &Local,
) -> (Result<Channel, LinkError>, Result<(Peer, Channel), LinkError>) {
    let (mut a, mut b) = pair().await;
    let calling = async move { noise::initiate(&mut a, caller, ReplicaId(0)).await };
    let answering = async move { noise::respond(&mut b, answerer).await };
    tokio::join!(calling, answering)
}

/// What a replica makes of one that sends `bytes`, and what it answers.
async fn answer_to(local: &Local, bytes: &[u8]) -> (LinkError, Vec<u8>) {
    let (mut a, mut b) = pair().await;
    let asking = async move {
        a.write_all(bytes).await.unwrap();
        a.shutdown().await.unwrap();
        let mut answer = Vec::new();
        a.read_to_end(&mut answer).await.map(|_| answer)
    };
    let answering = async move { noise::respond(&mut b, local).await.map(|_| ()) };
    let (answer, error) = tokio::join!(asking, answering);
    (error.unwrap_err(), answer.unwrap())
}

#[tokio::test]
async fn members_are_let_in_by_name() {
    let world = World::new(4, 2);
    for peer in [replica(3), client(0), client(1)] {
        let (ours, theirs) = handshake(&world.local(peer), &world.local(replica(0))).await;
        ours.unwrap();
        assert_eq!(theirs.unwrap().0, peer);
    }
}

#[tokio::test]
async fn strangers_are_not() {
    let world = World::new(1, 1);
    let stranger = Local::new(Identity::generate(), &world.group);
    assert_eq!(stranger.me(), None);
    let (ours, theirs) = handshake(&stranger, &world.local(replica(0))).await;
    assert!(matches!(theirs, Err(LinkError::UnknownPeer)));
    assert!(matches!(ours, Err(LinkError::Closed)));
}

#[tokio::test]
async fn an_impostor_cannot_answer() {
    let world = World::new(2, 1);
    // Replica 1 answers where replica 0 was called.
    let (ours, theirs) = handshake(&world.local(client(0)), &world.local(replica(1))).await;
    assert!(matches!(theirs, Err(LinkError::Authentication)));
    assert!(matches!(ours, Err(LinkError::Closed)));
}

#[tokio::test]
async fn other_groups_are_told_so_on_both_ends() {
    let world = World::new(1, 1);
    let mut other = Group::clone(&world.group);
    other.parameters.window += 1;
    let (mine, its) = (world.group.id(), other.id());
    let other = Local::new(world.identity(replica(0)), &other);
    let (ours, theirs) = handshake(&world.local(client(0)), &other).await;
    let told = |error: LinkError| match error {
        LinkError::GroupMismatch { ours, theirs } => (ours, theirs),
        error => panic!("{error}"),
    };
    assert_eq!(told(ours.err().unwrap()), (mine, its));
    assert_eq!(told(theirs.err().unwrap()), (its, mine));
}

#[tokio::test]
async fn other_versions_are_told_so_on_both_ends() {
    let world = World::new(1, 1);
    let newer = noise::preamble(PROTOCOL_VERSION + 1, world.group.id());
    let told = |error: LinkError| match error {
        LinkError::VersionMismatch { ours, theirs } => (ours, theirs),
        error => panic!("{error}"),
    };
    let mut sent = newer.to_vec();
    sent.extend_from_slice(&[7; 300]);
    let (error, answer) = answer_to(&world.local(replica(0)), &sent).await;
    assert_eq!(told(error), (PROTOCOL_VERSION, PROTOCOL_VERSION + 1));
    assert_eq!(answer, noise::preamble(PROTOCOL_VERSION, world.group.id()));

    let (mut a, mut b) = pair().await;
    b.write_all(&newer).await.unwrap();
    let error = noise::initiate(&mut a, &world.local(client(0)), ReplicaId(0)).await.err().unwrap();
    assert_eq!(told(error), (PROTOCOL_VERSION, PROTOCOL_VERSION + 1));
}

#[tokio::test]
async fn what_is_not_bfs_is_told_nothing() {
    let world = World::new(1, 1);
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n1234";
    assert!(request.len() >= PREAMBLE);
    let (error, answer) = answer_to(&world.local(replica(0)), &request[..PREAMBLE]).await;
    assert!(matches!(error, LinkError::NotBfs), "{error}");
    assert_eq!(answer, b"");
    let (error, _) = answer_to(&world.local(replica(0)), &request[..PREAMBLE - 1]).await;
    assert!(matches!(error, LinkError::Closed), "{error}");
}

#[tokio::test]
async fn the_handshake_covers_the_preamble() {
    // Somebody between the two shows each the preamble that it expects, so that neither sees a mismatch.
    let world = World::new(1, 1);
    let mut other = Group::clone(&world.group);
    other.parameters.window += 1;
    let other_id = other.id();
    let (caller, answerer) =
        (world.local(client(0)), Local::new(world.identity(replica(0)), &other));
    let ((mut a, mut to_a), (mut b, mut to_b)) = (pair().await, pair().await);
    let calling = async move { noise::initiate(&mut a, &caller, ReplicaId(0)).await };
    let answering = async move { noise::respond(&mut b, &answerer).await };
    let between = async move {
        let mut first = [0; PREAMBLE + MESSAGE_1];
        to_a.read_exact(&mut first).await.unwrap();
        first[..PREAMBLE].copy_from_slice(&noise::preamble(PROTOCOL_VERSION, other_id));
        to_b.write_all(&first).await.unwrap();
        to_a.write_all(&noise::preamble(PROTOCOL_VERSION, world.group.id())).await.unwrap();
    };
    let (ours, theirs, ()) = tokio::join!(calling, answering, between);
    assert!(matches!(theirs, Err(LinkError::Authentication)));
    assert!(matches!(ours, Err(LinkError::Closed)));
}

#[tokio::test]
async fn keys_of_low_order_are_refused_by_either_end() {
    let world = World::new(1, 1);
    let preamble = noise::preamble(PROTOCOL_VERSION, world.group.id());
    let mut sent = preamble.to_vec();
    sent.resize(PREAMBLE + MESSAGE_1, 0);
    let (error, _) = answer_to(&world.local(replica(0)), &sent).await;
    assert!(matches!(error, LinkError::LowOrderKey), "{error}");

    let (mut a, mut b) = pair().await;
    b.write_all(&[&preamble[..], &[0; MESSAGE_2]].concat()).await.unwrap();
    let error = noise::initiate(&mut a, &world.local(client(0)), ReplicaId(0)).await.err().unwrap();
    assert!(matches!(error, LinkError::LowOrderKey), "{error}");
}

#[tokio::test]
async fn garbage_and_silence_are_refused() {
    let world = World::new(1, 1);
    let preamble = noise::preamble(PROTOCOL_VERSION, world.group.id());
    let garbage = [&preamble[..], &[0x5a; MESSAGE_1]].concat();
    let (error, _) = answer_to(&world.local(replica(0)), &garbage).await;
    assert!(matches!(error, LinkError::Authentication), "{error}");
    for length in [0, PREAMBLE, PREAMBLE + 1, PREAMBLE + MESSAGE_1 - 1] {
        let (error, _) = answer_to(&world.local(replica(0)), &garbage[..length]).await;
        assert!(matches!(error, LinkError::Closed), "{length}: {error}");
    }
}

/// All that a true client says in a handshake.
async fn recorded(world: &World) -> Vec<u8> {
    let ((mut a, mut to_a), (mut b, mut to_b)) = (pair().await, pair().await);
    let (caller, answerer) = (world.local(client(0)), world.local(replica(0)));
    let calling = async move { noise::initiate(&mut a, &caller, ReplicaId(0)).await };
    let answering = async move { noise::respond(&mut b, &answerer).await };
    let between = async move {
        let mut said = vec![0; PREAMBLE + MESSAGE_1 + CONFIRMATION];
        let (first, confirmation) = said.split_at_mut(PREAMBLE + MESSAGE_1);
        to_a.read_exact(first).await.unwrap();
        to_b.write_all(first).await.unwrap();
        let mut answer = [0; PREAMBLE + MESSAGE_2];
        to_b.read_exact(&mut answer).await.unwrap();
        to_a.write_all(&answer).await.unwrap();
        to_a.read_exact(confirmation).await.unwrap();
        to_b.write_all(confirmation).await.unwrap();
        said
    };
    let (ours, theirs, said) = tokio::join!(calling, answering, between);
    ours.unwrap();
    theirs.unwrap();
    said
}

#[tokio::test]
async fn a_recorded_handshake_lets_nobody_in() {
    let world = World::new(1, 1);
    let said = recorded(&world).await;
    // Message 1 alone is accepted as far as it goes, but proves nothing.
    let first = &said[..PREAMBLE + MESSAGE_1];
    let (error, answer) = answer_to(&world.local(replica(0)), first).await;
    assert!(matches!(error, LinkError::Closed), "{error}");
    assert_eq!(answer.len(), PREAMBLE + MESSAGE_2);
    // The old confirmation does not fit the new keys.
    let (error, _) = answer_to(&world.local(replica(0)), &said).await;
    assert!(matches!(error, LinkError::Authentication), "{error}");
}
