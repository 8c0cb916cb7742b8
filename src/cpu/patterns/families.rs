//! The kernels of each instruction set with vectors or prefetches off: the product's loops on another [`Vector`] type.

use std::arch::x86_64::*;

use super::untiled::{Copies, row};
use super::vector::{Lanes, Register};
use crate::cpu::kernels::vector::{
    Vector, define_vector_kernel, finish_one, for_vectors, is_whole, unrolled, view_of,
};
use crate::cpu::kernels::{Avx2, Avx512, Epilogue, Kernel, Tile, TransposeBlock, View};
use crate::cpu::tunables::TRANSPOSE_LEAD;

/// What is on besides tiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    pub vectors: bool,
    pub prefetch: bool,
    pub overlap: bool,
}

/// A kernel of the instruction set that PROOF proves, on registers that are accessed as VECTORS and PREFETCH say.
#[derive(Clone, Copy)]
pub struct Accessing<PROOF, const VECTORS: bool, const PREFETCH: bool>(PROOF);

/// An instruction set.
pub trait Family: Copy + Send + Sync + 'static {
    /// The product's kernel.
    type Whole: Kernel;
    /// It without prefetches.
    type Quiet: Kernel;
    /// It with accesses of 4 bytes.
    type Scattered: Kernel;
    /// It with neither vectors nor prefetches.
    type Bare: Kernel;
    /// Names of the kernel without tiling.
    const UNTILED: &'static str;

    fn whole(self) -> Self::Whole;
    fn quiet(self) -> Self::Quiet;
    fn scattered(self) -> Self::Scattered;
    fn bare(self) -> Self::Bare;

    /// Packs the vectors of a view that [`Kernel::view_packing`] would pack, for a panel of `nr` columns.
    ///
    /// # Safety
    /// The contract of [`Kernel::view_packing`] for the view and the panel.
    unsafe fn pack(self, vectors: bool, b: &View, cols: usize, packed: *mut f32, nr: usize);

    /// [`row`] with what is on, and with nothing copied (0), A (1) or B (2).
    ///
    /// # Safety
    /// The contract of [`row`].
    unsafe fn row(
        self,
        how: (Switches, usize),
        a: *const f32,
        b: &View,
        copies: Copies,
        c: Tile,
        epilogue: &Epilogue,
    );
}

/// Packs the vectors of a view into a panel of `nr` columns. Lanes that are not read become zero.
///
/// # Safety
/// The contract of [`Kernel::view_packing`] for the view and the panel.
#[inline(always)]
unsafe fn pack<T: Vector>(b: &View, cols: usize, packed: *mut f32, nr: usize) {
    let mut to = packed;
    for channel in 0..b.channels {
        for tap in b.taps {
            let from = b.start.wrapping_add(channel * b.pitch).wrapping_offset(tap.offset);
            for j in (0..cols).step_by(T::LANES) {
                // SAFETY: the caller guarantees the lanes that are set, and the panel to the end of the last vector.
                unsafe {
                    let at = from.wrapping_add(j);
                    let value = match (b.whole, b.padded || cols - j >= T::LANES) {
                        (true, true) => T::load(at),
                        (true, false) => T::load_part(at, T::mask(cols - j)),
                        (false, _) => T::load_part(at, T::lanes(tap.lanes >> j)),
                    };
                    value.store(to.add(j));
                }
            }
            to = to.wrapping_add(nr);
        }
    }
}

/// Transposes with accesses of 4 bytes.
///
/// # Safety
/// The contract of [`Kernel::transpose`].
pub(super) unsafe fn transpose_elements(block: &TransposeBlock) {
    let TransposeBlock { from, line, to, width, lines, depths, .. } = *block;
    for l in 0..lines {
        for p in 0..depths {
            // SAFETY: `l` and `p` are below the counts that the caller guarantees.
            unsafe { to.add(p * width + l).write_volatile(from.add(l * line + p).read_volatile()) };
        }
    }
}

