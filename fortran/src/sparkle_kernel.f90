!> Kernels of the program's own: Fortran subroutines, compiled at run time and launched on a device.
!>
!> ```fortran
!> use sparkle
!> use sparkle_kernel
!> type(sparkle_compiled_kernel) :: saxpy
!> real(real32), target :: x(1000), y(1000)
!>
!> call saxpy%compile_file('saxpy.f90')
!> call saxpy%launch([1000], [arg(1000), arg(2.0), arg(x), inout(y)])
!> ```
!>
!> A launch needs an argument for each dummy except the index arguments, in their order: a scalar, an array, or a buffer
!> (`sparkle_buffer`), which stays on its device. `arg` makes one of a scalar, or
!> of an array that the kernel only reads. `inout` makes one of an array that the kernel writes, whatever its intent
!> there, or of a variable that takes the result of a reduction.
!>
!> ## Arrays
!>
!> Arrays have any rank, and elements of type `integer(int32)`, `integer(int64)`, `real(real32)`, `real(real64)` or
!> `logical(int32)`. The kernel works in their memory, so they must be contiguous; the launch refuses other sections. They
!> must exist until the launch returns: give `arg` a variable, not an expression with an array as its value, and declare
!> the variable TARGET. An array that is an argument of assumed size (`a(*)`) is passed as a section with an upper bound.
!> Arguments of one launch may overlap only where none of them is written.
!>
!> `stat` and `errmsg` work as in module `sparkle`, whose codes `stat` has. Arrays are unchanged after a failure. Any
!> number of threads may launch one kernel at once; compiling, destroying and assigning modify it.
module sparkle_kernel
  use, intrinsic :: iso_c_binding, only: c_associated, c_char, c_int32_t, c_int64_t, c_loc, c_null_char, c_null_ptr, &
    c_ptr, c_size_t
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
  use sparkle_buffers, only: buffer_handle, buffer_type, sparkle_buffer
  use sparkle_c
  use sparkle_c_kernels, only: c_kernel_compile, c_kernel_compile_file, c_kernel_describe, c_kernel_argument, &
    c_kernel_diagnostics, c_kernel_launch, c_kernel_destroy
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_support
  implicit none
  private
  public :: sparkle_compiled_kernel, sparkle_kernel_arg, arg, inout, c_arguments

  !> A kernel, for any device. Finalisation releases it.
  !>
  !> It cannot be copied: the left side of an assignment becomes an empty kernel, whose launch fails with a message. Pass
  !> kernels by reference, or use pointers. For copies without assignment, see `sparkle_device`.
  type :: sparkle_compiled_kernel
    private
    type(c_ptr) :: handle = c_null_ptr
    !> The address of `handle` when the kernel was compiled. At another address this is a bitwise copy.
    type(c_ptr) :: home = c_null_ptr
    integer :: dims = 0
    logical :: is_copy = .false.
    character(len=:), allocatable :: declared
  contains
    procedure, private :: compile_text, compile_lines
    generic :: compile => compile_text, compile_lines
    procedure :: compile_file => kernel_compile_file
    procedure, private :: launch_int32, launch_int64
    generic :: launch => launch_int32, launch_int64
    procedure :: name => kernel_name
    procedure :: warnings => kernel_warnings
    procedure :: is_compiled => kernel_is_compiled
    procedure :: destroy => kernel_destroy
    procedure, private :: kernel_assign
    generic :: assignment(=) => kernel_assign
    final :: kernel_finalize
  end type sparkle_compiled_kernel

  !> An argument of a launch. It refers to the memory of an array, and does not own it.
  type :: sparkle_kernel_arg
    private
    type(c_kernel_arg) :: c
    logical :: is_strided = .false.
    !> A buffer that `arg` was given, so that the kernel must not write it.
    logical :: is_input = .false.
    !> A part of a buffer with a negative length, or that begins before element 1.
    logical :: is_negative = .false.
  end type sparkle_kernel_arg

  !> `arg(x)`: the value of a scalar, or an array or buffer that the kernel only reads. `arg(buffer, first, length)`: a part
  !> of a buffer.
  interface arg
    module procedure arg_int32, arg_int64, arg_real32, arg_real64, arg_logical, arg_buffer
  end interface arg

  !> `inout(x)`: an array or buffer that the kernel may read and write, or a variable as an array of one element.
  !> `inout(buffer, first, length)`: a part of a buffer.
  interface inout
    module procedure inout_int32, inout_int64, inout_real32, inout_real64, inout_logical, inout_buffer
  end interface inout

