!> Groups of Sparkle over the ranks of MPI, for programs that use `mpi_f08`.
!>
!> Compile it with `sparkle_mpi.f90` and `sparkle_mpi.c` by your MPI's compilers.
module sparkle_mpi_f08
  use mpi_f08, only: MPI_Comm
  use sparkle_mpi, only: integer_group => sparkle_mpi_group, integer_device => sparkle_mpi_device
  use sparkle_runtime, only: sparkle_device
  implicit none
  private
  public :: sparkle_mpi_group, sparkle_mpi_device

  !> A group of the ranks of a communicator.
  type, extends(integer_group) :: sparkle_mpi_group
  contains
    procedure, private :: create_f08
    generic :: create => create_f08
  end type sparkle_mpi_group

contains

  !> Creates the group of the ranks of `comm`, as in module `sparkle_mpi`.
  subroutine create_f08(self, comm, device, stat, errmsg)
    class(sparkle_mpi_group), intent(inout) :: self
    type(MPI_Comm), intent(in) :: comm
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg

    call self%create(comm%MPI_VAL, device, stat, errmsg)
  end subroutine create_f08

  !> The selector of the device for this rank, as in module `sparkle_mpi`.
  function sparkle_mpi_device(comm) result(selector)
    type(MPI_Comm), intent(in) :: comm
    character(len=32) :: selector

    selector = integer_device(comm%MPI_VAL)
  end function sparkle_mpi_device
end module sparkle_mpi_f08
