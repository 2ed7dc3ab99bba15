//! Where the demo's files are: in a mount or, where nothing can be mounted, in a session of the client that is built into `bfs`.

use super::store::Store;
use crate::backend::Outvoted;
use crate::failure::{Failure, Outcome};
use crate::local_group::LocalGroup;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use workloads::stall::StallWatcher;

/// How the group is reached.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whether it is mounted.
    pub mounted: bool,
    /// Of the mount.
    pub options: &'static str,
    /// How long an operation of a session may take. A mount has it among its options.
    pub patience: Duration,
}

/// The files of one group.
pub enum Place {
    Mount(PathBuf),
    Session(Arc<Store>),
}

impl Place {
    /// Mounts the group in its folder, or opens a session.
    ///
    /// Errors: as either.
    pub fn open(group: &mut LocalGroup, terms: &Terms) -> Outcome<Self> {
        if !terms.mounted {
            return Ok(Self::Session(Arc::new(Store::open(group, terms.patience)?)));
        }
        let mount = group.dir().join("mnt");
        group.mount(&mount, terms.options)?;
        Ok(Self::Mount(mount))
    }

    /// Unmounts and mounts again, or opens another session, so that nothing comes from a cache.
    ///
    /// Errors: as [`Self::open`]; the mount is in use.
    pub fn reopen(self, group: &mut LocalGroup, terms: &Terms) -> Outcome<Self> {
        if let Self::Mount(mount) = &self {
            group.unmount(mount)?;
        }
        drop(self);
        Self::open(group, terms)
    }

    /// Makes the file `name` hold `contents`.
    ///
    /// Errors: those of a write, also [`Self::read`]'s.
    pub fn write(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        match self {
            Self::Mount(mount) => fs::write(mount.join(name), contents),
            Self::Session(store) => store.write(Path::new(name), contents),
        }
    }

    /// All of the file `name`.
    ///
    /// Errors: there is none; the group did not answer in time.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Mount(mount) => fs::read(mount.join(name)),
            Self::Session(store) => store.read(Path::new(name)),
        }
    }

    /// The permission bits of the file `name`.
    ///
    /// Errors: as [`Self::read`].
    pub fn permissions(&self, name: &str) -> io::Result<u32> {
        let mode = match self {
            Self::Mount(mount) => fs::metadata(mount.join(name))?.permissions().mode(),
            Self::Session(store) => store.attributes(Path::new(name))?.mode.into(),
        };
        Ok(mode & 0o777)
    }

    /// Watches whether a small file can be made and removed all the time, with `pause` between two.
    ///
    /// Errors: the system refuses a thread.
    pub fn watch(&self, pause: Duration) -> Outcome<StallWatcher> {
        let watcher = match self {
            Self::Mount(mount) => StallWatcher::start(mount, pause),
            Self::Session(store) => {
                let (store, path) = (store.clone(), PathBuf::from("watch"));
                let name = path.clone();
                let round = move || {
                    store.write(&name, b"still here")?;
                    store.remove(&name)
                };
                StallWatcher::of(path, round, pause)
            }
        };
        watcher.map_err(|error| Failure::new("cannot watch the group", error))
    }

    /// How many replies of each replica a quorum has refuted, by replica, as the client here has seen it.
    pub fn outvoted(&self, group: &LocalGroup) -> Vec<Outvoted> {
        match self {
            Self::Mount(_) => group.outvoted(),
            Self::Session(store) => store.outvoted(),
        }
    }
}
