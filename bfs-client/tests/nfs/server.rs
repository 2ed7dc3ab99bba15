//! A `bfs nfs` process under test.

use super::client::Client;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub struct Server {
    process: Child,
    pub port: u16,
}

impl Server {
    /// A server of files in its own memory.
    pub fn local(options: &[&str]) -> Self {
        Self::start(Command::new(env!("CARGO_BIN_EXE_bfs")).args(["nfs", "--local"]).args(options))
    }

    /// A proxy of the group, with these keys, on this port or any.
    pub fn of_group(group: &Path, key: &Path, port: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bfs"));
        command.arg("nfs").arg(group).arg("--key").arg(key);
        Self::start(command.args(["--listen", &format!("127.0.0.1:{port}")]))
    }

    fn start(command: &mut Command) -> Self {
        command.env_remove("BFS_LISTEN").arg("--json").stdout(Stdio::piped());
        if !command.get_args().any(|arg| arg == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value =
            serde_json::from_str(&line).expect("it says where it serves");
        Self { process, port: ready["port"].as_u64().unwrap() as u16 }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }

    /// What it takes of memory. Units: KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it as an operator would.
    pub fn stop(mut self) -> ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.process.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.ended()
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.process.try_wait().unwrap() {
                Some(status) => return status,
                None => assert!(Instant::now() < deadline, "it still runs"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
