//! X25519 for the handshake. Unlike snow's own it refuses a shared secret that is zero, and wipes its private keys.

use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver, FallbackResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// The primitives of the handshake: X25519 from here, AES-GCM and randomness from ring, BLAKE2s from RustCrypto.
pub(crate) struct Resolver(FallbackResolver);

impl Resolver {
    pub(crate) fn new() -> Self {
        Self(FallbackResolver::new(Box::new(RingResolver), Box::new(DefaultResolver)))
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        self.0.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519::new([0; 32]))),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        self.0.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        self.0.resolve_cipher(choice)
    }
}

struct X25519 {
    secret: StaticSecret,
    public: PublicKey,
}

impl X25519 {
    fn new(secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret);
        Self { secret, public }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(privkey);
        *self = Self::new(*secret);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *secret)?;
        *self = Self::new(*secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    /// Errors: `Dh` where `pubkey` has low order, so that the secret would be zero whatever the private key.
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = pubkey.first_chunk::<32>().ok_or(Error::Dh)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(*public));
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

/// Whether `public` is good for a link: no secret that is shared with it is zero.
pub(crate) fn is_usable(public: &[u8; 32]) -> bool {
    // Clamped scalars are multiples of the cofactor, so any of them sends exactly the points of low order to zero.
    StaticSecret::from([1; 32]).diffie_hellman(&PublicKey::from(*public)).was_contributory()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// u = 0, 1, p-1, p, p+1 and two of order 8. [RFC 7748 §6.1; Bernstein, "Curve25519", "Validate public keys?"]
    fn low_order() -> [[u8; 32]; 7] {
        let mut points = [[0; 32]; 7];
        points[1][0] = 1;
        for (place, first) in [(2, 0xec), (3, 0xed), (4, 0xee)] {
            points[place] = [0xff; 32];
            points[place][0] = first;
            points[place][31] = 0x7f;
        }
        let hex = [
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        ];
        for (point, hex) in points[5..].iter_mut().zip(hex) {
            for (byte, place) in point.iter_mut().zip((0..64).step_by(2)) {
                *byte = u8::from_str_radix(&hex[place..place + 2], 16).unwrap();
            }
        }
        points
    }

    #[test]
    fn points_of_low_order_are_refused() {
        let key = X25519::new([7; 32]);
        for point in low_order() {
            assert!(matches!(key.dh(&point, &mut [0; 56]), Err(Error::Dh)), "{point:02x?}");
            assert!(!is_usable(&point), "{point:02x?}");
        }
        assert!(is_usable(&[9; 32]));
    }

    #[test]
    fn snow_by_itself_would_accept_them() {
        // If this fails, snow checks by itself, and this file may go.
        let theirs = DefaultResolver.resolve_dh(&DHChoice::Curve25519).unwrap();
        assert!(theirs.dh(&[0; 32], &mut [0; 56]).is_ok());
    }

    #[test]
    fn both_ends_agree() {
        let (a, b) = (X25519::new([3; 32]), X25519::new([5; 32]));
        let (mut ab, mut ba) = ([0; 56], [0; 56]);
        a.dh(b.pubkey(), &mut ab).unwrap();
        b.dh(a.pubkey(), &mut ba).unwrap();
        assert_eq!(ab, ba);
        assert_ne!(ab[..32], [0; 32]);
    }
}
