//! A small group of real replicas as a model: states, actions and properties.
//!
//! What the model leaves out, and why nothing is lost by it:
//! - Any message may overtake any other, or be late for ever.
//! - A replica may lose patience at any moment, as if f+1 others had said SUSPECT. So nobody need hear SUSPECT, and whatever
//!   belongs to a later view waits on its link until its receiver has left the earlier one by itself.
//! - In view 1, whose primary is correct, everyone is told the same. So nothing there waits, but for the VIEW-CHANGEs on their
//!   way to that primary: their order is what it founds its view on. Byzantine replicas vote for what it chose, which is the
//!   most that they can do to commit it while others are still behind.

use crate::common::{Cluster, Counter, Named};
use crate::forgery;
use bft_core::auth::Crypto;
use bft_core::io::{Destination, Input, Job, JobResult, Output};
use bft_core::messages::{Commit, Message, Prepare, Suspect};
use bft_core::replica::Replica;
use bft_core::types::*;
use stateright::{Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, RwLock};

/// What must never be.
pub const VIOLATIONS: [&str; 4] = [
    "two replicas disagree",
    "two certificates",
    "nobody asked for it",
    "a replica raises an alarm",
];

/// A message with its hash.
type Sent = Arc<(u64, Message)>;

fn sent(message: Message) -> Sent {
    Arc::new((print(&message), message))
}

/// Something that a Byzantine replica may tell each other replica. Of one kind it tells each only one.
#[derive(Clone)]
pub struct Lie {
    from: u32,
    kind: &'static str,
    sent: Sent,
}

impl Lie {
    pub fn new(from: u32, kind: &'static str, message: Message) -> Self {
        Self { from, kind, sent: sent(message) }
    }

    /// Whether this is a vote for `digest` in view 0.
    fn speaks_of(&self, digest: Digest) -> bool {
        matches!(&self.sent.1, Message::Commit(m) if m.digest == digest)
    }
}

/// One replica, and what it has done.
struct Node {
    /// Behind a lock only because it may not be shared between threads.
    replica: Mutex<Replica<Counter>>,
    view: (View, bool),
    /// Since the stable checkpoint: the batches that it executed for good, and the view it was in then.
    committed: BTreeMap<SequenceNumber, (Digest, View)>,
    /// The prepared certificates that it held.
    prepared: BTreeSet<(View, SequenceNumber, Digest)>,
    alarmed: bool,
    /// The hash of all that.
    print: u64,
}

/// A replica as it is after a message, and what it then sends.
type Heard = (Arc<Node>, Arc<[(Destination, Sent)]>);

/// A message on its way.
#[derive(Clone)]
struct Transit {
    from: u32,
    to: u32,
    sent: Sent,
}

impl Transit {
    fn key(&self) -> (u32, u32, u64) {
        (self.to, self.from, self.sent.0)
    }
}

#[derive(Clone)]
pub struct State {
    nodes: Vec<Arc<Node>>,
    /// What is on its way, in an order of its own.
    wire: Vec<Transit>,
    /// Bits: who was told a lie of which kind.
    told: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The message at this place arrives.
    Deliver(usize),
    LosePatience(u32),
    Tell {
        lie: usize,
        to: u32,
    },
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.nodes.iter().for_each(|node| node.print.hash(hasher));
        self.wire.iter().for_each(|transit| transit.key().hash(hasher));
        self.told.hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let print = |state: &State| {
            let mut hasher = DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        print(self) == print(other)
    }
}

impl Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, node) in self.nodes.iter().enumerate() {
            let committed: Vec<_> = node.committed.values().map(|(d, v)| (d.short(2), v)).collect();
            write!(f, "r{i} {:?} {committed:?}; ", node.view)?;
        }
        Ok(())
    }
}

/// A hasher of text.
struct Print(DefaultHasher);

impl Write for Print {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

fn print(value: &impl Debug) -> u64 {
    let mut print = Print(DefaultHasher::new());
    write!(print, "{value:?}").expect("hashing never fails");
    print.0.finish()
}

impl Node {
    fn new(replica: Replica<Counter>) -> Self {
        let (view, executed) = (replica.view(), replica.executed());
        let (committed, prepared) = (BTreeMap::new(), BTreeSet::new());
        let print = print(&(&replica, executed));
        let replica = Mutex::new(replica);
        Self { replica, view, committed, prepared, alarmed: false, print }
    }

