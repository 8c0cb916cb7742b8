//! The picture of `sparkle roofline`: SVG with logarithmic axes, a roof for each level, and points.
//!
//! The picture stands by itself: no script, no font of its own, no link. Each roof is labelled where it rises, so that
//! nothing has to be looked up in a legend.

use std::fmt::Write;

use sparkle::memory::Ceilings;

use crate::roofline::Placed;

/// The picture's size, and the place of the axes in it.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 870.0;
const TOP: f64 = 86.0;
const BOTTOM: f64 = 500.0;

/// About the width of a letter of a point's label.
const LETTER: f64 = 7.0;

/// Colours of roofs, the nearest level first. They differ in lightness, too, for those who do not see colours.
const ROOFS: [&str; 4] = ["#0b5394", "#2a9d8f", "#c77700", "#b3261e"];
const POINT: &str = "#1f1f1f";
const GREY: &str = "#666666";

/// Decades or parts of them on a logarithmic axis.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// The axis from a value at most `low` to one of at least `high`, powers of ten.
    fn new(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        Axis { low, high: high.max(low + 1.0), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value.log10() - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|exponent| 10f64.powi(exponent))
    }
}

/// A line of text. `anchor` is `start`, `middle` or `end`.
fn text(svg: &mut String, (x, y): (f64, f64), (size, colour, anchor): (u32, &str, &str), shown: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{}</text>"#,
        escaped(shown)
    );
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let _ = writeln!(
        svg,
        r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" {style}/>"#,
        from.0, from.1, to.0, to.1
    );
}

/// Text as XML, without characters that XML forbids.
fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            _ if letter.is_control() => safe.push(' '),
            _ => safe.push(letter),
        }
    }
    safe
}

