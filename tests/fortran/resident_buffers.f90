!> Type `sparkle_buffer`: written, read, used in place by kernels, in parts; refused ranges, types and copies. The argument names
!> the device; without one it is the CPU. Where it does not run kernels, a launch says so and changes nothing.
program resident_buffers
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
  use checks
  use sparkle
  use sparkle_kernel
  implicit none
  character(len=*), parameter :: SOURCE(*) = [character(len=60) :: &
    '!@kernel', &
    'subroutine add(i, n, a, x, y)', &
    '  use iso_fortran_env', &
    '  integer(int32), value :: i, n', &
    '  real(real32), value :: a', &
    '  real(real32), intent(in) :: x(0:n-1)', &
    '  real(real32), intent(inout) :: y(0:n-1)', &
    '  y(i) = a * x(i) + y(i)', &
    'end subroutine']
  type(sparkle_device) :: device
  character(len=20) :: selector

  call get_command_argument(1, selector)
  if (selector == '') selector = 'cpu'
  call device%open(selector)
  call contents()
  call kernels()
  call convolutions_and_products()
  call refused()
  call ownership()
  call finish()

contains

  subroutine contents()
    type(sparkle_buffer) :: buffer
    real(real32), target :: x(3, 4), back(12), wide(2, 6)
    real(real64), target :: doubles(5), doubles_back(5)
    integer(int32), target :: k
    integer(int64), target :: long(2)
    logical(int32), target :: flags(3), flags_back(3)

    x = reshape(data_of(12, 1), [3, 4])
    call buffer%create(12, device=device)
    call check(buffer%is_created() .and. buffer%length() == 12, 'created')
    back = 1.0_real32
    call buffer%read(back)
    call check(all(abs(back) <= 0.0_real32), 'zeros at first')
    call buffer%write(x)
    call buffer%read(back)
    call check(same_bits(back, [x]), 'a rank-2 array')
    call buffer%write(x(:, 2), first=10)
    wide = 0.0_real32
    call buffer%read(wide(:, 3:), first=5)
    call check(same_bits([wide(:, 3:)], [x(2:3, 2), x(:, 3), x(:, 2)]), 'parts')
    call buffer%read(back(1), first=12)
    call check(same_bits(back(:1), x(3:3, 2)), 'one element')

    doubles = [1.0_real64, 2.0_real64, 3.0_real64, 4.0_real64, 5.0_real64]
    call buffer%create(5, SPARKLE_TYPE_REAL64, device)
    call buffer%write(doubles)
    call buffer%read(doubles_back)
    call check(all(abs(doubles - doubles_back) <= 0.0_real64), 'doubles')
    call buffer%create(1, SPARKLE_TYPE_INT32, device)
    call buffer%write(42_int32)
    call buffer%read(k)
    call check(k == 42, 'an integer')
    call buffer%create(2, SPARKLE_TYPE_INT64, device)
    call buffer%write([2_int64**40, -1_int64])
    call buffer%read(long)
    call check(long(1) == 2_int64**40 .and. long(2) == -1, 'long integers')
    flags = [.true._int32, .false._int32, .true._int32]
    call buffer%create(3, SPARKLE_TYPE_LOGICAL, device)
    call buffer%write(flags)
    call buffer%read(flags_back)
    call check(all(flags .eqv. flags_back), 'logicals')
    call buffer%create(0, device=device)
    call check(buffer%length() == 0, 'nothing')
    call buffer%write(back(:0))
  end subroutine contents

  subroutine kernels()
    integer(int32), parameter :: N = 300
    type(sparkle_compiled_kernel) :: add
    type(sparkle_buffer) :: x, y
    real(real32), target :: a(N), b(N), back(N), host(N), before(N)
    character(len=200) :: errmsg
    integer :: stat, round
    logical :: runs

    a = anint(9.0_real32 * data_of(N, 2))
    b = anint(9.0_real32 * data_of(N, 3))
    host = b
    before = b
    call add%compile(SOURCE)
    call x%create(int(N), device=device)
    call y%create(int(N), device=device)
    call x%write(a)
    call y%write(b)
    errmsg = ''
    do round = 1, 3
      call add%launch([N], [arg(N), arg(2.0_real32), arg(x), inout(y)], stat, errmsg, device)
    end do
    runs = stat == SPARKLE_OK
    call check(runs .or. stat == SPARKLE_ERROR_UNSUPPORTED, errmsg)
    call check(runs .or. index(selector, 'gl:') == 0, 'GL devices run kernels')
    if (runs) b = b + 6.0_real32 * a
    call y%read(back)
    call check(all(abs(back - b) <= 0.0_real32), 'three launches')
    ! Parts, and arrays of the program beside buffers.
    call add%launch([100], [arg(100_int32), arg(1.0_real32), arg(x, 2, 100), inout(y, 201)], stat, errmsg, device)
    if (runs) b(201:) = b(201:) + a(2:101)
    call y%read(back)
    call check((stat == SPARKLE_OK .eqv. runs) .and. all(abs(back - b) <= 0.0_real32), 'parts')
    call add%launch([N], [arg(N), arg(1.0_real32), arg(y), inout(host)], stat, errmsg, device)
    call check((stat == SPARKLE_OK .eqv. runs) .and. (.not. runs .or. all(abs(host - back - before) <= 0.0_real32)), &
      'an array and a buffer')

    call refuse(add, [arg(N), arg(2.0_real32), arg(x), arg(y)], '"y" with read-only elements')
    call refuse(add, [arg(N), arg(2.0_real32), arg(x), inout(x)], '"y" with memory of "x"')
    call refuse(add, [arg(N), arg(2.0_real32), arg(x, 2), inout(y)], '"x" with 299 elements; expected at least 300')
    call refuse(add, [arg(N), arg(2.0_real32), arg(x, 2, 300), inout(y)], '"x" with 300 elements from 1 on')
    call refuse(add, [arg(N), arg(2.0_real32), arg(x, 0), inout(y)], '"x" with a part that lies outside')
    call refuse(add, [arg(N), arg(2.0_real32), arg(x, length=-1), inout(y)], '"x" with a part that lies outside')
    call y%create(int(N), SPARKLE_TYPE_INT32, device)
    call refuse(add, [arg(N), arg(2.0_real32), arg(x), inout(y)], '"y" with elements of type integer(int32)')
    call y%destroy()
    call add%launch([N], [arg(N), arg(2.0_real32), arg(x), inout(y)], stat, errmsg, device)
    call check(stat == SPARKLE_ERROR_INVALID_HANDLE .and. index(errmsg, '"y" is NULL') > 0, errmsg)
  end subroutine kernels

  subroutine refuse(kernel, args, expected)
    type(sparkle_compiled_kernel), intent(in) :: kernel
    type(sparkle_kernel_arg), intent(in) :: args(:)
    character(len=*), intent(in) :: expected
    character(len=200) :: errmsg
    integer :: stat

    errmsg = ''
    call kernel%launch([300], args, stat, errmsg, device)
    if (index(errmsg, expected) == 0) print '(a)', trim(errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, expected) > 0, expected)
  end subroutine refuse

  !> The same as on arrays.
  subroutine convolutions_and_products()
    type(sparkle_plan) :: plan
    type(sparkle_buffer) :: x, y, z, other
    type(sparkle_conv2d_desc) :: desc
    real(real32), target :: image(8, 9, 3, 2), weights(3, 3, 3, 4), maps(8, 9, 4, 2), back(8, 9, 4, 2)
    real(real32), target :: b(8, 5), c(72, 5), c_back(72, 5)
    type(sparkle_timing) :: timing
    character(len=200) :: errmsg
    integer :: stat

    image = reshape(anint(4.0_real32 * data_of(size(image), 4)), shape(image))
    weights = reshape(anint(4.0_real32 * data_of(size(weights), 5)), shape(weights))
    call plan%create(sparkle_conv2d_desc(n=2, h=9, w=8, pad_h=1, pad_w=1, algorithm=SPARKLE_ALGORITHM_DIRECT), weights, &
      device=device)
    call plan%execute(image, maps)
    call x%create(size(image), device=device)
    call y%create(size(maps) + 2, device=device)
    call x%write(image)
    call plan%execute(x, y, y_first=3)
    call y%read(back, first=3)
    call check(all(abs(back - maps) <= 0.0_real32) .and. any(abs(maps) > 0.5_real32), 'a convolution')
    call sparkle_last_timing(timing)
    call check(timing%dispatches > 0 .and. timing%device == device%selector(), 'its times')

    ! In one call, with weights and bias in buffers, too.
    desc = sparkle_conv2d_desc(n=2, c=3, h=9, w=8, k=4, r=3, s=3, pad_h=1, pad_w=1, algorithm=SPARKLE_ALGORITHM_DIRECT)
    call other%create(size(weights) + 4, device=device)
    call other%write(weights)
    call other%write([1.0_real32, 2.0_real32, 3.0_real32, 4.0_real32], first=size(weights) + 1)
    call conv2d(desc, x, other, y, device=device)
    call y%read(back)
    call check(all(abs(back - maps) <= 0.0_real32), 'a call')
    call conv2d(desc, x, other, y, other, y_first=3, bias_first=size(weights) + 1, device=device)
    call y%read(back, first=3)
    call check(all(abs(back(:, :, 3, :) - maps(:, :, 3, :) - 3.0_real32) <= 0.0_real32), 'a call with bias')
    call conv2d(desc, x, other, x, device=device, stat=stat, errmsg=errmsg)
    call check(index(errmsg, 'output is 576 elements from 0 on of a buffer') == 1, errmsg)
    call plan%execute(x, y, y_first=3)

    ! maps as 72 rows of 8: W*H x K*N.
    b = reshape(anint(3.0_real32 * data_of(40, 6)), [8, 5])
    c = 1.0_real32
    call z%create(size(c), device=device)
    call other%create(size(b), device=device)
    call z%write(c)
    call other%write(b)
    call sgemm(y, other, z, 72, 5, 8, a_first=3, alpha=2.0_real32, beta=-1.0_real32, device=device)
    call sgemm(reshape(maps, [72, 8]), b, c, alpha=2.0_real32, beta=-1.0_real32, device=device)
    call z%read(c_back)
    call check(all(abs(c_back - c) <= 0.0_real32) .and. any(abs(c) > 0.5_real32), 'a product')
    call sgemm(other, other, z, 5, 5, 8, transa='T', ldc=7, c_first=2, device=device)
    call z%read(c_back)
    call check(all(abs(c_back(2:6, 1) - matmul(transpose(b), b(:, 1))) <= 0.0_real32), 'with a leading dimension')
    call check(abs(c_back(1, 1) - c(1, 1)) <= 0.0_real32 .and. abs(c_back(7, 1) - c(7, 1)) <= 0.0_real32, 'gaps')

    call plan%execute(x, y, 2, stat=stat, errmsg=errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, 'input is 432 elements from 1 on') == 1, errmsg)
    call plan%execute(y, y, stat=stat, errmsg=errmsg)
    call check(errmsg == 'output is in the same memory as input; expected memory of its own', errmsg)
    call sgemm(y, other, z, 72, 5, 8, transb='x', device=device, stat=stat, errmsg=errmsg)
    call check(errmsg == 'transb is "x"; expected "N" or "T"', errmsg)
    call sgemm(y, other, z, 73, 5, 8, device=device, stat=stat, errmsg=errmsg)
    call check(index(errmsg, 'a is 584 elements from 0 on of a buffer') == 1, errmsg)
    call z%destroy()
    call sgemm(y, other, z, 72, 5, 8, device=device, stat=stat, errmsg=errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_HANDLE .and. errmsg == 'c is NULL', errmsg)
  end subroutine convolutions_and_products

  subroutine refused()
    type(sparkle_buffer) :: buffer
    type(sparkle_device) :: closed
    real(real32), target :: x(10)
    real(real64), target :: doubles(2)
    character(len=200) :: errmsg
    integer :: stat

    x = 7.0_real32
    doubles = 7.0_real64
    call buffer%write(x, stat=stat, errmsg=errmsg)
    call check(errmsg == 'the buffer is not created', errmsg)
    call buffer%create(-1, device=device, stat=stat, errmsg=errmsg)
    call check(errmsg == 'length is -1; expected at least 0', errmsg)
    call buffer%create(4, 9, device, stat, errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, 'type is 9') == 1, errmsg)
    call buffer%create(4, device=closed, stat=stat, errmsg=errmsg)
    call check(errmsg == 'device is not open', errmsg)
    call buffer%create(4, device=device)
    call buffer%write(x(:5), stat=stat, errmsg=errmsg)
    call check(errmsg == 'buffer range is 5 elements from 0 on; expected at most the 4 that it has', errmsg)
    call buffer%read(x(:2), 4, stat, errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'beyond the end')
    call buffer%read(x(:2), 0, stat, errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'before the beginning')
    call buffer%read(x(::3), stat=stat, errmsg=errmsg)
    call check(errmsg == 'x is not contiguous; expected contiguous elements', errmsg)
    call buffer%read(doubles, stat=stat, errmsg=errmsg)
    call check(errmsg == 'x has another type than the elements of the buffer', errmsg)
    call check(all(nint(x) == 7) .and. all(nint(doubles) == 7), 'the arrays are untouched')
  end subroutine refused

  subroutine ownership()
    type(sparkle_buffer) :: buffer, copy
    type(sparkle_buffer), allocatable :: many(:)
    real(real32), target :: x(2)
    character(len=200) :: errmsg
    integer :: stat

    call buffer%create(2, device=device)
    call buffer%write([1.0_real32, 2.0_real32])
    copy = buffer
    call copy%read(x, stat=stat, errmsg=errmsg)
    call check(errmsg == 'the buffer is a copy; buffers cannot be copied', errmsg)
    buffer = buffer
    allocate (many(3))
    call many(2)%create(2, device=device)
    deallocate (many)
    call buffer%read(x)
    call check(same_bits(x, [1.0_real32, 2.0_real32]), 'the original')
    ! A new one takes the place of the old one.
    call buffer%create(1, device=device)
    call check(buffer%length() == 1, 'created again')
    call sparkle_finalize()
    call buffer%read(x(1), stat=stat, errmsg=errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_HANDLE, errmsg)
    call buffer%destroy()
    call buffer%destroy()
    call check(.not. buffer%is_created(), 'destroyed')
    call device%close()
  end subroutine ownership
end program resident_buffers
