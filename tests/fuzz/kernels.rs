//! Random calls about kernels: compiled from right and broken sources, described, launched with right and wrong
//! arguments.

use std::ffi::CString;
use std::ptr::{null, null_mut};

use sparkle::ffi::buffer::*;
use sparkle::ffi::kernel::*;
use sparkle::ffi::launch::{sparkle_arg_form::*, *};
use sparkle::ffi::status::sparkle_status::*;
use sparkle::ffi::timing::{sparkle_last_timing, sparkle_timing};

use super::super::world::{CANARY, Kind, pointer};
use super::{Caller, MAX_HANDLES, zeroed};

const SOURCE: &str = "
!@kernel
subroutine scale(i, n, a, x, y)
  use iso_fortran_env, only: int32, real32
  integer(int32), value :: i, n
  real(real32), value :: a
  real(real32), intent(in) :: x(0:n-1)
  real(real32), intent(out) :: y(0:n-1)
  y(i) = a * x(i)
end subroutine
!@kernel(dims=2)
subroutine place(i, j, n, m, y)
  use iso_fortran_env, only: int32, real32
  integer(int32), value :: i, j, n, m
  real(real32), intent(out) :: y(0:n-1, 0:m-1)
  y(i, j) = i + 100 * j
end subroutine
!@kernel
!@reduce(+: total)
subroutine add(i, x, total)
  use iso_fortran_env, only: int32, real32
  integer(int32), value :: i
  real(real32), intent(in) :: x
  real(real32), intent(inout) :: total
  total = total + x
end subroutine
";

/// The kernels by number.
const NAMES: [&str; 3] = ["scale", "place", "add"];

/// Elements of every buffer that threads share.
const SHARED: usize = 64;

