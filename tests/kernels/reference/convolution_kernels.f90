module convolution_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
contains

  ! Direct convolution of images N, C, H, W with one padding and one stride.
  !@kernel(local_size_x=64, in=2, out=1)
  subroutine conv2d_direct(idx, input, weights, output, &
      & N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    integer(int32), value :: idx
    real(real32), intent(in) :: input
    real(real32), intent(in) :: weights
    real(real32), intent(out) :: output
    integer(int32), value :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    integer(int32) :: image, filter, y, x, channel, row, column, y_in, x_in
    real(real32) :: value
    x = mod(idx, W_out)
    y = mod(idx / W_out, H_out)
    filter = mod(idx / (W_out * H_out), K)
    image = idx / (W_out * H_out * K)
    if (image >= N) return
    value = 0.0
    do channel = 0, C - 1
      do row = 0, kernel_size - 1
        do column = 0, kernel_size - 1
          y_in = y * stride + row - pad
          x_in = x * stride + column - pad
          if (y_in >= 0 .and. y_in < H .and. x_in >= 0 .and. x_in < W) then
            value = value + input[((image * C + channel) * H + y_in) * W + x_in] &
                          * weights[((filter * C + channel) * kernel_size + row) * kernel_size + column]
          end if
        end do
      end do
    end do
    output = value
  end subroutine conv2d_direct

end module convolution_kernels
