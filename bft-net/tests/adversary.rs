//! Somebody on the way, and peers that misbehave after the handshake: what they cannot do to a link or to the others.

mod common;

use bft_core::types::{Peer, ReplicaId};
use bft_net::frame::MAX_FRAME;
use bft_net::hub::{Endpoint, Hub, Limits, Links};
use bft_net::keys::Identity;
use bft_net::link::{self, Flushed, Reader, Scratch, Writer, WriterLimits};
use bft_net::noise;
use common::{Recorder, World, client, connected, faults, replica, until};
use snow::{Builder, StatelessTransportState};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// How long anything may take before a test is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const ROOMY: WriterLimits = WriterLimits { waiting: 64 << 20, kept: 1 << 20 };
/// What the caller says first: preamble and message 1.
const FIRST: usize = 134;
/// What it is answered: preamble and message 2.
const ANSWER: usize = 86;
const CONFIRMATION: usize = 16;

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("done in good time")
}

/// A client's link to replica 0 through somebody who sees and sends every byte.
struct Tapped {
    reader: Reader,
    writer: Writer,
    to_client: TcpStream,
    to_replica: TcpStream,
    /// All that the client said until the link was up.
    handshake: Vec<u8>,
}

impl Tapped {
    async fn new(world: &World, c: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut stream, mut to_client) = (stream.unwrap(), accepted.unwrap().0);
        let mut to_replica = TcpStream::connect(world.address(0)).await.unwrap();
        let local = world.local(client(c));
        let between = async {
            let mut handshake = vec![0; FIRST + CONFIRMATION];
            let (first, confirmation) = handshake.split_at_mut(FIRST);
            let mut answer = [0; ANSWER];
            to_client.read_exact(first).await.unwrap();
            to_replica.write_all(first).await.unwrap();
            to_replica.read_exact(&mut answer).await.unwrap();
            to_client.write_all(&answer).await.unwrap();
            to_client.read_exact(confirmation).await.unwrap();
            to_replica.write_all(confirmation).await.unwrap();
            handshake
        };
        let calling = noise::initiate(&mut stream, &local, ReplicaId(0));
        let (channel, handshake) = soon(async { tokio::join!(calling, between) }).await;
        let (reader, writer) = link::split(stream, channel.unwrap(), ROOMY);
        Self { reader, writer, to_client, to_replica, handshake }
    }

    /// The bytes of the client's next record, which holds `frames`.
    async fn record(&mut self, frames: &[&[u8]]) -> Vec<u8> {
        for frame in frames {
            self.writer.queue(|out| out.extend_from_slice(frame)).unwrap();
        }
        assert_eq!(self.writer.flush().unwrap(), Flushed::All);
        next_record(&mut self.to_client).await.expect("the client said something")
    }

    async fn say(&mut self, bytes: &[u8]) {
        soon(self.to_replica.write_all(bytes)).await.unwrap();
    }

    /// The frames of the replica's next record; none once it has closed the connection.
    async fn answer(&mut self) -> Option<Vec<Vec<u8>>> {
        let record = next_record(&mut self.to_replica).await?;
        soon(self.to_client.write_all(&record)).await.unwrap();
        let (mut frames, mut scratch) = (Vec::new(), Scratch::default());
        while frames.is_empty() {
            soon(self.reader.stream().readable()).await.unwrap();
            let drained = self.reader.drain(&mut scratch, |frame| {
                frames.push(frame.to_vec());
                true
            });
            drained.unwrap();
        }
        Some(frames)
    }

    /// Sends `frame` and waits for its echo.
    async fn round_trip(&mut self, frame: &[u8]) {
        let record = self.record(&[frame]).await;
        self.say(&record).await;
        assert_eq!(self.answer().await, Some(vec![frame.to_vec()]));
    }
}

/// The next record of `stream`, its length included; none once the other end has closed.
async fn next_record(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    soon(stream.read_exact(&mut length)).await.ok()?;
    let mut record = length.to_vec();
    record.resize(2 + usize::from(u16::from_le_bytes(length)), 0);
    soon(stream.read_exact(&mut record[2..])).await.ok()?;
    Some(record)
}

fn echo() -> Recorder {
    Recorder { echo: true, ..Recorder::default() }
}

/// A world, a replica that sends back what it gets, and a client that behaves.
async fn served(clients: usize) -> (World, Hub<Recorder>, Hub<Recorder>) {
    let mut world = World::new(1, clients);
    let server = world.start_with(replica(0), Limits::default(), echo());
    let good = world.start(client(0));
    connected(&good, replica(0)).await;
    connected(&server, client(0)).await;
    (world, server, good)
}

