!> Devices of this machine with what was measured of them, and a choice among them for a workload.
!>
!> `discover_devices` lists the CPU and the GPUs of the library, and measures each: a convolution, a product, memory. What programs
!> report by `update_profiling_data` counts for more than the ceilings. A position is a device's place in `devices(:)`, from 1.
module sparkle_universal_device_selector
  ! All names but one, which gfortran warns of where default kinds are changed.
  use, intrinsic :: iso_fortran_env, only: character_kinds, character_storage_size, compiler_options, compiler_version, &
    error_unit, file_storage_size, input_unit, int16, int32, int64, int8, integer_kinds, iostat_end, iostat_eor, logical_kinds, &
    output_unit, real128, real32, real64, real_kinds
  use, intrinsic :: iso_c_binding
  use sparkle_types
  use sparkle, only: sparkle_device_info, sparkle_devices, sparkle_last_timing, sparkle_timing, SPARKLE_KIND_CPU
  use sparkle_device_rates, only: gpu_among, measure_rates
  use sparkle_dynamic_shader_system, only: detect_gpu_architecture, gpu_architecture
  use universal_memory_optimization, only: detect_memory_params, memory_params
  implicit none
  public
  private :: sparkle_device_info, sparkle_devices, sparkle_last_timing, sparkle_timing, SPARKLE_KIND_CPU, gpu_among, measure_rates
  private :: detect_gpu_architecture, gpu_architecture, detect_memory_params, memory_params
  private :: add_or_replace, best_alone, free_part, has_any, is_integrated, is_pattern, measured_or_expected, note_rates, remember
  private :: vector_width
  private :: STATIC_WEIGHT, MEASURED_WEIGHT, KEPT, NEW_PART, MOST_RATIOS, MOST_DECISIONS

  ! Kinds of devices. Discovery finds CPUs and GPUs; programs may add others.
  integer, parameter :: UNI_DEVICE_CPU_PERFORMANCE = 1
  integer, parameter :: UNI_DEVICE_CPU_EFFICIENCY = 2
  integer, parameter :: UNI_DEVICE_GPU_DISCRETE = 3
  integer, parameter :: UNI_DEVICE_GPU_INTEGRATED = 4
  integer, parameter :: UNI_DEVICE_NEURAL_ENGINE = 5
  integer, parameter :: UNI_DEVICE_MATRIX_UNIT = 6
  integer, parameter :: UNI_DEVICE_DSP = 7
  integer, parameter :: UNI_DEVICE_FPGA = 8

  ! What bounds a workload.
  integer, parameter :: OP_COMPUTE_BOUND = 1
  integer, parameter :: OP_MEMORY_BOUND = 2
  integer, parameter :: OP_LATENCY_SENSITIVE = 3
  integer, parameter :: OP_THROUGHPUT_ORIENTED = 4

  ! What a workload computes.
  integer, parameter :: PATTERN_GEMM = 1
  integer, parameter :: PATTERN_CONV = 2
  integer, parameter :: PATTERN_REDUCTION = 3
  integer, parameter :: PATTERN_ELEMENTWISE = 4
  integer, parameter :: PATTERN_SCATTER_GATHER = 5
  integer, parameter :: PATTERN_FFT = 6
  integer, parameter :: PATTERN_ATTENTION = 7

  !> What this library computes on a device, and the device's measured ceilings; 0 means unknown.
  type :: compute_capability
    logical :: supports_fp64 = .false.
    logical :: supports_fp32 = .true.
    logical :: supports_fp16 = .false.
    logical :: supports_int8 = .false.
    logical :: supports_matrix_ops = .false.
    logical :: supports_tensor_ops = .false.
    logical :: supports_async = .false.
    !> Floats in a vector of the CPU.
    integer :: vector_width = 1
    !> Invocations of a subgroup.
    integer :: warp_size = 1
    real(real64) :: peak_gflops = 0.0_real64
    !> GB/s.
    real(real64) :: memory_bandwidth = 0.0_real64
  end type compute_capability

  type :: universal_compute_unit
    character(len=64) :: name = ''
    integer :: device_type = 0
    !> N of "gl:N"; 0 for the CPU.
    integer :: device_id = 0
    logical :: available = .false.
    logical :: busy = .false.
    type(compute_capability) :: caps
    !> The fraction in use, 0 to 1.
    real(real64) :: current_load = 0.0_real64
    !> GFLOP/s of whole calls by pattern: measured by discovery or reported; 0 where nothing is known.
    real(real64) :: pattern_performance(7) = 0.0_real64
    !> Measurements that it stands for.
    integer :: pattern_count(7) = 0
    ! Not measured.
    real(real64) :: power_efficiency = 1.0_real64
    real(real64) :: temperature = 0.0_real64
    real(real64) :: thermal_limit = 100.0_real64
  end type universal_compute_unit

  type :: workload_characteristics
    !> A PATTERN_ constant; 0 is to be inferred.
    integer :: pattern = 0
    !> An OP_ constant.
    integer :: compute_intensity = 0
    integer(int64) :: total_flops = 0_int64
    !> Bytes.
    integer(int64) :: memory_traffic = 0_int64
    integer :: batch_size = 1
    logical :: can_split = .true.
    logical :: needs_coherence = .false.
    !> Operations per byte.
    real(real64) :: arithmetic_intensity = 0.0_real64
  end type workload_characteristics

  type :: device_routing_decision
    !> A position.
    integer :: primary_device = 0
    !> Positions, the fastest first; empty if the primary device does all of it.
    integer, allocatable :: secondary_devices(:)
    !> The share of the device at each position, 0 to 1. Devices at positions beyond 8 get none.
    real(real64) :: split_ratios(8) = 0.0_real64
    !> From the ceilings of the primary device.
    real(real64) :: expected_gflops = 0.0_real64
    character(len=256) :: reasoning = ''
  end type device_routing_decision

  type :: universal_device_selector
    type(universal_compute_unit), allocatable :: devices(:)
    integer :: num_devices = 0
    !> GFLOP/s of all devices together.
    real(real64) :: total_compute_power = 0.0_real64
    !> GB/s of all devices together.
    real(real64) :: total_memory_bandwidth = 0.0_real64
    !> Whether no device has memory of its own.
    logical :: unified_memory = .false.
    !> Whether discovery measures patterns, and reports are kept.
    logical :: profile_mode = .true.
    !> Whether what was measured counts in scores.
    logical :: adaptive_routing = .true.
    !> The last decisions, at most 1,000, the oldest first. The first `history_size` elements count.
    type(device_routing_decision), allocatable :: routing_history(:)
    integer :: history_size = 0
  contains
    procedure :: discover_devices
    procedure :: analyze_workload
    procedure :: select_optimal_device
    procedure :: select_multi_device
    procedure :: update_profiling_data
    procedure :: get_device_score
    procedure :: rebalance_load
  end type universal_device_selector

  !> How much ceilings and measurements count in a score.
  real(real64), parameter :: STATIC_WEIGHT = 0.3_real64, MEASURED_WEIGHT = 0.7_real64
  !> How much of a measured rate stays when a new one is reported.
  real(real64), parameter :: KEPT = 0.9_real64, NEW_PART = 0.1_real64
  integer, parameter :: MOST_RATIOS = 8
  !> Decisions that the history keeps.
  integer, parameter :: MOST_DECISIONS = 1000

