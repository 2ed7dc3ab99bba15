//! A session with a group: the sans-IO client of `bft-core` on the links of `bft-net`, as the [`Backend`] of the front ends.
//!
//! The thread that brings a kernel request encodes it and writes it to the sockets itself; the network's thread reads the
//! replies and answers the kernel itself. No message passes from one thread to the other.

mod given_up;

use self::given_up::GivenUp;
use crate::backend::{Backend, Outvoted};
use crate::evidence;
use crate::failure::{Exit, Failure, Outcome};
use crate::mount_state;
use crate::options::Patience;
use crate::status::{Observation, ReplicaHealth, Survey};
use bfs_fs::op::{FsError, FsRequest, FsResult, decode_result, encode_request};
use bft_core::auth::{Crypto, PublicKey, RealCrypto};
use bft_core::client::{Client, ClientConfig, ClientError, ClientInput, ClientOutput};
use bft_core::clients::{ClientsOp, ClientsReply};
use bft_core::codec;
use bft_core::evidence::{Accusation, Proof};
use bft_core::messages::{Health, Message, SessionId};
use bft_core::replica::Config;
use bft_core::types::{ClientId, ClusterSize, GroupId, Peer, ReplicaId, Tick};
use bft_net::error::LinkError;
use bft_net::group::Group;
use bft_net::hub::{Endpoint, Hub, HubConfig, Links};
use bft_net::keys::Identity;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long `connect` waits for a quorum to answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long the replicas have to tell a client its number.
const NUMBER_LIMIT: Duration = Duration::from_secs(5);
/// How long `survey` waits for the last replica.
const SURVEY_LIMIT: Duration = Duration::from_millis(1500);
/// After how long an operation that waits is spoken of, and how often.
const WAITING_NOTICE: Duration = Duration::from_secs(5);
/// How long an answer may take before the request is sent again.
const RETRY: Duration = Duration::from_millis(400);
const RETRY_MAX: Duration = Duration::from_secs(4);

/// What ends the wait for an operation's result.
type Done = Box<dyn FnOnce(Result<Bytes, SessionError>) + Send>;

/// Why an operation has no result. All of them are EIO to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// A newer session of the same key ended this one; the outcome is unknown.
    Ended,
    /// The administrator has revoked this client; the outcome is unknown.
    Revoked,
    /// The patience of a soft mount is over.
    TimedOut,
    /// `umount --force`, or the end of this process.
    Aborted,
}

impl std::fmt::Display for SessionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SessionError::Ended => "a newer session with the same key ended this one",
            SessionError::Revoked => "the administrator has revoked this client",
            SessionError::TimedOut => "no quorum answered in time",
            SessionError::Aborted => "it was given up here",
        })
    }
}

/// An open session. Dropping it closes the links.
pub struct Session {
    hub: Hub<Driver>,
    shared: Arc<Shared>,
    network: Option<std::thread::JoinHandle<()>>,
    stop: Arc<tokio::sync::Notify>,
}

/// What the network's thread tells whoever waits for it.
#[derive(Default)]
struct Shared {
    state: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    opened: bool,
    health: BTreeMap<ReplicaId, (Health, Duration)>,
    /// Which number each replica says that this client has.
    numbers: BTreeMap<ReplicaId, ClientId>,
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until `done` or the deadline; says whether it was `done`.
    fn wait(&self, limit: Duration, done: impl Fn(&Progress) -> bool) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, limit, |state| !done(state));
        waited.is_ok_and(|(state, _)| done(&state))
    }
}

/// What runs under the hub's lock.
struct Driver {
    client: Client,
    started: Instant,
    deadline: Option<Instant>,
    waiting: BTreeMap<u64, Waiting>,
    given_up: GivenUp<ClientInput>,
    next_token: u64,
    patience: Patience,
    notice_at: Option<Instant>,
    outputs: Vec<ClientOutput>,
    shared: Arc<Shared>,
    /// Asking for health instead of opening a session.
    nonce: Option<u64>,
    connected: Vec<bool>,
    quorum: usize,
    failed: bool,
    said_ended: bool,
    /// How many replies of each replica had been outvoted when it last connected.
    outvoted_before: Vec<u64>,
}

