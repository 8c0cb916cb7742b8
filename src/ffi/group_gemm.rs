//! Matrix products over ranks.

use super::gemm::{self, sparkle_gemm_desc};
use super::group::{rank_of, sparkle_group};
use super::handle;
use super::pointer::{self, Growing};
use super::status::{Outcome, sparkle_status};
use super::timing;
use crate::problem::min_length;
use crate::ranks::{GroupGemm, Span};

/// The blocks of A, B and C that a rank holds: their first row and column in the whole matrices, from 0, their rows and
/// columns, of which there may be none, and the least lengths of the memory that holds them, in floats.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_group_gemm_part {
    /// sizeof(sparkle_group_gemm_part), set by the caller.
    pub size: usize,
    /// The first row of the block of A.
    pub a_row: i64,
    /// Its first column.
    pub a_col: i64,
    /// Its rows.
    pub a_rows: i64,
    /// Its columns.
    pub a_cols: i64,
    /// The first row of the block of B.
    pub b_row: i64,
    /// Its first column.
    pub b_col: i64,
    /// Its rows.
    pub b_rows: i64,
    /// Its columns.
    pub b_cols: i64,
    /// The first row of the block of C.
    pub c_row: i64,
    /// Its first column.
    pub c_col: i64,
    /// Its rows.
    pub c_rows: i64,
    /// Its columns.
    pub c_cols: i64,
    /// Length of A's block on this rank, with its leading dimension; 0 for another rank.
    pub a_len: usize,
    /// The same for B.
    pub b_len: usize,
    /// The same for C.
    pub c_len: usize,
}

// SAFETY: repr(C), integers only, size first.
unsafe impl Growing for sparkle_group_gemm_part {
    const NAME: &'static str = "sparkle_group_gemm_part";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, c_len) + size_of::<usize>();
}

/// Writes which blocks a rank holds to `*out`, whose `size` the caller has set. `desc` is that of sparkle_group_sgemm; `rank` -1
/// means this rank. Not collective.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT for a wrong description or rank.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_group_sgemm_part(
    group: *mut sparkle_group,
    desc: *const sparkle_gemm_desc,
    rank: i32,
    out: *mut sparkle_group_gemm_part,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let group = handle::get(call, "group", group)?;
        let rank = rank_of(rank, group.rank(), group.ranks())?;
        // SAFETY: C's promise for `desc`.
        let gemm = GroupGemm::new(&group, unsafe { gemm::description(desc)? })?;
        let part = gemm.part_of(rank);
        let own = if rank == group.rank() { gemm.lens() } else { [0; 3] };
        let number = |[rows, cols]: [Span; 2]| {
            [rows.first, cols.first, rows.count, cols.count].map(|number| number as i64)
        };
        let [a_row, a_col, a_rows, a_cols] = number(part.a);
        let [b_row, b_col, b_rows, b_cols] = number(part.b);
        let [c_row, c_col, c_rows, c_cols] = number(part.c);
        let shown = sparkle_group_gemm_part {
            size: size_of::<sparkle_group_gemm_part>(),
            a_row,
            a_col,
            a_rows,
            a_cols,
            b_row,
            b_col,
            b_rows,
            b_cols,
            c_row,
            c_col,
            c_rows,
            c_cols,
            a_len: own[0],
            b_len: own[1],
            c_len: own[2],
        };
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &shown) }
    })
}

/// Computes C = alpha A B + beta C over the ranks of a group by SUMMA; this rank passes its blocks, which
/// sparkle_group_sgemm_part describes. Collective. `desc` gives m, n and k of the whole product, and is the same on all
/// ranks but for lda, ldb and ldc: those are the leading dimensions of this rank's blocks, and 0 means a block without
/// gaps. Operands are not transposed. Lengths are in floats and at least those of the part. A and B do not overlap C.
///
/// On CPUs of one kind the bits of C do not depend on the number of ranks.
///
/// The errors are those of sparkle_sgemm and sparkle_group_create. If the device fails, this rank gets its error, and its
/// block of C is undefined; the other ranks have theirs. On any other error C is untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_group_sgemm(
    group: *mut sparkle_group,
    desc: *const sparkle_gemm_desc,
    a: *const f32,
    a_len: usize,
    b: *const f32,
    b_len: usize,
    c: *mut f32,
    c_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let group = handle::get(call, "group", group)?;
        // SAFETY: C's promise for `desc`.
        let gemm = group.gemm_settled(unsafe { gemm::description(desc) })?;
        let blocks = || -> Outcome<_> {
            let [a_need, b_need, c_need] = gemm.lens();
            min_length("a length", a_len, a_need)?;
            min_length("b length", b_len, b_need)?;
            min_length("c length", c_len, c_need)?;
            // SAFETY: C's promises for the three buffers.
            unsafe {
                let (a, b) = (pointer::input("a", a, a_need)?, pointer::input("b", b, b_need)?);
                Ok((a, b, pointer::output("c", c, c_need, &[("a", a), ("b", b)])?))
            }
        };
        timing::keep(gemm.run_settled(blocks())?);
        Ok(())
    })
}
