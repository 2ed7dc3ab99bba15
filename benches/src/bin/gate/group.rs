//! A group and its client in one process and one thread: the real core, the real file system and real cryptography, and
//! queues where links would be. What it does depends on nothing but what is asked of it, so it can be counted.

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
const ME: ClientId = ClientId(0);

/// What has passed between processes that would be apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
}

pub struct Group {
    replicas: Vec<Replica<FileSystem>>,
    cryptos: Vec<Arc<RealCrypto>>,
    client: Client,
    wire: VecDeque<(Peer, Peer, Vec<u8>)>,
    now: Now,
    pub traffic: Traffic,
    /// Answers since the last call.
    done: VecDeque<(u64, Bytes)>,
    opened: bool,
}

fn seed(principal: u32) -> [u8; 32] {
    let mut seed = [1; 32];
    seed[..4].copy_from_slice(&principal.to_le_bytes());
    seed
}

fn public(principal: u32) -> PublicKey {
    RealCrypto::new(&seed(principal)).public()
}

impl Group {
    /// A group of `n` replicas that has opened a session for its client.
    pub fn new(n: u32) -> Self {
        let size = ClusterSize::new(n, (n - 1) / 3).expect("3f+1");
        let cryptos: Vec<_> = (0..n).map(|i| Arc::new(RealCrypto::new(&seed(i)))).collect();
        let replicas = size.replicas().map(|me| replica(size, me, &cryptos[me.index()])).collect();
        let client = Client::new(ClientConfig {
            group: GROUP,
            size,
            me: ME,
            inline_bytes: Config::new(size, ReplicaId(0)).inline_bytes,
            retry: Duration::from_secs(3600),
            retry_max: Duration::from_secs(3600),
            crypto: Arc::new(RealCrypto::new(&seed(u32::MAX))),
        });
        let mut group = Self {
            replicas,
            cryptos,
            client,
            wire: VecDeque::new(),
            now: Now { tick: Tick(1), wall: Time(1_000_000_000_000_000) },
            traffic: Traffic::default(),
            done: VecDeque::new(),
            opened: false,
        };
        for i in 0..n {
            for peer in size.replicas().filter(|other| other.0 != i).map(Peer::Replica) {
                group.replica_input(i, Input::Connected { peer, entropy: [i as u8; 32] });
            }
            let peer = Peer::Client(ME);
            group.replica_input(i, Input::Connected { peer, entropy: [i as u8; 32] });
        }
        group.client_input(ClientInput::Open(SessionId { epoch: 1, nonce: 1 }));
        group.settle();
        assert!(group.opened, "a session is open");
        group.traffic = Traffic::default();
        group
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
                let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
                let op = encode_request(&FsRequest { caller, op });
                self.client_input(ClientInput::Submit { token: token as u64, op, read_only });
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
        while let Some((from, to, frame)) = self.wire.pop_front() {
            let message = codec::decode(&frame).expect("what was encoded decodes");
            match (from, to) {
                (Peer::Replica(from), Peer::Client(_)) => {
                    self.client_input(ClientInput::Message(from, message));
                }
                (from, Peer::Replica(to)) => self.deliver(from, to, message),
                (Peer::Client(_), Peer::Client(_)) => unreachable!("clients do not talk"),
            }
        }
    }

    fn deliver(&mut self, from: Peer, to: ReplicaId, message: Message) {
        self.now.tick = self.now.tick.after(Duration::from_micros(1));
        self.now.wall = Time(self.now.wall.0 + 1_000);
        // As a driver does: what arrives together is ordered together.
        let next = self.wire.front();
        let more = next.is_some_and(|(then, next, _)| (*then, *next) == (from, Peer::Replica(to)));
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
                    Output::Send { to, message, .. } => {
                        send(
                            &mut self.wire,
                            &mut self.traffic,
                            self.cryptos.len(),
                            i,
                            to,
                            &message,
                        );
                    }
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

    fn client_input(&mut self, input: ClientInput) {
        let mut outputs = Vec::new();
        self.client.handle(self.now.tick, input, &mut outputs);
        for output in outputs {
            match output {
                ClientOutput::Send { to, message } => self.send_from_client(&[to], &message),
                ClientOutput::Broadcast(message) => {
                    let all: Vec<_> = (0..self.replicas.len() as u32).map(ReplicaId).collect();
                    self.send_from_client(&all, &message);
                }
                ClientOutput::Opened => self.opened = true,
                ClientOutput::Done { token, result } => {
                    self.done.push_back((token, result.expect("the session goes on")));
                }
                ClientOutput::SetTimer(_) | ClientOutput::Refused { .. } => {}
            }
        }
    }

    fn send_from_client(&mut self, to: &[ReplicaId], message: &Message) {
        let mut frame = Vec::new();
        codec::encode(message, &mut frame);
        for to in to {
            self.traffic.count(&frame);
            self.wire.push_back((Peer::Client(ME), Peer::Replica(*to), frame.clone()));
        }
    }
}

impl Traffic {
    fn count(&mut self, frame: &[u8]) {
        self.messages += 1;
        self.bytes += frame.len() as u64;
    }
}

/// Encodes once, as a driver does, and queues for each receiver.
fn send(
    wire: &mut VecDeque<(Peer, Peer, Vec<u8>)>,
    traffic: &mut Traffic,
    n: usize,
    from: u32,
    to: Destination,
    message: &Message,
) {
    let mut frame = Vec::new();
    codec::encode(message, &mut frame);
    let to = match to {
        Destination::Replicas => {
            (0..n as u32).filter(|i| *i != from).map(|i| Peer::Replica(ReplicaId(i))).collect()
        }
        Destination::Replica(i) => vec![Peer::Replica(i)],
        Destination::Client(c) => vec![Peer::Client(c)],
    };
    for to in to {
        traffic.count(&frame);
        wire.push_back((Peer::Replica(ReplicaId(from)), to, frame.clone()));
    }
}

fn replica(size: ClusterSize, me: ReplicaId, crypto: &Arc<RealCrypto>) -> Replica<FileSystem> {
    let config = Config::new(size, me);
    let identity =
        ClientIdentity { name: "client".into(), link: [9; 32], signing: public(u32::MAX) };
    let replicas = size.replicas().map(|i| public(i.0)).collect();
    let authority =
        Authority::new(GROUP, size, me, config.limits, replicas, [identity], crypto.clone());
    let file_system =
        FileSystem::new(FileSystemConfig { memory_budget: 1 << 30, ..Default::default() });
    Replica::new(config, authority, file_system)
}
