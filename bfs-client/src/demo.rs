//! `bfs demo`: a whole group on this machine, real work on its mount, and one replica after the other compromised meanwhile.
//!
//! ```text
//! work.rs      what programs do all the time    attacks.rs   what is done to the group
//! series.rs    how much they got done           picture.rs   that, and the attacks, as SVG
//! record.rs    all of it on a terminal, kept    paint.rs     its lines in colour
//! control.rs   one attack on a server that is not replicated
//! broken.rs    --break-it: more attackers than the group bears
//! ```

mod attacks;
mod broken;
mod control;
mod paint;
mod picture;
mod record;
mod series;
mod work;

use self::attacks::Attack;
use self::control::Control;
use self::series::Series;
use self::work::{Work, Worked};
use crate::failure::{Exit, Failure, Outcome};
use crate::local_group::{LocalGroup, Plan, Programs};
use clap::Args;
use serde::Serialize;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use workloads::compile;
use workloads::errors::WorkError;
use workloads::progress::{Console, Lines};
use workloads::stall::StallWatcher;
use workloads::stop::Stop;
use workloads::timing::PhaseTime;
use workloads::tree::SourceTree;
use workloads::verify::{Verification, verify};

/// Arguments of `bfs demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Write what was found to this file, as one JSON object
    #[arg(long, value_name = "OUT", env = "BFS_JSON")]
    pub json: Option<PathBuf>,
    /// Leave the group running, and print the commands to try next
    #[arg(long, env = "BFS_KEEP", conflicts_with = "break_it")]
    pub keep: bool,
    /// How many copies of the source tree to work on
    #[arg(long, value_name = "N", default_value_t = 1, env = "BFS_COPIES", value_parser = clap::value_parser!(u32).range(1..=999))]
    pub copies: u32,
    /// Compromise more replicas than the group is built to bear, and show what fails then
    #[arg(long, env = "BFS_BREAK_IT")]
    pub break_it: bool,
    /// Draw the timeline to this file, as SVG
    #[arg(long, value_name = "OUT", env = "BFS_SVG", conflicts_with = "break_it")]
    pub svg: Option<PathBuf>,
    /// Run nothing: draw the timeline of the run whose JSON is in this file
    #[arg(long, value_name = "IN", env = "BFS_PICTURE", requires = "svg", conflicts_with_all = ["json", "keep", "break_it"])]
    pub picture: Option<PathBuf>,
    /// Keep what a terminal shows in this folder: as text, as an asciinema cast, as JSON and as a picture
    #[arg(long, value_name = "DIR", env = "BFS_RECORD", conflicts_with_all = ["json", "keep", "break_it", "svg"])]
    pub record: Option<PathBuf>,
    /// Write every line to this file too, without colours
    #[arg(long, value_name = "OUT", hide = true)]
    pub text: Option<PathBuf>,
}

const REPLICAS: usize = 4;
const F: usize = 1;
/// Fewer compiled files would be no real work.
const COMPILED_MIN: u64 = 60;
/// How long the watcher of stalls rests between two rounds.
const WATCH_PAUSE: Duration = Duration::from_millis(5);
/// How many errors are printed.
const ERRORS_SHOWN: usize = 5;
/// Every operation goes to the group, so that no cache of the kernel hides an attack.
const MOUNT_OPTIONS: &str = "strict";

/// What the demo found. The field names are a stable interface.
#[derive(Debug, Serialize)]
struct Findings {
    group: String,
    replicas: usize,
    f: usize,
    tree: String,
    copies: u32,
    /// How often the tree was copied, read and compiled; files and bytes of all runs.
    runs: u64,
    files: u64,
    bytes: u64,
    compiled: u64,
    /// Those of the last run.
    phases: Vec<PhaseTime>,
    commits: u64,
    rows: u64,
    total_seconds: f64,
    attacks: Vec<Attack>,
    series: Series,
    /// Operations that failed: of the work, of the watcher, and of the check at the end.
    errors: u64,
    first_errors: Vec<WorkError>,
    digests_match: bool,
    git_fsck: String,
    sqlite: String,
    control: Control,
    /// In the words of `bfs status`, at the end.
    health: String,
}

