!> Without `stat`, a failure ends the program with its message, even with `errmsg`. The argument selects the call that fails.
!> Without an argument, every call fails with `stat`, reports the error, and the program continues.
program error_stop
  use, intrinsic :: iso_fortran_env, only: real32
  use checks, only: check, finish
  use sparkle
  implicit none
  real(real32) :: x(4, 4, 1, 1), w(3, 3, 1, 1), y(1, 1, 1, 1)
  type(sparkle_device) :: device
  type(sparkle_plan) :: plan
  character(len=20) :: which, errmsg
  integer :: stat

  x = 1.0_real32
  w = 1.0_real32
  y = 0.0_real32
  call get_command_argument(1, which)
  select case (which)
  case ('conv2d')
    call conv2d(x, w, y)
  case ('sgemm')
    call sgemm(x(:, :, 1, 1), w(:, :, 1, 1), y(:, :, 1, 1), errmsg=errmsg)
  case ('open')
    call device%open('nowhere')
  case ('execute')
    call plan%execute(x, y)
  case default
    call conv2d(x, w, y, stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'conv2d')
    call sgemm(x(:, :, 1, 1), w(:, :, 1, 1), y(:, :, 1, 1), stat=stat, errmsg=errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. errmsg /= '', 'sgemm')
    call device%open('nowhere', stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'open')
    call plan%execute(x, y, stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'execute')
    call finish()
  end select
  if (which /= '') print '(a)', 'reached the end'
end program error_stop
