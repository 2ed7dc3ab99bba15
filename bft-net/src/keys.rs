//! A principal's two keys: X25519 for its links, Ed25519 for what it signs. They never leave the folder they were made in.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const LINK_FILE: &str = "link.key";
const SIGNING_FILE: &str = "signing.key";

/// Why keys cannot be made or used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The folder holds no such key.
    #[error("{0} does not exist; `bfs-replica init` makes a replica's keys, `bfs init` a client's")]
    Missing(PathBuf),
    /// Keys are made once.
    #[error("{0} exists already, and keys are never overwritten")]
    Exists(PathBuf),
    /// Others may read or change the key.
    #[error("{path} has mode {mode:04o}: others could read the key; run: chmod 600 {path}")]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not 64 hexadecimal digits.
    #[error("{0} does not hold a key (64 hexadecimal digits)")]
    Malformed(PathBuf),
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// What others know of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicIdentity {
    /// The X25519 key of its links.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub link: [u8; 32],
    /// The Ed25519 key of its signatures.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub signing: [u8; 32],
}

/// A principal's secrets. They are wiped when dropped and have no `Debug`.
#[derive(Clone)]
pub struct Identity {
    link: StaticSecret,
    link_bytes: Zeroizing<[u8; 32]>,
    signing: Zeroizing<[u8; 32]>,
}

impl Identity {
    /// Fresh keys.
    ///
    /// Panics: where the operating system gives no random numbers, for then nothing is safe.
    pub fn generate() -> Self {
        let mut secrets = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
        for secret in &mut secrets {
            getrandom::fill(&mut **secret).expect("the operating system gives random numbers");
        }
        let [link, signing] = secrets;
        Self::from_bytes(link, signing)
    }

    fn from_bytes(link_bytes: Zeroizing<[u8; 32]>, signing: Zeroizing<[u8; 32]>) -> Self {
        Self { link: StaticSecret::from(*link_bytes), link_bytes, signing }
    }

    /// Writes the keys into `dir`, which exists, as files that only their owner may read.
    ///
    /// Errors: `Exists`, before anything is written; `Io`.
    pub fn save(&self, dir: &Path) -> Result<(), KeyError> {
        let files = [(LINK_FILE, &self.link_bytes), (SIGNING_FILE, &self.signing)];
        if let Some((name, _)) = files.iter().find(|(name, _)| dir.join(name).exists()) {
            return Err(KeyError::Exists(dir.join(name)));
        }
        for (name, secret) in files {
            let path = dir.join(name);
            let text = Zeroizing::new(format!("{}\n", hex(&**secret)));
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error| KeyError::Io { path, error })?;
        }
        Ok(())
    }

    /// Reads the keys in `dir`.
    ///
    /// Errors: `Missing`, `TooOpen`, `Malformed`, `Io`.
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        Ok(Self::from_bytes(read_key(dir.join(LINK_FILE))?, read_key(dir.join(SIGNING_FILE))?))
    }

    /// What others may know.
    pub fn public(&self) -> PublicIdentity {
        PublicIdentity {
            link: PublicKey::from(&self.link).to_bytes(),
            signing: SigningKey::from_bytes(&self.signing).verifying_key().to_bytes(),
        }
    }

    /// The seed of the signing key.
    pub fn signing_seed(&self) -> &[u8; 32] {
        &self.signing
    }

    /// The secret of the links, for the handshake only.
    pub(crate) fn link_secret(&self) -> &[u8; 32] {
        &self.link_bytes
    }
}

fn read_key(path: PathBuf) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KeyError::Missing(path.clone()),
        io::ErrorKind::InvalidData => KeyError::Malformed(path.clone()),
        _ => KeyError::Io { path: path.clone(), error },
    };
    let mode = std::fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::TooOpen { path, mode });
    }
    let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(failed)?);
    let bytes = unhex(text.trim()).ok_or(KeyError::Malformed(path))?;
    Ok(Zeroizing::new(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, place) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(place..place + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn to_hex<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(bytes))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    unhex(&text).ok_or_else(|| D::Error::custom("a public key is 64 hexadecimal digits"))
}
