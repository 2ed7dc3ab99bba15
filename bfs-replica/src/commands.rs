//! `init` and `run`: what a person asks of a replica, and the settings it reads.

use crate::driver::Driver;
use crate::wire::{Scene, Wire};
use bfs_fs::{FileSystem, FileSystemConfig};
use bft_core::auth::{Authority, PublicKey, RealCrypto};
use bft_core::clients::ClientIdentity;
use bft_core::replica::{Config, Replica};
use bft_core::types::{GroupId, Peer, ReplicaId};
use bft_net::group::{Group, PublicFile};
use bft_net::hub::{Hub, HubConfig};
use bft_net::keys::Identity;
use clap::Args;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};

/// Why a command did not do what it was asked: what happened, why, and what to do next.
pub struct Failure {
    /// The exit code: 1 failed, 2 usage, 5 evidence of Byzantine behaviour, 6 keys or group file.
    pub exit: u8,
    message: String,
}

/// T_k: how long a client's MAC key is the newest; it stays good for as long again. SIGHUP refreshes the keys at once.
const KEY_PERIOD: Duration = Duration::from_secs(600);

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const BYZANTINE: u8 = 5;
const KEYS: u8 = 6;

impl Failure {
    fn new(exit: u8, what: impl fmt::Display, why: impl fmt::Display, next: &str) -> Self {
        Self { exit, message: format!("{what}: {why}\n  try: {next}") }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[derive(Args)]
pub struct InitArguments {
    /// The folder to make
    dir: PathBuf,
    /// Where this replica will be reached by the others and by clients
    #[arg(long, value_name = "HOST:PORT", env = "BFS_LISTEN", default_value = "127.0.0.1:7100")]
    listen: String,
}

#[derive(Args)]
pub struct RunArguments {
    /// The folder that `init` made
    dir: PathBuf,
    /// The group's public file; unless given, `group` in replica.toml, or group.toml beside it
    #[arg(long, value_name = "FILE", env = "BFS_GROUP")]
    group: Option<PathBuf>,
    /// Listen here instead of at the address in the group file
    #[arg(long, value_name = "HOST:PORT", env = "BFS_LISTEN")]
    listen: Option<String>,
    /// Behave as this attack of the catalogue says: lab builds only
    #[arg(long, value_name = "B-nn", env = "BFS_ATTACK", hide = true)]
    attack: Option<String>,
}

/// replica.toml. Precedence: flag, environment, this file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Where to listen.
    listen: String,
    /// The group file; a relative path starts at this file's folder.
    #[serde(default = "default_group")]
    group: PathBuf,
}

fn default_group() -> PathBuf {
    "group.toml".into()
}

/// Makes keys and settings in a new folder.
pub fn init(arguments: &InitArguments) -> Result<(), Failure> {
    let dir = &arguments.dir;
    let failed = |exit: u8, error: &dyn fmt::Display| {
        Failure::new(
            exit,
            format!("cannot make a replica in {}", dir.display()),
            error,
            "name a new folder, or one that you may write to and that holds no keys",
        )
    };
    std::fs::create_dir_all(dir).map_err(|error| failed(FAILED, &error))?;
    let identity = Identity::generate();
    identity.save(dir).map_err(|error| failed(KEYS, &error))?;
    let public = PublicFile::replica(&arguments.listen, identity.public());
    public.save(&dir.join("public.toml")).map_err(|error| failed(FAILED, &error))?;
    let settings = Settings { listen: arguments.listen.clone(), group: default_group() };
    let text = toml::to_string(&settings).map_err(|error| failed(FAILED, &error))?;
    std::fs::write(dir.join("replica.toml"), text).map_err(|error| failed(FAILED, &error))?;
    let dir = dir.display();
    // It is made, whether anybody reads that or not.
    let _ = writeln!(
        io::stdout(),
        "made {dir}: give public.toml to whoever runs `bfs group create`\n\
         then:  bfs-replica run {dir} --group group.toml"
    );
    Ok(())
}

fn settings(dir: &Path) -> Result<Settings, Failure> {
    let path = dir.join("replica.toml");
    let failed = |error: &dyn fmt::Display| {
        let what = format!("cannot use {}", path.display());
        Failure::new(FAILED, what, error, "make it with: bfs-replica init DIR --listen HOST:PORT")
    };
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
    toml::from_str(&text).map_err(|error| failed(&error))
}

/// Serves until SIGTERM, Ctrl-C or an alarm.
pub fn run<W: Wire>(arguments: &RunArguments) -> Result<(), Failure> {
    if let Some(name) = &arguments.attack {
        W::knows(name).map_err(|why| {
            let next = "leave --attack away to run an honest replica";
            Failure::new(USAGE, format!("cannot attack by {name}"), why, next)
        })?;
    }
    // Decision 11. A kernel without huge pages needs no telling.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let dir = &arguments.dir;
    let settings = settings(dir)?;
    let file = arguments.group.clone().unwrap_or_else(|| dir.join(&settings.group));
    let group = Group::load(&file).map_err(|error| {
        let what = format!("cannot use the group file {}", file.display());
        Failure::new(
            KEYS,
            what,
            error,
            "copy the group.toml that `bfs group create` made, and name it with --group",
        )
    })?;
    let identity = Identity::load(dir).map_err(|error| {
        let what = format!("cannot use the keys in {}", dir.display());
        Failure::new(KEYS, what, error, "keys are made by: bfs-replica init DIR")
    })?;
    let Some(Peer::Replica(me)) = group.peer_of(&identity.public().link) else {
        let what =
            format!("the keys in {} are not a replica's of group {}", dir.display(), group.id());
        let why = "the group file does not list them";
        return Err(Failure::new(
            KEYS,
            what,
            why,
            "run the folder whose public.toml went into the group file",
        ));
    };
    let _alone = alone_in(dir)?;
    let listen = arguments.listen.as_ref().unwrap_or(&settings.listen);
    let listener = TcpListener::bind(listen).map_err(|error| {
        let next = "stop whatever listens there, or choose another address with --listen";
        Failure::new(FAILED, format!("cannot listen on {listen}"), error, next)
    })?;
    let past = Past::begin(dir, group.id()).map_err(|error| {
        let what = format!("cannot note in {} that this replica serves", dir.display());
        Failure::new(FAILED, what, error, "make the folder writable, or restore its file `served`")
    })?;
    let scene = Scene {
        dir,
        group: &group,
        me,
        signing_seed: identity.signing_seed(),
        attack: arguments.attack.as_deref(),
    };
    let wire = W::new(&scene).map_err(|error| {
        let what = format!("cannot prepare the lab in {}", dir.display());
        Failure::new(FAILED, what, error, "make the folder writable")
    })?;
    serve(group, identity, me, listener, past, wire)
}

/// Holds `dir` for this process until what is returned is dropped: two processes with one replica's keys contradict each other,
/// and what one of them promised the other does not know.
fn alone_in(dir: &Path) -> Result<Flock<File>, Failure> {
    let failed = |error: io::Error| {
        Failure::new(
            FAILED,
            format!("cannot have {} for this process alone", dir.display()),
            error,
            "stop the bfs-replica that runs from this folder",
        )
    };
    let folder = File::open(dir).map_err(failed)?;
    Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| failed(errno.into()))
}

