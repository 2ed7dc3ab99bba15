//! What is remembered of each mount, and of each NFS proxy, while it is served: a small file that only its owner may read.

use crate::backend::Outvoted;
use crate::failure::{Exit, Failure, Outcome};
use crate::mount_table;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid, getpid};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often who serves should look whether a replica was seen to lie.
pub const LOOK: Duration = Duration::from_millis(200);
/// How long a process whose mount is gone may take to end.
const END_LIMIT: Duration = Duration::from_secs(2);
/// No state is larger. Units: bytes.
const STATE_MAX: u64 = 64 << 10;

/// A mount and the process that serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountState {
    /// The process that serves it.
    pub pid: i32,
    /// When that process started, in the kernel's clock ticks: tells it from a later one with the same number.
    pub started: u64,
    /// Where it is: absolute, without links. Empty for an NFS proxy.
    pub dir: PathBuf,
    /// The kernel's number of the mount.
    pub mount_id: u64,
    /// The group's id in eight digits.
    pub group: String,
    /// What it has seen each replica do, by replica.
    #[serde(default)]
    pub outvoted: Vec<Outvoted>,
    /// The client's public key, in hexadecimal digits.
    #[serde(default)]
    pub client: String,
    /// Where an NFS proxy listens; a mount does not.
    #[serde(default)]
    pub listens: Option<SocketAddr>,
}

impl MountState {
    /// That of something which this process serves, by the client whose public key is `client`.
    pub fn own(group: String, client: String) -> Outcome<Self> {
        let pid = getpid().as_raw();
        let started = start_time(pid)
            .ok_or_else(|| Failure::new("cannot read /proc/self/stat", "it is not as expected"))?;
        Ok(Self {
            pid,
            started,
            dir: PathBuf::new(),
            mount_id: 0,
            group,
            outvoted: Vec::new(),
            client,
            listens: None,
        })
    }

    /// Writes it down for other commands of this machine, until what is returned is dropped.
    pub fn remember(self) -> Outcome<Remembered> {
        let file = self.save()?;
        Ok(Remembered { state: self, file })
    }

