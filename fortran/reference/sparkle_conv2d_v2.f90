!> One convolution routine with a choice of device, asynchronous execution and statistics.
!>
!> Times are the measured wall times of whole calls, transfers included. If SPORKLE_GPU_ASYNC is 1, on, true or yes, GPU
!> work is asynchronous unless `use_async` is false. Otherwise it is synchronous, and `use_async` has no effect.
!> Asynchronous work runs on the library's GPU device, where large convolutions go through a pipeline. Synchronous work
!> runs on the caller's context.
!>
!> If the GPU is missing or fails, the CPU computes the convolution. A call fails if the sizes are not a valid
!> convolution or an array is too short: `stat` is then -1 and `output` untouched; without `stat`, `output` becomes NaN.
module sparkle_conv2d_v2
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use gpu_opengl_interface, only: gpu_init
  use sparkle, only: sparkle_device_info, sparkle_devices, SPARKLE_KIND_GL
  use sparkle_gpu_dispatch, only: execute_conv2d_gpu
  use sparkle_reference_support, only: clock_ns, conv2d_work, finish_without_status, gpu_selector, solve_conv2d
  implicit none
  private
  public :: conv2d, conv2d_init, conv2d_cleanup, conv2d_set_profiling, conv2d_show_stats

  integer, parameter :: FAILED = 0, ON_CPU = 1, ON_GPU = 2, ON_GPU_ASYNC = 3, BY_LIBRARY = 4
  character(len=*), parameter :: WAYS(4) = &
    [character(len=20) :: 'CPU', 'GPU, synchronous', 'GPU, asynchronous', 'chosen by library']

  !> Statistics of one way to compute.
  type :: statistics
    integer :: calls = 0
    real(real64) :: milliseconds = 0.0_real64
    real(real64) :: operations = 0.0_real64
  end type statistics

  type(statistics), save :: done(size(WAYS))
  logical, save :: profiling = .true.

