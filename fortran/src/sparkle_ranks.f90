!> Convolutions and products that several processes compute together.
!>
!> Part of module `sparkle`; programs use that module. A group is created by the modules `sparkle_mpi_f08` or `sparkle_mpi`,
!> which are installed as source beside `sparkle_mpi.c`. All its procedures are collective, if they do not say otherwise. So
!> arguments are checked by the library alone, which tells all ranks of a wrong one.
module sparkle_ranks
  use, intrinsic :: iso_c_binding, only: c_associated, c_double, c_float, c_int32_t, c_int64_t, c_loc, c_null_ptr, c_ptr, &
    c_size_t
  use sparkle_c, only: c_conv2d_desc, c_gemm_desc, SPARKLE_OK
  use sparkle_descriptors, only: as_c, sparkle_conv2d_desc
  use sparkle_support
  implicit none
  private
  public :: sparkle_group, sparkle_group_plan, sparkle_group_part, sparkle_group_blocks
  public :: SPARKLE_BATCH, SPARKLE_ROWS, SPARKLE_CHANNELS, SPARKLE_WEIGHT_MEASURED

  !> Each rank has some images; nothing is sent in a run.
  integer, parameter :: SPARKLE_BATCH = 0
  !> Each rank has some rows of all images, and gets the rows at its borders from its neighbours.
  integer, parameter :: SPARKLE_ROWS = 1
  !> Each rank has some channels of input and output; all ranks send each other their input, unless there are groups.
  integer, parameter :: SPARKLE_CHANNELS = 2

  !> The weight of a rank whose share follows the measured rate of its device. All ranks pass it, or none.
  real(c_double), parameter :: SPARKLE_WEIGHT_MEASURED = -1.0_c_double

  !> What a rank holds of a convolution: images, rows or channels from 1, and the number of elements.
  type :: sparkle_group_part
    integer(c_int64_t) :: input_first = 1
    integer(c_int64_t) :: input_count = 0
    integer(c_int64_t) :: output_first = 1
    integer(c_int64_t) :: output_count = 0
    integer(c_int64_t) :: input_length = 0
    integer(c_int64_t) :: output_length = 0
  end type sparkle_group_part

  !> The blocks of a product that a rank holds: first row and column from 1, rows and columns.
  type :: sparkle_group_blocks
    integer(c_int64_t) :: a_row = 1, a_col = 1, a_rows = 0, a_cols = 0
    integer(c_int64_t) :: b_row = 1, b_col = 1, b_rows = 0, b_cols = 0
    integer(c_int64_t) :: c_row = 1, c_col = 1, c_rows = 0, c_cols = 0
  end type sparkle_group_blocks

  !> The ranks that compute together. It cannot be copied: the left side of an assignment becomes an empty group.
  type :: sparkle_group
    private
    type(c_ptr) :: handle = c_null_ptr
    !> The address of `handle` when the group was created. At another address this is a bitwise copy.
    type(c_ptr) :: home = c_null_ptr
  contains
    procedure :: adopt => group_adopt
    procedure :: rank => group_rank
    procedure :: ranks => group_ranks
    procedure :: progress => group_progress
    procedure :: sgemm => group_sgemm
    procedure :: sgemm_blocks => group_sgemm_blocks
    procedure :: destroy => group_destroy
    procedure :: is_created => group_is_created
    procedure, private :: group_assign
    generic :: assignment(=) => group_assign
    final :: group_finalize
  end type sparkle_group

  !> A prepared convolution over the ranks of a group. It cannot be copied, like a group.
  type :: sparkle_group_plan
    private
    type(c_ptr) :: handle = c_null_ptr
    type(c_ptr) :: home = c_null_ptr
  contains
    procedure, private :: plan_create_flat, plan_create_rank4
    generic :: create => plan_create_flat, plan_create_rank4
    procedure, private :: plan_execute_flat, plan_execute_rank4
    generic :: execute => plan_execute_flat, plan_execute_rank4
    procedure, private :: plan_begin_flat, plan_begin_rank4
    generic :: begin => plan_begin_flat, plan_begin_rank4
    procedure, private :: plan_finish_flat, plan_finish_rank4
    generic :: finish => plan_finish_flat, plan_finish_rank4
    procedure :: part => plan_part
    procedure :: destroy => plan_destroy
    procedure :: is_created => plan_is_created
    procedure, private :: plan_assign
    generic :: assignment(=) => plan_assign
    final :: plan_finalize
  end type sparkle_group_plan

  type, bind(C) :: c_part
    integer(c_size_t) :: size = 0
    integer(c_int64_t) :: first_in = 0, count_in = 0, first_out = 0, count_out = 0
    integer(c_size_t) :: length_in = 0, length_out = 0
  end type c_part

  type, bind(C) :: c_blocks
    integer(c_size_t) :: size = 0
    integer(c_int64_t) :: a(4) = 0, b(4) = 0, c(4) = 0
    integer(c_size_t) :: lengths(3) = 0
  end type c_blocks

  interface
    integer(c_int32_t) function c_group_rank(group, rank, ranks) bind(C, name='sparkle_group_rank')
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: group
      integer(c_int32_t), intent(inout) :: rank, ranks
    end function c_group_rank

    integer(c_int32_t) function c_group_progress(group) bind(C, name='sparkle_group_progress')
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: group
    end function c_group_progress

    integer(c_int32_t) function c_group_destroy(group) bind(C, name='sparkle_group_destroy')
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: group
    end function c_group_destroy

    integer(c_int32_t) function c_plan_create(group, desc, distribution, weight, weights, weights_length, bias, &
      bias_length, plan) bind(C, name='sparkle_group_plan_create')
      import :: c_conv2d_desc, c_double, c_float, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: group
      type(c_conv2d_desc), intent(in) :: desc
      integer(c_int32_t), value :: distribution
      real(c_double), value :: weight
      real(c_float), intent(in) :: weights(*)
      integer(c_size_t), value :: weights_length
      real(c_float), intent(in), optional :: bias(*)
      integer(c_size_t), value :: bias_length
      type(c_ptr), intent(inout) :: plan
    end function c_plan_create

    integer(c_int32_t) function c_plan_part(plan, rank, part) bind(C, name='sparkle_group_plan_part')
      import :: c_int32_t, c_part, c_ptr
      type(c_ptr), value :: plan
      integer(c_int32_t), value :: rank
      type(c_part), intent(inout) :: part
    end function c_plan_part

    integer(c_int32_t) function c_plan_execute(plan, x, x_length, y, y_length) bind(C, name='sparkle_group_plan_execute')
      import :: c_float, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: plan
      real(c_float), intent(in) :: x(*)
      integer(c_size_t), value :: x_length
      real(c_float), intent(inout) :: y(*)
      integer(c_size_t), value :: y_length
    end function c_plan_execute

    integer(c_int32_t) function c_plan_begin(plan, x, x_length) bind(C, name='sparkle_group_plan_begin')
      import :: c_float, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: plan
      real(c_float), intent(in) :: x(*)
      integer(c_size_t), value :: x_length
    end function c_plan_begin

    integer(c_int32_t) function c_plan_finish(plan, x, x_length, y, y_length) bind(C, name='sparkle_group_plan_finish')
      import :: c_float, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: plan
      real(c_float), intent(in) :: x(*)
      integer(c_size_t), value :: x_length
      real(c_float), intent(inout) :: y(*)
      integer(c_size_t), value :: y_length
    end function c_plan_finish

    integer(c_int32_t) function c_plan_destroy(plan) bind(C, name='sparkle_group_plan_destroy')
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: plan
    end function c_plan_destroy

    integer(c_int32_t) function c_group_sgemm_part(group, desc, rank, part) bind(C, name='sparkle_group_sgemm_part')
      import :: c_blocks, c_gemm_desc, c_int32_t, c_ptr
      type(c_ptr), value :: group
      type(c_gemm_desc), intent(in) :: desc
      integer(c_int32_t), value :: rank
      type(c_blocks), intent(inout) :: part
    end function c_group_sgemm_part

    integer(c_int32_t) function c_group_sgemm(group, desc, a, a_length, b, b_length, c, c_length) &
      bind(C, name='sparkle_group_sgemm')
      import :: c_float, c_gemm_desc, c_int32_t, c_ptr, c_size_t
      type(c_ptr), value :: group
      type(c_gemm_desc), intent(in) :: desc
      real(c_float), intent(in) :: a(*)
      integer(c_size_t), value :: a_length
      real(c_float), intent(in) :: b(*)
      integer(c_size_t), value :: b_length
      real(c_float), intent(inout) :: c(*)
      integer(c_size_t), value :: c_length
    end function c_group_sgemm
  end interface

