//! What `rates` and `ceilings` measure on a device of known speed.

use super::fake::{Gpu, Speed};
use super::limits::context_on;
use crate::gl::execution::programs::Programs;
use crate::gl::measure::{ceilings, rates};

/// Launch time, units, arithmetic and reads are all measured right, despite occasional interference.
#[test]
fn a_device_is_measured_as_it_is() {
    let mut measured = 0;
    for (units, launch, noise) in [(1, 2_000, 0), (16, 5_000, 0), (64, 3_000, 200_000)] {
        let speed = Speed { launch, units, step: 4_000, read: 4_000, noise };
        let gpu = Gpu { speed: Some(speed), max_block: 1 << 20, ..Gpu::new("llvmpipe with a clock") };
        let mut programs = Programs::new(context_on(gpu));
        let got = rates::measure(&mut programs).unwrap();
        let near = |got: f64, expected: f64, what: &str| {
            assert!((got / expected - 1.0).abs() < 0.2, "{what}: {got:e}, not {expected:e}: {speed:?}");
        };
        println!("{got:?}");
        // An empty dispatch has one step.
        near(got.launch, (launch + 4_000) as f64 * 1e-9, "launch");
        // A software renderer gets only four workgroups, so it shows at most four units.
        assert_eq!(got.units as u64, units.min(4), "{got:?}");
        let operations = (512 * 64) as f64 * units.min(4) as f64;
        near(got.flops, operations / 4_000e-9, "flops");
        near(got.memory, (16 * 256 * 16) as f64 / 4_000e-9, "memory");
        assert_eq!(got.max_elements, (1 << 20) / 4);
        let [flops, shared, cache, memory, seen] = ceilings::measure(&mut programs).unwrap();
        near(flops, operations / 4_000e-9, "peak");
        near(shared, (256 * 8 * 16) as f64 * units.min(4) as f64 / 4_000e-9, "shared memory");
        near(memory, (16 * 256 * 16) as f64 / 4_000e-9, "reads");
        // The device has no cache.
        assert_eq!((cache, seen), (0.0, 0.0));
        measured += 1;
    }
    assert_eq!(measured, 3);
}
