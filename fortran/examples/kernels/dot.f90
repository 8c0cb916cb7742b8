module dot_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  !@kernel
  !@reduce(+: total)
  pure subroutine dot(i, n, x, y, total)
    integer(int32), value :: i, n
    real(real32), intent(in) :: x(0:n-1), y(0:n-1)
    real(real32), intent(inout) :: total
    total = total + x(i) * y(i)
  end subroutine dot
end module dot_kernels
