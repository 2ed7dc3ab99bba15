//! The driver of every replica: hands it inputs, does what its outputs say, in order, and shows both to the oracles.

use super::{Event, World};
use crate::node::START;
use crate::plan::Scenario;
use bft_core::evidence::Accusation;
use bft_core::io::{Destination, Input, Job, JobResult, Output, Record, Rejection, Timer};
use bft_core::messages::Message;
use bft_core::replica::{Holding, Replica};
use bft_core::types::{ClientId, Peer, PersistId, ReplicaId, SequenceNumber, Tick, Time};
use std::time::Duration;

/// One step in so many is followed by a look at what its replica holds.
const FOOTPRINTS: u64 = 16;

impl World {
    pub(super) fn replica_timer(&mut self, i: usize, timer: Timer, at: Tick) {
        if self.nodes[i].timers.get(&timer) == Some(&at) {
            self.nodes[i].timers.remove(&timer);
            self.replica_input(i, Input::Timeout(timer), 0);
        }
    }

    pub(super) fn job_done(&mut self, i: usize, life: u64, result: JobResult) {
        if self.nodes[i].life == life {
            self.replica_input(i, Input::JobDone(result), 0);
        }
    }

    pub(super) fn connect_all(&mut self, replica: usize) {
        let me = self.nodes[replica].id;
        for peer in self.size.replicas().filter(|peer| *peer != me) {
            self.schedule(0, Event::Connect { replica, peer: Peer::Replica(peer) });
        }
        for c in 0..self.plan.clients {
            let delay = self.rng.u64(..1_000);
            self.schedule(delay, Event::Connect { replica, peer: Peer::Client(ClientId(c)) });
        }
    }

    pub(super) fn connect(&mut self, replica: usize, peer: Peer) {
        if self.nodes[replica].replica.is_none() {
            return;
        }
        let mut entropy = [0; 32];
        entropy.fill_with(|| self.rng.u8(..));
        self.replica_input(replica, Input::Connected { peer, entropy }, 0);
        if let Peer::Client(c) = peer {
            let input = bft_core::client::ClientInput::Connected(self.nodes[replica].id);
            self.client_input(c.0 as usize, input);
        }
    }

    /// Counts a message that did not pass verification.
    pub(super) fn refuse(&mut self, i: usize, from: Peer, why: Rejection, bytes: usize) {
        let mut outputs = Vec::new();
        if let Some(replica) = &mut self.nodes[i].replica {
            replica.reject(from, why, &mut outputs);
        }
        self.watch_rejection(why);
        self.spend(i, bytes, &outputs, 0);
        self.perform(i, outputs);
    }

    /// Handles one input of `bytes` bytes, all that follows from it included.
    pub(super) fn replica_input(&mut self, i: usize, input: Input, bytes: usize) {
        let now = self.now_at(i);
        let asked =
            matches!(&input, Input::Message(m) if matches!(m.message(), Message::Request(_)));
        let correct = !self.nodes[i].faulty;
        let mut outputs = Vec::new();
        let Some(replica) = &mut self.nodes[i].replica else { return };
        if replica.is_stopped() {
            return;
        }
        replica.handle(now, input, &mut outputs);
        if !correct {
            self.acquit_if_it_speaks(i);
        }
        let correct = !self.nodes[i].faulty;
        let Some(replica) = &self.nodes[i].replica else { return };
        if correct {
            replica.check_invariants();
            if self.report.events.is_multiple_of(FOOTPRINTS) {
                self.check_footprint(i);
            }
        }
        let Some(replica) = &self.nodes[i].replica else { return };
        let (executed, tentative) = (replica.executed(), replica.tentative());
        let installed = installed(&outputs, self.nodes[i].executed);
        let operations = self.operations(i, executed);
        self.spend(i, bytes, &outputs, operations);
        let before = self.nodes[i].executed;
        self.watch(i, &outputs, tentative, before, asked);
        if installed.is_none() {
            self.note_progress(i, before, &outputs);
        }
        self.perform(i, outputs);
        self.lag = 0;
        if installed.is_some() && self.nodes[i].evil.is_none() {
            self.watch_transfer(i);
        }
        if !self.nodes[i].faulty {
            self.observe(i, executed, installed);
        }
        self.nodes[i].executed = self.nodes[i].executed.max(executed);
    }

