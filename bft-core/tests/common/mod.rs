//! A small group without a network: the tests say which message arrives when.

#![allow(dead_code)]

use bft_core::auth::{
    Authority, Credential, Crypto, MacKey, PublicKey, RealCrypto, Signature, Tag,
    request_signing_digest,
};
use bft_core::clients::ClientIdentity;
use bft_core::codec::{MAX_MESSAGE, encode};
use bft_core::io::{Destination, Input, Job, JobResult, Output, Record, Rejection, Timer};
use bft_core::messages::{
    Message, Operation, Outcome, Request, ResultBody, SessionId, SignedRequest, Suspect,
};
use bft_core::objects::Objects;
use bft_core::replica::{Config, Replica};
use bft_core::service::{Context, NotReadOnly, Service};
use bft_core::tree::ObjectId;
use bft_core::types::*;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

pub const GROUP: GroupId = GroupId(Digest([9; 32]));
pub const SESSION: SessionId = SessionId { epoch: 1, nonce: 42 };
const COUNT: ObjectId = ObjectId::new(0x80, 0, 0);

/// A counter: any operation adds its first byte; asking is `get`, and `find` looks for something that is not there.
#[derive(Clone)]
pub struct Counter;

impl Service for Counter {
    type Object = u64;

    fn genesis(&self, objects: &mut Objects<u64>) {
        objects.insert(COUNT, 0);
    }

    fn execute(&self, ctx: &Context, objects: &mut Objects<u64>, op: &Bytes) -> Bytes {
        if &op[..] == b"time" {
            return Bytes::copy_from_slice(&ctx.time.0.to_le_bytes());
        }
        let count = objects.get_mut(COUNT).expect("made at genesis");
        *count += u64::from(op.first().copied().unwrap_or(0));
        Bytes::copy_from_slice(&count.to_le_bytes())
    }

    fn query(&self, _: &Context, objects: &Objects<u64>, op: &[u8]) -> Result<Bytes, NotReadOnly> {
        let count = match op {
            b"get" => objects.get(COUNT).expect("made at genesis"),
            b"find" => objects.get_or_miss(ObjectId::new(0x80, 0, 1)).unwrap_or(&0),
            _ => return Err(NotReadOnly),
        };
        Ok(Bytes::copy_from_slice(&count.to_le_bytes()))
    }
}

/// Cryptography by name: cheap, and only its owner makes it.
pub struct Named(pub u8);

impl Named {
    pub fn public(name: u8) -> PublicKey {
        PublicKey([name; 32])
    }
}

impl Named {
    /// The client with this name.
    pub fn identity(name: u8) -> ClientIdentity {
        let (link, signing) = ([name; 32], Self::public(name));
        ClientIdentity { name: format!("client {name}"), link, signing }
    }
}

impl Crypto for Named {
    fn mac(&self, key: &MacKey, digest: &Digest) -> Tag {
        RealCrypto::new(&[0; 32]).mac(key, digest)
    }

    fn sign(&self, digest: &Digest) -> Signature {
        let mut bytes = [self.0; 64];
        bytes[32..].copy_from_slice(&digest.0);
        Signature(bytes)
    }

    fn verify(&self, public: &PublicKey, digest: &Digest, signature: &Signature) -> bool {
        signature.0[..32] == public.0 && signature.0[32..] == digest.0
    }
}

/// The name of the first client in [`Named`].
pub const CLIENT: u8 = 100;
/// How many are registered.
pub const CLIENTS: u8 = 3;

#[derive(Clone)]
pub struct Cluster {
    pub replicas: Vec<Replica<Counter>>,
    pub config: Config,
    /// Messages on their way, oldest first.
    pub wire: VecDeque<(ReplicaId, Destination, Message)>,
    pub rejections: Vec<(ReplicaId, Rejection)>,
    pub records: Vec<Vec<Record>>,
    pub replies: Vec<(ReplicaId, Message)>,
    /// Which replica has taken in which client, by its link's key, or dismissed it.
    pub table: Vec<(ReplicaId, ClientId, Option<[u8; 32]>)>,
    /// When each replica's view timer fires.
    pub view_timers: Vec<Option<Tick>>,
    /// When its next STATUS is due, or what it asks for before that.
    pub status_timers: Vec<Option<Tick>>,
    pub now: Now,
    /// More than f are faulty: then an alarm is right.
    pub too_many_faulty: bool,
}

impl Cluster {
    pub fn new(n: u32, f: u32) -> Self {
        Self::with(n, f, |config| config)
    }

