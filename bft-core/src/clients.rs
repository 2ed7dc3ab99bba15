//! The clients of the group: a table in the replicated state. It begins with those that the group file lists, and the
//! administrator changes it by ordered operations. (decision 6)
//!
//! A number is never given to a second client, so whatever the state says of a client stays true of nobody else. A revoked
//! one is left with a session that is newer than any it could ask for: all that it had under way has ended.

use crate::auth::PublicKey;
use crate::io::Rejection;
use crate::messages::SessionId;
use crate::objects::{Objects, StateObject};
use crate::planted::{Planted, planted};
use crate::sessions::Session;
use crate::tree::{Object, ObjectId};
use crate::types::{ClientId, SequenceNumber};
use alloc::string::String;
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use core::fmt;

/// The most clients that one group has at a time.
pub const MAX_CLIENTS: usize = 10_000;
/// The numbers that a group has for clients, ever.
const MAX_CLIENT_IDS: u32 = 1 << 20;
/// The longest name of a client. Units: bytes.
pub const MAX_NAME: usize = 255;
/// The most clients that one answer lists.
pub const MAX_LISTED: usize = 64;

const CLIENT: u8 = 3;
const NEXT_CLIENT: u8 = 4;

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClientIdentity {
    /// What people call it: 1 to [`MAX_NAME`] bytes, no control characters.
    pub name: String,
    /// The key that its link proves (X25519). The core only hands it on.
    pub link: [u8; 32],
    /// The key that its signatures prove.
    pub signing: PublicKey,
}

/// What may be asked about the table.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ClientsOp {
    /// Lets a further client use the group. For the administrator.
    Register(ClientIdentity),
    /// Ends whatever the client has under way, and all that it may do. For the administrator.
    Revoke(ClientId),
    /// Lists clients, from this number on.
    List(ClientId),
}

impl ClientsOp {
    /// What it costs of a byte budget.
    pub fn size(&self) -> usize {
        match self {
            ClientsOp::Register(identity) => identity.name.len() + 64,
            ClientsOp::Revoke(_) | ClientsOp::List(_) => 4,
        }
    }
}

/// The answer to a [`ClientsOp`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ClientsReply {
    /// The client is registered under this number.
    Registered(ClientId),
    /// The client is revoked.
    Revoked,
    /// At most [`MAX_LISTED`] clients, ascending; none where there are no more.
    Clients(Vec<(ClientId, ClientIdentity)>),
    /// Nothing has changed.
    Refused(Refusal),
}

impl ClientsReply {
    /// What travels as the result of the operation.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let _ = self.serialize(&mut bytes);
        bytes.into()
    }

    /// The inverse of [`ClientsReply::to_bytes`].
    ///
    /// Errors: `Malformed`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Rejection> {
        borsh::from_slice(bytes).map_err(|_| Rejection::Malformed)
    }
}

/// Why the table stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Refusal {
    /// Only the administrator may ask for this.
    NotAdministrator,
    /// The administrator cannot be revoked.
    IsAdministrator,
    /// The name is empty, too long, or has control characters.
    BadName,
    /// Another client has this name.
    NameTaken,
    /// Another client has one of these keys.
    KeyTaken,
    /// There are [`MAX_CLIENTS`] clients, or no numbers are left.
    Full,
    /// No client has this number.
    NoSuchClient,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NotAdministrator => "only the administrator may",
            Refusal::IsAdministrator => "the administrator cannot be revoked",
            Refusal::BadName => "the name is empty, too long, or has control characters",
            Refusal::NameTaken => "another client has this name",
            Refusal::KeyTaken => "another client has one of these keys",
            Refusal::Full => "the group has as many clients as it can have",
            Refusal::NoSuchClient => "no client has this number",
        })
    }
}

fn client_id(client: ClientId) -> ObjectId {
    ObjectId::new(CLIENT, u64::from(client.0), 0)
}

impl<O: Object> Objects<O> {
    /// The clients with numbers from `first` on, ascending.
    pub fn clients(&self, first: ClientId) -> impl Iterator<Item = (ClientId, &ClientIdentity)> {
        let last = ObjectId::new(CLIENT, u64::from(u32::MAX), 0);
        self.tree.range(client_id(first), last).filter_map(|(id, object, _)| match object {
            StateObject::Client(identity) => Some((ClientId(id.major() as u32), identity)),
            _ => None,
        })
    }

    /// Whether `client` may use the group; a replica may for its own recovery.
    pub fn is_registered(&self, client: ClientId) -> bool {
        client.replica().is_some() || self.tree.get(client_id(client)).is_some()
    }

    /// Puts `identity` into the table as `client`.
    pub(crate) fn enrol(&mut self, client: ClientId, identity: ClientIdentity) {
        self.core_insert(client_id(client), StateObject::Client(identity));
        let next = self.next_client().max(ClientId(client.0 + 1));
        self.core_insert(ObjectId::new(NEXT_CLIENT, 0, 0), StateObject::NextClient(next));
    }

    /// The number of the next client.
    fn next_client(&self) -> ClientId {
        match self.tree.get(ObjectId::new(NEXT_CLIENT, 0, 0)) {
            Some((StateObject::NextClient(next), _)) => *next,
            _ => ClientId(0),
        }
    }

    /// Does what `by` asks in batch `n`. Cost: O(clients), and O(`slots`) where one is revoked.
    pub(crate) fn perform_on_clients(
        &mut self,
        by: ClientId,
        op: &ClientsOp,
        n: SequenceNumber,
        slots: u16,
    ) -> ClientsReply {
        let done = match op {
            ClientsOp::List(first) => {
                let page = self.clients(*first).take(MAX_LISTED);
                return ClientsReply::Clients(page.map(|(id, of)| (id, of.clone())).collect());
            }
            _ if by != ClientId::ADMINISTRATOR => Err(Refusal::NotAdministrator),
            ClientsOp::Register(identity) => self.register(identity).map(ClientsReply::Registered),
            ClientsOp::Revoke(client) => {
                self.revoke(*client, n, slots).map(|()| ClientsReply::Revoked)
            }
        };
        done.unwrap_or_else(ClientsReply::Refused)
    }

    fn register(&mut self, new: &ClientIdentity) -> Result<ClientId, Refusal> {
        let fits = (1..=MAX_NAME).contains(&new.name.len());
        if !fits || new.name.chars().any(char::is_control) {
            return Err(Refusal::BadName);
        }
        let mut count = 0;
        for (_, old) in self.clients(ClientId(0)) {
            count += 1;
            if old.link == new.link || old.signing == new.signing {
                return Err(Refusal::KeyTaken);
            }
            if old.name == new.name {
                return Err(Refusal::NameTaken);
            }
        }
        let client = self.next_client();
        if count >= MAX_CLIENTS || client.0 >= MAX_CLIENT_IDS {
            return Err(Refusal::Full);
        }
        self.enrol(client, new.clone());
        Ok(client)
    }

    fn revoke(&mut self, client: ClientId, n: SequenceNumber, slots: u16) -> Result<(), Refusal> {
        if client == ClientId::ADMINISTRATOR {
            return Err(Refusal::IsAdministrator);
        }
        if !self.tree.remove(client_id(client)) {
            return Err(Refusal::NoSuchClient);
        }
        if !planted(Planted::RevokedStillServed) {
            self.forget_slots_of(client, slots);
            self.set_session(client, Session { id: SessionId::REVOKED, n });
        }
        Ok(())
    }
}
