//! What is compared: directories that something stands behind.

use anyhow::{Context, Result, bail};
use bfs_client::local_group::{LocalGroup, Plan};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use workloads::andrew::{self, Options, Report};
use workloads::latency::{self, Latency};
use workloads::progress::Progress;
use workloads::stop::Stop;
use workloads::tree::SourceTree;
use workloads::verify::{Verification, verify};

/// A directory to work in. Dropping it takes away whatever stands behind it.
pub struct Target {
    name: &'static str,
    /// Why it cannot run is told when it is first asked to.
    place: Result<Place>,
}

enum Place {
    Folder(Folder),
    Group { group: Box<LocalGroup>, mount: PathBuf, replicas: usize },
}

/// What came of one round.
pub struct Outcome {
    pub report: Report,
    /// Of the last round: what was read back after the directory was mounted again.
    pub verified: Option<Verification>,
    /// The resident memory of each replica while the files of the round were there. Units: bytes.
    pub resident_bytes: Vec<u64>,
}

/// The targets of the comparison. Those that cannot run say why when they are asked to.
pub fn all(stop: &Stop) -> Vec<Target> {
    let group = |n, f| {
        let mut group = Box::new(LocalGroup::start(&Plan::new(n, f, stop)?)?);
        let mount = group.dir().join("mnt");
        group.mount(&mount, "")?;
        Ok(Place::Group { group, mount, replicas: n })
    };
    vec![
        Target { name: "native", place: Folder::in_memory().map(Place::Folder) },
        Target { name: "bfs", place: group(4, 1) },
        Target { name: "bfs-unreplicated", place: group(1, 0) },
    ]
}

impl Target {
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the benchmark once in a new folder, which is removed afterwards. In the `last` round the files are read back first,
    /// after unmounting and mounting again where there is a mount.
    ///
    /// Errors: why this target cannot run, or not any more.
    pub fn round(
        &mut self,
        tree: &SourceTree,
        options: Options,
        last: bool,
        progress: &dyn Progress,
        stop: &Stop,
    ) -> Result<Outcome> {
        let place = self.place()?;
        let dir = place.dir().join("round");
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let report = place.work(|| andrew::run(tree, &dir, options, progress, stop));
        let resident_bytes = place.resident_bytes();
        let verified = match last {
            true => {
                place.mount_again()?;
                Some(place.work(|| verify(tree, &dir, options.copies, progress, stop)))
            }
            false => None,
        };
        place
            .work(|| fs::remove_dir_all(&dir))
            .with_context(|| format!("cannot remove {}", dir.display()))?;
        Ok(Outcome { report, verified, resident_bytes })
    }

    /// How long single operations take.
    ///
    /// Errors: one of them fails.
    pub fn latency(&mut self, operations: usize, stop: &Stop) -> Result<Latency> {
        let place = self.place()?;
        let dir = place.dir().to_owned();
        place
            .work(|| latency::measure(&dir, operations, stop))
            .context("cannot measure single operations")
    }

    fn place(&mut self) -> Result<&mut Place> {
        match &mut self.place {
            Ok(place) => Ok(place),
            Err(error) => bail!("{error:#}"),
        }
    }
}

impl Place {
    fn dir(&self) -> &Path {
        match self {
            Self::Folder(folder) => &folder.0,
            Self::Group { mount, .. } => mount,
        }
    }

    /// Does `work` so that a stop ends it even while it waits for a group.
    fn work<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Folder(_) => work(),
            Self::Group { group, .. } => group.supervise(work, |_| {}),
        }
    }

    fn mount_again(&mut self) -> Result<()> {
        if let Self::Group { group, mount, .. } = self {
            group.unmount(mount)?;
            group.mount(mount, "")?;
        }
        Ok(())
    }

    fn resident_bytes(&self) -> Vec<u64> {
        match self {
            Self::Folder(_) => Vec::new(),
            Self::Group { group, replicas, .. } => {
                (0..*replicas).filter_map(|id| group.resident_bytes(id)).collect()
            }
        }
    }
}

/// A folder in this machine's memory, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    /// Errors: /dev/shm is no tmpfs or cannot be written to.
    fn in_memory() -> Result<Self> {
        let parent = Path::new("/dev/shm");
        let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(parent).output();
        let kind = output.context("cannot ask for the type of /dev/shm")?.stdout;
        if kind.trim_ascii() != b"tmpfs" {
            bail!("/dev/shm is not a tmpfs\n  try: mount -t tmpfs tmpfs /dev/shm");
        }
        let dir = parent.join(format!("andrew-compare-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("andrew-compare: {} stays: {error}", self.0.display());
        }
    }
}
