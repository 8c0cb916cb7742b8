//! The passes of a pass plan on a context: programs, scratch buffers and dispatches.

use std::rc::Rc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Bind, Buffer, Program};
use crate::gl::execution::dispatch::{self, DispatchBudget, KernelWork, PassStep, Ran};
use crate::gl::execution::epilogue::{self, Arguments, Slots};
use crate::gl::execution::programs::Programs;
use crate::gl::execution::scratch::Scratch;
use crate::kernel::fused::Fused;
use crate::shader::epilogue::Places;
use crate::shader::pass_plan::{BufferRole, Pass, PassPlan};

/// The caller's buffers for a pass plan.
pub struct Buffers<'a> {
    pub input: &'a dyn Bind,
    pub weights: &'a dyn Bind,
    pub bias: Option<&'a dyn Bind>,
    pub output: &'a dyn Bind,
    /// The arguments of the epilogue, for passes that apply one.
    pub epilogue: Option<&'a Arguments<'a>>,
}

/// A pass with its program.
pub struct Built {
    program: Rc<Program>,
    bindings: Vec<(u32, BufferRole)>,
    uniforms: Vec<(u32, u32)>,
    work: KernelWork,
    budget: DispatchBudget,
    /// Where the arguments of an epilogue belong, in the pass that applies it.
    epilogue: Option<Slots>,
}

/// The passes of a pass plan, ready to run.
pub struct Passes {
    name: String,
    prepare: Vec<Built>,
    run: Vec<Built>,
    budget: DispatchBudget,
    packed: Option<Rc<Buffer>>,
    /// Whether the passes read the unpacked weights.
    reads_weights: bool,
    /// Unpacked weights, if the passes read them and no other code holds them.
    held: Option<Buffer>,
    scratch: Rc<Scratch>,
    context: Rc<Context>,
}

impl Passes {
    /// Builds the programs of `plan` and allocates its buffers.
    ///
    /// # Errors
    /// The compiler's log; [`Error::OutOfMemory`](crate::Error::OutOfMemory), or what GL reports.
    pub fn new(programs: &mut Programs, plan: &PassPlan) -> Result<Self> {
        Passes::with_packed(programs, plan, DispatchBudget::new())
    }

    /// As [`Passes::new`], with a budget.
    ///
    /// # Errors
    /// As [`Passes::new`].
    pub fn with_packed(programs: &mut Programs, plan: &PassPlan, budget: DispatchBudget) -> Result<Self> {
        let bytes = plan.packed * size_of::<f32>();
        let packed = (bytes > 0).then(|| Buffer::new(programs.context(), bytes).map(Rc::new)).transpose()?;
        Passes::with(programs, plan, packed, budget)
    }

    /// As [`Passes::new`], with a budget and a buffer for packed weights that other passes may share.
    ///
    /// # Errors
    /// As [`Passes::new`].
    pub fn with(
        programs: &mut Programs,
        plan: &PassPlan,
        packed: Option<Rc<Buffer>>,
        budget: DispatchBudget,
    ) -> Result<Self> {
        let context = programs.context().clone();
        let [prepare, run] = build(programs, plan)?;
        let scratch = programs.scratch();
        scratch.reserve(&context, &plan.scratch)?;
        let (name, reads_weights) = (plan.name.clone(), plan.reads_weights());
        Ok(Passes { name, prepare, run, budget, packed, reads_weights, held: None, scratch, context })
    }

    /// The passes of a plan whose last one has an epilogue at `places`.
    ///
    /// # Errors
    /// As [`Passes::new`]; [`Error::Unsupported`] if the device has too few bindings.
    pub fn fused(
        programs: &mut Programs,
        plan: &PassPlan,
        packed: Option<Rc<Buffer>>,
        budget: DispatchBudget,
        (fused, places): (&Fused, &Places),
    ) -> Result<Self> {
        epilogue::check_bindings(programs.context(), fused, places.first_binding)?;
        let mut passes = Passes::with(programs, plan, packed, budget)?;
        if let Some(last) = passes.run.last_mut() {
            last.epilogue = Some(Slots::new(&last.program, fused, places)?);
        }
        Ok(passes)
    }

    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Packs `weights`, if the pass plan packs. Returns whether the unpacked ones are no longer needed.
    ///
    /// # Errors
    /// The device's failure.
    pub fn prepare(&self, weights: &Buffer) -> Result<bool> {
        let Some(packed) = &self.packed else { return Ok(false) };
        let buffers = Buffers { input: weights, weights, bias: None, output: &**packed, epilogue: None };
        self.with_steps(&self.prepare, &buffers, |steps| {
            dispatch::run_steps(&self.context, steps, &DispatchBudget::new())
        })?;
        Ok(!self.reads_weights)
    }

    /// Submits the packing of `weights`, if the pass plan packs, before later commands. Does not wait.
    ///
    /// # Errors
    /// What GL reports.
    pub fn enqueue_packing(&self, weights: &dyn Bind) -> Result<()> {
        let Some(packed) = &self.packed else { return Ok(()) };
        let buffers = Buffers { input: weights, weights, bias: None, output: &**packed, epilogue: None };
        self.with_steps(&self.prepare, &buffers, |steps| dispatch::enqueue(&self.context, steps))
    }

