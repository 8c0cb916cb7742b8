//! `sparkle stream`: many batches of a layer, one after the other and in flight at once, beside the bound of the machine.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sparkle::device::{PipelineSlot, SlotTicket, Submitted};
use sparkle::problem::exact::Random;
use sparkle::report::PipelineStats;
use sparkle::{Contexts, Conv2d, Conv2dDesc, Conv2dPlan, Device, Order, Pipeline, PipelineOptions, Pressure};

use crate::console::Console;
use crate::device::DeviceOption;
use crate::failure::Failure;
use crate::suite::{self, Layer};
use crate::{files, verify};

/// Stream batches of every layer of a suite through a device, in several ways.
///
/// one-shot: buffers made, filled, computed and read for each batch, one after the other, as the reference framework
/// does it. prepared: the same with a plan. one context, three contexts: a pipeline, from ordinary memory. in place:
/// from and in the pipeline's own slots; in place, one context: the three steps cannot overlap, which gives the time of
/// each step alone. The bound is the slowest of those. Times are wall time a batch, after 0.4 s of the same work; busy is
/// the part of that time in which each engine was at work. Every way's results are verified.
#[derive(clap::Args)]
pub struct Args {
    /// Layers: a CSV file with the columns name,N,C,H,W,K,kernel,stride,pad
    #[arg(long, value_name = "FILE")]
    suite: PathBuf,
    #[command(flatten)]
    device: DeviceOption,
    /// Only layers whose name contains this
    #[arg(long, value_name = "TEXT")]
    layer: Option<String>,
    /// Batches a way
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    batches: u32,
    /// Slots of the pipelines
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    slots: u32,
    /// Images a batch, instead of the suite's N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=i64::from(i32::MAX)))]
    batch: Option<i64>,
    /// Write a JSON report to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One way's figures on one layer.
#[derive(serde::Serialize)]
struct Row {
    name: String,
    way: &'static str,
    /// Wall time a batch.
    ms: f64,
    /// The slowest step alone.
    bound_ms: f64,
    share_of_bound: f64,
    over_one_shot: f64,
    /// Upload, compute, download; none for ways without a pipeline.
    busy: Option<[f64; 3]>,
}

/// A layer with its data and its right result.
struct Work<'a> {
    device: &'a Device,
    layer: &'a Layer,
    input: Vec<f32>,
    weights: Vec<f32>,
    plan: Conv2dPlan,
    right: Vec<f32>,
    batches: usize,
    slots: usize,
}

/// What a way took a batch.
struct Took {
    way: &'static str,
    time: Duration,
    stats: Option<PipelineStats>,
}

/// Runs the command.
///
/// # Errors
/// A bad suite; a wrong result; a device failure.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    args.json.as_deref().map_or(Ok(()), files::check_target)?;
    let mut layers = suite::read(&args.suite, args.batch)?;
    layers.retain(|layer| args.layer.as_ref().is_none_or(|text| layer.name.contains(text.as_str())));
    if layers.is_empty() {
        return Err(Failure::Input(format!("{}: no layer of that name", args.suite.display())));
    }
    let device = args.device.open()?;
    let titles = ["ms/batch", "of bound", "x one-shot", "busy: up", "compute", "down"];
    console.line(line("layer", "way", titles.map(str::to_owned)));
    let mut rows = vec![];
    for layer in &layers {
        let new = measured(args, &device, layer).map_err(|failure| failure.at(&layer.name))?;
        new.iter().for_each(|row| print(console, row));
        rows.extend(new);
    }
    if let Some(path) = &args.json {
        files::write(path, |file| Ok(serde_json::to_writer_pretty(file, &rows)?))?;
    }
    Ok(())
}

