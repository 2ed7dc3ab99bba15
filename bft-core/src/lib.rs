//! Practical Byzantine fault tolerance as pure state machines: the replica's side and the client's.
//!
//! Nothing here touches a socket, a file, a clock, a thread or a random number: see [`io`] for the one way in and the
//! one way out.
//!
//! Sources are cited by section, as in [CL99 §4.2]: CL99 is OSDI'99, CL00 OSDI'00 and CL02 TOCS'02, Castro and Liskov's papers.

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

extern crate alloc;
#[cfg(any(test, feature = "planted"))]
extern crate std;

pub mod auth;
pub mod certificate;
pub mod choice;
pub mod client;
pub mod clients;
pub mod codec;
pub mod evidence;
pub mod io;
pub mod log;
pub mod messages;
pub mod objects;
pub mod planted;
pub mod replica;
pub mod service;
pub mod sessions;
pub mod tree;
pub mod types;
