module stencil_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
  real(real32), parameter :: quarter = 0.25_real32
contains
  ! Points on the edge keep their values.
  !@kernel(local_size=[16, 16, 1], base=1)
  pure subroutine stencil5(i, j, n, m, old, new)
    integer(int32), value :: i, j, n, m
    real(real32), intent(in) :: old(n, m)
    real(real32), intent(out) :: new(n, m)
    if (i == 1 .or. i == n .or. j == 1 .or. j == m) then
      new(i, j) = old(i, j)
    else
      new(i, j) = quarter * (old(i-1, j) + old(i+1, j) + old(i, j-1) + old(i, j+1))
    end if
  end subroutine stencil5
end module stencil_kernels
