//! The client's side: slots, authenticators, retransmission, and the quorums that make an answer. [CL99 §4.1, CL02 §5.1]
//!
//! One way in, [`Client::handle`], one way out, [`ClientOutput`], as on the replica's side.

mod credentials;
mod outvoted;

use crate::auth::{Credential, Crypto, MacKey, request_signing_digest};
use crate::clients::ClientsOp;
use crate::messages::{
    Message, Operation, Outcome, Read, ReadReply, Reply, Request, ResultBody, SessionId,
    SignedRequest,
};
use crate::planted::{Planted, planted};
use crate::types::{
    ClientId, ClusterSize, Digest, GroupId, ReplicaId, SequenceNumber, Slot, Tick, View,
};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use core::time::Duration;
use credentials::Credentials;
use outvoted::Outvoted;

/// What a client knows of itself and its group.
#[derive(Clone)]
pub struct ClientConfig {
    /// Which group.
    pub group: GroupId,
    /// n and f.
    pub size: ClusterSize,
    /// c: this client.
    pub me: ClientId,
    /// Requests up to this size go to the primary only, which relays them. Units: bytes.
    pub inline_bytes: usize,
    /// How long an answer may take before the request is sent again, signed, to all; doubles up to [`ClientConfig::retry_max`].
    pub retry: Duration,
    /// The longest pause between two retransmissions.
    pub retry_max: Duration,
    /// Signs and authenticates.
    pub crypto: Arc<dyn Crypto>,
}

/// What can happen to a client.
#[derive(Clone, Debug)]
pub enum ClientInput {
    /// Begin this session. Its epoch must be higher than any this key used before. What was sent in another is over:
    /// its outcome is unknown.
    Open(SessionId),
    /// Run an operation; `Done` will carry the same token. `read_only` ones are tried without an order first.
    Submit {
        /// Chosen by the caller, unique among what is under way.
        token: u64,
        /// The operation.
        op: Bytes,
        /// Whether it changes nothing.
        read_only: bool,
    },
    /// Ask about the table of clients; `Done` will carry the same token, and a [`crate::clients::ClientsReply`].
    AskOfClients {
        /// Chosen by the caller, unique among what is under way.
        token: u64,
        /// The question.
        op: ClientsOp,
    },
    /// A replica sent this by its link.
    Message(ReplicaId, Message),
    /// A replica's link came up.
    Connected(ReplicaId),
    /// The deadline has passed.
    Timeout,
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOutput {
    /// Send.
    Send {
        /// To whom.
        to: ReplicaId,
        /// What.
        message: Message,
    },
    /// Send the same to every replica.
    Broadcast(Message),
    /// Replaces the earlier deadline.
    SetTimer(Tick),
    /// A quorum has created the session; operations run from now on.
    Opened,
    /// A quorum refused the session, for its key has used `epoch` before: open one with a higher epoch.
    Refused {
        /// The highest epoch used.
        epoch: u64,
    },
    /// An operation is finished.
    Done {
        /// The token of its `Submit`.
        token: u64,
        /// Its result, on the word of 2f+1 replicas.
        result: Result<Bytes, ClientError>,
    },
}

/// Why an operation has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// A newer session of the same key ended this one: the operation may or may not have executed.
    OutcomeUnknown,
    /// The administrator has revoked this client: the operation may or may not have executed, and none will any more.
    Revoked,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientError::OutcomeUnknown => "the session was ended by a newer one with the same key; the outcome of what was pending is unknown",
            ClientError::Revoked => "the administrator has revoked this client; the outcome of what was pending is unknown",
        })
    }
}

impl core::error::Error for ClientError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Opening,
    Open,
    Ended(ClientError),
}

/// One replica's reply, as far as it must match others'. (decision 2)
#[derive(Clone, Debug)]
struct Vote {
    n: SequenceNumber,
    /// A result by its digest, whoever sent it whole.
    outcome: Outcome,
    /// The view, where the reply is tentative.
    tentative: Option<View>,
    whole: Option<Bytes>,
}

