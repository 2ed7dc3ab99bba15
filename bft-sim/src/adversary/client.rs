//! Faulty clients: B-50 to B-53, B-56, and their part in B-10 and B-14.

use super::{Adversary, Context};
use bfs_fs::op::{
    Caller, CreateMode, FsOp, FsRequest, Inode, Keep, ROOT, RenameMode, SetAttributes,
    encode_request,
};
use bft_core::auth::{Credential, KeyId, MacKey, Tag, request_signing_digest};
use bft_core::messages::{Message, Operation, Request, SessionId, SignedRequest};
use bft_core::types::{Peer, ReplicaId, Slot};
use bytes::Bytes;
use fastrand::Rng;
use std::collections::BTreeMap;

/// The keys that replicas gave this client: with them it authenticates whatever it likes.
#[derive(Default)]
pub(super) struct Keys(BTreeMap<ReplicaId, (KeyId, MacKey)>);

impl Keys {
    pub(super) fn note(&mut self, ctx: &Context<'_>, from: Peer, message: &Message) {
        if let (Peer::Replica(i), Message::NewKey(m)) = (from, message) {
            self.0.insert(i, (m.id, MacKey::for_requests(m.secret, ctx.group.group)));
        }
    }

    /// `request` with an authenticator that is good for the replicas that `good` names.
    pub(super) fn authenticate(
        &self,
        ctx: &Context<'_>,
        request: Request,
        good: impl Fn(ReplicaId) -> bool,
    ) -> SignedRequest {
        let digest = request.digest();
        let tags = ctx.group.size.replicas().map(|i| match self.0.get(&i) {
            Some((id, key)) if good(i) => (*id, ctx.crypto.mac(key, &digest)),
            Some((id, _)) => (*id, Tag::new([0xee; 16])),
            None => (KeyId(0), Tag::new([0; 16])),
        });
        let credential = Credential::Authenticator(tags.collect());
        SignedRequest { request, credential, replier: ReplicaId(0) }
    }
}

fn sign(ctx: &Context<'_>, request: Request) -> SignedRequest {
    let covered = request_signing_digest(ctx.group.group, &request.digest());
    let credential = Credential::Signature(ctx.crypto.sign(&covered));
    SignedRequest { request, credential, replier: ReplicaId(0) }
}

/// For whom a [`PartialMac`] authenticator is good.
#[derive(Clone, Copy)]
pub enum GoodFor {
    /// The primary of view 0 alone. [Aardvark's "big MAC" attack]
    Primary,
    /// Everyone but that primary: the reverse, which must depose nobody.
    Backups,
    /// The primary and f backups. (B-14)
    Weak,
}

/// B-10, B-14: authenticators that only some replicas can check, and no signature ever.
pub struct PartialMac {
    good: GoodFor,
    keys: Keys,
}

impl PartialMac {
    pub fn new(good: GoodFor) -> Self {
        Self { good, keys: Keys::default() }
    }
}

impl Adversary for PartialMac {
    fn on_receive(&mut self, ctx: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        self.keys.note(ctx, from, message);
        true
    }

    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let Message::Request(m) = message else { return ctx.send(to, message) };
        if m.request.operation == Operation::CreateSession {
            return ctx.send(to, Message::Request(m));
        }
        let (good, weak) = (self.good, ctx.group.size.weak());
        let fits = move |i: ReplicaId| match good {
            GoodFor::Primary => i.0 == 0,
            GoodFor::Backups => i.0 != 0,
            GoodFor::Weak => i.index() < weak,
        };
        let spoilt = self.keys.authenticate(ctx, m.request, fits);
        ctx.send(to, Message::Request(spoilt));
    }
}

/// B-50: one slot and seq, another operation for every replica, all of them signed.
pub struct ClientEquivocates;

impl Adversary for ClientEquivocates {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match (message, to) {
            (Message::Request(m), Peer::Replica(i)) if m.request.seq > 0 => {
                let name = format!("for-{i}").into_bytes();
                let op = FsOp::MakeDirectory { parent: ROOT, name, mode: 0o700 };
                let operation = Operation::Service(encode(op));
                let request = Request { operation, ..m.request };
                let signed = sign(ctx, request);
                ctx.send(to, Message::Request(signed));
            }
            (message, _) => ctx.send(to, message),
        }
    }
}

/// B-51: timestamps from nowhere, sessions out of order, slots that do not exist.
pub struct WildTimestamps;

impl Adversary for WildTimestamps {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if let Message::Request(m) = &message {
            let r = &m.request;
            let old = SessionId { epoch: r.session.epoch.saturating_sub(1), ..r.session };
            let open = |session| Request {
                operation: Operation::CreateSession,
                session,
                slot: Slot(0),
                seq: 0,
                ..r.clone()
            };
            let wild = [
                Request { seq: u64::MAX, ..r.clone() },
                Request { seq: r.seq.saturating_sub(1), ..r.clone() },
                Request { seq: r.seq.saturating_add(7), ..r.clone() },
                Request { slot: Slot(u16::MAX), ..r.clone() },
                Request { session: old, ..r.clone() },
                Request { operation: Operation::CreateSession, ..r.clone() },
                open(old),
                open(SessionId::REVOKED),
            ];
            for request in wild {
                let signed = sign(ctx, request);
                ctx.send(to, Message::Request(signed));
            }
        }
        ctx.send(to, message);
    }
}

