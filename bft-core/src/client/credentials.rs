//! How a client proves that a request is its own: by MACs, or by a signature where those would not do. (decision 6)

use crate::auth::{Credential, Crypto, KeyId, MacKey, Tag};
use crate::types::{Digest, ReplicaId, Tick};
use alloc::vec::Vec;

/// The replicas' keys, and what they demand.
#[derive(Clone)]
pub(super) struct Credentials {
    keys: Vec<Option<(KeyId, MacKey)>>,
    /// Until when all keys are waited for: what is sent meanwhile is signed.
    keys_due: Tick,
    /// Which replicas want signatures.
    demands: Vec<bool>,
    /// Whether f+1 have wanted them, and the primary still does.
    demanded: bool,
}

impl Credentials {
    /// Without any of the `n` replicas' keys.
    pub fn new(n: usize) -> Self {
        Self {
            keys: alloc::vec![None; n],
            keys_due: Tick::default(),
            demands: alloc::vec![false; n],
            demanded: false,
        }
    }

    /// A session is opened: keys are on their way, and those that are not there when they are `due` are not waited for.
    pub fn wait_for_keys(&mut self, due: Tick) {
        self.keys_due = due;
    }

    /// `from` has given its key.
    pub fn learn(&mut self, from: ReplicaId, id: KeyId, key: MacKey) {
        if let Some(known) = self.keys.get_mut(from.index()) {
            *known = Some((id, key));
        }
    }

    /// `from` wants signatures, or does not. f+1, `weak`, must, one of them correct: backups do for a while after they have
    /// complained to the primary. It drops what is not signed for longer than that, so from then on its word counts.
    pub fn demanded(&mut self, from: ReplicaId, sign: bool, primary: ReplicaId, weak: usize) {
        if let Some(demand) = self.demands.get_mut(from.index()) {
            *demand = sign;
        }
        let by_primary = self.demands.get(primary.index()).is_some_and(|demand| *demand);
        let by_all = self.demands.iter().filter(|demand| **demand).count();
        self.demanded = by_all >= weak || self.demanded && by_primary;
    }

    /// Whether it was demanded, or some replicas may demand it otherwise, for their keys have not come yet. Whoever is down or
    /// keeps its key to itself is not waited for.
    pub fn must_be_signature(&self, now: Tick) -> bool {
        self.demanded || now < self.keys_due && self.keys.iter().any(Option::is_none)
    }

    /// A tag for every replica, which those whose key is not known cannot check.
    pub fn authenticator(&self, crypto: &dyn Crypto, digest: &Digest) -> Credential {
        let entries = self.keys.iter().map(|key| match key {
            Some((id, key)) => (*id, crypto.mac(key, digest)),
            None => (KeyId(0), Tag::new([0; 16])),
        });
        Credential::Authenticator(entries.collect())
    }
}