/// An ordered operation under way.
#[derive(Clone)]
struct Call {
    token: u64,
    request: Request,
    /// Whether it changes nothing, so that it may be done again.
    read_only: bool,
    digest: Digest,
    replier: ReplicaId,
    votes: Vec<Option<Vote>>,
    retry_at: Tick,
    pause: Duration,
}

/// An operation that has no slot yet.
#[derive(Clone)]
struct Waiting {
    token: u64,
    operation: Operation,
    read_only: bool,
}

/// A read under way, outside the order.
#[derive(Clone)]
struct ReadCall {
    token: u64,
    op: Bytes,
    votes: Vec<Option<ReadVote>>,
    retry_at: Tick,
}

/// One replica's answer to a read, as far as it must match others'. (decision 2)
#[derive(Clone)]
struct ReadVote {
    version: SequenceNumber,
    /// The digest of the result, or nothing where the operation must be ordered.
    digest: Option<Digest>,
    whole: Option<Bytes>,
}

#[derive(Clone, Default)]
struct Lane {
    seq: u64,
    call: Option<Call>,
}

/// The client's side of one session.
#[derive(Clone)]
pub struct Client {
    config: ClientConfig,
    state: State,
    session: SessionId,
    credentials: Credentials,
    /// The view that each replica last spoke of.
    views: Vec<View>,
    opening: Option<Call>,
    lanes: Vec<Lane>,
    free: Vec<Slot>,
    reads: BTreeMap<u64, ReadCall>,
    last_attempt: u64,
    /// Operations that wait for a lane. The driver bounds how much it submits.
    waiting: VecDeque<Waiting>,
    /// Who is asked for whole results: whoever answers, until it does not.
    replier: ReplicaId,
    ended_votes: Vec<Option<ClientError>>,
    outvoted: Outvoted,
    timer: Option<Tick>,
}

impl Client {
    /// A client without a session.
    pub fn new(config: ClientConfig) -> Self {
        let n = config.size.n();
        // Different clients start with different repliers, which spreads the load.
        let replier = ReplicaId(config.me.0 % n as u32);
        Self {
            credentials: Credentials::new(n),
            views: alloc::vec![View(0); n],
            ended_votes: alloc::vec![None; n],
            outvoted: Outvoted::new(n),
            config,
            state: State::Closed,
            session: SessionId::default(),
            opening: None,
            lanes: Vec::new(),
            free: Vec::new(),
            reads: BTreeMap::new(),
            last_attempt: 0,
            waiting: VecDeque::new(),
            replier,
            timer: None,
        }
    }

    /// Handles one input and appends what is to be done to `out`.
    ///
    /// Effects: whatever a replica sends, at most f of them cannot make an operation succeed with a wrong result.
    pub fn handle(&mut self, now: Tick, input: ClientInput, out: &mut Vec<ClientOutput>) {
        match input {
            ClientInput::Open(session) => self.open(now, session, out),
            ClientInput::Submit { token, op, read_only: true } if self.is_open() => {
                self.read(now, token, op, out);
            }
            ClientInput::Submit { token, op, read_only } => {
                let operation = Operation::Service(op);
                self.submit(now, Waiting { token, operation, read_only }, out);
            }
            ClientInput::AskOfClients { token, op } => {
                let read_only = matches!(op, ClientsOp::List(_));
                let operation = Operation::Clients(op);
                self.submit(now, Waiting { token, operation, read_only }, out);
            }
            ClientInput::Message(from, message) => self.on_message(now, from, message, out),
            ClientInput::Connected(replica) => self.on_connected(replica, out),
            ClientInput::Timeout => self.on_timeout(now, out),
        }
        self.arm(out);
    }

    /// How many operations are under way or wait.
    pub fn pending(&self) -> usize {
        let calls = self.lanes.iter().filter(|lane| lane.call.is_some()).count();
        calls + self.reads.len() + self.waiting.len()
    }

    /// Whether the session is open.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// How many replies of each replica a quorum has refuted, by replica: whoever has any is faulty, if at most f are.
    pub fn outvoted(&self) -> &[u64] {
        self.outvoted.counts()
    }

