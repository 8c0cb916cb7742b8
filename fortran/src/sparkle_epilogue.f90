!> Epilogues: functions of the program's own, applied to the outputs of convolutions and matrix products where these are
!> computed.
!>
!> ```fortran
!> use sparkle
!> use sparkle_kernel
!> use sparkle_epilogue
!> type(sparkle_compiled_epilogue) :: residual
!> type(sparkle_fused_plan) :: plan
!> real(real32), target :: x(W,H,C,N), y(Q,P,K,N), skip(Q,P,K,N)
!>
!> call residual%compile_file('epilogue.f90', 'residual')
!> call plan%create(desc, weights, residual)
!> call plan%execute(x, y, [arg(bias), arg(skip), arg(0.1)])
!> ```
!>
!> A run needs an argument for each dummy of the function after the value, the channel and the position, in their order:
!> what `arg` of module `sparkle_kernel` makes of a scalar, an array or a buffer. Arrays are contiguous and share no memory
!> with the output. `stat` and `errmsg` work as in module `sparkle`, whose codes `stat` has. Outputs are unchanged after a
!> failure.
module sparkle_epilogue
  use, intrinsic :: iso_c_binding, only: c_associated, c_float, c_int32_t, c_int64_t, c_loc, c_null_char, c_null_ptr, &
    c_ptr, c_size_t
  use sparkle_buffers, only: buffer_handle, offset_of, sparkle_buffer
  use sparkle_c
  use sparkle_c_kernels, only: c_epilogue_compile, c_epilogue_compile_file, c_epilogue_destroy, &
    c_plan_create_fused, c_plan_execute_fused, c_plan_execute_fused_buffers, c_sgemm_fused, c_sgemm_fused_buffers
  use sparkle_descriptors, only: as_c, sparkle_conv2d_desc
  use sparkle_kernel, only: c_arguments, sparkle_kernel_arg
  use sparkle_matrix, only: describe_arrays, describe_buffers
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_support
  implicit none
  private
  public :: sparkle_compiled_epilogue, sparkle_fused_plan, sgemm_fused

  !> An epilogue, for any device. Finalisation releases it; plans that were made with it keep it.
  !>
  !> It cannot be copied: the left side of an assignment becomes an empty epilogue. Pass epilogues by reference, or use
  !> pointers. For copies without assignment, see `sparkle_device`.
  type :: sparkle_compiled_epilogue
    private
    type(c_ptr) :: handle = c_null_ptr
    !> The address of `handle` when the epilogue was compiled. At another address this is a bitwise copy.
    type(c_ptr) :: home = c_null_ptr
  contains
    procedure :: compile => epilogue_compile
    procedure :: compile_file => epilogue_compile_file
    procedure :: is_compiled => epilogue_is_compiled
    procedure :: destroy => epilogue_destroy
    procedure, private :: epilogue_assign
    generic :: assignment(=) => epilogue_assign
    final :: epilogue_finalize
  end type sparkle_compiled_epilogue

  !> A prepared convolution with an epilogue. Any number of threads may execute it any number of times. As for
  !> `sparkle_plan`, finalisation releases it and the left side of an assignment becomes empty.
  type :: sparkle_fused_plan
    private
    type(c_ptr) :: handle = c_null_ptr
    !> The address of `handle` when the plan was created. At another address this is a bitwise copy.
    type(c_ptr) :: home = c_null_ptr
  contains
    procedure :: create => plan_create
    procedure, private :: plan_execute_arrays, plan_execute_buffers
    generic :: execute => plan_execute_arrays, plan_execute_buffers
    procedure :: is_created => plan_is_created
    procedure :: destroy => plan_destroy
    procedure, private :: plan_assign
    generic :: assignment(=) => plan_assign
    final :: plan_finalize
  end type sparkle_fused_plan

  !> Products of arrays, or of buffers, with an epilogue.
  interface sgemm_fused
    module procedure sgemm_fused_arrays, sgemm_fused_buffers
  end interface sgemm_fused

