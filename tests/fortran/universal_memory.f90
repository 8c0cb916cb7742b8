!> Module universal_memory_optimization: the detected parameters of this machine, every element of im2col, and products and
!> convolutions compared with double precision.
module universal_memory_cases
  use, intrinsic :: ieee_arithmetic, only: ieee_quiet_nan, ieee_value
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use checks
  use sparkle, only: sparkle_num_threads, sparkle_set_num_threads
  use universal_memory_optimization
  implicit none
  type(conv), parameter :: SHAPES(8) = [ &
    conv(n=1, c=1, h=1, w=1, k=1, r=1, s=1), &
    conv(n=1, c=2, h=4, w=4, k=3, r=3, s=3), &
    conv(n=3, c=2, h=6, w=9, k=5, r=3, s=3, pad_h=1, pad_w=1), &
    conv(n=2, c=5, h=9, w=7, k=4, r=1, s=1, stride_h=2, stride_w=2), &
    conv(n=2, c=3, h=13, w=11, k=8, r=7, s=7, stride_h=2, stride_w=2, pad_h=3, pad_w=3), &
    conv(n=1, c=2, h=3, w=2, k=2, r=3, s=3, stride_h=4, stride_w=4, pad_h=5, pad_w=5), &
    conv(n=2, c=1, h=8, w=3, k=2, r=2, s=2, stride_h=3, stride_w=3, pad_h=1, pad_w=1), &
    conv(n=1, c=7, h=5, w=8, k=2, r=5, s=5, pad_h=4, pad_w=4)]
  real(real32), parameter :: CANARY = -12345.0_real32

