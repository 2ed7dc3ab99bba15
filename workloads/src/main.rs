//! The command `andrew`: the work of this library on any directory.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use workloads::andrew::{self, Options};
use workloads::errors::WorkError;
use workloads::progress::{Console, Lines};
use workloads::stop::Stop;
use workloads::timing::Timing;
use workloads::tree::SourceTree;
use workloads::{compile, large, latency, metadata, postmark, programs, verify};

/// Real work on any directory, timed and checked.
#[derive(Parser)]
#[command(name = "andrew", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Write the result as one JSON object
    #[arg(long, global = true, value_name = "OUT")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// The Andrew-style benchmark: make directories, copy, stat, read and compile a real C source tree
    Run(RunArguments),
    /// Compare what `run` left with its source; unmount and mount again first
    Verify(VerifyArguments),
    /// How long single operations take
    Latency(LatencyArguments),
    /// Many small files that come, change and go
    Postmark(Work<postmark::Options>),
    /// Names and attributes, kind by kind
    Metadata(Work<metadata::Options>),
    /// One large file, in sequence and at random
    Large(Work<large::Options>),
    /// Clone a repository, and check it out
    Git(Work<programs::GitOptions>),
    /// Insert rows into a database, each in a transaction
    Sqlite(Work<programs::SqliteOptions>),
}

/// Work on a directory, in timed parts.
#[derive(Args)]
struct Work<O: Args> {
    /// An existing directory
    dir: PathBuf,
    #[command(flatten)]
    options: O,
}

#[derive(Args)]
struct RunArguments {
    /// An existing directory that holds no copies yet
    dir: PathBuf,
    /// How many copies of the source tree
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=999))]
    copies: u32,
    /// How many compilers run at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Before files are looked at, read and compiled, drop what the kernel has cached (root)
    #[arg(long)]
    drop_caches: bool,
    /// Leave the last phase out
    #[arg(long)]
    no_compile: bool,
    #[command(flatten)]
    part: Part,
}

/// How much of the source tree.
#[derive(Args)]
struct Part {
    /// Only the first so many of its folders, one a release
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true, value_name = "COUNT")]
    releases: usize,
}

impl Part {
    fn tree(&self) -> Result<SourceTree> {
        Ok(SourceTree::lua()?.first(self.releases))
    }
}

#[derive(Args)]
struct VerifyArguments {
    /// The directory that `run` worked in
    dir: PathBuf,
    /// As many copies as it made
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=999))]
    copies: u32,
    #[command(flatten)]
    part: Part,
}

