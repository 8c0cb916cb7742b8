//! Invalid handles, and the functions without buffers.

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};

use sparkle::ffi::status::sparkle_status::*;
use sparkle::ffi::{conv2d::*, device::*, gemm::*, library::*, plan::*, predict::*, shares::*, timing::*};

use super::cases::{CANARY, Cases, open_cpu};
use super::conv2d::{Conv, Memory};
use super::gemm::{GEMM, sgemm};

#[test]
fn handles_that_are_none() {
    let mut memory = Memory::new();
    let good = memory.conv(open_cpu());
    let closed = open_cpu();
    assert_eq!(sparkle_device_close(closed), SPARKLE_OK);
    let stack = 0u64;
    let mut cases = Cases::default();
    let foreign = |bits: usize| std::ptr::without_provenance_mut::<c_void>(bits);
    let strange = [
        closed.cast(),
        (&raw const stack).cast_mut().cast(),
        (&raw mut memory.inputs[0]).cast(),
        foreign(1),
        foreign(closed.addr() + 1),
        foreign(closed.addr() ^ 2),
        foreign(closed.addr() + (1 << 40)),
        foreign(usize::MAX),
    ];
    let invalid = SPARKLE_ERROR_INVALID_HANDLE;
    let mut output = vec![CANARY; 8];
    for handle in strange {
        let bad = Conv { device: handle.cast(), ..good.clone() };
        cases.refused(invalid, "device is 0x", || bad.conv2d());
        cases.refused(invalid, "device is 0x", || bad.plan_create());
        cases.refused(invalid, "device is 0x", || sparkle_device_close(handle.cast()));
        cases.refused(invalid, "plan is 0x", || sparkle_plan_destroy(handle.cast()));
        let (a, c) = ((good.input.0, 40), (output.as_mut_ptr(), 8));
        let desc = sparkle_gemm_desc { trans_b: 111, m: 1, n: 1, k: 1, ..GEMM };
        cases.refused(invalid, "device is 0x", || sgemm(handle.cast(), &desc, a, a, c));
        let (input, output) = (good.input, good.output);
        // SAFETY: the buffers are valid, and the call refuses the handle.
        cases.refused(invalid, "plan is 0x", || unsafe {
            sparkle_plan_execute(handle.cast(), input.0, input.1, output.0, output.1)
        });
        let (mut packed, mut workspace) = (7, 7);
        // SAFETY: as above.
        cases.refused(invalid, "plan is 0x", || unsafe {
            sparkle_plan_memory(handle.cast(), &mut packed, &mut workspace)
        });
        assert_eq!((packed, workspace), (7, 7));
    }
    // An open device is not a plan.
    cases.refused(invalid, "which is not a plan", || sparkle_plan_destroy(good.device.cast()));
    // SAFETY: as above.
    cases.refused(invalid, "plan is NULL", || unsafe {
        sparkle_plan_execute(null_mut(), good.input.0, good.input.1, good.output.0, good.output.1)
    });
    assert_eq!(
        (sparkle_device_close(null_mut()), sparkle_plan_destroy(null_mut())),
        (SPARKLE_OK, SPARKLE_OK)
    );
    memory.untouched();
    assert!(output.iter().all(|&value| value == CANARY));
    cases.at_least(50);
}

