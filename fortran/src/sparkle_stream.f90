!> Convolutions in flight: submit many, wait for their results later.
!>
!> Part of module `sparkle`; programs use that module.
!>
!>     type(sparkle_pipeline) :: pipeline
!>     type(sparkle_ticket) :: tickets(n)
!>     call pipeline%open(device)
!>     do i = 1, n
!>       call pipeline%submit(plan, x(:, i), y(:, i), tickets(i))
!>     end do
!>     do i = 1, n
!>       call tickets(i)%wait()          ! y(:, i) is ready now
!>     end do
!>
!> Until the ticket's wait, a flush or the close of the pipeline has returned, the arrays of a job must exist and must
!> not be accessed; declare them TARGET or ASYNCHRONOUS. They must be contiguous, so that the compiler passes no
!> temporary copy.
module sparkle_stream
  use, intrinsic :: iso_c_binding, only: c_associated, c_float, c_int32_t, c_int64_t, c_null_char, c_null_ptr, c_ptr, c_size_t
  use sparkle_c
  use sparkle_convolution, only: plan_handle, sparkle_plan
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_support
  implicit none
  private
  public :: sparkle_pipeline, sparkle_ticket

  !> A stream of jobs on one device. It cannot be copied: the left side of an assignment becomes a closed pipeline.
  type :: sparkle_pipeline
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure :: open => pipeline_open
    procedure :: close => pipeline_close
    procedure :: submit => pipeline_submit
    procedure :: flush => pipeline_flush
    procedure, private :: pipeline_assign
    generic :: assignment(=) => pipeline_assign
    final :: pipeline_finalize
  end type sparkle_pipeline

  !> A submitted job. It cannot be copied: the left side of an assignment becomes a ticket without a job.
  type :: sparkle_ticket
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure :: wait => ticket_wait
    procedure :: is_done => ticket_is_done
    procedure :: cancel => ticket_cancel
    procedure :: release => ticket_release
    procedure, private :: ticket_assign
    generic :: assignment(=) => ticket_assign
    final :: ticket_finalize
  end type sparkle_ticket

contains

  !> Opens a pipeline on `device`, by default `auto`, with `slots` slots on the device, by default 3. Where kernels take
  !> longer than transfers, 8 keep a GPU busy.
  subroutine pipeline_open(self, device, slots, stat, errmsg)
    class(sparkle_pipeline), intent(inout) :: self
    type(sparkle_device), intent(in), optional :: device
    integer, intent(in), optional :: slots
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_pipeline_options) :: options
    type(c_ptr) :: device_handle, handle

    device_handle = handle_of(device, problem)
    options%size = storage_size(options) / storage_size(c_null_char)
    if (present(slots)) options%slots = narrowed(slots)
    handle = c_null_ptr
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_pipeline_create(device_handle, options, handle))
    end if
    if (problem%status == SPARKLE_OK) then
      call self%close()
      self%handle = handle
    end if
    call settle('open', problem, stat, errmsg)
  end subroutine pipeline_open

  !> Cancels jobs that have not started, waits for the others, and closes. Closing a closed pipeline does nothing.
  subroutine pipeline_close(self)
    class(sparkle_pipeline), intent(inout) :: self
    integer(c_int32_t) :: ignored

    ! This fails only if sparkle_finalize has already destroyed the handle.
    if (c_associated(self%handle)) ignored = c_pipeline_destroy(self%handle)
    self%handle = c_null_ptr
  end subroutine pipeline_close

  impure elemental subroutine pipeline_finalize(self)
    type(sparkle_pipeline), intent(inout) :: self

    call self%close()
  end subroutine pipeline_finalize

  subroutine pipeline_assign(left, right)
    class(sparkle_pipeline), intent(inout) :: left
    type(sparkle_pipeline), intent(in) :: right

    if (c_associated(left%handle, right%handle)) return
    call left%close()
  end subroutine pipeline_assign

  !> Submits a run of `plan` from `x` into `y`, flat arrays in the order of the rank-4 ones. If the queue is full it
  !> waits.
  subroutine pipeline_submit(self, plan, x, y, ticket, stat, errmsg)
    class(sparkle_pipeline), intent(in) :: self
    type(sparkle_plan), intent(in) :: plan
    real(c_float), intent(in), contiguous, target, asynchronous :: x(:)
    real(c_float), intent(inout), contiguous, target, asynchronous :: y(:)
    type(sparkle_ticket), intent(inout) :: ticket
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_ptr) :: handle

    handle = c_null_ptr
    call take_status(problem, c_submit(self%handle, plan_handle(plan), x, size(x, kind=c_size_t), &
      y, size(y, kind=c_size_t), 1_c_int32_t, handle))
    if (problem%status == SPARKLE_OK) then
      call ticket%release()
      ticket%handle = handle
    end if
    call settle('submit', problem, stat, errmsg)
  end subroutine pipeline_submit

  !> Waits until no job is waiting or running.
  subroutine pipeline_flush(self, stat, errmsg)
    class(sparkle_pipeline), intent(in) :: self
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call take_status(problem, c_pipeline_flush(self%handle))
    call settle('flush', problem, stat, errmsg)
  end subroutine pipeline_flush

  !> Waits for the job and reports its error if it has failed. With `timeout_ms` it waits at most that many
  !> milliseconds; if the job is not done by then, `stat` is SPARKLE_ERROR_TIMEOUT and the job continues.
  subroutine ticket_wait(self, timeout_ms, stat, errmsg)
    class(sparkle_ticket), intent(in) :: self
    integer, intent(in), optional :: timeout_ms
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_int64_t) :: limit

    limit = -1
    if (present(timeout_ms)) limit = max(0, timeout_ms)
    call take_status(problem, c_ticket_wait(self%handle, limit))
    call settle('wait', problem, stat, errmsg)
  end subroutine ticket_wait

  !> Whether the job is done, successfully or not. A ticket without a job is done.
  logical function ticket_is_done(self)
    class(sparkle_ticket), intent(in) :: self
    integer(c_int32_t) :: done

    done = 1
    if (c_associated(self%handle)) then
      if (c_ticket_poll(self%handle, done) /= SPARKLE_OK) done = 1
    end if
    ticket_is_done = done /= 0
  end function ticket_is_done

  !> Cancels the job if it has not started. Returns whether it was cancelled.
  logical function ticket_cancel(self)
    class(sparkle_ticket), intent(in) :: self
    integer(c_int32_t) :: cancelled

    cancelled = 0
    if (c_associated(self%handle)) then
      if (c_ticket_cancel(self%handle, cancelled) /= SPARKLE_OK) cancelled = 0
    end if
    ticket_cancel = cancelled /= 0
  end function ticket_cancel

  !> Releases the ticket; the job continues.
  subroutine ticket_release(self)
    class(sparkle_ticket), intent(inout) :: self
    integer(c_int32_t) :: ignored

    if (c_associated(self%handle)) ignored = c_ticket_release(self%handle)
    self%handle = c_null_ptr
  end subroutine ticket_release

  impure elemental subroutine ticket_finalize(self)
    type(sparkle_ticket), intent(inout) :: self

    call self%release()
  end subroutine ticket_finalize

  subroutine ticket_assign(left, right)
    class(sparkle_ticket), intent(inout) :: left
    type(sparkle_ticket), intent(in) :: right

    if (c_associated(left%handle, right%handle)) return
    call left%release()
  end subroutine ticket_assign
end module sparkle_stream
