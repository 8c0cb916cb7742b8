!> Module `sparkle`: ownership of devices and plans when handles are copied, go out of scope or are finalized. Also version, device
!> list, threads and log messages.
module log_keeper
  use sparkle, only: SPARKLE_LOG_WARNING
  implicit none
  integer, save :: messages = 0
  integer, save :: worst_level = -1
  logical, save :: text_received = .true.

contains

  subroutine keep(level, message)
    integer, intent(in) :: level
    character(len=*), intent(in) :: message

    !$omp atomic
    messages = messages + 1
    worst_level = max(worst_level, min(level, SPARKLE_LOG_WARNING))
    if (len(message) == 0) text_received = .false.
  end subroutine keep
end module log_keeper

program modern_handles
  use, intrinsic :: iso_fortran_env, only: real32
  use checks
  use log_keeper
  use sparkle
  implicit none

  type :: layer
    integer :: number = 0
    type(sparkle_device) :: device
    type(sparkle_plan) :: plan
  end type layer

  type(conv), parameter :: SHAPE_HERE = conv(n=1, c=2, h=4, w=5, k=3, r=3, s=3)

  call log_messages()
  call version_and_devices()
  call device_copies()
  call device_in_scopes()
  call plans_outlive_devices()
  call plan_copies()
  call arrays_of_handles()
  call threads()
  call finalized_library()
  call finish()

