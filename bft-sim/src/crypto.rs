//! Symbolic cryptography: a tag or a signature names its maker, so it is cheap to make and nobody else can make it.

use bft_core::auth::{Crypto, MacKey, PublicKey, Signature, Tag};
use bft_core::types::Digest;

/// The cryptography of the principal called `name`.
pub struct Symbolic {
    name: u64,
}

impl Symbolic {
    /// Signs as `name`.
    pub fn new(name: u64) -> Self {
        Self { name }
    }

    /// The public key under which the signatures of `name` are genuine.
    pub fn public(name: u64) -> PublicKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&name.to_le_bytes());
        PublicKey(key)
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
        let mut tag = [0; 16];
        for (place, (secret, byte)) in tag.iter_mut().zip(key.secret().iter().zip(&digest.0)) {
            *place = secret.wrapping_add(*byte);
        }
        Tag::new(tag)
    }

    fn sign(&self, digest: &Digest) -> Signature {
        signature(&Self::public(self.name), digest)
    }

    fn verify(&self, public: &PublicKey, digest: &Digest, found: &Signature) -> bool {
        *found == signature(public, digest)
    }
}
