//! Every kernel family with its options, exact on small integers, with and without NaN and infinities. Each buffer
//! lies between guard words.
//!
//! `SPARKLE_TEST_CASES` is the number of cases of each of the four tests, `SPARKLE_TEST_SEED` selects them.
//! Together they cover nearly every kind of kernel on a driver with 32 KiB of shared memory. A software driver
//! spends most of the time on compiling. `SPARKLE_TEST_PRODUCTS` is the number of products for each tile.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::faulty::{Faults, FaultyEgl, Machine};
use super::first_device;
use super::guards::Guards;
use crate::gl::cache;
use crate::gl::device::discovery::discovered;
use crate::gl::device::engine::Engine;
use crate::gl::device::session::Session;
use crate::gl::driver::api;
use crate::gl::driver::resource::{Buffer, Program};
use crate::gl::lab::{Numbers, compare_on};
use crate::gl::product;
use crate::memory::tiles::{Gpu, TILES, Tile};
use crate::problem::exact::Random;
use crate::problem::{Conv2d, Gemm, GemmDesc, Layout, Transpose, oracle};
use crate::shader::cases::Cases;
use crate::shader::pass_plan;
use crate::shader::variant::Variant;

/// Default number of cases of all four tests together: distinct pairs of a problem and a variant.
const CASES: usize = 520;
/// Distance between selected cases. Neighbouring cases are similar; a distance makes few cases cover all kinds.
const STRIDE: usize = 7;

/// An engine with guards on the machine's first device.
fn guarded() -> Option<(Engine, Arc<Guards>)> {
    let target = first_device()?;
    let inner = discovered().unwrap().egl.clone().expect("EGL found the device");
    let guards = Arc::new(Guards::default());
    let machine = Machine::default();
    let egl = FaultyEgl { inner, faults: Arc::new(Faults::default()), machine, guards: Some(guards.clone()) };
    let egl: Arc<dyn crate::gl::driver::egl::Egl> = Arc::new(egl);
    Some((Engine::new(&egl, "gl:guarded", true, target).unwrap(), guards))
}

/// A device with these limits.
fn limits(engine: &Engine) -> Gpu {
    let limits = |session: &mut Session| {
        let it = session.context().capabilities();
        Ok(cache::with_limits(Gpu::ASSUMED, it, session.context().group().max_iterations()))
    };
    engine.worker().call(limits).unwrap()
}

/// The guards detect accesses beyond the end.
#[test]
fn guards_see_writes_beyond_the_end() {
    let Some((engine, guards)) = guarded() else { return };
    let context = engine.share_group().unwrap().context().unwrap();
    for (index, broken) in [(15, 0), (16, 1), (16 + 1023, 2)] {
        let source = format!(
            "#version 430 core\nlayout(local_size_x = 1) in;\nlayout(std430, binding = 2) buffer B {{ float x[]; }};\n\
             void main() {{ x[{index}] = 1.0; }}"
        );
        let (buffer, program) =
            (Buffer::new(&context, 64).unwrap(), Program::build(&context, "far", &source).unwrap());
        buffer.bind(2);
        context.api().use_program(program.name());
        context.api().dispatch_compute(1, 1, 1);
        context.api().memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
        drop(buffer);
        context.check("glDispatchCompute").unwrap();
        assert_eq!(guards.broken().len(), broken, "{index}: {:?}", guards.broken());
    }
    assert_eq!(guards.checked(), 6);
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A quarter of the cases for a device with these limits: case `first`, and every fourth after it.
fn chosen(first: usize, limits: Gpu) -> impl Iterator<Item = (usize, (Conv2d, Variant))> {
    let cases = Cases::new(number("SPARKLE_TEST_SEED", 41) as u64, limits);
    let count = number("SPARKLE_TEST_CASES", CASES / 4);
    cases.enumerate().skip(STRIDE * first).step_by(4 * STRIDE).take(count)
}

/// Holds for any device. With less shared memory there are fewer tiles, and the sequence of kinds repeats sooner.
#[test]
fn the_cases_are_all_different() {
    for shared_bytes in [16 << 10, 32 << 10, 48 << 10, 64 << 10] {
        let limits = Gpu { shared_bytes, ..Gpu::ASSUMED };
        let all: Vec<String> =
            (0..4).flat_map(|first| chosen(first, limits)).map(|(_, case)| format!("{case:?}")).collect();
        let distinct: BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "with {shared_bytes} bytes");
    }
}

fn exact(first: usize) {
    let Some((engine, guards)) = guarded() else { return };
    let (mut ran, mut not_finite) = (0, 0);
    for (index, (problem, variant)) in chosen(first, limits(&engine)) {
        for numbers in [Numbers::Integers, Numbers::NotFinite] {
            let compared = compare_on(&engine, &problem, &variant, numbers, index as u64).unwrap();
            assert_eq!(compared.wrong, 0, "{variant}, {numbers:?}: {problem:?}");
            not_finite += compared.not_finite;
        }
        assert_eq!(guards.broken(), Vec::<String>::new(), "{variant}: {problem:?}");
        ran += 1;
    }
    assert!(ran > 0 && guards.checked() > 8 * ran, "{ran} cases, {} guards", guards.checked());
    assert!(not_finite > ran, "{not_finite} outputs that are not finite");
}

