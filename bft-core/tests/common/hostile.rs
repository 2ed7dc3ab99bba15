//! What must hold whatever arrives: the bodies of the fuzz targets, which `tests/hostile.rs` runs on seeded inputs.

use crate::common::{Cluster, Named, SESSION};
use crate::forgery::{self, Batch};
use bft_core::auth::{Credential, KeyId, Signature, Tag};
use bft_core::choice::choose;
use bft_core::clients::ClientsOp;
use bft_core::codec;
use bft_core::io::{Destination, Input, Timer};
use bft_core::messages::*;
use bft_core::tree::parts::{Address, Assembly, Part};
use bft_core::tree::{ObjectId, Tree};
use bft_core::types::*;
use bytes::Bytes;
use std::cell::OnceCell;

/// The most messages that one step may make a group of four send, with a window of 8.
const MOST_SENT: usize = 256;

/// The input, read as choices. Once it is used up, every choice is the first.
pub struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn list<T>(&mut self, most: usize, mut each: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| each(self)).collect()
    }

    /// Mostly a number that means something, sometimes one at the edge.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX - u64::from(self.byte() % 4),
            254 => 1 << (self.byte() % 64),
            other => u64::from(other % 24),
        }
    }
}

/// A message has one encoding, and nothing else is one.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = codec::decode(bytes) {
        let mut again = Vec::new();
        codec::encode(&message, &mut again);
        assert_eq!(again, bytes, "two encodings of {}", message.name());
        let _ = message.to_string();
    }
}

/// Parts that a donor made up are refused: only what the trusted digest names is taken in.
pub fn parts(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let mut from = Tree::default();
    for value in 0..u64::from(choices.byte()) + 2 {
        let id = ObjectId::new(0x80 + (value % 3) as u8, value * 7919 % 1000, value);
        from.insert(id, value, SequenceNumber(value));
    }
    from.digest();
    let (own, mut assembly) = (Tree::<u64>::default(), Assembly::default());
    assembly.aim(from.root_digest().expect("it has objects"), &own);
    while !choices.0.is_empty() {
        let anywhere = choices.0.get(..17).and_then(|bytes| borsh::from_slice(bytes).ok());
        let wanted = assembly.wanted(4, |_| false);
        let address = match anywhere.filter(|_| choices.flag() || wanted.is_empty()) {
            Some(anywhere) => anywhere,
            None if wanted.is_empty() => Address::ROOT,
            None => choices.of(&wanted),
        };
        let genuine = from.part(address);
        let mut encoded = borsh::to_vec(&genuine).expect("memory");
        for _ in 0..choices.below(3) {
            let place = usize::from(u16::from_le_bytes([choices.byte(), choices.byte()]));
            let place = place % encoded.len();
            encoded[place] ^= choices.byte();
        }
        let Ok(Some(part)) = borsh::from_slice::<Option<Part>>(&encoded) else { continue };
        let (is_wanted, is_genuine) = (assembly.wants(address), genuine.as_ref() == Some(&part));
        let taken = assembly.supply(address, part, &own);
        assert_eq!(taken, is_wanted && is_genuine, "{address:?}");
        assert!(assembly.permille() <= 1000);
    }
    if assembly.is_whole() {
        let mut whole = assembly.finish().expect("it is whole");
        assert_eq!((whole.digest(), whole.len()), (from.digest(), from.len()));
    }
}

/// Hostile messages from everybody, and no replica panics. Or from one replica and the clients, and the others agree.
pub fn replica(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let everybody = choices.flag();
    let cluster = beginning(choices.below(BEGINNINGS));
    let hostile = if everybody { vec![0, 1, 2, 3] } else { vec![choices.below(4) as u32] };
    let mut group = Hostile::new(cluster, hostile);
    group.cluster.too_many_faulty = everybody;
    while !choices.0.is_empty() {
        group.step(&mut choices);
    }
    if !everybody {
        group.assert_agreement();
    }
}

const BEGINNINGS: usize = 3;

