//! A chart of the curves of `cargo xtask growth`, as an SVG picture: one panel
//! a curve, all with the same scale from nothing on, so that what is constant
//! looks constant. By hand for the reasons told in `chart`.

use std::fmt::Write as _;

use super::chart::{STYLE, escaped, grouped};

/// A curve: what grows, and at each size how many milliseconds.
pub type Line<'a> = (&'a str, Vec<(u64, f64)>);

const WIDTH: f64 = 860.0;
const TOP: f64 = 40.0;
const PANEL: (f64, f64) = (420.0, 190.0);
/// Around the lines of a panel: what is written stands there.
const SIDE: f64 = 46.0;
const ABOVE: f64 = 44.0;
const BELOW: f64 = 26.0;

/// Draws the curves that have points.
///
/// # Errors
/// When none has.
pub fn draw(curves: &[Line<'_>], title: &str) -> Result<String, String> {
    let curves: Vec<&Line<'_>> = curves.iter().filter(|(_, points)| !points.is_empty()).collect();
    let all = || curves.iter().flat_map(|(_, points)| points.iter().map(|(_, ms)| *ms));
    let most = all().fold(0.0, f64::max);
    if most <= 0.0 {
        return Err("there is no curve to draw".to_owned());
    }
    let height = TOP + PANEL.1 * curves.len().div_ceil(2) as f64 + 6.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\n<style>{STYLE}\
         .curve{{fill:none;stroke:#2f81f7;stroke-width:2}}</style>\n<title>{0}</title>\n\
         <text class=\"title\" x=\"8\" y=\"22\">{0}</text>\n",
        escaped(title)
    );
    for (index, (of, points)) in curves.iter().enumerate() {
        let corner = (8.0 + PANEL.0 * (index % 2) as f64, TOP + PANEL.1 * (index / 2) as f64);
        panel(&mut svg, corner, of, points, most);
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn panel(svg: &mut String, (left, top): (f64, f64), of: &str, points: &[(u64, f64)], most: f64) {
    let bottom = top + PANEL.1 - BELOW;
    let step = (PANEL.0 - 2.0 * SIDE) / (points.len().saturating_sub(1).max(1)) as f64;
    let x = |index: usize| left + SIDE + step * index as f64;
    let y = |ms: f64| bottom - (PANEL.1 - ABOVE - BELOW) * ms / most;
    // Writing to a String cannot fail.
    let _ = writeln!(
        svg,
        "<text class=\"label\" x=\"{left:.1}\" y=\"{:.1}\">{}</text>\
         <line class=\"one\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{bottom:.1}\" y2=\"{bottom:.1}\"/>",
        top + 14.0,
        escaped(of),
        left + SIDE / 2.0,
        left + PANEL.0 - SIDE / 2.0,
    );
    let corners: Vec<String> = points
        .iter()
        .enumerate()
        .map(|(index, (_, ms))| format!("{:.1},{:.1}", x(index), y(*ms)))
        .collect();
    let _ = writeln!(svg, "<polyline class=\"curve\" points=\"{}\"/>", corners.join(" "));
    for (index, (n, ms)) in points.iter().enumerate() {
        let (x, y) = (x(index), y(*ms));
        let _ = writeln!(
            svg,
            "<circle class=\"plain\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>\
             <text class=\"times\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{ms:.2} ms</text>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            y - 8.0,
            bottom + 15.0,
            grouped(*n as f64),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_curve_has_a_panel_and_all_have_one_scale() {
        let curves =
            [("a & b", vec![(10, 0.5), (1_000, 0.5)]), ("none", Vec::new()), ("c", vec![(1, 1.0)])];
        let svg = draw(&curves, "cost").unwrap();
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("a &amp; b") && svg.contains(">1,000</text>"));
        // Half of the most is half as high above the line as the most.
        let heights: Vec<f64> = svg
            .lines()
            .filter_map(|line| line.split("cy=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        let bottom = TOP + PANEL.1 - BELOW;
        assert_eq!(heights[0], heights[1]);
        assert_eq!((bottom - heights[0]) * 2.0, bottom - heights[2]);
    }

    #[test]
    fn without_a_point_there_is_no_chart() {
        assert!(draw(&[("a", Vec::new())], "cost").unwrap_err().contains("no curve"));
    }
}
