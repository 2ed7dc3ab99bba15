//! A small client of NFSv3 over TCP: calls on one connection, as many at once as one likes. [RFC 5531, RFC 1813]

use super::target::Endpoint;
use anyhow::{Context, Result, bail, ensure};
use nfs3_types::mount::{self, dirpath, mountres3};
use nfs3_types::nfs3::{
    self, CREATE3args, CREATE3resok, LOOKUP3args, LOOKUP3resok, MKDIR3args, MKDIR3resok,
    NFS_PROGRAM, Nfs3Option, READ3args, REMOVE3args, WRITE3args, createhow3, diropargs3, filename3,
    nfs_fh3, nfsstat3, sattr3, stable_how,
};
use nfs3_types::rpc::{
    RPC_VERSION_2, accept_stat_data, auth_unix, call_body, fragment_header, msg_body, opaque_auth,
    reply_body, rpc_msg,
};
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack, Void};
use std::collections::HashMap;
use std::io::{BufReader, Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long an answer may take. A group that changes its view needs a while.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// The longest record that is taken from a server. Units: bytes.
const RECORD_MAX: u32 = 4 << 20;
/// As much of a file as one call reads or writes here. Units: bytes.
pub const BLOCK: u32 = 4096;

/// The number of the next call, on whichever connection: to a server a call of the same number and arguments is the same.
static NEXT_XID: AtomicU32 = AtomicU32::new(1);

/// A connection to one program of a server.
pub struct Connection {
    write: TcpStream,
    read: BufReader<TcpStream>,
    program: u32,
    version: u32,
    credentials: opaque_auth<'static>,
}

/// A procedure and its arguments, as bytes; sent as often as one likes.
pub struct Call {
    procedure: u32,
    arguments: Vec<u8>,
}

fn packed(value: &impl Pack) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.packed_size());
    value.pack(&mut bytes).expect("a vector takes everything");
    bytes
}

impl Call {
    fn new(procedure: NFS_PROGRAM, arguments: &impl Pack) -> Self {
        Self { procedure: procedure as u32, arguments: packed(arguments) }
    }
}

impl Connection {
    /// Connects to `program` at `port`, to call as root.
    pub fn open(endpoint: &Endpoint, port: u16, program: u32, version: u32) -> Result<Self> {
        let address = SocketAddr::from((endpoint.address, port));
        let write =
            TcpStream::connect(address).with_context(|| format!("cannot reach {address}"))?;
        write.set_nodelay(true)?;
        write.set_read_timeout(Some(ANSWER_LIMIT))?;
        write.set_write_timeout(Some(ANSWER_LIMIT))?;
        let read = BufReader::with_capacity(1 << 16, write.try_clone()?);
        let root = auth_unix {
            machinename: Opaque::borrowed(b"suites"),
            gids: vec![0],
            ..auth_unix::default()
        };
        let credentials = opaque_auth::auth_unix(&root);
        Ok(Self { write, read, program, version, credentials })
    }

    /// Sends `call`; returns the number by which its answer is known.
    pub fn send(&mut self, call: &Call) -> Result<u32> {
        let xid = NEXT_XID.fetch_add(1, Ordering::Relaxed);
        let header = rpc_msg {
            xid,
            body: msg_body::CALL(call_body {
                rpcvers: RPC_VERSION_2,
                prog: self.program,
                vers: self.version,
                proc: call.procedure,
                cred: self.credentials.borrow(),
                verf: opaque_auth::default(),
            }),
        };
        let length = header.packed_size() + call.arguments.len();
        let mark = fragment_header::new(u32::try_from(length)?, true);
        let mut record = Vec::with_capacity(4 + length);
        mark.pack(&mut record)?;
        header.pack(&mut record)?;
        record.extend_from_slice(&call.arguments);
        self.write.write_all(&record).context("cannot send a call")?;
        Ok(xid)
    }

