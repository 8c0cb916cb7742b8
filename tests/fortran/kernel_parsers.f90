!> The kernels of `tests/kernels/reference` as the reference's parsers describe them, twice in one process; their GLSL; bad
!> files and names; the counts of operations and bytes. Run it in the repository's folder. It needs no GPU.
module parser_cases
  use checks
  use sparkle_fortran_params
  use sparkle_gpu_benchmark, only: measure_arithmetic_intensity
  use sparkle_shader_parser
  use sparkle_shader_parser_simple
  use sparkle_shader_parser_v2
  use, intrinsic :: iso_fortran_env, only: real64
  implicit none
  public

  character(len=*), parameter :: FOLDER = 'tests/kernels/reference/'
  character(len=*), parameter :: NAMES(2, 16) = reshape([character(len=34) :: &
    'kernels', 'store_deadbeef', 'kernels', 'saxpy', 'kernels', 'vector_add', 'kernels', 'vector_scale', &
    'test_simple_kernel', 'simple_add', 'kernels_adaptive', 'scaled_add', 'kernels_adaptive', 'param_test', &
    'kernels_adaptive', 'im2col_simple', 'kernels_adaptive', 'gemm_parameterized', 'kernels_convolution', 'im2col_nhwc', &
    'kernels_convolution', 'gemm_tiled', 'kernels_convolution', 'conv2d_direct', 'kernels_convolution_annotated', &
    'gemm_tiled', 'convolution_kernels', 'conv2d_direct', 'test_conv_simple', 'conv_simple', 'test_multiline_kernel', &
    'multiline_test'], [2, 16])
  !> A letter for each argument: i index, s integer scalar, f real scalar; r, w, b a buffer that is read, written, or both.
  character(len=*), parameter :: FORMS(16) = [character(len=14) :: 'iw', 'ifrb', 'irb', 'ifb', 'irwf', 'irrwf', 'iwss', &
    'irwssss', 'irrwsss', 'irwssssssssss', 'irrbsssff', 'irrwssssssssss', 'irrwsss', 'irrwssssssssss', 'irrw', 'irrwfs']
  integer, parameter :: LOCAL_SIZES(16) = [64, 64, 64, 64, 64, 64, 64, 64, 64, 256, 256, 64, 64, 64, 64, 64]

