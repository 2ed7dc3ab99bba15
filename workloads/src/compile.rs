//! The compile phase: the real C compiler and archiver, several at once, and none left behind.

use crate::errors::ErrorLog;
use crate::stop::Stop;
use anyhow::{Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const COMPILER: &str = "cc";
const ARCHIVER: &str = "ar";
/// Without optimisation: the file system is measured, not the compiler. No temporary files elsewhere, and no warnings about
/// other people's code.
const FLAGS: [&str; 4] = ["-O0", "-pipe", "-w", "-DLUA_USE_POSIX"];
/// How soon a request to stop is seen while compilers run.
const STOP_CHECK: Duration = Duration::from_millis(2);

/// One C file, and the object beside it.
#[derive(Clone, Debug)]
pub struct Unit {
    source: PathBuf,
    object: PathBuf,
}

impl Unit {
    /// The unit of the C file `source`; headers are looked for beside it.
    pub fn new(source: PathBuf) -> Self {
        Self { object: source.with_extension("o"), source }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(COMPILER);
        command.args(FLAGS).arg("-c").arg(&self.source).arg("-o").arg(&self.object);
        command
    }
}

/// The archive of one directory's objects.
#[derive(Clone, Debug)]
pub struct Archive {
    path: PathBuf,
    objects: Vec<PathBuf>,
}

impl Archive {
    /// The archive of those of `units` whose source is in `directory`.
    pub fn new(directory: &Path, units: &[Unit]) -> Self {
        let own = units.iter().filter(|unit| unit.source.parent() == Some(directory));
        Self {
            path: directory.join("liblua.a"),
            objects: own.map(|unit| unit.object.clone()).collect(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(ARCHIVER);
        command.arg("rcs").arg(&self.path).args(&self.objects);
        command
    }
}

/// How much was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    pub objects: u64,
    pub archives: u64,
}

/// Checks that this machine has a compiler and an archiver.
///
/// Errors: it has not; the message says what to install.
pub fn check_tools() -> Result<()> {
    for tool in [COMPILER, ARCHIVER] {
        let why = match Command::new(tool).arg("--version").output() {
            Ok(output) if output.status.success() => continue,
            Ok(output) => output.status.to_string(),
            Err(error) => error.to_string(),
        };
        bail!("'{tool}' does not run: {why}\n  try: apt-get install gcc libc6-dev");
    }
    Ok(())
}

/// Compiles nothing, so that the compiler's own files are in memory.
pub fn warm_up() -> Result<()> {
    let mut compiler = Command::new(COMPILER);
    compiler.args(FLAGS).args(["-x", "c", "-c", "/dev/null", "-o", "/dev/null"]);
    match compiler.status()?.success() {
        true => Ok(()),
        false => bail!("'{COMPILER}' does not compile an empty file"),
    }
}

/// Compiles all `units`, then makes the `archives`, with `jobs` processes at once. Calls `advance` after each.
///
/// Effects: failures are noted in `errors`. Once `stop` is requested, everything that runs is killed, and that is no error.
pub fn make(
    units: &[Unit],
    archives: &[Archive],
    jobs: usize,
    errors: &ErrorLog,
    advance: &(dyn Fn() + Sync),
    stop: &Stop,
) -> Made {
    let pool = Pool { jobs: jobs.max(1), running: Running::default(), errors, advance, stop };
    let objects = pool.run(units, |unit| (unit.source.as_path(), unit.command()));
    let archives = pool.run(archives, |archive| (archive.path.as_path(), archive.command()));
    Made { objects, archives }
}

struct Pool<'a> {
    jobs: usize,
    running: Running,
    errors: &'a ErrorLog,
    advance: &'a (dyn Fn() + Sync),
    stop: &'a Stop,
}

impl Pool<'_> {
    /// Runs the command of every task, and returns how many succeeded.
    fn run<T: Sync>(&self, tasks: &[T], command: impl Fn(&T) -> (&Path, Command) + Sync) -> u64 {
        let next = AtomicUsize::new(0);
        let succeeded = AtomicU64::new(0);
        let work = || {
            while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stop.requested() {
                    return;
                }
                let (path, command) = command(task);
                succeeded.fetch_add(u64::from(self.run_one(path, command)), Ordering::Relaxed);
                (self.advance)();
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs).map(|_| scope.spawn(work)).collect();
            while workers.iter().any(|worker| !worker.is_finished()) {
                if self.stop.requested() {
                    // Again and again: a worker may have started one more after it looked.
                    self.running.kill_all();
                }
                thread::sleep(STOP_CHECK);
            }
        });
        succeeded.into_inner()
    }

    /// Whether the command succeeded. `path` is what it is about.
    fn run_one(&self, path: &Path, command: Command) -> bool {
        let result = self.running.run(command);
        match &result {
            Ok((status, _)) if status.success() => return true,
            _ if self.stop.requested() => {}
            Ok((status, text)) => {
                let first = text.lines().next().unwrap_or("it says nothing");
                self.errors.wrong("compile", path, format!("{status}: {first}"));
            }
            Err(error) => self.errors.io("compile", path, error),
        }
        false
    }
}

/// The process groups that run now, each named by its first process.
#[derive(Default)]
struct Running(Mutex<BTreeSet<i32>>);

impl Running {
    /// Runs the command in a process group of its own, since a compiler starts further processes; returns what it wrote to
    /// standard error.
    fn run(&self, mut command: Command) -> io::Result<(ExitStatus, String)> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let group = i32::try_from(child.id()).map_err(io::Error::other)?;
        self.change(|groups| groups.insert(group));
        let mut text = Vec::new();
        let read = child.stderr.take().map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut text));
        // Before the wait: afterwards the number may belong to somebody else, who must not be killed.
        self.change(|groups| groups.remove(&group));
        let status = child.wait()?;
        read?;
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    }

    fn kill_all(&self) {
        self.change(|groups| {
            for group in groups.iter() {
                // It may have ended by itself.
                let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
            }
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeSet<i32>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_the_objects_of_its_directory_only() {
        let units: Vec<_> =
            ["/t/a/x.c", "/t/b/y.c", "/t/a/z.c"].map(|path| Unit::new(path.into())).into();
        let archive = Archive::new(Path::new("/t/a"), &units);
        assert_eq!(archive.objects, [Path::new("/t/a/x.o"), Path::new("/t/a/z.o")]);
        assert_eq!(archive.path, Path::new("/t/a/liblua.a"));
    }

    #[test]
    fn a_failing_command_yields_its_words_and_a_missing_one_an_error() {
        let running = Running::default();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo so it is >&2; exit 3"]);
        let (status, text) = running.run(shell).unwrap();
        assert_eq!((status.code(), text.as_str()), (Some(3), "so it is\n"));
        assert!(running.run(Command::new("/no/such/program")).is_err());
        assert!(running.0.lock().unwrap().is_empty());
    }

    #[test]
    fn killing_reaches_the_children_of_what_was_started() {
        let running = Running::default();
        thread::scope(|scope| {
            let mut shell = Command::new("sh");
            // The shell waits for its child, which holds the pipe too.
            shell.args(["-c", "sleep 60; true"]);
            let child = scope.spawn(|| running.run(shell));
            while !child.is_finished() {
                running.kill_all();
                thread::sleep(STOP_CHECK);
            }
            assert!(!child.join().unwrap().unwrap().0.success());
        });
    }
}
