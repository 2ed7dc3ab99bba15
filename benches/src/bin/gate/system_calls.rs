//! What operations ask of the system: groups of real replicas, watched by strace [strace(1)].

use crate::{Kind, prepare};
use anyhow::{Context, Result, anyhow, bail};
use bfs_client::local_group::LocalGroup;
use bfs_client::options::Patience;
use bfs_client::session::{Session, connect};
use bfs_fs::op::{Caller, FsOp, FsRequest, encode_request};
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;

/// How many operations are counted, one after the other.
const OPERATIONS: usize = 400;

/// System calls of one operation, of all replicas together. The client's are not counted: this program is the client.
///
/// Errors: strace is not here or may not watch, the group does not start, an operation fails.
pub fn count(kind: &Kind) -> Result<f64> {
    let n = kind.n as usize;
    let group = LocalGroup::create(n, (n - 1) / 3)?;
    let (session, _) = connect(&group.group_file(), &group.key_dir(), Patience::Hard)?;
    let inode = prepare(|op| ask(&session, false, op))?;
    let operations = |count| (0..count).map(|i| (kind.op)(inode, i));
    let ask_all = |count| -> Result<()> {
        operations(count).try_for_each(|op| ask(&session, kind.read_only, op).map(drop))
    };
    ask_all(OPERATIONS)?;
    let watched = Watched::begin(group.pids().into_iter().flatten())?;
    ask_all(OPERATIONS)?;
    Ok(watched.end()? / OPERATIONS as f64)
}

fn ask(session: &Session, read_only: bool, op: FsOp) -> Result<Bytes> {
    let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
    let (sender, receiver) = mpsc::channel();
    session.submit(encode_request(&FsRequest { caller, op }), read_only, move |answer| {
        // Whoever waited has given up.
        let _ = sender.send(answer);
    });
    receiver.recv()?.map_err(|why| anyhow!("an operation failed: {why}"))
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
        let mut strace =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context(
                "cannot run strace, which counts system calls: install it, or use --quick",
            )?;
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
