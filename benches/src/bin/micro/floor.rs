//! The floor: as many processes as a group has, which pass the same messages over TCP and do nothing else. No state, no
//! checks, no encryption: whatever PBFT costs more than this is the implementation's doing.
//!
//! ```text
//! client → primary → backups → everyone, and then REPLY to the client beside COMMIT to everyone
//! client → everyone → client                                  a read
//! ```

use crate::figures::{Latency, latency};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A message of the floor: its kind, its operation, and as many bytes as the real one has on the wire for n = 4.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Hello = 0,
    Request = 1,
    PrePrepare = 2,
    Prepare = 3,
    Commit = 4,
    Reply = 5,
    Read = 6,
    ReadReply = 7,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Hello,
        Kind::Request,
        Kind::PrePrepare,
        Kind::Prepare,
        Kind::Commit,
        Kind::Reply,
        Kind::Read,
        Kind::ReadReply,
    ];

    /// Units: bytes, the record's and the frame's overhead included.
    fn length(self) -> usize {
        match self {
            Kind::Hello => HEADER,
            Kind::Request => 204,
            Kind::PrePrepare => 237,
            Kind::Prepare | Kind::Commit => 71,
            Kind::Reply => 145,
            Kind::Read => 90,
            Kind::ReadReply => 95,
        }
    }
}

/// Kind, sender and operation.
const HEADER: usize = 1 + 1 + 8;
/// The sender that is the client.
const CLIENT: u8 = u8::MAX;
/// How long the processes have to find each other.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
struct Message {
    kind: Kind,
    from: u8,
    operation: u64,
}

struct Peer {
    stream: TcpStream,
    name: u8,
    arrived: Vec<u8>,
    leaving: Vec<u8>,
}

impl Peer {
    fn new(stream: TcpStream, name: u8) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, name, arrived: Vec::new(), leaving: Vec::new() })
    }

    fn push(&mut self, message: Message) {
        let end = self.leaving.len() + message.kind.length();
        self.leaving.extend([message.kind as u8, message.from]);
        self.leaving.extend(message.operation.to_le_bytes());
        self.leaving.resize(end, 0);
    }

    /// Writes all that is to leave at once. The messages are far smaller than a socket's buffer.
    fn flush(&mut self) -> Result<()> {
        let mut rest = self.leaving.as_slice();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
        self.leaving.clear();
        Ok(())
    }

    /// Whatever has arrived, whole messages only; nothing more comes where it says so.
    fn drain(&mut self, messages: &mut Vec<Message>) -> Result<bool> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => self.arrived.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Ok(false),
        }
        let mut used = 0;
        while let Some(&kind) = self.arrived.get(used) {
            let kind = *Kind::ALL.get(usize::from(kind)).context("a message of no kind")?;
            let Some(bytes) = self.arrived.get(used..used + kind.length()) else { break };
            let operation = u64::from_le_bytes(bytes[2..HEADER].try_into()?);
            messages.push(Message { kind, from: bytes[1], operation });
            used += kind.length();
        }
        self.arrived.drain(..used);
        Ok(true)
    }
}

/// Waits until one of `peers` has something.
fn wait(peers: &[Peer]) -> Result<Vec<bool>> {
    let mut fds: Vec<_> =
        peers.iter().map(|peer| PollFd::new(peer.stream.as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut fds, PollTimeout::NONE)?;
    Ok(fds.iter().map(|fd| fd.any().unwrap_or(true)).collect())
}

/// One replica of the floor: runs until the client hangs up.
pub fn replica(id: u8, ports: &[u16]) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", ports[usize::from(id)]))?;
    let mut peers = Vec::new();
    for other in 0..id {
        let mut peer = Peer::new(dial(ports[usize::from(other)])?, other)?;
        peer.push(Message { kind: Kind::Hello, from: id, operation: 0 });
        peer.flush()?;
        peers.push(peer);
    }
    // The others with higher numbers, and the client.
    while peers.len() < ports.len() {
        let (mut stream, _) = listener.accept()?;
        let mut hello = [0; HEADER];
        stream.read_exact(&mut hello)?;
        peers.push(Peer::new(stream, hello[1])?);
    }
    let mut part = Part { id, weak: (ports.len() - 1) / 3 * 2, prepares: BTreeMap::new() };
    let mut messages = Vec::new();
    loop {
        let ready = wait(&peers)?;
        for place in (0..peers.len()).filter(|place| ready[*place]) {
            if !peers[place].drain(&mut messages)? {
                return Ok(());
            }
        }
        for message in messages.drain(..) {
            part.play(message, &mut peers);
        }
        for peer in peers.iter_mut().filter(|peer| !peer.leaving.is_empty()) {
            peer.flush()?;
        }
    }
}

