//! `gate`: what an operation costs in messages, bytes, instructions, allocations and system calls, counted and not timed, so that a
//! machine's load changes little. CI holds it against `benches/gate.json`.
//!
//! ```console
//! $ ./x gate               # counts, and says what has changed; with --write, makes the new counts the ones to keep
//! ```
//!
//! Instructions and allocations are those of one process that holds all replicas and the client, from encoding a request to
//! decoding the last message it causes. They are counted by callgrind [valgrind.org/docs/manual/cl-manual.html]. System calls
//! are those of real replicas.

mod callgrind;
mod system_calls;

use anyhow::{Context, Result, bail, ensure};
use benches::group::{Group, Traffic};
use bfs_fs::op::{CreateMode, FsOp, FsReply, Inode, ROOT, decode_result};
use bytes::Bytes;
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use workloads::stop::Stop;

/// Counts what operations cost.
#[derive(Parser)]
#[command(name = "gate", version)]
struct Arguments {
    /// The counts to hold against
    #[arg(long, value_name = "FILE", default_value = "benches/gate.json")]
    kept: PathBuf,
    /// Keep what is counted now
    #[arg(long)]
    write: bool,
    /// Do without instructions and allocations, which want valgrind, and without system calls
    #[arg(long)]
    quick: bool,
    /// Instead: run one kind of operation, to be counted from outside
    #[arg(long, hide = true)]
    run: Option<String>,
}

/// What one operation costs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Counts {
    messages: f64,
    bytes: f64,
    instructions: f64,
    allocations: f64,
    /// Nothing where several are in flight: how many share a call depends on how long each takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system_calls: Option<f64>,
}

/// By how much instructions and allocations may grow unnoticed: compilers differ a little. Units: percent.
const TOLERANCE: f64 = 5.0;
/// By how much messages and bytes may: what is sent every so many batches falls into a run or not. Units: percent.
const TRAFFIC_TOLERANCE: f64 = 0.5;
/// By how much system calls may: messages that arrive together are read together, or not. Units: percent.
const SYSTEM_CALL_TOLERANCE: f64 = 25.0;

/// A kind of operation.
struct Kind {
    name: &'static str,
    n: u32,
    width: usize,
    count: usize,
    /// Whether it is asked for as a read, without an order.
    read_only: bool,
    op: fn(Inode, usize) -> FsOp,
}

const fn kind(
    name: &'static str,
    (n, width, count): (u32, usize, usize),
    read_only: bool,
    op: fn(Inode, usize) -> FsOp,
) -> Kind {
    Kind { name, n, width, count, read_only, op }
}

/// The counts of ordered operations are multiples of what lies between checkpoints.
const KINDS: [Kind; 7] = [
    kind("null, n = 1", (1, 1, 1280), false, null),
    kind("null, n = 4", (4, 1, 640), false, null),
    kind("null, n = 4, 64 in flight", (4, 64, 8192), false, null),
    kind("null read, n = 4", (4, 1, 1000), true, null),
    kind("attributes, n = 4", (4, 1, 1000), true, attributes),
    kind("read 4 KiB, n = 4", (4, 1, 1000), true, read),
    kind("write 4 KiB, n = 4", (4, 1, 640), false, write),
];

fn null(_: Inode, _: usize) -> FsOp {
    FsOp::Null { argument: Vec::new(), result: 0 }
}

fn attributes(inode: Inode, _: usize) -> FsOp {
    FsOp::GetAttributes { inode }
}

fn read(inode: Inode, i: usize) -> FsOp {
    FsOp::Read { inode, offset: (i as u64 % 64) * 4096, count: 4096 }
}

fn write(inode: Inode, i: usize) -> FsOp {
    FsOp::Write { inode, offset: (i as u64 % 64) * 4096, data: vec![7; 4096].into() }
}

/// Has `ask` make a file of 256 KiB.
fn prepare(mut ask: impl FnMut(FsOp) -> Result<Bytes>) -> Result<Inode> {
    let create =
        FsOp::Create { parent: ROOT, name: b"f".to_vec(), mode: 0o600, how: CreateMode::Guarded };
    let inode = match decode_result(&ask(create)?) {
        Some(Ok(FsReply::Attributes(attributes))) => attributes.inode,
        other => bail!("no file: {other:?}"),
    };
    (0..64).try_for_each(|i| ask(write(inode, i)).map(drop))?;
    Ok(inode)
}

