//! Matrix products by every `sgemm` shader, exact on small integers, with and without NaN and infinities. Each buffer
//! lies between guard words.
//!
//! `SPARKLE_TEST_PRODUCTS` is the number of products on integers for each shader. `SPARKLE_TEST_SEED` selects them.
//! A tile's shader has the sizes as constants, and a software driver spends most of the time on compiling. So
//! `SPARKLE_TEST_INPUTS` products share a shape, with different matrices and factors. `make exact-products` runs
//! thousands for each shader.

use std::ops::AddAssign;

use super::guarded::{limits, number};
use super::guards::guarded;
use crate::gl::device::engine::Engine;
use crate::gl::device::session::Session;
use crate::gl::product;
use crate::memory::tiles::{TILES, Tile};
use crate::problem::exact::Random;
use crate::problem::{Gemm, GemmDesc, GemmSizes, Layout, Transpose, oracle};
use crate::shader::pass_plan;

/// The longest side of a matrix.
const LONGEST: i64 = 300;
/// One product with NaN and infinities for so many on integers of a shape, and at least one.
const SPOILT: usize = 10;
/// Fills gaps between lines, and an old C that must not be read: a NaN that no kernel computes.
const GAP: f32 = f32::from_bits(0x7fc0_beef);

/// What one shader computed.
#[derive(Debug, Default)]
struct Counts {
    /// Products on integers.
    exact: usize,
    /// Products with NaN and infinities.
    spoilt: usize,
    /// Products with an old C of NaNs, which is not read.
    unread: usize,
    outputs: usize,
    not_zero: usize,
    not_finite: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.exact += other.exact;
        self.spoilt += other.spoilt;
        self.unread += other.unread;
        self.outputs += other.outputs;
        self.not_zero += other.not_zero;
        self.not_finite += other.not_finite;
    }
}

/// A shader, and the number of parts of the depth.
#[derive(Debug)]
struct Kernel {
    /// None for the fallback kernel.
    tile: Option<Tile>,
    splits: usize,
}

impl Kernel {
    fn name(&self) -> String {
        self.tile.map_or("sgemm_direct_16x16".into(), |tile| pass_plan::gemm_name(&tile).to_owned())
    }

    /// Computes C in place.
    fn run(&self, engine: &Engine, problem: &Gemm, (a, b): (&[f32], &[f32]), c: &mut [f32]) {
        let mut tight = vec![12345.5; problem.sizes().m * problem.sizes().n];
        let run = |session: &mut Session| {
            let (programs, matrices) = (&mut session.programs, (a, b, &*c));
            match &self.tile {
                Some(tile) => {
                    product::run_tiled(programs, (tile, self.splits), problem, matrices, &mut tight, None)
                }
                None => product::run(programs, problem, matrices, &mut tight, None),
            }
            .map(|(name, _)| assert_eq!(name, self.name()))
        };
        engine.worker().call(run).unwrap();
        product::store(problem, &tight, c);
    }
}

/// A product of any size and layout, as likely with an old result as without. Three in ten have a side of 1.
fn any_product(random: &mut Random) -> GemmDesc {
    let layout = random.pick(&[Layout::RowMajor, Layout::ColMajor]);
    let mut sides = [(); 3].map(|()| random.between(1, LONGEST));
    if random.between(1, 10) <= 3 {
        sides[random.pick(&[0, 1, 2])] = 1;
    }
    let [m, n, k] = sides;
    let [trans_a, trans_b] = [(); 2].map(|()| random.pick(&[Transpose::No, Transpose::Yes]));
    let mut leading = |trans, rows, cols| {
        let by_columns = (layout == Layout::ColMajor) != (trans == Transpose::Yes);
        random.pick(&[0, 0, 1, 3, 4, 7]) + if by_columns { rows } else { cols }
    };
    let (lda, ldb, ldc) = (leading(trans_a, m, k), leading(trans_b, k, n), leading(Transpose::No, m, n));
    let beta = random.pick(&[0.0, 2.0]);
    GemmDesc { layout, trans_a, trans_b, m, n, k, alpha: 1.0, lda, ldb, beta, ldc }
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
    let ldc = cols + random.pick(&[0, 5]);
    let desc = GemmDesc { layout, k, beta, ldc, ..GemmDesc::packed(layout, 1, 1, 1) };
    match layout {
        Layout::RowMajor => {
            let (trans_a, lda, ldb) = (Transpose::Yes, rows + gap, line);
            GemmDesc { trans_a, trans_b: other, m: rows, n: cols, lda, ldb, ..desc }
        }
        Layout::ColMajor => {
            let (trans_b, lda, ldb) = (Transpose::Yes, line, rows + gap);
            GemmDesc { trans_a: other, trans_b, m: cols, n: rows, lda, ldb, ..desc }
        }
    }
}

