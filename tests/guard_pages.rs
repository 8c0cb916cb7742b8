//! Memory that the CPU engine must not touch: inaccessible pages directly before or after every buffer, read-only inputs, and
//! canaries in the rest of the pages of an output. A stray access ends this program with a signal.

#![cfg(unix)]

mod cpu_cases;

use std::ops::{Deref, DerefMut};

use cpu_cases::{ConvCase, GemmCase, Values, conv_desc, gemm_desc, on_every_isa, same, same_bits, threads};
use sparkle::problem::exact::Random;
use sparkle::{Algorithm, Conv2dDesc, Device, Error};

/// The position of a buffer in its pages.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Flush {
    /// Directly after the inaccessible page before it.
    Start,
    /// Directly before the inaccessible page after it.
    End,
}

/// A buffer between two inaccessible pages.
struct Guarded {
    mapping: *mut u8,
    /// Bytes of the accessible pages between the two guards.
    bytes: usize,
    page: usize,
    /// Offset of the buffer from the start of the accessible pages.
    offset: usize,
    len: usize,
}

const CANARY: u8 = 0xa5;

impl Guarded {
    fn new(values: &[f32], flush: Flush) -> Self {
        // SAFETY: it only queries a system constant.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let wanted = size_of_val(values);
        let bytes = wanted.next_multiple_of(page).max(page);
        // SAFETY: this is a new anonymous mapping. The pages between the guards are made accessible, then filled with canaries
        // and values. The values fit: offset + wanted <= bytes.
        unsafe {
            let (anonymous, none) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_NONE);
            let mapping = libc::mmap(std::ptr::null_mut(), bytes + 2 * page, none, anonymous, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            let mapping = mapping.cast::<u8>();
            assert_eq!(
                libc::mprotect(mapping.add(page).cast(), bytes, libc::PROT_READ | libc::PROT_WRITE),
                0
            );
            mapping.add(page).write_bytes(CANARY, bytes);
            let offset = if flush == Flush::Start { 0 } else { bytes - wanted };
            let guarded = Guarded { mapping, bytes, page, offset, len: values.len() };
            guarded.start().copy_from_nonoverlapping(values.as_ptr(), values.len());
            guarded
        }
    }

    /// A read-only buffer.
    fn read_only(values: &[f32], flush: Flush) -> Self {
        let guarded = Self::new(values, flush);
        // SAFETY: the accessible pages of this mapping.
        let done = unsafe {
            libc::mprotect(guarded.mapping.add(guarded.page).cast(), guarded.bytes, libc::PROT_READ)
        };
        assert_eq!(done, 0);
        guarded
    }

    fn start(&self) -> *mut f32 {
        // SAFETY: the address is inside the mapping.
        unsafe { self.mapping.add(self.page + self.offset).cast() }
    }

    /// Whether the rest of the accessible pages is unchanged.
    fn canaries_live(&self) -> bool {
        // SAFETY: the accessible pages of this mapping, all initialised.
        let pages = unsafe { std::slice::from_raw_parts(self.mapping.add(self.page), self.bytes) };
        let behind = self.offset + self.len * size_of::<f32>();
        pages[..self.offset].iter().chain(&pages[behind..]).all(|&byte| byte == CANARY)
    }
}

impl Deref for Guarded {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: there are len initialised elements, aligned because pages and sizes are multiples of four.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in deref, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in new().
        unsafe { libc::munmap(self.mapping.cast(), self.bytes + 2 * self.page) };
    }
}

/// Two thousand shapes with each instruction set.
#[test]
fn all_of_this_with_every_instruction_set() {
    on_every_isa("all_of_this_with_every_instruction_set", 4);
}

