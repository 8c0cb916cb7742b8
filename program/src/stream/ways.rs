//! The ways of `sparkle stream`. Each computes the same batches, and is timed and verified.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sparkle::device::{PipelineSlot, SlotTicket, Submitted};
use sparkle::problem::exact::Random;
use sparkle::report::PipelineStats;
use sparkle::{Contexts, Conv2d, Conv2dDesc, Conv2dPlan, Device, Order, Pipeline, PipelineOptions, WhenFull};

use crate::failure::Failure;
use crate::suite::Layer;
use crate::{memory, verify};

/// A layer with its data and its verified result.
pub struct Workload<'a> {
    device: &'a Device,
    layer: &'a Layer,
    input: Vec<f32>,
    weights: Vec<f32>,
    plan: Conv2dPlan,
    right: Vec<f32>,
    batches: usize,
    slots: usize,
    piece_bytes: usize,
}

/// What one way measured.
pub struct WayResult {
    pub way: &'static str,
    /// Wall time per batch.
    pub time: Duration,
    pub stats: Option<PipelineStats>,
    /// The share of the time in which each engine worked, if known.
    pub busy: Option<[f64; 3]>,
    /// The median time that submitting one job took the calling thread.
    pub submit: Option<Duration>,
    /// Only for ways that make one call per batch.
    pub calls: Option<Calls>,
}

/// How long single calls took, in milliseconds.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Calls {
    pub least: f64,
    pub median: f64,
    /// Nine of ten calls took no longer.
    pub ninth_decile: f64,
    pub longest: f64,
}

impl Calls {
    /// From at least one time.
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let [least, median, ninth_decile, longest] = [0, 5, 9, 10]
            .map(|tenths| times[(times.len() * tenths).div_ceil(10).max(1) - 1].as_secs_f64() * 1e3);
        Calls { least, median, ninth_decile, longest }
    }
}

/// How much is streamed, and how.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Batches per way.
    pub batches: usize,
    /// Slots of the pipelines.
    pub slots: usize,
    /// The largest piece of a batch from ordinary memory.
    pub piece_bytes: usize,
}

impl<'a> Workload<'a> {
    /// Computes the layer once, and compares its first and last image with the oracle.
    ///
    /// # Errors
    /// A wrong result; a device failure.
    pub fn new(settings: Settings, device: &'a Device, layer: &'a Layer) -> Result<Self, Failure> {
        let problem = &layer.problem;
        verify::check_memory(problem)?;
        let mut random = Random::new(problem.flops());
        let input = memory::reals("the input", &mut random, problem.input_len())?;
        let weights = memory::reals("the weights", &mut random, problem.weights_len())?;
        let plan = device.plan(problem, &weights, None)?;
        let mut right = memory::unwritten(problem.output_len())?;
        plan.run(&input, &mut right)?;
        let Settings { batches, slots, piece_bytes } = settings;
        let work = Workload { device, layer, input, weights, plan, right, batches, slots, piece_bytes };
        for image in [0, problem.sizes().n - 1] {
            work.check_image(&work.right, image)?;
        }
        Ok(work)
    }

    fn problem(&self) -> &Conv2d {
        &self.layer.problem
    }

    /// Compares one image of a batch with the oracle.
    fn check_image(&self, output: &[f32], image: usize) -> Result<(), Failure> {
        let one = one_image(self.problem())?;
        let input = &self.input[image * one.input_len()..][..one.input_len()];
        let output = &output[image * one.output_len()..][..one.output_len()];
        let verdict = verify::conv2d(&one, (input, &self.weights, None), output)?;
        verdict.complaint().map_or(Ok(()), |wrong| Err(Failure::Wrong(format!("image {image}: {wrong}"))))
    }