/// A matrix of integers in -largest..=largest, with [`GAP`] between its lines.
fn matrix(
    random: &mut Random,
    len: usize,
    (rows, cols): (usize, usize),
    (row, col): (usize, usize),
    largest: i64,
) -> Vec<f32> {
    let mut data = vec![GAP; len];
    for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
        data[i * row + j * col] = random.between(-largest, largest) as f32;
    }
    data
}

/// C in float64, row after row. A sum of integers is exact: this is the product in integers.
fn product_of(problem: &Gemm, a: &[f32], b: &[f32], old: &[f32]) -> Vec<f64> {
    let GemmSizes { m, n, k, a_row, a_col, b_row, b_col, c_row, c_col } = *problem.sizes();
    let (alpha, beta) = (f64::from(problem.alpha()), f64::from(problem.beta()));
    let b: Vec<f64> = (0..k).flat_map(|p| (0..n).map(move |j| f64::from(b[p * b_row + j * b_col]))).collect();
    let mut product = vec![0.0; m * n];
    for (i, line) in product.chunks_exact_mut(n).enumerate() {
        for (p, factors) in b.chunks_exact(n).enumerate().filter(|_| !problem.is_scaling()) {
            let factor = alpha * f64::from(a[i * a_row + p * a_col]);
            line.iter_mut().zip(factors).for_each(|(sum, other)| *sum += factor * other);
        }
        for (j, sum) in line.iter_mut().enumerate().filter(|_| beta != 0.0) {
            *sum += beta * f64::from(old[i * c_row + j * c_col]);
        }
    }
    product
}

/// Computes a product on random matrices and compares all of C and the gaps between its lines bit by bit.
fn check(engine: &Engine, kernel: &Kernel, desc: GemmDesc, spoil: bool, random: &mut Random) -> Counts {
    // If alpha is 0, the engine runs no shader. A shader would multiply the sum by 0, which makes NaN of an infinity.
    let alpha = random.pick(if spoil { &[1.0, -1.0, 2.0] } else { &[0.0, 1.0, -1.0, 2.0] });
    let beta = if desc.beta == 0.0 { 0.0 } else { random.pick(&[1.0, -1.0, 2.0]) };
    let problem = Gemm::new(GemmDesc { alpha, beta, ..desc }).unwrap();
    let sizes @ GemmSizes { m, n, k, .. } = *problem.sizes();
    let largest = random.pick(&[1, 3, 20, 100]);
    assert!(2 * (k as i64 * largest + 1) * largest < 1 << 24, "all sums are exact: {desc:?}");
    let [a_len, b_len, c_len] = problem.lens();
    let mut a = matrix(random, a_len, (m, k), (sizes.a_row, sizes.a_col), largest);
    let mut b = matrix(random, b_len, (k, n), (sizes.b_row, sizes.b_col), largest);
    let mut c = matrix(random, c_len, (m, n), (sizes.c_row, sizes.c_col), largest);
    if spoil {
        let mut within = |side: usize| random.between(0, side as i64 - 1) as usize;
        a[within(m) * sizes.a_row + within(k) * sizes.a_col] = f32::INFINITY;
        b[within(k) * sizes.b_row + within(n) * sizes.b_col] = f32::NEG_INFINITY;
        c[within(m) * sizes.c_row + within(n) * sizes.c_col] = f32::NAN;
    }
    if beta == 0.0 {
        c.fill(GAP);
    }
    let expected = product_of(&problem, &a, &b, &c);
    let (i, j) = (random.between(0, m as i64 - 1) as usize, random.between(0, n as i64 - 1) as usize);
    let (ours, oracle) = (expected[i * n + j], oracle::gemm_element(&problem, &a, &b, &c, i, j).value);
    assert!(ours == oracle || (ours.is_nan() && oracle.is_nan()), "{ours}, not {oracle}");

    kernel.run(engine, &problem, (&a, &b), &mut c);
    let mut counts = Counts {
        exact: usize::from(!spoil),
        spoilt: usize::from(spoil),
        unread: usize::from(beta == 0.0),
        ..Counts::default()
    };
    for (index, expected) in expected.into_iter().enumerate() {
        let (i, j) = (index / n, index % n);
        let got = std::mem::replace(&mut c[i * sizes.c_row + j * sizes.c_col], GAP);
        // An integer's zero has no sign: adding zero takes it away.
        let same = (got + 0.0).to_bits() == (expected as f32 + 0.0).to_bits();
        let right = same || (got.is_nan() && got.to_bits() != GAP.to_bits() && expected.is_nan());
        assert!(right, "{kernel:?}: {problem:?} of up to {largest}, at {i}, {j}: {got}, not {expected}");
        counts.outputs += 1;
        counts.not_zero += usize::from(expected != 0.0);
        counts.not_finite += usize::from(!expected.is_finite());
    }
    assert!(c.iter().all(|gap| gap.to_bits() == GAP.to_bits()), "a gap of C: {kernel:?}: {problem:?}");
    counts
}

