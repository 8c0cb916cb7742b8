//! Pictures of an experiment, as SVG that stands by itself: a waterfall of factors, a map of patterns by devices, a roofline
//! with paths.

use std::fmt::Write;

use sparkle::memory::patterns::{Pattern, Patterns};
use sparkle::report::attribution::{Estimate, Verdict};

use super::record::{Mean, Record, Workload};

/// Colours of T, V, P, L, O. They differ in lightness, too.
const COLOURS: [&str; 5] = ["#0b5394", "#2a9d8f", "#8e7cc3", "#c77700", "#b3261e"];
const GREY: &str = "#777777";
const INK: &str = "#1f1f1f";

fn begin(title: &str, width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, sans-serif\">\n<title>{}</title>\n<rect width=\"{width}\" height=\"{height}\" \
         fill=\"white\"/>\n",
        escaped(title)
    )
}

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

fn bar(svg: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
    let _ = writeln!(
        svg,
        r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{:.1}" fill="{fill}"/>"#,
        height.max(0.6)
    );
}

/// Text as XML, without characters that XML forbids.
pub fn escaped(text: &str) -> String {
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

/// A logarithmic axis.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let place = (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln());
        self.from + place.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Values 1, 2, 5 and their multiples by powers of ten within the axis.
    fn ticks(&self) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades.flat_map(|exponent| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(exponent)));
        let inside: Vec<f64> = all.filter(|it| (self.low..=self.high).contains(it)).collect();
        if inside.len() <= 8 {
            return inside;
        }
        let whole = |it: &f64| (it.log10() - it.log10().round()).abs() < 1e-9;
        inside.into_iter().filter(whole).collect()
    }
}

