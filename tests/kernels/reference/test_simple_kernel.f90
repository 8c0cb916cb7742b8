module test_simple_kernel
  use iso_fortran_env, only: int32, real32
  implicit none
contains

  !@kernel(local_size_x=64, in=1, out=1)
  pure subroutine simple_add(i, a, b, alpha)
    integer(int32), value :: i
    real(real32), intent(in) :: a
    real(real32), intent(out) :: b
    real(real32), value :: alpha
    b = a + alpha
  end subroutine simple_add

end module test_simple_kernel
