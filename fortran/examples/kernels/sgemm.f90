module sgemm_kernels
  use iso_fortran_env, only: int32, real32
  use sparkle_workgroup, only: barrier, local_index
  implicit none
  integer(int32), parameter :: tile = 16
contains
  ! c = a b, where a is m x k and b is k x n.
  !@kernel(local_size=[16, 16], base=1)
  subroutine sgemm(i, j, m, n, k, a, b, c)
    integer(int32), value :: i, j, m, n, k
    real(real32), intent(in) :: a(m, k), b(k, n)
    real(real32), intent(inout) :: c(m, n)
    real(real32) :: left(tile, tile), right(tile, tile) !@shared
    real(real32) :: total
    integer(int32) :: row, column, first, p
    row = local_index(1) + 1
    column = local_index(2) + 1
    total = 0
    do first = 0, k - 1, tile
      left(row, column) = 0
      if (i <= m .and. first + column <= k) left(row, column) = a(i, first + column)
      right(row, column) = 0
      if (first + row <= k .and. j <= n) right(row, column) = b(first + row, j)
      call barrier()
      do p = 1, tile
        total = total + left(row, p) * right(p, column)
      end do
      call barrier()
    end do
    if (i <= m .and. j <= n) c(i, j) = total
  end subroutine sgemm
end module sgemm_kernels