contains

  !> Whether `device`, or the automatic one, computes correctly.
  logical function works(device)
    type(sparkle_device), intent(in), optional :: device
    real(real32) :: x(40), w(54), y(18)
    integer :: stat

    x = data_of(size(x), 1)
    w = data_of(size(w), 2)
    y = 0.0_real32
    call conv2d(sparkle_conv2d_desc(n=1, c=2, h=4, w=5, k=3, r=3, s=3), x, w, y, device=device, stat=stat)
    works = stat == SPARKLE_OK
    if (works) works = agrees(SHAPE_HERE, x, w, y)
  end function works

  !> Whether `plan`, created by `make`, computes correctly.
  logical function executes(plan)
    type(sparkle_plan), intent(in) :: plan
    real(real32) :: x(40), y(18)
    integer :: stat

    x = data_of(size(x), 3)
    call plan%execute(x, y, stat)
    executes = stat == SPARKLE_OK
    if (executes) executes = agrees(SHAPE_HERE, x, data_of(54, 2), y)
  end function executes

  subroutine make(plan, device)
    type(sparkle_plan), intent(inout) :: plan
    type(sparkle_device), intent(in), optional :: device

    call plan%create(sparkle_conv2d_desc(n=1, c=2, h=4, w=5, k=3, r=3, s=3), data_of(54, 2), device=device)
  end subroutine make

  subroutine log_messages()
    character(len=80) :: errmsg
    integer :: stat

    ! The first use of the library warns of unknown environment variables.
    call set_variable('SPARKLE_UNKNOWN_VARIABLE', '1')
    call sparkle_set_log_handler(keep)
    call check(works(), 'a first call')
    call sparkle_set_log_handler()
    call check(messages > 0 .and. text_received .and. worst_level == SPARKLE_LOG_WARNING, 'log messages are received')
    messages = 0
    call sparkle_set_num_threads(-1, stat, errmsg)
    call check(works() .and. messages == 0, 'no messages without a handler')
  end subroutine log_messages

  subroutine version_and_devices()
    type(sparkle_device_info), allocatable :: list(:)
    integer :: i, stat

    call check(sparkle_version() == '0.1.0', 'the version')
    call sparkle_devices(list, stat)
    call check(stat == SPARKLE_OK .and. size(list) >= 1, 'there are devices')
    call check(list(1)%kind == SPARKLE_KIND_CPU .and. list(1)%usable .and. list(1)%id == 'cpu', 'the first is the CPU')
    do i = 1, size(list)
      call check(list(i)%name /= '', 'a device has a name')
      call check(list(i)%usable .eqv. list(i)%id /= '', 'a usable device has an id')
      call check(list(i)%usable .neqv. list(i)%reason /= '', 'an unusable device has a reason')
      if (i > 1) call check(list(i)%kind == SPARKLE_KIND_GL, 'the others are GL')
    end do
  end subroutine version_and_devices

  subroutine device_copies()
    type(sparkle_device) :: original, copy, third

    call original%open('cpu')
    call check(original%is_open() .and. original%selector() == 'cpu', 'open')
    copy = original
    call check(copy%is_open() .and. copy%selector() == 'cpu', 'a copy is open')
    call original%close()
    call original%close()
    call check(works(copy) .and. .not. works(original), 'a copy outlives the original')
    third = copy
    call copy%close()
    call check(works(third), 'a copy of a copy works')
    third = third
    call check(works(third), 'assigned to itself')
    third = original
    call check(.not. third%is_open(), 'a copy of a closed one is closed')
    call third%open()
    call check(third%selector() == 'auto' .and. works(third), 'opened again, automatic')
    call third%open('cpu')
    call check(third%selector() == 'cpu' .and. works(third), 'opened over an open one')
  end subroutine device_copies

  subroutine device_in_scopes()
    type(sparkle_device) :: outer
    type(sparkle_device), allocatable :: dynamic, sourced
    integer :: i

    call outer%open('cpu')
    do i = 1, 100
      call copy_and_leave(outer)
    end do
    call check(works(outer), 'copies that went out of scope closed only themselves')
    allocate (dynamic)
    dynamic = outer
    call check(works(dynamic), 'an allocatable copy')
    deallocate (dynamic)
    call check(works(outer), 'deallocating the copy closed only the copy')
    ! SOURCE= copies the bits without the defined assignment.
    allocate (sourced, source=outer)
    call check(works(sourced), 'a sourced copy')
    deallocate (sourced)
    call check(works(outer), 'deallocating the sourced copy closed nothing')
    allocate (sourced, source=outer)
    call outer%close()
    call check(.not. works(sourced), 'a sourced copy is refused after the original is closed')
  end subroutine device_in_scopes

  subroutine copy_and_leave(device)
    type(sparkle_device), intent(in) :: device
    type(sparkle_device) :: local

    local = device
    call check(local%is_open(), 'a local copy')
  end subroutine copy_and_leave

  subroutine plans_outlive_devices()
    type(sparkle_plan) :: plan
    type(sparkle_device) :: device

    call device%open('cpu')
    call make(plan, device)
    call device%close()
    call check(executes(plan), 'a plan outlives its device')
  end subroutine plans_outlive_devices

  subroutine plan_copies()
    type(sparkle_plan), target :: plan
    type(sparkle_plan) :: copy, second
    type(sparkle_plan), pointer :: reference
    type(sparkle_plan), allocatable :: sourced
    character(len=120) :: errmsg
    real(real32) :: x(40), y(18)
    integer :: stat

    call make(plan)
    call make(copy)
    copy = plan
    call check(.not. copy%is_created(), 'a copy is empty')
    call copy%execute(x, y, stat, errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT .and. index(errmsg, 'the plan is a copy made by assignment') == 1, &
      'a copy reports that it is a copy')
    call check(executes(plan), 'the original still works')
    second = copy
    call second%execute(x, y, stat, errmsg)
    call check(index(errmsg, 'the plan is a copy made by assignment') == 1, 'a copy of a copy reports the same')
    plan = plan
    call check(executes(plan), 'assigned to itself')
    call make(copy)
    call check(executes(copy), 'a copy can be created')
    reference => plan
    call check(executes(reference), 'a pointer')
    allocate (sourced, source=plan)
    call check(executes(sourced), 'a sourced copy')
    deallocate (sourced)
    call check(executes(plan), 'deallocating the sourced copy released nothing')
    allocate (sourced, source=plan)
    call plan%destroy()
    call sourced%execute(x, y, stat, errmsg)
    call check(stat == SPARKLE_ERROR_INVALID_HANDLE, 'a sourced copy is refused after the original is destroyed')
  end subroutine plan_copies

  subroutine arrays_of_handles()
    type(layer) :: one, copies(5)
    type(layer), allocatable :: layers(:)
    type(sparkle_device) :: devices(3)
    integer :: i

    call devices(2)%open('cpu')
    devices(1:3:2) = devices(2)
    call devices(2)%close()
    call check(works(devices(1)) .and. works(devices(3)), 'assigned to a section')
    devices = devices(2)
    call check(.not. any(devices%is_open()), 'all closed by assignment')

    allocate (layers(4))
    do i = 1, 4
      call layers(i)%device%open('cpu')
      call make(layers(i)%plan, layers(i)%device)
    end do
    do i = 1, 4
      call check(executes(layers(i)%plan) .and. works(layers(i)%device), 'handles in an array of layers')
    end do
    deallocate (layers)

    one%number = 7
    call one%device%open('cpu')
    call make(one%plan, one%device)
    ! gfortran 12 makes bitwise temporaries for such assignments and finalizes them. That must not close any handle.
    do i = 1, size(copies)
      copies(i) = one
    end do
    do i = 1, size(copies)
      call check(copies(i)%number == 7 .and. works(copies(i)%device), 'a copied structure')
    end do
    call check(works(one%device) .and. executes(one%plan), 'the original structure')
  end subroutine arrays_of_handles

  subroutine threads()
    integer :: before

    before = sparkle_num_threads()
    call check(before >= 1, 'at least one thread')
    call sparkle_set_num_threads(1)
    call check(sparkle_num_threads() == 1 .and. works(), 'one thread')
    call sparkle_set_num_threads(3)
    call check(sparkle_num_threads() == 3 .and. works(), 'three threads')
    call sparkle_set_num_threads(before)
  end subroutine threads

  subroutine finalized_library()
    type(sparkle_device) :: device
    type(sparkle_plan) :: plan
    integer :: stat
    real(real32) :: x(40), y(18)

    call device%open('cpu')
    call make(plan, device)
    call sparkle_finalize()
    call sparkle_finalize()
    call check(.not. works(device), 'finalized: the device is invalid')
    x = 0.0_real32
    call plan%execute(x, y, stat)
    call check(stat == SPARKLE_ERROR_INVALID_HANDLE, 'finalized: the plan is invalid')
    call device%open('cpu')
    call make(plan, device)
    call check(works(device) .and. executes(plan) .and. works(), 'everything works again')
  end subroutine finalized_library
end program modern_handles
