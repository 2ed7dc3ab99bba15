//! A group and its client in one process and one thread: the real core, the real file system and real cryptography, and
//! queues where links would be. What it does depends on nothing but what is asked of it, so it can be counted; time is virtual.

use bfs_fs::op::{Caller, FsOp, FsRequest, encode_request};
use bfs_fs::{FileSystem, FileSystemConfig};
use bft_core::auth::{Authority, Crypto, PublicKey, RealCrypto};
use bft_core::client::{Client, ClientConfig, ClientInput, ClientOutput};
use bft_core::clients::ClientIdentity;
use bft_core::codec;
use bft_core::io::{Destination, Input, Job, JobResult, Output};
use bft_core::messages::{Message, SessionId};
use bft_core::replica::{Config, Replica};
use bft_core::types::{ClientId, ClusterSize, Digest, GroupId, Now, Peer, ReplicaId, Tick, Time};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const GROUP: GroupId = GroupId(Digest([3; 32]));
/// What has passed between processes that would be apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
}

/// What is on its way.
struct Frame {
    from: Peer,
    to: Peer,
    bytes: Vec<u8>,
    /// When it arrives. All take equally long, so they arrive in the order in which they were sent.
    due: Tick,
}

/// A group, its clients, and what is on its way between them.
pub struct Group {
    replicas: Vec<Replica<FileSystem>>,
    cryptos: Vec<Arc<RealCrypto>>,
    clients: Vec<Client>,
    wire: VecDeque<Frame>,
    /// How long a frame takes.
    delay: Duration,
    now: Now,
    pub traffic: Traffic,
    /// Answers since the last call: whose they are.
    done: VecDeque<(ClientId, Bytes)>,
    opened: usize,
}

fn seed(principal: u32) -> [u8; 32] {
    let mut seed = [1; 32];
    seed[..4].copy_from_slice(&principal.to_le_bytes());
    seed
}

fn public(principal: u32) -> PublicKey {
    RealCrypto::new(&seed(principal)).public()
}

/// The keys of client `c`: replicas count from the other end.
fn client_name(c: u32) -> u32 {
    u32::MAX - c
}

impl Group {
    /// A group of `n` replicas that has opened a session for its client, with nothing between them.
    pub fn new(n: u32) -> Self {
        Self::with(n, 1, Duration::ZERO)
    }

    /// One of `n` replicas that has opened sessions for its clients. A frame takes `delay`.
    pub fn with(n: u32, clients: u32, delay: Duration) -> Self {
        let size = ClusterSize::new(n, (n - 1) / 3).expect("3f+1");
        let cryptos: Vec<_> = (0..n).map(|i| Arc::new(RealCrypto::new(&seed(i)))).collect();
        let replicas =
            size.replicas().map(|me| replica(size, me, clients, &cryptos[me.index()])).collect();
        let mut group = Self {
            replicas,
            cryptos,
            clients: (0..clients).map(|c| client(size, ClientId(c))).collect(),
            wire: VecDeque::new(),
            delay,
            now: Now { tick: Tick(1), wall: Time(1_000_000_000_000_000) },
            traffic: Traffic::default(),
            done: VecDeque::new(),
            opened: 0,
        };
        for i in 0..n {
            let others = size.replicas().filter(|other| other.0 != i).map(Peer::Replica);
            let clients = (0..clients).map(|c| Peer::Client(ClientId(c)));
            for peer in others.chain(clients) {
                group.replica_input(i, Input::Connected { peer, entropy: [i as u8; 32] });
            }
        }
        for c in 0..clients {
            let session = SessionId { epoch: 1, nonce: 1 };
            group.client_input(ClientId(c), ClientInput::Open(session));
        }
        group.settle();
        assert_eq!(group.opened, clients as usize, "sessions are open");
        group.traffic = Traffic::default();
        group
    }

    /// The instant of what happened last.
    pub fn clock(&self) -> Tick {
        self.now.tick
    }

