//! Symbolic cryptography: a tag or a signature names its maker, so it is cheap to make and nobody else can make it. It counts
//! what it is asked, for the cost model.

use bft_core::auth::{Crypto, MacKey, PublicKey, Signature, Tag};
use bft_core::types::Digest;
use std::sync::atomic::{AtomicU64, Ordering};

/// The cryptography of the principal called `name`.
pub struct Symbolic {
    name: u64,
    macs: AtomicU64,
    signatures: AtomicU64,
    verifications: AtomicU64,
}

/// How often each operation was asked for since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// MACs made or checked.
    pub macs: u64,
    /// Signatures made.
    pub signatures: u64,
    /// Signatures checked.
    pub verifications: u64,
}

impl Symbolic {
    /// Signs as `name`.
    pub fn new(name: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self { name, macs: zero(), signatures: zero(), verifications: zero() }
    }

    /// The public key under which the signatures of `name` are genuine.
    pub fn public(name: u64) -> PublicKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&name.to_le_bytes());
        PublicKey(key)
    }

    /// What was asked since the last call.
    pub fn take_counts(&self) -> Counts {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Counts {
            macs: take(&self.macs),
            signatures: take(&self.signatures),
            verifications: take(&self.verifications),
        }
    }
}

fn signature(public: &PublicKey, digest: &Digest) -> Signature {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&public.0);
    bytes[32..].copy_from_slice(&digest.0);
    Signature(bytes)
}

impl Crypto for Symbolic {
    fn mac(&self, key: &MacKey, digest: &Digest) -> Tag {
        self.macs.fetch_add(1, Ordering::Relaxed);
        let mut tag = [0; 16];
        for (place, (secret, byte)) in tag.iter_mut().zip(key.secret().iter().zip(&digest.0)) {
            *place = secret.wrapping_add(*byte);
        }
        Tag::new(tag)
    }

    fn sign(&self, digest: &Digest) -> Signature {
        self.signatures.fetch_add(1, Ordering::Relaxed);
        signature(&Self::public(self.name), digest)
    }

    fn verify(&self, public: &PublicKey, digest: &Digest, found: &Signature) -> bool {
        self.verifications.fetch_add(1, Ordering::Relaxed);
        *found == signature(public, digest)
    }
}