contains

  !> Compiles a source: lines that end with NEW_LINE('a'). `name` selects one of several epilogues: the exact spelling
  !> first, then any case. A failure leaves the epilogue as it was; `errmsg` has the compiler's messages.
  subroutine epilogue_compile(self, source, name, stat, errmsg)
    class(sparkle_compiled_epilogue), intent(inout) :: self
    character(len=*), intent(in) :: source
    character(len=*), intent(in), optional :: name
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_ptr) :: handle

    handle = c_null_ptr
    if (present(name)) then
      call take_status(problem, &
        c_epilogue_compile(source, len(source, kind=c_size_t), trim(name) // c_null_char, handle))
    else
      call take_status(problem, c_epilogue_compile(source, len(source, kind=c_size_t), epilogue=handle))
    end if
    call keep(self, handle, problem)
    call settle('compile', problem, stat, errmsg)
  end subroutine epilogue_compile

  !> Reads a file and compiles it.
  subroutine epilogue_compile_file(self, path, name, stat, errmsg)
    class(sparkle_compiled_epilogue), intent(inout) :: self
    character(len=*), intent(in) :: path
    character(len=*), intent(in), optional :: name
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_ptr) :: handle

    handle = c_null_ptr
    if (present(name)) then
      call take_status(problem, &
        c_epilogue_compile_file(trim(path) // c_null_char, trim(name) // c_null_char, handle))
    else
      call take_status(problem, c_epilogue_compile_file(trim(path) // c_null_char, epilogue=handle))
    end if
    call keep(self, handle, problem)
    call settle('compile_file', problem, stat, errmsg)
  end subroutine epilogue_compile_file

  !> Puts a new epilogue in the place of the old one, unless there was a problem.
  subroutine keep(self, handle, problem)
    class(sparkle_compiled_epilogue), intent(inout), target :: self
    type(c_ptr), intent(in) :: handle
    type(failure), intent(in) :: problem

    if (problem%status /= SPARKLE_OK) return
    call self%destroy()
    self%handle = handle
    self%home = c_loc(self%handle)
  end subroutine keep

  elemental logical function epilogue_is_compiled(self)
    class(sparkle_compiled_epilogue), intent(in) :: self

    epilogue_is_compiled = c_associated(self%handle)
  end function epilogue_is_compiled

  !> Releases the epilogue; releasing an empty one does nothing.
  impure elemental subroutine epilogue_destroy(self)
    class(sparkle_compiled_epilogue), intent(inout), target :: self
    integer(c_int32_t) :: ignored

    ! This fails only if sparkle_finalize has already released the handle.
    if (c_associated(self%home, c_loc(self%handle))) ignored = c_epilogue_destroy(self%handle)
    self%handle = c_null_ptr
    self%home = c_null_ptr
  end subroutine epilogue_destroy

  impure elemental subroutine epilogue_finalize(self)
    type(sparkle_compiled_epilogue), intent(inout) :: self

    call self%destroy()
  end subroutine epilogue_finalize

  impure elemental subroutine epilogue_assign(left, right)
    class(sparkle_compiled_epilogue), intent(inout) :: left
    type(sparkle_compiled_epilogue), intent(in) :: right

    if (.not. c_associated(left%handle, right%handle)) call left%destroy()
  end subroutine epilogue_assign

  subroutine require_epilogue(epilogue, problem)
    type(sparkle_compiled_epilogue), intent(in) :: epilogue
    type(failure), intent(inout) :: problem

    if (problem%status == SPARKLE_OK .and. .not. epilogue%is_compiled()) then
      call problem%refuse('the epilogue is not compiled')
    end if
  end subroutine require_epilogue

  !> Prepares a convolution whose outputs go through `epilogue`. `desc` gives all sizes; `weights` is an array of any rank
  !> in the order of weights(S,R,C/groups,K).
  subroutine plan_create(self, desc, weights, epilogue, bias, device, stat, errmsg)
    class(sparkle_fused_plan), intent(inout), target :: self
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in), target, contiguous :: weights(..)
    type(sparkle_compiled_epilogue), intent(in) :: epilogue
    real(c_float), intent(in), optional :: bias(:)
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_ptr) :: device_handle, handle
    integer(c_size_t) :: bias_length

    handle = c_null_ptr
    bias_length = 0
    if (present(bias)) bias_length = size(bias, kind=c_size_t)
    call require_epilogue(epilogue, problem)
    device_handle = handle_of(device, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_plan_create_fused(device_handle, as_c(desc, present(bias)), c_loc(weights), &
        size(weights, kind=c_size_t), bias, bias_length, epilogue%handle, handle))
    end if
    if (problem%status == SPARKLE_OK) then
      call self%destroy()
      self%handle = handle
      self%home = c_loc(self%handle)
    end if
    call settle('create', problem, stat, errmsg)
  end subroutine plan_create

  !> Convolves x(W,H,C,N) into y(Q,P,K,N), arrays of any rank in this order.
  subroutine plan_execute_arrays(self, x, y, args, stat, errmsg)
    class(sparkle_fused_plan), intent(in) :: self
    real(c_float), intent(in), target, contiguous :: x(..)
    real(c_float), intent(inout), target, contiguous :: y(..)
    type(sparkle_kernel_arg), intent(in) :: args(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_kernel_arg) :: passed(size(args))

    call require_created(self, problem)
    call c_arguments(args, passed, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_plan_execute_fused(self%handle, c_loc(x), size(x, kind=c_size_t), c_loc(y), &
        size(y, kind=c_size_t), passed, size(passed, kind=c_size_t)))
    end if
    call settle('execute', problem, stat, errmsg)
  end subroutine plan_execute_arrays

  !> The same for buffers of the plan's device, in place: all of x and y, or x from element `x_first` and y from element
  !> `y_first` on. If the device fails, y may lose its contents.
  subroutine plan_execute_buffers(self, x, y, args, x_first, y_first, stat, errmsg)
    class(sparkle_fused_plan), intent(in) :: self
    type(sparkle_buffer), intent(in) :: x
    type(sparkle_buffer), intent(inout) :: y
    type(sparkle_kernel_arg), intent(in) :: args(:)
    integer, intent(in), optional :: x_first
    integer, intent(in), optional :: y_first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_kernel_arg) :: passed(size(args))

    call require_created(self, problem)
    call c_arguments(args, passed, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_plan_execute_fused_buffers(self%handle, buffer_handle(x), offset_of(x_first), &
        buffer_handle(y), offset_of(y_first), passed, size(passed, kind=c_size_t)))
    end if
    call settle('execute', problem, stat, errmsg)
  end subroutine plan_execute_buffers

  subroutine require_created(plan, problem)
    class(sparkle_fused_plan), intent(in) :: plan
    type(failure), intent(inout) :: problem

    if (.not. plan%is_created()) call problem%refuse('the plan is not created; copies of plans are empty')
  end subroutine require_created

  elemental logical function plan_is_created(self)
    class(sparkle_fused_plan), intent(in) :: self

    plan_is_created = c_associated(self%handle)
  end function plan_is_created

  !> Releases the plan; releasing an empty one does nothing.
  impure elemental subroutine plan_destroy(self)
    class(sparkle_fused_plan), intent(inout), target :: self
    integer(c_int32_t) :: ignored

    ! This fails only if sparkle_finalize has already released the handle.
    if (c_associated(self%home, c_loc(self%handle))) ignored = c_plan_destroy(self%handle)
    self%handle = c_null_ptr
    self%home = c_null_ptr
  end subroutine plan_destroy

  impure elemental subroutine plan_finalize(self)
    type(sparkle_fused_plan), intent(inout) :: self

    call self%destroy()
  end subroutine plan_finalize

  impure elemental subroutine plan_assign(left, right)
    class(sparkle_fused_plan), intent(inout) :: left
    type(sparkle_fused_plan), intent(in) :: right

    if (.not. c_associated(left%handle, right%handle)) call left%destroy()
  end subroutine plan_assign

  !> As `sgemm` of arrays, c = f(alpha op(a) op(b) + beta c), where the epilogue f is applied to every element. Its channel
  !> is the row of c; its position is the number of elements in memory from the first one of c.
  subroutine sgemm_fused_arrays(a, b, c, epilogue, args, transa, transb, m, n, k, alpha, beta, device, stat, errmsg)
    real(c_float), intent(in), contiguous :: a(:, :)
    real(c_float), intent(in), contiguous :: b(:, :)
    real(c_float), intent(inout), contiguous :: c(:, :)
    type(sparkle_compiled_epilogue), intent(in) :: epilogue
    type(sparkle_kernel_arg), intent(in) :: args(:)
    character(len=1), intent(in), optional :: transa
    character(len=1), intent(in), optional :: transb
    integer, intent(in), optional :: m
    integer, intent(in), optional :: n
    integer, intent(in), optional :: k
    real(c_float), intent(in), optional :: alpha
    real(c_float), intent(in), optional :: beta
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_gemm_desc) :: desc
    type(c_kernel_arg) :: passed(size(args))
    type(c_ptr) :: device_handle

    call describe_arrays(desc, shape(a), shape(b), shape(c), transa, transb, m, n, k, alpha, beta, problem)
    call require_epilogue(epilogue, problem)
    call c_arguments(args, passed, problem)
    device_handle = handle_of(device, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_sgemm_fused(device_handle, desc, a, size(a, kind=c_size_t), b, &
        size(b, kind=c_size_t), c, size(c, kind=c_size_t), epilogue%handle, passed, size(passed, kind=c_size_t)))
    end if
    call settle('sgemm_fused', problem, stat, errmsg)
  end subroutine sgemm_fused_arrays

  !> The same for buffers, as `sgemm` of buffers.
  subroutine sgemm_fused_buffers(a, b, c, m, n, k, epilogue, args, transa, transb, lda, ldb, ldc, a_first, b_first, &
    c_first, alpha, beta, device, stat, errmsg)
    type(sparkle_buffer), intent(in) :: a
    type(sparkle_buffer), intent(in) :: b
    type(sparkle_buffer), intent(inout) :: c
    integer, intent(in) :: m
    integer, intent(in) :: n
    integer, intent(in) :: k
    type(sparkle_compiled_epilogue), intent(in) :: epilogue
    type(sparkle_kernel_arg), intent(in) :: args(:)
    character(len=1), intent(in), optional :: transa
    character(len=1), intent(in), optional :: transb
    integer, intent(in), optional :: lda
    integer, intent(in), optional :: ldb
    integer, intent(in), optional :: ldc
    integer, intent(in), optional :: a_first
    integer, intent(in), optional :: b_first
    integer, intent(in), optional :: c_first
    real(c_float), intent(in), optional :: alpha
    real(c_float), intent(in), optional :: beta
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_gemm_desc) :: desc
    type(c_kernel_arg) :: passed(size(args))
    type(c_ptr) :: device_handle

    call describe_buffers(desc, m, n, k, transa, transb, lda, ldb, ldc, alpha, beta, problem)
    call require_epilogue(epilogue, problem)
    call c_arguments(args, passed, problem)
    device_handle = handle_of(device, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_sgemm_fused_buffers(device_handle, desc, buffer_handle(a), offset_of(a_first), &
        buffer_handle(b), offset_of(b_first), buffer_handle(c), offset_of(c_first), epilogue%handle, passed, &
        size(passed, kind=c_size_t)))
    end if
    call settle('sgemm_fused', problem, stat, errmsg)
  end subroutine sgemm_fused_buffers
end module sparkle_epilogue
