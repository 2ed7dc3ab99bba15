//! `bfs client`: who may use a group that runs. The group keeps it in its replicated state.

use crate::asking::{Asker, Whom};
use crate::failure::{Exit, Failure, Outcome, say};
use crate::group::public_file;
use bft_core::auth::PublicKey;
use bft_core::clients::{ClientIdentity, ClientsOp, ClientsReply, Refusal};
use bft_core::types::ClientId;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::PathBuf;

/// The verbs of `bfs client`.
#[derive(Subcommand, Clone, Debug)]
pub enum ClientCommand {
    /// Let a further client use the group, by its public.toml
    Add(AddArgs),
    /// End what a client has under way and all that it may do, at once and for good
    Revoke(RevokeArgs),
    /// Print who may use the group
    List(ListArgs),
}

/// Arguments of `bfs client add`.
#[derive(Args, Clone, Debug)]
pub struct AddArgs {
    #[command(flatten)]
    whom: Whom,
    /// The public.toml of the client, as bfs init made it
    #[arg(value_name = "PUBLIC")]
    public: PathBuf,
    /// Call it so, instead of what its public.toml says
    #[arg(long, env = "BFS_NAME")]
    name: Option<String>,
}

/// Arguments of `bfs client revoke`.
#[derive(Args, Clone, Debug)]
pub struct RevokeArgs {
    #[command(flatten)]
    whom: Whom,
    /// Which client, by its name or its number
    #[arg(value_name = "CLIENT")]
    client: String,
}

/// Arguments of `bfs client list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    whom: Whom,
    /// Print JSON
    #[arg(long, env = "BFS_JSON")]
    json: bool,
}

/// Runs a verb of `bfs client`.
pub fn run(command: &ClientCommand) -> Outcome {
    match command {
        ClientCommand::Add(args) => add(args),
        ClientCommand::Revoke(args) => revoke(args),
        ClientCommand::List(args) => list(args),
    }
}

fn add(args: &AddArgs) -> Outcome {
    let what = format!("cannot add the client of {}", args.public.display());
    let public = public_file(&args.public)?;
    let Some(name) = args.name.clone().or(public.name) else {
        return Err(Failure::new(what, "it has an address, so it is a replica's")
            .advise("name the public.toml that bfs init made")
            .exit(Exit::Keys));
    };
    if !public.identity.is_usable() {
        let why = "one of its keys is weak, or no key at all";
        return Err(Failure::new(what, why).advise("bfs init makes another").exit(Exit::Keys));
    }
    let group = args.whom.group()?;
    if group.replicas.iter().any(|member| member.identity.link == public.identity.link) {
        return Err(Failure::new(what, "a replica of the group has this key").exit(Exit::Keys));
    }
    let identity = ClientIdentity {
        name: name.clone(),
        link: public.identity.link,
        signing: PublicKey(public.identity.signing),
    };
    match args.whom.connect()?.of_clients(ClientsOp::Register(identity))? {
        ClientsReply::Registered(client) => say(format_args!(
            "client {} is {name}; it needs the group file and its own keys, nothing else",
            client.0
        )),
        other => Err(refused(what, &other)),
    }
}

fn revoke(args: &RevokeArgs) -> Outcome {
    let asker = args.whom.connect()?;
    let (client, _) = asker.client(&args.client)?;
    match asker.of_clients(ClientsOp::Revoke(client))? {
        ClientsReply::Revoked => say(format_args!(
            "client {} is revoked: its mounts fail from now on, and its locks are gone",
            client.0
        )),
        other => Err(refused(format!("cannot revoke {}", args.client), &other)),
    }
}

/// Why the table of clients stays as it is.
fn refused(what: String, reply: &ClientsReply) -> Failure {
    let ClientsReply::Refused(why) = reply else {
        return Failure::new(what, "the group answered something else")
            .advise("use the bfs that belongs to the replicas");
    };
    let failure = Failure::new(what, why);
    match why {
        Refusal::NotAdministrator => failure.advise(
            "use the keys of the administrator, who is the first client in the group file: --key KEYDIR",
        ),
        Refusal::NameTaken | Refusal::BadName => failure.advise("another name: --name NAME"),
        Refusal::KeyTaken => failure.advise("see bfs client list; bfs init makes other keys"),
        Refusal::NoSuchClient => failure.advise("see bfs client list"),
        Refusal::Full => failure.advise("bfs client revoke whoever does not come any more"),
        Refusal::IsAdministrator => failure,
    }
}

/// A client, as it is printed.
#[derive(Serialize)]
struct Line {
    client: u32,
    name: String,
    administrator: bool,
    /// Of the key that its signatures prove: 64 hexadecimal digits.
    signing: String,
}

impl Line {
    fn of((client, identity): (ClientId, ClientIdentity)) -> Self {
        let signing = identity.signing.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let administrator = client == ClientId::ADMINISTRATOR;
        Self { client: client.0, name: identity.name, administrator, signing }
    }
}

fn list(args: &ListArgs) -> Outcome {
    let asker: Asker = args.whom.connect()?;
    let lines: Vec<Line> = asker.clients()?.into_iter().map(Line::of).collect();
    if args.json {
        return say(serde_json::to_string_pretty(&lines).unwrap_or_default());
    }
    for Line { client, name, administrator, signing } in &lines {
        let note = if *administrator { "  administrator" } else { "" };
        let key = signing.get(..16).unwrap_or(signing);
        say(format_args!("{client:>5}  {name:<24} {key}…{note}"))?;
    }
    Ok(())
}
