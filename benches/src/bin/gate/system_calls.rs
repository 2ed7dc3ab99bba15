//! What operations ask of the system: groups of real replicas, watched by strace [strace(1)].

use crate::{Kind, prepare};
use anyhow::{Context, Result, anyhow, bail, ensure};
use bfs_client::local_group::{LocalGroup, Plan};
use bfs_client::options::Patience;
use bfs_client::session::{Session, connect};
use bfs_fs::op::{Caller, FsOp, FsRequest, decode_result, encode_request};
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use workloads::stop::Stop;

/// How many operations are counted, one after the other.
const OPERATIONS: usize = 400;
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Why system calls cannot be counted here.
pub fn why_not() -> Option<String> {
    let Ok(output) = Command::new("strace").arg("--version").output() else {
        return Some("there is no strace".into());
    };
    // Who is not root may then watch only what it has started itself. [ptrace(2)]
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let denied = !nix::unistd::geteuid().is_root() && !matches!(scope.trim(), "" | "0");
    let why = "only root may watch processes here (kernel.yama.ptrace_scope)";
    (denied || !output.status.success()).then(|| why.into())
}

/// System calls of one operation, of all replicas together. The client's are not counted: this program is the client.
///
/// Errors: strace fails, the group does not start, a replica ends, an operation fails, somebody asks to `stop`.
pub fn count(kind: &Kind, stop: &Stop) -> Result<f64> {
    let n = kind.n as usize;
    let mut group = LocalGroup::start(&Plan::new(n, (n - 1) / 3, stop)?)?;
    let (session, _) = connect(&group.group_file(), &group.key_dir(), Patience::Hard)?;
    let inode = prepare(|op| ask(&session, false, op))?;
    let ask_all = || -> Result<()> {
        for i in 0..OPERATIONS {
            ensure!(!stop.requested(), "stopped");
            ask(&session, kind.read_only, (kind.op)(inode, i))?;
        }
        Ok(())
    };
    ask_all()?;
    let watched = Watched::begin(group.pids().into_iter().flatten())?;
    ask_all()?;
    let calls = watched.end()?;
    // One that has ended would make operations cheaper.
    ensure!((0..n).all(|id| group.is_running(id)), "a replica has ended");
    Ok(calls / OPERATIONS as f64)
}

fn ask(session: &Session, read_only: bool, op: FsOp) -> Result<Bytes> {
    let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
    let (sender, receiver) = mpsc::channel();
    session.submit(encode_request(&FsRequest { caller, op }), read_only, move |answer| {
        // Whoever waited has given up.
        let _ = sender.send(answer);
    });
    let answer = receiver.recv_timeout(LIMIT).context("no answer after a minute")?;
    let answer = answer.map_err(|why| anyhow!("an operation failed: {why}"))?;
    let result = decode_result(&answer);
    ensure!(matches!(result, Some(Ok(_))), "an operation failed: {result:?}");
    Ok(answer)
}

/// Processes whose system calls are being counted.
struct Watched {
    strace: Child,
    said: BufReader<ChildStderr>,
}

impl Watched {
    /// Returns once each of them is watched.
    fn begin(processes: impl Iterator<Item = u32>) -> Result<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-U", "name,calls"]);
        let mut count = 0;
        for process in processes {
            command.arg("-p").arg(process.to_string());
            count += 1;
        }
        let mut strace = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run strace, which counts system calls")?;
        let stderr = strace.stderr.take().context("strace has no standard error")?;
        let mut watched = Self { strace, said: BufReader::new(stderr) };
        for _ in 0..count {
            let mut line = String::new();
            watched.said.read_line(&mut line)?;
            if !line.contains(" attached") {
                bail!("strace may not watch: {}", line.trim());
            }
        }
        Ok(watched)
    }

    /// How many calls there were.
    fn end(mut self) -> Result<f64> {
        kill(Pid::from_raw(self.strace.id().try_into()?), Signal::SIGINT)?;
        let mut said = String::new();
        self.said.read_to_string(&mut said)?;
        self.strace.wait()?;
        let total = said.lines().find_map(|line| line.trim().strip_prefix("total"));
        let total = total.with_context(|| format!("strace has counted nothing:\n{said}"))?;
        Ok(total.trim().parse()?)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
