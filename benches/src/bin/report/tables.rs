//! The tables of the text.

use super::{ONE_COPY, distinct, list, number, stamp, words};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;

/// A procedure that is called less often says little of the whole.
const OFTEN: f64 = 100.0;

/// The text with its tables made anew: each lies between `<!-- NAME -->` and `<!-- end -->`.
pub fn fill(text: &str, micro: &Value, compare: &Value, scale: &Value) -> Result<String> {
    let tables = [
        ("targets", targets(micro, compare)?),
        ("rounds", rounds(micro)?),
        ("loads", loads(micro)?),
        ("compare", work(compare)?),
        ("calls", calls(compare)?),
        ("scale", curves(scale)?),
        (
            "stamps",
            format!("Micro-benchmarks: {}.\nComparison: {}.\n", stamp(micro)?, stamp(compare)?),
        ),
    ];
    tables.iter().try_fold(text.to_owned(), |text, (name, table)| replace(&text, name, table))
}

fn replace(text: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("<!-- {name} -->\n");
    let (before, rest) =
        text.split_once(&begin).with_context(|| format!("there is no mark {begin}"))?;
    let (_, after) = rest.split_once("<!-- end -->").context("a mark has no end")?;
    Ok(format!("{before}{begin}{table}<!-- end -->{after}"))
}

fn targets(micro: &Value, compare: &Value) -> Result<String> {
    let mut table =
        "| measure | found | least to most | target | |\n|---|---|---|---|---|\n".to_owned();
    for target in list(micro, "targets")?.iter().chain(list(compare, "targets")?) {
        let (name, bound) = (words(target, "name")?, &target["target"]);
        let found = target["value"].as_f64().map_or("not measured".into(), |v| match v {
            1000.0.. => format!("{v:.0}"),
            _ => format!("{v:.3}"),
        });
        let spread = match (target["least"].as_f64(), target["most"].as_f64()) {
            (Some(least), Some(most)) if least < most => format!("{least:.2} to {most:.2}"),
            _ => String::new(),
        };
        let verdict = match target["met"].as_bool() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        writeln!(table, "| {name} | {found} | {spread} | {bound} | {verdict} |")?;
    }
    Ok(table)
}

fn rounds(micro: &Value) -> Result<String> {
    let mut table = "| | median | least | most |\n|---|---|---|---|\n".to_owned();
    let rows = micro["rounds"].as_object().context("there are no rounds")?;
    for (name, spread) in rows {
        let [median, least, most] = ["median", "least", "most"].map(|key| number(spread, key));
        let name = name.replace('_', " ");
        writeln!(table, "| {name} | {:.1} | {:.1} | {:.1} |", median?, least?, most?)?;
    }
    Ok(table)
}

fn loads(micro: &Value) -> Result<String> {
    let mut table =
        "| n | in flight | a second | p50 µs | p99 µs | µs a replica | µs the client |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    for load in list(micro, "loads")? {
        let (latency, cost) = (&load["latency"], &load["cost"]);
        writeln!(
            table,
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |",
            load["n"],
            load["in_flight"],
            number(load, "rate")?,
            number(latency, "p50")?,
            number(latency, "p99")?,
            number(cost, "replica")?,
            number(cost, "client")?
        )?;
    }
    Ok(table)
}

/// The totals of each work on each target, and what was not run.
fn work(compare: &Value) -> Result<String> {
    let rows = list(compare, "rows")?;
    let (works, names) = (distinct(rows, "work")?, distinct(rows, "target")?);
    let mut table =
        format!("| seconds | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for work in works {
        let cell = |name: &&str| {
            let total = |row: &&Value| {
                row["work"] == work && row["target"] == **name && row["phase"] == "total"
            };
            let median = rows.iter().find(total).and_then(|row| row["seconds"]["median"].as_f64());
            median.map_or("-".into(), |seconds| format!("{seconds:.2}"))
        };
        let cells: Vec<String> = names.iter().map(cell).collect();
        writeln!(table, "| {work} | {} |", cells.join(" | "))?;
    }
    for not_run in list(compare, "not_run")? {
        let why = words(not_run, "why")?.lines().next().unwrap_or_default();
        let work = not_run["work"].as_str().map_or(String::new(), |work| format!(", {work}"));
        writeln!(table, "\nNot run: {}{work}: {why}.", words(not_run, "target")?)?;
    }
    Ok(table)
}