contains

  subroutine parameters_of_this_machine()
    type(memory_params) :: params
    integer :: threads

    threads = sparkle_num_threads()
    call sparkle_set_num_threads(3)
    params = detect_memory_params()
    call check(params%num_threads == 3, 'the pool''s threads')
    call sparkle_set_num_threads(threads)
    call check(params%num_cores >= 0 .and. params%num_cores <= 8192, 'cores')
    ! A container may hide the system's description of its caches.
    if (params%l1_cache_kb > 0) then
      call check(params%l1_cache_kb >= 4 .and. params%l1_cache_kb <= 1024, 'L1')
      call check(params%cache_line_bytes >= 16 .and. params%cache_line_bytes <= 256, 'line')
      call check(params%l2_cache_kb == 0 .or. params%l2_cache_kb >= params%l1_cache_kb, 'L2')
      call check(params%l3_cache_kb == 0 .or. params%l3_cache_kb >= params%l2_cache_kb, 'L3')
    end if
    call check(params%effective_bandwidth_gb > 0.01_real64 .and. params%peak_bandwidth_gb < 1.0e5_real64, 'bandwidth')
    call check(params%effective_bandwidth_gb <= params%peak_bandwidth_gb, 'at most the peak bandwidth')
    call check(params%tile_m == cache_optimal_tile_size(params%l1_cache_kb, 4) .and. params%tile_n == params%tile_m, 'tiles')
    call check(params%tile_k >= 8 .and. params%tile_k <= 1024 .and. mod(params%tile_k, 8) == 0, 'depth')
    call agrees_with_the_system(params)
  end subroutine parameters_of_this_machine

  !> Compares with the values in the argument, if there is one: L1, L2 and L3 in kilobytes, cache line, cores.
  subroutine agrees_with_the_system(params)
    type(memory_params), intent(in) :: params
    character(len=256) :: argument
    integer :: expected(5), status

    if (command_argument_count() == 0) return
    call get_command_argument(1, argument)
    read (argument, *, iostat=status) expected
    call check(status == 0, 'five numbers')
    call check(all(expected == [params%l1_cache_kb, params%l2_cache_kb, params%l3_cache_kb, params%cache_line_bytes, &
      params%num_cores]), 'what the system says: ' // trim(argument))
  end subroutine agrees_with_the_system

  subroutine figures()
    call check(cache_optimal_tile_size(32, 4) == 56, '32 KB of floats')
    call check(cache_optimal_tile_size(48, 8) == 48, '48 KB of doubles')
    call check(cache_optimal_tile_size(1024, 4) == 128, 'no more than 128')
    call check(cache_optimal_tile_size(0, 4) == 8, 'no less than 8')
    call check(cache_optimal_tile_size(-1, 0) == 8, 'invalid sizes')
    call check(cache_optimal_tile_size(huge(0), 1) == 128, 'the largest cache')
    call check(abs(arithmetic_intensity(1000_int64, 8_int64) - 125.0_real64) <= 0.0_real64, 'intensity')
    call check(abs(arithmetic_intensity(1000_int64, 0_int64)) <= 0.0_real64, 'without bytes')
  end subroutine figures

  subroutine layouts()
    real(real32) :: data(12), copy(14)
    integer :: stat

    data = data_of(12, 3)
    copy = CANARY
    call optimize_memory_layout(data, 3, 4, copy, 'row_major')
    call check(same_bits(copy(:12), data) .and. same_bits(copy(13:), [CANARY, CANARY]), 'row_major')
    copy = CANARY
    call optimize_memory_layout(data, 5, 2, copy, 'blocked', stat)
    call check(stat == 0 .and. same_bits(copy(:10), data(:10)) .and. same_bits(copy(11:11), [CANARY]), 'blocked')
    call optimize_memory_layout(data, 0, 4, copy, 'row_major', stat)
    call check(stat == 0, 'an empty matrix')
    copy = CANARY
    call optimize_memory_layout(data, 13, 1, copy, 'row_major', stat)
    call check(stat == -1, 'too little data')
    call optimize_memory_layout(data, huge(0), huge(0), copy, 'row_major', stat)
    call check(stat == -1, 'sizes that overflow')
    call optimize_memory_layout(data, 3, -4, copy, 'row_major', stat)
    call check(stat == -1, 'negative')
    call optimize_memory_layout(data, 3, 4, copy, ' ', stat)
    call check(stat == -1 .and. all(abs(copy - CANARY) <= 0.0_real32), 'nothing was written')
    call optimize_memory_layout(data, 3, 5, copy, 'row_major')
    call check(all_nan(copy), 'NaN where nothing was copied')
  end subroutine layouts

  !> Every element is at its documented place, and nothing is written after the last.
  subroutine im2col(cv, seed)
    type(conv), intent(in) :: cv
    integer, intent(in) :: seed
    real(real32) :: x(cv%x_len())
    real(real32), allocatable :: matrix(:), strided(:)
    integer :: length, n, c, kh, kw, p, q, y, xx, at, wrong, nonzero, stat
    real(real32) :: expected

    x = data_of(size(x), seed)
    length = cv%r * cv%r * cv%c * cv%n * cv%p() * cv%q()
    allocate (matrix(length + 3), strided(2 * length))
    matrix = CANARY
    call im2col_cache_optimal(x, matrix, cv%n, cv%c, cv%h, cv%w, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q(), stat)
    call check(stat == 0, 'im2col')
    wrong = 0
    nonzero = 0
    do kh = 0, cv%r - 1
      do kw = 0, cv%r - 1
        do c = 0, cv%c - 1
          do n = 0, cv%n - 1
            do p = 0, cv%p() - 1
              do q = 0, cv%q() - 1
                at = (((kh * cv%r + kw) * cv%c + c) * cv%n + n) * cv%p() * cv%q() + p * cv%q() + q
                y = p * cv%stride_h + kh - cv%pad_h
                xx = q * cv%stride_h + kw - cv%pad_h
                expected = 0.0_real32
                if (y >= 0 .and. y < cv%h .and. xx >= 0 .and. xx < cv%w) then
                  expected = x(((n * cv%c + c) * cv%h + y) * cv%w + xx + 1)
                  nonzero = nonzero + 1
                end if
                if (abs(matrix(at + 1) - expected) > 0.0_real32) wrong = wrong + 1
              end do
            end do
          end do
        end do
      end do
    end do
    call check(wrong == 0 .and. nonzero > 0, 'every element')
    call check(all(abs(matrix(length + 1:) - CANARY) <= 0.0_real32), 'nothing after the matrix changed')

    strided = CANARY
    call im2col_cache_optimal(x(size(x):1:-1), strided(::2), cv%n, cv%c, cv%h, cv%w, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
    x = x(size(x):1:-1)
    call im2col_cache_optimal(x, matrix, cv%n, cv%c, cv%h, cv%w, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(same_bits(strided(::2), matrix(:length)), 'strided sections')
    call check(all(abs(strided(2::2) - CANARY) <= 0.0_real32), 'the gaps are unchanged')
  end subroutine im2col

  subroutine bad_im2col()
    real(real32) :: x(16), matrix(36)
    integer :: stat

    x = data_of(16, 5)
    matrix = CANARY
    call im2col_cache_optimal(x, matrix(:35), 1, 1, 4, 4, 3, 1, 0, 2, 2, stat)
    call check(stat == -1, 'an output too short')
    call im2col_cache_optimal(x(:15), matrix, 1, 1, 4, 4, 3, 1, 0, 2, 2, stat)
    call check(stat == -1, 'an input too short')
    call im2col_cache_optimal(x, matrix, 1, 1, 4, 4, 3, 1, 0, 2, 3, stat)
    call check(stat == -1, 'an output of the wrong size')
    call im2col_cache_optimal(x, matrix, 1, 1, 4, 4, 3, 0, 0, 2, 2, stat)
    call check(stat == -1, 'no stride')
    call im2col_cache_optimal(x, matrix, 1, huge(0), 4, 4, huge(0), 1, huge(0), 2, 2, stat)
    call check(stat == -1, 'sizes that overflow')
    call im2col_cache_optimal(x, matrix, 1, -1, 4, 4, 3, 1, 0, 2, 2, stat)
    call check(stat == -1 .and. all(abs(matrix - CANARY) <= 0.0_real32), 'nothing was written')
    call im2col_cache_optimal(x, matrix, 1, 1, 4, 4, 3, 1, 0, 2, 3)
    call check(all_nan(matrix), 'NaN where nothing was computed')
  end subroutine bad_im2col

  subroutine convolution(cv, seed)
    type(conv), intent(in) :: cv
    integer, intent(in) :: seed
    real(real32) :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len()), time

    x = data_of(size(x), seed)
    w = data_of(size(w), seed + 50)
    y = ieee_value(y, ieee_quiet_nan)
    time = fused_conv2d_cpu(x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(time > 0.0_real32 .and. agrees(cv, x, w, y), 'fused_conv2d_cpu')
    y = CANARY
    time = fused_conv2d_cpu(x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p() + 1, cv%q())
    call check(abs(time + 1.0_real32) <= 0.0_real32 .and. all(abs(y - CANARY) <= 0.0_real32), 'a wrong size')
  end subroutine convolution

  subroutine product(m, n, k)
    integer, intent(in) :: m, n, k
    real(real32) :: a(m * k), b(k * n), c(m * n), before(m * n)
    real(real64) :: expected(m, n), scale(m, n)
    integer :: stat

    a = data_of(size(a), m)
    b = data_of(size(b), n + 100)
    before = data_of(size(c), k + 200)
    expected = matmul(reshape(real(a, real64), [m, k]), reshape(real(b, real64), [k, n]))
    scale = matmul(reshape(abs(real(a, real64)), [m, k]), reshape(abs(real(b, real64)), [k, n]))
    c = before
    call gemm_universal_memory(a, b, c, m, n, k, -1.5_real32, 0.5_real32, stat)
    call check(stat == 0 .and. all(abs(c - (-1.5_real64 * [expected] + 0.5_real64 * before)) &
      <= (k + 5) * 2.0_real64**(-24) * (1.5_real64 * [scale] + abs(before)) + 1.0e-37_real64), 'C = -1.5 A B + C/2')
    c = ieee_value(c, ieee_quiet_nan)
    call gemm_universal_memory(a, b, c, m, n, k, 1.0_real32, 0.0_real32)
    call check(all(abs(c - [expected]) <= (k + 5) * 2.0_real64**(-24) * [scale] + 1.0e-37_real64), 'C = A B')
    c = before
    call gemm_universal_memory(a, b, c, m + 1, n, k, 1.0_real32, 0.0_real32, stat)
    call check(stat == -1 .and. same_bits(c, before), 'arrays too short')
  end subroutine product
end module universal_memory_cases

program universal_memory
  use checks, only: finish
  use universal_memory_cases
  implicit none
  integer :: i

  call parameters_of_this_machine()
  call figures()
  call layouts()
  do i = 1, size(SHAPES)
    call im2col(SHAPES(i), i)
    call convolution(SHAPES(i), i)
  end do
  call bad_im2col()
  call product(1, 1, 1)
  call product(7, 9, 5)
  call product(64, 33, 100)
  call finish()
end program universal_memory