    /// Has every client run `each` operations like `op`, one after the other, and returns how long each took.
    pub fn flow(&mut self, each: usize, read_only: bool, op: &FsOp) -> Vec<Duration> {
        let mut begun = vec![self.now.tick; self.clients.len()];
        let mut left = vec![each; self.clients.len()];
        let mut took = Vec::new();
        (0..self.clients.len() as u32)
            .for_each(|c| self.submit(ClientId(c), 0, op.clone(), read_only));
        loop {
            while let Some((client, _)) = self.done.pop_front() {
                let c = client.0 as usize;
                took.push(self.now.tick.since(begun[c]));
                begun[c] = self.now.tick;
                left[c] -= 1;
                if left[c] > 0 {
                    self.submit(client, left[c] as u64, op.clone(), read_only);
                }
            }
            if !self.step() {
                return took;
            }
        }
    }

    fn submit(&mut self, client: ClientId, token: u64, op: FsOp, read_only: bool) {
        let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
        let op = encode_request(&FsRequest { caller, op });
        self.client_input(client, ClientInput::Submit { token, op, read_only });
    }

    /// Runs `operations` with `width` in flight, and returns the answers.
    pub fn run(
        &mut self,
        width: usize,
        read_only: bool,
        operations: impl IntoIterator<Item = FsOp>,
    ) -> Vec<Bytes> {
        let mut operations = operations.into_iter().enumerate();
        let (mut answers, mut under_way) = (Vec::new(), 0);
        loop {
            while under_way < width {
                let Some((token, op)) = operations.next() else { break };
                self.submit(ClientId(0), token as u64, op, read_only);
                under_way += 1;
            }
            if under_way == 0 {
                return answers;
            }
            self.settle();
            assert!(!self.done.is_empty(), "a quiet group answers");
            while let Some((_, answer)) = self.done.pop_front() {
                answers.push(answer);
                under_way -= 1;
            }
        }
    }

    /// Delivers until nothing is on its way: each in turn what has arrived for it, as links do.
    fn settle(&mut self) {
        while self.step() {}
    }

    /// Delivers what arrives next; says whether there was anything.
    fn step(&mut self) -> bool {
        let Some(Frame { from, to, bytes, due }) = self.wire.pop_front() else { return false };
        let later = due.since(self.now.tick);
        self.now.tick = self.now.tick.after(later);
        self.now.wall = Time(self.now.wall.0 + later.as_nanos() as u64);
        let message = codec::decode(&bytes).expect("what was encoded decodes");
        match (from, to) {
            (Peer::Replica(from), Peer::Client(to)) => {
                self.client_input(to, ClientInput::Message(from, message));
            }
            (from, Peer::Replica(to)) => self.deliver(from, to, message),
            (Peer::Client(_), Peer::Client(_)) => unreachable!("clients do not talk"),
        }
        true
    }

    fn deliver(&mut self, from: Peer, to: ReplicaId, message: Message) {
        self.now.tick = self.now.tick.after(Duration::from_micros(1));
        self.now.wall = Time(self.now.wall.0 + 1_000);
        // As a driver does: what arrives together is ordered together.
        let next = self.wire.front();
        let more = next.is_some_and(|next| {
            next.to == Peer::Replica(to) && next.due <= self.now.tick && next.is_request()
        });
        if let Ok(verified) = self.replicas[to.index()].verify(from, message) {
            if more && matches!(verified.message(), Message::Request(_)) {
                let replica = &mut self.replicas[to.index()];
                let mut outputs = Vec::new();
                replica.take(self.now, Input::Message(verified), &mut outputs);
                return self.perform(to.0, outputs);
            }
            self.replica_input(to.0, Input::Message(verified));
        }
    }

    fn replica_input(&mut self, i: u32, input: Input) {
        let mut outputs = Vec::new();
        self.replicas[i as usize].handle(self.now, input, &mut outputs);
        self.perform(i, outputs);
    }

