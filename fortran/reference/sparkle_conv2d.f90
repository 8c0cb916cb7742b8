!> Convolution on the CPU, on the GPU, or on the device predicted to be faster, with the interface of existing programs.
!>
!> All procedures compute the convolution once and print nothing. If the GPU is missing or fails, the CPU computes it. A
!> call fails if the sizes are not a valid convolution or an array is too short: `stat` is then -1 and `output`
!> untouched; without `stat`, `output` becomes NaN.
module sparkle_conv2d
  use, intrinsic :: iso_fortran_env, only: int64, real32
  use sparkle_gpu_dispatch, only: execute_conv2d_gpu
  use sparkle_reference_support, only: arrays_suffice, finish_without_status, solve_conv2d
  implicit none
  private
  public :: conv2d_cpu, conv2d_gpu, conv2d_auto, conv2d_select_implementation

  logical, save :: cpu_is_naive = .false.

contains

  !> Selects the implementation of a device. For the CPU, `naive` is a plain loop for comparison; every other name is
  !> the library. For other devices this has no effect.
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
    logical :: succeeded

    succeeded = on_cpu(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    call finish_without_status(succeeded, output, stat)
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
    logical :: succeeded

    succeeded = solve_conv2d('auto', input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) >= 0.0_real32
    call finish_without_status(succeeded, output, stat)
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

  !> A plain loop nest.
  logical function convolved_naively(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(inout) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    integer :: image, filter, row, column, channel, kh, kw, y, x
    integer(int64) :: at_input, at_weights, at_output
    real(real32) :: sum

    convolved_naively = arrays_suffice(size(input, kind=int64), size(weights, kind=int64), &
      size(output, kind=int64), N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    if (.not. convolved_naively) return
    at_output = 0
    do image = 0, N - 1
      do filter = 0, K - 1
        do row = 0, H_out - 1
          do column = 0, W_out - 1
            sum = 0.0_real32
            do channel = 0, C - 1
              do kh = 0, kernel_size - 1
                y = row * stride + kh - pad
                if (y < 0 .or. y >= H) cycle
                do kw = 0, kernel_size - 1
                  x = column * stride + kw - pad
                  if (x < 0 .or. x >= W) cycle
                  at_input = ((int(image, int64) * C + channel) * H + y) * W + x + 1
                  at_weights = ((int(filter, int64) * C + channel) * kernel_size + kh) * kernel_size + kw + 1
                  sum = sum + input(at_input) * weights(at_weights)
                end do
              end do
            end do
            at_output = at_output + 1
            output(at_output) = sum
          end do
        end do
      end do
    end do
  end function convolved_naively
end module sparkle_conv2d
