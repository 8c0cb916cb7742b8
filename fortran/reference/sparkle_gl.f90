!> The OpenGL calls that the reference modules make themselves, on the context that libsparkle leaves current.
!>
!> They are looked up when first needed instead of at link time, so a program that uses these modules links with
!> `-lsparkle` alone and still computes, on the CPU, where there is no OpenGL library at all. GLenum and GLuint are
!> signed here, as Fortran has no other kind.
module sparkle_gl
  use, intrinsic :: iso_c_binding, only: c_associated, c_char, c_f_procpointer, c_funptr, c_int, c_int32_t, &
    c_int64_t, c_null_char, c_ptr, c_signed_char
  implicit none
  private
  public :: gl_is_ready, gl_forget_errors, gl_had_error

  integer(c_int32_t), parameter, public :: GL_NO_ERROR = 0
  integer(c_int32_t), parameter, public :: GL_VENDOR = int(z'1F00', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_RENDERER = int(z'1F01', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_EXTENSIONS = int(z'1F03', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_NUM_EXTENSIONS = int(z'821D', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_PROGRAM = int(z'82E2', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_BUFFER_SIZE = int(z'8764', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_QUERY_RESULT = int(z'8866', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_STATIC_DRAW = int(z'88E4', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_DYNAMIC_DRAW = int(z'88E8', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_DYNAMIC_COPY = int(z'88EA', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_COMPILE_STATUS = int(z'8B81', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_LINK_STATUS = int(z'8B82', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_TIMESTAMP = int(z'8E28', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_COPY_WRITE_BUFFER = int(z'8F37', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_SHADER_STORAGE_BUFFER = int(z'90D2', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_SHADER_STORAGE_BUFFER_BINDING = int(z'90D3', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_MAX_SHADER_STORAGE_BUFFER_BINDINGS = int(z'90DD', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_SYNC_GPU_COMMANDS_COMPLETE = int(z'9117', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_ALREADY_SIGNALED = int(z'911A', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_TIMEOUT_EXPIRED = int(z'911B', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_CONDITION_SATISFIED = int(z'911C', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_COMPUTE_SHADER = int(z'91B9', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_SYNC_FLUSH_COMMANDS_BIT = 1
  integer(c_int32_t), parameter, public :: GL_BUFFER_UPDATE_BARRIER_BIT = int(z'200', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_ALL_BARRIER_BITS = -1

  abstract interface
    subroutine call_0() bind(C)
    end subroutine call_0

    subroutine call_1(a) bind(C)
      import :: c_int32_t
      integer(c_int32_t), value :: a
    end subroutine call_1

    subroutine call_2(a, b) bind(C)
      import :: c_int32_t
      integer(c_int32_t), value :: a, b
    end subroutine call_2

    subroutine call_3(a, b, c) bind(C)
      import :: c_int32_t
      integer(c_int32_t), value :: a, b, c
    end subroutine call_3

    function return_0() bind(C) result(r)
      import :: c_int32_t
      integer(c_int32_t) :: r
    end function return_0

    function return_1(a) bind(C) result(r)
      import :: c_int32_t
      integer(c_int32_t), value :: a
      integer(c_int32_t) :: r
    end function return_1

    function ask_1(a) bind(C) result(r)
      import :: c_int32_t, c_signed_char
      integer(c_int32_t), value :: a
      integer(c_signed_char) :: r
    end function ask_1

    subroutine make_names(count, names) bind(C)
      import :: c_int32_t
      integer(c_int32_t), value :: count
      integer(c_int32_t), intent(inout) :: names(*)
    end subroutine make_names

    subroutine delete_names(count, names) bind(C)
      import :: c_int32_t
      integer(c_int32_t), value :: count
      integer(c_int32_t), intent(in) :: names(*)
    end subroutine delete_names

    subroutine get_1(what, values) bind(C)
      import :: c_int32_t
      integer(c_int32_t), value :: what
      integer(c_int32_t), intent(inout) :: values(*)
    end subroutine get_1

    subroutine get_2(which, what, values) bind(C)
      import :: c_int32_t
      integer(c_int32_t), value :: which, what
      integer(c_int32_t), intent(inout) :: values(*)
    end subroutine get_2

    subroutine get_2_wide(which, what, value) bind(C)
      import :: c_int32_t, c_int64_t
      integer(c_int32_t), value :: which, what
      integer(c_int64_t), intent(inout) :: value
    end subroutine get_2_wide

    function get_text(what) bind(C) result(text)
      import :: c_int32_t, c_ptr
      integer(c_int32_t), value :: what
      type(c_ptr) :: text
    end function get_text

    function get_text_at(what, index) bind(C) result(text)
      import :: c_int32_t, c_ptr
      integer(c_int32_t), value :: what, index
      type(c_ptr) :: text
    end function get_text_at

    subroutine set_label(kind, name, length, label) bind(C)
      import :: c_char, c_int32_t
      integer(c_int32_t), value :: kind, name, length
      character(kind=c_char), intent(in) :: label(*)
    end subroutine set_label

    subroutine get_label(kind, name, capacity, length, label) bind(C)
      import :: c_char, c_int32_t
      integer(c_int32_t), value :: kind, name, capacity
      integer(c_int32_t), intent(inout) :: length
      character(kind=c_char), intent(inout) :: label(*)
    end subroutine get_label

    subroutine give_source(shader, count, texts, lengths) bind(C)
      import :: c_int32_t, c_ptr
      integer(c_int32_t), value :: shader, count
      type(c_ptr), intent(in) :: texts(*)
      integer(c_int32_t), intent(in) :: lengths(*)
    end subroutine give_source

    subroutine buffer_data(target, bytes, data, usage) bind(C)
      import :: c_int32_t, c_int64_t, c_ptr
      integer(c_int32_t), value :: target
      integer(c_int64_t), value :: bytes
      type(c_ptr), value :: data
      integer(c_int32_t), value :: usage
    end subroutine buffer_data

    subroutine buffer_part(target, offset, bytes, data) bind(C)
      import :: c_int32_t, c_int64_t, c_ptr
      integer(c_int32_t), value :: target
      integer(c_int64_t), value :: offset, bytes
      type(c_ptr), value :: data
    end subroutine buffer_part

    function make_fence(condition, flags) bind(C) result(fence)
      import :: c_int32_t, c_ptr
      integer(c_int32_t), value :: condition, flags
      type(c_ptr) :: fence
    end function make_fence

    function wait_fence(fence, flags, nanoseconds) bind(C) result(outcome)
      import :: c_int32_t, c_int64_t, c_ptr
      type(c_ptr), value :: fence
      integer(c_int32_t), value :: flags
      integer(c_int64_t), value :: nanoseconds
      integer(c_int32_t) :: outcome
    end function wait_fence

    subroutine delete_fence(fence) bind(C)
      import :: c_ptr
      type(c_ptr), value :: fence
    end subroutine delete_fence

    function look_up(name) bind(C) result(address)
      import :: c_char, c_funptr
      character(kind=c_char), intent(in) :: name(*)
      type(c_funptr) :: address
    end function look_up
  end interface

  procedure(call_0), pointer, protected, public :: glFinish => null()
  procedure(call_0), pointer, protected, public :: glFlush => null()
  procedure(call_1), pointer, protected, public :: glCompileShader => null()
  procedure(call_1), pointer, protected, public :: glDeleteProgram => null()
  procedure(call_1), pointer, protected, public :: glDeleteShader => null()
  procedure(call_1), pointer, protected, public :: glLinkProgram => null()
  procedure(call_1), pointer, protected, public :: glMemoryBarrier => null()
  procedure(call_1), pointer, protected, public :: glUseProgram => null()
  procedure(call_2), pointer, protected, public :: glAttachShader => null()
  procedure(call_2), pointer, protected, public :: glBindBuffer => null()
  procedure(call_2), pointer, protected, public :: glQueryCounter => null()
  procedure(call_3), pointer, protected, public :: glBindBufferBase => null()
  procedure(call_3), pointer, protected, public :: glDispatchCompute => null()
  procedure(return_0), pointer, protected, public :: glCreateProgram => null()
  procedure(return_0), pointer, protected, public :: glGetError => null()
  procedure(return_1), pointer, protected, public :: glCreateShader => null()
  procedure(ask_1), pointer, protected, public :: glIsBuffer => null()
  procedure(ask_1), pointer, protected, public :: glIsProgram => null()
  procedure(make_names), pointer, protected, public :: glGenBuffers => null()
  procedure(make_names), pointer, protected, public :: glGenQueries => null()
  procedure(delete_names), pointer, protected, public :: glDeleteBuffers => null()
  procedure(delete_names), pointer, protected, public :: glDeleteQueries => null()
  procedure(get_1), pointer, protected, public :: glGetIntegerv => null()
  procedure(get_2), pointer, protected, public :: glGetIntegeri_v => null()
  procedure(get_2), pointer, protected, public :: glGetProgramiv => null()
  procedure(get_2), pointer, protected, public :: glGetShaderiv => null()
  procedure(get_2_wide), pointer, protected, public :: glGetBufferParameteri64v => null()
  procedure(get_2_wide), pointer, protected, public :: glGetQueryObjectui64v => null()
  procedure(get_text), pointer, protected, public :: glGetString => null()
  procedure(get_text_at), pointer, protected, public :: glGetStringi => null()
  procedure(set_label), pointer, protected, public :: glObjectLabel => null()
  procedure(get_label), pointer, protected, public :: glGetObjectLabel => null()
  procedure(give_source), pointer, protected, public :: glShaderSource => null()
  procedure(buffer_data), pointer, protected, public :: glBufferData => null()
  procedure(buffer_part), pointer, protected, public :: glBufferSubData => null()
  procedure(buffer_part), pointer, protected, public :: glGetBufferSubData => null()
  procedure(make_fence), pointer, protected, public :: glFenceSync => null()
  procedure(wait_fence), pointer, protected, public :: glClientWaitSync => null()
  procedure(delete_fence), pointer, protected, public :: glDeleteSync => null()

  interface
    function gpu_initialize_opengl() bind(C, name="gpu_initialize_opengl") result(succeeded)
      import :: c_int
      integer(c_int) :: succeeded
    end function gpu_initialize_opengl

    function dlopen(name, flags) bind(C, name="dlopen") result(library)
      import :: c_char, c_int, c_ptr
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int), value :: flags
      type(c_ptr) :: library
    end function dlopen

    function dlsym(library, name) bind(C, name="dlsym") result(address)
      import :: c_char, c_funptr, c_ptr
      type(c_ptr), value :: library
      character(kind=c_char), intent(in) :: name(*)
      type(c_funptr) :: address
    end function dlsym
  end interface

contains

  !> Makes libsparkle's context current on this thread and the calls above usable; false where there is no GL device.
  logical function gl_is_ready()
    gl_is_ready = .false.
    if (gpu_initialize_opengl() == 0) return
    ! Every thread finds the same addresses, so it does not matter which one stores them.
    if (.not. associated(glDeleteSync)) call load()
    gl_is_ready = associated(glDeleteSync)
  end function gl_is_ready

  !> Whether a GL call failed since this was last asked. Bounded, because a lost context reports errors without end.
  logical function gl_had_error()
    integer :: attempt

    gl_had_error = .false.
    do attempt = 1, 16
      if (glGetError() == GL_NO_ERROR) return
      gl_had_error = .true.
    end do
  end function gl_had_error

  !> Drops errors that earlier calls left behind, the caller's own among them.
  subroutine gl_forget_errors()
    logical :: ignored

    ignored = gl_had_error()
  end subroutine gl_forget_errors

  !> Asks EGL for every call. The library's context came from this EGL, so it is there, and stays.
  subroutine load()
    integer(c_int), parameter :: RTLD_NOW = 2
    procedure(look_up), pointer :: find
    type(c_ptr) :: egl
    type(c_funptr) :: address

    egl = dlopen('libEGL.so.1' // c_null_char, RTLD_NOW)
    if (.not. c_associated(egl)) return
    address = dlsym(egl, 'eglGetProcAddress' // c_null_char)
    if (.not. c_associated(address)) return
    call c_f_procpointer(address, find)

    call c_f_procpointer(find('glFinish' // c_null_char), glFinish)
    call c_f_procpointer(find('glFlush' // c_null_char), glFlush)
    call c_f_procpointer(find('glCompileShader' // c_null_char), glCompileShader)
    call c_f_procpointer(find('glDeleteProgram' // c_null_char), glDeleteProgram)
    call c_f_procpointer(find('glDeleteShader' // c_null_char), glDeleteShader)
    call c_f_procpointer(find('glLinkProgram' // c_null_char), glLinkProgram)
    call c_f_procpointer(find('glMemoryBarrier' // c_null_char), glMemoryBarrier)
    call c_f_procpointer(find('glUseProgram' // c_null_char), glUseProgram)
    call c_f_procpointer(find('glAttachShader' // c_null_char), glAttachShader)
    call c_f_procpointer(find('glBindBuffer' // c_null_char), glBindBuffer)
    call c_f_procpointer(find('glQueryCounter' // c_null_char), glQueryCounter)
    call c_f_procpointer(find('glBindBufferBase' // c_null_char), glBindBufferBase)
    call c_f_procpointer(find('glDispatchCompute' // c_null_char), glDispatchCompute)
    call c_f_procpointer(find('glCreateProgram' // c_null_char), glCreateProgram)
    call c_f_procpointer(find('glGetError' // c_null_char), glGetError)
    call c_f_procpointer(find('glCreateShader' // c_null_char), glCreateShader)
    call c_f_procpointer(find('glIsBuffer' // c_null_char), glIsBuffer)
    call c_f_procpointer(find('glIsProgram' // c_null_char), glIsProgram)
    call c_f_procpointer(find('glGenBuffers' // c_null_char), glGenBuffers)
    call c_f_procpointer(find('glGenQueries' // c_null_char), glGenQueries)
    call c_f_procpointer(find('glDeleteBuffers' // c_null_char), glDeleteBuffers)
    call c_f_procpointer(find('glDeleteQueries' // c_null_char), glDeleteQueries)
    call c_f_procpointer(find('glGetIntegerv' // c_null_char), glGetIntegerv)
    call c_f_procpointer(find('glGetIntegeri_v' // c_null_char), glGetIntegeri_v)
    call c_f_procpointer(find('glGetProgramiv' // c_null_char), glGetProgramiv)
    call c_f_procpointer(find('glGetShaderiv' // c_null_char), glGetShaderiv)
    call c_f_procpointer(find('glGetBufferParameteri64v' // c_null_char), glGetBufferParameteri64v)
    call c_f_procpointer(find('glGetQueryObjectui64v' // c_null_char), glGetQueryObjectui64v)
    call c_f_procpointer(find('glGetString' // c_null_char), glGetString)
    call c_f_procpointer(find('glGetStringi' // c_null_char), glGetStringi)
    call c_f_procpointer(find('glObjectLabel' // c_null_char), glObjectLabel)
    call c_f_procpointer(find('glGetObjectLabel' // c_null_char), glGetObjectLabel)
    call c_f_procpointer(find('glShaderSource' // c_null_char), glShaderSource)
    call c_f_procpointer(find('glBufferData' // c_null_char), glBufferData)
    call c_f_procpointer(find('glBufferSubData' // c_null_char), glBufferSubData)
    call c_f_procpointer(find('glGetBufferSubData' // c_null_char), glGetBufferSubData)
    call c_f_procpointer(find('glFenceSync' // c_null_char), glFenceSync)
    call c_f_procpointer(find('glClientWaitSync' // c_null_char), glClientWaitSync)
    ! Last: gl_is_ready takes it as the sign that all are there.
    call c_f_procpointer(find('glDeleteSync' // c_null_char), glDeleteSync)
  end subroutine load
end module sparkle_gl