contains

  !> Compiles a source: lines that end with NEW_LINE('a'). `name` selects one of several kernels: the exact spelling
  !> first, then any case. A failure leaves the kernel as it was; `errmsg` has the compiler's messages.
  subroutine compile_text(self, source, name, stat, errmsg)
    class(sparkle_compiled_kernel), intent(inout) :: self
    character(len=*), intent(in) :: source
    character(len=*), intent(in), optional :: name
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_ptr) :: handle

    handle = c_null_ptr
    if (present(name)) then
      call take_status(problem, c_kernel_compile(source, len(source, kind=c_size_t), trim(name) // c_null_char, handle))
    else
      call take_status(problem, c_kernel_compile(source, len(source, kind=c_size_t), kernel=handle))
    end if
    call keep(self, handle, problem)
    call settle('compile', problem, stat, errmsg)
  end subroutine compile_text

  !> Compiles a source that is an array of lines.
  subroutine compile_lines(self, lines, name, stat, errmsg)
    class(sparkle_compiled_kernel), intent(inout) :: self
    character(len=*), intent(in) :: lines(:)
    character(len=*), intent(in), optional :: name
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    character(len=:), allocatable :: source
    integer :: i, first

    allocate (character(len=sum(len_trim(lines)) + size(lines)) :: source)
    first = 1
    do i = 1, size(lines)
      source(first:first + len_trim(lines(i))) = trim(lines(i)) // new_line('a')
      first = first + len_trim(lines(i)) + 1
    end do
    call compile_text(self, source, name, stat, errmsg)
  end subroutine compile_lines

  !> Reads a file and compiles it.
  subroutine kernel_compile_file(self, path, name, stat, errmsg)
    class(sparkle_compiled_kernel), intent(inout) :: self
    character(len=*), intent(in) :: path
    character(len=*), intent(in), optional :: name
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_ptr) :: handle

    handle = c_null_ptr
    if (present(name)) then
      call take_status(problem, c_kernel_compile_file(trim(path) // c_null_char, trim(name) // c_null_char, handle))
    else
      call take_status(problem, c_kernel_compile_file(trim(path) // c_null_char, kernel=handle))
    end if
    call keep(self, handle, problem)
    call settle('compile_file', problem, stat, errmsg)
  end subroutine kernel_compile_file

  !> Runs the kernel once for each point of an index space: `extents` has one number for each of its dimensions. An
  !> absent `device` means `auto`.
  subroutine launch_int32(self, extents, args, stat, errmsg, device)
    class(sparkle_compiled_kernel), intent(in) :: self
    integer(int32), intent(in) :: extents(:)
    type(sparkle_kernel_arg), intent(in) :: args(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(sparkle_device), intent(in), optional :: device

    call launch_int64(self, int(extents, int64), args, stat, errmsg, device)
  end subroutine launch_int32

  subroutine launch_int64(self, extents, args, stat, errmsg, device)
    class(sparkle_compiled_kernel), intent(in) :: self
    integer(int64), intent(in) :: extents(:)
    type(sparkle_kernel_arg), intent(in) :: args(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(sparkle_device), intent(in), optional :: device
    type(failure) :: problem
    type(c_ptr) :: device_handle
    type(c_kernel_arg) :: passed(size(args))
    integer(c_int64_t) :: all(3)
    integer :: i

    if (.not. self%is_compiled()) then
      if (self%is_copy) then
        call problem%refuse('the kernel is a copy; kernels cannot be copied')
      else
        call problem%refuse('the kernel is not compiled')
      end if
    else if (size(extents) /= self%dims) then
      call problem%refuse('extents has ' // decimal(size(extents, kind=c_int64_t)) // ' elements; expected ' // &
        decimal(int(self%dims, c_int64_t)) // ' for kernel "' // self%declared // '"')
    end if
    do i = 1, size(args)
      if (problem%status /= SPARKLE_OK) exit
      if (args(i)%is_negative) call problem%refuse('kernel argument is "' // dummy_name(self, i) // &
        '" with a part that lies outside of its buffer; expected elements of the buffer')
      if (args(i)%is_input) then
        if (writes(self, i)) call problem%refuse('kernel argument is "' // dummy_name(self, i) // &
          '" with read-only elements; expected elements that may be written')
      end if
      if (args(i)%c%length < 0) call problem%refuse('kernel argument is "' // dummy_name(self, i) // &
        '" with an array of assumed size; expected a section with an upper bound')
      if (args(i)%is_strided) call problem%refuse('kernel argument is "' // dummy_name(self, i) // &
        '" with a section that is not contiguous; expected contiguous elements')
    end do
    device_handle = handle_of(device, problem)
    if (problem%status == SPARKLE_OK) then
      all = 1
      all(:size(extents)) = extents
      passed = args%c
      passed%size = storage_size(passed) / storage_size(c_null_char)
      call take_status(problem, c_kernel_launch(device_handle, self%handle, all, passed, size(passed, kind=c_size_t)))
    end if
    call settle('launch', problem, stat, errmsg)
  end subroutine launch_int64

  !> Its name as declared; empty if it is not compiled.
  pure function kernel_name(self) result(name)
    class(sparkle_compiled_kernel), intent(in) :: self
    character(len=:), allocatable :: name

    name = ''
    if (self%is_compiled()) name = self%declared
  end function kernel_name

  !> The compiler's warnings about its source, with the lines that they are about; empty if there are none.
  function kernel_warnings(self) result(text)
    class(sparkle_compiled_kernel), intent(in) :: self
    character(len=:), allocatable :: text
    character(kind=c_char), allocatable :: characters(:)
    integer(c_size_t) :: length
    integer(c_int32_t) :: ignored

    text = ''
    if (.not. self%is_compiled()) return
    ! These fail only if sparkle_finalize has already released the handle; the length is then 0.
    length = 0
    ignored = c_kernel_diagnostics(self%handle, capacity=0_c_size_t, length=length)
    if (length == 0) return
    allocate (characters(length + 1))
    characters = c_null_char
    ignored = c_kernel_diagnostics(self%handle, characters, length + 1, length)
    text = text_in(characters)
  end function kernel_warnings

  elemental logical function kernel_is_compiled(self)
    class(sparkle_compiled_kernel), intent(in) :: self

    kernel_is_compiled = c_associated(self%handle)
  end function kernel_is_compiled

  !> Releases the kernel; releasing an empty one does nothing. Running launches end normally.
  impure elemental subroutine kernel_destroy(self)
    class(sparkle_compiled_kernel), intent(inout), target :: self
    integer(c_int32_t) :: ignored

    ! This fails only if sparkle_finalize has already released the handle.
    if (c_associated(self%home, c_loc(self%handle))) ignored = c_kernel_destroy(self%handle)
    self%handle = c_null_ptr
    self%home = c_null_ptr
    self%is_copy = .false.
  end subroutine kernel_destroy

  impure elemental subroutine kernel_finalize(self)
    type(sparkle_compiled_kernel), intent(inout) :: self

    call self%destroy()
  end subroutine kernel_finalize

  impure elemental subroutine kernel_assign(left, right)
    class(sparkle_compiled_kernel), intent(inout) :: left
    type(sparkle_compiled_kernel), intent(in) :: right

    if (c_associated(left%handle, right%handle)) return
    call left%destroy()
    left%is_copy = right%is_compiled() .or. right%is_copy
  end subroutine kernel_assign

  !> Puts a new kernel in the place of the old one, unless there was a problem.
  subroutine keep(self, handle, problem)
    class(sparkle_compiled_kernel), intent(inout), target :: self
    type(c_ptr), intent(in) :: handle
    type(failure), intent(inout) :: problem
    type(c_kernel_info) :: info

    info%size = storage_size(info) / storage_size(c_null_char)
    if (problem%status == SPARKLE_OK) call take_status(problem, c_kernel_describe(handle, info))
    if (problem%status /= SPARKLE_OK) return
    call self%destroy()
    self%handle = handle
    self%home = c_loc(self%handle)
    self%dims = int(info%dims)
    self%declared = text_in(info%name)
  end subroutine keep

  !> The name of the dummy that takes argument `position` of a launch; its number if there is none.
  function dummy_name(self, position) result(name)
    class(sparkle_compiled_kernel), intent(in) :: self
    integer, intent(in) :: position
    character(len=:), allocatable :: name
    type(c_argument_info) :: info
    integer(c_int32_t) :: status

    info%size = storage_size(info) / storage_size(c_null_char)
    status = c_kernel_argument(self%handle, int(position + self%dims - 1, c_size_t), info)
    if (status == SPARKLE_OK) then
      name = text_in(info%name)
    else
      name = decimal(int(position, c_int64_t))
    end if
  end function dummy_name

  !> Whether the kernel writes argument `position` of a launch.
  logical function writes(self, position)
    class(sparkle_compiled_kernel), intent(in) :: self
    integer, intent(in) :: position
    type(c_argument_info) :: info
    integer(c_int32_t) :: status

    info%size = storage_size(info) / storage_size(c_null_char)
    status = c_kernel_argument(self%handle, int(position + self%dims - 1, c_size_t), info)
    writes = status == SPARKLE_OK .and. info%intent /= 0
  end function writes

  !> The arguments of an epilogue for C, for the library's other modules. What C cannot see of them is checked here.
  subroutine c_arguments(args, passed, problem)
    type(sparkle_kernel_arg), intent(in) :: args(:)
    type(c_kernel_arg), intent(inout) :: passed(:)
    type(failure), intent(inout) :: problem
    character(len=:), allocatable :: argument
    integer :: i

    do i = 1, size(args)
      if (problem%status /= SPARKLE_OK) return
      argument = 'epilogue argument is number ' // decimal(int(i, c_int64_t)) // ' with '
      if (args(i)%is_negative) then
        call problem%refuse(argument // 'a part that lies outside of its buffer; expected elements of the buffer')
      else if (args(i)%c%length < 0) then
        call problem%refuse(argument // 'an array of assumed size; expected a section with an upper bound')
      else if (args(i)%is_strided) then
        call problem%refuse(argument // 'a section that is not contiguous; expected contiguous elements')
      end if
      passed(i) = args(i)%c
      passed(i)%size = storage_size(passed) / storage_size(c_null_char)
    end do
  end subroutine c_arguments

  !> An array argument without its address.
  type(sparkle_kernel_arg) function array(type, form, length, contiguous) result(it)
    integer(c_int32_t), intent(in) :: type, form
    integer(c_size_t), intent(in) :: length
    logical, intent(in) :: contiguous

    it%c%type = type
    it%c%form = form
    it%c%length = length
    ! Compilers differ on sections of one element.
    it%is_strided = length > 1 .and. .not. contiguous
  end function array

  type(sparkle_kernel_arg) function arg_int32(x) result(it)
    integer(int32), intent(in), target :: x(..)

    select rank (x)
    rank (0)
      it%c%type = SPARKLE_TYPE_INT32
      it%c%value = transfer([x, 0_int32], it%c%value)
    rank default
      it = array(SPARKLE_TYPE_INT32, C_ARG_INPUT, size(x, kind=c_size_t), is_contiguous(x))
      if (it%c%length > 0) it%c%address = c_loc(x)
    end select
  end function arg_int32

  type(sparkle_kernel_arg) function arg_int64(x) result(it)
    integer(int64), intent(in), target :: x(..)

    select rank (x)
    rank (0)
      it%c%type = SPARKLE_TYPE_INT64
      it%c%value = transfer(x, it%c%value)
    rank default
      it = array(SPARKLE_TYPE_INT64, C_ARG_INPUT, size(x, kind=c_size_t), is_contiguous(x))
      if (it%c%length > 0) it%c%address = c_loc(x)
    end select
  end function arg_int64

  type(sparkle_kernel_arg) function arg_real32(x) result(it)
    real(real32), intent(in), target :: x(..)

    select rank (x)
    rank (0)
      it%c%type = SPARKLE_TYPE_REAL32
      it%c%value = transfer([x, 0.0_real32], it%c%value)
    rank default
      it = array(SPARKLE_TYPE_REAL32, C_ARG_INPUT, size(x, kind=c_size_t), is_contiguous(x))
      if (it%c%length > 0) it%c%address = c_loc(x)
    end select
  end function arg_real32

  type(sparkle_kernel_arg) function arg_real64(x) result(it)
    real(real64), intent(in), target :: x(..)

    select rank (x)
    rank (0)
      it%c%type = SPARKLE_TYPE_REAL64
      it%c%value = transfer(x, it%c%value)
    rank default
      it = array(SPARKLE_TYPE_REAL64, C_ARG_INPUT, size(x, kind=c_size_t), is_contiguous(x))
      if (it%c%length > 0) it%c%address = c_loc(x)
    end select
  end function arg_real64

  type(sparkle_kernel_arg) function arg_logical(x) result(it)
    logical(int32), intent(in), target :: x(..)

    select rank (x)
    rank (0)
      it%c%type = SPARKLE_TYPE_LOGICAL
      it%c%value = transfer([merge(1_int32, 0_int32, x), 0_int32], it%c%value)
    rank default
      it = array(SPARKLE_TYPE_LOGICAL, C_ARG_INPUT, size(x, kind=c_size_t), is_contiguous(x))
      if (it%c%length > 0) it%c%address = c_loc(x)
    end select
  end function arg_logical

  type(sparkle_kernel_arg) function inout_int32(x) result(it)
    integer(int32), intent(inout), target :: x(..)

    it = array(SPARKLE_TYPE_INT32, C_ARG_ARRAY, size(x, kind=c_size_t), is_contiguous(x))
    if (it%c%length > 0) it%c%address = c_loc(x)
  end function inout_int32

  type(sparkle_kernel_arg) function inout_int64(x) result(it)
    integer(int64), intent(inout), target :: x(..)

    it = array(SPARKLE_TYPE_INT64, C_ARG_ARRAY, size(x, kind=c_size_t), is_contiguous(x))
    if (it%c%length > 0) it%c%address = c_loc(x)
  end function inout_int64

  type(sparkle_kernel_arg) function inout_real32(x) result(it)
    real(real32), intent(inout), target :: x(..)

    it = array(SPARKLE_TYPE_REAL32, C_ARG_ARRAY, size(x, kind=c_size_t), is_contiguous(x))
    if (it%c%length > 0) it%c%address = c_loc(x)
  end function inout_real32

  type(sparkle_kernel_arg) function inout_real64(x) result(it)
    real(real64), intent(inout), target :: x(..)

    it = array(SPARKLE_TYPE_REAL64, C_ARG_ARRAY, size(x, kind=c_size_t), is_contiguous(x))
    if (it%c%length > 0) it%c%address = c_loc(x)
  end function inout_real64

  type(sparkle_kernel_arg) function inout_logical(x) result(it)
    logical(int32), intent(inout), target :: x(..)

    it = array(SPARKLE_TYPE_LOGICAL, C_ARG_ARRAY, size(x, kind=c_size_t), is_contiguous(x))
    if (it%c%length > 0) it%c%address = c_loc(x)
  end function inout_logical

  type(sparkle_kernel_arg) function arg_buffer(buffer, first, length) result(it)
    type(sparkle_buffer), intent(in) :: buffer
    integer, intent(in), optional :: first
    integer, intent(in), optional :: length

    it = part_of(buffer, first, length)
    it%is_input = .true.
  end function arg_buffer

  type(sparkle_kernel_arg) function inout_buffer(buffer, first, length) result(it)
    type(sparkle_buffer), intent(inout) :: buffer
    integer, intent(in), optional :: first
    integer, intent(in), optional :: length

    it = part_of(buffer, first, length)
  end function inout_buffer

  !> `length` elements of a buffer from element `first` on, from 1; by default all to its end.
  type(sparkle_kernel_arg) function part_of(buffer, first, length) result(it)
    type(sparkle_buffer), intent(in) :: buffer
    integer, intent(in), optional :: first
    integer, intent(in), optional :: length

    it%c%form = C_ARG_BUFFER
    it%c%type = buffer_type(buffer)
    it%c%buffer = buffer_handle(buffer)
    ! A first element below 1 gives an offset that no buffer has.
    if (present(first)) it%c%offset = int(first, c_size_t) - 1
    it%c%length = max(0_c_size_t, buffer%length() - it%c%offset)
    if (present(length)) it%c%length = int(length, c_size_t)
    it%is_negative = it%c%length < 0 .or. it%c%offset < 0
  end function part_of
end module sparkle_kernel
