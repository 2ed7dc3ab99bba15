//! A faulty primary: B-01 to B-14.

use super::{Adversary, Context};
use bft_core::auth::{Credential, KeyId, Tag};
use bft_core::messages::{
    BatchEntry, Commit, Message, Operation, PrePrepare, Request, SignedRequest, batch_digest,
};
use bft_core::types::{ClientId, Digest, Peer, SequenceNumber, Slot, Time, View};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// The digest that a receiver computes for a PRE-PREPARE.
pub fn digest_of(m: &PrePrepare) -> Digest {
    batch_digest(m.time, m.batch.iter().map(entry_digest))
}

fn entry_digest(entry: &BatchEntry) -> Digest {
    match entry {
        BatchEntry::Inline(request) => request.request.digest(),
        BatchEntry::Reference { digest, .. } => *digest,
    }
}

/// In what the two halves' batches differ.
#[derive(Clone, Copy)]
pub enum Difference {
    /// Half of the requests are missing.
    Requests,
    /// The order of the requests.
    Order,
    /// The agreed time.
    Time,
}

/// B-01, B-02: one batch for half of the group and another for the rest, and votes that fit each.
pub struct Equivocate {
    how: Difference,
    /// What the second half was told instead.
    told: BTreeMap<(View, SequenceNumber), Digest>,
}

impl Equivocate {
    pub fn new(how: Difference) -> Self {
        Self { how, told: BTreeMap::new() }
    }

    fn other(&self, m: &PrePrepare) -> PrePrepare {
        let mut other = m.clone();
        match self.how {
            Difference::Requests => other.batch.truncate(m.batch.len() / 2),
            Difference::Order if m.batch.len() > 1 => other.batch.reverse(),
            Difference::Order | Difference::Time => other.time = Time(m.time.0.saturating_add(1)),
        }
        other
    }
}

impl Adversary for Equivocate {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if !ctx.group.in_second_half(to) {
            return ctx.send(to, message);
        }
        let message = match message {
            Message::PrePrepare(m) => {
                let other = self.other(&m);
                self.told.insert((m.view, m.n), digest_of(&other));
                while self.told.len() > 1024 {
                    self.told.pop_first();
                }
                Message::PrePrepare(other)
            }
            Message::Commit(m) => {
                let digest = self.told.get(&(m.view, m.n)).copied().unwrap_or(m.digest);
                Message::Commit(Commit { digest, ..m })
            }
            other => other,
        };
        ctx.send(to, message);
    }

    fn on_receive(&mut self, ctx: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        // Whoever was told the other batch hears its primary commit that one.
        if let Message::Prepare(m) = message
            && self.told.get(&(m.view, m.n)) == Some(&m.digest)
        {
            ctx.send(from, Message::Commit(Commit { view: m.view, n: m.n, digest: m.digest }));
        }
        true
    }
}

/// B-03: the batch names its requests, and nobody is given them.
pub struct WithholdBodies;

impl Adversary for WithholdBodies {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match message {
            Message::PrePrepare(mut m) => {
                for entry in &mut m.batch {
                    if let BatchEntry::Inline(signed) = entry {
                        let Request { client, slot, .. } = signed.request;
                        let digest = signed.request.digest();
                        *entry = BatchEntry::Reference { digest, client, slot };
                    }
                }
                ctx.send(to, Message::PrePrepare(m));
            }
            Message::Request(_) | Message::Batch(_) => {}
            other => ctx.send(to, other),
        }
    }
}

/// B-04: names that fit no body, and votes for digests that nobody proposed.
pub struct WrongDigest;

impl Adversary for WrongDigest {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let wrong = Digest([ctx.rng.u8(..); 32]);
        let message = match message {
            Message::PrePrepare(mut m) => {
                if let Some(entry) = m.batch.last_mut()
                    && let BatchEntry::Inline(signed) = &*entry
                {
                    let Request { client, slot, .. } = signed.request;
                    *entry = BatchEntry::Reference { digest: wrong, client, slot };
                }
                Message::PrePrepare(m)
            }
            Message::Prepare(mut m) => {
                m.digest = wrong;
                Message::Prepare(m)
            }
            Message::Commit(mut m) => {
                m.digest = wrong;
                Message::Commit(m)
            }
            other => other,
        };
        ctx.send(to, message);
    }
}

