//! Kernels kept ready on a device, to be timed in turns with others.
//!
//! A [`Bench`] has its own context on the calling thread, so nothing else waits for it, and its data may stay on the
//! device between two timings.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::trial::{Data, Effort, time, worse};
use crate::error::{Error, Result};
use crate::gl::convolution::Buffered;
use crate::gl::device::engine::Engine;
use crate::gl::device::registry;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::passes::{Buffers, Passes};
use crate::gl::execution::programs::Programs;
use crate::gl::product;
use crate::memory::tiles::Gpu;
use crate::problem::exact::Random;
use crate::problem::{Conv2d, Gemm, GemmDesc, Layout, oracle};
use crate::shader::pass_plan::{self, PassPlan, measure_fma};
use crate::shader::variant::Variant;

/// Elements of a product that are compared with the oracle.
const ELEMENTS: usize = 24;
/// Workgroups of multiply-adds that measure the ceiling, and steps of each: a millisecond at 60 TFLOPS.
const CEILING: (usize, usize) = (4096, 512);
const SOFTWARE_CEILING: (usize, usize) = (4, 64);

/// A device to time kernels on.
pub struct Bench {
    programs: Programs,
    // Dropped after the context, which belongs to its share group.
    engine: Arc<Engine>,
}

/// A kernel with its data, ready on the device.
pub struct Timed {
    /// Its name.
    pub name: String,
    /// The time to compile it, upload its data and prepare the weights.
    pub build: Duration,
    /// The largest error relative to the direct algorithm's bound; above 1 it is wrong.
    pub error: f64,
    /// Operations of a run, as the direct algorithm counts them.
    pub flops: f64,
    enqueue: Box<dyn Fn(usize) -> Result<()>>,
    context: Rc<Context>,
}

impl Timed {
    /// Device time of one run among [`Effort::calls`] back to back.
    ///
    /// # Errors
    /// The device's failure.
    pub fn time(&self, effort: &Effort) -> Result<Duration> {
        time(&self.context, &*self.enqueue, effort)
    }
}

impl Bench {
    /// A bench on `gl:device`.
    ///
    /// # Errors
    /// [`Error::NoDevice`](crate::Error::NoDevice) if there is no such device; the reason if it has no context.
    pub fn open(device: usize) -> Result<Self> {
        let engine = registry::engine(device)?;
        let programs = Programs::new(engine.share_group()?.context()?);
        Ok(Bench { programs, engine })
    }

    #[cfg(feature = "patterns")]
    pub(super) fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// The planner's description of the device.
    ///
    /// # Errors
    /// The reason why it could not be measured.
    pub fn gpu(&self) -> Result<Gpu> {
        self.engine.gpu()
    }

    /// `variant` of `problem`, run once on `data` and compared with the oracle.
    ///
    /// # Errors
    /// The device's failure.
    pub fn conv2d(&mut self, problem: &Conv2d, data: &Data, variant: &Variant) -> Result<Timed> {
        let start = Instant::now();
        let prepared =
            Buffered::new(&mut self.programs, *variant, problem, &data.weights, data.bias.as_deref())?;
        let (name, build) = (prepared.kernel().to_owned(), start.elapsed());
        let mut output = vec![f32::NAN; problem.output_len()];
        prepared.run(&data.input, &mut output)?;
        let error = data.error(problem, &output);
        let enqueue = Box::new(move |calls| prepared.enqueue(calls));
        let context = self.programs.context().clone();
        Ok(Timed { name, build, error, flops: problem.flops() as f64, enqueue, context })
    }

    /// The tiled product of two square matrices of reals, packing included, run once and compared with the oracle.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for products too small for tiles; else the device's failure.
    pub fn sgemm(&mut self, size: i64) -> Result<Timed> {
        let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, size, size, size))?;
        let mut random = Random::new(size as u64);
        let [a, b, mut c] = problem.lens().map(|len| random.reals(len));
        let start = Instant::now();
        let Some((tile, splits)) = product::tile(self.programs.context(), &self.engine.gpu()?, &problem)?
        else {
            let what = "tiles for a product this small".to_owned();
            return Err(Error::Unsupported { device: self.programs.context().device().to_owned(), what });
        };
        let plan = pass_plan::gemm(&problem, &tile, splits);
        let product = Held::new(&mut self.programs, &plan, [&b, &a], c.len())?;
        let build = start.elapsed();
        product.run(&mut c)?;
        let side = problem.sizes().n;
        let mut error = 0.0f64;
        for _ in 0..ELEMENTS {
            let [i, j] = [(); 2].map(|()| random.between(0, size - 1) as usize);
            let expected = oracle::gemm_element(&problem, &a, &b, &[], i, j);
            error = worse(error, oracle::error_over_bound(c[i * side + j], expected, problem.terms()));
        }
        Ok(product.timed(pass_plan::gemm_name(&tile), build, error, problem.flops() as f64))
    }

    /// Multiply-adds in registers only: the ceiling for every kernel of the direct algorithm.
    ///
    /// # Errors
    /// The device's failure.
    pub fn ceiling(&mut self) -> Result<Timed> {
        let software = self.programs.context().capabilities().software;
        let (groups, steps) = if software { SOFTWARE_CEILING } else { CEILING };
        let pass = measure_fma(groups, steps);
        let flops = pass.operations * pass.groups as f64;
        let name = "measure_fma".to_owned();
        let plan = PassPlan { name, packed: 0, scratch: vec![], prepare: vec![], run: vec![pass] };
        let start = Instant::now();
        let held = Held::new(&mut self.programs, &plan, [&[0.0], &[0.0]], 1)?;
        Ok(held.timed(&plan.name, start.elapsed(), 0.0, flops))
    }
}

/// Passes with their buffers.
pub(super) struct Held {
    passes: Passes,
    input: Buffer,
    weights: Buffer,
    output: Buffer,
    context: Rc<Context>,
}

impl Held {
    pub(super) fn new(
        programs: &mut Programs,
        plan: &PassPlan,
        [input, weights]: [&[f32]; 2],
        outputs: usize,
    ) -> Result<Self> {
        let passes = Passes::new(programs, plan)?;
        let context = programs.context().clone();
        let upload = |data: &[f32]| Buffer::with_data(&context, bytemuck::cast_slice(data));
        let (input, weights) = (upload(input)?, upload(weights)?);
        let output = Buffer::new(&context, outputs * size_of::<f32>())?;
        Ok(Held { passes, input, weights, output, context })
    }

    fn buffers(&self) -> Buffers<'_> {
        Buffers {
            input: &self.input,
            weights: &self.weights,
            bias: None,
            output: &self.output,
            epilogue: None,
        }
    }

    /// Runs once and reads the output.
    pub(super) fn run(&self, output: &mut [f32]) -> Result<()> {
        self.passes.run(&self.buffers())?;
        self.output.read(bytemuck::cast_slice_mut(output))
    }

    /// Runs the passes that prepare the weights.
    #[cfg(feature = "patterns")]
    pub(super) fn prepare(&self) -> Result<()> {
        self.passes.prepare(&self.weights).map(drop)
    }

    pub(super) fn timed(self, name: &str, build: Duration, error: f64, flops: f64) -> Timed {
        let (name, context) = (name.to_owned(), self.context.clone());
        let enqueue =
            Box::new(move |calls| (0..calls).try_for_each(|_| self.passes.enqueue(&self.buffers())));
        Timed { name, build, error, flops, enqueue, context }
    }
}
