//! The crate fsx: random reads, writes, truncations and ranges on one file, each read compared with what it must be.

use super::bed::{Bed, CONSISTENCIES};
use super::{Common, write_json};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;
use workloads::stop::Stop;

/// The suite's configuration without mmap.
const CONFIGURATION: &str = include_str!("../../../suites/fsx.toml");
/// What is added for files that are mapped too.
const MAPPED: &str = "mapread = 10\nmapwrite = 10\n";

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The suite's own program
    #[arg(long, value_name = "FILE")]
    tool: PathBuf,
    /// How many runs, each with a seed of its own; half of them also map the file
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// Operations a run
    #[arg(long, default_value_t = 100_000)]
    ops: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many runs at once, each on a file of its own
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Only under this consistency (default: close-to-open, then strict)
    #[arg(long, value_name = "MODE", value_parser = CONSISTENCIES)]
    only: Option<String>,
}

#[derive(Serialize)]
struct Figures {
    suite: &'static str,
    replicas: u32,
    replicas_killed: u32,
    /// What the compromised replica does, if there is one.
    attack: Option<String>,
    seeds: u64,
    operations_a_seed: u64,
    runs: Vec<Run>,
}

#[derive(Serialize)]
struct Run {
    consistency: String,
    passed: u64,
    failed: Vec<Failure>,
    seconds: f64,
}

#[derive(Serialize)]
struct Failure {
    seed: u64,
    mapped: bool,
    said: String,
}

/// Whether no run found a byte that was not what had been written.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let stop = Stop::on_signals().context("cannot wait for signals")?;
    let mut runs = Vec::new();
    for consistency in CONSISTENCIES {
        if arguments.only.as_deref().is_none_or(|only| only == consistency) {
            runs.push(run_on(arguments, &stop, consistency)?);
        }
    }
    let figures = Figures {
        suite: "fsx",
        replicas: 4,
        replicas_killed: u32::from(arguments.common.without_spare),
        attack: arguments.common.byzantine.clone(),
        seeds: arguments.seeds,
        operations_a_seed: arguments.ops,
        runs,
    };
    write_json(&arguments.common, &figures)?;
    Ok(figures.runs.iter().all(|run| run.failed.is_empty() && run.passed == arguments.seeds))
}

fn run_on(arguments: &Arguments, stop: &Stop, consistency: &str) -> Result<Run> {
    let mut bed = Bed::new(&arguments.common, stop, consistency)?;
    let folder = bed.mount.with_file_name("fsx");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("plain.toml"), CONFIGURATION)?;
    fs::write(folder.join("mapped.toml"), CONFIGURATION.to_owned() + MAPPED)?;
    let exerciser = Exerciser {
        tool: fs::canonicalize(&arguments.tool)?,
        ops: arguments.ops,
        mount: bed.mount.clone(),
        folder,
    };
    let start = Instant::now();
    let seeds = Mutex::new(arguments.first..arguments.first + arguments.seeds);
    let next = || seeds.lock().ok()?.next().filter(|_| !stop.requested());
    let work = || std::iter::from_fn(next).map(|seed| exerciser.run(seed)).collect::<Vec<_>>();
    let outcomes: Vec<Result<Option<Failure>>> = bed.supervise(|| {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..arguments.jobs).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.flat_map(|r| r.unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
        })
    });
    let seconds = start.elapsed().as_secs_f64();
    if stop.requested() {
        bail!("stopped");
    }
    let outcomes = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
    let passed = outcomes.iter().filter(|outcome| outcome.is_none()).count() as u64;
    let failed: Vec<Failure> = outcomes.into_iter().flatten().collect();
    for Failure { seed, mapped, said } in &failed {
        println!("fsx seed {seed} ({}):\n{said}", configuration(*mapped));
    }
    println!(
        "fsx {consistency:<13} {passed} of {} seeds without a mismatch, {} operations each, in {seconds:.1} s",
        arguments.seeds, arguments.ops
    );
    bed.end()?;
    Ok(Run { consistency: consistency.to_owned(), passed, failed, seconds })
}

fn configuration(mapped: bool) -> &'static str {
    if mapped { "mapped" } else { "plain" }
}

struct Exerciser {
    tool: PathBuf,
    ops: u64,
    mount: PathBuf,
    /// Configurations, and what is left of runs that failed.
    folder: PathBuf,
}

impl Exerciser {
    /// One run; what it said if it failed.
    fn run(&self, seed: u64) -> Result<Option<Failure>> {
        let mapped = seed.is_multiple_of(2);
        let file = self.mount.join(format!("fsx-{seed}"));
        let mut command = Command::new(&self.tool);
        command.args(["-q", "-S", &seed.to_string(), "-N", &self.ops.to_string()]);
        command.arg("-f").arg(self.folder.join(configuration(mapped)).with_extension("toml"));
        command.arg("-P").arg(&self.folder).arg(&file).current_dir("/");
        let output = command.output().context("cannot run fsx")?;
        if output.status.success() {
            remove(&file)?;
            return Ok(None);
        }
        let said = format!(
            "{}{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            output.status
        );
        Ok(Some(Failure { seed, mapped, said: tail(&said, 40) }))
    }
}

fn remove(file: &Path) -> Result<()> {
    fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))
}

/// The last `lines` lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_is_what_counts() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }

    #[test]
    fn mapping_is_the_only_difference() {
        assert!(CONFIGURATION.trim_end().lines().last().is_some_and(|l| l.contains(" = ")));
        assert!(!CONFIGURATION.contains("map") && MAPPED.contains("mapwrite"));
    }
}
