//! Replicas and clients of a local group that attack it: lab builds only.

use super::process::end_now;
use super::{LocalGroup, Plan, Programs};
use crate::backend::Outvoted;
use crate::drill::{self, Told};
use crate::failure::{Failure, Outcome};
use crate::{mount_state, mount_table};
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use workloads::stop::Stop;

impl LocalGroup {
    /// The same, of lab builds.
    ///
    /// Errors: as [`Self::start`].
    pub fn create_lab(n: usize, f: usize) -> Outcome<Self> {
        let plan = Plan::new(n, f, &Stop::default())?;
        Self::start(&Plan { programs: Programs::lab_beside_this()?, ..plan })
    }

    /// Tells replica `id`, a lab build, to attack; or to be honest again.
    ///
    /// Errors: as [`drill::order`].
    pub fn attack(&self, id: usize, attack: Option<&str>, accomplices: &[usize]) -> Outcome<Told> {
        drill::order(&self.replicas[id].dir, attack, accomplices)
    }

    /// Starts a client that attacks until [`Self::end_intrusion`].
    ///
    /// Errors: the program was not built, or one attacks already.
    pub fn intrude(&mut self, attack: &str) -> Outcome {
        let what = || format!("cannot let a client attack by {attack}");
        if self.intruder.is_some() {
            return Err(Failure::new(what(), "another one attacks"));
        }
        let cannot = |error: io::Error| Failure::new(what(), error);
        // What an earlier one has done is not this one's.
        let _ = fs::remove_file(self.intruder_told());
        let log = File::create(self.dir.join("intruder.log")).map_err(cannot)?;
        let program = self.plan.programs.replica.with_file_name("bfs-client-lab");
        let mut command = self.program(&program);
        command.arg(self.group_file()).arg("--key").arg(self.intruder_key());
        command.arg("--told").arg(self.intruder_told());
        command.args(["--attack", attack]).stdout(Stdio::null()).stderr(log);
        self.intruder = Some(command.spawn().map_err(cannot)?);
        Ok(())
    }

    fn intruder_told(&self) -> PathBuf {
        self.dir.join("intruder.json")
    }

    /// What the client that attacks, or the last one, says that it has done.
    pub fn intruders_misdeeds<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&fs::read(self.intruder_told()).ok()?).ok()
    }

    /// What the mounts of this group have seen of each replica, by id.
    pub fn outvoted(&self) -> Vec<Outvoted> {
        // Only one mount of a group is in use at a time: the newest.
        let mut states = self.mounts.iter().rev().filter_map(|path| {
            let entry = mount_table::at(path).ok().flatten()?;
            mount_state::find(path, entry.id)
        });
        states.next().map(|state| state.outvoted).unwrap_or_default()
    }

    /// Ends the client that attacks; says whether it still did.
    pub fn end_intrusion(&mut self) -> bool {
        let Some(mut intruder) = self.intruder.take() else { return false };
        let attacked = matches!(intruder.try_wait(), Ok(None));
        end_now(&mut intruder);
        attacked
    }

    /// What replica `id`, a lab build, says that it has done.
    pub fn misdeeds(&self, id: usize) -> Option<Told> {
        drill::told(&self.replicas[id].dir)
    }
}
