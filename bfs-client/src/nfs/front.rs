//! The NFS front: one call is one operation, and the reply goes back from whichever thread brings the result.
//!
//! It translates and never decides. What it keeps is the list of who has mounted, which nothing depends on.

use super::call::{self, Asked, Refused};
use super::handle::Keys;
use super::mount::{self, Mounts};
use super::reply;
use super::rpc::{self, Accepted, AuthError, Call, Credential, NoCall};
use super::status::{Procedure, Status};
use super::xdr::Writer;
use crate::backend::Backend;
use bfs_fs::op::{Caller, FsError, FsOp, FsReply, FsRequest, FsResult, OnceKey, Refusal};
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;

/// The program and version of NFS. [RFC 1813 §3.1]
const NFS: (u32, u32) = (100_003, 3);
/// The program and version of MOUNT. [RFC 1813 §5.1]
const MOUNT: (u32, u32) = (100_005, 3);
/// The procedure of every program that does nothing.
const NULL: u32 = 0;

/// Who sends a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    pub address: IpAddr,
    /// Whether to believe who it says that calls: not, where a privileged port is asked for and it has none.
    pub is_believed: bool,
}

/// What is to be done about a record.
pub enum Next {
    /// Nothing.
    Ignore,
    /// To send this reply.
    Answer(Vec<u8>),
    /// To ask the group, when there is room for the reply.
    Ask(Question),
}

/// A call that only the group can answer.
pub struct Question {
    xid: u32,
    what: What,
}

enum What {
    Nfs(Asked),
    /// To mount a path.
    Mount {
        caller: Caller,
        path: Vec<u8>,
        address: IpAddr,
    },
}

impl Question {
    /// How much memory the reply can take. Units: bytes.
    pub fn reply_size(&self) -> usize {
        match &self.what {
            What::Nfs(asked) => asked.reply_size,
            What::Mount { .. } => 256,
        }
    }
}

/// How a question ends: with a reply, or, where the outcome is unknown, with nothing.
pub type Reply = Option<Vec<u8>>;

/// Serves calls by operations on `backend`.
pub struct Front {
    backend: Arc<dyn Backend>,
    keys: Keys,
    mounts: Mounts,
}

impl Front {
    /// A front of the group whose keys these are. `clients`: whom to name as let in, if not everybody.
    pub fn new(backend: Arc<dyn Backend>, keys: Keys, clients: Vec<String>) -> Self {
        Self { backend, keys, mounts: Mounts::new(clients) }
    }

    /// Reads a record, and answers what needs nothing of the group.
    pub fn read(&self, record: Bytes, sender: Sender) -> Next {
        let call = match rpc::read_call(record) {
            Ok(call) => call,
            Err(NoCall::Noise) => return Next::Ignore,
            Err(NoCall::Answer(reply)) => return Next::Answer(reply),
        };
        let refuse = |status| Next::Answer(rpc::accepted(call.xid, status));
        let only = match call.program {
            program if program == NFS.0 => NFS.1,
            program if program == MOUNT.0 => MOUNT.1,
            _ => return refuse(Accepted::ProgramUnavailable),
        };
        if call.version != only {
            return refuse(Accepted::OtherVersion(only));
        }
        if call.procedure == NULL {
            let is_empty = call.arguments.left() == 0;
            return refuse(if is_empty { Accepted::Success } else { Accepted::GarbageArguments });
        }
        let caller = match &call.credential {
            _ if !sender.is_believed => {
                return Next::Answer(rpc::not_believed(call.xid, AuthError::TooWeak));
            }
            Credential::Refused(why) => return Next::Answer(rpc::not_believed(call.xid, *why)),
            Credential::Known(caller) => caller.clone(),
        };
        match call.program == NFS.0 {
            true => self.read_nfs(call, caller, sender),
            false => self.read_mount(call, caller, sender),
        }
    }

    fn read_nfs(&self, call: Call, caller: Caller, sender: Sender) -> Next {
        let xid = call.xid;
        let Some(procedure) = Procedure::of(call.procedure) else {
            return Next::Answer(rpc::accepted(xid, Accepted::ProcedureUnavailable));
        };
        let once = |caller: &Caller| once_key(sender.address, &call, caller);
        match call::read(procedure, call.arguments.clone(), caller, &self.keys, once) {
            Ok(asked) => Next::Ask(Question { xid, what: What::Nfs(asked) }),
            Err(Refused::Garbage) => Next::Answer(rpc::accepted(xid, Accepted::GarbageArguments)),
            Err(Refused::Status(status)) => {
                let mut reply = rpc::reply(xid, Accepted::Success);
                reply::write_refusal(&mut reply, procedure, status, &self.keys);
                Next::Answer(rpc::marked(reply))
            }
        }
    }

