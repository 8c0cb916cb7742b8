!> A program with its own OpenGL calls, through the interfaces of `gl_constants` and libGL, on a kernel of
!> `sparkle_shader_parser_v2`. Every constant and every interface is used; those of GLFW are only declared. Run it in the
!> repository's folder. Needs a GL device, and libGL.
program raw_gl_constants
  use gl_constants
  use checks
  use gpu_opengl_interface, only: gpu_cleanup, gpu_init
  use sparkle_shader_parser_v2, only: generate_glsl_v2, parse_fortran_kernel_v2, shader_kernel_v2
  implicit none
  integer, parameter :: LENGTH = 1000
  procedure(glfwInit), pointer :: init => null()
  procedure(glfwTerminate), pointer :: terminate => null()
  procedure(glfwWindowHint), pointer :: hint => null()
  procedure(glfwCreateWindow), pointer :: create => null()
  procedure(glfwDestroyWindow), pointer :: destroy => null()
  procedure(glfwMakeContextCurrent), pointer :: make_current => null()
  integer(c_int) :: version(2)

  call check(gpu_init(), 'gpu_init')
  call check(.not. (associated(init) .or. associated(terminate) .or. associated(hint) .or. associated(create) .or. &
    associated(destroy) .or. associated(make_current)), 'the interfaces of GLFW')
  call check(all([GL_COMPUTE_SHADER, GL_SHADER_STORAGE_BUFFER, GL_SHADER_STORAGE_BARRIER_BIT, GL_COMPILE_STATUS, &
    GL_LINK_STATUS, GL_INFO_LOG_LENGTH, GL_DYNAMIC_COPY, GL_FALSE, GL_TRUE, GL_DYNAMIC_DRAW, GL_MAJOR_VERSION, &
    GL_MINOR_VERSION, GL_TIMESTAMP, GL_QUERY_RESULT, GL_QUERY_RESULT_AVAILABLE] == [37305, 37074, 8192, 35713, 35714, &
    35716, 35050, 0, 1, 35048, 33307, 33308, 36392, 34918, 34919]), 'constants of OpenGL')
  call check(all([GLFW_CONTEXT_VERSION_MAJOR, GLFW_CONTEXT_VERSION_MINOR, GLFW_OPENGL_PROFILE, GLFW_OPENGL_CORE_PROFILE, &
    GLFW_VISIBLE, GLFW_FALSE] == [139266, 139267, 139272, 204801, 131076, 0]), 'constants of GLFW')
  call glGetIntegerv(GL_MAJOR_VERSION, version(1))
  call glGetIntegerv(GL_MINOR_VERSION, version(2))
  call check(10 * version(1) + version(2) >= 43, 'a version')
  call saxpy()
  call uniforms()
  call queries()
  call gpu_cleanup()
  call finish()

