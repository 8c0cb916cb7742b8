//! Every call fails once. The error is right, the output untouched, nothing leaks, and the next call works.
//!
//! Each loop takes a scenario and a [`Fault`]. It injects the fault into the first possible call, then the second,
//! until the scenario completes without a fault.

use std::sync::Arc;

use super::faulty::{Fault, FlushedBy, Machine};
use super::rig::{Bench, Rig, SMALL_BLOCK};
use crate::config::Tune;
use crate::error::{Error, Result};
use crate::gl::convolution::Buffered;
use crate::gl::driver::api;
use crate::gl::execution::programs::Programs;
use crate::gl::measure::hierarchy;
use crate::gl::{reference, tune};
use crate::memory::Hierarchy;
use crate::memory::tiles::Tile;
use crate::shader::source::CONV_REFERENCE;
use crate::shader::variant::{Family, Variant};

/// Measures what `auto` compares devices by.
fn measured(programs: &mut Programs) -> Result<Hierarchy> {
    let prepare: hierarchy::Prepare =
        &|programs, problem, weights| tune::prepare(programs, Tune::Off, problem, weights, None);
    hierarchy::measure(programs, true, prepare)
}

/// A scenario. The part after `arm` may fail.
struct Scenario {
    name: &'static str,
    run: fn(&Bench, arm: &dyn Fn()) -> Result<()>,
}

const OPEN: Scenario = Scenario {
    name: "open, plan, run",
    run: |bench, arm| {
        arm();
        let engine = bench.rig.open()?;
        let plan = bench.rig.square.plan(&engine)?;
        bench.rig.square.run(&*plan).map(|_| ())
    },
};
const RUN: Scenario = Scenario {
    name: "plan, run",
    run: |bench, arm| {
        arm();
        let plan = bench.rig.square.plan(&bench.engine)?;
        bench.rig.square.run(&*plan).map(|_| ())
    },
};
const TILES: Scenario = Scenario {
    name: "run in tiles",
    run: |bench, arm| {
        let plan = bench.rig.batch.plan(&bench.engine)?;
        arm();
        let dispatches = bench.rig.batch.run(&*plan)?;
        assert!(dispatches >= 3, "{dispatches}");
        Ok(())
    },
};
const PRODUCT: Scenario = Scenario {
    name: "sgemm",
    run: |bench, arm| {
        arm();
        bench.rig.product.run(&bench.engine)
    },
};
/// Packed weights, partial sums in scratch, and a second pass with bias.
const GENERATED: Scenario = Scenario {
    name: "generated passes",
    run: |bench, arm| {
        arm();
        run_generated(bench)
    },
};
const CALIBRATE: Scenario = Scenario {
    name: "calibrate",
    run: |bench, arm| {
        arm();
        let measured = bench.engine.worker().call(|session| measured(&mut session.programs))?;
        assert!(measured.flops > 0.0 && measured.upload > 0.0 && measured.launch > 0.0, "{measured:?}");
        Ok(())
    },
};
const DROP_PLAN: Scenario = Scenario {
    name: "drop a plan",
    run: |bench, arm| {
        let plan = bench.rig.square.plan(&bench.engine)?;
        arm();
        drop(plan);
        bench.engine.share_group().map(|_| ())
    },
};
const DROP_ENGINE: Scenario = Scenario {
    name: "drop the engine",
    run: |bench, arm| {
        let engine = bench.rig.open()?;
        let plan = bench.rig.square.plan(&engine)?;
        bench.rig.square.run(&*plan)?;
        arm();
        drop((plan, engine));
        Ok(())
    },
};

