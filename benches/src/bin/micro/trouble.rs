//! What is left of the speed while something is wrong, and the longest wait that a checkpoint costs.

use crate::bed::{Bed, Null, request};
use crate::figures::{Latency, Spread, latency};
use anyhow::{Context, Result, bail};
use bfs_fs::op::{CreateMode, FsOp, FsReply, Inode, ROOT, decode_result};
use bytes::Bytes;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use workloads::stop::Stop;

/// How many operations are in flight meanwhile.
const WIDTH: usize = 64;
const PIECE: Duration = Duration::from_secs(2);
/// How long a group may take to find out what is wrong and to settle; a new one is faster than one that has run for a while.
const SETTLING: Duration = Duration::from_secs(4);

/// Throughput with a fault, as a part of that without. Each round measures both, one after the other.
#[derive(Serialize)]
pub struct Faults {
    pub crashed: Spread,
    pub wrong_macs: Spread,
    pub slow_primary: Spread,
}

/// f of four replicas crash, a client's MACs are good for the primary alone, the primary delays to just under the timeout.
pub fn faults(rounds: usize, stop: &Stop) -> Result<Faults> {
    let rounds = |one: fn(&Stop) -> Result<f64>| -> Result<Spread> {
        Ok(Spread::of((0..rounds).map(|_| one(stop)).collect::<Result<Vec<_>>>()?))
    };
    Ok(Faults {
        crashed: rounds(crashed)?,
        wrong_macs: rounds(wrong_macs)?,
        slow_primary: rounds(slow_primary)?,
    })
}

/// The throughput with what `begin` begins, as a part of that before.
fn left(bed: &mut Bed, begin: impl FnOnce(&mut Bed) -> Result<()>) -> Result<f64> {
    let before = settled(bed)?;
    begin(bed)?;
    Ok(settled(bed)? / before)
}

fn settled(bed: &Bed) -> Result<f64> {
    bed.throughput(SETTLING, WIDTH, Null::SMALL)?;
    bed.throughput(PIECE, WIDTH, Null::SMALL)
}

fn crashed(stop: &Stop) -> Result<f64> {
    left(&mut Bed::new(4, stop)?, |bed| Ok(bed.group.kill(3)?))
}

fn wrong_macs(stop: &Stop) -> Result<f64> {
    let mut bed = Bed::lab(4, stop)?;
    let left = left(&mut bed, |bed| Ok(bed.group.intrude("bad-mac")?))?;
    if !bed.group.end_intrusion() {
        bail!("the client with the wrong MACs had ended");
    }
    Ok(left)
}

fn slow_primary(stop: &Stop) -> Result<f64> {
    left(&mut Bed::lab(4, stop)?, |bed| {
        bed.group.attack(0, Some("B-07"), &[])?;
        Ok(())
    })
}

/// Null operations, one at a time, while checkpoints are taken of a large state.
#[derive(Serialize)]
pub struct Checkpoints {
    /// Units: bytes.
    pub state: u64,
    /// Batches executed meanwhile; a checkpoint comes every 128.
    pub batches: u64,
    /// The part of the state that changed from one checkpoint to the next, about. Units: percent.
    pub changed: f64,
    /// While the same is written into a state of 1/64 of the size: what the load alone costs.
    pub small_state: Latency,
    /// Units: microseconds.
    pub large_state: Latency,
    /// The latest wake-up of a thread that slept 1 ms again and again meanwhile: what the machine alone costs.
    pub machine: Latency,
}

const FILE: u64 = 16 << 20;
const PAGE: u64 = 4096;
/// Batches from one checkpoint to the next.
const INTERVAL: u64 = 128;
const LARGEST_WRITE: u64 = 1 << 20;

/// Fills `size` bytes of files, and measures while stretches of them are written again at random.
pub fn checkpoints(size: u64, time: Duration, stop: &Stop) -> Result<Checkpoints> {
    // A batch writes at most one: a hundredth of the state in the batches between two checkpoints, or a little less.
    let stretch = (size / 100 / INTERVAL / PAGE).next_power_of_two() * PAGE;
    let small = waits(size / 64, stretch, time, stop)?;
    let large = waits(size, stretch, time, stop)?;
    let checkpoints = (large.batches as f64 / INTERVAL as f64).max(1.0);
    Ok(Checkpoints {
        state: size,
        batches: large.batches,
        changed: large.written as f64 / checkpoints / size as f64 * 100.0,
        small_state: small.nulls,
        large_state: large.nulls,
        machine: large.machine,
    })
}

