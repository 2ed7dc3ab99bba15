//! `bfs demo`: a whole group on this machine, real work on its mount, and a replica that dies in the middle of it.

use crate::failure::{Exit, Failure, Outcome};
use crate::local_group::{LocalGroup, Plan};
use clap::Args;
use serde::Serialize;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use workloads::andrew::{self, Options, Phase, PhaseTime, Report};
use workloads::compile;
use workloads::errors::WorkError;
use workloads::progress::{Console, Lines, Progress};
use workloads::stall::{StallWatcher, Window};
use workloads::stop::Stop;
use workloads::tree::SourceTree;
use workloads::verify::{Verification, verify};

/// Arguments of `bfs demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Write what was found to this file, as one JSON object
    #[arg(long, value_name = "OUT", env = "BFS_JSON")]
    pub json: Option<PathBuf>,
    /// Leave the group running, and print the commands to try next
    #[arg(long, env = "BFS_KEEP")]
    pub keep: bool,
    /// How many copies of the source tree to work on
    #[arg(long, value_name = "N", default_value_t = 1, env = "BFS_COPIES", value_parser = clap::value_parser!(u32).range(1..=999))]
    pub copies: u32,
}

const REPLICAS: usize = 4;
const F: usize = 1;
/// The backup that is killed, unless it is the primary.
const VICTIM: usize = 2;
/// Fewer compiled files would be no real work.
const COMPILED_MIN: u64 = 60;
/// How long the watcher of stalls rests between two rounds.
const WATCH_PAUSE: Duration = Duration::from_millis(5);
/// How many errors are printed.
const ERRORS_SHOWN: usize = 5;

/// What the demo found. The field names are a stable interface.
#[derive(Debug, Serialize)]
struct Findings {
    group: String,
    replicas: usize,
    f: usize,
    tree: String,
    copies: u32,
    files: u64,
    bytes: u64,
    compiled: u64,
    phases: Vec<PhaseTime>,
    total_seconds: f64,
    /// Operations that failed: of the work, of the watcher, and of the check at the end.
    errors: u64,
    first_errors: Vec<WorkError>,
    digests_match: bool,
    faults: Vec<Fault>,
    /// In the words of `bfs status`, at the end.
    health: String,
}

/// One fault and what became of it.
#[derive(Debug, Serialize)]
struct Fault {
    kind: &'static str,
    replica: usize,
    /// How much was compiled when it happened.
    compiled_before: u64,
    /// Whether the work went on without an error.
    survived: bool,
    /// The longest time, from the fault to the end of the work, in which no small file could be created, synced and removed.
    longest_stall_ms: f64,
}

impl Findings {
    fn all_hold(&self) -> bool {
        self.errors == 0
            && self.digests_match
            && self.compiled >= COMPILED_MIN
            && !self.faults.is_empty()
            && self.faults.iter().all(|fault| fault.survived)
    }
}

/// Runs the demo; fine only if everything that it promises held.
///
/// Errors: this machine cannot run it, or somebody stopped it. Nothing is left behind then.
pub fn run(args: &DemoArgs) -> Outcome<Exit> {
    let cannot = |why: String| Failure::new("cannot run the demo", why);
    compile::check_tools().map_err(|error| cannot(error.to_string()))?;
    let tree = SourceTree::lua().map_err(|error| cannot(error.to_string()))?;
    let stop = Stop::on_signals().map_err(|error| cannot(error.to_string()))?;
    let console = Console::new(Lines::Stdout, INDENT);
    let findings = match (Demo { args, tree: &tree, stop: &stop, console }).run() {
        Err(_) if stop.requested() => {
            let left = "its replicas, its mount and its folder are gone";
            return Err(Failure::new("the demo was stopped", left));
        }
        result => result?,
    };
    if let Some(path) = &args.json {
        let text = serde_json::to_string(&findings).map_err(|error| cannot(error.to_string()))?;
        fs::write(path, text + "\n")
            .map_err(|error| Failure::new(format!("cannot write {}", path.display()), error))?;
    }
    Ok(if findings.all_hold() { Exit::Fine } else { Exit::Failed })
}

