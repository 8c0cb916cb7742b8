! The elementary kernels of the reference framework, in its old form: dummies without shape are elements at the index.
module reference_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
contains

  !@kernel(local_size_x=64, out=1)
  pure subroutine store_deadbeef(i, out)
    integer(int32), value :: i
    integer(int32), intent(out) :: out
    out = int(z'DEADBEEF', int32)
  end subroutine store_deadbeef

  !@kernel(local_size_x=64, in=2, out=1)
  pure subroutine saxpy(i, a, x, y)
    integer(int32), value :: i
    real(real32), value :: a
    real(real32), intent(in) :: x
    real(real32), intent(inout) :: y
    y = a * x + y
  end subroutine saxpy

  !@kernel(local_size_x=64, in=2, out=1)
  pure subroutine vector_add(i, x, y)
    integer(int32), value :: i
    real(real32), intent(in) :: x
    real(real32), intent(inout) :: y
    y = x + y
  end subroutine vector_add

  !@kernel(local_size_x=64, in=1, out=1)
  pure subroutine vector_scale(i, scale, x)
    integer(int32), value :: i
    real(real32), value :: scale
    real(real32), intent(inout) :: x
    x = scale * x
  end subroutine vector_scale

end module reference_kernels