#[test]
fn convolutions_touch_only_their_buffers() {
    let mut random = Random::new(31);
    let mut cases = 0;
    for count in [1, 2] {
        let _guard = threads(count);
        for number in 0..400 {
            // Some with few pixels and deep sums, where weights are read unpacked.
            let few = Conv2dDesc { c: 300 + number, h: 3, w: 5, k: 31, r: 1, s: 1, ..Default::default() };
            let desc = if number % 25 == 0 { few } else { conv_desc(&mut random) };
            let case = ConvCase::new(desc, Values::Exact, &mut random);
            for flush in [Flush::Start, Flush::End] {
                let input = Guarded::read_only(&case.input, flush);
                let weights = Guarded::read_only(&case.weights, flush);
                let bias = case.bias().map(|bias| Guarded::read_only(bias, flush));
                let mut output = Guarded::new(&vec![f32::NAN; case.problem.output_len()], flush);
                let device = Device::open("cpu").unwrap();
                device.conv2d(&case.problem, &input, &weights, bias.as_deref(), &mut output).unwrap();
                assert!(output.canaries_live(), "{:?}", case.desc);
                let right =
                    output.iter().zip(case.expected()).all(|(&got, expected)| same(got, expected.value));
                assert!(right, "{:?}", case.desc);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 1_600);
}

#[test]
fn winograd_touches_only_its_buffers() {
    let mut random = Random::new(33);
    let mut cases = 0;
    for count in [1, 2, 3] {
        let _guard = threads(count);
        for _ in 0..140 {
            let (pad_h, pad_w) = (random.between(0, 2), random.between(0, 2));
            let desc = Conv2dDesc {
                n: random.between(1, 2),
                // From 16 and from 64 channels on, other forms are candidates.
                c: random.pick(&[1, 5, 16, 17, 31, 64, 70]),
                h: random.between(3, 30),
                w: random.between(3, 40),
                k: random.between(1, 50),
                r: 3,
                s: 3,
                pad_h,
                pad_w,
                bias: random.between(0, 1) == 1,
                relu: random.between(0, 1) == 1,
                algorithm: Algorithm::Winograd,
                ..Default::default()
            };
            let case = ConvCase::new(desc, Values::Real, &mut random);
            let mut plain = vec![f32::NAN; case.problem.output_len()];
            let device = Device::open("cpu").unwrap();
            let run = device.conv2d(&case.problem, &case.input, &case.weights, case.bias(), &mut plain);
            match run {
                Ok(run) => assert!(run.kernel.starts_with("conv_winograd_"), "{}", run.kernel),
                // Only on CPUs without Winograd kernels.
                Err(error) => {
                    return assert!(matches!(error, Error::Unsupported { .. }), "{error}");
                }
            }
            for flush in [Flush::Start, Flush::End] {
                let input = Guarded::read_only(&case.input, flush);
                let weights = Guarded::read_only(&case.weights, flush);
                let bias = case.bias().map(|bias| Guarded::read_only(bias, flush));
                let mut output = Guarded::new(&vec![f32::NAN; case.problem.output_len()], flush);
                device.conv2d(&case.problem, &input, &weights, bias.as_deref(), &mut output).unwrap();
                assert!(output.canaries_live(), "{:?}", case.desc);
                assert!(same_bits(&output, &plain), "{:?}", case.desc);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 840);
}

#[test]
fn products_touch_only_their_matrices() {
    let mut random = Random::new(32);
    let mut cases = 0;
    for count in [1, 2] {
        let _guard = threads(count);
        for _ in 0..400 {
            let case = GemmCase::new(gemm_desc(&mut random), Values::Exact, &mut random);
            // The smallest valid lengths: an inaccessible page directly follows the last element.
            let [a_len, b_len, c_len] = case.problem.lens();
            for flush in [Flush::Start, Flush::End] {
                let (a, b) = (&case.a[..a_len], &case.b[..b_len]);
                let (a, b) = (Guarded::read_only(a, flush), Guarded::read_only(b, flush));
                let mut c = Guarded::new(&case.c[..c_len], flush);
                Device::open("cpu").unwrap().sgemm(&case.problem, &a, &b, &mut c).unwrap();
                assert!(c.canaries_live(), "{:?}", case.desc);
                let right = case.expected().iter().all(|&(index, expected)| same(c[index], expected.value));
                assert!(right, "{:?}", case.desc);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 1_600);
}

/// Tests the guards: a read after and a read before a buffer each end a child process with a signal.
#[test]
fn guards_guard() {
    for (flush, at) in [(Flush::End, 3), (Flush::Start, -1)] {
        let buffer = Guarded::new(&[1.0, 2.0, 3.0], flush);
        // SAFETY: the child only does the one forbidden read, and ends.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                std::hint::black_box(buffer.start().offset(at).read_volatile());
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            assert!(libc::WIFSIGNALED(status), "{flush:?}: the forbidden read succeeded");
        }
    }
}
