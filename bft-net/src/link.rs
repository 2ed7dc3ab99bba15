//! Records over an established channel, in two halves: the reader belongs to a task, the writer to whoever holds the hub.
//!
//! ```text
//! record   length: u16, little-endian | ciphertext: 17 to 65,535 bytes, its tag included
//! ```
//!
//! Records carry one stream of frames: many small frames share a record, a large one spans several. Nothing here waits.

use crate::error::LinkError;
use crate::frame;
use crate::noise::{Channel, TAG};
use bytes::{Buf, Bytes};
use snow::StatelessTransportState;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::TcpStream;

const MAX_RECORD: usize = 65_535;
const MAX_PLAIN: usize = MAX_RECORD - TAG;
const HEADER: usize = 2;
/// What one link may bring before others have their turn. Units: bytes.
const READ_BUDGET: usize = 256 << 10;
/// How many bytes are encrypted before they are written, so that a long queue is not held twice. Units: bytes.
const WRITE_CHUNK: usize = 4 * MAX_PLAIN;
/// A reader gives its own buffers back beyond this. Units: bytes.
const KEPT_BY_READER: usize = 8 << 10;

/// Buffers that all readers use in turn, so that a link that is idle costs almost nothing.
pub struct Scratch {
    cipher: Box<[u8]>,
    plain: Box<[u8]>,
    /// For whoever needs room for a long frame next: memory that the system has to find first costs more than the frame.
    spare: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        // The beginning of a record may wait from the last turn.
        let size = HEADER + MAX_RECORD + READ_BUDGET;
        Self { cipher: vec![0; size].into(), plain: vec![0; size].into(), spare: Vec::new() }
    }
}

/// How a turn of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing more is there.
    All,
    /// The budget is spent; more may be there.
    Budget,
    /// The taker wants no more for now; whole frames may be waiting.
    Paused,
}

/// The reading half.
pub struct Reader {
    stream: Arc<TcpStream>,
    transport: Arc<StatelessTransportState>,
    nonce: u64,
    /// The beginning of a record.
    record: Vec<u8>,
    /// `frames[start..]`: what was decrypted and not taken yet, at most a frame and one turn's bytes.
    frames: Vec<u8>,
    start: usize,
}

impl Reader {
    /// The socket, to wait on.
    pub fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    /// How many bytes this holds room for.
    pub fn capacity(&self) -> usize {
        self.record.capacity() + self.frames.capacity()
    }

