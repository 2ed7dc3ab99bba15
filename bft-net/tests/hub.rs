//! The event loop on loopback: links come up, carry frames, keep their limits, end, and come back.

mod common;

use bft_core::types::{Peer, ReplicaId};
use bft_net::frame::MAX_FRAME;
use bft_net::hub::{Hub, Limits};
use bft_net::link::{self, Flushed, Reader, Scratch, Writer, WriterLimits};
use bft_net::noise;
use common::{Recorder, World, client, connected, faults, replica, until};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

const ROOMY: WriterLimits = WriterLimits { waiting: 64 << 20, kept: 1 << 20 };

fn echo() -> Recorder {
    Recorder { echo: true, ..Recorder::default() }
}

/// A link to replica 0 that a test drives by hand.
async fn by_hand(world: &World, me: Peer) -> (Reader, Writer) {
    let (stream, channel) = stream_by_hand(world, me).await;
    link::split(stream, channel, ROOMY)
}

async fn stream_by_hand(world: &World, me: Peer) -> (TcpStream, noise::Channel) {
    let mut stream = TcpStream::connect(world.address(0)).await.unwrap();
    let channel = noise::initiate(&mut stream, &world.local(me), ReplicaId(0)).await.unwrap();
    (stream, channel)
}

/// Sends `frame` through `hub` and waits for its echo.
async fn round_trip(hub: &Hub<Recorder>, peer: Peer, frame: &[u8]) {
    hub.with(|_, links| links.send(peer, frame));
    until("the echo", hub, |recorder, _| {
        recorder.frames.pop().is_some_and(|got| got == (peer, frame.to_vec()))
    })
    .await;
}

/// Waits for the end of `stream`, and says how long that took.
async fn end_of(mut stream: TcpStream) -> Duration {
    let since = Instant::now();
    let mut rest = Vec::new();
    // An orderly end and a reset are both an end.
    let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is still open");
    since.elapsed()
}

#[tokio::test]
async fn everyone_reaches_everyone_it_should() {
    let mut world = World::new(4, 1);
    let replicas: Vec<_> = (0..4).map(|i| world.start(replica(i))).collect();
    let user = world.start(client(0));
    for (i, hub) in (0..).zip(&replicas) {
        for j in (0..4).filter(|j| *j != i) {
            connected(hub, replica(j)).await;
        }
        connected(hub, client(0)).await;
        connected(&user, replica(i)).await;
    }
    for (i, hub) in (0u8..).zip(&replicas) {
        hub.with(|_, links| {
            for to in (0..4).map(replica).chain([client(0)]) {
                links.send_with(to, |out| out.push(i));
            }
        });
    }
    for (i, hub) in (0u8..).zip(&replicas) {
        until("three frames", hub, |recorder, _| recorder.frames.len() == 3).await;
        hub.with(|recorder, links| {
            recorder.frames.sort();
            let others = (0u8..4).filter(|j| *j != i);
            let expected: Vec<_> = others.map(|j| (replica(j.into()), vec![j])).collect();
            assert_eq!(recorder.frames, expected);
            let counters = links.counters(replica(u32::from(i + 1) % 4));
            assert_eq!((counters.frames_in, counters.bytes_in), (1, 1));
            assert_eq!((counters.frames_out, counters.bytes_out), (1, 1));
            assert_eq!((counters.links, counters.dropped, counters.faults), (1, 0, 0));
        });
    }
    until("four frames", &user, |recorder, _| recorder.frames.len() == 4).await;
}

#[tokio::test]
async fn another_thread_sends_without_a_hop() {
    let mut world = World::new(1, 1);
    let server = world.start_with(replica(0), Limits::default(), echo());
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    connected(&server, client(0)).await;
    let (mut reader, mut raw) = by_hand(&world, client(0)).await;
    until("the newer link", &server, |r, _| r.events.len() == 3).await;
    // This thread runs the runtime and is busy here, so nothing but the other thread can have written.
    let hub = server.clone();
    let sent = std::thread::spawn(move || {
        hub.with(|_, links| {
            links.send(client(0), b"from elsewhere");
            links.waiting(client(0))
        });
        hub.with(|_, links| links.waiting(client(0)))
    });
    assert_eq!(sent.join().unwrap(), 0);
    let mut got = Vec::new();
    while got.is_empty() {
        reader.stream().readable().await.unwrap();
        let drained = reader.drain(&mut Scratch::default(), |frame| {
            got.extend_from_slice(frame);
            true
        });
        drained.unwrap();
    }
    assert_eq!(got, b"from elsewhere");
    assert!(raw.queue(|_| ()).is_some());
}

