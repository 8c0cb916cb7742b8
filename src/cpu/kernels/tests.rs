//! Every kernel of this CPU against the contract.

use super::contract::*;
use crate::cpu::isa::{Isa, with_kernel};
use crate::problem::exact::Random;

/// Runs the kernel over a C with gaps, and checks sums, epilogue and gaps.
fn check<K: Kernel>(
    kernel: K,
    depth: usize,
    (rows, cols, in_place): (usize, usize, bool),
    random: &mut Random,
) {
    // Exactly as long as the contract says: rows of A side by side or one after the other.
    let (a_row, a_step) = if in_place { (depth, 1) } else { (1, K::MR) };
    let b_row = if in_place { cols + 1 } else { K::NR };
    let a = random.integers((rows - 1) * a_row + (depth - 1) * a_step + 1, 8);
    let b = random.integers((depth - 1) * b_row + cols, 8);
    let (bias, ldc) = (random.integers(rows, 8), cols + 3);
    for (alpha, beta, with_bias, relu) in
        [(1.0, 0.0, false, false), (2.0, 1.0, true, true), (-1.0, -2.0, true, false), (1.0, 0.0, true, true)]
    {
        let old = random.integers(rows * ldc, 8);
        // With beta zero C must not be read.
        let mut c = if beta == 0.0 { vec![f32::NAN; old.len()] } else { old.clone() };
        let before = c.clone();
        let bias_ptr = if with_bias { bias.as_ptr() } else { std::ptr::null() };
        // SAFETY: a, b, bias and c have the lengths the contract asks for.
        unsafe {
            let epilogue = Epilogue { alpha, beta, bias: bias_ptr, relu };
            let a = Panel { start: a.as_ptr(), row: a_row, step: a_step };
            let c = Tile { start: c.as_mut_ptr(), ld: ldc, rows, cols };
            kernel.tile(depth, a, (b.as_ptr(), b_row), c, &epilogue, &NextRows::NOTHING);
        }
        for i in 0..rows {
            for j in 0..cols {
                let sum: f32 = (0..depth).map(|p| a[i * a_row + p * a_step] * b[p * b_row + j]).sum();
                let old = if beta == 0.0 { 0.0 } else { beta * old[i * ldc + j] };
                let value = alpha * sum + old + if with_bias { bias[i] } else { 0.0 };
                let expected = if relu && value < 0.0 { 0.0 } else { value };
                assert_eq!(c[i * ldc + j], expected, "{} depth {depth} at {i}, {j}", K::SGEMM);
            }
            let gap = i * ldc + cols..(i + 1) * ldc;
            assert!(c[gap.clone()].iter().zip(&before[gap]).all(|(x, y)| x.to_bits() == y.to_bits()));
        }
    }
}

fn check_shapes<K: Kernel>(kernel: K, random: &mut Random) {
    for (rows, cols) in (1..=K::MR).flat_map(|rows| (1..=K::NR).map(move |cols| (rows, cols))) {
        for depth in [1, 2, 7, 65] {
            check(kernel, depth, (rows, cols, false), random);
            check(kernel, depth, (rows, cols, true), random);
        }
    }
}

