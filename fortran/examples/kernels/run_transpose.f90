!> The transpose of a matrix.
program run_transpose
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use kernel_examples
  use sparkle
  use sparkle_kernel
  implicit none
  integer, parameter :: n = 301, m = 203
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  real(real32), target :: a(n, m), b(m, n)

  a = reshape(numbers(n * m), [n, m])
  b = -7
  call open_device(device)
  call compile_kernel(kernel, 'transpose.f90', 'transpose_tiles')
  call kernel%launch([n, m], [arg(n), arg(m), arg(a), inout(b)], device=device)

  call report('transpose', '301 x 203', maxval(abs(real(b, real64) - transpose(a))), 0.0_real64)
end program run_transpose
