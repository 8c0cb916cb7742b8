//! Plans for the caller's own loops.

use std::ffi::c_char;

use super::device::{self, sparkle_device};
use super::pointer::{self, Growing};
use super::status::{Outcome, sparkle_status};
use crate::error::Error;
use crate::memory::loops::Bound;
use crate::memory::{LoopPlan, Loops, Stencil, StencilShape, plan};

/// What loops compute.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_loop_kind {
    /// A matrix product.
    SPARKLE_LOOPS_GEMM = 0,
    /// A stencil.
    SPARKLE_LOOPS_STENCIL = 1,
}

/// The neighbours that a stencil reads.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_stencil_shape {
    /// Those along the axes.
    SPARKLE_STENCIL_STAR = 0,
    /// All within the radius.
    SPARKLE_STENCIL_BOX = 1,
}

/// What binds loops: what takes longest.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_bound {
    /// Multiply-adds.
    SPARKLE_BOUND_ARITHMETIC = 0,
    /// Data from the L1 cache.
    SPARKLE_BOUND_L1 = 1,
    /// Data from the L2 cache.
    SPARKLE_BOUND_L2 = 2,
    /// Data from the L3 cache.
    SPARKLE_BOUND_L3 = 3,
    /// Data from main memory.
    SPARKLE_BOUND_MEMORY = 4,
}

/// The caller's own loops: a product C += A B of fp32, or a stencil.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_loops {
    /// sizeof(sparkle_loops), set by the caller. Fields that the caller does not know count as zero.
    pub size: usize,
    /// A sparkle_loop_kind.
    pub kind: i32,
    /// A sparkle_stencil_shape.
    pub shape: i32,
    /// A stencil's points, edges included: planes, rows and columns, which are contiguous; 1 plane for a two-dimensional
    /// grid. A product's rows of A, columns of B, and columns of A.
    pub extents: [i64; 3],
    /// How far a stencil's neighbours are in each of these directions.
    pub radius: [i32; 3],
    /// Further arrays of which a stencil reads only the point itself.
    pub reads: i32,
    /// Arrays that a stencil writes; 0 means 1.
    pub writes: i32,
    /// Bytes of a stencil's elements, 4 or 8; 0 means 4.
    pub element_bytes: i32,
    /// Threads that run the loops; 0 means 1.
    pub threads: i32,
    /// Zero.
    pub reserved: i32,
    /// Operations per point of a stencil; 0 means 2 for each neighbour and the point.
    pub flops: f64,
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_loops {
    const NAME: &'static str = "sparkle_loops";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, flops) + size_of::<f64>();
}

/// How to run loops, and what to expect. Levels are L1, L2, L3 and main memory. The text ends with a NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_loop_plan {
    /// sizeof(sparkle_loop_plan), set by the caller.
    pub size: usize,
    /// Results to keep in registers: rows and columns.
    pub tile: [i64; 2],
    /// A stencil's block: planes, rows and columns; compute plane after plane within it. A product's: rows of A, columns of
    /// a task, and depth.
    pub block: [i64; 3],
    /// Blocks that can be computed at the same time.
    pub tasks: i64,
    /// The predicted time with these blocks.
    pub seconds: f64,
    /// The predicted time without blocks.
    pub naive_seconds: f64,
    /// The time of the arithmetic alone.
    pub arithmetic_seconds: f64,
    /// The time that each level takes for the bytes that it serves, with blocks.
    pub level_seconds: [f64; 4],
    /// The bytes that each level serves, with blocks.
    pub level_bytes: [f64; 4],
    /// The bytes that each level serves without blocks.
    pub naive_bytes: [f64; 4],
    /// What binds the loops with blocks: a sparkle_bound.
    pub binds: i32,
    /// What binds them without blocks: a sparkle_bound.
    pub naive_binds: i32,
    /// Why, in a sentence or two.
    pub why: [c_char; 512],
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_loop_plan {
    const NAME: &'static str = "sparkle_loop_plan";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, why) + size_of::<[c_char; 512]>();
}

