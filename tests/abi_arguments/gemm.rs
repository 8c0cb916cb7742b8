//! Matrix products.

use std::ptr::{null, null_mut};

use sparkle::ffi::status::sparkle_status::{self, *};
use sparkle::ffi::{device::*, gemm::*};

use super::cases::{CANARY, Cases, extremes, open_cpu};

/// Calls `sparkle_sgemm` on buffers a, b, c, each a pointer and a length.
pub fn sgemm(
    device: *mut sparkle_device,
    desc: *const sparkle_gemm_desc,
    a: (*const f32, usize),
    b: (*const f32, usize),
    c: (*mut f32, usize),
) -> sparkle_status {
    // SAFETY: the buffers have the stated lengths, or the call must refuse them.
    unsafe { sparkle_sgemm(device, desc, a.0, a.1, b.0, b.1, c.0, c.1) }
}

pub const GEMM: sparkle_gemm_desc = sparkle_gemm_desc {
    size: size_of::<sparkle_gemm_desc>(),
    layout: 101,
    trans_a: 111,
    trans_b: 112,
    m: 3,
    n: 4,
    k: 5,
    lda: 6,
    ldb: 7,
    ldc: 8,
    alpha: 1.0,
    beta: 0.0,
};

#[test]
fn products_with_bad_arguments() {
    let device = open_cpu();
    let (a_memory, b_memory, mut c_memory) = (vec![1.0f32; 17], vec![1.0f32; 26], vec![CANARY; 20]);
    let (a, b) = ((a_memory.as_ptr(), 17), (b_memory.as_ptr(), 26));
    let c = (c_memory.as_mut_ptr(), 20);
    let mut cases = Cases::default();
    let invalid = SPARKLE_ERROR_INVALID_ARGUMENT;
    let null_pointer = SPARKLE_ERROR_NULL_POINTER;
    cases.refused(null_pointer, "sparkle_gemm_desc is NULL", || sgemm(device, null(), a, b, c));
    cases.refused(null_pointer, "a is NULL", || sgemm(device, &GEMM, (null(), 17), b, c));
    cases.refused(null_pointer, "b is NULL", || sgemm(device, &GEMM, a, (null(), 26), c));
    cases.refused(null_pointer, "c is NULL", || sgemm(device, &GEMM, a, b, (null_mut(), 20)));
    let odd = |pointer: *const f32| pointer.wrapping_byte_add(1);
    cases.refused(invalid, "a is at address", || sgemm(device, &GEMM, (odd(a.0), 17), b, c));
    cases.refused(invalid, "b is at address", || sgemm(device, &GEMM, a, (odd(b.0), 26), c));
    cases.refused(invalid, "c is at address", || sgemm(device, &GEMM, a, b, (odd(c.0).cast_mut(), 20)));
    for short in [0, 1, 16] {
        cases.refused(invalid, "a length is", || sgemm(device, &GEMM, (a.0, short), b, c));
        cases.refused(invalid, "b length is", || sgemm(device, &GEMM, a, (b.0, short + 9), c));
        cases.refused(invalid, "c length is", || sgemm(device, &GEMM, a, b, (c.0, short + 3)));
    }
    for size in [0, 79, 4097, usize::MAX] {
        let desc = sparkle_gemm_desc { size, ..GEMM };
        cases.refused(invalid, "expected size = sizeof(sparkle_gemm_desc), 80", || {
            sgemm(device, &desc, a, b, c)
        });
    }
    for value in [i32::MIN, -1, 0, 1, 100, 103, 110, 113, i32::MAX] {
        let desc = sparkle_gemm_desc { layout: value, ..GEMM };
        cases.refused(invalid, "layout is", || sgemm(device, &desc, a, b, c));
        let desc = sparkle_gemm_desc { trans_a: value, ..GEMM };
        cases.refused(invalid, "trans_a is", || sgemm(device, &desc, a, b, c));
        let desc = sparkle_gemm_desc { trans_b: value, ..GEMM };
        cases.refused(invalid, "trans_b is", || sgemm(device, &desc, a, b, c));
    }
    type Field = fn(&mut sparkle_gemm_desc) -> &mut i64;
    let fields: [(Field, &str, i64); 6] = [
        (|it| &mut it.m, "m", 0),
        (|it| &mut it.n, "n", 0),
        (|it| &mut it.k, "k", 0),
        (|it| &mut it.lda, "lda", 5),
        (|it| &mut it.ldb, "ldb", 5),
        (|it| &mut it.ldc, "ldc", 4),
    ];
    for (field, name, least) in fields {
        for value in extremes() {
            let mut desc = GEMM;
            *field(&mut desc) = value;
            if (least..=i64::from(i32::MAX)).contains(&value) {
                // A size of 0 or 1 is a smaller product, valid with these buffers. A large size does not fit them.
                if value > 2 {
                    cases.refused(invalid, "", || sgemm(device, &desc, a, b, c));
                }
                continue;
            }
            let part = format!("{name} is {value}; expected ");
            cases.refused(invalid, &part, || sgemm(device, &desc, a, b, c));
        }
    }
    assert!(c_memory.iter().all(|&value| value == CANARY));
    cases.at_least(120);
}
