//! The pipeline on failing machines. Every job ends, with a result or its own error. No job is lost and no output
//! is written twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::faulty::{Fault, FlushedBy, Machine};
use super::rig::{Case, Rig, SMALL_BLOCK};
use crate::backend::{
    BorrowedSlice, Contexts, FallbackFn, Job, Order, PipelineOptions, Plan, Queue, Run, Ticket, WhenFull,
};
use crate::error::{Error, Result};
use crate::gl::convolution::Chosen;
use crate::gl::driver::api;
use crate::gl::pipeline::{Pipeline, Thresholds};
use crate::memory::tiles::Tile;
use crate::report::Source;
use crate::shader::variant::{Family, Variant};

/// Fills outputs: a NaN that no kernel computes.
const CANARY: u32 = 0x7fc0_dead;
/// Longer than any test should take.
const LONG: Duration = Duration::from_secs(60);

pub const OPTIONS: PipelineOptions = PipelineOptions {
    slots: 2,
    queue: 8,
    piece_bytes: 16 << 10,
    contexts: Contexts::Three,
    order: Order::Device,
    gather: true,
};

pub fn machine() -> Machine {
    Machine { max_block: Some(SMALL_BLOCK), ..Default::default() }
}

pub fn start(rig: &Rig, options: PipelineOptions) -> Result<Pipeline> {
    start_with(rig, options, thresholds())
}

fn start_with(rig: &Rig, options: PipelineOptions, thresholds: Thresholds) -> Result<Pipeline> {
    let egl: Arc<dyn crate::gl::driver::egl::Egl> = rig.egl.clone();
    let max_elements = SMALL_BLOCK as usize / 4;
    let device = (egl, "gl:faulty".into());
    Pipeline::start_with(device, rig.target, max_elements, options, thresholds, Source::Nobody)
}

/// So small that these tests' jobs take every path.
fn thresholds() -> Thresholds {
    let upload_wait = Duration::from_secs(1);
    Thresholds { staged: 64..1 << 20, counted_copy: 256, upload_wait, spins_anywhere: false }
}

/// A submitted job of `case`, with its output.
pub struct PendingJob<'a> {
    case: &'a Case,
    pub ticket: Ticket,
    output: Box<[f32]>,
}

fn job(
    case: &Case,
    plan: &dyn Plan,
    output: &mut [f32],
    ticket: &Ticket,
    recompute: Option<FallbackFn>,
) -> Job {
    Job {
        ticket: ticket.clone(),
        recipe: plan.recipe().unwrap().clone(),
        input: case.input.as_ptr(),
        output: output.as_mut_ptr(),
        output_is_private: false,
        owner: None,
        fallback: None,
        partial_output_fallback: recompute,
    }
}

pub fn submit<'a>(pipeline: &dyn Queue, case: &'a Case, plan: &dyn Plan) -> PendingJob<'a> {
    submit_with(pipeline, case, plan, None)
}

fn submit_with<'a>(
    pipeline: &dyn Queue,
    case: &'a Case,
    plan: &dyn Plan,
    recompute: Option<FallbackFn>,
) -> PendingJob<'a> {
    let mut output = vec![f32::from_bits(CANARY); case.expected.len()].into_boxed_slice();
    let ticket = Ticket::new();
    let job = job(case, plan, &mut output, &ticket, recompute);
    // SAFETY: input and output live until the ticket is done, since every caller waits for it.
    unsafe { pipeline.submit(job, WhenFull::Wait).unwrap() };
    PendingJob { case, ticket, output }
}

impl PendingJob<'_> {
    /// Waits for the job. Checks that the output is right, or untouched after an error.
    pub fn end(self) -> Result<Run> {
        let result = self.ticket.wait_for(LONG).expect("the job ends");
        match &result {
            Ok(_) => self.case.assert_right(&self.output),
            Err(error) => {
                let untouched = self.output.iter().all(|value| value.to_bits() == CANARY);
                assert!(untouched, "the output was touched, but {error}");
            }
        }
        result
    }
}

