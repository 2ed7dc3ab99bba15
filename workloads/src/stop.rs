//! The wish to stop, shared by everything that runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// A flag that is set once and never taken back. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A flag that Ctrl-C, SIGTERM and SIGHUP set from now on, instead of ending this process.
    ///
    /// Errors: the system refuses the handlers or the thread that waits for them.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let mut signals = {
            let _context = runtime.enter();
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            kinds.map(signal).into_iter().collect::<io::Result<Vec<_>>>()?
        };
        let flag = stop.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            let [interrupt, terminate, hangup] = &mut signals[..] else { return };
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            flag.request();
        })?;
        Ok(stop)
    }

    /// Asks everything that shares the flag to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps for `time`, or until somebody asks to stop, which is noticed within 10 ms. Says whether the time has passed.
    pub fn sleep(&self, time: Duration) -> bool {
        const STEP: Duration = Duration::from_millis(10);
        let end = Instant::now() + time;
        loop {
            if self.requested() {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(STEP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, raise};

    #[test]
    fn a_signal_sets_the_flag_and_ends_a_sleep() {
        let stop = Stop::on_signals().unwrap();
        assert!(stop.sleep(Duration::from_millis(1)));
        raise(Signal::SIGHUP).unwrap();
        assert!(!stop.sleep(Duration::from_secs(30)));
        assert!(stop.clone().requested());
    }
}
