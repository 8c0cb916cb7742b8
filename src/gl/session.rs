//! What lives beside a context: the programs built so far and the convolutions prepared on it.
//!
//! All of it is gone when a context is lost; whoever holds a plan holds what it takes to prepare it again.

use std::collections::HashMap;
use std::rc::{Rc, Weak};

use super::context::Context;
use super::conv2d::{self, Prepared};
use super::dispatch::Pace;
use super::fallback::{Choice, Fallback};
use super::kept::{self, Coming};
use super::passes::{self, Passes};
use super::rates;
use super::resource::Program;
use super::scratch::Scratch;
use super::tuning;
use crate::allocate;
use crate::config::{Tune, config};
use crate::error::{Error, Result};
use crate::log::Level;
use crate::memory::tiles::Gpu;
use crate::problem::Conv2d;
use crate::shader::recipe::{self, Source};
use crate::shader::source::Kernel;
use crate::shader::variant::{self, Variant};
use crate::store::{Store, store};

/// Generated programs that a session keeps beyond those in use.
const KEPT: usize = 256;

/// A context with its programs and prepared convolutions.
pub struct Session {
    prepared: HashMap<u64, Prepared>,
    programs: HashMap<&'static str, Rc<Program>>,
    generated: HashMap<Source, Rc<Program>>,
    coming: HashMap<Source, Coming>,
    /// Begun, of no use any more, and not ready when that was clear: some drivers wait for the compiler where a program is deleted.
    abandoned: Vec<Coming>,
    /// Compiled here, and not run yet when they were kept.
    fresh: Vec<(Source, Rc<Program>)>,
    store: &'static Store,
    /// Held by those who use it.
    scratch: Weak<Scratch>,
    context: Rc<Context>,
}

impl Session {
    /// A session with nothing in it yet.
    pub fn new(context: Rc<Context>) -> Self {
        Session::with_store(context, store())
    }

    /// The same, with what is kept from run to run in `store`.
    pub fn with_store(context: Rc<Context>, store: &'static Store) -> Self {
        Session {
            prepared: HashMap::new(),
            programs: HashMap::new(),
            generated: HashMap::new(),
            coming: HashMap::new(),
            abandoned: vec![],
            fresh: vec![],
            store,
            scratch: Weak::new(),
            context,
        }
    }

