//! Execution: committed batches, in order, each request exactly once. [CL99 §4.2, CL02 §5.1]

use super::Replica;
use crate::io::{Batch, Destination, Output};
use crate::messages::{Message, Operation, Outcome, Request, ResultBody, SignedRequest};
use crate::service::{Context, Service};
use crate::sessions::Standing;
use crate::types::{Digest, PersistId, SequenceNumber};
use alloc::vec::Vec;

impl<S: Service> Replica<S> {
    /// Executes every batch that is committed-local or decided, and whose predecessors have executed.
    pub(super) fn execute_committed(&mut self, out: &mut Vec<Output>) {
        loop {
            let n = self.executed.next();
            let committed = self.log.get(n).and_then(|entry| entry.committed.as_ref());
            let Some((batch, after)) = committed else { return };
            let (Some(batch), after) = (batch.batch(), *after) else { return };
            self.execute_batch(n, &batch, Some(after), out);
            self.executed = n;
            self.proposed = self.proposed.max(n);
            self.view_timer.progress();
            if n.0.is_multiple_of(self.config.checkpoint_interval) {
                self.take_checkpoint(n, out);
            }
        }
    }

    /// Executes one batch. Replies leave once `after`, the P record, is durable.
    pub(super) fn execute_batch(
        &mut self,
        n: SequenceNumber,
        batch: &Batch,
        after: Option<PersistId>,
        out: &mut Vec<Output>,
    ) {
        self.objects.begin(n);
        let time = self.objects.clock().advanced_to(batch.time);
        self.objects.set_clock(time);
        for (digest, request) in &batch.requests {
            let ctx = Context { client: request.request.client, time, n };
            self.execute_request(&ctx, *digest, request, after, out);
        }
    }

    fn execute_request(
        &mut self,
        ctx: &Context,
        digest: Digest,
        signed: &SignedRequest,
        after: Option<PersistId>,
        out: &mut Vec<Output>,
    ) {
        let request = &signed.request;
        let (n, outcome) = match self.objects.standing(request, digest, self.config.slots) {
            Standing::Next => (ctx.n, self.perform(ctx, digest, request)),
            // A primary may order a request twice; it executes once and is answered twice. (B-11)
            Standing::Executed(n, outcome) => (n, outcome),
            Standing::Ended => {
                let ended = Message::SessionEnded(request.session);
                self.send(Destination::Client(request.client), ended, after, out);
                return self.requests.remove(digest);
            }
            Standing::Later | Standing::Refused(_) => return self.requests.remove(digest),
        };
        self.send_reply(request, digest, n, &outcome, signed.replier, after, out);
        self.requests.advance(request.client, request.slot, request.session, request.seq);
    }

    fn perform(&mut self, ctx: &Context, digest: Digest, request: &Request) -> Outcome {
        match &request.operation {
            Operation::CreateSession => {
                self.requests.forget_sessions_before(request.client, request.session);
                self.objects.create_session(request, ctx.n, self.config.slots)
            }
            Operation::Service(op) => {
                let result = self.service.execute(ctx, &mut self.objects, op);
                let outcome = Outcome::Result(ResultBody::Whole(result));
                self.objects.record(request, digest, ctx.n, &outcome);
                outcome
            }
        }
    }
}
