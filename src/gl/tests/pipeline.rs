//! The pipeline on machines that fail: every job ends, well or with its own error; nothing is lost, nothing is written twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::faulty::{Fault, Machine, SentBy};
use super::rig::{Case, Rig, SMALL_BLOCK};
use crate::backend::{
    BorrowedSlice, Contexts, FallbackFn, Job, Order, PipelineOptions, Plan, Queue, Run, Ticket, WhenFull,
};
use crate::error::{Error, Result};
use crate::gl::convolution::Chosen;
use crate::gl::driver::api;
use crate::gl::pipeline::{Pipeline, Thresholds};
use crate::memory::tiles::Tile;
use crate::shader::variant::{Family, Variant};

/// What outputs are filled with: a NaN that nobody computes.
const CANARY: u32 = 0x7fc0_dead;
/// Longer than any test should take, and shorter than anybody's patience.
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
    let most = SMALL_BLOCK as usize / 4;
    Pipeline::start_with(egl, "gl:faulty".into(), rig.target, most, options, thresholds)
}

/// So small that these tests' jobs go every way.
fn thresholds() -> Thresholds {
    let upload_wait = Duration::from_secs(1);
    Thresholds { staged: 64..1 << 20, counted_copy: 256, upload_wait, spins_anywhere: false }
}

/// A job of `case` whose output outlives everything.
pub struct Sent<'a> {
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

pub fn send<'a>(pipeline: &dyn Queue, case: &'a Case, plan: &dyn Plan) -> Sent<'a> {
    send_with(pipeline, case, plan, None)
}

fn send_with<'a>(
    pipeline: &dyn Queue,
    case: &'a Case,
    plan: &dyn Plan,
    recompute: Option<FallbackFn>,
) -> Sent<'a> {
    let mut output = vec![f32::from_bits(CANARY); case.expected.len()].into_boxed_slice();
    let ticket = Ticket::new();
    let job = job(case, plan, &mut output, &ticket, recompute);
    // SAFETY: input and output live until the ticket is done, as every caller here waits for it.
    unsafe { pipeline.submit(job, WhenFull::Wait).unwrap() };
    Sent { case, ticket, output }
}

