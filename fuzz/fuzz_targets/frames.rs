#![no_main]

#[path = "../../bft-net/tests/common/mod.rs"]
#[allow(dead_code)]
mod common;
#[path = "../../bft-net/tests/common/hostile.rs"]
#[allow(dead_code)]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::frames(bytes));