/// Says of every request that it names by digest that it is the administrator's, and gives its copies of batches only so: the
/// digest of a batch binds neither client nor slot.
pub struct Misattribute;

impl Misattribute {
    fn reference(place: usize, digest: Digest) -> BatchEntry {
        BatchEntry::Reference { digest, client: ClientId::ADMINISTRATOR, slot: Slot(place as u16) }
    }

    /// All of `batch` by name.
    fn strip(batch: &mut [BatchEntry]) {
        for (place, entry) in batch.iter_mut().enumerate() {
            *entry = Self::reference(place, entry_digest(entry));
        }
    }
}

impl Adversary for Misattribute {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, mut message: Message) {
        match &mut message {
            Message::PrePrepare(m) => {
                for (place, entry) in m.batch.iter_mut().enumerate() {
                    if let BatchEntry::Reference { digest, .. } = *entry {
                        *entry = Self::reference(place, digest);
                    }
                }
            }
            Message::Committed(m) => Self::strip(&mut m.batch),
            Message::Batch(m) => Self::strip(&mut m.batch),
            _ => {}
        }
        ctx.send(to, message);
    }
}

/// B-05: sequence numbers outside the window, at its very end, and with gaps.
pub struct ExhaustSequence;

impl Adversary for ExhaustSequence {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let Message::PrePrepare(m) = message else { return ctx.send(to, message) };
        let window = ctx.group.window;
        let places =
            [m.n.0.saturating_add(window), m.n.0.saturating_add(window * 1000), u64::MAX, 0];
        for n in places {
            ctx.send(to, Message::PrePrepare(PrePrepare { n: SequenceNumber(n), ..m.clone() }));
        }
        if m.n.0 % 3 == 0 {
            // The gap; what comes after it can never execute in this view.
            let last = SequenceNumber(m.n.0.saturating_add(window / 2));
            ctx.send(to, Message::PrePrepare(PrePrepare { n: last, ..m }));
        } else {
            ctx.send(to, Message::PrePrepare(m));
        }
    }
}

/// B-06: a second batch for a sequence number that has one.
pub struct ProposeTwice;

impl Adversary for ProposeTwice {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if let Message::PrePrepare(m) = &message {
            let again = PrePrepare {
                time: Time(m.time.0.saturating_add(1)),
                batch: Vec::new(),
                ..m.clone()
            };
            let delay = Duration::from_micros(ctx.rng.u64(..500));
            ctx.send_after(delay, to, Message::PrePrepare(again));
        }
        ctx.send(to, message);
    }
}

/// B-07: every batch comes just before the backups lose patience.
pub struct Dawdle;

impl Adversary for Dawdle {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let delay = match &message {
            Message::PrePrepare(_) => ctx.group.view_timeout * 8 / 10,
            _ => Duration::ZERO,
        };
        ctx.send_after(delay, to, message);
    }
}

/// B-08: one client does not exist for this primary, whoever relays its requests.
pub struct StarveClient(pub ClientId);

impl Adversary for StarveClient {
    fn on_receive(&mut self, _: &mut Context<'_>, _: Peer, message: &Message) -> bool {
        !matches!(message, Message::Request(m) if m.request.client == self.0)
    }
}

/// B-09: f correct replicas are told nothing, and clients are not answered. [Berger, Reiser, Bessani, SRDS'21]
pub struct StarveReplicas;

impl Adversary for StarveReplicas {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let starved = ctx.group.victims().contains(&to);
        let answer = matches!(to, Peer::Client(_)) && !matches!(message, Message::NewKey(_));
        if !starved && !answer {
            ctx.send(to, message);
        }
    }
}

/// B-10: requests that no client made.
pub struct ForgeRequests;

impl Adversary for ForgeRequests {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let Message::PrePrepare(mut m) = message else { return ctx.send(to, message) };
        let model = m.batch.iter().find_map(|entry| match entry {
            BatchEntry::Inline(signed) => Some(signed.clone()),
            BatchEntry::Reference { .. } => None,
        });
        if let Some(SignedRequest { request, replier, .. }) = model {
            let tags = vec![(KeyId(1), Tag::new([7; 16])); ctx.group.size.n()];
            let forged = Request {
                slot: Slot(request.slot.0.wrapping_add(1)),
                operation: Operation::Service(Bytes::from_static(b"forged")),
                ..request
            };
            let credential = Credential::Authenticator(tags);
            let signed = SignedRequest { request: forged, credential, replier };
            m.batch.push(BatchEntry::Inline(signed));
        }
        ctx.send(to, Message::PrePrepare(m));
    }
}

