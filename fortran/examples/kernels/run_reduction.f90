!> The sum, the largest value and the number of positive values of an array, in one launch.
program run_reduction
  use, intrinsic :: iso_fortran_env, only: int32, real32, real64
  use kernel_examples
  use sparkle
  use sparkle_kernel
  implicit none
  integer, parameter :: n = 200003
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  real(real32), target :: x(n)
  real(real32), target :: total, largest
  integer(int32), target :: positive
  real(real64) :: error

  x = numbers(n)
  total = 0
  largest = -huge(largest)
  positive = 0
  call open_device(device)
  call compile_kernel(kernel, 'reduction.f90', 'summary')
  call kernel%launch([n], [arg(n), arg(x), inout(total), inout(largest), inout(positive)], device=device)

  if (abs(largest - maxval(x)) > 0) error stop 'the largest value is wrong'
  if (positive /= count(x > 0)) error stop 'the number of positive values is wrong'
  ! The error of a sum in a tree of 18 levels is at most 18 roundings of the sum of the magnitudes.
  error = abs(total - sum(real(x, real64))) / sum(abs(real(x, real64)))
  call report('reduction', '200003 elements', error, 18.0_real64 * epsilon(x))
end program run_reduction
