//! What the kernel is told without having asked.

use bfs_fs::op::Inode;
use fuser::{INodeNo, Notifier};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

/// The way to the kernel, once there is a mount.
#[derive(Clone, Default)]
pub struct Kernel(Arc<State>);

#[derive(Default)]
struct State {
    notifier: OnceLock<Notifier>,
    /// Open files of which the kernel may think that they end elsewhere than they do.
    ends_unknown: Mutex<HashSet<Inode>>,
    /// Files of which the kernel has pages with what the group refused.
    refused: Mutex<Refused>,
}

#[derive(Default)]
struct Refused {
    inodes: HashSet<Inode>,
    /// Whether a thread drops their pages.
    attended: bool,
}

impl Kernel {
    /// The mount is made: `notifier` leads to it.
    pub fn connect(&self, notifier: Notifier) {
        // A front serves one mount.
        let _ = self.0.notifier.set(notifier);
    }

    /// Has the kernel ask again before it next uses the attributes of `inode`, and with them decide whether the pages that it
    /// has are still good. Takes no lock in the kernel for which a request of this mount could wait.
    pub fn forget_attributes(&self, inode: Inode) {
        self.ends_unknown().insert(inode);
        if let Some(notifier) = self.0.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(inode.0), -1, 0)
        {
            tracing::debug!("the kernel keeps its attributes of inode {}: {error}", inode.0);
        }
    }

    /// Has the kernel drop the pages of `inode`: in them is what was written here and the group did not take.
    ///
    /// On a thread of its own: the kernel waits for pages that it is reading, and those may wait for whoever calls.
    pub fn forget_pages(&self, inode: Inode) {
        let mut refused = self.refused();
        refused.inodes.insert(inode);
        if std::mem::replace(&mut refused.attended, true) {
            return;
        }
        let kernel = self.clone();
        let drop_all = move || {
            while let Some(inode) = kernel.next_refused() {
                if let Some(notifier) = kernel.0.notifier.get()
                    && let Err(error) = notifier.inval_inode(INodeNo(inode.0), 0, 0)
                {
                    tracing::debug!("the kernel keeps its pages of inode {}: {error}", inode.0);
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("bfs-pages".into()).spawn(drop_all) {
            tracing::error!("programs here may read what was not written: {error}");
            refused.attended = false;
        }
    }

    fn next_refused(&self) -> Option<Inode> {
        let mut refused = self.refused();
        let next = refused.inodes.iter().next().copied();
        refused.attended = next.is_some();
        if let Some(inode) = &next {
            refused.inodes.remove(inode);
        }
        next
    }

    /// The set stays consistent at every point where a panic is possible, so poison says nothing.
    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an append of the kernel's may be meant for another offset than it says: no write asks for attributes, forgotten or
    /// not. [fuse_cache_write_iter in Linux's fs/fuse/file.c]
    pub fn may_miss_the_end(&self, inode: Inode) -> bool {
        self.ends_unknown().contains(&inode)
    }

    /// The kernel knows where `inode` ends, or has closed it.
    pub fn knows_the_end(&self, inode: Inode) {
        self.ends_unknown().remove(&inode);
    }

    /// The set stays consistent at every point where a panic is possible, so poison says nothing.
    fn ends_unknown(&self) -> MutexGuard<'_, HashSet<Inode>> {
        self.0.ends_unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
