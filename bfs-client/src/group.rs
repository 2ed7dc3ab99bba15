//! `bfs group`: the public file that says who the replicas and clients of a group are.

use crate::failure::{Exit, Failure, Outcome, say};
use bft_net::group::{
    ClientEntry, Group, GroupError, Member, Parameters, PublicFile, format_size, parse_size,
};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The verbs of `bfs group`.
#[derive(Subcommand, Clone, Debug)]
pub enum GroupCommand {
    /// Describe a group: its replicas, in the order of their ids, and who may use it
    Create(CreateArgs),
    /// Print what a group file says, and its id, which must be the same everywhere
    Show(ShowArgs),
}

/// Arguments of `bfs group create`.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
    /// The group file to write
    #[arg(long, short, value_name = "FILE", env = "BFS_OUTPUT")]
    pub output: PathBuf,
    /// How many replicas may be compromised; a group needs 3f+1 (default: as many as the replicas allow)
    #[arg(long, env = "BFS_F")]
    pub f: Option<u32>,
    /// What people call the group
    #[arg(long, default_value = "bfs", env = "BFS_NAME")]
    pub name: String,
    /// What the files may take of each replica's memory
    #[arg(long, value_name = "SIZE", default_value = "2GiB", env = "BFS_MEMORY")]
    pub memory: String,
    /// The public.toml of each replica, as bfs-replica init made them; the first becomes r0
    #[arg(long = "replica", value_name = "PUBLIC", num_args = 1.., required = true, value_delimiter = ',', env = "BFS_REPLICA")]
    pub replicas: Vec<PathBuf>,
    /// The public.toml of each client, as bfs init made them
    #[arg(long = "client", value_name = "PUBLIC", num_args = 1.., value_delimiter = ',', env = "BFS_CLIENT")]
    pub clients: Vec<PathBuf>,
}

/// Arguments of `bfs group show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// The group's public file
    #[arg(value_name = "GROUP", env = "BFS_GROUP")]
    pub file: PathBuf,
    /// Print one JSON object
    #[arg(long, env = "BFS_JSON")]
    pub json: bool,
}

/// Runs a verb of `bfs group`.
pub fn run(command: &GroupCommand) -> Outcome {
    match command {
        GroupCommand::Create(args) => create(args),
        GroupCommand::Show(args) => show(args),
    }
}

fn create(args: &CreateArgs) -> Outcome {
    let group = describe(args)?;
    write(&args.output, &group)?;
    let size = group.size();
    say(format_args!(
        "group {} ({}): {} replicas, {} clients; any {} of the replicas may be compromised",
        group.id(),
        group.name,
        size.n(),
        group.clients.len(),
        size.f()
    ))?;
    say(format_args!(
        "copy {} to every replica and every client; its id must be the same everywhere",
        args.output.display()
    ))?;
    if group.clients.is_empty() {
        say("nobody may use it yet: no --client is named")?;
    }
    Ok(())
}

/// The group that the arguments describe.
///
/// Errors: a public file that cannot be used or is of the wrong kind; what the group file itself forbids.
fn describe(args: &CreateArgs) -> Outcome<Group> {
    let memory = parse_size(&args.memory).ok_or_else(|| {
        cannot("create the group", format!("--memory {} is not a size", args.memory))
            .advise("--memory 2GiB")
            .exit(Exit::Usage)
    })?;
    let replicas = args.replicas.iter().map(|path| replica(path)).collect::<Outcome<Vec<_>>>()?;
    let clients = args.clients.iter().map(|path| client(path)).collect::<Outcome<Vec<_>>>()?;
    let most = u32::try_from(replicas.len().saturating_sub(1) / 3).unwrap_or(u32::MAX);
    let group = Group {
        name: args.name.clone(),
        f: args.f.unwrap_or(most),
        memory,
        parameters: Parameters::default(),
        replicas,
        clients,
    };
    group.check().map_err(|error| {
        cannot("create the group", error)
            .advise("3f+1 replicas, each with an address and keys of its own")
    })?;
    Ok(group)
}

