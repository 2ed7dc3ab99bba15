//! A group of real replica processes on this machine's loopback, in a temporary folder, for the demo, benchmarks and tests.
//!
//! It drives the two programs as a user would, and leaves no process, mount or folder behind when it is dropped, also while a
//! panic unwinds. Everything it starts has a process group of its own: a Ctrl-C at the terminal reaches only the process that
//! owns the group, which then cleans up in order.

mod attackers;
mod process;
mod status;
#[cfg(test)]
mod tests;

use self::process::{
    END_LIMIT, POLL, end_now, last_lines, listens, new_folder, pid, reported, run, said, stopped,
    wait, with_log,
};
pub use self::status::Status;
use crate::failure::{Failure, Outcome};
use crate::mount_state;
use crate::mount_table::{self, Detach};
use nix::sys::signal::{Signal, kill};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use workloads::stop::Stop;

/// How long the commands that make keys and files may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
/// How long a replica may take until it listens, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a mount may wait for the group's first answer.
const MOUNT_LIMIT: Duration = Duration::from_secs(60);
/// How long an unmount may take to write what is not yet written.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(30);

/// The two programs of the project.
#[derive(Clone, Debug)]
pub struct Programs {
    pub bfs: PathBuf,
    pub replica: PathBuf,
}

impl Programs {
    /// Those beside the program that runs, or one folder up, where cargo puts them for its tests.
    ///
    /// Errors: one of them is not there.
    pub fn beside_this() -> Outcome<Self> {
        let this = std::env::current_exe()
            .map_err(|error| Failure::new("cannot find the program that runs", error))?;
        let find = |name: &str| {
            let found = this.ancestors().skip(1).take(2).map(|folder| folder.join(name));
            found.into_iter().find(|path| path.is_file()).ok_or_else(|| {
                let why = format!("it is not beside {}", this.display());
                Failure::new(format!("cannot find the program {name}"), why)
                    .advise("cargo build --release -p bfs-client -p bfs-replica")
            })
        };
        Ok(Self { bfs: find("bfs")?, replica: find("bfs-replica")? })
    }

    /// The same with replicas that can be told to attack.
    ///
    /// Errors: they were not built.
    pub fn lab_beside_this() -> Outcome<Self> {
        let programs = Self::beside_this()?;
        let lab = programs.replica.with_file_name("bfs-replica-lab");
        if !lab.is_file() {
            let what = "cannot find the program bfs-replica-lab";
            let why = format!("it is not beside {}", programs.replica.display());
            return Err(Failure::new(what, why)
                .advise("cargo build --release --bins --features bfs-replica/lab"));
        }
        Ok(Self { replica: lab, ..programs })
    }
}

/// What a group is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub programs: Programs,
    /// How many replicas.
    pub n: usize,
    /// How many of them may be faulty; n is 3f+1.
    pub f: usize,
    /// Where the group's folder is made.
    pub parent: PathBuf,
    /// Ends what waits here. What is taken away at the end is taken away in any case.
    pub stop: Stop,
}

impl Plan {
    /// A group of `n` replicas that bears `f` faulty ones, of the programs beside the running one, in the system's folder
    /// for temporary files.
    pub fn new(n: usize, f: usize, stop: &Stop) -> Outcome<Self> {
        let programs = Programs::beside_this()?;
        Ok(Self { programs, n, f, parent: std::env::temp_dir(), stop: stop.clone() })
    }
}

/// A group on this machine. Dropping it ends and removes everything.
pub struct LocalGroup {
    plan: Plan,
    dir: PathBuf,
    /// In words, as every command prints it.
    id: String,
    replicas: Vec<Replica>,
    mounts: Vec<PathBuf>,
    intruder: Option<Child>,
    left_running: bool,
}

struct Replica {
    dir: PathBuf,
    port: u16,
    /// Is bound to the port and never listens: so the replica can, again and again, and the system gives it to nobody else.
    _reserved: TcpSocket,
    process: Option<Child>,
}