    /// What becomes of this replica, me, when it hears all that.
    fn hear(&self, me: u32, heard: &[(u32, Sent)]) -> Heard {
        let mut replica = self.replica.lock().expect("no other panicked").clone();
        let (mut said, mut alarmed) = (Vec::new(), self.alarmed);
        let (mut committed, mut prepared) = (self.committed.clone(), self.prepared.clone());
        let before = replica.executed();
        for (from, message) in heard {
            let verified = replica.verify(Peer::Replica(ReplicaId(*from)), message.1.clone());
            if let Ok(message) = verified {
                alarmed |= handle(me, &mut replica, Input::Message(message), &mut said);
            }
        }
        prepared.extend(said.iter().filter_map(|(_, message)| match &message.1 {
            Message::Commit(m) => Some((m.view, m.n, m.digest)),
            _ => None,
        }));
        let view = replica.view();
        for n in (before.0 + 1..=replica.executed().0).map(SequenceNumber) {
            let digest = replica.executed_at(n).expect("in the log");
            committed.insert(n, (digest, view.0));
        }
        let print = print(&(&replica, &committed, &prepared, alarmed));
        let replica = Mutex::new(replica);
        (Arc::new(Self { replica, view, committed, prepared, alarmed, print }), said.into())
    }
}

/// Has replica `me` handle that, and whatever it asks its driver for. Says whether it raised an alarm.
fn handle(
    me: u32,
    replica: &mut Replica<Counter>,
    first: Input,
    said: &mut Vec<(Destination, Sent)>,
) -> bool {
    let (mut inputs, mut alarmed) = (VecDeque::from([first]), false);
    while let Some(input) = inputs.pop_front() {
        let mut outputs = Vec::new();
        replica.handle(NOW, input, &mut outputs);
        replica.check_invariants();
        for output in outputs {
            match output {
                Output::Persist { id, .. } => inputs.push_back(Input::Persisted(id)),
                Output::Send { to, message, .. } => said.push((to, sent(message))),
                Output::Job(Job::SignCheckpoint { n, digest, signed }) => {
                    let signature = Named(me as u8).sign(&signed);
                    let done = JobResult::CheckpointSigned { n, digest, signature };
                    inputs.push_back(Input::JobDone(done));
                }
                Output::Alarm(_) => alarmed = true,
                _ => {}
            }
        }
    }
    alarmed
}

/// Nothing here depends on time.
const NOW: Now = Now { tick: Tick(1), wall: Time(1_000_000_000_000) };

/// The model.
pub struct Group {
    n: u32,
    byzantine: Vec<u32>,
    lies: Vec<Lie>,
    /// Whether replicas may leave view 0.
    impatient: bool,
    /// Whether correct replicas' VIEW-CHANGEs leave out what they prepared, to see that this is found.
    forgetful: bool,
    /// What may execute.
    valid: BTreeSet<Digest>,
    initial: State,
    heard: RwLock<BTreeMap<(u32, u64, u64), Heard>>,
}

impl Group {
    /// Begins where `cluster` is; its messages on their way are on the links.
    pub fn new(mut cluster: Cluster, byzantine: &[u32], lies: Vec<Lie>, valid: &[Digest]) -> Self {
        let n = cluster.config.size.n() as u32;
        let wire = std::mem::take(&mut cluster.wire);
        let nodes = cluster.replicas.into_iter().map(|replica| Arc::new(Node::new(replica)));
        let mut group = Self {
            n,
            byzantine: byzantine.to_vec(),
            lies,
            impatient: false,
            forgetful: false,
            valid: valid.iter().copied().collect(),
            initial: State { nodes: nodes.collect(), wire: Vec::new(), told: 0 },
            heard: RwLock::default(),
        };
        let mut initial = group.initial.clone();
        for (from, to, message) in wire {
            group.put(&mut initial, from.0, to, sent(message));
        }
        group.settle(&mut initial);
        group.initial = initial;
        group
    }

    pub fn impatient(self) -> Self {
        Self { impatient: true, ..self }
    }

    pub fn forgetful(self) -> Self {
        Self { forgetful: true, ..self }
    }

