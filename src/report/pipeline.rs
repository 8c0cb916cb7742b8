//! What a pipeline did: how busy its engines were, and a trace to look at.
//!
//! An engine's busy time is the length of the union of its intervals: work that overlaps counts once. Intervals of one engine arrive in
//! the order in which they ended, since each engine does one thing after the other.

use std::io::{self, Write};
use std::time::Duration;

/// The engines of a pipeline, in the order of a job's way.
pub const ENGINES: [&str; 3] = ["upload", "compute", "download"];

/// What a pipeline has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PipelineStats {
    /// Jobs that ended well.
    pub completed: u64,
    /// Jobs that ended with an error.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Pieces of jobs that went through the device.
    pub pieces: u64,
    /// Times the device's contexts were made again.
    pub rebuilt: u64,
    /// Bytes moved to the device.
    pub uploaded: u64,
    /// Bytes moved from it.
    pub downloaded: u64,
    /// Time in which each of [`ENGINES`] was at work.
    pub busy: [Duration; 3],
    /// Until when each engine's time has been counted, since the pipeline was made: work is counted when it is seen to have ended.
    pub counted: [Duration; 3],
    /// From the first interval's beginning to the last one's end.
    pub span: Duration,
    /// Jobs that wait for a slot, and slots at work, at present.
    pub depth: (usize, usize),
}

impl PipelineStats {
    /// Which part of the time each engine was at work, 0 to 1.
    pub fn utilisation(&self) -> [f64; 3] {
        let span = self.span.as_secs_f64().max(f64::MIN_POSITIVE);
        self.busy.map(|busy| busy.as_secs_f64() / span)
    }

    /// Which part of the time since `earlier` figures of the same pipeline each engine was at work, as far as it has been counted.
    pub fn utilisation_since(&self, earlier: &PipelineStats) -> [f64; 3] {
        [0, 1, 2].map(|engine| {
            let span = self.counted[engine].saturating_sub(earlier.counted[engine]).as_secs_f64();
            let busy = self.busy[engine].saturating_sub(earlier.busy[engine]).as_secs_f64();
            busy / span.max(f64::MIN_POSITIVE)
        })
    }
}

/// One piece of work on one engine; times are since the pipeline was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Index into [`ENGINES`].
    pub engine: usize,
    /// The slot it was in.
    pub slot: usize,
    /// When it began.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
    /// Bytes moved; 0 for computing.
    pub bytes: u64,
}

/// The most intervals that a trace keeps, so that a long run cannot fill the memory.
const MOST_TRACED: usize = 1 << 20;

/// Adds intervals up.
#[derive(Debug, Default)]
pub struct Recorder {
    stats: PipelineStats,
    first: Option<Duration>,
    last: Duration,
    trace: Option<Vec<Interval>>,
    untraced: u64,
}

impl Recorder {
    /// A recorder; one that traces keeps every interval.
    pub fn new(traces: bool) -> Self {
        Recorder { trace: traces.then(Vec::new), ..Default::default() }
    }

    /// Counts an interval.
    pub fn add(&mut self, interval: Interval) {
        let Interval { engine, start, end, bytes, .. } = interval;
        let end = end.max(start);
        let from = start.max(self.stats.counted[engine]);
        self.stats.busy[engine] += end.saturating_sub(from);
        self.stats.counted[engine] = self.stats.counted[engine].max(end);
        self.first = Some(self.first.map_or(start, |first| first.min(start)));
        self.last = self.last.max(end);
        match engine {
            0 => self.stats.uploaded += bytes,
            2 => {
                self.stats.downloaded += bytes;
                self.stats.pieces += 1;
            }
            _ => {}
        }
        if let Some(trace) = &mut self.trace {
            if trace.len() < MOST_TRACED && trace.try_reserve(1).is_ok() {
                trace.push(interval);
            } else {
                self.untraced += 1;
            }
        }
    }

    /// The figures, to be changed where they are not about intervals.
    pub fn stats_mut(&mut self) -> &mut PipelineStats {
        &mut self.stats
    }

    /// The figures so far.
    pub fn stats(&self) -> PipelineStats {
        let span = self.first.map_or(Duration::ZERO, |first| self.last - first);
        PipelineStats { span, ..self.stats }
    }

    /// Whether there is a trace.
    pub fn traces(&self) -> bool {
        self.trace.is_some()
    }

