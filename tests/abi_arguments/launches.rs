//! Launches of kernels: extents, arguments of every wrong kind, handles. Nothing runs, and arrays are untouched.

use std::ffi::CStr;
use std::ptr::{null, null_mut, without_provenance};

use sparkle::ffi::device::*;
use sparkle::ffi::kernel::*;
use sparkle::ffi::launch::{sparkle_arg_form::*, *};
use sparkle::ffi::status::sparkle_status::{self, *};

use super::cases::{CANARY, Cases, extremes, last_error, open_cpu};

/// Arguments of every type; `flags` is logical, `total` a reduction, `two` has two dimensions.
const SOURCE: &CStr = c"
!@kernel
!@reduce(+: total)
subroutine all(i, n, a, b, c, yes, x, k, flags, total)
  use iso_fortran_env
  integer(int32), value :: i, n
  real(real32), value :: a
  real(real64), value :: b
  integer(int64), value :: c
  logical, value :: yes
  real(real32), intent(in) :: x(0:n-1)
  integer(int32), intent(in) :: k(0:n-1)
  logical, intent(inout) :: flags(0:n-1)
  real(real32), intent(inout) :: total
  flags(i) = yes .and. k(i) > 0
  total = total + a * x(i) + real(b) + c
end subroutine
!@kernel(dims=2)
subroutine two(i, j, y)
  use iso_fortran_env
  integer(int32), value :: i, j
  real(real32), intent(out) :: y
  y = i + 10 * j
end subroutine
";

fn kernel(name: &CStr) -> *mut sparkle_kernel {
    let mut kernel = null_mut();
    // SAFETY: the source, the name and the place for the handle are valid.
    let status =
        unsafe { sparkle_kernel_compile(SOURCE.as_ptr(), SOURCE.count_bytes(), name.as_ptr(), &mut kernel) };
    assert_eq!(status, SPARKLE_OK, "{}", last_error());
    kernel
}

const N: usize = 5;

/// The arrays of `all`.
struct Memory {
    x: [f32; N],
    k: [i32; N],
    flags: [i32; N],
    total: f32,
}

impl Memory {
    fn new() -> Self {
        Memory { x: [CANARY; N], k: [-7; N], flags: [-3; N], total: CANARY }
    }

    fn args(&mut self) -> [sparkle_kernel_arg; 9] {
        let scalar = |ty, value| arg(ty, SPARKLE_ARG_SCALAR, null(), 0, value);
        let array =
            |ty, form, address, length| arg(ty, form, address, length, sparkle_arg_value { int64: 0 });
        [
            scalar(0, sparkle_arg_value { int32: N as i32 }),
            scalar(2, sparkle_arg_value { real32: 2.0 }),
            scalar(3, sparkle_arg_value { real64: 3.0 }),
            scalar(1, sparkle_arg_value { int64: 4 }),
            scalar(4, sparkle_arg_value { int32: 7 }),
            array(2, SPARKLE_ARG_INPUT, self.x.as_ptr().cast(), N),
            array(0, SPARKLE_ARG_INPUT, self.k.as_ptr().cast(), N),
            array(4, SPARKLE_ARG_ARRAY, self.flags.as_mut_ptr().cast_const().cast(), N),
            array(2, SPARKLE_ARG_ARRAY, (&raw mut self.total).cast_const().cast(), 1),
        ]
    }

    #[track_caller]
    fn untouched(&self) {
        assert_eq!((self.x, self.k, self.flags, self.total), ([CANARY; N], [-7; N], [-3; N], CANARY));
    }
}

fn arg(
    ty: i32,
    form: sparkle_arg_form,
    address: *const std::ffi::c_void,
    length: usize,
    value: sparkle_arg_value,
) -> sparkle_kernel_arg {
    let size = size_of::<sparkle_kernel_arg>();
    sparkle_kernel_arg {
        size,
        r#type: ty,
        form: form as i32,
        address,
        length,
        value,
        buffer: null_mut(),
        offset: 0,
    }
}

/// A launch whose arrays are as long as their arguments say, or are refused before anything is read.
fn launch(
    device: *mut sparkle_device,
    kernel: *mut sparkle_kernel,
    extents: [i64; 3],
    args: &[sparkle_kernel_arg],
) -> sparkle_status {
    // SAFETY: three extents, and as many arguments as the length says; their arrays are as above.
    unsafe { sparkle_kernel_launch(device, kernel, extents.as_ptr(), args.as_ptr(), args.len()) }
}