/// A group with a session only, one with a stable checkpoint, or one in which r1 has missed much and r3 is mute.
fn beginning(which: usize) -> Cluster {
    thread_local! {
        static ALL: [OnceCell<Cluster>; BEGINNINGS] = const { [const { OnceCell::new() }; BEGINNINGS] };
    }
    let make = || {
        let mut group = Cluster::new(4, 1);
        group.open_session();
        for seq in 1..=[0, 4, 16][which] {
            group.ask(0, Cluster::request(seq, b"\x01"));
            group.deliver(|_, to, _| which < 2 || to.0 != 1);
        }
        if which == 2 {
            group.forget(3, 7);
        }
        group
    };
    ALL.with(|all| all[which].get_or_init(make).clone())
}

/// A group some of whose members say what they like.
struct Hostile {
    cluster: Cluster,
    hostile: Vec<u32>,
    /// Digests that mean something somewhere.
    digests: Vec<Digest>,
    view_changes: Vec<ViewChange>,
    /// What has been sent before.
    old: Vec<Message>,
    /// Whom the next message is for.
    to: u32,
}

impl Hostile {
    fn new(cluster: Cluster, hostile: Vec<u32>) -> Self {
        let mut digests = vec![null_request(), Digest([1; 32])];
        let executed = (1..=20).map(SequenceNumber);
        digests.extend(executed.filter_map(|n| cluster.replicas[0].executed_at(n)));
        digests.push(cluster.replicas[0].health(0).digest);
        Self { cluster, hostile, digests, view_changes: Vec::new(), old: Vec::new(), to: 0 }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let (to, sent) = (choices.below(4) as u32, self.cluster.wire.len());
        self.to = to;
        match choices.below(16) {
            0 => self.fire(to, choices),
            1 => {
                let place = choices.below(self.cluster.wire.len());
                self.deliver(place);
            }
            6 | 7 => (0..choices.below(16)).for_each(|_| self.deliver(0)),
            2 => {
                let entropy = [choices.byte(); 32];
                let all = [Peer::Client(ClientId(0)), Peer::Replica(ReplicaId((to + 1) % 4))];
                let again = Input::Connected { peer: choices.of(&all), entropy };
                let refresh = Input::RefreshKeys { entropy };
                self.cluster.input(to, if choices.flag() { again } else { refresh });
            }
            3 | 4 if !self.old.is_empty() => {
                let message = choices.of(&self.old);
                self.tell(message, choices);
            }
            5 => self.change_view(choices),
            _ => {
                let message = self.message(choices);
                self.tell(message, choices);
            }
        }
        let sent = self.cluster.wire.len().saturating_sub(sent);
        assert!(sent <= MOST_SENT, "one step made them send {sent} messages");
        self.cluster.replies.truncate(64);
        self.cluster.rejections.clear();
        // What is not delivered is lost.
        let lost = self.cluster.wire.len().saturating_sub(512);
        self.cluster.wire.drain(..lost);
    }

    fn fire(&mut self, to: u32, choices: &mut Choices<'_>) {
        let ms = 4 * u64::from(choices.byte());
        self.cluster.now.tick = self.cluster.now.tick.after(std::time::Duration::from_millis(ms));
        self.cluster.now.wall.0 += ms * 1_000_000;
        let all = [Timer::ViewChange, Timer::Status, Timer::Transfer, Timer::Heartbeat];
        self.cluster.input(to, Input::Timeout(choices.of(&all)));
    }

    /// A message of the group itself arrives.
    fn deliver(&mut self, place: usize) {
        let Some((from, to, message)) = self.cluster.wire.remove(place) else { return };
        let is_to = |i: u32| match to {
            Destination::Replicas => i != from.0,
            Destination::Replica(other) => other.0 == i,
            Destination::Client(_) => false,
        };
        for i in (0..4).filter(|i| is_to(*i)) {
            self.cluster.give(Peer::Replica(from), i, message.clone());
        }
        self.old.push(message);
    }

