//! `micro`: what the protocol costs by itself: null operations, one at a time and many in flight, beside a plain TCP round
//! trip of the same run.
//!
//! A round trip over loopback has two prices: a few microseconds where the scheduler keeps both ends on one core, and ten
//! times that where each has its own and sleeps in between. The second is what two hosts would pay; both are shown.

use anyhow::{Context, Result, bail};
use bfs_client::local_group::{LocalGroup, Plan};
use bfs_client::options::Patience;
use bfs_client::session::{Session, connect};
use bfs_fs::op::{Caller, FsOp, FsRequest, encode_request};
use bytes::Bytes;
use clap::Parser;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use workloads::stop::Stop;

/// Null operations on a group of this machine's own.
#[derive(Parser)]
#[command(name = "micro", version)]
struct Arguments {
    /// Operations of each kind, one at a time.
    #[arg(long, default_value_t = 5000)]
    operations: usize,
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Instead: keep four replicas as busy as they can be for so long, and fail if that deposes a primary.
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u64>,
}

/// Units: microseconds.
#[derive(Serialize, Clone, Copy)]
struct Latency {
    p50: f64,
    p99: f64,
}

#[derive(Serialize)]
struct Figures {
    tcp_two_cores: Latency,
    tcp_one_core: Latency,
    ordered_n4: Latency,
    read_only_n4: Latency,
    ordered_n1: Latency,
    ordered_n4_over_tcp_two_cores: f64,
    ordered_n4_over_tcp_one_core: f64,
    /// Operations a second at the best number in flight.
    throughput_n4: f64,
    in_flight: usize,
}

fn latency(mut samples: Vec<Duration>) -> Latency {
    samples.sort_unstable();
    let at = |part: usize| samples[samples.len() * part / 100].as_secs_f64() * 1e6;
    Latency { p50: at(50), p99: at(99) }
}

/// Keeps the calling thread on one core.
fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot pin a thread to a core")
}

/// The round trip of a small message over loopback TCP, blocking sockets, no Nagle, each end pinned to a core.
fn tcp_round_trip(rounds: usize, cores: [usize; 2]) -> Result<Latency> {
    std::thread::spawn(move || tcp_round_trip_here(rounds, cores))
        .join()
        .unwrap_or_else(|_| bail!("the round trip panicked"))
}