impl LocalGroup {
    /// A started group of `n` replicas that bears `f` faulty ones, of the programs beside the running one.
    ///
    /// Errors: as [`Self::start`].
    pub fn create(n: usize, f: usize) -> Outcome<Self> {
        Self::start(&Plan::new(n, f, &Stop::default())?)
    }

    /// Makes the keys of every replica and of the clients, and the group file; starts nothing.
    ///
    /// Errors: what the programs say; there are no ports; the folder cannot be made.
    pub fn prepare(plan: &Plan) -> Outcome<Self> {
        let dir = new_folder(&plan.parent)?;
        // From here on, dropping it removes the folder.
        let mut group = Self {
            plan: plan.clone(),
            dir,
            id: String::new(),
            replicas: Vec::new(),
            mounts: Vec::new(),
            intruder: None,
            left_running: false,
        };
        group.replicas = (0..plan.n).map(|id| group.replica(id)).collect::<Outcome<_>>()?;
        let clients = [group.key_dir(), group.operator_key(), group.intruder_key()].into_iter();
        for (name, dir) in ["client", "operator", "intruder"].into_iter().zip(clients) {
            let mut init = group.bfs();
            init.arg("init").arg(dir).args(["--name", name]);
            group.run(init, COMMAND_LIMIT)?;
        }
        group.write_group_file()?;
        Ok(group)
    }

    /// Makes a group and starts every replica of it.
    ///
    /// Errors: as [`Self::prepare`] and [`Self::start_replica`].
    pub fn start(plan: &Plan) -> Outcome<Self> {
        let mut group = Self::prepare(plan)?;
        group.start_all()?;
        Ok(group)
    }

    /// Starts every replica, and returns when all of them listen.
    pub fn start_all(&mut self) -> Outcome {
        for id in 0..self.replicas.len() {
            self.spawn_replica(id)?;
        }
        (0..self.replicas.len()).try_for_each(|id| self.wait_until_it_listens(id))
    }

    /// Starts replica `id`, which does not run, and returns when it listens.
    ///
    /// Errors: it ended, or did not listen in time; with the end of its log.
    pub fn start_replica(&mut self, id: usize) -> Outcome {
        self.spawn_replica(id)?;
        self.wait_until_it_listens(id)
    }

    /// Kills replica `id` at once, as a crash would (SIGKILL).
    pub fn kill(&mut self, id: usize) -> Outcome {
        let process = self.replicas[id].process.take();
        let Some(mut process) = process else { return Err(not_running(id)) };
        let killed = process.kill().and_then(|()| process.wait());
        killed.map(drop).map_err(|error| Failure::new(format!("cannot kill r{id}"), error))
    }

    /// Lets replica `id` do nothing until [`Self::resume`] (SIGSTOP).
    pub fn pause(&self, id: usize) -> Outcome {
        self.signal(id, Signal::SIGSTOP)
    }

    /// Lets a paused replica go on (SIGCONT).
    pub fn resume(&self, id: usize) -> Outcome {
        self.signal(id, Signal::SIGCONT)
    }