    /// How many operations this replica has just executed, about.
    fn operations(&self, i: usize, executed: SequenceNumber) -> usize {
        if self.costs.is_none() {
            return 0;
        }
        let node = &self.nodes[i];
        let new = (node.executed.0 + 1..=executed.0).map(SequenceNumber);
        let batches = new.filter_map(|n| node.batches.get(&(n, *node.chosen.get(&n)?)));
        batches.map(|batch| batch.requests.len()).sum()
    }

    /// Charges the work to the replica's processor; what it sends leaves when the work is done.
    fn spend(&mut self, i: usize, bytes: usize, outputs: &[Output], operations: usize) {
        let Some(costs) = self.costs else { return };
        let fan_out = |to: &Destination| match to {
            Destination::Replicas => self.size.n() - 1,
            _ => 1,
        };
        let sent = outputs.iter().map(|output| match output {
            Output::Send { to, .. } => fan_out(to),
            _ => 0,
        });
        let sent = sent.sum();
        let node = &mut self.nodes[i];
        let cost = costs.of(bytes, node.crypto.take_counts(), sent, operations);
        node.processor.spend(self.now * 1_000, cost);
        self.lag = (node.processor.busy_until / 1_000).saturating_sub(self.now);
    }

    /// Tells the oracle what this correct replica has executed, or that it has installed the state at `installed`.
    fn observe(&mut self, i: usize, executed: SequenceNumber, installed: Option<SequenceNumber>) {
        if let Some(n) = installed {
            self.report.transfers += 1;
            self.nodes[i].executed = n;
            // It must be the state that everybody else had there.
            let health = self.nodes[i].replica.as_ref().map(|replica| replica.health(0));
            if let Some(health) = health.filter(|health| health.stable == n) {
                let found = self.oracle.on_checkpoint(n, health.digest);
                self.check(found);
            }
        }
        while self.nodes[i].executed < executed {
            let n = self.nodes[i].executed.next();
            self.nodes[i].executed = n;
            let node = &self.nodes[i];
            let in_log = node.replica.as_ref().and_then(|replica| replica.executed_at(n));
            let chosen = in_log.or(node.chosen.get(&n).copied());
            let known = chosen.and_then(|digest| Some((digest, node.batches.get(&(n, digest))?)));
            let Some((digest, batch)) = known.map(|(digest, batch)| (digest, batch.clone())) else {
                self.violation(format!("I-13: r{i} executed {n:?} without a record of its batch"));
                return;
            };
            let id = self.nodes[i].id;
            self.check_time(n, batch.time);
            let found = self.oracle.on_executed(n, digest, &batch);
            self.check(found);
            let found = self.evidence.on_executed(id, n, digest);
            self.check(found);
        }
    }

    /// I-11: agreed time is no further ahead than the clocks of correct replicas allow.
    fn check_time(&mut self, n: SequenceNumber, proposed: Time) {
        let tolerance = self.config.clock_tolerance.as_nanos() as u64 + 2_000_000_000;
        let latest = START + self.now * 1_000 + tolerance;
        if proposed.0 > latest && !self.clocks_lie && self.plan.scenario != Scenario::OverF {
            self.violation(format!("I-11: {n:?} executed at {proposed:?}, far in the future"));
        }
    }

    pub(super) fn perform(&mut self, i: usize, outputs: Vec<Output>) {
        let mut sends = 0;
        for output in outputs {
            self.note(format_args!("{} {output}", self.name(i)));
            match output {
                Output::Persist { id, record } => self.write(i, id, record),
                Output::Send { to, message, after } => {
                    sends += if to == Destination::Replicas { self.size.n() - 1 } else { 1 };
                    match after {
                        Some(id) if id > self.nodes[i].disk.durable => {
                            self.nodes[i].held.push((id, to, message));
                        }
                        _ => self.let_go(i, to, &message),
                    }
                }
                Output::SetTimer { timer, at } => {
                    self.nodes[i].timers.insert(timer, at);
                    self.check_patience(i, timer, at);
                    let delay = at.0.saturating_sub(self.now);
                    self.schedule(delay, Event::ReplicaTimer { replica: i, timer, at });
                }
                Output::CancelTimer(timer) => drop(self.nodes[i].timers.remove(&timer)),
                Output::Job(job) => self.start_job(i, job),
                Output::Rejected { .. } => self.report.rejected += 1,
                Output::Client { client, link: Some(_) } => {
                    let peer = Peer::Client(client);
                    self.schedule(10, Event::Connect { replica: i, peer });
                }
                Output::Client { .. } => {}
                Output::Alarm(alarm) => {
                    if !self.nodes[i].faulty {
                        let what = format!("P12: r{i} raised: {alarm}");
                        self.report.alarms.push(what.clone());
                        self.violation(what);
                    }
                }
            }
        }
        if self.nodes[i].evil.is_none() {
            self.report.most_sends = self.report.most_sends.max(sends as u64);
            if sends > self.most_sends() {
                self.violation(format!("I-8: one input made r{i} send {sends} messages"));
            }
        }
    }

