//! Products over ranks: exact, with the same bits on every grid, and with no more messages than the formula.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sparkle::problem::exact::Random;
use sparkle::ranks::{Group, Span};
use sparkle::{Device, GemmDesc, Layout, Transpose};

use super::integers;
use super::support;
use super::threads::{on_ranks, on_ranks_with};

/// A matrix in a layout, without gaps.
struct Matrix {
    rows: usize,
    cols: usize,
    layout: Layout,
    data: Vec<f32>,
}

impl Matrix {
    fn new(rows: usize, cols: usize, layout: Layout, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), rows * cols);
        Matrix { rows, cols, layout, data }
    }

    fn index(&self, row: usize, col: usize) -> usize {
        match self.layout {
            Layout::RowMajor => row * self.cols + col,
            Layout::ColMajor => col * self.rows + row,
        }
    }

    /// The block of these rows and columns, in lines of `ld` elements.
    fn block(&self, [rows, cols]: [Span; 2], ld: usize) -> Vec<f32> {
        let (lines, line) = match self.layout {
            Layout::RowMajor => (rows, cols),
            Layout::ColMajor => (cols, rows),
        };
        let mut block = vec![f32::NAN; lines.count * ld];
        for i in 0..lines.count {
            for j in 0..line.count {
                let (row, col) = match self.layout {
                    Layout::RowMajor => (lines.first + i, line.first + j),
                    Layout::ColMajor => (line.first + j, lines.first + i),
                };
                block[i * ld + j] = self.data[self.index(row, col)];
            }
        }
        block
    }

    /// Puts a block back.
    fn place(&mut self, [rows, cols]: [Span; 2], ld: usize, block: &[f32]) {
        for row in 0..rows.count {
            for col in 0..cols.count {
                let from = match self.layout {
                    Layout::RowMajor => row * ld + col,
                    Layout::ColMajor => col * ld + row,
                };
                let index = self.index(rows.first + row, cols.first + col);
                self.data[index] = block[from];
            }
        }
    }
}

/// Computes C on `ranks` ranks with the CPU, from whole matrices. Returns it, and what each rank received.
fn product(ranks: usize, desc: GemmDesc, gap: usize, matrices: [&Matrix; 3]) -> (Matrix, Vec<u64>) {
    product_on(&Device::open("cpu").unwrap(), ranks, desc, gap, matrices)
}

/// As [`product`], where all ranks compute on `device`.
fn product_on(
    device: &Device,
    ranks: usize,
    desc: GemmDesc,
    gap: usize,
    [a, b, c]: [&Matrix; 3],
) -> (Matrix, Vec<u64>) {
    let line = |[rows, cols]: [Span; 2]| match desc.layout {
        Layout::RowMajor => cols.count,
        Layout::ColMajor => rows.count,
    };
    let run = |group: &Group| {
        let part = group.gemm(GemmDesc { lda: 0, ldb: 0, ldc: 0, ..desc }).unwrap().part();
        let [lda, ldb, ldc] = [part.a, part.b, part.c].map(|block| line(block) + gap);
        let with_gaps = GemmDesc { lda: lda as i64, ldb: ldb as i64, ldc: ldc as i64, ..desc };
        let gemm = group.gemm(with_gaps).unwrap();
        assert_eq!(gemm.part(), part);
        let mut block = c.block(part.c, ldc);
        gemm.run(&a.block(part.a, lda), &b.block(part.b, ldb), &mut block).unwrap();
        (part.c, ldc, block)
    };
    let (blocks, received) = on_ranks_with(device, ranks, run);
    let mut whole = Matrix::new(c.rows, c.cols, c.layout, vec![f32::NAN; c.data.len()]);
    for (place, ldc, block) in blocks {
        whole.place(place, ldc, &block);
    }
    (whole, received)
}

/// A random product of small integers on `ranks` ranks, with `gap` elements between lines, is exact.
fn check(device: &Device, random: &mut Random, ranks: usize, gap: usize) {
    let layout = random.pick(&[Layout::RowMajor, Layout::ColMajor]);
    let [m, n] = [0; 2].map(|_| random.between(0, 90) as usize);
    let k = random.pick(&[0, 1, 17, 256, 257, 800]);
    let (alpha, beta) = random.pick(&[(1.0, 0.0), (2.0, 1.0), (-1.0, 3.0), (0.0, 2.0)]);
    let mut integers = |len| integers(random, len);
    let a = Matrix::new(m, k, layout, integers(m * k));
    let b = Matrix::new(k, n, layout, integers(k * n));
    let c = Matrix::new(m, n, layout, integers(m * n));
    let desc = GemmDesc { alpha, beta, ..GemmDesc::packed(layout, m as i64, n as i64, k as i64) };
    let (found, _) = product_on(device, ranks, desc, gap, [&a, &b, &c]);
    for row in 0..m {
        for col in 0..n {
            let sum: f64 =
                (0..k).map(|p| f64::from(a.data[a.index(row, p)]) * f64::from(b.data[b.index(p, col)])).sum();
            let old = f64::from(c.data[c.index(row, col)]);
            let expected = (f64::from(alpha) * sum + f64::from(beta) * old) as f32;
            assert_eq!(found.data[found.index(row, col)], expected, "{desc:?} at {row}, {col}");
        }
    }
}

