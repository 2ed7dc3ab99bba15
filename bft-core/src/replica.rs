//! One replica of PBFT, as a pure state machine. [CL99 §4, CL02 §4]
//!
//! One way in, one way out: [`Replica::handle`]. The protocol can be read from the list of `on_*` functions:
//!
//! ```text
//! request.rs         on_request, on_read            clients' requests, and answers that are already known
//! ordering.rs        propose, on_pre_prepare,       the three phases: pre-prepared, prepared, committed-local
//!                    on_prepare, on_commit
//! execution.rs       execute_ready                  in order, exactly once, one batch tentatively; replies
//! registration.rs    update_clients                 who may ask at all, as the state says
//! checkpoint.rs      take_checkpoint, on_checkpoint stable certificates, truncation of the log
//! retransmission.rs  on_status, on_committed        repairs what the network lost
//! state_transfer.rs  on_fetch, on_parts             only what differs moves, and only what a quorum signed is installed
//! suspicion.rs       on_view_change_timeout,        when a backup gives up its primary
//!                    on_suspect
//! view_change.rs     start_view_change,             leaves a view for good, with P and Q
//!                    on_view_change
//! new_view.rs        on_new_view, begin_view        the next view begins with what may have committed: choice.rs
//! recovery.rs        recover                        from a checkpoint and the records persisted since
//! amnesia.rs         rejoin, on_reply               without them: mute until what it may have said has passed
//! footprint.rs       footprint                      what is held here, and the most that may be
//! ```

mod amnesia;
mod checkpoint;
mod execution;
mod footprint;
mod inspect;
mod new_view;
mod ordering;
mod recovery;
mod registration;
mod request;
mod retransmission;
mod state_transfer;
mod suspicion;
mod view_change;

use crate::auth::{Authority, Limits, Proof, Verified};
use crate::evidence::{Evidence, Misdeed};
use crate::io::{Alarm, Destination, Input, JobResult, Output, Record, Rejection, Timer};
use crate::log::Log;
use crate::messages::{Health, Message, Phase, ReadReply, Request, named_digest};
use crate::objects::Objects;
use crate::planted::{Planted, planted};
use crate::service::Service;
use crate::sessions::Standing;
use crate::types::{
    ClientId, ClusterSize, Digest, Domain, Now, Peer, PersistId, ReplicaId, SequenceNumber, Tick,
    Time, View,
};
use alloc::vec::Vec;
use amnesia::Amnesia;
use checkpoint::Checkpoints;
use core::time::Duration;
pub use footprint::Holding;
pub use recovery::{RecoverError, Snapshot};
use request::Requests;
use retransmission::Repairs;
use state_transfer::Pace;
use suspicion::Suspicion;
use view_change::ViewChanges;

/// What every replica of a group must agree on, and a few limits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// n and f.
    pub size: ClusterSize,
    /// i: this replica.
    pub me: ReplicaId,
    /// K: a checkpoint every so many sequence numbers.
    pub checkpoint_interval: u64,
    /// L: the window between the water marks. More than K.
    pub window: u64,
    /// S: the slots of a session.
    pub slots: u16,
    /// W: how many batches may be under way at once. The batches' size follows the load. [CL02 §5.1.4]
    pub pipeline: u64,
    /// Requests up to this size travel inside the PRE-PREPARE. Units: bytes.
    pub inline_bytes: usize,
    /// Hard limits of what is accepted.
    pub limits: Limits,
    /// How many bytes of unexecuted operations one client may have waiting here before its link is not read any more.
    pub client_budget: usize,
    /// How long a request may wait before the primary is suspected. At least 1 s in production. (decision 14)
    pub view_timeout: Duration,
    /// T_max: what the view timeout doubles up to, view after view, until one makes progress.
    pub view_timeout_max: Duration,
    /// How often STATUS is sent while something is missing; ten times as long otherwise.
    pub status_interval: Duration,
    /// The most that a state transfer fetches, and that this replica serves, so that both go on with their work. Units:
    /// bytes a second.
    pub transfer_rate: u64,
    /// How long a group may be idle before its primary orders an empty batch, so that agreed time goes on. (decision 7)
    pub heartbeat: Duration,
    /// delta: how far the primary's clock may be ahead of this replica's. (decision 7)
    pub clock_tolerance: Duration,
}

