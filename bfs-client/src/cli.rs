//! The command line of `bfs`.

use crate::failure::{Exit, Outcome};
use crate::{client, export, fsck, group, keys, mount, mount_helper, nfs, status, umount};
use clap::{Parser, Subcommand};
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Files that stay correct and available while one of the servers is compromised.
#[derive(Parser, Debug)]
#[command(name = "bfs", version, help_template = HELP, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log on standard error: error, warn, info, debug, or a filter such as bfs_client=debug
    #[arg(long, global = true, value_name = "FILTER", env = "BFS_LOG")]
    log: Option<String>,
}

/// The verbs by what they are for. A test holds it to the commands that exist.
const HELP: &str = "\
{about}

Usage: bfs [OPTIONS] COMMAND

Set up:
  init          make this client's keys
  group create  describe a group: its replicas and who may use it
  group show    print what a group file says, and its id
  client add    let a further client use a running group
  client revoke end what a client may do, at once
  client list   print who may use a running group
  export        say who may use what of a group's files
  quota         say how much a user or a subtree may take

Use:
  mount         mount a group on a directory
  umount        unmount it
  nfs           serve a group to NFSv3 clients

Watch and try:
  fsck          hold what the group says about its files against itself
  status        the health of a group, asked of every replica
  top           the same, again and again
  drill         let a replica of a lab build attack its group
  demo          start four replicas here, work on real files, and compromise one after the other

Options:
{options}

Every option can be given in the environment too: --key as BFS_KEY.
'bfs COMMAND --help' says more. Exit codes: 0 fine, 1 failed, 2 usage, 3 group degraded,
4 group stalled, 5 evidence of Byzantine behaviour, 6 keys, 7 timeout.
";

#[derive(Subcommand, Debug)]
enum Command {
    /// Make this client's keys; they never leave the folder, only its public.toml does
    Init(keys::InitArgs),
    /// Create and read group files
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Add, revoke and list the clients of a running group
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Say what the clients of a group may do with its files, or change it
    Export(export::ExportArgs),
    /// Say what a user or a subtree has taken and may take, or change it
    Quota(export::QuotaArgs),
    /// Read the whole tree, and say what is wrong with it
    Fsck(fsck::FsckArgs),
    /// Mount a group on a directory; returns when files can be used
    Mount(mount::MountArgs),
    /// Unmount, and say who keeps the mount busy if it is
    Umount(umount::UmountArgs),
    /// Serve a group as NFSv3 and MOUNT on one TCP port, until SIGTERM or Ctrl-C
    Nfs(nfs::NfsArgs),
    /// Ask every replica and say in one word how the group is
    Status(status::StatusArgs),
    /// The same again and again, with what changes
    Top(crate::top::TopArgs),
    /// Tell a lab replica of a running group to attack, or to be honest again
    Drill(crate::drill::DrillArgs),
    /// Start four replicas on this machine, work on real files, and compromise one after the other meanwhile
    Demo(crate::demo::DemoArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if mount_helper::is_called(std::env::args_os().next().as_deref()) {
        start_log(None, "info");
        return mount_helper::main(std::env::args_os().skip(1)).into();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is no reason for another message.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Fine.into() };
        }
    };
    // Who serves tells the story by default, other commands only what is wrong.
    let default =
        if matches!(cli.command, Command::Mount(_) | Command::Nfs(_)) { "info" } else { "warn" };
    start_log(cli.log.as_deref(), default);
    if only_prints(&cli.command) {
        // Where nobody reads on, as below `| head`, there is nothing left to do.
        sigpipe::reset();
    }
    match run(cli.command, cli.log.as_deref()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("bfs: {failure}");
            failure.exit.into()
        }
    }
}

fn only_prints(command: &Command) -> bool {
    use Command::*;
    matches!(
        command,
        Group(group::GroupCommand::Show(_))
            | Client(client::ClientCommand::List(_))
            | Fsck(_)
            | Status(_)
            | Top(_)
    )
}

fn run(command: Command, log: Option<&str>) -> Outcome<Exit> {
    let fine = |()| Exit::Fine;
    match command {
        Command::Init(args) => keys::init(&args).map(fine),
        Command::Group(args) => group::run(&args).map(fine),
        Command::Client(command) => client::run(&command).map(fine),
        Command::Export(args) => export::run(&args).map(fine),
        Command::Quota(args) => export::quota(&args).map(fine),
        Command::Fsck(args) => fsck::run(&args),
        Command::Mount(args) => mount::run_logging(&args, log).map(fine),
        Command::Umount(args) => umount::run(&args).map(fine),
        Command::Nfs(args) => nfs::run(&args).map(fine),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => crate::top::run(&args),
        Command::Drill(args) => crate::drill::run(&args),
        Command::Demo(args) => crate::demo::run(&args),
    }
}

/// Logs go to standard error.
fn start_log(filter: Option<&str>, default: &str) {
    let filter = EnvFilter::builder().parse_lossy(filter.unwrap_or(default));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_every_command() {
        let help = Cli::command().render_help().to_string();
        let listed = |name: &str| help.lines().any(|line| line.starts_with(&format!("  {name} ")));
        for command in Cli::command().get_subcommands() {
            let nested: Vec<_> = command.get_subcommands().collect();
            for inner in &nested {
                let name = format!("{} {}", command.get_name(), inner.get_name());
                assert!(listed(&name), "{name} is not in\n{help}");
            }
            assert!(listed(command.get_name()) || !nested.is_empty(), "{}", command.get_name());
        }
    }

    #[test]
    fn every_visible_option_has_its_variable() {
        fn check(command: &clap::Command) {
            for option in
                command.get_arguments().filter(|a| a.get_long().is_some() && !a.is_hide_set())
            {
                let name = option.get_id().as_str();
                if matches!(name, "help" | "version") {
                    continue;
                }
                let variable =
                    option.get_env().unwrap_or_else(|| panic!("{} --{name}", command.get_name()));
                assert!(variable.to_string_lossy().starts_with("BFS_"), "{variable:?}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn an_unknown_verb_is_a_usage_error() {
        assert!(Cli::try_parse_from(["bfs", "mounth"]).unwrap_err().use_stderr());
        assert!(!Cli::try_parse_from(["bfs", "--help"]).unwrap_err().use_stderr());
    }
}
