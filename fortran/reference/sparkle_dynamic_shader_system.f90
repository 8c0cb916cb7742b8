!> Chooses shaders by measured speed: it tries a few variants for each convolution and keeps the fastest.
!>
!>     call init_shader_system(system, 0)                          ! gl:0
!>     source = get_optimal_shader(system, 'conv2d', config)
!>     ... run it, for instance by gpu_execute_conv2d_with_shader ...
!>     call update_performance_system(system, 'conv2d', 'dynamic', milliseconds, multiply_adds)
!>
!> `gpu_dynamic_execution` combines the three steps. Each kernel type and set of sizes has its own entry. A report
!> applies to the entry of its kernel type that was used last. It names its variant, or says `dynamic` or
!> `current_variant` for the variant that was returned last. A time that is not positive reports a failure; a failed
!> variant is not returned again while there is another.
!>
!> While an entry is learning, each call returns the variant with the fewest runs. After five runs of each it returns
!> the fastest, and another one at the rate `exploration_rate`. The measurements are saved in the folder
!> SPARKLE_CACHE_DIR, for this device and driver: by `save_cache`, and automatically after five runs of a variant and
!> each time their number has doubled. Nothing is printed.
module sparkle_dynamic_shader_system
  use, intrinsic :: ieee_arithmetic, only: ieee_is_finite
  use, intrinsic :: iso_c_binding, only: c_int32_t
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
  use sparkle_glsl_generator, only: convolution_config, generate_conv_glsl_shader
  use sparkle_rdna_shader_generator, only: detect_rdna_arch, generate_rdna_conv_shader, rdna_config
  use sparkle_reference_shaders, only: architecture_of, c_architecture, load_tuning_record, save_tuning_record, text_of
  implicit none
  private
  public :: shader_system, init_shader_system, get_optimal_shader
  public :: gpu_architecture, detect_gpu_architecture
  public :: update_performance_system, find_in_cache_system

  !> Runs of a variant before it can be the best.
  integer, parameter :: ENOUGH_RUNS = 5

  !> A GPU's architecture; 0 and blank mean unknown.
  type :: gpu_architecture
    character(len=32) :: vendor = 'Unknown'
    character(len=32) :: arch_name = 'Generic'
    integer :: wave_size = 0
    integer :: compute_units = 0
    integer :: max_workgroup_size = 0
    !> Maximum local memory of a workgroup in bytes.
    integer :: local_memory_size = 0
    logical :: has_dual_issue = .false.
    logical :: has_tensor_cores = .false.
    integer :: cache_line_size = 0
    real :: measured_bandwidth_gbps = 0.0
    real :: measured_tflops = 0.0
  end type gpu_architecture

  !> A shader for a convolution, with its measurements.
  type :: shader_variant
    character(len=:), allocatable :: source_code
    character(len=64) :: variant_id = ''
    integer :: workgroup_size = 0
    integer :: waves_per_workgroup = 0
    logical :: uses_local_memory = .false.
    logical :: uses_dual_issue = .false.
    !> Mean over the runs.
    real :: performance_gflops = 0.0
    integer :: test_runs = 0
    real :: avg_execution_time_ms = 0.0
    logical :: failed = .false.
  end type shader_variant

  !> A convolution under the program's name for it.
  type :: shader_cache_entry
    character(len=64) :: kernel_type = ''
    type(gpu_architecture) :: arch
    type(shader_variant), allocatable :: variants(:)
    integer :: best_variant_idx = 1
    logical :: is_learning = .true.
    integer :: total_executions = 0
    type(convolution_config) :: params
    integer :: last_variant_idx = 1
    !> The value of `uses` at its last use.
    integer(int64) :: last_use = 0
    !> Accumulates the exploration rate; at 1 another variant is tried.
    real :: curiosity = 0.0
  end type shader_cache_entry

  type :: shader_system
    type(shader_cache_entry), allocatable :: cache(:)
    integer :: cache_size = 0
    type(gpu_architecture) :: current_arch
    logical :: initialized = .false.
    logical :: auto_tune = .true.
    real :: exploration_rate = 0.1
    !> Without effect: SPARKLE_CACHE_DIR names the folder.
    character(len=256) :: cache_dir = ''
    integer :: device_id = 0
    integer(int64) :: uses = 0
  contains
    procedure :: add_to_cache
    procedure :: find_in_cache
    procedure, private :: update_int32, update_int64, update_real64_int32, update_real64_int64
    generic :: update_performance => update_int32, update_int64, update_real64_int32, update_real64_int64
    procedure :: save_cache
    procedure :: load_cache
  end type shader_system

  !> The multiply-adds may be a 64-bit integer, because 32 bits overflow at 2^31. The other kinds are for compiler flags
  !> that make default kinds longer.
  interface update_performance_system
    module procedure update_int32, update_int64, update_real64_int32, update_real64_int64
  end interface update_performance_system