struct Waits {
    nulls: Latency,
    machine: Latency,
    batches: u64,
    written: u64,
}

fn waits(size: u64, stretch: u64, time: Duration, stop: &Stop) -> Result<Waits> {
    let bed = Bed::new(4, stop)?;
    let files = (0..size.div_ceil(FILE)).map(|i| create(&bed, i)).collect::<Result<Vec<_>>>()?;
    fill(&bed, &files, size)?;
    // The checkpoint of all that is not what is measured.
    for _ in 0..=INTERVAL {
        ask(&bed, request(FsOp::Null { argument: Vec::new(), result: 0 }))?;
    }
    let executed =
        || -> Result<u64> { bed.group.status()?.last_executed().context("nobody answers") };
    let before = executed()?;
    let (over, mut chance, mut written) = (AtomicBool::new(false), 0x5eed_u64, 0);
    let start = Instant::now();
    let (nulls, machine) = std::thread::scope(|scope| -> Result<_> {
        let nulls = scope.spawn(|| one_by_one(&bed, &over));
        let machine = scope.spawn(|| overslept(&over));
        let next = || {
            let place = random(&mut chance) % (size / stretch) * stretch;
            let (inode, offset) = (files[(place / FILE) as usize], place % FILE);
            let data = vec![place as u8; stretch as usize].into();
            written += stretch;
            (start.elapsed() < time).then(|| request(FsOp::Write { inode, offset, data }))
        };
        // One write a batch, so that requests wait for the checkpoint and not for each other.
        let busy = bed.keep_busy(1, next, Null::SMALL);
        over.store(true, Ordering::Relaxed);
        let ended = |_| anyhow::anyhow!("a measuring thread panicked");
        let (nulls, machine) = (nulls.join().map_err(ended)?, machine.join().map_err(ended)?);
        busy?;
        Ok((nulls?, machine))
    })?;
    Ok(Waits { nulls, machine, batches: executed()? - before, written })
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn create(bed: &Bed, i: u64) -> Result<Inode> {
    let name = format!("f{i}").into_bytes();
    let op = FsOp::Create { parent: ROOT, name, mode: 0o600, how: CreateMode::Guarded };
    match ask(bed, request(op))? {
        FsReply::Attributes(attributes) => Ok(attributes.inode),
        other => bail!("a create was answered by {other:?}"),
    }
}

fn ask(bed: &Bed, op: Bytes) -> Result<FsReply> {
    let (sender, receiver) = mpsc::channel();
    bed.session.submit(op, false, move |result| drop(sender.send(result)));
    let bytes = receiver.recv()?.map_err(|why| anyhow::anyhow!("no answer: {why}"))?;
    Ok(decode_result(&bytes).context("no result")??)
}

fn fill(bed: &Bed, files: &[Inode], size: u64) -> Result<()> {
    let mut places = (0..size).step_by(LARGEST_WRITE as usize);
    let next = || {
        let place = places.next()?;
        let data = vec![place as u8; LARGEST_WRITE.min(size - place) as usize].into();
        let (inode, offset) = (files[(place / FILE) as usize], place % FILE);
        Some(request(FsOp::Write { inode, offset, data }))
    };
    bed.keep_busy(4, next, Null::SMALL)?;
    Ok(())
}

fn one_by_one(bed: &Bed, over: &AtomicBool) -> Result<Latency> {
    let mut samples = Vec::new();
    let null = request(FsOp::Null { argument: Vec::new(), result: 0 });
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        ask(bed, null.clone())?;
        samples.push(start.elapsed());
    }
    Ok(latency(samples))
}

fn overslept(over: &AtomicBool) -> Latency {
    const NAP: Duration = Duration::from_millis(1);
    let mut samples = Vec::new();
    while !over.load(Ordering::Relaxed) || samples.is_empty() {
        let start = Instant::now();
        std::thread::sleep(NAP);
        samples.push(start.elapsed().saturating_sub(NAP));
    }
    latency(samples)
}
