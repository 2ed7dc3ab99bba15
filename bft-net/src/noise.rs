//! Who is at the other end: a preamble that names version and group in the clear, then Noise_IK between static X25519 keys.
//!
//! ```text
//! initiator → responder   preamble, message 1   (e, es, s, ss)
//! initiator ← responder   preamble
//! initiator ← responder   message 2             (e, ee, se)
//! initiator → responder   confirmation          an empty message under the new keys
//! ```
//!
//! The preamble lets two that do not belong together say why; it is also the prologue of the handshake, so nobody can
//! change it on the way. Message 1 proves nothing alone, for whoever recorded it can send it again [Noise §7.8]; a link
//! counts only after the confirmation, so that no stranger can push the true peer's link aside.

use crate::error::LinkError;
use crate::group::Group;
use crate::keys::Identity;
use crate::roster::Roster;
use bft_core::types::{Digest, GroupId, Peer, ReplicaId};
use snow::{Builder, HandshakeState, StatelessTransportState};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The version of everything that travels. Two versions do not talk.
pub const PROTOCOL_VERSION: u16 = 1;

const PATTERN: &str = "Noise_IK_25519_AESGCM_BLAKE2s";
const MAGIC: [u8; 4] = *b"BFS\0";
const KEY: usize = 32;
/// What authentication adds to a message. Units: bytes.
pub(crate) const TAG: usize = 16;
const PREAMBLE: usize = 4 + 2 + 32;
/// An ephemeral key, an encrypted static key, an empty payload. No message has any other length.
const MESSAGE_1: usize = KEY + (KEY + TAG) + TAG;
const MESSAGE_2: usize = KEY + TAG;
/// What is read from one that does not belong here, so that closing does not cut off the answer it gets. Units: bytes.
const LINGER: usize = 1024;

type Preamble = [u8; PREAMBLE];

/// What one principal brings to every handshake.
pub struct Local {
    identity: Identity,
    preamble: Preamble,
    pub(crate) roster: Roster,
    replicas: Vec<[u8; KEY]>,
}

impl Local {
    /// The principal with the keys `identity`, in `group`.
    pub fn new(identity: Identity, group: &Group) -> Self {
        let replicas: Vec<_> = group.replicas.iter().map(|member| member.identity.link).collect();
        Self {
            identity,
            preamble: preamble(PROTOCOL_VERSION, group.id()),
            roster: Roster::of(group),
            replicas,
        }
    }

    /// Who this is, if it is one of the group.
    pub fn me(&self) -> Option<Peer> {
        self.roster.peer(&self.link_key())
    }

    /// The key that others know this one by.
    pub(crate) fn link_key(&self) -> [u8; KEY] {
        self.identity.public().link
    }

    fn builder(&self) -> Result<Builder<'_>, LinkError> {
        let pattern = PATTERN.parse().map_err(|_| LinkError::Authentication)?;
        let builder = Builder::with_resolver(pattern, Box::new(crate::dh::Resolver::new()));
        // Both preambles are the same, or there is no handshake: once is enough.
        Ok(builder.local_private_key(self.identity.link_secret())?.prologue(&self.preamble)?)
    }

    fn check(&self, theirs: &Preamble) -> Result<(), LinkError> {
        let (ours, theirs) = (Named::of(&self.preamble)?, Named::of(theirs)?);
        if ours.version != theirs.version {
            let (ours, theirs) = (ours.version, theirs.version);
            return Err(LinkError::VersionMismatch { ours, theirs });
        }
        if ours.group != theirs.group {
            return Err(LinkError::GroupMismatch { ours: ours.group, theirs: theirs.group });
        }
        Ok(())
    }
}

/// What a preamble says.
struct Named {
    version: u16,
    group: GroupId,
}

impl Named {
    fn of(preamble: &Preamble) -> Result<Self, LinkError> {
        let rest = preamble.strip_prefix(&MAGIC).ok_or(LinkError::NotBfs)?;
        let (version, group) = rest.split_first_chunk::<2>().ok_or(LinkError::NotBfs)?;
        let group = group.first_chunk::<32>().ok_or(LinkError::NotBfs)?;
        Ok(Self { version: u16::from_le_bytes(*version), group: GroupId(Digest(*group)) })
    }
}

