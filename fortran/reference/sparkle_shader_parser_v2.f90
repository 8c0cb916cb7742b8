!> Kernels of a file as descriptions and GLSL, with a choice of how scalars arrive (`sparkle_fortran_params`).
!> libsparkle's compiler reads the file (`docs/kernel.md`).
module sparkle_shader_parser_v2
  use sparkle_c, only: C_GLSL_310_ES, C_GLSL_430
  use sparkle_fortran_params, only: PARAMS_BUFFER
  use sparkle_reference_kernels, only: body_of, glsl_of, kernel_facts, read_kernel
  implicit none
  private
  public :: kernel_param, kernel_arg_v2, shader_kernel_v2, parse_fortran_kernel_v2, generate_glsl_v2

  !> A value that the host gives: an index argument, which is ignored, or a scalar. `param_index` counts from 0.
  type :: kernel_param
    character(len=64) :: name = ""
    character(len=32) :: type_str = ""
    integer :: param_index = -1
  end type kernel_param

  !> An argument. `type_str` is its type in GLSL. `intent` is in, out, inout, or value for an index argument or scalar,
  !> whose `binding_slot` is -1.
  type :: kernel_arg_v2
    character(len=64) :: name = ""
    character(len=32) :: type_str = ""
    character(len=16) :: intent = ""
    integer :: binding_slot = -1
    logical :: is_scalar = .false.
  end type kernel_arg_v2

  !> A kernel. `num_inputs` buffers are read, `num_outputs` are written. `body` has the first 4096 characters of its
  !> statements, for reading: the GLSL comes from the whole text. A program may change `param_method`, and the local size
  !> of a kernel in one dimension without workgroup memory.
  !>
  !> `facts` is what the compiler found. The other modules use it.
  type :: shader_kernel_v2
    character(len=256) :: name = ""
    integer :: local_size_x = 64
    integer :: local_size_y = 1
    integer :: local_size_z = 1
    integer :: num_inputs = 0
    integer :: num_outputs = 0
    character(len=4096) :: body = ""
    type(kernel_arg_v2), allocatable :: args(:)
    type(kernel_param), allocatable :: params(:)
    integer :: param_method = PARAMS_BUFFER
    type(kernel_facts) :: facts = kernel_facts()
  end type shader_kernel_v2

contains

  !> The kernel of a file. If the file cannot be read, has errors, or has no such kernel, or if there is no such method,
  !> the name is blank and there are no arguments; sparkle_last_error says what is wrong with the file.
  function parse_fortran_kernel_v2(filename, kernel_name, param_method) result(kernel)
    character(len=*), intent(in) :: filename, kernel_name
    integer, intent(in), optional :: param_method
    type(shader_kernel_v2) :: kernel
    integer :: i, slot

    if (present(param_method)) kernel%param_method = param_method
    if (kernel%param_method >= 1 .and. kernel%param_method <= 3) call read_kernel(filename, kernel_name, kernel%facts)
    associate (facts => kernel%facts)
      if (.not. allocated(facts%source)) then
        allocate (kernel%args(0), kernel%params(0))
        return
      end if
      kernel%name = facts%name
      kernel%local_size_x = facts%local_size(1)
      kernel%local_size_y = facts%local_size(2)
      kernel%local_size_z = facts%local_size(3)
      kernel%num_inputs = count(facts%arguments%slot >= 0 .and. facts%arguments%intent /= 'out')
      kernel%num_outputs = count(facts%arguments%slot >= 0 .and. facts%arguments%intent /= 'in')
      kernel%body = body_of(facts)
      allocate (kernel%args(size(facts%arguments)), kernel%params(facts%slots))
      slot = 0
      do i = 1, size(facts%arguments)
        associate (argument => facts%arguments(i))
          kernel%args(i) = kernel_arg_v2(name=argument%name, type_str=argument%type_str, intent=argument%intent, &
            binding_slot=argument%slot, is_scalar=argument%offset >= 0)
          if (argument%offset < 0) cycle
          slot = slot + 1
          kernel%params(slot) = kernel_param(name=argument%name, type_str=argument%type_str, param_index=slot - 1)
        end associate
      end do
    end associate
  end function parse_fortran_kernel_v2

  !> The kernel as the text of a compute shader for its `param_method`: `#version 310 es`, or 430 where that has no double
  !> precision or exact arithmetic. Empty if neither can express it, or if `kernel` does not come from
  !> `parse_fortran_kernel_v2`.
  !>
  !> PARAMS_UNIFORM has a `uniform` with the name of each scalar, changed where GLSL reserves the name. PARAMS_BUFFER has
  !> a block at binding 15. PARAMS_INLINE has PLACEHOLDER_name where a scalar's value belongs.
  function generate_glsl_v2(kernel) result(glsl_source)
    type(shader_kernel_v2), intent(in) :: kernel
    character(len=:), allocatable :: glsl_source
    integer :: local_size(3)

    local_size = [kernel%local_size_x, kernel%local_size_y, kernel%local_size_z]
    glsl_source = ''
    if (any(local_size < 1)) return
    glsl_source = glsl_of(kernel%facts, C_GLSL_310_ES, kernel%param_method, local_size)
    if (glsl_source == '') glsl_source = glsl_of(kernel%facts, C_GLSL_430, kernel%param_method, local_size)
  end function generate_glsl_v2
end module sparkle_shader_parser_v2
