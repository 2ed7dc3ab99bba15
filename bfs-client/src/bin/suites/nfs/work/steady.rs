//! Work that goes on while the service loses parts: nothing may fail, however long it takes, and all of it must be there.

use super::Tally;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Units: bytes.
const CHUNK: usize = 64 * 1024;
const KEPT: &str = "kept-";
const COUNTS: &str = "counts";
const STREAM: &str = "stream";

/// Chunk number `i` of what is written.
fn chunk(i: usize) -> Vec<u8> {
    (0..CHUNK).map(|at| (at / 8 * 7 + at + i * 131) as u8).collect()
}

/// Works for `seconds`.
///
/// Effects: leaves files of which [`verify`] knows what is in them.
pub fn run(dir: &Path, seconds: u64, tally: &mut Tally) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let (names, stream) = thread::scope(|scope| {
        let stream = scope.spawn(|| write_stream(dir, end));
        let names = work_with_names(dir, end, tally);
        let stream = stream.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (names, stream)
    });
    let chunks = tally.must(|| "the stream".to_owned(), stream).unwrap_or(0);
    fs::write(dir.join(COUNTS), format!("{} {chunks}\n", names.rounds))?;
    println!(
        "rounds {}, chunks of {CHUNK} bytes {chunks}, longest stall {:.1} s",
        names.rounds,
        names.longest.as_secs_f64()
    );
    Ok(())
}

struct Names {
    rounds: usize,
    longest: Duration,
}

/// Makes, links, moves and removes. Each of these is done once; done twice, it would fail.
fn work_with_names(dir: &Path, end: Instant, tally: &mut Tally) -> Names {
    let mut names = Names { rounds: 0, longest: Duration::ZERO };
    while Instant::now() < end {
        let start = Instant::now();
        let round = names.rounds;
        tally.must(|| format!("round {round}"), one_round(dir, round));
        names.longest = names.longest.max(start.elapsed());
        names.rounds += 1;
    }
    names
}

fn one_round(dir: &Path, round: usize) -> Result<()> {
    let name = |kind: &str| dir.join(format!("{kind}-{round}"));
    let (folder, link, moved) = (name("folder"), name("link"), name("moved"));
    fs::create_dir(&folder).context("mkdir")?;
    let made = folder.join("made");
    let file = File::create_new(&made).context("create")?;
    file.write_all_at(&chunk(round)[..4096], 0).context("write")?;
    file.sync_all().context("fsync")?;
    fs::hard_link(&made, &link).context("link")?;
    fs::rename(&made, &moved).context("rename")?;
    symlink("moved", folder.join("symlink")).context("symlink")?;
    fs::set_permissions(&moved, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .context("chmod")?;
    // Past this kernel's cache.
    let direct = File::options().read(true).custom_flags(nix::libc::O_DIRECT).open(&link);
    let mut read = vec![0; 4096];
    direct.context("open")?.read_exact_at(&mut read, 0).context("read")?;
    anyhow::ensure!(read == chunk(round)[..4096], "the file has other bytes");
    let found = fs::read_link(folder.join("symlink")).context("readlink")?;
    anyhow::ensure!(found == Path::new("moved"), "the link leads to {}", found.display());
    fs::remove_file(folder.join("symlink")).context("unlink")?;
    fs::remove_file(&link).context("unlink")?;
    fs::remove_dir(&folder).context("rmdir")?;
    // One that was open before is still good: no ESTALE.
    let length = file.metadata().context("fstat")?.len();
    anyhow::ensure!(length == 4096, "the open file has {length} bytes");
    if round.is_multiple_of(4) {
        fs::rename(&moved, name("kept")).context("rename")?;
    } else {
        fs::remove_file(&moved).context("unlink")?;
    }
    Ok(())
}

/// One file that stays open and grows, synced now and then. Returns the chunks in it.
fn write_stream(dir: &Path, end: Instant) -> io::Result<usize> {
    let file = File::options().read(true).write(true).create_new(true).open(dir.join(STREAM))?;
    let mut chunks: usize = 0;
    while Instant::now() < end {
        file.write_all_at(&chunk(chunks), (chunks * CHUNK) as u64)?;
        chunks += 1;
        if chunks.is_multiple_of(8) {
            file.sync_all()?;
        }
    }
    file.sync_all()?;
    Ok(chunks)
}

/// Requires: the mount is a fresh one, so that nothing is cached.
pub fn verify(dir: &Path, tally: &mut Tally) -> Result<()> {
    let counts = fs::read_to_string(dir.join(COUNTS)).context("the work did not end")?;
    let counts: Vec<usize> = counts.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [rounds, chunks] = counts[..] else { anyhow::bail!("the counts are damaged") };
    let mut expected: Vec<String> =
        (0..rounds).step_by(4).map(|round| format!("{KEPT}{round}")).collect();
    expected.extend([COUNTS.to_owned(), STREAM.to_owned()]);
    expected.sort();
    let mut found = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    found.sort();
    tally.claim(found == expected, || {
        format!("there are {} names instead of {}", found.len(), expected.len())
    });
    for round in (0..rounds).step_by(4) {
        let read = fs::read(dir.join(format!("{KEPT}{round}")));
        let same = read.is_ok_and(|read| read == chunk(round)[..4096]);
        tally.claim(same, || format!("{KEPT}{round} is not what was written"));
    }
    let file = File::open(dir.join(STREAM))?;
    let mut read = vec![0; CHUNK];
    for i in 0..chunks {
        let same = file.read_exact_at(&mut read, (i * CHUNK) as u64).is_ok() && read == chunk(i);
        tally.claim(same, || format!("chunk {i} of the stream is not what was written"));
    }
    let length = file.metadata()?.len();
    tally.claim(length == (chunks * CHUNK) as u64, || format!("the stream has {length} bytes"));
    Ok(())
}
