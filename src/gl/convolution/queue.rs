//! Many small convolutions in one dispatch: a kernel that draws jobs from a queue until none is left.
//!
//! Sizes are read at run time, so one program serves all plans, and a plan of small jobs compiles nothing. As many
//! workgroups as a large device holds at once draw tickets, each for a few outputs of one job. On a smaller device,
//! workgroups that start later find fewer tickets or none.
//!
//! ```text
//!   the input   │ counters │ where job 0, 1, ... begin │ input 0 │ input 1 │ ...
//!   the output  │ output 0 │ output 1 │ ...
//! ```

use std::rc::Rc;
use std::time::Duration;

use super::fallback::direct_params;
use super::limits::{BIAS, INPUT, OUTPUT, PARAMS, WEIGHTS};
use super::prepared::Upload;
use crate::error::Result;
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Bind, Buffer, Program, Region};
use crate::gl::execution::budget::{DispatchBudget, KernelWork};
use crate::gl::execution::programs::Programs;
use crate::gl::tunables::{
    MAX_DRAWS, MAX_QUEUE_ITERATIONS, MAX_RESIDENT_GROUPS, MAX_TICKET_OUTPUTS, OPERATIONS_PER_OUTPUT,
};
use crate::problem::Conv2d;
use crate::shader::iterations;
use crate::shader::source::CONV_QUEUE;

/// The most dispatches that a batch may be cut into, and the number of counters at the head of its queue.
pub const COUNTERS: usize = 64;
/// Ranges of a buffer that are bound separately begin at a multiple of this, which suits any device.
const ALIGNMENT: usize = 256;
/// Invocations of a workgroup.
const THREADS: usize = 64;
/// Binding index of the queue's block.
const QUEUE: u32 = 5;
/// Uniform locations.
const FIRST: u32 = 0;
const COUNT: u32 = 1;
const COUNTER: u32 = 2;
const BLOCK: u32 = 3;
const MAX_TICKETS: u32 = 4;

/// A plan's small jobs on one context.
pub struct QueueKernel {
    problem: Conv2d,
    program: Rc<Program>,
    weights: Buffer,
    bias: Option<Buffer>,
    params: Buffer,
    budget: DispatchBudget,
    context: Rc<Context>,
}

/// Whether an invocation that makes at most `limit` iterations can compute its part of a ticket.
pub fn fits(problem: &Conv2d, limit: usize) -> bool {
    iterations::ticket(problem, MAX_TICKET_OUTPUTS) <= limit
}

/// Bytes of the queue before the inputs of `jobs` jobs.
pub fn head_bytes(jobs: usize) -> usize {
    (4 * COUNTERS + size_of::<[u32; 2]>() * jobs).next_multiple_of(ALIGNMENT)
}

impl QueueKernel {
    /// Prepares the kernel for jobs of `problem`, in dispatches that take `target`.
    ///
    /// # Errors
    /// The compiler's log; what the device lacks.
    pub fn new(
        programs: &mut Programs,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        target: Duration,
        upload: Upload,
    ) -> Result<Self> {
        let context = programs.context().clone();
        Ok(QueueKernel {
            problem: *problem,
            program: programs.kernel(CONV_QUEUE)?,
            weights: upload(weights)?,
            bias: bias.map(upload).transpose()?,
            params: Buffer::with_data(&context, &direct_params(problem))?,
            budget: DispatchBudget::with_target(target),
            context,
        })
    }

    /// The kernel's name.
    pub fn name(&self) -> &str {
        self.program.kernel_name()
    }

    /// Learns that `jobs` jobs took `took`.
    pub fn learn(&self, jobs: usize, took: Duration) {
        let (work, group) = (self.work(jobs), self.context.group());
        group.set_rate(self.budget.learn(group.rate(), &work, work.units, took));
    }

    fn work(&self, jobs: usize) -> KernelWork {
        let operations = 2.0 * self.problem.reduction() as f64 + OPERATIONS_PER_OUTPUT;
        let block = self.block(jobs);
        let tickets = jobs * self.problem.output_len().div_ceil(block);
        KernelWork { units: tickets as u32, per_group: 1, operations: block as f64 * operations }
    }

    /// Outputs of a ticket. Fewer make drawing cost more; more leave too few tickets for all workgroups.
    fn block(&self, jobs: usize) -> usize {
        let all = jobs * self.problem.output_len();
        (all / MAX_RESIDENT_GROUPS as usize)
            .next_multiple_of(THREADS)
            .clamp(THREADS, MAX_TICKET_OUTPUTS * THREADS)
    }

    /// The most tickets that a workgroup may draw.
    fn draws(&self, jobs: usize) -> u32 {
        let ticket = iterations::ticket(&self.problem, self.block(jobs).div_ceil(THREADS));
        let limit = self.context.group().max_iterations().min(MAX_QUEUE_ITERATIONS);
        (limit / ticket).clamp(1, MAX_DRAWS) as u32
    }

    fn bind(&self, input: Region, output: Region, jobs: usize) {
        let (context, head) = (&self.context, head_bytes(jobs));
        Region { bytes: head, ..input }.bind_on(context, QUEUE);
        let inputs = Region { offset: input.offset + head, bytes: input.bytes - head, ..input };
        inputs.bind_on(context, INPUT);
        output.bind_on(context, OUTPUT);
        self.params.bind(PARAMS);
        self.weights.bind(WEIGHTS);
        if let Some(bias) = &self.bias {
            bias.bind(BIAS);
        }
    }

    /// Submits the commands that compute `jobs` jobs from `input`, with the queue at its head, into `output`, and a
    /// barrier that lets later buffer copies see it. Does not wait. Returns the number of dispatches.
    ///
    /// # Errors
    /// What GL reports.
    pub fn encode(&self, input: Region, output: Region, jobs: usize) -> Result<u32> {
        let (context, work) = (&self.context, self.work(jobs));
        let api = context.api();
        api.use_program(self.program.name());
        self.bind(input, output, jobs);
        context.check("glUseProgram")?;
        let draws = self.draws(jobs);
        api.uniform_1ui(BLOCK, self.block(jobs) as u32);
        api.uniform_1ui(MAX_TICKETS, draws);
        let least = work.units.div_ceil(COUNTERS as u32);
        let slice = self.budget.slice(context.group().rate(), &work).max(least);
        let mut dispatches = 0;
        for first in (0..work.units).step_by(slice as usize) {
            let tickets = slice.min(work.units - first);
            api.uniform_1ui(FIRST, first);
            api.uniform_1ui(COUNT, tickets);
            api.uniform_1ui(COUNTER, dispatches);
            // Enough workgroups for all tickets.
            api.dispatch_compute(tickets.min(MAX_RESIDENT_GROUPS).max(tickets.div_ceil(draws)), 1, 1);
            context.check("glDispatchCompute")?;
            dispatches += 1;
        }
        api.memory_barrier(api::SHADER_STORAGE_BARRIER_BIT | api::BUFFER_UPDATE_BARRIER_BIT);
        context.check("glMemoryBarrier")?;
        Ok(dispatches)
    }
}