/// Where the text of a step begins.
const INDENT: &str = "                ";

struct Demo<'a> {
    args: &'a DemoArgs,
    tree: &'a SourceTree,
    stop: &'a Stop,
    console: Console,
}

/// What came of the work.
struct Worked {
    report: Report,
    fault: Option<Fault>,
    watched: Vec<WorkError>,
    watch_errors: u64,
}

impl Demo<'_> {
    fn step(&self, number: u32, name: &str, text: impl Display) {
        self.console.note(&format!("[{number}/6] {name:<9} {text}"));
    }

    fn run(&self) -> Outcome<Findings> {
        let mut group = LocalGroup::start(&Plan::new(REPLICAS, F, self.stop)?)?;
        self.step(1, "keys", format_args!("{REPLICAS} replicas and a client made their own keys   (f = {F}: any {F} of {REPLICAS} may be faulty)"));
        let ports: Vec<_> = (0..REPLICAS).map(|id| format!("r{id} :{}", group.port(id))).collect();
        self.step(2, "start", format_args!("{}   group {}", ports.join("  "), group.id()));
        let mount = group.dir().join("mnt");
        group.mount(&mount, "")?;
        let (primary, view) = group.status()?.primary().unwrap_or_default();
        self.step(
            3,
            "mount",
            format_args!("{}   (fuse.bfs) · view {view} · primary r{primary}", mount.display()),
        );
        let victim = if primary == VICTIM { VICTIM + 1 } else { VICTIM };
        let worked = self.work(&mut group, &mount, victim)?;
        group.unmount(&mount)?;
        group.mount(&mount, "")?;
        let verified = group.supervise(
            || verify(self.tree, &work_dir(&mount), self.args.copies, &self.console, self.stop),
            |_| {},
        );
        let findings = self.findings(&mut group, worked, &verified)?;
        self.verdict(&findings, &verified);
        if self.args.keep {
            self.hand_over(group, &mount, victim);
        }
        Ok(findings)
    }

    /// The benchmark in the mount; a backup is killed once a third is compiled.
    fn work(&self, group: &mut LocalGroup, mount: &Path, victim: usize) -> Outcome<Worked> {
        let dir = work_dir(mount);
        let cannot = |error| Failure::new(format!("cannot work in {}", mount.display()), error);
        fs::create_dir(&dir).map_err(cannot)?;
        let files = self.tree.files().len() as u64 * u64::from(self.args.copies);
        self.step(
            4,
            "work",
            format_args!(
                "{} × {}: {files} files, copied, read and compiled",
                self.args.copies,
                self.tree.name()
            ),
        );
        let mut watcher = StallWatcher::start(mount, WATCH_PAUSE).map_err(cannot)?;
        let options = Options { copies: self.args.copies, ..Options::default() };
        let progress = Compiled { console: &self.console, done: AtomicU64::new(0) };
        let third = self.tree.units().count() as u64 * u64::from(self.args.copies) / 3;
        let mut killed = None;
        let report = group.supervise(
            || andrew::run(self.tree, &dir, options, &progress, self.stop),
            |group| {
                let done = progress.done.load(Ordering::Relaxed);
                if killed.is_none() && done >= third {
                    watcher.next_window();
                    killed = Some((done, group.kill(victim)));
                    self.step(
                        5,
                        "fault",
                        format_args!(
                            "r{victim}, a backup, killed with SIGKILL after {done} compilations"
                        ),
                    );
                }
            },
        );
        let window = watcher.next_window();
        group.supervise(|| watcher.end(), |_| {});
        let fault = match killed {
            Some((done, result)) => {
                result?;
                Some(fault(victim, done, &report, &watcher, window))
            }
            None => None,
        };
        Ok(Worked {
            report,
            fault,
            watched: watcher.first_errors(),
            watch_errors: watcher.errors(),
        })
    }

    fn findings(
        &self,
        group: &mut LocalGroup,
        worked: Worked,
        verified: &Verification,
    ) -> Outcome<Findings> {
        let Worked { report, fault, watched, watch_errors } = worked;
        let first_errors = [report.first_errors, watched, verified.first_errors.clone()].concat();
        let health = group.status()?.health;
        let mut faults: Vec<_> = fault.into_iter().collect();
        for fault in &mut faults {
            // Those that were not killed must have borne it too.
            fault.survived &= (0..REPLICAS).all(|id| id == fault.replica || group.is_running(id));
        }
        Ok(Findings {
            group: group.id().to_owned(),
            replicas: REPLICAS,
            f: F,
            tree: report.tree,
            copies: report.copies,
            files: report.files,
            bytes: report.bytes,
            compiled: report.compiled,
            phases: report.phases,
            total_seconds: report.total_seconds,
            errors: report.errors + watch_errors + verified.errors,
            first_errors,
            digests_match: verified.all_match(),
            faults,
            health,
        })
    }

    fn verdict(&self, findings: &Findings, verified: &Verification) {
        let digests = match findings.digests_match {
            true => format!("{} files: digests equal the source's", verified.files),
            false => format!(
                "only {} of {} files have the digest of their source",
                verified.matching, verified.files
            ),
        };
        let stall = findings.faults.iter().map(|fault| fault.longest_stall_ms).fold(0.0, f64::max);
        self.step(6, "verdict", format_args!(
            "after unmounting and mounting again, {digests}\n{INDENT}{} compiled · {} errors · longest stall {stall:.0} ms · {}",
            findings.compiled, findings.errors, findings.health
        ));
        for error in findings.first_errors.iter().take(ERRORS_SHOWN) {
            self.console.note(&format!("{INDENT}{error}"));
        }
        if !findings.all_hold() {
            self.console.note(&format!("{INDENT}NOT everything held"));
        }
    }

    fn hand_over(&self, group: LocalGroup, mount: &Path, victim: usize) {
        let (bfs, dir) = (group.programs().bfs.display(), group.dir().display());
        let running: Vec<_> =
            group.pids().into_iter().flatten().map(|pid| pid.to_string()).collect();
        let replica = group.programs().replica.display();
        let file = group.group_file();
        self.console.note(&format!(
            "\nThe group keeps running. Try:\n\
             \x20 ls {mount}\n\
             \x20 {bfs} status {file} --key {operator}\n\
             \x20 {replica} run {dir}/r{victim} --group {file}        # starts r{victim} again\n\
             To end it:\n\
             \x20 {bfs} umount {mount} && kill {running} && rm -r {dir}",
            mount = mount.display(),
            file = file.display(),
            operator = group.operator_key().display(),
            running = running.join(" "),
        ));
        group.leave_running();
    }
}

fn fault(
    victim: usize,
    done: u64,
    report: &Report,
    watcher: &StallWatcher,
    window: Window,
) -> Fault {
    Fault {
        kind: "kill-backup",
        replica: victim,
        compiled_before: done,
        survived: report.errors == 0
            && watcher.errors() == 0
            && report.compiled > done
            && window.completions > 0,
        longest_stall_ms: window.longest.as_secs_f64() * 1000.0,
    }
}

/// The work has a folder of its own, so that the watcher's file is not in its way.
fn work_dir(mount: &Path) -> PathBuf {
    mount.join("work")
}

/// Shows progress, and counts what the compile phase has done.
struct Compiled<'a> {
    console: &'a Console,
    done: AtomicU64,
}

impl Progress for Compiled<'_> {
    fn begin(&self, what: &'static str, items: u64) {
        self.console.begin(what, items);
    }

    fn advance(&self, what: &'static str) {
        self.console.advance(what);
        if what == Phase::Compile.name() {
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn end(&self, what: &'static str, items: u64, time: Duration) {
        self.console.end(what, items, time);
    }
}