contains

  !> Takes over a handle of `sparkle_group_create`, for the modules that create groups. Not collective.
  subroutine group_adopt(self, handle)
    class(sparkle_group), intent(inout), target :: self
    type(c_ptr), intent(in) :: handle

    call self%destroy()
    self%handle = handle
    self%home = c_loc(self%handle)
  end subroutine group_adopt

  !> This rank, from 0; -1 for a group that is not created. Not collective.
  integer function group_rank(self)
    class(sparkle_group), intent(in) :: self
    integer(c_int32_t) :: rank, ranks

    rank = -1
    ranks = 0
    group_rank = -1
    if (c_group_rank(self%handle, rank, ranks) == SPARKLE_OK) group_rank = int(rank)
  end function group_rank

  !> The number of ranks; 0 for a group that is not created. Not collective.
  integer function group_ranks(self)
    class(sparkle_group), intent(in) :: self
    integer(c_int32_t) :: rank, ranks

    rank = -1
    ranks = 0
    group_ranks = 0
    if (c_group_rank(self%handle, rank, ranks) == SPARKLE_OK) group_ranks = int(ranks)
  end function group_ranks

  !> Lets messages that are under way go on. Not collective.
  subroutine group_progress(self, stat, errmsg)
    class(sparkle_group), intent(in) :: self
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call take_status(problem, c_group_progress(self%handle))
    call settle('progress', problem, stat, errmsg)
  end subroutine group_progress

  pure type(c_gemm_desc) function described(m, n, k)
    integer, intent(in) :: m, n, k

    described%size = storage_size(described) / 8
    described%m = m
    described%n = n
    described%k = k
    described%lda = 0
    described%ldb = 0
    described%ldc = 0
  end function described

  !> Which blocks of A(m,k), B(k,n) and C(m,n) this rank holds in `sgemm`, or `rank` holds. Not collective.
  subroutine group_sgemm_blocks(self, m, n, k, blocks, rank, stat, errmsg)
    class(sparkle_group), intent(in) :: self
    integer, intent(in) :: m
    integer, intent(in) :: n
    integer, intent(in) :: k
    type(sparkle_group_blocks), intent(inout) :: blocks
    integer, intent(in), optional :: rank
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_blocks) :: found
    integer(c_int32_t) :: whose

    whose = -1
    if (present(rank)) whose = narrowed(rank)
    found%size = storage_size(found) / 8
    call take_status(problem, c_group_sgemm_part(self%handle, described(m, n, k), whose, found))
    if (problem%status == SPARKLE_OK) then
      blocks = sparkle_group_blocks(found%a(1) + 1, found%a(2) + 1, found%a(3), found%a(4), &
        found%b(1) + 1, found%b(2) + 1, found%b(3), found%b(4), found%c(1) + 1, found%c(2) + 1, found%c(3), found%c(4))
    end if
    call settle('sgemm_blocks', problem, stat, errmsg)
  end subroutine group_sgemm_blocks

  !> Computes C = alpha A B + beta C, where A is m x k and B is k x n, and the arrays are this rank's blocks. Each array may have
  !> more rows than the block.
  subroutine group_sgemm(self, a, b, c, m, n, k, alpha, beta, stat, errmsg)
    class(sparkle_group), intent(in) :: self
    real(c_float), intent(in) :: a(:, :)
    real(c_float), intent(in) :: b(:, :)
    real(c_float), intent(inout) :: c(:, :)
    integer, intent(in) :: m
    integer, intent(in) :: n
    integer, intent(in) :: k
    real(c_float), intent(in), optional :: alpha
    real(c_float), intent(in), optional :: beta
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_gemm_desc) :: desc

    desc = described(m, n, k)
    desc%lda = size(a, 1)
    desc%ldb = size(b, 1)
    desc%ldc = size(c, 1)
    if (present(alpha)) desc%alpha = alpha
    if (present(beta)) desc%beta = beta
    call take_status(problem, c_group_sgemm(self%handle, desc, a, size(a, kind=c_size_t), b, size(b, kind=c_size_t), &
      c, size(c, kind=c_size_t)))
    call settle('sgemm', problem, stat, errmsg)
  end subroutine group_sgemm

  !> Releases the group; releasing an empty one does nothing. Not collective.
  impure elemental subroutine group_destroy(self)
    class(sparkle_group), intent(inout), target :: self
    integer(c_int32_t) :: ignored

    if (c_associated(self%home, c_loc(self%handle))) ignored = c_group_destroy(self%handle)
    self%handle = c_null_ptr
    self%home = c_null_ptr
  end subroutine group_destroy

  elemental logical function group_is_created(self)
    class(sparkle_group), intent(in) :: self

    group_is_created = c_associated(self%handle)
  end function group_is_created

  impure elemental subroutine group_finalize(self)
    type(sparkle_group), intent(inout) :: self

    call self%destroy()
  end subroutine group_finalize

  impure elemental subroutine group_assign(left, right)
    class(sparkle_group), intent(inout) :: left
    class(sparkle_group), intent(in) :: right

    if (.not. c_associated(left%handle, right%handle)) call left%destroy()
  end subroutine group_assign

  !> Prepares the convolution that `desc` describes as a whole, with all sizes, over the ranks of `group`. Only rank 0 needs
  !> the weights and the bias; other ranks may pass empty arrays, but all ranks pass a bias, or none. `weight` is this
  !> rank's share in proportion to the others' weights, 1 by default.
  subroutine plan_create_flat(self, group, desc, weights, distribution, bias, weight, stat, errmsg)
    class(sparkle_group_plan), intent(inout), target :: self
    class(sparkle_group), intent(in) :: group
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in) :: weights(:)
    integer, intent(in) :: distribution
    real(c_float), intent(in), optional :: bias(:)
    real(c_double), intent(in), optional :: weight
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg

    call create(self, group, desc, weights, size(weights, kind=c_size_t), distribution, bias, weight, stat, errmsg)
  end subroutine plan_create_flat

  !> The same for weights(S,R,C/groups,K).
  subroutine plan_create_rank4(self, group, desc, weights, distribution, bias, weight, stat, errmsg)
    class(sparkle_group_plan), intent(inout), target :: self
    class(sparkle_group), intent(in) :: group
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in) :: weights(:, :, :, :)
    integer, intent(in) :: distribution
    real(c_float), intent(in), optional :: bias(:)
    real(c_double), intent(in), optional :: weight
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg

    call create(self, group, desc, weights, size(weights, kind=c_size_t), distribution, bias, weight, stat, errmsg)
  end subroutine plan_create_rank4

  subroutine create(self, group, desc, weights, weights_length, distribution, bias, weight, stat, errmsg)
    class(sparkle_group_plan), intent(inout), target :: self
    class(sparkle_group), intent(in) :: group
    type(sparkle_conv2d_desc), intent(in) :: desc
    real(c_float), intent(in) :: weights(*)
    integer(c_size_t), intent(in) :: weights_length
    integer, intent(in) :: distribution
    real(c_float), intent(in), optional :: bias(:)
    real(c_double), intent(in), optional :: weight
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_ptr) :: handle
    integer(c_size_t) :: bias_length
    real(c_double) :: share

    handle = c_null_ptr
    bias_length = 0
    if (present(bias)) bias_length = size(bias, kind=c_size_t)
    share = 0
    if (present(weight)) share = weight
    call take_status(problem, c_plan_create(group%handle, as_c(desc, present(bias)), narrowed(distribution), share, &
      weights, weights_length, bias, bias_length, handle))
    if (problem%status == SPARKLE_OK) then
      call self%destroy()
      self%handle = handle
      self%home = c_loc(self%handle)
    end if
    call settle('create', problem, stat, errmsg)
  end subroutine create

  !> What this rank holds, or `rank` holds. Not collective.
  subroutine plan_part(self, part, rank, stat, errmsg)
    class(sparkle_group_plan), intent(in) :: self
    type(sparkle_group_part), intent(inout) :: part
    integer, intent(in), optional :: rank
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_part) :: found
    integer(c_int32_t) :: whose

    whose = -1
    if (present(rank)) whose = narrowed(rank)
    found%size = storage_size(found) / 8
    call take_status(problem, c_plan_part(self%handle, whose, found))
    if (problem%status == SPARKLE_OK) then
      part = sparkle_group_part(found%first_in + 1, found%count_in, found%first_out + 1, found%count_out, &
        int(found%length_in, c_int64_t), int(found%length_out, c_int64_t))
    end if
    call settle('part', problem, stat, errmsg)
  end subroutine plan_part

  !> Convolves this rank's part of x into its part of y.
  subroutine plan_execute_flat(self, x, y, stat, errmsg)
    class(sparkle_group_plan), intent(in) :: self
    real(c_float), intent(in) :: x(:)
    real(c_float), intent(inout) :: y(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call take_status(problem, c_plan_execute(self%handle, x, size(x, kind=c_size_t), y, size(y, kind=c_size_t)))
    call settle('execute', problem, stat, errmsg)
  end subroutine plan_execute_flat

  !> The same for x(W,H,C,N) and y(Q,P,K,N), one of whose extents is that of the part.
  subroutine plan_execute_rank4(self, x, y, stat, errmsg)
    class(sparkle_group_plan), intent(in) :: self
    real(c_float), intent(in) :: x(:, :, :, :)
    real(c_float), intent(inout) :: y(:, :, :, :)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call take_status(problem, c_plan_execute(self%handle, x, size(x, kind=c_size_t), y, size(y, kind=c_size_t)))
    call settle('execute', problem, stat, errmsg)
  end subroutine plan_execute_rank4

  !> Begins a run: its messages are on their way. Do other work, then finish it with the same x.
  subroutine plan_begin_flat(self, x, stat, errmsg)
    class(sparkle_group_plan), intent(in) :: self
    real(c_float), intent(in) :: x(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call take_status(problem, c_plan_begin(self%handle, x, size(x, kind=c_size_t)))
    call settle('begin', problem, stat, errmsg)
  end subroutine plan_begin_flat

  !> The same for x(W,H,C,N).
  subroutine plan_begin_rank4(self, x, stat, errmsg)
    class(sparkle_group_plan), intent(in) :: self
    real(c_float), intent(in) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call take_status(problem, c_plan_begin(self%handle, x, size(x, kind=c_size_t)))
    call settle('begin', problem, stat, errmsg)
  end subroutine plan_begin_rank4

  !> Ends a run that was begun.
  subroutine plan_finish_flat(self, x, y, stat, errmsg)
    class(sparkle_group_plan), intent(in) :: self
    real(c_float), intent(in) :: x(:)
    real(c_float), intent(inout) :: y(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call take_status(problem, c_plan_finish(self%handle, x, size(x, kind=c_size_t), y, size(y, kind=c_size_t)))
    call settle('finish', problem, stat, errmsg)
  end subroutine plan_finish_flat

  !> The same for x(W,H,C,N) and y(Q,P,K,N).
  subroutine plan_finish_rank4(self, x, y, stat, errmsg)
    class(sparkle_group_plan), intent(in) :: self
    real(c_float), intent(in) :: x(:, :, :, :)
    real(c_float), intent(inout) :: y(:, :, :, :)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call take_status(problem, c_plan_finish(self%handle, x, size(x, kind=c_size_t), y, size(y, kind=c_size_t)))
    call settle('finish', problem, stat, errmsg)
  end subroutine plan_finish_rank4

  !> Releases the plan; releasing an empty one does nothing. A run that was begun is waited for, on all ranks.
  impure elemental subroutine plan_destroy(self)
    class(sparkle_group_plan), intent(inout), target :: self
    integer(c_int32_t) :: ignored

    if (c_associated(self%home, c_loc(self%handle))) ignored = c_plan_destroy(self%handle)
    self%handle = c_null_ptr
    self%home = c_null_ptr
  end subroutine plan_destroy

  elemental logical function plan_is_created(self)
    class(sparkle_group_plan), intent(in) :: self

    plan_is_created = c_associated(self%handle)
  end function plan_is_created

  impure elemental subroutine plan_finalize(self)
    type(sparkle_group_plan), intent(inout) :: self

    call self%destroy()
  end subroutine plan_finalize

  impure elemental subroutine plan_assign(left, right)
    class(sparkle_group_plan), intent(inout) :: left
    type(sparkle_group_plan), intent(in) :: right

    if (.not. c_associated(left%handle, right%handle)) call left%destroy()
  end subroutine plan_assign
end module sparkle_ranks
