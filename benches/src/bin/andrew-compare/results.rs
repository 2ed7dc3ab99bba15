//! The figures: medians and minima of each target, and what they are to each other.

use crate::targets::Outcome;
use serde::Serialize;
use std::fmt::Write;
use workloads::andrew::Phase;
use workloads::errors::WorkError;
use workloads::latency::{Latency, Percentiles};
use workloads::tree::SourceTree;

/// Everything that was measured. The field names are a stable interface.
#[derive(Serialize)]
pub struct Comparison {
    tree: String,
    copies: u32,
    rounds: u32,
    jobs: usize,
    files: u64,
    bytes: u64,
    targets: Vec<TargetResult>,
    /// Median over median.
    ratios: Vec<Ratio>,
}

/// What one target did.
#[derive(Default, Serialize)]
pub struct TargetResult {
    name: &'static str,
    /// Why it did not run, or not to the end.
    not_run: Option<String>,
    /// The phases in order, then their total.
    times: Vec<Times>,
    compiled: u64,
    errors: u64,
    first_errors: Vec<WorkError>,
    /// Whether the files of the last round, mounted again, had the digests of their sources.
    digests_match: Option<bool>,
    pub latency: Option<Latency>,
    /// The largest resident memory of each replica after a round. Units: bytes.
    replica_resident_bytes: Vec<u64>,
}

/// The time of one phase, or of all of them. Units: seconds.
#[derive(Serialize)]
pub struct Times {
    name: &'static str,
    median: f64,
    min: f64,
    /// Round by round.
    rounds: Vec<f64>,
}

/// How many times as long one target takes as another.
#[derive(Serialize)]
struct Ratio {
    of: &'static str,
    to: &'static str,
    /// The phases in order, then their total; nothing where a time is too short to divide by.
    times: Vec<(&'static str, Option<f64>)>,
}

const TOTAL: &str = "total";

impl Times {
    fn add(&mut self, seconds: f64) {
        self.rounds.push(seconds);
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        self.min = sorted[0];
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        self.median = (low + high) / 2.0;
    }
}

impl TargetResult {
    /// A target that has not run yet.
    pub fn new(name: &'static str) -> Self {
        let names = Phase::ALL.map(Phase::name).into_iter().chain([TOTAL]);
        let times = names.map(|name| Times { name, median: 0.0, min: 0.0, rounds: Vec::new() });
        Self { name, times: times.collect(), ..Self::default() }
    }

    /// Takes the figures of one round.
    pub fn add(&mut self, outcome: Outcome) {
        let report = outcome.report;
        if report.stopped {
            return;
        }
        let seconds = report.phases.iter().map(|phase| phase.seconds).chain([report.total_seconds]);
        self.times.iter_mut().zip(seconds).for_each(|(times, seconds)| times.add(seconds));
        self.compiled += report.compiled;
        self.take_errors(report.errors, report.first_errors);
        if let Some(verified) = outcome.verified {
            self.digests_match = Some(verified.all_match());
            self.take_errors(verified.errors, verified.first_errors);
        }
        self.replica_resident_bytes.resize(outcome.resident_bytes.len(), 0);
        for (largest, bytes) in self.replica_resident_bytes.iter_mut().zip(outcome.resident_bytes) {
            *largest = bytes.max(*largest);
        }
    }

    fn take_errors(&mut self, count: u64, first: Vec<WorkError>) {
        self.errors += count;
        if self.first_errors.is_empty() {
            self.first_errors = first;
        }
    }

    /// Notes that it cannot run, or not any more.
    pub fn fail(&mut self, why: String) {
        self.not_run = Some(why);
    }

    /// Whether it cannot run.
    pub fn has_failed(&self) -> bool {
        self.not_run.is_some()
    }

