!> y = a x + y. The loop at the end calls the same text, compiled by the Fortran compiler.
program run_saxpy
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use kernel_examples
  use saxpy_kernels, only: saxpy
  use sparkle
  use sparkle_kernel
  implicit none
  integer, parameter :: n = 100003
  real(real32), parameter :: a = 2.5_real32
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  real(real32), target :: x(n), y(n)
  real(real32) :: expected(n)
  integer :: i

  x = numbers(n)
  y = x(n:1:-1)
  expected = y
  call open_device(device)
  call compile_kernel(kernel, 'saxpy.f90', 'saxpy')
  call kernel%launch([n], [arg(n), arg(a), arg(x), inout(y)], device=device)

  do i = 0, n - 1
    call saxpy(i, n, a, x, expected)
  end do
  ! A device may round once where this compiler rounds twice.
  call report('saxpy', '100003 elements', maxval(abs(real(y, real64) - expected)), 4.0_real64 * epsilon(a))
end program run_saxpy