/// What each end sends first.
pub fn preamble(version: u16, group: GroupId) -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&version.to_le_bytes());
    bytes[6..].copy_from_slice(&group.0.0);
    bytes
}

/// The keys of an established channel, and how many messages each direction has carried.
pub struct Channel {
    pub(crate) transport: Arc<StatelessTransportState>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Channel {
    fn of(handshake: HandshakeState) -> Result<Self, LinkError> {
        let transport = Arc::new(handshake.into_stateless_transport_mode()?);
        Ok(Self { transport, sent: 0, received: 0 })
    }
}

/// Calls `replica`.
///
/// Requires: the caller bounds the time this takes.
/// Errors: `NotBfs`, `VersionMismatch`, `GroupMismatch`, `Authentication` (another's key), `LowOrderKey`, `Closed`, `Io`;
/// `UnknownPeer` where the group has no such replica.
pub async fn initiate(
    stream: &mut TcpStream,
    local: &Local,
    replica: ReplicaId,
) -> Result<Channel, LinkError> {
    let remote = local.replicas.get(replica.index()).ok_or(LinkError::UnknownPeer)?;
    let mut handshake = local.builder()?.remote_public_key(remote)?.build_initiator()?;
    let mut first = [0; PREAMBLE + MESSAGE_1];
    first[..PREAMBLE].copy_from_slice(&local.preamble);
    handshake.write_message(&[], &mut first[PREAMBLE..])?;
    stream.write_all(&first).await?;
    local.check(&read(stream).await?)?;
    handshake.read_message(&read::<MESSAGE_2>(stream).await?, &mut [0; MESSAGE_2])?;
    let mut channel = Channel::of(handshake)?;
    let mut confirmation = [0; TAG];
    channel.transport.write_message(channel.sent, &[], &mut confirmation)?;
    channel.sent += 1;
    stream.write_all(&confirmation).await?;
    Ok(channel)
}

/// Answers whoever called, and says who it is.
///
/// Requires: the caller bounds the time this takes.
/// Errors: those of [`initiate`]; `UnknownPeer` where nobody in the group has such a key.
pub async fn respond(stream: &mut TcpStream, local: &Local) -> Result<(Peer, Channel), LinkError> {
    let theirs = read(stream).await?;
    Named::of(&theirs)?;
    // Told also to one of another version or group, so that it can say what is wrong.
    stream.write_all(&local.preamble).await?;
    if let Err(error) = local.check(&theirs) {
        linger(stream).await;
        return Err(error);
    }
    let mut handshake = local.builder()?.build_responder()?;
    handshake.read_message(&read::<MESSAGE_1>(stream).await?, &mut [0; MESSAGE_1])?;
    let remote = handshake.get_remote_static().and_then(|key| key.first_chunk::<KEY>());
    let peer = remote.and_then(|key| local.roster.peer(key)).ok_or(LinkError::UnknownPeer)?;
    let mut reply = [0; MESSAGE_2];
    handshake.write_message(&[], &mut reply)?;
    stream.write_all(&reply).await?;
    let mut channel = Channel::of(handshake)?;
    let confirmation = read::<TAG>(stream).await?;
    channel.transport.read_message(channel.received, &confirmation, &mut [0; TAG])?;
    channel.received += 1;
    Ok((peer, channel))
}

async fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N], LinkError> {
    let mut bytes = [0; N];
    match stream.read_exact(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(LinkError::Closed),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the other end to close. A socket that is closed with bytes unread resets the connection, and the other end
/// may then never see what it was told.
async fn linger(stream: &mut TcpStream) {
    let mut rest = [0; LINGER];
    let mut left = LINGER;
    while let Ok(count @ 1..) = stream.read(&mut rest).await {
        left = left.saturating_sub(count);
        if left == 0 {
            return;
        }
    }
}
