//! The bodies of the fuzz targets on seeded inputs: every run of the tests tries the same ones.

mod common;
#[path = "common/forgery.rs"]
#[allow(dead_code)]
mod forgery;
#[path = "common/hostile.rs"]
mod hostile;
#[path = "common/seeded.rs"]
mod seeded;

use bft_core::codec;
use common::Cluster;

#[test]
fn whatever_decodes_is_canonical() {
    // What a group says, as the examples to change.
    let mut group = Cluster::new(4, 1);
    group.open_session();
    let mut examples = vec![Vec::new()];
    for seq in 1..=8 {
        group.ask(0, Cluster::request(seq, b"\x01"));
        group.deliver(|_, _, message| {
            let mut bytes = Vec::new();
            codec::encode(message, &mut bytes);
            examples.push(bytes);
            !(3..=5).contains(&seq)
        });
        group.repair();
    }
    seeded::run(200_000, 512, &examples, hostile::message);
}

#[test]
fn parts_that_were_made_up_are_refused() {
    seeded::run(20_000, 256, &[], hostile::parts);
}

#[test]
fn hostile_messages_stop_nobody() {
    seeded::run(6_000, 2_048, &[], hostile::replica);
}
