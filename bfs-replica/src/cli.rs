//! The command line.

use crate::commands;
use crate::wire::Wire;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;

/// One replica of a BFS group: 3f+1 of them keep files correct while f are compromised.
#[derive(Parser)]
#[command(name = "bfs-replica")]
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

/// Runs the command line of this process, with `W` between the replica and its links.
pub fn main<W: Wire>() -> ExitCode {
    let command = Arguments::command().name(W::PROGRAM).version(W::VERSION);
    let matches = command.get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(&arguments.log);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let result = match arguments.command {
        Command::Init(arguments) => commands::init(&arguments),
        Command::Run(arguments) => commands::run::<W>(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}: {failure}", W::PROGRAM);
            ExitCode::from(failure.exit)
        }
    }
}
