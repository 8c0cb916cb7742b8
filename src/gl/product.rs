//! Matrix products on a context.
//!
//! The kernel writes a tight matrix of its own in the order of C's memory; [`run`] hands that out, and [`store`] puts it into the
//! caller's C row by row, so the gaps that a leading dimension leaves are never touched.

use crate::allocate;
use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::dispatch::{self, DispatchBudget, Ran, STEPS, Step, Work};
use crate::gl::execution::passes::{Buffers, Passes};
use crate::gl::execution::programs::Programs;
use crate::memory::tiles::{self, Gpu, Tile, TiledProducts};
use crate::problem::{Gemm, GemmSizes};
use crate::shader::iterations::{self, Part};
use crate::shader::recipe::{self, Product};
use crate::shader::source::{SGEMM_DIRECT, SGEMM_PART};

/// Uniform locations of the bounds of a part of the depth.
const DEPTH: [u32; 2] = [2, 3];
/// Rows and columns of the tile that a workgroup computes.
const TILE: usize = 16;
/// As for convolutions: operations a result takes beside its multiply-adds.
const PER_RESULT: f64 = 32.0;

/// The parameter block of `sgemm_direct_16x16`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    sizes: [u32; 11],
    alpha: f32,
    beta: f32,
}

/// The lines of C that lie together in memory: how many, how long, and how far apart.
struct Lines {
    count: usize,
    length: usize,
    distance: usize,
}

fn lines(problem: &Gemm) -> Lines {
    let GemmSizes { m, n, c_row, c_col, .. } = *problem.sizes();
    if c_col == 1 {
        Lines { count: m, length: n, distance: c_row }
    } else {
        Lines { count: n, length: m, distance: c_col }
    }
}

/// Applies `set` to each line of C with the number of its first element in the tight matrix.
fn each_line(problem: &Gemm, c: &mut [f32], mut set: impl FnMut(usize, &mut [f32])) {
    let Lines { count, length, distance } = lines(problem);
    // Empty lines lie nowhere: not even their beginnings need be inside C.
    let count = if length == 0 { 0 } else { count };
    for line in 0..count {
        set(line * length, &mut c[line * distance..][..length]);
    }
}

/// Puts a finished tight matrix into C.
pub fn store(problem: &Gemm, tight: &[f32], c: &mut [f32]) {
    each_line(problem, c, |first, line| line.copy_from_slice(&tight[first..][..line.len()]));
}

/// C = beta C, which is all there is to do where there is no product. The old C is not read if beta is zero.
pub fn scale(problem: &Gemm, c: &mut [f32]) {
    match problem.beta() {
        0.0 => each_line(problem, c, |_, line| line.fill(0.0)),
        1.0 => {}
        beta => each_line(problem, c, |_, line| line.iter_mut().for_each(|value| *value *= beta)),
    }
}

/// Computes the product into `tight`, a matrix of m*n elements in the order of C's memory; its depth in several passes where one would
/// make too many iterations. `tight` is undefined if this fails. `c` is read only if beta is not zero. Gives the kernel's name, too.
///
/// # Errors
/// [`Error::Unsupported`] for matrices beyond the device's limits; else what it failed to do.
pub fn run(
    programs: &mut Programs,
    problem: &Gemm,
    (a, b, c): (&[f32], &[f32], &[f32]),
    tight: &mut [f32],
) -> Result<(&'static str, Ran)> {
    let parts = iterations::depth_parts(problem, programs.context().group().max_iterations())?;
    let kernel = if parts.len() == 1 { SGEMM_DIRECT } else { SGEMM_PART };
    let program = programs.kernel(kernel)?;
    let context = programs.context();
    let GemmSizes { m, n, k, a_row, a_col, b_row, b_col, c_row, c_col } = *problem.sizes();
    let [a_len, b_len, c_len] = problem.lens();
    fits(context, problem)?;
    let upload = |data: &[f32]| Buffer::with_data(context, bytemuck::cast_slice(data));
    let (out_row, out_col) = if c_col == 1 { (n, 1) } else { (1, m) };
    let sizes = [m, n, k, a_row, a_col, b_row, b_col, c_row, c_col, out_row, out_col].map(|it| it as u32);
    let params = Params { sizes, alpha: problem.alpha(), beta: problem.beta() };
    let a = upload(&a[..a_len])?;
    let b = upload(&b[..b_len])?;
    let output = Buffer::new(context, size_of_val(tight))?;
    let params = Buffer::with_data(context, bytemuck::bytes_of(&params))?;
    let old = if problem.beta() == 0.0 { None } else { Some(upload(&c[..c_len])?) };
    let bind = || {
        let buffers = [Some(&a), Some(&b), Some(&output), Some(&params), old.as_ref()];
        (0..).zip(buffers).for_each(|(index, buffer)| buffer.into_iter().for_each(|it| it.bind(index)));
    };
    let work = |part: &Part| Work {
        units: (m.div_ceil(TILE) * n.div_ceil(TILE)) as u32,
        per_group: 1,
        operations: (TILE * TILE) as f64 * (2.0 * part.products() as f64 + PER_RESULT),
    };
    let budget = DispatchBudget::new();
    let ran = if let [whole] = &parts[..] {
        bind();
        context.check("glBindBufferBase")?;
        dispatch::run(context, &program, &work(whole), &budget)
    } else {
        let bind_part = |part: &Part| {
            bind();
            let bounds = DEPTH.into_iter().zip(part.ranges[0]);
            bounds.for_each(|(location, bound)| context.api().uniform_1ui(location, bound as u32));
        };
        let binds = allocate::collected(parts.iter().map(|part| Ok(move || bind_part(part))), STEPS)?;
        let step = |(part, bind)| Ok(Step { program: &program, work: work(part), budget: &budget, bind });
        let binds = binds.iter().map(|bind| bind as &dyn Fn());
        let steps = allocate::collected(parts.iter().zip(binds).map(step), STEPS)?;
        dispatch::run_steps(context, &steps, &DispatchBudget::new())
    }?;
    output.read(bytemuck::cast_slice_mut(tight))?;
    Ok((kernel.name, ran))
}