    /// Stops replica `id` as an operator would (SIGTERM), and waits for its end.
    ///
    /// Errors: it did not end well, or not in time, and was killed; with the end of its log.
    pub fn stop(&mut self, id: usize) -> Outcome {
        self.signal(id, Signal::SIGTERM)?;
        // If it was paused, it can end only when it goes on.
        self.resume(id)?;
        let Some(mut process) = self.replicas[id].process.take() else {
            return Err(not_running(id));
        };
        let what = format!("r{id} did not stop cleanly");
        match wait(&mut process, END_LIMIT, &Stop::default()) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(Failure::new(what, with_log(status, &self.replica_log(id)))),
            Ok(None) => {
                end_now(&mut process);
                let why = format!("it still ran after {} s, and was killed", END_LIMIT.as_secs());
                Err(Failure::new(what, with_log(why, &self.replica_log(id))))
            }
            Err(error) => Err(Failure::new(what, error)),
        }
    }

    /// Mounts the group on the folder `path`, which is made if it is not there, with `options` as after `-o`.
    ///
    /// Only one mount at a time: a second one would end the session of the first.
    ///
    /// Errors: what `bfs mount` says.
    pub fn mount(&mut self, path: &Path, options: &str) -> Outcome {
        let cannot = |error| Failure::new(format!("cannot make {}", path.display()), error);
        fs::create_dir_all(path).map_err(cannot)?;
        // As the mount table will name it.
        let path = &mount_table::absolute(path).map_err(cannot)?;
        let log = self.mount_log();
        let mut mount = self.bfs();
        mount.arg("mount").arg(self.group_file()).arg(path).arg("--key").arg(self.key_dir());
        mount.arg("--log-file").arg(&log);
        if !options.is_empty() {
            mount.args(["-o", options]);
        }
        if !self.mounts.iter().any(|mounted| mounted == path) {
            // Before it is tried, so that whatever becomes of it is taken away.
            self.mounts.push(path.to_owned());
        }
        self.run(mount, MOUNT_LIMIT).map_err(|failure| {
            let message = with_log(&failure.message, &log);
            Failure { message, ..failure }
        })?;
        Ok(())
    }

    /// Unmounts `path`, and returns when its serving process has ended.
    ///
    /// Errors: what `bfs umount` says.
    pub fn unmount(&mut self, path: &Path) -> Outcome {
        let cannot = |error| Failure::new(format!("cannot unmount {}", path.display()), error);
        let path = &mount_table::absolute(path).map_err(cannot)?;
        let mut umount = self.bfs();
        umount.arg("umount").arg(path);
        self.run(umount, UNMOUNT_LIMIT)?;
        self.mounts.retain(|mounted| mounted != path);
        Ok(())
    }

    /// Runs `work` on another thread, and `meanwhile` on this one every few milliseconds.
    ///
    /// Effects: if somebody asks to stop and the work does not end soon, whatever it waits for in a mount is answered with
    /// errors, so that it does. A panic of the work is passed on.
    pub fn supervise<T: Send>(
        &mut self,
        work: impl FnOnce() -> T + Send,
        mut meanwhile: impl FnMut(&mut Self),
    ) -> T {
        let stop = self.plan.stop.clone();
        let mut patience_ends = None;
        thread::scope(|scope| {
            let worker = scope.spawn(work);
            while !worker.is_finished() {
                if stop.requested() {
                    let end = *patience_ends.get_or_insert_with(|| Instant::now() + END_LIMIT / 5);
                    if Instant::now() >= end {
                        self.release_mounts();
                    }
                } else {
                    meanwhile(self);
                }
                thread::sleep(POLL);
            }
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Keeps everything running after this process has ended.
    pub fn leave_running(mut self) {
        self.left_running = true;
    }

    /// The group's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The group's id in words.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The group's public file.
    pub fn group_file(&self) -> PathBuf {
        self.dir.join("group.toml")
    }

    /// The folder with the keys that mounts use.
    pub fn key_dir(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// The folder with the keys of a second client, for status.
    pub fn operator_key(&self) -> PathBuf {
        self.dir.join("operator")
    }

    /// The folder with the keys of a third client, which only ever attacks.
    pub fn intruder_key(&self) -> PathBuf {
        self.dir.join("intruder")
    }

    /// The programs that the group runs.
    pub fn programs(&self) -> &Programs {
        &self.plan.programs
    }

    /// The port of replica `id`.
    pub fn port(&self, id: usize) -> u16 {
        self.replicas[id].port
    }

    /// The process of each replica, by id; nothing for one that was stopped or killed.
    pub fn pids(&self) -> Vec<Option<u32>> {
        self.replicas.iter().map(|replica| replica.process.as_ref().map(Child::id)).collect()
    }

    /// Whether replica `id` runs; one that ended by itself does not.
    pub fn is_running(&mut self, id: usize) -> bool {
        let process = &mut self.replicas[id].process;
        let runs = process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)));
        if !runs {
            // Its number may soon belong to another process, which must get no signal from here.
            *process = None;
        }
        runs
    }

    /// The memory that replica `id` has resident now; nothing if it does not run. Units: bytes. [proc_pid_status(5)]
    pub fn resident_bytes(&self, id: usize) -> Option<u64> {
        let pid = self.replicas[id].process.as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    /// The last lines of replica `id`'s log.
    pub fn log_tail(&self, id: usize) -> String {
        last_lines(&self.replica_log(id))
    }
}

/// How it is made.
impl LocalGroup {
    /// Makes the keys of replica `id`, which will listen on a port of its own.
    fn replica(&self, id: usize) -> Outcome<Replica> {
        let (reserved, port) = reserve_port()
            .map_err(|error| Failure::new("cannot get a free port on 127.0.0.1", error))?;
        let dir = self.dir.join(format!("r{id}"));
        let mut init = self.program(&self.plan.programs.replica);
        init.arg("init").arg(&dir).arg("--listen").arg(format!("127.0.0.1:{port}"));
        self.run(init, COMMAND_LIMIT)?;
        Ok(Replica { dir, port, _reserved: reserved, process: None })
    }

    fn write_group_file(&mut self) -> Outcome {
        let mut create = self.bfs();
        create.args(["group", "create", "--output"]).arg(self.group_file());
        create.args(["--f", &self.plan.f.to_string(), "--memory", "4GiB", "--replica"]);
        create.args(self.replicas.iter().map(|replica| replica.dir.join("public.toml")));
        create.arg("--client");
        create.args(
            [self.key_dir(), self.operator_key(), self.intruder_key()]
                .map(|key| key.join("public.toml")),
        );
        self.run(create, COMMAND_LIMIT)?;
        let mut show = self.bfs();
        show.args(["group", "show", "--json"]).arg(self.group_file());
        let output = self.run(show, COMMAND_LIMIT)?;
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure::new("cannot learn the group's id", said(&output, error)))?;
        self.id = shown["id"].as_str().unwrap_or("unknown").to_owned();
        Ok(())
    }

    fn spawn_replica(&mut self, id: usize) -> Outcome {
        if self.is_running(id) {
            return Err(Failure::new(format!("cannot start r{id}"), "it runs already"));
        }
        let cannot = |error: io::Error| Failure::new(format!("cannot start r{id}"), error);
        let log =
            File::options().create(true).append(true).open(self.replica_log(id)).map_err(cannot)?;
        let mut command = self.program(&self.plan.programs.replica);
        command.arg("run").arg(&self.replicas[id].dir).arg("--group").arg(self.group_file());
        command.stdout(log.try_clone().map_err(cannot)?).stderr(log);
        self.replicas[id].process = Some(command.spawn().map_err(cannot)?);
        Ok(())
    }

    fn wait_until_it_listens(&mut self, id: usize) -> Outcome {
        let deadline = Instant::now() + START_LIMIT;
        let failed = |group: &Self, why: String| {
            Failure::new(format!("r{id} did not start"), with_log(why, &group.replica_log(id)))
        };
        loop {
            let Some(process) = &mut self.replicas[id].process else { return Err(not_running(id)) };
            let ended = process.try_wait().map_err(|error| failed(self, error.to_string()))?;
            if let Some(status) = ended {
                self.replicas[id].process = None;
                return Err(failed(self, status.to_string()));
            }
            // The process may have ended after that look, and somebody else listen there: the next use of it tells.
            if listens(self.replicas[id].port) {
                return Ok(());
            }
            if self.plan.stop.requested() {
                return Err(stopped(&format!("start r{id}")));
            }
            if Instant::now() >= deadline {
                return Err(failed(
                    self,
                    format!("it does not listen after {} s", START_LIMIT.as_secs()),
                ));
            }
            thread::sleep(POLL);
        }
    }
}

