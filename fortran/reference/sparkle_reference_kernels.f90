!> What the reference modules know of a kernel: libsparkle's compiler reads its file, checks it and writes its GLSL.
!>
!> Private to the reference modules. Nothing here needs OpenGL.
module sparkle_reference_kernels
  use, intrinsic :: iso_c_binding, only: c_char, c_double, c_float, c_int32_t, c_int64_t, c_null_char, c_null_ptr, c_ptr, &
    c_size_t
  use, intrinsic :: iso_fortran_env, only: int64, real64
  use sparkle_c
  use sparkle_c_kernels, only: c_kernel_compile, c_kernel_compile_file, c_kernel_describe, c_kernel_argument, &
    c_kernel_source, c_kernel_destroy
  use sparkle_support, only: decimal, text_in
  implicit none
  private
  public :: body_of, glsl_of, method_name, read_kernel, read_text, same_name, slot_values, with_values, word_at

  !> An argument. `slot` is the binding of a buffer, else -1; `offset` is the place in the parameter block of an index
  !> argument or scalar in bytes, else -1.
  type, public :: kernel_argument
    character(len=64) :: name = ''
    !> The type in GLSL.
    character(len=32) :: type_str = ''
    !> `in`, `out`, `inout`, or `value`.
    character(len=16) :: intent = ''
    !> One of SPARKLE_TYPE_*.
    integer(c_int32_t) :: type = 0
    !> One of C_ARGUMENT_*.
    integer(c_int32_t) :: kind = 0
    integer :: slot = -1
    integer :: offset = -1
    !> Bytes of the value or of an element.
    integer :: bytes = 4
  end type kernel_argument

  !> A kernel; `source` is allocated if it compiled.
  type, public :: kernel_facts
    !> The text of the whole file.
    character(len=:), allocatable :: source
    character(len=64) :: name = ''
    integer :: dims = 0
    integer :: local_size(3) = 1
    !> Whether the local size is part of the kernel's meaning, as for workgroup memory.
    logical :: has_own_local_size = .false.
    logical :: has_reduction = .false.
    integer :: buffers = 0
    !> Number of index arguments, and of these and scalars.
    integer :: indices = 0
    integer :: slots = 0
    integer(int64) :: parameter_bytes = 0
    type(kernel_argument), allocatable :: arguments(:)
  end type kernel_facts

  !> More than the compiler accepts.
  integer(int64), parameter :: LARGEST_SOURCE = 4 * 1024_int64**2
  !> Methods as the reference numbers them, 1 to 3.
  integer(c_int32_t), parameter :: METHODS(3) = [C_PARAMETERS_UNIFORM, C_PARAMETERS_BUFFER, C_PARAMETERS_INLINE]

