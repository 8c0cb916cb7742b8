!> OpenGL calls on whatever context the program made current on this thread: its own, or one of libsparkle.
!>
!> Private to the reference modules, which look the calls up at run time (`sparkle_gl`). Nothing here changes the current
!> context except `create_es_context` and `destroy_es_context`.
module sparkle_current_gl
  use, intrinsic :: iso_c_binding, only: c_associated, c_char, c_double, c_f_pointer, c_f_procpointer, c_int32_t, c_int64_t, &
    c_int8_t, c_loc, c_null_char, c_null_ptr, c_ptr, c_signed_char
  use, intrinsic :: iso_fortran_env, only: int64
  use sparkle_gl
  use sparkle_support, only: text_at
  implicit none
  private
  public :: create_es_context, destroy_es_context
  public :: binding_15_suffices, clear_buffer, context_is_current, context_is_es, copy_out, &
    has_parameter_binding, is_buffer_here, is_program_of, largest_grid, make_buffer, shader_of, spoil_buffer, &
    timestamp_ms, uniform_at
  public :: bytes_at, restore_storage, saved_storage, save_storage

  integer(c_int32_t), parameter, public :: GL_CURRENT_PROGRAM = int(z'8B8D', c_int32_t)
  integer(c_int32_t), parameter :: GL_VERSION = int(z'1F02', c_int32_t)
  integer(c_int32_t), parameter :: GL_MAJOR_VERSION = int(z'821B', c_int32_t)
  integer(c_int32_t), parameter :: GL_MINOR_VERSION = int(z'821C', c_int32_t)
  integer(c_int32_t), parameter :: GL_MAX_COMPUTE_WORK_GROUP_COUNT = int(z'91BE', c_int32_t)
  integer(c_int32_t), parameter :: GL_MAX_SHADER_STORAGE_BUFFER_BINDINGS = int(z'90DD', c_int32_t)
  integer(c_int32_t), parameter :: GL_SHADER_STORAGE_BUFFER_START = int(z'90D4', c_int32_t)
  integer(c_int32_t), parameter :: GL_SHADER_STORAGE_BUFFER_SIZE = int(z'90D5', c_int32_t)
  !> The binding of the parameter block.
  integer, parameter, public :: PARAMETER_BINDING = 15

  integer(c_int32_t), parameter :: EGL_NONE = int(z'3038', c_int32_t)
  integer(c_int32_t), parameter :: EGL_RENDERABLE_TYPE = int(z'3040', c_int32_t)
  integer(c_int32_t), parameter :: EGL_SURFACE_TYPE = int(z'3033', c_int32_t)
  integer(c_int32_t), parameter :: EGL_OPENGL_ES3_BIT = int(z'40', c_int32_t)
  integer(c_int32_t), parameter :: EGL_OPENGL_ES_API = int(z'30A0', c_int32_t)
  integer(c_int32_t), parameter :: EGL_CONTEXT_MAJOR_VERSION = int(z'3098', c_int32_t)
  integer(c_int32_t), parameter :: EGL_CONTEXT_MINOR_VERSION = int(z'30FB', c_int32_t)
  integer(c_int32_t), parameter :: EGL_PLATFORM_SURFACELESS = int(z'31DD', c_int32_t)
  integer(c_int32_t), parameter :: EGL_PLATFORM_DEVICE = int(z'313F', c_int32_t)

  !> What is bound to an indexed binding of storage buffers.
  type :: saved_storage
    private
    integer(c_int32_t) :: index = 0
    integer(c_int32_t) :: name = 0
    integer(c_int32_t) :: start = 0
    integer(c_int32_t) :: bytes = 0
  end type saved_storage

  abstract interface
    function find_location(program, name) bind(C) result(location)
      import :: c_char, c_int32_t
      integer(c_int32_t), value :: program
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int32_t) :: location
    end function find_location

    subroutine set_uints(location, x, y, z) bind(C)
      import :: c_int32_t
      integer(c_int32_t), value :: location, x, y, z
    end subroutine set_uints

    subroutine set_int(location, value) bind(C)
      import :: c_int32_t
      integer(c_int32_t), value :: location, value
    end subroutine set_int

    subroutine set_double(location, value) bind(C)
      import :: c_double, c_int32_t
      integer(c_int32_t), value :: location
      real(c_double), value :: value
    end subroutine set_double

    function map_range(target, offset, bytes, access) bind(C) result(memory)
      import :: c_int32_t, c_int64_t, c_ptr
      integer(c_int32_t), value :: target
      integer(c_int64_t), value :: offset, bytes
      integer(c_int32_t), value :: access
      type(c_ptr) :: memory
    end function map_range

    function unmap(target) bind(C) result(truth)
      import :: c_int32_t, c_signed_char
      integer(c_int32_t), value :: target
      integer(c_signed_char) :: truth
    end function unmap

    subroutine get_shaders(program, capacity, count, shaders) bind(C)
      import :: c_int32_t
      integer(c_int32_t), value :: program, capacity
      integer(c_int32_t), intent(inout) :: count, shaders(*)
    end subroutine get_shaders

    subroutine get_source(shader, capacity, length, source) bind(C)
      import :: c_char, c_int32_t
      integer(c_int32_t), value :: shader, capacity
      integer(c_int32_t), intent(inout) :: length
      character(kind=c_char), intent(inout) :: source(*)
    end subroutine get_source

    function get_display(native) bind(C) result(display)
      import :: c_ptr
      type(c_ptr), value :: native
      type(c_ptr) :: display
    end function get_display

    function get_platform_display(platform, native, attributes) bind(C) result(display)
      import :: c_int32_t, c_ptr
      integer(c_int32_t), value :: platform
      type(c_ptr), value :: native, attributes
      type(c_ptr) :: display
    end function get_platform_display

    function query_devices(capacity, devices, count) bind(C) result(truth)
      import :: c_int32_t, c_ptr
      integer(c_int32_t), value :: capacity
      type(c_ptr), intent(inout) :: devices(*)
      integer(c_int32_t), intent(inout) :: count
      integer(c_int32_t) :: truth
    end function query_devices

    function initialize_display(display, major, minor) bind(C) result(truth)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: display
      integer(c_int32_t), intent(inout) :: major, minor
      integer(c_int32_t) :: truth
    end function initialize_display

    function choose_config(display, attributes, configs, capacity, count) bind(C) result(truth)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: display
      integer(c_int32_t), intent(in) :: attributes(*)
      type(c_ptr), intent(inout) :: configs
      integer(c_int32_t), value :: capacity
      integer(c_int32_t), intent(inout) :: count
      integer(c_int32_t) :: truth
    end function choose_config

    function create_context(display, config, share, attributes) bind(C) result(context)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: display, config, share
      integer(c_int32_t), intent(in) :: attributes(*)
      type(c_ptr) :: context
    end function create_context

    function make_current(display, draw, read, context) bind(C) result(truth)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: display, draw, read, context
      integer(c_int32_t) :: truth
    end function make_current

    function destroy_context(display, context) bind(C) result(truth)
      import :: c_int32_t, c_ptr
      type(c_ptr), value :: display, context
      integer(c_int32_t) :: truth
    end function destroy_context

    function current_context() bind(C) result(context)
      import :: c_ptr
      type(c_ptr) :: context
    end function current_context

    function query_api() bind(C) result(api)
      import :: c_int32_t
      integer(c_int32_t) :: api
    end function query_api

    function bind_api(api) bind(C) result(truth)
      import :: c_int32_t
      integer(c_int32_t), value :: api
      integer(c_int32_t) :: truth
    end function bind_api
  end interface

  procedure(set_int), pointer, protected, public :: glUniform1i => null()
  procedure(set_double), pointer, protected, public :: glUniform1d => null()
  procedure(set_uints), pointer, protected, public :: glUniform3ui => null()
  procedure(find_location), pointer :: glGetUniformLocation => null()
  procedure(get_shaders), pointer :: glGetAttachedShaders => null()
  procedure(get_source), pointer :: glGetShaderSource => null()
  procedure(map_range), pointer :: glMapBufferRange => null()
  procedure(unmap), pointer :: glUnmapBuffer => null()
  procedure(get_display), pointer :: eglGetDisplay => null()
  procedure(get_platform_display), pointer :: eglGetPlatformDisplay => null()
  procedure(query_devices), pointer :: eglQueryDevicesEXT => null()
  procedure(initialize_display), pointer :: eglInitialize => null()
  procedure(choose_config), pointer :: eglChooseConfig => null()
  procedure(create_context), pointer :: eglCreateContext => null()
  procedure(make_current), pointer :: eglMakeCurrent => null()
  procedure(destroy_context), pointer :: eglDestroyContext => null()
  procedure(current_context), pointer :: eglGetCurrentContext => null()
  procedure(query_api), pointer :: eglQueryAPI => null()
  procedure(bind_api), pointer :: eglBindAPI => null()

