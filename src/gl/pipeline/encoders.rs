//! The convolutions prepared on the compute context, each at its first use.
//!
//! The compute thread prepares each plan on its own context, with the plan's variant. Weights are packed there once.
//! Intermediate buffers are scratch shared by all plans of the context.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::core::Core;
use crate::allocate;
use crate::backend::{Contexts, Recipe};
use crate::error::{Error, Result};
use crate::gl::convolution::queue::QueueKernel;
use crate::gl::convolution::{Chosen, Convolution, Images, Pacing};
use crate::gl::driver::context::Context;
use crate::gl::driver::fence::Fence;
use crate::gl::driver::resource::{Buffer, Region};
use crate::gl::execution::programs::Programs;
use crate::gl::tunables::{DISPATCH_TARGET, SHARED_DISPATCH_TARGET};
use crate::log::Level;
use crate::problem::Algorithm;
use crate::shader::variant::Variant;

/// The target duration of a dispatch in a pipeline with these contexts.
fn target(contexts: Contexts) -> Duration {
    match contexts {
        Contexts::One => DISPATCH_TARGET,
        Contexts::Two | Contexts::Three | Contexts::Measured => SHARED_DISPATCH_TARGET,
    }
}

/// How many times the time limit of one dispatch `dispatches` dispatches of a pipeline may take. Dispatches that
/// are shortened for other contexts' sake count as fractions of one.
pub fn limits(dispatches: u32, contexts: Contexts) -> u32 {
    let share = DISPATCH_TARGET.as_micros() / target(contexts).as_micros();
    dispatches.div_ceil(share as u32).max(1)
}

/// A plan prepared on the compute context.
#[allow(clippy::large_enum_variant, reason = "every encoder is in an Rc, never in an array")]
pub enum Encoder {
    /// For pieces of whole images.
    Convolution(Convolution),
    /// For batches of small jobs.
    Queue(QueueKernel),
}

impl Encoder {
    /// Submits the commands that compute `count` images, or `count` jobs of a queue. Does not wait. Returns the
    /// number of dispatches.
    ///
    /// # Errors
    /// What GL reports.
    pub fn encode(&self, input: Region, output: Region, count: usize) -> Result<u32> {
        match self {
            Encoder::Convolution(it) => it.encode(Images { input: &input, output: &output, count }),
            Encoder::Queue(it) => it.encode(input, output, count),
        }
    }

    /// Records that `count` images or jobs took `took`.
    pub fn learn(&self, count: usize, took: Duration) {
        match self {
            Encoder::Convolution(it) => it.learn(count, took),
            Encoder::Queue(it) => it.learn(count, took),
        }
    }

    /// The kernel's name.
    pub fn kernel(&self) -> &str {
        match self {
            Encoder::Convolution(it) => it.kernel(),
            Encoder::Queue(it) => it.name(),
        }
    }
}

/// An encoder, and the plan that it is for.
struct Prepared {
    /// Keeps the plan's allocation, so that no other plan gets its address.
    recipe: Weak<Recipe>,
    encoder: Rc<Encoder>,
}

/// The plans prepared on one context. Entries of dropped plans are removed when another plan is prepared.
pub struct Encoders {
    /// By plan, and by whether it is for jobs in a queue.
    prepared: HashMap<(*const Recipe, bool), Prepared>,
    programs: Programs,
    upload: Uploader,
    target: Duration,
}

impl Encoders {
    /// No plans yet.
    pub fn new(core: &Arc<Core>, context: &Rc<Context>) -> Self {
        Encoders {
            prepared: HashMap::new(),
            programs: Programs::new(context.clone()),
            upload: Uploader { staging: RefCell::default(), core: core.clone(), context: context.clone() },
            target: target(core.contexts()),
        }
    }

