//! group.toml: who the replicas and clients are. Public, the same everywhere; the digest of what it says names the group.

use crate::keys::PublicIdentity;
use bft_core::types::{ClientId, ClusterSize, Digest, Domain, GroupId, Peer, ReplicaId};
use borsh::BorshSerialize;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The most clients that one group may list.
pub const MAX_CLIENTS: usize = 10_000;

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
pub struct Member {
    /// Where it is reached: `host:port`.
    pub address: String,
    /// Its public keys.
    #[serde(flatten)]
    pub identity: PublicIdentity,
}

/// A client as the group file lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientEntry {
    /// What people call it.
    pub name: String,
    /// Its public keys.
    #[serde(flatten)]
    pub identity: PublicIdentity,
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
            memory: parse_size(&file.memory).ok_or_else(|| {
                let why = format!("memory = \"{}\" is not a size such as \"2GiB\"", file.memory);
                GroupError::Invalid(why)
            })?,
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
    pub fn check(&self) -> Result<(), GroupError> {
        let invalid = |why: String| Err(GroupError::Invalid(why));
        let Parameters { checkpoint_interval, window, view_timeout_ms, slots } = self.parameters;
        let (n, f) = (self.replicas.len(), self.f);
        if u32::try_from(n).ok().and_then(|n| ClusterSize::new(n, f)).is_none() {
            let least = u64::from(f) * 3 + 1;
            return invalid(format!(
                "f = {f} needs {least} to {} replicas, not {n}",
                ClusterSize::MAX
            ));
        }
        if self.clients.len() > MAX_CLIENTS {
            return invalid(format!("more than {MAX_CLIENTS} clients"));
        }
        if checkpoint_interval == 0 || window <= checkpoint_interval || window > 4096 {
            return invalid(format!(
                "window = {window} must exceed checkpoint_interval = {checkpoint_interval} (at least 1), and be at most 4096"
            ));
        }
        if view_timeout_ms < 100 {
            return invalid(format!("view_timeout_ms = {view_timeout_ms} is less than 100"));
        }
        if !(1..=1024).contains(&slots) {
            return invalid(format!("slots = {slots} is not between 1 and 1024"));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.replicas.iter().find(|member| !seen.insert(&member.address)) {
            return invalid(format!("two replicas have the address {}", twice.address));
        }
        let replicas =
            self.replicas.iter().map(|member| (member.address.as_str(), member.identity));
        let clients = self.clients.iter().map(|client| (client.name.as_str(), client.identity));
        let mut keys = BTreeSet::new();
        for (name, identity) in replicas.chain(clients) {
            if !keys.insert(identity.link) || !keys.insert(identity.signing) {
                return invalid(format!("a key of {name} is listed twice"));
            }
        }
        Ok(())
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
        toml::to_string(&file).expect("a group has only what TOML can hold")
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
        let replica = self.replicas.iter().position(|member| member.identity.link == *link);
        let client = || self.clients.iter().position(|client| client.identity.link == *link);
        match replica {
            Some(i) => Some(Peer::Replica(ReplicaId(i as u32))),
            None => client().map(|c| Peer::Client(ClientId(c as u32))),
        }
    }

    /// The lines in which two group files differ: `-` only in this one, `+` only in the other.
    pub fn diff(&self, other: &Group) -> Vec<String> {
        let (ours, theirs) = (self.to_toml(), other.to_toml());
        let only = |a: &str, b: &str, sign: char| -> Vec<String> {
            let there: BTreeSet<_> = b.lines().collect();
            a.lines()
                .filter(|line| !there.contains(line))
                .map(|line| format!("{sign} {line}"))
                .collect()
        };
        let mut lines = only(&ours, &theirs, '-');
        lines.extend(only(&theirs, &ours, '+'));
        lines
    }
}

