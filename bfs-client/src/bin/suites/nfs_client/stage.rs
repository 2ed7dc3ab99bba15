//! What the checks are done on: the service, and guests that have it mounted.

use super::Arguments;
use super::scale::Scale;
use crate::nfs::folder::Folder;
use crate::nfs::guest::{Ended, Guest, Kit, Who};
use crate::nfs::network::Cable;
use crate::nfs::target::{Endpoint, Service, Target};
use crate::programs::make_repository;
use anyhow::{Context, Result, anyhow, bail, ensure};
use bfs_client::failure::Failure;
use bfs_client::local_group::Programs;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use workloads::stop::Stop;

const FSX: &str = include_str!("../../../../../workloads/kernel-nfs/fsx.toml");
const PJDFSTEST: &str = include_str!("../../../../../workloads/kernel-nfs/pjdfstest.toml");

/// How long a group may take until all its replicas agree again.
const HEAL_LIMIT: Duration = Duration::from_secs(180);

/// A service and its guests. Dropping it ends and removes everything.
pub struct Stage {
    // Ended in this order.
    guests: [Option<Guest>; 2],
    service: Service,
    cables: [Cable; 2],
    kit: Kit,
    settings: Vec<(&'static str, String)>,
    pub scale: Scale,
    stop: Stop,
    scratch: Folder,
}

/// A step that a guest did.
pub struct Done {
    pub ok: bool,
    /// What it wrote.
    pub log: String,
}

fn cannot(failure: Failure) -> anyhow::Error {
    anyhow!("{failure}")
}

impl Stage {
    /// Starts `server`; guests are booted when they are first needed.
    pub fn start(server: Target, arguments: &Arguments, scale: Scale, stop: &Stop) -> Result<Self> {
        let scratch = Folder::temporary("nfs-client")?;
        let dir = scratch.path();
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let this = std::env::current_exe()?;
        let bfs = Programs::beside_this().map_err(cannot)?.bfs;
        let mut tools = vec![this, bfs.with_file_name("andrew")];
        let suites = arguments.tools.as_ref().filter(|_| scale.suites);
        if let Some(suites) = suites {
            tools.extend(["pjdfstest", "fsx"].map(|name| suites.join(name)));
            tools.extend([write("fsx.toml", FSX)?, write("pjdfstest.toml", PJDFSTEST)?]);
        }
        let kit = Kit::new(dir, tools)?;
        let cables = [Cable::lay(0)?, Cable::lay(1)?];
        if scale.suites {
            make_repository(&kit.share(cables[0]))?;
        }
        let service = server.start(dir, stop)?;
        let seeds: Vec<_> = (1..=arguments.seeds).map(|seed| seed.to_string()).collect();
        let settings = vec![
            ("seeds", seeds.join(" ")),
            ("operations", arguments.ops.to_string()),
            ("releases", scale.releases.to_string()),
            ("staying", scale.staying.to_string()),
            ("seconds", scale.steady.as_secs().to_string()),
        ];
        let (guests, stop) = ([None, None], stop.clone());
        Ok(Self { guests, service, cables, kit, settings, scale, stop, scratch })
    }

    /// The running guest number `number`, booted if there is none.
    pub fn guest(&mut self, number: usize) -> Result<&mut Guest> {
        if self.guests[number].is_none() {
            let endpoint = &self.service.endpoint;
            let mut guest = Guest::boot(&self.kit, self.cables[number], endpoint, &self.stop)?;
            self.settings.iter().try_for_each(|(name, text)| guest.tell(name, text))?;
            guest.begin("make_places", Who::Root)?;
            if !matches!(guest.end_of_step(HEAL_LIMIT, &self.stop), Ended::Status(0)) {
                bail!("the guest cannot prepare the export: {}", guest.step_log());
            }
            self.guests[number] = Some(guest);
        }
        self.guests[number].as_mut().context("it was just booted")
    }

    pub fn end_guest(&mut self, number: usize) {
        self.guests[number] = None;
    }

    /// Has guest `number` do a step.
    ///
    /// Errors: the guest was lost, also because the step took too long; the next step has a fresh one.
    pub fn step(&mut self, number: usize, step: &str, who: Who, limit: Duration) -> Result<Done> {
        self.guest(number)?.begin(step, who)?;
        self.end_of_step(number, limit).with_context(|| format!("step {step}"))
    }

    /// Waits for the end of the step that guest `number` does.
    pub fn end_of_step(&mut self, number: usize, limit: Duration) -> Result<Done> {
        let guest = self.guests[number].as_mut().context("the guest has ended")?;
        let ended = guest.end_of_step(limit, &self.stop);
        let log = guest.step_log();
        match ended {
            Ended::Status(status) => Ok(Done { ok: status == 0, log }),
            Ended::Lost(why) => {
                self.guests[number] = None;
                let log = crate::nfs::daemon::tail(log.as_bytes(), 12);
                bail!("{why}\n{log}\nthe server said:\n{}", self.service.said())
            }
        }
    }

    /// A folder of this run on this machine.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// What guest 0 sees as /run/share.
    pub fn share(&self) -> PathBuf {
        self.kit.share(self.cables[0])
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.service.endpoint
    }

    pub fn has_group(&mut self) -> bool {
        self.service.group().is_some()
    }

    /// Sleeps.
    ///
    /// Errors: somebody asked to stop.
    pub fn sleep(&self, time: Duration) -> Result<()> {
        ensure!(self.stop.sleep(time), "stopped");
        Ok(())
    }

    /// Kills the proxy, and starts it again after `pause`.
    pub fn restart_proxy(&mut self, pause: Duration) -> Result<()> {
        self.service.kill_front();
        self.sleep(pause)?;
        self.service.start_front()
    }

    /// Kills the primary or a backup; which one.
    pub fn kill_replica(&mut self, primary: bool) -> Result<usize> {
        let group = self.service.group().context("there are no replicas")?;
        let status = group.status().map_err(cannot)?;
        let (id, _) = status.primary().context("the group does not say who is its primary")?;
        let id = if primary { id } else { (id + 1) % group.pids().len() };
        group.kill(id).map_err(cannot)?;
        Ok(id)
    }

    /// Starts the replicas that were killed, and waits until all of them agree.
    pub fn start_replicas(&mut self) -> Result<()> {
        let deadline = Instant::now() + HEAL_LIMIT;
        let group = self.service.group().context("there are no replicas")?;
        for id in 0..group.pids().len() {
            if !group.is_running(id) {
                group.start_replica(id).map_err(cannot)?;
            }
        }
        loop {
            let health = group.status().map_err(cannot)?.health;
            if health == "HEALTHY" {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the group is {health} after {HEAL_LIMIT:?}");
            ensure!(self.stop.sleep(Duration::from_millis(200)), "stopped");
        }
    }

    /// Which kernel is the client.
    pub fn kernel(&self) -> String {
        let release = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let modules = fs::read_dir("/usr/lib/uml/modules").into_iter().flatten();
        let releases: Vec<_> = modules.flatten().map(release).collect();
        format!("user-mode Linux {}", releases.join(" "))
    }
}
