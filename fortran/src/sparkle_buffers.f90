!> Buffers: memory that lives on a device, which kernels read and write in place.
!>
!> Part of module `sparkle`; programs use that module.
module sparkle_buffers
  use, intrinsic :: iso_c_binding, only: c_associated, c_int32_t, c_loc, c_null_ptr, c_ptr, c_size_t
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
  use sparkle_c
  use sparkle_c_kernels, only: c_buffer_create, c_buffer_write, c_buffer_read, c_buffer_destroy
  use sparkle_runtime, only: handle_of, sparkle_device
  use sparkle_support
  implicit none
  private
  public :: sparkle_buffer, buffer_handle, buffer_type, offset_of
  public :: SPARKLE_TYPE_INT32, SPARKLE_TYPE_INT64, SPARKLE_TYPE_REAL32, SPARKLE_TYPE_REAL64, SPARKLE_TYPE_LOGICAL

  !> Elements of one type on a device, zeros at first. Finalisation releases them.
  !>
  !> A lost device loses the contents of its buffers, and so does a call that fails while it writes them. Every use then
  !> fails with SPARKLE_ERROR_CONTENTS_LOST until all of the buffer is written. While a call writes a buffer, another call
  !> that uses it fails with SPARKLE_ERROR_BUSY.
  !>
  !> It cannot be copied: the left side of an assignment becomes an empty buffer, whose uses fail with a message. Pass
  !> buffers by reference, or use pointers. For copies without assignment, see `sparkle_device`.
  type :: sparkle_buffer
    private
    type(c_ptr) :: handle = c_null_ptr
    !> The address of `handle` when the buffer was created. At another address this is a bitwise copy.
    type(c_ptr) :: home = c_null_ptr
    integer(c_int32_t) :: type = SPARKLE_TYPE_REAL32
    integer(c_size_t) :: elements = 0
    logical :: is_copy = .false.
  contains
    procedure :: create => buffer_create
    procedure, private :: write_int32, write_int64, write_real32, write_real64, write_logical
    generic :: write => write_int32, write_int64, write_real32, write_real64, write_logical
    procedure, private :: read_int32, read_int64, read_real32, read_real64, read_logical
    generic :: read => read_int32, read_int64, read_real32, read_real64, read_logical
    procedure :: length => buffer_length
    procedure :: is_created => buffer_is_created
    procedure :: destroy => buffer_destroy
    procedure, private :: buffer_assign
    generic :: assignment(=) => buffer_assign
    final :: buffer_finalize
  end type sparkle_buffer

