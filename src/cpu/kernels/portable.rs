//! The fallback micro-kernel in plain Rust. The compiler turns it into vector code for the architecture's baseline.
//!
//! The accumulators are one local array. Its rows are indexed by constants and its columns in loops of constant
//! length, so the compiler keeps it in vector registers.

use super::contract::{
    CopyBlock, DOT_LANES, Dots, Epilogue, Kernel, NextRows, Panel, Tile, TransposeBlock, View,
};
use super::transpose;
use super::vector::unrolled;

/// The kernel for the architecture's baseline.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

/// Implements [`Kernel`] with a tile size. `fma` says whether the target has a fused multiply-add. Without it,
/// `mul_add` would be a slow function call.
macro_rules! define_kernel {
    ($mr:literal x $nr:literal, lanes: $lanes:literal, fma: $fma:literal) => {
        const FMA: bool = $fma;

        impl Kernel for Portable {
            const MR: usize = $mr;
            const NR: usize = $nr;
            const LANES: usize = $lanes;
            const SGEMM: &'static str = concat!("sgemm_portable_", $mr, "x", $nr);
            const CONV: &'static str = concat!("conv_igemm_portable_", $mr, "x", $nr);
            const DOTS: &'static str = "conv_dots_portable";
            const CHANNELS_LAST: &'static str = concat!("conv_channels_last_portable_", $mr, "x", $nr);
            const CHANNELWISE_NAME: &'static str = "conv_depthwise_channels_last_portable";

            #[inline]
            unsafe fn tile(
                self,
                depth: usize,
                a: Panel,
                b: (*const f32, usize),
                c: Tile,
                epilogue: &Epilogue,
                _: &NextRows,
            ) {
                // SAFETY: the caller keeps the contract of Kernel::tile.
                unsafe {
                    if c.rows == $mr && c.cols == $nr {
                        tile::<$mr, $nr, true>(depth, a, b, c, epilogue);
                    } else {
                        tile::<$mr, $nr, false>(depth, a, b, c, epilogue);
                    }
                }
            }

            const MASKS: bool = false;
            const BESIDE: usize = 0;

            #[inline]
            unsafe fn view(self, a: *const f32, b: &View, c: Tile, epilogue: &Epilogue) {
                // SAFETY: the caller keeps the contract of Kernel::view.
                unsafe {
                    if b.whole && (c.rows, c.cols) == ($mr, $nr) {
                        view::<$mr, $nr, true>(a, b, c, epilogue)
                    } else {
                        view::<$mr, $nr, false>(a, b, c, epilogue)
                    }
                }
            }

            #[inline]
            unsafe fn dots(self, of: &Dots) {
                // SAFETY: the caller keeps the contract of Kernel::dots.
                unsafe { dots(of) }
            }

            #[inline]
            unsafe fn transpose(self, block: &TransposeBlock) {
                // SAFETY: the caller keeps the contract of Kernel::transpose.
                unsafe { transpose::by_fours(block) }
            }

            #[inline]
            unsafe fn copy(self, part: &CopyBlock) {
                // SAFETY: the caller keeps the contract of Kernel::copy.
                unsafe { copy(part) }
            }
        }
    };
}

// Tiles as large as the registers allow: 16 registers of four lanes on the x86-64 baseline, 32 on the others.
#[cfg(target_arch = "x86_64")]
define_kernel!(4 x 8, lanes: 4, fma: false);
#[cfg(target_arch = "aarch64")]
define_kernel!(8 x 8, lanes: 4, fma: true);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
define_kernel!(4 x 4, lanes: 4, fma: false);

/// One tile of C. WHOLE says that it is MR x NR. In a smaller tile, missing rows repeat the last one and missing
/// columns are zeros; their results are not stored. All elements are computed by the same arithmetic.
///
/// # Safety
/// The contract of [`Kernel::tile`].
#[inline(always)]
unsafe fn tile<const MR: usize, const NR: usize, const WHOLE: bool>(
    depth: usize,
    a: Panel,
    (b, b_row): (*const f32, usize),
    c: Tile,
    epilogue: &Epilogue,
) {
    let mut sums = [[0.0f32; NR]; MR];
    for p in 0..depth {
        // SAFETY: p is below depth, and the caller guarantees that many rows of B.
        let values = unsafe { row::<NR, WHOLE>(b.add(p * b_row), c.cols) };
        // SAFETY: p is below depth.
        unsafe { step::<MR, NR, WHOLE>(&mut sums, a, p, &values, c.rows) };
    }
    // SAFETY: the caller keeps the contract.
    unsafe { finish::<MR, NR, WHOLE>(&sums, c, epilogue) };
}

/// One tile of C whose B is a view.
///
/// # Safety
/// The contract of [`Kernel::view`].
#[inline(always)]
unsafe fn view<const MR: usize, const NR: usize, const WHOLE: bool>(
    a: *const f32,
    b: &View,
    c: Tile,
    epilogue: &Epilogue,
) {
    let a = Panel::packed(a, MR);
    let mut sums = [[0.0f32; NR]; MR];
    for channel in 0..b.channels {
        for (index, tap) in b.taps.iter().enumerate() {
            let from = b.start.wrapping_add(channel * b.pitch).wrapping_offset(tap.offset);
            let mut values = [0.0; NR];
            if WHOLE {
                // SAFETY: the caller guarantees all lanes.
                values = unsafe { from.cast::<[f32; NR]>().read_unaligned() };
            } else {
                for (j, value) in values.iter_mut().enumerate().take(c.cols) {
                    if tap.lanes >> j & 1 != 0 {
                        // SAFETY: the caller guarantees the lanes that are set.
                        *value = unsafe { *from.add(j) };
                    }
                }
            }
            // SAFETY: channel and tap are below their counts.
            unsafe {
                step::<MR, NR, WHOLE>(&mut sums, a, channel * b.taps.len() + index, &values, c.rows);
            }
        }
    }
    // SAFETY: the caller keeps the contract.
    unsafe { finish::<MR, NR, WHOLE>(&sums, c, epilogue) };
}

