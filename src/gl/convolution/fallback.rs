//! The fallback kernels, which compute every convolution: one invocation for each output, sizes read at run time.
//!
//! A reduction with more iterations than an invocation may make is summed in several passes. Each continues from the
//! sum that the one before it stored, so the bits equal those of one pass.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::allocate;
use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Buffer, Program};
use crate::gl::execution::dispatch::{self, DispatchBudget, KernelWork, PassStep, Ran, STEPS};
use crate::gl::execution::epilogue::{Arguments, Slots};
use crate::gl::tunables::{MAX_BATCH_SIZES, OPERATIONS_PER_OUTPUT};
use crate::kernel::fused::Fused;
use crate::problem::{Conv2d, Conv2dSizes, TensorLayout};
use crate::shader::epilogue::Places;
use crate::shader::iterations::{self, Part};
use crate::shader::source::{CONV_DIRECT, CONV_PART, CONV_REFERENCE, Kernel};

/// The uniform location of the first bound of a part; the others follow it.
const RANGES: u32 = 2;

/// The parameter block of `conv_reference_64`: 40 bytes, also `conv2d_params_t` in C.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct ReferenceParams([i32; 10]);

/// `problem` as the reference kernel reads it: a square kernel, one stride, one padding.
pub fn reference_params(problem: &Conv2d) -> ReferenceParams {
    debug_assert!(has_reference_form(problem));
    let Conv2dSizes { n, c, h, w, k, r, stride_h, pad_h, p, q, .. } = *problem.sizes();
    ReferenceParams([n, h, w, c, k, r, stride_h, pad_h, p, q].map(|size| size as i32))
}

/// The parameter block of `conv_direct_64`, in the shader's order.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct DirectParams([u32; 26]);

/// The parameter block of `problem` as `conv_direct_64` reads it. All sizes fit in 31 bits:
/// [`images_at_once`](crate::gl::convolution::images_at_once) has refused others.
pub fn direct_params(problem: &Conv2d) -> Vec<u8> {
    let Conv2dSizes { n, c, h, w, k, r, s, p, q, groups, .. } = *problem.sizes();
    let Conv2dSizes { stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, .. } = *problem.sizes();
    let (bias, relu) = (usize::from(problem.bias()), usize::from(problem.relu()));
    let (image, kernel) = (problem.sizes().input_strides(), problem.sizes().weights_strides());
    let last = usize::from(problem.sizes().output_layout == TensorLayout::Nhwc);
    let sizes = [
        n,
        c,
        h,
        w,
        k,
        r,
        s,
        p,
        q,
        stride_h,
        stride_w,
        pad_h,
        pad_w,
        dilation_h,
        dilation_w,
        groups,
        bias,
        relu,
        image.channel,
        image.row,
        image.column,
        kernel.k,
        kernel.c,
        kernel.r,
        kernel.s,
        last,
    ];
    bytemuck::bytes_of(&DirectParams(sizes.map(|size| size as u32))).to_vec()
}

/// Whether the reference kernel can express `problem`.
fn has_reference_form(problem: &Conv2d) -> bool {
    let Conv2dSizes { r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, .. } =
        *problem.sizes();
    let square = r == s && stride_h == stride_w && pad_h == pad_w && problem.sizes().is_symmetric();
    let square = square && problem.sizes().is_plain();
    square && (dilation_h, dilation_w, groups) == (1, 1, 1) && !problem.bias() && !problem.relu()
}

/// Which of the kernels computes a problem, and the passes it takes.
pub struct FallbackChoice {
    /// The kernel.
    pub kernel: Kernel,
    /// Its passes.
    pub parts: Vec<Part>,
}

impl FallbackChoice {
    /// The choice for `problem`, on a device whose invocations make at most `limit` iterations.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) for the list of its passes.
    pub fn new(problem: &Conv2d, limit: usize) -> Result<Self> {
        let mut choice = FallbackChoice::for_epilogue(problem, limit)?;
        if choice.parts.len() == 1 && has_reference_form(problem) {
            choice.kernel = CONV_REFERENCE;
        }
        Ok(choice)
    }

    /// The choice among the kernels that apply epilogues.
    ///
    /// # Errors
    /// As [`FallbackChoice::new`].
    pub fn for_epilogue(problem: &Conv2d, limit: usize) -> Result<Self> {
        let parts = iterations::parts(problem, limit)?;
        Ok(FallbackChoice { kernel: if parts.len() == 1 { CONV_DIRECT } else { CONV_PART }, parts })
    }

    /// The kernel's parameter block for `problem`, which may differ from the choice's problem only in its batch.
    fn params(&self, problem: &Conv2d) -> Vec<u8> {
        if self.kernel == CONV_REFERENCE {
            return bytemuck::bytes_of(&reference_params(problem)).to_vec();
        }
        direct_params(problem)
    }

    /// The work of each pass over `problem`.
    pub fn work(&self, problem: &Conv2d) -> impl Iterator<Item = KernelWork> + Clone {
        let units = problem.output_len() as u32;
        self.parts.iter().map(move |part| {
            let operations = 2.0 * part.products() as f64 + OPERATIONS_PER_OUTPUT;
            KernelWork { units, per_group: 64, operations }
        })
    }
}

