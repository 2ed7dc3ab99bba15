//! One client's connection: records in, replies out, and no more of either than there is room for.
//!
//! A thread reads; replies are written by whichever thread brings them, as far as the socket takes them at once, and the
//! rest by a second thread. So a client that does not read keeps nobody else waiting.

use super::front::{Front, Next, Reply, Sender};
use super::rpc::LAST_FRAGMENT;
use bfs_fs::op::MAX_IO;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use std::collections::VecDeque;
use std::io::{self, BufReader, ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest record: the largest WRITE and what is around it. Units: bytes.
pub const MAX_RECORD: usize = MAX_IO as usize + (64 << 10);
/// How many calls of one connection may wait for their replies.
const MAX_CALLS: usize = 128;
/// What the calls of one connection that wait, and their replies, may take. Units: bytes.
const MAX_CALL_BYTES: usize = 16 << 20;
/// What every connection may take of that whatever the others do: any one call, and some small ones. Units: bytes.
const OWN_BYTES: usize = 2 << 20;
/// What all connections may take beyond that. Units: bytes.
pub const MAX_ALL_BYTES: usize = 256 << 20;
/// How long half a record may wait for the rest, and a reply for a client that does not read.
const STUCK: Duration = Duration::from_secs(60);
/// How much is read at once. Units: bytes.
const READ_AHEAD: usize = 64 << 10;

/// Room that is taken and given back. Whoever finds none waits.
pub struct Room {
    free: Mutex<usize>,
    all: usize,
    freed: Condvar,
}

impl Room {
    /// So much room, all of it free.
    pub fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(all), all, freed: Condvar::new() })
    }

    /// Takes `wanted`, or all there is if that is less, when it is free.
    fn take(self: &Arc<Self>, wanted: usize) -> Taken {
        self.take_with(None, wanted)
    }

    /// Takes `wanted` of `own`, or of this, whichever has it first.
    fn take_with(self: &Arc<Self>, own: Option<&Arc<Own>>, wanted: usize) -> Taken {
        let (taken, order) = (wanted.min(self.all), Ordering::Relaxed);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let has_own = || own.filter(|own| own.0.load(order) >= taken);
        let full = |free: &mut usize| *free < taken && has_own().is_none();
        let mut free = self.freed.wait_while(free, full).unwrap_or_else(PoisonError::into_inner);
        let own = has_own().cloned();
        match &own {
            Some(own) => drop(own.0.fetch_sub(taken, order)),
            None => *free -= taken,
        }
        Taken { room: self.clone(), own, taken }
    }
}

/// What is free for one taker alone beside a room that it shares. Changes only under that room's lock.
#[derive(Default)]
struct Own(AtomicUsize);

/// Room that is given back when this is dropped.
struct Taken {
    room: Arc<Room>,
    own: Option<Arc<Own>>,
    taken: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut free = self.room.free.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.own {
            Some(own) => drop(own.0.fetch_add(self.taken, Ordering::Relaxed)),
            None => *free += self.taken,
        }
        self.room.freed.notify_all();
    }
}

/// What one call takes until its reply is sent.
type Permit = [Taken; 3];

/// A connection, as its threads share it.
pub struct Connection {
    socket: TcpStream,
    /// When it came, or its last call did.
    heard: Mutex<Instant>,
    outgoing: Mutex<Outgoing>,
    /// There is something to write, or nothing will come any more.
    work: Condvar,
}

#[derive(Default)]
struct Outgoing {
    /// Replies that the socket did not take, and how much of the first one it did.
    queue: VecDeque<(Vec<u8>, Permit)>,
    sent: usize,
    closed: bool,
}