/// Submits a few jobs to a pipeline in which `fault` hits the `number`-th call. Returns the call, and the results.
fn with_fault(
    rig: &Rig,
    plans: &[(&Case, Box<dyn Plan>)],
    (options, thresholds): &(PipelineOptions, Thresholds),
    (fault, number): (Fault, u64),
) -> (Option<&'static str>, Vec<Result<Run>>) {
    let pipeline = start_with(rig, *options, thresholds.clone()).unwrap();
    rig.faults.arm(fault, number);
    let jobs: Vec<PendingJob> = plans.iter().map(|(case, plan)| submit(&pipeline, case, &**plan)).collect();
    let results: Vec<Result<Run>> = jobs.into_iter().map(PendingJob::end).collect();
    pipeline.flush().unwrap();
    let hit = rig.faults.disarm();
    // After that everything works.
    for (case, plan) in plans {
        submit(&pipeline, case, &**plan).end().unwrap();
    }
    let stats = pipeline.stats();
    let failed = results.iter().filter(|it| it.is_err()).count() as u64;
    let all = 2 * plans.len() as u64;
    assert_eq!((stats.completed, stats.failed, stats.cancelled), (all - failed, failed, 0));
    (hit, results)
}

/// Injects a fault into every `step`-th call of a short stream.
fn fault_loop(machine: Machine, options: PipelineOptions, fault: Fault, step: u64, max_failed: usize) -> u64 {
    fault_loop_with(machine, (options, thresholds()), fault, step, max_failed)
}

fn fault_loop_with(
    machine: Machine,
    options: (PipelineOptions, Thresholds),
    fault: Fault,
    step: u64,
    max_failed: usize,
) -> u64 {
    let Some(rig) = Rig::new(machine) else { return u64::MAX };
    let engine = rig.open().unwrap();
    let cases = [&rig.square, &rig.batch, &rig.direct];
    let plans: Vec<_> = cases.iter().map(|case| (*case, case.piped(&engine).unwrap())).collect();
    let healthy = rig.faults.objects();
    let mut injected = 0;
    for number in (1..).step_by(step as usize) {
        let (hit, results) = with_fault(&rig, &plans, &options, (fault, number));
        let errors: Vec<&Error> = results.iter().filter_map(|it| it.as_ref().err()).collect();
        let when = format!("{fault:?} at call {number}, {hit:?}: {errors:?}");
        assert!(errors.len() <= max_failed, "{when}");
        assert_eq!(rig.faults.objects(), healthy, "{when}");
        assert_eq!(rig.faults.violations(), Vec::<String>::new(), "{when}");
        if hit.is_none() {
            assert!(errors.is_empty(), "{when}");
            break;
        }
        injected += 1;
    }
    injected
}

#[test]
fn a_device_lost_at_any_call_costs_no_job() {
    for (fault, contexts) in
        [(Fault::Lost, Contexts::Three), (Fault::LostSilently, Contexts::Two), (Fault::Lost, Contexts::One)]
    {
        // New contexts are created once and all jobs restart. No fault happens in the second attempt.
        let injected = fault_loop(machine(), PipelineOptions { contexts, ..OPTIONS }, fault, 3, 0);
        assert!(injected > 20, "{fault:?}: {injected}");
    }
}

/// As with many processors: threads stay awake between tasks, and the host orders the stages.
#[test]
fn threads_that_stay_awake_lose_nothing_either() {
    let mut injected = vec![];
    for (fault, contexts, step, failed) in [
        (Fault::Lost, Contexts::Three, 5, 0),
        (Fault::Lost, Contexts::One, 9, 0),
        (Fault::Error(api::OUT_OF_MEMORY), Contexts::Three, 9, 3),
    ] {
        let options = PipelineOptions { contexts, order: Order::Host, ..OPTIONS };
        let awake = Thresholds { spins_anywhere: true, ..thresholds() };
        injected.push(fault_loop_with(machine(), (options, awake), fault, step, failed));
    }
    assert!(injected.iter().all(|&count| count > 5), "{injected:?}");
}

#[test]
fn errors_hit_one_job_and_the_others_continue() {
    for fault in [
        Fault::Error(api::OUT_OF_MEMORY),
        Fault::Error(api::INVALID_OPERATION),
        Fault::NoObject,
        Fault::WaitFails,
        Fault::Panic,
    ] {
        let injected = fault_loop(machine(), OPTIONS, fault, 5, 3);
        assert!(injected > 2, "{fault:?}: {injected}");
    }
    let injected = fault_loop(machine(), OPTIONS, Fault::NoCompile, 1, 1);
    assert!(injected >= 2, "{injected}");
}

