//! Names of directory entries, and the cookies that they hash to.

use crate::op::{FsError, MAX_NAME};

/// How many entries of one directory may have the same hash.
pub(crate) const SAME_HASH: u64 = 8;
/// The cookie of ".".
pub(crate) const SELF_COOKIE: u64 = 1;
/// The cookie of "..".
pub(crate) const PARENT_COOKIE: u64 = 2;

/// What a name may be. [path_resolution(7)]
///
/// Errors: `NotFound` if it is empty, `NameTooLong`, `Invalid` if it holds a slash or a NUL.
pub(crate) fn check(name: &[u8]) -> Result<(), FsError> {
    match name {
        [] => Err(FsError::NotFound),
        _ if name.len() > MAX_NAME => Err(FsError::NameTooLong),
        _ if name.iter().any(|byte| matches!(byte, b'/' | 0)) => Err(FsError::Invalid),
        _ => Ok(()),
    }
}

/// Whether `name` is "." or "..", which no entry is called.
pub(crate) fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// The first and the last cookie that an entry called `name` can have.
///
/// 60 bits of its hash, then 3 bits that tell apart names with the same hash. So a cookie depends on no other entry that
/// comes or goes, is positive as an i64, and is above those of "." and "..".
pub(crate) fn cookies(name: &[u8]) -> (u64, u64) {
    let hash = blake3::hash(name);
    let bits = hash.as_bytes().iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let first = (bits >> 4).max(1) * SAME_HASH;
    (first, first + (SAME_HASH - 1))
}

/// The first and the last place, both even, that an extended attribute called `name` can have: 8 of them, 2 apart.
pub(crate) fn xattr_places(name: &[u8]) -> (u64, u64) {
    let (first, last) = cookies(name);
    (first * 2, last * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_linux_does() {
        assert_eq!(check(b""), Err(FsError::NotFound));
        assert_eq!(check(b"a/b"), Err(FsError::Invalid));
        assert_eq!(check(b"a\0b"), Err(FsError::Invalid));
        assert_eq!(check(&[b'x'; 256]), Err(FsError::NameTooLong));
        assert_eq!(check(&[0xff; 255]), Ok(()));
    }

    #[test]
    fn cookies_are_positive_and_above_those_of_the_dots() {
        for i in 0..10_000u32 {
            let (first, last) = cookies(&i.to_le_bytes());
            assert!(first > PARENT_COOKIE && last <= i64::MAX as u64);
            assert_eq!((first % SAME_HASH, last - first), (0, SAME_HASH - 1));
        }
    }
}
