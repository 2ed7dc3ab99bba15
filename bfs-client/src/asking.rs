//! What the commands have in common that ask the group something without a mount.

use crate::backend::{Backend, Outvoted};
use crate::failure::{Exit, Failure, Outcome};
use crate::mount_state;
use crate::options::Patience;
use crate::session::{self, Session};
use bfs_fs::op::{Attributes, Caller, FsError, FsOp, FsReply, FsRequest, FsResult, Inode, ROOT};
use bft_core::clients::{ClientIdentity, ClientsOp, ClientsReply};
use bft_core::types::ClientId;
use bft_net::group::Group;
use clap::Args;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long one operation may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which group is asked, and with which keys.
#[derive(Args, Clone, Debug)]
pub struct Whom {
    /// The group's public file
    #[arg(value_name = "GROUP", env = "BFS_GROUP")]
    pub group: PathBuf,
    /// The folder with this client's keys; not those of a mount, whose session would end: keep one client for such commands
    #[arg(long, value_name = "KEYDIR", env = "BFS_KEY")]
    pub key: Option<PathBuf>,
}

/// A session that asks in the name of root.
pub struct Asker(Arc<Session>);

impl Whom {
    /// The group file.
    ///
    /// Errors: it cannot be read, or says nothing sensible.
    pub fn group(&self) -> Outcome<Group> {
        Group::load(&self.group).map_err(|error| {
            Failure::new(format!("cannot use the group file {}", self.group.display()), error)
                .exit(Exit::Keys)
        })
    }

    /// Opens a session.
    ///
    /// Errors: as [`session::connect`]; a mount of this machine uses the keys.
    pub fn connect(&self) -> Outcome<Asker> {
        self.connect_for(PATIENCE)
    }

    /// The same, in which an operation may take `patience`.
    pub fn connect_for(&self, patience: Duration) -> Outcome<Asker> {
        let key = self.key.clone().map_or_else(crate::keys::default_folder, Ok)?;
        let (group, client) = session::who(&self.group, &key)?;
        mount_state::expect_unused(&group.to_string(), &client, &key)?;
        let (session, _) = session::connect(&self.group, &key, Patience::Soft(patience))?;
        Ok(Asker(session))
    }
}

impl Asker {
    /// Performs one operation.
    pub fn ask(&self, op: FsOp) -> FsResult {
        let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
        self.0.perform(FsRequest { caller, op })
    }

    /// Performs an operation that answers attributes.
    pub fn attributes(&self, op: FsOp) -> Result<Attributes, FsError> {
        match self.ask(op)? {
            FsReply::Attributes(attributes) => Ok(attributes),
            _ => Err(FsError::Io),
        }
    }

    /// How many replies of each replica a quorum has refuted, by replica.
    pub fn outvoted(&self) -> Vec<Outvoted> {
        self.0.outvoted()
    }

    /// The inode called `path`, from the root of the group on. Links are not followed.
    ///
    /// Errors: there is none.
    pub fn find(&self, path: &Path) -> Outcome<Inode> {
        path.components().try_fold(ROOT, |parent, component| match component {
            Component::RootDir | Component::CurDir => Ok(parent),
            other => {
                let name = other.as_os_str().as_bytes().to_vec();
                let found = self.attributes(FsOp::Lookup { parent, name });
                found.map(|attributes| attributes.inode).map_err(|error| {
                    Failure::new(format!("cannot find {} in the group", path.display()), error)
                        .advise(
                            "name it from the root of the group on, without the mount's directory",
                        )
                })
            }
        })
    }
}

impl Asker {
    /// Asks about the clients of the group.
    ///
    /// Errors: no answer.
    pub fn of_clients(&self, op: ClientsOp) -> Outcome<ClientsReply> {
        self.0.ask_of_clients(op).map_err(|error| {
            Failure::new("cannot ask about the clients of the group", error)
                .advise("see bfs status, then ask again")
        })
    }

    /// Every client of the group, ascending.
    ///
    /// Errors: no answer.
    pub fn clients(&self) -> Outcome<Vec<(ClientId, ClientIdentity)>> {
        let mut all: Vec<(ClientId, ClientIdentity)> = Vec::new();
        loop {
            let first = all.last().map_or(ClientId(0), |(last, _)| ClientId(last.0 + 1));
            match self.of_clients(ClientsOp::List(first))? {
                ClientsReply::Clients(page) if !page.is_empty() => all.extend(page),
                _ => return Ok(all),
            }
        }
    }

    /// The client called `name`, or numbered so.
    ///
    /// Errors: there is none; no answer.
    pub fn client(&self, name: &str) -> Outcome<(ClientId, ClientIdentity)> {
        let clients = self.clients()?;
        let by_name = clients.iter().find(|(_, identity)| identity.name == name);
        let by_number = || clients.iter().find(|(id, _)| name.parse() == Ok(id.0));
        by_name.or_else(by_number).cloned().ok_or_else(|| {
            let names: Vec<_> = clients.iter().map(|(_, of)| of.name.as_str()).collect();
            Failure::new(format!("cannot find client '{name}'"), "the group has no such client")
                .advise(format!("one of: {}", names.join(", ")))
                .exit(Exit::Usage)
        })
    }
}

/// Why the group refused what only the administrator may ask.
pub fn refused(what: impl std::fmt::Display, error: FsError) -> Failure {
    let failure = Failure::new(what, error);
    match error {
        FsError::NotPermitted => failure.advise(
            "use the keys of the administrator, who is the first client in the group file: --key KEYDIR",
        ),
        FsError::NotEmpty => failure.advise("a subtree begins as an empty directory"),
        FsError::Invalid => failure.advise("there are no subtrees within subtrees, and no limits for the administrator"),
        _ => failure,
    }
}
