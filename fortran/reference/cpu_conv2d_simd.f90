!> The convolution of `cpu_conv2d_reference` under another name that existing programs call.
module cpu_conv2d_simd
  use, intrinsic :: iso_fortran_env, only: real32
  use sparkle_reference_support, only: solve_conv2d
  implicit none
  private
  public :: conv2d_cpu_simd

contains

  !> Computes one convolution on the CPU. Returns the wall time in milliseconds, or -1 with `output` untouched.
  function conv2d_cpu_simd(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) result(time_ms)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(inout) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: time_ms

    time_ms = solve_conv2d('cpu', input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
  end function conv2d_cpu_simd
end module cpu_conv2d_simd
