//! The products: for each frequency f, tiles x C times C x K.
//!
//! ```text
//!            U[f]: C x NR, one panel           a panel: two vectors of output channels
//!            +--------+                        V[f]: [c block][tile][16 c], so that an element of MR tiles
//!   V[f]     |        |                              is at MR constant offsets: a[16*i + c]
//!   +---+    +--------+                        M[f]: [k block][tile][16 k]
//!   |   | MR | M tile |
//!   +---+    +--------+                        sums over C, upwards, one accumulator an element
//! ```
//!
//! MR is not fixed: a block's tiles are cut into equal groups, so that none of the work is on tiles that do
//! not exist. A panel of U is read from the outer caches once for a block; meanwhile the kernel prefetches
//! the next.

use std::ops::Range;

use super::geometry::Planes;
use super::vector::Vector;

/// Vectors of a panel of U.
pub const PANEL: usize = 2;
/// Weights of an input channel for one output channel.
const TAPS: usize = 9;

/// Products of some (frequency, panel) pairs, `frequency*panels + panel`.
pub struct ProductJob<'a> {
    pub units: Range<usize>,
    /// Input channels: all of a group, or some from a multiple of LANES on.
    pub depth: usize,
    /// Vectors of output channels in U and M.
    pub blocks: usize,
    /// Transformed weights of these channels.
    pub u: &'a [f32],
    /// From one frequency of U to the next.
    pub u_plane: usize,
    /// V from the first of the channels on.
    pub v: *const f32,
    pub v_planes: Planes,
    pub m: *mut f32,
    pub m_planes: Planes,
    /// Whether M holds the sums over earlier channels, which go on.
    pub add: bool,
    pub next: Next,
}

/// What is prefetched meanwhile.
#[derive(Clone, Copy)]
pub enum Next {
    /// The panel of U that follows.
    Panel,
    /// One of `count` rows, `row` apart, with each call of a kernel.
    Rows { start: *const f32, row: usize, count: usize },
}

/// Panels of U for K of `blocks` vectors.
pub fn panels(blocks: usize) -> usize {
    blocks.div_ceil(PANEL)
}

/// From one frequency of U to the next. One vector more than is needed, so that the frequencies of a kernel do not
/// all fall into one set of a cache.
pub fn u_plane(depth: usize, blocks: usize, lanes: usize) -> usize {
    (depth * blocks + 1) * lanes
}

/// One call of a kernel: MR tiles, one panel.
#[derive(Clone, Copy)]
struct Call {
    depth: usize,
    /// From one block of channels to the next, and from one vector of output channels to the next.
    stride: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    add: bool,
    /// What to prefetch meanwhile, and how far that goes on with each input channel.
    next: (*const f32, usize),
}

/// Computes the products of a job, with kernels of up to ROWS tiles.
///
/// # Safety
/// The CPU has V. All of the job's V is readable and its products writable, by nobody else meanwhile, and initialised
/// if they are added to.
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
            // Groups differ by one tile at most, the larger ones first.
            let (small, larger) = (tiles / groups, tiles % groups);
            let first = group * small + group.min(larger);
            let rows = small + usize::from(group < larger);
            // SAFETY: frequency f, channel block 0 and tile `first` are in V and in M. `next` is not read.
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
            // SAFETY: the caller vouches for V and M; the panel is `len` elements.
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
/// As [`kernel`].
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

/// MR x NV vectors of products.
///
/// # Safety
/// The CPU has V. `a` is readable for MR vectors in each block of channels, `b` for depth x NV vectors, `c`
/// writable for MR vectors in each of NV blocks, initialised if they are added to.
#[inline(always)]
unsafe fn kernel<V: Vector, const MR: usize, const NV: usize>(call: Call) {
    let Call { depth, stride, mut a, mut b, c, add, next: (mut next, step) } = call;
    // SAFETY: as the caller promises; a prefetch reads nothing and may be of any address.
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

/// Asks for a cache line that will be needed.
#[inline(always)]
fn prefetch(from: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless; every x86-64 CPU has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}
