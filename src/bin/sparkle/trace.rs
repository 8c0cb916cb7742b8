//! `sparkle trace`: a picture of what a pipeline's trace holds.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::console::Console;
use crate::failure::Failure;
use crate::files;

/// Draw the trace that a pipeline wrote to the file of SPARKLE_TRACE: one track an engine and one a slot.
#[derive(clap::Args)]
pub struct Args {
    /// The trace
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// Where the picture goes
    #[arg(long, value_name = "FILE")]
    svg: PathBuf,
    /// Where it begins, in milliseconds since the pipeline was made; at the first event unless given
    #[arg(long, value_name = "MS")]
    from: Option<f64>,
    /// How many milliseconds it shows; to the last event unless given
    #[arg(long = "for", value_name = "MS")]
    length: Option<f64>,
}

/// Something that took time; milliseconds.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    /// Process and thread, as the format calls them: a track.
    track: (u64, u64),
    name: String,
    start: f64,
    end: f64,
}

/// A trace: tracks with their names, in order, and what is in them.
#[derive(Debug, Default, PartialEq)]
struct Trace {
    tracks: Vec<((u64, u64), String)>,
    spans: Vec<Span>,
}

/// Sizes in pixels.
const WIDTH: f64 = 1200.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 30.0;
const TRACK: f64 = 26.0;
const BAR: f64 = 18.0;

/// Runs the command.
///
/// # Errors
/// A file that is no trace, or cannot be written.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    files::check_target(&args.svg)?;
    let at = |what: String| Failure::Input(format!("{}: {what}", args.trace.display()));
    let text = std::fs::read_to_string(&args.trace).map_err(|error| at(error.to_string()))?;
    let trace = read(&text).map_err(at)?;
    let first = trace.spans.iter().map(|span| span.start).fold(f64::INFINITY, f64::min);
    let from = args.from.unwrap_or(first);
    let last = trace.spans.iter().map(|span| span.end).fold(f64::NEG_INFINITY, f64::max);
    let to = args.length.map_or(last, |length| from + length);
    let shown = trace.spans.iter().filter(|span| span.end > from && span.start < to).count();
    if shown == 0 {
        return Err(at(format!("nothing happens from {from} to {to} ms")));
    }
    save(&args.svg, &draw(&trace, from, to))?;
    console.line(format!("{}: {shown} of {} intervals", args.svg.display(), trace.spans.len()));
    Ok(())
}

fn save(path: &Path, text: &str) -> Result<(), Failure> {
    files::write(path, |file| file.write_all(text.as_bytes()))
}

/// Reads Chrome's trace format, as far as `SPARKLE_TRACE` uses it.
fn read(text: &str) -> Result<Trace, String> {
    let document: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let events = document["traceEvents"].as_array().ok_or("no traceEvents")?;
    let mut trace = Trace::default();
    for event in events {
        let track = (event["pid"].as_u64().unwrap_or(0), event["tid"].as_u64().unwrap_or(0));
        let name = event["name"].as_str().unwrap_or_default();
        match event["ph"].as_str() {
            Some("M") if name == "thread_name" => {
                let name = event["args"]["name"].as_str().unwrap_or_default();
                trace.tracks.push((track, name.to_owned()));
            }
            Some("X") => {
                let time = |key: &str| event[key].as_f64().ok_or(format!("an event without {key}"));
                let (start, length) = (time("ts")? / 1e3, time("dur")? / 1e3);
                trace.spans.push(Span { track, name: name.to_owned(), start, end: start + length });
            }
            _ => {}
        }
    }
    if trace.spans.is_empty() { Err("no intervals".to_owned()) } else { Ok(trace) }
}

