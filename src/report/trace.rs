//! Traces: what devices did and when, in the format of the viewers of Chrome and Perfetto.
//!
//! A trace has a group of tracks for each device (`pid`) and a track for whatever is at work there (`tid`). All of them
//! have one clock. `SPARKLE_TRACE` names the file of the process: calls are added when they end, the intervals of a
//! pipeline when it has no job left. After each addition the file is a whole JSON document.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::pipeline::ENGINES;
use crate::config::config;

/// The most calls and steps of a trace, so that a long run does not fill the disk.
const MAX_CALLS: usize = 1 << 20;
/// The most tracks for calls of one device at once; further calls share the last one.
const MAX_CALL_TRACKS: usize = 64;

/// Whose queue has engines, slots or jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A queue that is not traced: it measures a driver.
    Nobody,
    /// The queue through which the device computes large blocking calls.
    Calls,
    /// A pipeline of the program, by its number from 1 in the order of creation.
    Pipeline(usize),
}

impl Source {
    /// A new pipeline.
    pub fn next_pipeline() -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        Source::Pipeline(COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1)
    }

    /// The number by which files name it; 0 for calls.
    pub fn number(self) -> usize {
        match self {
            Source::Pipeline(number) => number,
            _ => 0,
        }
    }
}

/// A track of a device. The order here is that of the tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Track {
    /// Calls, or shares of calls; those that overlap have tracks of their own, from 0.
    Calls(usize),
    /// The steps of small calls on the device's worker.
    Steps,
    /// One of the [`ENGINES`] of a queue.
    Engine(Source, usize),
    /// A slot of a queue.
    Slot(Source, usize),
    /// The thread of a pipeline that runs whole jobs.
    Jobs(Source),
}

/// The track numbers of a queue.
const QUEUE: usize = 100;

impl Track {
    fn tid(self) -> usize {
        let queue = |source: Source| QUEUE * (1 + source.number());
        match self {
            Track::Calls(index) => 1 + index,
            Track::Steps => QUEUE - 1,
            Track::Engine(source, engine) => queue(source) + 1 + engine,
            Track::Slot(source, slot) => queue(source) + 10 + slot,
            Track::Jobs(source) => queue(source),
        }
    }

    fn name(self) -> String {
        let of = |source: Source, name: &str| match source {
            Source::Pipeline(number) => format!("pipeline {number}: {name}"),
            _ => format!("calls: {name}"),
        };
        match self {
            Track::Calls(0) => "calls".to_owned(),
            Track::Calls(index) => format!("calls {}", index + 1),
            Track::Steps => "calls: steps".to_owned(),
            Track::Engine(source, engine) => of(source, ENGINES[engine]),
            Track::Slot(source, slot) => of(source, &format!("slot {slot}")),
            Track::Jobs(source) => of(source, "jobs"),
        }
    }

    /// The category of its intervals.
    fn category(self) -> &'static str {
        match self {
            Track::Calls(_) => "call",
            Track::Steps => "step",
            Track::Engine(..) => "engine",
            Track::Slot(..) => "slot",
            Track::Jobs(_) => "job",
        }
    }
}

/// Numbers that describe an interval.
pub type Arguments<'a> = [(&'a str, u64); 3];

/// No numbers.
pub const NO_ARGUMENTS: Arguments<'static> = [("", 0); 3];

/// An interval of a track.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// The track.
    pub track: Track,
    /// What was done.
    pub name: &'a str,
    /// When, since the beginning of the trace.
    pub start: Duration,
    /// When it was over.
    pub end: Duration,
    /// Numbers that describe it, each with its name; those without are left out.
    pub args: Arguments<'a>,
}

/// A trace that is being written.
pub struct TraceFile<W> {
    to: W,
    /// Where the next event goes: before the end of the document.
    end: u64,
    is_empty: bool,
    devices: Vec<Device>,
}

/// A device of a trace.
struct Device {
    id: String,
    /// The tracks that have names.
    named: BTreeSet<usize>,
    /// When the last call of each track for calls was over.
    calls: Vec<Duration>,
}

