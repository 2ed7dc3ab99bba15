//! `andrew-compare`: the Andrew-style benchmark on memory of this machine, on four replicas, and on one, side by side.
//!
//! The targets take turns round by round, so that whatever else the machine does meanwhile meets all of them.

mod results;
mod targets;

use anyhow::{Context, Result, bail};
use clap::Parser;
use results::{Comparison, TargetResult};
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use targets::Target;
use workloads::andrew::Options;
use workloads::compile;
use workloads::progress::{Console, Lines};
use workloads::stop::Stop;
use workloads::tree::SourceTree;

/// The Andrew-style benchmark side by side: native (tmpfs), bfs (4 replicas), bfs-unreplicated (the same code, 1 replica).
#[derive(Parser)]
#[command(name = "andrew-compare", version)]
struct Arguments {
    /// How many copies of the source tree each target gets in each round
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=999))]
    copies: u32,
    /// How many rounds; the medians of fewer than three would say nothing
    #[arg(long, value_name = "R", default_value_t = 5, value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
    /// How many compilers run at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How often each single operation is measured
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    operations: u32,
    /// Write the figures as one JSON object
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("andrew-compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether every target ran, and without an error.
fn run(arguments: &Arguments) -> Result<bool> {
    compile::check_tools()?;
    let tree = SourceTree::lua()?;
    let stop = Stop::on_signals().context("cannot wait for signals")?;
    let console = Console::new(Lines::Stderr, "  ");
    let mut targets = targets::all(&stop);
    let results = measure(arguments, &tree, &mut targets, &console, &stop);
    drop(targets);
    if stop.requested() {
        bail!("stopped; the groups, mounts and folders are gone");
    }
    let comparison =
        Comparison::new(&tree, arguments.copies, arguments.rounds, arguments.jobs, results);
    print!("{}", comparison.table());
    if let Some(path) = &arguments.json {
        let cannot = || format!("cannot write {}", path.display());
        let file = File::create(path).with_context(cannot)?;
        serde_json::to_writer(file, &comparison).with_context(cannot)?;
    }
    Ok(comparison.is_sound())
}

fn measure(
    arguments: &Arguments,
    tree: &SourceTree,
    targets: &mut [Target],
    console: &Console,
    stop: &Stop,
) -> Vec<TargetResult> {
    let options = Options { copies: arguments.copies, jobs: arguments.jobs };
    let mut results: Vec<_> =
        targets.iter().map(|target| TargetResult::new(target.name())).collect();
    for round in 1..=arguments.rounds {
        for (target, result) in targets.iter_mut().zip(&mut results) {
            if result.has_failed() || stop.requested() {
                continue;
            }
            console.note(&format!("round {round} of {}: {}", arguments.rounds, target.name()));
            let last = round == arguments.rounds;
            match target.round(tree, options, last, console, stop) {
                Ok(outcome) => result.add(outcome),
                Err(error) => result.fail(format!("{error:#}")),
            }
        }
    }
    for (target, result) in targets.iter_mut().zip(&mut results) {
        if !result.has_failed() && !stop.requested() {
            console.note(&format!("single operations: {}", target.name()));
            match target.latency(arguments.operations as usize, stop) {
                Ok(latency) => result.latency = Some(latency),
                Err(error) => result.fail(format!("{error:#}")),
            }
        }
    }
    results
}