    /// Checks a result: its images equal those of the verified call, or agree with the oracle.
    fn check(&self, output: &[f32]) -> Result<(), Failure> {
        let image = output.len() / self.problem().sizes().n;
        let wrong = |(index, (got, right)): (usize, (&[f32], &[f32]))| {
            let same = got.iter().zip(right).all(|(got, right)| got.to_bits() == right.to_bits());
            (!same).then_some(index)
        };
        let images = output.chunks(image).zip(self.right.chunks(image)).enumerate();
        images.filter_map(wrong).try_for_each(|index| self.check_image(output, index))
    }

    /// A way that makes one call per batch. The call is repeated for 0.4 s, and then timed for each batch.
    fn by_calls(
        &self,
        way: &'static str,
        mut call: impl FnMut(&mut [f32]) -> sparkle::Result<()>,
    ) -> Result<WayResult, Failure> {
        let mut output = memory::unwritten(self.problem().output_len())?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(400) {
            call(&mut output)?;
        }
        let mut each = memory::reserved("times of batches", self.batches)?;
        let mut start = Instant::now();
        for _ in 0..self.batches {
            call(&mut output)?;
            let end = Instant::now();
            each.push(end - start);
            start = end;
        }
        self.check(&output)?;
        let time = each.iter().sum::<Duration>() / self.batches as u32;
        Ok(WayResult { way, time, stats: None, busy: None, submit: None, calls: Some(Calls::new(each)) })
    }

    /// The reference framework's way; `None` where it is not possible.
    pub fn reference(&self, way: &'static str) -> Result<Option<WayResult>, Failure> {
        let Some(index) = self.device.id().strip_prefix("gl:").and_then(|index| index.parse().ok()) else {
            return Ok(None);
        };
        let data = (&self.input[..], &self.weights[..], None);
        let call = |output: &mut [f32]| sparkle::lab::baseline::conv2d(index, self.problem(), data, output);
        // The reference's way cannot compute a batch that does not fit into its buffers.
        let first = call(&mut memory::unwritten(self.problem().output_len())?);
        if matches!(first, Err(sparkle::Error::Unsupported { .. })) {
            return Ok(None);
        }
        self.by_calls(way, call).map(Some)
    }

    pub fn one_shot(&self, way: &'static str) -> Result<WayResult, Failure> {
        let conv2d = |output: &mut [f32]| {
            self.device.conv2d(self.problem(), &self.input, &self.weights, None, output).map(|_| ())
        };
        self.by_calls(way, conv2d)
    }

    pub fn prepared(&self, way: &'static str) -> Result<WayResult, Failure> {
        self.by_calls(way, |output| self.plan.run(&self.input, output).map(|_| ()))
    }

    fn pipeline(&self, contexts: Contexts, order: Order) -> Result<Pipeline, Failure> {
        Ok(self.device.pipeline(PipelineOptions {
            slots: self.slots,
            piece_bytes: self.piece_bytes,
            contexts,
            order,
            ..Default::default()
        })?)
    }

    pub fn through_memory(
        &self,
        way: &'static str,
        contexts: Contexts,
        order: Order,
    ) -> Result<WayResult, Failure> {
        let pipeline = self.pipeline(contexts, order)?;
        let submit = |(input, output)| pipeline.submit(&self.plan, input, output, WhenFull::Wait);
        let fresh = || -> Result<Submitted, Failure> {
            let input = memory::copied("another input", &self.input)?;
            Ok(submit((input, memory::unwritten(self.problem().output_len())?))?)
        };
        let mut in_flight: VecDeque<Submitted> =
            (0..self.slots + 2).map(|_| fresh()).collect::<Result<_, _>>()?;
        let mut submits = vec![];
        let mut next = || -> Result<(), Failure> {
            let done = in_flight.pop_front().expect("jobs are in flight").wait()?;
            // The queue has room for all jobs, so this never waits for the device.
            let start = Instant::now();
            in_flight.push_back(submit((done.input, done.output))?);
            memory::push("times of batches", &mut submits, start.elapsed())?;
            Ok(())
        };
        let (time, stats, busy) = self.time_and_stats(&pipeline, &mut next)?;
        in_flight.into_iter().try_for_each(|job| self.check(&job.wait()?.output))?;
        submits.sort_unstable();
        Ok(WayResult {
            way,
            time,
            stats: Some(stats),
            busy: Some(busy),
            submit: submits.get(submits.len() / 2).copied(),
            calls: None,
        })
    }