/// Products of each shader, from all layouts, with and without an old result, with the depth split or not.
#[test]
fn products_are_exact_between_guards() {
    let Some((engine, guards)) = guarded() else { return };
    let (asked, seed) = (number("SPARKLE_TEST_PRODUCTS", 2), number("SPARKLE_TEST_SEED", 45));
    let inputs = number("SPARKLE_TEST_INPUTS", 1).min(asked);
    assert!(inputs > 0, "nothing to compute");
    let (gpu, mut total, mut kernels) = (limits(&engine), Counts::default(), 0);
    for (kind, tile) in TILES.map(Some).into_iter().chain([None]).enumerate() {
        if let Some(tile) = tile.filter(|tile| !tile.fits(&gpu)) {
            println!("{}: larger than the device allows", pass_plan::gemm_name(&tile));
            continue;
        }
        // The same products on every device, whichever tiles fit it.
        let mut random = Random::new((seed * 64 + kind) as u64);
        let mut counts = Counts::default();
        for shape in 0..asked.div_ceil(inputs) {
            let whole = tile.filter(|_| shape % 2 == 1);
            let desc = match &whole {
                Some(tile) => whole_product(&mut random, tile),
                None => any_product(&mut random),
            };
            let problem = Gemm::new(desc).unwrap();
            assert!(whole.is_none_or(|tile| pass_plan::gemm(&problem, &tile, 1).packed == 0), "{desc:?}");
            let kernel = Kernel { tile, splits: random.pick(&[1, 1, 2, 5]) };
            let integers = inputs.min(asked - shape * inputs);
            for index in 0..integers + integers.div_ceil(SPOILT) {
                counts += check(&engine, &kernel, desc, index >= integers, &mut random);
                assert_eq!(guards.broken(), Vec::<String>::new(), "{kernel:?}: {desc:?}");
            }
        }
        let name = Kernel { tile, splits: 1 }.name();
        println!(
            "{name}: {} products on integers, {} with NaN and infinities, {} outputs",
            counts.exact, counts.spoilt, counts.outputs
        );
        assert!(counts.exact >= asked, "{name}: {} products of {asked}", counts.exact);
        total += counts;
        kernels += 1;
    }
    let checked = guards.checked();
    println!("{kernels} shaders, {total:?}, {checked} guards");
    assert!(kernels > 10 && total.exact >= kernels * asked && total.unread > 0, "{kernels}: {total:?}");
    assert!(checked > 8 * (total.exact + total.spoilt), "{checked} guards of {total:?}");
    assert!(2 * total.not_zero > total.outputs && total.not_finite > 50 * total.spoilt, "{total:?}");
}
