//! Plans worked out by hand on an invented CPU.

use super::*;
use crate::memory::{Caches, Reads, Registers};

/// A core of 120 GFLOPS, two of them, with rates and caches of round numbers.
fn machine() -> Hierarchy {
    Hierarchy {
        peak: 120e9,
        threads: 2,
        registers: Registers { count: 16, lanes: 8 },
        caches: Caches {
            l1: 32 << 10,
            l1_threads: 1,
            l2: 512 << 10,
            l2_threads: 1,
            l3: 32 << 20,
            l3_threads: 2,
            line: 64,
        },
        reads: Reads { l1: [200e9, 400e9], l2: [100e9, 200e9], l3: [50e9, 100e9], memory: [20e9, 25e9] },
        ..Hierarchy::UNKNOWN
    }
}

fn planned(stencil: Stencil) -> LoopPlan {
    plan(&machine(), &Loops::stencil(stencil).unwrap()).unwrap()
}

/// Bytes per point that each level serves.
fn per_point(stencil: &Stencil, cost: &Cost) -> [f64; 4] {
    let inner = |axis: usize| (stencil.extents[axis] - 2 * stencil.radius[axis]) as f64;
    cost.bytes.map(|bytes| (bytes / (inner(0) * inner(1) * inner(2)) * 1000.0).round() / 1000.0)
}

#[test]
fn layer_conditions_worked_by_hand() {
    // Planes of 4.4 MB: nine and the one that is written exceed half of L3. Twelve rows of 4.4 kB fit in half of L2, not of
    // L1, which misses 11 rows; L2 and L3 miss nine planes. The line that is written counts twice.
    let stencil = Stencil::star([48, 1010, 1100], [4, 1, 1]);
    let plan = planned(stencil);
    assert_eq!(per_point(&stencil, &plan.naive), [4.0, 8.0, 0.0, 44.0]);
    let points = 40.0 * 1008.0 * 1098.0;
    let expected = points * (4.0 / 200e9 + 8.0 / 100e9 + 44.0 / 20e9);
    assert!((plan.naive.seconds / expected - 1.0).abs() < 1e-12, "{plan:?}");
    assert_eq!((plan.naive.binds, plan.tasks), (Bound::Memory, 1008_usize.div_ceil(plan.block[1])));
    // Ten rows of each plane, with the edges of one, fill half of L2: (10 h + 2) 1098 x 4 <= 256 KiB.
    assert_eq!(plan.block, [40, 5, 1098]);
    let halo = 7.0 * 1100.0 / (5.0 * 1098.0);
    let memory = 4.0 * (halo + 2.0);
    let expected = [4.0, 52.0 - memory, 0.0, memory].map(|bytes: f64| (bytes * 1000.0).round() / 1000.0);
    assert_eq!(per_point(&stencil, &plan.cost), expected);
    assert!((2.0..2.3).contains(&plan.gain()), "{plan}");
    assert!(
        plan.why.contains("exceed half of every cache") && plan.why.contains("fit in half of L2"),
        "{plan}"
    );
    assert_eq!(plan.tile, [1, 64]);
}

#[test]
fn a_stencil_whose_planes_fit_is_not_cut() {
    // Three planes of 256 KB and the written one fit in half of L3.
    let stencil = Stencil::star([100, 250, 250], [1, 1, 1]);
    let plan = planned(stencil);
    assert_eq!(per_point(&stencil, &plan.naive)[3], 12.0);
    assert!(plan.cost.seconds <= plan.naive.seconds);
    // A small one has all in L2: nothing is better than whole planes.
    let small = planned(Stencil::star([20, 20, 20], [1, 1, 1]));
    assert_eq!((small.block, small.tasks, small.gain()), ([18, 18, 18], 1, 1.0));
    assert!(small.why.contains("no smaller block"), "{small}");
}

#[test]
fn long_rows_are_cut_only_if_not_one_row_of_each_plane_fits() {
    // Rows of 4 MB: not even those of one plane stay in a cache.
    let flat = planned(Stencil::star([1, 1000, 1 << 20], [0, 4, 4]));
    assert!(flat.block[2] < 1 << 20 && flat.block[2] >= 512, "{flat}");
    assert!(flat.gain() > 1.5, "{flat}");
    let short = planned(Stencil::star([1, 1 << 20, 1000], [0, 4, 4]));
    assert_eq!(short.block[2], 992, "{short}");
}