impl Connection {
    /// A connection on `socket`.
    ///
    /// Errors: the socket does not take its options.
    pub fn new(socket: TcpStream) -> io::Result<Arc<Self>> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(STUCK))?;
        socket.set_write_timeout(Some(STUCK))?;
        let (outgoing, work) = Default::default();
        Ok(Arc::new(Self { socket, heard: Mutex::new(Instant::now()), outgoing, work }))
    }

    /// When it came, or its last call did.
    pub fn heard(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection; its threads notice.
    pub fn close(&self) {
        // It may have ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
        let mut outgoing = self.outgoing();
        outgoing.closed = true;
        outgoing.queue.clear();
        self.work.notify_all();
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the calls that come until the connection ends. `all`: what all connections share.
    ///
    /// Errors: why it ended, unless the client ended it.
    pub fn serve(
        self: &Arc<Self>,
        front: &Arc<Front>,
        sender: Sender,
        all: &Arc<Room>,
        lost: &Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<()> {
        let writer = self.clone();
        std::thread::Builder::new()
            .name("bfs-nfs-writer".into())
            .spawn(move || writer.write_queue())?;
        let (calls, bytes) = (Room::new(MAX_CALLS), Room::new(MAX_CALL_BYTES));
        let own = Arc::new(Own(AtomicUsize::new(OWN_BYTES)));
        let mut input = BufReader::with_capacity(READ_AHEAD, &self.socket);
        while let Some(record) = read_record(&mut input)? {
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            let size = record.len();
            let next = front.read(record.into(), sender);
            let room = match &next {
                Next::Ignore => continue,
                Next::Answer(reply) => reply.len(),
                Next::Ask(question) => size + question.reply_size(),
            };
            // However much others leave unread, there is room for one call of each.
            let permit = [calls.take(1), bytes.take(room), all.take_with(Some(&own), room)];
            match next {
                Next::Ignore => {}
                Next::Answer(reply) => self.send(reply, permit),
                Next::Ask(question) => {
                    let (connection, lost) = (self.clone(), lost.clone());
                    front.ask(question, move |reply: Reply| match reply {
                        Some(reply) => connection.send(reply, permit),
                        None => {
                            connection.close();
                            lost();
                        }
                    });
                }
            }
        }
        Ok(())
    }

    /// Sends a record, or as much as goes without waiting.
    fn send(&self, record: Vec<u8>, permit: Permit) {
        let mut outgoing = self.outgoing();
        if outgoing.closed {
            return;
        }
        if outgoing.queue.is_empty() {
            match self.send_now(&record) {
                Ok(sent) if sent == record.len() => return,
                Ok(sent) => outgoing.sent = sent,
                Err(_) => {
                    drop(outgoing);
                    return self.close();
                }
            }
        }
        outgoing.queue.push_back((record, permit));
        self.work.notify_one();
    }

    fn send_now(&self, record: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.socket.as_raw_fd(), record, flags) {
            Ok(sent) => Ok(sent),
            Err(Errno::EAGAIN) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what [`Self::send`] could not, in order, waiting as long as it takes.
    fn write_queue(&self) {
        loop {
            let outgoing = self.outgoing();
            let idle = |outgoing: &mut Outgoing| outgoing.queue.is_empty() && !outgoing.closed;
            let outgoing = self.work.wait_while(outgoing, idle);
            let mut outgoing = outgoing.unwrap_or_else(PoisonError::into_inner);
            if outgoing.closed {
                return;
            }
            // It stays in the queue without its bytes, so that nobody writes past it.
            let from = std::mem::take(&mut outgoing.sent);
            let record = match outgoing.queue.front_mut() {
                Some((record, _)) => std::mem::take(record),
                None => continue,
            };
            drop(outgoing);
            if self.send_all(&record[from..]).is_err() {
                return self.close();
            }
            self.outgoing().queue.pop_front();
        }
    }

    fn send_all(&self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Reads one record, fragment by fragment; nothing if the connection ended before it began.
///
/// Memory is taken as bytes come, whatever the mark says. [RFC 5531 §11]
///
/// Errors: it is longer than [`MAX_RECORD`], ended or got stuck half-way.
pub fn read_record(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    let Some(mut mark) = read_mark(input, true)? else { return Ok(None) };
    loop {
        let length = (mark & !LAST_FRAGMENT) as usize;
        if length > MAX_RECORD - record.len() {
            let why = format!("a record of more than {MAX_RECORD} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        let before = record.len();
        record.reserve(length.min(READ_AHEAD));
        input.by_ref().take(length as u64).read_to_end(&mut record)?;
        if record.len() - before < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if mark & LAST_FRAGMENT != 0 {
            return Ok(Some(record));
        }
        mark = read_mark(input, false)?.ok_or(ErrorKind::UnexpectedEof)?;
    }
}

/// Reads a record mark; nothing at the end of the input. Between records a client may take its time.
fn read_mark(input: &mut impl Read, patient: bool) -> io::Result<Option<u32>> {
    let mut mark = [0; 4];
    let mut have = 0;
    while have < mark.len() {
        match input.read(&mut mark[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => have += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && have == 0 && patient => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(u32::from_be_bytes(mark)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(last: bool, body: &[u8]) -> Vec<u8> {
        let mark = body.len() as u32 | if last { LAST_FRAGMENT } else { 0 };
        [&mark.to_be_bytes(), body].concat()
    }

    #[test]
    fn a_record_is_its_fragments() {
        let bytes = [
            fragment(false, b"abc"),
            fragment(false, b""),
            fragment(true, b"d"),
            fragment(true, b"next"),
        ];
        let bytes = bytes.concat();
        let mut input = bytes.as_slice();
        assert_eq!(read_record(&mut input).unwrap().unwrap(), b"abcd");
        assert_eq!(read_record(&mut input).unwrap().unwrap(), b"next");
        assert_eq!(read_record(&mut input).unwrap(), None);
    }

    #[test]
    fn lengths_are_not_believed() {
        let kind = |bytes: &[u8]| read_record(&mut &*bytes).unwrap_err().kind();
        assert_eq!(kind(&[0xff; 4]), ErrorKind::InvalidData, "2 GiB");
        assert_eq!(kind(&[0x7f, 0xff, 0xff, 0xff]), ErrorKind::InvalidData);
        assert_eq!(kind(&(LAST_FRAGMENT | 8).to_be_bytes()), ErrorKind::UnexpectedEof);
        assert_eq!(kind(&[0x80, 0]), ErrorKind::UnexpectedEof);
        let most = fragment(false, &vec![1; MAX_RECORD]);
        assert_eq!(kind(&[most.clone(), fragment(true, b"x")].concat()), ErrorKind::InvalidData);
        let whole = read_record(&mut [most, fragment(true, b"")].concat().as_slice());
        assert_eq!(whole.unwrap().unwrap().len(), MAX_RECORD);
    }

    #[test]
    fn a_record_of_nothing_but_beginnings_takes_no_memory() {
        let bytes = fragment(false, b"").repeat(100_000);
        let error = read_record(&mut bytes.as_slice()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn room_is_waited_for_and_given_back() {
        let room = Room::new(10);
        let first = room.take(8);
        let other = room.clone();
        let waiter = std::thread::spawn(move || drop(other.take(100)));
        assert_eq!(*room.free.lock().unwrap(), 2);
        let own = Arc::new(Own(AtomicUsize::new(5)));
        let mine = room.take_with(Some(&own), 5);
        let (same, shared) = (own.clone(), room.clone());
        let second = std::thread::spawn(move || shared.take_with(Some(&same), 4).own.is_some());
        drop(mine);
        assert!(
            second.join().unwrap(),
            "what is one's own is given back while others have the rest"
        );
        assert_eq!(own.0.load(Ordering::Relaxed), 5);
        drop(first);
        waiter.join().unwrap();
        assert_eq!(*room.free.lock().unwrap(), 10);
    }
}
