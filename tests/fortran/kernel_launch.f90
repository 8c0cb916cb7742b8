!> Module `sparkle_kernel`: kernels compiled from text, lines and files, launched with arrays of every type and of several ranks,
!> refused arguments, ownership. The argument names the device; without one, `auto` chooses it. Where it does not run kernels, a
!> launch says so and changes nothing.
program kernel_launch
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
  use checks
  use sparkle
  use sparkle_kernel
  implicit none
  character(len=*), parameter :: MIXED(*) = [character(len=80) :: &
    '!@kernel', &
    'subroutine mixed(i, n, a, yes, x, k, flags, y)', &
    '  use iso_fortran_env', &
    '  integer(int32), value :: i, n', &
    '  real(real32), value :: a', &
    '  logical, value :: yes', &
    '  real(real32), intent(in) :: x(0:n-1)', &
    '  integer(int32), intent(inout) :: k(0:n-1)', &
    '  logical, intent(inout) :: flags(0:n-1)', &
    '  real(real32), intent(out) :: y(0:n-1)', &
    '  y(i) = a * x(i)', &
    '  if (flags(i) .and. yes) y(i) = -y(i)', &
    '  flags(i) = .not. flags(i)', &
    '  k(i) = 2 * k(i) + 1', &
    'end subroutine']
  character(len=*), parameter :: OTHERS(*) = [character(len=80) :: &
    '!@kernel(dims=2, base=1)', &
    'subroutine place(i, j, n, m, y)', &
    '  use iso_fortran_env', &
    '  integer(int32), value :: i, j, n, m', &
    '  real(real32), intent(out) :: y(n, m)', &
    '  y(i, j) = i + 100 * j', &
    'end subroutine', &
    '!@kernel(local_size_x=32)', &
    '!@reduce(+: total)', &
    'subroutine Add(i, x, total)', &
    '  use iso_fortran_env', &
    '  integer(int32), value :: i', &
    '  real(real32), intent(in) :: x', &
    '  real(real32), intent(inout) :: total', &
    '  total = total + x', &
    'end subroutine', &
    '!@kernel', &
    'subroutine doubled(i, a, x)', &
    '  use iso_fortran_env', &
    '  integer(int32), value :: i', &
    '  real(real64), value :: a', &
    '  real(real64), intent(inout) :: x', &
    '  x = a * x', &
    'end subroutine', &
    '!@kernel', &
    'subroutine long(i, a, x)', &
    '  use iso_fortran_env', &
    '  integer(int32), value :: i', &
    '  integer(int64), value :: a', &
    '  integer(int64), intent(inout) :: x', &
    '  x = a * x', &
    'end subroutine']
  type(sparkle_device) :: device
  character(len=20) :: selector
  logical :: runs

  call get_command_argument(1, selector)
  if (selector == '') selector = 'auto'
  call device%open(selector)
  call find_out()
  call all_types()
  call ranks()
  call several_kernels()
  call sources_that_do_not_compile()
  call refused_arguments()
  call refused_launches()
  call ownership()
  call finish()

