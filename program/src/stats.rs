//! `sparkle stats`: computes the figures of pipelines from a trace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sparkle::report::{ENGINES, Interval, Recorder};

use crate::console::Console;
use crate::events::{self, Event};
use crate::failure::Failure;
use crate::json::JsonOption;
use crate::memory;

/// Print the figures of each pipeline, on each device, from the trace that a process wrote with SPARKLE_TRACE=FILE.
///
/// Large calls go through a pipeline of their device, which is called "calls".
///
/// busy is the share of the time in which an engine worked; overlapping work counts once. A slot is at work while an
/// engine works for it; the mean and the maximum over time are printed.
#[derive(clap::Args)]
pub struct Args {
    /// The trace
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    #[command(flatten)]
    json: JsonOption,
}

/// One engine's figures.
#[derive(Debug, PartialEq, serde::Serialize)]
struct EngineFigures {
    engine: &'static str,
    /// Pieces that it worked on.
    pieces: usize,
    busy_ms: f64,
    /// Share of the time from the start of the first piece to the end of the last.
    busy: f64,
    bytes: u64,
    /// Gigabytes per second while it worked.
    rate: f64,
}

/// A trace's figures.
#[derive(Debug, PartialEq, serde::Serialize)]
struct Report {
    pipelines: Vec<PipelineFigures>,
}

/// The figures of a pipeline on one device.
#[derive(Debug, PartialEq, serde::Serialize)]
struct PipelineFigures {
    device: String,
    /// Its number; 0 is the queue of the device's calls.
    pipeline: u64,
    span_ms: f64,
    engines: Vec<EngineFigures>,
    slots: usize,
    mean_slots_at_work: f64,
    most_slots_at_work: usize,
}

/// Runs the command.
///
/// # Errors
/// A file that is not a pipeline's trace.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    args.json.begin(console)?;
    let report = report(read(&args.trace)?)?;
    for (index, it) in report.pipelines.iter().enumerate() {
        if index > 0 {
            console.line(String::new());
        }
        print(it, console);
    }
    args.json.end(&report, console)
}

fn print(figures: &PipelineFigures, console: &mut Console) {
    let line = |cells: [&str; 6]| {
        let [engine, rest @ ..] = cells;
        let rest: String = rest.iter().map(|cell| format!("  {cell:>10}")).collect();
        format!("{engine:<10}{rest}")
    };
    console.line(match figures.pipeline {
        0 => format!("{}, calls", figures.device),
        number => format!("{}, pipeline {number}", figures.device),
    });
    console.line(line(["engine", "pieces", "busy ms", "busy", "MB", "GB/s"]));
    for it in &figures.engines {
        let moves = it.bytes > 0;
        let cells = [
            it.pieces.to_string(),
            format!("{:.3}", it.busy_ms),
            format!("{:.2}", it.busy),
            if moves { format!("{:.1}", it.bytes as f64 / 1e6) } else { String::new() },
            if moves { format!("{:.2}", it.rate) } else { String::new() },
        ];
        let [pieces, ms, busy, bytes, rate] = cells.each_ref().map(String::as_str);
        console.line(line([it.engine, pieces, ms, busy, bytes, rate]).trim_end().to_owned());
    }
    console.line(format!(
        "{:.3} ms; slots at work: {:.2} of {} on average, {} at most",
        figures.span_ms, figures.mean_slots_at_work, figures.slots, figures.most_slots_at_work
    ));
}

/// The intervals of a trace: of each device and pipeline, in the order in which they ended.
#[derive(Default)]
struct Intervals {
    devices: BTreeMap<u64, String>,
    pipelines: BTreeMap<(u64, u64), Vec<Interval>>,
}

