!> A choice among devices by measured rates, the types of the original framework, and a device of the program's own. The
!> argument, if any, is the number of devices that must be found.
module own_device
  use, intrinsic :: iso_c_binding, only: c_loc, c_ptr
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32
  use sparkle_types, only: allocate_interface, compute_device, deallocate_interface, device_capabilities, DEVICE_CPU, DEVICE_FPGA, &
    DEVICE_GPU_AMD, DEVICE_GPU_INTEL, DEVICE_GPU_NVIDIA, DEVICE_MOBILE, device_type_t, DEVICE_UNKNOWN, execute_interface, &
    get_info_interface, memcpy_interface, sparkle_buffer, SPARKLE_ERROR, SPARKLE_SUCCESS, synchronize_interface
  implicit none

  type, extends(compute_device) :: host_device
    integer :: calls = 0
  contains
    procedure :: allocate => host_allocate
    procedure :: deallocate => host_deallocate
    procedure :: memcpy => host_memcpy
    procedure :: execute => host_execute
    procedure :: synchronize => host_synchronize
    procedure :: get_info => host_get_info
  end type host_device

contains

  function host_allocate(self, size_bytes, pinned) result(buffer)
    class(host_device), intent(inout) :: self
    integer(int64), intent(in) :: size_bytes
    logical, intent(in), optional :: pinned
    type(sparkle_buffer) :: buffer

    self%calls = self%calls + 1
    buffer%size_bytes = size_bytes
    buffer%owning_device = self%device_id
    if (present(pinned)) buffer%is_pinned = pinned
  end function host_allocate

  subroutine host_deallocate(self, buffer)
    class(host_device), intent(inout) :: self
    type(sparkle_buffer), intent(inout) :: buffer

    self%calls = self%calls + 1
    buffer = sparkle_buffer()
  end subroutine host_deallocate

  function host_memcpy(self, dst, src, size_bytes) result(status)
    class(host_device), intent(inout) :: self
    type(sparkle_buffer), intent(inout) :: dst
    type(sparkle_buffer), intent(in) :: src
    integer(int64), intent(in) :: size_bytes
    integer(int32) :: status

    self%calls = self%calls + 1
    status = merge(SPARKLE_SUCCESS, SPARKLE_ERROR, size_bytes <= min(dst%size_bytes, src%size_bytes))
  end function host_memcpy

  function host_execute(self, kernel_name, args, grid_size, block_size) result(status)
    class(host_device), intent(inout) :: self
    character(len=*), intent(in) :: kernel_name
    type(c_ptr), intent(in) :: args(:)
    integer(int32), intent(in) :: grid_size(3)
    integer(int32), intent(in) :: block_size(3)
    integer(int32) :: status

    self%calls = self%calls + 1
    status = int(len(kernel_name) + size(args) + product(grid_size * block_size), int32)
  end function host_execute

  function host_synchronize(self) result(status)
    class(host_device), intent(inout) :: self
    integer(int32) :: status

    self%calls = self%calls + 1
    status = SPARKLE_SUCCESS
  end function host_synchronize

  subroutine host_get_info(self)
    class(host_device), intent(inout) :: self

    self%calls = self%calls + 1
  end subroutine host_get_info
end module own_device

program device_selector
  use checks
  use own_device
  use sparkle_universal_device_selector
  implicit none
  type(universal_device_selector) :: selector
  character(len=1) :: argument
  integer :: expected

  call get_command_argument(1, argument)
  expected = 0
  if (argument /= '') read (argument, *) expected
  call discovered()
  call analyzed()
  call chosen()
  call reported()
  call extended()
  call kinds_of_components()
  call finish()

