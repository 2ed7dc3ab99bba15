//! What must never happen, checked after every step. The names I-n are those of the promise table in `docs/testing.md`.

use bfs_fs::{FileSystem, State};
use bft_core::clients::{ClientIdentity, ClientsOp};
use bft_core::io::Batch;
use bft_core::messages::{Operation, SessionId};
use bft_core::objects::{FIRST_SERVICE_KIND, at_batch};
use bft_core::service::{Context, Service};
use bft_core::tree::ObjectId;
use bft_core::types::{ClientId, Digest, SequenceNumber, Slot, Time};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::clients::Invocation;

/// The agreed order, a second and much simpler executor that follows it, and what clients were told.
pub struct Oracle {
    service: FileSystem,
    /// I-1: the batch at each sequence number, as the first correct replica executed it.
    agreed: BTreeMap<SequenceNumber, (Digest, Arc<Batch>)>,
    /// The reference executor's state after each n; a copy costs O(1).
    states: Vec<State>,
    clock: Time,
    sessions: BTreeMap<ClientId, SessionId>,
    slots: BTreeMap<(ClientId, Slot), (SessionId, u64)>,
    /// I-4x: where each operation executed and with what result.
    results: BTreeMap<(ClientId, Bytes), Vec<(SequenceNumber, Bytes)>>,
    answers: Vec<Answer>,
    /// I-3: the digest of the whole state at each checkpoint.
    checkpoints: BTreeMap<SequenceNumber, Digest>,
    /// How many slots a session has.
    slot_limit: u16,
    /// Which clients follow the protocol.
    honest: Vec<bool>,
    /// I-5: every request that an honest client has made.
    asked: BTreeSet<Digest>,
    /// Who is registered, and the number of the next.
    registered: BTreeMap<ClientId, ClientIdentity>,
    next_client: u32,
}

/// What a client was told.
struct Answer {
    client: ClientId,
    invocation: Invocation,
    result: Bytes,
    answered: u64,
}

impl Oracle {
    /// The oracle of a new group that begins with `founders` and whose sessions have `slot_limit` slots; `honest` says which
    /// clients follow the protocol.
    pub fn new(
        service: FileSystem,
        slot_limit: u16,
        honest: Vec<bool>,
        founders: Vec<ClientIdentity>,
    ) -> Self {
        let mut genesis = State::default();
        service.genesis(&mut genesis);
        Self {
            service,
            agreed: BTreeMap::new(),
            states: vec![genesis],
            clock: Time(0),
            sessions: BTreeMap::new(),
            slots: BTreeMap::new(),
            results: BTreeMap::new(),
            answers: Vec::new(),
            checkpoints: BTreeMap::new(),
            slot_limit,
            honest,
            asked: BTreeSet::new(),
            next_client: founders.len() as u32,
            registered: (0..).map(ClientId).zip(founders).collect(),
        }
    }

    /// An honest client has made the request with this digest.
    pub fn on_asked(&mut self, request: Digest) {
        self.asked.insert(request);
    }

    /// The last sequence number that any correct replica has executed.
    pub fn executed(&self) -> SequenceNumber {
        SequenceNumber(self.states.len() as u64 - 1)
    }

    /// A correct replica has executed `batch` at `n`.
    ///
    /// Errors: a violation of I-1.
    pub fn on_executed(
        &mut self,
        n: SequenceNumber,
        digest: Digest,
        batch: &Arc<Batch>,
    ) -> Result<(), String> {
        match self.agreed.get(&n) {
            Some((agreed, _)) if *agreed == digest => Ok(()),
            Some((agreed, _)) => {
                Err(format!("I-1: {n:?} executed as {digest:?} and as {agreed:?}"))
            }
            None => {
                self.agreed.insert(n, (digest, batch.clone()));
                self.follow(n, batch)
            }
        }
    }

    /// A correct replica's state at checkpoint `n` has this digest.
    ///
    /// Errors: a violation of I-3.
    pub fn on_checkpoint(&mut self, n: SequenceNumber, digest: Digest) -> Result<(), String> {
        let first = *self.checkpoints.entry(n).or_insert(digest);
        if first == digest {
            Ok(())
        } else {
            Err(format!("I-3: the state at {n:?} is {digest:?} here and {first:?} elsewhere"))
        }
    }

    /// Compares a correct replica's service state at `n` with the reference executor's, object by object.
    ///
    /// Errors: a violation of I-3.
    pub fn compare(&self, n: SequenceNumber, state: &State) -> Result<(), String> {
        let Some(reference) = self.states.get(n.0 as usize) else {
            return Err(format!("I-3: a replica is at {n:?}, which never committed"));
        };
        let encoded = |objects: &State| -> Vec<_> {
            let first = ObjectId::new(FIRST_SERVICE_KIND, 0, 0);
            let last = ObjectId::new(u8::MAX, ObjectId::MAX_MAJOR, u64::MAX);
            let all = objects.range(first, last);
            all.map(|(id, object)| (id, borsh::to_vec(object).unwrap_or_default())).collect()
        };
        if encoded(reference) == encoded(state) {
            Ok(())
        } else {
            Err(format!("I-3: the state at {n:?} differs from the reference executor's"))
        }
    }

    /// I-10 of the newest reference state.
    pub fn check_tree(&self) -> Result<(), String> {
        let newest = self.states.last().ok_or("no state")?;
        bfs_fs::fsck::check(newest).map_err(|faults| format!("I-10: {}", faults.join("; ")))
    }

