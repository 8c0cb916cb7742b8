//! `SPARKLE_TRACE`: one file for the process, with the tracks of all devices and pipelines on one clock. Each test starts this
//! binary again, because a process has one trace.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sparkle::{Conv2d, Conv2dDesc, Device, Gemm, GemmDesc, Layout, PipelineOptions, WhenFull};

/// The variable that marks the child process of a test.
const CHILD: &str = "SPARKLE_TEST_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs this test in a process of its own, in `folder`, with a trace.
fn child(test: &str, folder: &Path, trace: &str) -> (u32, Output) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).current_dir(folder).env("SPARKLE_TRACE", trace);
    command.env(CHILD, "1").env("SPARKLE_CACHE_DIR", "off").env_remove("SPARKLE_LOG");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (id, output)
}

/// An interval of a trace.
#[derive(Debug)]
struct Span {
    device: String,
    track: String,
    category: String,
    name: String,
    pipeline: Option<u64>,
    count: u64,
    start: f64,
    end: f64,
}

/// Rounding of times in the file: two of them, in microseconds.
const ROUNDING: f64 = 0.002;

impl Span {
    fn holds(&self, other: &Span) -> bool {
        self.start <= other.start + ROUNDING && other.end <= self.end + ROUNDING
    }
}

fn read(path: &Path) -> Vec<Span> {
    let trace: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    let (mut devices, mut tracks) = (BTreeMap::new(), BTreeMap::new());
    for event in events.iter().filter(|event| event["ph"] == "M") {
        let (pid, tid) = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        let name = text(&event["args"], "name");
        match event["name"].as_str().unwrap() {
            "process_name" => drop(devices.insert(pid, name)),
            "thread_name" => assert_eq!(tracks.insert((pid, tid), name), None, "a track is named once"),
            other => panic!("{other}"),
        }
    }
    let span = |event: &Value| {
        let (pid, tid) = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        let start = event["ts"].as_f64().unwrap();
        Span {
            device: devices[&pid].clone(),
            track: tracks[&(pid, tid)].clone(),
            category: text(event, "cat"),
            name: text(event, "name"),
            pipeline: event["args"]["pipeline"].as_u64(),
            count: event["args"]["count"].as_u64().unwrap_or_default(),
            start,
            end: start + event["dur"].as_f64().unwrap(),
        }
    };
    events.iter().filter(|event| event["ph"] == "X").map(span).collect()
}

/// A convolution with its data; `side` is that of its square images.
fn problem(n: i64, c: i64, side: i64) -> (Conv2d, Vec<f32>, Vec<f32>) {
    let desc = Conv2dDesc { n, c, h: side, w: side, k: c, ..Default::default() };
    let problem = Conv2d::new(desc).unwrap();
    (problem, vec![1.0; problem.input_len()], vec![2.0; problem.weights_len()])
}

/// Calls and pipelines on `multi`, and two more pipelines.
fn work() {
    let device = Device::open("multi:gl:0=1,cpu=1").unwrap();
    let (small, input, weights) = problem(4, 3, 20);
    let mut output = vec![0.0; small.output_len()];
    assert_eq!(device.conv2d(&small, &input, &weights, None, &mut output).unwrap().shares.len(), 2);
    let plan = device.plan(&small, &weights, None).unwrap();
    for _ in 0..2 {
        plan.run(&input, &mut output).unwrap();
    }
    assert!(output.iter().all(|&value| value == 6.0));
    let product = Gemm::new(GemmDesc::packed(Layout::RowMajor, 128, 128, 128)).unwrap();
    let (a, mut c) = (vec![1.0; 128 * 128], vec![0.0; 128 * 128]);
    assert_eq!(device.sgemm(&product, &a, &a, &mut c).unwrap().shares.len(), 2);
    assert!(c.iter().all(|&value| value == 128.0));

    // Jobs in all slots, so that each device has some.
    let options = PipelineOptions { slots: 2, ..Default::default() };
    let pipeline = device.pipeline(options).unwrap();
    let mut slots = vec![];
    while let Ok(slot) = pipeline.acquire(&plan, WhenFull::Refuse) {
        slots.push(slot);
    }
    assert_eq!(slots.len(), 4);
    let jobs = slots.into_iter().map(|mut slot| {
        slot.input().copy_from_slice(&input);
        slot.submit().unwrap()
    });
    let jobs: Vec<_> = jobs.collect();
    jobs.into_iter().for_each(|job| assert!(job.wait().unwrap().1.output() == output));
    // Two independent pipelines at once. None of the three is dropped: their trace is there when their jobs are done.
    let others = ["gl:0", "gl:0"].map(|id| {
        let device = Device::open(id).unwrap();
        (device.plan(&small, &weights, None).unwrap(), device.pipeline(options).unwrap())
    });
    for _ in 0..3 {
        let jobs = others.each_ref().map(|(plan, pipeline)| {
            pipeline.submit(plan, input.clone(), vec![0.0; output.len()], WhenFull::Wait).unwrap()
        });
        jobs.into_iter().for_each(|job| assert!(job.wait().unwrap().output == output));
    }
    std::mem::forget((pipeline, others));
    // Shares that are large enough for the device's queue of calls.
    let (large, input, weights) = problem(2, 1, 1024);
    let mut output = vec![0.0; large.output_len()];
    let run = device.conv2d(&large, &input, &weights, None, &mut output).unwrap();
    assert!(run.shares.len() == 2 && output.iter().all(|&value| value == 2.0));
}

