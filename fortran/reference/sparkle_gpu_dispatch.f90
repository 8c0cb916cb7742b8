!> Memory, kernels and convolution on the GPU, as existing programs call them, each doing what its name says.
!>
!> GPU memory is an OpenGL buffer; `gpu_ptr` holds its name. Where a C pointer stands for GPU memory it is that name,
!> `transfer(mem%gpu_ptr, c_null_ptr)`. Functions say by their result whether they worked (`allocated`, `compiled`,
!> `initialized`, a time of -1); subroutines by an optional `stat`, 0 or -1, at the end of their argument list. The
!> kernels and their arguments are listed in `sparkle_gpu_kernels`.
module sparkle_gpu_dispatch
  use, intrinsic :: iso_c_binding, only: c_associated, c_char, c_int32_t, c_int64_t, c_loc, c_null_char, &
    c_null_ptr, c_ptr, c_size_t
  use, intrinsic :: iso_fortran_env, only: int64, real32
  use gpu_opengl_interface, only: gpu_execute_conv2d_ref, gpu_init
  use sparkle_gl
  use sparkle_gpu_kernels, only: glsl_of_kernel, KERNEL_TYPES
  use sparkle_support, only: text_at
  implicit none
  private
  public :: gpu_device, gpu_kernel, gpu_memory, HOST_TO_GPU, GPU_TO_HOST
  public :: init_gpu_device, create_gpu_kernel, launch_gpu_kernel, gpu_synchronize
  public :: gpu_malloc, gpu_free, gpu_memcpy, execute_conv2d_gpu

  integer, parameter :: HOST_TO_GPU = 1
  integer, parameter :: GPU_TO_HOST = 2

  !> What the driver says of the GPU; 0 where it says nothing, as of the clock, which OpenGL does not know.
  type :: gpu_device
    integer :: device_id = 0
    logical :: initialized = .false.
    character(len=256) :: name = ''
    !> Bytes.
    integer(int64) :: memory_total = 0
    integer(int64) :: memory_free = 0
    integer :: compute_units = 0
    integer :: clock_mhz = 0
    logical :: opengl_ready = .false.
  end type gpu_device

  !> A kernel. Its program belongs to the module, so kernels may be copied and dropped at will.
  type :: gpu_kernel
    character(len=256) :: name = ''
    character(len=:), allocatable :: source
    integer :: work_group_size = 256
    logical :: compiled = .false.
    character(len=len(KERNEL_TYPES)) :: kernel_type = ''
  end type gpu_kernel

  type :: gpu_memory
    integer(int64) :: size_bytes = 0
    integer(int64) :: gpu_ptr = 0
    logical :: allocated = .false.
  end type gpu_memory

  !> The GPU side is a `gpu_memory`, or a C pointer that holds a buffer's name.
  interface gpu_memcpy
    module procedure memcpy_pointers
    module procedure memcpy_to_gpu
    module procedure memcpy_to_host
  end interface gpu_memcpy

  interface launch_gpu_kernel
    module procedure launch_with_memory
    module procedure launch_with_pointers
  end interface launch_gpu_kernel

  !> GL names of the kernels' programs, in the order of KERNEL_TYPES.
  integer, save :: programs(size(KERNEL_TYPES)) = 0

  !> A GL buffer as the C interface passes it, by value.
  type, bind(C) :: gpu_buffer_t
    integer(c_int32_t) :: buffer_id
    integer(c_size_t) :: size_bytes
  end type gpu_buffer_t

  interface
    function c_create_buffer(data, bytes) bind(C, name="gpu_create_buffer") result(buffer)
      import :: c_ptr, c_size_t, gpu_buffer_t
      type(c_ptr), value :: data
      integer(c_size_t), value :: bytes
      type(gpu_buffer_t) :: buffer
    end function c_create_buffer

    subroutine c_free_buffer(buffer) bind(C, name="gpu_free_buffer")
      import :: gpu_buffer_t
      type(gpu_buffer_t), value :: buffer
    end subroutine c_free_buffer
  end interface

