//! What a replica holds beside the replicated state, and the most that its configuration allows: what others send can never
//! make it hold more. (I-8)

use super::Replica;
use crate::log::{Entry, Log, NamedBatch};
use crate::messages::ViewChange;
use crate::service::Service;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// One kind of thing that a replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What is counted. Units: things, or bytes of requests where it says so.
    pub what: &'static str,
    /// How many there are.
    pub held: usize,
    /// How many there may be.
    pub most: usize,
}

impl<S: Service> Replica<S> {
    /// Everything held here that grows with what others send, each kind beside its limit.
    ///
    /// Cost: O(window); for tests, the simulator and operators, not for every message.
    pub fn footprint(&self) -> Vec<Holding> {
        let mut all = Vec::with_capacity(32);
        let mut hold = |(what, held, most): (&'static str, usize, usize)| {
            all.push(Holding { what, held, most })
        };
        self.log_held().into_iter().for_each(&mut hold);
        self.checkpoints_held().into_iter().for_each(&mut hold);
        self.views_held().into_iter().for_each(&mut hold);
        // Replicas that lost their memory make requests too.
        let clients = self.authority.clients().len() + self.config.size.n();
        let lanes = clients * usize::from(self.config.slots);
        self.requests.held(lanes, clients, &self.config).into_iter().for_each(&mut hold);
        hold((
            "answers that wait for a batch",
            self.held_reads.len(),
            super::request::MAX_HELD_READS,
        ));
        all
    }

    fn log_held(&self) -> [(&'static str, usize, usize); 6] {
        let (n, window) = (self.config.size.n(), self.config.window as usize);
        let entries = || self.log.numbers().filter_map(|n| self.log.get(n));
        let votes = |entry: &Entry| entry.prepares.len() + entry.commits.len();
        // Of Q and P, one a claimant, what is accepted and what is committed.
        let batches = self.config.size.f() + 4 + n + 2;
        let voted = entries().filter(|entry| entry.voted.is_some());
        let voted = voted.filter_map(|entry| entry.pre_prepare.as_ref());
        let bytes: usize = voted.map(|accepted| accepted.batch.size()).sum();
        let (tail, tail_bytes) = self.log.tail();
        [
            ("log entries", entries().count(), window),
            ("votes in the log", entries().map(votes).sum(), window * 4 * n),
            ("batches in the log", entries().map(batches_of).sum(), window * batches),
            ("bytes voted for", bytes, window * self.config.limits.batch_bytes),
            ("batches below the log", tail, window),
            ("bytes below the log", tail_bytes, Log::MAX_TAIL_BYTES),
        ]
    }

    fn checkpoints_held(&self) -> [(&'static str, usize, usize); 4] {
        let n = self.config.size.n();
        let in_window = (self.config.window / self.config.checkpoint_interval) as usize;
        let (snapshots, votes, certificates, ahead) = self.checkpoints.held();
        [
            ("tree snapshots", snapshots, in_window + 2),
            ("CHECKPOINTs", votes, in_window * n),
            ("certificates of checkpoints", certificates, in_window + 1),
            ("CHECKPOINTs beyond the window", ahead, n * (in_window + 2)),
        ]
    }

    fn views_held(&self) -> [(&'static str, usize, usize); 3] {
        let (n, window) = (self.config.size.n(), self.config.window as usize);
        let known = &self.view_changes;
        let newest = known.newest.values().map(|(_, m)| m);
        let all = newest.chain(known.named.values()).chain(known.grounds.iter().map(|(_, m)| m));
        let claims = |m: &Arc<ViewChange>| m.prepared.len() + m.pre_prepared.len();
        let of_one = window * (self.config.size.f() + 3);
        [
            ("VIEW-CHANGEs", all.clone().count(), 3 * n),
            ("claims of P and Q", all.map(claims).sum(), 3 * n * of_one),
            ("SUSPECTs", self.suspicion.suspects(), n),
        ]
    }
}

fn batches_of(entry: &Entry) -> usize {
    let accepted: Option<&NamedBatch> = entry.pre_prepare.as_ref().map(|accepted| &accepted.batch);
    let committed = entry.committed.as_ref().map(|(batch, _)| batch);
    accepted.iter().count()
        + committed.iter().count()
        + entry.decisions.len()
        + entry.history.batches().len()
}
