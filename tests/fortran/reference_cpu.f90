!> The reference modules without a GPU: correct results for shapes that expose swapped indices, measured times, reported
!> failures.
module reference_cpu_cases
  use, intrinsic :: ieee_arithmetic, only: ieee_quiet_nan, ieee_value
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use checks
  use cpu_conv2d_reference
  use cpu_conv2d_simd, only: conv2d_cpu_simd
  use cpu_conv2d_simd_fused, only: conv2d_cpu_simd_fused
  use gemm_simd_optimized
  use sparkle_conv2d
  use sparkle_conv2d_v2, only: conv2d, conv2d_cleanup, conv2d_init, conv2d_set_profiling
  implicit none
  type(conv), parameter :: SHAPES(6) = [ &
    conv(n=1, c=1, h=1, w=1, k=1, r=1, s=1), &
    conv(n=1, c=2, h=4, w=4, k=3, r=3, s=3), &
    conv(n=3, c=2, h=6, w=9, k=5, r=3, s=3, pad_h=1, pad_w=1), &
    conv(n=2, c=5, h=9, w=7, k=4, r=1, s=1, stride_h=2, stride_w=2), &
    conv(n=2, c=3, h=13, w=11, k=8, r=7, s=7, stride_h=2, stride_w=2, pad_h=3, pad_w=3), &
    conv(n=1, c=7, h=5, w=8, k=2, r=5, s=5, pad_h=4, pad_w=4)]

