//! Names and attributes: each kind of operation on many files, one kind after the other.

use crate::stop::Stop;
use crate::timing::{Stopwatch, Timing};
use anyhow::{Result, ensure};
use clap::Args;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

#[derive(Args, Clone, Copy)]
pub struct Options {
    /// How many files
    #[arg(long, default_value_t = 500)]
    pub files: usize,
}

/// Works in `dir`, which exists, and removes what it has made.
///
/// Errors: the first operation that fails; a listing that is not whole.
pub fn run(dir: &Path, options: Options, stop: &Stop) -> Result<Timing> {
    let mut watch = Stopwatch::new(stop);
    let name = |kind: &'static str| move |i: usize| dir.join(format!("{kind}{i}"));
    let (file, moved, link, soft) = (name("f"), name("moved"), name("link"), name("soft"));
    let all = 0..options.files;
    let mut each = |what, operation: &dyn Fn(usize) -> std::io::Result<()>| {
        watch.time(what, || Ok(all.clone().try_for_each(operation)?))
    };
    each("create", &|i| File::create_new(file(i)).map(drop))?;
    each("stat", &|i| fs::symlink_metadata(file(i)).map(drop))?;
    each("chmod", &|i| fs::set_permissions(file(i), Permissions::from_mode(0o600)))?;
    each("rename", &|i| fs::rename(file(i), moved(i)))?;
    each("link", &|i| fs::hard_link(moved(i), link(i)))?;
    each("symlink", &|i| symlink(moved(i), soft(i)))?;
    each("readlink", &|i| fs::read_link(soft(i)).map(drop))?;
    watch.time("list", || {
        let listed = fs::read_dir(dir)?.collect::<std::io::Result<Vec<_>>>()?.len();
        ensure!(listed == 3 * options.files, "{listed} names of {}", 3 * options.files);
        Ok(())
    })?;
    let kinds: [&dyn Fn(usize) -> PathBuf; 3] = [&moved, &link, &soft];
    watch.time("remove", || {
        Ok(kinds.iter().try_for_each(|of| all.clone().try_for_each(|i| fs::remove_file(of(i))))?)
    })?;
    Ok(watch.timing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn it_leaves_nothing_behind() {
        let scratch = Scratch::new();
        let timing = run(scratch.path(), Options { files: 10 }, &Stop::default()).unwrap();
        assert_eq!(timing.phases.len(), 9);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        fs::write(scratch.path().join("in the way"), "").unwrap();
        assert!(run(scratch.path(), Options { files: 10 }, &Stop::default()).is_err());
    }
}
