//! How much the programs got done, step by step, while they were attacked.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use workloads::stop::Stop;

/// The time between two looks.
const STEP: Duration = Duration::from_millis(250);

/// The field names are a stable interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// How long each step lasted. Units: milliseconds.
    pub step_ms: u64,
    /// What was completed in each step, from the first attack's begin on: known files read and compared, and small files
    /// made, synced and removed.
    pub operations: Vec<u64>,
}

/// Looks at `completed`, which only grows, at every step since `begun` until `over`.
///
/// Where this thread comes late, what was completed is spread over the steps that it missed.
pub fn sample(begun: Instant, completed: impl Fn() -> u64, over: &Stop) -> Series {
    let mut operations = Vec::new();
    let mut before = completed();
    loop {
        let due = begun + STEP * (operations.len() as u32 + 1);
        if !over.sleep(due.saturating_duration_since(Instant::now())) {
            return Series { step_ms: STEP.as_millis() as u64, operations };
        }
        let now = completed();
        let late = begun.elapsed().as_millis() / STEP.as_millis();
        let missed = (late as u64).saturating_sub(operations.len() as u64).max(1);
        for i in 0..missed {
            let share = (now - before) / missed + u64::from(i < (now - before) % missed);
            operations.push(share);
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn every_completion_is_in_one_step() {
        let (count, over, begun) = (AtomicU64::new(5), Stop::default(), Instant::now());
        let series = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| sample(begun, || count.load(Ordering::SeqCst), &over));
            std::thread::sleep(STEP / 2);
            count.fetch_add(7, Ordering::SeqCst);
            while begun.elapsed() < STEP * 4 {
                std::thread::sleep(STEP / 10);
            }
            over.request();
            sampler.join().unwrap()
        });
        assert_eq!(series.step_ms, 250);
        assert!(series.operations.len() >= 3, "{series:?}");
        assert_eq!(series.operations.iter().sum::<u64>(), 7, "{series:?}");
    }
}
