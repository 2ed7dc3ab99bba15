//! What came of a world, or of many.

use crate::marks::Marks;
use serde::Serialize;
use std::collections::BTreeMap;

/// What came of a world, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Worlds.
    pub worlds: u64,
    /// Worlds in which f replicas were Byzantine.
    pub byzantine_worlds: u64,
    /// Events handled.
    pub events: u64,
    /// The last sequence number executed.
    pub commits: u64,
    /// Operations that correct clients were answered.
    pub answers: u64,
    /// Of scripted attacks: those of them that came after the first second.
    pub sustained: u64,
    /// Views that correct replicas entered.
    pub view_changes: u64,
    /// The highest view of a correct replica.
    pub highest_view: u64,
    /// Replicas that crashed and came back.
    pub restarts: u64,
    /// States that a replica fetched because it had been left behind.
    pub transfers: u64,
    /// Replicas that had lost their state, or had lied, and were well again.
    pub returns: u64,
    /// The longest that one of them was not well, from when it began anew and nothing more went wrong. Units: microseconds of
    /// virtual time.
    pub slowest_return: u64,
    /// Times that a clone was recovered from a disk and compared.
    pub recoveries: u64,
    /// Inputs that replicas refused.
    pub rejected: u64,
    /// The longest that clients waited after the quorum was healed. Units: microseconds of virtual time.
    pub slowest_recovery: u64,
    /// The most messages that one input made a correct replica send.
    pub most_sends: u64,
    /// How many worlds showed each attack.
    pub attacks: BTreeMap<&'static str, u64>,
    /// What was reached.
    pub marks: Marks,
    /// The digest of everything that happened.
    pub trace_hash: String,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// Alarms that correct replicas raised: where more than f are faulty, the right thing.
    pub alarms: Vec<String>,
}

impl Report {
    /// Adds another world's.
    pub fn add(&mut self, other: Report) {
        self.worlds += other.worlds;
        self.byzantine_worlds += other.byzantine_worlds;
        self.events += other.events;
        self.commits += other.commits;
        self.answers += other.answers;
        self.sustained += other.sustained;
        self.view_changes += other.view_changes;
        self.highest_view = self.highest_view.max(other.highest_view);
        self.restarts += other.restarts;
        self.transfers += other.transfers;
        self.returns += other.returns;
        self.slowest_return = self.slowest_return.max(other.slowest_return);
        self.recoveries += other.recoveries;
        self.rejected += other.rejected;
        self.slowest_recovery = self.slowest_recovery.max(other.slowest_recovery);
        self.most_sends = self.most_sends.max(other.most_sends);
        for (name, count) in other.attacks {
            *self.attacks.entry(name).or_default() += count;
        }
        self.marks.add(&other.marks);
        self.trace_hash = other.trace_hash;
        self.violations.extend(other.violations);
        self.alarms.extend(other.alarms);
    }
}
