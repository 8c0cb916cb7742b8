!> Memory parameters of this machine, read from the system or measured; im2col as a matrix; matrix products and
!> convolutions on libsparkle's CPU device. The interface is that of existing programs.
!>
!> The convolution does not use `im2col_cache_optimal`: the order of its rows differs from that of the weights' columns,
!> so their product is not the convolution. Nothing is printed. Subroutines report failures in an optional `stat`; see
!> `finish_without_status`.
module universal_memory_optimization
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
  use gemm_simd_optimized, only: gemm_simd_avx512
  use sparkle, only: sparkle_num_threads
  use sparkle_reference_support, only: arrays_suffice, clock_ns, finish_without_status, solve_conv2d
  implicit none
  private
  public :: memory_params, detect_memory_params, cache_optimal_tile_size, arithmetic_intensity
  public :: optimize_memory_layout, im2col_cache_optimal, gemm_universal_memory, fused_conv2d_cpu

  !> Parameters of this machine; 0 and .false. if the system does not report them.
  type :: memory_params
    !> Caches of the first core, private or shared.
    integer :: l1_cache_kb = 0
    integer :: l2_cache_kb = 0
    integer :: l3_cache_kb = 0
    integer :: cache_line_bytes = 0
    !> Copy bandwidth of one thread in GB/s, reads plus writes: the best run.
    real(real64) :: peak_bandwidth_gb = 0.0_real64
    !> The same, median of the runs.
    real(real64) :: effective_bandwidth_gb = 0.0_real64
    !> Physical cores.
    integer :: num_cores = 0
    !> Threads of the library's CPU pool.
    integer :: num_threads = 0
    !> Three tiles of floats, one per matrix, fit in L1; with `tile_k` two panels fit in half of L2.
    integer :: tile_m = 0
    integer :: tile_n = 0
    integer :: tile_k = 0
    !> Whether the system may back memory with huge pages.
    logical :: use_hugepages = .false.
    !> Whether there is more than one NUMA node.
    logical :: use_numa_opt = .false.
  end type memory_params

  character(len=*), parameter :: SYSTEM = '/sys/devices/system/'
  integer, parameter :: FLOAT_BYTES = storage_size(1.0_real32) / 8
  integer, parameter :: RUNS = 5, MIDDLE = 3

