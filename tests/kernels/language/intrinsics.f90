! Every intrinsic of the language, in every type that it has.
module intrinsic_kernels
  use iso_fortran_env, only: int32, int64, real32, real64
  use, intrinsic :: iso_c_binding, only: c_int, c_float, c_double
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan
  implicit none
  integer, parameter :: wp = selected_real_kind(6), dp = kind(1.0d0), ip = selected_int_kind(9)
contains

  !@kernel(base=1)
  pure subroutine reals(i, n, x, y)
    integer(c_int), value :: i, n
    real(wp), intent(in) :: x(n)
    real(c_float), intent(inout) :: y(n, 27)
    real(wp) :: u, v
    u = x(i); v = y(i, 1)
    y(i, 1) = sqrt(u); y(i, 2) = exp(u); y(i, 3) = log(u); y(i, 4) = log10(u)
    y(i, 5) = sin(u); y(i, 6) = cos(u); y(i, 7) = tan(u); y(i, 8) = asin(u); y(i, 9) = acos(u)
    y(i, 10) = atan(u) + atan2(u, v); y(i, 11) = sinh(u); y(i, 12) = cosh(u); y(i, 13) = tanh(u)
    y(i, 14) = floor(u) + ceiling(u) + nint(u) + int(u); y(i, 15) = aint(u)
    y(i, 16) = mod(u, v); y(i, 17) = modulo(u, v); y(i, 18) = sign(u, v); y(i, 19) = dim(u, v)
    y(i, 20) = merge(u, v, u < v .eqv. u > 1); y(i, 21) = max(u, v, 1.0_wp); y(i, 22) = min(u, v)
    y(i, 23) = huge(u) - tiny(u) + epsilon(u); y(i, 24) = u ** v + u ** 5 + 2 ** u
    y(i, 25) = real(z'40490fdb', wp); y(i, 26) = abs(u)
    if (ieee_is_nan(u)) y(i, 27) = size(x) + size(y, 2) + lbound(y, 1) + ubound(y, 2)
  end subroutine reals

  !@kernel(base=1, contract=off)
  pure subroutine doubles(i, n, a, x, y)
    integer(ip), value :: i, n
    real(dp), value :: a
    real(real64), intent(in) :: x(n)
    real(c_double), intent(inout) :: y(n)
    real(dp) :: u, v, part(2, 2)
    u = x(i); v = y(i)
    part(1, 1) = sqrt(u) + abs(v) + max(u, v) + min(u, v, 1.0d0) + floor(u)
    part(2, 1) = ceiling(u) + nint(v) + int(u) + aint(u) + mod(u, v) + modulo(u, v)
    part(1, 2) = sign(u, v) + dim(u, v) + merge(u, v, u /= v) + u ** 3 + dble(i) + real(1.5, dp)
    part(2, 2) = huge(u) * tiny(u) + epsilon(u) - 0.1_real64
    if (ieee_is_nan(u)) part(2, 2) = real(z'7ff0000000000001', real64)
    y(i) = a * part(1, 1) + part(2, 1) * part(1, 2) - part(2, 2)
    y(i) = real(y(i), real32)
  end subroutine doubles

  !@kernel(base=1)
  pure subroutine integers(i, n, a, b)
    integer(int32), value :: i, n
    integer(int32), intent(in) :: a(n)
    integer(int32), intent(inout) :: b(n)
    integer(int32) :: u, v
    logical :: l
    u = a(i); v = b(i)
    l = btest(u, 3) .or. u == v
    b(i) = iand(u, v) + ior(u, not(v)) - ieor(u, ishft(v, -3)) * abs(u) + sign(u, v) + dim(u, v)
    b(i) = b(i) + mod(u, v) - modulo(u, v) / 7 + max(u, v, 3) + min(u, v) + u ** 2 + merge(1, 0, l)
    b(i) = b(i) + huge(1) + int(b'1010') + int(o'17') + int(2.5) + int(z'ff') + 5 / u
  end subroutine integers

  ! 64-bit integers are for the CPU alone.
  !@kernel(base=1)
  pure subroutine longs(i, n, a, b, total)
    integer(int32), value :: i, n
    integer(int64), intent(in) :: a(n)
    integer(int64), intent(inout) :: b(n)
    integer(int64), intent(inout) :: total
    integer(int64) :: u, j
    !@reduce(+: total)
    u = a(i) + i
    do j = 1_int64, u, 3_int64
      u = u - ishft(u, -1)
    end do
    select case (u)
    case (:-1_int64)
      b(i) = mod(u, 7_int64) + int(real(u), int64) + nint(1.5d10, int64)
    case default
      b(i) = int(u, int32) + huge(u)
    end select
    total = total + u
  end subroutine longs

end module intrinsic_kernels
