//! Where suites run: a group of four replicas on this machine, and a mount of it.

use super::Common;
use anyhow::{Context, Result, anyhow, bail};
use bfs_client::failure::Failure;
use bfs_client::local_group::{LocalGroup, Plan, Programs};
use nix::unistd::{Group, User, geteuid};
use std::path::{Path, PathBuf};
use std::process::Command;
use workloads::stop::Stop;

/// The two consistencies of a mount, as mount options.
pub const CONSISTENCIES: [&str; 2] = ["close-to-open", "strict"];

/// A mounted group. Dropping it takes everything away.
pub struct Bed {
    // Before the group goes, nothing may be on its way to the mount.
    group: LocalGroup,
    pub mount: PathBuf,
    /// Whether a replica is compromised.
    attacks: bool,
}

/// The replica that is compromised: the primary of the first view.
const ATTACKER: usize = 0;

fn cannot(failure: Failure) -> anyhow::Error {
    anyhow!("{failure}")
}

/// How many replicas, and how many of them may be faulty.
#[derive(Clone, Copy)]
pub struct Size {
    pub n: usize,
    pub f: usize,
}

impl Bed {
    /// A fresh group of four, as [`Bed::of`].
    pub fn new(common: &Common, stop: &Stop, options: &str) -> Result<Self> {
        Self::of(Size { n: 4, f: 1 }, common, stop, options)
    }

    /// A fresh group, mounted with `options`, of which one backup has been killed if `common` says so.
    ///
    /// Errors: this is not root, or what the group's programs say.
    pub fn of(size: Size, common: &Common, stop: &Stop, options: &str) -> Result<Self> {
        if !geteuid().is_root() {
            bail!("only root can test what other users may do: run it as root, with /dev/fuse");
        }
        let mut plan = Plan::new(size.n, size.f, stop).map_err(cannot)?;
        let attack = common.byzantine.as_deref().filter(|_| size.f > 0);
        if attack.is_some() {
            plan.programs = Programs::lab_beside_this().map_err(cannot)?;
        }
        let mut group = LocalGroup::start(&plan).map_err(cannot)?;
        let mount = group.dir().join("mnt");
        group.mount(&mount, options).map_err(cannot)?;
        if common.without_spare && size.f > 0 {
            group.kill(3).map_err(cannot)?;
        }
        if attack.is_some() {
            group.attack(ATTACKER, attack, &[]).map_err(cannot)?;
        }
        Ok(Self { group, mount, attacks: attack.is_some() })
    }

    /// Runs `work`; if somebody asks to stop, what it waits for in the mount fails.
    pub fn supervise<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        self.group.supervise(work, |_| {})
    }

    /// Runs `command`, whose output is collected, as [`Bed::supervise`] does.
    pub fn output(&mut self, command: &mut Command) -> Result<std::process::Output> {
        let program = command.get_program().to_owned();
        let output = self.supervise(|| command.output());
        output.with_context(|| format!("cannot run {}", Path::new(&program).display()))
    }

    /// Unmounts and mounts again.
    pub fn remount(&mut self, options: &str) -> Result<()> {
        let mount = self.mount.clone();
        self.group.unmount(&mount).map_err(cannot)?;
        self.group.mount(&mount, options).map_err(cannot)
    }

    /// Unmounts and ends the group.
    ///
    /// Errors: somebody still uses the mount; nothing was attacked that should have been.
    pub fn end(mut self) -> Result<()> {
        if self.attacks {
            let misdeeds = self.group.misdeeds(ATTACKER).map_or(0, |told| told.misdeeds());
            println!("replica {ATTACKER} has done {misdeeds} misdeeds meanwhile");
            if misdeeds == 0 {
                bail!("the compromised replica found nothing to attack");
            }
        }
        self.group.unmount(&self.mount.clone()).map_err(cannot)
    }
}

/// Makes sure that there are a user and a group called `name`, without a password and a home.
pub fn need_user(name: &str, why: &str) -> Result<()> {
    let run = |program: &str, arguments: &[&str]| -> Result<()> {
        eprintln!("suites: {program} {}: {why}", arguments.join(" "));
        let status = Command::new(program).args(arguments).status();
        match status.with_context(|| format!("cannot run {program}"))? {
            status if status.success() => Ok(()),
            status => bail!("{program} {}: {status}", arguments.join(" ")),
        }
    };
    if Group::from_name(name)?.is_none() {
        run("groupadd", &["--system", name])?;
    }
    if User::from_name(name)?.is_none() {
        let shell = "/usr/sbin/nologin";
        run("useradd", &["--system", "--no-create-home", "--gid", name, "--shell", shell, name])?;
    }
    Ok(())
}
