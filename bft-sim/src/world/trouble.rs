//! What goes wrong is done here, and so is the healing: a quorum is put right for good, the rest stays as broken as it is.

use super::{KEPT_FOR_LATER, World, file_system};
use crate::faults::Fault;
use crate::marks::Mark;
use crate::node::{Clock, Disk, Node};
use crate::plan::Scenario;
use bft_core::io::Input;
use bft_core::messages::Phase;
use bft_core::replica::{Config, Replica};
use bft_core::types::{Peer, View};

impl World {
    pub(super) fn suffer(&mut self, fault: Fault) {
        if let Fault::Sides(sides) = fault {
            self.note(format_args!("twins change sides"));
            self.sides = sides;
            return;
        }
        if self.healed.is_some() {
            return;
        }
        self.note(format_args!("fault {fault:?}"));
        match fault {
            Fault::Cut(links) => {
                self.report.marks.hit(Mark::Partitioned);
                self.network.cut = links.into_iter().collect();
            }
            Fault::Mend => self.network.cut.clear(),
            Fault::Clog { from, to, until } => {
                self.report.marks.hit(Mark::Clogged);
                self.network.clogged.insert((from, to), until);
            }
            Fault::Pause { host, until } => {
                self.report.marks.hit(Mark::Paused);
                self.nodes[host].paused_until = until;
            }
            Fault::Clock { host, offset, drift_permille } => {
                self.report.marks.hit(Mark::ClockJumped);
                self.clocks_lie = true;
                self.nodes[host].clock = Clock { offset, drift_permille };
            }
            Fault::Crash { host } => self.crash(host),
            Fault::Restart { host } => self.restart(host),
            Fault::RestartWiped { host } => self.restart_wiped(host),
            Fault::AllCut => {
                self.report.marks.hit(Mark::AllCut);
                for host in 0..self.nodes.len() {
                    self.crash(host);
                }
            }
            Fault::Sides(_) => {}
        }
    }

    /// A process dies; of what it was writing, a prefix may have reached the disk.
    pub(super) fn crash(&mut self, host: usize) {
        if self.nodes[host].replica.is_none() {
            return;
        }
        let under_way = self.nodes[host].disk.under_way();
        let kept = self.rng.usize(..=under_way);
        self.report.marks.hit_if(kept < under_way, Mark::UnsyncedLost);
        self.note(format_args!("r{host} crashes"));
        self.nodes[host].crash(kept);
    }

    fn restart_wiped(&mut self, host: usize) {
        self.crash(host);
        self.report.marks.hit(Mark::Wiped);
        self.nodes[host].losses += 1;
        self.rejoin(host);
    }

    /// Starts with nothing, and knows that there was something.
    fn rejoin(&mut self, host: usize) {
        let config = Config { me: self.nodes[host].id, ..self.config };
        let authority = self.authority(self.nodes[host].id, &self.nodes[host].crypto);
        // Every life has a higher number than the one before.
        let incarnation = self.nodes[host].life;
        let replica = Replica::rejoin(config, authority, file_system(), incarnation);
        let node = &mut self.nodes[host];
        node.disk = Disk::new(replica.stable_snapshot());
        node.wiped = true;
        node.batches.clear();
        node.chosen.clear();
        self.start(host, replica);
    }

    fn restart(&mut self, host: usize) {
        if self.nodes[host].replica.is_some() {
            return;
        }
        // It died before anything of its new life was durable: nothing on its disk says what it has lost.
        if self.nodes[host].wiped && self.nodes[host].disk.records.is_empty() {
            return self.rejoin(host);
        }
        match self.recover(host) {
            Ok(replica) => {
                let node = &self.nodes[host];
                let primary = self.size.primary(replica.health(0).view) == node.id;
                let has_log = !node.disk.records.is_empty();
                self.report.marks.hit_if(has_log, Mark::RestartWithLog);
                self.report.marks.hit_if(primary, Mark::PrimaryRestarted);
                self.start(host, replica);
            }
            Err(why) => self.violation(format!("I-13: r{host} cannot restart: {why}")),
        }
    }

    /// What the disk of `host` makes of it.
    fn recover(&self, host: usize) -> Result<Replica<bfs_fs::FileSystem>, String> {
        let node = &self.nodes[host];
        let config = Config { me: node.id, ..self.config };
        let authority = self.authority(node.id, &node.crypto);
        let (snapshot, records) = (node.disk.snapshot.clone(), &node.disk.records);
        Replica::recover(config, authority, file_system(), snapshot, records)
            .map_err(|why| why.to_string())
    }

