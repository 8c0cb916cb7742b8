//! Plans for the caller's own loops.

use std::ptr::{null, null_mut};

use sparkle::ffi::loops::*;
use sparkle::ffi::status::sparkle_status::{self, *};

use super::cases::{Cases, extremes, open_cpu};

const STENCIL: sparkle_loops = sparkle_loops {
    size: size_of::<sparkle_loops>(),
    kind: 1,
    shape: 0,
    extents: [20, 30, 40],
    radius: [4, 1, 1],
    reads: 0,
    writes: 0,
    element_bytes: 0,
    threads: 0,
    reserved: 0,
    flops: 0.0,
};

#[test]
fn loops_with_bad_arguments() {
    let device = open_cpu();
    // SAFETY: all zeros are values of its fields.
    let empty: sparkle_loop_plan = unsafe { std::mem::zeroed() };
    let mut plan = sparkle_loop_plan { size: size_of::<sparkle_loop_plan>(), tasks: -7, ..empty };
    let out = &raw mut plan;
    let planned = |loops: *const sparkle_loops| -> sparkle_status {
        // SAFETY: the struct is as large as it says, or the call must refuse it.
        unsafe { sparkle_plan_loops(device, loops, out) }
    };
    let mut cases = Cases::default();
    let invalid = SPARKLE_ERROR_INVALID_ARGUMENT;
    cases.refused(SPARKLE_ERROR_NULL_POINTER, "sparkle_loops is NULL", || planned(null()));
    // SAFETY: the call refuses NULL.
    cases.refused(SPARKLE_ERROR_NULL_POINTER, "out is NULL", || unsafe {
        sparkle_plan_loops(device, &STENCIL, null_mut())
    });
    for size in [0, 79, 4097, usize::MAX] {
        cases.refused(invalid, "sparkle_loops", || planned(&sparkle_loops { size, ..STENCIL }));
    }
    for kind in [-1, 2, i32::MAX] {
        cases.refused(invalid, "kind is", || planned(&sparkle_loops { kind, ..STENCIL }));
        cases.refused(invalid, "shape is", || planned(&sparkle_loops { shape: kind, ..STENCIL }));
        cases.refused(invalid, "reserved is", || planned(&sparkle_loops { reserved: kind, ..STENCIL }));
    }
    for radius in [[10, 1, 1], [4, 15, 1], [4, 1, i32::MAX], [i32::MIN, 1, 1]] {
        cases.refused(invalid, "radius is", || planned(&sparkle_loops { radius, ..STENCIL }));
    }
    for count in [-1, 65, i32::MAX, i32::MIN] {
        cases.refused(invalid, "reads is", || planned(&sparkle_loops { reads: count, ..STENCIL }));
        cases.refused(invalid, "writes is", || planned(&sparkle_loops { writes: count, ..STENCIL }));
        let wrong = sparkle_loops { element_bytes: count, ..STENCIL };
        cases.refused(invalid, "element", || planned(&wrong));
    }
    cases.refused(invalid, "threads is", || planned(&sparkle_loops { threads: -1, ..STENCIL }));
    cases.refused(invalid, "threads is", || planned(&sparkle_loops { threads: 65537, ..STENCIL }));
    for flops in [-1.0, f64::NAN, f64::INFINITY] {
        cases.refused(invalid, "flops is", || planned(&sparkle_loops { flops, ..STENCIL }));
    }
    for extent in extremes().filter(|extent| !(1..1 << 40).contains(extent)) {
        for axis in 0..3 {
            let mut loops = STENCIL;
            loops.extents[axis] = extent;
            cases.refused(invalid, "extents is", || planned(&loops));
            loops.kind = 0;
            cases.refused(invalid, "extents is", || planned(&loops));
        }
    }
    assert_eq!(plan.tasks, -7, "nothing is written");
    cases.at_least(100);
    assert_eq!(planned(&STENCIL), SPARKLE_OK);
    // SAFETY: as above.
    let plan = unsafe { out.read() };
    assert!(plan.tasks > 0 && plan.block[0] == 12 && plan.seconds > 0.0 && plan.why[0] != 0);
    assert!(plan.naive_seconds >= plan.seconds && (0..=4).contains(&plan.binds));
    assert_eq!(planned(&sparkle_loops { kind: 0, ..STENCIL }), SPARKLE_OK);
}