    /// Writes the file, mode 0600, and returns its path.
    fn save(&self) -> Outcome<PathBuf> {
        let folder = own_folder()?;
        let path = folder.join(format!("{}.json", self.pid));
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            // Whoever reads it sees the old one or the new one.
            fs::rename(&new, &path)
        };
        write().map_err(|error| Failure::new(format!("cannot write {}", path.display()), error))?;
        Ok(path)
    }

    /// Whether the process that serves the mount still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Whether the mount is where it was made.
    fn is_mounted(&self) -> bool {
        mount_table::at(&self.dir).is_ok_and(|entry| entry.is_some_and(|e| e.id == self.mount_id))
    }

    /// Sends `signal` to the process that serves the mount, if it still runs.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.is_alive() {
            true => Ok(kill(Pid::from_raw(self.pid), signal)?),
            false => Ok(()),
        }
    }

    /// Waits until the serving process has ended; says whether it has within `limit`.
    pub fn wait_for_end(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// The file that says who serves a mount or as an NFS proxy, while it lives.
pub struct Remembered {
    state: MountState,
    file: PathBuf,
}

impl Remembered {
    /// Writes down what was seen of the replicas, where it is news, for `bfs status`.
    pub fn note(&mut self, outvoted: Vec<Outvoted>) {
        if self.state.outvoted != outvoted {
            self.state.outvoted = outvoted;
            if let Err(failure) = self.state.save() {
                tracing::debug!("{failure}");
            }
        }
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        // Whoever unmounted may have removed it first, and a folder that is gone took it along.
        let _ = fs::remove_file(&self.file);
    }
}

/// The newest remembered state of the mount called `mount_id` on `dir`.
pub fn find(dir: &Path, mount_id: u64) -> Option<MountState> {
    let (me, mounter) = (geteuid().as_raw(), mounted_by(mount_id));
    // Another user's file may say of anybody's mount that a process of that user serves it.
    let believed = |folder: &Folder| folder.owner == me || Some(folder.owner) == mounter;
    let states = folders().into_iter().filter(believed).flat_map(|folder| folder.read());
    states
        .filter(|(_, s)| s.dir == dir && s.mount_id == mount_id)
        .map(|(_, s)| s)
        .max_by_key(|s| s.started)
}

/// What this user's mounts and NFS proxies of group `group` on this machine have seen lately, by replica. Nobody else's word is taken for that.
pub fn outvoted(group: &str) -> Vec<u64> {
    let own = |folder: &Folder| folder.owner == geteuid().as_raw();
    let states = folders().into_iter().filter(own).flat_map(|folder| folder.read());
    let mut sum = Vec::new();
    for (_, state) in states.filter(|(_, state)| state.group == group && state.is_alive()) {
        sum.resize(sum.len().max(state.outvoted.len()), 0u64);
        for (sum, seen) in sum.iter_mut().zip(&state.outvoted) {
            *sum = sum.saturating_add(seen.lately);
        }
    }
    sum
}

/// Makes sure that no mount and no NFS proxy of `group` that this user knows of on this machine is by the client whose public key is
/// `client`, and whose keys are in `key`: a new session would end theirs, and fail whatever waits there.
///
/// Errors: one is, or is still coming to its end after 2 s.
pub fn expect_unused(group: &str, client: &str, key: &Path) -> Outcome {
    expect_none(group, client, key, |_| true)
}

/// The same of mounts only: an NFS proxy may take the place of another one.
pub fn expect_unmounted(group: &str, client: &str, key: &Path) -> Outcome {
    expect_none(group, client, key, |state| state.listens.is_none())
}

fn expect_none(
    group: &str,
    client: &str,
    key: &Path,
    counts: impl Fn(&MountState) -> bool,
) -> Outcome {
    let states = folders().into_iter().flat_map(|folder| folder.read());
    let same = |s: &MountState| s.group == group && s.client == client && counts(s) && s.is_alive();
    let used = |state: &MountState| state.is_mounted() || !state.wait_for_end(END_LIMIT);
    let user = states.map(|(_, state)| state).find(|state| same(state) && used(state));
    let Some(MountState { pid, dir, listens, .. }) = user else { return Ok(()) };
    let (who, end) = match listens {
        Some(address) => (format!("the NFS proxy on {address}"), format!("kill {pid}")),
        None => {
            (format!("the mount on {}", dir.display()), format!("bfs umount {}", dir.display()))
        }
    };
    let what = format!("cannot use the keys in {}", key.display());
    let why = format!("{who} uses them (process {pid}), and a second session would end its own");
    Err(Failure::new(what, why).exit(Exit::Keys).advise(format!(
        "name another client's keys with --key, for example the administrator's, or first: {end}"
    )))
}

/// Removes the files of mounts on `dir` whose process has ended.
pub fn forget_dead(dir: &Path) {
    for (path, state) in folders().into_iter().flat_map(|folder| folder.read()) {
        if state.dir == dir && !state.is_alive() {
            // Somebody else may have removed it first, or it is not ours to remove.
            let _ = fs::remove_file(path);
        }
    }
}

/// When process `pid` started: field 22 of its stat, in clock ticks; nothing if there is none, or it has ended and
/// waits to be reaped. [proc_pid_stat(5)]
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, a name in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// The folder for this user's mounts, made if it is not there.
///
/// Errors: it exists and belongs to somebody else, so that what is read there could not be trusted.
pub fn own_folder() -> Outcome<PathBuf> {
    let folder = own_path();
    let what = || format!("cannot use the folder {}", folder.display());
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|e| {
        Failure::new(what(), e).advise("name a folder that you may write to in BFS_RUNTIME_DIR")
    })?;
    let metadata = fs::symlink_metadata(&folder).map_err(|e| Failure::new(what(), e))?;
    match metadata.is_dir() && metadata.uid() == geteuid().as_raw() {
        true => Ok(folder),
        false => Err(Failure::new(what(), "it belongs to another user")
            .advise("name a folder of your own in BFS_RUNTIME_DIR")),
    }
}

fn own_path() -> PathBuf {
    if let Some(folder) = std::env::var_os("BFS_RUNTIME_DIR") {
        return folder.into();
    }
    let uid = geteuid();
    match std::env::var_os("XDG_RUNTIME_DIR") {
        _ if uid.is_root() => "/run/bfs".into(),
        Some(folder) => Path::new(&folder).join("bfs"),
        None => std::env::temp_dir().join(format!("bfs-{uid}")),
    }
}

/// A folder of states, and the user whose states they are.
struct Folder {
    path: PathBuf,
    owner: u32,
}

