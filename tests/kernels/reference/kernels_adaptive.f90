! Kernels whose scalars reach them by any of the three parameter methods.
module kernels_adaptive
  use iso_fortran_env, only: int32, real32
  implicit none
contains

  !@kernel(local_size_x=64, in=2, out=1)
  pure subroutine scaled_add(i, a, b, c, scale)
    integer(int32), value :: i
    real(real32), intent(in) :: a
    real(real32), intent(in) :: b
    real(real32), intent(out) :: c
    real(real32), value :: scale
    c = a + scale * b
  end subroutine scaled_add

  !@kernel(local_size_x=64, out=1)
  pure subroutine param_test(i, data, kernel_h, kernel_w)
    integer(int32), value :: i
    integer(int32), intent(out) :: data
    integer(int32), value :: kernel_h
    integer(int32), value :: kernel_w
    data = kernel_h * kernel_w
  end subroutine param_test

  ! One row of kernel_h*kernel_w values for each of the height*width positions of one image, without padding.
  !@kernel(local_size_x=64, in=1, out=1)
  subroutine im2col_simple(i, input, col, height, width, kernel_h, kernel_w)
    integer(int32), value :: i
    real(real32), intent(in) :: input
    real(real32), intent(out) :: col
    integer(int32), value :: height, width, kernel_h, kernel_w
    integer(int32) :: position, tap, y, x
    position = i / (kernel_h * kernel_w)
    tap = mod(i, kernel_h * kernel_w)
    y = position / width + tap / kernel_w
    x = mod(position, width) + mod(tap, kernel_w)
    if (y < height .and. x < width) then
      col = input[y * width + x]
    else
      col = 0.0
    end if
  end subroutine im2col_simple

  ! c = a*b, row by row: a is m x k, b is k x n.
  !@kernel(local_size_x=64, in=2, out=1)
  subroutine gemm_parameterized(i, a, b, c, m, n, k)
    integer(int32), value :: i
    real(real32), intent(in) :: a, b
    real(real32), intent(out) :: c
    integer(int32), value :: m, n, k
    integer(int32) :: row, column, p
    real(real32) :: total
    row = i / n
    column = mod(i, n)
    if (row >= m) return
    total = 0.0
    do p = 0, k - 1
      total = total + a(row * k + p) * b(p * n + column)
    end do
    c = total
  end subroutine gemm_parameterized

end module kernels_adaptive
