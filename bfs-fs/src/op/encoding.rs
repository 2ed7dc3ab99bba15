//! Requests and results as bytes: each has exactly one encoding.

use super::{Attributes, Caller, FsError, FsOp, FsReply, FsRequest, FsResult, Inode};
use alloc::vec::Vec;
use bft_core::codec::MAX_MESSAGE;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

/// The tag of [`FsOp::Write`].
const WRITE: u8 = 14;
/// The data of a shorter request are not worth looking for. Units: bytes.
const SHARED_FROM: usize = 256;

/// The canonical bytes of a request.
pub fn encode_request(request: &FsRequest) -> Bytes {
    let op = match &request.op {
        FsOp::Watched(watched) => &*watched.op,
        op => op,
    };
    let payload = match op {
        FsOp::Write { data, .. } => data.len(),
        FsOp::SetXattr { value, .. } => value.len(),
        FsOp::Null { argument, .. } => argument.len(),
        _ => 0,
    };
    encode(request, payload)
}

/// The request in `bytes`, if they are canonical.
pub fn decode_request(bytes: &[u8]) -> Option<FsRequest> {
    borsh::from_slice(bytes).ok()
}

/// As [`decode_request`], but what is written stays where it is, instead of being copied out of `bytes`.
pub fn decode_shared(bytes: &Bytes) -> Option<FsRequest> {
    let write = if bytes.len() < SHARED_FROM { None } else { decode_write(bytes) };
    write.or_else(|| decode_request(bytes))
}

/// The request in `bytes`, if it is a write.
fn decode_write(bytes: &Bytes) -> Option<FsRequest> {
    let mut rest = &bytes[..];
    let caller = Caller::deserialize(&mut rest).ok()?;
    let (tag, inode, offset, length) = <(u8, Inode, u64, u32)>::deserialize(&mut rest).ok()?;
    let whole = rest.len() == length as usize && rest.len() <= MAX_MESSAGE;
    (tag == WRITE && whole).then(|| {
        let data = bytes.slice_ref(rest);
        FsRequest { caller, op: FsOp::Write { inode, offset, data } }
    })
}

/// The canonical bytes of a result.
pub fn encode_result(result: &FsResult) -> Bytes {
    let reply = match result {
        Ok(FsReply::Watched(report)) => report.result.as_deref().ok(),
        other => other.as_ref().ok(),
    };
    let payload = match reply {
        Some(FsReply::Data { data, .. }) => data.len(),
        Some(FsReply::Value(value)) => value.len(),
        Some(FsReply::Padding(bytes)) => bytes.len(),
        _ => 0,
    };
    encode(result, payload)
}

/// As [`encode_result`] of a [`FsReply::Data`] of `length` bytes, which `fill` appends.
pub(crate) fn encode_data(
    length: usize,
    eof: bool,
    attributes: Attributes,
    fill: impl FnOnce(&mut Vec<u8>),
) -> Bytes {
    /// Two tags, and the length.
    const HEAD: usize = 6;
    let empty = encode(&Ok::<_, FsError>(FsReply::Data { data: Bytes::new(), eof, attributes }), 0);
    let (head, tail) = empty.split_at(HEAD);
    let tags = head.split_at(HEAD - 4).0;
    let mut out = Vec::with_capacity(length + empty.len());
    out.extend_from_slice(tags);
    out.extend_from_slice(&(length as u32).to_le_bytes());
    fill(&mut out);
    assert_eq!(out.len(), HEAD + length, "what is read is as long as it was found to be");
    out.extend_from_slice(tail);
    out.into()
}

/// The result in `bytes`, if they are canonical.
pub fn decode_result(bytes: &[u8]) -> Option<FsResult> {
    borsh::from_slice(bytes).ok()
}

/// `payload`: how many bytes of `value` would otherwise be copied again when the buffer grows.
fn encode(value: &impl BorshSerialize, payload: usize) -> Bytes {
    let mut out = Vec::with_capacity(payload + 256);
    // Writing to memory cannot fail.
    let _ = value.serialize(&mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::ROOT;
    use alloc::vec;

    #[test]
    fn what_is_written_is_shared_with_the_request() {
        let caller = Caller { uid: 1, gid: 2, groups: vec![3, 4] };
        for length in [0, 1, SHARED_FROM, 1 << 20] {
            let data = Bytes::from(vec![7; length]);
            let op = FsOp::Write { inode: ROOT, offset: 9, data };
            let request = FsRequest { caller: caller.clone(), op };
            let bytes = encode_request(&request);
            assert_eq!(decode_shared(&bytes), Some(request.clone()));
            let there = bytes.as_ptr_range();
            let shared = decode_write(&bytes).is_some_and(|request| match request.op {
                FsOp::Write { data, .. } => data.is_empty() || there.contains(&data.as_ptr()),
                _ => false,
            });
            assert!(shared, "the tag of a write is {}", bytes[20]);
            // A byte more or less is no request.
            assert_eq!(decode_shared(&bytes.slice(..bytes.len() - 1)), None);
            let longer = [&bytes[..], &[0]].concat().into();
            assert_eq!(decode_shared(&longer), None);
        }
        let data = vec![7; MAX_MESSAGE + 1].into();
        let op = FsOp::Write { inode: ROOT, offset: 9, data };
        assert_eq!(decode_shared(&encode_request(&FsRequest { caller, op })), None);
    }
}