/// Runs the kernel on a view with random lanes masked. B ends with the last lane that is not masked.
fn check_view<K: Kernel>(kernel: K, (rows, cols, beside): (usize, usize, usize), random: &mut Random) {
    let (channels, pitch, count) = (3, 40, 4);
    let depth = channels * count;
    let a = random.integers(K::MR * depth, 8);
    let (thin, bias) = (random.integers(depth * beside, 8), random.integers(rows, 8));
    let wide = cols - beside;
    let all = (1u64 << wide) - 1;
    for whole in [true, false] {
        let half = |random: &mut Random| random.between(0, (1 << 24) - 1) as u64;
        let lanes = |random: &mut Random| (half(random) << 24 | half(random)) & all;
        let taps: Vec<Tap> = (0..count as isize)
            .map(|tap| Tap { offset: tap * 3 - 2, lanes: if whole { all } else { lanes(random) }, ahead: 0 })
            .collect();
        // With masked lanes, the image may begin after the first lane of the first row and end before the last of the
        // last row.
        let seen = |tap: &Tap, j: usize| tap.lanes >> j & 1 == 1;
        let places = (0..channels).flat_map(|c| taps.iter().map(move |tap| (c, tap))).flat_map(|(c, tap)| {
            (0..wide).filter(move |&j| seen(tap, j)).map(move |j| (c * pitch + j) as isize + tap.offset)
        });
        let (first, end) = places.fold((0, 0), |(first, end), at| (at.min(first), end.max(at + 1)));
        let b = random.integers((end - first) as usize + 1, 8);
        let at = |c: usize, tap: &Tap, j: usize| b[((c * pitch + j) as isize + tap.offset - first) as usize];
        for (beta, with_bias, relu) in [(0.0, false, false), (1.0, true, true)] {
            let old = random.integers(rows * (cols + 3), 8);
            let mut c = old.clone();
            let epilogue = Epilogue {
                bias: if with_bias { bias.as_ptr() } else { std::ptr::null() },
                relu,
                ..Epilogue::scaled(1.0, beta)
            };
            let start = b.as_ptr().wrapping_offset(-first);
            let view = View {
                start,
                channels,
                pitch,
                taps: &taps,
                whole,
                padded: false,
                beside,
                thin: thin.as_ptr(),
                a_ahead: A_AHEAD,
            };
            let mut panel = vec![f32::NAN; depth * K::NR];
            // SAFETY: all lanes that are set are inside of b, and a, thin, bias, c and the panel have the lengths the
            // contract asks for.
            unsafe {
                let tile = Tile { start: c.as_mut_ptr(), ld: cols + 3, rows, cols };
                kernel.view(a.as_ptr(), &view, tile, &epilogue);
                if rows == K::MR {
                    let mut other = old.clone();
                    let tile = Tile { start: other.as_mut_ptr(), ..tile };
                    kernel.view_packing(a.as_ptr(), &view, panel.as_mut_ptr(), tile, &epilogue);
                    assert_eq!(other, c, "{} {rows}x{cols} {beside} while packing", K::CONV);
                    let mut other = old.clone();
                    let tile = Tile { start: other.as_mut_ptr(), ..tile };
                    let packed = View::of_panel(panel.as_ptr(), K::NR, depth);
                    let packed = View { beside, thin: thin.as_ptr(), ..packed };
                    kernel.view(a.as_ptr(), &packed, tile, &epilogue);
                    assert_eq!(other, c, "{} {rows}x{cols} {beside} from the panel", K::CONV);
                }
            }
            for (index, &packed) in panel.iter().enumerate().filter(|_| rows == K::MR) {
                let (p, j) = (index / K::NR, index % K::NR);
                let tap = &taps[p % count];
                let expected = match j {
                    _ if j < wide && seen(tap, j) => at(p / count, tap, j),
                    _ if j < wide.next_multiple_of(K::LANES) => 0.0,
                    _ => continue,
                };
                assert_eq!(packed, expected, "{} {rows}x{cols} {beside} depth {p}, column {j}", K::CONV);
            }
            for (i, j) in (0..rows).flat_map(|i| (0..cols + 3).map(move |j| (i, j))) {
                let (got, old) = (c[i * (cols + 3) + j], old[i * (cols + 3) + j]);
                if j >= cols {
                    assert_eq!(got, old);
                    continue;
                }
                let value = |p: usize| match (j.checked_sub(wide), &taps[p % count]) {
                    (Some(x), _) => thin[p * beside + x],
                    (None, tap) if seen(tap, j) => at(p / count, tap, j),
                    _ => 0.0,
                };
                let sum: f32 = (0..depth).map(|p| a[p * K::MR + i] * value(p)).sum();
                let sum = sum + beta * old + if with_bias { bias[i] } else { 0.0 };
                let expected = if relu && sum < 0.0 { 0.0 } else { sum };
                assert_eq!(got, expected, "{} {rows}x{cols} {beside} at {i}, {j}", K::CONV);
            }
        }
    }
}

#[test]
fn every_kernel_reads_views() {
    fn check<K: Kernel>(kernel: K, random: &mut Random) -> usize {
        let mut cases = 0;
        for (rows, wide) in (1..=K::MR).flat_map(|rows| (1..=K::NR).map(move |wide| (rows, wide))) {
            for beside in 0..=if rows == K::MR { K::BESIDE } else { 0 } {
                check_view(kernel, (rows, wide + beside, beside), random);
                cases += 1;
            }
        }
        cases
    }
    let mut random = Random::new(14);
    for isa in Isa::all() {
        assert!(with_kernel!(isa, kernel => check(kernel, &mut random)) > 0);
    }
}