fn replica(path: &Path) -> Outcome<Member> {
    let public = public_file(path)?;
    match public.address {
        Some(address) => Ok(Member { address, identity: public.identity }),
        None => Err(cannot(format!("use {} as a replica", path.display()), "it has no address, so it is a client's")
            .advise("name it with --client; a replica's is made by: bfs-replica init DIR --listen HOST:PORT")),
    }
}

fn client(path: &Path) -> Outcome<ClientEntry> {
    let public = public_file(path)?;
    match public.name {
        Some(name) => Ok(ClientEntry { name, identity: public.identity }),
        None => Err(cannot(
            format!("use {} as a client", path.display()),
            "it has no name, so it is a replica's",
        )
        .advise("name it with --replica; a client's is made by: bfs init DIR")),
    }
}

pub(crate) fn public_file(path: &Path) -> Outcome<PublicFile> {
    PublicFile::load(path).map_err(|error| {
        cannot(format!("use {}", path.display()), reason(error))
            .advise("name the public.toml that bfs-replica init or bfs init made")
            .exit(Exit::Keys)
    })
}

/// Writes the file. One that is there already is left alone: replicas may run by it.
fn write(path: &Path, group: &Group) -> Outcome {
    let what = || format!("write {}", path.display());
    match fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => io::Write::write_all(&mut file, group.to_toml().as_bytes())
            .map_err(|error| cannot(what(), error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match Group::load(path) {
            Ok(old) if old == *group => Ok(()),
            Ok(old) => {
                let difference = old.diff(group).join("\n    ");
                Err(cannot(
                    what(),
                    format!(
                        "it exists and describes another group, {}:\n    {difference}",
                        old.id()
                    ),
                )
                .advise("another --output, or remove the file first"))
            }
            Err(_) => {
                Err(cannot(what(), "it exists and is no group file").advise("another --output"))
            }
        },
        Err(error) => Err(cannot(what(), error).advise("an --output that you may write to")),
    }
}

/// Reads a group file.
///
/// Errors: it cannot be read, or says something impossible; exit code 6.
pub fn load(path: &Path) -> Outcome<Group> {
    Group::load(path).map_err(|error| {
        cannot(format!("use the group file {}", path.display()), reason(error))
            .advise("copy the file that bfs group create wrote")
            .exit(Exit::Keys)
    })
}

/// The error without the path, which is told already.
fn reason(error: GroupError) -> String {
    match error {
        GroupError::Io { error, .. } => error.to_string(),
        GroupError::Syntax(text) => format!("it is not as expected:\n{}", text.trim_end()),
        other => other.to_string(),
    }
}

fn cannot(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Failure {
    Failure::new(format!("cannot {what}"), why)
}

/// What `bfs group show --json` prints; the field names are a stable interface.
#[derive(Serialize)]
struct Description {
    id: String,
    /// All 64 digits of the id.
    digest: String,
    name: String,
    replicas: Vec<String>,
    clients: Vec<String>,
    f: usize,
    quorum: usize,
    memory: u64,
}

fn show(args: &ShowArgs) -> Outcome {
    let group = load(&args.file)?;
    let size = group.size();
    let description = Description {
        id: group.id().to_string(),
        digest: group.id().0.to_string(),
        name: group.name.clone(),
        replicas: group.replicas.iter().map(|member| member.address.clone()).collect(),
        clients: group.clients.iter().map(|client| client.name.clone()).collect(),
        f: size.f(),
        quorum: size.quorum(),
        memory: group.memory,
    };
    match args.json {
        true => {
            let text =
                serde_json::to_string(&description).map_err(|e| cannot("print the group", e))?;
            say(text)
        }
        false => say(description.text().trim_end()),
    }
}

impl Description {
    fn text(&self) -> String {
        let mut text = format!(
            "group {} ({})\n  {} replicas, any {} of which may be compromised; {} must answer\n  {} of each replica's memory\n",
            self.id,
            self.name,
            self.replicas.len(),
            self.f,
            self.quorum,
            format_size(self.memory)
        );
        for (id, address) in self.replicas.iter().enumerate() {
            text.push_str(&format!("  r{id:<4} {address}\n"));
        }
        for (id, name) in self.clients.iter().enumerate() {
            text.push_str(&format!("  c{id:<4} {name}\n"));
        }
        text
    }
}
