//! Clients that are not who they say, or whom only one replica believes.

use super::client::Keys;
use super::{Adversary, Context};
use bft_core::messages::{Message, Operation, SignedRequest};
use bft_core::types::{ClientId, Peer, Slot};
use bytes::Bytes;

/// Begins sessions in another client's name over its own link, which would end that client's.
#[derive(Default)]
pub struct Impostor {
    keys: Keys,
    model: Option<SignedRequest>,
    tries: u64,
}

impl Adversary for Impostor {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if let Message::Request(m) = &message {
            self.model = Some(m.clone());
        }
        ctx.send(to, message);
    }

    fn on_receive(&mut self, ctx: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        self.keys.note(ctx, from, message);
        true
    }

    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        let (Some(model), Peer::Client(me)) = (&self.model, ctx.me) else { return };
        self.tries += 1;
        let mut request = model.request.clone();
        request.client = ClientId((me.0 + 1) % ctx.group.clients);
        request.session.epoch += self.tries;
        (request.slot, request.seq) = (Slot(0), 0);
        request.operation = Operation::CreateSession;
        let forged = self.keys.authenticate(ctx, request, |_| true);
        ctx.broadcast(&Message::Request(forged));
    }
}

/// Gives every replica another request for one slot and seq, authentic by its own link alone: whoever is the primary orders
/// what no backup can check.
#[derive(Default)]
pub struct Poisoner {
    keys: Keys,
}

impl Adversary for Poisoner {
    fn on_receive(&mut self, ctx: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        self.keys.note(ctx, from, message);
        true
    }

    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match (message, to) {
            (Message::Request(m), Peer::Replica(i)) if m.request.seq > 0 => {
                let operation = Operation::Service(Bytes::from(format!("for {i} alone")));
                let request = bft_core::messages::Request { operation, ..m.request };
                let poison = self.keys.authenticate(ctx, request, |_| false);
                ctx.send(to, Message::Request(poison));
            }
            (message, _) => ctx.send(to, message),
        }
    }
}