impl Config {
    /// The defaults for replica `me` of a group of `size`.
    pub fn new(size: ClusterSize, me: ReplicaId) -> Self {
        Self {
            size,
            me,
            checkpoint_interval: 128,
            window: 256,
            slots: 64,
            pipeline: 4,
            inline_bytes: 8 * 1024,
            limits: Limits {
                batch_requests: 512,
                batch_bytes: 4 << 20,
                operation_bytes: (1 << 20) + 4096,
                window: 256,
            },
            client_budget: 64 << 20,
            view_timeout: Duration::from_secs(1),
            view_timeout_max: Duration::from_secs(64),
            status_interval: Duration::from_millis(100),
            transfer_rate: 24 << 20,
            heartbeat: Duration::from_secs(5),
            clock_tolerance: Duration::from_secs(10),
        }
    }

    /// The same with K and L set.
    pub fn with_window(mut self, checkpoint_interval: u64, window: u64) -> Self {
        assert!(0 < checkpoint_interval && checkpoint_interval < window, "L must exceed K");
        self.checkpoint_interval = checkpoint_interval;
        self.window = window;
        self.limits.window = window;
        self
    }
}

/// One replica.
#[derive(Clone)]
pub struct Replica<S: Service> {
    config: Config,
    authority: Authority,
    service: S,
    /// Whether there has been an input.
    started: bool,
    /// The instant of the input that is being handled.
    now: Now,
    /// v: the current view.
    view: View,
    log: Log,
    objects: Objects<S::Object>,
    /// The last committed batch that has executed; every lower one has too.
    executed: SequenceNumber,
    /// What must be durable before anyone is shown the state there: this replica's own vote for it may have decided it.
    shown_after: PersistId,
    /// The batch after it, if that has executed although it has not committed.
    tentative: Option<execution::Tentative<S::Object>>,
    /// Answers to reads that saw the tentative batch.
    held_reads: Vec<(ClientId, ReadReply)>,
    /// The last batch that this replica, as the primary, proposed.
    proposed: SequenceNumber,
    /// When a batch was last pre-prepared or executed here, and whether the heartbeat's timer runs.
    last_ordered: Tick,
    heartbeat_armed: bool,
    /// When the next STATUS is due.
    status_due: Tick,
    requests: Requests,
    checkpoints: Checkpoints<S::Object>,
    transfer: Option<state_transfer::Transfer<S::Object>>,
    /// What this replica may still serve to those that fetch.
    serving: Vec<Pace>,
    /// Where execution stood when STATUS last went out.
    stuck_at: SequenceNumber,
    /// The last record handed to the driver.
    last_persist: PersistId,
    /// The last record that the driver reported durable.
    durable: PersistId,
    /// Reads are answered once `executed` has reached this. (decision 3)
    read_gate: SequenceNumber,
    view_changes: ViewChanges,
    /// How often this replica has lost its memory.
    incarnation: u64,
    /// What it waits for since it last did: until then it is mute.
    amnesia: Option<Amnesia>,
    /// Until a checkpoint this far is stable, some replica is mute.
    recoveries_until: SequenceNumber,
    suspicion: Suspicion,
    /// What each replica has asked to be sent again.
    repairs: Vec<Repairs>,
    rejected: u64,
    /// What it holds against the others.
    evidence: Evidence,
    alarmed: bool,
}

impl<S: Service> Replica<S> {
    /// A replica of a new group, in view 0, with the service's initial state.
    pub fn new(config: Config, authority: Authority, service: S) -> Self {
        let mut objects = Objects::default();
        service.genesis(&mut objects);
        for (client, identity) in authority.clients() {
            objects.enrol(client, identity.clone());
        }
        let snapshot = Snapshot { n: SequenceNumber(0), objects };
        Self::at(config, authority, service, View(0), snapshot)
    }

    /// A replica whose stable checkpoint is `snapshot`, with an empty log.
    fn at(
        config: Config,
        authority: Authority,
        service: S,
        view: View,
        snapshot: Snapshot<S::Object>,
    ) -> Self {
        assert!(config.checkpoint_interval < config.window, "L must exceed K");
        let Snapshot { n, mut objects } = snapshot;
        let digest = objects.digest();
        let mut replica = Self {
            config,
            authority,
            service,
            started: false,
            now: Now::default(),
            view,
            log: Log::new(n, config.window),
            executed: n,
            shown_after: PersistId::default(),
            tentative: None,
            held_reads: Vec::new(),
            proposed: n,
            last_ordered: Tick(0),
            heartbeat_armed: false,
            status_due: Tick(0),
            requests: Requests::default(),
            checkpoints: Checkpoints::new(n, digest, objects.clone()),
            objects,
            transfer: None,
            serving: alloc::vec![Pace::default(); config.size.n()],
            stuck_at: n,
            last_persist: PersistId(0),
            durable: PersistId(0),
            read_gate: n,
            view_changes: ViewChanges::new(true),
            incarnation: 0,
            amnesia: None,
            recoveries_until: SequenceNumber(0),
            suspicion: Suspicion::new(config.view_timeout),
            repairs: alloc::vec![Repairs::new(config.window); config.size.n()],
            rejected: 0,
            evidence: Evidence::default(),
            alarmed: false,
        };
        replica.incarnation = replica.agreed_incarnation(config.me);
        replica.recoveries_until = replica.recoveries_end_at();
        replica
    }

