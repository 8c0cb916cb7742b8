!> Shared by the Fortran test programs: counted checks, reproducible data, and a naive convolution in float64.
module checks
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan
  use, intrinsic :: iso_c_binding, only: c_char, c_int, c_null_char
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
  implicit none
  private
  public :: check, finish, set_variable, data_of, shape_of_conv, convolve, agrees, all_nan, same_bits, report_unless_equal

  !> The sizes and options of a convolution.
  type, public :: conv
    integer :: n = 1, c = 1, h = 1, w = 1, k = 1, r = 1, s = 1
    integer :: stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1, groups = 1
    logical :: relu = .false.
  contains
    procedure :: p => conv_p
    procedure :: q => conv_q
    procedure :: x_len => conv_x_len
    procedure :: w_len => conv_w_len
    procedure :: y_len => conv_y_len
  end type conv

  integer, save :: count = 0

  interface
    function c_setenv(name, value, overwrite) bind(C, name="setenv") result(status)
      import :: c_char, c_int
      character(kind=c_char), intent(in) :: name(*)
      character(kind=c_char), intent(in) :: value(*)
      integer(c_int), value :: overwrite
      integer(c_int) :: status
    end function c_setenv
  end interface

contains

  !> Counts a check. Ends the program with the message `what` if `holds` is false.
  subroutine check(holds, what)
    logical, intent(in) :: holds
    character(len=*), intent(in) :: what

    !$omp atomic
    count = count + 1
    if (holds) return
    print '(2a)', 'FAILED: ', what
    error stop 1
  end subroutine check

  !> Sets an environment variable, which the library reads at its first use. A program that needs one can thus run in any
  !> environment.
  subroutine set_variable(name, value)
    character(len=*), intent(in) :: name, value

    call check(c_setenv(name // c_null_char, value // c_null_char, 1_c_int) == 0, 'setenv')
  end subroutine set_variable

  !> Checks that two strings are equal, and prints both if not.
  subroutine report_unless_equal(found, expected)
    character(len=*), intent(in) :: found, expected

    if (found /= expected) print '(5a)', 'found    "', trim(found), '"', new_line('a') // 'expected "', expected // '"'
    call check(found == expected, 'two equal strings')
  end subroutine report_unless_equal

  !> Prints the last line of output, the number of checks.
  subroutine finish()
    if (count == 0) error stop 'no check was made'
    print '(a,i0,a)', 'ok: ', count, ' checks'
  end subroutine finish

  !> Pseudorandom values between -1 and 1, determined by the seed.
  function data_of(length, seed) result(values)
    integer, intent(in) :: length, seed
    real(real32) :: values(length)
    integer(int64) :: state
    integer :: i

    state = 88172645463325252_int64 + 7919_int64 * seed
    do i = 1, length
      state = ieor(state, ishft(state, 13))
      state = ieor(state, ishft(state, -7))
      state = ieor(state, ishft(state, 17))
      values(i) = real(real(ibits(state, 20, 24), real64) / 2.0_real64**23 - 1.0_real64, real32)
    end do
  end function data_of

  !> A convolution of the reference interface: a square kernel with one stride and one padding.
  pure type(conv) function shape_of_conv(n, c, h, w, k, kernel_size, stride, pad)
    integer, intent(in) :: n, c, h, w, k, kernel_size, stride, pad

    shape_of_conv = conv(n=n, c=c, h=h, w=w, k=k, r=kernel_size, s=kernel_size, stride_h=stride, stride_w=stride, &
      pad_h=pad, pad_w=pad)
  end function shape_of_conv

  pure integer function conv_p(self)
    class(conv), intent(in) :: self
    conv_p = (self%h + 2 * self%pad_h - self%dilation_h * (self%r - 1) - 1) / self%stride_h + 1
  end function conv_p

  pure integer function conv_q(self)
    class(conv), intent(in) :: self
    conv_q = (self%w + 2 * self%pad_w - self%dilation_w * (self%s - 1) - 1) / self%stride_w + 1
  end function conv_q

  pure integer function conv_x_len(self)
    class(conv), intent(in) :: self
    conv_x_len = self%n * self%c * self%h * self%w
  end function conv_x_len

  pure integer function conv_w_len(self)
    class(conv), intent(in) :: self
    conv_w_len = self%k * (self%c / self%groups) * self%r * self%s
  end function conv_w_len

  pure integer function conv_y_len(self)
    class(conv), intent(in) :: self
    conv_y_len = self%n * self%k * self%p() * self%q()
  end function conv_y_len

  !> Computes the result in float64 and, for each element, the sum of the absolute products, which scales its error bound.
  pure subroutine convolve(cv, x, w, bias, y, scale)
    type(conv), intent(in) :: cv
    real(real32), intent(in) :: x(0:), w(0:)
    real(real32), intent(in), optional :: bias(0:)
    real(real64), intent(out) :: y(0:), scale(0:)
    integer :: n, k, p, q, c, r, s, iy, ix, cg, channel, at
    real(real64) :: product

    cg = cv%c / cv%groups
    at = 0
    do n = 0, cv%n - 1
      do k = 0, cv%k - 1
        do p = 0, cv%p() - 1
          do q = 0, cv%q() - 1
            y(at) = 0.0_real64
            if (present(bias)) y(at) = bias(k)
            scale(at) = abs(y(at))
            do c = 0, cg - 1
              channel = k / (cv%k / cv%groups) * cg + c
              do r = 0, cv%r - 1
                iy = p * cv%stride_h + r * cv%dilation_h - cv%pad_h
                if (iy < 0 .or. iy >= cv%h) cycle
                do s = 0, cv%s - 1
                  ix = q * cv%stride_w + s * cv%dilation_w - cv%pad_w
                  if (ix < 0 .or. ix >= cv%w) cycle
                  product = real(x(((n * cv%c + channel) * cv%h + iy) * cv%w + ix), real64) &
                    * real(w(((k * cg + c) * cv%r + r) * cv%s + s), real64)
                  y(at) = y(at) + product
                  scale(at) = scale(at) + abs(product)
                end do
              end do
            end do
            if (cv%relu) y(at) = max(y(at), 0.0_real64)
            at = at + 1
          end do
        end do
      end do
    end do
  end subroutine convolve

  !> Whether every element of `y` is within the error bound of fp32 sums, and the result is not trivially zero.
  logical function agrees(cv, x, w, y, bias)
    type(conv), intent(in) :: cv
    real(real32), intent(in) :: x(:), w(:), y(:)
    real(real32), intent(in), optional :: bias(:)
    real(real64), allocatable :: expected(:), scale(:)
    real(real64) :: gamma
    integer :: terms

    agrees = .false.
    if (size(y) /= cv%y_len() .or. size(y) == 0) return
    allocate (expected(size(y)), scale(size(y)))
    call convolve(cv, x, w, bias, expected, scale)
    terms = cv%c / cv%groups * cv%r * cv%s + 4
    gamma = terms * 2.0_real64**(-24) / (1.0_real64 - terms * 2.0_real64**(-24))
    ! The absolute term covers denormals that a GPU flushes to zero.
    agrees = all(abs(real(y, real64) - expected) <= gamma * scale + 1.0e-37_real64) .and. any(abs(expected) > 0.01_real64)
  end function agrees

  !> Whether two arrays have the same bits, so a NaN equals itself.
  pure logical function same_bits(a, b)
    real(real32), intent(in) :: a(:), b(:)

    same_bits = size(a) == size(b)
    if (same_bits) same_bits = all(transfer(a, [0_int32]) == transfer(b, [0_int32]))
  end function same_bits

  !> Whether every element is NaN.
  pure logical function all_nan(a)
    real(real32), intent(in) :: a(:)

    all_nan = all(ieee_is_nan(a))
  end function all_nan
end module checks
