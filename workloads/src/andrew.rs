//! The Andrew-style benchmark: what a programmer does with a source tree, in five timed phases.
//!
//! Source: Howard et al., "Scale and Performance in a Distributed File System", 1988, section 3; several copies of the tree
//! as in Castro and Liskov's Andrew100 and Andrew500.

use crate::compile::{self, Archive, Unit};
use crate::errors::{ErrorLog, WorkError};
use crate::progress::Progress;
use crate::stop::Stop;
use crate::timing::{PhaseTime, drop_caches};
use crate::tree::SourceTree;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The phases, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Makes every directory of every copy.
    MakeDirectories,
    /// Writes every file of every copy.
    Copy,
    /// Lists every directory and asks for the attributes of every file.
    Stat,
    /// Reads every byte of every file.
    Read,
    /// Compiles every C file and puts each directory's objects into an archive, beside the sources.
    Compile,
}

impl Phase {
    pub const ALL: [Self; 5] =
        [Self::MakeDirectories, Self::Copy, Self::Stat, Self::Read, Self::Compile];

    /// The phase in words, for people and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::MakeDirectories => "make directories",
            Self::Copy => "copy",
            Self::Stat => "stat",
            Self::Read => "read",
            Self::Compile => "compile",
        }
    }
}

/// How much work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many copies of the tree; at least 1.
    pub copies: u32,
    /// How many compilers run at once; at least 1.
    pub jobs: usize,
    /// Whether the kernel forgets what it has cached before the files are looked at, read and compiled. Not timed.
    pub drop_caches: bool,
    /// Whether the last phase is left out.
    pub no_compile: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { copies: 1, jobs: 2, drop_caches: false, no_compile: false }
    }
}

/// How one run went. The field names are a stable interface.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The name of the source tree.
    pub tree: String,
    pub copies: u32,
    /// Files of all copies.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// C files that the compiler turned into objects.
    pub compiled: u64,
    /// C files that were not compiled alone, because others include them.
    pub included_only: u64,
    /// Archives made of the objects.
    pub archives: u64,
    /// Those that were finished.
    pub phases: Vec<PhaseTime>,
    pub total_seconds: f64,
    /// How many operations failed.
    pub errors: u64,
    /// The first of them.
    pub first_errors: Vec<WorkError>,
    /// Whether the work was left because somebody asked to stop.
    pub stopped: bool,
}

/// Runs the five phases in `dir`, which exists and holds no copies yet.
///
/// Effects: leaves the copies, objects and archives there. An operation that fails is noted, and the work goes on; once `stop`
/// is requested, it ends with the operation in progress.
pub fn run(
    tree: &SourceTree,
    dir: &Path,
    options: Options,
    progress: &dyn Progress,
    stop: &Stop,
) -> Report {
    let work = Work { tree, dir, options, progress, stop, errors: ErrorLog::default() };
    let mut phases = Vec::new();
    let mut made = compile::Made::default();
    for phase in Phase::ALL {
        if stop.requested() || (phase == Phase::Compile && options.no_compile) {
            break;
        }
        work.forget_before(phase);
        let items = work.items(phase);
        progress.begin(phase.name(), items);
        let begun = Instant::now();
        match phase {
            Phase::MakeDirectories => work.make_directories(),
            Phase::Copy => work.copy(),
            Phase::Stat => work.stat(),
            Phase::Read => work.read(),
            Phase::Compile => made = work.compile(),
        }
        let time = begun.elapsed();
        if stop.requested() {
            break;
        }
        progress.end(phase.name(), items, time);
        phases.push(PhaseTime { name: phase.name(), seconds: time.as_secs_f64() });
    }
    work.report(phases, made)
}

struct Work<'a> {
    tree: &'a SourceTree,
    dir: &'a Path,
    options: Options,
    progress: &'a dyn Progress,
    stop: &'a Stop,
    errors: ErrorLog,
}

