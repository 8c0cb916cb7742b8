//! `sparkle trace`: draws a trace.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;

use crate::console::Console;
use crate::events::{self, Event};
use crate::failure::Failure;
use crate::{files, memory};

/// Draw the trace that a process wrote with SPARKLE_TRACE=FILE: for each device a group of tracks, of its calls and of the
/// engines and slots of its pipelines.
#[derive(clap::Args)]
pub struct Args {
    /// The trace
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// The SVG file to write
    #[arg(long, value_name = "FILE")]
    svg: PathBuf,
    /// Start of the picture, in milliseconds since the trace began [default: the first event]
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
    is_call: bool,
    start: f64,
    end: f64,
}

/// A trace: the names of devices and tracks in the order of their numbers, and the intervals.
#[derive(Debug, Default, PartialEq)]
struct Trace {
    devices: BTreeMap<u64, String>,
    tracks: BTreeMap<(u64, u64), String>,
    spans: Vec<Span>,
    /// The names of spans, each once.
    names: HashSet<Rc<str>>,
}

impl Trace {
    /// Keeps an event if it is drawn.
    fn take(&mut self, event: &Event) -> Result<(), Failure> {
        let track = (event.pid, event.tid);
        let name = || -> Result<String, Failure> {
            // Room for a node of the map and a text.
            memory::check("tracks", 256 + event.args.name.len())?;
            Ok(event.args.name.clone().into_owned())
        };
        match (&*event.kind, &*event.name) {
            ("M", "process_name") => drop(self.devices.insert(event.pid, name()?)),
            ("M", "thread_name") => drop(self.tracks.insert(track, name()?)),
            _ => {}
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
        let is_call = event.category == "call";
        memory::push("intervals", &mut self.spans, Span { track, name, is_call, start, end: start + length })
    }

    /// The intervals between `from` and `to`.
    fn spans(&self, from: f64, to: f64) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(move |span| span.end > from && span.start < to)
    }

    /// What stands at the left, from top to bottom: each device, then its tracks that have intervals between `from` and
    /// `to`.
    fn rows(&self, from: f64, to: f64) -> Result<Vec<Row<'_>>, Failure> {
        memory::check("tracks", self.tracks.len().saturating_mul(64))?;
        let busy: HashSet<_> =
            self.spans(from, to).map(|span| span.track).filter(|it| self.tracks.contains_key(it)).collect();
        let mut rows = memory::reserved("tracks", 2 * busy.len())?;
        let mut device = None;
        for (&track, name) in self.tracks.iter().filter(|(track, _)| busy.contains(track)) {
            if device.replace(track.0) != Some(track.0) {
                let name = self.devices.get(&track.0).map_or("", String::as_str);
                rows.push(Row { track: None, name });
            }
            rows.push(Row { track: Some(track), name });
        }
        Ok(rows)
    }

    /// The trace, unless it is empty.
    fn complete(self) -> Result<Self, Failure> {
        if self.spans.is_empty() { Err(Failure::Input("no intervals".to_owned())) } else { Ok(self) }
    }
}

/// A line of the picture: a track, or the name of the device that the next ones belong to.
struct Row<'a> {
    track: Option<(u64, u64)>,
    name: &'a str,
}

/// Sizes in pixels.
const WIDTH: f64 = 1200.0;
/// The least and the most room for names, and the room that a letter takes.
const LEFT: f64 = 90.0;
const MAX_LEFT: f64 = 320.0;
/// Room for half of the last mark of time.
const RIGHT: f64 = 28.0;
const LETTER: f64 = 6.6;
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
    let shown = trace.spans(from, to).count();
    if shown == 0 {
        let what = format!("nothing happens from {from} to {to} ms");
        return Err(Failure::Input(what).at(args.trace.display()));
    }
    let rows = trace.rows(from, to)?;
    memory::check("tracks", rows.len().saturating_mul(64))?;
    files::write(&args.svg, |file| draw(file, (&trace, &rows), from, to))?;
    console.line(format!("{}: {shown} of {} intervals", args.svg.display(), trace.spans.len()));
    Ok(())
}

