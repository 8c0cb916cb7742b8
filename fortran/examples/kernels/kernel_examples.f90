!> What the programs of this folder share. Each takes the device and the folder of the kernel files, both optional:
!>
!>   run_saxpy [DEVICE [FOLDER]]
module kernel_examples
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
  use sparkle
  use sparkle_epilogue
  use sparkle_kernel
  implicit none
  private
  public :: open_device, compile_kernel, compile_epilogue, numbers, report

contains

  !> Opens the device that the program's first argument names. Without one it is `auto`, which SPARKLE_DEVICE may decide.
  subroutine open_device(device)
    type(sparkle_device), intent(inout) :: device

    if (command_argument_count() >= 1) then
      call device%open(argument(1))
    else
      call device%open()
    end if
  end subroutine open_device

  !> Compiles `name` in a file of the folder that the second argument names, or of the current one.
  subroutine compile_kernel(kernel, file, name)
    type(sparkle_compiled_kernel), intent(inout) :: kernel
    character(len=*), intent(in) :: file, name

    if (command_argument_count() >= 2) then
      call kernel%compile_file(argument(2) // '/' // file, name)
    else
      call kernel%compile_file(file, name)
    end if
  end subroutine compile_kernel

  !> Compiles the epilogue `name` as `compile_kernel` does.
  subroutine compile_epilogue(epilogue, file, name)
    type(sparkle_compiled_epilogue), intent(inout) :: epilogue
    character(len=*), intent(in) :: file, name

    if (command_argument_count() >= 2) then
      call epilogue%compile_file(argument(2) // '/' // file, name)
    else
      call epilogue%compile_file(file, name)
    end if
  end subroutine compile_epilogue

  !> `count` numbers from -1 to 1 that look random, the same at each call.
  function numbers(count)
    integer, intent(in) :: count
    real(real32) :: numbers(count)
    integer(int64) :: state
    integer :: i

    state = 1
    do i = 1, count
      state = mod(16807 * state, 2147483647_int64)
      numbers(i) = real(2.0_real64 * real(state, real64) / 2147483647.0_real64 - 1.0_real64, real32)
    end do
  end function numbers

  !> Prints the device of the last launch, the size and the largest error, and stops the program if the error exceeds
  !> `bound` or is not a number.
  subroutine report(name, size, error, bound)
    character(len=*), intent(in) :: name, size
    real(real64), intent(in) :: error, bound
    type(sparkle_timing) :: timing

    call sparkle_last_timing(timing)
    print '(5a,es8.1)', name, ' on ', trim(timing%device), ': ' // size, ', largest error', error
    if (.not. error <= bound) then
      print '(a,es8.1)', 'the error exceeds', bound
      error stop 1
    end if
  end subroutine report

  function argument(position) result(text)
    integer, intent(in) :: position
    character(len=:), allocatable :: text
    integer :: length

    call get_command_argument(position, length=length)
    allocate (character(len=length) :: text)
    call get_command_argument(position, text)
  end function argument
end module kernel_examples
