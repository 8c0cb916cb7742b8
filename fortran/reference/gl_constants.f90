!> Constants and interfaces of OpenGL and GLFW for programs that call these libraries themselves.
!>
!> The interfaces are bound at link time: a program links with the libraries whose procedures it calls (`-lGL`,
!> `-lglfw`). No module of Sparkle calls them. GLenum and GLuint are signed here, because Fortran has no unsigned kind.
!> `glGenBuffers` and `glDeleteBuffers` take one name, so `n` must be 1. `string` of `glShaderSource` is a variable that
!> holds the address of a text that ends with a NUL; `c_loc` of such a variable would be one level too many.
!>
!> Everything is public, the names of iso_c_binding included.
module gl_constants
  use, intrinsic :: iso_c_binding
  ! With flags that promote the kinds of C types, this line does not compile.
  use sparkle_c, only: c_int_must_have_32_bits
  implicit none
  public
  private :: c_int_must_have_32_bits

  integer(c_int), parameter :: GL_COMPUTE_SHADER = int(z'91B9', c_int)
  integer(c_int), parameter :: GL_SHADER_STORAGE_BUFFER = int(z'90D2', c_int)
  integer(c_int), parameter :: GL_SHADER_STORAGE_BARRIER_BIT = int(z'2000', c_int)
  integer(c_int), parameter :: GL_COMPILE_STATUS = int(z'8B81', c_int)
  integer(c_int), parameter :: GL_LINK_STATUS = int(z'8B82', c_int)
  integer(c_int), parameter :: GL_INFO_LOG_LENGTH = int(z'8B84', c_int)
  integer(c_int), parameter :: GL_DYNAMIC_COPY = int(z'88EA', c_int)
  integer(c_int), parameter :: GL_FALSE = 0
  integer(c_int), parameter :: GL_TRUE = 1
  integer(c_int), parameter :: GL_DYNAMIC_DRAW = int(z'88E8', c_int)
  integer(c_int), parameter :: GL_MAJOR_VERSION = int(z'821B', c_int)
  integer(c_int), parameter :: GL_MINOR_VERSION = int(z'821C', c_int)
  integer(c_int), parameter :: GL_TIMESTAMP = int(z'8E28', c_int)
  integer(c_int), parameter :: GL_QUERY_RESULT = int(z'8866', c_int)
  integer(c_int), parameter :: GL_QUERY_RESULT_AVAILABLE = int(z'8867', c_int)
  integer(c_int), parameter :: GLFW_CONTEXT_VERSION_MAJOR = int(z'00022002', c_int)
  integer(c_int), parameter :: GLFW_CONTEXT_VERSION_MINOR = int(z'00022003', c_int)
  integer(c_int), parameter :: GLFW_OPENGL_PROFILE = int(z'00022008', c_int)
  integer(c_int), parameter :: GLFW_OPENGL_CORE_PROFILE = int(z'00032001', c_int)
  integer(c_int), parameter :: GLFW_VISIBLE = int(z'00020004', c_int)
  integer(c_int), parameter :: GLFW_FALSE = 0

  interface
    function glCreateShader(shader_type) bind(C, name="glCreateShader") result(outcome)
      import :: c_int
      integer(c_int), value :: shader_type
      integer(c_int) :: outcome
    end function glCreateShader

    function glCreateProgram() bind(C, name="glCreateProgram") result(outcome)
      import :: c_int
      integer(c_int) :: outcome
    end function glCreateProgram

    subroutine glShaderSource(shader, count, string, length) bind(C, name="glShaderSource")
      import :: c_int, c_ptr
      integer(c_int), value :: shader, count
      type(c_ptr), intent(in) :: string
      type(c_ptr), value :: length
    end subroutine glShaderSource

    subroutine glCompileShader(shader) bind(C, name="glCompileShader")
      import :: c_int
      integer(c_int), value :: shader
    end subroutine glCompileShader

    subroutine glGetShaderiv(shader, pname, params) bind(C, name="glGetShaderiv")
      import :: c_int
      integer(c_int), value :: shader, pname
      integer(c_int), intent(out) :: params
    end subroutine glGetShaderiv

    subroutine glGetShaderInfoLog(shader, bufSize, length, infoLog) bind(C, name="glGetShaderInfoLog")
      import :: c_int, c_ptr
      integer(c_int), value :: shader, bufSize
      type(c_ptr), value :: length, infoLog
    end subroutine glGetShaderInfoLog

    subroutine glAttachShader(program, shader) bind(C, name="glAttachShader")
      import :: c_int
      integer(c_int), value :: program, shader
    end subroutine glAttachShader

    subroutine glLinkProgram(program) bind(C, name="glLinkProgram")
      import :: c_int
      integer(c_int), value :: program
    end subroutine glLinkProgram

    subroutine glGetProgramiv(program, pname, params) bind(C, name="glGetProgramiv")
      import :: c_int
      integer(c_int), value :: program, pname
      integer(c_int), intent(out) :: params
    end subroutine glGetProgramiv

    subroutine glGetProgramInfoLog(program, bufSize, length, infoLog) bind(C, name="glGetProgramInfoLog")
      import :: c_int, c_ptr
      integer(c_int), value :: program, bufSize
      type(c_ptr), value :: length, infoLog
    end subroutine glGetProgramInfoLog

    subroutine glUseProgram(program) bind(C, name="glUseProgram")
      import :: c_int
      integer(c_int), value :: program
    end subroutine glUseProgram

    subroutine glDeleteShader(shader) bind(C, name="glDeleteShader")
      import :: c_int
      integer(c_int), value :: shader
    end subroutine glDeleteShader

    subroutine glDeleteProgram(program) bind(C, name="glDeleteProgram")
      import :: c_int
      integer(c_int), value :: program
    end subroutine glDeleteProgram

    subroutine glDispatchCompute(num_groups_x, num_groups_y, num_groups_z) bind(C, name="glDispatchCompute")
      import :: c_int
      integer(c_int), value :: num_groups_x, num_groups_y, num_groups_z
    end subroutine glDispatchCompute

    subroutine glMemoryBarrier(barriers) bind(C, name="glMemoryBarrier")
      import :: c_int
      integer(c_int), value :: barriers
    end subroutine glMemoryBarrier

    subroutine glFinish() bind(C, name="glFinish")
    end subroutine glFinish

    subroutine glGenBuffers(n, buffers) bind(C, name="glGenBuffers")
      import :: c_int
      integer(c_int), value :: n
      integer(c_int), intent(out) :: buffers
    end subroutine glGenBuffers

    subroutine glBindBuffer(target, buffer) bind(C, name="glBindBuffer")
      import :: c_int
      integer(c_int), value :: target, buffer
    end subroutine glBindBuffer

    subroutine glBufferData(target, size, data, usage) bind(C, name="glBufferData")
      import :: c_int, c_ptr, c_size_t
      integer(c_int), value :: target
      integer(c_size_t), value :: size
      type(c_ptr), value :: data
      integer(c_int), value :: usage
    end subroutine glBufferData

    subroutine glBindBufferBase(target, index, buffer) bind(C, name="glBindBufferBase")
      import :: c_int
      integer(c_int), value :: target, index, buffer
    end subroutine glBindBufferBase

    subroutine glGetBufferSubData(target, offset, size, data) bind(C, name="glGetBufferSubData")
      import :: c_int, c_intptr_t, c_ptr, c_size_t
      integer(c_int), value :: target
      integer(c_intptr_t), value :: offset
      integer(c_size_t), value :: size
      type(c_ptr), value :: data
    end subroutine glGetBufferSubData

    subroutine glDeleteBuffers(n, buffers) bind(C, name="glDeleteBuffers")
      import :: c_int
      integer(c_int), value :: n
      integer(c_int), intent(in) :: buffers
    end subroutine glDeleteBuffers

    function glGetUniformLocation(program, name) bind(C, name="glGetUniformLocation") result(outcome)
      import :: c_char, c_int
      integer(c_int), value :: program
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int) :: outcome
    end function glGetUniformLocation

    subroutine glUniform1i(location, v0) bind(C, name="glUniform1i")
      import :: c_int
      integer(c_int), value :: location, v0
    end subroutine glUniform1i

    subroutine glUniform1f(location, v0) bind(C, name="glUniform1f")
      import :: c_float, c_int
      integer(c_int), value :: location
      real(c_float), value :: v0
    end subroutine glUniform1f

    subroutine glUniform2i(location, v0, v1) bind(C, name="glUniform2i")
      import :: c_int
      integer(c_int), value :: location, v0, v1
    end subroutine glUniform2i

    subroutine glUniform3i(location, v0, v1, v2) bind(C, name="glUniform3i")
      import :: c_int
      integer(c_int), value :: location, v0, v1, v2
    end subroutine glUniform3i

    subroutine glUniform4i(location, v0, v1, v2, v3) bind(C, name="glUniform4i")
      import :: c_int
      integer(c_int), value :: location, v0, v1, v2, v3
    end subroutine glUniform4i

    subroutine glUniform1iv(location, count, value) bind(C, name="glUniform1iv")
      import :: c_int
      integer(c_int), value :: location, count
      integer(c_int), intent(in) :: value(*)
    end subroutine glUniform1iv

    subroutine glUniform4iv(location, count, value) bind(C, name="glUniform4iv")
      import :: c_int
      integer(c_int), value :: location, count
      integer(c_int), intent(in) :: value(*)
    end subroutine glUniform4iv

    subroutine glBufferSubData(target, offset, size, data) bind(C, name="glBufferSubData")
      import :: c_int, c_intptr_t, c_ptr, c_size_t
      integer(c_int), value :: target
      integer(c_intptr_t), value :: offset
      integer(c_size_t), value :: size
      type(c_ptr), value :: data
    end subroutine glBufferSubData

    subroutine glGenQueries(n, ids) bind(C, name="glGenQueries")
      import :: c_int
      integer(c_int), value :: n
      integer(c_int), intent(out) :: ids(*)
    end subroutine glGenQueries

    subroutine glDeleteQueries(n, ids) bind(C, name="glDeleteQueries")
      import :: c_int
      integer(c_int), value :: n
      integer(c_int), intent(in) :: ids(*)
    end subroutine glDeleteQueries

    subroutine glQueryCounter(id, target) bind(C, name="glQueryCounter")
      import :: c_int
      integer(c_int), value :: id, target
    end subroutine glQueryCounter

    subroutine glGetQueryObjectui64v(id, pname, params) bind(C, name="glGetQueryObjectui64v")
      import :: c_int, c_int64_t
      integer(c_int), value :: id, pname
      integer(c_int64_t), intent(out) :: params
    end subroutine glGetQueryObjectui64v

    subroutine glGetQueryObjectiv(id, pname, params) bind(C, name="glGetQueryObjectiv")
      import :: c_int
      integer(c_int), value :: id, pname
      integer(c_int), intent(out) :: params
    end subroutine glGetQueryObjectiv

    subroutine glGetQueryObjecti64v(id, pname, params) bind(C, name="glGetQueryObjecti64v")
      import :: c_int, c_int64_t
      integer(c_int), value :: id, pname
      integer(c_int64_t), intent(out) :: params
    end subroutine glGetQueryObjecti64v

    subroutine glGetIntegerv(pname, params) bind(C, name="glGetIntegerv")
      import :: c_int
      integer(c_int), value :: pname
      integer(c_int), intent(out) :: params
    end subroutine glGetIntegerv

    function glfwInit() bind(C, name="glfwInit") result(outcome)
      import :: c_int
      integer(c_int) :: outcome
    end function glfwInit

    subroutine glfwTerminate() bind(C, name="glfwTerminate")
    end subroutine glfwTerminate

    subroutine glfwWindowHint(hint, value) bind(C, name="glfwWindowHint")
      import :: c_int
      integer(c_int), value :: hint, value
    end subroutine glfwWindowHint

    function glfwCreateWindow(width, height, title, monitor, share) bind(C, name="glfwCreateWindow") result(outcome)
      import :: c_char, c_int, c_ptr
      integer(c_int), value :: width, height
      character(kind=c_char), intent(in) :: title(*)
      type(c_ptr), value :: monitor, share
      type(c_ptr) :: outcome
    end function glfwCreateWindow

    subroutine glfwDestroyWindow(window) bind(C, name="glfwDestroyWindow")
      import :: c_ptr
      type(c_ptr), value :: window
    end subroutine glfwDestroyWindow

    subroutine glfwMakeContextCurrent(window) bind(C, name="glfwMakeContextCurrent")
      import :: c_ptr
      type(c_ptr), value :: window
    end subroutine glfwMakeContextCurrent
  end interface
end module gl_constants
