//! Micro-kernels: the innermost product of two packed panels, and what happens to it on its way into C.
//!
//! A kernel is a leaf. It gets pointers, a depth and a stride; it knows no shapes, threads or memory.
//! Everything around it ([`super::block`]) is generic over the [`Kernel`] trait, so a new instruction set is
//! one more implementation.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dots;
mod portable;
mod transpose;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports, unused_macros))]
pub(super) mod vector;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use dots::{Dots, LANES as DOT_LANES};
pub use portable::Portable;

/// Rows of A as a kernel reads them: element p of row i is at `start + i*row + p*step`.
#[derive(Clone, Copy)]
pub struct Panel {
    pub start: *const f32,
    pub row: usize,
    pub step: usize,
}

impl Panel {
    /// A packed panel of `mr` rows.
    pub fn packed(start: *const f32, mr: usize) -> Self {
        Panel { start, row: 1, step: mr }
    }
}

/// A part of C: `rows` x `cols` elements, row i at `start + i*ld`.
#[derive(Clone, Copy)]
pub struct Tile {
    pub start: *mut f32,
    pub ld: usize,
    pub rows: usize,
    pub cols: usize,
}

/// Rows of B where they lie in an image: one for each channel and tap, the taps of a channel side by side.
///
/// Element j of the row of tap t of channel c is at `start + c*pitch + t.offset + j` if bit j of `t.lanes` is set; else it
/// is zero, and nothing is read. The last `beside` columns do not lie there but are packed: element x of depth p at
/// `thin + p*beside + x`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub start: *const f32,
    pub channels: usize,
    pub pitch: usize,
    pub taps: &'a [Tap],
    /// Whether all lanes of all columns are set.
    pub whole: bool,
    pub beside: usize,
    pub thin: *const f32,
    /// What is prefetched of A, relative to where it is being read.
    pub a_ahead: isize,
}

/// How far ahead a packed A is fetched, in elements: a page, at whose end a core's own prefetching stops.
pub const A_AHEAD: isize = 1024;

/// What a tap of the kernel sees: see [`View`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tap {
    pub offset: isize,
    pub lanes: u64,
    /// What is prefetched when this tap's turn is, relative to the channel.
    pub ahead: isize,
}

/// Rows to copy, in groups: element j of row i of group g is at `from + g*from_group + i*from_row + j*stride` and
/// goes to `to + g*to_group + i*to_row + j`.
#[derive(Clone, Copy)]
pub struct Part {
    pub from: *const f32,
    pub from_row: usize,
    pub stride: usize,
    pub to: *mut f32,
    pub to_row: usize,
    pub rows: usize,
    pub len: usize,
    pub groups: usize,
    pub from_group: usize,
    pub to_group: usize,
}

/// Lines to turn into columns: element p of line l is at `from + l*line + p` and goes to `to + p*width + l`.
#[derive(Clone, Copy)]
pub struct Turn {
    pub from: *const f32,
    pub line: usize,
    pub to: *mut f32,
    pub width: usize,
    pub lines: usize,
    pub depths: usize,
    /// Whether as many lines behind these will be wanted next: they are prefetched.
    pub more: bool,
}

/// Asks for a cache line to be loaded, from any address; where the architecture has no such instruction here,
/// nothing happens.
#[inline(always)]
pub fn prefetch(from: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of the baseline, and a prefetch may name any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(from.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}

/// What becomes of a tile of sums: `C = relu(alpha*sum + beta*C + bias)`, each part only if asked for.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue {
    /// Factor of the sums.
    pub alpha: f32,
    /// Factor of the old C; zero means that C is not read.
    pub beta: f32,
    /// One value for each row of the tile, or null.
    pub bias: *const f32,
    /// Whether results below zero become zero. NaN stays NaN.
    pub relu: bool,
}

impl Epilogue {
    /// `C = alpha*sum + beta*C`.
    pub const fn scaled(alpha: f32, beta: f32) -> Self {
        Epilogue { alpha, beta, bias: std::ptr::null(), relu: false }
    }

    /// The same for a tile `rows` further down.
    ///
    /// # Safety
    /// The bias is null or has that many elements.
    pub unsafe fn below(&self, rows: usize) -> Self {
        // SAFETY: the caller vouches for it.
        let bias = if self.bias.is_null() { self.bias } else { unsafe { self.bias.add(rows) } };
        Epilogue { bias, ..*self }
    }

    /// Whether it is `C = alpha*sum` or `C += alpha*sum`.
    pub fn only_adds(&self) -> bool {
        self.bias.is_null() && !self.relu && (self.beta == 0.0 || self.beta == 1.0)
    }
}