#[test]
fn families_are_exact_between_guards_1() {
    exact(0);
}

#[test]
fn families_are_exact_between_guards_2() {
    exact(1);
}

#[test]
fn families_are_exact_between_guards_3() {
    exact(2);
}

#[test]
fn families_are_exact_between_guards_4() {
    exact(3);
}

/// A product of any size and layout.
fn any_product(random: &mut Random) -> GemmDesc {
    let layout = random.pick(&[Layout::RowMajor, Layout::ColMajor]);
    let [m, n, k] = [(); 3].map(|()| random.between(1, 150));
    let [trans_a, trans_b] = [(); 2].map(|()| random.pick(&[Transpose::No, Transpose::Yes]));
    let (lda, ldb, ldc) = (m.max(k) + 3, k.max(n) + random.between(0, 1), m.max(n));
    let beta = random.pick(&[0.0, 2.0]);
    GemmDesc { layout, trans_a, trans_b, m, n, k, alpha: -2.0, lda, ldb, beta, ldc }
}

/// A product of whole tiles. The first matrix has the kernel's layout; the second is packed or not.
fn whole_product(random: &mut Random, tile: &Tile) -> GemmDesc {
    let layout = random.pick(&[Layout::RowMajor, Layout::ColMajor]);
    let (rows, cols) = (tile.bm as i64 * random.between(1, 2), 4 * random.between(1, 20));
    let k = tile.bk as i64 * random.between(1, 3);
    let (other, gap) = (random.pick(&[Transpose::No, Transpose::Yes]), random.pick(&[0, 4]));
    let beta = random.pick(&[0.0, 2.0]);
    // A line of the second matrix is as long as the columns or the depth.
    let line = if other == Transpose::No { cols } else { k } + random.pick(&[0, 3]);
    let desc = GemmDesc { layout, k, alpha: -2.0, beta, ..GemmDesc::packed(layout, 1, 1, 1) };
    match layout {
        Layout::RowMajor => {
            let (trans_a, lda, ldb) = (Transpose::Yes, rows + gap, line);
            GemmDesc { trans_a, trans_b: other, m: rows, n: cols, lda, ldb, ldc: cols, ..desc }
        }
        Layout::ColMajor => {
            let (trans_b, lda, ldb) = (Transpose::Yes, line, rows + gap);
            GemmDesc { trans_a: other, trans_b, m: cols, n: rows, lda, ldb, ldc: cols, ..desc }
        }
    }
}

/// Products with each tile, from all layouts, with and without an old result, with the depth split or not. On
/// integers, and with NaN and infinities.
#[test]
fn products_are_exact_between_guards() {
    let Some((engine, guards)) = guarded() else { return };
    let (mut random, gpu, mut ran, mut not_finite) = (Random::new(45), limits(&engine), 0, 0);
    let rounds = number("SPARKLE_TEST_PRODUCTS", 2).div_ceil(2);
    for tile in TILES.into_iter().filter(|tile| tile.fits(&gpu)) {
        for whole in [false, true].repeat(rounds) {
            let desc = if whole { whole_product(&mut random, &tile) } else { any_product(&mut random) };
            let (problem, splits) = (Gemm::new(desc).unwrap(), random.pick(&[1, 1, 2, 5]));
            assert!(!whole || pass_plan::gemm(&problem, &tile, 1).packed == 0, "{tile}: {desc:?}");
            let mut data = problem.lens().map(|len| random.integers(len, 3));
            for spoilt in [false, true] {
                if spoilt {
                    for (values, what) in data.iter_mut().zip([f32::INFINITY, f32::NEG_INFINITY, f32::NAN]) {
                        let place = random.between(0, values.len() as i64 - 1) as usize;
                        values[place] = what;
                    }
                }
                let [a, b, old] = &data;
                let sizes = *problem.sizes();
                let mut tight = vec![12345.5; sizes.m * sizes.n];
                let run = |session: &mut Session| {
                    product::run_tiled(
                        &mut session.programs,
                        (&tile, splits),
                        &problem,
                        (a, b, old),
                        &mut tight,
                    )
                    .map(drop)
                };
                engine.worker().call(run).unwrap();
                for (i, j) in (0..sizes.m).flat_map(|i| (0..sizes.n).map(move |j| (i, j))) {
                    let at = if sizes.c_col == 1 { i * sizes.n + j } else { j * sizes.m + i };
                    let (got, expected) =
                        (f64::from(tight[at]), oracle::gemm_element(&problem, a, b, old, i, j).value);
                    let right = got == expected || (got.is_nan() && expected.is_nan());
                    assert!(right, "{tile} {splits}: {desc:?} at {i}, {j}: {got}, not {expected}");
                    not_finite += usize::from(!expected.is_finite());
                }
                assert_eq!(guards.broken(), Vec::<String>::new(), "{tile}: {desc:?}");
            }
            ran += 1;
        }
    }
    assert!(ran > 20 && guards.checked() > 8 * ran, "{ran} products, {} guards", guards.checked());
    assert!(not_finite > 100 * ran, "{not_finite} elements that are not finite");
}