    pub fn with(n: u32, f: u32, adjust: impl Fn(Config) -> Config) -> Self {
        let size = ClusterSize::new(n, f).expect("a group");
        let config = adjust(Config::new(size, ReplicaId(0)).with_window(4, 8));
        let mut cluster = Self {
            replicas: Vec::new(),
            config,
            wire: VecDeque::new(),
            rejections: Vec::new(),
            records: vec![Vec::new(); n as usize],
            replies: Vec::new(),
            table: Vec::new(),
            view_timers: vec![None; n as usize],
            status_timers: vec![None; n as usize],
            now: Now { tick: Tick(1), wall: Time(1_000_000_000_000) },
            too_many_faulty: false,
        };
        for i in 0..n {
            let config = Config { me: ReplicaId(i), ..config };
            cluster.replicas.push(Replica::new(config, cluster.authority(i), Counter));
        }
        for i in 0..n {
            let peer = Peer::Client(ClientId(0));
            cluster.input(i, Input::Connected { peer, entropy: [i as u8; 32] });
        }
        cluster.deliver_all();
        cluster
    }

    pub fn authority(&self, i: u32) -> Authority {
        let n = self.config.size.n() as u8;
        Authority::new(
            GROUP,
            self.config.size,
            ReplicaId(i),
            self.config.limits,
            (0..n).map(Named::public).collect(),
            (CLIENT..CLIENT + CLIENTS).map(Named::identity),
            Arc::new(Named(i as u8)),
        )
    }

    pub fn input(&mut self, i: u32, input: Input) {
        let mut outputs = Vec::new();
        self.replicas[i as usize].handle(self.now, input, &mut outputs);
        self.replicas[i as usize].check_invariants();
        self.perform(i, outputs);
    }

