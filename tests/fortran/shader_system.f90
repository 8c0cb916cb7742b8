!> The shader modules on a GL device: the device's description, generated shaders, variants chosen by their times, and a tuning
!> history that the next process loads. The first argument selects a part: `first`, `again` in the same cache folder, `benchmark`.
!> Without an argument, the program runs itself once for each part, with a new cache folder.
module shader_system_cases
  use, intrinsic :: iso_c_binding, only: c_char, c_float, c_int, c_null_char, c_ptr
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use checks
  use gpu_dynamic_execution, only: gpu_benchmark_shader_variants, gpu_execute_with_dynamic_shader
  use gpu_opengl_interface, only: gpu_cleanup, gpu_init
  use sparkle_dynamic_shader_system
  use sparkle_glsl_generator, only: convolution_config, generate_conv_glsl_shader
  use sparkle_rdna_shader_generator, only: detect_rdna_arch, generate_rdna_conv_shader, rdna_arch, rdna_config
  implicit none
  public
  type(conv), parameter :: SHAPES(5) = [ &
    conv(n=1, c=1, h=1, w=1, k=1, r=1, s=1), &
    conv(n=3, c=2, h=6, w=9, k=5, r=3, s=3, pad_h=1, pad_w=1), &
    conv(n=2, c=5, h=9, w=7, k=40, r=1, s=1, stride_h=2, stride_w=2), &
    conv(n=2, c=3, h=13, w=11, k=8, r=7, s=7, stride_h=2, stride_w=2, pad_h=3, pad_w=3), &
    conv(n=1, c=19, h=12, w=12, k=33, r=3, s=3, pad_h=1, pad_w=1)]

  interface
    function execute_with_shader(input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out, &
      shader_source) bind(C, name="gpu_execute_conv2d_with_shader") result(milliseconds)
      import :: c_char, c_float, c_int
      real(c_float), intent(in) :: input(*)
      real(c_float), intent(in) :: weights(*)
      real(c_float), intent(inout) :: output(*)
      integer(c_int), value :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
      character(kind=c_char), intent(in) :: shader_source(*)
      real(c_float) :: milliseconds
    end function execute_with_shader

    function mkdtemp(pattern) bind(C, name="mkdtemp") result(folder)
      import :: c_char, c_ptr
      character(kind=c_char), intent(inout) :: pattern(*)
      type(c_ptr) :: folder
    end function mkdtemp
  end interface

