#![no_main]

#[path = "../../bft-core/tests/common/mod.rs"]
#[allow(dead_code)]
mod common;
#[path = "../../bft-core/tests/common/forgery.rs"]
#[allow(dead_code)]
mod forgery;
#[path = "../../bft-core/tests/common/hostile.rs"]
#[allow(dead_code)]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::parts(bytes));
