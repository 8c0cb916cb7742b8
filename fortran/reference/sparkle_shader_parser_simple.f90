!> Descriptions of kernels, without GLSL. libsparkle's compiler reads the file (`docs/kernel.md`).
module sparkle_shader_parser_simple
  use, intrinsic :: iso_fortran_env, only: output_unit
  use sparkle_reference_kernels, only: body_of, kernel_facts, read_kernel
  implicit none
  private
  public :: shader_kernel_simple, parse_kernel_simple, print_kernel_info

  !> A kernel. `body` has the first 4096 characters of its statements. Types are those of GLSL. Intents are in, out,
  !> inout, or value for index arguments and scalars.
  type :: shader_kernel_simple
    character(len=256) :: name = ""
    character(len=4096) :: body = ""
    integer :: num_args = 0
    character(len=64), allocatable :: arg_names(:)
    character(len=32), allocatable :: arg_types(:)
    character(len=16), allocatable :: arg_intents(:)
    logical, allocatable :: is_scalar(:)
  end type shader_kernel_simple

contains

  !> The kernel of a file. If the file cannot be read, has errors, or has no such kernel, the name is blank and there are
  !> no arguments; sparkle_last_error says what is wrong.
  function parse_kernel_simple(filename, kernel_name) result(kernel)
    character(len=*), intent(in) :: filename, kernel_name
    type(shader_kernel_simple) :: kernel
    type(kernel_facts) :: facts

    call read_kernel(filename, kernel_name, facts)
    if (.not. allocated(facts%source)) then
      allocate (kernel%arg_names(0), kernel%arg_types(0), kernel%arg_intents(0), kernel%is_scalar(0))
      return
    end if
    kernel%name = facts%name
    kernel%body = body_of(facts)
    kernel%num_args = size(facts%arguments)
    allocate (kernel%arg_names(kernel%num_args), kernel%arg_types(kernel%num_args), &
      kernel%arg_intents(kernel%num_args), kernel%is_scalar(kernel%num_args))
    kernel%arg_names = facts%arguments%name
    kernel%arg_types = facts%arguments%type_str
    kernel%arg_intents = facts%arguments%intent
    kernel%is_scalar = facts%arguments%offset >= 0
  end function parse_kernel_simple

  !> Prints a kernel's name, arguments and statements.
  subroutine print_kernel_info(kernel)
    type(shader_kernel_simple), intent(in) :: kernel
    integer :: i

    write (output_unit, '(a,a)') 'kernel: ', trim(kernel%name)
    write (output_unit, '(a,i0)') 'arguments: ', kernel%num_args
    do i = 1, kernel%num_args
      write (output_unit, '(2x,a,2x,a,2x,a,2x,a)') trim(kernel%arg_names(i)), trim(kernel%arg_types(i)), &
        trim(kernel%arg_intents(i)), trim(merge('scalar', 'buffer', kernel%is_scalar(i)))
    end do
    write (output_unit, '(a)') 'statements:'
    call print_lines(trim(kernel%body))
  end subroutine print_kernel_info

  subroutine print_lines(text)
    character(len=*), intent(in) :: text
    integer :: first, length

    first = 1
    do while (first <= len(text))
      length = index(text(first:), new_line('a')) - 1
      if (length < 0) length = len(text) - first + 1
      write (output_unit, '(2x,a)') text(first:first + length - 1)
      first = first + length + 1
    end do
  end subroutine print_lines
end module sparkle_shader_parser_simple