impl Sent<'_> {
    /// Waits; the output is right, or untouched.
    pub fn end(self) -> Result<Run> {
        let result = self.ticket.wait_for(LONG).expect("a job that never ends");
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

/// Sends a few jobs through a pipeline in which `fault` befalls the `number`-th call. Gives the call, and the results.
fn with_fault(
    rig: &Rig,
    plans: &[(&Case, Box<dyn Plan>)],
    (options, thresholds): &(PipelineOptions, Thresholds),
    (fault, number): (Fault, u64),
) -> (Option<&'static str>, Vec<Result<Run>>) {
    let pipeline = start_with(rig, *options, thresholds.clone()).unwrap();
    rig.faults.arm(fault, number);
    let sent: Vec<Sent> = plans.iter().map(|(case, plan)| send(&pipeline, case, &**plan)).collect();
    let results: Vec<Result<Run>> = sent.into_iter().map(Sent::end).collect();
    pipeline.flush().unwrap();
    let befell = rig.faults.disarm();
    // And after that everything works.
    for (case, plan) in plans {
        send(&pipeline, case, &**plan).end().unwrap();
    }
    let stats = pipeline.stats();
    let failed = results.iter().filter(|it| it.is_err()).count() as u64;
    let all = 2 * plans.len() as u64;
    assert_eq!((stats.completed, stats.failed, stats.cancelled), (all - failed, failed, 0));
    (befell, results)
}

/// Lets a fault befall every `step`-th call of a short stream.
fn fault_loop(
    machine: Machine,
    options: PipelineOptions,
    fault: Fault,
    step: u64,
    most_failed: usize,
) -> u64 {
    fault_loop_with(machine, (options, thresholds()), fault, step, most_failed)
}

fn fault_loop_with(
    machine: Machine,
    options: (PipelineOptions, Thresholds),
    fault: Fault,
    step: u64,
    most_failed: usize,
) -> u64 {
    let Some(rig) = Rig::new(machine) else { return u64::MAX };
    let engine = rig.open().unwrap();
    let cases = [&rig.square, &rig.batch, &rig.direct];
    let plans: Vec<_> = cases.iter().map(|case| (*case, case.piped(&engine).unwrap())).collect();
    let healthy = rig.faults.objects();
    let mut injected = 0;
    for number in (1..).step_by(step as usize) {
        let (befell, results) = with_fault(&rig, &plans, &options, (fault, number));
        let errors: Vec<&Error> = results.iter().filter_map(|it| it.as_ref().err()).collect();
        let when = format!("{fault:?} at call {number}, {befell:?}: {errors:?}");
        assert!(errors.len() <= most_failed, "{when}");
        assert_eq!(rig.faults.objects(), healthy, "{when}");
        assert_eq!(rig.faults.violations(), Vec::<String>::new(), "{when}");
        if befell.is_none() {
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
        // Made again once, everything flies again. Only what makes the new contexts, or is lost with them, fails.
        let injected = fault_loop(machine(), PipelineOptions { contexts, ..OPTIONS }, fault, 3, 0);
        assert!(injected > 20, "{fault:?}: {injected}");
    }
}

/// As where processors are many: threads stay awake between their steps, and put these in order themselves.
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
fn errors_befall_one_job_and_the_others_go_on() {
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

/// Where somebody stands by to compute an output to its end, pieces are written to it as they come.
#[test]
fn an_output_that_is_written_in_part_is_computed_to_its_end() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.batch.piped(&engine).unwrap();
    let (rescued, mut untouched, mut number) = (Arc::new(AtomicUsize::new(0)), 0, 1);
    loop {
        let pipeline = start(&rig, OPTIONS).unwrap();
        rig.faults.arm(Fault::Error(api::INVALID_OPERATION), number);
        let (expected, count) = (rig.batch.expected.clone(), rescued.clone());
        let recompute: FallbackFn = Arc::new(move |error, _, output| {
            count.fetch_add(1, Ordering::Relaxed);
            output.copy_from_slice(&expected);
            let fallback = Some(error.to_string().into());
            Ok(Run { device: "test".into(), kernel: "copy".into(), timing: Default::default(), fallback })
        });
        let before = rescued.load(Ordering::Relaxed);
        let result = send_with(&pipeline, &rig.batch, &*plan, Some(recompute)).end();
        let was_rescued = rescued.load(Ordering::Relaxed) > before;
        assert_eq!(was_rescued, result.as_ref().is_ok_and(|run| run.fallback.is_some()), "{number}");
        untouched += usize::from(result.is_err());
        if rig.faults.disarm().is_none() {
            assert!(result.is_ok_and(|run| run.fallback.is_none()));
            break;
        }
        number += 3;
    }
    // Early faults find the output as it was; by the third piece, which waits for a slot, the first has been delivered.
    assert!(untouched > 1 && rescued.load(Ordering::Relaxed) > 0, "{untouched} {rescued:?}");
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
fn a_device_that_hangs_fails_jobs_and_holds_nobody_up() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    let pipeline = start(&rig, OPTIONS).unwrap();
    send(&pipeline, &rig.square, &*plan).end().unwrap();
    rig.faults.arm(Fault::NeverSignals, 1);
    let sent: Vec<Sent> = (0..4).map(|_| send(&pipeline, &rig.square, &*plan)).collect();
    for sent in sent {
        let error = sent.end().unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }
    assert_eq!(rig.faults.disarm(), Some("client_wait_sync"));
    send(&pipeline, &rig.square, &*plan).end().unwrap();
}

/// No thread may wait, on the device or off it, for commands that sit in another context's queue.
#[test]
fn every_fence_is_sent_off_before_another_context_waits_for_it() {
    let machine = Machine { lazy: Some(SentBy { flush: true, wait: false }), ..machine() };
    let Some(rig) = Rig::new(machine) else { return };
    let engine = rig.open().unwrap();
    let plans: Vec<_> = [&rig.square, &rig.batch].map(|case| (case, case.piped(&engine).unwrap())).into();
    let pipeline = start(&rig, OPTIONS).unwrap();
    let sent: Vec<Sent> =
        (0..20).map(|index| &plans[index % 2]).map(|(case, plan)| send(&pipeline, case, &**plan)).collect();
    assert_eq!(sent.len(), 20);
    sent.into_iter().for_each(|sent| drop(sent.end().unwrap()));
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

/// Steps in one context follow each other by themselves; between contexts it depends on who sees to it.
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
        (0..4).for_each(|_| drop(send(&pipeline, &rig.square, &*plan).end().unwrap()));
        drop(pipeline);
        assert_eq!(rig.faults.waits() - before, 4 * each, "{contexts:?} {order:?}");
    }
}

/// On a context that only copies, a timestamp would keep other contexts' kernels waiting; the host's clock tells what copies take.
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
        send(&pipeline, &rig.square, &*plan).end().unwrap();
        let before = rig.faults.stamps();
        (0..4).for_each(|_| drop(send(&pipeline, &rig.square, &*plan).end().unwrap()));
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

/// A pipeline's first piece is cut by what the planner expects of it, not by how fast the device's probe was.
#[test]
fn a_first_piece_is_cut_as_the_planner_expects() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let generated = Variant { family: Family::Igemm, tile: Tile::new(32, 32, 16, 4, 4, 1), splits: 2 };
    // Uncut they are one dispatch; and one of products, one that adds up.
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
            Sent { case, ticket, output }.end().unwrap().timing.dispatches
        });
        assert!(dispatches[0] == whole && dispatches[1] > whole, "{variant}: {dispatches:?}");
    }
}