    fn start(&mut self, host: usize, replica: Replica<bfs_fs::FileSystem>) {
        self.note(format_args!("r{host} restarts"));
        self.report.restarts += 1;
        let node = &mut self.nodes[host];
        node.patience.restart();
        node.executed = replica.executed();
        node.view = replica.health(0).view;
        node.replica = Some(replica);
        self.watch.forget(host);
        self.connect_all(host);
    }

    /// I-13: what a crash at this instant would leave is enough to go on from.
    pub(super) fn recover_clone(&mut self, host: usize) {
        let promised = self.evidence.promised(self.nodes[host].id);
        let recovered = self.recover(host);
        self.report.recoveries += 1;
        let found = recovered.and_then(|mut clone| {
            clone.check_invariants();
            let view = clone.health(0).view;
            if view < promised {
                return Err(format!(
                    "it would come back in {view:?}, and has promised {promised:?}"
                ));
            }
            // It goes on from there without a fault of its own.
            let peer = Peer::Replica(self.size.replicas().next().unwrap_or_default());
            let mut outputs = Vec::new();
            let input = Input::Connected { peer, entropy: [0; 32] };
            clone.handle(self.now_at(host), input, &mut outputs);
            clone.check_invariants();
            Ok(())
        });
        self.check(found.map_err(|why| format!("I-13: r{host}: {why}")));
    }

    /// Draws a quorum of correct replicas, puts it right, and stops every correct replica outside it for good.
    pub(super) fn heal(&mut self) {
        self.healed = Some(self.now);
        let scripted = matches!(self.plan.scenario, Scenario::Attack(_));
        let n = self.size.n();
        let mut correct: Vec<usize> = (0..n).filter(|i| !self.nodes[*i].faulty).collect();
        if !scripted {
            self.rng.shuffle(&mut correct);
        }
        let quorum = if scripted { correct.len() } else { n - self.size.f() };
        let (core, broken) = correct.split_at(quorum.min(correct.len()));
        let (core, broken) = (core.to_vec(), broken.to_vec());
        self.note(format_args!("healed: {core:?}; gone for good: {broken:?}"));
        self.network.heal();
        for host in broken {
            self.crash(host);
        }
        for host in &core {
            self.nodes[*host].paused_until = 0;
            self.nodes[*host].clock = Clock::default();
            self.restart(*host);
        }
        let views = core.iter().map(|host| self.nodes[*host].view);
        self.watch.at_healing = views.max().unwrap_or_default();
        self.core = core;
        for client in &mut self.clients {
            client.workload.go_on(KEPT_FOR_LATER);
        }
        for c in 0..self.clients.len() {
            self.ask(c);
        }
    }

    /// At rest every correct replica's state must be the reference executor's, and all of the quorum must have come along.
    pub(super) fn rest(&mut self) {
        let speaks = |node: &Node| {
            let phase = node.replica.as_ref().map(|replica| replica.health(0).phase);
            node.wiped && phase.is_some_and(|phase| phase != Phase::Recovering)
        };
        self.report.marks.hit_if(self.nodes.iter().any(speaks), Mark::WipedRecovered);
        let correct = (0..self.nodes.len()).filter(|i| !self.nodes[*i].faulty);
        for i in correct.collect::<Vec<_>>() {
            self.check_footprint(i);
            self.check_accusations(i);
        }
        (0..self.clients.len()).for_each(|c| self.check_outvoted(c));
        let mut faults = Vec::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let Some(replica) = node.replica.as_ref().filter(|_| !node.faulty) else { continue };
            let in_core = self.core.contains(&i);
            let n = replica.tentative().unwrap_or(replica.executed());
            // What is tentative may still be under way, or undone for whoever is cut off.
            if replica.tentative().is_none() || in_core && n <= self.oracle.executed() {
                faults.extend(self.oracle.compare(n, replica.objects()).err());
            }
            let (has, should) = (replica.executed(), self.executed_when_done);
            if in_core && has < should {
                faults.push(format!(
                    "P9: r{i} rests at {has:?}; others had executed {should:?} long ago"
                ));
            }
        }
        faults.extend(self.oracle.check_tree().err());
        faults.extend(self.oracle.check_answers().err());
        self.report.violations.extend(faults);
    }

    /// I-7: views may not run away once a quorum is healed.
    pub(super) fn check_views(&mut self, host: usize, view: View, at_healing: View) {
        let most = 40 + 4 * self.size.n() as u64;
        if view.0 > at_healing.0 + most {
            self.violation(format!(
                "I-7: r{host} has reached {view:?}, {at_healing:?} when healed"
            ));
        }
    }
}
