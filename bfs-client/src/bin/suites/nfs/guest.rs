//! A guest: user-mode Linux with the kernel's own NFS client, on this machine's files, which it cannot change.

use super::daemon::tail;
use super::network::Cable;
use super::target::Endpoint;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};
use workloads::stop::Stop;

const INIT: &str = include_str!("../../../../../workloads/kernel-nfs/init.sh");
const STEPS: &str = include_str!("../../../../../workloads/kernel-nfs/steps.sh");
const SHIM: &str = include_str!("../../../../../workloads/kernel-nfs/xstate-shim.c");

/// How long it may take from its start to a mounted export.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);
/// Units: bytes, as its command line wants them.
const MEMORY: &str = "1536M";

/// What all guests of a run have in common.
pub struct Kit {
    /// Where everything below lies.
    scratch: PathBuf,
    /// Programs and files that a guest copies as it starts.
    tools: Vec<PathBuf>,
}

/// Who does a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Root,
    User,
}

impl Who {
    /// As it is told to the guest.
    pub fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
        }
    }

    /// Its number, and that of its group, in the guest.
    pub fn uid(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::User => 1077,
        }
    }
}

/// A guest that runs. Dropping it ends it.
pub struct Guest {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    share: PathBuf,
}

/// How a step ended.
pub enum Ended {
    /// By itself.
    Status(i32),
    /// The guest ended, or was silent for longer than the step may take. It is of no more use.
    Lost(String),
}

impl Kit {
    /// What guests need, made in `scratch`; `tools` are programs and other files for the steps.
    ///
    /// Errors: user-mode Linux, its modules or the C compiler are not there.
    pub fn new(scratch: &Path, tools: Vec<PathBuf>) -> Result<Self> {
        let modules = Path::new("/usr/lib/uml/modules");
        if !modules.is_dir() {
            bail!(
                "{} is missing\n  try: apt-get install user-mode-linux busybox-static",
                modules.display()
            );
        }
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let path = scratch.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
            Ok(path)
        };
        let (source, shim) = (write("xstate-shim.c", SHIM)?, scratch.join("xstate-shim.so"));
        write("init.sh", INIT)?;
        let steps = write("steps.sh", STEPS)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&shim).arg(source);
        let output = compiler.output().context("cannot run cc\n  try: apt-get install gcc")?;
        if !output.status.success() {
            bail!("cc cannot compile the shim:\n{}", tail(&output.stderr, 12));
        }
        let tools = tools.into_iter().chain([steps]).collect();
        Ok(Self { scratch: scratch.to_owned(), tools })
    }

    /// The folder that the guest on `cable` sees as /run/share.
    pub fn share(&self, cable: Cable) -> PathBuf {
        self.scratch.join(cable.device())
    }
}

impl Guest {
    /// Boots a guest on `cable`, which mounts `endpoint`.
    ///
    /// Errors: it does not come up, or cannot mount; with what its console says.
    pub fn boot(kit: &Kit, cable: Cable, endpoint: &Endpoint, stop: &Stop) -> Result<Self> {
        let share = kit.share(cable);
        let tools = share.join("tools");
        fs::create_dir_all(&tools)?;
        // Its user writes there too.
        fs::set_permissions(&share, Permissions::from_mode(0o777))?;
        for tool in &kit.tools {
            let name = tool.file_name().context("a tool has a name")?;
            fs::copy(tool, tools.join(name))
                .with_context(|| format!("cannot copy {}", tool.display()))?;
        }
        let mut process = command(kit, cable, endpoint, &share)?
            .spawn()
            .context("cannot run linux.uml\n  try: apt-get install user-mode-linux")?;
        let input = process.stdin.take().context("its input is a pipe")?;
        let output = process.stdout.take().context("its output is a pipe")?;
        let lines = read_lines(output, &share.join("console.log"))?;
        let mut guest = Self { process, input, lines, share };
        guest.wait_until_ready(stop)?;
        Ok(guest)
    }

    fn wait_until_ready(&mut self, stop: &Stop) -> Result<()> {
        let deadline = Instant::now() + BOOT_LIMIT;
        loop {
            match self.next_line(deadline, stop) {
                Some(line) if line == "@ready" => return Ok(()),
                Some(line) => {
                    if let Some(what) = line.strip_prefix("@failed ") {
                        bail!("the guest cannot {what}; its console said:\n{}", self.console());
                    }
                }
                None if stop.requested() => bail!("stopped"),
                None => bail!("the guest did not start; its console said:\n{}", self.console()),
            }
        }
    }

