//! Who keeps a mount busy.

use crate::mount_table::is_within;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A process that uses a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// What the kernel calls it: at most 15 bytes of the program's name.
    pub command: String,
    /// One way in which it does: `working directory /mnt/a`.
    pub usage: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}): {}", self.command, self.pid, self.usage)
    }
}

/// The processes that this user may look into and that use something below `dir`. The mount itself is never asked.
pub fn of(dir: &Path) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| holder(pid, dir)).collect()
}

fn holder(pid: u32, dir: &Path) -> Option<Holder> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let usage = usage(&process, dir)?;
    let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
    Some(Holder { pid, command: command.trim().to_owned(), usage })
}

fn usage(process: &Path, dir: &Path) -> Option<String> {
    let links = [("cwd", "working directory"), ("root", "root directory"), ("exe", "program")];
    let linked = links.into_iter().find_map(|(link, what)| {
        let target = fs::read_link(process.join(link)).ok()?;
        is_within(&target, dir).then(|| format!("{what} {}", target.display()))
    });
    linked.or_else(|| open_file(process, dir)).or_else(|| mapped_file(process, dir))
}

fn open_file(process: &Path, dir: &Path) -> Option<String> {
    let files = fs::read_dir(process.join("fd")).ok()?.flatten();
    let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    let target = targets.find(|target| is_within(target, dir))?;
    Some(format!("open file {}", target.display()))
}

fn mapped_file(process: &Path, dir: &Path) -> Option<String> {
    let maps = fs::read_to_string(process.join("maps")).ok()?;
    // The path is the sixth column and the only one with a slash that starts it.
    let mut paths = maps.lines().filter_map(|line| line.find('/').map(|start| &line[start..]));
    let path = paths.find(|path| is_within(Path::new(path), dir))?;
    Some(format!("mapped file {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_working_directory_holds_and_a_sibling_does_not() {
        let dir = std::env::temp_dir().join(format!("bfs-holders-{}", std::process::id()));
        fs::create_dir_all(dir.join("in")).unwrap();
        let mut child =
            Command::new("sleep").arg("60").current_dir(dir.join("in")).spawn().unwrap();
        let found = of(&dir.canonicalize().unwrap());
        let elsewhere = of(&dir.canonicalize().unwrap().join("i"));
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let ours: Vec<_> = found.iter().filter(|holder| holder.pid == child.id()).collect();
        assert_eq!(ours.len(), 1, "{found:?}");
        assert_eq!(ours[0].command, "sleep");
        assert!(ours[0].usage.starts_with("working directory "), "{}", ours[0]);
        assert!(elsewhere.iter().all(|holder| holder.pid != child.id()));
    }

    #[test]
    fn open_and_mapped_files_hold() {
        let program = fs::read_link("/proc/self/exe").unwrap();
        let me = Path::new("/proc/self");
        assert!(mapped_file(me, &program).unwrap().starts_with("mapped file /"));
        let path = std::env::temp_dir().join(format!("bfs-open-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        let found = open_file(me, &path.canonicalize().unwrap());
        drop(file);
        fs::remove_file(&path).unwrap();
        assert!(found.unwrap().starts_with("open file "));
    }
}
