//! Products of matrices in programs' buffers.

use std::rc::Rc;

use super::{FusedArguments, Lines, Matrices, direct, fits, in_tiles, lines, passes, scale};
use crate::allocate;
use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Bind, Buffer, Region};
use crate::gl::execution::dispatch::Ran;
use crate::gl::execution::programs::Programs;
use crate::gl::execution::residents::{self, ResidentRange, Residents, lost};
use crate::memory::tiles::Tile;
use crate::problem::Gemm;
use crate::shader::pass_plan;
use crate::shader::source::SGEMM_DIRECT;

/// The bytes of `count` elements.
fn bytes(count: usize) -> usize {
    count * size_of::<f32>()
}

/// Whether C has no gaps between its lines.
fn is_tight(problem: &Gemm) -> bool {
    let Lines { count, length, distance } = lines(problem);
    count <= 1 || distance == length
}

/// Copies each line of C between its place and a matrix without gaps, on the device.
fn copy_lines(
    context: &Context,
    problem: &Gemm,
    (c, tight): (Region, Region),
    copy: fn(&Region, &Context, &Region) -> Result<()>,
) -> Result<()> {
    let Lines { count, length, distance } = lines(problem);
    let (count, length) = if is_tight(problem) { (1, count * length) } else { (count, length) };
    for line in 0..count {
        let of =
            |it: &Region, offset| Region { offset: it.offset + bytes(offset), bytes: bytes(length), ..*it };
        copy(&of(&c, line * distance), context, &of(&tight, line * length))?;
    }
    Ok(())
}

/// Computes C = alpha op(A) op(B) + beta C on buffers `[a, b, c]`, in tiles or by the fallback kernel. A and B are read in place
/// where the device can bind their places; C is written in place if it has no gaps and beta is zero. Returns the kernel's
/// name, too.
///
/// # Errors
/// [`Error::Unsupported`](crate::Error::Unsupported) for matrices beyond the device's limits;
/// [`Error::ContentsLost`](crate::Error::ContentsLost); else the device's failure, after which C has lost its contents.
pub fn run_resident(
    programs: &mut Programs,
    residents: &mut Residents,
    problem: &Gemm,
    tile: Option<(Tile, usize)>,
    [a, b, c]: &[ResidentRange<'_>; 3],
    epilogue: Option<&FusedArguments<'_>>,
) -> Result<(&'static str, Ran)> {
    let context = programs.context().clone();
    let [a_len, b_len, c_len] = problem.lens();
    let (m, n) = (problem.sizes().m, problem.sizes().n);
    if m * n == 0 {
        return Ok((SGEMM_DIRECT.name, Ran::default()));
    }
    let c = c.part(0, bytes(c_len));
    let overwrites = problem.beta() == 0.0 && is_tight(problem);
    if problem.is_scaling() {
        let ready = residents.ensure(&context, &c, overwrites);
        residents.keep_if(ready)?;
        let scaled = scale_resident(&context, residents, problem, &c);
        return residents.end(scaled, &[c.key]).map(|()| (SGEMM_DIRECT.name, Ran::default()));
    }
    fits(&context, problem)?;
    let passes = match &tile {
        Some((tile, splits)) => {
            let passes = passes(programs, (tile, *splits), problem, epilogue.map(|it| it.0))?;
            Some((passes, pass_plan::gemm_name(tile)))
        }
        None => None,
    };
    let (a, b) = (a.part(0, bytes(a_len)), b.part(0, bytes(b_len)));
    let ready = residents.ensure(&context, &a, false);
    let ready = ready.and_then(|()| residents.ensure(&context, &b, false));
    let ready = ready.and_then(|()| residents.ensure(&context, &c, overwrites));
    residents.keep_if(ready)?;
    let mut compute = || {
        residents::see_writes(&context);
        let (a, b) = (residents.operand(&context, &a, false)?, residents.operand(&context, &b, false)?);
        let place = residents.region(&c).ok_or_else(|| lost(&context, c.name))?;
        let in_place = residents.operand(&context, &c, overwrites)?;
        let own = if overwrites { None } else { Some(Buffer::new(&context, bytes(m * n))?) };
        let gathered = match (&passes, problem.beta() == 0.0) {
            (Some(_), false) => Some(gather(&context, problem, place)?),
            _ => None,
        };
        let old: Option<&dyn Bind> = match (&gathered, problem.beta() == 0.0) {
            (_, true) => None,
            (Some(gathered), false) => Some(gathered),
            (None, false) => Some(&in_place),
        };
        let output: &dyn Bind = own.as_ref().map_or(&in_place, |own| own);
        let matrices = Matrices { a: &a, b: &b, old, output };
        let ran = match &passes {
            Some((passes, name)) => (*name, in_tiles(passes, &matrices, epilogue.map(|it| it.1))?),
            None => direct(programs, problem, &matrices, epilogue)?,
        };
        match &own {
            None => in_place.store(&context)?,
            Some(own) => {
                copy_lines(&context, problem, (place, own.first(bytes(m * n))), |c, context, tight| {
                    tight.copy_to(context, c)
                })?;
            }
        }
        // Nothing that was read has told.
        context.check_reset("glDispatchCompute")?;
        Ok(ran)
    };
    let ran = compute();
    residents.end(ran, &[c.key])
}

/// A copy of C without gaps.
fn gather(context: &Rc<Context>, problem: &Gemm, c: Region) -> Result<Buffer> {
    let elements = problem.sizes().m * problem.sizes().n;
    let tight = Buffer::new(context, bytes(elements))?;
    copy_lines(context, problem, (c, tight.first(bytes(elements))), |c, context, tight| {
        c.copy_to(context, tight)
    })?;
    Ok(tight)
}

/// C = beta C, for products without terms. These are too rare for a kernel: the host computes them.
fn scale_resident(
    context: &Rc<Context>,
    residents: &Residents,
    problem: &Gemm,
    c: &ResidentRange<'_>,
) -> Result<()> {
    let buffer = residents.get(c.key).ok_or_else(|| lost(context, c.name))?;
    residents::see_writes(context);
    let mut matrix = allocate::zeroed(c.bytes / size_of::<f32>(), "a matrix to be scaled")?;
    buffer.read_at(c.offset, bytemuck::cast_slice_mut(&mut matrix))?;
    scale(problem, &mut matrix);
    buffer.upload_at(c.offset, bytemuck::cast_slice(&matrix))?;
    context.check_reset("glBufferSubData")
}