#[test]
fn the_other_functions() {
    let mut cases = Cases::default();
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    let mut device = null_mut();
    // SAFETY: both structs have only numbers.
    let (mut info, mut timing): (sparkle_device_info, sparkle_timing) = unsafe { std::mem::zeroed() };
    let (mut p, desc) = (0, Memory::new().conv(null_mut()).desc);
    // SAFETY: every pointer is valid, or the call refuses it because it is NULL or misaligned.
    unsafe {
        cases.refused(null_pointer, "out is NULL", || sparkle_device_count(null_mut()));
        cases.refused(null_pointer, "out is NULL", || sparkle_device_describe(0, null_mut()));
        cases.refused(null_pointer, "out is NULL", || sparkle_device_open(c"cpu".as_ptr(), null_mut()));
        cases.refused(null_pointer, "out is NULL", || sparkle_conv2d_desc_init(null_mut()));
        cases.refused(null_pointer, "out is NULL", || sparkle_struct_init(null_mut(), 64));
        let odd = (&raw mut timing).wrapping_byte_add(1);
        cases.refused(invalid, "out is at address", || sparkle_struct_init(odd.cast(), 64));
        for size in [0, 7, 4097, usize::MAX] {
            let expected = "; expected 8 to 4096, the size of a struct";
            cases.refused(invalid, expected, || sparkle_struct_init((&raw mut timing).cast(), size));
        }
        cases.refused(null_pointer, "out is NULL", || sparkle_last_timing(null_mut()));
        let mut bytes = 0;
        let memory = |packed, workspace| sparkle_plan_memory(null_mut(), packed, workspace);
        cases.refused(null_pointer, "out_packed is NULL", || memory(null_mut(), &mut bytes));
        cases.refused(null_pointer, "out_workspace is NULL", || memory(&mut bytes, null_mut()));
        cases
            .refused(null_pointer, "out_p is NULL", || sparkle_conv2d_output_size(&desc, null_mut(), &mut p));
        cases
            .refused(null_pointer, "out_q is NULL", || sparkle_conv2d_output_size(&desc, &mut p, null_mut()));
        cases.refused(null_pointer, "desc is NULL", || {
            let mut q = 0;
            sparkle_conv2d_output_size(null(), &mut p, &mut q)
        });
        let odd = (&raw mut info).wrapping_byte_add(1);
        cases.refused(invalid, "out is at address", || sparkle_device_describe(0, odd));
        for text in [c"", c"CPU", c"gl", c"gl:", c"gl:-1", c"gl:99999999999999999999", c"\xff\xfe"] {
            cases.refused(invalid, "is \"", || sparkle_device_open(text.as_ptr(), &mut device));
        }
        let far = c"gl:4294967295".as_ptr();
        cases.refused(SPARKLE_ERROR_NO_DEVICE, "gl:4294967295", || sparkle_device_open(far, &mut device));
        for size in [0, 819, 4097, usize::MAX] {
            info.size = size;
            cases.refused(invalid, "sparkle_device_info", || sparkle_device_describe(0, &mut info));
        }
        info.size = size_of::<sparkle_device_info>();
        let mut count = 0;
        assert_eq!(sparkle_device_count(&mut count), SPARKLE_OK);
        for index in [count, usize::MAX, 1 << 32] {
            cases.refused(invalid, "index is", || sparkle_device_describe(index, &mut info));
        }
        timing.size = size_of::<sparkle_timing>();
        cases.refused(invalid, "successful calls is 0", || sparkle_last_timing(&mut timing));
        let mut shares = 0;
        cases.refused(null_pointer, "out_count is NULL", || sparkle_last_shares(null_mut(), 0, null_mut()));
        cases.refused(invalid, "successful calls is 0", || sparkle_last_shares(null_mut(), 0, &mut shares));
        let mut desc = std::mem::zeroed::<sparkle_conv2d_desc>();
        cases.refused(null_pointer, "out_count is NULL", || {
            sparkle_device_predict(null_mut(), &desc, null_mut(), 0, null_mut())
        });
        cases.refused(null_pointer, "sparkle_conv2d_desc is NULL", || {
            sparkle_device_predict(null_mut(), null(), null_mut(), 0, &mut shares)
        });
        cases.refused(invalid, "sparkle_conv2d_desc", || {
            sparkle_device_predict(null_mut(), &desc, null_mut(), 0, &mut shares)
        });
        desc.size = size_of::<sparkle_conv2d_desc>();
        assert_eq!(sparkle_conv2d_desc_init(&mut desc), SPARKLE_OK);
        cases.refused(null_pointer, "out is NULL", || {
            sparkle_device_predict(null_mut(), &desc, null_mut(), 1, &mut shares)
        });
        let mut prediction = std::mem::zeroed::<sparkle_prediction>();
        for size in [0, 319, 321, 4097, usize::MAX] {
            prediction.size = size;
            cases.refused(invalid, "prediction", || {
                sparkle_device_predict(null_mut(), &desc, &mut prediction, 1, &mut shares)
            });
        }
        for count in [i32::MIN, -1, 0, i32::MAX] {
            cases.refused(invalid, &format!("{count}; expected "), || sparkle_set_num_threads(count));
        }
        for status in [i32::MIN, -1, 19, i32::MAX] {
            assert_eq!(CStr::from_ptr(sparkle_status_string(status)), c"unknown status");
        }
    }
    assert!(device.is_null() && info.name == [0; 256] && timing.wall_ms == 0.0);
    assert!(sparkle_get_num_threads() >= 1);
    cases.at_least(29);
}
