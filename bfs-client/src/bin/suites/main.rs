//! `suites`: what good file systems are held to, on a mount of a real group of four replicas, and through NFS.

mod bed;
mod compare;
mod fsx;
mod goal;
mod middle;
mod nfs;
mod nfs_client;
mod nfs_rpc;
mod pjdfstest;
mod programs;
mod speed;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Test suites of others on a mount of a group of four replicas
#[derive(Parser)]
#[command(name = "suites", version)]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// POSIX conformance, case by case
    Pjdfstest(pjdfstest::Arguments),
    /// Random operations on a file, compared with what they must give
    Fsx(fsx::Arguments),
    /// Real programs at work
    Programs(programs::Arguments),
    /// What replication costs
    Speed(speed::Arguments),
    /// The Linux kernel's own NFSv3 client, in user-mode Linux
    NfsClient(nfs_client::Arguments),
    /// Single NFSv3 calls, beside a plain server
    NfsRpc(nfs_rpc::Arguments),
    /// The same work on BFS and on plain servers
    Compare(compare::Arguments),
    /// What the guests of nfs-client run
    #[command(hide = true)]
    InGuest(nfs::work::Arguments),
}

/// What every suite can be told.
#[derive(Args, Clone)]
struct Common {
    /// Kill one backup before the suite starts, so that every answer needs all the others
    #[arg(long)]
    without_spare: bool,
    /// Let replica 0, the first primary, make this attack all the time, for example B-48 (wrong replies) or B-01
    /// (equivocation); docs/simulator.md names them
    #[arg(long, value_name = "ATTACK", conflicts_with = "without_spare")]
    byzantine: Option<String>,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match &Arguments::parse().suite {
        Suite::Pjdfstest(arguments) => pjdfstest::run(arguments),
        Suite::Fsx(arguments) => fsx::run(arguments),
        Suite::Programs(arguments) => programs::run(arguments),
        Suite::Speed(arguments) => speed::run(arguments),
        Suite::NfsClient(arguments) => nfs_client::run(arguments),
        Suite::NfsRpc(arguments) => nfs_rpc::run(arguments),
        Suite::Compare(arguments) => compare::run(arguments),
        Suite::InGuest(arguments) => nfs::work::run(arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("suites: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes `figures` where `common` asks for them.
fn write_json(common: &Common, figures: &impl Serialize) -> Result<()> {
    write_figures(common.json.as_deref(), figures)
}

/// Writes `figures` to the file `path`, if there is one.
fn write_figures(path: Option<&Path>, figures: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(figures)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