macro_rules! define_family {
    ($proof:ty, $vector:ty, $untiled:literal, $features:literal) => {
        impl Family for $proof {
            type Whole = $proof;
            type Quiet = Accessing<$proof, true, false>;
            type Scattered = Accessing<$proof, false, true>;
            type Bare = Accessing<$proof, false, false>;
            const UNTILED: &'static str = $untiled;

            fn whole(self) -> Self::Whole {
                self
            }
            fn quiet(self) -> Self::Quiet {
                Accessing(self)
            }
            fn scattered(self) -> Self::Scattered {
                Accessing(self)
            }
            fn bare(self) -> Self::Bare {
                Accessing(self)
            }

            unsafe fn pack(self, vectors: bool, b: &View, cols: usize, packed: *mut f32, nr: usize) {
                #[target_feature(enable = $features)]
                unsafe fn compiled<const VECTORS: bool>(b: &View, cols: usize, packed: *mut f32, nr: usize) {
                    // SAFETY: the caller keeps the contract.
                    unsafe { pack::<Register<$vector, VECTORS, false>>(b, cols, packed, nr) }
                }
                // SAFETY: the caller keeps the contract; that `self` exists proves the features.
                unsafe {
                    if vectors {
                        compiled::<true>(b, cols, packed, nr)
                    } else {
                        compiled::<false>(b, cols, packed, nr)
                    }
                }
            }

            unsafe fn row(
                self,
                how: (Switches, usize),
                a: *const f32,
                b: &View,
                copies: Copies,
                c: Tile,
                epilogue: &Epilogue,
            ) {
                #[target_feature(enable = $features)]
                unsafe fn compiled<
                    const VECTORS: bool,
                    const PREFETCH: bool,
                    const MASKED: bool,
                    const A: bool,
                    const B: bool,
                >(
                    a: *const f32,
                    b: &View,
                    copies: Copies,
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    // SAFETY: the caller keeps the contract.
                    unsafe {
                        row::<Register<$vector, VECTORS, PREFETCH>, MASKED, A, B>(a, b, copies, c, epilogue)
                    }
                }
                type Instance = unsafe fn(*const f32, &View, Copies, Tile, &Epilogue);
                macro_rules! of {
                    ($v:literal, $p:literal) => {
                        [
                            [compiled::<$v, $p, false, false, false>, compiled::<$v, $p, true, false, false>],
                            [compiled::<$v, $p, false, true, false>, compiled::<$v, $p, true, true, false>],
                            [compiled::<$v, $p, false, false, true>, compiled::<$v, $p, true, false, true>],
                        ]
                    };
                }
                const INSTANCES: [[[[Instance; 2]; 3]; 2]; 2] =
                    [[of!(false, false), of!(false, true)], [of!(true, false), of!(true, true)]];
                let (on, copy) = how;
                let of = &INSTANCES[usize::from(on.vectors)][usize::from(on.prefetch)];
                // SAFETY: the caller keeps the contract; that `self` exists proves the features.
                unsafe { of[copy][usize::from(!b.whole)](a, b, copies, c, epilogue) }
            }
        }
    };
}

define_family!(Avx2, __m256, "conv_patterns_avx2_1x8", "avx2,fma");
define_family!(Avx512, __m512, "conv_patterns_avx512_1x16", "avx512f,avx2,fma");

// All tiles have all rows: `Tiled` puts smaller ones into memory of its own. So there are few instances, and they compile in
// little time.
macro_rules! define_avx2 {
    ($vectors:literal, $prefetch:literal) => {
        define_vector_kernel!(Accessing<Avx2, $vectors, $prefetch>, Register<__m256, $vectors, $prefetch>,
            "patterns_avx2", 6 x 16, "avx2,fma", rows: 6 6 6 6 6 6, vectors: (1 2), columns: ;);
    };
}
define_avx2!(true, false);
define_avx2!(false, true);
define_avx2!(false, false);

macro_rules! define_avx512 {
    ($vectors:literal, $prefetch:literal) => {
        define_vector_kernel!(Accessing<Avx512, $vectors, $prefetch>, Register<__m512, $vectors, $prefetch>,
            "patterns_avx512", 8 x 48, "avx512f,avx2,fma", rows: 8 8 8 8 8 8 8 8, vectors: (1 2 3), columns: 1 2;
            const HIDES_PACKING: bool = <Avx512 as Kernel>::HIDES_PACKING;
            const THIN: usize = <Avx512 as Kernel>::THIN;

            unsafe fn thin(self, depth: usize, a: *const f32, b: (*const f32, usize), c: Tile, epilogue: &Epilogue) {
                #[target_feature(enable = "avx512f,avx2,fma")]
                unsafe fn compiled(depth: usize, a: *const f32, b: (*const f32, usize), c: Tile, epilogue: &Epilogue) {
                    // SAFETY: the caller keeps the contract of Kernel::thin.
                    unsafe { thin::<Register<__m256, $vectors, $prefetch>>(depth, a, b, c, epilogue) }
                }
                // SAFETY: the caller keeps the contract; that `self` exists proves the features.
                unsafe { compiled(depth, a, b, c, epilogue) }
            }

            unsafe fn view_packing_a(self, block: &TransposeBlock, b: &View, c: Tile, epilogue: &Epilogue) {
                #[target_feature(enable = "avx512f,avx2,fma")]
                unsafe fn compiled<const V: usize, const X: usize, const MASKED: bool>(
                    proof: Avx512,
                    block: &TransposeBlock,
                    b: &View,
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    // SAFETY: the caller keeps the contract of Kernel::view_packing_a.
                    unsafe {
                        view_packing_a::<Register<__m512, $vectors, $prefetch>, V, X, MASKED, $vectors>(proof, block, b, c, epilogue)
                    }
                }
                type Instance = unsafe fn(Avx512, &TransposeBlock, &View, Tile, &Epilogue);
                macro_rules! of {
                    ($v:literal) => {
                        [
                            [compiled::<$v, 0, false>, compiled::<$v, 0, true>],
                            [compiled::<$v, 1, false>, compiled::<$v, 1, true>],
                            [compiled::<$v, 2, false>, compiled::<$v, 2, true>],
                        ]
                    };
                }
                const INSTANCES: [[[Instance; 2]; 3]; 3] = [of!(1), of!(2), of!(3)];
                if c.rows < Self::MR {
                    // SAFETY: the caller keeps the contract of both.
                    return unsafe {
                        self.transpose(block);
                        self.view(block.to, b, c, epilogue);
                    };
                }
                let vectors = (c.cols - b.beside).div_ceil(Self::LANES) - 1;
                // SAFETY: the caller keeps the contract; that `self` exists proves the features.
                unsafe { INSTANCES[vectors][b.beside][usize::from(!b.whole)](self.0, block, b, c, epilogue) }
            }
        );
    };
}
define_avx512!(true, false);
define_avx512!(false, true);
define_avx512!(false, false);

