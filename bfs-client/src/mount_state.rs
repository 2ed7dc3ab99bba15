//! What is remembered of each mount while it is served: a small file that only its owner may read.

use crate::backend::Outvoted;
use crate::failure::{Exit, Failure, Outcome};
use crate::mount_table;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a process whose mount is gone may take to end.
const END_LIMIT: Duration = Duration::from_secs(2);

/// A mount and the process that serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountState {
    /// The process that serves it.
    pub pid: i32,
    /// When that process started, in the kernel's clock ticks: tells it from a later one with the same number.
    pub started: u64,
    /// Where it is: absolute, without links.
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
}

impl MountState {
    /// Writes the file, mode 0600, and returns its path.
    pub fn save(&self) -> Outcome<PathBuf> {
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

/// The newest remembered state of the mount called `mount_id` on `dir`.
pub fn find(dir: &Path, mount_id: u64) -> Option<MountState> {
    let states = folders().into_iter().flat_map(|folder| read_folder(&folder));
    states
        .filter(|(_, s)| s.dir == dir && s.mount_id == mount_id)
        .map(|(_, s)| s)
        .max_by_key(|s| s.started)
}

/// What the mounts of group `group` on this machine have seen lately, by replica: those that this user may act on.
pub fn outvoted(group: &str) -> Vec<u64> {
    let states = folders().into_iter().flat_map(|folder| read_folder(&folder));
    let mut sum = Vec::new();
    for (_, state) in states.filter(|(_, state)| state.group == group && state.is_alive()) {
        sum.resize(sum.len().max(state.outvoted.len()), 0u64);
        for (sum, seen) in sum.iter_mut().zip(&state.outvoted) {
            *sum = sum.saturating_add(seen.lately);
        }
    }
    sum
}

/// Makes sure that no mount of `group` that this user knows of on this machine is by the client whose public key is `client`, and whose
/// keys are in `key`: a new session would end that of the mount, and fail whatever waits there.
///
/// Errors: one is, or is still coming to its end after 2 s.
pub fn expect_unused(group: &str, client: &str, key: &Path) -> Outcome {
    let states = folders().into_iter().flat_map(|folder| read_folder(&folder));
    let same = |state: &MountState| state.group == group && state.client == client;
    let used = |state: &MountState| state.is_mounted() || !state.wait_for_end(END_LIMIT);
    match states
        .map(|(_, state)| state)
        .find(|state| same(state) && state.is_alive() && used(state))
    {
        None => Ok(()),
        Some(MountState { pid, dir, .. }) => {
            let dir = dir.display();
            let what = format!("cannot use the keys in {}", key.display());
            let why = format!(
                "the mount on {dir} uses them (process {pid}), and a second session would end its own"
            );
            Err(Failure::new(what, why).exit(Exit::Keys).advise(format!(
                "name another client's keys with --key, for example the administrator's, or first: bfs umount {dir}"
            )))
        }
    }
}

/// Removes the files of mounts on `dir` whose process has ended.
pub fn forget_dead(dir: &Path) {
    for (path, state) in folders().into_iter().flat_map(|folder| read_folder(&folder)) {
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

/// Every folder whose states this user may act on: root unmounts for everyone.
fn folders() -> Vec<PathBuf> {
    let mut folders = vec![own_path()];
    if geteuid().is_root()
        && let Ok(users) = fs::read_dir("/run/user")
    {
        folders.extend(users.flatten().map(|user| user.path().join("bfs")));
    }
    folders
}

/// The states in `folder` that belong to this user, or to the user of a folder that root reads.
fn read_folder(folder: &Path) -> Vec<(PathBuf, MountState)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let files = entries.flatten().map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| {
            let state: MountState = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            // A user's file must not make root signal a process of somebody else.
            let owner = fs::symlink_metadata(&path).ok()?.uid();
            let served_by = fs::metadata(format!("/proc/{}", state.pid)).map(|m| m.uid());
            let trusted = owner == 0 || served_by.map_or(true, |uid| uid == owner);
            trusted.then_some((path, state))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_started_at_another_time_is_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let started = start_time(pid).unwrap();
        let state = MountState {
            pid,
            started,
            dir: "/x".into(),
            mount_id: 1,
            group: String::new(),
            outvoted: Vec::new(),
            client: String::new(),
        };
        assert!(state.is_alive());
        assert!(!MountState { started: started + 1, ..state }.is_alive());
    }

    #[test]
    fn a_process_that_ended_is_seen_to_have_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let state = start_time(pid).map(|started| MountState {
            pid,
            started,
            dir: "/x".into(),
            mount_id: 1,
            group: String::new(),
            outvoted: Vec::new(),
            client: String::new(),
        });
        // Not yet reaped: it must count as ended all the same.
        if let Some(state) = state {
            assert!(state.wait_for_end(Duration::from_secs(10)));
        }
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }
}
