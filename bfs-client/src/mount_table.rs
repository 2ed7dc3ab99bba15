//! What is mounted where, read from the kernel's own table: nothing here asks a file system that may not answer.

use crate::failure::{Failure, Outcome};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file-system type of our mounts.
pub const BFS_TYPE: &str = "fuse.bfs";

/// One mount. [proc_pid_mountinfo(5)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Unique for the life of the mount.
    pub id: u64,
    /// `major:minor`.
    pub device: String,
    /// The mount point: absolute, without links.
    pub dir: PathBuf,
    /// The type of the file system.
    pub kind: String,
    /// For BFS: `bfs:` and the group id.
    pub source: String,
}

impl MountEntry {
    /// Whether the mount is one of ours, alive or not.
    pub fn is_bfs(&self) -> bool {
        self.kind == BFS_TYPE
    }
}

/// How a mount goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detach {
    /// Only if nobody uses it.
    Clean,
    /// Its name disappears now, the rest with its last user.
    Lazy,
}

/// Every mount that this process sees, oldest first.
pub fn all() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// What is mounted on `dir`, uppermost; `dir` is absolute, without links.
pub fn at(dir: &Path) -> io::Result<Option<MountEntry>> {
    Ok(all()?.into_iter().rev().find(|entry| entry.dir == dir))
}

/// Whether the mount called `id` still has its place.
pub fn exists(id: u64) -> io::Result<bool> {
    Ok(all()?.iter().any(|entry| entry.id == id))
}

/// `dir` as the mount table names it: absolute, and without links in all but its last part, which is not looked at if it is
/// a mount point. A stale mount would answer an error and a hung one would not answer.
pub fn absolute(dir: &Path) -> io::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    if let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) {
        let plain = parent.canonicalize()?.join(name);
        if at(&plain)?.is_some() {
            return Ok(plain);
        }
    }
    dir.canonicalize()
}

/// Takes the mount on `dir` away, through fusermount where this process may not do it itself.
///
/// Errors: EBUSY where it is in use and `how` is `Clean`.
pub fn detach(dir: &Path, how: Detach) -> io::Result<()> {
    let flags = match how {
        Detach::Clean => MntFlags::UMOUNT_NOFOLLOW,
        Detach::Lazy => MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH,
    };
    match umount2(dir, flags) {
        Err(Errno::EPERM) => fusermount(dir, how),
        result => Ok(result?),
    }
}

fn fusermount(dir: &Path, how: Detach) -> io::Result<()> {
    let Some(program) = find_fusermount() else { return Err(Errno::EPERM.into()) };
    let mut command = Command::new(program);
    // Why it fails is told by its message alone, in words that are looked at below.
    command.env("LC_ALL", "C").arg("-u");
    if how == Detach::Lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(dir).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(reason(&String::from_utf8_lossy(&output.stderr))),
    }
}

/// What fusermount means by `message`.
fn reason(message: &str) -> io::Error {
    // Not "busy" alone: it names the directory too. umount(8), which it may leave the work to, calls it the target.
    match ["resource busy", "target is busy"].iter().any(|words| message.contains(words)) {
        true => Errno::EBUSY.into(),
        false => io::Error::other(message.trim().to_owned()),
    }
}

/// The set-uid helper that lets users who are not root mount.
pub fn find_fusermount() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/bin".into(), "/sbin".into()]);
    let candidates =
        folders.flat_map(|folder| ["fusermount3", "fusermount"].map(|name| folder.join(name)));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// The mount table cannot be read: without /proc nothing here works.
pub fn unreadable(error: io::Error) -> Failure {
    Failure::new("cannot read /proc/self/mountinfo", error).advise("mount /proc")
}

/// The mount on `dir` if it is one of ours.
///
/// Errors: there is none, or it is of another type.
pub fn bfs_at(dir: &Path) -> Outcome<MountEntry> {
    let what = || format!("cannot use {} as a BFS mount", dir.display());
    match at(dir).map_err(unreadable)? {
        Some(entry) if entry.is_bfs() => Ok(entry),
        Some(entry) => Err(Failure::new(
            what(),
            format!("a file system of type {} is mounted there", entry.kind),
        )
        .advise("list the BFS mounts with: findmnt -t fuse.bfs")),
        None => Err(Failure::new(what(), "nothing is mounted there")
            .advise("list the BFS mounts with: findmnt -t fuse.bfs")),
    }
}

