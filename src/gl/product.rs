//! Matrix products on a context: `sgemm` by the fallback kernel, or by tiles.
//!
//! `device` calls it. It builds programs and submits work through `execution`, and touches neither the store nor
//! threads.
//!
//! Kernels write a tight matrix (without gaps) in the order of C's memory. [`run`] and [`run_tiled`] return it, and
//! [`store`] copies it into the caller's C line by line. So the gaps of a leading dimension are never touched.
//! [`resident`] does the same on the device, for programs' buffers.

mod resident;

pub use resident::run_resident;

use std::rc::Rc;

use crate::allocate;
use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Bind, Buffer};
use crate::gl::execution::dispatch::{self, DispatchBudget, KernelWork, PassStep, Ran, STEPS};
use crate::gl::execution::epilogue::{Arguments, Slots, check_bindings};
use crate::gl::execution::passes::{Buffers, Passes};
use crate::gl::execution::programs::Programs;
use crate::gl::execution::steps;
use crate::gl::tunables::{MAX_DEPTH_SPLITS, MIN_TILED_FLOPS, OPERATIONS_PER_OUTPUT};
use crate::kernel::fused::Fused;
use crate::memory::tiles::{self, Gpu, Tile, TiledProducts};
use crate::problem::{Gemm, GemmSizes};
use crate::shader::epilogue::{self, Outputs};
use crate::shader::iterations::{self, Part};
use crate::shader::pass_plan::{self, Product, ShaderSource};
use crate::shader::source::{SGEMM_DIRECT, SGEMM_PART};

/// Uniform locations of the bounds of a part of the depth.
const DEPTH: [u32; 2] = [2, 3];
/// Rows and columns of the tile that a workgroup computes.
const TILE: usize = 16;

/// The parameter block of `sgemm_direct_16x16`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    sizes: [u32; 11],
    alpha: f32,
    beta: f32,
}

/// The contiguous lines of C: their number, their length, and the distance between their beginnings, in elements.
pub struct Lines {
    pub count: usize,
    pub length: usize,
    pub distance: usize,
}

/// Those of a problem's C.
pub fn lines(problem: &Gemm) -> Lines {
    let GemmSizes { m, n, c_row, c_col, .. } = *problem.sizes();
    if c_col == 1 {
        Lines { count: m, length: n, distance: c_row }
    } else {
        Lines { count: n, length: m, distance: c_col }
    }
}

/// Calls `set` with each line of C and the index of its first element in the tight matrix.
fn each_line(problem: &Gemm, c: &mut [f32], mut set: impl FnMut(usize, &mut [f32])) {
    let Lines { count, length, distance } = lines(problem);
    // Empty lines have no memory: even their beginnings may lie outside C.
    let count = if length == 0 { 0 } else { count };
    for line in 0..count {
        set(line * length, &mut c[line * distance..][..length]);
    }
}

/// Copies a finished tight matrix into C.
pub fn store(problem: &Gemm, tight: &[f32], c: &mut [f32]) {
    each_line(problem, c, |first, line| line.copy_from_slice(&tight[first..][..line.len()]));
}

/// C = beta C, for products without terms. The old C is not read if beta is zero.
pub fn scale(problem: &Gemm, c: &mut [f32]) {
    match problem.beta() {
        0.0 => each_line(problem, c, |_, line| line.fill(0.0)),
        1.0 => {}
        beta => each_line(problem, c, |_, line| line.iter_mut().for_each(|value| *value *= beta)),
    }
}

/// Computes the product into `tight`, a matrix of m*n elements in the order of C's memory. If one pass would make too
/// many iterations, it splits the depth into several passes. Returns the kernel's name, too. On failure `tight` is
/// undefined. `c` is read only if beta is not zero.
///
/// # Errors
/// [`Error::Unsupported`] for matrices beyond the device's limits; else the device's failure.
pub fn run(
    programs: &mut Programs,
    problem: &Gemm,
    (a, b, c): (&[f32], &[f32], &[f32]),
    tight: &mut [f32],
    epilogue: Option<&FusedArguments<'_>>,
) -> Result<(&'static str, Ran)> {
    let context = programs.context().clone();
    fits(&context, problem)?;
    let [a_len, b_len, c_len] = problem.lens();
    let upload = |data: &[f32]| {
        steps::traced(&context, true, "upload", || Buffer::with_data(&context, bytemuck::cast_slice(data)))
    };
    let (a, b) = (upload(&a[..a_len])?, upload(&b[..b_len])?);
    let output = Buffer::new(&context, size_of_val(tight))?;
    let old = if problem.beta() == 0.0 { None } else { Some(upload(&c[..c_len])?) };
    let matrices = Matrices { a: &a, b: &b, old: old.as_ref().map(|it| it as _), output: &output };
    let ran = steps::traced(&context, true, "compute", || direct(programs, problem, &matrices, epilogue))?;
    steps::traced(&context, true, "download", || output.read(bytemuck::cast_slice_mut(tight)))?;
    Ok(ran)
}

