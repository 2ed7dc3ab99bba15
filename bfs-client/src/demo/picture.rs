//! The attack timeline as a picture: throughput over time, with the attacks marked. SVG by hand, made from a run's JSON.

use super::series::Series;
use crate::failure::{Failure, Outcome};
use serde::Deserialize;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const WIDTH: f64 = 1120.0;
const HEIGHT: f64 = 420.0;
/// The plot's edges.
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 64.0;
const TOP: f64 = 132.0;
const BOTTOM: f64 = HEIGHT - 48.0;

/// What a run's JSON says, as far as it is drawn.
#[derive(Debug, Deserialize)]
pub struct Timeline {
    replicas: usize,
    f: usize,
    series: Series,
    attacks: Vec<Mark>,
}

#[derive(Debug, Deserialize)]
struct Mark {
    id: String,
    title: String,
    replica: Option<usize>,
    at_seconds: f64,
    lasted_ms: f64,
    recovery_ms: f64,
    client_errors: u64,
}

impl Mark {
    fn ends(&self) -> f64 {
        self.at_seconds + self.lasted_ms / 1000.0
    }

    fn is_well_at(&self) -> f64 {
        self.ends() + self.recovery_ms / 1000.0
    }

    fn who(&self) -> String {
        self.replica.map_or("client".into(), |id| format!("r{id}"))
    }
}

/// Where a time and a rate are in the picture.
struct Scale {
    seconds: f64,
    rate: f64,
}

impl Scale {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (seconds / self.seconds).clamp(0.0, 1.0)
    }

    fn y(&self, rate: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (rate / self.rate).clamp(0.0, 1.0)
    }
}

/// The next of 1, 2, 5, 10, … times a power of ten that makes at most `most` steps up to `value`.
fn round_step(value: f64, most: f64) -> f64 {
    let least = (value / most).max(1e-9);
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|step| *step >= least * 0.999_999)
        .unwrap_or(10.0 * power)
}

/// Reads the JSON of a run in `from`, and writes its picture to `to`.
///
/// Errors: `from` is not the JSON of a whole run; `to` cannot be written.
pub fn draw_file(from: &Path, to: &Path) -> Outcome {
    let what = || format!("cannot draw {}", from.display());
    let advice = "make it with: ./x demo --json FILE";
    let text = fs::read(from).map_err(|error| Failure::new(what(), error).advise(advice))?;
    let timeline: Timeline = serde_json::from_slice(&text)
        .map_err(|error| Failure::new(what(), error).advise(advice))?;
    let cannot = |error| Failure::new(format!("cannot write {}", to.display()), error);
    fs::write(to, draw(&timeline)).map_err(cannot)
}

/// The picture. It has no background of its own, and its colours follow the reader's.
pub fn draw(timeline: &Timeline) -> String {
    let step = timeline.series.step_ms as f64 / 1000.0;
    let rates: Vec<f64> = timeline.series.operations.iter().map(|n| *n as f64 / step).collect();
    let last = timeline.attacks.iter().map(Mark::is_well_at).fold(1.0, f64::max);
    let top = rates.iter().copied().fold(1.0, f64::max);
    let tick = round_step(top, 5.0);
    let scale =
        Scale { seconds: last.max(rates.len() as f64 * step), rate: (top / tick).ceil() * tick };
    let mut svg = head(timeline);
    timeline
        .attacks
        .iter()
        .enumerate()
        .for_each(|(i, mark)| draw_attack(&mut svg, &scale, i, mark));
    draw_axes(&mut svg, &scale, tick);
    draw_rates(&mut svg, &scale, step, &rates);
    svg.push_str("</svg>\n");
    svg
}