impl<W: Write + Seek> TraceFile<W> {
    /// Writes a trace without events.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(mut to: W) -> io::Result<Self> {
        to.write_all(b"{\"traceEvents\":[")?;
        let end = to.stream_position()?;
        let mut file = TraceFile { to, end, is_empty: true, devices: vec![] };
        file.add("", std::iter::empty())?;
        Ok(file)
    }

    /// Where it is written to.
    #[cfg(test)]
    pub fn writer(&self) -> &W {
        &self.to
    }

    fn device(&mut self, id: &str) -> usize {
        let found = self.devices.iter().position(|device| device.id == id);
        found.unwrap_or_else(|| {
            self.devices.push(Device { id: id.to_owned(), named: BTreeSet::new(), calls: vec![] });
            self.devices.len() - 1
        })
    }

    /// A track for a call that took this time on `device`: the first one whose last call was over by then.
    pub fn calls(&mut self, device: &str, start: Duration, end: Duration) -> Track {
        let device = self.device(device);
        let calls = &mut self.devices[device].calls;
        let free = calls.iter().position(|last| *last <= start);
        let index = free.unwrap_or(calls.len()).min(MAX_CALL_TRACKS - 1);
        match calls.get_mut(index) {
            Some(last) => *last = end.max(*last),
            None => calls.push(end),
        }
        Track::Calls(index)
    }

    /// Adds events of a device. The document is whole again afterwards.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn add<'a>(&mut self, device: &str, events: impl Iterator<Item = Event<'a>>) -> io::Result<()> {
        self.to.seek(SeekFrom::Start(self.end))?;
        let mut events = events.peekable();
        let device = events.peek().is_some().then(|| self.device(device));
        let mut to = BufWriter::new(&mut self.to);
        for event in events {
            let index = device.unwrap_or_default();
            let (pid, tid) = (index + 1, event.track.tid());
            let device = &mut self.devices[index];
            if device.named.insert(tid) {
                let separator = if std::mem::take(&mut self.is_empty) { "\n" } else { ",\n" };
                let (id, name) = (printable(&device.id), event.track.name());
                write!(
                    to,
                    "{separator}{{\"ph\":\"M\",\"pid\":{pid},\"tid\":{tid},\"name\":\"process_name\",\"args\":{{\"name\":\"{id}\"}}}},\n\
                     {{\"ph\":\"M\",\"pid\":{pid},\"tid\":{tid},\"name\":\"thread_name\",\"args\":{{\"name\":\"{name}\"}}}}"
                )?;
            }
            let start = event.start.as_nanos() as f64 / 1e3;
            let length = event.end.saturating_sub(event.start).as_nanos() as f64 / 1e3;
            write!(
                to,
                ",\n{{\"ph\":\"X\",\"pid\":{pid},\"tid\":{tid},\"cat\":\"{}\",\"name\":\"{}\",\"ts\":{start:.3},\
                 \"dur\":{length:.3},\"args\":{{",
                event.track.category(),
                printable(event.name)
            )?;
            let mut separator = "";
            for (name, value) in event.args.iter().filter(|(name, _)| !name.is_empty()) {
                write!(to, "{separator}\"{name}\":{value}")?;
                separator = ",";
            }
            write!(to, "}}}}")?;
        }
        to.flush()?;
        drop(to);
        self.end = self.to.stream_position()?;
        self.to.write_all(b"\n]}\n")
    }

    /// Notes on `device` that `count` intervals are missing.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn left_out(&mut self, device: &str, count: u64) -> io::Result<()> {
        self.to.seek(SeekFrom::Start(self.end))?;
        let pid = self.device(device) + 1;
        let separator = if std::mem::take(&mut self.is_empty) { "\n" } else { ",\n" };
        let text = format!(
            "{separator}{{\"ph\":\"M\",\"pid\":{pid},\"name\":\"process_labels\",\"args\":{{\"labels\":\"{count} intervals left out\"}}}}"
        );
        self.to.write_all(text.as_bytes())?;
        self.end = self.to.stream_position()?;
        self.to.write_all(b"\n]}\n")
    }
}

/// A text that needs no escapes in JSON.
fn printable(text: &str) -> String {
    text.chars().filter(|it| !it.is_control() && !"\"\\".contains(*it)).collect()
}

/// The trace of this process.
pub struct ProcessTrace {
    path: String,
    process: u32,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Made with the first event.
    file: Option<TraceFile<File>>,
    has_failed: bool,
    /// Calls and steps so far.
    calls: usize,
}

/// The trace of this process, if `SPARKLE_TRACE` asks for one. The clock begins with the first call of this function. A
/// forked child has none: the file is its parent's.
#[inline]
pub fn of_process() -> Option<&'static ProcessTrace> {
    static TRACE: OnceLock<Option<ProcessTrace>> = OnceLock::new();
    let trace = TRACE.get_or_init(|| {
        let process = crate::process::id();
        let path = config().trace.as_ref()?.replace("%p", &process.to_string());
        Some(ProcessTrace { path, process, began: Instant::now(), state: Mutex::default() })
    });
    trace.as_ref().filter(|trace| trace.process == crate::process::id())
}

