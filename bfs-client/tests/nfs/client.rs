//! An NFSv3 client that says exactly what a test wants said.

use bfs_client::nfs::xdr::{Reader, Writer};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub const NFS: u32 = 100_003;
pub const MOUNT: u32 = 100_005;

pub const OK: u32 = 0;
pub const PERM: u32 = 1;
pub const NOENT: u32 = 2;
pub const ACCES: u32 = 13;
pub const EXIST: u32 = 17;
pub const NOTDIR: u32 = 20;
pub const INVAL: u32 = 22;
pub const NAMETOOLONG: u32 = 63;
pub const NOTEMPTY: u32 = 66;
pub const STALE: u32 = 70;
pub const BADHANDLE: u32 = 10_001;
pub const NOT_SYNC: u32 = 10_002;
pub const BAD_COOKIE: u32 = 10_003;
pub const TOOSMALL: u32 = 10_005;
pub const BADTYPE: u32 = 10_007;

/// A file handle.
pub type Handle = Vec<u8>;

/// fattr3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub kind: u32,
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub used: u64,
    pub device: (u32, u32),
    pub fsid: u64,
    pub fileid: u64,
    pub accessed: (u32, u32),
    pub modified: (u32, u32),
    pub changed: (u32, u32),
}

/// Seconds and nanoseconds.
type Moment = (u32, u32);

/// wcc_data: size, mtime and ctime before; everything after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Around {
    pub before: Option<(u64, Moment, Moment)>,
    pub after: Option<Attributes>,
}

/// What a call was answered, past its XID.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// SUCCESS, and these results.
    Results(Vec<u8>),
    /// Another accept_stat; with the lowest and highest version for a wrong one.
    Accepted(u32, Vec<u32>),
    /// RPC_MISMATCH (0) or AUTH_ERROR (1), and what follows.
    Denied(u32, Vec<u32>),
}

/// How to fill sattr3.
#[derive(Clone, Copy, Debug, Default)]
pub struct Set {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub modified: Option<(u32, u32)>,
}

/// How much a WRITE wrote, how it is stored, and the verifier.
pub type Written = (u32, u32, [u8; 8]);

impl Set {
    pub fn mode(mode: u32) -> Self {
        Self { mode: Some(mode), ..Self::default() }
    }

    pub fn write(&self, w: &mut Writer) {
        for value in [self.mode, self.uid, self.gid] {
            w.optional(value, |w, value| {
                w.u32(value);
            });
        }
        w.optional(self.size, |w, size| {
            w.u64(size);
        });
        w.u32(0);
        match self.modified {
            Some((seconds, nanoseconds)) => w.u32(2).u32(seconds).u32(nanoseconds),
            None => w.u32(0),
        };
    }
}

pub struct Client {
    pub socket: TcpStream,
    xid: u32,
    credential: Vec<u8>,
    /// Everything that went either way: whether it was sent here, and what.
    pub tape: Vec<(bool, Vec<u8>)>,
}