/// Runs full tiles that pack an operand: C and the panel equal those of packing and computing separately.
fn check_packing<K: Kernel>(kernel: K, depth: usize, random: &mut Random) {
    let (a_row, b_row) = (depth + 3, K::NR + 5);
    let a = random.integers((K::MR - 1) * a_row + depth, 8);
    let b = random.integers((depth - 1) * b_row + K::NR, 8);
    let old = random.integers(K::MR * K::NR, 8);
    let packed_a: Vec<f32> = (0..depth * K::MR).map(|at| a[at % K::MR * a_row + at / K::MR]).collect();
    let packed_b: Vec<f32> = (0..depth * K::NR).map(|at| b[at / K::NR * b_row + at % K::NR]).collect();
    let epilogue = Epilogue::scaled(1.0, 1.0);
    let run = |tile: &dyn Fn(Tile)| {
        let mut c = old.clone();
        tile(Tile { start: c.as_mut_ptr(), ld: K::NR, rows: K::MR, cols: K::NR });
        c
    };
    let (mut to_a, mut to_b) = (vec![f32::NAN; packed_a.len()], vec![f32::NAN; packed_b.len()]);
    let (into_a, into_b) = (to_a.as_mut_ptr(), to_b.as_mut_ptr());
    let (a, b, panel_a, panel_b) = (a.as_ptr(), b.as_ptr(), packed_a.as_ptr(), packed_b.as_ptr());
    let from_panels = |c| {
        let (a, b) = (Panel::packed(panel_a, K::MR), (panel_b, K::NR));
        // SAFETY: operands, panels and C have the lengths the contract asks for.
        unsafe { kernel.tile(depth, a, b, c, &epilogue, &NextRows::NOTHING) }
    };
    let packing_b = |c| {
        // SAFETY: as above.
        unsafe { kernel.tile_packing(depth, panel_a, (b, b_row), into_b, c, &epilogue) }
    };
    let packing_a = |c| {
        // SAFETY: as above.
        unsafe { kernel.tile_packing_a(depth, (a, a_row), panel_b, into_a, c, &epilogue) }
    };
    let (plain, with_a, with_b) = (run(&from_panels), run(&packing_a), run(&packing_b));
    assert!(with_a == plain && with_b == plain && plain != old, "{} depth {depth}", K::SGEMM);
    assert!(to_a == packed_a && to_b == packed_b, "{} depth {depth}", K::SGEMM);
}

#[test]
fn tiles_pack_while_they_compute() {
    let (mut cases, mut random) = (0, Random::new(15));
    for isa in Isa::all() {
        for depth in [1, 2, 5, 16, 33, 200] {
            with_kernel!(isa, kernel => check_packing(kernel, depth, &mut random));
            cases += 1;
        }
    }
    assert!(cases > 0);
}

#[test]
fn every_kernel_keeps_the_contract() {
    let mut random = Random::new(11);
    let kernels = Isa::all();
    assert!(!kernels.is_empty());
    for isa in kernels {
        with_kernel!(isa, kernel => check_shapes(kernel, &mut random));
    }
}

#[test]
fn relu_keeps_nan_and_infinity() {
    fn check<K: Kernel>(kernel: K) {
        for (value, expected) in
            [(f32::NAN, f32::NAN), (f32::INFINITY, f32::INFINITY), (f32::NEG_INFINITY, 0.0)]
        {
            let (a, b) = (vec![value; K::MR], vec![1.0; K::NR]);
            let mut c = vec![5.0; K::MR * K::NR];
            let epilogue = Epilogue { relu: true, ..Epilogue::scaled(1.0, 0.0) };
            // SAFETY: a, b and c have the lengths the contract asks for; there is no bias.
            unsafe {
                let tile = Tile { start: c.as_mut_ptr(), ld: K::NR, rows: K::MR, cols: K::NR };
                let a = Panel::packed(a.as_ptr(), K::MR);
                kernel.tile(1, a, (b.as_ptr(), K::NR), tile, &epilogue, &NextRows::NOTHING);
            }
            assert!(c.iter().all(|&got| got == expected || (got.is_nan() && expected.is_nan())), "{value}");
        }
    }
    for isa in Isa::all() {
        with_kernel!(isa, kernel => check(kernel));
    }
}

