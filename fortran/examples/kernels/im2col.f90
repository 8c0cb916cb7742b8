module im2col_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  ! The matrix whose product with a layer's weights is the layer's output. A point is an output pixel (p, q) and a tap: a
  ! column and a row of the square filter, and a channel. Pixels outside the image are zero.
  !@kernel(dims=3)
  pure subroutine im2col(p, q, tap, width, height, channels, side, stride, pad, image, matrix)
    integer(int32), value :: p, q, tap, width, height, channels, side, stride, pad
    real(real32), intent(in) :: image(0:width-1, 0:height-1, 0:channels-1)
    real(real32), intent(inout) :: &
      matrix(0:(width+2*pad-side)/stride, 0:(height+2*pad-side)/stride, 0:channels*side*side-1)
    integer(int32) :: x, y
    x = p * stride - pad + mod(tap, side)
    y = q * stride - pad + mod(tap / side, side)
    matrix(p, q, tap) = 0
    if (x >= 0 .and. x < width .and. y >= 0 .and. y < height) matrix(p, q, tap) = image(x, y, tap / (side * side))
  end subroutine im2col
end module im2col_kernels
