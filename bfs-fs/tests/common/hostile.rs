//! What must hold whatever bytes a client or a replica sends: the bodies of the fuzz targets.

use bfs_fs::op::{
    FsRequest, decode_request, decode_result, decode_shared, encode_request, encode_result,
};
use bfs_fs::{FileSystem, FileSystemConfig, State, fsck};
use bft_core::service::{Context, Service};
use bft_core::types::{ClientId, SequenceNumber, Time};
use bytes::Bytes;

/// A request has one encoding, and nothing else is one, however its data are taken out.
pub fn request(bytes: &[u8]) {
    let request = decode_request(bytes);
    assert_eq!(request, decode_shared(&Bytes::copy_from_slice(bytes)));
    if let Some(request) = request {
        assert_eq!(encode_request(&request), bytes, "two encodings of {request:?}");
    }
}

/// So has a result.
pub fn result(bytes: &[u8]) {
    if let Some(result) = decode_result(bytes) {
        assert_eq!(encode_result(&result), bytes, "two encodings of {result:?}");
    }
}

/// So has an object, as it comes in a state transfer.
pub fn object(bytes: &[u8]) {
    if let Ok(object) = borsh::from_slice::<bfs_fs::object::Object>(bytes) {
        assert_eq!(borsh::to_vec(&object).expect("memory"), bytes, "two encodings of {object:?}");
    }
}

/// Requests one after the other, each behind its length in two bytes: the tree stays sound, a query says what executing
/// says, and two replicas come to the same state. What is no request changes nothing.
pub fn operations(bytes: &[u8]) {
    let service =
        FileSystem::new(FileSystemConfig { memory_budget: 1 << 20, ..Default::default() });
    let (mut state, mut again) = (State::default(), State::default());
    service.genesis(&mut state);
    service.genesis(&mut again);
    let mut rest = bytes;
    for n in 2.. {
        let Some((length, behind)) = rest.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (op, behind) = behind.split_at(length);
        rest = behind;
        let time = Time(n * 1_000_000_007);
        let ctx = Context { client: ClientId(0), time, n: SequenceNumber(n) };
        let asked = service.query(&ctx, &state, op);
        let shared = Bytes::copy_from_slice(op);
        let done = service.execute(&ctx, &mut state, &shared);
        assert_eq!(done, service.execute(&ctx, &mut again, &shared));
        let is_read =
            decode_request(op).is_some_and(|request: FsRequest| request.op.is_read_only());
        if let (Ok(asked), true) = (asked, is_read) {
            assert_eq!(asked, done, "a read differs from its execution");
        }
        assert!(decode_result(&done).is_some(), "it answers with what is no result");
    }
    fsck::check(&state).expect("the tree is sound");
    assert_eq!(state.digest(), again.digest());
}
