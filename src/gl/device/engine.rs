//! The engine: one GL device as the device layer sees it.
//!
//! Results reach the caller's memory only on success: the worker reads them into a buffer of its own, and the last
//! step is a copy that cannot fail.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::allocate;
use crate::backend::{Backend, Contexts, EngineMemory, Order, PipelineOptions, Plan, Queue, Range, Recipe};
use crate::config::config;
use crate::error::{Error, Result};
use crate::gl::cache;
use crate::gl::convolution::{self, Buffered, Chosen};
use crate::gl::device::plan::{GlPlan, timing};
use crate::gl::device::session::Session;
use crate::gl::device::worker::Worker;
use crate::gl::device::{contexts, memory};
use crate::gl::driver::context::{ShareGroup, Target};
use crate::gl::driver::egl::Egl;
use crate::gl::driver::exit;
use crate::gl::execution::dispatch::Ran;
use crate::gl::execution::epilogue::Arguments;
use crate::gl::execution::programs::Programs;
use crate::gl::execution::residents::{self, ResidentRange};
use crate::gl::measure::{ceilings, hierarchy};
use crate::gl::pipeline::Pipeline;
use crate::gl::product;
use crate::gl::tunables::{MAX_CHOICES, STREAMED_BYTES};
use crate::gl::tune;
use crate::kernel::bind::Launch;
use crate::kernel::fused::Fused;
use crate::kernel::glsl::Parameters;
use crate::memory::tiles::{Gpu, Tile};
use crate::memory::{Ceilings, Hierarchy};
use crate::problem::{Algorithm, Conv2d, Gemm};
use crate::report::{Source, Timing};
use crate::shader::source::SGEMM_DIRECT;
use crate::shader::variant::{Variant, has_winograd_forms};

/// A GL device with its worker.
pub struct Engine {
    worker: Arc<Worker>,
    id: Arc<str>,
    software: bool,
    hierarchy: Mutex<Option<Hierarchy>>,
    egl: Arc<dyn Egl>,
    target: Target,
    /// The key of the next plan.
    next_key: AtomicU64,
    /// The pipeline for calls that move much data; made at the first of them.
    stream: Mutex<Option<Arc<Pipeline>>>,
    /// The chosen variant and its expected seconds for problems of such calls.
    variants: Mutex<HashMap<Conv2d, (Variant, Option<f64>)>>,
}

impl Engine {
    /// Starts the device's worker and makes its context.
    ///
    /// # Errors
    /// The reason why no context could be made.
    pub fn new(egl: &Arc<dyn Egl>, id: &str, software: bool, target: Target) -> Result<Self> {
        let id: Arc<str> = id.into();
        let (group_egl, device) = (egl.clone(), id.clone());
        // A new group each time: a reset affects all contexts of a group.
        let make_context =
            Box::new(move || ShareGroup::new(group_egl.clone(), device.clone(), target)?.context());
        let worker = Worker::start(egl.clone(), id.clone(), make_context)?;
        worker.call(|_| Ok(()))?;
        exit::register();
        Ok(Engine {
            worker: Arc::new(worker),
            id,
            software,
            hierarchy: Mutex::new(None),
            egl: egl.clone(),
            target,
            next_key: AtomicU64::new(0),
            stream: Mutex::default(),
            variants: Mutex::default(),
        })
    }

    fn pipeline(&self, options: PipelineOptions, source: Source) -> Result<Pipeline> {
        let capabilities = self.worker.call(|session| Ok(session.context().capabilities().clone()))?;
        let start = |options, source| {
            let device = (self.egl.clone(), self.id.clone());
            Pipeline::start(device, self.target, capabilities.max_elements(), options, source)
        };
        let is_open = options.contexts == Contexts::Measured
            || (options.order == Order::Measured && options.contexts != Contexts::One);
        if !is_open {
            return start(options, source);
        }
        let measured = contexts::measured(&capabilities, &|options| start(options, Source::Nobody));
        start(measured.choose(options), source)
    }

