//! What programs do in the mount while it is attacked: a source tree is compiled, a git repository grows, a database too, and
//! known files are read and compared. Each goes on until it is told that the attacks are over.

use super::load::{Checked, Load, Tally, Worked};
use super::place::Place;
use crate::failure::{Failure, Outcome};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use workloads::andrew::{self, Options};
use workloads::progress::{Progress, Silent};
use workloads::stop::Stop;
use workloads::tree::{SourceFile, SourceTree};
use workloads::verify::verify;

/// How many files are read again and again.
const KNOWN: usize = 12;
/// How many rows one transaction adds.
const ROWS: u64 = 20;

/// The work, shared by its threads and by who attacks meanwhile.
pub struct Work<'a> {
    tree: &'a SourceTree,
    dir: PathBuf,
    copies: u32,
    tally: Tally<'a>,
    /// Whether the tree was compiled once: from then on a run may be cut short.
    compiled: AtomicBool,
    halt: Stop,
}

/// Whether the two programs are there that the work needs besides a compiler.
pub fn check_tools() -> Outcome {
    for (program, package) in [("git", "git"), ("sqlite3", "sqlite3")] {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            let what = format!("cannot find {program}");
            return Err(Failure::new(what, "the demo works with it in the mount")
                .advise(format!("apt-get install {package}")));
        }
    }
    Ok(())
}

impl<'a> Work<'a> {
    /// Work in the folder `dir` of a mount, which is made, with what it needs.
    pub fn begin(
        tree: &'a SourceTree,
        dir: PathBuf,
        copies: u32,
        stop: &'a Stop,
    ) -> io::Result<Self> {
        let work = Self {
            tree,
            dir,
            copies,
            tally: Tally::new(stop),
            compiled: AtomicBool::new(false),
            halt: Stop::default(),
        };
        fs::create_dir(&work.dir)?;
        fs::create_dir(work.dir.join("known"))?;
        for (i, file) in work.known() {
            fs::write(work.known_path(i), &file.contents)?;
        }
        fs::create_dir(work.repository())?;
        work.git(&["init", "-q", "-b", "main"])?;
        work.sql("CREATE TABLE ledger (id INTEGER PRIMARY KEY, amount INTEGER, note TEXT);")?;
        Ok(work)
    }

    fn compile_until_over(&self) -> Worked {
        let mut worked = Worked::default();
        loop {
            let dir = self.dir.join(format!("tree{}", worked.runs));
            if let Err(error) = fs::create_dir(&dir) {
                self.tally.errors.io("compile", &dir, &error);
                return worked;
            }
            let options = Options { copies: self.copies, ..Options::default() };
            let report = andrew::run(self.tree, &dir, options, &Silent, &self.halt);
            report.first_errors.iter().for_each(|error| {
                self.tally.errors.wrong(&error.during, &error.path, error.message.clone());
            });
            if report.stopped {
                return worked;
            }
            worked.runs += 1;
            worked.files += report.files;
            worked.bytes += report.bytes;
            worked.compiled += report.compiled;
            worked.phases = report.phases;
            let before = std::mem::replace(&mut worked.last, dir);
            self.compiled.store(true, Ordering::SeqCst);
            if !self.tally.goes_on() {
                return worked;
            }
            if worked.runs > 1
                && let Err(error) = fs::remove_dir_all(&before)
            {
                self.tally.errors.io("remove", &before, &error);
            }
        }
    }

    fn commit_until_over(&self) -> u64 {
        let mut commits = 0;
        let files: Vec<_> = self.tree.files().iter().take(100).collect();
        while self.tally.goes_on() {
            let file = files[commits as usize % files.len()];
            let path = self.repository().join(format!("file{}", commits % 10));
            let done = fs::write(&path, &file.contents)
                .and_then(|()| self.git(&["add", "-A"]))
                .and_then(|()| self.git(&["commit", "-q", "-m", &format!("number {commits}")]));
            match done {
                Ok(()) => commits += 1,
                Err(error) => self.tally.failed("git", &path, &error),
            }
        }
        commits
    }

    fn insert_until_over(&self) -> u64 {
        let mut rows = 0;
        while self.tally.goes_on() {
            let values: Vec<_> =
                (rows..rows + ROWS).map(|id| format!("({id}, {}, 'row {id}')", id * 3)).collect();
            match self.sql(&format!("INSERT INTO ledger VALUES {};", values.join(", "))) {
                Ok(_) => rows += ROWS,
                Err(error) => self.tally.failed("sqlite", &self.database(), &error),
            }
        }
        rows
    }

