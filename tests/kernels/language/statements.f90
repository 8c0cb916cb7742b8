module statement_kernels
  use, intrinsic :: iso_fortran_env, only: i4 => int32, r4 => real32
  implicit none
  integer, parameter :: limit = 2**4 - 1
contains
  !@kernel(contract=off, base=1)
  pure subroutine everything(i, n, x, k, y, flags)
    integer(i4), value :: i, n
    real(r4), intent(in) :: x(n)
    integer(i4), intent(inout) :: k(n)
    real(r4), intent(out) :: y(:)
    logical, intent(inout) :: flags(n)
    real(r4) :: t, small(0:3)
    integer :: j, l, count; logical :: found
    t = 0.0; count = 0
    outer: do j = 1, n
      do l = limit, 1, -2
        if (mod(j + l, 7) == 3) cycle outer
        if (j * l > 100) exit outer
        t = t + x(j) &
          * real(l, r4)   ! continued
        count = count + 1
      end do
      if (x(j) .ge. 4.5e1 .and. .not. flags(i)) exit
    end do outer
    select case (k(i))
    case (:-1)
      t = -t
    case (0, 5:9)
      t = abs(t) ** 2
    case (10)
      return
    case default
      t = sqrt(abs(t)) + 2.0 ** (-k(i))
    end select
    do j = 0, 3
      small(j) = t + j
    end do
    found = .false.
    do while (.not. found .and. count > 0)
      count = count / 2
      found = count < 3 .or. small(modulo(count, 4)) > 1.e3
    end do
    call adjust(t, count, scaled(x(i), 2.0_r4))
    do
      count = count + 1
      if (count > 5) exit
    end do
    if (found) then
      y(i) = t
    else if (t > 0) then
      y(i) = max(t, x(i), 0.5) + merge(1.0, 2.0, flags(i))
    else
      y(i) = -huge(t)
    endif
    flags(i) = found .neqv. flags(i)
    k(i) = ieor(k(i), ishft(count, 3)) + nint(t) + floor(t) - (-2147483647 - 1)
  end subroutine everything

  pure function scaled(v, by) result(w)
    real(r4), intent(in) :: v, by
    real(r4) :: w
    if (v < 0) then
      w = 0
      return
    end if
    w = v * by
  end function scaled

  pure subroutine adjust(t, count, by)
    real(r4), intent(inout) :: t
    integer, intent(out) :: count
    real(r4), value :: by
    t = scaled(t, by)
    count = int(t)
  end subroutine adjust
end module statement_kernels
