//! A real kernel mount of a file system in the serving process's memory, and the programs that work on it.

#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Folders of one test: where it mounts, and where the mount's state and log are kept. Removed at the end, mounts first.
pub struct Place {
    base: PathBuf,
    pub dir: PathBuf,
}

impl Place {
    /// Nothing where this machine cannot mount; says so.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if let Some(why) = why_not() {
            println!("skipped: {why}");
            return None;
        }
        let name =
            format!("bfs-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let base = std::env::temp_dir().canonicalize().unwrap().join(name);
        let dir = base.join("a mount");
        fs::create_dir_all(&dir).unwrap();
        Some(Self { base, dir })
    }

    /// The command `bfs` with these arguments.
    pub fn bfs(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bfs"));
        command.args(args).env("BFS_RUNTIME_DIR", self.base.join("run"));
        command
    }

    /// Mounts in the background.
    pub fn mount(&self, options: &str) -> Output {
        let args = ["mount", "--local", "-o", options];
        self.bfs(&args).arg(&self.dir).output().unwrap()
    }

    pub fn umount(&self, args: &[&str]) -> Output {
        self.bfs(&["umount"]).args(args).arg(&self.dir).output().unwrap()
    }

    /// The processes that serve mounts here, by their state files.
    pub fn served_by(&self) -> Vec<i32> {
        let Ok(files) = fs::read_dir(self.base.join("run")) else { return Vec::new() };
        files
            .filter_map(|file| {
                file.unwrap().file_name().to_str()?.strip_suffix(".json")?.parse().ok()
            })
            .collect()
    }

    pub fn is_mounted(&self) -> bool {
        let escaped = self.dir.to_str().unwrap().replace(' ', "\\040");
        fs::read_to_string("/proc/mounts")
            .unwrap()
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(escaped.as_str()))
    }

    /// The line of the mount in /proc/mounts.
    pub fn mount_line(&self) -> String {
        let escaped = self.dir.to_str().unwrap().replace(' ', "\\040");
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        mounts.lines().find(|line| line.contains(&escaped)).unwrap_or_default().to_owned()
    }

    /// A folder beside the mount.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.served_by() {
            let _ =
                Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        while self.is_mounted()
            && Command::new("umount").arg("-l").arg(&self.dir).status().is_ok_and(|s| s.success())
        {
        }
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// A mount that a test works on.
pub struct Mounted(pub Place);

impl Mounted {
    /// A mount with these options, or nothing where this machine cannot mount.
    pub fn new(options: &str) -> Option<Self> {
        let place = Place::new()?;
        let output = place.mount(options);
        assert!(output.status.success(), "{}", text(&output));
        Some(Self(place))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.dir.join(name)
    }

    pub fn dir(&self) -> &Path {
        &self.0.dir
    }
}

fn why_not() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("only root mounts here".into());
    }
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .err()
        .map(|error| format!("/dev/fuse: {error}"))
}

/// Both streams, for messages.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a shell script that must succeed, and returns what it prints.
pub fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether this machine has `program`; says so if not.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .unwrap()
        .status
        .success();
    if !found {
        println!("skipped: no {program} on this machine");
    }
    found
}

/// Waits until `condition` holds, at most ten seconds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} does not come to hold");
        sleep(Duration::from_millis(5));
    }
}

pub fn process_exists(pid: i32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.contains(") Z "),
        Err(_) => false,
    }
}
