!> One activation function in two kernels: alone on an array, and in the last step of a matrix product. An `!@epilogue`
!> uses it, too; it compiles.
program run_epilogue
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use epilogue_kernels, only: activate, residual
  use kernel_examples
  use sparkle
  use sparkle_kernel
  implicit none
  integer, parameter :: m = 131, n = 77, k = 93
  real(real32), parameter :: slope = 0.1_real32
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  real(real32), target :: w(m, k), x(k, n), bias(m), y(k * n), z(m, n)
  real(real32) :: expected(k * n), skip(k * n)
  real(real64) :: exact(m, n), magnitude(m, n)
  real(real64), parameter :: bound = 4.0_real64 * epsilon(slope)
  real(real64) :: error
  integer :: i, j, at

  w = reshape(numbers(m * k), [m, k])
  x = reshape(numbers(k * n), [k, n])
  bias = numbers(m)
  call open_device(device)

  ! The rows of x are channels.
  y = -7
  call compile_kernel(kernel, 'epilogue.f90', 'activate')
  call kernel%launch([k * n], [arg(k), arg(slope), arg(bias(:k)), arg(x), inout(y)], device=device)
  skip = 0
  do j = 1, n
    do i = 1, k
      at = i + k * (j - 1)
      call activate(at - 1, k, slope, bias, x(i, j), expected(at))
      error = abs(residual(x(i, j), i, at, bias, skip, slope) - expected(at))
      if (.not. error <= bound) error stop 'the epilogue is wrong'
    end do
  end do
  error = maxval(abs(real(y, real64) - expected))
  if (.not. error <= bound) error stop 'the activation is wrong'

  ! The activation of a matrix product.
  z = -7
  call compile_kernel(kernel, 'epilogue.f90', 'dense')
  call kernel%launch([m, n], [arg(m), arg(n), arg(k), arg(slope), arg(w), arg(x), arg(bias), inout(z)], device=device)
  exact = matmul(real(w, real64), real(x, real64)) + spread(real(bias, real64), 2, n)
  exact = merge(exact, slope * exact, exact > 0)
  magnitude = matmul(abs(real(w, real64)), abs(real(x, real64))) + spread(abs(real(bias, real64)), 2, n)
  ! k products, the bias and the slope.
  call report('epilogue', '131 x 77, 93 products each', maxval(abs(z - exact) / magnitude), &
    (k + 2) * real(epsilon(slope), real64))
end program run_epilogue
