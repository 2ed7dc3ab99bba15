//! The crate pjdfstest: hundreds of cases of what POSIX and Linux ask of a file system.

use super::bed::{Bed, CONSISTENCIES, need_user};
use super::{Common, write_json};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use workloads::stop::Stop;

/// The suite's configuration, with the features that it is to test.
const CONFIGURATION: &str = include_str!("../../../suites/pjdfstest.toml");

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The suite's own program
    #[arg(long, value_name = "FILE")]
    tool: PathBuf,
    /// Only under this consistency (default: close-to-open, then strict)
    #[arg(long, value_name = "MODE", value_parser = CONSISTENCIES)]
    only: Option<String>,
    /// Only the cases whose names contain one of these
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
}

#[derive(Serialize)]
struct Figures {
    suite: &'static str,
    replicas: u32,
    replicas_killed: u32,
    /// What the compromised replica does, if there is one.
    attack: Option<String>,
    runs: Vec<Run>,
}

#[derive(Serialize)]
pub struct Run {
    consistency: String,
    cases: usize,
    pub passed: usize,
    failed: usize,
    pub skipped: usize,
    seconds: f64,
    pub failures: Vec<String>,
}

/// Whether every case passed, or was skipped for what is not configured.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let stop = Stop::on_signals().context("cannot wait for signals")?;
    need_user("tests", "the suite acts as this user too")?;
    let mut runs = Vec::new();
    for consistency in CONSISTENCIES {
        if arguments.only.as_deref().is_none_or(|only| only == consistency) {
            runs.push(run_on(arguments, &stop, consistency)?);
        }
    }
    let attack = arguments.common.byzantine.clone();
    let replicas_killed = u32::from(arguments.common.without_spare);
    let figures = Figures { suite: "pjdfstest", replicas: 4, replicas_killed, attack, runs };
    write_json(&arguments.common, &figures)?;
    Ok(figures.runs.iter().all(|run| run.failed == 0 && run.passed > 0))
}

fn run_on(arguments: &Arguments, stop: &Stop, consistency: &str) -> Result<Run> {
    let options = format!("allow_other,default_permissions,dev,suid,{consistency}");
    let mut bed = Bed::new(&arguments.common, stop, &options)?;
    let configuration = bed.mount.with_file_name("pjdfstest.toml");
    fs::write(&configuration, CONFIGURATION)?;
    let place = bed.mount.join("pjdfstest");
    fs::create_dir(&place)?;
    fs::set_permissions(&place, Permissions::from_mode(0o777))?;
    // Its folder must be open to the other users of the suite, and so must the way to it.
    let group_folder = bed.mount.with_file_name("");
    fs::set_permissions(&group_folder, Permissions::from_mode(0o711))?;
    let mut command = Command::new(fs::canonicalize(&arguments.tool)?);
    command.arg("-c").arg(&configuration).arg("-p").arg(&place).args(&arguments.cases);
    command.current_dir("/");
    let start = Instant::now();
    let output = bed.output(&mut command)?;
    let seconds = start.elapsed().as_secs_f64();
    if stop.requested() {
        bail!("stopped");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let run = judge(&text, consistency, seconds);
    if run.cases == 0 {
        bail!("the suite ran nothing: {}{text}", String::from_utf8_lossy(&output.stderr));
    }
    for name in &run.failures {
        println!("{}", passage(&text, name));
    }
    println!(
        "pjdfstest {consistency:<13} {} passed, {} failed, {} skipped of {} in {seconds:.1} s",
        run.passed, run.failed, run.skipped, run.cases
    );
    bed.end()?;
    Ok(run)
}

/// Counts what the suite printed: a line for each case, its name first and its outcome last, and further lines to explain.
pub fn judge(text: &str, consistency: &str, seconds: f64) -> Run {
    let outcome = |line: &str| -> Option<(String, String)> {
        let mut words = line.split_whitespace();
        let (name, outcome) = (words.next()?, words.next()?);
        let is_case = name.contains("::") && words.next().is_none() && !line.starts_with('\t');
        is_case.then(|| (name.to_owned(), outcome.to_owned()))
    };
    let cases: Vec<_> = text.lines().filter_map(outcome).collect();
    let named = |wanted: &str| -> Vec<String> {
        let found = cases.iter().filter(|(_, outcome)| outcome == wanted);
        found.map(|(name, _)| name.clone()).collect()
    };
    let failures = named("FAILED");
    let (passed, skipped) = (named("ok").len(), named("skipped").len());
    Run {
        consistency: consistency.to_owned(),
        cases: passed + skipped + failures.len(),
        passed,
        failed: failures.len(),
        skipped,
        seconds,
        failures,
    }
}

/// What the suite says about the case `name`.
pub fn passage(text: &str, name: &str) -> String {
    let from = text.lines().skip_while(|line| line.split_whitespace().next() != Some(name));
    from.take(2).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
unlink::remove_type::symlink                      ok
unlink::open_file_not_freed                   FAILED
\tcalled `Result::unwrap()` on an `Err` value: ESTALE
Backtrace:
   0: pjdfstest::main::{{closure}}
             at ./csu/../csu/libc-start.c:360:3

unlink::erofs_named                          skipped
\tRemounts (allow_remount) are not allowed in the configuration file
";

    #[test]
    fn outcomes_are_counted_and_explanations_are_not() {
        let run = judge(OUTPUT, "strict", 1.0);
        assert_eq!((run.cases, run.passed, run.failed, run.skipped), (3, 1, 1, 1));
        assert_eq!(run.failures, ["unlink::open_file_not_freed"]);
        assert!(passage(OUTPUT, &run.failures[0]).ends_with("ESTALE"));
    }

    #[test]
    fn a_suite_that_says_nothing_has_run_nothing() {
        assert_eq!(judge("", "strict", 0.0).cases, 0);
    }
}
