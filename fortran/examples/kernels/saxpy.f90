module saxpy_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  !@kernel
  pure subroutine saxpy(i, n, a, x, y)
    integer(int32), value :: i, n
    real(real32), value :: a
    real(real32), intent(in) :: x(0:n-1)
    real(real32), intent(inout) :: y(0:n-1)
    y(i) = a * x(i) + y(i)
  end subroutine saxpy
end module saxpy_kernels
