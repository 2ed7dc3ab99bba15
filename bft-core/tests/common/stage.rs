//! Where a trace plays: a group, what is on its way, what is held or lost, and one line for everything that happens.

use crate::common::{Cluster, Counter};
use crate::forgery::Batch;
use bft_core::io::Rejection;
use bft_core::messages::{
    BatchEntry, Claim, Message, Outcome, Phase, ResultBody, ViewChange, batch_digest, null_request,
};
use bft_core::tree::ObjectId;
use bft_core::types::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

/// A message on its way, and to whom it has yet to come.
#[derive(Clone)]
pub struct Transit {
    pub from: u32,
    pub to: BTreeSet<u32>,
    pub message: Message,
}

/// Which messages a command speaks of. What is not given matches anything.
#[derive(Clone, Default)]
pub struct Filter {
    pub from: Option<Vec<u32>>,
    pub to: Option<Vec<u32>>,
    pub kind: Option<Vec<String>>,
    pub n: Option<u64>,
}

impl Filter {
    pub fn matches(&self, from: u32, to: u32, message: &Message) -> bool {
        let listed =
            |list: &Option<Vec<u32>>, i| list.as_ref().is_none_or(|list| list.contains(&i));
        let kind = self.kind.as_ref();
        listed(&self.from, from)
            && listed(&self.to, to)
            && kind.is_none_or(|kinds| kinds.iter().any(|kind| kind == message.name()))
            && self.n.is_none_or(|n| number(message) == Some(n))
    }
}

/// n, of the messages that have one.
fn number(message: &Message) -> Option<u64> {
    match message {
        Message::PrePrepare(m) => Some(m.n.0),
        Message::Prepare(m) => Some(m.n.0),
        Message::Commit(m) => Some(m.n.0),
        Message::Committed(m) => Some(m.n.0),
        Message::Checkpoint(m) => Some(m.n.0),
        Message::Reply(m) => Some(m.n.0),
        _ => None,
    }
}

/// What stands in the way of messages until the network heals.
#[derive(Clone)]
pub struct Rule {
    pub filter: Filter,
    /// Lost, rather than held.
    pub drop: bool,
}

/// What is visible of one replica: a change of it is a line of the trace.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Visible {
    view: View,
    phase: Phase,
    executed: SequenceNumber,
    tentative: Option<SequenceNumber>,
    stable: SequenceNumber,
}

pub struct Stage {
    pub group: Cluster,
    pub byzantine: BTreeSet<u32>,
    pub wire: VecDeque<Transit>,
    pub rules: Vec<Rule>,
    pub delivered: Vec<Transit>,
    /// Per sequence number the batch that correct replicas executed.
    pub ledger: BTreeMap<u64, Digest>,
    pub batches: BTreeMap<String, Batch>,
    /// VIEW-CHANGEs that were sent, by sender and view, and those that the trace made up, by name.
    pub view_changes: BTreeMap<String, ViewChange>,
    pub answers: Vec<(u32, Message)>,
    pub rejections: Vec<(u32, Rejection)>,
    labels: BTreeMap<Digest, String>,
    seen: Vec<Visible>,
}

impl Stage {
    pub fn new(group: Cluster, byzantine: BTreeSet<u32>) -> Self {
        let labels = BTreeMap::from([(null_request(), "null".to_string())]);
        let mut stage = Self {
            group,
            byzantine,
            wire: VecDeque::new(),
            rules: Vec::new(),
            delivered: Vec::new(),
            ledger: BTreeMap::new(),
            batches: BTreeMap::new(),
            view_changes: BTreeMap::new(),
            answers: Vec::new(),
            rejections: Vec::new(),
            labels,
            seen: Vec::new(),
        };
        for n in (1..=stage.group.replicas[0].executed().0).map(SequenceNumber) {
            if let Some(digest) = stage.group.replicas[0].executed_at(n) {
                stage.label(digest, "session".into());
            }
        }
        stage.observe(&mut String::new());
        stage.answers.clear();
        stage.rejections.clear();
        stage
    }

    pub fn n(&self) -> u32 {
        self.group.config.size.n() as u32
    }

    pub fn correct(&self) -> Vec<u32> {
        (0..self.n()).filter(|i| !self.byzantine.contains(i)).collect()
    }