contains

  !> Compiles a kernel of a file. `facts%source` stays unallocated if the file cannot be read, has errors, or has no such
  !> kernel; sparkle_last_error says what is wrong.
  subroutine read_kernel(filename, kernel_name, facts)
    character(len=*), intent(in) :: filename, kernel_name
    type(kernel_facts), intent(out) :: facts
    character(len=:), allocatable :: source
    type(c_ptr) :: handle
    integer(c_int32_t) :: status

    handle = c_null_ptr
    ! The C function finds and reports what is wrong with the file.
    status = c_kernel_compile_file(trim(filename) // c_null_char, trim(kernel_name) // c_null_char, handle)
    if (status /= SPARKLE_OK) return
    call read_text(filename, source)
    if (allocated(source)) call describe(handle, facts)
    status = c_kernel_destroy(handle)
    if (facts%dims > 0) call move_alloc(source, facts%source)
    if (allocated(facts%source)) call complete(facts)
  end subroutine read_kernel

  !> The bytes of a file; not allocated if it cannot be read.
  subroutine read_text(filename, text)
    character(len=*), intent(in) :: filename
    character(len=:), allocatable, intent(out) :: text
    integer :: unit, stat
    integer(int64) :: length

    open (newunit=unit, file=trim(filename), access='stream', form='unformatted', status='old', action='read', iostat=stat)
    if (stat /= 0) return
    inquire (unit=unit, size=length)
    if (length >= 0 .and. length <= LARGEST_SOURCE) then
      allocate (character(len=length) :: text)
      read (unit, iostat=stat) text
      if (stat /= 0) deallocate (text)
    end if
    close (unit, iostat=stat)
  end subroutine read_text

  subroutine describe(handle, facts)
    type(c_ptr), intent(in) :: handle
    type(kernel_facts), intent(inout) :: facts
    type(c_kernel_info) :: info
    type(c_argument_info) :: argument
    integer :: i

    info%size = int(storage_size(info) / 8, c_size_t)
    if (c_kernel_describe(handle, info) /= SPARKLE_OK) return
    facts%name = text_in(info%name)
    facts%local_size = int(info%local_size)
    facts%buffers = int(info%buffers)
    facts%parameter_bytes = info%parameter_bytes
    facts%has_own_local_size = info%cooperative /= 0 .or. info%dims > 1
    allocate (facts%arguments(info%arguments))
    do i = 1, size(facts%arguments)
      argument%size = int(storage_size(argument) / 8, c_size_t)
      if (c_kernel_argument(handle, int(i - 1, c_size_t), argument) /= SPARKLE_OK) return
      facts%arguments(i) = as_argument(argument)
    end do
    associate (kinds => facts%arguments%kind)
      facts%has_reduction = any(kinds == C_ARGUMENT_REDUCTION)
      facts%indices = count(kinds == C_ARGUMENT_INDEX)
      facts%slots = facts%indices + count(kinds == C_ARGUMENT_SCALAR)
    end associate
    facts%has_own_local_size = facts%has_own_local_size .or. facts%has_reduction
    facts%dims = int(info%dims)
  end subroutine describe

  type(kernel_argument) function as_argument(info)
    type(c_argument_info), intent(in) :: info
    character(len=8), parameter :: TYPES(0:4) = [character(len=8) :: 'int', 'int64_t', 'float', 'double', 'bool']
    character(len=5), parameter :: INTENTS(0:2) = [character(len=5) :: 'in', 'out', 'inout']

    as_argument%name = text_in(info%name)
    as_argument%type = info%type
    as_argument%kind = info%kind
    as_argument%type_str = TYPES(max(0, min(4, int(info%type))))
    as_argument%intent = INTENTS(max(0, min(2, int(info%intent))))
    if (info%offset >= 0) as_argument%intent = 'value'
    as_argument%slot = int(info%slot)
    as_argument%offset = int(info%offset)
    if (info%type == SPARKLE_TYPE_INT64 .or. info%type == SPARKLE_TYPE_REAL64) as_argument%bytes = 8
  end function as_argument

  !> local_size=auto has no size until a text is written.
  subroutine complete(facts)
    type(kernel_facts), intent(inout) :: facts
    character(len=:), allocatable :: text
    integer :: axis

    if (all(facts%local_size > 0)) return
    text = glsl_of(facts, C_GLSL_430, 1, [0, 0, 0])
    do axis = 1, 3
      facts%local_size(axis) = max(1, number_after(text, 'local_size_' // 'xyz'(axis:axis) // ' = '))
    end do
  end subroutine complete

  pure integer function number_after(text, what) result(number)
    character(len=*), intent(in) :: text, what
    integer :: i

    number = 0
    i = index(text, what)
    if (i == 0) return
    do i = i + len(what), len(text)
      if (scan(text(i:i), '0123456789') == 0 .or. number > 99999) return
      number = 10 * number + iachar(text(i:i)) - iachar('0')
    end do
  end function number_after

  !> The kernel as GLSL of a version for a method of the reference; empty if it has no such form. `local_size` differs
  !> from that of the file only if the kernel does not depend on it; zeros mean that of the file.
  function glsl_of(facts, version, method, local_size) result(text)
    type(kernel_facts), intent(in) :: facts
    integer(c_int32_t), intent(in) :: version
    integer, intent(in) :: method, local_size(3)
    character(len=:), allocatable :: text
    type(c_ptr) :: handle
    integer(c_int32_t) :: status

    text = ''
    if (.not. allocated(facts%source) .or. method < 1 .or. method > 3) return
    handle = c_null_ptr
    status = c_kernel_compile(facts%source, len(facts%source, kind=c_size_t), trim(facts%name) // c_null_char, handle)
    if (status /= SPARKLE_OK) return
    call written(handle, version, METHODS(method), text)
    status = c_kernel_destroy(handle)
    if (any(local_size /= facts%local_size) .and. any(local_size /= 0)) text = resized(facts, text, local_size)
  end function glsl_of

  subroutine written(handle, version, method, text)
    type(c_ptr), intent(in) :: handle
    integer(c_int32_t), intent(in) :: version, method
    character(len=:), allocatable, intent(inout) :: text
    character(kind=c_char), allocatable :: characters(:)
    integer(c_size_t) :: length

    length = 0
    if (c_kernel_source(handle, version, method, capacity=0_c_size_t, length=length) /= SPARKLE_OK) return
    allocate (characters(length + 1))
    if (c_kernel_source(handle, version, method, characters, size(characters, kind=c_size_t), length) /= SPARKLE_OK) return
    text = text_in(characters)
  end subroutine written

  !> A text for another local size. Only texts in one dimension without workgroup features can have one; others become
  !> empty.
  function resized(facts, text, local_size) result(new)
    type(kernel_facts), intent(in) :: facts
    character(len=*), intent(in) :: text
    integer, intent(in) :: local_size(3)
    character(len=:), allocatable :: new

    new = ''
    if (text == '' .or. facts%has_own_local_size .or. any(local_size < 1) .or. any(local_size > 1024)) return
    if (product(local_size) > 1024) return
    new = replaced(text, layout_of(facts%local_size), layout_of(local_size))
    if (new /= '') new = replaced(new, factor_of(facts%local_size), factor_of(local_size))
  end function resized

  function layout_of(size) result(text)
    integer, intent(in) :: size(3)
    character(len=:), allocatable :: text

    text = 'layout(local_size_x = ' // decimal(int(size(1), c_int64_t)) // ', local_size_y = ' // &
      decimal(int(size(2), c_int64_t)) // ', local_size_z = ' // decimal(int(size(3), c_int64_t)) // ') in;'
  end function layout_of

  function factor_of(size) result(text)
    integer, intent(in) :: size(3)
    character(len=:), allocatable :: text

    text = 'sparkle_group.x * ' // decimal(int(product(size), c_int64_t)) // 'u + gl_LocalInvocationIndex'
  end function factor_of

  !> A text with the one occurrence of a part replaced; empty if it is missing.
  pure function replaced(text, old, new) result(changed)
    character(len=*), intent(in) :: text, old, new
    character(len=:), allocatable :: changed
    integer :: at

    at = index(text, old)
    changed = ''
    if (at > 0) changed = text(:at - 1) // new // text(at + len(old):)
  end function replaced

  !> The values of index arguments and scalars in their order, from numbers for all of these or for the scalars alone.
  !> `are_right` is false if their number is another one, or if a number does not fit in its scalar's type.
  subroutine slot_values(facts, numbers, values, are_right)
    type(kernel_facts), intent(in) :: facts
    real(real64), intent(in) :: numbers(:)
    real(real64), allocatable, intent(out) :: values(:)
    logical, intent(out) :: are_right
    integer :: i, slot

    allocate (values(facts%slots))
    values = 0.0_real64
    are_right = size(numbers) == facts%slots .or. size(numbers) == facts%slots - facts%indices
    if (.not. are_right) return
    ! Index arguments come first.
    values(facts%slots - size(numbers) + 1:) = numbers
    slot = 0
    do i = 1, size(facts%arguments)
      associate (argument => facts%arguments(i))
        if (argument%offset < 0) cycle
        slot = slot + 1
        if (argument%type == SPARKLE_TYPE_INT32 .and. argument%kind == C_ARGUMENT_SCALAR) &
          are_right = are_right .and. is_int32(values(slot))
      end associate
    end do
  end subroutine slot_values

  pure logical function is_int32(number)
    real(real64), intent(in) :: number

    is_int32 = number >= -2147483648.0_real64 .and. number <= 2147483647.0_real64
    if (is_int32) is_int32 = abs(number - aint(number)) <= 0.0_real64
  end function is_int32

  !> A text of the method INLINE with its placeholders replaced.
  function with_values(facts, text, values) result(new)
    type(kernel_facts), intent(in) :: facts
    character(len=*), intent(in) :: text
    real(real64), intent(in) :: values(:)
    character(len=:), allocatable :: new
    integer :: i, slot

    new = text
    slot = 0
    do i = 1, size(facts%arguments)
      associate (argument => facts%arguments(i))
        if (argument%offset >= 0) slot = slot + 1
        if (argument%kind == C_ARGUMENT_SCALAR) new = replaced(new, ' = PLACEHOLDER_' // trim(argument%name) // ';', &
          ' = ' // literal(argument%type, values(slot)) // ';')
      end associate
    end do
  end function with_values

  !> A number as a constant of GLSL with exactly its value.
  function literal(type, number) result(text)
    integer(c_int32_t), intent(in) :: type
    real(real64), intent(in) :: number
    character(len=:), allocatable :: text
    character(len=32) :: buffer
    integer(c_int64_t) :: whole
    logical :: is_finite

    is_finite = abs(number) <= huge(number)
    select case (type)
    case (SPARKLE_TYPE_REAL64)
      write (buffer, '(es25.16e3)') real(number, c_double)
      text = trim(adjustl(buffer)) // 'LF'
      ! Doubles without a decimal form.
      if (.not. is_finite) text = 'double(' // bits(real(number, c_float)) // ')'
    case (SPARKLE_TYPE_REAL32)
      text = bits(real(number, c_float))
    case (SPARKLE_TYPE_LOGICAL)
      text = merge('1', '0', abs(number) > 0.0_real64)
    case default
      whole = nint(number, c_int64_t)
      text = decimal(whole)
      if (whole == -2147483648_c_int64_t) text = '(-2147483647 - 1)'
    end select
  end function literal

  function bits(number) result(text)
    real(c_float), intent(in) :: number
    character(len=:), allocatable :: text
    character(len=8) :: digits

    write (digits, '(z8.8)') transfer(number, 0_c_int32_t)
    text = 'uintBitsToFloat(0x' // digits // 'u)'
  end function bits

  pure function method_name(method) result(name)
    integer, intent(in) :: method
    character(len=:), allocatable :: name
    character(len=7), parameter :: NAMES(3) = [character(len=7) :: 'uniform', 'buffer', 'inline']

    name = ''
    if (method >= 1 .and. method <= 3) name = trim(NAMES(method))
  end function method_name

  !> The executable statements of the kernel as they stand in the file, a line each, without comments and declarations.
  function body_of(facts) result(body)
    type(kernel_facts), intent(in) :: facts
    character(len=:), allocatable :: body
    character(len=:), allocatable :: line
    integer :: at, next
    logical :: in_head, in_kernel, is_annotated

    body = ''
    if (.not. allocated(facts%source)) return
    in_head = .false.
    in_kernel = .false.
    is_annotated = .false.
    at = 1
    do while (at <= len(facts%source))
      next = index(facts%source(at:), new_line('a'))
      next = merge(len(facts%source) + 1, at + next - 1, next == 0)
      line = tidy(facts%source(at:next - 1))
      at = next + 1
      if (index(line, '!@kernel') == 1) is_annotated = .true.
      if (line == '' .or. index(line, '!') == 1) cycle
      if (.not. in_kernel) then
        in_kernel = is_annotated .and. is_head(line, facts%name)
        if (in_kernel) in_head = ends_with_ampersand(line)
      else if (in_head) then
        in_head = ends_with_ampersand(line)
      else if (is_end(line)) then
        return
      else if (is_statement(line)) then
        body = body // line // new_line('a')
      end if
    end do
  end function body_of

  !> A line without blanks around it.
  pure function tidy(line) result(text)
    character(len=*), intent(in) :: line
    character(len=:), allocatable :: text
    integer :: i

    text = line
    do i = 1, len(text)
      if (iachar(text(i:i)) < 32) text(i:i) = ' '
    end do
    text = trim(adjustl(text))
  end function tidy

  pure logical function is_head(line, name)
    character(len=*), intent(in) :: line, name
    integer :: at

    at = index(lower(line), 'subroutine ')
    is_head = .false.
    if (at == 0 .or. index(lower(line), 'end') == 1) return
    is_head = word_at(adjustl(line(at + 11:)), 1) == trim(name)
  end function is_head

  pure logical function is_end(line)
    character(len=*), intent(in) :: line

    select case (lower(word_at(line, 1)))
    case ('endsubroutine', 'contains')
      is_end = .true.
    case ('end')
      is_end = line == word_at(line, 1) .or. index(lower(adjustl(line(4:))), 'subroutine') == 1
    case default
      is_end = .false.
    end select
  end function is_end

  pure logical function is_statement(line)
    character(len=*), intent(in) :: line

    is_statement = index(line, '::') == 0 .and. lower(word_at(line, 1)) /= 'use' .and. &
      lower(word_at(line, 1)) /= 'implicit'
  end function is_statement

  pure logical function ends_with_ampersand(line)
    character(len=*), intent(in) :: line
    integer :: comment, last

    comment = index(line, '!')
    if (comment == 0) comment = len(line) + 1
    last = len_trim(line(:comment - 1))
    ends_with_ampersand = .false.
    if (last > 0) ends_with_ampersand = line(last:last) == '&'
  end function ends_with_ampersand

  !> The name that begins at a position of a text; empty if none does.
  pure function word_at(text, at) result(word)
    character(len=*), intent(in) :: text
    integer, intent(in) :: at
    character(len=:), allocatable :: word
    character(len=*), parameter :: LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_'
    integer :: length

    length = verify(text(at:), LETTERS) - 1
    if (length < 0) length = len(text) - at + 1
    word = text(at:at + length - 1)
  end function word_at

  !> Whether two names are the same in any case.
  pure logical function same_name(a, b)
    character(len=*), intent(in) :: a, b

    same_name = lower(a) == lower(b)
  end function same_name

  pure function lower(text) result(small)
    character(len=*), intent(in) :: text
    character(len=len(text)) :: small
    integer :: i

    small = text
    do i = 1, len(text)
      if (text(i:i) >= 'A' .and. text(i:i) <= 'Z') small(i:i) = achar(iachar(text(i:i)) + 32)
    end do
  end function lower
end module sparkle_reference_kernels