contains

  !> Initialises a system for the GPU `gl:device_id`. If it does not exist, shaders are generated nevertheless.
  subroutine init_shader_system(system, device_id)
    type(shader_system), intent(out) :: system
    integer, intent(in) :: device_id

    system%device_id = device_id
    system%current_arch = detect_gpu_architecture(device_id)
    allocate (system%cache(16))
    system%initialized = .true.
  end subroutine init_shader_system

  !> The architecture of the GPU `gl:device_id`: reported by its driver, derived from its name, or measured.
  function detect_gpu_architecture(device_id) result(arch)
    integer, intent(in) :: device_id
    type(gpu_architecture) :: arch
    type(c_architecture) :: found

    if (.not. architecture_of(device_id, found)) return
    arch%vendor = text_of(found%vendor)
    arch%arch_name = text_of(found%name)
    arch%wave_size = int(found%subgroup_size)
    arch%compute_units = int(found%compute_units)
    arch%max_workgroup_size = int(found%max_workgroup)
    arch%local_memory_size = int(found%shared_memory)
    arch%has_dual_issue = found%dual_issue /= 0
    arch%has_tensor_cores = found%matrix_units /= 0
    arch%cache_line_size = int(found%cache_line)
    arch%measured_bandwidth_gbps = real(found%bandwidth / 1.0e9_real64)
    arch%measured_tflops = real(found%flops / 1.0e12_real64)
  end function detect_gpu_architecture

  !> The shader text to run next; empty if the system is not initialised or the sizes are not a valid convolution.
  function get_optimal_shader(system, kernel_type, params) result(shader_source)
    type(shader_system), intent(inout) :: system
    character(len=*), intent(in) :: kernel_type
    type(convolution_config), intent(in) :: params
    character(len=:), allocatable :: shader_source
    integer :: index

    shader_source = ''
    if (.not. system%initialized) return
    index = entry_of(system, kernel_type, params)
    if (index == 0) then
      call system%add_to_cache(kernel_type, params)
      index = entry_of(system, kernel_type, params)
      if (index == 0) return
    end if
    system%uses = system%uses + 1
    associate (entry => system%cache(index))
      entry%last_use = system%uses
      call choose(entry, system%auto_tune, system%exploration_rate)
      shader_source = entry%variants(entry%last_variant_idx)%source_code
    end associate
  end function get_optimal_shader

  !> Chooses the variant to run next.
  subroutine choose(entry, auto_tune, exploration_rate)
    type(shader_cache_entry), intent(inout) :: entry
    logical, intent(in) :: auto_tune
    real, intent(in) :: exploration_rate

    entry%last_variant_idx = entry%best_variant_idx
    if (.not. auto_tune) return
    if (entry%is_learning) then
      entry%last_variant_idx = least_run(entry, 0)
      return
    end if
    entry%curiosity = entry%curiosity + exploration_rate
    if (entry%curiosity < 1.0) return
    entry%curiosity = 0.0
    entry%last_variant_idx = least_run(entry, entry%best_variant_idx)
  end subroutine choose

  !> The variant with the fewest runs, except failed ones and `other`; the best variant if there is none.
  pure integer function least_run(entry, other)
    type(shader_cache_entry), intent(in) :: entry
    integer, intent(in) :: other
    integer :: i, runs

    least_run = entry%best_variant_idx
    runs = huge(runs)
    do i = 1, size(entry%variants)
      if (i == other .or. entry%variants(i)%failed .or. entry%variants(i)%test_runs >= runs) cycle
      runs = entry%variants(i)%test_runs
      least_run = i
    end do
  end function least_run

  !> Adds an entry with this device's variants and their saved records. Does nothing if the sizes are not a valid
  !> convolution.
  subroutine add_to_cache(system, kernel_type, params)
    class(shader_system), intent(inout) :: system
    character(len=*), intent(in) :: kernel_type
    type(convolution_config), intent(in) :: params
    type(shader_cache_entry), allocatable :: larger(:)
    type(shader_cache_entry) :: entry

    if (.not. allocated(system%cache)) allocate (system%cache(16))
    entry%kernel_type = kernel_type
    entry%params = params
    entry%arch = system%current_arch
    entry%variants = variants_for(system%current_arch, system%device_id, params)
    if (any_empty(entry%variants)) return
    if (system%cache_size == size(system%cache)) then
      allocate (larger(2 * system%cache_size))
      larger(:system%cache_size) = system%cache
      call move_alloc(larger, system%cache)
    end if
    system%uses = system%uses + 1
    entry%last_use = system%uses
    system%cache_size = system%cache_size + 1
    system%cache(system%cache_size) = entry
    call load_entry(system%cache(system%cache_size), system%device_id)
  end subroutine add_to_cache

  pure logical function any_empty(variants)
    type(shader_variant), intent(in) :: variants(:)
    integer :: i

    any_empty = size(variants) == 0
    do i = 1, size(variants)
      if (len(variants(i)%source_code) == 0) any_empty = .true.
    end do
  end function any_empty

  !> The variants for an architecture.
  function variants_for(arch, device_id, params) result(variants)
    type(gpu_architecture), intent(in) :: arch
    integer, intent(in) :: device_id
    type(convolution_config), intent(in) :: params
    type(shader_variant), allocatable :: variants(:)
    type(rdna_config) :: plain
    type(convolution_config) :: tiled

    plain%arch = detect_rdna_arch(device_id)
    if (plain%arch%generation > 0) then
      variants = [ &
        cut('rdna_basic_64', 64, .false., .false.), cut('rdna_large_256', 256, .false., .false.), &
        cut('rdna_lds_64', 64, .true., .false.)]
      if (arch%has_dual_issue) variants = [variants, cut('rdna3_dual_issue', 64, .true., .true.)]
    else
      variants = [square('generic_256', 16), square('generic_64', 8), cut('generic_plain_64', 64, .false., .false.)]
    end if

  contains

    type(shader_variant) function cut(id, threads, local, dual)
      character(len=*), intent(in) :: id
      integer, intent(in) :: threads
      logical, intent(in) :: local, dual
      type(rdna_config) :: config

      config = plain
      config%workgroup_size = threads
      config%use_lds = local
      config%use_dual_issue = dual
      cut = described(id, threads, local, dual, generate_rdna_conv_shader(config, params))
    end function cut

    type(shader_variant) function square(id, side)
      character(len=*), intent(in) :: id
      integer, intent(in) :: side

      tiled = params
      tiled%tile_size = side
      square = described(id, side * side, .true., .false., generate_conv_glsl_shader(tiled))
    end function square

    type(shader_variant) function described(id, threads, local, dual, source)
      character(len=*), intent(in) :: id, source
      integer, intent(in) :: threads
      logical, intent(in) :: local, dual

      described%variant_id = id
      described%source_code = source
      described%workgroup_size = threads
      if (arch%wave_size > 0) described%waves_per_workgroup = (threads + arch%wave_size - 1) / arch%wave_size
      described%uses_local_memory = local
      described%uses_dual_issue = dual
    end function described
  end function variants_for

  !> The index of the entry of a kernel type and its sizes; 0 if there is none.
  pure integer function entry_of(system, kernel_type, params)
    type(shader_system), intent(in) :: system
    character(len=*), intent(in) :: kernel_type
    type(convolution_config), intent(in) :: params
    integer :: i

    entry_of = 0
    do i = 1, system%cache_size
      if (system%cache(i)%kernel_type /= kernel_type) cycle
      if (shape_of(system%cache(i)%params) == shape_of(params)) entry_of = i
    end do
  end function entry_of

  !> A convolution's sizes as text.
  pure function shape_of(params) result(text)
    type(convolution_config), intent(in) :: params
    character(len=160) :: text

    write (text, '(a,3(1x,i0),a,3(1x,i0),a,2(1x,i0),a,2(1x,i0),a,2(1x,i0))') &
      'in', params%input_channels, params%input_height, params%input_width, &
      ' out', params%output_channels, params%output_height, params%output_width, &
      ' kernel', params%kernel_height, params%kernel_width, ' stride', params%stride_y, params%stride_x, &
      ' pad', params%pad_y, params%pad_x
  end function shape_of

  !> The index of the entry of this kernel type that was used last; 0 if there is none.
  function find_in_cache(system, kernel_type) result(idx)
    class(shader_system), intent(in) :: system
    character(len=*), intent(in) :: kernel_type
    integer :: idx
    integer :: i
    integer(int64) :: latest

    idx = 0
    latest = -1
    do i = 1, system%cache_size
      if (system%cache(i)%kernel_type /= kernel_type .or. system%cache(i)%last_use < latest) cycle
      idx = i
      latest = system%cache(i)%last_use
    end do
  end function find_in_cache

  !> As `system%find_in_cache`.
  function find_in_cache_system(system, kernel_type) result(idx)
    type(shader_system), intent(in) :: system
    character(len=*), intent(in) :: kernel_type
    integer :: idx

    idx = system%find_in_cache(kernel_type)
  end function find_in_cache_system

  !> Reports a run with its milliseconds and its multiply-adds. If these are not positive, for instance after an
  !> overflow, those of one image are used. An unknown variant or kernel type has no effect.
  subroutine update_int32(system, kernel_type, variant_id, execution_time_ms, problem_size)
    class(shader_system), intent(inout) :: system
    character(len=*), intent(in) :: kernel_type
    character(len=*), intent(in) :: variant_id
    real(real32), intent(in) :: execution_time_ms
    integer(int32), intent(in) :: problem_size

    call report(system, kernel_type, variant_id, real(execution_time_ms, real64), int(problem_size, int64))
  end subroutine update_int32

  subroutine update_int64(system, kernel_type, variant_id, execution_time_ms, problem_size)
    class(shader_system), intent(inout) :: system
    character(len=*), intent(in) :: kernel_type
    character(len=*), intent(in) :: variant_id
    real(real32), intent(in) :: execution_time_ms
    integer(int64), intent(in) :: problem_size

    call report(system, kernel_type, variant_id, real(execution_time_ms, real64), int(problem_size, int64))
  end subroutine update_int64

  subroutine update_real64_int32(system, kernel_type, variant_id, execution_time_ms, problem_size)
    class(shader_system), intent(inout) :: system
    character(len=*), intent(in) :: kernel_type
    character(len=*), intent(in) :: variant_id
    real(real64), intent(in) :: execution_time_ms
    integer(int32), intent(in) :: problem_size

    call report(system, kernel_type, variant_id, real(execution_time_ms, real64), int(problem_size, int64))
  end subroutine update_real64_int32

  subroutine update_real64_int64(system, kernel_type, variant_id, execution_time_ms, problem_size)
    class(shader_system), intent(inout) :: system
    character(len=*), intent(in) :: kernel_type
    character(len=*), intent(in) :: variant_id
    real(real64), intent(in) :: execution_time_ms
    integer(int64), intent(in) :: problem_size

    call report(system, kernel_type, variant_id, real(execution_time_ms, real64), int(problem_size, int64))
  end subroutine update_real64_int64

  subroutine report(system, kernel_type, variant_id, milliseconds, problem_size)
    class(shader_system), intent(inout) :: system
    character(len=*), intent(in) :: kernel_type
    character(len=*), intent(in) :: variant_id
    real(real64), intent(in) :: milliseconds
    integer(int64), intent(in) :: problem_size
    integer :: index, which
    real(real64) :: work

    index = system%find_in_cache(kernel_type)
    if (index == 0) return
    associate (entry => system%cache(index))
      which = variant_named(entry, variant_id)
      if (which == 0) return
      work = real(problem_size, real64)
      if (problem_size <= 0) work = multiply_adds(entry%params)
      entry%total_executions = entry%total_executions + 1
      call note(entry%variants(which), real(milliseconds), work)
      call update_best(entry)
      if (is_time_to_save(entry%variants(which)%test_runs)) call save_variant(entry, which, system%device_id)
    end associate
  end subroutine report

  !> The index of the variant that a report names; 0 if it is unknown.
  pure integer function variant_named(entry, variant_id)
    type(shader_cache_entry), intent(in) :: entry
    character(len=*), intent(in) :: variant_id

    do variant_named = size(entry%variants), 1, -1
      if (entry%variants(variant_named)%variant_id == variant_id) return
    end do
    if (variant_id == 'dynamic' .or. variant_id == 'current_variant') variant_named = entry%last_variant_idx
  end function variant_named

  !> Multiply-adds of one image.
  pure real(real64) function multiply_adds(params)
    type(convolution_config), intent(in) :: params

    multiply_adds = real(params%output_channels, real64) * params%output_height * params%output_width &
      * params%input_channels * params%kernel_height * params%kernel_width
  end function multiply_adds

  !> Adds a run to a variant's means.
  subroutine note(variant, milliseconds, work)
    type(shader_variant), intent(inout) :: variant
    real, intent(in) :: milliseconds
    real(real64), intent(in) :: work
    real :: weight

    variant%failed = .not. ieee_is_finite(milliseconds)
    if (.not. variant%failed) variant%failed = milliseconds <= 0.0
    if (variant%failed) return
    variant%test_runs = variant%test_runs + 1
    weight = 1.0 / real(variant%test_runs)
    variant%avg_execution_time_ms = variant%avg_execution_time_ms &
      + weight * (milliseconds - variant%avg_execution_time_ms)
    variant%performance_gflops = variant%performance_gflops &
      + weight * (real(2.0_real64 * work / (milliseconds * 1.0e6_real64)) - variant%performance_gflops)
  end subroutine note

  !> Updates the best variant, and whether the entry is still learning.
  subroutine update_best(entry)
    type(shader_cache_entry), intent(inout) :: entry
    logical :: sound(size(entry%variants)), known(size(entry%variants))
    integer :: first

    sound = .not. entry%variants%failed
    known = sound .and. entry%variants%test_runs >= ENOUGH_RUNS
    if (any(known)) then
      entry%best_variant_idx = maxloc(entry%variants%performance_gflops, dim=1, mask=known)
    else if (any(sound)) then
      first = findloc(sound, .true., dim=1)
      if (.not. sound(entry%best_variant_idx)) entry%best_variant_idx = first
    end if
    entry%is_learning = any(sound .and. .not. known)
  end subroutine update_best

  !> True after 5, 10, 20, 40, ... runs.
  pure logical function is_time_to_save(runs)
    integer, intent(in) :: runs
    integer :: multiple

    is_time_to_save = .false.
    if (runs < ENOUGH_RUNS .or. mod(runs, ENOUGH_RUNS) /= 0) return
    multiple = runs / ENOUGH_RUNS
    is_time_to_save = popcnt(multiple) == 1
  end function is_time_to_save

  !> Saves all measurements for later runs of programs.
  subroutine save_cache(system)
    class(shader_system), intent(in) :: system
    integer :: i, j

    do i = 1, system%cache_size
      do j = 1, size(system%cache(i)%variants)
        call save_variant(system%cache(i), j, system%device_id)
      end do
    end do
  end subroutine save_cache

  subroutine save_variant(entry, which, device_id)
    type(shader_cache_entry), intent(in) :: entry
    integer, intent(in) :: which, device_id

    associate (variant => entry%variants(which))
      if (variant%test_runs == 0) return
      call save_tuning_record(device_id, task_of(entry), trim(variant%variant_id), variant%test_runs, &
        variant%avg_execution_time_ms, variant%performance_gflops * 1.0e9)
    end associate
  end subroutine save_variant

  !> Loads saved records that have more runs than those in memory. New entries load theirs automatically.
  subroutine load_cache(system)
    class(shader_system), intent(inout) :: system
    integer :: i

    do i = 1, system%cache_size
      call load_entry(system%cache(i), system%device_id)
    end do
  end subroutine load_cache

  subroutine load_entry(entry, device_id)
    type(shader_cache_entry), intent(inout) :: entry
    integer, intent(in) :: device_id
    integer :: i, runs
    real :: milliseconds, rate

    do i = 1, size(entry%variants)
      associate (variant => entry%variants(i))
        call load_tuning_record(device_id, task_of(entry), trim(variant%variant_id), runs, milliseconds, rate)
        if (runs <= variant%test_runs) cycle
        variant%test_runs = runs
        variant%avg_execution_time_ms = milliseconds
        variant%performance_gflops = rate / 1.0e9
      end associate
    end do
    call update_best(entry)
  end subroutine load_entry

  !> The name of an entry's task in the tuning history.
  pure function task_of(entry) result(text)
    type(shader_cache_entry), intent(in) :: entry
    character(len=:), allocatable :: text

    text = trim(entry%kernel_type) // ': ' // trim(shape_of(entry%params))
  end function task_of
end module sparkle_dynamic_shader_system
