!> The kernels of `tests/kernels/reference` on OpenGL, through every dispatcher of the reference modules and every way that
!> scalars arrive, in contexts of desktop OpenGL and of OpenGL ES. All data are small integers, so results are exact. Run it
!> in the repository's folder. Needs a GL device.
module dispatch_cases
  use, intrinsic :: iso_c_binding, only: c_float, c_int, c_int32_t, c_int64_t, c_intptr_t, c_loc, c_null_ptr, c_ptr, c_size_t
  use, intrinsic :: iso_fortran_env, only: int32, real32, real64
  use checks
  use sparkle_fortran_params
  use sparkle_fortran_shaders
  use sparkle_fortran_shaders_v2
  use sparkle_gl, only: gl_had_error, gl_integer, glBindBufferBase, GL_SHADER_STORAGE_BUFFER
  use sparkle_gpu_executor
  use sparkle_shader_parser_v2
  implicit none
  public

  character(len=*), parameter :: FOLDER = 'tests/kernels/reference/'
  integer, parameter :: KERNELS = 16
  !> Elements after the last point, which no kernel may touch.
  integer, parameter :: REST = 7
  integer(c_int32_t), parameter :: CURRENT_PROGRAM = int(z'8B8D', c_int32_t)

  type :: floats
    real(real32), allocatable :: x(:)
  end type floats

  !> A kernel with data, and what its last buffer holds afterwards.
  type :: test_case
    character(len=:), allocatable :: file, name
    integer :: points = 0
    integer, allocatable :: scalars(:)
    character(len=16), allocatable :: names(:)
    type(floats), allocatable :: buffers(:)
    !> The buffer that is written.
    integer :: out = 1
    real(real32), allocatable :: expected(:)
  end type test_case