/// An epilogue with its arguments on the device.
pub type FusedArguments<'a> = (&'a Fused, &'a Arguments<'a>);

/// Matrices on the device.
pub struct Matrices<'a> {
    pub a: &'a dyn Bind,
    pub b: &'a dyn Bind,
    /// C before the product, if beta is not zero: as it lies in memory for [`direct`], without gaps for [`in_tiles`].
    pub old: Option<&'a dyn Bind>,
    /// The product, without gaps.
    pub output: &'a dyn Bind,
}

/// Computes the product of matrices on the device by the fallback kernel.
///
/// # Errors
/// As [`run`].
pub fn direct(
    programs: &mut Programs,
    problem: &Gemm,
    matrices: &Matrices<'_>,
    epilogue: Option<&FusedArguments<'_>>,
) -> Result<(&'static str, Ran)> {
    let parts = iterations::depth_parts(problem, programs.context().group().max_iterations())?;
    let kernel = if parts.len() == 1 { SGEMM_DIRECT } else { SGEMM_PART };
    let (program, slots) = match epilogue {
        None => (programs.kernel(kernel)?, None),
        Some((fused, arguments)) => {
            let mut source = ShaderSource { name: kernel.name.to_owned(), text: kernel.source.to_owned() };
            // A, B, the result, parameters and the old C come first.
            let places = epilogue::fuse(&mut source, fused, 5, Outputs::InPlace)?;
            check_bindings(programs.context(), fused, places.first_binding)?;
            let program = programs.generated(&source)?;
            let slots = Slots::new(&program, fused, &places)?;
            (program, Some((slots, *arguments)))
        }
    };
    let context = programs.context();
    let GemmSizes { m, n, k, a_row, a_col, b_row, b_col, c_row, c_col } = *problem.sizes();
    let (out_row, out_col) = if c_col == 1 { (n, 1) } else { (1, m) };
    let sizes = [m, n, k, a_row, a_col, b_row, b_col, c_row, c_col, out_row, out_col].map(|it| it as u32);
    let params = Params { sizes, alpha: problem.alpha(), beta: problem.beta() };
    let params = Buffer::with_data(context, bytemuck::bytes_of(&params))?;
    let Matrices { a, b, old, output } = *matrices;
    let bind = || {
        let buffers: [Option<&dyn Bind>; 5] = [Some(a), Some(b), Some(output), Some(&params), old];
        let bound = (0..).zip(buffers).filter_map(|(index, buffer)| Some((index, buffer?)));
        bound.for_each(|(index, buffer)| buffer.bind_on(context, index));
        if let Some((slots, arguments)) = &slots {
            context.api().use_program(program.name());
            arguments.bind(context, slots);
        }
    };
    let work = |part: &Part| KernelWork {
        units: (m.div_ceil(TILE) * n.div_ceil(TILE)) as u32,
        per_group: 1,
        operations: (TILE * TILE) as f64 * (2.0 * part.products() as f64 + OPERATIONS_PER_OUTPUT),
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
        let step = |(part, bind)| Ok(PassStep { program: &program, work: work(part), budget: &budget, bind });
        let binds = binds.iter().map(|bind| bind as &dyn Fn());
        let steps = allocate::collected(parts.iter().zip(binds).map(step), STEPS)?;
        dispatch::run_steps(context, &steps, &DispatchBudget::new())
    }?;
    Ok((kernel.name, ran))
}

/// How far beyond the end of a matrix a tile may begin.
const MARGIN: usize = 4096;

/// Whether `problem` is large enough for tiles, whose shaders must be compiled.
pub fn is_large(problem: &Gemm) -> bool {
    problem.flops() >= MIN_TILED_FLOPS
}