struct Waiting {
    since: Instant,
    done: Done,
}

impl Driver {
    fn tick(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn input(&mut self, input: ClientInput, links: &mut Links) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.client.handle(self.tick(), input, &mut outputs);
        for output in outputs.drain(..) {
            self.perform(output, links);
        }
        self.outputs = outputs;
    }

    fn outvoted(&self) -> Vec<Outvoted> {
        let totals = self.client.outvoted().iter().zip(&self.outvoted_before);
        totals.map(|(total, before)| Outvoted { total: *total, lately: total - before }).collect()
    }

    /// What its replica said before it connected may have been another one's words: it may have been set up anew.
    fn forget_outvoted(&mut self, replica: ReplicaId) {
        let total = self.client.outvoted().get(replica.index()).copied();
        if let (Some(before), Some(total)) = (self.outvoted_before.get_mut(replica.index()), total)
        {
            *before = total;
        }
    }

    fn perform(&mut self, output: ClientOutput, links: &mut Links) {
        match output {
            ClientOutput::Send { to, message } => {
                links.send_with(Peer::Replica(to), |frame| codec::encode(&message, frame));
            }
            ClientOutput::Broadcast(message) => {
                let all = (0..self.connected.len() as u32).map(|i| Peer::Replica(ReplicaId(i)));
                links.broadcast(all, |frame| codec::encode(&message, frame));
            }
            ClientOutput::SetTimer(at) => {
                self.deadline = Some(self.started + Duration::from_micros(at.0));
            }
            ClientOutput::Opened => self.shared.update(|progress| progress.opened = true),
            // The clock went back since the last session: go on from what the group remembers.
            ClientOutput::Refused { epoch } => {
                let Some(next) = epoch.checked_add(1) else { return };
                let input = ClientInput::Open(session_id(next));
                let mut outputs = Vec::new();
                self.client.handle(self.tick(), input, &mut outputs);
                outputs.into_iter().for_each(|output| self.perform(output, links));
            }
            ClientOutput::Done { token, result } => {
                if let Some(waiting) = self.waiting.remove(&token) {
                    let result = result.map_err(|error| self.ended(error));
                    links.defer(move || (waiting.done)(result));
                }
                for (_, input) in self.given_up.ended(token) {
                    self.input(input, links);
                }
            }
        }
    }

    fn submit(&mut self, op: Bytes, read_only: bool, done: Done, links: &mut Links) {
        self.begin(done, links, |token| ClientInput::Submit { token, op, read_only });
    }

    /// Hands the client what `input` makes of a fresh token.
    fn begin(&mut self, done: Done, links: &mut Links, input: impl FnOnce(u64) -> ClientInput) {
        if self.failed {
            return links.defer(move || done(Err(SessionError::Aborted)));
        }
        let token = self.next_token;
        self.next_token += 1;
        let since = Instant::now();
        self.waiting.insert(token, Waiting { since, done });
        if self.notice_at.is_none() {
            self.notice_at = Some(since + self.first_notice());
        }
        if let Some(input) = self.given_up.admit(token, input(token)) {
            self.input(input, links);
        }
    }

    /// Says once why nothing succeeds any more.
    fn ended(&mut self, error: ClientError) -> SessionError {
        if !std::mem::replace(&mut self.said_ended, true) {
            tracing::error!("{error}");
        }
        match error {
            ClientError::OutcomeUnknown => SessionError::Ended,
            ClientError::Revoked => SessionError::Revoked,
        }
    }

    fn first_notice(&self) -> Duration {
        match self.patience {
            Patience::Hard => WAITING_NOTICE,
            Patience::Soft(limit) => limit.min(WAITING_NOTICE),
        }
    }

