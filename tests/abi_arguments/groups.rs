//! Groups of ranks with invalid arguments.

use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};

use sparkle::ffi::status::sparkle_status::*;
use sparkle::ffi::{group::*, group_gemm::*, transport::*};

use super::cases::{CANARY, Cases, open_cpu};
use super::conv2d::Memory;
use super::gemm::GEMM;

// The transport of one rank, which has nothing to send.
unsafe extern "C" fn start(
    _: *mut c_void,
    _: *const sparkle_message,
    _: usize,
    _: *const sparkle_message,
    _: usize,
    _: *mut *mut c_void,
) -> i32 {
    0
}

unsafe extern "C" fn finish(_: *mut c_void, _: *mut c_void) -> i32 {
    0
}

unsafe extern "C" fn progress(_: *mut c_void) -> i32 {
    7
}

unsafe extern "C" fn broadcast(_: *mut c_void, _: i32, _: *mut f32, _: usize) -> i32 {
    0
}

unsafe extern "C" fn agree(_: *mut c_void, _: *mut i64, _: usize) -> i32 {
    0
}

unsafe extern "C" fn describe(_: *mut c_void, code: i32, text: *mut c_char, capacity: usize) {
    assert!(code == 7 && capacity > 8);
    // SAFETY: there is room for the text.
    unsafe { text.copy_from_nonoverlapping(c"no luck".as_ptr(), 8) };
}

const ONE: sparkle_transport = sparkle_transport {
    size: size_of::<sparkle_transport>(),
    user: null_mut(),
    rank: 0,
    ranks: 1,
    start: Some(start),
    finish: Some(finish),
    progress: Some(progress),
    broadcast: Some(broadcast),
    agree: Some(agree),
    describe: Some(describe),
    release: None,
};