contains

  !> Whether the device runs kernels.
  subroutine find_out()
    type(sparkle_compiled_kernel) :: kernel
    real(real32), target :: x(3)
    integer :: stat
    character(len=200) :: errmsg

    x = 1.0_real32
    call kernel%compile(OTHERS, 'add')
    errmsg = ''
    call kernel%launch([3], [arg(x), inout(x(1:1))], stat, errmsg, device)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, '"total" with memory of "x"') > 0, errmsg)
    call kernel%launch([2], [arg(x(2:)), inout(x(1))], stat, errmsg, device)
    runs = stat == SPARKLE_OK
    call check(runs .or. stat == SPARKLE_ERROR_UNSUPPORTED, errmsg)
    call check(same_bits(x, [merge(3.0_real32, 1.0_real32, runs), 1.0_real32, 1.0_real32]), 'a first sum')
    ! The tests name the device only where it must run them.
    call check(runs .or. index(selector, 'gl:') == 0, 'GL devices run kernels')
  end subroutine find_out

  subroutine check_ran(stat, errmsg, what)
    integer, intent(in) :: stat
    character(len=*), intent(in) :: errmsg, what

    if (stat /= merge(SPARKLE_OK, SPARKLE_ERROR_UNSUPPORTED, runs)) print '(2a)', what, ': ', trim(errmsg)
    call check(stat == merge(SPARKLE_OK, SPARKLE_ERROR_UNSUPPORTED, runs), what)
  end subroutine check_ran

  subroutine all_types()
    integer(int32), parameter :: N = 500
    type(sparkle_compiled_kernel) :: kernel
    real(real32), target :: x(N), y(N)
    integer(int32), target :: k(N), k_before(N)
    logical(int32), target :: flags(N), flags_before(N)
    real(real64), target :: doubles(4)
    integer(int64), target :: longs(4)
    integer :: i, stat
    character(len=200) :: errmsg

    x = anint(9.0_real32 * data_of(N, 1))
    k = [(i - 100_int32, i = 1, N)]
    k_before = k
    flags = [(logical(mod(i, 3) == 0, int32), i = 1, N)]
    flags_before = flags
    y = 9.0_real32
    call kernel%compile(MIXED)
    call check(kernel%name() == 'mixed' .and. kernel%is_compiled() .and. kernel%warnings() == '', 'compiled')
    errmsg = ''
    call kernel%launch([N], [arg(N), arg(4.0_real32), arg(.true._int32), arg(x), inout(k), inout(flags), inout(y)], stat, &
      errmsg, device)
    call check_ran(stat, errmsg, 'all types')
    if (runs) then
      call check(all(k == 2 * k_before + 1) .and. all(flags .neqv. flags_before), 'integers and logicals')
      call check(all(abs(y - merge(-4.0_real32, 4.0_real32, flags_before) * x) <= 0.0_real32), 'reals')
    else
      call check(all(k == k_before) .and. all(flags .eqv. flags_before) .and. all(nint(y) == 9), 'untouched')
    end if

    ! Not every device has these types.
    doubles = [1.0_real64, 2.0_real64, 3.0_real64, 4.0_real64]
    call kernel%compile(OTHERS, 'doubled')
    call kernel%launch([4], [arg(3.0_real64), inout(doubles)], stat, errmsg, device)
    call check(stat == SPARKLE_OK .or. stat == SPARKLE_ERROR_UNSUPPORTED, 'doubles')
    call check(nint(sum(doubles)) == merge(30, 10, stat == SPARKLE_OK), 'the doubles')
    longs = [1_int64, 2_int64, 3_int64, 4_int64]
    call kernel%compile(OTHERS, 'long')
    call kernel%launch([4_int64], [arg(2_int64**40), inout(longs)], stat, errmsg, device)
    call check(stat == SPARKLE_OK .or. stat == SPARKLE_ERROR_UNSUPPORTED, 'long integers')
    call check(sum(longs) == merge(2_int64**40, 1_int64, stat == SPARKLE_OK) * 10, 'the long integers')
  end subroutine all_types

  !> Arrays of rank 1 to 5, sections, arguments of arguments.
  subroutine ranks()
    type(sparkle_compiled_kernel) :: kernel
    real(real32), target :: one(6), two(3, 4), three(2, 3, 4), four(2, 2, 2, 2), five(2, 1, 2, 1, 2), none(0)
    real(real32), allocatable, target :: allocated(:, :)
    real(real32), pointer :: pointed(:)
    real(real32), target :: total

    one = 1.0_real32
    two = 1.0_real32
    three = 1.0_real32
    four = 1.0_real32
    five = 1.0_real32
    allocate (allocated(5, 3), source=1.0_real32)
    pointed => one(2:5)
    total = 1000.0_real32
    call kernel%compile(OTHERS, 'ADD')
    call add_all(kernel, arg(one), 6, total)
    call add_all(kernel, arg(two), 12, total)
    call add_all(kernel, arg(three), 24, total)
    call add_all(kernel, arg(four), 16, total)
    call add_all(kernel, arg(five), 8, total)
    call add_all(kernel, arg(allocated), 15, total)
    call add_all(kernel, arg(pointed), 4, total)
    call add_all(kernel, arg(two(:, 2:3)), 6, total)
    call add_all(kernel, arg(three(:, :, 3)), 6, total)
    call add_all(kernel, arg(one(4:4)), 1, total)
    call add_all(kernel, arg(none), 0, total)
    call dummies(kernel, one, two, 6, total)
    call check(nint(total) == 1000 + merge(6 + 12 + 24 + 16 + 8 + 15 + 4 + 6 + 6 + 1 + 6 + 12 + 5, 0, runs), 'sums')
  end subroutine ranks

  subroutine add_all(kernel, x, n, total)
    type(sparkle_compiled_kernel), intent(in) :: kernel
    type(sparkle_kernel_arg), intent(in) :: x
    integer, intent(in) :: n
    real(real32), intent(inout), target :: total
    character(len=200) :: errmsg
    integer :: stat

    errmsg = ''
    call kernel%launch([int(n, int64)], [x, inout(total)], stat, errmsg, device)
    ! Without points the CPU answers, if it runs kernels.
    call check_ran(merge(merge(SPARKLE_OK, SPARKLE_ERROR_UNSUPPORTED, runs), stat, n == 0), errmsg, 'a sum')
  end subroutine add_all

  subroutine dummies(kernel, x, y, n, total)
    type(sparkle_compiled_kernel), intent(in) :: kernel
    integer, intent(in) :: n
    real(real32), intent(in), target :: x(*), y(:, :)
    real(real32), intent(inout), target :: total
    character(len=200) :: errmsg
    integer :: stat

    call add_all(kernel, arg(x(:n)), n, total)
    call add_all(kernel, arg(y), size(y), total)
    call add_all(kernel, arg(x(2:n)), n - 1, total)
    call kernel%launch([n], [arg(x), inout(total)], stat, errmsg, device)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, '"x" with an array of assumed size') > 0, errmsg)
  end subroutine dummies

  subroutine several_kernels()
    type(sparkle_compiled_kernel) :: kernel
    real(real32), target :: y(7, 5), expected(7, 5)
    character(len=300) :: errmsg
    integer :: i, j, stat, unit
    character(len=*), parameter :: FILE = 'kernel_launch_test.f90'

    ! Lines become a text with line ends, and so does a file.
    open (newunit=unit, file=FILE, status='replace', action='write')
    write (unit, '(a)') (trim(OTHERS(i)), i = 1, size(OTHERS))
    close (unit)
    call kernel%compile_file(FILE, 'place')
    open (newunit=unit, file=FILE, status='old')
    close (unit, status='delete')
    call check(kernel%name() == 'place' .and. index(kernel%warnings(), 'warning[K904]') == 1, kernel%warnings())
    y = -1.0_real32
    expected = reshape([((real(i + 100 * j, real32), i = 1, 7), j = 1, 5)], [7, 5])
    errmsg = ''
    call kernel%launch([7, 5], [arg(7_int32), arg(5_int32), inout(y)], stat, errmsg, device)
    call check_ran(stat, errmsg, 'two dimensions')
    call check(same_bits([y], [merge(expected, spread(spread(-1.0_real32, 1, 7), 2, 5), runs)]), 'the places')
    call kernel%compile('!@kernel' // new_line('a') // 'subroutine f(i, y)' // new_line('a') // 'integer, value :: i' // &
      new_line('a') // 'real, intent(out) :: y' // new_line('a') // 'y = i' // new_line('a') // 'end')
    call check(kernel%name() == 'f', 'a text')
    call kernel%compile(OTHERS, stat=stat, errmsg=errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, 'one of: place, Add, doubled, long') > 0, errmsg)
    call check(kernel%name() == 'f', 'a failure keeps the old kernel')
  end subroutine several_kernels

  subroutine sources_that_do_not_compile()
    type(sparkle_compiled_kernel) :: kernel
    character(len=2000) :: errmsg
    integer :: stat

    errmsg = ''
    call kernel%compile([character(len=40) :: '!@kernel', 'subroutine f(i)', 'integer, value :: i', 'x = 1', 'end'], &
      stat=stat, errmsg=errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, 'error[K206]') > 0, errmsg)
    call check(.not. kernel%is_compiled() .and. kernel%name() == '' .and. kernel%warnings() == '', 'nothing')
    call kernel%compile('', stat=stat, errmsg=errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, 'K219') > 0, errmsg)
    call kernel%compile(MIXED, 'other', stat, errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, 'one of: mixed') > 0, errmsg)
    call kernel%compile_file('no such file.f90', stat=stat, errmsg=errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, 'no such file.f90') > 0, errmsg)
  end subroutine sources_that_do_not_compile

  subroutine refused_arguments()
    integer(int32), parameter :: N = 6
    type(sparkle_compiled_kernel) :: kernel
    real(real32), target :: x(N), y(N), wide(2, N)
    real(real64), target :: doubles(N)
    integer(int32), target :: k(N)
    logical(int32), target :: flags(N)

    x = 1.0_real32
    y = -5.0_real32
    wide = 1.0_real32
    doubles = 1.0_real64
    k = 3
    flags = .true.
    call kernel%compile(MIXED)
    call refuse(kernel, [arg(N), arg(1.0_real32), arg(.true._int32), arg(x), inout(k), inout(flags), arg(y)], &
      '"y" with read-only elements; expected elements that may be written')
    call refuse(kernel, [arg(N), arg(1.0_real32), arg(.true._int32), arg(x), inout(k), inout(flags), inout(y(:5))], &
      '"y" with 5 elements; expected at least 6')
    call refuse(kernel, [arg(N), arg(1.0_real32), arg(.true._int32), arg(wide(1, :)), inout(k), inout(flags), inout(y)], &
      '"x" with a section that is not contiguous; expected contiguous elements')
    call refuse(kernel, [arg(N), arg(1.0_real32), arg(.true._int32), arg(doubles), inout(k), inout(flags), inout(y)], &
      '"x" with elements of type real(real64); expected real(real32)')
    call refuse(kernel, [arg(N), arg(1.0_real64), arg(.true._int32), arg(x), inout(k), inout(flags), inout(y)], &
      '"a" with type real(real64); expected real(real32)')
    call refuse(kernel, [arg(N), arg(1.0_real32), arg(1_int32), arg(x), inout(k), inout(flags), inout(y)], &
      '"yes" with type integer(int32); expected logical')
    call refuse(kernel, [arg(N), arg(1.0_real32), arg(.true._int32), arg(x), inout(flags), inout(flags), inout(y)], &
      '"k" with elements of type logical; expected integer(int32)')
    call refuse(kernel, [arg(N), arg(1.0_real32), arg(.true._int32), arg(x), inout(k), inout(flags), inout(x)], &
      '"y" with memory of "x"; expected arrays that do not overlap where one is written')
    call refuse(kernel, [arg(N), arg(x), arg(.true._int32), arg(x), inout(k), inout(flags), inout(y)], &
      '"a" with an array of real(real32); expected a scalar of real(real32)')
    call refuse(kernel, [arg(N), arg(1.0_real32), arg(.true._int32), arg(1.0_real32), inout(k), inout(flags), inout(y)], &
      '"x" with a scalar of real(real32); expected an array of real(real32)')
    call refuse(kernel, [arg(N), arg(1.0_real32)], 'number of kernel arguments is 2; expected 7 for kernel "mixed"')
    call check(all(nint(x) == 1) .and. all(nint(y) == -5) .and. all(k == 3) .and. all(flags), 'all arrays are untouched')
  end subroutine refused_arguments

  subroutine refuse(kernel, args, expected)
    type(sparkle_compiled_kernel), intent(in) :: kernel
    type(sparkle_kernel_arg), intent(in) :: args(:)
    character(len=*), intent(in) :: expected
    character(len=200) :: errmsg
    integer :: stat

    errmsg = ''
    call kernel%launch([6], args, stat, errmsg, device)
    if (index(errmsg, expected) == 0) print '(a)', trim(errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, expected) > 0, expected)
  end subroutine refuse

  subroutine refused_launches()
    type(sparkle_compiled_kernel) :: kernel
    type(sparkle_device) :: closed
    real(real32), target :: x(3)
    character(len=200) :: errmsg
    integer :: stat

    x = 1.0_real32
    call kernel%launch([3], [arg(x)], stat, errmsg, device)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. errmsg == 'the kernel is not compiled', errmsg)
    call kernel%compile(OTHERS, 'Add')
    call kernel%launch([3, 1], [arg(x(:2)), inout(x(3))], stat, errmsg, device)
    call check(errmsg == 'extents has 2 elements; expected 1 for kernel "Add"', errmsg)
    call kernel%launch([-1], [arg(x(:2)), inout(x(3))], stat, errmsg, device)
    call check(errmsg == 'extents[0] is -1; expected 0 to 2147483647', errmsg)
    call kernel%launch([2], [arg(x(:2)), inout(x(3))], stat, errmsg, closed)
    call check(errmsg == 'device is not open', errmsg)
    call check(all(nint(x) == 1), 'the array is untouched')
  end subroutine refused_launches

  subroutine ownership()
    type(sparkle_compiled_kernel) :: kernel, copy
    type(sparkle_compiled_kernel), allocatable :: many(:)
    real(real32), target :: x(2)
    character(len=200) :: errmsg
    integer :: stat

    x = 1.0_real32
    call kernel%compile(OTHERS, 'add')
    copy = kernel
    call check(.not. copy%is_compiled() .and. kernel%is_compiled(), 'a copy is empty')
    call copy%launch([1], [arg(x(:1)), inout(x(2))], stat, errmsg, device)
    call check(errmsg == 'the kernel is a copy; kernels cannot be copied', errmsg)
    kernel = kernel
    call check(kernel%is_compiled(), 'assigned to itself')
    allocate (many(3))
    call many(2)%compile(OTHERS, 'add')
    call many(2)%launch([1], [arg(x(:1)), inout(x(2))], stat, errmsg, device)
    call check_ran(stat, errmsg, 'an element of an array')
    deallocate (many)
    call kernel%launch([1], [arg(x(:1)), inout(x(2))], stat, errmsg, device)
    call check_ran(stat, errmsg, 'the original')
    call kernel%destroy()
    call kernel%destroy()
    call check(.not. kernel%is_compiled(), 'destroyed')
    call kernel%compile(OTHERS, 'add')
    call sparkle_finalize()
    call kernel%launch([1], [arg(x(:1)), inout(x(2))], stat, errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_HANDLE, errmsg)
    call kernel%destroy()
    call device%close()
  end subroutine ownership
end program kernel_launch