impl Client {
    /// A client whose calls are root's.
    pub fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        Self::on(socket)
    }

    pub fn on(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Self { socket, xid: 0x1000, credential: Vec::new(), tape: Vec::new() };
        client.become_user(0, 0, &[]);
        client
    }

    /// Whose calls they are from now on.
    pub fn become_user(&mut self, uid: u32, gid: u32, gids: &[u32]) {
        let mut body = Writer::default();
        body.u32(1).opaque(b"test").u32(uid).u32(gid).u32(gids.len() as u32);
        for gid in gids {
            body.u32(*gid);
        }
        self.use_credential(1, &body.0);
    }

    pub fn use_credential(&mut self, flavour: u32, body: &[u8]) {
        let mut credential = Writer::default();
        credential.u32(flavour).opaque(body);
        self.credential = credential.0;
    }

    /// The next call, as it travels but for its mark.
    pub fn record(&mut self, program: u32, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
        self.xid += 1;
        let mut call = Writer::default();
        call.u32(self.xid).u32(0).u32(2).u32(program).u32(version).u32(procedure);
        call.0.extend_from_slice(&self.credential);
        call.u32(0).u32(0);
        call.0.extend_from_slice(args);
        call.0
    }

    pub fn send(&mut self, record: &[u8]) {
        let mark = (1u32 << 31 | record.len() as u32).to_be_bytes();
        let bytes = [&mark, record].concat();
        self.socket.write_all(&bytes).unwrap();
        self.tape.push((true, bytes));
    }

    pub fn receive(&mut self) -> Vec<u8> {
        self.try_receive().expect("the connection stays, and answers")
    }

    pub fn try_receive(&mut self) -> std::io::Result<Vec<u8>> {
        let mut mark = [0; 4];
        self.socket.read_exact(&mut mark)?;
        let mut record = vec![0; (u32::from_be_bytes(mark) & !(1 << 31)) as usize];
        self.socket.read_exact(&mut record)?;
        self.tape.push((false, [&mark[..], &record].concat()));
        Ok(record)
    }

    /// Sends `record` and returns what it is answered.
    pub fn exchange(&mut self, record: &[u8]) -> Answer {
        self.send(record);
        let reply = self.receive();
        assert_eq!(reply[..4], record[..4], "the XID");
        answer(&reply)
    }

    pub fn call(&mut self, program: u32, version: u32, procedure: u32, args: &[u8]) -> Answer {
        let record = self.record(program, version, procedure, args);
        self.exchange(&record)
    }

    /// Calls a procedure of NFS; returns its status and what follows.
    pub fn nfs(&mut self, procedure: u32, args: impl FnOnce(&mut Writer)) -> (u32, Reader) {
        let record = self.nfs_record(procedure, args);
        self.exchange_nfs(&record)
    }

    pub fn nfs_record(&mut self, procedure: u32, args: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut arguments = Writer::default();
        args(&mut arguments);
        self.record(NFS, 3, procedure, &arguments.0)
    }

    pub fn exchange_nfs(&mut self, record: &[u8]) -> (u32, Reader) {
        match self.exchange(record) {
            Answer::Results(results) => {
                let mut reader = Reader::new(results.into());
                (reader.u32().unwrap(), reader)
            }
            other => panic!("{other:?}"),
        }
    }

    /// The root directory.
    pub fn mount(&mut self) -> Handle {
        self.mount_path(b"/").unwrap()
    }

    pub fn mount_path(&mut self, path: &[u8]) -> Result<Handle, u32> {
        let mut args = Writer::default();
        args.opaque(path);
        let Answer::Results(results) = self.call(MOUNT, 3, 1, &args.0) else { panic!() };
        let mut reader = Reader::new(results.into());
        match reader.u32().unwrap() {
            OK => {
                let handle = reader.opaque(64).unwrap().to_vec();
                assert_eq!((reader.u32(), reader.u32(), reader.u32()), (Ok(2), Ok(1), Ok(0)));
                reader.end().unwrap();
                Ok(handle)
            }
            status => Err(status),
        }
    }

    pub fn get(&mut self, handle: &[u8]) -> Result<Attributes, u32> {
        match self.nfs(1, |w| {
            w.opaque(handle);
        }) {
            (OK, mut r) => {
                let attributes = attributes(&mut r);
                r.end().unwrap();
                Ok(attributes)
            }
            (status, r) => {
                r.end().unwrap();
                Err(status)
            }
        }
    }

    /// The handle and the attributes of `name`; and those of the directory, in any case.
    pub fn look(
        &mut self,
        dir: &[u8],
        name: &[u8],
    ) -> (Result<(Handle, Attributes), u32>, Option<Attributes>) {
        let (status, mut r) = self.nfs(3, |w| place(w, dir, name));
        let found = match status {
            OK => {
                let handle = r.opaque(64).unwrap().to_vec();
                Ok((handle, post_op(&mut r).unwrap()))
            }
            status => Err(status),
        };
        let directory = post_op(&mut r);
        r.end().unwrap();
        (found, directory)
    }

    /// What CREATE, MKDIR, SYMLINK and MKNOD answer.
    pub fn make(
        &mut self,
        procedure: u32,
        args: impl FnOnce(&mut Writer),
    ) -> (Result<(Handle, Attributes), u32>, Around) {
        let (status, r) = self.nfs(procedure, args);
        made(status, r)
    }

    /// A file made with GUARDED.
    pub fn create(
        &mut self,
        dir: &[u8],
        name: &[u8],
        mode: u32,
    ) -> Result<(Handle, Attributes), u32> {
        self.make(8, |w| {
            place(w, dir, name);
            w.u32(1);
            Set::mode(mode).write(w);
        })
        .0
    }

    pub fn mkdir(
        &mut self,
        dir: &[u8],
        name: &[u8],
        mode: u32,
    ) -> Result<(Handle, Attributes), u32> {
        self.make(9, |w| {
            place(w, dir, name);
            Set::mode(mode).write(w);
        })
        .0
    }

    /// REMOVE (12) or RMDIR (13).
    pub fn remove(&mut self, procedure: u32, dir: &[u8], name: &[u8]) -> (u32, Around) {
        let (status, mut r) = self.nfs(procedure, |w| place(w, dir, name));
        let around = around(&mut r);
        r.end().unwrap();
        (status, around)
    }

    pub fn set(&mut self, handle: &[u8], set: Set, guard: Option<(u32, u32)>) -> (u32, Around) {
        let (status, mut r) = self.nfs(2, |w| {
            w.opaque(handle);
            set.write(w);
            w.optional(guard, |w, (seconds, nanoseconds)| {
                w.u32(seconds).u32(nanoseconds);
            });
        });
        let around = around(&mut r);
        r.end().unwrap();
        (status, around)
    }

    /// Writes FILE_SYNC; returns how much was written and how it is stored, and the verifier.
    /// A WRITE that is to be FILE_SYNC.
    pub fn write_record(&mut self, handle: &[u8], offset: u64, data: &[u8]) -> Vec<u8> {
        self.nfs_record(7, |w| {
            w.opaque(handle).u64(offset).u32(data.len() as u32).u32(2).opaque(data);
        })
    }

    pub fn write(&mut self, handle: &[u8], offset: u64, data: &[u8]) -> Result<Written, u32> {
        let record = self.write_record(handle, offset, data);
        self.exchange_write(&record).map(|(_, written)| written)
    }

    /// How the file was around a WRITE; how much was written, how it is stored, and the verifier.
    pub fn exchange_write(&mut self, record: &[u8]) -> Result<(Around, Written), u32> {
        let (status, mut r) = self.exchange_nfs(record);
        let around = around(&mut r);
        if status != OK {
            return Err(status);
        }
        let written = (r.u32().unwrap(), r.u32().unwrap(), r.fixed().unwrap());
        r.end().unwrap();
        Ok((around, written))
    }

    /// The data and whether the file ends with it.
    pub fn read(&mut self, handle: &[u8], offset: u64, count: u32) -> Result<(Vec<u8>, bool), u32> {
        let (status, mut r) = self.nfs(6, |w| {
            w.opaque(handle).u64(offset).u32(count);
        });
        post_op(&mut r);
        if status != OK {
            r.end().unwrap();
            return Err(status);
        }
        let (count, eof) = (r.u32().unwrap(), r.bool().unwrap());
        let data = r.opaque(1 << 21).unwrap().to_vec();
        assert_eq!(data.len(), count as usize);
        r.end().unwrap();
        Ok((data, eof))
    }
}