/// Every folder whose states this user may act on: root unmounts for everyone.
fn folders() -> Vec<Folder> {
    let mut folders = vec![Folder { path: own_path(), owner: geteuid().as_raw() }];
    if geteuid().is_root()
        && let Ok(users) = fs::read_dir("/run/user")
    {
        // The system made what is in /run/user, so that whose it is can be trusted.
        folders.extend(users.flatten().filter_map(|user| {
            let owner = user.metadata().ok()?.uid();
            Some(Folder { path: user.path().join("bfs"), owner })
        }));
    }
    folders
}

impl Folder {
    /// The states in it that its user wrote, of processes that are its user's; root's may be of anybody's.
    fn read(&self) -> Vec<(PathBuf, MountState)> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let files = entries.flatten().map(|entry| entry.path());
        files
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(|path| {
                let state = read_state(&path, self.owner)?;
                // A user's file must not make root signal a process of somebody else.
                let served_by = fs::metadata(format!("/proc/{}", state.pid)).map(|m| m.uid());
                let trusted = self.owner == 0 || served_by.map_or(true, |uid| uid == self.owner);
                trusted.then_some((path, state))
            })
            .collect()
    }
}

/// The state in the file `path`, if that is a plain file of user `owner` and not too large: a pipe would keep root waiting
/// for ever, and a link could lead to a file without end.
fn read_state(path: &Path, owner: u32) -> Option<MountState> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    // Of the file that is open: the path may lead to another one by now.
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.uid() != owner || metadata.len() > STATE_MAX {
        return None;
    }
    let mut text = Vec::new();
    // It may have grown.
    file.take(STATE_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Which user mounted what the kernel calls mount `id`, if that is a FUSE mount.
fn mounted_by(id: u64) -> Option<u32> {
    mounter(&String::from_utf8_lossy(&fs::read("/proc/self/mountinfo").ok()?), id)
}

/// The same, from a mount table: the options of the file system are the last field. [proc_pid_mountinfo(5), mount.fuse3(8)]
fn mounter(table: &str, id: u64) -> Option<u32> {
    let is_it = |line: &&str| line.split(' ').next().is_some_and(|first| first.parse() == Ok(id));
    let options = table.lines().find(is_it)?.rsplit(' ').next()?;
    options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    fn of_this_process() -> MountState {
        let own = MountState::own(String::new(), String::new()).unwrap();
        MountState { dir: "/x".into(), mount_id: 1, ..own }
    }

    #[test]
    fn only_small_plain_files_of_the_owner_are_read() {
        let path = std::env::temp_dir().join(format!("bfs-states-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let (state, owner) = (of_this_process(), geteuid().as_raw());
        let text = serde_json::to_string(&state).unwrap();
        let file = |name: &str| path.join(name).with_extension("json");
        fs::write(file("good"), &text).unwrap();
        fs::write(file("large"), text + &" ".repeat(STATE_MAX as usize)).unwrap();
        mkfifo(&file("pipe"), Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(file("good"), file("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", file("endless")).unwrap();
        let read = |owner| Folder { path: path.clone(), owner }.read();
        assert_eq!(read(owner), [(file("good"), state)]);
        assert_eq!(read(owner + 1), []);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_state_of_somebody_elses_process_is_not_believed() {
        if !geteuid().is_root() {
            return;
        }
        let path = std::env::temp_dir().join(format!("bfs-forged-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let file = path.join("1.json");
        let user = 65_534;
        fs::write(&file, serde_json::to_string(&of_this_process()).unwrap()).unwrap();
        std::os::unix::fs::chown(&file, Some(user), None).unwrap();
        assert_eq!(Folder { path: path.clone(), owner: user }.read(), []);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn the_mount_table_says_who_mounted() {
        let table = "22 27 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n\
            90 27 0:52 / /mnt rw,user_id=7 - fuse.bfs bfs:9f3c-77a1 rw,user_id=1000,group_id=0\n";
        assert_eq!(mounter(table, 90), Some(1000));
        assert_eq!(mounter(table, 22), None);
        assert_eq!(mounter(table, 9), None);
    }

    #[test]
    fn this_process_is_alive_and_one_started_at_another_time_is_not() {
        let state = of_this_process();
        assert!(state.is_alive());
        assert!(!MountState { started: state.started + 1, ..state }.is_alive());
    }

    #[test]
    fn a_process_that_ended_is_seen_to_have_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let state = start_time(pid).map(|started| MountState { pid, started, ..of_this_process() });
        // Not yet reaped: it must count as ended all the same.
        if let Some(state) = state {
            assert!(state.wait_for_end(Duration::from_secs(10)));
        }
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }
}