    /// Does what `outputs` say, and what follows from doing it.
    fn perform(&mut self, i: u32, mut outputs: Vec<Output>) {
        let mut inputs = VecDeque::new();
        loop {
            for output in outputs.drain(..) {
                match output {
                    Output::Persist { id, .. } => inputs.push_back(Input::Persisted(id)),
                    Output::Send { to, message, .. } => self.send(ReplicaId(i), to, &message),
                    Output::Job(Job::SignCheckpoint { n, digest, signed }) => {
                        let signature = self.cryptos[i as usize].sign(&signed);
                        let result = JobResult::CheckpointSigned { n, digest, signature };
                        inputs.push_back(Input::JobDone(result));
                    }
                    // Nothing is lost, so no timer has anything to do.
                    Output::SetTimer { .. } | Output::CancelTimer(_) | Output::Client { .. } => {}
                    // What two send, one sends in vain; so does one that is late.
                    Output::Rejected { .. } => {}
                    Output::Alarm(alarm) => panic!("{alarm}"),
                }
            }
            let Some(input) = inputs.pop_front() else { return };
            self.replicas[i as usize].handle(self.now, input, &mut outputs);
        }
    }

    fn client_input(&mut self, c: ClientId, input: ClientInput) {
        let mut outputs = Vec::new();
        self.clients[c.0 as usize].handle(self.now.tick, input, &mut outputs);
        let from = Peer::Client(c);
        for output in outputs {
            match output {
                ClientOutput::Send { to, message } => {
                    self.put(from, &message, [Peer::Replica(to)].into_iter());
                }
                ClientOutput::Broadcast(message) => {
                    let all = (0..self.replicas.len() as u32).map(|i| Peer::Replica(ReplicaId(i)));
                    self.put(from, &message, all);
                }
                ClientOutput::Opened => self.opened += 1,
                ClientOutput::Done { result, .. } => {
                    self.done.push_back((c, result.expect("the session goes on")));
                }
                ClientOutput::SetTimer(_) | ClientOutput::Refused { .. } => {}
            }
        }
    }

    fn send(&mut self, from: ReplicaId, to: Destination, message: &Message) {
        let n = self.replicas.len() as u32;
        let others = (0..n).filter(|i| *i != from.0).map(|i| Peer::Replica(ReplicaId(i)));
        let from = Peer::Replica(from);
        match to {
            Destination::Replicas => self.put(from, message, others),
            Destination::Replica(i) => self.put(from, message, [Peer::Replica(i)].into_iter()),
            Destination::Client(c) => self.put(from, message, [Peer::Client(c)].into_iter()),
        }
    }

    /// Encodes once, as a driver does, and queues for each receiver.
    fn put(&mut self, from: Peer, message: &Message, to: impl Iterator<Item = Peer>) {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes);
        let due = self.now.tick.after(self.delay);
        for to in to {
            self.traffic.messages += 1;
            self.traffic.bytes += bytes.len() as u64;
            self.wire.push_back(Frame { from, to, bytes: bytes.clone(), due });
        }
    }
}

impl Frame {
    fn is_request(&self) -> bool {
        matches!(self.from, Peer::Client(_))
    }
}

fn client(size: ClusterSize, me: ClientId) -> Client {
    Client::new(ClientConfig {
        group: GROUP,
        size,
        me,
        inline_bytes: Config::new(size, ReplicaId(0)).inline_bytes,
        retry: Duration::from_secs(3600),
        retry_max: Duration::from_secs(3600),
        crypto: Arc::new(RealCrypto::new(&seed(client_name(me.0)))),
    })
}

fn replica(
    size: ClusterSize,
    me: ReplicaId,
    clients: u32,
    crypto: &Arc<RealCrypto>,
) -> Replica<FileSystem> {
    let config = Config::new(size, me);
    let identities = (0..clients).map(|c| {
        let mut link = [9; 32];
        link[..4].copy_from_slice(&c.to_le_bytes());
        ClientIdentity { name: format!("client-{c}"), link, signing: public(client_name(c)) }
    });
    let replicas = size.replicas().map(|i| public(i.0)).collect();
    let authority =
        Authority::new(GROUP, size, me, config.limits, replicas, identities, crypto.clone());
    let file_system =
        FileSystem::new(FileSystemConfig { memory_budget: 16 << 30, ..Default::default() });
    Replica::new(config, authority, file_system)
}
