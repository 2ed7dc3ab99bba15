//! `report`: what was measured, for people: tables in docs/performance.md, and docs/performance.html with plots, both made
//! from the JSON that `./x micro`, `./x compare` and `./x scale` have written.
//!
//! ```text
//! tables.rs   the tables, between their marks in the text
//! plots.rs    the plots, SVG by hand
//! ```

mod plots;
mod tables;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Makes tables and plots of what was measured
#[derive(Parser)]
#[command(name = "report", version)]
struct Arguments {
    /// What `./x micro --json` has written
    #[arg(long, default_value = "docs/figures/micro.json")]
    micro: PathBuf,
    /// What `./x compare --json` has written
    #[arg(long, default_value = "docs/figures/compare.json")]
    compare: PathBuf,
    /// What `./x scale --json` has written
    #[arg(long, default_value = "docs/figures/scale.json")]
    scale: PathBuf,
    /// The text whose tables are made anew
    #[arg(long, default_value = "docs/performance.md")]
    text: PathBuf,
    /// The page with the plots
    #[arg(long, default_value = "docs/performance.html")]
    page: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let [micro, compare, scale] =
        [&arguments.micro, &arguments.compare, &arguments.scale].map(|path| read(path));
    let (micro, compare, scale) = (micro?, compare?, scale?);
    let text = fs::read_to_string(&arguments.text)
        .with_context(|| format!("cannot read {}", arguments.text.display()))?;
    let text = tables::fill(&text, &micro, &compare, &scale)?;
    write(&arguments.text, &text)?;
    write(&arguments.page, &plots::page(&micro, &compare)?)
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| {
        format!(
            "cannot read {}\n  try: ./x micro --json FILE; so with ./x compare and ./x scale",
            path.display()
        )
    })?;
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The work whose parts are shown.
const ONE_COPY: &str = "Andrew-style, 1 copy";

/// The words at `key` of these rows, each once.
fn distinct<'a>(rows: impl IntoIterator<Item = &'a Value>, key: &str) -> Result<Vec<&'a str>> {
    let mut seen = Vec::new();
    for row in rows {
        let word = words(row, key)?;
        if !seen.contains(&word) {
            seen.push(word);
        }
    }
    Ok(seen)
}

/// The list at `key`.
fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("there is no list {key}"))
}

/// The number at `key`.
fn number(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().with_context(|| format!("there is no number {key} in {value}"))
}

/// The words at `key`.
fn words<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("there are no words {key} in {value}"))
}

/// Where and of what the figures were taken, in words.
fn stamp(figures: &Value) -> Result<String> {
    let stamp = &figures["stamp"];
    let gib = number(stamp, "memory_mib")? / 1024.0;
    let halts = match stamp["halts_after_ns"].as_u64() {
        None => String::new(),
        Some(0) => ", idle cores halt at once".into(),
        Some(ns) => format!(", idle cores halt after {} µs", ns / 1000),
    };
    Ok(format!(
        "commit {}, {} cores ({}), {gib:.0} GiB, Linux {}{halts}",
        words(stamp, "commit")?,
        stamp["cores"],
        words(stamp, "processor")?,
        words(stamp, "kernel")?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_says_when_idle_cores_halt_if_it_knows() {
        let stamp_of = |halts: Value| {
            let machine = serde_json::json!({"commit": "abc", "cores": 2, "processor": "P", "memory_mib": 2048,
                "kernel": "6.1", "halts_after_ns": halts});
            stamp(&serde_json::json!({"stamp": machine})).unwrap()
        };
        let known = "commit abc, 2 cores (P), 2 GiB, Linux 6.1";
        assert_eq!(stamp_of(Value::Null), known);
        assert_eq!(stamp_of(0.into()), format!("{known}, idle cores halt at once"));
        assert_eq!(stamp_of(200_000.into()), format!("{known}, idle cores halt after 200 µs"));
        assert!(stamp(&serde_json::json!({"stamp": {"memory_mib": 1}})).is_err());
    }
}
