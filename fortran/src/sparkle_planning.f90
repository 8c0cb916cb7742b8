!> Plans for loops of one's own.
!>
!> Part of module `sparkle`; programs use that module.
module sparkle_planning
  use, intrinsic :: iso_c_binding, only: c_double, c_int32_t, c_int64_t, c_null_char, c_size_t
  use sparkle_c
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_support
  implicit none
  private
  public :: sparkle_loops, sparkle_loop_plan, sparkle_plan_loops
  public :: SPARKLE_LOOPS_GEMM, SPARKLE_LOOPS_STENCIL, SPARKLE_STENCIL_STAR, SPARKLE_STENCIL_BOX
  public :: SPARKLE_BOUND_ARITHMETIC, SPARKLE_BOUND_L1, SPARKLE_BOUND_L2, SPARKLE_BOUND_L3, SPARKLE_BOUND_MEMORY

  integer, parameter :: SPARKLE_LOOPS_GEMM = 0
  integer, parameter :: SPARKLE_LOOPS_STENCIL = 1
  integer, parameter :: SPARKLE_STENCIL_STAR = 0
  integer, parameter :: SPARKLE_STENCIL_BOX = 1
  integer, parameter :: SPARKLE_BOUND_ARITHMETIC = 0
  integer, parameter :: SPARKLE_BOUND_L1 = 1
  integer, parameter :: SPARKLE_BOUND_L2 = 2
  integer, parameter :: SPARKLE_BOUND_L3 = 3
  integer, parameter :: SPARKLE_BOUND_MEMORY = 4

  !> A stencil, or a product of column-major matrices C = C + A B of 4-byte reals.
  type :: sparkle_loops
    integer :: kind = SPARKLE_LOOPS_STENCIL
    !> Which neighbours a stencil reads: those along the axes, or all within the radius.
    integer :: shape = SPARKLE_STENCIL_STAR
    !> A stencil's points, edges included, as in `shape(u)`: the first index is contiguous; the last is 1 for a grid of two
    !> dimensions. A product's rows of C, columns of C, and columns of A.
    integer(c_int64_t) :: extents(3) = 1
    !> How far a stencil's neighbours are along each of these dimensions.
    integer :: radius(3) = 0
    !> Further arrays of which a stencil reads only the point itself.
    integer :: reads = 0
    !> Arrays that a stencil writes.
    integer :: writes = 1
    !> Bytes of a stencil's elements, 4 or 8.
    integer :: element_bytes = 4
    !> Threads that run the loops.
    integer :: threads = 1
    !> Operations per point of a stencil; 0 means 2 for each neighbour and the point.
    real(c_double) :: flops = 0.0_c_double
  end type sparkle_loops

  !> How to run loops, and what to expect. Levels are L1, L2, L3 and main memory.
  type :: sparkle_loop_plan
    !> Results to keep in registers: along the first and the second dimension.
    integer(c_int64_t) :: tile(2) = 0
    !> A stencil's block along each dimension of `extents`; compute plane after plane of the last one within it. A product's
    !> rows of a task, columns of B, and depth.
    integer(c_int64_t) :: block(3) = 0
    !> Blocks that can be computed at the same time.
    integer(c_int64_t) :: tasks = 0
    !> The predicted time with these blocks, and without any.
    real(c_double) :: seconds = 0.0_c_double
    real(c_double) :: naive_seconds = 0.0_c_double
    !> The time of the arithmetic alone.
    real(c_double) :: arithmetic_seconds = 0.0_c_double
    !> The time that each level takes for the bytes that it serves, with blocks.
    real(c_double) :: level_seconds(4) = 0.0_c_double
    !> The bytes that each level serves, with blocks and without.
    real(c_double) :: level_bytes(4) = 0.0_c_double
    real(c_double) :: naive_bytes(4) = 0.0_c_double
    !> What takes longest with blocks, and without: one of the constants SPARKLE_BOUND_*.
    integer :: binds = SPARKLE_BOUND_ARITHMETIC
    integer :: naive_binds = SPARKLE_BOUND_ARITHMETIC
    !> Why, in a sentence or two.
    character(len=512) :: why = ''
  end type sparkle_loop_plan

contains

  !> Plans loops on a CPU: blocks, and the times to expect with and without them. Without a device, or with `auto`, it plans
  !> for this machine's CPU. The first call measures the machine, which takes some tenths of a second.
  subroutine sparkle_plan_loops(loops, plan, device, stat, errmsg)
    type(sparkle_loops), intent(in) :: loops
    type(sparkle_loop_plan), intent(out) :: plan
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_loops) :: raw
    type(c_loop_plan) :: found
    logical :: is_stencil

    is_stencil = loops%kind == SPARKLE_LOOPS_STENCIL
    raw%size = storage_size(raw) / storage_size(c_null_char)
    raw%kind = narrowed(loops%kind)
    raw%shape = narrowed(loops%shape)
    ! C's last index is contiguous. Its rows of a product are the columns of Fortran.
    if (is_stencil) then
      raw%extents = loops%extents(3:1:-1)
    else
      raw%extents = [loops%extents(2), loops%extents(1), loops%extents(3)]
    end if
    raw%radius = [narrowed(loops%radius(3)), narrowed(loops%radius(2)), narrowed(loops%radius(1))]
    raw%reads = narrowed(loops%reads)
    raw%writes = narrowed(loops%writes)
    raw%element_bytes = narrowed(loops%element_bytes)
    raw%threads = narrowed(loops%threads)
    raw%flops = loops%flops
    found%size = storage_size(found) / storage_size(c_null_char)
    call take_status(problem, c_plan_loops(handle_of(device, problem), raw, found))
    if (problem%status == SPARKLE_OK) then
      plan%tile = [found%tile(2), found%tile(1)]
      plan%block = [found%block(2), found%block(1), found%block(3)]
      if (is_stencil) plan%block = found%block(3:1:-1)
      plan%tasks = found%tasks
      plan%seconds = found%seconds
      plan%naive_seconds = found%naive_seconds
      plan%arithmetic_seconds = found%arithmetic_seconds
      plan%level_seconds = found%level_seconds
      plan%level_bytes = found%level_bytes
      plan%naive_bytes = found%naive_bytes
      plan%binds = int(found%binds)
      plan%naive_binds = int(found%naive_binds)
      plan%why = text_in(found%why)
    end if
    call settle('sparkle_plan_loops', problem, stat, errmsg)
  end subroutine sparkle_plan_loops
end module sparkle_planning