    /// What is kept from run to run.
    pub fn store(&self) -> &'static Store {
        self.store
    }

    /// The scratch buffers of all plans.
    pub fn scratch(&mut self) -> Rc<Scratch> {
        self.scratch.upgrade().unwrap_or_else(|| {
            let scratch = Rc::default();
            self.scratch = Rc::downgrade(&scratch);
            scratch
        })
    }

    /// Its context.
    pub fn context(&self) -> &Rc<Context> {
        &self.context
    }

    /// The program of `kernel`, built at its first use.
    ///
    /// # Errors
    /// [`Error::Shader`](crate::Error::Shader) with the driver's log.
    pub fn program(&mut self, kernel: Kernel) -> Result<Rc<Program>> {
        if let Some(program) = self.programs.get(kernel.name) {
            return Ok(program.clone());
        }
        let source = Source { name: kernel.name.to_owned(), text: kernel.source.to_owned() };
        let coming = kept::program(self.store, &self.context, &source)?;
        let program = self.finish(coming, &source)?;
        self.programs.insert(kernel.name, program.clone());
        Ok(program)
    }

    /// The program of a generated shader, likewise.
    ///
    /// # Errors
    /// As [`Session::program`].
    pub fn generated(&mut self, source: &Source) -> Result<Rc<Program>> {
        if let Some(program) = self.generated.get(source) {
            return Ok(program.clone());
        }
        let coming = match self.coming.remove(source) {
            Some(coming) => coming,
            None => kept::program(self.store, &self.context, source)?,
        };
        let program = self.finish(coming, source)?;
        if self.generated.len() >= KEPT {
            self.generated.clear();
        }
        self.generated.insert(source.copied()?, program.clone());
        Ok(program)
    }

    fn finish(&mut self, coming: Coming, source: &Source) -> Result<Rc<Program>> {
        let (program, compiled) = coming.finish(self.store, source)?;
        let program = Rc::new(program);
        if compiled && self.fresh.len() < KEPT {
            self.fresh.push((source.copied()?, program.clone()));
        }
        Ok(program)
    }

    /// Whether [`Session::settle`] has something to do.
    pub fn is_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Keeps the programs that were compiled since the last time once more, now that they have run: some drivers complete them at
    /// their first use, and the binary is then worth more.
    ///
    /// # Errors
    /// If the device was lost.
    pub fn settle(&mut self) -> Result<()> {
        std::mem::take(&mut self.fresh)
            .iter()
            .try_for_each(|(source, program)| kept::keep(self.store, program, source))
    }

    /// Has the driver begin with the programs of `sources` that are not there yet: it may compile several at once.
    ///
    /// # Errors
    /// What GL reports at once.
    pub fn begin<'a>(&mut self, sources: impl Iterator<Item = &'a Source>) -> Result<()> {
        for source in sources {
            if !self.generated.contains_key(source) && !self.coming.contains_key(source) {
                let coming = kept::program(self.store, &self.context, source)?;
                self.coming.insert(source.copied()?, coming);
            }
        }
        Ok(())
    }

    /// Whether nobody would have to wait for those of `sources` that were begun.
    pub fn is_ready<'a>(&self, mut sources: impl Iterator<Item = &'a Source>) -> bool {
        sources.all(|source| self.coming.get(source).is_none_or(Coming::is_ready))
    }

    /// Gives up those of `sources` that were begun and that nobody asked for.
    pub fn give_up<'a>(&mut self, sources: impl Iterator<Item = &'a Source>) {
        self.abandoned.extend(sources.filter_map(|source| self.coming.remove(source)));
        self.abandoned.retain(|coming| !coming.is_ready());
    }

    /// Prepares a convolution as `variant` says.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn prepare_variant(
        &mut self,
        variant: &Variant,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Prepared> {
        let images = conv2d::images_at_once(&self.context, problem)?;
        let Some(recipe) = recipe::generate(variant, &problem.with_batch(images)) else {
            return self.prepare_direct(problem, weights, bias);
        };
        let passes = Passes::new(self, &recipe)?;
        Prepared::generated(&self.context, *variant, passes, problem, weights, bias)
    }

    /// Prepares a convolution without keeping it, in the way that the planner likes best and the driver can compile.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn prepare(&mut self, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Prepared> {
        self.prepare_with(tuning::policy(problem, config()), problem, weights, bias)
    }

    /// The same, with measurements as `policy` says.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn prepare_with(
        &mut self,
        policy: Tune,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Prepared> {
        self.first_that_works(policy, problem, |session, variant| {
            session.prepare_variant(variant, problem, weights, bias)
        })
    }

    /// What `prepare` makes of the best of the ways to compute `problem` that the driver can do.
    fn first_that_works<T>(
        &mut self,
        policy: Tune,
        problem: &Conv2d,
        mut prepare: impl FnMut(&mut Session, &Variant) -> Result<T>,
    ) -> Result<T> {
        let tile = tuning::tile(self, problem)?;
        let mut refused = None;
        for variant in self.candidates(&tile, policy)? {
            match prepare(self, &variant) {
                // A driver may fail at one shader and compile the next.
                Err(error @ (Error::Shader { .. } | Error::OutOfMemory { .. }))
                    if variant != Variant::DIRECT =>
                {
                    self.context.note(Level::Warn, format_args!("{variant}: {error}"));
                    if policy != Tune::Off && matches!(error, Error::Shader { .. }) {
                        tuning::refuse(self, &tile, &variant);
                    }
                    refused = Some(error);
                }
                other => return other,
            }
        }
        Err(refused.unwrap_or_else(|| self.no_winograd(problem)))
    }

    /// The way that is known or predicted to be best; nothing is built but what measuring takes, where that is asked for.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn choose(&mut self, problem: &Conv2d) -> Result<Variant> {
        let tile = tuning::tile(self, problem)?;
        let best = self.candidates(&tile, tuning::policy(problem, config()))?.into_iter().next();
        best.ok_or_else(|| self.no_winograd(problem))
    }

    /// The best way that the driver compiles for pieces of `images` images of `problem`, and its kernel's name. Nothing but
    /// programs is made.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn choose_built(&mut self, problem: &Conv2d, images: usize) -> Result<(Variant, String)> {
        let policy = tuning::policy(problem, config());
        self.first_that_works(policy, problem, |session, variant| {
            let Some(recipe) = recipe::generate(variant, &problem.with_batch(images)) else {
                let choice = Choice::new(problem, session.context.group().max_iterations())?;
                return Ok((*variant, session.program(choice.kernel)?.kernel_name().to_owned()));
            };
            passes::build(session, &recipe)?;
            Ok((*variant, recipe.name))
        })
    }

    fn no_winograd(&self, problem: &Conv2d) -> Error {
        let most = self.context.group().max_iterations();
        let what = match variant::has_winograd_forms(problem.sizes()) {
            false => {
                "Winograd's algorithm, except for 3x3 kernels with stride and dilation 1 and one group".into()
            }
            true => format!(
                "Winograd's algorithm for {} channels and outputs of {} elements: it takes too large a buffer, or more than \
                 the {most} iterations that the device's loops make",
                problem.sizes().c,
                problem.output_len()
            ),
        };
        Error::Unsupported { device: self.context.device().to_owned(), what }
    }

    /// Ways to compute `problem`, best first.
    fn candidates(&mut self, problem: &Conv2d, policy: Tune) -> Result<Vec<Variant>> {
        if tuning::stays_with_floor(problem, config()) {
            // No rate of the device would change that; so none needs to be measured.
            return Ok(vec![Variant::DIRECT]);
        }
        tuning::order(self, problem, policy)
    }

    /// The device as the planner sees it, measured at first use.
    ///
    /// # Errors
    /// What the device failed to do.
    pub fn gpu(&mut self) -> Result<Gpu> {
        if let Some(gpu) = self.context.group().gpu().get() {
            return Ok(*gpu);
        }
        let capabilities = self.context.capabilities().clone();
        let most = self.context.group().max_iterations();
        let gpu = match config().deterministic {
            // Nothing that was measured may decide.
            true => kept::with_limits(Gpu::ASSUMED, &capabilities, most),
            false => kept::gpu(self.store, &capabilities, most, || rates::measure(self))?,
        };
        self.settle()?;
        self.context.note(Level::Debug, format_args!("{}: planned for as {gpu:?}", self.context.device()));
        Ok(*self.context.group().gpu().get_or_init(|| gpu))
    }

    /// Seconds that the planner expects `variant` to take, if it knows the device: one that is only assumed may be a hundred times as
    /// fast as this one, and dispatches cut for it as much too long.
    pub fn expected(&self, problem: &Conv2d, variant: &Variant) -> Option<f64> {
        let gpu = self.context.group().gpu().get().filter(|_| !config().deterministic)?;
        Some(variant::seconds(problem, gpu, variant))
    }

    fn prepare_direct(
        &mut self,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Prepared> {
        let choice = Choice::new(problem, self.context.group().max_iterations())?;
        let program = self.program(choice.kernel)?;
        Prepared::new(&self.context, Fallback::new(choice, program, Pace::new), problem, weights, bias)
    }

    /// The convolution kept under `key`. It leaves the session: one that failed is not put back.
    pub fn take(&mut self, key: u64) -> Option<Prepared> {
        self.prepared.remove(&key)
    }

    /// Keeps a convolution under `key`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn keep(&mut self, key: u64, prepared: Prepared) -> Result<()> {
        allocate::reserve_one(&mut self.prepared, "the plans of a device")?;
        self.prepared.insert(key, prepared);
        Ok(())
    }
}
