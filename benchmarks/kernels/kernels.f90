module timed_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  !@kernel(base=1)
  subroutine saxpy(i, n, a, x, y)
    integer(int32), value :: i, n
    real(real32), value :: a
    real(real32), intent(in) :: x(n)
    real(real32), intent(inout) :: y(n)
    y(i) = a * x(i) + y(i)
  end subroutine saxpy

  !@kernel(base=1)
  subroutine silu(i, n, a, x, y)
    integer(int32), value :: i, n
    real(real32), value :: a
    real(real32), intent(in) :: x(n)
    real(real32), intent(inout) :: y(n)
    y(i) = x(i) / (1.0 + exp(-a * x(i)))
  end subroutine silu

  !@kernel(base=1)
  !@reduce(+: total)
  subroutine dot(i, n, x, y, total)
    integer(int32), value :: i, n
    real(real32), intent(in) :: x(n), y(n)
    real(real32), intent(inout) :: total
    total = total + x(i) * y(i)
  end subroutine dot
end module timed_kernels