impl ProcessTrace {
    /// The time since the beginning of the trace.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// When `instant` was.
    pub fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.began)
    }

    /// Adds a call, or a share of one, that `device` computed.
    pub fn call(&self, device: &str, name: &str, (start, end): (Duration, Duration), args: Arguments) {
        self.count(|file| {
            let track = file.calls(device, start, end);
            file.add(device, std::iter::once(Event { track, name, start, end, args }))
        });
    }

    /// Adds a step of a call, from `start` to now.
    pub fn step(&self, device: &str, track: Track, name: &str, start: Duration) {
        let end = self.now();
        self.count(|file| {
            file.add(device, std::iter::once(Event { track, name, start, end, args: NO_ARGUMENTS }))
        });
    }

    /// Adds what `write` writes, unless there are too many calls already.
    fn count(&self, write: impl FnOnce(&mut TraceFile<File>) -> io::Result<()>) {
        let mut state = self.state();
        state.calls += 1;
        let written = match state.calls {
            ..=MAX_CALLS => state.write(&self.path, write),
            _ => Ok(()),
        };
        let is_full = state.calls == MAX_CALLS + 1;
        drop(state);
        if is_full {
            crate::log::warning!("SPARKLE_TRACE: {} has {MAX_CALLS} calls; no more are added", self.path);
        }
        self.report(written);
    }

    /// Adds what `write` writes. After an error there is no trace any more.
    ///
    /// # Errors
    /// Those of the writer, once, for [`ProcessTrace::report`].
    pub fn write(&self, write: impl FnOnce(&mut TraceFile<File>) -> io::Result<()>) -> io::Result<()> {
        self.state().write(&self.path, write)
    }

    /// Warns of an error. The callback of the log may call Sparkle, so the caller holds no lock.
    pub fn report(&self, written: io::Result<()>) {
        if let Err(error) = written {
            crate::log::warning!("SPARKLE_TRACE: {} cannot be written: {error}", self.path);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(
        &mut self,
        path: &str,
        write: impl FnOnce(&mut TraceFile<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.has_failed {
            return Ok(());
        }
        let opened = match self.file.take() {
            Some(file) => Ok(file),
            None => File::create(path).and_then(TraceFile::new),
        };
        let written = opened.and_then(|mut file| write(&mut file).map(|()| file));
        self.has_failed = written.is_err();
        self.file = Some(written?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn events(file: TraceFile<Cursor<Vec<u8>>>) -> Vec<serde_json::Value> {
        let document: serde_json::Value = serde_json::from_slice(&file.to.into_inner()).unwrap();
        document["traceEvents"].as_array().unwrap().clone()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_document_is_whole_after_each_addition() {
        let mut file = TraceFile::new(Cursor::new(vec![])).unwrap();
        let mut count = 0;
        for (device, track) in
            [("gl:0", Track::Steps), ("cpu \"\\\n", Track::Jobs(Source::Pipeline(3))), ("gl:0", Track::Steps)]
        {
            let event = Event {
                track,
                name: "compute",
                start: ms(1),
                end: ms(3),
                args: [("slot", 2), ("", 0), ("bytes", 9)],
            };
            file.add(device, [event; 2].into_iter()).unwrap();
            count += 2;
            let document: serde_json::Value = serde_json::from_slice(file.to.get_ref()).unwrap();
            let events = document["traceEvents"].as_array().unwrap();
            assert_eq!(events.iter().filter(|event| event["ph"] == "X").count(), count);
        }
        file.left_out("gl:0", 7).unwrap();
        let events = events(file);
        let names = |kind: &str| {
            let found = events.iter().filter(|event| event["name"] == kind);
            found.map(|event| event["args"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("process_name"), ["gl:0", "cpu "]);
        assert_eq!(names("thread_name"), ["calls: steps", "pipeline 3: jobs"]);
        let last = events.iter().rfind(|event| event["ph"] == "X").unwrap();
        assert_eq!((&last["pid"], &last["ts"], &last["dur"]), (&1.into(), &1000.0.into(), &2000.0.into()));
        assert_eq!((&last["cat"], &last["args"]["slot"]), (&"step".into(), &2.into()));
        assert_eq!(events.last().unwrap()["args"]["labels"], "7 intervals left out");
    }

    /// A viewer draws overlapping intervals of one track on top of each other.
    #[test]
    fn calls_that_overlap_have_tracks_of_their_own() {
        let mut file = TraceFile::new(Cursor::new(vec![])).unwrap();
        let mut calls = |device: &str, start, end| file.calls(device, ms(start), ms(end)).tid();
        assert_eq!([calls("a", 0, 5), calls("a", 3, 9), calls("b", 3, 9), calls("a", 5, 6)], [1, 2, 1, 1]);
        assert_eq!([calls("a", 7, 8), calls("a", 9, 10)], [1, 1]);
        for _ in 0..100 {
            assert!(calls("c", 0, 1) <= MAX_CALL_TRACKS);
        }
    }

    #[test]
    fn tracks_have_numbers_of_their_own() {
        let sources = [Source::Calls, Source::Pipeline(1), Source::Pipeline(2)];
        let queue = |source| {
            let engines = (0..3).map(move |engine| Track::Engine(source, engine));
            engines.chain((0..16).map(move |slot| Track::Slot(source, slot))).chain([Track::Jobs(source)])
        };
        let calls = (0..MAX_CALL_TRACKS).map(Track::Calls).chain([Track::Steps]);
        let all: Vec<Track> = calls.chain(sources.into_iter().flat_map(queue)).collect();
        let numbers: BTreeSet<usize> = all.iter().map(|track| track.tid()).collect();
        let names: BTreeSet<String> = all.iter().map(|track| track.name()).collect();
        assert_eq!((numbers.len(), names.len()), (all.len(), all.len()));
    }
}
