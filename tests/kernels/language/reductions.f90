module reduction_kernels
  use iso_fortran_env, only: int32, real32, int64
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

  !@kernel(base=1, dims=1)
  !@reduce(min: least)
  !@reduce(max: most)
  !@reduce(iand: every)
  !@reduce(ior: some)
  !@reduce(*: product)
  pure subroutine extremes(i, n, x, least, most, every, some, product)
    integer(int32), value :: i, n
    integer(int32), intent(in) :: x(n)
    integer(int32), intent(inout) :: least, most, every, some
    real(real32), intent(inout) :: product
    if (x(i) == 0) return
    least = min(least, x(i))
    most = max(x(i), most)
    every = iand(every, x(i))
    some = ior(some, x(i))
    product = product * 2 * real(x(i))
  end subroutine extremes
end module reduction_kernels
