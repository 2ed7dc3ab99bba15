//! Canonical bytes: every message has exactly one encoding, and whatever is not one is refused.
//!
//! The format is borsh. The frame that carries a message is bounded before a byte of it is allocated, borsh allocates no
//! more than the frame holds, and trailing bytes, bad tags and bad booleans are errors, so decoding then encoding gives the
//! same bytes back. Payloads are copied once, out of the frame, so that a small body never pins a large buffer.

use crate::io::Rejection;
use crate::messages::Message;
use alloc::vec::Vec;
use borsh::BorshSerialize;

/// The most bytes one encoded message has: a 1 MiB operation and what surrounds it.
pub const MAX_MESSAGE: usize = (1 << 20) + (64 << 10);

/// Appends the canonical bytes of `message` to `out`.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = message.serialize(out);
}

/// The message whose canonical bytes are `bytes`.
///
/// Errors: `Malformed`, `TooLarge`. Never panics, and allocates no more than a small multiple of `bytes.len()`.
pub fn decode(bytes: &[u8]) -> Result<Message, Rejection> {
    if bytes.len() > MAX_MESSAGE {
        return Err(Rejection::TooLarge);
    }
    borsh::from_slice(bytes).map_err(|_| Rejection::Malformed)
}