impl Caller<'_> {
    /// A buffer that other threads may use, too.
    pub fn create_buffer(&mut self) {
        let (device, mut buffer) = (self.handle(Kind::Device), null_mut());
        let broken = self.one_in(6);
        let (ty, length) = match broken {
            false => (2, SHARED),
            true => self.choices.pick(&[(-1, 1), (5, 1), (2, usize::MAX), (3, isize::MAX as usize)]),
        };
        // SAFETY: a place for the handle.
        let status = unsafe { sparkle_buffer_create(pointer(device.handle), ty, length, &mut buffer) };
        if self.world.note(status) != SPARKLE_OK {
            assert!(buffer.is_null());
        } else if self.world.count(Kind::Buffer) < MAX_HANDLES {
            assert!(!broken);
            self.world.put(Kind::Buffer, buffer.addr(), 0);
        } else {
            self.world.note(sparkle_buffer_destroy(buffer));
        }
    }

    /// Writes all of a shared buffer with one number, and reads it: never numbers of two threads at once.
    pub fn use_buffer(&mut self) {
        let buffer = self.handle(Kind::Buffer);
        let value = self.below(100) as f32;
        let offset = if self.one_in(4) { self.extreme() as usize } else { 0 };
        let (data, mut back) = ([value; SHARED], [CANARY; SHARED]);
        // SAFETY: both arrays have the stated length.
        unsafe {
            let (handle, data) = (pointer(buffer.handle), data.as_ptr().cast());
            self.world.note(sparkle_buffer_write(handle, offset, data, SHARED));
            let status = sparkle_buffer_read(handle, 0, back.as_mut_ptr().cast(), SHARED);
            if self.world.note(status) == SPARKLE_OK {
                assert!(back.iter().all(|it| *it == back[0] && (0.0..100.0).contains(it)), "{back:?}");
            } else {
                assert_eq!(back, [CANARY; SHARED]);
            }
        }
    }

    /// Moves the arrays of a launch to buffers of its device. False if that fails.
    fn move_to_buffers(&mut self, device: usize, args: &mut [sparkle_kernel_arg]) -> bool {
        let mut made = true;
        for arg in args.iter_mut().filter(|arg| arg.form != SPARKLE_ARG_SCALAR as i32) {
            let mut buffer = null_mut();
            // SAFETY: a place for the handle; the array is as long as it says.
            let status = unsafe {
                match sparkle_buffer_create(pointer(device), arg.r#type, arg.length, &mut buffer) {
                    SPARKLE_OK => sparkle_buffer_write(buffer, 0, arg.address, arg.length),
                    refused => refused,
                }
            };
            made &= self.world.note(status) == SPARKLE_OK;
            (arg.form, arg.address, arg.buffer) = (SPARKLE_ARG_BUFFER as i32, null(), buffer);
        }
        made
    }

    fn destroy_buffers(&self, args: &[sparkle_kernel_arg]) {
        for arg in args {
            self.world.note(sparkle_buffer_destroy(arg.buffer));
        }
    }

    pub fn compile(&mut self) {
        let number = self.below(NAMES.len());
        let (mut source, mut name) = (SOURCE.to_owned(), NAMES[number].to_owned());
        let broken = self.one_in(4);
        if broken {
            match self.below(3) {
                0 => source.truncate(self.below(SOURCE.len() - 200)),
                1 => source = source.replace("real(real32)", "real(reel32)"),
                _ => name.push('x'),
            }
        }
        let (name, mut kernel) = (CString::new(name).unwrap(), null_mut());
        // SAFETY: a source of the stated length, a string, and a place for the handle.
        let status = unsafe {
            sparkle_kernel_compile(source.as_ptr().cast(), source.len(), name.as_ptr(), &mut kernel)
        };
        if self.world.note(status) != SPARKLE_OK {
            assert!(kernel.is_null() && broken);
        } else if self.world.count(Kind::Kernel) < MAX_HANDLES {
            self.world.put(Kind::Kernel, kernel.addr(), number);
        } else {
            self.world.note(sparkle_kernel_destroy(kernel));
        }
    }

    /// Describes and launches a kernel.
    pub fn launch(&mut self) {
        let (device, kernel) = (self.handle(Kind::Device), self.handle(Kind::Kernel));
        let mut info = sparkle_kernel_info { size: size_of::<sparkle_kernel_info>(), ..zeroed() };
        // SAFETY: the struct is as large as it says.
        self.world.note(unsafe { sparkle_kernel_describe(pointer(kernel.handle), &mut info) });
        let [n, m] = [(); 2].map(|()| self.below(300) + 1);
        let x = self.choices.integers(n, 3);
        let a = self.below(5) as f32;
        let (mut y, expected): (Vec<f32>, Vec<f32>) = match kernel.problem {
            0 => (vec![CANARY; n], x.iter().map(|x| a * x).collect()),
            1 => (vec![CANARY; n * m], (0..n * m).map(|at| (at % n + 100 * (at / n)) as f32).collect()),
            _ => (vec![CANARY], vec![CANARY + x.iter().sum::<f32>()]),
        };
        let blank = sparkle_kernel_arg { size: size_of::<sparkle_kernel_arg>(), ..zeroed() };
        let integer =
            |value: usize| sparkle_kernel_arg { value: sparkle_arg_value { int32: value as i32 }, ..blank };
        let real = sparkle_kernel_arg { r#type: 2, value: sparkle_arg_value { real32: a }, ..blank };
        let array = |form: sparkle_arg_form, address: *const f32, length| sparkle_kernel_arg {
            r#type: 2,
            form: form as i32,
            address: address.cast(),
            length,
            ..blank
        };
        let output = array(SPARKLE_ARG_ARRAY, y.as_mut_ptr().cast_const(), y.len());
        let input = array(SPARKLE_ARG_INPUT, x.as_ptr(), x.len());
        let (mut args, mut extents) = match kernel.problem {
            0 => (vec![integer(n), real, input, output], [n as i64, 1, 1]),
            1 => (vec![integer(n), integer(m), output], [n as i64, m as i64, 1]),
            _ => (vec![input, output], [n as i64, 0, 1]),
        };
        let resident = self.one_in(3);
        if resident && !self.move_to_buffers(device.handle, &mut args) {
            self.destroy_buffers(&args);
            return;
        }
        let broken = self.one_in(4);
        let all = args.clone();
        if broken {
            let at = self.below(args.len());
            match self.below(9) {
                0 => args[at].r#type = 3,
                1 => args[at].form = 7,
                2 => args[at].size = self.choices.pick(&[0, 55, 4097]),
                3 => extents[0] = self.extreme().min(-1),
                4 => extents[2] = self.extreme().max(2),
                5 => args.truncate(at),
                6 => args.last_mut().unwrap().form = SPARKLE_ARG_INPUT as i32,
                7 if resident => args.last_mut().unwrap().buffer = pointer(self.handle(Kind::Plan).handle),
                7 => args.last_mut().unwrap().address = null(),
                _ => args.last_mut().unwrap().length -= 1,
            }
        }
        // SAFETY: three extents, as many arguments as the length says, and arrays that are no shorter than they say.
        let status = unsafe {
            let (device, kernel) = (pointer(device.handle), pointer(kernel.handle));
            sparkle_kernel_launch(device, kernel, extents.as_ptr(), args.as_ptr(), args.len())
        };
        assert!(!broken || status != SPARKLE_OK, "kernel {}: not refused", kernel.problem);
        if resident {
            let output = all.last().unwrap();
            // SAFETY: the output has the length of the buffer.
            let read = unsafe { sparkle_buffer_read(output.buffer, 0, y.as_mut_ptr().cast(), y.len()) };
            self.destroy_buffers(&all);
            // Another thread may have finalised the library.
            if self.world.note(read) != SPARKLE_OK {
                return;
            }
        }
        self.settle(status, &y, &expected);
        if status == SPARKLE_OK {
            let mut timing = sparkle_timing { size: size_of::<sparkle_timing>(), ..zeroed() };
            // SAFETY: the struct is as large as it says.
            self.world.note(unsafe { sparkle_last_timing(&mut timing) });
        }
    }
}
