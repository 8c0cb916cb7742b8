!> Memory, kernels and convolution on the GPU, with the interface of existing programs.
!>
!> GPU memory is an OpenGL buffer; `gpu_ptr` holds its name. A C pointer to GPU memory holds that name as well:
!> `transfer(mem%gpu_ptr, c_null_ptr)`.
!>
!> `launch_gpu_kernel` takes these arguments. Elements are fp32 numbers; k and the lengths follow from the buffers'
!> sizes.
!>
!> | kernel     | arguments          | result                                                                        |
!> | ---------- | ------------------ | ----------------------------------------------------------------------------- |
!> | vector_add | x, y, z            | z = x + y                                                                     |
!> | saxpy      | alpha, x, y        | y = alpha x + y; alpha is a buffer of one element                             |
!> | gemm       | A, B, C            | C = A B, column-major and packed; `global_size` is [m, n]; exact sizes        |
!> |            | A, B, C, [m, n, k] | the same with the sizes in a buffer of three int32                            |
!> | reduction  | data               | data(g) becomes the sum of the g-th 256 of the first global_size(1) elements  |
!> |            | x, sums            | the sum of the elements of sums is the sum of x                               |
!> | complex    | x, y, z            | z = sqrt(x**2 + y**2); or, if all three buffers hold exactly two numbers for  |
!> |            |                    | each element of `global_size`, the product of complex numbers                 |
!>
!> The other kernels process as many elements as the shortest buffer has, with any grid. saxpy without alpha, as in the
!> original framework, is refused.
!>
!> Functions report success in their result (`allocated`, `compiled`, `initialized`, or a time of -1 for failure).
!> Subroutines report it in `stat`, 0 or -1, and `errmsg`. If a subroutine fails without `stat`, every byte of its
!> output becomes 255, which is NaN in fp32 and float64.
module sparkle_gpu_dispatch
  use, intrinsic :: iso_c_binding, only: c_associated, c_float, c_int32_t, c_int64_t, c_loc, c_null_ptr, c_ptr, &
    c_size_t
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use gpu_opengl_interface, only: gpu_execute_conv2d_ref, gpu_init
  use sparkle_gl
  use sparkle_gpu_kernel_forms, only: KERNEL_NAMES, KERNEL_TYPES, source_of
  use sparkle_reference_support, only: spoil_memory
  use sparkle_support, only: decimal
  implicit none
  private
  public :: gpu_device, gpu_kernel, gpu_memory, HOST_TO_GPU, GPU_TO_HOST
  public :: init_gpu_device, create_gpu_kernel, launch_gpu_kernel, gpu_synchronize
  public :: gpu_malloc, gpu_free, gpu_memcpy, execute_conv2d_gpu

  integer, parameter :: HOST_TO_GPU = 1
  integer, parameter :: GPU_TO_HOST = 2

  !> What the driver reports of the GPU; 0 where it reports nothing. OpenGL never reports the clock.
  type :: gpu_device
    integer :: device_id = 0
    logical :: initialized = .false.
    character(len=256) :: name = 'Unknown GPU'
    !> Bytes.
    integer(int64) :: memory_total = 0
    integer(int64) :: memory_free = 0
    integer :: compute_units = 0
    real(real32) :: clock_mhz = 0.0_real32
    logical :: opengl_ready = .false.
  end type gpu_device

  !> A kernel. The module owns its program, so kernels may be copied and discarded freely.
  type :: gpu_kernel
    character(len=:), allocatable :: name
    character(len=:), allocatable :: source
    integer :: work_group_size = 256
    logical :: compiled = .false.
    character(len=16) :: kernel_type = ''
  end type gpu_kernel

  type :: gpu_memory
    integer(int64) :: size_bytes = 0, gpu_ptr = 0
    logical :: allocated = .false.
  end type gpu_memory

  !> The GPU side is a `gpu_memory`, or a C pointer that holds a buffer's name. Existing programs pass it first in both
  !> directions; passing the destination first is also accepted.
  interface gpu_memcpy
    module procedure memcpy_pointers
    module procedure memcpy_memory_first
    module procedure memcpy_memory_second
  end interface gpu_memcpy

  interface launch_gpu_kernel
    module procedure launch_with_memory
    module procedure launch_with_pointers
  end interface launch_gpu_kernel

  !> GL names of the programs, in the order of KERNEL_NAMES.
  integer(c_int32_t), save :: programs(size(KERNEL_NAMES)) = 0

  !> Invocations per workgroup, and workgroups per dimension that every driver allows.
  integer(int64), parameter :: GROUP = 256, MAX_GROUPS = 65535
  !> Maximum iterations of an invocation's loops: llvmpipe ends loops silently after 65535.
  integer(int64), parameter :: MAX_ITERATIONS = 60000

  !> A GL buffer, as the C interface passes it by value.
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

  !> Initialises the GPU that the library chooses and queries its driver.
  function init_gpu_device() result(device)
    type(gpu_device) :: device
    type(driver_float_env) :: env

    call env%enter()
    if (.not. gpu_init()) return
    if (.not. gl_is_ready()) return
    device%initialized = .true.
    device%opengl_ready = .true.
    device%name = gl_text(GL_RENDERER)
    if (gl_has_extension('GL_NVX_gpu_memory_info')) then
      device%memory_total = 1024_int64 * gl_integer(int(z'9047', c_int32_t))
      device%memory_free = 1024_int64 * gl_integer(int(z'9049', c_int32_t))
    else if (gl_has_extension('GL_ATI_meminfo')) then
      device%memory_free = 1024_int64 * gl_integer(int(z'87FB', c_int32_t))
    end if
    if (gl_has_extension('GL_NV_shader_thread_group')) device%compute_units = gl_integer(int(z'933B', c_int32_t))
    call gl_forget_errors()
  end function init_gpu_device

  !> Builds the kernel `vector_add`, `saxpy`, `gemm`, `reduction` or `complex`. `compiled` is true on success.
  function create_gpu_kernel(name, kernel_type) result(kernel)
    character(len=*), intent(in) :: name, kernel_type
    type(gpu_kernel) :: kernel
    type(driver_float_env) :: env

    call env%enter()
    kernel%name = name
    kernel%kernel_type = kernel_type
    kernel%source = ''
    if (all(KERNEL_NAMES(:KERNEL_TYPES) /= kernel_type)) return
    kernel%source = source_of(kernel_type)
    ! A workgroup of 16 x 16 outputs.
    if (kernel_type == 'gemm') kernel%work_group_size = 16
    kernel%compiled = program_of(kernel_type) /= 0
  end function create_gpu_kernel

  !> Allocates GPU memory. `allocated` is true on success.
  function gpu_malloc(size_bytes) result(mem)
    integer(int64), intent(in) :: size_bytes
    type(gpu_memory) :: mem
    type(gpu_buffer_t) :: buffer
    type(driver_float_env) :: env

    call env%enter()
    if (size_bytes <= 0) return
    if (.not. gl_is_ready()) return
    buffer = c_create_buffer(c_null_ptr, int(size_bytes, c_size_t))
    if (buffer%buffer_id == 0) return
    mem = gpu_memory(size_bytes=size_bytes, gpu_ptr=int(buffer%buffer_id, int64), allocated=.true.)
  end function gpu_malloc

  !> Frees GPU memory. Does nothing if it is not allocated.
  subroutine gpu_free(mem)
    type(gpu_memory), intent(inout) :: mem
    type(driver_float_env) :: env

    call env%enter()
    if (mem%allocated) then
      if (gl_is_buffer(mem%gpu_ptr)) call c_free_buffer(gpu_buffer_t(int(mem%gpu_ptr, c_int32_t), int(mem%size_bytes, c_size_t)))
    end if
    mem = gpu_memory()
  end subroutine gpu_free

  !> Copies between host and GPU memory, after all work that was launched before. The pointer of the GPU side holds a
  !> buffer's name.
  subroutine memcpy_pointers(dst, src, size_bytes, direction, stat, errmsg)
    type(c_ptr), intent(in) :: dst, src
    integer(int64), intent(in) :: size_bytes
    integer, intent(in) :: direction
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    integer(int64) :: first, second

    first = transfer(dst, 0_int64)
    second = transfer(src, 0_int64)
    if (direction == GPU_TO_HOST .and. .not. gl_is_buffer(first)) then
      call copy(second, dst, size_bytes, direction, .true., stat, errmsg)
    else
      call copy(first, src, size_bytes, direction, .true., stat, errmsg)
    end if
  end subroutine memcpy_pointers

  subroutine memcpy_memory_first(dst, src, size_bytes, direction, stat, errmsg)
    type(gpu_memory), intent(in) :: dst
    type(c_ptr), intent(in) :: src
    integer(int64), intent(in) :: size_bytes
    integer, intent(in) :: direction
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg

    call copy(dst%gpu_ptr, src, size_bytes, direction, .true., stat, errmsg)
  end subroutine memcpy_memory_first

  !> Copies from the GPU to the host only, because the destination comes first.
  subroutine memcpy_memory_second(dst, src, size_bytes, direction, stat, errmsg)
    type(c_ptr), intent(in) :: dst
    type(gpu_memory), intent(in) :: src
    integer(int64), intent(in) :: size_bytes
    integer, intent(in) :: direction
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg

    call copy(src%gpu_ptr, dst, size_bytes, direction, direction == GPU_TO_HOST, stat, errmsg)
  end subroutine memcpy_memory_second

  !> Copies if `agrees`, which says whether `direction` matches the order of the caller's arguments.
  subroutine copy(gpu_side, host_side, size_bytes, direction, agrees, stat, errmsg)
    integer(int64), intent(in) :: gpu_side
    type(c_ptr), intent(in) :: host_side
    integer(int64), intent(in) :: size_bytes
    integer, intent(in) :: direction
    logical, intent(in) :: agrees
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    character(len=:), allocatable :: problem
    type(driver_float_env) :: env

    call env%enter()
    problem = problem_of_copy(gpu_side, host_side, size_bytes, direction)
    if (.not. agrees) problem = 'direction does not match the order of the arguments'
    if (problem == '') then
      call gl_forget_errors()
      call glBindBuffer(GL_COPY_WRITE_BUFFER, int(gpu_side, c_int32_t))
      call glMemoryBarrier(GL_BUFFER_UPDATE_BARRIER_BIT)
      if (direction == HOST_TO_GPU) then
        call glBufferSubData(GL_COPY_WRITE_BUFFER, 0_c_int64_t, size_bytes, host_side)
      else
        call glGetBufferSubData(GL_COPY_WRITE_BUFFER, 0_c_int64_t, size_bytes, host_side)
      end if
      call glBindBuffer(GL_COPY_WRITE_BUFFER, 0_c_int32_t)
      if (gl_had_error()) problem = 'OpenGL reports an error'
    end if
    if (problem /= '' .and. .not. present(stat)) then
      if (direction /= GPU_TO_HOST) call gl_spoil(gpu_side)
      if (direction /= HOST_TO_GPU) call spoil_memory(host_side, size_bytes)
    end if
    call settle('gpu_memcpy', problem, stat, errmsg)
  end subroutine copy

  !> Why these arguments are invalid; empty if they are valid.
  function problem_of_copy(gpu_side, host_side, size_bytes, direction) result(problem)
    integer(int64), intent(in) :: gpu_side
    type(c_ptr), intent(in) :: host_side
    integer(int64), intent(in) :: size_bytes
    integer, intent(in) :: direction
    character(len=:), allocatable :: problem

    problem = ''
    if (direction /= HOST_TO_GPU .and. direction /= GPU_TO_HOST) then
      problem = 'direction is neither HOST_TO_GPU nor GPU_TO_HOST'
    else if (.not. c_associated(host_side)) then
      problem = 'the host pointer is null'
    else if (.not. gl_is_buffer(gpu_side)) then
      problem = 'neither argument is GPU memory'
    else if (size_bytes < 0 .or. size_bytes > gl_bytes_of(gpu_side)) then
      problem = 'size_bytes is ' // decimal(size_bytes) // '; the GPU memory has ' // decimal(gl_bytes_of(gpu_side))
    end if
  end function problem_of_copy

  !> Starts a kernel and returns without waiting. `global_size` and `local_size` must be positive; only gemm and complex
  !> depend on `global_size`.
  subroutine launch_with_memory(kernel, args, global_size, local_size, stat, errmsg)
    type(gpu_kernel), intent(in) :: kernel
    type(gpu_memory), intent(in) :: args(:)
    integer, intent(in) :: global_size(:)
    integer, intent(in), optional :: local_size(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg

    call launch(kernel, args%gpu_ptr, global_size, local_size, stat, errmsg)
  end subroutine launch_with_memory

  subroutine launch_with_pointers(kernel, args, global_size, local_size, stat, errmsg)
    type(gpu_kernel), intent(in) :: kernel
    type(c_ptr), intent(in) :: args(:)
    integer, intent(in) :: global_size(:)
    integer, intent(in), optional :: local_size(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    integer(int64) :: names(size(args))
    integer :: i

    do i = 1, size(args)
      names(i) = transfer(args(i), 0_int64)
    end do
    call launch(kernel, names, global_size, local_size, stat, errmsg)
  end subroutine launch_with_pointers

  subroutine launch(kernel, buffers, global_size, local_size, stat, errmsg)
    type(gpu_kernel), intent(in) :: kernel
    integer(int64), intent(in) :: buffers(:)
    integer, intent(in) :: global_size(:)
    integer, intent(in), optional :: local_size(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    character(len=:), allocatable :: problem
    integer :: i
    type(driver_float_env) :: env

    call env%enter()
    problem = ''
    if (size(global_size) < 1 .or. any(global_size < 1)) problem = 'global_size is not positive'
    if (present(local_size)) then
      if (any(local_size < 1)) problem = 'local_size is not positive'
    end if
    if (.not. kernel%compiled) problem = 'the kernel was not built'
    do i = 1, size(buffers)
      if (.not. gl_is_buffer(buffers(i))) problem = 'argument ' // decimal(int(i, int64)) // ' is not GPU memory'
    end do
    if (problem == '') then
      call gl_forget_errors()
      select case (kernel%kernel_type)
      case ('vector_add')
        call run_on_elements('vector_add', buffers, 4, problem)
      case ('saxpy')
        call run_saxpy(buffers, problem)
      case ('gemm')
        call run_gemm(buffers, global_size, problem)
      case ('reduction')
        call run_reduction(buffers, global_size, problem)
      case ('complex')
        call run_complex(buffers, global_size, problem)
      case default
        problem = 'the kernel was not made by create_gpu_kernel'
      end select
      call glMemoryBarrier(GL_ALL_BARRIER_BITS)
      if (gl_had_error() .and. problem == '') problem = 'OpenGL reports an error'
    end if
    ! The result is the last argument, except for gemm, where the sizes may follow it.
    i = size(buffers)
    if (kernel%kernel_type == 'gemm') i = min(i, 3)
    if (problem /= '' .and. i > 0 .and. .not. present(stat)) call gl_spoil(buffers(i))
    call settle('launch_gpu_kernel', problem, stat, errmsg)
  end subroutine launch

  subroutine run_saxpy(buffers, problem)
    integer(int64), intent(in) :: buffers(:)
    character(len=:), allocatable, intent(inout) :: problem
    real(c_float), target :: alpha

    if (size(buffers) /= 3) then
      problem = 'saxpy takes alpha, x and y'
    else if (gl_bytes_of(buffers(1)) /= 4) then
      problem = 'alpha has ' // decimal(gl_bytes_of(buffers(1))) // ' bytes; it is a buffer of one element, before x and y'
    else
      call gl_read(buffers(1), c_loc(alpha), 4_int64)
      call use('saxpy', problem)
      if (problem == '') call glUniform1f(1_c_int32_t, alpha)
      if (problem == '') call run_on_elements('saxpy', buffers(2:), 4, problem)
    end if
  end subroutine run_saxpy

  subroutine run_complex(buffers, global_size, problem)
    integer(int64), intent(in) :: buffers(:)
    integer, intent(in) :: global_size(:)
    character(len=:), allocatable, intent(inout) :: problem
    integer :: i
    logical :: pairs

    pairs = .true.
    do i = 1, size(buffers)
      ! As reals, because integers could overflow.
      pairs = pairs .and. abs(real(gl_bytes_of(buffers(i)), real64) - 8 * product(real(global_size, real64))) <= 0
    end do
    if (pairs) call run_on_elements('complex_product', buffers, 8, problem)
    if (.not. pairs) call run_on_elements('complex', buffers, 4, problem)
  end subroutine run_complex

  !> Runs an element-wise kernel, in parts that fit the driver's maximum block size.
  subroutine run_on_elements(name, buffers, element_bytes, problem)
    character(len=*), intent(in) :: name
    integer(int64), intent(in) :: buffers(:)
    integer, intent(in) :: element_bytes
    character(len=:), allocatable, intent(inout) :: problem
    integer(int64) :: first, elements, length, part
    integer :: i

    if (size(buffers) /= merge(2, 3, name == 'saxpy')) then
      problem = name // ' takes three arguments'
      return
    end if
    elements = huge(elements)
    do i = 1, size(buffers)
      elements = min(elements, gl_bytes_of(buffers(i)) / element_bytes)
    end do
    call use(name, problem)
    if (problem /= '') return
    ! Every driver accepts these offsets for a binding.
    part = max(1_int64, min(gl_largest_block(), 2_int64**30) / element_bytes / 1024) * 1024
    do first = 0, elements - 1, part
      length = min(part, elements - first)
      do i = 1, size(buffers)
        call glBindBufferRange(GL_SHADER_STORAGE_BUFFER, int(i - 1, c_int32_t), int(buffers(i), c_int32_t), &
          first * element_bytes, length * element_bytes)
      end do
      call glUniform1ui(0_c_int32_t, int(length, c_int32_t))
      call dispatch(length)
    end do
  end subroutine run_on_elements

  !> C = A B for column-major matrices. The kernel is row-major, so it computes C**T = B**T A**T.
  subroutine run_gemm(buffers, global_size, problem)
    integer(int64), intent(in) :: buffers(:)
    integer, intent(in) :: global_size(:)
    character(len=:), allocatable, intent(inout) :: problem
    integer(int64) :: m, n, k, outputs, first, slice

    call gemm_sizes(buffers, global_size, m, n, k, problem)
    if (problem /= '') return
    call use('gemm', problem)
    if (problem /= '') return
    outputs = m * n
    call bind_whole([buffers(2), buffers(1), buffers(3)])
    call glUniform1ui(0_c_int32_t, int(n, c_int32_t))
    call glUniform1ui(1_c_int32_t, int(m, c_int32_t))
    call glUniform1ui(2_c_int32_t, int(k, c_int32_t))
    slice = max(1_int64, MAX_ITERATIONS / ((outputs - 1) / (GROUP * MAX_GROUPS) + 1) - 1)
    do first = 0, k - 1, slice
      call glUniform1ui(3_c_int32_t, int(first, c_int32_t))
      call glUniform1ui(4_c_int32_t, int(min(first + slice, k), c_int32_t))
      call dispatch(outputs)
      call glMemoryBarrier(GL_ALL_BARRIER_BITS)
    end do
  end subroutine run_gemm

  !> Determines m, n and k from the fourth buffer, or from `global_size` and the buffers' sizes.
  subroutine gemm_sizes(buffers, global_size, m, n, k, problem)
    integer(int64), intent(in) :: buffers(:)
    integer, intent(in) :: global_size(:)
    integer(int64), intent(out) :: m, n, k
    character(len=:), allocatable, intent(inout) :: problem
    integer(c_int32_t), target :: sizes(3)
    integer(int64) :: bytes(3)
    integer :: i

    m = 0; n = 0; k = 0
    if (size(buffers) /= 3 .and. size(buffers) /= 4) then
      problem = 'gemm takes A, B and C, and optionally a buffer with m, n and k'
      return
    end if
    bytes = [(gl_bytes_of(buffers(i)), i=1, 3)]
    if (size(buffers) == 4) then
      sizes = 0
      if (gl_bytes_of(buffers(4)) >= 12) call gl_read(buffers(4), c_loc(sizes), 12_int64)
      m = sizes(1); n = sizes(2); k = sizes(3)
      if (min(m, n, k) < 1) then
        problem = 'the fourth buffer does not hold m, n and k'
      else if (any(bytes / 4 < [m * k, k * n, m * n])) then
        problem = 'A, B or C is too small for m, n and k'
      end if
    else
      if (size(global_size) < 2 .or. any(global_size > huge(0_c_int32_t)) .or. any(global_size(3:) /= 1)) then
        problem = 'global_size is not [m, n]'
        return
      end if
      m = global_size(1); n = global_size(2)
      ! This is the only possible k, and it is certain only if all three sizes match exactly.
      k = bytes(1) / 4 / m
      if (k < 1 .or. any(mod(bytes, 4_int64) /= 0) .or. any(bytes / 4 /= [m * k, k * n, m * n])) &
        problem = 'the sizes of A, B and C do not match m x k, k x n and m x n for any k'
    end if
    if (problem == '' .and. (maxval(bytes) > min(gl_largest_block(), 2_int64**33 - 4))) &
      problem = 'a matrix is larger than the driver''s maximum block size'
    if (problem == '' .and. any(buffers(:2) == buffers(3))) problem = 'C is the same buffer as A or B'
  end subroutine gemm_sizes

  subroutine run_reduction(buffers, global_size, problem)
    integer(int64), intent(in) :: buffers(:)
    integer, intent(in) :: global_size(:)
    character(len=:), allocatable, intent(inout) :: problem
    integer(int64) :: elements, blocks, groups
    type(gpu_buffer_t) :: partial

    if (size(buffers) /= 1 .and. size(buffers) /= 2) then
      problem = 'reduction takes data, or x and sums'
      return
    end if
    elements = gl_bytes_of(buffers(1)) / 4
    ! In place, elements after the requested ones would enter the last sum.
    if (size(buffers) == 1) elements = min(elements, int(global_size(1), int64))
    blocks = (elements - 1) / GROUP + 1
    if (elements > min(gl_largest_block() / 4, 2_int64**31 - 1)) then
      problem = 'the buffer is larger than the driver''s maximum block size'
    else if (size(buffers) == 2) then
      groups = max(1_int64, min(blocks, MAX_GROUPS, gl_bytes_of(buffers(2)) / 4))
      if (elements / (groups * GROUP) > MAX_ITERATIONS) problem = 'sums has too few elements for the length of x'
      if (buffers(1) == buffers(2)) problem = 'sums and x are the same buffer'
      if (problem == '') call use('sums', problem)
      if (problem /= '') return
      call bind_whole(buffers)
      call glDispatchCompute(int(groups, c_int32_t), 1_c_int32_t, 1_c_int32_t)
    else
      call use('block_sums', problem)
      if (problem /= '') return
      ! Not in place, because a sum could overwrite elements that another workgroup has not read yet.
      partial = c_create_buffer(c_null_ptr, int(4 * blocks, c_size_t))
      if (partial%buffer_id == 0) then
        problem = 'the GPU has no memory for the partial sums'
        return
      end if
      call glBindBufferRange(GL_SHADER_STORAGE_BUFFER, 0_c_int32_t, int(buffers(1), c_int32_t), 0_c_int64_t, 4 * elements)
      call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 1_c_int32_t, partial%buffer_id)
      call dispatch(blocks * GROUP)
      call glMemoryBarrier(GL_ALL_BARRIER_BITS)
      call glBindBuffer(GL_COPY_READ_BUFFER, partial%buffer_id)
      call glBindBuffer(GL_COPY_WRITE_BUFFER, int(buffers(1), c_int32_t))
      call glCopyBufferSubData(GL_COPY_READ_BUFFER, GL_COPY_WRITE_BUFFER, 0_c_int64_t, 0_c_int64_t, 4 * blocks)
      call glBindBuffer(GL_COPY_READ_BUFFER, 0_c_int32_t)
      call glBindBuffer(GL_COPY_WRITE_BUFFER, 0_c_int32_t)
      call c_free_buffer(partial)
    end if
  end subroutine run_reduction

  !> Makes the named kernel's program current.
  subroutine use(name, problem)
    character(len=*), intent(in) :: name
    character(len=:), allocatable, intent(inout) :: problem
    integer(c_int32_t) :: program_id

    program_id = program_of(name)
    if (program_id == 0) problem = 'the shader of the kernel could not be built'
    if (program_id /= 0) call glUseProgram(program_id)
  end subroutine use

  !> Binds whole buffers to the indices 0, 1, ...
  subroutine bind_whole(buffers)
    integer(int64), intent(in) :: buffers(:)
    integer :: i

    do i = 1, size(buffers)
      call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, int(i - 1, c_int32_t), int(buffers(i), c_int32_t))
    end do
  end subroutine bind_whole

  !> Starts one invocation per unit, up to the number that every driver allows: the kernels loop over the rest.
  subroutine dispatch(units)
    integer(int64), intent(in) :: units

    call glDispatchCompute(int(min((units - 1) / GROUP + 1, MAX_GROUPS), c_int32_t), 1_c_int32_t, 1_c_int32_t)
  end subroutine dispatch

  !> Sets the caller's `stat` and `errmsg`.
  subroutine settle(procedure_name, problem, stat, errmsg)
    character(len=*), intent(in) :: procedure_name, problem
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg

    if (present(stat)) stat = merge(0, -1, problem == '')
    if (present(errmsg) .and. problem /= '') errmsg = procedure_name // ': ' // problem
  end subroutine settle

  !> Waits until the GPU has finished all work.
  subroutine gpu_synchronize()
    type(driver_float_env) :: env

    call env%enter()
    if (gl_is_ready()) call glFinish()
  end subroutine gpu_synchronize

  !> Computes one convolution on the GPU. Returns the kernel's milliseconds, or -1 with `output` untouched.
  function execute_conv2d_gpu(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) result(time_ms)
    real(real32), intent(in) :: input(:), weights(:)
    real(real32), intent(out) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: time_ms

    time_ms = gpu_execute_conv2d_ref(input, weights, output, &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
  end function execute_conv2d_gpu

  !> The program of a kernel, built once per context; 0 if that fails.
  integer(c_int32_t) function program_of(name)
    character(len=*), intent(in) :: name
    integer :: number

    program_of = 0
    number = findloc(KERNEL_NAMES, name, dim=1)
    if (number == 0) return
    if (.not. gl_is_ready()) return
    call gl_build('sparkle_gpu_dispatch ' // name, source_of(name), programs(number))
    program_of = programs(number)
  end function program_of
end module sparkle_gpu_dispatch
