//! `sparkle trace`: draws a pipeline's trace.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;

use crate::console::Console;
use crate::events::{self, Event};
use crate::failure::Failure;
use crate::{files, memory};

/// Draw the trace that a pipeline wrote with SPARKLE_TRACE=FILE: one track per engine and per slot.
#[derive(clap::Args)]
pub struct Args {
    /// The trace
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// The SVG file to write
    #[arg(long, value_name = "FILE")]
    svg: PathBuf,
    /// Start of the picture, in milliseconds since the pipeline was created [default: the first event]
    #[arg(long, value_name = "MS")]
    from: Option<f64>,
    /// Length of the picture in milliseconds [default: up to the last event]
    #[arg(long = "for", value_name = "MS")]
    length: Option<f64>,
}

/// An interval, in milliseconds.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    /// Process and thread in the format's terms: a track.
    track: (u64, u64),
    name: Rc<str>,
    start: f64,
    end: f64,
}

/// A trace: named tracks in order, and their intervals.
#[derive(Debug, Default, PartialEq)]
struct Trace {
    tracks: Vec<((u64, u64), String)>,
    spans: Vec<Span>,
    /// The names of spans, each once.
    names: HashSet<Rc<str>>,
}

impl Trace {
    /// Keeps an event if it is drawn.
    fn take(&mut self, event: &Event) -> Result<(), Failure> {
        let track = (event.pid, event.tid);
        if event.kind == "M" && event.name == "thread_name" {
            memory::check("tracks", event.args.name.len())?;
            return memory::push("tracks", &mut self.tracks, (track, event.args.name.clone().into_owned()));
        }
        if event.kind != "X" {
            return Ok(());
        }
        let time = |time: Option<f64>, key| {
            time.map(|it| it / 1e3).ok_or_else(|| Failure::Input(format!("an event without {key}")))
        };
        let (start, length) = (time(event.ts, "ts")?, time(event.dur, "dur")?);
        let name = match self.names.get(&*event.name) {
            Some(name) => name.clone(),
            None => {
                // Room for the growing table and a text.
                memory::check("names", self.names.len().saturating_mul(64).saturating_add(event.name.len()))?;
                let name: Rc<str> = (&*event.name).into();
                self.names.insert(name.clone());
                name
            }
        };
        memory::push("intervals", &mut self.spans, Span { track, name, start, end: start + length })
    }

    /// The trace, unless it is empty.
    fn complete(self) -> Result<Self, Failure> {
        if self.spans.is_empty() { Err(Failure::Input("no intervals".to_owned())) } else { Ok(self) }
    }
}

/// Sizes in pixels.
const WIDTH: f64 = 1200.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 30.0;
const TRACK: f64 = 26.0;
const BAR: f64 = 18.0;

/// The most marks of time in a picture.
const MAX_TICKS: u32 = 12;

/// Runs the command.
///
/// # Errors
/// A file that is no trace, or cannot be written.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    files::check_target(&args.svg)?;
    let mut trace = Trace::default();
    events::read(&args.trace, |event| trace.take(&event))?;
    let trace = trace.complete().map_err(|failure| failure.at(args.trace.display()))?;
    let first = trace.spans.iter().map(|span| span.start).fold(f64::INFINITY, f64::min);
    let from = args.from.unwrap_or(first);
    let last = trace.spans.iter().map(|span| span.end).fold(f64::NEG_INFINITY, f64::max);
    let to = args.length.map_or(last, |length| from + length);
    let shown = trace.spans.iter().filter(|span| span.end > from && span.start < to).count();
    if shown == 0 {
        let what = format!("nothing happens from {from} to {to} ms");
        return Err(Failure::Input(what).at(args.trace.display()));
    }
    memory::check("tracks", trace.tracks.len().saturating_mul(64))?;
    files::write(&args.svg, |file| draw(file, &trace, from, to))?;
    console.line(format!("{}: {shown} of {} intervals", args.svg.display(), trace.spans.len()));
    Ok(())
}