    /// Handles one input and appends what is to be done to `out`.
    ///
    /// Requires: `self.now.tick` never goes back.
    /// Effects: bounded by the input's size and the configuration. After an alarm nothing happens any more.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        self.take(now, input, out);
        self.conclude(now, out);
    }

    /// The same, but for what follows from it: nothing is ordered before [`Replica::conclude`]. Requests that arrive together
    /// so become one batch, instead of a batch for the first and one for the others.
    pub fn take(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        if self.alarmed {
            return;
        }
        self.now = now;
        if !core::mem::replace(&mut self.started, true) {
            self.resume(out);
        }
        match input {
            Input::Message(message) => {
                let from = message.from();
                if let Err(why) = self.on_message(message, out) {
                    self.reject(from, why, out);
                }
            }
            Input::Timeout(Timer::Status) => self.on_status_timeout(out),
            Input::Timeout(Timer::Transfer) => self.ask_donors(out),
            Input::Timeout(Timer::Heartbeat) => self.on_heartbeat(out),
            Input::RefreshKeys { entropy } => self.on_refresh_keys(entropy, out),
            Input::Timeout(Timer::ViewChange) => self.on_view_change_timeout(out),
            Input::Connected { peer, entropy } => self.on_connected(peer, entropy, out),
            Input::Persisted(id) => self.durable = self.durable.max(id),
            Input::JobDone(JobResult::CheckpointSigned { n, digest, signature }) => {
                self.on_checkpoint_signed(n, digest, signature, out);
            }
        }
    }

    /// What follows from all that was taken.
    pub fn conclude(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.alarmed {
            return;
        }
        self.now = now;
        self.end_amnesia(out);
        self.propose(out);
        self.update_suspicion(out);
        self.arm_heartbeat(out);
        self.ask_for_bodies_soon(out);
    }

    /// Checks what a link brought. See [`Authority::verify`].
    ///
    /// Cost: no signature is checked of a message that would be refused whoever signed it, nor of a request that is here
    /// already with a better proof. One that is sent for nothing so costs its receiver no more than its sender.
    pub fn verify(&self, from: Peer, message: Message) -> Result<Verified<Message>, Rejection> {
        match (&message, from) {
            (Message::Request(m), _) => self.could_execute(&m.request)?,
            (Message::Checkpoint(m), _) => self.could_count(from, m)?,
            (Message::PrePrepare(m), Peer::Replica(i)) => {
                self.could_pre_prepare(i, m)?;
                self.could_be_first(m.n, || named_digest(m.time, &m.batch))?;
            }
            (Message::Committed(m), Peer::Replica(i)) => self.could_claim(i, m.n)?,
            (Message::Batch(m), Peer::Replica(_)) => self.could_be_awaited(m)?,
            (Message::StableCertificate(m), Peer::Replica(i)) => self.could_prove(i, m)?,
            (Message::ViewChange(m), Peer::Replica(_)) => self.could_change_view(m)?,
            (Message::NewView(m), Peer::Replica(_)) => self.could_begin_view(m)?,
            _ => {}
        }
        let known = |digest: &Digest| {
            self.requests.get(*digest).map_or(Proof::Unchecked, |pending| pending.proof)
        };
        self.authority.verify(from, message, known, |client| self.has_to_prove(client))
    }

    /// Errors: why `request` can never execute, and is no body that a batch lacks.
    fn could_execute(&self, request: &Request) -> Result<(), Rejection> {
        let standing = |digest| self.objects.standing(request, digest, self.config.slots);
        // Most are fine, whatever their digest.
        if !matches!(standing(Digest::default()), Standing::Refused(_)) {
            return Ok(());
        }
        let digest = request.digest();
        match standing(digest) {
            Standing::Refused(why) if !self.requests.wants(digest) => Err(why),
            _ => Ok(()),
        }
    }

    /// Counts an input that was refused before it came to `handle`.
    pub fn reject(&mut self, from: Peer, why: Rejection, out: &mut Vec<Output>) {
        self.rejected = self.rejected.saturating_add(1);
        if let (Peer::Replica(i), Some(misdeed)) = (from, Misdeed::of(why)) {
            self.evidence.note(i, self.agreed_incarnation(i), misdeed);
        }
        out.push(Output::Rejected { from, why });
    }

    /// How many more bytes `peer` may send before it must wait. At zero the driver stops reading its link. (contract 7)
    pub fn credits(&self, peer: Peer) -> usize {
        match peer {
            // What replicas send is bounded by the window and the limits of a message.
            Peer::Replica(_) => usize::MAX,
            Peer::Client(client) => {
                self.config.client_budget.saturating_sub(self.requests.bytes(client))
            }
        }
    }

    /// This replica's account of itself.
    pub fn health(&self, nonce: u64) -> Health {
        Health {
            nonce,
            view: self.view,
            executed: self.executed,
            stable: self.log.low(),
            digest: self.checkpoints.stable_digest(),
            phase: match (self.is_mute(), self.is_active()) {
                (true, _) => Phase::Recovering,
                (false, true) => Phase::Active,
                (false, false) => Phase::ChangingView,
            },
            rejected: self.rejected,
            transfer: self.transfer_progress(),
            accusations: self.evidence.report(self.now.tick, |i| self.agreed_incarnation(i)),
        }
    }

    /// `replica` signed two messages where there is one to sign.
    fn note_contradiction(&mut self, replica: ReplicaId) {
        self.evidence.note(replica, self.agreed_incarnation(replica), Misdeed::Contradiction);
    }

    /// Every replica of the group but this one.
    pub fn others(&self) -> impl Iterator<Item = ReplicaId> + use<S> {
        let me = self.config.me;
        self.config.size.replicas().filter(move |i| *i != me)
    }

    /// The replicated state as it is now, a tentative batch included.
    pub fn objects(&self) -> &Objects<S::Object> {
        &self.objects
    }

    /// The last batch executed.
    pub fn executed(&self) -> SequenceNumber {
        self.executed
    }

    /// The digest of the batch that executed at `n`, where it is still in the log or its tail.
    pub fn executed_at(&self, n: SequenceNumber) -> Option<Digest> {
        self.log.committed(n).filter(|_| n <= self.executed).map(|batch| batch.digest)
    }

    /// v: the current view, and whether it has begun here.
    pub fn view(&self) -> (View, bool) {
        (self.view, self.is_active())
    }

    /// The batch that has executed here although it has not committed.
    pub fn tentative(&self) -> Option<SequenceNumber> {
        self.tentative.as_ref().map(|_| self.executed.next())
    }

    /// The stable checkpoint, from which `recover` can start.
    pub fn stable_snapshot(&self) -> Snapshot<S::Object> {
        self.checkpoints.stable_snapshot()
    }

    /// Whether this replica has stopped on an alarm.
    pub fn is_stopped(&self) -> bool {
        self.alarmed
    }

    fn on_message(
        &mut self,
        message: Verified<Message>,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let from = message.from();
        let (message, proofs) = message.into_parts();
        if self.is_mute() && !Self::heeds(&message) {
            return Ok(());
        }
        match (message, from) {
            (Message::Request(m), _) => self.on_request(from, m, &proofs, out),
            (Message::Read(m), Peer::Client(client)) => self.on_read(client, m, out),
            (Message::PrePrepare(m), Peer::Replica(i)) => self.on_pre_prepare(i, m, proofs, out),
            (Message::Prepare(m), Peer::Replica(i)) => self.on_prepare(i, m, out),
            (Message::Commit(m), Peer::Replica(i)) => self.on_commit(i, m, out),
            (Message::Committed(m), Peer::Replica(i)) => self.on_committed(i, m, &proofs, out),
            (Message::Checkpoint(m), Peer::Replica(_)) => self.on_checkpoint(m, out),
            (Message::Unauthenticated(m), Peer::Replica(i)) => self.on_unauthenticated(i, &m),
            (Message::Suspect(m), Peer::Replica(i)) => self.on_suspect(i, m, out),
            (Message::ViewChange(m), Peer::Replica(_)) => match proofs.first() {
                Some((digest, _)) => self.on_view_change(*digest, m, out),
                None => Err(Rejection::Malformed),
            },
            (Message::NewView(m), Peer::Replica(_)) => self.on_new_view(m, out),
            (Message::FetchBatch(m), Peer::Replica(i)) => self.on_fetch_batch(i, m, out),
            (Message::Batch(m), Peer::Replica(_)) => self.on_batch(m, &proofs, out),
            (Message::StableCertificate(m), Peer::Replica(i)) => {
                self.on_stable_certificate(Some(i), m.into(), out)
            }
            (Message::Status(m), Peer::Replica(i)) => self.on_status(i, m, out),
            (Message::Fetch(m), Peer::Replica(i)) => self.on_fetch(i, &m, out),
            (Message::Parts(m), Peer::Replica(i)) => self.on_parts(i, m, out),
            (Message::Reply(m), Peer::Replica(i)) => {
                self.on_reply(i, &m);
                Ok(())
            }
            (Message::HealthQuery(nonce), _) => {
                self.send(from.into(), Message::Health(self.health(nonce)), None, out);
                Ok(())
            }
            _ => Err(Rejection::WrongSender),
        }
    }

    /// Hands every client another key. What was authenticated with the one before stays good for one more period, so no
    /// request is lost and nobody has to sign.
    fn on_refresh_keys(&mut self, entropy: [u8; 32], out: &mut Vec<Output>) {
        let clients: Vec<_> = self.authority.clients().map(|(client, _)| client).collect();
        for client in clients {
            let secret = Digest::of(Domain::Key, &(entropy, client)).0;
            if let Some(key) = self.authority.issue_key(client, secret) {
                self.send(Destination::Client(client), Message::NewKey(key), None, out);
            }
        }
    }

    fn on_connected(&mut self, peer: Peer, entropy: [u8; 32], out: &mut Vec<Output>) {
        match peer {
            Peer::Client(client) => {
                if let Some(key) = self.authority.issue_key(client, entropy) {
                    self.send(peer.into(), Message::NewKey(key), None, out);
                }
            }
            Peer::Replica(_) => self.on_link_restored(peer, out),
        }
    }

    /// primary(v) = v mod n.
    fn primary(&self) -> ReplicaId {
        self.config.size.primary(self.view)
    }

    fn is_primary(&self) -> bool {
        self.primary() == self.config.me
    }

    fn send(
        &self,
        to: Destination,
        message: Message,
        after: Option<PersistId>,
        out: &mut Vec<Output>,
    ) {
        if self.is_mute() && !Self::may_send(&message) {
            return;
        }
        out.push(Output::Send { to, message, after });
    }

    fn persist(&mut self, record: Record, out: &mut Vec<Output>) -> PersistId {
        let id = PersistId(self.last_persist.0.saturating_add(1));
        self.last_persist = id;
        out.push(Output::Persist { id, record });
        id
    }

    fn raise(&mut self, alarm: Alarm, out: &mut Vec<Output>) {
        self.alarmed = true;
        out.push(Output::Alarm(alarm));
    }

    /// Whether `proposed` is a time that this replica can stand behind. (decision 7)
    fn is_timely(&self, proposed: Time) -> bool {
        let tolerance = self.config.clock_tolerance.as_nanos() as u64;
        let slack = self.suspicion.timeout().as_nanos() as u64;
        let slack = if planted(Planted::ClockWithoutSlack) { 0 } else { slack };
        let late = tolerance.saturating_add(slack);
        let earliest = self.now.wall.0.saturating_sub(late);
        let latest = self.now.wall.0.saturating_add(tolerance);
        let any = planted(Planted::TimeUnchecked);
        any || (earliest..=latest).contains(&proposed.0)
    }

    /// Panics unless what must always hold of this replica does. For tests and the simulator.
    pub fn check_invariants(&self) {
        let low = self.log.low();
        assert!(low <= self.executed, "h is never ahead of execution");
        assert!(self.executed <= self.log.high(), "execution stays inside the window");
        assert!(self.held_reads.is_empty() || self.tentative.is_some(), "a read waits for nothing");
        assert!(self.durable <= self.last_persist, "nothing is durable before it is written");
        for n in self.log.numbers() {
            let Some(entry) = self.log.get(n) else { continue };
            let digest = entry.digest();
            if entry.voted.is_some() {
                assert!(digest.is_some(), "{n:?}: voted without a PRE-PREPARE");
            }
            if entry.prepared.is_some() {
                assert!(entry.voted.is_some(), "{n:?}: prepared without a vote");
                let votes = digest.map_or(0, |digest| entry.prepares.count(digest));
                let recovered = n <= self.read_gate;
                assert!(
                    recovered || votes + 1 >= self.config.size.quorum(),
                    "{n:?}: prepared on {votes} PREPAREs"
                );
            }
            if n <= self.executed {
                assert!(entry.committed.is_some(), "{n:?}: executed but not committed");
            }
        }
        let named = self.view_changes.named.len();
        assert!(named <= self.config.size.n(), "I-8: {named} VIEW-CHANGEs that no NEW-VIEW names");
        self.checkpoints.check_invariants(low, self.executed);
        self.requests.check_invariants();
    }
}
