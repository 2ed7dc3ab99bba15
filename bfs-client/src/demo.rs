//! `bfs demo`: a whole group on this machine, real work on its mount, and one replica after the other compromised meanwhile.
//!
//! ```text
//! place.rs     where the files are               load.rs      what works there meanwhile, and how it keeps count
//! work.rs      programs, in a mount              unmounted.rs what is done where nothing can be mounted, on store.rs
//! attacks.rs   what is done to the group
//! series.rs    how much they got done           picture.rs   that, and the attacks, as SVG
//! record.rs    all of it on a terminal, kept    paint.rs     its lines in colour
//! control.rs   one attack on a server that is not replicated
//! broken.rs    --break-it: more attackers than the group bears
//! ```

mod attacks;
mod broken;
mod control;
mod load;
mod paint;
mod picture;
mod place;
mod record;
mod series;
mod store;
mod unmounted;
mod work;

use self::attacks::Attack;
use self::control::Control;
use self::load::{Checked, Load, Worked};
use self::place::{Place, Terms};
use self::series::Series;
use self::unmounted::BuiltIn;
use self::work::Work;
use crate::failure::{Exit, Failure, Outcome};
use crate::local_group::{LocalGroup, Plan, Programs};
use crate::mount;
use clap::Args;
use serde::Serialize;
use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use workloads::compile;
use workloads::errors::WorkError;
use workloads::progress::{Console, Lines};
use workloads::stop::Stop;
use workloads::timing::PhaseTime;
use workloads::tree::SourceTree;
use workloads::verify::Verification;

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
    /// Mount nothing: work through the client that is built in, as where there is no FUSE
    #[arg(long, env = "BFS_NO_MOUNT")]
    pub no_mount: bool,
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
/// How long an operation may take where nothing is mounted: longer than any view change.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the demo found. The field names are a stable interface.
#[derive(Debug, Serialize)]
struct Findings {
    group: String,
    replicas: usize,
    f: usize,
    /// Whether programs worked in a mount; else the built-in client did, and no program ran.
    mounted: bool,
    tree: String,
    copies: u32,
    /// How often the tree was copied, read and, in a mount, compiled; files and bytes of all runs.
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
            && self.work_held()
            && self.attacks.len() == attacks::COUNT
            && self.attacks.iter().all(Attack::held)
            && self.control.corrupted_reads > 0
            && self.health == "HEALTHY"
    }

    fn work_held(&self) -> bool {
        let programs =
            self.git_fsck == "ok" && self.sqlite == "ok" && self.compiled >= COMPILED_MIN;
        self.runs > 0 && (programs || !self.mounted)
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
        let mut options = vec!["--copies".into(), args.copies.to_string().into()];
        options.extend(args.no_mount.then(|| "--no-mount".into()));
        return record::run(dir, &options, &stop);
    }
    let unmounted = match args.no_mount {
        true => Some("--no-mount says so".into()),
        false => mount::check_device().err().map(|failure| match failure.advice {
            Some(advice) => format!("{} ({advice})", failure.message),
            None => failure.message,
        }),
    };
    let plan = Plan {
        programs: Programs::lab_beside_this()?,
        ..Plan::new(REPLICAS, F, &Stop::default())?
    };
    if unmounted.is_none() && !args.break_it {
        compile::check_tools().map_err(|error| cannot(error.to_string()))?;
        work::check_tools()?;
    }
    let tree = SourceTree::lua().map_err(|error| cannot(error.to_string()))?;
    let stop = Stop::on_signals().map_err(|error| cannot(error.to_string()))?;
    let plan = Plan { stop: stop.clone(), ..plan };
    let mut console = Console::new(Lines::Stdout, INDENT).painted(paint::paint);
    if let Some(path) = &args.text {
        let file = fs::File::create(path).map_err(|error| cannot(error.to_string()))?;
        console = console.copied_to(file);
    }
    let begun = Instant::now();
    let demo = Demo { args, plan, unmounted, tree: &tree, stop: &stop, console, begun };
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
    /// Why nothing is mounted, if so.
    unmounted: Option<String>,
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

    fn terms(&self) -> Terms {
        let mounted = self.unmounted.is_none();
        Terms { mounted, options: MOUNT_OPTIONS, patience: PATIENCE }
    }

    fn started(&self) -> Outcome<(LocalGroup, Place)> {
        let mut group = LocalGroup::start(&self.plan)?;
        self.step(1, "keys", format_args!("{REPLICAS} replicas and a client made their own keys   (f = {F}: any {F} of {REPLICAS} may be malicious)"));
        let ports: Vec<_> = (0..REPLICAS).map(|id| format!("r{id} :{}", group.port(id))).collect();
        self.step(2, "start", format_args!("{}   group {}", ports.join("  "), group.id()));
        let place = Place::open(&mut group, &self.terms())?;
        let (primary, view) = group.status()?.primary().unwrap_or_default();
        let (name, how) = match (&place, &self.unmounted) {
            (Place::Mount(mount), _) => ("mount", format!("{}   (fuse.bfs)", mount.display())),
            (Place::Session(_), why) => {
                let why = why.as_deref().unwrap_or_default();
                ("client", format!("the one built into bfs; nothing is mounted: {why}"))
            }
        };
        self.step(3, name, format_args!("{how} · view {view} · primary r{primary}"));
        Ok((group, place))
    }

    fn begin(&self, place: &Place) -> std::io::Result<Box<dyn Load + '_>> {
        let (tree, copies, stop) = (self.tree, self.args.copies, self.stop);
        Ok(match place {
            Place::Mount(mount) => {
                Box::new(Work::begin(tree, work::dir(mount), copies, stop)?) as Box<dyn Load>
            }
            Place::Session(_) => Box::new(BuiltIn::begin(tree, copies, place, stop)?),
        })
    }

    fn run(&self) -> Outcome<Exit> {
        let (mut group, place) = self.started()?;
        let begun = group.supervise(|| self.begin(&place), |_| {});
        let load = begun.map_err(|error| Failure::new("cannot work in the new group", error))?;
        let met = self.work(&mut group, &place, &*load)?;
        let anew = match place {
            Place::Mount(_) => "unmounted and mounted again, so that nothing comes from a cache",
            Place::Session(_) => "asked in a session of its own",
        };
        self.step(6, "checks", anew);
        let place = place.reopen(&mut group, &self.terms())?;
        let check = || load.check(&place, &met.worked, &self.console);
        let checked = group.supervise(check, |_| {});
        let mounted = self.unmounted.is_none();
        let control = control::run(&self.plan, mounted, self.tree, self.stop)?;
        let findings = self.findings(&group, met, &checked, control)?;
        self.verdict(&findings, &checked.verified);
        self.write_json(&findings)?;
        self.draw(&findings)?;
        if self.args.keep {
            self.hand_over(group, &place);
        }
        Ok(if findings.all_hold() { Exit::Fine } else { Exit::Failed })
    }

    /// The work goes on until every attack has been made.
    fn work(&self, group: &mut LocalGroup, place: &Place, load: &dyn Load) -> Outcome<Met> {
        self.step(4, "work", load.about());
        let mut watcher = place.watch(WATCH_PAUSE)?;
        self.step(5, "ATTACKS", "one at a time; the attacker is set up anew before the next one");
        let (mut attacks, over, begun) = (None, Stop::default(), Instant::now());
        let tally = load.tally();
        let completed = || tally.reads().0 + watcher.completed();
        let (worked, series) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| series::sample(begun, completed, &over));
            let worked = group.supervise(
                || load.run(place),
                |group| {
                    if attacks.is_none() {
                        let (watcher, console, stop) = (&watcher, &self.console, self.stop);
                        let mut scene =
                            attacks::Scene { group, place, tally, watcher, console, stop, begun };
                        attacks = Some(attacks::run(&mut scene, INDENT));
                        over.request();
                        load.finish();
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
            errors: tally.failures() + watcher.errors(),
            first_errors: [tally.first_errors(), watcher.first_errors()].concat(),
        })
    }

    fn findings(
        &self,
        group: &LocalGroup,
        met: Met,
        checked: &Checked,
        control: Control,
    ) -> Outcome<Findings> {
        let Met { worked, attacks, series, errors, first_errors } = met;
        let Checked { verified, git_fsck, sqlite } = checked;
        Ok(Findings {
            group: group.id().to_owned(),
            replicas: REPLICAS,
            f: F,
            mounted: self.unmounted.is_none(),
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
            git_fsck: git_fsck.clone(),
            sqlite: sqlite.clone(),
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
        if let Some(why) = &self.unmounted {
            self.console
                .note(&format!("nothing is mounted: {why}; the client built into bfs reads"));
        }
        let mounted = self.unmounted.is_none();
        let broken = broken::run(&self.plan, mounted, &self.console, INDENT, self.stop)?;
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

    fn hand_over(&self, group: LocalGroup, place: &Place) {
        let (bfs, dir) = (group.programs().bfs.display(), group.dir().display());
        let running: Vec<_> =
            group.pids().into_iter().flatten().map(|pid| pid.to_string()).collect();
        let (file, key) = (group.group_file(), group.key_dir());
        let (look, umount) = match place {
            Place::Mount(mount) => {
                let mount = mount.display();
                (format!("ls {mount}"), format!("{bfs} umount {mount} && "))
            }
            Place::Session(_) => {
                let (file, key) = (file.display(), key.display());
                (format!("{bfs} nfs {file} --key {key}"), String::new())
            }
        };
        self.console.note(&format!(
            "\nThe group keeps running. Try:\n\
             \x20 {look}\n\
             \x20 {bfs} top {file} --key {operator}\n\
             \x20 {bfs} drill {dir}/r2 --attack forged-files        # and without --attack to end it\n\
             To end it:\n\
             \x20 {umount}kill {running} && rm -r {dir}",
            file = file.display(),
            operator = group.operator_key().display(),
            running = running.join(" "),
        ));
        group.leave_running();
    }
}