/// The best tile for `problem` on `gpu`, and the number of parts of its depth; none if tiles do not pay or do not fit.
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
        let splits = iterations::min_splits(&tile, slices, 0, false, gpu.max_iterations)?;
        let packed = depth.next_multiple_of(tile.bk) * rows.next_multiple_of(tile.bm);
        let largest = packed.max(depth * cols).max(splits * rows * cols);
        (tile.fits(gpu) && splits <= MAX_DEPTH_SPLITS && largest <= gpu.max_elements)
            .then_some((tile, splits))
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

/// Computes the product in tiles, with its depth in `splits` parts; otherwise like [`run`].
///
/// # Errors
/// As [`run`].
pub fn run_tiled(
    programs: &mut Programs,
    (tile, splits): (&Tile, usize),
    problem: &Gemm,
    (a, b, c): (&[f32], &[f32], &[f32]),
    tight: &mut [f32],
    epilogue: Option<&FusedArguments<'_>>,
) -> Result<(&'static str, Ran)> {
    let passes = passes(programs, (tile, splits), problem, epilogue.map(|it| it.0))?;
    let context = programs.context();
    let [a_len, b_len, _] = problem.lens();
    let upload = |data: &[f32]| {
        steps::traced(context, true, "upload", || Buffer::with_data(context, bytemuck::cast_slice(data)))
    };
    let (a, b) = (upload(&a[..a_len])?, upload(&b[..b_len])?);
    let old = if problem.beta() == 0.0 { None } else { Some(upload(&gather(problem, c)?)?) };
    let output = Buffer::new(context, size_of_val(tight))?;
    let matrices = Matrices { a: &a, b: &b, old: old.as_ref().map(|it| it as _), output: &output };
    let ran =
        steps::traced(context, true, "compute", || in_tiles(&passes, &matrices, epilogue.map(|it| it.1)))?;
    steps::traced(context, true, "download", || output.read(bytemuck::cast_slice_mut(tight)))?;
    Ok((pass_plan::gemm_name(tile), ran))
}

/// The passes that compute a product in tiles, with an epilogue if one is given.
///
/// # Errors
/// As [`run`].
pub fn passes(
    programs: &mut Programs,
    (tile, splits): (&Tile, usize),
    problem: &Gemm,
    fused: Option<&Fused>,
) -> Result<Passes> {
    let mut plan = pass_plan::gemm(problem, tile, splits);
    let Some(fused) = fused else { return Passes::new(programs, &plan) };
    let Lines { length, distance, .. } = lines(problem);
    let outputs = Outputs::Lines { length, distance, swapped: Product::new(problem).swapped };
    let places = epilogue::fuse_plan(&mut plan, fused, outputs)?;
    let bytes = plan.packed * size_of::<f32>();
    let packed = (bytes > 0).then(|| Buffer::new(programs.context(), bytes).map(Rc::new)).transpose()?;
    Passes::fused(programs, &plan, packed, DispatchBudget::new(), (fused, &places))
}

/// Computes the product of matrices on the device in tiles.
///
/// # Errors
/// As [`run`].
pub fn in_tiles(passes: &Passes, matrices: &Matrices<'_>, epilogue: Option<&Arguments<'_>>) -> Result<Ran> {
    let Matrices { a, b, old, output } = *matrices;
    passes.run(&Buffers { input: b, weights: a, bias: old, output, epilogue })
}

/// A tight copy of C, in the order of its memory.
fn gather(problem: &Gemm, c: &[f32]) -> Result<Vec<f32>> {
    let Lines { count, length, distance } = lines(problem);
    let mut tight = allocate::with_capacity(count * length, "C without the gaps between its lines")?;
    (0..count).for_each(|line| tight.extend_from_slice(&c[line * distance..][..length]));
    Ok(tight)
}

/// Refuses matrices larger than a buffer that a shader may see.
pub fn fits(context: &Context, problem: &Gemm) -> Result<()> {
    let (limit, reason) =
        (context.capabilities().max_elements(), context.capabilities().max_elements_reason());
    let [a_len, b_len, c_len] = problem.lens();
    let GemmSizes { m, n, k, .. } = *problem.sizes();
    let largest = a_len.max(b_len).max(c_len);
    if largest > limit {
        let what = format!(
            "a matrix of {largest} elements (m = {m}, n = {n}, k = {k}); a buffer holds at most {limit} ({reason})"
        );
        return Err(Error::Unsupported { device: context.device().to_owned(), what });
    }
    Ok(())
}
