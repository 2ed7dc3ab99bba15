//! `micro`: what the protocol costs by itself: null operations, in turn with a floor that passes the same messages and does
//! nothing else, and with a plain TCP round trip.
//!
//! ```text
//! floor.rs      the floor                   bed.rs        a group, and operations on it
//! tcp.rs        the plain round trip        processor.rs  what processes use of the processor
//! trouble.rs    faults, and checkpoints     soak.rs       a busy machine for minutes
//! ```

mod bed;
mod figures;
mod floor;
mod processor;
mod soak;
mod tcp;
mod trouble;

use anyhow::Result;
use bed::{Bed, Loaded, Null, Until};
use clap::Parser;
use figures::{Latency, Spread, Target};
use floor::Floor;
use processor::Cost;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use workloads::stamp::Stamp;
use workloads::stop::Stop;

/// Null operations on groups of this machine's own, beside a floor and a plain TCP round trip.
#[derive(Parser)]
#[command(name = "micro", version)]
struct Arguments {
    /// Operations of each kind in a round, one at a time
    #[arg(long, default_value_t = 2000)]
    operations: usize,
    /// How often everything is measured in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How large a state checkpoints are taken of. Units: MiB
    #[arg(long, default_value_t = 1024)]
    state_mib: u64,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Instead: keep four replicas as busy as they can be for so long, and fail if that deposes a primary
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u64>,
    /// Instead: be one process of the floor
    #[arg(long, hide = true, requires = "ports")]
    floor: Option<u8>,
    #[arg(long, hide = true, value_delimiter = ',')]
    ports: Vec<u16>,
}

/// Round by round, one after the other. Units: microseconds at the median.
#[derive(Serialize)]
struct Rounds {
    tcp_two_cores: Spread,
    tcp_one_core: Spread,
    floor_ordered: Spread,
    floor_read: Spread,
    ordered: Spread,
    read_only: Spread,
    ordered_n1: Spread,
    /// Of each round's median to that of the floor in the same round.
    ordered_over_floor: Spread,
    read_over_floor: Spread,
}

/// One kind of operation on one size of group, one at a time.
#[derive(Serialize)]
struct Kind {
    n: usize,
    argument: usize,
    result: u32,
    read_only: bool,
    latency: Latency,
}

/// Many in flight.
#[derive(Serialize)]
struct Load {
    n: usize,
    in_flight: usize,
    /// Units: operations a second.
    rate: f64,
    latency: Latency,
    cost: Cost,
}

#[derive(Serialize)]
struct Figures {
    stamp: Stamp,
    rounds: Rounds,
    kinds: Vec<Kind>,
    loads: Vec<Load>,
    faults: trouble::Faults,
    checkpoints: trouble::Checkpoints,
    targets: Vec<Target>,
}

/// See Cargo.toml for why.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(id) = arguments.floor {
        return floor::replica(id, &arguments.ports);
    }
    if let Some(minutes) = arguments.soak {
        return soak::run(minutes);
    }
    let stop = Stop::on_signals()?;
    let rounds = rounds(&arguments, &stop)?;
    print_rounds(&rounds);
    let (mut kinds, mut loads) = (Vec::new(), Vec::new());
    for n in [1, 4, 7, 10] {
        let bed = Bed::new(n, &stop)?;
        kinds.extend(measure_kinds(&bed, n, arguments.operations / 2)?);
        loads.extend(measure_loads(&bed, n)?);
    }
    let faults = trouble::faults(arguments.rounds, &stop)?;
    print_faults(&faults);
    let size = arguments.state_mib << 20;
    let checkpoints = trouble::checkpoints(size, Duration::from_secs(10), &stop)?;
    print_checkpoints(&checkpoints);
    let targets = targets(&rounds, &loads, &faults, &checkpoints);
    print_targets(&targets);
    let stamp = Stamp::here();
    let figures = Figures { stamp, rounds, kinds, loads, faults, checkpoints, targets };
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    Ok(())
}

/// Everything that is held against the floor, in turn.
fn rounds(arguments: &Arguments, stop: &Stop) -> Result<Rounds> {
    let operations = arguments.operations.max(100);
    let (four, one) = (Bed::new(4, stop)?, Bed::new(1, stop)?);
    let mut floor = Floor::start(4)?;
    floor.one_at_a_time(500, false)?;
    let mut all: [Vec<f64>; 7] = Default::default();
    for _ in 0..arguments.rounds.max(1) {
        let round = [
            tcp::round_trip(operations, [0, 1])?,
            tcp::round_trip(operations, [0, 0])?,
            floor.one_at_a_time(operations, false)?,
            four.one_at_a_time(operations, Null::SMALL)?,
            floor.one_at_a_time(operations, true)?,
            four.one_at_a_time(operations, Null::READ)?,
            one.one_at_a_time(operations, Null::SMALL)?,
        ];
        all.iter_mut().zip(round).for_each(|(column, latency)| column.push(latency.p50));
    }
    let [tcp_two, tcp_one, floor_ordered, ordered, floor_read, read_only, ordered_n1] = all;
    let ratios = |of: &[f64], to: &[f64]| Spread::of(of.iter().zip(to).map(|(a, b)| a / b));
    Ok(Rounds {
        ordered_over_floor: ratios(&ordered, &floor_ordered),
        read_over_floor: ratios(&read_only, &floor_read),
        tcp_two_cores: Spread::of(tcp_two),
        tcp_one_core: Spread::of(tcp_one),
        floor_ordered: Spread::of(floor_ordered),
        floor_read: Spread::of(floor_read),
        ordered: Spread::of(ordered),
        read_only: Spread::of(read_only),
        ordered_n1: Spread::of(ordered_n1),
    })
}

