//! XDR: four-byte units, most significant byte first. [RFC 4506]
//!
//! Decoding is canonical and believes no length that the bytes do not hold; it copies nothing.

use bytes::Bytes;

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

type Decoded<T> = Result<T, Malformed>;

/// Takes values off a record, from the front.
#[derive(Clone, Debug)]
pub struct Reader {
    record: Bytes,
    at: usize,
}

impl Reader {
    /// Reads `record` from its start.
    pub fn new(record: Bytes) -> Self {
        Self { record, at: 0 }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.record.len() - self.at
    }

    /// What is left.
    pub fn rest(&self) -> &[u8] {
        &self.record[self.at..]
    }

    fn take<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let bytes = self.record.get(self.at..self.at + N).ok_or(Malformed)?;
        self.at += N;
        bytes.try_into().map_err(|_| Malformed)
    }

    /// An unsigned integer, or the number of an enumeration.
    pub fn u32(&mut self) -> Decoded<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// An unsigned hyper integer.
    pub fn u64(&mut self) -> Decoded<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// Errors: anything but 0 and 1.
    pub fn bool(&mut self) -> Decoded<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// What follows a "yes", if there is one.
    pub fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Decoded<T>,
    ) -> Decoded<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Opaque data of a fixed length, which is a multiple of four.
    pub fn fixed<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        const { assert!(N.is_multiple_of(4)) };
        self.take()
    }

    /// Opaque data or a string of at most `most` bytes, sharing the record's memory.
    ///
    /// Errors: it is longer than that or than the record; its padding is not zero.
    pub fn opaque(&mut self, most: usize) -> Decoded<Bytes> {
        let length = self.u32()? as usize;
        if length > most || length > self.left() {
            return Err(Malformed);
        }
        let data = self.record.slice(self.at..self.at + length);
        self.at += length;
        let padding = self.record.get(self.at..self.at + padding(length)).ok_or(Malformed)?;
        self.at += padding.len();
        if padding.iter().all(|byte| *byte == 0) { Ok(data) } else { Err(Malformed) }
    }

    /// Errors: something is left.
    pub fn end(self) -> Decoded<()> {
        if self.left() == 0 { Ok(()) } else { Err(Malformed) }
    }
}

/// How many zeros follow `length` bytes of opaque data.
pub const fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}

/// How many bytes opaque data of `length` bytes takes, its length and padding included.
pub const fn opaque_size(length: usize) -> usize {
    4 + length + padding(length)
}

/// Puts values at the end of a record.
#[derive(Clone, Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u32(value.into())
    }

    /// Opaque data of a fixed length, which is a multiple of four.
    pub fn fixed(&mut self, value: &[u8]) -> &mut Self {
        debug_assert!(value.len().is_multiple_of(4));
        self.0.extend_from_slice(value);
        self
    }

    /// Opaque data or a string. Requires: it is shorter than 4 GiB, as everything here is.
    pub fn opaque(&mut self, value: &[u8]) -> &mut Self {
        self.u32(value.len() as u32);
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len() + padding(value.len()), 0);
        self
    }

    /// A "yes" and what `write` writes for it, or a "no".
    pub fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &'static [u8]) -> Reader {
        Reader::new(Bytes::from_static(bytes))
    }

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.u32(7).u64(u64::MAX - 1).bool(true).opaque(b"abcde").fixed(&[1; 8]);
        for value in [Some(9), None] {
            writer.optional(value, |writer, value| {
                writer.u32(value);
            });
        }
        let mut reader = Reader::new(writer.0.into());
        assert_eq!(reader.u32(), Ok(7));
        assert_eq!(reader.u64(), Ok(u64::MAX - 1));
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.opaque(5).unwrap(), &b"abcde"[..]);
        assert_eq!(reader.fixed::<8>(), Ok([1; 8]));
        assert_eq!(reader.optional(Reader::u32), Ok(Some(9)));
        assert_eq!(reader.optional(Reader::u32), Ok(None));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn only_canonical_bytes_are_read() {
        assert_eq!(reader(&[0, 0, 0, 2]).bool(), Err(Malformed));
        assert_eq!(reader(&[0, 0, 0]).u32(), Err(Malformed));
        assert_eq!(reader(&[0, 0, 0, 1, b'a', 0, 0]).opaque(9), Err(Malformed), "no padding");
        assert_eq!(reader(&[0, 0, 0, 1, b'a', 0, 0, 1]).opaque(9), Err(Malformed), "padding");
        assert_eq!(reader(&[0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]).opaque(4), Err(Malformed));
        assert_eq!(
            reader(&[0xff; 12]).opaque(usize::MAX),
            Err(Malformed),
            "4 GiB that are not there"
        );
        assert_eq!(reader(&[0]).end(), Err(Malformed));
    }
}
