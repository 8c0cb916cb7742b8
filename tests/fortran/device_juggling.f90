!> Shares by measured rates: profiles, partitions, and convolutions that are exact whoever computes them. The argument, if any, is the
!> number of devices that must be found.
program device_juggling
  use, intrinsic :: iso_fortran_env, only: int64, real32
  use checks
  use intelligent_device_juggling
  implicit none
  integer, parameter :: N = 2, C = 3, H = 12, W = 9, K = 8
  type(juggling_strategy) :: strategy
  type(workload_partition) :: part
  real(real32) :: input(N * C * H * W), weights(K * C * 9), output(N * K * H * W), milliseconds
  character(len=1) :: argument
  integer :: devices, run

  call get_command_argument(1, argument)
  devices = 0
  if (argument /= '') read (argument, *) devices
  call discover_and_profile_devices(strategy)
  associate (cpu => strategy%cpu_profile, gpu => strategy%gpu_profile)
    call check(cpu%available .and. cpu%device_type == 'CPU' .and. cpu%device_name /= '', 'the CPU is found')
    call check(cpu%conv2d_gflops > 0.0 .and. cpu%gemm_gflops > 0.0 .and. cpu%memory_copy_gb > 0.0 .and. cpu%cores > 0, &
      'the CPU is measured')
    ! No machine of this decade computes a thousand times as fast.
    call check(cpu%peak_gflops < 1.0e6 .and. cpu%efficiency_ratio <= 1.0, 'the figures are possible')
    if (devices > 0) call check(gpu%available .eqv. devices == 2, 'the GPU is found')
    if (gpu%available) call check(gpu%conv2d_gflops > 0.0 .and. gpu%gemm_gflops > 0.0 .and. gpu%memory_copy_gb > 0.0 &
      .and. gpu%device_name /= '', 'the GPU is measured')
  end associate

  ! Partitions, with rates that are set here.
  strategy%cpu_profile%conv2d_gflops = 100.0
  strategy%gpu_profile%conv2d_gflops = 300.0
  strategy%cpu_profile%gemm_gflops = 400.0
  strategy%gpu_profile%gemm_gflops = 4.0
  strategy%gpu_profile%available = .true.
  call expect(50000000_int64, 'conv2d', 100, 0, 0.5)
  call expect(5000000000_int64, 'conv2d', 0, 100, 5000.0 / 300.0)
  call expect(40000000000_int64, 'conv2d', 25, 75, 100.0)
  call expect(40000000000_int64, 'gemm', 100, 0, 100.0)
  strategy%gpu_profile%available = .false.
  call expect(40000000000_int64, 'conv2d', 100, 0, 400.0)

  ! Convolutions of small integers.
  input = [(real(modulo(run * 7, 5) - 2), run = 1, size(input))]
  weights = [(real(modulo(run * 3, 7) - 3), run = 1, size(weights))]
  do run = 1, 3
    output = -99.0
    milliseconds = execute_intelligent_conv2d(input, weights, output, N, C, H, W, K, 3, 1, 1, H, W)
    call check(milliseconds > 0.0, 'it runs')
    call check(is_exact(), 'the result is exact')
  end do
  call check(juggling_system%total_runs == 3 .and. juggling_system%average_cpu_gflops > 0.0, 'runs are counted')
  call check(juggling_system%best_combined_gflops >= juggling_system%average_cpu_gflops * 0.99, 'the best run')
  if (devices == 2) call both_devices()
  output = 7.0
  milliseconds = execute_intelligent_conv2d(input(2:), weights, output, N, C, H, W, K, 3, 1, 1, H, W)
  call check(milliseconds < 0.0 .and. all(abs(output - 7.0) <= 0.0), 'an array that is too short')
  call finish()

contains

  subroutine expect(flops, workload_type, cpu, gpu, milliseconds)
    integer(int64), intent(in) :: flops
    character(len=*), intent(in) :: workload_type
    integer, intent(in) :: cpu, gpu
    real, intent(in) :: milliseconds

    part = optimize_workload_distribution(strategy, flops, workload_type)
    call check(part%cpu_work_percent == cpu .and. part%gpu_work_percent == gpu, 'the shares')
    call check((part%use_cpu .eqv. cpu > 0) .and. (part%use_gpu .eqv. gpu > 0), 'the devices')
    call check(part%device_count == count([cpu, gpu] > 0), 'the number of devices')
    call check(abs(part%predicted_time_ms - milliseconds) <= 1e-4 * milliseconds, 'the predicted time')
    call check(abs(part%predicted_gflops * part%predicted_time_ms * 1e6 - real(flops)) <= 1e-3 * real(flops), &
      'the predicted rate')
    call check(strategy%current_partition%cpu_work_percent == cpu, 'the current partition')
  end subroutine expect

  !> A convolution large enough for both devices: 11 GFLOP, of which every output is the sum of its taps.
  subroutine both_devices()
    integer, parameter :: CHANNELS = 96, SIDE = 260
    real(real32), allocatable :: large(:), taps(:), found(:)

    allocate (large(CHANNELS * SIDE * SIDE), taps(CHANNELS * CHANNELS * 9), found(CHANNELS * (SIDE - 2)**2))
    large = 1.0
    taps = 0.5
    juggling_system%learning_mode = .false.
    juggling_system%cpu_profile%conv2d_gflops = 100.0
    juggling_system%gpu_profile%conv2d_gflops = 100.0
    milliseconds = execute_intelligent_conv2d(large, taps, found, 1, CHANNELS, SIDE, SIDE, CHANNELS, 3, 1, 0, SIDE - 2, SIDE - 2)
    call check(milliseconds > 0.0 .and. all(abs(found - 0.5 * CHANNELS * 9) <= 0.01), 'both devices compute')
    call check(juggling_system%current_partition%device_count == 2, 'both devices have shares')
    call check(juggling_system%average_gpu_gflops > 0.0, 'the GPU is measured in the run')
  end subroutine both_devices

  logical function is_exact()
    integer :: image, channel, row, col, from, i, j
    real(real32) :: sum_of_taps

    is_exact = .true.
    do image = 0, N - 1
      do channel = 0, K - 1
        do row = 0, H - 1
          do col = 0, W - 1
            sum_of_taps = 0.0
            do from = 0, C - 1
              do i = max(0, 1 - row), min(2, H - row)
                do j = max(0, 1 - col), min(2, W - col)
                  sum_of_taps = sum_of_taps + input(((image * C + from) * H + row + i - 1) * W + col + j) * &
                    weights(((channel * C + from) * 3 + i) * 3 + j + 1)
                end do
              end do
            end do
            if (.not. abs(output(((image * K + channel) * H + row) * W + col + 1) - sum_of_taps) <= 0.0) is_exact = .false.
          end do
        end do
      end do
    end do
  end function is_exact
end program device_juggling
