//! The page: plots in SVG, nothing loaded from elsewhere.

use super::{ONE_COPY, distinct, list, number, stamp};
use anyhow::Result;
use serde_json::Value;
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 20.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = HEIGHT - 50.0;
/// What a letter of a legend takes, about, and what a name does besides.
const LETTER: f64 = 6.5;
const LEGEND_GAP: f64 = 28.0;
const COLOURS: [&str; 8] =
    ["#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#57606a", "#1b7c83"];

/// The whole page.
pub fn page(micro: &Value, compare: &Value) -> Result<String> {
    let mut page = HEAD.to_owned();
    writeln!(
        page,
        "<p>Micro-benchmarks: {}.<br>Comparison: {}.</p>",
        stamp(micro)?,
        stamp(compare)?
    )?;
    section(&mut page, "Latency against throughput", LATENCY, &latency(micro)?)?;
    section(&mut page, "What an operation costs", COST, &cost(micro)?)?;
    section(&mut page, "The Andrew-style benchmark, phase by phase", ANDREW, &andrew(compare)?)?;
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>BFS: performance</title>
<style>
  body { font-family: system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; color: #1f2328; background: #fff; }
  svg text { font-size: 12px; fill: #1f2328; }
  .grid { stroke: #d0d7de; }
</style>
</head>
<body>
<h1>BFS: performance</h1>
"#;
const LATENCY: &str = "Null operations, ordered, with 1 to 200 in flight: each point is one number in flight, further to the right with more. Both axes are logarithmic. All replicas and the client share the cores of one machine, so a larger group has less of them for each replica.";
const COST: &str = "Processor time, user and system, of the replica that uses most and of the client, for one null operation on four replicas. It falls with the number in flight, since what a batch costs is shared by its operations.";
const ANDREW: &str = "One copy of the source tree; seconds of each phase in the middle of the rounds, on a logarithmic axis. bfs and bfs-unreplicated are FUSE mounts of this machine; bfs-nfs and the others are mounted over NFSv3 by the kernel of a guest (user-mode Linux), whose own slowness is the same for all of them. native is memory of this machine without any server.";

fn section(page: &mut String, title: &str, words: &str, plot: &str) -> Result<()> {
    Ok(writeln!(page, "<h2>{title}</h2>\n{plot}\n<p>{words}</p>")?)
}

/// A logarithmic scale from one pixel to another.
struct Log {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Log {
    /// Whole powers of ten around `values`.
    fn around(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let values = values.filter(|value| *value > 0.0);
        let least = values.clone().fold(f64::MAX, f64::min);
        let most = values.fold(f64::MIN_POSITIVE, f64::max);
        let (least, most) = (least.min(most).log10().floor(), most.log10().ceil());
        Self { least, most: most.max(least + 1.0), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.log10() - self.least) / (self.most - self.least);
        self.from + (self.to - self.from) * part.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        (self.least as i32..=self.most as i32).map(|power| 10f64.powi(power))
    }
}

fn begin() -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\">\n"
    )
}

fn axis_left(svg: &mut String, scale: &Log, unit: &str) -> Result<()> {
    for tick in scale.ticks() {
        let y = scale.at(tick);
        writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        )?;
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            short(tick)
        )?;
    }
    Ok(writeln!(svg, "<text x=\"{}\" y=\"{}\">{unit}</text>", LEFT + 4.0, TOP - 6.0)?)
}

/// A power of ten as people write it beside an axis.
fn short(tick: f64) -> String {
    match tick {
        1e6.. => format!("{}M", tick / 1e6),
        1e3.. => format!("{}k", tick / 1e3),
        _ => tick.to_string(),
    }
}

fn legend(svg: &mut String, names: &[String]) -> Result<()> {
    let mut x = LEFT;
    let y = HEIGHT - 8.0;
    for (i, name) in names.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
            y - 9.0
        )?;
        writeln!(svg, "<text x=\"{:.1}\" y=\"{y}\">{name}</text>", x + 14.0)?;
        x += LEGEND_GAP + LETTER * name.len() as f64;
    }
    Ok(())
}