#[test]
fn extents_and_numbers_of_arguments() {
    let (device, all, two) = (open_cpu(), kernel(c"all"), kernel(c"two"));
    let (mut memory, mut cases) = (Memory::new(), Cases::default());
    let args = memory.args();
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    let n = N as i64;
    for wrong in extremes().filter(|it| !(0..=i64::from(i32::MAX)).contains(it)) {
        cases.refused(invalid, "extents[0] is", || launch(device, all, [wrong, 1, 1], &args));
        cases.refused(invalid, "extents[1] is", || launch(device, two, [n, wrong, 1], &args[8..]));
        cases.refused(invalid, "extents[2] is", || launch(device, two, [n, 2, wrong], &args[8..]));
    }
    for wrong in extremes().filter(|it| !(0..=1).contains(it)) {
        cases.refused(invalid, "kernel \"all\" has no such dimension", || {
            launch(device, all, [n, wrong, 1], &args)
        });
    }
    for count in [0, 1, 8] {
        cases.refused(invalid, &format!("arguments is {count}; expected 9 for kernel \"all\""), || {
            launch(device, all, [n, 1, 1], &args[..count])
        });
    }
    // SAFETY: every pointer is valid, or the call refuses it because it is NULL or misaligned, or the number is refused.
    unsafe {
        let (place, extents) = (args.as_ptr(), [n, 1, 1]);
        let with = |extents: *const i64, args, len| sparkle_kernel_launch(device, all, extents, args, len);
        cases.refused(null_pointer, "extents is NULL", || with(null(), place, 9));
        cases.refused(invalid, "extents is at", || with(extents.as_ptr().wrapping_byte_add(4), place, 9));
        cases.refused(null_pointer, "args is NULL", || with(extents.as_ptr(), null(), 9));
        cases.refused(invalid, "args is at", || with(extents.as_ptr(), place.wrapping_byte_add(1), 9));
        for len in [10, 1 << 32, usize::MAX] {
            cases.refused(invalid, "number of kernel arguments", || with(extents.as_ptr(), place, len));
        }
    }
    memory.untouched();
    assert_eq!((sparkle_kernel_destroy(all), sparkle_kernel_destroy(two)), (SPARKLE_OK, SPARKLE_OK));
    assert_eq!(sparkle_device_close(device), SPARKLE_OK);
    cases.at_least(60);
}

#[test]
fn arguments_that_do_not_fit() {
    const NAMES: [&str; 9] = ["n", "a", "b", "c", "yes", "x", "k", "flags", "total"];
    let (device, all) = (open_cpu(), kernel(c"all"));
    let (mut memory, mut cases) = (Memory::new(), Cases::default());
    let right = memory.args();
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    let mut with = |status, index: usize, part: &str, change: &dyn Fn(&mut sparkle_kernel_arg)| {
        let mut args = right;
        change(&mut args[index]);
        let part = format!("\"{}\"{part}", NAMES[index]);
        cases.refused(status, &part, || launch(device, all, [N as i64, 1, 1], &args));
    };
    for (index, name) in NAMES.iter().enumerate() {
        for ty in [-1, 5, i32::MIN, i32::MAX] {
            with(invalid, index, " with type = ", &|it| it.r#type = ty);
        }
        for form in [-1, 99, i32::MIN, i32::MAX] {
            with(invalid, index, " with form = ", &|it| it.form = form);
        }
        for ty in (0..5).filter(|it| *it != right[index].r#type) {
            // Integers serve for logical values.
            if *name != "flags" || ty != 0 {
                // The types of eight bytes would need twice the memory.
                with(invalid, index, " with ", &|it| {
                    it.r#type = ty;
                    it.length = it.length.min(2);
                });
            }
        }
    }
    for index in 0..5 {
        with(invalid, index, " with length = 1", &|it| it.length = 1);
        with(invalid, index, " with an array of ", &|it| it.form = SPARKLE_ARG_INPUT as i32);
    }
    for index in 5..9 {
        with(invalid, index, " with a scalar of ", &|it| {
            (it.form, it.length) = (SPARKLE_ARG_SCALAR as i32, 0);
        });
        with(invalid, index, " with 0 elements", &|it| it.length = 0);
        with(invalid, index, " with 0 elements", &|it| (it.length, it.address) = (0, null()));
        with(null_pointer, index, " is NULL", &|it| it.address = null());
        with(invalid, index, " with the address", &|it| it.address = it.address.wrapping_byte_add(2));
        for length in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4 + 1, 1 << 40] {
            with(invalid, index, " with ", &|it| it.length = length);
        }
        with(invalid, index, " with 2 elements from address", &|it| {
            (it.address, it.length) = (without_provenance(usize::MAX - 3), 2);
        });
    }
    for index in 5..8 {
        with(invalid, index, " with 4 elements; expected at least 5", &|it| it.length = 4);
    }
    for index in 7..9 {
        with(invalid, index, " with read-only elements", &|it| it.form = SPARKLE_ARG_INPUT as i32);
    }
    // A written array in the memory of another one.
    with(invalid, 7, " with memory of \"k\"", &|it| it.address = right[6].address);
    with(invalid, 8, " with memory of \"x\"", &|it| it.address = right[5].address.wrapping_byte_add(16));
    memory.untouched();

    // Structs of other versions.
    let mut args = right;
    for size in [0, 8, 55, 57, 4097, usize::MAX] {
        args[0].size = size;
        cases.refused(invalid, "sparkle_kernel_arg is", || launch(device, all, [N as i64, 1, 1], &args));
    }
    args[0].size = right[0].size;
    for size in [0, 48, 64, usize::MAX] {
        args[3].size = size;
        cases.refused(invalid, "at index 3", || launch(device, all, [N as i64, 1, 1], &args));
    }
    memory.untouched();
    assert_eq!((sparkle_kernel_destroy(all), sparkle_device_close(device)), (SPARKLE_OK, SPARKLE_OK));
    cases.at_least(150);
}