fn parse(table: &[u8]) -> Vec<MountEntry> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    // Optional fields stand between the sixth and a lone hyphen.
    let hyphen = fields.iter().position(|field| *field == b"-")?;
    Some(MountEntry {
        id: text(fields.first()?).parse().ok()?,
        device: text(fields.get(2)?),
        dir: OsString::from_vec(unescape(fields.get(4)?)).into(),
        kind: text(fields.get(hyphen + 1)?),
        source: text(fields.get(hyphen + 2)?),
    })
}

/// Undoes the table's escapes: a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        match octal(rest) {
            Some(escaped) => {
                plain.push(escaped);
                rest = &rest[4..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

fn octal(field: &[u8]) -> Option<u8> {
    let [b'\\', digits @ ..] = field.get(..4)? else { return None };
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// Whether `path` lies in `dir` or is it. Compared as text: neither is looked up.
pub fn is_within(path: &Path, dir: &Path) -> bool {
    let (path, dir) = (path.as_os_str().as_bytes(), dir.as_os_str().as_bytes());
    match path.strip_prefix(dir) {
        Some(rest) => rest.is_empty() || rest[0] == b'/' || dir.ends_with(b"/"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 27 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n\
        90 27 0:52 / /mnt/with\\040space rw,nosuid,nodev - fuse.bfs bfs:9f3c-77a1 rw,user_id=0\n\
        91 27 0:53 / /mnt/with\\040space rw master:1 shared:2 - tmpfs none rw\n\
        broken line\n";

    #[test]
    fn lines_are_read_with_and_without_optional_fields() {
        let entries = parse(TABLE);
        assert_eq!(entries.len(), 3);
        let bfs = &entries[1];
        assert_eq!((bfs.id, bfs.device.as_str()), (90, "0:52"));
        assert_eq!(bfs.dir, Path::new("/mnt/with space"));
        assert_eq!((bfs.kind.as_str(), bfs.source.as_str()), ("fuse.bfs", "bfs:9f3c-77a1"));
        assert!(bfs.is_bfs() && !entries[2].is_bfs());
        assert_eq!(entries[2].kind, "tmpfs");
    }

    #[test]
    fn a_backslash_that_escapes_nothing_stays() {
        assert_eq!(unescape(b"a\\134b\\"), b"a\\b\\");
        assert_eq!(unescape(b"\\9zz\\011"), b"\\9zz\t");
        assert_eq!(unescape(b"\\777"), b"\\777");
    }

    #[test]
    fn the_real_table_has_proc() {
        assert_eq!(at(Path::new("/proc")).unwrap().unwrap().kind, "proc");
    }

    #[test]
    fn a_busy_mount_is_told_from_what_else_fusermount_says() {
        let busy = reason("fusermount3: failed to unmount /mnt: Device or resource busy\n");
        assert_eq!(busy.raw_os_error(), Some(libc::EBUSY));
        let other = reason("fusermount3: entry for /busy not found in /etc/mtab\n");
        assert_eq!(other.to_string(), "fusermount3: entry for /busy not found in /etc/mtab");
    }

    #[test]
    fn within_means_whole_parts_of_a_path() {
        let within = |path: &str| is_within(Path::new(path), Path::new("/mnt/a"));
        assert!(within("/mnt/a") && within("/mnt/a/b"));
        assert!(!within("/mnt/ab") && !within("/mnt") && !within("/"));
    }

    #[test]
    fn what_is_not_ours_is_named() {
        let failure = bfs_at(Path::new("/proc")).unwrap_err();
        assert!(failure.message.contains("type proc"), "{failure}");
        let failure = bfs_at(Path::new("/proc/self")).unwrap_err();
        assert!(failure.message.contains("nothing is mounted"), "{failure}");
    }
}
