//! A chart of the ratios, as an SVG picture: how many times better than
//! Buildbot, on a logarithmic scale. Readable on light and on dark pages.
//!
//! Written by hand: a bar is one element, and a library that draws charts
//! brings fonts, and pictures of its own, for which the developers' commands
//! would build for minutes.

use std::fmt::Write as _;

use super::ratios::Ratio;
use super::workloads::WORKLOADS;

const WIDTH: f64 = 860.0;
/// Where the labels end and the bars begin, and where those end at most: what
/// stands beside the longest one needs its place, too.
const LEFT: f64 = 270.0;
const RIGHT: f64 = 670.0;
const TOP: f64 = 64.0;
const BAR: f64 = 13.0;
const GAP: f64 = 12.0;

/// Colours that stand out on white and on black, and those of the text.
pub(super) const STYLE: &str = "\
text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#57606a}
.title{font-size:15px;font-weight:600;fill:#24292f}
.label{fill:#24292f}
.times{font-weight:600;fill:#24292f}
.small{font-size:11px}
.plain{fill:#2f81f7}.tuned{fill:#d29922}
.line{stroke:#8c959f;stroke-opacity:.35}.one{stroke:#8c959f}
@media (prefers-color-scheme:dark){text{fill:#9198a1}.title,.label,.times{fill:#e6edf3}}
";

/// A bar, or two: against Buildbot as it is shipped, and tuned.
struct Row<'a> {
    label: &'static str,
    plain: Option<&'a Ratio>,
    tuned: Option<&'a Ratio>,
}

impl Row<'_> {
    fn bars(&self) -> impl Iterator<Item = (&'static str, &Ratio, f64)> {
        [("plain", self.plain), ("tuned", self.tuned)].into_iter().filter_map(|(class, ratio)| {
            let ratio = ratio?;
            Some((class, ratio, ratio.times?))
        })
    }
}

/// Draws those ratios that the registry names as headlines.
///
/// # Errors
/// When there is none.
pub fn draw(ratios: &[Ratio], ours: &str, theirs: &str) -> Result<String, String> {
    let mut rows = Vec::new();
    for workload in WORKLOADS {
        for (metric, label) in workload.headlines {
            let find = |tuned: bool| {
                ratios.iter().find(|ratio| {
                    (ratio.workload, ratio.metric, ratio.tuned) == (workload.name, *metric, tuned)
                })
            };
            let row = Row { label, plain: find(false), tuned: find(true) };
            if row.bars().next().is_some() {
                rows.push(row);
            }
        }
    }
    let all = || rows.iter().flat_map(|row| row.bars().map(|(.., times)| times.log10()));
    let most = all().fold(1.0, f64::max).ceil();
    let least = all().fold(0.0, f64::min).floor();
    if rows.is_empty() {
        return Err("there is no ratio to draw: measure with --with buildbot".to_owned());
    }
    let place = |log: f64| LEFT + (RIGHT - LEFT) * (log - least) / (most - least);
    let height = |row: &Row<'_>| BAR * row.bars().count() as f64 + GAP;
    let bottom = TOP + rows.iter().map(height).sum::<f64>();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {0:.0}\" \
         width=\"{WIDTH}\" height=\"{0:.0}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <title>{1}, times better than {2}</title>\n\
         <text class=\"title\" x=\"8\" y=\"22\">How many times better {1} is than {2}</text>\n",
        bottom + 12.0,
        escaped(ours),
        escaped(theirs),
    );
    key(&mut svg, rows.iter().any(|row| row.tuned.is_some()));
    grid(&mut svg, least as i32, most as i32, bottom, place);
    let mut top = TOP;
    for row in &rows {
        let middle = top + (height(row) - GAP) / 2.0 + 4.5;
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<text class=\"label\" x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 10.0,
            escaped(row.label)
        );
        for (index, (class, ratio, times)) in row.bars().enumerate() {
            bar(&mut svg, top + BAR * index as f64, class, ratio, times, &place);
        }
        top += height(row);
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// What the colours mean.
fn key(svg: &mut String, tuned: bool) {
    let names = [("plain", "as it is shipped"), ("tuned", "tuned as its manual offers")];
    for (index, (class, name)) in names.into_iter().take(1 + usize::from(tuned)).enumerate() {
        let x = LEFT + 130.0 * index as f64;
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"34\" width=\"10\" height=\"10\" rx=\"2\"/>\
             <text class=\"small\" x=\"{}\" y=\"43\">{name}</text>",
            x + 15.0
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"{}\" y=\"43\" text-anchor=\"end\">small: ours / theirs</text>",
        WIDTH - 8.0
    );
}

/// A line for each power of ten.
fn grid(svg: &mut String, least: i32, most: i32, bottom: f64, place: impl Fn(f64) -> f64) {
    for power in least..=most {
        let x = place(f64::from(power));
        let class = if power == 0 { "one" } else { "line" };
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            TOP - 5.0,
            times(10f64.powi(power))
        );
    }
}

fn bar(
    svg: &mut String,
    top: f64,
    class: &str,
    ratio: &Ratio,
    factor: f64,
    place: &impl Fn(f64) -> f64,
) {
    let (one, end) = (place(0.0), place(factor.log10()));
    let (x, width) = (one.min(end), (end - one).abs().max(1.0));
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{}\" rx=\"2\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\"><tspan class=\"times\">{}</tspan>\
         <tspan class=\"small\" dx=\"6\">{} / {}</tspan></text>",
        top + 1.0,
        BAR - 2.0,
        one.max(end) + 6.0,
        top + BAR - 2.5,
        times(factor),
        with_unit(ratio.metric, ratio.ours.value),
        with_unit(ratio.metric, ratio.theirs.value),
    );
}

/// `1,234×`, `2.5×`.
fn times(factor: f64) -> String {
    if factor < 10.0 {
        let text = format!("{factor:.1}");
        return format!("{}×", text.strip_suffix(".0").unwrap_or(&text));
    }
    format!("{}×", grouped(factor))
}

/// A whole number, its digits in groups of three.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A figure with the unit that its name ends with.
fn with_unit(metric: &str, value: f64) -> String {
    let (value, unit) = match metric {
        name if name.ends_with("mb_per_s") => (value, " MB/s"),
        name if name.ends_with("_per_s") => (value, "/s"),
        name if name.ends_with("cpu_s_per_build") => (value * 1000.0, " ms"),
        name if name.ends_with("_s") && value < 1.0 => (value * 1000.0, " ms"),
        name if name.ends_with("_s") => (value, " s"),
        name if name.ends_with("_ms") && value >= 1000.0 => (value / 1000.0, " s"),
        name if name.ends_with("_ms") => (value, " ms"),
        name if name.ends_with("_mb") => (value, " MB"),
        name if name.starts_with("kib_") => (value, " KiB"),
        name if name.ends_with("_pct") => (value, " %"),
        _ => (value, ""),
    };
    let number = match value.abs() {
        size if size >= 100.0 => grouped(value),
        size if size >= 10.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    number + unit
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::ratios::Figure;
    use super::*;

    fn ratio(
        metric: &'static str,
        tuned: bool,
        ours: f64,
        theirs: f64,
        times: Option<f64>,
    ) -> Ratio {
        let (ours, theirs) = (Figure { n: 1, value: ours }, Figure { n: 1, value: theirs });
        Ratio { workload: "throughput", metric, tuned, ours, theirs, times }
    }

    #[test]
    fn each_ratio_has_a_bar_as_long_as_its_logarithm() {
        let ratios = [
            ratio("builds_per_s", false, 2_500.0, 25.0, Some(100.0)),
            ratio("builds_per_s", true, 2_500.0, 250.0, Some(10.0)),
            ratio("master_cpu_s_per_build", false, 0.0, 0.1, None),
        ];
        let svg = draw(&ratios, "a & b", "c").unwrap();
        let widths: Vec<&str> = svg
            .lines()
            .filter(|line| line.contains("<tspan"))
            .filter_map(|line| line.split("width=\"").nth(1)?.split('"').next())
            .collect();
        assert_eq!(widths, ["400.0", "200.0"], "{svg}");
        assert!(svg.contains("a &amp; b"));
        assert!(svg.contains(">100×</tspan>") && svg.contains("2,500/s / 250/s"), "{svg}");
        // Every element that is opened is closed.
        for name in ["svg", "text", "tspan", "style", "title"] {
            let count = |text: &str| svg.matches(text).count();
            let opened = count(&format!("<{name} ")) + count(&format!("<{name}>"));
            assert_eq!(opened, count(&format!("</{name}>")), "{name}");
        }
    }

    #[test]
    fn without_a_ratio_there_is_no_chart() {
        assert!(draw(&[], "a", "b").unwrap_err().contains("no ratio"));
    }

    #[test]
    fn what_is_worse_than_buildbot_points_to_the_left() {
        let svg = draw(&[ratio("builds_per_s", false, 1.0, 10.0, Some(0.1))], "a", "b").unwrap();
        let line = svg.lines().find(|line| line.contains("<tspan")).unwrap();
        assert!(line.contains(&format!("x=\"{LEFT:.1}\"")) && line.contains("0.1×"), "{line}");
    }

    #[test]
    fn figures_have_units() {
        let told: Vec<String> = [
            ("p50_ms", 4.24),
            ("builds_per_s", 2_560.4),
            ("mb_per_s", 104.0),
            ("master_cpu_s_per_build", 0.00051),
            ("reconfig_s", 0.0363),
            ("settled_after_attach_s", 194.2),
            ("api_p99_ms", 15_000.0),
            ("kib_per_worker", 18.65),
        ]
        .map(|(metric, value)| with_unit(metric, value))
        .to_vec();
        assert_eq!(
            told,
            ["4.2 ms", "2,560/s", "104 MB/s", "0.51 ms", "36 ms", "194 s", "15 s", "19 KiB"]
        );
        assert_eq!([2.5, 1.0, 12_345.6].map(times), ["2.5×", "1×", "12,346×"]);
    }
}
