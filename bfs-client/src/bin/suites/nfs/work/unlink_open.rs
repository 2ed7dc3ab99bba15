//! A file that is open is removed: its name goes at once, its bytes when it is closed.

use super::Tally;
use anyhow::Result;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const ROUNDS: usize = 50;
const BYTES: usize = 100_000;

pub fn run(dir: &Path, tally: &mut Tally) -> Result<()> {
    for round in 0..ROUNDS {
        once(dir, round, tally)?;
    }
    // The client renames a file that somebody has open, and removes it when it is closed.
    let left = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    tally.claim(left.is_empty(), || format!("{} names are left: {left:?}", left.len()));
    fs::remove_dir(dir)?;
    Ok(())
}

fn once(dir: &Path, round: usize, tally: &mut Tally) -> Result<()> {
    let path = dir.join(format!("open-{round}"));
    let bytes: Vec<u8> = (0..BYTES).map(|i| (i * 31 + round) as u8).collect();
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    file.write_all_at(&bytes, 0)?;
    if round.is_multiple_of(2) {
        file.sync_all()?;
    }
    let told = fs::metadata(&path)?.ino();
    fs::remove_file(&path)?;
    tally.claim(!path.exists(), || format!("{} is still there", path.display()));
    // Another file of the same name is another file.
    fs::write(&path, b"other")?;
    file.write_all_at(b"later", BYTES as u64)?;
    file.sync_all()?;
    let mut read = vec![0; BYTES + 5];
    file.read_exact_at(&mut read, 0)?;
    let holds = read[..BYTES] == bytes && &read[BYTES..] == b"later";
    tally.claim(holds, || format!("round {round}: the open file has other bytes"));
    let now = file.metadata()?;
    tally.claim(now.ino() == told && now.len() == read.len() as u64, || {
        format!("round {round}: the open file is another one, or of another length")
    });
    drop(file);
    let other = fs::read(&path)?;
    tally.claim(other == b"other", || format!("round {round}: the new file has other bytes"));
    fs::remove_file(&path)?;
    Ok(())
}
