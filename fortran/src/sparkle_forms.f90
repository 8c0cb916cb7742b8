!> Other forms of `conv2d`: one image of rank 3, signals of one dimension, double precision, and a pure one.
!>
!> Part of module `sparkle`; programs use that module. The arguments that forms share have the same names and meaning.
module sparkle_forms
  use, intrinsic :: ieee_arithmetic, only: ieee_quiet_nan, ieee_value
  use, intrinsic :: iso_c_binding, only: c_double, c_float, c_int64_t, c_ptr, c_size_t
  use sparkle_c
  use sparkle_convolution, only: check_shapes, conv2d, convolve, sparkle_plan
  use sparkle_descriptors, only: as_c, completed, described, matches, sparkle_conv2d_desc
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_support
  implicit none
  private
  public :: conv1d, conv1d_pure, conv2d, conv2d_pure

  interface conv2d
    module procedure conv2d_rank3
    module procedure conv2d_desc_rank3
    module procedure conv2d_real64
    module procedure conv2d_desc_real64
  end interface conv2d

  !> `call conv1d(x, weights, y, ...)` for signals x(W,C,N), weights(S,C/groups,K) and y(Q,K,N), or one signal x(W,C) and
  !> y(Q,K). With `layout=SPARKLE_TENSOR_NHWC` x(C,W,N) and y(K,Q,N); with `weights_layout` SPARKLE_WEIGHTS_HWIO
  !> weights(K,C/groups,S), with SPARKLE_WEIGHTS_OHWI weights(C/groups,S,K).
  interface conv1d
    module procedure conv1d_rank3
    module procedure conv1d_rank2
  end interface conv1d

  !> `conv2d` on the device "auto" for pure procedures and `do concurrent`, for images or one image. It has no status: if
  !> anything is wrong, all of y is NaN.
  interface conv2d_pure
    module procedure conv2d_pure_rank4
    module procedure conv2d_pure_rank3
  end interface conv2d_pure

  !> `conv1d`, likewise.
  interface conv1d_pure
    module procedure conv1d_pure_rank3
    module procedure conv1d_pure_rank2
  end interface conv1d_pure

