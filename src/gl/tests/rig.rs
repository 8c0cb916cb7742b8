//! A faulty machine, small problems with known answers, and the definition of a healthy engine.

use std::sync::Arc;
use std::time::Duration;

use super::faulty::{Faults, FaultyEgl, Machine, Objects};
use crate::backend::{Backend, Plan};
use crate::error::Result;
use crate::gl::device::discovery::discovered;
use crate::gl::device::engine::Engine;
use crate::gl::driver::context::Target;
use crate::problem::exact::Random;
use crate::problem::{Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout, oracle};

/// Fills outputs: a NaN that no kernel computes.
const CANARY: u32 = 0x7fc0_dead;

/// A convolution of small integers and its exact result.
pub struct Case {
    pub problem: Conv2d,
    pub input: Vec<f32>,
    pub weights: Vec<f32>,
    pub bias: Option<Vec<f32>>,
    pub expected: Vec<f32>,
}

impl Case {
    pub fn new(desc: Conv2dDesc, seed: u64) -> Self {
        let (problem, mut random) = (Conv2d::new(desc).unwrap(), Random::new(seed));
        let mut data = |len| random.integers(len, 8);
        let (input, weights) = (data(problem.input_len()), data(problem.weights_len()));
        let bias = problem.bias().then(|| data(problem.sizes().k));
        Case::of(problem, input, weights, bias)
    }

    fn of(problem: Conv2d, input: Vec<f32>, weights: Vec<f32>, bias: Option<Vec<f32>>) -> Self {
        let expected = oracle::conv2d(&problem, &input, &weights, bias.as_deref());
        let expected = expected.into_iter().map(|it| it.value as f32).collect();
        Case { problem, input, weights, bias, expected }
    }

    /// The same with some NaN and infinities.
    pub fn spoilt(desc: Conv2dDesc, seed: u64) -> Self {
        let Case { problem, mut input, mut weights, bias, .. } = Case::new(desc, seed);
        let mut random = Random::new(!seed);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for values in [&mut input, &mut weights] {
                let place = random.between(0, values.len() as i64 - 1) as usize;
                values[place] = value;
            }
        }
        Case::of(problem, input, weights, bias)
    }

    /// The same with inputs of zero, which every algorithm computes exactly.
    pub fn blank(desc: Conv2dDesc, seed: u64) -> Self {
        let Case { problem, input, weights, bias, .. } = Case::new(desc, seed);
        Case::of(problem, vec![0.0; input.len()], weights, bias)
    }

    /// Asserts that `output` is right.
    pub fn assert_right(&self, output: &[f32]) {
        let same = |(got, expected): (&f32, &f32)| got == expected || (got.is_nan() && expected.is_nan());
        assert_eq!(output.len(), self.expected.len());
        let wrong = output.iter().zip(&self.expected).position(|pair| !same(pair));
        let numbers = wrong.map(|at| (at, output[at], self.expected[at]));
        assert_eq!(numbers, None, "wrong numbers, and no error: place, got, expected");
    }

    pub fn plan(&self, engine: &Engine) -> Result<Box<dyn Plan>> {
        engine.plan_conv2d(&self.problem, &self.weights, self.bias.as_deref())
    }

    /// A plan that only runs in pipelines. The worker holds nothing of it any more.
    pub fn piped(&self, engine: &Engine) -> Result<Box<dyn Plan>> {
        let plan = self.plan(engine)?;
        plan.recipe().expect("GL plans have recipes");
        engine.worker().call(|_| Ok(()))?;
        Ok(plan)
    }

    /// Runs a plan of it. Checks that the output is right, or untouched after an error. Returns the number of
    /// dispatches.
    pub fn run(&self, plan: &dyn Plan) -> Result<u32> {
        self.check(|output| plan.run(&self.input, output)).map(|timing| timing.dispatches)
    }

    /// Runs it by `run`. Checks that the output is right, or untouched after an error.
    pub fn check<T>(&self, run: impl FnOnce(&mut [f32]) -> Result<T>) -> Result<T> {
        let mut output = vec![f32::from_bits(CANARY); self.expected.len()];
        let ran = run(&mut output);
        match &ran {
            Ok(_) => self.assert_right(&output),
            Err(error) => {
                let untouched = output.iter().all(|value| value.to_bits() == CANARY);
                assert!(untouched, "the output was touched, but {error}");
            }
        }
        ran
    }
}

/// C = A B + C of small integers.
pub struct Product {
    problem: Gemm,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    expected: Vec<f32>,
}

