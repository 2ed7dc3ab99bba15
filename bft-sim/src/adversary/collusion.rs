//! What several faulty replicas do together.

use super::primary::{Difference, Equivocate};
use super::{Adversary, Context};
use bft_core::auth::checkpoint_signing_digest;
use bft_core::messages::{Checkpoint, Commit, Message, Prepare};
use bft_core::types::Peer;

/// As the primary it equivocates, and wherever it is it votes for whatever whoever asks believes. Up to f of them are outvoted; f+1
/// make two halves of a group commit different batches, which the correct ones can only find out and stop.
pub struct Collude {
    equivocate: Equivocate,
}

impl Default for Collude {
    fn default() -> Self {
        Self { equivocate: Equivocate::new(Difference::Requests) }
    }
}

impl Adversary for Collude {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match message {
            // It votes and signs only what its receiver has: see below. Of two votes the first one counts.
            Message::Prepare(_) | Message::Commit(_) | Message::Checkpoint(_) => {}
            other => self.equivocate.on_send(ctx, to, other),
        }
    }

    fn on_receive(&mut self, ctx: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        let Peer::Replica(me) = ctx.me else { return true };
        match message {
            Message::Prepare(Prepare { view, n, digest }) => {
                if ctx.group.size.primary(*view) != me {
                    ctx.send(from, message.clone());
                }
                ctx.send(from, Message::Commit(Commit { view: *view, n: *n, digest: *digest }));
            }
            Message::Checkpoint(m) if ctx.group.in_second_half(from) => {
                let covered = checkpoint_signing_digest(ctx.group.group, m.n, &m.digest, me);
                let signature = ctx.crypto.sign(&covered);
                ctx.broadcast(&Message::Checkpoint(Checkpoint { replica: me, signature, ..*m }));
            }
            _ => {}
        }
        true
    }
}