    /// The next answer: whose it is, and its results.
    ///
    /// Errors: there is none in time; it is not an answer; the call was not accepted.
    pub fn receive(&mut self) -> Result<(u32, Vec<u8>)> {
        let mut record = Vec::new();
        loop {
            let mut mark = [0; 4];
            self.read.read_exact(&mut mark).context("no answer")?;
            let mark = fragment_header::from(mark);
            let length = mark.fragment_length();
            ensure!(record.len() as u64 + u64::from(length) <= u64::from(RECORD_MAX), "too long");
            let from = record.len();
            record.resize(from + length as usize, 0);
            self.read.read_exact(&mut record[from..]).context("half an answer")?;
            if mark.eof() {
                break;
            }
        }
        let mut cursor = Cursor::new(record.as_slice());
        let (message, _) = rpc_msg::unpack(&mut cursor)?;
        let msg_body::REPLY(reply_body::MSG_ACCEPTED(reply)) = message.body else {
            bail!("the call was refused: {:?}", message.body);
        };
        let accept_stat_data::SUCCESS = reply.reply_data else {
            bail!("the call was not accepted: {:?}", reply.reply_data);
        };
        let header = usize::try_from(cursor.position())?;
        record.drain(..header);
        Ok((message.xid, record))
    }

    /// Calls and waits for the results.
    pub fn call(&mut self, call: &Call) -> Result<Vec<u8>> {
        let sent = self.send(call)?;
        let (xid, results) = self.receive()?;
        ensure!(xid == sent, "the answer to call {xid} came for call {sent}");
        Ok(results)
    }
}

/// The results of an NFS procedure that went well, which begin with NFS3_OK.
///
/// Errors: the status, if it is another one.
pub fn ok(results: &[u8]) -> Result<&[u8]> {
    let (status, body) = results.split_at_checked(4).context("an answer without a status")?;
    match nfsstat3::unpack(&mut Cursor::new(status))?.0 {
        nfsstat3::NFS3_OK => Ok(body),
        status => bail!("the server says {status:?}"),
    }
}

fn unpacked<T: Unpack>(results: &[u8]) -> Result<T> {
    Ok(T::unpack(&mut Cursor::new(ok(results)?))?.0)
}

/// An export, mounted.
pub struct Mounted {
    pub connection: Connection,
    pub root: nfs_fh3,
}

impl Mounted {
    /// Asks MOUNT for the export's handle, and connects to NFS.
    pub fn new(endpoint: &Endpoint) -> Result<Self> {
        let port = endpoint.mount_port;
        let mut mount = Connection::open(endpoint, port, mount::PROGRAM, mount::VERSION)?;
        let path = dirpath(Opaque::owned(endpoint.export.clone().into_bytes()));
        let procedure = mount::MOUNT_PROGRAM::MOUNTPROC3_MNT as u32;
        let call = Call { procedure, arguments: packed(&path) };
        let results = mount.call(&call).context("MNT")?;
        let (result, _) = mountres3::unpack(&mut Cursor::new(results.as_slice()))?;
        let mountres3::Ok(mounted) = result else {
            bail!("MNT {}: {result:?}", endpoint.export);
        };
        let root = nfs_fh3 { data: Opaque::owned(mounted.fhandle.0.into_owned()) };
        let connection = Connection::open(endpoint, endpoint.port, nfs3::PROGRAM, nfs3::VERSION)?;
        Ok(Self { connection, root })
    }

    /// Makes a folder, and returns its handle.
    pub fn mkdir(&mut self, parent: &nfs_fh3, name: &str) -> Result<nfs_fh3> {
        let attributes = sattr3 { mode: Nfs3Option::Some(0o777), ..sattr3::default() };
        let arguments = MKDIR3args { where_: entry(parent, name), attributes };
        let call = Call::new(NFS_PROGRAM::NFSPROC3_MKDIR, &arguments);
        let made: MKDIR3resok = unpacked(&self.connection.call(&call)?).context("MKDIR")?;
        match made.obj {
            Nfs3Option::Some(handle) => Ok(handle),
            Nfs3Option::None => self.lookup(parent, name),
        }
    }

