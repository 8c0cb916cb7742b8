!> Convolution on the CPU and a GPU together, in shares that follow measured rates.
!>
!> Profiles are measured on the devices of this machine: a convolution, a product, copies. The GPU is the first hardware GPU of
!> the library, or the GL device that SPARKLE_DEVICE names. A convolution really runs, on one device or, in fixed shares, on
!> both (the library's device `multi`), and its time is the wall time of the whole call, transfers included.
!>
!> While `learning_mode` is true, the rates of the runs replace those of the profiles; it ends after `exploration_runs` runs, so
!> that later runs of a shape have the same shares.
module intelligent_device_juggling
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use sparkle, only: sparkle_device_info, sparkle_devices, sparkle_last_shares, sparkle_share, SPARKLE_KIND_CPU
  use sparkle_dynamic_shader_system, only: detect_gpu_architecture, gpu_architecture
  use sparkle_device_rates, only: gpu_among, measure_rates, upload_rate
  use sparkle_reference_support, only: arrays_suffice, conv2d_work, solve_conv2d
  use universal_memory_optimization, only: detect_memory_params, memory_params
  implicit none
  private
  public :: device_profile, workload_partition, juggling_strategy, juggling_system
  public :: discover_and_profile_devices, optimize_workload_distribution, execute_intelligent_conv2d

  !> What was measured of a device; 0 means unknown.
  type :: device_profile
    character(len=64) :: device_name = ''
    !> CPU or GPU.
    character(len=32) :: device_type = ''
    !> A GPU's rate of multiply-adds; on the CPU the highest rate that was measured here.
    real(real32) :: peak_gflops = 0.0_real32
    !> GB/s of the device's memory.
    real(real32) :: memory_bandwidth_gb = 0.0_real32
    !> The last level of the CPU's caches.
    real(real32) :: cache_size_mb = 0.0_real32
    !> Physical cores, or compute units.
    integer :: cores = 0
    logical :: available = .false.
    !> Rates of whole calls, transfers included.
    real(real32) :: conv2d_gflops = 0.0_real32
    real(real32) :: gemm_gflops = 0.0_real32
    !> GB/s into the device's memory, or of copies on the CPU.
    real(real32) :: memory_copy_gb = 0.0_real32
    integer :: optimal_tile_size = 64
    integer :: optimal_batch_size = 1
    !> The rate of convolutions in terms of the peak.
    real(real32) :: efficiency_ratio = 0.0_real32
  end type device_profile

  !> How a workload is shared.
  type :: workload_partition
    integer :: device_count = 0
    integer :: cpu_work_percent = 0
    integer :: gpu_work_percent = 0
    integer :: cpu_batch_size = 1
    integer :: gpu_batch_size = 1
    logical :: use_cpu = .false.
    logical :: use_gpu = .false.
    !> From the rates of the profiles.
    real(real32) :: predicted_time_ms = 0.0_real32
    real(real32) :: predicted_gflops = 0.0_real32
  end type workload_partition

  type :: juggling_strategy
    type(device_profile) :: cpu_profile
    type(device_profile) :: gpu_profile
    type(workload_partition) :: current_partition
    integer :: total_runs = 0
    !> Means over the runs in which the device had a share.
    real(real32) :: average_cpu_gflops = 0.0_real32
    real(real32) :: average_gpu_gflops = 0.0_real32
    !> The highest rate of a run.
    real(real32) :: best_combined_gflops = 0.0_real32
    logical :: learning_mode = .true.
    integer :: exploration_runs = 10
  end type juggling_strategy

  type(juggling_strategy), save :: juggling_system

  !> Workloads below this do not pay for a GPU's transfers; above the other, two devices share them. GFLOP.
  real(real64), parameter :: SMALL = 0.1_real64, LARGE = 10.0_real64
  !> Smaller shares are not worth a second device.
  integer, parameter :: LEAST_PERCENT = 5

  integer, save :: cpu_runs = 0, gpu_runs = 0

contains

  !> Finds the CPU and a GPU, and measures both. Takes about a second; results of earlier runs are discarded.
  subroutine discover_and_profile_devices(strategy)
    type(juggling_strategy), intent(inout) :: strategy
    type(sparkle_device_info), allocatable :: devices(:)
    type(memory_params) :: memory
    type(gpu_architecture) :: architecture
    integer :: gpu, i, stat, number

    strategy%cpu_profile = device_profile(device_type='CPU')
    strategy%gpu_profile = device_profile(device_type='GPU')
    strategy%average_cpu_gflops = 0.0_real32
    strategy%average_gpu_gflops = 0.0_real32
    call sparkle_devices(devices, stat=stat)
    if (stat /= 0) return
    do i = 1, size(devices)
      if (devices(i)%kind == SPARKLE_KIND_CPU) strategy%cpu_profile%device_name = devices(i)%name(:64)
    end do
    memory = detect_memory_params()
    associate (cpu => strategy%cpu_profile)
      cpu%cores = memory%num_cores
      cpu%cache_size_mb = real(memory%l3_cache_kb, real32) / 1024.0_real32
      cpu%memory_bandwidth_gb = real(memory%effective_bandwidth_gb, real32)
      cpu%memory_copy_gb = cpu%memory_bandwidth_gb
      cpu%optimal_tile_size = memory%tile_m
      call measure_rates('cpu', cpu%conv2d_gflops, cpu%gemm_gflops, cpu%available)
      cpu%peak_gflops = max(cpu%conv2d_gflops, cpu%gemm_gflops)
      if (cpu%peak_gflops > 0.0_real32) cpu%efficiency_ratio = cpu%conv2d_gflops / cpu%peak_gflops
    end associate

    gpu = gpu_among(devices)
    if (gpu == 0) return
    associate (profile => strategy%gpu_profile)
      profile%device_name = devices(gpu)%name(:64)
      read (devices(gpu)%id(4:), *, iostat=stat) number
      if (stat /= 0) return
      architecture = detect_gpu_architecture(number)
      profile%cores = architecture%compute_units
      profile%peak_gflops = architecture%measured_tflops * 1000.0_real32
      profile%memory_bandwidth_gb = architecture%measured_bandwidth_gbps
      call measure_rates(trim(devices(gpu)%id), profile%conv2d_gflops, profile%gemm_gflops, profile%available)
      profile%memory_copy_gb = upload_rate(trim(devices(gpu)%id))
      if (profile%peak_gflops > 0.0_real32) profile%efficiency_ratio = profile%conv2d_gflops / profile%peak_gflops
    end associate
  end subroutine discover_and_profile_devices

  !> Shares a workload of `total_flops` operations: small ones go to the CPU, large ones to both devices in proportion to their
  !> rates, others to the faster device. `workload_type` is "gemm", or anything else for convolutions. The CPU takes all of it
  !> without a GPU. The partition is also the strategy's current one.
  function optimize_workload_distribution(strategy, total_flops, workload_type) result(partition)
    type(juggling_strategy), intent(inout) :: strategy
    integer(int64), intent(in) :: total_flops
    character(len=*), intent(in) :: workload_type
    type(workload_partition) :: partition
    real(real64) :: gflop, cpu_rate, gpu_rate, seconds

    gflop = real(max(0_int64, total_flops), real64) / 1.0e9_real64
    if (workload_type == 'gemm' .or. workload_type == 'GEMM') then
      cpu_rate = strategy%cpu_profile%gemm_gflops
      gpu_rate = strategy%gpu_profile%gemm_gflops
    else
      cpu_rate = strategy%cpu_profile%conv2d_gflops
      gpu_rate = strategy%gpu_profile%conv2d_gflops
    end if
    partition%cpu_batch_size = strategy%cpu_profile%optimal_batch_size
    partition%gpu_batch_size = strategy%gpu_profile%optimal_batch_size

    partition%gpu_work_percent = 0
    if (strategy%gpu_profile%available .and. gpu_rate > 0.0_real64 .and. gflop >= SMALL) then
      if (gflop > LARGE) then
        partition%gpu_work_percent = nint(100.0_real64 * gpu_rate / (gpu_rate + cpu_rate))
        if (partition%gpu_work_percent < LEAST_PERCENT) partition%gpu_work_percent = 0
        if (partition%gpu_work_percent > 100 - LEAST_PERCENT) partition%gpu_work_percent = 100
      else if (gpu_rate > cpu_rate) then
        partition%gpu_work_percent = 100
      end if
    end if
    partition%cpu_work_percent = 100 - partition%gpu_work_percent
    partition%use_cpu = partition%cpu_work_percent > 0
    partition%use_gpu = partition%gpu_work_percent > 0
    partition%device_count = count([partition%use_cpu, partition%use_gpu])

    seconds = 0.0_real64
    if (partition%use_cpu .and. cpu_rate > 0.0_real64) seconds = gflop * partition%cpu_work_percent / 100.0_real64 / cpu_rate
    if (partition%use_gpu) seconds = max(seconds, gflop * partition%gpu_work_percent / 100.0_real64 / gpu_rate)
    partition%predicted_time_ms = real(1.0e3_real64 * seconds, real32)
    if (seconds > 0.0_real64) partition%predicted_gflops = real(gflop / seconds, real32)
    strategy%current_partition = partition
  end function optimize_workload_distribution

  !> Convolves with the shares of `juggling_system`, which is profiled by the first call. Returns the measured wall time in
  !> milliseconds, or -1 with `output` untouched.
  function execute_intelligent_conv2d(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) &
    result(milliseconds)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(inout) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: milliseconds
    type(workload_partition) :: partition
    character(len=:), allocatable :: gpu
    real(real64) :: work

    milliseconds = -1.0_real32
    if (.not. arrays_suffice(size(input, kind=int64), size(weights, kind=int64), size(output, kind=int64), &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)) return
    if (.not. juggling_system%cpu_profile%available) call discover_and_profile_devices(juggling_system)
    work = conv2d_work(N, C, K, kernel_size, H_out, W_out)
    partition = optimize_workload_distribution(juggling_system, int(min(work, 9.0e18_real64), int64), 'conv2d')
    gpu = gpu_id()
    milliseconds = solve_conv2d(selector(partition, gpu), input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    if (milliseconds < 0.0_real32 .and. partition%use_gpu) then
      ! Without the GPU. It is out of the strategy until the devices are profiled again.
      juggling_system%gpu_profile%available = .false.
      partition = optimize_workload_distribution(juggling_system, int(min(work, 9.0e18_real64), int64), 'conv2d')
      milliseconds = solve_conv2d('cpu', input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    end if
    if (milliseconds >= 0.0_real32) call note(juggling_system, partition, work, milliseconds)
  end function execute_intelligent_conv2d

  !> The library's device for a partition.
  function selector(partition, gpu) result(name)
    type(workload_partition), intent(in) :: partition
    character(len=*), intent(in) :: gpu
    character(len=:), allocatable :: name
    character(len=80) :: text

    name = 'cpu'
    if (.not. partition%use_gpu) return
    name = gpu
    if (.not. partition%use_cpu) return
    write (text, '(3a, i0, a, i0)') 'multi:', gpu, '=', partition%gpu_work_percent, ',cpu=', partition%cpu_work_percent
    name = trim(text)
  end function selector

  !> Keeps what a run tells about the devices.
  subroutine note(strategy, partition, work, milliseconds)
    type(juggling_strategy), intent(inout) :: strategy
    type(workload_partition), intent(in) :: partition
    real(real64), intent(in) :: work
    real(real32), intent(in) :: milliseconds
    type(sparkle_share), allocatable :: shares(:)
    real(real64) :: total
    integer :: i, stat

    strategy%total_runs = strategy%total_runs + 1
    strategy%best_combined_gflops = max(strategy%best_combined_gflops, rate(work, real(milliseconds, real64)))
    if (partition%device_count == 2) then
      call sparkle_last_shares(shares, stat=stat)
      if (stat /= 0) return
      total = real(sum(shares%count), real64)
      do i = 1, size(shares)
        call add(shares(i)%device == 'cpu', rate(work * real(shares(i)%count, real64) / total, shares(i)%measured_ms))
      end do
    else
      call add(partition%use_cpu, rate(work, real(milliseconds, real64)))
    end if
    if (strategy%total_runs >= strategy%exploration_runs) strategy%learning_mode = .false.

  contains

    subroutine add(is_cpu, gflops)
      logical, intent(in) :: is_cpu
      real(real32), intent(in) :: gflops

      if (is_cpu) then
        call into_mean(strategy%average_cpu_gflops, cpu_runs, gflops)
        if (strategy%learning_mode) strategy%cpu_profile%conv2d_gflops = strategy%average_cpu_gflops
      else
        call into_mean(strategy%average_gpu_gflops, gpu_runs, gflops)
        if (strategy%learning_mode) strategy%gpu_profile%conv2d_gflops = strategy%average_gpu_gflops
      end if
    end subroutine add
  end subroutine note

  !> Adds to a mean, which begins anew if it is 0.
  subroutine into_mean(mean, runs, value)
    real(real32), intent(inout) :: mean
    integer, intent(inout) :: runs
    real(real32), intent(in) :: value

    if (mean <= 0.0_real32) runs = 0
    runs = runs + 1
    mean = mean + (value - mean) / real(runs, real32)
  end subroutine into_mean

  !> GFLOP/s of `work` operations in `milliseconds`.
  pure real(real32) function rate(work, milliseconds)
    real(real64), intent(in) :: work
    real(real64), intent(in) :: milliseconds

    rate = real(work / (max(milliseconds, 1.0e-6_real64) * 1.0e6_real64), real32)
  end function rate

  !> The GPU's selector; blank without a GPU.
  function gpu_id() result(id)
    character(len=:), allocatable :: id
    type(sparkle_device_info), allocatable :: devices(:)
    integer :: gpu, stat

    id = ''
    call sparkle_devices(devices, stat=stat)
    if (stat /= 0) return
    gpu = gpu_among(devices)
    if (gpu > 0) id = trim(devices(gpu)%id)
  end function gpu_id
end module intelligent_device_juggling
