//! Convolutions and products in one call.

use std::sync::Arc;
use std::time::Instant;

use super::Multi;
use super::learners::Shares;
use super::parts::{ConvPiece, GemmPiece, conv2d_part, weights_of};
use super::together::merged;
use crate::backend::{Backend, Dimension, Run};
use crate::device::call;
use crate::device::engine_plan::EnginePlan;
use crate::error::Result;
use crate::problem::{Conv2d, Gemm};

impl Multi {
    /// The engine of a member, or the CPU in place of all.
    pub(super) fn engine(&self, member: Option<usize>) -> Arc<dyn Backend> {
        member.map_or_else(|| self.cpu(), |index| self.members[index].backend.clone())
    }

    /// Computes one convolution, which is no empty batch. All buffers have been checked.
    ///
    /// # Errors
    /// The CPU's failure after all members have failed.
    pub fn conv2d(
        &self,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        input: &[f32],
        output: &mut [f32],
    ) -> Result<Run> {
        let start = Instant::now();
        if let Some(forked) = self.forked() {
            let run = call::once(&self.cpu(), problem, (weights, bias), input, output)?;
            return Ok(Run { fallback: Some(forked.to_string().into()), ..run });
        }
        let shares = self.shares_of_conv2d(problem);
        let compute = |member: Option<usize>, piece: &mut ConvPiece| {
            let (begin, backend) = (Instant::now(), self.engine(member));
            let data = part_of(problem, shares.axis.dimension, (weights, bias), piece);
            let run = each_image(piece, |input, output| {
                // The CPU's bits do not depend on the number of images.
                if !self.keeps_bits(shares.axis.dimension) || backend.id() == "cpu" {
                    return call::once(&backend, &data.0, data.1, input, output);
                }
                let plan = backend.plan_images(problem, &data.0, data.1.0, data.1.1)?;
                EnginePlan::with_plan(&backend, plan).run(input, output, None)
            })?;
            Ok((run, begin.elapsed().as_secs_f64()))
        };
        let whole = ConvPiece::whole(problem, shares.axis, input, output);
        self.cooperate(&shares, start, whole, compute)
    }

    /// Computes a product. All matrices have been checked.
    ///
    /// # Errors
    /// As [`Multi::conv2d`].
    pub fn sgemm(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<Run> {
        let start = Instant::now();
        let on = |backend: &Arc<dyn Backend>, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]| {
            let (kernel, timing) = backend.sgemm(problem, a, b, c)?;
            Ok(Run::new(backend.shared_id(), kernel, timing, None))
        };
        if let Some(forked) = self.forked() {
            let run = on(&self.cpu(), problem, a, b, c)?;
            return Ok(Run { fallback: Some(forked.to_string().into()), ..run });
        }
        if !problem.reads_operands() {
            return on(&self.cpu(), problem, a, b, c);
        }
        let shares = self.shares_of_gemm(problem);
        let compute = |member: Option<usize>, piece: &mut GemmPiece| {
            let (begin, backend) = (Instant::now(), self.engine(member));
            let run = on(&backend, &piece.problem, piece.a, piece.b, piece.c)?;
            Ok((run, begin.elapsed().as_secs_f64()))
        };
        let whole = GemmPiece::whole(problem, shares.axis, a, b, c);
        self.cooperate(&shares, start, whole, compute)
    }

    /// Chooses shares, computes them, learns from that and reports it.
    fn cooperate<P: super::parts::Piece>(
        &self,
        shares: &Shares,
        start: Instant,
        mut whole: P,
        compute: impl Fn(Option<usize>, &mut P) -> Result<(Run, f64)> + Sync,
    ) -> Result<Run> {
        let Some(split) = self.choose(shares, &self.present()) else {
            return compute(None, &mut whole).map(|it| it.0);
        };
        let divide = |available: &[bool], units: usize| self.divide(shares, available, units);
        let outcome = self.together(whole, split, &divide, &compute)?;
        let wall = start.elapsed();
        self.learn(shares, &outcome, wall.as_secs_f64());
        Ok(self.report(shares.axis, outcome, wall))
    }
}

/// Weights and bias.
pub type Data<'a> = (&'a [f32], Option<&'a [f32]>);

/// The convolution of a piece, with its weights and its bias.
pub fn part_of<'a>(
    problem: &Conv2d,
    dimension: Dimension,
    (weights, bias): Data<'a>,
    piece: &ConvPiece,
) -> (Conv2d, Data<'a>) {
    let (part, _) = conv2d_part(problem, dimension, piece.count);
    if dimension == Dimension::Images {
        return (part, (weights, bias));
    }
    let bias = bias.map(|bias| &bias[piece.first..][..piece.count]);
    (part, (weights_of(problem, weights, piece.first, piece.count), bias))
}

/// Runs `run` for each buffer of a piece.
///
/// # Errors
/// The first error of `run`.
pub fn each_image(
    piece: &mut ConvPiece,
    mut run: impl FnMut(&[f32], &mut [f32]) -> Result<Run>,
) -> Result<Run> {
    let mut all: Option<Run> = None;
    for (input, output) in &mut piece.buffers {
        let next = run(input, output)?;
        all = Some(match all {
            Some(first) => merged(first, next),
            None => next,
        });
    }
    all.ok_or_else(|| crate::Error::Internal("a share without images".to_owned()))
}