    fn committed_in<'a>(
        &'a self,
        state: &'a State,
        view: u64,
    ) -> impl Iterator<Item = (SequenceNumber, Digest)> + 'a {
        let all = self.correct().flat_map(|i| &state.nodes[i as usize].committed);
        all.filter(move |(_, (_, v))| v.0 == view).map(|(n, (digest, _))| (*n, *digest))
    }

    fn correct(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.n).filter(|i| !self.byzantine.contains(i))
    }

    fn put(&self, state: &mut State, from: u32, to: Destination, mut message: Sent) {
        if let (true, Message::ViewChange(m)) = (self.forgetful, &message.1) {
            let mut m = m.clone();
            m.prepared.clear();
            forgery::sign_view_change(&mut m);
            message = sent(Message::ViewChange(m));
        }
        let is_to = |i: u32| match to {
            Destination::Replicas => i != from,
            Destination::Replica(other) => i == other.0,
            Destination::Client(_) => false,
        };
        for to in self.correct().filter(|i| is_to(*i)) {
            let transit = Transit { from, to, sent: message.clone() };
            let place = state.wire.partition_point(|other| other.key() <= transit.key());
            state.wire.insert(place, transit);
        }
        match &message.1 {
            Message::NewView(m) if to == Destination::Replicas => {
                let chosen = (m.stable.0 + 1..).map(SequenceNumber).zip(m.batches.iter().copied());
                chosen.for_each(|(n, digest)| self.help(state, m.view, n, digest));
            }
            Message::PrePrepare(m) if to == Destination::Replicas && m.view.0 > 0 => {
                let batch = forgery::Batch { time: m.time, entries: m.batch.clone() };
                self.help(state, m.view, m.n, batch.digest());
            }
            _ => {}
        }
    }

    /// The Byzantine replicas vote for what a correct primary has chosen.
    fn help(&self, state: &mut State, view: View, n: SequenceNumber, digest: Digest) {
        let prepare = sent(Message::Prepare(Prepare { view, n, digest }));
        let commit = sent(Message::Commit(Commit { view, n, digest }));
        for from in &self.byzantine {
            for vote in [&prepare, &commit] {
                self.put(state, *from, Destination::Replicas, vote.clone());
            }
        }
    }

    /// Replica `i` hears that. The same replica does the same when it hears the same, so it is computed once.
    fn hear(&self, state: &mut State, i: u32, from_and_what: &[(u32, Sent)]) {
        let node = &state.nodes[i as usize];
        let mut hasher = DefaultHasher::new();
        from_and_what.iter().for_each(|(from, sent)| (from, sent.0).hash(&mut hasher));
        let key = (i, node.print, hasher.finish());
        let known = self.heard.read().expect("no other panicked").get(&key).cloned();
        let (node, said) = known.unwrap_or_else(|| {
            let heard = node.hear(i, from_and_what);
            self.heard.write().expect("no other panicked").insert(key, heard.clone());
            heard
        });
        state.nodes[i as usize] = node;
        for (to, message) in said.iter() {
            self.put(state, i, *to, message.clone());
        }
    }

    fn deliver(&self, state: &mut State, place: usize) {
        let Transit { from, to, sent } = state.wire.remove(place);
        self.hear(state, to, &[(from, sent)]);
    }

    /// Takes from the wire what has no effect any more, and delivers what nobody need wait for.
    fn settle(&self, state: &mut State) {
        loop {
            let State { nodes, wire, .. } = state;
            wire.retain(|t| !is_stale(&t.sent.1, nodes[t.to as usize].view));
            let hurries = |t: &Transit| self.fate(state, t) == Fate::Hurries;
            let Some(place) = state.wire.iter().position(hurries) else { return };
            self.deliver(state, place);
        }
    }

    fn fate(&self, state: &State, transit: &Transit) -> Fate {
        let (message, to) = (&transit.sent.1, transit.to);
        let (view, active) = state.nodes[to as usize].view;
        match (view_of(message), message) {
            (Some(of), _) if of > view => Fate::Waits,
            (Some(View(0)), _) => Fate::IsOpen,
            (_, Message::ViewChange(_)) if primary(view, self.n) == to => Fate::IsOpen,
            // It comes behind the NEW-VIEW.
            (_, Message::PrePrepare(_)) if !active => Fate::Waits,
            _ => Fate::Hurries,
        }
    }

    /// Whom a lie may be told in this state.
    fn may_tell(&self, state: &State, lie: usize, to: u32) -> bool {
        let (view, active) = state.nodes[to as usize].view;
        let message = &self.lies[lie].sent.1;
        let of_this_view = match message {
            // Only the primary founds anything on it; the others hear of it from then on.
            Message::ViewChange(m) => view == m.view && !active && primary(view, self.n) == to,
            _ => view_of(message) == Some(view),
        };
        of_this_view && state.told & self.told_bit(lie, to) == 0
    }

    fn told_bit(&self, lie: usize, to: u32) -> u64 {
        let of = |lie: &Lie| (lie.from, lie.kind);
        let first = self.lies.iter().position(|other| of(other) == of(&self.lies[lie]));
        1 << (first.expect("itself") as u32 * self.n + to)
    }
}