contains

  !> One image: x(W,H,C) into y(Q,P,K), or x(C,W,H) into y(K,Q,P).
  subroutine conv2d_rank3(x, weights, y, bias, stride, pad, dilation, groups, relu, device, stat, errmsg, pads, same, &
    layout, weights_layout)
    real(c_float), intent(in) :: x(:, :, :)
    real(c_float), intent(in) :: weights(:, :, :, :)
    real(c_float), intent(inout) :: y(:, :, :)
    real(c_float), intent(in), optional :: bias(:)
    integer, intent(in), optional :: stride
    integer, intent(in), optional :: pad
    integer, intent(in), optional :: dilation
    integer, intent(in), optional :: groups
    logical, intent(in), optional :: relu
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    integer, intent(in), optional :: pads(4)
    logical, intent(in), optional :: same
    integer, intent(in), optional :: layout
    integer, intent(in), optional :: weights_layout

    call conv2d_desc_rank3(described(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout), x, weights, &
      y, bias, device, stat, errmsg)
  end subroutine conv2d_rank3

  !> The same with a descriptor.
  subroutine conv2d_desc_rank3(desc, x, weights, y, bias, device, stat, errmsg)
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in) :: x(:, :, :)
    real(c_float), intent(in) :: weights(:, :, :, :)
    real(c_float), intent(inout) :: y(:, :, :)
    real(c_float), intent(in), optional :: bias(:)
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call convolve(desc, x, [shape(x), 1], weights, shape(weights), y, [shape(y), 1], .false., bias, device, problem)
    call settle('conv2d', problem, stat, errmsg)
  end subroutine conv2d_desc_rank3

  !> Signals: see `conv1d`. `pads` is the padding before and after a signal.
  subroutine conv1d_rank3(x, weights, y, bias, stride, pad, dilation, groups, relu, device, stat, errmsg, pads, same, &
    layout, weights_layout)
    real(c_float), intent(in) :: x(:, :, :)
    real(c_float), intent(in) :: weights(:, :, :)
    real(c_float), intent(inout) :: y(:, :, :)
    real(c_float), intent(in), optional :: bias(:)
    integer, intent(in), optional :: stride
    integer, intent(in), optional :: pad
    integer, intent(in), optional :: dilation
    integer, intent(in), optional :: groups
    logical, intent(in), optional :: relu
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    integer, intent(in), optional :: pads(2)
    logical, intent(in), optional :: same
    integer, intent(in), optional :: layout
    integer, intent(in), optional :: weights_layout
    type(failure) :: problem
    type(sparkle_conv2d_desc) :: desc

    desc = of_signals(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout)
    call convolve(desc, x, with_row(shape(x), desc%input_layout), weights, &
      with_kernel_row(shape(weights), desc%weights_layout), y, with_row(shape(y), desc%output_layout), .true., bias, device, &
      problem)
    call settle('conv1d', problem, stat, errmsg)
  end subroutine conv1d_rank3

  !> One signal: x(W,C) into y(Q,K), or x(C,W) into y(K,Q).
  subroutine conv1d_rank2(x, weights, y, bias, stride, pad, dilation, groups, relu, device, stat, errmsg, pads, same, &
    layout, weights_layout)
    real(c_float), intent(in) :: x(:, :)
    real(c_float), intent(in) :: weights(:, :, :)
    real(c_float), intent(inout) :: y(:, :)
    real(c_float), intent(in), optional :: bias(:)
    integer, intent(in), optional :: stride
    integer, intent(in), optional :: pad
    integer, intent(in), optional :: dilation
    integer, intent(in), optional :: groups
    logical, intent(in), optional :: relu
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    integer, intent(in), optional :: pads(2)
    logical, intent(in), optional :: same
    integer, intent(in), optional :: layout
    integer, intent(in), optional :: weights_layout
    type(failure) :: problem
    type(sparkle_conv2d_desc) :: desc

    desc = of_signals(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout)
    call convolve(desc, x, with_row([shape(x), 1], desc%input_layout), weights, &
      with_kernel_row(shape(weights), desc%weights_layout), y, with_row([shape(y), 1], desc%output_layout), .true., bias, &
      device, problem)
    call settle('conv1d', problem, stat, errmsg)
  end subroutine conv1d_rank2

  !> The descriptor of images with one row that the options of a call on signals ask for.
  pure type(sparkle_conv2d_desc) function of_signals(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout)
    integer, intent(in), optional :: stride, pad, dilation, groups
    logical, intent(in), optional :: relu
    integer, intent(in), optional :: pads(2)
    logical, intent(in), optional :: same
    integer, intent(in), optional :: layout, weights_layout

    of_signals = described(groups=groups, relu=relu, same=same, layout=layout, weights_layout=weights_layout)
    of_signals%h = 1
    of_signals%r = 1
    if (present(stride)) of_signals%stride_w = stride
    if (present(pad)) of_signals%pad_w = pad
    if (present(dilation)) of_signals%dilation_w = dilation
    if (present(pads)) then
      if (of_signals%padding == SPARKLE_PADDING_SYMMETRIC) of_signals%padding = SPARKLE_PADDING_SIDES
      of_signals%pad_w = pads(1)
      of_signals%pad_right = pads(2)
    end if
  end function of_signals

  !> The shape of signals as images of one row.
  pure function with_row(signals, layout) result(images)
    integer, intent(in) :: signals(3)
    integer, intent(in) :: layout
    integer :: images(4)

    images = [signals(1), 1, signals(2), signals(3)]
    if (layout == SPARKLE_TENSOR_NHWC) images = [signals(1), signals(2), 1, signals(3)]
  end function with_row

  !> The shape of kernels as kernels of one row.
  pure function with_kernel_row(kernels, layout) result(rows)
    integer, intent(in) :: kernels(3)
    integer, intent(in) :: layout
    integer :: rows(4)

    rows = [kernels(1), 1, kernels(2), kernels(3)]
    if (layout == SPARKLE_WEIGHTS_HWIO) rows = [kernels(1), kernels(2), kernels(3), 1]
    if (layout == SPARKLE_WEIGHTS_OHWI) rows = [kernels(1), kernels(2), 1, kernels(3)]
  end function with_kernel_row

  !> The same for double-precision arrays. They are computed in single precision, until there is double-precision
  !> arithmetic: one image at a time is rounded, computed and converted back, so no copy of the whole is made. Numbers
  !> beyond the range of single precision become infinite. If the device fails, y may hold results of some images.
  subroutine conv2d_real64(x, weights, y, bias, stride, pad, dilation, groups, relu, device, stat, errmsg, pads, same, &
    layout, weights_layout)
    real(c_double), intent(in) :: x(:, :, :, :)
    real(c_double), intent(in) :: weights(:, :, :, :)
    real(c_double), intent(inout) :: y(:, :, :, :)
    real(c_double), intent(in), optional :: bias(:)
    integer, intent(in), optional :: stride
    integer, intent(in), optional :: pad
    integer, intent(in), optional :: dilation
    integer, intent(in), optional :: groups
    logical, intent(in), optional :: relu
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    integer, intent(in), optional :: pads(4)
    logical, intent(in), optional :: same
    integer, intent(in), optional :: layout
    integer, intent(in), optional :: weights_layout

    call conv2d_desc_real64(described(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout), x, weights, &
      y, bias, device, stat, errmsg)
  end subroutine conv2d_real64

  !> The same with a descriptor.
  subroutine conv2d_desc_real64(desc, x, weights, y, bias, device, stat, errmsg)
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_double), intent(in) :: x(:, :, :, :)
    real(c_double), intent(in) :: weights(:, :, :, :)
    real(c_double), intent(inout) :: y(:, :, :, :)
    real(c_double), intent(in), optional :: bias(:)
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(sparkle_plan) :: checked
    type(sparkle_conv2d_desc) :: complete
    type(c_ptr) :: device_handle
    integer(c_size_t) :: bias_length

    complete = completed(desc, shape(x), shape(weights))
    call check_shapes(complete, shape(x), shape(weights), shape(y), .false., checked, problem)
    bias_length = 0
    if (present(bias)) then
      bias_length = size(bias, kind=c_size_t)
      if (problem%status == SPARKLE_OK) call require_length(problem, 'bias', int(bias_length, c_int64_t), complete%k)
    end if
    device_handle = handle_of(device, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_conv2d_f64(device_handle, as_c(complete, present(bias)), x, size(x, kind=c_size_t), &
        weights, size(weights, kind=c_size_t), bias, bias_length, y, size(y, kind=c_size_t)))
    end if
    call settle('conv2d', problem, stat, errmsg)
  end subroutine conv2d_desc_real64

  !> Images: see `conv2d_pure`.
  pure subroutine conv2d_pure_rank4(x, weights, y, bias, stride, pad, dilation, groups, relu, pads, same, layout, &
    weights_layout)
    real(c_float), intent(in) :: x(:, :, :, :)
    real(c_float), intent(in) :: weights(:, :, :, :)
    real(c_float), intent(inout) :: y(:, :, :, :)
    real(c_float), intent(in), optional :: bias(:)
    integer, intent(in), optional :: stride
    integer, intent(in), optional :: pad
    integer, intent(in), optional :: dilation
    integer, intent(in), optional :: groups
    logical, intent(in), optional :: relu
    integer, intent(in), optional :: pads(4)
    logical, intent(in), optional :: same
    integer, intent(in), optional :: layout
    integer, intent(in), optional :: weights_layout

    call compute_or_nan(described(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout), &
      x, shape(x), weights, shape(weights), y, shape(y), bias)
  end subroutine conv2d_pure_rank4

  !> One image: see `conv2d_pure`.
  pure subroutine conv2d_pure_rank3(x, weights, y, bias, stride, pad, dilation, groups, relu, pads, same, layout, &
    weights_layout)
    real(c_float), intent(in) :: x(:, :, :)
    real(c_float), intent(in) :: weights(:, :, :, :)
    real(c_float), intent(inout) :: y(:, :, :)
    real(c_float), intent(in), optional :: bias(:)
    integer, intent(in), optional :: stride
    integer, intent(in), optional :: pad
    integer, intent(in), optional :: dilation
    integer, intent(in), optional :: groups
    logical, intent(in), optional :: relu
    integer, intent(in), optional :: pads(4)
    logical, intent(in), optional :: same
    integer, intent(in), optional :: layout
    integer, intent(in), optional :: weights_layout

    call compute_or_nan(described(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout), &
      x, [shape(x), 1], weights, shape(weights), y, [shape(y), 1], bias)
  end subroutine conv2d_pure_rank3

  !> Signals: see `conv1d_pure`.
  pure subroutine conv1d_pure_rank3(x, weights, y, bias, stride, pad, dilation, groups, relu, pads, same, layout, &
    weights_layout)
    real(c_float), intent(in) :: x(:, :, :)
    real(c_float), intent(in) :: weights(:, :, :)
    real(c_float), intent(inout) :: y(:, :, :)
    real(c_float), intent(in), optional :: bias(:)
    integer, intent(in), optional :: stride
    integer, intent(in), optional :: pad
    integer, intent(in), optional :: dilation
    integer, intent(in), optional :: groups
    logical, intent(in), optional :: relu
    integer, intent(in), optional :: pads(2)
    logical, intent(in), optional :: same
    integer, intent(in), optional :: layout
    integer, intent(in), optional :: weights_layout
    type(sparkle_conv2d_desc) :: desc

    desc = of_signals(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout)
    call compute_or_nan(desc, x, with_row(shape(x), desc%input_layout), weights, &
      with_kernel_row(shape(weights), desc%weights_layout), y, with_row(shape(y), desc%output_layout), bias)
  end subroutine conv1d_pure_rank3

  !> One signal: see `conv1d_pure`.
  pure subroutine conv1d_pure_rank2(x, weights, y, bias, stride, pad, dilation, groups, relu, pads, same, layout, &
    weights_layout)
    real(c_float), intent(in) :: x(:, :)
    real(c_float), intent(in) :: weights(:, :, :)
    real(c_float), intent(inout) :: y(:, :)
    real(c_float), intent(in), optional :: bias(:)
    integer, intent(in), optional :: stride
    integer, intent(in), optional :: pad
    integer, intent(in), optional :: dilation
    integer, intent(in), optional :: groups
    logical, intent(in), optional :: relu
    integer, intent(in), optional :: pads(2)
    logical, intent(in), optional :: same
    integer, intent(in), optional :: layout
    integer, intent(in), optional :: weights_layout
    type(sparkle_conv2d_desc) :: desc

    desc = of_signals(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout)
    call compute_or_nan(desc, x, with_row([shape(x), 1], desc%input_layout), weights, &
      with_kernel_row(shape(weights), desc%weights_layout), y, with_row([shape(y), 1], desc%output_layout), bias)
  end subroutine conv1d_pure_rank2

  !> Computes arrays of these shapes. If anything is wrong, all of y is NaN.
  pure subroutine compute_or_nan(desc, x, x_shape, weights, weights_shape, y, y_shape, bias)
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in) :: x(*)
    integer, intent(in) :: x_shape(4)
    real(c_float), intent(in) :: weights(*)
    integer, intent(in) :: weights_shape(4)
    real(c_float), intent(inout) :: y(*)
    integer, intent(in) :: y_shape(4)
    real(c_float), intent(in), optional :: bias(:)
    type(sparkle_conv2d_desc) :: complete
    integer(c_size_t) :: bias_length, outputs

    complete = completed(desc, x_shape, weights_shape)
    outputs = product(int(y_shape, c_size_t))
    ! The library checks the lengths; extents in another order could have the same.
    if (.not. matches(complete, x_shape, weights_shape, y_shape)) then
      y(:outputs) = ieee_value(0.0_c_float, ieee_quiet_nan)
      return
    end if
    bias_length = 0
    if (present(bias)) bias_length = size(bias, kind=c_size_t)
    call c_conv2d_or_nan(as_c(complete, present(bias)), x, product(int(x_shape, c_size_t)), weights, &
      product(int(weights_shape, c_size_t)), bias, bias_length, y, outputs)
  end subroutine compute_or_nan
end module sparkle_forms
