//! The real C source tree that the work is about: the releases of Lua that the package `lua-src` brings.

use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// A source tree in memory, so that reading it costs every target the same.
#[derive(Clone, Debug)]
pub struct SourceTree {
    name: String,
    directories: Vec<PathBuf>,
    files: Vec<SourceFile>,
}

/// One file of a source tree.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Below the top of the tree.
    pub path: PathBuf,
    pub contents: Vec<u8>,
    pub digest: blake3::Hash,
}

/// C files that other C files include; no compiler is meant to see them alone.
const INCLUDED_ONLY: [&str; 3] = ["onelua.c", "all.c", "ltests.c"];

impl SourceTree {
    /// The five releases of Lua inside the package `lua-src`.
    ///
    /// Errors: cargo's unpacked copy of the package is gone since this program was built.
    pub fn lua() -> Result<Self> {
        let folder = Path::new(env!("SOURCE_TREE"));
        let name = env!("SOURCE_TREE_NAME");
        Self::load(name, folder).map_err(|error| {
            anyhow!(
                "the C sources of {name} are not where they were when this program was built: {error:#}\n  \
                 try: cargo fetch --locked, then build again"
            )
        })
    }

    /// Reads every folder directly in `folder` that holds C files, without folders in it; nothing else is part of the tree.
    ///
    /// Errors: something cannot be read, or there is no C file.
    pub fn load(name: &str, folder: &Path) -> Result<Self> {
        let mut tree = Self { name: name.into(), directories: Vec::new(), files: Vec::new() };
        for directory in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
            let files: Vec<_> =
                entries(&directory)?.into_iter().filter(|path| path.is_file()).collect();
            if files.iter().any(|path| is_c(path)) {
                tree.add(folder, &directory, &files)?;
            }
        }
        match tree.files.is_empty() {
            true => bail!("no folder with C files in {}", folder.display()),
            false => Ok(tree),
        }
    }

    fn add(&mut self, top: &Path, directory: &Path, files: &[PathBuf]) -> Result<()> {
        self.directories.push(directory.strip_prefix(top)?.to_owned());
        for file in files {
            let contents =
                fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let digest = blake3::hash(&contents);
            self.files.push(SourceFile {
                path: file.strip_prefix(top)?.to_owned(),
                contents,
                digest,
            });
        }
        Ok(())
    }

    /// The first `count` of its folders only.
    pub fn first(mut self, count: usize) -> Self {
        self.directories.truncate(count);
        let kept = self.directories.clone();
        self.files.retain(|file| kept.iter().any(|directory| file.path.starts_with(directory)));
        self
    }

    /// What it is and which release, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folders below the top, ascending by name.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// The files, ascending by folder and name.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The size of all files. Units: bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.contents.len() as u64).sum()
    }

    /// The files that the compiler is given, in the order of [`Self::files`].
    pub fn units(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.is_unit())
    }

    /// How many C files are only there to be included by others.
    pub fn included_only(&self) -> usize {
        self.files.iter().filter(|file| is_c(&file.path) && !file.is_unit()).count()
    }

    /// The top of copy number `copy`, counted from 0, in `dir`.
    pub fn copy_in(dir: &Path, copy: u32) -> PathBuf {
        dir.join(format!("copy-{:03}", copy + 1))
    }
}

impl SourceFile {
    fn is_unit(&self) -> bool {
        is_c(&self.path) && !INCLUDED_ONLY.iter().any(|name| self.path.ends_with(name))
    }
}

fn is_c(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "c")
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list {}", folder.display());
    let entries = fs::read_dir(folder).with_context(cannot)?.collect::<Result<Vec<_>, _>>();
    let mut paths: Vec<_> =
        entries.with_context(cannot)?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn lua_is_a_real_tree() {
        let tree = SourceTree::lua().unwrap();
        assert!(tree.name().starts_with("lua-src "), "{}", tree.name());
        assert_eq!(tree.directories().len(), 5);
        assert!(tree.units().count() >= 60 && tree.bytes() > 1_000_000);
        let lvm = tree.files().iter().find(|file| file.path.ends_with("lvm.c")).unwrap();
        assert_eq!(lvm.digest, blake3::hash(&lvm.contents));
        let (directories, files) = (tree.directories()[0].clone(), tree.files().len());
        let first = tree.first(1);
        assert_eq!(first.directories(), [directories]);
        assert!(first.units().count() > 10 && first.files().len() < files / 3);
    }

    #[test]
    fn folders_without_c_files_and_files_for_inclusion_are_told_apart() {
        let scratch = Scratch::new();
        let path = |name: &str| scratch.path().join(name);
        for folder in ["a", "docs"] {
            fs::create_dir(path(folder)).unwrap();
        }
        for file in ["a/x.c", "a/onelua.c", "a/x.h", "docs/manual", "top.c"] {
            fs::write(path(file), file).unwrap();
        }
        let tree = SourceTree::load("test", scratch.path()).unwrap();
        assert_eq!(tree.directories(), [Path::new("a")]);
        assert_eq!(tree.files().len(), 3);
        assert_eq!(
            tree.units().map(|file| file.path.clone()).collect::<Vec<_>>(),
            [Path::new("a/x.c")]
        );
        assert_eq!(tree.included_only(), 1);
    }

    #[test]
    fn a_tree_that_is_gone_is_an_error_that_names_it() {
        let scratch = Scratch::new();
        let error = SourceTree::load("test", &scratch.path().join("gone")).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
        assert!(SourceTree::load("test", scratch.path()).is_err(), "no C file");
    }
}
