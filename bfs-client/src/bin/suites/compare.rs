//! The same work on BFS and on plain servers, in turn, in one run: what it costs to survive a compromised server.
//!
//! ```text
//! compare/works.rs    the work            compare/place.rs    where it is done: a folder, a mount, a guest
//! compare/figures.rs  what was measured, and what it should be
//! compare/calls.rs    what guests asked of their servers
//! ```

mod calls;
mod figures;
mod place;
mod works;

use self::figures::{Figures, Measured};
use self::place::{Places, TARGETS};
use self::works::{Sizes, Work};
use super::nfs::network;
use super::write_figures;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::PathBuf;
use workloads::stamp::Stamp;
use workloads::stop::Stop;

#[derive(Args)]
pub struct Arguments {
    /// How often everything that takes less is measured in turn
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How many copies of the source tree are large
    #[arg(long, default_value_t = 100)]
    copies: u32,
    /// How often what takes minutes is measured in turn: the large trees, and compiling in guests
    #[arg(long, default_value_t = 1)]
    large_rounds: u32,
    /// How large the large file is. Units: MiB
    #[arg(long, default_value_t = 1024)]
    mib: u32,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Only the work whose name contains this; may be said again, for more
    #[arg(long, value_name = "WORK")]
    only: Vec<String>,
    /// Only these targets
    #[arg(value_name = "TARGET", value_parser = TARGETS.map(|(name, _)| name))]
    targets: Vec<String>,
}

/// Whether every target did all of its work; figures that miss their goals are for the reader. Who stops it has the figures of what
/// was done until then.
pub fn run(arguments: &Arguments) -> Result<bool> {
    // Of what was built: hours from now the repository may be another.
    let stamp = Stamp::here();
    let no_guests = network::forbidden();
    if no_guests.is_none() {
        // Before there is any other thread: it would stay in the old network.
        network::make_private()?;
    }
    let stop = Stop::on_signals().context("cannot wait for signals")?;
    let wanted =
        |name: &str| arguments.targets.is_empty() || arguments.targets.iter().any(|t| t == name);
    let mut places = Places::start(wanted, no_guests.as_deref(), &stop)?;
    let sizes = Sizes { copies: arguments.copies, mib: arguments.mib };
    let works = Work::all(sizes).into_iter().filter(|work| {
        let named = |part: &String| work.name.contains(part.as_str());
        arguments.only.is_empty() || arguments.only.iter().any(named)
    });
    let (large, small): (Vec<_>, Vec<_>) = works.partition(|work| work.large);
    let mut measured = Vec::new();
    for (rounds, works) in [(arguments.rounds, small), (arguments.large_rounds, large)] {
        for (round, work) in (0..rounds).flat_map(|round| works.iter().map(move |w| (round, w))) {
            if !stop.requested() {
                eprintln!("round {} of {rounds}: {}", round + 1, work.name);
                one(work, round, &mut places, &mut measured);
            }
        }
    }
    let figures =
        Figures::new(stamp, (arguments.rounds, arguments.large_rounds), &measured, &places);
    drop(places);
    figures.print();
    write_figures(arguments.json.as_deref(), &figures)?;
    ensure!(!stop.requested(), "stopped: these are the figures of what was done until then");
    Ok(figures.is_whole())
}

/// One piece of work on every target that is still in the comparison, one after the other, until somebody stops it.
fn one(work: &Work, round: u32, places: &mut Places, measured: &mut Vec<Measured>) {
    for (target, _) in TARGETS {
        let timing = places.perform(target, work);
        if let Some(timing) = timing {
            eprintln!("  {target:<26} {:>9.3} s", timing.total_seconds);
            measured.push(Measured { work: work.name, target, round, timing });
        }
    }
}
