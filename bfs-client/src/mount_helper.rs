//! `mount.bfs`: what mount(8) and systemd call for a line of fstab of type bfs. It is `bfs` under another name:
//! `ln -s /usr/local/bin/bfs /sbin/mount.bfs`.
//!
//! ```text
//! bfs:/etc/bfs/group.toml  /srv/files  bfs  key=/etc/bfs/client,_netdev,nofail  0  0
//! ```
//!
//! The prefix keeps mount(8) from taking the file for an image of a disk, since there was a file system of that name once: it
//! would hand on a loop device in its stead.

use crate::failure::{Exit, Failure, Outcome};
use crate::mount::{self, MountArgs};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Whether the program was called by this name.
pub fn is_called(program: Option<&OsStr>) -> bool {
    program.and_then(|program| Path::new(program).file_name()) == Some(OsStr::new("mount.bfs"))
}

/// Mounts as mount(8) asks; the exit code is mount(8)'s. `args`: without the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let result = parse(args).and_then(|call| match call {
        Some(args) => mount::run(&args),
        None => Ok(()),
    });
    match result {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("mount.bfs: {failure}");
            // [mount(8): EXIT STATUS] 1: wrong call, 32: the mount failed.
            if failure.exit == Exit::Usage { 1 } else { 32 }
        }
    }
}

/// `SOURCE DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]`, in any order; nothing if `-f` says not to mount. [mount(8)]
fn parse(args: impl IntoIterator<Item = OsString>) -> Outcome<Option<MountArgs>> {
    let usage = |why: String| {
        Failure::new("cannot mount", why)
            .advise("mount.bfs GROUP DIR [-o OPTIONS], as mount(8) calls it")
            .exit(Exit::Usage)
    };
    let (mut places, mut options, mut key, mut fake) = (Vec::new(), Vec::new(), None, false);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        let mut value = || args.next().ok_or_else(|| usage(format!("{text} needs a value")));
        match text.as_str() {
            "-o" => {
                let list = value()?.to_string_lossy().into_owned();
                for option in list.split(',') {
                    match option.split_once('=') {
                        Some(("key", folder)) => key = Some(PathBuf::from(folder)),
                        _ => options.push(option.to_owned()),
                    }
                }
            }
            "-t" | "-N" => drop(value()?),
            _ if is_flags(&text) => fake |= text.contains('f'),
            _ if text.starts_with('-') => return Err(usage(format!("{text} is not known"))),
            _ => places.push(PathBuf::from(arg)),
        }
    }
    let Ok([source, dir]) = <[PathBuf; 2]>::try_from(places) else {
        return Err(usage("a group file and a directory are needed".into()));
    };
    if source.starts_with("/dev") {
        let why =
            format!("{} is a device, which mount(8) has made of the group file", source.display());
        let failure = Failure::new("cannot mount", why).exit(Exit::Usage);
        return Err(failure.advise("name the group file with a prefix: bfs:/etc/bfs/group.toml"));
    }
    let group = without_prefix(source);
    let args = MountArgs {
        group: Some(group),
        dir: Some(dir),
        key,
        options,
        foreground: false,
        log_file: None,
        local: false,
        serve: false,
    };
    Ok((!fake).then_some(args))
}

/// The path in `bfs:PATH`, or `source` itself.
fn without_prefix(source: PathBuf) -> PathBuf {
    match source.as_os_str().as_bytes().strip_prefix(b"bfs:") {
        Some(path) => OsStr::from_bytes(path).into(),
        None => source,
    }
}

/// Sloppy, fake, no mtab, verbose, read-only, read-write.
fn is_flags(text: &str) -> bool {
    let flags = text.strip_prefix('-').unwrap_or_default();
    !flags.is_empty() && flags.chars().all(|flag| "sfnv".contains(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Outcome<Option<MountArgs>> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_name_decides() {
        assert!(is_called(Some(OsStr::new("/sbin/mount.bfs"))));
        assert!(!is_called(Some(OsStr::new("/usr/bin/bfs"))) && !is_called(None));
    }

    #[test]
    fn what_mount_8_passes_is_understood() {
        let line = "/etc/g.toml /srv -n -v -t bfs -o rw,key=/etc/bfs/client,_netdev,strict";
        let args = parsed(line).unwrap().unwrap();
        assert_eq!(args.group.unwrap(), Path::new("/etc/g.toml"));
        assert_eq!(args.dir.unwrap(), Path::new("/srv"));
        assert_eq!(args.key.unwrap(), Path::new("/etc/bfs/client"));
        assert_eq!(args.options, ["rw", "_netdev", "strict"]);
        assert!(parsed("g d -sfnv").unwrap().is_none());
    }

    #[test]
    fn the_group_file_has_a_prefix_or_is_taken_for_a_disk() {
        let args = parsed("bfs:/etc/g.toml /srv").unwrap().unwrap();
        assert_eq!(args.group.unwrap(), Path::new("/etc/g.toml"));
        let failure = parsed("/dev/loop0 /srv").unwrap_err();
        assert!(failure.to_string().contains("bfs:/etc/bfs/group.toml"), "{failure}");
    }

    #[test]
    fn what_is_no_such_call_is_a_usage_error() {
        for wrong in ["", "g", "g d e", "g d -o", "g d -z", "g d --key k"] {
            assert_eq!(parsed(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }
}
