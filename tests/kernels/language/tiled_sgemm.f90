module tiled_kernels
  use iso_fortran_env, only: int32, real32
  use sparkle_workgroup, only: barrier, local_index
  implicit none
  integer(int32), parameter :: tile = 16
contains
  ! c = a*b; a is m x k, b is k x n, column-major.
  !@kernel(local_size=[16, 16], base=1)
  subroutine sgemm_tiled(i, j, m, n, k, a, b, c)
    integer(int32), value :: i, j, m, n, k
    real(real32), intent(in) :: a(m, k), b(k, n)
    real(real32), intent(inout) :: c(m, n)
    real(real32) :: left(tile, tile), right(tile, tile) !@shared
    real(real32) :: total
    integer(int32) :: row, column, step, p, q
    row = local_index(1) + 1
    column = local_index(2) + 1
    total = 0
    do step = 0, (k - 1) / tile
      p = step * tile + column
      q = step * tile + row
      left(row, column) = 0
      if (i <= m .and. p <= k) left(row, column) = a(i, p)
      right(row, column) = 0
      if (q <= k .and. j <= n) right(row, column) = b(q, j)
      call barrier()
      do p = 1, tile
        total = total + left(row, p) * right(p, column)
      end do
      call barrier()
    end do
    if (i <= m .and. j <= n) c(i, j) = total
  end subroutine sgemm_tiled

  !@kernel(local_size=[16, 16], base=1)
  subroutine transpose_tiled(i, j, n, m, a, b)
    use sparkle_workgroup, only: group_index
    integer(int32), value :: i, j, n, m
    real(real32), intent(in) :: a(n, m)
    real(real32), intent(inout) :: b(m, n)
    real(real32) :: block(17, 16) !@shared
    integer(int32) :: row, column
    if (i <= n .and. j <= m) block(local_index(1) + 1, local_index(2) + 1) = a(i, j)
    call barrier()
    row = group_index(2) * 16 + local_index(1) + 1
    column = group_index(1) * 16 + local_index(2) + 1
    if (row <= m .and. column <= n) b(row, column) = block(local_index(2) + 1, local_index(1) + 1)
  end subroutine transpose_tiled
end module tiled_kernels