    fn perform(&mut self, i: u32, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Persist { id, record } => {
                    self.records[i as usize].push(record);
                    self.input(i, Input::Persisted(id));
                }
                Output::Send { to: Destination::Client(_), message, .. } => {
                    self.replies.push((ReplicaId(i), message));
                }
                Output::Send { to, message, .. } => {
                    let mut bytes = Vec::new();
                    encode(&message, &mut bytes);
                    assert!(bytes.len() <= MAX_MESSAGE, "r{i}: a {} too long", message.name());
                    self.wire.push_back((ReplicaId(i), to, message))
                }
                Output::Job(Job::SignCheckpoint { n, digest, signed }) => {
                    let signature = Named(i as u8).sign(&signed);
                    let result = JobResult::CheckpointSigned { n, digest, signature };
                    self.input(i, Input::JobDone(result));
                }
                Output::Rejected { why, .. } => self.rejections.push((ReplicaId(i), why)),
                Output::SetTimer { timer: Timer::ViewChange, at } => {
                    self.view_timers[i as usize] = Some(at);
                }
                Output::SetTimer { timer: Timer::Status, at } => {
                    self.status_timers[i as usize] = Some(at);
                }
                Output::SetTimer { .. } | Output::CancelTimer(_) => {}
                Output::Client { client, link } => self.table.push((ReplicaId(i), client, link)),
                Output::Alarm(alarm) => assert!(self.too_many_faulty, "r{i}: {alarm}"),
            }
        }
    }

    /// Hands `message` from `from` to replica `to`.
    pub fn give(&mut self, from: Peer, to: u32, message: Message) {
        match self.replicas[to as usize].verify(from, message) {
            Ok(verified) => self.input(to, Input::Message(verified)),
            Err(why) => self.rejections.push((ReplicaId(to), why)),
        }
    }

    /// Delivers everything, oldest first, for which `passes` holds; the rest is lost.
    pub fn deliver(&mut self, mut passes: impl FnMut(ReplicaId, ReplicaId, &Message) -> bool) {
        let mut steps = 0;
        while let Some((from, to, message)) = self.wire.pop_front() {
            steps += 1;
            assert!(steps < 100_000, "the group never comes to rest");
            let targets: Vec<_> = match to {
                Destination::Replicas => {
                    self.config.size.replicas().filter(|i| *i != from).collect()
                }
                Destination::Replica(i) => vec![i],
                Destination::Client(_) => continue,
            };
            for target in targets {
                if passes(from, target, &message) {
                    self.give(Peer::Replica(from), target.0, message.clone());
                }
            }
        }
    }

    pub fn deliver_all(&mut self) {
        self.deliver(|_, _, _| true);
    }

    /// A request of client 0, signed.
    pub fn request(seq: u64, op: &'static [u8]) -> SignedRequest {
        let operation = Operation::Service(Bytes::from_static(op));
        let request =
            Request { client: ClientId(0), session: SESSION, slot: Slot(0), seq, operation };
        Self::signed(request)
    }

    pub fn signed(request: Request) -> SignedRequest {
        let signed = request_signing_digest(GROUP, &request.digest());
        let credential = Credential::Signature(Named(CLIENT).sign(&signed));
        SignedRequest { request, credential, replier: ReplicaId(0) }
    }

    /// Client 0 opens its session.
    pub fn open_session(&mut self) {
        let request = Request {
            client: ClientId(0),
            session: SESSION,
            slot: Slot(0),
            seq: 0,
            operation: Operation::CreateSession,
        };
        self.ask(0, Self::signed(request));
        self.deliver_all();
        self.replies.clear();
    }

    /// Client 0 sends `request` to replica `to` over its own link.
    pub fn ask(&mut self, to: u32, request: SignedRequest) {
        self.give(Peer::Client(ClientId(0)), to, Message::Request(request));
    }

    /// Client `c` asks to open its session, signed.
    pub fn open_session_of(c: u32) -> SignedRequest {
        Self::of_client(c, 0, Operation::CreateSession)
    }

    /// A request of client `c`, signed.
    pub fn request_of(c: u32, seq: u64, op: &'static [u8]) -> SignedRequest {
        Self::of_client(c, seq, Operation::Service(Bytes::from_static(op)))
    }

    fn of_client(c: u32, seq: u64, operation: Operation) -> SignedRequest {
        let client = ClientId(c);
        Self::signed_by(c, Request { client, session: SESSION, slot: Slot(0), seq, operation })
    }

    /// `request`, signed by client `c`.
    pub fn signed_by(c: u32, request: Request) -> SignedRequest {
        let signed = request_signing_digest(GROUP, &request.digest());
        let credential = Credential::Signature(Named(CLIENT + c as u8).sign(&signed));
        SignedRequest { request, credential, replier: ReplicaId(0) }
    }

    /// Client `c` sends `request` to replica `to` over its own link.
    pub fn ask_as(&mut self, c: u32, to: u32, request: SignedRequest) {
        self.give(Peer::Client(ClientId(c)), to, Message::Request(request));
    }

    /// What the replicas answered to `seq`: who, in which batch, and the counter.
    pub fn answers(&self, seq: u64) -> Vec<(ReplicaId, SequenceNumber, u64)> {
        let answers = self.replies.iter().filter_map(|(from, message)| match message {
            Message::Reply(reply) if reply.seq == seq => match &reply.outcome {
                Outcome::Result(ResultBody::Whole(result)) => {
                    let count = u64::from_le_bytes(result[..].try_into().expect("eight bytes"));
                    Some((*from, reply.n, count))
                }
                _ => None,
            },
            _ => None,
        });
        answers.collect()
    }

    pub fn executed(&self) -> Vec<u64> {
        self.replicas.iter().map(|replica| replica.executed().0).collect()
    }

    pub fn digests(&mut self) -> Vec<Digest> {
        self.replicas.iter().map(|replica| replica.objects().clone().digest()).collect()
    }

    /// Time passes to the moment at which the view timer of replica `i` is set, and it fires; says how far off that was.
    pub fn view_timeout(&mut self, i: u32) -> std::time::Duration {
        let at = self.view_timers[i as usize].take().expect("the view timer runs");
        let passed = at.since(self.now.tick);
        self.now.tick = self.now.tick.max(at);
        self.now.wall.0 += passed.as_nanos() as u64;
        self.input(i, Input::Timeout(Timer::ViewChange));
        passed
    }

    /// Time passes to `until`, and every STATUS timer that is set before fires; nothing is delivered.
    pub fn wait_until(&mut self, until: Tick) {
        loop {
            let timers = self.status_timers.iter().enumerate();
            let next = timers.filter_map(|(i, at)| Some((at.as_ref().copied()?, i))).min();
            let Some((at, i)) = next.filter(|(at, _)| *at <= until) else { break };
            self.status_timers[i] = None;
            self.pass_to(at);
            self.input(i as u32, Input::Timeout(Timer::Status));
        }
        self.pass_to(until);
    }

    fn pass_to(&mut self, at: Tick) {
        self.now.wall.0 += at.since(self.now.tick).as_nanos() as u64;
        self.now.tick = self.now.tick.max(at);
    }

    /// Replica `i` loses its memory, and begins again under `incarnation`.
    pub fn forget(&mut self, i: u32, incarnation: u64) {
        let config = Config { me: ReplicaId(i), ..self.config };
        self.records[i as usize].clear();
        self.replicas[i as usize] =
            Replica::rejoin(config, self.authority(i), Counter, incarnation);
        let others = self.config.size.replicas().filter(|other| other.0 != i);
        for other in others.collect::<Vec<_>>() {
            self.input(i, Input::Connected { peer: Peer::Replica(other), entropy: [i as u8; 32] });
        }
    }

    /// Replica `i` loses patience, and so do two others.
    pub fn leave_view(&mut self, i: u32) {
        let view = self.replicas[i as usize].view().0;
        let others = self.config.size.replicas().filter(|other| other.0 != i);
        for other in others.skip(1).take(self.config.size.f() + 1).collect::<Vec<_>>() {
            self.give(Peer::Replica(other), i, Message::Suspect(Suspect { view }));
        }
    }

    /// The view of every replica, and whether it has begun there.
    pub fn views(&self) -> Vec<(u64, bool)> {
        let views = self.replicas.iter().map(|replica| replica.view());
        views.map(|(view, active)| (view.0, active)).collect()
    }

    /// Everyone's STATUS timer fires, and everything that follows arrives.
    pub fn repair(&mut self) {
        for _ in 0..4 {
            self.now.tick = Tick(self.now.tick.0 + 1_000_000);
            self.now.wall = Time(self.now.wall.0 + 1_000_000_000);
            for i in 0..self.replicas.len() as u32 {
                self.input(i, Input::Timeout(Timer::Status));
            }
            self.deliver_all();
        }
    }
}