    /// Gives up what has waited too long, and says so where operations wait.
    fn look_at_waiting(&mut self, now: Instant, links: &mut Links) {
        if let Patience::Soft(limit) = self.patience {
            let late = |waiting: &Waiting| now.duration_since(waiting.since) >= limit;
            let late: Vec<u64> =
                self.waiting.iter().filter(|(_, w)| late(w)).map(|(t, _)| *t).collect();
            for token in late {
                tracing::warn!(
                    "input/output error: no quorum answered within {} s ({})",
                    limit.as_secs_f64(),
                    self.reach()
                );
                self.end(token, SessionError::TimedOut, links);
            }
        }
        let oldest = self.waiting.values().map(|waiting| waiting.since).min();
        if let Some(oldest) = oldest
            && now.duration_since(oldest) >= WAITING_NOTICE
        {
            let age = now.duration_since(oldest).as_secs();
            tracing::warn!(
                "waiting for quorum: {}, {} operations, the oldest for {age} s",
                self.reach(),
                self.waiting.len()
            );
        }
        self.notice_at = oldest.map(|oldest| match self.patience {
            Patience::Soft(limit) => {
                (oldest + limit).max(now + Duration::from_millis(10)).min(now + WAITING_NOTICE)
            }
            Patience::Hard => now + WAITING_NOTICE,
        });
    }

    fn reach(&self) -> String {
        let reached = self.connected.iter().filter(|up| **up).count();
        format!("{reached} of {} replicas reachable, {} needed", self.connected.len(), self.quorum)
    }

    fn end(&mut self, token: u64, why: SessionError, links: &mut Links) {
        if let Some(waiting) = self.waiting.remove(&token) {
            links.defer(move || (waiting.done)(Err(why)));
            self.given_up.give_up(token);
        }
    }

    fn fail_all(&mut self, links: &mut Links) {
        self.failed = true;
        let tokens: Vec<u64> = self.waiting.keys().copied().collect();
        tokens.into_iter().for_each(|token| self.end(token, SessionError::Aborted, links));
    }
}

impl Endpoint for Driver {
    fn on_frame(&mut self, from: Peer, frame: &[u8], links: &mut Links) {
        let Peer::Replica(from) = from else { return };
        match codec::decode(frame) {
            Ok(Message::Health(health)) if self.nonce == Some(health.nonce) => {
                let latency = self.started.elapsed();
                self.shared.update(|progress| {
                    progress.health.insert(from, (health, latency));
                });
            }
            Ok(message) => {
                if let Message::NewKey(key) = &message {
                    self.shared.update(|progress| {
                        progress.numbers.insert(from, key.client);
                    });
                }
                self.input(ClientInput::Message(from, message), links);
            }
            Err(why) => tracing::debug!("{from:?} sent what is {why}"),
        }
    }

    fn on_link(&mut self, peer: Peer, up: bool, links: &mut Links) {
        let Peer::Replica(replica) = peer else { return };
        if let Some(connected) = self.connected.get_mut(replica.index()) {
            *connected = up;
        }
        if up {
            self.forget_outvoted(replica);
        }
        match self.nonce {
            Some(nonce) if up => {
                links.send_with(peer, |frame| codec::encode(&Message::HealthQuery(nonce), frame));
            }
            None if up => self.input(ClientInput::Connected(replica), links),
            _ => {}
        }
    }

    fn on_deadline(&mut self, links: &mut Links) {
        let now = Instant::now();
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            self.input(ClientInput::Timeout, links);
        }
        if self.notice_at.is_some_and(|at| at <= now) {
            self.look_at_waiting(now, links);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.notice_at).min()
    }
}

/// A session of a fresh epoch: the clock ascends, also across restarts of this process.
fn session_id(least: u64) -> SessionId {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = u64::try_from(clock.as_nanos()).unwrap_or(u64::MAX).max(least);
    SessionId { epoch, nonce: random() }
}

/// A number that nobody can guess.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without entropy from the operating system nothing here is safe to run.
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    u64::from_le_bytes(bytes)
}

