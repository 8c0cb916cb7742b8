module softmax_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  ! exp(x) over the sum of its row. A point computes a row. Subtracting the row's largest value keeps exp from overflowing.
  !@kernel(base=1)
  pure subroutine softmax(row, rows, columns, x, y)
    integer(int32), value :: row, rows, columns
    real(real32), intent(in) :: x(rows, columns)
    real(real32), intent(inout) :: y(rows, columns)
    real(real32) :: largest, total
    integer(int32) :: j
    largest = x(row, 1)
    do j = 2, columns
      largest = max(largest, x(row, j))
    end do
    total = 0
    do j = 1, columns
      y(row, j) = exp(x(row, j) - largest)
      total = total + y(row, j)
    end do
    do j = 1, columns
      y(row, j) = y(row, j) / total
    end do
  end subroutine softmax
end module softmax_kernels
