!> Devices, threads, log and timing.
!>
!> Part of module `sparkle`; programs use that module.
module sparkle_runtime
  use, intrinsic :: iso_c_binding, only: c_associated, c_double, c_f_pointer, c_funloc, c_int32_t, c_int64_t, c_loc, &
    c_null_char, c_null_funptr, c_null_ptr, c_ptr, c_size_t
  use sparkle_c
  use sparkle_support
  implicit none
  private
  public :: sparkle_device, sparkle_device_info, sparkle_devices, handle_of
  public :: sparkle_timing, sparkle_last_timing, sparkle_share, sparkle_last_shares
  public :: SPARKLE_DIMENSION_IMAGES, SPARKLE_DIMENSION_CHANNELS, SPARKLE_DIMENSION_ROWS, SPARKLE_DIMENSION_COLUMNS
  public :: sparkle_version, sparkle_num_threads, sparkle_set_num_threads, sparkle_finalize
  public :: sparkle_set_log_handler, sparkle_log_handler
  public :: SPARKLE_KIND_CPU, SPARKLE_KIND_GL, SPARKLE_LOG_DEBUG, SPARKLE_LOG_INFO, SPARKLE_LOG_WARNING

  integer, parameter :: SPARKLE_KIND_CPU = 0
  integer, parameter :: SPARKLE_KIND_GL = 1

  integer, parameter :: SPARKLE_LOG_DEBUG = 0
  integer, parameter :: SPARKLE_LOG_INFO = 1
  integer, parameter :: SPARKLE_LOG_WARNING = 2

  !> One device, usable or not.
  type :: sparkle_device_info
    integer :: kind = SPARKLE_KIND_CPU
    logical :: usable = .false.
    logical :: software = .false.
    !> The selector that opens this device; blank if it is not usable.
    character(len=32) :: id = ''
    character(len=256) :: name = ''
    !> Why it is not usable; blank if it is usable.
    character(len=512) :: reason = ''
  end type sparkle_device_info

  !> An opened device. Any number of threads may use it at once. Finalisation closes it.
  !>
  !> Assignment opens the same device again, so each side owns and closes its own handle. If the right side is closed,
  !> or its device cannot be opened again, the left side becomes closed. Bitwise copies without assignment (ALLOCATE
  !> with SOURCE, and with some compilers a structure that contains a device) share the handle of the original: they
  !> never close it, and must not be used after the original is closed.
  type :: sparkle_device
    private
    type(c_ptr) :: handle = c_null_ptr
    !> The address of `handle` when it was opened. At another address this is a bitwise copy.
    type(c_ptr) :: home = c_null_ptr
    character(len=:), allocatable :: selected
  contains
    procedure :: open => device_open
    procedure :: close => device_close
    procedure :: is_open => device_is_open
    procedure :: selector => device_selector
    procedure, private :: device_assign
    generic :: assignment(=) => device_assign
    final :: device_finalize
  end type sparkle_device

  !> The times of this thread's last successful conv2d, execute, wait or sgemm.
  type :: sparkle_timing
    !> Time of the kernel alone, on the device's own clock.
    real(c_double) :: kernel_ms = 0.0_c_double
    !> Time of the whole call, transfers included, on a monotonic clock.
    real(c_double) :: wall_ms = 0.0_c_double
    integer :: dispatches = 0
    !> Whether the CPU computed it because a GPU failed; `fallback` is then the reason.
    logical :: fell_back = .false.
    character(len=32) :: device = ''
    character(len=96) :: kernel = ''
    character(len=256) :: fallback = ''
  end type sparkle_timing

  integer, parameter :: SPARKLE_DIMENSION_IMAGES = 0
  integer, parameter :: SPARKLE_DIMENSION_CHANNELS = 1
  integer, parameter :: SPARKLE_DIMENSION_ROWS = 2
  integer, parameter :: SPARKLE_DIMENSION_COLUMNS = 3

  !> The part of a call on `multi` that one device computed.
  type :: sparkle_share
    character(len=32) :: device = ''
    !> What was cut: one of the constants SPARKLE_DIMENSION_*. A product's rows and columns are those of the C interface:
    !> a Fortran matrix is cut by columns.
    integer :: dimension = SPARKLE_DIMENSION_IMAGES
    !> The first index, from 1, and how many there are.
    integer(c_int64_t) :: first = 1
    integer(c_int64_t) :: count = 0
    !> Zero if the shares are fixed.
    real(c_double) :: predicted_ms = 0.0_c_double
    !> Transfers included.
    real(c_double) :: measured_ms = 0.0_c_double
  end type sparkle_share

  abstract interface
    !> Receives the library's log messages. Any thread may call it, several at once.
    subroutine sparkle_log_handler(level, message)
      integer, intent(in) :: level
      character(len=*), intent(in) :: message
    end subroutine sparkle_log_handler
  end interface

  !> Holds a procedure pointer, because the `user` argument of C is a data pointer.
  type :: handler_box
    procedure(sparkle_log_handler), pointer, nopass :: handler => null()
  end type handler_box

  type(handler_box), save, target :: log_box