/// What stands for a client's number until the replicas have told it.
const UNNUMBERED: ClientId = ClientId(u32::MAX >> 1);

/// Reads the group and this client's keys, and finds which client of the group it is: nothing says so of one that was
/// registered later.
///
/// Errors: bad files; a replica's keys.
fn load(file: &Path, key: &Path) -> Outcome<(Arc<Group>, Identity, Option<ClientId>)> {
    let group = Group::load(file).map_err(|error| {
        Failure::new(format!("cannot use the group file {}", file.display()), error)
            .exit(Exit::Keys)
    })?;
    let identity = Identity::load(key).map_err(|error| {
        Failure::new(format!("cannot use the keys in {}", key.display()), error).exit(Exit::Keys)
    })?;
    match group.peer_of(&identity.public().link) {
        Some(Peer::Client(client)) => Ok((Arc::new(group), identity, Some(client))),
        None => Ok((Arc::new(group), identity, None)),
        Some(Peer::Replica(i)) => {
            let what = format!("the keys in {} are not a client's of this group", key.display());
            let why = format!("they are those of replica {i:?}");
            let failure = Failure::new(what, why).exit(Exit::Keys);
            Err(failure.advise("name the folder that bfs init made: --key KEYDIR"))
        }
    }
}

/// Asks the replicas which number a client has that the group file does not list: f+1 must say the same.
///
/// Errors: they do not.
fn learn_number(group: &Arc<Group>, key: &Path) -> Outcome<ClientId> {
    let weak = group.size().weak();
    let identity = Identity::load(key).map_err(|error| {
        Failure::new(format!("cannot use the keys in {}", key.display()), error).exit(Exit::Keys)
    })?;
    let asking = Session::start(group, identity, UNNUMBERED, Patience::Hard, Some(random()))?;
    let agreed = |progress: &Progress| {
        let times = |c: &&ClientId| progress.numbers.values().filter(|n| n == c).count();
        progress.numbers.values().find(|c| times(c) >= weak).copied()
    };
    asking.shared.wait(NUMBER_LIMIT, |progress| agreed(progress).is_some());
    let progress = asking.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    agreed(&progress).ok_or_else(|| {
        let what = format!("the keys in {} are no client's of group {}", key.display(), group.id());
        let why = format!("the group file does not list them, and no {weak} replicas know them");
        Failure::new(what, why).exit(Exit::Keys).advise(
            "have the administrator register this client: bfs client add GROUP PUBLIC, with its public.toml; see also bfs status",
        )
    })
}

