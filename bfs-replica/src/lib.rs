//! One replica of a BFS group: its commands, its event loop, and what stands between it and its links.
//!
//! ```text
//! cli.rs       the command line       commands.rs  what each command does
//! driver.rs    does what the pure replica's outputs say
//! wire.rs      what stands between the replica and its links: in production, nothing
//! lab.rs       in lab builds: an adversary of the simulator's catalogue
//! ```

#![forbid(unsafe_code)]

pub mod cli;
pub mod commands;
pub mod driver;
#[cfg(feature = "lab")]
pub mod lab;
pub mod wire;