contains

  pure type(convolution_config) function config_of(cv)
    type(conv), intent(in) :: cv

    config_of = convolution_config(input_height=cv%h, input_width=cv%w, input_channels=cv%c, kernel_height=cv%r, &
      kernel_width=cv%s, output_height=cv%p(), output_width=cv%q(), output_channels=cv%k, stride_y=cv%stride_h, &
      stride_x=cv%stride_w, pad_y=cv%pad_h, pad_x=cv%pad_w)
  end function config_of

  !> Whether a shader source computes a convolution correctly.
  logical function computes(source, cv, seed)
    character(len=*), intent(in) :: source
    type(conv), intent(in) :: cv
    integer, intent(in) :: seed
    real(real32) :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len()), time

    x = data_of(size(x), seed)
    w = data_of(size(w), seed + 50)
    y = huge(y)
    time = execute_with_shader(x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q(), &
      source // c_null_char)
    computes = time >= 0.0_real32 .and. agrees(cv, x, w, y)
  end function computes

  subroutine architecture()
    type(gpu_architecture) :: arch, none
    type(rdna_arch) :: rdna, no_rdna

    arch = detect_gpu_architecture(0)
    call check(arch%vendor /= 'Unknown' .and. arch%vendor /= '' .and. arch%arch_name /= '', 'a vendor and a name')
    call check(arch%compute_units >= 1 .and. arch%max_workgroup_size >= 1024, 'units and workgroups')
    call check(arch%local_memory_size >= 32768, 'at least the minimum of GL 4.3')
    call check(arch%measured_bandwidth_gbps > 0.0 .and. arch%measured_tflops > 0.0, 'measured rates')
    if (arch%arch_name == 'llvmpipe') then
      call check(arch%vendor == 'software' .and. any(arch%wave_size == [4, 8, 16]), 'the vectors of llvmpipe')
      call check(.not. arch%has_dual_issue .and. .not. arch%has_tensor_cores, 'llvmpipe has neither')
    end if
    rdna = detect_rdna_arch(0)
    call check(rdna%wave_size == arch%wave_size .and. rdna%compute_units >= 1 .and. rdna%lds_size >= 32768, 'rdna_arch')
    call check((rdna%generation > 0) .eqv. (arch%arch_name(:4) == 'RDNA'), 'the generation matches the name')
    call check(rdna%dual_issue == merge(2, 1, arch%has_dual_issue), 'dual issue')
    ! For a device that does not exist, nothing is invented.
    none = detect_gpu_architecture(77)
    call check(none%vendor == 'Unknown' .and. none%arch_name == 'Generic' .and. none%compute_units == 0, 'no device')
    no_rdna = detect_rdna_arch(77)
    call check(no_rdna%generation == 0 .and. no_rdna%compute_units == 0 .and. no_rdna%wave_size == 0, 'no RDNA')
  end subroutine architecture

  subroutine generated_shaders()
    type(convolution_config) :: config
    character(len=:), allocatable :: source
    integer :: i, tile, other
    integer, parameter :: TILES(6) = [-1, 4, 8, 16, 23, 1000]
    character(len=*), parameter :: SIDES(6) = ['16', '4 ', '8 ', '16', '16', '32']

    do i = 1, size(SHAPES)
      config = config_of(SHAPES(i))
      tile = 1 + mod(i, size(TILES))
      config%tile_size = TILES(tile)
      config%use_fp16 = mod(i, 2) == 0
      source = generate_conv_glsl_shader(config)
      call check(index(source, '#version 430') == 1, 'the source has a version line')
      call check(index(source, 'local_size_x = ' // trim(SIDES(tile)) // ', local_size_y = ' // trim(SIDES(tile))) > 0, &
        'the tile size')
      call check(computes(source, SHAPES(i), i), 'its results')
      other = 1 + mod(i, size(SHAPES))
      call check(computes(source, SHAPES(other), i + 10), 'another shape than the shader was generated for')
    end do
    config = config_of(SHAPES(2))
    config%output_width = config%output_width + 1
    call check(generate_conv_glsl_shader(config) == '', 'an output that does not fit')
    config = config_of(SHAPES(2))
    config%input_channels = 0
    call check(generate_conv_glsl_shader(config) == '', 'no channels')
    config = config_of(SHAPES(2))
    config%stride_x = 0
    call check(generate_conv_glsl_shader(config) == '', 'no stride')
    config = config_of(SHAPES(2))
    config%pad_y = -1
    config%output_height = config%output_height - 2
    call check(generate_conv_glsl_shader(config) == '', 'a negative padding')
  end subroutine generated_shaders

  !> More workgroups of 4 x 4 than the minimum that GL guarantees for one dimension of a grid.
  subroutine more_groups_than_a_grid_holds()
    type(conv), parameter :: LARGE = conv(n=1, c=1, h=300, w=301, k=3, r=1, s=1)
    character(len=*), parameter :: MARK = '// any grid'
    type(convolution_config) :: config
    character(len=:), allocatable :: source
    real(real32), allocatable :: x(:), w(:), y(:)
    real(real32) :: time
    integer :: at

    config = config_of(LARGE)
    config%tile_size = 4
    source = generate_conv_glsl_shader(config)
    call check(computes(source, LARGE, 40), 'fewer groups than tiles')
    ! A source without the mark is not known to accept any grid. It must compute every output or be refused.
    at = index(source, MARK)
    call check(at > 0, 'the mark')
    source = source(:at - 1) // source(at + len(MARK):)
    x = data_of(LARGE%x_len(), 41)
    w = data_of(LARGE%w_len(), 42)
    allocate (y(LARGE%y_len()), source=7.0_real32)
    time = execute_with_shader(x, w, y, LARGE%n, LARGE%c, LARGE%h, LARGE%w, LARGE%k, 1, 1, 0, LARGE%h, LARGE%w, &
      source // c_null_char)
    call check(merge(agrees(LARGE, x, w, y), all(abs(y - 7.0_real32) <= 0.0_real32), time >= 0.0_real32), 'without the mark')
  end subroutine more_groups_than_a_grid_holds

  subroutine shaders_for_rdna()
    type(rdna_config) :: config
    character(len=:), allocatable :: source
    integer :: i, j
    integer, parameter :: SIZES(5) = [64, 256, 32, 100, 5000]
    character(len=*), parameter :: PLAIN(5) = ['64, local_size_y = 1 ', '32, local_size_y = 8 ', '32, local_size_y = 1 ', &
      '64, local_size_y = 1 ', '32, local_size_y = 32']
    integer :: cases

    cases = 0
    do i = 1, size(SIZES)
      do j = 0, 3
        config%arch = detect_rdna_arch(0)
        config%workgroup_size = SIZES(i)
        config%use_lds = btest(j, 0)
        config%use_dual_issue = btest(j, 1)
        config%vgpr_usage = 24 + 40 * j
        config%waves_per_cu = 4 * i
        source = generate_rdna_conv_shader(config, config_of(SHAPES(i)))
        if (.not. config%use_lds) call check(index(source, 'local_size_x = ' // trim(PLAIN(i))) > 0, 'workgroup_size')
        call check(index(source, '#define SHARED ' // merge('1', '0', config%use_lds)) > 0, 'use_lds')
        call check(index(source, '#define CHAINS ' // merge('2', '1', config%use_dual_issue)) > 0, 'use_dual_issue')
        call check(computes(source, SHAPES(i), 20 + i), 'its results')
        cases = cases + 1
      end do
    end do
    call check(cases == 20, 'all cases')
    ! More waves leave fewer registers, so the tile is smaller.
    config%arch%vgpr_per_simd = 1024
    config%vgpr_usage = 256
    config%use_lds = .true.
    config%use_dual_issue = .false.
    config%workgroup_size = 64
    config%waves_per_cu = 8
    call check(index(generate_rdna_conv_shader(config, config_of(SHAPES(3))), '#define TM 8') > 0, 'registers for 8 waves')
    config%waves_per_cu = 128
    call check(index(generate_rdna_conv_shader(config, config_of(SHAPES(3))), '#define TM 1') > 0, 'registers for 128')
    call check(generate_rdna_conv_shader(config, convolution_config()) == '', 'no convolution')
  end subroutine shaders_for_rdna

  !> Learning from invented time reports.
  subroutine learning()
    type(shader_system) :: system
    character(len=:), allocatable :: source
    integer :: i, j, count, selected, entry

    source = get_optimal_shader(system, 'conv2d', config_of(SHAPES(2)))
    call check(source == '', 'not initialised')
    call init_shader_system(system, 0)
    call check(system%initialized .and. system%cache_size == 0 .and. system%current_arch%vendor /= '', 'a system')
    call check(find_in_cache_system(system, 'conv2d') == 0, 'an empty cache')
    call update_performance_system(system, 'conv2d', 'dynamic', 1.0, 1000)
    source = get_optimal_shader(system, 'conv2d', convolution_config())
    call check(source == '' .and. system%cache_size == 0, 'no convolution')

    source = get_optimal_shader(system, 'learning', config_of(SHAPES(2)))
    entry = find_in_cache_system(system, 'learning')
    call check(entry == 1 .and. source /= '', 'an entry')
    count = size(system%cache(entry)%variants)
    call check(count >= 3 .and. system%cache(entry)%is_learning, 'variants')
    do i = 1, count
      call check(computes(system%cache(entry)%variants(i)%source_code, SHAPES(2), 30 + i), 'a variant')
      call check(system%cache(entry)%variants(i)%workgroup_size >= 64, 'its workgroup')
    end do
    ! Reports that the first variant fails and the second is the fastest.
    do i = 1, 5 * count
      source = get_optimal_shader(system, 'learning', config_of(SHAPES(2)))
      selected = system%cache(entry)%last_variant_idx
      call check(source == system%cache(entry)%variants(selected)%source_code, 'the source of the selected variant')
      call update_performance_system(system, 'learning', 'unknown variant', 1.0e-6, 1000)
      if (selected == 1) then
        call update_performance_system(system, 'learning', 'current_variant', -1.0, 1000)
      else if (selected == 2) then
        call update_performance_system(system, 'learning', 'dynamic', 1.0, 500000)
      else
        call update_performance_system(system, 'learning', trim(system%cache(entry)%variants(selected)%variant_id), 2.0, &
          500000_int64)
      end if
    end do
    associate (learnt => system%cache(entry))
      call check(.not. learnt%is_learning .and. learnt%best_variant_idx == 2, 'the best')
      call check(learnt%variants(1)%failed .and. learnt%variants(1)%test_runs == 0, 'the one that failed')
      call check(abs(learnt%variants(2)%performance_gflops - 1.0) < 1.0e-5, 'a rate')
      call check(abs(learnt%variants(3)%avg_execution_time_ms - 2.0) < 1.0e-5, 'a time')
      call check(all(learnt%variants(2:)%test_runs >= 5) .and. learnt%total_executions == 5 * count, 'counts')
    end associate
    ! One in ten calls gets another variant, but never the one that failed.
    j = 0
    do i = 1, 100
      source = get_optimal_shader(system, 'learning', config_of(SHAPES(2)))
      call check(system%cache(entry)%last_variant_idx /= 1, 'a failed variant is not selected')
      if (system%cache(entry)%last_variant_idx /= 2) j = j + 1
    end do
    call check(j >= 9 .and. j <= 11, 'exploration')
    system%auto_tune = .false.
    do i = 1, 20
      source = get_optimal_shader(system, 'learning', config_of(SHAPES(2)))
      call check(system%cache(entry)%last_variant_idx == 2, 'always the best')
    end do
    ! If the best variant fails, the next best replaces it.
    call update_performance_system(system, 'learning', trim(system%cache(entry)%variants(2)%variant_id), -1.0, 1000)
    source = get_optimal_shader(system, 'learning', config_of(SHAPES(2)))
    call check(system%cache(entry)%last_variant_idx > 2, 'the next best')
    ! Each convolution has its own entry. There are more than the initial capacity.
    do i = 1, 20
      source = get_optimal_shader(system, 'learning', config_of(shape_of_conv(1, i, 4, 4, 2, 3, 1, 1)))
    end do
    call check(system%cache_size == 21 .and. find_in_cache_system(system, 'learning') == 21, 'entries')
    call check(system%cache(21)%is_learning .and. all(system%cache(21)%variants%test_runs == 0), 'another shape')
  end subroutine learning

  !> Convolutions that run and are timed.
  subroutine execution(cv, learnt_before)
    type(conv), intent(in) :: cv
    logical, intent(in) :: learnt_before
    type(shader_system) :: system
    real(real32) :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len()), time
    integer :: i, entry, runs

    call init_shader_system(system, 0)
    x = data_of(size(x), 61)
    w = data_of(size(w), 62)
    entry = 0
    do i = 1, 24
      y = huge(y)
      time = gpu_execute_with_dynamic_shader(system, x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, &
        cv%p(), cv%q())
      call check(time >= 0.0_real32 .and. agrees(cv, x, w, y), 'gpu_execute_with_dynamic_shader')
      if (i == 1) then
        entry = find_in_cache_system(system, 'conv2d')
        call check(entry == 1, 'its entry')
        runs = sum(system%cache(entry)%variants%test_runs)
        call check(merge(runs > 1, runs == 1, learnt_before), 'the tuning history of an earlier process')
      end if
    end do
    associate (learnt => system%cache(entry))
      call check(all(learnt%variants%test_runs >= 5) .and. .not. learnt%is_learning, 'each was run')
      call check(all(learnt%variants%performance_gflops > 0.0), 'each was timed')
      call check(learnt%best_variant_idx == maxloc(learnt%variants%performance_gflops, dim=1), 'the fastest is the best')
      call system%save_cache()
      learnt%variants%test_runs = 0
      call system%load_cache()
      call check(all(learnt%variants%test_runs >= 5), 'saved and loaded')
    end associate
    y = 7.0_real32
    time = gpu_execute_with_dynamic_shader(system, x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, &
      cv%p(), cv%q() + 1)
    call check(time < 0.0_real32 .and. all(abs(y - 7.0_real32) <= 0.0_real32), 'sizes that do not fit')
  end subroutine execution

  subroutine benchmark(cv)
    type(conv), intent(in) :: cv
    real(real32) :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len() + 3)
    integer :: stat

    x = data_of(size(x), 71)
    w = data_of(size(w), 72)
    y = 7.0_real32
    call gpu_benchmark_shader_variants(x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q(), &
      stat)
    call check(stat == 0 .and. agrees(cv, x, w, y(:cv%y_len())), 'the reference result')
    call check(all(abs(y(cv%y_len() + 1:) - 7.0_real32) <= 0.0_real32), 'nothing after the output changed')
    call gpu_benchmark_shader_variants(x, w, y(:5), cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), &
      cv%q(), stat)
    call check(stat == -1, 'output too short')
  end subroutine benchmark
end module shader_system_cases

program shader_system_test
  use, intrinsic :: iso_c_binding, only: c_associated, c_char, c_null_char
  use checks, only: check, finish, set_variable
  use shader_system_cases
  implicit none
  character(len=16) :: part
  integer :: i
  character(len=*), parameter :: PARTS(3) = [character(len=9) :: 'first', 'again', 'benchmark']

  call get_command_argument(1, part)
  select case (part)
  case ('first')
    ! gpu_execute_with_dynamic_shader creates its own context.
    call execution(SHAPES(2), .false.)
    call gpu_cleanup()
    call check(gpu_init(), 'gpu_init')
    call architecture()
    call generated_shaders()
    call more_groups_than_a_grid_holds()
    call shaders_for_rdna()
    call learning()
  case ('again')
    call execution(SHAPES(2), .true.)
  case ('benchmark')
    call benchmark(SHAPES(5))
  case ('')
    call set_variable('SPARKLE_CACHE_DIR', new_folder())
    do i = 1, size(PARTS)
      call run_itself(trim(PARTS(i)))
    end do
    call execute_command_line('rm -r "$SPARKLE_CACHE_DIR"')
  case default
    error stop 'the argument is not first, again or benchmark'
  end select
  call gpu_cleanup()
  call finish()

contains

  !> Creates a new folder and returns its path.
  function new_folder() result(folder)
    character(len=:), allocatable :: folder
    character(kind=c_char, len=*), parameter :: PATTERN = '/tmp/sparkle_shader_system_XXXXXX'
    character(kind=c_char), target :: name(len(PATTERN) + 1)

    name = transfer(PATTERN // c_null_char, name)
    call check(c_associated(mkdtemp(name)), 'a folder')
    allocate (character(len=len(PATTERN)) :: folder)
    folder = transfer(name(:len(PATTERN)), folder)
  end function new_folder

  !> Runs a part in its own process, which must succeed.
  subroutine run_itself(argument)
    character(len=*), intent(in) :: argument
    character(len=4096) :: path
    integer :: length, status

    call get_command_argument(0, path, length)
    status = -1
    call execute_command_line('"' // path(:length) // '" ' // argument, exitstat=status)
    call check(status == 0, argument)
  end subroutine run_itself
end program shader_system_test