fn latency(micro: &Value) -> Result<String> {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for load in list(micro, "loads")? {
        let name = format!("n = {}", load["n"]);
        let point = (number(load, "rate")?, number(&load["latency"], "p50")?);
        match lines.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.push(point),
            None => lines.push((name, vec![point])),
        }
    }
    let all = lines.iter().flat_map(|(_, points)| points);
    let x = Log::around(all.clone().map(|point| point.0), LEFT, RIGHT);
    let y = Log::around(all.map(|point| point.1), BOTTOM, TOP);
    let mut svg = begin();
    axis_left(&mut svg, &y, "µs, p50")?;
    for tick in x.ticks() {
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}/s</text>",
            x.at(tick),
            BOTTOM + 16.0,
            short(tick)
        )?;
    }
    for (i, (_, points)) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let at: Vec<_> = points
            .iter()
            .map(|(rate, p50)| format!("{:.1},{:.1}", x.at(*rate), y.at(*p50)))
            .collect();
        writeln!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" points=\"{}\"/>", at.join(" "))?;
        for point in at {
            let (x, y) = point.split_once(',').unwrap_or_default();
            writeln!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>")?;
        }
    }
    legend(&mut svg, &lines.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())?;
    Ok(svg + "</svg>")
}

/// Groups of bars: what each is about, and each bar's value, of all names.
fn bars(names: &[String], groups: &[(String, Vec<f64>)], unit: &str) -> Result<String> {
    let y = Log::around(groups.iter().flat_map(|(_, bars)| bars.iter().copied()), BOTTOM, TOP);
    let mut svg = begin();
    axis_left(&mut svg, &y, unit)?;
    let step = (RIGHT - LEFT) / groups.len().max(1) as f64;
    let width = step * 0.8 / names.len().max(1) as f64;
    for (i, (group, bars)) in groups.iter().enumerate() {
        let from = LEFT + step * (i as f64 + 0.1);
        for (k, value) in bars.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            let (x, top) = (from + width * k as f64, y.at(*value));
            let colour = COLOURS[k % COLOURS.len()];
            writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}: {value:.3}</title></rect>",
                width * 0.92,
                BOTTOM - top,
                names[k]
            )?;
        }
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{group}</text>",
            from + step * 0.4,
            BOTTOM + 16.0
        )?;
    }
    legend(&mut svg, names)?;
    Ok(svg + "</svg>")
}

fn cost(micro: &Value) -> Result<String> {
    let four = list(micro, "loads")?.iter().filter(|load| load["n"] == 4);
    let group = |load: &Value| {
        let costs = ["replica", "client"].map(|who| number(&load["cost"], who));
        Ok((format!("{} in flight", load["in_flight"]), costs.into_iter().collect::<Result<_>>()?))
    };
    let groups = four.map(group).collect::<Result<Vec<_>>>()?;
    bars(&["a replica".into(), "the client".into()], &groups, "µs")
}

fn andrew(compare: &Value) -> Result<String> {
    // Totals are of other parts where there is no compiling.
    let rows = list(compare, "rows")?.iter();
    let rows = rows.filter(|row| row["work"] == ONE_COPY && row["phase"] != "total");
    let names = distinct(rows.clone(), "target")?.into_iter().map(str::to_owned);
    let (names, phases) = (names.collect::<Vec<_>>(), distinct(rows.clone(), "phase")?);
    let seconds = |phase: &str, name: &str| {
        let row = rows.clone().find(|row| row["phase"] == phase && row["target"] == name);
        row.and_then(|row| row["seconds"]["median"].as_f64()).unwrap_or(0.0)
    };
    let group = |phase: &&str| {
        ((*phase).to_owned(), names.iter().map(|name| seconds(phase, name)).collect())
    };
    let groups: Vec<(String, Vec<f64>)> = phases.iter().map(group).collect();
    bars(&names, &groups, "seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_scale_has_its_ends_at_powers_of_ten() {
        let scale = Log::around([3.0, 200.0].into_iter(), 0.0, 300.0);
        assert_eq!([1.0, 10.0, 1000.0].map(|value| scale.at(value).round()), [0.0, 100.0, 300.0]);
        assert_eq!(scale.ticks().count(), 4);
    }

    #[test]
    fn every_measured_target_has_its_bar() {
        let row = |target, seconds| {
            serde_json::json!({"work": "Andrew-style, 1 copy", "phase": "copy", "target": target,
                "seconds": {"median": seconds}})
        };
        let compare = serde_json::json!({"rows": [row("a", 0.5), row("b", 2.0)]});
        let svg = andrew(&compare).unwrap();
        assert!(svg.contains("<title>a: 0.500</title>") && svg.contains("<title>b: 2.000</title>"));
    }
}