    /// Writes the trace in the format of Chrome's and Perfetto's viewers: a track for each engine and each slot. Nothing if
    /// this recorder keeps none.
    ///
    /// # Errors
    /// The writer's own.
    pub fn write_trace(&self, device: &str, to: &mut impl Write) -> io::Result<()> {
        let Some(trace) = &self.trace else { return Ok(()) };
        writeln!(to, "{{\"traceEvents\":[")?;
        let device: String = device.chars().filter(|it| !it.is_control() && !"\"\\".contains(*it)).collect();
        for (index, engine) in ENGINES.iter().enumerate() {
            track(to, (1, &format!("{device} engines")), (index + 1, engine))?;
        }
        let slots = trace.iter().map(|interval| interval.slot + 1).max().unwrap_or(0);
        for slot in 0..slots {
            track(to, (2, &format!("{device} slots")), (slot + 1, &format!("slot {slot}")))?;
        }
        for Interval { engine, slot, start, end, bytes } in trace {
            let (name, from) = (ENGINES[*engine], start.as_nanos() as f64 / 1e3);
            let length = end.saturating_sub(*start).as_nanos() as f64 / 1e3;
            for (pid, tid) in [(1, engine + 1), (2, slot + 1)] {
                writeln!(
                    to,
                    "{{\"ph\":\"X\",\"pid\":{pid},\"tid\":{tid},\"name\":\"{name}\",\"ts\":{from:.3},\"dur\":{length:.3},\
                     \"args\":{{\"slot\":{slot},\"bytes\":{bytes}}}}},"
                )?;
            }
        }
        writeln!(
            to,
            "{{\"ph\":\"M\",\"pid\":1,\"name\":\"process_labels\",\"args\":{{\"labels\":\"{} intervals left out\"}}}}\n]}}",
            self.untraced
        )
    }
}

/// Names a track of a trace: of process `pid`, thread `tid`.
fn track(to: &mut impl Write, (pid, process): (usize, &str), (tid, name): (usize, &str)) -> io::Result<()> {
    writeln!(
        to,
        "{{\"ph\":\"M\",\"pid\":{pid},\"tid\":{tid},\"name\":\"process_name\",\"args\":{{\"name\":\"{process}\"}}}},\n\
         {{\"ph\":\"M\",\"pid\":{pid},\"tid\":{tid},\"name\":\"thread_name\",\"args\":{{\"name\":\"{name}\"}}}},"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(engine: usize, start: u64, end: u64) -> Interval {
        let ms = Duration::from_millis;
        Interval { engine, slot: engine, start: ms(start), end: ms(end), bytes: 7 }
    }

    #[test]
    fn time_that_overlaps_counts_once() {
        let mut recorder = Recorder::new(false);
        for (start, end) in [(10, 20), (15, 25), (18, 22), (40, 50)] {
            recorder.add(interval(1, start, end));
        }
        recorder.add(interval(0, 0, 10));
        recorder.add(interval(2, 50, 100));
        let stats = recorder.stats();
        assert_eq!(stats.busy.map(|it| it.as_millis()), [10, 25, 50]);
        assert_eq!((stats.span.as_millis(), stats.pieces), (100, 1));
        assert_eq!((stats.uploaded, stats.downloaded), (7, 7));
        let parts = stats.utilisation().into_iter().zip([0.1, 0.25, 0.5]);
        parts.for_each(|(part, expected)| assert!((part - expected).abs() < 1e-9, "{part}"));
        assert!(!recorder.traces());
    }

    /// What began earlier and is seen to end late belongs to its own time, too: no engine is busier than always.
    #[test]
    fn a_part_of_the_time_is_told_by_what_each_engine_was_counted_for() {
        let mut recorder = Recorder::new(false);
        recorder.add(interval(1, 0, 10));
        let earlier = recorder.stats();
        recorder.add(interval(1, 10, 40));
        recorder.add(interval(2, 20, 30));
        recorder.add(interval(2, 35, 60));
        let parts = recorder.stats().utilisation_since(&earlier);
        let expected = [0.0, 1.0, 35.0 / 60.0];
        parts
            .iter()
            .zip(expected)
            .for_each(|(part, expected)| assert!((part - expected).abs() < 1e-9, "{parts:?}"));
        assert_eq!(earlier.utilisation_since(&earlier), [0.0; 3]);
    }

    #[test]
    fn a_trace_has_a_track_for_each_engine_and_slot() {
        let mut recorder = Recorder::new(true);
        (0..3).for_each(|engine| recorder.add(interval(engine, 10 * engine as u64, 10 * engine as u64 + 5)));
        let mut text = vec![];
        recorder.write_trace("gl:0 \"quoted\\", &mut text).unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let spans: Vec<_> = events.iter().filter(|it| it["ph"] == "X").collect();
        assert_eq!(spans.len(), 6);
        assert_eq!((&spans[2]["name"], spans[2]["ts"].as_f64()), (&"compute".into(), Some(10_000.0)));
        let names = events.iter().filter(|it| it["name"] == "thread_name").map(|it| &it["args"]["name"]);
        let expected = ["upload", "compute", "download", "slot 0", "slot 1", "slot 2"];
        assert_eq!(names.collect::<Vec<_>>(), expected);
    }
}