impl Product {
    fn new() -> Self {
        let (m, n, k) = (18, 7, 5);
        let desc = GemmDesc { beta: 1.0, ..GemmDesc::packed(Layout::RowMajor, m, n, k) };
        let (problem, mut random) = (Gemm::new(desc).unwrap(), Random::new(7));
        let [a, b, c] = problem.lens().map(|len| random.integers(len, 8));
        let (m, n) = (m as usize, n as usize);
        let element = |index| oracle::gemm_element(&problem, &a, &b, &c, index / n, index % n).value as f32;
        let expected = (0..m * n).map(element).collect();
        Product { problem, a, b, c, expected }
    }

    /// Computes it. Checks that C is right, or untouched after an error.
    pub fn run(&self, engine: &Engine) -> Result<()> {
        let mut c = self.c.clone();
        let ran = engine.sgemm(&self.problem, &self.a, &self.b, &mut c);
        let (expected, what) = if ran.is_ok() { (&self.expected, "right") } else { (&self.c, "untouched") };
        assert_eq!(&c, expected, "C is not {what}, after {:?}", ran.as_ref().err());
        ran.map(|_| ())
    }
}

/// A faulty machine with problems to run on it.
pub struct Rig {
    pub egl: Arc<FaultyEgl>,
    pub faults: Arc<Faults>,
    pub target: Target,
    /// `conv_reference_64`.
    pub square: Case,
    /// `conv_direct_64`.
    pub direct: Case,
    /// More images than fit into [`SMALL_BLOCK`] at once.
    pub batch: Case,
    /// For generated passes: with bias and several channels.
    pub mixed: Case,
    pub product: Product,
}

/// A limit on buffers that splits a small batch into tiles: 4096 elements.
pub const SMALL_BLOCK: i64 = 16 << 10;

impl Rig {
    /// On the machine's first device; `None` without one.
    pub fn new(machine: Machine) -> Option<Self> {
        let target = Target { wait_limit: Duration::from_millis(20), ..super::first_device()? };
        let inner = discovered().unwrap().egl.clone().expect("EGL found the device");
        let faults = Arc::new(Faults::default());
        let square = Conv2dDesc { n: 2, c: 2, h: 6, w: 5, k: 3, r: 3, s: 3, ..Default::default() };
        let direct =
            Conv2dDesc { c: 4, k: 4, s: 2, groups: 2, dilation_h: 2, bias: true, relu: true, ..square };
        // An image has 1250 elements in and 1587 out: tiles of two, two and one.
        let batch = Conv2dDesc { n: 5, h: 25, w: 25, k: 3, ..square };
        Some(Rig {
            egl: Arc::new(FaultyEgl { inner, faults: faults.clone(), machine, guards: None }),
            faults,
            target,
            square: Case::new(square, 1),
            direct: Case::new(direct, 2),
            batch: Case::new(batch, 3),
            mixed: Case::new(Conv2dDesc { c: 20, k: 5, bias: true, ..square }, 4),
            product: Product::new(),
        })
    }

    pub fn open(&self) -> Result<Engine> {
        let egl: Arc<dyn crate::gl::driver::egl::Egl> = self.egl.clone();
        Engine::new(&egl, "gl:faulty", true, self.target)
    }
}

/// An engine with one plan that stays alive.
pub struct Bench<'a> {
    pub rig: &'a Rig,
    pub engine: Engine,
    held: Box<dyn Plan>,
    /// Another use besides the plan.
    more: Option<fn(&Bench) -> Result<()>>,
    /// Live objects when nothing runs and nothing has failed.
    healthy: Objects,
}

impl<'a> Bench<'a> {
    pub fn new(rig: &'a Rig) -> Self {
        Bench::using(rig, None)
    }

    /// Also runs `more`, which may leave objects in the session.
    pub fn using(rig: &'a Rig, more: Option<fn(&Bench) -> Result<()>>) -> Self {
        let engine = rig.open().unwrap();
        let held = rig.direct.plan(&engine).unwrap();
        let mut bench = Bench { rig, engine, held, more, healthy: Objects::new() };
        bench.use_everything();
        bench.healthy = rig.faults.objects();
        bench
    }

    fn use_everything(&self) {
        self.rig.product.run(&self.engine).unwrap();
        self.rig.square.run(&*self.rig.square.plan(&self.engine).unwrap()).unwrap();
        self.more.iter().for_each(|more| more(self).unwrap());
        // Last, so that stray commands hit what this leaves bound. Also runs after the plan above was dropped.
        self.rig.direct.run(&*self.held).unwrap();
    }

    /// Asserts that everything on the engine works and that no extra object is alive.
    pub fn assert_healthy(&self, when: &str) {
        self.use_everything();
        assert_eq!(self.rig.faults.objects(), self.healthy, "{when}");
        assert_eq!(self.rig.faults.violations(), Vec::<String>::new(), "{when}");
    }
}
