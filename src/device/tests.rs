//! Selection and fallback, with engines that do as they are told.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::{Memory, Plan};
use crate::error::Error;
use crate::memory::Hierarchy;
use crate::problem::{Conv2dDesc, GemmDesc, Layout};
use crate::report::Timing;

/// An engine that fills outputs with a constant, or fails.
struct Stub {
    id: &'static str,
    flops: f64,
    value: f32,
    fails_plan: bool,
    fails_run: bool,
    runs: Arc<AtomicUsize>,
}

impl Stub {
    fn new(id: &'static str, flops: f64, value: f32) -> Self {
        Stub { id, flops, value, fails_plan: false, fails_run: false, runs: Arc::default() }
    }
    fn lost(&self) -> Error {
        Error::DeviceLost { device: self.id.into(), what: "a test".into() }
    }
}

struct StubPlan(f32, Option<Error>, Arc<AtomicUsize>);

impl Plan for StubPlan {
    fn kernel(&self) -> &str {
        "conv_stub"
    }
    fn memory(&self) -> Memory {
        Memory { packed: 10, workspace: 20 }
    }
    fn run(&self, _: &[f32], output: &mut [f32]) -> Result<Timing> {
        self.2.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = &self.1 {
            return Err(error.clone());
        }
        output.fill(self.0);
        Ok(Timing::default())
    }
}

impl Backend for Stub {
    fn id(&self) -> &str {
        self.id
    }
    fn hierarchy(&self) -> Result<Hierarchy> {
        let (transfer, launch) = if self.id == "cpu" { (f64::INFINITY, 1e-7) } else { (1e9, 1e-5) };
        Ok(Hierarchy {
            flops: self.flops,
            memory: 1e12,
            upload: transfer,
            download: transfer,
            launch,
            ..Hierarchy::UNKNOWN
        })
    }
    fn plan_conv2d(&self, _: &Conv2d, _: &[f32], _: Option<&[f32]>) -> Result<Box<dyn Plan>> {
        if self.fails_plan {
            return Err(self.lost());
        }
        Ok(Box::new(StubPlan(self.value, self.fails_run.then(|| self.lost()), self.runs.clone())))
    }
    fn sgemm(&self, _: &Gemm, _: &[f32], _: &[f32], c: &mut [f32]) -> Result<(Arc<str>, Timing)> {
        if self.fails_run {
            return Err(self.lost());
        }
        c.fill(self.value);
        Ok(("sgemm_stub".into(), Timing::default()))
    }
}

fn auto(cpu: Stub, gpus: Vec<Stub>) -> Device {
    let gpus = gpus.into_iter().map(|gpu| Arc::new(gpu) as Arc<dyn Backend>).collect();
    Device { choice: Choice::Auto { cpu: Arc::new(cpu), gpus } }
}

fn problem(side: i64) -> Conv2d {
    Conv2d::new(Conv2dDesc { c: 64, k: 64, h: side, w: side, ..Default::default() }).unwrap()
}

fn run(device: &Device, problem: &Conv2d) -> (Run, f32) {
    let (input, weights) = (vec![0.0; problem.input_len()], vec![0.0; problem.weights_len()]);
    let mut output = vec![f32::NAN; problem.output_len()];
    let run = device.conv2d(problem, &input, &weights, None, &mut output).unwrap();
    assert!(output.iter().all(|&value| value == output[0]));
    (run, output[0])
}

#[test]
fn auto_takes_the_device_predicted_fastest() {
    let device =
        auto(Stub::new("cpu", 1e9, 1.0), vec![Stub::new("gl:0", 1e12, 2.0), Stub::new("gl:1", 1e13, 3.0)]);
    assert_eq!(run(&device, &problem(1)).0.device.as_ref(), "cpu");
    assert_eq!(run(&device, &problem(100)).0.device.as_ref(), "gl:1");
    let only_slow = auto(Stub::new("cpu", 1e12, 1.0), vec![Stub::new("gl:0", 1e11, 2.0)]);
    assert_eq!(run(&only_slow, &problem(100)).1, 1.0);
}