impl Session {
    fn start(
        group: &Arc<Group>,
        identity: Identity,
        me: ClientId,
        patience: Patience,
        nonce: Option<u64>,
    ) -> Outcome<Self> {
        let size = group.size();
        let shared = Arc::new(Shared::default());
        let config = ClientConfig {
            group: group.id(),
            size,
            me,
            inline_bytes: Config::new(size, ReplicaId(0)).inline_bytes,
            retry: RETRY,
            retry_max: RETRY_MAX,
            crypto: Arc::new(RealCrypto::new(identity.signing_seed())),
        };
        let driver = Driver {
            client: Client::new(config),
            started: Instant::now(),
            deadline: None,
            waiting: BTreeMap::new(),
            given_up: GivenUp::default(),
            next_token: 1,
            patience,
            notice_at: None,
            outputs: Vec::new(),
            shared: shared.clone(),
            nonce,
            connected: vec![false; size.n()],
            quorum: size.quorum(),
            failed: false,
            said_ended: false,
            outvoted_before: vec![0; size.n()],
        };
        let config =
            HubConfig { identity, group: group.clone(), me: Peer::Client(me), listen: None };
        let stop = Arc::new(tokio::sync::Notify::new());
        let (sender, receiver) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let cannot =
            |error: &dyn std::fmt::Display| Failure::new("cannot start the network thread", error);
        let network = std::thread::Builder::new().name("bfs-network".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(sender.send(Err(error))),
            };
            runtime.block_on(async move {
                let hub = Hub::start(config, driver);
                if sender.send(Ok(hub.clone())).is_ok() {
                    stopped.notified().await;
                }
                hub.shutdown().await;
            });
        });
        let network = network.map_err(|error| cannot(&error))?;
        match receiver.recv() {
            Ok(Ok(hub)) => Ok(Self { hub, shared, network: Some(network), stop }),
            Ok(Err(error)) => Err(cannot(&error)),
            Err(error) => Err(cannot(&error)),
        }
    }

    /// Runs an operation given in bytes; `done` runs exactly once, on whichever thread brings the answer.
    pub fn submit(
        &self,
        op: Bytes,
        read_only: bool,
        done: impl FnOnce(Result<Bytes, SessionError>) + Send + 'static,
    ) {
        self.hub.with(|driver, links| driver.submit(op, read_only, Box::new(done), links));
    }

    /// Asks about the clients of the group, and waits for the answer.
    ///
    /// Errors: as an operation's.
    pub fn ask_of_clients(&self, op: ClientsOp) -> Result<ClientsReply, SessionError> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let done: Done = Box::new(move |result| drop(sender.send(result)));
        self.hub.with(|driver, links| {
            driver.begin(done, links, |token| ClientInput::AskOfClients { token, op });
        });
        let bytes = receiver.recv().unwrap_or(Err(SessionError::Aborted))?;
        // What 2f+1 replicas agree on decodes.
        ClientsReply::from_bytes(&bytes).map_err(|_| SessionError::Aborted)
    }

    /// Runs one operation and waits for its result.
    pub fn perform(&self, request: FsRequest) -> FsResult {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.call(request, Box::new(move |result| drop(sender.send(result))));
        receiver.recv().unwrap_or(Err(FsError::Io))
    }
}

impl Backend for Session {
    fn call(&self, request: FsRequest, done: Box<dyn FnOnce(FsResult) + Send>) {
        let read_only = request.op.is_read_only();
        self.submit(encode_request(&request), read_only, move |result| {
            let decoded = result.ok().and_then(|bytes| decode_result(&bytes));
            done(decoded.unwrap_or(Err(FsError::Io)));
        });
    }

    fn fail_all(&self) {
        self.hub.with(|driver, links| driver.fail_all(links));
    }

    fn outvoted(&self) -> Vec<Outvoted> {
        self.hub.with(|driver, _| driver.outvoted())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.fail_all();
        self.stop.notify_one();
        if let Some(network) = self.network.take() {
            // A panic there has been reported where it happened.
            let _ = network.join();
        }
    }
}

/// Which group `file` describes, and the public key of whoever holds the keys in the folder `key`, in hexadecimal digits.
///
/// Errors: bad files; a replica's keys.
pub fn who(file: &Path, key: &Path) -> Outcome<(GroupId, String)> {
    let (group, identity, _) = load(file, key)?;
    let digits = identity.public().link.map(|byte| format!("{byte:02x}"));
    Ok((group.id(), digits.concat()))
}

/// Opens a session with the group described in `file` by the keys in the folder `key`.
///
/// Effects: returns after a first round trip with a quorum.
/// Errors: bad files or keys; no quorum within 15 s.
pub fn connect(file: &Path, key: &Path, patience: Patience) -> Outcome<(Arc<Session>, GroupId)> {
    let (group, identity, listed) = load(file, key)?;
    let me = listed.map_or_else(|| learn_number(&group, key), Ok)?;
    let session = Session::start(&group, identity, me, patience, None)?;
    session.hub.with(|driver, links| driver.input(ClientInput::Open(session_id(0)), links));
    if session.shared.wait(CONNECT_LIMIT, |progress| progress.opened) {
        return Ok((Arc::new(session), group.id()));
    }
    let reach = session.hub.with(|driver, _| driver.reach());
    let what =
        format!("no answer from a quorum of group {} in {} s", group.id(), CONNECT_LIMIT.as_secs());
    Err(Failure::new(what, reach).exit(Exit::Timeout).advise(
        "start the replicas (bfs-replica run), and see bfs status; a replica with another group file refuses this client",
    ))
}

