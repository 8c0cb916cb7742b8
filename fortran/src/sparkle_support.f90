!> Helpers of the Fortran modules: failures with their messages, conversion of text and numbers.
!>
!> Private to this library's modules.
module sparkle_support
  use, intrinsic :: iso_c_binding, only: c_char, c_f_pointer, c_int32_t, c_int64_t, c_null_char, c_ptr
  use sparkle_c, only: c_last_error, c_strlen, SPARKLE_ERROR_INVALID_ARGUMENT, SPARKLE_OK
  implicit none
  private
  public :: failure, decimal, narrowed, require_extent, require_length, settle, take_status, text_at, text_in

  !> The first failure of a call; none while `status` is SPARKLE_OK.
  type :: failure
    integer :: status = SPARKLE_OK
    character(len=:), allocatable :: message
  contains
    procedure :: refuse
  end type failure

contains

  !> Records an invalid argument. The first failure is kept.
  subroutine refuse(self, message)
    class(failure), intent(inout) :: self
    character(len=*), intent(in) :: message

    if (self%status /= SPARKLE_OK) return
    self%status = SPARKLE_ERROR_INVALID_ARGUMENT
    self%message = message
  end subroutine refuse

  !> Records the status of a C function, with the library's message. The first failure is kept.
  subroutine take_status(problem, status)
    type(failure), intent(inout) :: problem
    integer(c_int32_t), intent(in) :: status

    if (problem%status /= SPARKLE_OK .or. status == SPARKLE_OK) return
    problem%status = int(status)
    problem%message = text_at(c_last_error())
  end subroutine take_status

  !> Checks one extent of an array argument; `least` allows a longer one.
  subroutine require_extent(problem, argument, dimension, found, expected, least)
    type(failure), intent(inout) :: problem
    character(len=*), intent(in) :: argument
    integer, intent(in) :: dimension
    integer, intent(in) :: found
    integer(c_int64_t), intent(in) :: expected
    logical, intent(in), optional :: least
    character(len=:), allocatable :: bound

    bound = ''
    if (present(least)) then
      if (least) bound = 'at least '
    end if
    if (found == expected .or. (bound /= '' .and. found > expected)) return
    call problem%refuse(argument // ' has extent ' // decimal(int(found, c_int64_t)) // ' in dimension ' // &
      decimal(int(dimension, c_int64_t)) // '; expected ' // bound // decimal(expected))
  end subroutine require_extent

  !> Checks the length of a flat array argument.
  subroutine require_length(problem, argument, found, expected)
    type(failure), intent(inout) :: problem
    character(len=*), intent(in) :: argument
    integer(c_int64_t), intent(in) :: found
    integer(c_int64_t), intent(in) :: expected

    if (found == expected) return
    call problem%refuse(argument // ' has ' // decimal(found) // ' elements; expected ' // decimal(expected))
  end subroutine require_length

  !> Ends every public procedure like ALLOCATE: a failure without `stat` ends the program.
  subroutine settle(procedure_name, problem, stat, errmsg)
    character(len=*), intent(in) :: procedure_name
    type(failure), intent(in) :: problem
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg

    if (present(stat)) stat = problem%status
    if (problem%status == SPARKLE_OK) return
    if (present(errmsg)) errmsg = problem%message
    if (.not. present(stat)) error stop 'sparkle: ' // procedure_name // ': ' // problem%message
  end subroutine settle

  !> Converts a default integer, which may be longer than C's. A number that does not fit becomes the nearest one that
  !> does, which the library then checks.
  pure integer(c_int32_t) function narrowed(number)
    integer, intent(in) :: number
    integer(c_int64_t), parameter :: MAX_INT32 = huge(0_c_int32_t)

    narrowed = int(max(-MAX_INT32, min(MAX_INT32, int(number, c_int64_t))), c_int32_t)
  end function narrowed

  !> A number as text, without blanks.
  pure function decimal(number) result(text)
    integer(c_int64_t), intent(in) :: number
    character(len=:), allocatable :: text
    character(len=20) :: buffer

    write (buffer, '(i0)') number
    text = trim(buffer)
  end function decimal

  !> The NUL-terminated text at a C pointer.
  function text_at(pointer_to_text) result(text)
    type(c_ptr), intent(in) :: pointer_to_text
    character(len=:), allocatable :: text
    character(kind=c_char), pointer :: characters(:)

    call c_f_pointer(pointer_to_text, characters, [c_strlen(pointer_to_text) + 1])
    text = text_in(characters)
  end function text_at

  !> The NUL-terminated text in a C array.
  pure function text_in(characters) result(text)
    character(kind=c_char), intent(in) :: characters(:)
    character(len=:), allocatable :: text
    integer :: length, i

    length = size(characters)
    do i = size(characters), 1, -1
      if (characters(i) == c_null_char) length = i - 1
    end do
    allocate (character(len=length) :: text)
    do i = 1, length
      text(i:i) = characters(i)
    end do
  end function text_in
end module sparkle_support
