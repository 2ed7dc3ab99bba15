//! Which system call a thread waits in. The kernel does not say with its requests, /proc does. [proc_pid_syscall(5)]

use std::fs::File;
use std::io::Read;

/// A system call: its number, and its first three arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    number: i64,
    arguments: [u64; 3],
}

impl SystemCall {
    /// The call that the thread `task` is in, if this process may know it.
    pub fn of(task: u32) -> Option<Self> {
        Self::parse(&line_of(task)?)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        Some(Self { number, arguments: [argument()?, argument()?, argument()?] })
    }

    /// Whether it is flock(2).
    pub fn is_flock(&self) -> bool {
        self.number == libc::SYS_flock
    }

    /// Whether it looks a name up to open the file, for reading or to execute it. Of some ways to open a file it is not known.
    pub fn opens(&self) -> bool {
        let [_, _, flags] = self.arguments;
        match self.number {
            // O_PATH opens nothing.
            libc::SYS_openat => flags & libc::O_PATH as u64 == 0,
            libc::SYS_execve => true,
            _ => false,
        }
    }
}

/// Whether the thread `task` has not fallen asleep yet, so that it cannot be told where it is.
pub fn is_running(task: u32) -> bool {
    line_of(task).is_some_and(|line| line.starts_with("running"))
}

fn line_of(task: u32) -> Option<String> {
    let mut line = [0; 256];
    let length = File::open(format!("/proc/{task}/syscall")).ok()?.read(&mut line).ok()?;
    Some(std::str::from_utf8(line.get(..length)?).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: i64, flags: i32) -> Option<SystemCall> {
        SystemCall::parse(&format!(
            "{number} 0xffffff9c 0x7ff9 {flags:#x} 0x0 0x0 0x0 0x7ffc 0x7f00\n"
        ))
    }

    #[test]
    fn calls_are_read_as_proc_writes_them() {
        assert!(call(libc::SYS_openat, libc::O_RDONLY | libc::O_CLOEXEC).unwrap().opens());
        assert!(!call(libc::SYS_openat, libc::O_PATH).unwrap().opens());
        assert!(!call(libc::SYS_newfstatat, 0).unwrap().opens());
        assert!(call(libc::SYS_flock, 0).unwrap().is_flock());
        for line in ["running\n", "-1 0x7ffc 0x7f00\n", ""] {
            assert_eq!(SystemCall::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_call_of_a_thread_that_waits_is_found() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let (sender, task) = std::sync::mpsc::channel();
        let waits = std::thread::spawn(move || {
            sender.send(nix::unistd::gettid().as_raw() as u32).unwrap();
            nix::unistd::read(&reader, &mut [0]).unwrap()
        });
        let task = task.recv().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while SystemCall::of(task).is_none_or(|call| call.number != libc::SYS_read) {
            assert!(std::time::Instant::now() < deadline, "{:?}", SystemCall::of(task));
            std::thread::yield_now();
        }
        drop(writer);
        assert_eq!(waits.join().unwrap(), 0);
    }
}