#[derive(Args)]
struct LatencyArguments {
    /// An existing directory
    dir: PathBuf,
    /// How often each operation is done
    #[arg(long, default_value_t = 200)]
    rounds: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("andrew: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether everything was as it should be.
fn run(arguments: &Arguments) -> Result<bool> {
    let stop = Stop::on_signals().context("cannot wait for signals")?;
    let console = Console::new(Lines::Stdout, "");
    let json = arguments.json.as_deref();
    match &arguments.command {
        Command::Run(arguments) => run_phases(arguments, json, &console, &stop),
        Command::Verify(arguments) => run_verify(arguments, json, &console, &stop),
        Command::Latency(arguments) => run_latency(arguments, json, &console, &stop),
        Command::Postmark(Work { dir, options }) => {
            timed(dir, json, &console, postmark::run(dir, *options, &stop))
        }
        Command::Metadata(Work { dir, options }) => {
            timed(dir, json, &console, metadata::run(dir, *options, &stop))
        }
        Command::Large(Work { dir, options }) => {
            timed(dir, json, &console, large::run(dir, *options, &stop))
        }
        Command::Git(Work { dir, options }) => {
            timed(dir, json, &console, programs::git(dir, options, &stop))
        }
        Command::Sqlite(Work { dir, options }) => {
            timed(dir, json, &console, programs::sqlite(dir, *options, &stop))
        }
    }
}

/// Shows and writes how long the parts of some work in `dir` took.
fn timed(
    dir: &Path,
    json: Option<&Path>,
    console: &Console,
    result: Result<Timing>,
) -> Result<bool> {
    let timing = result.with_context(|| format!("in {}", dir.display()))?;
    for phase in &timing.phases {
        console.note(&format!("{:<20} {:>9.3} s", phase.name, phase.seconds));
    }
    write_json(json, &timing)?;
    Ok(true)
}

fn run_phases(
    arguments: &RunArguments,
    json: Option<&Path>,
    console: &Console,
    stop: &Stop,
) -> Result<bool> {
    compile::check_tools()?;
    check_directory(&arguments.dir)?;
    for copy in 0..arguments.copies {
        let top = SourceTree::copy_in(&arguments.dir, copy);
        if top.exists() {
            bail!(
                "{} is there already\n  try: remove it, or name another directory",
                top.display()
            );
        }
    }
    let tree = arguments.part.tree()?;
    console.note(&format!("{}: {} files, {} bytes", tree.name(), tree.files().len(), tree.bytes()));
    let RunArguments { copies, jobs, drop_caches, no_compile, .. } = *arguments;
    let options = Options { copies, jobs, drop_caches, no_compile };
    let report = andrew::run(&tree, &arguments.dir, options, console, stop);
    console.note(&format!("{:<18} {:>7} {:>9.3} s", "total", report.files, report.total_seconds));
    console.note(&format!(
        "{} C files compiled ({} are only included by others), {} archives, {} errors",
        report.compiled, report.included_only, report.archives, report.errors
    ));
    print_errors(&report.first_errors, report.errors);
    write_json(json, &report)?;
    Ok(report.errors == 0 && !report.stopped)
}

fn run_verify(
    arguments: &VerifyArguments,
    json: Option<&Path>,
    console: &Console,
    stop: &Stop,
) -> Result<bool> {
    check_directory(&arguments.dir)?;
    let tree = arguments.part.tree()?;
    let found = verify::verify(&tree, &arguments.dir, arguments.copies, console, stop);
    console.note(&format!(
        "{} of {} files have the digest of their source",
        found.matching, found.files
    ));
    print_errors(&found.first_errors, found.errors);
    write_json(json, &found)?;
    Ok(found.all_match())
}

fn run_latency(
    arguments: &LatencyArguments,
    json: Option<&Path>,
    console: &Console,
    stop: &Stop,
) -> Result<bool> {
    check_directory(&arguments.dir)?;
    let measured = latency::measure(&arguments.dir, arguments.rounds, stop)
        .with_context(|| format!("cannot measure in {}", arguments.dir.display()))?;
    let rows = [
        ("stat", measured.stat),
        ("create", measured.create),
        ("write 4K, fsync", measured.write_4k_fsync),
        ("open, read 4K", measured.read_4k),
    ];
    for (name, times) in rows {
        console.note(&format!(
            "{name:<16} p50 {:>9.1} µs   p99 {:>9.1} µs",
            times.p50_us, times.p99_us
        ));
    }
    write_json(json, &measured)?;
    Ok(true)
}

fn check_directory(dir: &Path) -> Result<()> {
    match dir.is_dir() {
        true => Ok(()),
        false => bail!("{} is not a directory\n  try: mkdir -p {}", dir.display(), dir.display()),
    }
}

fn print_errors(first: &[WorkError], count: u64) {
    for error in first {
        eprintln!("andrew: {error}");
    }
    if count > first.len() as u64 {
        eprintln!("andrew: and {} more errors", count - first.len() as u64);
    }
}

fn write_json(path: Option<&Path>, value: &impl serde::Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let cannot = || format!("cannot write {}", path.display());
    let file = File::create(path).with_context(cannot)?;
    serde_json::to_writer(&file, value).with_context(cannot)
}
