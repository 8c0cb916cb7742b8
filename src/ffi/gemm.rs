//! Matrix products.

use std::borrow::Cow;

use super::buffer::{self, sparkle_buffer};
use super::device::{self, sparkle_device};
use super::handle;
use super::pointer::{self, Growing};
use super::status::{Outcome, sparkle_status};
use super::timing;
use crate::device::{Buffer, BufferView};
use crate::error::Error;
use crate::problem::{Gemm, GemmDesc, Layout, Transpose, min_length};

/// The layout of matrices in memory; the values are those of CBLAS.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_layout {
    /// Element (i, j) is at i*ld + j.
    SPARKLE_ROW_MAJOR = 101,
    /// Element (i, j) is at j*ld + i, as in Fortran.
    SPARKLE_COL_MAJOR = 102,
}

/// Whether an operand is transposed; the values are those of CBLAS.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_transpose {
    /// Not transposed.
    SPARKLE_NO_TRANS = 111,
    /// Transposed.
    SPARKLE_TRANS = 112,
}

/// A matrix product C = alpha op(A) op(B) + beta C, where op(A) is m x k, op(B) is k x n, and C is m x n. As in BLAS,
/// m, n or k may be 0, C is not read if beta is 0, and A and B are not read if alpha or k is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_gemm_desc {
    /// sizeof(sparkle_gemm_desc), set by the caller. Fields that the caller does not know count as zero.
    pub size: usize,
    /// SPARKLE_ROW_MAJOR or SPARKLE_COL_MAJOR.
    pub layout: i32,
    /// SPARKLE_NO_TRANS or SPARKLE_TRANS.
    pub trans_a: i32,
    /// SPARKLE_NO_TRANS or SPARKLE_TRANS.
    pub trans_b: i32,
    /// Rows of op(A) and C.
    pub m: i64,
    /// Columns of op(B) and C.
    pub n: i64,
    /// Columns of op(A), rows of op(B).
    pub k: i64,
    /// Distance in floats between the stored rows (row-major) or columns (column-major) of A.
    pub lda: i64,
    /// The same for B.
    pub ldb: i64,
    /// The same for C.
    pub ldc: i64,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of the old C.
    pub beta: f32,
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_gemm_desc {
    const NAME: &'static str = "sparkle_gemm_desc";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, beta) + size_of::<f32>();
}

fn layout(value: i32) -> Outcome<Layout> {
    match value {
        _ if value == sparkle_layout::SPARKLE_ROW_MAJOR as i32 => Ok(Layout::RowMajor),
        _ if value == sparkle_layout::SPARKLE_COL_MAJOR as i32 => Ok(Layout::ColMajor),
        _ => Err(Error::invalid("layout", value, "101 (row-major) or 102 (column-major)").into()),
    }
}

fn transpose(argument: &'static str, value: i32) -> Outcome<Transpose> {
    match value {
        _ if value == sparkle_transpose::SPARKLE_NO_TRANS as i32 => Ok(Transpose::No),
        _ if value == sparkle_transpose::SPARKLE_TRANS as i32 => Ok(Transpose::Yes),
        _ => Err(Error::invalid(argument, value, "111 (no) or 112 (yes)").into()),
    }
}

/// The validated product that `desc` describes.
///
/// # Safety
/// C's promise for `desc`.
pub(super) unsafe fn problem(desc: *const sparkle_gemm_desc) -> Outcome<Gemm> {
    // SAFETY: as promised.
    Ok(Gemm::new(unsafe { description(desc)? })?)
}

/// What `desc` describes.
///
/// # Safety
/// C's promise for `desc`.
pub(super) unsafe fn description(desc: *const sparkle_gemm_desc) -> Outcome<GemmDesc> {
    // SAFETY: as promised.
    let desc = unsafe { pointer::read_struct(desc)? };
    Ok(GemmDesc {
        layout: layout(desc.layout)?,
        trans_a: transpose("trans_a", desc.trans_a)?,
        trans_b: transpose("trans_b", desc.trans_b)?,
        m: desc.m,
        n: desc.n,
        k: desc.k,
        alpha: desc.alpha,
        lda: desc.lda,
        ldb: desc.ldb,
        beta: desc.beta,
        ldc: desc.ldc,
    })
}