fn short(value: f64) -> String {
    let digits = match value {
        _ if value >= 99.5 => 0,
        _ if value >= 9.95 => 1,
        _ if value >= 0.995 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Factors that multiply from no pattern to all of them, each with the whisker of its interval.
pub fn waterfall(title: &str, factors: &[(Pattern, Estimate)]) -> String {
    let (width, height, left, top, bottom) = (760.0, 400.0, 70.0, 64.0, 340.0);
    // Where the running product, or a whisker, is lowest and highest.
    let mut running = 1.0f64;
    let (mut low, mut high) = (1.0f64, 1.0f64);
    for (_, factor) in factors {
        low = low.min(running * factor.low).min(running * factor.value);
        high = high.max(running * factor.high).max(running * factor.value);
        running *= factor.value;
    }
    let axis = Axis { low: low / 1.15, high: high * 1.25, from: bottom, to: top };
    let mut svg = begin(title, width, height);
    text(&mut svg, (left, 28.0), (17, INK, "start"), title);
    text(
        &mut svg,
        (left, 48.0),
        (12, GREY, "start"),
        "speed over that without any pattern; whiskers are 95 % intervals",
    );
    for tick in axis.ticks() {
        let y = axis.at(tick);
        line(&mut svg, (left, y), (width - 20.0, y), r##"stroke="#e4e4e4""##);
        text(&mut svg, (left - 8.0, y + 4.0), (12, GREY, "end"), &short(tick));
    }
    let step = (width - 20.0 - left) / (factors.len() + 2) as f64;
    let place = |index: usize| left + step * index as f64 + step * 0.15;
    let base = axis.at(axis.low);
    let total = |svg: &mut String, index: usize, value: f64, label: &str| {
        let y = axis.at(value);
        bar(svg, (place(index), y), (step * 0.7, base - y), "#9aa0a6");
        text(svg, (place(index) + step * 0.35, y - 6.0), (13, INK, "middle"), &short(value));
        text(svg, (place(index) + step * 0.35, bottom + 20.0), (13, INK, "middle"), label);
    };
    total(&mut svg, 0, 1.0, "none");
    total(&mut svg, factors.len() + 1, running, "all");
    let mut running = 1.0;
    for (index, (pattern, factor)) in factors.iter().enumerate() {
        let (from, to) = (axis.at(running), axis.at(running * factor.value));
        let x = place(index + 1);
        bar(&mut svg, (x, from.min(to)), (step * 0.7, (from - to).abs()), COLOURS[*pattern as usize]);
        let middle = x + step * 0.35;
        let (low, high) = (axis.at(running * factor.low), axis.at(running * factor.high));
        let style = format!(r#"stroke="{INK}" stroke-width="1.5""#);
        line(&mut svg, (middle, low), (middle, high), &style);
        for end in [low, high] {
            line(&mut svg, (middle - 5.0, end), (middle + 5.0, end), &style);
        }
        text(
            &mut svg,
            (middle, high.min(to).min(from) - 7.0),
            (13, INK, "middle"),
            &format!("x {:.2}", factor.value),
        );
        text(&mut svg, (middle, bottom + 20.0), (13, INK, "middle"), pattern.name());
        text(&mut svg, (middle, bottom + 38.0), (12, GREY, "middle"), Verdict::of(factor).word());
        running *= factor.value;
    }
    svg + "</svg>\n"
}

/// The colour of a factor: blue for a gain, white for nothing, red for a loss.
fn heat(factor: f64) -> String {
    let strength = (factor.ln().abs() / 5f64.ln()).clamp(0.0, 1.0).sqrt();
    let towards = if factor >= 1.0 { [11.0, 83.0, 148.0] } else { [179.0, 38.0, 30.0] };
    let [r, g, b] = towards.map(|it: f64| (255.0 + (it - 255.0) * strength).round() as u8);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Patterns by devices.
pub fn heat_map(rows: &[(String, Vec<Mean>)]) -> String {
    let (left, top, wide, high) = (330.0, 70.0, 92.0, 46.0);
    let (width, height) = (left + 5.0 * wide + 20.0, top + high * rows.len() as f64 + 24.0);
    let title = "What each pattern is worth, by device";
    let mut svg = begin(title, width, height);
    text(&mut svg, (16.0, 28.0), (17, INK, "start"), title);
    for (index, pattern) in Pattern::ALL.into_iter().enumerate() {
        let x = left + wide * (index as f64 + 0.5);
        text(&mut svg, (x, top - 10.0), (13, INK, "middle"), pattern.name());
    }
    for (index, (name, means)) in rows.iter().enumerate() {
        let y = top + high * index as f64;
        let name: String = name.chars().take(46).collect();
        text(&mut svg, (left - 10.0, y + 28.0), (13, INK, "end"), &name);
        for (column, mean) in means.iter().enumerate() {
            let x = left + wide * column as f64;
            let Some(factor) = &mean.factor else {
                bar(&mut svg, (x, y), (wide - 3.0, high - 3.0), "#f0f0f0");
                text(&mut svg, (x + wide / 2.0, y + 27.0), (12, GREY, "middle"), "not applicable");
                continue;
            };
            bar(&mut svg, (x, y), (wide - 3.0, high - 3.0), &heat(factor.value));
            let strong = factor.value.ln().abs() > 1.8f64.ln();
            let ink = if strong { "#ffffff" } else { INK };
            text(
                &mut svg,
                (x + wide / 2.0, y + 20.0),
                (14, ink, "middle"),
                &format!("x {:.2}", factor.value),
            );
            let word = mean.verdict.map_or("", Verdict::word);
            text(&mut svg, (x + wide / 2.0, y + 36.0), (11, ink, "middle"), word);
        }
    }
    svg + "</svg>\n"
}

/// Where a workload lies with no pattern, and after each further one in the order T, V, P, L, O.
fn path(workload: &Workload) -> Vec<(Option<Pattern>, f64, f64)> {
    let mut on = Patterns::NONE;
    let point = |on: Patterns, pattern: Option<Pattern>| {
        let cell = workload.index(on)?;
        Some((pattern, workload.intensity[cell], workload.speed(cell) / workload.ceiling()))
    };
    let mut points: Vec<_> = point(on, None).into_iter().collect();
    for pattern in workload.patterns() {
        on = on.with(pattern);
        points.extend(point(on, Some(pattern)));
    }
    points
}

/// A roofline with a path for each workload.
pub fn roofline(record: &Record) -> String {
    let (width, height, left, right, top, bottom) = (900.0, 520.0, 80.0, 860.0, 84.0, 450.0);
    let paths: Vec<(&Workload, Vec<_>)> = record.workloads.iter().map(|it| (it, path(it))).collect();
    let all = || paths.iter().flat_map(|it| &it.1);
    let least = all().map(|it| it.2).fold(1.0, f64::min);
    let x = Axis {
        low: all().map(|it| it.1).fold(f64::INFINITY, f64::min).min(0.2) / 1.5,
        high: all().map(|it| it.1).fold(0.0, f64::max).max(4.0) * 1.8,
        from: left,
        to: right,
    };
    let y = Axis { low: least / 1.6, high: 1.5, from: bottom, to: top };
    let title = format!("Paths under the roof: {}", record.device.title());
    let mut svg = begin(&title, width, height);
    text(&mut svg, (left, 28.0), (17, INK, "start"), &title);
    let note = "each path turns on T, V, P, L, O in this order; tiling moves right, the others up";
    text(&mut svg, (left, 48.0), (12, GREY, "start"), note);
    for tick in x.ticks() {
        line(&mut svg, (x.at(tick), top), (x.at(tick), bottom), r##"stroke="#ececec""##);
        text(&mut svg, (x.at(tick), bottom + 18.0), (12, GREY, "middle"), &short(tick));
    }
    for tick in y.ticks() {
        line(&mut svg, (left, y.at(tick)), (right, y.at(tick)), r##"stroke="#ececec""##);
        text(&mut svg, (left - 8.0, y.at(tick) + 4.0), (12, GREY, "end"), &short(tick));
    }
    text(
        &mut svg,
        ((left + right) / 2.0, bottom + 42.0),
        (13, INK, "middle"),
        "operations per byte that the inner loop requests",
    );
    text(&mut svg, (left - 62.0, top - 14.0), (13, INK, "start"), "share of the multiply-add ceiling");
    let style = format!(r#"stroke="{INK}" stroke-width="2""#);
    line(&mut svg, (left, y.at(1.0)), (right, y.at(1.0)), &style);
    let peak = record.workloads.first().map_or(f64::NAN, Workload::ceiling);
    text(
        &mut svg,
        (right, y.at(1.0) - 7.0),
        (12, INK, "end"),
        &format!("multiply-adds: {:.0} GFLOPS", peak / 1e9),
    );
    for (index, (name, rate)) in record.device.levels.iter().enumerate() {
        // The roof rises to the ceiling where intensity times rate reaches it.
        let (ridge, start) = (peak / rate, (y.low * peak / rate).max(x.low));
        if ridge <= x.low || start >= x.high {
            continue;
        }
        let (low, high) = (
            (x.at(start), y.at(start / ridge)),
            (x.at(ridge.min(x.high)), y.at((ridge.min(x.high)) / ridge)),
        );
        line(&mut svg, low, high, &format!(r#"stroke="{GREY}" stroke-width="1.2" stroke-dasharray="6 4""#));
        let at = (
            low.0 + (high.0 - low.0) * 0.1 + 6.0,
            low.1 + (high.1 - low.1) * 0.1 + 14.0 * (index % 2) as f64,
        );
        text(&mut svg, at, (11, GREY, "start"), &format!("{name} {:.0} GB/s", rate / 1e9));
    }
    for (workload, points) in &paths {
        let place = |point: &(Option<Pattern>, f64, f64)| (x.at(point.1), y.at(point.2));
        for pair in points.windows(2) {
            let colour = pair[1].0.map_or(GREY, |it| COLOURS[it as usize]);
            line(
                &mut svg,
                place(&pair[0]),
                place(&pair[1]),
                &format!(r#"stroke="{colour}" stroke-width="2" stroke-opacity="0.75""#),
            );
        }
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            for (point, fill) in [(first, "white"), (last, INK)] {
                let (cx, cy) = place(point);
                let _ = writeln!(
                    svg,
                    r#"<circle cx="{cx:.1}" cy="{cy:.1}" r="4" fill="{fill}" stroke="{INK}"><title>{}: {:.2} of the ceiling</title></circle>"#,
                    escaped(&workload.name),
                    point.2
                );
            }
        }
    }
    let mut at = left;
    for pattern in Pattern::ALL {
        bar(&mut svg, (at, height - 22.0), (18.0, 10.0), COLOURS[pattern as usize]);
        text(&mut svg, (at + 24.0, height - 13.0), (12, INK, "start"), pattern.name());
        at += 110.0;
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_by_themselves_and_show_every_factor() {
        let estimate = |value: f64| Estimate { value, low: value * 0.97, high: value * 1.03 };
        let factors = [
            (Pattern::Tiling, estimate(5.0)),
            (Pattern::Vectors, estimate(1.5)),
            (Pattern::Prefetch, estimate(0.9)),
        ];
        let svg = waterfall("A <device>", &factors);
        for label in ["x 5.00", "x 1.50", "x 0.90", "tiling", "holds", "harms", "A &lt;device&gt;"] {
            assert!(svg.contains(label), "{label}: {svg}");
        }
        let mean = |pattern: Pattern, factor: Option<Estimate>| Mean {
            letter: pattern.letter(),
            verdict: factor.as_ref().map(Verdict::of),
            factor,
        };
        let means = vec![mean(Pattern::Tiling, Some(estimate(4.0))), mean(Pattern::Vectors, None)];
        let map = heat_map(&[("one & two".to_owned(), means)]);
        assert!(map.contains("x 4.00") && map.contains("not applicable") && map.contains("one &amp; two"));
        for svg in [svg, map] {
            assert!(svg.ends_with("</svg>\n") && !svg.contains("href") && !svg.contains("script"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        assert_eq!(heat(1.0), "#ffffff");
        assert_eq!((heat(1e9), heat(1e-9)), ("#0b5394".to_owned(), "#b3261e".to_owned()));
    }
}