impl Intervals {
    fn take(&mut self, event: &Event) -> Result<(), Failure> {
        if event.kind == "M" && event.name == "process_name" {
            memory::check("devices", 256 + event.args.name.len())?;
            self.devices.insert(event.pid, event.args.name.clone().into_owned());
        }
        // Every interval is recorded twice: on its engine's track, which counts here, and on its slot's.
        let of_engine = event.kind == "X" && event.category == "engine";
        match (event.args.pipeline, interval(event)) {
            (Some(pipeline), Some(interval)) if of_engine => {
                let key = (event.pid, pipeline);
                if !self.pipelines.contains_key(&key) {
                    memory::check("pipelines", 256)?;
                }
                memory::push("intervals", self.pipelines.entry(key).or_default(), interval)
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Intervals, Failure> {
    let mut all = Intervals::default();
    events::read(path, |event| all.take(&event))?;
    if all.pipelines.is_empty() {
        return Err(Failure::Input(format!("{}: it contains no work of a pipeline", path.display())));
    }
    for intervals in all.pipelines.values_mut() {
        intervals.sort_unstable_by_key(|it| (it.end, it.start, it.engine, it.slot));
    }
    Ok(all)
}

fn interval(event: &Event) -> Option<Interval> {
    let engine = ENGINES.iter().position(|engine| event.name == *engine)?;
    let microseconds = |time: Option<f64>| Duration::try_from_secs_f64(time? / 1e6).ok();
    let start = microseconds(event.ts)?;
    Some(Interval {
        engine,
        slot: usize::try_from(event.args.slot?).ok()?,
        start,
        end: start.checked_add(microseconds(event.dur)?)?,
        // Limited so that no sum overflows.
        bytes: event.args.bytes.filter(|bytes| *bytes < 1 << 40)?,
    })
}

/// # Errors
/// If there is not enough memory.
fn report(all: Intervals) -> Result<Report, Failure> {
    let Intervals { devices, pipelines } = all;
    let figures = |((device, pipeline), intervals): ((u64, u64), Vec<Interval>)| {
        let name = devices.get(&device).map_or("", String::as_str);
        figures(name, pipeline, &intervals)
    };
    Ok(Report { pipelines: pipelines.into_iter().map(figures).collect::<Result<_, _>>()? })
}

fn figures(device: &str, pipeline: u64, intervals: &[Interval]) -> Result<PipelineFigures, Failure> {
    let mut recorder = Recorder::new(false);
    intervals.iter().for_each(|interval| recorder.add(*interval));
    let stats = recorder.stats();
    let engines = ENGINES.iter().enumerate().map(|(index, &engine)| {
        let of_it = || intervals.iter().filter(|interval| interval.engine == index);
        let (busy, bytes) = (stats.busy[index].as_secs_f64(), of_it().map(|it| it.bytes).sum::<u64>());
        EngineFigures {
            engine,
            pieces: of_it().count(),
            busy_ms: busy * 1e3,
            busy: stats.utilisation()[index],
            bytes,
            rate: if busy > 0.0 { bytes as f64 / busy / 1e9 } else { 0.0 },
        }
    });
    let engines = engines.collect();
    let (mean, most) = at_work(intervals, stats.span)?;
    Ok(PipelineFigures {
        device: device.to_owned(),
        pipeline,
        span_ms: stats.span.as_secs_f64() * 1e3,
        engines,
        slots: intervals.iter().map(|interval| interval.slot.saturating_add(1)).max().unwrap_or(0),
        mean_slots_at_work: mean,
        most_slots_at_work: most,
    })
}

/// How many slots were at work: the mean over `span`, and the maximum.
fn at_work(intervals: &[Interval], span: Duration) -> Result<(f64, usize), Failure> {
    // Starts and ends of work in time order; ends come first.
    let mut changes = memory::reserved("intervals", 2 * intervals.len())?;
    for interval in intervals {
        changes.push((interval.start, true, interval.slot));
        changes.push((interval.end, false, interval.slot));
    }
    changes.sort_unstable();
    let mut slots: Vec<usize> = memory::reserved("slots", intervals.len())?;
    slots.extend(intervals.iter().map(|interval| interval.slot));
    slots.sort_unstable();
    slots.dedup();
    // The unfinished work of each slot.
    let mut works = memory::filled("slots", slots.len(), 0i64)?;
    let first = changes.first().map_or(Duration::ZERO, |change| change.0);
    let (mut time, mut sum, mut busy, mut most) = (first, 0.0, 0usize, 0);
    for moment in changes.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (at, begins, _) = moment[0];
        sum += busy as f64 * (at - time).as_secs_f64();
        time = at;
        for (_, _, slot) in moment {
            let work = &mut works[slots.binary_search(slot).expect("all slots are there")];
            let before = *work > 0;
            *work += if begins { 1 } else { -1 };
            busy = busy + usize::from(*work > 0) - usize::from(before);
        }
        most = most.max(busy);
    }
    Ok((sum / span.as_secs_f64().max(f64::MIN_POSITIVE), most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparkle::report::{Source, TraceFile};

    /// Two pipelines of one device, and one of another.
    #[test]
    fn a_trace_comes_back_as_what_was_recorded() {
        let ms = Duration::from_millis;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.json");
        let mut file = TraceFile::new(std::fs::File::create(&path).unwrap()).unwrap();
        let pieces = [(0, 0, 0, 10), (1, 0, 10, 30), (0, 1, 10, 20), (2, 0, 30, 40)];
        for (device, source, pieces) in [
            ("gl:0", Source::Pipeline(1), &pieces[..]),
            ("gl:1", Source::Calls, &pieces[..1]),
            ("gl:0", Source::Pipeline(2), &pieces[..2]),
        ] {
            let mut recorder = Recorder::new(true);
            for &(engine, slot, start, end) in pieces {
                recorder.add(Interval { engine, slot, start: ms(start), end: ms(end), bytes: 1_000_000 });
            }
            recorder.write_trace(&mut file, device, (source, ms(5))).unwrap();
        }
        let all = report(read(&path).unwrap()).unwrap().pipelines;
        let names: Vec<_> = all.iter().map(|it| (it.device.as_str(), it.pipeline)).collect();
        assert_eq!(names, [("gl:0", 1), ("gl:0", 2), ("gl:1", 0)]);
        assert_eq!([all[1].span_ms.round(), all[2].span_ms.round()], [30.0, 10.0]);
        let report = &all[0];
        let busy: Vec<_> =
            report.engines.iter().map(|it| (it.pieces, it.busy_ms.round(), it.bytes)).collect();
        assert_eq!(busy, [(2, 20.0, 2_000_000), (1, 20.0, 1_000_000), (1, 10.0, 1_000_000)]);
        assert!((report.engines[1].busy - 0.5).abs() < 1e-6 && (report.engines[0].rate - 0.1).abs() < 1e-6);
        assert_eq!((report.slots, report.most_slots_at_work), (2, 2));
        assert_eq!(report.span_ms.round(), 40.0);
        assert!((report.mean_slots_at_work - 1.25).abs() < 1e-6, "{}", report.mean_slots_at_work);
    }

    #[test]
    fn what_is_no_trace_is_said_to_be_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.json");
        for text in ["", "{}", "{\"traceEvents\":[]}", "{\"traceEvents\":[{\"ph\":\"X\",\"pid\":1}]}"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(Failure::Input(_))), "{text}");
        }
        assert!(read(&directory.path().join("none")).is_err());
    }
}
