//! group.toml: who the replicas and clients are. Public, the same everywhere; the digest of what it says names the group.

use crate::keys::PublicIdentity;
use bft_core::types::{ClientId, ClusterSize, Digest, Domain, GroupId, Peer, ReplicaId};
use borsh::BorshSerialize;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The most clients that one group may list.
pub const MAX_CLIENTS: usize = 10_000;
/// The least memory with which a replica is of use. Units: bytes.
const MIN_MEMORY: u64 = 1 << 20;
/// The largest L: the log is held in memory.
const MAX_WINDOW: u64 = 4096;
/// An hour: beyond it, a faulty primary would in effect never be replaced.
const MAX_VIEW_TIMEOUT_MS: u64 = 3_600_000;
/// The longest name or address. Units: bytes.
const MAX_TEXT: usize = 255;
/// More than any group of [`MAX_CLIENTS`] needs. Units: bytes.
const MAX_FILE: u64 = 16 << 20;

/// Why a group file cannot be used.
#[derive(Debug, Error)]
pub enum GroupError {
    /// The file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        error: std::io::Error,
    },
    /// It is not the TOML that is expected.
    #[error("{0}")]
    Syntax(String),
    /// It says something impossible.
    #[error("{0}")]
    Invalid(String),
}

/// A replica as the group file lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Entry", into = "Entry")]
pub struct Member {
    /// Where it is reached: `host:port`.
    pub address: String,
    /// Its public keys.
    pub identity: PublicIdentity,
}

/// A client as the group file lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Entry", into = "Entry")]
pub struct ClientEntry {
    /// What people call it.
    pub name: String,
    /// Its public keys.
    pub identity: PublicIdentity,
}

/// A principal as files spell it: a replica has an address, a client a name.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(with = "crate::keys::hex_key")]
    link: [u8; 32],
    #[serde(with = "crate::keys::hex_key")]
    signing: [u8; 32],
}

impl Entry {
    fn new(address: Option<String>, name: Option<String>, identity: PublicIdentity) -> Self {
        Self { address, name, link: identity.link, signing: identity.signing }
    }

    fn identity(&self) -> PublicIdentity {
        PublicIdentity { link: self.link, signing: self.signing }
    }
}

impl TryFrom<Entry> for Member {
    type Error = &'static str;

    fn try_from(entry: Entry) -> Result<Self, Self::Error> {
        let identity = entry.identity();
        match (entry.address, entry.name) {
            (Some(address), None) => Ok(Self { address, identity }),
            _ => Err("a replica has an address and no name"),
        }
    }
}

impl From<Member> for Entry {
    fn from(member: Member) -> Self {
        Self::new(Some(member.address), None, member.identity)
    }
}

impl TryFrom<Entry> for ClientEntry {
    type Error = &'static str;

    fn try_from(entry: Entry) -> Result<Self, Self::Error> {
        let identity = entry.identity();
        match (entry.address, entry.name) {
            (None, Some(name)) => Ok(Self { name, identity }),
            _ => Err("a client has a name and no address"),
        }
    }
}

impl From<ClientEntry> for Entry {
    fn from(client: ClientEntry) -> Self {
        Self::new(None, Some(client.name), client.identity)
    }
}

/// What every replica must agree on besides who is who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parameters {
    /// K: a checkpoint every so many batches.
    pub checkpoint_interval: u64,
    /// L: how far the log reaches beyond the last stable checkpoint. More than K.
    pub window: u64,
    /// How long a request may wait before the primary is suspected. Units: milliseconds.
    pub view_timeout_ms: u64,
    /// S: how many ordered operations one session has under way at once.
    pub slots: u16,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { checkpoint_interval: 128, window: 256, view_timeout_ms: 1000, slots: 64 }
    }
}

/// A group: what group.toml says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What people call it.
    pub name: String,
    /// f: how many replicas may be faulty.
    pub f: u32,
    /// What the file system may take of each replica's memory. Units: bytes.
    pub memory: u64,
    /// What every replica must agree on.
    pub parameters: Parameters,
    /// The replicas, in the order of their ids.
    pub replicas: Vec<Member>,
    /// The clients, in the order of their ids.
    pub clients: Vec<ClientEntry>,
}

/// group.toml, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupFile {
    name: String,
    f: u32,
    memory: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default, rename = "replica")]
    replicas: Vec<Member>,
    #[serde(default, rename = "client")]
    clients: Vec<ClientEntry>,
}

impl Group {
    /// Reads and checks a group file.
    pub fn load(path: &Path) -> Result<Self, GroupError> {
        Self::parse(&read(path)?)
    }

