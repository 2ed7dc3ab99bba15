//! Links between the principals of a group: keys, the group's public file, Noise channels, frames, and the event loop
//! that replicas and clients share.
//!
//! ```text
//! keys.rs    key files, mode 0600 or refused
//! group.rs   group.toml: public, the same everywhere; its digest is the group's name
//! error.rs   everything that can be wrong with a link, each kind counted under its name
//! dh.rs      X25519 that refuses points of low order
//! noise.rs   who is at the other end: preamble, handshake, confirmation
//! roster.rs  whose key is whose, as clients come and go
//! frame.rs   frames in a stream of bytes
//! link.rs    records over an established channel, without blocking
//! links.rs   the links as an endpoint sees them: sending, limits, counters
//! hub.rs     one endpoint and its links behind one lock
//! tasks.rs   the tasks around it: dial, accept, read, flush, keep time
//! ```

#![forbid(unsafe_code)]

mod dh;
pub mod error;
pub mod frame;
pub mod group;
pub mod hub;
pub mod keys;
pub mod link;
pub mod links;
pub mod noise;
mod roster;
mod tasks;
