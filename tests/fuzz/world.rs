//! The state that all threads share: problems with their expected results, and handles.

use std::collections::BTreeMap;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};

use sparkle::ffi::conv2d::sparkle_conv2d_desc;
use sparkle::ffi::library::sparkle_finalize;
use sparkle::ffi::pipeline::sparkle_slot_release;
use sparkle::ffi::status::sparkle_status::{self, *};
use sparkle::problem::exact::Random;
use sparkle::problem::oracle;
use sparkle::{Algorithm, Conv2d, Conv2dDesc};

pub const CANARY: f32 = -12345.0;

/// A convolution on small integers.
pub struct Problem {
    pub desc: sparkle_conv2d_desc,
    pub input: Vec<f32>,
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
    pub expected: Vec<f32>,
    /// The reference interface's result, without bias and ReLU; `None` if it cannot express the problem.
    pub reference: Option<Vec<f32>>,
}

impl Problem {
    fn new(desc: Conv2dDesc, random: &mut Random) -> Self {
        let desc = Conv2dDesc { algorithm: Algorithm::Direct, ..desc };
        let problem = Conv2d::new(desc).unwrap();
        let mut integers = |len| -> Vec<f32> {
            random.integers(len, 3).into_iter().map(|value| if value == 0.0 { 1.0 } else { value }).collect()
        };
        let (input, weights) = (integers(problem.input_len()), integers(problem.weights_len()));
        let bias = if desc.bias { integers(desc.k as usize) } else { vec![] };
        let values = |problem: &Conv2d, bias| -> Vec<f32> {
            oracle::conv2d(problem, &input, &weights, bias).iter().map(|it| it.value as f32).collect()
        };
        let expected = values(&problem, desc.bias.then_some(&bias[..]));
        assert!(expected.iter().filter(|&&value| value != 0.0).count() * 4 > expected.len());
        let square = (desc.r, desc.stride_h, desc.pad_h) == (desc.s, desc.stride_w, desc.pad_w)
            && (desc.dilation_h, desc.dilation_w, desc.groups) == (1, 1, 1);
        let plain = Conv2d::new(Conv2dDesc { bias: false, relu: false, ..desc }).unwrap();
        let reference = square.then(|| values(&plain, None));
        Problem { desc: desc.into(), input, weights, bias, expected, reference }
    }

    /// The problem's output height and width, for the reference interface.
    pub fn output_sides(&self) -> [i32; 2] {
        let d = &self.desc;
        [(d.h, d.pad_h, d.r, d.stride_h), (d.w, d.pad_w, d.s, d.stride_w)]
            .map(|(side, pad, kernel, stride)| ((side + 2 * pad - kernel) / stride + 1) as i32)
    }
}

/// The kinds of handles.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Device,
    Plan,
    Pipeline,
    Ticket,
    Slot,
    Kernel,
    Buffer,
}

pub const KINDS: [Kind; 7] =
    [Kind::Device, Kind::Plan, Kind::Pipeline, Kind::Ticket, Kind::Slot, Kind::Kernel, Kind::Buffer];

/// A handle, and the number of its problem or kernel if it has one.
#[derive(Clone, Copy)]
pub struct Held {
    pub handle: usize,
    pub problem: usize,
}

pub struct World {
    pub device: String,
    pub problems: Vec<Problem>,
    handles: Mutex<BTreeMap<Kind, Vec<Held>>>,
    /// Buffers of jobs whose tickets other threads released. Jobs may use them until all have ended.
    graveyard: Mutex<Vec<[Vec<f32>; 2]>>,
    /// Read-locked while a slot's memory is in use, because finalisation frees that memory.
    pub memory_of_slots: RwLock<()>,
    pub calls: AtomicU64,
    pub verified: AtomicU64,
    statuses: [AtomicU64; 19],
}

