//! Where work is done: a folder of this machine, a mount of a group, or a guest that has a service mounted over NFSv3.

use super::calls::{self, Calls};
use super::works::{GIT, LARGE_FILE, Work};
use crate::nfs::daemon::tail;
use crate::nfs::folder::Folder;
use crate::nfs::guest::{Ended, Guest, Kit, Who};
use crate::nfs::network::Cable;
use crate::nfs::target::{self, Service};
use crate::programs::make_repository;
use anyhow::{Context, Result, anyhow, bail, ensure};
use bfs_client::failure::Failure;
use bfs_client::local_group::{LocalGroup, Plan, Programs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use workloads::stop::Stop;

/// What is compared, and what its kind of place is.
pub const TARGETS: [(&str, Kind); 9] = [
    ("native", Kind::Folder("/dev/shm")),
    ("bfs", Kind::Mount { n: 4, f: 1 }),
    ("bfs-unreplicated", Kind::Mount { n: 1, f: 0 }),
    ("bfs-nfs", Kind::Guest("bfs n=4")),
    ("bfs-nfs-unreplicated", Kind::Guest("bfs n=1")),
    ("ganesha-mem", Kind::Guest("ganesha-mem")),
    ("ganesha-tmpfs", Kind::Guest("ganesha-tmpfs")),
    ("ganesha-ext4", Kind::Guest("ganesha-ext4")),
    ("knfsd", Kind::KernelServer),
];

#[derive(Clone, Copy)]
pub enum Kind {
    /// A folder in this folder.
    Folder(&'static str),
    /// A FUSE mount of a group of so many replicas.
    Mount { n: usize, f: usize },
    /// A guest with a kernel of its own, which has this service mounted.
    Guest(&'static str),
    /// This machine's kernel as the server.
    KernelServer,
}

/// Work that a target cannot do, and why.
const NOT_APPLICABLE: [(&str, &str, &str); 2] = [
    ("ganesha-mem", LARGE_FILE, "it keeps at most 2 MiB of a file"),
    ("ganesha-mem", GIT, "it answers an I/O error where git replaces its config"),
];

/// How long one piece of work may take.
const LIMIT: Duration = Duration::from_secs(3600);

/// How long work took, as it says itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Timing {
    pub phases: Vec<Phase>,
    pub total_seconds: f64,
    /// What a guest's kernel asked meanwhile, by the procedure's name.
    #[serde(skip)]
    pub calls: BTreeMap<String, Calls>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Phase {
    pub name: String,
    pub seconds: f64,
}

/// What is not in the comparison, or not to its end.
#[derive(Clone, Serialize)]
pub struct NotRun {
    pub target: &'static str,
    /// All work, if it is none in particular.
    pub work: Option<&'static str>,
    pub why: String,
    /// Whether that was to be expected.
    pub expected: bool,
}

enum Place {
    Folder(Folder),
    Mount { group: Box<LocalGroup>, path: PathBuf },
    Guest(Guest),
}

/// All of them. Dropping it ends and removes everything.
pub struct Places {
    // Ended in this order: guests before what they have mounted.
    places: BTreeMap<&'static str, Place>,
    services: BTreeMap<&'static str, Service>,
    not_run: Vec<NotRun>,
    andrew: PathBuf,
    repository: PathBuf,
    stop: Stop,
    scratch: Folder,
}

impl Places {
    /// Starts those that are `wanted`; who does not start is noted, and the others are compared. Where `no_guests` says why there
    /// can be none, none is tried.
    pub fn start(
        wanted: impl Fn(&str) -> bool,
        no_guests: Option<&str>,
        stop: &Stop,
    ) -> Result<Self> {
        let scratch = Folder::temporary("compare")?;
        let andrew = Programs::beside_this().map_err(cannot)?.bfs;
        let andrew = andrew.with_file_name("andrew");
        make_repository(scratch.path())?;
        let mut places = Self {
            places: BTreeMap::new(),
            services: BTreeMap::new(),
            not_run: Vec::new(),
            andrew,
            repository: scratch.path().join("repository"),
            stop: stop.clone(),
            scratch,
        };
        // Servers listen at the first cable's address, guest or not.
        let mut cables = 0..u8::MAX;
        let mut spare = match no_guests {
            None => cables.next().map(Cable::lay).transpose()?,
            Some(_) => None,
        };
        for (target, kind) in TARGETS.into_iter().filter(|(target, _)| wanted(target)) {
            if let (Kind::Guest(_), Some(why)) = (kind, no_guests) {
                places.note(target, None, why.to_owned(), true);
                continue;
            }
            eprintln!("starting {target}");
            let cable = || spare.take().map_or_else(|| Cable::lay(cables.next().unwrap_or(0)), Ok);
            match places.open(kind, cable) {
                Ok(place) => drop(places.places.insert(target, place)),
                Err(error) => places.note(target, None, format!("{error:#}"), true),
            }
            ensure!(!stop.requested(), "stopped");
        }
        Ok(places)
    }

    fn open(&mut self, kind: Kind, cable: impl FnOnce() -> Result<Cable>) -> Result<Place> {
        match kind {
            Kind::Folder(parent) => {
                let name = format!("bfs-compare-{}", std::process::id());
                Ok(Place::Folder(Folder::new(Path::new(parent).join(name))?))
            }
            Kind::Mount { n, f } => {
                let plan = Plan::new(n, f, &self.stop).map_err(cannot)?;
                let mut group = Box::new(LocalGroup::start(&plan).map_err(cannot)?);
                let path = group.dir().join("mnt");
                group.mount(&path, "").map_err(cannot)?;
                Ok(Place::Mount { group, path })
            }
            Kind::Guest(service) => {
                let endpoint = self.service(service)?.endpoint.clone();
                let kit = Kit::new(self.scratch.path(), vec![self.andrew.clone()])?;
                let cable = cable()?;
                fs::create_dir_all(kit.share(cable))?;
                make_repository(&kit.share(cable))?;
                let mut guest = Guest::boot(&kit, cable, &endpoint, &self.stop)?;
                do_step(&mut guest, "make_places", &self.stop)?;
                guest.freeze(true)?;
                Ok(Place::Guest(guest))
            }
            Kind::KernelServer => bail!("{}", why_no_kernel_server()),
        }
    }

    /// The service called `name`, started if it does not run.
    fn service(&mut self, name: &'static str) -> Result<&mut Service> {
        if !self.services.contains_key(name) {
            let target = target::named(name).context("there is no such service")?;
            let service = target.start(self.scratch.path(), &self.stop)?;
            self.services.insert(name, service);
        }
        self.services.get_mut(name).context("it was just started")
    }

    /// Does `work` on `target` in an empty folder, which is removed; nothing if the target does not do it, or somebody asks to stop.
    pub fn perform(&mut self, target: &'static str, work: &Work) -> Option<Timing> {
        if self.stop.requested() {
            return None;
        }
        if self.not_run.iter().any(|of| of.target == target && of.work == Some(work.name)) {
            return None;
        }
        let Self { places, andrew, repository, stop, scratch, .. } = self;
        let place = places.get_mut(target)?;
        let cannot =
            NOT_APPLICABLE.iter().find(|(of, what, _)| (*of, *what) == (target, work.name));
        if let Some((_, _, why)) = cannot {
            self.note(target, Some(work.name), (*why).to_owned(), true);
            return None;
        }
        let timing = match place {
            Place::Guest(guest) => in_guest(guest, work, stop),
            Place::Folder(folder) => {
                here(folder.path(), scratch.path(), andrew, &work.arguments(repository, false))
            }
            Place::Mount { group, path } => {
                let arguments = work.arguments(repository, false);
                group.supervise(|| here(path, scratch.path(), andrew, &arguments), |_| {})
            }
        };
        if let Err(error) = &timing
            && !self.stop.requested()
        {
            self.note(target, Some(work.name), format!("{error:#}"), false);
        }
        timing.ok()
    }

    fn note(
        &mut self,
        target: &'static str,
        work: Option<&'static str>,
        why: String,
        expected: bool,
    ) {
        eprintln!("  {target}: not run: {why}");
        self.not_run.push(NotRun { target, work, why, expected });
    }

    /// Who was not run, or not to the end, and why.
    pub fn not_run(&self) -> &[NotRun] {
        &self.not_run
    }
}

fn cannot(failure: Failure) -> anyhow::Error {
    anyhow!("{failure}")
}

/// A guest's kernel could serve, but that would say more about user-mode Linux than about NFS.
fn why_no_kernel_server() -> &'static str {
    match fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.contains("nfsd")) {
        true => {
            "this machine's kernel serves all networks of the machine, and this run has one of its own"
        }
        false => "this machine's kernel has no NFS server",
    }
}

/// Runs `andrew` in a new folder in `dir`.
fn here(dir: &Path, scratch: &Path, andrew: &Path, arguments: &[String]) -> Result<Timing> {
    let (folder, json) = (dir.join("measured"), scratch.join("figures.json"));
    // Of work that failed.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut command = Command::new(andrew);
    let output = command.args(arguments).arg("--json").arg(&json).arg(&folder).output();
    let removed = fs::remove_dir_all(&folder);
    let output = output.with_context(|| format!("cannot run {}", andrew.display()))?;
    if !output.status.success() {
        bail!("{}:\n{}", output.status, tail(&output.stderr, 12));
    }
    removed.with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(serde_json::from_slice(&fs::read(&json)?)?)
}

fn in_guest(guest: &mut Guest, work: &Work, stop: &Stop) -> Result<Timing> {
    let arguments = work.arguments(Path::new("/run/share/repository"), true);
    guest.tell("arguments", &arguments.join(" "))?;
    guest.freeze(false)?;
    let done = do_step(guest, "measured", stop);
    let frozen = guest.freeze(true);
    done.and(frozen)?;
    let timing: Timing = serde_json::from_str(&guest.told("figures.json")?)?;
    let calls = calls::between(&guest.told("calls.before")?, &guest.told("calls.after")?)?;
    Ok(Timing { calls, ..timing })
}

fn do_step(guest: &mut Guest, step: &str, stop: &Stop) -> Result<()> {
    guest.begin(step, Who::Root)?;
    match guest.end_of_step(LIMIT, stop) {
        Ended::Status(0) => Ok(()),
        Ended::Status(status) => {
            bail!("{step}: status {status}\n{}", tail(guest.step_log().as_bytes(), 12))
        }
        Ended::Lost(why) => bail!("{step}: {why}"),
    }
}
