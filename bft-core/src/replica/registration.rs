//! Clients that come and go: what the replicated table says, and what this replica believes of proofs and links. (decision 6)

use super::Replica;
use crate::clients::{ClientsOp, ClientsReply};
use crate::io::Output;
use crate::log::NamedRequest;
use crate::messages::{Message, Operation, SessionId};
use crate::service::{Context, Service};
use crate::types::ClientId;
use alloc::vec::Vec;
use bytes::Bytes;

impl NamedRequest {
    /// Whether this may change who the clients are.
    pub(super) fn is_of_clients(&self) -> bool {
        let request = self.body.as_ref().map(|body| &body.request);
        request.is_some_and(|request| matches!(request.operation, Operation::Clients(_)))
    }
}

impl<S: Service> Replica<S> {
    /// Executes an operation on the table of clients.
    pub(super) fn perform_on_clients(&mut self, ctx: &Context, op: &ClientsOp) -> Bytes {
        let slots = self.config.slots;
        let reply = self.objects.perform_on_clients(ctx.client, op, ctx.n, slots);
        if let (ClientsOp::Revoke(client), ClientsReply::Revoked) = (op, &reply) {
            self.service.dismiss(ctx, &mut self.objects, *client);
        }
        reply.to_bytes()
    }

    /// Believes what the committed table says: a client that came can prove its requests, and of one that went nothing waits
    /// any more, so that no primary is suspected for leaving it out.
    ///
    /// Cost: O(clients); only where the table may have changed.
    pub(super) fn update_clients(&mut self, out: &mut Vec<Output>) {
        let gone = self.authority.clients().map(|(client, _)| client);
        let gone: Vec<_> = gone.filter(|client| !self.objects.is_registered(*client)).collect();
        for client in gone {
            self.authority.dismiss(client, self.executed);
            self.requests.forget_client(client);
            self.send(client.into(), Message::SessionEnded(SessionId::REVOKED), None, out);
            out.push(Output::Client { client, link: None });
        }
        let table = self.objects.clients(ClientId(0));
        let came = table.filter(|(client, _)| !self.authority.knows(*client));
        let came: Vec<_> = came.map(|(client, identity)| (client, identity.clone())).collect();
        for (client, identity) in came {
            out.push(Output::Client { client, link: Some(identity.link) });
            self.authority.admit(client, identity);
        }
    }
}
