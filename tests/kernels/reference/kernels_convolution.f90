module kernels_convolution
  use iso_fortran_env, only: int32, real32
  implicit none
contains

  ! Images as N, H, W, C; one row of kernel_h*kernel_w*channels values for each output position.
  !@kernel(local_size_x=256, in=1, out=1)
  subroutine im2col_nhwc(idx, input, output, &
                         batch, height, width, channels, kernel_h, kernel_w, &
                         stride, pad, height_out, width_out)
    integer(int32), value :: idx
    real(real32), intent(in) :: input
    real(real32), intent(out) :: output
    integer(int32), value :: batch, height, width, channels
    integer(int32), value :: kernel_h, kernel_w, stride, pad, height_out, width_out
    integer(int32) :: rest, c, kw, kh, x, y, n, x_in, y_in
    rest = idx
    c = mod(rest, channels)
    rest = rest / channels
    kw = mod(rest, kernel_w)
    rest = rest / kernel_w
    kh = mod(rest, kernel_h)
    rest = rest / kernel_h
    x = mod(rest, width_out)
    rest = rest / width_out
    y = mod(rest, height_out)
    n = rest / height_out
    if (n >= batch) return
    y_in = y * stride + kh - pad
    x_in = x * stride + kw - pad
    output = 0.0
    if (y_in >= 0 .and. y_in < height .and. x_in >= 0 .and. x_in < width) then
      output = input[((n * height + y_in) * width + x_in) * channels + c]
    end if
  end subroutine im2col_nhwc

  ! C = alpha*A*B + beta*C, row by row. The sizes M, N, K and the counter k differ only in case.
  !@kernel(local_size_x=256, in=3, out=1)
  subroutine gemm_tiled(idx, A, B, C, M, N, K, alpha, beta)
    integer(int32), value :: idx
    real(real32), intent(in) :: A
    real(real32), intent(in) :: B
    real(real32), intent(inout) :: C
    integer(int32), value :: M, N, K
    real(real32), value :: alpha, beta
    integer(int32) :: row, col, k
    real(real32) :: sum
    row = idx / N
    col = mod(idx, N)
    if (row < M) then
      sum = 0.0
      do k = 0, K - 1
        sum = sum + A[row * K + k] * B[k * N + col]
      end do
      C = alpha * sum + beta * C
    end if
  end subroutine gemm_tiled

  ! Images as N, C, H, W, weights as K, C, R, R.
  !@kernel(local_size_x=64, in=2, out=1)
  subroutine conv2d_direct(idx, input, weights, output, batch, channels, height, width, filters, &
                           kernel_size, stride, pad, height_out, width_out)
    integer(int32), value :: idx
    real(real32), intent(in) :: input, weights
    real(real32), intent(out) :: output
    integer(int32), value :: batch, channels, height, width, filters
    integer(int32), value :: kernel_size, stride, pad, height_out, width_out
    integer(int32) :: n, f, y, x, c, kh, kw, y_in, x_in
    real(real32) :: sum
    x = mod(idx, width_out)
    y = mod(idx / width_out, height_out)
    f = mod(idx / (width_out * height_out), filters)
    n = idx / (width_out * height_out * filters)
    if (n >= batch) return
    sum = 0.0
    do c = 0, channels - 1
      do kh = 0, kernel_size - 1
        y_in = y * stride + kh - pad
        if (y_in < 0 .or. y_in >= height) cycle
        do kw = 0, kernel_size - 1
          x_in = x * stride + kw - pad
          if (x_in >= 0 .and. x_in < width) then
            sum = sum + input(((n * channels + c) * height + y_in) * width + x_in) &
                      * weights(((f * channels + c) * kernel_size + kh) * kernel_size + kw)
          end if
        end do
      end do
    end do
    output = sum
  end subroutine conv2d_direct

end module kernels_convolution
