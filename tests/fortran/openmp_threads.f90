!> Many OpenMP threads use the library at once: on the CPU through both interfaces or, with the argument `gl`, on the GPU. Every
!> result must be correct. On the CPU it must have the same bits as in a single thread.
program openmp_threads
  use, intrinsic :: iso_fortran_env, only: real32
  use checks
  use cpu_conv2d_reference, only: conv2d_cpu_reference
  use gemm_simd_optimized, only: gemm_simd_avx512
  use gpu_opengl_interface, only: gpu_execute_conv2d_ref
  use sparkle
  use sparkle_conv2d, only: conv2d_auto
  use sparkle_conv2d_v2, only: conv2d_v2 => conv2d
  implicit none
  integer, parameter :: THREADS = 8, ROUNDS = 12
  type(conv), parameter :: CV = conv(n=2, c=3, h=9, w=14, k=6, r=3, s=3, stride_h=2, stride_w=2, pad_h=1, pad_w=1)
  character(len=2) :: argument
  real(real32) :: alone(420, ROUNDS), w(162)
  type(sparkle_device) :: device
  type(sparkle_plan) :: plan
  integer :: i, threads_seen

  call get_command_argument(1, argument)
  w = data_of(size(w), 1)
  call device%open('cpu')
  call plan%create(sparkle_conv2d_desc(n=2, c=3, h=9, w=14, k=6, r=3, s=3, stride_h=2, stride_w=2, pad_h=1, pad_w=1), w, &
    device=device)
  do i = 1, ROUNDS
    call plan%execute(data_of(756, 10 + i), alone(:, i))
    call check(agrees(CV, data_of(756, 10 + i), w, alone(:, i)), 'one thread')
  end do

  threads_seen = 0
  !$omp parallel num_threads(THREADS)
  !$omp atomic
  threads_seen = threads_seen + 1
  !$omp do schedule(dynamic)
  do i = 1, THREADS * ROUNDS
    if (argument == 'gl') then
      call on_the_gpu(1 + mod(i, ROUNDS))
    else
      call on_the_cpu(1 + mod(i, ROUNDS))
    end if
  end do
  !$omp end do
  !$omp end parallel
  call check(threads_seen == THREADS, 'all threads ran')
  call finish()

contains

  subroutine on_the_cpu(round)
    integer, intent(in) :: round
    real(real32) :: x(756), y(420), a(30 * 20), b(20 * 25), c(30 * 25), d(30, 25), time
    type(sparkle_device) :: own
    type(sparkle_plan) :: own_plan
    integer :: stat

    x = data_of(756, 10 + round)
    y = 0.0_real32
    call plan%execute(x, y)
    call check(same_bits(y, alone(:, round)), 'a shared plan')
    own = device
    y = 0.0_real32
    call conv2d(sparkle_conv2d_desc(n=2, c=3, h=9, w=14, k=6, r=3, s=3, stride_h=2, stride_w=2, pad_h=1, pad_w=1), x, w, y, &
      device=own)
    call check(same_bits(y, alone(:, round)), 'a copied device')
    call own_plan%create(sparkle_conv2d_desc(n=2, c=3, h=9, w=14, k=6, r=3, s=3, stride_h=2, stride_w=2, pad_h=1, pad_w=1), &
      w, device=device)
    call own_plan%execute(x, y)
    call check(same_bits(y, alone(:, round)), 'a plan of the thread''s own')
    y = 0.0_real32
    time = conv2d_cpu_reference(x, w, y, 2, 3, 9, 14, 6, 3, 2, 1, 5, 7)
    call check(time > 0.0_real32 .and. same_bits(y, alone(:, round)), 'conv2d_cpu_reference')
    call conv2d_auto(x, w, y, 2, 3, 9, 14, 6, 3, 2, 1, 5, 7, stat)
    call check(stat == 0 .and. agrees(CV, x, w, y), 'conv2d_auto')
    call conv2d_v2(x, w, y, 2, 3, 9, 14, 6, 3, 2, 1, 5, 7, 'cpu')
    call check(same_bits(y, alone(:, round)), 'conv2d of v2')

    a = data_of(size(a), 50 + round)
    b = data_of(size(b), 70 + round)
    c = 0.0_real32
    d = 1.0_real32
    call gemm_simd_avx512(a, b, c, 30, 25, 20, 1.0_real32, 0.0_real32)
    call sgemm(reshape(a, [30, 20]), reshape(b, [20, 25]), d, device=device)
    call check(same_bits(c, [d]) .and. abs(c(1) - dot_product(a(1::30), b(1:20))) < 1.0e-5_real32, 'sgemm by both interfaces')
    ! Each thread gets its own error.
    call sgemm(reshape(a, [30, 20]), reshape(b, [20, 25]), d, m=-round, stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'an error')
  end subroutine on_the_cpu

  subroutine on_the_gpu(round)
    integer, intent(in) :: round
    real(real32) :: x(756), y(420), time

    x = data_of(756, 10 + round)
    y = huge(y)
    time = gpu_execute_conv2d_ref(x, w, y, 2, 3, 9, 14, 6, 3, 2, 1, 5, 7)
    call check(time >= 0.0_real32 .and. agrees(CV, x, w, y), 'gpu_execute_conv2d_ref')
    y = huge(y)
    call conv2d_v2(x, w, y, 2, 3, 9, 14, 6, 3, 2, 1, 5, 7, 'gpu', .true.)
    call check(agrees(CV, x, w, y), 'conv2d of v2, asynchronous')
  end subroutine on_the_gpu
end program openmp_threads
