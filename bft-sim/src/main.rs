//! `bft-sim`: runs worlds from seeds and says what came of them.

use anyhow::{Context, bail};
use bft_sim::adversary::{self, ATTACKS, Actor, Attack};
use bft_sim::attack;
use bft_sim::swarm;
use bft_sim::world::{Plan, Report, Scenario};
use clap::Parser;
use serde::Serialize;
use std::path::{Path, PathBuf};
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
    /// The number of replicas; of attacks, 4 and 7 unless given.
    #[arg(long)]
    n: Option<u32>,
    /// Clients at work in each world.
    #[arg(long, default_value_t = 3)]
    clients: u32,
    /// Operations that each client runs.
    #[arg(long, default_value_t = 60)]
    operations: u64,
    /// Print every event of one world. Columns: docs/simulator.md.
    #[arg(long)]
    trace: bool,
    /// Run one attack of the catalogue by name, or `all`, beside a run without faults.
    #[arg(long, value_name = "B-nn|all")]
    attack: Option<String>,
    /// Make f+1 replicas faulty on a fixed set of seeds: an oracle or an alarm must notice.
    #[arg(long)]
    over_f: bool,
    /// Let clients ask as proxies of NFS do: with the attributes around each operation, once, and for some things again.
    #[arg(long, conflicts_with_all = ["attack", "over_f"])]
    nfs: bool,
    /// Let one replica after the other lose its state, or lie and be set up anew: each must be well again soon.
    #[arg(long, conflicts_with_all = ["attack", "over_f", "nfs"])]
    rolling: bool,
    /// Plant each bug of bft-core/src/planted.rs in turn, or the one named: an oracle must catch it.
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "BUG", num_args = 0..=1, default_missing_value = "all")]
    planted: Option<String>,
    /// Run the worlds of those hunts without a bug: no oracle may fire.
    #[cfg(feature = "planted")]
    #[arg(long, requires = "planted")]
    sound: bool,
    /// Write the summary to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    #[cfg(feature = "planted")]
    if let Some(name) = &arguments.planted {
        let holds = planted(&arguments, name)?;
        return Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let holds = match &arguments.attack {
        Some(_) if arguments.trace => trace(&arguments)?,
        Some(name) => attacks(&arguments, name)?,
        None if arguments.trace => trace(&arguments)?,
        None if arguments.over_f => over_f(&arguments)?,
        None => swarm(&arguments)?,
    };
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plan(arguments: &Arguments, seed: u64, scenario: Scenario) -> Plan {
    let n = arguments.n.unwrap_or(4);
    let (clients, operations) = (arguments.clients, arguments.operations);
    let f = n.saturating_sub(1) / 3;
    Plan { seed, n, f, clients, operations, trace: arguments.trace, scenario }
}

impl Arguments {
    fn swarm(&self) -> Scenario {
        match (self.nfs, self.rolling) {
            (true, _) => Scenario::Nfs,
            (_, true) => Scenario::Rolling,
            _ => Scenario::Swarm,
        }
    }
}

/// One world, event by event.
fn trace(arguments: &Arguments) -> anyhow::Result<bool> {
    let n = arguments.n.unwrap_or(4);
    let plan = match &arguments.attack {
        Some(name) if name == "none" => attack::plan(None, n),
        Some(name) => attack::plan(Some(adversary::by_name(name)?.name), n),
        None if arguments.over_f => plan(arguments, arguments.seed, Scenario::OverF),
        None => plan(arguments, arguments.seed, arguments.swarm()),
    };
    let report = swarm::run(Plan { trace: true, ..plan });
    print_summary(&report, None);
    report.violations.iter().for_each(|violation| println!("{violation}"));
    Ok(report.violations.is_empty())
}

/// The whole of a run, as JSON.
#[derive(Serialize)]
struct Summary<'a> {
    seeds: u64,
    events_per_second: f64,
    marks_missed: Vec<&'static str>,
    #[serde(flatten)]
    report: &'a Report,
}

fn swarm(arguments: &Arguments) -> anyhow::Result<bool> {
    let start = std::time::Instant::now();
    let seeds = arguments.seed..arguments.seed.saturating_add(arguments.seeds);
    let total = swarm::run_all(
        seeds,
        |seed| plan(arguments, seed, arguments.swarm()),
        |plan, violations| {
            violations.iter().for_each(|violation| println!("seed {}: {violation}", plan.seed));
            println!("  repro: {}", swarm::repro(plan));
        },
    );
    let rate = total.events as f64 / start.elapsed().as_secs_f64();
    print_summary(&total, Some(rate));
    let missed: Vec<_> = total.marks.missed().iter().map(|mark| mark.as_str()).collect();
    if arguments.seeds >= 1_000 && !missed.is_empty() {
        println!("never reached: {}", missed.join("; "));
    }
    let summary = Summary {
        seeds: arguments.seeds,
        events_per_second: rate,
        marks_missed: missed,
        report: &total,
    };
    write_json(arguments.json.as_deref(), &summary)?;
    Ok(total.violations.is_empty())
}

fn print_summary(total: &Report, rate: Option<f64>) {
    println!(
        "{} worlds ({} with f Byzantine), {} events, {} commits, {} view changes, {} state transfers, {} restarts, {} disks recovered, {} inputs rejected",
        total.worlds,
        total.byzantine_worlds,
        total.events,
        total.commits,
        total.view_changes,
        total.transfers,
        total.restarts,
        total.recoveries,
        total.rejected,
    );
    let shown: Vec<_> =
        total.attacks.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!("attacks: {}", shown.join(", "));
    println!(
        "highest view {}; slowest recovery {:.1} s of virtual time; at most {} sends for one input",
        total.highest_view,
        total.slowest_recovery as f64 / 1e6,
        total.most_sends,
    );
    if total.returns > 0 {
        println!(
            "{} returns, the slowest well again {:.1} s of virtual time after the last trouble",
            total.returns,
            total.slowest_return as f64 / 1e6,
        );
    }
    let rate = rate.map(|rate| format!(", {rate:.0} events a second")).unwrap_or_default();
    println!("violations: {}{rate}", total.violations.len());
}

