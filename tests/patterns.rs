//! Every set of memory patterns, and both halves of tiling, exact on small integers: on the CPU with every instruction set,
//! and on the first GL device.

use sparkle::lab::{Bench, Exact};
use sparkle::memory::patterns::{Cell, Half, Pattern, Patterns};
use sparkle::patterns::cpu::{self, Work};
use sparkle::problem::exact::{Random, largest_integer};
use sparkle::problem::oracle;
use sparkle::{Algorithm, Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout};

/// All sets, and all patterns without half of tiling.
fn cells() -> Vec<Cell> {
    let half = |half| Cell { patterns: Patterns::ALL, without: Some(half) };
    Patterns::sets().map(Cell::of).chain([Half::Registers, Half::Caches].map(half)).collect()
}

fn conv(c: i64, [h, w]: [i64; 2], k: i64, r: i64, stride: i64, pad: i64) -> Conv2dDesc {
    let (stride_h, stride_w, pad_h, pad_w) = (stride, stride, pad, pad);
    let algorithm = Algorithm::Direct;
    Conv2dDesc { c, h, w, k, r, s: r, stride_h, stride_w, pad_h, pad_w, algorithm, ..Default::default() }
}

/// Layers with borders, strides, remainders of vectors and of tiles, few channels, groups, several images; and one with
/// columns beside vectors. The last is large enough for several threads.
fn layers() -> Vec<Conv2d> {
    let descs = [
        conv(3, [19, 21], 10, 7, 2, 3),
        conv(20, [9, 9], 26, 3, 1, 1),
        conv(18, [13, 17], 25, 1, 1, 0),
        conv(16, [12, 12], 9, 1, 2, 0),
        Conv2dDesc { n: 2, groups: 2, bias: true, relu: true, ..conv(24, [10, 10], 32, 3, 1, 1) },
        conv(33, [7, 7], 24, 3, 1, 1),
        conv(64, [28, 28], 48, 3, 1, 1),
    ];
    descs.map(|desc| Conv2d::new(desc).unwrap()).to_vec()
}

struct Given {
    input: Vec<f32>,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    expected: Vec<f32>,
}

fn given(problem: &Conv2d) -> Given {
    let (mut random, most) = (Random::new(3), largest_integer(problem.terms()));
    let [input, weights] = [problem.input_len(), problem.weights_len()].map(|len| random.integers(len, most));
    let bias = problem.bias().then(|| random.integers(problem.sizes().k, most));
    let expected = oracle::conv2d(problem, &input, &weights, bias.as_deref());
    Given { input, weights, bias, expected: expected.iter().map(|it| it.value as f32).collect() }
}

#[test]
fn cells_of_the_cpu_are_exact() {
    let isas = cpu::isas();
    if isas.is_empty() {
        let problem = Work::Prepared(layers()[0]);
        let refused = cpu::prepare(&problem, Cell::of(Patterns::ALL), &[], None);
        return assert!(refused.is_err());
    }
    let mut checked = 0;
    for problem in layers() {
        let Given { input, weights, bias, expected } = given(&problem);
        for (isa, threads) in isas.iter().flat_map(|isa| [1, 3].map(|threads| (isa, threads))) {
            sparkle::set_num_threads(threads).unwrap();
            for (cell, work) in cells()
                .into_iter()
                .flat_map(|it| [Work::Prepared(problem), Work::Given(problem)].map(|work| (it, work)))
            {
                let computes = cpu::prepare_named(isa, &work, cell, &weights, bias.as_deref()).unwrap();
                let mut output = vec![f32::NAN; problem.output_len()];
                // Twice: what a cell keeps must not change.
                for _ in 0..2 {
                    output.fill(f32::NAN);
                    computes.run(&input, &mut output).unwrap();
                    assert_eq!(output, expected, "{isa} {cell} {threads} threads {work:?}");
                }
                checked += 1;
            }
        }
    }
    assert_eq!(checked, layers().len() * isas.len() * 2 * 2 * 34);
}

#[test]
fn cells_of_products_are_exact() {
    for [m, n, k] in [[7, 50, 9], [40, 97, 70], [130, 100, 600]] {
        let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, m, n, k)).unwrap();
        let (mut random, most) = (Random::new(4), largest_integer(k as usize));
        let [a, b, c] = problem.lens();
        let (a, b) = (random.integers(a, most), random.integers(b, most));
        let n = n as usize;
        let at =
            |index: usize| oracle::gemm_element(&problem, &a, &b, &[], index / n, index % n).value as f32;
        let expected: Vec<f32> = (0..c).map(at).collect();
        for (isa, threads) in cpu::isas().iter().flat_map(|isa| [1, 3].map(|threads| (isa, threads))) {
            sparkle::set_num_threads(threads).unwrap();
            for cell in cells() {
                let computes = cpu::prepare_named(isa, &Work::Product(problem), cell, &a, None).unwrap();
                let mut output = vec![f32::NAN; c];
                computes.run(&b, &mut output).unwrap();
                assert_eq!(output, expected, "{isa} {cell} {threads} threads {m}x{n}x{k}");
            }
        }
    }
}

#[test]
fn the_cell_with_all_patterns_is_the_products_kernel() {
    let problem = layers()[6];
    let Given { weights, .. } = given(&problem);
    let mut random = Random::new(6);
    let input = random.reals(problem.input_len());
    let work = Work::Prepared(problem);
    let run = |computes: Box<dyn cpu::Computes>| {
        let mut output = vec![f32::NAN; problem.output_len()];
        computes.run(&input, &mut output).unwrap();
        output
    };
    if cpu::isas().is_empty() {
        return;
    }
    let all = run(cpu::prepare(&work, Cell::of(Patterns::ALL), &weights, None).unwrap());
    // Reals, so other sums would have other bits.
    assert_eq!(all, run(cpu::product(&work, &weights, None).unwrap()));
    let untiled = Cell::of(Patterns::ALL.without(Pattern::Tiling));
    assert_ne!(
        all,
        run(cpu::prepare(&work, untiled, &weights, None).unwrap()),
        "eight chains have other bits"
    );
}

#[test]
fn cells_of_the_gpu_are_exact() {
    let mut bench = match Bench::open(0) {
        Ok(bench) => bench,
        Err(error) => {
            let required = std::env::var("SPARKLE_TEST_REQUIRE_GL").is_ok_and(|value| value == "1");
            assert!(!required, "SPARKLE_TEST_REQUIRE_GL=1, but {error}");
            return println!("skipped: {error}");
        }
    };
    // Overlap concerns transfers, not kernels. Each cell is a shader to compile, so there are few layers: one of few channels,
    // one with borders, and one whose pixels are read four at a time.
    let pixels = Conv2d::new(conv(24, [8, 8], 20, 1, 1, 0)).unwrap();
    let mut checked = 0;
    for problem in [layers()[0], layers()[1], pixels] {
        let matrix = sparkle::memory::patterns::point(&problem).unwrap().is_some();
        let exact = Exact::new(&problem);
        let sets =
            Patterns::sets().filter(|set| set.has(Pattern::Overlap) && (matrix || set.has(Pattern::Layout)));
        for cell in sets.map(Cell::of) {
            assert_eq!(
                bench.cell_differences(&problem, &exact, cell).unwrap(),
                Some(0),
                "{cell} {problem:?}"
            );
            checked += 1;
        }
    }
    assert_eq!(checked, 16 + 16 + 8);
}
