//! What fits any role: silence, replay, floods, mutation (B-17, B-20, B-21, B-22, B-30), and how behaviours are put together.

use super::{Adversary, Context, Envelope};
use bft_core::messages::{Message, Prepare, Status};
use bft_core::types::{Digest, Peer, SequenceNumber, View};
use std::collections::{BTreeMap, VecDeque};

/// B-17: some kinds of messages to some peers are never sent.
#[derive(Default)]
pub struct SelectiveSilence {
    silent: BTreeMap<(Peer, &'static str), bool>,
}

impl Adversary for SelectiveSilence {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let drawn = ctx.rng.u32(..3) == 0;
        if !*self.silent.entry((to, message.name())).or_insert(drawn) {
            ctx.send(to, message);
        }
    }
}

/// A replica that is there and does nothing: what a crash looks like to the others.
pub struct Mute;

impl Adversary for Mute {
    fn on_send(&mut self, _: &mut Context<'_>, _: Peer, _: Message) {}
}

/// B-20, B-30: everything it has sent, or seen too, comes again to anyone at any time.
pub struct Replay {
    /// Whether others' messages are replayed too.
    others: bool,
    seen: VecDeque<Message>,
}

impl Replay {
    pub fn new(others: bool) -> Self {
        Self { others, seen: VecDeque::new() }
    }

    /// One that has seen `messages` already.
    pub fn of(messages: impl IntoIterator<Item = Message>) -> Self {
        Self { others: true, seen: messages.into_iter().take(512).collect() }
    }

    fn record(&mut self, ctx: &mut Context<'_>, message: &Message) {
        if self.seen.len() >= 512 {
            // Old ones are the interesting ones: forget any, not the oldest.
            self.seen.swap_remove_back(ctx.rng.usize(..512));
        }
        self.seen.push_back(message.clone());
    }
}

impl Adversary for Replay {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        self.record(ctx, &message);
        ctx.send(to, message);
    }

    fn on_receive(&mut self, ctx: &mut Context<'_>, _: Peer, message: &Message) -> bool {
        if self.others {
            self.record(ctx, message);
        }
        true
    }

    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        for _ in 0..self.seen.len().min(10) {
            let message = self.seen[ctx.rng.usize(..self.seen.len())].clone();
            let to = ctx.any_other();
            ctx.send(to, message);
        }
    }
}

/// B-21: one victim is sent as much as the link takes.
#[derive(Default)]
pub struct FloodVictim {
    last: Option<Status>,
}

impl Adversary for FloodVictim {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if let Message::Status(m) = &message {
            self.last = Some(m.clone());
        }
        ctx.send(to, message);
    }

    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        let Some(victim) = ctx.group.victims().first().copied() else { return };
        for k in 0..200 {
            let message = match &self.last {
                Some(status) if k % 4 == 0 => Message::Status(status.clone()),
                _ => Message::Prepare(Prepare {
                    view: View(0),
                    n: SequenceNumber(k),
                    digest: Digest([k as u8; 32]),
                }),
            };
            ctx.send(victim, message);
        }
    }
}

/// B-22: one field of one message in ten is off by one, or is that of an earlier message. [ByzzFuzz]
#[derive(Default)]
pub struct Mutate {
    earlier: BTreeMap<&'static str, Message>,
}

