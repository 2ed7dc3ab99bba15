//! `bfs init`: this client's keys.

use crate::failure::{Exit, Failure, Outcome, say};
use bft_net::group::PublicFile;
use bft_net::keys::Identity;
use clap::Args;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Arguments of `bfs init`.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// The folder to make the keys in; it may exist, but hold no keys
    pub dir: PathBuf,
    /// What people call this client (default: user@machine)
    #[arg(long, env = "BFS_NAME")]
    pub name: Option<String>,
}

/// Makes the keys, mode 0600, and public.toml beside them, which is for whoever creates the group.
pub fn init(args: &InitArgs) -> Outcome {
    let dir = &args.dir;
    let what = || format!("cannot make keys in {}", dir.display());
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        Failure::new(what(), error).advise("name a folder that you may write to")
    })?;
    let identity = Identity::generate();
    identity.save(dir).map_err(|error| {
        Failure::new(what(), error).advise("name a folder that holds no keys yet").exit(Exit::Keys)
    })?;
    let public = dir.join("public.toml");
    let name = args.name.clone().unwrap_or_else(default_name);
    PublicFile::client(&name, identity.public())
        .save(&public)
        .map_err(|error| Failure::new(what(), error))?;
    say(format_args!("made the keys of client {name} in {}", dir.display()))?;
    say(format_args!("give {} to whoever runs: bfs group create", public.display()))
}

/// Where a client's keys are unless `--key` says otherwise.
///
/// Errors: this user has no home.
pub fn default_folder() -> Outcome<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    config.or_else(home).map(|config| config.join("bfs")).ok_or_else(|| {
        Failure::new(
            "cannot find this client's keys",
            "neither --key, XDG_CONFIG_HOME nor HOME is set",
        )
        .advise("--key KEYDIR, the folder that bfs init made")
        .exit(Exit::Keys)
    })
}

fn default_name() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "client".into());
    match std::fs::read_to_string("/etc/hostname") {
        Ok(machine) if !machine.trim().is_empty() => format!("{user}@{}", machine.trim()),
        _ => user,
    }
}
