!> What a device of this machine does, measured: a convolution, a product, copies into its memory. For the reference modules
!> that choose among devices.
module sparkle_device_rates
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use sparkle, only: sgemm, sparkle_buffer, sparkle_device, sparkle_device_info, SPARKLE_KIND_GL
  use sparkle_reference_support, only: clock_ns, conv2d_work, solve_conv2d
  implicit none
  private
  public :: gpu_among, measure_rates, upload_rate

contains

  !> The position of the GPU: the GL device that SPARKLE_DEVICE names, or else the first hardware GPU; 0 if there is none.
  integer function gpu_among(devices)
    type(sparkle_device_info), intent(in) :: devices(:)
    character(len=32) :: named
    integer :: i, stat

    gpu_among = 0
    call get_environment_variable('SPARKLE_DEVICE', named, status=stat)
    if (stat /= 0) named = ''
    do i = 1, size(devices)
      if (devices(i)%kind /= SPARKLE_KIND_GL .or. .not. devices(i)%usable) cycle
      if (named(:3) == 'gl:') then
        if (devices(i)%id /= named) cycle
      else if (devices(i)%software) then
        cycle
      end if
      gpu_among = i
      return
    end do
  end function gpu_among

  !> Measures a convolution (64 channels, 56 x 56 pixels, 3 x 3) and a product (512 cubed) on a device, in GFLOP/s of whole
  !> calls: the best of three after one that prepares. If one fails, its rate is 0 and `succeeded` is false.
  subroutine measure_rates(name, conv2d_gflops, gemm_gflops, succeeded)
    character(len=*), intent(in) :: name
    real(real32), intent(out) :: conv2d_gflops, gemm_gflops
    logical, intent(out) :: succeeded
    integer, parameter :: CHANNELS = 64, SIDE = 56, ORDER = 512
    real(real32), allocatable :: input(:), weights(:), output(:), a(:, :), b(:, :), product_of_both(:, :)
    type(sparkle_device) :: device
    real(real64) :: best
    integer(int64) :: start
    real(real32) :: milliseconds
    integer :: run, stat

    conv2d_gflops = 0.0_real32
    gemm_gflops = 0.0_real32
    succeeded = .false.
    allocate (input(CHANNELS * SIDE * SIDE), weights(CHANNELS * CHANNELS * 9), output(CHANNELS * SIDE * SIDE), &
      a(ORDER, ORDER), b(ORDER, ORDER), product_of_both(ORDER, ORDER), stat=stat)
    if (stat /= 0) return
    input = 1.0_real32
    weights = 0.5_real32
    a = 1.0_real32
    b = 0.5_real32
    best = huge(best)
    do run = 0, 3
      milliseconds = solve_conv2d(name, input, weights, output, 1, CHANNELS, SIDE, SIDE, CHANNELS, 3, 1, 1, SIDE, SIDE)
      if (milliseconds < 0.0_real32) return
      if (run > 0) best = min(best, real(milliseconds, real64))
    end do
    conv2d_gflops = real(conv2d_work(1, CHANNELS, CHANNELS, 3, SIDE, SIDE) / (max(best, 1.0e-6_real64) * 1.0e6_real64), real32)

    call device%open(name, stat=stat)
    if (stat /= 0) return
    best = huge(best)
    do run = 0, 3
      start = clock_ns()
      call sgemm(a, b, product_of_both, device=device, stat=stat)
      if (stat /= 0) return
      if (run > 0) best = min(best, real(max(1_int64, clock_ns() - start), real64))
    end do
    gemm_gflops = real(2.0_real64 * real(ORDER, real64)**3 / best, real32)
    succeeded = .true.
  end subroutine measure_rates

  !> GB/s of 16 MiB into the memory of a device: the best of three; 0 if it failed.
  real(real32) function upload_rate(name)
    character(len=*), intent(in) :: name
    integer, parameter :: LENGTH = 4 * 1024 * 1024
    type(sparkle_device) :: device
    type(sparkle_buffer) :: buffer
    real(real32), allocatable :: data(:)
    integer(int64) :: start
    integer :: run, stat

    upload_rate = 0.0_real32
    allocate (data(LENGTH), source=1.0_real32, stat=stat)
    if (stat /= 0) return
    call device%open(name, stat=stat)
    if (stat /= 0) return
    call buffer%create(LENGTH, device=device, stat=stat)
    do run = 1, 3
      if (stat /= 0) return
      start = clock_ns()
      call buffer%write(data, stat=stat)
      if (stat == 0) upload_rate = max(upload_rate, 4.0_real32 * LENGTH / real(max(1_int64, clock_ns() - start), real32))
    end do
  end function upload_rate
end module sparkle_device_rates
