//! The seam to the convolution: its commands, put behind each other on a context, with nothing waited for.
//!
//! The lane that computes prepares a plan once more, on its own context: as the plan's variant says, with weights packed there
//! once. What passes hand on to each other lies in scratch that all plans of the lane share
//! ([`Scratch`](super::super::scratch::Scratch)).

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::super::context::Context;
use super::super::conv2d;
use super::super::dispatch::{self, Pace, Work};
use super::super::fallback::{Choice, Fallback};
use super::super::fence::Fence;
use super::super::pace;
use super::super::passes::{self, Buffers, Passes};
use super::super::resource::{Bind, Buffer, Region};
use super::super::session::Session;
use super::Core;
use super::queue::Queued;
use crate::allocate;
use crate::backend::{Contexts, Recipe};
use crate::error::{Error, Result};
use crate::log::Level;
use crate::problem::{Algorithm, Conv2d};
use crate::shader::recipe;
use crate::shader::variant::Variant;

/// What a dispatch should take while other contexts have work for the device. Drivers switch between contexts from one
/// dispatch to the next at best: an upload given during a dispatch of many milliseconds begins when that is over.
const SHARED_TARGET: Duration = Duration::from_millis(1);

/// Numbers of images for which parameters or passes are kept: a pipeline cuts into pieces of one size and a rest.
const MOST_SIZES: usize = 8;

/// Bytes of weights that are worth a way of their own to the device, and are not so many that memory would be kept for them.
const STAGED: Range<usize> = if cfg!(test) { 64..1 << 20 } else { 256 << 10..64 << 20 };

/// Bytes of mapped memory that `bytes` of weights go through at most.
pub fn bytes_of_staging(bytes: usize) -> usize {
    if STAGED.contains(&bytes) { bytes.next_power_of_two() } else { 0 }
}

/// A convolution prepared on one context.
pub trait Encode {
    /// Gets ready for pieces of `images` images, if it is not.
    ///
    /// # Errors
    /// What keeps it from that: a shader, memory.
    fn prepare(&self, images: usize) -> Result<()>;

    /// Gives the device the commands that compute `images` images from `input` into `output`, and a barrier that lets
    /// buffer copies behind them see it. Waits for nothing. Gives the number of dispatches.
    ///
    /// # Errors
    /// What GL reports.
    fn encode(&self, input: Region, output: Region, images: usize) -> Result<u32>;

    /// Learns that `images` images took so long.
    fn learn(&self, images: usize, took: Duration);

    /// Name of the kernel.
    fn kernel(&self) -> &str;
}

/// What all the convolutions of a lane share.
pub struct Shared {
    pub session: RefCell<Session>,
    pub context: Rc<Context>,
    /// What a dispatch should take.
    pub target: Duration,
    /// Where weights are on their way to the device.
    staging: RefCell<Option<Staging>>,
    core: Arc<Core>,
}

/// Mapped memory that weights go through.
struct Staging {
    buffer: Buffer,
    address: NonNull<u8>,
    /// Behind the last of them.
    fence: Fence,
}

/// A convolution, and whose it is.
type Owned = (Weak<Recipe>, Rc<dyn Encode>);

/// The convolutions prepared on one context, each at its first use; those of plans that are gone, go.
pub struct Encoders {
    /// By plan, and by whether it is for jobs in a queue.
    prepared: HashMap<(*const Recipe, bool), Owned>,
    shared: Rc<Shared>,
}

impl Encoders {
    /// None yet.
    pub fn new(core: &Arc<Core>, context: &Rc<Context>) -> Self {
        let shared = Shared {
            session: RefCell::new(Session::new(context.clone())),
            context: context.clone(),
            target: target(core.contexts()),
            staging: RefCell::default(),
            core: core.clone(),
        };
        Encoders { prepared: HashMap::new(), shared: Rc::new(shared) }
    }

    /// That of `recipe` with `weights`, ready for pieces of `images` images, or for so many jobs in a queue.
    ///
    /// # Errors
    /// What kept it from being prepared: a shader, memory.
    pub fn get(
        &mut self,
        recipe: &Arc<Recipe>,
        weights: &[f32],
        images: usize,
        queued: bool,
    ) -> Result<Rc<dyn Encode>> {
        // A weak reference keeps the address from being given to another recipe.
        let key = (Arc::as_ptr(recipe), queued);
        if let Some((_, encode)) = self.prepared.get(&key) {
            encode.prepare(images)?;
            return Ok(encode.clone());
        }
        self.prepared.retain(|_, (recipe, _)| recipe.strong_count() > 0);
        self.shared.context.forget_errors();
        let encode = match queued {
            true => Rc::new(Queued::new(&self.shared, recipe, weights)?),
            false => self.shared.prepare(recipe, weights, images)?,
        };
        allocate::reserve_one(&mut self.prepared, "one more plan in a pipeline")?;
        self.prepared.insert(key, (Arc::downgrade(recipe), encode.clone()));
        Ok(encode)
    }
}