    /// The view that at least one correct replica has reached: the (f+1)-th highest that replicas spoke of.
    pub fn view(&self) -> View {
        let mut views = self.views.clone();
        views.sort_unstable_by(|a, b| b.cmp(a));
        views.get(self.config.size.f()).copied().unwrap_or_default()
    }

    fn open(&mut self, now: Tick, session: SessionId, out: &mut Vec<ClientOutput>) {
        // Replies to what was sent in another session count no more.
        self.free.clear();
        let calls = self.lanes.drain(..).filter_map(|lane| lane.call);
        out.extend(calls.map(|call| ClientOutput::Done {
            token: call.token,
            result: Err(ClientError::OutcomeUnknown),
        }));
        self.session = session;
        self.state = State::Opening;
        self.ended_votes.fill(None);
        self.credentials.wait_for_keys(now.after(self.config.retry));
        let request = Request {
            client: self.config.me,
            session,
            slot: Slot(0),
            seq: 0,
            operation: Operation::CreateSession,
        };
        let call = self.call(now, 0, request, false);
        out.push(ClientOutput::Broadcast(self.signed(&call)));
        self.opening = Some(call);
    }

    fn submit(&mut self, now: Tick, asked: Waiting, out: &mut Vec<ClientOutput>) {
        if let State::Ended(why) = self.state {
            return out.push(ClientOutput::Done { token: asked.token, result: Err(why) });
        }
        self.waiting.push_back(asked);
        self.start_waiting(now, out);
    }

    /// Asks every replica at once. [CL02 §5.1.3]
    fn read(&mut self, now: Tick, token: u64, op: Bytes, out: &mut Vec<ClientOutput>) {
        self.last_attempt += 1;
        let unused = |attempt: &u64| !self.reads.contains_key(attempt);
        let reused = (1..).find(unused).filter(|_| planted(Planted::AttemptReused));
        let attempt = reused.unwrap_or(self.last_attempt);
        let (session, replier) = (self.session, self.replier);
        out.push(ClientOutput::Broadcast(Message::Read(Read {
            session,
            attempt,
            replier,
            op: op.clone(),
        })));
        let votes = alloc::vec![None; self.config.size.n()];
        let retry_at = now.after(self.config.retry);
        self.reads.insert(attempt, ReadCall { token, op, votes, retry_at });
    }

    /// Gives every free lane an operation that waits.
    fn start_waiting(&mut self, now: Tick, out: &mut Vec<ClientOutput>) {
        while self.state == State::Open && !self.waiting.is_empty() {
            let Some(slot) = self.free.pop() else { return };
            let Some(asked) = self.waiting.pop_front() else { return };
            self.start(now, slot, asked, out);
        }
    }

    fn start(&mut self, now: Tick, slot: Slot, asked: Waiting, out: &mut Vec<ClientOutput>) {
        let Waiting { token, operation, read_only } = asked;
        let Some(lane) = self.lanes.get_mut(usize::from(slot.0)) else { return };
        lane.seq += 1;
        let request = Request {
            client: self.config.me,
            session: self.session,
            slot,
            seq: lane.seq,
            operation,
        };
        let call = self.call(now, token, request, read_only);
        let message = if self.credentials.must_be_signature(now) {
            self.signed(&call)
        } else {
            self.authenticated(&call)
        };
        if call.request.size() <= self.config.inline_bytes {
            let to = self.config.size.primary(self.view());
            out.push(ClientOutput::Send { to, message });
        } else {
            out.push(ClientOutput::Broadcast(message));
        }
        if let Some(lane) = self.lanes.get_mut(usize::from(slot.0)) {
            lane.call = Some(call);
        }
    }

    fn call(&self, now: Tick, token: u64, request: Request, read_only: bool) -> Call {
        let pause = self.config.retry;
        Call {
            token,
            digest: request.digest(),
            request,
            read_only,
            replier: self.replier,
            votes: alloc::vec![None; self.config.size.n()],
            retry_at: now.after(pause),
            pause,
        }
    }

