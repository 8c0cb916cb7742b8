!> A stencil of one's own, with the blocks that `sparkle_plan_loops` plans for it.
!>
!> Neighbours lie up to four planes away, so the loops touch nine planes at once. These exceed the caches, and each plane
!> comes from memory nine times. Within a block of rows nine planes are small. The program prints both times, predicted and
!> measured. Arguments: rounds, columns, rows, planes.
program stencil_demo
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use sparkle
  implicit none
  integer, parameter :: FAR = 4
  type(sparkle_loops) :: loops
  type(sparkle_loop_plan) :: plan
  real(real32), allocatable :: u(:, :, :), naive(:, :, :), blocked(:, :, :)
  real(real64) :: best(2), predicted, measured
  integer(int64) :: start, middle, end, ticks
  integer :: n(3), rounds, round, rows, y, i

  rounds = argument(1, 7)
  n = [argument(2, 1100), argument(3, 1010), argument(4, 48)]
  loops%extents = n
  loops%radius = [1, 1, FAR]
  loops%flops = 20.0_real64 ! 13 additions and 7 multiplications
  call sparkle_plan_loops(loops, plan)
  rows = int(plan%block(2))

  allocate (u(n(1), n(2), n(3)), naive(n(1), n(2), n(3)), blocked(n(1), n(2), n(3)))
  do i = 1, n(3)
    u(:, :, i) = real(modulo(i, 17), real32)
    u(:, i::7, i) = 0.5_real32
  end do
  naive = 0.0_real32
  blocked = 0.0_real32

  best = huge(best)
  do round = 1, rounds
    call system_clock(start, ticks)
    call compute(u, naive, 2, n(2) - 1)
    call system_clock(middle)
    do y = 2, n(2) - 1, rows
      call compute(u, blocked, y, min(y + rows, n(2)) - 1)
    end do
    call system_clock(end)
    best = min(best, real([middle - start, end - middle], real64) / real(ticks, real64))
  end do
  if (any(abs(naive - blocked) > 0.0_real32)) error stop 'the results differ'

  predicted = plan%naive_seconds / plan%seconds
  measured = best(1) / best(2)
  print '(a,i0,2a)', 'blocks of ', rows, ' rows: ', trim(plan%why)
  print '(a,f0.1,a,f0.1,a,f0.2,a)', 'predicted: ', plan%naive_seconds * 1e3, ' ms without blocks, ', &
    plan%seconds * 1e3, ' ms with them, ', predicted, ' times as fast'
  print '(a,f0.1,a,f0.1,a,f0.2,a)', 'measured:  ', best(1) * 1e3, ' ms without blocks, ', best(2) * 1e3, &
    ' ms with them, ', measured, ' times as fast'
  print '(a,f4.2)', 'same result; measured over predicted gain: ', measured / predicted

contains

  !> Computes the rows `first` to `last` of all inner planes.
  subroutine compute(u, v, first, last)
    real(real32), intent(in), contiguous :: u(:, :, :)
    real(real32), intent(inout), contiguous :: v(:, :, :)
    integer, intent(in) :: first, last
    integer :: x, y, z

    do z = 1 + FAR, size(u, 3) - FAR
      do y = first, last
        do x = 2, size(u, 1) - 1
          v(x, y, z) = 0.25_real32 * u(x, y, z) &
            + 0.125_real32 * (u(x - 1, y, z) + u(x + 1, y, z) + u(x, y - 1, z) + u(x, y + 1, z)) &
            + 0.0625_real32 * (u(x, y, z - 1) + u(x, y, z + 1)) &
            + 0.03125_real32 * (u(x, y, z - 2) + u(x, y, z + 2)) &
            + 0.015625_real32 * (u(x, y, z - 3) + u(x, y, z + 3)) &
            + 0.0078125_real32 * (u(x, y, z - 4) + u(x, y, z + 4))
        end do
      end do
    end do
  end subroutine compute

  !> The number that is argument `index` of the program, or `default`.
  integer function argument(index, default)
    integer, intent(in) :: index, default
    character(len=16) :: text
    integer :: status

    argument = default
    call get_command_argument(index, text, status=status)
    if (status == 0 .and. text /= '') read (text, *) argument
  end function argument
end program stencil_demo