/// Whether this replica has served its group before, without which it has nothing to forget.
enum Past {
    /// Never.
    New,
    /// Yes, and what it said then is lost: it held its state and its log in memory.
    Forgotten {
        /// What it calls itself from now on.
        incarnation: u64,
    },
}

impl Past {
    /// Finds out, and notes for the next start that it has served: the file `served` has a line for each group.
    ///
    /// The note is on the disk before the first vote can leave.
    fn begin(dir: &Path, group: GroupId) -> std::io::Result<Self> {
        let path = dir.join("served");
        let group = group.to_string();
        let before = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        if before.lines().any(|served| served == group) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let incarnation = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            return Ok(Past::Forgotten { incarnation });
        }
        // The other groups stay: whoever comes back to one of them after a while has still forgotten what it said there.
        let note: String = before.lines().chain([&*group]).map(|id| format!("{id}\n")).collect();
        let new = dir.join("served.new");
        let mut file = File::create(&new)?;
        file.write_all(note.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(Past::New)
    }
}

fn serve<W: Wire>(
    group: Group,
    identity: Identity,
    me: ReplicaId,
    listener: TcpListener,
    past: Past,
    wire: W,
) -> Result<(), Failure> {
    let group = Arc::new(group);
    let cannot = |error: std::io::Error| {
        Failure::new(FAILED, "cannot serve", error, "see the system's limits")
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    if let Past::Forgotten { .. } = past {
        let others = group.size().quorum();
        tracing::warn!(
            "this replica has served before and held everything in memory: it is mute until {others} others have brought the group past whatever it may have said. If they are gone too, so are the files; take the line {} out of `served` in every replica's folder to begin again, empty",
            group.id()
        );
    }
    let replica = replica(&group, &identity, me, past);
    tracing::info!(
        "replica {me:?} of group {} (n={}, f={}) listens on {}; state in memory: durable while {} of {} replicas run",
        group.id(),
        group.size().n(),
        group.size().f(),
        listener.local_addr().map_err(cannot)?,
        group.size().quorum(),
        group.size().n(),
    );
    runtime.block_on(async {
        let (alarms, mut alarm) = tokio::sync::mpsc::unbounded_channel();
        let driver = Driver::new(replica, wire, RealCrypto::new(identity.signing_seed()), alarms);
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let config = HubConfig { identity, group, me: Peer::Replica(me), listen: Some(listener) };
        let mut refresh = signal(SignalKind::hangup()).map_err(cannot)?;
        let mut period = tokio::time::interval(KEY_PERIOD);
        // The first tick is due at once, and there is nobody to hand a key to.
        period.tick().await;
        let hub = Hub::start(config, driver);
        let result = loop {
            tokio::select! {
                _ = terminate.recv() => break Ok(()),
                _ = interrupt.recv() => break Ok(()),
                _ = refresh.recv() => hub.with(Driver::refresh_keys),
                _ = period.tick() => hub.with(Driver::refresh_keys),
                Some(alarm) = alarm.recv() => break Err(Failure::new(
                    BYZANTINE,
                    "this replica stopped on an alarm",
                    alarm,
                    "keep this log as evidence, compare with the others by bfs status, and do not restart before it is understood",
                )),
            }
        };
        hub.with(|driver, _| driver.report());
        hub.shutdown().await;
        tracing::info!("stopped");
        result
    })
}

/// The replica that the group file describes.
fn replica(group: &Group, identity: &Identity, me: ReplicaId, past: Past) -> Replica<FileSystem> {
    let mut config = Config::new(group.size(), me)
        .with_window(group.parameters.checkpoint_interval, group.parameters.window);
    config.slots = group.parameters.slots;
    config.view_timeout = Duration::from_millis(group.parameters.view_timeout_ms);
    let service = FileSystem::new(FileSystemConfig {
        memory_budget: group.memory,
        root_mode: 0o1777,
        ..FileSystemConfig::default()
    });
    let clients = group.clients.iter().map(|client| ClientIdentity {
        name: client.name.clone(),
        link: client.identity.link,
        signing: PublicKey(client.identity.signing),
    });
    let authority = Authority::new(
        group.id(),
        group.size(),
        me,
        config.limits,
        group.replicas.iter().map(|member| PublicKey(member.identity.signing)).collect(),
        clients,
        Arc::new(RealCrypto::new(identity.signing_seed())),
    );
    match past {
        Past::New => Replica::new(config, authority, service),
        Past::Forgotten { incarnation } => Replica::rejoin(config, authority, service, incarnation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bft_core::types::Digest;

    /// What each start finds in a folder whose `served` says `before`, and what the file says in the end.
    fn starts(name: &str, before: Option<String>, groups: &[GroupId]) -> (Vec<bool>, String) {
        let dir = std::env::temp_dir().join(format!("bfs-served-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        if let Some(before) = before {
            std::fs::write(dir.join("served"), before).unwrap();
        }
        let forgotten =
            |group: &GroupId| matches!(Past::begin(&dir, *group).unwrap(), Past::Forgotten { .. });
        let found = groups.iter().map(forgotten).collect();
        let served = std::fs::read_to_string(dir.join("served")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        (found, served)
    }

    const A: GroupId = GroupId(Digest([0xa; 32]));
    const B: GroupId = GroupId(Digest([0xb; 32]));

    #[test]
    fn a_group_is_remembered_although_another_was_served_since() {
        let (found, served) = starts("again", None, &[A, A, B, A, B]);
        assert_eq!(found, [false, true, false, true, true]);
        assert_eq!(served, format!("{A}\n{B}\n"));
    }

    #[test]
    fn what_was_noted_when_there_was_one_group_is_read() {
        let (found, served) = starts("one", Some(format!("{A}\n")), &[B, A]);
        assert_eq!(found, [false, true]);
        assert_eq!(served, format!("{A}\n{B}\n"));
    }
}
