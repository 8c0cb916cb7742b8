//! The contract between micro-kernels and the code around them: the [`Kernel`] trait and its operands.
//!
//! This file imports no kernel. Kernels implement the trait; loops are generic over it.

pub use crate::cpu::tunables::A_AHEAD;

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

/// A part of C: `rows` x `cols` elements. Row i starts at `start + i*ld`.
#[derive(Clone, Copy)]
pub struct Tile {
    pub start: *mut f32,
    pub ld: usize,
    pub rows: usize,
    pub cols: usize,
}

/// Rows of B read in place from an image: one row for each channel and tap. The taps of a channel follow each other.
///
/// Element j of the row of tap t of channel c is at `start + c*pitch + t.offset + j` if bit j of `t.lanes` is set.
/// Otherwise it is zero and memory is not read. The last `beside` columns are packed instead: element x of depth p is
/// at `thin + p*beside + x`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub start: *const f32,
    pub channels: usize,
    pub pitch: usize,
    pub taps: &'a [Tap],
    /// Whether all lanes of all columns are set.
    pub whole: bool,
    /// Whether rows are readable to the end of their last vector.
    pub padded: bool,
    pub beside: usize,
    pub thin: *const f32,
    /// Prefetch distance in A, in elements from the current position.
    pub a_ahead: isize,
}

/// One tap of a [`View`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tap {
    pub offset: isize,
    pub lanes: u64,
    /// Offset from the channel that is prefetched when this tap is read.
    pub ahead: isize,
}

impl View<'_> {
    /// No rows.
    pub const EMPTY: View<'static> = View {
        start: std::ptr::null(),
        channels: 0,
        pitch: 0,
        taps: &[],
        whole: true,
        padded: false,
        beside: 0,
        thin: std::ptr::null(),
        a_ahead: 0,
    };

    /// A packed panel of `nr` columns.
    pub fn of_panel(start: *const f32, nr: usize, depth: usize) -> View<'static> {
        const ALL: &[Tap] = &[Tap { offset: 0, lanes: u64::MAX, ahead: 0 }];
        View { start, channels: depth, pitch: nr, taps: ALL, padded: true, ..View::EMPTY }
    }
}

/// Arguments of [`Kernel::copy`]: groups of rows. Element j of row i of group g moves from
/// `from + g*from_group + i*from_row + j*stride` to `to + g*to_group + i*to_row + j`.
#[derive(Clone, Copy)]
pub struct CopyBlock {
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

/// Arguments of [`Kernel::transpose`]: element p of line l moves from `from + l*line + p` to `to + p*width + l`.
#[derive(Clone, Copy)]
pub struct TransposeBlock {
    pub from: *const f32,
    pub line: usize,
    pub to: *mut f32,
    pub width: usize,
    pub lines: usize,
    pub depths: usize,
    /// Whether as many lines after these are needed next. They are prefetched.
    pub more: bool,
}

/// Prefetches a cache line from any address. Does nothing where the architecture has no such instruction here.
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

/// Memory that is needed next: one cache line in each of `rows` rows, `row` elements apart. A tile prefetches it.
#[derive(Clone, Copy)]
pub struct NextRows {
    pub start: *const f32,
    pub row: usize,
    pub rows: usize,
}

impl NextRows {
    pub const NOTHING: Self = NextRows { start: std::ptr::null(), row: 0, rows: 0 };
}

/// What is applied to a tile of sums before it is stored: `C = relu(alpha*sum + beta*C + bias)`. Each part is optional.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue {
    /// Factor of the sums.
    pub alpha: f32,
    /// Factor of the old C. If it is zero, C is not read.
    pub beta: f32,
    /// One value for each row of the tile, or null.
    pub bias: *const f32,
    /// Whether negative results become zero. NaN stays NaN.
    pub relu: bool,
}

impl Epilogue {
    /// `C = alpha*sum + beta*C`.
    pub const fn scaled(alpha: f32, beta: f32) -> Self {
        Epilogue { alpha, beta, bias: std::ptr::null(), relu: false }
    }