#[tokio::test]
async fn large_and_small_frames_arrive_in_order() {
    let mut world = World::new(1, 1);
    let server = world.start_with(replica(0), Limits::default(), echo());
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    let sizes = [0, 1, 70_000, 1 << 20, MAX_FRAME, 3, 1 << 20, 300_000];
    user.with(|_, links| {
        for size in sizes {
            links.send_with(replica(0), |out| out.extend((0..size).map(|i| (i % 251) as u8)));
        }
    });
    until("every echo", &user, |recorder, _| recorder.frames.len() == sizes.len()).await;
    user.with(|recorder, _| {
        for ((from, frame), size) in recorder.frames.iter().zip(sizes) {
            assert_eq!((*from, frame.len()), (replica(0), size));
            assert!(frame.iter().enumerate().all(|(i, byte)| *byte == (i % 251) as u8));
        }
    });
    drop(server);
}

#[tokio::test]
async fn many_small_frames_arrive_in_order() {
    const COUNT: u64 = 300_000;
    let mut world = World::new(1, 1);
    let server = world.start(replica(0));
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    for first in (0..COUNT).step_by(1000) {
        user.with(|_, links| {
            for i in first..first + 1000 {
                links.send(replica(0), &i.to_le_bytes());
            }
        });
        if user.with(|_, links| links.waiting(replica(0))) > 1 << 20 {
            until("room", &user, |_, links| links.waiting(replica(0)) == 0).await;
        }
    }
    until("every frame", &server, |recorder, _| recorder.frames.len() as u64 == COUNT).await;
    server.with(|recorder, _| {
        for (i, (_, frame)) in (0u64..).zip(&recorder.frames) {
            assert_eq!(frame[..], i.to_le_bytes());
        }
    });
}

#[tokio::test]
async fn a_replica_that_restarts_is_found_again() {
    let mut world = World::new(2, 1);
    let other = world.start_with(replica(1), Limits::default(), echo());
    let user = world.start(client(0));
    for round in 0..3 {
        // A replica that is called, and one that calls.
        let server = world.start_with(replica(0), Limits::default(), echo());
        connected(&user, replica(0)).await;
        connected(&server, replica(1)).await;
        connected(&server, client(0)).await;
        round_trip(&user, replica(0), &[round]).await;
        round_trip(&user, replica(1), &[round]).await;
        server.shutdown().await;
        until("its link goes down", &user, |_, links| !links.connected(replica(0))).await;
        until("its link goes down", &other, |_, links| !links.connected(replica(0))).await;
    }
    user.with(|recorder, links| {
        let of_0 = recorder.events.iter().filter(|(peer, _)| *peer == replica(0));
        let of_0: Vec<bool> = of_0.map(|(_, up)| *up).collect();
        assert_eq!(of_0, [true, false, true, false, true, false]);
        assert_eq!(links.counters(replica(0)).links, 3);
        assert!(links.connected(replica(1)), "the other link has seen nothing of it");
        assert_eq!(links.counters(replica(1)).links, 1);
    });
}

#[tokio::test]
async fn the_newest_link_of_a_peer_replaces_the_older() {
    let mut world = World::new(1, 2);
    let server = world.start(replica(0));
    let (stream, _) = stream_by_hand(&world, client(0)).await;
    connected(&server, client(0)).await;
    let (_reader, mut writer) = by_hand(&world, client(0)).await;
    end_of(stream).await;
    writer.queue(|out| out.push(7)).unwrap();
    assert_eq!(writer.flush().unwrap(), Flushed::All);
    until("its frame", &server, |r, _| r.frames == [(client(0), vec![7])]).await;
    server.with(|recorder, links| {
        assert_eq!(recorder.events, [(client(0), true), (client(0), false), (client(0), true)]);
        assert_eq!((links.counters(client(0)).links, links.counters(client(0)).faults), (2, 0));
    });
}

#[tokio::test]
async fn a_replica_that_should_wait_to_be_called_is_refused() {
    let mut world = World::new(2, 0);
    let server = world.start(replica(1));
    let mut stream = TcpStream::connect(world.address(1)).await.unwrap();
    noise::initiate(&mut stream, &world.local(replica(0)), ReplicaId(1)).await.unwrap();
    end_of(stream).await;
    until("it is counted", &server, |_, links| faults(links, "wrong-direction") == 1).await;
    server.with(|recorder, _| assert_eq!(recorder.events, []));
}

