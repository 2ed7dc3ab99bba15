//! The real protocol core and the real file system under virtual time: one seed, one world, the same trace every time.
//!
//! ```text
//! plan.rs      what a world is made of, drawn from its seed
//! lean.rs      what makes one kind of trouble likelier
//! world.rs     events in order of virtual time; world/ has the drivers of replicas, clients and adversaries, and the healing
//! node.rs      a replica's process and its disk
//! network.rs   what happens to a message on its way
//! faults.rs    what goes wrong, and when
//! adversary/   what faulty replicas and clients do, by name
//! clients.rs   clients that work on the file system
//! oracle.rs    what must never happen: agreement, state, exactly once, linearizable answers
//! evidence.rs  what correct replicas have said and written, held against what is claimed of them
//! words.rs      what a replica has said, held against what it says: nobody may deny his own word
//! certificates.rs  what clients were told, counted again
//! patience.rs   how long a replica may wait
//! marks.rs     what a swarm must reach at least once
//! cost.rs      what work costs in virtual time
//! attack.rs    scripted attacks, their outcome and their throughput
//! planted.rs   bugs planted in the core, and which oracle catches each
//! crypto.rs    symbolic cryptography: fast, and unforgeable by construction
//! ```

#![forbid(unsafe_code)]

pub mod adversary;
pub mod attack;
pub mod certificates;
pub mod clients;
pub mod cost;
pub mod crypto;
pub mod evidence;
pub mod faults;
pub mod lean;
pub mod marks;
pub mod network;
pub mod node;
pub mod oracle;
pub mod patience;
pub mod plan;
#[cfg(feature = "planted")]
pub mod planted;
pub mod report;
pub mod swarm;
pub mod words;
pub mod world;