/// What a dispatch should take in a pipeline with these contexts.
fn target(contexts: Contexts) -> Duration {
    match contexts {
        Contexts::One => pace::TARGET,
        Contexts::Two | Contexts::Three | Contexts::Measured => SHARED_TARGET,
    }
}

/// How many times the time limit of one dispatch so many of a pipeline's may take: those that are cut short for others'
/// sake make one of usual length together.
pub fn limits(dispatches: u32, contexts: Contexts) -> u32 {
    let share = pace::TARGET.as_micros() / target(contexts).as_micros();
    dispatches.div_ceil(share as u32).max(1)
}

impl Shared {
    /// Prepares `recipe` as its variant says; with the floor's kernel where the driver fails at that.
    fn prepare(self: &Rc<Self>, recipe: &Recipe, weights: &[f32], images: usize) -> Result<Rc<dyn Encode>> {
        match Generated::new(self, recipe, weights, images) {
            Ok(Some(generated)) => return Ok(Rc::new(generated)),
            Err(error @ (Error::Shader { .. } | Error::OutOfMemory { .. }))
                if recipe.problem.algorithm() != Algorithm::Winograd =>
            {
                self.context.note(Level::Warn, format_args!("{}: {error}", recipe.variant));
                self.context.forget_errors();
            }
            Err(error) => return Err(error),
            Ok(None) => {}
        }
        let direct = Direct::new(self, recipe, weights)?;
        direct.prepare(images)?;
        Ok(Rc::new(direct))
    }

    /// A buffer with `data` in it. What is large goes the way of jobs' inputs: all copiers bring it to mapped memory, from which the
    /// device fetches it later. The driver's own way is one thread's copy, while everything here waits.
    ///
    /// # Errors
    /// What the device lacks.
    pub fn upload(&self, data: &[f32]) -> Result<Buffer> {
        let data: &[u8] = bytemuck::cast_slice(data);
        if !STAGED.contains(&data.len()) || !self.context.capabilities().buffer_storage {
            return Buffer::with_data(&self.context, data);
        }
        let mut staging = self.staging.borrow_mut();
        let last = staging.take();
        if let Some(last) = &last {
            last.fence.wait("weights on their way")?;
        }
        let (from, address) = match last.filter(|last| last.buffer.bytes() >= data.len()) {
            Some(last) => (last.buffer, last.address),
            None => Buffer::mapped(&self.context, data.len().next_power_of_two())?,
        };
        // SAFETY: the mapped memory is as long, and the device has fetched what was there; nobody else has its address. The copy is over
        // when this returns.
        unsafe { self.core.copiers.copy_now(data, address.as_ptr()) };
        let to = Buffer::new(&self.context, data.len())?;
        from.copy_to(&to, data.len())?;
        self.core.engines.other(data.len());
        *staging = Some(Staging { buffer: from, address, fence: Fence::new(&self.context)? });
        Ok(to)
    }

    /// A recipe's passes, which are expected to take so many seconds.
    fn passes(
        &self,
        recipe: &recipe::Recipe,
        packed: Option<Rc<Buffer>>,
        seconds: Option<f64>,
    ) -> Result<Passes> {
        let work = dispatch::together(recipe.run.iter().map(passes::work));
        let pace = self.pace(&work, seconds);
        Passes::with(&mut self.session.borrow_mut(), recipe, packed, pace)
    }

    /// The pace of work that is expected to take so many seconds.
    fn pace(&self, work: &Work, seconds: Option<f64>) -> Pace {
        let rate = seconds.map(|seconds| f64::from(work.units) * work.operations / seconds);
        Pace::with_target(self.target).expecting(rate)
    }
}

/// Seconds that an image of a plan is expected to take.
fn of_an_image(plan: &Recipe) -> Option<f64> {
    plan.seconds.map(|seconds| seconds / plan.problem.sizes().n.max(1) as f64)
}

/// A plan of generated passes.
struct Generated {
    problem: Conv2d,
    variant: Variant,
    /// As they came; empty if the passes read packed ones.
    weights: Buffer,
    packed: Option<Rc<Buffer>>,
    bias: Option<Buffer>,
    /// Seconds that an image is expected to take.
    seconds: Option<f64>,
    /// By number of images: sizes are constants in the passes.
    passes: RefCell<HashMap<usize, Rc<Passes>>>,
    name: String,
    shared: Rc<Shared>,
}

