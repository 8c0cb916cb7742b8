module logical_kernels
  use iso_fortran_env, only: int32
  implicit none
contains

  !@kernel(base=1)
  subroutine logicals(i, n, flip, a, b)
    integer(int32), value :: i, n
    logical, value :: flip
    logical, intent(in) :: a(n)
    logical, intent(inout) :: b(n)
    logical :: seen(0:1, 3), done
    integer(int32) :: j
    done = .false.
    do j = 1, 3
      seen(mod(j, 2), j) = a(i) .neqv. flip
    end do
    outer: do
      inner: do while (.not. done)
        done = done .or. both(seen(1, 1), b(i))
        if (.not. done) exit outer
        if (flip) cycle outer
        exit inner
      end do inner
      if (done) exit
    end do outer
    call toggle(b(i))
    call toggle(seen(0, 2))
    select case (b(i) .and. seen(0, 2))
    case (.true.)
      b(i) = done
    case (.false.)
      b(i) = .not. done
    end select
  end subroutine logicals

  pure logical function both(p, q)
    logical, intent(in) :: p, q
    both = p .and. q
  end function both

  pure subroutine toggle(p)
    logical, intent(inout) :: p
    p = .not. p
  end subroutine toggle

end module logical_kernels