    /// The variant that computes `problem` in calls that move much data, and its expected seconds.
    fn variant(&self, problem: &Conv2d) -> Result<(Variant, Option<f64>)> {
        let variants = || self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chosen) = variants().get(problem) {
            return Ok(*chosen);
        }
        let chosen = self.worker.call(|session| {
            let variant = tune::choose(&mut session.programs, problem)?;
            Ok((variant, tune::expected(session.context(), problem, &variant)))
        })?;
        let mut variants = variants();
        if variants.len() >= MAX_CHOICES {
            variants.clear();
        }
        // A choice that cannot be remembered is made again.
        if variants.try_reserve(1).is_ok() {
            variants.insert(*problem, chosen);
        }
        Ok(chosen)
    }

    /// A plan for `problem`, some images of `whole`, with a variant that is chosen for `whole`.
    fn plan_as(
        &self,
        whole: &Conv2d,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Box<dyn Plan>> {
        let (whole, problem) =
            (&preferred(whole, config().algorithm), &preferred(problem, config().algorithm));
        let recipe_weights = allocate::copied(weights, "a copy of the weights")?;
        let recipe_bias = bias.map(|bias| allocate::copied(bias, "a copy of the bias")).transpose()?;
        let (key, streams) = (self.next_key.fetch_add(1, Ordering::Relaxed), self.streams(problem));
        let (images, variant, seconds, kernel) = self.worker.call(|session| {
            let limit = convolution::images_at_once(session.context(), problem)?;
            if streams {
                // The pipeline of its calls prepares it for its pieces, on a context of its own.
                let limit = session.context().capabilities().max_elements();
                let images = PipelineOptions::of_calls().images_each(problem, limit);
                let (variant, kernel) = tune::choose_built(&mut session.programs, whole, images)?;
                return Ok((images, variant, tune::expected(session.context(), problem, &variant), kernel));
            }
            let prepared = tune::prepare_part(&mut session.programs, (whole, problem), weights, bias)?;
            let variant = prepared.variant();
            let made = (
                limit,
                variant,
                tune::expected(session.context(), problem, &variant),
                prepared.kernel().to_owned(),
            );
            session.keep(key, prepared)?;
            Ok(made)
        })?;
        Ok(Box::new(GlPlan {
            worker: self.worker.clone(),
            key,
            streams,
            images,
            is_held: AtomicBool::new(!streams),
            has_run: AtomicBool::new(false),
            recipe: Arc::new(Chosen { variant, seconds }.recipe(*problem, recipe_weights, recipe_bias)),
            kernel,
            fused: None,
        }))
    }

    /// Refuses a product without terms, which is a scaling on the host, for an epilogue.
    fn check_terms(&self, problem: &Gemm) -> Result<()> {
        if !problem.is_scaling() {
            return Ok(());
        }
        let what = "epilogues of products without terms (k or alpha is 0)".to_owned();
        Err(Error::Unsupported { device: self.id.to_string(), what })
    }

    /// Runs a kernel whose scalars arrive by `parameters`. The arrays are written only on success.
    ///
    /// # Errors
    /// As [`Backend::launch`].
    pub fn launch_with(&self, launch: &Launch<'_>, parameters: Parameters) -> Result<Timing> {
        let start = Instant::now();
        let (results, ran, fresh) = self.worker.call(|session| {
            let Session { kernels, programs, residents, .. } = &mut *session;
            let (results, ran) = kernels.launch(programs, residents, launch, parameters)?;
            Ok((results, ran, session.programs.is_fresh()))
        })?;
        results.store(launch);
        if fresh {
            // The next run reports a lost device.
            self.worker.post(|session| drop(session.programs.settle()));
        }
        Ok(timing(ran, start))
    }

    /// The worker, for jobs of the lab and of tests.
    #[cfg(any(test, feature = "lab"))]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The device as the planner sees it.
    ///
    /// # Errors
    /// The reason why it could not be measured.
    pub fn gpu(&self) -> Result<Gpu> {
        self.worker.call(|session| tune::gpu(&mut session.programs))
    }

    /// The share group of the worker's present context; after a reset there is a new one. Contexts on other threads
    /// are made from it.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn share_group(&self) -> Result<Arc<ShareGroup>> {
        self.worker.call(|session| Ok(session.context().group().clone()))
    }
}

/// The problem with the environment's preferred algorithm in place of `auto`, if it supports that algorithm.
fn preferred(problem: &Conv2d, preference: Option<Algorithm>) -> Conv2d {
    match (problem.algorithm(), preference) {
        (Algorithm::Auto, Some(Algorithm::Winograd)) if !has_winograd_forms(problem.sizes()) => *problem,
        (Algorithm::Auto, Some(preference)) => problem.with_algorithm(preference),
        _ => *problem,
    }
}

/// The tile for `problem` and the number of parts of its depth; none if tiles do not pay or do not fit.
///
/// # Errors
/// The device's failure while it was measured.
fn tile(programs: &mut Programs, problem: &Gemm) -> Result<Option<(Tile, usize)>> {
    if !product::is_large(problem) {
        return Ok(None);
    }
    let gpu = tune::gpu(programs)?;
    product::tile(programs.context(), &gpu, problem)
}

impl Backend for Engine {
    fn id(&self) -> &str {
        &self.id
    }

    fn fingerprint(&self) -> String {
        // A device that answers no longer has no measurements either.
        let key = self.worker.call(|session| Ok(session.context().capabilities().key()));
        key.unwrap_or_else(|_| self.id.to_string())
    }

