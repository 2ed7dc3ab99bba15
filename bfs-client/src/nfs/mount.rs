//! The MOUNT protocol: from a path to the handle of a directory. [RFC 1813 §5]

use super::front::mount_status;
use super::handle::{Keys, Named};
use super::status::Status;
use super::xdr::{Malformed, Reader, Writer};
use crate::backend::Backend;
use bfs_fs::op::{Attributes, Caller, FsError, FsOp, FsReply, FsRequest, FsResult, Kind, ROOT};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The longest path. [RFC 1813 §5.1.2: MNTPATHLEN]
const MAX_PATH: usize = 1024;
/// How many mounts are remembered, for whoever asks; the oldest is forgotten first.
const MAX_MOUNTS: usize = 1024;
/// AUTH_SYS and AUTH_NONE, which is nobody.
const FLAVOURS: [u32; 2] = [1, 0];

/// Who has mounted what, as far as this process was told. Nothing depends on it.
pub struct Mounts {
    clients: Vec<String>,
    list: Mutex<VecDeque<(String, Vec<u8>)>>,
}

/// What is to be done about a call.
pub enum Next {
    Garbage,
    /// There is no such procedure.
    Unknown,
    Answer(Writer),
    /// To find this path.
    Mount(Vec<u8>),
}

impl Mounts {
    /// Nothing is mounted. `clients`: whom to name as let in, if not everybody.
    pub fn new(clients: Vec<String>) -> Self {
        Self { clients, list: Mutex::default() }
    }

    fn with<T>(&self, use_list: impl FnOnce(&mut VecDeque<(String, Vec<u8>)>) -> T) -> T {
        use_list(&mut self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the arguments of `procedure`, and answers what needs nothing of the group.
    ///
    /// Requires: not the procedure that does nothing.
    pub fn read(&self, procedure: u32, arguments: Reader, address: IpAddr) -> Next {
        let host = address.to_canonical().to_string();
        let read = match procedure {
            1 => path(arguments).map(Next::Mount),
            2 => arguments.end().map(|()| Next::Answer(self.dump())),
            3 => path(arguments).map(|path| {
                let mount = (host, path);
                self.with(|list| list.retain(|other| *other != mount));
                Next::Answer(Writer::default())
            }),
            4 => arguments.end().map(|()| {
                self.with(|list| list.retain(|(other, _)| *other != host));
                Next::Answer(Writer::default())
            }),
            5 => arguments.end().map(|()| Next::Answer(self.export())),
            _ => Ok(Next::Unknown),
        };
        read.unwrap_or(Next::Garbage)
    }

    fn dump(&self) -> Writer {
        let mut results = Writer::default();
        self.with(|list| {
            for (host, path) in list {
                results.bool(true).opaque(host.as_bytes()).opaque(path);
            }
        });
        results.bool(false);
        results
    }

    /// There is one file system, and this client's part of it begins at "/".
    fn export(&self) -> Writer {
        let mut results = Writer::default();
        results.bool(true).opaque(b"/");
        for client in &self.clients {
            results.bool(true).opaque(client.as_bytes());
        }
        results.bool(false).bool(false);
        results
    }

    /// Writes what [`find`] found at `path`, and remembers who mounts it.
    pub fn write_found(
        &self,
        reply: &mut Writer,
        found: Result<Attributes, FsError>,
        address: IpAddr,
        path: Vec<u8>,
        keys: &Keys,
    ) {
        let attributes = match found {
            Ok(attributes) => attributes,
            Err(error) => {
                reply.u32(mount_status(error) as u32);
                return;
            }
        };
        reply.u32(Status::Ok as u32);
        keys.write_handle(reply, Named::from(&attributes));
        reply.u32(FLAVOURS.len() as u32);
        for flavour in FLAVOURS {
            reply.u32(flavour);
        }
        let mount = (address.to_canonical().to_string(), path);
        self.with(|list| {
            list.retain(|other| *other != mount);
            if list.len() >= MAX_MOUNTS {
                list.pop_front();
            }
            list.push_back(mount);
        });
    }
}

fn path(mut arguments: Reader) -> Result<Vec<u8>, Malformed> {
    let path = arguments.opaque(MAX_PATH)?;
    arguments.end()?;
    Ok(path.to_vec())
}

/// Follows `path` from the client's root, name by name; `done` gets the attributes of the directory at its end.
///
/// Errors: those of looking a name up; `NotDirectory`.
pub fn find(
    backend: Arc<dyn Backend>,
    caller: Caller,
    path: &[u8],
    done: impl FnOnce(Result<Attributes, FsError>) + Send + 'static,
) {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let names: Vec<Vec<u8>> = names.rev().map(<[u8]>::to_vec).collect();
    step(backend, caller, FsOp::GetAttributes { inode: ROOT }, names, Box::new(done));
}

type Found = Box<dyn FnOnce(Result<Attributes, FsError>) + Send>;

/// Asks for a directory, and then for the rest of the names in it, the last one first.
fn step(backend: Arc<dyn Backend>, caller: Caller, op: FsOp, mut names: Vec<Vec<u8>>, done: Found) {
    let (again, same) = (backend.clone(), caller.clone());
    let next = move |result: FsResult| match (directory(result), names.pop()) {
        (Ok(at), Some(name)) => {
            step(again, same, FsOp::Lookup { parent: at.inode, name }, names, done);
        }
        (found, _) => done(found),
    };
    backend.call(FsRequest { caller, op }, Box::new(next));
}

fn directory(result: FsResult) -> Result<Attributes, FsError> {
    match result? {
        FsReply::Attributes(a) if a.kind == Kind::Directory => Ok(a),
        _ => Err(FsError::NotDirectory),
    }
}
