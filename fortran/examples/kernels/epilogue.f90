module epilogue_kernels
  use iso_fortran_env, only: int32, real32
  use sparkle_workgroup, only: barrier, local_index
  implicit none
  integer(int32), parameter :: tile = 16
contains
  pure function leaky_relu(x, slope) result(y)
    real(real32), intent(in) :: x, slope
    real(real32) :: y
    y = merge(x, slope * x, x > 0)
  end function leaky_relu

  !@epilogue(base=1)
  pure function residual(x, channel, position, bias, skip, slope) result(y)
    real(real32), intent(in) :: x
    integer(int32), intent(in) :: channel, position
    real(real32), intent(in) :: bias(:), skip(*), slope
    real(real32) :: y
    y = leaky_relu(x + bias(channel) + skip(position), slope)
  end function residual

  ! For an array whose channels follow each other: element i belongs to channel mod(i, channels).
  !@kernel
  pure subroutine activate(i, channels, slope, bias, x, y)
    integer(int32), value :: i, channels
    real(real32), value :: slope
    real(real32), intent(in) :: bias(0:channels-1), x
    real(real32), intent(out) :: y
    y = leaky_relu(x + bias(mod(i, channels)), slope)
  end subroutine activate

  ! y = leaky_relu(w x + bias): a dense layer of m channels for n samples of k numbers.
  !@kernel(local_size=[16, 16], base=1)
  subroutine dense(i, j, m, n, k, slope, w, x, bias, y)
    integer(int32), value :: i, j, m, n, k
    real(real32), value :: slope
    real(real32), intent(in) :: w(m, k), x(k, n), bias(m)
    real(real32), intent(inout) :: y(m, n)
    real(real32) :: left(tile, tile), right(tile, tile) !@shared
    real(real32) :: total
    integer(int32) :: row, column, first, p
    row = local_index(1) + 1
    column = local_index(2) + 1
    total = 0
    do first = 0, k - 1, tile
      left(row, column) = 0
      if (i <= m .and. first + column <= k) left(row, column) = w(i, first + column)
      right(row, column) = 0
      if (first + row <= k .and. j <= n) right(row, column) = x(first + row, j)
      call barrier()
      do p = 1, tile
        total = total + left(row, p) * right(p, column)
      end do
      call barrier()
    end do
    if (i <= m .and. j <= n) y(i, j) = leaky_relu(total + bias(i), slope)
  end subroutine dense
end module epilogue_kernels