    pub fn label(&mut self, digest: Digest, label: String) {
        let taken = self.labels.values().any(|other| *other == label);
        let label = if taken { format!("{label}'") } else { label };
        self.labels.entry(digest).or_insert(label);
    }

    pub fn digest(&self, label: &str) -> Option<Digest> {
        self.labels.iter().find(|(_, other)| *other == label).map(|(digest, _)| *digest)
    }

    fn name(&self, digest: Digest) -> String {
        self.labels.get(&digest).cloned().unwrap_or_else(|| digest.short(2))
    }

    /// Takes note of everything that the last input caused: what was sent, refused, answered and done.
    pub fn observe(&mut self, out: &mut String) {
        for (from, to, message) in std::mem::take(&mut self.group.wire) {
            let to: BTreeSet<u32> = match to {
                bft_core::io::Destination::Replicas => {
                    (0..self.n()).filter(|i| *i != from.0).collect()
                }
                bft_core::io::Destination::Replica(i) => BTreeSet::from([i.0]),
                bft_core::io::Destination::Client(_) => continue,
            };
            self.know(&message);
            self.wire.push_back(Transit { from: from.0, to, message });
        }
        self.lose();
        for (i, why) in std::mem::take(&mut self.group.rejections) {
            let _ = writeln!(out, "  r{} rejects: {why}", i.0);
            self.rejections.push((i.0, why));
        }
        self.observe_replicas(out);
        for (i, message) in std::mem::take(&mut self.group.replies) {
            let client = u32::MAX;
            let lost = self
                .rules
                .iter()
                .any(|rule| rule.drop && rule.filter.matches(i.0, client, &message));
            if !lost && let Some(line) = self.answer(&message) {
                let _ = writeln!(out, "  r{} answers {line}", i.0);
                self.answers.push((i.0, message));
            }
        }
    }

    /// Gives every digest that a message brings a name that people can read.
    fn know(&mut self, message: &Message) {
        match message {
            Message::PrePrepare(m) => self.know_batch(m.time, &m.batch),
            Message::Committed(m) => self.know_batch(m.time, &m.batch),
            Message::Batch(m) => self.know_batch(m.time, &m.batch),
            Message::Checkpoint(m) if !self.labels.contains_key(&m.digest) => {
                self.label(m.digest, format!("s{}", m.n));
            }
            Message::ViewChange(m) => {
                let name = format!("r{}.{}", m.replica.0, m.view);
                self.view_changes.entry(name).or_insert_with(|| m.clone());
            }
            _ => {}
        }
    }