/// B-52: as many requests as it can make, to everyone, and it never listens.
#[derive(Default)]
pub struct RequestFlood {
    keys: Keys,
    session: SessionId,
    seq: u64,
}

impl Adversary for RequestFlood {
    fn on_receive(&mut self, ctx: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        self.keys.note(ctx, from, message);
        matches!(message, Message::NewKey(_)) || self.seq < 3
    }

    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if let Message::Request(m) = &message {
            self.session = m.request.session;
            self.seq = self.seq.max(m.request.seq);
        }
        ctx.send(to, message);
    }

    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        let Peer::Client(client) = ctx.me else { return };
        if self.seq == 0 {
            return;
        }
        for slot in 0..16 {
            self.seq += 1;
            let op = FsOp::GetAttributes { inode: ROOT };
            let request = Request {
                client,
                session: self.session,
                slot: Slot(slot % 8),
                seq: self.seq / 8,
                operation: Operation::Service(encode(op)),
            };
            let signed = match slot % 2 {
                0 => self.keys.authenticate(ctx, request, |_| true),
                _ => sign(ctx, request),
            };
            ctx.broadcast(&Message::Request(signed));
        }
    }
}

/// B-53, B-56: operations at every limit, and such as no kernel would send.
pub struct HostileOperations {
    keys: Keys,
    draw: fn(&mut Rng) -> FsOp,
}

impl HostileOperations {
    /// B-53: at the limits of size, length and offset.
    pub fn extreme() -> Self {
        Self { keys: Keys::default(), draw: extreme }
    }

    /// B-56: valid and hostile.
    pub fn malicious() -> Self {
        Self { keys: Keys::default(), draw: malicious }
    }
}

impl Adversary for HostileOperations {
    fn on_receive(&mut self, ctx: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        self.keys.note(ctx, from, message);
        true
    }

    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match message {
            Message::Request(m) if m.request.seq > 0 => {
                // The same operation for every replica and every retransmission.
                let r = &m.request;
                let mut drawn = Rng::with_seed(r.seq ^ u64::from(r.slot.0) << 32 ^ r.session.nonce);
                let op = (self.draw)(&mut drawn);
                let operation = match drawn.u32(..8) {
                    0 => Operation::Service(Bytes::from(vec![drawn.u8(..); drawn.usize(..64)])),
                    _ => Operation::Service(encode(op)),
                };
                let request = Request { operation, ..m.request };
                let again = matches!(m.credential, Credential::Signature(_));
                let signed = match again {
                    true => sign(ctx, request),
                    false => self.keys.authenticate(ctx, request, |_| true),
                };
                ctx.send(to, Message::Request(signed));
            }
            other => ctx.send(to, other),
        }
    }
}

fn encode(op: FsOp) -> Bytes {
    let caller = Caller { uid: 0, gid: 0, groups: vec![4_000_000_000] };
    encode_request(&FsRequest { caller, op })
}

fn extreme(rng: &mut Rng) -> FsOp {
    let name = vec![b'x'; [255, 256, 4096][rng.usize(..3)]];
    let offset = [u64::MAX, 1 << 63, i64::MAX as u64, (1 << 40) + 1][rng.usize(..4)];
    match rng.u32(..6) {
        0 => FsOp::Create { parent: ROOT, name, mode: u16::MAX, how: CreateMode::Exclusive(1) },
        1 => FsOp::MakeDirectory { parent: ROOT, name, mode: 0 },
        2 => FsOp::Write { inode: ROOT, offset, data: vec![1; 60_000].into() },
        3 => FsOp::SetAttributes {
            inode: Inode(2),
            set: SetAttributes { size: Some(offset), ..Default::default() },
        },
        4 => FsOp::Read { inode: ROOT, offset, count: u32::MAX },
        _ => FsOp::ReadDirectory { inode: ROOT, cookie: offset, budget: u32::MAX },
    }
}

fn malicious(rng: &mut Rng) -> FsOp {
    let names: [&[u8]; 8] = [b"", b".", b"..", b"a/b", b"nul\0nul", b"a", b"b", b"\xff\xfe"];
    let mut name = || names[rng.usize(..names.len())].to_vec();
    let (first, second) = (name(), name());
    let guess = Inode(rng.u64(..20));
    let other = Inode(rng.u64(..20));
    match rng.u32(..7) {
        0 => FsOp::Rename {
            from: guess,
            name: first,
            to: other,
            new_name: second,
            how: RenameMode::Replace,
            keep: Keep::Whatever,
        },
        1 => FsOp::Link { inode: guess, parent: guess, name: first },
        2 => FsOp::MakeDirectory { parent: guess, name: first, mode: 0o777 },
        3 => FsOp::Symlink { parent: ROOT, name: first, target: b"../../../etc/shadow".to_vec() },
        4 => FsOp::Unlink { parent: guess, name: first, keep: Keep::Whatever },
        5 => FsOp::RemoveDirectory { parent: guess, name: first, keep: Keep::Whatever },
        _ => FsOp::Lookup { parent: guess, name: first },
    }
}