#[test]
fn groups_with_bad_arguments() {
    let mut memory = Memory::new();
    let good = memory.conv(open_cpu());
    let mut cases = Cases::default();
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    let no_handle = SPARKLE_ERROR_INVALID_HANDLE;
    let mut group = null_mut();
    // SAFETY: every pointer is valid and every length correct, or the call refuses them.
    unsafe {
        let mut create =
            |transport: &sparkle_transport| sparkle_group_create(good.device, transport, &mut group);
        for (bad, part) in [
            (sparkle_transport { start: None, ..ONE }, "transport.start is NULL"),
            (sparkle_transport { finish: None, ..ONE }, "transport.finish is NULL"),
            (sparkle_transport { broadcast: None, ..ONE }, "transport.broadcast is NULL"),
            (sparkle_transport { agree: None, ..ONE }, "transport.agree is NULL"),
        ] {
            cases.refused(null_pointer, part, || create(&bad));
        }
        for (bad, part) in [
            (sparkle_transport { size: 79, ..ONE }, "sparkle_transport"),
            (sparkle_transport { ranks: 0, ..ONE }, "transport.ranks is 0"),
            (sparkle_transport { rank: 1, ..ONE }, "transport.rank is 1"),
            (sparkle_transport { rank: -1, ..ONE }, "transport.rank is -1"),
        ] {
            cases.refused(invalid, part, || create(&bad));
        }
        cases.refused(null_pointer, "sparkle_transport is NULL", || {
            sparkle_group_create(good.device, null(), &mut group)
        });
        cases.refused(null_pointer, "out is NULL", || sparkle_group_create(good.device, &ONE, null_mut()));
        let odd = std::ptr::without_provenance_mut(1);
        cases.refused(no_handle, "device is 0x1", || sparkle_group_create(odd, &ONE, &mut group));
        assert!(group.is_null());
        assert_eq!(sparkle_group_create(good.device, &ONE, &mut group), SPARKLE_OK);

        let (mut rank, mut ranks) = (7, 7);
        cases.refused(no_handle, "group is NULL", || sparkle_group_rank(null_mut(), &mut rank, &mut ranks));
        cases.refused(null_pointer, "out_rank is", || sparkle_group_rank(group, null_mut(), &mut ranks));
        cases.refused(null_pointer, "out_ranks is", || sparkle_group_rank(group, &mut rank, null_mut()));
        assert_eq!((sparkle_group_rank(group, &mut rank, &mut ranks), rank, ranks), (SPARKLE_OK, 0, 1));
        let failed = "the transport's progress failed: no luck (code 7)";
        cases.refused(SPARKLE_ERROR_TRANSPORT, failed, || sparkle_group_progress(group));
        cases.refused(no_handle, "group is NULL", || sparkle_group_progress(null_mut()));
        cases.refused(no_handle, "group is 0x1", || {
            sparkle_group_destroy(std::ptr::without_provenance_mut(1))
        });

        let (weights, bias) = (good.weights, good.bias);
        let mut plan = null_mut();
        let mut make = |distribution, weight, weights_len, out: bool| {
            let out = if out { &raw mut plan } else { null_mut() };
            let (weights, bias) = (weights.0, bias);
            sparkle_group_plan_create(
                group,
                &good.desc,
                distribution,
                weight,
                weights,
                weights_len,
                bias.0,
                bias.1,
                out,
            )
        };
        for distribution in [-1, 3, i32::MIN] {
            cases.refused(invalid, "distribution is", || make(distribution, 0.0, weights.1, true));
        }
        for weight in [-2.0, f64::NAN, f64::INFINITY] {
            cases.refused(invalid, "weight is", || make(0, weight, weights.1, true));
        }
        cases.refused(invalid, "weights length is", || make(1, 0.0, weights.1 - 1, true));
        cases.refused(null_pointer, "out is NULL", || make(1, 0.0, weights.1, false));
        assert_eq!(make(1, SPARKLE_WEIGHT_MEASURED, weights.1, true), SPARKLE_OK);

        let mut part: sparkle_group_part = std::mem::zeroed();
        cases.refused(invalid, "sparkle_group_part", || sparkle_group_plan_part(plan, -1, &mut part));
        part.size = size_of::<sparkle_group_part>();
        for rank in [-2, 1, i32::MAX] {
            cases.refused(invalid, "rank is", || sparkle_group_plan_part(plan, rank, &mut part));
        }
        cases.refused(null_pointer, "out is NULL", || sparkle_group_plan_part(plan, 0, null_mut()));
        assert_eq!(part.input_len, 0);
        let (input, output) = (good.input, good.output);
        let execute = |input: (*const f32, usize), output: (*mut f32, usize)| {
            sparkle_group_plan_execute(plan, input.0, input.1, output.0, output.1)
        };
        cases.refused(null_pointer, "input is NULL", || execute((null(), input.1), output));
        cases.refused(null_pointer, "output is NULL", || execute(input, (null_mut(), output.1)));
        cases.refused(invalid, "input length is", || execute((input.0, input.1 - 1), output));
        cases.refused(invalid, "output length is", || execute(input, (output.0, output.1 + 1)));
        cases.refused(null_pointer, "input is NULL", || sparkle_group_plan_begin(plan, null(), input.1));
        let finish = |input: (*const f32, usize), output: (*mut f32, usize)| {
            sparkle_group_plan_finish(plan, input.0, input.1, output.0, output.1)
        };
        cases.refused(invalid, "begun runs is 0", || finish(input, output));
        assert_eq!(sparkle_group_plan_begin(plan, input.0, input.1), SPARKLE_OK);
        cases.refused(SPARKLE_ERROR_BUSY, "plan", || sparkle_group_plan_begin(plan, input.0, input.1));
        cases.refused(invalid, "output length is", || finish(input, (output.0, 0)));
        cases.refused(no_handle, "plan is NULL", || {
            sparkle_group_plan_execute(null_mut(), input.0, input.1, output.0, output.1)
        });
        cases.refused(no_handle, "which is not a group's plan", || sparkle_group_plan_destroy(group.cast()));

        let mut blocks: sparkle_group_gemm_part = std::mem::zeroed();
        blocks.size = size_of::<sparkle_group_gemm_part>();
        let desc = sparkle::ffi::gemm::sparkle_gemm_desc { trans_b: 111, ..GEMM };
        cases.refused(invalid, "trans_b is", || sparkle_group_sgemm_part(group, &GEMM, -1, &mut blocks));
        cases.refused(invalid, "rank is 4", || sparkle_group_sgemm_part(group, &desc, 4, &mut blocks));
        cases.refused(null_pointer, "sparkle_gemm_desc is NULL", || {
            sparkle_group_sgemm_part(group, null(), 0, &mut blocks)
        });
        assert_eq!(sparkle_group_sgemm_part(group, &desc, -1, &mut blocks), SPARKLE_OK);
        assert_eq!((blocks.a_rows, blocks.a_cols, blocks.b_cols, blocks.a_len), (3, 5, 4, 17));
        let numbers = [1.0f32; 64];
        let mut c = [CANARY; 20];
        let mut multiply = |a: *const f32, a_len: usize, c_len: usize| {
            sparkle_group_sgemm(group, &desc, a, a_len, numbers.as_ptr(), 32, c.as_mut_ptr(), c_len)
        };
        cases.refused(null_pointer, "a is NULL", || multiply(null(), 17, 20));
        cases.refused(invalid, "a length is", || multiply(numbers.as_ptr(), 16, 20));
        cases.refused(invalid, "c length is", || multiply(numbers.as_ptr(), 17, 19));
        assert_eq!(c, [CANARY; 20]);
        assert_eq!(sparkle_group_plan_destroy(plan), SPARKLE_OK);
        assert_eq!(sparkle_group_destroy(group), SPARKLE_OK);
        assert_eq!(sparkle_group_plan_destroy(null_mut()), SPARKLE_OK);
    }
    memory.untouched();
    cases.at_least(45);
}
