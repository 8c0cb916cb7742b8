!> y = a x + y with a kernel of one's own, compiled at run time. Any Fortran compiler compiles the same text.
program saxpy_demo
  use, intrinsic :: iso_fortran_env, only: int32, real32
  use sparkle
  use sparkle_kernel
  implicit none
  integer(int32), parameter :: N = 1000
  character(len=*), parameter :: SOURCE(*) = [character(len=60) :: &
    '!@kernel', &
    'pure subroutine saxpy(i, n, a, x, y)', &
    '  use iso_fortran_env, only: int32, real32', &
    '  integer(int32), value :: i, n', &
    '  real(real32), value :: a', &
    '  real(real32), intent(in) :: x(0:n-1)', &
    '  real(real32), intent(inout) :: y(0:n-1)', &
    '  y(i) = a * x(i) + y(i)', &
    'end subroutine saxpy']
  type(sparkle_compiled_kernel) :: saxpy
  type(sparkle_timing) :: timing
  real(real32), target :: x(N), y(N)
  integer :: i

  x = [(real(i, real32), i = 1, N)]
  y = 1.0_real32
  call saxpy%compile(SOURCE)
  ! The index argument i is not passed: each of the N points has its own.
  call saxpy%launch([N], [arg(N), arg(2.0_real32), arg(x), inout(y)])

  if (any(abs(y - (2.0_real32 * x + 1.0_real32)) > 0.0_real32)) error stop 'y is wrong'
  call sparkle_last_timing(timing)
  print '(a,i0,3a)', 'saxpy: ', N, ' elements on ', trim(timing%device), ', verified'
end program saxpy_demo