impl Findings {
    fn all_hold(&self) -> bool {
        self.errors == 0
            && self.digests_match
            && self.git_fsck == "ok"
            && self.sqlite == "ok"
            && self.compiled >= COMPILED_MIN
            && self.attacks.len() == attacks::COUNT
            && self.attacks.iter().all(Attack::held)
            && self.control.corrupted_reads > 0
            && self.health == "HEALTHY"
    }
}

/// Runs the demo; fine only if everything that it promises held. With `--break-it` the promise is evidence, exit code 5.
///
/// Errors: this machine cannot run it, or somebody stopped it. Nothing is left behind then.
pub fn run(args: &DemoArgs) -> Outcome<Exit> {
    let cannot = |why: String| Failure::new("cannot run the demo", why);
    if let (Some(from), Some(to)) = (&args.picture, &args.svg) {
        return picture::draw_file(from, to).map(|()| Exit::Fine);
    }
    if let Some(dir) = &args.record {
        let stop = Stop::on_signals().map_err(|error| cannot(error.to_string()))?;
        let copies = ["--copies".into(), args.copies.to_string().into()];
        return record::run(dir, &copies, &stop);
    }
    let plan = Plan {
        programs: Programs::lab_beside_this()?,
        ..Plan::new(REPLICAS, F, &Stop::default())?
    };
    compile::check_tools().map_err(|error| cannot(error.to_string()))?;
    work::check_tools()?;
    let tree = SourceTree::lua().map_err(|error| cannot(error.to_string()))?;
    let stop = Stop::on_signals().map_err(|error| cannot(error.to_string()))?;
    let plan = Plan { stop: stop.clone(), ..plan };
    let mut console = Console::new(Lines::Stdout, INDENT).painted(paint::paint);
    if let Some(path) = &args.text {
        let file = fs::File::create(path).map_err(|error| cannot(error.to_string()))?;
        console = console.copied_to(file);
    }
    let demo = Demo { args, plan, tree: &tree, stop: &stop, console, begun: Instant::now() };
    let result = if args.break_it { demo.break_it() } else { demo.run() };
    match result {
        Err(_) if stop.requested() => {
            let left = "its replicas, its mount and its folder are gone";
            Err(Failure::new("the demo was stopped", left))
        }
        result => result,
    }
}

/// Where the text of a step begins.
const INDENT: &str = "                ";

struct Demo<'a> {
    args: &'a DemoArgs,
    plan: Plan,
    tree: &'a SourceTree,
    stop: &'a Stop,
    console: Console,
    begun: Instant,
}

/// What came of the work and of the attacks on it.
struct Met {
    worked: Worked,
    attacks: Vec<Attack>,
    series: Series,
    errors: u64,
    first_errors: Vec<WorkError>,
}

