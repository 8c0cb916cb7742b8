!> `sparkle_gpu_dispatch` on a GL device: allocating and copying memory and running kernels, called in this library's forms and in
!> the reference's. Needs a GL device.
program gpu_dispatch
  use, intrinsic :: iso_c_binding, only: c_loc, c_null_ptr, c_ptr
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
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
  call copies_in_the_references_form()
  call copies_that_fail()
  call gemm_in_the_references_form()
  call gemm_that_does_not_fit()
  call reduction_in_place()
  call modulus()
  call saxpy_without_alpha()
  call buffer_longer_than_a_binding()
  call kernels_survive_cleanup()
  call finish()

contains

  !> Allocates GPU memory and copies `values` to it.
  function uploaded(values) result(mem)
    real(real32), intent(in), target, contiguous :: values(:)
    type(gpu_memory) :: mem
    integer :: stat

    mem = gpu_malloc(4_int64 * size(values))
    call check(mem%allocated .and. mem%gpu_ptr > 0 .and. mem%size_bytes == 4_int64 * size(values), 'gpu_malloc')
    call gpu_memcpy(mem, c_loc(values), mem%size_bytes, HOST_TO_GPU, stat)
    call check(stat == 0, 'gpu_memcpy to the GPU')
  end function uploaded

  !> Copies GPU memory to the host.
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

    ! A part, with C pointers on both sides.
    gpu_side = transfer(mem%gpu_ptr, c_null_ptr)
    call gpu_memcpy(gpu_side, c_loc(sent(11)), 40_int64, HOST_TO_GPU, stat)
    call check(stat == 0, 'C pointers')
    call gpu_memcpy(c_loc(received), gpu_side, 80_int64, GPU_TO_HOST)
    call check(same_bits(received(:10), sent(11:20)) .and. same_bits(received(11:20), sent(11:20)), 'a part')

    received = 7.0_real32
    call gpu_memcpy(c_loc(received), mem, mem%size_bytes + 4, GPU_TO_HOST, stat)
    call check(stat == -1, 'more bytes than allocated')
    call gpu_memcpy(c_loc(received), mem, -4_int64, GPU_TO_HOST, stat)
    call check(stat == -1, 'a negative size')
    call gpu_memcpy(c_loc(received), mem, 4_int64, HOST_TO_GPU, stat)
    call check(stat == -1, 'the wrong direction')
    call gpu_memcpy(c_loc(received), gpu_side, 4_int64, 3, stat)
    call check(stat == -1, 'an invalid direction')
    call gpu_memcpy(c_null_ptr, mem, 4_int64, GPU_TO_HOST, stat)
    call check(stat == -1, 'a null pointer')
    call gpu_memcpy(c_loc(received), c_loc(sent), 4_int64, GPU_TO_HOST, stat)
    call check(stat == -1, 'host memory is not GPU memory')
    call check(all(abs(received - 7.0_real32) <= 0.0_real32), 'nothing was copied')

    call gpu_free(mem)
    call check(.not. mem%allocated .and. mem%gpu_ptr == 0 .and. mem%size_bytes == 0, 'gpu_free')
    call gpu_free(mem)
    call gpu_memcpy(c_loc(received), gpu_side, 4_int64, GPU_TO_HOST, stat)
    call check(stat == -1, 'freed memory is refused')
    none = gpu_malloc(0_int64)
    call check(.not. none%allocated, 'zero bytes')
    none = gpu_malloc(-8_int64)
    call check(.not. none%allocated, 'a negative number of bytes')
  end subroutine memory

  subroutine vector_add()
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(3)
    real(real32) :: a(MANY), b(MANY), c(MANY)
    integer :: stat, i
    integer, parameter :: GRIDS(3, 4) = reshape([MANY, 1, 1, 1, 1, 1, 30, 7, 3, huge(0), 1, 1], [3, 4])

    kernel = create_gpu_kernel('my sum', 'vector_add')
    call check(kernel%compiled .and. len(kernel%name) == 6 .and. kernel%name == 'my sum', 'vector_add builds')
    call check(kernel%work_group_size == 256, 'its workgroups')
    call check(index(kernel%source, '#version') == 1, 'its source')
    a = data_of(MANY, 2)
    b = data_of(MANY, 3)
    c = 0.0_real32
    args = [uploaded(a), uploaded(b), uploaded(c)]
    call launch_gpu_kernel(kernel, args, [MANY])
    call gpu_synchronize()
    call download(args(3), c)
    call check(same_bits(c, a + b), 'vector_add')
    ! Every grid computes all elements.
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
    ! Multiplying by two is exact, so a fused multiply-add gives the same result.
    call check(same_bits(result, 2.0_real32 * x + y), 'saxpy')
    call free(args)
  end subroutine saxpy

  subroutine gemm()
    integer, parameter :: m = 13, n = 9, k = 21
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(4)
    type(c_ptr) :: pointers(4)
    real(real32) :: a(m, k), b(k, n)
    real(real32), target :: c(m * n)
    real(real64) :: expected(m, n)
    integer(int32), target :: sizes(3)
    integer :: stat, i

    kernel = create_gpu_kernel('gemm', 'gemm')
    call check(kernel%compiled .and. kernel%work_group_size == 16, 'gemm builds')
    a = reshape(data_of(m * k, 6), [m, k])
    b = reshape(data_of(k * n, 7), [k, n])
    c = 0.0_real32
    sizes = [m, n, k]
    args = [uploaded([a]), uploaded([b]), uploaded(c), gpu_malloc(12_int64)]
    call gpu_memcpy(args(4), c_loc(sizes), 12_int64, HOST_TO_GPU)
    do i = 1, 4
      pointers(i) = transfer(args(i)%gpu_ptr, c_null_ptr)
    end do
    call launch_gpu_kernel(kernel, pointers, [m, n], [16, 16], stat)
    call download(args(3), c)
    expected = matmul(real(a, real64), real(b, real64))
    call check(stat == 0 .and. all(abs(reshape(c, [m, n]) - expected) <= 1.0e-5_real64), 'gemm')
    ! Sizes that are too large for the buffers, or zero.
    c = 5.0_real32
    call gpu_memcpy(args(3), c_loc(c), 4_int64 * size(c), HOST_TO_GPU)
    do i = 1, 3
      sizes = [m, n, k]
      sizes(i) = sizes(i) + 1
      call gpu_memcpy(args(4), c_loc(sizes), 12_int64, HOST_TO_GPU)
      call launch_gpu_kernel(kernel, args, [m, n], stat=stat)
      call check(stat == -1, 'gemm of larger matrices')
      sizes(i) = 0
      call gpu_memcpy(args(4), c_loc(sizes), 12_int64, HOST_TO_GPU)
      call launch_gpu_kernel(kernel, args, [m, n], stat=stat)
      call check(stat == -1, 'gemm of empty matrices')
    end do
    call download(args(3), c)
    call check(all(abs(c - 5.0_real32) <= 0.0_real32), 'a refused gemm leaves C unchanged')
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
    ! Small integers, so the sum is exact in any order.
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
    unknown%compiled = .true.
    unknown%kernel_type = ''
    call launch_gpu_kernel(unknown, args, [8], stat=stat)
    call check(stat == -1, 'a kernel that the program filled in itself is not launched')
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
    call check(stat == -1, 'freed memory is refused as an argument')
  end subroutine bad_launches

  !> GPU memory first and the host pointer second, in both directions.
  subroutine copies_in_the_references_form()
    type(gpu_memory) :: mem
    real(real32), target :: sent(MANY), received(MANY)
    type(c_ptr) :: handle

    sent = data_of(MANY, 21)
    received = 0.0_real32
    mem = gpu_malloc(4_int64 * MANY)
    call gpu_memcpy(mem, c_loc(sent), 4_int64 * MANY, HOST_TO_GPU)
    call gpu_memcpy(mem, c_loc(received), 4_int64 * MANY, GPU_TO_HOST)
    call check(same_bits(sent, received), 'there and back, memory first')
    received = 0.0_real32
    call gpu_memcpy(dst=mem, src=c_loc(received), size_bytes=4_int64 * MANY, direction=GPU_TO_HOST)
    call check(same_bits(sent, received), 'by the names of the arguments')
    received = 0.0_real32
    call gpu_memcpy(dst=c_loc(received), src=mem, size_bytes=4_int64 * MANY, direction=GPU_TO_HOST)
    call check(same_bits(sent, received), 'the destination first')
    ! The same with C pointers on both sides.
    handle = transfer(mem%gpu_ptr, c_null_ptr)
    sent = data_of(MANY, 22)
    received = 0.0_real32
    call gpu_memcpy(handle, c_loc(sent), 4_int64 * MANY, HOST_TO_GPU)
    call gpu_memcpy(handle, c_loc(received), 4_int64 * MANY, GPU_TO_HOST)
    call check(same_bits(sent, received), 'C pointers, memory first')
    received = 0.0_real32
    call gpu_memcpy(c_loc(received), handle, 4_int64 * MANY, GPU_TO_HOST)
    call check(same_bits(sent, received), 'C pointers, the destination first')
    call gpu_free(mem)
  end subroutine copies_in_the_references_form

  !> A copy that fails is reported. Without `stat`, the destination becomes NaN.
  subroutine copies_that_fail()
    type(gpu_memory) :: mem, none
    real(real32), target :: sent(10), received(12)
    character(len=120) :: errmsg
    integer :: stat

    sent = data_of(10, 23)
    mem = uploaded(sent)
    received = 7.0_real32
    errmsg = 'as before'
    call gpu_memcpy(mem, c_loc(received), 48_int64, GPU_TO_HOST, stat, errmsg)
    call check(stat == -1 .and. errmsg == 'gpu_memcpy: size_bytes is 48; the GPU memory has 40', 'more bytes than allocated')
    call gpu_memcpy(mem, c_loc(received), 4_int64, 0, stat, errmsg)
    call check(stat == -1 .and. index(errmsg, 'direction') > 0, 'an invalid direction')
    call gpu_memcpy(c_loc(received), mem, 4_int64, HOST_TO_GPU, stat, errmsg)
    call check(stat == -1 .and. index(errmsg, 'direction') > 0, 'a direction that contradicts the arguments')
    call gpu_memcpy(none, c_loc(received), 4_int64, GPU_TO_HOST, stat, errmsg)
    call check(stat == -1 .and. index(errmsg, 'GPU memory') > 0, 'memory that is not allocated')
    call gpu_memcpy(mem, c_null_ptr, 4_int64, GPU_TO_HOST, stat, errmsg)
    call check(stat == -1 .and. index(errmsg, 'null') > 0, 'a null pointer')
    call check(all(abs(received - 7.0_real32) <= 0.0_real32), 'nothing was copied')
    errmsg = 'as before'
    call gpu_memcpy(mem, c_loc(received), 40_int64, GPU_TO_HOST, stat, errmsg)
    call check(stat == 0 .and. errmsg == 'as before' .and. same_bits(received(:10), sent), 'a good copy leaves errmsg alone')

    received = 7.0_real32
    call gpu_memcpy(mem, c_loc(received), 48_int64, GPU_TO_HOST)
    call check(all_nan(received), 'NaN where nothing was copied to the host')
    received = 7.0_real32
    call gpu_memcpy(none, c_loc(received), 20_int64, GPU_TO_HOST)
    call check(all_nan(received(:5)) .and. all(abs(received(6:) - 7.0_real32) <= 0.0_real32), 'nothing after the copy changed')
    received = 7.0_real32
    call gpu_memcpy(mem, c_loc(received), 48_int64, HOST_TO_GPU)
    call check(all(abs(received - 7.0_real32) <= 0.0_real32), 'the source is unchanged')
    call download(mem, received(:10))
    call check(all_nan(received(:10)), 'NaN where nothing was copied to the GPU')
    call gpu_free(mem)
  end subroutine copies_that_fail

  !> Three buffers and global_size [m, n]. Small integers make every sum exact, including long sums.
  subroutine gemm_in_the_references_form()
    integer, parameter :: SIZES(3, 8) = reshape([64, 64, 64, 13, 9, 21, 1, 1, 1, 1, 7, 5, 7, 1, 5, 16, 17, 1, 300, 5, 3, &
      2, 3, 70001], [3, 8])
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(3)
    real(real32), allocatable :: a(:, :), b(:, :)
    real(real32), allocatable, target :: c(:, :)
    integer :: i, m, n, k, stat

    kernel = create_gpu_kernel('gemm_tiled', 'gemm')
    do i = 1, size(SIZES, 2)
      m = SIZES(1, i)
      n = SIZES(2, i)
      k = SIZES(3, i)
      a = reshape(anint(3.0_real32 * data_of(m * k, 30 + i)), [m, k])
      b = reshape(anint(3.0_real32 * data_of(k * n, 40 + i)), [k, n])
      allocate (c(m, n))
      c = huge(c)
      args = [uploaded([a]), uploaded([b]), uploaded([c])]
      call launch_gpu_kernel(kernel, args, [m, n], [16, 16])
      call gpu_synchronize()
      call gpu_memcpy(args(3), c_loc(c), args(3)%size_bytes, GPU_TO_HOST)
      call check(all(abs(c - matmul(real(a, real64), real(b, real64))) <= 0.0_real64) .and. any(abs(c) > 0.5_real32), &
        'gemm of three buffers')
      ! Again, with a third dimension and without workgroup sizes.
      call launch_gpu_kernel(kernel, args, [m, n, 1], stat=stat)
      c = huge(c)
      call gpu_memcpy(args(3), c_loc(c), args(3)%size_bytes, GPU_TO_HOST)
      call check(stat == 0 .and. all(abs(c - matmul(real(a, real64), real(b, real64))) <= 0.0_real64), 'gemm, again')
      deallocate (c)
      call free(args)
    end do
  end subroutine gemm_in_the_references_form

  !> Buffer sizes from which k cannot be determined.
  subroutine gemm_that_does_not_fit()
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(3)
    real(real32) :: c(16)
    character(len=120) :: errmsg
    integer :: stat

    kernel = create_gpu_kernel('gemm', 'gemm')
    ! 4 x 5 = 4 x 3 * 3 x 5, then sizes that are slightly wrong.
    call attempt(kernel, 12, 15, 20, [4, 5], .true.)
    call attempt(kernel, 12, 15, 21, [4, 5], .false.)
    call attempt(kernel, 12, 15, 19, [4, 5], .false.)
    call attempt(kernel, 13, 15, 20, [4, 5], .false.)
    call attempt(kernel, 16, 15, 20, [4, 5], .false.)
    call attempt(kernel, 12, 20, 20, [4, 5], .false.)
    call attempt(kernel, 24, 30, 40, [4, 5], .false.)
    call attempt(kernel, 3, 15, 20, [4, 5], .false.)
    call attempt(kernel, 12, 15, 20, [5, 4], .false.)
    call attempt(kernel, 12, 15, 20, [20], .false.)
    call attempt(kernel, 12, 15, 20, [4, 5, 2], .false.)
    call attempt(kernel, 12, 15, 20, [2, 5], .false.)

    args = [uploaded(data_of(16, 1)), uploaded(data_of(16, 2)), uploaded(data_of(16, 3))]
    call launch_gpu_kernel(kernel, [args(1), args(2), args(2)], [4, 4], stat=stat, errmsg=errmsg)
    call check(stat == -1 .and. index(errmsg, 'C is the same buffer as A or B') > 0, 'C is also a factor')
    call launch_gpu_kernel(kernel, args(:2), [4, 4], stat=stat)
    call check(stat == -1, 'two buffers')
    call launch_gpu_kernel(kernel, args, [4, 4])
    call gpu_synchronize()
    call launch_gpu_kernel(kernel, args, [4, 5])
    call download(args(3), c)
    call check(all_nan(c), 'NaN where nothing was computed')
    call free(args)
  end subroutine gemm_that_does_not_fit

  !> Tries one product. C changes if the sizes fit, and stays unchanged if the product is refused.
  subroutine attempt(kernel, a_length, b_length, c_length, global_size, fits)
    type(gpu_kernel), intent(in) :: kernel
    integer, intent(in) :: a_length, b_length, c_length, global_size(:)
    logical, intent(in) :: fits
    type(gpu_memory) :: args(3)
    integer :: stat
    real(real32) :: before(c_length), after(c_length)

    before = data_of(c_length, 9)
    args = [uploaded(data_of(a_length, 7)), uploaded(data_of(b_length, 8)), uploaded(before)]
    call launch_gpu_kernel(kernel, args, global_size, [16, 16], stat)
    call download(args(3), after)
    call check((stat == 0) .eqv. fits, 'accepted if the sizes fit')
    call check(same_bits(before, after) .neqv. fits, 'C changes only if the sizes fit')
    call free(args)
  end subroutine attempt

  !> One buffer: the sums of 256 numbers each replace its first elements.
  subroutine reduction_in_place()
    integer, parameter :: LENGTHS(6) = [1, 255, 256, 257, MANY, 70001]
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(1)
    real(real32), allocatable :: x(:), after(:)
    integer :: i, j, used, stat

    kernel = create_gpu_kernel('sum', 'reduction')
    do i = 1, size(LENGTHS)
      x = anint(5.0_real32 * data_of(LENGTHS(i), 50 + i))
      allocate (after(LENGTHS(i)))
      ! The whole buffer, and a smaller size than the buffer has.
      do used = LENGTHS(i), max(1, LENGTHS(i) - 3), -3
        args = [uploaded(x)]
        call launch_gpu_kernel(kernel, args, [used], [256], stat)
        call download(args(1), after)
        call check(stat == 0, 'reduction in place')
        do j = 1, (used + 255) / 256
          call check(nint(after(j)) == nint(sum(x(256 * j - 255:min(256 * j, used)))), 'a sum')
        end do
        call check(same_bits(after(j:), x(j:)), 'elements after the sums are unchanged')
        call free(args)
      end do
      deallocate (after)
    end do
  end subroutine reduction_in_place

  subroutine modulus()
    integer, parameter :: LENGTH = 3001
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(3)
    real(real32) :: x(LENGTH), y(LENGTH), z(LENGTH)
    real(real64) :: expected(LENGTH)

    kernel = create_gpu_kernel('modulus', 'complex')
    x = data_of(LENGTH, 61)
    y = data_of(LENGTH, 62)
    z = 0.0_real32
    args = [uploaded(x), uploaded(y), uploaded(z)]
    call launch_gpu_kernel(kernel, args, [LENGTH])
    call download(args(3), z)
    expected = sqrt(real(x, real64)**2 + real(y, real64)**2)
    call check(all(abs(z - expected) <= 1.0e-6_real64 * expected + 1.0e-20_real64), 'complex of real numbers')
    call free(args)
  end subroutine modulus

  !> The reference's form cannot pass alpha, so it is refused.
  subroutine saxpy_without_alpha()
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: args(3)
    real(real32) :: x(9), y(9), after(9)
    character(len=120) :: errmsg
    integer :: stat

    kernel = create_gpu_kernel('saxpy', 'saxpy')
    x = data_of(9, 63)
    y = data_of(9, 64)
    args = [uploaded(x), uploaded(y), uploaded([2.0_real32])]
    call launch_gpu_kernel(kernel, args(:2), [9], stat=stat, errmsg=errmsg)
    call check(stat == -1 .and. errmsg == 'launch_gpu_kernel: saxpy takes alpha, x and y', 'saxpy of x and y')
    call launch_gpu_kernel(kernel, args, [9], stat=stat, errmsg=errmsg)
    call check(stat == -1 .and. index(errmsg, 'one element') > 0, 'the first argument is not alpha')
    call download(args(2), after)
    call check(same_bits(y, after), 'y is unchanged')
    call launch_gpu_kernel(kernel, args(:2), [9])
    call download(args(2), after)
    call check(all_nan(after), 'NaN where nothing was computed')
    call download(args(1), after)
    call check(same_bits(x, after), 'x is unchanged')
    call free(args)
  end subroutine saxpy_without_alpha

  !> A buffer longer than llvmpipe's maximum binding size. It needs many loop iterations.
  subroutine buffer_longer_than_a_binding()
    integer, parameter :: LENGTH = 2**25 + 1003
    type(gpu_kernel) :: kernel
    type(gpu_memory) :: mem
    real(real32), allocatable, target :: x(:)
    integer :: i, stat

    kernel = create_gpu_kernel('double', 'vector_add')
    allocate (x(LENGTH))
    do i = 1, LENGTH
      x(i) = real(mod(i, 1009), real32)
    end do
    mem = gpu_malloc(4_int64 * LENGTH)
    call gpu_memcpy(mem, c_loc(x), mem%size_bytes, HOST_TO_GPU)
    call launch_gpu_kernel(kernel, [mem, mem, mem], [LENGTH], stat=stat)
    x = 0.0_real32
    call gpu_memcpy(mem, c_loc(x), mem%size_bytes, GPU_TO_HOST)
    call check(stat == 0, 'a long sum')
    do i = 1, LENGTH
      if (abs(x(i) - 2.0_real32 * real(mod(i, 1009), real32)) > 0.0_real32) exit
    end do
    call check(i == LENGTH + 1, 'all elements')
    call gpu_free(mem)
  end subroutine buffer_longer_than_a_binding

  !> In a new context, other GL programs may have the names of old ones.
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
