//! Every exported function with NULL, with misaligned, overlapping and oversized buffers, with extreme integers, and with handles
//! that are none: the documented answer, a new last error, and nothing written.

// The reference interface's names.
#![allow(non_snake_case)]

use std::collections::BTreeSet;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{null, null_mut};

use sparkle::ffi::status::sparkle_status::{self, *};
use sparkle::ffi::{conv2d::*, device::*, gemm::*, library::*, plan::*, reference::*, timing::*};

const CANARY: f32 = -12345.0;

fn last_error() -> String {
    // SAFETY: a NUL-terminated string, copied before the next call.
    unsafe { CStr::from_ptr(sparkle_last_error()) }.to_str().unwrap().to_owned()
}

/// Sets a last error that no other call gives.
fn old_error() -> String {
    let mut device = null_mut();
    // SAFETY: both arguments are sound.
    let status = unsafe { sparkle_device_open(c"the error before".as_ptr(), &mut device) };
    assert_eq!(status, SPARKLE_ERROR_INVALID_ARGUMENT);
    last_error()
}

/// Counts cases, and checks what is the same for all of them.
#[derive(Default)]
struct Cases(usize);

impl Cases {
    /// Runs `call`, which has to answer `expected` and to leave a message of its own with `part` in it.
    #[track_caller]
    fn refused<T: PartialEq + std::fmt::Debug>(&mut self, expected: T, part: &str, call: impl FnOnce() -> T) {
        let old = old_error();
        assert_eq!(call(), expected, "{}", last_error());
        let new = last_error();
        assert!(!new.is_empty() && new != old && new.contains(part), "\"{new}\" should name {part}");
        self.0 += 1;
    }

    #[track_caller]
    fn at_least(&self, count: usize) {
        assert!(self.0 >= count, "only {} cases", self.0);
    }
}

/// Integers that are hard to get right, as any width.
fn extremes() -> impl Iterator<Item = i64> {
    let edges = [i64::MIN, i64::from(i32::MIN), -1, 0, 1, i64::from(i32::MAX), i64::from(u32::MAX), i64::MAX];
    edges.into_iter().flat_map(|edge| [edge.wrapping_sub(1), edge, edge.wrapping_add(1)])
}

fn open_cpu() -> *mut sparkle_device {
    let mut device = null_mut();
    // SAFETY: both arguments are sound.
    assert_eq!(unsafe { sparkle_device_open(c"cpu".as_ptr(), &mut device) }, SPARKLE_OK);
    device
}

/// A convolution with its buffers, ready to be spoilt.
#[derive(Clone)]
struct Conv {
    device: *mut sparkle_device,
    desc: sparkle_conv2d_desc,
    desc_pointer: Option<*const sparkle_conv2d_desc>,
    input: (*const f32, usize),
    weights: (*const f32, usize),
    bias: (*const f32, usize),
    output: (*mut f32, usize),
}

/// The memory of a [`Conv`]: the inputs far apart in one block, the output between canaries and one itself.
struct Memory {
    inputs: Vec<f32>,
    output: Vec<f32>,
}

impl Memory {
    fn new() -> Self {
        Memory { inputs: vec![1.0; 3000], output: vec![CANARY; 200] }
    }

    fn conv(&mut self, device: *mut sparkle_device) -> Conv {
        // SAFETY: integers only.
        let mut desc = unsafe { std::mem::zeroed() };
        // SAFETY: a sound pointer.
        assert_eq!(unsafe { sparkle_conv2d_desc_init(&mut desc) }, SPARKLE_OK);
        let desc =
            sparkle_conv2d_desc { n: 2, c: 4, h: 5, w: 6, k: 6, r: 3, s: 3, groups: 2, bias: 1, ..desc };
        Conv {
            device,
            desc,
            desc_pointer: None,
            input: (self.inputs.as_ptr(), 2 * 4 * 5 * 6),
            weights: (self.inputs[1000..].as_ptr(), 6 * 2 * 9),
            bias: (self.inputs[2000..].as_ptr(), 6),
            output: (self.output[28..].as_mut_ptr(), 2 * 6 * 3 * 4),
        }
    }

    #[track_caller]
    fn untouched(&self) {
        assert!(self.output.iter().all(|&value| value == CANARY));
    }
}

