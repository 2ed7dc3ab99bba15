//! Whether what is read back is what was written.

use crate::errors::{ErrorLog, WorkError};
use crate::progress::Progress;
use crate::stop::Stop;
use crate::tree::{SourceFile, SourceTree};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Instant;

/// What the comparison with the source tree found.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// How many files there should be.
    pub files: u64,
    /// How many of them are there with the BLAKE3 digest of their source.
    pub matching: u64,
    /// How many differ, are missing or cannot be read.
    pub errors: u64,
    /// The first of them.
    pub first_errors: Vec<WorkError>,
}

impl Verification {
    /// Whether every file is what it should be.
    pub fn all_match(&self) -> bool {
        self.matching == self.files && self.errors == 0
    }
}

/// Reads `copies` copies of the tree in `dir` and compares each file's BLAKE3 digest with its source's.
///
/// Requires: to say something about the file system and not about the page cache, `dir` was unmounted and mounted again
/// since it was written.
pub fn verify(
    tree: &SourceTree,
    dir: &Path,
    copies: u32,
    progress: &dyn Progress,
    stop: &Stop,
) -> Verification {
    const WHAT: &str = "verify";
    let files = tree.files().len() as u64 * u64::from(copies);
    let errors = ErrorLog::default();
    let begun = Instant::now();
    let mut matching = 0;
    progress.begin(WHAT, files);
    let each = (0..copies).flat_map(|copy| {
        let top = SourceTree::copy_in(dir, copy);
        tree.files().iter().map(move |file| (top.join(&file.path), file))
    });
    for (path, file) in each.take_while(|_| !stop.requested()) {
        match is_same(&path, file) {
            Ok(true) => matching += 1,
            Ok(false) => errors.wrong(WHAT, &path, "its digest differs from its source's"),
            Err(error) => errors.io(WHAT, &path, &error),
        }
        progress.advance(WHAT);
    }
    if !stop.requested() {
        progress.end(WHAT, matching, begun.elapsed());
    }
    Verification { files, matching, errors: errors.count(), first_errors: errors.first() }
}

fn is_same(path: &Path, file: &SourceFile) -> io::Result<bool> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize() == file.digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::scratch::Scratch;
    use std::fs;

    /// Two copies of the tree, written without the benchmark.
    fn written(tree: &SourceTree, scratch: &Scratch) {
        for copy in 0..2 {
            for file in tree.files() {
                let path = SourceTree::copy_in(scratch.path(), copy).join(&file.path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, &file.contents).unwrap();
            }
        }
    }

    #[test]
    fn a_flipped_byte_a_missing_file_and_a_truncated_one_are_found() {
        let scratch = Scratch::new();
        let tree = SourceTree::lua().unwrap();
        written(&tree, &scratch);
        let check = || verify(&tree, scratch.path(), 2, &Silent, &Stop::default());
        assert!(check().all_match());

        let last = SourceTree::copy_in(scratch.path(), 1).join("lua-5.5.1");
        let mut contents = fs::read(last.join("lvm.c")).unwrap();
        contents[100] ^= 1;
        fs::write(last.join("lvm.c"), &contents).unwrap();
        fs::remove_file(last.join("lua.h")).unwrap();
        let short = fs::OpenOptions::new().write(true).open(last.join("lgc.c")).unwrap();
        short.set_len(1000).unwrap();

        let found = check();
        assert!(!found.all_match());
        assert_eq!((found.errors, found.matching), (3, found.files - 3));
        let about = |name: &str| {
            found.first_errors.iter().find(|error| error.path == last.join(name)).unwrap()
        };
        assert!(about("lvm.c").message.contains("digest"));
        assert!(about("lgc.c").message.contains("digest"));
        assert_eq!(about("lua.h").errno, Some(nix::errno::Errno::ENOENT as i32));
    }

    #[test]
    fn a_check_that_was_stopped_does_not_say_that_all_match() {
        let scratch = Scratch::new();
        let tree = SourceTree::lua().unwrap();
        written(&tree, &scratch);
        let stop = Stop::default();
        stop.request();
        assert!(!verify(&tree, scratch.path(), 2, &Silent, &stop).all_match());
    }
}