fn measured(args: &Args, device: &Device, layer: &Layer) -> Result<Vec<Row>, Failure> {
    let work = Work::new(args, device, layer)?;
    let alone = work.in_place("in place, one context", Contexts::One, Order::Device)?;
    let took = [
        work.one_shot()?,
        work.prepared()?,
        work.through_memory("one context", Contexts::One, Order::Device)?,
        work.through_memory("three contexts", Contexts::Three, Order::Device)?,
        work.through_memory("three, host order", Contexts::Three, Order::Host)?,
        alone,
        work.in_place("in place", Contexts::Three, Order::Device)?,
        work.in_place("in place, host order", Contexts::Three, Order::Host)?,
    ];
    // In one context nothing overlaps, so that this is each step's time by itself.
    let stats = took[5].stats.expect("a pipeline has figures");
    let steps = stats.busy.map(|busy| busy.as_secs_f64() / stats.pieces.max(1) as f64);
    let bound = steps.into_iter().fold(0.0, f64::max);
    let one_shot = took[0].time.as_secs_f64();
    let row = |took: &Took| {
        let time = took.time.as_secs_f64();
        Row {
            name: layer.name.clone(),
            way: took.way,
            ms: time * 1e3,
            bound_ms: bound * 1e3,
            share_of_bound: bound / time,
            over_one_shot: one_shot / time,
            busy: took.stats.map(|stats| stats.utilisation()),
        }
    };
    Ok(took.iter().map(row).collect())
}

impl<'a> Work<'a> {
    /// Computes the layer once and verifies that: its first and its last image against the oracle, element by element.
    fn new(args: &Args, device: &'a Device, layer: &'a Layer) -> Result<Self, Failure> {
        let problem = &layer.problem;
        verify::check_memory(problem)?;
        let mut random = Random::new(problem.flops());
        let (input, weights) = (random.reals(problem.input_len()), random.reals(problem.weights_len()));
        let plan = device.plan(problem, &weights, None)?;
        let mut right = verify::unwritten(problem.output_len());
        plan.run(&input, &mut right)?;
        let (batches, slots) = (args.batches as usize, args.slots as usize);
        let work = Work { device, layer, input, weights, plan, right, batches, slots };
        for image in [0, problem.sizes().n - 1] {
            work.check_image(&work.right, image)?;
        }
        Ok(work)
    }

    fn problem(&self) -> &Conv2d {
        &self.layer.problem
    }

    /// One image of a batch against the oracle.
    fn check_image(&self, output: &[f32], image: usize) -> Result<(), Failure> {
        let one = one_image(self.problem())?;
        let input = &self.input[image * one.input_len()..][..one.input_len()];
        let output = &output[image * one.output_len()..][..one.output_len()];
        let verdict = verify::conv2d(&one, (input, &self.weights, None), output);
        verdict.complaint().map_or(Ok(()), |wrong| Err(Failure::Wrong(format!("image {image}: {wrong}"))))
    }

    /// A result is that of the verified call, or as right as that.
    fn check(&self, output: &[f32]) -> Result<(), Failure> {
        let image = output.len() / self.problem().sizes().n;
        let wrong = |(index, (got, right)): (usize, (&[f32], &[f32]))| {
            let same = got.iter().zip(right).all(|(got, right)| got.to_bits() == right.to_bits());
            (!same).then_some(index)
        };
        let images = output.chunks(image).zip(self.right.chunks(image)).enumerate();
        images.filter_map(wrong).try_for_each(|index| self.check_image(output, index))
    }