    /// The epilogue of a tile `rows` further down.
    ///
    /// # Safety
    /// The bias is null or has that many elements.
    pub unsafe fn below(&self, rows: usize) -> Self {
        // SAFETY: the caller guarantees it.
        let bias = if self.bias.is_null() { self.bias } else { unsafe { self.bias.add(rows) } };
        Epilogue { bias, ..*self }
    }

    /// Whether it is `C = alpha*sum` or `C += alpha*sum`.
    pub fn only_adds(&self) -> bool {
        self.bias.is_null() && !self.relu && (self.beta == 0.0 || self.beta == 1.0)
    }
}

/// Arguments of [`Kernel::dots`]: dot products of every line of A with every vector of B.
///
/// `C(l, v) = alpha sum(l, v) + beta C(l, v)`. sum(l, v) adds `a[l*line + p/DOT_LANES*step + p%DOT_LANES] *
/// b[v*vector + p]` over p below `depth`. C(l, v) is at `c + l*c_line + v*c_vector`.
#[derive(Clone, Copy)]
pub struct Dots {
    pub a: *const f32,
    pub line: usize,
    /// Distance between groups of [`DOT_LANES`] depths of a line. It is DOT_LANES for lines that are contiguous in
    /// depth. Other lines hold a whole number of groups.
    pub step: usize,
    pub lines: usize,
    /// As many lines that are needed next, or null. They are prefetched.
    pub next: *const f32,
    pub b: *const f32,
    pub vector: usize,
    pub vectors: usize,
    pub depth: usize,
    pub c: *mut f32,
    pub c_line: usize,
    pub c_vector: usize,
    pub alpha: f32,
    /// If it is zero, C is not read.
    pub beta: f32,
}

/// Partial sums of a dot product, whatever the width of the CPU's registers.
pub const DOT_LANES: usize = 16;

impl Dots {
    /// Adds up the partial sums of line `l` and vector `v` in pairs, and stores the result.
    ///
    /// # Safety
    /// `l` and `v` are in range. C is writable there, and initialised if beta is not zero.
    #[inline(always)]
    pub(super) unsafe fn finish(&self, mut lanes: [f32; DOT_LANES], l: usize, v: usize) {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        // SAFETY: the caller guarantees this element.
        unsafe { self.put(lanes[0], l, v) }
    }

    /// Stores the sum of line `l` and vector `v`, with alpha and beta applied.
    ///
    /// # Safety
    /// As [`Dots::finish`].
    #[inline(always)]
    pub(super) unsafe fn put(&self, sum: f32, l: usize, v: usize) {
        // SAFETY: the caller guarantees this element.
        unsafe {
            let to = self.c.add(l * self.c_line + v * self.c_vector);
            let sum = self.alpha * sum;
            *to = if self.beta == 0.0 { sum } else { sum + self.beta * *to };
        }
    }
}

/// Some consecutive depths of the rows of A that [`Kernel::runs`] multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first element's offset from the row's start.
    pub offset: usize,
    /// Elements, side by side. At least 1.
    pub len: usize,
}

/// Arguments of [`Kernel::runs`]. Rows of C are pixels and its columns are output channels: `C = relu(sum + C + bias)`.
#[derive(Clone, Copy)]
pub struct RunTile<'a> {
    /// The first row of A, and the distance to the next.
    pub a: *const f32,
    pub row: usize,
    /// The depths of every row, in the order of B.
    pub runs: &'a [Run],
    /// A packed panel of B: NR columns for each depth.
    pub b: *const f32,
    pub c: Tile,
    /// Whether the old C is added.
    pub add: bool,
    /// One value for each column up to the end of its last vector, or null.
    pub bias: *const f32,
    pub relu: bool,
}

/// Arguments of [`Kernel::channelwise`]: the sums of products of taps with weights, for each of some channels and
/// pixels. Channel c of tap t of pixel i is at `taps[t] + i*row + c`, its weight at `weights + t*pitch + c`, its sum
/// goes to `to + i*line + c`.
#[derive(Clone, Copy)]
pub struct ChannelwiseTile<'a> {
    pub taps: &'a [*const f32],
    pub row: usize,
    pub weights: *const f32,
    pub pitch: usize,
    pub to: *mut f32,
    pub line: usize,
    /// Pixels: 1 or [`CHANNELWISE`].
    pub pixels: usize,
    pub channels: usize,
    /// One value for each channel, or null.
    pub bias: *const f32,
    pub relu: bool,
}