/// A micro-kernel. Holding a value of an implementing type proves that this CPU can run it.
///
/// ```text
///          b: depth rows of up to NR
///          +-----------------+
///          |  b[p*b_row + j] |   sum(i, j) = sum over p of a[i*row + p*step] * b[p*b_row + j]
///   a      +-----------------+
///   +---+  +-----------------+   in fp32, p upwards, one accumulator an element: the bits of
///   |   |  |  C, up to MR x NR   an element do not depend on where in a tile it stands
///   +---+  +-----------------+   row i of C at c + i*ld
/// ```
pub trait Kernel: Copy + Send + Sync + 'static {
    /// Most rows of a tile.
    const MR: usize;
    /// Most columns of a tile.
    const NR: usize;
    /// Elements of a vector register: a tile costs as much as its columns rounded up to this.
    const LANES: usize;
    /// The kernel's name in a matrix product.
    const SGEMM: &'static str;
    /// The kernel's name in a convolution.
    const CONV: &'static str;
    /// Its name where a convolution is sums of lines.
    const DOTS: &'static str;
    /// Whether [`Kernel::dots`] keeps the units busy with several lines on either side.
    const LINES: bool = false;

    /// Computes one tile of C.
    ///
    /// # Safety
    /// `a` is readable in `c.rows` rows of `depth` elements, and `b` in `depth` rows of `c.cols`, the rows `b.1`
    /// apart. C's elements are writable, and hold initialised values if `epilogue.beta` is not zero.
    /// `epilogue.bias` is null or readable for `c.rows` elements. Nothing of this overlaps with C. There are 1
    /// to MR rows and 1 to NR columns.
    unsafe fn tile(self, depth: usize, a: Panel, b: (*const f32, usize), c: Tile, epilogue: &Epilogue);

    /// Computes one tile of MR rows and NR columns, A being a packed panel, and leaves the rows of B side by side in
    /// `packed`, for the tiles that follow. The same arithmetic as [`Kernel::tile`].
    ///
    /// # Safety
    /// As [`Kernel::tile`]; `packed` is writable for `depth` rows of NR elements, and overlaps with nothing.
    unsafe fn tile_packing(
        self,
        depth: usize,
        a: *const f32,
        b: (*const f32, usize),
        packed: *mut f32,
        c: Tile,
        epilogue: &Epilogue,
    ) {
        let part = Part {
            from: b.0,
            from_row: b.1,
            stride: 1,
            to: packed,
            to_row: Self::NR,
            rows: depth,
            len: Self::NR,
            groups: 1,
            from_group: 0,
            to_group: 0,
        };
        // SAFETY: the caller keeps the contract of both.
        unsafe {
            self.copy(&part);
            self.tile(depth, Panel::packed(a, Self::MR), (packed, Self::NR), c, epilogue);
        }
    }

    /// Computes one tile of MR rows and NR columns from rows of A that are `a.1` apart and contiguous in depth, B being
    /// a packed panel, and leaves A as a packed panel in `packed`, for the tiles that follow. The rows below are
    /// prefetched, as their turn is next. The same arithmetic as [`Kernel::tile`].
    ///
    /// # Safety
    /// As [`Kernel::tile`]; `packed` is writable for `depth` times MR elements, and overlaps with nothing.
    unsafe fn tile_packing_a(
        self,
        depth: usize,
        a: (*const f32, usize),
        b: *const f32,
        packed: *mut f32,
        c: Tile,
        epilogue: &Epilogue,
    ) {
        let (from, line) = a;
        let turn =
            Turn { from, line, to: packed, width: Self::MR, lines: Self::MR, depths: depth, more: false };
        // SAFETY: the caller keeps the contract of both.
        unsafe {
            self.transpose(&turn);
            self.tile(depth, Panel::packed(packed, Self::MR), (b, Self::NR), c, epilogue);
        }
    }

    /// Whether lanes of a view are left out at little cost.
    const MASKS: bool;
    /// Most columns that [`Kernel::view`] takes beside whole vectors.
    const BESIDE: usize;

    /// Computes one tile of C whose B is a view, from a packed panel of A of `b.channels * b.taps.len()` depths.
    /// The same arithmetic as [`Kernel::tile`].
    ///
    /// # Safety
    /// As [`Kernel::tile`], B being readable where the view says. Alpha is 1, and beta 0 or 1. There are 1 to MR
    /// rows, and 1 to NR columns besides those that are `beside`, for which rows must be MR, and which are at
    /// most BESIDE.
    unsafe fn view(self, a: *const f32, b: &View, c: Tile, epilogue: &Epilogue);

    /// [`Kernel::view`] for twice as many rows of at most LANES columns, from two panels of A. The same arithmetic.
    ///
    /// # Safety
    /// As there; there are 2 MR rows, and no columns beside.
    unsafe fn view_two(self, a: [*const f32; 2], b: &View, c: Tile, epilogue: &Epilogue) {
        // SAFETY: the caller keeps the contract.
        unsafe {
            let upper = Tile { rows: Self::MR, ..c };
            self.view(a[0], b, upper, epilogue);
            let lower = Tile { start: c.start.add(Self::MR * c.ld), ..upper };
            self.view(a[1], b, lower, &epilogue.below(Self::MR));
        }
    }

    /// [`Kernel::view`] from rows of A that are not packed yet: leaves the panel that `turn` names behind, for the tiles
    /// that follow. The same arithmetic.
    ///
    /// # Safety
    /// As [`Kernel::view`] and [`Kernel::transpose`]: `turn` has as many lines as the tile has rows, panels being MR wide,
    /// and all depths of B; the panel overlaps with nothing.
    unsafe fn view_packing(self, turn: &Turn, b: &View, c: Tile, epilogue: &Epilogue) {
        // SAFETY: the caller keeps the contract of both.
        unsafe {
            self.transpose(turn);
            self.view(turn.to, b, c, epilogue);
        }
    }

    /// Whether that hides the packing behind the arithmetic better than [`Kernel::tile_packing_a`].
    const TURNS: bool = false;

    /// Most columns that [`Kernel::thin`] takes with advantage; zero if there are none.
    const THIN: usize = 0;

    /// Computes all rows of a tile of few columns, its lanes being rows instead: `a` is packed panels of MR rows,
    /// one after the other. The same arithmetic as [`Kernel::tile`].
    ///
    /// # Safety
    /// As [`Kernel::tile`], for any number of rows; panels are readable to their end.
    unsafe fn thin(self, depth: usize, a: *const f32, b: (*const f32, usize), c: Tile, epilogue: &Epilogue) {
        let _ = (depth, a, b, c, epilogue);
        unreachable!("THIN is zero");
    }

    /// Products of a few lines: see [`Dots`]. The order of a sum depends on its length alone.
    ///
    /// # Safety
    /// A is readable in `lines` lines of `depth` elements, B in `vectors` of them. C's elements are writable, and
    /// initialised if beta is not zero. Nothing of this overlaps with C.
    unsafe fn dots(self, dots: &Dots) {
        // SAFETY: the caller keeps the contract.
        unsafe { dots::plain(dots) }
    }

    /// Transposes rows, see [`Turn`].
    ///
    /// # Safety
    /// All elements named by `turn` are readable at `from` and writable at `to`, which do not overlap.
    unsafe fn transpose(self, turn: &Turn) {
        // SAFETY: the caller keeps the contract.
        unsafe { transpose::by_fours(turn) }
    }

    /// Copies rows.
    ///
    /// # Safety
    /// All elements named by `part` are readable at `from` and writable at `to`, which do not overlap.
    unsafe fn copy(self, part: &Part);
}

