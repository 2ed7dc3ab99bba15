//! What the group's own status command says.

use super::process::{run, said};
use super::{COMMAND_LIMIT, LocalGroup};
use crate::failure::{Failure, Outcome};
use serde::Deserialize;

/// The answer, as far as it is used here.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub health: String,
    pub agreeing: usize,
    replicas: Vec<ReplicaStatus>,
}

#[derive(Clone, Debug, Deserialize)]
struct ReplicaStatus {
    id: usize,
    standing: String,
    primary: bool,
    view: Option<u64>,
    last_executed: Option<u64>,
}

impl Status {
    /// The last batch that any replica says it has executed.
    pub fn last_executed(&self) -> Option<u64> {
        self.replicas.iter().filter_map(|replica| replica.last_executed).max()
    }

    /// How replica `id` stands, in words.
    pub fn standing(&self, id: usize) -> Option<String> {
        let replica = self.replicas.iter().find(|replica| replica.id == id)?;
        Some(replica.standing.clone())
    }

    /// Each replica that does not agree, and how it stands instead.
    pub fn unwell(&self) -> Vec<String> {
        let unwell = self.replicas.iter().filter(|replica| replica.standing != "agrees");
        unwell.map(|replica| format!("r{} {}", replica.id, replica.standing)).collect()
    }

    /// The primary, and the view in which it is.
    pub fn primary(&self) -> Option<(usize, u64)> {
        let primary = self.replicas.iter().find(|replica| replica.primary)?;
        Some((primary.id, primary.view?))
    }
}

impl LocalGroup {
    /// What `bfs status` says. It uses keys of its own, so a mount is not disturbed.
    pub fn status(&self) -> Outcome<Status> {
        let mut status = self.bfs();
        status
            .arg("status")
            .arg(self.group_file())
            .arg("--key")
            .arg(self.operator_key())
            .arg("--json");
        // A degraded group is an answer, with another exit code.
        let output = run(status, COMMAND_LIMIT, &self.plan.stop)?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure::new("cannot learn the group's status", said(&output, error)))
    }
}
