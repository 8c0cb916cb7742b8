!> Module `sparkle` on every usable GL device, opened by id: convolution by a call and by a plan, matrix products, copied handles.
program modern_gl
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use checks
  use sparkle
  implicit none
  type(sparkle_device_info), allocatable :: list(:)
  integer :: i, used

  call sparkle_devices(list)
  used = 0
  do i = 1, size(list)
    if (list(i)%kind /= SPARKLE_KIND_GL .or. .not. list(i)%usable) cycle
    used = used + 1
    call on_device(trim(list(i)%id))
    call on_several(trim(list(i)%id))
  end do
  call check(used > 0, 'a usable GL device')
  call finish()

contains

  subroutine on_device(id)
    character(len=*), intent(in) :: id
    type(conv), parameter :: CV = conv(n=2, c=4, h=9, w=12, k=6, r=3, s=2, stride_w=2, pad_h=1, dilation_h=2, groups=2, &
      relu=.true.)
    type(sparkle_device) :: device, copy
    type(sparkle_plan) :: plan
    type(sparkle_timing) :: timing
    real(real32) :: x(12, 9, 4, 4), w(2, 3, 2, 6), b(6), y(CV%w / 2, 7, 6, 2)
    real(real32) :: a(20, 9), bb(9, 13), c(20, 13)

    x = reshape(data_of(size(x), 1), shape(x))
    w = reshape(data_of(size(w), 2), shape(w))
    b = data_of(size(b), 3)
    call device%open(id)
    copy = device
    call device%close()
    call check(copy%selector() == id, 'the selector')
    y = huge(y)
    ! Every other image of a batch.
    call conv2d(desc(), x(:, :, :, 1:4:2), w, y, bias=b, device=copy)
    call check(agrees(CV, [x(:, :, :, 1:4:2)], [w], [y], b), 'conv2d on ' // id)
    call sparkle_last_timing(timing)
    call check(timing%device == id .and. timing%kernel /= '' .and. timing%dispatches >= 1, 'its timing')
    call check(timing%kernel_ms >= 0.0d0 .and. timing%wall_ms > 0.0d0 .and. .not. timing%fell_back, 'its kernel and wall times')

    call plan%create(desc(), w, bias=b, device=copy)
    call copy%close()
    y = huge(y)
    call plan%execute(x(:, :, :, 4:3:-1), y)
    call check(agrees(CV, [x(:, :, :, 4:3:-1)], [w], [y], b), 'a plan on ' // id)

    a = reshape(data_of(size(a), 4), shape(a))
    bb = reshape(data_of(size(bb), 5), shape(bb))
    c = huge(c)
    call copy%open(id)
    call sgemm(a, bb, c, device=copy)
    call check(all(abs(c - matmul(real(a, real64), real(bb, real64))) <= 1.0e-5_real64), 'sgemm on ' // id)
  end subroutine on_device

  !> Two images of four for the GPU, two for the CPU; and a product.
  subroutine on_several(id)
    character(len=*), intent(in) :: id
    type(conv), parameter :: CV = conv(n=4, c=4, h=9, w=12, k=6, r=3, s=2, stride_w=2, pad_h=1, dilation_h=2, groups=2, &
      relu=.true.)
    type(sparkle_device) :: device
    type(sparkle_share), allocatable :: shares(:)
    type(sparkle_prediction), allocatable :: predictions(:)
    integer :: stat
    type(sparkle_timing) :: timing
    real(real32) :: x(12, 9, 4, 4), w(2, 3, 2, 6), b(6), y(CV%w / 2, 7, 6, 4)
    real(real32) :: a(20, 9), bb(9, 130), c(20, 130)

    x = reshape(data_of(size(x), 1), shape(x))
    w = reshape(data_of(size(w), 2), shape(w))
    b = data_of(size(b), 3)
    call device%open('multi:' // id // '=1,cpu=1')
    y = huge(y)
    call conv2d(desc4(), x, w, y, bias=b, device=device)
    call check(agrees(CV, [x], [w], [y], b), 'conv2d on multi')
    call sparkle_last_timing(timing)
    call sparkle_last_shares(shares)
    call check(timing%device == 'multi' .and. size(shares) == 2, 'two shares')
    if (size(shares) /= 2) return
    call check(shares(1)%device == id .and. shares(2)%device == 'cpu', 'the devices of the shares')
    call check(all(shares%dimension == SPARKLE_DIMENSION_IMAGES) .and. all(shares%count == 2), 'two images each')
    call check(all(shares%first == [1, 3]) .and. all(shares%measured_ms > 0), 'the first images and the times')

    call sparkle_predict(sparkle_conv2d_desc(n=4, c=8, h=9, w=12, k=8, r=3, s=3), predictions, device=device)
    call check(size(predictions) == 2, 'two predictions')
    if (size(predictions) /= 2) return
    call check(predictions(1)%device == id .and. predictions(2)%device == 'cpu', 'the devices of the predictions')
    call check(all(predictions%predicted_ms > 0) .and. all(predictions%is_next) .and. all(predictions%reason == ''), &
      'they are known')
    call check(all(predictions%measured_ms < 0), 'only auto measures')
    call sparkle_predict(sparkle_conv2d_desc(n=4, c=8, h=9, w=12, k=8, r=30, s=3), predictions, device=device, stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. size(predictions) == 0, 'a kernel larger than the image')

    a = reshape(data_of(size(a), 4), shape(a))
    bb = reshape(data_of(size(bb), 5), shape(bb))
    c = huge(c)
    call sgemm(a, bb, c, device=device)
    call check(all(abs(c - matmul(real(a, real64), real(bb, real64))) <= 1.0e-5_real64), 'sgemm on multi')
    call sparkle_last_shares(shares)
    call check(all(shares%dimension == SPARKLE_DIMENSION_COLUMNS) .and. sum(shares%count) == 130, 'shares of the columns')
  end subroutine on_several

  pure type(sparkle_conv2d_desc) function desc4()
    desc4 = sparkle_conv2d_desc(n=4, h=9, w=12, stride_w=2, pad_h=1, dilation_h=2, groups=2, relu=.true.)
  end function desc4

  pure type(sparkle_conv2d_desc) function desc()
    desc = sparkle_conv2d_desc(n=2, h=9, w=12, stride_w=2, pad_h=1, dilation_h=2, groups=2, relu=.true.)
  end function desc
end program modern_gl
