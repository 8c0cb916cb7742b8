!> Kernels of a file as descriptions and GLSL. libsparkle's compiler reads the file (`docs/kernel.md`).
!>
!> Values of scalars come from the buffer at index 15, as with PARAMS_BUFFER: see `sparkle_fortran_params`.
module sparkle_shader_parser
  use sparkle_c, only: C_GLSL_310_ES, C_GLSL_430
  use sparkle_reference_kernels, only: body_of, glsl_of, kernel_facts, read_kernel
  implicit none
  private
  public :: kernel_arg, shader_kernel, parse_fortran_kernel, generate_glsl

  !> An argument. `type_str` is its type in GLSL. `intent` is in, out, inout, or value for an index argument or scalar,
  !> whose `binding_slot` is -1.
  type :: kernel_arg
    character(len=64) :: name = ""
    character(len=32) :: type_str = ""
    character(len=16) :: intent = ""
    integer :: binding_slot = -1
  end type kernel_arg

  !> A kernel. `num_inputs` buffers are read, `num_outputs` are written. `body` has the first 4096 characters of its
  !> statements, for reading: the GLSL comes from the whole text. A program may change the local size of a kernel in one
  !> dimension without workgroup memory.
  type :: shader_kernel
    character(len=256) :: name = ""
    integer :: local_size_x = 64
    integer :: local_size_y = 1
    integer :: local_size_z = 1
    integer :: num_inputs = 0
    integer :: num_outputs = 0
    character(len=4096) :: body = ""
    type(kernel_arg), allocatable :: args(:)
    type(kernel_facts), private :: facts = kernel_facts()
  end type shader_kernel

contains

  !> The kernel of a file. If the file cannot be read, has errors, or has no such kernel, the name is blank and there are
  !> no arguments; sparkle_last_error says what is wrong.
  function parse_fortran_kernel(filename, kernel_name) result(kernel)
    character(len=*), intent(in) :: filename, kernel_name
    type(shader_kernel) :: kernel
    integer :: i

    call read_kernel(filename, kernel_name, kernel%facts)
    associate (facts => kernel%facts)
      if (.not. allocated(facts%source)) then
        allocate (kernel%args(0))
        return
      end if
      kernel%name = facts%name
      kernel%local_size_x = facts%local_size(1)
      kernel%local_size_y = facts%local_size(2)
      kernel%local_size_z = facts%local_size(3)
      kernel%num_inputs = count(facts%arguments%slot >= 0 .and. facts%arguments%intent /= 'out')
      kernel%num_outputs = count(facts%arguments%slot >= 0 .and. facts%arguments%intent /= 'in')
      kernel%body = body_of(facts)
      allocate (kernel%args(size(facts%arguments)))
      do i = 1, size(facts%arguments)
        kernel%args(i) = kernel_arg(name=facts%arguments(i)%name, type_str=facts%arguments(i)%type_str, &
          intent=facts%arguments(i)%intent, binding_slot=facts%arguments(i)%slot)
      end do
    end associate
  end function parse_fortran_kernel

  !> The kernel as the text of a compute shader: `#version 310 es`, or 430 where that has no double precision or exact
  !> arithmetic. Empty if neither can express it, or if `kernel` does not come from `parse_fortran_kernel`.
  function generate_glsl(kernel) result(glsl_source)
    type(shader_kernel), intent(in) :: kernel
    character(len=:), allocatable :: glsl_source
    integer :: local_size(3)
    !> Scalars in a buffer.
    integer, parameter :: METHOD = 2

    local_size = [kernel%local_size_x, kernel%local_size_y, kernel%local_size_z]
    glsl_source = ''
    if (any(local_size < 1)) return
    glsl_source = glsl_of(kernel%facts, C_GLSL_310_ES, METHOD, local_size)
    if (glsl_source == '') glsl_source = glsl_of(kernel%facts, C_GLSL_430, METHOD, local_size)
  end function generate_glsl
end module sparkle_shader_parser
