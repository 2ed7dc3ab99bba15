//! How people see work go on: a bar on a terminal, one line for each finished part anywhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
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
    /// How a line looks on a terminal.
    paint: Option<fn(&str) -> String>,
    /// Where every line goes besides.
    copy: Option<Mutex<File>>,
}

impl Console {
    /// Lines begin with `indent`.
    pub fn new(lines: Lines, indent: &'static str) -> Self {
        Self { lines, indent, bar: Mutex::new(ProgressBar::hidden()), paint: None, copy: None }
    }

    /// The same with lines that are painted where a terminal shows them.
    pub fn painted(self, paint: fn(&str) -> String) -> Self {
        let shown = match self.lines {
            Lines::Stdout => io::stdout().is_terminal(),
            Lines::Stderr => io::stderr().is_terminal(),
        };
        let wanted = shown && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        Self { paint: wanted.then_some(paint), ..self }
    }

    /// The same with a copy of every line, as plain text, in `file`.
    pub fn copied_to(self, file: File) -> Self {
        Self { copy: Some(Mutex::new(file)), ..self }
    }

    /// Shows a bar that goes on by itself: `done` of `all` parts are over, and `what` is the one that runs.
    pub fn follow(&self, what: String, done: u64, all: u64) {
        let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
        let template =
            format!("{}{{spinner}} {{bar:28}} {{pos}}/{{len}}  {{elapsed}}  {{msg}}", self.indent);
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        bar.set_position(done);
        bar.enable_steady_tick(Duration::from_millis(120));
        std::mem::replace(&mut *self.bar(), bar).finish_and_clear();
    }

    /// Takes the bar away.
    pub fn unfollow(&self) {
        self.bar().finish_and_clear();
    }

    /// Prints a line of its own, above the bar if there is one.
    pub fn note(&self, line: &str) {
        if let Some(copy) = &self.copy {
            let mut file = copy.lock().unwrap_or_else(PoisonError::into_inner);
            // A full disk is no reason to end the work.
            let _ = writeln!(file, "{line}");
        }
        let painted = self.paint.map(|paint| paint(line));
        let line = painted.as_deref().unwrap_or(line);
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