fn head(timeline: &Timeline) -> String {
    let errors: u64 = timeline.attacks.iter().map(|mark| mark.client_errors).sum();
    let title = format!(
        "{} attacks on a group of {} replicas (f = {}), one after the other, while programs work: {errors} errors",
        timeline.attacks.len(),
        timeline.replicas,
        timeline.f
    );
    let title = escape(&title);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title" font-family="system-ui, sans-serif" font-size="12">
<title id="title">{title}</title>
<style>
  text {{ fill: #1f2328; }}
  .grid {{ stroke: #d0d7de; }}
  .rate {{ fill: none; stroke: #0969da; stroke-width: 1.5; stroke-linejoin: round; }}
  .attack {{ fill: #cf222e; fill-opacity: 0.28; }}
  .recovery {{ fill: #9a6700; fill-opacity: 0.18; }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6edf3; }}
    .grid {{ stroke: #3d444d; }}
    .rate {{ stroke: #4493f8; }}
    .attack {{ fill: #f85149; fill-opacity: 0.35; }}
    .recovery {{ fill: #d29922; fill-opacity: 0.22; }}
  }}
</style>
<text x="{LEFT}" y="18" font-size="14" font-weight="600">{title}</text>
<rect class="attack" x="{LEFT}" y="28" width="12" height="12"/><text x="{x1}" y="38">under attack</text>
<rect class="recovery" x="{x2}" y="28" width="12" height="12"/><text x="{x3}" y="38">until all replicas agree again</text>
"##,
        x1 = LEFT + 18.0,
        x2 = LEFT + 110.0,
        x3 = LEFT + 128.0,
    )
}

fn draw_attack(svg: &mut String, scale: &Scale, number: usize, mark: &Mark) {
    let (begin, end) = (scale.x(mark.at_seconds), scale.x(mark.ends()));
    let (well, height) = (scale.x(mark.is_well_at()), BOTTOM - TOP);
    let what = escape(&format!("{} by {}: {}", mark.id, mark.who(), mark.title));
    let _ = writeln!(svg, "<g><title>{what}</title>");
    for (class, from, to) in [("attack", begin, end), ("recovery", end, well)] {
        let width = (to - from).max(0.0);
        let _ = writeln!(
            svg,
            r#"<rect class="{class}" x="{from:.1}" y="{TOP}" width="{width:.1}" height="{height}"/>"#
        );
    }
    // Slanted, so that neighbours do not overlap.
    let (x, y) = (begin + 6.0, TOP - 6.0);
    let label = escape(&format!("{} {}", mark.id, mark.who()));
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y}" transform="rotate(-45 {x:.1} {y})" data-attack="{number}">{label}</text></g>"#
    );
}

fn draw_axes(svg: &mut String, scale: &Scale, tick: f64) {
    let mut rate = 0.0;
    while rate <= scale.rate + tick / 2.0 {
        let y = scale.y(rate);
        let _ = writeln!(
            svg,
            r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{RIGHT}" y2="{y:.1}"/><text x="{x}" y="{t:.1}" text-anchor="end">{rate:.0}</text>"#,
            x = LEFT - 6.0,
            t = y + 4.0,
        );
        rate += tick;
    }
    let step = round_step(scale.seconds, 12.0);
    let mut seconds = 0.0;
    while seconds <= scale.seconds {
        let _ = writeln!(
            svg,
            r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{seconds:.0}</text>"#,
            x = scale.x(seconds),
            y = BOTTOM + 18.0,
        );
        seconds += step;
    }
    let _ = writeln!(
        svg,
        r#"<text x="{x}" y="{y}" text-anchor="middle">time since the first attack, seconds</text>"#,
        x = (LEFT + RIGHT) / 2.0,
        y = HEIGHT - 10.0,
    );
    let y = (TOP + BOTTOM) / 2.0;
    let _ = writeln!(
        svg,
        r#"<text x="16" y="{y}" transform="rotate(-90 16 {y})" text-anchor="middle">operations of programs a second</text>"#
    );
}

fn draw_rates(svg: &mut String, scale: &Scale, step: f64, rates: &[f64]) {
    svg.push_str(r#"<polyline class="rate" points=""#);
    for (i, rate) in rates.iter().enumerate() {
        // In the middle of its step.
        let _ = write!(svg, "{:.1},{:.1} ", scale.x((i as f64 + 0.5) * step), scale.y(*rate));
    }
    svg.push_str("\"/>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = r#"{"replicas": 4, "f": 1, "other": [1],
        "series": {"step_ms": 250, "operations": [10, 0, 20, 15]},
        "attacks": [
            {"id": "B-01", "title": "orders \"a\" & <b>", "replica": 0, "at_seconds": 0.1,
             "lasted_ms": 400.0, "recovery_ms": 300.0, "client_errors": 0},
            {"id": "B-52", "title": "floods", "replica": null, "at_seconds": 0.9,
             "lasted_ms": 100.0, "recovery_ms": 0.0, "client_errors": 0}]}"#;

    fn picture() -> String {
        draw(&serde_json::from_str(RUN).unwrap())
    }

    /// Whether every element that is opened is closed, in order, and no text holds a bare sign of markup.
    fn is_well_formed(svg: &str) -> bool {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some(begin) = rest.find('<') {
            let Some(end) = rest[begin..].find('>').map(|end| begin + end) else { return false };
            let tag = &rest[begin + 1..end];
            let name = tag.trim_matches('/').split_whitespace().next().unwrap_or_default();
            match (tag.starts_with('/'), tag.ends_with('/')) {
                (true, _) if open.pop() != Some(name.to_owned()) => return false,
                (false, false) => open.push(name.to_owned()),
                _ => {}
            }
            if !tag.matches('"').count().is_multiple_of(2) || rest[..begin].contains('>') {
                return false;
            }
            rest = &rest[end + 1..];
        }
        open.is_empty() && rest.trim().is_empty()
    }

    #[test]
    fn it_is_well_formed_and_escapes_what_a_run_says() {
        let svg = picture();
        assert!(is_well_formed(&svg), "{svg}");
        assert!(svg.contains("orders &quot;a&quot; &amp; &lt;b&gt;"), "{svg}");
        assert!(!is_well_formed("<svg><g></svg>") && !is_well_formed("<svg>a > b</svg>"));
    }

    #[test]
    fn it_shows_every_attack_every_step_and_both_units() {
        let svg = picture();
        assert_eq!(svg.matches("data-attack=").count(), 2);
        assert!(svg.contains(">B-01 r0<") && svg.contains(">B-52 client<"), "{svg}");
        assert_eq!(svg.matches(r#"class="attack""#).count(), 3, "two and the legend");
        assert_eq!(svg.matches(r#"class="recovery""#).count(), 3);
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(points.split_whitespace().count(), 4);
        assert!(svg.contains("seconds<") && svg.contains("operations of programs a second"));
        assert!(svg.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn twice_the_rate_is_twice_as_high_and_time_goes_right() {
        let svg = picture();
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let points: Vec<(f64, f64)> = points
            .split_whitespace()
            .map(|point| {
                let (x, y) = point.split_once(',').unwrap();
                (x.parse().unwrap(), y.parse().unwrap())
            })
            .collect();
        assert!((points[1].1 - BOTTOM).abs() < 0.2, "nothing done is the axis");
        let height = |i: usize| BOTTOM - points[i].1;
        assert!((height(2) - 2.0 * height(0)).abs() < 0.3, "{points:?}");
        assert!(points.windows(2).all(|two| two[0].0 < two[1].0));
    }

    #[test]
    fn steps_of_an_axis_are_round() {
        assert_eq!(round_step(80.0, 5.0), 20.0);
        assert_eq!(round_step(1000.0, 5.0), 200.0);
        assert_eq!(round_step(70.0, 12.0), 10.0);
        assert_eq!(round_step(1.0, 5.0), 0.2);
    }
}
