//! `bfs top`: the status of a group again and again, with how much it orders and what has changed.

use crate::failure::{Exit, Outcome};
use crate::status::{self, Report, Survey};
use clap::Args;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use workloads::stop::Stop;

/// Arguments of `bfs top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// The group's public file
    #[arg(value_name = "GROUP", env = "BFS_GROUP")]
    pub group: PathBuf,
    /// The folder with this client's keys; not those of a mount in use, whose links these would replace
    #[arg(long, value_name = "KEYDIR", env = "BFS_KEY")]
    pub key: Option<PathBuf>,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, env = "BFS_INTERVAL")]
    pub interval: f64,
    /// End after so many looks
    #[arg(long, value_name = "N", env = "BFS_COUNT")]
    pub count: Option<u64>,
}

/// How many changes are remembered.
const CHANGES_MAX: usize = 8;

/// What was seen so far.
#[derive(Default)]
struct History {
    /// How far a correct replica had executed, and when that was seen.
    executed: Option<(u64, Instant)>,
    /// What each replica was last, in words.
    standings: Vec<String>,
    view: Option<u64>,
    changes: Vec<String>,
}

impl History {
    /// Batches a second since the last look. What only f replicas claim does not count.
    fn rate(&mut self, survey: &Survey, now: Instant) -> Option<f64> {
        let executed = status::executed(survey)?;
        let before = self.executed.replace((executed, now));
        let (before, then) = before?;
        let seconds = now.duration_since(then).as_secs_f64();
        Some(executed.saturating_sub(before) as f64 / seconds.max(0.001))
    }

    /// Notes every replica whose standing is another than before, and every new view.
    fn note(&mut self, report: &Report, at: Duration) {
        let seconds = at.as_secs_f64();
        let now = report.standings();
        for (id, standing) in now.iter().enumerate() {
            if self.standings.get(id).is_some_and(|before| before != standing) {
                self.changes.push(format!("{seconds:>7.1} s  r{id}: {standing}"));
            }
        }
        self.standings = now;
        let view = report.view();
        if let (Some(view), Some(before)) = (view, self.view)
            && view != before
        {
            self.changes.push(format!("{seconds:>7.1} s  view {before} -> {view}"));
        }
        self.view = view.or(self.view);
        let old = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..old);
    }
}

/// Looks until somebody asks to stop; ends as `bfs status` would.
pub fn run(args: &TopArgs) -> Outcome<Exit> {
    let key = args.key.clone().map_or_else(crate::keys::default_folder, Ok)?;
    let stop = Stop::on_signals()
        .map_err(|error| crate::failure::Failure::new("cannot watch for Ctrl-C", error))?;
    let (begun, mut history) = (Instant::now(), History::default());
    let mut last = Exit::Stalled;
    let mut looks = 0;
    while args.count.is_none_or(|count| looks < count) {
        let survey = crate::session::survey(&args.group, &key)?;
        let report = Report::new(&survey);
        last = report.exit();
        let rate = history.rate(&survey, Instant::now());
        history.note(&report, begun.elapsed());
        show(&report, rate, &history);
        looks += 1;
        let ends = args.count.is_some_and(|count| looks >= count);
        if ends || !stop.sleep(Duration::from_secs_f64(args.interval.clamp(0.05, 3600.0))) {
            break;
        }
    }
    Ok(last)
}

fn show(report: &Report, rate: Option<f64>, history: &History) {
    let mut text = report.text();
    if let Some(rate) = rate {
        let _ = writeln!(text, "  {rate:.0} batches a second");
    }
    for change in &history.changes {
        let _ = writeln!(text, "  {change}");
    }
    if io::stdout().is_terminal() {
        // Home, the text, and nothing of what was below: no flicker.
        text = format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"));
    } else {
        text.push('\n');
    }
    let mut out = io::stdout().lock();
    // Whoever closed the stream does not want to read it.
    let _ =
        io::Write::write_all(&mut out, text.as_bytes()).and_then(|()| io::Write::flush(&mut out));
}
