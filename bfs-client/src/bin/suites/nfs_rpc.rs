//! How long single NFSv3 calls take on BFS, and beside it on a plain server, in one run.

mod figures;
mod measure;

use self::figures::{Figures, Row, Stable, goals};
use self::measure::{DEPTHS, OPERATIONS, Round, Subject};
use super::nfs::folder::Folder;
use super::nfs::target::TARGETS;
use super::write_figures;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use workloads::stop::Stop;

#[derive(Args)]
pub struct Arguments {
    /// How many rounds; in each, every target does every operation
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a target does one operation in a round, at most. Units: milliseconds
    #[arg(long, default_value_t = 400)]
    batch_ms: u64,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Only the targets whose names contain one of these
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// Whether every goal that could be looked at is met.
pub fn run(arguments: &Arguments) -> Result<bool> {
    // Before there is any other thread: it would stay in the old network.
    super::nfs::network::make_private()?;
    super::nfs::network::Cable::lay(0)?;
    let stop = Stop::on_signals().context("cannot wait for signals")?;
    let scratch = Folder::temporary("nfs-rpc")?;
    let (mut subjects, mut not_run) = (Vec::new(), Vec::new());
    for target in TARGETS {
        let wanted = |part: &String| target.name.contains(part.as_str());
        if !arguments.targets.is_empty() && !arguments.targets.iter().any(wanted) {
            continue;
        }
        match Subject::start(target, scratch.path(), &stop) {
            Ok(subject) => subjects.push(subject),
            Err(error) => not_run.push((target.name, format!("{error:#}"))),
        }
        if stop.requested() {
            bail!("stopped");
        }
    }
    let mut rounds = Vec::new();
    for number in 0..arguments.rounds {
        let batch = Duration::from_millis(arguments.batch_ms);
        rounds.extend(one_round(number, batch, &mut subjects, &mut not_run, &stop)?);
    }
    let rows = Row::all(&rounds);
    let goals = goals(&rounds);
    let stable = TARGETS.map(|target| Stable { target: target.name, means: target.stable });
    let figures = Figures::new(arguments.rounds, rows, goals, stable.into(), not_run);
    figures.print();
    write_figures(arguments.json.as_deref(), &figures)?;
    Ok(figures.met())
}

/// Every operation on every target. Which target comes first changes from round to round. One that fails is left out from then on.
fn one_round(
    number: u32,
    batch: Duration,
    subjects: &mut Vec<Subject>,
    not_run: &mut Vec<(&'static str, String)>,
    stop: &Stop,
) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for operation in OPERATIONS {
        for depth in DEPTHS {
            let mut failed = Vec::new();
            for at in 0..subjects.len() {
                let at = (at + number as usize) % subjects.len();
                match subjects[at].measure(operation, depth, number, batch) {
                    Ok(round) => rounds.push(round),
                    Err(error) => failed.push((at, format!("{}: {error:#}", operation.name))),
                }
                if stop.requested() {
                    bail!("stopped");
                }
            }
            failed.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
            for (at, why) in failed {
                not_run.push((subjects.remove(at).target.name, why));
            }
        }
    }
    Ok(rounds)
}