#[test]
fn exact_products_on_every_number_of_ranks() {
    let (device, mut random) = (Device::open("cpu").unwrap(), Random::new(21));
    (0..40).for_each(|round| check(&device, &mut random, 1 + round % 9, round % 3));
}

/// On a GPU, C stays there from panel to panel.
#[test]
fn exact_products_on_a_gpu() {
    if !support::gl_available() {
        return;
    }
    let resident = Arc::new(AtomicUsize::new(0));
    let count = resident.clone();
    let is_resident =
        |text: &str| text.contains("call=sgemm") && text.contains("its buffers name the device");
    let keep = move |_, text: &str| {
        count.fetch_add(is_resident(text).into(), Relaxed);
    };
    sparkle::log::set_callback(Some(Arc::new(keep)));
    let (device, mut random) = (Device::open("gl:0").unwrap(), Random::new(23));
    (0..12).for_each(|round| check(&device, &mut random, [1, 2, 4, 6][round % 4], round % 3));
    sparkle::log::set_callback(None);
    assert!(resident.load(Relaxed) > 0);
}

/// Real numbers, whose sums depend on their order.
#[test]
fn the_bits_are_the_same_on_1_4_6_and_9_ranks() {
    let mut random = Random::new(22);
    for (m, n, k, layout) in
        [(300, 200, 700, Layout::RowMajor), (97, 530, 1100, Layout::ColMajor), (64, 64, 64, Layout::RowMajor)]
    {
        let a = Matrix::new(m, k, layout, random.reals(m * k));
        let b = Matrix::new(k, n, layout, random.reals(k * n));
        let c = Matrix::new(m, n, layout, random.reals(m * n));
        let desc =
            GemmDesc { alpha: 1.25, beta: 0.5, ..GemmDesc::packed(layout, m as i64, n as i64, k as i64) };
        let (one, _) = product(1, desc, 0, [&a, &b, &c]);
        let bits = |matrix: &Matrix| matrix.data.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        for ranks in [4, 6, 9] {
            let (found, _) = product(ranks, desc, 1, [&a, &b, &c]);
            assert_eq!(bits(&found), bits(&one), "{ranks} ranks");
        }
    }
}

/// On a grid of r x s ranks each one receives m/r k (s-1)/s elements of A and k n/s (r-1)/r of B.
#[test]
fn a_rank_receives_what_the_formula_says() {
    let (m, n, k) = (1536, 1536, 1536);
    let zeros = |rows, cols| Matrix::new(rows, cols, Layout::RowMajor, vec![0.0; rows * cols]);
    let desc = GemmDesc::packed(Layout::RowMajor, m as i64, n as i64, k as i64);
    for (ranks, lines) in [(4, 2), (6, 2), (9, 3)] {
        let columns = ranks / lines;
        let (_, received) = product(ranks, desc, 0, [&zeros(m, k), &zeros(k, n), &zeros(m, n)]);
        let (lines, columns) = (lines as f64, columns as f64);
        let of_a = (m * k) as f64 / lines * (1.0 - 1.0 / columns);
        let of_b = (k * n) as f64 / columns * (1.0 - 1.0 / lines);
        let most = *received.iter().max().unwrap() as f64;
        assert!(most <= 1.05 * (of_a + of_b), "{ranks} ranks: {most} of {}", of_a + of_b);
        let all: u64 = received.iter().sum();
        assert_eq!(all as f64, ranks as f64 * (of_a + of_b), "{ranks} ranks");
    }
}

#[test]
fn wrong_products_are_refused_on_all_ranks() {
    let desc = GemmDesc::packed(Layout::RowMajor, 40, 50, 60);
    let (errors, _) = on_ranks(3, |group| {
        let wrong = |bad: GemmDesc| {
            let desc = if group.rank() == 1 { bad } else { GemmDesc { lda: 0, ldb: 0, ldc: 0, ..desc } };
            group.gemm(desc).err().unwrap().to_string()
        };
        let mut errors = vec![
            wrong(GemmDesc { trans_a: Transpose::Yes, ..desc }),
            wrong(GemmDesc { m: -1, ..desc }),
            wrong(GemmDesc { ldc: 1, ..desc }),
            wrong(GemmDesc { k: 61, lda: 0, ldb: 0, ldc: 0, ..desc }),
        ];
        let gemm = group.gemm(GemmDesc { lda: 0, ldb: 0, ldc: 0, ..desc }).unwrap();
        let [a, b, c] = gemm.lens().map(|len| vec![0.0; len]);
        let mut short = vec![7.0; c.len() - usize::from(group.rank() == 2)];
        errors.push(gemm.run(&a, &b, &mut short).unwrap_err().to_string());
        assert!(short.iter().all(|&value| value == 7.0));
        errors
    });
    let begins = ["trans_a is transposed", "m is -1", "ldc is 1", "k is", "c length is"];
    for (rank, errors) in errors.iter().enumerate() {
        for (error, begin) in errors.iter().zip(begins) {
            assert!(error.contains(begin), "rank {rank}: {error}");
        }
    }
}
