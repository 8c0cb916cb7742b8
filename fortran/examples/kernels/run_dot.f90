!> The inner product of two arrays.
program run_dot
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use kernel_examples
  use sparkle
  use sparkle_kernel
  implicit none
  integer, parameter :: n = 200003
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  real(real32), target :: x(n), y(n)
  real(real32), target :: total
  real(real64) :: exact, magnitude

  x = numbers(n)
  y = x(n:1:-1)
  total = 0
  call open_device(device)
  call compile_kernel(kernel, 'dot.f90', 'dot')
  call kernel%launch([n], [arg(n), arg(x), arg(y), inout(total)], device=device)

  exact = sum(real(x, real64) * y)
  magnitude = sum(abs(real(x, real64) * y))
  ! One rounding for the product, and at most 18 in the tree.
  call report('dot', '200003 elements', abs(total - exact) / magnitude, 19.0_real64 * epsilon(x))
end program run_dot