    fn know_batch(&mut self, time: Time, entries: &[BatchEntry]) {
        let (mut digests, mut names) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                BatchEntry::Inline(request) => {
                    digests.push(request.request.digest());
                    names.push(format!("c{}.{}", request.request.client.0, request.request.seq));
                }
                BatchEntry::Reference { digest, client, .. } => {
                    digests.push(*digest);
                    names.push(format!("c{}.ref", client.0));
                }
            }
        }
        let digest = batch_digest(time, digests.into_iter());
        if !self.labels.contains_key(&digest) {
            let name = if names.is_empty() { "empty".to_string() } else { names.join("+") };
            self.label(digest, name);
        }
    }

    /// Takes from the wire what the rules lose.
    pub fn lose(&mut self) {
        let drops: Vec<_> = self.rules.iter().filter(|rule| rule.drop).collect();
        for transit in &mut self.wire {
            let Transit { from, message, .. } = &*transit;
            let lost = |to: u32| drops.iter().any(|rule| rule.filter.matches(*from, to, message));
            let kept = transit.to.iter().copied().filter(|to| !lost(*to)).collect();
            transit.to = kept;
        }
        self.wire.retain(|transit| !transit.to.is_empty());
    }

    fn visible(&self, i: u32) -> Visible {
        let replica = &self.group.replicas[i as usize];
        let health = replica.health(0);
        let (view, _) = replica.view();
        let (executed, stable, phase) = (health.executed, health.stable, health.phase);
        Visible { view, phase, executed, tentative: replica.tentative(), stable }
    }

    fn observe_replicas(&mut self, out: &mut String) {
        for i in 0..self.n() {
            let now = self.visible(i);
            match self.seen.get(i as usize).copied() {
                None => self.seen.push(now),
                Some(before) if before != now => {
                    self.tell_change(i, &before, &now, out);
                    self.seen[i as usize] = now;
                }
                Some(_) => continue,
            }
            self.enter_in_ledger(i);
        }
    }

    fn tell_change(&mut self, i: u32, before: &Visible, now: &Visible, out: &mut String) {
        let undone = before.tentative.filter(|n| now.tentative != Some(*n) && now.executed < *n);
        if let Some(n) = undone {
            let _ = writeln!(out, "  r{i} undoes n={n}");
        }
        for n in before.executed.0 + 1..=now.executed.0 {
            let at = self.group.replicas[i as usize].executed_at(SequenceNumber(n));
            if let Some(digest) = at {
                let _ = writeln!(out, "  r{i} has committed n={n} d={}", self.name(digest));
            } else if n == now.executed.0 {
                let _ = writeln!(out, "  r{i} has fetched the state at n={n}");
            }
        }
        if let Some(n) = now.tentative.filter(|n| before.tentative != Some(*n)) {
            let _ = writeln!(out, "  r{i} executes n={n} tentatively");
        }
        if before.stable != now.stable {
            let _ = writeln!(out, "  r{i} has a stable checkpoint at h={}", now.stable);
        }
        if (before.view, before.phase) != (now.view, now.phase) {
            let what = match now.phase {
                Phase::Active => "is active in",
                Phase::ChangingView => "wants",
                Phase::Recovering => "is mute in",
            };
            let _ = writeln!(out, "  r{i} {what} v={}", now.view);
        }
    }

    /// I-1: no two correct replicas execute different batches at one sequence number.
    fn enter_in_ledger(&mut self, i: u32) {
        if self.byzantine.contains(&i) {
            return;
        }
        let replica = &self.group.replicas[i as usize];
        for n in 1..=replica.executed().0 {
            let Some(digest) = replica.executed_at(SequenceNumber(n)) else { continue };
            let first = *self.ledger.entry(n).or_insert(digest);
            assert_eq!(first, digest, "r{i} executed another batch at n={n} than others did");
        }
    }

    /// Delivers what matches and is not held, oldest first, with all that follows from it.
    pub fn deliver(&mut self, filter: &Filter, out: &mut String) {
        let mut steps = 0;
        while let Some((place, targets)) = self.next(filter) {
            steps += 1;
            assert!(steps < 20_000, "the group never comes to rest");
            let transit = &mut self.wire[place];
            let (from, message) = (transit.from, transit.message.clone());
            transit.to.retain(|to| !targets.contains(to));
            if transit.to.is_empty() {
                self.wire.remove(place);
            }
            self.hand_over(from, &targets, message, out);
        }
    }

    fn next(&self, filter: &Filter) -> Option<(usize, Vec<u32>)> {
        self.wire.iter().enumerate().find_map(|(place, transit)| {
            let Transit { from, to, message } = transit;
            let held = |to: u32| {
                self.rules.iter().any(|rule| !rule.drop && rule.filter.matches(*from, to, message))
            };
            let targets = to.iter().copied();
            let targets: Vec<u32> =
                targets.filter(|to| filter.matches(*from, *to, message) && !held(*to)).collect();
            (!targets.is_empty()).then_some((place, targets))
        })
    }

    /// Replica `from` is heard by `targets`.
    pub fn hand_over(&mut self, from: u32, targets: &[u32], message: Message, out: &mut String) {
        self.know(&message);
        let names: Vec<_> = targets.iter().map(|to| format!("r{to}")).collect();
        let _ = writeln!(out, "r{from} -> {}  {}", names.join(" "), self.line(&message));
        for to in targets {
            self.group.give(Peer::Replica(ReplicaId(from)), *to, message.clone());
            self.observe(out);
        }
        self.delivered.push(Transit { from, to: targets.iter().copied().collect(), message });
    }

    /// One message in one line.
    pub fn line(&self, message: &Message) -> String {
        let batch = |time, entries: &[BatchEntry]| {
            let batch = Batch { time, entries: entries.to_vec() };
            self.name(batch.digest())
        };
        let name = message.name();
        match message {
            Message::PrePrepare(m) => {
                format!("{name} v={} n={} d={}", m.view, m.n, batch(m.time, &m.batch))
            }
            Message::Prepare(m) => {
                format!("{name} v={} n={} d={}", m.view, m.n, self.name(m.digest))
            }
            Message::Commit(m) => {
                format!("{name} v={} n={} d={}", m.view, m.n, self.name(m.digest))
            }
            Message::Committed(m) => format!("{name} n={} d={}", m.n, batch(m.time, &m.batch)),
            Message::Batch(m) => format!("{name} d={}", batch(m.time, &m.batch)),
            Message::FetchBatch(m) => format!("{name} n={} d={}", m.n, self.name(m.digest)),
            Message::Checkpoint(m) => {
                format!("{name} n={} d={} of r{}", m.n, self.name(m.digest), m.replica.0)
            }
            Message::ViewChange(m) => {
                let (p, q) = (self.claims(&m.prepared), self.claims(&m.pre_prepared));
                format!("{name} v={} h={} P={p} Q={q} of r{}", m.view, m.stable, m.replica.0)
            }
            Message::NewView(m) => {
                let of: Vec<_> = m.view_changes.iter().map(|(i, _)| format!("r{}", i.0)).collect();
                let x: Vec<_> = m.batches.iter().map(|digest| self.name(*digest)).collect();
                let (of, x) = (of.join(","), x.join(","));
                format!("{name} v={} V=({of}) h={} X=({x})", m.view, m.stable)
            }
            other => other.to_string(),
        }
    }

    fn claims(&self, claims: &[Claim]) -> String {
        let each = claims.iter().map(|c| format!("{}:{}@v{}", c.n, self.name(c.digest), c.view));
        format!("({})", each.collect::<Vec<_>>().join(","))
    }

    fn answer(&self, message: &Message) -> Option<String> {
        let Message::Reply(m) = message else {
            return match message {
                Message::NewKey(_) => None,
                other => Some(format!("with {other}")),
            };
        };
        let what = match &m.outcome {
            Outcome::Result(ResultBody::Whole(result)) => {
                format!("count={}", u64::from_le_bytes(result[..].try_into().ok()?))
            }
            Outcome::Result(ResultBody::Digest(_)) => "digest".into(),
            Outcome::SessionCreated { .. } => "session".into(),
            Outcome::SessionRefused { .. } => "refused".into(),
        };
        let how = match (m.tentative, m.sign) {
            (true, _) => ", tentative",
            (false, true) => ", sign from now on",
            (false, false) => "",
        };
        Some(format!("seq={} of slot {}: {what} at n={} v={}{how}", m.seq, m.slot.0, m.n, m.view))
    }

    /// The counter of replica `i`.
    pub fn count(&self, i: u32) -> u64 {
        let objects = self.group.replicas[i as usize].objects();
        objects.get(ObjectId::new(0x80, 0, 0)).copied().unwrap_or(0)
    }

    /// A line for each replica.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for i in 0..self.n() {
            let Visible { view, phase, executed, tentative, stable } = self.visible(i);
            let tentative = tentative.map_or(String::new(), |n| format!(" tentative={n}"));
            let byzantine = if self.byzantine.contains(&i) { " byzantine" } else { "" };
            let count = self.count(i);
            let _ = writeln!(
                out,
                "r{i} v={view} {phase:?} h={stable} executed={executed}{tentative} count={count}{byzantine}"
            );
        }
        out
    }

    /// Replica `i` is made again, by `make`, and its links with it.
    pub fn replace(
        &mut self,
        i: u32,
        replica: bft_core::replica::Replica<Counter>,
        out: &mut String,
    ) {
        self.wire.retain(|transit| transit.from != i);
        self.wire.iter_mut().for_each(|transit| {
            transit.to.remove(&i);
        });
        self.wire.retain(|transit| !transit.to.is_empty());
        self.group.replicas[i as usize] = replica;
        self.group.view_timers[i as usize] = None;
        self.observe(out);
        let others = (0..self.n()).filter(|other| *other != i);
        for peer in
            others.map(|other| Peer::Replica(ReplicaId(other))).chain([Peer::Client(ClientId(0))])
        {
            self.group.input(i, bft_core::io::Input::Connected { peer, entropy: [i as u8; 32] });
            self.observe(out);
        }
    }
}