    fn hierarchy(&self) -> Result<Hierarchy> {
        // Before the lock, which another thread may have held at the fork.
        self.worker.check_process()?;
        let mut hierarchy = self.hierarchy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hierarchy) = *hierarchy {
            return Ok(hierarchy);
        }
        let measured = self.worker.call(|session| {
            let (store, capabilities) = (session.programs.store(), session.context().capabilities().clone());
            cache::hierarchy(store, &capabilities, || {
                let prepare: hierarchy::Prepare = &|programs, problem, weights| {
                    tune::prepare(programs, tune::policy(problem, config()), problem, weights, None)
                };
                hierarchy::measure(&mut session.programs, self.software, prepare)
            })
        })?;
        crate::log::debug!("{}: measured {measured:?}", self.id);
        Ok(*hierarchy.insert(measured))
    }

    fn ceilings(&self) -> Result<Ceilings> {
        self.worker.check_process()?;
        self.worker.call(|session| {
            let (store, capabilities) = (session.programs.store(), session.context().capabilities().clone());
            cache::ceilings(store, &capabilities, || ceilings::measure(&mut session.programs))
        })
    }

    fn plan_conv2d(&self, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Box<dyn Plan>> {
        self.plan_as(problem, problem, weights, bias)
    }

    fn plan_fused(
        &self,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
        epilogue: &Fused,
    ) -> Result<Box<dyn Plan>> {
        let problem = &preferred(problem, config().algorithm);
        let recipe_weights = allocate::copied(weights, "a copy of the weights")?;
        let recipe_bias = bias.map(|bias| allocate::copied(bias, "a copy of the bias")).transpose()?;
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let (images, variant, kernel) = self.worker.call(|session| {
            // Which variant is fastest does not depend on the epilogue.
            let prepared = tune::prepare_fused(&mut session.programs, problem, (weights, bias), epilogue)?;
            let (variant, kernel) = (prepared.variant(), prepared.kernel().to_owned());
            session.keep(key, prepared)?;
            Ok((problem.sizes().n, variant, kernel))
        })?;
        let recipe = Chosen { variant, seconds: None }.recipe(*problem, recipe_weights, recipe_bias);
        Ok(Box::new(GlPlan {
            worker: self.worker.clone(),
            key,
            streams: false,
            images,
            is_held: AtomicBool::new(true),
            has_run: AtomicBool::new(false),
            recipe: Arc::new(recipe),
            kernel,
            fused: Some(epilogue.clone()),
        }))
    }

    fn plan_images(
        &self,
        whole: &Conv2d,
        part: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Box<dyn Plan>> {
        self.plan_as(whole, part, weights, bias)
    }

    fn queue(&self, options: PipelineOptions, source: Source) -> Result<Arc<dyn Queue>> {
        self.worker.check_process()?;
        Ok(Arc::new(self.pipeline(options, source)?))
    }

    fn streams(&self, problem: &Conv2d) -> bool {
        size_of::<f32>() * (problem.input_len() + problem.output_len()) >= STREAMED_BYTES
    }

    fn stream(&self) -> Result<Arc<dyn Queue>> {
        // Before the lock, which another thread may have held at the fork.
        self.worker.check_process()?;
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = &*stream {
            return Ok(stream.clone());
        }
        let made = self.pipeline(PipelineOptions::of_calls(), Source::Calls)?;
        Ok(stream.insert(Arc::new(made)).clone())
    }

    fn recipe(&self, problem: &Conv2d, bias: Option<&[f32]>) -> Result<Arc<Recipe>> {
        self.worker.check_process()?;
        let problem = preferred(problem, config().algorithm);
        let (variant, seconds) = self.variant(&problem)?;
        let bias = bias.map(|bias| allocate::copied(bias, "a copy of the bias")).transpose()?;
        Ok(Arc::new(Chosen { variant, seconds }.recipe(problem, vec![], bias)))
    }

    fn sgemm(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<(Arc<str>, Timing)> {
        let start = Instant::now();
        let elements = problem.sizes().m * problem.sizes().n;
        if elements == 0 || problem.is_scaling() {
            product::scale(problem, c);
            return Ok((SGEMM_DIRECT.name.into(), timing(Ran::default(), start)));
        }
        let mut tight = allocate::zeroed(elements, "the product")?;
        let (kernel, ran) = self.worker.call(|session| match tile(&mut session.programs, problem)? {
            Some((tile, splits)) => {
                let programs = &mut session.programs;
                product::run_tiled(programs, (&tile, splits), problem, (a, b, c), &mut tight, None)
            }
            None => product::run(&mut session.programs, problem, (a, b, c), &mut tight, None),
        })?;
        product::store(problem, &tight, c);
        Ok((kernel.into(), timing(ran, start)))
    }

    fn sgemm_fused(
        &self,
        problem: &Gemm,
        (a, b): (&[f32], &[f32]),
        c: &mut [f32],
        epilogue: &Launch<'_>,
    ) -> Result<(Arc<str>, Timing)> {
        let (start, elements) = (Instant::now(), problem.sizes().m * problem.sizes().n);
        if elements == 0 {
            return Ok((SGEMM_DIRECT.name.into(), Timing::default()));
        }
        self.check_terms(problem)?;
        let fused = Fused::of(epilogue)?;
        let mut tight = allocate::zeroed(elements, "the product")?;
        let (kernel, ran) = self.worker.call(|session| {
            let tile = tile(&mut session.programs, problem)?;
            let Session { residents, programs, .. } = &mut *session;
            let context = programs.context().clone();
            let arguments = Arguments::new(&context, residents, epilogue);
            let arguments = residents.keep_if(arguments)?;
            residents::see_writes(&context);
            let finish = Some(&(&fused, &arguments));
            match tile {
                Some((tile, splits)) => {
                    let tile = (&tile, splits);
                    product::run_tiled(programs, tile, problem, (a, b, c), &mut tight, finish)
                }
                None => product::run(programs, problem, (a, b, c), &mut tight, finish),
            }
        })?;
        product::store(problem, &tight, c);
        Ok((kernel.into(), timing(ran, start)))
    }

    fn conv2d_resident(
        &self,
        problem: &Conv2d,
        (weights, bias): (Range<'_>, Option<Range<'_>>),
        input: Range<'_>,
        output: Range<'_>,
    ) -> Result<(Arc<str>, Timing)> {
        let start = Instant::now();
        let problem = &preferred(problem, config().algorithm);
        let (weights, bias) =
            (ResidentRange::of(&weights)?, bias.as_ref().map(ResidentRange::of).transpose()?);
        let (from, to) = (ResidentRange::of(&input)?, ResidentRange::of(&output)?);
        let (kernel, ran) = self.worker.call(|session| {
            let Session { residents, programs, .. } = session;
            let context = programs.context().clone();
            for range in [Some(&weights), bias.as_ref(), Some(&from)].into_iter().flatten() {
                residents.ensure(&context, range, false)?;
            }
            let policy = tune::policy(problem, config());
            let prepared = tune::first_that_works(programs, policy, problem, |programs, variant| {
                let constants = (&weights, bias.as_ref());
                Buffered::from_residents(programs, residents, *variant, problem, constants)
            })?;
            let ready = residents.ensure(&context, &to, true);
            residents.keep_if(ready)?;
            let ran = prepared.run_resident(residents, &from, &to, None);
            residents.end(ran, &[to.key]).map(|ran| (prepared.kernel().to_owned(), ran))
        })?;
        Ok((kernel.into(), timing(ran, start)))
    }

    fn sgemm_resident(&self, problem: &Gemm, matrices: [Range<'_>; 3]) -> Result<(Arc<str>, Timing)> {
        let start = Instant::now();
        let [a, b, c] = matrices.each_ref().map(ResidentRange::of);
        let matrices = [a?, b?, c?];
        let (kernel, ran) = self.worker.call(|session| {
            let tile = if problem.reads_operands() { tile(&mut session.programs, problem)? } else { None };
            let Session { residents, programs, .. } = &mut *session;
            product::run_resident(programs, residents, problem, tile, &matrices, None)
        })?;
        Ok((kernel.into(), timing(ran, start)))
    }

    fn sgemm_resident_fused(
        &self,
        problem: &Gemm,
        matrices: [Range<'_>; 3],
        epilogue: &Launch<'_>,
    ) -> Result<(Arc<str>, Timing)> {
        let start = Instant::now();
        if problem.sizes().m * problem.sizes().n > 0 {
            self.check_terms(problem)?;
        }
        let fused = Fused::of(epilogue)?;
        let [a, b, c] = matrices.each_ref().map(ResidentRange::of);
        let matrices = [a?, b?, c?];
        let (kernel, ran) = self.worker.call(|session| {
            let tile = if problem.reads_operands() { tile(&mut session.programs, problem)? } else { None };
            let Session { residents, programs, .. } = &mut *session;
            let arguments = Arguments::new(&programs.context().clone(), residents, epilogue);
            let arguments = residents.keep_if(arguments)?;
            let finish = Some(&(&fused, &arguments));
            product::run_resident(programs, residents, problem, tile, &matrices, finish)
        })?;
        Ok((kernel.into(), timing(ran, start)))
    }

    fn memory(&self, bytes: usize) -> Result<Box<dyn EngineMemory>> {
        Ok(Box::new(memory::Memory::zeroed(&self.worker, bytes)?))
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(Arc<str>, Timing)> {
        let timing = self.launch_with(launch, Parameters::Uniform)?;
        Ok((launch.kernel().name.as_str().into(), timing))
    }
}
