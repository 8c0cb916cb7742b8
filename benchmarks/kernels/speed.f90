! Kernels for benchmarks/kernels/speed.c.
module speed
  use iso_fortran_env, only: int32, real32
  use sparkle_workgroup, only: barrier, local_index, group_index
  implicit none
contains
  !@kernel
  pure subroutine saxpy(i, n, a, x, y)
    integer(int32), value :: i, n
    real(real32), value :: a
    real(real32), intent(in) :: x(0:n-1)
    real(real32), intent(inout) :: y(0:n-1)
    y(i) = a * x(i) + y(i)
  end subroutine saxpy

  !@kernel
  !@reduce(+: total)
  pure subroutine total(i, n, x, total)
    integer(int32), value :: i, n
    real(real32), intent(in) :: x(0:n-1)
    real(real32), intent(inout) :: total
    total = total + x(i)
  end subroutine total

  ! c = a*b in tiles of 256 x 128, 16 x 8 of them in the registers of an invocation. The next tiles of a and b are loaded
  ! into registers while the ones in workgroup memory are multiplied. Extents: 16 for each tile.
  !@kernel(local_size=[16, 16])
  subroutine sgemm_registers(i, j, m, n, k, a, b, c)
    integer(int32), value :: i, j, m, n, k
    real(real32), intent(in) :: a(0:m-1, 0:k-1), b(0:k-1, 0:n-1)
    real(real32), intent(inout) :: c(0:m-1, 0:n-1)
    real(real32) :: left(0:255, 0:15), right(0:131, 0:15) !@shared
    real(real32) :: sums(0:15, 0:7), x(0:15), y(0:7), p(0:15), q(0:7)
    integer(int32) :: top, first, thread, step, e, r, s, t, row, column, x0, y0
    x0 = local_index(1)
    y0 = local_index(2)
    top = group_index(1) * 256
    first = group_index(2) * 128
    thread = y0 * 16 + x0
    do s = 0, 7
      do r = 0, 15
        sums(r, s) = 0
      end do
    end do
        if (top + 256 <= m .and. first + 128 <= n .and. 0 + 16 <= k) then
          do t = 0, 15
            e = thread + 256 * t
            p(t) = a(top + iand(e, 255), 0 + ishft(e, -8))
          end do
          do t = 0, 7
            e = thread + 256 * t
            q(t) = b(0 + iand(e, 15), first + ishft(e, -4))
          end do
        else
          do t = 0, 15
            e = thread + 256 * t
            p(t) = 0
            if (top + iand(e, 255) < m .and. 0 + ishft(e, -8) < k) p(t) = a(top + iand(e, 255), 0 + ishft(e, -8))
          end do
          do t = 0, 7
            e = thread + 256 * t
            q(t) = 0
            if (first + ishft(e, -4) < n .and. 0 + iand(e, 15) < k) q(t) = b(0 + iand(e, 15), first + ishft(e, -4))
          end do
        end if
    do step = 0, k - 1, 16
      do t = 0, 15
        e = thread + 256 * t
        left(iand(e, 255), ishft(e, -8)) = p(t)
      end do
      do t = 0, 7
        e = thread + 256 * t
        right(ishft(e, -4), iand(e, 15)) = q(t)
      end do
      call barrier()
        if (top + 256 <= m .and. first + 128 <= n .and. step + 16 + 16 <= k) then
          do t = 0, 15
            e = thread + 256 * t
            p(t) = a(top + iand(e, 255), step + 16 + ishft(e, -8))
          end do
          do t = 0, 7
            e = thread + 256 * t
            q(t) = b(step + 16 + iand(e, 15), first + ishft(e, -4))
          end do
        else
          do t = 0, 15
            e = thread + 256 * t
            p(t) = 0
            if (top + iand(e, 255) < m .and. step + 16 + ishft(e, -8) < k) p(t) = a(top + iand(e, 255), step + 16 + ishft(e, -8))
          end do
          do t = 0, 7
            e = thread + 256 * t
            q(t) = 0
            if (first + ishft(e, -4) < n .and. step + 16 + iand(e, 15) < k) q(t) = b(step + 16 + iand(e, 15), first + ishft(e, -4))
          end do
        end if
      do t = 0, 15
          x(0) = left(4*x0 + 0, t)
          x(1) = left(4*x0 + 1, t)
          x(2) = left(4*x0 + 2, t)
          x(3) = left(4*x0 + 3, t)
          x(4) = left(4*x0 + 64, t)
          x(5) = left(4*x0 + 65, t)
          x(6) = left(4*x0 + 66, t)
          x(7) = left(4*x0 + 67, t)
          x(8) = left(4*x0 + 128, t)
          x(9) = left(4*x0 + 129, t)
          x(10) = left(4*x0 + 130, t)
          x(11) = left(4*x0 + 131, t)
          x(12) = left(4*x0 + 192, t)
          x(13) = left(4*x0 + 193, t)
          x(14) = left(4*x0 + 194, t)
          x(15) = left(4*x0 + 195, t)
          y(0) = right(4*y0 + 0, t)
          y(1) = right(4*y0 + 1, t)
          y(2) = right(4*y0 + 2, t)
          y(3) = right(4*y0 + 3, t)
          y(4) = right(4*y0 + 64, t)
          y(5) = right(4*y0 + 65, t)
          y(6) = right(4*y0 + 66, t)
          y(7) = right(4*y0 + 67, t)
        do s = 0, 7
          do r = 0, 15
            sums(r, s) = sums(r, s) + x(r) * y(s)
          end do
        end do
      end do
      call barrier()
    end do
    do s = 0, 7
      do r = 0, 15
        row = top + 4*x0 + iand(r, 3) + 64 * ishft(r, -2)
        column = first + 4*y0 + iand(s, 3) + 64 * ishft(s, -2)
        if (row < m .and. column < n) c(row, column) = sums(r, s)
      end do
    end do
  end subroutine sgemm_registers
end module speed
