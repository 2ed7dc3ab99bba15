//! What is tried and measured: an NFS service that can be started and ended. BFS, and plain servers to compare it with.

use super::daemon::Daemon;
use super::folder::Folder;
use super::network::SERVER;
use anyhow::{Context, Result, anyhow, bail};
use bfs_client::failure::Failure;
use bfs_client::local_group::{LocalGroup, Plan};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, statfs};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use workloads::stop::Stop;

/// How the plain server is started.
const GANESHA: &str = include_str!("../../../../../workloads/kernel-nfs/ganesha.sh");

/// A service that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: &'static str,
    /// What it means here that a write is stable.
    pub stable: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bfs { n: usize, f: usize },
    Ganesha(Files),
}

/// Where the plain server keeps files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    Mem,
    Tmpfs,
    Ext4,
}

/// Everything that can be compared.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "bfs n=4",
        stable: "in the memory of 3 of 4 replicas, ordered; on no disk",
        kind: Kind::Bfs { n: 4, f: 1 },
    },
    Target {
        name: "bfs n=1",
        stable: "in the memory of the one replica; on no disk",
        kind: Kind::Bfs { n: 1, f: 0 },
    },
    Target {
        name: "ganesha-mem",
        stable: "in the server's memory",
        kind: Kind::Ganesha(Files::Mem),
    },
    Target {
        name: "ganesha-tmpfs",
        stable: "in the kernel's memory",
        kind: Kind::Ganesha(Files::Tmpfs),
    },
    Target {
        name: "ganesha-ext4",
        stable: "on the disk of one machine, as far as its disk says so (fsync)",
        kind: Kind::Ganesha(Files::Ext4),
    },
];

/// The target called `name`.
pub fn named(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Where a service is to be found.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub port: u16,
    pub mount_port: u16,
    pub export: String,
}

/// A service that was started; dropping it ends it and removes what it kept.
pub struct Service {
    pub endpoint: Endpoint,
    stop: Stop,
    // Ended in this order: the front first.
    front: Daemon,
    group: Option<LocalGroup>,
    log: PathBuf,
    _folder: Option<Folder>,
}

impl Target {
    /// Starts it, with its logs and other files in `scratch`.
    ///
    /// Errors: a program is missing, or does not start; what it said.
    pub fn start(&self, scratch: &Path, stop: &Stop) -> Result<Service> {
        let port = free_ports()?;
        let log = scratch.join(format!("{}.log", self.name.replace(' ', "-")));
        match self.kind {
            Kind::Bfs { n, f } => start_bfs(self.name, n, f, port, log, stop),
            Kind::Ganesha(files) => start_ganesha(self.name, files, port, log, scratch, stop),
        }
    }
}

impl Service {
    /// The group behind it, if it is BFS.
    pub fn group(&mut self) -> Option<&mut LocalGroup> {
        self.group.as_mut()
    }

    /// Kills what clients talk to, as a crash would.
    pub fn kill_front(&mut self) {
        self.front.kill();
    }

    /// Starts it again at the same address.
    ///
    /// Errors: it is not BFS, or does not start.
    pub fn start_front(&mut self) -> Result<()> {
        let group = self.group.as_ref().context("only a proxy can be started again")?;
        self.front = spawn_proxy(group, self.endpoint.port, &self.log)?;
        self.front.wait_until_it_listens(SERVER, self.endpoint.port, &self.stop)
    }

    /// The end of what the front said.
    pub fn said(&self) -> String {
        self.front.said()
    }
}

fn cannot(failure: Failure) -> anyhow::Error {
    anyhow!("{failure}")
}

fn start_bfs(
    name: &str,
    n: usize,
    f: usize,
    port: u16,
    log: PathBuf,
    stop: &Stop,
) -> Result<Service> {
    let plan = Plan::new(n, f, stop).map_err(cannot)?;
    let group = LocalGroup::start(&plan).map_err(cannot)?;
    let mut front = spawn_proxy(&group, port, &log).with_context(|| format!("{name}: no proxy"))?;
    front.wait_until_it_listens(SERVER, port, stop)?;
    let endpoint = Endpoint { address: SERVER, port, mount_port: port, export: "/".to_owned() };
    Ok(Service { endpoint, stop: stop.clone(), front, group: Some(group), log, _folder: None })
}

fn spawn_proxy(group: &LocalGroup, port: u16, log: &Path) -> Result<Daemon> {
    let mut command = Command::new(&group.programs().bfs);
    command.arg("nfs").arg(group.group_file()).arg("--key").arg(group.key_dir());
    command.args(["--listen", &format!("{SERVER}:{port}")]);
    Daemon::spawn("bfs nfs", command, log)
}

fn start_ganesha(
    name: &str,
    files: Files,
    port: u16,
    log: PathBuf,
    scratch: &Path,
    stop: &Stop,
) -> Result<Service> {
    let script = scratch.join("ganesha.sh");
    fs::write(&script, GANESHA)?;
    let folder = match files {
        Files::Mem => None,
        Files::Tmpfs => Some(Folder::new(scratch.join("tmpfs"))?),
        Files::Ext4 => Some(Folder::new(on_ext4()?)?),
    };
    let export =
        folder.as_ref().map_or("/mem".into(), |folder| folder.path().display().to_string());
    let (fsal, tmpfs): (_, &[&str]) = match files {
        Files::Mem => ("MEM", &[]),
        Files::Tmpfs => ("VFS", &["tmpfs"]),
        Files::Ext4 => ("VFS", &[]),
    };
    let mut command = Command::new("bash");
    command.arg(&script).args([&port.to_string(), fsal, &export]).args(tmpfs);
    let mut front = Daemon::spawn(name, command, &log)?;
    front.wait_until_it_listens(SERVER, port, stop)?;
    front.wait_until_it_listens(SERVER, port + 1, stop)?;
    let endpoint = Endpoint { address: SERVER, port, mount_port: port + 1, export };
    Ok(Service { endpoint, stop: stop.clone(), front, group: None, log, _folder: folder })
}

/// A folder for files on ext4, below the project's own folder for what is built.
///
/// Errors: that is on another file system.
fn on_ext4() -> Result<PathBuf> {
    let parent = fs::canonicalize("target").context("there is no folder ./target here")?;
    let kind = statfs(&parent).with_context(|| parent.display().to_string())?.filesystem_type();
    if kind != EXT4_SUPER_MAGIC {
        bail!("{} is not on ext4 (its type is {:#x})", parent.display(), kind.0);
    }
    Ok(parent.join(format!("nfs-ext4-{}", std::process::id())))
}

/// Two ports in a row that nobody uses: the network is this process's own.
fn free_ports() -> Result<u16> {
    const FROM: u16 = 20_490;
    let free = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    (FROM..FROM + 100)
        .step_by(2)
        .find(|port| free(*port) && free(port + 1))
        .context("there are no free ports")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names_of_their_own() {
        for target in TARGETS {
            assert_eq!(named(target.name), Some(target));
        }
        assert_eq!(named("nothing"), None);
    }
}
