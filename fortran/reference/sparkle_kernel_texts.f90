!> What the reference modules read from a kernel's GLSL, and change in it: operations, bytes, bounds of buffers.
!>
!> Private to the reference modules. The texts are those of libsparkle's compiler: expressions have all their
!> parentheses, operators have blanks around them, and each statement has a line.
module sparkle_kernel_texts
  use, intrinsic :: iso_c_binding, only: c_int64_t
  use, intrinsic :: iso_fortran_env, only: int64
  use sparkle_reference_kernels, only: kernel_facts, word_at
  use sparkle_support, only: decimal
  implicit none
  private
  public :: bounded_text, buffer_name_in, count_work, sample_bytes

  character(len=*), parameter :: LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_'
  !> Built-in functions that are an operation of floating-point numbers.
  character(len=*), parameter :: FUNCTIONS = ' sqrt exp log log2 exp2 sin cos tan asin acos atan sinh cosh tanh abs min ' // &
    'max floor ceil trunc round roundEven sign mod pow fma inversesqrt '

contains

  !> The name of the buffer at a binding.
  function buffer_name_in(text, slot) result(name)
    character(len=*), intent(in) :: text
    integer, intent(in) :: slot
    character(len=:), allocatable :: name
    integer :: first, last

    name = ''
    first = index(text, '(std430, binding = ' // decimal(int(slot, c_int64_t)) // ') ')
    if (first == 0) return
    last = first + index(text(first:), '[]; };') - 2
    name = text(first:last)
    name = name(scan(name, ' ', back=.true.) + 1:)
  end function buffer_name_in

  !> Bytes of a buffer with an element for each of some points.
  pure integer(int64) function sample_bytes(facts, slot, points) result(bytes)
    type(kernel_facts), intent(in) :: facts
    integer, intent(in) :: slot, points
    integer :: i

    bytes = 0
    do i = 1, size(facts%arguments)
      if (facts%arguments(i)%slot == slot) bytes = int(points, int64) * facts%arguments(i)%bytes
    end do
  end function sample_bytes

  !> A text whose accesses at computed positions stay in their buffers. Those at the point's own position are as before.
  function bounded_text(facts, text) result(new)
    type(kernel_facts), intent(in) :: facts
    character(len=*), intent(in) :: text
    character(len=:), allocatable :: new
    character(len=:), allocatable :: name
    integer :: slot, at, open, close

    new = text
    do slot = 0, facts%buffers - 1
      name = buffer_name_in(text, slot)
      ! From the end, so that an access within a subscript is changed before the access around it.
      at = len(new)
      do
        at = index(new(:at), name // '[', back=.true.)
        if (at == 0) exit
        open = at + len(name)
        close = closing(new, open)
        if (.not. follows_letter(new, at) .and. close > open + 1 .and. new(open + 1:close - 1) /= 'sparkle_index') then
          new = new(:open) // 'min(uint(' // new(open + 1:close - 1) // '), uint(' // name // '.length() - 1))' // &
            new(close:)
        end if
        at = at + len(name) - 1
        if (at < 1) exit
      end do
    end do
  end function bounded_text

  pure logical function follows_letter(text, at)
    character(len=*), intent(in) :: text
    integer, intent(in) :: at

    follows_letter = .false.
    if (at > 1) follows_letter = index(LETTERS // '.', text(at - 1:at - 1)) > 0
  end function follows_letter

  !> The bracket that closes the one at a position, or the one that opens it.
  pure integer function closing(text, open)
    character(len=*), intent(in) :: text
    integer, intent(in) :: open
    integer :: depth, step

    step = merge(1, -1, index('([', text(open:open)) > 0)
    depth = 0
    closing = open
    do while (closing >= 1 .and. closing <= len(text))
      if (index('([', text(closing:closing)) > 0) depth = depth + step
      if (index(')]', text(closing:closing)) > 0) depth = depth - step
      if (depth == 0) return
      closing = closing + step
    end do
    closing = open
  end function closing

  !> Counts the floating-point operations in a text: each `+`, `-`, `*` and `/`, and each call of an intrinsic function;
  !> and the bytes of the elements that it loads and stores, where the same element of the same text counts once. Each
  !> statement counts once, so the numbers are those of a point if `is_straight`: without branches and loops.
  subroutine count_work(facts, text, operations, bytes, is_straight)
    type(kernel_facts), intent(in) :: facts
    character(len=*), intent(in) :: text
    integer, intent(out) :: operations, bytes
    logical, intent(out) :: is_straight
    character(len=:), allocatable :: globals, floats, line, loads, stores
    integer :: at, next
    logical :: is_inside

    operations = 0
    bytes = 0
    is_straight = .true.
    globals = ' '
    floats = ' '
    loads = '|'
    stores = '|'
    is_inside = .false.
    at = 1
    do while (at <= len(text))
      next = index(text(at:), new_line('a'))
      next = merge(len(text) + 1, at + next - 1, next == 0)
      line = trim(text(at:next - 1))
      at = next + 1
      if (is_function_head(line)) then
        if (index(line, 'float ') == 1 .or. index(line, 'double ') == 1) &
          globals = globals // word_at(line, index(line, ' ') + 1) // ' '
        is_inside = index(line, ' sparkle_') == 0 .or. index(line, ' sparkle_body(') > 0
        if (index(line, ' main(') > 0) is_inside = .false.
        floats = ' '
        if (is_inside) call add_floats(line(index(line, '('):), floats)
      else if (line == '}') then
        is_inside = .false.
      else if (is_inside) then
        call add_floats(line, floats)
        operations = operations + operations_in(line, globals // floats)
        call add_elements(facts, text, line, loads, stores, bytes)
        if (any([index(adjustl(line), 'if '), index(adjustl(line), 'for '), index(adjustl(line), 'while '), &
          index(adjustl(line), 'switch ')] == 1)) is_straight = .false.
      else if (index(line, ' ') /= 1) then
        call add_floats(line, globals)
      end if
    end do
  end subroutine count_work

  pure logical function is_function_head(line)
    character(len=*), intent(in) :: line

    is_function_head = .false.
    if (line == '') return
    is_function_head = line(len(line):) == '{' .and. index(line, '(') > 0 .and. line(1:1) /= ' ' .and. &
      index(line, 'layout') /= 1
  end function is_function_head

  !> Adds the names that a line declares as floating-point numbers.
  subroutine add_floats(line, names)
    character(len=*), intent(in) :: line
    character(len=:), allocatable, intent(inout) :: names
    character(len=7), parameter :: TYPES(2) = [character(len=7) :: 'float ', 'double ']
    integer :: i, at, step

    do i = 1, 2
      at = 1
      do
        step = index(line(at:), trim(TYPES(i)) // ' ')
        if (step == 0) exit
        at = at + step + len_trim(TYPES(i))
        names = names // word_at(line, at) // ' '
      end do
    end do
  end subroutine add_floats

  integer function operations_in(line, floats) result(number)
    character(len=*), intent(in) :: line, floats
    character(len=:), allocatable :: word
    integer :: at

    number = 0
    do at = 2, len(line) - 2
      if (line(at - 1:at - 1) == ' ' .and. line(at + 1:at + 1) == ' ' .and. index('+-*/', line(at:at)) > 0) then
        if (ends_with_float(line(:at - 2), floats)) number = number + 1
      else if (line(at:at) == '(') then
        word = word_before(line, at)
        if (word == '') cycle
        if (index(FUNCTIONS, ' ' // word // ' ') > 0) then
          if (ends_with_float(line(:closing(line, at) - 1), floats)) number = number + 1
        else if (index(word, 'sparkle_') == 1 .and. index(floats, ' ' // word // ' ') > 0) then
          number = number + 1
        end if
      end if
    end do
  end function operations_in

  !> The name that ends before a position.
  pure function word_before(text, at) result(word)
    character(len=*), intent(in) :: text
    integer, intent(in) :: at
    character(len=:), allocatable :: word
    integer :: first

    first = verify(text(:at - 1), LETTERS, back=.true.) + 1
    word = text(first:at - 1)
  end function word_before

  !> Whether the operand at the end of a text is a floating-point number.
  recursive logical function ends_with_float(text, floats) result(is_float)
    character(len=*), intent(in) :: text, floats
    character(len=:), allocatable :: word
    integer :: last, open

    is_float = .false.
    last = len(text)
    if (last == 0) return
    if (text(last:last) == ')' .or. text(last:last) == ']') then
      open = closing(text, last)
      word = word_before(text, open)
      if (index(' float double ', ' ' // word // ' ') > 0 .and. word /= '') then
        is_float = .true.
      else if (text(last:last) == ']' .or. index(word, 'sparkle_') == 1) then
        is_float = index(floats, ' ' // word // ' ') > 0
      else if (index(' int uint bool ', ' ' // word // ' ') > 0 .and. word /= '') then
        is_float = .false.
      else if (word /= '' .and. index(floats, ' ' // word // ' ') > 0) then
        is_float = .true.
      else if (open < last - 1) then
        if (.not. compares(text(open + 1:last - 1))) is_float = ends_with_float(text(open + 1:last - 1), floats)
      end if
      return
    end if
    word = word_before(text, last + 1)
    if (word == '') then
      is_float = text(last:last) == '.'
    else if (scan(word(1:1), '0123456789') == 0) then
      is_float = index(floats, ' ' // word // ' ') > 0
    else if (len(word) < last) then
      ! A number: 1.5, 2.0e-3, or an integer.
      is_float = text(last - len(word):last - len(word)) == '.'
      if (.not. is_float .and. last - len(word) > 1) &
        is_float = scan(text(last - len(word):last - len(word)), '+-') == 1 .and. &
        scan(text(last - len(word) - 1:last - len(word) - 1), 'eE') == 1
    end if
  end function ends_with_float

  !> Whether the operator of an expression, outside of parentheses, gives a logical value.
  pure logical function compares(text)
    character(len=*), intent(in) :: text
    integer :: at, depth

    depth = 0
    compares = .false.
    do at = 1, len(text) - 1
      if (index('([', text(at:at)) > 0) depth = depth + 1
      if (index(')]', text(at:at)) > 0) depth = depth - 1
      if (depth == 0 .and. text(at:at) == ' ' .and. index('<>=!&|', text(at + 1:at + 1)) > 0) compares = .true.
    end do
  end function compares

  !> Adds the bytes of the elements that a line loads or stores and no line before it did.
  subroutine add_elements(facts, text, line, loads, stores, bytes)
    type(kernel_facts), intent(in) :: facts
    character(len=*), intent(in) :: text, line
    character(len=:), allocatable, intent(inout) :: loads, stores
    integer, intent(inout) :: bytes
    character(len=:), allocatable :: name, element
    integer :: slot, at, step, close

    do slot = 0, facts%buffers - 1
      name = buffer_name_in(text, slot)
      at = 0
      do
        step = index(line(at + 1:), name // '[')
        if (step == 0) exit
        at = at + step
        if (follows_letter(line, at)) cycle
        close = closing(line, at + len(name))
        element = line(at:close)
        if (index(line(close + 1:), ' = ') == 1 .and. verify(line(:at - 1), ' ') == 0) then
          call add(stores)
        else
          call add(loads)
        end if
      end do
    end do

  contains

    subroutine add(seen)
      character(len=:), allocatable, intent(inout) :: seen

      if (index(seen, '|' // element // '|') > 0) return
      seen = seen // element // '|'
      bytes = bytes + int(sample_bytes(facts, slot, 1))
    end subroutine add
  end subroutine add_elements
end module sparkle_kernel_texts
