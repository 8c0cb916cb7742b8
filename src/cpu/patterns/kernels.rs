//! Kernels whose patterns are switched at run time, once for each tile: [`Tiled`] and [`Untiled`].
//!
//! With all patterns [`Tiled`] calls the product's kernel, and without vectors or prefetches the kernel of the [`Family`] that
//! lacks them. Without overlap an operand is packed first, and then computed with.

use super::families::{Family, Switches, transpose_elements};
use super::untiled::Copies;
use crate::cpu::kernels::vector::finish_one;
use crate::cpu::kernels::{
    CopyBlock, Dots, Epilogue, Kernel, MAX_TILE, NextRows, Panel, Tile, TransposeBlock, View,
};

/// The kernel with register tiles.
#[derive(Clone, Copy)]
pub struct Tiled<F> {
    pub family: F,
    pub on: Switches,
}

/// Evaluates an expression for the kernel that is switched on.
macro_rules! with_accesses {
    ($self:ident, $kernel:ident => $body:expr) => {
        match ($self.on.vectors, $self.on.prefetch) {
            (true, true) => {
                let $kernel = $self.family.whole();
                $body
            }
            (true, false) => {
                let $kernel = $self.family.quiet();
                $body
            }
            (false, true) => {
                let $kernel = $self.family.scattered();
                $body
            }
            (false, false) => {
                let $kernel = $self.family.bare();
                $body
            }
        }
    };
}

impl<F: Family> Tiled<F> {
    /// Computes a tile by `compute`, which computes all rows unless the product's kernel does.
    ///
    /// # Safety
    /// `compute` keeps to the tile and the epilogue that it gets, whose contract the caller keeps for `c`. Panels of A have
    /// MR rows, of any contents after the tile's.
    #[inline(always)]
    unsafe fn rows(self, c: Tile, epilogue: &Epilogue, compute: impl Fn(Tile, &Epilogue)) {
        let own = self.on.vectors && self.on.prefetch;
        if own || c.rows == F::Whole::MR {
            return compute(c, epilogue);
        }
        let mut sums = [0.0f32; MAX_TILE];
        let nr = F::Whole::NR;
        compute(
            Tile { start: sums.as_mut_ptr(), ld: nr, rows: F::Whole::MR, cols: c.cols },
            &Epilogue::scaled(1.0, 0.0),
        );
        for (i, row) in sums.chunks_exact(nr).enumerate().take(c.rows) {
            for (j, &sum) in row.iter().enumerate().take(c.cols) {
                // SAFETY: the caller guarantees this element, and the bias unless it is null.
                unsafe { finish_one(sum, c.start.add(i * c.ld + j), i, epilogue) };
            }
        }
    }
}

