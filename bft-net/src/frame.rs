//! Frames in a stream of bytes.
//!
//! ```text
//! frame    length: u32, little-endian | message: at most MAX_FRAME bytes
//! ```

use crate::error::LinkError;
use bft_core::codec::MAX_MESSAGE;

/// The longest frame. Units: bytes.
pub const MAX_FRAME: usize = MAX_MESSAGE;
/// What a frame's length takes. Units: bytes.
pub(crate) const LENGTH: usize = 4;

/// Appends a frame that `encode` writes; its length is filled in afterwards. Returns how long the message is.
///
/// Panics: where `encode` writes more than [`MAX_FRAME`] or takes bytes away, which is our own bug.
pub fn append(stream: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = stream.len() + LENGTH;
    stream.extend_from_slice(&[0; LENGTH]);
    encode(stream);
    let length = stream.len().checked_sub(start).expect("an encoder only appends");
    stream[start - LENGTH..start].copy_from_slice(&header(length));
    length
}

/// What precedes a message of `length` bytes.
///
/// Panics: where that is more than [`MAX_FRAME`], which is our own bug.
pub(crate) fn header(length: usize) -> [u8; LENGTH] {
    assert!(length <= MAX_FRAME, "a message of {length} bytes would be refused");
    (length as u32).to_le_bytes()
}

/// The first frame of `stream`, if it is whole.
///
/// Errors: `FrameTooLarge`, as soon as the length is there: nothing is kept for such a frame.
pub fn first(stream: &[u8]) -> Result<Option<&[u8]>, LinkError> {
    if stream.len() < LENGTH {
        return Ok(None);
    }
    Ok(stream.get(LENGTH..room(stream)?))
}

/// How much room the frame takes that `stream` begins with, or what is there of it.
///
/// Errors: `FrameTooLarge`.
pub(crate) fn room(stream: &[u8]) -> Result<usize, LinkError> {
    let Some((length, _)) = stream.split_first_chunk::<LENGTH>() else { return Ok(stream.len()) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_FRAME {
        return Err(LinkError::FrameTooLarge(length));
    }
    Ok(LENGTH + length)
}

/// Hands the whole frames of `stream` to `take`, in order, until none is left or `take` says false.
///
/// Returns how many bytes were taken, and whether `take` would have more.
pub(crate) fn deliver(
    stream: &[u8],
    take: &mut impl FnMut(&[u8]) -> bool,
) -> Result<(usize, bool), LinkError> {
    let mut taken = 0;
    while let Some(frame) = first(&stream[taken..])? {
        taken += LENGTH + frame.len();
        if !take(frame) {
            return Ok((taken, false));
        }
    }
    Ok((taken, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut stream = Vec::new();
        let frames: [&[u8]; 3] = [b"", b"a", &[7; 300]];
        for frame in frames {
            assert_eq!(append(&mut stream, |out| out.extend_from_slice(frame)), frame.len());
        }
        let mut out: Vec<Vec<u8>> = Vec::new();
        let all = deliver(&stream, &mut |frame| {
            out.push(frame.to_vec());
            true
        });
        assert_eq!(all.unwrap(), (stream.len(), true));
        assert_eq!(out, frames);
        // A frame that lacks its last byte stays.
        let whole = stream.len() - 304;
        let cut = deliver(&stream[..stream.len() - 1], &mut |_| true);
        assert_eq!(cut.unwrap(), (whole, true));
        // So does what comes after one that said enough.
        assert_eq!(deliver(&stream, &mut |_| false).unwrap(), (LENGTH, false));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_from_its_header_alone() {
        let header = |length: usize| (length as u32).to_le_bytes();
        assert!(matches!(first(&header(MAX_FRAME)), Ok(None)));
        for length in [MAX_FRAME + 1, u32::MAX as usize] {
            assert!(
                matches!(first(&header(length)), Err(LinkError::FrameTooLarge(l)) if l == length)
            );
        }
        assert!(matches!(first(&[0xff; 3]), Ok(None)));
    }

    #[test]
    #[should_panic(expected = "would be refused")]
    fn our_own_frames_keep_the_limit() {
        append(&mut Vec::new(), |out| out.resize(LENGTH + MAX_FRAME + 1, 0));
    }
}