const REFERENCE: Scenario = Scenario {
    name: "the reference interface",
    run: |bench, arm| {
        on_reference(bench, arm, &|| {
            reference::compile()?;
            let case = &bench.rig.square;
            let (problem, input, weights) = (&case.problem, &case.input, &case.weights);
            let source = CONV_REFERENCE.source;
            case.check(|output| reference::execute(problem, input, weights, output))?;
            case.check(|output| reference::execute_source(source, problem, input, weights, output))?;
            let program = reference::compile_custom(source)?;
            case.check(|output| reference::execute_custom(program, problem, input, weights, output))
                .map(|_| ())
        })
    },
};
const REFERENCE_BUFFERS: Scenario = Scenario {
    name: "the reference interface's buffers",
    run: |bench, arm| {
        on_reference(bench, arm, &|| {
            let buffer = reference::create_buffer(Some(&[1, 2, 3, 4]), 4)?;
            let mut bytes = [9; 4];
            let read = reference::download_buffer(buffer, &mut bytes);
            assert_eq!(bytes, if read.is_ok() { [1, 2, 3, 4] } else { [9; 4] });
            // The caller frees it in any case.
            let freed = reference::free_buffer(buffer);
            read.and(freed)
        })
    },
};

/// Runs `rig.mixed` with generated passes, which stay in the session. Checks the results unless it fails.
fn run_generated(bench: &Bench) -> Result<()> {
    let case = &bench.rig.mixed;
    let variant = Variant { family: Family::Igemm, tile: Tile::new(32, 32, 16, 4, 4, 1), splits: 2 };
    let mut output = vec![f32::NAN; case.expected.len()];
    bench.engine.worker().call(|session| {
        let bias = case.bias.as_deref();
        Buffered::new(&mut session.programs, variant, &case.problem, &case.weights, bias)?
            .run(&case.input, &mut output)
    })?;
    assert_eq!(output, case.expected, "wrong numbers, and no error");
    Ok(())
}

/// The whole reference interface. Its state is global to the process, so only one test may use it at a time.
fn on_reference(bench: &Bench, arm: &dyn Fn(), uses: &dyn Fn() -> Result<()>) -> Result<()> {
    let engine = Arc::new(bench.rig.open()?);
    arm();
    let result = reference::initialize_on(engine).and_then(|()| uses());
    reference::cleanup();
    assert_eq!((reference::is_initialized(), reference::program()), (false, 0));
    result
}

#[test]
fn the_reference_interface_at_every_call() {
    let building = [Fault::NoCompile, Fault::NoLink, Fault::CreateContexts, Fault::Terminated];
    let all = [&ERRORS[..], &RUNNING, &LOSSES, &building].concat();
    // A caller's buffer disappears with a lost device. Nobody can free it then.
    let buffers = [&ERRORS[..], &[Fault::ReadFails, Fault::NoObject]].concat();
    let scenarios: [(_, &[_]); 2] = [(&REFERENCE, &all), (&REFERENCE_BUFFERS, &buffers)];
    let Some(total) = run_loops(Machine::default(), &scenarios) else { return };
    assert!(total > 300, "{total}");
}

/// Whether `error` is the right report of `fault`.
fn is_reported(fault: Fault, error: &Error) -> bool {
    match fault {
        Fault::Error(api::OUT_OF_MEMORY) | Fault::CreatePbuffer => {
            matches!(error, Error::OutOfMemory { .. })
        }
        Fault::Lost | Fault::LostSilently => matches!(error, Error::DeviceLost { .. }),
        Fault::NeverSignals => matches!(error, Error::Timeout { limit_ms: 20, .. }),
        Fault::NoCompile | Fault::NoLink => matches!(error, Error::Shader { log, .. } if log == "a fault"),
        Fault::Panic => matches!(error, Error::Internal(text) if text.contains("a fault")),
        Fault::NoObject => {
            matches!(error, Error::Driver { reason, .. } if reason == "it returned no object")
        }
        Fault::LoadGl => {
            matches!(error, Error::Driver { reason, .. } if reason == "glDispatchCompute is missing")
        }
        Fault::WaitFails => matches!(error, Error::Driver { reason, .. } if reason == "GL_WAIT_FAILED"),
        Fault::MakeCurrent | Fault::CreateContext | Fault::CreateContexts => {
            matches!(error, Error::Driver { reason, .. } if reason == "EGL_BAD_MATCH")
        }
        Fault::Error(_) | Fault::ReadFails => {
            matches!(error, Error::Driver { reason, .. } if reason == "GL_INVALID_OPERATION")
        }
        // The caller does not notice.
        Fault::Terminated => false,
    }
}

