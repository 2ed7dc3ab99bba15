//! Scripted attacks: each of the catalogue by itself, what came of it, and its throughput beside a run without faults.

use crate::adversary::{Actor, Attack};
use crate::swarm;
use crate::world::{Plan, Report, Scenario};
use serde::Serialize;

/// What came of one attack at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// B-nn.
    pub name: &'static str,
    /// What the faulty did.
    pub title: &'static str,
    /// What correct nodes must do.
    pub expected: &'static str,
    /// The number of replicas.
    pub n: u32,
    /// Operations that correct clients were answered.
    pub answers: u64,
    /// Throughput beside that without the attack, from the first to the last.
    pub overall: f64,
    /// The same once the group has had a second to find out who is faulty.
    pub ratio: f64,
    /// The least that P7 asks for.
    pub floor: f64,
    /// Views that correct replicas entered.
    pub view_changes: u64,
    /// What must never happen and did.
    pub violations: Vec<String>,
}

impl Outcome {
    /// Whether nothing was violated and the floor was kept.
    pub fn holds(&self) -> bool {
        self.violations.is_empty() && self.ratio >= self.floor
    }
}

const CLIENTS: u32 = 18;

/// The world of a scripted attack.
pub fn plan(name: Option<&'static str>, n: u32) -> Plan {
    let scenario = Scenario::Attack(name);
    Plan {
        seed: 1,
        n,
        f: n.saturating_sub(1) / 3,
        clients: CLIENTS,
        operations: 0,
        trace: false,
        scenario,
    }
}

/// A run without faults, to compare with.
pub fn fault_free(n: u32) -> Report {
    swarm::run(plan(None, n))
}

/// Runs `attack` at size `n` beside `reference`. Nothing where it is not made of messages.
pub fn run(attack: &Attack, n: u32, reference: &Report) -> Option<Outcome> {
    if let Actor::Elsewhere(_) = attack.actor {
        return None;
    }
    let report = swarm::run(plan(Some(attack.name), n));
    // Where a client is faulty, one less is counted.
    let counted = if attack.client.is_some() { CLIENTS - 1 } else { CLIENTS };
    let share = f64::from(counted) / f64::from(CLIENTS);
    let ratio = |with: u64, without: u64| with as f64 / (without as f64 * share).max(1.0);
    Some(Outcome {
        name: attack.name,
        title: attack.title,
        expected: attack.expected,
        n,
        answers: report.answers,
        overall: ratio(report.answers, reference.answers),
        ratio: ratio(report.sustained, reference.sustained),
        floor: attack.floor,
        view_changes: report.view_changes,
        violations: report.violations,
    })
}