    /// Does the same again for 0.4 s, then as often as asked for: the time of one.
    fn time(&self, mut batch: impl FnMut() -> Result<(), Failure>) -> Result<Duration, Failure> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(400) {
            batch()?;
        }
        let start = Instant::now();
        (0..self.batches).try_for_each(|_| batch())?;
        Ok(start.elapsed() / self.batches as u32)
    }

    fn one_shot(&self) -> Result<Took, Failure> {
        let mut output = verify::unwritten(self.problem().output_len());
        let time = self.time(|| {
            self.device.conv2d(self.problem(), &self.input, &self.weights, None, &mut output)?;
            Ok(())
        })?;
        self.check(&output)?;
        Ok(Took { way: "one-shot", time, stats: None })
    }

    fn prepared(&self) -> Result<Took, Failure> {
        let mut output = verify::unwritten(self.problem().output_len());
        let time = self.time(|| {
            self.plan.run(&self.input, &mut output)?;
            Ok(())
        })?;
        self.check(&output)?;
        Ok(Took { way: "prepared", time, stats: None })
    }

    fn pipeline(&self, contexts: Contexts, order: Order) -> Result<Pipeline, Failure> {
        Ok(self.device.pipeline(PipelineOptions {
            slots: self.slots,
            contexts,
            order,
            ..Default::default()
        })?)
    }

    fn through_memory(&self, way: &'static str, contexts: Contexts, order: Order) -> Result<Took, Failure> {
        let pipeline = self.pipeline(contexts, order)?;
        let buffers = || (self.input.clone(), verify::unwritten(self.problem().output_len()));
        let submit = |(input, output)| pipeline.submit(&self.plan, input, output, Pressure::Wait);
        let mut flying: VecDeque<Submitted> =
            (0..self.slots + 2).map(|_| submit(buffers())).collect::<Result<_, _>>()?;
        let mut next = || -> Result<(), Failure> {
            let done = flying.pop_front().expect("jobs are in flight").wait()?;
            flying.push_back(submit((done.input, done.output))?);
            Ok(())
        };
        let (time, stats) = self.time_and_stats(&pipeline, &mut next)?;
        flying.into_iter().try_for_each(|job| self.check(&job.wait()?.output))?;
        Ok(Took { way, time, stats: Some(stats) })
    }

    fn in_place(&self, way: &'static str, contexts: Contexts, order: Order) -> Result<Took, Failure> {
        let pipeline = self.pipeline(contexts, order)?;
        let filled = || -> Result<PipelineSlot, Failure> {
            let mut slot = pipeline.acquire(&self.plan, Pressure::Wait)?;
            slot.input().copy_from_slice(&self.input);
            Ok(slot)
        };
        let slots = (0..self.slots).map(|_| filled()).collect::<Result<Vec<_>, _>>()?;
        let mut flying: VecDeque<SlotTicket> =
            slots.into_iter().map(PipelineSlot::submit).collect::<Result<_, _>>()?;
        let mut next = || -> Result<(), Failure> {
            let (_, slot) = flying.pop_front().expect("jobs are in flight").wait()?;
            flying.push_back(slot.submit()?);
            Ok(())
        };
        let (time, stats) = self.time_and_stats(&pipeline, &mut next)?;
        flying.into_iter().try_for_each(|job| self.check(job.wait()?.1.output()))?;
        Ok(Took { way, time, stats: Some(stats) })
    }

    /// The time of one batch, and what the pipeline did in the timed ones.
    fn time_and_stats(
        &self,
        pipeline: &Pipeline,
        next: &mut dyn FnMut() -> Result<(), Failure>,
    ) -> Result<(Duration, PipelineStats), Failure> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(400) {
            next()?;
        }
        let (before, start) = (pipeline.stats(), Instant::now());
        (0..self.batches).try_for_each(|_| next())?;
        let time = start.elapsed();
        let after = pipeline.stats();
        let busy = [0, 1, 2].map(|engine| after.busy[engine] - before.busy[engine]);
        let stats = PipelineStats { busy, span: time, pieces: after.pieces - before.pieces, ..after };
        Ok((time / self.batches as u32, stats))
    }
}

/// The convolution of one image of `problem`, one of a suite.
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
        ..Default::default()
    };
    Ok(Conv2d::new(desc)?)
}

fn print(console: &mut Console, row: &Row) {
    let busy = row.busy.map_or([const { String::new() }; 3], |busy| busy.map(|part| format!("{part:.2}")));
    let [up, compute, down] = busy;
    let (ms, share, ratio) = (row.ms, row.share_of_bound, row.over_one_shot);
    let cells = [format!("{ms:.3}"), format!("{share:.2}"), format!("{ratio:.2}"), up, compute, down];
    console.line(line(&row.name, row.way, cells));
}

fn line(name: &str, way: &str, [ms, share, ratio, up, compute, down]: [String; 6]) -> String {
    let text =
        format!("{name:<16}  {way:<22}  {ms:>10}  {share:>8}  {ratio:>10}  {up:>8}  {compute:>8}  {down:>8}");
    text.trim_end().to_owned()
}
