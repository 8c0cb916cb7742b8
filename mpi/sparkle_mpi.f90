!> Groups of Sparkle over the ranks of MPI, for programs whose communicators are INTEGERs (`use mpi` or mpif.h).
!>
!> Compile it with `sparkle_mpi.c` by your MPI's compilers. It needs no module of MPI. `sparkle_mpi_f08` is the same for
!> `use mpi_f08`.
module sparkle_mpi
  use, intrinsic :: iso_c_binding, only: c_char, c_int, c_int32_t, c_intptr_t, c_null_char, c_null_ptr, c_ptr
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_ranks, only: sparkle_group
  use sparkle_support, only: failure, settle, take_status
  implicit none
  private
  public :: sparkle_mpi_group, sparkle_mpi_device

  !> A group of the ranks of a communicator.
  type, extends(sparkle_group) :: sparkle_mpi_group
  contains
    procedure, private :: create_integer
    generic :: create => create_integer
  end type sparkle_mpi_group

  interface
    integer(c_int32_t) function c_group(communicator, device, group) bind(C, name='sparkle_mpi_group_f')
      import :: c_int, c_int32_t, c_ptr
      integer(c_int), value :: communicator
      type(c_ptr), value :: device
      type(c_ptr), intent(inout) :: group
    end function c_group

    integer(c_int) function c_device(communicator, selector) bind(C, name='sparkle_mpi_device_f')
      import :: c_char, c_int
      integer(c_int), value :: communicator
      character(kind=c_char), intent(inout) :: selector(32)
    end function c_device
  end interface

contains

  !> Creates the group of the ranks of `comm`; this rank computes on `device`, by default on the fastest. Collective. Destroy
  !> it before the communicator is freed, and before MPI_Finalize.
  subroutine create_integer(self, comm, device, stat, errmsg)
    class(sparkle_mpi_group), intent(inout) :: self
    integer, intent(in) :: comm
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem, not_open
    type(c_ptr) :: device_handle, handle

    handle = c_null_ptr
    device_handle = handle_of(device, not_open)
    ! A device that is not open is refused by the library, which tells the other ranks.
    if (not_open%status /= 0) device_handle = transfer(1_c_intptr_t, device_handle)
    call take_status(problem, c_group(int(comm, c_int), device_handle, handle))
    if (problem%status == 0) call self%adopt(handle)
    call settle('create', problem, stat, errmsg)
  end subroutine create_integer

  !> The selector of the device for this rank: the ranks of a computer take its hardware GPUs in turn, and the CPU if there are
  !> none. Collective.
  function sparkle_mpi_device(comm) result(selector)
    integer, intent(in) :: comm
    character(len=32) :: selector
    character(kind=c_char) :: text(32)
    integer :: i

    text = c_null_char
    selector = 'cpu'
    if (c_device(int(comm, c_int), text) /= 0) return
    selector = ''
    do i = 1, 32
      if (text(i) == c_null_char) exit
      selector(i:i) = text(i)
    end do
  end function sparkle_mpi_device
end module sparkle_mpi