    /// A correct client accepted `result` at event `answered`. It is judged by `check_answers`, for the batch that a client
    /// was told of tentatively may not have committed anywhere yet.
    pub fn on_answer(
        &mut self,
        client: ClientId,
        invocation: Invocation,
        result: Bytes,
        answered: u64,
    ) {
        self.answers.push(Answer { client, invocation, result, answered });
    }

    /// Judges every answer, in the order in which they came: each must be what the reference executor says at some sequence
    /// number, and whoever asks after an answer must see what it showed.
    ///
    /// Errors: a violation of I-4x or I-6.
    pub fn check_answers(&self) -> Result<(), String> {
        // Up to which sequence number clients had been told, by the event of the answer. Both ascend.
        let mut told: Vec<(u64, SequenceNumber)> = vec![(0, SequenceNumber(0))];
        for answer in &self.answers {
            let before = told.partition_point(|(at, _)| *at < answer.invocation.asked);
            let after = before.checked_sub(1).map_or(SequenceNumber(0), |last| told[last].1);
            let n = self.judge(answer, after)?;
            let highest = told.last().map_or(n, |(_, highest)| n.max(*highest));
            told.push((answer.answered, highest));
        }
        Ok(())
    }

    fn judge(&self, answer: &Answer, after: SequenceNumber) -> Result<SequenceNumber, String> {
        let Answer { client, invocation, result, .. } = answer;
        let ordered = self.results.get(&(*client, invocation.op.clone()));
        let ordered = ordered.map(Vec::as_slice).unwrap_or_default();
        if !invocation.read_only && ordered.len() != 1 {
            return Err(format!(
                "I-4x: an acknowledged operation executed {} times",
                ordered.len()
            ));
        }
        if let Some((n, _)) = ordered.iter().find(|(_, expected)| expected == result) {
            let in_time = *n > after;
            return if in_time {
                Ok(*n)
            } else {
                Err(format!("I-6: answered from {n:?}, asked after {after:?}"))
            };
        }
        if !invocation.read_only {
            return Err("I-6: the accepted result is not the reference executor's".into());
        }
        let mut seen = (after.0..=self.executed().0).map(SequenceNumber);
        seen.find(|n| self.query(*client, *n, &invocation.op).as_ref() == Some(result))
            .ok_or_else(|| format!("I-6: a read returned what no state since {after:?} holds"))
    }

    fn query(&self, client: ClientId, n: SequenceNumber, op: &[u8]) -> Option<Bytes> {
        let ctx = Context { client, time: Time(0), n };
        self.service.query(&ctx, self.states.get(n.0 as usize)?, op).ok()
    }

    /// Executes the next agreed batch in the reference executor.
    fn follow(&mut self, n: SequenceNumber, batch: &Batch) -> Result<(), String> {
        if n.0 != self.states.len() as u64 {
            return Err(format!("I-1: {n:?} executed before {:?}", self.executed().next()));
        }
        let mut state = self.states.last().cloned().ok_or("no state")?;
        at_batch(&mut state, n);
        let first = self.clock.0.saturating_add(1).max(batch.time.0);
        self.clock = Time(first.saturating_add(batch.requests.len() as u64));
        for (k, (digest, signed)) in batch.requests.iter().enumerate() {
            let time = Time(first.saturating_add(k as u64));
            let request = &signed.request;
            let honest = self.honest.get(request.client.0 as usize) == Some(&true);
            if honest && !self.asked.contains(digest) {
                return Err(format!(
                    "I-5: {:?} never made a request executed at {n:?}",
                    request.client
                ));
            }
            let op = match &request.operation {
                Operation::CreateSession => {
                    let current = self.sessions.get(&request.client);
                    let epoch = current.map_or(0, |current| current.epoch);
                    let well_formed = request.slot == Slot(0)
                        && request.seq == 0
                        && request.session.epoch < SessionId::REVOKED.epoch;
                    let known = self.registered.contains_key(&request.client);
                    let known = known || request.client.replica().is_some();
                    if known && well_formed && epoch < request.session.epoch {
                        self.sessions.insert(request.client, request.session);
                    }
                    continue;
                }
                Operation::Service(op) => Some(op),
                Operation::Clients(_) => None,
            };
            let last = self.slots.get(&(request.client, request.slot));
            let last = last.filter(|(session, _)| *session == request.session);
            let next = last.map_or(0, |(_, seq)| *seq) + 1;
            let current = self.sessions.get(&request.client) == Some(&request.session);
            if !current || request.slot.0 >= self.slot_limit || request.seq != next {
                continue;
            }
            self.slots.insert((request.client, request.slot), (request.session, next));
            let ctx = Context { client: request.client, time, n };
            match op {
                Some(op) => {
                    let result = self.service.execute(&ctx, &mut state, op);
                    self.results.entry((request.client, op.clone())).or_default().push((n, result));
                }
                None => self.follow_clients(&ctx, &mut state, &request.operation),
            }
        }
        self.states.push(state);
        Ok(())
    }

    /// Who is a client after `operation`. Nobody else's request may ever execute.
    fn follow_clients(&mut self, ctx: &Context, state: &mut State, operation: &Operation) {
        let Operation::Clients(op) = operation else { return };
        match op {
            _ if ctx.client != ClientId(0) => {}
            ClientsOp::Register(identity) => {
                if !self.registered.values().any(|known| known == identity) {
                    self.registered.insert(ClientId(self.next_client), identity.clone());
                    self.next_client += 1;
                }
            }
            ClientsOp::Revoke(client) if *client != ClientId(0) => {
                if self.registered.remove(client).is_some() {
                    self.sessions.insert(*client, SessionId::REVOKED);
                    self.service.dismiss(ctx, state, *client);
                }
            }
            ClientsOp::Revoke(_) | ClientsOp::List(_) => {}
        }
    }
}
