//! Selection and fallback, with stub engines.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::{Memory, Plan, Recipe};
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
    /// Whether its plans can go through a queue.
    has_recipes: bool,
    runs: Arc<AtomicUsize>,
}

impl Stub {
    fn new(id: &'static str, flops: f64, value: f32) -> Self {
        Stub {
            id,
            flops,
            value,
            fails_plan: false,
            fails_run: false,
            has_recipes: false,
            runs: Arc::default(),
        }
    }
    fn lost(&self) -> Error {
        Error::DeviceLost { device: self.id.into(), what: "a test".into() }
    }
}

struct StubPlan(f32, Option<Error>, Arc<AtomicUsize>, Option<Arc<Recipe>>);

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
    fn recipe(&self) -> Option<&Arc<Recipe>> {
        self.3.as_ref()
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
    fn plan_conv2d(&self, problem: &Conv2d, _: &[f32], _: Option<&[f32]>) -> Result<Box<dyn Plan>> {
        if self.fails_plan {
            return Err(self.lost());
        }
        let problem = *problem;
        let recipe = || Arc::new(Recipe { problem, weights: vec![], bias: None, choice: Box::new(()) });
        let recipe = self.has_recipes.then(recipe);
        Ok(Box::new(StubPlan(self.value, self.fails_run.then(|| self.lost()), self.runs.clone(), recipe)))
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
    Device { choice: EngineChoice::auto(Arc::new(cpu), gpus) }
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
fn an_engine_without_a_shared_queue_returns_an_error() {
    let stub = Stub::new("gl:0", 1e9, 1.0);
    assert!(matches!(stub.stream().err(), Some(Error::Unsupported { device, .. }) if device == "gl:0"));
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
fn predictions_match_the_choice_of_auto() {
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

/// After calls, predictions tell what they took and which engine gets the next; asking changes nothing.
#[test]
fn predictions_tell_what_auto_has_learned() {
    // An engine that no other test and no earlier process has had, so that nothing is stored.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let gpu: &'static str = Box::leak(format!("gl:since_{}", now.as_nanos()).into_boxed_str());
    let device = auto(Stub::new("cpu", 1e9, 1.0), vec![Stub::new(gpu, 1.5e9, 2.0)]);
    let problem = problem(100);
    let known = || {
        let found = device.predictions(&problem);
        let measured: Vec<bool> = found.iter().map(|it| it.measured.is_some()).collect();
        let next: Vec<usize> = (0..found.len()).filter(|&index| found[index].is_next).collect();
        (measured, next)
    };
    for _ in 0..3 {
        assert_eq!(known().0, [false, false]);
    }
    let mut seen = vec![];
    for _ in 0..3 {
        let (_, next) = known();
        assert_eq!(next.len(), 1);
        let plan = device.plan(&problem, &vec![0.0; problem.weights_len()], None).unwrap();
        let mut output = vec![f32::NAN; problem.output_len()];
        let ran = plan.run(&vec![0.0; problem.input_len()], &mut output).unwrap().device;
        assert_eq!(&*ran, ["cpu", gpu][next[0]], "the device that was announced");
        seen.push(next[0]);
    }
    assert_ne!(seen[0], seen[1], "the second call is the runner-up's");
    assert_eq!(known().0, [true, true]);
    let named = Device { choice: EngineChoice::Fixed(Arc::new(Stub::new("gl:0", 1e9, 1.0))) };
    let alone = named.predictions(&problem);
    assert!(alone.len() == 1 && alone[0].is_next && alone[0].measured.is_none());
}

/// Transfers at 1 GB/s take nearly all of a GPU's time here: 0.26 ms for each matrix of 256 x 256.
#[test]
fn transfers_of_a_product_decide_the_device() {
    let taken = |beta, cpu_seconds: f64| {
        let problem =
            Gemm::new(GemmDesc { beta, ..GemmDesc::packed(Layout::RowMajor, 256, 256, 256) }).unwrap();
        let cpu = Stub::new("cpu", problem.flops() as f64 / cpu_seconds, 1.0);
        let device = auto(cpu, vec![Stub::new("gl:0", 1e15, 2.0)]);
        let (a, mut c) = (vec![0.0; 65_536], vec![0.0; 65_536]);
        device.sgemm(&problem, &a, &a, &mut c).unwrap().device
    };
    let matrix = 4.0 * 65_536.0 / 1e9;
    // A, B and the result; with beta the old C as well.
    for (beta, matrices) in [(0.0, 3.0), (1.0, 4.0)] {
        assert_eq!(&*taken(beta, (matrices + 0.4) * matrix), "gl:0", "{beta}");
        assert_eq!(&*taken(beta, (matrices - 0.4) * matrix), "cpu", "{beta}");
    }
}

/// The same for convolutions, whose weights are already on the device.
#[test]
fn transfers_of_a_convolution_decide_the_device() {
    for (c, k) in [(64, 16), (16, 64)] {
        let desc = Conv2dDesc { c, h: 40, w: 40, k, r: 9, s: 9, pad_h: 4, pad_w: 4, ..Default::default() };
        let problem = Conv2d::new(desc).unwrap();
        let moved = 4.0 * (problem.input_len() + problem.output_len()) as f64 / 1e9;
        for (share, expected) in [(1.2, "gl:0"), (0.8, "cpu")] {
            let cpu = Stub::new("cpu", problem.flops() as f64 / (share * moved), 1.0);
            let device = auto(cpu, vec![Stub::new("gl:0", 1e15, 2.0)]);
            assert_eq!(&*run(&device, &problem).0.device, expected, "{c} channels, {share}");
            let predictions = device.predictions(&problem);
            let seconds = |index: usize| predictions[index].seconds.clone().unwrap();
            assert!(
                (seconds(0) / (share * moved) - 1.0).abs() < 1e-3 && (seconds(1) / moved - 1.0).abs() < 0.1
            );
        }
    }
}

#[test]
fn a_plans_memory_includes_the_copies_for_its_fallback() {
    let desc = Conv2dDesc { c: 64, k: 64, h: 100, w: 100, bias: true, ..Default::default() };
    let problem = Conv2d::new(desc).unwrap();
    let (weights, bias) = (vec![0.0; problem.weights_len()], vec![0.0; 64]);
    let memory = |device: &Device, run: bool| {
        let plan = device.plan(&problem, &weights, Some(&bias)).unwrap();
        if run {
            plan.run(&vec![0.0; problem.input_len()], &mut vec![0.0; problem.output_len()]).unwrap();
        }
        (plan.packed_bytes(), plan.workspace_bytes())
    };
    let fixed = Device { choice: EngineChoice::Fixed(Arc::new(Stub::new("gl:0", 1e13, 2.0))) };
    assert_eq!(memory(&fixed, true), (10, 20));
    let with = |gpu| auto(Stub::new("cpu", 1e9, 1.0), vec![gpu]);
    let (gpu, copies) = (|| Stub::new("gl:0", 1e13, 2.0), 4 * (64 * 64 + 64));
    assert_eq!(memory(&with(gpu()), true), (10 + copies, 20));
    let failing = with(Stub { fails_run: true, ..gpu() });
    assert_eq!(memory(&failing, false), (10 + copies, 20));
    assert_eq!(
        memory(&failing, true),
        (2 * 10 + copies, 2 * 20),
        "includes the CPU's plan after the fallback"
    );
    assert_eq!(memory(&with(Stub { fails_plan: true, ..gpu() }), false), (10 + copies, 20));
    let plan = fixed.plan(&Conv2d::new(Conv2dDesc { n: 0, ..desc }).unwrap(), &weights, Some(&bias)).unwrap();
    assert_eq!((plan.packed_bytes(), plan.workspace_bytes()), (0, 0));
}

#[test]
fn a_plan_has_a_recipe_for_its_own_engine_until_that_fails() {
    let problem = problem(100);
    let weights = vec![0.0; problem.weights_len()];
    let gpu = |fails_run| Stub { has_recipes: true, fails_run, ..Stub::new("gl:0", 1e13, 2.0) };
    let has = |plan: &Conv2dPlan| ["gl:0", "gl:1", "cpu"].map(|id| plan.recipe_on(id).is_some());
    for fails in [false, true] {
        let device = auto(Stub::new("cpu", 1e9, 1.0), vec![gpu(fails)]);
        let plan = device.plan(&problem, &weights, None).unwrap();
        assert_eq!((has(&plan), plan.fallback().is_some()), ([true, false, false], true));
        plan.run(&vec![0.0; problem.input_len()], &mut vec![0.0; problem.output_len()]).unwrap();
        assert_eq!(has(&plan), [!fails, false, false]);
    }
    let fixed = Device { choice: EngineChoice::Fixed(Arc::new(gpu(false))) };
    let plan = fixed.plan(&problem, &weights, None).unwrap();
    assert_eq!((has(&plan), plan.fallback().is_some()), ([true, false, false], false));
    let plan =
        auto(Stub::new("cpu", 1e9, 1.0), vec![Stub::new("gl:0", 1e13, 2.0)]).plan(&problem, &weights, None);
    assert_eq!(has(&plan.unwrap()), [false; 3]);
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
fn a_device_chosen_by_name_returns_its_errors() {
    let backend = Stub { fails_run: true, ..Stub::new("gl:0", 1e13, 2.0) };
    let device = Device { choice: EngineChoice::Fixed(Arc::new(backend)) };
    let problem = problem(2);
    let (input, weights) = (vec![0.0; problem.input_len()], vec![0.0; problem.weights_len()]);
    let mut output = vec![7.0; problem.output_len()];
    let error = device.conv2d(&problem, &input, &weights, None, &mut output).unwrap_err();
    assert!(matches!(error, Error::DeviceLost { .. }));
    assert!(output.iter().all(|&value| value == 7.0));
}

/// The stubs take no time, so that a prediction of milliseconds is wrong about both engines.
#[test]
fn auto_tries_the_runner_up_once_and_then_keeps_an_engine() {
    let device = auto(Stub::new("cpu", 1e9, 1.0), vec![Stub::new("gl:0", 1.1e9, 2.0)]);
    let problem = problem(100);
    let devices: Vec<Arc<str>> = (0..7).map(|_| run(&device, &problem).0.device).collect();
    assert_eq!([&*devices[0], &*devices[1]], ["gl:0", "cpu"]);
    assert!(devices[2..].iter().all(|it| *it == devices[2]), "{devices:?}");
    // Plans are a kind of their own.
    let weights = vec![0.0; problem.weights_len()];
    let plan = || {
        let plan = device.plan(&problem, &weights, None).unwrap();
        plan.run(&vec![0.0; problem.input_len()], &mut vec![0.0; problem.output_len()]).unwrap().device
    };
    let devices: Vec<Arc<str>> = (0..6).map(|_| plan()).collect();
    assert_eq!([&*devices[0], &*devices[1]], ["gl:0", "cpu"]);
    assert!(devices[2..].iter().all(|it| *it == devices[2]), "{devices:?}");
}

/// Of equal engines the one with fewer calls in flight gets the next.
#[test]
fn equal_engines_take_turns_while_they_work() {
    struct Twin(&'static str);
    impl Backend for Twin {
        fn id(&self) -> &str {
            self.0
        }
        fn fingerprint(&self) -> String {
            if self.0 == "cpu" { "cpu".to_owned() } else { "a GPU".to_owned() }
        }
        fn hierarchy(&self) -> Result<Hierarchy> {
            unreachable!("the predictions are given")
        }
        fn plan_conv2d(&self, _: &Conv2d, _: &[f32], _: Option<&[f32]>) -> Result<Box<dyn Plan>> {
            unreachable!("nothing is computed")
        }
        fn sgemm(&self, _: &Gemm, _: &[f32], _: &[f32], _: &mut [f32]) -> Result<(Arc<str>, Timing)> {
            unreachable!("nothing is computed")
        }
    }
    let backend = |id| Arc::new(Twin(id)) as Arc<dyn Backend>;
    let choice = EngineChoice::auto(backend("cpu"), ["gl:0", "gl:1"].map(backend).to_vec());
    let EngineChoice::Auto { learned, .. } = &choice else { unreachable!("it was made as such") };
    let seconds = |backend: &Arc<dyn Backend>| Ok(if backend.id() == "cpu" { 9.0 } else { 1.0 });
    let choose = || learned.choose((&problem(3)).into(), seconds);
    let id = |chosen: &choice::Chosen<'_>| chosen.gpu.map(|gpu| gpu.id().to_owned());
    let held: Vec<_> = (0..4).map(|_| choose()).collect();
    let ids: Vec<_> = held.iter().map(id).map(Option::unwrap).collect();
    assert_eq!(ids, ["gl:0", "gl:1", "gl:0", "gl:1"]);
    drop(held);
    for _ in 0..2 {
        let alone = choose();
        assert_eq!(id(&alone).as_deref(), Some("gl:0"));
    }
}

#[test]
fn an_invalid_selector_says_what_is_valid() {
    let message = |selector| Device::open(selector).err().expect("should be refused").to_string();
    assert_eq!(
        message("cuda"),
        "device is \"cuda\"; expected auto, multi, cpu, gl:N, a stable name or name=TEXT"
    );
    assert_eq!(message("gl:x"), "device is \"gl:x\"; expected gl:N with N = 0, 1, ...");
    for name in ["pci:ffff:00:00.0", "uuid:GPU-0", "cuda:99999", "/dev/nothing"] {
        let error = message(name);
        assert!(error.starts_with(&format!("no usable device for \"{name}\": ")), "{error}");
    }
    for list in [
        "multi:",
        "multi:abacus",
        "multi:cpu,",
        "multi:cpu=0",
        "multi:cpu=-1",
        "multi:cpu=nan",
        "multi:cpu,cpu",
    ] {
        assert!(message(list).starts_with(&format!("device is \"{list}\"; expected ")), "{list}");
    }
    assert!(
        message("name=no such thing").starts_with("no usable device for \"name=no such thing\": the usable")
    );
}

#[test]
fn a_selector_that_is_too_long_is_refused_without_quoting_it() {
    let message = |len: usize| Device::open(&"x".repeat(len)).err().expect("should be refused").to_string();
    assert!(message(1000).ends_with("expected auto, multi, cpu, gl:N, a stable name or name=TEXT"));
    assert!(message(1001).ends_with("expected a selector of at most 1000 bytes"));
}

#[test]
fn devices_have_the_names_that_open_them() {
    assert_eq!(Device::open("cpu").unwrap().id(), "cpu");
    let stub = || Stub::new("gl:3", 1e12, 1.0);
    assert_eq!(Device { choice: EngineChoice::Fixed(Arc::new(stub())) }.id(), "gl:3");
    assert_eq!(auto(stub(), vec![]).id(), "auto");
}

#[test]
fn the_cpu_wins_a_tie() {
    let backend = |flops| Arc::new(Stub::new("gl:0", flops, 1.0)) as Arc<dyn Backend>;
    let work = predict::conv2d_work(&problem(100));
    assert!(choice::fastest(&backend(1e12), &[backend(1e12)], work).0.is_none());
    assert!(choice::fastest(&backend(1e10), &[backend(1e12)], work).0.is_some());
}

/// `SPARKLE_DEVICE` replaces `auto`, and a wrong environment variable is reported once. Runs in a process of its own.
#[test]
fn the_environment_names_the_device_that_auto_means() {
    let name = "the_environment_names_the_device_that_auto_means";
    if std::env::var_os("SPARKLE_TEST_CHILD").is_some() {
        for _ in 0..2 {
            assert_eq!(Device::open("auto").unwrap().id(), "cpu");
        }
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args([name, "--nocapture"]).env("SPARKLE_TEST_CHILD", "1").env("SPARKLE_DEVICE", "cpu");
    let output = child.env("SPARKLE_DETERMINISTIC", "perhaps").env("SPARKLE_LOG", "warn").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr.matches("SPARKLE_DETERMINISTIC").count(), 1, "{stderr}");
}
