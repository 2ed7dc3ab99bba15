//! A principal's two keys: X25519 for its links, Ed25519 for what it signs. They never leave the folder they were made in.

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const LINK_FILE: &str = "link.key";
const SIGNING_FILE: &str = "signing.key";
/// The hexadecimal digits of a key.
const DIGITS: usize = 64;

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

/// What others know of a principal. In files its keys are hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicIdentity {
    /// The X25519 key of its links.
    #[serde(with = "hex_key")]
    pub link: [u8; 32],
    /// The Ed25519 key of its signatures.
    #[serde(with = "hex_key")]
    pub signing: [u8; 32],
}

impl PublicIdentity {
    /// Whether both are keys, and neither is one of the few weak ones, which anybody could use. [RFC 7748 §6.1]
    pub fn is_usable(&self) -> bool {
        let signing = VerifyingKey::from_bytes(&self.signing);
        crate::dh::is_usable(&self.link) && signing.is_ok_and(|key| !key.is_weak())
    }
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

    /// Writes the keys into `dir`, which exists, as files that only their owner may read: both or none.
    ///
    /// Errors: `Exists`, before anything is written; `Io`.
    pub fn save(&self, dir: &Path) -> Result<(), KeyError> {
        let files = [(LINK_FILE, &self.link_bytes), (SIGNING_FILE, &self.signing)];
        let files = files.map(|(name, secret)| (dir.join(name), secret));
        if let Some((path, _)) = files.iter().find(|(path, _)| path.symlink_metadata().is_ok()) {
            return Err(KeyError::Exists(path.clone()));
        }
        for (place, (path, secret)) in files.iter().enumerate() {
            if let Err(error) = write_key(path, secret) {
                // One that was there already is not ours to remove.
                let made =
                    if error.kind() == io::ErrorKind::AlreadyExists { place } else { place + 1 };
                for (path, _) in &files[..made] {
                    let _ = std::fs::remove_file(path);
                }
                return Err(KeyError::Io { path: path.clone(), error });
            }
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

fn write_key(path: &Path, secret: &[u8; 32]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut text = Zeroizing::new(hex(secret));
    // The capacity is there: nothing moves, and so no copy stays behind.
    text.push('\n');
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn read_key(path: PathBuf) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KeyError::Missing(path.clone()),
        _ => KeyError::Io { path: path.clone(), error },
    };
    let mut file = File::open(&path).map_err(failed)?;
    // Of the file that is open: the path may lead to another one by now.
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::TooOpen { path, mode });
    }
    let mut text = Zeroizing::new([0; DIGITS + 2]);
    let mut length = 0;
    while length < text.len() {
        match file.read(&mut text[length..]).map_err(failed)? {
            0 => break,
            count => length += count,
        }
    }
    let bytes = unhex(text[..length].trim_ascii()).ok_or(KeyError::Malformed(path))?;
    Ok(Zeroizing::new(bytes))
}

/// `bytes` as lower-case digits, with room for one more character.
fn hex(bytes: &[u8; 32]) -> String {
    let mut text = String::with_capacity(DIGITS + 1);
    for digit in bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]) {
        text.extend(char::from_digit(u32::from(digit), 16));
    }
    text
}

fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    if text.len() != DIGITS {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

/// A key as 64 hexadecimal digits, in files for people.
pub(crate) mod hex_key {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(key: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::hex(key))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        super::unhex(text.as_bytes())
            .ok_or_else(|| D::Error::custom("a public key is 64 hexadecimal digits"))
    }
}
