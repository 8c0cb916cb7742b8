module test_multiline_kernel
  use iso_fortran_env, only: int32, real32
  implicit none
contains

  ! Continued lines in the head and in the body.
  !@kernel(local_size_x=64, in=2, out=1)
  pure subroutine multiline_test(idx, &
                                 first_input, &
                                 second_input, &
                                 output, &
                                 scale, &
                                 offset)
    integer(int32), value :: idx
    real(real32), intent(in) :: first_input
    real(real32), intent(in) :: second_input
    real(real32), intent(out) :: output
    real(real32), value :: scale
    integer(int32), value :: offset
    output = scale * first_input + &
             second_input + &
             real(offset, real32)
  end subroutine multiline_test

end module test_multiline_kernel
