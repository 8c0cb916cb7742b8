//! Statistics of a pipeline: the utilisation of its engines, and a trace.
//!
//! The busy time of an engine is the length of the union of its intervals, so overlapping work counts once. The
//! intervals of an engine arrive in the order of their ends, because an engine does one thing at a time.

use std::io::{self, Seek, Write};
use std::time::Duration;

use super::trace::{Event, Source, TraceFile, Track};

/// The engines of a pipeline, in the order in which a job uses them.
pub const ENGINES: [&str; 3] = ["upload", "compute", "download"];

/// The statistics of a pipeline since its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PipelineStats {
    /// Jobs that succeeded.
    pub completed: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Pieces of jobs that the device has processed.
    pub pieces: u64,
    /// How often the device's contexts were created again.
    pub rebuilt: u64,
    /// Bytes uploaded to the device.
    pub uploaded: u64,
    /// Bytes downloaded from the device.
    pub downloaded: u64,
    /// Busy time of each of the [`ENGINES`].
    pub busy: [Duration; 3],
    /// The time up to which each engine's busy time is counted, since the creation of the pipeline. Work is counted
    /// when its end is observed.
    pub counted: [Duration; 3],
    /// From the start of the first interval to the end of the last one.
    pub span: Duration,
    /// The current number of jobs that wait for a slot, and of busy slots.
    pub depth: (usize, usize),
}

impl PipelineStats {
    /// The busy fraction of the time of each engine, 0 to 1.
    pub fn utilisation(&self) -> [f64; 3] {
        let span = self.span.as_secs_f64().max(f64::MIN_POSITIVE);
        self.busy.map(|busy| busy.as_secs_f64() / span)
    }

    /// The busy fraction of each engine's counted time since `earlier`, statistics of the same pipeline.
    pub fn utilisation_since(&self, earlier: &PipelineStats) -> [f64; 3] {
        [0, 1, 2].map(|engine| {
            let span = self.counted[engine].saturating_sub(earlier.counted[engine]).as_secs_f64();
            let busy = self.busy[engine].saturating_sub(earlier.busy[engine]).as_secs_f64();
            busy / span.max(f64::MIN_POSITIVE)
        })
    }
}

/// A piece of work on an engine. Times are since the creation of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Index into [`ENGINES`].
    pub engine: usize,
    /// The slot of the job.
    pub slot: usize,
    /// The start.
    pub start: Duration,
    /// The end.
    pub end: Duration,
    /// Bytes moved; 0 for computations.
    pub bytes: u64,
}

/// The most intervals of a trace, so that a long run fills neither the memory nor the disk.
const MAX_TRACED: usize = 1 << 20;

/// Accumulates intervals.
#[derive(Debug, Default)]
pub struct Recorder {
    stats: PipelineStats,
    first: Option<Duration>,
    last: Duration,
    trace: Option<Vec<Interval>>,
    /// Intervals that were kept, and those that were not.
    traced: usize,
    untraced: u64,
}

impl Recorder {
    /// A recorder. It keeps every interval if it `traces`.
    pub fn new(traces: bool) -> Self {
        Recorder { trace: traces.then(Vec::new), ..Default::default() }
    }

    /// Adds an interval.
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
            if self.traced < MAX_TRACED && trace.try_reserve(1).is_ok() {
                trace.push(interval);
                self.traced += 1;
            } else {
                self.untraced += 1;
            }
        }
    }

    /// The statistics, to change those that do not come from intervals.
    pub fn stats_mut(&mut self) -> &mut PipelineStats {
        &mut self.stats
    }

    /// The statistics so far.
    pub fn stats(&self) -> PipelineStats {
        let span = self.first.map_or(Duration::ZERO, |first| self.last - first);
        PipelineStats { span, ..self.stats }
    }

    /// Whether the recorder traces.
    pub fn traces(&self) -> bool {
        self.trace.is_some()
    }

    /// Moves the intervals to `file`, as tracks of `device`: each is on the track of its engine and on that of its slot.
    /// `source` is the pipeline, which was created `since` after the beginning of the trace. Writes nothing if this
    /// recorder does not trace.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_trace<W: Write + Seek>(
        &mut self,
        file: &mut TraceFile<W>,
        device: &str,
        (source, since): (Source, Duration),
    ) -> io::Result<()> {
        let trace = self.trace.as_mut().map(std::mem::take).unwrap_or_default();
        let event = |(is_slot, interval): (bool, &Interval)| {
            let Interval { engine, slot, start, end, bytes } = *interval;
            let track = if is_slot { Track::Slot(source, slot) } else { Track::Engine(source, engine) };
            let args = [("pipeline", source.number() as u64), ("slot", slot as u64), ("bytes", bytes)];
            Event { track, name: ENGINES[engine], start: since + start, end: since + end, args }
        };
        let tracks = [false, true].into_iter();
        file.add(device, tracks.flat_map(|is_slot| trace.iter().map(move |it| (is_slot, it))).map(event))?;
        match std::mem::take(&mut self.untraced) {
            0 => Ok(()),
            count => file.left_out(device, count),
        }
    }
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

    /// Work whose end is observed late counts for the time in which it ran, so no engine exceeds a utilisation of 1.
    #[test]
    fn utilisation_counts_the_time_of_each_engine() {
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
        let mut file = TraceFile::new(std::io::Cursor::new(vec![])).unwrap();
        // In two parts, as of a pipeline that has no job left in between.
        for engines in [0..2, 2..3] {
            engines.for_each(|engine| {
                recorder.add(interval(engine, 10 * engine as u64, 10 * engine as u64 + 5))
            });
            let source = (Source::Pipeline(4), Duration::from_millis(100));
            recorder.write_trace(&mut file, "gl:0 \"quoted\\", source).unwrap();
        }
        let trace: serde_json::Value = serde_json::from_slice(file.writer().get_ref()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let spans: Vec<_> = events.iter().filter(|it| it["ph"] == "X").collect();
        assert_eq!(spans.len(), 6);
        assert_eq!((&spans[1]["name"], spans[1]["ts"].as_f64()), (&"compute".into(), Some(110_000.0)));
        assert_eq!((&spans[1]["cat"], &spans[1]["args"]["pipeline"]), (&"engine".into(), &4.into()));
        let names = events.iter().filter(|it| it["name"] == "thread_name").map(|it| &it["args"]["name"]);
        let expected = ["upload", "compute", "slot 0", "slot 1", "download", "slot 2"];
        let expected = expected.map(|it| format!("pipeline 4: {it}"));
        assert_eq!(names.map(|name| name.as_str().unwrap()).collect::<Vec<_>>(), expected);
    }
}
