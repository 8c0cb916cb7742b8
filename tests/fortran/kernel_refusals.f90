!> What the dispatchers, the executor and the measurements of kernels refuse: they report it, print nothing and leave buffers
!> as they were. Then what they measure, and the bounded number of programs that they keep. Run it in the repository's
!> folder. Needs a GL device.
module refusal_cases
  use, intrinsic :: iso_c_binding, only: c_associated, c_char, c_int, c_int32_t, c_intptr_t, c_loc, c_null_char, &
    c_null_ptr, c_ptr, c_size_t
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use checks
  use gpu_opengl_interface, only: gpu_cleanup, gpu_init
  use sparkle_current_gl, only: binding_15_suffices, context_is_es
  use sparkle_fortran_params
  use sparkle_fortran_shaders
  use sparkle_fortran_shaders_v2
  use sparkle_gl, only: gl_forget_errors, gl_had_error, gl_integer, glIsProgram
  use sparkle_gpu_benchmark
  use sparkle_gpu_executor
  use sparkle_shader_parser_v2
  implicit none
  public

  character(len=*), parameter :: FOLDER = 'tests/kernels/reference/', FILE = FOLDER // 'kernels.f90'
  integer, parameter :: N = 200
  integer(c_int32_t), parameter :: CURRENT_PROGRAM = int(z'8B8D', c_int32_t)
  type(gpu_executor) :: exec
  real(real32), target :: x(N), y(N)
  type(c_ptr) :: buffers(2)

  interface
    function c_mkdtemp(template) bind(C, name="mkdtemp") result(path)
      import :: c_char, c_ptr
      character(kind=c_char), intent(inout) :: template(*)
      type(c_ptr) :: path
    end function c_mkdtemp

    function c_rmdir(path) bind(C, name="rmdir") result(status)
      import :: c_char, c_int
      character(kind=c_char), intent(in) :: path(*)
      integer(c_int) :: status
    end function c_rmdir
  end interface