#[test]
fn one_file_has_the_tracks_of_all_devices() {
    if is_child() {
        return work();
    }
    if !support::gl_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (id, _) = child("one_file_has_the_tracks_of_all_devices", folder.path(), "trace-%p.json");
    let files: Vec<_> = folder.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, [format!("trace-{id}.json").as_str()]);
    let spans = read(&folder.path().join(&files[0]));
    let of = |device: &str, category: &str| {
        let found = spans.iter().filter(|it| it.device == device && it.category == category);
        found.collect::<Vec<_>>()
    };
    // Each call has a share on each device: a convolution, two runs of a plan, a product, a large convolution.
    for device in ["cpu", "gl:0"] {
        let calls: Vec<_> = of(device, "call").iter().map(|it| (it.name.as_str(), it.count)).collect();
        let expected = [("conv2d", 2), ("conv2d", 2), ("conv2d", 2), ("sgemm", 64), ("conv2d", 1)];
        assert_eq!(calls, expected, "{device}");
    }
    // One clock: the steps of a call lie in it. Four small ones have steps, the large one has a queue.
    let calls = of("gl:0", "call");
    let steps = of("gl:0", "step");
    let queue: Vec<_> = of("gl:0", "engine").into_iter().filter(|it| it.pipeline == Some(0)).collect();
    for name in ["upload", "compute", "download"] {
        assert_eq!(steps.iter().filter(|it| it.name == name && calls[3].start > it.end).count(), 3, "{name}");
        assert!(steps.iter().any(|it| it.name == name && calls[3].holds(it)), "{name}");
        assert!(queue.iter().any(|it| it.name == name && it.track == format!("calls: {name}")), "{name}");
    }
    assert!(steps.iter().all(|step| calls[..4].iter().any(|call| call.holds(step))), "{steps:#?} {calls:#?}");
    assert!(queue.iter().all(|step| calls[4].holds(step)), "{queue:#?} {:#?}", calls[4]);
    // The three pipelines have tracks of their own: the one of `multi` on both devices, with the same number.
    let pipelines: BTreeSet<_> = spans
        .iter()
        .filter_map(|it| it.track.strip_prefix("pipeline ").map(|rest| (it.device.as_str(), rest)))
        .collect();
    let count = |name: &str, device: &str| {
        spans.iter().filter(|it| it.device == device && it.track == format!("pipeline {name}")).count()
    };
    assert_eq!(count("1: jobs", "cpu"), 2, "{pipelines:?}");
    for name in ["upload", "compute", "download"] {
        assert_eq!(count(&format!("1: {name}"), "gl:0"), 2, "{pipelines:?}");
        for pipeline in [2, 3] {
            assert_eq!(count(&format!("{pipeline}: {name}"), "gl:0"), 3, "{pipelines:?}");
        }
    }
    assert!(count("1: slot 0", "gl:0") > 0 && count("1: slot 1", "gl:0") > 0, "{pipelines:?}");
}

/// Calls that overlap are on tracks of their own, and the file is whole.
#[test]
fn threads_that_call_at_once() {
    if is_child() {
        let device = Device::open("cpu").unwrap();
        let (problem, input, weights) = problem(2, 8, 32);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut output = vec![0.0; problem.output_len()];
                    for _ in 0..50 {
                        device.conv2d(&problem, &input, &weights, None, &mut output).unwrap();
                    }
                });
            }
        });
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    child("threads_that_call_at_once", folder.path(), "trace.json");
    let spans = read(&folder.path().join("trace.json"));
    assert_eq!(spans.iter().filter(|it| it.device == "cpu" && it.name == "conv2d").count(), 200);
    let mut tracks: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for it in &spans {
        tracks.entry(&it.track).or_default().push((it.start, it.end));
    }
    for (track, spans) in tracks {
        let apart = |pair: &[(f64, f64)]| pair[0].1 <= pair[1].0 + ROUNDING;
        assert!(spans.windows(2).all(apart), "{track}: {spans:?}");
    }
}

/// Without a file there is a warning, and calls work.
#[test]
fn a_trace_that_cannot_be_written() {
    if is_child() {
        let messages = std::sync::Arc::new(std::sync::Mutex::new(vec![]));
        let kept = messages.clone();
        let keep = move |level, text: &str| kept.lock().unwrap().push((level, text.to_owned()));
        sparkle::log::set_callback(Some(std::sync::Arc::new(keep)));
        let (problem, input, weights) = problem(1, 2, 8);
        let mut output = vec![0.0; problem.output_len()];
        for _ in 0..2 {
            Device::open("cpu").unwrap().conv2d(&problem, &input, &weights, None, &mut output).unwrap();
        }
        let messages = messages.lock().unwrap();
        let warnings = messages.iter().filter(|(_, text)| text.contains("none/trace.json cannot be written"));
        assert_eq!(warnings.count(), 1, "{messages:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    child("a_trace_that_cannot_be_written", folder.path(), "none/trace.json");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}