    /// Begins a step; [`Self::end_of_step`] waits for its end.
    ///
    /// Errors: the guest has ended.
    pub fn begin(&mut self, step: &str, who: Who) -> Result<()> {
        let line = format!("{step} {}\n", who.word());
        self.input.write_all(line.as_bytes()).context("the guest has ended")
    }

    /// Waits for the end of the step that was begun, at most for `limit`.
    pub fn end_of_step(&mut self, limit: Duration, stop: &Stop) -> Ended {
        let deadline = Instant::now() + limit;
        while let Some(line) = self.next_line(deadline, stop) {
            if let Some(status) = line.strip_prefix("@end ") {
                return status.trim().parse().map_or_else(|_| Ended::Lost(line), Ended::Status);
            }
        }
        Ended::Lost(match () {
            () if stop.requested() => "stopped".to_owned(),
            () if matches!(self.process.try_wait(), Ok(None)) => {
                format!("no end after {} s", limit.as_secs())
            }
            () => format!("the guest ended; its console said:\n{}", self.console()),
        })
    }

    /// The next line of its console; nothing if it ended, the deadline has passed, or somebody asked to stop.
    fn next_line(&self, deadline: Instant, stop: &Stop) -> Option<String> {
        while Instant::now() < deadline && !stop.requested() {
            match self.lines.recv_timeout(POLL) {
                Ok(line) => return Some(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }

    /// What the step that ended last has written.
    pub fn step_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.share.join("step.log")).unwrap_or_default())
            .into_owned()
    }

    /// Puts a file where the guest's steps read it.
    pub fn tell(&self, name: &str, text: &str) -> Result<()> {
        let path = self.share.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What a step has written to a file for this side.
    pub fn told(&self, name: &str) -> Result<String> {
        let path = self.share.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Lets it stand still, or go on. Guests that wait for something to do still have their clocks tick, on this machine's cores.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        // Its programs are processes of their own, but without their kernel they do nothing.
        Ok(kill(self.group(), signal)?)
    }

    /// All its processes; the first is its kernel.
    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("a process number is a pid_t"))
    }

    fn console(&self) -> String {
        tail(&fs::read(self.share.join("console.log")).unwrap_or_default(), 20)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Its memory is what it has; nothing needs to be written.
        let _ = killpg(self.group(), Signal::SIGKILL);
        let _ = self.process.wait();
    }
}

fn command(kit: &Kit, cable: Cable, endpoint: &Endpoint, share: &Path) -> Result<Command> {
    let mut command = Command::new("linux.uml");
    // Without HOME it crashes. Its memory is a file that it maps, which belongs in memory.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", share).env("TMPDIR", "/dev/shm");
    command.env("LD_PRELOAD", kit.scratch.join("xstate-shim.so"));
    command.args(["rootfstype=hostfs", "rootflags=/", "ro", "quiet", "con=null", "con0=fd:0,fd:1"]);
    command.arg(format!("mem={MEMORY}"));
    command.arg(format!("umid=guest-{}", cable.device()));
    command.arg(format!("init={}", kit.scratch.join("init.sh").display()));
    // Hybrid: what comes is read from a packet socket. A tap signals a packet before epoll knows of it (tun_net_xmit in
    // drivers/net/tun.c), so a guest may look too early, and then hears of the packet only when its sender repeats it, 200 ms
    // later. The card does not take another size of packets later.
    command
        .arg(format!("vec0:transport=hybrid,ifname={},depth=128,gro=1,mtu=9000", cable.device()));
    command.arg(format!("share={}", share.display()));
    command.arg(format!("address={}", cable.guest())).arg(format!("gateway={}", cable.gateway()));
    command.arg(format!("server={}", endpoint.address)).arg(format!("port={}", endpoint.port));
    command.arg(format!("mount_port={}", endpoint.mount_port));
    command.arg(format!("export={}", endpoint.export));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    command.stderr(File::create(share.join("kernel.log"))?);
    Ok(command)
}

/// Hands on each line of the console, and keeps all of them in `log`.
fn read_lines(output: ChildStdout, log: &Path) -> Result<Receiver<String>> {
    let mut log = File::create(log)?;
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            // A full disk must not end the guest.
            let _ = log.write_all(&line);
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    };
    thread::Builder::new().name("console".into()).spawn(read)?;
    Ok(receiver)
}