contains

  !> Convolves. `device_hint` is "cpu", "gpu" or "auto"; any other hint, or none, means "auto".
  subroutine conv2d(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out, &
    device_hint, use_async, stat)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    character(len=*), intent(in), optional :: device_hint
    logical, intent(in), optional :: use_async
    integer, intent(out), optional :: stat
    integer :: way
    integer(int64) :: start

    start = clock_ns()
    way = intended_way(device_hint, use_async)
    if (.not. went(way)) then
      way = merge(ON_CPU, FAILED, is_gpu(way))
      if (way == ON_CPU) then
        if (.not. went(way)) way = FAILED
      end if
    end if
    if (way /= FAILED) call note(way, clock_ns() - start, conv2d_work(N, C, K, kernel_size, H_out, W_out))
    call finish_without_status(way /= FAILED, output, stat)

  contains

    logical function went(chosen)
      integer, intent(in) :: chosen

      select case (chosen)
      case (ON_CPU)
        went = solve_conv2d('cpu', input, weights, output, &
          N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) >= 0.0_real32
      case (ON_GPU)
        went = execute_conv2d_gpu(input, weights, output, &
          N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) >= 0.0_real32
      case (ON_GPU_ASYNC)
        went = executed_asynchronously(input, weights, output, &
          N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
      case default
        went = solve_conv2d('auto', input, weights, output, &
          N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) >= 0.0_real32
      end select
    end function went
  end subroutine conv2d

  !> Initialises the GPU, so that the first convolution does not have to.
  subroutine conv2d_init()
    logical :: ignored

    ignored = gpu_init()
  end subroutine conv2d_init

  !> Resets the statistics. The GPU's context remains, because other parts of the program may have buffers in it;
  !> `gpu_cleanup` ends it.
  subroutine conv2d_cleanup()
    ! $omp critical (sparkle_conv2d_v2_statistics)
    done = statistics()
    ! $omp end critical (sparkle_conv2d_v2_statistics)
  end subroutine conv2d_cleanup

  !> Sets whether convolutions are counted in the statistics; by default they are.
  subroutine conv2d_set_profiling(enabled)
    logical, intent(in) :: enabled

    ! $omp critical (sparkle_conv2d_v2_statistics)
    profiling = enabled
    ! $omp end critical (sparkle_conv2d_v2_statistics)
  end subroutine conv2d_set_profiling

  !> Prints the number of calls, the mean wall time and the rate of each way.
  subroutine conv2d_show_stats()
    type(statistics) :: shown(size(WAYS))
    integer :: way

    ! $omp critical (sparkle_conv2d_v2_statistics)
    shown = done
    ! $omp end critical (sparkle_conv2d_v2_statistics)
    print '(a20,a8,a14,a12)', 'conv2d', 'calls', 'mean wall ms', 'GFLOP/s'
    do way = 1, size(WAYS)
      if (shown(way)%calls == 0) cycle
      print '(a20,i8,f14.3,f12.3)', WAYS(way), shown(way)%calls, shown(way)%milliseconds / shown(way)%calls, &
        shown(way)%operations / (shown(way)%milliseconds * 1.0e6_real64)
    end do
  end subroutine conv2d_show_stats

  subroutine note(way, nanoseconds, operations)
    integer, intent(in) :: way
    integer(int64), intent(in) :: nanoseconds
    real(real64), intent(in) :: operations

    ! $omp critical (sparkle_conv2d_v2_statistics)
    if (profiling) then
      done(way)%calls = done(way)%calls + 1
      done(way)%milliseconds = done(way)%milliseconds + real(max(1_int64, nanoseconds), real64) / 1.0e6_real64
      done(way)%operations = done(way)%operations + operations
    end if
    ! $omp end critical (sparkle_conv2d_v2_statistics)
  end subroutine note

  !> The way to try first. For "auto" the library chooses, and never a software renderer. It does not offer asynchronous
  !> work, so with that the choice is a hardware GPU if there is one.
  integer function intended_way(device_hint, use_async)
    character(len=*), intent(in), optional :: device_hint
    logical, intent(in), optional :: use_async
    character(len=4) :: hint
    logical :: async

    hint = 'auto'
    if (present(device_hint)) hint = device_hint
    async = asked_by_environment()
    if (async .and. present(use_async)) async = use_async
    select case (hint)
    case ('cpu')
      intended_way = ON_CPU
    case ('gpu')
      intended_way = merge(ON_GPU_ASYNC, ON_GPU, async)
    case default
      intended_way = BY_LIBRARY
      if (async) then
        if (has_hardware_gpu()) intended_way = ON_GPU_ASYNC
      end if
    end select
  end function intended_way

  pure logical function is_gpu(way)
    integer, intent(in) :: way

    is_gpu = way == ON_GPU .or. way == ON_GPU_ASYNC
  end function is_gpu

  logical function asked_by_environment()
    character(len=8) :: value
    integer :: i, stat

    call get_environment_variable('SPORKLE_GPU_ASYNC', value, status=stat)
    if (stat /= 0) value = ''
    do i = 1, len(value)
      if (value(i:i) >= 'A' .and. value(i:i) <= 'Z') value(i:i) = achar(iachar(value(i:i)) + 32)
    end do
    asked_by_environment = any(value == [character(len=8) :: '1', 'on', 'true', 'yes'])
  end function asked_by_environment

  logical function has_hardware_gpu()
    type(sparkle_device_info), allocatable :: devices(:)
    integer :: stat

    call sparkle_devices(devices, stat=stat)
    has_hardware_gpu = stat == 0
    if (has_hardware_gpu) has_hardware_gpu = &
      any(devices%kind == SPARKLE_KIND_GL .and. devices%usable .and. .not. devices%software)
  end function has_hardware_gpu

  !> Computes one convolution on the library's GPU device, which stays open while the interface is initialised.
  logical function executed_asynchronously(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(inout) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out

    executed_asynchronously = gpu_init()
    if (executed_asynchronously) executed_asynchronously = solve_conv2d(gpu_selector(), input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) >= 0.0_real32
  end function executed_asynchronously
end module sparkle_conv2d_v2
