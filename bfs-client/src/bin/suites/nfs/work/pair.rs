//! What two guests do to the same names at once.

use super::Tally;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long one waits for the other.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);
/// How many names both try to have.
const RACES: usize = 200;
/// How often each counts.
const COUNTS: usize = 100;
/// How often a file goes back and forth.
const TURNS: usize = 60;

/// Requires: the other guest does the same, as the other side, and nothing about names and attributes is cached.
pub fn run(dir: &Path, side: usize, tally: &mut Tally) -> Result<()> {
    let pair = Pair { dir: dir.to_owned(), side };
    pair.meet("begin")?;
    let made = pair.race(|i| fs::create_dir(dir.join(format!("both-{i}"))))?;
    let moved = pair.race_for_files()?;
    pair.count()?;
    pair.talk(tally)?;
    fs::write(dir.join(format!("wins-{side}")), format!("{made} {moved}"))?;
    pair.meet("end")?;
    if side == 0 {
        pair.judge(tally)?;
    }
    Ok(())
}

struct Pair {
    dir: PathBuf,
    side: usize,
}

impl Pair {
    /// Waits until the other is as far.
    fn meet(&self, place: &str) -> Result<()> {
        fs::write(self.dir.join(format!("{place}-{}", self.side)), "")?;
        let other = self.dir.join(format!("{place}-{}", 1 - self.side));
        until(|| Ok(other.try_exists()?.then_some(()))).with_context(|| format!("at the {place}"))
    }

    /// How many of the names this side got.
    fn race(&self, take: impl Fn(usize) -> std::io::Result<()>) -> Result<usize> {
        let mut won = 0;
        for i in 0..RACES {
            match take(i) {
                Ok(()) => won += 1,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => bail!("race {i}: {error}"),
            }
        }
        Ok(won)
    }

    /// Both move the same files; each can only be moved once.
    fn race_for_files(&self) -> Result<usize> {
        if self.side == 0 {
            (0..RACES).try_for_each(|i| fs::write(self.dir.join(format!("prize-{i}")), ""))?;
        }
        self.meet("files")?;
        self.race(|i| {
            let to = self.dir.join(format!("won-by-{}-{i}", self.side));
            fs::rename(self.dir.join(format!("prize-{i}")), to)
        })
    }

    /// Both count in one file, under a lock that is a hard link: link(2) fails if its name is taken.
    fn count(&self) -> Result<()> {
        let (counter, lock) = (self.dir.join("counter"), self.dir.join("lock"));
        let mine = self.dir.join(format!("lock-{}", self.side));
        fs::write(&mine, "")?;
        if self.side == 0 {
            fs::write(&counter, "0")?;
        }
        self.meet("count")?;
        for _ in 0..COUNTS {
            until(|| match fs::hard_link(&mine, &lock) {
                Ok(()) => Ok(Some(())),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(error),
            })
            .context("the lock")?;
            let count: usize = fs::read_to_string(&counter)?.parse().context("the counter")?;
            fs::write(&counter, (count + 1).to_string())?;
            fs::remove_file(&lock).context("cannot give the lock back")?;
        }
        Ok(())
    }

    /// One writes and closes a file, the other opens and reads it: close-to-open.
    fn talk(&self, tally: &mut Tally) -> Result<()> {
        let message = self.dir.join("message");
        let turn = |i: usize| self.dir.join(format!("turn-{i}"));
        for i in 0..TURNS {
            let text = format!("{i} ").repeat(2000 + i);
            if i % 2 == self.side {
                fs::write(&message, &text)?;
                File::create_new(turn(i))?;
            } else {
                until(|| Ok(turn(i).try_exists()?.then_some(())))
                    .with_context(|| format!("turn {i}"))?;
                let read = fs::read_to_string(&message)?;
                tally.claim(read == text, || {
                    format!("turn {i}: what was read is not what was written")
                });
                // Only then may the next be written over it.
                File::create_new(self.dir.join(format!("seen-{i}")))?;
            }
            until(|| Ok(self.dir.join(format!("seen-{i}")).try_exists()?.then_some(())))
                .with_context(|| format!("answer {i}"))?;
        }
        Ok(())
    }

    fn judge(&self, tally: &mut Tally) -> Result<()> {
        let wins = |side: usize| -> Result<[usize; 2]> {
            let text = fs::read_to_string(self.dir.join(format!("wins-{side}")))?;
            let (made, moved) = text.split_once(' ').context("the wins are damaged")?;
            Ok([made.parse()?, moved.parse()?])
        };
        let (ours, theirs) = (wins(0)?, wins(1)?);
        for (i, what) in ["mkdir", "rename"].into_iter().enumerate() {
            let (a, b) = (ours[i], theirs[i]);
            println!("{what}: {a} won here, {b} there");
            tally.claim(a + b == RACES, || format!("{what}: {a} and {b} of {RACES} races won"));
        }
        let count: usize = fs::read_to_string(self.dir.join("counter"))?.parse()?;
        tally.claim(count == 2 * COUNTS, || format!("counted {count} of {}", 2 * COUNTS));
        Ok(())
    }
}

/// Tries until there is something.
fn until<T>(mut attempt: impl FnMut() -> std::io::Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("the other side did not come in {} s", PATIENCE.as_secs());
        }
        thread::sleep(POLL);
    }
}