#[test]
fn every_kernel_copies_rows_and_nothing_else() {
    fn check<K: Kernel>(kernel: K, stride: usize, len: usize) {
        let (rows, from_row, to_row) = (3, stride * len + 5, len + 2);
        let from: Vec<f32> = (0..2 * from_row + (len - 1) * stride + 2).map(|value| value as f32).collect();
        let mut to = vec![-1.0; 2 * rows * to_row];
        let part = CopyBlock {
            from: from.as_ptr(),
            from_row,
            stride,
            to: to.as_mut_ptr(),
            to_row,
            rows,
            len,
            groups: 2,
            from_group: 1,
            to_group: rows * to_row,
        };
        // SAFETY: `from` ends with the last element of the last row, and `to` holds two groups of three rows.
        unsafe { kernel.copy(&part) };
        for (at, &got) in to.iter().enumerate() {
            let (group, i, j) = (at / to_row / rows, at / to_row % rows, at % to_row);
            let expected = if j < len { (group + i * from_row + j * stride) as f32 } else { -1.0 };
            assert_eq!(got, expected, "{} stride {stride} len {len} at {i}, {j}", K::SGEMM);
        }
    }
    for isa in Isa::all() {
        for (stride, len) in (1..5).flat_map(|stride| (1..70).map(move |len| (stride, len))) {
            with_kernel!(isa, kernel => check(kernel, stride, len));
        }
    }
}

fn check_dots<K: Kernel>(kernel: K, (lines, vectors, depth, packed): (usize, usize, usize, bool), beta: f32) {
    let mut random = Random::new(depth as u64);
    let vector = depth + 1;
    // Contiguous in depth, and lines side by side.
    let (line, step) = if packed { (DOT_LANES, lines * DOT_LANES) } else { (depth + 3, DOT_LANES) };
    let at = |l: usize, p: usize| l * line + p / DOT_LANES * step + p % DOT_LANES;
    // Exactly as long as the contract says.
    let a = random.integers(at(lines - 1, depth - 1) + 1, 8);
    let b = random.integers((vectors - 1) * vector + depth, 8);
    let c_line = vectors + 2;
    let old = if beta == 0.0 { vec![f32::NAN; lines * c_line] } else { random.integers(lines * c_line, 8) };
    let mut c = old.clone();
    let dots = Dots {
        a: a.as_ptr(),
        line,
        step,
        lines,
        b: b.as_ptr(),
        vector,
        vectors,
        depth,
        c: c.as_mut_ptr(),
        c_line,
        c_vector: 1,
        next: a.as_ptr(),
        alpha: 2.0,
        beta,
    };
    // SAFETY: the matrices have the lengths the contract asks for.
    unsafe { kernel.dots(&dots) };
    for (index, &got) in c.iter().enumerate() {
        let (l, v) = (index / c_line, index % c_line);
        if v >= vectors {
            assert_eq!(got.to_bits(), old[index].to_bits(), "a gap");
            continue;
        }
        let sum: f32 = (0..depth).map(|p| a[at(l, p)] * b[v * vector + p]).sum();
        let expected = 2.0 * sum + if beta == 0.0 { 0.0 } else { beta * old[index] };
        assert_eq!(got, expected, "{} {lines}x{vectors}x{depth} at {l}, {v}", K::SGEMM);
    }
}

#[test]
fn every_kernel_adds_up_lines_and_touches_nothing_else() {
    let mut cases = 0;
    for isa in Isa::all() {
        for (lines, vectors) in (1..14).flat_map(|lines| (1..10).map(move |vectors| (lines, vectors))) {
            for depth in [1, 7, 8, 15, 16, 17, 31, 33, 100] {
                for packed in [false, true] {
                    let shape = (lines, vectors, depth, packed);
                    with_kernel!(isa, kernel => check_dots(kernel, shape, (depth % 2) as f32));
                    cases += 1;
                }
            }
        }
    }
    assert!(cases > 0);
}
