//! Random problems for the tests of the CPU engine, and comparisons of results.

#![allow(dead_code)] // Each test binary uses some of this.

use std::sync::{Mutex, MutexGuard};

use sparkle::problem::exact::{Random, largest_integer};
use sparkle::problem::oracle::{self, Expected};
use sparkle::{Algorithm, Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout, Transpose};

/// Values for all buffers of a problem.
#[derive(Clone, Copy, PartialEq)]
pub enum Values {
    /// Small integers: any order of summation is exact.
    Exact,
    /// Real values in -1..1.
    Real,
}

impl Values {
    fn draw(self, random: &mut Random, len: usize, terms: usize) -> Vec<f32> {
        match self {
            Values::Exact => random.integers(len, largest_integer(2 * terms + 2).min(8)),
            Values::Real => random.reals(len),
        }
    }
}

/// Whether a problem is large enough for the pool. The calling thread computes smaller ones.
pub fn is_large(flops: u64) -> bool {
    flops >= 3_000_000
}

/// A convolution with its inputs.
pub struct ConvCase {
    pub problem: Conv2d,
    pub desc: Conv2dDesc,
    pub input: Vec<f32>,
    pub weights: Vec<f32>,
    pub bias: Option<Vec<f32>>,
}

impl ConvCase {
    pub fn new(desc: Conv2dDesc, values: Values, random: &mut Random) -> Self {
        // Only the direct algorithm is exact.
        let algorithm = if values == Values::Exact { Algorithm::Direct } else { desc.algorithm };
        let desc = Conv2dDesc { algorithm, ..desc };
        let problem = Conv2d::new(desc).expect("a valid description");
        let terms = problem.terms();
        ConvCase {
            problem,
            desc,
            input: values.draw(random, problem.input_len(), terms),
            weights: values.draw(random, problem.weights_len(), terms),
            bias: desc.bias.then(|| values.draw(random, desc.k as usize, terms)),
        }
    }

    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    pub fn expected(&self) -> Vec<Expected> {
        oracle::conv2d(&self.problem, &self.input, &self.weights, self.bias())
    }
}

/// A random convolution with the direct algorithm, which is exact. Every third one is depthwise or grouped, and every third one
/// is large enough for several blocks of depth and for the pool. It has at most some ten thousand outputs.
pub fn conv_desc(random: &mut Random) -> Conv2dDesc {
    loop {
        let groups = random.pick(&[1, 1, 1, 1, 2, 3]);
        let large = random.between(0, 2) == 0;
        let channels = |random: &mut Random| groups * random.between(1, if large { 60 } else { 12 });
        let (c, k) = (channels(random), channels(random));
        let depthwise = random.between(0, 5) == 0;
        let (r, s) = (random.between(1, 7), random.between(1, 7));
        let desc = Conv2dDesc {
            n: random.between(1, 3),
            c,
            h: random.between(1, if large { 33 } else { 20 }),
            w: random.between(1, if large { 50 } else { 33 }),
            k: if depthwise { c * random.between(1, 2) } else { k },
            r,
            s,
            stride_h: random.between(1, 3),
            stride_w: random.between(1, 3),
            pad_h: random.between(0, r),
            pad_w: random.between(0, s),
            pad_bottom: Some(random.between(-1, r)).filter(|&pad| pad >= 0),
            pad_right: Some(random.between(-1, s)).filter(|&pad| pad >= 0),
            dilation_h: random.between(1, 2),
            dilation_w: random.between(1, 2),
            groups: if depthwise { c } else { groups },
            bias: random.between(0, 1) == 1,
            relu: random.between(0, 1) == 1,
            algorithm: Algorithm::Direct,
            ..Default::default()
        };
        if Conv2d::new(desc).is_ok_and(|problem| problem.flops() < 20_000_000) {
            return desc;
        }
    }
}

/// A matrix product with its matrices. Memory outside of their elements, in gaps and after the end, is NaN.
pub struct GemmCase {
    pub problem: Gemm,
    pub desc: GemmDesc,
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub c: Vec<f32>,
}

