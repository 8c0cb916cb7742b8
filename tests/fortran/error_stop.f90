!> Without `stat` a failure ends the program with its message; `errmsg` alone does not prevent that.
program error_stop
  use, intrinsic :: iso_fortran_env, only: real32
  use sparkle
  implicit none
  real(real32) :: x(4, 4, 1, 1), w(3, 3, 1, 1), y(1, 1, 1, 1)
  type(sparkle_device) :: device
  type(sparkle_plan) :: plan
  character(len=20) :: which, errmsg

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
  end select
  print '(a)', 'reached the end'
end program error_stop