    /// Hands every whole frame that has arrived to `take`, which says whether it would have more. At most one read
    /// system call.
    ///
    /// Errors: `Closed`, `Io`, `Authentication`, `RecordTooShort`, `FrameTooLarge`. The link is of no more use then.
    pub fn drain(
        &mut self,
        scratch: &mut Scratch,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<Drained, LinkError> {
        if !self.deliver_kept(scratch, &mut take)? {
            return Ok(Drained::Paused);
        }
        let held = self.record.len();
        scratch.cipher[..held].copy_from_slice(&self.record);
        let Some(count) = self.read(&mut scratch.cipher[held..held + READ_BUDGET])? else {
            return Ok(Drained::All);
        };
        let fresh = self.decrypt(scratch, held + count)?;
        let more = match fresh {
            0 => self.deliver_kept(scratch, &mut take)?,
            _ => {
                let (taken, more) = frame::deliver(&scratch.plain[..fresh], &mut take)?;
                let kept = &scratch.plain[taken..fresh];
                let room = frame::room(kept)?;
                if room > KEPT_BY_READER {
                    // Once for a long frame and the record that ends it: growing bit by bit would copy it again and again.
                    self.frames = std::mem::take(&mut scratch.spare);
                    self.frames.reserve_exact(room + MAX_RECORD);
                }
                self.frames.extend_from_slice(kept);
                more
            }
        };
        Ok(match (more, count) {
            (false, _) => Drained::Paused,
            (true, READ_BUDGET) => Drained::Budget,
            (true, _) => Drained::All,
        })
    }

    /// Delivers from what was kept; says whether the taker would have more.
    fn deliver_kept(
        &mut self,
        scratch: &mut Scratch,
        take: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<bool, LinkError> {
        let (taken, more) = frame::deliver(&self.frames[self.start..], take)?;
        self.start += taken;
        if self.start == self.frames.len() {
            self.frames.clear();
            self.start = 0;
            if self.frames.capacity() > KEPT_BY_READER {
                scratch.spare = std::mem::take(&mut self.frames);
            }
        }
        Ok(more)
    }

    /// One read; nothing where nothing is there.
    fn read(&self, into: &mut [u8]) -> Result<Option<usize>, LinkError> {
        let mut count = None;
        let whole = into.len();
        // A short read emptied the socket. To say so saves the read that would find nothing.
        let read = self.stream.try_io(Interest::READABLE, || {
            let read = self.stream.try_read(into)?;
            count = Some(read);
            if (1..whole).contains(&read) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (count, read) {
            (Some(0), _) => Err(LinkError::Closed),
            (Some(count), _) => Ok(Some(count)),
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
            (None, _) => Ok(None),
        }
    }

    /// Decrypts the whole records of `scratch.cipher[..filled]`: behind what was kept, or if nothing was to the beginning
    /// of `scratch.plain`, and then returns how many bytes that is.
    fn decrypt(&mut self, scratch: &mut Scratch, filled: usize) -> Result<usize, LinkError> {
        self.frames.drain(..self.start);
        self.start = 0;
        let direct = self.frames.is_empty();
        let (mut at, mut fresh) = (0, 0);
        while let Some(record) = whole_record(&scratch.cipher[at..filled])? {
            // The cipher works in place and so needs room for the tag too.
            if direct {
                let into = &mut scratch.plain[fresh..fresh + record.len()];
                fresh += self.transport.read_message(self.nonce, record, into)?;
            } else {
                let end = self.frames.len();
                self.frames.resize(end + record.len(), 0);
                let size =
                    self.transport.read_message(self.nonce, record, &mut self.frames[end..])?;
                self.frames.truncate(end + size);
            }
            self.nonce += 1;
            at += HEADER + record.len();
        }
        give_back(&mut self.record, KEPT_BY_READER);
        self.record.extend_from_slice(&scratch.cipher[at..filled]);
        Ok(fresh)
    }
}

/// The ciphertext of the first record, if it is whole.
fn whole_record(bytes: &[u8]) -> Result<Option<&[u8]>, LinkError> {
    let Some((length, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_le_bytes(*length));
    if length <= TAG {
        return Err(LinkError::RecordTooShort(length));
    }
    Ok(rest.get(..length))
}

/// Empties `buffer`, and frees it if a burst has made it large.
fn give_back(buffer: &mut Vec<u8>, kept: usize) {
    buffer.clear();
    if buffer.capacity() > kept {
        *buffer = Vec::new();
    }
}

/// How much a writer may hold.
#[derive(Clone, Copy, Debug)]
pub struct WriterLimits {
    /// Frames are dropped while more than this waits, so at most one frame more ever does. Units: bytes.
    pub waiting: usize,
    /// Buffers are given back beyond this once they are empty. Units: bytes.
    pub kept: usize,
}

/// What a flush achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Everything is with the system.
    All,
    /// The socket takes no more for now.
    Blocked,
}

/// The writing half.
pub struct Writer {
    stream: Arc<TcpStream>,
    transport: Arc<StatelessTransportState>,
    nonce: u64,
    /// Long frames that are not encrypted yet, and what was said before each; `shared_bytes` in all.
    shared: VecDeque<Bytes>,
    shared_bytes: usize,
    /// `plain[start..]`: frames that are not encrypted yet, to be said after those.
    plain: Vec<u8>,
    start: usize,
    /// `cipher[written..]`: records that are not written yet.
    cipher: Vec<u8>,
    written: usize,
    limits: WriterLimits,
}

impl Writer {
    /// How many bytes wait.
    pub fn waiting(&self) -> usize {
        self.not_encrypted() + self.cipher.len() - self.written
    }

    fn not_encrypted(&self) -> usize {
        self.shared_bytes + self.plain.len() - self.start
    }

    /// How many bytes this holds room for, frames included that it shares with others; of what was said before such a frame,
    /// only what waits.
    pub fn capacity(&self) -> usize {
        self.shared_bytes + self.plain.capacity() + self.cipher.capacity()
    }

    /// Adds a frame that `encode` writes; returns how long it is, or nothing where the other end has fallen too far
    /// behind and the frame is dropped.
    pub fn queue(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Option<usize> {
        if self.waiting() > self.limits.waiting {
            return None;
        }
        Some(frame::append(&mut self.plain, encode))
    }

    /// Adds the frame of `message`, which is not copied. Otherwise like [`Writer::queue`].
    pub fn queue_shared(&mut self, message: &Bytes) -> Option<usize> {
        if self.waiting() > self.limits.waiting {
            return None;
        }
        self.plain.extend_from_slice(&frame::header(message.len()));
        let mut before = Bytes::from(std::mem::take(&mut self.plain));
        before.advance(std::mem::take(&mut self.start));
        // No record is empty.
        for piece in [before, message.clone()].into_iter().filter(|piece| !piece.is_empty()) {
            self.shared_bytes += piece.len();
            self.shared.push_back(piece);
        }
        Some(message.len())
    }

    /// Encrypts what was queued and writes until all is out or the socket is full. One write system call where less than
    /// 256 KiB waits and the socket has room.
    ///
    /// Errors: `Closed`, `Io`. The link is of no more use then.
    pub fn flush(&mut self) -> Result<Flushed, LinkError> {
        loop {
            if self.written == self.cipher.len() {
                self.written = 0;
                give_back(&mut self.cipher, self.limits.kept);
                if self.not_encrypted() == 0 {
                    self.start = 0;
                    give_back(&mut self.plain, self.limits.kept);
                    return Ok(Flushed::All);
                }
                while self.cipher.len() < WRITE_CHUNK && self.not_encrypted() > 0 {
                    self.encrypt()?;
                }
            }
            match self.stream.try_write(&self.cipher[self.written..]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.compact();
                    return Ok(Flushed::Blocked);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Adds one record.
    fn encrypt(&mut self) -> Result<(), LinkError> {
        let waiting = self.shared.front().map_or(&self.plain[self.start..], |piece| &piece[..]);
        let plain = &waiting[..waiting.len().min(MAX_PLAIN)];
        let (said, length) = (plain.len(), plain.len() + TAG);
        self.cipher.extend_from_slice(&(length as u16).to_le_bytes());
        let start = self.cipher.len();
        self.cipher.resize(start + length, 0);
        self.transport.write_message(self.nonce, plain, &mut self.cipher[start..])?;
        self.nonce += 1;
        let Some(piece) = self.shared.front_mut() else {
            self.start += said;
            return Ok(());
        };
        piece.advance(said);
        self.shared_bytes -= said;
        if piece.is_empty() {
            self.shared.pop_front();
        }
        Ok(())
    }

    /// Forgets what was encrypted, once it is half of what is held: so each byte moves about once.
    fn compact(&mut self) {
        if self.start * 2 >= self.plain.len() {
            self.plain.drain(..self.start);
            self.start = 0;
        }
    }
}

/// The two halves of the link that `channel` makes of `stream`.
pub fn split(stream: TcpStream, channel: Channel, limits: WriterLimits) -> (Reader, Writer) {
    let stream = Arc::new(stream);
    let Channel { transport, sent, received } = channel;
    let reader = Reader {
        stream: stream.clone(),
        transport: transport.clone(),
        nonce: received,
        record: Vec::new(),
        frames: Vec::new(),
        start: 0,
    };
    let writer = Writer {
        stream,
        transport,
        nonce: sent,
        shared: VecDeque::new(),
        shared_bytes: 0,
        plain: Vec::new(),
        start: 0,
        cipher: Vec::new(),
        written: 0,
        limits,
    };
    (reader, writer)
}

#[cfg(test)]
mod tests;