fn attacks(arguments: &Arguments, name: &str) -> anyhow::Result<bool> {
    let chosen: Vec<&Attack> = match name {
        "all" => ATTACKS.iter().collect(),
        name => vec![adversary::by_name(name)?],
    };
    let sizes = arguments.n.map_or(vec![4, 7], |n| vec![n]);
    let mut outcomes = Vec::new();
    println!(
        "{:<14} {:>2} {:>8} {:>8} {:>6} {:>6} {:>6}  expected | observed",
        "attack", "n", "answers", "overall", "ratio", "floor", "views"
    );
    for n in sizes {
        let reference = attack::fault_free(n);
        if !reference.violations.is_empty() {
            bail!("the run without faults breaks a promise: {}", reference.violations.join("; "));
        }
        for attack in &chosen {
            match attack::run(attack, n, &reference) {
                Some(outcome) => {
                    print_outcome(&outcome);
                    outcomes.push(outcome);
                }
                None => print_elsewhere(attack, n),
            }
        }
    }
    write_json(arguments.json.as_deref(), &outcomes)?;
    Ok(outcomes.iter().all(attack::Outcome::holds))
}

fn print_outcome(o: &attack::Outcome) {
    let observed = match o.violations.first() {
        Some(violation) => format!("VIOLATED {violation}"),
        None if o.ratio < o.floor => "BELOW THE FLOOR".into(),
        None => "held".into(),
    };
    println!(
        "{:<14} {:>2} {:>8} {:>8.2} {:>6.2} {:>6.2} {:>6}  {} | {observed}",
        o.name, o.n, o.answers, o.overall, o.ratio, o.floor, o.view_changes, o.expected
    );
}

fn print_elsewhere(attack: &Attack, n: u32) {
    if let Actor::Elsewhere(place) = attack.actor {
        println!("{:<14} {n:>2} not made of messages: {place}", attack.name);
    }
}

/// f+1 faulty replicas on a fixed set of seeds.
fn over_f(arguments: &Arguments) -> anyhow::Result<bool> {
    let seeds = 1..=arguments.seeds.min(100);
    let mut unnoticed = Vec::new();
    let mut noticed = 0;
    for seed in seeds {
        let report = swarm::run(plan(arguments, seed, Scenario::OverF));
        if report.violations.is_empty() && report.alarms.is_empty() {
            unnoticed.push(seed);
        } else {
            noticed += 1;
            let first = report.violations.first().or(report.alarms.first());
            println!("seed {seed}: {}", first.map_or("", String::as_str));
        }
    }
    println!("{noticed} of {} worlds with f+1 faulty were noticed", noticed + unnoticed.len());
    write_json(arguments.json.as_deref(), &unnoticed)?;
    Ok(unnoticed.is_empty())
}

/// The worlds of the hunts for `bugs`, without a bug.
#[cfg(feature = "planted")]
fn sound(arguments: &Arguments, bugs: &[bft_core::planted::Planted]) -> bool {
    use bft_sim::planted;
    let seeds = if arguments.trace { 1 } else { arguments.seeds };
    let mut broken = 0;
    for bug in bugs {
        for seed in arguments.seed..arguments.seed.saturating_add(seeds) {
            let plan = Plan { trace: arguments.trace, ..planted::plan(*bug, seed) };
            let violations = swarm::run(plan).violations;
            broken += u64::from(!violations.is_empty());
            violations.iter().for_each(|said| println!("{}, seed {seed}: {said}", bug.name()));
        }
    }
    println!("{broken} worlds broke a promise on a sound core");
    broken == 0
}

/// Every planted bug, or one, and who caught it.
#[cfg(feature = "planted")]
fn planted(arguments: &Arguments, name: &str) -> anyhow::Result<bool> {
    use bft_sim::planted::{self, MOST_SEEDS};
    let one = planted::by_name(name);
    let all = bft_core::planted::Planted::ALL;
    let bugs = match one {
        Some(bug) => vec![bug],
        None if name == "all" => all.to_vec(),
        None => {
            let names: Vec<_> = all.iter().map(|bug| bug.name()).collect();
            bail!("no bug is called {name}; choose all, or one of: {}", names.join(", "));
        }
    };
    if arguments.sound {
        return Ok(sound(arguments, &bugs));
    }
    if let (Some(bug), true) = (one, arguments.trace) {
        let report = planted::run(one, Plan { trace: true, ..planted::plan(bug, arguments.seed) });
        report.violations.iter().for_each(|violation| println!("{violation}"));
        return Ok(!report.violations.is_empty());
    }
    // What a planted bug makes panic is caught, and told with the rest.
    std::panic::set_hook(Box::new(|_| {}));
    println!("{:<28} {:>5}  caught by", "planted bug", "seeds");
    let hunts = planted::hunt_all(&bugs, arguments.seed, MOST_SEEDS, |hunt| {
        let said = hunt.violation.as_deref().unwrap_or("ESCAPED");
        println!("{:<28} {:>5}  {said}", hunt.bug, hunt.seeds);
    });
    let escaped = hunts.iter().filter(|hunt| hunt.oracle.is_none()).count();
    println!("{} of {} planted bugs were caught", hunts.len() - escaped, hunts.len());
    write_json(arguments.json.as_deref(), &hunts)?;
    Ok(escaped == 0)
}

fn write_json(path: Option<&Path>, value: &impl Serialize) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(value)?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
