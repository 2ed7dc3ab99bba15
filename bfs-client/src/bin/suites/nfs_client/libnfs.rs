//! The tools of libnfs, a client outside of any kernel, and a guest's kernel that sees the same files.

use super::checks::Outcome;
use super::stage::Stage;
use crate::nfs::guest::Who;
use crate::nfs::work::Tally;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Long enough for several WRITEs and READs, and no multiple of anything. Units: bytes.
const LENGTH: usize = 3_500_001;
/// How long a tool may wait for the group. Units: seconds, as timeout(1) wants them.
const LIMIT: &str = "120";

/// The tools, as one user, on one server.
struct Tools {
    /// What follows the path in a URL.
    options: String,
    /// What comes before the path.
    base: String,
}

impl Tools {
    fn new(who: Who, stage: &Stage) -> Self {
        let at = stage.endpoint();
        let (uid, port, mount_port) = (who.uid(), at.port, at.mount_port);
        let base = format!("nfs://{}{}", at.address, at.export.trim_end_matches('/'));
        let options =
            format!("version=3&nfsport={port}&mountport={mount_port}&uid={uid}&gid={uid}");
        Self { base, options }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}?{}", self.base, self.options)
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<Output> {
        let mut command = Command::new("timeout");
        // Ctrl-C must reach it too.
        command.args(["--foreground", LIMIT, program]).args(words);
        command.output().with_context(|| format!("cannot run {program}"))
    }
}

/// As `who`: a file is sent there, listed, read and fetched, and the guest's kernel reads the same; what is not there is not
/// read, and what is another's is not overwritten.
pub fn run(who: Who, stage: &mut Stage) -> Result<Outcome> {
    // A guest that mounts makes the folders.
    stage.guest(0)?;
    let tools = Tools::new(who, stage);
    let source = stage.share().join("from-libnfs");
    let bytes: Vec<u8> = (0..LENGTH).map(|at| (at / 7 * 31 + at) as u8).collect();
    fs::write(&source, &bytes)?;
    let mut tally = Tally::default();
    let (folder, name) = (who.uid().to_string(), "from-libnfs");
    there_and_back(&tools, &folder, name, (&source, &bytes), stage.folder(), &mut tally)?;
    let done = stage.step(0, "compare_with_libnfs", who, stage.scale.step_limit)?;
    tally.claim(done.ok, || format!("the guest reads something else: {}", done.log));
    let none = tools.run("nfs-cat", &[&tools.url(&format!("{folder}/none"))])?;
    tally.claim(!none.status.success(), || "a file that is not there is read".to_owned());
    if who == Who::User {
        let theirs = tools.url("0/from-libnfs-user");
        let refused = tools.run("nfs-cp", &[&path(&source)?, &theirs])?;
        tally.claim(!refused.status.success(), || "a user writes into root's folder".to_owned());
    }
    let Tally { passed, failed, failures } = tally;
    Ok(Outcome { passed, failed, note: failures.join("\n") })
}

fn there_and_back(
    tools: &Tools,
    folder: &str,
    name: &str,
    (source, bytes): (&Path, &[u8]),
    scratch: &Path,
    tally: &mut Tally,
) -> Result<()> {
    let url = tools.url(&format!("{folder}/{name}"));
    let sent = tools.run("nfs-cp", &[&path(source)?, &url])?;
    expect_success("nfs-cp to the server", &sent, tally);
    let list = tools.run("nfs-ls", &[&tools.url(folder)])?;
    let lines = String::from_utf8_lossy(&list.stdout).into_owned();
    // "-rw-rw----  1  1077  1077      3500001 from-libnfs"
    let expected = [folder, folder, &bytes.len().to_string(), name].map(str::to_owned);
    let listed = lines.lines().any(|line| line.split_whitespace().skip(2).eq(&expected));
    tally.claim(listed, || format!("nfs-ls does not show what was sent:\n{lines}"));
    let read = tools.run("nfs-cat", &[&url])?;
    expect_success("nfs-cat", &read, tally);
    tally.claim(read.stdout == bytes, || "nfs-cat writes other bytes than were sent".to_owned());
    let back = scratch.join("back");
    let fetched = tools.run("nfs-cp", &[&url, &path(&back)?])?;
    expect_success("nfs-cp from the server", &fetched, tally);
    let same = fs::read(&back).is_ok_and(|back| back == bytes);
    tally.claim(same, || "nfs-cp fetches other bytes than were sent".to_owned());
    fs::remove_file(&back).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error.into()),
    })
}

fn expect_success(what: &str, output: &Output, tally: &mut Tally) {
    tally.claim(output.status.success(), || {
        format!("{what}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
    });
}

fn path(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| path.display().to_string())
}
