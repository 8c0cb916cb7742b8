//! Cells of convolutions: implicit GEMM with a switched kernel, or an im2col matrix that is written whole.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Computes;
use super::families::{Family, Switches};
use super::kernels::{Tiled, Untiled};
use crate::cpu::block::Shared;
use crate::cpu::buffer::Buffer;
use crate::cpu::conv2d::{self, ConvPlan};
use crate::cpu::im2col::visible_range;
use crate::cpu::implicit_im2col::columns;
use crate::cpu::kernels::{CopyBlock, Kernel};
use crate::cpu::pool::Team;
use crate::error::{Error, Result};
use crate::memory::Caches;
use crate::memory::implicit_im2col::ImplicitIm2col;
use crate::memory::patterns::{Cell, Half, Pattern, point};
use crate::problem::{Conv2d, Conv2dSizes};

/// Caches that hold everything, so that the planner cuts nothing for them.
const UNBOUNDED: Caches =
    Caches { l1: 1 << 36, l1_threads: 1, l2: 1 << 36, l2_threads: 1, l3: 1 << 36, l3_threads: 1, line: 64 };

/// A cell of `problem` whose weights are packed now, or, if they are `given`, in each run.
///
/// # Errors
/// Out of memory.
pub(super) fn prepare<F: Family>(
    family: F,
    (problem, given): (&Conv2d, bool),
    cell: Cell,
    (weights, bias): (&[f32], Option<&[f32]>),
) -> Result<Box<dyn Computes>> {
    let on = super::switches(cell);
    let whole = if cell.patterns.has(Pattern::Layout) { None } else { point(problem)? };
    let of = (whole.as_ref().unwrap_or(problem), given);
    let cut = cell.tiles(Half::Caches);
    let computes = if cell.tiles(Half::Registers) {
        with_kernel(Tiled { family, on }, of, cut, (weights, bias))
    } else {
        with_kernel(Untiled { family, on }, of, cut, (weights, bias))
    }?;
    match whole {
        None => Ok(computes),
        Some(inner) => Ok(Box::new(WholeMatrix {
            kernel: Tiled { family, on },
            problem: *problem,
            matrix: Mutex::new(Buffer::zeroed(inner.input_len())?),
            computes,
        })),
    }
}

/// How a kernel reads images, with depth cut for the caches or not.
fn implicit<K: Kernel>(kernel: K, problem: &Conv2d, cut: bool) -> Option<ImplicitIm2col> {
    if cut {
        return conv2d::implicit_im2col(kernel, problem);
    }
    let ways = ImplicitIm2col::ways(&UNBOUNDED, columns(kernel), problem);
    let mut best = ways.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?.1;
    // The planner also cuts depth so that packed panels and columns beside vectors find room. Panels that do not are not
    // packed, and a kernel may have no such columns.
    if !best.staged && K::BESIDE == 0 && K::THIN == 0 {
        best.channels = problem.sizes().c / problem.sizes().groups;
    }
    Some(best)
}

fn with_kernel<K: Kernel>(
    kernel: K,
    (problem, given): (&Conv2d, bool),
    cut: bool,
    (weights, bias): (&[f32], Option<&[f32]>),
) -> Result<Box<dyn Computes>> {
    let implicit = implicit(kernel, problem, cut);
    if given {
        let (weights, bias) = (weights.to_vec(), bias.map(<[f32]>::to_vec));
        return Ok(Box::new(Given { kernel, problem: *problem, implicit, weights, bias }));
    }
    let geometry = conv2d::geometry(kernel, problem, implicit);
    let plan = ConvPlan::with_geometry(kernel, problem, (weights, bias), geometry)?;
    Ok(Box::new(Packed { plan, flops: problem.flops() }))
}

/// With packed weights.
struct Packed<K> {
    plan: ConvPlan<K>,
    flops: u64,
}

impl<K: Kernel> Computes for Packed<K> {
    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Duration> {
        let mut team = Team::for_work(self.flops)?;
        let start = Instant::now();
        self.plan.execute(&mut team, input, output)?;
        Ok(start.elapsed())
    }
}

