!> The shader sources of `sparkle_gpu_kernels`, compiled and dispatched by this program, with the reference framework's bindings,
!> uniform names and grids. Every element is checked. Needs a GL device, and libGL.
program kernel_texts
  use, intrinsic :: iso_c_binding, only: c_char, c_float, c_int, c_int32_t, c_loc, c_null_char
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use checks
  use gpu_opengl_interface, only: gpu_cleanup, gpu_init
  use sparkle_gl
  use sparkle_gpu_dispatch, only: gpu_free, gpu_malloc, gpu_memcpy, gpu_memory, GPU_TO_HOST, HOST_TO_GPU
  use sparkle_gpu_kernels
  implicit none
  integer, parameter :: LENGTH = 5001, GROUPS = 20
  integer(c_int32_t) :: program_id

  interface
    function location_of(program_id, name) bind(C, name="glGetUniformLocation") result(location)
      import :: c_char, c_int
      integer(c_int), value :: program_id
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int) :: location
    end function location_of
  end interface

  call check(gpu_init(), 'gpu_init')
  call check(gl_is_ready(), 'GL')
  call vector_add()
  call saxpy()
  call complex_numbers()
  call gemm(16, 16, 16)
  call gemm(33, 17, 40)
  call gemm(1, 5, 300)
  call reduction(LENGTH)
  call reduction(256)
  call reduction(70000)
  call gpu_cleanup()
  call finish()

