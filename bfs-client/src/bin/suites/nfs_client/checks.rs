//! What is checked, and how it is counted.

use super::stage::{Done, Stage};
use crate::nfs::daemon::tail;
use crate::nfs::guest::Who;
use crate::nfs::rpc;
use crate::nfs::work::large_directory::staying;
use crate::pjdfstest;
use anyhow::{Context, Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// One thing that must hold.
pub struct Check {
    pub name: &'static str,
    /// Who does it, one after the other.
    pub who: &'static [Who],
    /// The same, of a quick run.
    pub quick: &'static [Who],
    kind: Kind,
}

enum Kind {
    /// Steps of one guest.
    Steps(&'static [Step]),
    /// One guest lists a large directory, while another client changes it too.
    Listing,
    /// Two guests, at once.
    Pair,
    /// One guest works steadily, and something happens to the service.
    Steady(Fault),
    /// The tools of libnfs on this machine, and a guest that sees what they did.
    Libnfs,
}

/// A step of steps.sh, and whether it is the check's own user who does it.
enum Step {
    Own(&'static str),
    Root(&'static str),
}

#[derive(Clone, Copy)]
enum Fault {
    ProxyRestarts,
    BackupKilled,
    PrimaryKilled,
}

/// How a check went.
#[derive(Default)]
pub struct Outcome {
    pub passed: u64,
    pub failed: u64,
    pub note: String,
}

pub enum Verdict {
    Ran(Outcome),
    /// Why not.
    NotRun(String),
}

const BOTH: &[Who] = &[Who::Root, Who::User];
const ROOT: &[Who] = &[Who::Root];
const USER: &[Who] = &[Who::User];
const NOBODY: &[Who] = &[];
/// How many RPCs of the host's own client are on their way at once.
const DEPTH: usize = 16;

pub const CHECKS: &[Check] = &[
    Check {
        name: "Andrew-style work, digests compared",
        who: BOTH,
        quick: BOTH,
        kind: Kind::Steps(&[
            Step::Own("andrew_run"),
            Step::Root("remount"),
            Step::Own("andrew_verify"),
        ]),
    },
    // It acts as other users by itself.
    Check {
        name: "pjdfstest",
        who: ROOT,
        quick: NOBODY,
        kind: Kind::Steps(&[Step::Own("pjdfstest")]),
    },
    Check { name: "fsx", who: BOTH, quick: NOBODY, kind: Kind::Steps(&[Step::Own("fsx")]) },
    Check {
        name: "git clone, fsck, commit, gc",
        who: BOTH,
        quick: NOBODY,
        kind: Kind::Steps(&[Step::Own("git_keeps_a_repository")]),
    },
    Check {
        name: "SQLite, rollback journal, two processes",
        who: BOTH,
        quick: NOBODY,
        kind: Kind::Steps(&[Step::Own("sqlite_with_a_rollback_journal")]),
    },
    Check {
        name: "SQLite, write-ahead log, two processes",
        who: BOTH,
        quick: NOBODY,
        kind: Kind::Steps(&[Step::Own("sqlite_with_a_write_ahead_log")]),
    },
    Check {
        name: "nfs-cp, nfs-cat and nfs-ls of libnfs",
        who: BOTH,
        quick: BOTH,
        kind: Kind::Libnfs,
    },
    Check {
        name: "unlink of an open file",
        who: BOTH,
        quick: BOTH,
        kind: Kind::Steps(&[Step::Own("unlink_open")]),
    },
    Check {
        name: "a large directory listed while it changes",
        who: ROOT,
        quick: ROOT,
        kind: Kind::Listing,
    },
    Check { name: "two clients at once", who: ROOT, quick: NOBODY, kind: Kind::Pair },
    Check {
        name: "proxy killed and restarted",
        who: BOTH,
        quick: BOTH,
        kind: Kind::Steady(Fault::ProxyRestarts),
    },
    Check {
        name: "a backup killed",
        who: BOTH,
        quick: ROOT,
        kind: Kind::Steady(Fault::BackupKilled),
    },
    Check {
        name: "the primary killed",
        who: BOTH,
        quick: USER,
        kind: Kind::Steady(Fault::PrimaryKilled),
    },
];

/// Cases of pjdfstest that no NFSv3 mount can pass.
pub const NOT_APPLICABLE: [(&str, &str); 2] = [
    (
        "unlink::open_file_not_freed",
        "wants a link count of 0; an NFSv3 client renames an open file instead of removing it",
    ),
    ("utimensat::y2038", "wants the year 2106 and later; seconds are 32 bits (RFC 1813, nfstime3)"),
];

impl Check {
    /// Does it, as `who`.
    ///
    /// Errors: the guests or the service do not do what they should, so it has failed.
    pub fn run(&self, who: Who, stage: &mut Stage) -> Result<Verdict> {
        let outcome = match &self.kind {
            Kind::Steps(steps) => run_steps(steps, who, stage),
            Kind::Listing => listing(stage),
            Kind::Libnfs => super::libnfs::run(who, stage),
            Kind::Pair => pair(stage),
            Kind::Steady(fault) => match stage.has_group() {
                true => steady(*fault, who, stage),
                false => return Ok(Verdict::NotRun("only BFS has such parts".to_owned())),
            },
        };
        outcome.map(Verdict::Ran)
    }
}

impl Outcome {
    /// Counts what a step said: a suite's cases, or what it counted itself, or that it ended well.
    fn of(step: &str, done: &Done) -> Self {
        let (passed, failed, lines) = match step {
            "pjdfstest" => count_pjdfstest(&done.log),
            "fsx" => {
                let ended = |how: &str| {
                    let is_seed = |line: &&str| line.starts_with("seed ") && line.ends_with(how);
                    done.log.lines().filter(is_seed).count() as u64
                };
                (ended(" ok"), ended(" FAILED"), Vec::new())
            }
            _ => {
                let (passed, failed) = tally(&done.log).unwrap_or((u64::from(done.ok), 0));
                (passed, failed, Vec::new())
            }
        };
        // A suite that fails for its inapplicable cases only has not failed.
        let failed = match step {
            "pjdfstest" if passed > 0 => failed,
            _ if done.ok => failed,
            _ => failed.max(1),
        };
        let note = match failed {
            0 => lines.join("\n"),
            _ if lines.is_empty() => tail(done.log.as_bytes(), 12),
            _ => lines.join("\n"),
        };
        Self { passed, failed, note }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.say(&other.note);
    }

    fn say(&mut self, note: &str) {
        if !self.note.is_empty() && !note.is_empty() {
            self.note.push('\n');
        }
        self.note.push_str(note);
    }
}

/// The last line that says "N passed, M failed".
fn tally(log: &str) -> Option<(u64, u64)> {
    log.lines().rev().find_map(|line| {
        let (passed, rest) = line.split_once(" passed, ")?;
        let failed = rest.strip_suffix(" failed")?;
        Some((passed.parse().ok()?, failed.parse().ok()?))
    })
}

fn count_pjdfstest(log: &str) -> (u64, u64, Vec<String>) {
    let run = pjdfstest::judge(log, "", 0.0);
    let applies = |name: &&String| !NOT_APPLICABLE.iter().any(|(case, _)| case == name);
    let failures: Vec<_> = run.failures.iter().filter(applies).collect();
    let mut lines: Vec<_> = failures.iter().map(|name| pjdfstest::passage(log, name)).collect();
    let inapplicable = run.failures.len() - failures.len();
    lines.push(format!("{} skipped, {inapplicable} not applicable to NFSv3", run.skipped));
    (run.passed as u64, failures.len() as u64, lines)
}

fn run_steps(steps: &[Step], who: Who, stage: &mut Stage) -> Result<Outcome> {
    let mut all = Outcome { passed: 0, failed: 0, note: String::new() };
    for step in steps {
        let (step, who) = match step {
            Step::Own(step) => (*step, who),
            Step::Root(step) => (*step, Who::Root),
        };
        let done = stage.step(0, step, who, stage.scale.step_limit)?;
        all.add(Outcome::of(step, &done));
        if !done.ok {
            break;
        }
    }
    Ok(all)
}

/// The host fills the directory, with calls of its own, and changes it while the guest lists it.
fn listing(stage: &mut Stage) -> Result<Outcome> {
    // A guest that mounts makes the root what it should be.
    stage.guest(0)?;
    let names = stage.scale.staying;
    let mut other = rpc::Mounted::new(stage.endpoint())?;
    let root = other.root.clone();
    let large = other.mkdir(&root, "large")?;
    let made = (0..names).map(|i| rpc::create(&large, &staying(i)));
    other.run(made, DEPTH).context("cannot fill the directory")?;
    let ends = AtomicBool::new(false);
    let (done, changes) = thread::scope(|scope| {
        let changing = scope.spawn(|| -> Result<u64> {
            let mut changes = 0;
            while !ends.load(Ordering::Relaxed) {
                let name = format!("by-another-client-{changes}");
                other.run([rpc::create(&large, &name)], 1)?;
                other.run([rpc::remove(&large, &name)], 1)?;
                changes += 2;
            }
            let all = (0..names).map(|i| rpc::remove(&large, &staying(i)));
            other.run(all, DEPTH).context("cannot empty the directory")?;
            Ok(changes)
        });
        let done = stage.step(0, "list_while_it_changes", Who::Root, stage.scale.step_limit);
        ends.store(true, Ordering::Relaxed);
        (done, changing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let done = done?;
    let mut outcome = Outcome::of("list_while_it_changes", &done);
    let listings = done.log.lines().filter(|line| line.starts_with("listing "));
    listings.for_each(|line| outcome.say(line));
    outcome.say(&format!("{} changes by another client", changes?));
    Ok(outcome)
}

fn pair(stage: &mut Stage) -> Result<Outcome> {
    for side in 0..2 {
        stage.guest(side)?.tell("side", &side.to_string())?;
        let done = stage.step(side, "remount_uncached", Who::Root, stage.scale.step_limit)?;
        ensure!(done.ok, "guest {side} cannot mount: {}", done.log);
    }
    (0..2).try_for_each(|side| stage.guest(side)?.begin("pair", Who::Root))?;
    let mut all = Outcome { passed: 0, failed: 0, note: "two guests, actimeo=0".to_owned() };
    for side in 0..2 {
        let done = stage.end_of_step(side, stage.scale.step_limit)?;
        all.add(Outcome::of("pair", &done));
        let said = done.log.lines().filter(|line| line.ends_with(" there"));
        said.for_each(|line| all.say(line));
    }
    stage.end_guest(1);
    let done = stage.step(0, "remount", Who::Root, stage.scale.step_limit)?;
    ensure!(done.ok, "the guest cannot mount again: {}", done.log);
    Ok(all)
}

/// When in the guest's work something happens first.
const BEFORE_FAULT: Duration = Duration::from_secs(4);

fn steady(fault: Fault, who: Who, stage: &mut Stage) -> Result<Outcome> {
    stage.guest(0)?.begin("steady", who)?;
    stage.sleep(BEFORE_FAULT)?;
    let what = match fault {
        Fault::ProxyRestarts => {
            let times = stage.scale.proxy_restarts;
            for _ in 0..times {
                stage.restart_proxy(Duration::from_secs(1))?;
                stage.sleep(Duration::from_secs(3))?;
            }
            format!("killed {times} times")
        }
        Fault::BackupKilled => format!("r{} killed", stage.kill_replica(false)?),
        Fault::PrimaryKilled => format!("r{} killed", stage.kill_replica(true)?),
    };
    let done = stage.end_of_step(0, stage.scale.step_limit)?;
    let mut outcome = Outcome::of("steady", &done);
    outcome.say(&what);
    done.log.lines().filter(|line| line.starts_with("rounds ")).for_each(|line| outcome.say(line));
    if done.ok {
        let remounted = stage.step(0, "remount", Who::Root, stage.scale.step_limit)?;
        ensure!(remounted.ok, "the guest cannot mount again: {}", remounted.log);
        let verified = stage.step(0, "steady_verify", who, stage.scale.step_limit)?;
        outcome.add(Outcome::of("steady_verify", &verified));
    }
    stage.start_replicas()?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(ok: bool, log: &str) -> Done {
        Done { ok, log: log.to_owned() }
    }

    #[test]
    fn a_step_that_fails_without_a_word_has_failed_once() {
        let counts = |step, ok, log| {
            let outcome = Outcome::of(step, &done(ok, log));
            (outcome.passed, outcome.failed)
        };
        assert_eq!(counts("andrew_run", true, ""), (1, 0));
        assert_eq!(counts("andrew_run", false, "it broke"), (0, 1));
        assert_eq!(counts("pair", false, "FAILED: x\n7 passed, 2 failed\n"), (7, 2));
        assert_eq!(counts("pair", false, "7 passed, 0 failed\nKilled\n"), (7, 1));
        assert_eq!(counts("fsx", false, "seed 1 (plain) ok\nseed 2 (mapped) FAILED\n"), (1, 1));
    }

    #[test]
    fn only_what_no_mount_can_pass_is_excused() {
        let (excused, _) = NOT_APPLICABLE[0];
        let log =
            format!("a::b   ok\n{excused}  FAILED\n\tno\nc::d  FAILED\n\twhy\ne::f  skipped\n");
        let outcome = Outcome::of("pjdfstest", &done(false, &log));
        assert_eq!((outcome.passed, outcome.failed), (1, 1));
        assert!(
            outcome.note.contains("c::d") && outcome.note.contains("1 not applicable to NFSv3")
        );
        // One that ended before its first case.
        assert_eq!(Outcome::of("pjdfstest", &done(false, "cannot")).failed, 1);
    }
}