    /// I-8: nobody can make a replica hold more than its configuration allows.
    pub(super) fn check_footprint(&mut self, i: usize) {
        let Some(replica) = &self.nodes[i].replica else { return };
        let over = replica.footprint().into_iter().find(|holding| holding.held > holding.most);
        if let Some(Holding { what, held, most }) = over {
            self.violation(format!("I-8: r{i} holds {held} {what}, at most {most}"));
        }
    }

    /// I-16: what only a faulty replica does is held against faulty ones only.
    pub(super) fn check_accusations(&mut self, i: usize) {
        let Some(replica) = &self.nodes[i].replica else { return };
        let accusations = replica.health(0).accusations;
        let now = |of: &&Accusation| of.misdeeds.is_some() && !of.recovered;
        let wrong = |of: &&Accusation| now(of) && self.is_correct(of.replica);
        if let Some(of) = accusations.iter().find(wrong) {
            let (misdeed, replica) = (of.misdeeds, of.replica);
            self.violation(format!("I-16: r{i} accuses the correct {replica:?} of {misdeed:?}"));
        }
    }

    /// Whether every process that calls itself `id` follows the protocol.
    pub(super) fn is_correct(&self, id: ReplicaId) -> bool {
        self.nodes.iter().all(|node| node.id != id || !node.faulty)
    }

    /// I-8: the most messages that one input may make a replica send, counted once for each receiver: a view that begins with a
    /// window of batches costs two votes each, an answer to a STATUS votes, bodies and claims for a part of one.
    fn most_sends(&self) -> usize {
        4 * (self.size.n() - 1) * (self.config.window as usize + 64) + 64
    }

    /// The name of the process at `i`: twins are told apart.
    fn name(&self, i: usize) -> String {
        let id = self.nodes[i].id;
        if i < self.size.n() { format!("{id:?}") } else { format!("{id:?}'") }
    }

    fn start_job(&mut self, i: usize, job: Job) {
        let Job::SignCheckpoint { n, digest, signed } = job;
        if !self.nodes[i].faulty {
            let found = self.oracle.on_checkpoint(n, digest);
            self.check(found);
        }
        self.evidence.on_checkpoint(self.nodes[i].id, n, digest);
        let signature = bft_core::auth::Crypto::sign(&*self.nodes[i].crypto, &signed);
        let result = JobResult::CheckpointSigned { n, digest, signature };
        let (delay, life) = (self.rng.u64(1..500), self.nodes[i].life);
        self.schedule(delay, Event::JobDone { replica: i, life, result });
    }

    fn write(&mut self, i: usize, id: PersistId, record: Record) {
        let delay = 1 + self.rng.u64(..self.disk_delay);
        let faulty = self.nodes[i].faulty;
        if !faulty {
            let found = self.evidence.on_record(self.nodes[i].id, &record);
            self.check(found);
        }
        let node = &mut self.nodes[i];
        match &record {
            Record::View(_) => node.patience.end_view(),
            Record::NewView { new_view, .. } => node.patience.begin_view(new_view.last()),
            Record::Amnesia { incarnation, .. } => node.incarnation = *incarnation,
            _ => {}
        }
        node.note(&record);
        let stable = match &record {
            Record::Stable { certificate } => certificate.first().map(|m| m.n),
            _ => None,
        };
        let snapshot = node.replica.as_ref().filter(|_| stable.is_some());
        let snapshot = snapshot.map(Replica::stable_snapshot);
        if let Some(snapshot) = &snapshot {
            if stable != Some(snapshot.n) {
                // Two became stable at once: the later record, with its snapshot, stands for both.
                return;
            }
            let n = snapshot.n;
            // The log is gone below the stable checkpoint; the oracle may still have to follow up to there.
            let followed = node.executed.min(n);
            node.batches.retain(|(of, _), _| *of > followed);
            node.chosen.retain(|of, _| *of > followed);
        }
        node.disk.write(id, record, snapshot);
        let life = node.life;
        self.schedule(delay, Event::Persisted { replica: i, life, id });
    }