fn accusations(progress: &Progress, by: ReplicaId) -> Vec<Accusation> {
    progress.health.get(&by).map_or_else(Vec::new, |(health, _)| health.accusations.clone())
}

/// Whether replicas hang up on this client, at least as often as there are replicas, and nothing else is wrong with any of
/// them: so they treat whoever they do not know. `faults` is what went wrong with the links, by kind.
fn are_hanging_up(size: ClusterSize, faults: &[(&str, u64)]) -> bool {
    matches!(faults, [(kind, times)] if *kind == LinkError::Closed.kind() && *times >= size.n() as u64)
}

/// Why every replica may hang up on the client whose keys are in `key`, and whom the group file lists or not.
fn unknown(group: &Group, key: &Path, is_listed: bool) -> Failure {
    let what =
        format!("the replicas of group {} may not know the keys in {}", group.id(), key.display());
    let why = match is_listed {
        true => "they run and hang up, so this client may have been revoked",
        false => "they run and hang up, and the group file does not list this client",
    };
    Failure::new(what, why).exit(Exit::Keys).advise(
        "have the administrator register this client: bfs client add GROUP PUBLIC, with its public.toml; if it is registered, ask again",
    )
}

/// Asks every replica how it is.
///
/// Errors: bad files or keys, or those of a live mount, whose links a second session would take over; every replica hangs up.
/// One that does not answer is part of the result.
pub fn survey(file: &Path, key: &Path) -> Outcome<Survey> {
    let (group, identity, listed) = load(file, key)?;
    mount_state::expect_unused(&group.id().to_string(), &who(file, key)?.1, key)?;
    let (me, nonce) = (listed.unwrap_or(UNNUMBERED), random());
    let session = Session::start(&group, identity, me, Patience::Hard, Some(nonce))?;
    let size = group.size();
    session.shared.wait(SURVEY_LIMIT, |progress| progress.health.len() == size.n());
    let faults: Vec<_> = session.hub.with(|_, links| links.faults().collect());
    let progress = session.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    if progress.health.is_empty() && are_hanging_up(size, &faults) {
        return Err(unknown(&group, key, listed.is_some()));
    }
    let replicas = size.replicas().zip(&group.replicas).map(|(id, member)| ReplicaHealth {
        id,
        address: member.address.clone(),
        observation: progress.health.get(&id).map(|(health, latency)| Observation {
            view: health.view,
            last_executed: health.executed,
            stable: health.stable,
            stable_digest: health.digest,
            phase: health.phase,
            latency: *latency,
        }),
    });
    let said: Vec<_> = size.replicas().map(|id| accusations(&progress, id)).collect();
    let outvoted = mount_state::outvoted(&group.id().to_string());
    let verifier = RealCrypto::new(&[0; 32]);
    let holds = |proof: &Proof| {
        proof.holds(group.id(), size, |i, digest, signature| {
            let member = group.replicas.get(i.index());
            let key = member.map(|member| PublicKey(member.identity.signing));
            key.is_some_and(|key| verifier.verify(&key, digest, signature))
        })
    };
    let evidence = evidence::weigh(size, &said, &outvoted, holds);
    let checkpoint_interval = group.parameters.checkpoint_interval;
    let replicas = replicas.collect();
    Ok(Survey { group: group.id(), size, checkpoint_interval, replicas, evidence })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_hang_up_where_nothing_else_is_wrong_and_often_enough() {
        let hang_up = |faults: &[_]| are_hanging_up(ClusterSize::new(4, 1).unwrap(), faults);
        assert!(hang_up(&[("closed", 24)]));
        assert!(!hang_up(&[]), "they are slow");
        assert!(!hang_up(&[("closed", 3)]), "some of them are");
        assert!(!hang_up(&[("closed", 18), ("io", 6)]), "one does not run");
        assert!(!hang_up(&[("group-mismatch", 24)]));
    }
}
