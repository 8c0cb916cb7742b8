module test_conv_simple
  use iso_fortran_env, only: int32, real32
  implicit none
contains

  ! The element-wise product. The names are reserved in GLSL.
  !@kernel(local_size_x=64, in=2, out=1)
  pure subroutine conv_simple(idx, input, weight, output)
    integer(int32), value :: idx
    real(real32), intent(in) :: input
    real(real32), intent(in) :: weight
    real(real32), intent(out) :: output
    output = input * weight
  end subroutine conv_simple

end module test_conv_simple