    fn authenticated(&self, call: &Call) -> Message {
        let credential = self.credentials.authenticator(&*self.config.crypto, &call.digest);
        let (request, replier) = (call.request.clone(), call.replier);
        Message::Request(SignedRequest { request, credential, replier })
    }

    fn signed(&self, call: &Call) -> Message {
        let signed = request_signing_digest(self.config.group, &call.digest);
        let credential = Credential::Signature(self.config.crypto.sign(&signed));
        let (request, replier) = (call.request.clone(), call.replier);
        Message::Request(SignedRequest { request, credential, replier })
    }

    fn on_connected(&mut self, replica: ReplicaId, out: &mut Vec<ClientOutput>) {
        // It may have been set up anew, and is not to answer for what its former self has said.
        let lanes = self.lanes.iter_mut().filter_map(|lane| lane.call.as_mut());
        let calls = lanes.chain(self.opening.as_mut()).map(|call| &mut call.votes);
        calls.filter_map(|votes| votes.get_mut(replica.index())).for_each(|vote| *vote = None);
        let reads = self.reads.values_mut().map(|call| &mut call.votes);
        reads.filter_map(|votes| votes.get_mut(replica.index())).for_each(|vote| *vote = None);
        // A replica that comes back has lost whatever was on its way to it.
        if let Some(opening) = &self.opening {
            let message = self.signed(opening);
            out.push(ClientOutput::Send { to: replica, message });
        }
    }

    fn on_message(
        &mut self,
        now: Tick,
        from: ReplicaId,
        message: Message,
        out: &mut Vec<ClientOutput>,
    ) {
        if !self.config.size.contains(from) {
            return;
        }
        match message {
            Message::NewKey(m) => {
                self.credentials.learn(
                    from,
                    m.id,
                    MacKey::for_requests(m.secret, self.config.group),
                );
            }
            Message::Reply(m) => self.on_reply(now, from, m, out),
            Message::ReadReply(m) => self.on_read_reply(now, from, m, out),
            Message::SessionEnded(session) => self.on_session_ended(from, session, out),
            _ => {}
        }
    }

    fn heard(&mut self, from: ReplicaId, view: View) {
        if let Some(known) = self.views.get_mut(from.index()) {
            *known = (*known).max(view);
        }
    }

    fn on_reply(&mut self, now: Tick, from: ReplicaId, m: Reply, out: &mut Vec<ClientOutput>) {
        self.heard(from, m.view);
        if m.session != self.session {
            return;
        }
        let (primary, weak) = (self.config.size.primary(self.view()), self.config.size.weak());
        self.credentials.demanded(from, m.sign, primary, weak);
        let quorum = self.config.size.quorum();
        let place = usize::from(m.slot.0);
        let call = if m.seq == 0 {
            self.opening.as_mut()
        } else {
            self.lanes.get_mut(place).and_then(|lane| lane.call.as_mut())
        };
        let Some(call) = call.filter(|call| (call.digest, call.request.seq) == (m.request, m.seq))
        else {
            return self.outvoted.on_late_reply(from, m);
        };
        call.count(from, m);
        match call.verdict(quorum) {
            Verdict::Undecided => {}
            Verdict::Decided(outcome, replier) => {
                if let Some(decided) = call.supported(quorum) {
                    self.outvoted.settle(call.request.slot, call.digest, decided, &call.votes);
                }
                if let Some(replier) = replier {
                    self.replier = replier;
                }
                self.finish(now, place, outcome, out);
            }
            Verdict::BodyLost => self.ask_anew(now, place, out),
        }
    }