impl From<&LoopPlan> for sparkle_loop_plan {
    fn from(plan: &LoopPlan) -> Self {
        let bound = |bound| match bound {
            Bound::Arithmetic => sparkle_bound::SPARKLE_BOUND_ARITHMETIC,
            Bound::L1 => sparkle_bound::SPARKLE_BOUND_L1,
            Bound::L2 => sparkle_bound::SPARKLE_BOUND_L2,
            Bound::L3 => sparkle_bound::SPARKLE_BOUND_L3,
            Bound::Memory => sparkle_bound::SPARKLE_BOUND_MEMORY,
        };
        let mut shown = sparkle_loop_plan {
            size: size_of::<Self>(),
            tile: plan.tile.map(|extent| extent as i64),
            block: plan.block.map(|extent| extent as i64),
            tasks: plan.tasks as i64,
            seconds: plan.cost.seconds,
            naive_seconds: plan.naive.seconds,
            arithmetic_seconds: plan.cost.arithmetic,
            level_seconds: plan.cost.levels,
            level_bytes: plan.cost.bytes,
            naive_bytes: plan.naive.bytes,
            binds: bound(plan.cost.binds) as i32,
            naive_binds: bound(plan.naive.binds) as i32,
            why: [0; 512],
        };
        pointer::copy_text(&plan.why, &mut shown.why);
        shown
    }
}

/// A count that may not be negative; 0 means `default`.
fn count<T: Copy + Into<i64>>(argument: &'static str, value: T, default: usize) -> Outcome<usize> {
    match usize::try_from(value.into()) {
        Ok(0) => Ok(default),
        Ok(value) => Ok(value),
        Err(_) => Err(Error::invalid(argument, value.into(), "0 or more").into()),
    }
}

impl sparkle_loops {
    fn read(&self) -> Outcome<Loops> {
        if self.reserved != 0 {
            return Err(Error::invalid("reserved", self.reserved, "0").into());
        }
        let mut extents = [0; 3];
        for (extent, &given) in extents.iter_mut().zip(&self.extents) {
            *extent = count("extents", given, 0)?;
        }
        let [a, b, c] = extents;
        let loops = match self.kind {
            kind if kind == sparkle_loop_kind::SPARKLE_LOOPS_GEMM as i32 => Loops::gemm(a, b, c)?,
            kind if kind == sparkle_loop_kind::SPARKLE_LOOPS_STENCIL as i32 => {
                let mut radius = [0; 3];
                for (radius, &given) in radius.iter_mut().zip(&self.radius) {
                    *radius = count("radius", given, 0)?;
                }
                let shape = match self.shape {
                    0 => StencilShape::Star,
                    1 => StencilShape::Box,
                    other => return Err(Error::invalid("shape", other, "0 (star) or 1 (box)").into()),
                };
                Loops::stencil(Stencil {
                    extents,
                    radius,
                    shape,
                    reads: count("reads", self.reads, 0)?,
                    writes: count("writes", self.writes, 1)?,
                    element: count("element_bytes", self.element_bytes, 4)?,
                    flops: self.flops,
                })?
            }
            other => return Err(Error::invalid("kind", other, "0 (gemm) or 1 (stencil)").into()),
        };
        Ok(loops.on(count("threads", self.threads, 1)?)?)
    }
}

/// Plans the caller's own loops on a CPU into `*out`, whose `size` the caller has set: blocks, and the times to expect with
/// and without them. `device` NULL means "auto", which plans for the CPU. The first call measures the machine, which takes
/// some tenths of a second; the result is kept.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if a field is wrong, or the device is a GPU; the last error names it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_plan_loops(
    device: *mut sparkle_device,
    loops: *const sparkle_loops,
    out: *mut sparkle_loop_plan,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        // SAFETY: C's promise for `loops`.
        let loops = unsafe { pointer::read_struct(loops)?.read()? };
        let device = device::resolve(call, device)?;
        let shown = sparkle_loop_plan::from(&plan(&device.hierarchy()?, &loops)?);
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &shown) }
    })
}
