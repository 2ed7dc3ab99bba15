//! The real protocol core and the real file system under virtual time: one seed, one world, the same trace every time.
//!
//! ```text
//! world.rs    events in order of virtual time; replicas, clients, links and disks
//! network.rs  what happens to a message on its way: delay, loss, duplication
//! clients.rs  clients that work on the file system, and what they saw
//! oracle.rs   what must never happen: I-1 agreement, I-3 state, I-4x exactly once, I-6 linearizable answers
//! crypto.rs   symbolic cryptography: fast, and unforgeable by construction
//! ```

#![forbid(unsafe_code)]

pub mod clients;
pub mod crypto;
pub mod network;
pub mod oracle;
pub mod world;
