//! Who is at the other end: a preamble that names version and group in the clear, then Noise_IK between static X25519 keys.
//!
//! ```text
//! initiator → responder   preamble, length, message 1   (e, es, s, ss)
//! initiator ← responder   preamble
//! initiator ← responder   length, message 2             (e, ee, se)
//! initiator → responder   length, an empty record       (message 1 was no recording)
//! ```
//!
//! The preamble lets two that do not belong together say why; it is also the prologue of the handshake, so nobody can
//! change it on the way.

use crate::group::Group;
use crate::keys::Identity;
use bft_core::types::{Digest, GroupId, Peer};
use snow::{Builder, HandshakeState, StatelessTransportState};
use std::io;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use x25519_dalek::{PublicKey, StaticSecret};

/// The version of everything that travels. Two versions do not talk.
pub const PROTOCOL_VERSION: u16 = 1;

const PATTERN: &str = "Noise_IK_25519_AESGCM_BLAKE2s";
const MAGIC: [u8; 4] = *b"BFS\0";
const PREAMBLE: usize = 4 + 2 + 32;
/// Message 1 has 96 bytes, message 2 has 48; anything longer is not ours.
const MAX_HANDSHAKE: usize = 128;
/// The nonce of the empty record: one that no link lives long enough to reach.
const CONFIRMATION: u64 = u64::MAX - 1;
const CONFIRMATION_SIZE: usize = 16;

/// Why a link could not be made, or ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other end closed the connection.
    #[error("closed by the other end")]
    Closed,
    /// Whatever is there does not speak this protocol.
    #[error("the other end does not speak BFS")]
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
        "the other end's group file is {theirs}, this one's is {ours}: compare the files with `bfs group show`"
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
    /// The other end's key is in no group file.
    #[error("the other end's key is not in the group file")]
    UnknownPeer,
    /// A frame is longer than any message.
    #[error("a frame of {0} bytes is longer than any message")]
    FrameTooLarge(usize),
    /// The handshake took too long.
    #[error("the handshake took too long")]
    TooSlow,
}

impl From<snow::Error> for LinkError {
    fn from(_: snow::Error) -> Self {
        LinkError::Authentication
    }
}

fn preamble(group: &Group) -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    bytes[6..].copy_from_slice(&group.id().0.0);
    bytes
}

fn check_preamble(ours: &[u8; PREAMBLE], theirs: &[u8; PREAMBLE]) -> Result<(), LinkError> {
    if theirs[..4] != MAGIC {
        return Err(LinkError::NotBfs);
    }
    let version = u16::from_le_bytes([theirs[4], theirs[5]]);
    if version != PROTOCOL_VERSION {
        return Err(LinkError::VersionMismatch { ours: PROTOCOL_VERSION, theirs: version });
    }
    let group = |bytes: &[u8; PREAMBLE]| {
        let mut digest = [0; 32];
        digest.copy_from_slice(&bytes[6..]);
        GroupId(Digest(digest))
    };
    if ours != theirs {
        return Err(LinkError::GroupMismatch { ours: group(ours), theirs: group(theirs) });
    }
    Ok(())
}

fn builder<'a>(identity: &'a Identity, prologue: &'a [u8]) -> Result<Builder<'a>, LinkError> {
    let pattern = PATTERN.parse().map_err(|_| LinkError::Authentication)?;
    Ok(Builder::new(pattern).local_private_key(identity.link_secret())?.prologue(prologue)?)
}

/// Calls the principal whose link key is `remote`.
///
/// Requires: the caller bounds the time this takes.
pub async fn initiate(
    stream: &mut TcpStream,
    identity: &Identity,
    group: &Group,
    remote: &[u8; 32],
) -> Result<StatelessTransportState, LinkError> {
    let ours = preamble(group);
    let builder = builder(identity, &ours)?.remote_public_key(remote)?;
    let mut handshake = builder.build_initiator()?;
    let mut first = ours.to_vec();
    first.extend(message(&mut handshake)?);
    stream.write_all(&first).await?;
    let mut theirs = [0; PREAMBLE];
    stream.read_exact(&mut theirs).await.map_err(closed)?;
    check_preamble(&ours, &theirs)?;
    read_message(stream, &mut handshake).await?;
    let channel = handshake.into_stateless_transport_mode()?;
    stream.write_all(&confirmation(&channel)?).await?;
    Ok(channel)
}

