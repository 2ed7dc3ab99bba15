//! Checkpoints, state transfer and replies: B-35 to B-39, B-47, B-48.

use super::{Adversary, Context};
use bft_core::auth::checkpoint_signing_digest;
use bft_core::messages::{
    Checkpoint, Fetch, Message, Outcome, Parts, ReadReply, ResultBody, result_digest,
};
use bft_core::tree::parts::{Address, Part};
use bft_core::types::{Digest, Domain, Peer, SequenceNumber};
use bytes::Bytes;

/// A CHECKPOINT that this replica really signs, whatever it says.
fn signed(ctx: &Context<'_>, n: SequenceNumber, digest: Digest) -> Option<Checkpoint> {
    let Peer::Replica(replica) = ctx.me else { return None };
    let covered = checkpoint_signing_digest(ctx.group.group, n, &digest, replica);
    Some(Checkpoint { n, digest, replica, signature: ctx.crypto.sign(&covered) })
}

/// B-35: signs states that nobody has, and a great many of them.
#[derive(Default)]
pub struct WrongCheckpoints {
    last: SequenceNumber,
}

impl Adversary for WrongCheckpoints {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if let Message::Checkpoint(m) = message {
            self.last = self.last.max(m.n);
            let wrong = Digest([u8::from(ctx.group.in_second_half(to)); 32]);
            if let Some(lie) = signed(ctx, m.n, wrong) {
                ctx.send(to, Message::Checkpoint(lie));
            }
        } else {
            ctx.send(to, message);
        }
    }

    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        for k in 1..20 {
            let n = self.last.plus(k * ctx.group.checkpoint_interval);
            if let Some(lie) = signed(ctx, n, Digest([k as u8; 32])) {
                ctx.broadcast(&Message::Checkpoint(lie));
            }
        }
    }
}

/// B-36: no CHECKPOINT ever, so that others cannot discard their logs.
pub struct NoCheckpoints;

impl Adversary for NoCheckpoints {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if !matches!(message, Message::Checkpoint(_) | Message::StableCertificate(_)) {
            ctx.send(to, message);
        }
    }
}

/// B-37: a donor whose parts are damaged, cut short, swapped, repeated, late or missing.
pub struct CorruptDonor;

impl Adversary for CorruptDonor {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let Message::Parts(mut m) = message else { return ctx.send(to, message) };
        match ctx.rng.u32(..7) {
            0 => return,
            1 => m.parts.iter_mut().for_each(|(_, part)| damage(part)),
            2 => m.parts.truncate(m.parts.len() / 2),
            3 => swap(&mut m.parts),
            4 => {
                for _ in 0..20 {
                    ctx.send(to, Message::Parts(m.clone()));
                }
            }
            5 => {
                let late = ctx.group.view_timeout;
                return ctx.send_after(late, to, Message::Parts(m));
            }
            _ => m.parts.iter_mut().for_each(|(_, part)| lead_in_circles(part)),
        }
        ctx.send(to, Message::Parts(m));
    }
}

fn damage(part: &mut Part) {
    match part {
        Part::Node { children, .. } => children.iter_mut().for_each(|d| d.0[0] ^= 1),
        Part::Leaf { object, .. } => {
            let mut bytes = object.to_vec();
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
            *object = bytes.into();
        }
    }
}

fn swap(parts: &mut [(Address, Part)]) {
    if let [first, .., last] = parts {
        std::mem::swap(&mut first.1, &mut last.1);
    }
}

/// A node that claims to be its own child.
fn lead_in_circles(part: &mut Part) {
    let digest = part.digest();
    if let Part::Node { children, .. } = part {
        children.iter_mut().for_each(|child| *child = digest);
    }
}

/// B-38: claims of states above any certificate, and an old state where a newer one was asked for.
#[derive(Default)]
pub struct StaleDonor {
    old: Option<Parts>,
}

impl Adversary for StaleDonor {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match message {
            Message::Parts(m) => {
                let old = self.old.get_or_insert_with(|| m.clone()).clone();
                ctx.send(to, Message::Parts(Parts { n: m.n, ..old }));
            }
            Message::Status(mut m) => {
                let ahead = ctx.group.checkpoint_interval * 1_000;
                m.stable = m.stable.plus(ahead);
                m.executed = m.executed.plus(ahead);
                if let Some(lie) = signed(ctx, m.stable, Digest([9; 32])) {
                    ctx.send(to, Message::Checkpoint(lie));
                }
                ctx.send(to, Message::Status(m));
            }
            other => ctx.send(to, other),
        }
    }
}

/// B-39: asks everyone for state, without end.
#[derive(Default)]
pub struct FetchFlood {
    last: SequenceNumber,
}

impl Adversary for FetchFlood {
    fn on_receive(&mut self, _: &mut Context<'_>, _: Peer, message: &Message) -> bool {
        if let Message::Checkpoint(m) = message {
            self.last = self.last.max(m.n);
        }
        true
    }

    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        for _ in 0..20 {
            let addresses = vec![Address::ROOT; Fetch::MAX_ADDRESSES];
            ctx.broadcast(&Message::Fetch(Fetch { n: self.last, addresses }));
        }
    }
}

/// B-47: answers to reads that are wrong, or were right once.
#[derive(Default)]
pub struct WrongReads {
    stale: Option<ResultBody>,
}

impl Adversary for WrongReads {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let Message::ReadReply(m) = message else { return ctx.send(to, message) };
        let m = match ctx.rng.u32(..4) {
            0 => ReadReply { result: self.stale.clone(), ..m },
            1 => ReadReply { version: m.version.next(), ..m },
            2 => ReadReply { result: None, ..m },
            _ => {
                self.stale.get_or_insert(ResultBody::Whole(Bytes::from_static(b"wrong")));
                ReadReply { result: m.result.map(|_| wrong_body()), ..m }
            }
        };
        ctx.send(to, Message::ReadReply(m));
    }
}

fn wrong_body() -> ResultBody {
    ResultBody::Whole(Bytes::from_static(b"no replica ever computed this"))
}

/// B-48: answers that are wrong, digests of nothing, and large results withheld by the one asked for them.
pub struct WrongReplies;

impl Adversary for WrongReplies {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let message = match message {
            Message::Reply(mut m) => {
                m.outcome = match (m.outcome, ctx.rng.u32(..4)) {
                    (Outcome::Result(_), 0) => Outcome::Result(wrong_body()),
                    (Outcome::Result(_), 1) => {
                        Outcome::Result(ResultBody::Digest(result_digest(b"nothing")))
                    }
                    (Outcome::Result(body), 2) => {
                        Outcome::Result(ResultBody::Digest(body.digest()))
                    }
                    (opened, 2) => {
                        let digest = Digest::of(Domain::Result, &opened);
                        Outcome::Result(ResultBody::Digest(digest))
                    }
                    (_, 3) => Outcome::SessionRefused { epoch: u64::MAX },
                    (outcome, _) => outcome,
                };
                m.n = if ctx.rng.u32(..4) == 0 { m.n.next() } else { m.n };
                Message::Reply(m)
            }
            Message::ReadReply(mut m) => {
                m.result = m.result.map(|body| ResultBody::Digest(body.digest()));
                Message::ReadReply(m)
            }
            other => other,
        };
        ctx.send(to, message);
        if let Peer::Client(_) = to
            && ctx.rng.u32(..50) == 0
        {
            let session = bft_core::messages::SessionId { epoch: 1, nonce: 0 };
            ctx.send(to, Message::SessionEnded(session));
        }
    }
}