/// The picture of the time between `from` and `to`.
fn draw(svg: &mut dyn Write, (trace, rows): (&Trace, &[Row]), from: f64, to: f64) -> io::Result<()> {
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let edge = (longest as f64 * LETTER + 20.0).clamp(LEFT, MAX_LEFT);
    let height = TOP + TRACK * rows.len() as f64 + 34.0;
    let x = |ms: f64| edge + (WIDTH - edge - RIGHT) * ((ms - from) / (to - from)).clamp(0.0, 1.0);
    let y = |row: usize| TOP + TRACK * row as f64;
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"
    )?;
    // A band behind the name of each device.
    let headings = rows.iter().enumerate().filter(|(_, row)| row.track.is_none());
    for (row, Row { name, .. }) in headings {
        writeln!(
            svg,
            "<rect x=\"8\" y=\"{}\" width=\"{}\" height=\"{BAR}\" fill=\"#eeeeee\"/>\
             <text x=\"14\" y=\"{}\" font-weight=\"bold\">{}</text>",
            y(row),
            WIDTH - RIGHT - 8.0,
            y(row) + BAR - 4.0,
            escaped(name)
        )?;
    }
    let bottom = y(rows.len());
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
    let mut places = HashMap::new();
    let tracks = rows.iter().enumerate().filter_map(|(row, it)| Some((row, it.track?, it.name)));
    for (row, track, name) in tracks {
        places.insert(track, row);
        let (name, y) = (escaped(name), y(row) + BAR - 4.0);
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{y}\" text-anchor=\"end\" fill=\"#000000\">{name}</text>",
            edge - 8.0
        )?;
    }
    let mut names = HashSet::new();
    for span in trace.spans(from, to) {
        let Some(&row) = places.get(&span.track) else { continue };
        let (left, right) = (x(span.start), x(span.end));
        let kind = if span.is_call { CALL } else { &*span.name };
        names.insert(kind);
        writeln!(
            svg,
            "<rect x=\"{left:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{BAR}\" fill=\"{}\"><title>{} {:.3} ms</title></rect>",
            y(row),
            (right - left).max(0.5),
            colour(kind),
            escaped(&span.name),
            span.end - span.start
        )?;
        // The name of a call, if there is room.
        if span.is_call && right - left > LETTER * (span.name.chars().count() + 2) as f64 {
            let (left, y) = (left + LETTER, y(row) + BAR - 5.0);
            writeln!(svg, "<text x=\"{left:.2}\" y=\"{y}\">{}</text>", escaped(&span.name))?;
        }
    }
    let shown = [CALL, "upload", "compute", "download"].into_iter().filter(|kind| names.contains(kind));
    for (index, name) in shown.enumerate() {
        let left = edge + 110.0 * index as f64;
        writeln!(
            svg,
            "<rect x=\"{left}\" y=\"8\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"19\">{name}</text>",
            colour(name),
            left + 18.0
        )?;
    }
    writeln!(svg, "</svg>")
}

/// What the legend calls the intervals of calls.
const CALL: &str = "call";

