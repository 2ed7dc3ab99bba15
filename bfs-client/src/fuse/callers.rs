//! On whose behalf a kernel request runs.

use bfs_fs::op::{Caller, MAX_GROUPS};
use fuser::Request;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the supplementary groups of a process are taken as known.
const GROUPS_TTL: Duration = Duration::from_millis(250);
/// The most processes whose groups are remembered.
const GROUPS_KNOWN_MAX: usize = 1024;

/// Finds the supplementary groups of callers, which FUSE does not pass, in their /proc entries. (decision 10)
#[derive(Default)]
pub struct Callers {
    recent: Mutex<HashMap<u32, Known>>,
}

struct Known {
    caller: Caller,
    until: Instant,
}

impl Callers {
    /// Who sent `request`. A process that is gone, or that is not who the kernel says, has no supplementary groups.
    pub fn of(&self, request: &Request) -> Caller {
        self.find(request.pid(), request.uid(), request.gid(), Instant::now(), groups_of)
    }

    fn find(
        &self,
        pid: u32,
        uid: u32,
        gid: u32,
        now: Instant,
        look: impl FnOnce(u32, u32, u32) -> Vec<u32>,
    ) -> Caller {
        let mut recent = lock(&self.recent);
        match recent.get(&pid) {
            Some(known)
                if known.until > now && (known.caller.uid, known.caller.gid) == (uid, gid) =>
            {
                return known.caller.clone();
            }
            _ => {}
        }
        if recent.len() >= GROUPS_KNOWN_MAX {
            recent.retain(|_, known| known.until > now);
        }
        if recent.len() >= GROUPS_KNOWN_MAX {
            recent.clear();
        }
        let caller = Caller { uid, gid, groups: look(pid, uid, gid) };
        recent.insert(pid, Known { caller: caller.clone(), until: now + GROUPS_TTL });
        caller
    }
}

fn groups_of(pid: u32, uid: u32, gid: u32) -> Vec<u32> {
    // 0: the request comes from the kernel itself, or from a process that this one cannot see.
    match pid {
        0 => Vec::new(),
        _ => std::fs::read_to_string(format!("/proc/{pid}/status"))
            .ok()
            .and_then(|status| parse_groups(&status, uid, gid))
            .unwrap_or_default(),
    }
}

/// The groups in a /proc/PID/status, if its file-system uid and gid are `uid` and `gid`: a number used anew by
/// another process lends nobody its groups. [proc_pid_status(5)]
fn parse_groups(status: &str, uid: u32, gid: u32) -> Option<Vec<u32>> {
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let file_system_id = |name: &str| line(name)?.split_whitespace().nth(3)?.parse::<u32>().ok();
    if file_system_id("Uid:")? != uid || file_system_id("Gid:")? != gid {
        return None;
    }
    let groups = line("Groups:")?.split_whitespace().filter_map(|group| group.parse().ok());
    Some(groups.take(MAX_GROUPS).collect())
}

/// The maps stay consistent at every point where a panic is possible, so poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tmake\nUid:\t1\t2\t3\t1000\nGid:\t5\t6\t7\t100\nFDSize:\t64\nGroups:\t4 24 100 \nVmPeak:\t1 kB\n";

    #[test]
    fn groups_are_read_from_status() {
        assert_eq!(parse_groups(STATUS, 1000, 100), Some(vec![4, 24, 100]));
        assert_eq!(parse_groups(&STATUS.replace("4 24 100 ", ""), 1000, 100), Some(vec![]));
    }

    #[test]
    fn another_process_under_the_same_number_lends_no_groups() {
        assert_eq!(parse_groups(STATUS, 1, 100), None);
        assert_eq!(parse_groups(STATUS, 1000, 5), None);
        assert_eq!(parse_groups("nonsense", 1000, 100), None);
        assert_eq!(parse_groups("", 0, 0), None);
    }

    #[test]
    fn no_more_groups_than_a_caller_may_have() {
        let many: String = (0..MAX_GROUPS + 10).map(|i| format!(" {i}")).collect();
        let status = STATUS.replace("4 24 100", &many);
        assert_eq!(parse_groups(&status, 1000, 100).unwrap().len(), MAX_GROUPS);
    }

    #[test]
    fn groups_are_remembered_for_a_short_time_and_for_one_identity() {
        let callers = Callers::default();
        let start = Instant::now();
        let find = |uid, now, groups: &[u32]| {
            callers.find(7, uid, 100, now, |_, _, _| groups.to_vec()).groups
        };
        assert_eq!(find(1000, start, &[4]), [4]);
        assert_eq!(find(1000, start + GROUPS_TTL / 2, &[5]), [4]);
        assert_eq!(find(1001, start + GROUPS_TTL / 2, &[6]), [6]);
        assert_eq!(find(1001, start + GROUPS_TTL * 2, &[7]), [7]);
    }

    #[test]
    fn the_memory_of_groups_is_bounded() {
        let callers = Callers::default();
        let now = Instant::now();
        for pid in 0..3 * GROUPS_KNOWN_MAX as u32 {
            callers.find(pid, 0, 0, now, |_, _, _| vec![1]);
        }
        assert!(lock(&callers.recent).len() <= GROUPS_KNOWN_MAX);
    }
}
