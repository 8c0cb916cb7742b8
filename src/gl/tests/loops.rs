//! Loops that end early: what the probe finds, and deep reductions on real and fake devices.

use std::sync::Arc;

use super::fake::{self, FakeEgl, Gpu, Listed, Numbers};
use super::rig::Case;
use crate::backend::Backend;
use crate::gl::device::discovery::discover;
use crate::gl::device::engine::Engine;
use crate::gl::driver::egl::Egl;
use crate::problem::{Algorithm, Conv2dDesc};

/// A machine with one GPU.
fn machine(gpu: Gpu) -> Arc<dyn Egl> {
    FakeEgl::new(fake::Machine {
        extensions: Some("EGL_EXT_device_enumeration EGL_EXT_device_base EGL_EXT_platform_device"),
        gpus: vec![gpu],
        listed: Ok(vec![Listed::new(0)]),
        surfaceless: Err(fake::BAD_DISPLAY),
        default: Err(fake::SUCCESS),
    })
}

/// Deep sums are exact for any limit on iterations. The probe reports how many iterations are safe.
#[test]
fn deep_sums_are_exact_whatever_the_device_makes() {
    let mut ran = 0;
    for (made, relied_on) in [(5_000, 4_375), (65_535, 57_344), (usize::MAX, 917_504)] {
        let egl = machine(Gpu { iterations: made, ..Gpu::new("fake") });
        let found = discover(Ok(&egl)).unwrap();
        let target = found[0].target.expect("the device is usable");
        assert_eq!(target.max_iterations, relied_on);
        let facts = &found[0].candidate.facts;
        assert!(facts.contains(&("loop iterations", format!("{relied_on} relied on"))), "{facts:?}");
        let engine = Engine::new(&egl, "gl:fake", true, target).unwrap();
        let base = Conv2dDesc { k: 2, algorithm: Algorithm::Direct, ..Default::default() };
        let mixed = Conv2dDesc { groups: 2, bias: true, relu: true, dilation_h: 2, stride_w: 2, ..base };
        for (desc, is_deep) in [
            // Many channels, many rows, many columns.
            (Conv2dDesc { c: 30_000, ..base }, true),
            (Conv2dDesc { c: 3, h: 90, w: 70, r: 90, s: 70, ..base }, made < 6000),
            (Conv2dDesc { h: 2, w: 10_000, r: 1, s: 9_999, pad_w: 3, stride_w: 7, ..base }, made < 6000),
            (Conv2dDesc { c: 1_500, h: 5, w: 4, r: 3, s: 5, pad_h: 1, pad_w: 2, ..mixed }, made < 6000),
        ] {
            let case = Case::new(desc, 5);
            let plan = engine.plan_conv2d(&case.problem, &case.weights, case.bias.as_deref()).unwrap();
            let dispatches = case.run(&*plan).unwrap();
            assert_eq!(dispatches > 1, is_deep, "{made}: {desc:?}: {dispatches} dispatches");
            assert_eq!(plan.kernel() == "conv_direct_64_parts", is_deep);
            ran += 1;
        }
    }
    assert_eq!(ran, 12);
}

#[test]
fn a_device_whose_loops_cannot_be_relied_on_is_not_used() {
    let mut refused = 0;
    for (gpu, why) in [
        (
            Gpu { iterations: 4_000, ..Gpu::new("fake") },
            "loops of 1048576 iterations made 4000, or a wrong value",
        ),
        (
            Gpu { numbers: Numbers::MiscountedLoops, ..Gpu::new("fake") },
            "loops of 1048576 iterations made 1048575, or a wrong value",
        ),
    ] {
        let found = discover(Ok(&machine(gpu))).unwrap();
        let reason = found[0].candidate.unusable.as_deref().unwrap();
        assert_eq!(reason, format!("EGL device 0: the probe failed: {why}"));
        refused += 1;
    }
    assert_eq!(refused, 2);
}
