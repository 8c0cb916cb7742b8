!> `gpu_async_executor` on a GL device. Every output of a stream is delivered and correct, in any order of waiting. The statistics
!> are consistent. Failures are counted and change nothing else. Needs a GL device.
module async_cases
  use, intrinsic :: ieee_arithmetic, only: ieee_quiet_nan, ieee_value
  use, intrinsic :: iso_c_binding, only: c_associated
  use, intrinsic :: iso_fortran_env, only: int64, real32
  use checks
  use gpu_async_executor
  use gpu_opengl_interface
  use sparkle_glsl_generator, only: convolution_config, generate_conv_glsl_shader
  use sparkle_gpu_dispatch, only: gpu_free, gpu_malloc, gpu_memcpy, gpu_memory, GPU_TO_HOST, HOST_TO_GPU
  use, intrinsic :: iso_c_binding, only: c_loc
  implicit none
  public
  integer, parameter :: LENGTH = 10
  type(conv), parameter :: SHAPE_HERE = conv(n=2, c=3, h=18, w=23, k=5, r=3, s=3, pad_h=1, pad_w=1)
  !> Large enough for the library's own kernels to replace the reference program.
  type(conv), parameter :: LARGE = conv(n=2, c=20, h=20, w=23, k=16, r=3, s=3, pad_h=1, pad_w=1)

