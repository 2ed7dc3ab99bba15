#![no_main]

#[path = "../../bfs-client/tests/common/nfs_record.rs"]
mod nfs_record;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    nfs_record::send(bytes);
});