/// A chosen kernel, built.
pub struct Fallback {
    choice: FallbackChoice,
    program: Rc<Program>,
    /// Parameter blocks by number of images.
    params: RefCell<HashMap<usize, Rc<Buffer>>>,
    /// The budget of one pass.
    budget: DispatchBudget,
    /// The budget of all passes together.
    together: DispatchBudget,
    /// Where the arguments of an epilogue belong, if it applies one.
    epilogue: Option<Slots>,
}

impl Fallback {
    /// `program` is the choice's kernel; `budget` makes a budget for one pass or all of them.
    pub fn new(choice: FallbackChoice, program: Rc<Program>, budget: impl Fn() -> DispatchBudget) -> Self {
        Fallback {
            choice,
            program,
            params: RefCell::default(),
            budget: budget(),
            together: budget(),
            epilogue: None,
        }
    }

    /// The same, whose program has an epilogue at `places`.
    ///
    /// # Errors
    /// As [`Slots::new`].
    pub fn fused(mut self, fused: &Fused, places: &Places) -> Result<Self> {
        self.epilogue = Some(Slots::new(&self.program, fused, places)?);
        Ok(self)
    }

    /// Binds the arguments of its epilogue.
    pub fn bind_epilogue(&self, context: &Context, arguments: &Arguments) {
        if let Some(slots) = &self.epilogue {
            context.api().use_program(self.program.name());
            arguments.bind(context, slots);
        }
    }

    /// Its kernel's name.
    pub fn name(&self) -> &str {
        self.program.kernel_name()
    }

    /// The parameter block for `problem`, which may differ from the choice's problem only in its batch.
    ///
    /// # Errors
    /// What the device lacks.
    pub fn params(&self, context: &Rc<Context>, problem: &Conv2d) -> Result<Rc<Buffer>> {
        let (mut params, images) = (self.params.borrow_mut(), problem.sizes().n);
        if let Some(params) = params.get(&images) {
            return Ok(params.clone());
        }
        if params.len() >= MAX_BATCH_SIZES {
            params.clear();
        }
        let buffer = Rc::new(Buffer::with_data(context, &self.choice.params(problem))?);
        params.insert(images, buffer.clone());
        Ok(buffer)
    }

    /// Runs it; `bind` binds its buffers.
    ///
    /// # Errors
    /// The device's failure.
    pub fn run(&self, context: &Rc<Context>, problem: &Conv2d, bind: &dyn Fn()) -> Result<Ran> {
        self.with_steps(context, problem, bind, |steps| match steps {
            [PassStep { work, .. }] => {
                bind();
                context.check("glBindBufferBase")?;
                dispatch::run(context, &self.program, work, &self.budget)
            }
            steps => dispatch::run_steps(context, steps, &self.together),
        })
    }

    /// Submits it, each pass in one dispatch, and does not wait.
    ///
    /// # Errors
    /// What GL reports.
    pub fn enqueue(&self, context: &Rc<Context>, problem: &Conv2d, bind: &dyn Fn()) -> Result<()> {
        self.with_steps(context, problem, bind, |steps| dispatch::enqueue(context, steps))
    }

    /// As [`Fallback::enqueue`], in dispatches as short as the budget says. Returns their number.
    ///
    /// # Errors
    /// What GL reports.
    pub fn enqueue_cut(&self, context: &Rc<Context>, problem: &Conv2d, bind: &dyn Fn()) -> Result<u32> {
        self.with_steps(context, problem, bind, |steps| dispatch::enqueue_cut(context, steps, &self.budget))
    }

    /// Learns that a run took `took`.
    pub fn learn(&self, context: &Context, problem: &Conv2d, took: Duration) {
        let (work, group) = (dispatch::together(self.choice.work(problem)), context.group());
        group.set_rate(self.budget.learn(group.rate(), &work, work.units, took));
    }

    fn with_steps<T>(
        &self,
        context: &Context,
        problem: &Conv2d,
        bind: &dyn Fn(),
        job: impl FnOnce(&[PassStep]) -> Result<T>,
    ) -> Result<T> {
        let is_cut = self.choice.parts.len() > 1;
        let bind_part = |part: &Part| {
            bind();
            let bounds = part.ranges.iter().flatten();
            for (location, &bound) in (RANGES..).zip(bounds.filter(|_| is_cut)) {
                context.api().uniform_1ui(location, bound as u32);
            }
        };
        let parts = &self.choice.parts;
        let binds = allocate::collected(parts.iter().map(|part| Ok(move || bind_part(part))), STEPS)?;
        let step = |(work, bind)| PassStep { program: &self.program, work, budget: &self.budget, bind };
        let binds = binds.iter().map(|bind| bind as &dyn Fn());
        let mut steps = allocate::with_capacity(parts.len(), STEPS)?;
        steps.extend(self.choice.work(problem).zip(binds).map(step));
        job(&steps)
    }
}
