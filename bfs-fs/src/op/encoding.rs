//! Requests and results as bytes: each has exactly one encoding.

use super::{Attributes, FsError, FsOp, FsReply, FsRequest, FsResult};
use alloc::vec::Vec;
use borsh::BorshSerialize;

/// The canonical bytes of a request.
pub fn encode_request(request: &FsRequest) -> bytes::Bytes {
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

/// The canonical bytes of a result.
pub fn encode_result(result: &FsResult) -> bytes::Bytes {
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
) -> bytes::Bytes {
    /// Two tags, and the length.
    const HEAD: usize = 6;
    let empty =
        encode(&Ok::<_, FsError>(FsReply::Data { data: bytes::Bytes::new(), eof, attributes }), 0);
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
fn encode(value: &impl BorshSerialize, payload: usize) -> bytes::Bytes {
    let mut out = Vec::with_capacity(payload + 256);
    // Writing to memory cannot fail.
    let _ = value.serialize(&mut out);
    out.into()
}
