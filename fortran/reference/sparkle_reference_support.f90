!> Common helpers of the reference modules: the check of their argument list, and convolution on a device by name.
!>
!> The reference interface has square kernels, one stride, one padding, and the output's size as arguments. Arrays may
!> be longer than necessary, but not shorter. Times come from a monotonic clock, because CPU time would sum all threads.
module sparkle_reference_support
  use, intrinsic :: ieee_arithmetic, only: ieee_quiet_nan, ieee_value
  use, intrinsic :: iso_c_binding, only: c_associated, c_f_pointer, c_int8_t, c_ptr
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use sparkle, only: conv2d, sparkle_conv2d_desc, sparkle_device, sparkle_output_size
  implicit none
  private
  public :: arrays_suffice, clock_ns, conv2d_work, finish_without_status, gpu_selector, solve_conv2d, spoil_memory

contains

  !> Convolves on `device_name`. Returns the wall time of the whole call in milliseconds, or -1 with `output` untouched.
  function solve_conv2d(device_name, input, weights, output, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out) result(milliseconds)
    character(len=*), intent(in) :: device_name
    real(real32), intent(in) :: input(:)
    real(real32), intent(in) :: weights(:)
    real(real32), intent(inout) :: output(:)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    real(real32) :: milliseconds
    type(sparkle_device) :: device
    type(sparkle_conv2d_desc) :: desc
    integer(int64) :: start, input_len, weights_len, output_len
    integer :: stat

    milliseconds = -1.0_real32
    start = clock_ns()
    if (.not. arrays_suffice(size(input, kind=int64), size(weights, kind=int64), size(output, kind=int64), &
      N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)) return
    desc = as_desc(N, C, H, W, K, kernel_size, stride, pad)
    call lengths(N, C, H, W, K, kernel_size, H_out, W_out, input_len, weights_len, output_len)
    call device%open(device_name, stat=stat)
    if (stat /= 0) return
    call conv2d(desc, input(:input_len), weights(:weights_len), output(:output_len), device=device, stat=stat)
    call device%close()
    if (stat == 0) milliseconds = real(real(clock_ns() - start, real64) / 1.0e6_real64, real32)
  end function solve_conv2d

  !> Whether the sizes are a valid convolution with an output of H_out x W_out, and the arrays are long enough.
  logical function arrays_suffice(input_len, weights_len, output_len, &
    N, C, H, W, K, kernel_size, stride, pad, H_out, W_out)
    integer(int64), intent(in) :: input_len, weights_len, output_len
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad, H_out, W_out
    integer(int64) :: needed_input, needed_weights, needed_output
    integer :: p, q, stat

    arrays_suffice = .false.
    ! Unlike module `sparkle`, the reference interface has no empty batches.
    if (N < 1) return
    p = 0
    q = 0
    ! The library refuses sizes whose products overflow, so the lengths below are correct.
    call sparkle_output_size(as_desc(N, C, H, W, K, kernel_size, stride, pad), p, q, stat=stat)
    if (stat /= 0 .or. p /= H_out .or. q /= W_out) return
    call lengths(N, C, H, W, K, kernel_size, H_out, W_out, needed_input, needed_weights, needed_output)
    arrays_suffice = input_len >= needed_input .and. weights_len >= needed_weights .and. output_len >= needed_output
  end function arrays_suffice

  pure subroutine lengths(N, C, H, W, K, kernel_size, H_out, W_out, input_len, weights_len, output_len)
    integer, intent(in) :: N, C, H, W, K, kernel_size, H_out, W_out
    integer(int64), intent(out) :: input_len, weights_len, output_len

    input_len = int(N, int64) * C * H * W
    weights_len = int(K, int64) * C * kernel_size * kernel_size
    output_len = int(N, int64) * K * H_out * W_out
  end subroutine lengths

  pure type(sparkle_conv2d_desc) function as_desc(N, C, H, W, K, kernel_size, stride, pad)
    integer, intent(in) :: N, C, H, W, K, kernel_size, stride, pad

    as_desc = sparkle_conv2d_desc(n=N, c=C, h=H, w=W, k=K, r=kernel_size, s=kernel_size, &
      stride_h=stride, stride_w=stride, pad_h=pad, pad_w=pad)
  end function as_desc

  !> Number of floating-point operations, two per multiply-add. It is real, so that it cannot overflow.
  pure real(real64) function conv2d_work(N, C, K, kernel_size, H_out, W_out)
    integer, intent(in) :: N, C, K, kernel_size, H_out, W_out

    conv2d_work = 2.0_real64 * N * K * H_out * W_out * C * kernel_size * kernel_size
  end function conv2d_work

  !> Ends a reference subroutine, which has no function result. If the caller passes `stat`, it becomes 0 or -1.
  !> Otherwise a failed result becomes NaN: the program continues, as with the original framework, but cannot mistake it
  !> for a result.
  subroutine finish_without_status(succeeded, result_array, stat)
    logical, intent(in) :: succeeded
    real(real32), intent(inout) :: result_array(:)
    integer, intent(out), optional :: stat

    if (present(stat)) then
      stat = merge(0, -1, succeeded)
    else if (.not. succeeded) then
      result_array = ieee_value(1.0_real32, ieee_quiet_nan)
    end if
  end subroutine finish_without_status

  !> The same for memory by address: all its bytes become 255, which is NaN in fp32 and float64.
  subroutine spoil_memory(memory, bytes)
    type(c_ptr), intent(in) :: memory
    integer(int64), intent(in) :: bytes
    integer(c_int8_t), pointer :: contents(:)

    if (bytes < 1 .or. .not. c_associated(memory)) return
    call c_f_pointer(memory, contents, [bytes])
    contents = -1
  end subroutine spoil_memory

  !> The device of the reference interface: the GL device that SPARKLE_DEVICE names, or else the first.
  function gpu_selector() result(selector)
    character(len=:), allocatable :: selector
    character(len=32) :: value
    integer :: stat

    selector = 'gl:0'
    call get_environment_variable('SPARKLE_DEVICE', value, status=stat)
    if (stat == 0 .and. value(:3) == 'gl:') selector = trim(value)
  end function gpu_selector

  !> A monotonic clock in nanoseconds.
  integer(int64) function clock_ns()
    integer(int64) :: count, rate

    call system_clock(count, rate)
    clock_ns = count
    if (rate /= 1000000000_int64) clock_ns = int(real(count, real64) / real(rate, real64) * 1.0e9_real64, int64)
  end function clock_ns
end module sparkle_reference_support
