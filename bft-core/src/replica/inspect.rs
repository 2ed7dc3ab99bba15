//! A replica as a model checker sees it: all that decides what it does next, and nothing else.

use super::Replica;
use crate::certificate::Certificate;
use crate::log::Entry;
use crate::service::Service;
use crate::types::{Digest, ReplicaId, SequenceNumber};
use alloc::vec::Vec;
use core::fmt;

/// Two replicas of one configuration that print alike behave alike from here on, up to a collision of the digests that
/// are printed, as long as keys, checkpoints that were taken and a state transfer under way do not differ.
///
/// Left out because nothing depends on it: the numbers of records that are durable already, the order in which votes came
/// (only two digests with f+1 COMMITs each in one view would tell orders apart, and correct replicas never send those), second
/// votes, how much was rejected, and what is held against others.
impl<S: Service> fmt::Debug for Replica<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<_> =
            self.log.numbers().filter_map(|n| self.log.get(n).map(|e| (n, e))).collect();
        let entries: Vec<_> =
            entries.into_iter().map(|(n, entry)| self.view_of(n, entry)).collect();
        let signed = |i| self.checkpoints.votes_of(i).map(|m| (m.n, m.digest)).collect::<Vec<_>>();
        let signed: Vec<_> = self.config.size.replicas().map(signed).collect();
        f.debug_struct("Replica")
            .field("view", &self.view)
            .field("low", &self.log.low())
            .field("entries", &entries)
            .field("state", &self.objects.clone().digest())
            .field("executed", &self.executed)
            .field("tentative", &self.tentative())
            .field("held_reads", &self.held_reads)
            .field("proposed", &self.proposed)
            .field("last_ordered", &(self.last_ordered, self.heartbeat_armed))
            .field("requests", &self.requests)
            .field("checkpoints", &signed)
            .field("is_transferring", &self.transfer.is_some())
            .field("gates", &(self.stuck_at, self.read_gate, self.recoveries_until))
            .field("view_changes", &self.view_changes)
            .field("amnesia", &(self.incarnation, &self.amnesia))
            .field("suspicion", &self.suspicion)
            .field("repairs", &self.repairs)
            .field("alarmed", &self.alarmed)
            .finish()
    }
}

/// One entry of the log, its votes by voter.
#[derive(Debug)]
#[expect(dead_code, reason = "read by its Debug only")]
struct EntryView<'a> {
    n: SequenceNumber,
    pre_prepare: &'a Option<crate::log::PrePrepared>,
    awaited: Option<Digest>,
    told_on_commit: &'a [ReplicaId],
    prepares: Vec<Option<Digest>>,
    commits: Vec<Option<Digest>>,
    voted: bool,
    prepared: bool,
    decisions: &'a [crate::log::Decision],
    history: &'a crate::log::History,
    committed: Option<Digest>,
    certified: bool,
}

impl<S: Service> Replica<S> {
    fn view_of<'a>(&self, n: SequenceNumber, entry: &'a Entry) -> EntryView<'a> {
        let by_voter =
            |votes: &Certificate| self.config.size.replicas().map(|i| votes.vote(i)).collect();
        EntryView {
            n,
            pre_prepare: &entry.pre_prepare,
            awaited: entry.awaited,
            told_on_commit: &entry.told_on_commit,
            prepares: by_voter(&entry.prepares),
            commits: by_voter(&entry.commits),
            voted: entry.voted.is_some(),
            prepared: entry.prepared.is_some(),
            decisions: &entry.decisions,
            history: &entry.history,
            committed: entry.committed.as_ref().map(|(batch, _)| batch.digest),
            certified: entry.certified,
        }
    }
}