/// Pieces are written to the output as they arrive if a fallback can compute the output to its end.
#[test]
fn an_output_written_in_part_is_completed() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.batch.piped(&engine).unwrap();
    let (recomputed, mut untouched, mut number) = (Arc::new(AtomicUsize::new(0)), 0, 1);
    loop {
        let pipeline = start(&rig, OPTIONS).unwrap();
        rig.faults.arm(Fault::Error(api::INVALID_OPERATION), number);
        let (expected, count) = (rig.batch.expected.clone(), recomputed.clone());
        let recompute: FallbackFn = Arc::new(move |error, _, output| {
            count.fetch_add(1, Ordering::Relaxed);
            output.copy_from_slice(&expected);
            let fallback = Some(error.to_string().into());
            Ok(Run::new("test".into(), "copy".into(), Default::default(), fallback))
        });
        let before = recomputed.load(Ordering::Relaxed);
        let result = submit_with(&pipeline, &rig.batch, &*plan, Some(recompute)).end();
        let was_recomputed = recomputed.load(Ordering::Relaxed) > before;
        assert_eq!(was_recomputed, result.as_ref().is_ok_and(|run| run.fallback.is_some()), "{number}");
        untouched += usize::from(result.is_err());
        if rig.faults.disarm().is_none() {
            assert!(result.is_ok_and(|run| run.fallback.is_none()));
            break;
        }
        number += 3;
    }
    // After early faults the output is untouched. The third piece waits for a slot, so the first was delivered
    // before it.
    assert!(untouched > 1 && recomputed.load(Ordering::Relaxed) > 0, "{untouched} {recomputed:?}");
}

#[test]
fn without_mapped_memory_it_works_and_fails_as_well() {
    let plain = Machine { no_storage: true, ..machine() };
    for fault in [Fault::ReadFails, Fault::Lost] {
        let injected = fault_loop(plain, OPTIONS, fault, 4, 3);
        assert!(injected >= 1, "{fault:?}: {injected}");
    }
}

#[test]
fn a_device_that_hangs_fails_jobs_and_blocks_no_caller() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    let pipeline = start(&rig, OPTIONS).unwrap();
    submit(&pipeline, &rig.square, &*plan).end().unwrap();
    rig.faults.arm(Fault::NeverSignals, 1);
    let jobs: Vec<PendingJob> = (0..4).map(|_| submit(&pipeline, &rig.square, &*plan)).collect();
    for job in jobs {
        let error = job.end().unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }
    assert_eq!(rig.faults.disarm(), Some("client_wait_sync"));
    submit(&pipeline, &rig.square, &*plan).end().unwrap();
}

/// Neither a thread nor the device may wait for a fence whose commands were not flushed.
#[test]
fn every_fence_is_flushed_before_another_context_waits_for_it() {
    let machine = Machine { lazy: Some(FlushedBy { flush: true, wait: false }), ..machine() };
    let Some(rig) = Rig::new(machine) else { return };
    let engine = rig.open().unwrap();
    let plans: Vec<_> = [&rig.square, &rig.batch].map(|case| (case, case.piped(&engine).unwrap())).into();
    let pipeline = start(&rig, OPTIONS).unwrap();
    let jobs: Vec<PendingJob> =
        (0..20).map(|index| &plans[index % 2]).map(|(case, plan)| submit(&pipeline, case, &**plan)).collect();
    assert_eq!(jobs.len(), 20);
    jobs.into_iter().for_each(|job| drop(job.end().unwrap()));
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

/// Stages in one context need no fences. Between contexts it depends on the order.
#[test]
fn the_device_is_told_to_wait_between_contexts_alone() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    for (contexts, order, each) in [
        (Contexts::One, Order::Device, 0),
        (Contexts::Two, Order::Device, 1),
        (Contexts::Three, Order::Device, 2),
        (Contexts::Three, Order::Measured, 2),
        (Contexts::Two, Order::Host, 0),
        (Contexts::Three, Order::Host, 0),
    ] {
        let before = rig.faults.waits();
        let pipeline = start(&rig, PipelineOptions { contexts, order, gather: false, ..OPTIONS }).unwrap();
        (0..4).for_each(|_| drop(submit(&pipeline, &rig.square, &*plan).end().unwrap()));
        drop(pipeline);
        assert_eq!(rig.faults.waits() - before, 4 * each, "{contexts:?} {order:?}");
    }
}