    pub(super) fn persisted(&mut self, i: usize, life: u64, id: PersistId) {
        let node = &mut self.nodes[i];
        if node.life != life {
            return;
        }
        // A log is durable in order: what was written before is there too.
        node.disk.sync(id);
        let (ready, held) = node.held.drain(..).partition(|(after, ..)| *after <= id);
        node.held = held;
        let ready: Vec<_> = ready;
        for (_, to, message) in ready {
            self.let_go(i, to, &message);
        }
        self.replica_input(i, Input::Persisted(id), 0);
        if !self.nodes[i].faulty && self.rng.u32(..400) == 0 {
            self.recover_clone(i);
        }
    }

    /// A message leaves for good: from now on it may not be denied.
    fn let_go(&mut self, i: usize, to: Destination, message: &Message) {
        if !self.nodes[i].faulty {
            let found = self.evidence.on_send(self.nodes[i].id, message, &self.nodes[i].disk);
            self.check(found);
        }
        // What a former self signed and a NEW-VIEW names is passed on like anyone else's.
        let former =
            matches!(message, Message::ViewChange(m) if m.incarnation < self.nodes[i].incarnation);
        if self.has_one_word(i) && !former {
            let losses = self.nodes[i].losses;
            let found = self.words.on_send(self.nodes[i].id, losses, message);
            self.check(found);
        }
        if let Message::Suspect(m) = message {
            self.note_suspect(i, m.view);
        }
        self.transmit(i, to, message);
    }

    /// Whether what speaks at `i` means what it says: it is no adversary, and nobody else has its keys.
    fn has_one_word(&self, i: usize) -> bool {
        let id = self.nodes[i].id;
        let twice = self.nodes.iter().filter(|node| node.id == id).count() > 1;
        self.nodes[i].evil.is_none() && !twice
    }

    /// I-7: how long a correct replica waits for its primary.
    fn check_patience(&mut self, i: usize, timer: Timer, at: Tick) {
        if timer != Timer::ViewChange || self.nodes[i].faulty {
            return;
        }
        let span = Duration::from_micros(at.0.saturating_sub(self.now));
        let found = self.nodes[i].patience.check(span, self.config.view_timeout);
        self.check(found.map_err(|what| format!("I-7: r{i}: {what}")));
    }

    /// Takes note of what has executed at `i` since `before`, in a view that goes on.
    fn note_progress(&mut self, i: usize, before: SequenceNumber, outputs: &[Output]) {
        let records = || {
            outputs.iter().filter_map(|output| match output {
                Output::Persist { record, .. } => Some(record),
                _ => None,
            })
        };
        let changes = |record: &Record| {
            matches!(record, Record::View(_) | Record::NewView { .. } | Record::Amnesia { .. })
        };
        let node = &mut self.nodes[i];
        let active = node.replica.as_ref().filter(|replica| replica.view().1);
        let Some(executed) = active.map(Replica::executed) else { return };
        if records().any(changes) {
            return;
        }
        // What an earlier view had prepared may have been replaced just now.
        records().for_each(|record| node.note(record));
        for n in (before.0 + 1..=executed.0).map(SequenceNumber) {
            let digest = node.chosen.get(&n);
            let batch = digest.and_then(|digest| node.batches.get(&(n, *digest)));
            if batch.is_some_and(|batch| !batch.requests.is_empty()) {
                node.patience.execute(n);
            }
        }
    }
}

/// The checkpoint whose state these outputs say was fetched and installed: it became stable beyond what had been executed,
/// and this replica did not sign it first.
fn installed(outputs: &[Output], executed: SequenceNumber) -> Option<SequenceNumber> {
    let signs = |n: SequenceNumber| {
        let job = |output: &Output| matches!(output, Output::Job(Job::SignCheckpoint { n: of, .. }) if *of == n);
        outputs.iter().any(job)
    };
    outputs.iter().find_map(|output| match output {
        Output::Persist { record: Record::Stable { certificate }, .. } => {
            let n = certificate.first()?.n;
            (n > executed && !signs(n)).then_some(n)
        }
        _ => None,
    })
}
