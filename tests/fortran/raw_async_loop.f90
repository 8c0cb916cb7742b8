!> A program with its own asynchronous loop, like existing programs. After one synchronous call it binds buffers 0 to 2, never 3,
!> and dispatches (ceil(W_out/16), ceil(H_out/16), N*K) workgroups of the library's program. It calls GL through libGL. Every
!> output must be correct. Needs a GL device.
module own_gl
  use, intrinsic :: iso_c_binding
  implicit none
  public
  integer(c_int), parameter :: STORAGE = int(z'90D2'), DYNAMIC_DRAW = int(z'88E8'), DYNAMIC_COPY = int(z'88EA')
  integer(c_int), parameter :: COMMANDS_COMPLETE = int(z'9117'), BARRIERS = -1
  integer(c_int), parameter :: ALREADY = int(z'911A'), SATISFIED = int(z'911C')

  interface
    subroutine glGenBuffers(n, buffer) bind(C, name="glGenBuffers")
      import :: c_int
      integer(c_int), value :: n
      integer(c_int), intent(inout) :: buffer
    end subroutine glGenBuffers

    subroutine glDeleteBuffers(n, buffer) bind(C, name="glDeleteBuffers")
      import :: c_int
      integer(c_int), value :: n
      integer(c_int), intent(in) :: buffer
    end subroutine glDeleteBuffers

    subroutine glBindBuffer(target, buffer) bind(C, name="glBindBuffer")
      import :: c_int
      integer(c_int), value :: target, buffer
    end subroutine glBindBuffer

    subroutine glBufferData(target, bytes, data, usage) bind(C, name="glBufferData")
      import :: c_int, c_ptr, c_size_t
      integer(c_int), value :: target
      integer(c_size_t), value :: bytes
      type(c_ptr), value :: data
      integer(c_int), value :: usage
    end subroutine glBufferData

    subroutine glGetBufferSubData(target, offset, bytes, data) bind(C, name="glGetBufferSubData")
      import :: c_int, c_ptr, c_size_t
      integer(c_int), value :: target
      integer(c_size_t), value :: offset, bytes
      type(c_ptr), value :: data
    end subroutine glGetBufferSubData

    subroutine glBindBufferBase(target, index, buffer) bind(C, name="glBindBufferBase")
      import :: c_int
      integer(c_int), value :: target, index, buffer
    end subroutine glBindBufferBase

    subroutine glUseProgram(program_id) bind(C, name="glUseProgram")
      import :: c_int
      integer(c_int), value :: program_id
    end subroutine glUseProgram

    subroutine glDispatchCompute(x, y, z) bind(C, name="glDispatchCompute")
      import :: c_int
      integer(c_int), value :: x, y, z
    end subroutine glDispatchCompute

    subroutine glMemoryBarrier(bits) bind(C, name="glMemoryBarrier")
      import :: c_int
      integer(c_int), value :: bits
    end subroutine glMemoryBarrier

    function glFenceSync(condition, flags) bind(C, name="glFenceSync")
      import :: c_int, c_ptr
      integer(c_int), value :: condition, flags
      type(c_ptr) :: glFenceSync
    end function glFenceSync

    function glClientWaitSync(fence, flags, nanoseconds) bind(C, name="glClientWaitSync")
      import :: c_int, c_int64_t, c_ptr
      type(c_ptr), value :: fence
      integer(c_int), value :: flags
      integer(c_int64_t), value :: nanoseconds
      integer(c_int) :: glClientWaitSync
    end function glClientWaitSync

    subroutine glDeleteSync(fence) bind(C, name="glDeleteSync")
      import :: c_ptr
      type(c_ptr), value :: fence
    end subroutine glDeleteSync
  end interface
end module own_gl

