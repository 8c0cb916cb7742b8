!> Prefix sums: element i of the result is the sum of elements 0 to i.
program run_scan
  use, intrinsic :: iso_fortran_env, only: int32, real64
  use kernel_examples
  use scan_kernels, only: block
  use sparkle
  use sparkle_kernel
  implicit none
  integer, parameter :: n = 100003
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: scan_blocks, add_offsets
  integer(int32), target :: x(n), sums(n)
  integer(int32) :: total, largest
  integer :: i

  x = int(100 * numbers(n), int32)
  sums = -7
  call open_device(device)
  call compile_kernel(scan_blocks, 'scan.f90', 'scan_blocks')
  call compile_kernel(add_offsets, 'scan.f90', 'add_offsets')
  call scan(x, sums)

  total = 0
  largest = 0
  do i = 1, n
    total = total + x(i)
    largest = max(largest, abs(sums(i) - total))
  end do
  call report('scan', '100003 elements', real(largest, real64), 0.0_real64)

contains

  !> Scans the blocks, then the sums of the blocks in the same way, and adds these to the blocks.
  recursive subroutine scan(x, sums)
    integer(int32), contiguous, intent(in), target :: x(:)
    integer(int32), contiguous, intent(inout), target :: sums(:)
    integer(int32), allocatable, target :: totals(:), offsets(:)
    integer :: n

    n = size(x)
    allocate (totals((n - 1) / block + 1), source=0_int32)
    call scan_blocks%launch([n], [arg(n), arg(x), inout(sums), inout(totals)], device=device)
    if (size(totals) == 1) return
    allocate (offsets(size(totals)), source=0_int32)
    call scan(totals, offsets)
    call add_offsets%launch([n], [arg(n), arg(offsets), inout(sums)], device=device)
  end subroutine scan
end program run_scan
