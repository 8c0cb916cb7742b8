//! Tests of the GL engine's internals on the machine's first GL device.

mod buffers;
pub mod displays;
mod epilogues;
mod fake;
mod faults;
mod faulty;
#[cfg(feature = "lab")]
mod guarded;
mod guards;
mod kernels;
mod limits;
mod loops;
mod machines;
mod memory;
mod pipeline;
#[cfg(feature = "lab")]
mod products;
mod queue;
mod queued;
mod rates;
mod recovery;
mod resident_problems;
mod rig;
mod terminated;
mod tuning;

use std::time::Duration;

use std::sync::Arc;

use super::*;
use crate::backend::Backend;
use crate::config::Tune;
use crate::error::{Error, Result};
use crate::gl::device::discovery::discovered;
use crate::gl::device::engine::Engine;
use crate::gl::device::registry::engine;
use crate::gl::driver::context::{LiveObjects, ShareGroup, Target};
use crate::gl::driver::{api, fence, resource};
use crate::gl::execution::programs::Programs;
use crate::problem::exact::Random;
use crate::problem::{Conv2d, Conv2dDesc, oracle};

/// The first device. Without one, prints a note, or fails with `SPARKLE_TEST_REQUIRE_GL=1`.
fn first_device() -> Option<Target> {
    let target = discovered().unwrap().found.iter().find_map(|found| found.target);
    if target.is_none() {
        let required = std::env::var("SPARKLE_TEST_REQUIRE_GL").is_ok_and(|value| value == "1");
        assert!(!required, "SPARKLE_TEST_REQUIRE_GL=1, but there is only {:?}", candidates());
        println!("skipped: no GL device");
    }
    target
}

/// The first device's engine.
fn first_engine() -> Option<Arc<Engine>> {
    first_device().map(|_| engine(0).unwrap())
}

/// A new share group on the first device.
fn share_group() -> Option<Arc<ShareGroup>> {
    let (all, target) = (discovered().unwrap(), first_device()?);
    let egl = all.egl.as_ref().expect("EGL found the device");
    Some(ShareGroup::new(egl.clone(), "test device".into(), target).unwrap())
}