    fn read_mount(&self, call: Call, caller: Caller, sender: Sender) -> Next {
        let xid = call.xid;
        match self.mounts.read(call.procedure, call.arguments, sender.address) {
            mount::Next::Garbage => Next::Answer(rpc::accepted(xid, Accepted::GarbageArguments)),
            mount::Next::Unknown => {
                Next::Answer(rpc::accepted(xid, Accepted::ProcedureUnavailable))
            }
            mount::Next::Answer(results) => {
                let mut reply = rpc::reply(xid, Accepted::Success);
                reply.0.extend(results.0);
                Next::Answer(rpc::marked(reply))
            }
            mount::Next::Mount(path) => {
                let what = What::Mount { caller, path, address: sender.address };
                Next::Ask(Question { xid, what })
            }
        }
    }

    /// Asks the group; `done` gets the reply, once, on any thread.
    pub fn ask(self: &Arc<Self>, question: Question, done: impl FnOnce(Reply) + Send + 'static) {
        let Question { xid, what } = question;
        let front = self.clone();
        match what {
            What::Nfs(asked) => {
                let Asked { procedure, request, page, size, .. } = asked;
                run(self.backend.clone(), request, size, None, move |result| {
                    done(known(result).map(|result| {
                        let mut reply = rpc::reply(xid, Accepted::Success);
                        reply::write(&mut reply, procedure, page, result, &front.keys);
                        rpc::marked(reply)
                    }));
                });
            }
            What::Mount { caller, path, address } => {
                mount::find(self.backend.clone(), caller, &path.clone(), move |found| {
                    done(known(found).map(|found| {
                        let mut reply = rpc::reply(xid, Accepted::Success);
                        front.mounts.write_found(&mut reply, found, address, path, &front.keys);
                        rpc::marked(reply)
                    }));
                });
            }
        }
    }
}

/// A result, unless it is that there is none: the session has ended, and whether the operation was done nobody here
/// knows. The client asks again, and whoever answers then knows.
fn known<T>(result: Result<T, FsError>) -> Option<Result<T, FsError>> {
    match result {
        Err(FsError::Io) => None,
        result => Some(result),
    }
}

/// Whom a call comes from and what it says, its number included. Sent again it has the same name.
///
/// The rest of the credential is no part of it: the stamp is arbitrary, and Linux before 5.1 puts the time of sending
/// there, another one each time. [RFC 5531 appendix A]
fn once_key(address: IpAddr, call: &Call, caller: &Caller) -> OnceKey {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let Call { xid, program, version, procedure, arguments, .. } = call;
    let mut head = Writer(address.octets().to_vec());
    head.u32(*xid).u32(*program).u32(*version).u32(*procedure);
    head.u32(caller.uid).u32(caller.gid).u32(caller.groups.len() as u32);
    for group in &caller.groups {
        head.u32(*group);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head.0).update(arguments.rest());
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    OnceKey(key)
}

/// Runs `request`, again while a size that it sets is still to be reached: a long way takes several steps. The first step says
/// how things were before.
fn run(
    backend: Arc<dyn Backend>,
    request: FsRequest,
    size: Option<u64>,
    first: Option<FsReply>,
    done: impl FnOnce(FsResult) + Send + 'static,
) {
    let Some(wanted) = size else { return backend.call(request, Box::new(done)) };
    let (again, mut same) = (backend.clone(), request.clone());
    if let FsOp::Watched(watched) = &mut same.op {
        // The first step changes the time that it guards.
        watched.guard = None;
    }
    backend.call(
        request,
        Box::new(move |result| match reached(&result) {
            Some(at) if at != wanted => {
                let first = first.or(result.ok());
                run(again, same, size, first, done);
            }
            _ => done(result.map(|last| with_beginning(last, first))),
        }),
    );
}

/// The size that an operation has come to.
fn reached(result: &FsResult) -> Option<u64> {
    let Ok(FsReply::Watched(report)) = result else { return None };
    match report.result.as_deref() {
        Ok(FsReply::Attributes(attributes)) => Some(attributes.size),
        _ => None,
    }
}

fn with_beginning(last: FsReply, first: Option<FsReply>) -> FsReply {
    let (FsReply::Watched(mut last), Some(FsReply::Watched(first))) = (last.clone(), first) else {
        return last;
    };
    for (change, began) in last.watched.iter_mut().zip(first.watched) {
        change.before = began.before;
    }
    FsReply::Watched(last)
}

/// How MOUNT says that an operation failed. [RFC 1813 §5.1.5]
pub(super) fn mount_status(error: FsError) -> Status {
    match Procedure::Lookup.status(Refusal::Failed(error)) {
        // MOUNT knows no handle that could be stale.
        Status::Stale | Status::BadHandle => Status::ServerFault,
        status => status,
    }
}

#[cfg(test)]
mod tests;