/// public.toml: what `init` makes for whoever creates the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicFile {
    /// A replica's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// A client's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The public keys.
    #[serde(flatten)]
    pub identity: PublicIdentity,
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
        let text = toml::to_string(self).map_err(|error| GroupError::Syntax(error.to_string()))?;
        std::fs::write(path, text).map_err(|error| GroupError::Io { path: path.into(), error })
    }

    /// Reads it from `path`.
    pub fn load(path: &Path) -> Result<Self, GroupError> {
        let syntax =
            |error: toml::de::Error| GroupError::Syntax(format!("{}: {error}", path.display()));
        toml::from_str(&read(path)?).map_err(syntax)
    }
}

fn read(path: &Path) -> Result<String, GroupError> {
    std::fs::read_to_string(path).map_err(|error| GroupError::Io { path: path.into(), error })
}

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A size with its unit: `512MiB`, `2GiB`. Units: bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    let digits = digits.trim_end();
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| whole)?.checked_mul(unit)
}

/// The shortest exact text for `bytes`.
pub fn format_size(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes >= *unit && bytes.is_multiple_of(*unit);
    let (name, unit) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Identity;

    fn group(n: usize, f: u32) -> Group {
        let member = |i| Member {
            address: format!("127.0.0.1:{}", 7100 + i),
            identity: Identity::generate().public(),
        };
        let client = ClientEntry { name: "c".into(), identity: Identity::generate().public() };
        Group {
            name: "test".into(),
            f,
            memory: 2 << 30,
            parameters: Parameters::default(),
            replicas: (0..n).map(member).collect(),
            clients: vec![client],
        }
    }

    #[test]
    fn the_id_follows_what_the_file_says_and_not_how() {
        let group = group(4, 1);
        let text = group.to_toml();
        let read = Group::parse(&text).unwrap();
        assert_eq!(read, group);
        let spaced =
            text.replace(" = ", "   =   ").replace("[[replica]]", "\n# a comment\n[[replica]]");
        assert_eq!(Group::parse(&spaced).unwrap().id(), group.id());
        let mut other = group.clone();
        other.parameters.window += 1;
        assert_ne!(other.id(), group.id());
        assert_eq!(group.diff(&other), ["- window = 256", "+ window = 257"]);
    }

    #[test]
    fn what_is_impossible_is_refused_by_name() {
        let refused = |group: Group, word: &str| {
            let why = Group::parse(&group.to_toml()).unwrap_err().to_string();
            assert!(why.contains(word), "{why}");
        };
        refused(group(3, 1), "4 to 64 replicas");
        refused(group(0, 0), "1 to 64 replicas");
        let mut twice = group(4, 1);
        twice.replicas[2].address = twice.replicas[1].address.clone();
        refused(twice, "two replicas");
        let mut twice = group(4, 1);
        twice.clients[0].identity = twice.replicas[0].identity;
        refused(twice, "listed twice");
        let mut narrow = group(4, 1);
        narrow.parameters.window = 128;
        refused(narrow, "must exceed");
        let unknown = group(4, 1).to_toml().replace("f = 1", "f = 1\nfaults = 2");
        assert!(Group::parse(&unknown).unwrap_err().to_string().contains("faults"));
    }

    #[test]
    fn sizes_are_exact() {
        assert_eq!(parse_size("2GiB"), Some(2 << 30));
        assert_eq!(parse_size("512 MiB"), Some(512 << 20));
        assert_eq!(parse_size("7B"), Some(7));
        for bad in ["", "GiB", "2", "2GB", "-1GiB", "+1GiB", "99999999999GiB", "1.5GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        for bytes in [0, 1, 1023, 1 << 10, 3 << 20, 5 << 30] {
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
    }

    #[test]
    fn everyone_is_found_by_the_link_key() {
        let group = group(4, 1);
        let key = group.replicas[3].identity.link;
        assert_eq!(group.peer_of(&key), Some(Peer::Replica(ReplicaId(3))));
        let key = group.clients[0].identity.link;
        assert_eq!(group.peer_of(&key), Some(Peer::Client(ClientId(0))));
        assert_eq!(group.peer_of(&[1; 32]), None);
    }
}
