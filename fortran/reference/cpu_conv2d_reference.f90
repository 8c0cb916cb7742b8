!> Convolution on libsparkle's CPU device, with the interface of existing programs.
!>
!> Functions return the wall time of one convolution in milliseconds, or -1 with `output` untouched. They print nothing.
module cpu_conv2d_reference
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use sparkle_reference_support, only: solve_conv2d
  implicit none
  private
  public :: conv2d_cpu_reference, conv2d_cpu_benchmark, conv2d_cpu_with_warmup

contains

  !> Computes one convolution.
  function conv2d_cpu_reference(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) result(time_ms)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: time_ms

    time_ms = solve_conv2d('cpu', input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
  end function conv2d_cpu_reference

  !> The mean time of `iterations` convolutions, by default 10.
  function conv2d_cpu_benchmark(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out, iterations) result(time_ms)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    integer, intent(in), optional :: iterations
    real(real32) :: time_ms
    real(real64) :: total
    integer :: count, i

    count = 10
    if (present(iterations)) count = iterations
    time_ms = -1.0_real32
    total = 0.0_real64
    do i = 1, count
      time_ms = conv2d_cpu_reference(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
      if (time_ms < 0.0_real32) return
      total = total + time_ms
    end do
    if (count > 0) time_ms = real(total / count, real32)
  end function conv2d_cpu_benchmark

  !> The mean time of 20 convolutions, after three to warm up.
  function conv2d_cpu_with_warmup(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) result(time_ms)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: time_ms

    time_ms = conv2d_cpu_benchmark(input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out, iterations=3)
    if (time_ms < 0.0_real32) return
    time_ms = conv2d_cpu_benchmark(input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out, iterations=20)
  end function conv2d_cpu_with_warmup
end module cpu_conv2d_reference