    /// Makes a file, and returns its handle.
    pub fn create(&mut self, parent: &nfs_fh3, name: &str) -> Result<nfs_fh3> {
        let made: CREATE3resok = unpacked(&self.connection.call(&create(parent, name))?)
            .with_context(|| format!("CREATE {name}"))?;
        match made.obj {
            Nfs3Option::Some(handle) => Ok(handle),
            Nfs3Option::None => self.lookup(parent, name),
        }
    }

    fn lookup(&mut self, parent: &nfs_fh3, name: &str) -> Result<nfs_fh3> {
        let found: LOOKUP3resok =
            unpacked(&self.connection.call(&lookup(parent, name))?).context("LOOKUP")?;
        Ok(found.object)
    }

    /// Does all of `calls`, `depth` of them at once, and returns how long each took, in the order of the answers.
    ///
    /// Requires: `depth` is positive.
    /// Errors: one did not go well.
    pub fn run(
        &mut self,
        calls: impl IntoIterator<Item = Call>,
        depth: usize,
    ) -> Result<Vec<Duration>> {
        let mut calls = calls.into_iter();
        let mut waiting = HashMap::with_capacity(depth);
        let mut times = Vec::new();
        loop {
            while waiting.len() < depth
                && let Some(call) = calls.next()
            {
                let start = Instant::now();
                waiting.insert(self.connection.send(&call)?, (call.procedure, start));
            }
            if waiting.is_empty() {
                return Ok(times);
            }
            let (xid, results) = self.connection.receive()?;
            let (procedure, start) = waiting.remove(&xid).context("an answer to no call")?;
            times.push(start.elapsed());
            if procedure != NFS_PROGRAM::NFSPROC3_NULL as u32 {
                ok(&results)?;
            }
        }
    }
}

fn entry(parent: &nfs_fh3, name: &str) -> diropargs3<'static> {
    diropargs3 { dir: parent.clone(), name: filename3::from(name.as_bytes().to_vec()) }
}

/// Does nothing.
pub fn null() -> Call {
    Call::new(NFS_PROGRAM::NFSPROC3_NULL, &Void)
}

pub fn getattr(file: &nfs_fh3) -> Call {
    Call::new(NFS_PROGRAM::NFSPROC3_GETATTR, file)
}

pub fn lookup(parent: &nfs_fh3, name: &str) -> Call {
    Call::new(NFS_PROGRAM::NFSPROC3_LOOKUP, &LOOKUP3args { what: entry(parent, name) })
}

/// Reads one block.
pub fn read(file: &nfs_fh3, block: u64) -> Call {
    let offset = block * u64::from(BLOCK);
    let arguments = READ3args { file: file.clone(), offset, count: BLOCK };
    Call::new(NFS_PROGRAM::NFSPROC3_READ, &arguments)
}

/// Writes one block, full of `byte`, and has it stable.
pub fn write(file: &nfs_fh3, block: u64, byte: u8) -> Call {
    let data = [byte; BLOCK as usize];
    let arguments = WRITE3args {
        file: file.clone(),
        offset: block * u64::from(BLOCK),
        count: BLOCK,
        stable: stable_how::FILE_SYNC,
        data: Opaque::borrowed(&data),
    };
    Call::new(NFS_PROGRAM::NFSPROC3_WRITE, &arguments)
}

/// Makes a file that is not there yet.
pub fn create(parent: &nfs_fh3, name: &str) -> Call {
    let attributes = sattr3 { mode: Nfs3Option::Some(0o644), ..sattr3::default() };
    let how = createhow3::GUARDED(attributes);
    Call::new(NFS_PROGRAM::NFSPROC3_CREATE, &CREATE3args { where_: entry(parent, name), how })
}

pub fn remove(parent: &nfs_fh3, name: &str) -> Call {
    Call::new(NFS_PROGRAM::NFSPROC3_REMOVE, &REMOVE3args { object: entry(parent, name) })
}