contains

  !> A program from a text; the text goes to the driver by the address that a variable holds.
  integer(c_int) function built(source) result(program_id)
    character(len=*), intent(in) :: source
    character(kind=c_char, len=len(source) + 1), target :: text
    character(kind=c_char), target :: log(2)
    type(c_ptr) :: address
    integer(c_int) :: shader, done, length

    text = source // c_null_char
    address = c_loc(text)
    shader = glCreateShader(GL_COMPUTE_SHADER)
    call glShaderSource(shader, 1_c_int, address, c_null_ptr)
    call glCompileShader(shader)
    call glGetShaderiv(shader, GL_COMPILE_STATUS, done)
    call check(done == GL_TRUE, 'it compiles')
    call glGetShaderiv(shader, GL_INFO_LOG_LENGTH, length)
    call glGetShaderInfoLog(shader, 2_c_int, c_null_ptr, c_loc(log))
    program_id = glCreateProgram()
    call glAttachShader(program_id, shader)
    call glLinkProgram(program_id)
    call glGetProgramiv(program_id, GL_LINK_STATUS, done)
    call check(done == GL_TRUE .and. length >= 0, 'it links')
    call glGetProgramInfoLog(program_id, 2_c_int, c_null_ptr, c_loc(log))
    call glDeleteShader(shader)
  end function built

  integer(c_int) function uploaded(x, binding) result(buffer)
    real(c_float), intent(in), target :: x(:)
    integer, intent(in) :: binding

    call glGenBuffers(1_c_int, buffer)
    call glBindBuffer(GL_SHADER_STORAGE_BUFFER, buffer)
    call glBufferData(GL_SHADER_STORAGE_BUFFER, 4_c_size_t * size(x), c_null_ptr, GL_DYNAMIC_DRAW)
    call glBufferSubData(GL_SHADER_STORAGE_BUFFER, 0_c_intptr_t, 4_c_size_t * size(x), c_loc(x))
    call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, int(binding, c_int), buffer)
  end function uploaded

  !> The uniforms `first` and `count` stay zero: the buffers' lengths guard the points.
  subroutine saxpy()
    type(shader_kernel_v2) :: kernel
    real(c_float), target :: x(LENGTH), y(LENGTH), found(LENGTH)
    integer(c_int) :: program_id, buffers(2)

    x = anint(9 * data_of(LENGTH, 1))
    y = anint(9 * data_of(LENGTH, 2))
    kernel = parse_fortran_kernel_v2('tests/kernels/reference/kernels.f90', 'saxpy', 1)
    program_id = built(generate_glsl_v2(kernel))
    buffers = [uploaded(x, kernel%args(3)%binding_slot), uploaded(y, kernel%args(4)%binding_slot)]
    call glUseProgram(program_id)
    call glUniform1f(glGetUniformLocation(program_id, 'a' // c_null_char), 3.0_c_float)
    call glDispatchCompute(int((LENGTH + kernel%local_size_x - 1) / kernel%local_size_x, c_int), 1_c_int, 1_c_int)
    call glMemoryBarrier(GL_SHADER_STORAGE_BARRIER_BIT)
    call glFinish()
    found = 0.0_c_float
    call glBindBuffer(GL_SHADER_STORAGE_BUFFER, buffers(2))
    call glGetBufferSubData(GL_SHADER_STORAGE_BUFFER, 0_c_intptr_t, 4_c_size_t * LENGTH, c_loc(found))
    call check(same_bits(found, 3 * x + y), 'saxpy')
    call glDeleteBuffers(1_c_int, buffers(1))
    call glDeleteBuffers(1_c_int, buffers(2))
    call glDeleteProgram(program_id)
  end subroutine saxpy

  subroutine uniforms()
    character(len=1), parameter :: NL = new_line('a')
    real(c_float), target :: found(18)
    integer(c_int) :: program_id, buffer

    program_id = built('#version 430 core' // NL // 'layout(local_size_x = 1) in;' // NL // 'uniform int a; uniform ivec2 b;' &
      // 'uniform ivec3 c; uniform ivec4 d; uniform int e[4]; uniform ivec4 f;' // NL // &
      'layout(std430, binding = 0) buffer B { float r[]; };' // NL // 'void main() { r[0] = float(a); for (int i = 0; ' // &
      'i < 4; ++i) { if (i < 2) r[1 + i] = float(b[i]); if (i < 3) r[3 + i] = float(c[i]); r[6 + i] = float(d[i]); ' // &
      'r[10 + i] = float(e[i]); r[14 + i] = float(f[i]); } }' // NL)
    found = 0.0_c_float
    buffer = uploaded(found, 0)
    call glUseProgram(program_id)
    call glUniform1i(at(program_id, 'a'), 1_c_int)
    call glUniform2i(at(program_id, 'b'), 2_c_int, 3_c_int)
    call glUniform3i(at(program_id, 'c'), 4_c_int, 5_c_int, 6_c_int)
    call glUniform4i(at(program_id, 'd'), 7_c_int, 8_c_int, 9_c_int, 10_c_int)
    call glUniform1iv(at(program_id, 'e'), 4_c_int, [11_c_int, 12_c_int, 13_c_int, 14_c_int])
    call glUniform4iv(at(program_id, 'f'), 1_c_int, [15_c_int, 16_c_int, 17_c_int, 18_c_int])
    call glDispatchCompute(1_c_int, 1_c_int, 1_c_int)
    call glMemoryBarrier(GL_SHADER_STORAGE_BARRIER_BIT)
    call glFinish()
    call glGetBufferSubData(GL_SHADER_STORAGE_BUFFER, 0_c_intptr_t, 4_c_size_t * size(found), c_loc(found))
    call check(all(nint(found) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]), 'uniforms')
    call glDeleteBuffers(1_c_int, buffer)
    call glDeleteProgram(program_id)
  end subroutine uniforms

  integer(c_int) function at(program_id, name)
    integer(c_int), intent(in) :: program_id
    character(len=1), intent(in) :: name

    at = glGetUniformLocation(program_id, name // c_null_char)
    call check(at >= 0, 'uniform ' // name)
  end function at

  subroutine queries()
    integer(c_int) :: names(2), is_there
    integer(c_int64_t) :: first, second

    call glGenQueries(2_c_int, names)
    call glQueryCounter(names(1), GL_TIMESTAMP)
    call glQueryCounter(names(2), GL_TIMESTAMP)
    call glFinish()
    call glGetQueryObjectiv(names(2), GL_QUERY_RESULT_AVAILABLE, is_there)
    call glGetQueryObjectui64v(names(1), GL_QUERY_RESULT, first)
    call glGetQueryObjecti64v(names(2), GL_QUERY_RESULT, second)
    call check(is_there == GL_TRUE .and. first > 0 .and. second >= first, 'timestamps')
    call glDeleteQueries(2_c_int, names)
  end subroutine queries
end program raw_gl_constants
