!> Finds the edges of a bright square with two 3x3 kernels in one convolution.
program conv2d_demo
  use sparkle
  implicit none
  integer, parameter :: WIDTH = 12, HEIGHT = 8
  real :: image(WIDTH, HEIGHT, 1, 1), kernels(3, 3, 1, 2), edges(WIDTH, HEIGHT, 2, 1)
  type(sparkle_timing) :: timing
  integer :: x, y, k

  image = 0.0
  image(4:9, 3:6, 1, 1) = 1.0
  kernels(:, :, 1, 1) = reshape([-1.0, 0.0, 1.0, -2.0, 0.0, 2.0, -1.0, 0.0, 1.0], [3, 3])
  kernels(:, :, 1, 2) = transpose(kernels(:, :, 1, 1))

  call conv2d(image, kernels, edges, pad=1)

  call sparkle_last_timing(timing)
  print '(5a,f0.3,a)', 'sparkle ', sparkle_version(), ' on ', trim(timing%device), ': ', timing%wall_ms, ' ms'
  do y = 1, HEIGHT
    print '(*(i2))', nint(abs(edges(:, y, 1, 1)) + abs(edges(:, y, 2, 1)))
  end do
  do k = 1, 2
    do y = 2, HEIGHT - 1
      do x = 2, WIDTH - 1
        if (abs(edges(x, y, k, 1) - sum(kernels(:, :, 1, k) * image(x - 1:x + 1, y - 1:y + 1, 1, 1))) > 0.0) &
          error stop 'the convolution is wrong'
      end do
    end do
  end do
  print '(a)', 'verified'
end program conv2d_demo