program raw_async_loop
  use checks
  use gpu_opengl_interface
  use own_gl
  implicit none
  integer, parameter :: SETS = 3, LENGTH = 10
  type(conv), parameter :: SHAPES(3) = [conv(n=1, c=4, h=40, w=40, k=16, r=3, s=3, pad_h=1, pad_w=1), &
    conv(n=2, c=3, h=18, w=23, k=5, r=3, s=3), conv(n=3, c=2, h=33, w=17, k=4, r=5, s=5, stride_h=2, stride_w=2)]
  integer :: i

  call check(gpu_init(), 'gpu_init')
  do i = 1, size(SHAPES)
    call loop(SHAPES(i), i)
  end do
  call gpu_cleanup()
  call finish()

contains

  subroutine loop(cv, seed)
    type(conv), intent(in) :: cv
    integer, intent(in) :: seed
    real(c_float), target :: x(cv%x_len(), LENGTH), w(cv%w_len()), y(cv%y_len(), LENGTH)
    type(c_ptr) :: fences(SETS)
    integer(c_int) :: inputs(SETS), outputs(SETS), weights
    integer :: i, set
    real(c_float) :: time

    w = data_of(size(w), seed)
    do i = 1, LENGTH
      x(:, i) = data_of(size(x, 1), 100 * seed + i)
    end do
    y = huge(y)
    time = gpu_execute_conv2d_ref(x(:, 1), w, y(:, 1), cv%n, cv%c, cv%h, cv%w, cv%k, cv%r, cv%stride_h, cv%pad_h, &
      cv%p(), cv%q())
    call check(time >= 0.0 .and. agrees(cv, x(:, 1), w, y(:, 1)), 'the synchronous call')
    y = huge(y)

    do set = 1, SETS
      call glGenBuffers(1, inputs(set))
      call glGenBuffers(1, outputs(set))
      fences(set) = c_null_ptr
    end do
    call glGenBuffers(1, weights)
    call glBindBuffer(STORAGE, weights)
    call glBufferData(STORAGE, 4_c_size_t * size(w), c_loc(w), DYNAMIC_DRAW)
    do i = 1, LENGTH
      set = 1 + mod(i - 1, SETS)
      if (i > SETS) call collect(outputs(set), fences(set), y(:, i - SETS))
      call glBindBuffer(STORAGE, inputs(set))
      call glBufferData(STORAGE, 4_c_size_t * size(x, 1), c_loc(x(1, i)), DYNAMIC_DRAW)
      call glBindBuffer(STORAGE, outputs(set))
      call glBufferData(STORAGE, 4_c_size_t * size(y, 1), c_null_ptr, DYNAMIC_COPY)
      call glBindBufferBase(STORAGE, 0, inputs(set))
      call glBindBufferBase(STORAGE, 1, weights)
      call glBindBufferBase(STORAGE, 2, outputs(set))
      call glUseProgram(gpu_get_program_id())
      call glDispatchCompute((cv%q() + 15) / 16, (cv%p() + 15) / 16, cv%n * cv%k)
      call glMemoryBarrier(BARRIERS)
      fences(set) = glFenceSync(COMMANDS_COMPLETE, 0)
    end do
    do i = LENGTH - SETS + 1, LENGTH
      set = 1 + mod(i - 1, SETS)
      call collect(outputs(set), fences(set), y(:, i))
    end do
    do i = 1, LENGTH
      call check(agrees(cv, x(:, i), w, y(:, i)), 'an output of the loop')
    end do
    do set = 1, SETS
      call glDeleteBuffers(1, inputs(set))
      call glDeleteBuffers(1, outputs(set))
    end do
    call glDeleteBuffers(1, weights)
  end subroutine loop

  subroutine collect(buffer, fence, y)
    integer(c_int), intent(in) :: buffer
    type(c_ptr), intent(inout) :: fence
    real(c_float), intent(inout), target, contiguous :: y(:)
    integer(c_int) :: outcome

    outcome = glClientWaitSync(fence, 1, 60000000000_c_int64_t)
    call check(outcome == ALREADY .or. outcome == SATISFIED, 'the fence signals')
    call glDeleteSync(fence)
    fence = c_null_ptr
    call glBindBuffer(STORAGE, buffer)
    call glGetBufferSubData(STORAGE, 0_c_size_t, 4_c_size_t * size(y), c_loc(y))
  end subroutine collect
end program raw_async_loop