contains

  !> Allocates `length` elements of a type, by default SPARKLE_TYPE_REAL32. An absent `device` means `auto`, which takes its
  !> first GPU, or the CPU without one. On success it releases the old buffer.
  subroutine buffer_create(self, length, type, device, stat, errmsg)
    class(sparkle_buffer), intent(inout), target :: self
    integer, intent(in) :: length
    integer, intent(in), optional :: type
    type(sparkle_device), intent(in), optional :: device
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_ptr) :: handle, device_handle
    integer(c_int32_t) :: wanted

    handle = c_null_ptr
    wanted = SPARKLE_TYPE_REAL32
    if (present(type)) wanted = narrowed(type)
    if (length < 0) call problem%refuse('length is ' // decimal(int(length, c_size_t)) // '; expected at least 0')
    device_handle = handle_of(device, problem)
    if (problem%status == SPARKLE_OK) then
      call take_status(problem, c_buffer_create(device_handle, wanted, int(length, c_size_t), handle))
    end if
    if (problem%status == SPARKLE_OK) then
      call self%destroy()
      self%handle = handle
      self%home = c_loc(self%handle)
      self%type = wanted
      self%elements = length
    end if
    call settle('create', problem, stat, errmsg)
  end subroutine buffer_create

  !> Its number of elements.
  pure integer(c_size_t) function buffer_length(self)
    class(sparkle_buffer), intent(in) :: self

    buffer_length = self%elements
  end function buffer_length

  elemental logical function buffer_is_created(self)
    class(sparkle_buffer), intent(in) :: self

    buffer_is_created = c_associated(self%handle)
  end function buffer_is_created

  !> Releases the buffer; releasing an empty one does nothing. Running calls end normally.
  impure elemental subroutine buffer_destroy(self)
    class(sparkle_buffer), intent(inout), target :: self
    integer(c_int32_t) :: ignored

    ! This fails only if sparkle_finalize has already released the handle.
    if (c_associated(self%home, c_loc(self%handle))) ignored = c_buffer_destroy(self%handle)
    self%handle = c_null_ptr
    self%home = c_null_ptr
    self%elements = 0
    self%is_copy = .false.
  end subroutine buffer_destroy

  impure elemental subroutine buffer_finalize(self)
    type(sparkle_buffer), intent(inout) :: self

    call self%destroy()
  end subroutine buffer_finalize

  impure elemental subroutine buffer_assign(left, right)
    class(sparkle_buffer), intent(inout) :: left
    type(sparkle_buffer), intent(in) :: right

    if (c_associated(left%handle, right%handle)) return
    call left%destroy()
    left%is_copy = right%is_created() .or. right%is_copy
  end subroutine buffer_assign

  !> The C handle, for the library's other modules; null if the buffer is not created.
  pure function buffer_handle(buffer) result(handle)
    type(sparkle_buffer), intent(in) :: buffer
    type(c_ptr) :: handle

    handle = buffer%handle
  end function buffer_handle

  !> The type of its elements.
  pure integer(c_int32_t) function buffer_type(buffer)
    type(sparkle_buffer), intent(in) :: buffer

    buffer_type = buffer%type
  end function buffer_type

  !> The offset of element `first`, which counts from 1. A number below 1 gives an offset that no buffer has.
  pure integer(c_size_t) function offset_of(first)
    integer, intent(in), optional :: first

    offset_of = 0
    if (present(first)) offset_of = int(first, c_size_t) - 1
  end function offset_of

  !> Checks what the library cannot see.
  subroutine check(self, type, length, contiguous, problem)
    class(sparkle_buffer), intent(in) :: self
    integer(c_int32_t), intent(in) :: type
    integer(c_size_t), intent(in) :: length
    logical, intent(in) :: contiguous
    type(failure), intent(inout) :: problem

    if (self%is_copy) call problem%refuse('the buffer is a copy; buffers cannot be copied')
    if (.not. self%is_created()) call problem%refuse('the buffer is not created')
    if (type /= self%type) call problem%refuse('x has another type than the elements of the buffer')
    if (length < 0) call problem%refuse('x has assumed size; expected a section with an upper bound')
    if (length > 1 .and. .not. contiguous) call problem%refuse('x is not contiguous; expected contiguous elements')
  end subroutine check

  ! `call b%write(x, first)` copies an array or scalar to the buffer, from element `first` on, by default 1.

  subroutine write_int32(self, x, first, stat, errmsg)
    class(sparkle_buffer), intent(inout) :: self
    integer(int32), intent(in), target :: x(..)
    integer, intent(in), optional :: first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: length

    length = size(x, kind=c_size_t)
    call check(self, SPARKLE_TYPE_INT32, length, is_contiguous(x), problem)
    if (problem%status == SPARKLE_OK .and. length > 0) then
      call take_status(problem, c_buffer_write(self%handle, offset_of(first), c_loc(x), length))
    end if
    call settle('write', problem, stat, errmsg)
  end subroutine write_int32

  subroutine write_int64(self, x, first, stat, errmsg)
    class(sparkle_buffer), intent(inout) :: self
    integer(int64), intent(in), target :: x(..)
    integer, intent(in), optional :: first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: length

    length = size(x, kind=c_size_t)
    call check(self, SPARKLE_TYPE_INT64, length, is_contiguous(x), problem)
    if (problem%status == SPARKLE_OK .and. length > 0) then
      call take_status(problem, c_buffer_write(self%handle, offset_of(first), c_loc(x), length))
    end if
    call settle('write', problem, stat, errmsg)
  end subroutine write_int64

  subroutine write_real32(self, x, first, stat, errmsg)
    class(sparkle_buffer), intent(inout) :: self
    real(real32), intent(in), target :: x(..)
    integer, intent(in), optional :: first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: length

    length = size(x, kind=c_size_t)
    call check(self, SPARKLE_TYPE_REAL32, length, is_contiguous(x), problem)
    if (problem%status == SPARKLE_OK .and. length > 0) then
      call take_status(problem, c_buffer_write(self%handle, offset_of(first), c_loc(x), length))
    end if
    call settle('write', problem, stat, errmsg)
  end subroutine write_real32

  subroutine write_real64(self, x, first, stat, errmsg)
    class(sparkle_buffer), intent(inout) :: self
    real(real64), intent(in), target :: x(..)
    integer, intent(in), optional :: first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: length

    length = size(x, kind=c_size_t)
    call check(self, SPARKLE_TYPE_REAL64, length, is_contiguous(x), problem)
    if (problem%status == SPARKLE_OK .and. length > 0) then
      call take_status(problem, c_buffer_write(self%handle, offset_of(first), c_loc(x), length))
    end if
    call settle('write', problem, stat, errmsg)
  end subroutine write_real64

  subroutine write_logical(self, x, first, stat, errmsg)
    class(sparkle_buffer), intent(inout) :: self
    logical(int32), intent(in), target :: x(..)
    integer, intent(in), optional :: first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: length

    length = size(x, kind=c_size_t)
    call check(self, SPARKLE_TYPE_LOGICAL, length, is_contiguous(x), problem)
    if (problem%status == SPARKLE_OK .and. length > 0) then
      call take_status(problem, c_buffer_write(self%handle, offset_of(first), c_loc(x), length))
    end if
    call settle('write', problem, stat, errmsg)
  end subroutine write_logical

  subroutine read_int32(self, x, first, stat, errmsg)
    class(sparkle_buffer), intent(in) :: self
    integer(int32), intent(inout), target :: x(..)
    integer, intent(in), optional :: first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: length

    length = size(x, kind=c_size_t)
    call check(self, SPARKLE_TYPE_INT32, length, is_contiguous(x), problem)
    if (problem%status == SPARKLE_OK .and. length > 0) then
      call take_status(problem, c_buffer_read(self%handle, offset_of(first), c_loc(x), length))
    end if
    call settle('read', problem, stat, errmsg)
  end subroutine read_int32

  subroutine read_int64(self, x, first, stat, errmsg)
    class(sparkle_buffer), intent(in) :: self
    integer(int64), intent(inout), target :: x(..)
    integer, intent(in), optional :: first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: length

    length = size(x, kind=c_size_t)
    call check(self, SPARKLE_TYPE_INT64, length, is_contiguous(x), problem)
    if (problem%status == SPARKLE_OK .and. length > 0) then
      call take_status(problem, c_buffer_read(self%handle, offset_of(first), c_loc(x), length))
    end if
    call settle('read', problem, stat, errmsg)
  end subroutine read_int64

  subroutine read_real32(self, x, first, stat, errmsg)
    class(sparkle_buffer), intent(in) :: self
    real(real32), intent(inout), target :: x(..)
    integer, intent(in), optional :: first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: length

    length = size(x, kind=c_size_t)
    call check(self, SPARKLE_TYPE_REAL32, length, is_contiguous(x), problem)
    if (problem%status == SPARKLE_OK .and. length > 0) then
      call take_status(problem, c_buffer_read(self%handle, offset_of(first), c_loc(x), length))
    end if
    call settle('read', problem, stat, errmsg)
  end subroutine read_real32

  subroutine read_real64(self, x, first, stat, errmsg)
    class(sparkle_buffer), intent(in) :: self
    real(real64), intent(inout), target :: x(..)
    integer, intent(in), optional :: first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: length

    length = size(x, kind=c_size_t)
    call check(self, SPARKLE_TYPE_REAL64, length, is_contiguous(x), problem)
    if (problem%status == SPARKLE_OK .and. length > 0) then
      call take_status(problem, c_buffer_read(self%handle, offset_of(first), c_loc(x), length))
    end if
    call settle('read', problem, stat, errmsg)
  end subroutine read_real64

  subroutine read_logical(self, x, first, stat, errmsg)
    class(sparkle_buffer), intent(in) :: self
    logical(int32), intent(inout), target :: x(..)
    integer, intent(in), optional :: first
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: length

    length = size(x, kind=c_size_t)
    call check(self, SPARKLE_TYPE_LOGICAL, length, is_contiguous(x), problem)
    if (problem%status == SPARKLE_OK .and. length > 0) then
      call take_status(problem, c_buffer_read(self%handle, offset_of(first), c_loc(x), length))
    end if
    call settle('read', problem, stat, errmsg)
  end subroutine read_logical
end module sparkle_buffers