fn primary(view: View, n: u32) -> u32 {
    (view.0 % u64::from(n)) as u32
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It may come now or later.
    IsOpen,
    /// It may not come yet.
    Waits,
    /// It comes at once.
    Hurries,
}

/// The view to which `message` belongs.
fn view_of(message: &Message) -> Option<View> {
    match message {
        Message::PrePrepare(m) => Some(m.view),
        Message::Prepare(m) => Some(m.view),
        Message::Commit(m) => Some(m.view),
        Message::ViewChange(m) => Some(m.view),
        Message::NewView(m) => Some(m.view),
        _ => None,
    }
}

/// Whether a replica in this view drops `message` now and for ever, or need not hear it in this model.
fn is_stale(message: &Message, (view, active): (View, bool)) -> bool {
    match message {
        Message::ViewChange(_) | Message::NewView(_) if active => view_of(message) <= Some(view),
        // Every body is everywhere, and nobody lags behind a checkpoint.
        Message::Request(_) | Message::Status(_) | Message::Suspect(_) => true,
        Message::Unauthenticated(_) | Message::Checkpoint(_) => true,
        _ => view_of(message).is_some_and(|of| of < view),
    }
}

impl Model for Group {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.initial.clone()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let is_open = |place: &usize| self.fate(state, &state.wire[*place]) == Fate::IsOpen;
        actions.extend((0..state.wire.len()).filter(is_open).map(Action::Deliver));
        for to in self.correct() {
            if self.impatient && state.nodes[to as usize].view == (View(0), true) {
                actions.push(Action::LosePatience(to));
            }
            let lies = (0..self.lies.len()).filter(|lie| self.may_tell(state, *lie, to));
            actions.extend(lies.map(|lie| Action::Tell { lie, to }));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver(place) => self.deliver(&mut state, place),
            Action::LosePatience(i) => {
                let view = state.nodes[i as usize].view.0;
                let suspect = sent(Message::Suspect(Suspect { view }));
                let others = (0..self.n).filter(|other| *other != i).take(2);
                let all: Vec<_> = others.map(|other| (other, suspect.clone())).collect();
                self.hear(&mut state, i, &all);
            }
            Action::Tell { lie, to } => {
                state.told |= self.told_bit(lie, to);
                let Lie { from, sent, .. } = &self.lies[lie];
                self.hear(&mut state, to, &[(*from, sent.clone())]);
                if let Message::ViewChange(_) = sent.1 {
                    for other in self.correct().filter(|other| *other != to) {
                        let to = Destination::Replica(ReplicaId(other));
                        self.put(&mut state, *from, to, sent.clone());
                    }
                }
            }
        }
        self.settle(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(VIOLATIONS[0], |group: &Group, state: &State| {
                let mut agreed = BTreeMap::new();
                let mut all = group.correct().flat_map(|i| &state.nodes[i as usize].committed);
                all.all(|(n, (digest, _))| agreed.entry(n).or_insert(digest) == &digest)
            }),
            Property::always(VIOLATIONS[1], |group: &Group, state: &State| {
                let mut certified = BTreeMap::new();
                let mut all = group.correct().flat_map(|i| &state.nodes[i as usize].prepared);
                all.all(|(v, n, digest)| certified.entry((v, n)).or_insert(digest) == &digest)
            }),
            Property::always(VIOLATIONS[2], |group: &Group, state: &State| {
                let mut all = group.correct().flat_map(|i| &state.nodes[i as usize].committed);
                all.all(|(_, (digest, _))| group.valid.contains(digest))
            }),
            Property::always(VIOLATIONS[3], |group: &Group, state: &State| {
                group.correct().all(|i| !state.nodes[i as usize].alarmed)
            }),
            Property::sometimes("a batch commits in view 0", |group: &Group, state: &State| {
                group.committed_in(state, 0).next().is_some()
            }),
            Property::sometimes("a batch survives its view", |group: &Group, state: &State| {
                let later: Vec<_> = group.committed_in(state, 1).collect();
                group.committed_in(state, 0).any(|batch| later.contains(&batch))
            }),
            Property::sometimes("another batch takes its place", |group: &Group, state: &State| {
                let mut later = group.committed_in(state, 1);
                later.any(|(_, digest)| !group.lies.iter().any(|lie| lie.speaks_of(digest)))
            }),
        ]
    }
}