impl Work<'_> {
    /// Has the kernel forget what the phases before have left in its caches, if that is asked for.
    fn forget_before(&self, phase: Phase) {
        if !self.options.drop_caches || matches!(phase, Phase::MakeDirectories | Phase::Copy) {
            return;
        }
        if let Err(error) = drop_caches() {
            self.errors.wrong(phase.name(), self.dir, format!("{error:#}"));
        }
        // The compiler's own files lie elsewhere, and were forgotten with the others.
        if phase == Phase::Compile
            && let Err(error) = compile::warm_up()
        {
            self.errors.wrong(phase.name(), self.dir, format!("{error:#}"));
        }
    }

    fn items(&self, phase: Phase) -> u64 {
        let directories = self.tree.directories().len();
        let one_copy = match phase {
            Phase::MakeDirectories => directories + 1,
            Phase::Copy | Phase::Stat | Phase::Read => self.tree.files().len(),
            Phase::Compile => self.tree.units().count() + directories,
        };
        one_copy as u64 * u64::from(self.options.copies)
    }

    /// The tops of all copies.
    fn tops(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.options.copies).map(|copy| SourceTree::copy_in(self.dir, copy))
    }

    /// The result of `operation` on `path`; nothing if it fails, which is noted, or somebody asked to stop.
    fn attempt<T>(
        &self,
        phase: Phase,
        path: &Path,
        operation: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Option<T> {
        if self.stop.requested() {
            return None;
        }
        operation(path).map_err(|error| self.errors.io(phase.name(), path, &error)).ok()
    }

    fn make_directories(&self) {
        for top in self.tops() {
            let below = self.tree.directories().iter().map(|directory| top.join(directory));
            for directory in std::iter::once(top.clone()).chain(below) {
                self.attempt(Phase::MakeDirectories, &directory, |path| fs::create_dir(path));
                self.progress.advance(Phase::MakeDirectories.name());
            }
        }
    }

    fn copy(&self) {
        for top in self.tops() {
            for file in self.tree.files() {
                let path = top.join(&file.path);
                self.attempt(Phase::Copy, &path, |path| fs::write(path, &file.contents));
                self.progress.advance(Phase::Copy.name());
            }
        }
    }

    fn stat(&self) {
        for top in self.tops() {
            let directories = self.tree.directories().iter().map(|directory| top.join(directory));
            let bytes: u64 = directories.map(|directory| self.stat_directory(&directory)).sum();
            if bytes != self.tree.bytes() && !self.stop.requested() {
                let message =
                    format!("{bytes} bytes in its files instead of {}", self.tree.bytes());
                self.errors.wrong(Phase::Stat.name(), &top, message);
            }
        }
    }

    /// The size of all files that the directory lists.
    fn stat_directory(&self, directory: &Path) -> u64 {
        let mut bytes = 0;
        let Some(entries) = self.attempt(Phase::Stat, directory, |path| fs::read_dir(path)) else {
            return bytes;
        };
        for entry in entries {
            let attributes = |_: &Path| fs::symlink_metadata(entry?.path());
            bytes += self.attempt(Phase::Stat, directory, attributes).map_or(0, |file| file.len());
            self.progress.advance(Phase::Stat.name());
        }
        bytes
    }

    fn read(&self) {
        for top in self.tops() {
            for file in self.tree.files() {
                let path = top.join(&file.path);
                let bytes = self.attempt(Phase::Read, &path, count_bytes);
                if bytes.is_some_and(|bytes| bytes != file.contents.len()) {
                    let message =
                        format!("{} bytes instead of {}", bytes.unwrap_or(0), file.contents.len());
                    self.errors.wrong(Phase::Read.name(), &path, message);
                }
                self.progress.advance(Phase::Read.name());
            }
        }
    }

    fn compile(&self) -> compile::Made {
        let mut units = Vec::new();
        let mut archives = Vec::new();
        for top in self.tops() {
            let compiled = self.tree.units().map(|file| Unit::new(top.join(&file.path)));
            let first = units.len();
            units.extend(compiled);
            archives.extend(
                self.tree
                    .directories()
                    .iter()
                    .map(|directory| Archive::new(&top.join(directory), &units[first..])),
            );
        }
        let advance = || self.progress.advance(Phase::Compile.name());
        compile::make(&units, &archives, self.options.jobs, &self.errors, &advance, self.stop)
    }

    fn report(self, phases: Vec<PhaseTime>, made: compile::Made) -> Report {
        let copies = u64::from(self.options.copies);
        Report {
            tree: self.tree.name().into(),
            copies: self.options.copies,
            files: self.tree.files().len() as u64 * copies,
            bytes: self.tree.bytes() * copies,
            compiled: made.objects,
            included_only: self.tree.included_only() as u64 * copies,
            archives: made.archives,
            total_seconds: phases.iter().map(|phase| phase.seconds).sum(),
            phases,
            errors: self.errors.count(),
            first_errors: self.errors.first(),
            stopped: self.stop.requested(),
        }
    }
}