    /// Reads and checks the text of a group file.
    pub fn parse(text: &str) -> Result<Self, GroupError> {
        let file: GroupFile =
            toml::from_str(text).map_err(|error| GroupError::Syntax(error.to_string()))?;
        let group = Self {
            memory: match parse_size(&file.memory) {
                Some(memory) => memory,
                None => {
                    let why = "is not a size such as \"2GiB\"";
                    return invalid(format!("memory = {:?} {why}", file.memory));
                }
            },
            name: file.name,
            f: file.f,
            parameters: file.parameters,
            replicas: file.replicas,
            clients: file.clients,
        };
        group.check()?;
        Ok(group)
    }

    /// Whether what it says is possible.
    ///
    /// Errors: `Invalid`, which names the line that is wrong.
    pub fn check(&self) -> Result<(), GroupError> {
        let (n, f) = (self.replicas.len(), self.f);
        if u32::try_from(n).ok().and_then(|n| ClusterSize::new(n, f)).is_none() {
            let (least, most) = (u64::from(f) * 3 + 1, ClusterSize::MAX);
            return invalid(format!("f = {f} needs {least} to {most} replicas, not {n}"));
        }
        if self.clients.len() > MAX_CLIENTS {
            return invalid(format!("{} clients are more than {MAX_CLIENTS}", self.clients.len()));
        }
        if self.memory < MIN_MEMORY {
            let (memory, least) = (format_size(self.memory), format_size(MIN_MEMORY));
            return invalid(format!("memory = \"{memory}\" is less than {least}"));
        }
        check_text("name", &self.name)?;
        self.parameters.check()?;
        self.check_addresses()?;
        self.check_keys()
    }

    fn check_addresses(&self) -> Result<(), GroupError> {
        let mut seen = BTreeSet::new();
        for (i, Member { address, .. }) in self.replicas.iter().enumerate() {
            check_text(&format!("the address of replica {i}"), address)?;
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return invalid(format!(
                    "replica {i} has the address {address}, which is not host:port"
                ));
            }
            if !seen.insert(address) {
                return invalid(format!("two replicas have the address {address}"));
            }
        }
        for (c, client) in self.clients.iter().enumerate() {
            check_text(&format!("the name of client {c}"), &client.name)?;
        }
        Ok(())
    }

    fn check_keys(&self) -> Result<(), GroupError> {
        let mut keys = BTreeSet::new();
        for (peer, identity) in self.peers() {
            let whose = match peer {
                Peer::Replica(i) => format!("replica {i}"),
                Peer::Client(c) => format!("client {c}"),
            };
            if !keys.insert(identity.link) || !keys.insert(identity.signing) {
                return invalid(format!("a key of {whose} is listed twice"));
            }
            if !identity.is_usable() {
                return invalid(format!("a key of {whose} is weak, or no key at all"));
            }
        }
        Ok(())
    }

    /// Every principal and its public keys: the replicas, then the clients, each in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = (Peer, PublicIdentity)> + '_ {
        let replicas = (0..).zip(&self.replicas);
        let clients = (0..).zip(&self.clients);
        replicas
            .map(|(i, member)| (Peer::Replica(ReplicaId(i)), member.identity))
            .chain(clients.map(|(c, client)| (Peer::Client(ClientId(c)), client.identity)))
    }

    /// The text of the group file.
    pub fn to_toml(&self) -> String {
        let file = GroupFile {
            name: self.name.clone(),
            f: self.f,
            memory: format_size(self.memory),
            parameters: self.parameters,
            replicas: self.replicas.clone(),
            clients: self.clients.clone(),
        };
        to_toml(&file)
    }

    /// n and f.
    pub fn size(&self) -> ClusterSize {
        ClusterSize::new(self.replicas.len() as u32, self.f).expect("checked when it was made")
    }

    /// The group's name: the digest of what the file says, however it is laid out.
    pub fn id(&self) -> GroupId {
        let replicas = self.replicas.iter();
        let replicas: Vec<_> =
            replicas.map(|m| (&m.address, m.identity.link, m.identity.signing)).collect();
        let clients = self.clients.iter();
        let clients: Vec<_> =
            clients.map(|c| (&c.name, c.identity.link, c.identity.signing)).collect();
        let content = (&self.name, self.f, self.memory, self.parameters, replicas, clients);
        GroupId(Digest::of(Domain::Group, &content))
    }

    /// Who holds the link key `link`.
    pub fn peer_of(&self, link: &[u8; 32]) -> Option<Peer> {
        self.peers().find(|(_, identity)| identity.link == *link).map(|(peer, _)| peer)
    }

    /// The lines in which two groups differ: `-` only in this one, then `+` only in the other.
    pub fn diff(&self, other: &Group) -> Vec<String> {
        let (ours, theirs) = (self.lines(), other.lines());
        let only = |sign: char, a: &[String], b: &[String]| -> Vec<String> {
            let there: BTreeSet<_> = b.iter().collect();
            let lines = a.iter().filter(|line| !there.contains(line));
            lines.map(|line| format!("{sign} {line}")).collect()
        };
        let mut lines = only('-', &ours, &theirs);
        lines.extend(only('+', &theirs, &ours));
        lines
    }

    /// What the file says, in lines of which each says what it is about.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("name = {:?}", self.name),
            format!("f = {}", self.f),
            format!("memory = \"{}\"", format_size(self.memory)),
        ];
        lines.extend(to_toml(&self.parameters).lines().map(String::from));
        for (i, member) in self.replicas.iter().enumerate() {
            lines.extend(to_toml(member).lines().map(|line| format!("replica {i}: {line}")));
        }
        for (c, client) in self.clients.iter().enumerate() {
            lines.extend(to_toml(client).lines().map(|line| format!("client {c}: {line}")));
        }
        lines
    }
}