/// Checks that the one that behaves gets its echo, over the link that it has had all along.
async fn still_served(good: &Hub<Recorder>, frame: &[u8]) {
    good.with(|_, links| links.send(replica(0), frame));
    let echo = (replica(0), frame.to_vec());
    until("the echo", good, |recorder, _| recorder.frames.contains(&echo)).await;
    let links = good.with(|_, links| links.counters(replica(0)).links);
    assert_eq!(links, 1, "it was never cut");
}

fn frames_of(hub: &Hub<Recorder>) -> Vec<Vec<u8>> {
    let frames = hub.with(|recorder, _| std::mem::take(&mut recorder.frames));
    frames.into_iter().map(|(_, frame)| frame).collect()
}

fn numbered(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|i| i.to_le_bytes().to_vec()).collect()
}

#[tokio::test]
async fn a_recording_of_a_whole_connection_changes_nothing() {
    let (world, server, _good) = served(2).await;
    let mut tapped = Tapped::new(&world, 1).await;
    connected(&server, client(1)).await;
    let payment = tapped.record(&[b"pay once"]).await;
    tapped.say(&payment).await;
    assert_eq!(tapped.answer().await, Some(vec![b"pay once".to_vec()]));
    for _ in 0..3 {
        let mut replay = TcpStream::connect(world.address(0)).await.unwrap();
        replay.write_all(&[&tapped.handshake[..], &payment].concat()).await.unwrap();
        // Message 1 is genuine and is answered; then the connection ends.
        while let Ok(1..) = soon(replay.read(&mut [0; 4096])).await {}
    }
    tapped.round_trip(b"still here").await;
    let (counters, refused) =
        server.with(|_, links| (links.counters(client(1)), faults(links, "authentication")));
    assert_eq!((counters.links, counters.frames_in, counters.faults, refused), (1, 2, 0, 3));
    let events = server.with(|recorder, _| recorder.events.clone());
    assert_eq!(events, [(client(0), true), (client(1), true)]);
}

#[tokio::test]
async fn whoever_misbehaves_ends_its_own_link_only() {
    let (world, server, good) = served(2).await;
    for case in ["replay", "swap", "alter", "reflect", "truncate", "garbage", "short"] {
        let mut bad = Tapped::new(&world, 1).await;
        connected(&server, client(1)).await;
        bad.round_trip(b"fine so far").await;
        let first = bad.record(&[b"first"]).await;
        let second = bad.record(&[b"second"]).await;
        let altered = [&first[..9], &[first[9] ^ 4], &first[10..]].concat();
        let (bytes, kind) = match case {
            "replay" => ([&first[..], &first].concat(), "authentication"),
            "swap" => ([&second[..], &first].concat(), "authentication"),
            "alter" => (altered, "authentication"),
            "reflect" => (said_to(&server, &mut bad).await, "authentication"),
            "truncate" => (first[..first.len() - 1].to_vec(), "closed"),
            "garbage" => (vec![0x5a; 70_000], "authentication"),
            _ => (vec![16, 0], "record-too-short"),
        };
        let counted =
            || server.with(|_, links| (faults(links, kind), links.counters(client(1)).frames_in));
        let before = counted();
        bad.say(&bytes).await;
        // The other end may have closed already.
        let _ = bad.to_replica.shutdown().await;
        until(case, &server, |_, links| !links.connected(client(1))).await;
        let after = counted();
        assert_eq!(after.0, before.0 + 1, "{case}");
        // The first copy of what is replayed is heard, unless both are judged together.
        assert!(after.1 <= before.1 + u64::from(case == "replay"), "{case}");
        still_served(&good, case.as_bytes()).await;
    }
}

/// The next record that the replica sends to `bad`.
async fn said_to(server: &Hub<Recorder>, bad: &mut Tapped) -> Vec<u8> {
    server.with(|_, links| links.send(client(1), b"mirror"));
    next_record(&mut bad.to_replica).await.unwrap()
}

#[tokio::test]
async fn what_was_said_on_one_link_cannot_be_said_on_another() {
    let (world, server, _good) = served(3).await;
    let mut one = Tapped::new(&world, 1).await;
    let mut two = Tapped::new(&world, 2).await;
    let stolen = one.record(&[b"mine"]).await;
    two.say(&stolen).await;
    assert_eq!(two.answer().await, None);
    one.say(&stolen).await;
    assert_eq!(one.answer().await, Some(vec![b"mine".to_vec()]));
    assert_eq!(server.with(|_, links| links.counters(client(2)).frames_in), 0);
}

