module epilogues
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  !@epilogue
  pure function leaky_relu(x, channel, position, slope) result(y)
    real(real32), intent(in) :: x
    integer(int32), intent(in) :: channel, position
    real(real32), intent(in) :: slope
    real(real32) :: y
    y = merge(x, slope * x, x > 0)
  end function leaky_relu

  !@epilogue(base=1)
  pure function residual(x, channel, position, other, gain) result(y)
    real(real32), intent(in) :: x
    integer(int32), intent(in) :: channel, position
    real(real32), intent(in) :: other(*), gain(:)
    real(real32) :: y
    y = max(x + gain(channel) * other(position), 0.0)
  end function residual
end module epilogues
