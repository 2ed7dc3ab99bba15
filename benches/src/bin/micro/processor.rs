//! How much of the processor a process has used. [proc_pid_stat(5)]

use anyhow::{Context, Result};
use bfs_client::local_group::LocalGroup;
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;
use std::fs;

/// What an operation cost. Units: microseconds of processor time, user and system.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct Cost {
    /// Of the replica that used most.
    pub replica: f64,
    pub client: f64,
}

/// What everyone has used so far. Units: microseconds.
pub struct Used {
    replicas: Vec<f64>,
    client: f64,
}

/// Now.
pub fn used(group: &LocalGroup) -> Result<Used> {
    let replicas = group.pids().into_iter().flatten();
    let replicas = replicas.map(|pid| of(&pid.to_string())).collect::<Result<_>>()?;
    Ok(Used { replicas, client: of("self")? })
}

impl Used {
    /// What each of `operations` cost since `before`.
    pub fn since(&self, before: &Used, operations: f64) -> Cost {
        let spent =
            self.replicas.iter().zip(&before.replicas).map(|(after, before)| after - before);
        let most = spent.fold(0.0, f64::max);
        Cost { replica: most / operations, client: (self.client - before.client) / operations }
    }
}

fn of(process: &str) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may hold blanks and parentheses; what follows it does not.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat without a name")?;
    let field = |place: usize| -> Result<f64> {
        Ok(rest.split_whitespace().nth(place).context("a short /proc/PID/stat")?.parse()?)
    };
    let ticks = field(11)? + field(12)?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(ticks * 1e6 / per_second as f64)
}
