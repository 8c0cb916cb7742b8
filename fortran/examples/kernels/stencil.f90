module stencil_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  ! One step of the heat equation. Points on the edge keep their values.
  !@kernel(dims=2, base=1)
  pure subroutine heat_step(i, j, n, m, rate, old, new)
    integer(int32), value :: i, j, n, m
    real(real32), value :: rate
    real(real32), intent(in) :: old(n, m)
    real(real32), intent(inout) :: new(n, m)
    real(real32) :: around
    new(i, j) = old(i, j)
    if (i == 1 .or. i == n .or. j == 1 .or. j == m) return
    around = old(i-1, j) + old(i+1, j) + old(i, j-1) + old(i, j+1)
    new(i, j) = old(i, j) + rate * (around - 4 * old(i, j))
  end subroutine heat_step
end module stencil_kernels
