//! A folder that goes with what it is for.

use anyhow::{Context, Result};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A folder of this run; dropping it removes it.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder `path`, which must not be there.
    pub fn new(path: PathBuf) -> Result<Self> {
        let cannot = || format!("cannot make {}", path.display());
        DirBuilder::new().mode(0o711).create(&path).with_context(cannot)?;
        Ok(Self(path))
    }

    /// One in the system's folder for temporary files.
    pub fn temporary(name: &str) -> Result<Self> {
        let parent = fs::canonicalize(std::env::temp_dir()).context("no temporary folder")?;
        Self::new(parent.join(format!("bfs-{name}-{}", std::process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("suites: {} stays: {error}", self.0.display());
        }
    }
}
