!> Exit handlers of a Fortran program that still use the library.
module leaving_handler
  use, intrinsic :: iso_c_binding, only: c_char, c_int, c_size_t
  use, intrinsic :: iso_fortran_env, only: real32
  use checks, only: conv, data_of, agrees
  use sparkle
  use gpu_opengl_interface, only: gpu_cleanup, gpu_execute_conv2d_ref
  implicit none

  type(conv), parameter :: HERE = conv(n=1, c=3, h=8, w=8, k=4, r=3, s=3)
  integer, parameter :: JOBS = 4

  character(len=20) :: selector = ''
  type(sparkle_device) :: device
  type(sparkle_plan) :: plan
  type(sparkle_pipeline) :: pipeline
  type(sparkle_ticket) :: tickets(JOBS)
  real(real32), allocatable, target, asynchronous :: x(:), y(:, :)
  real(real32), allocatable :: w(:)

  interface
    function c_write(file, text, length) bind(C, name="write") result(written)
      import :: c_char, c_int, c_size_t
      integer(c_int), value :: file
      character(kind=c_char), intent(in) :: text(*)
      integer(c_size_t), value :: length
      integer(c_size_t) :: written
    end function c_write
    subroutine c_exit(status) bind(C, name="_exit")
      import :: c_int
      integer(c_int), value :: status
    end subroutine c_exit
  end interface

contains

  !> Prints a line with write(2), because Fortran units may be closed at exit.
  subroutine say(text)
    character(len=*), intent(in) :: text

    if (c_write(1_c_int, text // new_line('a'), len(text, c_size_t) + 1) < 0) call c_exit(2_c_int)
  end subroutine say

  subroutine want(holds, what)
    logical, intent(in) :: holds
    character(len=*), intent(in) :: what

    if (holds) return
    call say('FAILED: ' // what)
    call c_exit(1_c_int)
  end subroutine want

  !> Checks that the output of a successful call is correct and that of a failed call unchanged.
  subroutine want_correct(stat, output, what)
    integer, intent(in) :: stat
    real(real32), intent(in) :: output(:)
    character(len=*), intent(in) :: what

    if (stat == SPARKLE_OK) then
      call want(agrees(HERE, x, w, output), what)
    else
      call want(all(abs(output + 1) <= 0), what // ' failed and wrote')
    end if
  end subroutine want_correct

  type(sparkle_conv2d_desc) function described()
    described = sparkle_conv2d_desc(n=HERE%n, c=HERE%c, h=HERE%h, w=HERE%w, k=HERE%k, r=HERE%r, s=HERE%s)
  end function described

  subroutine handler() bind(C)
    type(sparkle_device) :: another
    real(real32), allocatable :: z(:)
    integer :: i, stat

    do i = 1, JOBS
      call tickets(i)%wait(stat=stat)
      call want_correct(stat, y(:, i), 'a job')
      call tickets(i)%release()
    end do
    call pipeline%flush(stat=stat)
    allocate (z(size(y, 1)), source=-1.0_real32)
    call plan%execute(x, z, stat=stat)
    call want_correct(stat, z, 'a plan')
    call another%open(trim(selector), stat=stat)
    z(:) = -1
    call conv2d(described(), x, w, z, device=device, stat=stat)
    call want_correct(stat, z, 'a call')
    call pipeline%close()
    call plan%destroy()
    call another%close()
    call device%close()
    call sparkle_finalize(stat=stat)
    call want(stat == SPARKLE_OK, 'finalize')
    call reference()
    call say('left')
  end subroutine handler

  !> Calls the reference modules, which compute or report a failure.
  subroutine reference()
    real(real32), allocatable :: z(:)
    real(real32) :: ms

    allocate (z(size(y, 1)), source=-1.0_real32)
    ms = gpu_execute_conv2d_ref(x, w, z, HERE%n, HERE%c, HERE%h, HERE%w, HERE%k, HERE%r, 1, 0, HERE%p(), HERE%q())
    call want_correct(merge(SPARKLE_OK, SPARKLE_ERROR_ENDING, ms >= 0), z, 'the reference interface')
    call gpu_cleanup()
  end subroutine reference
end module leaving_handler

!> Ends while jobs are in flight. The arguments are the device, when the handler is registered, and how the program ends.
program leaving
  use, intrinsic :: iso_c_binding, only: c_funptr, c_funloc, c_int
  use leaving_handler
  implicit none
  interface
    function c_atexit(handler) bind(C, name="atexit") result(status)
      import :: c_funptr, c_int
      type(c_funptr), value :: handler
      integer(c_int) :: status
    end function c_atexit
  end interface
  character(len=20) :: when, how
  integer :: i

  call get_command_argument(1, selector)
  call get_command_argument(2, when)
  call get_command_argument(3, how)
  allocate (x(HERE%x_len()), y(HERE%y_len(), JOBS), w(HERE%w_len()))
  x(:) = data_of(HERE%x_len(), 1)
  w(:) = data_of(HERE%w_len(), 2)
  y = -1
  if (when == 'early') call want(c_atexit(c_funloc(handler)) == 0, 'atexit')
  call device%open(trim(selector))
  call plan%create(described(), w, device=device)
  call pipeline%open(device)
  do i = 1, JOBS
    call pipeline%submit(plan, x, y(:, i), tickets(i))
  end do
  if (when == 'late') call want(c_atexit(c_funloc(handler)) == 0, 'atexit')
  call say('leaving')
  if (how == 'stop') stop
  if (how == 'error stop') error stop 3
end program leaving
