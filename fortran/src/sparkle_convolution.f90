!> Convolution on rank-4 and flat arrays, in one call or through a plan.
!>
!> Part of module `sparkle`; programs use that module. Every public procedure takes the same steps: it completes the
!> descriptor from the arrays, lets the library check it, checks every array against it, and computes.
!>
!> Array arguments are assumed-shape without CONTIGUOUS, except in the procedures that call C, where they are
!> assumed-size. gfortran then packs only strided arrays. For a CONTIGUOUS argument it would copy every array that the
!> caller itself received as an argument.
module sparkle_convolution
  use, intrinsic :: iso_c_binding, only: c_associated, c_float, c_int32_t, c_int64_t, c_loc, c_null_ptr, c_ptr, c_size_t
  use sparkle_buffers, only: buffer_handle, offset_of, sparkle_buffer
  use sparkle_c
  use sparkle_c_kernels, only: c_conv2d_buffers, c_plan_execute_buffers
  use sparkle_descriptors, only: as_c, completed, described, dimensions, sparkle_conv2d_desc, weights_dimensions, with_weights
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_support
  implicit none
  private
  public :: conv2d, sparkle_output_size, sparkle_plan
  ! For the library's other modules.
  public :: check_shapes, convolve, plan_handle

  !> A prepared convolution with packed weights. Any number of threads may execute it any number of times.
  !>
  !> A plan owns its packed weights; finalisation releases them. It cannot be copied: the left side of an assignment
  !> becomes an empty plan, whose execution fails with a message. Pass plans by reference, or use pointers. For copies
  !> without assignment, see `sparkle_device`.
  type :: sparkle_plan
    private
    type(c_ptr) :: handle = c_null_ptr
    !> The address of `handle` when the plan was created. At another address this is a bitwise copy.
    type(c_ptr) :: home = c_null_ptr
    type(sparkle_conv2d_desc) :: desc
    integer(c_int64_t) :: p = 0
    integer(c_int64_t) :: q = 0
    logical :: is_copy = .false.
  contains
    procedure, private :: plan_create_flat, plan_create_rank4
    generic :: create => plan_create_flat, plan_create_rank4
    procedure, private :: plan_execute_flat, plan_execute_rank3, plan_execute_rank4, plan_execute_buffers
    generic :: execute => plan_execute_flat, plan_execute_rank3, plan_execute_rank4, plan_execute_buffers
    procedure, private :: plan_set_weights_flat, plan_set_weights_rank4
    generic :: set_weights => plan_set_weights_flat, plan_set_weights_rank4
    procedure :: memory => plan_memory
    procedure :: destroy => plan_destroy
    procedure :: is_created => plan_is_created
    procedure, private :: plan_assign
    generic :: assignment(=) => plan_assign
    final :: plan_finalize
  end type sparkle_plan

  !> `call conv2d(x, weights, y, ...)` for rank-4 arrays; `call conv2d(desc, x, weights, y, ...)` for rank-4 or flat
  !> arrays, or buffers.
  interface conv2d
    module procedure conv2d_rank4
    module procedure conv2d_desc_rank4
    module procedure conv2d_desc_flat
    module procedure conv2d_desc_buffers
  end interface conv2d

