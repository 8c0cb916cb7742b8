!> The softmax of each row of a matrix.
program run_softmax
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use kernel_examples
  use softmax_kernels, only: softmax
  use sparkle
  use sparkle_kernel
  implicit none
  integer, parameter :: rows = 203, columns = 301
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  real(real32), target :: x(rows, columns), y(rows, columns)
  real(real32) :: expected(rows, columns)
  integer :: row

  ! exp(x) would overflow for values above 89.
  x = 100 * reshape(numbers(rows * columns), [rows, columns])
  y = -7
  expected = -7
  call open_device(device)
  call compile_kernel(kernel, 'softmax.f90', 'softmax')
  call kernel%launch([rows], [arg(rows), arg(columns), arg(x), inout(y)], device=device)

  do row = 1, rows
    call softmax(row, rows, columns, x, expected)
  end do
  ! A GPU's exp may be wrong in its last few bits.
  call report('softmax', '203 rows of 301', maxval(abs(real(y, real64) - expected)), 64.0_real64 * epsilon(x))
end program run_softmax