// SAFETY (of all blocks): the caller keeps the contract of the method of the same name, and that of each method called
// where a tile is packed first.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<F: Family> Kernel for Tiled<F> {
    const MR: usize = F::Whole::MR;
    const NR: usize = F::Whole::NR;
    const LANES: usize = F::Whole::LANES;
    const SGEMM: &'static str = F::Whole::SGEMM;
    const CONV: &'static str = F::Whole::CONV;
    const DOTS: &'static str = F::Whole::DOTS;
    const CHANNELS_LAST: &'static str = F::Whole::CHANNELS_LAST;
    const CHANNELWISE_NAME: &'static str = F::Whole::CHANNELWISE_NAME;
    const MASKS: bool = F::Whole::MASKS;
    const BESIDE: usize = F::Whole::BESIDE;
    const THIN: usize = F::Whole::THIN;
    const HIDES_PACKING: bool = F::Whole::HIDES_PACKING;

    fn fetches_ahead(self) -> bool {
        self.on.prefetch
    }

    unsafe fn tile(
        self,
        depth: usize,
        a: Panel,
        b: (*const f32, usize),
        c: Tile,
        epilogue: &Epilogue,
        next: &NextRows,
    ) {
        // The loop has a prefetch of its own. Without prefetches it names what the tile has read already.
        let nothing = NextRows { start: a.start, row: 0, rows: 0 };
        let next = if self.on.prefetch { next } else { &nothing };
        unsafe {
            self.rows(
                c,
                epilogue,
                |c, epilogue| with_accesses!(self, kernel => kernel.tile(depth, a, b, c, epilogue, next)),
            )
        }
    }

    unsafe fn tile_packing(
        self,
        depth: usize,
        a: *const f32,
        b: (*const f32, usize),
        packed: *mut f32,
        c: Tile,
        epilogue: &Epilogue,
    ) {
        if self.on.overlap {
            return unsafe {
                with_accesses!(self, kernel => kernel.tile_packing(depth, a, b, packed, c, epilogue))
            };
        }
        unsafe {
            self.copy(&rows_of_b(depth, b, packed, Self::NR));
            self.tile(depth, Panel::packed(a, Self::MR), (packed, Self::NR), c, epilogue, &NextRows::NOTHING);
        }
    }

    unsafe fn tile_packing_a(
        self,
        depth: usize,
        a: (*const f32, usize),
        b: *const f32,
        packed: *mut f32,
        c: Tile,
        epilogue: &Epilogue,
    ) {
        if self.on.overlap {
            return unsafe {
                with_accesses!(self, kernel => kernel.tile_packing_a(depth, a, b, packed, c, epilogue))
            };
        }
        unsafe {
            self.transpose(&rows_of_a(depth, a, packed, Self::MR));
            let a = Panel::packed(packed, Self::MR);
            self.tile(depth, a, (b, Self::NR), c, epilogue, &NextRows::NOTHING);
        }
    }

    unsafe fn view(self, a: *const f32, b: &View, c: Tile, epilogue: &Epilogue) {
        unsafe {
            self.rows(
                c,
                epilogue,
                |c, epilogue| with_accesses!(self, kernel => kernel.view(a, b, c, epilogue)),
            )
        }
    }

    unsafe fn view_packing(self, a: *const f32, b: &View, packed: *mut f32, c: Tile, epilogue: &Epilogue) {
        if self.on.overlap {
            return unsafe { with_accesses!(self, kernel => kernel.view_packing(a, b, packed, c, epilogue)) };
        }
        unsafe {
            self.family.pack(self.on.vectors, b, c.cols - b.beside, packed, Self::NR);
            let panel = View::of_panel(packed, Self::NR, b.channels * b.taps.len());
            self.view(a, &View { beside: b.beside, thin: b.thin, a_ahead: b.a_ahead, ..panel }, c, epilogue);
        }
    }

    unsafe fn view_two(self, a: [*const f32; 2], b: &View, c: Tile, epilogue: &Epilogue) {
        unsafe { with_accesses!(self, kernel => kernel.view_two(a, b, c, epilogue)) }
    }

    unsafe fn view_packing_a(self, block: &TransposeBlock, b: &View, c: Tile, epilogue: &Epilogue) {
        if self.on.overlap && F::Whole::HIDES_PACKING && c.rows == Self::MR {
            return unsafe { with_accesses!(self, kernel => kernel.view_packing_a(block, b, c, epilogue)) };
        }
        unsafe {
            self.transpose(block);
            self.view(block.to, b, c, epilogue);
        }
    }

    unsafe fn thin(self, depth: usize, a: *const f32, b: (*const f32, usize), c: Tile, epilogue: &Epilogue) {
        unsafe { with_accesses!(self, kernel => kernel.thin(depth, a, b, c, epilogue)) }
    }

    unsafe fn dots(self, dots: &Dots) {
        unsafe { with_accesses!(self, kernel => kernel.dots(dots)) }
    }

    unsafe fn transpose(self, block: &TransposeBlock) {
        unsafe { transpose(self.family, self.on, block) }
    }

    unsafe fn copy(self, part: &CopyBlock) {
        unsafe { with_accesses!(self, kernel => kernel.copy(part)) }
    }
}

/// The transpose of a family, with what is on.
///
/// # Safety
/// The contract of [`Kernel::transpose`].
unsafe fn transpose<F: Family>(family: F, on: Switches, block: &TransposeBlock) {
    let block = &TransposeBlock { more: block.more && on.prefetch, ..*block };
    // SAFETY: the caller keeps the contract.
    unsafe { if on.vectors { family.whole().transpose(block) } else { transpose_elements(block) } }
}

/// The copy that packs rows of B.
fn rows_of_b(rows: usize, (from, from_row): (*const f32, usize), to: *mut f32, nr: usize) -> CopyBlock {
    let (groups, from_group, to_group) = (1, 0, 0);
    CopyBlock { from, from_row, stride: 1, to, to_row: nr, rows, len: nr, groups, from_group, to_group }
}

