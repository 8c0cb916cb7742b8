//! The seam to the convolution: its commands, put behind each other on a context, with nothing waited for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::super::api;
use super::super::context::Context;
use super::super::conv2d;
use super::super::dispatch::{self, Pace, Work};
use super::super::resource::{Buffer, Program};
use super::super::session::Session;
use crate::backend::Recipe;
use crate::error::Result;
use crate::problem::Conv2d;

/// Part of a buffer object of the share group.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// Its GL name.
    pub buffer: u32,
    /// Where the part begins.
    pub offset: usize,
    /// How long it is.
    pub bytes: usize,
}

/// A convolution prepared on one context.
pub trait Encode {
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

/// The convolutions prepared on one context, each at its first use; those of plans that are gone, go.
pub struct Encoders {
    session: Session,
    prepared: HashMap<*const Recipe, (Weak<Recipe>, Rc<dyn Encode>)>,
}

impl Encoders {
    /// None yet.
    pub fn new(context: &Rc<Context>) -> Self {
        Encoders { session: Session::new(context.clone()), prepared: HashMap::new() }
    }

    /// That of `recipe`.
    ///
    /// # Errors
    /// What kept it from being prepared: a shader, memory.
    pub fn get(&mut self, recipe: &Arc<Recipe>) -> Result<Rc<dyn Encode>> {
        // A weak reference keeps the address from being given to another recipe.
        if let Some((_, encode)) = self.prepared.get(&Arc::as_ptr(recipe)) {
            return Ok(encode.clone());
        }
        self.prepared.retain(|_, (recipe, _)| recipe.strong_count() > 0);
        self.session.context().forget_errors();
        let encode: Rc<dyn Encode> = Rc::new(Direct::new(&mut self.session, recipe)?);
        self.prepared.insert(Arc::as_ptr(recipe), (Arc::downgrade(recipe), encode.clone()));
        Ok(encode)
    }
}

/// The direct kernels of `conv2d`.
struct Direct {
    problem: Conv2d,
    program: Rc<Program>,
    weights: Buffer,
    bias: Option<Buffer>,
    /// Parameter blocks by number of images.
    params: RefCell<HashMap<usize, Buffer>>,
    pace: Pace,
    context: Rc<Context>,
}

impl Direct {
    fn new(session: &mut Session, recipe: &Recipe) -> Result<Self> {
        let program = session.program(conv2d::kernel(&recipe.problem))?;
        let context = session.context().clone();
        let upload = |data: &[f32]| Buffer::with_data(&context, bytemuck::cast_slice(data));
        Ok(Direct {
            problem: recipe.problem,
            program,
            weights: upload(&recipe.weights)?,
            bias: recipe.bias.as_deref().map(upload).transpose()?,
            params: RefCell::default(),
            pace: Pace::new(),
            context,
        })
    }

    fn work(&self, images: usize) -> Work {
        let units = self.problem.with_batch(images).output_len() as u32;
        let operations = 2.0 * self.problem.reduction() as f64 + conv2d::PER_OUTPUT;
        Work { units, per_group: 64, operations }
    }

    /// Binds the parameter block for `images` images.
    fn bind_params(&self, images: usize) -> Result<()> {
        /// A pipeline cuts into pieces of one size and a rest.
        const MOST: usize = 8;
        let mut params = self.params.borrow_mut();
        if !params.contains_key(&images) {
            if params.len() >= MOST {
                params.clear();
            }
            let block = conv2d::params(&self.problem.with_batch(images));
            params.insert(images, Buffer::with_data(&self.context, &block)?);
        }
        params[&images].bind(conv2d::PARAMS);
        Ok(())
    }
}

impl Encode for Direct {
    fn encode(&self, input: Region, output: Region, images: usize) -> Result<u32> {
        let (api, context) = (self.context.api(), &*self.context);
        self.bind_params(images)?;
        for (index, region) in [(conv2d::INPUT, input), (conv2d::OUTPUT, output)] {
            let (offset, bytes) = (region.offset as i64, region.bytes as i64);
            api.bind_buffer_range(api::SHADER_STORAGE_BUFFER, index, region.buffer, offset, bytes);
        }
        self.weights.bind(conv2d::WEIGHTS);
        if let Some(bias) = &self.bias {
            bias.bind(conv2d::BIAS);
        }
        context.check("glBindBufferRange")?;
        api.use_program(self.program.name());
        context.check("glUseProgram")?;
        let work = self.work(images);
        let (mut first, mut dispatches) = (0, 0);
        while first < work.units {
            let units = self.pace.slice(context.group().rate(), &work).min(work.units - first);
            dispatch::dispatch(context, first, units, work.per_group)?;
            first += units;
            dispatches += 1;
        }
        api.memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
        context.check("glMemoryBarrier")?;
        Ok(dispatches)
    }

    fn learn(&self, images: usize, took: Duration) {
        let (work, group) = (self.work(images), self.context.group());
        group.set_rate(self.pace.learn(group.rate(), &work, work.units, took));
    }

    fn kernel(&self) -> &str {
        self.program.kernel_name()
    }
}