    fn is_sound(&self) -> bool {
        !self.has_failed() && self.errors == 0 && self.digests_match == Some(true)
    }
}

impl Comparison {
    /// Compares what the targets did.
    pub fn new(
        tree: &SourceTree,
        copies: u32,
        rounds: u32,
        jobs: usize,
        targets: Vec<TargetResult>,
    ) -> Self {
        let pairs = [("bfs", "native"), ("bfs", "bfs-unreplicated")];
        let find = |name| targets.iter().find(|target| target.name == name && !target.has_failed());
        let ratios = pairs
            .into_iter()
            .filter_map(|(of, to)| Some(Ratio::new(find(of)?, find(to)?)))
            .collect();
        Self {
            tree: tree.name().into(),
            copies,
            rounds,
            jobs,
            files: tree.files().len() as u64 * u64::from(copies),
            bytes: tree.bytes() * u64::from(copies),
            targets,
            ratios,
        }
    }

    /// Whether every target ran, without an error, and kept what was written.
    pub fn is_sound(&self) -> bool {
        self.targets.iter().all(TargetResult::is_sound)
    }

    /// The figures as people read them.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} × {}: {} files, {} bytes · {} rounds · {} compilers at once\n\nseconds, median (min)\n{:<18}",
            self.copies, self.tree, self.files, self.bytes, self.rounds, self.jobs, ""
        );
        let names: Vec<_> = Phase::ALL.map(Phase::name).into_iter().chain([TOTAL]).collect();
        names.iter().for_each(|name| text.push_str(&format!("{name:>18}")));
        text.push('\n');
        for target in &self.targets {
            target.write_times(&mut text);
        }
        for ratio in &self.ratios {
            ratio.write(&mut text);
        }
        text.push_str("\nsingle operations, µs, p50 / p99\n");
        for target in &self.targets {
            target.write_latency(&mut text);
        }
        self.targets.iter().for_each(|target| target.write_notes(&mut text));
        text
    }
}

impl Ratio {
    fn new(of: &TargetResult, to: &TargetResult) -> Self {
        let times = of.times.iter().zip(&to.times).map(|(of, to)| {
            let ratio = of.median / to.median;
            (of.name, ratio.is_finite().then_some(ratio))
        });
        Self { of: of.name, to: to.name, times: times.collect() }
    }

    fn write(&self, text: &mut String) {
        let name = match self.to {
            "bfs-unreplicated" => format!("{} / unreplicated", self.of),
            to => format!("{} / {to}", self.of),
        };
        let ratios = self.times.iter().map(|(_, ratio)| {
            let ratio = ratio.map_or("-".into(), |ratio| format!("{ratio:.2} ×"));
            format!("{ratio:>18}")
        });
        line(text, &name, ratios);
    }
}

impl TargetResult {
    fn write_times(&self, text: &mut String) {
        match &self.not_run {
            Some(why) => line(text, self.name, [format!("  not run: {why}")]),
            None => line(
                text,
                self.name,
                self.times.iter().map(|times| {
                    format!("{:>18}", format!("{:.3} ({:.3})", times.median, times.min))
                }),
            ),
        }
    }

    fn write_latency(&self, text: &mut String) {
        let Some(latency) = &self.latency else { return };
        let column = |name: &str, times: Percentiles| {
            format!("  {name} {:.0} / {:.0}", times.p50_us, times.p99_us)
        };
        line(
            text,
            self.name,
            [
                column("stat", latency.stat),
                column("create", latency.create),
                column("write 4K + fsync", latency.write_4k_fsync),
                column("open + read 4K", latency.read_4k),
            ],
        );
    }

    fn write_notes(&self, text: &mut String) {
        if !self.replica_resident_bytes.is_empty() {
            let memory =
                self.replica_resident_bytes.iter().map(|bytes| format!("{} MiB", bytes >> 20));
            let memory = memory.collect::<Vec<_>>().join(", ");
            line(text, "", [format!("\n{}: resident memory of the replicas {memory}", self.name)]);
        }
        if self.errors > 0 {
            line(text, "", [format!("{}: {} errors", self.name, self.errors)]);
            self.first_errors
                .iter()
                .take(5)
                .for_each(|error| line(text, "", [format!("  {error}")]));
        }
        if self.digests_match == Some(false) {
            line(text, "", [format!("{}: what was read back is NOT what was written", self.name)]);
        }
    }
}