/// A rate or an intensity with few digits.
fn short(value: f64) -> String {
    match value {
        _ if value >= 9.95e3 => format!("{:.0}k", value / 1e3),
        _ if value >= 99.5 => format!("{value:.0}"),
        _ if value >= 9.95 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Draws the roofs of all threads, and points.
pub fn draw(title: &str, ceilings: &Ceilings, points: &[Placed]) -> String {
    let peak = ceilings.peaks.first().map_or(1e9, |peak| peak.together);
    let rates = || ceilings.levels.iter().map(|level| level.together);
    let slowest = rates().fold(f64::INFINITY, f64::min).min(peak);
    let fastest = rates().fold(slowest, f64::max);
    // From well left of the first ridge to well right of the last.
    let intensity = |low: bool| {
        let points = points.iter().map(|point| point.intensity);
        if low {
            points.fold(peak / fastest / 8.0, f64::min)
        } else {
            points.fold(peak / slowest * 8.0, f64::max)
        }
    };
    let (lowest, highest) = (intensity(true), intensity(false));
    let x = Axis::new(lowest, highest, LEFT, RIGHT);
    let least = 10f64.powf(x.low) * slowest;
    let least = points.iter().map(|point| point.rate).fold(least, f64::min) / 1e9;
    let most = points.iter().map(|point| point.rate).fold(peak * 1.6, f64::max) / 1e9;
    let y = Axis::new(least, most, BOTTOM, TOP);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"Helvetica, Arial, sans-serif\">\n<title>{}</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         fill=\"white\"/>\n",
        escaped(&format!("Roofline of {title}"))
    );
    text(&mut svg, (LEFT, 34.0), (20, POINT, "start"), &format!("Roofline of {title}"));
    let subtitle = "No program is above the roof of the level that its data come from. Left of a bend data bind, right of it \
                    arithmetic.";
    text(&mut svg, (LEFT, 58.0), (13, GREY, "start"), subtitle);
    axes(&mut svg, &x, &y);

    let right = 10f64.powf(x.high);
    for (index, level) in ceilings.levels.iter().enumerate().rev() {
        let colour = ROOFS[index.min(ROOFS.len() - 1)];
        let (start, ridge) = (10f64.powf(x.low), peak / level.together);
        // A roof that begins below the picture begins at its edge.
        let start = start.max(10f64.powf(y.low) * 1e9 / level.together);
        let from = (x.at(start), y.at(start * level.together / 1e9));
        let bend = (x.at(ridge), y.at(peak / 1e9));
        line(&mut svg, from, bend, &format!(r#"stroke="{colour}" stroke-width="3" stroke-linecap="round""#));
        line(
            &mut svg,
            bend,
            (bend.0, BOTTOM),
            &format!(r#"stroke="{colour}" stroke-width="1" stroke-dasharray="2 4""#),
        );
        // The label runs along the roof, above and below in turn: neighbouring roofs may be close.
        let angle = (bend.1 - from.1).atan2(bend.0 - from.0).to_degrees();
        let (share, down) = (0.12 + 0.1 * index as f64, if index % 2 == 0 { -7 } else { 17 });
        let (at_x, at_y) = (from.0 + share * (bend.0 - from.0), from.1 + share * (bend.1 - from.1));
        let _ = writeln!(
            svg,
            r#"<text transform="translate({at_x:.1} {at_y:.1}) rotate({angle:.1})" dy="{down}" font-size="14" font-weight="bold" fill="{colour}">{}</text>"#,
            escaped(&format!("{} {} GB/s", level.name, short(level.together / 1e9)))
        );
        text(&mut svg, (bend.0, BOTTOM - 6.0 - 15.0 * index as f64), (11, colour, "middle"), &short(ridge));
    }
    let first = ceilings.levels.first().map_or(lowest, |level| peak / level.together);
    let (from, to) = ((x.at(first), y.at(peak / 1e9)), (x.at(right), y.at(peak / 1e9)));
    line(&mut svg, from, to, &format!(r#"stroke="{POINT}" stroke-width="3" stroke-linecap="round""#));
    let name = ceilings.peaks.first().map_or("", |peak| peak.name);
    let label = format!("multiply-adds, {name}: {} GFLOPS", short(peak / 1e9));
    text(&mut svg, (to.0, to.1 - 9.0), (14, POINT, "end"), &label);
    place(&mut svg, &x, &y, points);
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String, x: &Axis, y: &Axis) {
    for decade in x.decades() {
        let at = x.at(decade);
        line(svg, (at, TOP), (at, BOTTOM), r##"stroke="#e4e4e4" stroke-width="1""##);
        text(svg, (at, BOTTOM + 19.0), (13, GREY, "middle"), &decade.to_string());
    }
    for decade in y.decades() {
        let at = y.at(decade);
        line(svg, (LEFT, at), (RIGHT, at), r##"stroke="#e4e4e4" stroke-width="1""##);
        text(svg, (LEFT - 8.0, at + 4.0), (13, GREY, "end"), &decade.to_string());
    }
    line(svg, (LEFT, BOTTOM), (RIGHT, BOTTOM), &format!(r#"stroke="{GREY}" stroke-width="1""#));
    line(svg, (LEFT, TOP), (LEFT, BOTTOM), &format!(r#"stroke="{GREY}" stroke-width="1""#));
    let middle = f64::midpoint(LEFT, RIGHT);
    text(svg, (middle, BOTTOM + 42.0), (14, POINT, "middle"), "operations per byte");
    let _ = writeln!(
        svg,
        r#"<text transform="translate(22 {:.1}) rotate(-90)" font-size="14" fill="{POINT}" text-anchor="middle">GFLOPS</text>"#,
        f64::midpoint(TOP, BOTTOM)
    );
}

/// Draws the points, each with a line up to its bound.
fn place(svg: &mut String, x: &Axis, y: &Axis, points: &[Placed]) {
    for point in points {
        let (at, below) = ((x.at(point.intensity), y.at(point.rate / 1e9)), y.at(point.bound / 1e9));
        line(
            svg,
            at,
            (at.0, below),
            &format!(r#"stroke="{POINT}" stroke-width="1.5" stroke-dasharray="4 3""#),
        );
        let _ = writeln!(
            svg,
            r#"<circle cx="{:.1}" cy="{:.1}" r="6" fill="{POINT}" stroke="white" stroke-width="1.5"/>"#,
            at.0, at.1
        );
        let label =
            format!("{}: {:.0} % of the roof, {} binds", point.name, point.share * 100.0, point.binds);
        // To the right, away from the roofs, if there is room.
        let fits = at.0 + 11.0 + LETTER * label.chars().count() as f64 <= WIDTH;
        let (offset, anchor) = if fits { (11.0, "start") } else { (-11.0, "end") };
        // White below the letters keeps them legible on lines.
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" font-size="14" fill="{POINT}" text-anchor="{anchor}" stroke="white" stroke-width="4" paint-order="stroke">{}</text>"#,
            at.0 + offset,
            at.1 + 18.0,
            escaped(&label)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparkle::memory::Ceiling;

    fn ceilings() -> Ceilings {
        let ceiling = |name, together: f64| Ceiling { name, alone: None, together };
        Ceilings {
            threads: 2,
            peaks: vec![ceiling("avx2", 2e11)],
            levels: vec![ceiling("L1", 4e11), ceiling("L2", 2e11), ceiling("memory", 2e10)],
            described: 0,
            seen: None,
        }
    }

    fn point(name: &str, intensity: f64, rate: f64) -> Placed {
        let name = name.to_owned();
        Placed {
            name,
            level: "memory",
            intensity,
            rate,
            bound: 2e11,
            share: rate / 2e11,
            binds: "arithmetic",
        }
    }

    #[test]
    fn every_roof_and_point_is_labelled_and_inside() {
        let points =
            [point("mine & <yours>", 20.0, 1e11), point("tiny", 1e-4, 1e5), point("huge", 1e6, 2e11)];
        let svg = draw("CPU \"x\"", &ceilings(), &points);
        for label in ["L1 400 GB/s", "L2 200 GB/s", "memory 20.0 GB/s", "multiply-adds, avx2: 200 GFLOPS"] {
            assert!(svg.contains(label), "{label}: {svg}");
        }
        assert!(svg.contains("mine &amp; &lt;yours&gt;: 50 % of the roof, arithmetic binds"));
        assert!(svg.contains("Roofline of CPU &quot;x&quot;") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<circle").count(), 3);
        let mut places = 0;
        for (name, most) in
            [("cx", WIDTH), ("cy", HEIGHT), ("x1", WIDTH), ("y1", HEIGHT), ("x2", WIDTH), ("y2", HEIGHT)]
        {
            for part in svg.split(&format!(" {name}=\"")).skip(1) {
                let value: f64 = part.split('"').next().unwrap().parse().unwrap();
                assert!((0.0..=most).contains(&value), "{name} {value}");
                places += 1;
            }
        }
        assert!(places > 40, "{places}");
        assert!(!svg.contains("href") && !svg.contains("script"), "it stands by itself");
    }

    #[test]
    fn an_axis_is_logarithmic_and_has_whole_decades() {
        let axis = Axis::new(0.3, 70.0, 0.0, 300.0);
        assert_eq!(axis.decades().collect::<Vec<_>>(), [0.1, 1.0, 10.0, 100.0]);
        assert!((axis.at(1.0) - 100.0).abs() < 1e-9 && (axis.at(100.0) - 300.0).abs() < 1e-9);
        // A single value has an axis as well.
        assert_eq!(Axis::new(10.0, 10.0, 0.0, 1.0).decades().count(), 2);
    }
}
