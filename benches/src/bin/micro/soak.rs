//! A busy machine is no reason to change the view.

use crate::bed::{Bed, Null};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};
use workloads::stop::Stop;

/// Keeps 64 operations in flight for `minutes`.
///
/// Errors: the view is another one afterwards.
pub fn run(minutes: u64) -> Result<()> {
    let stop = Stop::on_signals()?;
    let bed = Bed::new(4, &stop)?;
    let view = || -> Result<u64> {
        let (_, view) = bed.group.status()?.primary().context("nobody says who the primary is")?;
        Ok(view)
    };
    let (before, start, mut done) = (view()?, Instant::now(), 0.0);
    while start.elapsed() < Duration::from_secs(60 * minutes) {
        let piece = Duration::from_secs(5);
        let rate = bed.throughput(piece, 64, Null::SMALL)?;
        done += rate * piece.as_secs_f64();
        println!("{:>5} s   {done:>10.0} done   {rate:>8.0} a second", start.elapsed().as_secs());
    }
    let after = view()?;
    if before != after {
        bail!("the view went from {before} to {after} although nothing was wrong");
    }
    println!("{done:.0} operations in {} s, still view {after}", start.elapsed().as_secs());
    Ok(())
}
