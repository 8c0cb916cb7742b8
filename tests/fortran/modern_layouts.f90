!> Module `sparkle`: channel-first arrays, paddings of every kind, one image, signals, double precision, weights that are
!> replaced, and the pure call. All results are exact, on small integers.
program modern_layouts
  use, intrinsic :: iso_fortran_env, only: int32, real32, real64
  use checks
  use sparkle
  implicit none
  integer, parameter :: N = 2, C = 6, H = 7, W = 9, K = 4, R = 3, S = 2
  type(sparkle_device) :: cpu
  character(len=200) :: message

  call cpu%open('cpu')
  call every_order_and_padding()
  call one_image()
  call signals()
  call double_precision()
  call replaced_weights()
  call in_pure_procedures()
  call refusals()
  call finish()

contains

  !> Integers from -3 to 3.
  function whole(length, seed) result(values)
    integer, intent(in) :: length, seed
    real(real32) :: values(length)

    values = anint(3 * data_of(length, seed))
  end function whole

  !> The definition, of x(W,H,C,N) and weights(S,R,C/groups,K), with these zeros above and left.
  subroutine define(x, weights, y, top, left, stride, groups)
    real(real32), intent(in) :: x(:, :, :, :), weights(:, :, :, :)
    real(real32), intent(out) :: y(:, :, :, :)
    integer, intent(in) :: top, left, stride, groups
    integer :: image, channel, first, p, q, i, j, row, column
    real(real64) :: total

    do image = 1, size(y, 4)
      do channel = 1, size(y, 3)
        first = (channel - 1) / (size(y, 3) / groups) * size(weights, 3)
        do p = 1, size(y, 2)
          do q = 1, size(y, 1)
            total = 0
            do i = 1, size(weights, 2)
              do j = 1, size(weights, 1)
                row = (p - 1) * stride + i - top
                column = (q - 1) * stride + j - left
                if (row < 1 .or. row > size(x, 2) .or. column < 1 .or. column > size(x, 1)) cycle
                total = total + sum(real(x(column, row, first + 1:first + size(weights, 3), image), real64) * &
                  weights(j, i, :, channel))
              end do
            end do
            y(q, p, channel, image) = real(total, real32)
          end do
        end do
      end do
    end do
  end subroutine define

  !> All orders of input, output and weights, as plans and calls, each with one-sided padding, with padding on four
  !> different sides, and with TensorFlow's.
  subroutine every_order_and_padding()
    integer, parameter :: padding(4, 3) = reshape([0, 1, 0, 1, 2, 0, 1, 3, -1, -1, -1, -1], [4, 3])
    real(real32), allocatable :: x(:, :, :, :), weights(:, :, :, :), y(:, :, :, :)
    real(real32), allocatable :: x_in(:, :, :, :), w_in(:, :, :, :), y_out(:, :, :, :)
    type(sparkle_conv2d_desc) :: desc
    type(sparkle_plan) :: plan
    integer :: kind, input, output, order, stride, groups, p, q, top, left

    do groups = 1, 2
      x = reshape(whole(N * C * H * W, 1), [W, H, C, N])
      weights = reshape(whole(K * C / groups * R * S, 2), [S, R, C / groups, K])
      do kind = 1, 3
        do stride = 1, 2
          desc = sparkle_conv2d_desc(n=N, h=H, w=W, c=C, stride_h=stride, stride_w=stride, groups=groups, &
            padding=SPARKLE_PADDING_SIDES, pad_h=padding(1, kind), pad_bottom=padding(2, kind), pad_w=padding(3, kind), &
            pad_right=padding(4, kind), algorithm=SPARKLE_ALGORITHM_DIRECT)
          if (padding(1, kind) < 0) then
            desc%padding = SPARKLE_PADDING_SAME
            desc%pad_h = 0
            desc%pad_bottom = 0
            desc%pad_w = 0
            desc%pad_right = 0
            p = (H + stride - 1) / stride
            q = (W + stride - 1) / stride
            top = max((p - 1) * stride + R - H, 0) / 2
            left = max((q - 1) * stride + S - W, 0) / 2
          else
            top = padding(1, kind)
            left = padding(3, kind)
            p = (H + top + padding(2, kind) - R) / stride + 1
            q = (W + left + padding(4, kind) - S) / stride + 1
          end if
          if (allocated(y)) deallocate (y)
          allocate (y(q, p, K, N))
          call define(x, weights, y, top, left, stride, groups)
          do input = SPARKLE_TENSOR_NCHW, SPARKLE_TENSOR_NHWC
            do output = SPARKLE_TENSOR_NCHW, SPARKLE_TENSOR_NHWC
              do order = SPARKLE_WEIGHTS_OIHW, SPARKLE_WEIGHTS_OHWI
                desc%input_layout = input
                desc%output_layout = output
                desc%weights_layout = order
                x_in = in_order(x, input)
                y_out = -in_order(y, output) - 1
                w_in = weights
                if (order == SPARKLE_WEIGHTS_HWIO) w_in = reshape(weights, [K, C / groups, S, R], order=[3, 4, 2, 1])
                if (order == SPARKLE_WEIGHTS_OHWI) w_in = reshape(weights, [C / groups, S, R, K], order=[2, 3, 1, 4])
                call conv2d(desc, x_in, w_in, y_out, device=cpu)
                call check(same(y_out, in_order(y, output)), 'a call')
                y_out = -1
                call plan%create(desc, w_in, device=cpu)
                call plan%execute(x_in, y_out)
                call check(same(y_out, in_order(y, output)), 'a plan')
              end do
            end do
          end do
        end do
      end do
    end do
  end subroutine every_order_and_padding

  function in_order(array, layout) result(ordered)
    real(real32), intent(in) :: array(:, :, :, :)
    integer, intent(in) :: layout
    real(real32), allocatable :: ordered(:, :, :, :)

    if (layout == SPARKLE_TENSOR_NCHW) then
      ordered = array
    else
      ordered = reshape(array, [size(array, 3), size(array, 1), size(array, 2), size(array, 4)], order=[2, 3, 1, 4])
    end if
  end function in_order

  logical function same(a, b)
    real(real32), intent(in) :: a(:, :, :, :), b(:, :, :, :)

    same = all(shape(a) == shape(b))
    if (same) same = all(a >= b .and. a <= b) .and. any(abs(a) > 0)
  end function same

  !> Rank 3, with the options of a call instead of a descriptor.
  subroutine one_image()
    real(real32) :: x(C, W, H), weights(K, C, S, R), y(K, W, H), b(K), expected(W, H, K, 1)
    real(real32) :: plain(W, H, C, 1)
    type(sparkle_plan) :: plan

    x = reshape(whole(size(x), 3), shape(x))
    weights = reshape(whole(size(weights), 4), shape(weights))
    b = whole(K, 5)
    plain(:, :, :, 1) = reshape(x, [W, H, C], order=[3, 1, 2])
    call define(plain, reshape(weights, [S, R, C, K], order=[4, 3, 1, 2]), expected, (R - 1) / 2, 0, 1, 1)
    call conv2d(x, weights, y, bias=b, same=.true., layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO, &
      device=cpu)
    call check(agree(y, expected, b), 'one image')
    y = -1
    call conv2d(x, weights, y, bias=b, pads=[1, 1, 0, 1], layout=SPARKLE_TENSOR_NHWC, &
      weights_layout=SPARKLE_WEIGHTS_HWIO, device=cpu)
    call check(agree(y, expected, b), 'one image with four paddings')
    call plan%create(sparkle_conv2d_desc(n=1, h=H, w=W, padding=SPARKLE_PADDING_SAME, input_layout=SPARKLE_TENSOR_NHWC, &
      output_layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO), weights, bias=b, device=cpu)
    y = -1
    call plan%execute(x, y)
    call check(agree(y, expected, b), 'a plan for one image')
  end subroutine one_image

  logical function agree(found, expected, b)
    real(real32), intent(in) :: found(:, :, :), expected(:, :, :, :), b(:)
    integer :: channel

    agree = .true.
    do channel = 1, size(b)
      agree = agree .and. all(abs(found(channel, :, :) - expected(:, :, channel, 1) - b(channel)) <= 0)
    end do
  end function agree

  !> Signals in every order, one and several.
  subroutine signals()
    integer, parameter :: L = 20, T = 5
    real(real32) :: x(L, C, N), weights(T, C, K), y(10, K, N), one(10, K), b(K)
    real(real32) :: first(C, L, N), of_first(K, 10, N), taps_last(C, T, K)
    real(real32) :: expected(10, 1, K, N), padded(L, 1, C, N)

    x = reshape(whole(size(x), 6), shape(x))
    weights = reshape(whole(size(weights), 7), shape(weights))
    b = 0
    padded(:, 1, :, :) = x
    call define(padded, reshape(weights, [T, 1, C, K]), expected, 0, 1, 2, 1)
    call conv1d(x, weights, y, stride=2, pads=[1, 2], device=cpu)
    call check(all(abs(y - expected(:, 1, :, :)) <= 0), 'signals')
    call conv1d(x(:, :, 2), weights, one, bias=b, stride=2, same=.true., device=cpu)
    call check(all(abs(one - expected(:, 1, :, 2)) <= 0), 'one signal')
    first = reshape(x, shape(first), order=[2, 1, 3])
    taps_last = reshape(weights, shape(taps_last), order=[2, 1, 3])
    call conv1d(first, taps_last, of_first, stride=2, pads=[1, 2], layout=SPARKLE_TENSOR_NHWC, &
      weights_layout=SPARKLE_WEIGHTS_OHWI, device=cpu)
    call check(all(abs(reshape(of_first, shape(y), order=[2, 1, 3]) - y) <= 0), 'channels first')
  end subroutine signals

  !> real64 arrays.
  subroutine double_precision()
    real(real64) :: x(C, W, H, N), weights(K, C, S, R), y(K, W - 1, H - 2, N), b(K)
    real(real32) :: single(K, W - 1, H - 2, N)
    integer :: stat

    x = reshape(whole(size(x), 8), shape(x))
    weights = reshape(whole(size(weights), 9), shape(weights))
    b = whole(K, 10)
    call conv2d(x, weights, y, bias=b, layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO, device=cpu)
    call conv2d(real(x, real32), real(weights, real32), single, bias=real(b, real32), layout=SPARKLE_TENSOR_NHWC, &
      weights_layout=SPARKLE_WEIGHTS_HWIO, device=cpu)
    call check(all(abs(y - single) <= 0) .and. any(abs(y) > 0), 'double precision')
    call conv2d(x, weights, y(:, :, :, :1), device=cpu, layout=SPARKLE_TENSOR_NHWC, &
      weights_layout=SPARKLE_WEIGHTS_HWIO, stat=stat, errmsg=message)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. message == 'y has extent 1 in dimension 4; expected 2', message)
    call check(all(abs(y - single) <= 0), 'untouched')
  end subroutine double_precision

  !> A plan whose weights change from step to step.
  subroutine replaced_weights()
    real(real32) :: x(W, H, C, N), weights(S, R, C, K), y(W - S + 1, H - R + 1, K, N), expected(W - S + 1, H - R + 1, K, N)
    type(sparkle_plan) :: plan
    integer :: step, stat

    x = reshape(whole(size(x), 11), shape(x))
    weights = 0
    call plan%create(sparkle_conv2d_desc(n=N, h=H, w=W), weights, device=cpu)
    do step = 1, 3
      weights = reshape(whole(size(weights), 20 + step), shape(weights))
      if (step < 3) call plan%set_weights(weights)
      if (step == 3) call plan%set_weights([weights])
      call plan%execute(x, y)
      call define(x, weights, expected, 0, 0, 1, 1)
      call check(same(y, expected), 'replaced weights')
    end do
    call plan%set_weights(weights(:, :, :, :2), stat=stat, errmsg=message)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'fewer weights')
    call check(message == 'weights has extent 2 in dimension 4; expected 4', message)
    call plan%set_weights(weights, bias=[1.0_real32], stat=stat, errmsg=message)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'a bias that it had not')
    y = -1
    call plan%execute(x, y)
    call check(same(y, expected), 'the old weights are still there')
  end subroutine replaced_weights

  pure function feature(x, weights) result(y)
    real(real32), intent(in) :: x(:, :, :, :), weights(:, :, :, :)
    real(real32) :: y(size(weights, 1), size(x, 2), size(x, 3), size(x, 4))

    call conv2d_pure(x, weights, y, same=.true., layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO)
  end function feature

  subroutine in_pure_procedures()
    real(real32) :: x(C, W, H, N), weights(K, C, S, R), y(K, W, H, N), few(K, C - 1, S, R), wrong(K, H, W, N)

    x = reshape(whole(size(x), 12), shape(x))
    weights = reshape(whole(size(weights), 13), shape(weights))
    call conv2d(x, weights, y, same=.true., layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO)
    call check(same(feature(x, weights), y), 'a pure function')
    few = weights(:, :C - 1, :, :)
    call check(all(is_nan(feature(x, few))), 'NaN for a wrong number of channels')
    wrong = 0
    call conv2d_pure(x, weights, wrong, same=.true., layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO)
    call check(all(is_nan(wrong)), 'NaN for rows in the place of columns')
    y = 0
    call conv2d_pure(x, weights, y, pad=-1, layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO)
    call check(all(is_nan(y)), 'NaN for a negative padding')
    call in_do_concurrent(x, weights)
    call of_signals()
  end subroutine in_pure_procedures

  !> One image at a time, of rank 3.
  subroutine in_do_concurrent(x, weights)
    real(real32), intent(in) :: x(C, W, H, N), weights(K, C, S, R)
    real(real32) :: y(K, W, H, N), expected(K, W, H, N)
    integer :: image

    call conv2d(x, weights, expected, same=.true., layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO)
    y = 0
    do concurrent (image = 1:N)
      call conv2d_pure(x(:, :, :, image), weights, y(:, :, :, image), same=.true., layout=SPARKLE_TENSOR_NHWC, &
        weights_layout=SPARKLE_WEIGHTS_HWIO)
    end do
    call check(same(y, expected), 'do concurrent')
    do concurrent (image = 1:N)
      call conv2d_pure(x(:, :, :, image), weights, y(:, :, :, image), layout=SPARKLE_TENSOR_NHWC, &
        weights_layout=SPARKLE_WEIGHTS_HWIO)
    end do
    call check(all(is_nan(y)), 'NaN for a wrong shape in do concurrent')
  end subroutine in_do_concurrent

  subroutine of_signals()
    integer, parameter :: L = 20, T = 5
    real(real32) :: x(L, C, N), weights(T, C, K), y(10, K, N), expected(10, K, N)
    integer :: signal

    x = reshape(whole(size(x), 14), shape(x))
    weights = reshape(whole(size(weights), 15), shape(weights))
    call conv1d(x, weights, expected, stride=2, pads=[1, 2])
    y = 0
    call conv1d_pure(x, weights, y, stride=2, pads=[1, 2])
    call check(all(abs(y - expected) <= 0) .and. any(abs(y) > 0), 'pure signals')
    y = 0
    do concurrent (signal = 1:N)
      call conv1d_pure(x(:, :, signal), weights, y(:, :, signal), stride=2, same=.true.)
    end do
    call check(all(abs(y - expected) <= 0), 'one pure signal')
    call conv1d_pure(x, weights, y, stride=3, pads=[1, 2])
    call check(all(is_nan(y)), 'NaN for a wrong stride')
  end subroutine of_signals

  !> By the bits, as a comparison could trap.
  elemental logical function is_nan(value)
    real(real32), intent(in) :: value

    is_nan = iand(transfer(value, 0_int32), 2147483647_int32) > 2139095040_int32
  end function is_nan

  subroutine refusals()
    real(real32) :: x(C, W, H, N), weights(K, C, S, R), y(K, W - 1, H - 2, N)
    integer :: stat

    x = 1
    weights = 1
    y = 7
    call conv2d(x, weights, y, layout=5, weights_layout=SPARKLE_WEIGHTS_HWIO, stat=stat, errmsg=message)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(message, 'input_layout is 5') == 1, message)
    call conv2d(x, weights, y, layout=SPARKLE_TENSOR_NHWC, weights_layout=-1, stat=stat, errmsg=message)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(message, 'weights_layout is -1') == 1, message)
    call conv2d(x, weights, y, layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO, pads=[0, 0, -2, 0], &
      stat=stat, errmsg=message)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(message, 'pad_w is -2') == 1, message)
    call conv2d(x, weights, y, layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO, pad=1, same=.true., &
      stat=stat, errmsg=message)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(message, 'pad_h is 1; expected 0') == 1, message)
    call conv2d(x, weights, y(:, :, 2:, :), layout=SPARKLE_TENSOR_NHWC, weights_layout=SPARKLE_WEIGHTS_HWIO, stat=stat, &
      errmsg=message)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. message == 'y has extent 4 in dimension 3; expected 5', message)
    call check(all(y >= 7 .and. y <= 7), 'untouched')
    call conv1d(x(:, :, 1, 1), weights(:, :, :, 1), y(:, :2, 1, 1), layout=SPARKLE_TENSOR_NHWC, &
      weights_layout=SPARKLE_WEIGHTS_HWIO, stat=stat, errmsg=message)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. message == 'y has extent 2 in dimension 2; expected 8', message)
  end subroutine refusals
end program modern_layouts
