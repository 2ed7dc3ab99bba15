//! Real programs at work on the mount, each of which checks what it did.

use super::bed::{Bed, CONSISTENCIES};
use super::{Common, write_json};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use workloads::stop::Stop;

/// A function for each program.
const SCRIPT: &str = include_str!("../../../suites/programs.sh");
/// Makes the repository that they work on: this project's own, with all that it has been through if that is known.
const REPOSITORY: &str = r#"set -eu
[ -x "$PROJECT/x" ] || { echo "$PROJECT is not the project's folder: start it there" >&2; exit 1; }
if git -C "$PROJECT" rev-parse --git-dir > /dev/null 2>&1; then
    git clone --quiet --no-hardlinks "$PROJECT" "$SCRATCH/repository"
else
    mkdir "$SCRATCH/repository"
    tar --create --exclude=./target --exclude=./.git --directory "$PROJECT" . |
        tar --extract --no-same-owner --directory "$SCRATCH/repository"
    cd "$SCRATCH/repository"
    git init --quiet && git add . && git -c user.name=x -c user.email=x@y commit --quiet --message all
fi
"#;
/// Makes a real tree, and the names of the many files.
const TREE: &str = r#"
mkdir "$SCRATCH/tree"
tar --create --directory /usr/include . | tar --extract --directory "$SCRATCH/tree"
ln "$SCRATCH/tree/stdio.h" "$SCRATCH/tree/another name"
ln -s stdio.h "$SCRATCH/tree/a link"
truncate --size 10M "$SCRATCH/tree/sparse"
seq -f %06g 1 100000 > "$SCRATCH/names"
"#;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Only under this consistency (default: close-to-open, then strict)
    #[arg(long, value_name = "MODE", value_parser = CONSISTENCIES)]
    only: Option<String>,
    /// Only the programs whose names contain one of these
    #[arg(value_name = "PROGRAM")]
    programs: Vec<String>,
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
struct Run {
    consistency: String,
    programs: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    program: String,
    passed: bool,
    seconds: f64,
}

/// The functions of the script that are programs: those without an argument.
fn programs() -> impl Iterator<Item = &'static str> {
    SCRIPT.lines().filter_map(|line| {
        let (name, rest) = line.split_once("() {")?;
        (!rest.contains('#')).then_some(name)
    })
}

/// Makes this project's repository, to be cloned, in `folder`/repository.
pub fn make_repository(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut script = Command::new("bash");
    script.args(["-c", REPOSITORY]).env("PROJECT", std::env::current_dir()?);
    let output = script.env("SCRATCH", folder).output().context("cannot run bash")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot make a repository to clone: {said}");
    Ok(())
}

/// Whether every program found all as it should be.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let stop = Stop::on_signals().context("cannot wait for signals")?;
    let mut runs = Vec::new();
    for consistency in CONSISTENCIES {
        if arguments.only.as_deref().is_none_or(|only| only == consistency) {
            runs.push(run_on(arguments, &stop, consistency)?);
        }
    }
    let attack = arguments.common.byzantine.clone();
    let replicas_killed = u32::from(arguments.common.without_spare);
    let figures = Figures { suite: "programs", replicas: 4, replicas_killed, attack, runs };
    write_json(&arguments.common, &figures)?;
    let all = || figures.runs.iter().flat_map(|run| &run.programs);
    Ok(all().count() > 0 && all().all(|outcome| outcome.passed))
}

fn run_on(arguments: &Arguments, stop: &Stop, consistency: &str) -> Result<Run> {
    let mut bed = Bed::new(&arguments.common, stop, &format!("{consistency},suid,dev"))?;
    let scratch = bed.mount.with_file_name("scratch");
    fs::create_dir(&scratch)?;
    let project = std::env::current_dir()?;
    let shell = |script: &str, name: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", script, "programs", name]).current_dir("/");
        command.env("PROJECT", &project).env("SCRATCH", &scratch).env("MOUNT", &bed.mount);
        command
    };
    let prepare = shell(&format!("{REPOSITORY}{TREE}"), "");
    let script = format!("cd \"$MOUNT\"\n{SCRIPT}");
    let commands: Vec<_> = programs().map(|name| (name, shell(&script, name))).collect();
    must(&mut bed, prepare)?;
    let mut outcomes = Vec::new();
    for (name, mut command) in commands {
        let wanted = |part: &String| name.contains(part.as_str());
        if !arguments.programs.is_empty() && !arguments.programs.iter().any(wanted) {
            continue;
        }
        let start = Instant::now();
        let output = bed.output(&mut command)?;
        let seconds = start.elapsed().as_secs_f64();
        if stop.requested() {
            bail!("stopped");
        }
        let passed = output.status.success();
        let verdict = if passed { "ok" } else { "FAILED" };
        println!("programs {consistency:<13} {name:<42} {verdict:<6} {seconds:6.1} s");
        if !passed {
            println!("{}{}", text(&output.stdout), text(&output.stderr));
        }
        outcomes.push(Outcome { program: name.to_owned(), passed, seconds });
    }
    bed.end()?;
    Ok(Run { consistency: consistency.to_owned(), programs: outcomes })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn must(bed: &mut Bed, mut command: Command) -> Result<()> {
    let output = bed.output(&mut command)?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "cannot prepare what the programs need below {}: {}",
        Path::new("scratch").display(),
        text(&output.stderr)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_a_function_of_the_script() {
        let names: Vec<_> = programs().collect();
        assert_eq!(names.len(), 9, "{names:?}");
        assert!(names.contains(&"fio_verifies") && !names.contains(&"sqlite_two_processes"));
    }
}
