//! `bfs-replica`: one replica of a BFS group.

#![forbid(unsafe_code)]

mod commands;
mod driver;

use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;

/// One replica of a BFS group: 3f+1 of them keep files correct while f are compromised.
#[derive(Parser)]
#[command(name = "bfs-replica", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What to log on standard error: error, warn, info, debug, or a filter
    #[arg(long, global = true, value_name = "FILTER", env = "BFS_LOG", default_value = "info")]
    log: String,
}

#[derive(Subcommand)]
enum Command {
    /// Make this replica's keys and settings; the keys never leave the folder, only its public.toml does
    Init(commands::InitArguments),
    /// Serve until SIGTERM or Ctrl-C
    Run(commands::RunArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(&arguments.log);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let result = match arguments.command {
        Command::Init(arguments) => commands::init(&arguments),
        Command::Run(arguments) => commands::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bfs-replica: {failure}");
            ExitCode::from(failure.exit)
        }
    }
}
