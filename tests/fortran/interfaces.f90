!> Uses every public name of the reference modules as the reference declares it: argument names, types and kinds, components and
!> constants. `fortran_programs` compares the lists below with the modules. Results are checked, most of them again in other
!> programs. Needs a GL device.
module interface_cases
  use, intrinsic :: iso_c_binding, only: c_int, c_intptr_t, c_loc, c_null_ptr, c_ptr, c_size_t
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use checks
  use cpu_conv2d_reference, only: conv2d_cpu_benchmark, conv2d_cpu_reference, conv2d_cpu_with_warmup
  use cpu_conv2d_simd, only: conv2d_cpu_simd
  use cpu_conv2d_simd_fused, only: conv2d_cpu_simd_fused
  use gemm_simd_optimized, only: gemm_simd_avx512
  use gpu_async_executor, only: gpu_async_conv2d, gpu_async_executor_cleanup, gpu_async_executor_init, gpu_async_state, &
    gpu_async_set_shape, gpu_get_next_buffer_set, gpu_is_work_complete, gpu_submit_work_async, gpu_wait_for_completion, &
    MAX_IN_FLIGHT
  use gpu_dynamic_execution, only: gpu_benchmark_shader_variants, gpu_execute_with_dynamic_shader
  use gpu_opengl_interface, only: gpu_cleanup, gpu_compile_custom_shader_fortran, gpu_compile_shaders, gpu_conv2d_params, &
    gpu_execute_conv2d_custom_fortran, gpu_execute_conv2d_ref, gpu_get_program_id, gpu_init
  use intelligent_device_juggling, only: device_profile, discover_and_profile_devices, execute_intelligent_conv2d, &
    juggling_strategy, juggling_system, optimize_workload_distribution, workload_partition
  use sparkle_conv2d, only: conv2d_auto, conv2d_cpu, conv2d_gpu, conv2d_select_implementation
  use sparkle_conv2d_v2, only: conv2d, conv2d_cleanup, conv2d_init, conv2d_set_profiling, conv2d_show_stats
  use sparkle_dynamic_shader_system, only: detect_gpu_architecture, find_in_cache_system, get_optimal_shader, &
    gpu_architecture, init_shader_system, shader_system, update_performance_system
  use sparkle_fortran_params, only: create_param_strategy, destroy_param_strategy, param_method, param_strategy, &
    PARAM_BUFFER_BINDING, PARAMS_BUFFER, PARAMS_INLINE, PARAMS_UNIFORM
  use sparkle_fortran_shaders, only: glsl_cleanup, glsl_context, glsl_init, sporkle_compile_and_dispatch
  use sparkle_fortran_shaders_v2, only: shader_cache_entry_v2, sporkle_benchmark_params, sporkle_compile_and_dispatch_v2, &
    sporkle_set_param_method
  use sparkle_gpu_benchmark, only: benchmark_kernel, gpu_benchmark_param_methods, kernel_profile, &
    measure_arithmetic_intensity, profile_kernel
  use sparkle_gpu_executor, only: cleanup_executor, create_buffer, delete_buffer, execute_kernel, gpu_executor, &
    initialize_executor, read_buffer, update_buffer
  use sparkle_shader_parser, only: generate_glsl, kernel_arg, parse_fortran_kernel, shader_kernel
  use sparkle_shader_parser_simple, only: parse_kernel_simple, print_kernel_info, shader_kernel_simple
  use sparkle_shader_parser_v2, only: generate_glsl_v2, kernel_arg_v2, kernel_param, parse_fortran_kernel_v2, &
    shader_kernel_v2
  use sparkle_glsl_generator, only: convolution_config, generate_conv_glsl_shader
  use sparkle_gpu_dispatch, only: create_gpu_kernel, execute_conv2d_gpu, gpu_device, gpu_free, gpu_kernel, gpu_malloc, &
    gpu_memcpy, gpu_memory, gpu_synchronize, GPU_TO_HOST, HOST_TO_GPU, init_gpu_device, launch_gpu_kernel
  use sparkle_gpu_kernels, only: get_complex_shader, get_gemm_shader, get_reduction_shader, get_saxpy_shader, &
    get_vector_add_shader
  use sparkle_rdna_shader_generator, only: detect_rdna_arch, generate_rdna_conv_shader, rdna_arch, rdna_config
  use universal_memory_optimization, only: arithmetic_intensity, cache_optimal_tile_size, detect_memory_params, &
    fused_conv2d_cpu, gemm_universal_memory, im2col_cache_optimal, memory_params, optimize_memory_layout
  implicit none
  public

  integer, parameter :: N = 2, C = 3, H = 7, W = 9, K = 4, KERNEL = 3, STRIDE = 2, PAD = 1, H_OUT = 4, W_OUT = 5
  type(conv), parameter :: CV = conv(n=N, c=C, h=H, w=W, k=K, r=KERNEL, s=KERNEL, stride_h=STRIDE, stride_w=STRIDE, &
    pad_h=PAD, pad_w=PAD)
  real(real32), target :: input(N * C * H * W), weights(K * C * KERNEL**2), output(N * K * H_OUT * W_OUT)