    pub fn in_place(
        &self,
        way: &'static str,
        contexts: Contexts,
        order: Order,
    ) -> Result<WayResult, Failure> {
        let pipeline = self.pipeline(contexts, order)?;
        let filled = || -> Result<PipelineSlot, Failure> {
            let mut slot = pipeline.acquire(&self.plan, WhenFull::Wait)?;
            slot.input().copy_from_slice(&self.input);
            Ok(slot)
        };
        let slots = (0..self.slots).map(|_| filled()).collect::<Result<Vec<_>, _>>()?;
        let mut in_flight: VecDeque<SlotTicket> =
            slots.into_iter().map(PipelineSlot::submit).collect::<Result<_, _>>()?;
        let mut next = || -> Result<(), Failure> {
            let (_, slot) = in_flight.pop_front().expect("jobs are in flight").wait()?;
            in_flight.push_back(slot.submit()?);
            Ok(())
        };
        let (time, stats, busy) = self.time_and_stats(&pipeline, &mut next)?;
        in_flight.into_iter().try_for_each(|job| self.check(job.wait()?.1.output()))?;
        Ok(WayResult { way, time, stats: Some(stats), busy: Some(busy), submit: None, calls: None })
    }

    /// The time per batch, the pipeline's figures for the timed batches, and the share of the time in which each
    /// engine worked.
    fn time_and_stats(
        &self,
        pipeline: &Pipeline,
        next: &mut dyn FnMut() -> Result<(), Failure>,
    ) -> Result<(Duration, PipelineStats, [f64; 3]), Failure> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(400) {
            next()?;
        }
        let (before, start) = (pipeline.stats(), Instant::now());
        (0..self.batches).try_for_each(|_| next())?;
        let time = start.elapsed();
        let after = pipeline.stats();
        let busy = [0, 1, 2].map(|engine| after.busy[engine] - before.busy[engine]);
        let stats = PipelineStats { busy, pieces: after.pieces - before.pieces, ..after };
        Ok((time / self.batches as u32, stats, after.utilisation_since(&before)))
    }
}

/// The convolution of one image of `problem`, which comes from a suite.
fn one_image(problem: &Conv2d) -> Result<Conv2d, Failure> {
    let sizes = problem.sizes();
    let desc = Conv2dDesc {
        n: 1,
        c: sizes.c as i64,
        h: sizes.h as i64,
        w: sizes.w as i64,
        k: sizes.k as i64,
        r: sizes.r as i64,
        s: sizes.s as i64,
        stride_h: sizes.stride_h as i64,
        stride_w: sizes.stride_w as i64,
        pad_h: sizes.pad_h as i64,
        pad_w: sizes.pad_w as i64,
        dilation_h: sizes.dilation_h as i64,
        dilation_w: sizes.dilation_w as i64,
        groups: sizes.groups as i64,
        ..Default::default()
    };
    Ok(Conv2d::new(desc)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_calls_that_were_timed() {
        let calls = |ms: &[u64]| {
            let Calls { least, median, ninth_decile, longest } =
                Calls::new(ms.iter().map(|ms| Duration::from_millis(*ms)).collect());
            [least, median, ninth_decile, longest]
        };
        assert_eq!(calls(&[7]), [7.0; 4]);
        assert_eq!(calls(&[5, 1, 4, 2, 3]), [1.0, 3.0, 5.0, 5.0]);
        let twenty: Vec<u64> = (1..=20).rev().collect();
        assert_eq!(calls(&twenty), [1.0, 10.0, 18.0, 20.0]);
    }
}