/// The transpose that packs rows of A.
fn rows_of_a(depths: usize, (from, line): (*const f32, usize), to: *mut f32, mr: usize) -> TransposeBlock {
    TransposeBlock { from, line, to, width: mr, lines: mr, depths, more: false }
}

/// The kernel without register tiles: see [`row`](super::untiled::row).
#[derive(Clone, Copy)]
pub struct Untiled<F> {
    pub family: F,
    pub on: Switches,
}

// SAFETY (of all blocks): the caller keeps the contract of the method of the same name for one row and one vector; panels
// of A have one row, so their depths are neighbours.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<F: Family> Kernel for Untiled<F> {
    const MR: usize = 1;
    const NR: usize = F::Whole::LANES;
    const LANES: usize = F::Whole::LANES;
    const SGEMM: &'static str = F::UNTILED;
    const CONV: &'static str = F::UNTILED;
    const DOTS: &'static str = F::UNTILED;
    const CHANNELS_LAST: &'static str = F::UNTILED;
    const CHANNELWISE_NAME: &'static str = F::UNTILED;
    const MASKS: bool = F::Whole::MASKS;
    const BESIDE: usize = 0;

    fn fetches_ahead(self) -> bool {
        self.on.prefetch
    }

    unsafe fn tile(
        self,
        depth: usize,
        a: Panel,
        b: (*const f32, usize),
        c: Tile,
        epilogue: &Epilogue,
        _: &NextRows,
    ) {
        assert_eq!(a.step, 1, "A has one row, contiguous in depth");
        let b = View { padded: false, ..View::of_panel(b.0, b.1, depth) };
        unsafe { self.family.row((self.on, 0), a.start, &b, Copies::NONE, c, epilogue) }
    }

    unsafe fn tile_packing(
        self,
        depth: usize,
        a: *const f32,
        b: (*const f32, usize),
        packed: *mut f32,
        c: Tile,
        epilogue: &Epilogue,
    ) {
        unsafe {
            if self.on.overlap {
                let view = View::of_panel(b.0, b.1, depth);
                return self.family.row(
                    (self.on, 2),
                    a,
                    &view,
                    Copies { b: packed, ..Copies::NONE },
                    c,
                    epilogue,
                );
            }
            self.copy(&rows_of_b(depth, b, packed, Self::NR));
            self.tile(depth, Panel::packed(a, 1), (packed, Self::NR), c, epilogue, &NextRows::NOTHING);
        }
    }

    unsafe fn tile_packing_a(
        self,
        depth: usize,
        a: (*const f32, usize),
        b: *const f32,
        packed: *mut f32,
        c: Tile,
        epilogue: &Epilogue,
    ) {
        let block = rows_of_a(depth, a, packed, 1);
        unsafe { self.view_packing_a(&block, &View::of_panel(b, Self::NR, depth), c, epilogue) }
    }

    unsafe fn view(self, a: *const f32, b: &View, c: Tile, epilogue: &Epilogue) {
        unsafe { self.family.row((self.on, 0), a, b, Copies::NONE, c, epilogue) }
    }

    unsafe fn view_packing(self, a: *const f32, b: &View, packed: *mut f32, c: Tile, epilogue: &Epilogue) {
        unsafe {
            if self.on.overlap {
                return self.family.row(
                    (self.on, 2),
                    a,
                    b,
                    Copies { b: packed, ..Copies::NONE },
                    c,
                    epilogue,
                );
            }
            self.family.pack(self.on.vectors, b, c.cols, packed, Self::NR);
            self.view(a, &View::of_panel(packed, Self::NR, b.channels * b.taps.len()), c, epilogue);
        }
    }

    unsafe fn view_packing_a(self, block: &TransposeBlock, b: &View, c: Tile, epilogue: &Epilogue) {
        unsafe {
            if self.on.overlap {
                let copies = Copies { a: block.to, ..Copies::NONE };
                return self.family.row((self.on, 1), block.from, b, copies, c, epilogue);
            }
            self.transpose(block);
            self.view(block.to, b, c, epilogue);
        }
    }

    unsafe fn dots(self, dots: &Dots) {
        unsafe { self.family.whole().dots(dots) }
    }

    unsafe fn transpose(self, block: &TransposeBlock) {
        unsafe { transpose(self.family, self.on, block) }
    }

    unsafe fn copy(self, part: &CopyBlock) {
        unsafe { Tiled { family: self.family, on: self.on }.copy(part) }
    }
}