    /// The encoder of `recipe` with `weights`, ready for pieces of `count` images, or for `count` jobs in a queue.
    ///
    /// # Errors
    /// What kept it from being prepared: a shader, memory.
    pub fn get(
        &mut self,
        recipe: &Arc<Recipe>,
        weights: &[f32],
        count: usize,
        queued: bool,
    ) -> Result<Rc<Encoder>> {
        let key = (Arc::as_ptr(recipe), queued);
        if let Some(Prepared { encoder, .. }) = self.prepared.get(&key) {
            if let Encoder::Convolution(convolution) = &**encoder {
                convolution.prepare(&mut self.programs, count)?;
            }
            return Ok(encoder.clone());
        }
        self.prepared.retain(|_, prepared| prepared.recipe.strong_count() > 0);
        self.upload.context.forget_errors();
        let encoder = match queued {
            true => {
                let (data, upload) =
                    ((weights, recipe.bias.as_deref()), |data: &[f32]| self.upload.upload(data));
                let kernel =
                    QueueKernel::new(&mut self.programs, &recipe.problem, data, self.target, &upload)?;
                Encoder::Queue(kernel)
            }
            false => Encoder::Convolution(self.convolution(recipe, weights, count)?),
        };
        let encoder = Rc::new(encoder);
        allocate::reserve_one(&mut self.prepared, "one more plan in a pipeline")?;
        let prepared = Prepared { recipe: Arc::downgrade(recipe), encoder: encoder.clone() };
        self.prepared.insert(key, prepared);
        Ok(encoder)
    }

    /// Prepares `recipe` with its variant, or with a fallback kernel if the driver fails at that.
    fn convolution(&mut self, recipe: &Recipe, weights: &[f32], images: usize) -> Result<Convolution> {
        let Chosen { variant, seconds } = Chosen::of(recipe);
        let image_seconds = seconds.map(|seconds| seconds / recipe.problem.sizes().n.max(1) as f64);
        let pacing = Pacing { target: self.target, image_seconds };
        let (data, upload) = ((weights, recipe.bias.as_deref()), |data: &[f32]| self.upload.upload(data));
        let problem_and_variant = (&recipe.problem, variant);
        match Convolution::new(&mut self.programs, problem_and_variant, data, (images, pacing), &upload) {
            Err(error @ (Error::Shader { .. } | Error::OutOfMemory { .. }))
                if variant != Variant::FALLBACK && recipe.problem.algorithm() != Algorithm::Winograd =>
            {
                let context = &self.upload.context;
                context.note(Level::Warn, format_args!("{variant}: {error}"));
                context.forget_errors();
            }
            other => return other,
        }
        let convolution = Convolution::fallback(&mut self.programs, &recipe.problem, data, pacing, &upload)?;
        convolution.prepare(&mut self.programs, images)?;
        Ok(convolution)
    }
}

/// Uploads weights.
struct Uploader {
    /// Mapped memory that staged the last weights.
    staging: RefCell<Option<Staging>>,
    core: Arc<Core>,
    context: Rc<Context>,
}

/// Mapped memory that stages weights.
struct Staging {
    buffer: Buffer,
    address: NonNull<u8>,
    /// Signals when the device has fetched the last weights.
    fence: Fence,
}

impl Uploader {
    /// A buffer that holds `data`. Large data is staged like jobs' inputs: all copiers copy it to mapped memory,
    /// and the device fetches it later. The driver's own upload would copy on one thread, while this thread waits.
    ///
    /// # Errors
    /// What the device lacks.
    fn upload(&self, data: &[f32]) -> Result<Buffer> {
        let data: &[u8] = bytemuck::cast_slice(data);
        if !self.core.thresholds().staged.contains(&data.len()) || !self.context.capabilities().buffer_storage
        {
            return Buffer::with_data(&self.context, data);
        }
        let mut staging = self.staging.borrow_mut();
        let last = staging.take();
        if let Some(last) = &last {
            last.fence.wait("an upload of weights")?;
        }
        let (from, address) = match last.filter(|last| last.buffer.bytes() >= data.len()) {
            Some(last) => (last.buffer, last.address),
            None => Buffer::mapped(&self.context, data.len().next_power_of_two())?,
        };
        // SAFETY: the mapped memory is as long as the data. The device has fetched what was there, and no other
        // code has its address. The copy has ended when this returns.
        unsafe { self.core.copiers().copy_now(data, address.as_ptr()) };
        let to = Buffer::new(&self.context, data.len())?;
        from.copy_to(&to, data.len())?;
        self.core.copy_engines.other_copy(data.len());
        *staging = Some(Staging { buffer: from, address, fence: Fence::new(&self.context)? });
        Ok(to)
    }
}