    /// A quorum agrees on what became of a call.
    fn finish(&mut self, now: Tick, place: usize, outcome: Outcome, out: &mut Vec<ClientOutput>) {
        match outcome {
            Outcome::SessionCreated { slots } => {
                self.opening = None;
                self.state = State::Open;
                self.lanes = alloc::vec![Lane::default(); usize::from(slots)];
                self.free = (0..slots).rev().map(Slot).collect();
                out.push(ClientOutput::Opened);
            }
            Outcome::SessionRefused { epoch } => {
                self.opening = None;
                self.state = State::Closed;
                out.push(ClientOutput::Refused { epoch });
            }
            Outcome::Result(ResultBody::Whole(result)) => {
                if let Some(call) = self.lanes.get_mut(place).and_then(|lane| lane.call.take()) {
                    self.free.push(call.request.slot);
                    out.push(ClientOutput::Done { token: call.token, result: Ok(result) });
                }
            }
            Outcome::Result(ResultBody::Digest(_)) => {}
        }
        self.start_waiting(now, out);
    }

    /// The operation executed, and the one asked for its whole result has only the digest. Nobody may have kept that of a read:
    /// ask again under a new seq. Any other result is kept whole, and only its replier was not asked for it in time: asked again
    /// under a new seq, the operation would execute twice. The retransmission asks the next replier.
    fn ask_anew(&mut self, now: Tick, place: usize, out: &mut Vec<ClientOutput>) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let Some(call) = lane.call.take() else { return };
        if !call.read_only {
            lane.call = Some(call);
            return;
        }
        self.replier = self.next_replier(call.replier);
        let Request { slot, operation, .. } = call.request;
        let asked = Waiting { token: call.token, operation, read_only: true };
        self.start(now, slot, asked, out);
    }

    fn next_replier(&self, after: ReplicaId) -> ReplicaId {
        ReplicaId((after.0 + 1) % self.config.size.n() as u32)
    }

    fn on_read_reply(
        &mut self,
        now: Tick,
        from: ReplicaId,
        m: ReadReply,
        out: &mut Vec<ClientOutput>,
    ) {
        self.heard(from, m.view);
        if m.session != self.session {
            return;
        }
        let Some(call) = self.reads.get_mut(&m.attempt) else {
            return self.outvoted.on_late_read_reply(from, m);
        };
        match call.votes.get_mut(from.index()) {
            Some(vote @ None) => *vote = Some(ReadVote::new(m.version, m.result)),
            _ => return,
        }
        let ReadVerdict { result, hopeless } = call.verdict(self.config.size);
        if let Some((result, replier)) = result {
            if let Some(call) = self.reads.remove(&m.attempt) {
                if let Some(decided) = call.best() {
                    self.outvoted.settle_read(m.attempt, decided, &call.votes);
                }
                if let Some(replier) = replier {
                    self.replier = replier;
                }
                out.push(ClientOutput::Done { token: call.token, result: Ok(result) });
            }
        } else if hopeless {
            self.order_read(now, m.attempt, out);
        }
    }

    /// A read on which the replicas do not agree is retried as an ordered operation. [CL02 §5.1.3]
    fn order_read(&mut self, now: Tick, attempt: u64, out: &mut Vec<ClientOutput>) {
        if let Some(call) = self.reads.remove(&attempt) {
            let operation = Operation::Service(call.op);
            self.waiting.push_back(Waiting { token: call.token, operation, read_only: true });
            self.start_waiting(now, out);
        }
    }

    /// Errors of one replica end nothing: f+1 must say so.
    fn on_session_ended(
        &mut self,
        from: ReplicaId,
        session: SessionId,
        out: &mut Vec<ClientOutput>,
    ) {
        let why = match session {
            SessionId::REVOKED => ClientError::Revoked,
            own if own == self.session => ClientError::OutcomeUnknown,
            _ => return,
        };
        if matches!(self.state, State::Closed | State::Ended(_)) {
            return;
        }
        if let Some(vote) = self.ended_votes.get_mut(from.index()) {
            *vote = Some(why);
        }
        let votes = |reason| self.ended_votes.iter().flatten().filter(|r| reason == **r).count();
        let weak = self.config.size.weak();
        if votes(ClientError::Revoked) + votes(ClientError::OutcomeUnknown) < weak {
            return;
        }
        let revoked = votes(ClientError::Revoked) >= weak;
        let why = if revoked { ClientError::Revoked } else { ClientError::OutcomeUnknown };
        self.state = State::Ended(why);
        self.opening = None;
        let calls = self.lanes.iter_mut().filter_map(|lane| lane.call.take());
        let mut tokens: Vec<u64> = calls.map(|call| call.token).collect();
        tokens.extend(core::mem::take(&mut self.reads).into_values().map(|call| call.token));
        tokens.extend(self.waiting.drain(..).map(|asked| asked.token));
        let ended = |token| ClientOutput::Done { token, result: Err(why) };
        out.extend(tokens.into_iter().map(ended));
    }

    /// Sends again, signed and to all, what has waited too long; turns slow reads into ordered ones.
    fn on_timeout(&mut self, now: Tick, out: &mut Vec<ClientOutput>) {
        self.timer = None;
        let slow_reads: Vec<u64> = self
            .reads
            .iter()
            .filter(|(_, call)| call.retry_at <= now)
            .map(|(attempt, _)| *attempt)
            .collect();
        if !slow_reads.is_empty() {
            self.replier = self.next_replier(self.replier);
        }
        for attempt in slow_reads {
            self.order_read(now, attempt, out);
        }
        let (n, max) = (self.config.size.n() as u32, self.config.retry_max);
        let calls = self.lanes.iter_mut().filter_map(|lane| lane.call.as_mut());
        let due = calls.chain(self.opening.as_mut()).filter(|call| call.retry_at <= now);
        let mut again = Vec::new();
        for call in due {
            call.pause = (call.pause * 2).min(max);
            call.retry_at = now.after(call.pause);
            call.replier = ReplicaId((call.replier.0 + 1) % n);
            again.push(call.clone());
        }
        for call in again {
            out.push(ClientOutput::Broadcast(self.signed(&call)));
        }
    }

    /// Keeps the deadline at or before the earliest retransmission; one that comes too early finds nothing to do.
    fn arm(&mut self, out: &mut Vec<ClientOutput>) {
        if self.timer.is_some() {
            return;
        }
        let calls = self.lanes.iter().filter_map(|lane| lane.call.as_ref());
        let calls = calls.chain(self.opening.as_ref()).map(|call| call.retry_at);
        let next = calls.chain(self.reads.values().map(|call| call.retry_at)).min();
        if let Some(at) = next {
            self.timer = Some(at);
            out.push(ClientOutput::SetTimer(at));
        }
    }
}