#[tokio::test]
async fn garbage_closes_only_its_own_link() {
    let mut world = World::new(1, 3);
    let server = world.start_with(replica(0), Limits::default(), echo());
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    let wrong: [(&str, &[u8]); 2] =
        [("authentication", &[&[40, 0][..], &[1; 40]].concat()), ("record-too-short", &[3, 0])];
    for (kind, bytes) in wrong {
        let (mut stream, _) = stream_by_hand(&world, client(1)).await;
        connected(&server, client(1)).await;
        stream.write_all(bytes).await.unwrap();
        end_of(stream).await;
        server.with(|_, links| assert_eq!(faults(links, kind), 1, "{kind}"));
        round_trip(&user, replica(0), kind.as_bytes()).await;
    }
    // Half a record, and then nothing.
    let (mut stream, _) = stream_by_hand(&world, client(2)).await;
    stream.write_all(&[0xff, 0xff, 1, 2, 3]).await.unwrap();
    connected(&server, client(2)).await;
    drop(stream);
    until("it is gone", &server, |_, links| !links.connected(client(2))).await;
    server.with(|_, links| {
        assert_eq!(links.counters(client(1)).faults, 2);
        assert_eq!(links.counters(client(2)).faults, 0, "closing is no fault");
        assert_eq!((links.counters(client(0)).links, links.counters(client(0)).faults), (1, 0));
    });
    round_trip(&user, replica(0), b"still here").await;
}

#[tokio::test]
async fn a_silent_caller_is_cut_off_and_hinders_nobody() {
    let mut world = World::new(1, 1);
    let limits = Limits { handshake: Duration::from_millis(400), ..Limits::default() };
    let server = world.start_with(replica(0), limits, echo());
    let address = world.address(0);
    let silent = TcpStream::connect(&address).await.unwrap();
    let mut slow = TcpStream::connect(&address).await.unwrap();
    let preamble = noise::preamble(noise::PROTOCOL_VERSION, world.group.id());
    let dripping = tokio::spawn(async move {
        let since = Instant::now();
        for byte in preamble.iter().cycle() {
            if slow.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        since.elapsed()
    });
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    round_trip(&user, replica(0), b"meanwhile").await;
    server.with(|_, links| assert_eq!(faults(links, "too-slow"), 0, "the others still wait"));
    let (silent, dripping) = tokio::join!(end_of(silent), dripping);
    until("both are counted", &server, |_, links| faults(links, "too-slow") == 2).await;
    for lived in [silent, dripping.unwrap()] {
        assert!(lived < Duration::from_secs(5), "{lived:?}");
    }
    round_trip(&user, replica(0), b"afterwards").await;
}

#[tokio::test]
async fn a_crowd_of_silent_callers_keeps_nobody_out() {
    let mut world = World::new(1, 1);
    let limits = Limits { handshake: Duration::from_secs(60), half_open: 4, ..Limits::default() };
    let server = world.start_with(replica(0), limits, echo());
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(TcpStream::connect(world.address(0)).await.unwrap());
    }
    until("the oldest give way", &server, |_, links| faults(links, "crowded") == 16).await;
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    round_trip(&user, replica(0), b"let in").await;
    server.with(|_, links| assert_eq!(faults(links, "crowded"), 17));
    assert!(end_of(crowd.remove(0)).await < Duration::from_secs(30));
}