contains

  !> Checks the output, then resets it for the next call.
  subroutine check_output(what)
    character(len=*), intent(in) :: what

    call check(agrees(CV, input, weights, output), what)
    output = huge(output)
  end subroutine check_output

  !> A pointer can only point to a component of exactly its type and kind.
  subroutine kinds_of_components()
    type(gpu_device), target :: device
    type(gpu_kernel), target :: kernel
    type(gpu_memory), target :: memory
    type(gpu_async_state), target :: state
    type(gpu_conv2d_params), target :: params
    type(memory_params), target :: machine
    type(gpu_architecture), target :: arch
    type(shader_system), target :: shaders
    type(convolution_config), target :: config
    type(rdna_config), target :: rdna
    type(device_profile), target :: profile
    type(workload_partition), target :: part
    type(juggling_strategy), target :: strategy
    real, pointer :: a_real
    real(real32), pointer :: a_real32
    real(real64), pointer :: a_real64
    integer, pointer :: an_integer
    integer(int64), pointer :: an_int64
    integer(c_int), pointer :: a_c_int
    logical, pointer :: a_logical
    type(c_ptr), pointer :: a_c_ptr
    character(len=:), pointer :: a_text
    character(len=:), allocatable :: moved

    an_integer => device%device_id; a_logical => device%initialized; a_text => device%name
    an_int64 => device%memory_total; an_int64 => device%memory_free; an_integer => device%compute_units
    a_real32 => device%clock_mhz; a_logical => device%opengl_ready
    call check(len(device%name) == 256 .and. abs(device%clock_mhz) <= 0.0_real32, 'gpu_device')

    kernel%name = 'a name of any length'
    call move_alloc(kernel%name, moved)
    call check(moved == 'a name of any length' .and. .not. allocated(kernel%name), 'gpu_kernel%name')
    kernel%source = 'text'
    call move_alloc(kernel%source, moved)
    an_integer => kernel%work_group_size; a_logical => kernel%compiled
    call check(kernel%work_group_size == 256 .and. .not. kernel%compiled, 'gpu_kernel')

    an_int64 => memory%size_bytes; an_int64 => memory%gpu_ptr; a_logical => memory%allocated
    call check(memory%size_bytes == 0 .and. memory%gpu_ptr == 0 .and. .not. memory%allocated, 'gpu_memory')

    an_integer => state%buffer_sets(1)%input_buffer; an_integer => state%buffer_sets(2)%output_buffer
    a_c_ptr => state%buffer_sets(3)%fence; a_logical => state%buffer_sets(1)%in_use
    an_int64 => state%buffer_sets(1)%submit_time; an_int64 => state%buffer_sets(1)%complete_time
    an_integer => state%current_set; an_integer => state%weight_buffer; an_integer => state%compute_program
    an_int64 => state%total_gpu_time; an_int64 => state%total_idle_time; an_integer => state%completed_operations
    an_integer => state%clock_rate; a_logical => state%initialized; an_integer => state%max_workgroup_size
    call check(size(state%buffer_sets) == MAX_IN_FLIGHT .and. MAX_IN_FLIGHT == 3, 'three sets')
    call check(state%current_set == 1 .and. state%max_workgroup_size == 256 .and. state%clock_rate == 0, 'gpu_async_state')

    a_text => profile%device_name; a_text => profile%device_type; a_real32 => profile%peak_gflops
    a_real32 => profile%memory_bandwidth_gb; a_real32 => profile%cache_size_mb; an_integer => profile%cores
    a_logical => profile%available; a_real32 => profile%conv2d_gflops; a_real32 => profile%gemm_gflops
    a_real32 => profile%memory_copy_gb; an_integer => profile%optimal_tile_size; an_integer => profile%optimal_batch_size
    a_real32 => profile%efficiency_ratio
    call check(len(profile%device_name) == 64 .and. len(profile%device_type) == 32 .and. profile%optimal_tile_size == 64 &
      .and. profile%optimal_batch_size == 1 .and. .not. profile%available, 'device_profile')
    an_integer => part%device_count; an_integer => part%cpu_work_percent; an_integer => part%gpu_work_percent
    an_integer => part%cpu_batch_size; an_integer => part%gpu_batch_size; a_logical => part%use_cpu
    a_logical => part%use_gpu; a_real32 => part%predicted_time_ms; a_real32 => part%predicted_gflops
    call check(part%cpu_batch_size == 1 .and. part%gpu_batch_size == 1 .and. .not. part%use_gpu, 'workload_partition')
    strategy%cpu_profile = profile
    strategy%gpu_profile = profile
    strategy%current_partition = part
    an_integer => strategy%total_runs; a_real32 => strategy%average_cpu_gflops; a_real32 => strategy%average_gpu_gflops
    a_real32 => strategy%best_combined_gflops; a_logical => strategy%learning_mode; an_integer => strategy%exploration_runs
    call check(strategy%learning_mode .and. strategy%exploration_runs == 10, 'juggling_strategy')

    params = gpu_conv2d_params(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    a_c_int => params%W_out
    call check(all([params%N, params%H, params%W, params%C, params%K, params%kernel_size, params%stride, params%pad, &
      params%H_out, params%W_out] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), 'gpu_conv2d_params')
    call check(storage_size(params) == 320, 'forty bytes')

    an_integer => machine%l1_cache_kb; an_integer => machine%l2_cache_kb; an_integer => machine%l3_cache_kb
    an_integer => machine%cache_line_bytes; a_real64 => machine%peak_bandwidth_gb; a_real64 => machine%effective_bandwidth_gb
    an_integer => machine%num_cores; an_integer => machine%num_threads; an_integer => machine%tile_m
    an_integer => machine%tile_n; an_integer => machine%tile_k; a_logical => machine%use_hugepages
    a_logical => machine%use_numa_opt

    a_text => arch%vendor; a_text => arch%arch_name; an_integer => arch%wave_size; an_integer => arch%compute_units
    an_integer => arch%max_workgroup_size; an_integer => arch%local_memory_size; a_logical => arch%has_dual_issue
    a_logical => arch%has_tensor_cores; an_integer => arch%cache_line_size; a_real => arch%measured_bandwidth_gbps
    a_real => arch%measured_tflops
    call check(len(arch%vendor) == 32 .and. len(arch%arch_name) == 32, 'gpu_architecture')

    call check(.not. allocated(shaders%cache), 'no cache yet')
    an_integer => shaders%cache_size; an_integer => shaders%current_arch%wave_size; a_logical => shaders%initialized
    a_logical => shaders%auto_tune; a_real => shaders%exploration_rate; a_text => shaders%cache_dir
    call check(shaders%auto_tune .and. abs(shaders%exploration_rate - 0.1) < 1.0e-6, 'shader_system')
    call check(len(shaders%cache_dir) == 256, 'its folder')

    an_integer => config%input_height; an_integer => config%input_width; an_integer => config%input_channels
    an_integer => config%kernel_height; an_integer => config%kernel_width; an_integer => config%output_height
    an_integer => config%output_width; an_integer => config%output_channels; an_integer => config%stride_y
    an_integer => config%stride_x; an_integer => config%pad_y; an_integer => config%pad_x; an_integer => config%tile_size
    a_logical => config%use_fp16

    an_integer => rdna%arch%generation; an_integer => rdna%arch%wave_size; an_integer => rdna%arch%compute_units
    an_integer => rdna%arch%dual_issue; an_integer => rdna%arch%lds_size; an_integer => rdna%arch%vgpr_per_simd
    an_integer => rdna%workgroup_size; an_integer => rdna%waves_per_cu; a_logical => rdna%use_lds
    a_logical => rdna%use_dual_issue; an_integer => rdna%vgpr_usage
    call check(associated(a_real) .and. associated(a_real32) .and. associated(a_real64) .and. associated(an_integer) .and. &
      associated(an_int64) .and. associated(a_c_int) .and. associated(a_logical) .and. associated(a_c_ptr) .and. &
      associated(a_text), 'one of each')
  end subroutine kinds_of_components

  subroutine on_the_cpu()
    real(real32) :: time
    real(real32) :: a(12), b(20), product(15), matrix(C * KERNEL**2 * N * H_OUT * W_OUT)
    type(memory_params) :: machine

    time = conv2d_cpu_reference(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, kernel_size=KERNEL, &
      stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('conv2d_cpu_reference')
    time = conv2d_cpu_benchmark(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, kernel_size=KERNEL, &
      stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT, iterations=2)
    call check_output('conv2d_cpu_benchmark')
    time = conv2d_cpu_with_warmup(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, &
      kernel_size=KERNEL, stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('conv2d_cpu_with_warmup')
    time = conv2d_cpu_simd(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, kernel_size=KERNEL, &
      stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('conv2d_cpu_simd')
    time = conv2d_cpu_simd_fused(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, &
      kernel_size=KERNEL, stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('conv2d_cpu_simd_fused')
    time = fused_conv2d_cpu(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, kernel_size=KERNEL, &
      stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('fused_conv2d_cpu')
    call check(time >= 0.0_real32, 'a time')

    a = data_of(12, 5)
    b = data_of(20, 6)
    product = 1.0_real32
    call gemm_simd_avx512(A=a, B=b, C=product, m=3, n=5, k=4, alpha=2.0_real32, beta=1.0_real32)
    call check(all(abs(product - 1.0_real64 - 2.0_real64 * [matmul(reshape(real(a, real64), [3, 4]), &
      reshape(real(b, real64), [4, 5]))]) < 1.0e-5_real64), 'gemm_simd_avx512')
    product = 1.0_real32
    call gemm_universal_memory(A=a, B=b, C=product, m=3, n=5, k=4, alpha=1.0_real32, beta=0.0_real32)
    call check(all(abs(product - [matmul(reshape(real(a, real64), [3, 4]), reshape(real(b, real64), [4, 5]))]) &
      < 1.0e-5_real64), 'gemm_universal_memory')
    call optimize_memory_layout(data=a, m=3, n=4, optimized_data=b, layout='row_major')
    call check(same_bits(a, b(:12)), 'optimize_memory_layout')
    call im2col_cache_optimal(input=input, output=matrix, N=N, C=C, H=H, W=W, kernel_size=KERNEL, stride=STRIDE, pad=PAD, &
      H_out=H_OUT, W_out=W_OUT)
    ! The middle tap reads every other pixel of the image.
    call check(same_bits(matrix(4 * C * N * H_OUT * W_OUT + 1:4 * C * N * H_OUT * W_OUT + W_OUT), input(1:W:2)), 'im2col')
    machine = detect_memory_params()
    call check(machine%tile_m == cache_optimal_tile_size(cache_kb=machine%l1_cache_kb, element_bytes=4), 'tiles')
    call check(abs(arithmetic_intensity(flops=10_int64, bytes_accessed=4_int64) - 2.5_real64) <= 0.0_real64, 'intensity')
  end subroutine on_the_cpu

  subroutine production()
    type(workload_partition) :: partition

    call conv2d_select_implementation(device='cpu', impl_name='reference')
    call conv2d_cpu(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, kernel_size=KERNEL, &
      stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('conv2d_cpu')
    call conv2d_gpu(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, kernel_size=KERNEL, &
      stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('conv2d_gpu')
    call conv2d_auto(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, kernel_size=KERNEL, &
      stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('conv2d_auto')
    call conv2d_init()
    call conv2d_set_profiling(enabled=.false.)
    call conv2d(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, kernel_size=KERNEL, stride=STRIDE, &
      pad=PAD, H_out=H_OUT, W_out=W_OUT, device_hint='gpu', use_async=.true.)
    call check_output('conv2d of v2')
    call conv2d_show_stats()
    call conv2d_cleanup()
    call discover_and_profile_devices(strategy=juggling_system)
    partition = optimize_workload_distribution(strategy=juggling_system, total_flops=1000_int64, workload_type='conv2d')
    call check(partition%cpu_work_percent == 100, 'optimize_workload_distribution')
    call check(execute_intelligent_conv2d(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, &
      kernel_size=KERNEL, stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT) > 0.0_real32, 'execute_intelligent_conv2d')
    call check_output('execute_intelligent_conv2d')
  end subroutine production

  subroutine on_the_gpu()
    character(len=:), allocatable :: source
    real(real32) :: time
    integer :: program_id

    call check(gpu_init() .and. gpu_compile_shaders(), 'gpu_init')
    time = gpu_execute_conv2d_ref(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, &
      kernel_size=KERNEL, stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('gpu_execute_conv2d_ref')
    time = execute_conv2d_gpu(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, kernel_size=KERNEL, &
      stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('execute_conv2d_gpu')
    source = generate_conv_glsl_shader(config=the_config())
    program_id = gpu_compile_custom_shader_fortran(shader_source=source)
    call check(program_id > 0 .and. program_id == gpu_get_program_id(), 'gpu_compile_custom_shader_fortran')
    time = gpu_execute_conv2d_custom_fortran(program_id=program_id, input=input, weights=weights, output=output, N=N, C=C, &
      H=H, W=W, K=K, kernel_size=KERNEL, stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('gpu_execute_conv2d_custom_fortran')
    call check(time >= 0.0_real32, 'a time')
    call gpu_cleanup()
    call check(gpu_get_program_id() == 0, 'gpu_cleanup')
  end subroutine on_the_gpu

  type(convolution_config) function the_config()
    the_config = convolution_config(input_height=H, input_width=W, input_channels=C, kernel_height=KERNEL, &
      kernel_width=KERNEL, output_height=H_OUT, output_width=W_OUT, output_channels=K, stride_y=STRIDE, stride_x=STRIDE, &
      pad_y=PAD, pad_x=PAD, tile_size=8, use_fp16=.false.)
  end function the_config

  subroutine asynchronous()
    type(gpu_async_state) :: state
    type(gpu_memory) :: memory
    integer :: set

    call check(gpu_init(), 'gpu_init')
    memory = gpu_malloc(size_bytes=4_int64 * size(weights))
    call gpu_memcpy(dst=memory, src=c_loc(weights), size_bytes=memory%size_bytes, direction=HOST_TO_GPU)
    call gpu_async_executor_init(state=state, compute_program=gpu_get_program_id(), weight_buffer=int(memory%gpu_ptr))
    call gpu_async_conv2d(state=state, input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, &
      kernel_size=KERNEL, stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('gpu_async_conv2d')
    call gpu_async_set_shape(state, N, C, H, W, K, KERNEL, STRIDE, PAD, H_OUT, W_OUT)
    set = gpu_get_next_buffer_set(state=state)
    call gpu_submit_work_async(state=state, set_id=set, input_data=input, output_data=output, &
      input_size=4_int64 * size(input), output_size=4_int64 * size(output), grid_x=1, grid_y=1, grid_z=N * K)
    ! The parentheses make the state an expression, which only an intent(in) argument accepts.
    do while (.not. gpu_is_work_complete(state=(state), set_id=set))
    end do
    call check_output('gpu_submit_work_async, polled')
    call gpu_wait_for_completion(state=state, set_id=set)
    call gpu_async_executor_cleanup(state=state)
    call gpu_free(mem=memory)
  end subroutine asynchronous

  subroutine dispatch()
    type(gpu_device) :: device
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: x, y, z
    real(real32), target :: sum(size(weights))

    device = init_gpu_device()
    call check(device%initialized .and. device%opengl_ready .and. device%name /= '', 'init_gpu_device')
    kernel = create_gpu_kernel(name='a sum', kernel_type='vector_add')
    call check(kernel%compiled .and. kernel%source == get_vector_add_shader(), 'create_gpu_kernel')
    x = gpu_malloc(size_bytes=4_int64 * size(weights))
    y = gpu_malloc(size_bytes=4_int64 * size(weights))
    z = gpu_malloc(size_bytes=4_int64 * size(weights))
    call gpu_memcpy(dst=x, src=c_loc(weights), size_bytes=x%size_bytes, direction=HOST_TO_GPU)
    call gpu_memcpy(dst=y, src=c_loc(weights), size_bytes=y%size_bytes, direction=HOST_TO_GPU)
    call launch_gpu_kernel(kernel=kernel, args=[x, y, z], global_size=[size(weights)], local_size=[256])
    call gpu_synchronize()
    call gpu_memcpy(dst=z, src=c_loc(sum), size_bytes=z%size_bytes, direction=GPU_TO_HOST)
    call check(same_bits(sum, weights + weights), 'launch_gpu_kernel')
    call gpu_free(mem=x)
    call gpu_free(mem=y)
    call gpu_free(mem=z)
    call check(all([index(get_vector_add_shader(), 'x[i] + y[i]'), index(get_saxpy_shader(), 'alpha'), &
      index(get_gemm_shader(), 'uniform uint K'), index(get_reduction_shader(), 'shared'), &
      index(get_complex_shader(), 'sqrt')] > 0), 'the shader sources')
  end subroutine dispatch

  subroutine shaders()
    type(shader_system) :: system
    type(gpu_architecture) :: arch
    type(rdna_arch) :: rdna
    type(rdna_config) :: config
    character(len=:), allocatable :: source
    real(real32) :: time
    integer :: index_of

    arch = detect_gpu_architecture(device_id=0)
    rdna = detect_rdna_arch(device_id=0)
    call check(arch%wave_size == rdna%wave_size, 'detect_gpu_architecture and detect_rdna_arch')
    config = rdna_config(arch=rdna, workgroup_size=64, waves_per_cu=4, use_lds=.false., use_dual_issue=.false., vgpr_usage=64)
    source = generate_rdna_conv_shader(config=config, conv_params=the_config())
    call check(index(source, '#version') == 1, 'generate_rdna_conv_shader')
    call init_shader_system(system=system, device_id=0)
    source = get_optimal_shader(system=system, kernel_type='conv2d', params=the_config())
    call check(index(source, '#version') == 1, 'get_optimal_shader')
    call update_performance_system(system=system, kernel_type='conv2d', variant_id='current_variant', execution_time_ms=2.0, &
      problem_size=1000)
    index_of = find_in_cache_system(system=system, kernel_type='conv2d')
    call check(sum(system%cache(index_of)%variants%test_runs) == 1, 'update_performance_system')
    ! Also as type-bound procedures.
    call system%update_performance('conv2d', 'current_variant', 2.0, 1000)
    call check(system%find_in_cache('conv2d') == index_of .and. system%cache(index_of)%total_executions == 2, 'type-bound')
    time = gpu_execute_with_dynamic_shader(shader_sys=system, input=input, weights=weights, output=output, N=N, C=C, H=H, &
      W=W, K=K, kernel_size=KERNEL, stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('gpu_execute_with_dynamic_shader')
    call check(time >= 0.0_real32, 'a time')
    call gpu_benchmark_shader_variants(input=input, weights=weights, output=output, N=N, C=C, H=H, W=W, K=K, &
      kernel_size=KERNEL, stride=STRIDE, pad=PAD, H_out=H_OUT, W_out=W_OUT)
    call check_output('gpu_benchmark_shader_variants')
    call gpu_cleanup()
  end subroutine shaders
  !> The same for the modules of kernels.
  subroutine kinds_of_kernel_components()
    type(shader_kernel), target :: first
    type(shader_kernel_v2), target :: second
    type(shader_kernel_simple), target :: simple
    type(kernel_arg), target :: arg
    type(kernel_arg_v2), target :: arg_v2
    type(kernel_param), target :: param
    type(param_method), target :: method
    type(param_strategy), target :: strategy
    type(glsl_context), target :: ctx
    type(shader_cache_entry_v2), target :: entry
    type(gpu_executor), target :: exec
    type(kernel_profile), target :: profile
    real, pointer :: a_real
    real(real64), pointer :: a_real64
    integer, pointer :: an_integer
    integer(c_int), pointer :: a_c_int
    logical, pointer :: a_logical
    type(c_ptr), pointer :: a_c_ptr
    character(len=16), pointer :: a_text16
    character(len=32), pointer :: a_text32
    character(len=64), pointer :: a_text64
    character(len=256), pointer :: a_text256
    character(len=4096), pointer :: a_text4096

    a_text64 => arg%name; a_text32 => arg%type_str; a_text16 => arg%intent; an_integer => arg%binding_slot
    call check(arg%name == '' .and. arg%type_str == '' .and. arg%intent == '' .and. arg%binding_slot == -1, 'kernel_arg')
    a_text64 => arg_v2%name; a_text32 => arg_v2%type_str; a_text16 => arg_v2%intent; an_integer => arg_v2%binding_slot
    a_logical => arg_v2%is_scalar
    call check(arg_v2%binding_slot == -1 .and. .not. arg_v2%is_scalar, 'kernel_arg_v2')
    a_text64 => param%name; a_text32 => param%type_str; an_integer => param%param_index
    call check(param%param_index == -1, 'kernel_param')
    a_text256 => first%name; a_text4096 => first%body; an_integer => first%local_size_x; an_integer => first%local_size_y
    an_integer => first%local_size_z; an_integer => first%num_inputs; an_integer => first%num_outputs
    call check(first%local_size_x == 64 .and. first%local_size_y == 1 .and. first%local_size_z == 1 .and. &
      .not. allocated(first%args), 'shader_kernel')
    a_text256 => second%name; a_text4096 => second%body; an_integer => second%local_size_x
    an_integer => second%local_size_y; an_integer => second%local_size_z; an_integer => second%num_inputs
    an_integer => second%num_outputs; an_integer => second%param_method
    call check(second%local_size_x == 64 .and. second%param_method == PARAMS_BUFFER .and. .not. allocated(second%args) .and. &
      .not. allocated(second%params), 'shader_kernel_v2')
    a_text256 => simple%name; a_text4096 => simple%body; an_integer => simple%num_args
    call check(simple%num_args == 0 .and. .not. allocated(simple%arg_names) .and. .not. allocated(simple%is_scalar), &
      'shader_kernel_simple')
    an_integer => method%method; a_real => method%setup_time_ms; a_real => method%dispatch_time_ms
    a_logical => method%is_supported; an_integer => strategy%preferred_method; a_logical => strategy%benchmarked
    call check(size(strategy%methods) == 3, 'param_strategy')
    a_c_ptr => ctx%egl_display; a_c_ptr => ctx%egl_context; a_logical => ctx%initialized
    call check(.not. ctx%initialized, 'glsl_context')
    a_text256 => entry%kernel_name; an_integer => entry%program; an_integer => entry%param_method
    an_integer => entry%kernel_info%param_method; a_logical => entry%is_valid
    call check(.not. entry%is_valid, 'shader_cache_entry_v2')
    a_c_int => exec%program; a_c_int => exec%shader; a_c_int => exec%param_buffer; an_integer => exec%num_buffers
    a_logical => exec%initialized
    call check(exec%program == 0 .and. .not. exec%initialized .and. .not. allocated(exec%buffers) .and. &
      .not. allocated(exec%buffer_sizes), 'gpu_executor')
    a_real64 => profile%time_ms; a_real64 => profile%gflops; a_real64 => profile%bandwidth_gb_s
    a_real64 => profile%arithmetic_intensity; an_integer => profile%optimal_local_size
    an_integer => profile%optimal_param_method
    call check(profile%optimal_local_size == 64 .and. profile%optimal_param_method == PARAMS_BUFFER, 'kernel_profile')
    call check(associated(a_real) .and. associated(a_real64) .and. associated(an_integer) .and. associated(a_c_int) .and. &
      associated(a_logical) .and. associated(a_c_ptr) .and. associated(a_text16) .and. associated(a_text32) .and. &
      associated(a_text64) .and. associated(a_text256) .and. associated(a_text4096), 'one of each')
  end subroutine kinds_of_kernel_components

  !> vector_add through every procedure, in a context of OpenGL ES. Run it in the repository's folder.
  subroutine kernels()
    character(len=*), parameter :: FILE = 'tests/kernels/reference/kernels.f90', NAME = 'vector_add'
    real(real32), target :: x(100), y(100), found(100)
    type(glsl_context) :: ctx
    type(gpu_executor) :: exec
    type(shader_kernel) :: first
    type(shader_kernel_v2) :: kernel
    type(kernel_profile) :: profile
    type(param_strategy) :: strategy
    integer(c_int) :: names(2)
    type(c_ptr) :: buffers(2)
    integer :: status, round

    status = glsl_init(ctx=ctx)
    call check(status == 0, 'glsl_init')
    strategy = create_param_strategy()
    call destroy_param_strategy(strategy=strategy)
    call check(strategy%preferred_method == PARAMS_BUFFER .and. PARAM_BUFFER_BINDING == 15 .and. &
      PARAMS_UNIFORM + PARAMS_INLINE == 4, 'create_param_strategy')
    first = parse_fortran_kernel(filename=FILE, kernel_name=NAME)
    kernel = parse_fortran_kernel_v2(filename=FILE, kernel_name=NAME, param_method=PARAMS_UNIFORM)
    call check(generate_glsl(kernel=first) == generate_glsl_v2(kernel=parse_fortran_kernel_v2(FILE, NAME)), 'GLSL')
    call print_kernel_info(kernel=parse_kernel_simple(filename=FILE, kernel_name=NAME))
    x = data_of(100, 1)
    y = data_of(100, 2)
    call initialize_executor(exec=exec, kernel=kernel)
    names(1) = create_buffer(exec=exec, size_bytes=400_c_size_t, binding=0)
    names(2) = create_buffer(exec=exec, size_bytes=400_c_size_t, binding=1)
    buffers = [(transfer(int(names(round), c_intptr_t), c_null_ptr), round=1, 2)]
    call update_buffer(buffer_id=names(1), data=c_loc(x), size_bytes=400_c_size_t)
    do round = 1, 3
      call update_buffer(buffer_id=names(2), data=c_loc(y), size_bytes=400_c_size_t)
      status = 0
      select case (round)
      case (1)
        call execute_kernel(exec=exec, kernel=kernel, work_size=100, params=[real(real32) ::])
      case (2)
        call sporkle_compile_and_dispatch(kernel_file=FILE, kernel_name=NAME, global_size=100, buffers=buffers, status=status)
      case (3)
        call sporkle_set_param_method(method=PARAMS_INLINE)
        call sporkle_compile_and_dispatch_v2(kernel_file=FILE, kernel_name=NAME, global_size=100, buffers=buffers, &
          params=[character(len=4) ::], param_values=[integer ::], status=status)
      end select
      call read_buffer(buffer_id=names(2), data=c_loc(found), size_bytes=400_c_size_t)
      call check(status == 0 .and. same_bits(found, x + y), 'vector_add')
    end do
    call sporkle_benchmark_params(kernel_file=FILE, kernel_name=NAME)
    call check(benchmark_kernel(exec=exec, kernel=kernel, work_size=100, params=[real(real32) ::], iterations=3) > 0, &
      'benchmark_kernel')
    status = gpu_benchmark_param_methods(kernel=kernel, work_size=100, params=[real(real32) ::])
    call check(status == kernel%param_method, 'gpu_benchmark_param_methods')
    profile = profile_kernel(kernel=kernel, work_size=100, params=[real(real32) ::])
    call check(profile%time_ms > 0 .and. abs(profile%arithmetic_intensity - &
      measure_arithmetic_intensity(kernel=kernel, work_size=100)) <= 0, 'profile_kernel')
    call delete_buffer(buffer_id=names(1))
    call cleanup_executor(exec=exec)
    call glsl_cleanup(ctx=ctx)
  end subroutine kernels
end module interface_cases

program interfaces
  use interface_cases
  implicit none

  ! Ignores the tuning history of other runs.
  call set_variable('SPARKLE_CACHE_DIR', 'off')
  input = data_of(size(input), 1)
  weights = data_of(size(weights), 2)
  output = huge(output)
  call kinds_of_components()
  call kinds_of_kernel_components()
  call kernels()
  call on_the_cpu()
  call production()
  call on_the_gpu()
  call asynchronous()
  call dispatch()
  call shaders()
  call finish()
end program interfaces
