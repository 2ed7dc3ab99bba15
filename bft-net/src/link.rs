//! Frames over an established channel, in two halves: the reader belongs to a task, the writer to whoever holds the hub.
//!
//! ```text
//! record   length: u16 | ciphertext: at most 65,535 bytes, its tag included
//! frame    length: u32 | message: at most MAX_MESSAGE bytes
//! ```
//!
//! Records carry one stream of frames: many small frames share a record, a large one spans several.

use crate::noise::LinkError;
use bft_core::codec::MAX_MESSAGE;
use snow::StatelessTransportState;
use std::io;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const MAX_RECORD: usize = 65_535;
const TAG: usize = 16;
const MAX_PLAIN: usize = MAX_RECORD - TAG;
/// What one read asks for, and hence what one link may bring before others have their turn.
const READ_CHUNK: usize = 128 * 1024;
/// What is encrypted before it is written: a peer that does not read costs its plaintext once, not its ciphertext too.
const BURST: usize = 3 * MAX_PLAIN;
/// Buffers that a burst has grown beyond this are given back when they run empty.
const KEPT_CAPACITY: usize = 256 * 1024;

/// The reading half.
pub struct Reader {
    stream: OwnedReadHalf,
    channel: Arc<StatelessTransportState>,
    nonce: u64,
    /// Ciphertext that has arrived: `cipher[..filled]`.
    cipher: Vec<u8>,
    filled: usize,
    /// Whether the last read took all that it asked for, so that more may be there.
    more: bool,
    /// Plaintext: whole frames and the beginning of the next.
    plain: Vec<u8>,
    taken: usize,
}

impl Reader {
    /// Reads what `channel` encrypts on `stream`.
    pub fn new(stream: OwnedReadHalf, channel: Arc<StatelessTransportState>) -> Self {
        let (cipher, plain) = (vec![0; READ_CHUNK], Vec::new());
        Self { stream, channel, nonce: 0, cipher, filled: 0, more: false, plain, taken: 0 }
    }

    /// Waits for bytes and decrypts what is whole. One read system call.
    ///
    /// Errors: `Closed`, `Io`, and `Authentication` for a record that this channel did not encrypt as its next.
    pub async fn fill(&mut self) -> Result<(), LinkError> {
        if self.more {
            // A peer that sends faster than we read would keep its socket ready, and the others waiting.
            tokio::task::yield_now().await;
        }
        let read = self.stream.read(&mut self.cipher[self.filled..]).await?;
        if read == 0 {
            return Err(LinkError::Closed);
        }
        self.filled += read;
        self.more = self.filled == self.cipher.len();
        self.decrypt()
    }

    fn decrypt(&mut self) -> Result<(), LinkError> {
        self.forget_taken();
        let mut at = 0;
        while let Some(length) = self.cipher[at..self.filled].first_chunk::<2>() {
            let length = usize::from(u16::from_le_bytes(*length));
            let Some(record) = self.cipher[at + 2..self.filled].get(..length) else { break };
            let start = self.plain.len();
            let size = length.checked_sub(TAG).ok_or(LinkError::Authentication)?;
            self.plain.resize(start + size, 0);
            self.channel.read_message(self.nonce, record, &mut self.plain[start..])?;
            self.nonce += 1;
            at += 2 + length;
        }
        self.cipher.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    fn forget_taken(&mut self) {
        if self.taken == self.plain.len() {
            self.plain.clear();
            self.plain.shrink_to(KEPT_CAPACITY);
        } else {
            self.plain.drain(..self.taken);
        }
        self.taken = 0;
    }

    /// The next whole frame.
    ///
    /// Errors: `FrameTooLarge`, before anything is kept of it.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, LinkError> {
        let rest = &self.plain[self.taken..];
        let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_MESSAGE {
            return Err(LinkError::FrameTooLarge(length));
        }
        if rest.len() < 4 + length {
            return Ok(None);
        }
        let start = self.taken + 4;
        self.taken = start + length;
        Ok(self.plain.get(start..start + length))
    }
}

/// The writing half.
pub struct Writer {
    stream: Arc<OwnedWriteHalf>,
    channel: Arc<StatelessTransportState>,
    nonce: u64,
    /// Frames; those up to `encrypted` have become records.
    plain: Vec<u8>,
    encrypted: usize,
    /// Records not written yet: `cipher[written..]`.
    cipher: Vec<u8>,
    written: usize,
    limit: usize,
}

/// What a flush achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Everything is with the system.
    All,
    /// The socket takes no more for now.
    Blocked,
}

impl Writer {
    /// Writes on `stream`, and holds at most `limit` bytes and one frame that the other end does not take.
    pub fn new(
        stream: Arc<OwnedWriteHalf>,
        channel: Arc<StatelessTransportState>,
        limit: usize,
    ) -> Self {
        let (plain, cipher) = (Vec::new(), Vec::new());
        Self { stream, channel, nonce: 0, plain, encrypted: 0, cipher, written: 0, limit }
    }

    /// The socket, to wait on.
    pub fn stream(&self) -> Arc<OwnedWriteHalf> {
        self.stream.clone()
    }

    /// How many bytes wait.
    pub fn waiting(&self) -> usize {
        self.plain.len() - self.encrypted + self.cipher.len() - self.written
    }

    /// Adds a frame that `encode` writes, unless the other end has fallen too far behind; says whether it did.
    pub fn queue(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.plain.len() + self.cipher.len() > self.limit {
            return false;
        }
        let start = self.plain.len();
        self.plain.extend_from_slice(&[0; 4]);
        encode(&mut self.plain);
        let length = self.plain.len() - start - 4;
        assert!(length <= MAX_MESSAGE, "a message of {length} bytes would be refused");
        self.plain[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        true
    }

    /// Encrypts what was queued and writes until all is out or the socket is full. Usually one write system call.
    pub fn flush(&mut self) -> Result<Flushed, LinkError> {
        loop {
            if self.written == self.cipher.len() {
                self.cipher.clear();
                self.written = 0;
                if self.plain.is_empty() {
                    self.cipher.shrink_to(KEPT_CAPACITY);
                    self.plain.shrink_to(KEPT_CAPACITY);
                    return Ok(Flushed::All);
                }
                self.encrypt()?;
            }
            match self.stream.try_write(&self.cipher[self.written..]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed::Blocked);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes records of the next frames.
    fn encrypt(&mut self) -> Result<(), LinkError> {
        let end = self.plain.len().min(self.encrypted + BURST);
        for chunk in self.plain[self.encrypted..end].chunks(MAX_PLAIN) {
            let start = self.cipher.len();
            let length = chunk.len() + TAG;
            self.cipher.resize(start + 2 + length, 0);
            self.cipher[start..start + 2].copy_from_slice(&(length as u16).to_le_bytes());
            self.channel.write_message(self.nonce, chunk, &mut self.cipher[start + 2..])?;
            self.nonce += 1;
        }
        self.encrypted = end;
        // Half at least, so that no byte is moved more than once for each that leaves.
        if self.encrypted * 2 >= self.plain.len() {
            self.plain.drain(..self.encrypted);
            self.encrypted = 0;
        }
        Ok(())
    }
}
