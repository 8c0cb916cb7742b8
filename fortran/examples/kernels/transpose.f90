module transpose_kernels
  use iso_fortran_env, only: int32, real32
  use sparkle_workgroup, only: barrier, local_index, group_index
  implicit none
  integer(int32), parameter :: tile = 16
contains
  !@kernel(local_size=[16, 16], base=1)
  subroutine transpose_tiles(i, j, n, m, a, b)
    integer(int32), value :: i, j, n, m
    real(real32), intent(in) :: a(n, m)
    real(real32), intent(inout) :: b(m, n)
    real(real32) :: block(tile + 1, tile) !@shared
    integer(int32) :: p, q, row, column
    p = local_index(1) + 1
    q = local_index(2) + 1
    if (i <= n .and. j <= m) block(p, q) = a(i, j)
    call barrier()
    row = group_index(2) * tile + p
    column = group_index(1) * tile + q
    if (row <= m .and. column <= n) b(row, column) = block(q, p)
  end subroutine transpose_tiles
end module transpose_kernels