    /// Mostly from whom it is believed.
    fn tell(&mut self, message: Message, choices: &mut Choices<'_>) {
        let primary = (self.view_of_target().0 % 4) as u32;
        let by_client =
            matches!(message, Message::Request(_) | Message::Read(_) | Message::HealthQuery(_));
        let by_primary = matches!(message, Message::PrePrepare(_) | Message::NewView(_));
        let from = match choices.byte() {
            byte if byte < 8 => Peer::Replica(ReplicaId(choices.of(&self.hostile))),
            byte if byte < 16 || by_client => Peer::Client(ClientId(choices.below(20) as u32 / 16)),
            _ if by_primary && self.hostile.contains(&primary) => Peer::Replica(ReplicaId(primary)),
            _ => Peer::Replica(ReplicaId(choices.of(&self.hostile))),
        };
        if from != Peer::Replica(ReplicaId(self.to)) {
            self.cluster.give(from, self.to, message);
        }
    }

    /// All that are hostile leave the target's view, and one of them leads the next where it can.
    fn change_view(&mut self, choices: &mut Choices<'_>) {
        let view = self.view_of_target().0.saturating_add(1);
        for i in self.hostile.clone() {
            if i == self.to {
                continue;
            }
            let m = self.view_change_of(i, view, choices);
            let from = Peer::Replica(ReplicaId(i));
            self.cluster.give(from, self.to, Message::ViewChange(m));
        }
        if choices.flag() {
            let m = self.new_view(choices);
            self.tell(Message::NewView(m), choices);
        }
    }

    fn view_of_target(&self) -> View {
        self.cluster.replicas[self.to as usize].view().0
    }

    /// Mostly the view in which the target is.
    fn view(&self, choices: &mut Choices<'_>) -> View {
        match choices.below(16) {
            0 => View(choices.number()),
            1 => View(self.view_of_target().0.saturating_add(1)),
            _ => self.view_of_target(),
        }
    }

    /// Mostly a place that the target has yet to fill.
    fn place(&self, choices: &mut Choices<'_>) -> SequenceNumber {
        let executed = self.cluster.replicas[self.to as usize].executed().0;
        match choices.below(16) {
            0 => SequenceNumber(choices.number()),
            other => SequenceNumber(executed + other as u64 % 4),
        }
    }

    /// Correct replicas executed the same.
    fn assert_agreement(&self) {
        for n in (1..=64).map(SequenceNumber) {
            let correct = (0..4).filter(|i| !self.hostile.contains(i));
            let replicas = correct.map(|i| &self.cluster.replicas[i as usize]);
            let executed: Vec<_> = replicas.filter_map(|r| r.executed_at(n)).collect();
            assert!(executed.windows(2).all(|pair| pair[0] == pair[1]), "at n={n}: {executed:?}");
        }
    }

    /// Mostly one of the newest.
    fn digest(&self, choices: &mut Choices<'_>) -> Digest {
        let newest = self.digests.len().saturating_sub(2);
        let first = if choices.below(4) > 0 { newest } else { 0 };
        choices.of(&self.digests[first..])
    }

    fn request(&mut self, choices: &mut Choices<'_>) -> SignedRequest {
        let (c, slot) = (choices.below(20) as u32 / 16, choices.below(20) as u16 / 16);
        let seq = match choices.below(8) {
            0 => choices.number(),
            // The session came before.
            other => self.cluster.replicas[self.to as usize].executed().0 + other as u64 % 2,
        };
        let good = choices.list(4, |choices| choices.below(4) as u32);
        let good = Some(&good[..]).filter(|_| choices.flag());
        let mut signed = forgery::request(c, slot, seq, choices.byte(), good);
        match choices.below(32) {
            0 => signed.request.operation = Operation::CreateSession,
            1 => signed.request.client = ClientId(u32::MAX - choices.below(6) as u32),
            2 => signed.request.slot = Slot(u16::MAX),
            3 => signed.request.session.epoch = choices.number(),
            4 => signed.request.operation = Operation::Service(Bytes::from(vec![7; 70_000])),
            5 => signed.credential = Credential::Signature(Signature([choices.byte(); 64])),
            6 => {
                let tags = choices.list(6, |c| (KeyId(u32::from(c.byte())), Tag::new([0; 16])));
                signed.credential = Credential::Authenticator(tags);
            }
            7 => {
                let client = ClientId(choices.below(6) as u32);
                signed.request.operation = Operation::Clients(match choices.below(3) {
                    0 => ClientsOp::Register(Named::identity(choices.byte())),
                    1 => ClientsOp::Revoke(client),
                    _ => ClientsOp::List(client),
                });
            }
            _ => {}
        }
        if matches!(signed.credential, Credential::Signature(_)) && choices.below(4) > 0 {
            let replier = signed.replier;
            signed = Cluster::signed_by(c, signed.request);
            signed.replier = replier;
        }
        self.digests.push(signed.request.digest());
        signed
    }