    /// Takes ownership of weights.
    pub fn hold(&mut self, weights: Buffer) {
        self.held = Some(weights);
    }

    /// The weights that it owns.
    pub fn held(&self) -> Option<&Buffer> {
        self.held.as_ref()
    }

    /// Runs it.
    ///
    /// # Errors
    /// The device's failure.
    pub fn run(&self, buffers: &Buffers) -> Result<Ran> {
        self.with_steps(&self.run, buffers, |steps| dispatch::run_steps(&self.context, steps, &self.budget))
    }

    /// Submits it, each pass in one dispatch, and does not wait.
    ///
    /// # Errors
    /// What GL reports.
    pub fn enqueue(&self, buffers: &Buffers) -> Result<()> {
        self.with_steps(&self.run, buffers, |steps| dispatch::enqueue(&self.context, steps))
    }

    /// As [`Passes::enqueue`], in dispatches as short as the budget says. Returns their number.
    ///
    /// # Errors
    /// What GL reports.
    pub fn enqueue_cut(&self, buffers: &Buffers) -> Result<u32> {
        self.with_steps(&self.run, buffers, |steps| dispatch::enqueue_cut(&self.context, steps, &self.budget))
    }

    /// Learns that a run took `took`.
    pub fn learn(&self, took: Duration) {
        let work = dispatch::together(self.run.iter().map(|pass| pass.work));
        let group = self.context.group();
        group.set_rate(self.budget.learn(group.rate(), &work, work.units, took));
    }

    fn with_steps<T>(&self, built: &[Built], buffers: &Buffers, job: impl FnOnce(&[PassStep]) -> T) -> T {
        let binds: Vec<_> = built.iter().map(|built| move || self.bind(built, buffers)).collect();
        let step = |(built, bind)| {
            let Built { program, work, budget, .. }: &Built = built;
            PassStep { program, work: *work, budget, bind }
        };
        let steps: Vec<PassStep> =
            built.iter().zip(binds.iter().map(|bind| bind as &dyn Fn())).map(step).collect();
        job(&steps)
    }

    fn bind(&self, built: &Built, buffers: &Buffers) {
        for &(location, bits) in &built.uniforms {
            self.context.api().uniform_1ui(location, bits);
        }
        if let (Some(slots), Some(arguments)) = (&built.epilogue, buffers.epilogue) {
            arguments.bind(&self.context, slots);
        }
        for &(index, slot) in &built.bindings {
            if let BufferRole::Scratch(number) = slot {
                if let Some(buffer) = self.scratch.buffer(number) {
                    buffer.bind(index);
                }
                continue;
            }
            let buffer = match slot {
                BufferRole::Input => Some(buffers.input),
                BufferRole::Weights => Some(buffers.weights),
                BufferRole::Bias => buffers.bias,
                BufferRole::Output => Some(buffers.output),
                BufferRole::Packed => self.packed.as_deref().map(|it| it as &dyn Bind),
                BufferRole::Scratch(_) => None,
            };
            if let Some(buffer) = buffer {
                buffer.bind_on(&self.context, index);
            }
        }
    }
}

/// Builds the passes of `plan`: those that pack the weights, and those that run.
///
/// # Errors
/// The compiler's log.
pub fn build(programs: &mut Programs, plan: &PassPlan) -> Result<[Vec<Built>; 2]> {
    check_iterations(programs.context(), plan)?;
    programs.begin(plan.sources())?;
    let mut build =
        |passes: &[Pass]| passes.iter().map(|pass| Built::new(programs, pass)).collect::<Result<_>>();
    let built = build(&plan.prepare).and_then(|prepare| Ok([prepare, build(&plan.run)?]));
    built.inspect_err(|_| programs.give_up(plan.sources()))
}

/// Refuses a pass plan whose loops the device might end early. The planner offers none.
fn check_iterations(context: &Context, plan: &PassPlan) -> Result<()> {
    let limit = context.group().max_iterations();
    let Some(pass) = plan.prepare.iter().chain(&plan.run).find(|pass| pass.iterations > limit) else {
        return Ok(());
    };
    let what = format!(
        "{}: loops of up to {} iterations in {}; it makes {limit}",
        plan.name, pass.iterations, pass.source.name
    );
    Err(Error::Unsupported { device: context.device().to_owned(), what })
}

/// The work of a pass.
pub fn work(pass: &Pass) -> KernelWork {
    KernelWork { units: pass.groups as u32, per_group: 1, operations: pass.operations }
}

impl Built {
    fn new(programs: &mut Programs, pass: &Pass) -> Result<Self> {
        Ok(Built {
            program: programs.generated(&pass.source)?,
            bindings: pass.bindings.clone(),
            uniforms: pass.uniforms.clone(),
            work: work(pass),
            budget: DispatchBudget::new(),
            epilogue: None,
        })
    }
}
