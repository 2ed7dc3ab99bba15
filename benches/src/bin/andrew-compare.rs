//! `andrew-compare`: the Andrew-style benchmark side by side on memory of this machine, on a group of four replicas, and on
//! one replica of the same code. Rounds are interleaved, so that whatever else this machine does meets all targets alike.

use anyhow::{Context, Result, bail};
use bfs_client::local_group::{LocalGroup, Plan};
use bft_net::group::Group;
use clap::Parser;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use workloads::andrew::{self, Options, Phase, Report};
use workloads::compile;
use workloads::latency::{self, Latency, Percentiles};
use workloads::progress::{Console, Lines};
use workloads::stop::Stop;
use workloads::tree::SourceTree;
use workloads::verify::verify;

/// The Andrew-style benchmark on native memory, on BFS, and on BFS without replication
#[derive(Parser)]
#[command(name = "andrew-compare", version)]
struct Arguments {
    /// How many copies of the source tree to work on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=999))]
    copies: u32,
    /// How often each target does the whole work
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many compilers run at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// How often each single operation is done to learn its latency
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    operations: u32,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

const NATIVE: &str = "native";
const BFS: &str = "bfs";
const UNREPLICATED: &str = "bfs-unreplicated";
/// Where files are kept in memory without any server.
const MEMORY: &str = "/dev/shm";
/// How many of a run's errors are shown.
const ERRORS_SHOWN: usize = 5;

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("andrew-compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every target did all its work without an error.
fn compare(arguments: &Arguments) -> Result<bool> {
    compile::check_tools()?;
    let tree = SourceTree::lua()?;
    let stop = Stop::on_signals().context("cannot wait for signals")?;
    let bench =
        Bench { arguments, tree: &tree, stop: &stop, console: Console::new(Lines::Stderr, "  ") };
    let figures = bench.figures()?;
    print_table(&figures);
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(figures.targets.iter().all(TargetFigures::is_sound))
}

/// Where the work is done. Dropping it takes everything away.
enum Place {
    Folder(PathBuf),
    Group { group: Box<LocalGroup>, mount: PathBuf },
}

impl Place {
    fn folder() -> Result<Self> {
        let path = Path::new(MEMORY).join(format!("andrew-compare-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self::Folder(path))
    }

    fn group(n: usize, f: usize, stop: &Stop) -> Result<Self> {
        let mut group = Box::new(LocalGroup::start(&Plan::new(n, f, stop)?)?);
        let mount = group.dir().join("mnt");
        group.mount(&mount, "")?;
        Ok(Self::Group { group, mount })
    }

    /// Does `work` in the place's directory. Work that waits for a group in vain ends when somebody asks to stop.
    fn work<T: Send>(&mut self, work: impl FnOnce(&Path) -> T + Send) -> T {
        match self {
            Self::Folder(path) => work(path),
            Self::Group { group, mount } => group.supervise(|| work(mount), |_| {}),
        }
    }

    /// Takes what the kernel has cached out of the way, where there is a mount.
    fn mount_again(&mut self) -> Result<()> {
        if let Self::Group { group, mount } = self {
            group.unmount(mount)?;
            group.mount(mount, "")?;
        }
        Ok(())
    }

    /// What the replicas hold, beside what the group file lets their file systems take.
    fn memory(&self) -> Result<Option<Memory>> {
        let Self::Group { group, .. } = self else { return Ok(None) };
        let budget = Group::load(&group.group_file())?.memory;
        let replicas = (0..group.pids().len()).map(|id| group.resident_bytes(id).map(mebibytes));
        let within_budget =
            replicas.clone().all(|mib| mib.is_some_and(|mib| mib <= mebibytes(budget)));
        Ok(Some(Memory {
            replicas_mib: replicas.collect(),
            budget_mib: mebibytes(budget),
            within_budget,
        }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A group takes itself away.
        if let Self::Folder(path) = self
            && let Err(error) = fs::remove_dir_all(&path)
        {
            eprintln!("andrew-compare: cannot remove {}: {error}", path.display());
        }
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// One of the things compared, and what it has done so far.
struct Target {
    name: &'static str,
    /// Nothing once it has failed.
    place: Option<Place>,
    not_run: Option<String>,
    reports: Vec<Report>,
    digests_match: Option<bool>,
    latency: Option<Latency>,
    memory: Option<Memory>,
}

impl Target {
    fn new(name: &'static str, place: Result<Place>) -> Self {
        let (reports, digests_match, latency, memory) = (Vec::new(), None, None, None);
        let mut target =
            Self { name, place: None, not_run: None, reports, digests_match, latency, memory };
        match place {
            Ok(place) => target.place = Some(place),
            Err(error) => target.give_up(&error),
        }
        target
    }

    /// Takes the target out of the comparison; the others go on.
    fn give_up(&mut self, error: &anyhow::Error) {
        self.not_run = Some(format!("{error:#}"));
        self.place = None;
    }

    /// Does `step` if the target still runs.
    fn step(&mut self, step: impl FnOnce(&mut Self, &mut Place) -> Result<()>) {
        let Some(mut place) = self.place.take() else { return };
        match step(self, &mut place) {
            Ok(()) => self.place = Some(place),
            Err(error) => self.give_up(&error),
        }
    }
}

struct Bench<'a> {
    arguments: &'a Arguments,
    tree: &'a SourceTree,
    stop: &'a Stop,
    console: Console,
}

impl Bench<'_> {
    fn figures(&self) -> Result<Figures> {
        let mut targets = Vec::new();
        let places: [(&str, &dyn Fn() -> Result<Place>); 3] = [
            (NATIVE, &Place::folder),
            (BFS, &|| Place::group(4, 1, self.stop)),
            (UNREPLICATED, &|| Place::group(1, 0, self.stop)),
        ];
        for (name, place) in places {
            let target = Target::new(name, place());
            self.go_on()?;
            if let Some(why) = &target.not_run {
                self.console.note(&format!("{name}: not run: {why}"));
            }
            targets.push(target);
        }
        for round in 1..=self.arguments.rounds {
            for target in &mut targets {
                target.step(|target, place| self.round(target, place, round));
                self.go_on()?;
            }
        }
        for target in &mut targets {
            target.step(|target, place| {
                self.console.note(&format!("{}: latency of single operations", target.name));
                let operations = self.arguments.operations as usize;
                target.latency =
                    Some(place.work(|dir| latency::measure(dir, operations, self.stop))?);
                Ok(())
            });
            self.go_on()?;
        }
        Ok(self.summary(&targets))
    }

    fn go_on(&self) -> Result<()> {
        match self.stop.requested() {
            true => bail!("stopped; all replicas, mounts and folders are gone"),
            false => Ok(()),
        }
    }

    /// The whole work once, in a folder of its own that is gone afterwards.
    fn round(&self, target: &mut Target, place: &mut Place, round: u32) -> Result<()> {
        self.console.note(&format!("{}: round {round} of {}", target.name, self.arguments.rounds));
        let Arguments { copies, jobs, .. } = *self.arguments;
        let folder = format!("round-{round}");
        let report = place.work(|dir| -> Result<Report> {
            let dir = dir.join(&folder);
            fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            let options = Options { copies, jobs: jobs as usize, ..Options::default() };
            Ok(andrew::run(self.tree, &dir, options, &self.console, self.stop))
        })?;
        for error in report.first_errors.iter().take(ERRORS_SHOWN) {
            self.console.note(&format!("{}: {error}", target.name));
        }
        target.reports.push(report);
        // While the replicas still hold all the files.
        target.memory = place.memory()?;
        if round == self.arguments.rounds {
            place.mount_again()?;
            let verified = place.work(|dir| {
                verify(self.tree, &dir.join(&folder), copies, &self.console, self.stop)
            });
            target.digests_match = Some(verified.all_match());
        }
        place.work(|dir| {
            let dir = dir.join(&folder);
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
        })
    }

    fn summary(&self, targets: &[Target]) -> Figures {
        let copies = u64::from(self.arguments.copies);
        let targets: Vec<_> = targets.iter().map(TargetFigures::of).collect();
        Figures {
            tree: self.tree.name().to_owned(),
            copies: self.arguments.copies,
            rounds: self.arguments.rounds,
            files: self.tree.files().len() as u64 * copies,
            bytes: self.tree.bytes() * copies,
            bfs_over_unreplicated: Ratios::of(&targets, BFS, UNREPLICATED),
            bfs_over_native: Ratios::of(&targets, BFS, NATIVE),
            targets,
        }
    }
}

/// Everything that was found. The field names are a stable interface.
#[derive(Serialize)]
struct Figures {
    tree: String,
    copies: u32,
    rounds: u32,
    /// Files of all copies.
    files: u64,
    /// Their size.
    bytes: u64,
    targets: Vec<TargetFigures>,
    /// Nothing where one of the two did not run.
    bfs_over_unreplicated: Option<Ratios>,
    bfs_over_native: Option<Ratios>,
}

#[derive(Serialize)]
struct TargetFigures {
    name: &'static str,
    /// Why it did not run to its end; nothing if it did.
    not_run: Option<String>,
    rounds_done: usize,
    /// C files compiled in each round.
    compiled: Vec<u64>,
    /// Operations and compilers that failed, in all rounds.
    errors: u64,
    /// Whether the files of the last round, mounted again, had their sources' digests.
    digests_match: Option<bool>,
    /// Nothing if not even one round was done.
    total_seconds: Option<Seconds>,
    phases: Vec<PhaseSeconds>,
    latency: Option<Latency>,
    memory: Option<Memory>,
}

#[derive(Serialize)]
struct PhaseSeconds {
    name: &'static str,
    #[serde(flatten)]
    seconds: Seconds,
}

/// Of all rounds.
#[derive(Clone, Copy, Serialize)]
struct Seconds {
    median: f64,
    min: f64,
}

/// The physical memory of each replica by id at the end of the last round's work, nothing for one that ended, and what its
/// file system may take. Units: MiB.
#[derive(Clone, Serialize)]
struct Memory {
    replicas_mib: Vec<Option<f64>>,
    budget_mib: f64,
    within_budget: bool,
}

/// How many times as long one target took as another.
#[derive(Serialize)]
struct Ratios {
    total: Ratio,
    phases: Vec<PhaseRatio>,
}

/// Of the medians, and of the minima.
#[derive(Clone, Copy, Serialize)]
struct Ratio {
    median: f64,
    min: f64,
}

#[derive(Serialize)]
struct PhaseRatio {
    name: &'static str,
    #[serde(flatten)]
    ratio: Ratio,
}

impl Seconds {
    fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_unstable_by(f64::total_cmp);
        let middle = seconds.len() / 2;
        let upper = *seconds.get(middle)?;
        let lower = if seconds.len().is_multiple_of(2) { seconds[middle - 1] } else { upper };
        Some(Self { median: (lower + upper) / 2.0, min: seconds[0] })
    }
}

impl TargetFigures {
    /// Whether it ran to its end without an error and kept what was written.
    fn is_sound(&self) -> bool {
        self.not_run.is_none() && self.errors == 0 && self.digests_match == Some(true)
    }

    fn of(target: &Target) -> Self {
        let reports = &target.reports;
        let phase = |phase: Phase| {
            let times = reports.iter().flat_map(|report| &report.phases);
            let own = times.filter(|time| time.name == phase.name()).map(|time| time.seconds);
            Some(PhaseSeconds { name: phase.name(), seconds: Seconds::of(own.collect())? })
        };
        Self {
            name: target.name,
            not_run: target.not_run.clone(),
            rounds_done: reports.len(),
            compiled: reports.iter().map(|report| report.compiled).collect(),
            errors: reports.iter().map(|report| report.errors).sum(),
            digests_match: target.digests_match,
            total_seconds: Seconds::of(reports.iter().map(|report| report.total_seconds).collect()),
            phases: Phase::ALL.into_iter().filter_map(phase).collect(),
            latency: target.latency,
            memory: target.memory.clone(),
        }
    }
}

impl Ratio {
    fn of(over: Seconds, under: Seconds) -> Self {
        Self { median: over.median / under.median, min: over.min / under.min }
    }
}

impl Ratios {
    fn of(targets: &[TargetFigures], over: &str, under: &str) -> Option<Self> {
        // A target that gave up half-way is no measure of another.
        let find = |name: &str| {
            targets.iter().find(|target| target.name == name && target.not_run.is_none())
        };
        let (over, under) = (find(over)?, find(under)?);
        let phases = over.phases.iter().zip(&under.phases).map(|(over, under)| PhaseRatio {
            name: over.name,
            ratio: Ratio::of(over.seconds, under.seconds),
        });
        let total = Ratio::of(over.total_seconds?, under.total_seconds?);
        Some(Self { total, phases: phases.collect() })
    }
}

fn print_table(figures: &Figures) {
    let Figures { tree, copies, rounds, files, bytes, targets, .. } = figures;
    let megabytes = *bytes as f64 / 1e6;
    println!(
        "{tree} × {copies}: {files} files, {megabytes:.1} MB; {rounds} rounds; seconds: median (min)\n"
    );
    let row = |name: &str, cell: &dyn Fn(&TargetFigures) -> String| {
        let cells: String = targets.iter().map(|target| format!("{:>22}", cell(target))).collect();
        println!("{name:<20}{cells}");
    };
    row("", &|target| target.name.to_owned());
    for phase in Phase::ALL.map(Phase::name) {
        let of_phase = |target: &TargetFigures| {
            target.phases.iter().find(|own| own.name == phase).map(|own| own.seconds)
        };
        row(phase, &|target| show_seconds(of_phase(target)));
    }
    row("total", &|target| show_seconds(target.total_seconds));
    row("errors", &|target| target.errors.to_string());
    row("digests match", &|target| match target.digests_match {
        Some(true) => "yes".into(),
        Some(false) => "NO".into(),
        None => "-".into(),
    });
    println!("\n{:<20}µs: p50 / p99", "");
    let operation = |name: &str, of: &dyn Fn(&Latency) -> Percentiles| {
        row(name, &|target| show_latency(target.latency.as_ref().map(of)));
    };
    operation("stat", &|latency| latency.stat);
    operation("create, close", &|latency| latency.create);
    operation("write 4 KiB, fsync", &|latency| latency.write_4k_fsync);
    operation("open, read 4 KiB", &|latency| latency.read_4k);
    print_rest(figures);
}

fn print_rest(figures: &Figures) {
    println!();
    let ratios =
        [(UNREPLICATED, &figures.bfs_over_unreplicated), (NATIVE, &figures.bfs_over_native)];
    for (other, ratios) in ratios {
        let Some(Ratios { total: Ratio { median, min }, phases }) = ratios else { continue };
        println!("{BFS} took {median:.2} times as long as {other} (by the minima {min:.2} times)");
        let phase = |phase: &PhaseRatio| format!("{} {:.1}", phase.name, phase.ratio.median);
        println!("  by phase: {}", phases.iter().map(phase).collect::<Vec<_>>().join(", "));
    }
    for TargetFigures { name, memory, not_run, .. } in &figures.targets {
        if let Some(Memory { replicas_mib, budget_mib, within_budget }) = memory {
            let show = |mib: &Option<f64>| mib.map_or("ended".into(), |mib| format!("{mib:.0}"));
            let replicas: Vec<_> = replicas_mib.iter().map(show).collect();
            let verdict = if *within_budget { "within" } else { "NOT WITHIN" };
            println!(
                "{name}: {} MiB resident, {verdict} the budget of {budget_mib:.0} MiB each",
                replicas.join(", ")
            );
        }
        if let Some(why) = not_run {
            println!("{name}: not run: {why}");
        }
    }
}

fn show_seconds(seconds: Option<Seconds>) -> String {
    seconds.map_or("-".into(), |Seconds { median, min }| format!("{median:.3} ({min:.3})"))
}

fn show_latency(latency: Option<Percentiles>) -> String {
    latency
        .map_or("-".into(), |Percentiles { p50_us, p99_us }| format!("{p50_us:.0} / {p99_us:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &'static str, seconds: &[f64], not_run: Option<&str>) -> TargetFigures {
        TargetFigures {
            name,
            not_run: not_run.map(str::to_owned),
            rounds_done: seconds.len(),
            compiled: Vec::new(),
            errors: 0,
            digests_match: Some(true),
            total_seconds: Seconds::of(seconds.to_vec()),
            phases: Vec::new(),
            latency: None,
            memory: None,
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let of = |seconds: &[f64]| Seconds::of(seconds.to_vec()).map(|s| (s.median, s.min));
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((2.0, 1.0)));
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0]), Some((2.5, 1.0)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_ratio_needs_two_targets_that_ran_to_their_end() {
        let slow = target(BFS, &[4.0, 6.0], None);
        let targets =
            [slow, target(UNREPLICATED, &[2.0], None), target(NATIVE, &[1.0], Some("no place"))];
        let ratio = Ratios::of(&targets, BFS, UNREPLICATED).unwrap();
        assert_eq!((ratio.total.median, ratio.total.min), (2.5, 2.0));
        assert!(Ratios::of(&targets, BFS, NATIVE).is_none());
    }

    #[test]
    fn one_error_one_wrong_digest_or_a_target_that_gave_up_is_not_sound() {
        let sound = || target(BFS, &[1.0], None);
        assert!(sound().is_sound());
        assert!(!TargetFigures { errors: 1, ..sound() }.is_sound());
        assert!(!TargetFigures { digests_match: Some(false), ..sound() }.is_sound());
        assert!(!TargetFigures { digests_match: None, ..sound() }.is_sound());
        assert!(!target(BFS, &[1.0], Some("no /dev/fuse")).is_sound());
    }

    #[test]
    fn a_target_that_cannot_run_says_why_and_gives_its_place_back() {
        let mut target = Target::new(NATIVE, Place::folder());
        let Some(Place::Folder(path)) = &target.place else { panic!("no folder in {MEMORY}") };
        let path = path.clone();
        assert!(path.is_dir());
        target.step(|_, _| bail!("full"));
        assert!(!path.exists() && target.not_run.as_deref() == Some("full"));
        target.step(|_, _| panic!("it is out of the comparison"));
        let refused = Target::new(BFS, Err(anyhow::anyhow!("no /dev/fuse")));
        assert_eq!(TargetFigures::of(&refused).not_run.as_deref(), Some("no /dev/fuse"));
    }
}
