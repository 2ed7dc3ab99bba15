//! Links between the principals of a group: keys, the group's public file, Noise channels, frames, and the event loop
//! that replicas and clients share.
//!
//! ```text
//! keys.rs    key files, mode 0600 or refused
//! group.rs   group.toml: public, the same everywhere; its digest is the group's name
//! noise.rs   who is at the other end: preamble and handshake
//! link.rs    frames over an established channel, without blocking
//! hub.rs     tasks that dial, accept, read, flush and keep time around one endpoint
//! ```

#![forbid(unsafe_code)]

pub mod group;
pub mod hub;
pub mod keys;
pub mod link;
pub mod noise;