fn reserve_port() -> io::Result<(TcpSocket, u16)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// How it drives the programs.
impl LocalGroup {
    fn bfs(&self) -> Command {
        self.program(&self.plan.programs.bfs)
    }

    /// A command that the user's own settings and terminal do not reach. Where mounts keep their state, and what is logged,
    /// is still the user's choice.
    fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        let ours =
            |name: &str| name.starts_with("BFS_") && !matches!(name, "BFS_RUNTIME_DIR" | "BFS_LOG");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// Runs a command that must succeed.
    fn run(&self, command: Command, limit: Duration) -> Outcome<Output> {
        let output = run(command, limit, &self.plan.stop)?;
        match output.status.success() {
            true => Ok(output),
            false => Err(reported(&output)),
        }
    }

    fn signal(&self, id: usize, signal: Signal) -> Outcome {
        let Some(process) = &self.replicas[id].process else { return Err(not_running(id)) };
        kill(pid(process), signal)
            .map_err(|error| Failure::new(format!("cannot send {signal} to r{id}"), error))
    }

    fn replica_log(&self, id: usize) -> PathBuf {
        self.dir.join(format!("r{id}.log"))
    }

    fn mount_log(&self) -> PathBuf {
        self.dir.join("mount.log")
    }
}

/// How it goes away.
impl LocalGroup {
    /// Answers what waits in the mounts with errors, and takes them away.
    fn release_mounts(&mut self) {
        for path in std::mem::take(&mut self.mounts) {
            self.take_away(&path, true);
        }
    }