#[tokio::test]
async fn many_frames_that_come_together_are_answered_together() {
    let (world, _server, _good) = served(2).await;
    let mut tapped = Tapped::new(&world, 1).await;
    let frames = numbered(1000);
    let borrowed: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let record = tapped.record(&borrowed).await;
    tapped.say(&record).await;
    // A record is decrypted once it is whole, so all its frames come in one turn: one record answers them, one write.
    assert!(tapped.answer().await == Some(frames));
}

/// Passes everything on to client 0.
struct Forward;

impl Endpoint for Forward {
    fn on_frame(&mut self, _: Peer, frame: &[u8], links: &mut Links) {
        links.send(client(0), frame);
    }

    fn on_link(&mut self, _: Peer, _: bool, _: &mut Links) {}

    fn on_deadline(&mut self, _: &mut Links) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

#[tokio::test]
async fn links_that_are_ready_together_share_a_write() {
    const SENDERS: u32 = 10;
    let mut world = World::new(1, 1 + SENDERS as usize);
    let server = world.start_with(replica(0), Limits::default(), Forward);
    let mut receiver = Tapped::new(&world, 0).await;
    connected(&server, client(0)).await;
    let (mut senders, mut records) = (Vec::new(), Vec::new());
    for (c, frame) in (1..).zip(numbered(SENDERS)) {
        let mut sender = Tapped::new(&world, c).await;
        connected(&server, client(c)).await;
        records.push(sender.record(&[&frame]).await);
        senders.push(sender);
    }
    // The replica does not run while they all speak.
    for (sender, record) in senders.iter().zip(&records) {
        assert_eq!(sender.to_replica.try_write(record).unwrap(), record.len());
    }
    let mut got = receiver.answer().await.unwrap();
    got.sort();
    assert_eq!(got, numbered(SENDERS));
}

#[tokio::test]
async fn all_that_one_turn_sends_to_a_peer_leaves_together() {
    let (world, server, _good) = served(2).await;
    let mut tapped = Tapped::new(&world, 1).await;
    connected(&server, client(1)).await;
    let frames = numbered(1000);
    server.with(|_, links| frames.iter().for_each(|frame| links.send(client(1), frame)));
    assert!(tapped.answer().await == Some(frames));
}

#[tokio::test]
async fn nothing_of_the_older_link_is_heard_after_the_newer_is_up() {
    let mut world = World::new(1, 1);
    let server = world.start(replica(0));
    for round in 1..=10 {
        let older = Tapped::new(&world, 0).await;
        until("older", &server, |_, links| links.counters(client(0)).links == 2 * round - 1).await;
        let flooding = tokio::spawn(flood(older));
        let mut newer = Tapped::new(&world, 0).await;
        until("newer", &server, |recorder, links| {
            let up = links.counters(client(0)).links == 2 * round;
            if up {
                recorder.frames.clear();
            }
            up
        })
        .await;
        let record = newer.record(&[b"newer"]).await;
        newer.say(&record).await;
        soon(flooding).await.unwrap();
        until("a frame", &server, |recorder, _| !recorder.frames.is_empty()).await;
        assert_eq!(frames_of(&server), [b"newer"], "round {round}");
    }
}

/// Says as much as it can until its connection is closed.
async fn flood(mut tapped: Tapped) {
    loop {
        let record = tapped.record(&[b"older"]).await;
        if tapped.to_replica.write_all(&record).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_keeps_no_socket_but_its_newest() {
    let mut world = World::new(1, 1);
    let server = world.start(replica(0));
    let mut links = Vec::new();
    for round in 1..=5 {
        links.push(Tapped::new(&world, 0).await.to_replica);
        until("a link", &server, |_, links| links.counters(client(0)).links == round).await;
        // More than the system takes.
        server.with(|_, links| (0..12).for_each(|_| links.send(client(0), &[1; 1 << 20])));
        assert!(server.with(|_, links| links.waiting(client(0))) > 0, "it is not blocked");
    }
    let newest = links.pop();
    for stream in links {
        // Nothing is read here, and yet the other end must be gone: then it refuses what is written.
        let gone = || {
            let written = stream.try_write(&[0]);
            written.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
        };
        until("it is closed", &server, |_, _| gone()).await;
    }
    assert!(server.with(|_, links| links.connected(client(0))));
    drop(newest);
}

#[tokio::test]
async fn who_may_not_be_read_waits_in_the_system_and_loses_nothing() {
    const FRAMES: u32 = 12_000;
    let mut world = World::new(1, 2);
    let credits = [(client(0), 1)].into();
    let recorder = Recorder { credits, ..Recorder::default() };
    let server = world.start_with(replica(0), Limits::default(), recorder);
    let paused = Tapped::new(&world, 0).await;
    connected(&server, client(0)).await;
    let sending = tokio::spawn(send_numbers(paused, FRAMES));
    // 48 MB, more than the system's buffers take: while it is not read, the sender stands still.
    until("the first", &server, |recorder, _| !recorder.frames.is_empty()).await;
    sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished());
    let other = world.start(client(1));
    connected(&other, replica(0)).await;
    other.with(|_, links| links.send(replica(0), b"meanwhile"));
    until("the other", &server, |recorder, _| recorder.frames.len() == 2).await;
    server.with(|recorder, _| recorder.credits.clear());
    until("the rest", &server, |r, _| r.frames.len() == FRAMES as usize + 1).await;
    let frames = frames_of(&server);
    let numbers = frames.iter().filter(|frame| **frame != b"meanwhile");
    assert!(numbers.map(|frame| number(frame)).eq(0..FRAMES));
    drop(soon(sending).await.unwrap());
}

fn number(frame: &[u8]) -> u32 {
    u32::from_le_bytes(frame[..4].try_into().unwrap())
}

/// Sends so many numbered frames of 4 KiB.
async fn send_numbers(mut tapped: Tapped, count: u32) -> Tapped {
    for i in 0..count {
        let record = tapped.record(&[&i.to_le_bytes().repeat(1024)]).await;
        // Without a limit: it is the point that this may have to wait.
        tapped.to_replica.write_all(&record).await.unwrap();
    }
    tapped
}

#[tokio::test]
async fn credit_from_another_thread_is_never_missed() {
    const FRAMES: u32 = 3000;
    let mut world = World::new(1, 1);
    let credits = [(client(0), 0)].into();
    let recorder = Recorder { credits, ..Recorder::default() };
    let server = world.start_with(replica(0), Limits::default(), recorder);
    let mut tapped = Tapped::new(&world, 0).await;
    connected(&server, client(0)).await;
    let other = server.clone();
    let granting = thread::spawn(move || {
        for _ in 0..FRAMES {
            other.with(|recorder, _| *recorder.credits.get_mut(&client(0)).unwrap() += 1);
            thread::yield_now();
        }
    });
    for i in 0..FRAMES {
        let record = tapped.record(&[&i.to_le_bytes()]).await;
        tapped.say(&record).await;
    }
    while !granting.is_finished() {
        sleep(Duration::from_millis(1)).await;
    }
    // Nothing enters the hub while this waits, so a wake-up that was lost stays lost.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(frames_of(&server).len(), FRAMES as usize);
}

#[tokio::test]
async fn earlier_deadlines_from_another_thread_are_kept() {
    let mut world = World::new(1, 0);
    let hub = world.start(replica(0));
    for round in 1..=20 {
        let far = Instant::now() + Duration::from_secs(3600);
        hub.with(|recorder, _| recorder.deadline = Some(far));
        sleep(Duration::from_millis(2)).await;
        let other = hub.clone();
        let near = thread::spawn(move || {
            let near = Instant::now() + Duration::from_millis(5);
            other.with(|recorder, _| recorder.deadline = Some(near));
            near
        });
        until("the deadline", &hub, |recorder, _| recorder.deadlines_passed == round).await;
        assert!(Instant::now() >= near.join().unwrap());
    }
}

#[tokio::test]
async fn a_later_deadline_is_not_served_early() {
    let mut world = World::new(1, 0);
    let hub = world.start(replica(0));
    let since = Instant::now();
    hub.with(|recorder, _| recorder.deadline = Some(since + Duration::from_millis(20)));
    let later = since + Duration::from_millis(200);
    hub.with(|recorder, _| recorder.deadline = Some(later));
    until("the deadline", &hub, |recorder, _| recorder.deadlines_passed == 1).await;
    assert!(Instant::now() >= later);
}

#[tokio::test]
async fn after_shutdown_everything_is_closed_and_the_port_is_free() {
    let mut world = World::new(1, 1);
    let server = world.start(replica(0));
    let mut tapped = Tapped::new(&world, 0).await;
    connected(&server, client(0)).await;
    let address = world.address(0);
    let mut silent = TcpStream::connect(&address).await.unwrap();
    let frames = numbered(500);
    server.with(|_, links| frames.iter().for_each(|frame| links.send(client(0), frame)));
    soon(server.shutdown()).await;
    assert!(tapped.answer().await == Some(frames), "what was sent before arrives before the end");
    assert_eq!(tapped.answer().await, None);
    assert!(matches!(soon(silent.read(&mut [0])).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(&address).await.is_err());
    let connected = server.with(|_, links| {
        links.send(client(0), b"to nobody");
        links.connected(client(0))
    });
    assert!(!connected);
    std::net::TcpListener::bind(&address).unwrap();
}

#[tokio::test]
async fn a_crowd_beyond_the_usual_limit_keeps_nobody_out() {
    let mut world = World::new(1, 1);
    let limits = Limits::default();
    let server = world.start_with(replica(0), limits, echo());
    let mut crowd = Vec::new();
    for _ in 0..3 * limits.half_open {
        let mut stream = soon(TcpStream::connect(world.address(0))).await.unwrap();
        // Who has said a little counts no more than the silent.
        let _ = stream.write_all(b"BFS\0").await;
        crowd.push(stream);
    }
    let since = Instant::now();
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    still_served(&user, b"let in").await;
    assert!(since.elapsed() < limits.handshake, "{:?}", since.elapsed());
    let crowded = server.with(|_, links| faults(links, "crowded"));
    assert!(crowded >= 2 * limits.half_open as u64, "{crowded}");
}

#[tokio::test]
async fn who_has_said_who_it_is_is_answered_whatever_comes_behind_it() {
    for round in 0..10 {
        let (world, _server, _good) = served(2).await;
        let first = Tapped::new(&world, 1).await.handshake[..FIRST].to_vec();
        // The replica does not run meanwhile: it finds them all waiting, the silent behind the other.
        let mut caller = StdStream::connect(world.address(0)).unwrap();
        caller.write_all(&first).unwrap();
        let connect = |_| StdStream::connect(world.address(0)).unwrap();
        let _silent: Vec<_> = (0..100).map(connect).collect();
        caller.set_nonblocking(true).unwrap();
        let mut caller = TcpStream::from_std(caller).unwrap();
        let answered = soon(caller.read_exact(&mut [0; ANSWER])).await;
        assert!(answered.is_ok(), "closed unheard in round {round}");
    }
}

#[tokio::test]
async fn whoever_keeps_calling_keeps_nobody_out() {
    let mut world = World::new(1, 1);
    let _server = world.start_with(replica(0), Limits::default(), echo());
    let address: SocketAddr = world.address(0).parse().unwrap();
    let (stop, crowded) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (stopped, is_crowded) = (stop.clone(), crowded.clone());
    let attacker = thread::spawn(move || {
        let mut calls = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            calls.extend(StdStream::connect_timeout(&address, Duration::from_secs(1)));
            if calls.len() == 300 {
                calls.drain(..100);
                is_crowded.store(true, Ordering::Relaxed);
            }
        }
    });
    while !crowded.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(1)).await;
    }
    // It may be pushed out once or twice between its first word and its last, and then calls again.
    let user = world.start(client(0));
    until("the echo", &user, |recorder, links| {
        links.send(replica(0), b"let in");
        recorder.frames.contains(&(replica(0), b"let in".to_vec()))
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
}

#[tokio::test]
async fn what_a_reader_holds_is_bounded() {
    const TURN: usize = 256 << 10;
    const RECORD: usize = 2 + 65_535;
    let (world, server, _good) = served(2).await;
    let mut tapped = Tapped::new(&world, 1).await;
    connected(&server, client(1)).await;
    let (mut scratch, mut worst, mut got) = (Scratch::default(), 0, 0);
    let sizes = [MAX_FRAME, 0, MAX_FRAME, 1, 200_000, MAX_FRAME, 70_000, 3];
    server.with(|_, links| {
        for size in sizes {
            links.send_with(client(1), |out| out.resize(out.len() + size, 7));
        }
    });
    // One record a turn: frames end in the middle of it, and the largest take many.
    while got < sizes.len() {
        let record = next_record(&mut tapped.to_replica).await.unwrap();
        soon(tapped.to_client.write_all(&record)).await.unwrap();
        soon(tapped.reader.stream().readable()).await.unwrap();
        let drained = tapped.reader.drain(&mut scratch, |frame| {
            assert_eq!(frame.len(), sizes[got]);
            got += 1;
            true
        });
        drained.unwrap();
        worst = worst.max(tapped.reader.capacity());
    }
    // One frame, one turn's bytes and one record, in buffers that grow by doubling.
    assert!(worst <= 2 * (4 + MAX_FRAME + TURN + RECORD), "{worst}");
    assert!(worst >= MAX_FRAME / 2, "{worst}: nothing was ever held");
    assert!(tapped.reader.capacity() < 64 << 10, "given back afterwards");
}

/// A client whose channel is made here, from the description of the protocol, and which can say anything under its keys.
struct Forger {
    stream: TcpStream,
    channel: StatelessTransportState,
    sent: u64,
}

impl Forger {
    async fn new(world: &World, c: u32) -> Self {
        let mut stream = TcpStream::connect(world.address(0)).await.unwrap();
        let secret = link_secret(&world.clients[c as usize]);
        let prologue = noise::preamble(noise::PROTOCOL_VERSION, world.group.id());
        let remote = world.group.replicas[0].identity.link;
        let builder = Builder::new("Noise_IK_25519_AESGCM_BLAKE2s".parse().unwrap());
        let builder = builder.local_private_key(&secret).unwrap();
        let builder = builder.remote_public_key(&remote).unwrap().prologue(&prologue).unwrap();
        let mut handshake = builder.build_initiator().unwrap();
        let mut first = prologue.to_vec();
        first.resize(FIRST, 0);
        handshake.write_message(&[], &mut first[prologue.len()..]).unwrap();
        stream.write_all(&first).await.unwrap();
        let mut answer = [0; ANSWER];
        soon(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer[..prologue.len()], prologue);
        handshake.read_message(&answer[prologue.len()..], &mut [0; ANSWER]).unwrap();
        let channel = handshake.into_stateless_transport_mode().unwrap();
        let mut forger = Self { stream, channel, sent: 0 };
        let confirmation = forger.encrypt(b"");
        forger.stream.write_all(&confirmation).await.unwrap();
        forger
    }

    fn encrypt(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; plain.len() + 16];
        self.channel.write_message(self.sent, plain, &mut bytes).unwrap();
        self.sent += 1;
        bytes
    }

    /// Sends one record.
    async fn send(&mut self, plain: &[u8]) {
        let cipher = self.encrypt(plain);
        let length = (cipher.len() as u16).to_le_bytes();
        soon(self.stream.write_all(&[&length[..], &cipher].concat())).await.unwrap();
    }
}

/// The secret link key, which only its file shows.
fn link_secret(identity: &Identity) -> Vec<u8> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("forger-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir(&folder).unwrap();
    identity.save(&folder).unwrap();
    let text = std::fs::read_to_string(folder.join("link.key")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let digits = text.trim().as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

#[tokio::test]
async fn a_frame_longer_than_any_message_ends_its_link_by_its_length() {
    let (world, server, good) = served(2).await;
    for length in [MAX_FRAME as u32 + 1, u32::MAX] {
        let refused = || server.with(|_, links| faults(links, "frame-too-large"));
        let before = refused();
        let mut bad = Forger::new(&world, 1).await;
        connected(&server, client(1)).await;
        bad.send(&length.to_le_bytes()).await;
        until("it ends", &server, |_, links| !links.connected(client(1))).await;
        assert_eq!(refused(), before + 1);
        still_served(&good, &length.to_le_bytes()).await;
    }
}

#[tokio::test]
async fn records_cut_frames_wherever_they_like() {
    let (world, server, _good) = served(2).await;
    server.with(|recorder, _| recorder.echo = false);
    let mut forger = Forger::new(&world, 1).await;
    let frame = |body: &[u8]| [&(body.len() as u32).to_le_bytes()[..], body].concat();
    let bodies = [&b"first"[..], b"", &[9; 40]];
    let stream = bodies.map(frame).concat();
    for cut in 1..stream.len() {
        forger.send(&stream[..cut]).await;
        forger.send(&stream[cut..]).await;
    }
    let all = bodies.len() * (stream.len() - 1);
    until("all of them", &server, |recorder, _| recorder.frames.len() >= all).await;
    assert!(frames_of(&server).iter().eq((1..stream.len()).flat_map(|_| bodies)));
}
