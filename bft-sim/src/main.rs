//! `bft-sim`: runs worlds from seeds and says what came of them.

use anyhow::Context;
use bft_sim::world::{Plan, Report, World};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Simulates whole groups under virtual time; any violation prints the line that reproduces it.
#[derive(Parser)]
#[command(name = "bft-sim", version)]
struct Arguments {
    /// How many worlds to run, with consecutive seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed; with --trace, the only one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of replicas.
    #[arg(long, default_value_t = 4)]
    n: u32,
    /// Clients at work in each world.
    #[arg(long, default_value_t = 3)]
    clients: u32,
    /// Operations that each client runs.
    #[arg(long, default_value_t = 60)]
    operations: u64,
    /// Print every event of one world. Columns: virtual microseconds, node, what it did.
    #[arg(long)]
    trace: bool,
    /// Write the summary to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let f = arguments.n.saturating_sub(1) / 3;
    let last = if arguments.trace { arguments.seed } else { arguments.seed + arguments.seeds - 1 };
    let mut total = Report::default();
    let start = std::time::Instant::now();
    for seed in arguments.seed..=last {
        let (n, clients, operations) = (arguments.n, arguments.clients, arguments.operations);
        let plan = Plan { seed, n, f, clients, operations, trace: arguments.trace };
        let report = World::new(plan).run();
        for violation in &report.violations {
            println!("seed {seed}: {violation}");
            println!(
                "  repro: ./x sim --seed {seed} --n {n} --clients {clients} --operations {operations} --trace"
            );
        }
        total.events += report.events;
        total.commits += report.commits;
        total.restarts += report.restarts;
        total.transfers += report.transfers;
        total.rejected += report.rejected;
        total.violations.extend(report.violations);
        total.trace_hash = report.trace_hash;
    }
    let rate = total.events as f64 / start.elapsed().as_secs_f64();
    println!(
        "{} worlds, {} events, {} commits, {} restarts, {} state transfers, {} inputs rejected, {} violations, {rate:.0} events a second",
        last - arguments.seed + 1,
        total.events,
        total.commits,
        total.restarts,
        total.transfers,
        total.rejected,
        total.violations.len(),
    );
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&total)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if total.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
