//! A plain round trip over TCP: what the floor itself is held against.
//!
//! It has two prices: a few microseconds where the scheduler keeps both ends on one core, and ten times that where each has
//! its own and sleeps in between. The second is what two hosts would pay; both are shown.

use crate::figures::{Latency, latency};
use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

/// Keeps the calling thread on one core.
fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot pin a thread to a core")
}

/// The round trip of a small message over loopback, blocking sockets, no Nagle, each end pinned to a core.
pub fn round_trip(rounds: usize, cores: [usize; 2]) -> Result<Latency> {
    std::thread::spawn(move || round_trip_here(rounds, cores))
        .join()
        .unwrap_or_else(|_| bail!("the round trip panicked"))
}

fn round_trip_here(rounds: usize, cores: [usize; 2]) -> Result<Latency> {
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