contains

  subroutine build(source)
    character(len=*), intent(in) :: source

    call check(index(source, '#version 430') == 1, 'the source has a version line')
    program_id = 0
    call gl_build('a source of sparkle_gpu_kernels', source, program_id)
    call check(program_id /= 0, 'it builds')
    call glUseProgram(program_id)
  end subroutine build

  !> Sets a uniform, which must exist.
  subroutine set(name, value)
    character(len=*), intent(in) :: name
    integer, intent(in) :: value
    integer(c_int) :: location

    location = location_of(program_id, name // c_null_char)
    call check(location >= 0, 'the uniform ' // name)
    call glUniform1ui(location, int(value, c_int32_t))
  end subroutine set

  function bound(values, index) result(mem)
    real(real32), intent(in), target, contiguous :: values(:)
    integer, intent(in) :: index
    type(gpu_memory) :: mem

    mem = gpu_malloc(4_int64 * size(values))
    call gpu_memcpy(mem, c_loc(values), mem%size_bytes, HOST_TO_GPU)
    call glBindBufferBase(GL_SHADER_STORAGE_BUFFER, int(index, c_int32_t), int(mem%gpu_ptr, c_int32_t))
  end function bound

  !> Dispatches the program and copies the result to the host.
  subroutine run(x_groups, y_groups, mem, values)
    integer, intent(in) :: x_groups, y_groups
    type(gpu_memory), intent(in) :: mem
    real(real32), intent(inout), target, contiguous :: values(:)

    call glDispatchCompute(int(x_groups, c_int32_t), int(y_groups, c_int32_t), 1_c_int32_t)
    call glMemoryBarrier(GL_ALL_BARRIER_BITS)
    values = huge(values)
    call gpu_memcpy(mem, c_loc(values), 4_int64 * size(values), GPU_TO_HOST)
  end subroutine run

  subroutine vector_add()
    type(gpu_memory) :: args(3)
    real(real32) :: x(LENGTH), y(LENGTH), z(LENGTH)

    x = data_of(LENGTH, 1)
    y = data_of(LENGTH, 2)
    z = 9.0_real32
    args = [bound(x, 0), bound(y, 1), bound(z, 2)]
    call build(get_vector_add_shader())
    call set('n', 1000)
    call run(4, 1, args(3), z)
    call check(same_bits(z(:1000), x(:1000) + y(:1000)) .and. all(abs(z(1001:) - 9.0_real32) <= 0.0_real32), 'n elements')
    call set('n', LENGTH)
    call run(GROUPS, 1, args(3), z)
    call check(same_bits(z, x + y), 'all elements')
    ! n is zero, as if it were not set, and the grid is too small.
    call glUniform1ui(location_of(program_id, 'n' // c_null_char), 0_c_int32_t)
    args(3) = bound(9.0_real32 + x, 2)
    call run(3, 2, args(3), z)
    call check(same_bits(z, x + y), 'without n')
    call free(args)
  end subroutine vector_add

  subroutine saxpy()
    type(gpu_memory) :: args(2)
    real(real32) :: x(LENGTH), y(LENGTH), after(LENGTH)

    x = data_of(LENGTH, 3)
    y = data_of(LENGTH, 4)
    args = [bound(x, 0), bound(y, 1)]
    call build(get_saxpy_shader())
    call set('n', LENGTH)
    call check(location_of(program_id, 'alpha' // c_null_char) >= 0, 'the uniform alpha')
    call glUniform1f(location_of(program_id, 'alpha' // c_null_char), -4.0_c_float)
    call run(GROUPS, 1, args(2), after)
    ! Multiplying by four is exact, so a fused multiply-add gives the same result.
    call check(same_bits(after, y - 4.0_real32 * x), 'y = alpha x + y')
    call free(args)
  end subroutine saxpy

  subroutine complex_numbers()
    type(gpu_memory) :: args(3)
    real(real32) :: x(LENGTH), y(LENGTH), z(LENGTH)
    real(real64) :: expected
    integer :: i, wrong

    x = data_of(LENGTH, 5)
    y = data_of(LENGTH, 6)
    z = 0.0_real32
    args = [bound(x, 0), bound(y, 1), bound(z, 2)]
    call build(get_complex_shader())
    call set('n', LENGTH)
    call run(GROUPS, 1, args(3), z)
    wrong = 0
    do i = 1, LENGTH
      expected = sqrt(real(x(i), real64)**2 + real(y(i), real64)**2)
      if (abs(z(i) - expected) > 1.0e-6_real64 * expected + 1.0e-20_real64) wrong = wrong + 1
    end do
    call check(wrong == 0, 'z = sqrt(x**2 + y**2)')
    call free(args)
  end subroutine complex_numbers

  !> The shader is row-major, so the matrices are transposed in Fortran.
  subroutine gemm(m, n, k)
    integer, intent(in) :: m, n, k
    type(gpu_memory) :: args(3)
    real(real32) :: a(k, m), b(n, k), c(n * m)

    a = reshape(anint(3.0_real32 * data_of(m * k, 7)), [k, m])
    b = reshape(anint(3.0_real32 * data_of(k * n, 8)), [n, k])
    c = 0.0_real32
    args = [bound([a], 0), bound([b], 1), bound(c, 2)]
    call build(get_gemm_shader())
    call set('M', m)
    call set('N', n)
    call set('K', k)
    call run((n + 15) / 16, (m + 15) / 16, args(3), c)
    call check(all(abs(reshape(c, [n, m]) - matmul(real(b, real64), real(a, real64))) <= 0.0_real64), 'C = A B')
    call check(any(abs(c) > 0.5_real32), 'C is not zero')
    call free(args)
  end subroutine gemm

  subroutine reduction(n)
    integer, intent(in) :: n
    type(gpu_memory) :: args(1)
    real(real32), allocatable :: x(:), after(:)
    integer :: i, blocks

    allocate (x(n + 5), after(n + 5))
    x = anint(5.0_real32 * data_of(n + 5, 9))
    args = [bound(x, 0)]
    blocks = (n + 255) / 256
    call build(get_reduction_shader())
    call set('n', n)
    call run(blocks, 1, args(1), after)
    do i = 1, blocks
      call check(nint(after(i)) == nint(sum(x(256 * i - 255:min(256 * i, n)))), 'the sum of a block')
    end do
    call check(same_bits(after(blocks + 1:), x(blocks + 1:)), 'elements after the sums are unchanged')
    call free(args)
  end subroutine reduction

  subroutine free(args)
    type(gpu_memory), intent(inout) :: args(:)
    integer :: i

    do i = 1, size(args)
      call gpu_free(args(i))
    end do
  end subroutine free
end program kernel_texts
