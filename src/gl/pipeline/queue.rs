//! The work queue on the device: a kernel that draws the jobs of a batch until none is left.
//!
//! One program does for all plans, since it reads sizes at run time: a plan of small jobs costs no compilation. As many
//! workgroups as a large device holds at once draw tickets, each for a few outputs of one job; on a smaller device those that come
//! later find less left, or nothing.

use std::rc::Rc;
use std::time::Duration;

use super::batch::{COUNTERS, head_bytes};
use super::encode::{Encode, Shared};
use crate::backend::Recipe;
use crate::error::Result;
use crate::gl::convolution;
use crate::gl::convolution::fallback;
use crate::gl::driver::api;
use crate::gl::driver::resource::{Bind, Buffer, Program, Region};
use crate::gl::execution::dispatch::{Pace, Work};
use crate::problem::Conv2d;
use crate::shader::iterations;
use crate::shader::source::CONV_QUEUE;

/// The most workgroups of a dispatch: of 64 threads, what fills the largest devices.
const RESIDENT: u32 = 4096;
/// Threads of a workgroup.
const THREADS: usize = 64;
/// Index of the queue's block.
const QUEUE: u32 = 5;
/// Uniform locations.
const FIRST: u32 = 0;
const COUNT: u32 = 1;
const COUNTER: u32 = 2;
const BLOCK: u32 = 3;
const MOST: u32 = 4;
/// Iterations of all its loops together that an invocation should make.
const ITERATIONS: usize = 32_768;
/// The most outputs of a ticket for one invocation.
const MOST_OUTPUTS: usize = 4;
/// The most tickets that a workgroup draws.
const MOST_DRAWS: usize = 64;

/// A plan's small jobs on one context.
pub struct Queued {
    problem: Conv2d,
    program: Rc<Program>,
    weights: Buffer,
    bias: Option<Buffer>,
    params: Buffer,
    pace: Pace,
    shared: Rc<Shared>,
}

/// Whether an invocation that makes at most `most` iterations can compute its part of a ticket.
pub fn fits(problem: &Conv2d, most: usize) -> bool {
    iterations::ticket(problem, MOST_OUTPUTS) <= most
}

impl Queued {
    /// For `plan`.
    ///
    /// # Errors
    /// The compiler's log; what the device lacks.
    pub fn new(shared: &Rc<Shared>, plan: &Recipe, weights: &[f32]) -> Result<Self> {
        Ok(Queued {
            problem: plan.problem,
            program: shared.session.borrow_mut().program(CONV_QUEUE)?,
            weights: shared.upload(weights)?,
            bias: plan.bias.as_deref().map(|bias| shared.upload(bias)).transpose()?,
            params: Buffer::with_data(&shared.context, &fallback::direct_params(&plan.problem))?,
            pace: Pace::with_target(shared.target),
            shared: shared.clone(),
        })
    }

    fn work(&self, jobs: usize) -> Work {
        let operations = 2.0 * self.problem.reduction() as f64 + fallback::PER_OUTPUT;
        let block = self.block(jobs);
        let tickets = jobs * self.problem.output_len().div_ceil(block);
        Work { units: tickets as u32, per_group: 1, operations: block as f64 * operations }
    }

    /// Outputs of a ticket: with fewer, drawing costs more; with more, there are not tickets enough for all workgroups.
    fn block(&self, jobs: usize) -> usize {
        let all = jobs * self.problem.output_len();
        (all / RESIDENT as usize).next_multiple_of(THREADS).clamp(THREADS, MOST_OUTPUTS * THREADS)
    }

    /// Tickets that a workgroup may draw.
    fn draws(&self, jobs: usize) -> u32 {
        let ticket = iterations::ticket(&self.problem, self.block(jobs).div_ceil(THREADS));
        let most = self.shared.context.group().max_iterations().min(ITERATIONS);
        (most / ticket).clamp(1, MOST_DRAWS) as u32
    }

    fn bind(&self, input: Region, output: Region, jobs: usize) {
        let (context, head) = (&self.shared.context, head_bytes(jobs));
        Region { bytes: head, ..input }.bind_on(context, QUEUE);
        let inputs = Region { offset: input.offset + head, bytes: input.bytes - head, ..input };
        inputs.bind_on(context, convolution::INPUT);
        output.bind_on(context, convolution::OUTPUT);
        self.params.bind(convolution::PARAMS);
        self.weights.bind(convolution::WEIGHTS);
        if let Some(bias) = &self.bias {
            bias.bind(convolution::BIAS);
        }
    }
}

impl Encode for Queued {
    fn prepare(&self, _jobs: usize) -> Result<()> {
        Ok(())
    }

    fn encode(&self, input: Region, output: Region, jobs: usize) -> Result<u32> {
        let (context, work) = (&self.shared.context, self.work(jobs));
        let api = context.api();
        api.use_program(self.program.name());
        self.bind(input, output, jobs);
        context.check("glUseProgram")?;
        let draws = self.draws(jobs);
        api.uniform_1ui(BLOCK, self.block(jobs) as u32);
        api.uniform_1ui(MOST, draws);
        let least = work.units.div_ceil(COUNTERS as u32);
        let slice = self.pace.slice(context.group().rate(), &work).max(least);
        let mut dispatches = 0;
        for first in (0..work.units).step_by(slice as usize) {
            let tickets = slice.min(work.units - first);
            api.uniform_1ui(FIRST, first);
            api.uniform_1ui(COUNT, tickets);
            api.uniform_1ui(COUNTER, dispatches);
            // Workgroups enough for all tickets.
            api.dispatch_compute(tickets.min(RESIDENT).max(tickets.div_ceil(draws)), 1, 1);
            context.check("glDispatchCompute")?;
            dispatches += 1;
        }
        api.memory_barrier(api::SHADER_STORAGE_BARRIER_BIT | api::BUFFER_UPDATE_BARRIER_BIT);
        context.check("glMemoryBarrier")?;
        Ok(dispatches)
    }

    fn learn(&self, jobs: usize, took: Duration) {
        let (work, group) = (self.work(jobs), self.shared.context.group());
        group.set_rate(self.pace.learn(group.rate(), &work, work.units, took));
    }

    fn kernel(&self) -> &str {
        self.program.kernel_name()
    }
}
