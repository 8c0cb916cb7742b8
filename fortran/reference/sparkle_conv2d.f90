!> Convolution as existing programs call it: on the CPU, on the GPU, or wherever it is predicted faster.
!>
!> Every way gives the same convolution, computed once, and prints nothing. A GPU that is missing or fails is replaced
!> by the CPU. What is left to fail is a call whose sizes are not a convolution or whose arrays are too short: `stat`
!> is then -1 and `output` untouched; for a caller without `stat`, `output` becomes NaN.
module sparkle_conv2d
  use, intrinsic :: iso_fortran_env, only: real32
  use sparkle_gpu_dispatch, only: execute_conv2d_gpu
  use sparkle_reference_support, only: finish_without_status, solve_conv2d
  implicit none
  private
  public :: conv2d_cpu, conv2d_gpu, conv2d_auto, conv2d_select_implementation

  logical, save :: cpu_is_naive = .false.

contains

  !> Selects how a device convolves. For the CPU, `naive` is a plain loop to compare with, every other name the library.
  !> The GPU has one implementation, and there are no other devices to select for.
  subroutine conv2d_select_implementation(device, impl_name)
    character(len=*), intent(in) :: device
    character(len=*), intent(in) :: impl_name

    if (device == 'cpu') cpu_is_naive = impl_name == 'naive'
  end subroutine conv2d_select_implementation

  subroutine conv2d_cpu(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out, stat)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    integer, intent(out), optional :: stat

    call finish_without_status(on_cpu(input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out), output, stat)
  end subroutine conv2d_cpu

  subroutine conv2d_gpu(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out, stat)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    integer, intent(out), optional :: stat
    logical :: succeeded

    succeeded = execute_conv2d_gpu(input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) >= 0.0_real32
    if (.not. succeeded) succeeded = on_cpu(input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    call finish_without_status(succeeded, output, stat)
  end subroutine conv2d_gpu

  subroutine conv2d_auto(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out, stat)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    integer, intent(out), optional :: stat

    call finish_without_status(solve_conv2d('auto', input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) >= 0.0_real32, output, stat)
  end subroutine conv2d_auto

  logical function on_cpu(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(inout) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out

    if (cpu_is_naive) then
      on_cpu = convolved_naively(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    else
      on_cpu = solve_conv2d('cpu', input, weights, output, &
        N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) >= 0.0_real32
    end if
  end function on_cpu