contains

  !> Finds and measures the devices of this machine: about a second. A device that was found before is measured again;
  !> devices that the program added stay.
  subroutine discover_devices(this)
    class(universal_device_selector), intent(inout) :: this

    call discover_cpu_devices(this)
    call discover_gpu_devices(this)
    call discover_special_devices(this)
    call calculate_system_capabilities(this)
  end subroutine discover_devices

  !> The CPU, all of its threads as one device.
  subroutine discover_cpu_devices(this)
    class(universal_device_selector), intent(inout) :: this
    type(sparkle_device_info), allocatable :: found(:)
    type(universal_compute_unit) :: unit
    type(memory_params) :: memory
    integer :: i, stat

    call sparkle_devices(found, stat=stat)
    if (stat /= 0) return
    do i = 1, size(found)
      if (found(i)%kind /= SPARKLE_KIND_CPU) cycle
      unit = universal_compute_unit(device_type=UNI_DEVICE_CPU_PERFORMANCE, caps=compute_capability())
      unit%name = found(i)%name(:len(unit%name))
      memory = detect_memory_params()
      unit%caps%memory_bandwidth = memory%effective_bandwidth_gb
      call note_rates(this, 'cpu', unit)
      unit%caps%vector_width = vector_width()
      unit%caps%peak_gflops = maxval(unit%pattern_performance)
      call add_or_replace(this, unit)
    end do
  end subroutine discover_cpu_devices

  !> Floats in a vector of the kernels that the CPU runs, by the name of the kernel that ran last.
  integer function vector_width()
    type(sparkle_timing) :: last
    integer :: stat

    vector_width = 4
    call sparkle_last_timing(last, stat=stat)
    if (stat /= 0) return
    if (index(last%kernel, 'avx2') > 0) vector_width = 8
    if (index(last%kernel, 'avx512') > 0) vector_width = 16
  end function vector_width

  !> The usable hardware GPUs, and the GL device that SPARKLE_DEVICE names.
  subroutine discover_gpu_devices(this)
    class(universal_device_selector), intent(inout) :: this
    type(sparkle_device_info), allocatable :: found(:)
    type(universal_compute_unit) :: unit
    type(gpu_architecture) :: architecture
    integer :: i, named, number, stat

    call sparkle_devices(found, stat=stat)
    if (stat /= 0) return
    named = gpu_among(found)
    do i = 1, size(found)
      if (found(i)%kind == SPARKLE_KIND_CPU .or. .not. found(i)%usable) cycle
      if (found(i)%software .and. i /= named) cycle
      read (found(i)%id(4:), *, iostat=stat) number
      if (stat /= 0) cycle
      architecture = detect_gpu_architecture(number)
      unit = universal_compute_unit(device_id=number, caps=compute_capability())
      unit%name = found(i)%name(:len(unit%name))
      unit%device_type = merge(UNI_DEVICE_GPU_INTEGRATED, UNI_DEVICE_GPU_DISCRETE, &
        found(i)%software .or. is_integrated(found(i)%name, architecture%vendor))
      unit%caps%supports_async = .true.
      unit%caps%warp_size = max(1, architecture%wave_size)
      unit%caps%peak_gflops = 1.0e3_real64 * real(architecture%measured_tflops, real64)
      unit%caps%memory_bandwidth = real(architecture%measured_bandwidth_gbps, real64)
      call note_rates(this, trim(found(i)%id), unit)
      call add_or_replace(this, unit)
    end do
  end subroutine discover_gpu_devices

  !> The library drives no other devices, so it finds none. Programs add theirs by `add_device`.
  subroutine discover_special_devices(this)
    class(universal_device_selector), intent(inout) :: this

    call calculate_system_capabilities(this)
  end subroutine discover_special_devices

  !> Measures a device in profile mode. It is available if that succeeds.
  subroutine note_rates(this, id, unit)
    class(universal_device_selector), intent(in) :: this
    character(len=*), intent(in) :: id
    type(universal_compute_unit), intent(inout) :: unit
    real(real32) :: conv2d_gflops, gemm_gflops

    unit%available = .true.
    if (.not. this%profile_mode) return
    call measure_rates(id, conv2d_gflops, gemm_gflops, unit%available)
    unit%pattern_performance(PATTERN_CONV) = real(conv2d_gflops, real64)
    unit%pattern_performance(PATTERN_GEMM) = real(gemm_gflops, real64)
    where (unit%pattern_performance > 0.0_real64) unit%pattern_count = 1
  end subroutine note_rates

  !> Adds a device, or replaces what is known of it.
  subroutine add_or_replace(this, unit)
    class(universal_device_selector), intent(inout) :: this
    type(universal_compute_unit), intent(in) :: unit
    integer :: i

    do i = 1, this%num_devices
      if (this%devices(i)%device_type /= unit%device_type .or. this%devices(i)%device_id /= unit%device_id) cycle
      if (this%devices(i)%name /= unit%name) cycle
      this%devices(i) = unit
      return
    end do
    call add_device(this, unit)
  end subroutine add_or_replace

  !> Adds a device at the next position. Without memory for it nothing is added.
  subroutine add_device(this, device)
    class(universal_device_selector), intent(inout) :: this
    type(universal_compute_unit), intent(in) :: device
    type(universal_compute_unit), allocatable :: more(:)
    integer :: stat

    if (.not. allocated(this%devices)) allocate (this%devices(4), stat=stat)
    if (.not. allocated(this%devices)) return
    if (this%num_devices >= size(this%devices)) then
      allocate (more(2 * this%num_devices + 4), stat=stat)
      if (stat /= 0) return
      more(:this%num_devices) = this%devices(:this%num_devices)
      call move_alloc(more, this%devices)
    end if
    this%num_devices = this%num_devices + 1
    this%devices(this%num_devices) = device
    call calculate_system_capabilities(this)
  end subroutine add_device

  !> Sums up the available devices.
  subroutine calculate_system_capabilities(this)
    class(universal_device_selector), intent(inout) :: this
    integer :: i

    this%total_compute_power = 0.0_real64
    this%total_memory_bandwidth = 0.0_real64
    this%unified_memory = this%num_devices > 0
    do i = 1, this%num_devices
      if (.not. this%devices(i)%available) cycle
      this%total_compute_power = this%total_compute_power + this%devices(i)%caps%peak_gflops
      this%total_memory_bandwidth = this%total_memory_bandwidth + this%devices(i)%caps%memory_bandwidth
      if (this%devices(i)%device_type == UNI_DEVICE_GPU_DISCRETE) this%unified_memory = .false.
    end do
  end subroutine calculate_system_capabilities

  !> A workload of `flops` operations that moves `bytes` bytes. More than ten operations a byte are bound by computing, less
  !> than one by memory. Without `pattern` it is inferred.
  function analyze_workload(this, flops, bytes, pattern) result(characteristics)
    class(universal_device_selector), intent(in) :: this
    integer(int64), intent(in) :: flops, bytes
    integer, intent(in), optional :: pattern
    type(workload_characteristics) :: characteristics

    ! The reference interface has it; a workload does not depend on the devices.
    associate (unused => this)
    end associate
    characteristics%total_flops = flops
    characteristics%memory_traffic = bytes
    characteristics%arithmetic_intensity = 1.0e6_real64
    if (bytes > 0) characteristics%arithmetic_intensity = real(flops, real64) / real(bytes, real64)
    if (characteristics%arithmetic_intensity > 10.0_real64) then
      characteristics%compute_intensity = OP_COMPUTE_BOUND
    else if (characteristics%arithmetic_intensity < 1.0_real64) then
      characteristics%compute_intensity = OP_MEMORY_BOUND
    else
      characteristics%compute_intensity = OP_THROUGHPUT_ORIENTED
    end if
    if (present(pattern)) then
      characteristics%pattern = pattern
    else
      characteristics%pattern = infer_pattern(characteristics)
    end if
  end function analyze_workload

  !> The pattern that the operations per byte suggest.
  function infer_pattern(workload) result(pattern)
    type(workload_characteristics), intent(in) :: workload
    integer :: pattern

    if (workload%arithmetic_intensity > 100.0_real64) then
      pattern = PATTERN_GEMM
    else if (workload%arithmetic_intensity > 10.0_real64) then
      pattern = PATTERN_CONV
    else
      pattern = PATTERN_ELEMENTWISE
    end if
  end function infer_pattern

  !> GFLOP/s that the ceilings of a device allow: its peak, or its bandwidth times the operations per byte.
  function calculate_expected_performance(device, workload) result(gflops)
    type(universal_compute_unit), intent(in) :: device
    type(workload_characteristics), intent(in) :: workload
    real(real64) :: gflops

    gflops = min(device%caps%peak_gflops, max(0.0_real64, workload%arithmetic_intensity) * device%caps%memory_bandwidth)
  end function calculate_expected_performance

  !> GFLOP/s expected of the device at a position: the ceilings, and with adaptive routing 0.7 of what was measured of the
  !> pattern, times the part of the device that is free. 0 for a device that is busy, not available, or not there.
  function get_device_score(this, device_idx, workload) result(score)
    class(universal_device_selector), intent(in) :: this
    integer, intent(in) :: device_idx
    type(workload_characteristics), intent(in) :: workload
    real(real64) :: score

    score = 0.0_real64
    if (device_idx < 1 .or. device_idx > this%num_devices) return
    associate (device => this%devices(device_idx))
      if (device%available .and. .not. device%busy) score = measured_or_expected(this, device, workload) * free_part(device)
    end associate
  end function get_device_score

  real(real64) function measured_or_expected(this, device, workload) result(gflops)
    class(universal_device_selector), intent(in) :: this
    type(universal_compute_unit), intent(in) :: device
    type(workload_characteristics), intent(in) :: workload
    integer :: pattern

    gflops = calculate_expected_performance(device, workload)
    pattern = workload%pattern
    if (pattern == 0) pattern = infer_pattern(workload)
    if (.not. this%adaptive_routing .or. .not. is_pattern(pattern)) return
    if (device%pattern_count(pattern) == 0) return
    gflops = STATIC_WEIGHT * gflops + MEASURED_WEIGHT * device%pattern_performance(pattern)
  end function measured_or_expected

  pure real(real64) function free_part(device)
    type(universal_compute_unit), intent(in) :: device

    free_part = 1.0_real64 - min(1.0_real64, max(0.0_real64, device%current_load))
  end function free_part

  pure logical function is_pattern(pattern)
    integer, intent(in) :: pattern

    is_pattern = pattern >= PATTERN_GEMM .and. pattern <= PATTERN_ATTENTION
  end function is_pattern

  !> The device with the highest score; of equal ones the first. The decision is also added to the history. Without any
  !> device the position is 1 and the expected rate 0.
  function select_optimal_device(this, workload) result(decision)
    class(universal_device_selector), intent(inout) :: this
    type(workload_characteristics), intent(in) :: workload
    type(device_routing_decision) :: decision

    decision = best_alone(this, workload)
    call remember(this, decision)
  end function select_optimal_device

  !> As `select_optimal_device`, but a workload that can be split is shared among all devices in proportion to their
  !> scores. Shares below a twentieth do not pay and go to the others.
  function select_multi_device(this, workload) result(decision)
    class(universal_device_selector), intent(inout) :: this
    type(workload_characteristics), intent(in) :: workload
    type(device_routing_decision) :: decision
    real(real64), parameter :: LEAST = 0.05_real64
    real(real64) :: scores(MOST_RATIOS), left(MOST_RATIOS)
    integer :: i, others, best

    decision = best_alone(this, workload)
    scores = 0.0_real64
    do i = 1, min(MOST_RATIOS, this%num_devices)
      scores(i) = get_device_score(this, i, workload)
    end do
    if (workload%can_split .and. decision%primary_device <= MOST_RATIOS .and. sum(scores) > 0.0_real64) then
      where (scores < LEAST * sum(scores)) scores = 0.0_real64
      decision%split_ratios = scores / sum(scores)
      others = count(scores > 0.0_real64) - 1
      left = scores
      left(decision%primary_device) = 0.0_real64
      deallocate (decision%secondary_devices)
      allocate (decision%secondary_devices(max(0, others)))
      do i = 1, others
        best = maxloc(left, dim=1)
        decision%secondary_devices(i) = best
        left(best) = 0.0_real64
      end do
      if (others > 0) write (decision%reasoning, '(a, i0, a)') 'shared among ', others + 1, ' devices in proportion to their rates'
    end if
    call remember(this, decision)
  end function select_multi_device

  function best_alone(this, workload) result(decision)
    class(universal_device_selector), intent(in) :: this
    type(workload_characteristics), intent(in) :: workload
    type(device_routing_decision) :: decision
    real(real64) :: score, best
    integer :: i, pattern

    allocate (decision%secondary_devices(0))
    decision%primary_device = 1
    best = 0.0_real64
    do i = 1, this%num_devices
      score = get_device_score(this, i, workload)
      if (score <= best) cycle
      best = score
      decision%primary_device = i
    end do
    if (decision%primary_device <= MOST_RATIOS) decision%split_ratios(decision%primary_device) = 1.0_real64
    if (this%num_devices == 0) then
      decision%reasoning = 'no device was discovered'
      return
    end if
    associate (device => this%devices(decision%primary_device))
      decision%expected_gflops = calculate_expected_performance(device, workload)
      pattern = workload%pattern
      if (pattern == 0) pattern = infer_pattern(workload)
      if (best <= 0.0_real64) then
        decision%reasoning = 'no device is free'
      else if (this%adaptive_routing .and. is_pattern(pattern)) then
        write (decision%reasoning, '(2a, f0.1, a, i0, a)') trim(device%name), ': ', best, ' GFLOP/s expected, from ', &
          device%pattern_count(pattern), ' measurements and its ceilings'
      else
        write (decision%reasoning, '(2a, f0.1, a)') trim(device%name), ': ', best, ' GFLOP/s expected from its ceilings'
      end if
    end associate
  end function best_alone

  !> Adds a decision to the history, where the oldest makes room. Without memory for it nothing is added.
  subroutine remember(this, decision)
    class(universal_device_selector), intent(inout) :: this
    type(device_routing_decision), intent(in) :: decision
    type(device_routing_decision), allocatable :: more(:)
    integer :: i, stat

    if (.not. allocated(this%routing_history)) allocate (this%routing_history(16), stat=stat)
    if (.not. allocated(this%routing_history)) return
    if (this%history_size >= MOST_DECISIONS) then
      do i = 2, MOST_DECISIONS
        this%routing_history(i - 1) = this%routing_history(i)
      end do
      this%history_size = MOST_DECISIONS - 1
    else if (this%history_size >= size(this%routing_history)) then
      allocate (more(min(MOST_DECISIONS, 2 * this%history_size + 16)), stat=stat)
      if (stat /= 0) return
      more(:this%history_size) = this%routing_history(:this%history_size)
      call move_alloc(more, this%routing_history)
    end if
    this%history_size = this%history_size + 1
    this%routing_history(this%history_size) = decision
  end subroutine remember

  !> Reports GFLOP/s that the device at position `device_id` reached with a pattern. The first report is kept as it is; then
  !> a new one counts a tenth. Ignored are reports out of profile mode, of unknown devices or patterns, and of rates that are
  !> not positive numbers.
  subroutine update_profiling_data(this, device_id, pattern, achieved_gflops)
    class(universal_device_selector), intent(inout) :: this
    integer, intent(in) :: device_id, pattern
    real(real64), intent(in) :: achieved_gflops

    if (.not. this%profile_mode .or. .not. is_pattern(pattern)) return
    if (device_id < 1 .or. device_id > this%num_devices) return
    if (.not. (achieved_gflops > 0.0_real64 .and. achieved_gflops <= huge(achieved_gflops))) return
    associate (device => this%devices(device_id))
      if (device%pattern_count(pattern) == 0) then
        device%pattern_performance(pattern) = achieved_gflops
      else
        device%pattern_performance(pattern) = KEPT * device%pattern_performance(pattern) + NEW_PART * achieved_gflops
      end if
      device%pattern_count(pattern) = min(device%pattern_count(pattern), huge(0) - 1) + 1
    end associate
  end subroutine update_profiling_data

  !> Spreads the load over the available devices, so that each has the same fraction of its peak in use.
  subroutine rebalance_load(this)
    class(universal_device_selector), intent(inout) :: this
    real(real64) :: used, all_of_it
    integer :: i

    used = 0.0_real64
    all_of_it = 0.0_real64
    do i = 1, this%num_devices
      if (.not. this%devices(i)%available) cycle
      used = used + (1.0_real64 - free_part(this%devices(i))) * this%devices(i)%caps%peak_gflops
      all_of_it = all_of_it + this%devices(i)%caps%peak_gflops
    end do
    if (all_of_it <= 0.0_real64) return
    do i = 1, this%num_devices
      if (this%devices(i)%available) this%devices(i)%current_load = used / all_of_it
    end do
  end subroutine rebalance_load

  !> Whether a GPU shares the memory of the CPU, by its name: OpenGL does not tell. No choice depends on it.
  pure logical function is_integrated(name, vendor)
    character(len=*), intent(in) :: name, vendor

    select case (vendor)
    case ('Intel')
      is_integrated = .not. has_any(name, ['Arc(TM) A', 'Arc(TM) B', 'DG1      ', 'DG2      ', 'Max      '])
    case ('AMD')
      is_integrated = has_any(name, ['Radeon Graphics      ', 'Radeon Vega          ', 'Radeon(TM) Graphics  ', &
        'Radeon 610M          ', 'Radeon 660M          ', 'Radeon 680M          ', 'Radeon 740M          ', &
        'Radeon 760M          ', 'Radeon 780M          ', 'Radeon 880M          ', 'Radeon 890M          '])
    case default
      is_integrated = has_any(name, ['Tegra', 'Orin ', 'GB10 ', 'Mali ', 'Adren'])
    end select
  end function is_integrated

  pure logical function has_any(text, parts)
    character(len=*), intent(in) :: text
    character(len=*), intent(in) :: parts(:)
    integer :: i

    has_any = .false.
    do i = 1, size(parts)
      has_any = has_any .or. index(text, trim(parts(i))) > 0
    end do
  end function has_any
end module sparkle_universal_device_selector
