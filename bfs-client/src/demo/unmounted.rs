//! The work where nothing can be mounted: the built-in client copies the source tree, reads the copy and compares it, and
//! takes the one before away. Programs need a mount: no compiler, no git and no database runs.

use super::load::{Checked, Load, Tally, Worked};
use super::place::Place;
use super::store::Store;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use workloads::errors::ErrorLog;
use workloads::progress::Progress;
use workloads::stop::Stop;
use workloads::timing::PhaseTime;
use workloads::tree::{SourceFile, SourceTree};
use workloads::verify::Verification;

/// What is said of programs that did not run.
pub const SKIPPED: &str = "skipped: nothing is mounted";
/// How many files are read again and again.
const KNOWN: usize = 12;
/// The pause between two rounds of reading them.
const PAUSE: Duration = Duration::from_millis(5);

/// The work, shared by its threads and by who attacks meanwhile.
pub struct BuiltIn<'a> {
    tree: &'a SourceTree,
    copies: u32,
    tally: Tally<'a>,
}

/// The store of a place that has one.
fn store(place: &Place) -> &Arc<Store> {
    match place {
        Place::Session(store) => store,
        Place::Mount(_) => unreachable!("this work is chosen where nothing is mounted"),
    }
}

fn known_path(i: usize) -> PathBuf {
    PathBuf::from("known").join(i.to_string())
}

impl<'a> BuiltIn<'a> {
    /// Writes the files that are read all the time.
    ///
    /// Errors: the group does not take them.
    pub fn begin(
        tree: &'a SourceTree,
        copies: u32,
        place: &Place,
        stop: &'a Stop,
    ) -> io::Result<Self> {
        let work = Self { tree, copies, tally: Tally::new(stop) };
        store(place).make_directory(Path::new("known"))?;
        for (i, file) in work.known() {
            store(place).write(&known_path(i), &file.contents)?;
        }
        Ok(work)
    }

    fn known(&self) -> impl Iterator<Item = (usize, &'a SourceFile)> {
        self.tree.files().iter().step_by(7).take(KNOWN).enumerate()
    }

    fn read_until_over(&self, store: &Store) {
        while self.tally.goes_on() {
            for (i, file) in self.known() {
                let path = known_path(i);
                self.tally.compare(&path, store.read(&path), &file.contents);
            }
            self.tally.stop().sleep(PAUSE);
        }
    }

    fn copy_until_over(&self, store: &Store) -> Worked {
        let mut worked = Worked::default();
        loop {
            let dir = PathBuf::from(format!("tree{}", worked.runs));
            let Some(phases) = self.copy_and_read(store, &dir) else { return worked };
            worked.runs += 1;
            worked.files += self.files(&dir).count() as u64;
            worked.bytes += self.tree.bytes() * u64::from(self.copies);
            worked.phases = phases;
            let before = std::mem::replace(&mut worked.last, dir);
            if !self.tally.goes_on() {
                return worked;
            }
            if worked.runs > 1
                && let Err((path, error)) = self.take_away(store, &before)
            {
                self.tally.failed("remove", &path, &error);
            }
        }
    }

    /// The phases of one run in `dir`; nothing if it was cut short.
    fn copy_and_read(&self, store: &Store, dir: &Path) -> Option<Vec<PhaseTime>> {
        let mut phases = Vec::new();
        let mut phase = |name, work: &dyn Fn()| {
            let begun = Instant::now();
            work();
            phases.push(PhaseTime { name, seconds: begun.elapsed().as_secs_f64() });
        };
        phase("make", &|| {
            for path in self.directories(dir).take_while(|_| !self.stopped()) {
                self.note("make", &path, store.make_directory(&path));
            }
        });
        phase("copy", &|| {
            for (path, file) in self.files(dir).take_while(|_| !self.stopped()) {
                self.note("copy", &path, store.write(&path, &file.contents));
            }
        });
        phase("stat", &|| {
            for (path, file) in self.files(dir).take_while(|_| !self.stopped()) {
                let found = store.attributes(&path).and_then(|found| match found.size {
                    size if size == file.contents.len() as u64 => Ok(()),
                    size => Err(io::Error::other(format!("its size is {size}"))),
                });
                self.note("stat", &path, found);
            }
        });
        phase("read", &|| {
            for (path, file) in self.files(dir).take_while(|_| !self.stopped()) {
                self.tally.compare(&path, store.read(&path), &file.contents);
            }
        });
        (!self.stopped()).then_some(phases)
    }

    /// Removes a copy, the innermost first.
    fn take_away(&self, store: &Store, dir: &Path) -> Result<(), (PathBuf, io::Error)> {
        for (path, _) in self.files(dir) {
            store.remove(&path).map_err(|error| (path, error))?;
        }
        let directories: Vec<_> = self.directories(dir).collect();
        for path in directories.into_iter().rev() {
            store.remove_directory(&path).map_err(|error| (path, error))?;
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.tally.stop().requested()
    }

    fn note(&self, during: &str, path: &Path, done: io::Result<()>) {
        if let Err(error) = done {
            self.tally.failed(during, path, &error);
        }
    }

    /// Every directory of the copies in `dir`, each after the one that it is in.
    fn directories(&self, dir: &Path) -> impl Iterator<Item = PathBuf> {
        let tops = (0..self.copies).map(|copy| SourceTree::copy_in(dir, copy));
        let each = tops.flat_map(|top| {
            let inner: Vec<_> = self.tree.directories().iter().map(|path| top.join(path)).collect();
            std::iter::once(top).chain(inner)
        });
        std::iter::once(dir.to_owned()).chain(each)
    }

    /// Every file of the copies in `dir`.
    fn files(&self, dir: &Path) -> impl Iterator<Item = (PathBuf, &'a SourceFile)> {
        let tops = (0..self.copies).map(|copy| SourceTree::copy_in(dir, copy));
        tops.flat_map(|top| self.tree.files().iter().map(move |file| (top.join(&file.path), file)))
    }
}

impl Load for BuiltIn<'_> {
    fn about(&self) -> String {
        format!(
            "all the time: {} files copied, looked up and read; no compiler, git or SQLite, which need a mount",
            self.tree.files().len() * self.copies as usize
        )
    }

    fn run(&self, place: &Place) -> Worked {
        let store = store(place);
        std::thread::scope(|scope| {
            scope.spawn(|| self.read_until_over(store));
            self.copy_until_over(store)
        })
    }

    fn finish(&self) {
        self.tally.finish();
    }

    fn tally(&self) -> &Tally<'_> {
        &self.tally
    }

    fn check(&self, place: &Place, worked: &Worked, progress: &dyn Progress) -> Checked {
        const WHAT: &str = "verify";
        let (store, errors) = (store(place), ErrorLog::default());
        let files = self.files(&worked.last).count() as u64;
        let (begun, mut matching) = (Instant::now(), 0);
        progress.begin(WHAT, files);
        for (path, file) in self.files(&worked.last).take_while(|_| !self.stopped()) {
            match store.read(&path) {
                Ok(found) if blake3::hash(&found) == file.digest => matching += 1,
                Ok(_) => errors.wrong(WHAT, &path, "its digest differs from its source's"),
                Err(error) => errors.io(WHAT, &path, &error),
            }
            progress.advance(WHAT);
        }
        if !self.stopped() {
            progress.end(WHAT, matching, begun.elapsed());
        }
        let (count, first_errors) = (errors.count(), errors.first());
        let verified = Verification { files, matching, errors: count, first_errors };
        Checked { verified, git_fsck: SKIPPED.into(), sqlite: SKIPPED.into() }
    }
}
