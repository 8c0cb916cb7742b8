!> im2col of an image with three channels, for 5 x 5 filters with stride 2 and padding 2.
program run_im2col
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use im2col_kernels, only: im2col
  use kernel_examples
  use sparkle
  use sparkle_kernel
  implicit none
  integer, parameter :: width = 75, height = 51, channels = 3, side = 5, stride = 2, pad = 2
  integer, parameter :: across = (width + 2 * pad - side) / stride + 1, down = (height + 2 * pad - side) / stride + 1
  integer, parameter :: taps = channels * side * side
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  real(real32), target :: image(width, height, channels), matrix(across, down, taps)
  real(real32) :: expected(across, down, taps)
  integer :: p, q, tap

  image = reshape(numbers(width * height * channels), [width, height, channels])
  matrix = -7
  expected = -7
  call open_device(device)
  call compile_kernel(kernel, 'im2col.f90', 'im2col')
  call kernel%launch([across, down, taps], [arg(width), arg(height), arg(channels), arg(side), arg(stride), arg(pad), &
    arg(image), inout(matrix)], device=device)

  do tap = 0, taps - 1
    do q = 0, down - 1
      do p = 0, across - 1
        call im2col(p, q, tap, width, height, channels, side, stride, pad, image, expected)
      end do
    end do
  end do
  call report('im2col', '38 x 26 pixels, 75 taps', maxval(abs(real(matrix, real64) - expected)), 0.0_real64)
end program run_im2col