pub fn made(status: u32, mut r: Reader) -> (Result<(Handle, Attributes), u32>, Around) {
    let result = match status {
        OK => {
            assert!(r.bool().unwrap(), "a handle");
            let handle = r.opaque(64).unwrap().to_vec();
            Ok((handle, post_op(&mut r).unwrap()))
        }
        status => Err(status),
    };
    let around = around(&mut r);
    r.end().unwrap();
    (result, around)
}

pub fn place(w: &mut Writer, dir: &[u8], name: &[u8]) {
    w.opaque(dir).opaque(name);
}

fn answer(reply: &[u8]) -> Answer {
    let mut r = Reader::new(bytes::Bytes::copy_from_slice(&reply[4..]));
    assert_eq!(r.u32(), Ok(1), "a reply");
    let accepted = r.u32() == Ok(0);
    if accepted {
        assert_eq!((r.u32(), r.u32()), (Ok(0), Ok(0)), "a verifier of AUTH_NONE");
    }
    let status = r.u32().unwrap();
    let mut rest = Vec::new();
    match (accepted, status) {
        (true, 0) => return Answer::Results(reply[reply.len() - r.left()..].to_vec()),
        _ => {
            while let Ok(word) = r.u32() {
                rest.push(word);
            }
        }
    }
    if accepted { Answer::Accepted(status, rest) } else { Answer::Denied(status, rest) }
}

fn time(r: &mut Reader) -> (u32, u32) {
    (r.u32().unwrap(), r.u32().unwrap())
}

pub fn attributes(r: &mut Reader) -> Attributes {
    Attributes {
        kind: r.u32().unwrap(),
        mode: r.u32().unwrap(),
        links: r.u32().unwrap(),
        uid: r.u32().unwrap(),
        gid: r.u32().unwrap(),
        size: r.u64().unwrap(),
        used: r.u64().unwrap(),
        device: (r.u32().unwrap(), r.u32().unwrap()),
        fsid: r.u64().unwrap(),
        fileid: r.u64().unwrap(),
        accessed: time(r),
        modified: time(r),
        changed: time(r),
    }
}

pub fn post_op(r: &mut Reader) -> Option<Attributes> {
    r.bool().unwrap().then(|| attributes(r))
}

pub fn around(r: &mut Reader) -> Around {
    let before = r.bool().unwrap().then(|| (r.u64().unwrap(), time(r), time(r)));
    Around { before, after: post_op(r) }
}
