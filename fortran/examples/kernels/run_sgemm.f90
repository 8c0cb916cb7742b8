!> A matrix product in tiles of 16 x 16.
program run_sgemm
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use kernel_examples
  use sparkle
  use sparkle_kernel
  implicit none
  integer, parameter :: m = 131, n = 77, k = 93
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  real(real32), target :: a(m, k), b(k, n), c(m, n)
  real(real64) :: exact(m, n), magnitude(m, n)

  a = reshape(numbers(m * k), [m, k])
  b = reshape(numbers(k * n), [k, n])
  c = -7
  call open_device(device)
  call compile_kernel(kernel, 'sgemm.f90', 'sgemm')
  call kernel%launch([m, n], [arg(m), arg(n), arg(k), arg(a), arg(b), inout(c)], device=device)

  exact = matmul(real(a, real64), real(b, real64))
  magnitude = matmul(abs(real(a, real64)), abs(real(b, real64)))
  ! The error of a sum of k products is at most k roundings of the sum of their magnitudes.
  call report('sgemm', '131 x 77, 93 products each', maxval(abs(c - exact) / magnitude), real(k, real64) * epsilon(a))
end program run_sgemm