/// What a replica knows: how many PREPAREs there are of what is under way.
struct Part {
    id: u8,
    /// 2f.
    weak: usize,
    prepares: BTreeMap<u64, usize>,
}

impl Part {
    fn play(&mut self, Message { kind, operation, .. }: Message, peers: &mut [Peer]) {
        let own = |kind| Message { kind, from: self.id, operation };
        match kind {
            Kind::Request => send(peers, own(Kind::PrePrepare), |name| name != CLIENT),
            Kind::PrePrepare => {
                send(peers, own(Kind::Prepare), |name| name != CLIENT);
                self.prepared(operation, peers);
            }
            Kind::Prepare => self.prepared(operation, peers),
            Kind::Read => send(peers, own(Kind::ReadReply), |name| name == CLIENT),
            Kind::Hello | Kind::Commit | Kind::Reply | Kind::ReadReply => {}
        }
    }

    /// Counts a PREPARE, its own included; the one that completes a certificate lets the REPLY go.
    fn prepared(&mut self, operation: u64, peers: &mut [Peer]) {
        let count = self.prepares.entry(operation).or_default();
        *count += 1;
        if *count != self.weak {
            return;
        }
        self.prepares = self.prepares.split_off(&operation.saturating_sub(1024));
        let own = |kind| Message { kind, from: self.id, operation };
        send(peers, own(Kind::Reply), |name| name == CLIENT);
        send(peers, own(Kind::Commit), |name| name != CLIENT);
    }
}

fn send(peers: &mut [Peer], message: Message, to: impl Fn(u8) -> bool) {
    peers.iter_mut().filter(|peer| to(peer.name)).for_each(|peer| peer.push(message));
}

fn dial(port: u16) -> Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// The floor as its client sees it. Dropping it ends the processes.
pub struct Floor {
    processes: Vec<Child>,
    peers: Vec<Peer>,
    quorum: usize,
    operation: u64,
}

impl Floor {
    /// Starts `n` processes.
    ///
    /// Requires: n = 3f+1.
    pub fn start(n: usize) -> Result<Self> {
        let reserved: Vec<_> =
            (0..n).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let ports: Vec<u16> =
            reserved.iter().map(|l| Ok(l.local_addr()?.port())).collect::<std::io::Result<_>>()?;
        drop(reserved);
        let words: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut floor = Self {
            processes: Vec::new(),
            peers: Vec::new(),
            quorum: (n - 1) / 3 * 2 + 1,
            operation: 0,
        };
        for id in 0..n {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--floor", &id.to_string(), "--ports", &words.join(",")]);
            floor.processes.push(command.stdin(Stdio::null()).spawn()?);
        }
        for (id, port) in ports.iter().enumerate() {
            let mut peer = Peer::new(dial(*port)?, id as u8)?;
            peer.push(Message { kind: Kind::Hello, from: CLIENT, operation: 0 });
            peer.flush()?;
            floor.peers.push(peer);
        }
        Ok(floor)
    }

    /// `operations` of them, one at a time.
    pub fn one_at_a_time(&mut self, operations: usize, read_only: bool) -> Result<Latency> {
        let mut samples = Vec::with_capacity(operations);
        for _ in 0..operations {
            let start = Instant::now();
            self.perform(read_only)?;
            samples.push(start.elapsed());
        }
        Ok(latency(samples))
    }

    /// One operation: the client goes on with 2f+1 answers, and meets the others' with the next.
    fn perform(&mut self, read_only: bool) -> Result<()> {
        self.operation += 1;
        let operation = self.operation;
        let (kind, wanted, to) = match read_only {
            true => (Kind::Read, Kind::ReadReply, self.peers.len()),
            false => (Kind::Request, Kind::Reply, 1),
        };
        for peer in &mut self.peers[..to] {
            peer.push(Message { kind, from: CLIENT, operation });
            peer.flush()?;
        }
        let (mut count, mut messages) = (0, Vec::new());
        while count < self.quorum {
            let ready = wait(&self.peers)?;
            for (peer, _) in self.peers.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                if !peer.drain(&mut messages)? {
                    bail!("a process of the floor has ended");
                }
            }
            let answers = messages.drain(..).filter(|m| m.kind == wanted);
            count += answers.filter(|m| m.operation == operation).count();
        }
        Ok(())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Each ends when its client hangs up, and its neighbours with it.
        self.peers.clear();
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