impl Generated {
    /// For pieces of `images` images at first. `None` if the variant is not one of generated passes.
    fn new(shared: &Rc<Shared>, plan: &Recipe, weights: &[f32], images: usize) -> Result<Option<Self>> {
        let Some(recipe) = recipe::generate(&plan.variant, &plan.problem.with_batch(images)) else {
            return Ok(None);
        };
        let packed = match recipe.packed {
            0 => None,
            elements => Some(Rc::new(Buffer::new(&shared.context, elements * size_of::<f32>())?)),
        };
        let seconds = of_an_image(plan);
        let passes = shared.passes(&recipe, packed.clone(), seconds.map(|it| it * images as f64))?;
        let mut weights = shared.upload(weights)?;
        if passes.prepare(&weights)? {
            weights = Buffer::new(&shared.context, 0)?;
        }
        Ok(Some(Generated {
            problem: plan.problem,
            variant: plan.variant,
            weights,
            packed,
            bias: plan.bias.as_deref().map(|bias| shared.upload(bias)).transpose()?,
            seconds,
            passes: RefCell::new(HashMap::from([(images, Rc::new(passes))])),
            name: recipe.name,
            shared: shared.clone(),
        }))
    }

    /// The passes for `images` images. How weights are packed does not depend on that.
    fn passes(&self, images: usize) -> Result<Rc<Passes>> {
        if let Some(passes) = self.passes.borrow().get(&images) {
            return Ok(passes.clone());
        }
        let missing = || Error::Internal(format!("{} has no passes for {images} images", self.variant));
        let recipe = recipe::generate(&self.variant, &self.problem.with_batch(images)).ok_or_else(missing)?;
        debug_assert!(self.packed.as_ref().is_none_or(|it| it.bytes() == recipe.packed * size_of::<f32>()));
        let seconds = self.seconds.map(|it| it * images as f64);
        let passes = Rc::new(self.shared.passes(&recipe, self.packed.clone(), seconds)?);
        let mut all = self.passes.borrow_mut();
        if all.len() >= MOST_SIZES {
            all.clear();
        }
        all.insert(images, passes.clone());
        Ok(passes)
    }
}

impl Encode for Generated {
    fn prepare(&self, images: usize) -> Result<()> {
        self.passes(images).map(|_| ())
    }

    fn encode(&self, input: Region, output: Region, images: usize) -> Result<u32> {
        let bias = self.bias.as_ref().map(|it| it as &dyn Bind);
        let buffers = Buffers { input: &input, weights: &self.weights, bias, output: &output };
        self.passes(images)?.enqueue_cut(&buffers)
    }

    fn learn(&self, images: usize, took: Duration) {
        if let Some(passes) = self.passes.borrow().get(&images) {
            passes.learn(took);
        }
    }

    fn kernel(&self) -> &str {
        &self.name
    }
}

/// The fallback kernels.
struct Direct {
    problem: Conv2d,
    fallback: Fallback,
    weights: Buffer,
    bias: Option<Buffer>,
    /// Parameter blocks by number of images.
    params: RefCell<HashMap<usize, Rc<Buffer>>>,
    shared: Rc<Shared>,
}

impl Direct {
    fn new(shared: &Rc<Shared>, plan: &Recipe, weights: &[f32]) -> Result<Self> {
        let choice = Choice::new(&plan.problem, shared.context.group().max_iterations())?;
        let program = shared.session.borrow_mut().program(choice.kernel)?;
        let work = dispatch::together(choice.work(&plan.problem.with_batch(1)));
        let pace = || shared.pace(&work, of_an_image(plan));
        Ok(Direct {
            problem: plan.problem,
            fallback: Fallback::new(choice, program, pace),
            weights: shared.upload(weights)?,
            bias: plan.bias.as_deref().map(|bias| shared.upload(bias)).transpose()?,
            params: RefCell::default(),
            shared: shared.clone(),
        })
    }

    /// The parameter block for `images` images.
    fn params(&self, images: usize) -> Result<Rc<Buffer>> {
        let mut params = self.params.borrow_mut();
        if let Some(params) = params.get(&images) {
            return Ok(params.clone());
        }
        if params.len() >= MOST_SIZES {
            params.clear();
        }
        let block = self.fallback.params(&self.problem.with_batch(images));
        let buffer = Rc::new(Buffer::with_data(&self.shared.context, &block)?);
        params.insert(images, buffer.clone());
        Ok(buffer)
    }
}

impl Encode for Direct {
    fn prepare(&self, images: usize) -> Result<()> {
        self.params(images).map(|_| ())
    }

    fn encode(&self, input: Region, output: Region, images: usize) -> Result<u32> {
        let (context, params) = (&self.shared.context, self.params(images)?);
        let bind = || {
            input.bind_on(context, conv2d::INPUT);
            output.bind_on(context, conv2d::OUTPUT);
            params.bind(conv2d::PARAMS);
            self.weights.bind(conv2d::WEIGHTS);
            if let Some(bias) = &self.bias {
                bias.bind(conv2d::BIAS);
            }
        };
        self.fallback.enqueue_cut(context, &self.problem.with_batch(images), &bind)
    }

    fn learn(&self, images: usize, took: Duration) {
        self.fallback.learn(&self.shared.context, &self.problem.with_batch(images), took);
    }

    fn kernel(&self) -> &str {
        self.fallback.name()
    }
}