impl GemmCase {
    pub fn new(desc: GemmDesc, values: Values, random: &mut Random) -> Self {
        let problem = Gemm::new(desc).expect("a valid description");
        let s = *problem.sizes();
        let mut matrix = |len: usize, (rows, cols): (usize, usize), (row, col): (usize, usize), extra| {
            let mut data = vec![f32::NAN; len + extra];
            let drawn = values.draw(random, rows * cols, s.k);
            for (index, value) in drawn.into_iter().enumerate() {
                data[index / cols * row + index % cols * col] = value;
            }
            data
        };
        let [a_len, b_len, c_len] = problem.lens();
        let a = matrix(a_len, (s.m, s.k), (s.a_row, s.a_col), 0);
        let b = matrix(b_len, (s.k, s.n), (s.b_row, s.b_col), 1);
        let c = matrix(c_len, (s.m, s.n), (s.c_row, s.c_col), 2);
        GemmCase { problem, desc, a, b, c }
    }

    /// Index and expected value of each element of C.
    pub fn expected(&self) -> Vec<(usize, Expected)> {
        let s = self.problem.sizes();
        let indices = (0..s.m).flat_map(|i| (0..s.n).map(move |j| (i, j)));
        let element = |i, j| oracle::gemm_element(&self.problem, &self.a, &self.b, &self.c, i, j);
        indices.map(|(i, j)| (i * s.c_row + j * s.c_col, element(i, j))).collect()
    }
}

/// A random matrix product: 30 % with a size of 0 or 1, some deep enough for several blocks.
pub fn gemm_desc(random: &mut Random) -> GemmDesc {
    let layout = random.pick(&[Layout::RowMajor, Layout::ColMajor]);
    let (trans_a, trans_b) =
        (random.pick(&[Transpose::No, Transpose::Yes]), random.pick(&[Transpose::No, Transpose::Yes]));
    let largest = random.pick(&[40, 120, 220]);
    let mut sizes = [(); 3].map(|()| random.between(1, largest));
    match random.between(0, 19) {
        0..=5 => sizes[random.between(0, 2) as usize] = random.between(0, 1),
        6 => sizes[2] = random.between(250, 700),
        7 => sizes[0] = random.between(200, 1_200),
        8 => sizes[1] = random.between(200, 600),
        _ => {}
    }
    let [m, n, k] = sizes;
    // The contiguous length of a rows x cols matrix, stored plain or transposed.
    let ld = |random: &mut Random, rows: i64, cols: i64, transpose| {
        let by_columns = (layout == Layout::ColMajor) != (transpose == Transpose::Yes);
        (if by_columns { rows } else { cols }).max(1) + random.pick(&[0, 0, 1, 5])
    };
    GemmDesc {
        layout,
        trans_a,
        trans_b,
        m,
        n,
        k,
        alpha: random.pick(&[0.0, 1.0, 1.0, -1.0, 2.0]),
        lda: ld(random, m, k, trans_a),
        ldb: ld(random, k, n, trans_b),
        beta: random.pick(&[0.0, 1.0, -1.0, 2.0]),
        ldc: ld(random, m, n, Transpose::No),
    }
}

/// Whether two results are the same value: the same bits, apart from the sign of a zero.
pub fn same(got: f32, expected: f64) -> bool {
    (got + 0.0).to_bits() == (expected as f32 + 0.0).to_bits()
}

/// Whether all bits agree, NaNs included.
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Runs the tests of this program again for every other instruction set of this CPU. Each needs its own process, because the
/// environment is read once. `tests` is the minimum number of tests, `name` the name of the calling one.
pub fn on_every_isa(name: &str, tests: usize) {
    if std::env::var_os("SPARKLE_TEST_ISA").is_some() {
        return;
    }
    let features =
        sparkle::devices()[0].facts.iter().find(|it| it.0 == "kernels").expect("a CPU has kernels").1.clone();
    // The other tests have already run with the best instruction set.
    let others: &[&str] = match features {
        best if best.contains("avx512") => &["avx2", "portable"],
        best if best.contains("avx2") => &["portable"],
        _ => &[],
    };
    for isa in others {
        let mut child = std::process::Command::new(std::env::current_exe().expect("a test has a path"));
        child.args(["--skip", name]).env("SPARKLE_ISA", isa).env("SPARKLE_TEST_ISA", isa);
        let output = child.output().expect("a test can be run again");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{isa}: {text}");
        let passed = text
            .split("test result: ok. ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
        assert!(passed.is_some_and(|passed| passed >= tests), "{isa}: {text}");
    }
}

/// Sets the number of threads. Tests that set it, or need it to stay the same, hold the guard and so run one after another.
pub fn threads(count: usize) -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    sparkle::set_num_threads(count).expect("a sensible number");
    guard
}