/// B-11: requests that have executed are ordered again.
#[derive(Default)]
pub struct OrderAgain {
    earlier: Vec<BatchEntry>,
}

impl Adversary for OrderAgain {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let Message::PrePrepare(mut m) = message else { return ctx.send(to, message) };
        // Every backup is sent the same, so that the batch can prepare.
        let key = m.n.0 as usize;
        if let Some(old) = self.earlier.get(key % self.earlier.len().max(1)).cloned() {
            m.batch.push(old);
        }
        if self.earlier.len() < 64 && ctx.group.replicas().last() == Some(to) {
            self.earlier.extend(m.batch.first().cloned());
        }
        ctx.send(to, Message::PrePrepare(m));
    }
}

/// B-12: the agreed time is an hour ahead, an hour behind, or always the same.
pub struct WrongTime;

impl Adversary for WrongTime {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let Message::PrePrepare(mut m) = message else { return ctx.send(to, message) };
        const HOUR: u64 = 3_600_000_000_000;
        m.time = match m.n.0 / 4 % 4 {
            0 => Time(m.time.0.saturating_add(HOUR)),
            1 => Time(m.time.0.saturating_sub(HOUR)),
            2 => Time(1),
            _ => Time(u64::MAX),
        };
        ctx.send(to, Message::PrePrepare(m));
    }
}

/// B-13: batches beyond every limit, and a stream of empty ones.
#[derive(Default)]
pub struct BatchSpam {
    last: Option<PrePrepare>,
}

impl Adversary for BatchSpam {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if let Message::PrePrepare(m) = &message {
            self.last = Some(m.clone());
        }
        ctx.send(to, message);
    }

    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        let Some(last) = &self.last else { return };
        let entry = |k: u16| BatchEntry::Reference {
            digest: Digest([k as u8; 32]),
            client: ClientId(0),
            slot: Slot(k),
        };
        let huge = PrePrepare { batch: (0..5_000).map(entry).collect(), ..last.clone() };
        let empty = |k: u64| PrePrepare {
            n: last.n.plus(k),
            time: ctx.wall,
            batch: Vec::new(),
            view: last.view,
        };
        let spam: Vec<_> = (1..16).map(empty).chain([huge]).collect();
        for m in spam {
            ctx.broadcast(&Message::PrePrepare(m));
        }
    }
}

/// B-19: the requests in a batch are authentic for some backups only.
pub struct SpoilTags;

impl Adversary for SpoilTags {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, mut message: Message) {
        if ctx.group.in_second_half(to) {
            let spoil = |signed: &mut SignedRequest| {
                if let Credential::Authenticator(tags) = &mut signed.credential {
                    tags.iter_mut().for_each(|(_, tag)| *tag = Tag::new([0; 16]));
                }
            };
            match &mut message {
                Message::PrePrepare(m) => m.batch.iter_mut().for_each(|entry| {
                    if let BatchEntry::Inline(signed) = entry {
                        spoil(signed);
                    }
                }),
                Message::Request(signed) => spoil(signed),
                _ => {}
            }
        }
        ctx.send(to, message);
    }
}

/// B-49: everything prepares, nothing commits for the others, and clients are told that it has.
pub struct PrepareOnly;

impl Adversary for PrepareOnly {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match message {
            Message::Commit(_) | Message::Committed(_) => {}
            Message::Reply(mut m) => {
                m.tentative = !m.tentative;
                ctx.send(to, Message::Reply(m));
            }
            // Every other window of time it is not heard at all, so that what was tentative is undone.
            Message::PrePrepare(m) if ctx.now.0 / 200_000 % 2 == 1 && m.n.0 % 2 == 1 => {}
            other => ctx.send(to, other),
        }
    }
}

/// B-02 without any COMMIT: half of the group executes tentatively what can never commit with this primary's help.
pub struct LeaveTentative;

impl Adversary for LeaveTentative {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match message {
            Message::Commit(_) | Message::Committed(_) => {}
            Message::PrePrepare(m) if ctx.group.in_second_half(to) => {
                let time = Time(m.time.0 + 1);
                ctx.send(to, Message::PrePrepare(PrePrepare { time, ..m }));
            }
            other => ctx.send(to, other),
        }
    }
}
