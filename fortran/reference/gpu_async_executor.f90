!> Asynchronous convolutions: up to three in flight, each with its own buffers.
!>
!>     call gpu_async_executor_init(state, gpu_get_program_id(), weight_buffer)
!>     call gpu_async_set_shape(state, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
!>     set = gpu_get_next_buffer_set(state)
!>     call gpu_submit_work_async(state, set, input, output, input_bytes, output_bytes, grid_x, grid_y, grid_z)
!>     ... other work ...
!>     call gpu_wait_for_completion(state, set)        ! output is ready now
!>
!> The buffer at SSBO index 3 holds the sizes. `gpu_async_set_shape`, `gpu_async_conv2d` and synchronous calls set them.
!> If they do not match the submitted buffers, the output becomes NaN.
!>
!> For the program of `gpu_opengl_interface`, the library enqueues its fastest kernels for these sizes on the same
!> context and buffers. Any other program is dispatched unchanged. `gpu_async_conv2d`, which waits, runs the whole
!> convolution on the library's GPU device instead, where large ones go through a pipeline.
!>
!> An output is written to `output_data` when its completion is first observed: by `gpu_wait_for_completion`, by
!> `gpu_is_work_complete`, or when `gpu_get_next_buffer_set` needs its set. Until then the array must exist and must not
!> be accessed; declare it TARGET or ASYNCHRONOUS. Failed work leaves its output untouched and counts in
!> `failed_operations`. Sets complete in the order of submission. A complete set stays in use until
!> `gpu_wait_for_completion`. A state belongs to the thread that initialised it, because its queries belong to that
!> thread's context.
module gpu_async_executor
  use, intrinsic :: iso_c_binding, only: c_associated, c_f_pointer, c_int, c_int32_t, c_int64_t, c_loc, c_null_ptr, c_ptr
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use gpu_opengl_interface, only: gpu_conv2d_params
  use sparkle, only: sparkle_conv2d_desc, sparkle_device, sparkle_last_timing, sparkle_plan, sparkle_timing
  use sparkle_gl
  use sparkle_reference_support, only: arrays_suffice, clock_ns, gpu_selector
  use sparkle_support, only: narrowed
  implicit none
  private
  public :: MAX_IN_FLIGHT, gpu_async_state
  public :: gpu_async_executor_init, gpu_async_executor_cleanup
  public :: gpu_get_next_buffer_set, gpu_submit_work_async, gpu_is_work_complete, gpu_wait_for_completion
  public :: gpu_async_conv2d, gpu_async_set_shape

  integer, parameter :: MAX_IN_FLIGHT = 3
  integer, parameter :: PARAMETER_INDEX = 3

  !> The resources of one convolution in flight.
  type :: gpu_buffer_set
    integer :: input_buffer = 0, output_buffer = 0
    type(c_ptr) :: fence = c_null_ptr
    logical :: in_use = .false.
    !> Times of submission and observed completion, in nanoseconds of a monotonic clock.
    integer(int64) :: submit_time = 0, complete_time = 0
    integer(int64) :: sequence = 0
    type(c_ptr) :: destination = c_null_ptr
    integer(int64) :: destination_bytes = 0
    !> Timestamp queries before and after the dispatch.
    integer :: queries(2) = 0
  end type gpu_buffer_set

  !> The state of a set's work.
  integer, parameter :: PENDING = 0, DELIVERED = 1, FAILED = 2

  !> The parts of a state that change although it is INTENT(IN), and those that are kept from call to call.
  type :: gpu_async_inner
    integer :: outcome(MAX_IN_FLIGHT) = PENDING
    !> The plan of the last whole convolution, reused for the same sizes and weights.
    type(sparkle_device) :: device
    type(sparkle_plan) :: plan
    integer :: sizes(8) = 0
    !> As bits, so that NaNs compare equal.
    integer(c_int32_t), allocatable :: weights(:)
  end type gpu_async_inner

  type :: gpu_async_state
    type(gpu_buffer_set) :: buffer_sets(MAX_IN_FLIGHT)
    integer :: current_set = 1
    integer :: weight_buffer = 0
    integer :: compute_program = 0
    !> Nanoseconds of GPU work that has completed, and of the gaps in between. Overlapping work counts once.
    integer(int64) :: total_gpu_time = 0, total_idle_time = 0
    integer :: completed_operations = 0
    !> Units of the times above per second.
    integer :: clock_rate = 0
    logical :: initialized = .false.
    integer :: max_workgroup_size = 256
    integer :: failed_operations = 0
    integer :: parameter_buffer = 0
    !> The contents of the parameter buffer.
    type(gpu_conv2d_params) :: shape = gpu_conv2d_params(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    !> The weights of `gpu_async_conv2d`; `weight_buffer` belongs to the caller and is not modified.
    integer :: own_weight_buffer = 0
    integer(int64) :: submissions = 0
    integer(int64) :: last_gpu_end = 0
    !> The end of the last whole convolution, on the clock of `submit_time`.
    integer(int64) :: last_device_end = 0
    type(gpu_async_inner), pointer :: inner => null()
  end type gpu_async_state

  interface
    function c_enqueue(program_id, input, weights, output, params) bind(C, name="gpu_enqueue_conv2d") result(queued)
      import :: c_int, c_int32_t, c_ptr
      integer(c_int), value :: program_id
      integer(c_int32_t), value :: input, weights, output
      type(c_ptr), value :: params
      integer(c_int) :: queued
    end function c_enqueue

    function c_is_reference_program(program_id) bind(C, name="gpu_is_reference_program") result(truth)
      import :: c_int
      integer(c_int), value :: program_id
      integer(c_int) :: truth
    end function c_is_reference_program
  end interface

contains

  !> Initialises `state` with a program and a buffer of weights. `initialized` is true on success.
  subroutine gpu_async_executor_init(state, compute_program, weight_buffer)
    type(gpu_async_state), intent(out) :: state
    integer, intent(in) :: compute_program, weight_buffer
    integer(c_int32_t) :: names(2 * MAX_IN_FLIGHT + 2), queries(2 * MAX_IN_FLIGHT)
    integer :: i
    type(driver_float_env) :: env

    call env%enter()
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
    state%clock_rate = 1000000000
    state%initialized = .not. gl_had_error()
    if (state%initialized) allocate (state%inner)
  end subroutine gpu_async_executor_init

  !> Waits for work in flight, delivers its outputs and deletes the executor's buffers. The counters stay readable.
  subroutine gpu_async_executor_cleanup(state)
    type(gpu_async_state), intent(inout) :: state
    integer :: i
    type(driver_float_env) :: env

    call env%enter()
    if (.not. state%initialized) return
    if (.not. gl_is_ready()) return
    do i = 1, MAX_IN_FLIGHT
      call gpu_wait_for_completion(state, i)
      associate (set => state%buffer_sets(i))
        if (c_associated(set%fence)) call glDeleteSync(set%fence)
        call glDeleteBuffers(2_c_int32_t, int([set%input_buffer, set%output_buffer], c_int32_t))
        call glDeleteQueries(2_c_int32_t, int(set%queries, c_int32_t))
      end associate
      state%buffer_sets(i) = gpu_buffer_set()
    end do
    call glDeleteBuffers(2_c_int32_t, int([state%parameter_buffer, state%own_weight_buffer], c_int32_t))
    deallocate (state%inner)
    state%parameter_buffer = 0
    state%own_weight_buffer = 0
    state%initialized = .false.
  end subroutine gpu_async_executor_cleanup

  !> Binds the sizes of the following convolutions at index 3. Work in flight keeps its own sizes.
  subroutine gpu_async_set_shape(state, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    type(gpu_conv2d_params), target :: parameters
    type(driver_float_env) :: env

    call env%enter()
    if (.not. state%initialized) return
    if (.not. gl_is_ready()) return
    parameters = gpu_conv2d_params(N=narrowed(N), H=narrowed(H), W=narrowed(W), C=narrowed(C), K=narrowed(K), &
      kernel_size=narrowed(kernel_size), stride=narrowed(stride), pad=narrowed(pad), H_out=narrowed(H_out), &
      W_out=narrowed(W_out))
    state%shape = parameters
    call fill(state%parameter_buffer, int(storage_size(parameters) / 8, int64), c_loc(parameters), GL_DYNAMIC_DRAW)
    call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, narrowed(PARAMETER_INDEX), narrowed(state%parameter_buffer))
  end subroutine gpu_async_set_shape

  !> Returns a free set. If all are in flight it waits for the oldest; 0 if that does not complete.
  integer function gpu_get_next_buffer_set(state) result(set_id)
    type(gpu_async_state), intent(inout) :: state
    integer :: turn, candidate
    type(driver_float_env) :: env

    call env%enter()
    set_id = 0
    if (.not. state%initialized) return
    do turn = 0, MAX_IN_FLIGHT - 1
      candidate = 1 + mod(state%current_set - 1 + turn, MAX_IN_FLIGHT)
      if (gpu_is_work_complete(state, candidate)) exit
      if (turn == MAX_IN_FLIGHT - 1) candidate = oldest_in_flight(state)
    end do
    call gpu_wait_for_completion(state, candidate)
    if (state%buffer_sets(candidate)%in_use) return
    set_id = candidate
    state%current_set = 1 + mod(set_id, MAX_IN_FLIGHT)
  end function gpu_get_next_buffer_set

  !> Uploads `input_data`, starts the program on grid_x * grid_y * grid_z workgroups and returns. Sizes are in bytes.
  !>
  !> `output_data` is assumed-rank, to detect a strided section. With assumed-size the compiler would pass a temporary
  !> copy of a section, which would not exist any more when the result arrives. For a section this procedure waits
  !> instead.
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
    ! The size is negative for an assumed-size array and 1 for an array element; neither is the real length.
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

  !> Submits with a packed copy of the output, and waits. The copies are explicit because gfortran 12 does not pack the
  !> associate name of SELECT RANK as an argument.
  subroutine submit_strided(state, set_id, input, output_data, input_size, output_size, grid)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id, grid(3)
    type(c_ptr), intent(in) :: input
    real(real32), intent(inout), target, asynchronous :: output_data(..)
    integer(int64), intent(in) :: input_size, output_size
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

  !> Whether the set's work is done, without waiting. If it is done, this delivers its output.
  logical function gpu_is_work_complete(state, set_id)
    type(gpu_async_state), intent(in) :: state
    integer, intent(in) :: set_id
    type(driver_float_env) :: env

    call env%enter()
    gpu_is_work_complete = .true.
    if (is_set(set_id)) gpu_is_work_complete = delivered_within(state, set_id, 0_int64)
  end function gpu_is_work_complete

  !> Waits until the set's work is done and its output delivered, at most SPARKLE_GL_TIMEOUT_MS (default 10 s). After a
  !> timeout the set is still in use, and another call can wait for it.
  subroutine gpu_wait_for_completion(state, set_id)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    integer :: oldest
    type(driver_float_env) :: env

    call env%enter()
    if (.not. is_set(set_id)) return
    if (.not. state%buffer_sets(set_id)%in_use) return
    if (.not. delivered_within(state, set_id, gl_timeout_ns())) return
    do while (any(state%buffer_sets%in_use))
      oldest = oldest_in_flight(state)
      if (state%inner%outcome(oldest) == PENDING) exit
      call collect(state, oldest)
    end do
  end subroutine gpu_wait_for_completion

  !> Computes one convolution with `weights`, using the next buffer set; `output` is ready on return.
  subroutine gpu_async_conv2d(state, input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    type(gpu_async_state), intent(inout) :: state
    real(real32), intent(in), target :: input(*)
    real(real32), intent(in), target :: weights(*)
    real(real32), intent(inout), target :: output(*)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    integer(int64), parameter :: unknown = huge(0_int64)
    integer :: set_id
    type(driver_float_env) :: env

    call env%enter()
    set_id = 0
    if (arrays_suffice(unknown, unknown, unknown, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)) then
      set_id = gpu_get_next_buffer_set(state)
    end if
    if (set_id == 0) then
      state%failed_operations = state%failed_operations + 1
      return
    end if
    call gpu_async_set_shape(state, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    if (c_is_reference_program(narrowed(state%compute_program)) /= 0) then
      if (computed_on_device(state, set_id, input, weights, output, &
        N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)) return
    end if
    call fill(state%own_weight_buffer, 4_int64 * K * C * kernel_size * kernel_size, c_loc(weights), GL_STATIC_DRAW)
    ! The kernel covers all outputs with any grid; existing programs use this one.
    call submit(state, set_id, c_loc(input), c_loc(output), 4_int64 * N * C * H * W, &
      4_int64 * N * K * H_out * W_out, &
      [(W_out + 15) / 16, (H_out + 15) / 16, int(min(int(N, int64) * K, 65535_int64), kind(N))], &
      state%own_weight_buffer)
    call wait_or_abandon(state, set_id)
  end subroutine gpu_async_conv2d

  !> Computes on the library's GPU device. Returns false if that fails, with `output` untouched. It keeps the plan,
  !> because many calls have the same weights; comparing the weights costs little compared with the convolution.
  logical function computed_on_device(state, set_id, input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    real(real32), intent(in), target :: input(*)
    real(real32), intent(in), target :: weights(*)
    real(real32), intent(inout), target :: output(*)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    integer(c_int32_t), pointer :: bits(:)
    integer(int64) :: start
    integer :: stat
    logical :: same
    type(driver_float_env) :: env

    call env%enter()
    computed_on_device = .false.
    start = clock_ns()
    call c_f_pointer(c_loc(weights), bits, [int(K, int64) * C * kernel_size * kernel_size])
    associate (kept => state%inner, sizes => [N, C, H, W, K, kernel_size, stride, pad])
      same = kept%plan%is_created() .and. all(kept%sizes == sizes)
      if (same) same = all(kept%weights == bits)
      if (.not. same) then
        call kept%plan%destroy()
        if (.not. kept%device%is_open()) then
          call kept%device%open(gpu_selector(), stat=stat)
          if (stat /= 0) return
        end if
        call kept%plan%create(sparkle_conv2d_desc(n=N, c=C, h=H, w=W, k=K, r=kernel_size, s=kernel_size, &
          stride_h=stride, stride_w=stride, pad_h=pad, pad_w=pad), weights(:size(bits)), device=kept%device, stat=stat)
        if (stat /= 0) call kept%device%close()
        if (stat /= 0) return
        kept%sizes = sizes
        kept%weights = bits
      end if
      call kept%plan%execute(input(:int(N, int64) * C * H * W), output(:int(N, int64) * K * H_out * W_out), stat=stat)
      ! The library may have been finalized, in which case a new plan succeeds.
      if (stat /= 0) call kept%plan%destroy()
    end associate
    if (stat /= 0) return
    computed_on_device = .true.
    call account_on_device(state, set_id, start, clock_ns())
  end function computed_on_device

  !> Adds a whole convolution, from `start` to `end` on this module's clock, to the counters.
  subroutine account_on_device(state, set_id, start, end)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    integer(int64), intent(in) :: start, end
    type(sparkle_timing) :: timing
    integer(int64) :: busy
    integer :: stat

    call sparkle_last_timing(timing, stat)
    busy = 0
    if (stat == 0) busy = min(end - start, int(timing%kernel_ms * 1.0e6_real64, int64))
    state%total_gpu_time = state%total_gpu_time + busy
    if (state%last_device_end /= 0) state%total_idle_time = state%total_idle_time + (end - state%last_device_end) - busy
    state%last_device_end = end
    state%completed_operations = state%completed_operations + 1
    state%buffer_sets(set_id)%submit_time = start
    state%buffer_sets(set_id)%complete_time = end
  end subroutine account_on_device

  !> Waits for a set whose output exists only during this call. After a timeout the output is discarded.
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

  !> Replaces a buffer's contents. The driver keeps the old contents for work in flight.
  subroutine fill(buffer, bytes, data, usage)
    integer, intent(in) :: buffer
    integer(int64), intent(in) :: bytes
    type(c_ptr), intent(in) :: data
    integer(c_int32_t), intent(in) :: usage

    call glBindBuffer(GL_COPY_WRITE_BUFFER, narrowed(buffer))
    call glBufferData(GL_COPY_WRITE_BUFFER, bytes, data, usage)
    call glBindBuffer(GL_COPY_WRITE_BUFFER, 0_c_int32_t)
  end subroutine fill

  !> Uploads the input, dispatches the program and creates the fence of one set.
  subroutine submit(state, set_id, input, output, input_bytes, output_bytes, grid, weight_buffer)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id, grid(3), weight_buffer
    type(c_ptr), intent(in) :: input, output
    integer(int64), intent(in) :: input_bytes, output_bytes
    logical :: started
    type(driver_float_env) :: env

    call env%enter()
    ! The caller may not have waited for earlier work of this set.
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
      state%inner%outcome(set_id) = PENDING
    end associate
  end subroutine submit

  logical function dispatched(state, set_id, input, input_bytes, output_bytes, grid, weight_buffer)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id, grid(3), weight_buffer
    type(c_ptr), intent(in) :: input
    integer(int64), intent(in) :: input_bytes, output_bytes
    integer(c_int32_t) :: bound(1)

    dispatched = .false.
    if (.not. gl_is_ready()) return
    call gl_forget_errors()
    bound = 0
    call glGetIntegeri_v(GL_SHADER_STORAGE_BUFFER_BINDING, narrowed(PARAMETER_INDEX), bound)
    if (bound(1) == 0) return
    associate (set => state%buffer_sets(set_id))
      call fill(set%input_buffer, input_bytes, input, GL_DYNAMIC_DRAW)
      call fill(set%output_buffer, output_bytes, c_null_ptr, GL_DYNAMIC_COPY)
      call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 0_c_int32_t, narrowed(set%input_buffer))
      if (weight_buffer > 0) call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 1_c_int32_t, narrowed(weight_buffer))
      call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 2_c_int32_t, narrowed(set%output_buffer))
      call glUseProgram(narrowed(state%compute_program))
      if (gl_had_error()) return
      call glQueryCounter(narrowed(set%queries(1)), GL_TIMESTAMP)
      if (.not. enqueued(state, set, weight_buffer, bound(1))) then
        call glDispatchCompute(narrowed(grid(1)), narrowed(grid(2)), narrowed(grid(3)))
      end if
      call glMemoryBarrier(GL_ALL_BARRIER_BITS)
      call glQueryCounter(narrowed(set%queries(2)), GL_TIMESTAMP)
      set%fence = glFenceSync(GL_SYNC_GPU_COMMANDS_COMPLETE, 0_c_int32_t)
      call glFlush()
      dispatched = c_associated(set%fence)
      if (.not. gl_had_error()) return
      dispatched = .false.
      if (c_associated(set%fence)) call glDeleteSync(set%fence)
      set%fence = c_null_ptr
    end associate
  end function dispatched

  !> Lets the library enqueue the convolution. It accepts its own program only, and known sizes: the parameters at index
  !> 3 are those of this state, or those of the last synchronous call, which the library knows.
  logical function enqueued(state, set, weight_buffer, parameter_buffer)
    type(gpu_async_state), intent(in) :: state
    type(gpu_buffer_set), intent(in) :: set
    integer, intent(in) :: weight_buffer
    integer(c_int32_t), intent(in) :: parameter_buffer
    type(gpu_conv2d_params), target :: shape
    type(c_ptr) :: params

    enqueued = .false.
    if (weight_buffer <= 0) return
    shape = state%shape
    params = c_null_ptr
    if (parameter_buffer == state%parameter_buffer) params = c_loc(shape)
    enqueued = c_enqueue(narrowed(state%compute_program), narrowed(set%input_buffer), &
      narrowed(weight_buffer), narrowed(set%output_buffer), params) /= 0
  end function enqueued

  !> Waits up to `nanoseconds` for a set. When it is done, delivers its output and those of all sets submitted before
  !> it.
  logical function delivered_within(state, set_id, nanoseconds)
    type(gpu_async_state), intent(in) :: state
    integer, intent(in) :: set_id
    integer(int64), intent(in) :: nanoseconds
    integer(c_int32_t) :: outcome
    integer :: next
    logical :: waiting(MAX_IN_FLIGHT)

    delivered_within = .not. state%buffer_sets(set_id)%in_use .or. state%inner%outcome(set_id) /= PENDING
    if (delivered_within) return
    if (.not. gl_is_ready()) return
    outcome = glClientWaitSync(state%buffer_sets(set_id)%fence, GL_SYNC_FLUSH_COMMANDS_BIT, nanoseconds)
    if (outcome == GL_TIMEOUT_EXPIRED) return
    do
      waiting = state%buffer_sets%in_use .and. state%inner%outcome == PENDING
      next = minloc(state%buffer_sets%sequence, dim=1, mask=waiting)
      call deliver(state, next, outcome == GL_ALREADY_SIGNALED .or. outcome == GL_CONDITION_SATISFIED)
      if (next == set_id) exit
    end do
    delivered_within = .true.
  end function delivered_within

  !> Delivers the output of a set whose fence has signalled; otherwise marks the set as failed.
  subroutine deliver(state, set_id, signalled)
    type(gpu_async_state), intent(in) :: state
    integer, intent(in) :: set_id
    logical, intent(in) :: signalled

    state%inner%outcome(set_id) = FAILED
    associate (set => state%buffer_sets(set_id))
      if (.not. (signalled .and. c_associated(set%destination))) return
      call gl_forget_errors()
      call glBindBuffer(GL_COPY_WRITE_BUFFER, narrowed(set%output_buffer))
      call glGetBufferSubData(GL_COPY_WRITE_BUFFER, 0_c_int64_t, set%destination_bytes, set%destination)
      call glBindBuffer(GL_COPY_WRITE_BUFFER, 0_c_int32_t)
    end associate
    if (.not. gl_had_error()) state%inner%outcome(set_id) = DELIVERED
  end subroutine deliver

  !> Ends the work of a set whose output was delivered or has failed.
  subroutine collect(state, set_id)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id

    associate (set => state%buffer_sets(set_id))
      call glDeleteSync(set%fence)
      set%fence = c_null_ptr
      set%in_use = .false.
      set%complete_time = clock_ns()
    end associate
    if (state%inner%outcome(set_id) == DELIVERED) then
      state%completed_operations = state%completed_operations + 1
      call account(state, set_id)
    else
      state%failed_operations = state%failed_operations + 1
    end if
  end subroutine collect

  !> Adds the set's time on the GPU, without overlap with earlier work, and the gap between the two.
  subroutine account(state, set_id)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set_id
    integer(c_int64_t) :: begun, ended

    begun = 0
    ended = 0
    call glGetQueryObjectui64v(narrowed(state%buffer_sets(set_id)%queries(1)), GL_QUERY_RESULT, begun)
    call glGetQueryObjectui64v(narrowed(state%buffer_sets(set_id)%queries(2)), GL_QUERY_RESULT, ended)
    if (state%last_gpu_end /= 0) then
      state%total_idle_time = state%total_idle_time + max(0_int64, begun - state%last_gpu_end)
      begun = max(begun, state%last_gpu_end)
    end if
    state%total_gpu_time = state%total_gpu_time + max(0_int64, ended - begun)
    state%last_gpu_end = max(state%last_gpu_end, ended)
  end subroutine account
end module gpu_async_executor
