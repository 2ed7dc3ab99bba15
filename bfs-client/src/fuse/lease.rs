//! The mount's lease: renewed as long as the mount lives, and told what is open here.

use super::lock::Locks;
use super::open_files::{Chore, OpenFiles, SETTLED};
use crate::backend::Backend;
use bfs_fs::op::{Caller, FsOp, FsReply, FsRequest, FsResult};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How often the lease is renewed. It lasts several times as long.
const RENEWAL: Duration = Duration::from_secs(20);
/// How long the end of a mount waits for the end of its lease, which ends by itself otherwise.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Keeps the lease of a mount. Dropping it ends the lease.
pub struct Keeper {
    files: Arc<OpenFiles>,
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Keeper {
    /// Begins a lease, and starts keeping it for what is open in `files`.
    pub fn start(backend: &Arc<dyn Backend>, files: &Arc<OpenFiles>, locks: &Arc<Locks>) -> Self {
        let (end, ended) = mpsc::channel();
        // Before anything is held: what an earlier life of this client held ends, also where that never came to name itself.
        let _ = ask(backend.as_ref(), FsOp::EndLease);
        let life = crate::session::random();
        renew(backend.as_ref(), life);
        let (backend, files_there, locks) = (Arc::downgrade(backend), files.clone(), locks.clone());
        // Without the thread the group keeps nothing for this mount; files can be used all the same.
        let started = thread::Builder::new().name("bfs-lease".into()).spawn(move || {
            keep(&backend, &files_there, &locks, life);
            drop(end);
        });
        if let Err(error) = started {
            tracing::warn!("files that others remove while they are open here are lost: {error}");
        }
        Self { files: files.clone(), ended: Mutex::new(ended) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.files.end();
        // Nothing is ever sent: the end of the thread ends the wait.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(END_LIMIT);
    }
}

fn ask(backend: &dyn Backend, op: FsOp) -> FsResult {
    let (sender, receiver) = mpsc::channel();
    // Leases ask for no permission.
    let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
    backend.call(FsRequest { caller, op }, Box::new(move |result| drop(sender.send(result))));
    receiver.recv().unwrap_or(Err(bfs_fs::op::FsError::Io))
}

/// Says whether the lease is a new one.
fn renew(backend: &dyn Backend, life: u64) -> bool {
    match ask(backend, FsOp::Renew { life }) {
        Ok(FsReply::Lease { is_new, .. }) => is_new,
        Ok(_) => false,
        Err(error) => {
            tracing::debug!("the lease is not renewed: {error}");
            false
        }
    }
}

/// One thing after the other, so that what is let go was held before.
fn keep(backend: &Weak<dyn Backend>, files: &OpenFiles, locks: &Locks, life: u64) {
    let mut renewed = Instant::now();
    loop {
        let Some(backend) = backend.upgrade() else { return };
        if renewed.elapsed() >= RENEWAL {
            if renew(backend.as_ref(), life) {
                tracing::warn!("the lease of this mount had ended: the locks that it had are lost");
                files.lost();
            }
            renewed = Instant::now();
        }
        locks.unlock_owed(backend.as_ref());
        let Some(chore) = files.next_chore(SETTLED / 2) else { continue };
        let op = match &chore {
            Chore::Hold(inodes) => FsOp::Hold { inodes: inodes.clone() },
            Chore::LetGo(_, inodes) => FsOp::LetGo { inodes: inodes.clone() },
            Chore::End => FsOp::EndLease,
        };
        let is_end = chore == Chore::End;
        let result = ask(backend.as_ref(), op);
        if let Err(error) = &result {
            tracing::debug!("the group does not know what is open here: {error}");
        }
        files.told(chore, result.is_ok());
        if is_end {
            return;
        }
    }
}