/// Uploads, or uploads and weights, before the first download after a rest, made odd by one more copy where they are even.
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
            let sent: Vec<Sent> = (0..8).map(|_| send(&pipeline, case, &*plan)).collect();
            sent.into_iter().for_each(|sent| drop(sent.end().unwrap()));
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

/// A plan used once: its weights stay the caller's, also if the job has to fly again.
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
        Sent { case, ticket, output }.end().unwrap();
        if rig.faults.disarm().is_none() {
            break;
        }
        injected += 1;
    }
    assert!(injected > 10, "{injected}");
}

#[test]
fn a_slot_that_outlives_its_device_can_be_read_and_leads_nowhere() {
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
    // The others go on in new contexts, with all slots, while the old memory is still there.
    for _ in 0..6 {
        send(&pipeline, &rig.square, &*plan).end().unwrap();
    }
    // SAFETY: the memory is the slot's as long as it lives, and nothing runs in it.
    unsafe { std::slice::from_raw_parts_mut(held.input(), rig.square.input.len()) }.fill(1.0);
    let late = Ticket::new();
    assert!(matches!(held.submit(&late), Err(Error::DeviceLost { .. })));
    drop((held, running));
    assert_eq!(pipeline.stats().rebuilt, 1);
}

#[test]
fn a_stand_in_computes_what_the_device_cannot() {
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
        Ok(Run { device: "cpu".into(), kernel: "k".into(), timing: Default::default(), fallback })
    }));
    // SAFETY: input and output live until the ticket is done.
    unsafe { pipeline.submit(job, WhenFull::Wait).unwrap() };
    let run = ticket.wait_for(LONG).unwrap().unwrap();
    assert!(run.fallback.unwrap().contains("could not build shader"));
    assert_eq!(output, rig.batch.expected);
}

#[test]
fn closing_calls_off_what_has_not_begun_and_waits_for_the_rest() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.batch.piped(&engine).unwrap();
    let healthy = rig.faults.objects();
    let (mut completed, mut cancelled) = (0, 0);
    for jobs in 1..8 {
        let pipeline = start(&rig, PipelineOptions { slots: 1, ..OPTIONS }).unwrap();
        let sent: Vec<Sent> = (0..jobs).map(|_| send(&pipeline, &rig.batch, &*plan)).collect();
        drop(pipeline);
        for sent in sent {
            assert!(sent.ticket.poll().is_some(), "closed, and a job is not over");
            match sent.end() {
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
    let error = send(&pipeline, &rig.square, &*plan).end().unwrap_err();
    assert!(matches!(&error, Error::Driver { call, .. } if call.contains("eglCreateContext")), "{error}");
    rig.faults.disarm();
    send(&pipeline, &rig.square, &*plan).end().unwrap();
}
