//! What a device cannot run, and calls that fail.

use super::super::faulty::{Fault, Machine};
use super::super::rig::Rig;
use super::*;
use crate::error::Error;
use crate::gl::driver::api;

/// Kernels that need more than a device has, and what the error says.
fn too_much() -> Vec<(String, Vec<Given>, &'static str)> {
    let ones = || Given::Ints(vec![1; 8]);
    let names: Vec<String> = (0..100).map(|number| format!("a{number}")).collect();
    let list = names.join(", ");
    let many = format!(
        "!@kernel(base=1)\nsubroutine f(i, {list})\ninteger, value :: i\ninteger, intent(inout) :: {}\n{}end subroutine\n",
        names.iter().map(|name| format!("{name}(8)")).collect::<Vec<_>>().join(", &\n"),
        names.iter().map(|name| format!("{name}(i) = 2\n")).collect::<String>()
    )
    .replace(", a", ", &\na");
    let long =
        "!@kernel(base=1)\nsubroutine f(i, a)\ninteger, value :: i\ninteger(8), intent(inout) :: a(8)\n\
                a(i) = 2\nend subroutine\n"
            .to_owned();
    vec![(many, vec![ones(); 100], "100 arrays"), (long, vec![Given::Longs(vec![1; 8])], "64-bit integers")]
}

#[test]
fn what_the_device_lacks_is_an_error_with_the_reason() {
    let Some(engine) = super::super::first_engine() else { return };
    for (text, given, reason) in too_much() {
        let mut after = given.clone();
        let error = launch(&engine, (&unit(&text), "f"), &[8], &mut after, Parameters::Uniform).unwrap_err();
        assert!(
            matches!(&error, Error::Unsupported { what, .. } if what.contains("\"f\"") && what.contains(reason)),
            "{error}"
        );
        assert!(error.is_device_failure(), "the device layer falls back");
        assert_eq!(after, given);
    }
}

/// Every call fails once. The error is right, the arrays are untouched, nothing leaks, and the next launch works.
#[test]
fn every_call_fails_once() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let (unit, n) = (file("language/reductions.f90"), 70_000);
    let run = |given: &mut [Given]| launch(&engine, (&unit, "dot"), &[n], given, Parameters::Buffer);
    let mut random = Random::new(31);
    let given = vec![int(n as i64), reals(&mut random, n), reals(&mut random, n), Given::Reals(vec![0.5])];
    let mut expected = given.clone();
    run(&mut expected).unwrap();
    assert_ne!(expected, given);
    let mut hits = 0;
    let faults = [
        Fault::Error(api::OUT_OF_MEMORY),
        Fault::Error(api::INVALID_OPERATION),
        Fault::Lost,
        Fault::LostSilently,
        Fault::WaitFails,
        Fault::NeverSignals,
        Fault::ReadFails,
        Fault::NoObject,
        Fault::Panic,
    ];
    for fault in faults {
        for number in 1.. {
            let mut after = given.clone();
            rig.faults.arm(fault, number);
            let result = run(&mut after);
            let hit = rig.faults.disarm();
            let when = format!("{fault:?} at call {number}, {hit:?}: {result:?}");
            let right = match (&result, fault) {
                // A fault in what is cleaned up or only reported does no harm.
                (Ok(_), _) => after == expected,
                (Err(error), Fault::Error(api::OUT_OF_MEMORY)) => matches!(error, Error::OutOfMemory { .. }),
                (Err(error), Fault::Lost | Fault::LostSilently) => matches!(error, Error::DeviceLost { .. }),
                (Err(error), Fault::NeverSignals) => matches!(error, Error::Timeout { .. }),
                (Err(error), Fault::Panic) => matches!(error, Error::Internal(_)),
                (Err(error), _) => error.is_device_failure(),
            };
            assert!(right && (result.is_ok() || after == given), "{when}");
            let mut after = given.clone();
            run(&mut after).unwrap();
            assert!(after == expected && rig.faults.violations().is_empty(), "{when}: the next launch");
            assert_eq!(rig.faults.objects().get("buffer"), None, "{when}: buffers are left");
            if hit.is_none() {
                break;
            }
            hits += 1;
        }
    }
    assert!(hits > 150, "{hits}");
}

#[test]
fn a_text_that_the_driver_refuses() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let (engine, unit) = (rig.open().unwrap(), file("language/saxpy.f90"));
    let given = vec![int(2), real(1.0), Given::Reals(vec![1.0; 2]), Given::Reals(vec![2.0; 2])];
    for fault in [Fault::NoCompile, Fault::NoLink] {
        let mut after = given.clone();
        rig.faults.arm(fault, 1);
        let result = launch(&engine, (&unit, "saxpy"), &[2], &mut after, Parameters::Uniform);
        if rig.faults.disarm().is_none() {
            // The driver kept a binary of an earlier test.
            continue;
        }
        match result {
            // A binary was refused, and the text was compiled.
            Ok(_) => assert_eq!(after[3], Given::Reals(vec![3.0; 2])),
            Err(error) => {
                let text = error.to_string();
                assert!(matches!(error, Error::Shader { .. }) && !text.contains("a fault"), "{text}");
                assert_eq!(after, given);
            }
        }
        let mut after = given.clone();
        launch(&engine, (&unit, "saxpy"), &[2], &mut after, Parameters::Uniform).unwrap();
        assert_eq!(after[3], Given::Reals(vec![3.0; 2]));
    }
}
