!> Module `sparkle`: pipelines with jobs in flight, on the CPU and on the device that SPARKLE_DEVICE names.
program modern_stream
  use, intrinsic :: iso_fortran_env, only: real32
  use checks
  use sparkle
  implicit none

  type(conv), parameter :: HERE = conv(n=3, c=2, h=6, w=5, k=3, r=3, s=3)
  integer, parameter :: JOBS = 12

  call streams('cpu')
  call streams('auto')
  call finish()

contains

  subroutine streams(selector)
    character(len=*), intent(in) :: selector
    type(sparkle_device) :: device
    type(sparkle_plan) :: plan
    type(sparkle_pipeline) :: pipeline
    type(sparkle_ticket) :: tickets(JOBS), last
    real(real32), allocatable, target, asynchronous :: x(:, :), y(:, :), z(:)
    real(real32), allocatable :: weights(:)
    logical :: ignored
    integer :: i, stat

    allocate (x(HERE%x_len(), JOBS), y(HERE%y_len(), JOBS), z(HERE%y_len()), weights(HERE%w_len()))
    weights(:) = data_of(HERE%w_len(), 1)
    call device%open(selector)
    call plan%create(sparkle_conv2d_desc(n=HERE%n, c=HERE%c, h=HERE%h, w=HERE%w, k=HERE%k, r=HERE%r, s=HERE%s), &
      weights, device=device)
    call pipeline%open(device, slots=2)
    y = -1.0_real32
    do i = 1, JOBS
      x(:, i) = data_of(HERE%x_len(), 10 + i)
      call pipeline%submit(plan, x(:, i), y(:, i), tickets(i))
    end do
    do i = JOBS, 1, -1
      call tickets(i)%wait()
      call check(tickets(i)%is_done(), 'a ticket that was waited for is done')
    end do
    do i = 1, JOBS
      call plan%execute(x(:, i), z)
      call check(same_bits(y(:, i), z), 'a job and a call have the same result')
    end do
    call pipeline%submit(plan, x(:, 1), y(:, 2), last)
    ignored = last%cancel()
    call pipeline%flush()
    call check(last%is_done(), 'done after a flush')
    call last%wait(timeout_ms=1000, stat=stat)
    call check(stat == merge(SPARKLE_ERROR_CANCELLED, SPARKLE_OK, ignored), 'a cancelled job reports it')
    call pipeline%submit(plan, x(:, 1), y(:1, 1), last, stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'an output too short')
    call pipeline%close()
    call pipeline%submit(plan, x(:, 1), y(:, 1), last, stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_HANDLE, 'a closed pipeline')
    call pipeline%open(device, slots=99, stat=stat)
    call check(stat == SPARKLE_ERROR_INVALID_ARGUMENT, 'too many slots')
  end subroutine streams
end program modern_stream