/// On a context that only copies, a timestamp would block other contexts' kernels. The host's clock times the copies.
#[test]
fn copies_in_contexts_of_their_own_have_no_timestamps_and_are_timed_all_the_same() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    let has_clock = engine.worker().call(|session| Ok(session.context().capabilities().timestamp_bits > 0));
    let has_clock = has_clock.unwrap();
    for (contexts, order, each) in [
        (Contexts::One, Order::Device, 6),
        (Contexts::Two, Order::Device, 2),
        (Contexts::Three, Order::Device, 2),
        (Contexts::Three, Order::Host, 2),
    ] {
        let pipeline = start(&rig, PipelineOptions { contexts, order, gather: false, ..OPTIONS }).unwrap();
        submit(&pipeline, &rig.square, &*plan).end().unwrap();
        let before = rig.faults.stamps();
        (0..4).for_each(|_| drop(submit(&pipeline, &rig.square, &*plan).end().unwrap()));
        let expected = if has_clock { 4 * each } else { 0 };
        assert_eq!(rig.faults.stamps() - before, expected, "{contexts:?} {order:?}");
        let stats = pipeline.stats();
        assert_eq!(stats.pieces, 5);
        assert!(
            stats.busy.iter().all(|busy| !busy.is_zero() && *busy <= stats.span),
            "{contexts:?}: {stats:?}"
        );
    }
}

/// The planner's prediction decides how a pipeline's first piece is cut, not the speed of the device's probe.
#[test]
fn a_first_piece_is_cut_as_the_planner_expects() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let generated = Variant { family: Family::Igemm, tile: Tile::new(32, 32, 16, 4, 4, 1), splits: 2 };
    // Uncut they are one dispatch each: one of products, and one that adds up.
    for (case, variant, whole) in [(&rig.square, Variant::FALLBACK, 1), (&rig.mixed, generated, 2)] {
        let plan = case.piped(&engine).unwrap();
        let dispatches = [1e-9, 1e3].map(|seconds| {
            let chosen = Chosen { variant, seconds: Some(seconds) };
            let recipe = chosen.recipe(case.problem, case.weights.clone(), case.bias.clone());
            let pipeline = start(&rig, PipelineOptions { gather: false, ..OPTIONS }).unwrap();
            let mut output = vec![f32::from_bits(CANARY); case.expected.len()].into_boxed_slice();
            let ticket = Ticket::new();
            let job = Job { recipe: Arc::new(recipe), ..job(case, &*plan, &mut output, &ticket, None) };
            // SAFETY: input and output live until the ticket is done, which `end` waits for.
            unsafe { pipeline.submit(job, WhenFull::Wait).unwrap() };
            PendingJob { case, ticket, output }.end().unwrap().timing.dispatches
        });
        assert!(dispatches[0] == whole && dispatches[1] > whole, "{variant}: {dispatches:?}");
    }
}

/// If the number of large copies before the first download after an idle period is even, one more copy makes it odd.
#[test]
fn an_odd_number_of_large_copies_comes_before_the_first_download() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let case = &rig.square;
    let plan = case.piped(&engine).unwrap();
    let mut filled = 0;
    for (slots, order) in (1..=6).flat_map(|slots| [(slots, Order::Host), (slots, Order::Device)]) {
        let pipeline = start(&rig, PipelineOptions { slots, order, gather: false, ..OPTIONS }).unwrap();
        for _ in 0..2 {
            rig.faults.take_copies();
            let jobs: Vec<PendingJob> = (0..8).map(|_| submit(&pipeline, case, &*plan)).collect();
            jobs.into_iter().for_each(|job| drop(job.end().unwrap()));
            let copies = rig.faults.take_copies();
            let large: Vec<i64> = copies.into_iter().filter(|bytes| *bytes >= 256).collect();
            let count = |elements: usize| large.iter().filter(|it| **it == 4 * elements as i64).count();
            assert_eq!([&case.input, &case.expected].map(|data| count(data.len())), [8, 8]);
            let before = large.iter().take_while(|it| **it != 4 * case.expected.len() as i64).count();
            assert!(before % 2 == 1, "{slots} {order:?}: {before} copies, then a download: {large:?}");
            filled += large.len() - 16;
        }
    }
    assert!(filled > 0, "it was never even");
}

/// A plan used once borrows the caller's weights, even if its job restarts.
#[test]
fn lent_weights_outlast_a_device_that_is_lost() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let (case, mut injected) = (&rig.batch, 0);
    let plan = case.piped(&engine).unwrap();
    let chosen = Chosen::of(plan.recipe().unwrap());
    let recipe = Arc::new(chosen.recipe(case.problem, vec![], case.bias.clone()));
    for number in (1..).step_by(7) {
        let order = if number % 2 == 0 { Order::Host } else { Order::Device };
        let pipeline = start(&rig, PipelineOptions { order, ..OPTIONS }).unwrap();
        rig.faults.arm(Fault::Lost, number);
        let mut output = vec![f32::from_bits(CANARY); case.expected.len()].into_boxed_slice();
        let ticket = Ticket::new();
        let job = Job { recipe: recipe.clone(), ..job(case, &*plan, &mut output, &ticket, None) };
        // SAFETY: input, weights and output live until the ticket is done, which `end` waits for.
        unsafe { pipeline.submit_once(job, BorrowedSlice::new(&case.weights), WhenFull::Wait).unwrap() };
        PendingJob { case, ticket, output }.end().unwrap();
        if rig.faults.disarm().is_none() {
            break;
        }
        injected += 1;
    }
    assert!(injected > 10, "{injected}");
}