/// The picture of the time between `from` and `to`.
fn draw(svg: &mut dyn Write, trace: &Trace, from: f64, to: f64) -> io::Result<()> {
    let height = TOP + TRACK * trace.tracks.len() as f64 + 34.0;
    let x = |ms: f64| LEFT + (WIDTH - LEFT - 20.0) * ((ms - from) / (to - from)).clamp(0.0, 1.0);
    let y = |row: usize| TOP + TRACK * row as f64;
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"
    )?;
    let bottom = y(trace.tracks.len());
    let step = tick(to - from);
    let first = (from / step).ceil() * step;
    // By number, because adding a small step to a very late start may not change it.
    for ms in (0..=MAX_TICKS).map(|index| first + f64::from(index) * step).take_while(|ms| *ms <= to) {
        let x = x(ms);
        writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#444444\">{} ms</text>",
            bottom + 18.0,
            trimmed(ms)
        )?;
    }
    let mut rows = HashMap::new();
    for (row, (track, name)) in trace.tracks.iter().enumerate() {
        rows.entry(*track).or_insert(row);
        let (name, y) = (escaped(name), y(row) + BAR - 4.0);
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{y}\" text-anchor=\"end\" fill=\"#000000\">{name}</text>",
            LEFT - 8.0
        )?;
    }
    for span in trace.spans.iter().filter(|span| span.end > from && span.start < to) {
        let Some(&row) = rows.get(&span.track) else { continue };
        let (left, right) = (x(span.start), x(span.end));
        writeln!(
            svg,
            "<rect x=\"{left:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{BAR}\" fill=\"{}\"><title>{} {:.3} ms</title></rect>",
            y(row),
            (right - left).max(0.5),
            colour(&span.name),
            escaped(&span.name),
            span.end - span.start
        )?;
    }
    for (index, name) in ["upload", "compute", "download"].into_iter().enumerate() {
        let left = LEFT + 110.0 * index as f64;
        writeln!(
            svg,
            "<rect x=\"{left}\" y=\"8\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"19\">{name}</text>",
            colour(name),
            left + 18.0
        )?;
    }
    writeln!(svg, "</svg>")
}

/// Colours that people with colour blindness can tell apart.
fn colour(name: &str) -> &'static str {
    match name {
        "upload" => "#0072b2",
        "compute" => "#e69f00",
        "download" => "#009e73",
        _ => "#888888",
    }
}

/// A round length, about a tenth of `length`.
fn tick(length: f64) -> f64 {
    let power = 10f64.powf((length / 10.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| length / step <= f64::from(MAX_TICKS)).unwrap_or(10.0 * power)
}

/// A number without trailing zeros.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.6}");
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

    fn read(text: &str) -> Result<Trace, Failure> {
        let mut trace = Trace::default();
        events::parse(text, |event| trace.take(&event))?;
        trace.complete()
    }

    fn draw(trace: &Trace, from: f64, to: f64) -> String {
        let mut svg = vec![];
        super::draw(&mut svg, trace, from, to).unwrap();
        String::from_utf8(svg).unwrap()
    }

    #[test]
    fn a_trace_becomes_a_picture_of_the_time_asked_for() {
        let trace = read(TEXT).unwrap();
        assert_eq!(trace.tracks.len(), 2);
        assert_eq!((trace.spans[0].start, trace.spans[0].end), (1.0, 1.5));
        let all = draw(&trace, 1.0, 10.0);
        let bars = |svg: &str| svg.matches("<title>upload").count();
        assert_eq!((bars(&all), bars(&draw(&trace, 1.0, 2.0))), (3, 2));
        assert!(all.contains("slot &lt;0&gt;") && !all.contains("slot <0>"));
        // The first interval starts at the left edge and takes 0.5 of 9 ms.
        assert!(all.contains("<rect x=\"90.00\" y=\"30\" width=\"60.56\""), "{all}");
    }

    /// A mark stands where its text says, in the time of the trace, wherever the picture begins.
    #[test]
    fn marks_of_time_stand_where_they_say() {
        let trace = read(TEXT).unwrap();
        for (from, to) in [(0.0, 10.0), (1.0, 10.0), (3.7, 9.2), (8.95, 9.05)] {
            let svg = draw(&trace, from, to);
            let marks = svg.split("text-anchor=\"middle\" fill=\"#444444\">").skip(1);
            let marks: Vec<f64> =
                marks.map(|rest| rest.split(" ms").next().unwrap().parse().unwrap()).collect();
            let lines = svg.split("<line x1=\"").skip(1);
            let lines: Vec<f64> =
                lines.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
            assert!(marks.len() >= 4 && marks.len() == lines.len(), "{svg}");
            for (mark, line) in marks.iter().zip(lines) {
                let there = LEFT + (mark - from) / (to - from) * (WIDTH - LEFT - 20.0);
                assert!(
                    (line - there).abs() < 0.1,
                    "{mark} ms of {from} to {to} at {line}; expected {there}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for text in ["", "{}", "[]", r#"{"traceEvents":[]}"#, r#"{"traceEvents":[{"ph":"X","ts":1}]}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    /// Numbers so large cannot represent a millisecond more.
    #[test]
    fn a_late_beginning_makes_no_endless_picture() {
        let trace = Trace { spans: vec![], ..read(TEXT).unwrap() };
        for (from, to) in [(1e18, 1e18 + 256.0), (1e300, 1e300), (0.0, f64::INFINITY)] {
            assert!(draw(&trace, from, to).lines().count() < 40, "{from} {to}");
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