impl Parameters {
    fn check(&self) -> Result<(), GroupError> {
        let Self { checkpoint_interval, window, view_timeout_ms, slots } = *self;
        if checkpoint_interval == 0 || window <= checkpoint_interval || window > MAX_WINDOW {
            return invalid(format!(
                "window = {window} must exceed checkpoint_interval = {checkpoint_interval} (at least 1), and be at most {MAX_WINDOW}"
            ));
        }
        if !(100..=MAX_VIEW_TIMEOUT_MS).contains(&view_timeout_ms) {
            return invalid(format!(
                "view_timeout_ms = {view_timeout_ms} is not between 100 and {MAX_VIEW_TIMEOUT_MS}"
            ));
        }
        if !(1..=1024).contains(&slots) {
            return invalid(format!("slots = {slots} is not between 1 and 1024"));
        }
        Ok(())
    }
}

fn invalid<T>(why: String) -> Result<T, GroupError> {
    Err(GroupError::Invalid(why))
}

fn check_text(what: &str, text: &str) -> Result<(), GroupError> {
    let fits = (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control);
    match fits {
        true => Ok(()),
        false => invalid(format!(
            "{what} must have 1 to {MAX_TEXT} bytes and no control characters, unlike {text:?}"
        )),
    }
}

fn to_toml(value: &impl Serialize) -> String {
    toml::to_string(value).expect("a group has only what TOML can hold")
}

/// public.toml: what `init` makes for whoever creates the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Entry", into = "Entry")]
pub struct PublicFile {
    /// A replica's address; a client has none.
    pub address: Option<String>,
    /// A client's name; a replica has none.
    pub name: Option<String>,
    /// The public keys.
    pub identity: PublicIdentity,
}

impl TryFrom<Entry> for PublicFile {
    type Error = &'static str;

    fn try_from(entry: Entry) -> Result<Self, Self::Error> {
        let identity = entry.identity();
        match (entry.address, entry.name) {
            (None, None) | (Some(_), Some(_)) => {
                Err("a replica has an address, a client a name, and nobody both")
            }
            (address, name) => Ok(Self { address, name, identity }),
        }
    }
}

impl From<PublicFile> for Entry {
    fn from(public: PublicFile) -> Self {
        Self::new(public.address, public.name, public.identity)
    }
}

impl PublicFile {
    /// A replica's.
    pub fn replica(address: &str, identity: PublicIdentity) -> Self {
        Self { address: Some(address.into()), name: None, identity }
    }

    /// A client's.
    pub fn client(name: &str, identity: PublicIdentity) -> Self {
        Self { address: None, name: Some(name.into()), identity }
    }

    /// Writes it to `path`.
    pub fn save(&self, path: &Path) -> Result<(), GroupError> {
        std::fs::write(path, to_toml(self))
            .map_err(|error| GroupError::Io { path: path.into(), error })
    }

    /// Reads it from `path`.
    pub fn load(path: &Path) -> Result<Self, GroupError> {
        let syntax =
            |error: toml::de::Error| GroupError::Syntax(format!("{}: {error}", path.display()));
        toml::from_str(&read(path)?).map_err(syntax)
    }
}

/// Reads a file of no more than [`MAX_FILE`] bytes.
fn read(path: &Path) -> Result<String, GroupError> {
    let io = |error| GroupError::Io { path: path.into(), error };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_FILE {
        return Err(GroupError::Syntax(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok(text)
}

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A size with its unit: `512MiB`, `2 GiB`; whole numbers only. Units: bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| whole)?.checked_mul(unit)
}

/// The shortest exact text for `bytes`.
pub fn format_size(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes >= *unit && bytes.is_multiple_of(*unit);
    let (name, unit) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}