contains

  !> Opens a device: `auto` (the default), `cpu`, `gl:N` or `name=TEXT`. On success it closes the device that was open
  !> before.
  subroutine device_open(self, selector, stat, errmsg)
    class(sparkle_device), intent(inout), target :: self
    character(len=*), intent(in), optional :: selector
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_ptr) :: handle
    character(len=:), allocatable :: wanted

    wanted = 'auto'
    if (present(selector)) wanted = trim(selector)
    handle = c_null_ptr
    call take_status(problem, c_device_open(wanted // c_null_char, handle))
    if (problem%status == SPARKLE_OK) then
      call self%close()
      self%handle = handle
      self%home = c_loc(self%handle)
      self%selected = wanted
    end if
    call settle('open', problem, stat, errmsg)
  end subroutine device_open

  !> Closes the device; closing a closed one does nothing. Plans made from it stay valid.
  impure elemental subroutine device_close(self)
    class(sparkle_device), intent(inout), target :: self
    integer(c_int32_t) :: ignored

    ! This fails only if sparkle_finalize has already closed the handle.
    if (c_associated(self%home, c_loc(self%handle))) ignored = c_device_close(self%handle)
    self%handle = c_null_ptr
    self%home = c_null_ptr
  end subroutine device_close

  impure elemental subroutine device_finalize(self)
    type(sparkle_device), intent(inout) :: self

    call self%close()
  end subroutine device_finalize

  impure elemental subroutine device_assign(left, right)
    class(sparkle_device), intent(inout) :: left
    type(sparkle_device), intent(in) :: right
    integer :: stat

    if (c_associated(left%handle, right%handle)) return
    call left%close()
    if (right%is_open()) call left%open(right%selected, stat=stat)
  end subroutine device_assign

  elemental logical function device_is_open(self)
    class(sparkle_device), intent(in) :: self

    device_is_open = c_associated(self%handle)
  end function device_is_open

  !> The selector that it was opened with; empty if it is closed.
  pure function device_selector(self) result(selector)
    class(sparkle_device), intent(in) :: self
    character(len=:), allocatable :: selector

    selector = ''
    if (self%is_open()) selector = self%selected
  end function device_selector

  !> The C handle of an optional device argument. An absent device means `auto`; a closed one is an error.
  function handle_of(device, problem) result(handle)
    type(sparkle_device), intent(in), optional :: device
    type(failure), intent(inout) :: problem
    type(c_ptr) :: handle

    handle = c_null_ptr
    if (.not. present(device)) return
    handle = device%handle
    if (.not. c_associated(handle)) call problem%refuse('device is not open')
  end function handle_of

  !> Lists all devices, usable or not; the first is the CPU.
  subroutine sparkle_devices(list, stat, errmsg)
    type(sparkle_device_info), intent(out), allocatable :: list(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    integer(c_size_t) :: count, i

    count = 0
    call take_status(problem, c_device_count(count))
    allocate (list(count))
    do i = 1, count
      call describe(i - 1, list(i), problem)
    end do
    call settle('sparkle_devices', problem, stat, errmsg)
  end subroutine sparkle_devices

  subroutine describe(index, info, problem)
    integer(c_size_t), intent(in) :: index
    type(sparkle_device_info), intent(inout) :: info
    type(failure), intent(inout) :: problem
    type(c_device_info) :: raw

    raw%size = storage_size(raw) / storage_size(c_null_char)
    call take_status(problem, c_device_describe(index, raw))
    if (problem%status /= SPARKLE_OK) return
    info%kind = int(raw%kind)
    info%usable = raw%usable /= 0
    info%software = raw%software /= 0
    info%id = text_in(raw%id)
    info%name = text_in(raw%name)
    info%reason = text_in(raw%reason)
  end subroutine describe

  !> The times of this thread's last successful computation.
  subroutine sparkle_last_timing(timing, stat, errmsg)
    type(sparkle_timing), intent(out) :: timing
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem
    type(c_timing) :: raw

    raw%size = storage_size(raw) / storage_size(c_null_char)
    call take_status(problem, c_last_timing(raw))
    if (problem%status == SPARKLE_OK) then
      timing%kernel_ms = raw%kernel_ms
      timing%wall_ms = raw%wall_ms
      timing%dispatches = int(raw%dispatches)
      timing%fell_back = raw%fell_back /= 0
      timing%device = text_in(raw%device)
      timing%kernel = text_in(raw%kernel)
      timing%fallback = text_in(raw%fallback)
    end if
    call settle('sparkle_last_timing', problem, stat, errmsg)
  end subroutine sparkle_last_timing

  !> The shares of this thread's last successful computation, by their first index; of size 0 unless it ran on `multi`.
  subroutine sparkle_last_shares(shares, stat, errmsg)
    type(sparkle_share), allocatable, intent(out) :: shares(:)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    !> `multi` has at most 16 devices, and a share that a device left is cut again for the others.
    integer, parameter :: MOST = 256
    type(failure) :: problem
    type(c_share) :: raw(MOST)
    integer(c_size_t) :: count
    integer :: i

    raw(1)%size = storage_size(raw) / storage_size(c_null_char)
    count = 0
    call take_status(problem, c_last_shares(raw, int(MOST, c_size_t), count))
    allocate (shares(min(int(count), MOST)))
    do i = 1, size(shares)
      shares(i)%device = text_in(raw(i)%device)
      shares(i)%dimension = int(raw(i)%dimension)
      shares(i)%first = raw(i)%first + 1
      shares(i)%count = raw(i)%count
      shares(i)%predicted_ms = raw(i)%predicted_ms
      shares(i)%measured_ms = raw(i)%measured_ms
    end do
    call settle('sparkle_last_shares', problem, stat, errmsg)
  end subroutine sparkle_last_shares

  !> The library's version, for instance `0.1.0`.
  function sparkle_version() result(version)
    character(len=:), allocatable :: version

    version = text_at(c_version_string())
  end function sparkle_version

  !> Number of threads of the CPU pool, which all callers share.
  integer function sparkle_num_threads()
    sparkle_num_threads = int(c_get_num_threads())
  end function sparkle_num_threads

  !> Sets the number of threads of the CPU pool, 1 to 1024; with 1 the calling thread computes.
  subroutine sparkle_set_num_threads(count, stat, errmsg)
    integer, intent(in) :: count
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call take_status(problem, c_set_num_threads(narrowed(count)))
    call settle('sparkle_set_num_threads', problem, stat, errmsg)
  end subroutine sparkle_set_num_threads

  !> Ends the library's threads and GPU contexts. All devices and plans become invalid; Sparkle can be used again.
  subroutine sparkle_finalize(stat, errmsg)
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    call take_status(problem, c_finalize())
    call settle('sparkle_finalize', problem, stat, errmsg)
  end subroutine sparkle_finalize

  !> Sends the library's log messages to `handler`, a module or external procedure. Without a handler, messages go to
  !> stderr if SPARKLE_LOG is set.
  subroutine sparkle_set_log_handler(handler, stat, errmsg)
    procedure(sparkle_log_handler), optional :: handler
    integer, intent(out), optional :: stat
    character(len=*), intent(inout), optional :: errmsg
    type(failure) :: problem

    ! No thread may read the box while it changes.
    call take_status(problem, c_set_log_callback(c_null_funptr, c_null_ptr))
    if (present(handler)) then
      log_box%handler => handler
      call take_status(problem, c_set_log_callback(c_funloc(forward_log), c_loc(log_box)))
    end if
    call settle('sparkle_set_log_handler', problem, stat, errmsg)
  end subroutine sparkle_set_log_handler

  !> The C callback: converts the message to Fortran text. Without a binding label it adds no global name.
  subroutine forward_log(level, message, user) bind(C, name="")
    integer(c_int32_t), value :: level
    type(c_ptr), value :: message
    type(c_ptr), value :: user
    type(handler_box), pointer :: box

    call c_f_pointer(user, box)
    call box%handler(int(level), text_at(message))
  end subroutine forward_log
end module sparkle_runtime
