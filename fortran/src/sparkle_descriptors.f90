!> The descriptor of a convolution, and the sizes of its arrays in every order.
!>
!> Part of module `sparkle`; programs use that module.
module sparkle_descriptors
  use, intrinsic :: iso_c_binding, only: c_int32_t, c_int64_t
  use sparkle_c
  use sparkle_support
  implicit none
  private
  public :: sparkle_conv2d_desc
  ! For the library's other modules.
  public :: as_c, completed, described, dimensions, matches, weights_dimensions, with_weights

  !> A convolution of N images with C channels and H x W pixels to K output channels, with an R x S kernel.
  !>
  !> A size of 0 is taken from the rank-4 arrays of the call. Flat arrays need all seven sizes; n may be 0 for an empty
  !> batch, whose arrays have no elements. Only fields that differ need a value: `sparkle_conv2d_desc(stride_h=2,
  !> pad_w=1)`.
  type :: sparkle_conv2d_desc
    integer(c_int64_t) :: n = 0
    integer(c_int64_t) :: c = 0
    integer(c_int64_t) :: h = 0
    integer(c_int64_t) :: w = 0
    integer(c_int64_t) :: k = 0
    integer(c_int64_t) :: r = 0
    integer(c_int64_t) :: s = 0
    integer(c_int64_t) :: stride_h = 1
    integer(c_int64_t) :: stride_w = 1
    !> Rows of zeros above and below, columns left and right; with SPARKLE_PADDING_SIDES above and left alone.
    integer(c_int64_t) :: pad_h = 0
    integer(c_int64_t) :: pad_w = 0
    integer(c_int64_t) :: dilation_h = 1
    integer(c_int64_t) :: dilation_w = 1
    integer(c_int64_t) :: groups = 1
    logical :: relu = .false.
    !> The algorithm: SPARKLE_ALGORITHM_AUTO, SPARKLE_ALGORITHM_DIRECT (every product of the definition, exact on small
    !> integers) or SPARKLE_ALGORITHM_WINOGRAD (3x3 kernels, stride and dilation 1; on OpenGL one group).
    integer :: algorithm = SPARKLE_ALGORITHM_AUTO
    !> SPARKLE_PADDING_SYMMETRIC; SPARKLE_PADDING_SIDES, with pad_bottom and pad_right; or SPARKLE_PADDING_SAME, TensorFlow's
    !> SAME, which computes all of them.
    integer :: padding = SPARKLE_PADDING_SYMMETRIC
    integer(c_int64_t) :: pad_bottom = 0
    integer(c_int64_t) :: pad_right = 0
    !> SPARKLE_TENSOR_NCHW, x(W,H,C,N) and y(Q,P,K,N), or SPARKLE_TENSOR_NHWC, x(C,W,H,N) and y(K,Q,P,N).
    integer :: input_layout = SPARKLE_TENSOR_NCHW
    integer :: output_layout = SPARKLE_TENSOR_NCHW
    !> SPARKLE_WEIGHTS_OIHW, weights(S,R,C/groups,K), SPARKLE_WEIGHTS_HWIO, weights(K,C/groups,S,R), or
    !> SPARKLE_WEIGHTS_OHWI, weights(C/groups,S,R,K).
    integer :: weights_layout = SPARKLE_WEIGHTS_OIHW
  end type sparkle_conv2d_desc

