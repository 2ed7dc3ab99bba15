//! Canonical bytes: every message has exactly one encoding, and whatever is not one is refused.
//!
//! The format is borsh. The frame that carries a message is bounded before a byte of it is allocated, a length is believed
//! up to the largest message, and trailing bytes, bad tags and bad booleans are errors, so decoding then encoding gives the
//! same bytes back. Payloads are copied once, out of the frame, so that a small body never pins a large buffer.

use crate::io::Rejection;
use crate::messages::Message;
use alloc::vec::Vec;
use borsh::io::{ErrorKind, Read};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

/// The most bytes one encoded message has: a 1 MiB operation and what surrounds it.
pub const MAX_MESSAGE: usize = (1 << 20) + (64 << 10);

/// How much room for a payload is cleared at once, before it is read into it. Units: bytes.
const STEP: usize = 8 << 10;

/// Appends the canonical bytes of `message` to `out`.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = message.serialize(out);
}

/// The message whose canonical bytes are `bytes`.
///
/// Errors: `Malformed`, `TooLarge`. Never panics, and allocates no more than a small multiple of `bytes.len()` and a largest message.
pub fn decode(bytes: &[u8]) -> Result<Message, Rejection> {
    if bytes.len() > MAX_MESSAGE {
        return Err(Rejection::TooLarge);
    }
    borsh::from_slice(bytes).map_err(|_| Rejection::Malformed)
}

/// A payload, as borsh reads one, but into room that is taken once: borsh would move one of more than a mebibyte.
///
/// Errors: it is longer than a message, or not there.
pub fn payload<R: Read>(reader: &mut R) -> borsh::io::Result<Bytes> {
    let length = u32::deserialize_reader(reader)? as usize;
    if length > MAX_MESSAGE {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let from = bytes.len();
        bytes.resize(length.min(from + STEP), 0);
        reader.read_exact(bytes.get_mut(from..).unwrap_or_default())?;
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Operation;

    #[test]
    fn a_payload_is_as_long_as_it_says_and_no_longer_than_a_message() {
        let decoded = |says: usize, has: usize| {
            let mut bytes = alloc::vec![1];
            bytes.extend_from_slice(&(says as u32).to_le_bytes());
            bytes.resize(bytes.len() + has, 7);
            borsh::from_slice::<Operation>(&bytes)
        };
        for length in [0, 3, STEP, 2 * STEP + 1, MAX_MESSAGE] {
            let payload = Bytes::from(alloc::vec![7; length]);
            assert_eq!(decoded(length, length).unwrap(), Operation::Service(payload));
        }
        let over = MAX_MESSAGE + 1;
        for (says, has) in [(4, 3), (3, 4), (u32::MAX as usize, 3), (over, over)] {
            assert!(decoded(says, has).is_err(), "{says} of {has}");
        }
    }
}
