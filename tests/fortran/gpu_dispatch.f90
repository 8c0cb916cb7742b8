!> `sparkle_gpu_dispatch` on a GL device: memory that is really allocated and copied, kernels that really run. Needs one.
program gpu_dispatch
  use, intrinsic :: iso_c_binding, only: c_loc, c_null_ptr, c_ptr
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use checks
  use gpu_opengl_interface, only: gpu_cleanup
  use sparkle_gpu_dispatch
  implicit none
  integer, parameter :: MANY = 10003
  type(gpu_device) :: device

  device = init_gpu_device()
  call check(device%initialized, 'a device')
  call memory()
  call vector_add()
  call saxpy()
  call gemm()
  call reduction()
  call complex_product()
  call bad_launches()
  call kernels_survive_cleanup()
  call finish()

contains

  !> GPU memory with `values` in it.
  function uploaded(values) result(mem)
    real(real32), intent(in), target, contiguous :: values(:)
    type(gpu_memory) :: mem
    integer :: stat

    mem = gpu_malloc(4_int64 * size(values))
    call check(mem%allocated .and. mem%gpu_ptr > 0 .and. mem%size_bytes == 4_int64 * size(values), 'gpu_malloc')
    call gpu_memcpy(mem, c_loc(values), mem%size_bytes, HOST_TO_GPU, stat)
    call check(stat == 0, 'gpu_memcpy to the GPU')
  end function uploaded

  !> What is in GPU memory.
  subroutine download(mem, values)
    type(gpu_memory), intent(in) :: mem
    real(real32), intent(inout), target, contiguous :: values(:)
    integer :: stat

    call gpu_memcpy(c_loc(values), mem, 4_int64 * size(values), GPU_TO_HOST, stat)
    call check(stat == 0, 'gpu_memcpy to the host')
  end subroutine download

  subroutine memory()
    type(gpu_memory) :: mem, none
    real(real32), target :: sent(MANY), received(MANY)
    type(c_ptr) :: gpu_side
    integer :: stat

    sent = data_of(MANY, 1)
    mem = uploaded(sent)
    received = 0.0_real32
    call download(mem, received)
    call check(same_bits(sent, received), 'there and back')

    ! The same with C pointers on both sides, a part only.
    gpu_side = transfer(mem%gpu_ptr, c_null_ptr)
    call gpu_memcpy(gpu_side, c_loc(sent(11)), 40_int64, HOST_TO_GPU, stat)
    call check(stat == 0, 'C pointers')
    call gpu_memcpy(c_loc(received), gpu_side, 80_int64, GPU_TO_HOST)
    call check(same_bits(received(:10), sent(11:20)) .and. same_bits(received(11:20), sent(11:20)), 'a part')

    received = 7.0_real32
    call gpu_memcpy(c_loc(received), mem, mem%size_bytes + 4, GPU_TO_HOST, stat)
    call check(stat == -1, 'more than there is')
    call gpu_memcpy(c_loc(received), mem, -4_int64, GPU_TO_HOST, stat)
    call check(stat == -1, 'a negative size')
    call gpu_memcpy(c_loc(received), mem, 4_int64, HOST_TO_GPU, stat)
    call check(stat == -1, 'the wrong direction')
    call gpu_memcpy(c_loc(received), gpu_side, 4_int64, 3, stat)
    call check(stat == -1, 'no direction')
    call gpu_memcpy(c_null_ptr, mem, 4_int64, GPU_TO_HOST, stat)
    call check(stat == -1, 'nowhere')
    call gpu_memcpy(c_loc(received), c_loc(sent), 4_int64, GPU_TO_HOST, stat)
    call check(stat == -1, 'host memory is not GPU memory')
    call check(all(abs(received - 7.0_real32) <= 0.0_real32), 'nothing was copied')

    call gpu_free(mem)
    call check(.not. mem%allocated .and. mem%gpu_ptr == 0 .and. mem%size_bytes == 0, 'gpu_free')
    call gpu_free(mem)
    call gpu_memcpy(c_loc(received), gpu_side, 4_int64, GPU_TO_HOST, stat)
    call check(stat == -1, 'freed memory is gone')
    none = gpu_malloc(0_int64)
    call check(.not. none%allocated, 'no bytes')
    none = gpu_malloc(-8_int64)
    call check(.not. none%allocated, 'fewer than none')
  end subroutine memory

  subroutine vector_add()
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(3)
    real(real32) :: a(MANY), b(MANY), c(MANY)
    integer :: stat, i
    integer, parameter :: GRIDS(3, 4) = reshape([MANY, 1, 1, 1, 1, 1, 30, 7, 3, huge(0), 1, 1], [3, 4])

    kernel = create_gpu_kernel('my sum', 'vector_add')
    call check(kernel%compiled .and. kernel%name == 'my sum' .and. kernel%work_group_size == 256, 'vector_add builds')
    call check(index(kernel%source, '#version') == 1, 'its source')
    a = data_of(MANY, 2)
    b = data_of(MANY, 3)
    c = 0.0_real32
    args = [uploaded(a), uploaded(b), uploaded(c)]
    call launch_gpu_kernel(kernel, args, [MANY])
    call gpu_synchronize()
    call download(args(3), c)
    call check(same_bits(c, a + b), 'vector_add')
    ! Whatever the grid, all of it.
    do i = 1, size(GRIDS, 2)
      c = 0.0_real32
      call gpu_free(args(3))
      args(3) = uploaded(c)
      call launch_gpu_kernel(kernel, args, GRIDS(:, i), [64, 1, 1], stat)
      call download(args(3), c)
      call check(stat == 0 .and. same_bits(c, a + b), 'vector_add on another grid')
    end do
    call free(args)
  end subroutine vector_add

  subroutine saxpy()
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(3)
    real(real32) :: x(1000), y(1000), result(1000)

    kernel = create_gpu_kernel('saxpy', 'saxpy')
    call check(kernel%compiled, 'saxpy builds')
    x = data_of(size(x), 4)
    y = data_of(size(y), 5)
    args = [uploaded([2.0_real32]), uploaded(x), uploaded(y)]
    call launch_gpu_kernel(kernel, args, [size(x)], [256])
    call download(args(3), result)
    ! Times two is exact, so a fused multiply-add rounds the same.
    call check(same_bits(result, 2.0_real32 * x + y), 'saxpy')
    call free(args)
  end subroutine saxpy

  subroutine gemm()
    integer, parameter :: m = 13, n = 9, k = 21
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(4)
    type(c_ptr) :: pointers(4)
    real(real32) :: a(m, k), b(k, n), c(m * n)
    real(real64) :: expected(m, n)
    integer, target :: sizes(3) = [m, n, k]
    integer :: stat, i

    kernel = create_gpu_kernel('gemm', 'gemm')
    call check(kernel%compiled, 'gemm builds')
    a = reshape(data_of(m * k, 6), [m, k])
    b = reshape(data_of(k * n, 7), [k, n])
    c = 0.0_real32
    args = [uploaded([a]), uploaded([b]), uploaded(c), gpu_malloc(12_int64)]
    call gpu_memcpy(args(4), c_loc(sizes), 12_int64, HOST_TO_GPU)
    do i = 1, 4
      pointers(i) = transfer(args(i)%gpu_ptr, c_null_ptr)
    end do
    call launch_gpu_kernel(kernel, pointers, [m, n], [16, 16], stat)
    call download(args(3), c)
    expected = matmul(real(a, real64), real(b, real64))
    call check(stat == 0 .and. all(abs(reshape(c, [m, n]) - expected) <= 1.0e-5_real64), 'gemm')
    call free(args)
  end subroutine gemm

  subroutine reduction()
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(2)
    real(real32) :: x(MANY), sums(600)
    integer :: i
    integer, parameter :: LENGTHS(3) = [1, 40, 600]

    kernel = create_gpu_kernel('sum', 'reduction')
    call check(kernel%compiled, 'reduction builds')
    ! Small integers, so that every order of adding gives the same.
    do i = 1, MANY
      x(i) = real(mod(i, 17) - 5, real32)
    end do
    do i = 1, size(LENGTHS)
      sums = huge(sums)
      args = [uploaded(x), uploaded(sums(:LENGTHS(i)))]
      call launch_gpu_kernel(kernel, args, [MANY])
      call download(args(2), sums(:LENGTHS(i)))
      call check(nint(sum(sums(:LENGTHS(i)))) == nint(sum(real(x, real64))), 'reduction')
      call free(args)
    end do
  end subroutine reduction

  subroutine complex_product()
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(3)
    real(real32) :: a(2000), b(2000), c(2000)
    complex(real64) :: expected(1000)

    kernel = create_gpu_kernel('product', 'complex')
    call check(kernel%compiled, 'complex builds')
    a = data_of(size(a), 8)
    b = data_of(size(b), 9)
    c = 0.0_real32
    args = [uploaded(a), uploaded(b), uploaded(c)]
    call launch_gpu_kernel(kernel, args, [1000])
    call download(args(3), c)
    expected = cmplx(a(1::2), a(2::2), real64) * cmplx(b(1::2), b(2::2), real64)
    call check(all(abs(cmplx(c(1::2), c(2::2), real64) - expected) <= 1.0e-6_real64), 'complex')
    call free(args)
  end subroutine complex_product

  subroutine bad_launches()
    type(gpu_kernel) :: kernel, unknown
    type(gpu_memory) :: args(3), stale(3)
    real(real32) :: ones(8), c(8)
    integer :: stat

    ones = 1.0_real32
    c = 5.0_real32
    kernel = create_gpu_kernel('sum', 'vector_add')
    args = [uploaded(ones), uploaded(ones), uploaded(c)]
    unknown = create_gpu_kernel('fft', 'fft')
    call check(.not. unknown%compiled, 'no such kernel')
    call launch_gpu_kernel(unknown, args, [8], stat=stat)
    call check(stat == -1, 'an unknown kernel is not launched')
    call launch_gpu_kernel(kernel, args, [0], stat=stat)
    call check(stat == -1, 'an empty grid')
    call launch_gpu_kernel(kernel, args, [8, -1], stat=stat)
    call check(stat == -1, 'a negative grid')
    call launch_gpu_kernel(kernel, args, [8], [0], stat)
    call check(stat == -1, 'an empty workgroup')
    call launch_gpu_kernel(kernel, args(:0), [integer ::], stat=stat)
    call check(stat == -1, 'no grid')
    call download(args(3), c)
    call check(all(abs(c - 5.0_real32) <= 0.0_real32), 'nothing was launched')
    stale = args
    call free(args)
    call launch_gpu_kernel(kernel, stale, [8], stat=stat)
    call check(stat == -1, 'freed memory is no argument')
  end subroutine bad_launches

  !> After the context is made anew, other programs have the old names.
  subroutine kernels_survive_cleanup()
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(3)
    real(real32) :: a(100), b(100), c(100)
    integer :: stat

    kernel = create_gpu_kernel('sum', 'vector_add')
    call gpu_cleanup()
    device = init_gpu_device()
    call check(device%initialized, 'initialised again')
    a = data_of(100, 10)
    b = data_of(100, 11)
    c = 0.0_real32
    args = [uploaded(a), uploaded(b), uploaded(c)]
    call launch_gpu_kernel(kernel, args, [100], stat=stat)
    call download(args(3), c)
    call check(stat == 0 .and. same_bits(c, a + b), 'a kernel survives gpu_cleanup')
    call free(args)
  end subroutine kernels_survive_cleanup

  subroutine free(args)
    type(gpu_memory), intent(inout) :: args(:)
    integer :: i

    do i = 1, size(args)
      call gpu_free(args(i))
    end do
  end subroutine free
end program gpu_dispatch
