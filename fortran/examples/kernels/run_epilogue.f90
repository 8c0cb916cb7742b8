!> One activation function in four places: alone on an array, in the last step of a matrix product that is a kernel, and as an
!> epilogue of the library's own products and convolutions.
program run_epilogue
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use epilogue_kernels, only: activate, residual
  use kernel_examples
  use sparkle
  use sparkle_epilogue
  use sparkle_kernel
  implicit none
  integer, parameter :: m = 131, n = 77, k = 93
  ! A convolution of 3 x 3 pixels on images of 20 x 14, without padding.
  integer, parameter :: width = 20, height = 14, p = height - 2, q = width - 2, channels = 5, filters = 8, images = 2
  real(real32), parameter :: slope = 0.1_real32
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  type(sparkle_compiled_epilogue) :: epilogue
  type(sparkle_fused_plan) :: plan
  real(real32), target :: w(m, k), x(k, n), bias(m), y(k * n), z(m, n), skip(m, n)
  real(real32), target :: picture(width, height, channels, images), weights(3, 3, channels, filters)
  real(real32), target :: map(q, p, filters, images), shortcut(q, p, filters, images)
  real(real32) :: expected(k * n)
  real(real64) :: linear(m, n), exact(m, n), magnitude(m, n), total, terms, largest
  real(real64), parameter :: bound = 4.0_real64 * epsilon(slope)
  real(real64) :: error
  integer :: i, j, at, column, row, filter, image

  w = reshape(numbers(m * k), [m, k])
  x = reshape(numbers(k * n), [k, n])
  bias = numbers(m)
  skip = reshape(numbers(m * n), [m, n])
  call open_device(device)

  ! The rows of x are channels.
  y = -7
  call compile_kernel(kernel, 'epilogue.f90', 'activate')
  call kernel%launch([k * n], [arg(k), arg(slope), arg(bias(:k)), arg(x), inout(y)], device=device)
  do j = 1, n
    do i = 1, k
      at = i + k * (j - 1)
      call activate(at - 1, k, slope, bias, x(i, j), expected(at))
    end do
  end do
  error = maxval(abs(real(y, real64) - expected))
  if (.not. error <= bound) error stop 'the activation is wrong'

  ! The activation of a matrix product.
  z = -7
  call compile_kernel(kernel, 'epilogue.f90', 'dense')
  call kernel%launch([m, n], [arg(m), arg(n), arg(k), arg(slope), arg(w), arg(x), arg(bias), inout(z)], device=device)
  linear = matmul(real(w, real64), real(x, real64)) + spread(real(bias, real64), 2, n)
  exact = leaky(linear)
  magnitude = matmul(abs(real(w, real64)), abs(real(x, real64))) + spread(abs(real(bias, real64)), 2, n)
  ! k products, the bias and the slope.
  call report('epilogue', '131 x 77, 93 products each', maxval(abs(z - exact) / magnitude), &
    (k + 2) * real(epsilon(slope), real64))

  ! The same in the library's product, with another matrix added.
  exact = leaky(linear + skip)
  magnitude = magnitude + abs(skip)
  z = -7
  call compile_epilogue(epilogue, 'epilogue.f90', 'residual')
  call sgemm_fused(w, x, z, epilogue, [arg(bias), arg(skip), arg(slope)], device=device)
  call report('epilogue of sgemm', '131 x 77, 93 products each', maxval(abs(z - exact) / magnitude), &
    (k + 3) * real(epsilon(slope), real64))

  ! A layer with a shortcut around it.
  picture = reshape(numbers(size(picture)), shape(picture))
  weights = reshape(numbers(size(weights)), shape(weights))
  shortcut = reshape(numbers(size(shortcut)), shape(shortcut))
  map = -7
  call plan%create(sparkle_conv2d_desc(n=images, c=channels, h=height, w=width, k=filters, r=3, s=3, &
    algorithm=SPARKLE_ALGORITHM_DIRECT), weights, epilogue, device=device)
  call plan%execute(picture, map, [arg(bias(:filters)), arg(shortcut), arg(slope)])
  largest = 0
  do image = 1, images
    do filter = 1, filters
      do row = 1, p
        do column = 1, q
          associate (seen => real(picture(column:column+2, row:row+2, :, image), real64), &
            taps => real(weights(:, :, :, filter), real64), more => real(shortcut(column, row, filter, image), real64))
            total = sum(seen * taps) + bias(filter) + more
            terms = sum(abs(seen * taps)) + abs(bias(filter)) + abs(more)
          end associate
          largest = max(largest, abs(map(column, row, filter, image) - leaky(total)) / terms)
        end do
      end do
    end do
  end do
  call report('epilogue of a convolution', '2 x 5 x 14 x 20, 8 filters', largest, &
    (9 * channels + 3) * real(epsilon(slope), real64))

  ! What gfortran makes of the function.
  if (.not. abs(residual(-2.0_real32, 1, 1, [1.0_real32], [0.5_real32], slope) + 0.05_real32) <= bound) then
    error stop 'the epilogue is wrong'
  end if

contains

  elemental real(real64) function leaky(value)
    real(real64), intent(in) :: value

    leaky = merge(value, slope * value, value > 0)
  end function leaky
end program run_epilogue