impl Conv {
    fn desc(&self) -> *const sparkle_conv2d_desc {
        self.desc_pointer.unwrap_or(&self.desc)
    }

    fn conv2d(&self) -> sparkle_status {
        let Conv { input, weights, bias, output, .. } = *self;
        // SAFETY: the buffers are as long as they say, or the call must refuse them.
        unsafe {
            sparkle_conv2d(
                self.device,
                self.desc(),
                input.0,
                input.1,
                weights.0,
                weights.1,
                bias.0,
                bias.1,
                output.0,
                output.1,
            )
        }
    }

    /// Creates a plan, which has to fail without writing the handle.
    fn plan_create(&self) -> sparkle_status {
        let canary = 0x7777_usize as *mut sparkle_plan;
        let mut plan = canary;
        let (weights, bias) = (self.weights, self.bias);
        // SAFETY: as above.
        let status = unsafe {
            sparkle_plan_create(self.device, self.desc(), weights.0, weights.1, bias.0, bias.1, &mut plan)
        };
        assert_eq!(plan, canary);
        status
    }

    fn output_size(&self) -> sparkle_status {
        let (mut p, mut q) = (-7, -7);
        // SAFETY: as above.
        let status = unsafe { sparkle_conv2d_output_size(self.desc(), &mut p, &mut q) };
        assert_eq!((p, q), (-7, -7));
        status
    }
}

#[test]
fn convolutions_with_bad_pointers_and_lengths() {
    let mut memory = Memory::new();
    let good = memory.conv(open_cpu());
    let mut cases = Cases::default();
    type Spoil = fn(&mut Conv);
    // Each with whether plans have it too.
    let null: [(Spoil, &str, bool); 5] = [
        (|it| it.desc_pointer = Some(null()), "desc is NULL", true),
        (|it| it.input.0 = null(), "input is NULL", false),
        (|it| it.weights.0 = null(), "weights is NULL", true),
        (|it| it.bias.0 = null(), "bias is NULL", true),
        (|it| it.output.0 = null_mut(), "output is NULL", false),
    ];
    let misaligned: [(Spoil, &str, bool); 4] = [
        (|it| it.input.0 = it.input.0.wrapping_byte_add(1), "input is at address", false),
        (|it| it.weights.0 = it.weights.0.wrapping_byte_add(2), "weights is at address", true),
        (|it| it.bias.0 = it.bias.0.wrapping_byte_add(3), "bias is at address", true),
        (|it| it.output.0 = it.output.0.wrapping_byte_add(1), "output is at address", false),
    ];
    let overlapping: [(Spoil, &str, bool); 3] = [
        (|it| it.output.0 = it.input.0.cast_mut(), "output is in the same memory as input", false),
        (|it| it.output.0 = it.weights.0.wrapping_sub(100).cast_mut(), "same memory as weights", false),
        (|it| it.output.0 = it.bias.0.wrapping_add(5).cast_mut(), "same memory as bias", false),
    ];
    let null = null.map(|it| (it, SPARKLE_ERROR_NULL_POINTER));
    let misaligned = misaligned.map(|it| (it, SPARKLE_ERROR_INVALID_ARGUMENT));
    let overlapping = overlapping.map(|it| (it, SPARKLE_ERROR_INVALID_ARGUMENT));
    for ((spoil, part, in_plans), status) in null.into_iter().chain(misaligned).chain(overlapping) {
        let mut bad = good.clone();
        spoil(&mut bad);
        cases.refused(status, part, || bad.conv2d());
        if in_plans {
            cases.refused(status, part, || bad.plan_create());
        }
    }
    type Set = fn(&mut Conv, usize);
    let lengths: [(Spoil, Set, &str, bool); 4] = [
        (|it| it.input.1 -= 1, |it, len| it.input.1 = len, "input length is", false),
        (|it| it.weights.1 += 1, |it, len| it.weights.1 = len, "weights length is", true),
        (|it| it.bias.1 -= 1, |it, len| it.bias.1 = len, "bias length is", true),
        (|it| it.output.1 += 1, |it, len| it.output.1 = len, "output length is", false),
    ];
    for (off_by_one, set, part, in_plans) in lengths {
        for len in [None, Some(0), Some(1), Some(usize::MAX), Some(usize::MAX / 4), Some(isize::MAX as usize)]
        {
            let mut bad = good.clone();
            match len {
                None => off_by_one(&mut bad),
                Some(len) => set(&mut bad, len),
            }
            cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.conv2d());
            if in_plans {
                cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.plan_create());
            }
        }
    }
    // A bias that the description does not have.
    let mut bad = good.clone();
    bad.desc.bias = 0;
    cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "bias length is 6", || bad.conv2d());
    bad.bias.1 = 0;
    cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "bias is given", || bad.conv2d());
    // SAFETY: NULL for the handle is what is refused.
    cases.refused(SPARKLE_ERROR_NULL_POINTER, "out is NULL", || unsafe {
        let (weights, bias) = (good.weights, good.bias);
        sparkle_plan_create(good.device, &good.desc, weights.0, weights.1, bias.0, bias.1, null_mut())
    });
    memory.untouched();
    cases.at_least(56);
}