    fn batch(&mut self, choices: &mut Choices<'_>) -> Batch {
        let later = choices.number();
        let time = if later > 24 { later } else { self.cluster.now.wall.0 + later };
        let entries = choices.list(3, |choices| match choices.below(4) {
            0 => BatchEntry::Reference {
                digest: self.digest(choices),
                client: ClientId(choices.below(4) as u32),
                slot: Slot(choices.below(3) as u16),
            },
            _ => BatchEntry::Inline(self.request(choices)),
        });
        let batch = Batch { time: Time(time), entries };
        self.digests.push(batch.digest());
        batch
    }

    fn checkpoint(&self, choices: &mut Choices<'_>) -> Checkpoint {
        let n = 4 * choices.number().min(u64::MAX / 4);
        forgery::checkpoint(choices.of(&self.hostile), n, self.digest(choices))
    }

    /// CHECKPOINTs of all that are hostile, which are enough where everybody is.
    fn certificate(&self, choices: &mut Choices<'_>) -> Vec<Checkpoint> {
        let (n, digest) = (4 * choices.number().min(u64::MAX / 4), self.digest(choices));
        let mut all: Vec<_> =
            self.hostile.iter().map(|i| forgery::checkpoint(*i, n, digest)).collect();
        if choices.below(8) == 0 {
            all.push(self.checkpoint(choices));
        }
        all
    }