/// Whether the scenario may succeed although `fault` hit `call`.
fn may_pass(fault: Fault, call: &str) -> bool {
    match fault {
        // The lost result is created again.
        Fault::Lost | Fault::LostSilently | Fault::Terminated => true,
        // No caller waits for deletions, and the next job ignores their errors.
        // A program without a binary is compiled.
        Fault::Error(_) => call.starts_with("delete_") || BINARIES.contains(&call),
        // The context is destroyed with its thread.
        Fault::MakeCurrent => call == "egl_unbind",
        // A root context is tried again with fewer features.
        Fault::CreateContext => call == "egl_create_root",
        _ => false,
    }
}

const BINARIES: [&str; 2] = ["load_program_binary", "program_binary"];

/// Runs a scenario with `fault` at each of its calls. Returns how many there were, and how many were reported.
fn run_loop(bench: &Bench, scenario: &Scenario, fault: Fault) -> (u64, u64) {
    let faults = &bench.rig.faults;
    let mut reported = 0;
    for number in 1..1000 {
        let result = (scenario.run)(bench, &|| faults.arm(fault, number));
        let hit = faults.disarm();
        let when = format!("{}, {fault:?} at call {number}, {hit:?}: {result:?}", scenario.name);
        match (&result, hit) {
            (Ok(()), None) => return (number - 1, reported),
            (Ok(()), Some(call)) => assert!(may_pass(fault, call), "{when}"),
            (Err(error), Some(_)) => assert!(is_reported(fault, error), "{when}"),
            (Err(_), None) => panic!("{when}"),
        }
        reported += u64::from(result.is_err());
        bench.assert_healthy(&when);
    }
    panic!("{}: {fault:?}: no end", scenario.name);
}

/// Runs all pairs. Returns the number of faults.
fn run_loops(machine: Machine, scenarios: &[(&Scenario, &[Fault])]) -> Option<u64> {
    let rig = Rig::new(machine)?;
    let bench = Bench::new(&rig);
    let mut total = 0;
    for (scenario, faults) in scenarios {
        for &fault in *faults {
            let (injected, reported) = run_loop(&bench, scenario, fault);
            println!("{}, {fault:?}: {injected} faults, {reported} reported", scenario.name);
            assert!(injected > 0, "{}: {fault:?} hit nothing", scenario.name);
            let silent = [DROP_PLAN.name, DROP_ENGINE.name].contains(&scenario.name)
                || matches!(fault, Fault::Terminated);
            assert_eq!(reported == 0, silent, "{}: {fault:?}", scenario.name);
            total += injected;
        }
    }
    drop(bench);
    assert_eq!(rig.faults.objects(), Default::default(), "all closed");
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
    Some(total)
}

const ERRORS: [Fault; 2] = [Fault::Error(api::OUT_OF_MEMORY), Fault::Error(api::INVALID_OPERATION)];
const RUNNING: [Fault; 4] = [Fault::WaitFails, Fault::NeverSignals, Fault::ReadFails, Fault::NoObject];
const LOSSES: [Fault; 2] = [Fault::Lost, Fault::LostSilently];
const SMALL: Machine = Machine {
    max_block: Some(SMALL_BLOCK),
    needs_surface: false,
    no_storage: false,
    binaries: false,
    lazy: None,
    compute_units: None,
};

/// Generated programs, packed weights and scratch are lost with their context and created again with the next.
#[test]
fn generated_passes_at_every_call() {
    let Some(rig) = Rig::new(SMALL) else { return };
    let bench = Bench::using(&rig, Some(run_generated));
    let mut total = 0;
    for fault in [&ERRORS[..], &RUNNING, &[Fault::Lost]].concat() {
        let (injected, reported) = run_loop(&bench, &GENERATED, fault);
        assert!(injected > 0 && reported > 0, "{fault:?}");
        total += injected;
    }
    assert!(total > 100, "{total}");
    drop(bench);
    assert_eq!(rig.faults.objects(), Default::default(), "all closed");
}