#[tokio::test]
async fn a_peer_that_never_reads_costs_little_and_delays_nobody() {
    let mut world = World::new(1, 2);
    let limit = 2 << 20;
    let limits =
        Limits { client: WriterLimits { waiting: limit, kept: 16 << 10 }, ..Limits::default() };
    let server = world.start_with(replica(0), limits, echo());
    let (mut reader, _writer) = by_hand(&world, client(1)).await;
    connected(&server, client(1)).await;
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    let message = |i: u32| [&i.to_le_bytes()[..], &[0; 60_000]].concat();
    for i in 0..1000 {
        server.with(|_, links| {
            links.send(client(1), &message(i));
            assert!(links.waiting(client(1)) <= limit + 60_004 + 4);
            assert!(links.capacity(client(1)) <= 4 * limit, "{}", links.capacity(client(1)));
        });
        if i % 100 == 0 {
            round_trip(&user, replica(0), b"not delayed").await;
        }
    }
    let dropped = server.with(|_, links| {
        assert_eq!(links.dropped(), links.counters(client(1)).dropped);
        links.counters(client(1)).dropped
    });
    assert!((500..1000).contains(&dropped), "{dropped}");
    // What was not dropped comes whole and in order, once it reads; and the memory is given back.
    let reading = async {
        let (mut scratch, mut got) = (Scratch::default(), 0);
        while got < 1000 - dropped {
            reader.stream().readable().await.unwrap();
            let drained = reader.drain(&mut scratch, |frame| {
                assert_eq!(frame, message(got as u32));
                got += 1;
                true
            });
            drained.unwrap();
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
    assert!(read.is_ok(), "what was queued does not come");
    until("the memory is given back", &server, |_, links| {
        links.waiting(client(1)) == 0 && links.capacity(client(1)) <= 32 << 10
    })
    .await;
}

#[tokio::test]
async fn all_clients_together_have_a_limit_too() {
    let mut world = World::new(1, 3);
    let limits = Limits { clients: 4 << 20, ..Limits::default() };
    let server = world.start_with(replica(0), limits, Recorder::default());
    let mut silent = Vec::new();
    for c in 0..2 {
        silent.push(by_hand(&world, client(c)).await);
        connected(&server, client(c)).await;
    }
    let message = vec![0; 1 << 20];
    let waiting = |peer: Peer| server.with(|_, links| links.waiting(peer));
    for _ in 0..16 {
        for c in 0..2 {
            server.with(|_, links| links.send(client(c), &message));
        }
    }
    let all = waiting(client(0)) + waiting(client(1));
    assert!(all > 4 << 20 && all <= (4 << 20) + 2 * ((1 << 20) + 1024), "{all}");
    server.with(|_, links| assert!(links.dropped() > 8));
    // One that reads is served none the less.
    let user = world.start(client(2));
    connected(&server, client(2)).await;
    server.with(|_, links| links.send(client(2), b"served"));
    until("it", &user, |recorder, _| recorder.frames == [(replica(0), b"served".to_vec())]).await;
    // The account is balanced when the links go.
    drop(silent);
    for c in 0..2 {
        until("they go", &server, |_, links| !links.connected(client(c))).await;
    }
    let (_reader, _writer) = by_hand(&world, client(0)).await;
    connected(&server, client(0)).await;
    for _ in 0..16 {
        server.with(|_, links| links.send(client(0), &message));
    }
    assert!(waiting(client(0)) > 3 << 20, "{}", waiting(client(0)));
}

#[tokio::test]
async fn nothing_is_delivered_without_credit() {
    let mut world = World::new(1, 2);
    // The recorder panics, and with it this process ends, if it gets a frame without a credit.
    let credits = [(client(0), 5)].into();
    let server = world.start_with(
        replica(0),
        Limits::default(),
        Recorder { credits, ..Recorder::default() },
    );
    let (user, other) = (world.start(client(0)), world.start(client(1)));
    connected(&user, replica(0)).await;
    connected(&other, replica(0)).await;
    user.with(|_, links| {
        for i in 0..1000u32 {
            links.send(replica(0), &i.to_le_bytes());
        }
    });
    let mut granted = 5;
    for more in [0, 1, 10, 300] {
        server.with(|recorder, _| *recorder.credits.get_mut(&client(0)).unwrap() += more);
        granted += more;
        let of_0 = |recorder: &Recorder| {
            recorder.frames.iter().filter(|(from, _)| *from == client(0)).count()
        };
        until("the credit is used", &server, |recorder, _| of_0(recorder) == granted).await;
        // The other's link goes on meanwhile.
        let before = server.with(|recorder, _| recorder.frames.len());
        other.with(|_, links| links.send(replica(0), b"other"));
        until("the other's frame", &server, |r, _| r.frames.len() == before + 1).await;
    }
    server.with(|recorder, _| recorder.credits.clear());
    until("the rest", &server, |recorder, _| recorder.frames.len() == 1000 + 4).await;
    server.with(|recorder, _| {
        let of_0 = recorder.frames.iter().filter(|(from, _)| *from == client(0));
        assert!(
            of_0.map(|(_, frame)| frame[..].try_into().unwrap())
                .map(u32::from_le_bytes)
                .eq(0..1000)
        );
    });
}

/// Small frames can ask for much work. Whoever sends a thousand of them takes turns with the others all the same.
#[tokio::test]
async fn work_without_end_delays_the_others_by_a_turn() {
    let mut world = World::new(1, 2);
    let work = [(client(0), Duration::from_millis(1))].into();
    let recorder = Recorder { work, ..Recorder::default() };
    let server = world.start_with(replica(0), Limits::default(), recorder);
    let (busy, other) = (world.start(client(0)), world.start(client(1)));
    connected(&busy, replica(0)).await;
    connected(&other, replica(0)).await;
    busy.with(|_, links| {
        (0..1000u32).for_each(|i| links.send(replica(0), &i.to_le_bytes()));
    });
    other.with(|_, links| links.send(replica(0), b"other"));
    until("all", &server, |recorder, _| recorder.frames.len() == 1001).await;
    server.with(|recorder, _| {
        let place = recorder.frames.iter().position(|(from, _)| *from == client(1));
        assert!(place.is_some_and(|place| place < 200), "{place:?}");
        let busy = recorder.frames.iter().filter(|(from, _)| *from == client(0));
        let numbers = busy.map(|(_, frame)| u32::from_le_bytes(frame[..].try_into().unwrap()));
        assert!(numbers.eq(0..1000));
    });
}

#[tokio::test]
async fn deadlines_are_kept_and_may_come_nearer() {
    let mut world = World::new(1, 0);
    let hub = world.start(replica(0));
    let since = Instant::now();
    hub.with(|recorder, _| recorder.deadline = Some(since + Duration::from_secs(3600)));
    sleep(Duration::from_millis(5)).await;
    hub.with(|recorder, _| recorder.deadline = Some(since + Duration::from_millis(50)));
    until("the deadline", &hub, |recorder, _| recorder.deadlines_passed == 1).await;
    assert!(since.elapsed() >= Duration::from_millis(50));
    // Also one set by another thread.
    let other = hub.clone();
    let near = move || other.with(|recorder, _| recorder.deadline = Some(Instant::now()));
    std::thread::spawn(near).join().unwrap();
    until("the deadline", &hub, |recorder, _| recorder.deadlines_passed == 2).await;
}

#[tokio::test]
async fn a_deadline_that_stays_in_the_past_starves_nobody() {
    let mut world = World::new(1, 1);
    let late = Recorder { deadline: Some(Instant::now()), forgetful: true, ..echo() };
    let server = world.start_with(replica(0), Limits::default(), late);
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    round_trip(&user, replica(0), b"served").await;
    server.with(|recorder, _| assert!(recorder.deadlines_passed > 0));
}

#[tokio::test]
async fn what_is_deferred_runs_without_the_lock() {
    let mut world = World::new(1, 0);
    let hub = world.start(replica(0));
    let (again, (sender, receiver)) = (hub.clone(), std::sync::mpsc::channel());
    hub.with(|_, links| {
        links.defer(move || {
            // Would never return under the lock.
            again.with(|_, _| sender.send("ran")).unwrap();
        });
        receiver.try_recv().expect_err("not yet");
    });
    assert_eq!(receiver.try_recv(), Ok("ran"));
}

#[tokio::test]
async fn what_is_sent_from_deferred_work_leaves_soon_though_not_at_once() {
    let mut world = World::new(1, 1);
    let server = world.start(replica(0));
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    let again = user.clone();
    user.with(|_, links| {
        links.defer(move || {
            again.with(|_, links| links.send(replica(0), b"one"));
            again.with(|_, links| {
                // Both wait for one write.
                assert!(!links.is_idle());
                links.send(replica(0), b"two");
            });
        });
    });
    until("both", &server, |recorder, _| recorder.frames.len() == 2).await;
    server.with(|recorder, _| assert_eq!(recorder.frames[1].1, b"two"));
}

#[tokio::test]
async fn the_last_handle_takes_the_links_with_it() {
    let mut world = World::new(1, 1);
    let server = world.start(replica(0));
    let user = world.start(client(0));
    connected(&user, replica(0)).await;
    connected(&server, client(0)).await;
    let second = server.clone();
    drop(server);
    second.with(|_, links| links.send(client(0), b"last words"));
    drop(second);
    until("its link goes down", &user, |_, links| !links.connected(replica(0))).await;
    user.with(|r, _| assert_eq!(r.frames, [(replica(0), b"last words".to_vec())]));
    until("its port is free", &user, |_, _| std::net::TcpListener::bind(world.address(0)).is_ok())
        .await;
}

#[tokio::test]
#[should_panic(expected = "not the keys")]
async fn a_hub_runs_only_with_its_own_keys() {
    let mut world = World::new(2, 0);
    world.replicas.swap(0, 1);
    world.start(replica(0));
}

/// A panic in a task, which a runtime by itself would confine to the task.
fn panic_in_the_endpoint() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(1, 0);
        let server = world.start(replica(0));
        let task = tokio::spawn(async move { server.with(|_, _| panic!("in the endpoint")) });
        let _: Result<(), _> = task.await;
    });
}

#[test]
fn a_panic_in_the_endpoint_ends_the_process() {
    const CHILD: &str = "BFT_NET_TEST_PANIC";
    if std::env::var_os(CHILD).is_some() {
        return panic_in_the_endpoint();
    }
    let test = "a_panic_in_the_endpoint_ends_the_process";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args([test, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert_eq!(signal, Some(6), "{output:?}");
}
