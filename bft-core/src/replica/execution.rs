//! Execution: committed batches, in order, each request exactly once. [CL99 §4.2, CL02 §5.1]

use super::Replica;
use crate::auth::Proof;
use crate::io::Output;
use crate::log::{Entry, NamedBatch, NamedRequest};
use crate::messages::{Message, Operation, Outcome, Request, ResultBody, SignedRequest};
use crate::objects::Objects;
use crate::planted::{Planted, planted};
use crate::service::{Context, Service};
use crate::sessions::Standing;
use crate::types::{Digest, SequenceNumber};
use alloc::vec::Vec;
use bytes::Bytes;

/// A batch that has executed on the strength of being prepared, and can be undone. At most one is. (decision 3)
#[derive(Clone)]
pub(super) struct Tentative<O> {
    n: SequenceNumber,
    digest: Digest,
    /// The state before it. It shares all that the batch did not touch.
    before: Objects<O>,
    batch: NamedBatch,
}

impl<S: Service> Replica<S> {
    /// Executes every batch that is committed-local or decided, and whose predecessors have executed; then, tentatively,
    /// the next one if it is prepared.
    pub(super) fn execute_ready(&mut self, out: &mut Vec<Output>) {
        while !self.alarmed {
            let n = self.executed.next();
            let Some(entry) = self.log.get(n) else { return };
            match (&entry.committed, &entry.pre_prepare, entry.prepared, &self.tentative) {
                (Some((batch, _)), ..) => {
                    let batch = batch.clone();
                    self.execute_committed(n, &batch, out);
                }
                (None, Some(accepted), Some(_), None) => {
                    let batch = accepted.batch.clone();
                    return self.execute_tentatively(n, batch, out);
                }
                _ => return,
            }
        }
    }

    /// Makes batch `n` final: it has executed tentatively, or does so now.
    fn execute_committed(&mut self, n: SequenceNumber, batch: &NamedBatch, out: &mut Vec<Output>) {
        let another = |tentative: &Tentative<_>| tentative.digest != batch.digest;
        let undone =
            if self.tentative.as_ref().is_some_and(another) { self.roll_back() } else { None };
        let has_executed = self.tentative.take().is_some();
        self.executed = n;
        let needed = self.log.get(n).and_then(Entry::executable_after);
        self.shown_after = self.shown_after.max(needed.unwrap_or_default());
        self.last_ordered = self.now.tick;
        if !has_executed {
            self.execute_batch(n, batch, out);
        }
        self.proposed = self.proposed.max(n);
        if batch.requests.iter().any(NamedRequest::is_of_clients) {
            self.update_clients(out);
        }
        let is_new = self.view_changes.begun.as_ref().is_none_or(|new_view| n > new_view.last());
        self.note_progress(batch, is_new && self.is_active());
        self.release_reads(out);
        self.tell_committed(n, out);
        if n.0.is_multiple_of(self.config.checkpoint_interval) {
            self.take_checkpoint(n, out);
        }
        if let Some(undone) = undone {
            // Last, for it may complete a later batch, and execute that.
            self.wait_again(undone, out);
        }
    }

    /// Executes a prepared batch before it commits. Its replies say so, and a client needs 2f+1 of one view. [CL02 §5.1.2]
    fn execute_tentatively(&mut self, n: SequenceNumber, batch: NamedBatch, out: &mut Vec<Output>) {
        let before = self.objects.clone();
        self.execute_batch(n, &batch, out);
        self.tentative = Some(Tentative { n, digest: batch.digest, before, batch });
    }

    /// Undoes the tentative batch, of which nothing remains but what its clients were told: too few of them agree.
    ///
    /// Effects: gives the batch back, whose requests are to wait again.
    pub(super) fn roll_back(&mut self) -> Option<NamedBatch> {
        let tentative = self.tentative.take()?;
        assert_eq!(tentative.n, self.executed.next(), "only the newest batch is ever undone");
        self.objects = tentative.before;
        self.recoveries_until = self.recoveries_end_at();
        self.drop_held_reads();
        Some(tentative.batch)
    }

    /// The requests of a batch that came to nothing wait again.
    pub(super) fn wait_again(&mut self, batch: NamedBatch, out: &mut Vec<Output>) {
        for named in batch.requests {
            let Some(body) = named.body.filter(|_| named.proof != Proof::Unchecked) else {
                continue;
            };
            let slots = self.config.slots;
            let standing = self.objects.standing(&body.request, named.digest, slots);
            if matches!(standing, Standing::Next | Standing::Later) {
                // It may have come again in the meantime.
                let _ = self.keep(named.digest, &body, named.proof, out);
            }
        }
        self.release_primary();
    }

    /// Executes one batch and answers its clients; the replies of one beyond `executed` are tentative.
    ///
    /// Requires: the batch is complete, as everything prepared or decided is.
    fn execute_batch(&mut self, n: SequenceNumber, batch: &NamedBatch, out: &mut Vec<Output>) {
        self.objects.begin(n);
        let mut time = self.objects.clock().advanced_to(batch.time);
        for named in &batch.requests {
            let Some(body) = &named.body else { continue };
            // Not whom a reference names: the request says itself whose it is.
            let named_by = planted(Planted::ReferenceNamesTheClient).then_some(named.client);
            let client = named_by.unwrap_or(body.request.client);
            let ctx = Context { client, time, n };
            self.execute_request(&ctx, named.digest, body, out);
            // A time for each: two writers of one batch would else leave a file that looks to both like their own doing.
            time = time.advanced_to(batch.time);
        }
        self.objects.set_clock(time);
    }

    fn execute_request(
        &mut self,
        ctx: &Context,
        digest: Digest,
        signed: &SignedRequest,
        out: &mut Vec<Output>,
    ) {
        let request = &signed.request;
        let (n, outcome) = match self.objects.standing(request, digest, self.config.slots) {
            Standing::Next => (ctx.n, self.perform(ctx, digest, request)),
            // A primary may order a request twice; it executes once and is answered twice. (B-11)
            Standing::Executed(n, outcome) => (n, outcome),
            Standing::Ended => {
                let ended = Message::SessionEnded(request.session);
                self.send(request.client.into(), ended, None, out);
                return self.requests.remove(digest);
            }
            Standing::Later | Standing::Refused(_) => return self.requests.remove(digest),
        };
        self.send_reply(signed, digest, n, outcome, out);
        self.advance_slot(request, out);
    }

    fn perform(&mut self, ctx: &Context, digest: Digest, request: &Request) -> Outcome {
        match &request.operation {
            Operation::CreateSession => {
                self.requests.forget_sessions_before(request.client, request.session);
                let outcome = self.objects.create_session(request, ctx.n, self.config.slots);
                self.recoveries_until = self.recoveries_end_at();
                self.forget_former_view_changes();
                self.forget_former_checkpoints();
                outcome
            }
            Operation::Service(op) => {
                let result = self.service.execute(ctx, &mut self.objects, op);
                self.record(ctx, digest, request, result)
            }
            Operation::Clients(op) => {
                let result = self.perform_on_clients(ctx, op);
                self.record(ctx, digest, request, result)
            }
        }
    }

    fn record(&mut self, ctx: &Context, digest: Digest, request: &Request, r: Bytes) -> Outcome {
        let outcome = Outcome::Result(ResultBody::Whole(r));
        self.objects.record(request, digest, ctx.n, &outcome);
        outcome
    }
}
