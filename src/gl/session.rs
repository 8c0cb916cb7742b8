//! What lives beside a context: the programs built so far and the convolutions prepared on it.
//!
//! All of it is gone when a context is lost; whoever holds a plan holds what it takes to prepare it again.

use std::collections::HashMap;
use std::rc::Rc;

use super::context::Context;
use super::conv2d::{self, Prepared};
use super::passes::Passes;
use super::rates;
use super::resource::Program;
use crate::error::{Error, Result};
use crate::log::Level;
use crate::memory::tiles::Gpu;
use crate::problem::Conv2d;
use crate::shader::recipe::{self, Source};
use crate::shader::source::Kernel;
use crate::shader::variant::{self, Variant};

/// Generated programs that a session keeps beyond those in use.
const KEPT: usize = 256;

/// A context with its programs and prepared convolutions.
pub struct Session {
    prepared: HashMap<u64, Prepared>,
    programs: HashMap<&'static str, Rc<Program>>,
    generated: HashMap<Source, Rc<Program>>,
    context: Rc<Context>,
}

impl Session {
    /// A session with nothing in it yet.
    pub fn new(context: Rc<Context>) -> Self {
        Session { prepared: HashMap::new(), programs: HashMap::new(), generated: HashMap::new(), context }
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
        let program = Rc::new(Program::kernel(&self.context, kernel)?);
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
        let program = Rc::new(Program::build(&self.context, &source.name, &source.text)?);
        if self.generated.len() >= KEPT {
            self.generated.clear();
        }
        self.generated.insert(source.clone(), program.clone());
        Ok(program)
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
        let images = conv2d::images_at_once(&self.context, problem)?;
        let mut refused = None;
        for variant in self.candidates(&problem.with_batch(images))? {
            match self.prepare_variant(&variant, problem, weights, bias) {
                // A driver may fail at one shader and compile the next.
                Err(error @ (Error::Shader { .. } | Error::OutOfMemory { .. }))
                    if variant != Variant::DIRECT =>
                {
                    self.context.note(Level::Warn, format_args!("{variant}: {error}"));
                    refused = Some(error);
                }
                other => return other,
            }
        }
        Err(refused.unwrap_or_else(|| self.no_winograd()))
    }

    /// The way that the planner likes best; nothing is built.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn choose(&mut self, problem: &Conv2d) -> Result<Variant> {
        let images = conv2d::images_at_once(&self.context, problem)?;
        let best = self.candidates(&problem.with_batch(images))?.into_iter().next();
        best.ok_or_else(|| self.no_winograd())
    }

    fn no_winograd(&self) -> Error {
        let what =
            "Winograd's algorithm, except for 3x3 kernels with stride and dilation 1 and one group".into();
        Error::Unsupported { device: self.context.device().to_owned(), what }
    }

    /// Ways to compute `problem`, best first.
    fn candidates(&mut self, problem: &Conv2d) -> Result<Vec<Variant>> {
        if variant::is_small(problem) {
            // No rate of the device would change that; so none needs to be measured.
            return Ok(vec![Variant::DIRECT]);
        }
        Ok(variant::candidates(problem, &self.gpu()?))
    }

    /// The device as the planner sees it, measured at first use.
    ///
    /// # Errors
    /// What the device failed to do.
    pub fn gpu(&mut self) -> Result<Gpu> {
        if let Some(gpu) = self.context.group().gpu().get() {
            return Ok(*gpu);
        }
        let gpu = rates::measure(self)?;
        self.context.note(Level::Debug, format_args!("{}: measured {gpu:?}", self.context.device()));
        Ok(*self.context.group().gpu().get_or_init(|| gpu))
    }

    fn prepare_direct(
        &mut self,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Prepared> {
        let program = self.program(conv2d::kernel(problem))?;
        Prepared::new(&self.context, program, problem, weights, bias)
    }

    /// The convolution kept under `key`. It leaves the session: one that failed is not put back.
    pub fn take(&mut self, key: u64) -> Option<Prepared> {
        self.prepared.remove(&key)
    }

    /// Keeps a convolution under `key`.
    pub fn keep(&mut self, key: u64, prepared: Prepared) {
        self.prepared.insert(key, prepared);
    }
}