/// What a call's replies amount to.
enum Verdict {
    Undecided,
    /// 2f+1 match, and the result is here whole; who sent it, where only the replier did.
    Decided(Outcome, Option<ReplicaId>),
    /// 2f+1 match, and the one asked for the whole result has only its digest.
    BodyLost,
}

impl Vote {
    fn of(m: Reply) -> Self {
        let tentative = m.tentative.then_some(m.view);
        let (outcome, whole) = match m.outcome {
            Outcome::Result(body) => {
                (Outcome::Result(ResultBody::Digest(body.digest())), body.into_whole())
            }
            other => (other, None),
        };
        Vote { n: m.n, outcome, tentative, whole }
    }

    fn says_the_same(&self, other: &Vote) -> bool {
        (self.n, &self.outcome) == (other.n, &other.outcome)
    }

    /// Committed replies may carry any view, tentative ones the same. (decision 2)
    fn matches(&self, other: &Vote) -> bool {
        let views = match (self.tentative, other.tentative) {
            (Some(a), Some(b)) => a == b || planted(Planted::TentativeViewsMixed),
            _ => true,
        };
        self.says_the_same(other) && views
    }
}

impl Call {
    fn count(&mut self, from: ReplicaId, m: Reply) {
        let vote = Vote::of(m);
        let Some(known) = self.votes.get_mut(from.index()) else { return };
        // A whole result is not given up for its digest.
        let keeps_body = known.as_ref().is_some_and(|known| {
            known.says_the_same(&vote) && known.whole.is_some() && vote.tentative == known.tentative
        });
        if !keeps_body {
            *known = Some(vote);
        }
    }