contains

  !> Initialises the GPU that the library picks and asks its driver what it is.
  function init_gpu_device() result(device)
    type(gpu_device) :: device

    if (.not. gpu_init()) return
    if (.not. gl_is_ready()) return
    device%initialized = .true.
    device%opengl_ready = .true.
    device%name = text_at(glGetString(GL_RENDERER))
    if (has_extension('GL_NVX_gpu_memory_info')) then
      device%memory_total = 1024_int64 * integer_of(int(z'9047', c_int32_t))
      device%memory_free = 1024_int64 * integer_of(int(z'9049', c_int32_t))
    else if (has_extension('GL_ATI_meminfo')) then
      device%memory_free = 1024_int64 * integer_of(int(z'87FB', c_int32_t))
    end if
    if (has_extension('GL_NV_shader_thread_group')) device%compute_units = integer_of(int(z'933B', c_int32_t))
    call gl_forget_errors()
  end function init_gpu_device

  !> Builds one of `vector_add`, `saxpy`, `gemm`, `reduction` and `complex`. `compiled` tells whether it worked.
  function create_gpu_kernel(name, kernel_type) result(kernel)
    character(len=*), intent(in) :: name
    character(len=*), intent(in) :: kernel_type
    type(gpu_kernel) :: kernel

    kernel%name = name
    kernel%kernel_type = kernel_type
    kernel%source = glsl_of_kernel(kernel%kernel_type)
    if (.not. gl_is_ready()) return
    kernel%compiled = program_of(kernel%kernel_type) /= 0
  end function create_gpu_kernel

  !> Allocates GPU memory; `allocated` tells whether it worked.
  function gpu_malloc(size_bytes) result(mem)
    integer(int64), intent(in) :: size_bytes
    type(gpu_memory) :: mem
    type(gpu_buffer_t) :: buffer

    if (size_bytes <= 0) return
    if (.not. gl_is_ready()) return
    buffer = c_create_buffer(c_null_ptr, int(size_bytes, c_size_t))
    if (buffer%buffer_id == 0) return
    mem = gpu_memory(size_bytes=size_bytes, gpu_ptr=int(buffer%buffer_id, int64), allocated=.true.)
  end function gpu_malloc

  !> Frees GPU memory; freeing what is not allocated does nothing.
  subroutine gpu_free(mem)
    type(gpu_memory), intent(inout) :: mem

    if (mem%allocated) then
      if (gl_is_ready()) call c_free_buffer(gpu_buffer_t(int(mem%gpu_ptr, c_int32_t), int(mem%size_bytes, c_size_t)))
    end if
    mem = gpu_memory()
  end subroutine gpu_free

  !> Copies between host and GPU memory, after all work that was launched before.
  subroutine memcpy_pointers(dst, src, size_bytes, direction, stat)
    type(c_ptr), intent(in) :: dst
    type(c_ptr), intent(in) :: src
    integer(int64), intent(in) :: size_bytes
    integer, intent(in) :: direction
    integer, intent(out), optional :: stat

    select case (direction)
    case (HOST_TO_GPU)
      call copy(transfer(dst, 0_int64), src, size_bytes, .true., stat)
    case (GPU_TO_HOST)
      call copy(transfer(src, 0_int64), dst, size_bytes, .false., stat)
    case default
      if (present(stat)) stat = -1
    end select
  end subroutine memcpy_pointers

  subroutine memcpy_to_gpu(dst, src, size_bytes, direction, stat)
    type(gpu_memory), intent(in) :: dst
    type(c_ptr), intent(in) :: src
    integer(int64), intent(in) :: size_bytes
    integer, intent(in) :: direction
    integer, intent(out), optional :: stat

    call memcpy_pointers(transfer(dst%gpu_ptr, c_null_ptr), src, size_bytes, &
      merge(direction, 0, direction == HOST_TO_GPU), stat)
  end subroutine memcpy_to_gpu

  subroutine memcpy_to_host(dst, src, size_bytes, direction, stat)
    type(c_ptr), intent(in) :: dst
    type(gpu_memory), intent(in) :: src
    integer(int64), intent(in) :: size_bytes
    integer, intent(in) :: direction
    integer, intent(out), optional :: stat

    call memcpy_pointers(dst, transfer(src%gpu_ptr, c_null_ptr), size_bytes, &
      merge(direction, 0, direction == GPU_TO_HOST), stat)
  end subroutine memcpy_to_host

  subroutine copy(gpu_side, host_side, size_bytes, to_gpu, stat)
    integer(int64), intent(in) :: gpu_side
    type(c_ptr), intent(in) :: host_side
    integer(int64), intent(in) :: size_bytes
    logical, intent(in) :: to_gpu
    integer, intent(out), optional :: stat
    integer(c_int64_t) :: capacity

    if (present(stat)) stat = -1
    if (size_bytes < 0 .or. .not. c_associated(host_side)) return
    if (.not. is_buffer(gpu_side)) return
    call gl_forget_errors()
    call glBindBuffer(GL_COPY_WRITE_BUFFER, int(gpu_side, c_int32_t))
    capacity = 0
    call glGetBufferParameteri64v(GL_COPY_WRITE_BUFFER, GL_BUFFER_SIZE, capacity)
    if (size_bytes <= capacity) then
      call glMemoryBarrier(GL_BUFFER_UPDATE_BARRIER_BIT)
      if (to_gpu) then
        call glBufferSubData(GL_COPY_WRITE_BUFFER, 0_c_int64_t, size_bytes, host_side)
      else
        call glGetBufferSubData(GL_COPY_WRITE_BUFFER, 0_c_int64_t, size_bytes, host_side)
      end if
    end if
    call glBindBuffer(GL_COPY_WRITE_BUFFER, 0_c_int32_t)
    if (gl_had_error() .or. size_bytes > capacity) return
    if (present(stat)) stat = 0
  end subroutine copy

  !> Starts a kernel on ceil(global_size / local_size) workgroups and returns. `local_size` defaults to the kernel's
  !> `work_group_size` in x and 1 in y and z; it only shapes the grid, since every kernel strides over all its work.
  subroutine launch_with_memory(kernel, args, global_size, local_size, stat)
    type(gpu_kernel), intent(in) :: kernel
    type(gpu_memory), intent(in) :: args(:)
    integer, intent(in) :: global_size(:)
    integer, intent(in), optional :: local_size(:)
    integer, intent(out), optional :: stat

    call launch(kernel, args%gpu_ptr, global_size, local_size, stat)
  end subroutine launch_with_memory

  subroutine launch_with_pointers(kernel, args, global_size, local_size, stat)
    type(gpu_kernel), intent(in) :: kernel
    type(c_ptr), intent(in) :: args(:)
    integer, intent(in) :: global_size(:)
    integer, intent(in), optional :: local_size(:)
    integer, intent(out), optional :: stat
    integer(int64) :: names(size(args))
    integer :: i

    do i = 1, size(args)
      names(i) = transfer(args(i), 0_int64)
    end do
    call launch(kernel, names, global_size, local_size, stat)
  end subroutine launch_with_pointers

  subroutine launch(kernel, buffers, global_size, local_size, stat)
    type(gpu_kernel), intent(in) :: kernel
    integer(int64), intent(in) :: buffers(:)
    integer, intent(in) :: global_size(:)
    integer, intent(in), optional :: local_size(:)
    integer, intent(out), optional :: stat
    integer(c_int32_t) :: groups(3)
    integer :: program_id, i

    if (present(stat)) stat = -1
    if (.not. kernel%compiled) return
    if (.not. gl_is_ready()) return
    groups = grid_of(global_size, local_size, kernel%work_group_size)
    if (any(groups < 1)) return
    if (size(buffers) > integer_of(GL_MAX_SHADER_STORAGE_BUFFER_BINDINGS)) return
    do i = 1, size(buffers)
      if (.not. is_buffer(buffers(i))) return
    end do
    program_id = program_of(kernel%kernel_type)
    if (program_id == 0) return
    call gl_forget_errors()
    do i = 1, size(buffers)
      call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, int(i - 1, c_int32_t), int(buffers(i), c_int32_t))
    end do
    call glUseProgram(program_id)
    call glDispatchCompute(groups(1), groups(2), groups(3))
    call glMemoryBarrier(GL_ALL_BARRIER_BITS)
    if (gl_had_error()) return
    if (present(stat)) stat = 0
  end subroutine launch

  !> Waits until the GPU has done everything.
  subroutine gpu_synchronize()
    if (gl_is_ready()) call glFinish()
  end subroutine gpu_synchronize

  !> One convolution on the GPU: milliseconds of its dispatch, or -1 with `output` untouched.
  function execute_conv2d_gpu(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) result(time_ms)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: time_ms

    time_ms = gpu_execute_conv2d_ref(input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
  end function execute_conv2d_gpu

  !> Workgroups in x, y and z, at most what the driver takes; 0 for sizes that are not positive.
  function grid_of(global_size, local_size, default_local) result(groups)
    integer, intent(in) :: global_size(:)
    integer, intent(in), optional :: local_size(:)
    integer, intent(in) :: default_local
    integer(c_int32_t) :: groups(3), limit(1)
    integer :: local(3), i

    local = [default_local, 1, 1]
    if (present(local_size)) then
      do i = 1, min(3, size(local_size))
        local(i) = local_size(i)
      end do
    end if
    groups = 1
    if (size(global_size) < 1 .or. any(local < 1)) groups = 0
    do i = 1, min(3, size(global_size))
      if (groups(i) == 0) return
      groups(i) = 0
      if (global_size(i) < 1) return
      limit = 0
      call glGetIntegeri_v(GL_MAX_COMPUTE_WORK_GROUP_COUNT, int(i - 1, c_int32_t), limit)
      groups(i) = min((global_size(i) - 1) / local(i) + 1, limit(1))
    end do
  end function grid_of

  !> Whether a number is the name of a GL buffer.
  logical function is_buffer(name)
    integer(int64), intent(in) :: name

    is_buffer = .false.
    if (name < 1 .or. name > huge(0_c_int32_t)) return
    if (.not. gl_is_ready()) return
    is_buffer = glIsBuffer(int(name, c_int32_t)) /= 0
  end function is_buffer

  integer function integer_of(what)
    integer(c_int32_t), intent(in) :: what
    integer(c_int32_t) :: values(4)

    ! Some of these questions are answered with four numbers.
    values = 0
    call glGetIntegerv(what, values)
    integer_of = values(1)
  end function integer_of

  logical function has_extension(name)
    character(len=*), intent(in) :: name
    integer :: i

    has_extension = .false.
    do i = 0, integer_of(GL_NUM_EXTENSIONS) - 1
      has_extension = text_at(glGetStringi(GL_EXTENSIONS, int(i, c_int32_t))) == name
      if (has_extension) return
    end do
  end function has_extension

  !> The program of a kernel, built once a context; 0 if that fails. Its label tells it from a stranger that got the
  !> same GL name after the context was made anew.
  integer function program_of(kernel_type) result(program_id)
    character(len=*), intent(in) :: kernel_type
    integer :: number

    program_id = 0
    number = findloc(KERNEL_TYPES, kernel_type, dim=1)
    if (number == 0) return
    program_id = programs(number)
    if (label_of(program_id) == label_for(kernel_type)) return
    program_id = built(glsl_of_kernel(kernel_type))
    if (program_id /= 0) then
      call glObjectLabel(GL_PROGRAM, program_id, len(label_for(kernel_type), c_int32_t), label_for(kernel_type))
    end if
    programs(number) = program_id
  end function program_of

  pure function label_for(kernel_type) result(label)
    character(len=*), intent(in) :: kernel_type
    character(len=:), allocatable :: label

    label = 'sparkle_gpu_dispatch ' // trim(kernel_type)
  end function label_for

  function label_of(program_id) result(label)
    integer, intent(in) :: program_id
    character(len=:), allocatable :: label
    character(kind=c_char, len=64) :: buffer
    integer(c_int32_t) :: length

    label = ''
    if (glIsProgram(program_id) == 0) return
    length = 0
    call glGetObjectLabel(GL_PROGRAM, program_id, len(buffer, c_int32_t), length, buffer)
    label = buffer(:length)
  end function label_of

  !> A program from one compute shader, 0 if it does not build.
  integer function built(source) result(program_id)
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
  end function built
end module sparkle_gpu_dispatch