impl World {
    pub fn new(device: &str) -> Self {
        let mut random = Random::new(11);
        let base = Conv2dDesc { bias: true, ..Default::default() };
        let problems = [
            Conv2dDesc { bias: false, ..base },
            Conv2dDesc { n: 2, c: 4, h: 9, w: 7, k: 6, r: 3, s: 3, pad_h: 1, pad_w: 1, relu: true, ..base },
            Conv2dDesc { c: 16, h: 12, w: 12, k: 16, r: 3, s: 3, pad_h: 1, pad_w: 1, ..base },
            Conv2dDesc { n: 3, c: 8, h: 6, w: 6, k: 8, ..base },
            Conv2dDesc { c: 8, h: 10, w: 11, k: 8, r: 3, s: 3, stride_h: 2, stride_w: 2, groups: 8, ..base },
            Conv2dDesc { c: 6, h: 9, w: 9, k: 4, r: 5, s: 3, stride_h: 2, pad_h: 2, groups: 2, ..base },
            Conv2dDesc {
                n: 4,
                c: 3,
                h: 8,
                w: 8,
                k: 5,
                r: 7,
                s: 7,
                stride_h: 2,
                stride_w: 2,
                pad_h: 3,
                pad_w: 3,
                ..base
            },
            Conv2dDesc { c: 32, h: 14, w: 14, k: 32, r: 3, s: 3, pad_h: 1, pad_w: 1, relu: true, ..base },
            Conv2dDesc { c: 4, w: 40, k: 4, s: 3, pad_w: 1, ..base },
            Conv2dDesc { n: 2, c: 2, h: 20, w: 20, k: 3, r: 2, s: 2, dilation_h: 2, dilation_w: 2, ..base },
        ];
        World {
            device: device.to_owned(),
            problems: problems.map(|desc| Problem::new(desc, &mut random)).into(),
            handles: Mutex::default(),
            graveyard: Mutex::default(),
            memory_of_slots: RwLock::default(),
            calls: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            statuses: [const { AtomicU64::new(0) }; 19],
        }
    }

    /// Counts a call. No call may return a status that stands for a defect of the library or the driver.
    #[track_caller]
    pub fn note(&self, status: sparkle_status) -> sparkle_status {
        self.calls.fetch_add(1, Relaxed);
        self.statuses[status as usize].fetch_add(1, Relaxed);
        let never = [
            SPARKLE_ERROR_INTERNAL,
            SPARKLE_ERROR_DRIVER,
            SPARKLE_ERROR_SHADER,
            SPARKLE_ERROR_DEVICE_LOST,
            SPARKLE_ERROR_CONTENTS_LOST,
            SPARKLE_ERROR_FORKED,
            SPARKLE_ERROR_OUT_OF_MEMORY,
        ];
        let message = last_error();
        assert!(!never.contains(&status), "{status:?}: {message}");
        assert!(status == SPARKLE_OK || !message.is_empty(), "{status:?} without a message");
        status
    }

    pub fn statuses(&self) -> Vec<u64> {
        self.statuses.iter().map(|count| count.load(Relaxed)).collect()
    }

    /// Compares a whole output, bit by bit.
    #[track_caller]
    pub fn verify(&self, output: &[f32], expected: &[f32]) {
        assert!(output == expected, "wrong at {:?}", output.iter().zip(expected).position(|(a, b)| a != b));
        self.verified.fetch_add(1, Relaxed);
    }

    pub fn put(&self, kind: Kind, handle: usize, problem: usize) {
        self.handles.lock().unwrap().entry(kind).or_default().push(Held { handle, problem });
    }

    /// Some handle of a kind, if there is one. `take` removes it from the list.
    pub fn some(&self, kind: Kind, number: usize, take: bool) -> Option<Held> {
        let mut handles = self.handles.lock().unwrap();
        let all = handles.entry(kind).or_default();
        let index = number.checked_rem(all.len())?;
        Some(if take { all.swap_remove(index) } else { all[index] })
    }

    /// Removes a handle that has ended.
    pub fn forget(&self, kind: Kind, handle: usize) {
        self.handles.lock().unwrap().entry(kind).or_default().retain(|held| held.handle != handle);
    }

    /// Releases all slots in the list.
    pub fn release_slots(&self) {
        while let Some(Held { handle, .. }) = self.some(Kind::Slot, 0, true) {
            self.note(sparkle_slot_release(pointer(handle)));
        }
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.handles.lock().unwrap().entry(kind).or_default().len()
    }

    pub fn bury(&self, buffers: [Vec<f32>; 2]) {
        self.graveyard.lock().unwrap().push(buffers);
    }

    /// Finalises the library: all handles become invalid, and all jobs have ended.
    pub fn finalize(&self) {
        let _alone = self.memory_of_slots.write().unwrap();
        let mut graveyard = self.graveyard.lock().unwrap();
        assert_eq!(self.note(sparkle_finalize()), SPARKLE_OK);
        self.handles.lock().unwrap().clear();
        graveyard.clear();
    }
}

pub fn last_error() -> String {
    // SAFETY: the text is this thread's until its next call.
    let text = unsafe { std::ffi::CStr::from_ptr(sparkle::ffi::library::sparkle_last_error()) };
    text.to_string_lossy().into_owned()
}

/// A handle as a pointer.
pub fn pointer<T>(handle: usize) -> *mut T {
    null_mut::<T>().with_addr(handle)
}
