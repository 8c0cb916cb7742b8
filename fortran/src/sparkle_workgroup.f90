!> What kernels say about workgroups: `barrier`, `local_index` and `group_index`.
!>
!> Sparkle's kernel compiler knows these procedures itself. This module lets Fortran compilers compile the same text. There a workgroup
!> has one point: `barrier` has nothing to wait for, `local_index` is 0, and `group_index` is what `set_group_index` said.
module sparkle_workgroup
  use, intrinsic :: iso_fortran_env, only: int32
  implicit none
  private

  public :: barrier, local_index, group_index, set_group_index

  integer(int32), save :: group(3) = 0

contains

  !> Waits for all points of the workgroup, and makes their stores visible.
  pure subroutine barrier()
  end subroutine barrier

  !> The point's index within its workgroup, from 0. `axis` is 1, 2 or 3.
  pure integer(int32) function local_index(axis)
    integer(int32), intent(in) :: axis
    local_index = 0 * axis
  end function local_index

  !> The index of the point's workgroup, from 0. `axis` is 1, 2 or 3.
  pure integer(int32) function group_index(axis)
    integer(int32), intent(in) :: axis
    group_index = group(axis)
  end function group_index

  !> Sets what `group_index` returns.
  subroutine set_group_index(index)
    integer(int32), intent(in) :: index(3)
    group = index
  end subroutine set_group_index

end module sparkle_workgroup
