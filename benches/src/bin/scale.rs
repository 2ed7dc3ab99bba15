//! `scale`: how the cost of an operation grows with replicas, clients, files, their size and the network's round trip. One
//! process holds a whole group, and time is virtual, so ten times as many replicas do not have to share a machine.
//!
//! ```console
//! $ ./x scale --json docs/figures/scale.json
//! ```

use anyhow::{Result, bail};
use benches::group::{Group, Traffic};
use bfs_fs::op::{CreateMode, FsOp, FsReply, Inode, ROOT, decode_result};
use clap::Parser;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use workloads::stamp::Stamp;

/// How the cost of an operation grows
#[derive(Parser)]
#[command(name = "scale", version)]
struct Arguments {
    /// Up to how many files there are; ten million take 8 GiB of memory
    #[arg(long, default_value_t = 1_000_000)]
    files: usize,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One thing that grows, and what an operation costs meanwhile.
#[derive(Serialize)]
struct Curve {
    name: &'static str,
    columns: Vec<&'static str>,
    /// What grows, then the columns.
    rows: Vec<Vec<f64>>,
}

#[derive(Serialize)]
struct Figures {
    stamp: Stamp,
    curves: Vec<Curve>,
}

/// See Cargo.toml for why.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // First: what others have freed would be taken for free.
    let files = files(arguments.files)?;
    print(&files);
    let mut curves = vec![files];
    for curve in [replicas, clients, round_trip, file_size] {
        let curve = curve()?;
        print(&curve);
        curves.push(curve);
    }
    if let Some(path) = &arguments.json {
        let figures = Figures { stamp: Stamp::here(), curves };
        std::fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    Ok(())
}

fn print(curve: &Curve) {
    println!(
        "\n{:>14} {}",
        curve.name,
        curve.columns.iter().map(|c| format!("{c:>22}")).collect::<String>()
    );
    for row in &curve.rows {
        let cells: String = row[1..].iter().map(|value| format!("{value:>22.1}")).collect();
        println!("{:>14} {cells}", row[0]);
    }
}

const NULL: FsOp = FsOp::Null { argument: Vec::new(), result: 0 };

/// What `work` of `operations` took of the processor. Units: microseconds an operation.
fn processor(operations: usize, work: impl FnOnce()) -> Result<f64> {
    let now =
        || -> Result<Duration> { Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into()) };
    let before = now()?;
    work();
    Ok((now()? - before).as_secs_f64() * 1e6 / operations as f64)
}

fn replicas() -> Result<Curve> {
    const OPERATIONS: usize = 1024;
    let mut rows = Vec::new();
    for n in (4..=31).step_by(3) {
        let mut row = vec![f64::from(n)];
        for width in [1, 64] {
            let mut group = Group::new(n);
            group.run(width, false, std::iter::repeat_n(NULL, 256));
            group.traffic = Traffic::default();
            let cost = processor(OPERATIONS, || {
                drop(group.run(width, false, std::iter::repeat_n(NULL, OPERATIONS)));
            })?;
            let per = |total: u64| total as f64 / OPERATIONS as f64;
            row.extend([
                per(group.traffic.messages),
                per(group.traffic.bytes),
                cost / f64::from(n),
            ]);
        }
        rows.push(row);
    }
    let columns =
        vec!["messages", "bytes", "µs a replica", "messages, 64", "bytes, 64", "µs a replica, 64"];
    Ok(Curve { name: "replicas", columns, rows })
}

fn clients() -> Result<Curve> {
    const OPERATIONS: usize = 8000;
    let mut rows = Vec::new();
    for clients in [1, 10, 100, 1000] {
        let mut group = Group::with(4, clients, Duration::from_micros(500));
        let each = OPERATIONS / clients as usize;
        let start = group.clock();
        let mut took = Vec::new();
        let cost = processor(OPERATIONS, || took = group.flow(each, false, &NULL))?;
        let virtual_seconds = group.clock().since(start).as_secs_f64();
        let messages = group.traffic.messages as f64 / OPERATIONS as f64;
        rows.push(vec![
            f64::from(clients),
            messages,
            cost / 4.0,
            median(took),
            OPERATIONS as f64 / virtual_seconds,
        ]);
    }
    let columns = vec!["messages", "µs a replica", "ms, rtt 1 ms", "a second, rtt 1 ms"];
    Ok(Curve { name: "clients", columns, rows })
}