/// Products with less work stay with the one kernel that needs no compiling.
const MIN_FLOPS: u64 = 50_000_000;
/// The most parts of the depth.
const MAX_SPLITS: usize = 32;
/// Tiles may begin up to this far beyond the end.
const MARGIN: usize = 4096;

/// Whether `problem` is large enough for tiles, whose shaders have to be compiled.
pub fn is_large(problem: &Gemm) -> bool {
    problem.flops() >= MIN_FLOPS
}

/// The tile to compute `problem` with on `gpu`, and the parts of its depth; none if tiles do not pay or do not fit.
///
/// # Errors
/// [`Error::Unsupported`] for matrices beyond the device's limits.
pub fn tile(context: &Context, gpu: &Gpu, problem: &Gemm) -> Result<Option<(Tile, usize)>> {
    if !is_large(problem) {
        return Ok(None);
    }
    fits(context, problem)?;
    let Product { rows, cols, depth, .. } = Product::new(problem);
    let possible = |&tile: &Tile| {
        let slices = depth.div_ceil(tile.bk);
        let splits = iterations::least_splits(&tile, slices, 0, false, gpu.max_iterations)?;
        let packed = depth.next_multiple_of(tile.bk) * rows.next_multiple_of(tile.bm);
        let largest = packed.max(depth * cols).max(splits * rows * cols);
        (tile.fits(gpu) && splits <= MAX_SPLITS && largest <= gpu.max_elements).then_some((tile, splits))
    };
    if rows.max(cols).max(depth) + MARGIN > i32::MAX as usize {
        return Ok(None);
    }
    let seconds = |(tile, splits): &(Tile, usize)| {
        let slices = depth.div_ceil(tile.bk);
        let products = TiledProducts {
            count: 1,
            rows,
            cols,
            slices,
            bytes: problem.bytes(),
            gathered: !cols.is_multiple_of(4),
            checked: false,
        };
        tiles::seconds(gpu, tile, &products, *splits)
    };
    let possible = tiles::TILES.iter().filter_map(possible);
    Ok(possible.min_by(|a, b| seconds(a).total_cmp(&seconds(b))))
}

/// Computes the product in tiles, its depth in so many parts; otherwise like [`run`].
///
/// # Errors
/// As [`run`].
pub fn run_tiled(
    programs: &mut Programs,
    (tile, splits): (&Tile, usize),
    problem: &Gemm,
    (a, b, c): (&[f32], &[f32], &[f32]),
    tight: &mut [f32],
) -> Result<(&'static str, Ran)> {
    let passes = Passes::new(programs, &recipe::gemm(problem, tile, splits))?;
    let context = programs.context();
    let [a_len, b_len, _] = problem.lens();
    let upload = |data: &[f32]| Buffer::with_data(context, bytemuck::cast_slice(data));
    let (a, b) = (upload(&a[..a_len])?, upload(&b[..b_len])?);
    let old = if problem.beta() == 0.0 { None } else { Some(upload(&gather(problem, c)?)?) };
    let output = Buffer::new(context, size_of_val(tight))?;
    let ran = passes.run(&Buffers {
        input: &b,
        weights: &a,
        bias: old.as_ref().map(|it| it as _),
        output: &output,
    })?;
    output.read(bytemuck::cast_slice_mut(tight))?;
    Ok((recipe::gemm_name(tile), ran))
}

/// C as a tight matrix, in the order of its memory.
fn gather(problem: &Gemm, c: &[f32]) -> Result<Vec<f32>> {
    let Lines { count, length, distance } = lines(problem);
    let mut tight = allocate::with_capacity(count * length, "C without the gaps between its lines")?;
    (0..count).for_each(|line| tight.extend_from_slice(&c[line * distance..][..length]));
    Ok(tight)
}

/// Refuses matrices that a shader could not see as a whole.
pub fn fits(context: &Context, problem: &Gemm) -> Result<()> {
    let (most, reason) =
        (context.capabilities().max_elements(), context.capabilities().max_elements_reason());
    let [a_len, b_len, c_len] = problem.lens();
    let GemmSizes { m, n, k, .. } = *problem.sizes();
    let largest = a_len.max(b_len).max(c_len);
    if largest > most {
        let what = format!(
            "a matrix of {largest} elements (m = {m}, n = {n}, k = {k}); a buffer holds at most {most} ({reason})"
        );
        return Err(Error::Unsupported { device: context.device().to_owned(), what });
    }
    Ok(())
}
