//! The products: for each frequency f, a tiles x C matrix times a C x K matrix.
//!
//! ```text
//!            U[f]: C x NR, one panel           a panel: two vectors of output channels
//!            +--------+                        V[f]: [c block][tile][16 c], so that an element of MR tiles
//!   V[f]     |        |                              is at MR constant offsets: a[16*i + c]
//!   +---+    +--------+                        M[f]: [k block][tile][16 k]
//!   |   | MR | M tile |
//!   +---+    +--------+                        sums over C, in ascending order, one accumulator per element
//! ```
//!
//! MR varies: a block's tiles are cut into equal groups, so no work is spent on padding. A panel of U is read from the
//! outer caches once per block, while the kernel prefetches the next panel.

use std::ops::Range;

use super::geometry::Planes;
use super::vector::Vector;

/// Vectors of a panel of U.
pub const PANEL: usize = 2;
/// Taps of a kernel: weights of an input channel for one output channel.
const TAPS: usize = 9;

/// The products of some units: pairs of a frequency and a panel, `frequency*panels + panel`.
pub struct ProductJob<'a> {
    pub units: Range<usize>,
    /// Input channels: all of a group, or some that start at a multiple of LANES.
    pub depth: usize,
    /// Vectors of output channels in U and M.
    pub blocks: usize,
    /// The transformed weights of these channels.
    pub u: &'a [f32],
    /// The distance between frequencies of U.
    pub u_plane: usize,
    /// V, starting at the first of these channels.
    pub v: *const f32,
    pub v_planes: Planes,
    pub m: *mut f32,
    pub m_planes: Planes,
    /// Whether to add to M, which then holds the sums over the channels before.
    pub add: bool,
    pub next: Next,
}

/// What a kernel prefetches.
#[derive(Clone, Copy)]
pub enum Next {
    /// The next panel of U.
    Panel,
    /// One of `count` rows, `row` apart, in each call of a kernel.
    Rows { start: *const f32, row: usize, count: usize },
}

/// Panels of U for `blocks` vectors of output channels.
pub fn panels(blocks: usize) -> usize {
    blocks.div_ceil(PANEL)
}

/// The distance between frequencies of U. It has one extra vector, so that the frequencies of a kernel do not all map
/// to one cache set.
pub fn u_plane(depth: usize, blocks: usize, lanes: usize) -> usize {
    (depth * blocks + 1) * lanes
}

/// The arguments of a kernel: MR tiles and one panel.
#[derive(Clone, Copy)]
struct Call {
    depth: usize,
    /// The distance between vectors of input channels in `a`, and of output channels in `c`.
    stride: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    add: bool,
    /// The address to prefetch, and its step per input channel.
    next: (*const f32, usize),
}

/// Computes the products of a job, with kernels of at most ROWS tiles.
///
/// # Safety
/// The CPU has V. The job's V is readable. Its products are writable, and only this call accesses them; if it adds to
/// them, they are initialised.
#[inline(always)]
pub unsafe fn multiply<V: Vector, const ROWS: usize>(job: &ProductJob) {
    let tiles = job.v_planes.tiles;
    assert!(tiles == job.m_planes.tiles && tiles > 0);
    let groups = tiles.div_ceil(ROWS);
    let (panels, lanes) = (panels(job.blocks), V::LANES);
    let stride = tiles * lanes;
    for (index, unit) in job.units.clone().enumerate() {
        let (f, panel) = (unit / panels, unit % panels);
        let whole = job.blocks - panel * PANEL >= PANEL;
        let len = if whole { PANEL } else { 1 } * job.depth * lanes;
        let b = job.u[f * job.u_plane + panel * PANEL * job.depth * lanes..][..len].as_ptr();
        for group in 0..groups {
            // Groups differ by at most one tile; the larger ones come first.
            let (small, larger) = (tiles / groups, tiles % groups);
            let first = group * small + group.min(larger);
            let rows = small + usize::from(group < larger);
            // SAFETY: frequency f, channel block 0 and tile `first` are in V and in M. `next` is only prefetched.
            let call = unsafe {
                Call {
                    depth: job.depth,
                    stride,
                    a: job.v.add(f * job.v_planes.plane + first * lanes),
                    b,
                    c: job.m.add(f * job.m_planes.plane + panel * PANEL * stride + first * lanes),
                    add: job.add,
                    next: match job.next {
                        Next::Panel => (b.wrapping_add(len + group * job.depth * lanes), lanes),
                        Next::Rows { start, row, count } => {
                            (start.wrapping_add((index * groups + group).min(count - 1) * row), TAPS)
                        }
                    },
                }
            };
            // SAFETY: the caller vouches for V and M; the panel has `len` elements.
            unsafe {
                if whole {
                    rows_of::<V, PANEL, ROWS>(rows, call);
                } else {
                    rows_of::<V, 1, ROWS>(rows, call);
                }
            }
        }
    }
}

/// The kernel for `rows` tiles.
///
/// # Safety
/// As for [`kernel`].
#[inline(always)]
unsafe fn rows_of<V: Vector, const NV: usize, const ROWS: usize>(rows: usize, call: Call) {
    macro_rules! choose {
        ($($count:literal)*) => {
            match rows {
                // SAFETY: as the caller promises.
                $($count if $count <= ROWS => unsafe { kernel::<V, $count, NV>(call) },)*
                _ => unreachable!("groups have 1 to {ROWS} tiles"),
            }
        };
    }
    choose!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// Computes MR x NV vectors of products.
///
/// # Safety
/// The CPU has V. `a` is readable for MR vectors in each block of channels, and `b` for depth x NV vectors. `c` is
/// writable for MR vectors in each of NV blocks, and initialised if the kernel adds to it.
#[inline(always)]
unsafe fn kernel<V: Vector, const MR: usize, const NV: usize>(call: Call) {
    let Call { depth, stride, mut a, mut b, c, add, next: (mut next, step) } = call;
    // SAFETY: as the caller promises. A prefetch accepts any address.
    unsafe {
        let mut sums = [[V::splat(0.0); NV]; MR];
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(c.add(j * stride + i * V::LANES));
                }
            }
        }
        let mut left = depth;
        while left > 0 {
            let count = left.min(V::LANES);
            for l in 0..count {
                prefetch(next);
                next = next.wrapping_add(step);
                let mut columns = [V::splat(0.0); NV];
                for (j, column) in columns.iter_mut().enumerate() {
                    *column = V::load(b.add(j * V::LANES));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let row = V::splat(*a.add(i * V::LANES + l));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = sum.multiply_add(row, column);
                    }
                }
                b = b.add(NV * V::LANES);
            }
            a = a.wrapping_add(stride);
            left -= count;
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                sum.store(c.add(j * stride + i * V::LANES));
            }
        }
    }
}

/// Prefetches a cache line.
#[inline(always)]
fn prefetch(from: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch accepts any address, and every x86-64 CPU has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}