/// Units: milliseconds.
fn median(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    took.get(took.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn round_trip() -> Result<Curve> {
    let mut rows = Vec::new();
    for rtt in [0, 1, 5, 10, 50, 100, 200] {
        let delay = Duration::from_micros(rtt * 500);
        let mut row = vec![rtt as f64];
        for read_only in [false, true] {
            row.push(median(Group::with(4, 1, delay).flow(200, read_only, &NULL)));
        }
        let mut busy = Group::with(4, 64, delay);
        let start = busy.clock();
        busy.flow(100, false, &NULL);
        row.push(6400.0 / busy.clock().since(start).as_secs_f64());
        rows.push(row);
    }
    let columns = vec!["ms, ordered", "ms, read-only", "a second, 64 clients"];
    Ok(Curve { name: "round trip, ms", columns, rows })
}

fn create(parent: Inode, name: String) -> FsOp {
    FsOp::Create { parent, name: name.into_bytes(), mode: 0o600, how: CreateMode::Guarded }
}

fn inode(answer: &[u8]) -> Result<Inode> {
    match decode_result(answer) {
        Some(Ok(FsReply::Attributes(attributes))) => Ok(attributes.inode),
        other => bail!("no file: {other:?}"),
    }
}

fn file_size() -> Result<Curve> {
    const OPERATIONS: usize = 2000;
    const PIECE: usize = 1 << 20;
    let mut rows = Vec::new();
    for mib in [1, 16, 256] {
        let mut group = Group::new(1);
        let file = inode(&group.run(1, false, [create(ROOT, "f".into())])[0])?;
        let piece = |i: usize| FsOp::Write {
            inode: file,
            offset: (i * PIECE) as u64,
            data: vec![7; PIECE].into(),
        };
        group.run(4, false, (0..mib).map(piece));
        let place = |i: usize| (i * 7919 % (mib * 256) * 4096) as u64;
        let write = |i| FsOp::Write { inode: file, offset: place(i), data: vec![9; 4096].into() };
        let read = |i| FsOp::Read { inode: file, offset: place(i), count: 4096 };
        let writing =
            processor(OPERATIONS, || drop(group.run(1, false, (0..OPERATIONS).map(write))))?;
        let reading =
            processor(OPERATIONS, || drop(group.run(1, true, (0..OPERATIONS).map(read))))?;
        rows.push(vec![mib as f64, writing, reading]);
    }
    Ok(Curve { name: "file, MiB", columns: vec!["µs, 4 KiB write", "µs, 4 KiB read"], rows })
}

/// Files in directories of a thousand; a group of one, so that the file system and its tree are what is seen.
fn files(most: usize) -> Result<Curve> {
    const LOOKED_AT: usize = 2000;
    let mut group = Group::new(1);
    let (mut rows, mut made, mut directory) = (Vec::new(), 0, ROOT);
    let empty = resident_bytes();
    for goal in (3..).map(|digits| 10usize.pow(digits)).take_while(|goal| *goal <= most) {
        let before = made;
        let mut last = Vec::new();
        let creating = processor(goal - before, || {
            while made < goal {
                if made % 1000 == 0 {
                    let name = format!("d{made}").into_bytes();
                    let make = FsOp::MakeDirectory { parent: ROOT, name, mode: 0o700 };
                    directory = inode(&group.run(1, false, [make])[0]).unwrap_or(ROOT);
                }
                let names = made..(made + 1000).min(goal);
                made = names.end;
                last = group.run(32, false, names.map(|i| create(directory, format!("f{i}"))));
            }
        })?;
        let file = inode(&last[0])?;
        let look = FsOp::GetAttributes { inode: file };
        let looking = processor(LOOKED_AT, || {
            drop(group.run(1, true, std::iter::repeat_n(look, LOOKED_AT)));
        })?;
        let grown = resident_bytes().saturating_sub(empty);
        rows.push(vec![goal as f64, creating, looking, grown as f64 / goal as f64]);
    }
    let columns = vec!["µs a create", "µs a getattr", "resident bytes a file"];
    Ok(Curve { name: "files", columns, rows })
}

/// What this process has in memory; nothing where the system does not tell. [proc_pid_statm(5)]
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