    /// Takes the mount on `path` away: cleanly if it can be, then by force, at last by detaching it and killing its process.
    fn take_away(&self, path: &Path, force: bool) {
        let is_mounted = || matches!(mount_table::at(path), Ok(Some(_)));
        let umount = |flag: Option<&str>| {
            let mut umount = self.bfs();
            umount.arg("umount").args(flag).arg(path);
            run(umount, UNMOUNT_LIMIT, &Stop::default()).is_ok_and(|output| output.status.success())
        };
        if !is_mounted() || (!force && umount(None)) || umount(Some("--force")) {
            return;
        }
        let Ok(Some(entry)) = mount_table::at(path) else { return };
        let server = mount_state::find(path, entry.id);
        if let Err(error) = mount_table::detach(path, Detach::Lazy) {
            eprintln!("bfs: {} stays mounted: {error}", path.display());
        }
        if let Some(server) = server {
            // It is gone if it cannot be killed.
            let _ = server.signal(Signal::SIGKILL);
            mount_state::forget_dead(path);
        }
    }

    fn end_replicas(&mut self) {
        let mut processes: Vec<_> =
            self.replicas.iter_mut().filter_map(|replica| replica.process.take()).collect();
        for process in &processes {
            // It may have ended by itself.
            let _ = kill(pid(process), Signal::SIGTERM);
        }
        let deadline = Instant::now() + END_LIMIT;
        for process in &mut processes {
            let left = deadline.saturating_duration_since(Instant::now());
            if !matches!(wait(process, left, &Stop::default()), Ok(Some(_))) {
                end_now(process);
            }
        }
    }

    /// Removes the folder, but never what a mount shows in it.
    fn remove_folder(&self) {
        let removed = mount_table::all().and_then(|mounts| {
            match mounts.iter().find(|entry| mount_table::is_within(&entry.dir, &self.dir)) {
                Some(entry) => Err(io::Error::other(format!("{} is mounted", entry.dir.display()))),
                None => fs::remove_dir_all(&self.dir),
            }
        });
        if let Err(error) = removed {
            eprintln!("bfs: {} stays: {error}", self.dir.display());
        }
    }
}

impl Drop for LocalGroup {
    fn drop(&mut self) {
        if self.left_running {
            return;
        }
        self.end_intrusion();
        let running: Vec<_> = (0..self.replicas.len()).filter(|id| self.is_running(*id)).collect();
        for id in &running {
            // Paused, it could neither help with an unmount nor end. It is gone if it cannot be told.
            let _ = self.resume(*id);
        }
        // With fewer nobody would answer what an unmount still has to write.
        let has_quorum = running.len() + self.plan.f >= self.replicas.len();
        for path in std::mem::take(&mut self.mounts) {
            self.take_away(&path, !has_quorum);
        }
        self.end_replicas();
        self.remove_folder();
    }
}

fn not_running(id: usize) -> Failure {
    Failure::new(format!("cannot reach r{id}"), "it does not run")
}
