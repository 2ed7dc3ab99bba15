//! Pieces of work, timed part by part.

use crate::stop::Stop;
use anyhow::{Context, Result, bail};
use nix::unistd::sync;
use serde::Serialize;
use std::fs;
use std::time::Instant;

/// How long one part took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseTime {
    pub name: &'static str,
    pub seconds: f64,
}

/// How long a piece of work took. The field names are a stable interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timing {
    pub phases: Vec<PhaseTime>,
    pub total_seconds: f64,
}

/// Times one part after the other.
pub struct Stopwatch<'a> {
    stop: &'a Stop,
    phases: Vec<PhaseTime>,
}

impl<'a> Stopwatch<'a> {
    pub fn new(stop: &'a Stop) -> Self {
        Self { stop, phases: Vec::new() }
    }

    /// Does one part.
    ///
    /// Errors: those of the part, with its name; somebody asked to stop.
    pub fn time<T>(&mut self, name: &'static str, part: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let result = part().context(name)?;
        self.phases.push(PhaseTime { name, seconds: begun.elapsed().as_secs_f64() });
        self.go_on()?;
        Ok(result)
    }

    /// Errors: somebody asked to stop.
    pub fn go_on(&self) -> Result<()> {
        if self.stop.requested() {
            bail!("stopped");
        }
        Ok(())
    }

    pub fn timing(self) -> Timing {
        let total_seconds = self.phases.iter().map(|phase| phase.seconds).sum();
        Timing { phases: self.phases, total_seconds }
    }
}

/// Writes back what this machine holds for any file system, and forgets it: names, attributes and contents.
///
/// Errors: this is not root. [proc_sys_vm(5), drop_caches]
pub fn drop_caches() -> Result<()> {
    sync();
    fs::write("/proc/sys/vm/drop_caches", "3")
        .context("cannot drop the kernel's caches\n  try: run it as root, or without --drop-caches")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_the_first_error_names_its_part() {
        let stop = Stop::default();
        let mut watch = Stopwatch::new(&stop);
        assert_eq!(watch.time("one", || Ok(1)).unwrap(), 1);
        watch.time("two", || Ok(())).unwrap();
        let failed = watch.time("three", || -> Result<()> { bail!("no") });
        assert!(format!("{:#}", failed.unwrap_err()).starts_with("three: no"));
        stop.request();
        assert!(watch.time("four", || Ok(())).is_err());
        let timing = watch.timing();
        assert_eq!(
            timing.phases.iter().map(|phase| phase.name).collect::<Vec<_>>(),
            ["one", "two", "four"]
        );
        let sum: f64 = timing.phases.iter().map(|phase| phase.seconds).sum();
        assert_eq!(timing.total_seconds, sum);
    }
}