    /// A vote that 2f+1 replicas agree on; a tentative one where any of theirs is.
    fn supported(&self, quorum: usize) -> Option<&Vote> {
        let votes = || self.votes.iter().flatten();
        votes().find(|a| {
            // Count around a tentative vote where there is one, so that two views are never counted together.
            let anchored =
                a.tentative.is_some() || votes().all(|b| b.tentative.is_none() || !a.matches(b));
            anchored && votes().filter(|b| a.matches(b)).count() >= quorum
        })
    }

    fn verdict(&self, quorum: usize) -> Verdict {
        let Some(supported) = self.supported(quorum) else { return Verdict::Undecided };
        if !matches!(supported.outcome, Outcome::Result(_)) {
            return Verdict::Decided(supported.outcome.clone(), None);
        }
        let whole = self.votes.iter().enumerate().find_map(|(i, vote)| {
            let vote = vote.as_ref().filter(|vote| supported.matches(vote))?;
            Some((i, vote.whole.clone()?))
        });
        match whole {
            Some((i, result)) => {
                let outcome = Outcome::Result(ResultBody::Whole(result));
                Verdict::Decided(outcome, self.sender_of_body(i))
            }
            None => {
                let asked = self.votes.get(self.replier.index()).and_then(|vote| vote.as_ref());
                if asked.is_some_and(|vote| supported.matches(vote)) {
                    Verdict::BodyLost
                } else {
                    Verdict::Undecided
                }
            }
        }
    }

    /// Where only one replica sent the whole result, that one is a good replier.
    fn sender_of_body(&self, sender: usize) -> Option<ReplicaId> {
        let whole = |vote: &&Option<Vote>| vote.as_ref().is_some_and(|vote| vote.whole.is_some());
        (self.votes.iter().filter(whole).count() == 1).then_some(ReplicaId(sender as u32))
    }
}

/// What a read's replies amount to.
struct ReadVerdict {
    /// The result, and who sent it where only one did.
    result: Option<(Bytes, Option<ReplicaId>)>,
    /// No further reply can make a quorum.
    hopeless: bool,
}

impl ReadVote {
    fn new(version: SequenceNumber, result: Option<ResultBody>) -> Self {
        let digest = result.as_ref().map(ResultBody::digest);
        Self { version, digest, whole: result.and_then(ResultBody::into_whole) }
    }

    fn matches(&self, other: &ReadVote) -> bool {
        let any = planted(Planted::ReadsWithoutVersion);
        (any || self.version == other.version) && self.digest == other.digest
    }
}

impl ReadCall {
    fn support(&self, of: &ReadVote) -> usize {
        self.votes.iter().flatten().filter(|vote| vote.matches(of)).count()
    }

    /// The answer that most replicas give.
    fn best(&self) -> Option<&ReadVote> {
        self.votes.iter().flatten().max_by_key(|vote| self.support(vote))
    }

    fn verdict(&self, size: ClusterSize) -> ReadVerdict {
        let votes = || self.votes.iter().flatten();
        let support = |of: &ReadVote| self.support(of);
        let missing = size.n() - votes().count();
        let Some(best) = self.best() else {
            return ReadVerdict { result: None, hopeless: false };
        };
        let refusals = votes().filter(|vote| vote.digest.is_none()).count();
        let enough = if planted(Planted::ReadsOnWeak) { size.weak() } else { size.quorum() };
        if support(best) < enough || best.digest.is_none() {
            let hopeless = support(best) + missing < size.quorum() || refusals >= size.weak();
            return ReadVerdict { result: None, hopeless };
        }
        let mut whole = self.votes.iter().enumerate().filter_map(|(i, vote)| {
            let vote = vote.as_ref().filter(|vote| vote.matches(best))?;
            Some((ReplicaId(i as u32), vote.whole.clone()?))
        });
        let result = whole.next().map(|(sender, result)| {
            // Where only one replica sent the whole result, that one is a good replier.
            (result, whole.next().is_none().then_some(sender))
        });
        ReadVerdict { result, hopeless: false }
    }
}