/// With weights as given.
struct Given<K> {
    kernel: K,
    problem: Conv2d,
    implicit: Option<ImplicitIm2col>,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl<K: Kernel> Computes for Given<K> {
    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Duration> {
        let given = (&self.weights[..], self.bias.as_deref());
        Ok(conv2d::once(self.kernel, (&self.problem, self.implicit), given, input, output)?.kernel)
    }
}

/// Writes the im2col matrix whole, and then computes from it.
struct WholeMatrix<K> {
    kernel: K,
    problem: Conv2d,
    matrix: Mutex<Buffer>,
    computes: Box<dyn Computes>,
}

impl<F: Family> Computes for WholeMatrix<Tiled<F>> {
    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Duration> {
        let poisoned = || Error::Internal("a run of this cell panicked".to_owned());
        let mut matrix = self.matrix.lock().map_err(|_| poisoned())?;
        let Conv2dSizes { n, c, h, w, p, q, r, s, .. } = *self.problem.sizes();
        let mut team = Team::for_work(self.problem.flops())?;
        let start = Instant::now();
        let (len, shared) = (r * s * p * q, Shared::new(&mut matrix));
        assert_eq!((input.len(), matrix.len()), (n * c * h * w, n * c * len));
        team.run(n * c, |channel, _| {
            // SAFETY: the matrix has as many elements for each channel, as asserted. No other task writes these.
            let to = unsafe { std::slice::from_raw_parts_mut(shared.start().add(channel * len), len) };
            write_channel(self.kernel, self.kernel.on, &self.problem, &input[channel * h * w..][..h * w], to);
        })?;
        drop(team);
        let written = start.elapsed();
        Ok(written + self.computes.run(&matrix, output)?)
    }
}

/// Writes the rows of the im2col matrix of one channel.
fn write_channel<K: Kernel>(kernel: K, on: Switches, problem: &Conv2d, image: &[f32], to: &mut [f32]) {
    let Conv2dSizes { h, w, p, q, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, .. } =
        *problem.sizes();
    let clear = |part: &mut [f32]| {
        if on.vectors {
            return part.fill(0.0);
        }
        for element in part {
            // SAFETY: a reference to an element is a valid pointer.
            unsafe { std::ptr::from_mut(element).write_volatile(0.0) };
        }
    };
    for (tap, to) in to.chunks_exact_mut(p * q).enumerate() {
        let first = |tap: usize, dilation: usize, pad: usize| (tap * dilation) as i64 - pad as i64;
        let (y, x) = (first(tap / s % r, dilation_h, pad_h), first(tap % s, dilation_w, pad_w));
        let (rows, cols) = (visible_range(y, stride_h, h, p), visible_range(x, stride_w, w, q));
        if rows.is_empty() || cols.is_empty() {
            clear(to);
            continue;
        }
        clear(&mut to[..rows.start * q]);
        clear(&mut to[rows.end * q..]);
        for row in to[rows.start * q..rows.end * q].chunks_exact_mut(q) {
            clear(&mut row[..cols.start]);
            clear(&mut row[cols.end..]);
        }
        let at = |first: i64, index: usize, stride: usize| (first + (index * stride) as i64) as usize;
        let from = &image[at(y, rows.start, stride_h) * w + at(x, cols.start, stride_w)..];
        let to = &mut to[rows.start * q + cols.start..];
        let (count, len) = (rows.len(), cols.len());
        assert!(from.len() > (count - 1) * stride_h * w + (len - 1) * stride_w);
        assert!(to.len() >= (count - 1) * q + len);
        let part = CopyBlock {
            from: from.as_ptr(),
            from_row: stride_h * w,
            stride: stride_w,
            to: to.as_mut_ptr(),
            to_row: q,
            rows: count,
            len,
            groups: 1,
            from_group: 0,
            to_group: 0,
        };
        // SAFETY: the last element of the last row is inside of both slices, as asserted.
        unsafe { kernel.copy(&part) };
    }
}