contains

  !> Whether work is done, asked with a state that is intent(in).
  logical function looks_done(state, set)
    type(gpu_async_state), intent(in) :: state
    integer, intent(in) :: set

    looks_done = gpu_is_work_complete(state, set)
  end function looks_done

  !> Allocates GPU memory and copies weights to it.
  function weights_on_gpu(w) result(mem)
    real(real32), intent(in), target, contiguous :: w(:)
    type(gpu_memory) :: mem

    mem = gpu_malloc(4_int64 * size(w))
    call gpu_memcpy(mem, c_loc(w), mem%size_bytes, HOST_TO_GPU)
  end function weights_on_gpu

  subroutine set_shape(state, cv)
    type(gpu_async_state), intent(inout) :: state
    type(conv), intent(in) :: cv

    call gpu_async_set_shape(state, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
  end subroutine set_shape

  !> Submits with the grid that existing programs use.
  subroutine submit(state, set, cv, x, y)
    type(gpu_async_state), intent(inout) :: state
    integer, intent(in) :: set
    type(conv), intent(in) :: cv
    real(real32), intent(in) :: x(:)
    real(real32), intent(inout), target, contiguous :: y(:)

    call gpu_submit_work_async(state, set, x, y, 4_int64 * size(x), 4_int64 * size(y), &
      (cv%q() + 15) / 16, (cv%p() + 15) / 16, cv%n * cv%k)
  end subroutine submit

  !> Ten different convolutions through three buffer sets. The program waits for none of them.
  subroutine stream()
    type(gpu_async_state) :: state
    type(gpu_memory) :: weights
    real(real32), allocatable, target :: x(:, :), y(:, :)
    real(real32), allocatable :: w(:)
    integer(int64) :: start, ended, rate
    integer :: i, set

    allocate (w, source=data_of(SHAPE_HERE%w_len(), 1))
    allocate (x(SHAPE_HERE%x_len(), LENGTH), y(SHAPE_HERE%y_len(), LENGTH))
    y = huge(y)
    weights = weights_on_gpu(w)
    call gpu_async_executor_init(state, gpu_get_program_id(), int(weights%gpu_ptr))
    call check(state%initialized .and. state%current_set == 1 .and. size(state%buffer_sets) == MAX_IN_FLIGHT, 'init')
    call set_shape(state, SHAPE_HERE)
    call system_clock(start, rate)
    do i = 1, LENGTH
      x(:, i) = data_of(SHAPE_HERE%x_len(), 100 + i)
      set = gpu_get_next_buffer_set(state)
      call check(set == 1 + mod(i - 1, MAX_IN_FLIGHT), 'sets are used in turn')
      call submit(state, set, SHAPE_HERE, x(:, i), y(:, i))
      call check(state%buffer_sets(set)%in_use .and. state%buffer_sets(set)%submit_time > 0, 'in flight')
    end do
    call gpu_async_executor_cleanup(state)
    call system_clock(ended)
    do i = 1, LENGTH
      call check(agrees(SHAPE_HERE, x(:, i), w, y(:, i)), 'an output of the stream')
    end do
    call check(state%completed_operations == LENGTH .and. state%failed_operations == 0, 'ten completed')
    call check(.not. (state%initialized .or. any(state%buffer_sets%in_use)), 'cleaned up')
    call check(state%total_gpu_time >= 0 .and. state%total_idle_time >= 0, 'statistics')
    ! Overlapping work counts once. The two clocks may differ a little.
    call check(real(state%total_gpu_time + state%total_idle_time) <= 1.05e9 * real(ended - start) / real(rate) + 1.0e6, &
      'the GPU time is at most the elapsed time')
    call gpu_free(weights)
  end subroutine stream

  !> Polling and waiting out of order. A set that is done also delivers the sets submitted before it.
  subroutine polling()
    type(gpu_async_state) :: state
    type(gpu_memory) :: weights
    real(real32), target :: x(SHAPE_HERE%n * SHAPE_HERE%c * SHAPE_HERE%h * SHAPE_HERE%w), y(4140, 3)
    real(real32) :: w(135)
    integer :: i, set(3)
    integer(int64) :: before

    x = data_of(size(x), 2)
    w = data_of(size(w), 3)
    weights = weights_on_gpu(w)
    call gpu_async_executor_init(state, gpu_get_program_id(), int(weights%gpu_ptr))
    call set_shape(state, SHAPE_HERE)
    call check(gpu_is_work_complete(state, 1) .and. gpu_is_work_complete(state, 0), 'a set without work is complete')
    do i = 1, 3
      y(:, i) = huge(y)
      set(i) = gpu_get_next_buffer_set(state)
      call submit(state, set(i), SHAPE_HERE, x, y(:, i))
    end do
    do while (.not. looks_done(state, set(2)))
    end do
    call check(agrees(SHAPE_HERE, x, w, y(:, 2)) .and. agrees(SHAPE_HERE, x, w, y(:, 1)), 'two are delivered')
    ! After delivery, the library must not write these outputs again.
    y(:, 1:2) = 3.0_real32
    call check(looks_done(state, set(2)) .and. looks_done(state, set(1)), 'they stay complete')
    call gpu_wait_for_completion(state, set(2))
    call check(.not. (state%buffer_sets(set(1))%in_use .or. state%buffer_sets(set(2))%in_use), 'the sets are free after waiting')
    call check(all(abs(y(:, 1:2) - 3.0_real32) <= 0.0_real32), 'an output is delivered once')
    call gpu_wait_for_completion(state, set(3))
    call gpu_wait_for_completion(state, set(3))
    call check(agrees(SHAPE_HERE, x, w, y(:, 3)), 'the third, after waiting twice')
    before = state%buffer_sets(set(3))%submit_time
    call check(state%buffer_sets(set(3))%complete_time >= before .and. before > 0, 'times')
    call check(state%completed_operations == 3 .and. state%clock_rate == 1000000000, 'three completed')

    ! The set's buffer also holds the output, for programs that read it directly.
    y(:, 1) = huge(y)
    call gpu_memcpy(gpu_memory(4_int64 * size(y, 1), int(state%buffer_sets(set(3))%output_buffer, int64), .true.), &
      c_loc(y), 4_int64 * size(y, 1), GPU_TO_HOST)
    call check(agrees(SHAPE_HERE, x, w, y(:, 1)), 'the buffer of the set')

    ! Submitting a set that is in flight first finishes its work.
    y = huge(y)
    call submit(state, 1, SHAPE_HERE, x, y(:, 1))
    call submit(state, 1, SHAPE_HERE, x, y(:, 2))
    call check(agrees(SHAPE_HERE, x, w, y(:, 1)), 'a set submitted twice delivers the first')
    call gpu_wait_for_completion(state, 1)
    call check(agrees(SHAPE_HERE, x, w, y(:, 2)), 'it delivers the second, too')

    ! Every grid computes all outputs.
    y = huge(y)
    call gpu_submit_work_async(state, 2, x, y(:, 3), 4_int64 * size(x), 4_int64 * size(y, 1), 1, 1, 1)
    call gpu_wait_for_completion(state, 2)
    call check(agrees(SHAPE_HERE, x, w, y(:, 3)), 'one workgroup')
    call gpu_async_executor_cleanup(state)
    call gpu_async_executor_cleanup(state)
    call gpu_free(weights)
  end subroutine polling

  !> Outputs that are not contiguous, and array elements passed in place of arrays.
  subroutine sections()
    type(conv), parameter :: small = conv(n=1, c=2, h=5, w=6, k=3, r=2, s=2)
    type(gpu_async_state) :: state
    type(gpu_memory) :: weights
    real(real32), target :: x(60), w(24), wide(120), y(200), matrix(2, 60), before(200)

    x = data_of(60, 4)
    w = data_of(24, 5)
    y = data_of(200, 6)
    before = y
    weights = weights_on_gpu(w)
    call gpu_async_executor_init(state, gpu_get_program_id(), int(weights%gpu_ptr))
    call set_shape(state, small)
    call gpu_submit_work_async(state, 1, x, y(1:180:3), 240_int64, 240_int64, 1, 1, 3)
    call check(.not. state%buffer_sets(1)%in_use .and. agrees(small, x, w, y(1:180:3)), 'a strided output is complete at once')
    y(1:180:3) = before(1:180:3)
    call check(same_bits(y, before), 'the gaps are unchanged')
    call gpu_submit_work_async(state, 2, x, matrix(2, :), 240_int64, 240_int64, 1, 1, 3)
    call check(agrees(small, x, w, matrix(2, :)), 'a row of a matrix')
    matrix = 0.0_real32
    call gpu_submit_work_async(state, 3, x, matrix(1:1, :), 240_int64, 240_int64, 1, 1, 3)
    call check(agrees(small, x, w, matrix(1, :)) .and. all(abs(matrix(2, :)) <= 0.0_real32), 'a section of rank 2')
    wide = 0.0_real32
    wide(1:120:2) = x
    call gpu_submit_work_async(state, 1, wide(1:120:2), y(11), 240_int64, 240_int64, 1, 1, 3)
    call gpu_wait_for_completion(state, 1)
    call check(agrees(small, x, w, y(11:70)), 'strided input, output from an element onwards')
    y(11:70) = before(11:70)
    call check(same_bits(y, before), 'nothing after the output changed')
    call through_assumed_size(state, x, y)
    call check(agrees(small, x, w, y(1:60)), 'an assumed-size output')
    call check(state%failed_operations == 0, 'no failures')
    call gpu_async_executor_cleanup(state)
    call gpu_free(weights)
  end subroutine sections

  subroutine through_assumed_size(state, x, y)
    type(gpu_async_state), intent(inout) :: state
    real(real32), intent(in) :: x(*)
    real(real32), intent(inout), target :: y(*)

    call gpu_submit_work_async(state, 3, x, y, 240_int64, 240_int64, 1, 1, 3)
    call gpu_wait_for_completion(state, 3)
  end subroutine through_assumed_size

  !> Changing shapes and weights with gpu_async_conv2d, then direct submission with the shape of a synchronous call.
  subroutine whole_calls()
    type(conv), parameter :: SHAPES(4) = [conv(n=1, c=2, h=4, w=4, k=3, r=3, s=3), &
      conv(n=2, c=5, h=9, w=7, k=4, r=1, s=1, stride_h=2, stride_w=2), &
      conv(n=2, c=3, h=13, w=11, k=8, r=7, s=7, stride_h=2, stride_w=2, pad_h=3, pad_w=3), &
      conv(n=3, c=1, h=20, w=33, k=2, r=5, s=5, pad_h=2, pad_w=2)]
    type(gpu_async_state) :: state
    type(gpu_memory) :: weights
    real(real32), allocatable, target :: x(:), w(:), y(:)
    real(real32) :: time
    type(conv) :: cv
    integer :: i

    call gpu_async_executor_init(state, gpu_get_program_id(), 0)
    do i = 1, 2 * size(SHAPES)
      cv = SHAPES(1 + mod(i - 1, size(SHAPES)))
      allocate (x, source=data_of(cv%x_len(), i))
      allocate (w, source=data_of(cv%w_len(), 50 + i))
      allocate (y(cv%y_len()))
      y = huge(y)
      call gpu_async_conv2d(state, x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
      call check(agrees(cv, x, w, y), 'gpu_async_conv2d')
      deallocate (x, w, y)
    end do
    call check(state%completed_operations == 2 * size(SHAPES) .and. state%failed_operations == 0, 'all completed')
    call gpu_async_executor_cleanup(state)

    cv = SHAPES(3)
    allocate (x, source=data_of(cv%x_len(), 91))
    allocate (w, source=data_of(cv%w_len(), 92))
    allocate (y(cv%y_len()))
    time = gpu_execute_conv2d_ref(x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(time >= 0.0_real32, 'a synchronous call')
    x = data_of(size(x), 93)
    y = huge(y)
    weights = weights_on_gpu(w)
    call gpu_async_executor_init(state, gpu_get_program_id(), int(weights%gpu_ptr))
    call submit(state, gpu_get_next_buffer_set(state), cv, x, y)
    call gpu_wait_for_completion(state, 1)
    call check(agrees(cv, x, w, y), 'the shape of the synchronous call is used')
    call gpu_async_executor_cleanup(state)
    call gpu_free(weights)
  end subroutine whole_calls

  !> Convolutions that the library's own kernels compute. The shape comes from gpu_async_set_shape or from a synchronous call. The
  !> weights in their buffer change while earlier convolutions are in flight.
  subroutine large_convolutions()
    type(gpu_async_state) :: state
    type(gpu_memory) :: weights
    real(real32), allocatable, target :: x(:, :), w(:, :), y(:, :), z(:)
    real(real32) :: time
    integer :: i, set, round

    allocate (x(LARGE%x_len(), 6), w(LARGE%w_len(), 6), y(LARGE%y_len(), 6), z(LARGE%y_len()))
    do i = 1, 6
      x(:, i) = data_of(size(x, 1), 10 + i)
      w(:, i) = data_of(size(w, 1), 20 + i)
    end do
    weights = weights_on_gpu(w(:, 1))
    call gpu_async_executor_init(state, gpu_get_program_id(), int(weights%gpu_ptr))
    do round = 1, 2
      if (round == 1) then
        call set_shape(state, LARGE)
      else
        time = gpu_execute_conv2d_ref(x(:, 1), w(:, 1), z, LARGE%n, LARGE%c, LARGE%h, LARGE%w, LARGE%k, LARGE%r, &
          LARGE%stride_h, LARGE%pad_h, LARGE%p(), LARGE%q())
        call check(time >= 0.0_real32 .and. agrees(LARGE, x(:, 1), w(:, 1), z), 'a synchronous call')
      end if
      y = huge(y)
      do i = 1, 6
        call gpu_memcpy(weights, c_loc(w(1, i)), weights%size_bytes, HOST_TO_GPU)
        set = gpu_get_next_buffer_set(state)
        call submit(state, set, LARGE, x(:, i), y(:, i))
        ! The input was copied, so changing it has no effect.
        x(:, i) = -x(:, i)
      end do
      do i = 1, 3
        call gpu_wait_for_completion(state, i)
      end do
      x = -x
      do i = 1, 6
        call check(agrees(LARGE, x(:, i), w(:, i), y(:, i)), 'a large convolution')
      end do
      ! The next submission finds correct bindings and the latest weights.
      z = huge(z)
      call submit(state, 1, LARGE, x(:, 2), z)
      call gpu_wait_for_completion(state, 1)
      call check(agrees(LARGE, x(:, 2), w(:, 6), z), 'a later large convolution')
    end do
    call check(state%completed_operations == 14 .and. state%failed_operations == 0, 'all completed')
    call check(state%total_gpu_time > 0, 'a time')
    call gpu_async_executor_cleanup(state)
    call gpu_free(weights)
  end subroutine large_convolutions

  !> Stale parameters at index 3 make the output NaN, with every kernel.
  subroutine stale_shapes(cv)
    type(conv), intent(in) :: cv
    type(gpu_async_state) :: state
    type(gpu_memory) :: weights
    type(conv) :: others(4)
    real(real32), allocatable, target :: x(:), w(:), y(:), small(:)
    real(real32) :: time
    integer :: i

    allocate (x(cv%x_len()), w(cv%w_len()), y(cv%y_len()))
    x = data_of(size(x), 31)
    w = data_of(size(w), 32)
    weights = weights_on_gpu(w)
    ! Without an earlier call, there are no parameters.
    call gpu_async_executor_init(state, gpu_get_program_id(), int(weights%gpu_ptr))
    y = huge(y)
    call submit(state, 1, cv, x, y)
    call gpu_wait_for_completion(state, 1)
    call check(all_nan(y), 'NaN without an earlier call')
    others = cv
    others(1)%c = cv%c + 1
    others(2)%h = cv%h - 1
    others(3)%k = cv%k - 1
    others(4)%n = 1
    do i = 1, size(others)
      associate (other => others(i))
        allocate (small(other%y_len()))
        time = gpu_execute_conv2d_ref(data_of(other%x_len(), 33), data_of(other%w_len(), 34), small, other%n, other%c, &
          other%h, other%w, other%k, other%r, other%stride_h, other%pad_h, other%p(), other%q())
        call check(time >= 0.0_real32, 'a call with other sizes')
        deallocate (small)
      end associate
      y = huge(y)
      call submit(state, 1, cv, x, y)
      call gpu_wait_for_completion(state, 1)
      call check(all_nan(y), 'NaN after a call with other sizes')
      ! gpu_async_conv2d takes the sizes as arguments.
      call gpu_async_conv2d(state, x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
      call check(agrees(cv, x, w, y), 'gpu_async_conv2d with its own sizes')
    end do
    call set_shape(state, cv)
    y = huge(y)
    call submit(state, 2, cv, x, y)
    call gpu_wait_for_completion(state, 2)
    call check(agrees(cv, x, w, y), 'the shape that was set')
    call gpu_async_executor_cleanup(state)
    call gpu_free(weights)
  end subroutine stale_shapes

  !> The same sizes repeatedly, which reuses a plan: with the same weights, with one weight changed, with NaN.
  subroutine reused_plans()
    type(gpu_async_state) :: state
    real(real32), allocatable, target :: x(:), w(:), y(:)
    integer :: i

    allocate (x(LARGE%x_len()), w(LARGE%w_len()), y(LARGE%y_len()))
    call gpu_async_executor_init(state, gpu_get_program_id(), 0)
    w = data_of(size(w), 41)
    do i = 1, 6
      x = data_of(size(x), 42 + i)
      if (mod(i, 2) == 0) w(1 + 100 * i) = -w(1 + 100 * i)
      y = huge(y)
      call gpu_async_conv2d(state, x, w, y, LARGE%n, LARGE%c, LARGE%h, LARGE%w, LARGE%k, 3, 1, 1, LARGE%h, LARGE%w)
      call check(agrees(LARGE, x, w, y), 'weights that change sometimes')
    end do
    w = ieee_value(w, ieee_quiet_nan)
    do i = 1, 2
      y = huge(y)
      call gpu_async_conv2d(state, x, w, y, LARGE%n, LARGE%c, LARGE%h, LARGE%w, LARGE%k, 3, 1, 1, LARGE%h, LARGE%w)
      call check(all_nan(y), 'NaN weights')
    end do
    call check(state%completed_operations == 8 .and. state%failed_operations == 0, 'all completed')
    call check(state%total_gpu_time > 0 .and. state%total_idle_time >= 0, 'statistics')
    call gpu_async_executor_cleanup(state)
  end subroutine reused_plans

  !> The caller's own GL program is dispatched unchanged.
  subroutine own_program()
    character(len=*), parameter :: NL = new_line('a')
    character(len=*), parameter :: ONES = '#version 430 core' // NL // 'layout(local_size_x = 64) in;' // NL // &
      'layout(std430, binding = 2) writeonly buffer Y { float y[]; };' // NL // &
      'void main() { uint i = gl_GlobalInvocationID.x; if (i < uint(y.length())) y[i] = 1.0; }' // NL
    type(gpu_async_state) :: state
    type(gpu_memory) :: weights
    real(real32), allocatable, target :: x(:), y(:)

    call check(gpu_compile_custom_shader_fortran(shader_source=ONES) > 0, 'the caller''s program')
    allocate (x(LARGE%x_len()), y(LARGE%y_len()))
    x = 2.0_real32
    weights = weights_on_gpu(data_of(LARGE%w_len(), 1))
    call gpu_async_executor_init(state, gpu_get_program_id(), int(weights%gpu_ptr))
    call set_shape(state, LARGE)
    y = huge(y)
    call gpu_submit_work_async(state, 1, x, y, 4_int64 * size(x), 4_int64 * size(y), (size(y) + 63) / 64, 1, 1)
    call gpu_wait_for_completion(state, 1)
    call check(all(abs(y - 1.0_real32) <= 0.0_real32), 'it runs')
    call gpu_async_executor_cleanup(state)
    call gpu_free(weights)
    ! A generated shader, which checks its parameters as the reference program does.
    call gpu_cleanup()
    call check(gpu_init(), 'gpu_init')
    call check(gpu_compile_custom_shader_fortran(generate_conv_glsl_shader(convolution_config(input_height=SHAPE_HERE%h, &
      input_width=SHAPE_HERE%w, input_channels=SHAPE_HERE%c, kernel_height=3, kernel_width=3, &
      output_height=SHAPE_HERE%h, output_width=SHAPE_HERE%w, output_channels=SHAPE_HERE%k, pad_y=1, pad_x=1))) > 0, 'a shader')
    call stale_shapes(SHAPE_HERE)
    ! Cleanup and initialisation restore the reference program.
    call gpu_cleanup()
    call check(gpu_init(), 'gpu_init')
  end subroutine own_program

  subroutine failures()
    type(gpu_async_state) :: state
    real(real32), target :: x(60), w(24), y(60)
    integer :: i

    x = 1.0_real32
    w = 1.0_real32
    y = 5.0_real32
    call gpu_async_executor_init(state, 0, 0)
    call check(.not. state%initialized, 'not initialised without a program')
    call check(gpu_get_next_buffer_set(state) == 0, 'no buffer sets')
    call gpu_submit_work_async(state, 1, x, y, 240_int64, 240_int64, 1, 1, 1)
    call gpu_async_conv2d(state, x, w, y, 1, 2, 5, 6, 3, 2, 1, 0, 4, 5)
    call gpu_async_executor_cleanup(state)
    call check(state%failed_operations == 2, 'two failures')

    call gpu_async_executor_init(state, gpu_get_program_id(), 0)
    do i = 0, 4, 4
      call gpu_submit_work_async(state, i, x, y, 240_int64, 240_int64, 1, 1, 1)
    end do
    call gpu_submit_work_async(state, 1, x, y, 0_int64, 240_int64, 1, 1, 1)
    call gpu_submit_work_async(state, 1, x, y, 240_int64, -4_int64, 1, 1, 1)
    call gpu_submit_work_async(state, 1, x, y, 240_int64, 244_int64, 1, 1, 1)
    call gpu_submit_work_async(state, 1, x, y, 240_int64, 240_int64, 1, 0, 1)
    call gpu_async_conv2d(state, x, w, y, 1, 2, 5, 6, 3, 2, 1, 0, 5, 5)
    call gpu_async_conv2d(state, x, w, y, 0, 2, 5, 6, 3, 2, 1, 0, 4, 5)
    call check(state%failed_operations == 8 .and. state%completed_operations == 0, 'eight failures')
    call check(.not. any(state%buffer_sets%in_use) .and. .not. c_associated(state%buffer_sets(1)%fence), 'nothing in flight')
    call check(all(abs(y - 5.0_real32) <= 0.0_real32), 'the output is unchanged')
    call gpu_async_conv2d(state, x, w, y, 1, 2, 5, 6, 3, 2, 1, 0, 4, 5)
    call check(all(abs(y - 8.0_real32) <= 0.0_real32) .and. state%completed_operations == 1, 'it works after failures')
    call gpu_async_executor_cleanup(state)
  end subroutine failures
end module async_cases

program async_executor
  use async_cases
  implicit none

  call check(gpu_init(), 'gpu_init')
  call stale_shapes(SHAPE_HERE)
  call stream()
  call polling()
  call sections()
  call whole_calls()
  call large_convolutions()
  call reused_plans()
  call own_program()
  call stale_shapes(LARGE)
  call failures()
  call gpu_cleanup()
  call check(gpu_init(), 'gpu_init again')
  call stream()
  call finish()
end program async_executor