impl Mutate {
    /// Changes one field of `message`. What a signature covers is signed again by [`super::view_change::sign_again`].
    fn mutate(&mut self, ctx: &mut Context<'_>, message: &mut Message) {
        let by = if ctx.rng.bool() { 1 } else { u64::MAX };
        let nudge = |x: &mut u64| *x = x.wrapping_add(by);
        let digest = |d: &mut Digest, with: u8| d.0[0] ^= with;
        let which = ctx.rng.u32(..3);
        match message {
            Message::PrePrepare(m) => match which {
                0 => nudge(&mut m.view.0),
                1 => nudge(&mut m.n.0),
                _ => nudge(&mut m.time.0),
            },
            Message::Prepare(m) => match which {
                0 => nudge(&mut m.view.0),
                1 => nudge(&mut m.n.0),
                _ => digest(&mut m.digest, 1),
            },
            Message::Commit(m) => match which {
                0 => nudge(&mut m.view.0),
                1 => nudge(&mut m.n.0),
                _ => digest(&mut m.digest, 1),
            },
            Message::Committed(m) => match which {
                0 => nudge(&mut m.time.0),
                1 => nudge(&mut m.n.0),
                _ => drop(m.batch.pop()),
            },
            Message::Checkpoint(m) => match which {
                0 => nudge(&mut m.n.0),
                _ => digest(&mut m.digest, 1),
            },
            Message::StableCertificate(all) => match which {
                0 => all.iter_mut().for_each(|m| nudge(&mut m.n.0)),
                1 => drop(all.pop()),
                _ => all.iter_mut().for_each(|m| m.replica.0 = 0),
            },
            Message::Status(m) => match which {
                0 => nudge(&mut m.view.0),
                1 => nudge(&mut m.executed.0),
                _ => nudge(&mut m.stable.0),
            },
            Message::Reply(m) => match which {
                0 => nudge(&mut m.n.0),
                1 => nudge(&mut m.seq),
                _ => m.tentative = !m.tentative,
            },
            Message::ReadReply(m) => nudge(&mut m.version.0),
            Message::Fetch(m) => nudge(&mut m.n.0),
            Message::Parts(m) => nudge(&mut m.n.0),
            Message::ViewChange(m) => match which {
                0 => nudge(&mut m.view.0),
                1 => m.prepared.iter_mut().for_each(|claim| nudge(&mut claim.view.0)),
                _ => m.pre_prepared.iter_mut().for_each(|claim| digest(&mut claim.digest, 1)),
            },
            Message::NewView(m) => match which {
                0 => nudge(&mut m.view.0),
                1 => nudge(&mut m.stable.0),
                _ => m.batches.iter_mut().take(1).for_each(|d| digest(d, 1)),
            },
            Message::Request(m) => nudge(&mut m.request.seq),
            _ => {}
        }
        super::view_change::sign_again(ctx, message);
    }
}

impl Adversary for Mutate {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, mut message: Message) {
        let kind = message.name();
        match ctx.rng.u32(..20) {
            0 => self.mutate(ctx, &mut message),
            1 => {
                let earlier = self.earlier.insert(kind, message.clone());
                message = earlier.unwrap_or(message);
            }
            _ => {}
        }
        ctx.send(to, message);
    }
}

/// An attack that comes and goes, so that it meets a group in every state.
pub struct Intermittent {
    inner: Box<dyn Adversary>,
    /// How long it lasts and how long it rests. Units: microseconds.
    period: u64,
}

impl Intermittent {
    /// `inner`, on and off for `period` microseconds each.
    pub fn new(inner: Box<dyn Adversary>, period: u64) -> Self {
        Self { inner, period: period.max(1) }
    }

    fn rests(&self, ctx: &Context<'_>) -> bool {
        ctx.now.0 / self.period % 2 == 1
    }
}

impl Adversary for Intermittent {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if self.rests(ctx) { ctx.send(to, message) } else { self.inner.on_send(ctx, to, message) }
    }

    fn on_receive(&mut self, ctx: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        self.inner.on_receive(ctx, from, message) || self.rests(ctx)
    }

    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        if !self.rests(ctx) {
            self.inner.on_tick(ctx);
        }
    }
}

/// Two attacks at once: what the first puts on the wire goes through the second.
pub struct Both(pub Box<dyn Adversary>, pub Box<dyn Adversary>);

impl Both {
    fn pass(
        &mut self,
        ctx: &mut Context<'_>,
        first: impl FnOnce(&mut dyn Adversary, &mut Context<'_>),
    ) {
        let before = ctx.wire.len();
        first(&mut *self.0, ctx);
        for Envelope { delay, to, message } in ctx.wire.split_off(before) {
            let start = ctx.wire.len();
            self.1.on_send(ctx, to, message);
            ctx.wire.iter_mut().skip(start).for_each(|sent| sent.delay += delay);
        }
    }
}

impl Adversary for Both {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        self.pass(ctx, |first, ctx| first.on_send(ctx, to, message));
    }

    fn on_receive(&mut self, ctx: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        let first = self.0.on_receive(ctx, from, message);
        self.1.on_receive(ctx, from, message) && first
    }

    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        self.pass(ctx, |first, ctx| first.on_tick(ctx));
        self.1.on_tick(ctx);
    }
}