/// Colours that people with colour blindness can tell apart.
fn colour(name: &str) -> &'static str {
    match name {
        "upload" => "#0072b2",
        "compute" => "#e69f00",
        "download" => "#009e73",
        CALL => "#cc79a7",
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
        {"ph":"M","pid":2,"tid":1,"name":"process_name","args":{"name":"gl:<0>"}},
        {"ph":"M","pid":2,"tid":7,"name":"thread_name","args":{"name":"slot <0>"}},
        {"ph":"M","pid":2,"tid":2,"name":"thread_name","args":{"name":"upload"}},
        {"ph":"M","pid":1,"tid":1,"name":"process_name","args":{"name":"cpu"}},
        {"ph":"M","pid":1,"tid":1,"name":"thread_name","args":{"name":"calls"}},
        {"ph":"M","pid":1,"tid":1,"name":"thread_name","args":{"name":"calls"}},
        {"ph":"X","pid":2,"tid":2,"cat":"engine","name":"upload","ts":1000,"dur":500,"args":{}},
        {"ph":"X","pid":2,"tid":7,"cat":"slot","name":"upload","ts":1000,"dur":500,"args":{}},
        {"ph":"X","pid":1,"tid":1,"cat":"call","name":"conv2d","ts":2000,"dur":3000,"args":{}},
        {"ph":"X","pid":2,"tid":2,"cat":"engine","name":"upload","ts":9000,"dur":1000,"args":{}}]}"#;

    fn read(text: &str) -> Result<Trace, Failure> {
        let mut trace = Trace::default();
        events::parse(text, |event| trace.take(&event))?;
        trace.complete()
    }

    fn draw(trace: &Trace, from: f64, to: f64) -> String {
        let mut svg = vec![];
        super::draw(&mut svg, (trace, &trace.rows(from, to).unwrap()), from, to).unwrap();
        String::from_utf8(svg).unwrap()
    }

    #[test]
    fn a_trace_becomes_a_picture_of_the_time_asked_for() {
        let trace = read(TEXT).unwrap();
        assert_eq!((trace.devices.len(), trace.tracks.len()), (2, 3));
        assert_eq!((trace.spans[0].start, trace.spans[0].end), (1.0, 1.5));
        let all = draw(&trace, 1.0, 10.0);
        let bars = |svg: &str| svg.matches("<title>upload").count();
        assert_eq!((bars(&all), bars(&draw(&trace, 1.0, 2.0))), (3, 2));
        assert!(all.contains("slot &lt;0&gt;") && !all.contains("slot <0>"));
        // The first interval starts at the left edge and takes 0.5 of 9 ms, below cpu, its calls and the name of its device.
        assert!(all.contains("<rect x=\"90.00\" y=\"108\" width=\"60.11\""), "{all}");
    }

    /// Each device has a heading, and its tracks below it in the order of their numbers, each once.
    #[test]
    fn tracks_stand_below_their_devices() {
        let trace = read(TEXT).unwrap();
        let svg = draw(&trace, 1.0, 10.0);
        let places =
            ["bold\">cpu", "end\" fill=\"#000000\">calls", "bold\">gl:&lt;0&gt;", ">upload</text>", ">slot"];
        let lines = |text: &str| {
            let found = svg.match_indices(text).filter(|(at, _)| !svg[..*at].ends_with("y=\"19\""));
            let y = |at: usize| &svg[svg[..at].rfind(" y=\"").unwrap() + 4..];
            let number = |(at, _)| y(at).split('"').next().unwrap().parse::<f64>().unwrap();
            found.map(number).collect::<Vec<_>>()
        };
        let rows: Vec<f64> = places.iter().flat_map(|text| lines(text)).collect();
        assert_eq!(rows, [0, 1, 2, 3, 4].map(|row| TOP + TRACK * f64::from(row) + BAR - 4.0));
        // The call says what it is.
        assert!(svg.contains(">conv2d</text>") && svg.contains("y=\"19\">call</text>"), "{svg}");
        assert!(!svg.contains("y=\"19\">download</text>"));
    }

    /// Long names do not run into the bars.
    #[test]
    fn names_have_room() {
        let mut trace = read(TEXT).unwrap();
        trace.tracks.insert((1, 2), "pipeline 12: download".to_owned());
        trace.spans[2].track = (1, 2);
        let svg = draw(&trace, 1.0, 10.0);
        let edge = 21.0 * LETTER + 20.0;
        assert!(svg.contains(&format!("<rect x=\"{edge:.2}\" y=\"108\"")), "{svg}");
    }

    /// Tracks and devices without intervals in the time that is drawn are left out.
    #[test]
    fn empty_tracks_are_left_out() {
        let trace = read(TEXT).unwrap();
        let svg = draw(&trace, 6.0, 10.0);
        assert!(svg.contains(">upload</text>") && !svg.contains(">calls</text>") && !svg.contains(">slot"));
        assert!(!svg.contains("bold\">cpu"), "{svg}");
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
                let there = LEFT + (mark - from) / (to - from) * (WIDTH - LEFT - RIGHT);
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
