//! Processes that are started here, waited for with a limit, and ended.

use crate::failure::{Exit, Failure, Outcome};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use workloads::stop::Stop;

/// How long a process may take to end when it is told to.
pub const END_LIMIT: Duration = Duration::from_secs(5);
/// How often to look whether something has happened.
pub const POLL: Duration = Duration::from_millis(2);
/// How much of a log goes into an error.
const LOG_LINES: usize = 8;

/// A new folder in `parent` that only this user may enter, by its real name.
pub fn new_folder(parent: &Path) -> Outcome<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let cannot = |error| {
        Failure::new(format!("cannot make a folder in {}", parent.display()), error)
            .advise("name a folder that you may write to in TMPDIR")
    };
    let parent = parent.canonicalize().map_err(cannot)?;
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("bfs-group-{}-{count}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            // Left by an earlier process with the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(cannot(error)),
        }
    }
}

/// Runs the command to its end, and returns what it wrote; it ends by force after `limit` or when somebody asks to stop.
///
/// Errors: it cannot be started, or was ended.
pub fn run(mut command: Command, limit: Duration, stop: &Stop) -> Outcome<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let what = || format!("cannot run {name}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Failure::new(what(), error))?;
    match wait(&mut child, limit, stop).map_err(|error| Failure::new(what(), error))? {
        Some(_) => child.wait_with_output().map_err(|error| Failure::new(what(), error)),
        None => {
            // First in a way that lets it take back what it has begun.
            let _ = killpg(pid(&child), Signal::SIGTERM);
            if !matches!(wait(&mut child, END_LIMIT, &Stop::default()), Ok(Some(_))) {
                end_now(&mut child);
            }
            match stop.requested() {
                true => Err(stopped(&format!("run {name}"))),
                false => Err(Failure::new(what(), format!("no end after {} s", limit.as_secs()))
                    .exit(Exit::Timeout)),
            }
        }
    }
}

/// Waits for the end of `child`; nothing if `limit` has passed or somebody asked to stop.
pub fn wait(child: &mut Child, limit: Duration, stop: &Stop) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if stop.requested() || Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Kills the child's whole process group.
pub fn end_now(child: &mut Child) {
    // It may have ended by itself.
    let _ = killpg(pid(child), Signal::SIGKILL);
    let _ = child.wait();
}

pub fn pid(process: &Child) -> Pid {
    Pid::from_raw(i32::try_from(process.id()).expect("a process number is a pid_t"))
}

/// The failure that a program reported in the way that all of them do.
pub fn reported(output: &Output) -> Failure {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim();
    let names = ["bfs: ", "bfs-replica: ", "bfs-replica-lab: "];
    let text = names.iter().find_map(|name| text.strip_prefix(name)).unwrap_or(text);
    let (message, advice) = match text.split_once("\n  try: ") {
        Some((message, advice)) => (message.to_owned(), Some(advice.to_owned())),
        None if text.is_empty() => {
            (format!("a command failed without a word ({})", output.status), None)
        }
        None => (text.to_owned(), None),
    };
    Failure { exit: output.status.code().map_or(Exit::Failed, Exit::from_code), message, advice }
}

/// What a program wrote, for an error about its not being as expected.
pub fn said(output: &Output, error: impl std::fmt::Display) -> String {
    match output.status.success() {
        true => error.to_string(),
        false => reported(output).message,
    }
}

pub fn stopped(what: &str) -> Failure {
    Failure::new(format!("did not {what}"), "stopped")
}

/// Whether a process listens on 127.0.0.1 or every address at this port. Asked of the kernel: a connection that says nothing
/// would count against the replica's limits. [proc_pid_net(5)]
pub fn listens(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1).and_then(|address| address.rsplit_once(':'));
        let state = fields.nth(1);
        state == Some(LISTEN)
            && local.is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port))
    })
}

/// The last lines of a log, indented; empty if there is none.
pub fn last_lines(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// `why`, and below it the end of the log if it says anything more.
pub fn with_log(why: impl std::fmt::Display, log: &Path) -> String {
    let (why, tail) = (why.to_string(), last_lines(log));
    let said_already = why.lines().next().is_some_and(|line| tail.contains(line));
    match tail.is_empty() || said_already {
        true => why,
        false => format!("{why}\n  the end of its log:\n{tail}"),
    }
}
