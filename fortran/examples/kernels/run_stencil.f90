!> Steps of the heat equation on a grid. Two arrays change places after each step.
program run_stencil
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use kernel_examples
  use sparkle
  use sparkle_kernel
  use stencil_kernels, only: heat_step
  implicit none
  integer, parameter :: n = 301, m = 203, steps = 10
  real(real32), parameter :: rate = 0.2_real32
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  real(real32), target :: u(n, m), v(n, m)
  real(real32) :: expected(n, m), next(n, m)
  integer :: step, i, j

  u = reshape(numbers(n * m), [n, m])
  v = u
  expected = u
  next = u
  call open_device(device)
  call compile_kernel(kernel, 'stencil.f90', 'heat_step')
  do step = 1, steps, 2
    call kernel%launch([n, m], [arg(n), arg(m), arg(rate), arg(u), inout(v)], device=device)
    call kernel%launch([n, m], [arg(n), arg(m), arg(rate), arg(v), inout(u)], device=device)
  end do

  do step = 1, steps
    do j = 1, m
      do i = 1, n
        call heat_step(i, j, n, m, rate, expected, next)
      end do
    end do
    expected = next
  end do
  ! A step is a weighted mean of values up to 1, so errors of steps add up and do not grow.
  call report('stencil', '10 steps of 301 x 203 points', maxval(abs(real(u, real64) - expected)), &
    8.0_real64 * steps * epsilon(rate))
end program run_stencil
