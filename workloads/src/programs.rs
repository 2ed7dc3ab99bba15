//! Programs that people use: git, and SQLite.

use crate::stop::Stop;
use crate::timing::{Stopwatch, Timing};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Args, Clone)]
pub struct GitOptions {
    /// The repository that is cloned
    #[arg(long)]
    pub from: PathBuf,
}

#[derive(Args, Clone, Copy)]
pub struct SqliteOptions {
    /// How many rows are inserted, each in a transaction of its own
    #[arg(long, default_value_t = 100)]
    pub transactions: usize,
}

/// Clones a repository into `dir`, empties its work tree, checks it out again, and asks for its state.
///
/// Errors: git fails, or says that files differ.
pub fn git(dir: &Path, options: &GitOptions, stop: &Stop) -> Result<Timing> {
    let mut watch = Stopwatch::new(stop);
    let clone = dir.join("clone");
    let git = |words: &[&str]| said(Command::new("git").arg("-C").arg(dir).args(words));
    let from = format!("file://{}", options.from.display());
    let within = clone.display().to_string();
    let inside = |words: &[&str]| git(&[&["-C", within.as_str()], words].concat());
    watch.time("clone", || git(&["clone", "--quiet", &from, &within]))?;
    inside(&["rm", "-r", "--quiet", "."])?;
    watch.time("checkout", || inside(&["reset", "--quiet", "--hard"]))?;
    let changed = watch.time("status", || inside(&["status", "--porcelain"]))?;
    ensure!(changed.is_empty(), "git sees changes that nobody made:\n{changed}");
    Ok(watch.timing())
}

/// Inserts rows into a database in `dir`: with a rollback journal, and with a write-ahead log. Each is safe before the next.
///
/// Errors: sqlite3 fails, or does not find what was inserted.
pub fn sqlite(dir: &Path, options: SqliteOptions, stop: &Stop) -> Result<Timing> {
    let mut watch = Stopwatch::new(stop);
    for (name, mode) in [("rollback journal", "delete"), ("write-ahead log", "wal")] {
        let database = dir.join(mode);
        let rows = options.transactions;
        let mut script = format!(
            "pragma journal_mode={mode};\npragma synchronous=full;\ncreate table t(n int, text);\n"
        );
        (0..rows)
            .for_each(|n| script += &format!("insert into t values({n}, hex(randomblob(200)));\n"));
        watch.time(name, || answer(&database, &script))?;
        let found = answer(&database, "select count(*) from t; pragma integrity_check;")?;
        ensure!(found == format!("{rows}\nok\n"), "the database holds {found}");
    }
    Ok(watch.timing())
}

fn answer(database: &Path, script: &str) -> Result<String> {
    let mut sqlite = Command::new("sqlite3");
    sqlite.arg("-bail").arg(database).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = sqlite.spawn().context("cannot run sqlite3\n  try: apt-get install sqlite3")?;
    let mut input = child.stdin.take().context("its input is a pipe")?;
    input.write_all(script.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "sqlite3: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot run git\n  try: apt-get install git")?;
    if !output.status.success() {
        bail!("git: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_repository_that_is_not_there_is_said_so() {
        let scratch = Scratch::new();
        let options = GitOptions { from: scratch.path().join("nothing") };
        let error = git(scratch.path(), &options, &Stop::default()).unwrap_err();
        assert!(format!("{error:#}").contains("nothing"), "{error:#}");
    }

    #[test]
    fn rows_are_inserted_and_found() {
        let scratch = Scratch::new();
        let options = SqliteOptions { transactions: 3 };
        let timing = sqlite(scratch.path(), options, &Stop::default()).unwrap();
        assert_eq!(timing.phases.len(), 2);
    }
}