contains

  !> Whole numbers from -3 to 3.
  function whole(length, seed) result(x)
    integer, intent(in) :: length, seed
    real(real32) :: x(length)

    x = anint(3.0_real32 * data_of(length, seed))
  end function whole

  type(test_case) function case_number(number) result(c)
    integer, intent(in) :: number
    integer, parameter :: N = 1000
    integer :: i

    c%points = N
    allocate (c%scalars(0), c%names(0), c%buffers(3), c%expected(0))
    do i = 1, 3
      c%buffers(i)%x = whole(N + REST, number + 20 * i)
    end do
    select case (number)
    case (1)
      call say('kernels', 'store_deadbeef', 1, 1)
      c%expected = [(transfer(-559038737_int32, 1.0_real32), i=1, N)]
    case (2)
      call say('kernels', 'saxpy', 2, 2)
      c%scalars = [5]
      c%names = ['a']
      c%expected = real(5.0_real64 * c%buffers(1)%x(:N) + c%buffers(2)%x(:N), real32)
    case (3)
      call say('kernels', 'vector_add', 2, 2)
      c%expected = c%buffers(1)%x(:N) + c%buffers(2)%x(:N)
    case (4)
      call say('kernels', 'vector_scale', 1, 1)
      c%scalars = [-7]
      c%names = ['scale']
      c%expected = real(-7.0_real64 * c%buffers(1)%x(:N), real32)
    case (5)
      call say('test_simple_kernel', 'simple_add', 2, 2)
      c%scalars = [9]
      c%names = ['alpha']
      c%expected = real(c%buffers(1)%x(:N) + 9.0_real64, real32)
    case (6)
      call say('kernels_adaptive', 'scaled_add', 3, 3)
      c%scalars = [3]
      c%names = ['scale']
      c%expected = real(c%buffers(1)%x(:N) + 3.0_real64 * c%buffers(2)%x(:N), real32)
    case (7)
      call say('kernels_adaptive', 'param_test', 1, 1)
      c%scalars = [-2147483647 - 1, 1]
      c%names = [character(len=16) :: 'kernel_h', 'kernel_w']
      c%expected = [(transfer(-2147483647_int32 - 1_int32, 1.0_real32), i=1, N)]
    case (8)
      call say('kernels_adaptive', 'im2col_simple', 2, 2)
      c%scalars = [5, 6, 3, 2]
      c%names = [character(len=16) :: 'height', 'width', 'kernel_h', 'kernel_w']
      call resize([30, 180])
      c%expected = [columns(c%buffers(1)%x, 5, 6, 3, 2)]
    case (9)
      call say('kernels_adaptive', 'gemm_parameterized', 3, 3)
      c%scalars = [7, 11, 13]
      c%names = [character(len=16) :: 'm', 'n', 'k']
      call resize([91, 143, 77])
      c%expected = real(product_of(c%buffers(1)%x, c%buffers(2)%x, 7, 11, 13), real32)
    case (10)
      call say('kernels_convolution', 'im2col_nhwc', 2, 2)
      c%scalars = [2, 5, 6, 3, 3, 2, 2, 1, 3, 4]
      c%names = [character(len=16) :: 'batch', 'height', 'width', 'channels', 'kernel_h', 'kernel_w', 'stride', 'pad', &
        'height_out', 'width_out']
      call resize([180, 432])
      c%expected = [columns_nhwc(c%buffers(1)%x)]
    case (11)
      call say('kernels_convolution', 'gemm_tiled', 3, 3)
      c%scalars = [7, 11, 13, 2, -3]
      c%names = [character(len=16) :: 'M', 'N', 'K', 'alpha', 'beta']
      call resize([91, 143, 77])
      c%expected = real(2.0_real64 * product_of(c%buffers(1)%x, c%buffers(2)%x, 7, 11, 13) &
        - 3.0_real64 * c%buffers(3)%x(:77), real32)
    case (12, 14)
      if (number == 12) call say('kernels_convolution', 'conv2d_direct', 3, 3)
      if (number == 14) call say('convolution_kernels', 'conv2d_direct', 3, 3)
      c%scalars = [2, 3, 7, 9, 4, 3, 2, 1, 4, 5]
      c%names = [character(len=16) :: 'batch', 'channels', 'height', 'width', 'filters', 'kernel_size', 'stride', 'pad', &
        'height_out', 'width_out']
      if (number == 14) c%names = [character(len=16) :: 'N', 'C', 'H', 'W', 'K', 'kernel_size', 'stride', 'pad', 'H_out', &
        'W_out']
      call resize([378, 108, 160])
      c%expected = convolved(c%buffers(1)%x, c%buffers(2)%x)
    case (13)
      call say('kernels_convolution_annotated', 'gemm_tiled', 3, 3)
      c%scalars = [7, 11, 13]
      c%names = [character(len=16) :: 'M', 'N', 'K']
      call resize([91, 143, 77])
      c%expected = real(product_of(c%buffers(1)%x, c%buffers(2)%x, 7, 11, 13), real32)
    case (15)
      call say('test_conv_simple', 'conv_simple', 3, 3)
      c%expected = c%buffers(1)%x(:N) * c%buffers(2)%x(:N)
    case (16)
      call say('test_multiline_kernel', 'multiline_test', 3, 3)
      c%scalars = [3, -100]
      c%names = [character(len=16) :: 'scale', 'offset']
      c%expected = real(3.0_real64 * c%buffers(1)%x(:N) + c%buffers(2)%x(:N) - 100.0_real64, real32)
    end select
    c%points = size(c%expected)
    c%expected = [c%expected, c%buffers(c%out)%x(c%points + 1:)]

  contains

    subroutine say(file, name, buffers, out)
      character(len=*), intent(in) :: file, name
      integer, intent(in) :: buffers, out

      c%file = FOLDER // file // '.f90'
      c%name = name
      c%buffers = c%buffers(:buffers)
      c%out = out
    end subroutine say

    !> Inputs as long as the kernel needs, and an output with a rest.
    subroutine resize(lengths)
      integer, intent(in) :: lengths(:)
      integer :: k

      do k = 1, size(lengths)
        c%buffers(k)%x = whole(lengths(k) + merge(REST, 0, k == c%out), number + 20 * k)
      end do
    end subroutine resize
  end function case_number

  pure function product_of(a, b, m, n, k) result(c)
    real(real32), intent(in) :: a(:), b(:)
    integer, intent(in) :: m, n, k
    real(real64) :: c(m * n)
    integer :: row, column, p

    c = 0.0_real64
    do row = 0, m - 1
      do column = 0, n - 1
        do p = 0, k - 1
          c(row * n + column + 1) = c(row * n + column + 1) + real(a(row * k + p + 1), real64) * b(p * n + column + 1)
        end do
      end do
    end do
  end function product_of

  pure function columns(image, height, width, kernel_h, kernel_w) result(matrix)
    real(real32), intent(in) :: image(:)
    integer, intent(in) :: height, width, kernel_h, kernel_w
    real(real32) :: matrix(kernel_w, kernel_h, width, height)
    integer :: y, x, i, j

    matrix = 0.0_real32
    do y = 1, height
      do x = 1, width
        do j = 0, min(kernel_h, height - y + 1) - 1
          do i = 0, min(kernel_w, width - x + 1) - 1
            matrix(i + 1, j + 1, x, y) = image((y + j - 1) * width + x + i)
          end do
        end do
      end do
    end do
  end function columns

  !> 2 images of 5 x 6 with 3 channels; 3 x 2 taps, stride 2, padding 1; 3 x 4 positions.
  pure function columns_nhwc(images) result(matrix)
    real(real32), intent(in) :: images(:)
    real(real32) :: matrix(3, 2, 3, 4, 3, 2), padded(3, 0:7, 0:6, 2)
    integer :: x, y

    padded = 0.0_real32
    padded(:, 1:6, 1:5, :) = reshape(images(:180), [3, 6, 5, 2])
    do y = 1, 3
      do x = 1, 4
        matrix(:, :, :, x, y, :) = padded(:, 2 * x - 2:2 * x - 1, 2 * y - 2:2 * y, :)
      end do
    end do
  end function columns_nhwc

  function convolved(images, weights) result(y)
    real(real32), intent(in) :: images(:), weights(:)
    real(real32) :: y(160)
    real(real64) :: exact(160), scale(160)
    type(conv), parameter :: CV = conv(n=2, c=3, h=7, w=9, k=4, r=3, s=3, stride_h=2, stride_w=2, pad_h=1, pad_w=1)

    call convolve(CV, images, weights, y=exact, scale=scale)
    y = real(exact, real32)
  end function convolved

  !> New buffers with the case's data.
  subroutine upload(exec, c)
    type(gpu_executor), intent(inout) :: exec
    type(test_case), intent(in), target :: c
    integer(c_int) :: name
    integer :: i, stat

    do i = 1, size(c%buffers)
      name = create_buffer(exec, 4_c_size_t * size(c%buffers(i)%x), i - 1)
      call check(name > 0, 'create_buffer')
      call update_buffer(name, c_loc(c%buffers(i)%x), 4_c_size_t * size(c%buffers(i)%x), stat)
      call check(stat == 0, 'update_buffer')
    end do
  end subroutine upload

  !> The buffers' GL names as the dispatchers take them.
  function handles(exec, number) result(buffers)
    type(gpu_executor), intent(in) :: exec
    integer, intent(in) :: number
    type(c_ptr) :: buffers(number)
    integer :: i

    do i = 1, number
      buffers(i) = transfer(int(exec%buffers(i)%id, c_intptr_t), c_null_ptr)
    end do
  end function handles

  !> Checks the written buffer, and that all others are as before.
  subroutine check_buffers(exec, c, expected, what)
    type(gpu_executor), intent(in) :: exec
    type(test_case), intent(in) :: c
    real(real32), intent(in) :: expected(:)
    character(len=*), intent(in) :: what
    integer :: i

    do i = 1, size(c%buffers)
      if (i == c%out) then
        call check_one(exec%buffers(i)%id, expected, what // ' ' // c%name)
      else
        call check_one(exec%buffers(i)%id, c%buffers(i)%x, what // ' ' // c%name // ': an input')
      end if
    end do
    call check(.not. gl_had_error(), what // ' ' // c%name // ': GL errors')
  end subroutine check_buffers

  subroutine check_one(name, expected, what)
    integer(c_int), intent(in) :: name
    real(real32), intent(in) :: expected(:)
    character(len=*), intent(in) :: what
    real(real32), target :: found(size(expected))
    integer :: stat

    call read_buffer(name, c_loc(found), 4_c_size_t * size(found), stat)
    call check(stat == 0 .and. same_bits(found, expected), what)
  end subroutine check_one

  !> A buffer with the parameter block, bound at 15: four bytes for the index and for each scalar here.
  subroutine bind_block(exec, c)
    type(gpu_executor), intent(inout) :: exec
    type(test_case), intent(in) :: c
    type(shader_kernel_v2) :: kernel
    integer(int32), allocatable, target :: block(:)
    integer(c_int) :: name
    integer :: i

    kernel = parse_fortran_kernel_v2(c%file, c%name)
    allocate (block(1 + size(c%scalars)))
    block(1) = 12345
    do i = 1, size(c%scalars)
      block(i + 1) = int(c%scalars(i), int32)
      if (kernel%params(i + 1)%type_str == 'float') block(i + 1) = transfer(real(c%scalars(i), real32), 0_int32)
    end do
    name = create_buffer(exec, 4_c_size_t * size(block), PARAM_BUFFER_BINDING)
    call update_buffer(name, c_loc(block), 4_c_size_t * size(block))
    call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, int(PARAM_BUFFER_BINDING, c_int32_t), int(name, c_int32_t))
  end subroutine bind_block

  subroutine unbind_block()
    call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, int(PARAM_BUFFER_BINDING, c_int32_t), 0_c_int32_t)
  end subroutine unbind_block

  !> One kernel through everything, in the current context.
  subroutine one_kernel(c)
    type(test_case), intent(in) :: c
    type(gpu_executor) :: exec
    integer :: status, method, form

    ! Scalars from the program's own buffer.
    call upload(exec, c)
    call bind_block(exec, c)
    call sporkle_compile_and_dispatch(c%file, c%name, c%points, handles(exec, size(c%buffers)), status)
    call check(status == 0, c%name // ': dispatch')
    call check_buffers(exec, c, c%expected, 'dispatch')
    call sporkle_set_param_method(PARAMS_BUFFER)
    call upload(exec, c)
    call sporkle_compile_and_dispatch_v2(c%file, c%name, c%points, handles(exec, size(c%buffers)), status=status)
    call check(status == 0, c%name // ': v2 with a bound buffer')
    call check_buffers(exec, c, c%expected, 'v2 with a bound buffer')
    call unbind_block()
    do method = 1, 3
      call sporkle_set_param_method(method)
      do form = 1, 3
        call upload(exec, c)
        select case (form)
        case (1)
          call sporkle_compile_and_dispatch_v2(c%file, c%name, c%points, handles(exec, size(c%buffers)), &
            param_values=c%scalars, status=status)
        case (2)
          call sporkle_compile_and_dispatch_v2(c%file, c%name, c%points, handles(exec, size(c%buffers)), &
            param_values=[777, c%scalars], status=status)
        case (3)
          call sporkle_compile_and_dispatch_v2(c%file, c%name, c%points, handles(exec, size(c%buffers)), &
            c%names(size(c%names):1:-1), c%scalars(size(c%scalars):1:-1), status)
        end select
        call check(status == 0, c%name // ': v2')
        call check_buffers(exec, c, c%expected, 'v2')
      end do
      call without_values(exec, c)
      call execute(exec, c, method)
    end do
    call cleanup_executor(exec)
  end subroutine one_kernel

  !> Scalars without values are refused, and nothing runs.
  subroutine without_values(exec, c)
    type(gpu_executor), intent(inout) :: exec
    type(test_case), intent(in) :: c
    integer :: status

    call upload(exec, c)
    status = 5
    call sporkle_compile_and_dispatch_v2(c%file, c%name, c%points, handles(exec, size(c%buffers)), status=status)
    if (size(c%scalars) == 0) then
      call check(status == 0, c%name // ': no values are needed')
      call check_buffers(exec, c, c%expected, 'without values')
    else
      call check(status == -1, c%name // ': values are needed')
      call check_buffers(exec, c, c%buffers(c%out)%x, 'untouched')
    end if
  end subroutine without_values

  subroutine execute(exec, c, method)
    type(gpu_executor), intent(inout) :: exec
    type(test_case), intent(in) :: c
    integer, intent(in) :: method
    type(shader_kernel_v2) :: kernel
    real(real32), allocatable :: values(:)
    integer :: stat

    kernel = parse_fortran_kernel_v2(c%file, c%name, method)
    call initialize_executor(exec, kernel, stat)
    call check(stat == 0 .and. exec%initialized, c%name // ': initialize_executor')
    call check(exec%num_buffers >= size(c%buffers), 'it keeps its buffers')
    call check((exec%param_buffer /= 0) .eqv. (method == PARAMS_BUFFER .and. size(c%scalars) > 0), 'a buffer for params')
    values = real(c%scalars, real32)
    call upload(exec, c)
    call execute_kernel(exec, kernel, c%points, values, stat)
    call check(stat == 0 .and. exec%program > 0 .and. exec%shader > 0, c%name // ': execute_kernel')
    call check_buffers(exec, c, c%expected, 'executor')
    if (exec%buffers(1)%id > 0 .and. size(values) > 0) then
      call upload(exec, c)
      call execute_kernel(exec, kernel, c%points, stat=stat)
      call check(stat == -1, c%name // ': the executor needs values')
      call check_buffers(exec, c, c%buffers(c%out)%x, 'executor, untouched')
    end if
    call upload(exec, c)
    call execute_kernel(exec, kernel, c%points, [0.0_real32, values], stat)
    call check(stat == 0, c%name // ': with the index')
    call check_buffers(exec, c, c%expected, 'executor with the index')
    ! Another local size is another program.
    if (kernel%local_size_x /= 128) then
      kernel%local_size_x = 128
      call upload(exec, c)
      call execute_kernel(exec, kernel, c%points, values, stat)
      call check(stat == 0, c%name // ': another local size')
      call check_buffers(exec, c, c%expected, 'another local size')
    end if
  end subroutine execute
end module dispatch_cases

program kernel_dispatch
  use dispatch_cases
  use gpu_opengl_interface, only: gpu_cleanup, gpu_init
  implicit none
  type(glsl_context) :: ctx(2)
  integer :: i

  ! In one context after another, so that names of programs mean other things.
  call check(gpu_init(), 'gpu_init')
  do i = 1, KERNELS
    call one_kernel(case_number(i))
  end do
  call check(glsl_init(ctx(1)) == 0 .and. ctx(1)%initialized, 'glsl_init')
  do i = 1, KERNELS
    call one_kernel(case_number(i))
  end do
  call check(glsl_init(ctx(2)) == 0, 'glsl_init again')
  call one_kernel(case_number(2))
  call glsl_cleanup(ctx(1))
  call one_kernel(case_number(16))
  call glsl_cleanup(ctx(2))
  do i = 1, 20
    call check(glsl_init(ctx(1)) == 0, 'glsl_init many times')
    if (mod(i, 10) == 0) call one_kernel(case_number(1 + mod(i, 3)))
    call glsl_cleanup(ctx(1))
    call check(.not. ctx(1)%initialized, 'glsl_cleanup')
  end do
  call check(gpu_init(), 'gpu_init again')
  call one_kernel(case_number(12))
  call gpu_cleanup()
  call finish()
end program kernel_dispatch