fn measure_kinds(bed: &Bed, n: usize, operations: usize) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    println!("\nn = {n}, one at a time            p50         p99");
    for read_only in [false, true] {
        for (argument, result) in [(0, 0), (4096, 0), (0, 4096)] {
            let null = Null { argument, result, read_only };
            let latency = bed.one_at_a_time(operations, null)?;
            let what = if read_only { "read-only" } else { "ordered" };
            let (p50, p99) = (latency.p50, latency.p99);
            println!("  {what:<10} {argument:>4}/{result:<4} {p50:>13.1} {p99:>11.1} µs");
            kinds.push(Kind { n, argument, result, read_only, latency });
        }
    }
    Ok(kinds)
}

fn measure_loads(bed: &Bed, n: usize) -> Result<Vec<Load>> {
    let mut loads = Vec::new();
    println!("n = {n}, in flight   a second   µs of processor: replica, client");
    for in_flight in [1, 4, 16, 64, 128, 200] {
        let time = Duration::from_secs(2);
        let before = processor::used(&bed.group)?;
        let Loaded { rate, latency } = bed.load(in_flight, Until::Over(time), Null::SMALL)?;
        let cost = processor::used(&bed.group)?.since(&before, rate * time.as_secs_f64());
        let Cost { replica, client } = cost;
        println!("  {in_flight:>8} {rate:>17.0} {replica:>14.1} {client:>10.1}");
        loads.push(Load { n, in_flight, rate, latency, cost });
    }
    Ok(loads)
}

/// The rows of the project's table that this program can fill.
fn targets(
    rounds: &Rounds,
    loads: &[Load],
    faults: &trouble::Faults,
    checkpoints: &trouble::Checkpoints,
) -> Vec<Target> {
    let best = loads.iter().filter(|load| load.n == 4).max_by(|a, b| a.rate.total_cmp(&b.rate));
    let best = best.expect("four replicas were measured");
    vec![
        Target::at_most("null 0/0 p50 over the floor's", rounds.ordered_over_floor.median, 2.0),
        Target::at_most("read-only 0/0 p50 over the echo's", rounds.read_over_floor.median, 1.6),
        Target::at_least("null operations a second, n = 4", best.rate, 50_000.0),
        Target::at_most("µs of processor an operation, a replica", best.cost.replica, 7.0),
        Target::at_most("µs of processor an operation, the client", best.cost.client, 10.0),
        Target::at_least("throughput left, f crashed", faults.crashed.median, 0.90),
        Target::at_least("throughput left, wrong MACs", faults.wrong_macs.median, 0.90),
        Target::at_least("throughput left, slow primary", faults.slow_primary.median, 0.50),
        Target::at_most(
            "longest wait while checkpoints are taken, ms",
            checkpoints.large_state.longest / 1e3,
            20.0,
        ),
    ]
}

fn print_rounds(rounds: &Rounds) {
    println!("rounds in turn: median of the medians, and the least and most, µs");
    let row = |name: &str, Spread { least, median, most }: Spread| {
        println!("  {name:<34} {median:>8.1}   {least:.1} to {most:.1}");
    };
    row("TCP round trip, two cores", rounds.tcp_two_cores);
    row("TCP round trip, one core", rounds.tcp_one_core);
    row("floor, four processes", rounds.floor_ordered);
    row("null, ordered, n = 4", rounds.ordered);
    row("echo, one to four", rounds.floor_read);
    row("null, read-only, n = 4", rounds.read_only);
    row("null, ordered, n = 1", rounds.ordered_n1);
    row("ordered over the floor, times", rounds.ordered_over_floor);
    row("read-only over the echo, times", rounds.read_over_floor);
}

fn print_faults(faults: &trouble::Faults) {
    println!("\nthroughput with a fault, as a part of that before");
    let row = |name: &str, Spread { least, median, most }: Spread| {
        println!("  {name:<34} {median:>8.2}   {least:.2} to {most:.2}");
    };
    row("one replica crashed", faults.crashed);
    row("a client with wrong MACs", faults.wrong_macs);
    row("a slow primary", faults.slow_primary);
}

fn print_checkpoints(found: &trouble::Checkpoints) {
    let mib = |bytes| bytes / (1 << 20);
    println!("\nwaiting while stretches are written at random, µs      p50        p99    longest");
    let row = |name: String, latency: Latency| {
        let Latency { p50, p99, longest } = latency;
        println!("  {name:<40} {p50:>10.0} {p99:>10.0} {longest:>10.0}");
    };
    row(format!("null, state of {} MiB", mib(found.state / 64)), found.small_state);
    row(format!("null, state of {} MiB", mib(found.state)), found.large_state);
    row("a thread that sleeps".into(), found.machine);
    println!(
        "  {:.1}% changed between checkpoints, of which there were {}",
        found.changed,
        found.batches / 128
    );
}

fn print_targets(targets: &[Target]) {
    println!();
    for Target { name, value, target, met } in targets {
        let verdict = if *met { "met" } else { "MISSED" };
        println!("{name:<44} {value:>10.2}   target {target:>9.2}   {verdict}");
    }
}