#[test]
fn convolutions_with_extreme_sizes() {
    let mut memory = Memory::new();
    let good = memory.conv(open_cpu());
    let mut cases = Cases::default();
    type Field = fn(&mut sparkle_conv2d_desc) -> &mut i64;
    let fields: [(Field, &str); 14] = [
        (|it| &mut it.n, "n"),
        (|it| &mut it.c, "c"),
        (|it| &mut it.h, "h"),
        (|it| &mut it.w, "w"),
        (|it| &mut it.k, "k"),
        (|it| &mut it.r, "r"),
        (|it| &mut it.s, "s"),
        (|it| &mut it.stride_h, "stride_h"),
        (|it| &mut it.stride_w, "stride_w"),
        (|it| &mut it.pad_h, "pad_h"),
        (|it| &mut it.pad_w, "pad_w"),
        (|it| &mut it.dilation_h, "dilation_h"),
        (|it| &mut it.dilation_w, "dilation_w"),
        (|it| &mut it.groups, "groups"),
    ];
    for (field, name) in fields {
        for value in extremes() {
            let mut bad = good.clone();
            if *field(&mut bad.desc) == value {
                continue;
            }
            *field(&mut bad.desc) = value;
            // What is no size is named; what is one no longer fits the buffers, or makes them overflow.
            let least = if name.starts_with("pad") { 0 } else { 1 };
            let is_size = (least..=i64::from(i32::MAX)).contains(&value);
            let part = if is_size { String::new() } else { format!("{name} is {value}; expected ") };
            cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, &part, || bad.conv2d());
            if !is_size {
                cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, &part, || bad.plan_create());
                cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, &part, || bad.output_size());
            }
        }
    }
    for value in [i32::MIN, -1, 2, i32::MAX] {
        for (desc, part) in [
            (sparkle_conv2d_desc { bias: value, ..good.desc }, "bias is"),
            (sparkle_conv2d_desc { relu: value, ..good.desc }, "relu is"),
        ] {
            let bad = Conv { desc, ..good.clone() };
            cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.conv2d());
            cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.output_size());
        }
    }
    // Products that overflow 64 bits, and buffers that are as large as they are said to be, but not there.
    let most = i64::from(i32::MAX);
    let mut bad = good.clone();
    (bad.desc.n, bad.desc.c, bad.desc.h) = (most, 2 * (most / 2), most);
    cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "input size n*c*h*w", || bad.conv2d());
    let mut bad = good.clone();
    bad.desc.n = most;
    (bad.input.1, bad.output.1) = (most as usize * 4 * 5 * 6, most as usize * 6 * 3 * 4);
    cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "readable memory", || bad.conv2d());
    memory.untouched();
    cases.at_least(500);
}