contains

  subroutine one_shape(cv, seed)
    type(conv), intent(in) :: cv
    integer, intent(in) :: seed
    real(real32) :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len()), time
    integer(int64) :: start, ended, rate
    integer :: stat

    x = data_of(size(x), seed)
    w = data_of(size(w), seed + 50)
    associate (N => cv%n, C => cv%c, H => cv%h, wd => cv%w, K => cv%k, ks => cv%r, st => cv%stride_h, pad => cv%pad_h)
      call system_clock(start, rate)
      time = conv2d_cpu_reference(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call system_clock(ended)
      call right('conv2d_cpu_reference')
      call check(time > 0.0_real32 .and. time <= 1000.0_real64 * (ended - start) / rate * 1.001_real64, &
        'its time is within the time that passed')

      time = conv2d_cpu_simd(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call right('conv2d_cpu_simd')
      time = conv2d_cpu_simd_fused(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call right('conv2d_cpu_simd_fused')
      call check(time > 0.0_real32, 'the time of several runs')
      time = conv2d_cpu_benchmark(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), 2)
      call right('conv2d_cpu_benchmark')
      call check(time > 0.0_real32, 'its time')
      time = conv2d_cpu_benchmark(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call right('conv2d_cpu_benchmark with 10 iterations')
      time = conv2d_cpu_with_warmup(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call right('conv2d_cpu_with_warmup')
      call check(time > 0.0_real32, 'its time')

      call conv2d_cpu(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call right('conv2d_cpu')
      call conv2d_select_implementation('cpu', 'naive')
      call conv2d_cpu(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), stat)
      call right('conv2d_cpu, naive')
      call conv2d_select_implementation('cpu', 'reference')
      call conv2d_select_implementation('gpu', 'naive')
      call conv2d_select_implementation('abacus', 'naive')
      call conv2d_auto(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call right('conv2d_auto')
      ! These work with and without a GPU.
      call conv2d_gpu(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call right('conv2d_gpu')

      call conv2d_init()
      call conv2d(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q())
      call right('conv2d')
      call conv2d(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), 'cpu')
      call right('conv2d, cpu')
      call conv2d(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), 'gpu')
      call right('conv2d, gpu or what replaces it')
      call conv2d(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), 'gpu', .true.)
      call right('conv2d, gpu, asynchronous, or what replaces it')
      call conv2d(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), use_async=.true.)
      call right('conv2d, asynchronous')
      call conv2d_set_profiling(.false.)
      call conv2d(x, w, y, N, C, H, wd, K, ks, st, pad, cv%p(), cv%q(), 'abacus')
      call right('conv2d, unknown hint')
      call conv2d_set_profiling(.true.)
      call conv2d_cleanup()
    end associate

  contains

    subroutine right(what)
      character(len=*), intent(in) :: what

      call check(agrees(cv, x, w, y), what)
      y = ieee_value(y, ieee_quiet_nan)
    end subroutine right
  end subroutine one_shape

  !> Sections with gaps, and arrays that are longer than needed. Gaps and extra elements do not change.
  subroutine strided(cv)
    type(conv), intent(in) :: cv
    real(real32) :: x(2 * cv%x_len()), w(3 * cv%w_len()), y(2 * cv%y_len() + 10), before(2 * cv%y_len() + 10), time
    integer :: last

    x = data_of(size(x), 71)
    w = data_of(size(w), 72)
    y = data_of(size(y), 73)
    before = y
    last = 2 * cv%y_len()
    time = conv2d_cpu_reference(x(2::2), w(size(w):1:-3), y(1:last:2), cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, &
      cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(time > 0.0_real32 .and. agrees(cv, x(2::2), w(size(w):1:-3), y(1:last:2)), 'strided sections')
    y(1:last:2) = before(1:last:2)
    call check(same_bits(y, before), 'the gaps are unchanged')
    call conv2d_cpu(x, w, y, cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, cv%p(), cv%q())
    call check(agrees(cv, x(:cv%x_len()), w(:cv%w_len()), y(:cv%y_len())), 'arrays longer than needed')
    call check(same_bits(y(cv%y_len() + 1:), before(cv%y_len() + 1:)), 'the extra elements are unchanged')
  end subroutine strided

  subroutine bad_calls(cv)
    type(conv), intent(in) :: cv
    real(real32) :: x(cv%x_len()), w(cv%w_len()), y(cv%y_len())

    x = 1.0_real32
    w = 1.0_real32
    call bad(size(x), size(w), size(y), 0, 0, 0, .true.)
    call bad(size(x) - 1, size(w), size(y), 0, 0, 0, .false.)
    call bad(size(x), size(w) - 1, size(y), 0, 0, 0, .false.)
    call bad(size(x), size(w), size(y) - 1, 0, 0, 0, .false.)
    call bad(size(x), size(w), size(y), -cv%n, 0, 0, .false.)
    call bad(size(x), size(w), size(y), -2 * cv%n, 0, 0, .false.)
    call bad(size(x), size(w), size(y), huge(0) - cv%n, 0, 0, .false.)
    call bad(size(x), size(w), size(y), 0, -1, 0, .false.)
    call bad(size(x), size(w), size(y), 0, 1, 0, .false.)
    call bad(size(x), size(w), size(y), 0, 0, -1, .false.)

  contains

    !> Calls with arrays of these lengths, and with n, H_out and stride wrong by the given amounts.
    subroutine bad(x_len, w_len, y_len, n_off, p_off, stride_off, is_fine)
      integer, intent(in) :: x_len, w_len, y_len, n_off, p_off, stride_off
      logical, intent(in) :: is_fine
      real(real32) :: time
      integer :: stat

      y = 5.0_real32
      time = conv2d_cpu_reference(x(:x_len), w(:w_len), y(:y_len), cv%n + n_off, cv%c, cv%h, cv%w, cv%k, cv%r, &
        cv%stride_h + stride_off, cv%pad_h, cv%p() + p_off, cv%q())
      call judge(time >= 0.0_real32, 'conv2d_cpu_reference')
      time = conv2d_cpu_simd(x(:x_len), w(:w_len), y(:y_len), cv%n + n_off, cv%c, cv%h, cv%w, cv%k, cv%r, &
        cv%stride_h + stride_off, cv%pad_h, cv%p() + p_off, cv%q())
      call judge(time >= 0.0_real32, 'conv2d_cpu_simd')
      time = conv2d_cpu_simd_fused(x(:x_len), w(:w_len), y(:y_len), cv%n + n_off, cv%c, cv%h, cv%w, cv%k, cv%r, &
        cv%stride_h + stride_off, cv%pad_h, cv%p() + p_off, cv%q())
      call judge(time >= 0.0_real32, 'conv2d_cpu_simd_fused')
      time = conv2d_cpu_benchmark(x(:x_len), w(:w_len), y(:y_len), cv%n + n_off, cv%c, cv%h, cv%w, cv%k, cv%r, &
        cv%stride_h + stride_off, cv%pad_h, cv%p() + p_off, cv%q(), 1)
      call judge(time >= 0.0_real32, 'conv2d_cpu_benchmark')
      call conv2d_cpu(x(:x_len), w(:w_len), y(:y_len), cv%n + n_off, cv%c, cv%h, cv%w, cv%k, cv%r, &
        cv%stride_h + stride_off, cv%pad_h, cv%p() + p_off, cv%q(), stat)
      call judge(stat == 0, 'conv2d_cpu')
      call conv2d_auto(x(:x_len), w(:w_len), y(:y_len), cv%n + n_off, cv%c, cv%h, cv%w, cv%k, cv%r, &
        cv%stride_h + stride_off, cv%pad_h, cv%p() + p_off, cv%q(), stat)
      call judge(stat == 0, 'conv2d_auto')
      call conv2d_gpu(x(:x_len), w(:w_len), y(:y_len), cv%n + n_off, cv%c, cv%h, cv%w, cv%k, cv%r, &
        cv%stride_h + stride_off, cv%pad_h, cv%p() + p_off, cv%q(), stat)
      call judge(stat == 0, 'conv2d_gpu')
      call conv2d(x(:x_len), w(:w_len), y(:y_len), cv%n + n_off, cv%c, cv%h, cv%w, cv%k, cv%r, &
        cv%stride_h + stride_off, cv%pad_h, cv%p() + p_off, cv%q(), 'gpu', .true., stat)
      call judge(stat == 0, 'conv2d of v2')
      if (is_fine) return
      ! Without a status argument, a failed call fills its output with NaN and changes nothing else.
      call conv2d_auto(x(:x_len), w(:w_len), y(:y_len), cv%n + n_off, cv%c, cv%h, cv%w, cv%k, cv%r, &
        cv%stride_h + stride_off, cv%pad_h, cv%p() + p_off, cv%q())
      call check(all_nan(y(:y_len)), 'NaN where nothing was computed')
      call check(all(abs(y(y_len + 1:) - 5.0_real32) <= 0.0_real32), 'nothing after the output changed')
    end subroutine bad

    subroutine judge(succeeded, what)
      logical, intent(in) :: succeeded
      character(len=*), intent(in) :: what

      if (succeeded) then
        call check(agrees(cv, x, w, y), what // ' on good sizes')
      else
        call check(all(abs(y - 5.0_real32) <= 0.0_real32), what // ' left the output alone')
      end if
      y = 5.0_real32
    end subroutine judge
  end subroutine bad_calls

  subroutine gemm()
    real(real32) :: a(7 * 5), b(5 * 9), c(7 * 9), before(7 * 9)
    real(real64) :: expected(7, 9)
    integer :: stat

    a = data_of(size(a), 81)
    b = data_of(size(b), 82)
    c = data_of(size(c), 83)
    before = c
    expected = matmul(reshape(real(a, real64), [7, 5]), reshape(real(b, real64), [5, 9]))
    call gemm_simd_avx512(a, b, c, 7, 9, 5, 1.0_real32, 0.0_real32)
    call check(near(c, [expected]), 'C = A B')
    c = before
    call gemm_simd_avx512(a, b, c, 7, 9, 5, 2.0_real32, -0.5_real32, stat)
    call check(stat == 0 .and. near(c, [2.0_real64 * expected] - 0.5_real64 * before), 'C = 2 A B - C/2')
    c = ieee_value(c, ieee_quiet_nan)
    call gemm_simd_avx512(a(35:1:-1), b(:), c(63:1:-1), 7, 9, 5, 1.0_real32, 0.0_real32)
    call check(near(c(63:1:-1), [matmul(reshape(real(a(35:1:-1), real64), [7, 5]), reshape(real(b, real64), [5, 9]))]), &
      'reversed sections')
    c = before
    call gemm_simd_avx512(a, b, c, 7, 9, 6, 1.0_real32, 0.0_real32, stat)
    call check(stat == -1 .and. same_bits(c, before), 'A too short')
    call gemm_simd_avx512(a, b, c, 7, -9, 5, 1.0_real32, 0.0_real32, stat)
    call check(stat == -1 .and. same_bits(c, before), 'n negative')
    call gemm_simd_avx512(a, b, c, huge(0), huge(0), 5, 1.0_real32, 0.0_real32, stat)
    call check(stat == -1 .and. same_bits(c, before), 'sizes that overflow')
    call gemm_simd_avx512(a, b, c, 7, 9, 0, 1.0_real32, 1.0_real32, stat)
    call check(stat == 0 .and. same_bits(c, before), 'k = 0 adds nothing')
    call gemm_simd_avx512(a, b, c, 8, 9, 5, 1.0_real32, 0.0_real32)
    call check(all_nan(c), 'NaN where nothing was computed')
  end subroutine gemm

  pure logical function near(found, expected)
    real(real32), intent(in) :: found(:)
    real(real64), intent(in) :: expected(:)

    near = size(found) == size(expected)
    if (near) near = all(abs(found - expected) <= 20.0_real64 * 2.0_real64**(-24) * (1.0_real64 + abs(expected)) * 5.0_real64)
  end function near
end module reference_cpu_cases

program reference_cpu
  use checks, only: finish
  use reference_cpu_cases
  implicit none
  integer :: i

  do i = 1, size(SHAPES)
    call one_shape(SHAPES(i), i)
  end do
  call strided(SHAPES(3))
  call bad_calls(SHAPES(3))
  call gemm()
  call finish()
end program reference_cpu