/// What a call waits for its reply, for the procedures that the Andrew-style work calls most.
fn calls(compare: &Value) -> Result<String> {
    // A comparison without guests has none.
    let Some(rows) = compare["calls"].as_array().filter(|rows| !rows.is_empty()) else {
        return Ok("Not measured.\n".into());
    };
    let calls = |row: &Value| row["calls"]["median"].as_f64().unwrap_or_default();
    let rows = rows.iter().filter(|row| row["work"] == ONE_COPY);
    let names = distinct(rows.clone(), "target")?;
    let often = distinct(rows.clone().filter(|row| calls(row) >= OFTEN), "procedure")?;
    let columns = "---|".repeat(names.len());
    let mut table = format!("| ms | calls | {} |\n|---|---|{columns}\n", names.join(" | "));
    for procedure in often {
        let mut of = rows.clone().filter(|row| row["procedure"] == procedure);
        let cell = |name: &&str| {
            let row = of.clone().find(|row| row["target"] == **name);
            let median = row.and_then(|row| row["wait"]["median"].as_f64());
            median.map_or("-".into(), |ms| format!("{ms:.2}"))
        };
        let cells: Vec<String> = names.iter().map(cell).collect();
        let count = of.next().map_or(0.0, calls);
        writeln!(table, "| {procedure} | {count} | {} |", cells.join(" | "))?;
    }
    Ok(table)
}

/// A table for each thing that grows.
fn curves(scale: &Value) -> Result<String> {
    let mut tables = String::new();
    for curve in list(scale, "curves")? {
        let columns = list(curve, "columns")?.iter().filter_map(Value::as_str);
        let head: Vec<_> = std::iter::once(words(curve, "name")?).chain(columns).collect();
        writeln!(tables, "| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()))?;
        for row in list(curve, "rows")? {
            let cells = row.as_array().into_iter().flatten().filter_map(Value::as_f64).enumerate();
            let cells = cells.map(|(i, value)| match i {
                0 => format!("{value}"),
                _ => format!("{value:.1}"),
            });
            writeln!(tables, "| {} |", cells.collect::<Vec<_>>().join(" | "))?;
        }
        tables.push('\n');
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_replaced_between_its_marks() {
        let text = "a\n<!-- x -->\nold\n<!-- end -->\nb\n<!-- y -->\nkept\n<!-- end -->\n";
        let new = replace(text, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- x -->\nnew\n<!-- end -->\nb\n<!-- y -->\nkept\n<!-- end -->\n");
        assert_eq!(replace(&new, "x", "new\n").unwrap(), new);
        assert!(replace(text, "z", "").is_err());
    }

    #[test]
    fn targets_that_were_not_measured_are_said_so() {
        let micro = serde_json::json!({"targets": [{"name": "a", "value": 1.0, "least": 0.5, "most": 1.5, "target": 2.0, "met": true}]});
        let compare = serde_json::json!({"targets": [{"name": "b", "value": null, "target": 2.0, "met": null}]});
        let table = targets(&micro, &compare).unwrap();
        assert!(table.contains("| a | 1.000 | 0.50 to 1.50 | 2.0 | met |"), "{table}");
        assert!(table.contains("| b | not measured |  | 2.0 |  |"), "{table}");
    }

    #[test]
    fn calls_are_shown_of_what_is_called_often() {
        let row = |target: &str, procedure: &str, calls: f64| {
            let (calls, wait) =
                (serde_json::json!({"median": calls}), serde_json::json!({"median": 0.5}));
            serde_json::json!({"work": ONE_COPY, "target": target, "procedure": procedure, "calls": calls, "wait": wait})
        };
        let rows = [row("a", "NULL", 1.0), row("a", "READ", 284.0), row("b", "WRITE", 300.0)];
        let table = calls(&serde_json::json!({"calls": rows})).unwrap();
        let expected = "| READ | 284 | 0.50 | - |\n| WRITE | 300 | - | 0.50 |\n";
        assert_eq!(table, format!("| ms | calls | a | b |\n|---|---|---|---|\n{expected}"));
    }
}