#[test]
fn structs_with_sizes_that_are_none() {
    let mut memory = Memory::new();
    let good = memory.conv(open_cpu());
    let mut cases = Cases::default();
    for size in [0, 1, size_of::<sparkle_conv2d_desc>() - 1, 4097, usize::MAX] {
        let bad = Conv { desc: sparkle_conv2d_desc { size, ..good.desc }, ..good.clone() };
        let part = "expected size = sizeof(sparkle_conv2d_desc), 128";
        cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.conv2d());
        cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.plan_create());
        cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.output_size());
    }
    /// What a later version's header could have.
    #[repr(C)]
    struct Later {
        desc: sparkle_conv2d_desc,
        new: u64,
    }
    let size = size_of::<Later>();
    let mut later = Later { desc: sparkle_conv2d_desc { size, ..good.desc }, new: 1 };
    let with = |later: &Later| Conv { desc_pointer: Some((&raw const *later).cast()), ..good.clone() };
    cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "later version", || with(&later).conv2d());
    cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "later version", || with(&later).output_size());
    later.new = 0;
    let (mut p, mut q) = (0, 0);
    // SAFETY: all pointers are sound.
    assert_eq!(unsafe { sparkle_conv2d_output_size((&raw const later).cast(), &mut p, &mut q) }, SPARKLE_OK);
    assert_eq!((p, q), (3, 4));
    // Misaligned.
    let mut bytes = [0u64; 20];
    let bad = Conv { desc_pointer: Some(bytes.as_mut_ptr().wrapping_byte_add(4).cast()), ..good.clone() };
    cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "multiple of 8", || bad.conv2d());
    memory.untouched();
    cases.at_least(18);
}

/// Calls `sparkle_sgemm` on buffers a, b, c, each a pointer and a length.
fn sgemm(
    device: *mut sparkle_device,
    desc: *const sparkle_gemm_desc,
    a: (*const f32, usize),
    b: (*const f32, usize),
    c: (*mut f32, usize),
) -> sparkle_status {
    // SAFETY: the buffers are as long as they say, or the call must refuse them.
    unsafe { sparkle_sgemm(device, desc, a.0, a.1, b.0, b.1, c.0, c.1) }
}

const GEMM: sparkle_gemm_desc = sparkle_gemm_desc {
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
    cases.refused(invalid, "c is in the same memory as a", || sgemm(device, &GEMM, (c.0, 17), b, c));
    cases.refused(invalid, "c is in the same memory as b", || {
        sgemm(device, &GEMM, a, (b.0, 26), (b.0.cast_mut(), 20))
    });
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
                // A size of 0 or 1 is a smaller product, fine with these buffers; a large one does not fit them.
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
        // SAFETY: the buffers are sound, and the handle is what is refused.
        cases.refused(invalid, "plan is 0x", || unsafe {
            sparkle_plan_execute(handle.cast(), input.0, input.1, output.0, output.1)
        });
    }
    // An open device is no plan.
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
    // SAFETY: numbers only, in both.
    let (mut info, mut timing): (sparkle_device_info, sparkle_timing) = unsafe { std::mem::zeroed() };
    let (mut p, desc) = (0, Memory::new().conv(null_mut()).desc);
    // SAFETY: every pointer is sound, or NULL or misaligned, which is what is refused.
    unsafe {
        cases.refused(null_pointer, "out is NULL", || sparkle_device_count(null_mut()));
        cases.refused(null_pointer, "out is NULL", || sparkle_device_describe(0, null_mut()));
        cases.refused(null_pointer, "out is NULL", || sparkle_device_open(c"cpu".as_ptr(), null_mut()));
        cases.refused(null_pointer, "out is NULL", || sparkle_conv2d_desc_init(null_mut()));
        cases.refused(null_pointer, "out is NULL", || sparkle_last_timing(null_mut()));
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
        for count in [i32::MIN, -1, 0, i32::MAX] {
            cases.refused(invalid, &format!("{count}; expected "), || sparkle_set_num_threads(count));
        }
        for status in [i32::MIN, -1, 13, i32::MAX] {
            assert_eq!(CStr::from_ptr(sparkle_status_string(status)), c"unknown status");
        }
    }
    assert!(device.is_null() && info.name == [0; 256] && timing.wall_ms == 0.0);
    assert!(sparkle_get_num_threads() >= 1);
    cases.at_least(29);
}

/// A convolution by the reference interface, ready to be spoilt: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out.
#[derive(Clone, Copy)]
struct Reference {
    numbers: [c_int; 10],
    input: *const f32,
    weights: *const f32,
    output: *mut f32,
}

const NUMBERS: [c_int; 10] = [2, 3, 5, 6, 2, 3, 2, 1, 3, 3];