/// Adds the products of depth `p`. Missing rows repeat the last one.
///
/// # Safety
/// A is readable there in `rows` rows.
#[inline(always)]
unsafe fn step<const MR: usize, const NR: usize, const WHOLE: bool>(
    sums: &mut [[f32; NR]; MR],
    a: Panel,
    p: usize,
    values: &[f32; NR],
    rows: usize,
) {
    unrolled!(i below MR: {
        let row = if WHOLE { i } else { i.min(rows - 1) };
        // SAFETY: the row is below `rows`, and the caller guarantees the depth.
        let value = unsafe { *a.start.add(row * a.row + p * a.step) };
        for j in 0..NR {
            sums[i][j] = if FMA { value.mul_add(values[j], sums[i][j]) } else { sums[i][j] + value * values[j] };
        }
    });
}

/// Applies the epilogue to a tile of sums and stores it.
///
/// # Safety
/// The contract of [`Kernel::tile`] for C and the epilogue.
#[inline(always)]
unsafe fn finish<const MR: usize, const NR: usize, const WHOLE: bool>(
    sums: &[[f32; NR]; MR],
    c: Tile,
    epilogue: &Epilogue,
) {
    unrolled!(i below MR: {
        if WHOLE || i < c.rows {
            // SAFETY: the caller guarantees c.cols elements in this row, and its bias unless null.
            unsafe { store::<NR, WHOLE>(&sums[i], c.start.add(i * c.ld), c.cols, epilogue, i) };
        }
    });
}

/// Loads a row of `cols` elements, padded with zeros.
///
/// # Safety
/// `cols` elements are readable.
#[inline(always)]
unsafe fn row<const NR: usize, const WHOLE: bool>(from: *const f32, cols: usize) -> [f32; NR] {
    if WHOLE {
        // SAFETY: a whole tile has NR columns. f32 arrays need no more alignment than f32.
        return unsafe { *from.cast::<[f32; NR]>() };
    }
    let mut values = [0.0; NR];
    // SAFETY: the caller guarantees them.
    values[..cols].copy_from_slice(unsafe { std::slice::from_raw_parts(from, cols) });
    values
}

/// Applies the epilogue to one row of a tile and stores it.
///
/// # Safety
/// `row` is writable for `cols` elements, initialised unless beta is zero; the bias is null or readable at `i`.
#[inline(always)]
unsafe fn store<const NR: usize, const WHOLE: bool>(
    sums: &[f32; NR],
    to: *mut f32,
    cols: usize,
    epilogue: &Epilogue,
    i: usize,
) {
    let mut values = sums.map(|sum| epilogue.alpha * sum);
    if epilogue.beta != 0.0 {
        // SAFETY: the caller guarantees initialised values, as beta is not zero.
        let old = unsafe { row::<NR, WHOLE>(to, cols) };
        for (value, old) in values.iter_mut().zip(old) {
            *value += epilogue.beta * old;
        }
    }
    if !epilogue.bias.is_null() {
        // SAFETY: the caller guarantees it.
        let bias = unsafe { *epilogue.bias.add(i) };
        values = values.map(|value| value + bias);
    }
    if epilogue.relu {
        values = values.map(|value| if value < 0.0 { 0.0 } else { value });
    }
    // SAFETY: the caller guarantees as many writable elements.
    unsafe {
        if WHOLE {
            *to.cast::<[f32; NR]>() = values;
        } else {
            std::slice::from_raw_parts_mut(to, cols).copy_from_slice(&values[..cols]);
        }
    }
}

/// Copies rows.
///
/// # Safety
/// The contract of [`Kernel::copy`].
#[inline(always)]
unsafe fn copy(part: &CopyBlock) {
    for (group, row) in (0..part.groups).flat_map(|group| (0..part.rows).map(move |row| (group, row))) {
        // SAFETY: groups, rows and elements are below the counts that the caller guarantees.
        unsafe {
            let from = part.from.add(group * part.from_group + row * part.from_row);
            let to = part.to.add(group * part.to_group + row * part.to_row);
            if part.stride == 1 {
                to.copy_from_nonoverlapping(from, part.len);
            } else {
                for at in 0..part.len {
                    *to.add(at) = *from.add(at * part.stride);
                }
            }
        }
    }
}

/// Dot products in loops that the compiler turns into vector code.
///
/// # Safety
/// The contract of [`Kernel::dots`].
unsafe fn dots(dots: &Dots) {
    for (l, v) in (0..dots.lines).flat_map(|l| (0..dots.vectors).map(move |v| (l, v))) {
        // SAFETY: the caller guarantees these lines and this element.
        unsafe {
            let a = dots.a.add(l * dots.line);
            let b = std::slice::from_raw_parts(dots.b.add(v * dots.vector), dots.depth);
            let mut lanes = [0.0f32; DOT_LANES];
            for (index, b) in b.chunks(DOT_LANES).enumerate() {
                let a = std::slice::from_raw_parts(a.add(index * dots.step), b.len());
                for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
                    *lane += a * b;
                }
            }
            dots.finish(lanes, l, v);
        }
    }
}