#[test]
fn predictions_say_what_auto_will_take() {
    let device =
        auto(Stub::new("cpu", 1e9, 1.0), vec![Stub::new("gl:0", 1e12, 2.0), Stub::new("gl:1", 1e13, 3.0)]);
    for side in [1, 100] {
        let predictions = device.predictions(&problem(side));
        let devices: Vec<&str> = predictions.iter().map(|it| it.device.as_str()).collect();
        assert_eq!(devices, ["cpu", "gl:0", "gl:1"]);
        let seconds = |it: &&Prediction| it.seconds.clone().unwrap();
        let least = predictions.iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b))).unwrap();
        assert_eq!(least.device, run(&device, &problem(side)).0.device.as_ref());
    }
}

#[test]
fn a_gpu_that_fails_while_running_is_replaced_for_good() {
    let gpu = Stub { fails_run: true, ..Stub::new("gl:0", 1e13, 2.0) };
    let runs = gpu.runs.clone();
    let device = auto(Stub::new("cpu", 1e9, 1.0), vec![gpu]);
    let problem = problem(100);
    let plan = device.plan(&problem, &vec![0.0; problem.weights_len()], None).unwrap();
    let (input, mut output) = (vec![0.0; problem.input_len()], vec![f32::NAN; problem.output_len()]);
    for _ in 0..3 {
        output.fill(f32::NAN);
        let run = plan.run(&input, &mut output).unwrap();
        assert_eq!((run.device.as_ref(), run.fallback.as_deref()), ("cpu", Some("gl:0 was lost: a test")));
        assert!(output.iter().all(|&value| value == 1.0));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn a_gpu_that_fails_while_planning_is_replaced() {
    let device =
        auto(Stub::new("cpu", 1e9, 1.0), vec![Stub { fails_plan: true, ..Stub::new("gl:0", 1e13, 2.0) }]);
    let (run, value) = run(&device, &problem(100));
    assert_eq!((run.device.as_ref(), value), ("cpu", 1.0));
    assert!(run.fallback.is_some());
}

#[test]
fn sgemm_falls_back_too() {
    let device =
        auto(Stub::new("cpu", 1e6, 1.0), vec![Stub { fails_run: true, ..Stub::new("gl:0", 1e13, 2.0) }]);
    let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, 64, 64, 64)).unwrap();
    let (a, mut c) = (vec![0.0; 4096], vec![f32::NAN; 4096]);
    let run = device.sgemm(&problem, &a, &a, &mut c).unwrap();
    assert_eq!((run.device.as_ref(), c[0]), ("cpu", 1.0));
    assert_eq!(run.fallback.as_deref(), Some("gl:0 was lost: a test"));
}

#[test]
fn a_device_asked_for_by_name_shows_its_errors() {
    let backend = Stub { fails_run: true, ..Stub::new("gl:0", 1e13, 2.0) };
    let device = Device { choice: Choice::Fixed(Arc::new(backend)) };
    let problem = problem(2);
    let (input, weights) = (vec![0.0; problem.input_len()], vec![0.0; problem.weights_len()]);
    let mut output = vec![7.0; problem.output_len()];
    let error = device.conv2d(&problem, &input, &weights, None, &mut output).unwrap_err();
    assert!(matches!(error, Error::DeviceLost { .. }));
    assert!(output.iter().all(|&value| value == 7.0));
}

#[test]
fn selectors_that_are_none_say_what_would_be() {
    let message = |selector| Device::open(selector).err().expect("should be refused").to_string();
    assert_eq!(message("cuda"), "device is \"cuda\"; expected auto, cpu, gl:N or name=TEXT");
    assert_eq!(message("gl:x"), "device is \"gl:x\"; expected gl:N, N from 0 up");
    assert!(
        message("name=no such thing").starts_with("no usable device for \"name=no such thing\": the usable")
    );
}