contains

  subroutine discovered()
    integer :: i

    call selector%discover_devices()
    if (expected > 0) call check(selector%num_devices == expected, 'as many devices as expected')
    call check(selector%num_devices >= 1 .and. size(selector%devices) >= selector%num_devices, 'the CPU at least')
    do i = 1, selector%num_devices
      associate (device => selector%devices(i))
        call check(device%available .and. device%name /= '', 'it is available')
        call check((device%device_type == UNI_DEVICE_CPU_PERFORMANCE) .eqv. i == 1, 'the CPU comes first')
        call check(device%pattern_performance(PATTERN_GEMM) > 0.0 .and. device%pattern_performance(PATTERN_CONV) > 0.0, &
          'convolutions and products are measured')
        call check(all((device%pattern_count > 0) .eqv. (device%pattern_performance > 0.0)), 'nothing else is')
        call check(device%caps%peak_gflops > 0.0 .and. device%caps%peak_gflops < 1.0e6, 'a possible peak')
        call check(device%caps%memory_bandwidth > 0.0 .and. device%caps%memory_bandwidth < 1.0e5, 'a possible bandwidth')
        call check(device%caps%supports_fp32 .and. .not. device%caps%supports_fp64, 'single precision')
      end associate
    end do
    call check(any(selector%devices(1)%caps%vector_width == [4, 8, 16]), 'the vectors of the CPU')
    call check(abs(selector%total_compute_power - sum(selector%devices(:selector%num_devices)%caps%peak_gflops)) <= 1e-6, &
      'the sum of the peaks')
    i = selector%num_devices
    call selector%discover_devices()
    call check(selector%num_devices == i, 'a second discovery finds the same devices')
  end subroutine discovered

  subroutine analyzed()
    type(workload_characteristics) :: work

    work = selector%analyze_workload(1000_int64, 10_int64)
    call check(work%compute_intensity == OP_COMPUTE_BOUND .and. work%pattern == PATTERN_CONV, 'bound by computing')
    call check(work%total_flops == 1000 .and. work%memory_traffic == 10, 'the sizes are kept')
    call check(abs(work%arithmetic_intensity - 100.0d0) <= 0.0d0, 'operations per byte')
    work = selector%analyze_workload(1010_int64, 10_int64)
    call check(work%pattern == PATTERN_GEMM, 'a product')
    work = selector%analyze_workload(9_int64, 10_int64)
    call check(work%compute_intensity == OP_MEMORY_BOUND .and. work%pattern == PATTERN_ELEMENTWISE, 'bound by memory')
    work = selector%analyze_workload(100_int64, 10_int64, PATTERN_FFT)
    call check(work%compute_intensity == OP_THROUGHPUT_ORIENTED .and. work%pattern == PATTERN_FFT, 'between them')
    work = selector%analyze_workload(9_int64, 0_int64)
    call check(abs(work%arithmetic_intensity - 1.0d6) <= 0.0d0 .and. work%pattern == PATTERN_GEMM, 'nothing is moved')
  end subroutine analyzed

  !> Devices with rates that are set here.
  subroutine chosen()
    type(universal_device_selector) :: fixed
    type(universal_compute_unit) :: unit
    type(workload_characteristics) :: work
    type(device_routing_decision) :: decision
    integer :: i

    work = fixed%analyze_workload(100000_int64, 100_int64, PATTERN_CONV)
    decision = fixed%select_optimal_device(work)
    call check(decision%primary_device == 1 .and. size(decision%secondary_devices) == 0, 'no device')
    call check(decision%expected_gflops <= 0.0 .and. decision%reasoning /= '', 'and why')
    do i = 1, 3
      unit = universal_compute_unit(device_type=UNI_DEVICE_GPU_DISCRETE, device_id=i, available=.true.)
      unit%caps%peak_gflops = 100.0d0 * i
      unit%caps%memory_bandwidth = 10.0d0
      call add_device(fixed, unit)
    end do
    ! Scores 100, 200, 300 from the ceilings.
    decision = fixed%select_optimal_device(work)
    call check(decision%primary_device == 3 .and. near(decision%expected_gflops, 300.0d0), 'the fastest')
    call check(near(decision%split_ratios(3), 1.0d0) .and. near(sum(decision%split_ratios), 1.0d0), 'it does all of it')
    decision = fixed%select_multi_device(work)
    call check(decision%primary_device == 3 .and. all(decision%secondary_devices == [2, 1]), 'all of them')
    call check(all(abs(decision%split_ratios(:3) - [1.0d0, 2.0d0, 3.0d0] / 6.0d0) < 1.0d-12), 'in proportion')
    ! Memory bounds all of them to the same rate.
    decision = fixed%select_optimal_device(fixed%analyze_workload(100_int64, 100_int64))
    call check(decision%primary_device == 1 .and. near(decision%expected_gflops, 10.0d0), 'the first of equal ones')
    ! Measurements count more than ceilings: 0.3 * 100 + 0.7 * 900 = 660.
    call fixed%update_profiling_data(1, PATTERN_CONV, 900.0d0)
    call check(near(fixed%get_device_score(1, work), 660.0d0), 'a measured rate')
    decision = fixed%select_optimal_device(work)
    call check(decision%primary_device == 1, 'wins')
    fixed%devices(1)%current_load = 0.75d0
    call check(near(fixed%get_device_score(1, work), 165.0d0), 'a quarter is free')
    fixed%devices(3)%busy = .true.
    decision = fixed%select_optimal_device(work)
    call check(decision%primary_device == 2, 'a busy device is not chosen')
    call check(fixed%get_device_score(0, work) <= 0.0 .and. fixed%get_device_score(4, work) <= 0.0, 'positions that are not there')
    work%pattern = 99
    call check(near(fixed%get_device_score(2, work), 200.0d0), 'an unknown pattern')
    ! 0.75 of 100 in use of 600 in all.
    call fixed%rebalance_load()
    call check(all(abs(fixed%devices(:3)%current_load - 0.125d0) < 1.0d-12), 'the load is spread')
    call check(fixed%history_size == 6 .and. fixed%routing_history(2)%primary_device == 3, 'the history')
    do i = 1, 1000
      fixed%devices(3)%busy = modulo(i, 2) == 0
      decision = fixed%select_optimal_device(fixed%analyze_workload(100000_int64, 100_int64))
    end do
    call check(fixed%history_size == 1000 .and. size(fixed%routing_history) == 1000, 'the history is bounded')
    call check(fixed%routing_history(1000)%primary_device == decision%primary_device .and. &
      fixed%routing_history(999)%primary_device /= decision%primary_device, 'its last decisions')
  end subroutine chosen

  subroutine reported()
    type(universal_device_selector) :: fixed
    real(real64) :: before

    call add_device(fixed, universal_compute_unit(available=.true.))
    call fixed%update_profiling_data(1, PATTERN_FFT, 10.0d0)
    call fixed%update_profiling_data(1, PATTERN_FFT, 20.0d0)
    call check(near(fixed%devices(1)%pattern_performance(PATTERN_FFT), 11.0d0), 'a new rate counts a tenth')
    call check(fixed%devices(1)%pattern_count(PATTERN_FFT) == 2, 'reports are counted')
    call fixed%update_profiling_data(1, 0, 1.0d0)
    call fixed%update_profiling_data(1, 8, 1.0d0)
    call fixed%update_profiling_data(2, PATTERN_FFT, 1.0d0)
    call fixed%update_profiling_data(0, PATTERN_FFT, 1.0d0)
    call fixed%update_profiling_data(1, PATTERN_FFT, -1.0d0)
    before = huge(before)
    call fixed%update_profiling_data(1, PATTERN_FFT, 10.0d0 * before)
    call check(sum(fixed%devices(1)%pattern_count) == 2, 'what is not a report is ignored')
  end subroutine reported

  subroutine extended()
    type(host_device) :: device
    type(device_type_t) :: kinds(6)
    type(sparkle_buffer) :: memory, other
    procedure(allocate_interface), pointer :: p_allocate => null()
    procedure(deallocate_interface), pointer :: p_deallocate => null()
    procedure(memcpy_interface), pointer :: p_memcpy => null()
    procedure(execute_interface), pointer :: p_execute => null()
    procedure(synchronize_interface), pointer :: p_synchronize => null()
    procedure(get_info_interface), pointer :: p_get_info => null()
    integer, target :: argument_of_kernel

    device%device_id = 3
    kinds = [DEVICE_CPU, DEVICE_GPU_NVIDIA, DEVICE_GPU_AMD, DEVICE_GPU_INTEL, DEVICE_FPGA, DEVICE_MOBILE]
    call check(all(kinds%value == [1, 2, 3, 4, 5, 6]) .and. DEVICE_UNKNOWN%value == 99, 'kinds')
    call check(device%device_type%value == DEVICE_UNKNOWN%value, 'an unknown kind')
    call check(.not. (associated(p_allocate) .or. associated(p_deallocate) .or. associated(p_memcpy) .or. associated(p_execute) &
      .or. associated(p_synchronize) .or. associated(p_get_info)), 'interfaces have names')
    call check(device%can_access(3) .and. .not. device%can_access(4), 'its own memory')
    call check(device%estimate_performance(1000_int64) <= 0.0, 'unknown')
    device%capabilities%compute_units = 10
    device%capabilities%clock_speed_ghz = 2.0
    ! 40 GFLOP/s.
    call check(abs(device%estimate_performance(40000000_int64) - 1.0) <= 1e-5, 'a millisecond')
    memory = device%allocate(64_int64, pinned=.true.)
    other = device%allocate(32_int64)
    call check(memory%owning_device == 3 .and. memory%is_pinned .and. memory%size_bytes == 64, 'allocate')
    call check(device%memcpy(memory, other, 32_int64) == SPARKLE_SUCCESS, 'memcpy')
    call check(device%memcpy(memory, other, 33_int64) == SPARKLE_ERROR, 'memcpy of too much')
    call check(device%execute('saxpy', [c_loc(argument_of_kernel)], [2, 1, 1], [3, 1, 1]) == 12, 'execute')
    call check(device%synchronize() == SPARKLE_SUCCESS, 'synchronize')
    call device%get_info()
    call device%deallocate(memory)
    call check(memory%owning_device == -1 .and. memory%size_bytes == 0 .and. device%calls == 8, 'deallocate')
  end subroutine extended

  !> A pointer can only point to a component of exactly its type and kind; keywords are the names of arguments.
  subroutine kinds_of_components()
    type(universal_device_selector), target :: any_selector
    type(universal_compute_unit), target :: unit
    type(workload_characteristics), target :: work
    type(device_routing_decision), target :: decision
    type(device_capabilities), target :: caps
    type(compute_capability), pointer :: a_capability
    integer, pointer :: an_integer, integers(:)
    integer(int32), pointer :: an_int32
    integer(int64), pointer :: an_int64
    real(real32), pointer :: a_real32
    real(real64), pointer :: a_real64, reals(:)
    logical, pointer :: a_logical
    character(len=64), pointer :: name
    character(len=256), pointer :: reasoning

    a_capability => unit%caps; name => unit%name; reals => unit%pattern_performance; integers => unit%pattern_count
    a_real64 => unit%power_efficiency; a_real64 => unit%temperature; a_real64 => unit%thermal_limit
    call check(near(unit%power_efficiency, 1.0d0) .and. near(unit%thermal_limit, 100.0d0), 'universal_compute_unit')
    a_logical => a_capability%supports_fp16; a_logical => a_capability%supports_int8
    a_logical => a_capability%supports_matrix_ops; a_logical => a_capability%supports_tensor_ops
    a_logical => a_capability%supports_async; an_integer => a_capability%vector_width; an_integer => a_capability%warp_size
    a_real64 => a_capability%peak_gflops; a_real64 => a_capability%memory_bandwidth
    call check(a_capability%supports_fp32 .and. a_capability%vector_width == 1 .and. a_capability%warp_size == 1, 'defaults')
    an_integer => work%batch_size; a_logical => work%needs_coherence; an_int64 => work%total_flops
    call check(work%can_split .and. work%batch_size == 1, 'workload_characteristics')
    reasoning => decision%reasoning; reals => decision%split_ratios
    call check(size(reals) == 8 .and. reasoning == '' .and. decision%primary_device == 0, 'device_routing_decision')
    a_logical => any_selector%unified_memory; a_real64 => any_selector%total_memory_bandwidth
    call check(any_selector%profile_mode .and. any_selector%adaptive_routing .and. .not. allocated(any_selector%devices) &
      .and. .not. allocated(any_selector%routing_history), 'universal_device_selector')
    an_int64 => caps%memory_bytes; an_int32 => caps%compute_units; a_real32 => caps%memory_bandwidth_gbps
    a_logical => caps%supports_unified_memory
    call check(.not. allocated(caps%instruction_set) .and. .not. a_logical .and. name == '', 'device_capabilities')
    call check(an_integer == 1 .and. an_int32 == 0 .and. an_int64 == 0 .and. a_real32 <= 0.0 .and. a_real64 <= 0.0 &
      .and. all(integers == 0), 'components')
    work = analyze_workload(this=any_selector, flops=8_int64, bytes=8_int64, pattern=PATTERN_CONV)
    call check(infer_pattern(workload=work) == PATTERN_ELEMENTWISE, 'infer_pattern')
    call check(calculate_expected_performance(device=unit, workload=work) <= 0.0, 'calculate_expected_performance')
    call check(get_device_score(this=any_selector, device_idx=1, workload=work) <= 0.0, 'get_device_score')
    call update_profiling_data(this=any_selector, device_id=1, pattern=1, achieved_gflops=1.0d0)
    call calculate_system_capabilities(this=any_selector)
    call rebalance_load(this=any_selector)
    call add_device(this=any_selector, device=unit)
    call discover_special_devices(this=any_selector)
    call check(any_selector%num_devices == 1, 'add_device')
  end subroutine kinds_of_components

  logical function near(value, wanted)
    real(real64), intent(in) :: value, wanted

    near = abs(value - wanted) <= 1.0d-9 * wanted
  end function near
end program device_selector