#[test]
fn more_neighbours_and_arrays_cost_more() {
    let star = Stencil::star([64, 512, 500], [2, 2, 2]);
    let cube = Stencil { shape: StencilShape::Box, ..star };
    let more = Stencil { reads: 2, ..star };
    let long = Stencil { element: 8, ..star };
    let seconds = |stencil| planned(stencil).cost.seconds;
    assert!(seconds(cube) > seconds(star) && seconds(more) > seconds(star) && seconds(long) > seconds(star));
    assert_eq!(planned(cube).cost.binds, Bound::L1, "125 loads a point");
    assert!(planned(Stencil { flops: 1e4, ..star }).cost.binds == Bound::Arithmetic);
    assert_eq!(planned(long).tile[1], planned(star).tile[1] / 2);
}

#[test]
fn every_thread_has_a_block() {
    let mut cases = 0;
    for extents in [[48, 1010, 1100], [100, 12, 1000], [64, 64, 64], [1, 100, 1000]] {
        for threads in [2, 3, 16] {
            let stencil = Stencil::star(extents, [usize::from(extents[0] > 9) * 4, 1, 1]);
            let loops = Loops::stencil(stencil).unwrap().on(threads).unwrap();
            let plan = plan(&machine(), &loops).unwrap();
            let [planes, rows, cols] = [0, 1, 2].map(|axis| extents[axis] - 2 * stencil.radius[axis]);
            let count =
                planes.div_ceil(plan.block[0]) * rows.div_ceil(plan.block[1]) * cols.div_ceil(plan.block[2]);
            assert_eq!(plan.tasks, count, "{plan}");
            assert!(plan.tasks >= threads || plan.block[1] == 1, "{threads} threads: {plan}");
            cases += 1;
        }
    }
    assert_eq!(cases, 12);
    let alone = planned(Stencil::star([48, 1010, 1100], [4, 1, 1])).naive.seconds;
    let loops = Loops::stencil(Stencil::star([48, 1010, 1100], [4, 1, 1])).unwrap().on(2).unwrap();
    let both = plan(&machine(), &loops).unwrap().naive.seconds;
    assert!(both < alone && both > alone / 2.0, "two threads share the memory");
}

#[test]
fn products_have_the_blocks_of_the_engine() {
    let plan = |rows, cols, depth| plan(&machine(), &Loops::gemm(rows, cols, depth).unwrap()).unwrap();
    let large = plan(2000, 2000, 2000);
    assert_eq!((large.tile, large.cost.binds), ([6, 16], Bound::Arithmetic));
    assert!(large.block.iter().all(|&extent| extent > 0 && extent <= 2000 + 16), "{large}");
    assert!((large.cost.seconds - 16e9 / 120e9).abs() < 0.02, "{large}");
    assert!(large.gain() > 4.0 && large.naive.binds != Bound::Arithmetic, "{large}");
    // A product with a vector reads A once: blocks change nothing.
    let vector = plan(4000, 1, 4000);
    assert_eq!(vector.cost.binds, Bound::Memory);
    let text = large.to_string();
    assert!(text.starts_with("registers  6 x 16\nblock      ") && text.contains("times as fast"), "{text}");
}

#[test]
fn senseless_loops_are_refused() {
    let refused = |result: Result<Loops>, argument: &str| match result {
        Err(Error::InvalidArgument { argument: found, .. }) => assert_eq!(found, argument),
        other => panic!("{argument}: {other:?}"),
    };
    refused(Loops::gemm(0, 1, 1), "extents");
    refused(Loops::gemm(usize::MAX, usize::MAX, 1), "extents");
    let star = Stencil::star([9, 9, 9], [1, 1, 1]);
    refused(Loops::stencil(Stencil { radius: [5, 1, 1], ..star }), "radius");
    refused(Loops::stencil(Stencil { radius: [1, 1, usize::MAX], ..star }), "radius");
    refused(Loops::stencil(Stencil { writes: 0, ..star }), "writes");
    refused(Loops::stencil(Stencil { reads: 65, ..star }), "reads");
    refused(Loops::stencil(Stencil { element: 2, ..star }), "element");
    refused(Loops::stencil(Stencil { flops: f64::NAN, ..star }), "flops");
    refused(Loops::stencil(star).unwrap().on(0), "threads");
    let smallest = Loops::stencil(Stencil { radius: [4, 4, 4], ..star }).unwrap();
    assert_eq!(plan(&machine(), &smallest).unwrap().block, [1, 1, 1]);
    // Not measured, or a GPU.
    for unmeasured in [Hierarchy::UNKNOWN, Hierarchy { reads: Reads::UNKNOWN, ..machine() }] {
        let error = plan(&unmeasured, &smallest).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { argument: "hierarchy", .. }), "{error}");
    }
    // A machine that tells no caches gets assumed ones.
    let bare = Hierarchy { caches: Caches::UNKNOWN, registers: Registers::UNKNOWN, ..machine() };
    assert!(plan(&bare, &Loops::gemm(100, 100, 100).unwrap()).unwrap().cost.seconds > 0.0);
}
