#![no_main]

#[path = "../../bfs-fs/tests/common/hostile.rs"]
#[allow(dead_code)]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::request(bytes));
