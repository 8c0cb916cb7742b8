//! A GPU's architecture, shaders as text, the tuning history.

use std::ffi::{CStr, c_char};
use std::ptr::{null, null_mut};

use sparkle::ffi::status::sparkle_status::*;
use sparkle::ffi::{architecture::*, conv2d::*, device::*, tuning_history::*};

use super::cases::{Cases, extremes};

fn desc() -> sparkle_conv2d_desc {
    // SAFETY: the struct has only integers.
    let mut desc = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid.
    assert_eq!(unsafe { sparkle_conv2d_desc_init(&mut desc) }, SPARKLE_OK);
    sparkle_conv2d_desc { c: 4, h: 5, w: 6, k: 6, r: 3, s: 3, ..desc }
}

const OPTIONS: sparkle_shader_options = sparkle_shader_options {
    size: size_of::<sparkle_shader_options>(),
    threads_x: 0,
    threads_y: 0,
    registers: 0,
    shared: 0,
    chains: 0,
    reserved: 0,
};

#[test]
fn shaders_as_text() {
    let (mut cases, good) = (Cases::default(), desc());
    let mut text = vec![1; 1 << 16];
    let mut length = 7;
    // SAFETY: every pointer is valid, or the call refuses it because it is NULL or misaligned.
    let source = |desc: *const _, options: *const _, text: *mut c_char, capacity, length: *mut usize| unsafe {
        sparkle_shader_source(desc, options, text, capacity, length)
    };
    assert_eq!(source(&good, null(), null_mut(), 0, &mut length), SPARKLE_OK);
    assert!(length > 1000);
    // A buffer of exactly the length suffices; one byte less does not.
    assert_eq!(source(&good, &OPTIONS, text.as_mut_ptr(), length + 1, &mut length), SPARKLE_OK);
    // SAFETY: the text was just written; the memory after the NUL is unchanged.
    let written = unsafe { CStr::from_ptr(text.as_ptr()) };
    assert_eq!((written.to_bytes().len(), text[length + 1]), (length, 1));
    assert!(written.to_str().unwrap().starts_with("#version 430"));

    text.fill(1);
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    let (full, into) = (length, text.as_mut_ptr());
    length = 7;
    cases.refused(null_pointer, "length is NULL", || source(&good, null(), into, 1 << 16, null_mut()));
    cases.refused(null_pointer, "desc is NULL", || source(null(), null(), into, 1 << 16, &mut length));
    cases.refused(null_pointer, "text is NULL", || source(&good, null(), null_mut(), 9, &mut length));
    for capacity in [0, 1, full] {
        cases.refused(invalid, "capacity", || source(&good, null(), into, capacity, &mut length));
    }
    for bad in [
        sparkle_shader_options { size: 0, ..OPTIONS },
        sparkle_shader_options { threads_x: 3, ..OPTIONS },
        sparkle_shader_options { threads_y: -1, ..OPTIONS },
        sparkle_shader_options { threads_x: 64, threads_y: 32, ..OPTIONS },
        sparkle_shader_options { threads_x: i32::MAX, ..OPTIONS },
        sparkle_shader_options { registers: i32::MIN, ..OPTIONS },
        sparkle_shader_options { shared: 2, ..OPTIONS },
        sparkle_shader_options { chains: 3, ..OPTIONS },
        sparkle_shader_options { reserved: 1, ..OPTIONS },
    ] {
        cases.refused(invalid, "", || source(&good, &bad, into, 1 << 16, &mut length));
    }
    let other = [
        sparkle_conv2d_desc { groups: 2, ..good },
        sparkle_conv2d_desc { dilation_h: 2, ..good },
        sparkle_conv2d_desc { bias: 1, ..good },
        sparkle_conv2d_desc { relu: 1, ..good },
    ];
    for bad in &other {
        cases.refused(invalid, "", || source(bad, null(), into, 1 << 16, &mut length));
    }
    for extreme in extremes().filter(|&size| !(1..=1 << 20).contains(&size)) {
        let bad = sparkle_conv2d_desc { c: extreme, ..good };
        cases.refused(invalid, "", || source(&bad, null(), into, 1 << 16, &mut length));
    }
    assert!(length == 7 && text.iter().all(|&byte| byte == 1));
    cases.at_least(30);
}