/// A kernel that compiles; no test here gets so far.
const SHADER: &CStr = c"#version 430 core\nlayout(local_size_x = 64) in;\nvoid main() {}\n";

impl Reference {
    fn params(&self) -> conv2d_params_t {
        let [N, C, H, W, K, kernel_size, stride, pad, H_out, W_out] = self.numbers;
        conv2d_params_t { N, H, W, C, K, kernel_size, stride, pad, H_out, W_out }
    }

    /// All four functions that compute, each of which must refuse.
    fn refused(&self, cases: &mut Cases, part: &str) {
        let [n, c, h, w, k, size, stride, pad, p, q] = self.numbers;
        let (x, f, y) = (self.input, self.weights, self.output);
        // SAFETY: the buffers are large enough, or the call must refuse them.
        unsafe {
            cases.refused(-1.0, part, || {
                gpu_execute_conv2d_fortran(x, f, y, n, c, h, w, k, size, stride, pad, p, q)
            });
            cases.refused(-1.0, part, || gpu_execute_conv2d(x, f, y, &self.params()));
            cases.refused(-1.0, part, || {
                gpu_execute_conv2d_custom(0, x, f, y, n, c, h, w, k, size, stride, pad, p, q)
            });
            cases.refused(-1.0, part, || {
                let source = SHADER.as_ptr();
                gpu_execute_conv2d_with_shader(x, f, y, n, c, h, w, k, size, stride, pad, p, q, source)
            });
        }
    }
}

#[test]
fn the_reference_functions_that_compute() {
    let (input, weights) = (vec![1.0f32; 2 * 3 * 5 * 6], vec![1.0f32; 2 * 3 * 9]);
    let mut output = vec![CANARY; 80];
    let start = output[20..].as_mut_ptr();
    let good =
        Reference { numbers: NUMBERS, input: input.as_ptr(), weights: weights.as_ptr(), output: start };
    let mut cases = Cases::default();
    Reference { input: null(), ..good }.refused(&mut cases, "input is NULL");
    Reference { weights: null(), ..good }.refused(&mut cases, "weights is NULL");
    Reference { output: null_mut(), ..good }.refused(&mut cases, "output is NULL");
    let odd = |pointer: *const f32| pointer.wrapping_byte_add(2);
    Reference { input: odd(good.input), ..good }.refused(&mut cases, "input is at address");
    Reference { weights: odd(good.weights), ..good }.refused(&mut cases, "weights is at address");
    Reference { output: odd(start).cast_mut(), ..good }.refused(&mut cases, "output is at address");
    Reference { output: good.input.cast_mut(), ..good }.refused(&mut cases, "same memory as input");
    Reference { output: good.weights.cast_mut(), ..good }.refused(&mut cases, "same memory as weights");
    for (index, number) in NUMBERS.into_iter().enumerate() {
        for value in [c_int::MIN, -1, 0, 1, c_int::MAX - 1, c_int::MAX] {
            // A batch of one, or one channel in or out, is a smaller convolution in the same buffers.
            if value == number || value == 1 && [0, 1, 4].contains(&index) {
                continue;
            }
            let mut bad = good;
            bad.numbers[index] = value;
            bad.refused(&mut cases, "expected ");
        }
    }
    let most = c_int::MAX;
    for numbers in [
        [most; 10],
        [c_int::MIN; 10],
        [0; 10],
        [most, most, most, most, most, 1, 1, 0, most, most],
        [1, 1, 5, 6, most, 1, 1, 0, 5, 6],
        // The struct's order where the function's is due.
        [2, 5, 6, 3, 2, 3, 2, 1, 3, 3],
    ] {
        Reference { numbers, ..good }.refused(&mut cases, "expected ");
    }
    // SAFETY: the sizes are sound, and NULL is what is refused.
    unsafe {
        let [n, c, h, w, k, size, stride, pad, p, q] = NUMBERS;
        let (x, f, y) = (good.input, good.weights, start);
        cases.refused(-1.0, "params is NULL", || gpu_execute_conv2d(x, f, y, null()));
        let odd = (&raw const input[0]).wrapping_byte_add(2).cast();
        cases.refused(-1.0, "params is at address", || gpu_execute_conv2d(x, f, y, odd));
        for (source, part) in [(null(), "shader_source is NULL"), (c"\xff".as_ptr(), "UTF-8")] {
            cases.refused(-1.0, part, || {
                gpu_execute_conv2d_with_shader(x, f, y, n, c, h, w, k, size, stride, pad, p, q, source)
            });
            cases.refused(0, part, || gpu_compile_custom_shader(source));
        }
    }
    assert!(output.iter().all(|&value| value == CANARY));
    cases.at_least(230);
}

