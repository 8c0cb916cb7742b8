//! A convolution prepared on several devices: a plan for each device's share.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::Multi;
use super::calls::{each_image, part_of};
use super::learner::Split;
use super::learners::Shares;
use super::parts::{ConvPiece, Piece};
use super::together::lock;
use crate::allocate;
use crate::backend::{Dimension, Run};
use crate::device::call;
use crate::device::engine_plan::EnginePlan;
use crate::device::predict::conv2d_seconds;
use crate::error::Result;
use crate::problem::Conv2d;

/// The most plans that a member keeps: of its present share, and of shares that were tried lately.
const MAX_KEPT: usize = 4;

/// The plan.
pub struct MultiPlan {
    multi: Arc<Multi>,
    problem: Conv2d,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    shares: Shares,
    /// The plans of each member, the last one used at the end.
    kept: Vec<Mutex<Vec<KeptPlan>>>,
    /// The plan of each member for whole jobs of a pipeline, made when it gets the first.
    whole: Vec<Mutex<Option<Arc<EnginePlan>>>>,
}

/// The plan of a share: of any images of that number, or of these channels.
struct KeptPlan {
    first: usize,
    count: usize,
    plan: Arc<EnginePlan>,
}

impl MultiPlan {
    /// Prepares the shares that the first run will probably have.
    ///
    /// # Errors
    /// Out of memory. A member that cannot prepare its share takes no part; if none can, the error of the last one.
    pub fn new(multi: &Arc<Multi>, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        let plan = MultiPlan {
            multi: multi.clone(),
            problem: *problem,
            weights: allocate::copied(weights, "a copy of the weights")?,
            bias: bias.map(|bias| allocate::copied(bias, "a copy of the bias")).transpose()?,
            shares: multi.shares_of_conv2d(problem),
            kept: multi.members.iter().map(|_| Mutex::default()).collect(),
            whole: multi.members.iter().map(|_| Mutex::default()).collect(),
        };
        let present = multi.present();
        if let Some(split) = multi.preview(&plan.shares, &present) {
            plan.prepare(split, &present)?;
        }
        Ok(plan)
    }

    /// Makes the plans of a split that do not exist. Returns the split, or another one if a member could not make its
    /// plan; `None` if no member can.
    ///
    /// # Errors
    /// The last member's failure if none can make a plan, and errors that are no device's failure.
    fn prepare(&self, mut split: Split, present: &[bool]) -> Result<Option<Split>> {
        let mut present = present.to_vec();
        loop {
            let mut first = 0;
            let mut failure = None;
            for (member, &units) in split.counts.iter().enumerate().filter(|(_, units)| **units > 0) {
                let count = self.shares.axis.span(units).min(self.shares.axis.len - first);
                if let Err(error) = self.plan_for(member, first, count) {
                    failure = Some((member, error));
                    break;
                }
                first += count;
            }
            let Some((member, error)) = failure else { return Ok(Some(split)) };
            self.multi.lost(&self.multi.members[member], error.clone())?;
            self.multi.exclude(&self.shares, member);
            present[member] = false;
            match self.multi.divide(&self.shares, &present, self.shares.axis.units()) {
                Some(other) => split = other,
                None => return Err(error),
            }
        }
    }

    /// The plan of `member` for a share.
    ///
    /// # Errors
    /// The device's failure.
    fn plan_for(&self, member: usize, first: usize, count: usize) -> Result<Arc<EnginePlan>> {
        // All shares of the images have the same weights.
        let first = if self.shares.axis.dimension == Dimension::Images { 0 } else { first };
        let find = |kept: &mut Vec<KeptPlan>| {
            let index = kept.iter().position(|it| it.first == first && it.count == count)?;
            let found = kept.remove(index);
            let plan = found.plan.clone();
            kept.push(found);
            Some(plan)
        };
        if let Some(plan) = find(&mut lock(&self.kept[member])) {
            return Ok(plan);
        }
        let dimension = self.shares.axis.dimension;
        let piece = ConvPiece::of_range(&self.problem, self.shares.axis, first, count);
        let (part, (weights, bias)) =
            part_of(&self.problem, dimension, (&self.weights, self.bias.as_deref()), &piece);
        let backend = &self.multi.members[member].backend;
        let plan = match self.multi.keeps_bits(dimension) {
            true => backend.plan_images(&self.problem, &part, weights, bias)?,
            false => backend.plan_conv2d(&part, weights, bias)?,
        };
        let plan = Arc::new(EnginePlan::with_plan(backend, plan));
        let mut kept = lock(&self.kept[member]);
        if let Some(plan) = find(&mut kept) {
            // Another thread was faster.
            return Ok(plan);
        }
        if kept.len() == MAX_KEPT {
            kept.remove(0);
        }
        allocate::push(&mut kept, KeptPlan { first, count, plan: plan.clone() }, "a plan")?;
        Ok(plan)
    }

