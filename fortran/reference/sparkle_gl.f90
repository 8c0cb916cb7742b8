!> The OpenGL calls of the reference modules, on the context that libsparkle leaves current, and helpers built on them.
!>
!> The calls are looked up at their first use instead of at link time. So a program that uses these modules links with
!> `-lsparkle` alone, and still computes, on the CPU, without any OpenGL library. GLenum and GLuint are signed here,
!> because Fortran has no unsigned kind.
!>
!> Drivers may raise floating-point exceptions. So procedures that call OpenGL enter a floating-point environment
!> without traps, and restore the caller's at their end (`driver_float_env`).
module sparkle_gl
  use, intrinsic :: iso_c_binding, only: c_associated, c_char, c_f_procpointer, c_float, c_funptr, c_int, c_int32_t, &
    c_int64_t, c_int8_t, c_loc, c_null_char, c_ptr, c_signed_char
  use, intrinsic :: iso_fortran_env, only: int64
  use sparkle_support, only: text_at
  implicit none
  private
  public :: gl_address, gl_calls_found, gl_is_ready, gl_forget_errors, gl_had_error
  public :: gl_build, gl_built, gl_bytes_of, gl_has_extension, gl_integer, gl_is_buffer, gl_largest_block, gl_read, &
    gl_spoil, gl_text, gl_timeout_ns

  integer(c_int32_t), parameter, public :: GL_NO_ERROR = 0
  integer(c_int32_t), parameter, public :: GL_VENDOR = int(z'1F00', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_RENDERER = int(z'1F01', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_EXTENSIONS = int(z'1F03', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_NUM_EXTENSIONS = int(z'821D', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_UNSIGNED_BYTE = int(z'1401', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_R8UI = int(z'8232', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_RED_INTEGER = int(z'8D94', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_PROGRAM = int(z'82E2', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_BUFFER_SIZE = int(z'8764', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_QUERY_RESULT = int(z'8866', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_STATIC_DRAW = int(z'88E4', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_DYNAMIC_DRAW = int(z'88E8', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_DYNAMIC_COPY = int(z'88EA', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_COMPILE_STATUS = int(z'8B81', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_LINK_STATUS = int(z'8B82', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_TIMESTAMP = int(z'8E28', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_COPY_READ_BUFFER = int(z'8F36', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_COPY_WRITE_BUFFER = int(z'8F37', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_SHADER_STORAGE_BUFFER = int(z'90D2', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_SHADER_STORAGE_BUFFER_BINDING = int(z'90D3', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_MAX_SHADER_STORAGE_BLOCK_SIZE = int(z'90DE', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_SYNC_GPU_COMMANDS_COMPLETE = int(z'9117', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_ALREADY_SIGNALED = int(z'911A', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_TIMEOUT_EXPIRED = int(z'911B', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_CONDITION_SATISFIED = int(z'911C', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_COMPUTE_SHADER = int(z'91B9', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_SYNC_FLUSH_COMMANDS_BIT = 1
  integer(c_int32_t), parameter, public :: GL_BUFFER_UPDATE_BARRIER_BIT = int(z'200', c_int32_t)
  integer(c_int32_t), parameter, public :: GL_ALL_BARRIER_BITS = -1

  !> Disables floating-point traps from `enter` to the end of the procedure, where finalisation restores the caller's
  !> environment with its flags.
  type, public :: driver_float_env
    private
    !> Holds the C library's `fenv_t`, which is smaller.
    integer(c_int64_t) :: callers(16) = 0
    logical :: entered = .false.
  contains
    procedure :: enter => enter_driver_float_env
    final :: leave_driver_float_env
  end type driver_float_env

  interface
    integer(c_int) function feholdexcept(env) bind(C)
      import :: c_int, c_int64_t
      integer(c_int64_t), intent(inout) :: env(*)
    end function feholdexcept

    integer(c_int) function fesetenv(env) bind(C)
      import :: c_int, c_int64_t
      integer(c_int64_t), intent(in) :: env(*)
    end function fesetenv
  end interface

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

    subroutine get_1_wide(what, value) bind(C)
      import :: c_int32_t, c_int64_t
      integer(c_int32_t), value :: what
      integer(c_int64_t), intent(inout) :: value
    end subroutine get_1_wide

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

    subroutine buffer_copy(from, to, from_offset, to_offset, bytes) bind(C)
      import :: c_int32_t, c_int64_t
      integer(c_int32_t), value :: from, to
      integer(c_int64_t), value :: from_offset, to_offset, bytes
    end subroutine buffer_copy

    subroutine buffer_clear(target, internal_format, format, kind, data) bind(C)
      import :: c_int32_t, c_ptr
      integer(c_int32_t), value :: target, internal_format, format, kind
      type(c_ptr), value :: data
    end subroutine buffer_clear

    subroutine bind_range(target, index, buffer, offset, bytes) bind(C)
      import :: c_int32_t, c_int64_t
      integer(c_int32_t), value :: target, index, buffer
      integer(c_int64_t), value :: offset, bytes
    end subroutine bind_range

    subroutine set_float(location, value) bind(C)
      import :: c_float, c_int32_t
      integer(c_int32_t), value :: location
      real(c_float), value :: value
    end subroutine set_float

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

  procedure(look_up), pointer :: find => null()

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
  procedure(call_2), pointer, protected, public :: glUniform1ui => null()
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
  procedure(get_1_wide), pointer, protected, public :: glGetInteger64v => null()
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
  procedure(buffer_copy), pointer, protected, public :: glCopyBufferSubData => null()
  procedure(buffer_clear), pointer, protected, public :: glClearBufferData => null()
  procedure(bind_range), pointer, protected, public :: glBindBufferRange => null()
  procedure(set_float), pointer, protected, public :: glUniform1f => null()
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

  subroutine enter_driver_float_env(this)
    class(driver_float_env), intent(inout) :: this

    this%entered = feholdexcept(this%callers) == 0
  end subroutine enter_driver_float_env

  impure elemental subroutine leave_driver_float_env(this)
    type(driver_float_env), intent(inout) :: this

    ! This fails only if `enter` was not called.
    if (this%entered) this%entered = fesetenv(this%callers) /= 0
  end subroutine leave_driver_float_env

  !> Makes libsparkle's context current on this thread and looks up the calls above. False if there is no GL device.
  logical function gl_is_ready()
    gl_is_ready = .false.
    if (gpu_initialize_opengl() == 0) return
    gl_is_ready = gl_calls_found()
  end function gl_is_ready

  !> Looks up the calls above and leaves the current context alone. False if there is no EGL.
  logical function gl_calls_found()
    ! All threads find the same addresses, so it does not matter which thread stores them.
    if (.not. associated(glDeleteSync)) call load()
    gl_calls_found = associated(glDeleteSync)
  end function gl_calls_found

  !> The address of another call of OpenGL or EGL, after `gl_calls_found`. Its name ends with a NUL.
  type(c_funptr) function gl_address(name)
    character(len=*), intent(in) :: name

    gl_address = find(name)
  end function gl_address

  !> Whether a GL call has failed since the last query. The loop is bounded, because a lost context reports errors
  !> endlessly.
  logical function gl_had_error()
    integer :: attempt
    type(driver_float_env) :: env

    call env%enter()
    gl_had_error = .false.
    do attempt = 1, 16
      if (glGetError() == GL_NO_ERROR) return
      gl_had_error = .true.
    end do
  end function gl_had_error

  !> Discards errors of earlier calls, including the caller's own.
  subroutine gl_forget_errors()
    logical :: ignored
    type(driver_float_env) :: env

    call env%enter()
    ignored = gl_had_error()
  end subroutine gl_forget_errors

  !> Whether a number is the name of a buffer. Makes the context current.
  logical function gl_is_buffer(name)
    integer(int64), intent(in) :: name
    type(driver_float_env) :: env

    call env%enter()
    gl_is_buffer = .false.
    if (name < 1 .or. name > huge(0_c_int32_t)) return
    if (.not. gl_is_ready()) return
    gl_is_buffer = glIsBuffer(int(name, c_int32_t)) /= 0
  end function gl_is_buffer

  !> The size of a buffer in bytes.
  integer(int64) function gl_bytes_of(name) result(bytes)
    integer(int64), intent(in) :: name
    type(driver_float_env) :: env

    call env%enter()
    bytes = 0
    call glBindBuffer(GL_COPY_READ_BUFFER, int(name, c_int32_t))
    call glGetBufferParameteri64v(GL_COPY_READ_BUFFER, GL_BUFFER_SIZE, bytes)
    call glBindBuffer(GL_COPY_READ_BUFFER, 0_c_int32_t)
  end function gl_bytes_of

  !> Reads the first bytes of a buffer, after all work that was launched before.
  subroutine gl_read(buffer, into, bytes)
    integer(int64), intent(in) :: buffer
    type(c_ptr), intent(in) :: into
    integer(int64), intent(in) :: bytes
    type(driver_float_env) :: env

    call env%enter()
    call glBindBuffer(GL_COPY_READ_BUFFER, int(buffer, c_int32_t))
    call glMemoryBarrier(GL_BUFFER_UPDATE_BARRIER_BIT)
    call glGetBufferSubData(GL_COPY_READ_BUFFER, 0_c_int64_t, bytes, into)
    call glBindBuffer(GL_COPY_READ_BUFFER, 0_c_int32_t)
  end subroutine gl_read

  !> Sets all bytes of a buffer to 255, so that its contents are NaN.
  subroutine gl_spoil(name)
    integer(int64), intent(in) :: name
    integer(c_int8_t), target :: all_ones
    type(driver_float_env) :: env

    call env%enter()
    if (.not. gl_is_buffer(name)) return
    all_ones = -1
    call glBindBuffer(GL_COPY_WRITE_BUFFER, int(name, c_int32_t))
    call glClearBufferData(GL_COPY_WRITE_BUFFER, GL_R8UI, GL_RED_INTEGER, GL_UNSIGNED_BYTE, c_loc(all_ones))
    call glBindBuffer(GL_COPY_WRITE_BUFFER, 0_c_int32_t)
    call gl_forget_errors()
  end subroutine gl_spoil

  !> The driver's maximum shader storage block size in bytes.
  integer(int64) function gl_largest_block() result(bytes)
    type(driver_float_env) :: env

    call env%enter()
    bytes = 0
    call glGetInteger64v(GL_MAX_SHADER_STORAGE_BLOCK_SIZE, bytes)
  end function gl_largest_block

  !> The time limit for the GPU in nanoseconds, the same as the library's.
  integer(int64) function gl_timeout_ns()
    character(len=20) :: value
    integer(int64) :: milliseconds
    integer :: length, stat

    call get_environment_variable('SPARKLE_GL_TIMEOUT_MS', value, length, stat)
    milliseconds = 0
    if (stat == 0 .and. length > 0) read (value, *, iostat=stat) milliseconds
    if (stat /= 0 .or. milliseconds < 1) milliseconds = 10000
    ! At most a year, because longer times would not fit in nanoseconds.
    gl_timeout_ns = min(milliseconds, 31536000000_int64) * 1000000
  end function gl_timeout_ns

  integer function gl_integer(what)
    integer(c_int32_t), intent(in) :: what
    integer(c_int32_t) :: values(4)
    type(driver_float_env) :: env

    call env%enter()
    ! Some of these queries return four numbers.
    values = 0
    call glGetIntegerv(what, values)
    gl_integer = values(1)
  end function gl_integer

  function gl_text(what) result(text)
    integer(c_int32_t), intent(in) :: what
    character(len=:), allocatable :: text
    type(driver_float_env) :: env

    call env%enter()
    text = text_at(glGetString(what))
  end function gl_text

  logical function gl_has_extension(name)
    character(len=*), intent(in) :: name
    integer :: i
    type(driver_float_env) :: env

    call env%enter()
    gl_has_extension = .false.
    do i = 0, gl_integer(GL_NUM_EXTENSIONS) - 1
      gl_has_extension = text_at(glGetStringi(GL_EXTENSIONS, int(i, c_int32_t))) == name
      if (gl_has_extension) return
    end do
  end function gl_has_extension

  !> Builds a program from one compute shader and stores its name in `program_id`, 0 if that fails. Does nothing if
  !> `program_id` is that program already. The label identifies the program: after the context was recreated, another
  !> may have its name.
  subroutine gl_build(label, source, program_id)
    character(len=*), intent(in) :: label
    character(len=*), intent(in) :: source
    integer(c_int32_t), intent(inout) :: program_id
    type(driver_float_env) :: env

    call env%enter()
    if (label_of(program_id) == label) return
    program_id = gl_built(source)
    if (program_id /= 0) call glObjectLabel(GL_PROGRAM, program_id, len(label, c_int32_t), label)
  end subroutine gl_build

  function label_of(program_id) result(label)
    integer(c_int32_t), intent(in) :: program_id
    character(len=:), allocatable :: label
    character(kind=c_char, len=64) :: buffer
    integer(c_int32_t) :: length

    label = ''
    if (glIsProgram(program_id) == 0) return
    length = 0
    call glGetObjectLabel(GL_PROGRAM, program_id, len(buffer, c_int32_t), length, buffer)
    label = buffer(:length)
  end function label_of

  !> Builds a program from one compute shader in the current context; 0 if that fails. The shader stays attached.
  integer(c_int32_t) function gl_built(source) result(program_id)
    character(len=*), intent(in) :: source
    character(kind=c_char, len=len(source) + 1), target :: text
    integer(c_int32_t) :: shader, done(1)
    logical :: failed

    text = source // c_null_char
    program_id = 0
    call gl_forget_errors()
    shader = glCreateShader(GL_COMPUTE_SHADER)
    if (shader == 0) return
    call glShaderSource(shader, 1_c_int32_t, [c_loc(text)], [len(source, c_int32_t)])
    call glCompileShader(shader)
    done = 0
    call glGetShaderiv(shader, GL_COMPILE_STATUS, done)
    if (done(1) /= 0) then
      program_id = glCreateProgram()
      call glAttachShader(program_id, shader)
      call glLinkProgram(program_id)
      done = 0
      call glGetProgramiv(program_id, GL_LINK_STATUS, done)
    end if
    call glDeleteShader(shader)
    failed = gl_had_error()
    if (done(1) /= 0 .and. .not. failed) return
    if (program_id /= 0) call glDeleteProgram(program_id)
    program_id = 0
  end function gl_built

  !> Looks up every call through EGL. The library's context comes from this EGL, so it is loaded, and stays loaded.
  subroutine load()
    integer(c_int), parameter :: RTLD_NOW = 2
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
    call c_f_procpointer(find('glUniform1ui' // c_null_char), glUniform1ui)
    call c_f_procpointer(find('glGetInteger64v' // c_null_char), glGetInteger64v)
    call c_f_procpointer(find('glCopyBufferSubData' // c_null_char), glCopyBufferSubData)
    call c_f_procpointer(find('glClearBufferData' // c_null_char), glClearBufferData)
    call c_f_procpointer(find('glBindBufferRange' // c_null_char), glBindBufferRange)
    call c_f_procpointer(find('glUniform1f' // c_null_char), glUniform1f)
    call c_f_procpointer(find('glFenceSync' // c_null_char), glFenceSync)
    call c_f_procpointer(find('glClientWaitSync' // c_null_char), glClientWaitSync)
    ! Must be the last: gl_is_ready takes it as the sign that all are loaded.
    call c_f_procpointer(find('glDeleteSync' // c_null_char), glDeleteSync)
  end subroutine load
end module sparkle_gl