contains

  subroutine prepare()
    integer :: i

    x = anint(9 * data_of(N, 1))
    y = anint(9 * data_of(N, 2))
    do i = 1, 2
      buffers(i) = handle(create_buffer(exec, 4_c_size_t * N, i - 1))
    end do
    call refresh()
  end subroutine prepare

  type(c_ptr) function handle(name)
    integer(c_int), intent(in) :: name

    handle = transfer(int(name, c_intptr_t), c_null_ptr)
  end function handle

  subroutine refresh()
    call update_buffer(exec%buffers(1)%id, c_loc(x), 4_c_size_t * N)
    call update_buffer(exec%buffers(2)%id, c_loc(y), 4_c_size_t * N)
  end subroutine refresh

  subroutine check_buffers(expected, what)
    real(real32), intent(in) :: expected(:)
    character(len=*), intent(in) :: what
    real(real32), target :: found(N)
    integer :: stat

    call read_buffer(exec%buffers(1)%id, c_loc(found), 4_c_size_t * N, stat)
    call check(stat == 0 .and. same_bits(found, x), what // ': x')
    call read_buffer(exec%buffers(2)%id, c_loc(found), 4_c_size_t * N, stat)
    call check(stat == 0 .and. same_bits(found, expected), what // ': y')
    call check(.not. gl_had_error(), what // ': GL errors')
  end subroutine check_buffers

  !> A dispatch that both dispatchers must refuse.
  subroutine refused(file_name, name, size, handles, what)
    character(len=*), intent(in) :: file_name, name, what
    integer, intent(in) :: size
    type(c_ptr), intent(in) :: handles(:)
    integer :: status, method

    status = 7
    call sporkle_compile_and_dispatch(file_name, name, size, handles, status)
    call check(status == -1, what)
    do method = 1, 3
      call sporkle_set_param_method(method)
      status = 7
      call sporkle_compile_and_dispatch_v2(file_name, name, size, handles, status=status)
      call check(status == -1, what // ', v2')
    end do
    call check_buffers(y, what)
  end subroutine refused

  subroutine dispatches()
    integer(c_int) :: short
    character(len=1), parameter :: A(1) = ['a']
    integer :: status

    call refused('nowhere.f90', 'vector_add', N, buffers, 'a missing file')
    call refused(FOLDER, 'vector_add', N, buffers, 'a folder')
    call refused(FILE, 'vector_sub', N, buffers, 'an unknown kernel')
    call refused(FILE, '', N, buffers, 'no name')
    call refused('README.md', 'vector_add', N, buffers, 'no kernels')
    call refused(FILE, 'vector_add', N, buffers(:1), 'too few buffers')
    call refused(FILE, 'vector_add', N, [buffers(1), c_null_ptr], 'a null buffer')
    call refused(FILE, 'vector_add', N, [buffers(1), handle(2000000000_c_int)], 'a buffer that does not exist')
    call refused(FILE, 'vector_add', N + 1, buffers, 'buffers that are too short')
    call refused(FILE, 'vector_add', -1, buffers, 'a negative size')
    call refused('tests/kernels/language/tiled_sgemm.f90', 'sgemm_tiled', N, buffers, 'two dimensions')
    call refused('tests/kernels/language/reductions.f90', 'dot', N, buffers, 'a reduction')
    call refused(FILE, 'saxpy', N, buffers, 'a scalar without a value')

    call sporkle_set_param_method(0)
    call sporkle_set_param_method(4)
    call bad_values([character(len=1) :: 'b'], [3], 'an unknown scalar')
    call bad_values([character(len=1) :: 'a', 'a'], [3, 3], 'a scalar twice')
    call bad_values([character(len=1) :: 'i'], [3], 'only the index')
    call bad_values(A, [3, 4], 'more values than names')
    call bad_values(A, [integer ::], 'fewer values than names')
    status = 7
    call sporkle_compile_and_dispatch_v2(FILE, 'saxpy', N, buffers, param_values=[1, 2, 3], status=status)
    call check(status == -1, 'too many values')
    call check_buffers(y, 'too many values')
    call sporkle_compile_and_dispatch(FILE, 'vector_add', 0, buffers, status)
    call check(status == 0, 'no points')
    call check_buffers(y, 'no points')

    ! Shorter buffers serve fewer points, and more buffers than needed are ignored.
    short = create_buffer(exec, 4_c_size_t, 5)
    call sporkle_compile_and_dispatch(FILE, 'vector_add', N - 50, [buffers, handle(short)], status)
    call check(status == 0, 'fewer points')
    call check_buffers([x(:N - 50) + y(:N - 50), y(N - 49:)], 'fewer points')
    call refresh()
  end subroutine dispatches

  subroutine bad_values(names, values, what)
    character(len=*), intent(in) :: names(:), what
    integer, intent(in) :: values(:)
    integer :: status, method

    do method = 1, 3
      call sporkle_set_param_method(method)
      status = 7
      call sporkle_compile_and_dispatch_v2(FILE, 'saxpy', N, buffers, names, values, status)
      call check(status == -1, what)
      call check_buffers(y, what)
    end do
  end subroutine bad_values

  subroutine executors()
    type(shader_kernel_v2) :: kernel, nothing
    type(gpu_executor) :: other
    real(real32), target :: found(N)
    real(real32), parameter :: NONE(0) = [real(real32) ::]
    integer(c_int) :: name
    integer :: stat, method

    nothing = parse_fortran_kernel_v2('nowhere.f90', 'saxpy')
    call initialize_executor(other, nothing, stat)
    call check(stat == -1 .and. .not. other%initialized .and. other%program == 0, 'no kernel')
    do method = 1, 3
      kernel = parse_fortran_kernel_v2(FILE, 'saxpy', method)
      call execute_kernel(other, kernel, N, [2.0_real32], stat)
      call check(stat == -1, 'an executor that is not initialised')
      call initialize_executor(other, kernel, stat)
      call check(stat == 0, 'a kernel')
      call execute_kernel(other, kernel, N, [2.0_real32], stat)
      call check(stat == -1, 'no buffers')
      call cleanup_executor(other)

      call initialize_executor(exec, kernel, stat)
      call execute_kernel(exec, kernel, N + 1, [2.0_real32], stat)
      call check(stat == -1, 'too many points')
      call execute_kernel(exec, kernel, -1, [2.0_real32], stat)
      call check(stat == -1, 'fewer than no points')
      call execute_kernel(exec, kernel, N, NONE, stat)
      call check(stat == -1, 'no value')
      call execute_kernel(exec, kernel, N, [1.0_real32, 2.0_real32, 3.0_real32], stat)
      call check(stat == -1, 'too many values')
      kernel%local_size_x = 0
      call execute_kernel(exec, kernel, N, [2.0_real32], stat)
      call check(stat == -1, 'a local size of nothing')
      call check_buffers(y, 'nothing ran')
    end do
    ! Fractions are no values of an integer, and reach a real number as they are.
    kernel = parse_fortran_kernel_v2(FOLDER // 'kernels_adaptive.f90', 'param_test')
    call initialize_executor(exec, kernel)
    call execute_kernel(exec, kernel, N, [2.5_real32, 1.0_real32], stat)
    call check(stat == -1, 'a fraction for an integer')
    call execute_kernel(exec, kernel, N, [3.0e9_real32, 1.0_real32], stat)
    call check(stat == -1, 'a large number for an integer')
    call check_buffers(y, 'nothing ran')
    do method = 1, 3
      kernel = parse_fortran_kernel_v2(FILE, 'saxpy', method)
      call initialize_executor(exec, kernel)
      call execute_kernel(exec, kernel, N, [-0.3125_real32], stat)
      call check(stat == 0, 'a fraction')
      call check_buffers(-0.3125_real32 * x + y, 'a fraction')
      call refresh()
    end do

    name = create_buffer(exec, 0_c_size_t, 0)
    call check(name == 0, 'an empty buffer')
    name = create_buffer(exec, 4_c_size_t, -1)
    call check(name == 0, 'a negative binding')
    found = 5.0_real32
    call read_buffer(exec%buffers(2)%id, c_loc(found), 4_c_size_t * N + 1, stat)
    call check(stat == -1, 'more bytes than the buffer has')
    call read_buffer(0_c_int, c_loc(found), 4_c_size_t, stat)
    call check(stat == -1, 'no buffer')
    call read_buffer(exec%buffers(2)%id, c_null_ptr, 4_c_size_t, stat)
    call check(stat == -1 .and. all(abs(found - 5.0_real32) <= 0.0_real32), 'nowhere to')
    call update_buffer(exec%buffers(2)%id, c_loc(found), 4_c_size_t * N + 1, stat)
    call check(stat == -1, 'more bytes than fit')
    call update_buffer(exec%buffers(2)%id, c_null_ptr, 4_c_size_t, stat)
    call check(stat == -1, 'nothing to copy')
    call check_buffers(y, 'untouched')
    name = 0
    call delete_buffer(name)
    name = 2000000000_c_int
    call delete_buffer(name)
    call check(name == 0, 'no such buffer')

    ! Without `stat`, what failed cannot be taken for a result.
    call execute_kernel(exec, kernel, N, NONE)
    call read_buffer(exec%buffers(2)%id, c_loc(found), 4_c_size_t * N)
    call check(all_nan(found), 'NaN where nothing ran')
    found = 5.0_real32
    call read_buffer(0_c_int, c_loc(found), 8_c_size_t)
    call check(all_nan(found(:2)) .and. all(abs(found(3:) - 5.0_real32) <= 0.0_real32), 'NaN where nothing was read')
    call refresh()
  end subroutine executors

  !> The program in use is as before, and the programs that are kept do not grow in number.
  subroutine many_programs()
    integer :: status, i, programs

    call sporkle_set_param_method(PARAMS_INLINE)
    do i = 1, 100
      call refresh()
      call sporkle_compile_and_dispatch_v2(FILE, 'saxpy', N, buffers, param_values=[i], status=status)
      call check(status == 0, 'another value')
      call check_buffers(i * x + y, 'another value')
      call check(gl_integer(CURRENT_PROGRAM) == 0, 'no program is left in use')
    end do
    programs = living_programs()
    do i = 101, 140
      call sporkle_compile_and_dispatch_v2(FILE, 'saxpy', N, buffers, param_values=[i], status=status)
    end do
    call check(programs > 0 .and. living_programs() == programs, 'as many programs as before')
    call refresh()
  end subroutine many_programs

  !> How many of the first names are programs.
  integer function living_programs()
    integer(c_int32_t) :: name

    living_programs = count([(glIsProgram(name) /= 0, name=1, 5000)])
    call gl_forget_errors()
  end function living_programs

  !> Scalars of 8 bytes, logical ones, and a file that changes between two calls. Desktop OpenGL alone has doubles.
  subroutine doubles()
    character(kind=c_char, len=*), parameter :: HEAD = '  !@kernel' // new_line('a') // '  pure subroutine mixed(i, s, n, d, ' // &
      'flip, x, y)' // new_line('a') // 'integer(int32), value :: i, n' // new_line('a') // 'real(real32), value :: s' // &
      new_line('a') // 'real(real64), value :: d' // new_line('a') // 'logical, value :: flip' // new_line('a') // &
      'real(real32), intent(in) :: x' // new_line('a') // 'real(real32), intent(inout) :: y' // new_line('a') // &
      'y = s * x + real(d, real32) * real(n, real32)' // new_line('a') // 'if (flip) y = -y' // new_line('a')
    character(len=*), parameter :: TAIL = 'end subroutine mixed' // new_line('a') // 'end module mixed_kernels' // &
      new_line('a')
    character(kind=c_char, len=32), target :: folder
    character(len=:), allocatable :: file
    type(shader_kernel_v2) :: kernel
    type(c_ptr) :: place
    integer :: method, status

    folder = '/tmp/sparkle_kernel_XXXXXX' // c_null_char
    place = c_mkdtemp(folder)
    call check(c_associated(place), 'mkdtemp')
    file = folder(:index(folder, c_null_char) - 1) // '/mixed.f90'
    call write_file(file, HEAD // TAIL)
    do method = 1, 3
      kernel = parse_fortran_kernel_v2(file, 'mixed', method)
      call check(size(kernel%params) == 5 .and. kernel%params(4)%type_str == 'double' .and. &
        kernel%params(5)%type_str == 'bool', 'types')
      call check(index(generate_glsl_v2(kernel), '#version 430') == 1, 'doubles need desktop OpenGL')
      call refresh()
      call initialize_executor(exec, kernel)
      call execute_kernel(exec, kernel, N, [0.5_real32, 3.0_real32, -0.25_real32, 1.0_real32], status)
      call check(status == 0, 'mixed scalars')
      call check_buffers(-(0.5_real32 * x - 0.75_real32), 'mixed scalars')
      call sporkle_set_param_method(method)
      call sporkle_compile_and_dispatch_v2(file, 'mixed', N, buffers, ['FLIP', 'n   ', 'd   ', 's   '], [0, 3, 5, 2], status)
      call check(status == 0, 'mixed scalars by name')
      call check_buffers(2 * x + 15, 'mixed scalars by name')
    end do
    call write_file(file, HEAD // 'y = y + 1.0' // new_line('a') // TAIL)
    call sporkle_compile_and_dispatch_v2(file, 'mixed', N, buffers, param_values=[2, 3, 5, 0], status=status)
    call check(status == 0, 'a changed file')
    call check_buffers(2 * x + 16, 'a changed file')
    call delete_file(file)
    call sporkle_compile_and_dispatch_v2(file, 'mixed', N, buffers, param_values=[2, 3, 5, 0], status=status)
    call check(status == -1, 'a deleted file')
    call check(c_rmdir(folder) == 0, 'rmdir')
    call refresh()
  end subroutine doubles

  subroutine write_file(file, lines)
    character(len=*), intent(in) :: file, lines
    integer :: unit

    open (newunit=unit, file=file, access='stream', form='unformatted', status='replace', action='write')
    write (unit) 'module mixed_kernels' // new_line('a') // 'use iso_fortran_env, only: int32, real32, real64' // &
      new_line('a') // 'implicit none' // new_line('a') // 'contains' // new_line('a') // lines
    close (unit)
  end subroutine write_file

  subroutine delete_file(file)
    character(len=*), intent(in) :: file
    integer :: unit

    open (newunit=unit, file=file, status='old')
    close (unit, status='delete')
  end subroutine delete_file

  subroutine measurements()
    type(shader_kernel_v2) :: kernel, nothing
    type(kernel_profile) :: profile
    integer :: best

    kernel = parse_fortran_kernel_v2(FILE, 'saxpy')
    call initialize_executor(exec, kernel)
    call check(benchmark_kernel(exec, kernel, N, [0.0_real32], 5) > 0, 'benchmark_kernel')
    call check_buffers(y, 'adding nothing')
    call check(benchmark_kernel(exec, kernel, N, [0.0_real32], 0) < 0, 'no iterations')
    call check(benchmark_kernel(exec, kernel, N + 1, [0.0_real32], 5) < 0, 'too many points')
    call check(benchmark_kernel(exec, kernel, N, [real(real32) ::], 5) < 0, 'no value')
    best = gpu_benchmark_param_methods(kernel, 10000, [2.0_real32])
    call check(best >= 1 .and. best <= 3 .and. kernel%param_method == best, 'the best method')
    kernel%param_method = PARAMS_UNIFORM
    best = gpu_benchmark_param_methods(kernel, 10000, [real(real32) ::])
    call check(best == -1 .and. kernel%param_method == PARAMS_UNIFORM, 'no method')
    profile = profile_kernel(kernel, 10000, [2.0_real32])
    call check(profile%time_ms > 0 .and. profile%optimal_local_size == kernel%local_size_x .and. &
      profile%optimal_param_method == kernel%param_method, 'profile_kernel')
    ! Two operations and twelve bytes a point.
    call check(abs(profile%gflops * profile%time_ms * 1.0e6_real64 - 2.0e4_real64) < 1.0_real64 .and. &
      abs(profile%bandwidth_gb_s * profile%time_ms * 1.0e6_real64 - 12.0e4_real64) < 1.0_real64, 'rates')
    ! Sizes that would need larger buffers do no harm, and the operations of loops are not known.
    kernel = parse_fortran_kernel_v2(FOLDER // 'kernels_convolution.f90', 'gemm_tiled')
    profile = profile_kernel(kernel, 1000, [1000.0_real32, 1000.0_real32, 100.0_real32, 1.0_real32, 1.0_real32])
    call check(profile%time_ms > 0 .and. profile%arithmetic_intensity > 0 .and. abs(profile%gflops) <= 0, 'a product')
    nothing = parse_fortran_kernel_v2('nowhere.f90', 'saxpy')
    profile = profile_kernel(nothing, 1000, [1.0_real32])
    call check(profile%time_ms < 0 .and. measure_arithmetic_intensity(nothing, 1000) <= 0, 'no kernel')
    call check_buffers(y, 'buffers of the program')
  end subroutine measurements
end module refusal_cases

program kernel_refusals
  use refusal_cases
  implicit none
  type(glsl_context) :: ctx
  type(shader_kernel_v2) :: kernel
  integer :: status, round

  ! Without a context there is nothing to compile for.
  call sporkle_compile_and_dispatch(FILE, 'store_deadbeef', 1, [c_null_ptr], status)
  call check(status == -1, 'no context')
  call sporkle_compile_and_dispatch_v2(FILE, 'store_deadbeef', 1, [c_null_ptr], status=status)
  call check(status == -1, 'no context, v2')
  kernel = parse_fortran_kernel_v2(FILE, 'vector_add')
  call initialize_executor(exec, kernel, status)
  call check(status == -1 .and. create_buffer(exec, 4_c_size_t, 0) == 0, 'no context, executor')
  call check(gpu_benchmark_param_methods(kernel, 10, [real(real32) ::]) == -1, 'no context, measurement')
  call check(binding_15_suffices(16) .and. .not. binding_15_suffices(15) .and. .not. binding_15_suffices(8), 'bindings')
  call glsl_cleanup(ctx)
  do round = 1, 2
    if (round == 1) call check(gpu_init(), 'gpu_init')
    if (round == 2) call check(glsl_init(ctx) == 0, 'glsl_init')
    call check(context_is_es() .eqv. round == 2, 'the version of the context')
    call prepare()
    call dispatches()
    call executors()
    call many_programs()
    if (round == 1) call doubles()
    call measurements()
    call cleanup_executor(exec)
    call check(exec%num_buffers == 0 .and. .not. exec%initialized, 'cleanup_executor')
  end do
  call glsl_cleanup(ctx)
  call gpu_cleanup()
  call finish()
end program kernel_refusals