#[test]
fn gl_errors_at_every_call() {
    let scenarios = [&OPEN, &RUN, &TILES, &PRODUCT, &CALIBRATE, &DROP_PLAN, &DROP_ENGINE];
    let Some(total) = run_loops(SMALL, &scenarios.map(|it| (it, &ERRORS[..]))) else { return };
    assert!(total > 500, "{total}");
}

#[test]
fn binaries_that_fail_at_every_call() {
    let machine = Machine { binaries: true, ..SMALL };
    let faults = [&ERRORS[..], &LOSSES].concat();
    let Some(total) = run_loops(machine, &[(&OPEN, &faults), (&RUN, &faults)]) else { return };
    assert!(total > 50, "{total}");
}

#[test]
fn waits_reads_and_objects_that_fail() {
    let scenarios = [&OPEN, &RUN, &TILES, &PRODUCT, &CALIBRATE];
    let Some(total) = run_loops(SMALL, &scenarios.map(|it| (it, &RUNNING[..]))) else { return };
    assert!(total > 100, "{total}");
}

#[test]
fn contexts_lost_at_every_call() {
    let scenarios = [&OPEN, &RUN, &TILES, &PRODUCT, &CALIBRATE, &DROP_PLAN, &DROP_ENGINE];
    let Some(total) = run_loops(SMALL, &scenarios.map(|it| (it, &LOSSES[..]))) else { return };
    assert!(total > 500, "{total}");
}

#[test]
fn panics_at_every_call() {
    let scenarios = [&OPEN, &RUN, &TILES, &PRODUCT, &CALIBRATE];
    let Some(total) = run_loops(SMALL, &scenarios.map(|it| (it, &[Fault::Panic][..]))) else { return };
    assert!(total > 300, "{total}");
}

#[test]
fn engines_that_do_not_open() {
    use Fault::*;
    let opening = [MakeCurrent, CreateContext, CreateContexts, LoadGl, NoCompile, NoLink];
    let closing = [MakeCurrent];
    let Some(total) = run_loops(SMALL, &[(&OPEN, &opening), (&DROP_ENGINE, &closing)]) else { return };
    assert!(total >= 9, "{total}");
}

#[test]
fn surfaces_that_fail() {
    let machine = Machine { needs_surface: true, ..SMALL };
    let faults = [Fault::CreatePbuffer, Fault::MakeCurrent, Fault::LoadGl, Fault::CreateContexts];
    let Some(total) = run_loops(machine, &[(&OPEN, &faults)]) else { return };
    assert!(total >= 6, "{total}");
}

/// A fence that is never flushed never signals. The engine's waits end all the same.
#[test]
fn fences_are_flushed() {
    let mut finished = vec![];
    for (flush, wait) in [(true, true), (true, false), (false, true), (false, false)] {
        let machine = Machine { lazy: Some(FlushedBy { flush, wait }), ..SMALL };
        let Some(rig) = Rig::new(machine) else { return };
        let engine = rig.open().unwrap();
        let ran = [
            rig.batch.run(&*rig.batch.plan(&engine).unwrap()).map(|_| ()),
            rig.product.run(&engine),
            // The engine's own kernel may be cached by an earlier process.
            engine.worker().call(|session| measured(&mut session.programs)).map(|_| ()),
        ];
        let timeouts = ran.iter().filter(|it| matches!(it, Err(Error::Timeout { .. }))).count();
        finished.push((ran.iter().filter(|it| it.is_ok()).count(), timeouts));
    }
    // If neither flush works, waits end at their limit. This proves that the fake device needs a flush.
    assert_eq!(finished, [(3, 0), (3, 0), (3, 0), (0, 3)]);
}