contains

  subroutine all_kernels()
    integer :: i

    do i = 1, size(NAMES, 2)
      call one_kernel(FOLDER // trim(NAMES(1, i)) // '.f90', trim(NAMES(2, i)), trim(FORMS(i)), LOCAL_SIZES(i))
    end do
  end subroutine all_kernels

  subroutine one_kernel(file, name, form, local_size)
    character(len=*), intent(in) :: file, name, form
    integer, intent(in) :: local_size
    type(shader_kernel) :: first
    type(shader_kernel_v2) :: second
    type(shader_kernel_simple) :: simple
    character(len=:), allocatable :: glsl
    integer :: i, slot, param, method

    first = parse_fortran_kernel(file, name)
    simple = parse_kernel_simple(file, name)
    call check(first%name == name .and. simple%name == name, name // ': its name')
    call check(first%local_size_x == local_size .and. first%local_size_y == 1 .and. first%local_size_z == 1, &
      name // ': its local size')
    call check(size(first%args) == len(form) .and. simple%num_args == len(form), name // ': its arguments')
    call check(first%num_inputs == letters(form, 'rb') .and. first%num_outputs == letters(form, 'wb'), &
      name // ': its inputs and outputs')
    call check(index(first%body, ' = ') > 0 .and. index(first%body, '::') == 0 .and. index(first%body, '!') == 0 .and. &
      index(first%body, 'subroutine') == 0, name // ': its statements')
    call check(simple%body == first%body, name // ': the same statements')
    glsl = generate_glsl(first)
    call check(index(glsl, '#version 310 es') == 1, name // ': GLSL')
    do method = 1, 3
      second = parse_fortran_kernel_v2(file, name, method)
      call check(second%name == name .and. second%param_method == method .and. second%local_size_x == local_size .and. &
        second%body == first%body .and. second%num_inputs == first%num_inputs, name // ': v2')
      slot = 0
      param = 0
      do i = 1, len(form)
        associate (argument => second%args(i))
          call check(argument%name == first%args(i)%name .and. argument%name == simple%arg_names(i) .and. &
            argument%type_str == first%args(i)%type_str .and. argument%type_str == simple%arg_types(i) .and. &
            argument%intent == first%args(i)%intent .and. argument%intent == simple%arg_intents(i) .and. &
            argument%binding_slot == first%args(i)%binding_slot .and. &
            (argument%is_scalar .eqv. simple%is_scalar(i)), name // ': the parsers agree')
          call check(argument%intent == intent_of(form(i:i)), name // ': intents')
          if (argument%is_scalar) then
            call check(argument%binding_slot == -1 .and. argument%type_str == trim(merge('float', 'int  ', form(i:i) == 'f')), &
              name // ': scalars')
            call check(second%params(param + 1)%name == argument%name .and. second%params(param + 1)%param_index == param &
              .and. second%params(param + 1)%type_str == argument%type_str, name // ': params')
            param = param + 1
          else
            call check(argument%binding_slot == slot, name // ': slots from 0')
            slot = slot + 1
          end if
        end associate
      end do
      call check(size(second%params) == param, name // ': as many params')
      call one_text(generate_glsl_v2(second), name, method, letters(form, 'sf'))
    end do
    call check(generate_glsl_v2(parse_fortran_kernel_v2(file, name)) == glsl, name // ': scalars in a buffer unless said')
  end subroutine one_kernel

  subroutine one_text(glsl, name, method, scalars)
    character(len=*), intent(in) :: glsl, name
    integer, intent(in) :: method, scalars

    call check(index(glsl, '#version 310 es') == 1, name // ': GLSL of v2')
    call check((index(glsl, 'binding = 15') > 0) .eqv. method == PARAMS_BUFFER, name // ': binding 15')
    call check(occurrences(glsl, 'PLACEHOLDER_') == merge(scalars, 0, method == PARAMS_INLINE), name // ': placeholders')
    call check(occurrences(glsl, new_line('a') // 'uniform ') == 2 + merge(scalars, 0, method == PARAMS_UNIFORM), &
      name // ': uniforms')
  end subroutine one_text

  pure integer function letters(form, which) result(number)
    character(len=*), intent(in) :: form, which
    integer :: i

    number = count([(index(which, form(i:i)) > 0, i=1, len(form))])
  end function letters

  pure function intent_of(letter) result(text)
    character(len=1), intent(in) :: letter
    character(len=5) :: text

    select case (letter)
    case ('r')
      text = 'in'
    case ('w')
      text = 'out'
    case ('b')
      text = 'inout'
    case default
      text = 'value'
    end select
  end function intent_of

  pure integer function occurrences(text, what) result(number)
    character(len=*), intent(in) :: text, what
    integer :: at, step

    number = 0
    at = 1
    do
      step = index(text(at:), what)
      if (step == 0) return
      number = number + 1
      at = at + step
    end do
  end function occurrences

  subroutine statements()
    type(shader_kernel_v2) :: kernel

    kernel = parse_fortran_kernel_v2(FOLDER // 'kernels.f90', 'saxpy')
    call check(kernel%body == 'y = a * x + y' // new_line('a'), 'one statement')
    kernel = parse_fortran_kernel_v2(FOLDER // 'test_multiline_kernel.f90', 'multiline_test')
    call check(kernel%body == 'output = scale * first_input + &' // new_line('a') // 'second_input + &' // new_line('a') // &
      'real(offset, real32)' // new_line('a'), 'continued lines')
    ! The exact spelling first, then any case.
    kernel = parse_fortran_kernel_v2(FOLDER // 'kernels.f90', 'SAXPY')
    call check(kernel%name == 'saxpy' .and. kernel%body == 'y = a * x + y' // new_line('a'), 'another case')
  end subroutine statements

  subroutine other_local_sizes()
    type(shader_kernel_v2) :: kernel
    character(len=:), allocatable :: before, after

    kernel = parse_fortran_kernel_v2(FOLDER // 'kernels.f90', 'saxpy')
    before = generate_glsl_v2(kernel)
    kernel%local_size_x = 128
    after = generate_glsl_v2(kernel)
    call check(index(before, 'local_size_x = 64,') > 0 .and. index(before, '* 64u') > 0, 'the size of the file')
    call check(index(after, 'local_size_x = 128,') > 0 .and. index(after, '* 128u') > 0 .and. index(after, '64') == 0, &
      'another size')
    kernel%local_size_x = 0
    call check(generate_glsl_v2(kernel) == '', 'no size')
    kernel%local_size_x = 2048
    call check(generate_glsl_v2(kernel) == '', 'too large a size')
    kernel = parse_fortran_kernel_v2('tests/kernels/language/tiled_sgemm.f90', 'sgemm_tiled')
    call check(kernel%name == 'sgemm_tiled' .and. generate_glsl_v2(kernel) /= '', 'a kernel with workgroup memory')
    kernel%local_size_x = kernel%local_size_x / 2
    call check(generate_glsl_v2(kernel) == '', 'its size is its own')
  end subroutine other_local_sizes

  subroutine bad_input()
    type(shader_kernel) :: first
    type(shader_kernel_v2) :: second
    type(shader_kernel_simple) :: simple
    character(len=40), parameter :: BAD(2, 5) = reshape([character(len=40) :: 'nowhere.f90', 'saxpy', 'kernels.f90', &
      'axpy', 'kernels.f90', '', 'kernels.f90', 'sax', '', 'saxpy'], [2, 5])
    integer :: i

    do i = 1, size(BAD, 2)
      first = parse_fortran_kernel(FOLDER // trim(BAD(1, i)), BAD(2, i))
      second = parse_fortran_kernel_v2(FOLDER // trim(BAD(1, i)), BAD(2, i))
      simple = parse_kernel_simple(FOLDER // trim(BAD(1, i)), BAD(2, i))
      call check(first%name == '' .and. first%body == '' .and. size(first%args) == 0, 'v1: nothing')
      call check(second%name == '' .and. second%body == '' .and. size(second%args) == 0 .and. size(second%params) == 0, &
        'v2: nothing')
      call check(simple%name == '' .and. simple%num_args == 0 .and. size(simple%arg_names) == 0, 'simple: nothing')
      call check(generate_glsl(first) == '' .and. generate_glsl_v2(second) == '', 'no GLSL')
    end do
    second = parse_fortran_kernel_v2(FOLDER // 'kernels.f90', 'saxpy', 4)
    call check(second%name == '' .and. size(second%args) == 0, 'no such method')
    second = parse_fortran_kernel_v2(FOLDER // 'kernels.f90', 'saxpy')
    second%param_method = 0
    call check(generate_glsl_v2(second) == '', 'no GLSL for no method')
    first = shader_kernel()
    call check(generate_glsl(first) == '', 'a kernel that no parser made')
  end subroutine bad_input

  !> Without branches and loops the counts are exact.
  subroutine intensities()
    call has_intensity('kernels', 'store_deadbeef', 0.0_real64)
    call has_intensity('kernels', 'saxpy', 2.0_real64 / 12)
    call has_intensity('kernels', 'vector_add', 1.0_real64 / 12)
    call has_intensity('kernels', 'vector_scale', 1.0_real64 / 8)
    call has_intensity('test_simple_kernel', 'simple_add', 1.0_real64 / 8)
    call has_intensity('kernels_adaptive', 'scaled_add', 2.0_real64 / 12)
    call has_intensity('kernels_adaptive', 'param_test', 0.0_real64)
    call has_intensity('test_multiline_kernel', 'multiline_test', 3.0_real64 / 12)
    ! One pass of the loop: two operations on an element of each matrix; then alpha*sum + beta*C, where C is read and written.
    call has_intensity('kernels_convolution', 'gemm_tiled', 5.0_real64 / 16)
    call has_intensity('convolution_kernels', 'conv2d_direct', 2.0_real64 / 12)
  end subroutine intensities

  subroutine has_intensity(file, name, expected)
    character(len=*), intent(in) :: file, name
    real(real64), intent(in) :: expected
    type(shader_kernel_v2) :: kernel

    kernel = parse_fortran_kernel_v2(FOLDER // file // '.f90', name)
    call check(abs(measure_arithmetic_intensity(kernel, 1000) - expected) < 1.0e-12_real64, name // ': intensity')
    call check(abs(measure_arithmetic_intensity(kernel, 0)) <= 0.0_real64, name // ': no points')
    ! The name says nothing.
    kernel%name = 'gemm'
    call check(abs(measure_arithmetic_intensity(kernel, 1000) - expected) < 1.0e-12_real64, name // ': renamed')
  end subroutine has_intensity
end module parser_cases

program kernel_parsers
  use checks
  use parser_cases
  implicit none
  type(param_strategy) :: strategy

  call all_kernels()
  call all_kernels()
  call statements()
  call other_local_sizes()
  call bad_input()
  call intensities()
  strategy = create_param_strategy()
  call check(all(strategy%methods%is_supported) .and. all(strategy%methods%method == [1, 2, 3]) .and. &
    strategy%preferred_method == PARAMS_BUFFER .and. .not. strategy%benchmarked .and. &
    all(strategy%methods%setup_time_ms < 0) .and. all(strategy%methods%dispatch_time_ms < 0), 'a strategy')
  call destroy_param_strategy(strategy)
  call check(PARAMS_UNIFORM == 1 .and. PARAMS_BUFFER == 2 .and. PARAMS_INLINE == 3 .and. PARAM_BUFFER_BINDING == 15, 'numbers')
  call finish()
end program kernel_parsers