fn problem() -> Conv2d {
    let desc =
        Conv2dDesc { n: 3, c: 4, h: 20, w: 17, k: 5, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    Conv2d::new(desc).unwrap()
}

/// Runs [`problem`] with `programs` and checks every output. Returns the number of dispatches.
fn run(programs: &mut Programs, seed: u64) -> u32 {
    let (problem, mut random) = (problem(), Random::new(seed));
    let (input, weights) =
        (random.integers(problem.input_len(), 8), random.integers(problem.weights_len(), 8));
    let prepared = tune::prepare(programs, Tune::Off, &problem, &weights, None).unwrap();
    let mut output = vec![f32::NAN; problem.output_len()];
    let ran = prepared.run(&input, &mut output).unwrap();
    let expected = oracle::conv2d(&problem, &input, &weights, None);
    assert!(output.iter().zip(expected).all(|(&got, expected)| f64::from(got) == expected.value));
    assert!(ran.time > Duration::ZERO);
    ran.dispatches
}

#[test]
fn objects_live_as_long_as_they_are_held() {
    let Some(group) = share_group() else { return };
    let mut programs = Programs::new(group.context().unwrap());
    run(&mut programs, 1);
    let idle = LiveObjects { programs: 1, contexts: 1, ..Default::default() };
    assert_eq!(group.live_objects(), idle, "programs stay and nothing else");
    let prepared =
        tune::prepare(&mut programs, Tune::Off, &problem(), &vec![0.0; problem().weights_len()], None)
            .unwrap();
    assert_eq!(group.live_objects(), LiveObjects { buffers: 3, ..idle }, "weights, input, output");
    drop(programs);
    assert_eq!(group.live_objects().contexts, 1, "a prepared convolution keeps its context");
    drop(prepared);
    assert_eq!(group.live_objects(), LiveObjects::default());
}

#[test]
fn long_work_is_cut() {
    let Some(group) = share_group() else { return };
    let mut programs = Programs::new(group.context().unwrap());
    // 5100 outputs of some hundred operations each. At this rate a tenth of a second covers a small part of them.
    group.set_rate(1e6);
    let dispatches = run(&mut programs, 2);
    assert!(dispatches > 1, "{dispatches}");
    group.set_rate(1e12);
    assert_eq!(run(&mut programs, 3), 1);
}

#[test]
fn contexts_of_a_group_share_their_objects() {
    let Some(group) = share_group() else { return };
    let context = group.context().unwrap();
    let buffer = resource::Buffer::with_data(&context, &[1, 2, 3, 4]).unwrap();
    fence::Fence::new(&context).unwrap().wait("an upload").unwrap();
    let (name, shared) = (buffer.name(), group.clone());
    let seen = std::thread::spawn(move || {
        let context = shared.context().unwrap();
        let mut seen = [0; 4];
        context.api().bind_buffer(api::COPY_READ_BUFFER, name);
        context.api().get_buffer_sub_data(api::COPY_READ_BUFFER, 0, &mut seen);
        context.check("glGetBufferSubData").unwrap();
        seen
    });
    assert_eq!(seen.join().unwrap(), [1, 2, 3, 4]);
    assert!(context.is_current());
}

#[test]
fn a_shader_that_does_not_compile_shows_the_drivers_log() {
    let Some(group) = share_group() else { return };
    let context = group.context().unwrap();
    let error =
        resource::Program::build(&context, "bad", "#version 430 core\nvoid main() { nonsense }").err();
    assert!(
        matches!(&error, Some(Error::Shader { kernel, log, .. }) if kernel == "bad" && log.len() > 5),
        "{error:?}"
    );
    assert_eq!(group.live_objects(), LiveObjects { contexts: 1, ..Default::default() });
    context.check("after a shader error").unwrap();
}

/// The engine caches which program is in use. The cache stays true after errors and deletions.
#[test]
fn the_program_that_runs_is_the_one_that_was_asked_for() {
    let Some(group) = share_group() else { return };
    let context = group.context().unwrap();
    let buffer = resource::Buffer::new(&context, 4).unwrap();
    buffer.bind(0);
    let program = |value: u32| {
        let block = "layout(std430, binding = 0) buffer B { uint x; };";
        let main = format!("void main() {{ x = {value}u; }}");
        let source = format!("#version 430 core\nlayout(local_size_x = 1) in;\n{block}\n{main}");
        resource::Program::build(&context, "writes a number", &source).unwrap()
    };
    let api = context.api();
    let written = || {
        api.dispatch_compute(1, 1, 1);
        api.memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
        let mut bytes = [0; 4];
        buffer.read(&mut bytes).unwrap();
        u32::from_ne_bytes(bytes)
    };
    let (one, two) = (program(1), program(2));
    for (used, number) in [(&one, 1), (&one, 1), (&two, 2), (&one, 1), (&two, 2)] {
        api.use_program(used.name());
        assert_eq!(written(), number);
    }
    // A new program may reuse the old one's name.
    drop(two);
    let three = program(3);
    api.use_program(three.name());
    assert_eq!(written(), 3);
    api.use_program(u32::MAX);
    assert!(context.check("glUseProgram").is_err(), "there is no such program");
    api.use_program(three.name());
    assert_eq!(written(), 3);
    api.use_program(one.name());
    assert_eq!(written(), 1);
}

#[test]
fn an_engine_is_shared_while_it_is_held() {
    let Some(first) = first_engine() else { return };
    assert!(Arc::ptr_eq(&first, &engine(0).unwrap()));
    let hierarchy = first.hierarchy().unwrap();
    for rate in [hierarchy.flops, hierarchy.memory, hierarchy.upload, hierarchy.download, hierarchy.launch] {
        assert!(rate.is_finite() && rate > 0.0, "{hierarchy:?}");
    }
    assert_eq!(first.hierarchy().unwrap(), hierarchy, "it is measured once");
    shutdown();
    assert!(Arc::ptr_eq(&first, &engine(0).unwrap()), "shutdown closes only what nobody holds");
}

#[test]
fn a_panic_in_a_job_is_an_error_and_the_next_job_works() {
    let Some(engine) = first_engine() else { return };
    let error = engine.worker().call(|_| -> Result<()> { panic!("on purpose") }).unwrap_err();
    assert!(matches!(&error, Error::Internal(text) if text.contains("on purpose")), "{error}");
    assert!(engine.share_group().is_ok());
}

#[test]
fn the_callers_thread_is_left_alone() {
    let Some(engine) = first_engine() else { return };
    let egl = discovered().unwrap().egl.as_ref().unwrap();
    assert_eq!(egl.current_context(), None);
    let group = engine.share_group().unwrap();
    let mine = group.context().unwrap();
    let before = egl.current_context();
    assert!(before.is_some() && mine.is_current());
    engine.hierarchy().unwrap();
    assert_eq!(egl.current_context(), before);
    drop(mine);
    assert_eq!(egl.current_context(), None);
}