#[cfg(test)]
mod tests {
    use super::*;
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
        for (alpha, beta, with_bias, relu) in [
            (1.0, 0.0, false, false),
            (2.0, 1.0, true, true),
            (-1.0, -2.0, true, false),
            (1.0, 0.0, true, true),
        ] {
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
                kernel.tile(depth, a, (b.as_ptr(), b_row), c, &epilogue);
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

    /// Runs the kernel on a view whose lanes are left out at random, in a B that ends with the last lane that is not.
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
                .map(|tap| Tap {
                    offset: tap * 3 - 2,
                    lanes: if whole { all } else { lanes(random) },
                    ahead: 0,
                })
                .collect();
            // With lanes left out, the image may end before the first and behind the last row's lanes.
            let seen = |tap: &Tap, j: usize| tap.lanes >> j & 1 == 1;
            let places =
                (0..channels).flat_map(|c| taps.iter().map(move |tap| (c, tap))).flat_map(|(c, tap)| {
                    (0..wide)
                        .filter(move |&j| seen(tap, j))
                        .map(move |j| (c * pitch + j) as isize + tap.offset)
                });
            let (first, end) = places.fold((0, 0), |(first, end), at| (at.min(first), end.max(at + 1)));
            let b = random.integers((end - first) as usize + 1, 8);
            let at =
                |c: usize, tap: &Tap, j: usize| b[((c * pitch + j) as isize + tap.offset - first) as usize];
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
                    beside,
                    thin: thin.as_ptr(),
                    a_ahead: A_AHEAD,
                };
                // SAFETY: all lanes that are set lie in b, and a, thin, bias and c are as long as they must be.
                unsafe {
                    let tile = Tile { start: c.as_mut_ptr(), ld: cols + 3, rows, cols };
                    kernel.view(a.as_ptr(), &view, tile, &epilogue);
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

    /// Runs whole tiles that pack an operand: C is that of a tile that does not, and the panel what packing gives.
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
            unsafe { kernel.tile(depth, a, b, c, &epilogue) }
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
    fn tiles_pack_on_the_way() {
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
                    kernel.tile(1, Panel::packed(a.as_ptr(), K::MR), (b.as_ptr(), K::NR), tile, &epilogue);
                }
                assert!(
                    c.iter().all(|&got| got == expected || (got.is_nan() && expected.is_nan())),
                    "{value}"
                );
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
            let from: Vec<f32> =
                (0..2 * from_row + (len - 1) * stride + 2).map(|value| value as f32).collect();
            let mut to = vec![-1.0; 2 * rows * to_row];
            let part = Part {
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
}