contains

  !> Convolves x(W,H,C,N) with weights(S,R,C/groups,K) into y(Q,P,K,N), or arrays of the orders that `layout`, of x and y,
  !> and `weights_layout` name. `stride`, `pad` and `dilation` apply to both directions; `pads` is the padding above, below,
  !> left and right; `same` asks for TensorFlow's SAME. A descriptor can set all of them separately. `y` is INOUT because
  !> it is unchanged on failure.
  subroutine conv2d_rank4(x, weights, y, bias, stride, pad, dilation, groups, relu, device, stat, errmsg, pads, same, &
    layout, weights_layout)
    real(c_float), intent(in) :: x(:, :, :, :)
    real(c_float), intent(in) :: weights(:, :, :, :)
    real(c_float), intent(inout) :: y(:, :, :, :)
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

    call conv2d_desc_rank4(described(stride, pad, dilation, groups, relu, pads, same, layout, weights_layout), x, weights, &
      y, bias, device, stat, errmsg)
  end subroutine conv2d_rank4

  !> The same with a descriptor. Sizes that it gives must match the arrays.
  subroutine conv2d_desc_rank4(desc, x, weights, y, bias, device, stat, errmsg)
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in) :: x(:, :, :, :)
    real(c_float), intent(in) :: weights(:, :, :, :)
    real(c_float), intent(inout) :: y(:, :, :, :)
    real(c_float), intent(in), optional :: bias(:)
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call convolve(desc, x, shape(x), weights, shape(weights), y, shape(y), .false., bias, device, problem)
    call settle('conv2d', problem, stat, errmsg)
  end subroutine conv2d_desc_rank4

  !> One convolution of arrays of any rank, whose shapes as rank-4 arrays are given. `line` says that they have no rows, so
  !> that messages number the other dimensions.
  subroutine convolve(desc, x, x_shape, weights, weights_shape, y, y_shape, line, bias, device, problem)
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in) :: x(*)
    integer, intent(in) :: x_shape(4)
    real(c_float), intent(in) :: weights(*)
    integer, intent(in) :: weights_shape(4)
    real(c_float), intent(inout) :: y(*)
    integer, intent(in) :: y_shape(4)
    logical, intent(in) :: line
    real(c_float), intent(in), optional :: bias(:)
    type(sparkle_device), intent(in), optional :: device
    type(failure), intent(inout) :: problem
    type(sparkle_plan) :: plan

    call check_shapes(completed(desc, x_shape, weights_shape), x_shape, weights_shape, y_shape, line, plan, problem)
    call prepare(plan, weights, product(int(weights_shape, c_int64_t)), bias, device, problem)
    call run(plan, x, product(int(x_shape, c_size_t)), y, product(int(y_shape, c_size_t)), problem)
    call plan%destroy()
  end subroutine convolve

  !> Lets the library check a complete descriptor, and checks the arrays against it.
  subroutine check_shapes(desc, x_shape, weights_shape, y_shape, line, plan, problem)
    type(sparkle_conv2d_desc), intent(in) :: desc
    integer, intent(in) :: x_shape(4)
    integer, intent(in) :: weights_shape(4)
    integer, intent(in) :: y_shape(4)
    logical, intent(in) :: line
    type(sparkle_plan), intent(inout) :: plan
    type(failure), intent(inout) :: problem

    call check_desc(desc, plan, problem)
    call check_weights(plan%desc, weights_shape, line, problem)
    call check_data(plan, x_shape, y_shape, line, problem)
  end subroutine check_shapes

  !> The same for flat arrays in C's order: element (n,c,h,w) is x((((n*C + c)*H + h)*W + w) + 1) with n, c, h, w from
  !> 0.
  subroutine conv2d_desc_flat(desc, x, weights, y, bias, device, stat, errmsg)
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in) :: x(:)
    real(c_float), intent(in) :: weights(:)
    real(c_float), intent(inout) :: y(:)
    real(c_float), intent(in), optional :: bias(:)
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(sparkle_plan) :: plan

    call check_desc(desc, plan, problem)
    call check_lengths(plan, size(x, kind=c_int64_t), size(y, kind=c_int64_t), problem)
    call prepare(plan, weights, size(weights, kind=c_int64_t), bias, device, problem)
    call run(plan, x, size(x, kind=c_size_t), y, size(y, kind=c_size_t), problem)
    call plan%destroy()
    call settle('conv2d', problem, stat, errmsg)
  end subroutine conv2d_desc_flat

  !> The same for buffers of one device, in place, from elements `x_first` and so on. `desc` gives all sizes. y must overlap
  !> none of the others. If the device fails, y may lose its contents.
  subroutine conv2d_desc_buffers(desc, x, weights, y, bias, x_first, weights_first, y_first, bias_first, device, stat, &
    errmsg)
    type(sparkle_conv2d_desc), intent(in) :: desc
    type(sparkle_buffer), intent(in) :: x
    type(sparkle_buffer), intent(in) :: weights
    type(sparkle_buffer), intent(inout) :: y
    type(sparkle_buffer), intent(in), optional :: bias
    integer, intent(in), optional :: x_first
    integer, intent(in), optional :: weights_first
    integer, intent(in), optional :: y_first
    integer, intent(in), optional :: bias_first
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_ptr) :: device_handle, bias_handle

    bias_handle = c_null_ptr
    if (present(bias)) bias_handle = buffer_handle(bias)
    device_handle = handle_of(device, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_conv2d_buffers(device_handle, as_c(desc, present(bias)), buffer_handle(x), &
        offset_of(x_first), buffer_handle(weights), offset_of(weights_first), bias_handle, offset_of(bias_first), &
        buffer_handle(y), offset_of(y_first)))
    end if
    call settle('conv2d', problem, stat, errmsg)
  end subroutine conv2d_desc_buffers

  !> Height and width of the output of `desc`, which must give all sizes.
  subroutine sparkle_output_size(desc, p, q, stat, errmsg)
    type(sparkle_conv2d_desc), intent(in) :: desc
    integer, intent(inout) :: p
    integer, intent(inout) :: q
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(sparkle_plan) :: plan

    call check_desc(desc, plan, problem)
    if (problem%status == SPARKLE_OK) then
      p = int(plan%p)
      q = int(plan%q)
    end if
    call settle('sparkle_output_size', problem, stat, errmsg)
  end subroutine sparkle_output_size

  !> Prepares a convolution of rank-4 arrays. `desc` gives n, h and w; the other sizes are taken from `weights`. With n
  !> = 0 the plan is for an empty batch.
  subroutine plan_create_rank4(self, desc, weights, bias, device, stat, errmsg)
    class(sparkle_plan), intent(inout) :: self
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in) :: weights(:, :, :, :)
    real(c_float), intent(in), optional :: bias(:)
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(sparkle_plan) :: fresh

    call check_desc(with_weights(desc, shape(weights)), fresh, problem)
    call check_weights(fresh%desc, shape(weights), .false., problem)
    call prepare(fresh, weights, size(weights, kind=c_int64_t), bias, device, problem)
    if (problem%status == SPARKLE_OK) call move(fresh, self)
    call settle('create', problem, stat, errmsg)
  end subroutine plan_create_rank4

  !> Prepares a convolution of flat arrays. `desc` gives all sizes.
  subroutine plan_create_flat(self, desc, weights, bias, device, stat, errmsg)
    class(sparkle_plan), intent(inout) :: self
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in) :: weights(:)
    real(c_float), intent(in), optional :: bias(:)
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(sparkle_plan) :: fresh

    call check_desc(desc, fresh, problem)
    call prepare(fresh, weights, size(weights, kind=c_int64_t), bias, device, problem)
    if (problem%status == SPARKLE_OK) call move(fresh, self)
    call settle('create', problem, stat, errmsg)
  end subroutine plan_create_flat

  !> Replaces the weights and the bias, which the plan must have if and only if it had one. Executions that have begun end
  !> with the old weights. On failure the plan keeps them.
  subroutine plan_set_weights_rank4(self, weights, bias, stat, errmsg)
    class(sparkle_plan), intent(in) :: self
    real(c_float), intent(in) :: weights(:, :, :, :)
    real(c_float), intent(in), optional :: bias(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call require_created(self, problem)
    call check_weights(self%desc, shape(weights), .false., problem)
    call replace(self, weights, size(weights, kind=c_size_t), bias, problem)
    call settle('set_weights', problem, stat, errmsg)
  end subroutine plan_set_weights_rank4

  !> The same for flat arrays.
  subroutine plan_set_weights_flat(self, weights, bias, stat, errmsg)
    class(sparkle_plan), intent(in) :: self
    real(c_float), intent(in) :: weights(:)
    real(c_float), intent(in), optional :: bias(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call require_created(self, problem)
    call replace(self, weights, size(weights, kind=c_size_t), bias, problem)
    call settle('set_weights', problem, stat, errmsg)
  end subroutine plan_set_weights_flat

  subroutine replace(plan, weights, weights_length, bias, problem)
    class(sparkle_plan), intent(in) :: plan
    integer(c_size_t), intent(in) :: weights_length
    real(c_float), intent(in) :: weights(*)
    real(c_float), intent(in), optional :: bias(:)
    type(failure), intent(inout) :: problem
    integer(c_size_t) :: bias_length

    if (problem%status /= SPARKLE_OK) return
    bias_length = 0
    if (present(bias)) bias_length = size(bias, kind=c_size_t)
    call take_status(problem, c_plan_set_weights(plan%handle, weights, weights_length, bias, bias_length))
  end subroutine replace

  !> Convolves one image, x(W,H,C) into y(Q,P,K), or in the plan's order.
  subroutine plan_execute_rank3(self, x, y, stat, errmsg)
    class(sparkle_plan), intent(in) :: self
    real(c_float), intent(in) :: x(:, :, :)
    real(c_float), intent(inout) :: y(:, :, :)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call require_created(self, problem)
    call check_data(self, [shape(x), 1], [shape(y), 1], .false., problem)
    call run(self, x, size(x, kind=c_size_t), y, size(y, kind=c_size_t), problem)
    call settle('execute', problem, stat, errmsg)
  end subroutine plan_execute_rank3

  !> Convolves x(W,H,C,N) into y(Q,P,K,N), or in the plan's order.
  subroutine plan_execute_rank4(self, x, y, stat, errmsg)
    class(sparkle_plan), intent(in) :: self
    real(c_float), intent(in) :: x(:, :, :, :)
    real(c_float), intent(inout) :: y(:, :, :, :)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call require_created(self, problem)
    call check_data(self, shape(x), shape(y), .false., problem)
    call run(self, x, size(x, kind=c_size_t), y, size(y, kind=c_size_t), problem)
    call settle('execute', problem, stat, errmsg)
  end subroutine plan_execute_rank4

  !> The same for flat arrays.
  subroutine plan_execute_flat(self, x, y, stat, errmsg)
    class(sparkle_plan), intent(in) :: self
    real(c_float), intent(in) :: x(:)
    real(c_float), intent(inout) :: y(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call require_created(self, problem)
    call check_lengths(self, size(x, kind=c_int64_t), size(y, kind=c_int64_t), problem)
    call run(self, x, size(x, kind=c_size_t), y, size(y, kind=c_size_t), problem)
    call settle('execute', problem, stat, errmsg)
  end subroutine plan_execute_flat

  !> The same for buffers of the plan's device, in place: all of x and y, or x from element `x_first` and y from element
  !> `y_first` on. If the device fails, y may lose its contents.
  subroutine plan_execute_buffers(self, x, y, x_first, y_first, stat, errmsg)
    class(sparkle_plan), intent(in) :: self
    type(sparkle_buffer), intent(in) :: x
    type(sparkle_buffer), intent(inout) :: y
    integer, intent(in), optional :: x_first
    integer, intent(in), optional :: y_first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call require_created(self, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_plan_execute_buffers(self%handle, buffer_handle(x), offset_of(x_first), &
        buffer_handle(y), offset_of(y_first)))
    end if
    call settle('execute', problem, stat, errmsg)
  end subroutine plan_execute_buffers

  !> Bytes that the plan holds for its lifetime (packed or uploaded weights), and the maximum workspace of an execution
  !> in bytes.
  subroutine plan_memory(self, packed, workspace, stat, errmsg)
    class(sparkle_plan), intent(in) :: self
    integer(c_int64_t), intent(inout) :: packed
    integer(c_int64_t), intent(inout) :: workspace
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: held, used

    held = 0
    used = 0
    call require_created(self, problem)
    if (problem%status == SPARKLE_OK) call take_status(problem, c_plan_memory(self%handle, held, used))
    if (problem%status == SPARKLE_OK) then
      packed = held
      workspace = used
    end if
    call settle('memory', problem, stat, errmsg)
  end subroutine plan_memory

  !> Releases the plan; releasing an empty one does nothing.
  impure elemental subroutine plan_destroy(self)
    class(sparkle_plan), intent(inout), target :: self
    integer(c_int32_t) :: ignored

    ! This fails only if sparkle_finalize has already released the handle.
    if (c_associated(self%home, c_loc(self%handle))) ignored = c_plan_destroy(self%handle)
    self%handle = c_null_ptr
    self%home = c_null_ptr
    self%is_copy = .false.
  end subroutine plan_destroy

  impure elemental subroutine plan_finalize(self)
    type(sparkle_plan), intent(inout) :: self

    call self%destroy()
  end subroutine plan_finalize

  impure elemental subroutine plan_assign(left, right)
    class(sparkle_plan), intent(inout) :: left
    type(sparkle_plan), intent(in) :: right

    if (c_associated(left%handle, right%handle)) return
    call left%destroy()
    left%is_copy = right%is_created() .or. right%is_copy
  end subroutine plan_assign

  !> The C handle, for the library's other modules; null if the plan is not created.
  pure function plan_handle(plan) result(handle)
    type(sparkle_plan), intent(in) :: plan
    type(c_ptr) :: handle

    handle = plan%handle
  end function plan_handle

  elemental logical function plan_is_created(self)
    class(sparkle_plan), intent(in) :: self

    plan_is_created = c_associated(self%handle)
  end function plan_is_created

  !> Lets the library check a complete descriptor, and stores it in `plan` with its output size.
  subroutine check_desc(desc, plan, problem)
    type(sparkle_conv2d_desc), intent(in) :: desc
    type(sparkle_plan), intent(inout) :: plan
    type(failure), intent(inout) :: problem

    plan%desc = desc
    call take_status(problem, c_conv2d_output_size(as_c(desc, .false.), plan%p, plan%q))
  end subroutine check_desc

  subroutine check_weights(desc, weights_shape, line, problem)
    type(sparkle_conv2d_desc), intent(in) :: desc
    integer, intent(in) :: weights_shape(4)
    logical, intent(in) :: line
    type(failure), intent(inout) :: problem

    if (problem%status /= SPARKLE_OK) return
    call require_sizes('weights', weights_shape, weights_dimensions(desc%weights_layout), &
      [desc%s, desc%r, desc%c / desc%groups, desc%k], line, problem)
  end subroutine check_weights

  subroutine check_data(plan, x_shape, y_shape, line, problem)
    class(sparkle_plan), intent(in) :: plan
    integer, intent(in) :: x_shape(4)
    integer, intent(in) :: y_shape(4)
    logical, intent(in) :: line
    type(failure), intent(inout) :: problem

    if (problem%status /= SPARKLE_OK) return
    associate (desc => plan%desc)
      call require_sizes('x', x_shape, dimensions(desc%input_layout), [desc%w, desc%h, desc%c, desc%n], line, problem)
      call require_sizes('y', y_shape, dimensions(desc%output_layout), [plan%q, plan%p, desc%k, desc%n], line, problem)
    end associate
  end subroutine check_data

  !> Checks an array whose dimensions `order` have these sizes. Without rows, the second of them is not a dimension of the
  !> caller's array.
  subroutine require_sizes(argument, found, order, sizes, line, problem)
    character(len=*), intent(in) :: argument
    integer, intent(in) :: found(4)
    integer, intent(in) :: order(4)
    integer(c_int64_t), intent(in) :: sizes(4)
    logical, intent(in) :: line
    type(failure), intent(inout) :: problem
    integer :: i, shown

    do i = 1, 4
      shown = order(i)
      if (line .and. order(i) > order(2)) shown = shown - 1
      call require_extent(problem, argument, shown, found(order(i)), sizes(i))
    end do
  end subroutine require_sizes

  subroutine check_lengths(plan, x_length, y_length, problem)
    class(sparkle_plan), intent(in) :: plan
    integer(c_int64_t), intent(in) :: x_length
    integer(c_int64_t), intent(in) :: y_length
    type(failure), intent(inout) :: problem

    if (problem%status /= SPARKLE_OK) return
    associate (desc => plan%desc)
      call require_length(problem, 'x', x_length, desc%n * desc%c * desc%h * desc%w)
      call require_length(problem, 'y', y_length, desc%n * desc%k * plan%p * plan%q)
    end associate
  end subroutine check_lengths

  !> Creates the library's plan for the checked descriptor in `plan`.
  subroutine prepare(plan, weights, weights_length, bias, device, problem)
    type(sparkle_plan), intent(inout), target :: plan
    integer(c_int64_t), intent(in) :: weights_length
    real(c_float), intent(in) :: weights(*)
    real(c_float), intent(in), optional :: bias(:)
    type(sparkle_device), intent(in), optional :: device
    type(failure), intent(inout) :: problem
    type(c_ptr) :: device_handle
    integer(c_size_t) :: bias_length

    if (problem%status /= SPARKLE_OK) return
    associate (desc => plan%desc)
      call require_length(problem, 'weights', weights_length, desc%k * (desc%c / desc%groups) * desc%r * desc%s)
    end associate
    bias_length = 0
    if (present(bias)) then
      bias_length = size(bias, kind=c_size_t)
      call require_length(problem, 'bias', bias_length, plan%desc%k)
    end if
    device_handle = handle_of(device, problem)
    if (problem%status /= SPARKLE_OK) return
    call take_status(problem, c_plan_create(device_handle, as_c(plan%desc, present(bias)), weights, &
      int(weights_length, c_size_t), bias, bias_length, plan%handle))
    if (c_associated(plan%handle)) plan%home = c_loc(plan%handle)
  end subroutine prepare

  subroutine require_created(plan, problem)
    class(sparkle_plan), intent(in) :: plan
    type(failure), intent(inout) :: problem

    if (plan%is_copy) then
      call problem%refuse('the plan is a copy made by assignment, which is empty; create it, or use a pointer to the original')
    else if (.not. plan%is_created()) then
      call problem%refuse('the plan is not created')
    end if
  end subroutine require_created

  subroutine run(plan, x, x_length, y, y_length, problem)
    class(sparkle_plan), intent(in) :: plan
    integer(c_size_t), intent(in) :: x_length
    real(c_float), intent(in) :: x(*)
    integer(c_size_t), intent(in) :: y_length
    real(c_float), intent(inout) :: y(*)
    type(failure), intent(inout) :: problem

    if (problem%status /= SPARKLE_OK) return
    call take_status(problem, c_plan_execute(plan%handle, x, x_length, y, y_length))
  end subroutine run

  !> Moves the plan of `from` to `into`.
  subroutine move(from, into)
    type(sparkle_plan), intent(inout) :: from
    class(sparkle_plan), intent(inout), target :: into

    call into%destroy()
    into%handle = from%handle
    into%home = c_loc(into%handle)
    into%desc = from%desc
    into%p = from%p
    into%q = from%q
    from%handle = c_null_ptr
    from%home = c_null_ptr
  end subroutine move
end module sparkle_convolution