/// Structs of a later version, whose new fields are zero or not.
#[test]
fn larger_structs() {
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Later {
        known: sparkle_kernel_arg,
        more: u64,
    }
    let (device, two) = (open_cpu(), kernel(c"two"));
    let mut y = [CANARY; 6];
    let mut it =
        arg(2, SPARKLE_ARG_ARRAY, y.as_mut_ptr().cast_const().cast(), 6, sparkle_arg_value { int64: 0 });
    it.size = size_of::<Later>();
    let mut later = Later { known: it, more: 1 << 63 };
    let mut cases = Cases::default();
    // SAFETY: one argument of the size that it says, and three extents.
    let launch = |later: &Later| unsafe {
        sparkle_kernel_launch(device, two, [3, 2, 1].as_ptr(), (&raw const *later).cast(), 1)
    };
    cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "a struct of a later version", || launch(&later));
    assert_eq!(y, [CANARY; 6]);
    later.more = 0;
    match launch(&later) {
        SPARKLE_OK => assert_eq!(y, [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]),
        status => {
            assert_eq!(status, SPARKLE_ERROR_UNSUPPORTED, "{}", last_error());
            assert_eq!(y, [CANARY; 6]);
        }
    }
    assert_eq!((sparkle_kernel_destroy(two), sparkle_device_close(device)), (SPARKLE_OK, SPARKLE_OK));
    cases.at_least(1);
}

#[test]
fn handles_that_are_none() {
    let (device, all, mut memory) = (open_cpu(), kernel(c"all"), Memory::new());
    let (args, mut cases, extents) = (memory.args(), Cases::default(), [N as i64, 1, 1]);
    let bad = SPARKLE_ERROR_INVALID_HANDLE;
    let (closed, gone) = (open_cpu(), kernel(c"all"));
    assert_eq!((sparkle_device_close(closed), sparkle_kernel_destroy(gone)), (SPARKLE_OK, SPARKLE_OK));
    for handle in [closed, gone.cast(), all.cast(), std::ptr::without_provenance_mut(usize::MAX)] {
        cases.refused(bad, "device is 0x", || launch(handle, all, extents, &args));
    }
    for handle in [gone, closed.cast(), device.cast(), null_mut(), std::ptr::without_provenance_mut(7)] {
        cases.refused(bad, "kernel is ", || launch(device, handle, extents, &args));
    }
    memory.untouched();
    assert_eq!((sparkle_kernel_destroy(all), sparkle_device_close(device)), (SPARKLE_OK, SPARKLE_OK));
    cases.at_least(9);
}