contains

  !> The descriptor that the options of a call ask for.
  pure type(sparkle_conv2d_desc) function described(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout)
    integer, intent(in), optional :: stride, pad, dilation, groups
    logical, intent(in), optional :: relu
    integer, intent(in), optional :: pads(4)
    logical, intent(in), optional :: same
    integer, intent(in), optional :: layout, weights_layout

    if (present(stride)) then
      described%stride_h = stride
      described%stride_w = stride
    end if
    if (present(pad)) then
      described%pad_h = pad
      described%pad_w = pad
    end if
    if (present(pads)) then
      described%padding = SPARKLE_PADDING_SIDES
      described%pad_h = pads(1)
      described%pad_bottom = pads(2)
      described%pad_w = pads(3)
      described%pad_right = pads(4)
    end if
    if (present(same)) then
      ! With numbers beside it the library refuses it.
      if (same) described%padding = SPARKLE_PADDING_SAME
    end if
    if (present(dilation)) then
      described%dilation_h = dilation
      described%dilation_w = dilation
    end if
    if (present(groups)) described%groups = groups
    if (present(relu)) described%relu = relu
    if (present(layout)) then
      described%input_layout = layout
      described%output_layout = layout
    end if
    if (present(weights_layout)) described%weights_layout = weights_layout
  end function described

  !> `desc` with its missing sizes taken from the arrays.
  pure type(sparkle_conv2d_desc) function completed(desc, x_shape, weights_shape)
    type(sparkle_conv2d_desc), intent(in) :: desc
    integer, intent(in) :: x_shape(4)
    integer, intent(in) :: weights_shape(4)

    completed = with_weights(with_input(desc, x_shape), weights_shape)
  end function completed

  !> `desc` with its missing sizes taken from x.
  pure type(sparkle_conv2d_desc) function with_input(desc, x_shape)
    type(sparkle_conv2d_desc), intent(in) :: desc
    integer, intent(in) :: x_shape(4)
    integer :: sizes(4)

    sizes = x_shape(dimensions(desc%input_layout))
    with_input = desc
    if (desc%w == 0) with_input%w = sizes(1)
    if (desc%h == 0) with_input%h = sizes(2)
    if (desc%c == 0) with_input%c = sizes(3)
    if (desc%n == 0) with_input%n = sizes(4)
  end function with_input

  !> `desc` with its missing sizes taken from the weights.
  pure type(sparkle_conv2d_desc) function with_weights(desc, weights_shape)
    type(sparkle_conv2d_desc), intent(in) :: desc
    integer, intent(in) :: weights_shape(4)
    integer :: sizes(4)

    sizes = weights_shape(weights_dimensions(desc%weights_layout))
    with_weights = desc
    if (desc%s == 0) with_weights%s = sizes(1)
    if (desc%r == 0) with_weights%r = sizes(2)
    if (desc%c == 0) with_weights%c = sizes(3) * desc%groups
    if (desc%k == 0) with_weights%k = sizes(4)
  end function with_weights

  !> The dimensions of W, H, C and N in an array of this order, and of Q, P, K and N. The library refuses other values.
  pure function dimensions(layout) result(order)
    integer, intent(in) :: layout
    integer :: order(4)

    order = [1, 2, 3, 4]
    if (layout == SPARKLE_TENSOR_NHWC) order = [2, 3, 1, 4]
  end function dimensions

  !> The dimensions of S, R, C/groups and K in weights of this order.
  pure function weights_dimensions(layout) result(order)
    integer, intent(in) :: layout
    integer :: order(4)

    order = [1, 2, 3, 4]
    if (layout == SPARKLE_WEIGHTS_HWIO) order = [3, 4, 2, 1]
    if (layout == SPARKLE_WEIGHTS_OHWI) order = [2, 3, 1, 4]
  end function weights_dimensions

  !> Whether the extents of all arrays are those of a complete descriptor. Pure, unlike `check_shapes`.
  pure logical function matches(desc, x_shape, weights_shape, y_shape)
    type(sparkle_conv2d_desc), intent(in) :: desc
    integer, intent(in) :: x_shape(4)
    integer, intent(in) :: weights_shape(4)
    integer, intent(in) :: y_shape(4)
    integer(c_int64_t) :: p, q

    matches = min(desc%groups, desc%stride_h, desc%stride_w) > 0
    if (.not. matches) return
    if (desc%padding == SPARKLE_PADDING_SAME) then
      p = (desc%h + desc%stride_h - 1) / desc%stride_h
      q = (desc%w + desc%stride_w - 1) / desc%stride_w
    else
      p = desc%pad_h + merge(desc%pad_bottom, desc%pad_h, desc%padding == SPARKLE_PADDING_SIDES)
      q = desc%pad_w + merge(desc%pad_right, desc%pad_w, desc%padding == SPARKLE_PADDING_SIDES)
      p = (desc%h + p - desc%dilation_h * (desc%r - 1) - 1) / desc%stride_h + 1
      q = (desc%w + q - desc%dilation_w * (desc%s - 1) - 1) / desc%stride_w + 1
    end if
    matches = all(x_shape(dimensions(desc%input_layout)) == [desc%w, desc%h, desc%c, desc%n]) .and. &
      all(weights_shape(weights_dimensions(desc%weights_layout)) == [desc%s, desc%r, desc%c / desc%groups, desc%k]) .and. &
      all(y_shape(dimensions(desc%output_layout)) == [q, p, desc%k, desc%n])
  end function matches

  !> A descriptor for C.
  pure type(c_conv2d_desc) function as_c(desc, bias)
    type(sparkle_conv2d_desc), intent(in) :: desc
    logical, intent(in) :: bias

    as_c = c_conv2d_desc(n=desc%n, c=desc%c, h=desc%h, w=desc%w, k=desc%k, r=desc%r, s=desc%s, &
      stride_h=desc%stride_h, stride_w=desc%stride_w, pad_h=desc%pad_h, pad_w=desc%pad_w, &
      dilation_h=desc%dilation_h, dilation_w=desc%dilation_w, groups=desc%groups, &
      bias=merge(1_c_int32_t, 0_c_int32_t, bias), relu=merge(1_c_int32_t, 0_c_int32_t, desc%relu), &
      algorithm=narrowed(desc%algorithm), padding=narrowed(desc%padding), input_layout=narrowed(desc%input_layout), &
      output_layout=narrowed(desc%output_layout), weights_layout=narrowed(desc%weights_layout), &
      pad_bottom=desc%pad_bottom, pad_right=desc%pad_right)
    as_c%size = storage_size(as_c) / 8
  end function as_c
end module sparkle_descriptors
