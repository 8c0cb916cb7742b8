!> Module `sparkle`: convolution on rank-4 and flat arrays and strided sections, with every option, and plans.
program modern_conv2d
  use, intrinsic :: iso_fortran_env, only: int64, real32
  use checks
  use sparkle
  implicit none
  type(sparkle_device) :: cpu

  call cpu%open('cpu')
  call rank4_with_every_option()
  call many_shapes()
  call strided_sections()
  call automatic_device()
  call plans()
  call algorithms()
  call memory_of_a_plan()
  call empty_batches('cpu')
  call empty_batches('auto')
  call finish()

contains

  !> An empty batch. Nothing is computed, but sizes and weights are still checked.
  subroutine empty_batches(selector)
    character(len=*), intent(in) :: selector
    type(sparkle_device) :: device
    type(sparkle_plan) :: plan
    type(sparkle_pipeline) :: pipeline
    type(sparkle_ticket) :: ticket
    type(sparkle_timing) :: timing
    type(sparkle_conv2d_desc) :: desc
    real(real32) :: x(9, 7, 4, 0), w(3, 3, 2, 6), b(6), y(9, 7, 6, 0), other(9, 7, 6, 1)
    real(real32), target, asynchronous :: none_in(0), none_out(0)
    integer(int64) :: packed, workspace
    integer :: p, q, stat

    w = reshape(data_of(size(w), 2), shape(w))
    b = data_of(size(b), 3)
    call device%open(selector)
    call conv2d(x, w, y, bias=b, pad=1, groups=2, relu=.true., device=device, stat=stat)
    call check(stat == SPARKLE_OK, selector // ': an empty batch')
    call sparkle_last_timing(timing)
    call check(timing%kernel_ms <= 0 .and. timing%wall_ms <= 0 .and. timing%device == 'cpu', selector // ': zero time')
    desc = sparkle_conv2d_desc(n=0, c=4, h=7, w=9, k=6, r=3, s=3, pad_h=1, pad_w=1, groups=2)
    call sparkle_output_size(desc, p, q)
    call check(p == 7 .and. q == 9, 'the output of an empty batch has a height and a width')
    call conv2d(desc, none_in, [w], none_out, bias=b, device=device, stat=stat)
    call check(stat == SPARKLE_OK, selector // ': flat')
    call plan%create(desc, [w], bias=b, device=device)
    call plan%memory(packed, workspace)
    call check(packed == 0 .and. workspace == 0, 'a plan without memory')
    call plan%execute(x, y, stat)
    call check(stat == SPARKLE_OK, selector // ': a plan, rank 4')
    call plan%execute(none_in, none_out, stat)
    call check(stat == SPARKLE_OK, selector // ': a plan, flat')
    call pipeline%open(device)
    call pipeline%submit(plan, none_in, none_out, ticket)
    call ticket%wait(stat=stat)
    call check(stat == SPARKLE_OK, selector // ': a job')
    call pipeline%close()
    other = 5.0_real32
    call conv2d(x, w, other, pad=1, groups=2, device=device, stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'an output for a batch of one')
    call conv2d(x, w(:, :, :, 1:5), y, pad=1, groups=2, device=device, stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'too few weights')
    call conv2d(x, w, y, bias=b(1:5), pad=1, groups=2, device=device, stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'too few biases')
    call check(all(abs(other - 5.0_real32) <= 0.0_real32), 'the output is unchanged')
  end subroutine empty_batches

  subroutine rank4_with_every_option()
    type(conv) :: cv
    real(real32) :: x(9, 7, 4, 2), w(3, 3, 2, 6), b(6)
    real(real32), allocatable :: y(:, :, :, :), other(:, :, :, :)

    x = reshape(data_of(size(x), 1), shape(x))
    w = reshape(data_of(size(w), 2), shape(w))
    b = data_of(size(b), 3)
    cv = conv(n=2, c=4, h=7, w=9, k=6, r=3, s=3, stride_h=2, stride_w=2, pad_h=2, pad_w=2, dilation_h=2, dilation_w=2, &
      groups=2, relu=.true.)
    allocate (y(cv%q(), cv%p(), 6, 2), source=-7.0_real32)
    allocate (other, source=y)
    call conv2d(x, w, y, bias=b, stride=2, pad=2, dilation=2, groups=2, relu=.true., device=cpu)
    call check(agrees(cv, flat(x), flat(w), flat(y), b), 'stride, pad, dilation, groups, bias and relu')
    call conv2d(sparkle_conv2d_desc(stride_h=2, stride_w=2, pad_h=2, pad_w=2, dilation_h=2, dilation_w=2, groups=2, &
      relu=.true.), x, w, other, bias=b, device=cpu)
    call check(same_bits(flat(y), flat(other)), 'the same by descriptor')
  end subroutine rank4_with_every_option

  !> Each option alone, with different values for height and width. H /= W, C /= K and N > 1 in every case. Rank-4 and flat
  !> arrays give the same bits.
  subroutine many_shapes()
    type(conv) :: list(9)
    integer :: i

    list = [conv(n=1, c=1, h=1, w=1, k=1, r=1, s=1), &
      conv(n=2, c=3, h=5, w=8, k=4, r=1, s=1), &
      conv(n=3, c=2, h=6, w=5, k=5, r=2, s=3), &
      conv(n=2, c=3, h=9, w=6, k=2, r=3, s=2, stride_h=2, stride_w=3), &
      conv(n=2, c=3, h=4, w=7, k=2, r=3, s=3, pad_h=1, pad_w=2), &
      conv(n=1, c=2, h=9, w=11, k=3, r=3, s=2, dilation_h=2, dilation_w=4), &
      conv(n=2, c=6, h=5, w=4, k=9, r=3, s=3, pad_h=1, pad_w=1, groups=3), &
      conv(n=2, c=4, h=5, w=6, k=4, r=3, s=3, groups=4, relu=.true.), &
      conv(n=2, c=3, h=12, w=10, k=8, r=7, s=5, stride_h=3, stride_w=2, pad_h=3, pad_w=1)]
    do i = 1, size(list)
      call one_shape(list(i), i, .false.)
      call one_shape(list(i), i, .true.)
    end do
  end subroutine many_shapes

  subroutine one_shape(cv, seed, with_bias)
    type(conv), intent(in) :: cv
    integer, intent(in) :: seed
    logical, intent(in) :: with_bias
    real(real32) :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len())
    real(real32) :: x4(cv%w, cv%h, cv%c, cv%n), w4(cv%s, cv%r, cv%c / cv%groups, cv%k), y4(cv%q(), cv%p(), cv%k, cv%n)
    real(real32), allocatable :: b(:)

    x = data_of(cv%x_len(), seed)
    w = data_of(cv%w_len(), seed + 100)
    ! An unallocated actual argument is an absent argument.
    if (with_bias) allocate (b, source=data_of(cv%k, seed + 200))
    y = huge(y)
    call conv2d(desc_of(cv), x, w, y, bias=b, device=cpu)
    call check(agrees(cv, x, w, y, b), 'a flat shape')

    x4 = reshape(x, shape(x4))
    w4 = reshape(w, shape(w4))
    y4 = -huge(y4)
    call conv2d(desc_of(cv), x4, w4, y4, bias=b, device=cpu)
    call check(same_bits(flat(y4), y), 'the same shape as rank 4')
  end subroutine one_shape

  !> Every array is a section: every other column, reversed rows, channels of a larger array. Elements outside of the output
  !> section do not change.
  subroutine strided_sections()
    type(conv) :: cv
    real(real32) :: x(14, 6, 8, 2), w(6, 3, 3, 10), b(15), y(16, 8, 5, 4), before(16, 8, 5, 4), flat_x(3000), flat_y(2000)
    real(real32), allocatable :: packed(:, :, :, :)
    integer :: p, q

    cv = conv(n=2, c=3, h=6, w=7, k=5, r=3, s=3, pad_h=1, pad_w=1)
    p = cv%p()
    q = cv%q()
    x = reshape(data_of(size(x), 11), shape(x))
    w = reshape(data_of(size(w), 12), shape(w))
    b = data_of(size(b), 13)
    y = reshape(data_of(size(y), 14), shape(y))
    before = y
    call conv2d(x(1:14:2, 6:1:-1, 2:6:2, :), w(6:1:-2, :, :, 2:10:2), y(2:2 * q:2, 1:p, 5:1:-1, 1:4:3), bias=b(3:15:3), &
      pad=1, device=cpu)
    allocate (packed, source=y(2:2 * q:2, 1:p, 5:1:-1, 1:4:3))
    call check(agrees(cv, flat(x(1:14:2, 6:1:-1, 2:6:2, :)), flat(w(6:1:-2, :, :, 2:10:2)), flat(packed), b(3:15:3)), &
      'strided rank-4 sections')
    y(2:2 * q:2, 1:p, 5:1:-1, 1:4:3) = before(2:2 * q:2, 1:p, 5:1:-1, 1:4:3)
    call check(same_bits(flat(y), flat(before)), 'nothing outside the section changed')

    flat_x = data_of(size(flat_x), 15)
    flat_y = 0.0_real32
    call conv2d(desc_of(cv), flat_x(3:2 + 3 * cv%x_len():3), flat(w(1:3, :, :, 1:5)), flat_y(2 * cv%y_len():2:-2), device=cpu)
    call check(agrees(cv, flat_x(3:2 + 3 * cv%x_len():3), flat(w(1:3, :, :, 1:5)), flat_y(2 * cv%y_len():2:-2)), &
      'strided flat sections, the output reversed')
    call check(all(abs(flat_y(1:2 * cv%y_len():2)) <= 0.0_real32), 'the gaps are unchanged')
  end subroutine strided_sections

  !> Without a device argument, the library chooses a device.
  subroutine automatic_device()
    type(conv) :: cv
    type(sparkle_timing) :: timing
    real(real32), allocatable :: x(:), w(:), y(:)

    cv = conv(n=1, c=3, h=8, w=9, k=4, r=3, s=3)
    allocate (x, source=data_of(cv%x_len(), 21))
    allocate (w, source=data_of(cv%w_len(), 22))
    allocate (y(cv%y_len()))
    call conv2d(desc_of(cv), x, w, y)
    call check(agrees(cv, x, w, y), 'automatic device')
    call sparkle_last_timing(timing)
    call check(timing%device /= '' .and. timing%kernel /= '' .and. timing%wall_ms > 0.0d0, 'its timing')
    call check(.not. timing%fell_back .and. timing%fallback == '', 'nothing failed')
  end subroutine automatic_device

  subroutine plans()
    type(sparkle_plan) :: plan
    type(conv) :: cv
    real(real32), allocatable :: x(:), w(:), y(:), b(:), y4(:, :, :, :)
    integer :: i

    cv = conv(n=2, c=4, h=8, w=5, k=6, r=3, s=2, stride_w=2, pad_h=1, groups=2, relu=.true.)
    allocate (x(cv%x_len()), y(cv%y_len()), y4(cv%q(), cv%p(), cv%k, cv%n))
    allocate (w, source=data_of(cv%w_len(), 31))
    allocate (b, source=data_of(cv%k, 32))
    call check(.not. plan%is_created(), 'not created yet')
    call plan%create(desc_of(cv), w, bias=b, device=cpu)
    call check(plan%is_created(), 'a plan')
    do i = 1, 3
      x(:) = data_of(cv%x_len(), 33 + i)
      y = 0.0_real32
      call plan%execute(x, y)
      call check(agrees(cv, x, w, y, b), 'a plan executed')
    end do
    call plan%execute(reshape(x, [cv%w, cv%h, cv%c, cv%n]), y4)
    call check(same_bits(flat(y4), y), 'a plan executed on rank 4')

    ! Creating again replaces the plan. Rank-4 weights provide their sizes.
    w(:) = data_of(cv%w_len(), 40)
    call plan%create(sparkle_conv2d_desc(n=2_int64, h=8_int64, w=5_int64, stride_w=2_int64, pad_h=1_int64, &
      groups=2_int64, relu=.true.), reshape(w, [cv%s, cv%r, cv%c / cv%groups, cv%k]), device=cpu)
    call plan%execute(x, y)
    call check(agrees(cv, x, w, y), 'a plan created again, without bias')
    call plan%destroy()
    call plan%destroy()
    call check(.not. plan%is_created(), 'a plan destroyed, twice')
  end subroutine plans

  !> The descriptor selects the algorithm for plans and calls. An impossible algorithm is refused.
  subroutine algorithms()
    type(sparkle_plan) :: plan
    type(sparkle_conv2d_desc) :: desc
    type(sparkle_timing) :: timing
    type(conv) :: cv
    real(real32), allocatable :: x(:), w(:), y(:)
    character(len=200) :: message
    integer :: stat

    cv = conv(n=1, c=16, h=9, w=10, k=17, r=3, s=3, pad_h=1, pad_w=1)
    allocate (x, source=data_of(cv%x_len(), 51))
    allocate (w, source=data_of(cv%w_len(), 52))
    allocate (y(cv%y_len()))
    desc = desc_of(cv)
    desc%algorithm = SPARKLE_ALGORITHM_DIRECT
    call plan%create(desc, w, device=cpu)
    call plan%execute(x, y)
    call sparkle_last_timing(timing)
    call check(index(timing%kernel, 'winograd') == 0 .and. agrees(cv, x, w, y), 'direct, as requested')
    ! Small convolutions use the direct algorithm by default. Winograd needs vector instructions that this CPU may lack.
    desc%algorithm = SPARKLE_ALGORITHM_WINOGRAD
    message = ''
    call conv2d(desc, x, w, y, device=cpu, stat=stat, errmsg=message)
    if (stat == SPARKLE_OK) then
      call sparkle_last_timing(timing)
      call check(index(timing%kernel, 'conv_winograd') == 1 .and. agrees(cv, x, w, y), 'Winograd, as requested')
    else
      call check(stat == SPARKLE_ERROR_UNSUPPORTED .and. index(message, 'AVX') > 0, 'no Winograd on this CPU')
    end if
    desc%stride_h = 2
    call conv2d(desc, x, w, y(:17 * 5 * 10), device=cpu, stat=stat, errmsg=message)
    call check(stat == SPARKLE_ERROR_UNSUPPORTED .and. index(message, 'Winograd') > 0, 'Winograd with a stride')
    desc%algorithm = 3
    call plan%create(desc, w, device=cpu, stat=stat, errmsg=message)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(message, 'algorithm is 3') > 0, 'no such algorithm')
  end subroutine algorithms

  subroutine memory_of_a_plan()
    type(sparkle_plan) :: plan
    type(conv) :: cv
    integer(int64) :: packed, workspace
    integer :: stat

    packed = -1
    workspace = -1
    call plan%memory(packed, workspace, stat=stat)
    call check(stat /= SPARKLE_OK .and. packed == -1 .and. workspace == -1, 'an empty plan has no memory')
    cv = conv(n=1, c=8, h=9, w=10, k=17, r=3, s=3)
    call plan%create(desc_of(cv), data_of(cv%w_len(), 61), device=cpu)
    call plan%memory(packed, workspace)
    call check(packed >= 4 * cv%w_len() .and. packed <= 16 * cv%w_len(), 'packed weights')
    call check(workspace > 0 .and. workspace <= 4 * 1024 * 1024, 'the workspace of one thread')
  end subroutine memory_of_a_plan

  pure type(sparkle_conv2d_desc) function desc_of(cv)
    type(conv), intent(in) :: cv

    desc_of = sparkle_conv2d_desc(n=int(cv%n, int64), c=int(cv%c, int64), h=int(cv%h, int64), w=int(cv%w, int64), &
      k=int(cv%k, int64), r=int(cv%r, int64), s=int(cv%s, int64), stride_h=int(cv%stride_h, int64), &
      stride_w=int(cv%stride_w, int64), pad_h=int(cv%pad_h, int64), pad_w=int(cv%pad_w, int64), &
      dilation_h=int(cv%dilation_h, int64), dilation_w=int(cv%dilation_w, int64), groups=int(cv%groups, int64), &
      relu=cv%relu)
  end function desc_of

  pure function flat(array) result(values)
    real(real32), intent(in) :: array(:, :, :, :)
    real(real32) :: values(size(array))

    values = reshape(array, [size(array)])
  end function flat
end program modern_conv2d
