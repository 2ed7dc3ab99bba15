//! What replication costs on the mount: the same operations on four replicas and on one, in one run.

use super::bed::{Bed, Size};
use super::{Common, write_json};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;
use workloads::stop::Stop;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// How often each small operation is done
    #[arg(long, default_value_t = 1000)]
    rounds: usize,
    /// How much is written and read in sequence. Units: MiB
    #[arg(long, default_value_t = 1024)]
    mib: usize,
}

/// What one group did. Units: microseconds at the median, and MiB a second.
#[derive(Clone, Copy, Serialize)]
struct Speeds {
    stat_us: f64,
    create_close_us: f64,
    write_fsync_us: f64,
    write_mib_s: f64,
    read_mib_s: f64,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    replicated: f64,
    unreplicated: f64,
    /// Of times the first to the second; of rates too.
    ratio: f64,
    /// The most of a time, the least of a rate.
    limit: f64,
    holds: bool,
}

#[derive(Serialize)]
struct Figures {
    suite: &'static str,
    rounds: usize,
    mib: usize,
    rows: Vec<Row>,
}

/// Whether every row holds.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let stop = Stop::on_signals().context("cannot wait for signals")?;
    let unreplicated = measure(arguments, &stop, Size { n: 1, f: 0 })?;
    let replicated = measure(arguments, &stop, Size { n: 4, f: 1 })?;
    let rows = rows(&replicated, &unreplicated);
    println!(
        "{:<28} {:>12} {:>12} {:>7} {:>7}",
        "", "4 replicas", "unreplicated", "ratio", "limit"
    );
    for Row { name, replicated, unreplicated, ratio, limit, holds } in &rows {
        let verdict = if *holds { "holds" } else { "MISSED" };
        println!(
            "{name:<28} {replicated:>12.1} {unreplicated:>12.1} {ratio:>7.2} {limit:>7.2} {verdict}"
        );
    }
    let figures = Figures { suite: "speed", rounds: arguments.rounds, mib: arguments.mib, rows };
    write_json(&arguments.common, &figures)?;
    Ok(figures.rows.iter().all(|row| row.holds))
}

fn rows(replicated: &Speeds, unreplicated: &Speeds) -> Vec<Row> {
    type Row4 = (&'static str, fn(&Speeds) -> f64, f64, bool);
    let wanted: [Row4; 5] = [
        ("stat, uncached, µs", |s| s.stat_us, 3.0, false),
        ("create and close, µs", |s| s.create_close_us, 4.0, false),
        ("4 KiB write and fsync, µs", |s| s.write_fsync_us, 4.0, false),
        ("sequential write, MiB/s", |s| s.write_mib_s, 0.25, true),
        ("uncached read, MiB/s", |s| s.read_mib_s, 0.6, true),
    ];
    let row = |(name, of, limit, is_rate): Row4| {
        let (replicated, unreplicated) = (of(replicated), of(unreplicated));
        let ratio = replicated / unreplicated;
        let holds = if is_rate { ratio >= limit } else { ratio <= limit };
        Row { name, replicated, unreplicated, ratio, limit, holds }
    };
    wanted.into_iter().map(row).collect()
}

fn measure(arguments: &Arguments, stop: &Stop, size: Size) -> Result<Speeds> {
    // Attributes and names are asked for each time.
    let options = "actimeo=0";
    let mut bed = Bed::of(size, &arguments.common, stop, options)?;
    let mount = bed.mount.clone();
    let (rounds, mib) = (arguments.rounds, arguments.mib);
    let small = bed.supervise(|| small_operations(&mount, rounds))?;
    let write_mib_s = bed.supervise(|| write_sequentially(&mount, mib))?;
    // What this machine has cached of the file goes with the mount.
    bed.remount(options)?;
    let read_mib_s = bed.supervise(|| read_sequentially(&mount, mib))?;
    if stop.requested() {
        bail!("stopped");
    }
    bed.end()?;
    let [create_close_us, stat_us, write_fsync_us] = small;
    Ok(Speeds { stat_us, create_close_us, write_fsync_us, write_mib_s, read_mib_s })
}

/// The median of each: creating and closing a file, asking about one, writing 4 KiB and having them safe.
fn small_operations(mount: &Path, rounds: usize) -> Result<[f64; 3]> {
    let name = |i: usize| mount.join(format!("f{i}"));
    let create = |i| File::create_new(name(i)).map(drop);
    let stat = |i| fs::metadata(name(i)).map(drop);
    // Warm: the group's code, its connections and this machine's caches of them.
    (rounds..rounds + rounds / 10).try_for_each(|i| create(i).and_then(|()| stat(i)))?;
    let create_close = median(rounds, create)?;
    let stat = median(rounds, stat)?;
    let file = File::create_new(mount.join("written"))?;
    let block = [7; 4096];
    let write = |i: usize| {
        file.write_all_at(&block, (i * block.len()) as u64)?;
        file.sync_all()
    };
    Ok([create_close, stat, median(rounds, write)?])
}

/// Units: microseconds.
fn median(rounds: usize, work: impl Fn(usize) -> std::io::Result<()>) -> Result<f64> {
    let mut times = Vec::with_capacity(rounds);
    for i in 0..rounds {
        let start = Instant::now();
        work(i)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let middle = times.get(rounds / 2).context("no rounds")?;
    Ok(middle.as_secs_f64() * 1e6)
}

fn write_sequentially(mount: &Path, mib: usize) -> Result<f64> {
    let mut file = File::create_new(mount.join("large"))?;
    let start = Instant::now();
    for i in 0..mib {
        file.write_all(&vec![i as u8; 1 << 20])?;
    }
    file.sync_all()?;
    Ok(mib as f64 / start.elapsed().as_secs_f64())
}

fn read_sequentially(mount: &Path, mib: usize) -> Result<f64> {
    let mut file = File::open(mount.join("large"))?;
    let mut buffer = vec![0; 1 << 20];
    let start = Instant::now();
    for i in 0..mib {
        file.read_exact(&mut buffer)?;
        if buffer.iter().any(|byte| *byte != i as u8) {
            bail!("MiB {i} is not what was written");
        }
    }
    Ok(mib as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_to_be_small_and_rates_large() {
        let one = Speeds {
            stat_us: 10.0,
            create_close_us: 10.0,
            write_fsync_us: 10.0,
            write_mib_s: 100.0,
            read_mib_s: 100.0,
        };
        let four = Speeds {
            stat_us: 31.0,
            create_close_us: 40.0,
            write_fsync_us: 41.0,
            write_mib_s: 25.0,
            read_mib_s: 59.0,
        };
        let holds: Vec<_> = rows(&four, &one).iter().map(|row| row.holds).collect();
        assert_eq!(holds, [false, true, false, true, false]);
    }
}
