//! A faulty backup: B-15 to B-18.

use super::{Adversary, Context};
use bft_core::messages::{Checkpoint, Commit, Message, Prepare};
use bft_core::types::{Digest, Peer, ReplicaId, SequenceNumber, View};

use super::primary::digest_of;

/// B-15: two votes in each phase, in another order for each half of the group.
pub struct DoubleVote;

impl Adversary for DoubleVote {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let other = match &message {
            Message::Prepare(m) => Message::Prepare(Prepare { digest: Digest([1; 32]), ..*m }),
            Message::Commit(m) => Message::Commit(Commit { digest: Digest([1; 32]), ..*m }),
            _ => return ctx.send(to, message),
        };
        let (first, second) =
            if ctx.group.in_second_half(to) { (other, message) } else { (message, other) };
        ctx.send(to, first);
        ctx.send(to, second);
    }
}

/// B-16: votes that its own log does not justify: COMMIT at once, PREPARE as the primary, CHECKPOINT in another's name.
pub struct VoteUnprepared;

impl Adversary for VoteUnprepared {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match &message {
            Message::PrePrepare(m) => {
                let digest = digest_of(m);
                ctx.send(to, Message::Prepare(Prepare { view: m.view, n: m.n, digest }));
                ctx.send(to, Message::Commit(Commit { view: m.view, n: m.n, digest }));
            }
            Message::Checkpoint(m) => {
                let replica = ReplicaId((m.replica.0 + 1) % ctx.group.size.n() as u32);
                ctx.send(to, Message::Checkpoint(Checkpoint { replica, ..*m }));
            }
            _ => {}
        }
        ctx.send(to, message);
    }

    fn on_receive(&mut self, ctx: &mut Context<'_>, _: Peer, message: &Message) -> bool {
        if let Message::PrePrepare(m) = message {
            let commit = Commit { view: m.view, n: m.n, digest: digest_of(m) };
            ctx.broadcast(&Message::Commit(commit));
        }
        true
    }
}

/// B-18: with every vote, others for views and sequence numbers of the past and the far future.
pub struct StrayVotes;

impl Adversary for StrayVotes {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if let Message::Prepare(Prepare { view, n, digest })
        | Message::Commit(Commit { view, n, digest }) = &message
        {
            let (digest, far) = (*digest, 1_000_000);
            let places = [
                (view.next(), *n),
                (View(view.0.saturating_add(far)), *n),
                (View(u64::MAX), SequenceNumber(u64::MAX)),
                (*view, n.plus(far)),
                (*view, SequenceNumber(n.0.saturating_sub(ctx.group.window))),
                (View(view.0.saturating_sub(1)), *n),
                (*view, SequenceNumber(0)),
            ];
            for (view, n) in places {
                ctx.send(to, Message::Prepare(Prepare { view, n, digest }));
                ctx.send(to, Message::Commit(Commit { view, n, digest }));
            }
        }
        ctx.send(to, message);
    }
}