#[test]
fn the_reference_functions_on_buffers() {
    let mut memory = [7u8; 16];
    let pointer: *mut c_void = memory.as_mut_ptr().cast();
    let mut cases = Cases::default();
    let create = |data, size| {
        // SAFETY: `data` is NULL or the size must be refused.
        let buffer = unsafe { gpu_create_buffer(data, size) };
        (buffer.buffer_id, buffer.size_bytes)
    };
    for size in [0, usize::MAX, isize::MAX as usize + 1] {
        cases.refused((0, 0), "size is", || create(null(), size));
        cases.refused((0, 0), "size is", || create(pointer, size));
    }
    cases.refused((0, 0), "data is", || create(pointer, 1 << 46));
    let download = |buffer_id, size_bytes, data| {
        // SAFETY: `data` has room for 16 bytes, or the call must refuse.
        unsafe { gpu_download_buffer(gpu_buffer_t { buffer_id, size_bytes }, data) }
    };
    cases.refused((), "buffer is 0", || download(0, 16, pointer));
    cases.refused((), "buffer is 0", || download(0, 0, null_mut()));
    cases.refused((), "data is NULL", || download(1, 16, null_mut()));
    cases.refused((), "data is", || download(1, usize::MAX, pointer));
    // No such buffer, whether or not there is a device.
    cases.refused((), "", || download(u32::MAX, 16, pointer));
    gpu_free_buffer(gpu_buffer_t { buffer_id: 0, size_bytes: 0 });
    cases.refused((), "", || gpu_free_buffer(gpu_buffer_t { buffer_id: u32::MAX, size_bytes: 16 }));
    cases.refused((), "", || set_conv2d_shader_source(0));
    assert_eq!(memory, [7; 16]);
    cases.at_least(14);
}

#[test]
fn the_reference_functions_before_initialisation() {
    // A process of its own, since the state is the process's.
    let name = "the_reference_functions_before_initialisation";
    if std::env::var("SPARKLE_TEST_CHILD").is_err() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env("SPARKLE_TEST_CHILD", "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let mut cases = Cases::default();
    assert_eq!((gpu_is_initialized(), gpu_get_compute_program()), (0, 0));
    cases.refused(0, "", || gpu_compile_conv2d_shader());
    // SAFETY: the text is sound.
    cases.refused(0, "", || unsafe { gpu_compile_custom_shader(SHADER.as_ptr()) });
    // SAFETY: no data, or room for one byte.
    cases.refused(0, "", || unsafe { gpu_create_buffer(null(), 16) }.buffer_id);
    let (x, mut y) = ([1.0f32], [CANARY]);
    let (input, output) = (x.as_ptr(), y.as_mut_ptr());
    // SAFETY: one element each, as the sizes say.
    cases.refused(-1.0, "", || unsafe {
        gpu_execute_conv2d_with_shader(input, input, output, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, SHADER.as_ptr())
    });
    gpu_cleanup_opengl();
    assert_eq!((gpu_is_initialized(), y), (0, [CANARY]));
    cases.at_least(4);
}

#[test]
fn no_function_is_forgotten() {
    let source = include_str!("abi_arguments.rs");
    // No argument to get wrong, or tested with the devices that they need.
    let elsewhere = [
        "sparkle_version",
        "sparkle_version_string",
        "sparkle_set_log_callback",
        "sparkle_finalize",
        "gpu_initialize_opengl",
        "create_egl_context",
    ];
    let calls = |name: &&str| source.contains(&format!("{name}("));
    let forgotten: BTreeSet<&str> =
        include_str!("../include/abi.txt").lines().filter(|name| !calls(name)).collect();
    assert_eq!(forgotten, BTreeSet::from(elsewhere));
}
