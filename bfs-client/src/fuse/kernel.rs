//! What the kernel is told without having asked.

use bfs_fs::op::Inode;
use fuser::{INodeNo, Notifier};
use std::sync::{Arc, OnceLock};

/// The way to the kernel, once there is a mount.
#[derive(Clone, Default)]
pub struct Kernel(Arc<OnceLock<Notifier>>);

impl Kernel {
    /// The mount is made: `notifier` leads to it.
    pub fn connect(&self, notifier: Notifier) {
        // A front serves one mount.
        let _ = self.0.set(notifier);
    }

    /// Has the kernel ask again before it next uses the attributes of `inode`, and with them decide whether the pages that it
    /// has are still good. Takes no lock in the kernel for which a request of this mount could wait.
    pub fn forget_attributes(&self, inode: Inode) {
        if let Some(notifier) = self.0.get()
            && let Err(error) = notifier.inval_inode(INodeNo(inode.0), -1, 0)
        {
            tracing::debug!("the kernel keeps its attributes of inode {}: {error}", inode.0);
        }
    }
}