/// A group with that file.
fn prepared(kind: &Kind) -> Result<(Group, Inode)> {
    let mut group = Group::new(kind.n);
    let inode = prepare(|op| group.run(1, false, [op]).pop().context("no answer"))?;
    // Whatever is done once has been done.
    let warm_up = (0..kind.width.max(130)).map(|i| (kind.op)(inode, i));
    group.run(kind.width, kind.read_only, warm_up);
    group.traffic = Traffic::default();
    Ok((group, inode))
}

/// What is counted: callgrind begins and ends with this function.
#[inline(never)]
fn counted(group: &mut Group, kind: &Kind, inode: Inode) {
    let operations = (0..kind.count).map(|i| (kind.op)(inode, i));
    let answers = group.run(kind.width, kind.read_only, operations);
    assert_eq!(answers.len(), kind.count);
}

/// See Cargo.toml for why.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(name) = &arguments.run {
        let kind = KINDS.iter().find(|kind| kind.name == name).context("no such kind")?;
        let (mut group, inode) = prepared(kind)?;
        counted(&mut group, kind, inode);
        return Ok(());
    }
    let stop = Stop::on_signals()?;
    let unwatched = system_calls::why_not().filter(|_| !arguments.quick);
    if let Some(why) = &unwatched {
        eprintln!("system calls are not counted: {why}");
    }
    let watch = !arguments.quick && unwatched.is_none();
    ensure!(watch || !arguments.write, "what is not counted would be lost: not written");
    let mut found = BTreeMap::new();
    for kind in &KINDS {
        let mut counts = count(kind, arguments.quick)?;
        if watch && kind.width == 1 {
            counts.system_calls = Some(system_calls::count(kind, &stop)?);
        }
        found.insert(kind.name.to_owned(), counts);
    }
    if arguments.write {
        let text = serde_json::to_string_pretty(&found)? + "\n";
        return std::fs::write(&arguments.kept, text).context("cannot write the counts");
    }
    let kept = kept(&arguments.kept)?;
    let mut worse = Vec::new();
    println!(
        "{:<28} {:>9} {:>9} {:>13} {:>12} {:>13}",
        "an operation", "messages", "bytes", "instructions", "allocations", "system calls"
    );
    for (name, now) in &found {
        let Counts { messages, bytes, instructions, allocations, system_calls } = now;
        let system_calls = system_calls.map_or("-".into(), |calls| format!("{calls:.1}"));
        println!(
            "{name:<28} {messages:>9.2} {bytes:>9.0} {instructions:>13.0} {allocations:>12.1} {system_calls:>13}"
        );
        let before =
            kept.get(name).with_context(|| format!("{name} is not among the kept counts"))?;
        worse.extend(compare(name, now, before, arguments.quick));
    }
    match worse.is_empty() {
        true => Ok(()),
        false => bail!(
            "it costs more than before:\n  {}\n  try: find the cause, or keep the new counts with ./x gate --write and say why in the commit",
            worse.join("\n  ")
        ),
    }
}

fn count(kind: &Kind, quick: bool) -> Result<Counts> {
    let (mut group, inode) = prepared(kind)?;
    counted(&mut group, kind, inode);
    let per = |total: u64| total as f64 / kind.count as f64;
    let (instructions, allocations) = match quick {
        true => (0, 0),
        false => callgrind::count(kind.name, "gate::counted")?,
    };
    Ok(Counts {
        messages: per(group.traffic.messages),
        bytes: per(group.traffic.bytes),
        instructions: per(instructions),
        allocations: per(allocations),
        system_calls: None,
    })
}

fn kept(path: &Path) -> Result<BTreeMap<String, Counts>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; ./x gate --write makes it", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// What has grown by more than is tolerated.
fn compare(name: &str, now: &Counts, before: &Counts, quick: bool) -> Vec<String> {
    let all = [
        ("messages", now.messages, before.messages, TRAFFIC_TOLERANCE),
        ("bytes", now.bytes, before.bytes, TRAFFIC_TOLERANCE),
        ("instructions", now.instructions, before.instructions, TOLERANCE),
        ("allocations", now.allocations, before.allocations, TOLERANCE),
        (
            "system calls",
            now.system_calls.unwrap_or_default(),
            before.system_calls.unwrap_or_default(),
            SYSTEM_CALL_TOLERANCE,
        ),
    ];
    let counted = if quick { 2 } else { all.len() };
    let grown = all.into_iter().take(counted);
    let grown = grown.filter(|(_, now, before, percent)| *now > before * (1.0 + percent / 100.0));
    grown.map(|(what, now, before, _)| format!("{name}: {what} {before:.1} → {now:.1}")).collect()
}
