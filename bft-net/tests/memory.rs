//! What a peer that does not read may cost. Alone in its process, whose memory is measured.

mod common;

use bft_core::types::ReplicaId;
use bft_net::hub::Limits;
use bft_net::link::{self, Reader, Scratch, Writer, WriterLimits};
use bft_net::noise;
use common::{Recorder, World, client, connected, replica, until};
use tokio::net::TcpStream;

const ROOMY: WriterLimits = WriterLimits { waiting: 64 << 20, kept: 1 << 20 };
const FRAMES: u32 = 4000;
const SIZE: usize = 64 << 10;

/// The most memory that this process has had resident. Units: bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}

/// A link of client `c` that is read by hand, or not at all.
async fn by_hand(world: &World, c: u32) -> (Reader, Writer) {
    let mut stream = TcpStream::connect(world.address(0)).await.unwrap();
    let local = world.local(client(c));
    let channel = noise::initiate(&mut stream, &local, ReplicaId(0)).await.unwrap();
    link::split(stream, channel, ROOMY)
}

/// Takes what has arrived; checks that its numbers ascend from `expected`, and returns the number after the last.
async fn read_some(reader: &mut Reader, scratch: &mut Scratch, mut expected: u32) -> u32 {
    reader.stream().readable().await.unwrap();
    let drained = reader.drain(scratch, |frame| {
        let number = u32::from_le_bytes(frame[..4].try_into().unwrap());
        assert!(number >= expected && frame.len() == SIZE);
        expected = number + 1;
        true
    });
    drained.unwrap();
    expected
}

#[tokio::test]
async fn a_peer_that_reads_too_little_costs_its_limit_and_hinders_no_other() {
    let mut world = World::new(1, 2);
    let limits = Limits::default();
    let echo = Recorder { echo: true, ..Recorder::default() };
    let server = world.start_with(replica(0), limits, echo);
    let (mut reader, _writer) = by_hand(&world, 0).await;
    connected(&server, client(0)).await;
    let user = world.start(client(1));
    connected(&user, replica(0)).await;
    let (mut scratch, mut expected) = (Scratch::default(), 0);
    let before = peak();
    for i in 0..FRAMES {
        server.with(|_, links| {
            links.send_with(client(0), |out| {
                out.extend(i.to_le_bytes());
                out.resize(out.len() + SIZE - 4, 0x5a);
            });
        });
        if i % 8 == 0 {
            // It takes less than it is sent, and in the end several times its limit: what it took must not stay.
            expected = read_some(&mut reader, &mut scratch, expected).await;
        }
        if i % 100 == 0 {
            user.with(|_, links| links.send(replica(0), &i.to_le_bytes()));
            let echo = (replica(0), i.to_le_bytes().to_vec());
            until("the echo", &user, |r, _| r.frames.last() == Some(&echo)).await;
        }
    }
    let (cost, limit) = (peak() - before, limits.client.waiting);
    // What waits, as much again that has left and not been given back yet, and what the other links need.
    assert!(cost <= 2 * limit + (6 << 20), "{cost} bytes for one peer that does not read");
    assert!(cost >= limit / 2, "{cost} bytes: the peer was not blocked");
    assert!(expected > FRAMES / 2, "it read up to {expected}");
    let (dropped, waiting) = server.with(|_, l| (l.dropped(), l.waiting(client(0))));
    assert!(dropped > u64::from(FRAMES) / 4, "{dropped} were dropped");
    assert!(waiting <= limit + SIZE + 1024, "{waiting} wait");
    // It reads again: the rest comes whole and in order, and the memory is given back.
    while server.with(|_, links| links.waiting(client(0))) > 0 {
        expected = read_some(&mut reader, &mut scratch, expected).await;
    }
    let kept = Limits::default().client.kept;
    until("it is given back", &server, |_, l| l.capacity(client(0)) <= 2 * kept).await;
}