contains

  !> Looks up every call above. False if there is no EGL.
  logical function are_found()
    are_found = associated(eglBindAPI)
    if (are_found) return
    if (.not. gl_calls_found()) return
    call c_f_procpointer(gl_address('glUniform1i' // c_null_char), glUniform1i)
    call c_f_procpointer(gl_address('glUniform1d' // c_null_char), glUniform1d)
    call c_f_procpointer(gl_address('glUniform3ui' // c_null_char), glUniform3ui)
    call c_f_procpointer(gl_address('glGetUniformLocation' // c_null_char), glGetUniformLocation)
    call c_f_procpointer(gl_address('glGetAttachedShaders' // c_null_char), glGetAttachedShaders)
    call c_f_procpointer(gl_address('glGetShaderSource' // c_null_char), glGetShaderSource)
    call c_f_procpointer(gl_address('glMapBufferRange' // c_null_char), glMapBufferRange)
    call c_f_procpointer(gl_address('glUnmapBuffer' // c_null_char), glUnmapBuffer)
    call c_f_procpointer(gl_address('eglGetDisplay' // c_null_char), eglGetDisplay)
    call c_f_procpointer(gl_address('eglGetPlatformDisplay' // c_null_char), eglGetPlatformDisplay)
    call c_f_procpointer(gl_address('eglQueryDevicesEXT' // c_null_char), eglQueryDevicesEXT)
    call c_f_procpointer(gl_address('eglInitialize' // c_null_char), eglInitialize)
    call c_f_procpointer(gl_address('eglChooseConfig' // c_null_char), eglChooseConfig)
    call c_f_procpointer(gl_address('eglCreateContext' // c_null_char), eglCreateContext)
    call c_f_procpointer(gl_address('eglMakeCurrent' // c_null_char), eglMakeCurrent)
    call c_f_procpointer(gl_address('eglDestroyContext' // c_null_char), eglDestroyContext)
    call c_f_procpointer(gl_address('eglGetCurrentContext' // c_null_char), eglGetCurrentContext)
    call c_f_procpointer(gl_address('eglQueryAPI' // c_null_char), eglQueryAPI)
    ! Must be the last: its address is the sign that all are found.
    call c_f_procpointer(gl_address('eglBindAPI' // c_null_char), eglBindAPI)
    are_found = associated(eglBindAPI)
  end function are_found

  !> Creates a context of OpenGL ES 3.1 without a surface, and makes it current on this thread. It tries the default
  !> display, then one without a window system, then each device. `context` stays null if none of them has one.
  subroutine create_es_context(display, context)
    type(c_ptr), intent(out) :: display, context
    type(c_ptr) :: devices(16)
    integer(c_int32_t) :: count
    integer :: i

    display = c_null_ptr
    context = c_null_ptr
    if (.not. are_found()) return
    call try_display(eglGetDisplay(c_null_ptr), display, context)
    if (c_associated(context) .or. .not. associated(eglGetPlatformDisplay)) return
    call try_display(eglGetPlatformDisplay(EGL_PLATFORM_SURFACELESS, c_null_ptr, c_null_ptr), display, context)
    if (c_associated(context) .or. .not. associated(eglQueryDevicesEXT)) return
    count = 0
    devices = c_null_ptr
    if (eglQueryDevicesEXT(size(devices, kind=c_int32_t), devices, count) == 0) return
    do i = 1, int(count)
      call try_display(eglGetPlatformDisplay(EGL_PLATFORM_DEVICE, devices(i), c_null_ptr), display, context)
      if (c_associated(context)) return
    end do
  end subroutine create_es_context

  subroutine try_display(candidate, display, context)
    type(c_ptr), intent(in) :: candidate
    type(c_ptr), intent(inout) :: display, context
    integer(c_int32_t) :: major, minor, count, earlier_api
    type(c_ptr) :: config, created

    if (.not. c_associated(candidate)) return
    major = 0
    minor = 0
    if (eglInitialize(candidate, major, minor) == 0) return
    config = c_null_ptr
    count = 0
    if (eglChooseConfig(candidate, [EGL_RENDERABLE_TYPE, EGL_OPENGL_ES3_BIT, EGL_SURFACE_TYPE, 0_c_int32_t, EGL_NONE], &
      config, 1_c_int32_t, count) == 0) return
    if (count < 1) return
    ! The API is that of the thread, and the program's own calls depend on it.
    earlier_api = eglQueryAPI()
    if (eglBindAPI(EGL_OPENGL_ES_API) == 0) return
    created = eglCreateContext(candidate, config, c_null_ptr, &
      [EGL_CONTEXT_MAJOR_VERSION, 3_c_int32_t, EGL_CONTEXT_MINOR_VERSION, 1_c_int32_t, EGL_NONE])
    if (c_associated(created)) then
      if (eglMakeCurrent(candidate, c_null_ptr, c_null_ptr, created) /= 0) then
        display = candidate
        context = created
      else
        count = eglDestroyContext(candidate, created)
      end if
    end if
    if (.not. c_associated(context)) count = eglBindAPI(earlier_api)
  end subroutine try_display

  !> Destroys such a context; where it is current on this thread, no context is current afterwards. The display stays
  !> initialised, because libsparkle or the program may have contexts on it.
  subroutine destroy_es_context(display, context)
    type(c_ptr), intent(in) :: display, context
    integer(c_int32_t) :: truth

    if (.not. are_found() .or. .not. c_associated(context)) return
    if (c_associated(eglGetCurrentContext(), context)) &
      truth = eglMakeCurrent(display, c_null_ptr, c_null_ptr, c_null_ptr)
    truth = eglDestroyContext(display, context)
  end subroutine destroy_es_context

  !> Whether a context with compute shaders is current on this thread: OpenGL 4.3 or OpenGL ES 3.1.
  logical function context_is_current()
    integer :: version

    context_is_current = .false.
    if (.not. are_found()) return
    if (.not. c_associated(glGetString(GL_VERSION))) return
    version = 10 * gl_integer(GL_MAJOR_VERSION) + gl_integer(GL_MINOR_VERSION)
    context_is_current = version >= merge(31, 43, context_is_es())
  end function context_is_current

  logical function context_is_es()
    context_is_es = index(text_at(glGetString(GL_VERSION)), 'OpenGL ES') == 1
  end function context_is_es

  !> Whether the current context has binding 15. Without a context the answer is that of most drivers.
  logical function has_parameter_binding()
    type(driver_float_env) :: env

    call env%enter()
    has_parameter_binding = .true.
    if (context_is_current()) &
      has_parameter_binding = binding_15_suffices(gl_integer(GL_MAX_SHADER_STORAGE_BUFFER_BINDINGS))
  end function has_parameter_binding

  !> Whether a driver with so many bindings has number 15. OpenGL 4.3 promises eight.
  pure logical function binding_15_suffices(bindings)
    integer, intent(in) :: bindings

    binding_15_suffices = bindings > PARAMETER_BINDING
  end function binding_15_suffices

  !> Whether a number is the name of a buffer in the current context.
  logical function is_buffer_here(name)
    integer(int64), intent(in) :: name

    is_buffer_here = .false.
    if (name < 1 .or. name > huge(0_c_int32_t)) return
    is_buffer_here = glIsBuffer(int(name, c_int32_t)) /= 0
  end function is_buffer_here

  !> A new buffer of so many bytes with undefined contents; 0 if there is no memory.
  integer(c_int32_t) function make_buffer(bytes)
    integer(int64), intent(in) :: bytes
    integer(c_int32_t) :: names(1)

    names = 0
    call gl_forget_errors()
    call glGenBuffers(1_c_int32_t, names)
    call glBindBuffer(GL_SHADER_STORAGE_BUFFER, names(1))
    call glBufferData(GL_SHADER_STORAGE_BUFFER, int(bytes, c_int64_t), c_null_ptr, GL_DYNAMIC_DRAW)
    call glBindBuffer(GL_SHADER_STORAGE_BUFFER, 0_c_int32_t)
    if (gl_had_error()) then
      call glDeleteBuffers(1_c_int32_t, names)
      names = 0
    end if
    make_buffer = names(1)
  end function make_buffer

  !> Copies the first bytes of a buffer, after all work that was launched before. OpenGL ES can only map it.
  logical function copy_out(name, into, bytes) result(succeeded)
    integer(c_int32_t), intent(in) :: name
    type(c_ptr), intent(in) :: into
    integer(int64), intent(in) :: bytes
    integer(c_int32_t), parameter :: GL_MAP_READ_BIT = 1
    type(c_ptr) :: mapped
    integer(c_int8_t), pointer :: from(:), to(:)

    succeeded = bytes == 0
    if (bytes < 1) return
    call gl_forget_errors()
    call glBindBuffer(GL_COPY_READ_BUFFER, name)
    call glMemoryBarrier(GL_ALL_BARRIER_BITS)
    mapped = glMapBufferRange(GL_COPY_READ_BUFFER, 0_c_int64_t, int(bytes, c_int64_t), GL_MAP_READ_BIT)
    if (c_associated(mapped)) then
      call c_f_pointer(mapped, from, [bytes])
      call c_f_pointer(into, to, [bytes])
      to = from
      succeeded = glUnmapBuffer(GL_COPY_READ_BUFFER) /= 0
    end if
    call glBindBuffer(GL_COPY_READ_BUFFER, 0_c_int32_t)
    if (gl_had_error()) succeeded = .false.
  end function copy_out

  !> Sets all bytes of a buffer to 255, so that its contents are NaN.
  subroutine spoil_buffer(name)
    integer(c_int32_t), intent(in) :: name

    call fill_buffer(name, -1_c_int8_t)
  end subroutine spoil_buffer

  !> Sets all bytes of a buffer to 0.
  subroutine clear_buffer(name)
    integer(c_int32_t), intent(in) :: name

    call fill_buffer(name, 0_c_int8_t)
  end subroutine clear_buffer

  !> OpenGL ES has no call that fills a buffer, so the bytes come from the host.
  subroutine fill_buffer(name, byte)
    integer(c_int32_t), intent(in) :: name
    integer(c_int8_t), intent(in) :: byte
    integer(c_int8_t), allocatable, target :: contents(:)
    integer(int64) :: bytes

    if (.not. is_buffer_here(int(name, int64))) return
    bytes = gl_bytes_of(int(name, int64))
    allocate (contents(bytes))
    contents = byte
    call glBindBuffer(GL_COPY_WRITE_BUFFER, name)
    if (bytes > 0) call glBufferSubData(GL_COPY_WRITE_BUFFER, 0_c_int64_t, int(bytes, c_int64_t), c_loc(contents))
    call glBindBuffer(GL_COPY_WRITE_BUFFER, 0_c_int32_t)
    call gl_forget_errors()
  end subroutine fill_buffer

  !> The shader of a program; 0 if the number is no program with exactly one shader.
  integer(c_int32_t) function shader_of(program) result(shader)
    integer(c_int32_t), intent(in) :: program
    integer(c_int32_t) :: shaders(2), count

    shader = 0
    if (program == 0) return
    if (glIsProgram(program) == 0) return
    shaders = 0
    count = 0
    call glGetAttachedShaders(program, 2_c_int32_t, count, shaders)
    if (count == 1) shader = shaders(1)
  end function shader_of

  !> Whether a name is a program of the current context that was built from a text. Names of one context mean something
  !> else in another, so the text decides.
  logical function is_program_of(program, text)
    integer(c_int32_t), intent(in) :: program
    character(len=*), intent(in) :: text
    character(kind=c_char, len=len(text) + 2) :: source
    integer(c_int32_t) :: shader, length

    is_program_of = .false.
    shader = shader_of(program)
    if (shader == 0) return
    length = 0
    call glGetShaderSource(shader, len(source, kind=c_int32_t), length, source)
    if (length == len(text)) is_program_of = source(:length) == text
  end function is_program_of

  !> The location of a uniform; -1 if the program does not use it.
  integer(c_int32_t) function uniform_at(program, name)
    integer(c_int32_t), intent(in) :: program
    character(len=*), intent(in) :: name

    uniform_at = glGetUniformLocation(program, trim(name) // c_null_char)
  end function uniform_at

  !> The largest grid of workgroups along each axis.
  function largest_grid() result(groups)
    integer(int64) :: groups(3)
    integer(c_int32_t) :: values(1)
    integer :: axis

    do axis = 1, 3
      values = 65535
      call glGetIntegeri_v(GL_MAX_COMPUTE_WORK_GROUP_COUNT, int(axis - 1, c_int32_t), values)
      groups(axis) = int(values(1), int64)
      if (values(1) < 0) groups(axis) = huge(0_c_int32_t)
    end do
  end function largest_grid

  !> The GPU's clock in milliseconds when all earlier work is done; negative if the context has none.
  real(c_double) function timestamp_ms()
    integer(c_int32_t) :: query(1)
    integer(c_int64_t) :: nanoseconds

    timestamp_ms = -1.0_c_double
    ! OpenGL ES has timestamps in an extension alone.
    if (context_is_es()) return
    query = 0
    nanoseconds = 0
    call gl_forget_errors()
    call glGenQueries(1_c_int32_t, query)
    call glQueryCounter(query(1), GL_TIMESTAMP)
    call glGetQueryObjectui64v(query(1), GL_QUERY_RESULT, nanoseconds)
    call glDeleteQueries(1_c_int32_t, query)
    if (.not. gl_had_error() .and. nanoseconds > 0) timestamp_ms = real(nanoseconds, c_double) / 1.0e6_c_double
  end function timestamp_ms

  !> Notes what is bound to an index.
  function save_storage(index) result(saved)
    integer, intent(in) :: index
    type(saved_storage) :: saved
    integer(c_int32_t) :: values(2)

    saved%index = int(index, c_int32_t)
    values = 0
    call glGetIntegeri_v(GL_SHADER_STORAGE_BUFFER_BINDING, saved%index, values)
    saved%name = values(1)
    if (saved%name == 0) return
    values = 0
    call glGetIntegeri_v(GL_SHADER_STORAGE_BUFFER_START, saved%index, values)
    saved%start = values(1)
    values = 0
    call glGetIntegeri_v(GL_SHADER_STORAGE_BUFFER_SIZE, saved%index, values)
    saved%bytes = values(1)
  end function save_storage

  subroutine restore_storage(saved)
    type(saved_storage), intent(in) :: saved

    if (saved%bytes > 0) then
      call glBindBufferRange(GL_SHADER_STORAGE_BUFFER, saved%index, saved%name, int(saved%start, c_int64_t), &
        int(saved%bytes, c_int64_t))
    else
      call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, saved%index, saved%name)
    end if
  end subroutine restore_storage

  !> Bytes that are bound there; 0 if nothing is.
  integer(int64) function bytes_at(saved) result(bytes)
    type(saved_storage), intent(in) :: saved

    bytes = 0
    if (.not. is_buffer_here(int(saved%name, int64))) return
    bytes = gl_bytes_of(int(saved%name, int64)) - saved%start
    if (saved%bytes > 0) bytes = min(bytes, int(saved%bytes, int64))
  end function bytes_at
end module sparkle_current_gl
