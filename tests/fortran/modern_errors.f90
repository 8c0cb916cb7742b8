!> Module `sparkle`: an error names the bad argument, its value and the expected value. `stat` and `errmsg` behave as in ALLOCATE.
!> Outputs are unchanged.
program modern_errors
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32
  use checks
  use sparkle
  implicit none
  real(real32) :: x(7, 6, 4, 2), w(3, 3, 2, 6), y(5, 4, 6, 2), b(6)
  type(sparkle_device) :: cpu
  type(sparkle_plan) :: plan
  integer :: stat
  character(len=200) :: errmsg
  integer(int64), parameter :: MOST = huge(0_int32)

  call cpu%open('cpu')
  x = reshape(data_of(size(x), 1), shape(x))
  w = reshape(data_of(size(w), 2), shape(w))
  b = data_of(size(b), 3)
  y = 5.0_real32

  call success_changes_no_message()
  call descriptor_errors()
  call rank4_errors()
  call flat_errors()
  call plan_errors()
  call device_errors()
  call sgemm_errors()
  call finish()

contains

  !> Checks that the last call failed with the message `expected` and did not change y.
  subroutine refused(expected, code)
    character(len=*), intent(in) :: expected
    integer, intent(in), optional :: code
    integer :: wanted

    wanted = SPARKLE_ERROR_INVALID_ARGUMENT
    if (present(code)) wanted = code
    call report_unless_equal(errmsg, expected)
    call check(stat == wanted, 'the code of: ' // expected)
    call check(all(abs(y - 5.0_real32) <= 0.0_real32), 'y unchanged after: ' // expected)
    errmsg = 'untouched'
    stat = -99
  end subroutine refused

  subroutine success_changes_no_message()
    errmsg = 'untouched'
    call conv2d(x, w, y, groups=2, device=cpu, stat=stat, errmsg=errmsg)
    call check(stat == SPARKLE_OK .and. errmsg == 'untouched', 'success leaves errmsg alone')
    y = 5.0_real32
  end subroutine success_changes_no_message

  subroutine descriptor_errors()
    call conv2d(x, w, y, groups=2, stride=0, device=cpu, stat=stat, errmsg=errmsg)
    call refused('stride_h is 0; expected 1 to 2147483647')
    call conv2d(x, w, y, groups=2, pad=-1, device=cpu, stat=stat, errmsg=errmsg)
    call refused('pad_h is -1; expected 0 to 2147483647')
    call conv2d(x, w, y, groups=2, dilation=0, device=cpu, stat=stat, errmsg=errmsg)
    call refused('dilation_h is 0; expected 1 to 2147483647')
    call conv2d(x, w, y, groups=0, device=cpu, stat=stat, errmsg=errmsg)
    call refused('groups is 0; expected 1 to 2147483647')
    call conv2d(x, w, y, groups=3, device=cpu, stat=stat, errmsg=errmsg)
    call refused('groups is 3; expected a divisor of c = 4 and of k = 6')
    call conv2d(x, w, y, groups=2, dilation=3, device=cpu, stat=stat, errmsg=errmsg)
    call refused('r is 3; expected a kernel no larger than the padded input: with dilation 3 it spans 7, the input 6')
    call conv2d(x(:, :, :, 1:0), w, y, groups=2, device=cpu, stat=stat, errmsg=errmsg)
    call refused('y has extent 2 in dimension 4; expected 0')
  end subroutine descriptor_errors

  subroutine rank4_errors()
    call conv2d(x, w(:, :, 1:1, :), y, groups=2, device=cpu, stat=stat, errmsg=errmsg)
    call refused('weights has extent 1 in dimension 3; expected 2')
    call conv2d(x, w, y, device=cpu, stat=stat, errmsg=errmsg)
    call refused('weights has extent 2 in dimension 3; expected 4')
    call conv2d(x, w, y(1:4, :, :, :), groups=2, device=cpu, stat=stat, errmsg=errmsg)
    call refused('y has extent 4 in dimension 1; expected 5')
    call conv2d(x, w, y, groups=2, pad=1, device=cpu, stat=stat, errmsg=errmsg)
    call refused('y has extent 5 in dimension 1; expected 7')
    call conv2d(x, w, y(:, 2:4, :, :), groups=2, device=cpu, stat=stat, errmsg=errmsg)
    call refused('y has extent 3 in dimension 2; expected 4')
    call conv2d(x, w, y(:, :, 1:5, :), groups=2, device=cpu, stat=stat, errmsg=errmsg)
    call refused('y has extent 5 in dimension 3; expected 6')
    call conv2d(x, w, y(:, :, :, 1:1), groups=2, device=cpu, stat=stat, errmsg=errmsg)
    call refused('y has extent 1 in dimension 4; expected 2')
    call conv2d(x, w, y, bias=b(1:5), groups=2, device=cpu, stat=stat, errmsg=errmsg)
    call refused('bias has 5 elements; expected 6')
    call conv2d(sparkle_conv2d_desc(n=3_int64, groups=2_int64), x, w, y, device=cpu, stat=stat, errmsg=errmsg)
    call refused('x has extent 2 in dimension 4; expected 3')
    call conv2d(sparkle_conv2d_desc(w=8_int64, groups=2_int64), x, w, y, device=cpu, stat=stat, errmsg=errmsg)
    call refused('x has extent 7 in dimension 1; expected 8')
    call conv2d(sparkle_conv2d_desc(r=2_int64, groups=2_int64), x, w, y, device=cpu, stat=stat, errmsg=errmsg)
    call refused('weights has extent 3 in dimension 2; expected 2')
    call conv2d(sparkle_conv2d_desc(k=4_int64, groups=2_int64), x, w, y, device=cpu, stat=stat, errmsg=errmsg)
    call refused('weights has extent 6 in dimension 4; expected 4')
  end subroutine rank4_errors

  subroutine flat_errors()
    type(sparkle_conv2d_desc) :: desc
    real(real32) :: fx(48), fw(12), fy(32)
    integer :: p, q

    desc = sparkle_conv2d_desc(n=1, c=2, h=4, w=6, k=2, r=1, s=3)
    p = -1
    q = -1
    call sparkle_output_size(desc, p, q)
    call check(p == 4 .and. q == 4, 'output size')
    fx = 1.0_real32
    fw = 1.0_real32
    fy = 5.0_real32
    call conv2d(desc, fx(1:47), fw, fy, stat=stat, errmsg=errmsg)
    call refused('x has 47 elements; expected 48')
    call conv2d(desc, fx, fw(1:11), fy, stat=stat, errmsg=errmsg)
    call refused('weights has 11 elements; expected 12')
    call conv2d(desc, fx, fw, fy(1:24), stat=stat, errmsg=errmsg)
    call refused('y has 24 elements; expected 32')
    desc%c = 0
    call conv2d(desc, fx, fw, fy, stat=stat, errmsg=errmsg)
    call refused('c is 0; expected 1 to 2147483647')
    call sparkle_output_size(desc, p, q, stat, errmsg)
    call refused('c is 0; expected 1 to 2147483647')
    call check(p == 4 .and. q == 4, 'output size unchanged')
    desc = sparkle_conv2d_desc(n=MOST, c=MOST, h=MOST, w=MOST, k=1, r=1, s=1)
    call conv2d(desc, fx, fw, fy, stat=stat, errmsg=errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, 'input size n*c*h*w is') == 1, 'overflow')
    call check(all(abs(fy - 5.0_real32) <= 0.0_real32), 'flat y unchanged')
    ! A negative number of groups gives a negative number of channels.
    call plan%create(sparkle_conv2d_desc(n=1, h=6, w=7, groups=-1), w, stat=stat, errmsg=errmsg)
    call refused('c is -2; expected 1 to 2147483647')
  end subroutine flat_errors

  subroutine plan_errors()
    call plan%execute(x, y, stat, errmsg)
    call refused('the plan is not created')
    call plan%create(sparkle_conv2d_desc(groups=2), w, device=cpu, stat=stat, errmsg=errmsg)
    call refused('h is 0; expected 1 to 2147483647')
    call plan%create(sparkle_conv2d_desc(n=2, h=6, w=7, groups=2), w, device=cpu)
    call plan%execute(x(:, :, :, 1:1), y, stat, errmsg)
    call refused('x has extent 1 in dimension 4; expected 2')
    call plan%execute(x, y(:, 1:3, :, :), stat, errmsg)
    call refused('y has extent 3 in dimension 2; expected 4')
    call plan%create(sparkle_conv2d_desc(n=2, h=6, w=7, groups=2), w, bias=b(1:2), device=cpu, stat=stat, errmsg=errmsg)
    call refused('bias has 2 elements; expected 6')
    call plan%execute(x, y)
    call check(agrees(conv(n=2, c=4, h=6, w=7, k=6, r=3, s=3, groups=2), [x], [w], [y]), &
      'the plan survived a failed create')
    y = 5.0_real32
  end subroutine plan_errors

  subroutine device_errors()
    type(sparkle_device) :: device
    type(sparkle_timing) :: timing

    call conv2d(x, w, y, groups=2, device=device, stat=stat, errmsg=errmsg)
    call refused('device is not open')
    call device%open('quantum', stat, errmsg)
    call check(index(errmsg, '"quantum"') + index(errmsg, 'quantum') > 0, 'the selector is named')
    errmsg = repeat('x', len(errmsg))
    call device%open('gl:4711', stat, errmsg)
    call check(stat == SPARKLE_ERROR_NO_DEVICE .and. index(errmsg, 'gl:4711') > 0, 'no such device')
    call check(errmsg(len(errmsg):) == ' ', 'errmsg is padded')
    call check(.not. device%is_open() .and. device%selector() == '', 'the device is still closed')
    call sparkle_set_num_threads(0, stat, errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. errmsg /= '', 'no threads')
    stat = -99
    call sparkle_last_timing(timing, stat)
    call check(stat == SPARKLE_OK .and. timing%device == 'cpu', 'a timing')
  end subroutine device_errors

  subroutine sgemm_errors()
    real(real32) :: a(4, 3), bb(3, 5), c(4, 5)

    a = 1.0_real32
    bb = 1.0_real32
    c = 7.0_real32
    call sgemm(a(1:3, :), bb, c, stat=stat, errmsg=errmsg)
    call refused('a has extent 3 in dimension 1; expected 4')
    call sgemm(a, bb(1:2, :), c, stat=stat, errmsg=errmsg)
    call refused('b has extent 2 in dimension 1; expected 3')
    call sgemm(a, bb(:, 1:4), c, stat=stat, errmsg=errmsg)
    call refused('b has extent 4 in dimension 2; expected 5')
    call sgemm(a, bb, c, transb='T', stat=stat, errmsg=errmsg)
    call refused('b has extent 5 in dimension 2; expected 3')
    call sgemm(a, bb, c, transa='T', stat=stat, errmsg=errmsg)
    call refused('a has extent 3 in dimension 2; expected 4')
    call sgemm(a, bb, c, transa='x', stat=stat, errmsg=errmsg)
    call refused('transa is "x"; expected "N" or "T"')
    call sgemm(a, bb, c, transb=' ', stat=stat, errmsg=errmsg)
    call refused('transb is " "; expected "N" or "T"')
    call sgemm(a, bb, c, m=5, stat=stat, errmsg=errmsg)
    call refused('a has extent 4 in dimension 1; expected at least 5')
    call sgemm(a, bb, c, k=4, stat=stat, errmsg=errmsg)
    call refused('a has extent 3 in dimension 2; expected at least 4')
    call sgemm(a, bb, c, n=-1, stat=stat, errmsg=errmsg)
    call refused('n is -1; expected 0 to 2147483647')
    call check(all(abs(c - 7.0_real32) <= 0.0_real32), 'c unchanged')
  end subroutine sgemm_errors
end program modern_errors
