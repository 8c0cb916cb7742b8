!> Measures kernels of `sparkle_shader_parser_v2` on the OpenGL context that is current.
!>
!> Times are milliseconds of one dispatch: the mean of several after one that is not counted, by the GPU's clock, or by
!> the host's where the context has no timestamps. They are -1 where the kernel cannot run. Kernels that change their own
!> input change it with each dispatch.
!>
!> Procedures without an executor make buffers with an element for each point, all zeros. Accesses at computed positions
!> are kept within these buffers, so that sizes in `params` that would need longer ones do no harm; the time is then that
!> of such accesses.
module sparkle_gpu_benchmark
  use, intrinsic :: iso_c_binding, only: c_int32_t
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use sparkle_c, only: C_GLSL_430
  use sparkle_current_gl, only: clear_buffer, context_is_current, make_buffer, timestamp_ms
  use sparkle_fortran_params, only: PARAMS_BUFFER, PARAMS_UNIFORM
  use sparkle_gl
  use sparkle_gpu_executor, only: execute_kernel, gpu_executor
  use sparkle_kernel_programs, only: build, discard, elapsed_ms, kernel_program, launch
  use sparkle_kernel_texts, only: count_work, sample_bytes
  use sparkle_reference_kernels, only: glsl_of, slot_values
  use sparkle_reference_support, only: clock_ns
  use sparkle_shader_parser_v2, only: shader_kernel_v2
  implicit none
  private
  public :: kernel_profile, benchmark_kernel, gpu_benchmark_param_methods, measure_arithmetic_intensity, profile_kernel

  !> `gflops` and `bandwidth_gb_s` are those of the operations and bytes that `measure_arithmetic_intensity` counts, over
  !> the measured time. They are 0 for kernels with branches or loops, where the counts are not known.
  type :: kernel_profile
    real(real64) :: time_ms = 0.0_real64
    real(real64) :: gflops = 0.0_real64
    real(real64) :: bandwidth_gb_s = 0.0_real64
    real(real64) :: arithmetic_intensity = 0.0_real64
    integer :: optimal_local_size = 64
    integer :: optimal_param_method = PARAMS_BUFFER
  end type kernel_profile

  !> Dispatches of a measurement.
  integer, parameter :: TIMES = 20
  integer, parameter :: LOCAL_SIZES(4) = [32, 64, 128, 256]

