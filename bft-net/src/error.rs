//! Everything that can be wrong with a link.

use bft_core::types::{GroupId, Peer};
use std::io;
use thiserror::Error;

/// Why a link could not be made, or ended. All of it can be another machine's doing: counted, never a panic.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other end closed the connection.
    #[error("closed by the other end")]
    Closed,
    /// Whatever is there does not speak this protocol.
    #[error("the other end does not speak BFS: check the address and the port")]
    NotBfs,
    /// The other end is older or newer.
    #[error(
        "the other end speaks protocol version {theirs}, this one {ours}: run the same release on both"
    )]
    VersionMismatch {
        /// This end's version.
        ours: u16,
        /// The other's.
        theirs: u16,
    },
    /// The other end has another group file.
    #[error(
        "the other end's group is {theirs}, this one's is {ours}: compare the files with `bfs group show`"
    )]
    GroupMismatch {
        /// This end's group.
        ours: GroupId,
        /// The other's.
        theirs: GroupId,
    },
    /// The handshake or a record does not fit the keys: another principal, damage, or replay.
    #[error("authentication failed")]
    Authentication,
    /// A key of low order, with which everyone knows the shared secret. [RFC 7748 §6.1]
    #[error("the other end sent a key of low order")]
    LowOrderKey,
    /// The other end's key is not in the group file.
    #[error("the other end's key is not in the group file")]
    UnknownPeer,
    /// One that waits to be called has called: between two replicas the one with the higher id calls, and clients call
    /// replicas.
    #[error("{0} has called, and should wait to be called")]
    WrongDirection(Peer),
    /// A record that is too short to hold anything.
    #[error("a record of {0} bytes is too short")]
    RecordTooShort(usize),
    /// A frame is longer than any message.
    #[error("a frame of {0} bytes is longer than any message")]
    FrameTooLarge(usize),
    /// The handshake took too long.
    #[error("the handshake took too long")]
    TooSlow,
    /// The handshake gave way to newer ones.
    #[error("too many handshakes at once")]
    Crowded,
}

impl LinkError {
    /// The name under which errors of this kind are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::Closed => "closed",
            Self::NotBfs => "not-bfs",
            Self::VersionMismatch { .. } => "version-mismatch",
            Self::GroupMismatch { .. } => "group-mismatch",
            Self::Authentication => "authentication",
            Self::LowOrderKey => "low-order-key",
            Self::UnknownPeer => "unknown-peer",
            Self::WrongDirection(_) => "wrong-direction",
            Self::RecordTooShort(_) => "record-too-short",
            Self::FrameTooLarge(_) => "frame-too-large",
            Self::TooSlow => "too-slow",
            Self::Crowded => "crowded",
        }
    }
}

impl From<snow::Error> for LinkError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Dh => Self::LowOrderKey,
            _ => Self::Authentication,
        }
    }
}
