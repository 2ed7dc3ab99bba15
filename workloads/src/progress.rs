//! How people see work go on: a bar on a terminal, one line for each finished part anywhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Is told how work goes on, from any of its threads.
pub trait Progress: Sync {
    /// A part called `what` begins; it has `items` items.
    fn begin(&self, _what: &'static str, _items: u64) {}
    /// One more item of the part called `what` is done.
    fn advance(&self, _what: &'static str) {}
    /// The part has ended after `time`, with `items` of its items done.
    fn end(&self, _what: &'static str, _items: u64, _time: Duration) {}
}

/// Shows nothing.
pub struct Silent;

impl Progress for Silent {}

/// Where lines go. Bars go to standard error, and only if it is a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    Stdout,
    Stderr,
}

/// Shows progress to whoever started this process.
pub struct Console {
    lines: Lines,
    indent: &'static str,
    bar: Mutex<ProgressBar>,
}

impl Console {
    /// Lines begin with `indent`.
    pub fn new(lines: Lines, indent: &'static str) -> Self {
        Self { lines, indent, bar: Mutex::new(ProgressBar::hidden()) }
    }

    /// Prints a line of its own, above the bar if there is one.
    pub fn note(&self, line: &str) {
        self.bar().suspend(|| {
            // Whoever closed the stream does not want to read it; the work goes on.
            let _ = match self.lines {
                Lines::Stdout => writeln!(io::stdout(), "{line}"),
                Lines::Stderr => writeln!(io::stderr(), "{line}"),
            };
        });
    }

    fn bar(&self) -> MutexGuard<'_, ProgressBar> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Console {
    fn begin(&self, what: &'static str, items: u64) {
        let bar = ProgressBar::with_draw_target(Some(items), ProgressDrawTarget::stderr());
        let template = format!("{}{{msg:<18}} {{bar:40}} {{pos}}/{{len}}", self.indent);
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        *self.bar() = bar;
    }

    fn advance(&self, _what: &'static str) {
        self.bar().inc(1);
    }

    fn end(&self, what: &'static str, items: u64, time: Duration) {
        self.bar().finish_and_clear();
        self.note(&format!("{}{what:<18} {items:>7} {:>9.3} s", self.indent, time.as_secs_f64()));
    }
}