/// Depths that are transposed at a time, as in the product's kernel.
const SIDE: usize = 8;

/// A tile of eight rows of A that are transposed a few depths before they are read.
///
/// # Safety
/// The contract of [`Kernel::view_packing_a`], for MR rows.
#[inline(always)]
unsafe fn view_packing_a<
    T: Vector,
    const V: usize,
    const X: usize,
    const MASKED: bool,
    const VECTORS: bool,
>(
    proof: Avx512,
    block: &TransposeBlock,
    b: &View,
    c: Tile,
    epilogue: &Epilogue,
) {
    const MR: usize = <Avx512 as Kernel>::MR;
    let (panel, mut done) = (block.to.cast_const(), 0);
    let mut before = |read: *const f32| {
        let until = (read.addr() - panel.addr()) / size_of::<f32>() / MR + TRANSPOSE_LEAD;
        while done < until.min(block.depths) {
            let depths = SIDE.min(block.depths - done);
            let part = TransposeBlock {
                from: block.from.wrapping_add(done),
                to: block.to.wrapping_add(done * MR),
                depths,
                more: false,
                ..*block
            };
            // SAFETY: these depths are below the block's.
            unsafe { if VECTORS { proof.transpose(&part) } else { transpose_elements(&part) } };
            done += depths;
        }
    };
    // SAFETY: the caller keeps the contract; a panel's depths are transposed before they are read.
    unsafe {
        let nowhere = std::ptr::null_mut();
        if is_whole::<T, V, X, MASKED>(b, &c) {
            view_of::<T, MR, V, X, MASKED, true, 0>(
                (MR, panel),
                b,
                nowhere,
                c,
                epilogue,
                2 * SIDE,
                &mut before,
            );
        } else {
            view_of::<T, MR, V, X, MASKED, false, 0>(
                (MR, panel),
                b,
                nowhere,
                c,
                epilogue,
                2 * SIDE,
                &mut before,
            );
        }
    }
}

/// All rows of a few columns; lanes are rows.
///
/// # Safety
/// The contract of [`Kernel::thin`] for panels of T's lanes.
#[inline(always)]
unsafe fn thin<T: Lanes>(
    depth: usize,
    a: *const f32,
    (b, b_row): (*const f32, usize),
    c: Tile,
    epilogue: &Epilogue,
) {
    const CHAINS: usize = 8;
    let panels = c.rows.div_ceil(T::LANES);
    for first in (0..panels).step_by(CHAINS) {
        let count = CHAINS.min(panels - first);
        for j in 0..c.cols {
            // SAFETY: panels, rows and columns are below the counts that the caller guarantees.
            unsafe {
                let mut sums = [T::splat(0.0); CHAINS];
                for p in 0..depth {
                    let value = T::splat(*b.add(p * b_row + j));
                    unrolled!(g below CHAINS: {
                        if g < count {
                            let at = a.add(((first + g) * depth + p) * T::LANES);
                            sums[g] = T::load(at).mul_add(value, sums[g]);
                        }
                    });
                }
                for (g, sum) in sums.into_iter().enumerate().take(count) {
                    sum.each(|lane, value| {
                        let i = (first + g) * T::LANES + lane;
                        if i < c.rows {
                            finish_one(value, c.start.add(i * c.ld + j), i, epilogue);
                        }
                    });
                }
            }
        }
    }
}