/// Answers whoever called, and says who it is.
///
/// Requires: the caller bounds the time this takes.
pub async fn respond(
    stream: &mut TcpStream,
    identity: &Identity,
    group: &Group,
) -> Result<(Peer, StatelessTransportState), LinkError> {
    let ours = preamble(group);
    let mut theirs = [0; PREAMBLE];
    stream.read_exact(&mut theirs).await.map_err(closed)?;
    // Told also to one that does not belong here, so that it can say what is wrong.
    stream.write_all(&ours).await?;
    check_preamble(&ours, &theirs)?;
    let mut handshake = builder(identity, &ours)?.build_responder()?;
    let ephemeral = read_message(stream, &mut handshake).await?;
    refuse_low_order(identity, ephemeral)?;
    let remote = handshake.get_remote_static().and_then(|key| <[u8; 32]>::try_from(key).ok());
    let peer = remote.and_then(|key| group.peer_of(&key)).ok_or(LinkError::UnknownPeer)?;
    let reply = message(&mut handshake)?;
    stream.write_all(&reply).await?;
    let channel = handshake.into_stateless_transport_mode()?;
    read_confirmation(stream, &channel).await?;
    Ok((peer, channel))
}

/// The empty record that only whoever holds the ephemeral secret of message 1 can make.
fn confirmation(
    channel: &StatelessTransportState,
) -> Result<[u8; 2 + CONFIRMATION_SIZE], LinkError> {
    let mut bytes = [0; 2 + CONFIRMATION_SIZE];
    bytes[..2].copy_from_slice(&(CONFIRMATION_SIZE as u16).to_le_bytes());
    channel.write_message(CONFIRMATION, &[], &mut bytes[2..])?;
    Ok(bytes)
}

/// Waits for the empty record. Message 1 alone could be a recording, sent again to take the place of the true link.
async fn read_confirmation(
    stream: &mut TcpStream,
    channel: &StatelessTransportState,
) -> Result<(), LinkError> {
    let mut bytes = [0; 2 + CONFIRMATION_SIZE];
    stream.read_exact(&mut bytes).await.map_err(closed)?;
    if bytes[..2] != (CONFIRMATION_SIZE as u16).to_le_bytes() {
        return Err(LinkError::Authentication);
    }
    channel.read_message(CONFIRMATION, &bytes[2..], &mut [])?;
    Ok(())
}

/// A point of low order makes a shared secret that everyone knows. [RFC 7748 §6.1]
fn refuse_low_order(identity: &Identity, ephemeral: [u8; 32]) -> Result<(), LinkError> {
    let secret = StaticSecret::from(*identity.link_secret());
    let shared = secret.diffie_hellman(&PublicKey::from(ephemeral));
    if shared.was_contributory() { Ok(()) } else { Err(LinkError::Authentication) }
}

/// The next handshake message, with its length before it.
fn message(handshake: &mut HandshakeState) -> Result<Vec<u8>, LinkError> {
    let mut bytes = vec![0; 2 + MAX_HANDSHAKE];
    let length = handshake.write_message(&[], &mut bytes[2..])?;
    bytes.truncate(2 + length);
    bytes[..2].copy_from_slice(&(length as u16).to_le_bytes());
    Ok(bytes)
}

/// Takes in the other end's next message; returns its ephemeral key, which stands first.
async fn read_message(
    stream: &mut TcpStream,
    handshake: &mut HandshakeState,
) -> Result<[u8; 32], LinkError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await.map_err(closed)?;
    let length = usize::from(u16::from_le_bytes(length));
    if !(32..=MAX_HANDSHAKE).contains(&length) {
        return Err(LinkError::Authentication);
    }
    let mut bytes = [0; MAX_HANDSHAKE];
    stream.read_exact(&mut bytes[..length]).await.map_err(closed)?;
    let mut payload = [0; MAX_HANDSHAKE];
    handshake.read_message(&bytes[..length], &mut payload)?;
    let mut ephemeral = [0; 32];
    ephemeral.copy_from_slice(&bytes[..32]);
    Ok(ephemeral)
}

fn closed(error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => LinkError::Closed,
        _ => LinkError::Io(error),
    }
}