    fn claims(&self, view: u64, choices: &mut Choices<'_>) -> Vec<Claim> {
        let claim = |choices: &mut Choices<'_>| Claim {
            n: self.place(choices),
            digest: self.digest(choices),
            view: View(view.saturating_sub(1 + choices.below(3) as u64)),
        };
        let mut claims = choices.list(4, claim);
        claims.sort();
        claims.dedup_by_key(|claim| (claim.n, claim.digest));
        claims
    }

    fn view_change(&mut self, choices: &mut Choices<'_>) -> ViewChange {
        let (i, view) = (choices.of(&self.hostile), self.view(choices).0.saturating_add(1));
        self.view_change_of(i, view, choices)
    }

    fn view_change_of(&mut self, i: u32, view: u64, choices: &mut Choices<'_>) -> ViewChange {
        let mut prepared = self.claims(view, choices);
        prepared.dedup_by_key(|claim| claim.n);
        let mut m = forgery::view_change(i, view, prepared, self.claims(view, choices));
        if choices.below(8) == 0 {
            m.certificate = self.certificate(choices);
            m.stable = m.certificate.first().map_or(SequenceNumber(8), |first| first.n);
        }
        if choices.below(4) == 0 {
            m.unauthenticated = choices.list(17, |choices| ClientId(choices.below(4) as u32));
            m.incarnation = choices.number() % 3;
        }
        forgery::sign_view_change(&mut m);
        self.view_changes.push(m.clone());
        m
    }

    fn new_view(&mut self, choices: &mut Choices<'_>) -> NewView {
        let view = self.view_changes.last().map_or(View(1), |m| m.view);
        let mut grounds: Vec<ViewChange> =
            self.view_changes.iter().rev().filter(|m| m.view == view).cloned().collect();
        grounds.sort_by_key(|m| m.replica);
        grounds.dedup_by_key(|m| m.replica);
        let named: Vec<&ViewChange> = grounds.iter().collect();
        let right = choose(self.cluster.config.size, 8, &named);
        let (stable, batches) = match right.filter(|_| choices.below(4) > 0) {
            Some(choice) => (choice.stable.0, choice.batches),
            None => (choices.number(), choices.list(4, |choices| self.digest(choices))),
        };
        let primary = (view.0 % 4) as u32;
        let signer = if self.hostile.contains(&primary) { primary } else { self.hostile[0] };
        forgery::new_view(signer, view.0, stable, &grounds, batches)
    }

    fn status(&self, choices: &mut Choices<'_>) -> Status {
        let all = [Held::Nothing, Held::PrePrepared, Held::Prepared, Held::Committed];
        Status {
            view: self.view(choices),
            begun: choices.flag().then(|| self.digest(choices)),
            view_changes: choices.list(4, |choices| ReplicaId(choices.below(6) as u32)),
            missing_view_changes: choices.list(4, |choices| self.digest(choices)),
            missing_batches: choices.list(4, |choices| self.digest(choices)),
            stable: SequenceNumber(choices.number()),
            executed: SequenceNumber(choices.number()),
            held: choices.list(9, |choices| choices.of(&all)),
            missing: choices.list(4, |choices| self.digest(choices)),
        }
    }

    /// Any message that a link may bring, whoever may send it.
    fn message(&mut self, choices: &mut Choices<'_>) -> Message {
        let (view, n) = (self.view(choices), self.place(choices));
        match choices.below(20) {
            0 => Message::Request(self.request(choices)),
            1 | 2 => {
                let Batch { time, entries: batch } = self.batch(choices);
                Message::PrePrepare(PrePrepare { view, n, time, batch })
            }
            3 | 4 => Message::Prepare(Prepare { view, n, digest: self.digest(choices) }),
            5 | 6 => Message::Commit(Commit { view, n, digest: self.digest(choices) }),
            7 => {
                let Batch { time, entries: batch } = self.batch(choices);
                Message::Committed(Committed { n, time, batch })
            }
            8 => Message::Checkpoint(self.checkpoint(choices)),
            9 => Message::StableCertificate(self.certificate(choices)),
            10 => Message::Suspect(Suspect { view }),
            11 | 12 => Message::ViewChange(self.view_change(choices)),
            13 => Message::NewView(self.new_view(choices)),
            14 => Message::Status(self.status(choices)),
            15 => {
                let Batch { time, entries: batch } = self.batch(choices);
                Message::Batch(BatchBody { time, batch })
            }
            16 => {
                let (digest, claim) = (self.digest(choices), choices.flag());
                Message::FetchBatch(FetchBatch { n, digest, claim })
            }
            17 => self.transfer(choices),
            18 => self.read(choices),
            _ => {
                let clients = choices.list(17, |choices| ClientId(choices.below(6) as u32));
                Message::Unauthenticated(Unauthenticated { clients })
            }
        }
    }

    fn transfer(&self, choices: &mut Choices<'_>) -> Message {
        let n = SequenceNumber(4 * choices.number().min(24));
        let address = |choices: &mut Choices<'_>| {
            let bytes: Vec<u8> = (0..17).map(|_| choices.byte()).collect();
            if choices.flag() {
                Address::ROOT
            } else {
                borsh::from_slice(&bytes).expect("17 bytes")
            }
        };
        if choices.flag() {
            return Message::Fetch(Fetch { n, addresses: choices.list(65, address) });
        }
        let part = |choices: &mut Choices<'_>| {
            let (prefix, level) = (u128::from(choices.byte()), choices.byte());
            let children = choices.list(17, |choices| self.digest(choices));
            let occupied = u16::from_le_bytes([choices.byte(), choices.byte()]);
            (address(choices), Part::Node { prefix, level, occupied, children })
        };
        Message::Parts(Parts { n, parts: choices.list(3, part) })
    }

    /// What clients and operators say, and what only replicas say to clients.
    fn read(&self, choices: &mut Choices<'_>) -> Message {
        let session = SessionId { epoch: choices.number(), ..SESSION };
        let (attempt, replier) = (choices.number(), ReplicaId(choices.below(6) as u32));
        match choices.below(4) {
            0 => Message::Read(Read { session: SESSION, attempt, replier, op: Bytes::from("get") }),
            1 => Message::Read(Read { session, attempt, replier, op: Bytes::from("set") }),
            2 => Message::SessionEnded(session),
            _ => Message::HealthQuery(attempt),
        }
    }
}