contains

  !> Reads and measures at each call, which takes some tens of milliseconds: keep the result.
  function detect_memory_params() result(params)
    type(memory_params) :: params

    call read_caches(params)
    call measure_bandwidth(params)
    params%num_cores = cores()
    params%num_threads = sparkle_num_threads()
    params%tile_m = cache_optimal_tile_size(params%l1_cache_kb, FLOAT_BYTES)
    params%tile_n = params%tile_m
    params%tile_k = min(1024, max(8, params%l2_cache_kb * 512 / (FLOAT_BYTES * (params%tile_m + params%tile_n)) / 8 * 8))
    ! The active setting is in brackets.
    params%use_hugepages = index(line_of('/sys/kernel/mm/transparent_hugepage/enabled'), '[never]') == 0 &
      .and. line_of('/sys/kernel/mm/transparent_hugepage/enabled') /= ''
    params%use_numa_opt = scan(line_of(SYSTEM // 'node/online'), ',-') > 0
  end function detect_memory_params

  !> The side of three square tiles that share a cache: a multiple of 8, rounded up, from 8 to 128.
  pure integer function cache_optimal_tile_size(cache_kb, element_bytes)
    integer, intent(in) :: cache_kb, element_bytes
    real(real64) :: elements

    elements = real(max(0, cache_kb), real64) * 1024.0_real64 / max(1, element_bytes)
    cache_optimal_tile_size = min(128, max(8, (int(min(1.0e4_real64, sqrt(elements / 3.0_real64))) + 7) / 8 * 8))
  end function cache_optimal_tile_size

  !> Operations per byte moved; 0 if no bytes are moved.
  pure real(real64) function arithmetic_intensity(flops, bytes_accessed)
    integer(int64), intent(in) :: flops, bytes_accessed

    arithmetic_intensity = 0.0_real64
    if (bytes_accessed > 0) arithmetic_intensity = real(flops, real64) / real(bytes_accessed, real64)
  end function arithmetic_intensity

  !> Copies an m x n matrix without changing its order, for every name of a `layout`: as in the original framework,
  !> programs read the result in the order of `data`. Only an empty name is refused.
  subroutine optimize_memory_layout(data, m, n, optimized_data, layout, stat)
    real(real32), intent(in) :: data(:)
    integer, intent(in) :: m, n
    real(real32), intent(inout) :: optimized_data(:)
    character(len=*), intent(in) :: layout
    !> 0, or -1 with `optimized_data` untouched. Without `stat`, `optimized_data` becomes NaN on failure.
    integer, intent(out), optional :: stat
    integer(int64) :: length
    logical :: sound

    sound = min(m, n) >= 0 .and. max(m, n) <= huge(0_int32) .and. layout /= ''
    length = 0
    if (sound) length = int(m, int64) * n
    sound = sound .and. min(size(data, kind=int64), size(optimized_data, kind=int64)) >= length
    if (sound) optimized_data(:length) = data(:length)
    call finish_without_status(sound, optimized_data, stat)
  end subroutine optimize_memory_layout

  !> im2col: the inputs of each output pixel as a matrix of kernel_size**2 * C rows and N * H_out * W_out columns. Rows
  !> are in the order (kh, kw, c), c fastest. A row is contiguous: output pixels, image by image. Padding is zero.
  subroutine im2col_cache_optimal(input, output, N, C, H, W, kernel_size, stride, pad, H_out, W_out, stat)
    real(real32), intent(in) :: input(:)
    real(real32), intent(inout) :: output(:)
    integer, intent(in) :: N, C, H, W, kernel_size, stride, pad, H_out, W_out
    !> 0, or -1 with `output` untouched. Without `stat`, `output` becomes NaN on failure.
    integer, intent(out), optional :: stat
    integer(int64) :: at, image
    integer :: kh, kw, channel, batch
    logical :: sound

    ! A convolution with one output channel per row has an output of this size, so the library can check the arguments.
    sound = .false.
    if (min(C, kernel_size) > 0 .and. max(C, kernel_size) <= huge(0_int32)) then
      if (int(C, int64) * kernel_size <= huge(0_int32) / kernel_size) then
        sound = arrays_suffice(size(input, kind=int64), huge(0_int64), size(output, kind=int64), &
          N, C, H, W, C * kernel_size * kernel_size, kernel_size, stride, pad, H_out, W_out)
      end if
    end if
    if (sound) then
      at = 0
      do kh = 0, kernel_size - 1
        do kw = 0, kernel_size - 1
          do channel = 0, C - 1
            do batch = 0, N - 1
              image = (int(batch, int64) * C + channel) * H * W
              call shifted(input(image + 1:image + int(H, int64) * W), output(at + 1:at + int(H_out, int64) * W_out), &
                H, W, H_out, W_out, stride, kh - pad, kw - pad)
              at = at + int(H_out, int64) * W_out
            end do
          end do
        end do
      end do
    end if
    call finish_without_status(sound, output, stat)
  end subroutine im2col_cache_optimal

  !> One kernel position for all output pixels: every `stride`-th pixel of one channel from (down, right) on, zero
  !> outside.
  pure subroutine shifted(image, pixels, H, W, H_out, W_out, stride, down, right)
    real(real32), intent(in) :: image(0:)
    real(real32), intent(inout) :: pixels(0:)
    integer, intent(in) :: H, W, H_out, W_out, stride, down, right
    integer(int64) :: row, at, first, beyond
    integer :: p

    ! Columns `first` to `beyond` - 1 read the image.
    first = min(int(W_out, int64), (int(max(0, -right), int64) + stride - 1) / stride)
    beyond = max(first, min(int(W_out, int64), (max(0_int64, int(W, int64) - right) + stride - 1) / stride))
    do p = 0, H_out - 1
      at = int(p, int64) * W_out
      row = int(p, int64) * stride + down
      if (row < 0 .or. row >= H) then
        pixels(at:at + W_out - 1) = 0.0_real32
      else
        pixels(at:at + first - 1) = 0.0_real32
        if (beyond > first) then
          row = row * W + right
          pixels(at + first:at + beyond - 1) = image(row + first * stride:row + (beyond - 1) * stride:stride)
        end if
        pixels(at + beyond:at + W_out - 1) = 0.0_real32
      end if
    end do
  end subroutine shifted

  !> C = alpha A B + beta C, column-major and packed: A is m x k, B is k x n, C is m x n.
  subroutine gemm_universal_memory(A, B, C, m, n, k, alpha, beta, stat)
    real(real32), intent(in) :: A(:)
    real(real32), intent(in) :: B(:)
    real(real32), intent(inout) :: C(:)
    integer, intent(in) :: m, n, k
    real(real32), intent(in) :: alpha, beta
    !> 0, or -1 with C untouched. Without `stat`, C becomes NaN on failure.
    integer, intent(out), optional :: stat

    call gemm_simd_avx512(A, B, C, m, n, k, alpha, beta, stat)
  end subroutine gemm_universal_memory

  !> Computes one convolution on the CPU, without an im2col matrix in memory. Returns the wall time in milliseconds, or
  !> -1 with `output` untouched.
  function fused_conv2d_cpu(input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) result(time_ms)
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(inout) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: time_ms

    time_ms = solve_conv2d('cpu', input, weights, output, N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
  end function fused_conv2d_cpu

  subroutine read_caches(params)
    type(memory_params), intent(inout) :: params
    character(len=:), allocatable :: folder
    integer :: i, kilobytes

    do i = 0, 9
      folder = SYSTEM // 'cpu/cpu0/cache/index' // achar(iachar('0') + i) // '/'
      if (line_of(folder // 'type') == 'Instruction') cycle
      kilobytes = kilobytes_in(line_of(folder // 'size'))
      select case (line_of(folder // 'level'))
      case ('1')
        params%l1_cache_kb = kilobytes
        params%cache_line_bytes = number_in(line_of(folder // 'coherency_line_size'))
      case ('2')
        params%l2_cache_kb = kilobytes
      case ('3')
        params%l3_cache_kb = kilobytes
      end select
    end do
  end subroutine read_caches

  !> Measures copies in memory. Both arrays together have four times the size of L3, but 32 to 256 MiB.
  subroutine measure_bandwidth(params)
    type(memory_params), intent(inout) :: params
    real(real32), allocatable :: from(:), to(:)
    real(real64) :: rates(RUNS), rate
    integer(int64) :: start, length
    integer :: run, slower, status

    length = int(min(262144, max(32768, 4 * min(65536, params%l3_cache_kb))), int64) * 1024 / FLOAT_BYTES / 2
    allocate (from(length), to(length), stat=status)
    if (status /= 0) return
    from = 1.0_real32
    to = 0.0_real32
    do run = 1, RUNS
      from(run) = real(run, real32)
      start = clock_ns()
      to = from
      rate = 2.0_real64 * real(length * FLOAT_BYTES, real64) / real(max(1_int64, clock_ns() - start), real64)
      ! Read the result, so that the compiler cannot remove the run.
      if (abs(to(run) - from(run)) > 0.0_real32) return
      ! Insert in ascending order.
      slower = count(rates(:run - 1) <= rate)
      rates(slower + 2:run) = rates(slower + 1:run - 1)
      rates(slower + 1) = rate
    end do
    params%peak_bandwidth_gb = rates(RUNS)
    params%effective_bandwidth_gb = rates(MIDDLE)
  end subroutine measure_bandwidth

  !> Number of physical cores: processors that are the first of those that share their core.
  integer function cores()
    character(len=:), allocatable :: siblings
    character(len=12) :: digits
    integer :: processor, unknown

    cores = 0
    unknown = 0
    do processor = 0, 8191
      write (digits, '(i0)') processor
      siblings = line_of(SYSTEM // 'cpu/cpu' // trim(digits) // '/topology/thread_siblings_list')
      if (siblings == '') then
        ! An offline processor has no such file. After many of those there are no more processors.
        unknown = unknown + 1
        if (unknown > 64) exit
      else
        unknown = 0
        if (number_in(siblings) == processor) cores = cores + 1
      end if
    end do
  end function cores

  !> The first line of a file; empty if it cannot be read.
  function line_of(path) result(line)
    character(len=*), intent(in) :: path
    character(len=:), allocatable :: line
    character(len=256) :: buffer
    integer :: unit, status

    line = ''
    open (newunit=unit, file=path, status='old', action='read', iostat=status)
    if (status /= 0) return
    read (unit, '(a)', iostat=status) buffer
    if (status == 0) line = trim(buffer)
    close (unit)
  end function line_of

  !> The number at the start of `text`; 0 if there is none.
  pure integer function number_in(text)
    character(len=*), intent(in) :: text
    integer :: length, status

    number_in = 0
    length = verify(text // ' ', '0123456789') - 1
    if (length == 0) return
    read (text(:length), *, iostat=status) number_in
    if (status /= 0) number_in = 0
  end function number_in

  !> `48K`, `32M` or `1G` in kilobytes.
  pure integer function kilobytes_in(text)
    character(len=*), intent(in) :: text

    kilobytes_in = number_in(text)
    if (scan(text, 'M') > 0) kilobytes_in = kilobytes_in * 1024
    if (scan(text, 'G') > 0) kilobytes_in = kilobytes_in * 1024 * 1024
  end function kilobytes_in
end module universal_memory_optimization