/// Computes C = alpha op(A) op(B) + beta C. `device` NULL means "auto". Lengths are in floats and include at least the
/// last element that the product accesses. A and B may be NULL if they are not read, and C if m or n is 0. A and B may
/// overlap C, like parts of one matrix in a blocked algorithm: their values before the call are used. Gaps between the
/// rows or columns of C are not changed.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if a size, length or buffer is wrong; the last error names it. Other errors come from
/// the device. On an error C is untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_sgemm(
    device: *mut sparkle_device,
    desc: *const sparkle_gemm_desc,
    a: *const f32,
    a_len: usize,
    b: *const f32,
    b_len: usize,
    c: *mut f32,
    c_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        // SAFETY: C's promise for `desc`.
        let problem = unsafe { problem(desc)? };
        // SAFETY: C's promises for the matrices.
        let (problem, a, b, c) = unsafe { matrices(problem, (a, a_len), (b, b_len), (c, c_len))? };
        let device = device::resolve(call, device)?;
        timing::keep(device.sgemm_inside(&problem, &a, &b, c)?);
        Ok(())
    })
}

/// Checks the matrices of a call, and copies what overlaps C. The problem is that of the copies.
///
/// # Safety
/// C's promises for the matrices, during `'a`.
#[allow(clippy::type_complexity)]
pub(super) unsafe fn matrices<'a>(
    problem: Gemm,
    (a, a_len): (*const f32, usize),
    (b, b_len): (*const f32, usize),
    (c, c_len): (*mut f32, usize),
) -> Outcome<(Gemm, Cow<'a, [f32]>, Cow<'a, [f32]>, &'a mut [f32])> {
    let [mut a_need, mut b_need, c_need] = problem.lens();
    if !problem.reads_operands() {
        (a_need, b_need) = (0, 0);
    }
    min_length("a length", a_len, a_need)?;
    min_length("b length", b_len, b_need)?;
    min_length("c length", c_len, c_need)?;
    // Only what the product accesses: the rest need not be readable.
    // SAFETY: C's promises for the two buffers.
    let (mut a, mut b) = unsafe {
        (Cow::Borrowed(pointer::input("a", a, a_need)?), Cow::Borrowed(pointer::input("b", b, b_need)?))
    };
    let mut problem = problem;
    if pointer::overlap(&a, c, c_need) {
        let (reads_copy, copy) = problem.with_copied_a(&a)?;
        (problem, a) = (reads_copy, Cow::Owned(copy));
    }
    if pointer::overlap(&b, c, c_need) {
        let (reads_copy, copy) = problem.with_copied_b(&b)?;
        (problem, b) = (reads_copy, Cow::Owned(copy));
    }
    // SAFETY: C's promise for the buffer.
    let c = unsafe { pointer::output("c", c, c_need, &[("a", &a), ("b", &b)])? };
    Ok((problem, a, b, c))
}

/// As sparkle_sgemm, on buffers of one device, in place: A from element `a_offset` of `a` on, and so on, all
/// SPARKLE_TYPE_REAL32. They may be parts of one buffer, but C overlaps neither A nor B. `device` is theirs, or NULL or
/// "auto".
///
/// SPARKLE_ERROR_INVALID_ARGUMENT names the buffer that is too short, of another type, or of another device;
/// SPARKLE_ERROR_INVALID_HANDLE the one that was destroyed; also the errors of sparkle_buffer_create. If the device failed, C
/// may have lost its contents; otherwise it is untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_sgemm_buffers(
    device: *mut sparkle_device,
    desc: *const sparkle_gemm_desc,
    a: *mut sparkle_buffer,
    a_offset: usize,
    b: *mut sparkle_buffer,
    b_offset: usize,
    c: *mut sparkle_buffer,
    c_offset: usize,
) -> sparkle_status {
    boundary!(|call| {
        // SAFETY: C's promise for `desc`.
        let problem = unsafe { problem(desc)? };
        let (a, b, c) = (handle::get(call, "a", a)?, handle::get(call, "b", b)?, handle::get(call, "c", c)?);
        let matrices = parts(&problem, (&a, a_offset), (&b, b_offset), (&c, c_offset))?;
        let device = device::resolve(call, device)?;
        timing::keep(device.sgemm_on_inside(&problem, matrices)?);
        Ok(())
    })
}

/// The matrices of a product in buffers, each from an offset on.
pub(super) fn parts<'a>(
    problem: &Gemm,
    (a, a_offset): (&'a Buffer, usize),
    (b, b_offset): (&'a Buffer, usize),
    (c, c_offset): (&'a Buffer, usize),
) -> Outcome<[BufferView<'a>; 3]> {
    let [mut a_need, mut b_need, c_need] = problem.lens();
    if !problem.reads_operands() {
        (a_need, b_need) = (0, 0);
    }
    Ok([
        buffer::part("a", a, (a_offset, a_need))?,
        buffer::part("b", b, (b_offset, b_need))?,
        buffer::part("c", c, (c_offset, c_need))?,
    ])
}
