//! What is gathered of one file: a few runs of bytes, ascending, with at least one byte between any two.

use bfs_fs::op::{Caller, MAX_IO};
use std::ops::Range;
use std::time::Instant;

/// The most that is gathered of one file, and so the longest run: what one operation carries. Units: bytes.
pub const GATHERED_MAX: usize = MAX_IO as usize;
/// The most runs of one file. A linker or an archiver leaves less than that.
const RUNS_MAX: usize = 8;

/// What one write(2) puts where.
#[derive(Clone, Copy)]
pub struct Stretch<'a> {
    pub caller: &'a Caller,
    pub offset: u64,
    pub data: &'a [u8],
}

/// Bytes that follow each other.
pub struct Run {
    pub caller: Caller,
    pub offset: u64,
    pub data: Vec<u8>,
    /// When the oldest of them were written.
    pub since: Instant,
}

/// All of one file, of one caller.
#[derive(Default)]
pub struct Runs(Vec<Run>);

impl Run {
    pub fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    pub fn range(&self) -> Range<u64> {
        self.offset..self.end()
    }

    /// Puts `data` over what it touches of the run, or beside it.
    fn put(&mut self, offset: u64, data: &[u8]) {
        if offset < self.offset {
            let end = offset + data.len() as u64;
            let beyond = self.data.get((end.saturating_sub(self.offset)) as usize..);
            self.data = [data, beyond.unwrap_or_default()].concat();
            self.offset = offset;
            return;
        }
        let start = (offset - self.offset) as usize;
        let within = data.len().min(self.data.len() - start);
        let (over, beyond) = data.split_at(within);
        self.data[start..start + within].copy_from_slice(over);
        self.data.extend_from_slice(beyond);
    }
}

impl Runs {
    /// Adds what was written, if it is the same caller's, and what is gathered stays short and in few pieces.
    pub fn gather(&mut self, stretch: Stretch<'_>) -> bool {
        let Stretch { caller, offset, data } = stretch;
        let Self(runs) = self;
        if runs.first().is_some_and(|run| run.caller != *caller) {
            return false;
        }
        let end = offset + data.len() as u64;
        // Those that it touches become one with it.
        let from = runs.partition_point(|run| run.end() < offset);
        let to = runs.partition_point(|run| run.offset <= end).max(from);
        let touched: usize = runs[from..to].iter().map(|run| run.data.len()).sum();
        let start = runs[from..to].first().map_or(offset, |run| run.offset.min(offset));
        let stop = runs[from..to].last().map_or(end, |run| run.end().max(end));
        let length = (stop - start) as usize;
        let all: usize = runs.iter().map(|run| run.data.len()).sum();
        if all - touched + length > GATHERED_MAX {
            return false;
        }
        if from == to {
            if runs.len() >= RUNS_MAX {
                return false;
            }
            let (caller, data, since) = (caller.clone(), data.to_vec(), Instant::now());
            runs.insert(from, Run { caller, offset, data, since });
            return true;
        }
        let others: Vec<Run> = runs.drain(from + 1..to).collect();
        let run = &mut runs[from];
        run.put(offset, data);
        for other in others {
            // What was just written is newer.
            let known = (run.end() - other.offset) as usize;
            run.data.extend_from_slice(other.data.get(known..).unwrap_or_default());
            run.since = run.since.min(other.since);
        }
        true
    }

    /// How much is gathered. Units: bytes.
    pub fn len(&self) -> usize {
        self.iter().map(|run| run.data.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Run> {
        self.0.iter()
    }

    /// Takes those that `may` go.
    pub fn take(&mut self, mut may: impl FnMut(&Run) -> bool) -> Vec<Run> {
        let (taken, kept) = std::mem::take(&mut self.0).into_iter().partition(|run| may(run));
        self.0 = kept;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn who(uid: u32) -> Caller {
        Caller { uid, gid: 0, groups: Vec::new() }
    }

    fn put(runs: &mut Runs, offset: u64, data: &[u8]) -> bool {
        runs.gather(Stretch { caller: &who(0), offset, data })
    }

    /// Where each begins and ends.
    fn ranges(runs: &Runs) -> Vec<(u64, u64)> {
        runs.iter().map(|run| (run.offset, run.end())).collect()
    }

    #[test]
    fn what_touches_becomes_one_and_what_does_not_stays_apart() {
        let mut runs = Runs::default();
        assert!(put(&mut runs, 300, b"tail") && put(&mut runs, 0, b"head"));
        assert_eq!(ranges(&runs), [(0, 4), (300, 304)]);
        assert!(put(&mut runs, 4, &[b'-'; 295]));
        assert_eq!(ranges(&runs), [(0, 299), (300, 304)], "a byte is missing");
        assert!(put(&mut runs, 299, b"+"));
        assert_eq!(ranges(&runs), [(0, 304)]);
    }

    #[test]
    fn it_stays_short_in_few_pieces_and_one_callers() {
        let mut runs = Runs::default();
        for i in 0..RUNS_MAX as u64 {
            assert!(put(&mut runs, 10 * i, b"x"));
        }
        assert!(!put(&mut runs, 1000, b"x"));
        assert!(put(&mut runs, 1, b"joined"));
        let other = Stretch { caller: &who(1), offset: 1, data: b"x" };
        assert!(!runs.gather(other));
        let length = runs.len();
        assert!(!put(&mut runs, 71, &vec![0; GATHERED_MAX - length + 1]));
        assert!(put(&mut runs, 71, &vec![0; GATHERED_MAX - length]));
        assert_eq!(runs.len(), GATHERED_MAX);
        assert!(put(&mut runs, 71, b"over"));
    }

    proptest! {
        #[test]
        fn they_hold_what_a_file_would(
            writes in prop::collection::vec((0_u64..400, 1_usize..60, any::<u8>()), 1..40),
        ) {
            let (mut runs, mut file) = (Runs::default(), [None; 500]);
            for (offset, length, byte) in writes {
                if put(&mut runs, offset, &vec![byte; length]) {
                    file[offset as usize..][..length].fill(Some(byte));
                }
            }
            let mut found = [None; 500];
            for run in runs.iter() {
                for (place, byte) in found[run.offset as usize..].iter_mut().zip(&run.data) {
                    prop_assert_eq!(*place, None, "two runs on one byte");
                    *place = Some(*byte);
                }
            }
            prop_assert_eq!(found, file);
            prop_assert!(ranges(&runs).windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