fn tcp_round_trip_here(rounds: usize, cores: [usize; 2]) -> Result<Latency> {
    pin(cores[0])?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> Result<()> {
        pin(cores[1])?;
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut buffer = [0; 64];
        while stream.read_exact(&mut buffer).is_ok() {
            stream.write_all(&buffer)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut buffer = [7; 64];
    let mut samples = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        samples.push(start.elapsed());
    }
    drop(stream);
    match echo.join() {
        Ok(result) => result?,
        Err(_) => bail!("the echo panicked"),
    }
    Ok(latency(samples))
}

fn null() -> Bytes {
    let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
    encode_request(&FsRequest { caller, op: FsOp::Null { argument: Vec::new(), result: 0 } })
}

fn one_at_a_time(
    session: &Session,
    operations: usize,
    read_only: bool,
    stop: &Stop,
) -> Result<Latency> {
    let (sender, receiver) = mpsc::channel();
    let mut samples = Vec::with_capacity(operations);
    for _ in 0..operations {
        if stop.requested() {
            bail!("interrupted");
        }
        let sender = sender.clone();
        let start = Instant::now();
        session.submit(null(), read_only, move |result| drop(sender.send(result)));
        match receiver.recv()? {
            Ok(_) => samples.push(start.elapsed()),
            Err(why) => bail!("a null operation failed: {why:?}"),
        }
    }
    Ok(latency(samples))
}

/// Operations a second with `width` in flight.
fn throughput(session: &Session, operations: usize, width: usize) -> Result<f64> {
    let (sender, receiver) = mpsc::channel();
    let submit = || {
        let sender = sender.clone();
        session.submit(null(), false, move |result| {
            // Nobody listens only where this run has failed already.
            let _ = sender.send(result.is_ok());
        });
    };
    let start = Instant::now();
    (0..width).for_each(|_| submit());
    for done in 0..operations {
        if !receiver.recv_timeout(Duration::from_secs(30)).context("no answer in 30 s")? {
            bail!("a null operation failed");
        }
        if done + width < operations {
            submit();
        }
    }
    Ok(operations as f64 / start.elapsed().as_secs_f64())
}

fn session(group: &LocalGroup) -> Result<std::sync::Arc<Session>> {
    let (session, _) = connect(&group.group_file(), &group.key_dir(), Patience::Hard)?;
    Ok(session)
}

/// A busy machine is no reason to change the view: 64 in flight for `minutes`, and the same view afterwards.
fn soak(minutes: u64) -> Result<()> {
    let stop = Stop::on_signals()?;
    let group = LocalGroup::start(&Plan::new(4, 1, &stop)?)?;
    let session = session(&group)?;
    let view = || -> Result<u64> {
        let (_, view) = group.status()?.primary().context("nobody says who the primary is")?;
        Ok(view)
    };
    let (before, start, mut done) = (view()?, Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(60 * minutes) && !stop.requested() {
        const PIECE: usize = 100_000;
        let rate = throughput(&session, PIECE, 64)?;
        done += PIECE;
        println!("{:>5} s   {done:>10} done   {rate:>8.0} a second", start.elapsed().as_secs());
    }
    let after = view()?;
    if before != after {
        bail!("the view went from {before} to {after} although nothing was wrong");
    }
    println!("{done} operations in {} s, still view {after}", start.elapsed().as_secs());
    Ok(())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(minutes) = arguments.soak {
        return soak(minutes);
    }
    let operations = arguments.operations.max(100);
    let tcp_two_cores = tcp_round_trip(operations, [0, 1])?;
    let tcp_one_core = tcp_round_trip(operations, [0, 0])?;
    let stop = Stop::on_signals()?;
    let group = LocalGroup::start(&Plan::new(4, 1, &stop)?)?;
    let four = session(&group)?;
    one_at_a_time(&four, operations / 10, false, &stop)?;
    let ordered_n4 = one_at_a_time(&four, operations, false, &stop)?;
    let read_only_n4 = one_at_a_time(&four, operations, true, &stop)?;
    let mut best = (0.0, 0);
    for width in [8, 32, 64] {
        let rate = throughput(&four, operations * 4, width)?;
        if rate > best.0 {
            best = (rate, width);
        }
    }
    drop(four);
    drop(group);
    let group = LocalGroup::start(&Plan::new(1, 0, &stop)?)?;
    let one = session(&group)?;
    one_at_a_time(&one, operations / 10, false, &stop)?;
    let ordered_n1 = one_at_a_time(&one, operations, false, &stop)?;
    drop(one);
    let figures = Figures {
        tcp_two_cores,
        tcp_one_core,
        ordered_n4,
        read_only_n4,
        ordered_n1,
        ordered_n4_over_tcp_two_cores: ordered_n4.p50 / tcp_two_cores.p50,
        ordered_n4_over_tcp_one_core: ordered_n4.p50 / tcp_one_core.p50,
        throughput_n4: best.0,
        in_flight: best.1,
    };
    let row = |name: &str, l: Latency| {
        println!("{name:<28} p50 {:>8.1} µs   p99 {:>8.1} µs", l.p50, l.p99)
    };
    row("TCP round trip, two cores", figures.tcp_two_cores);
    row("TCP round trip, one core", figures.tcp_one_core);
    row("null, ordered, n = 1", figures.ordered_n1);
    row("null, ordered, n = 4", figures.ordered_n4);
    row("null, read-only, n = 4", figures.read_only_n4);
    println!(
        "n = 4 over TCP               {:>8.1} times (two cores), {:.1} times (one core)",
        figures.ordered_n4_over_tcp_two_cores, figures.ordered_n4_over_tcp_one_core
    );
    println!(
        "throughput, n = 4            {:>8.0} a second with {} in flight",
        figures.throughput_n4, figures.in_flight
    );
    if let Some(path) = arguments.json {
        std::fs::write(&path, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    Ok(())
}
