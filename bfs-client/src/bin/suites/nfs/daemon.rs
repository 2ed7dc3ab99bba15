//! A program that serves on a port until it is ended.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use workloads::stop::Stop;

/// How long it may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long it may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// A started program; dropping it ends it and all that it started.
pub struct Daemon {
    name: String,
    process: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` in a process group of its own, its output appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let cannot = || format!("cannot start {name}");
        let file = File::options().create(true).append(true).open(log).with_context(cannot)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let process = command.spawn().with_context(cannot)?;
        Ok(Self { name: name.to_owned(), process, log: log.to_owned() })
    }

    /// Waits until somebody accepts connections at `port` of `address`.
    ///
    /// Errors: the program ended, or does not listen in time, with the end of what it said; somebody asked to stop.
    pub fn wait_until_it_listens(
        &mut self,
        address: Ipv4Addr,
        port: u16,
        stop: &Stop,
    ) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        let address = SocketAddr::from((address, port));
        while TcpStream::connect_timeout(&address, POLL).is_err() {
            let name = &self.name;
            if let Some(status) = self.process.try_wait()? {
                bail!("{name} ended ({status}) instead of serving; it said:\n{}", self.said());
            }
            if Instant::now() >= deadline {
                bail!("{name} does not listen at {address}; it said:\n{}", self.said());
            }
            if !stop.sleep(POLL) {
                bail!("stopped");
            }
        }
        Ok(())
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        tail(&std::fs::read(&self.log).unwrap_or_default(), 12)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        // It was started here, so it can be waited for.
        let _ = self.process.wait();
    }

    fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.process.id()).expect("a process number is a pid_t");
        // It may have ended by itself.
        let _ = killpg(Pid::from_raw(group), signal);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline && matches!(self.process.try_wait(), Ok(None)) {
            thread::sleep(POLL);
        }
        self.kill();
    }
}

/// The last `lines` lines of a text, indented.
pub fn tail(text: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let all: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &all[all.len().saturating_sub(lines)..];
    last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_kept() {
        assert_eq!(tail(b"a\n\nb\nc\n", 2), "    b\n    c");
    }
}