/// The picture of what happens from `from` to `to`.
fn draw(trace: &Trace, from: f64, to: f64) -> String {
    let height = TOP + TRACK * trace.tracks.len() as f64 + 34.0;
    let x = |ms: f64| LEFT + (WIDTH - LEFT - 20.0) * ((ms - from) / (to - from)).clamp(0.0, 1.0);
    let y = |row: usize| TOP + TRACK * row as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let bottom = y(trace.tracks.len());
    let step = tick(to - from);
    let mut ms = (from / step).ceil() * step;
    while ms <= to {
        let x = x(ms);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#444444\">{} ms</text>",
            bottom + 18.0,
            trimmed(ms - from)
        );
        ms += step;
    }
    for (row, (_, name)) in trace.tracks.iter().enumerate() {
        let (name, y) = (escaped(name), y(row) + BAR - 4.0);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{y}\" text-anchor=\"end\" fill=\"#000000\">{name}</text>",
            LEFT - 8.0
        );
    }
    for span in trace.spans.iter().filter(|span| span.end > from && span.start < to) {
        let Some(row) = trace.tracks.iter().position(|(track, _)| *track == span.track) else { continue };
        let (left, right) = (x(span.start), x(span.end));
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{BAR}\" fill=\"{}\"><title>{} {:.3} ms</title></rect>",
            y(row),
            (right - left).max(0.5),
            colour(&span.name),
            escaped(&span.name),
            span.end - span.start
        );
    }
    for (index, name) in ["upload", "compute", "download"].into_iter().enumerate() {
        let left = LEFT + 110.0 * index as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"8\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"19\">{name}</text>",
            colour(name),
            left + 18.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Told apart also by those who see few colours.
fn colour(name: &str) -> &'static str {
    match name {
        "upload" => "#0072b2",
        "compute" => "#e69f00",
        "download" => "#009e73",
        _ => "#888888",
    }
}

/// A round length, so that about ten of them make `length`.
fn tick(length: f64) -> f64 {
    let power = 10f64.powf((length / 10.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| length / step <= 12.0).unwrap_or(10.0 * power)
}

/// A number without zeros at its end.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"traceEvents":[
        {"ph":"M","pid":1,"tid":1,"name":"thread_name","args":{"name":"upload"}},
        {"ph":"M","pid":2,"tid":1,"name":"thread_name","args":{"name":"slot <0>"}},
        {"ph":"X","pid":1,"tid":1,"name":"upload","ts":1000,"dur":500,"args":{}},
        {"ph":"X","pid":2,"tid":1,"name":"upload","ts":1000,"dur":500,"args":{}},
        {"ph":"X","pid":1,"tid":1,"name":"upload","ts":9000,"dur":1000,"args":{}}]}"#;

    #[test]
    fn a_trace_becomes_a_picture_of_the_time_asked_for() {
        let trace = read(TEXT).unwrap();
        assert_eq!(trace.tracks.len(), 2);
        assert_eq!((trace.spans[0].start, trace.spans[0].end), (1.0, 1.5));
        let all = draw(&trace, 1.0, 10.0);
        let bars = |svg: &str| svg.matches("<title>upload").count();
        assert_eq!((bars(&all), bars(&draw(&trace, 1.0, 2.0))), (3, 2));
        assert!(all.contains("slot &lt;0&gt;") && !all.contains("slot <0>"));
        // The first interval begins at the left edge and takes 0.5 of 9 ms.
        assert!(all.contains("<rect x=\"90.00\" y=\"30\" width=\"60.56\""), "{all}");
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for text in ["", "{}", "[]", r#"{"traceEvents":[]}"#, r#"{"traceEvents":[{"ph":"X","ts":1}]}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ticks_are_round() {
        let ticks = [(10.0, 1.0), (12.5, 2.0), (0.1, 0.01), (25.0, 5.0), (100.0, 10.0), (7.0, 1.0)];
        for (length, step) in ticks {
            assert!((tick(length) - step).abs() < 1e-9, "{length}: {}", tick(length));
        }
        assert_eq!([0.25, 3.0, 10.0].map(trimmed), ["0.25", "3", "10"]);
    }
}