/// One line; the name has a column of its own unless it is empty.
fn line(text: &mut String, name: &str, columns: impl IntoIterator<Item = String>) {
    let columns: String = columns.into_iter().collect();
    // Writing to a string cannot fail.
    let _ = match name {
        "" => writeln!(text, "{columns}"),
        name => writeln!(text, "{name:<18}{columns}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use workloads::andrew::{PhaseTime, Report};
    use workloads::verify::Verification;

    fn outcome(seconds: f64, errors: u64) -> Outcome {
        let phases = Phase::ALL.map(|phase| PhaseTime { name: phase.name(), seconds });
        let report = Report {
            tree: "test".into(),
            copies: 1,
            files: 2,
            bytes: 3,
            compiled: 1,
            included_only: 0,
            archives: 1,
            phases: phases.into(),
            total_seconds: seconds * 5.0,
            errors,
            first_errors: Vec::new(),
            stopped: false,
        };
        let verified = Verification { files: 2, matching: 2, errors: 0, first_errors: Vec::new() };
        Outcome { report, verified: Some(verified), resident_bytes: vec![seconds as u64] }
    }

    fn result(name: &'static str, rounds: &[f64]) -> TargetResult {
        let mut result = TargetResult::new(name);
        rounds.iter().for_each(|seconds| result.add(outcome(*seconds, 0)));
        result
    }

    fn comparison(targets: Vec<TargetResult>) -> Comparison {
        Comparison::new(&SourceTree::lua().unwrap(), 1, 3, 2, targets)
    }

    #[test]
    fn median_minimum_and_the_largest_memory() {
        let odd = result("bfs", &[9.0, 2.0, 4.0]);
        assert_eq!((odd.times[0].median, odd.times[0].min), (4.0, 2.0));
        assert_eq!((odd.times[5].name, odd.times[5].median), ("total", 20.0));
        assert_eq!(odd.replica_resident_bytes, [9]);
        assert_eq!(result("bfs", &[9.0, 2.0, 4.0, 5.0]).times[0].median, 4.5);
    }

    #[test]
    fn ratios_are_of_medians_and_only_of_targets_that_ran() {
        let mut failed = result("bfs-unreplicated", &[1.0]);
        failed.fail("no FUSE here".into());
        let compared = comparison(vec![
            result("native", &[2.0, 1.0, 3.0]),
            result("bfs", &[5.0, 4.0, 3.0]),
            failed,
        ]);
        assert_eq!(compared.ratios.len(), 1);
        let ratio = &compared.ratios[0];
        assert_eq!((ratio.of, ratio.to, ratio.times[5]), ("bfs", "native", ("total", Some(2.0))));
        assert!(!compared.is_sound());
        let table = compared.table();
        assert!(table.contains("not run: no FUSE here") && table.contains("2.00 ×"), "{table}");
    }

    #[test]
    fn one_error_or_one_wrong_digest_is_not_sound() {
        let mut bad = result("bfs", &[1.0]);
        assert!(comparison(vec![result("bfs", &[1.0])]).is_sound());
        bad.add(outcome(1.0, 1));
        assert!(!comparison(vec![bad]).is_sound());
        let mut unread = result("bfs", &[1.0]);
        unread.digests_match = Some(false);
        assert!(!comparison(vec![unread]).is_sound());
    }

    #[test]
    fn the_json_keeps_its_field_names() {
        let json =
            serde_json::to_value(comparison(vec![result("native", &[1.0]), result("bfs", &[2.0])]))
                .unwrap();
        let target = &json["targets"][1];
        assert_eq!((&target["name"], &target["times"][5]["median"]), (&"bfs".into(), &10.0.into()));
        assert!(target["replica_resident_bytes"].is_array() && target["errors"] == 0);
        assert_eq!(json["ratios"][0]["to"], "native");
        assert!(json["files"].is_u64() && json["rounds"] == 3);
    }
}
