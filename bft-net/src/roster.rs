//! Whose key is whose: the members that the group file lists, and the clients that have come and gone since.

use crate::group::Group;
use bft_core::types::{ClientId, Peer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The link keys that are let in, shared between the handshakes and the endpoint. Bounded by the clients that a group has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster(Arc<Mutex<BTreeMap<[u8; 32], Peer>>>);

impl Roster {
    /// Those whom the group file lists.
    pub fn of(group: &Group) -> Self {
        let peers = group.peers().map(|(peer, identity)| (identity.link, peer));
        Self(Arc::new(Mutex::new(peers.collect())))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Peer>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who holds the key `link`.
    pub fn peer(&self, link: &[u8; 32]) -> Option<Peer> {
        self.lock().get(link).copied()
    }

    /// Whether `peer` has a key that is let in. Cost: O(members).
    pub fn lists(&self, peer: Peer) -> bool {
        self.lock().values().any(|listed| *listed == peer)
    }

    /// Lets in whoever holds the key `link`, as `client`. A key that is somebody's already stays that one's.
    pub fn admit(&self, client: ClientId, link: [u8; 32]) {
        self.lock().entry(link).or_insert(Peer::Client(client));
    }

    /// Lets `client` in no more.
    pub fn dismiss(&self, client: ClientId) {
        self.lock().retain(|_, peer| *peer != Peer::Client(client));
    }
}