/// Reads the file to its end, as `cat` would.
fn count_bytes(path: &Path) -> io::Result<usize> {
    let mut file = File::open(path)?;
    let mut buffer = [0; 65_536];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes),
            read => bytes += read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::scratch::Scratch;
    use crate::verify::verify;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    fn run_in(
        dir: &Path,
        options: Options,
        progress: &dyn Progress,
        stop: &Stop,
    ) -> (SourceTree, Report) {
        let tree = SourceTree::lua().unwrap();
        let report = run(&tree, dir, options, progress, stop);
        (tree, report)
    }

    #[test]
    fn the_five_phases_leave_sources_objects_and_archives() {
        let scratch = Scratch::new();
        let (tree, report) = run_in(scratch.path(), Options::default(), &Silent, &Stop::default());
        assert_eq!((report.errors, report.first_errors.as_slice()), (0, &[][..]));
        assert_eq!(report.compiled, tree.units().count() as u64);
        assert!(report.compiled >= 60 && report.archives == 5 && !report.stopped);
        assert_eq!(
            report.phases.iter().map(|phase| phase.name).collect::<Vec<_>>(),
            Phase::ALL.map(Phase::name)
        );
        assert!(report.phases.iter().all(|phase| phase.seconds > 0.0));
        let top = SourceTree::copy_in(scratch.path(), 0);
        for directory in tree.directories() {
            assert!(fs::metadata(top.join(directory).join("liblua.a")).unwrap().len() > 100_000);
            assert!(top.join(directory).join("lapi.o").exists());
        }
        let checked = verify(&tree, scratch.path(), 1, &Silent, &Stop::default());
        assert!(checked.all_match() && checked.matching == tree.files().len() as u64);
    }

    #[test]
    fn what_fails_is_counted_with_its_path_and_number_and_the_work_goes_on() {
        let scratch = Scratch::new();
        let in_the_way = SourceTree::copy_in(scratch.path(), 0);
        fs::write(&in_the_way, "a file where a directory should be").unwrap();
        let (tree, report) = run_in(scratch.path(), Options::default(), &Silent, &Stop::default());
        assert_eq!((report.phases.len(), report.compiled), (5, 0));
        let (directories, files) = (tree.directories().len(), tree.files().len());
        let units = tree.units().count();
        let failed = [1 + directories, files, directories + 1, files, units + directories];
        assert_eq!(report.errors, failed.iter().sum::<usize>() as u64);
        let first = &report.first_errors[0];
        assert_eq!((first.during.as_str(), &first.path), ("make directories", &in_the_way));
        assert_eq!(first.errno, Some(nix::errno::Errno::EEXIST as i32));
    }

    /// Asks to stop, or does other mischief, when a phase has got so far.
    struct At<F: Fn() + Sync>(Phase, u64, AtomicU64, F);

    impl<F: Fn() + Sync> Progress for At<F> {
        fn advance(&self, what: &'static str) {
            let At(phase, items, done, act) = self;
            if what == phase.name() && done.fetch_add(1, Ordering::Relaxed) + 1 == *items {
                act();
            }
        }
    }

    #[test]
    fn a_stop_ends_the_work_and_its_compilers() {
        let scratch = Scratch::new();
        let stop = Stop::default();
        let at = At(Phase::Compile, 10, AtomicU64::new(0), || {
            let stop = stop.clone();
            // Not in step with the end of a compiler.
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(30));
                stop.request();
            });
        });
        let options = Options { copies: 3, ..Options::default() };
        let (tree, report) = run_in(scratch.path(), options, &at, &stop);
        assert!(report.stopped && report.phases.len() == 4);
        assert!(report.compiled < tree.units().count() as u64, "{}", report.compiled);
        assert_eq!(report.errors, 0, "a killed compiler is no error: {:?}", report.first_errors);
        assert_eq!(processes_about(scratch.path()), Vec::<String>::new());
    }

    /// The command lines of running processes that name the folder.
    fn processes_about(folder: &Path) -> Vec<String> {
        let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
            let line = fs::read(process.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " "))
        });
        lines.filter(|line| line.contains(folder.to_str().unwrap())).collect()
    }

    #[test]
    fn a_stop_before_the_start_touches_nothing() {
        let scratch = Scratch::new();
        let stop = Stop::default();
        stop.request();
        let (_, report) = run_in(scratch.path(), Options::default(), &Silent, &stop);
        assert!(report.stopped && report.phases.is_empty());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_shrinks_or_does_not_compile_is_an_error() {
        let scratch = Scratch::new();
        let file = SourceTree::copy_in(scratch.path(), 0).join("lua-5.1.5/lapi.c");
        let files = SourceTree::lua().unwrap().files().len() as u64;
        let at = At(Phase::Copy, files, AtomicU64::new(0), || fs::write(&file, "not C").unwrap());
        let (tree, report) = run_in(scratch.path(), Options::default(), &at, &Stop::default());
        let during: Vec<_> =
            report.first_errors.iter().map(|error| error.during.as_str()).collect();
        assert_eq!(during[..3], ["stat", "read", "compile"], "{:?}", report.first_errors);
        assert_eq!(report.compiled, tree.units().count() as u64 - 1);
    }

    #[test]
    fn the_report_keeps_its_field_names() {
        let scratch = Scratch::new();
        let stop = Stop::default();
        stop.request();
        let (_, report) = run_in(scratch.path(), Options::default(), &Silent, &stop);
        let json = serde_json::to_value(&report).unwrap();
        for number in ["copies", "files", "bytes", "compiled", "archives", "errors"] {
            assert!(json[number].is_u64(), "{number} in {json}");
        }
        assert!(json["phases"].is_array() && json["first_errors"].is_array());
        assert!(
            json["total_seconds"].is_f64() && json["tree"].is_string() && json["stopped"] == true
        );
    }
}
