//! A large directory is listed while names come and go in it.

use super::Tally;
use anyhow::Result;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// How often all of it is listed.
const LISTINGS: usize = 4;

/// Name number `i` of those that stay.
pub fn staying(i: usize) -> String {
    format!("stays-{i:06}")
}

/// Requires: the first `names` of [`staying`] are in `dir`, and other processes make and remove no name twice.
pub fn list(dir: &Path, names: usize, tally: &mut Tally) -> Result<()> {
    let (ends, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        let changing = scope.spawn(|| change(dir, &ends, &changes));
        for listing in 0..LISTINGS {
            let before = changes.load(Ordering::Relaxed);
            let listed = list_once(dir, names, listing, tally);
            let meanwhile = changes.load(Ordering::Relaxed) - before;
            if let Ok(entries) = listed {
                println!("listing {listing}: {entries} entries, {meanwhile} changes by this guest");
            }
            // The thread must end in any case.
            if listed.is_err() {
                ends.store(true, Ordering::Relaxed);
                listed?;
            }
        }
        ends.store(true, Ordering::Relaxed);
        changing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    tally.claim(changes.into_inner() > 0, || "nothing changed".to_owned());
    Ok(())
}

fn list_once(dir: &Path, names: usize, listing: usize, tally: &mut Tally) -> Result<usize> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    for entry in fs::read_dir(dir)? {
        *seen.entry(entry?.file_name().to_string_lossy().into_owned()).or_default() += 1;
    }
    let missed = (0..names).filter(|i| !seen.contains_key(&staying(*i))).count();
    let doubled: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).take(3).collect();
    tally.claim(missed == 0, || {
        let first = (0..names).find(|i| !seen.contains_key(&staying(*i))).map(staying);
        format!("listing {listing}: {missed} names that stay are missed; the first is {first:?}")
    });
    tally.claim(doubled.is_empty(), || format!("listing {listing}: doubled are {doubled:?}"));
    Ok(seen.len())
}

/// Makes and removes names, no name twice.
fn change(dir: &Path, ends: &AtomicBool, changes: &AtomicU64) -> Result<()> {
    let mut number: u64 = 0;
    while !ends.load(Ordering::Relaxed) {
        let path = dir.join(format!("comes-and-goes-{number}"));
        File::create_new(&path)?;
        // Some stay for a while.
        if let Some(old) = number.checked_sub(10) {
            fs::remove_file(dir.join(format!("comes-and-goes-{old}")))?;
        }
        number += 1;
        changes.fetch_add(2, Ordering::Relaxed);
    }
    Ok(())
}