#[test]
fn a_slot_that_outlives_its_device_can_be_read_but_not_submitted() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    let recipe = plan.recipe().unwrap();
    let pipeline = start(&rig, PipelineOptions { slots: 3, ..OPTIONS }).unwrap();
    let mut held = pipeline.acquire(recipe, WhenFull::Wait).unwrap();
    let mut running = pipeline.acquire(recipe, WhenFull::Wait).unwrap();
    rig.faults.arm(Fault::Lost, 1);
    let ticket = Ticket::new();
    running.submit(&ticket).unwrap();
    assert!(matches!(ticket.wait_for(LONG), Some(Err(Error::DeviceLost { .. }))));
    rig.faults.disarm();
    // The other jobs continue in new contexts, with all slots. The old memory still exists.
    for _ in 0..6 {
        submit(&pipeline, &rig.square, &*plan).end().unwrap();
    }
    // SAFETY: the memory is valid as long as the slot lives, and nothing runs in it.
    unsafe { std::slice::from_raw_parts_mut(held.input(), rig.square.input.len()) }.fill(1.0);
    let late = Ticket::new();
    assert!(matches!(held.submit(&late), Err(Error::DeviceLost { .. })));
    drop((held, running));
    assert_eq!(pipeline.stats().rebuilt, 1);
}

#[test]
fn a_fallback_computes_what_the_device_cannot() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.batch.piped(&engine).unwrap();
    let pipeline = start(&rig, OPTIONS).unwrap();
    rig.faults.arm(Fault::CreateContexts, 1);
    rig.faults.arm(Fault::NoCompile, 1);
    let expected = rig.batch.expected.clone();
    let mut output = vec![f32::from_bits(CANARY); expected.len()];
    let ticket = Ticket::new();
    let mut job = job(&rig.batch, &*plan, &mut output, &ticket, None);
    job.fallback = Some(Arc::new(move |error, _, output| {
        output.copy_from_slice(&expected);
        let fallback = Some(error.to_string().into());
        Ok(Run::new("cpu".into(), "k".into(), Default::default(), fallback))
    }));
    // SAFETY: input and output live until the ticket is done.
    unsafe { pipeline.submit(job, WhenFull::Wait).unwrap() };
    let run = ticket.wait_for(LONG).unwrap().unwrap();
    assert!(run.fallback.unwrap().contains("could not build shader"));
    assert_eq!(output, rig.batch.expected);
}

#[test]
fn closing_cancels_what_has_not_begun_and_waits_for_the_rest() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.batch.piped(&engine).unwrap();
    let healthy = rig.faults.objects();
    let (mut completed, mut cancelled) = (0, 0);
    for count in 1..8 {
        let pipeline = start(&rig, PipelineOptions { slots: 1, ..OPTIONS }).unwrap();
        let jobs: Vec<PendingJob> = (0..count).map(|_| submit(&pipeline, &rig.batch, &*plan)).collect();
        drop(pipeline);
        for job in jobs {
            assert!(job.ticket.poll().is_some(), "closed, but a job has not ended");
            match job.end() {
                Ok(_) => completed += 1,
                Err(Error::Cancelled) => cancelled += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(rig.faults.objects(), healthy);
    }
    assert_eq!(completed + cancelled, 28);
    assert!(cancelled > 0, "{completed}");
}

#[test]
fn without_contexts_jobs_say_so_and_later_ones_work() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    rig.faults.arm(Fault::CreateContexts, 1);
    assert!(start(&rig, OPTIONS).is_err(), "a pipeline that cannot work is not made");
    rig.faults.disarm();
    let pipeline = start(&rig, OPTIONS).unwrap();
    rig.faults.arm(Fault::CreateContexts, 1);
    let error = submit(&pipeline, &rig.square, &*plan).end().unwrap_err();
    assert!(matches!(&error, Error::Driver { call, .. } if call.contains("eglCreateContext")), "{error}");
    rig.faults.disarm();
    submit(&pipeline, &rig.square, &*plan).end().unwrap();
}
