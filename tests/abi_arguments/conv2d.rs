//! Convolutions.

use std::ptr::{null, null_mut};

use sparkle::ffi::status::sparkle_status::{self, *};
use sparkle::ffi::{conv2d::*, device::*, plan::*};

use super::cases::{CANARY, Cases, extremes, open_cpu};

/// A convolution with its buffers, whose arguments tests make invalid.
#[derive(Clone)]
pub struct Conv {
    pub device: *mut sparkle_device,
    pub desc: sparkle_conv2d_desc,
    pub desc_pointer: Option<*const sparkle_conv2d_desc>,
    pub input: (*const f32, usize),
    pub weights: (*const f32, usize),
    pub bias: (*const f32, usize),
    pub output: (*mut f32, usize),
}

/// The memory of a [`Conv`]: the inputs far apart in one block, and an output full of canaries between canaries.
pub struct Memory {
    pub inputs: Vec<f32>,
    output: Vec<f32>,
}

impl Memory {
    pub fn new() -> Self {
        Memory { inputs: vec![1.0; 3000], output: vec![CANARY; 200] }
    }

    pub fn conv(&mut self, device: *mut sparkle_device) -> Conv {
        // SAFETY: the struct has only integers.
        let mut desc = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is valid.
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
    pub fn untouched(&self) {
        assert!(self.output.iter().all(|&value| value == CANARY));
    }
}

impl Conv {
    fn desc(&self) -> *const sparkle_conv2d_desc {
        self.desc_pointer.unwrap_or(&self.desc)
    }

    pub fn conv2d(&self) -> sparkle_status {
        let Conv { input, weights, bias, output, .. } = *self;
        // SAFETY: the buffers have the stated lengths, or the call must refuse them.
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

    /// Creates a plan, which must fail without writing the handle.
    pub fn plan_create(&self) -> sparkle_status {
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

    pub fn output_size(&self) -> sparkle_status {
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
    // Each with whether plans refuse it, too.
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
    // A bias that the description does not state.
    let mut bad = good.clone();
    bad.desc.bias = 0;
    cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "bias length is 6", || bad.conv2d());
    bad.bias.1 = 0;
    cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "bias is given", || bad.conv2d());
    // SAFETY: the call refuses NULL for the handle.
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
            // The message names an invalid size. A valid size no longer fits the buffers, or makes them overflow.
            let least = if name == "n" || name.starts_with("pad") { 0 } else { 1 };
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
            (sparkle_conv2d_desc { algorithm: value.wrapping_mul(3), ..good.desc }, "algorithm is"),
            (sparkle_conv2d_desc { reserved: value, ..good.desc }, "reserved is"),
        ] {
            let bad = Conv { desc, ..good.clone() };
            cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.conv2d());
            cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.output_size());
        }
    }
    // Products that overflow 64 bits, and buffers with huge lengths that do not exist.
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
    for size in [0, 1, 135, 4097, usize::MAX] {
        let bad = Conv { desc: sparkle_conv2d_desc { size, ..good.desc }, ..good.clone() };
        let part = "expected size = sizeof(sparkle_conv2d_desc), 168";
        cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.conv2d());
        cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.plan_create());
        cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, part, || bad.output_size());
    }
    /// A struct that the header of a later version could have.
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
