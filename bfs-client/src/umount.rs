//! `bfs umount`: takes a mount away, and says who keeps it where it cannot.

use crate::failure::{Failure, Outcome};
use crate::holders;
use crate::mount_state::{self, MountState};
use crate::mount_table::{self, Detach, MountEntry};
use clap::Args;
use nix::sys::signal::Signal;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Arguments of `bfs umount`.
#[derive(Args, Clone, Debug)]
pub struct UmountArgs {
    /// The directory that is mounted on
    pub dir: PathBuf,
    /// Answer every operation that waits with an I/O error, detach, and end the serving process; unsaved data of programs that
    /// still use the mount is lost
    #[arg(long, short, env = "BFS_FORCE")]
    pub force: bool,
    /// Detach now, and let the programs that use the mount finish
    #[arg(long, short, env = "BFS_LAZY", conflicts_with = "force")]
    pub lazy: bool,
}

/// How long the serving process may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(15);
/// How long it may take once it is told to.
const FORCED_END_LIMIT: Duration = Duration::from_secs(5);

/// Unmounts, and returns when the serving process has ended; with `--lazy`, when the name is gone.
pub fn run(args: &UmountArgs) -> Outcome {
    let what = || format!("cannot unmount {}", args.dir.display());
    let dir = mount_table::absolute(&args.dir).map_err(|error| Failure::new(what(), error))?;
    let entry = mount_table::bfs_at(&dir)?;
    let state = mount_state::find(&dir, entry.id);
    let result = match (args.force, args.lazy) {
        (true, _) => force(&entry, state.as_ref()),
        (_, true) => lazy(&entry),
        _ => clean(&entry, state.as_ref()),
    };
    if result.is_ok() {
        mount_state::forget_dead(&dir);
    }
    result
}

fn clean(entry: &MountEntry, state: Option<&MountState>) -> Outcome {
    match mount_table::detach(&entry.dir, Detach::Clean) {
        Ok(()) => wait(state),
        // Nobody serves it, so nobody can be helped by waiting.
        Err(_) if state.is_some_and(|state| !state.is_alive()) => lazy(entry),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(busy(&entry.dir)),
        Err(error) => Err(failed(&entry.dir, &error)),
    }
}

fn lazy(entry: &MountEntry) -> Outcome {
    mount_table::detach(&entry.dir, Detach::Lazy).map_err(|error| failed(&entry.dir, &error))
}

/// The operations that wait are answered first: a process that waits for the group in the kernel cannot even be killed.
fn force(entry: &MountEntry, state: Option<&MountState>) -> Outcome {
    let Some(state) = state else {
        lazy(entry)?;
        eprintln!(
            "bfs: detached {}; its serving process is not known and was left alone",
            entry.dir.display()
        );
        return Ok(());
    };
    let signal = |signal| state.signal(signal).map_err(|error| failed(&entry.dir, &error));
    signal(Signal::SIGUSR1)?;
    lazy(entry)?;
    signal(Signal::SIGTERM)?;
    if state.wait_for_end(FORCED_END_LIMIT) {
        return Ok(());
    }
    abort(entry);
    signal(Signal::SIGKILL)?;
    wait(Some(state))
}

/// Lets the kernel answer what a serving process that hangs never will. Only makes its end certain, so no error counts.
fn abort(entry: &MountEntry) {
    if let Some((_, minor)) = entry.device.split_once(':') {
        let _ = fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
    }
}

fn wait(state: Option<&MountState>) -> Outcome {
    match state {
        Some(state) if !state.wait_for_end(END_LIMIT) => {
            let why =
                format!("process {} has not ended after {} s", state.pid, END_LIMIT.as_secs());
            Err(Failure::new(
                format!("unmounted {}, but its serving process stays", state.dir.display()),
                why,
            )
            .advise(format!("kill {}", state.pid)))
        }
        _ => Ok(()),
    }
}

fn busy(dir: &Path) -> Failure {
    let holders = holders::of(dir);
    let mut why = match holders.len() {
        0 => "it is in use by a process that this user may not look into".to_owned(),
        1 => "it is in use".to_owned(),
        count => format!("it is in use by {count} processes"),
    };
    for holder in holders.iter().take(HOLDERS_NAMED_MAX) {
        why.push_str(&format!("\n    {holder}"));
    }
    if holders.len() > HOLDERS_NAMED_MAX {
        why.push_str("\n    …");
    }
    let dir = dir.display();
    Failure::new(format!("cannot unmount {dir}"), why).advise(format!(
        "end what uses it; or 'bfs umount --lazy {dir}' lets it finish; or 'bfs umount --force {dir}' gives it I/O errors"
    ))
}

/// As many as a person reads.
const HOLDERS_NAMED_MAX: usize = 10;

fn failed(dir: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(format!("cannot unmount {}", dir.display()), error);
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            failure.advise("unmount as root or as the user who mounted it")
        }
        _ => failure.advise(format!("bfs umount --force {}", dir.display())),
    }
}
