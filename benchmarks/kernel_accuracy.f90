!> The largest error of each function of kernels on real(real32), against real(real64) of the Fortran compiler, on one device.
!>
!>   make -C fortran
!>   gfortran benchmarks/kernel_accuracy.f90 -Ifortran/build/gfortran-12 -Lfortran/build/gfortran-12 -lsparkle_fortran \
!>     -Ltarget/release -lsparkle -Wl,-rpath,$PWD/target/release
!>   SPARKLE_DEVICE=cpu ./a.out
!>
!> `ulp` is the error in units in the last place of the exact result, `absolute` the error itself. Arguments x are spread evenly over
!> the range, or their logarithms are; y is from -5 to 5.
program kernel_accuracy
  use, intrinsic :: iso_fortran_env, only: int32, real32, real64
  use sparkle
  use sparkle_kernel
  implicit none
  integer, parameter :: n = 200000, count = 24
  character(len=*), parameter :: FUNCTIONS(count) = [character(len=20) :: 'x / y', 'sqrt(x)', 'exp(x)', 'log(x)', 'log(x)', &
    'log10(x)', 'sin(x)', 'sin(x)', 'cos(x)', 'cos(x)', 'tan(x)', 'asin(x)', 'acos(x)', 'atan(x)', 'atan2(x, y)', 'sinh(x)', &
    'sinh(x)', 'cosh(x)', 'tanh(x)', 'tanh(x)', 'x ** y', 'x ** 5', 'mod(x, y)', 'modulo(x, y)']
  ! A range from a positive number to one over it is one of logarithms.
  real(real64), parameter :: LOW(count) = [1.0d-10, 1.0d-30, -87.0d0, 1.0d-30, 0.5d0, 1.0d-30, -3.14d0, -100.0d0, -3.14d0, &
    -100.0d0, -1.5d0, -1.0d0, -1.0d0, -100.0d0, -100.0d0, -1.0d0, -80.0d0, -80.0d0, &
    -1.0d0, -10.0d0, 1.0d-2, -100.0d0, -100.0d0, -100.0d0]
  real(real64), parameter :: HIGH(count) = [1.0d10, 1.0d30, 88.0d0, 1.0d30, 2.0d0, 1.0d30, 3.14d0, 100.0d0, 3.14d0, 100.0d0, &
    1.5d0, 1.0d0, 1.0d0, 100.0d0, 100.0d0, 1.0d0, 80.0d0, 80.0d0, 1.0d0, 10.0d0, 1.0d2, 100.0d0, 100.0d0, 100.0d0]
  type(sparkle_device) :: device
  type(sparkle_compiled_kernel) :: kernel
  type(sparkle_timing) :: timing
  real(real32), target :: x(n), y(n), z(n)
  real(real64) :: exact(n), u(n), v(n), at
  integer :: i, which

  call device%open()
  do i = 1, n
    y(i) = real(-5 + 10 * modulo(i * 0.6180339887498949d0, 1.0d0), real32)
  end do
  do which = 1, count
    do i = 1, n
      at = (i - 0.5d0) / n
      if (LOW(which) > 0 .and. LOW(which) < 0.1d0) then
        x(i) = real(LOW(which) * (HIGH(which) / LOW(which)) ** at, real32)
      else
        x(i) = real(LOW(which) + (HIGH(which) - LOW(which)) * at, real32)
      end if
    end do
    call kernel%compile([character(len=60) :: '!@kernel(contract=off)', 'pure subroutine f(i, n, x, y, z)', &
      '  use iso_fortran_env, only: int32, real32', '  integer(int32), value :: i, n', &
      '  real(real32), intent(in) :: x, y', '  real(real32), intent(out) :: z', &
      '  z = ' // FUNCTIONS(which), 'end subroutine'])
    call kernel%launch([n], [arg(n), arg(x), arg(y), inout(z)], device=device)
    u = x
    v = y
    select case (FUNCTIONS(which))
    case ('x / y')
      exact = u / v
    case ('sqrt(x)')
      exact = sqrt(u)
    case ('exp(x)')
      exact = exp(u)
    case ('log(x)')
      exact = log(u)
    case ('log10(x)')
      exact = log10(u)
    case ('sin(x)')
      exact = sin(u)
    case ('cos(x)')
      exact = cos(u)
    case ('tan(x)')
      exact = tan(u)
    case ('asin(x)')
      exact = asin(u)
    case ('acos(x)')
      exact = acos(u)
    case ('atan(x)')
      exact = atan(u)
    case ('atan2(x, y)')
      exact = atan2(u, v)
    case ('sinh(x)')
      exact = sinh(u)
    case ('cosh(x)')
      exact = cosh(u)
    case ('tanh(x)')
      exact = tanh(u)
    case ('x ** y')
      exact = u ** v
    case ('x ** 5')
      exact = u ** 5
    case ('mod(x, y)')
      exact = mod(u, v)
    case ('modulo(x, y)')
      exact = modulo(u, v)
    end select
    call sparkle_last_timing(timing)
    print '(3a,es8.1,a,es8.1,a,f12.2,a,es8.1)', trim(timing%device), ' ', FUNCTIONS(which), LOW(which), ' to ', &
      HIGH(which), ':', maxval(abs(z - exact) / spacing(real(exact, real32))), ' ulp, absolute ', maxval(abs(z - exact))
  end do
end program kernel_accuracy
