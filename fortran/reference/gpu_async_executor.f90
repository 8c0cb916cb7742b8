!> Convolutions in flight: up to three at once, each with buffers of its own, on the program that
!> `gpu_opengl_interface` builds.
!>
!>     call gpu_async_executor_init(state, gpu_get_program_id(), weight_buffer)
!>     call gpu_async_set_shape(state, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
!>     set = gpu_get_next_buffer_set(state)
!>     call gpu_submit_work_async(state, set, input, output, input_bytes, output_bytes, grid_x, grid_y, grid_z)
!>     ... other work ...
!>     call gpu_wait_for_completion(state, set)        ! output is there now
!>
!> The kernel reads its shape from the buffer at SSBO index 3. That is the shape of the last convolution on this
!> context: of `gpu_async_set_shape`, of `gpu_async_conv2d`, or of a synchronous call, which leaves its own there.
!>
!> An output is delivered into `output_data` when its completion is first observed: by `gpu_wait_for_completion`, by
!> `gpu_is_work_complete`, or when `gpu_get_next_buffer_set` needs its set. Until then the array must exist and must not
!> be touched; give it the TARGET or ASYNCHRONOUS attribute. Work that failed leaves its output untouched and counts in
!> `failed_operations`. Sets complete in the order in which they were submitted. A state belongs to the thread
!> that initialised it, because its queries belong to that thread's context.
module gpu_async_executor
  use, intrinsic :: iso_c_binding, only: c_associated, c_int32_t, c_int64_t, c_loc, c_null_ptr, c_ptr
  use, intrinsic :: iso_fortran_env, only: int64, real32
  use gpu_opengl_interface, only: gpu_conv2d_params
  use sparkle_gl
  use sparkle_reference_support, only: arrays_suffice, clock_ns
  implicit none
  private
  public :: MAX_IN_FLIGHT, gpu_async_state
  public :: gpu_async_executor_init, gpu_async_executor_cleanup
  public :: gpu_get_next_buffer_set, gpu_submit_work_async, gpu_is_work_complete, gpu_wait_for_completion
  public :: gpu_async_conv2d, gpu_async_set_shape

  integer, parameter :: MAX_IN_FLIGHT = 3
  integer, parameter :: PARAMETER_INDEX = 3

  !> What one convolution in flight needs.
  type :: gpu_buffer_set
    integer :: input_buffer = 0
    integer :: output_buffer = 0
    type(c_ptr) :: fence = c_null_ptr
    logical :: in_use = .false.
    !> When it was submitted and when its completion was observed, in nanoseconds of a monotonic clock.
    integer(int64) :: submit_time = 0
    integer(int64) :: complete_time = 0
    integer(int64) :: sequence = 0
    type(c_ptr) :: destination = c_null_ptr
    integer(int64) :: destination_bytes = 0
    !> Timestamp queries before and after the dispatch.
    integer :: queries(2) = 0
  end type gpu_buffer_set

  type :: gpu_async_state
    type(gpu_buffer_set) :: buffer_sets(MAX_IN_FLIGHT)
    integer :: current_set = 1
    integer :: weight_buffer = 0
    integer :: compute_program = 0
    !> Nanoseconds on the GPU's clock during which it ran collected work, and between such work. Work that overlaps
    !> counts once.
    integer(int64) :: total_gpu_time = 0
    integer(int64) :: total_idle_time = 0
    integer :: completed_operations = 0
    integer :: failed_operations = 0
    logical :: initialized = .false.
    integer :: max_workgroup_size = 256
    integer :: parameter_buffer = 0
    !> Holds the weights that `gpu_async_conv2d` is called with; `weight_buffer` stays as the caller made it.
    integer :: own_weight_buffer = 0
    integer(int64) :: submissions = 0
    integer(int64) :: last_gpu_end = 0
  end type gpu_async_state

contains

  !> Takes a program and a buffer with the weights. `initialized` tells whether it worked.
  subroutine gpu_async_executor_init(state, compute_program, weight_buffer)
    type(gpu_async_state), intent(out) :: state
    integer, intent(in) :: compute_program
    integer, intent(in) :: weight_buffer
    integer(c_int32_t) :: names(2 * MAX_IN_FLIGHT + 2), queries(2 * MAX_IN_FLIGHT)
    integer :: i

    if (compute_program <= 0) return
    if (.not. gl_is_ready()) return
    call gl_forget_errors()
    names = 0
    queries = 0
    call glGenBuffers(size(names, kind=c_int32_t), names)
    call glGenQueries(size(queries, kind=c_int32_t), queries)
    do i = 1, MAX_IN_FLIGHT
      state%buffer_sets(i)%input_buffer = names(2 * i - 1)
      state%buffer_sets(i)%output_buffer = names(2 * i)
      state%buffer_sets(i)%queries = queries(2 * i - 1:2 * i)
    end do
    state%parameter_buffer = names(size(names) - 1)
    state%own_weight_buffer = names(size(names))
    state%compute_program = compute_program
    state%weight_buffer = weight_buffer
    state%initialized = .not. gl_had_error()
  end subroutine gpu_async_executor_init

  !> Waits for what is in flight, delivers it and deletes the executor's buffers. The figures stay readable.
  subroutine gpu_async_executor_cleanup(state)
    type(gpu_async_state), intent(inout) :: state
    integer :: i

    if (.not. state%initialized) return
    if (.not. gl_is_ready()) return
    do i = 1, MAX_IN_FLIGHT
      call gpu_wait_for_completion(state, i)
      associate (set => state%buffer_sets(i))
        if (c_associated(set%fence)) call glDeleteSync(set%fence)
        call glDeleteBuffers(2_c_int32_t, [set%input_buffer, set%output_buffer])
        call glDeleteQueries(2_c_int32_t, set%queries)
      end associate
      state%buffer_sets(i) = gpu_buffer_set()
    end do
    call glDeleteBuffers(2_c_int32_t, [state%parameter_buffer, state%own_weight_buffer])
    state%parameter_buffer = 0
    state%own_weight_buffer = 0
    state%initialized = .false.
  end subroutine gpu_async_executor_cleanup

  !> Puts the shape of the convolutions that follow at index 3. Work already in flight keeps its own.
  subroutine gpu_async_set_shape(state, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    type(gpu_conv2d_params), target :: parameters

    if (.not. state%initialized) return
    if (.not. gl_is_ready()) return
    parameters = gpu_conv2d_params(N=N, H=H, W=W, C=C, K=K, kernel_size=kernel_size, stride=stride, pad=pad, &
      H_out=H_out, W_out=W_out)
    call fill(state%parameter_buffer, int(storage_size(parameters) / 8, int64), c_loc(parameters), GL_DYNAMIC_DRAW)
    call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, PARAMETER_INDEX, state%parameter_buffer)
  end subroutine gpu_async_set_shape

  !> A set that is free, after waiting for the oldest if all are in flight; 0 if the GPU frees none.
  integer function gpu_get_next_buffer_set(state) result(set_id)
    type(gpu_async_state), intent(inout) :: state
    integer :: turn, candidate

    set_id = 0
    if (.not. state%initialized) return
    do turn = 0, MAX_IN_FLIGHT - 1
      candidate = 1 + mod(state%current_set - 1 + turn, MAX_IN_FLIGHT)
      if (gpu_is_work_complete(state, candidate)) exit
    end do
    if (state%buffer_sets(candidate)%in_use) then
      candidate = oldest_in_flight(state)
      call gpu_wait_for_completion(state, candidate)
      if (state%buffer_sets(candidate)%in_use) return
    end if
    set_id = candidate
    state%current_set = 1 + mod(set_id, MAX_IN_FLIGHT)
  end function gpu_get_next_buffer_set

  !> Uploads `input_data`, starts the program on grid_x * grid_y * grid_z workgroups and returns. Sizes are in bytes.
  !>
  !> `output_data` is assumed-rank, which takes all that assumed-size takes, but knows a strided section when it sees
  !> one. The compiler would pass a temporary copy of it, gone before the result arrives; here it is waited for instead.
  subroutine gpu_submit_work_async(state, set_id, input_data, output_data, input_size, output_size, &
    grid_x, grid_y, grid_z)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    real(real32), intent(in), target :: input_data(*)
    real(real32), intent(inout), target, asynchronous :: output_data(..)
    integer(int64), intent(in) :: input_size, output_size
    integer, intent(in) :: grid_x, grid_y, grid_z
    integer(int64) :: available

    if (.not. (state%initialized .and. is_set(set_id))) then
      state%failed_operations = state%failed_operations + 1
      return
    end if
    ! Negative for an assumed-size array, one for an element of an array: neither tells how much there is.
    available = 4 * size(output_data, kind=int64)
    if (rank(output_data) > 0 .and. available >= 0 .and. available < output_size) then
      state%failed_operations = state%failed_operations + 1
    else if (is_contiguous(output_data)) then
      call submit(state, set_id, c_loc(input_data), c_loc(output_data), input_size, output_size, &
        [grid_x, grid_y, grid_z], state%weight_buffer)
    else
      call submit_strided(state, set_id, c_loc(input_data), output_data, input_size, output_size, &
        [grid_x, grid_y, grid_z])
    end if
  end subroutine gpu_submit_work_async

  !> Submits and waits, with the output in a packed copy meanwhile. The copies are explicit, because gfortran 12 does not
  !> pack the associate name of SELECT RANK when it is passed on.
  subroutine submit_strided(state, set_id, input, output_data, input_size, output_size, grid)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    type(c_ptr), intent(in) :: input
    real(real32), intent(inout), target, asynchronous :: output_data(..)
    integer(int64), intent(in) :: input_size, output_size
    integer, intent(in) :: grid(3)
    real(real32), allocatable, target :: packed(:)

    allocate (packed(size(output_data)))
    select rank (output_data)
    rank (1)
      packed(:) = output_data
    rank (2)
      packed(:) = reshape(output_data, [size(output_data)])
    rank (3)
      packed(:) = reshape(output_data, [size(output_data)])
    rank (4)
      packed(:) = reshape(output_data, [size(output_data)])
    rank default
      state%failed_operations = state%failed_operations + 1
      return
    end select
    call submit(state, set_id, input, c_loc(packed), input_size, output_size, grid, state%weight_buffer)
    call wait_or_abandon(state, set_id)
    select rank (output_data)
    rank (1)
      output_data = packed
    rank (2)
      output_data = reshape(packed, shape(output_data))
    rank (3)
      output_data = reshape(packed, shape(output_data))
    rank (4)
      output_data = reshape(packed, shape(output_data))
    end select
  end subroutine submit_strided

  !> Whether the set's work is done, without waiting; if it is, its output is delivered.
  logical function gpu_is_work_complete(state, set_id)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id

    gpu_is_work_complete = .true.
    if (is_set(set_id)) gpu_is_work_complete = finished_within(state, set_id, 0_int64)
  end function gpu_is_work_complete

  !> Waits until the set's work is done and its output delivered, at most SPARKLE_GL_TIMEOUT_MS, 10 s unless set. After
  !> that long the set is still in use, and may be waited for again.
  subroutine gpu_wait_for_completion(state, set_id)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    logical :: ignored

    if (is_set(set_id)) ignored = finished_within(state, set_id, timeout_ns())
  end subroutine gpu_wait_for_completion

  !> One whole convolution with the weights given, through the next buffer set; `output` is there on return.
  subroutine gpu_async_conv2d(state, input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    type(gpu_async_state), intent(inout) :: state
    real(real32), intent(in), target :: input(*)
    real(real32), intent(in), target :: weights(*)
    real(real32), intent(inout), target :: output(*)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    integer(int64), parameter :: unknown = huge(0_int64)
    integer :: set_id

    set_id = 0
    if (arrays_suffice(unknown, unknown, unknown, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)) then
      set_id = gpu_get_next_buffer_set(state)
    end if
    if (set_id == 0) then
      state%failed_operations = state%failed_operations + 1
      return
    end if
    call gpu_async_set_shape(state, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    call fill(state%own_weight_buffer, 4_int64 * K * C * kernel_size * kernel_size, c_loc(weights), GL_STATIC_DRAW)
    ! The kernel strides over whatever grid it gets; this is the one that existing programs use.
    call submit(state, set_id, c_loc(input), c_loc(output), 4_int64 * N * C * H * W, &
      4_int64 * N * K * H_out * W_out, [(W_out + 15) / 16, (H_out + 15) / 16, int(min(int(N, int64) * K, 65535_int64))], &
      state%own_weight_buffer)
    call wait_or_abandon(state, set_id)
  end subroutine gpu_async_conv2d

  !> Waits for a set whose output may not exist any longer than that; if it takes too long, the output goes nowhere.
  subroutine wait_or_abandon(state, set_id)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id

    call gpu_wait_for_completion(state, set_id)
    if (state%buffer_sets(set_id)%in_use) state%buffer_sets(set_id)%destination = c_null_ptr
  end subroutine wait_or_abandon

  pure logical function is_set(set_id)
    integer, intent(in) :: set_id

    is_set = set_id >= 1 .and. set_id <= MAX_IN_FLIGHT
  end function is_set

  pure integer function oldest_in_flight(state)
    type(gpu_async_state), intent(in) :: state

    oldest_in_flight = minloc(state%buffer_sets%sequence, dim=1, mask=state%buffer_sets%in_use)
  end function oldest_in_flight

  !> Gives a buffer new contents. The driver keeps the old ones for work in flight.
  subroutine fill(buffer, bytes, data, usage)
    integer, intent(in) :: buffer
    integer(int64), intent(in) :: bytes
    type(c_ptr), intent(in) :: data
    integer(c_int32_t), intent(in) :: usage

    call glBindBuffer(GL_COPY_WRITE_BUFFER, buffer)
    call glBufferData(GL_COPY_WRITE_BUFFER, bytes, data, usage)
    call glBindBuffer(GL_COPY_WRITE_BUFFER, 0_c_int32_t)
  end subroutine fill

  !> Uploads, dispatches and fences one set.
  subroutine submit(state, set_id, input, output, input_bytes, output_bytes, grid, weight_buffer)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    type(c_ptr), intent(in) :: input, output
    integer(int64), intent(in) :: input_bytes, output_bytes
    integer, intent(in) :: grid(3)
    integer, intent(in) :: weight_buffer
    logical :: started

    ! A set that is still in flight is finished first, whoever forgot to ask.
    call gpu_wait_for_completion(state, set_id)
    started = .false.
    if (min(input_bytes, output_bytes) > 0 .and. minval(grid) > 0 .and. .not. state%buffer_sets(set_id)%in_use) then
      started = dispatched(state, set_id, input, input_bytes, output_bytes, grid, weight_buffer)
    end if
    if (.not. started) then
      state%failed_operations = state%failed_operations + 1
      return
    end if
    associate (set => state%buffer_sets(set_id))
      state%submissions = state%submissions + 1
      set%sequence = state%submissions
      set%submit_time = clock_ns()
      set%destination = output
      set%destination_bytes = output_bytes
      set%in_use = .true.
    end associate
  end subroutine submit

  logical function dispatched(state, set_id, input, input_bytes, output_bytes, grid, weight_buffer)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    type(c_ptr), intent(in) :: input
    integer(int64), intent(in) :: input_bytes, output_bytes
    integer, intent(in) :: grid(3)
    integer, intent(in) :: weight_buffer
    integer(c_int32_t) :: bound(1)

    dispatched = .false.
    if (.not. gl_is_ready()) return
    call gl_forget_errors()
    bound = 0
    call glGetIntegeri_v(GL_SHADER_STORAGE_BUFFER_BINDING, PARAMETER_INDEX, bound)
    ! Without a shape the kernel would do nothing, and the output be whatever the memory held.
    if (bound(1) == 0) return
    associate (set => state%buffer_sets(set_id))
      call fill(set%input_buffer, input_bytes, input, GL_DYNAMIC_DRAW)
      call fill(set%output_buffer, output_bytes, c_null_ptr, GL_DYNAMIC_COPY)
      call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 0_c_int32_t, set%input_buffer)
      if (weight_buffer > 0) call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 1_c_int32_t, weight_buffer)
      call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 2_c_int32_t, set%output_buffer)
      call glUseProgram(state%compute_program)
      if (gl_had_error()) return
      call glQueryCounter(set%queries(1), GL_TIMESTAMP)
      call glDispatchCompute(grid(1), grid(2), grid(3))
      call glMemoryBarrier(GL_BUFFER_UPDATE_BARRIER_BIT)
      call glQueryCounter(set%queries(2), GL_TIMESTAMP)
      set%fence = glFenceSync(GL_SYNC_GPU_COMMANDS_COMPLETE, 0_c_int32_t)
      call glFlush()
      dispatched = c_associated(set%fence)
      if (.not. gl_had_error()) return
      dispatched = .false.
      if (c_associated(set%fence)) call glDeleteSync(set%fence)
      set%fence = c_null_ptr
    end associate
  end function dispatched

  !> Waits up to `nanoseconds` for a set; once it is done, delivers it and all that were submitted before it.
  logical function finished_within(state, set_id, nanoseconds)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    integer(int64), intent(in) :: nanoseconds
    integer(c_int32_t) :: outcome
    integer :: oldest

    finished_within = .not. state%buffer_sets(set_id)%in_use
    if (finished_within) return
    if (.not. gl_is_ready()) return
    outcome = glClientWaitSync(state%buffer_sets(set_id)%fence, GL_SYNC_FLUSH_COMMANDS_BIT, nanoseconds)
    if (outcome == GL_TIMEOUT_EXPIRED) return
    do
      oldest = oldest_in_flight(state)
      call deliver(state, oldest, outcome == GL_ALREADY_SIGNALED .or. outcome == GL_CONDITION_SATISFIED)
      if (oldest == set_id) exit
    end do
    finished_within = .true.
  end function finished_within

  !> Ends the work of one set whose fence has signalled, or whose waiting failed.
  subroutine deliver(state, set_id, signalled)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    logical, intent(in) :: signalled
    logical :: delivered

    associate (set => state%buffer_sets(set_id))
      call glDeleteSync(set%fence)
      set%fence = c_null_ptr
      set%in_use = .false.
      set%complete_time = clock_ns()
      delivered = signalled .and. c_associated(set%destination)
      if (delivered) then
        call gl_forget_errors()
        call glBindBuffer(GL_COPY_WRITE_BUFFER, set%output_buffer)
        call glGetBufferSubData(GL_COPY_WRITE_BUFFER, 0_c_int64_t, set%destination_bytes, set%destination)
        call glBindBuffer(GL_COPY_WRITE_BUFFER, 0_c_int32_t)
        delivered = .not. gl_had_error()
      end if
    end associate
    if (delivered) then
      state%completed_operations = state%completed_operations + 1
      call account(state, set_id)
    else
      state%failed_operations = state%failed_operations + 1
    end if
  end subroutine deliver

  !> Adds the set's time on the GPU, less what overlaps with the work before it, and the gap between the two.
  subroutine account(state, set_id)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    integer(c_int64_t) :: begun, ended

    begun = 0
    ended = 0
    call glGetQueryObjectui64v(state%buffer_sets(set_id)%queries(1), GL_QUERY_RESULT, begun)
    call glGetQueryObjectui64v(state%buffer_sets(set_id)%queries(2), GL_QUERY_RESULT, ended)
    if (state%last_gpu_end /= 0) then
      state%total_idle_time = state%total_idle_time + max(0_int64, begun - state%last_gpu_end)
      begun = max(begun, state%last_gpu_end)
    end if
    state%total_gpu_time = state%total_gpu_time + max(0_int64, ended - begun)
    state%last_gpu_end = max(state%last_gpu_end, ended)
  end subroutine account

  !> How long to wait for the GPU, as the library does.
  integer(int64) function timeout_ns()
    character(len=20) :: value
    integer(int64) :: milliseconds
    integer :: length, stat

    call get_environment_variable('SPARKLE_GL_TIMEOUT_MS', value, length, stat)
    milliseconds = 0
    if (stat == 0 .and. length > 0) read (value, *, iostat=stat) milliseconds
    if (stat /= 0 .or. milliseconds < 1) milliseconds = 10000
    ! A year stands for longer times, which would not fit in nanoseconds.
    timeout_ns = min(milliseconds, 31536000000_int64) * 1000000
  end function timeout_ns
end module gpu_async_executor
