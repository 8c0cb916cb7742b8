module scan_kernels
  use iso_fortran_env, only: int32
  use sparkle_workgroup, only: barrier, local_index, group_index
  implicit none
  integer(int32), parameter :: block = 256
contains
  ! Prefix sums within each block, and the sum of each block.
  !@kernel(local_size=[256])
  subroutine scan_blocks(i, n, x, sums, totals)
    integer(int32), value :: i, n
    integer(int32), intent(in) :: x(0:n-1)
    integer(int32), intent(inout) :: sums(0:n-1), totals(0:(n-1)/block)
    integer(int32) :: part(0:block-1) !@shared
    integer(int32) :: me, distance, before
    me = local_index(1)
    part(me) = 0
    if (i < n) part(me) = x(i)
    call barrier()
    distance = 1
    do while (distance < block)
      before = 0
      if (me >= distance) before = part(me - distance)
      call barrier()
      part(me) = part(me) + before
      call barrier()
      distance = 2 * distance
    end do
    if (i < n) sums(i) = part(me)
    if (me == block - 1) totals(group_index(1)) = part(me)
  end subroutine scan_blocks

  ! Adds what the blocks before have in sum. `offsets` are the prefix sums of `totals`.
  !@kernel
  pure subroutine add_offsets(i, n, offsets, sums)
    integer(int32), value :: i, n
    integer(int32), intent(in) :: offsets(0:(n-1)/block)
    integer(int32), intent(inout) :: sums(0:n-1)
    if (i >= block) sums(i) = sums(i) + offsets(i / block - 1)
  end subroutine add_offsets
end module scan_kernels
