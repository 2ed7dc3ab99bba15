//! The Linux kernel's own NFSv3 client, and the tools of libnfs, on a group of four replicas: real work, real suites, and
//! parts of the service that die.

mod checks;
mod libnfs;
mod scale;
mod stage;

use self::checks::{CHECKS, Check, Outcome, Verdict};
use self::scale::{FULL, QUICK};
use self::stage::Stage;
use super::nfs::guest::Who;
use super::nfs::network;
use super::nfs::target::{self, TARGETS};
use super::write_figures;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use workloads::stop::Stop;

#[derive(Args)]
pub struct Arguments {
    /// The folder with the suites' own programs, pjdfstest and fsx
    #[arg(long, value_name = "FOLDER", required_unless_present = "quick")]
    tools: Option<PathBuf>,
    /// Less of everything, in a few minutes and without the suites of others: what ./x test runs. Where this machine gives no
    /// right to it, it is not run, and says so
    #[arg(long)]
    quick: bool,
    /// The server that is tried; another one than BFS is a control of the checks themselves
    #[arg(long, default_value = "bfs n=4", value_parser = TARGETS.map(|target| target.name))]
    server: String,
    /// How many runs of fsx
    #[arg(long, default_value_t = 4)]
    seeds: u64,
    /// Operations a run of fsx
    #[arg(long, default_value_t = 3000)]
    ops: u64,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Only the checks whose names contain one of these
    #[arg(value_name = "CHECK")]
    checks: Vec<String>,
}

#[derive(Serialize)]
struct Figures {
    suite: &'static str,
    server: String,
    mount: &'static str,
    client: String,
    checks: Vec<Row>,
    /// Cases of pjdfstest that ask for what the protocol cannot say.
    not_applicable: Vec<NotApplicable>,
    passed: u64,
    failed: u64,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    r#as: &'static str,
    passed: u64,
    failed: u64,
    seconds: f64,
    /// What was seen, or why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    /// Why it was not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_run: Option<String>,
}

#[derive(Serialize)]
struct NotApplicable {
    case: &'static str,
    why: &'static str,
}

/// Whether every check that was run passed, and one was; or, if it was to be quick, whether it may not be run here.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if let (true, Some(why)) = (arguments.quick, network::forbidden()) {
        print_result(0, 0, &format!("the kernel's NFS client was not run: {why}"));
        return Ok(true);
    }
    // Before there is any other thread: it would stay in the old network.
    network::make_private()?;
    let stop = Stop::on_signals().context("cannot wait for signals")?;
    if !arguments.quick {
        super::bed::need_user("tests", "pjdfstest acts as this user too")?;
    }
    let server = target::named(&arguments.server).context("there is no such server")?;
    let scale = if arguments.quick { QUICK } else { FULL };
    let mut stage = Stage::start(server, arguments, scale, &stop)?;
    println!(
        "{:<44} {:<5} {:>7} {:>7} {:>8}",
        format!("{} through real clients", server.name),
        "as",
        "passed",
        "failed",
        "seconds"
    );
    let mut rows = Vec::new();
    for (check, who) in chosen(arguments) {
        let row = one(check, who, &mut stage);
        if stop.requested() {
            bail!("stopped");
        }
        print(&row);
        rows.push(row);
    }
    let not_applicable = checks::NOT_APPLICABLE.map(|(case, why)| NotApplicable { case, why });
    let figures = Figures {
        suite: "nfs-client",
        server: server.name.to_owned(),
        mount: "vers=3,proto=tcp,nolock,hard",
        client: stage.kernel(),
        passed: rows.iter().map(|row| row.passed).sum(),
        failed: rows.iter().map(|row| row.failed).sum(),
        checks: rows,
        not_applicable: not_applicable.into(),
    };
    match arguments.quick {
        true => print_result(figures.passed, figures.failed, "real NFS clients"),
        false => println!("{} passed, {} failed", figures.passed, figures.failed),
    }
    write_figures(arguments.json.as_deref(), &figures)?;
    Ok(figures.failed == 0 && figures.passed > 0)
}

/// The checks that are wanted, and who does them.
fn chosen(arguments: &Arguments) -> impl Iterator<Item = (&'static Check, Who)> {
    let wanted = move |check: &&Check| {
        let named = arguments.checks.iter().any(|part| check.name.contains(part.as_str()));
        arguments.checks.is_empty() || named
    };
    let of = move |check: &'static Check| {
        let who = if arguments.quick { check.quick } else { check.who };
        who.iter().map(move |who| (check, *who))
    };
    CHECKS.iter().filter(wanted).flat_map(of)
}

/// The last line of a quick run, as every test program has one: ./x test counts them all alike.
fn print_result(passed: u64, failed: u64, what: &str) {
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {what}");
}

fn one(check: &Check, who: Who, stage: &mut Stage) -> Row {
    let start = Instant::now();
    let verdict = check.run(who, stage);
    let seconds = start.elapsed().as_secs_f64();
    let row = |passed, failed, note, not_run| Row {
        name: check.name,
        r#as: who.word(),
        passed,
        failed,
        seconds,
        note,
        not_run,
    };
    match verdict {
        Ok(Verdict::Ran(Outcome { passed, failed, note })) => row(passed, failed, note, None),
        Ok(Verdict::NotRun(why)) => row(0, 0, String::new(), Some(why)),
        Err(error) => row(0, 1, format!("{error:#}"), None),
    }
}

fn print(row: &Row) {
    let Row { name, r#as, passed, failed, seconds, note, not_run } = row;
    if let Some(why) = not_run {
        println!("{name:<44} {as:<5} not run: {why}");
        return;
    }
    let verdict = if *failed == 0 { "ok" } else { "FAILED" };
    println!("{name:<44} {as:<5} {passed:>7} {failed:>7} {seconds:>8.1} {verdict}");
    for line in note.lines() {
        println!("    {line}");
    }
}
