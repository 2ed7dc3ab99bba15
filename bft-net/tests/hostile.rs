//! The bodies of the fuzz targets on seeded inputs: every run of the tests tries the same ones.

mod common;
#[path = "common/hostile.rs"]
mod hostile;
#[path = "../../bft-core/tests/common/seeded.rs"]
mod seeded;

use bft_net::frame;
use common::World;

#[test]
fn frames_come_out_as_they_went_in() {
    let mut stream = Vec::new();
    for length in [0, 1, 7, 300] {
        frame::append(&mut stream, |out| out.resize(out.len() + length, 9));
    }
    seeded::run(100_000, 64, &[stream], hostile::frames);
}

#[test]
fn nobody_without_a_key_is_let_in() {
    seeded::run(5_000, 300, &[], hostile::handshake);
}

#[test]
fn a_group_file_is_sound_or_refused() {
    let example = World::new(4, 2).group.to_toml().into_bytes();
    seeded::run(10_000, 200, &[example], hostile::group);
}