contains

  !> Time of the kernel with the executor's buffers, the mean of `iterations` dispatches.
  function benchmark_kernel(exec, kernel, work_size, params, iterations) result(time_ms)
    type(gpu_executor), intent(inout) :: exec
    type(shader_kernel_v2), intent(in) :: kernel
    integer, intent(in) :: work_size
    real(real32), dimension(:), intent(in) :: params
    integer, intent(in) :: iterations
    real(real64) :: time_ms
    real(real64) :: begin
    integer(int64) :: wall
    integer :: i, stat
    type(driver_float_env) :: env

    call env%enter()
    time_ms = -1.0_real64
    if (iterations < 1 .or. work_size < 1) return
    call execute(stat)
    if (stat /= 0) return
    call glFinish()
    begin = timestamp_ms()
    wall = clock_ns()
    do i = 1, iterations
      call execute(stat)
      if (stat /= 0) return
    end do
    time_ms = elapsed_ms(begin, wall) / iterations

  contains

    subroutine execute(stat)
      integer, intent(out) :: stat

      if (size(params) > 0) then
        call execute_kernel(exec, kernel, work_size, params, stat)
      else
        call execute_kernel(exec, kernel, work_size, stat=stat)
      end if
    end subroutine execute
  end function benchmark_kernel

  !> Measures the kernel with each method, and returns the fastest, which becomes `kernel%param_method`. Returns -1, with
  !> the kernel as it was, if it cannot run.
  function gpu_benchmark_param_methods(kernel, work_size, params) result(best_method)
    type(shader_kernel_v2), intent(inout) :: kernel
    integer, intent(in) :: work_size
    real(real32), dimension(:), intent(in) :: params
    integer :: best_method
    real(real64) :: best_ms, time_ms
    integer :: method

    best_method = -1
    best_ms = huge(best_ms)
    do method = 1, 3
      time_ms = sample_ms(kernel, work_size, params, method, sizes_of(kernel))
      if (time_ms < 0.0_real64 .or. time_ms >= best_ms) cycle
      best_ms = time_ms
      best_method = method
    end do
    if (best_method > 0) kernel%param_method = best_method
  end function gpu_benchmark_param_methods

  !> Floating-point operations per byte of memory, counted in the kernel's statements: each `+`, `-`, `*`, `/` and
  !> intrinsic function, and each element of a buffer that is loaded or stored. A branch or the body of a loop counts
  !> once, so for kernels with loops this is the ratio of one pass. Caches are not considered. 0 for kernels without
  !> floating-point operations, and if `work_size` is below 1.
  function measure_arithmetic_intensity(kernel, work_size) result(intensity)
    type(shader_kernel_v2), intent(in) :: kernel
    integer, intent(in) :: work_size
    real(real64) :: intensity
    integer :: operations, bytes
    logical :: is_straight

    intensity = 0.0_real64
    call count_kernel(kernel, operations, bytes, is_straight)
    ! The ratio of all points is that of one.
    if (work_size > 0 .and. bytes > 0) intensity = real(operations, real64) / bytes
  end function measure_arithmetic_intensity

  subroutine count_kernel(kernel, operations, bytes, is_straight)
    type(shader_kernel_v2), intent(in) :: kernel
    integer, intent(out) :: operations, bytes
    logical, intent(out) :: is_straight

    operations = 0
    bytes = 0
    is_straight = .false.
    if (.not. allocated(kernel%facts%source)) return
    call count_work(kernel%facts, glsl_of(kernel%facts, C_GLSL_430, PARAMS_UNIFORM, [0, 0, 0]), operations, bytes, &
      is_straight)
  end subroutine count_kernel

  !> Measures the kernel with each method, then with several local sizes. Its `param_method` and, in one dimension
  !> without workgroup memory, its local size become the fastest. `time_ms` is -1, with the kernel as it was, if it
  !> cannot run.
  function profile_kernel(kernel, work_size, params) result(profile)
    type(shader_kernel_v2), intent(inout) :: kernel
    integer, intent(in) :: work_size
    real(real32), dimension(:), intent(in) :: params
    type(kernel_profile) :: profile
    real(real64) :: time_ms
    integer :: operations, bytes, i
    logical :: is_straight

    profile%arithmetic_intensity = measure_arithmetic_intensity(kernel, work_size)
    profile%optimal_local_size = kernel%local_size_x
    profile%time_ms = -1.0_real64
    i = gpu_benchmark_param_methods(kernel, work_size, params)
    profile%optimal_param_method = kernel%param_method
    if (i < 0) return
    profile%time_ms = sample_ms(kernel, work_size, params, kernel%param_method, sizes_of(kernel))
    if (profile%time_ms < 0.0_real64) return
    do i = 1, size(LOCAL_SIZES)
      if (kernel%facts%has_own_local_size .or. LOCAL_SIZES(i) == kernel%local_size_x) cycle
      time_ms = sample_ms(kernel, work_size, params, kernel%param_method, [LOCAL_SIZES(i), 1, 1])
      if (time_ms < 0.0_real64 .or. time_ms >= profile%time_ms) cycle
      profile%time_ms = time_ms
      profile%optimal_local_size = LOCAL_SIZES(i)
    end do
    if (profile%optimal_local_size /= kernel%local_size_x) then
      kernel%local_size_x = profile%optimal_local_size
      kernel%local_size_y = 1
      kernel%local_size_z = 1
    end if
    call count_kernel(kernel, operations, bytes, is_straight)
    if (.not. is_straight .or. profile%time_ms <= 0.0_real64) return
    profile%gflops = real(operations, real64) * work_size / (profile%time_ms * 1.0e6_real64)
    profile%bandwidth_gb_s = real(bytes, real64) * work_size / (profile%time_ms * 1.0e6_real64)
  end function profile_kernel

  pure function sizes_of(kernel) result(sizes)
    type(shader_kernel_v2), intent(in) :: kernel
    integer :: sizes(3)

    sizes = [kernel%local_size_x, kernel%local_size_y, kernel%local_size_z]
    where (sizes < 1) sizes = huge(1)
  end function sizes_of

  !> Time of the kernel with buffers of zeros, for a method and local size; -1 if it cannot run.
  real(real64) function sample_ms(kernel, work_size, params, method, local_size)
    type(shader_kernel_v2), intent(in) :: kernel
    integer, intent(in) :: work_size, method, local_size(3)
    real(real32), intent(in) :: params(:)
    type(kernel_program) :: program
    real(real64), allocatable :: values(:)
    integer(c_int32_t), allocatable :: buffers(:)
    logical :: is_right
    integer :: i
    type(driver_float_env) :: env

    call env%enter()
    sample_ms = -1.0_real64
    if (work_size < 1 .or. .not. allocated(kernel%facts%source)) return
    if (.not. context_is_current()) return
    call slot_values(kernel%facts, real(params, real64), values, is_right)
    if (.not. is_right) return
    call build(program, kernel%facts, method, local_size, values, is_bounded=.true.)
    allocate (buffers(kernel%facts%buffers))
    do i = 1, size(buffers)
      buffers(i) = make_buffer(sample_bytes(kernel%facts, i - 1, work_size))
      if (buffers(i) /= 0) call clear_buffer(buffers(i))
    end do
    call launch(program, int(buffers, int64), work_size, is_right, values, times=TIMES, kernel_ms=sample_ms)
    do i = 1, size(buffers)
      call glDeleteBuffers(1_c_int32_t, buffers(i:i))
    end do
    call discard(program)
  end function sample_ms
end module sparkle_gpu_benchmark
