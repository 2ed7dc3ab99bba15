//! Where and of what figures were taken.

use serde::Serialize;
use std::fs;
use std::process::Command;

/// What figures depend on beside what is measured. The field names are a stable interface.
#[derive(Clone, Debug, Serialize)]
pub struct Stamp {
    /// Of the repository in the current directory; with `+` where something has changed since.
    pub commit: String,
    pub cores: usize,
    pub processor: String,
    pub kernel: String,
    pub memory_mib: u64,
    /// How long a virtual machine's idle core looks for work before it halts; nothing where its kernel does not say. Waking
    /// a core that has halted takes several times as long as all else that happens to a small message. Units: ns.
    pub halts_after_ns: Option<u64>,
}

impl Stamp {
    /// Of this machine; what it does not tell stays empty.
    pub fn here() -> Self {
        let changed = first_line("git", &["status", "--porcelain", "--untracked-files=no"]);
        let mut commit = first_line("git", &["rev-parse", "--short=12", "HEAD"]);
        if !changed.is_empty() {
            commit.push('+');
        }
        let memory = field("/proc/meminfo", "MemTotal");
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        Self {
            commit,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field("/proc/cpuinfo", "model name"),
            kernel: first_line("uname", &["-r"]),
            memory_mib: kib / 1024,
            halts_after_ns: halts_after(),
        }
    }
}

/// [Documentation/virt/guest-halt-polling.rst in Linux]
fn halts_after() -> Option<u64> {
    let driver = fs::read_to_string("/sys/devices/system/cpu/cpuidle/current_driver").ok()?;
    let limit = fs::read_to_string("/sys/module/haltpoll/parameters/guest_halt_poll_ns").ok()?;
    (driver.trim() == "haltpoll").then(|| limit.trim().parse().ok())?
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    line.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// The first line that a program says; nothing if there is no such program.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_what_it_is() {
        let stamp = Stamp::here();
        assert!(stamp.cores > 0 && stamp.memory_mib > 0 && !stamp.kernel.is_empty());
        assert_eq!(first_line("/no/such/program", &[]), "");
    }
}
