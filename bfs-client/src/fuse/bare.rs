//! Which inodes are known to have no extended attributes.
//!
//! The kernel asks for `security.capability` before the first write to a file and whenever a program is run. Nearly always
//! the answer is no, and the attributes that came a moment ago said so.

use bfs_fs::op::Attributes;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most inodes that are remembered.
const KNOWN_MAX: usize = 4096;

/// What the attributes of the last moments said.
pub struct Bare {
    /// For how long it is believed.
    ttl: Duration,
    known: Mutex<HashMap<u64, Known>>,
}

struct Known {
    is_bare: bool,
    until: Instant,
}

impl Bare {
    /// Believes attributes for `ttl`; with none it knows nothing.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, known: Mutex::default() }
    }

    /// Takes note of attributes that came just now.
    pub fn learn(&self, attributes: &Attributes) {
        self.learn_at(attributes, Instant::now());
    }

    fn learn_at(&self, attributes: &Attributes, now: Instant) {
        if self.ttl.is_zero() {
            return;
        }
        let mut known = self.lock();
        let changes = known.get(&attributes.inode.0).is_some_and(|k| !k.is_bare && k.until > now);
        if changes || attributes.has_xattrs {
            // Attributes that were on their way when an attribute was set say nothing.
            return;
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(attributes.inode.0, Known { is_bare: true, until: now + self.ttl });
    }

    /// An extended attribute of `inode` is being set here.
    pub fn forget(&self, inode: u64) {
        if !self.ttl.is_zero() {
            let until = Instant::now() + self.ttl;
            self.lock().insert(inode, Known { is_bare: false, until });
        }
    }

    /// Whether `inode` has none.
    pub fn is_bare(&self, inode: u64) -> bool {
        self.is_bare_at(inode, Instant::now())
    }

    fn is_bare_at(&self, inode: u64, now: Instant) -> bool {
        self.lock().get(&inode).is_some_and(|known| known.is_bare && known.until > now)
    }

    /// The map stays consistent at every point where a panic is possible, so poison says nothing.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::fixture;

    fn attributes(inode: u64, has_xattrs: bool) -> Attributes {
        Attributes { has_xattrs, ..fixture::attributes(inode) }
    }

    #[test]
    fn attributes_are_believed_for_a_while() {
        let bare = Bare::new(Duration::from_secs(1));
        let now = Instant::now();
        bare.learn_at(&attributes(1, false), now);
        bare.learn_at(&attributes(2, true), now);
        assert!(bare.is_bare_at(1, now) && !bare.is_bare_at(2, now) && !bare.is_bare_at(3, now));
        assert!(!bare.is_bare_at(1, now + Duration::from_secs(2)));
        let strict = Bare::new(Duration::ZERO);
        strict.learn(&attributes(1, false));
        assert!(!strict.is_bare(1));
    }

    #[test]
    fn what_was_set_here_is_not_forgotten_for_older_news() {
        let bare = Bare::new(Duration::from_secs(1));
        bare.learn(&attributes(1, false));
        bare.forget(1);
        bare.learn(&attributes(1, false));
        assert!(!bare.is_bare(1));
        let later = Instant::now() + Duration::from_secs(2);
        bare.learn_at(&attributes(1, false), later);
        assert!(bare.is_bare_at(1, later));
    }

    #[test]
    fn the_memory_is_bounded() {
        let bare = Bare::new(Duration::from_secs(1));
        (0..3 * KNOWN_MAX as u64).for_each(|inode| bare.learn(&attributes(inode, false)));
        assert!(bare.lock().len() <= KNOWN_MAX);
    }
}
