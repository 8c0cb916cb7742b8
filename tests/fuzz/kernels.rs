//! Random calls about kernels: compiled from right and broken sources, described, launched with right and wrong
//! arguments.

use std::ffi::CString;
use std::ptr::{null, null_mut};

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

impl Caller<'_> {
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
        let broken = self.one_in(4);
        if broken {
            let at = self.below(args.len());
            match self.below(9) {
                0 => args[at].r#type = 3,
                1 => args[at].form = 7,
                2 => args[at].size = self.choices.pick(&[0, 39, 4097]),
                3 => extents[0] = self.extreme().min(-1),
                4 => extents[2] = self.extreme().max(2),
                5 => args.truncate(at),
                6 => args.last_mut().unwrap().form = SPARKLE_ARG_INPUT as i32,
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
        self.settle(status, &y, &expected);
        if status == SPARKLE_OK {
            let mut timing = sparkle_timing { size: size_of::<sparkle_timing>(), ..zeroed() };
            // SAFETY: the struct is as large as it says.
            self.world.note(unsafe { sparkle_last_timing(&mut timing) });
        }
    }
}
