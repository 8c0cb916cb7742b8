module reduction_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  ! The sum, the largest value and the number of positive values.
  !@kernel(base=1)
  !@reduce(+: total)
  !@reduce(max: largest)
  !@reduce(+: positive)
  pure subroutine summary(i, n, x, total, largest, positive)
    integer(int32), value :: i, n
    real(real32), intent(in) :: x(n)
    real(real32), intent(inout) :: total, largest
    integer(int32), intent(inout) :: positive
    total = total + x(i)
    largest = max(largest, x(i))
    if (x(i) > 0) positive = positive + 1
  end subroutine summary
end module reduction_kernels