impl Demo<'_> {
    fn step(&self, number: u32, name: &str, text: impl Display) {
        self.console.note(&format!("[{number}/6] {name:<9} {text}"));
    }

    fn started(&self) -> Outcome<(LocalGroup, PathBuf)> {
        let mut group = LocalGroup::start(&self.plan)?;
        self.step(1, "keys", format_args!("{REPLICAS} replicas and a client made their own keys   (f = {F}: any {F} of {REPLICAS} may be malicious)"));
        let ports: Vec<_> = (0..REPLICAS).map(|id| format!("r{id} :{}", group.port(id))).collect();
        self.step(2, "start", format_args!("{}   group {}", ports.join("  "), group.id()));
        let mount = group.dir().join("mnt");
        group.mount(&mount, MOUNT_OPTIONS)?;
        let (primary, view) = group.status()?.primary().unwrap_or_default();
        self.step(
            3,
            "mount",
            format_args!("{}   (fuse.bfs) · view {view} · primary r{primary}", mount.display()),
        );
        Ok((group, mount))
    }

    fn run(&self) -> Outcome<Exit> {
        let (mut group, mount) = self.started()?;
        let cannot = |error| Failure::new(format!("cannot work in {}", mount.display()), error);
        let begin = || Work::begin(self.tree, work::dir(&mount), self.args.copies, self.stop);
        let work = group.supervise(begin, |_| {}).map_err(cannot)?;
        let met = self.work(&mut group, &mount, &work)?;
        self.step(6, "checks", "unmounted and mounted again, so that nothing comes from a cache");
        group.unmount(&mount)?;
        group.mount(&mount, MOUNT_OPTIONS)?;
        let (verified, git, sqlite) = group.supervise(
            || {
                let last = &met.worked.last;
                let verified = verify(self.tree, last, self.args.copies, &self.console, self.stop);
                let git = work.check_git(met.worked.commits);
                (verified, git, work.check_sqlite(met.worked.rows))
            },
            |_| {},
        );
        let control = control::run(&self.plan, self.tree, self.stop)?;
        let findings = self.findings(&group, met, &verified, (git, sqlite), control)?;
        self.verdict(&findings, &verified);
        self.write_json(&findings)?;
        self.draw(&findings)?;
        if self.args.keep {
            self.hand_over(group, &mount);
        }
        Ok(if findings.all_hold() { Exit::Fine } else { Exit::Failed })
    }

    /// Programs work in the mount until every attack has been made.
    fn work(&self, group: &mut LocalGroup, mount: &Path, work: &Work<'_>) -> Outcome<Met> {
        let cannot = |error| Failure::new(format!("cannot work in {}", mount.display()), error);
        self.step(
            4,
            "work",
            format_args!(
                "all the time: {} files copied, read and compiled, a git repository, an SQLite database",
                self.tree.files().len() * self.args.copies as usize
            ),
        );
        let mut watcher = StallWatcher::start(mount, WATCH_PAUSE).map_err(cannot)?;
        self.step(5, "ATTACKS", "one at a time; the attacker is set up anew before the next one");
        let (mut attacks, over, begun) = (None, Stop::default(), Instant::now());
        let completed = || work.reads().0 + watcher.completed();
        let (worked, series) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| series::sample(begun, completed, &over));
            let worked = group.supervise(
                || work.run(),
                |group| {
                    if attacks.is_none() {
                        let (watcher, console, stop) = (&watcher, &self.console, self.stop);
                        let mut scene =
                            attacks::Scene { group, work, watcher, console, stop, begun };
                        attacks = Some(attacks::run(&mut scene, INDENT));
                        over.request();
                        work.finish();
                    }
                },
            );
            over.request();
            (worked, sampler.join().unwrap_or_default())
        });
        group.supervise(|| watcher.end(), |_| {});
        Ok(Met {
            worked,
            series,
            attacks: attacks.unwrap_or_else(|| Ok(Vec::new()))?,
            errors: work.errors() + watcher.errors(),
            first_errors: [work.first_errors(), watcher.first_errors()].concat(),
        })
    }

    fn findings(
        &self,
        group: &LocalGroup,
        met: Met,
        verified: &Verification,
        (git_fsck, sqlite): (String, String),
        control: Control,
    ) -> Outcome<Findings> {
        let Met { worked, attacks, series, errors, first_errors } = met;
        Ok(Findings {
            group: group.id().to_owned(),
            replicas: REPLICAS,
            f: F,
            tree: self.tree.name().to_owned(),
            copies: self.args.copies,
            runs: worked.runs,
            files: worked.files,
            bytes: worked.bytes,
            compiled: worked.compiled,
            phases: worked.phases,
            commits: worked.commits,
            rows: worked.rows,
            total_seconds: self.begun.elapsed().as_secs_f64(),
            attacks,
            series,
            errors: errors + verified.errors,
            first_errors: [first_errors, verified.first_errors.clone()].concat(),
            digests_match: verified.all_match(),
            git_fsck,
            sqlite,
            control,
            health: group.status()?.health,
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
        let attacks = &findings.attacks;
        let stall = attacks.iter().map(|attack| attack.longest_stall_ms).fold(0.0, f64::max);
        let sum = |count: fn(&Attack) -> u64| attacks.iter().map(count).sum::<u64>();
        self.console.note(&format!(
            "{INDENT}{digests} · git fsck {} ({} commits) · SQLite {} ({} rows)",
            findings.git_fsck, findings.commits, findings.sqlite, findings.rows
        ));
        self.console.note(&format!(
            "      verdict   {} attacks: {} forged replies outvoted · {} client errors · {} wrong reads of {} · longest stall {stall:.0} ms · {} view changes · {}",
            attacks.len(),
            sum(|attack| attack.outvoted),
            findings.errors,
            sum(|attack| attack.wrong_reads),
            sum(|attack| attack.reads),
            sum(|attack| attack.view_changes),
            findings.health
        ));
        let control = &findings.control;
        self.console.note(&format!(
            "      control   {} on one unreplicated server: {} of {} reads corrupted, without any error; {} files with forged permissions",
            control.attack, control.corrupted_reads, control.reads, control.forged_attributes
        ));
        for error in findings.first_errors.iter().take(ERRORS_SHOWN) {
            self.console.note(&format!("{INDENT}{error}"));
        }
        if !findings.all_hold() {
            self.console.note(&format!("{INDENT}NOT everything held"));
        }
    }

    fn break_it(&self) -> Outcome<Exit> {
        let faulty = F + 1;
        self.console.note(&format!(
            "{faulty} of {REPLICAS} replicas attack together; the group is built to bear f = {F}"
        ));
        let broken = broken::run(&self.plan, &self.console, INDENT, self.stop)?;
        self.console.note(&format!(
            "verdict         {} reads right, {} failed, {} wrong · alarms: {}, with their evidence in the logs",
            broken.good_reads,
            broken.failed_reads,
            broken.wrong_reads,
            broken.alarms.len()
        ));
        self.write_json(&broken)?;
        Ok(if broken.was_honest() { Exit::Byzantine } else { Exit::Failed })
    }

    fn write_json(&self, found: &impl Serialize) -> Outcome {
        let Some(path) = &self.args.json else { return Ok(()) };
        let cannot =
            |error: &dyn Display| Failure::new(format!("cannot write {}", path.display()), error);
        let text = serde_json::to_string(found).map_err(|error| cannot(&error))?;
        fs::write(path, text + "\n").map_err(|error| cannot(&error))
    }

    /// The picture of the very JSON that was, or would be, written.
    fn draw(&self, findings: &Findings) -> Outcome {
        let Some(path) = &self.args.svg else { return Ok(()) };
        let cannot =
            |error: &dyn Display| Failure::new(format!("cannot write {}", path.display()), error);
        let json = serde_json::to_value(findings).map_err(|error| cannot(&error))?;
        let timeline = serde_json::from_value(json).map_err(|error| cannot(&error))?;
        fs::write(path, picture::draw(&timeline)).map_err(|error| cannot(&error))
    }

    fn hand_over(&self, group: LocalGroup, mount: &Path) {
        let (bfs, dir) = (group.programs().bfs.display(), group.dir().display());
        let running: Vec<_> =
            group.pids().into_iter().flatten().map(|pid| pid.to_string()).collect();
        let file = group.group_file();
        self.console.note(&format!(
            "\nThe group keeps running. Try:\n\
             \x20 ls {mount}\n\
             \x20 {bfs} top {file} --key {operator}\n\
             \x20 {bfs} drill {dir}/r2 --attack forged-files        # and without --attack to end it\n\
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