#[test]
fn devices_and_tuning_history() {
    let mut cases = Cases::default();
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    // SAFETY: numbers only, in both.
    let (mut found, mut known): (sparkle_architecture, sparkle_tuning_record) = unsafe { std::mem::zeroed() };
    (found.size, known.size) = (size_of_val(&found), size_of_val(&known));
    let (task, variant) = (c"a test".as_ptr(), c"a variant".as_ptr());
    let mut count = 0;
    // SAFETY: every pointer is valid, or the call refuses it because it is NULL.
    unsafe {
        assert_eq!(sparkle_device_count(&mut count), SPARKLE_OK);
        cases.refused(null_pointer, "out is NULL", || sparkle_device_architecture(1, null_mut()));
        cases.refused(null_pointer, "out is NULL", || {
            sparkle_tuning_history_load(1, task, variant, null_mut())
        });
        cases.refused(null_pointer, "task is NULL", || {
            sparkle_tuning_history_load(1, null(), variant, &mut known)
        });
        cases.refused(null_pointer, "variant is NULL", || {
            sparkle_tuning_history_load(1, task, null(), &mut known)
        });
        cases.refused(null_pointer, "task is NULL", || {
            sparkle_tuning_history_save(1, null(), variant, &known)
        });
        cases.refused(null_pointer, "variant is NULL", || {
            sparkle_tuning_history_save(1, task, null(), &known)
        });
        let none = null::<sparkle_tuning_record>();
        cases.refused(null_pointer, "sparkle_tuning_record is NULL", || {
            sparkle_tuning_history_save(1, task, variant, none)
        });
        // The CPU is not a GPU.
        for index in [0, count, usize::MAX] {
            cases.refused(invalid, "index is", || sparkle_device_architecture(index, &mut found));
            cases.refused(invalid, "index is", || {
                sparkle_tuning_history_load(index, task, variant, &mut known)
            });
            cases.refused(invalid, "index is", || sparkle_tuning_history_save(index, task, variant, &known));
        }
        let good = sparkle_tuning_record { runs: 3, mean_ms: 1.5, rate: 1e9, ..known };
        for index in 1..count {
            if sparkle_device_architecture(index, &mut found) != SPARKLE_OK {
                continue;
            }
            assert!(found.compute_units >= 1 && found.flops > 0.0 && found.bandwidth > 0.0);
            assert!(found.max_workgroup >= 1024 && found.shared_memory >= 32768 && found.name[0] != 0);
            for bad in [
                sparkle_tuning_record { runs: 0, ..good },
                sparkle_tuning_record { runs: i64::MIN, ..good },
                sparkle_tuning_record { mean_ms: -1.0, ..good },
                sparkle_tuning_record { mean_ms: f64::NAN, ..good },
                sparkle_tuning_record { rate: f64::INFINITY, ..good },
            ] {
                let save = || sparkle_tuning_history_save(index, task, variant, &bad);
                cases.refused(invalid, "record is", save);
            }
            // Nothing was kept by that.
            assert_eq!(sparkle_tuning_history_load(index, task, variant, &mut known), SPARKLE_OK);
            assert_eq!((known.runs, known.mean_ms, known.rate), (0, 0.0, 0.0));
            let other = c"another variant".as_ptr();
            assert_eq!(sparkle_tuning_history_save(index, task, other, &good), SPARKLE_OK);
            assert_eq!(sparkle_tuning_history_load(index, task, other, &mut known), SPARKLE_OK);
            assert_eq!((known.runs, known.mean_ms, known.rate), (3, 1.5, 1e9));
        }
    }
    cases.at_least(16);
}
