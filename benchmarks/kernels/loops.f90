! The loops that a Fortran programmer writes in place of the kernels beside them.
module loops
  use, intrinsic :: iso_c_binding, only: c_int, c_float
  implicit none
contains
  subroutine loop_saxpy(n, a, x, y) bind(C)
    integer(c_int), value :: n
    real(c_float), value :: a
    real(c_float), intent(in) :: x(n)
    real(c_float), intent(inout) :: y(n)
    integer :: i
    do i = 1, n
      y(i) = a * x(i) + y(i)
    end do
  end subroutine loop_saxpy

  subroutine loop_silu(n, a, x, y) bind(C)
    integer(c_int), value :: n
    real(c_float), value :: a
    real(c_float), intent(in) :: x(n)
    real(c_float), intent(inout) :: y(n)
    integer :: i
    do i = 1, n
      y(i) = x(i) / (1.0 + exp(-a * x(i)))
    end do
  end subroutine loop_silu

  subroutine loop_dot(n, a, x, y) bind(C)
    integer(c_int), value :: n
    real(c_float), value :: a
    real(c_float), intent(in) :: x(n)
    real(c_float), intent(inout) :: y(n)
    real(c_float) :: total
    integer :: i
    total = a
    do i = 1, n
      total = total + x(i) * y(i)
    end do
    y(1) = total
  end subroutine loop_dot
end module loops
