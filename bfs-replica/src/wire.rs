//! What stands between a replica and its links: in production, nothing.

use bft_core::io::Destination;
use bft_core::messages::Message;
use bft_core::types::{Peer, ReplicaId};
use bft_net::group::Group;
use bft_net::hub::Links;
use std::io;
use std::path::Path;
use std::time::Instant;

/// What a replica knows when it starts.
pub struct Scene<'a> {
    /// Its folder.
    pub dir: &'a Path,
    /// Its group.
    pub group: &'a Group,
    /// Which replica it is.
    pub me: ReplicaId,
    /// What its signing key is made of.
    pub signing_seed: &'a [u8; 32],
    /// The attack to begin with.
    pub attack: Option<&'a str>,
}

/// What a build puts between the replica and its links. The defaults do nothing and cost nothing.
pub trait Wire: Send + Sized + 'static {
    /// What the program calls itself.
    const PROGRAM: &'static str;
    /// Its version, and what kind of build it is.
    const VERSION: &'static str;

    /// Whether this build can behave as the attack `name` says.
    ///
    /// Errors: why not, for people.
    fn knows(name: &str) -> Result<(), String>;

    /// Made once, before the replica serves. `scene.attack` is one that it [`knows`](Self::knows).
    fn new(scene: &Scene<'_>) -> io::Result<Self>;

    /// The replica wants `message` sent. Says whether it is dealt with; if not, it is sent as it is.
    fn carries(&mut self, to: Destination, message: &Message, links: &mut Links) -> bool {
        let _ = (to, message, links);
        false
    }

    /// `from` has sent `message`. Says whether the replica is to see it.
    fn lets_in(&mut self, from: Peer, message: &Message, links: &mut Links) -> bool {
        let _ = (from, message, links);
        true
    }

    /// The deadline may have passed.
    fn on_deadline(&mut self, links: &mut Links) {
        let _ = links;
    }

    /// When `on_deadline` is wanted.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// Production: what the replica says is what is sent.
pub struct Honest;

impl Wire for Honest {
    const PROGRAM: &'static str = "bfs-replica";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn knows(_: &str) -> Result<(), String> {
        Err("this is a production build, which holds no attacks; only the lab build bfs-replica-lab does".into())
    }

    fn new(_: &Scene<'_>) -> io::Result<Self> {
        Ok(Self)
    }
}
