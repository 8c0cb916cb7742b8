!> A program for the reference modules: flat arrays in C's order, with every size as an argument.
program reference_demo
  use sparkle_conv2d
  implicit none
  integer, parameter :: N = 2, C = 3, H = 32, W = 40, K = 8, KERNEL = 3, STRIDE = 1, PAD = 1, H_OUT = 32, W_OUT = 40
  real :: input(N * C * H * W), weights(K * C * KERNEL**2)
  real, allocatable :: output(:), expected(:)

  call random_number(input)
  call random_number(weights)
  allocate (output(N * K * H_OUT * W_OUT), expected(N * K * H_OUT * W_OUT))

  call conv2d_auto(input, weights, output, N, C, H, W, K, KERNEL, STRIDE, PAD, H_OUT, W_OUT)

  call conv2d_select_implementation('cpu', 'naive')
  call conv2d_cpu(input, weights, expected, N, C, H, W, K, KERNEL, STRIDE, PAD, H_OUT, W_OUT)
  if (.not. all(abs(output - expected) <= 1.0e-5 * expected)) error stop 'the convolution is wrong'
  print '(i0,a)', size(output), ' outputs, verified'
end program reference_demo
