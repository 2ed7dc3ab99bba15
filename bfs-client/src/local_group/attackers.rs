//! Replicas and clients of a local group that attack it: lab builds only.

use super::process::end_now;
use super::{LocalGroup, Plan, Programs};
use crate::drill::{self, Told};
use crate::failure::{Failure, Outcome};
use std::fs::File;
use std::io;
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
        let log = File::create(self.dir.join("intruder.log")).map_err(cannot)?;
        let program = self.plan.programs.replica.with_file_name("bfs-client-lab");
        let mut command = self.program(&program);
        command.arg(self.group_file()).arg("--key").arg(self.intruder_key());
        command.args(["--attack", attack]).stdout(Stdio::null()).stderr(log);
        self.intruder = Some(command.spawn().map_err(cannot)?);
        Ok(())
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