    /// The plan of `member` for the whole problem.
    ///
    /// # Errors
    /// The device's failure.
    pub fn whole(&self, member: usize) -> Result<Arc<EnginePlan>> {
        let mut whole = lock(&self.whole[member]);
        if let Some(plan) = &*whole {
            return Ok(plan.clone());
        }
        let backend = &self.multi.members[member].backend;
        let plan = EnginePlan::new(backend, &self.problem, &self.weights, self.bias.as_deref())?;
        Ok(whole.insert(Arc::new(plan)).clone())
    }

    /// The predicted seconds of the whole problem on `member`; infinite if it cannot be measured.
    pub fn seconds(&self, member: usize) -> f64 {
        let seconds = conv2d_seconds(&*self.multi.members[member].backend, &self.problem);
        seconds.unwrap_or(f64::INFINITY)
    }

    /// The device that it was made on.
    pub fn multi(&self) -> &Arc<Multi> {
        &self.multi
    }

    /// Computes the whole problem without `member`, which has failed with `error`: on the other members in turn, and at
    /// last on the CPU.
    ///
    /// # Errors
    /// `error` if it is no device's failure; the CPU's failure.
    pub fn run_without(
        &self,
        member: usize,
        error: crate::Error,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<Run> {
        let reason = self.multi.lost(&self.multi.members[member], error)?;
        for (index, other) in self.multi.members.iter().enumerate().filter(|(index, _)| *index != member) {
            if other.is_away() {
                continue;
            }
            match self.whole(index).and_then(|plan| plan.run(input, output, Some(reason.clone()))) {
                Ok(run) => return Ok(run),
                Err(error) => drop(self.multi.lost(other, error)?),
            }
        }
        let data = (&self.weights[..], self.bias.as_deref());
        let run = call::once(&self.multi.cpu(), &self.problem.once(), data, input, output)?;
        Ok(Run { fallback: Some(reason), ..run })
    }

    /// Bytes that the plans of the shares and the copies of the weights hold.
    pub fn packed_bytes(&self) -> usize {
        let copies = (self.weights.len() + self.bias.as_ref().map_or(0, Vec::len)) * size_of::<f32>();
        copies + self.sum(|plan| plan.memory().packed)
    }

    /// Workspace of the plans of the shares.
    pub fn workspace_bytes(&self) -> usize {
        self.sum(|plan| plan.memory().workspace)
    }

    fn sum(&self, bytes: impl Fn(&EnginePlan) -> usize) -> usize {
        let shares = self.kept.iter().map(|kept| lock(kept).iter().map(|it| bytes(&it.plan)).sum::<usize>());
        let whole = self.whole.iter().map(|whole| lock(whole).as_ref().map_or(0, |plan| bytes(plan)));
        shares.sum::<usize>() + whole.sum::<usize>()
    }

    /// Runs it. Both buffers have been checked.
    ///
    /// # Errors
    /// The CPU's failure after all members have failed.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Run> {
        let (multi, problem, shares) = (&*self.multi, &self.problem, &self.shares);
        let data = (&self.weights[..], self.bias.as_deref());
        if let Some(forked) = multi.forked() {
            let run = call::once(&multi.cpu(), &problem.once(), data, input, output)?;
            return Ok(Run { fallback: Some(forked.to_string().into()), ..run });
        }
        let present = multi.present();
        let split = match multi.choose(shares, &present) {
            Some(split) => self.prepare(split, &present).unwrap_or_default(),
            None => None,
        };
        let start = Instant::now();
        let compute = |member: Option<usize>, piece: &mut ConvPiece| {
            let Some(member) = member else {
                let (part, data) = part_of(problem, shares.axis.dimension, data, piece);
                let (cpu, begin) = (multi.cpu(), Instant::now());
                let run =
                    each_image(piece, |input, output| call::once(&cpu, &part.once(), data, input, output))?;
                return Ok((run, begin.elapsed().as_secs_f64()));
            };
            let (first, count) = piece.range();
            let plan = self.plan_for(member, first, count)?;
            let begin = Instant::now();
            let run = each_image(piece, |input, output| plan.run(input, output, None))?;
            Ok((run, begin.elapsed().as_secs_f64()))
        };
        let mut whole = ConvPiece::whole(problem, shares.axis, input, output);
        let Some(split) = split else { return compute(None, &mut whole).map(|it| it.0) };
        let divide = |available: &[bool], units: usize| multi.divide(shares, available, units);
        let outcome = multi.together(whole, split, &divide, &compute)?;
        let wall = start.elapsed();
        multi.learn(shares, &outcome, wall.as_secs_f64());
        Ok(multi.report(shares.axis, outcome, wall))
    }
}