/// Pixels that [`Kernel::channelwise`] computes at a time.
pub const CHANNELWISE: usize = 4;

/// A micro-kernel. A value of an implementing type proves that this CPU can run it.
///
/// ```text
///          b: depth rows of up to NR
///          +-----------------+
///          |  b[p*b_row + j] |   sum(i, j) = sum over p of a[i*row + p*step] * b[p*b_row + j]
///   a      +-----------------+
///   +---+  +-----------------+   in fp32, p ascending, one accumulator for each element:
///   |   |  |  C, up to MR x NR   the bits of an element do not depend on its position in a tile
///   +---+  +-----------------+   row i of C at c + i*ld
/// ```
pub trait Kernel: Copy + Send + Sync + 'static {
    /// Maximum rows of a tile.
    const MR: usize;
    /// Maximum columns of a tile.
    const NR: usize;
    /// Elements of a vector register. A tile costs as much as its columns rounded up to this.
    const LANES: usize;
    /// The kernel's name in a matrix product.
    const SGEMM: &'static str;
    /// The kernel's name in a convolution.
    const CONV: &'static str;
    /// The kernel's name in a convolution by dot products.
    const DOTS: &'static str;
    /// The kernel's name in a convolution of images whose channels are side by side, and in a depthwise one of those.
    const CHANNELS_LAST: &'static str;
    /// As [`Kernel::CHANNELS_LAST`], depthwise.
    const CHANNELWISE_NAME: &'static str;
    /// Whether [`Kernel::dots`] reaches the CPU's peak with several lines and vectors.
    const FAST_DOTS: bool = false;

    /// Whether loops around the tile prefetch what later tiles read.
    fn fetches_ahead(self) -> bool {
        true
    }

    /// Computes one tile of C.
    ///
    /// # Safety
    /// `a` is readable in `c.rows` rows of `depth` elements, and `b` in `depth` rows of `c.cols`, the rows `b.1`
    /// apart. C's elements are writable, and hold initialised values if `epilogue.beta` is not zero.
    /// `epilogue.bias` is null or readable for `c.rows` elements. Nothing of this overlaps with C. There are 1
    /// to MR rows and 1 to NR columns.
    unsafe fn tile(
        self,
        depth: usize,
        a: Panel,
        b: (*const f32, usize),
        c: Tile,
        epilogue: &Epilogue,
        next: &NextRows,
    );

    /// Computes one tile of MR rows and NR columns from a packed panel of A, and packs the rows of B into `packed` for
    /// the tiles that follow. Same arithmetic as [`Kernel::tile`].
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
        let part = CopyBlock {
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
            let a = Panel::packed(a, Self::MR);
            self.tile(depth, a, (packed, Self::NR), c, epilogue, &NextRows::NOTHING);
        }
    }

    /// Computes one tile of MR rows and NR columns from a packed panel of B, and packs the rows of A into `packed` for
    /// the tiles that follow. The rows of A are `a.1` apart and contiguous in depth. The rows below are prefetched, as
    /// they are packed next. Same arithmetic as [`Kernel::tile`].
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
        let block = TransposeBlock {
            from,
            line,
            to: packed,
            width: Self::MR,
            lines: Self::MR,
            depths: depth,
            more: false,
        };
        // SAFETY: the caller keeps the contract of both.
        unsafe {
            self.transpose(&block);
            let a = Panel::packed(packed, Self::MR);
            self.tile(depth, a, (b, Self::NR), c, epilogue, &NextRows::NOTHING);
        }
    }

    /// Whether masking lanes of a view costs little.
    const MASKS: bool;
    /// Maximum columns that [`Kernel::view`] computes beside whole vectors.
    const BESIDE: usize;

    /// Computes one tile of C whose B is a view, from a packed panel of A of `b.channels * b.taps.len()` depths.
    /// Same arithmetic as [`Kernel::tile`].
    ///
    /// # Safety
    /// As [`Kernel::tile`], B being readable where the view says. Alpha is 1, and beta 0 or 1. There are 1 to MR
    /// rows, and 1 to NR columns besides those that are `beside`. If there are columns `beside`, there are MR rows
    /// and at most BESIDE such columns.
    unsafe fn view(self, a: *const f32, b: &View, c: Tile, epilogue: &Epilogue);

    /// [`Kernel::view`] for MR rows. Leaves the vectors of B packed for the tiles that follow: those of depth p from
    /// `packed + p*NR` on. Lanes that are not read become zero there, to the end of the last vector.
    ///
    /// # Safety
    /// As [`Kernel::view`]; there are MR rows. `packed` is writable for NR elements of each depth, and overlaps with
    /// nothing.
    unsafe fn view_packing(self, a: *const f32, b: &View, packed: *mut f32, c: Tile, epilogue: &Epilogue) {
        let wide = c.cols - b.beside;
        for (depth, (channel, tap)) in
            (0..b.channels).flat_map(|c| b.taps.iter().map(move |tap| (c, tap))).enumerate()
        {
            let from = b.start.wrapping_add(channel * b.pitch).wrapping_offset(tap.offset);
            for j in 0..wide.next_multiple_of(Self::LANES) {
                let read = j < wide && (b.whole || tap.lanes >> j & 1 != 0);
                // SAFETY: the caller guarantees the lanes that are set, and NR elements of each depth of the panel.
                unsafe { *packed.add(depth * Self::NR + j) = if read { *from.add(j) } else { 0.0 } };
            }
        }
        // SAFETY: the panel is the same matrix, and the caller keeps the contract.
        unsafe {
            let panel = View::of_panel(packed, Self::NR, b.channels * b.taps.len());
            self.view(a, &View { beside: b.beside, thin: b.thin, ..panel }, c, epilogue)
        };
    }

    /// [`Kernel::view`] for 2 MR rows of at most LANES columns, from two panels of A. Same arithmetic.
    ///
    /// # Safety
    /// As [`Kernel::view`]; there are 2 MR rows, and no columns beside.
    unsafe fn view_two(self, a: [*const f32; 2], b: &View, c: Tile, epilogue: &Epilogue) {
        // SAFETY: the caller keeps the contract.
        unsafe {
            let upper = Tile { rows: Self::MR, ..c };
            self.view(a[0], b, upper, epilogue);
            let lower = Tile { start: c.start.add(Self::MR * c.ld), ..upper };
            self.view(a[1], b, lower, &epilogue.below(Self::MR));
        }
    }

    /// [`Kernel::view`] from rows of A that are not packed yet. Packs them into the panel `block.to` for the tiles that
    /// follow. Same arithmetic.
    ///
    /// # Safety
    /// As [`Kernel::view`] and [`Kernel::transpose`]. `block` has as many lines as the tile has rows, and all depths of
    /// B; panels are MR wide. The panel overlaps with nothing.
    unsafe fn view_packing_a(self, block: &TransposeBlock, b: &View, c: Tile, epilogue: &Epilogue) {
        // SAFETY: the caller keeps the contract of both.
        unsafe {
            self.transpose(block);
            self.view(block.to, b, c, epilogue);
        }
    }

    /// Whether [`Kernel::view_packing_a`] hides the packing behind the arithmetic better than
    /// [`Kernel::tile_packing_a`].
    const HIDES_PACKING: bool = false;

    /// Maximum columns for which [`Kernel::thin`] is faster. Zero if it is never used.
    const THIN: usize = 0;

    /// Computes all rows of a tile of few columns. Its lanes are rows. `a` holds packed panels of MR rows, one after
    /// the other. Same arithmetic as [`Kernel::tile`].
    ///
    /// # Safety
    /// As [`Kernel::tile`], for any number of rows; panels are readable to their end.
    unsafe fn thin(self, depth: usize, a: *const f32, b: (*const f32, usize), c: Tile, epilogue: &Epilogue) {
        let _ = (depth, a, b, c, epilogue);
        unreachable!("THIN is zero");
    }

    /// Computes one tile of C whose rows are pixels: see [`RunTile`]. Sums run over the depths in ascending order.
    ///
    /// # Safety
    /// A is readable in `c.rows` rows where the runs say, and B in NR columns for each depth. C's elements are writable,
    /// and initialised if `add`. The bias is null or readable to the end of the last vector. There are 1 to MR rows and 1
    /// to NR columns. Nothing overlaps with C.
    unsafe fn runs(self, tile: &RunTile) {
        let RunTile { a, row, runs, c, .. } = *tile;
        for i in 0..c.rows {
            let mut sums = [0.0f32; MAX_NR];
            let mut b = tile.b;
            for run in runs {
                for p in 0..run.len {
                    // SAFETY: the caller guarantees row i of A, and a row of B for each depth.
                    unsafe {
                        let value = *a.add(i * row + run.offset + p);
                        let of_b = std::slice::from_raw_parts(b, Self::NR);
                        sums.iter_mut().zip(of_b).for_each(|(sum, of_b)| *sum += value * of_b);
                        b = b.add(Self::NR);
                    }
                }
            }
            for (j, sum) in sums.into_iter().enumerate().take(c.cols) {
                // SAFETY: the caller guarantees this element of C and of the bias.
                unsafe {
                    let to = c.start.add(i * c.ld + j);
                    let old = if tile.add { *to } else { 0.0 };
                    let value = sum + old + if tile.bias.is_null() { 0.0 } else { *tile.bias.add(j) };
                    *to = if tile.relu && value < 0.0 { 0.0 } else { value };
                }
            }
        }
    }

    /// Computes some channels of some pixels, each channel by itself: see [`ChannelwiseTile`].
    ///
    /// # Safety
    /// All elements that the tile names are readable, or writable where sums go, which overlap with nothing.
    unsafe fn channelwise(self, tile: &ChannelwiseTile) {
        for i in 0..tile.pixels {
            for c in 0..tile.channels {
                // SAFETY: the caller guarantees these elements.
                unsafe {
                    let mut sum = 0.0f32;
                    for (t, tap) in tile.taps.iter().enumerate() {
                        sum += *tap.add(i * tile.row + c) * *tile.weights.add(t * tile.pitch + c);
                    }
                    let value = sum + if tile.bias.is_null() { 0.0 } else { *tile.bias.add(c) };
                    *tile.to.add(i * tile.line + c) = if tile.relu && value < 0.0 { 0.0 } else { value };
                }
            }
        }
    }

    /// Computes dot products: see [`Dots`]. The order of a sum depends on its length alone.
    ///
    /// # Safety
    /// A is readable in `lines` lines of `depth` elements, B in `vectors` of them. C's elements are writable, and
    /// initialised if beta is not zero. Nothing of this overlaps with C.
    unsafe fn dots(self, dots: &Dots);

    /// Transposes lines: see [`TransposeBlock`].
    ///
    /// # Safety
    /// All elements named by `block` are readable at `from` and writable at `to`, which do not overlap.
    unsafe fn transpose(self, block: &TransposeBlock);

    /// Copies rows: see [`CopyBlock`].
    ///
    /// # Safety
    /// All elements named by `part` are readable at `from` and writable at `to`, which do not overlap.
    unsafe fn copy(self, part: &CopyBlock);
}

/// Maximum elements of a register tile.
pub const MAX_TILE: usize = 512;

/// Maximum columns of a register tile: [`Tap::lanes`] has one bit for each.
pub const MAX_NR: usize = 64;

/// Checks at compile time what the loops assume about a kernel. Every loop that is generic over [`Kernel`] and has
/// such an assumption evaluates this in a `const` block.
pub const fn ensure_kernel<K: Kernel>() {
    assert!(K::MR > 0 && K::NR > 0 && K::LANES > 0);
    assert!(K::NR.is_multiple_of(K::LANES), "a full tile has whole vectors");
    assert!(K::NR <= MAX_NR);
    assert!(K::MR * K::NR <= MAX_TILE);
    assert!(K::BESIDE <= crate::memory::implicit_im2col::MAX_BESIDE);
    assert!(K::BESIDE <= K::THIN, "columns beside vectors go to `thin` where rows are missing");
}
