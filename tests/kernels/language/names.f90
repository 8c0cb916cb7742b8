! Fortran has no reserved words, and GLSL has many.
module name_kernels
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  !@kernel
  pure subroutine names(index, data, sum, if, do, end, vec3, input__x, first, count, main, gl_position)
    integer(int32), value :: index, end, first, count, main
    real(real32), intent(in) :: data(0:*), vec3(0:*)
    real(real32), intent(inout) :: sum(0:*), if(0:*), do(0:*)
    real(real32), value :: input__x, gl_position
    real(real32) :: then, else, select, case, params, sparkle_index
    integer(int32) :: exit, call, return, point
    then = data(index); else = vec3(index)
    select = then + else
    case = select * input__x
    params = 1.0; sparkle_index = gl_position
    exit = end + first; call = count - main
    return = 0
    do point = 1, 3
      return = return + point
    end do
    if (exit > call) if(index) = case
    if (exit <= call) then
      do(index) = params
    else if (return == 6) then
      sum(index) = sparkle_index
    end if
  end subroutine names
end module name_kernels
