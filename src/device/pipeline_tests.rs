//! Pipelines of an engine without queues: order, waits and counters.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::*;
use crate::backend::{Memory, Plan};
use crate::error::Error;
use crate::memory::Hierarchy;
use crate::problem::Conv2dDesc;

/// An engine whose runs wait at a gate, and fail if the first weight is negative.
#[derive(Default)]
struct Gated(Arc<Gate>);

#[derive(Default)]
struct Gate {
    lock: Mutex<()>,
    begun: AtomicUsize,
}

struct GatedPlan(Arc<Gate>, f32);

impl Plan for GatedPlan {
    fn kernel(&self) -> &str {
        "conv_gated"
    }
    fn memory(&self) -> Memory {
        Memory::default()
    }
    fn run(&self, _: &[f32], output: &mut [f32]) -> Result<Timing> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        drop(self.0.lock.lock().unwrap());
        if self.1 < 0.0 {
            return Err(Error::Internal("a test".into()));
        }
        output.fill(self.1);
        Ok(Timing::default())
    }
}

impl Backend for Gated {
    fn id(&self) -> &str {
        "gated"
    }
    fn hierarchy(&self) -> Result<Hierarchy> {
        Ok(Hierarchy::UNKNOWN)
    }
    fn plan_conv2d(&self, _: &Conv2d, weights: &[f32], _: Option<&[f32]>) -> Result<Box<dyn Plan>> {
        Ok(Box::new(GatedPlan(self.0.clone(), weights[0])))
    }
    fn sgemm(&self, _: &Gemm, _: &[f32], _: &[f32], _: &mut [f32]) -> Result<(Arc<str>, Timing)> {
        unreachable!("not called")
    }
}

/// The gate, a pipeline, a plan that outputs 7, and a plan that fails.
fn gated() -> (Arc<Gate>, Pipeline, Conv2dPlan, Conv2dPlan) {
    let engine = Gated::default();
    let gate = engine.0.clone();
    let device = Device { choice: EngineChoice::Fixed(Arc::new(engine)) };
    let problem = Conv2d::new(Conv2dDesc { h: 2, w: 2, ..Default::default() }).unwrap();
    let plan = |value| device.plan(&problem, &[value], None).unwrap();
    let (good, bad) = (plan(7.0), plan(-1.0));
    (gate, device.pipeline(PipelineOptions { queue: 8, ..Default::default() }).unwrap(), good, bad)
}

impl Gate {
    fn close(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap()
    }

    /// Waits until `runs` runs have reached the gate.
    fn wait_for(&self, runs: usize) {
        while self.begun.load(Ordering::SeqCst) < runs {
            std::thread::yield_now();
        }
    }
}

fn submit(pipeline: &Pipeline, plan: &Conv2dPlan) -> Submitted {
    pipeline.submit(plan, vec![0.0; 4], vec![0.0; 4], WhenFull::Wait).unwrap()
}

/// Runs `work` while another thread opens the gate after a delay, so that a missing wait is detected. No result depends
/// on the delay.
fn open_later<R>(gate: &Gate, runs: usize, work: impl FnOnce() -> R) -> R {
    std::thread::scope(|scope| {
        let (sender, closed) = std::sync::mpsc::sync_channel(0);
        scope.spawn(move || {
            let closed_gate = gate.close();
            sender.send(()).unwrap();
            gate.wait_for(runs);
            std::thread::sleep(Duration::from_millis(50));
            drop(closed_gate);
        });
        closed.recv().unwrap();
        work()
    })
}

#[test]
fn jobs_are_counted_by_how_they_end() {
    let (gate, pipeline, good, bad) = gated();
    assert_eq!(pipeline.device(), None);
    let closed = gate.close();
    let first = submit(&pipeline, &good);
    gate.wait_for(1);
    let cancelled: Vec<_> = (0..2).map(|_| submit(&pipeline, &good)).collect();
    let others = [&good, &good, &bad, &bad, &bad, &bad].map(|plan| submit(&pipeline, plan));
    assert!(cancelled.iter().all(|job| job.ticket().cancel()) && !first.ticket().cancel());
    drop(closed);
    pipeline.flush().unwrap();
    let stats = pipeline.stats();
    assert_eq!((stats.completed, stats.failed, stats.cancelled), (3, 4, 2));
    assert_eq!(first.wait().unwrap().output, [7.0; 4]);
    assert!(cancelled.into_iter().all(|job| matches!(job.wait(), Err(Error::Cancelled))));
    assert_eq!(others.map(|job| job.wait().is_ok()), [true, true, false, false, false, false]);
}

#[test]
fn a_flush_waits_for_what_was_submitted() {
    let (gate, pipeline, good, _) = gated();
    open_later(&gate, 1, || {
        let job = submit(&pipeline, &good);
        pipeline.flush().unwrap();
        assert!(job.ticket().wait_for(Duration::ZERO).is_some());
    });
}

#[test]
fn a_scope_waits_for_its_jobs() {
    let (gate, pipeline, good, _) = gated();
    let (input, mut output) = ([0.0; 4], [0.0; 4]);
    open_later(&gate, 1, || {
        pipeline.scope(|scope| drop(scope.submit(&good, &input, &mut output, WhenFull::Wait).unwrap()));
        assert_eq!(pipeline.stats().completed, 1);
    });
    assert_eq!(output, [7.0; 4]);
}

#[test]
fn dropping_a_pipeline_waits_for_the_running_job_and_cancels_the_others() {
    let (gate, pipeline, good, _) = gated();
    open_later(&gate, 1, || {
        let running = submit(&pipeline, &good);
        gate.wait_for(1);
        let waiting = submit(&pipeline, &good);
        drop(pipeline);
        let done = [&running, &waiting].map(|job| job.ticket().wait_for(Duration::ZERO).map(|it| it.is_ok()));
        assert_eq!(done, [Some(true), Some(false)]);
    });
    assert_eq!(gate.begun.load(Ordering::SeqCst), 1);
}

#[test]
fn a_slot_is_done_when_its_job_is() {
    let (gate, pipeline, good, _) = gated();
    let closed = gate.close();
    let mut slot = pipeline.acquire(&good, WhenFull::Wait).unwrap();
    slot.input().fill(1.0);
    let job = slot.submit().unwrap();
    gate.wait_for(1);
    assert!(!job.wait_for(Duration::ZERO));
    drop(closed);
    assert!(job.wait_for(Duration::from_secs(300)));
    assert_eq!(job.wait().unwrap().1.output(), [7.0; 4]);
}