    fn read_until_over(&self) {
        while self.tally.goes_on() {
            for (i, file) in self.known() {
                let path = self.known_path(i);
                self.tally.compare(&path, fs::read(&path), &file.contents);
            }
            self.tally.stop().sleep(std::time::Duration::from_millis(5));
        }
        if self.tally.stop().requested() {
            self.halt.request();
        }
    }

    /// What git says of its repository in `dir`, and whether it holds as many commits as were acknowledged: "ok", or what is wrong.
    fn check_git(&self, commits: u64) -> String {
        let counted = self.git(&["fsck", "--full", "--strict"]).and_then(|()| {
            let output = self.git_command(&["rev-list", "--count", "HEAD"]).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        });
        match counted {
            Ok(count) if count == commits.to_string() => "ok".into(),
            Ok(count) => format!("{count} commits, {commits} were acknowledged"),
            Err(error) => error.to_string(),
        }
    }

    /// What SQLite says of its database, and whether it holds what was acknowledged: "ok", or what is wrong.
    fn check_sqlite(&self, rows: u64) -> String {
        let sum = 3 * rows * rows.saturating_sub(1) / 2;
        let query =
            "PRAGMA integrity_check; SELECT count(*), coalesce(sum(amount), 0) FROM ledger;";
        match self.sql(query) {
            Ok(said) if said == format!("ok\n{rows}|{sum}") => "ok".into(),
            Ok(said) => format!("{said:?}, {rows} rows were acknowledged"),
            Err(error) => error.to_string(),
        }
    }

    fn known(&self) -> impl Iterator<Item = (usize, &SourceFile)> {
        self.tree.files().iter().step_by(7).take(KNOWN).enumerate()
    }

    fn known_path(&self, i: usize) -> PathBuf {
        self.dir.join("known").join(format!("{i}.c"))
    }

    fn repository(&self) -> PathBuf {
        self.dir.join("repository")
    }

    fn database(&self) -> PathBuf {
        self.dir.join("ledger.db")
    }

    fn git_command(&self, args: &[&str]) -> Command {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.repository());
        // The user's own settings are not part of the demo, and nothing may run on after it.
        for setting in ["user.name=demo", "user.email=demo@localhost", "gc.auto=0"] {
            git.args(["-c", setting]);
        }
        git.args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(name);
        }
        git.stdin(Stdio::null());
        git
    }

    fn git(&self, args: &[&str]) -> io::Result<()> {
        succeed(self.git_command(args), b"").map(drop)
    }

    fn sql(&self, statements: &str) -> io::Result<String> {
        let mut sqlite = Command::new("sqlite3");
        sqlite.args(["-batch", "-bail", "-init", "/dev/null"]).arg(self.database());
        let said = succeed(sqlite, statements.as_bytes())?;
        Ok(said.trim().to_owned())
    }
}

impl Load for Work<'_> {
    fn about(&self) -> String {
        format!(
            "all the time: {} files copied, read and compiled, a git repository, an SQLite database",
            self.tree.files().len() * self.copies as usize
        )
    }

    fn run(&self, _: &Place) -> Worked {
        std::thread::scope(|scope| {
            let git = scope.spawn(|| self.commit_until_over());
            let sql = scope.spawn(|| self.insert_until_over());
            scope.spawn(|| self.read_until_over());
            let mut worked = self.compile_until_over();
            worked.commits = git.join().unwrap_or_default();
            worked.rows = sql.join().unwrap_or_default();
            worked
        })
    }

    /// The compiler too ends, once it has made everything once.
    fn finish(&self) {
        self.tally.finish();
        if self.compiled.load(Ordering::SeqCst) {
            self.halt.request();
        }
    }

    fn tally(&self) -> &Tally<'_> {
        &self.tally
    }

    fn check(&self, _: &Place, worked: &Worked, progress: &dyn Progress) -> Checked {
        Checked {
            verified: verify(self.tree, &worked.last, self.copies, progress, self.tally.stop()),
            git_fsck: self.check_git(worked.commits),
            sqlite: self.check_sqlite(worked.rows),
        }
    }
}

/// Runs a command that must succeed, with `input`; returns what it says.
fn succeed(mut command: Command, input: &[u8]) -> io::Result<String> {
    use std::os::unix::process::CommandExt;
    // A Ctrl-C at the terminal is this process's to handle.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other(first_line(&output.stderr))),
    }
}

fn first_line(said: &[u8]) -> String {
    String::from_utf8_lossy(said).lines().next().unwrap_or("it failed without a word").to_owned()
}

/// The folder of the work, and beside it that of the watcher.
pub fn dir(mount: &Path) -> PathBuf {
    mount.join("work")
}
